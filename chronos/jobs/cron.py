"""Cron in a time zone: the slots of an expression, in whole seconds since the epoch.

A "wall" is what a clock on the wall shows, as seconds since a wall showing 1970-01-01 00:00:00. In a
span of constant offset, instant = wall - offset. The library that matches walls is asked without a
zone: with one, it passes over slots where a change is not a whole hour or comes at midnight.

The rules for clock changes are those of `chronos.jobs.schedule`.
"""

from __future__ import annotations

import copy
from bisect import bisect_left
from calendar import isleap
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from math import prod

from cronsim import CronSim, CronSimError

from chronos.jobs import cron_fields

_DAY_S = 86_400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_WALL = datetime(1970, 1, 1)  # noqa: DTZ001 - a wall clock has no zone; its offset is kept beside it
_FIRST_WALL = datetime(1, 1, 1)  # noqa: DTZ001 - as above
_LAST_WALL = datetime(9999, 12, 31, 23, 59, 59)  # noqa: DTZ001 - as above
# The first and the last two days have no offset of their own: in some zones they leave the calendar.
_FIRST_S = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(seconds=1) + 2 * _DAY_S
_LAST_S = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(seconds=1) - 2 * _DAY_S

_NEVER = 1 << 62
_SHORT_S = 3 * 3600  # "less than 3 hours", cron(8)
_BLOCK_S = 366 * _DAY_S
# No zone has ever changed twice within three days; the tests look at every change in the data.
_STEP_S = 3 * _DAY_S
# Calendar and zones repeat after 400 years: a slot that has not come by then never comes.
_HORIZON_BLOCKS = 400


@lru_cache(maxsize=4096)  # a few kB each; more expressions than one agent or simulated fleet has
def matcher(expr: str) -> tuple[CronSim, bool]:
    """Return the parsed *expr*, and whether it names fixed times in the sense of cron(8).

    Raises:
        ValueError: malformed, or no date ever matches; the text says which.
    """
    fields = expr.split()
    plain = cron_fields.plain(expr)
    try:
        # Dates repeat within 50 years, after which the library gives up: any start finds what there is.
        parsed = CronSim(plain, _EPOCH_WALL)
        if next(copy.copy(parsed), None) is None:
            raise CronSimError("no date ever matches")
    except CronSimError:
        raise ValueError("no date ever matches") from None
    return parsed, len(fields) == 5 and not fields[0].startswith("*") and not fields[1].startswith("*")


def meaning(expr: str) -> tuple[object, ...]:
    """Return what the slots of *expr* depend on: the same for two spellings, such as `1` and `MON`.

    Raises:
        ValueError: as `matcher`.
    """
    parsed, is_fixed = matcher(expr)
    names = ("seconds", "minutes", "hours", "days", "months", "weekdays")
    return (*(frozenset(getattr(parsed, name)) for name in names), parsed.day_and, is_fixed)


def _walls(parsed: CronSim, low: int) -> Iterator[int]:
    """Yield the matching walls at or after *low*."""
    walk = copy.copy(parsed)  # shares the parsed fields, which stay as they are; moves a date of its own
    try:
        walk.dt = max(_EPOCH_WALL + timedelta(seconds=low - 1), _FIRST_WALL)
        for moment in walk:
            yield _wall(moment)
    except OverflowError:  # beyond the year 9999
        return


def slots(expr: str, zone: tzinfo, at: int) -> Iterator[int]:
    """Yield the slots from *at* until 400 years later, epoch seconds; a gap's slots repeat at its end."""
    parsed, fixed = matcher(expr)
    floor = wall = _NEVER  # no wall matches from floor up to wall
    walls: Iterator[int] = iter(())
    for start, end, offset, low in _looks(zone, at, at + _HORIZON_BLOCKS * _BLOCK_S, fixed=fixed):
        if at > start:
            low = max(low, at + offset)
        if not floor <= low <= wall:
            walls = _walls(parsed, low)
            floor, wall = low, next(walls, _NEVER)
        while wall - offset < end:
            yield max(start, wall - offset)
            floor, wall = wall + 1, next(walls, _NEVER)
        if wall == _NEVER:
            return


def count(expr: str, zone: tzinfo, first: int, last: int) -> int:
    """Return how many slots there are from *first* to *last*: a year costs no more than a few of its days."""
    _, fixed = matcher(expr)
    found = 0
    for start, end, offset, low in _looks(zone, first, last, fixed=fixed):
        if first > start:
            low = max(low, first + offset)
        elif low < start + offset:  # a gap: its walls and the one at its end are one slot
            found += _count_walls(expr, low, start + offset + 1) > 0
            low = start + offset + 1
        found += _count_walls(expr, low, min(end, last + 1) + offset)
    return found


def newest(expr: str, zone: tzinfo, first: int, last: int, at_most: int) -> int:
    """Return the earliest second, from *first* on, from which there are *at_most* so many slots to *last*."""
    seconds = range(first, last + 1)
    return first + bisect_left(seconds, -at_most, key=lambda second: -count(expr, zone, second, last))


def _looks(zone: tzinfo, at: int, until: int, *, fixed: bool) -> Iterator[tuple[int, int, int, int]]:
    """Yield the spans from *at* to *until* as (start, end, offset, first wall that is looked up)."""
    reached = _NEVER  # the wall up to which fixed times are settled
    # A change of less than three hours still matters after it; a day earlier is early enough.
    for block in range((at - _DAY_S) // _BLOCK_S, until // _BLOCK_S + 1):
        for start, end, offset in _spans(zone, block):
            low = start + offset
            if fixed and abs(reached - low) < _SHORT_S:
                low = reached  # after a gap: behind the new wall, to catch up; in an overlap: ahead of it
            reached = max(low, end + offset)
            if at < end and start <= until:
                yield start, end, offset, low


def _count_walls(expr: str, low: int, high: int) -> int:
    """Return how many walls match from *low* up to, not with, *high*."""
    low, high = max(low, _wall(_FIRST_WALL)), min(high, _wall(_LAST_WALL))
    if low >= high:
        return 0
    first, last = (_EPOCH_WALL + timedelta(seconds=wall) for wall in (low, high))
    whole_years = sum(len(_days(expr, year)) for year in range(first.year, last.year))
    return whole_years * prod(map(len, _times(expr))) + _rank(expr, last) - _rank(expr, first)


def _rank(expr: str, moment: datetime) -> int:
    """Return how many walls match in the year of *moment* before it."""
    rank, is_on = 0, True
    fields = (_days(expr, moment.year), *_times(expr))
    shown = (moment.timetuple().tm_yday, moment.hour, moment.minute, moment.second)
    for values, now in zip(fields, shown, strict=True):
        rank *= len(values)
        if is_on:
            place = bisect_left(values, now)
            rank += place
            is_on = values[place : place + 1] == (now,)
    return rank


@lru_cache(maxsize=4096)
def _times(expr: str) -> tuple[tuple[int, ...], ...]:
    """Return the hours, the minutes and the seconds that *expr* names, in order."""
    parsed, _ = matcher(expr)
    hours, minutes, seconds = map(sorted, (parsed.hours, parsed.minutes, parsed.seconds))
    return tuple(hours), tuple(minutes), tuple(seconds)


def _days(expr: str, year: int) -> tuple[int, ...]:
    """Return the days of a year on which *expr* matches, counted from 1."""
    return _days_of(expr, isleap(year), date(year, 1, 1).weekday())


# There are fourteen kinds of years; two of them make up most sleeps. Up to 3 kB each.
@lru_cache(maxsize=1024)
def _days_of(expr: str, is_leap: bool, weekday: int) -> tuple[int, ...]:
    parsed, _ = matcher(expr)
    kinds = (date(year, 1, 1) for year in range(2000, 2028))  # the calendar has all of them in 28 years
    first = next(day for day in kinds if (isleap(day.year), day.weekday()) == (is_leap, weekday))
    days = (first + timedelta(number) for number in range(365 + is_leap))
    return tuple(
        number for number, day in enumerate(days, 1) if day.month in parsed.months and parsed.match_day(day)
    )


def _wall(moment: datetime) -> int:
    delta = moment - _EPOCH_WALL
    return delta.days * _DAY_S + delta.seconds


@lru_cache(maxsize=4096)  # 40 zones for a century; some 300 bytes each
def _spans(zone: tzinfo, block: int) -> tuple[tuple[int, int, int], ...]:
    """Return the spans of constant offset in a block of 366 days, as (start, end, offset) in seconds."""
    start, end = block * _BLOCK_S, (block + 1) * _BLOCK_S
    before = _offset(zone, start)
    if isinstance(zone, timezone):
        return ((start, end, before),)
    spans = []
    for step in range(start, end, _STEP_S):
        low, change = step, min(step + _STEP_S, end)
        after = _offset(zone, change)
        if after != before:
            while change - low > 1:
                middle = (low + change) // 2
                low, change = (middle, change) if _offset(zone, middle) == before else (low, middle)
            if change == end:
                break  # the next block begins with it
            spans.append((start, change, before))
            start, before = change, after
    spans.append((start, end, before))
    return tuple(spans)


def _offset(zone: tzinfo, second: int) -> int:
    """Return the seconds by which the wall is ahead of UTC; constant in the first and last two days."""
    moment = _EPOCH + timedelta(seconds=min(max(second, _FIRST_S), _LAST_S))
    offset = moment.astimezone(zone).utcoffset()
    assert offset is not None  # every zone knows its offset
    return offset.days * _DAY_S + offset.seconds
