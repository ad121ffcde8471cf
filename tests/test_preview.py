"""The preview of a schedule: its next occurrences, from the present instant of the real clock or another."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from freezegun import freeze_time
from hypothesis import given
from hypothesis import strategies as st

from chronos import next_after, next_times
from chronos.agent.preview import MAX_PREVIEW
from chronos.errors import ScheduleError
from chronos.jobs import schedule as schedules
from chronos.jobs.instants import HOUR_US, MINUTE_US, datetime_of, microseconds_of
from chronos.jobs.policy import Policy
from chronos.jobs.schedule import Cron, Interval, Once
from tests.agents import T0

NOON = datetime_of(T0)


def told(*arguments: Any, **options: Any) -> list[str]:
    return [moment.isoformat() for moment in next_times(*arguments, **options)]


@freeze_time("2026-03-28 12:00:00")
def test_a_daily_time_that_a_clock_change_leaves_out_comes_right_after_it() -> None:
    """In Berlin the clocks went from 02:00 to 03:00 on the 29th of March 2026; a job is not lost to that."""
    assert told("30 2 * * *", 3, tz="Europe/Berlin") == [
        "2026-03-29T01:00:00+00:00",
        "2026-03-30T00:30:00+00:00",
        "2026-03-31T00:30:00+00:00",
    ]


@freeze_time("2026-10-24 12:00:00")
def test_a_daily_time_that_a_clock_change_repeats_comes_once() -> None:
    """In Berlin the clocks go from 03:00 back to 02:00 on the 25th of October 2026."""
    assert told("30 2 * * *", 3, tz="Europe/Berlin") == [
        "2026-10-25T00:30:00+00:00",
        "2026-10-26T01:30:00+00:00",
        "2026-10-27T01:30:00+00:00",
    ]


@freeze_time("2026-10-25 00:45:00")
def test_within_the_hour_that_is_repeated_every_half_hour_is_one() -> None:
    """The instants are evenly apart, whatever the wall clock says twice."""
    times = next_times("*/30 * * * *", 4, tz="Europe/Berlin")
    assert [later - earlier for earlier, later in pairwise(times)] == [timedelta(minutes=30)] * 3
    assert times[0].isoformat() == "2026-10-25T01:00:00+00:00"


@freeze_time("2026-06-26 12:00:00")
def test_a_period_counts_from_now() -> None:
    """As it would for a job that is created now."""
    expected = ["2026-06-26T14:00:00+00:00", "2026-06-26T16:00:00+00:00"]
    assert told("every 2h", 2) == expected
    assert told("in 90s") == ["2026-06-26T12:01:30+00:00"]
    assert len(next_times("every 2h")) == 5


def test_a_schedule_that_ends_has_fewer_times() -> None:
    """A one-shot has one; bounds cut the others off."""
    assert next_times(NOON + timedelta(seconds=5), now_us=T0) == (NOON + timedelta(seconds=5),)
    policy = Policy(starts_us=T0 + 90 * MINUTE_US, ends_us=T0 + 3 * HOUR_US)
    hourly = Interval(period_us=HOUR_US, anchor_us=T0)
    assert next_times(hourly, 5, now_us=T0, policy=policy) == (
        NOON + timedelta(hours=2),
        NOON + timedelta(hours=3),
    )


@given(st.integers(0, 2**51), st.sampled_from(["* * * * *", "0 3 * * 1", "15 2 29 2 *"]), st.integers(1, 8))
def test_each_time_follows_the_one_before(now_us: int, expr: str, count: int) -> None:
    """The preview shows what the scheduler would do: no slot is left out."""
    schedule = Cron(expr=expr, tz="Europe/Berlin")
    times = next_times(schedule, count, now_us=now_us)
    assert len(times) == count
    now = datetime_of(now_us)
    assert [next_after(schedule, moment) for moment in (now, *times[:-1])] == list(times)
    assert microseconds_of(times[0]) == schedules.next_after(schedule, now_us)


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        (("whenever",), {}, "not a schedule"),
        (("61 * * * *",), {}, "expected 5 fields"),
        (("0 3 * * *",), {"tz": "Atlantis/Sunken"}, "Atlantis/Sunken"),
        ((Once(at_us=T0 - 1),), {}, "no time left"),
        (("30m",), {"policy": Policy(ends_us=T0)}, "no time left"),
    ],
)
def test_what_could_never_run_says_why(arguments: Any, options: Any, says: str) -> None:
    """Before a job is made of it."""
    with pytest.raises(ScheduleError, match=says):
        next_times(*arguments, now_us=T0, **options)


@pytest.mark.parametrize("count", [0, -1, MAX_PREVIEW + 1])
def test_a_count_out_of_range_is_refused(count: int) -> None:
    """It names the range."""
    with pytest.raises(ValueError, match=f"count is {count}; expected a whole number, 1 to {MAX_PREVIEW}"):
        next_times("30m", count)


def test_the_longest_preview_is_shown() -> None:
    """Of every second, it is less than three hours."""
    times = next_times("* * * * * *", MAX_PREVIEW, now_us=T0)
    assert times[-1] == datetime(2026, 6, 26, 14, 46, 40, tzinfo=UTC)
