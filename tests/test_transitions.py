"""Every way in which a job may change, one rule a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict

from chronos.errors import ScheduleError
from chronos.jobs.due import following, grace_us, startable, wake_at
from chronos.jobs.instants import DAY_US, HOUR_US, MINUTE_US, SECOND_US, parse_instant, whole_second
from chronos.jobs.job import (
    CLOCK_ALLOWANCE_US,
    LEASE_US,
    Job,
    JobState,
    Lateness,
    Liveness,
    Move,
    Origin,
    Result,
    Run,
    Verdict,
    Waiting,
    lateness,
)
from chronos.jobs.policy import (
    MAX_ATTEMPTS,
    MAX_CATCH_UP,
    MAX_GRACE_US,
    MAX_IN_FLIGHT,
    MIN_GRACE_US,
    CatchUp,
    OnInterrupt,
    Overlap,
    Policy,
)
from chronos.jobs.schedule import Interval, Once, Schedule
from chronos.protocol import job_changes, transitions
from chronos.protocol.clocks import CLOCK_MARGIN_US
from chronos.protocol.draft import Fired
from chronos.protocol.job_changes import Changes
from chronos.values import evolve

T0 = parse_instant("2026-06-26T12:00:00Z")
PERIOD_US = 10 * MINUTE_US
RETRY = Policy(on_interrupt=OnInterrupt.RETRY)
QUEUE = Policy(overlap=Overlap.QUEUE)
ALLOW = Policy(overlap=Overlap.ALLOW)
THRICE = Policy(attempts=3)
ONCE = Policy(catch_up=CatchUp.ONCE)
ALL = Policy(catch_up=CatchUp.ALL)
PATIENT = Policy(misfire_grace_us=DAY_US)


def slot(number: int) -> int:
    """Return the occurrence of the tests' job with this number; the first is number 0, at `T0`."""
    return T0 + number * PERIOD_US


def run_of(number: int, **changes: Any) -> Run:
    """Return the first attempt at an occurrence, claimed in time by another process."""
    run = Run(
        occurrence_us=slot(number),
        attempt=1,
        owner="other",
        claimed_us=slot(number),
        lease_until_us=slot(number) + LEASE_US,
    )
    return evolve(run, **changes)


def waiting_for(number: int, **changes: Any) -> Waiting:
    """Return an occurrence that waits for its first attempt."""
    waiting = Waiting(
        occurrence_us=slot(number), attempt=1, not_before_us=slot(number), origin=Origin.SCHEDULE
    )
    return evolve(waiting, **changes)


JOB = Job(id="job", schedule=Interval(period_us=PERIOD_US, anchor_us=T0), next_us=slot(0), revision=7)
RUN = run_of(0)
RUNNING = evolve(JOB, next_us=slot(1), runs=(RUN,))
RETRIED = evolve(RUNNING, policy=RETRY)
# The same run, renewed ever since.
BUSY = evolve(RUNNING, runs=(run_of(0, lease_until_us=slot(9)),))
QUEUED = evolve(BUSY, policy=QUEUE, next_us=slot(2), waiting=(waiting_for(1),))
GUARD_US = RUN.lease_until_us + CLOCK_ALLOWANCE_US
ONE_SHOT = Job(id="job", schedule=Once(at_us=T0), next_us=T0)
PAUSED = evolve(JOB, state=JobState.PAUSED)
COMPLETED = evolve(JOB, state=JobState.COMPLETED, next_us=None)
OUT_OF_FORCE = (PAUSED, COMPLETED)
FOR_RETRY = waiting_for(0, attempt=2, not_before_us=slot(0) + 15 * MINUTE_US)
BETWEEN = evolve(JOB, next_us=slot(1), policy=THRICE, waiting=(FOR_RETRY,))


def under(policy: Policy, job: Job = JOB) -> Job:
    return evolve(job, policy=policy)


def fire(
    job: Job | None,
    fire_at_us: int,
    *liveness: Liveness,
    late_us: int = 0,
    origin: Origin = Origin.SCHEDULE,
    may_start: bool = True,
) -> Move:
    """Fire *job* for an instant, so much later."""
    return transitions.fire(
        job,
        fire_at_us=fire_at_us,
        now_us=fire_at_us + late_us,
        owner="me",
        liveness=liveness,
        fired=Fired(origin=origin),
        may_start=may_start,
    )


def finish(
    job: Job | None, run: Run, *, succeeded: bool = True, now_us: int = T0 + MINUTE_US, may_start: bool = True
) -> Move:
    return transitions.finish(
        job, run=run, succeeded=succeeded, detail="said so", now_us=now_us, may_start=may_start
    )


def run_now(job: Job | None, asked_us: int, *liveness: Liveness, late_us: int = 0) -> Move:
    return transitions.run_now(
        job, asked_us=asked_us, now_us=asked_us + late_us, owner="me", liveness=liveness
    )


def edit(job: Job | None, now_us: int, **changes: Any) -> Move:
    return job_changes.edit(job, changes=Changes(**changes), now_us=now_us)


def pause(job: Job | None, now_us: int = T0 - 1, note: str = "") -> Move:
    return job_changes.pause(job, note=note, now_us=now_us)


def resume(job: Job | None, now_us: int, *, from_now: bool = False) -> Move:
    return job_changes.resume(job, from_now=from_now, now_us=now_us)


def job_of(move: Move) -> Job:
    assert move.job is not None
    return move.job


def started(move: Move) -> Run:
    """Return the one run that *move* starts."""
    (run,) = move.runs
    return run


def ends(move: Move) -> list[tuple[Result, int, int, int]]:
    """Return how which occurrences ended: the result, the first, the last, and how many there are."""
    return [(each.result, each.occurrence_us, each.last_occurrence_us, each.count) for each in move.outcomes]


def ended(result: Result, first: int, last: int | None = None) -> list[tuple[Result, int, int, int]]:
    """Return the ends of which there is one: that of the occurrences of these numbers."""
    last = first if last is None else last
    return [(result, slot(first), slot(last), last - first + 1)]


def waits(job: Job) -> list[tuple[int, int]]:
    """Return what waits, in order: which occurrence, and for which attempt."""
    return [(each.occurrence_us, each.attempt) for each in job.waiting]


# --- a claim ------------------------------------------------------------------------------------


def test_fire_claims_its_occurrence() -> None:
    """A fire of the next occurrence claims it for the asking process, with a lease that starts now."""
    move = fire(JOB, slot(0), late_us=SECOND_US)
    now_us = slot(0) + SECOND_US
    assert move.verdict is Verdict.ACCEPTED
    assert started(move) == Run(
        occurrence_us=slot(0), attempt=1, owner="me", claimed_us=now_us, lease_until_us=now_us + LEASE_US
    )
    assert job_of(move).runs == move.runs
    assert not move.outcomes


def test_claim_advances_from_the_scheduled_time() -> None:
    """The next occurrence is counted from the scheduled time, however late the fire was delivered."""
    assert job_of(fire(JOB, slot(0), late_us=90 * SECOND_US)).next_us == slot(1)


def test_run_that_a_start_recovers_says_so() -> None:
    """A run that nobody fired is told apart by its origin, also when it comes too late to be in time."""
    assert started(fire(JOB, slot(0), origin=Origin.RECOVERY)).origin is Origin.RECOVERY
    late = fire(under(ONCE), slot(0), late_us=9 * MINUTE_US, origin=Origin.RECOVERY)
    assert started(late).origin is Origin.RECOVERY


def test_what_is_due_is_decided_by_the_fire_and_not_by_a_slow_clock() -> None:
    """A clock that still reads a time before the fire does not keep its occurrence from running."""
    move = fire(JOB, slot(0), late_us=-CLOCK_MARGIN_US)
    assert started(move).occurrence_us == slot(0)
    assert job_of(move).next_us == slot(1)


def test_lease_that_a_slow_clock_begins_counts_from_the_fire() -> None:
    """Others must not take the run for interrupted before its time."""
    assert started(fire(JOB, slot(0), late_us=-CLOCK_MARGIN_US)).lease_until_us == slot(0) + LEASE_US


def test_fire_from_the_future_takes_nothing_and_judges_no_lease() -> None:
    """An instant further ahead than clocks may differ is believed by nobody."""
    for may_start in (True, False):
        move = transitions.fire(
            RUNNING,
            fire_at_us=slot(1_000),
            now_us=slot(0),
            owner="me",
            liveness=(Liveness.UNKNOWN,),
            fired=Fired(minted_us=slot(1_000)),
            may_start=may_start,
        )
        assert (move.job, move.outcomes, move.runs, move.verdict) == (RUNNING, (), (), Verdict.EARLY)


def test_fire_that_comes_before_the_next_occurrence_runs_nothing() -> None:
    """An instant before the next occurrence is settled, even when the clock says that more is due."""
    move = fire(JOB, slot(0) - 1, late_us=PERIOD_US)
    assert (move.verdict, move.runs) == (Verdict.DUPLICATE, ())
    assert move.job is JOB


def test_clock_that_is_ahead_takes_nothing_before_its_time() -> None:
    """What the fire does not name is due only when the clock says so by more than it may be wrong."""
    patient = under(PATIENT)
    assert job_of(fire(patient, slot(0), late_us=PERIOD_US + CLOCK_MARGIN_US - 1)).next_us == slot(1)
    assert job_of(fire(patient, slot(0), late_us=PERIOD_US + CLOCK_MARGIN_US)).next_us == slot(2)


def test_outcome_tells_how_the_fire_came_and_how_late_each_hop_was() -> None:
    """The token's time and the arrival are kept with the claim, and lateness is told apart by them."""
    fired = Fired(minted_us=slot(0) + 2 * SECOND_US, received_us=slot(0) + 5 * SECOND_US)
    now_us = slot(0) + 9 * SECOND_US
    claimed = transitions.fire(JOB, fire_at_us=slot(0), now_us=now_us, owner="me", fired=fired)
    (outcome,) = finish(claimed.job, started(claimed)).outcomes
    assert lateness(outcome) == Lateness(
        total_us=9 * SECOND_US, relay_us=2 * SECOND_US, wake_us=3 * SECOND_US, claim_us=4 * SECOND_US
    )


def test_process_that_takes_nothing_leaves_what_is_due() -> None:
    """It looks after the runs that have died, and whoever is fired next takes the rest."""
    assert fire(JOB, slot(0), may_start=False).job is JOB
    move = fire(evolve(RETRIED, next_us=slot(0)), slot(0), Liveness.DEAD, may_start=False)
    assert move.runs == ()
    assert waits(job_of(move)) == [(slot(0), 2)]
    assert wake_at(job_of(move)) == slot(0)


# --- several are due, or one is too late ------------------------------------------------------


def test_newest_of_several_due_occurrences_runs_and_older_ones_are_missed_as_one_stretch() -> None:
    """After an outage the newest occurrence runs; those before it end as missed, in one outcome."""
    move = fire(JOB, slot(0), late_us=3 * PERIOD_US + CLOCK_MARGIN_US)
    assert started(move).occurrence_us == slot(3)
    assert ends(move) == ended(Result.MISSED, 0, 2)
    assert job_of(move).next_us == slot(4)


def test_one_older_occurrence_is_a_stretch_of_one() -> None:
    """Of two due occurrences the older one is missed by itself."""
    assert ends(fire(JOB, slot(0), late_us=PERIOD_US + CLOCK_MARGIN_US)) == ended(Result.MISSED, 0)


def test_fire_for_a_later_instant_takes_what_is_due_by_then() -> None:
    """A fire that names a later occurrence coalesces what came before, by the schedule."""
    move = fire(JOB, slot(2))
    assert started(move).occurrence_us == slot(2)
    assert ends(move) == ended(Result.MISSED, 0, 1)


def test_occurrence_runs_until_its_grace_is_over_and_is_missed_after() -> None:
    """The last microsecond of the grace still runs; the next one is too late."""
    daily = evolve(JOB, schedule=Interval(period_us=DAY_US, anchor_us=T0))
    assert fire(daily, slot(0), late_us=MAX_GRACE_US).verdict is Verdict.ACCEPTED
    late = fire(daily, slot(0), late_us=MAX_GRACE_US + 1)
    assert (late.verdict, late.runs) == (Verdict.MISSED, ())
    assert ends(late) == ended(Result.MISSED, 0)
    assert job_of(late).next_us == T0 + DAY_US


def test_all_that_is_due_is_missed_when_the_newest_is_too_late() -> None:
    """Nothing is caught up unless somebody asks for it."""
    hasty = under(Policy(misfire_grace_us=SECOND_US))
    late = fire(hasty, slot(0), late_us=2 * PERIOD_US + CLOCK_MARGIN_US)
    assert ends(late) == ended(Result.MISSED, 0, 2)
    assert late.runs == ()


def test_grace_chosen_by_the_owner_takes_the_place_of_the_ordinary_one() -> None:
    """A grace of the job's own holds, be it shorter than the smallest or longer than the greatest."""
    hasty = under(Policy(misfire_grace_us=SECOND_US))
    assert fire(hasty, slot(0), late_us=SECOND_US).verdict is Verdict.ACCEPTED
    assert fire(hasty, slot(0), late_us=SECOND_US + 1).verdict is Verdict.MISSED
    assert fire(under(PATIENT, ONE_SHOT), T0, late_us=DAY_US).verdict is Verdict.ACCEPTED


@pytest.mark.parametrize(
    ("schedule", "expected_us"),
    [
        (Interval(period_us=MINUTE_US, anchor_us=T0), MIN_GRACE_US),
        (Interval(period_us=HOUR_US, anchor_us=T0), HOUR_US // 2),
        (Interval(period_us=DAY_US, anchor_us=T0), MAX_GRACE_US),
        (Once(at_us=T0), MAX_GRACE_US),
    ],
)
def test_grace_is_half_of_the_time_to_the_next_occurrence_within_bounds(
    schedule: Schedule, expected_us: int
) -> None:
    """A minute job survives a slow delivery; a daily one does not surprise its owner at noon."""
    assert grace_us(Job(id="job", schedule=schedule, next_us=T0), T0) == expected_us


def test_one_shot_of_last_week_is_missed_and_completes() -> None:
    """A one-shot that comes too late does not run, and does not vanish either."""
    late = fire(ONE_SHOT, T0, late_us=7 * DAY_US)
    assert late.verdict is Verdict.MISSED
    assert ends(late) == ended(Result.MISSED, 0)
    assert job_of(late).state is JobState.COMPLETED
    assert wake_at(job_of(late)) is None


def test_one_that_is_caught_up_runs_however_late_it_is() -> None:
    """With `ONCE` the newest occurrence runs, and says that it was caught up; the older ones are missed."""
    move = fire(under(ONCE), slot(0), late_us=2 * PERIOD_US + 9 * MINUTE_US)
    assert started(move).occurrence_us == slot(2)
    assert started(move).origin is Origin.CATCH_UP
    assert ends(move) == ended(Result.MISSED, 0, 1)


def test_all_that_are_caught_up_run_one_after_another_from_the_oldest() -> None:
    """With `ALL` the oldest starts, the others wait, and each end of a run starts the next one."""
    move = fire(under(ALL), slot(0), late_us=2 * PERIOD_US + CLOCK_MARGIN_US)
    job, order = job_of(move), [started(move).occurrence_us]
    assert waits(job) == [(slot(1), 1), (slot(2), 1)]
    assert [each.origin for each in job.waiting] == [Origin.CATCH_UP, Origin.SCHEDULE]
    while job.runs:
        move = finish(job, job.runs[0], now_us=slot(2) + 2 * MINUTE_US)
        assert [end.result for end in move.outcomes] == [Result.COMPLETED]
        job = job_of(move)
        order += [run.occurrence_us for run in move.runs]
    assert order == [slot(0), slot(1), slot(2)]
    assert (job.next_us, job.completed) == (slot(3), 3)


def test_only_the_newest_are_caught_up_when_there_are_more_than_the_limit() -> None:
    """What is beyond the limit is missed, the oldest first."""
    some = under(Policy(catch_up=CatchUp.ALL, catch_up_limit=2))
    move = fire(some, slot(0), late_us=4 * PERIOD_US + CLOCK_MARGIN_US)
    assert ends(move) == ended(Result.MISSED, 0, 2)
    assert started(move).occurrence_us == slot(3)
    assert waits(job_of(move)) == [(slot(4), 1)]


def test_what_waits_too_long_is_missed_when_a_fire_finds_it_free() -> None:
    """The run before it died with its machine; nobody wants its successor hours later."""
    move = fire(QUEUED, slot(9) + CLOCK_ALLOWANCE_US)
    assert ends(move)[:2] == [*ended(Result.INTERRUPTED, 0), *ended(Result.MISSED, 1)]
    assert started(move).occurrence_us == slot(9)
    last = evolve(QUEUED, next_us=None)
    assert fire(last, slot(9) + CLOCK_ALLOWANCE_US).verdict is Verdict.MISSED


@pytest.mark.parametrize("catch_up", [CatchUp.ONCE, CatchUp.ALL])
def test_what_waits_too_long_runs_where_it_is_caught_up(catch_up: CatchUp) -> None:
    """A job that wants every occurrence, or the newest, gets what waited, however late."""
    policy = Policy(overlap=Overlap.QUEUE, catch_up=catch_up)
    assert started(fire(under(policy, QUEUED), slot(1), Liveness.DEAD, late_us=HOUR_US)).occurrence_us == (
        slot(1)
    )


def test_manual_run_is_never_too_late() -> None:
    """Somebody asked for it, and no other of its kind comes."""
    asked = waiting_for(1, origin=Origin.MANUAL)
    job = evolve(QUEUED, waiting=(asked,), next_us=None)
    assert started(fire(job, slot(1), Liveness.DEAD, late_us=DAY_US)).origin is Origin.MANUAL


def test_what_waits_behind_a_retry_is_not_too_late() -> None:
    """It could not have started: the occurrence before it is in progress until its last attempt."""
    policy = Policy(overlap=Overlap.QUEUE, attempts=3)
    job = evolve(BETWEEN, policy=policy, next_us=slot(2), waiting=(FOR_RETRY, waiting_for(1)))
    move = fire(job, FOR_RETRY.not_before_us, late_us=2 * MINUTE_US)
    assert started(move).attempt == 2
    assert waits(job_of(move)) == [(slot(1), 1)]
    assert not move.outcomes


# --- an earlier occurrence is in progress -----------------------------------------------------


def test_fire_during_a_run_is_skipped() -> None:
    """An occurrence that comes while a run of its job is in flight is skipped; the run goes on."""
    move = fire(BUSY, slot(1))
    assert (move.verdict, move.runs) == (Verdict.SKIPPED, ())
    assert ends(move) == ended(Result.SKIPPED, 1)
    assert job_of(move).runs == BUSY.runs
    assert job_of(move).next_us == slot(2)


def test_fire_between_two_attempts_is_skipped() -> None:
    """An occurrence is in progress from its claim to its outcome, the time between attempts included."""
    move = fire(BETWEEN, slot(1))
    assert move.verdict is Verdict.SKIPPED
    assert ends(move) == ended(Result.SKIPPED, 1)
    assert job_of(move).waiting == BETWEEN.waiting


def test_queued_occurrence_waits_for_the_end_of_the_run() -> None:
    """It is accepted, has no outcome yet, and starts with the end of the run before it."""
    move = fire(under(QUEUE, BUSY), slot(1))
    assert (move.verdict, move.runs, move.outcomes) == (Verdict.ACCEPTED, (), ())
    assert move.job == evolve(QUEUED, revision=QUEUED.revision + 1)


def test_finish_starts_what_waited_for_the_run() -> None:
    """Nobody has to be woken for it: the process that ended the run goes on with what waited."""
    move = finish(QUEUED, RUN, now_us=slot(1) + MINUTE_US)
    assert ends(move) == ended(Result.COMPLETED, 0)
    run = started(move)
    assert (run.occurrence_us, run.attempt, run.owner) == (slot(1), 1, RUN.owner)
    assert run.lease_until_us == slot(1) + MINUTE_US + LEASE_US
    assert job_of(move).runs == (run,)
    assert job_of(move).waiting == ()


def test_finish_that_may_start_nothing_leaves_it_to_the_next_wake() -> None:
    """What waited may start from now on, and asks for a wake at once."""
    ended_us = slot(1) + MINUTE_US
    move = finish(QUEUED, RUN, now_us=ended_us, may_start=False)
    job = job_of(move)
    assert move.runs == ()
    assert wake_at(job) == ended_us
    assert started(fire(job, ended_us, late_us=2 * MINUTE_US)).occurrence_us == slot(1)


def test_queue_holds_one_occurrence() -> None:
    """While one waits, the next one is skipped."""
    move = fire(QUEUED, slot(2))
    assert move.verdict is Verdict.SKIPPED
    assert ends(move) == ended(Result.SKIPPED, 2)
    assert job_of(move).waiting == QUEUED.waiting


def test_queued_occurrence_waits_behind_a_retry() -> None:
    """The retry comes first, since its occurrence is in progress; the queue still holds one."""
    job = evolve(BETWEEN, policy=Policy(overlap=Overlap.QUEUE, attempts=3))
    move = fire(job, slot(1))
    assert (move.verdict, move.runs) == (Verdict.ACCEPTED, ())
    assert waits(job_of(move)) == [(slot(0), 2), (slot(1), 1)]
    assert wake_at(job_of(move)) == FOR_RETRY.not_before_us


def test_occurrences_that_may_overlap_run_side_by_side() -> None:
    """The new one starts while the older one goes on, and each of them ends by itself."""
    move = fire(under(ALLOW, BUSY), slot(1))
    job = job_of(move)
    assert [run.occurrence_us for run in job.runs] == [slot(0), slot(1)]
    older = finish(job, RUN)
    assert ends(older) == ended(Result.COMPLETED, 0)
    assert job_of(older).runs == move.runs


def crowded(count: int, *waiting: Waiting) -> Job:
    """Return a job of which so many runs are in flight."""
    runs = tuple(run_of(number, lease_until_us=slot(99)) for number in range(count))
    return evolve(JOB, policy=ALLOW, next_us=slot(20), runs=runs, waiting=waiting)


def test_overlapping_runs_are_bounded() -> None:
    """The last one that there is room for starts; the one after it is skipped."""
    assert fire(crowded(MAX_IN_FLIGHT - 1), slot(20)).verdict is Verdict.ACCEPTED
    move = fire(crowded(MAX_IN_FLIGHT), slot(20))
    assert (move.verdict, move.runs) == (Verdict.SKIPPED, ())
    assert ends(move) == ended(Result.SKIPPED, 20)


def test_what_waits_counts_toward_the_bound_of_overlapping_runs() -> None:
    """A retry needs the place that it had."""
    job = crowded(MAX_IN_FLIGHT - 1, waiting_for(19, attempt=2, not_before_us=slot(30)))
    assert fire(job, slot(20)).verdict is Verdict.SKIPPED


def test_caught_up_occurrences_that_may_overlap_start_together_up_to_the_bound() -> None:
    """The others wait, behind a guard, for the end of any of those runs."""
    policy = Policy(overlap=Overlap.ALLOW, catch_up=CatchUp.ALL, catch_up_limit=MAX_CATCH_UP)
    move = fire(under(policy), slot(0), late_us=11 * PERIOD_US + CLOCK_MARGIN_US)
    job = job_of(move)
    assert [run.occurrence_us for run in move.runs] == [slot(number) for number in range(MAX_IN_FLIGHT)]
    assert waits(job) == [(slot(10), 1), (slot(11), 1)]
    assert startable(job) == ()
    assert started(finish(job, job.runs[3], now_us=slot(12))).occurrence_us == slot(10)


# --- nothing to run -----------------------------------------------------------------------------


def test_duplicate_fire_is_answered_without_running() -> None:
    """The fire of an occurrence that is in flight changes nothing."""
    move = fire(RUNNING, slot(0))
    assert (move.verdict, move.runs, move.outcomes) == (Verdict.DUPLICATE, (), ())
    assert move.job is RUNNING


def test_fire_of_a_settled_occurrence_is_a_duplicate() -> None:
    """The redelivery of a fire whose run has already ended changes nothing."""
    job = evolve(JOB, next_us=slot(1), completed=1)
    move = fire(job, slot(0))
    assert (move.verdict, move.runs) == (Verdict.DUPLICATE, ())
    assert move.job is job


def test_fire_of_an_occurrence_that_waits_is_a_duplicate() -> None:
    """It was accepted before, and has its turn."""
    move = fire(QUEUED, slot(1))
    assert (move.verdict, move.runs) == (Verdict.DUPLICATE, ())
    assert move.job is QUEUED


@pytest.mark.parametrize("job", [None, *OUT_OF_FORCE], ids=["removed", "paused", "completed"])
def test_fire_of_a_job_that_wants_no_wake_is_gone(job: Job | None) -> None:
    """A removed, paused or completed job runs nothing."""
    move = fire(job, slot(0))
    assert (move.verdict, move.runs, move.outcomes) == (Verdict.GONE, (), ())
    assert move.job is job


# --- the repeat limit ---------------------------------------------------------------------------


def test_claim_of_the_last_run_leaves_no_next_occurrence() -> None:
    """A job that repeats twice is claimed twice; the second claim is the last."""
    twice = evolve(JOB, times=2)
    first = fire(twice, slot(0))
    assert job_of(first).next_us == slot(1)
    between = job_of(finish(first.job, started(first)))
    second = fire(between, slot(1))
    assert job_of(second).next_us is None
    assert job_of(second).state is JobState.SCHEDULED
    assert job_of(finish(second.job, started(second))).state is JobState.COMPLETED


def test_missed_and_skipped_occurrences_do_not_count_as_runs() -> None:
    """Only an attempt is consumed; what never ran leaves the limit as it was."""
    missed = job_of(fire(evolve(JOB, times=1), slot(0), late_us=PERIOD_US - 1))
    assert (missed.next_us, missed.completed) == (slot(1), 0)
    skipped = job_of(fire(evolve(BUSY, times=2), slot(1)))
    assert (skipped.next_us, skipped.completed) == (slot(2), 0)


def test_interrupted_run_counts_as_consumed() -> None:
    """A run that died was begun: it is one of the times that the job repeats."""
    last = evolve(RUNNING, next_us=None, times=1)
    move = fire(last, slot(0), Liveness.DEAD)
    assert job_of(move).completed == 1
    assert job_of(move).state is JobState.COMPLETED


def test_attempts_at_one_occurrence_count_once() -> None:
    """The limit speaks of occurrences: a retry is not another one."""
    job = evolve(RUNNING, policy=THRICE, times=2)
    failed = job_of(finish(job, RUN, succeeded=False))
    assert (failed.completed, failed.next_us) == (0, slot(1))
    again = fire(failed, failed.waiting[0].not_before_us)
    assert job_of(again).next_us == slot(1)
    assert job_of(finish(again.job, started(again))).completed == 1


def test_limit_counts_what_is_between_two_attempts() -> None:
    """With one occurrence in progress, there is one left to take."""
    policy = Policy(overlap=Overlap.ALLOW, attempts=3)
    move = fire(evolve(BETWEEN, policy=policy, times=2), slot(1))
    assert started(move).occurrence_us == slot(1)
    assert job_of(move).next_us is None


def test_limit_ends_what_waits_and_was_not_begun() -> None:
    """Three are due of a job that repeats twice: the third one cannot run any more."""
    move = fire(evolve(under(ALL), times=2), slot(0), late_us=2 * PERIOD_US + CLOCK_MARGIN_US)
    assert waits(job_of(move)) == [(slot(1), 1), (slot(2), 1)]
    second = finish(move.job, started(move), now_us=slot(2) + 2 * MINUTE_US)
    assert ends(second) == [*ended(Result.COMPLETED, 0), *ended(Result.SKIPPED, 2)]
    assert (waits(job_of(second)), job_of(second).next_us) == ([], None)


def test_manual_run_does_not_count_toward_the_limit() -> None:
    """It is none of the schedule's occurrences, neither in flight nor when it has ended."""
    asked = run_now(evolve(JOB, times=1), slot(0) - HOUR_US)
    assert job_of(asked).next_us == slot(0)
    over = job_of(finish(asked.job, started(asked)))
    assert (over.completed, over.next_us) == (0, slot(0))
    assert fire(over, slot(0)).verdict is Verdict.ACCEPTED


def test_limit_leaves_a_manual_run_that_waits() -> None:
    """The last run of the schedule begins; what was asked for by hand has its turn all the same."""
    waiting = (waiting_for(1), waiting_for(2, origin=Origin.MANUAL))
    job = evolve(BUSY, policy=QUEUE, times=2, next_us=slot(2), waiting=waiting)
    move = finish(job, RUN, now_us=slot(2))
    assert started(move).occurrence_us == slot(1)
    assert [each.origin for each in job_of(move).waiting] == [Origin.MANUAL]


# --- the end of a run ---------------------------------------------------------------------------


@pytest.mark.parametrize(("succeeded", "result"), [(True, Result.COMPLETED), (False, Result.FAILED)])
def test_owner_ends_its_run(succeeded: bool, result: Result) -> None:
    """The end of a run is recorded once, and the next occurrence stays where the claim put it."""
    move = finish(RUNNING, RUN, succeeded=succeeded)
    assert move.verdict is Verdict.CHANGED
    assert ends(move) == ended(result, 0)
    assert (move.outcomes[0].attempt, move.outcomes[0].claimed_us) == (1, RUN.claimed_us)
    assert move.outcomes[0].reason == "said so"
    assert move.job == evolve(RUNNING, runs=(), completed=1, revision=RUNNING.revision + 1)


@pytest.mark.parametrize(
    "run",
    [run_of(0, owner="me"), run_of(0, attempt=2), run_of(1), run_of(0, origin=Origin.MANUAL)],
    ids=["another owner", "another attempt", "another occurrence", "a manual run"],
)
@pytest.mark.parametrize("succeeded", [True, False])
def test_only_the_owner_ends_a_run(run: Run, succeeded: bool) -> None:
    """Whoever does not hold the claim ends nothing, and learns that its run was lost."""
    move = finish(RUNNING, run, succeeded=succeeded)
    assert (move.verdict, move.outcomes) == (Verdict.LOST, ())
    assert move.job is RUNNING


def test_end_of_a_renewed_run_is_its_owners() -> None:
    """A renewal does not make it another run: the owner ends it with the claim as it was."""
    renewed = job_of(transitions.renew(RUNNING, run=RUN, now_us=slot(0) + MINUTE_US))
    assert finish(renewed, RUN).verdict is Verdict.CHANGED


@pytest.mark.parametrize("job", [None, JOB], ids=["removed", "already ended"])
def test_end_of_a_run_that_nobody_knows_is_lost(job: Job | None) -> None:
    """The end of a run of a removed job, and a second end of the same run, change nothing."""
    move = finish(job, RUN)
    assert (move.verdict, move.outcomes) == (Verdict.LOST, ())
    assert move.job is job


def test_owner_renews_its_lease() -> None:
    """A renewal starts the lease anew, from now, and leaves the other runs alone."""
    now_us = slot(0) + MINUTE_US
    other = run_of(1)
    renewed = job_of(transitions.renew(evolve(RUNNING, runs=(RUN, other)), run=RUN, now_us=now_us))
    assert renewed.runs == (evolve(RUN, lease_until_us=now_us + LEASE_US), other)
    assert renewed.revision == RUNNING.revision + 1


def test_renewal_by_a_slow_clock_does_not_shorten_the_lease() -> None:
    """Others would take a living run for interrupted."""
    move = transitions.renew(RUNNING, run=RUN, now_us=slot(0) - HOUR_US)
    assert move.verdict is Verdict.CHANGED
    assert move.job is RUNNING


@pytest.mark.parametrize("job", [None, JOB, evolve(RUNNING, runs=(run_of(0, attempt=2),))])
def test_only_the_owner_renews(job: Job | None) -> None:
    """A run that was lost cannot be renewed."""
    move = transitions.renew(job, run=RUN, now_us=slot(0))
    assert move.verdict is Verdict.LOST
    assert move.job is job


# --- a failed run is attempted again ------------------------------------------------------------


def test_failed_run_waits_for_its_next_attempt() -> None:
    """No outcome yet: the same occurrence waits, first of all, and asks for a wake of its own."""
    move = finish(under(THRICE, RUNNING), RUN, succeeded=False)
    job = job_of(move)
    (retry,) = job.waiting
    assert retry.not_before_us == T0 + MINUTE_US + transitions.retry_delay_us(job, RUN)
    assert (retry.identity, retry.attempt, retry.origin) == (RUN.identity, 2, RUN.origin)
    assert (job.runs, move.outcomes, job.completed) == ((), (), 0)
    assert wake_at(job) == whole_second(retry.not_before_us)


def test_retry_stands_before_what_was_not_begun() -> None:
    """What was queued waits until the occurrence before it has its outcome."""
    job = evolve(QUEUED, policy=Policy(overlap=Overlap.QUEUE, attempts=2))
    move = finish(job, RUN, succeeded=False)
    assert waits(job_of(move)) == [(slot(0), 2), (slot(1), 1)]
    assert move.runs == ()


def test_fire_starts_the_retry_when_its_time_has_come() -> None:
    """It is the same occurrence with the same origin, another attempt, by whoever was woken."""
    early = fire(evolve(BETWEEN, next_us=None), FOR_RETRY.not_before_us - 1)
    assert (early.verdict, early.runs) == (Verdict.DUPLICATE, ())
    move = fire(evolve(BETWEEN, next_us=None), FOR_RETRY.not_before_us)
    run = started(move)
    assert (run.occurrence_us, run.attempt, run.owner, run.origin) == (slot(0), 2, "me", Origin.SCHEDULE)
    assert (move.verdict, job_of(move).waiting) == (Verdict.ACCEPTED, ())


def test_retry_that_is_fired_to_a_slow_clock_starts() -> None:
    """The fire's word counts for a retry as it does for an occurrence; else it would come for ever."""
    move = fire(evolve(BETWEEN, next_us=None), FOR_RETRY.not_before_us, late_us=-CLOCK_MARGIN_US)
    assert started(move).attempt == 2


def test_last_attempt_that_fails_is_the_outcome() -> None:
    """So many attempts were made, and the outcome says which one was the last."""
    run = run_of(0, attempt=3)
    move = finish(evolve(RUNNING, runs=(run,), policy=THRICE), run, succeeded=False)
    assert ends(move) == ended(Result.FAILED, 0)
    assert (move.outcomes[0].attempt, job_of(move).waiting) == (3, ())


def test_success_of_a_later_attempt_is_the_outcome() -> None:
    """What failed before is forgotten."""
    run = run_of(0, attempt=2)
    move = finish(evolve(RUNNING, runs=(run,), policy=THRICE), run)
    assert ends(move) == ended(Result.COMPLETED, 0)
    assert move.outcomes[0].attempt == 2


def test_failure_of_a_job_that_is_out_of_force_is_not_retried() -> None:
    """Nothing waits where nothing would wake anybody."""
    job = evolve(RUNNING, policy=THRICE, state=JobState.PAUSED)
    move = finish(job, RUN, succeeded=False)
    assert ends(move) == ended(Result.FAILED, 0)
    assert job_of(move).waiting == ()


def test_interruption_is_not_a_failure() -> None:
    """How often a failed run is attempted says nothing of a run whose process died."""
    assert ends(fire(under(THRICE, RUNNING), slot(0), Liveness.DEAD)) == ended(Result.INTERRUPTED, 0)


def test_retry_whose_time_was_long_ago_has_failed() -> None:
    """A machine that was away for hours does not come back with an old retry, unless that is caught up."""
    job = evolve(BETWEEN, next_us=None)
    move = fire(job, FOR_RETRY.not_before_us, late_us=HOUR_US)
    assert (move.verdict, move.runs) == (Verdict.MISSED, ())
    assert ends(move) == ended(Result.FAILED, 0)
    assert (move.outcomes[0].attempt, job_of(move).completed) == (1, 1)
    patient = under(Policy(attempts=3, catch_up=CatchUp.ONCE), job)
    assert started(fire(patient, FOR_RETRY.not_before_us, late_us=HOUR_US)).attempt == 2


@given(st.integers(1, 200), st.integers(1, DAY_US), st.integers(1, DAY_US), st.integers(0, 10**6))
def test_delay_of_a_retry_doubles_up_to_its_bound_and_leaves_out_half_at_most(
    attempt: int, delay_us: int, max_us: int, number: int
) -> None:
    """Jobs that failed together come back apart, and none of them before half of its delay."""
    job = under(Policy(attempts=999, retry_delay_us=delay_us, retry_max_delay_us=max_us))
    whole_us = min(max_us, delay_us * 2 ** (attempt - 1))
    waits_us = transitions.retry_delay_us(job, run_of(number, attempt=attempt))
    assert whole_us // 2 <= waits_us <= whole_us


def test_delay_of_a_retry_is_the_same_for_whoever_asks_and_differs_between_jobs() -> None:
    """The chance in it is worked out from the identity of the attempt."""
    delays = {transitions.retry_delay_us(evolve(JOB, id=f"job {number}"), RUN) for number in range(100)}
    assert len(delays) == 100
    assert transitions.retry_delay_us(JOB, RUN) == transitions.retry_delay_us(BETWEEN, RUN)


# --- interruptions ------------------------------------------------------------------------------


def test_interrupted_run_is_recorded_and_the_next_occurrence_runs() -> None:
    """By default a run whose process died ends as interrupted; the fire that finds it goes its way."""
    move = fire(RUNNING, slot(1), Liveness.DEAD)
    assert ends(move) == ended(Result.INTERRUPTED, 0)
    assert started(move).occurrence_us == slot(1)


def test_interrupted_run_is_retried_as_the_next_attempt() -> None:
    """A job that asks for it is started again: the same occurrence, another attempt, a new owner."""
    job = evolve(RETRIED, runs=(run_of(0, origin=Origin.RECOVERY),))
    move = fire(job, slot(0), Liveness.DEAD)
    run = started(move)
    assert (move.verdict, move.outcomes) == (Verdict.ACCEPTED, ())
    assert (run.occurrence_us, run.attempt, run.owner) == (slot(0), 2, "me")
    assert run.origin is Origin.RECOVERY
    assert run.lease_until_us == slot(0) + LEASE_US
    assert job_of(move).next_us == slot(1)


def test_fire_that_starts_a_run_again_skips_its_own_occurrence() -> None:
    """While the older occurrence is tried again, the newer one overlaps with it."""
    move = fire(RETRIED, slot(1), Liveness.DEAD)
    assert move.verdict is Verdict.ACCEPTED
    assert started(move).occurrence_us == slot(0)
    assert ends(move) == ended(Result.SKIPPED, 1)


def test_attempts_are_bounded() -> None:
    """A job that kills its machine is started so often and no more; the last attempt is recorded."""
    job = RETRIED
    for attempt in range(2, MAX_ATTEMPTS + 1):
        job = job_of(fire(job, slot(0), Liveness.DEAD))
        assert [run.attempt for run in job.runs] == [attempt]
    last = fire(job, slot(0), Liveness.DEAD)
    assert last.runs == ()
    assert ends(last) == ended(Result.INTERRUPTED, 0)
    assert last.outcomes[0].attempt == MAX_ATTEMPTS


def test_owner_that_asks_for_more_attempts_gets_them_after_interruptions_too() -> None:
    """The bound of the protocol is for those who say nothing."""
    policy = Policy(on_interrupt=OnInterrupt.RETRY, attempts=MAX_ATTEMPTS + 1)
    job = evolve(RUNNING, policy=policy, runs=(run_of(0, attempt=MAX_ATTEMPTS),))
    assert started(fire(job, slot(0), Liveness.DEAD)).attempt == MAX_ATTEMPTS + 1


def test_interrupted_run_of_a_paused_job_is_recorded() -> None:
    """A paused job starts nothing, not even again."""
    move = fire(evolve(RETRIED, state=JobState.PAUSED), slot(0), Liveness.DEAD)
    assert move.runs == ()
    assert ends(move) == ended(Result.INTERRUPTED, 0)
    assert job_of(move).state is JobState.PAUSED


def test_lease_of_an_unknown_owner_is_believed_as_long_as_clocks_may_differ() -> None:
    """Nothing is known of a process elsewhere: its run is interrupted when every clock agrees so."""
    before = fire(RETRIED, GUARD_US - 1)
    assert before.verdict is Verdict.DUPLICATE
    assert before.job is RETRIED
    assert started(fire(RETRIED, GUARD_US)).attempt == 2


def test_dead_owner_is_not_waited_for() -> None:
    """A run of an earlier life of this machine is over, whatever its lease says."""
    assert started(fire(RETRIED, slot(0), Liveness.DEAD)).attempt == 2


def test_what_is_known_counts_for_each_run_by_itself() -> None:
    """Of several runs the one that died is started again; the others go on."""
    runs = tuple(run_of(number, lease_until_us=slot(9)) for number in range(3))
    policy = Policy(on_interrupt=OnInterrupt.RETRY, overlap=Overlap.ALLOW)
    job = evolve(JOB, next_us=slot(3), runs=runs, policy=policy)
    move = fire(job, slot(2), Liveness.ALIVE, Liveness.DEAD)
    assert (started(move).occurrence_us, started(move).attempt) == (slot(1), 2)
    assert job_of(move).runs == (runs[0], runs[2], *move.runs)


def test_living_owner_is_not_interrupted_and_its_lease_is_renewed_when_the_guard_fires() -> None:
    """The guard of a run that is alive moves on: that fire was the arm that brings somebody back."""
    assert fire(RETRIED, GUARD_US - 1, Liveness.ALIVE).job is RETRIED
    move = fire(evolve(RETRIED, next_us=slot(3)), GUARD_US, Liveness.ALIVE)
    job = job_of(move)
    assert move.runs == ()
    assert job.runs == (evolve(RUN, lease_until_us=GUARD_US + LEASE_US),)
    assert wake_at(job) == GUARD_US + LEASE_US + CLOCK_ALLOWANCE_US


def test_renewal_by_the_guard_counts_from_the_later_of_fire_and_clock() -> None:
    """With a clock that is behind, the renewed guard still lies beyond the fire that renewed it."""
    job = job_of(fire(evolve(RETRIED, next_us=slot(3)), GUARD_US, Liveness.ALIVE, late_us=-MINUTE_US))
    wake_us = wake_at(job)
    assert wake_us is not None
    assert wake_us > GUARD_US


# --- runs by hand -------------------------------------------------------------------------------


def test_manual_run_starts_at_once_and_takes_no_slot() -> None:
    """It has an identity of its own; the schedule goes on as if nothing had happened (D2)."""
    asked_us = slot(0) - HOUR_US
    move = run_now(JOB, asked_us, late_us=SECOND_US)
    run = started(move)
    assert move.verdict is Verdict.ACCEPTED
    assert (run.occurrence_us, run.origin, run.owner, run.attempt) == (asked_us, Origin.MANUAL, "me", 1)
    assert (job_of(move).next_us, job_of(move).last_manual_us) == (slot(0), asked_us)
    over = finish(move.job, run)
    assert [(end.result, end.origin) for end in over.outcomes] == [(Result.COMPLETED, Origin.MANUAL)]
    assert started(fire(over.job, slot(0))).occurrence_us == slot(0)


def test_manual_run_at_the_instant_of_a_slot_is_another_occurrence() -> None:
    """The two are told apart by their origin, not by their instant alone."""
    job = job_of(run_now(under(ALLOW), slot(0)))
    move = fire(job, slot(0), Liveness.ALIVE)
    assert started(move).origin is Origin.SCHEDULE
    assert len({run.identity for run in job_of(move).runs}) == 2


def test_repeated_request_for_a_manual_run_is_a_duplicate() -> None:
    """Whoever got no answer asks again, during the run or after it."""
    move = run_now(JOB, T0 - HOUR_US)
    again = run_now(move.job, T0 - HOUR_US, Liveness.ALIVE, late_us=SECOND_US)
    assert (again.verdict, again.runs) == (Verdict.DUPLICATE, ())
    assert again.job is move.job
    over = job_of(finish(move.job, started(move)))
    assert run_now(over, T0 - HOUR_US, late_us=MINUTE_US).job is over


def test_request_for_a_manual_run_that_comes_after_a_later_one_is_a_duplicate() -> None:
    """Nothing tells it from a repetition of what has run, and running twice cannot be undone."""
    over = evolve(JOB, last_manual_us=T0 - HOUR_US)
    move = run_now(over, T0 - HOUR_US - 1, late_us=MINUTE_US)
    assert (move.verdict, move.runs) == (Verdict.DUPLICATE, ())
    assert move.job is over


@pytest.mark.parametrize("job", OUT_OF_FORCE, ids=["paused", "completed"])
def test_job_out_of_force_may_be_run_by_hand(job: Job) -> None:
    """It stays out of force, during the run and after it, and needs no wake."""
    move = run_now(job, T0 + HOUR_US)
    assert started(move).origin is Origin.MANUAL
    during = job_of(move)
    after = job_of(finish(during, started(move)))
    assert [each.state for each in (during, after)] == [job.state, job.state]
    assert [wake_at(each) for each in (during, after)] == [None, None]
    assert (after.next_us, after.completed) == (job.next_us, 0)


@pytest.mark.parametrize("job", [JOB, *OUT_OF_FORCE], ids=["scheduled", "paused", "completed"])
def test_manual_run_that_a_clock_ahead_asks_for_starts(job: Job) -> None:
    """It was asked for; that another clock has not come to that instant is no reason to wait."""
    assert started(run_now(job, T0, late_us=-MINUTE_US)).occurrence_us == T0


@pytest.mark.parametrize("job", [BUSY, BETWEEN], ids=["in flight", "between two attempts"])
def test_manual_run_is_skipped_while_an_occurrence_is_in_progress(job: Job) -> None:
    """It leaves no trace, and may be asked for again."""
    move = run_now(job, slot(0) + MINUTE_US)
    assert (move.verdict, move.runs, move.outcomes) == (Verdict.SKIPPED, (), ())
    assert move.job is job


def test_manual_run_of_a_queueing_job_waits_for_its_turn() -> None:
    """It takes the one place in the queue, and starts with the end of the run."""
    move = run_now(under(QUEUE, BUSY), slot(0) + MINUTE_US)
    job = job_of(move)
    assert (move.verdict, move.runs, len(job.waiting)) == (Verdict.ACCEPTED, (), 1)
    assert started(finish(job, RUN, now_us=slot(0) + HOUR_US)).origin is Origin.MANUAL
    assert run_now(QUEUED, slot(1) + MINUTE_US).verdict is Verdict.SKIPPED


def test_manual_run_of_a_paused_job_does_not_wait() -> None:
    """Nobody would be woken for it."""
    job = evolve(BUSY, policy=QUEUE, state=JobState.PAUSED)
    move = run_now(job, slot(0) + MINUTE_US)
    assert move.verdict is Verdict.SKIPPED
    assert move.job is job


def test_manual_run_may_overlap_where_runs_may() -> None:
    """It starts beside the others, up to the same bound."""
    assert len(job_of(run_now(crowded(MAX_IN_FLIGHT - 1), slot(19))).runs) == MAX_IN_FLIGHT
    assert run_now(crowded(MAX_IN_FLIGHT), slot(19)).verdict is Verdict.SKIPPED


def test_manual_run_takes_the_place_of_one_whose_process_died() -> None:
    """A run that is over does not block the next one for the whole of its lease (O3)."""
    move = run_now(BUSY, slot(0) + MINUTE_US, Liveness.DEAD)
    assert ends(move) == ended(Result.INTERRUPTED, 0)
    assert started(move).origin is Origin.MANUAL


def test_manual_run_that_fails_is_attempted_again() -> None:
    """The owner's choice holds for every run; the retry keeps the identity."""
    move = run_now(under(THRICE), T0 - HOUR_US)
    failed = job_of(finish(move.job, started(move), succeeded=False, now_us=T0 - HOUR_US + MINUTE_US))
    assert failed.waiting[0].identity == (True, T0 - HOUR_US)
    again = fire(failed, failed.waiting[0].not_before_us)
    assert (started(again).identity, started(again).attempt) == ((True, T0 - HOUR_US), 2)


# --- pause and resume ---------------------------------------------------------------------------


def test_pause_leaves_the_slot_and_the_run() -> None:
    """A pause puts the schedule out of force, says why, and does nothing else."""
    paused = job_of(pause(RUNNING, slot(0) + MINUTE_US, "holidays"))
    assert paused == evolve(RUNNING, state=JobState.PAUSED, note="holidays", revision=RUNNING.revision + 1)


def test_pause_skips_what_is_due_and_was_not_taken() -> None:
    """It was an active job's occurrence, and has an end (S4)."""
    move = pause(JOB, slot(2) + MINUTE_US)
    assert ends(move) == ended(Result.SKIPPED, 0, 2)
    assert job_of(move).next_us == slot(3)


def test_pause_ends_what_waits() -> None:
    """What was not begun is skipped; what was attempted before has failed, and counts as run."""
    skipped = pause(QUEUED, slot(1) + MINUTE_US)
    assert ends(skipped) == ended(Result.SKIPPED, 1)
    assert (job_of(skipped).waiting, job_of(skipped).completed) == ((), 0)
    failed = pause(BETWEEN, slot(0) + MINUTE_US)
    assert ends(failed) == ended(Result.FAILED, 0)
    assert (failed.outcomes[0].attempt, job_of(failed).completed) == (1, 1)


def test_job_that_was_paused_during_its_run_is_not_armed_again() -> None:
    """The end of the run leaves the job paused, and it needs no wake."""
    paused = job_of(pause(RETRIED))
    assert wake_at(paused) is None
    over = job_of(finish(paused, RUN))
    assert over.state is JobState.PAUSED
    assert wake_at(over) is None


@pytest.mark.parametrize("job", OUT_OF_FORCE, ids=["paused", "completed"])
def test_pause_of_a_job_that_is_out_of_force_changes_nothing(job: Job) -> None:
    """A second pause is as good as one; a completed job stays completed."""
    assert pause(job).job is job


def test_late_fire_of_a_paused_job_claims_nothing() -> None:
    """It was on its way when somebody paused the job (D6)."""
    move = fire(pause(JOB).job, slot(0))
    assert (move.verdict, move.runs, move.outcomes) == (Verdict.GONE, (), ())


def test_second_pause_with_another_note_changes_the_note_alone() -> None:
    """What passed since the first pause was nobody's."""
    move = pause(evolve(PAUSED, note="holidays"), slot(5), "illness")
    assert move.job == evolve(PAUSED, note="illness", revision=PAUSED.revision + 1)
    assert not move.outcomes


def test_resume_before_the_slot_keeps_it() -> None:
    """A pause that was over in time costs no occurrence; the note is gone."""
    resumed = resume(pause(JOB, note="holidays").job, slot(0) - 1)
    assert job_of(resumed) == evolve(JOB, revision=JOB.revision + 2)
    assert not resumed.outcomes


def test_resume_after_the_slot_goes_on_from_now() -> None:
    """What passed during the pause was nobody's: no outcome, and the schedule goes on after now."""
    resumed = resume(pause(JOB).job, slot(4))
    assert job_of(resumed).next_us == slot(5)
    assert not resumed.outcomes


def test_resume_from_now_counts_an_interval_anew() -> None:
    """The next occurrence is one period away, and the following ones count from it."""
    now_us = slot(4) + MINUTE_US
    resumed = job_of(resume(pause(JOB).job, now_us, from_now=True))
    assert resumed.next_us == now_us + PERIOD_US
    assert following(resumed, now_us + PERIOD_US) == now_us + 2 * PERIOD_US


def test_resume_from_now_leaves_other_schedules_alone() -> None:
    """Only an interval has an anchor to move."""
    assert job_of(resume(pause(ONE_SHOT).job, T0 - MINUTE_US, from_now=True)).next_us == T0


def test_one_shot_that_passed_while_paused_is_missed() -> None:
    """A one-shot does not vanish without a trace."""
    resumed = resume(pause(ONE_SHOT).job, T0)
    assert ends(resumed) == ended(Result.MISSED, 0)
    assert job_of(resumed).state is JobState.COMPLETED


@pytest.mark.parametrize("from_now", [False, True])
def test_job_whose_last_occurrence_passed_while_paused_leaves_a_trace(from_now: bool) -> None:
    """So does a job whose bounds leave nothing after the pause."""
    bounded = under(Policy(ends_us=slot(2)))
    resumed = resume(pause(bounded).job, slot(3), from_now=from_now)
    assert ends(resumed) == ended(Result.MISSED, 0)
    assert job_of(resumed).state is JobState.COMPLETED


def test_resume_during_the_last_run_waits_for_its_end() -> None:
    """A job whose last run is in flight is in force until that run has ended."""
    paused = evolve(RUNNING, next_us=None, state=JobState.PAUSED)
    resumed = job_of(resume(paused, slot(4)))
    assert resumed.state is JobState.SCHEDULED
    assert resumed.runs == (RUN,)


@pytest.mark.parametrize("job", [JOB, COMPLETED], ids=["scheduled", "completed"])
def test_resume_of_a_job_that_is_not_paused_changes_nothing(job: Job) -> None:
    """Resuming is no way to skip an occurrence, nor to bring a completed job back."""
    assert resume(job, slot(9)).job is job


# --- editing ------------------------------------------------------------------------------------

HOURLY = Interval(period_us=HOUR_US, anchor_us=T0 + MINUTE_US)


def test_edit_of_the_schedule_goes_on_after_now() -> None:
    """The next occurrence is the first one of the new schedule; nothing else changes."""
    move = edit(JOB, T0 - MINUTE_US, schedule=HOURLY)
    assert move.job == evolve(JOB, schedule=HOURLY, next_us=T0 + MINUTE_US, revision=JOB.revision + 1)
    assert not move.outcomes


def test_edit_of_the_schedule_skips_what_was_due_and_not_taken() -> None:
    """An occurrence of the old schedule that nobody has taken has an end all the same."""
    move = edit(JOB, slot(1) + MINUTE_US, schedule=HOURLY)
    assert ends(move) == ended(Result.SKIPPED, 0, 1)
    assert job_of(move).next_us == T0 + MINUTE_US + HOUR_US


@pytest.mark.parametrize("job", [RUNNING, QUEUED, BETWEEN], ids=["in flight", "queued", "for a retry"])
def test_edit_leaves_what_was_taken(job: Job) -> None:
    """A run in flight ends as it would have, and what waits has its turn."""
    edited = job_of(edit(job, slot(0) + MINUTE_US, schedule=HOURLY))
    assert (edited.runs, edited.waiting, edited.completed) == (job.runs, job.waiting, job.completed)


def test_edit_of_the_policy_leaves_the_slots() -> None:
    """Only the bounds in it decide when the job is due."""
    move = edit(JOB, slot(3), policy=QUEUE)
    assert move.job == evolve(JOB, policy=QUEUE, revision=JOB.revision + 1)
    assert not move.outcomes


def test_edit_of_the_bounds_moves_the_slots() -> None:
    """What lies before the beginning is nobody's any more."""
    assert job_of(edit(JOB, T0 - 1, policy=Policy(starts_us=slot(2) + 1))).next_us == slot(3)


def test_edit_of_the_limit_leaves_the_slots() -> None:
    """A limit that is not reached, or none at all, changes nothing but itself."""
    limited = job_of(edit(JOB, slot(3), times=2))
    assert (limited.times, limited.next_us) == (2, slot(0))
    assert job_of(edit(limited, slot(3), times=0)).times is None


def test_edit_of_the_limit_brings_the_schedule_back() -> None:
    """A job that has run as often as it should, and is to run more often, goes on after now."""
    over = evolve(COMPLETED, times=2, completed=2)
    edited = job_of(edit(over, slot(4), times=3))
    assert (edited.state, edited.next_us) == (JobState.SCHEDULED, slot(5))


def test_edit_of_a_completed_one_shot_schedules_it_again() -> None:
    """It is the way to run it at another time."""
    over = evolve(ONE_SHOT, next_us=None, state=JobState.COMPLETED)
    edited = job_of(edit(over, T0 + HOUR_US, schedule=Once(at_us=T0 + DAY_US)))
    assert (edited.state, edited.next_us) == (JobState.SCHEDULED, T0 + DAY_US)


def test_edited_job_that_is_paused_stays_paused() -> None:
    """Its new schedule is in force when it is resumed; what passed was nobody's."""
    move = edit(PAUSED, slot(3), schedule=HOURLY)
    assert (job_of(move).state, job_of(move).next_us) == (JobState.PAUSED, T0 + MINUTE_US + HOUR_US)
    assert not move.outcomes


@pytest.mark.parametrize(
    ("job", "changes"),
    [
        (JOB, {"schedule": Once(at_us=T0 - HOUR_US)}),
        (JOB, {"policy": Policy(ends_us=T0 - HOUR_US)}),
        (evolve(JOB, completed=2), {"times": 2}),
        (evolve(QUEUED, times=3), {"times": 1}),
        (evolve(COMPLETED, times=1, completed=1), {"schedule": HOURLY}),
    ],
    ids=["in the past", "out of bounds", "spent", "spent by what is in flight", "completed"],
)
def test_edit_that_would_leave_no_occurrence_is_refused(job: Job, changes: dict[str, Any]) -> None:
    """Whoever wants that pauses or removes the job."""
    move = edit(job, T0, **changes)
    assert (move.verdict, move.outcomes) == (Verdict.REFUSED, ())
    assert move.job is job


def test_edit_that_is_repeated_changes_nothing() -> None:
    """Whoever got no answer asks again; what has run since then is not asked for."""
    edited = job_of(edit(JOB, T0 - HOUR_US, schedule=HOURLY, times=3, policy=QUEUE))
    assert edit(edited, slot(9), schedule=HOURLY, times=3, policy=QUEUE).job is edited


def test_edit_by_a_slow_clock_does_not_bring_an_occurrence_again() -> None:
    """What was taken by another clock lies before the first occurrence of the edited schedule."""
    over = evolve(JOB, next_us=slot(1), completed=1)
    for job in (over, RUNNING, evolve(RUNNING, next_us=None), BETWEEN):
        edited = job_of(edit(job, slot(0) - SECOND_US, policy=Policy(starts_us=T0 - HOUR_US)))
        assert edited.next_us == slot(1)


def test_resume_from_now_by_a_slow_clock_does_not_bring_an_occurrence_again() -> None:
    """The new anchor may lie one period before what was taken by another clock."""
    often = Interval(period_us=30 * SECOND_US, anchor_us=T0)
    paused = evolve(RUNNING, schedule=often, next_us=T0 + 30 * SECOND_US, state=JobState.PAUSED)
    assert job_of(resume(paused, T0 - 30 * SECOND_US, from_now=True)).next_us == T0 + 30 * SECOND_US


@pytest.mark.parametrize("times", [-1, True, "3", 1.0])
def test_limit_that_is_no_number_is_refused(times: Any) -> None:
    """In an edit as for a new job."""
    with pytest.raises(ScheduleError, match="times"):
        Changes(times=times)
    with pytest.raises(ScheduleError, match="times"):
        job_changes.new_job("job", HOURLY, now_us=T0, times=times)


# --- creation and removal -----------------------------------------------------------------------


def test_new_job_begins_with_the_first_occurrence_within_its_bounds() -> None:
    """Neither the present instant nor what lies before its beginning counts."""
    schedule = JOB.schedule
    assert job_changes.new_job("job", schedule, now_us=slot(0)).next_us == slot(1)
    bounded = Policy(starts_us=slot(4), ends_us=slot(4))
    assert job_changes.new_job("job", schedule, now_us=slot(0), policy=bounded).next_us == slot(4)
    with pytest.raises(ScheduleError, match="no time left"):
        job_changes.new_job("job", schedule, now_us=slot(4), policy=bounded)


def test_last_occurrence_within_the_bounds_is_the_last() -> None:
    """The claim of it leaves no next one, and the end of its run completes the job."""
    move = fire(under(Policy(ends_us=slot(1) - 1)), slot(0))
    assert job_of(move).next_us is None
    assert job_of(finish(move.job, started(move))).state is JobState.COMPLETED


def test_create_puts_the_job_into_the_store() -> None:
    """A new id takes the job as it is wanted."""
    move = job_changes.create(None, wanted=JOB, now_us=0)
    assert (move.verdict, move.job) == (Verdict.CHANGED, JOB)


def test_new_life_begins_with_the_time_of_its_creation() -> None:
    """Its revisions come after those of every earlier life, of which NAS may still be told."""
    assert job_of(job_changes.create(None, wanted=JOB, now_us=T0)).revision == T0


def test_create_of_the_same_job_again_keeps_what_is_there() -> None:
    """A creation that is asked for twice happens once, however far the job has come since."""
    move = job_changes.create(RUNNING, wanted=JOB, now_us=T0)
    assert move.verdict is Verdict.CHANGED
    assert move.job is RUNNING


@pytest.mark.parametrize(
    "wanted",
    [
        evolve(JOB, schedule=Once(at_us=T0)),
        evolve(JOB, times=3),
        evolve(JOB, policy=RETRY),
    ],
    ids=["schedule", "times", "policy"],
)
def test_create_is_refused_when_another_job_has_the_id(wanted: Job) -> None:
    """A job is not replaced by one of the same id that differs in what its owner chose."""
    move = job_changes.create(JOB, wanted=wanted, now_us=T0)
    assert move.verdict is Verdict.REFUSED
    assert move.job is JOB


def test_remove_takes_the_job_out() -> None:
    """A removal leaves nothing; a second one finds nothing."""
    assert (job_changes.remove(RUNNING).job, job_changes.remove(RUNNING).verdict) == (None, Verdict.CHANGED)
    assert (job_changes.remove(None).job, job_changes.remove(None).verdict) == (None, Verdict.GONE)


@pytest.mark.parametrize(
    "change",
    [
        pause,
        lambda job: resume(job, T0),
        lambda job: edit(job, T0, times=3),
        lambda job: run_now(job, T0),
    ],
    ids=["pause", "resume", "edit", "run now"],
)
def test_change_of_a_job_that_is_not_there_is_gone(change: Callable[[Job | None], Move]) -> None:
    """Nothing is created by a change."""
    move = change(None)
    assert (move.verdict, move.job, move.runs) == (Verdict.GONE, None, ())


# --- the owner's choices ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "choices",
    [
        {"misfire_grace_us": -1},
        {"catch_up_limit": 0},
        {"catch_up_limit": MAX_CATCH_UP + 1},
        {"attempts": 0},
        {"attempts": True},
        {"retry_delay_us": 0},
        {"retry_max_delay_us": 1.5},
        {"starts_us": T0, "ends_us": T0 - 1},
    ],
    ids=str,
)
def test_policy_that_cannot_be_meant_is_refused(choices: dict[str, Any]) -> None:
    """A number out of its range is told when it is written, not when it would matter."""
    with pytest.raises(ScheduleError):
        Policy(**choices)


# --- when to be woken ---------------------------------------------------------------------------


def test_wake_is_the_next_occurrence() -> None:
    """A job in force is woken for its next occurrence, be a run recorded or not in flight at all."""
    assert wake_at(JOB) == slot(0)
    assert wake_at(RUNNING) == slot(1)


def test_wake_is_a_whole_second() -> None:
    """NAS may keep no more; what lies between two seconds is due with the later one (incident T1)."""
    between = evolve(JOB, next_us=slot(0) + 1)
    assert wake_at(between) == slot(0) + SECOND_US
    assert fire(between, slot(0) + SECOND_US).verdict is Verdict.ACCEPTED


@pytest.mark.parametrize("job", OUT_OF_FORCE, ids=["paused", "completed"])
def test_job_out_of_force_needs_no_wake(job: Job) -> None:
    """A paused or completed job does not wake the machine."""
    assert wake_at(job) is None


def test_guard_counts_while_a_retried_run_is_in_flight() -> None:
    """Whichever comes first brings somebody back: the next occurrence, or the end of the lease."""
    assert wake_at(RETRIED) == min(GUARD_US, slot(1)) == GUARD_US
    assert wake_at(evolve(RETRIED, next_us=GUARD_US - SECOND_US)) == GUARD_US - SECOND_US
    assert wake_at(evolve(RETRIED, next_us=None)) == GUARD_US


def test_guard_counts_while_a_run_may_be_attempted_again() -> None:
    """When its process dies as it stores that the run has failed, nothing else brings the retry in time."""
    job = evolve(JOB, next_us=slot(5), runs=(RUN,), policy=Policy(attempts=2))
    assert wake_at(job) == RUN.lease_until_us + CLOCK_ALLOWANCE_US
    last = evolve(RUN, attempt=2)
    assert wake_at(evolve(job, runs=(last,))) == slot(5)


def test_guard_counts_while_something_waits_for_a_run() -> None:
    """If the run dies, somebody must come for what waits behind it, though the run is only recorded."""
    queued = evolve(QUEUED, runs=(RUN,))
    assert wake_at(queued) == GUARD_US
    assert wake_at(evolve(queued, next_us=None)) == GUARD_US


def test_guard_is_that_of_the_lease_that_ends_first() -> None:
    """Any of the runs may be the one that died."""
    runs = (run_of(0, lease_until_us=slot(7)), RUN, run_of(2, lease_until_us=slot(9)))
    policy = Policy(on_interrupt=OnInterrupt.RETRY, overlap=Overlap.ALLOW)
    assert wake_at(evolve(JOB, runs=runs, next_us=slot(5), policy=policy)) == GUARD_US


def test_what_waits_for_its_time_asks_for_a_wake() -> None:
    """Whichever comes first: the next occurrence, or the next attempt."""
    assert wake_at(BETWEEN) == slot(1)
    assert wake_at(evolve(BETWEEN, next_us=slot(5))) == FOR_RETRY.not_before_us
    assert wake_at(evolve(BETWEEN, next_us=None)) == FOR_RETRY.not_before_us


def test_what_waits_behind_something_else_asks_for_no_wake_of_its_own() -> None:
    """Its time has come already: it would be woken for at once, and again and again."""
    job = evolve(BETWEEN, next_us=None, waiting=(FOR_RETRY, waiting_for(1)))
    assert startable(job) == (FOR_RETRY,)
    assert startable(evolve(job, runs=(RUN,))) == ()
    assert startable(crowded(MAX_IN_FLIGHT, waiting_for(15))) == ()


def test_last_run_that_is_only_recorded_needs_no_wake() -> None:
    """Nothing is to be done for it before the next start."""
    assert wake_at(evolve(RUNNING, next_us=None)) is None


def test_transitions_are_functions_of_their_arguments() -> None:
    """The same job, instant and owner give the same move, and the job that went in stays as it was."""
    before: dict[str, Any] = asdict(RETRIED)
    assert fire(RETRIED, slot(1), Liveness.DEAD) == fire(RETRIED, slot(1), Liveness.DEAD)
    assert asdict(RETRIED) == before
