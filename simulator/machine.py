"""The agent's machine: asleep until a fire wakes it, a process while it is up, and its crashes.

A `Process` performs the effects of the protocol's flows in simulated time. It decides nothing: what
a flow does next is the agent's code, and whether the machine may stop is the scheduler's word.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

import attrs

from chronos.jobs.job import RENEW_EVERY_US, Job, Liveness, Outcome, Run, Verdict
from chronos.jobs.schedule import MINUTE_US, SECOND_US, Instant
from chronos.protocol.draft import Fired
from chronos.protocol.flow import (
    FOLLOW_UP_DELAYS_US,
    Answer,
    Begin,
    CancelArm,
    Event,
    Finish,
    Fire,
    HistoryLoaded,
    Intent,
    JobLoaded,
    JobsLoaded,
    JobSwapped,
    ListArms,
    LoadHistory,
    LoadJob,
    LoadJobs,
    ProvisionArm,
    Renew,
    StartRun,
    StoreFailed,
    SwapConflicted,
    SwapJob,
    concerns,
    follow_up,
    holds,
    timed_out,
)
from chronos.stores import HISTORY_LENGTH
from chronos.testing.nas import TOKEN_LIFE_US
from simulator.agents import Agent
from simulator.history import Kind
from simulator.kernel import Kernel
from simulator.naive import Remember
from simulator.nas_server import FAILED, TOKEN_LEEWAY_US, Call, NasServer, Relay
from simulator.network import Network
from simulator.watch import Watch

# From the wake to the open port, as a matter of course: a table to choose from.
BOOT_US = tuple(milliseconds * 1000 for milliseconds in (
    2500, 1500, 1700, 1900, 2100, 2300, 2800, 3100, 3400, 3800, 4200, 4700, 5300, 6000, 7000, 8500,
))  # fmt: skip
# A boot that is slower than the relay's patience, and how long one lasts that comes to nothing.
SLOW_BOOT_US = 70 * SECOND_US
STUCK_BOOT_US = 180 * SECOND_US
# How long a run lasts, as a matter of course, and when it is long: longer than a minute job's
# period, than the lease, than an hour.
RUN_US = tuple(seconds * SECOND_US for seconds in (
    6, 1, 2, 3, 4, 5, 7, 8, 10, 12, 15, 18, 22, 27, 33, 40,
))  # fmt: skip
LONG_RUN_US = (0, 100 * SECOND_US, 11 * MINUTE_US, 75 * MINUTE_US)
# How wrong a machine's clock is after a boot, and for how long (W4).
CLOCK_ERROR_US = (0, -40 * SECOND_US, 8 * SECOND_US, -9 * SECOND_US, 24 * SECOND_US)
CLOCK_WRONG_FOR_US = 90 * SECOND_US
# How long the host lets an idle machine run on.
IDLE_US = 15 * SECOND_US
# How long the agent waits for NAS: in all, and inside a fire (well below the relay's patience).
NAS_TIMEOUT_US = 15 * SECOND_US
ARM_IN_FIRE_TIMEOUT_US = 10 * SECOND_US
# One read or write of a store that replicas share.
SHARED_STORE_US = 4_000

# A store that fails has done nothing, or has written all the same.
_WRITTEN = 2

_SWAPPED = JobSwapped()
_STORE_FAILED = StoreFailed()


class Store:
    """The durable job store, shared by the machines of an agent; one compare-and-set."""

    def __init__(self, watch: Watch, jobs: tuple[Job, ...]) -> None:
        self.watch = watch
        self.subjects = {job.id: subject for subject, job in enumerate(jobs)}
        self.jobs = watch.store
        self._histories: dict[int, deque[Outcome]] = {}

    def history(self, subject: int) -> tuple[Outcome, ...]:
        """Return the newest outcomes of a job, the oldest first."""
        return tuple(self._histories.get(subject, ()))

    def swap(self, subject: int, effect: SwapJob) -> bool:
        """Make the move if the job still is the expected one."""
        if self.jobs[subject] != effect.expected:
            return False
        self.watch.swapped(subject, effect.expected, effect.replacement, effect.outcomes)
        if effect.outcomes:
            self._histories.setdefault(subject, deque(maxlen=HISTORY_LENGTH)).extend(effect.outcomes)
        return True


@attrs.define(eq=False)
class Process:
    """One life of a machine.

    Attributes:
        owner: the name under which it claims.
        up_since_us: when it could first answer.
        is_alive: whether it still runs.
        activities: the flows in progress.
        runs: the runs in flight, each with its subject.
        owed: the follow-ups that it is going to begin, each with its subject.
        starts: how many reconciliations are in progress.
        converging: the jobs on which it has begun a flow since it started.
        remembered: the memory of an agent that keeps one.
        idle_since: changes with every new piece of work.
    """

    owner: str
    up_since_us: Instant
    is_alive: bool = True
    activities: dict[int, Activity] = attrs.field(factory=dict)
    runs: list[tuple[int, Run]] = attrs.field(factory=list)
    owed: list[tuple[int, Intent]] = attrs.field(factory=list)
    starts: int = 0
    converging: set[str] = attrs.field(factory=set)
    remembered: dict[str, Instant] = attrs.field(factory=dict)
    idle_since: int = 0

    def is_idle(self) -> bool:
        """Return whether nothing is unsettled."""
        return not (self.activities or self.runs or self.owed or self.starts)


Reply: TypeAlias = "Relay | Callable[[Answer | None], None] | None"


@attrs.define(eq=False)
class Activity:
    """A flow in progress, and whom it answers: a relay, somebody with a callback, or nobody."""

    process: Process
    subject: int
    flow: Any
    reply: Reply
    tries: int = 0
    is_fire: bool = False


class Machine:
    """One machine of the agent.

    Args:
        index: its number among the replicas.
        kernel: time and choice.
        network: carries its messages.
        watch: notes what happens.
        store: the job store.
        nas: the control plane.
        agent: the code that it runs.
        owners: every process that ever was, by the name under which it claims.
        subject: its own subject number in the history.
        shares_store: whether other machines use the store, so that its latency matters.
    """

    def __init__(
        self,
        index: int,
        kernel: Kernel,
        network: Network,
        watch: Watch,
        store: Store,
        agent: Agent,
        owners: dict[str, Machine],
        *,
        subject: int,
        shares_store: bool,
    ) -> None:
        self.index = index
        self._kernel, self._network, self._watch, self._store = kernel, network, watch, store
        self._agent = agent
        self._owners = owners
        self._subject = subject
        self._shares_store = shares_store
        self.nas: NasServer
        self.process: Process | None = None
        self.can_boot = True
        self.wakes = 0
        self.wasted_wakes = 0
        self.up_us = 0
        self._lives = 0
        self._orders = 0
        self._is_booting = False
        self._waiting: list[Callable[[Process | None], None]] = []
        self._clock_error_us = 0
        self._clock_right_us = 0
        self._runs_of_life = 0

    def now_us(self) -> Instant:
        """Return the present instant by this machine's clock."""
        now_us = self._kernel.now_us
        return now_us + self._clock_error_us if now_us < self._clock_right_us else now_us

    # --- lives ---

    def wake(self, then: Callable[[Process], None], subject: int) -> bool:
        """Let *then* happen once the machine is up; return False when it cannot be reached."""
        if self.process is not None:
            then(self.process)
            return True
        if not self.can_boot:
            return False
        self._watch.hold(subject)

        def arrive(process: Process | None) -> None:
            if process is not None:
                then(process)
            self._watch.release(subject)

        self._waiting.append(arrive)
        if not self._is_booting:
            self._is_booting = True
            boot_us = BOOT_US[self._kernel.choose("machine.boot", len(BOOT_US))]
            slow = self._kernel.fault("machine.slow_boot", 3)
            if slow:
                self._watch.marks["slow-boot"] += 1
                boot_us = SLOW_BOOT_US if slow == 1 else STUCK_BOOT_US
            self._kernel.after(boot_us, self._booted, slow != 2 or not self._kernel.faulty)
        return True

    def boot(self) -> None:
        """Start the machine for its own sake, as a deployment does."""
        self.wake(lambda _process: None, self._subject)

    def close(self) -> None:
        """Account for the life that goes on when the simulation ends."""
        if self.process is not None:
            self._end_life(self.process)

    def _booted(self, is_up: bool) -> None:
        self._is_booting = False
        waiting, self._waiting = self._waiting, []
        if is_up:
            self._lives += 1
            self.wakes += 1
            kernel = self._kernel
            self._clock_error_us = CLOCK_ERROR_US[kernel.fault("machine.clock", len(CLOCK_ERROR_US))]
            if self._clock_error_us:
                self._watch.marks["clock-wrong-after-boot"] += 1
                self._clock_right_us = kernel.now_us + CLOCK_WRONG_FOR_US
            kernel.record(Kind.BOOTED, self._subject, self.index)
            self.process = Process(owner=f"m{self.index}/{self._lives}", up_since_us=kernel.now_us)
            self._owners[self.process.owner] = self
            self._runs_of_life = self._watch.runs_started
            self.start(self.process)
        for then in waiting:
            then(self.process)

    def crash(self) -> None:
        """End the process at once, whatever it is doing; nobody is told but those who wait for it."""
        process = self.process
        if process is None:
            return
        watch = self._watch
        self._kernel.record(Kind.CRASHED, self._subject, self.index)
        self._end_life(process)
        busy = {subject for subject, _ in process.runs}
        busy.update(activity.subject for activity in process.activities.values())
        for subject in sorted(busy):
            self._kernel.record(Kind.CRASHED, subject, self.index)
        for subject, _ in process.runs:
            watch.marks["crash-during-a-run"] += 1
            watch.ended(subject)
            watch.release(subject)
        for activity in process.activities.values():
            self._mark_crash(activity)
            if isinstance(activity.reply, Relay):
                self.nas.answered(activity.reply, 502)
            elif activity.reply is not None:
                activity.reply(None)
            watch.release(activity.subject)
        for subject, _ in process.owed:
            watch.release(subject)
        for _ in range(process.starts):
            watch.release_all()

    def _mark_crash(self, activity: Activity) -> None:
        flow = activity.flow
        if isinstance(flow.intent, Fire) and flow.phase == "arming" and flow.move.runs:
            self._watch.marks["crash-between-claim-and-arm"] += 1
        elif isinstance(flow.intent, Fire) and flow.phase == "done":
            self._watch.marks["crash-between-arm-and-answer"] += 1

    def _end_life(self, process: Process) -> None:
        process.is_alive = False
        self.process = None
        self.up_us += self._kernel.now_us - process.up_since_us
        self.wasted_wakes += self._watch.runs_started == self._runs_of_life

    def _rest(self, process: Process) -> None:
        """Something ended: when nothing else goes on, let the host stop the machine after a while."""
        if process.is_idle():
            self._kernel.after(IDLE_US, self._stop_if_idle, process, process.idle_since)

    def _stop_if_idle(self, process: Process, idle_since: int) -> None:
        if process.is_alive and process.idle_since == idle_since and process.is_idle():
            self._kernel.record(Kind.STOPPED, self._subject, self.index)
            self._watch.stopped(self._subject, len(process.activities), len(process.runs))
            self._end_life(process)

    # --- fires and requests ---

    def receive(self, relay: Relay) -> None:
        """A fire arrives at the machine, whether it is up or not."""
        subject = relay.subject
        relay.arrived_us = relay.arrived_us or self._kernel.now_us
        self._kernel.record(Kind.FIRED, subject, relay.pending.shot.fire_at_us)

        def handle(process: Process) -> None:
            now_us = self.now_us()
            if not -TOKEN_LEEWAY_US <= now_us - relay.minted_us <= TOKEN_LIFE_US + TOKEN_LEEWAY_US:
                self._watch.marks["token-refused-by-a-wrong-clock"] += 1
                self._kernel.record(Kind.REFUSED, subject)
                self.nas.answered(relay, 401)
                self._rest(process)
                return
            shot = relay.pending.shot
            fired = Fired(minted_us=relay.minted_us, received_us=now_us)
            fire = Fire(job_id=shot.job_id, fire_at_us=shot.fire_at_us, fired=fired)
            self.begin(process, subject, fire, relay)

        if not self.wake(handle, subject):
            self._kernel.record(Kind.UNREACHABLE, subject)
            self.nas.answered(relay, 502)

    def begin(self, process: Process, subject: int, intent: Intent, reply: Reply, tries: int = 0) -> None:
        """Begin a flow."""
        flow, effects = self._agent.begin(intent, owner=process.owner, now_us=self.now_us())
        activity = Activity(process, subject, flow, reply, tries, isinstance(reply, Relay))
        self._orders += 1
        process.idle_since = self._orders
        process.converging.add(intent.job_id)
        process.activities[id(activity)] = activity
        self._watch.hold(subject)
        self._drive(activity, effects)

    def start(self, process: Process) -> None:
        """Reconcile, as a starting process does."""
        process.starts += 1
        self._watch.hold_all()
        reconciliation, effects = self._agent.begin_reconciliation(process.remembered)
        self._drive_start(process, reconciliation, effects)

    # --- performing effects ---

    def _drive(self, activity: Activity, effects: tuple[Any, ...]) -> None:
        """Perform effects until one has to be waited for, or the flow is done, or the machine dies."""
        kernel, process, subject = self._kernel, activity.process, activity.subject
        step = self._agent.step
        while True:
            event: Event | None = None
            for effect in effects:
                if kernel.faulty and kernel.choose("machine.crash", 2):
                    self.crash()
                    return
                kind = type(effect)
                if kind is LoadJob or kind is LoadHistory:
                    event = self._load(activity, kind)
                elif kind is SwapJob:
                    event = self._swap(activity, effect)
                elif kind is ProvisionArm or kind is CancelArm:
                    self._ask(activity, effect)
                    return
                elif kind is Answer:
                    self._answer(activity, effect)
                elif kind is StartRun:
                    self._start_run(activity, effect)
                elif kind is Remember:
                    self._remember(process, subject, effect)
            if event is None:
                del process.activities[id(activity)]
                self._watch.release(subject)
                self._rest(process)
                return
            if self._shares_store:
                kernel.after(SHARED_STORE_US, self._resume, activity, event)
                return
            activity.flow, effects = step(activity.flow, event, self.now_us())

    def _resume(self, activity: Activity, event: Event) -> None:
        """Go on with a flow whose effect has come back."""
        if activity.process.is_alive:
            activity.flow, effects = self._agent.step(activity.flow, event, self.now_us())
            self._drive(activity, effects)

    def _load(self, activity: Activity, kind: type[LoadJob | LoadHistory]) -> Event:
        subject = activity.subject
        if self._kernel.fault("store.failure"):
            self._kernel.record(Kind.STORE_FAILED, subject)
            return _STORE_FAILED
        if kind is LoadHistory:
            return HistoryLoaded(self._store.history(subject))
        job = self._store.jobs[subject]
        return JobLoaded(job, self._liveness(job, activity))

    def _liveness(self, job: Job | None, asking: Activity | None) -> tuple[Liveness, ...]:
        """Return what this machine knows of the owners of the job's runs; the flow *asking* wants to know."""
        if job is None or not job.runs or self.process is None:
            return ()
        return tuple(self._liveness_of(run, self.process, asking) for run in job.runs)

    def _liveness_of(self, run: Run, process: Process, asking: Activity | None) -> Liveness:
        if run.owner != process.owner:
            return Liveness.DEAD if self._owners.get(run.owner) is self else Liveness.UNKNOWN
        is_alive = (
            any(run.is_same_as(other) for _, other in process.runs)
            or any(concerns(intent, run) for _, intent in process.owed)
            or any(holds(each.flow, run) for each in process.activities.values() if each is not asking)
        )
        return Liveness.ALIVE if is_alive else Liveness.DEAD

    def _swap(self, activity: Activity, effect: SwapJob) -> Event:
        kernel, subject = self._kernel, activity.subject
        failure = kernel.fault("store.failure", 3)
        if failure:
            kernel.record(Kind.STORE_FAILED, subject)
            if failure == _WRITTEN and self._store.swap(subject, effect):
                self._watch.marks["store-failed-after-the-write"] += 1
            return _STORE_FAILED
        if not self._store.swap(subject, effect):
            self._watch.marks["another-process-was-faster"] += 1
            kernel.record(Kind.CONFLICT, subject)
            job = self._store.jobs[subject]
            return SwapConflicted(job, self._liveness(job, activity))
        if effect.replacement is not None:
            self._note_claims(subject, effect.expected, effect.replacement)
        for outcome in effect.outcomes:
            kernel.record(Kind.OUTCOME, subject, outcome.count)
            self._watch.marks[f"outcome-{outcome.result}"] += 1
        return _SWAPPED

    def _note_claims(self, subject: int, old: Job | None, new: Job) -> None:
        marks = self._watch.marks
        for run in new.runs:
            if old is None or not run.is_among(old.runs):
                self._kernel.record(Kind.CLAIMED, subject, run.occurrence_us)
                marks[f"claimed-{run.origin}"] += 1
                marks["claimed-again"] += run.attempt > 1
        marks["waits"] += old is not None and len(new.waiting) > len(old.waiting)

    def _ask(self, activity: Activity, effect: ProvisionArm | CancelArm) -> None:
        """Ask NAS, and wait for its answer."""
        bound_us = ARM_IN_FIRE_TIMEOUT_US if activity.is_fire else NAS_TIMEOUT_US
        deadline_us = self._kernel.now_us + bound_us

        def close(event: Event) -> None:
            if event is FAILED:
                self._kernel.record(Kind.ARM_FAILED, activity.subject)
            self._resume(activity, event)

        call = Call(activity.subject, deadline_us, close)
        if isinstance(effect, ProvisionArm):
            arrives_us = self._network.request(
                call.subject, self.nas.provision, call, effect.fire_at_us, effect.revision
            )
        else:
            arrives_us = self._network.request(call.subject, self.nas.cancel, call, effect.revision)
        if arrives_us is None or arrives_us > deadline_us:
            self._kernel.at(deadline_us, call.close, FAILED)

    def _answer(self, activity: Activity, answer: Answer) -> None:
        """Tell whoever asked; when nobody did, see to it that what is owed is done."""
        reply, subject = activity.reply, activity.subject
        if answer.settled:
            self._watch.acknowledge(subject, answer.job)
        activity.reply = None
        if isinstance(reply, Relay):
            self._answer_fire(activity, reply, answer)
        elif reply is not None:
            reply(answer)
        else:
            owed = follow_up(activity.flow.intent, answer, self.now_us())
            if owed is not None and activity.tries < len(FOLLOW_UP_DELAYS_US):
                process = activity.process
                process.owed.append((subject, owed))
                self._watch.marks["settled-afterwards"] += 1
                self._watch.hold(subject)
                delay_us = FOLLOW_UP_DELAYS_US[activity.tries]
                self._kernel.after(delay_us, self._follow_up, process, subject, owed, activity.tries + 1)

    def _answer_fire(self, activity: Activity, relay: Relay, answer: Answer) -> None:
        status = 503
        if answer.settled:
            status = 202 if answer.verdict is Verdict.ACCEPTED else 200
            self._watch.marks[f"fire-answered-{answer.verdict}"] += 1
        elif answer.verdict is Verdict.ACCEPTED:
            self._watch.marks["run-started-though-the-arm-failed"] += 1
        for run in activity.flow.move.runs if activity.flow.move is not None else ():
            if run.attempt == 1:
                self._watch.claimed(
                    due_us=relay.pending.shot.fire_at_us,
                    called_us=relay.called_us,
                    arrived_us=relay.arrived_us,
                    up_us=max(activity.process.up_since_us, relay.arrived_us),
                    occurrence_us=run.occurrence_us,
                )
        self.nas.answered(relay, status)

    def _follow_up(self, process: Process, subject: int, intent: Intent, tries: int) -> None:
        if not process.is_alive:
            return
        process.owed.remove((subject, intent))
        self.begin(process, subject, intent, None, tries)
        self._watch.release(subject)

    def _remember(self, process: Process, subject: int, effect: Remember) -> None:
        if effect.fire_at_us is None:
            process.remembered.pop(effect.job_id, None)
        else:
            self._kernel.record(Kind.REMEMBERED, subject, effect.fire_at_us)
            process.remembered[effect.job_id] = effect.fire_at_us

    # --- runs ---

    def _start_run(self, activity: Activity, effect: StartRun) -> None:
        kernel, process, subject, run = self._kernel, activity.process, activity.subject, effect.run
        kernel.record(Kind.STARTED, subject, run.occurrence_us)
        self._watch.started(subject, run)
        self._watch.hold(subject)
        process.runs.append((subject, run))
        duration_us = RUN_US[kernel.choose("machine.run", len(RUN_US))]
        long = kernel.fault("machine.long_run", len(LONG_RUN_US))
        if long:
            duration_us = LONG_RUN_US[long]
        limit_us = effect.time_limit_us
        is_timed_out = limit_us is not None and duration_us > limit_us
        duration_us = duration_us if limit_us is None else min(duration_us, limit_us)
        for renewal in range(1, duration_us // RENEW_EVERY_US + 1):
            kernel.after(renewal * RENEW_EVERY_US, self._renew, process, subject, run)
        kernel.after(duration_us, self._run_ended, process, subject, effect, is_timed_out)

    def _renew(self, process: Process, subject: int, run: Run) -> None:
        if process.is_alive:
            self._watch.marks["lease-renewed"] += 1
            self._kernel.record(Kind.RENEWED, subject, run.occurrence_us)
            self.begin(process, subject, Renew(job_id=self._watch.job_ids[subject], run=run), None)

    def _run_ended(self, process: Process, subject: int, effect: StartRun, is_timed_out: bool) -> None:
        if not process.is_alive:
            return
        self._kernel.record(Kind.ENDED, subject, effect.run.occurrence_us)
        self._watch.ended(subject)
        process.runs.remove((subject, effect.run))
        if is_timed_out:
            self._watch.marks["run-timed-out"] += 1
            finish = timed_out(effect)
        else:
            succeeded = not self._kernel.fault("machine.failed_run")
            finish = Finish(job_id=effect.job_id, run=effect.run, succeeded=succeeded, confirm=effect.confirm)
        self.begin(process, subject, finish, None)
        self._watch.release(subject)

    # --- reconciliation ---

    def _drive_start(self, process: Process, reconciliation: Any, effects: tuple[Any, ...]) -> None:
        for effect in effects:
            kind = type(effect)
            if kind is ListArms:
                self._list(process, reconciliation)
                return
            if kind is LoadJobs:
                jobs = [(job, self._liveness(job, None)) for job in self._store.jobs if job is not None]
                self._step_start(process, reconciliation, JobsLoaded(jobs, process.converging))
                return
            if kind is Remember:
                self._remember(process, self._store.subjects[effect.job_id], effect)
            elif kind is Begin:
                self._begin_all(process, effect)
        process.starts -= 1
        self._watch.release_all()
        self._rest(process)

    def _step_start(self, process: Process, reconciliation: Any, event: Event) -> None:
        if process.is_alive:
            step = self._agent.step_reconciliation
            self._drive_start(process, *step(reconciliation, event, self.now_us()))

    def _begin_all(self, process: Process, effect: Begin) -> None:
        for intent in effect.intents:
            if not process.is_alive:
                return
            subject = self._store.subjects.get(intent.job_id)
            if subject is not None:
                self._watch.marks["recovered-at-start"] += 1
                self._kernel.record(Kind.RECOVERED, subject)
                self.begin(process, subject, intent, None)

    def _list(self, process: Process, reconciliation: Any) -> None:
        deadline_us = self._kernel.now_us + NAS_TIMEOUT_US

        def close(event: Event) -> None:
            failed = event is FAILED
            self._watch.marks["list-failed"] += failed
            self._kernel.record(Kind.LIST_FAILED if failed else Kind.LISTED, self._subject, self.index)
            self._step_start(process, reconciliation, event)

        call = Call(self._subject, deadline_us, close)
        arrives_us = self._network.request(self._subject, self.nas.list, call)
        if arrives_us is None or arrives_us > deadline_us:
            self._kernel.at(deadline_us, call.close, FAILED)
