"""What a client of NAS does for one call, decided without doing any of it.

An `Exchange` is a generator. It yields what to do next (`FetchToken`, `Send`, `Pause`), is sent the
outcome, and ends with the answer or with what went wrong. The clients of `chronos.nas.client` perform the
steps, one of them in threads and one in asyncio; what they have in common is here, once:

* a request that is refused for its token is sent once more, with a fresh one;
* a failure that may pass is met with the same request again, `MAX_RETRIES` times at most and only
  while the budget lasts: each of NAS's requests does the same when it is made twice;
* the wait that NAS asks for binds all calls of the client. One that would wait for longer than its
  budget fails at once instead;
* a refused identity stops the client, since nothing but a new login mends it (incident L4);
* an error is definite only if no send of the call may have had its effect.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Generator, Mapping
from typing import Generic, TypeAlias, TypeVar

import attrs
from msgspec import Struct

from chronos import arguments
from chronos.contract import messages, wire
from chronos.errors import InvalidClient, NasError, NasRefused, NasUnavailable, ScheduleError, StaleRevision
from chronos.jobs.instants import Instant, format_instant, instant_of, needed, parse_instant, whole_second
from chronos.nas.answer import date_of, read_answer

# Who calls comes back by itself: a scheduler after 5, 15 and 45 s, a redelivered fire after 10 s and
# more. Two more sends outlast what passes in a moment, such as a restart or a kept connection that
# the other side had closed, and do not make a crowd of the agents that meet an outage together.
MAX_RETRIES = 2

# The wait before the first retry lies between zero and this, and doubles with the next one: evenly
# spread, since many agents wake at the same full minute.
BACKOFF_S = 0.5

# Answers that say that the next one may be another. The rest of 5xx, such as 501, does not.
PASSING_STATUSES = frozenset({408, 429, 500, 502, 503, 504})

M = TypeVar("M", bound=wire.Message)
T = TypeVar("T")


# --- Steps and their outcomes -----------------------------------------------------------------


class FetchToken(Struct, frozen=True, kw_only=True):
    """Get the agent's access token; the outcome is what the provider returned, or `NasUnavailable`.

    Attributes:
        is_fresh: whether a token that was used before will not do.
        within_s: how long it may take, seconds; None for no bound.
    """

    is_fresh: bool
    within_s: float | None = None


@attrs.frozen(kw_only=True)
class Send:
    """Send a request; the outcome is a `Reply`, or `NasUnavailable`.

    Attributes:
        endpoint: method, and path below NAS's base URL.
        content: the body, JSON; None for none.
        token: the bearer token, which no log shall show.
        within_s: how long it may take, seconds, if that is less than the client allows; None if not.
    """

    endpoint: wire.Endpoint
    content: bytes | None
    token: str = attrs.field(repr=False)
    within_s: float | None = None


class Pause(Struct, frozen=True, kw_only=True):
    """Wait for *pause_s* seconds; the outcome is None."""

    pause_s: float


class Reply(Struct, frozen=True, kw_only=True):
    """An HTTP answer, of any status.

    Attributes:
        status: the HTTP status.
        headers: names in any case that the mapping understands.
        body: decompressed; of one that is too long to be read, what was read of it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


Step: TypeAlias = FetchToken | Send | Pause
Outcome: TypeAlias = str | Reply | NasUnavailable | None
Exchange: TypeAlias = Generator[Step, Outcome, T]


class ArmAnswer(Struct, frozen=True):
    """NAS has done as it was asked.

    Attributes:
        echoed: whether it repeated the revision, which is its word that it keeps their order.
        date_us: NAS's time when it answered, epoch microseconds, UTC; None when it did not say.
    """

    echoed: bool
    date_us: Instant | None = None


class ArmList(dict[str, "Instant | None"]):
    """What NAS has armed: the instant of each job, None when NAS's text for it is none.

    Attributes:
        date_us: NAS's time when it answered, epoch microseconds, UTC; None when it did not say.
    """

    date_us: Instant | None = None


# --- Exchanges --------------------------------------------------------------------------------


class Terms(Struct, frozen=True, kw_only=True):
    """What a client's exchanges go by.

    Attributes:
        retry_for_s: a retry begins less than this many seconds after its call, or not at all.
        clock: returns the present instant, seconds since the epoch.
        monotonic: returns seconds that only grow.
        random: returns a number from 0 up to 1.
    """

    retry_for_s: float
    clock: Callable[[], float]
    monotonic: Callable[[], float]
    random: Callable[[], float]


class Exchanges:
    """Makes the exchanges of one client. What they learn of NAS binds the later ones; thread-safe.

    Args:
        callback_url: this agent's public base URL.
        terms: what they go by.
    """

    def __init__(self, callback_url: str, terms: Terms) -> None:
        self._callback_url = callback_url.rstrip("/")
        self._terms = terms
        self._standing = Standing()

    @property
    def is_refused(self) -> bool:
        """Whether NAS has refused the agent's identity."""
        return self._standing.is_refused

    def reset(self) -> None:
        """Ask NAS again, though it has refused the identity; the next token is a fresh one."""
        self._standing.reset()

    def provision(
        self, job_id: str, fire_at_us: Instant, revision: int | None, within_s: float | None = None
    ) -> Exchange[ArmAnswer]:
        """Arm a job. The exchange raises `NasError`, as `chronos.nas.client.NasClient` describes it."""
        try:
            fire_at_us = needed("fire_at", instant_of("fire_at", None, fire_at_us))
            request = messages.ProvisionRequest(
                job_id=job_id,
                fire_at=format_instant(fire_at_us),
                agent_callback_url=self._callback_url,
                revision=revision,
            )
        except (wire.LocalMessageError, ScheduleError) as error:
            raise NasRefused(f"not sent: {error}") from error
        answer, date_us = yield from self._ask(
            messages.PROVISION, request, messages.ProvisionResponse, within_s
        )
        return ArmAnswer(echoed=revision is not None and answer.revision == revision, date_us=date_us)

    def cancel(self, job_id: str, revision: int | None, within_s: float | None = None) -> Exchange[ArmAnswer]:
        """Disarm a job. See `provision`."""
        try:
            request = messages.CancelRequest(job_id=job_id, revision=revision)
        except wire.LocalMessageError as error:
            raise NasRefused(f"not sent: {error}") from error
        reads = messages.CancelResponse
        answer, date_us = yield from self._ask(messages.CANCEL, request, reads, within_s)
        if not answer.ok:
            raise NasUnavailable("NAS answered a cancel with ok: false")
        return ArmAnswer(echoed=revision is not None and answer.revision == revision, date_us=date_us)

    def list_arms(self, within_s: float | None = None) -> Exchange[ArmList]:
        """List the arms. See `provision`."""
        try:
            answer, date_us = yield from self._ask(messages.LIST, None, messages.ListResponse, within_s)
        except StaleRevision as error:
            raise NasRefused("NAS answered a list with a revision, which a list does not have") from error
        arms = ArmList()
        arms.date_us = date_us
        for arm in answer.armed:
            arms[arm.job_id] = None if arm.job_id in arms else _instant(arm.fire_at)
        return arms

    def _ask(
        self,
        endpoint: wire.Endpoint,
        request: wire.Message | None,
        reads: type[M],
        within_s: float | None,
    ) -> Exchange[tuple[M, Instant | None]]:
        """Send a request and read its answer, as often as it takes and is allowed; and NAS's time then."""
        import json

        call = _Call(
            endpoint=endpoint,
            content=None if request is None else json.dumps(wire.encode(request)).encode(),
            reads=reads,
            terms=self._terms,
            standing=self._standing,
            within_s=within_s,
        )
        if within_s is not None:
            arguments.seconds("within_s", within_s)
        logins = self._standing.logins
        try:
            return (yield from call.steps()), call.date_us
        except NasError as error:
            error.date_us = call.date_us
            if call.is_in_doubt:
                error.definite = False
            if isinstance(error, InvalidClient):
                self._standing.refuse(logins)
            raise


@attrs.define(kw_only=True)
class _Call(Generic[M]):
    """One call: a request with its retries.

    Attributes:
        within_s: how long it may take in all, seconds; None for no bound but that of the retries.
        is_in_doubt: whether a send so far may have had its effect.
        date_us: NAS's time in its last answer; None when it did not say.
    """

    endpoint: wire.Endpoint
    content: bytes | None
    reads: type[M]
    terms: Terms
    standing: Standing
    within_s: float | None = None
    is_in_doubt: bool = False
    date_us: Instant | None = None
    retries: int = 0
    began_s: float = attrs.field(init=False)
    waited_s: float = 0.0

    def __attrs_post_init__(self) -> None:
        self.began_s = self.terms.monotonic()

    def steps(self) -> Exchange[M]:
        token: str | None = None
        is_fresh = self.standing.distrusts_token
        failure: NasUnavailable | None = None
        while True:
            yield from self._turn(failure)
            if token is None:
                token = yield from self._token(failure, is_fresh=is_fresh)
            outcome = yield Send(
                endpoint=self.endpoint, content=self.content, token=token, within_s=self._left_s(failure)
            )
            if isinstance(outcome, Reply) and outcome.status == 401 and not is_fresh:
                token, is_fresh, failure = None, True, None
                continue
            try:
                return self._read(outcome)
            except NasUnavailable as error:
                self._note(error)
                if self.retries == MAX_RETRIES or not _may_pass(outcome):
                    raise
                failure = error
            self.retries += 1

    def _turn(self, failure: NasUnavailable | None) -> Exchange[None]:
        """Wait until the next send may begin; raise when that would be too late.

        Args:
            failure: what became of the last send, when the next one is a retry.
        """
        is_due = failure is None
        while True:
            wait_s = self.standing.wait_s(self.terms.monotonic())
            if is_due and wait_s == 0:
                return
            # A wait that NAS asked for ends for all who wait at once: they are spread as well.
            pause_s = wait_s + BACKOFF_S * 2 ** max(self.retries - 1, 0) * self.terms.random()
            if self._elapsed_s() + pause_s >= min(
                self.terms.retry_for_s, math.inf if self.within_s is None else self.within_s
            ):
                raise failure or not_yet(wait_s)
            yield Pause(pause_s=pause_s)
            self.waited_s += pause_s
            is_due, failure = True, None

    def _elapsed_s(self) -> float:
        # A clock that stands still, as in a test, must not make a call wait for ever.
        return max(self.terms.monotonic() - self.began_s, self.waited_s)

    def _bound_s(self) -> float:
        return math.inf if self.within_s is None else self.within_s

    def _left_s(self, failure: NasUnavailable | None) -> float | None:
        """Return how long the next send may take; raise when the time of the call is over."""
        if self.within_s is None:
            return None
        left_s = self.within_s - self._elapsed_s()
        if left_s <= 0:
            late = NasUnavailable(f"not sent: the {self.within_s:g} s for this call are over", definite=True)
            raise failure or late
        return left_s

    def _token(self, failure: NasUnavailable | None, *, is_fresh: bool) -> Exchange[str]:
        """Ask for a token; one that no header can carry is none."""
        token = yield FetchToken(is_fresh=is_fresh, within_s=self._left_s(failure))
        if isinstance(token, NasUnavailable):
            raise token
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
            problem = "the token provider returned what is no access token: expected ASCII without spaces"
            raise NasUnavailable(problem, definite=True)
        if is_fresh:
            self.standing.trust_token()
        return token

    def _read(self, outcome: Outcome) -> M:
        if isinstance(outcome, NasUnavailable):
            raise outcome
        assert isinstance(outcome, Reply)
        self.date_us = date_of(outcome.headers)
        return read_answer(outcome.status, outcome.headers, outcome.body, self.reads, clock=self.terms.clock)

    def _note(self, error: NasUnavailable) -> None:
        self.is_in_doubt = self.is_in_doubt or not error.definite
        if error.retry_after_s is not None:
            self.standing.close(self.terms.monotonic() + error.retry_after_s)


def _may_pass(outcome: Outcome) -> bool:
    return not isinstance(outcome, Reply) or outcome.status in PASSING_STATUSES


def not_yet(wait_s: float) -> NasUnavailable:
    """Return the failure of a call that may not be made for so many seconds."""
    return NasUnavailable(
        f"not sent: NAS has asked not to be called for another {wait_s:.1f} s",
        definite=True,
        retry_after_s=wait_s,
    )


class Standing:
    """What the calls of one client have learned of NAS. Any thread may ask, and any may tell."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opens_s = float("-inf")
        self.is_refused = False
        self.distrusts_token = False
        self.logins = 0

    def wait_s(self, now_s: float) -> float:
        """Return how long NAS is not to be called, seconds; raise when it is not to be called at all."""
        if self.is_refused:
            raise InvalidClient
        return max(0.0, self._opens_s - now_s)

    def close(self, until_s: float) -> None:
        """Note that NAS is not to be called before an instant; the latest of several counts."""
        with self._lock:
            self._opens_s = max(self._opens_s, until_s)

    def refuse(self, logins: int) -> None:
        """Note that NAS refuses the identity, unless that was the identity before the last reset."""
        with self._lock:
            self.is_refused = self.is_refused or logins == self.logins

    def reset(self) -> None:
        """Note that the identity may be good again; then a token of before is of the old one."""
        with self._lock:
            self.distrusts_token = self.distrusts_token or self.is_refused
            self.is_refused = False
            self.logins += 1

    def trust_token(self) -> None:
        """Note that the provider has returned a token that is new."""
        self.distrusts_token = False


def _instant(text: str) -> Instant | None:
    """Return the instant of an arm, to the second however NAS spells it; None when it is none."""
    try:
        return whole_second(parse_instant(text))
    except ScheduleError:
        return None
