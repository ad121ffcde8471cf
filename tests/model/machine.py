"""The machine that drives the scheduler: who does what, and what can go wrong, in any order."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chronos.jobs.instants import HOUR_US, SECOND_US
from chronos.jobs.policy import Policy
from chronos.protocol.flow_effects import CancelArm, ListArms, LoadJob, LoadJobs, ProvisionArm, SwapJob
from chronos.protocol.intents import Create, Edit, Intent, Pause, Remove, Resume, RunNow
from chronos.protocol.job_changes import Changes
from chronos.protocol.process import rings_us
from chronos.protocol.process_effects import Asked
from chronos.values import evolve
from simulator import properties
from simulator.moments import AtRest
from tests.model.plans import Plan, grid_of, plans, policies
from tests.model.world import ALL, Process, Strand, World

LAST_LOOK_US = 2 * HOUR_US
# More of them hide what the processes would have done.
MOST_CRASHES = 3
NAMES = ("job", "other")

picks = st.integers(0, 63)
# How many steps a piece of work takes at once before others may come between. An operation takes two:
# after three of them a flow has read the store, after five it has written and is about to ask NAS.
strides = st.sampled_from((ALL, 5, 3, 1, 2, 4, 6, 7, ALL))
_STORE = (LoadJob, LoadJobs, SwapJob)
_NAS = (ProvisionArm, CancelArm, ListArms)


def pick(things: Any, number: int) -> Any:
    """Return one of *things*."""
    return things[number % len(things)]


class SchedulerAgainstModel(RuleBasedStateMachine):
    """Two processes that share a store and keep the protocol, against what is expected of each job."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.crashes = 0

    @initialize(first=plans, second=st.none() | plans)
    def jobs_are_created(self, first: Plan, second: Plan | None) -> None:
        for name, plan in zip(NAMES, (first, second), strict=True):
            job = plan.job(name, self.world.now_us) if plan is not None else None
            if job is not None:
                self.ask(0, Create(job_id=name, job=job), ALL)
        self.settle()

    # --- what there is to choose from ---

    def up(self, at: int) -> Process:
        return self.world.up(pick(self.world.processes, at))

    def asking(self, *kinds: type) -> list[Strand]:
        """Return what wants such an effect performed, and was not yet."""
        wanting = (strand for strand in self.world.strands() if strand.event is None)
        return [strand for strand in wanting if isinstance(strand.effect, kinds)]

    def idle(self) -> list[Process]:
        """Return the machines whose host is told that it may stop them."""
        up = (process for process in self.world.processes if process.is_up)
        return [process for process in up if not self.world.is_busy(process)]

    def stored(self) -> list[str]:
        return sorted(job.id for job in self.world.store.load_all())

    # --- time ---

    def slack_us(self) -> int:
        """Return how far time may move on: a run in flight renews its lease before that ends."""
        slack_us = LAST_LOOK_US
        for strand in self.world.executing():
            job = self.world.store.load(strand.started.job_id)
            for run in job.runs if job is not None else ():
                if run.is_same_as(strand.started.run):
                    slack_us = min(slack_us, run.lease_until_us - 1 - self.world.now_us)
        return slack_us

    def pass_time(self, by_us: int) -> None:
        """Let time pass."""
        self.world.now_us += min(by_us, self.slack_us())

    @precondition(lambda self: self.slack_us() > 0)
    @rule(by_s=st.sampled_from((1, 20, 70, 100, 200, 299, 331, 700, 3600)))
    def time_passes(self, by_s: int) -> None:
        self.pass_time(by_s * SECOND_US)

    # --- fires ---

    @precondition(lambda self: self.world.due())
    @rule(shot=picks, at=picks, stride=strides)
    def fire_arrives(self, shot: int, at: int, stride: int) -> None:
        process = self.up(at)
        self.world.go_on(self.world.deliver(process, pick(self.world.due(), shot)), stride)

    @precondition(lambda self: not self.world.due() and self.slack_us() > 0 and self.world.list_arms())
    @rule(at=picks, stride=strides)
    def next_fire_comes_due_and_arrives(self, at: int, stride: int) -> None:
        next_us = min(self.world.list_arms().values())  # type: ignore[type-var]
        self.pass_time(max(0, next_us - self.world.now_us))  # type: ignore[operator]
        if self.world.due():
            self.fire_arrives(0, at, stride)

    @precondition(lambda self: self.world.fired)
    @rule(fire=picks, at=picks, stride=strides)
    def earlier_fire_arrives_again(self, fire: int, at: int, stride: int) -> None:
        process = self.up(at)
        again = pick(self.world.fired, fire)
        self.world.go_on(self.world.begin(process, Asked, None, again), stride)

    @precondition(lambda self: self.world.answers)
    @rule(answer=picks)
    def answer_to_a_fire_arrives(self, answer: int) -> None:
        self.world.hear(answer % len(self.world.answers))

    @precondition(lambda self: self.world.relays)
    @rule(relay=picks)
    def nas_waits_no_longer(self, relay: int) -> None:
        self.world.close(pick(self.world.relays, relay))

    # --- processes ---

    @precondition(lambda self: any(not process.is_up for process in self.world.processes))
    @rule(at=picks)
    def process_starts(self, at: int) -> None:
        self.world.up(pick([process for process in self.world.processes if not process.is_up], at))

    @precondition(
        lambda self: self.crashes < MOST_CRASHES and any(each.is_up for each in self.world.processes)
    )
    @rule(at=picks)
    def process_crashes(self, at: int) -> None:
        self.crashes += 1
        self.world.end_life(pick([process for process in self.world.processes if process.is_up], at))

    @precondition(
        lambda self: any(each.is_up and not self.world.is_busy(each) for each in self.world.processes)
    )
    @rule(at=picks)
    def idle_machine_stops(self, at: int) -> None:
        idle = [
            process for process in self.world.processes if process.is_up and not self.world.is_busy(process)
        ]
        self.world.end_life(pick(idle, at))

    @precondition(lambda self: any(process.is_up for process in self.world.processes))
    @rule(at=picks)
    def process_drains(self, at: int) -> None:
        process = pick([process for process in self.world.processes if process.is_up], at)
        self.world.drain(process)

    # --- what the processes do ---

    @precondition(lambda self: self.world.ready())
    @rule(strand=picks, stride=strides)
    def work_goes_on(self, strand: int, stride: int) -> None:
        self.world.go_on(pick(self.world.ready(), strand), stride)

    @precondition(lambda self: self.world.ready())
    @rule()
    def all_work_goes_on(self) -> None:
        while ready := self.world.ready():
            self.world.go_on(ready[0], ALL)

    @precondition(lambda self: self.asking(*_NAS))
    @rule(strand=picks, is_done=st.booleans())
    def request_or_its_reply_is_lost(self, strand: int, is_done: bool) -> None:
        self.world.fail(pick(self.asking(*_NAS), strand), is_done=is_done)

    @precondition(lambda self: self.asking(ProvisionArm, CancelArm))
    @rule(strand=picks)
    def request_is_late(self, strand: int) -> None:
        delayed = pick(self.asking(ProvisionArm, CancelArm), strand)
        self.world.late.append(delayed.effect)
        self.world.fail(delayed, is_done=False)

    @precondition(lambda self: self.world.late)
    @rule(request=picks)
    def late_request_arrives(self, request: int) -> None:
        self.world.arrive(self.world.late.pop(request % len(self.world.late)))

    @precondition(lambda self: self.asking(*_STORE))
    @rule(strand=picks, is_done=st.booleans())
    def store_fails(self, strand: int, is_done: bool) -> None:
        self.world.fail(pick(self.asking(*_STORE), strand), is_done=is_done)

    @precondition(lambda self: self.world.executing())
    @rule(run=picks, succeeded=st.booleans(), stride=strides)
    def run_ends(self, run: int, succeeded: bool, stride: int) -> None:
        strand = pick(self.world.executing(), run)
        self.world.end_run(strand, succeeded=succeeded)
        self.world.go_on(strand, stride)

    # --- people ---

    def ask(self, at: int, intent: Intent, stride: int) -> None:
        self.world.go_on(self.world.ask(self.up(at), intent), stride)

    @precondition(lambda self: self.stored() and not self.world.asking)
    @rule(job=picks, at=picks, note=st.sampled_from(("", "why")), stride=strides)
    def somebody_pauses_a_job(self, job: int, at: int, note: str, stride: int) -> None:
        self.ask(at, Pause(job_id=pick(self.stored(), job), note=note), stride)

    @precondition(lambda self: self.stored() and not self.world.asking)
    @rule(job=picks, at=picks, from_now=st.booleans(), stride=strides)
    def somebody_resumes_a_job(self, job: int, at: int, from_now: bool, stride: int) -> None:
        self.ask(at, Resume(job_id=pick(self.stored(), job), from_now=from_now), stride)

    @precondition(lambda self: self.stored() and not self.world.asking)
    @rule(job=picks, at=picks, stride=strides)
    def somebody_removes_a_job(self, job: int, at: int, stride: int) -> None:
        self.ask(at, Remove(job_id=pick(self.stored(), job)), stride)

    @precondition(lambda self: self.stored() and not self.world.asking)
    @rule(
        job=picks,
        at=picks,
        plan=st.none() | plans,
        policy=st.none() | policies(),
        times=st.sampled_from((None, None, 0, 1, 3)),
        is_text=st.booleans(),
        stride=strides,
    )
    def somebody_edits_a_job(
        self,
        job: int,
        at: int,
        plan: Plan | None,
        policy: Policy | None,
        times: int | None,
        is_text: bool,
        stride: int,
    ) -> None:
        schedule = plan.schedule(self.world.now_us) if plan is not None else None
        changes = Changes(schedule=schedule, is_any_phase=is_text, times=times, policy=policy)
        self.ask(at, Edit(job_id=pick(self.stored(), job), changes=changes), stride)

    @precondition(lambda self: self.stored() and not self.world.asking)
    @rule(job=picks, at=picks, earlier=st.sampled_from((0, 0, 1, 2)), stride=strides)
    def somebody_runs_a_job(self, job: int, at: int, earlier: int, stride: int) -> None:
        name = pick(self.stored(), job)
        asked = self.world.asked.setdefault(name, [])
        if not earlier or not asked:
            asked.append(self.world.now_us)
            self.world.ever_asked.add(self.world.now_us)
        self.ask(at, RunNow(job_id=name, asked_us=asked[-min(earlier or 1, len(asked))]), stride)

    @precondition(lambda self: len(self.stored()) < len(NAMES))
    @rule(which=picks, at=picks, plan=plans, stride=strides)
    def somebody_creates_a_job(self, which: int, at: int, plan: Plan, stride: int) -> None:
        name = pick([name for name in NAMES if name not in self.stored()], which)
        job = plan.job(name, self.world.now_us)
        if job is not None:
            self.ask(at, Create(job_id=name, job=job), stride)

    @precondition(lambda self: self.world.asking)
    @rule(which=picks, at=picks)
    def somebody_asks_again(self, which: int, at: int) -> None:
        intent = self.world.asking.pop(which % len(self.world.asking))
        if isinstance(intent, Create) and intent.job_id not in self.stored():
            job = intent.job
            next_us = grid_of(job.schedule, job.policy).after(self.world.now_us)
            if next_us is None:
                return  # a one-shot that has passed is not created
            intent = Create(job_id=intent.job_id, job=evolve(job, next_us=next_us))
        if isinstance(intent, RunNow) and intent.asked_us not in self.world.asked.get(intent.job_id, ()):
            return  # it was of an earlier job of that id
        self.ask(at, intent, 0)

    @precondition(lambda self: self.world.asking)
    @rule(which=picks)
    def somebody_does_not_ask_again(self, which: int) -> None:
        self.world.left_alone.add(self.world.asking.pop(which % len(self.world.asking)).job_id)

    # --- what must hold ---

    def is_at_rest(self, name: str) -> bool:
        """Return whether nobody is at work on the job, or is going to be."""
        world = self.world
        busy = {each.job_id for process in world.processes for each in world.pending(process)}
        busy |= {each.job_id for each in (*world.late, *world.asking)}
        busy |= {relay.shot.job_id for relay in world.relays if relay.shot is not None}
        return not busy & {name, ""} and name not in world.left_alone

    @invariant()
    def nothing_happened_that_must_not(self) -> None:
        for book in (*self.world.expected.values(), *self.world.earlier):
            assert not book.faults, book.faults

    @invariant()
    def every_occurrence_is_accounted_for(self) -> None:
        for job in self.world.store.load_all():
            book = self.world.expected[job.id]
            assert job.state is book.state()
            assert job.next_us == book.ahead_us
            assert {each.identity for each in (*job.runs, *job.waiting)} == set(book.open)

    @invariant()
    def every_property_holds_at_rest(self) -> None:
        world = self.world
        for name in NAMES:
            if self.is_at_rest(name):
                job, armed_us = world.store.load(name), world.armed_us(name)
                acknowledged = world.acknowledged.get(name) == job
                moment = AtRest(job=job, armed_us=armed_us, acknowledged=acknowledged)
                assert not list(properties.violations(moment))

    # --- the end: heal, and demand that everything converges ---

    def settle(self) -> None:
        """Let everybody go on, without faults, until nothing is left to be done at this instant."""
        world = self.world
        for turn in range(3000):
            draining = [each for each in world.processes if each.value and each.value.is_draining]
            alarms_us = [
                due_us for each in world.processes if each.value and (due_us := rings_us(each.value))
            ]
            if ready := world.ready():
                world.go_on(ready[0], ALL)
            elif world.answers:
                world.hear(0)
            elif world.late:
                world.arrive(world.late.pop())
            elif executing := world.executing():
                self.expect_in_time(executing)
                world.end_run(executing[0], succeeded=True)
            elif alarms_us:
                world.now_us = max(world.now_us, min(alarms_us))
            elif draining:
                world.end_life(draining[0])
            elif world.asking:
                self.somebody_asks_again(0, turn)
            elif due := world.due():
                world.deliver(self.up(turn), due[0])
            else:
                return
        raise AssertionError(f"it never comes to rest: {world.rows}, {world.store.load_all()}")

    def expect_in_time(self, executing: list[Strand]) -> None:
        """Nothing can go on: then every run whose time is over has ended."""
        for strand in executing:
            limit_us = strand.started.time_limit_us
            is_over = limit_us is not None and self.world.now_us > strand.decided_us + limit_us
            assert not is_over or strand.is_over, f"{strand.started.run} goes on"

    def teardown(self) -> None:
        self.settle()
        for process in self.world.processes:
            self.world.end_life(process)
            self.world.up(process)
        self.world.left_alone.clear()
        self.settle()
        self.demand_convergence()
        self.world.now_us += LAST_LOOK_US
        self.settle()
        self.demand_convergence()
        for name, book in self.world.expected.items():
            assert not book.open, f"{name}: {book.open} never ended"
        for process in self.world.processes:
            self.world.end_life(process)

    def demand_convergence(self) -> None:
        """Everything that has come has an end, and NAS has armed exactly what is still to come."""
        self.nothing_happened_that_must_not()
        self.every_occurrence_is_accounted_for()
        for name in NAMES:
            book = self.world.expected.get(name)
            wake_us = None if book is None else book.wake_us()
            assert self.world.armed_us(name) == wake_us, f"{name}: {self.world.armed_us(name)}, {wake_us}"
            if book is not None:
                assert all(each.run is None for each in book.open.values()), book.open
                assert self.world.store.history(name) == tuple(book.outcomes)
                assert wake_us is None or wake_us > self.world.now_us, f"{name}: {wake_us}"
