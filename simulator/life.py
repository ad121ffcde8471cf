"""One life of a machine: performs what the agent's process wants, in simulated time, and decides nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from chronos import events
from chronos.contract.messages import status_of
from chronos.jobs.job import Job, Liveness, Origin, Run, Verdict
from chronos.protocol import state
from chronos.protocol.flow_effects import (
    Answer,
    ArmFailed,
    CancelArm,
    Effect,
    Event,
    HistoryLoaded,
    JobLoaded,
    JobsLoaded,
    JobSwapped,
    ListArms,
    LoadHistory,
    LoadJobs,
    ProvisionArm,
    StoreFailed,
    SwapConflicted,
    SwapJob,
)
from chronos.protocol.intents import Fire, Intent, Renew
from chronos.protocol.maps import Map
from chronos.protocol.process_effects import (
    Asked,
    AskedToDrain,
    AskedToStart,
    CallRunner,
    Came,
    Log,
    Perform,
    Rang,
    Reply,
    RunEnded,
    Tell,
    TellRunner,
)
from chronos.protocol.process_effects import Effect as ProcessEffect
from chronos.protocol.process_effects import Event as ProcessEvent
from chronos.protocol.state import Now
from simulator import faults
from simulator.faults import Write
from simulator.history import Kind
from simulator.moments import is_relied_on
from simulator.nas_server import FAILED, Call, Relay

if TYPE_CHECKING:
    from simulator.host import Machine

# One read or write of a store that replicas share.
SHARED_STORE_US = 4_000

_SWAPPED = JobSwapped()
_STORE_FAILED = StoreFailed()

Waits: TypeAlias = "Relay | Callable[[Answer | None], None] | None"


@attrs.define(eq=False)
class Running:
    """A runner at work."""

    subject: int
    effect: CallRunner
    has_ended: bool = False


class Life:
    """A process of the agent on its machine, until one of them ends.

    Attributes:
        process: what the process knows.
        up_since_us: when it could first answer.
        runs_before: how many runs had started before.
        is_alive: whether it still runs.
        running: the runners at work.
        asked: the effects that have not come back, each with the job that it is about.
        seen: the process as the host last saw it.
    """

    def __init__(self, machine: Machine, process: state.Process) -> None:
        self._machine, self._kernel, self._watch = machine, machine.kernel, machine.watch
        self.process = process
        self.up_since_us = self._kernel.now_us
        self.runs_before = self._watch.runs_started
        self.is_alive = True
        self.running: dict[Hashable, Running] = {}
        self.asked: dict[int, int] = {}
        self.seen: state.Process | None = None
        self._tickets: dict[Hashable, tuple[int, Waits]] = {}
        self._starts: dict[Hashable, Callable[[bool], None]] = {}
        self._claims: dict[str, list[Run]] = {}
        self._events: deque[ProcessEvent] = deque()
        self._is_stepping = False
        self._rings_us: int | None = None
        self._holds_all = False
        self._held: Map[Hashable, state.Owed] = Map()

    def now(self) -> Now:
        """Return the present, as the process sees it."""
        return Now(self._machine.now_us(), self._kernel.now_us, self._machine.is_told_to_stop)

    # --- what others want of it ---

    def ask(self, subject: int, intent: Intent, waits: Waits) -> None:
        """Ask for a flow; *waits* is told of the answer."""
        ticket = object()
        self._tickets[ticket] = (subject, waits)
        self._watch.hold(subject)
        self.happen(Asked(ticket, intent))

    def start(self, then: Callable[[bool], None] | None = None) -> None:
        """Reconcile, as a starting process does; *then* is told whether everything is settled."""
        ticket = None if then is None else object()
        if then is not None:
            self._starts[ticket] = then
        self.happen(AskedToStart(ticket))

    def drain(self) -> None:
        """Turn fires away, and let what waits wait no longer."""
        self.happen(AskedToDrain())

    def end(self) -> None:
        """End at once, whatever is going on; nobody is told but those who wait for it."""
        self.is_alive = False
        watch, kernel = self._watch, self._kernel
        busy = {running.subject for running in self.running.values()} | set(self.asked.values())
        for subject in sorted(busy):
            kernel.record(Kind.CRASHED, subject, self._machine.index)
        for running in self.running.values():
            watch.marks["crash-during-a-run"] += 1
            watch.ended(running.subject)
            watch.release(running.subject)
        for subject in self.asked.values():
            watch.release(subject)
        for task in self.process.tasks.values():
            self._mark_crash(task)
        for subject, waits in self._tickets.values():
            if isinstance(waits, Relay):
                self._machine.nas.answered(waits, 502)
            elif waits is not None:
                waits(None)
            watch.release(subject)
        for then in self._starts.values():
            then(False)
        self._hold_owed(Map())
        if self._holds_all:
            watch.release_all()

    def _mark_crash(self, task: state.Task) -> None:
        flow = task.flow
        if isinstance(task.intent, Fire) and flow.phase == "arming" and flow.move.runs:
            self._watch.marks["crash-between-claim-and-arm"] += 1

    def relied_on(self) -> int:
        """Return how many effects have not come back on which somebody relies: no slow look, no late try."""
        tasks = (self.process.tasks[number] for number in self.asked if number in self.process.tasks)
        return sum(is_relied_on(task) for task in tasks)

    # --- steps ---

    def happen(self, event: ProcessEvent) -> None:
        """Let something happen to the process, and perform what it wants."""
        self._events.append(event)
        if self._is_stepping:
            return
        self._is_stepping = True
        while self._events and self.is_alive:
            self._step(self._events.popleft())
        self._is_stepping = False

    def _step(self, event: ProcessEvent) -> None:
        kernel = self._kernel
        self.process, effects = self._machine.agent.step(self.process, event, self.now())
        subject = self.asked.pop(event.number, None) if type(event) is Came else None
        for effect in effects:
            kind = type(effect)
            if kind is Tell:
                self._told(effect.event)
            elif kind is not Log:
                if kernel.fault(faults.CRASH):
                    self._mark_unanswered(effect)
                    self._machine.crash()
                    break
                _PERFORM[kind](self, effect)
        if self.is_alive:
            if self.process.owed is not self._held:
                self._hold_owed(self.process.owed)
            self._hold_all()
            self._set_alarm()
        if subject is not None:
            self._watch.release(subject)

    def _mark_unanswered(self, effect: ProcessEffect) -> None:
        waits = self._tickets.get(effect.ticket, (0, None))[1] if isinstance(effect, Reply) else None
        if isinstance(waits, Relay):
            self._watch.marks["crash-between-arm-and-answer"] += 1

    def _hold_owed(self, owed: Map[Hashable, state.Owed]) -> None:
        """Hold the jobs for which something is owed, as long as the host keeps the machine for that."""
        before, self._held = self._held, owed
        for key, each in owed.items():
            if each.is_busy and not (key in before and before[key].is_busy):
                self._watch.marks["settled-afterwards"] += 1
                self._watch.hold(self._machine.store.subjects[each.intent.job_id])
        for key, each in before.items():
            if each.is_busy and not (key in owed and owed[key].is_busy):
                self._watch.release(self._machine.store.subjects[each.intent.job_id])

    def _hold_all(self) -> None:
        """Hold every job while a start looks at them."""
        process = self.process
        lists = process.lists
        holds = bool(process.batches) or (lists is not None and lists.is_busy)
        if not holds:
            for task in process.tasks.values():
                if task.intent is None:
                    holds = True
        if holds != self._holds_all:
            self._holds_all = holds
            if holds:
                self._watch.hold_all()
            else:
                self._watch.release_all()

    def _set_alarm(self) -> None:
        due_us = self._machine.agent.rings_us(self.process)
        if due_us is not None and (self._rings_us is None or due_us < self._rings_us):
            self._rings_us = due_us
            self._kernel.at(max(due_us, self._kernel.now_us), self._ring, due_us)

    def _ring(self, due_us: int) -> None:
        if self.is_alive and self._rings_us == due_us:
            self._rings_us = None
            wanted_us = self._machine.agent.rings_us(self.process)
            if wanted_us is not None and wanted_us <= self._kernel.now_us:
                self.happen(Rang())
            else:
                self._set_alarm()

    # --- the store ---

    def _perform(self, effect: Perform) -> None:
        """Ask the store, whose answer comes at once unless machines share it; or NAS."""
        wanted = effect.effect
        job_id = getattr(wanted, "job_id", None)
        subject = self._machine.subject if job_id is None else self._machine.store.subjects[job_id]
        if effect.within_us is None and not self._machine.shares_store:
            self._events.append(Came(effect.number, self._from_store(subject, wanted)))
            return
        self.asked[effect.number] = subject
        self._watch.hold(subject)
        if effect.within_us is not None:
            self._ask(effect, subject)
        else:
            event = self._from_store(subject, wanted)
            self._kernel.after(SHARED_STORE_US, self._came, effect.number, event)

    def _came(self, number: int, event: Event) -> None:
        if self.is_alive:
            self.happen(Came(number, event))

    def _from_store(self, subject: int, effect: Effect) -> Event:
        store = self._machine.store
        if isinstance(effect, SwapJob):
            return self._swap(subject, effect)
        if isinstance(effect, LoadJobs):
            return JobsLoaded([(job, self._owners(job)) for job in store.jobs if job is not None])
        if self._kernel.fault(faults.STORE_FAILURE) is not None:
            self._kernel.record(Kind.STORE_FAILED, subject)
            return _STORE_FAILED
        if isinstance(effect, LoadHistory):
            return HistoryLoaded(store.history(subject))
        job = store.jobs[subject]
        return JobLoaded(job, self._owners(job))

    def _owners(self, job: Job | None) -> tuple[Liveness, ...]:
        """Return what this machine knows of the processes that own the job's runs."""
        if job is None or not job.runs:
            return ()
        owners, machine = self._machine.owners, self._machine
        return tuple(
            Liveness.DEAD
            if run.owner != self.process.owner and owners.get(run.owner) is machine
            else Liveness.UNKNOWN
            for run in job.runs
        )

    def _swap(self, subject: int, effect: SwapJob) -> Event:
        kernel, store, marks = self._kernel, self._machine.store, self._watch.marks
        failure = kernel.fault(faults.STORE_FAILURE)
        if failure is not None:
            kernel.record(Kind.STORE_FAILED, subject)
            if failure is Write.WRITTEN and store.swap(subject, effect):
                marks["store-failed-after-the-write"] += 1
            return _STORE_FAILED
        if not store.swap(subject, effect):
            marks["another-process-was-faster"] += 1
            kernel.record(Kind.CONFLICT, subject)
            job = store.jobs[subject]
            return SwapConflicted(job, self._owners(job))
        old, new = effect.expected, effect.replacement
        marks["waits"] += old is not None and new is not None and len(new.waiting) > len(old.waiting)
        return _SWAPPED

    # --- NAS ---

    def _ask(self, effect: Perform, subject: int) -> None:
        """Ask NAS, and wait for its answer."""
        nas, network, wanted = self._machine.nas, self._machine.network, effect.effect
        assert effect.within_us is not None
        deadline_us = self._kernel.now_us + effect.within_us

        def close(event: Event) -> None:
            self._note_answer(wanted, subject, event)
            self._came(effect.number, event)

        call = Call(subject, deadline_us, close)
        if isinstance(wanted, ProvisionArm):
            arrives_us = network.request(subject, nas.provision, call, wanted.fire_at_us, wanted.revision)
        elif isinstance(wanted, CancelArm):
            arrives_us = network.request(subject, nas.cancel, call, wanted.revision)
        else:
            arrives_us = network.request(subject, nas.list, call)
        if arrives_us is None or arrives_us > deadline_us:
            self._kernel.at(deadline_us, call.close, FAILED)

    def _note_answer(self, effect: Effect, subject: int, event: Event) -> None:
        has_failed = isinstance(event, ArmFailed)
        if isinstance(effect, ListArms):
            self._watch.marks["list-failed"] += has_failed
            self._kernel.record(Kind.LIST_FAILED if has_failed else Kind.LISTED, subject, self._machine.index)
        elif has_failed:
            self._kernel.record(Kind.ARM_FAILED, subject)

    # --- runs ---

    def _call_runner(self, effect: CallRunner) -> None:
        kernel, started = self._kernel, effect.started
        subject = self._machine.store.subjects[started.job_id]
        kernel.record(Kind.STARTED, subject, started.run.occurrence_us)
        self._watch.started(subject, started.run)
        self._watch.hold(subject)
        running = self.running[effect.key] = Running(subject, effect)
        duration_us, long_us = kernel.vary(faults.RUN), kernel.fault(faults.LONG_RUN)
        kernel.after(duration_us if long_us is None else long_us, self._run_ended, running)

    def _tell_runner(self, effect: TellRunner) -> None:
        """The time of a run is over: its runner is cancelled."""
        self._watch.marks["run-timed-out"] += 1
        self._run_ended(self.running[effect.key])

    def _run_ended(self, running: Running) -> None:
        if not self.is_alive or running.has_ended:
            return
        running.has_ended = True
        key, started = running.effect.key, running.effect.started
        del self.running[key]
        self._kernel.record(Kind.ENDED, running.subject, started.run.occurrence_us)
        self._watch.ended(running.subject)
        self.happen(RunEnded(key, succeeded=not self._kernel.fault(faults.FAILED_RUN)))
        self._watch.release(running.subject)

    # --- answers, and what is told ---

    def _reply(self, effect: Reply) -> None:
        if isinstance(effect.result, state.Started):
            then = self._starts.pop(effect.ticket, None)
            if then is not None:
                then(effect.result.settled)
            return
        subject, waits = self._tickets.pop(effect.ticket)
        answer = effect.result
        assert isinstance(answer, Answer)
        if isinstance(waits, Relay):
            self._answer_fire(waits, answer)
        elif waits is not None:
            waits(answer)
        self._claims.pop(answer.job_id, None)
        self._watch.release(subject)

    def _answer_fire(self, relay: Relay, answer: Answer) -> None:
        marks = self._watch.marks
        if answer.settled:
            marks[f"fire-answered-{answer.verdict}"] += 1
        elif answer.verdict is Verdict.ACCEPTED:
            marks["run-started-though-the-arm-failed"] += 1
        for run in self._claims.get(answer.job_id, ()):
            if run.attempt == 1:
                self._watch.claimed(
                    due_us=relay.pending.shot.fire_at_us,
                    called_us=relay.called_us,
                    arrived_us=relay.arrived_us,
                    up_us=max(self.up_since_us, relay.arrived_us),
                    occurrence_us=run.occurrence_us,
                )
        self._machine.nas.answered(relay, status_of(answer))

    def _told(self, event: events.Event) -> None:
        """Enter into the history what the process tells."""
        kernel, marks = self._kernel, self._watch.marks
        if isinstance(event, events.FlowEnded):
            self._flow_ended(event.intent, event.answer)
        elif isinstance(event, events.OccurrenceClaimed):
            run, subject = event.run, self._machine.store.subjects[event.job_id]
            kernel.record(Kind.CLAIMED, subject, run.occurrence_us)
            marks[f"claimed-{run.origin}"] += 1
            marks["claimed-again"] += run.attempt > 1
            self._claims.setdefault(event.job_id, []).append(run)
        elif isinstance(event, events.OccurrenceEnded):
            kernel.record(Kind.OUTCOME, self._machine.store.subjects[event.job_id], event.outcome.count)
            marks[f"outcome-{event.outcome.result}"] += 1

    def _flow_ended(self, intent: Intent, answer: Answer) -> None:
        subject = self._machine.store.subjects[intent.job_id]
        if answer.settled and not isinstance(intent, Renew):
            self._watch.acknowledge(subject, answer.job)
        if isinstance(intent, Renew):
            self._watch.marks["lease-renewed"] += 1
            self._kernel.record(Kind.RENEWED, subject, intent.run.occurrence_us)
        elif isinstance(intent, Fire) and intent.fired.origin is Origin.RECOVERY:
            self._watch.marks["recovered-at-start"] += 1
            self._kernel.record(Kind.RECOVERED, subject)


_PERFORM: dict[type, Callable[[Life, Any], None]] = {
    Perform: Life._perform,
    CallRunner: Life._call_runner,
    TellRunner: Life._tell_runner,
    Reply: Life._reply,
}
