"""The protocol against a simple model: two processes, a store, a NAS, and everything that goes wrong.

The flows are the production protocol's. The machine performs their effects one at a time, in any
order among the flows in progress, so that a crash, a loss or another flow can come between any two.
Beside it stands `Expected`, which knows nothing of the protocol: occurrences are plain arithmetic, and
who has what end is a dictionary.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
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

from chronos.protocol import machine
from chronos.protocol.job import (
    CLOCK_ALLOWANCE_US,
    MAX_ATTEMPTS,
    Job,
    JobState,
    Liveness,
    OnInterrupt,
    Outcome,
    Policy,
    Result,
    Run,
)
from chronos.protocol.machine import (
    FOLLOW_UP_DELAYS_US,
    Answer,
    ArmAccepted,
    ArmFailed,
    ArmOutdated,
    ArmsListed,
    Begin,
    CancelArm,
    Create,
    Event,
    Finish,
    Fire,
    Intent,
    JobLoaded,
    JobsLoaded,
    JobSwapped,
    ListArms,
    LoadJob,
    LoadJobs,
    Pause,
    ProvisionArm,
    Remove,
    Renew,
    Resume,
    StartRun,
    StoreFailed,
    SwapConflicted,
    SwapJob,
)
from chronos.protocol.schedule import (
    HOUR_US,
    MINUTE_US,
    SECOND_US,
    Cron,
    Interval,
    Once,
    Schedule,
    parse_instant,
)
from simulator import nas
from simulator.agents import CHRONOS, NAIVE, Agent
from simulator.naive import Remember
from simulator.nas import HARDENED, OneShot, Row
from tests.mutants import MUTANTS, Mutant, agent_of, follow_up_of

T0 = parse_instant("2026-06-26T12:00:00Z")
LAST_LOOK_US = 2 * HOUR_US


# --- what is expected: plain arithmetic and dictionaries ----------------------------------------


RECORD, RETRY = Policy(), Policy(on_interrupt=OnInterrupt.RETRY)


@attrs.frozen(kw_only=True)
class Plan:
    """A job of the tests: as the protocol knows it, and its occurrences as plain arithmetic.

    Attributes:
        schedule: what the protocol is given.
        first_us: the first occurrence after `T0`.
        period_us: from one occurrence to the next; None when there is only the first.
        times: after how many runs the schedule stops; None means never.
        policy: the owner's choices.
    """

    schedule: Schedule
    first_us: int
    period_us: int | None
    times: int | None = None
    policy: Policy = RECORD

    def slots(self, from_us: int, until_us: int) -> range:
        """Return the occurrences from one instant to another, both included."""
        if self.period_us is None:
            is_within = from_us <= self.first_us <= until_us
            return range(self.first_us, self.first_us + is_within)
        skipped = max(0, -(-(from_us - self.first_us) // self.period_us))
        return range(self.first_us + skipped * self.period_us, until_us + 1, self.period_us)

    def next_after(self, instant_us: int) -> int | None:
        """Return the first occurrence after *instant_us*."""
        slots = self.slots(instant_us + 1, instant_us + (self.period_us or HOUR_US))
        return slots[0] if slots else None


_CLOSE, _DISTANT = 200 * SECOND_US, 700 * SECOND_US
PLANS: Mapping[str, Plan] = {
    "close": Plan(schedule=Interval(period_us=_CLOSE, anchor_us=T0), first_us=T0 + _CLOSE, period_us=_CLOSE),
    "distant": Plan(
        schedule=Interval(period_us=_DISTANT, anchor_us=T0),
        first_us=T0 + _DISTANT,
        period_us=_DISTANT,
        policy=RETRY,
    ),
    "twice": Plan(
        schedule=Interval(period_us=_CLOSE, anchor_us=T0),
        first_us=T0 + _CLOSE,
        period_us=_CLOSE,
        times=2,
        policy=RETRY,
    ),
    "once": Plan(schedule=Once(at_us=T0 + _CLOSE), first_us=T0 + _CLOSE, period_us=None, policy=RETRY),
    "cron": Plan(
        schedule=Cron(expr="*/10 * * * *", tz="UTC"),
        first_us=T0 + 10 * MINUTE_US,
        period_us=10 * MINUTE_US,
        policy=Policy(misfire_grace_us=30 * SECOND_US),
    ),
}


@attrs.define
class Expected:
    """What must be true of one job, from its creation to its removal.

    Attributes:
        plan: which job.
        from_us: occurrences before this instant are not its own.
        is_paused: whether its schedule is out of force.
        ends: each occurrence that has ended, with how.
        withdrawn: the occurrences that passed while the schedule was out of force.
        in_flight: the occurrence that is claimed, and its attempt.
        attempts: how often each occurrence was claimed.
        consumed: how many runs have ended.
        starts: how often each attempt was started.
        results: how each attempt ended, and the process that knows it.
        faults: what happened that must not.
    """

    plan: Plan
    from_us: int
    is_paused: bool = False
    ends: dict[int, Result] = attrs.field(factory=dict)
    withdrawn: set[int] = attrs.field(factory=set)
    in_flight: tuple[int, int] | None = None
    attempts: Counter[int] = attrs.field(factory=Counter)
    consumed: int = 0
    starts: Counter[tuple[int, int]] = attrs.field(factory=Counter)
    results: dict[tuple[int, int], tuple[str, Result]] = attrs.field(factory=dict)
    faults: list[str] = attrs.field(factory=list)

    def waiting_us(self) -> int | None:
        """Return the first occurrence of which nothing is known yet."""
        if self.plan.times is not None and self.consumed + (self.in_flight is not None) >= self.plan.times:
            return None
        known = max((*self.ends, *self.withdrawn, *self.attempts), default=None)
        slots = self.plan.slots(self.from_us, (known or self.from_us) + (self.plan.period_us or HOUR_US))
        return next((slot for slot in slots if not self.is_known(slot)), None)

    def is_known(self, slot: int) -> bool:
        """Return whether *slot* has ended, was withdrawn, or is in flight."""
        is_in_flight = self.in_flight is not None and self.in_flight[0] == slot
        return slot in self.ends or slot in self.withdrawn or is_in_flight

    def wake_us(self, lease_until_us: int | None) -> int | None:
        """Return when somebody must look after the job; *lease_until_us* is that of its run."""
        if self.is_paused:
            return None
        guard_us = None
        if lease_until_us is not None and self.plan.policy == RETRY:
            guard_us = lease_until_us + CLOCK_ALLOWANCE_US
        return min((us for us in (self.waiting_us(), guard_us) if us is not None), default=None)

    def end(self, outcome: Outcome) -> None:
        """Note the end of an occurrence, or of a stretch of them."""
        slots = self.plan.slots(outcome.occurrence_us, outcome.last_occurrence_us)
        self.expect(len(slots) == outcome.count, f"{outcome} counts {outcome.count}, there are {len(slots)}")
        for slot in slots:
            self.expect(slot not in self.ends, f"{slot} ended twice, the second time as {outcome.result}")
            self.expect(slot not in self.withdrawn, f"{slot} has an end, but was nobody's")
            self.ends[slot] = outcome.result
        if outcome.attempt:
            this = (outcome.occurrence_us, outcome.attempt)
            self.expect(self.in_flight == this, f"the run {this} ended, in flight is {self.in_flight}")
            if outcome.result is not Result.INTERRUPTED:
                said = self.results.get(this, (None, None))[1]
                self.expect(said is outcome.result, f"{outcome}, but the run ended as {said}")
            self.in_flight = None
            self.consumed += 1

    def claim(self, run: Run) -> None:
        """Note that the store holds the claim of *run*."""
        slot = run.occurrence_us
        self.expect(not self.is_paused, f"{slot} was claimed while the job was paused")
        self.expect(
            slot in self.plan.slots(self.from_us, slot), f"{slot} was claimed, which is no occurrence"
        )
        self.expect(slot not in self.ends and slot not in self.withdrawn, f"{slot} was claimed after its end")
        self.attempts[slot] += 1
        self.expect(
            run.attempt == self.attempts[slot], f"attempt {run.attempt} is number {self.attempts[slot]}"
        )
        is_again = self.in_flight is not None and self.in_flight[0] == slot and self.plan.policy == RETRY
        self.expect(
            self.in_flight is None or is_again, f"{slot} was claimed while {self.in_flight} was in flight"
        )
        self.in_flight = (slot, run.attempt)

    def resume(self, now_us: int) -> None:
        """Note that the schedule is in force again: what has passed was nobody's, but for a one-shot."""
        self.is_paused = False
        if self.plan.period_us is not None and self.waiting_us() is not None:
            passed = self.plan.slots(self.from_us, now_us)
            self.withdrawn |= {slot for slot in passed if not self.is_known(slot)}

    def expect(self, is_true: bool, otherwise: str) -> None:
        """Note *otherwise* as a fault unless *is_true*."""
        if not is_true:
            self.faults.append(otherwise)


# --- the world: processes, messages and what waits for what -------------------------------------


@attrs.define(eq=False)
class Relay:
    """A fire that NAS waits for the answer of; None once it waits no longer."""

    shot: OneShot | None


@attrs.define(eq=False)
class Task:
    """A flow or a reconciliation in progress.

    Attributes:
        flow: as the agent returned it.
        effects: what it has not performed yet.
        relay: the fire that it answers, if any.
        asked: the change that somebody waits for, if any.
        tries: how many follow-ups came before.
        decided_us: when it last took a decision.
        life: the job of which it claimed a run.
    """

    flow: Any
    effects: deque[Any]
    relay: Relay | None = None
    asked: Intent | None = None
    tries: int = 0
    decided_us: int = 0
    life: Expected | None = None

    @property
    def job_id(self) -> str | None:
        """The job that it concerns; None stands for all."""
        return self.flow.intent.job_id if hasattr(self.flow, "intent") else None


@attrs.define(eq=False)
class Running:
    """A run in flight, and the job that it is of: one that is removed and created again is another one."""

    started: StartRun
    life: Expected


@attrs.define(eq=False)
class Process:
    """A machine and the process of its present life."""

    name: str
    life: int = 0
    is_up: bool = False
    tasks: list[Task] = attrs.field(factory=list)
    runs: list[Running] = attrs.field(factory=list)
    owed: list[tuple[Intent, int]] = attrs.field(factory=list)
    converging: set[str] = attrs.field(factory=set)
    memory: dict[str, int] = attrs.field(factory=dict)

    @property
    def owner(self) -> str:
        """Names the process."""
        return f"{self.name}/{self.life}"

    def jobs_at_work(self) -> Iterable[str | None]:
        """Yield the jobs on which it is at work, None for all of them."""
        yield from (task.job_id for task in self.tasks)
        yield from (each.started.job_id for each in self.runs)
        yield from (intent.job_id for intent, _ in self.owed)

    def liveness(self, job: Job | None, asking: Task) -> Liveness:
        """Return what it knows of the owner of the job's run."""
        if job is None or job.run is None or not job.run.owner.startswith(f"{self.name}/"):
            return Liveness.UNKNOWN
        if job.run.owner != self.owner:
            return Liveness.DEAD
        flows = [task.flow for task in self.tasks if task.job_id is not None and task is not asking]
        owned = [each.started.run for each in self.runs]
        owned += [intent.run for intent, _ in self.owed if isinstance(intent, Finish | Renew)]
        is_held = any(machine.holds(flow, job.run) for flow in flows) or any(map(job.run.is_same_as, owned))
        return Liveness.ALIVE if is_held else Liveness.DEAD


picks = st.integers(0, 63)
# How many effects a flow performs at once before others may come between; the most is to its end.
ALL = 99
# More of them hide what the processes would have done.
MOST_CRASHES = 3
strides = st.sampled_from((ALL, 1, 2, 3, 4, ALL))
NAS_REQUESTS = (ProvisionArm, CancelArm, ListArms)


class SchedulerAgainstModel(RuleBasedStateMachine):
    """Two processes that share a store and keep the protocol, against what is expected of each job."""

    agent: Agent = CHRONOS
    follow_up: Callable[..., Intent | None] = staticmethod(machine.follow_up)
    creates_during_cancels = False
    starts_only_what_is_there = False

    def __init__(self) -> None:
        super().__init__()
        self.now_us = T0
        self.store: dict[str, Job] = {}
        self.rows: dict[str, Row] = {}
        self.expected: dict[str, Expected] = {}
        self.earlier: list[Expected] = []
        self.processes = (Process("a"), Process("b"))
        self.relays: list[Relay] = []
        self.fired: list[Fire] = []
        self.late: list[ProvisionArm | CancelArm] = []
        self.asking: list[Intent] = []
        self.acknowledged: dict[str, Job | None] = {}
        self.given_up: set[str] = set()
        self.abandoned: set[str] = set()
        self.crashes = 0
        self.plans: list[str] = []

    @initialize(plans=st.lists(st.sampled_from(sorted(PLANS)), min_size=1, max_size=2, unique=True))
    def jobs_are_created(self, plans: list[str]) -> None:
        self.plans = plans
        for name in plans:
            self.asking.append(Create(job_id=name, job=self.fresh(name)))
            self.ask_again(0, 0)
        self.settle()

    def fresh(self, name: str) -> Job:
        plan = PLANS[name]
        return Job(
            id=name,
            schedule=plan.schedule,
            next_us=plan.next_after(self.now_us),
            times=plan.times,
            policy=plan.policy,
        )

    # --- time ---

    def slack_us(self) -> int:
        """Return how far time may move on: a run in flight renews its lease before that ends."""
        slack_us = LAST_LOOK_US
        pending = [
            effect for _, task in self.tasks() for effect in task.effects if isinstance(effect, StartRun)
        ]
        for started in (*pending, *(each.started for _, each in self.runs())):
            job = self.store.get(started.job_id)
            if job is not None and job.run is not None and started.run.is_same_as(job.run):
                slack_us = min(slack_us, job.run.lease_until_us - 1 - self.now_us)
        return slack_us

    @precondition(lambda self: self.slack_us() > 0)
    @rule(by_s=st.sampled_from((1, 20, 70, 200, 299, 331, 700, 3600)))
    def time_passes(self, by_s: int) -> None:
        self.now_us += min(by_s * SECOND_US, self.slack_us())

    # --- fires ---

    def due(self) -> list[OneShot]:
        waiting = [relay.shot for relay in self.relays]
        shots = [row.shot for row in self.rows.values() if row.shot is not None]
        return [shot for shot in shots if shot.fire_at_us <= self.now_us and shot not in waiting]

    def deliver(self, process: Process, shot: OneShot) -> Task:
        relay = Relay(shot)
        self.relays.append(relay)
        fire = Fire(job_id=shot.job_id, fire_at_us=shot.fire_at_us)
        self.fired.append(fire)
        return self.begin(process, fire, relay=relay)

    @precondition(lambda self: self.due())
    @rule(shot=picks, at=picks, stride=strides)
    def fire_arrives(self, shot: int, at: int, stride: int) -> None:
        process = self.up(at)
        self.go_on(process, self.deliver(process, pick(self.due(), shot)), stride)

    @precondition(lambda self: not self.due() and self.slack_us() > 0 and any(map(self.armed_us, self.rows)))
    @rule(at=picks, stride=strides)
    def next_fire_comes_due_and_arrives(self, at: int, stride: int) -> None:
        next_us = min(armed_us for armed_us in map(self.armed_us, self.rows) if armed_us is not None)
        self.now_us += min(max(0, next_us - self.now_us), self.slack_us())
        if self.due():
            self.fire_arrives(0, at, stride)

    @precondition(lambda self: self.fired)
    @rule(fire=picks, at=picks, stride=strides)
    def earlier_fire_arrives_again(self, fire: int, at: int, stride: int) -> None:
        process = self.up(at)
        self.go_on(process, self.begin(process, pick(self.fired, fire)), stride)

    @precondition(lambda self: self.relays)
    @rule(relay=picks)
    def nas_waits_no_longer(self, relay: int) -> None:
        self.close(pick(self.relays, relay))

    def close(self, relay: Relay | None, *, is_accepted: bool = False) -> None:
        if relay is None or relay.shot is None:
            return
        self.relays.remove(relay)
        if is_accepted:
            row = self.rows[relay.shot.job_id]
            self.rows[relay.shot.job_id] = nas.delivered(HARDENED, row, relay.shot)
        relay.shot = None

    # --- processes ---

    def up(self, at: int) -> Process:
        """Return a process that is up: one that was down starts, and reconciles."""
        process = pick(self.processes, at)
        if not process.is_up:
            process.is_up = True
            process.life += 1
            reconciliation, effects = self.agent.begin_reconciliation(process.memory)
            process.tasks.append(Task(reconciliation, deque(effects)))
        return process

    @precondition(lambda self: any(not process.is_up for process in self.processes))
    @rule(at=picks)
    def process_starts(self, at: int) -> None:
        down = [number for number, process in enumerate(self.processes) if not process.is_up]
        self.up(pick(down, at))

    @precondition(
        lambda self: self.crashes < MOST_CRASHES and any(process.is_up for process in self.processes)
    )
    @rule(at=picks)
    def process_crashes(self, at: int) -> None:
        self.crashes += 1
        self.crash(pick([process for process in self.processes if process.is_up], at))

    def crash(self, process: Process) -> None:
        process.is_up = False
        for task in process.tasks:
            self.close(task.relay)
            if task.asked is not None:
                self.asking.append(task.asked)
        for left in (process.tasks, process.runs, process.owed, process.converging, process.memory):
            left.clear()

    def begin(self, process: Process, intent: Intent, **fields: Any) -> Task:
        flow, effects = self.agent.begin(intent, owner=process.owner)
        process.converging.add(intent.job_id)
        task = Task(flow, deque(effects), **fields)
        process.tasks.append(task)
        return task

    # --- what the flows do, one effect at a time ---

    def tasks(self, *kinds: type) -> list[tuple[Process, Task]]:
        """Return the tasks in progress whose next effect is of one of these kinds."""
        return [
            (process, task)
            for process in self.processes
            for task in process.tasks
            if (not kinds or isinstance(task.effects[0], kinds)) and not self.is_held_back(task)
        ]

    def is_held_back(self, task: Task) -> bool:
        """Return whether *task* is about to create a job of which a cancel is on its way."""
        effect = task.effects[0]
        if self.creates_during_cancels or not isinstance(effect, SwapJob) or effect.expected is not None:
            return False
        pending = [each.effects[0] for process in self.processes for each in process.tasks]
        return any(
            isinstance(each, CancelArm) and each.job_id == effect.job_id for each in (*pending, *self.late)
        )

    @precondition(lambda self: self.tasks())
    @rule(task=picks, stride=strides)
    def flow_goes_on(self, task: int, stride: int) -> None:
        self.go_on(*pick(self.tasks(), task), stride + 1)

    @precondition(lambda self: self.tasks())
    @rule()
    def all_flows_go_on_to_their_end(self) -> None:
        while self.tasks():
            self.go_on(*self.tasks()[0], ALL)

    @precondition(lambda self: self.tasks(*NAS_REQUESTS))
    @rule(task=picks)
    def request_is_lost(self, task: int) -> None:
        _, lost = pick(self.tasks(*NAS_REQUESTS), task)
        lost.effects.popleft()
        self.tell(lost, ArmFailed())

    @precondition(lambda self: self.tasks(*NAS_REQUESTS))
    @rule(task=picks)
    def reply_is_lost(self, task: int) -> None:
        _, lost = pick(self.tasks(*NAS_REQUESTS), task)
        self.ask_nas(lost.effects.popleft())
        self.tell(lost, ArmFailed())

    @precondition(lambda self: self.tasks(ProvisionArm, CancelArm))
    @rule(task=picks)
    def request_is_late(self, task: int) -> None:
        _, delayed = pick(self.tasks(ProvisionArm, CancelArm), task)
        self.late.append(delayed.effects.popleft())
        self.tell(delayed, ArmFailed())

    @precondition(lambda self: self.late)
    @rule(request=picks)
    def late_request_arrives(self, request: int) -> None:
        self.ask_nas(self.late.pop(request % len(self.late)))

    @precondition(lambda self: self.tasks(LoadJob, LoadJobs, SwapJob))
    @rule(task=picks, is_written=st.booleans())
    def store_fails(self, task: int, is_written: bool) -> None:
        process, failed = pick(self.tasks(LoadJob, LoadJobs, SwapJob), task)
        effect = failed.effects.popleft()
        if is_written and isinstance(effect, SwapJob):
            self.swap(process, failed, effect)
        self.tell(failed, StoreFailed())

    @precondition(lambda self: any(task.relay for _, task in self.tasks(Answer)))
    @rule(task=picks)
    def answer_is_lost(self, task: int) -> None:
        process, answering = pick([each for each in self.tasks(Answer) if each[1].relay], task)
        self.close(answering.relay)
        self.perform(process, answering)

    def go_on(self, process: Process, task: Task, stride: int) -> None:
        """Perform so many effects of *task*, or all that are left."""
        while task in process.tasks and stride and not self.is_held_back(task):
            self.perform(process, task)
            stride -= 1

    def perform(self, process: Process, task: Task) -> None:
        """Perform the next effect of *task*, and tell it what became of that."""
        match task.effects.popleft():
            case LoadJob(job_id=job_id):
                job = self.store.get(job_id)
                self.tell(task, JobLoaded(job, process.liveness(job, task)))
            case SwapJob() as effect:
                self.tell(task, self.swap(process, task, effect))
            case ProvisionArm() | CancelArm() | ListArms() as effect:
                self.tell(task, self.ask_nas(effect))
            case LoadJobs():
                jobs = [(job, process.liveness(job, task)) for job in self.store.values()]
                self.tell(task, JobsLoaded(jobs, frozenset(process.converging)))
            case effect:
                self.perform_last(process, task, effect)
                if not task.effects:
                    process.tasks.remove(task)

    def perform_last(self, process: Process, task: Task, effect: Any) -> None:
        """Perform an effect of which nothing comes back."""
        match effect:
            case Answer():
                self.answer(process, task, effect)
            case StartRun():
                self.start(process, task, effect)
            case Begin(intents=intents):
                for intent in intents:
                    self.begin(process, intent)
            case Remember(job_id=job_id, fire_at_us=None):
                process.memory.pop(job_id, None)
            case Remember(job_id=job_id, fire_at_us=fire_at_us):
                process.memory[job_id] = fire_at_us

    def tell(self, task: Task, event: Event) -> None:
        step = self.agent.step if task.job_id is not None else self.agent.step_reconciliation
        task.flow, effects = step(task.flow, event, self.now_us)
        task.effects.extend(effects)
        task.decided_us = self.now_us

    def ask_nas(self, request: ProvisionArm | CancelArm | ListArms) -> Event:
        if isinstance(request, ListArms):
            shots = [row.shot for row in self.rows.values() if row.shot is not None]
            return ArmsListed({shot.job_id: shot.fire_at_us for shot in shots})
        row = self.rows.get(request.job_id, nas.EMPTY)
        if isinstance(request, ProvisionArm):
            decision = nas.provision(
                HARDENED,
                row,
                job_id=request.job_id,
                fire_at_us=request.fire_at_us,
                revision=request.revision,
            )
        else:
            decision = nas.cancel(HARDENED, row, revision=request.revision)
        self.rows[request.job_id] = decision.row
        if decision.reply.outdated is not None:
            return ArmOutdated(decision.reply.outdated)
        return ArmAccepted(echoed=decision.reply.echoed)

    def answer(self, process: Process, task: Task, answer: Answer) -> None:
        intent = task.flow.intent
        if answer.settled:
            self.acknowledged[intent.job_id] = answer.job
        if task.relay is not None:
            self.close(task.relay, is_accepted=answer.settled)
        elif task.asked is not None:
            if not answer.settled:
                self.asking.append(task.asked)
            task.asked = None
        else:
            owed = type(self).follow_up(intent, answer, self.now_us)
            if owed is not None and task.tries < len(FOLLOW_UP_DELAYS_US):
                process.owed.append((owed, task.tries + 1))
            elif owed is not None:
                self.given_up.add(intent.job_id)

    def start(self, process: Process, task: Task, started: StartRun) -> None:
        run, job, life = started.run, self.store.get(started.job_id), task.life
        if life is None:
            self.expected[started.job_id].expect(False, f"{run} was started and was never claimed")
            return
        is_removed = job is None or life is not self.expected[started.job_id]
        is_claimed = job is not None and not is_removed and run.is_same_as(job.run)
        if self.starts_only_what_is_there or not is_removed:
            life.expect(is_claimed, f"{run} was started and the store does not hold its claim")
        others = [each.started.run for _, each in self.runs() if each.life is life]
        life.expect(not others, f"{run} was started beside {others}")
        life.expect(run.occurrence_us <= self.now_us, f"{run} was started before its time")
        life.starts[run.occurrence_us, run.attempt] += 1
        process.runs.append(Running(started, life))

    def swap(self, process: Process, task: Task, effect: SwapJob) -> Event:
        old, new = self.store.get(effect.job_id), effect.replacement
        if old != effect.expected:
            return SwapConflicted(old, process.liveness(old, task))
        if new is None:
            self.store.pop(effect.job_id, None)
        else:
            self.store[effect.job_id] = new
        if old is None or new is None or attrs.evolve(old, revision=new.revision) != new:
            self.expect_swap(process, task, old, effect)
        return JobSwapped()

    def expect_swap(self, process: Process, task: Task, old: Job | None, effect: SwapJob) -> None:
        """Tell what is expected of the job that its store moved."""
        intent, new = task.flow.intent, effect.replacement
        if isinstance(intent, Create):
            assert intent.job.next_us is not None
            self.expected[intent.job_id] = Expected(PLANS[intent.job_id], intent.job.next_us)
            return
        expected = self.expected[intent.job_id]
        if isinstance(intent, Remove):
            self.earlier.append(expected)
            return
        for outcome in effect.outcomes:
            expected.end(outcome)
            owner, result = expected.results.get((outcome.occurrence_us, outcome.attempt), (None, None))
            is_known = owner == process.owner and intent.job_id not in self.given_up
            expected.expect(not is_known or outcome.result is result, f"{outcome} ended as {result}")
        if new is not None and new.run is not None and (old is None or not new.run.is_same_as(old.run)):
            expected.claim(new.run)
            task.life = expected
        if isinstance(intent, Pause):
            expected.is_paused = True
        if isinstance(intent, Resume):
            expected.resume(task.decided_us)

    # --- runs, and what a process owes ---

    def runs(self) -> list[tuple[Process, Running]]:
        return [(process, each) for process in self.processes for each in process.runs]

    @precondition(lambda self: self.runs())
    @rule(run=picks, succeeded=st.booleans(), stride=strides)
    def run_ends(self, run: int, succeeded: bool, stride: int) -> None:
        process, ended = pick(self.runs(), run)
        self.go_on(process, self.end_run(process, ended, succeeded), stride)

    @precondition(lambda self: self.runs())
    @rule(run=picks, effects=st.sampled_from((0, 1)), is_written=st.booleans())
    def run_ends_while_the_store_fails(self, run: int, effects: int, is_written: bool) -> None:
        process, ended = pick(self.runs(), run)
        task = self.end_run(process, ended, succeeded=True)
        self.go_on(process, task, effects)
        failing = self.tasks(LoadJob, SwapJob)
        if (process, task) in failing:
            self.store_fails(failing.index((process, task)), is_written)

    def end_run(self, process: Process, ended: Running, succeeded: bool) -> Task:
        process.runs.remove(ended)
        started = ended.started
        result = Result.COMPLETED if succeeded else Result.FAILED
        ended.life.results[started.run.occurrence_us, started.run.attempt] = (process.owner, result)
        finish = Finish(job_id=started.job_id, run=started.run, succeeded=succeeded, confirm=started.confirm)
        return self.begin(process, finish)

    @precondition(lambda self: self.runs())
    @rule(run=picks, stride=strides)
    def lease_is_renewed(self, run: int, stride: int) -> None:
        process, renewed = pick(self.runs(), run)
        renew = Renew(job_id=renewed.started.job_id, run=renewed.started.run)
        self.go_on(process, self.begin(process, renew), stride)

    @precondition(lambda self: any(process.owed for process in self.processes))
    @rule(which=picks)
    def what_is_owed_is_tried(self, which: int) -> None:
        owing = [(process, index) for process in self.processes for index in range(len(process.owed))]
        process, index = pick(owing, which)
        intent, tries = process.owed.pop(index)
        self.begin(process, intent, tries=tries)

    # --- people ---

    def ask(self, process: Process, intent: Intent, stride: int = 0) -> None:
        self.go_on(process, self.begin(process, intent, asked=intent), stride)

    @precondition(lambda self: self.store and not self.asking)
    @rule(job=picks, at=picks, kind=st.sampled_from((Pause, Resume, Remove)), stride=strides)
    def somebody_changes_a_job(self, job: int, at: int, kind: type[Any], stride: int) -> None:
        self.ask(self.up(at), kind(job_id=pick(sorted(self.store), job)), stride)

    def creatable(self) -> list[str]:
        return [
            name for name in self.plans if name not in self.store and self.fresh(name).next_us is not None
        ]

    @precondition(lambda self: self.creatable())
    @rule(job=picks, at=picks, stride=strides)
    def somebody_creates_a_job(self, job: int, at: int, stride: int) -> None:
        name = pick(self.creatable(), job)
        self.ask(self.up(at), Create(job_id=name, job=self.fresh(name)), stride)

    @precondition(lambda self: self.asking)
    @rule(which=picks, at=picks)
    def ask_again(self, which: int, at: int) -> None:
        intent = self.asking.pop(which % len(self.asking))
        if isinstance(intent, Create) and intent.job_id not in self.store:
            fresh = self.fresh(intent.job_id)
            if fresh.next_us is None:
                return  # a one-shot that has passed is not created
            intent = Create(job_id=intent.job_id, job=fresh)
        self.ask(self.up(at), intent)

    @precondition(lambda self: any(task.asked for _, task in self.tasks(ProvisionArm, CancelArm)))
    @rule(task=picks)
    def request_is_lost_and_nobody_asks_again(self, task: int) -> None:
        asked = [each for each in self.tasks(ProvisionArm, CancelArm) if each[1].asked]
        process, lost = pick(asked, task)
        self.request_is_lost(self.tasks(*NAS_REQUESTS).index((process, lost)))
        assert lost.asked is not None
        self.abandoned.add(lost.asked.job_id)
        lost.asked, lost.relay = None, None
        self.go_on(process, lost, ALL)

    # --- what must hold ---

    def is_at_rest(self, name: str) -> bool:
        """Return whether nobody is at work on the job, or is going to be."""
        at_work = [job_id for process in self.processes for job_id in process.jobs_at_work()]
        at_work += [each.job_id for each in (*self.late, *self.asking)]
        at_work += [relay.shot.job_id for relay in self.relays if relay.shot is not None]
        return name not in at_work and name not in self.abandoned and None not in at_work

    def armed_us(self, name: str) -> int | None:
        shot = self.rows.get(name, nas.EMPTY).shot
        return None if shot is None else shot.fire_at_us

    def wake_us(self, name: str) -> int | None:
        job = self.store.get(name)
        if job is None:
            return None
        return self.expected[name].wake_us(None if job.run is None else job.run.lease_until_us)

    @invariant()
    def nothing_happened_that_must_not(self) -> None:
        for expected in (*self.expected.values(), *self.earlier):
            assert not expected.faults, expected.faults

    @invariant()
    def idempotent_dedup(self) -> None:
        for expected in self.expected.values():
            assert all(number == 1 for number in expected.starts.values()), expected.starts

    @invariant()
    def attempts_are_bounded(self) -> None:
        for expected in self.expected.values():
            most = MAX_ATTEMPTS if expected.plan.policy == RETRY else 1
            assert all(number <= most for number in expected.attempts.values()), expected.attempts

    @invariant()
    def repeat_limit(self) -> None:
        for expected in self.expected.values():
            if expected.plan.times is not None:
                assert len(expected.attempts) <= expected.plan.times, expected.attempts

    @invariant()
    def every_occurrence_is_accounted_for(self) -> None:
        """The store waits for the first occurrence of which nothing is known, and holds the run in flight."""
        for name, job in self.store.items():
            expected = self.expected[name]
            run = None if job.run is None else (job.run.occurrence_us, job.run.attempt)
            assert run == expected.in_flight
            if not expected.is_paused:
                assert job.next_us == expected.waiting_us()
            is_over = run is None and expected.waiting_us() is None
            state = JobState.COMPLETED if is_over else JobState.SCHEDULED
            assert job.state is (JobState.PAUSED if expected.is_paused and not is_over else state)

    @invariant()
    def no_lost_rearm(self) -> None:
        for name in self.store:
            if self.is_at_rest(name):
                wake_us, armed_us = self.wake_us(name), self.armed_us(name)
                assert wake_us is None or (armed_us is not None and armed_us <= wake_us), (
                    f"{name} must be woken at {wake_us}, armed is {armed_us}, and nobody is at work on it"
                )

    @invariant()
    def no_orphan_arm(self) -> None:
        for name in self.plans:
            is_acknowledged = self.acknowledged.get(name) == self.store.get(name)
            if is_acknowledged and self.is_at_rest(name) and self.wake_us(name) is None:
                assert self.armed_us(name) is None, f"{name} needs no wake, and is armed"

    # --- the end: heal, and demand that everything converges ---

    def settle(self) -> None:
        """Let everybody go on, without faults, until nothing is left to be done at this instant."""
        for _ in range(200):
            if self.tasks():
                self.go_on(*self.tasks()[0], ALL)
            elif self.late:
                self.ask_nas(self.late.pop())
            elif self.runs():
                self.end_run(*self.runs()[0], succeeded=True)
            elif any(process.owed for process in self.processes):
                self.what_is_owed_is_tried(0)
            elif self.asking:
                self.ask_again(0, 0)
            elif self.due():
                self.deliver(self.up(len(self.fired)), self.due()[0])
            else:
                return
        raise AssertionError(f"it never comes to rest: {self.rows}, {self.store}")

    def teardown(self) -> None:
        self.settle()
        for process in self.processes:
            self.crash(process)
        for at, _ in enumerate(self.processes):
            self.up(at)
        self.settle()
        self.demand_convergence()
        self.now_us += LAST_LOOK_US
        self.settle()
        self.demand_convergence()

    def demand_convergence(self) -> None:
        """Everything that has come has an end, and NAS has armed exactly what is still to come."""
        for check in (
            self.nothing_happened_that_must_not,
            self.idempotent_dedup,
            self.every_occurrence_is_accounted_for,
        ):
            check()
        for name in self.plans:
            assert self.armed_us(name) == self.wake_us(name), (
                f"{name}: {self.armed_us(name)}, {self.wake_us(name)}"
            )
        for name in self.store:
            expected = self.expected[name]
            assert expected.in_flight is None, f"{name}: {expected.in_flight} never ended"
            waiting_us = expected.waiting_us()
            assert expected.is_paused or waiting_us is None or waiting_us > self.now_us, (
                f"{name}: {waiting_us}"
            )


def pick(things: Any, number: int) -> Any:
    return things[number % len(things)]


TestSchedulerAgainstModel = SchedulerAgainstModel.TestCase
TestSchedulerAgainstModel.settings = settings(
    max_examples=max(300, settings.default.max_examples), stateful_step_count=60
)


# --- the machine finds what is broken -----------------------------------------------------------

# The same search each time, and no time spent on a shorter example than the first.
SEARCH = settings(
    max_examples=3000,
    stateful_step_count=60,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def against_model(agent: Agent, follow_up: Callable[..., Intent | None] = machine.follow_up) -> type[Any]:
    """Return the machine for another agent."""
    names = {"agent": agent, "follow_up": staticmethod(follow_up)}
    return type(f"{agent.name} against model", (SchedulerAgainstModel,), names)


def test_naive_agent_is_found_out() -> None:
    """An agent that arms after the run and trusts its memory does not pass for the scheduler."""
    with pytest.raises(AssertionError):
        run_state_machine_as_test(against_model(NAIVE), settings=SEARCH)


@pytest.mark.parametrize(
    "mutant", [pytest.param(each, id=each.name) for each in MUTANTS if each.is_found_by_model]
)
def test_broken_protocol_is_found_out(mutant: Mutant) -> None:
    """Each deliberate mistake makes the machine fail."""
    with pytest.raises(AssertionError):
        run_state_machine_as_test(against_model(agent_of(mutant), follow_up_of(mutant)), settings=SEARCH)
