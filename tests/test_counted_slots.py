"""Slots are counted as a walk along them counts, whatever the expression, the zone and the time."""

from __future__ import annotations

from itertools import pairwise, takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronos.jobs.instants import DAY_US, SECOND_US, parse_instant
from chronos.jobs.policy import MAX_CATCH_UP
from chronos.jobs.schedule import Cron, Interval, Once, Schedule, newest, next_after, slots_after
from tests import cron_oracle as oracle
from tests.test_clock_changes import DENSE, ODD_YEARS, SPARSE, changes_in

T0 = parse_instant("2026-06-26T12:00:00+00:00")
YEAR_US = 365 * DAY_US


def walked(schedule: Schedule, after_us: int, until_us: int) -> list[int]:
    return list(takewhile(lambda slot_us: slot_us <= until_us, slots_after(schedule, after_us)))


def is_walked(schedule: Schedule, after_us: int, until_us: int, at_most: int) -> bool:
    """Return whether the count and the newest slots are those of a walk."""
    slots, found = walked(schedule, after_us, until_us), newest(schedule, after_us, until_us, at_most)
    assert (found.count, found.newest) == (len(slots), tuple(slots[-at_most:]))
    return bool(slots)


expressions = st.sampled_from([*SPARSE, *DENSE, "*/10 * * * * *", "7,8 59 1-2 * * 5", "0 0 13 * 5"])
zones = st.sampled_from(["UTC", "+05:45", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
counts = st.integers(1, MAX_CATCH_UP + 1)


@settings(max_examples=250, deadline=None)
@given(expressions, zones, st.integers(T0 - YEAR_US, T0 + YEAR_US), st.floats(0, 1), counts)
def test_slots_of_cron_are_counted_as_a_walk_counts_them(
    expr: str, tz: str, after_us: int, part: float, at_most: int
) -> None:
    """Whatever the expression, the zone and the time; what is due often, over a shorter one."""
    schedule = Cron(expr=expr, tz=tz)
    following_us = next_after(schedule, after_us)
    assert following_us is not None
    is_dense = following_us - after_us < DAY_US
    is_walked(schedule, after_us, after_us + int(part * (3 * DAY_US if is_dense else 8 * YEAR_US)), at_most)


@pytest.mark.parametrize(("name", "year"), ODD_YEARS)
def test_newest_slots_around_a_change_are_those_of_a_walk(name: str, year: int) -> None:
    """A count that begins or ends in the middle of a gap or overlap, or an hour beside it, is right."""
    for change in changes_in(name, year):
        edges = [change + hours * 1800 + beside for hours in (-5, -1, 0, 1, 5) for beside in (-1, 0, 1)]
        for expr in ("30 0,1,2,3 * * *", "*/20 1-3 * * *", "0-59 0-23 * * *", "*/30 * * * * *"):
            for first, last in pairwise(edges):
                for until in (last, edges[-1]):
                    is_walked(Cron(expr=expr, tz=name), first * SECOND_US, until * SECOND_US, 2)


@given(
    st.integers(1, 3 * DAY_US),
    st.integers(T0 - YEAR_US, T0),
    st.integers(T0 - DAY_US, T0 + DAY_US),
    st.integers(-10, 3_000),
    counts,
)
def test_slots_of_an_interval_are_counted_as_a_walk_counts_them(
    period_us: int, anchor_us: int, after_us: int, periods: int, at_most: int
) -> None:
    """Also where the time is none, or goes backwards."""
    schedule = Interval(period_us=period_us, anchor_us=anchor_us)
    is_walked(schedule, after_us, after_us + periods * period_us + periods % 3, at_most)


@given(st.integers(-3, 3), st.integers(-3, 3), st.integers(-3, 3), counts)
def test_slot_of_a_single_instant_is_counted_once(at: int, after: int, until: int, at_most: int) -> None:
    """It is in the time or not."""
    is_walked(Once(at_us=T0 + at), T0 + after, T0 + until, at_most)


def test_years_of_every_kind_are_counted_as_the_oracle_counts_them() -> None:
    """Over 28 years, which have all fourteen kinds, days of every sort are found by another reading."""
    first, last = (parse_instant(f"{year}-03-01T00:00:00Z") // SECOND_US for year in (1999, 2027))
    for expr in ("30 2 * * 0L", "0 1 * * 7#2", "30 1 L * *", "0 0 LW * *", "30 2 29 2 *", "0 2 */2 * SUN"):
        found = newest(Cron(expr=expr, tz="UTC"), first * SECOND_US - 1, last * SECOND_US, 3)
        slots = oracle.slots(expr, "UTC", first, last)
        assert (found.count, [slot // SECOND_US for slot in found.newest]) == (len(slots), slots[-3:])
