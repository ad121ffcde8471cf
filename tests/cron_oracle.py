"""Debian's cron worked out a second time, from its manual, without the code under test or its library.

The rule is the one that `docs/schedules.md` states, from Debian's cron(8), NOTES. In the terms of the
daemon: it wakes at every moment of real time and keeps a virtual clock, the latest wall clock time whose
jobs at a fixed time have been looked up.

* A job with a star at the start of its minute or hour field is looked up at what the wall shows.
* For the others, when the wall is ahead of the virtual clock by a skip of less than three hours, every
  time in between is looked up at once. When it is behind by less than three hours, nothing is looked up
  until the wall has caught up. Any other difference is a correction, and the virtual clock follows it.

`walked` is this read literally, second by second. `slots` comes to the same by whole stretches between two
changes of the clocks, and is what thousands of windows can afford; a test holds the one against the other.

Instants are whole seconds since the epoch. A "wall" is what the wall clock shows, as if it were UTC.
"""

from __future__ import annotations

import calendar
import struct
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib import resources
from itertools import pairwise
from pathlib import Path

DAY_S = 86_400
HOUR_S = 3600
SHORT_S = 3 * HOUR_S

_SECOND = timedelta(seconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_LOWEST, _HIGHEST = -(2**33), 2**33  # the years 1697 to 2242: every change that is listed lies within
_JANUARY_2038 = 2**31


# --- zones and their changes --------------------------------------------------------------------


def offset_s(zone: zoneinfo.ZoneInfo, instant: int) -> int:
    """Return the seconds by which the wall is ahead of UTC."""
    offset = (_EPOCH + instant * _SECOND).astimezone(zone).utcoffset()
    assert offset is not None
    return offset // _SECOND


def _files(name: str) -> Iterator[bytes]:
    """Yield the data of a zone: first the file that `zoneinfo` reads, then the one of the tzdata package."""
    for folder in zoneinfo.TZPATH:
        if (file := Path(folder, name)).is_file():
            yield file.read_bytes()
            break
    if (file := Path(str(resources.files("tzdata")), "zoneinfo", name)).is_file():
        yield file.read_bytes()


def _listed(data: bytes) -> tuple[int, ...]:
    """Return the moments of transition that a zone file lists (RFC 8536: the second block, of 64 bits)."""

    def counts(at: int) -> tuple[int, ...]:
        return struct.unpack(">6l", data[at + 20 : at + 44])

    utc_marks, wall_marks, leaps, times, types, letters = counts(0)
    second = 44 + 5 * times + 6 * types + letters + 8 * leaps + utc_marks + wall_marks
    number = counts(second)[3]
    return struct.unpack(f">{number}q", data[second + 44 : second + 44 + 8 * number])


@cache
def zone_names() -> tuple[str, ...]:
    """Return one name for each zone; names with byte-identical data are one zone under several names."""
    by_data = {
        next(_files(name)): name for name in sorted(zoneinfo.available_timezones(), reverse=True)
        if name != "localtime"
    }  # fmt: skip
    return tuple(sorted(by_data.values()))


def _other_offset(zone: zoneinfo.ZoneInfo, low: int, high: int) -> int:
    """Return the first instant after *low* whose offset is not that of *low*; *high* is one with another."""
    before = offset_s(zone, low)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if offset_s(zone, middle) == before else (low, middle)
    return high


@cache
def changes(name: str) -> tuple[int, ...]:
    """Return the instants at which the offset of a zone changes: the first with the new offset."""
    zone = zoneinfo.ZoneInfo(name)
    moments = {moment for data in _files(name) for moment in _listed(data) if _LOWEST < moment < _HIGHEST}
    # A file that ends with a rule for ever after may list little: what the rule changes, weeks bracket.
    if any(b"," in data.rsplit(b"\n", 2)[-2] for data in _files(name)):
        weeks = range(max(moments, default=0), _JANUARY_2038, 7 * DAY_S)
        moments |= {
            _other_offset(zone, low, high)
            for low, high in pairwise(weeks)
            if offset_s(zone, low) != offset_s(zone, high)
        }
    return tuple(sorted(at for at in moments if offset_s(zone, at - 1) != offset_s(zone, at)))


# --- expressions --------------------------------------------------------------------------------

_MONTHS = {name.upper(): number for number, name in enumerate(calendar.month_abbr) if number}
_WEEKDAYS = {name: number for number, name in enumerate(["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"])}


def _values(field: str, low: int, high: int, names: dict[str, int]) -> set[int]:
    values: set[int] = set()
    for term in field.split(","):
        body, _, step = term.partition("/")
        first, _, last = body.partition("-")
        if body == "*":
            start, end = low, high
        else:
            start = names[first] if first in names else int(first)
            end = names[last] if last in names else int(last or (high if step else start))
        values.update(range(start, end + 1, int(step or 1)))
    return values


class Expression:
    """What a cron expression of five fields says. A minute is its first second; the others do not match."""

    def __init__(self, text: str) -> None:
        minutes, hours, days, months, weekdays = text.upper().split()
        self.fixed = minutes[0] != "*" and hours[0] != "*"
        self._minutes = sorted(_values(minutes, 0, 59, {}))
        self._hours = sorted(_values(hours, 0, 23, {}))
        self._months = _values(months, 1, 12, _MONTHS)
        self._both_days = days[0] == "*" or weekdays[0] == "*"
        self._days, self._weekdays = days.split(","), weekdays.split(",")
        self._matching_days: dict[int, bool] = {}

    def walls(self, low: int, high: int) -> Iterator[int]:
        """Yield the matching walls from *low* up to, not with, *high*."""
        for day in range(low // DAY_S, (high - 1) // DAY_S + 1):
            if self._on(day):
                for hour in self._hours:
                    for minute in self._minutes:
                        wall = day * DAY_S + hour * HOUR_S + minute * 60
                        if low <= wall < high:
                            yield wall

    def matches(self, wall: int) -> bool:
        """Return whether the wall shows a matching time."""
        day, second = divmod(wall, DAY_S)
        return (
            second % 60 == 0
            and second // 60 % 60 in self._minutes
            and second // HOUR_S in self._hours
            and self._on(day)
        )

    def _on(self, day: int) -> bool:
        if day not in self._matching_days:
            self._matching_days[day] = self._on_date(date.fromordinal(_EPOCH_DAY + day))
        return self._matching_days[day]

    def _on_date(self, day: date) -> bool:
        if day.month not in self._months:
            return False
        of_month = any(_is_day(term, day) for term in self._days)
        of_week = any(_is_weekday(term, day) for term in self._weekdays)
        return of_month and of_week if self._both_days else of_month or of_week


def _is_day(term: str, day: date) -> bool:
    last = calendar.monthrange(day.year, day.month)[1]
    if term == "L":
        return day.day == last
    if term == "LW":
        return day.day == max(d for d in range(1, last + 1) if day.replace(day=d).isoweekday() < 6)
    return day.day in _values(term, 1, 31, {})


def _is_weekday(term: str, day: date) -> bool:
    """Return whether a term of the weekday field holds; `5L` is the last Friday, `5#2` the second."""
    last = calendar.monthrange(day.year, day.month)[1]
    plain, _, nth = term.partition("#")
    if nth and (day.day - 1) // 7 + 1 != int(nth):
        return False
    if plain[-1] == "L":
        plain = plain[:-1]
        if day.day <= last - 7:
            return False
    return day.isoweekday() % 7 in {number % 7 for number in _values(plain, 0, 7, _WEEKDAYS)}


@cache
def expression(text: str) -> Expression:
    """Return the expression, read once."""
    return Expression(text)


# --- the daemon ---------------------------------------------------------------------------------


def walked(text: str, name: str, first: int, last: int) -> list[int]:
    """Return the slots from *first* to *last* as the daemon has them that wakes at every second."""
    parsed, walls = expression(text), _shown(name, first, last)
    virtual = walls[0] - 1
    found = []
    for instant, wall in enumerate(walls, first):
        ahead = wall - virtual
        if not parsed.fixed or ahead == 1:
            due = range(wall, wall + 1)
        elif 1 < ahead <= SHORT_S:  # a skip of less than three hours, and the second that passes anyway
            due = range(virtual + 1, wall + 1)
        elif 1 - SHORT_S < ahead <= 0:
            continue
        else:
            due = range(wall, wall + 1)
        virtual = wall
        if any(candidate % 60 == 0 and parsed.matches(candidate) for candidate in due):
            found.append(instant)
    return found


@cache
def _shown(name: str, first: int, last: int) -> list[int]:
    zone = zoneinfo.ZoneInfo(name)
    return [instant + offset_s(zone, instant) for instant in range(first, last + 1)]


def slots(text: str, name: str, first: int, last: int) -> list[int]:
    """Return the same as `walked`, from a table of what is looked up when."""
    parsed = expression(text)
    return sorted(
        {
            max(start, wall - offset)
            for low, high, start, offset in _agenda(name, first, last, parsed.fixed)
            for wall in parsed.walls(low, high)
            if first <= max(start, wall - offset) <= last
        }
    )


@cache
def _agenda(name: str, first: int, last: int, fixed: bool) -> list[tuple[int, int, int, int]]:
    """Return rows (low, high, start, offset): walls from low up to high are looked up when they are shown.

    Those that are not shown in the stretch, because they were skipped, are looked up at its start.
    """
    rows = []
    virtual = None
    # The virtual clock may still wait since a change before the window, though not since one longer ago.
    for start, end, offset in stretches(name, first - SHORT_S, last + 1):
        low, high = start + offset, end + offset
        if fixed and virtual is not None and 1 - SHORT_S < low - virtual <= SHORT_S:
            low = virtual + 1
        rows.append((low, high, start, offset))
        virtual = max(low, high) - 1
    return rows


@cache
def stretches(name: str, first: int, end: int) -> list[tuple[int, int, int]]:
    """Return (start, end, offset) for the stretches of constant offset that make up a window."""
    zone = zoneinfo.ZoneInfo(name)
    edges = [*range(first, end, HOUR_S), end]
    found = [(first, offset_s(zone, first))]
    for low, high in pairwise(edges):
        if offset_s(zone, high) != found[-1][1]:
            change = _other_offset(zone, low, high)
            found.append((change, offset_s(zone, change)))
    starts = [start for start, _ in found]
    return [(start, stop, offset) for (start, offset), stop in zip(found, [*starts[1:], end], strict=True)]
