"""One life of a machine, from its boot to its end: what it holds up, and what is entered into the history.

How the agent's process is performed is in `simulator.modelled`, as a model, and in `simulator.wire`, with
all that ships. Both ask NAS, answer fires and tell the watch through what is here; neither decides anything.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

from chronos import events
from chronos.jobs.instants import Instant
from chronos.jobs.job import Job, Liveness, Origin, Run, Verdict
from chronos.protocol import flow_effects, intents, state
from chronos.protocol.flow_effects import Answer
from chronos.protocol.maps import Map
from simulator import faults, marks
from simulator.history import Kind
from simulator.moments import LeftOpen, is_left_open, is_relied_on, is_tried
from simulator.nas_server import FAILED, Call, Relay

if TYPE_CHECKING:
    from simulator.host import Machine

# One read or write of a store that replicas share.
SHARED_STORE_US = 4_000

Waits: TypeAlias = "Relay | Callable[[Answer | None], None]"


class Running(Struct, eq=False):
    """A runner at work."""

    subject: int
    started: flow_effects.StartRun


class Life(ABC):
    """A process of the agent on its machine, until one of them ends.

    Attributes:
        owner: the name under which it claims.
        up_since_us: when it could first answer.
        runs_before: how many runs had started before.
        is_alive: whether it still runs.
        running: the runners at work.
        moved_us: when something has last happened to the process.
        is_watched: whether the host will look whether the machine may stop.
    """

    def __init__(self, machine: Machine, owner: str) -> None:
        self._machine, self._kernel, self._watch = machine, machine.kernel, machine.watch
        self.owner = owner
        self._subjects = machine.store.subjects
        self.up_since_us = self._kernel.now_us
        self.runs_before = self._watch.runs_started
        self.is_alive = True
        self.running: dict[Hashable, Running] = {}
        self.moved_us = self.up_since_us
        self.is_watched = False
        self._seen: state.Process | None = None
        self._asked: dict[Hashable, int] = {}
        self._waits: dict[object, tuple[int, Waits]] = {}
        self._starts: dict[object, Callable[[bool], None]] = {}
        self._claims: dict[str, list[Run]] = {}
        self._let_go: list[int] = []
        self._open: dict[str, intents.Intent] = {}
        self._holds_all = False
        self._held: Map[Hashable, state.Owed] = Map()

    # --- what others want of it ---

    @property
    @abstractmethod
    def process(self) -> state.Process:
        """What the process knows."""

    @property
    def is_ticking(self) -> bool:
        """Whether the process fires its jobs itself."""
        return self.process.ticker.is_ticking

    @property
    def fires_as_meant(self) -> bool:
        """Whether NAS fires the jobs, or the process itself as one that has no NAS."""
        return not (self._machine.agent.has_nas and self.is_ticking)

    @abstractmethod
    def pending(self) -> tuple[state.Pending, ...]:
        """Return what the process has not finished, as its host asks."""

    @abstractmethod
    def receive(self, relay: Relay) -> None:
        """A fire arrives."""

    @abstractmethod
    def ask(self, subject: int, intent: intents.Intent, then: Callable[[Answer | None], None]) -> None:
        """Ask for a change; *then* is told of the answer, None when there is none."""

    @abstractmethod
    def start(self, then: Callable[[bool], None]) -> None:
        """Reconcile, as a starting process does; *then* is told whether everything is settled, with NAS."""

    @abstractmethod
    def drain(self) -> None:
        """Turn fires away, and let what waits wait no longer."""

    @abstractmethod
    def close(self) -> None:
        """The simulation ends, in the middle of it."""

    def end(self) -> None:
        """End at once, whatever is going on; nobody is told but those who wait for it."""
        self.is_alive = False
        watch, kernel, tasks = self._watch, self._kernel, self.process.tasks.values()
        at_work = {self._subject_of(task) for task in tasks}
        for subject in sorted(at_work.union(each.subject for each in self.running.values())):
            kernel.record(Kind.CRASHED, subject, self._machine.index)
        for running in self.running.values():
            watch.met[marks.CRASH_DURING_A_RUN] += 1
            watch.ended(running.subject)
            watch.release(running.subject)
        for subject in (*self._asked.values(), *self._let_go):
            watch.release(subject)
        for task in tasks:
            self._mark_crash(task)
        for subject, waits in self._waits.values():
            if isinstance(waits, Relay):
                self._machine.nas.answered(waits, 502)
            else:
                waits(None)
            watch.release(subject)
        for then in self._starts.values():
            then(False)
        self._hold_owed(Map())
        if self._holds_all:
            watch.release_all()

    def _subject_of(self, task: state.Task) -> int:
        return self._subject(None if task.intent is None else task.intent.job_id)

    def _subject(self, job_id: str | None) -> int:
        """Return the subject number of a job, or for none that there is that of the machine."""
        default = self._machine.subject
        return default if job_id is None else self._subjects.get(job_id, default)

    def _mark_crash(self, task: state.Task) -> None:
        flow = task.flow
        if isinstance(task.intent, intents.Fire) and flow.phase == "arming" and flow.move.runs:
            self._watch.met[marks.CRASH_BETWEEN_CLAIM_AND_ARM] += 1

    def relied_on(self) -> int:
        """Return how many tasks somebody relies on: no slow look, and no late try."""
        return sum(is_relied_on(task) for task in self.process.tasks.values())

    def _crashes(self, subject: int) -> bool:
        """Let the machine die perhaps, before the process has an effect; return whether it did."""
        if self._kernel.fault(faults.CRASH, subject):
            self._machine.crash()
        return not self.is_alive

    # --- what it holds up ---

    def _looked(self) -> None:
        """Hold what the process is at work on, now that it has done all that it does at once, and no more."""
        process = self.process
        if process is not self._seen:
            self._seen = process
            self._machine.moved(self)
        if process.owed is not self._held:
            self._hold_owed(process.owed)
        self._hold_all()
        if self._open and not self.process.is_draining:
            self._tell_open()
        let_go, self._let_go = self._let_go, []
        for subject in let_go:
            self._watch.release(subject)

    def _tell_open(self) -> None:
        for job_id, intent in tuple(self._open.items()):
            if job_id in self.process.unsettled:
                left = LeftOpen(intent=intent, is_tried=is_tried(self.process, job_id))
                self._watch.left_open(self._subject(job_id), left)
            else:
                del self._open[job_id]

    def _hold_owed(self, owed: Map[Hashable, state.Owed]) -> None:
        """Hold the jobs for which something is owed, as long as the host keeps the machine for that."""
        before, self._held = self._held, owed
        for key, each in owed.items():
            if each.is_busy and not (key in before and before[key].is_busy):
                self._watch.met[marks.SETTLED_AFTERWARDS] += 1
                self._watch.hold(self._subject(each.intent.job_id))
        for key, each in before.items():
            if each.is_busy and not (key in owed and owed[key].is_busy):
                self._watch.release(self._subject(each.intent.job_id))

    def _hold_all(self) -> None:
        """Hold every job while a start looks at them, or the process fires them itself."""
        process = self.process
        lists = process.lists
        holds = bool(process.batches) or process.ticker.is_running or (lists is not None and lists.is_busy)
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

    # --- NAS ---

    def _ask_nas(
        self,
        subject: int,
        wanted: flow_effects.Effect,
        within_us: int,
        answer: Callable[[flow_effects.Event], None],
    ) -> None:
        """Send a request; *answer* is told what comes back, at the latest when its time is over."""
        nas, network = self._machine.nas, self._machine.network
        call = Call(subject, self._kernel.now_us + within_us, answer)
        if isinstance(wanted, flow_effects.ProvisionArm):
            arrives_us = network.request(subject, nas.provision, call, wanted.fire_at_us, wanted.revision)
        elif isinstance(wanted, flow_effects.CancelArm):
            arrives_us = network.request(subject, nas.cancel, call, wanted.revision)
        else:
            arrives_us = network.request(subject, nas.list, call)
        if arrives_us is None or arrives_us > call.deadline_us:
            self._kernel.at(call.deadline_us, call.close, FAILED)

    def _note_answer(self, is_list: bool, subject: int, has_failed: bool) -> None:
        if is_list:
            self._watch.met[marks.LIST_FAILED] += has_failed
            self._kernel.record(Kind.LIST_FAILED if has_failed else Kind.LISTED, subject, self._machine.index)
        elif has_failed:
            self._kernel.record(Kind.ARM_FAILED, subject)

    # --- the store ---

    def _owners(self, job: Job | None) -> tuple[Liveness, ...]:
        """Return what this machine knows of the processes that own the job's runs."""
        if job is None or not job.runs:
            return ()
        return tuple(
            Liveness.DEAD if run.owner != self.owner and self._is_dead(run.owner) else Liveness.UNKNOWN
            for run in job.runs
        )

    def _is_dead(self, owner: str) -> bool:
        """Return whether a process has definitely ended: of its own machine, each but the present one has."""
        return self._machine.owners.get(owner) is self._machine

    def _reads(self, subject: int) -> bool:
        """Let a read of the store fail perhaps; return whether it did not."""
        if self._kernel.fault(faults.STORE_FAILURE, subject) is None:
            return True
        self._kernel.record(Kind.STORE_FAILED, subject)
        return False

    def _note_write(self, subject: int, old: Job | None, new: Job | None, has_moved: bool) -> None:
        met = self._watch.met
        if has_moved:
            met[marks.WAITS] += old is not None and new is not None and len(new.waiting) > len(old.waiting)
        else:
            met[marks.ANOTHER_WAS_FASTER] += 1
            self._kernel.record(Kind.CONFLICT, subject)

    # --- runs ---

    def _run_began(self, key: Hashable, started: flow_effects.StartRun) -> int:
        """Note that a runner is at work; return for how long it will be, microseconds."""
        kernel, subject = self._kernel, self._subject(started.job_id)
        kernel.record(Kind.STARTED, subject, started.run.occurrence_us)
        self._watch.started(subject, started.run, by_own_clock=self.is_ticking)
        self._watch.hold(subject)
        self.running[key] = Running(subject, started)
        duration_us, long_us = kernel.vary(faults.RUN, subject), kernel.fault(faults.LONG_RUN, subject)
        by_chance_us = duration_us if long_us is None else long_us
        return self._machine.conditions.run_lasts_us(started.job_id, by_chance_us)

    def _run_ended(self, key: Hashable) -> bool:
        """Note that a runner has ended; return whether it succeeded. Its job is held until that is told."""
        running = self.running.pop(key)
        self._kernel.record(Kind.ENDED, running.subject, running.started.run.occurrence_us)
        self._watch.ended(running.subject)
        return not self._kernel.fault(faults.FAILED_RUN, running.subject)

    # --- answers, and what is told ---

    def _answered(self, relay: Relay, status: int, answer: Answer | None) -> None:
        """Answer a fire: with what the process has said of it, None when it was not asked."""
        if answer is not None:
            self._note_fire(relay, answer)
        self._machine.nas.answered(relay, status)

    def _note_fire(self, relay: Relay, answer: Answer) -> None:
        met = self._watch.met
        if answer.settled and answer.verdict is not None:
            met[marks.FIRE_ANSWERED[answer.verdict]] += 1
        elif answer.verdict is Verdict.ACCEPTED:
            met[marks.STARTED_UNARMED] += 1
        for run in self._claims.pop(answer.job_id, ()):
            if run.attempt == 1:
                self._watch.claimed(
                    called_us=relay.called_us,
                    arrived_us=relay.arrived_us,
                    up_us=max(self.up_since_us, relay.arrived_us),
                    occurrence_us=run.occurrence_us,
                    booted_for_us=self._booted_for_us(run.occurrence_us),
                )

    def _refuse_token(self, relay: Relay, *, was_used: bool) -> None:
        self._watch.met[marks.TOKEN_USED_AGAIN if was_used else marks.TOKEN_OUT_OF_TIME] += 1
        self._kernel.record(Kind.REFUSED, relay.subject)

    def _told(self, event: events.Event) -> None:
        """Enter into the history what the process tells."""
        kernel, met = self._kernel, self._watch.met
        if isinstance(event, events.FlowEnded):
            self._flow_ended(event.intent, event.answer)
        elif isinstance(event, events.OccurrenceClaimed):
            run, subject = event.run, self._subject(event.job_id)
            kernel.record(Kind.CLAIMED, subject, run.occurrence_us)
            met[marks.CLAIMED[run.origin]] += 1
            self._watch.ledger.claimed(subject, run)
            met[marks.CLAIMED_AGAIN] += run.attempt > 1
            if any(isinstance(waits, Relay) and each == subject for each, waits in self._waits.values()):
                self._claims.setdefault(event.job_id, []).append(run)  # how late it is, its answer tells
            elif run.attempt == 1 and run.origin is not Origin.MANUAL:
                self._claimed_by_itself(run)
        elif isinstance(event, events.OccurrenceEnded):
            kernel.record(Kind.OUTCOME, self._subject(event.job_id), event.outcome.count)
            met[marks.ENDED[event.outcome.result]] += 1

    def _claimed_by_itself(self, run: Run) -> None:
        """Note how late a claim is of which no fire waits to hear: of a start, a ticker, or what waited.

        Until the machine was up that is the wake; the rest is the claim. A ticker may be early.
        """
        slot_us = min(run.occurrence_us, self._kernel.now_us)
        self._watch.claimed(
            called_us=slot_us,
            arrived_us=slot_us,
            up_us=self.up_since_us,
            occurrence_us=slot_us,
            booted_for_us=self._booted_for_us(slot_us),
        )

    def _booted_for_us(self, slot_us: Instant) -> int:
        """Return for how long the machine of this life was booting after a slot, microseconds."""
        return max(self.up_since_us - max(slot_us, self._machine.boot_began_us), 0)

    def _flow_ended(self, intent: intents.Intent, answer: Answer) -> None:
        subject = self._subject(intent.job_id)
        if answer.settled:
            self._open.pop(intent.job_id, None)
        elif is_left_open(intent, answer):
            self._open[intent.job_id] = intent
        if answer.settled and not isinstance(intent, intents.Renew):
            self._watch.acknowledge(subject, answer.job)
        if isinstance(intent, intents.Renew):
            self._watch.met[marks.LEASE_RENEWED] += 1
            self._kernel.record(Kind.RENEWED, subject, intent.run.occurrence_us)
        elif isinstance(intent, intents.Fire) and intent.fired.origin is Origin.RECOVERY:
            self._watch.met[marks.RECOVERED_AT_START] += 1
            self._kernel.record(Kind.RECOVERED, subject)
