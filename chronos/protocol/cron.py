"""Cron in a time zone: the slots of an expression, in whole seconds since the epoch.

A "wall" is what a clock on the wall shows, as seconds since a wall showing 1970-01-01 00:00:00. In a
span of constant offset, instant = wall - offset. The library that matches walls is asked without a
zone: with one, it passes over slots where a change is not a whole hour or comes at midnight.

The rules for clock changes are those of `chronos.protocol.schedule`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from itertools import chain

from cronsim import CronSim, CronSimError

from chronos.protocol import cron_fields

_DAY_S = 86_400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_WALL = datetime(1970, 1, 1)  # noqa: DTZ001 - a wall clock has no zone; its offset is kept beside it
_FIRST_WALL = datetime(1, 1, 1)  # noqa: DTZ001 - as above
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


def _walls(parsed: CronSim, low: int) -> Iterator[int]:
    """Yield the matching walls at or after *low*."""
    walk = copy.copy(parsed)  # shares the parsed fields, which stay as they are; moves a date of its own
    try:
        walk.dt = max(_EPOCH_WALL + timedelta(seconds=low - 1), _FIRST_WALL)
        for moment in walk:
            delta = moment - _EPOCH_WALL
            yield delta.days * _DAY_S + delta.seconds
    except OverflowError:  # beyond the year 9999
        return


def slots(expr: str, zone: tzinfo, at: int) -> Iterator[int]:
    """Yield the slots from *at* until 400 years later, epoch seconds; a gap's slots repeat at its end."""
    parsed, fixed = matcher(expr)
    reached = _NEVER  # the wall up to which fixed times are settled
    floor = wall = _NEVER  # no wall matches from floor up to wall
    walls: Iterator[int] = iter(())
    # A change of less than three hours still matters after it; a day earlier is early enough.
    first = (at - _DAY_S) // _BLOCK_S
    blocks = (_spans(zone, block) for block in range(first, first + _HORIZON_BLOCKS))
    for start, end, offset in chain.from_iterable(blocks):
        low = start + offset
        if fixed and abs(reached - low) < _SHORT_S:
            low = reached  # after a gap: behind the new wall, to catch up; in an overlap: ahead of it
        reached = max(low, end + offset)
        if end <= at:
            continue
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
