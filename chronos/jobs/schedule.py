"""Schedules: what people write, and the slots it stands for.

A schedule is one of three frozen values (`Cron`, `Interval`, `Once`), and `next_after` is the one
question asked of it: which slot comes strictly after this instant? The answer depends on nothing
else, so every path of the protocol, on every machine, counts the same slots.

Clock changes follow Debian's cron(8), NOTES. When the clocks change by less than three hours,

* a job at a fixed time whose time is skipped runs once, at the moment of the change, however many of
  its times were skipped;
* a job at a fixed time whose time comes twice runs the first time only;
* a job whose minute or hour field begins with `*` follows real time: it runs whenever the wall shows
  its time. So does an expression with a field for seconds, which Debian's cron does not have.

A change of three hours or more corrects the clock: the new time holds at once, nothing is made up and
nothing is left out. A minute is its first second: where a change cuts a minute, what is left of it does
not match. Intervals and single instants know no clock changes.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import Any, TypeAlias

import attrs
from msgspec import Struct

from chronos.errors import ScheduleError
from chronos.jobs import cron, cron_fields
from chronos.jobs.instants import (
    DAY_US,
    FIRST_US,
    HOUR_US,
    LAST_US,
    LONGEST_US,
    MINUTE_US,
    SECOND_US,
    Instant,
    duration_of,
    instant_of,
    moment,
    needed,
    parse_instant,
    span,
    whole_second,
)
from chronos.jobs.zones import zone_of

# --- the values --------------------------------------------------------------------------------

_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


def _plain_expression(expr: str) -> str:
    """Return *expr* with single spaces and without nicknames, so that equal schedules are equal values."""
    if not isinstance(expr, str):
        raise ScheduleError(f"not a cron expression: {expr!r}; expected text of 5 or 6 fields")
    plain = " ".join(expr.split())
    if plain.startswith("@"):
        if plain.lower() not in _NICKNAMES:
            raise ScheduleError(f"unknown nickname {expr!r}; expected one of {', '.join(_NICKNAMES)}")
        return _NICKNAMES[plain.lower()]
    return plain


def _check_matches(_: object, __: object, expr: str) -> None:
    try:
        cron.matcher(expr)
    except ValueError as error:
        raise ScheduleError(
            f"cron expression {expr!r}: {error}; expected 5 fields (minute hour day month weekday),"
            " or 6 with seconds first, that match some date"
        ) from None


def _check_zone(_: object, __: object, tz: str) -> None:
    zone_of(tz)


def _check_instant(_: object, field: attrs.Attribute[Any], value: int) -> None:
    if type(value) is not int or not FIRST_US <= value <= LAST_US:
        raise ScheduleError(
            f"{field.name} is {value!r}; expected whole epoch microseconds within the years 1 to 9999"
        )


def _check_period(_: object, field: attrs.Attribute[Any], value: int) -> None:
    if type(value) is not int or not 0 < value <= LONGEST_US:
        raise ScheduleError(f"{field.name} is {value!r}; expected whole microseconds, more than zero")


@attrs.frozen(kw_only=True, cache_hash=True)
class Cron:
    """Every instant whose wall-clock time in a zone matches a cron expression.

    Attributes:
        expr: five fields, or six with seconds first. Nicknames such as `@daily` become their fields;
            `@reboot` is refused, since it names no instant.
        tz: `UTC`, a fixed offset such as `+05:30`, or an IANA name.

    Raises:
        ScheduleError: a malformed expression, one that never matches any date, or an unknown zone.
    """

    expr: str = attrs.field(converter=_plain_expression, validator=_check_matches)
    tz: str = attrs.field(validator=_check_zone)


@attrs.frozen(kw_only=True, init=False)
class Interval:
    """The instants `anchor_us + k * period_us`, for every integer k.

    Attributes:
        period_us: microseconds from one slot to the next, more than zero; or `period`, a `timedelta` of
            whole seconds.
        anchor_us: any one of the slots, epoch microseconds UTC; or `anchor`, an aware `datetime`.

    Raises:
        ScheduleError: a period of zero or less, or a field that is missing or is none of its kind.
    """

    period_us: int = attrs.field(validator=_check_period)
    anchor_us: Instant = attrs.field(validator=_check_instant)

    def __init__(
        self,
        *,
        period: timedelta | None = None,
        period_us: int | None = None,
        anchor: datetime | None = None,
        anchor_us: Instant | None = None,
    ) -> None:
        period_us = duration_of("period", period, period_us, least_us=SECOND_US, grain_us=SECOND_US)
        self.__attrs_init__(
            period_us=needed("period", period_us),
            anchor_us=needed("anchor", instant_of("anchor", anchor, anchor_us)),
        )

    period = span()
    anchor = moment()


@attrs.frozen(kw_only=True, init=False)
class Once:
    """One instant.

    Attributes:
        at_us: epoch microseconds UTC; or `at`, an aware `datetime`.

    Raises:
        ScheduleError: no instant within the years 1 to 9999, or none at all.
    """

    at_us: Instant = attrs.field(validator=_check_instant)

    def __init__(self, *, at: datetime | None = None, at_us: Instant | None = None) -> None:
        self.__attrs_init__(at_us=needed("at", instant_of("at", at, at_us)))

    at = moment()


Schedule: TypeAlias = Cron | Interval | Once

GivenSchedule: TypeAlias = Schedule | str | timedelta | datetime
"""A schedule as people give it: a value, text for `parse_schedule`, a period, or an aware instant."""


def in_whole_seconds(schedule: Schedule) -> Schedule:
    """Return *schedule* as a new job begins with it: each of its slots is a whole second.

    A single instant is rounded up, since it must not come early. The anchor of an interval is rounded
    down: an interval that is anchored at the present instant has its first slot one period later, and the
    next whole second would be a slot before that. A stored schedule keeps the slots that it has.

    Raises:
        ScheduleError: the period of an interval is no whole number of seconds.

    Source: incident T1.
    """
    if isinstance(schedule, Once):
        return attrs.evolve(schedule, at_us=whole_second(schedule.at_us))
    if isinstance(schedule, Interval):
        if schedule.period_us % SECOND_US:
            raise ScheduleError(
                f"period_us is {schedule.period_us}, {schedule.period_us / SECOND_US:g} s; expected whole"
                " seconds, since nothing finer can be armed"
            )
        return attrs.evolve(schedule, anchor_us=schedule.anchor_us - schedule.anchor_us % SECOND_US)
    return schedule


def remarks(schedule: Schedule) -> tuple[str, ...]:
    """Return what of *schedule* does something else than it seems to, for whoever validates or simulates it.

    A cron expression such as `*/90 * * * *` is no error, and still not what its author meant: its step is
    larger than the field. It runs as in Debian's cron, and this says how.

    Args:
        schedule: any schedule.

    Returns:
        A sentence each, in the order of the fields; none for most schedules, and for every one that is no
        cron expression.

    Source: incident S7.
    """
    return cron_fields.remarks(schedule.expr) if isinstance(schedule, Cron) else ()


# --- the next slot -----------------------------------------------------------------------------


def next_after(schedule: Schedule, instant_us: Instant) -> Instant | None:
    """Return the first slot of *schedule* strictly after *instant_us*.

    It depends on its arguments alone: whichever instant one starts from, the slots are the same.

    Args:
        schedule: any schedule.
        instant_us: epoch microseconds UTC, within the years 1 to 9999.

    Returns:
        Epoch microseconds UTC, or None when no slot follows.

    Source: this module's first lines for clock changes; contract, "Claim, run, re-arm".
    """
    if isinstance(schedule, Cron):
        since_us, slot_us = _GAPS.get((schedule.expr, schedule.tz), _NO_GAP)
        return slot_us if since_us <= instant_us < slot_us else _next_of_cron(schedule, instant_us)
    if isinstance(schedule, Interval):
        elapsed_us = (instant_us - schedule.anchor_us) % schedule.period_us
        slot = instant_us - elapsed_us + schedule.period_us
        return slot if slot <= LAST_US else None
    return schedule.at_us if schedule.at_us > instant_us else None


# Of an expression in a time zone: two instants between which it has no slot, and the later one is its next.
# Time goes on, and asks for the same slot again and again.
_GAPS: dict[tuple[str, str], tuple[Instant, Instant]] = {}
_NO_GAP = (0, 0)
_MOST_GAPS = 4_096


def _next_of_cron(schedule: Cron, instant_us: Instant) -> Instant | None:
    # With seconds a chunk is a minute instead of an hour, so that none holds more than 61 slots.
    width_us = MINUTE_US if schedule.expr.count(" ") == 5 else HOUR_US
    slots = _chunk(schedule.expr, schedule.tz, instant_us // width_us, width_us)
    following = bisect_right(slots, instant_us)
    if following == len(slots):
        return None
    if len(_GAPS) >= _MOST_GAPS:
        _GAPS.clear()
    _GAPS[schedule.expr, schedule.tz] = instant_us, slots[following]
    return slots[following]


def slots_after(schedule: Schedule, after_us: Instant) -> Iterator[Instant]:
    """Yield the slots of *schedule* strictly after *after_us*, in order.

    Args:
        schedule: any schedule.
        after_us: epoch microseconds UTC.

    Yields:
        Epoch microseconds UTC; without end for most schedules.
    """
    slot = next_after(schedule, after_us)
    while slot is not None:
        yield slot
        slot = next_after(schedule, slot)


def upcoming(schedule: Schedule, after_us: Instant, count: int) -> tuple[Instant, ...]:
    """Return the first *count* slots of *schedule* strictly after *after_us*, in order.

    Args:
        schedule: any schedule.
        after_us: epoch microseconds UTC, within the years 1 to 9999.
        count: how many slots, zero or more.

    Returns:
        Epoch microseconds UTC; fewer than *count* when the schedule ends before.

    Raises:
        ValueError: *count* is negative or no whole number; ask for zero or more.
    """
    if type(count) is not int or count < 0:
        raise ValueError(f"count is {count!r}; expected a whole number, zero or more")
    return tuple(islice(slots_after(schedule, after_us), count))


class Slots(Struct, frozen=True):
    """How many slots there are in a time, and the newest of them in order, epoch microseconds UTC."""

    count: int
    newest: tuple[Instant, ...]


def newest(schedule: Schedule, after_us: Instant, until_us: Instant, at_most: int) -> Slots:
    """Count the slots of *schedule* after *after_us* up to *until_us*, without visiting each.

    Args:
        schedule: any schedule.
        after_us: epoch microseconds UTC.
        until_us: likewise.
        at_most: how many of them to return, the newest; one or more.

    Source: incident T4.
    """
    first_us = next_after(schedule, after_us)
    if first_us is None or first_us > until_us:
        return Slots(0, ())
    if isinstance(schedule, Interval):
        slots = range(first_us, min(until_us, LAST_US) + 1, schedule.period_us)
        return Slots(len(slots), tuple(slots[-at_most:]))
    if isinstance(schedule, Once):
        return Slots(1, (first_us,))
    zone, first, last = zone_of(schedule.tz), first_us // SECOND_US, until_us // SECOND_US
    count = cron.count(schedule.expr, zone, first, last)
    if count > at_most:
        first = cron.newest(schedule.expr, zone, first, last, at_most)
    return Slots(count, upcoming(schedule, first * SECOND_US - 1, min(count, at_most)))


# A year of hours for each of four jobs, or a month for forty. A chunk of a job that runs every minute
# takes 2.5 kB, that of an hourly one 0.2 kB: 80 MB when every entry is the former.
@lru_cache(maxsize=4_096)
def _chunk(expr: str, tz: str, index: int, width_us: int) -> tuple[Instant, ...]:
    """Return the slots from `index * width_us` on, up to and with the first beyond that chunk."""
    width_s = width_us // SECOND_US
    end_us = (index + 1) * width_us
    slots: list[Instant] = []
    for second in cron.slots(expr, zone_of(tz), index * width_s):
        slot = second * SECOND_US
        if slot > LAST_US:
            break
        slots.append(slot)  # maybe again: several times in one gap are one instant, which bisecting passes
        if slot >= end_us:
            break
    return tuple(slots)


# --- what people write -------------------------------------------------------------------------

# Largest first, each at most once: `1h30m`, `2 days`, `90s`.
_UNITS_US = {
    r"w(?:eeks?)?": 7 * DAY_US,
    r"d(?:ays?)?": DAY_US,
    r"h(?:(?:ou)?rs?)?": HOUR_US,
    r"m(?:in(?:ute)?s?)?": MINUTE_US,
    r"s(?:ec(?:ond)?s?)?": SECOND_US,
}
_SPOKEN = re.compile(
    r"(?P<how>every\s|in\s|\+)?\s*"
    + r"\s*".join(rf"(?:(?P<{unit[0]}>[0-9]{{1,9}})\s*{unit})?" for unit in _UNITS_US),
    re.IGNORECASE | re.ASCII,
)


def parse_schedule(
    text: str, *, now: datetime | None = None, now_us: Instant | None = None, tz: str = "UTC"
) -> Schedule:
    """Read a schedule as people write it.

    Args:
        text: `30m`, `every 2h`, `1h30m` (again and again, in units w d h m s); `in 30m`, `+90s`
            (once); a cron expression of 5 or 6 fields or a nickname such as `@daily`; or an ISO 8601
            timestamp with its offset (once). Case and surrounding space do not matter.
        now: the instant from which durations count, an aware `datetime`.
        now_us: the same in epoch microseconds UTC; one of the two is given.
        tz: the zone of a cron expression; the other forms do not depend on it.

    Returns:
        The schedule, `in_whole_seconds`; an `Interval` is anchored at *now_us*, so its first slot is one
        period later.

    Raises:
        ScheduleError: anything else; the message says what was expected.

    Source: contract, "The jobs file that agents have today".
    """
    now_us = needed("now", instant_of("now", now, now_us))
    if not isinstance(text, str):
        raise ScheduleError(f"not a schedule: {text!r}; expected text")
    zone_of(tz)  # a zone that is none is a mistake, also where it does not matter
    stripped = text.strip()
    if match := _spoken_in(text):
        return in_whole_seconds(_spoken(text, match, now_us))
    if stripped.startswith("@") or len(stripped.split()) in (5, 6):
        return Cron(expr=stripped, tz=tz)
    try:
        datetime.fromisoformat(stripped.upper())
    except ValueError:
        raise ScheduleError(
            f"not a schedule: {text!r}; expected a period (30m, every 2h, 1h30m), a delay (in 30m, +90s),"
            " a cron expression (5 or 6 fields, or @daily), or an ISO 8601 timestamp with an offset"
            " (2026-06-26T12:00:00+00:00)"
        ) from None
    return in_whole_seconds(Once(at_us=parse_instant(stripped.upper())))


def counts_from_now(given: GivenSchedule) -> bool:
    """Return whether the schedule that was given counts from the instant at which it is asked for."""
    return isinstance(given, timedelta) or (isinstance(given, str) and _spoken_in(given) is not None)


def declared_as(given: GivenSchedule) -> str:
    """Return what tells a declared schedule from another where its value does not.

    Returns:
        Such as `in 8s` of a one-shot that counts from now, whose value differs each time; `as it stands`
        of every other schedule.

    Raises:
        ScheduleError: as `schedule_of`.
    """
    schedule = schedule_of(given, now_us=0)
    if isinstance(schedule, Once) and counts_from_now(given):
        return f"in {schedule.at_us // SECOND_US}s"
    return "as it stands"


def schedule_of(given: GivenSchedule, *, now_us: Instant, tz: str = "UTC") -> Schedule:
    """Return the schedule that somebody has given.

    Args:
        given: a value; text for `parse_schedule`; a `timedelta` of whole seconds for again and again, the
            first time after one period; or an aware `datetime` for once.
        now_us: epoch microseconds UTC, from which durations count.
        tz: the zone of a cron expression that is text.

    Raises:
        ScheduleError: it is none of these; the message says what was expected.
    """
    zone_of(tz)  # a zone that is none is a mistake, also where it does not matter
    if isinstance(given, str):
        return parse_schedule(given, now_us=now_us, tz=tz)
    if isinstance(given, timedelta):
        period_us = duration_of("schedule", given, None, least_us=SECOND_US, grain_us=SECOND_US)
        return Interval(period_us=period_us, anchor_us=now_us)
    if isinstance(given, datetime):
        return Once(at_us=instant_of("schedule", given, None))
    if not isinstance(given, Cron | Interval | Once):
        raise ScheduleError(
            f"schedule is {given!r}; expected text, a timedelta, an aware datetime, or a Cron, an Interval or"
            " a Once"
        )
    return given


def _spoken_in(text: str) -> re.Match[str] | None:
    """Return the duration that *text* is; None when it is none."""
    match = _SPOKEN.fullmatch(text.strip())
    return match if match is not None and any(match.group(*"wdhms")) else None


def _spoken(text: str, match: re.Match[str], now_us: Instant) -> Interval | Once:
    duration_us = sum(int(match[unit[0]] or 0) * unit_us for unit, unit_us in _UNITS_US.items())
    if not duration_us:
        raise ScheduleError(f"schedule {text!r} lasts no time; expected a duration of more than zero")
    if (match["how"] or "every").strip().lower() == "every":
        return Interval(period_us=duration_us, anchor_us=now_us)
    return Once(at_us=now_us + duration_us)
