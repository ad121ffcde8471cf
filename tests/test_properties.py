"""Each property, decided for an example that keeps it and for examples that violate it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chronos.jobs.instants import HOUR_US, MINUTE_US, SECOND_US, parse_instant
from chronos.jobs.job import LEASE_US, Job, JobState, Origin, Outcome, Result, Run, Verdict, Waiting
from chronos.jobs.policy import MAX_IN_FLIGHT, Overlap, Policy
from chronos.jobs.schedule import Interval, Once
from chronos.protocol.clocks import CLOCK_MARGIN_US
from chronos.protocol.flow_effects import Answer
from chronos.protocol.follow_ups import recovery
from chronos.protocol.intents import Finish, Fire, Intent, Pause, Renew
from chronos.values import evolve
from simulator import properties
from simulator.moments import (
    AtRest,
    Attempt,
    LeftOpen,
    Settled,
    Start,
    Stop,
    StoreMove,
    attempt_of,
    is_left_open,
)

T0 = parse_instant("2026-06-26T12:00:00Z")
ALLOW = Policy(overlap=Overlap.ALLOW)


def slot(number: int) -> int:
    return T0 + number * HOUR_US


def run_of(number: int = 0, **changes: Any) -> Run:
    run = Run(
        occurrence_us=slot(number),
        attempt=1,
        owner="me",
        claimed_us=slot(number),
        lease_until_us=slot(number) + LEASE_US,
    )
    return evolve(run, **changes)


def waiting_for(number: int = 0, **changes: Any) -> Waiting:
    waiting = Waiting(
        occurrence_us=slot(number), attempt=1, not_before_us=slot(number), origin=Origin.SCHEDULE
    )
    return evolve(waiting, **changes)


def ended(number: int = 0, last: int | None = None, **changes: Any) -> Outcome:
    last = number if last is None else last
    outcome = Outcome(
        job_id="job",
        result=Result.MISSED,
        reason="",
        occurrence_us=slot(number),
        last_occurrence_us=slot(last),
        count=last - number + 1,
        at_us=slot(last),
    )
    return evolve(outcome, **changes)


JOB = Job(id="job", schedule=Interval(period_us=HOUR_US, anchor_us=T0), next_us=slot(0))
PAUSED = evolve(JOB, state=JobState.PAUSED)
COMPLETED = evolve(JOB, state=JobState.COMPLETED, next_us=None)
RUNNING = evolve(JOB, next_us=slot(1), runs=(run_of(),))
MANUAL = run_of(0, occurrence_us=T0 - MINUTE_US, origin=Origin.MANUAL)


def lost_rearm(job: Job | None, armed_us: int | None) -> str | None:
    return properties.NO_LOST_REARM.violation(AtRest(job=job, armed_us=armed_us))


def orphan(job: Job | None, armed_us: int | None, *, acknowledged: bool) -> str | None:
    rest = AtRest(job=job, armed_us=armed_us, acknowledged=acknowledged)
    return properties.NO_ORPHAN.violation(rest)


def several_arms(count: int) -> str | None:
    return properties.ONE_ARM.violation(AtRest(job=JOB, armed_us=slot(0), arms=count))


def start_of(run: Run, **changes: Any) -> Start:
    start = Start(job=JOB, run=run, started=(), in_flight=0, now_us=run.occurrence_us)
    return evolve(start, **changes)


def started_again(run: Run, started: set[Attempt]) -> str | None:
    return properties.IDEMPOTENT_DEDUP.violation(start_of(run, started=started))


def overlaps(job: Job | None, in_flight: int) -> str | None:
    return properties.NO_OVERLAP.violation(start_of(run_of(), job=job, in_flight=in_flight))


def undurable(job: Job | None, run: Run) -> str | None:
    return properties.DURABLE_CLAIM.violation(start_of(run, job=job))


def early(run: Run, now_us: int) -> str | None:
    return properties.NOT_EARLY.violation(start_of(run, now_us=now_us))


def unclaimable(old: Job | None, new: Job | None) -> str | None:
    return properties.DURABLE_CLAIM.violation(StoreMove(old=old, new=new, outcomes=()))


def repeats_too_often(new: Job | None) -> str | None:
    return properties.REPEAT_LIMIT.violation(StoreMove(old=JOB, new=new, outcomes=()))


def unaccounted(old: Job | None, new: Job | None, outcomes: tuple[Outcome, ...]) -> str | None:
    return properties.ONE_OUTCOME.violation(StoreMove(old=old, new=new, outcomes=outcomes))


def diverges(job: Job | None, armed_us: int | None) -> str | None:
    return properties.CONVERGES.violation(Settled(job=job, armed_us=armed_us, now_us=T0))


def unended(job: Job | None, now_us: int) -> str | None:
    return properties.EVERY_OCCURRENCE.violation(Settled(job=job, armed_us=None, now_us=now_us))


def test_properties_are_told_apart_by_their_ids() -> None:
    """A report names a property by its id, and a reader finds its sentence."""
    assert len({each.id for each in properties.PROPERTIES}) == len(properties.PROPERTIES)
    assert all(each.statement.endswith(".") for each in properties.PROPERTIES)
    assert all(each.conditions for each in properties.PROPERTIES)


def test_moment_asks_for_every_property_that_is_decided_then() -> None:
    """One that is added to the list is watched, searched and tested with the others."""
    rest = AtRest(job=PAUSED, armed_us=slot(0), acknowledged=True, arms=2)
    found = [violated for violated, _ in properties.violations(rest)]
    assert found == [properties.NO_ORPHAN, properties.ONE_ARM]
    assert list(properties.violations(AtRest(job=JOB, armed_us=slot(0)))) == []


def test_misspelt_property_or_moment_is_an_error() -> None:
    """It does not quietly hold."""
    with pytest.raises(KeyError):
        properties.NO_ORPHAN.violation(StoreMove(old=JOB, new=JOB, outcomes=()))
    with pytest.raises(KeyError):
        list(properties.violations("at rest"))  # type: ignore[arg-type]


# --- when a machine stops -----------------------------------------------------------------------


@pytest.mark.parametrize(("requests", "runs"), [(1, 0), (0, 1), (2, 3)])
def test_machine_stops_only_with_everything_settled(requests: int, runs: int) -> None:
    """Neither a request on which somebody relies nor a run may be cut off."""
    safe_sleep = properties.SAFE_SLEEP
    assert safe_sleep.violation(Stop(who="the machine", requests=0, runs=0)) is None
    assert safe_sleep.violation(Stop(who="the machine", requests=requests, runs=runs)) is not None


# --- when a flow has left something to do -------------------------------------------------------

STORED = Answer(job_id="j", verdict=Verdict.ACCEPTED, reason="", settled=False)
NOT_STORED = evolve(STORED, verdict=None)
SETTLED = evolve(STORED, settled=True)
RUN_OF_J = Run(occurrence_us=slot(0), attempt=1, owner="me", claimed_us=slot(0), lease_until_us=slot(1))
FIRE = Fire(job_id="j", fire_at_us=slot(0))


@pytest.mark.parametrize(
    ("intent", "answer", "expected"),
    [
        (Finish(job_id="j", run=RUN_OF_J, succeeded=True), NOT_STORED, True),
        (Finish(job_id="j", run=RUN_OF_J, succeeded=True), STORED, True),
        (recovery("j", slot(0)), NOT_STORED, True),
        (Pause(job_id="j"), STORED, True),
        (Pause(job_id="j"), NOT_STORED, False),  # its author was told so
        (FIRE, STORED, False),  # NAS delivers it again
        (Renew(job_id="j", run=RUN_OF_J), NOT_STORED, False),  # the next one is not far
        (Pause(job_id="j"), SETTLED, False),
    ],
)
def test_what_nobody_repeats_is_left_open(intent: Intent, answer: Answer, expected: bool) -> None:
    """The end of a run, a recovery, and whatever was stored and not accepted."""
    assert is_left_open(intent, answer) is expected


@pytest.mark.parametrize("is_tried", [True, False])
def test_what_is_left_open_is_tried_again(is_tried: bool) -> None:
    """By the process whose flow it was."""
    reason = properties.FOLLOWED_UP.violation(LeftOpen(intent=Pause(job_id="j"), is_tried=is_tried))
    assert (reason is None) is is_tried


# --- at rest ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "armed_us"),
    [(JOB, slot(0)), (JOB, slot(0) - 1), (None, None), (PAUSED, None), (COMPLETED, None)],
)
def test_arm_in_time_loses_no_wake(job: Job | None, armed_us: int | None) -> None:
    """An arm at or before the instant brings somebody; without a wish there is nothing to lose."""
    assert lost_rearm(job, armed_us) is None


@pytest.mark.parametrize(
    ("job", "armed_us"),
    [(JOB, None), (JOB, slot(0) + 1), (evolve(JOB, next_us=None, waiting=(waiting_for(),)), None)],
)
def test_missing_or_late_arm_is_a_lost_rearm(job: Job, armed_us: int | None) -> None:
    """Nobody would come back in time, also for what only waits."""
    assert lost_rearm(job, armed_us) is not None


@pytest.mark.parametrize(
    ("job", "armed_us", "acknowledged"),
    [(JOB, slot(0), True), (None, None, True), (PAUSED, None, True), (PAUSED, slot(0), False)],
)
def test_arm_that_is_wanted_or_not_yet_acknowledged_is_no_orphan(
    job: Job | None, armed_us: int | None, acknowledged: bool
) -> None:
    """Whoever was not answered asks again."""
    assert orphan(job, armed_us, acknowledged=acknowledged) is None


@pytest.mark.parametrize("job", [None, PAUSED, COMPLETED])
def test_arm_that_nobody_wants_is_an_orphan(job: Job | None) -> None:
    """It was acknowledged that the job needs no wake, and something will wake the machine."""
    assert orphan(job, slot(0), acknowledged=True) is not None


def test_two_one_shots_are_one_too_many() -> None:
    """None or one is what there may be."""
    assert [several_arms(count) is None for count in range(3)] == [True, True, False]


# --- when a run starts --------------------------------------------------------------------------


def test_attempts_start_once_and_in_their_order() -> None:
    """The next attempt, and a manual run of the same instant, are others."""
    started = {attempt_of(run_of())}
    assert started_again(run_of(attempt=2), started) is None
    assert started_again(run_of(origin=Origin.MANUAL), started) is None
    assert started_again(run_of(owner="other"), started) is not None
    later = {attempt_of(run_of(attempt=2))}
    assert started_again(run_of(), later) is not None


@pytest.mark.parametrize(
    ("job", "in_flight"), [(JOB, 0), (None, 0), (evolve(JOB, policy=ALLOW), MAX_IN_FLIGHT - 1)]
)
def test_run_within_its_bound_does_not_overlap(job: Job | None, in_flight: int) -> None:
    """Alone, or among as many as may overlap."""
    assert overlaps(job, in_flight) is None


@pytest.mark.parametrize(
    ("job", "in_flight"), [(JOB, 1), (None, 1), (evolve(JOB, policy=ALLOW), MAX_IN_FLIGHT)]
)
def test_run_beyond_its_bound_overlaps(job: Job | None, in_flight: int) -> None:
    """A second one, or one more than there may be."""
    assert overlaps(job, in_flight) is not None


def test_run_starts_only_with_its_claim() -> None:
    """The store holds it, however often it was renewed; a job that is gone is nobody's matter."""
    assert undurable(RUNNING, run_of(lease_until_us=slot(5))) is None
    assert undurable(None, run_of()) is None
    for run in (run_of(attempt=2), run_of(owner="other"), run_of(1), run_of(origin=Origin.MANUAL)):
        assert undurable(RUNNING, run) is not None


def test_run_starts_at_its_time_or_later() -> None:
    """A run by hand has no time."""
    assert early(run_of(), slot(0)) is None
    assert early(run_of(), slot(0) - 1) is not None
    assert early(run_of(origin=Origin.MANUAL), slot(0) - 1) is None


def test_process_that_fires_its_jobs_itself_is_early_by_no_more_than_clocks_may_differ() -> None:
    """It has no other clock than its machine's."""
    latest = start_of(run_of(), now_us=slot(0) - CLOCK_MARGIN_US, by_own_clock=True)
    assert properties.NOT_EARLY.violation(latest) is None
    too_early = evolve(latest, now_us=latest.now_us - 1)
    assert properties.NOT_EARLY.violation(too_early) is not None


# --- when the store moves -----------------------------------------------------------------------


def test_schedule_that_is_out_of_force_claims_nothing() -> None:
    """What was in flight goes on, and a run by hand may begin."""
    paused = evolve(RUNNING, state=JobState.PAUSED)
    assert unclaimable(JOB, RUNNING) is None
    assert unclaimable(paused, paused) is None
    assert unclaimable(PAUSED, evolve(PAUSED, runs=(MANUAL,))) is None
    assert unclaimable(None, RUNNING) is None
    again = evolve(paused, runs=(run_of(attempt=2),))
    for old, new in ((PAUSED, RUNNING), (COMPLETED, RUNNING), (paused, again)):
        assert unclaimable(old, new) is not None


def test_limit_counts_what_has_begun() -> None:
    """What has ended, what is in flight and what waits for another attempt; nothing by hand."""
    between = waiting_for(1, attempt=2)
    by_hand = evolve(between, occurrence_us=T0 - MINUTE_US, origin=Origin.MANUAL)
    full = evolve(RUNNING, times=3, completed=1, waiting=(between, by_hand, waiting_for(2)))
    assert repeats_too_often(evolve(full, runs=(run_of(), MANUAL))) is None
    assert repeats_too_often(evolve(full, times=None, completed=99)) is None
    assert repeats_too_often(None) is None
    for changes in ({"completed": 2}, {"runs": (run_of(), run_of(2))}, {"waiting": (between, between)}):
        assert repeats_too_often(evolve(full, **changes)) is not None


Moved = tuple[Job | None, Job | None, tuple[Outcome, ...]]

ACCOUNTED: dict[str, Moved] = {
    "nothing happens": (JOB, JOB, ()),
    "created": (None, JOB, ()),
    "removed": (RUNNING, None, ()),
    "claimed": (JOB, RUNNING, ()),
    "renewed": (RUNNING, evolve(RUNNING, runs=(run_of(lease_until_us=slot(1)),)), ()),
    "missed": (JOB, evolve(JOB, next_us=slot(1)), (ended(),)),
    "a stretch is missed, then one is claimed": (
        JOB,
        evolve(JOB, next_us=slot(4), runs=(run_of(3),)),
        (ended(0, 2),),
    ),
    "taken to wait": (JOB, evolve(JOB, next_us=slot(1), waiting=(waiting_for(),)), ()),
    "waited, in flight": (evolve(RUNNING, runs=(), waiting=(waiting_for(),)), RUNNING, ()),
    "ended": (RUNNING, evolve(RUNNING, runs=()), (ended(),)),
    "to be retried": (RUNNING, evolve(RUNNING, runs=(), waiting=(waiting_for(attempt=2),)), ()),
    "started again": (RUNNING, evolve(RUNNING, runs=(run_of(attempt=2),)), ()),
    "by hand": (JOB, evolve(JOB, runs=(MANUAL,), last_manual_us=MANUAL.occurrence_us), ()),
    "by hand beside the slot": (
        RUNNING,
        evolve(RUNNING, runs=(run_of(), run_of(origin=Origin.MANUAL)), last_manual_us=slot(0)),
        (),
    ),
    "paused": (JOB, PAUSED, ()),
    "resumed later": (PAUSED, evolve(JOB, next_us=slot(7)), ()),
    "the last one of its limit": (
        evolve(JOB, times=1),
        evolve(RUNNING, times=1, next_us=None),
        (),
    ),
    "edited": (JOB, evolve(JOB, schedule=Once(at_us=slot(5)), next_us=slot(5)), ()),
    "edited when due": (JOB, evolve(JOB, times=5, next_us=slot(1)), (ended(),)),
    "a one-shot is claimed": (
        evolve(JOB, schedule=Once(at_us=slot(0))),
        evolve(RUNNING, schedule=Once(at_us=slot(0)), next_us=None),
        (),
    ),
}

UNACCOUNTED: dict[str, Moved] = {
    "passed without a trace": (JOB, evolve(JOB, next_us=slot(1)), ()),
    "passed without a trace before a claim": (
        JOB,
        evolve(JOB, next_us=slot(2), runs=(run_of(1),)),
        (),
    ),
    "claimed and left ahead": (JOB, evolve(RUNNING, next_us=slot(0)), ()),
    "claimed and missed": (JOB, RUNNING, (ended(),)),
    "claimed, no occurrence": (JOB, evolve(RUNNING, runs=(run_of(0, occurrence_us=T0 + 1),)), ()),
    "a stretch counts too few": (JOB, evolve(JOB, next_us=slot(3)), (ended(0, 2, count=2),)),
    "a stretch counts too many": (JOB, evolve(JOB, next_us=slot(3)), (ended(0, 2, count=4),)),
    "counted from the clock": (JOB, evolve(RUNNING, next_us=slot(1) + SECOND_US), ()),
    "the run is lost": (RUNNING, evolve(RUNNING, runs=()), ()),
    "the run ends and goes on": (RUNNING, RUNNING, (ended(),)),
    "the run ends twice": (RUNNING, evolve(RUNNING, runs=()), (ended(), ended())),
    "the run ends and is to be retried": (
        RUNNING,
        evolve(RUNNING, runs=(), waiting=(waiting_for(attempt=2),)),
        (ended(),),
    ),
    "an earlier attempt": (
        evolve(RUNNING, runs=(run_of(attempt=2),)),
        evolve(RUNNING, runs=(), waiting=(waiting_for(),)),
        (),
    ),
    "the same attempt again": (RUNNING, evolve(RUNNING, runs=(), waiting=(waiting_for(),)), ()),
    "the same attempt of another process": (
        RUNNING,
        evolve(RUNNING, runs=(run_of(owner="other"),)),
        (),
    ),
    "in flight and waiting": (JOB, evolve(RUNNING, waiting=(waiting_for(),)), ()),
    "what waits is lost": (
        evolve(RUNNING, runs=(), waiting=(waiting_for(),)),
        evolve(RUNNING, runs=()),
        (),
    ),
    "nobody asked for the run by hand": (JOB, evolve(JOB, runs=(MANUAL,)), ()),
    "the run by hand takes the slot": (
        JOB,
        evolve(JOB, runs=(MANUAL,), last_manual_us=MANUAL.occurrence_us, next_us=slot(1)),
        (),
    ),
    "the run by hand ends the slot's": (
        evolve(RUNNING, runs=(run_of(), run_of(origin=Origin.MANUAL))),
        RUNNING,
        (ended(),),
    ),
    "the schedule stops without a reason": (JOB, evolve(RUNNING, next_us=None), ()),
    "the schedule stops before its limit": (
        evolve(JOB, times=2),
        evolve(RUNNING, times=2, next_us=None),
        (),
    ),
    "paused when due": (JOB, evolve(PAUSED, next_us=slot(1)), ()),
    "the run of a paused job is lost": (evolve(RUNNING, state=JobState.PAUSED), PAUSED, ()),
}


@pytest.mark.parametrize("moved", [pytest.param(moved, id=name) for name, moved in ACCOUNTED.items()])
def test_move_that_keeps_its_books_is_accounted_for(moved: Moved) -> None:
    """What was open is open or has ended once, and what is new comes next in the schedule."""
    assert unaccounted(*moved) is None


@pytest.mark.parametrize("moved", [pytest.param(moved, id=name) for name, moved in UNACCOUNTED.items()])
def test_move_that_loses_or_doubles_an_occurrence_is_found(moved: Moved) -> None:
    """The reason says which occurrence it is about."""
    assert unaccounted(*moved) is not None


# --- when everything has settled ----------------------------------------------------------------


def test_store_and_nas_agree_or_diverge() -> None:
    """The same instant, or neither of them any."""
    assert diverges(JOB, slot(0)) is None
    assert diverges(None, None) is None
    assert diverges(PAUSED, None) is None
    for job, armed_us in ((JOB, None), (JOB, slot(0) - 1), (None, slot(0)), (PAUSED, slot(0))):
        assert diverges(job, armed_us) is not None


@pytest.mark.parametrize(
    ("change", "is_ended"),
    [
        (lambda job: job, True),
        (lambda job: evolve(job, runs=(run_of(),)), False),
        (lambda job: evolve(job, next_us=slot(0) - 1), False),
        (lambda job: evolve(job, waiting=(waiting_for(not_before_us=slot(0) - 1),)), False),
        (lambda job: evolve(job, waiting=(waiting_for(attempt=2, not_before_us=slot(1)),)), True),
        (lambda job: evolve(job, runs=(run_of(),), state=JobState.PAUSED), True),
    ],
    ids=["ahead", "in flight", "due", "may start", "has not come", "out of force"],
)
def test_what_has_come_has_an_end_once_everything_has_settled(
    change: Callable[[Job], Job], is_ended: bool
) -> None:
    """Only what is still to come is left, of a job whose schedule is in force."""
    assert (unended(change(JOB), slot(0) - 1) is None) == is_ended
    assert unended(None, slot(0)) is None


AHEAD = evolve(JOB, next_us=slot(5))


def put_back(new: Job, now_us: int, old: Job = AHEAD, outcomes: tuple[Outcome, ...] = ()) -> str | None:
    move = StoreMove(old=old, new=new, outcomes=outcomes, now_us=now_us)
    return properties.ONE_OUTCOME.violation(move)


def test_job_that_a_clock_left_ahead_may_be_put_back() -> None:
    """To a slot after now, from which its schedule goes on; one that waits there comes again."""
    assert put_back(evolve(AHEAD, next_us=slot(2)), slot(1) + 1) is None
    assert put_back(evolve(AHEAD, next_us=slot(3), runs=(run_of(2),)), slot(2)) is None
    waiting = Waiting(occurrence_us=slot(3), attempt=1, not_before_us=slot(3), origin=Origin.SCHEDULE)
    assert put_back(evolve(AHEAD, next_us=slot(2)), slot(1) + 1, evolve(AHEAD, waiting=(waiting,))) is None


def test_job_goes_back_no_further_and_only_where_a_clock_left_it_ahead() -> None:
    """Else an occurrence runs that had its outcome."""
    assert put_back(evolve(AHEAD, next_us=slot(2)), slot(4) + 1)  # it is not ahead
    assert put_back(evolve(AHEAD, next_us=slot(1)), slot(1) + 2 * MINUTE_US)  # what has come is not ahead
    assert put_back(evolve(AHEAD, next_us=slot(2) + 1), slot(1) + 1)  # no slot of it
    assert put_back(evolve(AHEAD, next_us=slot(4), runs=(run_of(2),)), slot(2))  # and slot 3?
    tried = Waiting(occurrence_us=slot(3), attempt=2, not_before_us=slot(3), origin=Origin.SCHEDULE)
    assert put_back(evolve(AHEAD, next_us=slot(2)), slot(1) + 1, evolve(AHEAD, waiting=(tried,)))
    move = StoreMove(old=AHEAD, new=evolve(AHEAD, next_us=slot(2)), outcomes=())
    assert properties.ONE_OUTCOME.violation(move)  # no clock is wrong there
