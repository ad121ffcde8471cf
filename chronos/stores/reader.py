"""The values in a jobs file: how they are read, what is wrong with them, and how they are written.

A `Reader` is an object of the file that knows its place, for messages.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from typing import Any, TypeVar

from msgspec import Struct

from chronos.errors import JobsFileError, ScheduleError
from chronos.jobs.instants import DAY_US, Instant, format_instant, parse_instant
from chronos.jobs.zones import zone_of
from chronos.stores.layout import BYTE_ORDER_MARK
from chronos.values import evolve

# Up to here a fraction of a minute written as a JSON number comes back as the same microsecond
# (2**51 us are 71 years). An interval that is longer is a mistake.
MAX_DURATION_US = 50 * 366 * DAY_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Word = TypeVar("_Word", bound=StrEnum)


class NoNumber(Struct, frozen=True):
    """What stands in a file in the place of a number, and is none of JSON: why, in words."""

    problem: str


def parse_object(text: str, source: str) -> tuple[dict[str, Any], bool]:
    """Return the object that *text* is, and whether anything in it is a `NoNumber`."""
    odd: list[NoNumber] = []

    def constant(name: str) -> NoNumber:
        odd.append(NoNumber(f"expected JSON, which has no {name}"))
        return odd[-1]

    def finite(digits: str) -> float | NoNumber:
        if math.isfinite(number := float(digits)):
            return number
        odd.append(NoNumber(f"expected JSON, got a number too large: {digits}"))
        return odd[-1]

    try:
        raw = json.loads(text.removeprefix(BYTE_ORDER_MARK), parse_constant=constant, parse_float=finite)
    except json.JSONDecodeError as error:
        problem = f"expected JSON, got an error at line {error.lineno}, column {error.colno}: {error.msg}"
        raise JobsFileError(source, None, None, problem) from None
    except ValueError:  # Python's limit on the digits of a whole number
        raise JobsFileError(source, None, None, "expected JSON, got a number of too many digits") from None
    except RecursionError:
        raise JobsFileError(source, None, None, "expected JSON, got objects nested too deeply") from None
    if not isinstance(raw, dict):
        raise JobsFileError(source, None, None, f"expected an object with a list of jobs, got {shown(raw)}")
    return raw, bool(odd)


def no_number(value: object) -> NoNumber | None:
    """Return a `NoNumber` in a value of the file; None where there is none."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, NoNumber):
            return value
        if isinstance(value, Mapping):
            left += value.values()
        elif isinstance(value, list):
            left += value
    return None


class Reader(Struct, frozen=True, kw_only=True):
    """An object of the file, with its place for messages.

    Its methods raise `JobsFileError` when what they are asked for is not there, or is something else.

    Attributes:
        source: the file's name.
        job: the id of the job that it belongs to, if any.
        raw: the object.
        path: where it stands in the job or the file, such as `schedule.`.
    """

    source: str
    job: str | None
    raw: Mapping[str, Any]
    path: str = ""

    def refusal(self, name: str, problem: str) -> JobsFileError:
        """Return the error that says what is wrong with the field *name*."""
        return JobsFileError(self.source, self.job, self.path + name, problem)

    def get(self, name: str) -> Any:
        """Return what is under *name*; None when there is nothing."""
        return self.raw.get(name)

    def found(self, name: str) -> str:
        """Return what is under *name*, for a message."""
        return shown(self.raw[name]) if name in self.raw else "nothing"

    def child(self, name: str) -> Reader:
        """Return the object under *name*; an empty one when it is absent or null."""
        raw = {} if self.get(name) is None else self.get(name)
        if not isinstance(raw, Mapping):
            raise self.refusal(name, f"expected an object, got {shown(raw)}")
        return evolve(self, raw=raw, path=f"{self.path}{name}.")

    def items(self, name: str) -> list[Reader]:
        """Return the objects in the list under *name*; none when it is absent or null."""
        raw = [] if self.get(name) is None else self.get(name)
        if not isinstance(raw, list):
            raise self.refusal(name, f"expected a list, got {shown(raw)}")
        found = []
        for index, item in enumerate(raw):
            if not isinstance(item, Mapping):
                raise self.refusal(f"{name}[{index}]", f"expected an object, got {shown(item)}")
            found.append(evolve(self, raw=item, path=f"{self.path}{name}[{index}]."))
        return found

    def text(self, name: str) -> str:
        """Return the text under *name*."""
        value = self.get(name)
        if not isinstance(value, str):
            raise self.refusal(name, f"expected text, got {self.found(name)}")
        return value

    def word(self, name: str, words: type[_Word], default: _Word | None) -> _Word:
        """Return the member of *words* under *name*, or *default* when there is none."""
        if self.get(name) is None and default is not None:
            return default
        text = self.text(name)
        if text not in list(words):
            raise self.refusal(name, f"expected one of {', '.join(words)}, got {shown(text)}")
        return words(text)

    def whole(self, name: str, *, at_least: int, default: int | None = None) -> int:
        """Return the whole number under *name*, or *default* when there is none."""
        if name not in self.raw and default is not None:
            return default
        value = self.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
            raise self.refusal(name, f"expected a whole number of at least {at_least}, got {shown(value)}")
        return value

    def duration(self, name: str, unit_us: int, *, at_least_us: int) -> int:
        """Return the number under *name*, counted in *unit_us*, as microseconds; *at_least_us* is 0 or 1."""
        value = self.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise self.refusal(name, f"expected a number, got {self.found(name)}")
        if abs(value) > MAX_DURATION_US // unit_us:
            most = MAX_DURATION_US // unit_us
            raise self.refusal(name, f"expected at most {most} (50 years), got {shown(value)}")
        duration_us = round(value * unit_us)
        if duration_us < at_least_us:
            least = "more than zero" if at_least_us else "zero or more"
            raise self.refusal(name, f"expected {least}, got {shown(value)}")
        return duration_us

    def instant(self, name: str) -> Instant | None:
        """Return the time stamp under *name*; None when it is absent or null."""
        if self.get(name) is None:
            return None
        text = self.text(name)
        try:
            instant_us = parse_instant(text)
            offset_of(text)
        except ScheduleError as error:
            raise self.refusal(name, str(error)) from None
        return instant_us

    def required_instant(self, name: str) -> Instant:
        """Return the time stamp under *name*."""
        instant_us = self.instant(name)
        if instant_us is None:
            raise self.refusal(name, f"expected a time stamp with its offset, got {self.found(name)}")
        return instant_us

    def zone(self, name: str) -> str | None:
        """Return the name of the time zone under *name*; None when it is absent or null."""
        if self.get(name) is None:
            return None
        try:
            zone_of(self.text(name))
        except ScheduleError as error:
            raise self.refusal(name, str(error)) from None
        return self.text(name)


def shown(value: object) -> str:
    """Return *value* for a message, cut to a sensible length."""
    named = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return named[value]
    return reprlib.repr(value)


def offset_of(text: str) -> str:
    """Return the offset of the time stamp *text*, as the name of a zone."""
    offset = datetime.fromisoformat(text).utcoffset()
    assert offset is not None
    minutes, rest = divmod(offset, timedelta(minutes=1))
    if rest:
        raise ScheduleError(f"time stamp {text!r}: expected an offset of whole minutes")
    hours, minutes_of_hour = divmod(abs(minutes), 60)
    return f"{'-' if minutes < 0 else '+'}{hours:02}:{minutes_of_hour:02}" if minutes else "UTC"


def counted(duration_us: int, unit_us: int) -> int | float:
    """Return *duration_us* counted in *unit_us*, as a whole number where it is one."""
    return duration_us / unit_us if duration_us % unit_us else duration_us // unit_us


def written_in(instant_us: Instant, zone: tzinfo) -> str:
    """Return the time stamp of *instant_us* in *zone*, so that it is readable to the job's owner."""
    try:
        text = (_EPOCH + timedelta(microseconds=instant_us)).astimezone(zone).isoformat()
        offset_of(text)
    except (OverflowError, ScheduleError):  # the ends of time, or a zone's mean solar time of long ago
        return format_instant(instant_us)
    return text


def put(record: dict[str, Any], key: str, value: object) -> None:
    """Set *key* of *record*, or leave it out when *value* says nothing: when it is None or empty."""
    if value is None or value in ({}, []):
        record.pop(key, None)
    else:
        record[key] = value
