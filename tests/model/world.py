"""The world around the scheduler: processes, a store, NAS, and work that goes on one operation at a time.

A process is a `chronos.agent.work.Worker`. What its generators ask for is performed here, in virtual time and
whenever somebody says so: between any two operations of any two pieces of work something else can come.
Performing an operation and going on with its result are two steps, as they are for threads.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import attrs
from chronos.agent.operations import Execute, Join, Operation, Pending, Perform, Read, Sleep, Spawn
from chronos.agent.work import Worker

from chronos import events
from chronos.agent.effects import Failed, event_of, question, request
from chronos.errors import NasUnavailable, StaleRevision, StoreError
from chronos.jobs.job import Job, Run
from chronos.jobs.schedule import SECOND_US
from chronos.nas.exchange import ArmAnswer
from chronos.protocol.flow import (
    FOLLOW_UP_DELAYS_US,
    CancelArm,
    Effect,
    Event,
    Finish,
    Fire,
    Intent,
    JobSwapped,
    LoadJob,
    LoadJobs,
    ProvisionArm,
    Renew,
    SwapConflicted,
    SwapJob,
)
from chronos.stores import MemoryStore
from chronos.testing import nas
from chronos.testing.nas import HARDENED, OneShot, Row
from tests.model.expected import Expected, Moved
from tests.model.plans import T0, grid_of

# As long as it takes: the end of a piece of work, or its next wait.
ALL = 99


class Signal:
    """Something that may happen once, and be waited for."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def clear(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set


@attrs.define(eq=False)
class Relay:
    """A fire that NAS waits for the answer of; None once it waits no longer."""

    shot: OneShot | None


@attrs.define(eq=False)
class Strand:
    """A piece of work in progress.

    Attributes:
        process: whose.
        work: the generator.
        operation: what it waits for; None before its first step.
        is_told: whether that has come back, and the generator can go on.
        result: what has come back.
        wakes_us: until when it sleeps.
        decided_us: when it last went on.
        asked: what somebody wants and waits for.
        relay: the fire that it answers.
        found: the life of the job that it has last seen in the store.
        run: the run that it is.
    """

    process: Process
    work: Generator[Operation, Any, Any]
    operation: Operation | None = None
    is_told: bool = True
    result: Any = None
    wakes_us: int = 0
    decided_us: int = 0
    asked: Intent | None = None
    relay: Relay | None = None
    found: Expected | None = None
    run: Run | None = None
    has_ended: bool = False

    @property
    def effect(self) -> Effect | None:
        """The effect that it wants performed and that was not yet."""
        is_asking = isinstance(self.operation, Perform) and not self.is_told
        return self.operation.effect if is_asking and isinstance(self.operation, Perform) else None


@attrs.define(eq=False)
class Process:
    """A machine, and the process of its present life."""

    name: str
    life: int = 0
    worker: Worker | None = None
    strands: list[Strand] = attrs.field(factory=list)

    @property
    def is_up(self) -> bool:
        return self.worker is not None

    def is_busy(self) -> bool:
        """Return whether it tells its host not to stop the machine."""
        return self.worker is not None and any(each.is_busy for each in self.worker.pending())


class World:
    """Two processes that share a store and a NAS."""

    def __init__(self) -> None:
        self.now_us = T0
        self.store = MemoryStore(history_length=10_000)
        self.rows: dict[str, Row] = {}
        self.processes = (Process("a"), Process("b"))
        self.relays: list[Relay] = []
        self.answers: list[tuple[Relay, bool]] = []
        self.fired: list[Fire] = []
        self.late: list[ProvisionArm | CancelArm] = []
        self.asking: list[Intent] = []
        self.asked: dict[str, list[int]] = {}
        self.ever_asked: set[int] = set()
        self.expected: dict[str, Expected] = {}
        self.earlier: list[Expected] = []
        self.claimed: dict[tuple[Any, ...], Expected] = {}
        self.acknowledged: dict[str, Job | None] = {}
        self.left_alone: set[str] = set()
        self.failed_ends: Counter[tuple[Any, ...]] = Counter()
        self.going_on: Strand | None = None
        self.is_stopped = False

    # --- processes ---

    def up(self, process: Process) -> Process:
        """Return *process*, up: one that was down starts, and reconciles."""
        if process.worker is None:
            process.life += 1
            owner = f"{process.name}/{process.life}"
            process.worker = Worker(
                owner=owner,
                clock=lambda: self.now_us,
                monotonic=lambda: self.now_us / SECOND_US,
                is_dead=lambda other: other != owner and other.startswith(f"{process.name}/"),
                is_stopped=lambda: self.is_stopped,
                has_nas=True,
                new_signal=Signal,
                publish=lambda event: self.publish(process, event),
            )
            self.start(process)
        return process

    def start(self, process: Process) -> None:
        assert process.worker is not None
        listed = Pending(job_id="", reason="the start is reconciling", is_busy=True)
        self.begin(process, Spawn(process.worker.start(), listed))

    def end_life(self, process: Process) -> None:
        """End the process, wherever it is; who waits for it learns nothing."""
        strands, process.strands = process.strands, []
        process.worker = None
        for strand in strands:
            strand.has_ended = True
            self.close(strand.relay)
            if strand.asked is not None:
                self.asking.append(strand.asked)
            strand.work.close()

    def strands(self) -> Iterator[Strand]:
        """Yield all work in progress."""
        return itertools.chain.from_iterable(process.strands for process in self.processes)

    def ask(self, process: Process, intent: Intent) -> Strand:
        """Ask *process* for a change, as somebody who waits for the answer."""
        assert process.worker is not None
        return self.begin(process, process.worker.ask(intent), asked=intent)

    def deliver(self, process: Process, shot: OneShot) -> Strand:
        """Let NAS fire a one-shot, and wait for the answer."""
        assert process.worker is not None
        relay = Relay(shot)
        self.relays.append(relay)
        fire = Fire(job_id=shot.job_id, fire_at_us=shot.fire_at_us)
        self.fired.append(fire)
        return self.begin(process, process.worker.ask(fire), relay=relay)

    def due(self) -> list[OneShot]:
        """Return the one-shots whose time has come, and that nobody is being called for."""
        called = [relay.shot for relay in self.relays]
        shots = [row.shot for row in self.rows.values() if row.shot is not None]
        return [shot for shot in shots if shot.fire_at_us <= self.now_us and shot not in called]

    def close(self, relay: Relay | None, *, is_accepted: bool = False) -> None:
        """NAS has its answer, or waits no longer."""
        if relay is None or relay.shot is None:
            return
        self.relays.remove(relay)
        if is_accepted:
            row = self.rows[relay.shot.job_id]
            self.rows[relay.shot.job_id] = nas.delivered(HARDENED, row, relay.shot)
        relay.shot = None

    def hear(self, number: int) -> None:
        """Let an answer to a fire reach NAS."""
        relay, is_accepted = self.answers.pop(number)
        self.close(relay, is_accepted=is_accepted)

    # --- work, one operation at a time ---

    def begin(self, process: Process, spawn: Spawn, **fields: Any) -> Strand:
        """Begin a piece of work, without a step of it."""
        strand = Strand(process, spawn.work, **fields)
        process.strands.append(strand)
        if spawn.pending is not None and process.worker is not None:
            process.worker.tasks[strand] = spawn.pending
        return strand

    def is_ready(self, strand: Strand) -> bool:
        """Return whether *strand* can go on, or what it wants can be had without anybody else."""
        if strand.is_told:
            return True
        match strand.operation:
            case Sleep(until=until):
                return until.is_set() or self.now_us >= strand.wakes_us
            case Join(tasks=tasks):
                return all(task.has_ended for task in tasks if isinstance(task, Strand))
            case Execute():
                return False
        return True

    def ready(self) -> list[Strand]:
        """Return the work that can go on."""
        return [strand for strand in self.strands() if self.is_ready(strand)]

    def go_on(self, strand: Strand, steps: int) -> None:
        """Let *strand* take so many steps, or as many as it can."""
        for _ in range(steps if steps < ALL else 10_000):
            if strand.has_ended or not self.is_ready(strand):
                return
            if strand.is_told:
                self._resume(strand)
            else:
                self._perform(strand)

    def tell(self, strand: Strand, result: Any) -> None:
        """Let what *strand* wants come back."""
        strand.is_told, strand.result = True, result

    def _resume(self, strand: Strand) -> None:
        """Let the generator go on to its next operation."""
        self.now_us += 1  # no two things happen at one instant of the clock
        strand.is_told, strand.decided_us = False, self.now_us
        result, strand.result, strand.operation = strand.result, None, None
        while True:
            self.going_on = strand
            try:
                operation = strand.work.send(result)
            except StopIteration as ended:
                self._end(strand, ended.value)
                return
            if not isinstance(operation, Spawn):
                break
            # What calls the runner beside the run that waits for it is at work on the same run.
            result = self.begin(strand.process, operation, found=strand.found, run=strand.run)
        strand.operation = operation
        if isinstance(operation, Sleep):
            strand.wakes_us = self.now_us + operation.delay_us
        if isinstance(strand.effect, SwapJob) and strand.effect.expected is None:
            # A job has its place in the order from when its creation is decided. Who looks for it between
            # that and the write finds nothing, and may disarm it: that is known (decision 0005).
            self._perform(strand)

    def _end(self, strand: Strand, value: Any) -> None:
        process = strand.process
        strand.has_ended = True
        process.strands.remove(strand)
        assert process.worker is not None
        process.worker.tasks.pop(strand, None)
        if strand.relay is not None:
            self.answers.append((strand.relay, value.settled))
        if strand.asked is not None and not value.settled:
            self.asking.append(strand.asked)
        elif strand.asked is not None and value.settled:
            self.left_alone.discard(strand.asked.job_id)

    def _perform(self, strand: Strand) -> None:
        match strand.operation:
            case Perform(effect=effect):
                self.tell(strand, self.performed(strand, effect))
            case Read(question=ask):
                self.tell(strand, ask(self.store))
            case Sleep(until=until):
                self.tell(strand, until.is_set())
            case Join(tasks=tasks):
                self.tell(strand, [None for _ in tasks])

    def performed(self, strand: Strand, effect: Effect) -> Event:
        """Return what comes of an effect that nothing hinders."""
        ask = question(effect, self.store)
        if ask is None:
            return event_of(effect, self._nas(effect))
        old = self.store.load(effect.job_id) if isinstance(effect, SwapJob) else None
        event = event_of(effect, ask())
        if isinstance(effect, SwapJob) and isinstance(event, JobSwapped):
            self._moved(strand, effect, old)
        elif isinstance(effect, LoadJob) or isinstance(event, SwapConflicted):
            strand.found = self.expected.get(effect.job_id)  # type: ignore[union-attr]
        return event

    def fail(self, strand: Strand, *, is_done: bool) -> None:
        """Let what *strand* wants fail; *is_done* says that it was done all the same."""
        effect = strand.effect
        assert effect is not None
        if is_done and not isinstance(effect, LoadJob | LoadJobs):
            self.performed(strand, effect)
        if question(effect, self.store) is None:
            error: Exception = NasUnavailable("no answer")
        else:
            error = StoreError("it failed", definite=not is_done)
        self.tell(strand, event_of(effect, Failed(error)))

    def _nas(self, effect: Effect) -> Any:
        try:
            return request(effect, self, None)
        except StaleRevision as stale:
            return Failed(stale)

    # --- NAS ---

    def provision(self, job_id: str, fire_at_us: int, *, revision: int, **_: object) -> ArmAnswer:
        row = self.rows.get(job_id, nas.EMPTY)
        decision = nas.provision(
            HARDENED, row, job_id=job_id, fire_at_us=fire_at_us, revision=revision, relays=self._called_for()
        )
        return self._decided(job_id, decision)

    def cancel(self, job_id: str, *, revision: int, **_: object) -> ArmAnswer:
        return self._decided(
            job_id, nas.cancel(HARDENED, self.rows.get(job_id, nas.EMPTY), revision=revision)
        )

    def list_arms(self, **_: object) -> Mapping[str, int | None]:
        shots = (nas.listed(HARDENED, row, relays=self._called_for()) for row in self.rows.values())
        return {shot.job_id: shot.fire_at_us for shot in shots if shot is not None}

    def _called_for(self) -> list[OneShot]:
        """Return the one-shots whose relays are open."""
        return [relay.shot for relay in self.relays if relay.shot is not None]

    def _decided(self, job_id: str, decision: nas.Decision) -> ArmAnswer:
        self.rows[job_id] = decision.row
        if decision.reply.outdated is not None:
            raise StaleRevision(decision.reply.outdated)
        return ArmAnswer(echoed=decision.reply.echoed)

    def arrive(self, effect: ProvisionArm | CancelArm) -> None:
        """Let a request of which nobody awaits the answer reach NAS."""
        self._nas(effect)

    def armed_us(self, name: str) -> int | None:
        """Return when NAS will fire the job."""
        shot = self.rows.get(name, nas.EMPTY).shot
        return None if shot is None else shot.fire_at_us

    # --- what the book is told ---

    def _moved(self, strand: Strand, effect: SwapJob, old: Job | None) -> None:
        """The store has moved: take it down in the book of the job."""
        name, new = effect.job_id, effect.replacement
        if new is None:
            self.earlier.append(self.expected.pop(name))
            self.asked.pop(name, None)
            return
        if old is None:
            grid = grid_of(new.schedule, new.policy)
            book = Expected(grid, new.policy, new.times, new.next_us, had=[new.policy])
            self.expected[name] = book
            return
        if attrs.evolve(old, revision=new.revision) == new:
            return  # it was only put behind an earlier life
        worker = strand.process.worker
        assert worker is not None
        book = self.expected[name]
        book.move(
            Moved(
                old=old,
                new=new,
                outcomes=effect.outcomes,
                change=strand.asked,
                owner=worker.owner,
                decided_us=strand.decided_us,
                asked=self.ever_asked,
                is_running=lambda run: self.is_running(name, run),
                is_known_dead=lambda owner: owner.startswith(f"{strand.process.name}/"),
                has_given_up=lambda run: self.failed_ends[_key(name, run)] > len(FOLLOW_UP_DELAYS_US),
            )
        )
        for run in new.runs:
            if not run.is_among(old.runs):
                self.claimed[_key(name, run)] = book

    def is_running(self, name: str, run: Run) -> bool:
        """Return whether a living process has *run* in flight."""
        book = self.expected.get(name)
        return any(
            strand.run is not None
            and strand.run.is_same_as(run)
            and isinstance(strand.operation, Execute)
            and not strand.is_told
            and not strand.operation.context.timed_out.is_set()
            and self.claimed.get(_key(name, run)) is book
            for strand in self.strands()
        )

    def publish(self, _process: Process, event: events.Event) -> None:
        """Take down what a process says."""
        match event:
            case events.RunStarted(job_id=job_id, run=run):
                strand = self.going_on
                assert strand is not None
                strand.run = run
                self._started(strand, job_id, run)
            case events.RunEnded(job_id=job_id, run=run, succeeded=succeeded, detail=detail):
                book = self.claimed[_key(job_id, run)]
                if detail.startswith("timed out"):
                    book.time_out(run, now_us=self.now_us)
                book.end(run, succeeded=succeeded)
            case events.FlowEnded(intent=intent, answer=answer):
                # The end of a run and its renewal are settled without asking NAS where they change nothing
                # for it: that tells nobody anything.
                if answer.settled and not isinstance(intent, Finish | Renew):
                    self.acknowledged[answer.job_id] = answer.job
                if isinstance(intent, Finish) and answer.verdict is None:
                    self.failed_ends[_key(intent.job_id, intent.run)] += 1

    def _started(self, strand: Strand, job_id: str, run: Run) -> None:
        book = self.claimed.get(_key(job_id, run))
        assert book is not None, f"{run} was started and was never claimed"
        is_there = self.expected.get(job_id) is book
        book.start(
            run,
            job=self.store.load(job_id) if is_there else None,
            now_us=self.now_us,
            is_found_removed=strand.found is not book,
        )

    def end_run(self, strand: Strand, *, succeeded: bool) -> None:
        """Let a runner end, in time or too late; with a time limit, its process says which."""
        assert isinstance(strand.operation, Execute)
        assert strand.run is not None
        context = strand.operation.context
        if context.deadline_s is None:
            self.claimed[_key(context.job_id, strand.run)].end(strand.run, succeeded=succeeded)
        self.tell(strand, (succeeded, "" if succeeded else "it failed"))

    def executing(self) -> list[Strand]:
        """Return the runs in flight."""
        return [
            strand
            for strand in self.strands()
            if isinstance(strand.operation, Execute) and not strand.is_told
        ]


def _key(job_id: str, run: Run) -> tuple[Any, ...]:
    return (job_id, run.owner, run.identity, run.attempt, run.claimed_us)
