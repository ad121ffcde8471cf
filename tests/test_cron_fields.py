"""The terms of a cron expression: each is read as it is meant, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronos.errors import ScheduleError
from chronos.jobs.instants import DAY_US, HOUR_US, MINUTE_US, SECOND_US, parse_instant
from chronos.jobs.schedule import Cron, Interval, next_after, remarks
from simulator.__main__ import main

# A Sunday, and the first of July: July and August both have 31 days.
SUNDAY_US = parse_instant("2029-07-01T00:00:00+00:00")
NEW_YEAR_US = parse_instant("2029-01-01T00:00:00+00:00")

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")

# Of each field: its values, an expression with a term in it, a stretch that shows all of them, and what
# of a moment is the value.
FIELDS: dict[str, tuple[list[int], str, int, int, Callable[[datetime], int]]] = {
    "second": (list(range(60)), "{} * * * * *", SUNDAY_US, MINUTE_US, lambda moment: moment.second),
    "minute": (list(range(60)), "{} * * * *", SUNDAY_US, HOUR_US, lambda moment: moment.minute),
    "hour": (list(range(24)), "0 {} * * *", SUNDAY_US, DAY_US, lambda moment: moment.hour),
    "day": (list(range(1, 32)), "0 0 {} * *", SUNDAY_US, 31 * DAY_US, lambda moment: moment.day),
    "month": (list(range(1, 13)), "0 0 1 {} *", NEW_YEAR_US, 365 * DAY_US, lambda moment: moment.month),
    "weekday": (
        list(range(7)),
        "0 0 * * {}",
        SUNDAY_US,
        7 * DAY_US,
        lambda moment: moment.isoweekday() % 7,
    ),
}


def shown(name: str, term: str) -> list[int]:
    """Return the values of a field at which an expression with that term is due, by its slots alone."""
    _, expr, start_us, length_us, value_of = FIELDS[name]
    schedule = Cron(expr=expr.format(term), tz="UTC")
    found = []
    slot = next_after(schedule, start_us - 1)
    while slot is not None and slot < start_us + length_us:
        found.append(value_of(datetime.fromtimestamp(slot // SECOND_US, UTC)))
        slot = next_after(schedule, slot)
    return found


def walked(values: list[int], first: int, last: int, step: int) -> list[int]:
    """Return what a range stands for: walk around the field from the first to the last, and take some."""
    at, taken, behind = values.index(first), [], 0
    while True:
        if behind % step == 0:
            taken.append(values[at])
        if values[at] == last:
            return sorted(taken)
        at, behind = (at + 1) % len(values), behind + 1


def spelled(draw: st.DrawFn, name: str, value: int) -> str:
    names = {"month": dict(enumerate(MONTHS, 1)), "weekday": dict(enumerate(WEEKDAYS))}.get(name, {})
    texts = [str(value), f"0{value}"] + ([names[value], names[value].lower()] if names else [])
    return draw(st.sampled_from(texts))


@given(data=st.data())
@pytest.mark.parametrize("name", FIELDS)
def test_a_range_walks_around_its_field(name: str, data: st.DataObject) -> None:
    """Also where it wraps, by names or numbers, with a step or without, each value is the oracle's."""
    values = FIELDS[name][0]
    first, last = data.draw(st.sampled_from(values)), data.draw(st.sampled_from(values))
    step = data.draw(st.none() | st.integers(1, 70))
    term = f"{spelled(data.draw, name, first)}-{spelled(data.draw, name, last)}"
    term += "" if step is None else f"/{step}"
    assert shown(name, term) == walked(values, first, last, step or 1)


@pytest.mark.parametrize(
    ("term", "days"),
    [("sat-sun", [0, 6]), ("5-0", [0, 5, 6]), ("6-7", [0, 6]), ("7-2", [0, 1, 2]), ("fri-mon/2", [0, 5])],
)
def test_sunday_is_0_and_7_where_a_range_wraps(term: str, days: list[int]) -> None:
    """A weekend may be written as people say it."""
    assert shown("weekday", term) == days


def test_a_list_may_hold_ranges_that_wrap() -> None:
    """Each term is read by itself."""
    assert shown("hour", "12,22-1,5-7/2") == [0, 1, 5, 7, 12, 22, 23]


@pytest.mark.parametrize("expr", ["0 0 * * L5", "0 0 * * l5", "0 0 * * 5L"])
def test_the_last_weekday_is_written_either_way(expr: str) -> None:
    """Agents write the last Friday of the month with the letter before or behind."""
    friday = parse_instant("2026-01-30T00:00:00+00:00")
    assert next_after(Cron(expr=expr, tz="UTC"), parse_instant("2026-01-01T00:00:00+00:00")) == friday


MISREAD = [
    "0 0 L/2 * *",
    "0 0 LW/3 * *",
    "0 0 1,L/2 * *",
    "0 0 5W/2 * *",
    "0 0 15W * *",
    "0 0 L-3 * *",
    "0 0 1-L * *",
    "0 0 * * 5L/2",
    "0 0 * * L5/2",
    "0 0 * * L",
    "0 0 * * LW",
    "0 0 * * FRIL",
    "0 0 * * L8",
    "0 0 * * 5#0",
    "0 0 * * 5#6",
    "0 0 * * 5#",
    "0 0 * * #2",
    "0 0 * * 5#2/2",
    "0 0 * * 1-5#2",
    "0 0 * * FUN#2",
    "0 0 * * 8",
    "0 0 * * 8-1",
    "0 0 ? * *",
    "0 0 * * ?",
    "*/0 * * * *",
    "*/00 * * * *",
    "*/1-5 * * * *",
    "*/5/5 * * * *",
    "*/ * * * *",
    "/5 * * * *",
    "*5 * * * *",
    "**  * * * *",
    "5- * * * *",
    "-5 * * * *",
    "1,,2 * * * *",
    ",1 * * * *",
    "1, * * * *",
    "+5 * * * *",
    "5.0 * * * *",
    "1_0 * * * *",
    "MON * * * *",
    "0 0 * MON *",
    "0 0 * * JAN",
    "50-70 * * * *",
    "70-5 * * * *",
    "\u0661 * * * *",
    "\uff11 * * * *",
    "0 0 * * fr\u0131",
    "0 0 * * \u017fun",
]


@pytest.mark.parametrize("expr", MISREAD)
def test_what_is_no_term_is_refused_and_not_passed_over(expr: str) -> None:
    """A part that has no meaning is an error that names the field (incident S7)."""
    with pytest.raises(ScheduleError, match=r"Bad (minute|hour|day-of-month|month|day-of-week) "):
        Cron(expr=expr, tz="UTC")


REMARKS = [
    ("*/90 * * * *", "minute */90: the step is larger than the field, so that it stands for 0 alone"),
    ("0 */24 * * *", "hour */24: the step is larger than the field, so that it stands for 0 alone"),
    ("0 0 */31 * *", "day-of-month */31: the step is larger than the field, so that it stands for 1 alone"),
    ("0 0 1 */13 *", "month */13: the step is larger than the field, so that it stands for 1 alone"),
    ("0 0 * * */7", "day-of-week */7: the step is larger than the field, so that it stands for 0 alone"),
    ("10-12/5 * * * *", "minute 10-12/5: the step is larger than the range, so that it stands for 10 alone"),
    ("5,50/30 * * * *", "minute 50/30: the step is larger than the range, so that it stands for 50 alone"),
    ("*/45 * * * *", "minute */45: it stands for 0, 45 and begins anew with each hour"),
    ("0 9 * * * 0", "six fields: the first one, 0, is the second, and the last one, 0, the day of the week"),
]


@pytest.mark.parametrize(("expr", "said"), REMARKS)
def test_a_schedule_that_is_not_what_it_seems_is_remarked_upon(expr: str, said: str) -> None:
    """It runs as in Debian's cron, and whoever validates it is told how."""
    (remark,) = remarks(Cron(expr=expr, tz="UTC"))
    assert remark.startswith(said)


@pytest.mark.parametrize(
    "expr", ["* * * * *", "*/15 * * * *", "5-5/10 * * * *", "@daily", "0 22-6/4 L JUL-OCT FRI#2"]
)
def test_a_schedule_that_is_what_it_seems_is_not(expr: str) -> None:
    """Nobody reads remarks that come with everything."""
    assert remarks(Cron(expr=expr, tz="UTC")) == ()
    assert remarks(Interval(period_us=90 * MINUTE_US, anchor_us=0)) == ()


def test_a_step_larger_than_its_field_runs_as_in_debian_s_cron() -> None:
    """`*/90` is the first minute of each hour."""
    assert shown("minute", "*/90") == [0]


@pytest.mark.parametrize("seeds", ["1", "2"])
def test_a_simulation_tells_what_a_schedule_really_does(
    seeds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The summary of a run names the job and the step that is larger than its field (incident S7)."""
    record = {
        "id": "odd-step",
        "schedule": {"kind": "cron", "expr": "*/90 * * * *"},
        "next_run_at": "2026-06-25T13:00:00+00:00",
    }
    path = tmp_path / "jobs.json"
    path.write_text(
        json.dumps({"jobs": [record], "updated_at": "2026-06-25T12:00:00+00:00"}), encoding="utf-8"
    )
    assert main(["run", "--jobs", str(path), "--days", "1", "--seeds", seeds]) == 0
    (said,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("remark ")]
    assert "job odd-step: minute */90: the step is larger than the field" in said
