"""The kinds of fields that wire messages have, each with its rule in words, in code and as a schema."""

from __future__ import annotations

import re

from chronos.contract.wire import MAX_INTEGER, Kind, Message, is_number
from chronos.errors import ScheduleError
from chronos.jobs.instants import parse_instant

# An id is a key in stores and in NAS's table, and part of the dedup key: 200 characters leave room
# for both within the 255 that indexed columns commonly have.
MAX_ID_LENGTH = 200

# RFC 3339 with nanoseconds has 35 characters.
MAX_INSTANT_LENGTH = 40

# What browsers and proxies agree to carry.
MAX_URL_LENGTH = 2000

# Texts for people, in answers. What the agent writes there is shorter.
MAX_TEXT_LENGTH = 1000

# Half of a surrogate pair: a JSON reader lets it through, and no store and no socket would.
_HALF_A_PAIR = re.compile("[\ud800-\udfff]")


def text(max_length: int, *, pattern: str = ".+", looks: str = "", wrong: tuple[object, ...] = ()) -> Kind:
    """Return the kind of text of 1 to *max_length* characters, all of which UTF-8 can carry.

    Args:
        max_length: characters.
        pattern: what all of it must match.
        looks: the rule in words, when it is more than the length.
        wrong: values that break it, besides those that are no such text at all.
    """
    compiled = re.compile(pattern, re.DOTALL)

    def accepts(value: object) -> bool:
        if not isinstance(value, str) or len(value) > max_length or compiled.fullmatch(value) is None:
            return False
        return _HALF_A_PAIR.search(value) is None

    schema = {"type": "string", "minLength": 1, "maxLength": max_length}
    return Kind(
        expected=looks or f"text of 1 to {max_length} characters",
        accepts=accepts,
        schema=schema | ({"pattern": f"^{pattern}$"} if pattern != ".+" else {}),
        wrong=("", 7, True, ["text"], "x" * (max_length + 1), *wrong),
    )


def word(*words: str) -> Kind:
    """Return the kind of one of a few words."""
    return Kind(
        expected=" or ".join(words),
        accepts=lambda value: isinstance(value, str) and value in words,
        schema={"type": "string", "enum": list(words)},
        wrong=("", words[0].upper(), 1),
    )


def list_of(item: type[Message]) -> Kind:
    """Return the kind of a list of messages of one class."""
    return Kind(
        expected=f"a list of {item.__name__}",
        accepts=lambda value: isinstance(value, tuple) and all(isinstance(each, item) for each in value),
        schema={"type": "array"},
        wrong=({}, "[]", 7),
        item=item,
    )


# A control character in an id is a mistake that some stores refuse and others do not.
ID = text(
    MAX_ID_LENGTH,
    pattern=r"[^\u0000-\u001f\u007f]+",
    looks=f"text of 1 to {MAX_ID_LENGTH} characters, none of them a control character",
    wrong=("a\u0000b", "a\n"),
)


def _moment(expected: str, digit: str, wrong: tuple[object, ...] = ()) -> Kind:
    """Return the kind of an instant, as text; *digit* is the pattern of a digit of its fraction."""
    spelled = text(
        MAX_INSTANT_LENGTH,
        pattern=rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T[0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}(\.{digit}{{1,9}})?"
        r"(Z|[+-][0-9]{2}:[0-9]{2})",
    )

    def accepts(value: object) -> bool:
        if not isinstance(value, str) or not spelled.accepts(value):
            return False
        try:
            parse_instant(value)
        except ScheduleError:
            return False
        return True

    no_moments = "", "2026-06-26T12:00:00", "2026-06-26", "tomorrow", "2026-13-01T00:00:00Z", 1782475200, True
    return Kind(
        expected=f"{expected}, such as 2026-06-26T12:00:00+00:00",
        accepts=accepts,
        schema=dict(spelled.schema) | {"format": "date-time"},
        wrong=(*no_moments, *wrong),
    )


# An instant stays text in a message: its spelling is part of the dedup key.
MOMENT = _moment("an instant with its offset", "[0-9]")
# A NAS may keep no more than seconds: what it would cut off must not be sent (incident T1).
WHOLE_SECOND = _moment(
    "an instant of whole seconds with its offset",
    "0",
    wrong=("2026-06-26T12:00:00.5Z", "2026-06-26T12:00:00.000001+00:00"),
)
WHOLE = Kind(
    expected=f"a whole number from 0 to {MAX_INTEGER}",
    accepts=lambda value: isinstance(value, int) and is_number(value),
    schema={"type": "integer", "minimum": 0, "maximum": MAX_INTEGER},
    wrong=(-1, 1.5, "3", True, MAX_INTEGER + 1),
)
SECONDS = Kind(
    expected=f"seconds since the epoch, a number from 0 to {MAX_INTEGER}",
    accepts=is_number,
    schema={"type": "number", "minimum": 0, "maximum": MAX_INTEGER},
    wrong=(-1, "3", True),
)
FLAG = Kind(
    expected="true or false",
    accepts=lambda value: isinstance(value, bool),
    schema={"type": "boolean"},
    wrong=(1, "true"),
)
URL = text(
    MAX_URL_LENGTH,
    pattern=r"https?://[^\s]+",
    looks=f"an http or https URL of at most {MAX_URL_LENGTH} characters",
    wrong=("agent.example", "ftp://agent.example"),
)
WORDS_FOR_PEOPLE = text(MAX_TEXT_LENGTH)
