"""Schedules against an independent reading of Debian's cron: a daemon simulated minute by minute."""

from __future__ import annotations

import sys
import zoneinfo
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from itertools import islice, pairwise, takewhile

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chronos.protocol import cron
from chronos.protocol import schedule as schedule_module
from chronos.protocol.schedule import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    SECOND_US,
    Cron,
    Interval,
    Once,
    Schedule,
    ScheduleError,
    format_instant,
    next_after,
    parse_instant,
    parse_schedule,
    upcoming,
    zone_of,
)

NOW = parse_instant("2026-06-26T12:00:00+00:00")
FIRST = parse_instant("0001-01-01T00:00:00Z")
LAST = parse_instant("9999-12-31T23:59:59.999999Z")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

instants = st.integers(FIRST, LAST)
recent_instants = st.integers(parse_instant("2000-01-01T00:00:00Z"), parse_instant("2040-01-01T00:00:00Z"))


def at(text: str) -> int:
    return parse_instant(text)


def texts(schedule: Schedule, after: str, number: int) -> list[str]:
    return [format_instant(slot) for slot in islice(upcoming(schedule, at(after)), number)]


# --- the independent oracle ---------------------------------------------------------------------

# A zone and the year in which to look for its changes. Between them: whole hours, half an hour, a gap
# at midnight, an overlap at midnight, changes around a month of fasting, none at all, a skipped day.
PLACES = [
    ("Europe/Berlin", 2025),
    ("America/New_York", 2026),
    ("Australia/Lord_Howe", 2025),
    ("America/Sao_Paulo", 2018),
    ("Africa/Casablanca", 2025),
    ("Asia/Kolkata", 2025),
    ("Pacific/Apia", 2011),
    ("America/Havana", 2025),
    ("Asia/Pyongyang", 2015),
    ("Antarctica/Casey", 2009),
    ("Antarctica/Troll", 2025),
    ("America/St_Johns", 2010),
    ("Europe/Dublin", 2025),
]
PLACES_WITHOUT_CHANGES = {"Asia/Kolkata"}


def wall_minute(zone: zoneinfo.ZoneInfo, minute: int) -> int:
    """Return the minute a wall clock shows, counted as if it were UTC."""
    local = (EPOCH + timedelta(minutes=minute)).astimezone(zone).replace(tzinfo=UTC)
    return (local - EPOCH) // timedelta(minutes=1)


@cache
def windows(place: tuple[str, int]) -> list[range]:
    """Return the minutes around each clock change of a zone's year, or of its midsummer if it has none."""
    zone = zoneinfo.ZoneInfo(place[0])
    first = (datetime(place[1], 1, 1, tzinfo=UTC) - EPOCH) // timedelta(minutes=1)
    half_hours = range(first, first + 366 * 24 * 60, 30)
    shifts = [(minute, wall_minute(zone, minute) - minute) for minute in half_hours]
    changes = [later for (_, before), (later, after) in pairwise(shifts) if before != after]
    return [range(change - 16 * 60, change + 28 * 60) for change in changes or [first + 180 * 24 * 60]]


@cache
def walls(zone_name: str, window: range) -> list[int]:
    zone = zoneinfo.ZoneInfo(zone_name)
    return [wall_minute(zone, minute) for minute in window]


@cache
def field_values(field: str, low: int, high: int) -> frozenset[int]:
    values: set[int] = set()
    for term in field.split(","):
        body, _, step = term.partition("/")
        first, _, last = body.partition("-")
        bounds = (low, high) if body == "*" else (int(first), int(last or first))
        values.update(range(bounds[0], bounds[1] + 1, int(step or 1)))
    return frozenset(values)


@cache
def wall_fields(minute: int) -> tuple[int, int, int, int, int]:
    moment = EPOCH + timedelta(minutes=minute)
    return moment.minute, moment.hour, moment.day, moment.month, moment.isoweekday() % 7


def wall_matches(expr: str, minute: int) -> bool:
    minutes, hours, days, months, weekdays = expr.split()
    m, h, day, month, weekday = wall_fields(minute)
    if (
        m not in field_values(minutes, 0, 59)
        or h not in field_values(hours, 0, 23)
        or month not in field_values(months, 1, 12)
    ):
        return False
    both = (day in field_values(days, 1, 31), weekday in field_values(weekdays, 0, 6))
    return all(both) if days[0] == "*" or weekdays[0] == "*" else any(both)


def daemon_slots(expr: str, zone_name: str, window: range) -> list[int]:
    """Return the slots in a window as Debian's daemon has them: awake every minute, keeping a virtual clock.

    Jobs that begin with a star are looked up at the wall's minute. The others are looked up at each
    minute of the virtual clock, which catches up after a small jump and waits after a small step back.
    """
    wild = any(field.startswith("*") for field in expr.split()[:2])
    wall_of = walls(zone_name, window)
    virtual = wall_of[0] - 1
    slots = []
    for minute, wall in zip(window, wall_of, strict=True):
        if wild:
            due = range(wall, wall + 1)
        elif 0 < wall - virtual <= 180:
            due = range(virtual + 1, wall + 1)
        elif -179 < wall - virtual <= 0:
            due = range(0)
        else:
            due = range(wall, wall + 1)
        if due:
            virtual = due[-1]
        if any(wall_matches(expr, candidate) for candidate in due):
            slots.append(minute * MINUTE_US)
    return slots


def slots_between(schedule: Schedule, after_us: int, until_us: int) -> list[int]:
    return list(takewhile(lambda slot: slot <= until_us, upcoming(schedule, after_us)))


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
days = st.just("*") | st.just("*") | wild(1, 28)
months = st.just("*") | st.just("*") | wild(1, 12)
weekdays = st.just("*") | st.just("*") | wild(0, 6)
expressions = st.tuples(wild(0, 59), hours, days, months, weekdays).map(" ".join)
fixed_times = st.tuples(numbers(0, 59), numbers(0, 4), days, months, weekdays).map(" ".join)
places = st.sampled_from(PLACES).flatmap(
    lambda place: st.tuples(st.just(place[0]), st.sampled_from(windows(place)))
)


# --- clock changes ------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place[0]}-{place[1]}")
def test_windows_surround_real_clock_changes(place: tuple[str, int]) -> None:
    """The windows that the other tests look at do hold a change, so agreement there means something."""
    for window in windows(place):
        steps = {later - earlier for earlier, later in pairwise(walls(place[0], window))}
        assert (steps == {1}) == (place[0] in PLACES_WITHOUT_CHANGES)


@settings(max_examples=500, deadline=None)
@given(place=places, expr=expressions | fixed_times)
def test_slots_are_those_of_the_daemon(place: tuple[str, range], expr: str) -> None:
    """Around every clock change the slots are exactly those of the simulated daemon: none more, none less."""
    zone_name, window = place
    found = slots_between(Cron(expr=expr, tz=zone_name), window[0] * MINUTE_US - 1, window[-1] * MINUTE_US)
    expected = daemon_slots(expr, zone_name, window)
    assert found == expected


@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place[0]}-{place[1]}")
@pytest.mark.parametrize(
    "expr",
    [
        "* * * * *",
        "*/15 * * * *",
        "0 * * * *",
        "* 0 * * *",
        "* 2 * * *",
        "* 3 * * *",
        "*/10 0-4 * * *",
        "30 0-4 * * *",
        "0,15,30,45 0,1,2,3 * * *",
        "0 5 * * *",
        "59 23 * * *",
        "0 0 * * *",
        "0-59 0-23 * * *",
    ],
)
def test_common_expressions_are_those_of_the_daemon(place: tuple[str, int], expr: str) -> None:
    """What people write most agrees with the daemon around each clock change of each zone."""
    for window in windows(place):
        found = slots_between(Cron(expr=expr, tz=place[0]), window[0] * MINUTE_US - 1, window[-1] * MINUTE_US)
        assert found == daemon_slots(expr, place[0], window)


@settings(max_examples=150, deadline=None)
@given(place=places, expr=expressions | fixed_times, data=st.data())
def test_slots_do_not_depend_on_the_starting_instant(
    place: tuple[str, range], expr: str, data: st.DataObject
) -> None:
    """Starting later gives the rest of the same sequence, from any microsecond of a gap or an overlap."""
    zone_name, window = place
    schedule = Cron(expr=expr, tz=zone_name)
    first, last = window[0] * MINUTE_US, window[-1] * MINUTE_US
    whole = slots_between(schedule, first, last)
    for start in data.draw(st.lists(st.integers(first, last), min_size=1, max_size=8)):
        assert slots_between(schedule, start, last) == [slot for slot in whole if slot > start]


@settings(max_examples=60, deadline=None)
@given(place=places, expr=expressions | fixed_times)
def test_slots_do_not_depend_on_what_was_asked_before(place: tuple[str, range], expr: str) -> None:
    """A process that has just started counts the same slots as one whose caches are full."""
    zone_name, window = place
    schedule = Cron(expr=expr, tz=zone_name)
    start, end = window[len(window) // 2] * MINUTE_US, window[-1] * MINUTE_US
    warm = slots_between(schedule, start, end)
    schedule_module._chunk.cache_clear()
    cron._spans.cache_clear()
    assert slots_between(schedule, start, end) == warm


@settings(max_examples=60, deadline=None)
@given(place=places, expr=st.tuples(wild(0, 59), hours, days, months, weekdays).map(" ".join))
def test_expressions_with_seconds_follow_real_time(place: tuple[str, range], expr: str) -> None:
    """With a field for seconds nothing is made up or left out: the wall either matches or does not."""
    zone_name, window = place
    found = slots_between(
        Cron(expr=f"0,30 {expr}", tz=zone_name),
        window[0] * MINUTE_US - 1,
        window[-1] * MINUTE_US + 59 * SECOND_US,
    )
    expected = [
        minute * MINUTE_US + second * SECOND_US
        for minute, wall in zip(window, walls(zone_name, window), strict=True)
        if wall_matches(expr, wall)
        for second in (0, 30)
    ]
    assert found == expected


@pytest.mark.parametrize("block_s", [1800, 3600, 7 * 3600, 86_400])
@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place[0]}-{place[1]}")
def test_changes_are_seen_wherever_the_search_for_them_is_cut(
    place: tuple[str, int], block_s: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks in which changes are looked up may begin anywhere, also at a change or inside an overlap."""
    window = windows(place)[-1]
    middle = window[16 * 60]
    with monkeypatch.context() as patch:
        patch.setattr(cron, "_BLOCK_S", block_s)
        schedule_module._chunk.cache_clear()
        cron._spans.cache_clear()
        for expr in ("15,45 0-23 * * *", "*/30 * * * *"):
            schedule, expected = Cron(expr=expr, tz=place[0]), daemon_slots(expr, place[0], window)
            for start in (window[0] * MINUTE_US - 1, (middle - 1) * MINUTE_US, (middle + 20) * MINUTE_US):
                later = [slot for slot in expected if slot > start]
                assert slots_between(schedule, start, window[-1] * MINUTE_US) == later
    schedule_module._chunk.cache_clear()
    cron._spans.cache_clear()


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


def test_leap_day_of_a_given_weekday_is_found_years_ahead() -> None:
    """29 February is a Sunday in 2032 and then in 2060: the search for sparse slots goes far enough."""
    assert texts(Cron(expr="0 12 29 2 */7", tz="Europe/Berlin"), "2026-01-01T00:00:00Z", 2) == [
        "2032-02-29T11:00:00+00:00",
        "2060-02-29T11:00:00+00:00",
    ]


def test_range_of_one_value_with_a_step_is_that_value() -> None:
    """`5-5/10` is the minute 5 alone, as in Debian's cron, and not every tenth minute from it on."""
    assert texts(Cron(expr="5-5/10 * * * *", tz="UTC"), "2026-01-01T00:00:00Z", 2) == [
        "2026-01-01T00:05:00+00:00",
        "2026-01-01T01:05:00+00:00",
    ]
    with pytest.raises(ScheduleError, match="Bad minute"):
        Cron(expr="5-5/0 * * * *", tz="UTC")


def test_day_of_month_or_weekday() -> None:
    """When neither day field begins with a star, either may match."""
    assert texts(Cron(expr="0 0 13 * FRI", tz="UTC"), "2026-06-11T00:00:00Z", 3) == [
        "2026-06-12T00:00:00+00:00",
        "2026-06-13T00:00:00+00:00",
        "2026-06-19T00:00:00+00:00",
    ]


def test_fixed_offset_needs_no_zone_data() -> None:
    """A schedule in +05:30 is that far ahead of UTC all year."""
    assert texts(Cron(expr="0 9 * * *", tz="+05:30"), "2026-01-01T00:00:00Z", 1) == [
        "2026-01-01T03:30:00+00:00"
    ]
    assert texts(Cron(expr="0 9 * * *", tz="-07:00"), "2026-07-01T00:00:00Z", 1) == [
        "2026-07-01T16:00:00+00:00"
    ]


def test_slots_end_with_the_calendar() -> None:
    """After the last representable slot there is none, rather than an overflow."""
    hourly = Cron(expr="0 * * * *", tz="-07:00")
    assert texts(hourly, "9999-12-31T16:30:00Z", 20)[0] == "9999-12-31T17:00:00+00:00"
    assert next_after(hourly, LAST) is None
    assert next_after(Interval(period_us=HOUR_US, anchor_us=NOW), LAST) is None
    assert next_after(Cron(expr="* * * * *", tz="+14:00"), FIRST) is not None


@settings(max_examples=60, deadline=None)
@given(
    expr=expressions,
    tz=st.sampled_from(
        ["UTC", "+05:30", "-07:00", "Europe/Berlin", "Australia/Lord_Howe", "America/New_York"]
    ),
    start=recent_instants,
)
def test_cron_slots_are_strictly_increasing(expr: str, tz: str, start: int) -> None:
    """Every slot is strictly after the one before, on a whole minute."""
    slots = [start, *islice(upcoming(Cron(expr=expr, tz=tz), start), 30)]
    assert all(earlier < later for earlier, later in pairwise(slots))
    assert all(slot % MINUTE_US == 0 for slot in slots[1:])


def test_threads_agree() -> None:
    """Threads that ask at once, with nothing cached, all get the same slots."""
    schedule = Cron(expr="*/7 1-3 * * *", tz="America/New_York")
    start = at("2026-03-07T00:00:00Z")
    expected = list(islice(upcoming(schedule, start), 60))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            schedule_module._chunk.cache_clear()
            found = list(pool.map(lambda _: list(islice(upcoming(schedule, start), 60)), range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert found == [expected] * 8


# --- interval and once --------------------------------------------------------------------------

periods = st.integers(1, 400 * DAY_US)


@given(period=periods, anchor=instants, start=recent_instants)
def test_interval_slots_are_whole_periods_from_the_anchor(period: int, anchor: int, start: int) -> None:
    """The next slot is on the grid, after the instant, and at most one period away."""
    slot = next_after(Interval(period_us=period, anchor_us=anchor), start)
    assert slot is not None
    assert 0 < slot - start <= period
    assert (slot - anchor) % period == 0


@given(period=periods, anchor=recent_instants, shift=st.integers(-50, 50), start=recent_instants)
def test_any_slot_serves_as_anchor(period: int, anchor: int, shift: int, start: int) -> None:
    """An interval anchored at another of its slots has the same slots."""
    moved = anchor + shift * period
    assert next_after(Interval(period_us=period, anchor_us=anchor), start) == next_after(
        Interval(period_us=period, anchor_us=moved), start
    )


@given(moment=instants, start=instants)
def test_once_has_one_slot(moment: int, start: int) -> None:
    """A single instant is a slot before itself and never after."""
    assert list(upcoming(Once(at_us=moment), start)) == ([moment] if start < moment else [])


# --- instants as text ---------------------------------------------------------------------------


@given(instant=instants)
@example(instant=FIRST)
@example(instant=LAST)
@example(instant=-1)
def test_instants_survive_their_text(instant: int) -> None:
    """Writing and reading an instant gives it back, to the microsecond."""
    assert parse_instant(format_instant(instant)) == instant


@given(instant=recent_instants, offset_minutes=st.integers(-14 * 60, 14 * 60))
def test_offset_does_not_change_the_instant(instant: int, offset_minutes: int) -> None:
    """The same moment written in any offset is the same instant."""
    moment = (EPOCH + timedelta(microseconds=instant)).astimezone(timezone(timedelta(minutes=offset_minutes)))
    assert parse_instant(moment.isoformat()) == instant


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (NOW, "2026-06-26T12:00:00+00:00"),
        (NOW + 1, "2026-06-26T12:00:00.000001+00:00"),
        (NOW + SECOND_US // 2, "2026-06-26T12:00:00.500000+00:00"),
        (0, "1970-01-01T00:00:00+00:00"),
        (-SECOND_US, "1969-12-31T23:59:59+00:00"),
    ],
)
def test_canonical_text(instant: int, text: str) -> None:
    """There is one spelling, with a fraction only when there is one."""
    assert format_instant(instant) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2026-06-26T12:00:00", "'2026-06-26T12:00:00' has no offset"),
        ("2026-06-26", "'2026-06-26' has no offset"),
        ("tomorrow", "'tomorrow'; expected ISO 8601 with an offset"),
        ("2026-02-30T00:00:00Z", "'2026-02-30T00:00:00Z'; expected ISO 8601"),
        ("2026-06-26T12:00:00+25:00", "expected ISO 8601"),
        ("", "''; expected ISO 8601"),
        ("10000-01-01T00:00:00Z", "expected ISO 8601"),
        ("0001-01-01T00:00:00+14:00", "out of range"),
        ("9999-12-31T23:59:59-01:00", "out of range"),
        (None, "None; expected ISO 8601"),
        (1782475200, "1782475200; expected ISO 8601"),
        (b"2026-06-26T12:00:00Z", "expected ISO 8601"),
    ],
)
def test_text_that_is_no_instant_is_refused(text: str, message: str) -> None:
    """The refusal names the text and what was expected."""
    with pytest.raises(ScheduleError) as refusal:
        parse_instant(text)
    assert message in str(refusal.value)


@given(text=st.text())
@example(text="\ud800")
@example(text="2026-06-26T12:00:00\x00Z")
def test_any_text_is_an_instant_or_refused(text: str) -> None:
    """No text raises anything but the one error."""
    with suppress(ScheduleError):
        parse_instant(text)


@pytest.mark.parametrize("value", [LAST + 1, FIRST - 1, 10**30, 1.5, "0", None, True])
def test_numbers_without_text_are_refused(value: int) -> None:
    """An instant that no calendar date or whole number stands for is not written."""
    with pytest.raises(ScheduleError, match="expected whole epoch microseconds"):
        format_instant(value)


# --- values -------------------------------------------------------------------------------------


def test_values_are_frozen_and_compared_whole() -> None:
    """Equal schedules are equal values with equal hashes, and cannot be changed."""
    schedule = Cron(expr=" 0  5 * * * ", tz="UTC")
    assert schedule == Cron(expr="0 5 * * *", tz="UTC")
    assert hash(schedule) == hash(Cron(expr="0 5 * * *", tz="UTC"))
    assert len({Once(at_us=1), Once(at_us=1), Interval(period_us=1, anchor_us=1)}) == 2
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        schedule.tz = "Europe/Berlin"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("nickname", "expr"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@Annually ", "0 0 1 1 *"),
    ],
)
def test_nicknames_stand_for_their_fields(nickname: str, expr: str) -> None:
    """A nickname and its fields are the same schedule."""
    assert Cron(expr=nickname, tz="UTC") == Cron(expr=expr, tz="UTC")
    assert parse_schedule(nickname, now_us=NOW) == Cron(expr=expr, tz="UTC")


@pytest.mark.parametrize(
    "expr",
    [
        "0 0 30 2 *",
        "0 0 31 4,6,9,11 *",
        "0 0 */30 * MON#2",  # by the library's giving up after fifty years
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "5-1 * * * *",
        "a b c d e",
        "* * * *",
        "* * * * * * *",
        "",
        "² * * * *",
        "1" * 5000 + " * * * *",
    ],
)
def test_impossible_expressions_are_refused(expr: str) -> None:
    """A malformed expression, or one that no date matches, is refused by name with what was expected."""
    with pytest.raises(ScheduleError) as refusal:
        Cron(expr=expr, tz="UTC")
    assert repr(expr) in str(refusal.value)
    assert "expected 5 fields" in str(refusal.value)


@pytest.mark.parametrize("expr", ["0 0 30 2 MON", "0 0 29 2 *", "0 0 L * *", "0 0 * * 5L", "0 0 LW * *"])
def test_rare_expressions_are_accepted(expr: str) -> None:
    """An expression that matches seldom, or through one of its two day fields, is a schedule."""
    assert next_after(Cron(expr=expr, tz="UTC"), NOW) is not None


@pytest.mark.parametrize("expr", ["@reboot", "@fortnightly", "@"])
def test_nicknames_without_instants_are_refused(expr: str) -> None:
    """A nickname that names no instant is refused with the list of those that do."""
    with pytest.raises(ScheduleError, match=f"'{expr}'; expected one of @hourly, @daily"):
        Cron(expr=expr, tz="UTC")


@settings(max_examples=300, deadline=None)
@given(expr=st.text(alphabet="0123456789*/-,#LW@ aMONSUJ²\x00", max_size=24))
def test_any_text_is_an_expression_or_refused(expr: str) -> None:
    """No text raises anything but the one error."""
    with suppress(ScheduleError):
        Cron(expr=expr, tz="UTC")


@pytest.mark.parametrize(
    "tz",
    [
        "",
        " ",
        ".",
        "..",
        "../x",
        "/etc/passwd",
        "Europe",
        "Europe/",
        "Europe/Nowhere",
        "Mars/Phobos",
        "tzdata.zi",
        "zone.tab",
        "Europe/Berlin\x00",
        "\ud800",
        "x" * 5000,
        "+25:00",
        "+05:99",
        "+5",
        "5:30",
        "localtime",
        "right/UTC",
    ],
)
def test_unknown_zones_are_refused(tz: str) -> None:
    """Whatever a bad zone breaks underneath, the answer is one error that names it."""
    with pytest.raises(ScheduleError) as refusal:
        Cron(expr="* * * * *", tz=tz)
    assert f"unknown time zone {tz!r}; expected UTC, an offset" in str(refusal.value)


@pytest.mark.parametrize("tz", [None, 1, ["UTC"], b"UTC"])
def test_zones_are_text(tz: str) -> None:
    """A zone that is not text is refused as such."""
    with pytest.raises(ScheduleError, match="not a time zone"):
        zone_of(tz)


def test_zones_are_found() -> None:
    """UTC, a fixed offset and a name each give their zone, and the same object each time."""
    assert zone_of("UTC") is UTC
    assert zone_of("-07:30").utcoffset(None) == timedelta(hours=-7, minutes=-30)
    assert zone_of("Europe/Berlin") is zone_of("Europe/Berlin")


@pytest.mark.parametrize("period", [0, -1, 1.5, True, None, "60"])
def test_periods_are_whole_and_positive(period: int) -> None:
    """An interval that does not advance is refused."""
    with pytest.raises(ScheduleError, match=f"period_us is {period!r}; expected whole microseconds"):
        Interval(period_us=period, anchor_us=0)


@pytest.mark.parametrize("value", [1.5, True, None, "60", LAST + 1, FIRST - 1])
def test_instants_of_a_schedule_are_whole_and_in_range(value: int) -> None:
    """An anchor or an instant that could not be written down is refused."""
    with pytest.raises(ScheduleError, match=f"anchor_us is {value!r}; expected whole epoch microseconds"):
        Interval(period_us=1, anchor_us=value)
    with pytest.raises(ScheduleError, match=f"at_us is {value!r}; expected whole epoch microseconds"):
        Once(at_us=value)


@pytest.mark.parametrize("expr", [None, 5, ["*"]])
def test_expressions_are_text(expr: str) -> None:
    """An expression that is not text is refused as such."""
    with pytest.raises(ScheduleError, match="not a cron expression"):
        Cron(expr=expr, tz="UTC")


# --- what people write --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "period_us"),
    [
        ("30m", 30 * MINUTE_US),
        ("90s", 90 * SECOND_US),
        ("2h", 2 * HOUR_US),
        ("1d", DAY_US),
        ("1w", 7 * DAY_US),
        ("every 2h", 2 * HOUR_US),
        ("every 90s", 90 * SECOND_US),
        ("1h30m", 90 * MINUTE_US),
        ("1h 30m", 90 * MINUTE_US),
        ("every 1d12h", 36 * HOUR_US),
        ("  Every  15 Minutes ", 15 * MINUTE_US),
        ("EVERY 2 HRS", 2 * HOUR_US),
        ("1 hour 5 min 10 sec", HOUR_US + 5 * MINUTE_US + 10 * SECOND_US),
    ],
)
def test_periods_recur_from_now(text: str, period_us: int) -> None:
    """A bare or "every" duration recurs, first one period from now."""
    schedule = parse_schedule(text, now_us=NOW, tz="Europe/Berlin")
    assert schedule == Interval(period_us=period_us, anchor_us=NOW)
    assert next_after(schedule, NOW) == NOW + period_us


@pytest.mark.parametrize(
    ("text", "delay_us"),
    [
        ("in 30m", 30 * MINUTE_US),
        ("In 2 Days", 2 * DAY_US),
        ("+90s", 90 * SECOND_US),
        ("+ 1h30m", 90 * MINUTE_US),
        (" +1w ", 7 * DAY_US),
    ],
)
def test_delays_are_once_from_now(text: str, delay_us: int) -> None:
    """An "in" or "+" duration is one instant, that far from now."""
    assert parse_schedule(text, now_us=NOW) == Once(at_us=NOW + delay_us)


@pytest.mark.parametrize("text", ["0 5 * * *", "*/15 9-17 * * MON-FRI", "0 30 4 1 1 *", " 0 0  13 * fri "])
def test_cron_expressions_are_in_the_given_zone(text: str) -> None:
    """Five or six fields are a cron expression, in the zone of the job."""
    expected = Cron(expr=text, tz="America/New_York")
    assert parse_schedule(text, now_us=NOW, tz="America/New_York") == expected
    assert parse_schedule(text, now_us=NOW).tz == "UTC"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    [
        "2026-06-26T14:30:00+02:00",
        "2026-06-26T12:30:00Z",
        "2026-06-26t12:30:00z",
        " 2026-06-26 12:30+00:00 ",
        "20260626T123000Z",
    ],
)
def test_timestamps_are_once(text: str) -> None:
    """A timestamp with its offset is that instant, whatever the job's zone."""
    assert parse_schedule(text, now_us=NOW, tz="Europe/Berlin") == Once(at_us=NOW + 30 * MINUTE_US)


@pytest.mark.parametrize(
    "text",
    ["", " ", "soon", "every", "every tuesday", "in", "+", "30", "30x", "30m1h", "5m5m", "-5m", "1.5h",
     "in 2026", "* * *", "30m UTC", "٣m", "2026-13-01T00:00:00Z", "1" * 5000 + "m"],
)  # fmt: skip
def test_anything_else_is_refused_with_the_spellings(text: str) -> None:
    """One message lists everything that could have been written."""
    with pytest.raises(ScheduleError) as refusal:
        parse_schedule(text, now_us=NOW)
    message = str(refusal.value)
    assert message.startswith(f"not a schedule: {text!r}; expected a period")
    for spelling in ("30m", "every 2h", "in 30m", "+90s", "5 or 6 fields", "@daily", "offset"):
        assert spelling in message


@pytest.mark.parametrize(
    ("text", "tz", "message"),
    [
        ("2026-06-26T12:00:00", "UTC", "'2026-06-26T12:00:00' has no offset; expected one"),
        ("2026-06-26", "UTC", "has no offset"),
        ("0m", "UTC", "'0m' lasts no time"),
        ("in 0s", "UTC", "'in 0s' lasts no time"),
        ("0 0 30 2 *", "UTC", "cron expression '0 0 30 2 *'"),
        ("run it at nine o'clock", "UTC", 'cron expression "run it at nine o\'clock"'),
        ("@reboot", "UTC", "'@reboot'; expected one of"),
        ("0 5 * * *", "Mars/Phobos", "unknown time zone 'Mars/Phobos'"),
        ("in 999999999w", "UTC", "within the years 1 to 9999"),
        (None, "UTC", "not a schedule: None"),
    ],
)
def test_near_misses_are_refused_for_their_own_reason(text: str, tz: str, message: str) -> None:
    """What is nearly a schedule is told what is wrong with it."""
    with pytest.raises(ScheduleError) as refusal:
        parse_schedule(text, now_us=NOW, tz=tz)
    assert message in str(refusal.value)


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=20) | st.text(alphabet="0123456789smhdw +everyin:-TZ*", max_size=20))
def test_any_text_is_a_schedule_or_refused(text: str) -> None:
    """No text raises anything but the one error, and what is accepted has an answer."""
    try:
        schedule = parse_schedule(text, now_us=NOW)
    except ScheduleError:
        return
    slot = next_after(schedule, NOW)
    assert slot is None or slot > NOW
