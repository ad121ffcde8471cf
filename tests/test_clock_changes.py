"""Cron expressions around every change of the clocks in the zone data, against an independent oracle.

Every zone is looked at. Names with byte-identical data count as one zone. Where a test says "distinct
changes", zones that change at one instant from and to the same offsets count once: within a day of it
their clocks on the wall show the same.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo
from functools import cache
from itertools import pairwise, takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronos.errors import ScheduleError
from chronos.jobs import cron
from chronos.jobs import schedule as schedule_module
from chronos.jobs.instants import HOUR_US, MINUTE_US, SECOND_US, format_instant, parse_instant
from chronos.jobs.schedule import (
    Cron,
    Interval,
    Once,
    Schedule,
    next_after,
    parse_schedule,
    slots_after,
    upcoming,
)
from chronos.jobs.zones import zone_of
from tests import cron_oracle as oracle

HOUR_S = 3600
AROUND_S = 26 * HOUR_S  # a whole day on either side, and two hours to spare
PARTS = 8  # so that the processes of a test run can share the work


def at(text: str) -> int:
    return parse_instant(text)


def texts(schedule: Schedule, after: str, count: int) -> list[str]:
    return [format_instant(slot) for slot in upcoming(schedule, at(after), count)]


def slots_between(schedule: Schedule, after_us: int, until_us: int) -> list[int]:
    return list(takewhile(lambda slot: slot <= until_us, slots_after(schedule, after_us)))


def found(expr: str, name: str, first: int, last: int) -> list[int]:
    """Return the slots that the code under test counts from *first* to *last*, in whole seconds."""
    slots = slots_between(Cron(expr=expr, tz=name), first * SECOND_US - 1, last * SECOND_US)
    assert not any(slot % SECOND_US for slot in slots)
    return [slot // SECOND_US for slot in slots]


def differences(cases: Iterable[tuple[str, str, int]], around_s: int = AROUND_S) -> list[str]:
    """Return the cases (expression, zone, change) whose slots are not those of the oracle, and how."""
    wrong = []
    for expr, name, change in cases:
        first, last = change - around_s, change + around_s
        slots, expected = found(expr, name, first, last), oracle.slots(expr, name, first, last)
        counted = cron.count(expr, zone_of(name), first, last)
        if counted != len(expected):
            when = format_instant(change * SECOND_US)
            wrong.append(f"{expr} in {name} at {when}: counted {counted} in place of {len(expected)}")
        if slots != expected:
            more, less = (
                [format_instant(slot * SECOND_US) for slot in sorted(set(here) - set(there))]
                for here, there in ((slots, expected), (expected, slots))
            )
            when = format_instant(change * SECOND_US)
            wrong.append(f"{expr} in {name} at {when}: too many {more}, too few {less}")
    return wrong


# --- where to look ------------------------------------------------------------------------------

# A zone, a year, and the sizes of its changes in that year, in minutes.
ODD = [
    ("Europe/Berlin", 2025, {60, -60}),
    ("America/New_York", 2026, {60, -60}),
    ("Europe/Dublin", 2025, {60, -60}),  # by law it is winter time that differs
    ("Australia/Lord_Howe", 2025, {30, -30}),
    ("Antarctica/Troll", 2025, {120, -120}),
    ("America/St_Johns", 1988, {120, -120}),  # double summer time, a minute past midnight
    ("America/Sao_Paulo", 2018, {60, -60}),  # no midnight
    ("America/Havana", 2025, {60, -60}),  # two midnights
    ("America/Scoresbysund", 1981, {120, -60}),
    ("America/Scoresbysund", 2024, {-60}),  # a change of law in place of the one in spring
    ("Africa/Casablanca", 2025, {60, -60}),  # around a month of fasting
    ("Africa/El_Aaiun", 2026, {60, -60}),
    ("Africa/Cairo", 2014, {60, -60}),  # four changes
    ("Asia/Gaza", 2023, {60, -60}),
    ("Asia/Pyongyang", 2015, {-30}),
    ("Asia/Pyongyang", 2018, {30}),
    ("America/Caracas", 2007, {-30}),
    ("America/Caracas", 2016, {30}),
    ("Asia/Kathmandu", 1985, {15}),
    ("America/Guyana", 1975, {45}),
    ("America/Montevideo", 1974, {90, -60, -30, 60}),
    ("Africa/Monrovia", 1972, {44.5}),
    ("Europe/Dublin", 1916, {60, -2079 / 60}),
    ("Europe/Lisbon", 1912, {2205 / 60}),
    ("Antarctica/Davis", 2009, {-120}),
    ("Antarctica/Davis", 2010, {120}),
    ("Antarctica/Vostok", 1994, {-420, 420}),
    ("Antarctica/Casey", 2020, {180, -180}),
    ("Pacific/Apia", 2011, {-60, 60, 1440}),  # no 30 December
    ("Pacific/Kiritimati", 1994, {1440}),
    ("Pacific/Kwajalein", 1993, {1440}),
    ("America/Juneau", 1867, {-1440}),  # one day twice
]
ODD_YEARS = [(name, year) for name, year, _ in ODD]
odd_years = pytest.mark.parametrize(
    ("name", "year"), ODD_YEARS, ids=[f"{name}-{year}" for name, year in ODD_YEARS]
)


@cache
def changes_in(name: str, year: int) -> list[int]:
    start, end = (datetime(y, 1, 1, tzinfo=UTC).timestamp() for y in (year, year + 1))
    return [change for change in oracle.changes(name) if start <= change < end]


@cache
def offsets(name: str, change: int) -> tuple[int, int]:
    """Return the offsets of a zone before and after a change, in seconds."""
    zone = zoneinfo.ZoneInfo(name)
    return oracle.offset_s(zone, change - 1), oracle.offset_s(zone, change)


@cache
def distinct_changes() -> dict[tuple[int, int, int], str]:
    """Return every distinct change, as (instant, offset before, offset after), with one of its zones."""
    return {
        (change, *offsets(name, change)): name
        for name in oracle.zone_names()
        for change in oracle.changes(name)
    }


@cache
def every_change() -> list[tuple[str, int]]:
    """Return the distinct changes as (zone, instant), zone by zone, which spares the caches."""
    return sorted((name, change) for (change, *_), name in distinct_changes().items())


def recent_changes() -> list[tuple[str, int]]:
    """Return the distinct changes of the decades around the present."""
    first, last = (datetime(year, 1, 1, tzinfo=UTC).timestamp() for year in (2016, 2032))
    return [place for place in every_change() if first <= place[1] < last]


def kinds_of_change() -> list[tuple[str, int]]:
    """Return the latest change of each kind: one time of day on the wall, from one offset to another."""
    kinds = {
        ((change + before) % 86_400, before, after): (name, change)
        for (change, before, after), name in sorted(distinct_changes().items())
    }
    return sorted(kinds.values())


parts = pytest.mark.parametrize("part", range(PARTS))


def test_every_zone_has_a_name_that_is_accepted() -> None:
    """Every zone of the data is a zone of a schedule; only the machine's own is refused."""
    names = zoneinfo.available_timezones()
    for name in names - {"localtime"}:
        assert zone_of(name).utcoffset(datetime(2026, 1, 1)) is not None  # noqa: DTZ001 - a wall
    with pytest.raises(ScheduleError):
        zone_of("localtime")
    assert set(oracle.zone_names()) <= names


def test_the_changes_looked_at_are_those_of_the_data() -> None:
    """The windows are not empty of changes: each is one, and well-known zones have all of theirs."""
    assert len(oracle.zone_names()) > 300
    assert len(distinct_changes()) > 5_000
    assert all(len(changes_in("Europe/Berlin", year)) == 2 for year in range(1981, 2038))
    assert all(len(changes_in("America/New_York", year)) == 2 for year in range(1970, 2038))
    assert all(before != after for _, before, after in distinct_changes())


@pytest.mark.parametrize(("name", "year", "minutes"), ODD)
def test_odd_changes_are_odd(name: str, year: int, minutes: set[float]) -> None:
    """The zones that were chosen for their changes do make them."""
    steps = [offsets(name, change) for change in changes_in(name, year)]
    assert {(after - before) / 60 for before, after in steps} == minutes


def test_no_zone_changes_twice_within_three_days() -> None:
    """The search for changes goes in steps of three days, and would miss two within one of them."""
    for name in oracle.zone_names():
        for earlier, later in pairwise(oracle.changes(name)):
            assert later - earlier > cron._STEP_S, name


# --- the oracle itself --------------------------------------------------------------------------

SPARSE = [
    "30 2 * * *",
    "0 0 * * *",
    "0 1 * * *",
    "59 1 * * *",
    "0 2 * * *",
    "0 3 * * *",
    "59 23 * * *",
    "0 12 * * *",
    "0,30 2 * * *",
    "15,45 0-4 * * *",
    "5-59/20 1-3 * * *",
    "30 0,1,2,3 * * *",
    "10 1-23/2 * * *",
    "30 2 * * SUN",
    "30 2 * * 0L",
    "0 1 * * 7#2",
    "30 1 L * *",
    "0 0 LW * *",
    "0 2 */2 * SUN",
    "30 2 1,25-31 * SAT",
    "30 2 29 2 *",
    "45 23 31 12 *",
    "0 * * * *",
    "30 */2 * * *",
    "0 */6 * * *",
    "*/15 2 * * *",
    "*/30 0-4 * * 0L",
    "20/20 */3 L * SUN",
    "@hourly",
    "@daily",
    "@weekly",
    "@monthly",
]
DENSE = ["* * * * *", "*/5 * * * *", "0-59 0-23 * * *", "* 0-4 * * *", "1-59/2 1,2,3 * * *", "7 * * * *"]
FIELDS = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *"}


@odd_years
def test_the_oracle_is_the_daemon_that_wakes_every_second(name: str, year: int) -> None:
    """What the oracle has by stretches of constant offset is what a walk through the seconds finds."""
    for change in changes_in(name, year):
        first, last = change - 2 * HOUR_S, change + 4 * HOUR_S
        for expr in ("* * * * *", "0-59 0-23 * * *", "*/20 1-3 * * *", "30 0,1,2,3 L * SUN", "0 2 * * *"):
            assert oracle.slots(expr, name, first, last) == oracle.walked(expr, name, first, last)


# --- every zone, every change -------------------------------------------------------------------


def amid(name: str, change: int) -> tuple[int, int]:
    """Return the minute and the hour on the wall that are the middle of a change's gap or overlap."""
    before, after = offsets(name, change)
    hour, minute = divmod((change + (before + after) // 2) // 60 % (24 * 60), 60)
    return minute, hour


def edges_of(name: str, change: int) -> Iterable[str]:
    """Yield fixed times at the edges of a gap or overlap: the minutes before, at and after each end."""
    for offset in offsets(name, change):
        for beside_s in (-60, 0, 59):
            hour, minute = divmod((change + offset + beside_s) // 60 % (24 * 60), 60)
            yield f"{minute} {hour} * * *"


@parts
def test_fixed_time_amid_every_change_of_every_zone(part: int) -> None:
    """A fixed time that a change skips or repeats has the oracle's slots."""
    cases = (
        ("{} {} * * *".format(*amid(name, change)), name, change)
        for name in oracle.zone_names()[part::PARTS]
        for change in oracle.changes(name)
    )
    assert differences(cases) == []


@parts
def test_star_amid_every_distinct_change(part: int) -> None:
    """A job that begins with a star, in an hour that a change skips or repeats, has the oracle's slots."""
    cases = (
        ("*/20 {1} * * *".format(*amid(name, change)), name, change)
        for name, change in every_change()[part::PARTS]
    )
    assert differences(cases) == []


@parts
def test_edges_of_every_recent_change(part: int) -> None:
    """Fixed times just before, at and just after both ends of a gap or overlap have the oracle's slots."""
    cases = (
        (expr, name, change)
        for name, change in recent_changes()[part::PARTS]
        for expr in edges_of(name, change)
    )
    assert differences(cases) == []


@parts
def test_what_people_write_at_every_recent_change(part: int) -> None:
    """Fixed times, lists, ranges, steps, stars, days of every sort and nicknames have the oracle's slots."""
    changes = recent_changes()[part::PARTS]
    assert differences((FIELDS.get(expr, expr), *place) for place in changes for expr in SPARSE) == []


@parts
def test_every_kind_of_change_there_ever_was(part: int) -> None:
    """Whatever the time of day and the offsets, of local mean time too, often-run jobs agree."""
    cases = [
        (expr, *place)
        for place in kinds_of_change()[part::PARTS]
        for expr in ("*/7 * * * *", "3-59/7 0-23 * * *")
    ]
    assert differences(cases, around_s=5 * HOUR_S) == []


@odd_years
def test_odd_changes(name: str, year: int) -> None:
    """Everything that people write agrees around the changes that have broken schedulers."""
    cases = (
        (FIELDS.get(expr, expr), name, change)
        for change in changes_in(name, year)
        for expr in [*SPARSE, *DENSE, *edges_of(name, change)]
    )
    assert differences(cases) == []


# --- any zone, any change, any expression -------------------------------------------------------


def numbers(low: int, high: int) -> st.SearchStrategy[str]:
    single = st.integers(low, high).map(str)
    spread = st.tuples(st.integers(low, high), st.integers(low, high)).map(
        lambda pair: f"{min(pair)}-{max(pair)}"
    )
    stepped = st.tuples(spread, st.integers(1, 9)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    return st.lists(single | spread | stepped, min_size=1, max_size=3).map(",".join)


def wild(low: int, high: int) -> st.SearchStrategy[str]:
    return st.just("*") | st.integers(2, 12).map(lambda step: f"*/{step}") | numbers(low, high)


# Days lean toward "every": a window of two days would else be empty most of the time. Hours lean toward
# the small ones, where clocks change.
hours = numbers(0, 4) | wild(0, 23)
days = st.just("*") | st.just("*") | wild(1, 28) | st.sampled_from(["L", "1,LW"])
months = st.just("*") | st.just("*") | wild(1, 12)
weekdays = st.just("*") | st.just("*") | wild(0, 7) | st.sampled_from(["SUN#1", "SAT,SUN", "MON-FRI"])
# Each pair has a date in any month: days in steps, of which all must match, may never be a last Sunday.
days_and_weekdays = st.tuples(days, weekdays) | st.tuples(st.just("*") | numbers(1, 28), st.just("0L"))


def joined(minutes: st.SearchStrategy[str], hours: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(
        lambda minute, hour, day, month: f"{minute} {hour} {day[0]} {month} {day[1]}",
        minutes,
        hours,
        days_and_weekdays,
        months,
    )


expressions = joined(wild(0, 59), hours)
fixed_times = joined(numbers(0, 59), numbers(0, 4))


@st.composite
def places(draw: st.DrawFn) -> tuple[str, int]:
    """Draw a zone and one of its changes."""
    name = draw(st.sampled_from([name for name in oracle.zone_names() if oracle.changes(name)]))
    return name, draw(st.sampled_from(oracle.changes(name)))


@settings(max_examples=300)
@given(place=places(), expr=expressions | fixed_times)
def test_any_expression_at_any_change(place: tuple[str, int], expr: str) -> None:
    """Around any change of any zone the slots are exactly those of the oracle: none more, none less."""
    assert differences([(expr, *place)]) == []


@settings(max_examples=150)
@given(place=places(), expr=expressions | fixed_times, data=st.data())
def test_slots_do_not_depend_on_the_starting_instant(
    place: tuple[str, int], expr: str, data: st.DataObject
) -> None:
    """Starting later gives the rest of the same sequence, from any microsecond of a gap or an overlap."""
    name, change = place
    schedule = Cron(expr=expr, tz=name)
    first, last = (change - AROUND_S) * SECOND_US, (change + AROUND_S) * SECOND_US
    whole = slots_between(schedule, first, last)
    near = st.integers((change - 2 * HOUR_S) * SECOND_US, (change + 2 * HOUR_S) * SECOND_US)
    for start in data.draw(st.lists(near | st.integers(first, last), min_size=1, max_size=8)):
        assert slots_between(schedule, start, last) == [slot for slot in whole if slot > start]


@settings(max_examples=150)
@given(place=places(), expr=expressions | fixed_times, seconds=st.integers(-AROUND_S, AROUND_S))
def test_slots_increase_and_each_is_found_from_just_before_it(
    place: tuple[str, int], expr: str, seconds: int
) -> None:
    """Each slot is strictly after the one before it, and is the next one from a microsecond before it."""
    name, change = place
    schedule, start = Cron(expr=expr, tz=name), (change + seconds) * SECOND_US
    slots = [start, *upcoming(schedule, start, 30)]
    for earlier, later in pairwise(slots):
        assert earlier < later
        assert next_after(schedule, later - 1) == next_after(schedule, earlier) == later


@settings(max_examples=60)
@given(place=places(), expr=expressions | fixed_times)
def test_slots_do_not_depend_on_what_was_asked_before(place: tuple[str, int], expr: str) -> None:
    """A process that has just started counts the same slots as one whose caches are full."""
    name, change = place
    schedule = Cron(expr=expr, tz=name)
    start, end = (change - HOUR_S) * SECOND_US, (change + AROUND_S) * SECOND_US
    warm = slots_between(schedule, start, end)
    schedule_module._chunk.cache_clear()
    cron._spans.cache_clear()
    assert slots_between(schedule, start, end) == warm


@settings(max_examples=60)
@given(place=places(), expr=expressions | fixed_times)
def test_expressions_with_seconds_follow_real_time(place: tuple[str, int], expr: str) -> None:
    """With a field for seconds nothing is made up or left out: the wall either matches or does not."""
    name, change = place
    first, last = change - AROUND_S, change + AROUND_S
    expected = [
        wall + second - offset
        for start, end, offset in oracle.stretches(name, first, last + 1)
        for wall in oracle.expression(expr).walls(start + offset - 30, end + offset)
        for second in (0, 30)
        if start <= wall + second - offset < end
    ]
    assert found(f"0,30 {expr}", name, first, last) == expected


@pytest.mark.parametrize("block_s", [1800, 3600, 7 * 3600, 86_400])
@pytest.mark.parametrize(("name", "year"), ODD_YEARS[:12])
def test_changes_are_seen_wherever_the_search_for_them_is_cut(
    name: str, year: int, block_s: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks in which changes are looked up may begin anywhere, also at a change or inside an overlap."""
    change = changes_in(name, year)[-1]
    with monkeypatch.context() as patch:
        patch.setattr(cron, "_BLOCK_S", block_s)
        schedule_module._chunk.cache_clear()
        cron._spans.cache_clear()
        for expr in ("15,45 0-23 * * *", "*/30 * * * *"):
            for first in (change - 16 * HOUR_S, change - 60, change + 20 * 60):
                last = change + 28 * HOUR_S
                whole = oracle.slots(expr, name, change - 16 * HOUR_S, last)
                assert found(expr, name, first, last) == [slot for slot in whole if slot >= first]
    schedule_module._chunk.cache_clear()
    cron._spans.cache_clear()


# --- what takes no notice of clock changes ------------------------------------------------------


@odd_years
def test_periods_and_delays_are_real_time(name: str, year: int) -> None:
    """What recurs or waits is as long in a zone whose clocks change meanwhile as anywhere."""
    for change in changes_in(name, year):
        now_us = change * SECOND_US - 90 * MINUTE_US
        every = parse_schedule("every 40m", now_us=now_us, tz=name)
        assert every == Interval(period_us=40 * MINUTE_US, anchor_us=now_us)
        assert upcoming(every, now_us, 40) == tuple(now_us + 40 * MINUTE_US * nth for nth in range(1, 41))
        delay = parse_schedule("in 3h", now_us=now_us, tz=name)
        assert upcoming(delay, now_us, 2) == (now_us + 3 * HOUR_US,)


@pytest.mark.parametrize("text", ["2025-10-26T02:30:00+02:00", "2025-10-26T02:30:00+01:00"])
def test_timestamp_says_which_of_two_equal_times_it_means(text: str) -> None:
    """Both half past twos of an autumn night can be named, by their offset."""
    schedule = parse_schedule(text, now_us=at("2025-10-25T00:00:00Z"), tz="Europe/Berlin")
    assert schedule == Once(at_us=at(text))
    assert list(slots_after(schedule, at("2025-10-25T00:00:00Z"))) == [at(text)]


@settings(max_examples=60)
@given(expr=expressions | fixed_times, day=st.integers(-36_500, 36_500), minutes=st.integers(-1439, 1439))
def test_fixed_offset_is_universal_time_moved_by_it(expr: str, day: int, minutes: int) -> None:
    """Without clock changes the wall decides alone: in UTC, and as far from it as an offset says."""
    first = day * oracle.DAY_S
    expected = oracle.slots(expr, "UTC", first, first + AROUND_S)
    assert found(expr, "UTC", first, first + AROUND_S) == expected
    sign, (hour, minute) = "-" if minutes < 0 else "+", divmod(abs(minutes), 60)
    moved = found(expr, f"{sign}{hour:02}:{minute:02}", first - minutes * 60, first - minutes * 60 + AROUND_S)
    assert moved == [slot - minutes * 60 for slot in expected]


# --- the rule by example ------------------------------------------------------------------------


def test_time_in_the_spring_gap_runs_at_the_change() -> None:
    """02:30 does not exist on the last Sunday of March in Berlin: the job runs at 03:00 summer time."""
    assert texts(Cron(expr="30 2 * * *", tz="Europe/Berlin"), "2025-03-29T12:00:00Z", 2) == [
        "2025-03-30T01:00:00+00:00",
        "2025-03-31T00:30:00+00:00",
    ]


def test_several_times_in_one_gap_are_one_slot() -> None:
    """Two times that are skipped together run once, since an instant is a slot at most once."""
    assert texts(Cron(expr="0,30 2 * * *", tz="Europe/Berlin"), "2025-03-29T12:00:00Z", 2) == [
        "2025-03-30T01:00:00+00:00",
        "2025-03-31T00:00:00+00:00",
    ]


def test_time_in_the_autumn_overlap_runs_the_first_time_only() -> None:
    """02:30 comes twice on an October Sunday in Berlin: asked between the two, the answer is tomorrow."""
    job = Cron(expr="30 2 * * *", tz="Europe/Berlin")
    assert texts(job, "2025-10-25T12:00:00Z", 2) == ["2025-10-26T00:30:00+00:00", "2025-10-27T01:30:00+00:00"]
    assert texts(job, "2025-10-26T01:10:00Z", 1) == ["2025-10-27T01:30:00+00:00"]


def test_hour_after_a_half_hour_change_is_whole() -> None:
    """Lord Howe moves by half an hour, and no minute of the hour after it is passed over."""
    job = Cron(expr="* 3 * * *", tz="Australia/Lord_Howe")
    assert texts(job, "2025-10-04T14:00:00Z", 1) == ["2025-10-04T16:00:00+00:00"]


def test_midnight_that_does_not_exist_has_no_minutes() -> None:
    """São Paulo skipped the first hour of 4 November 2018: a job for its every minute waits a year."""
    job = Cron(expr="* 0 4 11 *", tz="America/Sao_Paulo")
    assert texts(job, "2018-10-20T00:00:00Z", 1) == ["2019-11-04T03:00:00+00:00"]


def test_skipped_day_is_not_made_up() -> None:
    """Samoa skipped 30 December 2011, more than cron(8) makes up: the daily job goes on the next day."""
    assert texts(Cron(expr="0 5 * * *", tz="Pacific/Apia"), "2011-12-29T00:00:00Z", 3) == [
        "2011-12-29T15:00:00+00:00",
        "2011-12-30T15:00:00+00:00",
        "2011-12-31T15:00:00+00:00",
    ]


def test_star_in_the_spring_gap_waits_for_its_time() -> None:
    """A star follows real time: what it would have matched in the skipped hour is not made up."""
    assert texts(Cron(expr="*/30 2 * * *", tz="Europe/Berlin"), "2025-03-29T12:00:00Z", 2) == [
        "2025-03-31T00:00:00+00:00",
        "2025-03-31T00:30:00+00:00",
    ]


def test_star_in_the_autumn_overlap_runs_both_times() -> None:
    """A star follows real time: the hour that comes twice is two hours."""
    assert texts(Cron(expr="30 */2 * * *", tz="Europe/Berlin"), "2025-10-25T23:00:00Z", 3) == [
        "2025-10-26T00:30:00+00:00",
        "2025-10-26T01:30:00+00:00",
        "2025-10-26T03:30:00+00:00",
    ]


def test_change_of_exactly_three_hours_corrects_the_clock() -> None:
    """Casey went back by three hours: not "less than three", so that the repeated time runs again."""
    assert texts(Cron(expr="30 1 * * *", tz="Antarctica/Casey"), "2023-03-08T12:00:00Z", 3) == [
        "2023-03-08T14:30:00+00:00",
        "2023-03-08T17:30:00+00:00",
        "2023-03-09T17:30:00+00:00",
    ]
    assert texts(Cron(expr="30 1 * * *", tz="Antarctica/Casey"), "2022-09-30T18:00:00Z", 2) == [
        "2022-10-02T14:30:00+00:00",
        "2022-10-03T14:30:00+00:00",
    ]


def test_minute_that_is_cut_by_a_change_does_not_match() -> None:
    """Monrovia went from 00:00:00 to 00:44:30: of 00:44 there was half a minute, but not its beginning."""
    star, fixed = (Cron(expr=expr, tz="Africa/Monrovia") for expr in ("* 0 * * *", "44 0 * * *"))
    assert texts(star, "1972-01-07T00:44:00Z", 1) == ["1972-01-07T00:45:00+00:00"]
    assert texts(fixed, "1972-01-07T00:44:00Z", 2) == [
        "1972-01-07T00:44:30+00:00",
        "1972-01-08T00:44:00+00:00",
    ]


def test_time_that_only_ever_falls_into_the_gap_ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A star at 02:xx on last Sundays of March has no slot in Berlin any more, which is found out quickly.

    The search once went on to the year 9999, for seconds, and again for every hour in which it was asked.
    """
    job = Cron(expr="*/10 2 * 3 0L", tz="Europe/Berlin")
    looked_at = []
    spans = cron._spans

    def noted(zone: tzinfo, block: int) -> tuple[tuple[int, int, int], ...]:
        looked_at.append(block)
        return spans(zone, block)

    monkeypatch.setattr(cron, "_spans", noted)
    assert texts(job, "1980-03-30T01:45:00Z", 2) == ["1980-03-30T01:50:00+00:00"]
    assert next_after(job, at("2026-06-26T12:00:00Z")) is None
    assert len(looked_at) <= 3 * 400
    fixed = Cron(expr="10 2 * 3 0L", tz="Europe/Berlin")
    assert texts(fixed, "2026-01-01T00:00:00Z", 1) == ["2026-03-29T01:00:00+00:00"]
