"""What is expected of a job, from its creation to its removal: a book of its occurrences.

The book knows nothing of the protocol. It is told of each move of the store and of each start of a run,
and says what must not be: the sentences are those of the documentation, and occurrences are arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Container

import attrs

from chronos.jobs.instants import SECOND_US
from chronos.jobs.job import CLOCK_ALLOWANCE_US, Job, JobState, Origin, Outcome, Result, Run
from chronos.jobs.policy import (
    MAX_ATTEMPTS,
    MAX_IN_FLIGHT,
    MAX_RETRY_DELAY_US,
    CatchUp,
    OnInterrupt,
    Overlap,
    Policy,
)
from chronos.jobs.schedule import Interval
from chronos.protocol.intents import Edit, Intent, Pause, Resume
from tests.model.plans import Grid, edited, grace_us, grid_of, rounded_up

Identity = tuple[bool, int]
"""Manual or not, and the instant."""


@attrs.define
class Open:
    """An occurrence that was taken and has no outcome.

    Attributes:
        made: how many attempts were made.
        run: the attempt in flight; None while it waits.
        ready_us: when it may start at the earliest, while it waits.
    """

    made: int = 0
    run: Run | None = None
    ready_us: int = 0


@attrs.frozen(kw_only=True)
class Moved:
    """A move of the store.

    Attributes:
        old: the job before.
        new: the job after.
        outcomes: what was stored with it.
        change: what somebody asked for and it does; None when it is work of the process itself.
        owner: the process that made it.
        decided_us: when it was decided.
        asked: the runs by hand that somebody has asked for.
        is_running: tells whether a living process has that run in flight.
        is_known_dead: tells whether the process that made it can know that another has ended.
        has_given_up: tells whether the owner of a run has stopped trying to store its end.
    """

    old: Job
    new: Job
    outcomes: tuple[Outcome, ...]
    change: Intent | None
    owner: str
    decided_us: int
    asked: Container[int]
    is_running: Callable[[Run], bool]
    is_known_dead: Callable[[str], bool]
    has_given_up: Callable[[Run], bool]


@attrs.define(eq=False)
class Expected:
    """What must be true of one job.

    Attributes:
        grid: its occurrences.
        policy: the owner's choices.
        times: after how many occurrences the schedule stops.
        ahead_us: the first occurrence that nobody has taken.
        is_paused: whether its schedule is out of force.
        is_over: whether nothing of its schedule is left.
        had: every policy that it has had.
        begun: the occurrences of the schedule that were attempted.
        open: what was taken and has not ended.
        ends: how each occurrence has ended.
        outcomes: what its history must be.
        said: of each run that has ended, whether it did what it should.
        started: the runs that were started, and when.
        faults: what happened that must not.
    """

    grid: Grid
    policy: Policy
    times: int | None
    ahead_us: int | None
    is_paused: bool = False
    is_over: bool = False
    had: list[Policy] = attrs.field(factory=list)
    begun: set[int] = attrs.field(factory=set)
    open: dict[Identity, Open] = attrs.field(factory=dict)
    ends: dict[Identity, Result] = attrs.field(factory=dict)
    outcomes: list[Outcome] = attrs.field(factory=list)
    said: dict[tuple[Identity, int], bool] = attrs.field(factory=dict)
    started: dict[tuple[Identity, int], int] = attrs.field(factory=dict)
    faults: list[str] = attrs.field(factory=list)

    def expect(self, is_true: bool, otherwise: str) -> None:
        """Note *otherwise* as a fault unless *is_true*."""
        if not is_true:
            self.faults.append(otherwise)

    @property
    def is_in_force(self) -> bool:
        """Whether the schedule is in force."""
        return not self.is_paused and not self.is_over

    @property
    def is_spent(self) -> bool:
        """Whether as many occurrences were attempted as the job shall have."""
        return self.times is not None and len(self.begun) >= self.times

    def wake_us(self) -> int | None:
        """Return when somebody must look after the job while no run of it is in flight."""
        if not self.is_in_force:
            return None
        ready = [each.ready_us for each in self.open.values()]
        if self.policy.overlap is not Overlap.ALLOW:
            ready = ready[:1]
        wanted = (*ready, *(() if self.ahead_us is None else (self.ahead_us,)))
        return rounded_up(min(wanted)) if wanted else None

    # --- a move of the store ---

    def move(self, moved: Moved) -> None:
        """Take down a move, and note what must not be about it."""
        held, before = dict(self.open), self.begun
        fresh: list[tuple[list[int], Outcome | None]] = []
        for outcome in moved.outcomes:
            self.outcomes.append(outcome)
            identity = (outcome.origin is Origin.MANUAL, outcome.occurrence_us)
            if identity in held:
                self._close(identity, held.pop(identity), outcome, moved)
            else:
                self.expect(not identity[0], f"{outcome} is of a run that nobody asked for")
                slots = self.grid.stretch(outcome.occurrence_us, outcome.count)
                is_stretch = slots[0] == outcome.occurrence_us and slots[-1] == outcome.last_occurrence_us
                self.expect(len(slots) == outcome.count and is_stretch, f"{outcome} is no stretch: {slots}")
                fresh.append((slots, outcome))
        seen = self._seen(moved.new)
        taken = [identity for identity in seen if identity not in self.open]
        for manual, at_us in taken:
            self.expect(not manual or at_us in moved.asked, f"nobody has asked for a run at {at_us}")
        fresh += [([at_us], None) for manual, at_us in taken if not manual]
        for identity in held.keys() - seen.keys():
            self.expect(False, f"{identity} has vanished without an outcome")
        self._look_at_attempts(held, seen, moved)
        begun = {at_us for (manual, at_us), each in seen.items() if each.made and not manual}
        self.open, self.begun = seen, self.begun | begun
        is_within = self.times is None or len(self.begun) <= self.times
        self.expect(is_within or begun <= before, f"{sorted(self.begun)} were attempted")
        self._pass(sorted(fresh, key=lambda each: each[0]), held, moved)
        self._follow(moved)

    def _seen(self, job: Job) -> dict[Identity, Open]:
        """Return what is open according to the store, in the order in which it starts."""
        seen = {run.identity: Open(run.attempt, run) for run in job.runs}
        for each in job.waiting:
            self.expect(each.identity not in seen, f"{each} is open twice")
            seen[each.identity] = Open(each.attempt - 1, None, each.not_before_us)
        self.expect(len(seen) == len(job.runs) + len(job.waiting), "an occurrence is open twice")
        return seen

    def _close(self, identity: Identity, was: Open, outcome: Outcome, moved: Moved) -> None:
        """An open occurrence has ended: rightly so?"""
        self.expect(identity not in self.ends, f"{identity} ended twice")
        self.expect(outcome.attempt == was.made and outcome.count == 1, f"{outcome} ends attempt {was.made}")
        self.ends[identity] = outcome.result
        if was.run is None:
            self._close_waiting(identity, was, outcome, moved)
            return
        said = self.said.get((identity, was.made))
        is_own = moved.owner == was.run.owner
        match outcome.result:
            case Result.COMPLETED:
                self.expect(is_own and said is True, f"{outcome}, but the run said {said}")
            case Result.FAILED:
                self.expect(is_own and said is False, f"{outcome}, but the run said {said}")
                is_last = was.made >= self.policy.attempts or not self.is_in_force
                self.expect(is_last, f"{outcome}, though another attempt was to follow")
            case Result.INTERRUPTED:
                self._expect_interrupted(was.run, moved)
                is_last = not self._is_retried(was.made) or not self.is_in_force
                self.expect(is_last, f"{outcome}, though another attempt was to follow")
            case _:
                self.expect(False, f"{outcome} of a run")

    def _is_retried(self, made: int) -> bool:
        most = max(MAX_ATTEMPTS, self.policy.attempts)
        return self.policy.on_interrupt is OnInterrupt.RETRY and made < most

    def _expect_interrupted(self, run: Run, moved: Moved) -> None:
        """Expect that whoever took *run* for interrupted could."""
        self.expect(not moved.is_running(run), f"{run} is in flight, and was taken for interrupted")
        if moved.owner == run.owner:
            is_unknown = (run.identity, run.attempt) not in self.said or moved.has_given_up(run)
            self.expect(is_unknown, f"{run} was taken for interrupted by its owner, who knows its end")
        else:
            is_past = moved.decided_us >= run.lease_until_us + CLOCK_ALLOWANCE_US
            is_over = is_past or moved.is_known_dead(run.owner)
            self.expect(is_over, f"{run} was taken for interrupted during its lease")

    def _close_waiting(self, identity: Identity, was: Open, outcome: Outcome, moved: Moved) -> None:
        is_late = moved.decided_us - was.ready_us > grace_us(self.grid, self.policy)
        is_dropped = is_late and self.policy.catch_up is CatchUp.SKIP and not identity[0]
        if was.made:
            self.expect(outcome.result is Result.FAILED, f"{outcome}, but an attempt was made")
            self.expect(isinstance(moved.change, Pause) or is_dropped, f"{outcome}, while it was waiting")
        elif outcome.result is Result.MISSED:
            self.expect(is_dropped, f"{outcome}, though it was not too late")
        else:
            self.expect(outcome.result is Result.SKIPPED, f"{outcome}, but no attempt was made")
            begun = self.begun | {run.occurrence_us for run in moved.new.runs}
            is_spent = self.times is not None and len(begun) >= self.times
            self.expect(isinstance(moved.change, Pause) or is_spent, f"{outcome}, while it was waiting")

    def _look_at_attempts(self, held: dict[Identity, Open], seen: dict[Identity, Open], moved: Moved) -> None:
        """What has become of the attempts: claimed, still in flight, or to be made again?"""
        for identity, each in seen.items():
            was = held.get(identity, Open(0, None, each.ready_us))
            if each.run is not None and (was.run is None or not each.run.is_same_as(was.run)):
                self._claim(identity, each.run, was, seen, moved)
            elif each.run is None and was.run is not None:
                self._wait_again(identity, was.run, each, moved)
            else:
                self.expect(each.made == was.made, f"{identity} is at attempt {each.made}, was {was.made}")
                earliest_us = min(was.ready_us, moved.decided_us + self._longest_wait_us(each.made))
                self.expect(each.ready_us >= earliest_us, f"{identity} is ready earlier than it was")

    def _longest_wait_us(self, made: int) -> int:
        """Return how long the policy, which may have been edited, lets an attempt wait for its next one."""
        if not made:
            return MAX_RETRY_DELAY_US
        return min(self.policy.retry_max_delay_us, self.policy.retry_delay_us << (made - 1))

    def _claim(
        self, identity: Identity, run: Run, was: Open, seen: dict[Identity, Open], moved: Moved
    ) -> None:
        manual, at_us = identity
        self.expect(run.attempt == was.made + 1, f"{run} comes after attempt {was.made}")
        self.expect(run.owner == moved.owner, f"{run} was claimed by {moved.owner}")
        self.expect(identity not in self.ends, f"{run} was claimed after its end")
        self.expect(manual or self.is_in_force, f"{run} was claimed while the job was out of force")
        self.expect(manual or at_us <= moved.decided_us, f"{run} was claimed before its time")
        self.expect(was.ready_us <= moved.decided_us, f"{run} was claimed before {was.ready_us}")
        most = MAX_IN_FLIGHT if self.policy.overlap is Overlap.ALLOW else 1
        in_flight = [other.run for other in seen.values() if other.run is not None]
        self.expect(len(in_flight) <= most, f"{run} overlaps {in_flight}")
        older = [
            slot
            for (by_hand, slot), other in seen.items()
            if not by_hand and other.run is None and slot < at_us and other.made == 0
        ]
        self.expect(manual or not older or most > 1, f"{run} was claimed before {older}")

    def _wait_again(self, identity: Identity, run: Run, waits: Open, moved: Moved) -> None:
        self.expect(waits.made == run.attempt, f"{run} is followed by attempt {waits.made + 1}")
        self.expect(self.is_in_force, f"{run} is to be made again while the job is out of force")
        said = self.said.get((identity, run.attempt))
        if moved.owner == run.owner and said is not None and not moved.has_given_up(run):
            self.expect(not said, f"{run} said {said}, and is to be made again")
            self.expect(run.attempt < self.policy.attempts, f"{run} is to be made once too often")
            whole_us = self._longest_wait_us(run.attempt)
            waits_us = waits.ready_us - moved.decided_us
            self.expect(whole_us // 2 <= waits_us <= whole_us, f"{run} is followed after {waits_us}")
        else:
            self._expect_interrupted(run, moved)
            self.expect(self._is_retried(run.attempt), f"{run} is to be made again after an interruption")

    # --- what was ahead ---

    def _pass(
        self, fresh: list[tuple[list[int], Outcome | None]], busy: dict[Identity, Open], moved: Moved
    ) -> None:
        """What was ahead has been taken or has ended, one after another: rightly so?"""
        due: list[int] = []
        for slots, outcome in fresh:
            for slot in slots:
                self.expect(slot == self.ahead_us, f"{slot} was taken, but ahead was {self.ahead_us}")
                self.ahead_us = self.grid.after(slot)
                if outcome is not None:
                    self.ends[False, slot] = outcome.result
                due.append(slot)
        if not due:
            return
        result = {slot: outcome and outcome.result for slots, outcome in fresh for slot in slots}
        if isinstance(moved.change, Pause | Edit):
            self.expect(set(result.values()) == {Result.SKIPPED}, f"{result} by a change")
            self.expect(due[-1] <= moved.decided_us and self.is_in_force, f"{due} ended before their time")
        elif isinstance(moved.change, Resume):
            self.expect(list(result.values()) == [Result.MISSED], f"{result} by a resume")
        else:
            self.expect(self.is_in_force, f"{due} were taken while the job was out of force")
            self.expect(due[-1] <= moved.decided_us, f"{due} were taken before their time")
            self._expect_fates(due, result, busy, moved)

    def _expect_fates(
        self, due: list[int], result: dict[int, Result | None], busy: dict[Identity, Open], moved: Moved
    ) -> None:
        """Expect that of what was due, what runs runs and what ends ends as the policy says."""
        policy, newest = self.policy, due[-1]
        is_late = moved.decided_us - newest > grace_us(self.grid, policy)
        if is_late and policy.catch_up is CatchUp.SKIP:
            kept: list[int] = []
        else:
            kept = due[-policy.catch_up_limit :] if policy.catch_up is CatchUp.ALL else due[-1:]
        match policy.overlap:
            case Overlap.SKIP:
                has_room = not busy
            case Overlap.QUEUE:
                has_room = all(each.made for each in busy.values())
            case Overlap.ALLOW:
                has_room = len(busy) < MAX_IN_FLIGHT
        for slot in due:
            end = result[slot]
            if end is None:
                self.expect(slot in kept and has_room, f"{slot} of {due} was taken")
            elif end is Result.SKIPPED:
                is_passed_over = not has_room and (slot in kept or policy.overlap is Overlap.SKIP)
                self.expect(is_passed_over or self.is_spent, f"{slot} of {due} was skipped")
            else:
                self.expect(end is Result.MISSED and slot not in kept, f"{slot} of {due} ended as {end}")

    def _follow(self, moved: Moved) -> None:
        """Change what follows: the schedule, whether it is in force, where it goes on."""
        now_us = moved.decided_us
        match moved.change:
            case Pause():
                self.is_paused = True
                self.expect(not moved.new.waiting, "something waits while the job is paused")
            case Resume(from_now=from_now):
                self._resume(moved, is_anew=from_now and isinstance(moved.old.schedule, Interval))
            case Edit(changes=changes):
                schedule = moved.old.schedule
                if changes.schedule is not None:
                    schedule = edited(schedule, changes.schedule, is_any_phase=changes.is_any_phase)
                grid = grid_of(schedule, changes.policy or self.policy)
                times = self.times if changes.times is None else changes.times or None
                if grid != self.grid or (times != self.times and self.ahead_us is None):
                    self.ahead_us = grid.after(now_us)
                self.grid, self.times = grid, times
                self.policy = changes.policy or self.policy
                self.had.append(self.policy)
        if self.is_spent:
            self.ahead_us = None
        if self.ahead_us is not None:
            self.is_paused, self.is_over = self.is_paused and not self.is_over, False
        elif not self.open:
            self.is_over = True

    def _resume(self, moved: Moved, *, is_anew: bool) -> None:
        """Go on with what has not passed; what has was nobody's, but for the last one."""
        now_us = moved.decided_us
        self.is_paused = False
        was_ahead_us = moved.old.next_us
        if was_ahead_us is None:
            return
        if is_anew:
            self.grid = attrs.evolve(self.grid, at_us=now_us // SECOND_US * SECOND_US)
        if is_anew or was_ahead_us <= now_us:
            self.ahead_us = self.grid.after(now_us)
        is_missed = bool(moved.outcomes)
        self.expect(is_missed == (self.ahead_us is None), f"{moved.outcomes} by a resume")

    def state(self) -> JobState:
        """Return the state in which the store must have the job."""
        if self.is_over:
            return JobState.COMPLETED
        return JobState.PAUSED if self.is_paused else JobState.SCHEDULED

    # --- runs ---

    def start(self, run: Run, *, job: Job | None, now_us: int, is_found_removed: bool) -> None:
        """A process starts *run*; *job* is as stored, None when it is no longer this one."""
        key = (run.identity, run.attempt)
        self.expect(key not in self.started, f"{run} was started twice")
        self.started[key] = now_us
        self.expect(not is_found_removed, f"{run} was started of a job that was found removed")
        # What was removed after its process has last looked is like what is removed during its run.
        self.expect(job is None or run.is_among(job.runs), f"{run} was started without its claim")
        is_manual, at_us = run.identity
        self.expect(is_manual or at_us <= now_us, f"{run} was started before its time")

    def time_out(self, run: Run, *, now_us: int) -> None:
        """A process ends *run* though its runner goes on."""
        lasted_us = now_us - self.started[run.identity, run.attempt]
        limits_us = [policy.time_limit_us for policy in self.had if policy.time_limit_us is not None]
        self.expect(any(limit_us <= lasted_us for limit_us in limits_us), f"{run} timed out: {lasted_us}")

    def end(self, run: Run, *, succeeded: bool) -> None:
        """A run has ended: its runner says so, or its process, and both the same."""
        said = self.said.setdefault((run.identity, run.attempt), succeeded)
        self.expect(said is succeeded, f"{run} ended twice")
