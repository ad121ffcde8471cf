"""The states of a small world, and everything that can happen in each of them.

A state is a value: the job as stored, NAS's row, the one-shots, the messages on their way, and each
process with its flows and the effects that they have not performed yet. Time stands at one of a few
instants and may move on at any moment, so that every message may be arbitrarily late. The flows are
those of the agent under test, the same code that runs in production.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import attrs

from chronos.jobs.job import Job, Liveness, Run, wake_at
from chronos.jobs.schedule import format_instant
from chronos.protocol.flow import (
    FOLLOW_UP_DELAYS_US,
    Answer,
    ArmAccepted,
    ArmFailed,
    ArmOutdated,
    ArmsListed,
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
    StartRun,
    SwapJob,
    follow_up,
    holds,
)
from chronos.testing import nas
from chronos.testing.nas import EMPTY, OneShot, Promises, Reply, Row
from simulator import properties
from simulator.agents import Agent
from simulator.cases import JOB_ID, Case
Remember = tuple

NOBODY = -1
PROCESSES = 2
_FAILED = ArmFailed()
_SWAPPED = JobSwapped()
# What a process sends.
_ORDERED = ("provision", "cancel")
_SENT = ("provision", "cancel", "list", "answer")


class Message(NamedTuple):
    """A message on its way.

    Attributes:
        kind: `provision`, `cancel`, `list`, `fire`, `answer`, or a reply: `outdated`, `arms`.
        process: the process that asked and waits for the reply; NOBODY when none does any more.
        flow: which of its flows.
        relay: the relay that a fire or its answer belongs to; NOBODY when it was closed.
        instant_us: the instant armed, fired or listed; NOBODY for none.
        number: a revision (NOBODY for none), or whether an answer accepts.
    """

    kind: str
    process: int = NOBODY
    flow: int = NOBODY
    relay: int = NOBODY
    instant_us: int = NOBODY
    number: int = NOBODY


class Task(NamedTuple):
    """A flow or a reconciliation of a process that waits for NAS, and whom it answers.

    Attributes:
        number: tells it from the others of its process.
        flow: how far it is.
        relay: the relay whose fire it answers.
        is_asked: whether it answers who asked for the change.
        tries: how often it was tried before.
        is_old: of a reconciliation, whether its process has begun a flow since it asked for the arms.
    """

    number: int
    flow: Any
    relay: int = NOBODY
    is_asked: bool = False
    tries: int = 0
    is_old: bool = False


class Proc(NamedTuple):
    """A process: which life of its machine it is, its tasks, its runs, and what it remembers."""

    life: int = 1
    is_up: bool = True
    tasks: tuple[Task, ...] = ()
    runs: tuple[StartRun, ...] = ()
    memory: tuple[tuple[str, int], ...] = ()


class State(NamedTuple):
    """Everything there is, at one moment.

    Attributes:
        clock: index of the present instant.
        job: as stored.
        row: what NAS keeps.
        held: the one-shots that the external scheduler still calls for.
        used: the names that its deduplication window knows.
        relays: the fires that NAS waits for: number and one-shot.
        messages: on their way, sorted.
        procs: the processes.
        crashes: how many crashes are left.
        duplicates: how many duplicates are left.
        losses: how many losses are left.
        change: whether somebody may still ask for the case's change (0), wants to again (1), waits for
            the answer (2) or has it (3).
        stop: whether the agent may still be told to run no jobs (0), is told so (1), is no longer and has
            to be started (2), or was started since (3).
        acknowledged: whether the job as stored was reported as settled.
        started: the attempts that were started, in order.
    """

    clock: int
    job: Job | None
    row: Row
    held: tuple[OneShot, ...]
    used: frozenset[tuple[str | int, ...]]
    relays: tuple[tuple[int, OneShot], ...]
    messages: tuple[Message, ...]
    procs: tuple[Proc, ...]
    crashes: int
    duplicates: int
    losses: int
    change: int
    stop: int
    acknowledged: bool
    started: tuple[properties.Attempt, ...]

    def messages_of_processes(self) -> bool:
        """Return whether a message on its way comes from or goes to a certain process."""
        return any(message.process != NOBODY for message in self.messages)


class _Arms(dict[str, "int | None"]):
    """A listing that can be part of a state."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(sorted(self.items())))


class Violated(Exception):
    """A property does not hold; carries it and the reason."""

    def __init__(self, violated: properties.Property, reason: str) -> None:
        super().__init__(reason)
        self.property = violated
        self.reason = reason


class Space:
    """The states of one case, and what can happen in each.

    Args:
        case: the bounded world.
        agent: the agent under test.
        promises: which NAS.
        crashes: how many crashes may strike.
        duplicates: how many duplicates.
        losses: how many losses.
    """

    def __init__(
        self,
        case: Case,
        agent: Agent,
        promises: Promises,
        *,
        crashes: int = 1,
        duplicates: int = 1,
        losses: int = 1,
    ) -> None:
        self.case, self.agent, self.promises = case, agent, promises
        self._budget = (crashes, duplicates, losses)

    def initial(self) -> State:
        """Return the state at the start: two idle processes, and the arm of the first occurrence in place."""
        job = self.case.job
        assert job.next_us is not None
        decision = nas.provision(
            self.promises, EMPTY, job_id=JOB_ID, fire_at_us=job.next_us, revision=job.revision, relays=()
        )
        assert decision.create is not None
        crashes, duplicates, losses = self._budget
        shot = decision.create
        return State(
            clock=0,
            job=job,
            row=decision.row,
            held=(shot,),
            used=frozenset() if self.promises.names_by_generation else frozenset({shot.name}),
            relays=(),
            messages=(),
            procs=(Proc(memory=((JOB_ID, job.next_us),)),) * PROCESSES,
            crashes=crashes,
            duplicates=duplicates,
            losses=losses,
            change=3 if self.case.change is None else 0,
            stop=0 if self.case.is_stopped else 3,
            acknowledged=True,
            started=(),
        )

    def now_us(self, state: State) -> int:
        """Return the present instant."""
        return self.case.instants_us[state.clock]

    # --- what can happen ---

    def successors(self, state: State) -> Iterator[tuple[str, bool, Callable[[], State]]]:
        """Yield what can happen next: in words, whether it is a fault, and a call that makes it happen."""
        if self._can_tick(state):
            yield "time passes", False, lambda: state._replace(clock=state.clock + 1)
        yield from self._scheduler_events(state)
        yield from self._message_events(state)
        yield from self._process_events(state)
        yield from self._stop_events(state)
        if state.change in (0, 1):
            asked = type(self.case.change).__name__.lower()
            for number in self._callable(state):
                yield (
                    f"somebody asks process {number}: {asked}",
                    False,
                    _bind(self._ask_change, state, number),
                )

    def _stop_events(self, state: State) -> Iterator[tuple[str, bool, Callable[[], State]]]:
        if state.stop == 0:
            yield "somebody tells the agent to run no jobs", False, lambda: state._replace(stop=1)
        elif state.stop == 1:
            yield "somebody lifts that", False, lambda: state._replace(stop=2)
        elif state.stop == 2:
            for number in self._callable(state):
                yield f"somebody starts process {number}", False, _bind(self._start_again, state, number)

    def _callable(self, state: State) -> range:
        """Return the processes that may be called next; one of two that nothing tells apart is enough."""
        runs = state.job.runs if state.job is not None else ()
        first, *others = state.procs
        is_symmetric = (
            not runs and not state.messages_of_processes() and all(proc == first for proc in others)
        )
        return range(1 if is_symmetric and not first.tasks and not first.runs else PROCESSES)

    def _can_tick(self, state: State) -> bool:
        """Time moves on, but not past the lease of a run in flight, which would have renewed it."""
        if state.clock + 1 >= len(self.case.instants_us):
            return False
        then_us = self.case.instants_us[state.clock + 1]
        return all(started.run.lease_until_us > then_us for proc in state.procs for started in proc.runs)

    def _scheduler_events(self, state: State) -> Iterator[tuple[str, bool, Callable[[], State]]]:
        in_delivery_us = {shot.fire_at_us for shot in _called_for(state)}
        for shot in state.held:
            if shot.fire_at_us > self.now_us(state):
                continue
            at = _time(shot.fire_at_us)
            if shot.fire_at_us not in in_delivery_us:
                yield f"the external scheduler calls for {at}", False, _bind(self._relay, state, shot)

    def _message_events(self, state: State) -> Iterator[tuple[str, bool, Callable[[], State]]]:
        previous = None
        for message in state.messages:
            if message == previous:
                continue
            previous = message
            name = _message_name(message)
            if message.kind == "fire":
                for number in self._callable(state):
                    yield (
                        f"{name} reaches process {number}",
                        False,
                        _bind(self._deliver_fire, state, message, number),
                    )
            else:
                yield f"{name} arrives", False, _bind(self._deliver, state, message)
            if state.losses:
                yield f"{name} is lost", True, _bind(self._lose, state, message)
                if message.flow != NOBODY and message.kind in _ORDERED:
                    yield (
                        f"{name} arrives, and the reply is lost",
                        True,
                        _bind(self._lose_reply, state, message),
                    )
            if state.duplicates and message.kind in ("provision", "cancel", "fire"):
                if message.kind == "fire":
                    for number in self._callable(state):
                        twice = _bind(self._deliver_fire, self._double(state, message), message, number)
                        yield f"{name} reaches process {number}, and will again", True, twice
                else:
                    yield (
                        f"{name} arrives, and will again",
                        True,
                        _bind(self._deliver, self._double(state, message), message),
                    )

    def _process_events(self, state: State) -> Iterator[tuple[str, bool, Callable[[], State]]]:
        for number, proc in enumerate(state.procs):
            if not proc.is_up:
                continue
            for index, run in enumerate(proc.runs):
                at = _time(run.run.occurrence_us)
                ended = f"process {number}: the run of {at}"
                yield f"{ended} ends", False, _bind(self._end_run, state, number, index, True)
                if self.case.job.policy.attempts > 1:
                    yield f"{ended} fails", False, _bind(self._end_run, state, number, index, False)
            if state.crashes:
                yield f"process {number} crashes", True, _bind(self._crash, state, number, None)
                for message in state.messages:
                    if message.process == number and message.kind in _SENT:
                        name = _message_name(message)
                        unsent = _bind(self._crash, state, number, message)
                        yield f"process {number} crashes before it sends {name}", True, unsent

    # --- the external scheduler and NAS ---

    def _relay(self, state: State, shot: OneShot) -> State:
        if not nas.forwards(self.promises, state.row, shot):
            return state._replace(held=_without(state.held, shot))
        taken = {number for number, _ in state.relays} | {message.relay for message in state.messages}
        taken |= {task.relay for proc in state.procs for task in proc.tasks}
        number = next(number for number in range(99) if number not in taken)
        fire = Message("fire", relay=number, instant_us=shot.fire_at_us)
        return _send(state._replace(relays=(*state.relays, (number, shot))), fire)

    def _close_relay(self, state: State, number: int, is_accepted: bool) -> State:
        """NAS has its answer, or waits no longer; what is still on its way belongs to nobody."""
        shot = next((shot for relay, shot in state.relays if relay == number), None)
        if shot is None:
            return state
        row, held = state.row, state.held
        if is_accepted:
            row = nas.delivered(self.promises, row, shot)
            held = _without(held, shot)
        return state._replace(
            row=row,
            held=held,
            relays=tuple(relay for relay in state.relays if relay[0] != number),
            messages=_sorted(
                message._replace(relay=NOBODY) if message.relay == number else message
                for message in state.messages
                if not (message.relay == number and message.kind == "answer")
            ),
            procs=tuple(
                proc._replace(
                    tasks=tuple(
                        task._replace(relay=NOBODY) if task.relay == number else task for task in proc.tasks
                    )
                )
                for proc in state.procs
            ),
        )

    def _deliver(self, state: State, message: Message) -> State:
        state = state._replace(messages=_without(state.messages, message))
        match message.kind:
            case "answer":
                return self._close_relay(state, message.relay, bool(message.number))
            case "list":
                shot = nas.listed(self.promises, state.row, relays=_called_for(state))
                armed = shot.fire_at_us if shot is not None else NOBODY
                return _reply(state, message, "arms", armed, NOBODY)
            case "provision" | "cancel":
                return self._decide(state, message)
        return self._resume(state, message)

    def _decide(self, state: State, message: Message) -> State:
        revision = None if message.number == NOBODY else message.number
        if message.kind == "provision":
            decision = nas.provision(
                self.promises,
                state.row,
                job_id=JOB_ID,
                fire_at_us=message.instant_us,
                revision=revision,
                relays=_called_for(state),
            )
        else:
            decision = nas.cancel(self.promises, state.row, revision=revision)
        held, used = state.held, state.used
        if decision.delete is not None:
            held = _without(held, decision.delete)
        shot = decision.create
        if shot is not None and self._is_created(state, shot):
            held = (*held, shot)
            used = used if self.promises.names_by_generation else used | {shot.name}
        state = state._replace(row=decision.row, held=held, used=used)
        reply: Reply = decision.reply
        if reply.outdated is not None:
            return _reply(state, message, "outdated", NOBODY, reply.outdated)
        # The reply is taken at once: all that it leads to is an answer, which may be late by itself, or
        # a run, which may last. A lost reply is an event of its own.
        task = _task(state, message.process, message.flow)
        if task is None:
            return state
        return self._step(state, message.process, task, ArmAccepted(echoed=reply.echoed))

    def _is_created(self, state: State, shot: OneShot) -> bool:
        if shot.name in state.used or shot in state.held:
            return False
        return self.promises.fires_past_at_once or shot.fire_at_us > self.now_us(state)

    # --- faults ---

    def _lose(self, state: State, message: Message) -> State:
        state = state._replace(losses=state.losses - 1, messages=_without(state.messages, message))
        if message.relay != NOBODY:
            return self._close_relay(state, message.relay, False)
        return self._fail(state, message)

    def _lose_reply(self, state: State, message: Message) -> State:
        unheard = message._replace(process=NOBODY, flow=NOBODY)
        kept = _without(state.messages, message)
        decided = self._decide(state._replace(losses=state.losses - 1, messages=kept), unheard)
        return self._fail(decided, message)

    def _fail(self, state: State, message: Message) -> State:
        """Whoever waits for *message*, or for its reply, learns that there is none."""
        task = _task(state, message.process, message.flow)
        return state if task is None else self._step(state, message.process, task, _FAILED)

    def _double(self, state: State, message: Message) -> State:
        copy = message._replace(process=NOBODY, flow=NOBODY, relay=NOBODY)
        return _send(state._replace(duplicates=state.duplicates - 1), copy)

    def _crash(self, state: State, number: int, unsent: Message | None) -> State:
        """End a process; *unsent* is a message that it was about to send.

        A process performs what leads to a message in the same event in which it sends it, since the
        message may be arbitrarily late anyhow; a crash just before the sending takes it back.
        """
        proc = state.procs[number]
        state = state._replace(crashes=state.crashes - 1)
        if unsent is not None:
            state = state._replace(messages=_without(state.messages, unsent))
            if unsent.kind == "answer":
                state = self._close_relay(state, unsent.relay, False)
        for task in proc.tasks:
            if task.relay != NOBODY:
                state = self._close_relay(state, task.relay, False)
            if task.is_asked and state.change == 2:
                state = state._replace(change=1)
            if task.relay == NOBODY and self.case.is_stopped and state.stop == 3:
                state = state._replace(stop=2)  # what the start began is lost: somebody starts again
        messages = _sorted(
            message._replace(process=NOBODY, flow=NOBODY) if message.process == number else message
            for message in state.messages
            if message.process != number or message.kind in ("provision", "cancel", "answer")
        )
        dead = Proc(life=proc.life, is_up=False)
        return _with_proc(state._replace(messages=messages), number, dead)

    # --- processes ---

    def _liveness(self, state: State, number: int, task_number: int | None) -> tuple[Liveness, ...]:
        """Return what process *number* knows of the owners of the runs; a task of its own may be asking."""
        runs = state.job.runs if state.job is not None else ()
        return tuple(self._liveness_of(run, state.procs[number], number, task_number) for run in runs)

    def _liveness_of(self, run: Run, proc: Proc, number: int, task_number: int | None) -> Liveness:
        if not run.owner.startswith(f"{number}/"):
            return Liveness.UNKNOWN
        if run.owner != _owner(number, proc):
            return Liveness.DEAD
        held = any(
            task.number != task_number and _is_flow(task) and holds(task.flow, run) for task in proc.tasks
        )
        running = any(started.run.is_same_as(run) for started in proc.runs)
        return Liveness.ALIVE if held or running else Liveness.DEAD

    def _up(self, state: State, number: int) -> State:
        """Return the state with the process up; one that was down starts, and reconciles."""
        proc = state.procs[number]
        if proc.is_up:
            return state
        return self._start(_with_proc(state, number, Proc(life=proc.life + 1)), number)

    def _start(self, state: State, number: int) -> State:
        """Let a process that is up reconcile."""
        proc = state.procs[number]
        start, effects = self.agent.begin_reconciliation(dict(proc.memory))
        task = Task(_free(proc), start)
        state = _with_proc(state, number, proc._replace(tasks=(*proc.tasks, task)))
        return self._perform(state, number, task, effects)

    def _start_again(self, state: State, number: int) -> State:
        """Let somebody start a process after a stop was lifted."""
        state = state._replace(stop=3)
        return self._start(state, number) if state.procs[number].is_up else self._up(state, number)

    def _begin(
        self, state: State, number: int, intent: Intent, *, is_owed: bool = False, **fields: Any
    ) -> State:
        if state.stop == 1 and isinstance(intent, Fire | Finish):
            if isinstance(intent, Fire) and not is_owed:
                return self._answer_stopped(state, number, **fields)
            intent = attrs.evolve(intent, may_start=False)
        proc = state.procs[number]
        flow, effects = self.agent.begin(intent, owner=_owner(number, proc), now_us=self.now_us(state))
        task = Task(_free(proc), flow, **fields)
        others = (each if _is_flow(each) else each._replace(is_old=True) for each in proc.tasks)
        state = _with_proc(state, number, proc._replace(tasks=(*others, task)))
        return self._perform(state, number, task, effects)

    def _answer_stopped(self, state: State, number: int, relay: int = NOBODY) -> State:
        """Answer a fire of an agent that is told to run no jobs; nobody is asked for one of its own."""
        if relay == NOBODY:
            return state
        return _send(state, Message("answer", process=number, relay=relay, number=1))

    def _deliver_fire(self, state: State, message: Message, number: int) -> State:
        state = self._up(state._replace(messages=_without(state.messages, message)), number)
        fire = Fire(job_id=JOB_ID, fire_at_us=message.instant_us)
        return self._begin(state, number, fire, relay=message.relay)

    def _ask_change(self, state: State, number: int) -> State:
        assert self.case.change is not None
        state = self._up(state._replace(change=2), number)
        return self._begin(state, number, self.case.change, is_asked=True)

    def _end_run(self, state: State, number: int, index: int, succeeded: bool) -> State:
        proc = state.procs[number]
        started = proc.runs[index]
        left = proc.runs[:index] + proc.runs[index + 1 :]
        finish = Finish(job_id=JOB_ID, run=started.run, succeeded=succeeded, confirm=started.confirm)
        return self._begin(_with_proc(state, number, proc._replace(runs=left)), number, finish)

    def _resume(self, state: State, reply: Message) -> State:
        task = _task(state, reply.process, reply.flow)
        if task is None:
            return state
        event: Event
        match reply.kind:
            case "outdated":
                event = ArmOutdated(reply.number)
            case _:
                event = ArmsListed(
                    _Arms() if reply.instant_us == NOBODY else _Arms({JOB_ID: reply.instant_us})
                )
        return self._step(state, reply.process, task, event)

    def _step(self, state: State, number: int, task: Task, event: Event) -> State:
        """Tell a task of an event, and let it go on."""
        step = self.agent.step if _is_flow(task) else self.agent.step_reconciliation
        flow, effects = step(task.flow, event, self.now_us(state))
        told = task._replace(flow=flow)
        return self._perform(_with_task(state, number, told), number, told, effects)

    def _perform(self, state: State, number: int, task: Task, effects: tuple[Any, ...]) -> State:
        """Perform effects, up to what has to be waited for.

        A read of the store and the compare-and-set that follows are one event: where another process
        comes between them, the compare-and-set fails, has done nothing, and both are repeated.
        """
        for effect in effects:
            match effect:
                case SwapJob():
                    self._decide_move(effect)
                    state = state._replace(job=effect.replacement, acknowledged=False)
                    return self._step(state, number, task, _SWAPPED)
                case LoadJob() | LoadHistory():
                    return self._step(state, number, task, self._read(state, number, task, effect))
                case LoadJobs():
                    return self._step(state, number, task, self._jobs_loaded(state, number, task))
                case ProvisionArm() | CancelArm() | ListArms():
                    state = _send(state, _request(number, task.number, effect))
                case Answer():
                    state = self._answer(state, number, task, effect)
                case StartRun():
                    state = self._start_run(state, number, effect)
                case Begin(intents=intents, settled=is_known):
                    if not is_known and self.case.is_stopped and state.stop == 3:
                        state = state._replace(stop=2)  # it is tried again
                    for intent in intents:
                        state = self._begin(state, number, intent)
                case Remember(fire_at_us=fire_at_us):
                    memory = () if fire_at_us is None else ((JOB_ID, fire_at_us),)
                    state = _with_proc(state, number, state.procs[number]._replace(memory=memory))
        return _without_done(state, number, task.number)

    def _read(self, state: State, number: int, task: Task, effect: LoadJob | LoadHistory) -> Event:
        if isinstance(effect, LoadHistory):
            return HistoryLoaded(())  # its clocks are right: no job stands ahead of its schedule
        return JobLoaded(state.job, self._liveness(state, number, task.number))

    def _jobs_loaded(self, state: State, number: int, task: Task) -> JobsLoaded:
        job = state.job
        jobs = () if job is None else ((job, self._liveness(state, number, None)),)
        return JobsLoaded(jobs, (JOB_ID,) if task.is_old else ())

    def _decide_move(self, effect: SwapJob) -> None:
        """Decide the properties of a move of the store."""
        old, new = effect.expected, effect.replacement
        _hold(properties.ONE_OUTCOME, properties.unaccounted(old, new, effect.outcomes))
        _hold(properties.DURABLE_CLAIM, properties.unclaimable(old, new))
        _hold(properties.REPEAT_LIMIT, properties.repeats_too_often(new))

    def _answer(self, state: State, number: int, task: Task, answer: Answer) -> State:
        state = _with_task(state, number, task._replace(relay=NOBODY, is_asked=False))
        if answer.settled:
            state = state._replace(acknowledged=answer.job == state.job)
        if task.relay != NOBODY:
            reply = Message("answer", process=number, relay=task.relay, number=int(answer.settled))
            return _send(state, reply)
        if task.is_asked:
            return state._replace(change=3 if answer.settled else 1)
        owed = follow_up(task.flow.intent, answer, self.now_us(state))
        if owed is None or task.tries >= len(FOLLOW_UP_DELAYS_US):
            return state
        return self._begin(state, number, owed, is_owed=True, tries=task.tries + 1)

    def _start_run(self, state: State, number: int, effect: StartRun) -> State:
        in_flight = sum(len(proc.runs) for proc in state.procs if proc.is_up)
        run = effect.run
        _hold(properties.IDEMPOTENT_DEDUP, properties.started_again(run, state.started))
        _hold(properties.NO_OVERLAP, properties.overlaps(state.job, in_flight))
        _hold(properties.DURABLE_CLAIM, properties.undurable(state.job, run))
        _hold(properties.NOT_EARLY, properties.early(run, self.now_us(state)))
        proc = state.procs[number]
        started = tuple(sorted((*state.started, properties.attempt_of(run))))
        return _with_proc(state._replace(started=started), number, proc._replace(runs=(*proc.runs, effect)))

    # --- what makes no difference ---

    def reduced(self, state: State) -> State:
        """Return *state* without what cannot matter any more, so that more histories meet in it.

        A message with an older revision than NAS has seen, whose reply nobody awaits, will never do
        anything; who sent an answer matters while a crash may take it back, and when it arrives, while it
        may be lost, is about the arm that stands, or could clean up more than its own.
        """
        seen = state.row.revision if self.promises.orders else NOBODY
        changed = False
        messages = []
        for message in state.messages:
            if message.flow == NOBODY and message.kind in _ORDERED and NOBODY < message.number < seen:
                changed = True
            elif message.kind == "answer" and message.process != NOBODY and not state.crashes:
                changed = True
                messages.append(message._replace(process=NOBODY))
            else:
                messages.append(message)
        if changed:
            state = state._replace(messages=_sorted(messages))
        if not state.crashes and not state.losses and self.promises.deletes_own_generation:
            superseded = {relay for relay, shot in state.relays if shot.generation != state.row.generation}
            for message in state.messages:
                if message.kind == "answer" and message.relay in superseded:
                    state = self._deliver(state, message)
        return state

    # --- what is decided of a state ---

    def is_at_rest(self, state: State) -> bool:
        """Return whether nobody is at work on the job."""
        return (
            not state.messages
            and not state.relays
            and state.change in (0, 3)
            and state.stop in (0, 3)
            and not any(proc.tasks or proc.runs for proc in state.procs)
        )

    def armed_us(self, state: State) -> int | None:
        """Return the instant for which the job will be fired, or None."""
        shot = state.row.shot
        return shot.fire_at_us if shot is not None and shot in state.held else None

    def decide(self, state: State) -> None:
        """Decide the properties of a state at rest.

        Raises:
            Violated: one does not hold.
        """
        if not self.is_at_rest(state):
            return
        armed_us = self.armed_us(state)
        _hold(properties.NO_LOST_REARM, properties.lost_rearm(state.job, armed_us))
        _hold(properties.NO_ORPHAN, properties.orphan(state.job, armed_us, acknowledged=state.acknowledged))
        passed_on = sum(nas.forwards(self.promises, state.row, shot) for shot in state.held)
        _hold(properties.ONE_ARM, properties.several_arms(passed_on))

    def has_converged(self, state: State) -> bool:
        """Return whether everything has come to its end, and store and NAS agree or are about to."""
        if state.clock + 1 < len(self.case.instants_us) or not self.is_at_rest(state):
            return False
        armed_us = self.armed_us(state)
        if armed_us is not None:
            # An arm that is still to come, and comes in time, brings agreement with its fire.
            return armed_us > self.now_us(state) and properties.lost_rearm(state.job, armed_us) is None
        return state.job is None or wake_at(state.job) is None


def _hold(required: properties.Property, reason: str | None) -> None:
    if reason is not None:
        raise Violated(required, reason)


def _bind(function: Callable[..., State], *arguments: Any) -> Callable[[], State]:
    return lambda: function(*arguments)


def _time(instant_us: int) -> str:
    return format_instant(instant_us)[11:19]


def _message_name(message: Message) -> str:
    at = "" if message.instant_us == NOBODY else f" of {_time(message.instant_us)}"
    match message.kind:
        case "provision" | "cancel":
            return f"the {message.kind}{at} (revision {message.number})"
        case "answer":
            return "the answer 2xx to the fire" if message.number else "the answer 503 to the fire"
        case "outdated" | "arms":
            return f"NAS's reply ({message.kind}) to process {message.process}"
    return f"the {message.kind}{at}"


def _owner(number: int, proc: Proc) -> str:
    return f"{number}/{proc.life}"


def _sorted(messages: Any) -> tuple[Message, ...]:
    return tuple(sorted(messages))


def _send(state: State, message: Message) -> State:
    return state._replace(messages=_sorted((*state.messages, message)))


def _request(number: int, task_number: int, effect: ProvisionArm | CancelArm | ListArms) -> Message:
    """Return the message by which a task asks NAS."""
    match effect:
        case ProvisionArm(fire_at_us=fire_at_us, revision=revision):
            return Message("provision", number, task_number, NOBODY, fire_at_us, revision)
        case CancelArm(revision=revision):
            return Message("cancel", number, task_number, number=revision)
        case ListArms():
            return Message("list", number, task_number)


def _reply(state: State, request: Message, kind: str, instant_us: int, number: int) -> State:
    """Send NAS's answer to whoever waits for it."""
    if request.flow == NOBODY:
        return state
    return _send(state, Message(kind, request.process, request.flow, NOBODY, instant_us, number))


def _without(things: tuple[Any, ...], thing: Any) -> tuple[Any, ...]:
    """Return *things* without one *thing*, if it is among them."""
    if thing not in things:
        return things
    index = things.index(thing)
    return things[:index] + things[index + 1 :]


def _called_for(state: State) -> tuple[OneShot, ...]:
    """Return the one-shots whose relays are open."""
    return tuple(shot for _, shot in state.relays)


def _free(proc: Proc) -> int:
    """Return a number for a new task."""
    taken = {task.number for task in proc.tasks}
    return next(number for number in range(99) if number not in taken)


def _with_proc(state: State, number: int, proc: Proc) -> State:
    return state._replace(procs=(*state.procs[:number], proc, *state.procs[number + 1 :]))


def _task(state: State, number: int, task_number: int) -> Task | None:
    if number == NOBODY:
        return None
    return next((task for task in state.procs[number].tasks if task.number == task_number), None)


def _with_task(state: State, number: int, new: Task) -> State:
    """Put *new* in the place of the task with its number."""
    proc = state.procs[number]
    tasks = tuple(new if task.number == new.number else task for task in proc.tasks)
    return _with_proc(state, number, proc._replace(tasks=tasks))


def _is_flow(task: Task) -> bool:
    """Return whether a task is a flow, and not a reconciliation."""
    return hasattr(task.flow, "intent")


def _without_done(state: State, number: int, task_number: int) -> State:
    """Drop the task if it is over."""
    proc = state.procs[number]
    tasks = tuple(
        task for task in proc.tasks if not (task.number == task_number and task.flow.phase == "done")
    )
    return state if len(tasks) == len(proc.tasks) else _with_proc(state, number, proc._replace(tasks=tasks))
