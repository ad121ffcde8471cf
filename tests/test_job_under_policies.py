"""Any job, under any policy, through any order of transitions: what holds after each of them.

Two processes share the store; the clock of one may be a little off. Time is virtual. NAS is as good
as it can be: whatever `wake_at` asks for is armed, and fires at that instant or later, maybe twice.
A process may die, or sleep through the leases of its runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from chronos.errors import ScheduleError
from chronos.jobs import due
from chronos.jobs.due import startable, wake_at
from chronos.jobs.instants import DAY_US, HOUR_US, MINUTE_US, SECOND_US, parse_instant, whole_second
from chronos.jobs.job import CLOCK_ALLOWANCE_US, Job, JobState, Liveness, Move, Origin, Run, Verdict
from chronos.jobs.policy import MAX_CATCH_UP, MAX_IN_FLIGHT, CatchUp, OnInterrupt, Overlap, Policy
from chronos.jobs.schedule import Cron, Interval, Once, Schedule
from chronos.protocol import job_changes, transitions
from chronos.protocol.clocks import CLOCK_MARGIN_US
from chronos.protocol.draft import Fired
from chronos.protocol.job_changes import Changes
from simulator import properties
from simulator.moments import Attempt, Start, StoreMove, attempt_of
from tests.mutants import MUTANTS, Mutant, protocol_of

T0 = parse_instant("2026-06-26T12:00:00Z")

intervals = st.builds(
    Interval,
    period_us=st.sampled_from((20 * SECOND_US, 4 * MINUTE_US, 10 * MINUTE_US, 2 * HOUR_US)),
    anchor_us=st.integers(-3, 3).map(lambda minutes: T0 + minutes * MINUTE_US),
)
schedules: st.SearchStrategy[Schedule] = st.one_of(
    intervals,
    intervals,
    st.sampled_from((Cron(expr="*/7 * * * *", tz="UTC"), Cron(expr="30 2 * * *", tz="Europe/Berlin"))),
    st.builds(Once, at_us=st.integers(1, 9).map(lambda number: T0 + number * 5 * MINUTE_US)),
)
bounds = st.none() | st.none() | st.none() | st.integers(-2, 99).map(lambda n: T0 + n * 7 * MINUTE_US)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    starts_us, ends_us = draw(bounds), draw(bounds)
    if starts_us is not None and ends_us is not None and ends_us < starts_us:
        starts_us, ends_us = ends_us, starts_us
    return Policy(
        misfire_grace_us=draw(st.sampled_from((None, None, 0, 30 * SECOND_US, HOUR_US))),
        catch_up=draw(st.sampled_from(CatchUp)),
        catch_up_limit=draw(st.sampled_from((1, 3, MAX_CATCH_UP))),
        overlap=draw(st.sampled_from(Overlap)),
        on_interrupt=draw(st.sampled_from(OnInterrupt)),
        attempts=draw(st.sampled_from((1, 2, 4))),
        retry_delay_us=draw(st.sampled_from((1, 20 * SECOND_US, 30 * MINUTE_US))),
        starts_us=starts_us,
        ends_us=ends_us,
    )


limits = st.sampled_from((None, None, None, None, 1, 2, 5))
durations = st.sampled_from(
    (0, 1, SECOND_US, 31 * SECOND_US, 2 * MINUTE_US, 5 * MINUTE_US, 11 * MINUTE_US, HOUR_US, DAY_US)
)
sides = st.integers(0, 1)


@attrs.define(eq=False)
class Process:
    """One life of a process.

    Attributes:
        name: the owner of its runs.
        error_us: how far its clock is ahead; the two are never apart by more than clocks may be.
        runs: what it has in flight.
        is_asleep: whether it renews nothing, as in a suspended machine.
    """

    name: str
    error_us: int
    runs: list[Run] = attrs.field(factory=list)
    is_asleep: bool = False


class JobUnderPolicies(RuleBasedStateMachine):
    """Every transition keeps the properties, from wherever the transitions before it have led."""

    protocol: Any = SimpleNamespace(**{**vars(job_changes), **vars(transitions), "wake_at": due.wake_at})

    def __init__(self) -> None:
        super().__init__()
        self.now_us = T0
        self.job: Job | None = None
        self.processes = [Process("0.0", 0), Process("1.0", 0)]
        self.lives = 0
        self.started: set[Attempt] = set()
        self.ended: Counter[tuple[bool, int]] = Counter()
        self.fired: list[int] = []
        self.asked: list[int] = []
        self.choices: list[Job] = []

    # --- the machinery ---

    def _clock(self, process: Process) -> int:
        return self.now_us + process.error_us

    def _liveness(self, asking: Process, *, is_known: bool) -> tuple[Liveness, ...]:
        """Return what *asking* knows; *is_known* says whether it can tell dead processes elsewhere."""

        def of(run: Run) -> Liveness:
            if run.owner == asking.name:
                return Liveness.ALIVE if run.is_among(asking.runs) else Liveness.DEAD
            is_alive = any(run.owner == process.name for process in self.processes)
            return Liveness.DEAD if is_known and not is_alive else Liveness.UNKNOWN

        return tuple(of(run) for run in (self.job.runs if self.job else ()))

    def _pass(self, until_us: int) -> None:
        """Let time pass. A process that is awake has renewed its leases all the while."""
        self.now_us = max(self.now_us, until_us)
        for process in self.processes:
            if process.is_asleep:
                continue
            for run in tuple(process.runs):
                move = self._make(self.protocol.renew(self.job, run=run, now_us=self._clock(process)))
                if move.verdict is Verdict.LOST:
                    process.runs.remove(run)

    def _make(self, move: Move, by: Process | None = None) -> Move:
        """Store what *move* says, start its runs for *by*, and look whether it may be so."""
        old, new = self.job, move.job
        assert not list(properties.violations(StoreMove(old=old, new=new, outcomes=move.outcomes)))
        if old is not None and new is not None:
            is_changed = new != old
            assert is_changed or new is old, "a move that changes nothing returns another object"
            assert new.revision == old.revision + is_changed
            claimed = tuple(run for run in new.runs if not run.is_among(old.runs))
            assert move.runs == claimed, "what is claimed is what is started"
        assert move.job is not None or not move.runs
        for outcome in move.outcomes:
            for at_us in {outcome.occurrence_us, outcome.last_occurrence_us}:
                identity = (outcome.origin is Origin.MANUAL, at_us)
                assert identity not in self.ended, f"{identity} ended twice"
                self.ended[identity] += 1
        self.job = new
        for run in move.runs:
            assert by is not None, "a run was started where nobody can start one"
            self._start(run, by)
        return move

    def _start(self, run: Run, by: Process) -> None:
        in_flight = sum(len(process.runs) for process in self.processes if not process.is_asleep)
        start = Start(job=self.job, run=run, started=self.started, in_flight=in_flight, now_us=self.now_us)
        assert not list(properties.violations(start))
        assert run.identity not in self.ended, f"{run} starts after its end"
        assert run.owner == by.name
        self.started.add(attempt_of(run))
        by.runs.append(run)

    def _fire(
        self,
        by: Process,
        fire_at_us: int,
        *,
        is_known: bool = False,
        is_sent: bool = True,
        may_start: bool = True,
    ) -> Move:
        """Deliver a fire, twice: the second delivery changes nothing."""
        first: Move | None = None
        for _ in range(2):
            before = self.job
            move = self.protocol.fire(
                before,
                fire_at_us=fire_at_us,
                now_us=self._clock(by),
                owner=by.name,
                liveness=self._liveness(by, is_known=is_known),
                fired=Fired(origin=Origin.SCHEDULE if is_sent else Origin.RECOVERY),
                may_start=may_start,
            )
            self._make(move, by)
            if first is None:
                first = move
            else:
                assert self.job is before, "a fire that is repeated changes the job again"
        assert first is not None
        return first

    def _change(self, make: Callable[[], Move], by: Process | None = None) -> Move:
        """Make a change, twice: the second one changes nothing, unless the first was not made."""
        move = self._make(make(), by)
        changed = self.job
        again = self._make(make(), by)
        assert self.job is changed, "a change that is repeated changes the job again"
        assert not again.runs
        return move

    def _held_until_us(self, by: Process, *, is_known: bool) -> list[int]:
        """Return the guards of the runs that *by* must believe to be alive elsewhere."""
        assert self.job is not None
        knowledge = zip(self.job.runs, self._liveness(by, is_known=is_known), strict=True)
        guards = (
            run.lease_until_us + CLOCK_ALLOWANCE_US for run, known in knowledge if known is Liveness.UNKNOWN
        )
        return [guard_us for guard_us in guards if self._clock(by) < guard_us]

    # --- the rules ---

    @initialize(
        schedule=schedules,
        times=limits,
        policy=policies(),
        errors_s=st.sampled_from(((0, 0), (0, 0), (0, -20), (9, -20), (25, 0))),
    )
    def begin(self, schedule: Schedule, times: int | None, policy: Policy, errors_s: tuple[int, int]) -> None:
        for process, error_s in zip(self.processes, errors_s, strict=True):
            process.error_us = error_s * SECOND_US
        self._create(schedule, times, policy)

    def _create(self, schedule: Schedule, times: int | None, policy: Policy) -> None:
        try:
            wanted = self.protocol.new_job("job", schedule, now_us=self.now_us, times=times, policy=policy)
        except ScheduleError:
            return
        self.started.clear()
        self.ended.clear()
        self._change(lambda: self.protocol.create(self.job, wanted=wanted, now_us=self.now_us))
        self.choices = [wanted]

    @precondition(lambda self: self.job is None)
    @rule(schedule=schedules, times=limits, policy=policies())
    def create(self, schedule: Schedule, times: int | None, policy: Policy) -> None:
        for process in self.processes:
            process.runs.clear()  # those of an earlier life end as lost
        self._create(schedule, times, policy)

    @rule(passing_us=durations)
    def wait(self, passing_us: int) -> None:
        self._pass(self.now_us + passing_us)

    @precondition(lambda self: self.job is not None and wake_at(self.job) is not None)
    @rule(side=sides, late_us=st.sampled_from((0, SECOND_US, 40 * SECOND_US)))
    def deliver_in_time(self, side: int, late_us: int) -> None:
        self.deliver(side, late_us, is_known=True)

    @precondition(lambda self: self.job is not None and wake_at(self.job) is not None)
    @rule(side=sides, late_us=durations, is_known=st.booleans())
    def deliver_late(self, side: int, late_us: int, is_known: bool) -> None:
        self.deliver(side, late_us, is_known=is_known)

    def deliver(self, side: int, late_us: int, *, is_known: bool) -> None:
        """Fire what is armed; the wake that is asked for then lies beyond, or the fire is repeated."""
        assert self.job is not None
        fire_at_us = self.protocol.wake_at(self.job)
        if fire_at_us is None:
            return
        self.processes[side].is_asleep = False
        self._pass(max(self.now_us, fire_at_us) + late_us)
        if self.job is None or self.protocol.wake_at(self.job) != fire_at_us:
            return  # a renewal has moved the guard on
        by = self.processes[side]
        self._fire(by, fire_at_us, is_known=is_known)
        self.fired.append(fire_at_us)
        assert self.job is not None
        wake_us = self.protocol.wake_at(self.job)
        is_held = wake_us in self._held_until_us(by, is_known=is_known)
        assert wake_us is None or wake_us > fire_at_us or is_held, "the fire would come for ever"

    @precondition(lambda self: self.fired)
    @rule(side=sides, number=st.integers(0, 9))
    def deliver_again(self, side: int, number: int) -> None:
        """Deliver an old fire once more: it may find something else to do, and takes nothing twice."""
        self._fire(self._awake(side), self.fired[-1 - number % len(self.fired)])

    @rule(side=sides, may_start=st.booleans(), is_known=st.booleans())
    def recover(self, side: int, may_start: bool, is_known: bool) -> None:
        by = self._awake(side)
        overdue_us = self._clock(by) - CLOCK_MARGIN_US
        self._fire(by, overdue_us, is_known=is_known, is_sent=False, may_start=may_start)

    @precondition(lambda self: any(process.runs for process in self.processes))
    @rule(number=st.integers(0, 99), succeeded=st.booleans(), may_start=st.sampled_from((True, True, False)))
    def finish(self, number: int, succeeded: bool, may_start: bool) -> None:
        runs = [(process, run) for process in self.processes for run in process.runs]
        by, run = runs[number % len(runs)]
        self._finish(by, run, succeeded=succeeded, may_start=may_start)

    def _finish(self, by: Process, run: Run, *, succeeded: bool, may_start: bool) -> None:
        by.runs.remove(run)
        # A process that slept has not renewed this one: it may have been taken from it.
        by.is_asleep = False
        self._pass(self.now_us)
        for is_again in (False, True):
            move = self.protocol.finish(
                self.job, run=run, succeeded=succeeded, detail="", now_us=self._clock(by), may_start=may_start
            )
            self._make(move, by)
            assert not is_again or move.verdict is Verdict.LOST

    @rule(side=sides)
    def die(self, side: int) -> None:
        self.lives += 1
        self.processes[side] = Process(f"{side}.{self.lives}", self.processes[side].error_us)

    @rule(side=sides, for_us=durations)
    def sleep(self, side: int, for_us: int) -> None:
        """Suspend a process until it is woken; while it sleeps, its leases may end."""
        self.processes[side].is_asleep = True
        self._pass(self.now_us + for_us)

    def _awake(self, side: int) -> Process:
        """Return a process that is awake: it has found out which of its runs were taken from it."""
        self.processes[side].is_asleep = False
        self._pass(self.now_us)
        return self.processes[side]

    @rule(side=sides, asked_us=st.sampled_from((0, 0, -SECOND_US, 25 * SECOND_US)), is_old=st.booleans())
    def run_now(self, side: int, asked_us: int, is_old: bool) -> None:
        by = self._awake(side)
        identity = self.asked[-1] if is_old and self.asked else self.now_us + asked_us
        self.asked.append(identity)

        def make() -> Move:
            move: Move = self.protocol.run_now(
                self.job,
                asked_us=identity,
                now_us=self._clock(by),
                owner=by.name,
                liveness=self._liveness(by, is_known=False),
            )
            return move

        if self._change(make, by).verdict is Verdict.ACCEPTED:
            assert self.job is not None
            assert self.job.last_manual_us == identity

    @precondition(lambda self: self.job is not None and self.job.state is not JobState.PAUSED)
    @rule(side=sides, note=st.sampled_from(("", "why")), is_meant=st.sampled_from((False, False, True)))
    def pause(self, side: int, note: str, is_meant: bool) -> None:
        if not is_meant:
            return
        now_us = self._clock(self.processes[side])
        self._change(lambda: self.protocol.pause(self.job, note=note, now_us=now_us))

    @precondition(lambda self: self.job is not None and self.job.state is JobState.PAUSED)
    @rule(side=sides, note=st.sampled_from(("", "why")))
    def pause_again(self, side: int, note: str) -> None:
        self.pause(side, note, is_meant=True)

    @rule(side=sides, from_now=st.booleans())
    def resume(self, side: int, from_now: bool) -> None:
        now_us = self._clock(self.processes[side])
        self._change(lambda: self.protocol.resume(self.job, from_now=from_now, now_us=now_us))

    @precondition(lambda self: self.job is not None)
    @rule(
        schedule=st.none() | st.none() | schedules,
        times=st.none() | st.sampled_from((0, 1, 2, 5)),
        policy=st.none() | policies(),
    )
    def edit(self, schedule: Schedule | None, times: int | None, policy: Policy | None) -> None:
        changes = Changes(schedule=schedule, times=times, policy=policy)
        move = self._change(lambda: self.protocol.edit(self.job, changes=changes, now_us=self.now_us))
        assert self.job is not None
        self.choices.append(self.job)
        assert move.verdict is not Verdict.REFUSED or not move.outcomes

    @precondition(lambda self: self.job is not None and self.lives % 4 == 3)
    @rule()
    def remove(self) -> None:
        self._change(lambda: self.protocol.remove(self.job))

    # --- what always holds ---

    @invariant()
    def job_is_over_exactly_when_nothing_is_left(self) -> None:
        if self.job is None:
            return
        job = self.job
        is_over = job.next_us is None and not job.runs and not job.waiting
        assert not is_over or job.state is JobState.COMPLETED
        if job.state is JobState.COMPLETED:
            assert job.next_us is None
            assert all(run.origin is Origin.MANUAL for run in job.runs)

    @invariant()
    def nothing_waits_where_nobody_would_be_woken(self) -> None:
        if self.job is None:
            return
        wake_us = self.protocol.wake_at(self.job)
        if self.job.state is not JobState.SCHEDULED:
            assert wake_us is None
            assert not self.job.waiting
        elif self.job.next_us is not None or self.job.waiting:
            assert wake_us is not None

    @invariant()
    def wake_comes_in_time(self) -> None:
        if self.job is None or self.job.state is not JobState.SCHEDULED:
            return
        wanted = [waiting.not_before_us for waiting in startable(self.job)]
        if self.job.waiting and self.job.runs:
            wanted.append(min(run.lease_until_us for run in self.job.runs) + CLOCK_ALLOWANCE_US)
        if self.job.next_us is not None:
            wanted.append(self.job.next_us)
        wake_us = self.protocol.wake_at(self.job)
        assert not wanted or (wake_us is not None and wake_us <= whole_second(min(wanted)))

    @invariant()
    def record_stays_small(self) -> None:
        if self.job is None:
            return
        assert len(self.job.runs) <= MAX_IN_FLIGHT
        assert len(self.job.waiting) <= MAX_IN_FLIGHT + MAX_CATCH_UP
        # How much may wait is decided by every policy that the job has had.
        had = [each.policy for each in self.choices]
        if any(policy.overlap is Overlap.ALLOW or policy.catch_up is CatchUp.ALL for policy in had):
            return
        begun = [waiting for waiting in self.job.waiting if waiting.attempt > 1]
        assert len(self.job.runs) + len(begun) <= 1
        is_queueing = any(policy.overlap is Overlap.QUEUE for policy in had)
        assert len(self.job.waiting) - len(begun) <= is_queueing
        assert len(self.job.runs) + len(self.job.waiting) <= 1 + is_queueing

    # --- left alone, everything that was accepted ends ---

    def teardown(self) -> None:
        if self.job is None:
            return
        for process in self.processes:
            process.is_asleep = False
        self._pass(self.now_us)
        by = self.processes[0]
        self._fire(by, self._clock(by) - CLOCK_MARGIN_US, is_known=True, is_sent=False)
        accepted = {each.identity for each in (*self.job.runs, *self.job.waiting)}
        # Each of them takes a start and an end, and so may each occurrence that comes in between.
        for _ in range(4 * len(accepted) + 20):
            if not accepted - set(self.ended):
                break
            self._settle_something()
        assert not accepted - set(self.ended), f"{self.job} has not ended what it accepted"
        assert all(self.ended[identity] == 1 for identity in accepted)

    def _settle_something(self) -> None:
        """End a run in flight, or wake for what waits."""
        assert self.job is not None
        for process in self.processes:
            for run in process.runs:
                self._pass(self.now_us + SECOND_US)
                if run in process.runs:
                    self._finish(process, run, succeeded=True, may_start=True)
                return
        wake_us = self.protocol.wake_at(self.job)
        assert wake_us is not None, f"{self.job} waits for something, and nobody would be woken"
        # The occurrences that come before a retry are fired late, and together.
        times_us = (waiting.not_before_us for waiting in startable(self.job))
        self._pass(max(self.now_us, wake_us, *times_us) + SECOND_US)
        self._fire(self.processes[0], wake_us, is_known=True)


TestJobUnderPolicies = JobUnderPolicies.TestCase
TestJobUnderPolicies.settings = settings(stateful_step_count=40)

# Every mutant is found by the same histories each time.
SEARCH = settings(
    max_examples=1000,
    stateful_step_count=40,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize(
    "mutant", [pytest.param(each, id=each.name) for each in MUTANTS if each.is_found_by_machine]
)
def test_broken_protocol_is_found_out(mutant: Mutant) -> None:
    """Each deliberate mistake breaks something that must always hold."""
    broken = SimpleNamespace(**protocol_of(mutant))
    machine = type("BrokenJobUnderPolicies", (JobUnderPolicies,), {"protocol": broken})
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=SEARCH)
