"""After a long sleep: what was missed is counted as if slot by slot, and without visiting each slot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from chronos.jobs import due
from chronos.jobs import schedule as schedule_module
from chronos.jobs.due import following
from chronos.jobs.instants import DAY_US, HOUR_US, MINUTE_US, SECOND_US, parse_instant
from chronos.jobs.job import Job, Move, Result
from chronos.jobs.policy import MAX_CATCH_UP, CatchUp, Policy
from chronos.jobs.schedule import Cron, Interval, Once, Schedule, next_after
from chronos.protocol import job_changes, transitions
from chronos.protocol.draft import Draft, Stretch
from chronos.protocol.job_changes import Changes
from chronos.values import evolve
from tests.test_clock_changes import DENSE, SPARSE

T0 = parse_instant("2026-06-26T12:00:00+00:00")
YEAR_US = 365 * DAY_US


expressions = st.sampled_from([*SPARSE, *DENSE, "7,8 59 1-2 * * 5", "0 0 13 * 5"])
zones = st.sampled_from(["UTC", "+05:45", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
counts = st.integers(1, MAX_CATCH_UP + 1)

# --- what a job has due -------------------------------------------------------------------------


def due_by_walking(
    job: Job, until_us: int, at_most: int
) -> tuple[Stretch | None, tuple[int, ...], int | None]:
    """Return what `Draft.due` returns and leaves, from a walk along the occurrences."""
    assert job.next_us is not None
    slots, next_us = [job.next_us], following(job, job.next_us)
    while next_us is not None and next_us <= until_us:
        slots.append(next_us)
        next_us = following(job, next_us)
    older = slots[:-at_most]
    stretch = Stretch(older[0], older[-1], len(older)) if older else None
    return stretch, tuple(slots[-at_most:]), next_us


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_due_is_what_a_walk_finds(data: st.DataObject) -> None:
    """Whether or not the next one is a slot, within the bounds of the job, and but for what ran ahead."""
    schedule: Schedule = data.draw(
        st.builds(Cron, expr=expressions, tz=zones)
        | st.builds(
            Interval,
            period_us=st.integers(20 * MINUTE_US, 9 * DAY_US),
            anchor_us=st.integers(T0, T0 + DAY_US),
        )
        | st.builds(Once, at_us=st.integers(T0, T0 + DAY_US))
    )
    near = st.integers(T0 - DAY_US, T0 + 2 * DAY_US)
    starts_us, ends_us = data.draw(st.tuples(st.none() | near, st.none() | near))
    if starts_us is not None and ends_us is not None:
        starts_us, ends_us = sorted((starts_us, ends_us))
    next_us = data.draw(near | near.map(lambda at_us: next_after(schedule, at_us) or at_us))
    ran = data.draw(st.lists(near.map(lambda at_us: next_after(schedule, at_us) or at_us), max_size=3))
    job = Job(
        id="j",
        schedule=schedule,
        next_us=next_us,
        policy=Policy(starts_us=starts_us, ends_us=ends_us),
        ran_ahead_us=tuple(sorted({at_us for at_us in ran if at_us > next_us})),
    )
    at_most, until_us = data.draw(counts), data.draw(near)
    draft = Draft(job, until_us)
    assert (*draft.due(until_us, at_most), draft.next_us) == due_by_walking(job, until_us, at_most)


# --- without visiting each ----------------------------------------------------------------------

# A year has 365 days, of two kinds at most; a week of minutes has more slots than this.
MAX_STEPS = 2_500


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what begins to count the steps along the slots, of which there may be `MAX_STEPS`."""
    counted = [0]

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def counts_and_calls(*args: Any) -> Any:
            counted[0] += 1
            assert counted[0] <= MAX_STEPS, "slot by slot"
            return function(*args)

        return counts_and_calls

    def begin() -> None:
        for module in (due, schedule_module):
            monkeypatch.setattr(module, "next_after", counting(module.next_after))
        monkeypatch.setattr(CronSim, "advance", counting(CronSim.advance))
        monkeypatch.setattr(CronSim, "match_day", counting(CronSim.match_day))

    return begin


OFTEN = [
    Cron(expr="* * * * *", tz="Pacific/Auckland"),
    Cron(expr="*/10 * * * * *", tz="America/Santiago"),
    Cron(expr="*/7 1-22 * * 1-5", tz="UTC"),
    Interval(period_us=SECOND_US, anchor_us=T0),
]
often = pytest.mark.parametrize("schedule", OFTEN, ids=str)


def asleep_for_a_year(schedule: Schedule, **policy: Any) -> Job:
    return Job(id="j", schedule=schedule, next_us=next_after(schedule, T0), policy=Policy(**policy))


@often
@pytest.mark.parametrize("catch_up", CatchUp)
def test_what_was_missed_in_a_year_is_not_visited(
    steps: Callable[[], None], schedule: Schedule, catch_up: CatchUp
) -> None:
    """A fire after a long sleep takes no longer for it (incident T4)."""
    job = asleep_for_a_year(schedule, catch_up=catch_up, catch_up_limit=MAX_CATCH_UP)
    assert job.next_us is not None
    steps()
    move = transitions.fire(job, fire_at_us=job.next_us, now_us=T0 + YEAR_US, owner="me")
    assert move.job is not None
    assert move.job.next_us is not None
    assert move.job.next_us > T0 + YEAR_US - 8 * HOUR_US
    assert sum(outcome.count for outcome in move.outcomes) > 50_000


CHANGES: dict[str, Callable[[Job], Move]] = {
    "pause": lambda job: job_changes.pause(job, note="", now_us=T0 + YEAR_US),
    "edit": lambda job: job_changes.edit(
        job, changes=Changes(schedule=Cron(expr="0 5 * * *", tz="UTC")), now_us=T0 + YEAR_US
    ),
    "bounds": lambda job: job_changes.edit(
        job, changes=Changes(policy=Policy(starts_us=T0)), now_us=T0 + YEAR_US
    ),
    "resume": lambda job: job_changes.resume(
        job_changes.pause(job, note="", now_us=T0).job, from_now=True, now_us=T0 + YEAR_US
    ),
}


@often
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_change_after_a_year_visits_no_slot(
    steps: Callable[[], None], schedule: Schedule, change: Callable[[Job], Move]
) -> None:
    """What is due and skipped is counted likewise."""
    job = asleep_for_a_year(schedule)
    steps()
    move = change(job)
    assert all(outcome.result is Result.SKIPPED and outcome.count > 50_000 for outcome in move.outcomes)


@often
def test_change_of_a_job_that_stands_far_ahead_visits_no_slot(
    steps: Callable[[], None], schedule: Schedule
) -> None:
    """As after a start by a clock that was wrong: its next occurrence is a year ahead."""
    ahead_us = next_after(schedule, T0 + YEAR_US)
    job = evolve(asleep_for_a_year(schedule), next_us=ahead_us)
    steps()
    other = Changes(schedule=Interval(period_us=HOUR_US, anchor_us=T0))
    edited = job_changes.edit(job, changes=other, now_us=T0).job
    assert edited is not None
    assert edited.next_us is not None
    assert edited.next_us > T0
