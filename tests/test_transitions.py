"""Every way in which a job may change, one rule a test; then the same rules for arbitrary jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronos.protocol import transitions
from chronos.protocol.job import (
    CLOCK_ALLOWANCE_US,
    LEASE_US,
    MAX_ATTEMPTS,
    MAX_GRACE_US,
    MIN_GRACE_US,
    Job,
    JobState,
    Liveness,
    Move,
    OnInterrupt,
    Origin,
    Policy,
    Result,
    Run,
    Verdict,
    grace_us,
    wake_at,
)
from chronos.protocol.schedule import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    SECOND_US,
    Cron,
    Interval,
    Once,
    Schedule,
    next_after,
    parse_instant,
)
from simulator import properties

T0 = parse_instant("2026-06-26T12:00:00Z")
PERIOD_US = 10 * MINUTE_US
RETRY = Policy(on_interrupt=OnInterrupt.RETRY)


def slot(number: int) -> int:
    """Return the occurrence of the tests' job with this number; the first is number 0, at `T0`."""
    return T0 + number * PERIOD_US


JOB = Job(id="job", schedule=Interval(period_us=PERIOD_US, anchor_us=T0), next_us=slot(0), revision=7)
RUN = Run(
    occurrence_us=slot(0), attempt=1, owner="other", claimed_us=slot(0), lease_until_us=slot(0) + LEASE_US
)
RUNNING = attrs.evolve(JOB, next_us=slot(1), run=RUN)
RETRIED = attrs.evolve(RUNNING, policy=RETRY)
GUARD_US = RUN.lease_until_us + CLOCK_ALLOWANCE_US
ONE_SHOT = Job(id="job", schedule=Once(at_us=T0), next_us=T0)
OUT_OF_FORCE = (
    attrs.evolve(JOB, state=JobState.PAUSED),
    attrs.evolve(JOB, state=JobState.COMPLETED, next_us=None),
)


def fire(
    job: Job | None,
    fire_at_us: int,
    *,
    late_us: int = 0,
    liveness: Liveness = Liveness.UNKNOWN,
    origin: Origin = Origin.SCHEDULE,
) -> Move:
    """Fire *job* for an instant, so much later."""
    return transitions.fire(
        job, fire_at_us=fire_at_us, now_us=fire_at_us + late_us, owner="me", liveness=liveness, origin=origin
    )


def job_of(move: Move) -> Job:
    assert move.job is not None
    return move.job


def ends(move: Move) -> list[tuple[Result, int, int, int]]:
    """Return how which occurrences ended: the result, the first, the last, and how many there are."""
    return [(each.result, each.occurrence_us, each.last_occurrence_us, each.count) for each in move.outcomes]


# --- a claim ------------------------------------------------------------------------------------


def test_fire_claims_its_occurrence() -> None:
    """A fire of the next occurrence claims it for the asking process, with a lease that starts now."""
    move = fire(JOB, slot(0), late_us=SECOND_US)
    now_us = slot(0) + SECOND_US
    assert move.verdict is Verdict.ACCEPTED
    assert move.run == Run(
        occurrence_us=slot(0), attempt=1, owner="me", claimed_us=now_us, lease_until_us=now_us + LEASE_US
    )
    assert job_of(move).run == move.run
    assert not move.outcomes


def test_claim_advances_from_the_scheduled_time() -> None:
    """The next occurrence is counted from the scheduled time, however late the fire was delivered."""
    assert job_of(fire(JOB, slot(0), late_us=90 * SECOND_US)).next_us == slot(1)


def test_run_that_a_start_recovers_says_so() -> None:
    """A run that nobody fired is told apart by its origin."""
    move = fire(JOB, slot(0), origin=Origin.RECOVERY)
    assert move.run is not None
    assert move.run.origin is Origin.RECOVERY


def test_what_is_due_is_decided_by_the_fire_and_not_by_a_slow_clock() -> None:
    """A clock that still reads a time before the fire does not keep its occurrence from running."""
    move = fire(JOB, slot(0), late_us=-HOUR_US)
    assert move.run is not None
    assert job_of(move).next_us == slot(1)


def test_fire_that_comes_before_the_next_occurrence_runs_nothing() -> None:
    """An instant before the next occurrence is settled, even when the clock says that more is due."""
    move = fire(JOB, slot(0) - 1, late_us=PERIOD_US)
    assert (move.verdict, move.job, move.run) == (Verdict.DUPLICATE, JOB, None)


# --- several are due, or one is too late ------------------------------------------------------


def test_newest_of_several_due_occurrences_runs_and_older_ones_are_missed_as_one_stretch() -> None:
    """After an outage the newest occurrence runs; those before it end as missed, in one outcome."""
    move = fire(JOB, slot(0), late_us=3 * PERIOD_US + SECOND_US)
    assert move.run is not None
    assert move.run.occurrence_us == slot(3)
    assert ends(move) == [(Result.MISSED, slot(0), slot(2), 3)]
    assert job_of(move).next_us == slot(4)


def test_one_older_occurrence_is_a_stretch_of_one() -> None:
    """Of two due occurrences the older one is missed by itself."""
    assert ends(fire(JOB, slot(0), late_us=PERIOD_US)) == [(Result.MISSED, slot(0), slot(0), 1)]


def test_fire_for_a_later_instant_takes_what_is_due_by_then() -> None:
    """A fire that names a later occurrence coalesces what came before, by the schedule."""
    move = fire(JOB, slot(2))
    assert move.run is not None
    assert move.run.occurrence_us == slot(2)
    assert ends(move) == [(Result.MISSED, slot(0), slot(1), 2)]


def test_occurrence_runs_until_its_grace_is_over_and_is_missed_after() -> None:
    """The last microsecond of the grace still runs; the next one is too late."""
    daily = attrs.evolve(JOB, schedule=Interval(period_us=DAY_US, anchor_us=T0))
    assert fire(daily, slot(0), late_us=MAX_GRACE_US).verdict is Verdict.ACCEPTED
    late = fire(daily, slot(0), late_us=MAX_GRACE_US + 1)
    assert late.verdict is Verdict.MISSED
    assert late.run is None
    assert ends(late) == [(Result.MISSED, slot(0), slot(0), 1)]
    assert job_of(late).next_us == T0 + DAY_US


def test_grace_chosen_by_the_owner_takes_the_place_of_the_ordinary_one() -> None:
    """A grace of the job's own holds, be it shorter than the smallest or longer than the greatest."""
    hasty = attrs.evolve(JOB, policy=Policy(misfire_grace_us=SECOND_US))
    assert fire(hasty, slot(0), late_us=SECOND_US).verdict is Verdict.ACCEPTED
    assert fire(hasty, slot(0), late_us=SECOND_US + 1).verdict is Verdict.MISSED
    patient = attrs.evolve(ONE_SHOT, policy=Policy(misfire_grace_us=DAY_US))
    assert fire(patient, T0, late_us=DAY_US).verdict is Verdict.ACCEPTED


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
    assert ends(late) == [(Result.MISSED, T0, T0, 1)]
    assert job_of(late).state is JobState.COMPLETED
    assert wake_at(job_of(late)) is None


# --- nothing to run -----------------------------------------------------------------------------


def test_fire_during_a_run_is_skipped() -> None:
    """An occurrence that comes while a run of its job is in flight is skipped; the run goes on."""
    overlapping = attrs.evolve(RUNNING, run=attrs.evolve(RUN, lease_until_us=slot(1) + LEASE_US))
    move = fire(overlapping, slot(1))
    assert move.verdict is Verdict.SKIPPED
    assert move.run is None
    assert ends(move) == [(Result.SKIPPED, slot(1), slot(1), 1)]
    assert job_of(move).run == overlapping.run
    assert job_of(move).next_us == slot(2)


def test_duplicate_fire_is_answered_without_running() -> None:
    """The fire of an occurrence that is in flight changes nothing."""
    move = fire(RUNNING, slot(0))
    assert (move.verdict, move.job, move.run, move.outcomes) == (Verdict.DUPLICATE, RUNNING, None, ())


def test_fire_of_a_settled_occurrence_is_a_duplicate() -> None:
    """The redelivery of a fire whose run has already ended changes nothing."""
    ended = attrs.evolve(JOB, next_us=slot(1), completed=1)
    move = fire(ended, slot(0))
    assert (move.verdict, move.job, move.run) == (Verdict.DUPLICATE, ended, None)


@pytest.mark.parametrize("job", [None, *OUT_OF_FORCE], ids=["removed", "paused", "completed"])
def test_fire_of_a_job_that_wants_no_wake_is_gone(job: Job | None) -> None:
    """A removed, paused or completed job runs nothing."""
    move = fire(job, slot(0))
    assert (move.verdict, move.job, move.run, move.outcomes) == (Verdict.GONE, job, None, ())


# --- the repeat limit ---------------------------------------------------------------------------


def test_claim_of_the_last_run_leaves_no_next_occurrence() -> None:
    """A job that repeats twice is claimed twice; the second claim is the last."""
    twice = attrs.evolve(JOB, times=2)
    first = job_of(fire(twice, slot(0)))
    assert first.next_us == slot(1)
    assert first.run is not None
    between = job_of(finish(first, first.run))
    second = fire(between, slot(1))
    assert second.run is not None
    assert job_of(second).next_us is None
    assert job_of(second).state is JobState.SCHEDULED
    assert job_of(finish(job_of(second), second.run)).state is JobState.COMPLETED


def test_missed_and_skipped_occurrences_do_not_count_as_runs() -> None:
    """Only a run is consumed; what never ran leaves the limit as it was."""
    once_more = attrs.evolve(JOB, times=1)
    missed = job_of(fire(once_more, slot(0), late_us=PERIOD_US - 1))
    assert missed.next_us == slot(1)
    assert missed.completed == 0


def test_interrupted_run_counts_as_consumed() -> None:
    """A run that died was begun: it is one of the times that the job repeats."""
    last = attrs.evolve(RUNNING, next_us=None, times=1)
    move = fire(last, slot(0), liveness=Liveness.DEAD)
    assert job_of(move).completed == 1
    assert job_of(move).state is JobState.COMPLETED


# --- the end of a run ---------------------------------------------------------------------------


def finish(job: Job | None, run: Run, *, succeeded: bool = True) -> Move:
    return transitions.finish(job, run=run, succeeded=succeeded, detail="done", now_us=slot(0) + MINUTE_US)


@pytest.mark.parametrize(("succeeded", "result"), [(True, Result.COMPLETED), (False, Result.FAILED)])
def test_owner_ends_its_run(succeeded: bool, result: Result) -> None:
    """The end of a run is recorded once, and the next occurrence stays where the claim put it."""
    move = finish(RUNNING, RUN, succeeded=succeeded)
    assert move.verdict is Verdict.CHANGED
    assert ends(move) == [(result, slot(0), slot(0), 1)]
    assert move.outcomes[0].attempt == 1
    assert move.job == attrs.evolve(RUNNING, run=None, completed=1, revision=RUNNING.revision + 1)


@pytest.mark.parametrize(
    "run",
    [
        attrs.evolve(RUN, owner="me"),
        attrs.evolve(RUN, attempt=2),
        attrs.evolve(RUN, occurrence_us=slot(1)),
    ],
    ids=["another owner", "another attempt", "another occurrence"],
)
@pytest.mark.parametrize("succeeded", [True, False])
def test_only_the_owner_ends_a_run(run: Run, succeeded: bool) -> None:
    """Whoever does not hold the claim ends nothing, and learns that its run was lost."""
    move = finish(RUNNING, run, succeeded=succeeded)
    assert (move.verdict, move.job, move.outcomes) == (Verdict.LOST, RUNNING, ())


def test_end_of_a_renewed_run_is_its_owners() -> None:
    """A renewal does not make it another run: the owner ends it with the claim as it was."""
    renewed = job_of(transitions.renew(RUNNING, run=RUN, now_us=slot(0) + MINUTE_US))
    assert finish(renewed, RUN).verdict is Verdict.CHANGED


@pytest.mark.parametrize("job", [None, JOB], ids=["removed", "already ended"])
def test_end_of_a_run_that_nobody_knows_is_lost(job: Job | None) -> None:
    """The end of a run of a removed job, and a second end of the same run, change nothing."""
    move = finish(job, RUN)
    assert (move.verdict, move.job, move.outcomes) == (Verdict.LOST, job, ())


def test_owner_renews_its_lease() -> None:
    """A renewal starts the lease anew, from now."""
    now_us = slot(0) + MINUTE_US
    renewed = job_of(transitions.renew(RUNNING, run=RUN, now_us=now_us))
    assert renewed.run == attrs.evolve(RUN, lease_until_us=now_us + LEASE_US)
    assert renewed.revision == RUNNING.revision + 1


@pytest.mark.parametrize("job", [None, JOB, attrs.evolve(RUNNING, run=attrs.evolve(RUN, attempt=2))])
def test_only_the_owner_renews(job: Job | None) -> None:
    """A run that was lost cannot be renewed."""
    move = transitions.renew(job, run=RUN, now_us=slot(0))
    assert (move.verdict, move.job) == (Verdict.LOST, job)


# --- interruptions ------------------------------------------------------------------------------


def test_interrupted_run_is_recorded_and_the_next_occurrence_runs() -> None:
    """By default a run whose process died ends as interrupted; the fire that finds it goes its way."""
    move = fire(RUNNING, slot(1), liveness=Liveness.DEAD)
    assert ends(move) == [(Result.INTERRUPTED, slot(0), slot(0), 1)]
    assert move.run is not None
    assert move.run.occurrence_us == slot(1)


def test_interrupted_run_is_retried_as_the_next_attempt() -> None:
    """A job that asks for it is started again: the same occurrence, another attempt, a new owner."""
    move = fire(RETRIED, slot(0), liveness=Liveness.DEAD)
    assert move.verdict is Verdict.ACCEPTED
    assert not move.outcomes
    assert move.run is not None
    assert (move.run.occurrence_us, move.run.attempt, move.run.owner) == (slot(0), 2, "me")
    assert move.run.origin is Origin.RECOVERY
    assert move.run.lease_until_us == slot(0) + LEASE_US
    assert job_of(move).next_us == slot(1)


def test_fire_that_starts_a_run_again_skips_its_own_occurrence() -> None:
    """While the older occurrence is tried again, the newer one overlaps with it."""
    move = fire(RETRIED, slot(1), liveness=Liveness.DEAD)
    assert move.verdict is Verdict.ACCEPTED
    assert move.run is not None
    assert move.run.occurrence_us == slot(0)
    assert ends(move) == [(Result.SKIPPED, slot(1), slot(1), 1)]


def test_attempts_are_bounded() -> None:
    """A job that kills its machine is started so often and no more; the last attempt is recorded."""
    job = RETRIED
    for attempt in range(2, MAX_ATTEMPTS + 1):
        job = job_of(fire(job, slot(0), liveness=Liveness.DEAD))
        assert job.run is not None
        assert job.run.attempt == attempt
    last = fire(job, slot(0), liveness=Liveness.DEAD)
    assert last.run is None
    assert ends(last) == [(Result.INTERRUPTED, slot(0), slot(0), 1)]
    assert last.outcomes[0].attempt == MAX_ATTEMPTS


def test_interrupted_run_of_a_paused_job_is_not_retried() -> None:
    """What is out of force starts nothing again."""
    paused = attrs.evolve(RETRIED, state=JobState.PAUSED)
    move = fire(paused, slot(0), liveness=Liveness.DEAD)
    assert move.run is None
    assert ends(move) == [(Result.INTERRUPTED, slot(0), slot(0), 1)]
    assert job_of(move).state is JobState.PAUSED


def test_lease_of_an_unknown_owner_is_believed_as_long_as_clocks_may_differ() -> None:
    """Nothing is known of a process elsewhere: its run is interrupted when every clock agrees so."""
    before = fire(RETRIED, GUARD_US - 1)
    assert (before.verdict, before.job) == (Verdict.DUPLICATE, RETRIED)
    after = fire(RETRIED, GUARD_US)
    assert after.run is not None
    assert after.run.attempt == 2


def test_dead_owner_is_not_waited_for() -> None:
    """A run of an earlier life of this machine is over, whatever its lease says."""
    assert fire(RETRIED, slot(0), liveness=Liveness.DEAD).run is not None


def test_living_owner_is_not_interrupted_and_its_lease_is_renewed_when_the_guard_fires() -> None:
    """The guard of a run that is alive moves on: that fire was the arm that brings somebody back."""
    before = fire(RETRIED, GUARD_US - 1, liveness=Liveness.ALIVE)
    assert before.job == RETRIED
    move = fire(attrs.evolve(RETRIED, next_us=slot(3)), GUARD_US, liveness=Liveness.ALIVE)
    job = job_of(move)
    assert move.run is None
    assert job.run is not None
    assert job.run.is_same_as(RUN)
    assert job.run.lease_until_us == GUARD_US + LEASE_US
    assert wake_at(job) == GUARD_US + LEASE_US + CLOCK_ALLOWANCE_US


def test_renewal_by_the_guard_counts_from_the_later_of_fire_and_clock() -> None:
    """With a clock that is behind, the renewed guard still lies beyond the fire that renewed it."""
    job = job_of(
        fire(attrs.evolve(RETRIED, next_us=slot(3)), GUARD_US, late_us=-MINUTE_US, liveness=Liveness.ALIVE)
    )
    wake_us = wake_at(job)
    assert wake_us is not None
    assert wake_us > GUARD_US


# --- pause and resume ---------------------------------------------------------------------------


def test_pause_leaves_the_slot_and_the_run() -> None:
    """A pause puts the schedule out of force and nothing else."""
    paused = job_of(transitions.pause(RUNNING))
    assert paused == attrs.evolve(RUNNING, state=JobState.PAUSED, revision=RUNNING.revision + 1)


def test_job_that_was_paused_during_its_run_is_not_armed_again() -> None:
    """The end of the run leaves the job paused, and it needs no wake."""
    paused = job_of(transitions.pause(RETRIED))
    assert wake_at(paused) is None
    ended = job_of(finish(paused, RUN))
    assert ended.state is JobState.PAUSED
    assert wake_at(ended) is None


@pytest.mark.parametrize("job", OUT_OF_FORCE, ids=["paused", "completed"])
def test_pause_of_a_job_that_is_out_of_force_changes_nothing(job: Job) -> None:
    """A second pause is as good as one; a completed job stays completed."""
    assert transitions.pause(job).job == job


def test_resume_before_the_slot_keeps_it() -> None:
    """A pause that was over in time costs no occurrence."""
    paused = job_of(transitions.pause(JOB))
    resumed = transitions.resume(paused, now_us=slot(0) - 1)
    assert job_of(resumed).next_us == slot(0)
    assert job_of(resumed).state is JobState.SCHEDULED
    assert not resumed.outcomes


def test_resume_after_the_slot_goes_on_from_now() -> None:
    """What passed during the pause was nobody's: no outcome, and the schedule goes on after now."""
    paused = job_of(transitions.pause(JOB))
    resumed = transitions.resume(paused, now_us=slot(4))
    assert job_of(resumed).next_us == slot(5)
    assert not resumed.outcomes


def test_one_shot_that_passed_while_paused_is_missed() -> None:
    """A one-shot does not vanish without a trace."""
    paused = job_of(transitions.pause(ONE_SHOT))
    resumed = transitions.resume(paused, now_us=T0)
    assert ends(resumed) == [(Result.MISSED, T0, T0, 1)]
    assert job_of(resumed).state is JobState.COMPLETED


def test_resume_during_the_last_run_waits_for_its_end() -> None:
    """A job whose last run is in flight is in force until that run has ended."""
    paused = attrs.evolve(RUNNING, next_us=None, state=JobState.PAUSED)
    resumed = job_of(transitions.resume(paused, now_us=slot(4)))
    assert resumed.state is JobState.SCHEDULED
    assert resumed.run == RUN


@pytest.mark.parametrize("job", [JOB, OUT_OF_FORCE[1]], ids=["scheduled", "completed"])
def test_resume_of_a_job_that_is_not_paused_changes_nothing(job: Job) -> None:
    """Resuming is no way to skip an occurrence, nor to bring a completed job back."""
    assert transitions.resume(job, now_us=slot(9)).job == job


# --- creation and removal -----------------------------------------------------------------------


def test_create_puts_the_job_into_the_store() -> None:
    """A new id takes the job as it is wanted."""
    move = transitions.create(None, wanted=JOB)
    assert (move.verdict, move.job) == (Verdict.CHANGED, JOB)


def test_create_of_the_same_job_again_keeps_what_is_there() -> None:
    """A creation that is asked for twice happens once, however far the job has come since."""
    move = transitions.create(RUNNING, wanted=JOB)
    assert (move.verdict, move.job) == (Verdict.CHANGED, RUNNING)


@pytest.mark.parametrize(
    "wanted",
    [
        attrs.evolve(JOB, schedule=Once(at_us=T0)),
        attrs.evolve(JOB, times=3),
        attrs.evolve(JOB, policy=RETRY),
    ],
    ids=["schedule", "times", "policy"],
)
def test_create_is_refused_when_another_job_has_the_id(wanted: Job) -> None:
    """A job is not replaced by one of the same id that differs in what its owner chose."""
    move = transitions.create(JOB, wanted=wanted)
    assert (move.verdict, move.job) == (Verdict.REFUSED, JOB)


def test_remove_takes_the_job_out() -> None:
    """A removal leaves nothing; a second one finds nothing."""
    assert (transitions.remove(RUNNING).job, transitions.remove(RUNNING).verdict) == (None, Verdict.CHANGED)
    assert (transitions.remove(None).job, transitions.remove(None).verdict) == (None, Verdict.GONE)


@pytest.mark.parametrize(
    "change", [transitions.pause, lambda job: transitions.resume(job, now_us=T0)], ids=["pause", "resume"]
)
def test_change_of_a_job_that_is_not_there_is_gone(change: Callable[[Job | None], Move]) -> None:
    """Nothing is created by a change."""
    move = change(None)
    assert (move.verdict, move.job) == (Verdict.GONE, None)


# --- when to be woken ---------------------------------------------------------------------------


def test_wake_is_the_next_occurrence() -> None:
    """A job in force is woken for its next occurrence, be a run recorded or not in flight at all."""
    assert wake_at(JOB) == slot(0)
    assert wake_at(RUNNING) == slot(1)


@pytest.mark.parametrize("job", OUT_OF_FORCE, ids=["paused", "completed"])
def test_job_out_of_force_needs_no_wake(job: Job) -> None:
    """A paused or completed job does not wake the machine."""
    assert wake_at(job) is None


def test_guard_counts_while_a_retried_run_is_in_flight() -> None:
    """Whichever comes first brings somebody back: the next occurrence, or the end of the lease."""
    assert wake_at(RETRIED) == min(GUARD_US, slot(1)) == GUARD_US
    assert wake_at(attrs.evolve(RETRIED, next_us=GUARD_US - 1)) == GUARD_US - 1
    assert wake_at(attrs.evolve(RETRIED, next_us=None)) == GUARD_US


def test_last_run_that_is_only_recorded_needs_no_wake() -> None:
    """Nothing is to be done for it before the next start."""
    assert wake_at(attrs.evolve(RUNNING, next_us=None)) is None


# --- the rules for arbitrary jobs ---------------------------------------------------------------

instants = st.integers(T0 - 2 * DAY_US, T0 + 2 * DAY_US)
schedules: st.SearchStrategy[Schedule] = st.one_of(
    st.builds(Interval, period_us=st.integers(20 * SECOND_US, 2 * DAY_US), anchor_us=instants),
    st.builds(Once, at_us=instants),
    st.sampled_from(
        (
            Cron(expr="*/7 * * * *", tz="UTC"),
            Cron(expr="30 2 * * *", tz="Europe/Berlin"),
            Cron(expr="0 9 * * 1-5", tz="America/New_York"),
            Cron(expr="*/20 * * * * *", tz="UTC"),
        )
    ),
)
policies = st.builds(
    Policy,
    on_interrupt=st.sampled_from(OnInterrupt),
    misfire_grace_us=st.none() | st.integers(0, 3 * DAY_US),
)


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    """Draw a job as the protocol may leave it: its next occurrence and its run are of its schedule."""
    schedule = draw(schedules)
    times = draw(st.none() | st.integers(1, 3))
    first_us = next_after(schedule, draw(instants))
    run, next_us = None, first_us
    if first_us is not None and draw(st.booleans()):
        run = Run(
            occurrence_us=first_us,
            attempt=draw(st.integers(1, MAX_ATTEMPTS)),
            owner=draw(st.sampled_from(("me", "other"))),
            claimed_us=first_us,
            lease_until_us=first_us + draw(st.integers(0, DAY_US)),
            origin=draw(st.sampled_from(Origin)),
        )
        next_us = next_after(schedule, first_us)
    consumed = draw(st.integers(0, times - 1)) if times is not None else draw(st.integers(0, 9))
    if run is not None and times is not None and consumed + 1 >= times:
        next_us = None
    state = draw(st.sampled_from((JobState.SCHEDULED, JobState.SCHEDULED, JobState.PAUSED)))
    return Job(
        id="job",
        schedule=schedule,
        next_us=next_us,
        state=JobState.COMPLETED if run is None and next_us is None else state,
        run=run,
        times=times,
        completed=consumed,
        revision=draw(st.integers(0, 99)),
        policy=draw(policies),
    )


@st.composite
def moves(draw: st.DrawFn) -> tuple[Job, Move]:
    """Draw a job, and any transition of it at any instant, by its owner or by somebody else."""
    job = draw(jobs())
    now_us = draw(instants)
    some_run = job.run or RUN
    run = draw(st.sampled_from((some_run, attrs.evolve(some_run, attempt=some_run.attempt + 1))))
    near_next = st.integers(-MINUTE_US, DAY_US).map(lambda us: (job.next_us or now_us) + us)
    fires = {
        "fire_at_us": draw(near_next | instants | st.just(job.next_us or now_us)),
        "owner": draw(st.sampled_from(("me", "other"))),
        "liveness": draw(st.sampled_from(Liveness)),
        "origin": draw(st.sampled_from(Origin)),
    }
    choices: dict[str, Callable[[], Move]] = {
        "fire": lambda: transitions.fire(job, now_us=now_us, **fires),
        "finish": lambda: transitions.finish(job, run=run, succeeded=True, detail="", now_us=now_us),
        "renew": lambda: transitions.renew(job, run=run, now_us=now_us),
        "create": lambda: transitions.create(job, wanted=attrs.evolve(job, run=None, revision=0)),
        "pause": lambda: transitions.pause(job),
        "resume": lambda: transitions.resume(job, now_us=now_us),
    }
    kind = draw(st.sampled_from(("fire", "fire", "fire", *choices)))
    return job, choices[kind]()


@given(moves())
def test_every_occurrence_is_accounted_for_by_every_transition(moved: tuple[Job, Move]) -> None:
    """What a transition passes over is exactly what its outcomes and its claim name."""
    old, move = moved
    assert properties.unaccounted(old, move.job, move.outcomes) is None
    assert properties.unclaimable(old, move.job) is None
    assert properties.repeats_too_often(move.job) is None


@given(moves())
def test_revision_grows_by_one_with_every_change_and_with_nothing_else(moved: tuple[Job, Move]) -> None:
    """The revision orders the messages that NAS receives: each state of a job has one of its own."""
    old, move = moved
    new = job_of(move)
    changed = attrs.evolve(new, revision=old.revision) != old
    assert new.revision == old.revision + changed


@given(moves())
def test_run_to_start_is_the_one_that_the_store_shall_hold(moved: tuple[Job, Move]) -> None:
    """A run is started only with its claim, and a new claim is always to be started."""
    old, move = moved
    new = job_of(move)
    is_claimed = new.run is not None and not new.run.is_same_as(old.run)
    assert move.run == (new.run if is_claimed else None)


@given(moves())
def test_completed_jobs_have_nothing_left_and_others_have(moved: tuple[Job, Move]) -> None:
    """A job is completed exactly when neither an occurrence nor a run is left."""
    new = job_of(moved[1])
    assert (new.state is JobState.COMPLETED) == (new.next_us is None and new.run is None)


@given(moves())
def test_transition_keeps_what_the_owner_chose(moved: tuple[Job, Move]) -> None:
    """No transition changes the schedule, the limit or the policy."""
    old, new = moved[0], job_of(moved[1])
    assert (new.id, new.schedule, new.times, new.policy) == (old.id, old.schedule, old.times, old.policy)


@given(moves())
def test_nothing_that_is_not_in_force_is_woken(moved: tuple[Job, Move]) -> None:
    """`wake_at` asks for nothing out of force, and for nothing after the next occurrence."""
    job = job_of(moved[1])
    wake_us = wake_at(job)
    assert wake_us == wake_at(attrs.evolve(job))
    if job.state is not JobState.SCHEDULED:
        assert wake_us is None
    elif job.next_us is not None:
        assert wake_us is not None
        assert wake_us <= job.next_us


@given(jobs(), instants, st.sampled_from(Liveness))
def test_answered_fire_leaves_a_wake_beyond_itself(job: Job, now_us: int, liveness: Liveness) -> None:
    """After a fire of `wake_at` the next wake is later: answering it can lose nothing.

    The exception is a lease that another process holds and that is not over by this clock; the table
    of a flow does not accept that fire.
    """
    fire_at_us = wake_at(job)
    if fire_at_us is None:
        return
    move = transitions.fire(job, fire_at_us=fire_at_us, now_us=now_us, owner="me", liveness=liveness)
    wake_us = wake_at(job_of(move))
    is_held = job.run is not None and liveness is Liveness.UNKNOWN and now_us < fire_at_us
    is_slow = move.run is not None and now_us + LEASE_US + CLOCK_ALLOWANCE_US <= fire_at_us
    assert wake_us is None or wake_us > fire_at_us or is_held or is_slow


def test_transitions_are_functions_of_their_arguments() -> None:
    """The same job, instant and owner give the same move, and the job that went in stays as it was."""
    before: dict[str, Any] = attrs.asdict(RETRIED, recurse=False)
    assert fire(RETRIED, slot(1), liveness=Liveness.DEAD) == fire(RETRIED, slot(1), liveness=Liveness.DEAD)
    assert attrs.asdict(RETRIED, recurse=False) == before
