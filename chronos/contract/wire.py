"""What a wire message is: classes with fields of a kind, read from JSON and written to it.

The messages themselves are in `chronos.contract.messages`. Each is a frozen class, registered with
what the contract says of it and of each of its fields, and validated by nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeVar

import attrs
from msgspec import Struct

from chronos.errors import LocalMessageError as LocalMessageError
from chronos.errors import RemoteMessageError as RemoteMessageError

# The largest integer that every JSON reader keeps exact (RFC 8259, section 6).
MAX_INTEGER = 2**53 - 1


# --- What the contract says -------------------------------------------------------------------


class Kind(Struct, frozen=True, kw_only=True):
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


class Endpoint(Struct, frozen=True):
    """A method and a path, below NAS's base URL or the agent's callback URL."""

    method: str
    path: str


class About(Struct, frozen=True, kw_only=True):
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


class Field(Struct, frozen=True, kw_only=True):
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
    """A wire message; those of `chronos.contract.messages` are all there are.

    Raises:
        LocalMessageError: on construction, when a field breaks its rule.
    """

    def __attrs_post_init__(self) -> None:
        for field in fields_of(type(self)):
            value = getattr(self, field.name)
            if not field.kind.accepts(value) and (value is not None or field.is_required):
                raise LocalMessageError(type(self).__name__, field.name, field.kind.expected, brief(value))


M = TypeVar("M", bound=Message)

REGISTERED: dict[type[Message], About] = {}
"""What `registered` was told so far; `chronos.contract.messages.REGISTRY` has every message."""

_FIELDS: dict[type[Message], tuple[Field, ...]] = {}


def registered(
    direction: Direction,
    part: Part,
    *endpoints: Endpoint,
    statuses: Mapping[int, str] = MappingProxyType({}),
    since: str = "1.0",
) -> Callable[[type[M]], type[M]]:
    """Return the decorator of a message class, which notes what the contract says of it. See `About`."""

    def register(cls: type[M]) -> type[M]:
        REGISTERED[cls] = About(
            direction=direction, part=part, endpoints=endpoints, statuses=statuses, since=since
        )
        _FIELDS[cls] = tuple(
            Field(name=attribute.name, is_required=attribute.default is not None, **attribute.metadata)
            for attribute in attrs.fields(cls)
        )
        return cls

    return register


def says(kind: Kind, meaning: str, *, example: object, since: str = "1.0") -> dict[str, object]:
    """Return the metadata of a field, for `registered` to read. See `Field`."""
    return {"kind": kind, "meaning": meaning, "example": example, "since": since}


def fields_of(cls: type[Message]) -> tuple[Field, ...]:
    """Return what the contract says of each field of *cls*, in the order of the message."""
    return _FIELDS[cls]


# --- From JSON and to it ----------------------------------------------------------------------


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
        raise RemoteMessageError(cls.__name__, "", "an object", brief(data))
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


def is_number(value: object) -> bool:
    """Return whether *value* is a number that every JSON reader keeps, and is not below zero."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= MAX_INTEGER


def brief(value: object) -> str:
    """Return *value* in words, short enough for a message."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return repr(value) if len(value) <= 60 else f"{value[:40]!r} and so on, {len(value)} characters"
        case int() | float():
            return f"the number {value!r}" if is_number(value) else "a number out of range"
        case dict():
            return "an object"
        case list() | tuple():
            return "a list"
    return f"a {type(value).__name__}"
