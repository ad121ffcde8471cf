"""The wire messages: what an agent and NAS say to each other.

Each message is a frozen class; each of its fields carries its kind, its meaning and an example, and
`REGISTRY` lists them all. The JSON schemas (`json_schema`), the example vectors (`vectors`), the
contract pages and the validation at run time (`decode`) are made of it and of nothing else, so that
they cannot disagree.

Contract 1.0 is what is deployed. 1.1 adds what is below, and who speaks 1.0 can ignore all of it:

* `revision` in a provision or cancel orders the requests of one job; NAS's echo of it says that NAS
  keeps that order, and `stale_revision` is its refusal of a request that comes after a newer one;
* a fire may be answered `skipped` or `missed`, where 1.0 knows only `duplicate` and `gone`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

import attrs

from chronos.protocol.job import Verdict
from chronos.protocol.machine import Answer
from chronos.protocol.schedule import ScheduleError, parse_instant

# An id is a key in stores and in NAS's table, and part of the dedup key: 200 characters leave room
# for both within the 255 that indexed columns commonly have.
MAX_ID_LENGTH = 200

# RFC 3339 with nanoseconds has 35 characters.
MAX_INSTANT_LENGTH = 40

# What browsers and proxies agree to carry.
MAX_URL_LENGTH = 2000

# Texts for people, in answers. What the agent writes there is shorter.
MAX_TEXT_LENGTH = 1000

# The largest integer that every JSON reader keeps exact (RFC 8259, section 6).
MAX_INTEGER = 2**53 - 1

# When NAS may deliver again what could not be settled. Long enough for a passing refusal to pass,
# short against the misfire grace, which is two minutes at the least.
RETRY_AFTER_S = 10

PURPOSE = "cron_fire"
"""What a fire token must say that it is for. Source: contract, "Trust"; incident W8."""


# --- Errors -----------------------------------------------------------------------------------


class MessageError(ValueError):
    """Data that is not the message it should be.

    Never raised itself: `LocalMessageError` and `RemoteMessageError` say who erred.

    Attributes:
        message: the name of the message.
        field: which field, e.g. `armed[3].job_id`; empty when the data as a whole is wrong.
        expected: what should have been there, in words.
        found: what was there instead, in words.
    """

    def __init__(self, message: str, field: str, expected: str, found: str) -> None:
        self.message, self.field, self.expected, self.found = message, field, expected, found
        super().__init__(f"{message}{field and '.'}{field} is {found}; expected {expected}")


class LocalMessageError(MessageError):
    """This side was about to send what is no message: a bug on this side. Nothing was sent."""


class RemoteMessageError(MessageError):
    """The other side sent what is no message.

    Attributes:
        error_status_hint: the HTTP status that answers it, should it have been a request.
    """

    error_status_hint: ClassVar[int] = 400


# --- What a field may hold --------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Kind:
    """What a field may hold.

    Attributes:
        expected: the rule in words, to follow "expected".
        accepts: whether a value, as a JSON reader returned it, keeps the rule.
        schema: the rule as JSON Schema 2020-12; of a list, without its items.
        wrong: values that break it in the example of the message.
        item: of a list, the class of its items, which are messages themselves.
    """

    expected: str
    accepts: Callable[[object], bool]
    schema: Mapping[str, Any]
    wrong: tuple[object, ...]
    item: type[Message] | None = None


def _text(max_length: int, *, pattern: str = ".+", looks: str = "", wrong: tuple[object, ...] = ()) -> Kind:
    """Text of 1 to *max_length* characters, all of which UTF-8 can carry."""
    compiled = re.compile(pattern, re.DOTALL)

    def accepts(value: object) -> bool:
        if not isinstance(value, str) or len(value) > max_length or compiled.fullmatch(value) is None:
            return False
        # A JSON reader lets half of a surrogate pair through; no store and no socket would.
        return not any("\ud800" <= character <= "\udfff" for character in value)

    schema = {"type": "string", "minLength": 1, "maxLength": max_length}
    return Kind(
        expected=looks or f"text of 1 to {max_length} characters",
        accepts=accepts,
        schema=schema | ({"pattern": f"^{pattern}$"} if pattern != ".+" else {}),
        wrong=("", 7, True, ["text"], "x" * (max_length + 1), *wrong),
    )


def _word(*words: str) -> Kind:
    """One of a few words."""
    return Kind(
        expected=" or ".join(words),
        accepts=lambda value: isinstance(value, str) and value in words,
        schema={"type": "string", "enum": list(words)},
        wrong=("", words[0].upper(), 1),
    )


def _list_of(item: type[Message]) -> Kind:
    """A list of messages of one class."""
    return Kind(
        expected=f"a list of {item.__name__}",
        accepts=lambda value: isinstance(value, tuple) and all(isinstance(each, item) for each in value),
        schema={"type": "array"},
        wrong=({}, "[]", 7),
        item=item,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= MAX_INTEGER


# A control character in an id is a mistake that some stores refuse and others do not.
_ID = _text(
    MAX_ID_LENGTH,
    pattern=r"[^\u0000-\u001f\u007f]+",
    looks=f"text of 1 to {MAX_ID_LENGTH} characters, none of them a control character",
    wrong=("a\u0000b", "a\n"),
)
_MOMENT_TEXT = _text(
    MAX_INSTANT_LENGTH,
    pattern=r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})",
)


def _is_moment(value: object) -> bool:
    if not isinstance(value, str) or not _MOMENT_TEXT.accepts(value):
        return False
    try:
        parse_instant(value)
    except ScheduleError:
        return False
    return True


# An instant stays text in a message: its spelling is part of the dedup key.
_MOMENT = Kind(
    expected="an instant with its offset, such as 2026-06-26T12:00:00+00:00",
    accepts=_is_moment,
    schema=dict(_MOMENT_TEXT.schema) | {"format": "date-time"},
    wrong=("", "2026-06-26T12:00:00", "2026-06-26", "tomorrow", "2026-13-01T00:00:00Z", 1782475200, True),
)
_WHOLE = Kind(
    expected=f"a whole number from 0 to {MAX_INTEGER}",
    accepts=lambda value: isinstance(value, int) and _is_number(value),
    schema={"type": "integer", "minimum": 0, "maximum": MAX_INTEGER},
    wrong=(-1, 1.5, "3", True, MAX_INTEGER + 1),
)
_SECONDS = Kind(
    expected=f"seconds since the epoch, a number from 0 to {MAX_INTEGER}",
    accepts=_is_number,
    schema={"type": "number", "minimum": 0, "maximum": MAX_INTEGER},
    wrong=(-1, "3", True),
)
_FLAG = Kind(
    expected="true or false",
    accepts=lambda value: isinstance(value, bool),
    schema={"type": "boolean"},
    wrong=(1, "true"),
)
_URL = _text(
    MAX_URL_LENGTH,
    pattern=r"https?://[^\s]+",
    looks=f"an http or https URL of at most {MAX_URL_LENGTH} characters",
    wrong=("agent.example", "ftp://agent.example"),
)
_WORDS_FOR_PEOPLE = _text(MAX_TEXT_LENGTH)


# --- The registry -----------------------------------------------------------------------------


class Direction(StrEnum):
    """Who says it to whom."""

    AGENT_TO_NAS = "agent to NAS"
    NAS_TO_AGENT = "NAS to agent"
    BOTH = "either way"


class Part(StrEnum):
    """Where a message travels."""

    REQUEST = "request body"
    RESPONSE = "response body"
    TOKEN = "bearer token"
    ITEM = "part of another message"


@attrs.frozen
class Endpoint:
    """A method and a path, below NAS's base URL or the agent's callback URL."""

    method: str
    path: str


PROVISION = Endpoint("POST", "/api/agent-cron/provision")
CANCEL = Endpoint("POST", "/api/agent-cron/cancel")
LIST = Endpoint("GET", "/api/agent-cron/list")
FIRE = Endpoint("POST", "/api/cron/fire")


@attrs.frozen(kw_only=True)
class About:
    """What the contract says of a message as a whole.

    Attributes:
        direction: who sends it to whom.
        part: where it travels.
        endpoints: to which of them it is sent, or which of them it answers.
        statuses: of an answer, each status that it comes with, and when.
        since: the contract version that brought it.
    """

    direction: Direction
    part: Part
    endpoints: tuple[Endpoint, ...]
    statuses: Mapping[int, str] = MappingProxyType({})
    since: str = "1.0"


@attrs.frozen(kw_only=True)
class Field:
    """What the contract says of one field.

    Attributes:
        name: as it is on the wire.
        kind: what it may hold.
        meaning: one sentence.
        example: a value of it, as in JSON.
        is_required: whether the message is refused without it. An optional field that is null reads
            as one that is absent; it is never sent as null.
        since: the contract version that brought it.
    """

    name: str
    kind: Kind
    meaning: str
    example: object
    is_required: bool
    since: str


@attrs.frozen
class Message:
    """A wire message; the classes below are all there are.

    Raises:
        LocalMessageError: on construction, when a field breaks its rule.
    """

    def __attrs_post_init__(self) -> None:
        for field in fields_of(type(self)):
            value = getattr(self, field.name)
            if not field.kind.accepts(value) and (value is not None or field.is_required):
                raise LocalMessageError(type(self).__name__, field.name, field.kind.expected, _brief(value))


M = TypeVar("M", bound=Message)

_REGISTRY: dict[type[Message], About] = {}
_FIELDS: dict[type[Message], tuple[Field, ...]] = {}

REGISTRY: Mapping[type[Message], About] = MappingProxyType(_REGISTRY)
"""Every message of the contract, in the order in which the contract tells them."""


def _registered(
    direction: Direction,
    part: Part,
    *endpoints: Endpoint,
    statuses: Mapping[int, str] = MappingProxyType({}),
    since: str = "1.0",
) -> Callable[[type[M]], type[M]]:
    def register(cls: type[M]) -> type[M]:
        _REGISTRY[cls] = About(
            direction=direction, part=part, endpoints=endpoints, statuses=statuses, since=since
        )
        _FIELDS[cls] = tuple(
            Field(name=attribute.name, is_required=attribute.default is not None, **attribute.metadata)
            for attribute in attrs.fields(cls)
        )
        return cls

    return register


def _says(kind: Kind, meaning: str, *, example: object, since: str = "1.0") -> dict[str, object]:
    """Return the metadata of a field, for `fields_of` to read."""
    return {"kind": kind, "meaning": meaning, "example": example, "since": since}


def fields_of(cls: type[Message]) -> tuple[Field, ...]:
    """Return what the contract says of each field of *cls*, in the order of the message."""
    return _FIELDS[cls]


def dedup_key(job_id: str, fire_at: str) -> str:
    """Return the key by which an arm is told apart: the exact text of both, never re-spelled."""
    return f"{job_id}:{fire_at}"


# --- The messages: agent to NAS ---------------------------------------------------------------

_FIRE_AT = "2026-06-26T12:00:00+00:00"
_ARMED = {"job_id": "job-7", "fire_at": _FIRE_AT, "schedule_id": "sch_01j2", "revision": 12}
_JOB_ID = _says(_ID, "Names the job; unique among the jobs of one agent.", example="job-7")
_SCHEDULE_ID = _says(_text(MAX_TEXT_LENGTH), "NAS's own name for the arm; opaque.", example="sch_01j2")
_REVISION = _says(
    _WHOLE,
    "The job's revision; a request below the newest that NAS has seen is refused.",
    example=12,
    since="1.1",
)
_ECHO = _says(
    _WHOLE, "The revision of the request, from a NAS that keeps their order.", example=12, since="1.1"
)
_DEDUP_KEY = _text(
    MAX_ID_LENGTH + MAX_INSTANT_LENGTH + 1,
    looks="the exact text {job_id}:{fire_at}",
    wrong=("job-7:2026-06-26T12:00:00Z",),
)


@_registered(Direction.AGENT_TO_NAS, Part.REQUEST, PROVISION)
@attrs.frozen(kw_only=True)
class ProvisionRequest(Message):
    """Arm exactly one one-shot for a job, in place of any other arm of that job.

    The same `fire_at` again is a no-op where the arm still stands, and arms anew where it does not;
    a past `fire_at` fires at once.
    """

    job_id: str = attrs.field(metadata=_JOB_ID)
    fire_at: str = attrs.field(
        metadata=_says(_MOMENT, "When to fire, computed by the agent, to the second.", example=_FIRE_AT)
    )
    agent_callback_url: str = attrs.field(
        metadata=_says(
            _URL, "The agent's public base URL, to which the fire goes.", example="https://agent.example"
        )
    )
    dedup_key: str = attrs.field(
        metadata=_says(
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
                "ProvisionRequest", "dedup_key", _DEDUP_KEY.expected, _brief(self.dedup_key)
            )


@_registered(
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


@_registered(Direction.AGENT_TO_NAS, Part.REQUEST, CANCEL)
@attrs.frozen(kw_only=True)
class CancelRequest(Message):
    """Disarm a job; a job without an arm is no error."""

    job_id: str = attrs.field(metadata=_JOB_ID)
    revision: int | None = attrs.field(default=None, metadata=_REVISION)


@_registered(Direction.NAS_TO_AGENT, Part.RESPONSE, CANCEL, statuses={200: "the job has no arm"})
@attrs.frozen(kw_only=True)
class CancelResponse(Message):
    """The job has no arm."""

    ok: bool = attrs.field(metadata=_says(_FLAG, "Always true.", example=True))
    revision: int | None = attrs.field(default=None, metadata=_ECHO)


@_registered(Direction.NAS_TO_AGENT, Part.ITEM, LIST)
@attrs.frozen(kw_only=True)
class Armed(Message):
    """One arm, in the answer to a list."""

    job_id: str = attrs.field(metadata=_JOB_ID)
    # Any text: one row that NAS spells in its own way must not hide all the others.
    fire_at: str = attrs.field(
        metadata=_says(
            _text(MAX_TEXT_LENGTH), "When it fires; the text that was provisioned.", example=_FIRE_AT
        )
    )
    schedule_id: str = attrs.field(metadata=_SCHEDULE_ID)
    revision: int | None = attrs.field(
        default=None,
        metadata=_says(_WHOLE, "The revision of the request that armed it.", example=12, since="1.1"),
    )


@_registered(
    Direction.NAS_TO_AGENT,
    Part.RESPONSE,
    LIST,
    statuses={200: "all arms of the calling agent, in one answer"},
)
@attrs.frozen(kw_only=True)
class ListResponse(Message):
    """All arms of the calling agent."""

    armed: tuple[Armed, ...] = attrs.field(
        metadata=_says(_list_of(Armed), "One entry for each job that is armed.", example=[_ARMED])
    )


@_registered(
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
        metadata=_says(_word("stale_revision"), "Always this word.", example="stale_revision", since="1.1")
    )
    revision: int = attrs.field(
        metadata=_says(_WHOLE, "The newest revision of the job that NAS has seen.", example=14, since="1.1")
    )


# --- The messages: NAS to agent ---------------------------------------------------------------


@_registered(Direction.NAS_TO_AGENT, Part.REQUEST, FIRE)
@attrs.frozen(kw_only=True)
class FireRequest(Message):
    """The instant of an arm has come."""

    job_id: str = attrs.field(metadata=_JOB_ID)
    # An agent that took the occurrence from its own record ran one twice (incident D1).
    fire_at: str = attrs.field(
        metadata=_says(
            _MOMENT,
            "The instant that was armed: with the job, it identifies the occurrence.",
            example=_FIRE_AT,
        )
    )


@_registered(Direction.NAS_TO_AGENT, Part.TOKEN, FIRE)
@attrs.frozen(kw_only=True)
class FireClaims(Message):
    """What the token of a fire says, once its signature was verified."""

    aud: str = attrs.field(
        metadata=_says(_text(MAX_TEXT_LENGTH), "The agent that it is for.", example="agent:inst-1")
    )
    purpose: str = attrs.field(
        metadata=_says(_word(PURPOSE), "What it is for: a fire and nothing else.", example=PURPOSE)
    )
    exp: float = attrs.field(
        metadata=_says(_SECONDS, "Until when it is good, 60 to 120 s after it was made.", example=1782475290)
    )
    iss: str | None = attrs.field(
        default=None,
        metadata=_says(
            _text(MAX_URL_LENGTH), "NAS's base URL, who made it.", example="https://portal.example"
        ),
    )
    iat: float | None = attrs.field(
        default=None, metadata=_says(_SECONDS, "When it was made.", example=1782475200)
    )
    nbf: float | None = attrs.field(
        default=None, metadata=_says(_SECONDS, "From when it is good.", example=1782475200)
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


@_registered(
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
        metadata=_says(
            _word(*(word.value for word in FIRE_WORDS)), "What became of the occurrence.", example="accepted"
        )
    )
    job_id: str | None = attrs.field(default=None, metadata=_JOB_ID)
    reason: str | None = attrs.field(
        default=None,
        metadata=_says(_WORDS_FOR_PEOPLE, "The same in words, for people.", example="claimed", since="1.1"),
    )


@_registered(
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
        503: "not settled, draining, or down; Retry-After says when to come back",
    },
)
@attrs.frozen(kw_only=True)
class ErrorResponse(Message):
    """The request was refused or could not be settled."""

    error: str = attrs.field(
        metadata=_says(_WORDS_FOR_PEOPLE, "One word that says what is wrong.", example="invalid_client")
    )
    reason: str | None = attrs.field(
        default=None,
        metadata=_says(
            _WORDS_FOR_PEOPLE,
            "The same in words, for people.",
            example="the identity is refused",
            since="1.1",
        ),
    )


# --- What is made of the registry -------------------------------------------------------------


def decode(cls: type[M], data: object) -> M:
    """Read a message.

    Strict in what it knows: nothing is coerced. Unknown fields are ignored, so that a later version
    of the contract can add some.

    Args:
        cls: the message that is expected.
        data: what a JSON reader returned.

    Returns:
        The message.

    Raises:
        RemoteMessageError: the data is not that message; it names the field and the rule. Answer a
            request with its `error_status_hint`; take an answer for none.
    """
    if not isinstance(data, dict):
        raise RemoteMessageError(cls.__name__, "", "an object", _brief(data))
    values: dict[str, Any] = {}
    for field in fields_of(cls):
        if field.name in data:
            values[field.name] = _decode_items(cls, field, data[field.name])
        elif field.is_required:
            raise RemoteMessageError(cls.__name__, field.name, field.kind.expected, "absent")
    try:
        return cls(**values)
    except LocalMessageError as error:
        raise RemoteMessageError(error.message, error.field, error.expected, error.found) from None


def _decode_items(cls: type[Message], field: Field, value: object) -> object:
    """Return *value*, with the messages in it decoded when it is a list of messages."""
    if field.kind.item is None or not isinstance(value, list):
        return value
    items = []
    for index, item in enumerate(value):
        try:
            items.append(decode(field.kind.item, item))
        except RemoteMessageError as error:
            path = f"{field.name}[{index}]{error.field and '.'}{error.field}"
            raise RemoteMessageError(cls.__name__, path, error.expected, error.found) from None
    return tuple(items)


def encode(message: Message) -> dict[str, Any]:
    """Return *message* as JSON has it; an optional field that is None is left out."""
    values = ((field.name, getattr(message, field.name)) for field in fields_of(type(message)))
    return {
        name: [encode(item) for item in value] if isinstance(value, tuple) else value
        for name, value in values
        if value is not None
    }


def json_schema(cls: type[Message]) -> dict[str, Any]:
    """Return the schema of a message, JSON Schema 2020-12.

    It accepts what `decode` accepts, save for three rules that a schema cannot say: that the day and
    hour of an instant exist, that a dedup key repeats two other fields, and that text is valid UTF-8.
    """
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | _object_schema(cls)


def _object_schema(cls: type[Message]) -> dict[str, Any]:
    fields = fields_of(cls)
    return {
        "title": cls.__name__,
        "description": (cls.__doc__ or "").split("\n\n")[0],
        "type": "object",
        "properties": {field.name: _field_schema(field) for field in fields},
        "required": [field.name for field in fields if field.is_required],
    }


def _field_schema(field: Field) -> dict[str, Any]:
    rule = dict(field.kind.schema)
    if field.kind.item is not None:
        rule["items"] = _object_schema(field.kind.item)
    if not field.is_required:
        rule["type"] = [rule["type"], "null"]
    return rule | {"description": field.meaning, "examples": [field.example]}


def example(cls: type[Message]) -> dict[str, Any]:
    """Return the example of a message, with all of its fields, as JSON has it."""
    return {field.name: field.example for field in fields_of(cls)}


@attrs.frozen(kw_only=True)
class Vector:
    """One example of what `decode` reads or refuses, for whoever writes the other side.

    Attributes:
        message: the name of the message.
        name: what the vector shows.
        data: as JSON has it.
        refused: the field for which it is refused, or empty for the data as a whole; None when it is
            accepted.
    """

    message: str
    name: str
    data: object
    refused: str | None = None


def vectors(cls: type[Message]) -> tuple[Vector, ...]:
    """Return examples of *cls*, accepted and refused: at least one for each rule of each field."""
    whole, fields = example(cls), fields_of(cls)
    least = {field.name: field.example for field in fields if field.is_required}
    nulls: dict[str, Any] = {field.name: None for field in fields if not field.is_required}

    def vector(name: str, data: object, refused: str | None = None) -> Vector:
        return Vector(message=cls.__name__, name=name, data=data, refused=refused)

    found = [
        vector("complete", whole),
        vector("an unknown field is ignored", whole | {"of_a_later_version": 1}),
    ]
    if nulls:
        found += [vector("required fields alone", least), vector("null reads as absent", least | nulls)]
    no_objects: tuple[object, ...] = ([], "text", None)
    found += [vector(f"{_brief(data)} in place of an object", data, "") for data in no_objects]
    for field in fields:
        if field.is_required:
            without = {name: value for name, value in whole.items() if name != field.name}
            found.append(vector(f"without {field.name}", without, field.name))
        for wrong in (*field.kind.wrong, *(() if field.name in nulls else (None,))):
            found.append(vector(f"{field.name} is {_brief(wrong)}", whole | {field.name: wrong}, field.name))
    return tuple(found)


def _brief(value: object) -> str:
    """Return *value* in words, short enough for a message."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return repr(value) if len(value) <= 60 else f"{value[:40]!r} and so on, {len(value)} characters"
        case int() | float():
            return f"the number {value!r}" if _is_number(value) else "a number out of range"
        case dict():
            return "an object"
        case list() | tuple():
            return "a list"
    return f"a {type(value).__name__}"


# --- How a fire is answered -------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class HttpAnswer:
    """An HTTP answer, as a value.

    Attributes:
        status: the HTTP status.
        body: the message.
        retry_after_s: when to come back, seconds; None when there is nothing to come back for.
    """

    status: int
    body: FireAnswer | ErrorResponse
    retry_after_s: int | None = None


def unsettled(reason: str, *, error: str = "not_settled") -> HttpAnswer:
    """Return the answer that makes NAS deliver a fire again."""
    return HttpAnswer(status=503, body=ErrorResponse(error=error, reason=reason), retry_after_s=RETRY_AFTER_S)


def answer_to_fire(answer: Answer) -> HttpAnswer:
    """Return how to answer the fire of which the protocol says *answer*.

    Settled is 202 with a run and 200 without one. What is not settled is 503, whether or not a run
    was started: the redelivery finds the claim, runs nothing, and finishes the arm.

    Source: contract, "NAS to agent"; incidents L6, L7.
    """
    if answer.verdict is None:
        return unsettled(answer.reason)
    if not answer.settled:
        return unsettled(f"{answer.verdict}, but the next arm was not accepted")
    if answer.verdict not in FIRE_WORDS:
        raise ValueError(f"verdict {answer.verdict} answers no fire; expected one of {', '.join(FIRE_WORDS)}")
    body = FireAnswer(status=answer.verdict.value, job_id=answer.job_id, reason=answer.reason)
    return HttpAnswer(status=202 if answer.verdict is Verdict.ACCEPTED else 200, body=body)
