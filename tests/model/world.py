"""The world around the scheduler: processes, a store, NAS, and effects that are performed one at a time.

A process is the value of `chronos.protocol.state`. What it wants is performed here, in virtual time and
whenever somebody says so: between any two effects of any two flows something else can come. Performing an
effect and handing back what came of it are two steps, as they are for threads.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import attrs

from chronos import events
from chronos.agent.effects import Failed, event_of, question, request
from chronos.errors import NasUnavailable, StaleRevision, StoreError
from chronos.jobs.job import Job, Run
from chronos.nas.exchange import ArmAnswer
from chronos.protocol import state
from chronos.protocol.flow_effects import (
    CancelArm,
    Effect,
    Event,
    JobSwapped,
    LoadJob,
    LoadJobs,
    ProvisionArm,
    SwapConflicted,
    SwapJob,
)
from chronos.protocol.follow_ups import FOLLOW_UP_DELAYS_US
from chronos.protocol.intents import Finish, Fire, Intent, Renew
from chronos.protocol.pending import pending
from chronos.protocol.process import rings_us, step
from chronos.protocol.process_effects import (
    Asked,
    AskedToDrain,
    AskedToStart,
    CallRunner,
    Came,
    Perform,
    Rang,
    Reply,
    RunEnded,
    Tell,
    TellRunner,
)
from chronos.protocol.process_effects import Event as ProcessEvent
from chronos.stores import MemoryStore
from chronos.testing import nas
from chronos.testing.nas import HARDENED, OneShot, Row
from chronos.values import evolve
from tests.model.expected import Expected, Moved
from tests.model.plans import T0, grid_of

# As long as it takes: until a flow has ended.
ALL = 99


@attrs.define(eq=False)
class Relay:
    """A fire that NAS waits for the answer of; None once it waits no longer."""

    shot: OneShot | None


@attrs.define(eq=False)
class Strand:
    """Something that has not come back to its process: an effect, a run, or a timer that is due.

    Attributes:
        process: whose.
        number: the task that waits for it; None of a run and of a timer.
        effect: what is to be performed; None once it was, of a run and of a timer.
        event: what has come back, and was not handed over yet.
        decided_us: when its process wanted it.
        started: the run that it is.
        key: by which its process knows the run.
        is_over: whether the time of the run is over.
    """

    process: Process
    number: int | None = None
    effect: Effect | None = None
    event: ProcessEvent | None = None
    decided_us: int = 0
    started: Any = None
    key: Hashable = None
    is_over: bool = False

    @property
    def is_run(self) -> bool:
        """Whether it is a runner that is still at work."""
        return self.started is not None and self.event is None


@attrs.define(eq=False)
class Process:
    """A machine, and the process of its present life.

    Attributes:
        name: of the machine.
        life: how many lives it has had.
        value: what its process knows; None while it is down.
        strands: what has not come back to it.
        waits: who waits for its answers: a relay, or what somebody wants.
        found: for each task, the life of the job that it has last seen in the store.
    """

    name: str
    life: int = 0
    value: state.Process | None = None
    strands: list[Strand] = attrs.field(factory=list)
    waits: dict[Hashable, Relay | Intent | None] = attrs.field(factory=dict)
    found: dict[int, Expected | None] = attrs.field(factory=dict)

    @property
    def is_up(self) -> bool:
        return self.value is not None


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
        self.is_stopped = False

    # --- processes ---

    def now(self) -> state.Now:
        return state.Now(self.now_us, self.now_us, self.is_stopped)

    def pending(self, process: Process) -> tuple[state.Pending, ...]:
        return () if process.value is None else pending(process.value, self.now())

    def is_busy(self, process: Process) -> bool:
        """Return whether it tells its host not to stop the machine."""
        return any(each.is_busy for each in self.pending(process))

    def up(self, process: Process) -> Process:
        """Return *process*, up: one that was down starts, and reconciles."""
        if process.value is None:
            process.life += 1
            process.value = state.new_process(f"{process.name}/{process.life}")
            self.start(process)
        return process

    def start(self, process: Process) -> None:
        self.begin(process, AskedToStart, None)

    def drain(self, process: Process) -> None:
        self.happen(process, AskedToDrain())

    def end_life(self, process: Process) -> None:
        """End the process, wherever it is; who waits for it learns nothing."""
        waits = tuple(process.waits.values())
        process.value, process.strands, process.waits, process.found = None, [], {}, {}
        for each in waits:
            if isinstance(each, Relay):
                self.close(each)
            elif each is not None:
                self.asking.append(each)

    def strands(self) -> Iterator[Strand]:
        """Yield all that has not come back."""
        return itertools.chain.from_iterable(process.strands for process in self.processes)

    def ask(self, process: Process, intent: Intent, waits: Relay | Intent | None = None) -> Strand | None:
        """Ask *process* for a flow; with nobody else who waits, somebody who wants it does."""
        return self.begin(process, Asked, intent if waits is None else waits, intent)

    def deliver(self, process: Process, shot: OneShot) -> Strand | None:
        """Let NAS fire a one-shot, and wait for the answer."""
        relay = Relay(shot)
        self.relays.append(relay)
        fire = Fire(job_id=shot.job_id, fire_at_us=shot.fire_at_us)
        self.fired.append(fire)
        return self.ask(process, fire, relay)

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

    # --- effects, one at a time ---

    def begin(
        self, process: Process, asked: Any, waits: Relay | Intent | None, *what: object
    ) -> Strand | None:
        """Ask *process* for something; return what it wants first."""
        ticket = next(each for each in itertools.count() if each not in process.waits)
        process.waits[ticket] = waits
        before = len(process.strands)
        self.happen(process, asked(ticket, *what))
        return process.strands[before] if len(process.strands) > before else None

    def ready(self) -> list[Strand]:
        """Return what can go on: effects, what has come back, and timers that are due."""
        ready = [strand for strand in self.strands() if not strand.is_run]
        for process in self.processes:
            due_us = None if process.value is None else rings_us(process.value)
            if due_us is not None and due_us <= self.now_us:
                ready.append(Strand(process, event=Rang()))
        return ready

    def go_on(self, strand: Strand | None, steps: int) -> None:
        """Let what *strand* leads to take so many steps, or as many as it can."""
        for _ in range(steps if steps < ALL else 10_000):
            if strand is None or strand.is_run:
                return
            if strand.event is None:
                self._perform(strand)
            else:
                strand = self._hand_over(strand)

    def _perform(self, strand: Strand) -> None:
        assert strand.effect is not None
        assert strand.number is not None
        strand.event = Came(strand.number, self.performed(strand, strand.effect))

    def _hand_over(self, strand: Strand) -> Strand | None:
        """Hand over what has come back; return what its task wants next."""
        process, event = strand.process, strand.event
        assert event is not None
        if strand in process.strands:
            process.strands.remove(strand)
        elif not isinstance(event, Rang):
            return None  # its process is no more
        before = len(process.strands)
        self.happen(process, event, strand.number)
        new = process.strands[before:]
        return next((each for each in new if each.number == strand.number and not each.is_run), None)

    def happen(self, process: Process, event: ProcessEvent, number: int | None = None) -> None:
        """Let something happen to a process; *number* is the task that it is for."""
        assert process.value is not None
        self.now_us += 1  # no two things happen at one instant of the clock
        found = None if number is None else process.found.pop(number, None)
        process.value, effects = step(process.value, event, self.now())
        if number in process.value.tasks:
            process.found[number] = found
        for effect in effects:
            match effect:
                case Perform(number=wanting, effect=wanted):
                    self._want(process, wanting, wanted)
                case CallRunner(key=key, started=started):
                    run = Strand(process, started=started, key=key, decided_us=self.now_us)
                    process.strands.append(run)
                    self._started(started.job_id, started.run, found)
                case TellRunner(key=key):
                    for each in process.strands:
                        each.is_over = each.is_over or (each.is_run and each.key == key)
                case Reply(ticket=ticket, result=result):
                    self._answered(process.waits.pop(ticket), result)
                case Tell(event=told):
                    self.publish(told)

    def _want(self, process: Process, number: int, effect: Effect) -> None:
        strand = Strand(process, number, effect, decided_us=self.now_us)
        process.strands.append(strand)
        if isinstance(effect, SwapJob) and effect.expected is None:
            # A job has its place in the order from when its creation is decided. Who looks for it between
            # that and the write finds nothing, and may disarm it: that is known (decision 0005).
            self._perform(strand)

    def _answered(self, waits: Relay | Intent | None, result: Any) -> None:
        if isinstance(waits, Relay):
            self.answers.append((waits, result.settled))
        elif waits is not None and not result.settled:
            self.asking.append(waits)
        elif waits is not None:
            self.left_alone.discard(waits.job_id)

    def performed(self, strand: Strand, effect: Effect) -> Event:
        """Return what comes of an effect that nothing hinders."""
        ask = question(effect, self.store)
        if ask is None:
            return event_of(effect, self._nas(effect), self._is_dead(strand.process))
        old = self.store.load(effect.job_id) if isinstance(effect, SwapJob) else None
        event = event_of(effect, ask(), self._is_dead(strand.process))
        if isinstance(effect, SwapJob) and isinstance(event, JobSwapped):
            self._moved(strand, effect, old)
        elif isinstance(effect, LoadJob) or isinstance(event, SwapConflicted):
            assert strand.number is not None
            strand.process.found[strand.number] = self.expected.get(effect.job_id)  # type: ignore[union-attr]
        return event

    def _is_dead(self, process: Process) -> Any:
        assert process.value is not None
        own = process.value.owner
        return lambda owner: owner != own and owner.startswith(f"{process.name}/")

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
        event = event_of(effect, Failed(error), self._is_dead(strand.process))
        assert strand.number is not None
        strand.event = Came(strand.number, event)

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
        if evolve(old, revision=new.revision) == new:
            return  # it was only put behind an earlier life
        value = strand.process.value
        assert value is not None
        assert strand.number is not None
        purpose = value.tasks[strand.number].purpose
        asked = strand.process.waits[purpose.ticket] if isinstance(purpose, state.ForCaller) else None
        book = self.expected[name]
        book.move(
            Moved(
                old=old,
                new=new,
                outcomes=effect.outcomes,
                change=None if isinstance(asked, Relay) else asked,
                owner=value.owner,
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
            strand.is_run
            and strand.started.run.is_same_as(run)
            and not strand.is_over
            and self.claimed.get(_key(name, run)) is book
            for strand in self.strands()
        )

    def publish(self, event: events.Event) -> None:
        """Take down what a process says."""
        match event:
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

    def _started(self, job_id: str, run: Run, found: Expected | None) -> None:
        book = self.claimed.get(_key(job_id, run))
        assert book is not None, f"{run} was started and was never claimed"
        is_there = self.expected.get(job_id) is book
        book.start(
            run,
            job=self.store.load(job_id) if is_there else None,
            now_us=self.now_us,
            is_found_removed=found is not book,
        )

    def end_run(self, strand: Strand, *, succeeded: bool) -> None:
        """Let a runner end, in time or too late; with a time limit, its process says which."""
        assert strand.is_run
        run, job_id = strand.started.run, strand.started.job_id
        if strand.started.time_limit_us is None:
            self.claimed[_key(job_id, run)].end(run, succeeded=succeeded)
        strand.event = RunEnded(strand.key, succeeded, "" if succeeded else "it failed")

    def executing(self) -> list[Strand]:
        """Return the runs in flight."""
        return [strand for strand in self.strands() if strand.is_run]


def _key(job_id: str, run: Run) -> tuple[Any, ...]:
    return (job_id, run.owner, run.identity, run.attempt, run.claimed_us)
