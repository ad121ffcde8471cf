"""The fields of a cron expression: which terms there are, and which values each stands for.

The library that matches dates passes over some of what it does not understand, such as the step of `L/2`,
and does not know ranges that wrap. So each term is read here first, and what the library is given says the
same in a plain way. Values are those of cron(8), and a range that wraps goes on with the first value of the
field: `22-2` stands for 22, 23, 0, 1 and 2, and `22-2/3` for every third of these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeAlias

import msgspec
from msgspec import Struct

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")

# A text of more digits is no value of any field, however many of them are zeros.
_DIGITS = r"[0-9]{1,9}"
_VALUE = rf"{_DIGITS}|[A-Z]+"
_TERM = re.compile(
    rf"(?:(?P<all>\*)|(?P<first>{_VALUE})(?:-(?P<last>{_VALUE}))?)(?:/(?P<step>{_DIGITS}))?", re.ASCII
)
_LAST_WEEKDAY = re.compile(r"(?P<before>[0-7])L|L(?P<after>[0-7])", re.ASCII)
_NTH_WEEKDAY = re.compile(rf"(?P<value>{_VALUE})#[1-5]", re.ASCII)

# How many values a remark lists.
_SHOWN = 6


class Field(Struct, frozen=True):
    """One field of an expression: its values, and what it is a part of, in words."""

    name: str
    low: int
    high: int
    whole: str
    names: Mapping[str, int] = msgspec.field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many different values it has; 0 and 7 are one Sunday."""
        return 7 if self.name == "day-of-week" else self.high - self.low + 1

    @property
    def values(self) -> str:
        """Its values, for a message."""
        named = list(self.names)
        return f"{self.low} to {self.high}" + (f" or {named[0]} to {named[-1]}" if named else "")


FIELDS = (
    Field("second", 0, 59, "minute"),
    Field("minute", 0, 59, "hour"),
    Field("hour", 0, 23, "day"),
    Field("day-of-month", 1, 31, "month"),
    Field("month", 1, 12, "year", {name: number for number, name in enumerate(_MONTHS, start=1)}),
    Field("day-of-week", 0, 7, "week", {name: number for number, name in enumerate(_WEEKDAYS)}),
)

Range: TypeAlias = tuple[Sequence[int], int]
"""The values of a term without its step, in order, and the step."""


def plain(expr: str) -> str:
    """Return *expr* in terms that the library reads as they are meant.

    Raises:
        ValueError: a field is malformed, or there are not 5 or 6; the text says which.
    """
    return " ".join(",".join(_plain_term(field, term) for term in terms) for field, terms in _split(expr))


def remarks(expr: str) -> tuple[str, ...]:
    """Return what of *expr*, which is well-formed, does something else than it seems to, a sentence each."""
    found = [
        remark
        for field, terms in _split(expr)
        for term in terms
        if (remark := _remark(field, term)) is not None
    ]
    if len(expr.split()) == len(FIELDS):
        first, last = expr.split()[0], expr.split()[-1]
        found.append(
            f"six fields: the first one, {first}, is the second, and the last one, {last}, the day of the"
            " week; some programs have the second, or a year, last"
        )
    return tuple(found)


def _split(expr: str) -> Iterator[tuple[Field, list[str]]]:
    # Of other letters, some become an I or an S in capitals, and such a word is none.
    texts = (expr.upper() if expr.isascii() else expr).split()
    if len(texts) not in (len(FIELDS) - 1, len(FIELDS)):
        raise ValueError(f"{len(texts)} fields")
    for field, text in zip(FIELDS[-len(texts) :], texts, strict=True):
        yield field, text.split(",")


def _plain_term(field: Field, term: str) -> str:
    """Return what the library is told of a term."""
    if field.name == "day-of-month" and term in ("L", "LW"):
        return term
    if field.name == "day-of-week":
        if found := _LAST_WEEKDAY.fullmatch(term):
            return f"{found['before'] or found['after']}L"
        if (found := _NTH_WEEKDAY.fullmatch(term)) and _value(field, found["value"]) is not None:
            return term
    values, step = _range(field, term)
    if term.startswith("*"):
        return term
    return ",".join(map(str, values[::step]))


def _range(field: Field, term: str) -> Range:
    found = _TERM.fullmatch(term)
    if found is None:
        raise _refusal(field, term)
    step = int(found["step"] or 1)
    if step == 0:
        raise _refusal(field, term, "a step is at least 1")
    if found["all"]:
        return range(field.low, field.low + field.size), step
    first = _value(field, found["first"])
    last = first if found["last"] is None else _value(field, found["last"])
    if first is None or last is None:
        raise _refusal(field, term)
    if found["last"] is None:  # `10/20` is from 10 on to the end
        return range(first, (field.high if found["step"] else first) + 1), step
    if first <= last:
        return range(first, last + 1), step
    length = (last - first) % field.size + 1
    return [field.low + (first - field.low + behind) % field.size for behind in range(length)], step


def _value(field: Field, text: str) -> int | None:
    value = int(text) if text.isdigit() else field.names.get(text)
    return value if value is not None and field.low <= value <= field.high else None


def _refusal(field: Field, term: str, more: str = "") -> ValueError:
    if "?" in term:
        more = "there is no ?, and * stands for any value"
    elif "L" in term and "/" in term:
        more = "L takes no step"
    elif "#" in term:
        more = "# takes one weekday before it, and 1 to 5 after it"
    return ValueError(f"Bad {field.name} {term!r}: values are {field.values}" + (f"; {more}" if more else ""))


def _remark(field: Field, term: str) -> str | None:
    """Return what the step of a term really does, where it is not what it seems."""
    if "/" not in term:
        return None
    values, step = _range(field, term)
    taken = list(dict.fromkeys(value % field.size if field.high == 7 else value for value in values[::step]))
    if len(taken) == 1 and len(values) > 1:
        what = "field" if term.startswith("*") else "range"
        return (
            f"{field.name} {term}: the step is larger than the {what}, so that it stands for {taken[0]}"
            f" alone, once in each {field.whole}"
        )
    if term.startswith("*") and field.size % step:
        shown = ", ".join(map(str, islice(taken, _SHOWN))) + (", …" if len(taken) > _SHOWN else "")
        return (
            f"{field.name} {term}: it stands for {shown} and begins anew with each {field.whole}, so that not"
            f" all are {step} apart"
        )
    return None
