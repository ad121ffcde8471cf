"""Schedules: their values, their text, and their slots away from clock changes."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from itertools import islice, pairwise

import attrs
import pytest
from cronsim import CronSim
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chronos.errors import ScheduleError
from chronos.jobs import schedule as schedule_module
from chronos.jobs.instants import DAY_US, HOUR_US, MINUTE_US, SECOND_US, format_instant, parse_instant
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

NOW = parse_instant("2026-06-26T12:00:00+00:00")
FIRST = parse_instant("0001-01-01T00:00:00Z")
LAST = parse_instant("9999-12-31T23:59:59.999999Z")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

instants = st.integers(FIRST, LAST)
recent_instants = st.integers(parse_instant("2000-01-01T00:00:00Z"), parse_instant("2040-01-01T00:00:00Z"))


def at(text: str) -> int:
    return parse_instant(text)


def texts(schedule: Schedule, after: str, count: int) -> list[str]:
    return [format_instant(slot) for slot in upcoming(schedule, at(after), count)]


# --- cron expressions ---------------------------------------------------------------------------


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


def test_threads_agree() -> None:
    """Threads that ask at once, with nothing cached, all get the same slots."""
    schedule = Cron(expr="*/7 1-3 * * *", tz="America/New_York")
    start = at("2026-03-07T00:00:00Z")
    expected = upcoming(schedule, start, 60)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            schedule_module._chunk.cache_clear()
            found = list(pool.map(lambda _: upcoming(schedule, start, 60), range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert found == [expected] * 8


# --- interval and once --------------------------------------------------------------------------

periods = st.integers(1, 400 * DAY_US)


@given(period=periods, anchor=instants, start=recent_instants)
def test_interval_slots_are_whole_periods_from_the_anchor(period: int, anchor: int, start: int) -> None:
    """The next slot is on the grid, after the instant, at most one period away (incident S3)."""
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
    assert list(slots_after(Once(at_us=moment), start)) == ([moment] if start < moment else [])


# --- the next few slots -------------------------------------------------------------------------


@given(
    schedule=st.sampled_from(
        [
            Cron(expr="*/7 1-3 * * *", tz="Europe/Berlin"),
            Interval(period_us=90 * SECOND_US, anchor_us=NOW),
            Once(at_us=NOW),
        ]
    ),
    start=recent_instants,
    count=st.integers(0, 40),
)
def test_upcoming_slots_are_the_next_ones(schedule: Schedule, start: int, count: int) -> None:
    """What comes next is one slot after the other, as many as asked for or as there are."""
    slots = upcoming(schedule, start, count)
    assert list(slots) == list(islice(slots_after(schedule, start), count))
    for earlier, later in pairwise([start, *slots]):
        assert next_after(schedule, earlier) == later
    if len(slots) < count:
        assert next_after(schedule, slots[-1] if slots else start) is None


@pytest.mark.parametrize("count", [-1, 1.5, None, "3", True])
def test_upcoming_needs_a_count(count: int) -> None:
    """A number of slots that is negative or no whole number is refused."""
    with pytest.raises(ValueError, match=f"count is {count!r}; expected a whole number, zero or more"):
        upcoming(Once(at_us=NOW), NOW, count)


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
        "5-61 * * * *",
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


@pytest.mark.parametrize(
    "expr",
    [
        "0 0 30 2 *",
        "* * * 31 2,4,6,9,11 *",
        "0 0 31 4,6,9,11 */7",
        "0 0 */30 * MON#2",
        "* * * */30 * MON#2",
        "* * LW * */6",  # no weekday is a Saturday or a Sunday
    ],
)
def test_impossible_expressions_are_found_out_soon(expr: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An expression that no date matches is refused as that, after a search of some fifty years of months."""
    looked_at = 0
    advance_month = CronSim.advance_month

    def counted(search: CronSim) -> None:
        nonlocal looked_at
        looked_at += 1
        advance_month(search)

    monkeypatch.setattr(CronSim, "advance_month", counted)
    with pytest.raises(ScheduleError, match="no date ever matches"):
        Cron(expr=expr, tz="UTC")
    assert looked_at < 100 * 12


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
    with pytest.raises(ScheduleError, match=r"tz is .*; expected text such as UTC"):
        zone_of(tz)


def test_zones_are_found() -> None:
    """UTC, a fixed offset and a name each give their zone, and the same object each time."""
    assert zone_of("UTC") is UTC
    assert zone_of("-07:30").utcoffset(None) == timedelta(hours=-7, minutes=-30)
    assert zone_of("Europe/Berlin") is zone_of("Europe/Berlin")


@pytest.mark.parametrize("period", [0, -1, 1.5, True, "60"])
def test_periods_are_whole_and_positive(period: int) -> None:
    """An interval that does not advance is refused."""
    with pytest.raises(ScheduleError, match=f"period_us is {period!r}; expected whole microseconds"):
        Interval(period_us=period, anchor_us=0)


@pytest.mark.parametrize("value", [1.5, True, "60", LAST + 1, FIRST - 1])
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
        ("every 30s", 30 * SECOND_US),
        ("5 s", 5 * SECOND_US),
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
        ("in 5 seconds", 5 * SECOND_US),
        ("In 2 Days", 2 * DAY_US),
        ("+90s", 90 * SECOND_US),
        ("+ 1h30m", 90 * MINUTE_US),
        (" +1w ", 7 * DAY_US),
    ],
)
def test_delays_are_once_from_now(text: str, delay_us: int) -> None:
    """An "in" or "+" duration is one instant, that far from now."""
    assert parse_schedule(text, now_us=NOW) == Once(at_us=NOW + delay_us)


@pytest.mark.parametrize(
    "text", ["0 5 * * *", "*/15 9-17 * * MON-FRI", "0 30 4 1 1 *", "*/10 * * * * *", " 0 0  13 * fri "]
)
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
     "in 2026", "* * *", "* * * *", "0 0 12 * * MON 2026", "500ms", "every 1h30", "hourly",
     "30m UTC", "٣m", "2026-13-01T00:00:00Z", "1" * 5000 + "m"],
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
        ("every 0m", "UTC", "'every 0m' lasts no time"),
        ("61 * * * *", "UTC", "Bad minute '61': values are 0 to 59"),
        ("0 24 * * *", "UTC", "Bad hour '24': values are 0 to 23"),
        ("0 22-26 * * *", "UTC", "Bad hour '22-26': values are 0 to 23"),
        ("0 0 0 * *", "UTC", "Bad day-of-month '0': values are 1 to 31"),
        ("0 9 ? * MON", "UTC", "Bad day-of-month '?'"),
        ("0 9 1 13 *", "UTC", "Bad month '13': values are 1 to 12 or JAN to DEC"),
        ("0 9 * * FUN", "UTC", "Bad day-of-week 'FUN': values are 0 to 7 or SUN to SAT"),
        ("60 * * * * *", "UTC", "Bad second '60': values are 0 to 59"),
        ("0 9 * * 1-5 2026", "UTC", "Bad day-of-week '2026'"),  # the sixth field is not a year
        ("in 0s", "UTC", "'in 0s' lasts no time"),
        ("0 0 30 2 *", "UTC", "cron expression '0 0 30 2 *': no date ever matches"),
        ("run it at nine o'clock", "UTC", 'cron expression "run it at nine o\'clock"'),
        ("@reboot", "UTC", "'@reboot'; expected one of"),
        ("@every 5m", "UTC", "'@every 5m'; expected one of"),
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
