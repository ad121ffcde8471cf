"""The wire messages: what an agent and NAS say to each other.

Each message is a frozen class; each of its fields carries its kind, its meaning and an example, and
`REGISTRY` lists them all. The validation at run time (`chronos.contract.wire`), the JSON schemas and
the example vectors (`chronos.contract.schema`), and the contract pages are made of it and of nothing
else, so that they cannot disagree.

Contract 1.0 is what is deployed. 1.1 adds what is below, and who speaks 1.0 can ignore all of it:

* `revision` in a provision or cancel orders the requests of one job; NAS's echo of it says that NAS
  keeps that order, and `stale_revision` is its refusal of a request that comes after a newer one;
* a fire may be answered `skipped` or `missed`, where 1.0 knows only `duplicate` and `gone`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

import attrs
from msgspec import Struct

from chronos.contract import kinds
from chronos.contract.wire import (
    REGISTERED,
    About,
    Direction,
    Endpoint,
    LocalMessageError,
    Message,
    Part,
    brief,
    registered,
    says,
)
from chronos.jobs.instants import SECOND_US
from chronos.jobs.job import Verdict
from chronos.protocol.flow_effects import Answer

# When NAS may deliver again what could not be settled. Long enough for a passing refusal to pass,
# short against the misfire grace, which is two minutes at the least.
RETRY_AFTER_S = 10

PURPOSE = "cron_fire"
"""What a fire token must say that it is for. Source: contract, "Trust"; incident W8."""

PROVISION = Endpoint("POST", "/api/agent-cron/provision")
CANCEL = Endpoint("POST", "/api/agent-cron/cancel")
LIST = Endpoint("GET", "/api/agent-cron/list")
FIRE = Endpoint("POST", "/api/cron/fire")


def dedup_key(job_id: str, fire_at: str) -> str:
    """Return the key by which an arm is told apart: the exact text of both, never re-spelled."""
    return f"{job_id}:{fire_at}"


# --- The messages: agent to NAS ---------------------------------------------------------------

_FIRE_AT = "2026-06-26T12:00:00+00:00"
_ARMED = {"job_id": "job-7", "fire_at": _FIRE_AT, "schedule_id": "sch_01j2", "revision": 12}
_JOB_ID = says(kinds.ID, "Names the job; unique among the jobs of one agent.", example="job-7")
_SCHEDULE_ID = says(
    kinds.text(kinds.MAX_TEXT_LENGTH), "NAS's own name for the arm; opaque.", example="sch_01j2"
)
_REVISION = says(
    kinds.WHOLE,
    "The job's revision; a request below the newest that NAS has seen is refused.",
    example=12,
    since="1.1",
)
_ECHO = says(
    kinds.WHOLE, "The revision of the request, from a NAS that keeps their order.", example=12, since="1.1"
)
_DEDUP_KEY = kinds.text(
    kinds.MAX_ID_LENGTH + kinds.MAX_INSTANT_LENGTH + 1,
    looks="the exact text {job_id}:{fire_at}",
    wrong=("job-7:2026-06-26T12:00:00Z",),
)


@registered(Direction.AGENT_TO_NAS, Part.REQUEST, PROVISION)
@attrs.frozen(kw_only=True)
class ProvisionRequest(Message):
    """Arm exactly one one-shot for a job, in place of any other arm of that job.

    The same `fire_at` again is a no-op where the arm still stands, and arms anew where it does not, or
    where it is being delivered; a past `fire_at` fires at once.
    """

    job_id: str = attrs.field(metadata=_JOB_ID)
    fire_at: str = attrs.field(
        metadata=says(
            kinds.WHOLE_SECOND, "When to fire, computed by the agent, in whole seconds.", example=_FIRE_AT
        )
    )
    agent_callback_url: str = attrs.field(
        metadata=says(
            kinds.URL, "The agent's public base URL, to which the fire goes.", example="https://agent.example"
        )
    )
    dedup_key: str = attrs.field(
        metadata=says(
            _DEDUP_KEY,
            "The exact text `{job_id}:{fire_at}`, as spelled in this request.",
            example=dedup_key("job-7", _FIRE_AT),
        )
    )
    revision: int | None = attrs.field(default=None, metadata=_REVISION)

    @dedup_key.default
    def _exact_dedup_key(self) -> str:
        return dedup_key(self.job_id, self.fire_at)

    def __attrs_post_init__(self) -> None:
        Message.__attrs_post_init__(self)
        if self.dedup_key != dedup_key(self.job_id, self.fire_at):
            raise LocalMessageError(
                "ProvisionRequest", "dedup_key", _DEDUP_KEY.expected, brief(self.dedup_key)
            )


@registered(
    Direction.NAS_TO_AGENT,
    Part.RESPONSE,
    PROVISION,
    statuses={200: "the arm stands, and survives NAS's own restart"},
)
@attrs.frozen(kw_only=True)
class ProvisionResponse(Message):
    """The arm stands."""

    schedule_id: str = attrs.field(metadata=_SCHEDULE_ID)
    revision: int | None = attrs.field(default=None, metadata=_ECHO)


@registered(Direction.AGENT_TO_NAS, Part.REQUEST, CANCEL)
@attrs.frozen(kw_only=True)
class CancelRequest(Message):
    """Disarm a job; a job without an arm is no error."""

    job_id: str = attrs.field(metadata=_JOB_ID)
    revision: int | None = attrs.field(default=None, metadata=_REVISION)


@registered(Direction.NAS_TO_AGENT, Part.RESPONSE, CANCEL, statuses={200: "the job has no arm"})
@attrs.frozen(kw_only=True)
class CancelResponse(Message):
    """The job has no arm."""

    ok: bool = attrs.field(metadata=says(kinds.FLAG, "Always true.", example=True))
    revision: int | None = attrs.field(default=None, metadata=_ECHO)


@registered(Direction.NAS_TO_AGENT, Part.ITEM, LIST)
@attrs.frozen(kw_only=True)
class Armed(Message):
    """One arm, in the answer to a list."""

    job_id: str = attrs.field(metadata=_JOB_ID)
    # Any text: one row that NAS spells in its own way must not hide all the others.
    fire_at: str = attrs.field(
        metadata=says(
            kinds.text(kinds.MAX_TEXT_LENGTH),
            "When it fires; the text that was provisioned.",
            example=_FIRE_AT,
        )
    )
    schedule_id: str = attrs.field(metadata=_SCHEDULE_ID)
    revision: int | None = attrs.field(
        default=None,
        metadata=says(kinds.WHOLE, "The revision of the request that armed it.", example=12, since="1.1"),
    )


@registered(
    Direction.NAS_TO_AGENT,
    Part.RESPONSE,
    LIST,
    statuses={200: "all arms of the calling agent, in one answer"},
)
@attrs.frozen(kw_only=True)
class ListResponse(Message):
    """All arms of the calling agent."""

    armed: tuple[Armed, ...] = attrs.field(
        metadata=says(kinds.list_of(Armed), "One entry for each job that is armed.", example=[_ARMED])
    )


@registered(
    Direction.NAS_TO_AGENT,
    Part.RESPONSE,
    PROVISION,
    CANCEL,
    statuses={409: "NAS has seen a newer revision of this job; nothing was armed or cancelled"},
    since="1.1",
)
@attrs.frozen(kw_only=True)
class StaleRevisionResponse(Message):
    """A request that comes after a newer one is refused."""

    error: str = attrs.field(
        metadata=says(
            kinds.word("stale_revision"), "Always this word.", example="stale_revision", since="1.1"
        )
    )
    revision: int = attrs.field(
        metadata=says(
            kinds.WHOLE, "The newest revision of the job that NAS has seen.", example=14, since="1.1"
        )
    )


# --- The messages: NAS to agent ---------------------------------------------------------------


@registered(Direction.NAS_TO_AGENT, Part.REQUEST, FIRE)
@attrs.frozen(kw_only=True)
class FireRequest(Message):
    """The instant of an arm has come."""

    job_id: str = attrs.field(metadata=_JOB_ID)
    # An agent that took the occurrence from its own record ran one twice (incident D1).
    fire_at: str = attrs.field(
        metadata=says(
            kinds.MOMENT,
            "The instant that was armed: with the job, it identifies the occurrence.",
            example=_FIRE_AT,
        )
    )


@registered(Direction.NAS_TO_AGENT, Part.TOKEN, FIRE)
@attrs.frozen(kw_only=True)
class FireClaims(Message):
    """What the token of a fire says, once its signature was verified."""

    aud: str = attrs.field(
        metadata=says(kinds.text(kinds.MAX_TEXT_LENGTH), "The agent that it is for.", example="agent:inst-1")
    )
    purpose: str = attrs.field(
        metadata=says(kinds.word(PURPOSE), "What it is for: a fire and nothing else.", example=PURPOSE)
    )
    exp: float = attrs.field(
        metadata=says(
            kinds.SECONDS, "Until when it is good, 60 to 120 s after it was made.", example=1782475290
        )
    )
    iss: str | None = attrs.field(
        default=None,
        metadata=says(
            kinds.text(kinds.MAX_URL_LENGTH), "NAS's base URL, who made it.", example="https://portal.example"
        ),
    )
    iat: float | None = attrs.field(
        default=None, metadata=says(kinds.SECONDS, "When it was made.", example=1782475200)
    )
    nbf: float | None = attrs.field(
        default=None, metadata=says(kinds.SECONDS, "From when it is good.", example=1782475200)
    )


# The protocol's own words, so that the two cannot drift apart.
FIRE_WORDS = (
    Verdict.ACCEPTED,
    Verdict.DUPLICATE,
    Verdict.GONE,
    Verdict.SKIPPED,
    Verdict.MISSED,
    Verdict.STOPPED,
)


@registered(
    Direction.AGENT_TO_NAS,
    Part.RESPONSE,
    FIRE,
    statuses={
        200: "nothing to run and nothing to retry; the status says why",
        202: "claimed durably and the next arm accepted; the job runs after the answer",
    },
)
@attrs.frozen(kw_only=True)
class FireAnswer(Message):
    """What became of a fire; NAS need not deliver it again.

    `skipped` (a run was still in flight) and `missed` (too late to run) are words of contract 1.1;
    NAS reads the HTTP status alone, so that one of 1.0 is content with them.
    """

    status: str = attrs.field(
        metadata=says(
            kinds.word(*(word.value for word in FIRE_WORDS)),
            "What became of the occurrence.",
            example="accepted",
        )
    )
    job_id: str | None = attrs.field(default=None, metadata=_JOB_ID)
    reason: str | None = attrs.field(
        default=None,
        metadata=says(
            kinds.WORDS_FOR_PEOPLE, "The same in words, for people.", example="claimed", since="1.1"
        ),
    )


@registered(
    Direction.BOTH,
    Part.RESPONSE,
    PROVISION,
    CANCEL,
    LIST,
    FIRE,
    statuses={
        400: "not the message; sending it again does not help",
        401: "the token is not good; a fire's answer does not say why",
        403: "`invalid_client`: the identity is refused, and no retry mends that",
        404: "no such path",
        405: "no such method",
        413: "the body is too large",
        415: "the body is not JSON",
        429: "too many requests; Retry-After says when to come back",
        503: "not settled, too early, draining, or down; Retry-After says when to come back",
    },
)
@attrs.frozen(kw_only=True)
class ErrorResponse(Message):
    """The request was refused or could not be settled."""

    error: str = attrs.field(
        metadata=says(kinds.WORDS_FOR_PEOPLE, "One word that says what is wrong.", example="invalid_client")
    )
    reason: str | None = attrs.field(
        default=None,
        metadata=says(
            kinds.WORDS_FOR_PEOPLE,
            "The same in words, for people.",
            example="the identity is refused",
            since="1.1",
        ),
    )


REGISTRY: Mapping[type[Message], About] = MappingProxyType(REGISTERED)
"""Every message of the contract, in the order in which the contract tells them."""


# --- How a fire is answered -------------------------------------------------------------------


class HttpAnswer(Struct, frozen=True, kw_only=True):
    """An HTTP answer, as a value.

    Attributes:
        status: the HTTP status.
        body: the message.
        retry_after_s: when to come back, seconds; None when there is nothing to come back for.
    """

    status: int
    body: FireAnswer | ErrorResponse
    retry_after_s: int | None = None


def unsettled(reason: str, *, error: str = "not_settled", retry_after_s: int = RETRY_AFTER_S) -> HttpAnswer:
    """Return the answer that makes NAS deliver a fire again, not sooner than after so many seconds."""
    return HttpAnswer(status=503, body=ErrorResponse(error=error, reason=reason), retry_after_s=retry_after_s)


def callback_url_problem(url: str) -> str | None:
    """Return why *url* is no base to which NAS could append the path of a fire; None when it is one.

    Source: contract, "NAS to agent"; incident V1.
    """
    bare = url.split("#")[0].split("?")[0]
    if leads_to_fires(bare):
        return f"ends in {FIRE.path}, which NAS appends itself; expected the base URL before that"
    return None if bare == url else "has a query or a fragment; expected a base URL without"


def leads_to_fires(path: str) -> bool:
    """Return whether *path* ends like that of a fire, in whatever case and with whatever slashes."""
    return re.sub(r"/+", "/", f"/{path.rstrip('/')}").lower().endswith(FIRE.path)


def status_of(answer: Answer) -> int:
    """Return the HTTP status of the answer to a fire: 202 with a run, 200 without one, 503 for unsettled."""
    if not answer.settled or answer.verdict is Verdict.EARLY:
        return 503
    return 202 if answer.verdict is Verdict.ACCEPTED else 200


def answer_to_fire(answer: Answer) -> HttpAnswer:
    """Return how to answer the fire of which the protocol says *answer*.

    Settled is 202 with a run and 200 without one. What is not settled is 503, whether or not a run
    was started: the redelivery finds the claim, runs nothing, and finishes the arm. A fire for an instant
    that is still to come is never settled: 200 would consume the arm.

    Source: contract, "NAS to agent"; incidents L6, L7, T2.
    """
    if answer.verdict is Verdict.EARLY:
        return unsettled(answer.reason, error=answer.verdict.value)
    if not answer.settled:
        if answer.verdict is None and answer.retry_after_us:
            return unsettled(answer.reason, retry_after_s=answer.retry_after_us // SECOND_US)
        has_moved = answer.verdict not in (None, Verdict.LOST)
        reason = f"{answer.verdict}, but the next arm was not accepted" if has_moved else answer.reason
        return unsettled(reason)
    if answer.verdict not in FIRE_WORDS:
        raise ValueError(f"verdict {answer.verdict} answers no fire; expected one of {', '.join(FIRE_WORDS)}")
    body = FireAnswer(status=answer.verdict.value, job_id=answer.job_id, reason=answer.reason)
    return HttpAnswer(status=status_of(answer), body=body)
