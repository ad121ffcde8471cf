"""Everything that can happen in a small world, from each of its states.

Time stands at one of a few instants and may move on at any moment, so that every message may be arbitrarily
late; a timer may ring from when it is due, or would be before the next instant. The processes are those of
the agent under test, the same values and the same step that run in production.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs

from chronos import events
from chronos.jobs.due import wake_at
from chronos.jobs.job import Liveness
from chronos.protocol import state as process_state
from chronos.protocol.flow_effects import (
    Answer,
    ArmAccepted,
    ArmFailed,
    ArmOutdated,
    ArmsListed,
    Effect,
    Event,
    HistoryLoaded,
    JobLoaded,
    JobsLoaded,
    JobSwapped,
    LoadHistory,
    LoadJobs,
    SwapJob,
)
from chronos.protocol.intents import Fire, Intent, Renew
from chronos.protocol.process_effects import (
    Asked,
    AskedToDrain,
    AskedToStart,
    CallRunner,
    Came,
    IdentityRefused,
    Perform,
    Rang,
    Reply,
    RunEnded,
    Tell,
)
from chronos.protocol.process_effects import Event as ProcessEvent
from chronos.protocol.state import Now
from chronos.testing import nas
from chronos.testing.nas import EMPTY, OneShot, Promises
from simulator import properties
from simulator.agents import Agent
from simulator.moments import AtRest, Moment, Start, Stop, StoreMove, attempt_of, is_relied_on
from simulator.search.cases import JOB_ID, Case
from simulator.search.state import (
    NOBODY,
    ORDERED,
    SENT,
    SOMEBODY,
    Arms,
    Message,
    Proc,
    State,
    in_order,
    made_due,
    request,
    time_of,
    without,
    without_words,
)

_FAILED = ArmFailed()
_SWAPPED = JobSwapped()


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
            procs=tuple(
                Proc(1, attrs.evolve(self._begun(number, 1), is_started=True))
                for number in range(self.case.processes)
            ),
            crashes=crashes,
            duplicates=duplicates,
            losses=losses,
            change=3 if self.case.change is None else 0,
            stop=0 if self.case.is_stopped else 3,
            drain=self.case.is_drained,
            login=0 if self.case.is_logged_out else 3,
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
        yield from self._login_events(state)
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
            again = state._replace(stop=3)
            for number in self._callable(state):
                yield f"somebody starts process {number}", False, _bind(self._start_again, again, number)

    def _login_events(self, state: State) -> Iterator[tuple[str, bool, Callable[[], State]]]:
        if state.login == 0:
            yield "NAS refuses the agent's identity", False, lambda: state._replace(login=1)
        elif state.login == 1:
            yield "somebody logs the agent in", False, lambda: state._replace(login=2)
        elif state.login == 2:
            again = state._replace(login=3)
            for number in self._callable(state):
                yield f"somebody starts process {number}", False, _bind(self._start_again, again, number)

    def _callable(self, state: State) -> range:
        """Return the processes that may be called next; one of two that nothing tells apart is enough."""
        runs = state.job.runs if state.job is not None else ()
        if runs or state.is_on_its_way():
            return range(self.case.processes)
        first, *others = (_nameless(proc) for proc in state.procs)
        return range(1 if all(other == first for other in others) else self.case.processes)

    def _can_tick(self, state: State) -> bool:
        """Time moves on, but not past the lease of a run in flight, which would have renewed it."""
        if state.clock + 1 >= len(self.case.instants_us):
            return False
        then_us = self.case.instants_us[state.clock + 1]
        renewed_until_us = (
            running.started.run.lease_until_us
            for proc in state.procs
            if proc.process is not None
            for running in proc.process.runs.values()
            if running.renew_us is not None
        )
        return all(lease_us > then_us for lease_us in renewed_until_us)

    def _scheduler_events(self, state: State) -> Iterator[tuple[str, bool, Callable[[], State]]]:
        in_delivery_us = {shot.fire_at_us for shot in state.called_for()}
        for shot in state.held:
            if shot.fire_at_us > self.now_us(state):
                continue
            at = time_of(shot.fire_at_us)
            if shot.fire_at_us not in in_delivery_us:
                yield f"the external scheduler calls for {at}", False, _bind(self._relay, state, shot)

    def _message_events(self, state: State) -> Iterator[tuple[str, bool, Callable[[], State]]]:
        previous = None
        for message in state.messages:
            if message == previous:
                continue
            previous = message
            name = str(message)
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
                if message.task != NOBODY and message.kind in ORDERED:
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
            if proc.process is None:
                continue
            due_us = self._rings_us(state, proc.process)
            if due_us is not None:
                yield f"process {number}: a timer rings", False, _bind(self._ring, state, number, due_us)
            for key in proc.runs:
                at = time_of(proc.process.runs[key].started.run.occurrence_us)
                ended = f"process {number}: the run of {at}"
                yield f"{ended} ends", False, _bind(self._end_run, state, number, key, True)
                if self.case.job.policy.attempts > 1:
                    yield f"{ended} fails", False, _bind(self._end_run, state, number, key, False)
            yield from self._end_events(state, number, proc, proc.process)

    def _end_events(
        self, state: State, number: int, proc: Proc, process: process_state.Process
    ) -> Iterator[tuple[str, bool, Callable[[], State]]]:
        if state.drain and not process.is_draining:
            yield f"the host drains process {number}", False, _bind(self._drain, state, number)
        if process.is_draining and not (process.is_at_work or proc.runs):
            yield f"process {number} has drained, and ends", False, _bind(self._end, state, number)
        if state.crashes:
            crashed = state._replace(crashes=state.crashes - 1)
            yield f"process {number} crashes", True, _bind(self._crash, crashed, number, None)
            for message in state.messages:
                if message.process == number and message.kind in SENT:
                    unsent = _bind(self._crash, crashed, number, message)
                    yield f"process {number} crashes before it sends {message}", True, unsent

    def _rings_us(self, state: State, process: process_state.Process) -> int | None:
        """Return which timer of a process may ring now; None for none."""
        due_us = self.agent.rings_us(process)
        is_last = state.clock + 1 >= len(self.case.instants_us)
        if due_us is None or is_last or due_us < self.case.instants_us[state.clock + 1]:
            return due_us
        return None

    # --- the external scheduler and NAS ---

    def _relay(self, state: State, shot: OneShot) -> State:
        if not nas.forwards(self.promises, state.row, shot):
            return state._replace(held=without(state.held, shot))
        taken = {number for number, _ in state.relays} | {message.relay for message in state.messages}
        taken |= {relay for proc in state.procs for _, relay in proc.tickets}
        number = next(number for number in range(99) if number not in taken)
        fire = Message("fire", relay=number, instant_us=shot.fire_at_us)
        return state._replace(relays=(*state.relays, (number, shot))).sending(fire)

    def _close_relay(self, state: State, number: int, is_accepted: bool) -> State:
        """NAS has its answer, or waits no longer; what is still on its way belongs to nobody."""
        shot = next((shot for relay, shot in state.relays if relay == number), None)
        if shot is None:
            return state
        row, held = state.row, state.held
        if is_accepted:
            row = nas.delivered(self.promises, row, shot)
            held = without(held, shot)
        return state._replace(
            row=row,
            held=held,
            relays=tuple(relay for relay in state.relays if relay[0] != number),
            messages=in_order(
                message._replace(relay=NOBODY) if message.relay == number else message
                for message in state.messages
                if not (message.relay == number and message.kind == "answer")
            ),
            procs=tuple(
                proc._replace(
                    tickets=tuple(
                        (each, NOBODY if relay == number else relay) for each, relay in proc.tickets
                    )
                )
                for proc in state.procs
            ),
        )

    def _deliver(self, state: State, message: Message) -> State:
        state = state._replace(messages=without(state.messages, message))
        if state.login == 1 and message.kind in ("list", *ORDERED):
            return state.replying(message, "refused", NOBODY, NOBODY)
        match message.kind:
            case "answer":
                return self._close_relay(state, message.relay, bool(message.number))
            case "list":
                shot = nas.listed(self.promises, state.row, relays=state.called_for())
                armed = shot.fire_at_us if shot is not None else NOBODY
                return state.replying(message, "arms", armed, NOBODY)
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
                relays=state.called_for(),
            )
        else:
            decision = nas.cancel(self.promises, state.row, revision=revision)
        held, used = state.held, state.used
        if decision.delete is not None:
            held = without(held, decision.delete)
        shot = decision.create
        if shot is not None and self._is_created(state, shot):
            held = (*held, shot)
            used = used if self.promises.names_by_generation else used | {shot.name}
        state = state._replace(row=decision.row, held=held, used=used)
        if decision.reply.outdated is not None:
            return state.replying(message, "outdated", NOBODY, decision.reply.outdated)
        # The reply is taken at once: all that it leads to is an answer, which may be late by itself, or
        # a run, which may last. A lost reply is an event of its own.
        return self._came(state, message, ArmAccepted(echoed=decision.reply.echoed))

    def _is_created(self, state: State, shot: OneShot) -> bool:
        if shot.name in state.used or shot in state.held:
            return False
        return self.promises.fires_past_at_once or shot.fire_at_us > self.now_us(state)

    # --- faults ---

    def _lose(self, state: State, message: Message) -> State:
        state = state._replace(losses=state.losses - 1, messages=without(state.messages, message))
        if message.relay != NOBODY:
            return self._close_relay(state, message.relay, False)
        return self._came(state, message, _FAILED)

    def _lose_reply(self, state: State, message: Message) -> State:
        unheard = message._replace(process=NOBODY, task=NOBODY)
        kept = without(state.messages, message)
        decided = self._decide(state._replace(losses=state.losses - 1, messages=kept), unheard)
        return self._came(decided, message, _FAILED)

    def _double(self, state: State, message: Message) -> State:
        copy = message._replace(process=NOBODY, task=NOBODY, relay=NOBODY)
        return state._replace(duplicates=state.duplicates - 1).sending(copy)

    def _crash(self, state: State, number: int, unsent: Message | None) -> State:
        """End a process; *unsent* is a message that it was about to send.

        A process performs what leads to a message in the same event in which it sends it, since the
        message may be arbitrarily late anyhow; a crash just before the sending takes it back.
        """
        proc = state.procs[number]
        assert proc.process is not None
        if unsent is not None:
            state = state._replace(messages=without(state.messages, unsent))
            if unsent.kind == "answer":
                state = self._close_relay(state, unsent.relay, False)
        for _, relay in proc.tickets:
            if relay == SOMEBODY and state.change == 2:
                state = state._replace(change=1)
            elif relay >= 0:
                state = self._close_relay(state, relay, False)
        if self.case.is_stopped and state.stop == 3 and proc.process.is_at_work:
            state = state._replace(stop=2)  # what the start began is lost: somebody starts again
        if self.case.is_logged_out and state.login == 3 and _is_at_work(proc.process):
            state = state._replace(login=2)
        return self._end(state, number)

    def _end(self, state: State, number: int) -> State:
        """Let a process be no more; what it has sent goes on."""
        messages = in_order(
            message._replace(process=NOBODY, task=NOBODY) if message.process == number else message
            for message in state.messages
            if message.process != number or message.kind in ("provision", "cancel", "answer")
        )
        down = Proc(state.procs[number].life, None)
        return state._replace(messages=messages).with_proc(number, down)

    # --- processes ---

    def _begun(self, number: int, life: int) -> process_state.Process:
        return self.agent.begun(_owner(number, life))

    def _up(self, state: State, number: int) -> State:
        """Return the state with the process up; one that was down starts, and reconciles."""
        proc = state.procs[number]
        if proc.process is not None:
            return state
        life = proc.life + 1
        return self._start(state.with_proc(number, Proc(life, self._begun(number, life))), number)

    def _start(self, state: State, number: int) -> State:
        """Let a process that is up reconcile."""
        ticket, state = self._ticket(state, number, NOBODY)
        return self._happen(state, number, AskedToStart(ticket))

    def _start_again(self, state: State, number: int) -> State:
        """Let somebody start a process, which may be up."""
        is_up = state.procs[number].process is not None
        return self._start(state, number) if is_up else self._up(state, number)

    def _ticket(self, state: State, number: int, relay: int) -> tuple[int, State]:
        """Return a ticket for somebody who waits for the answer of a process."""
        proc = state.procs[number]
        taken = {ticket for ticket, _ in proc.tickets}
        ticket = next(each for each in range(99) if each not in taken)
        return ticket, state.with_proc(number, proc._replace(tickets=(*proc.tickets, (ticket, relay))))

    def _ask(self, state: State, number: int, intent: Intent, relay: int) -> State:
        ticket, state = self._ticket(self._up(state, number), number, relay)
        return self._happen(state, number, Asked(ticket, intent))

    def _deliver_fire(self, state: State, message: Message, number: int) -> State:
        state = state._replace(messages=without(state.messages, message))
        return self._ask(state, number, Fire(job_id=JOB_ID, fire_at_us=message.instant_us), message.relay)

    def _ask_change(self, state: State, number: int) -> State:
        assert self.case.change is not None
        return self._ask(state._replace(change=2), number, self.case.change, SOMEBODY)

    def _drain(self, state: State, number: int) -> State:
        return self._happen(state._replace(drain=False), number, AskedToDrain())

    def _ring(self, state: State, number: int, due_us: int) -> State:
        proc, now_us = state.procs[number], self.now_us(state)
        assert proc.process is not None
        due = proc._replace(process=made_due(proc.process, due_us, now_us))
        return self._happen(state.with_proc(number, due), number, Rang())

    def _end_run(self, state: State, number: int, key: Any, succeeded: bool) -> State:
        proc = state.procs[number]
        ended = proc._replace(runs=without(proc.runs, key))
        return self._happen(state.with_proc(number, ended), number, RunEnded(key, succeeded))

    def _resume(self, state: State, reply: Message) -> State:
        if reply.kind == "refused":
            return self._came(state, reply, IdentityRefused())
        if reply.kind == "outdated":
            return self._came(state, reply, ArmOutdated(reply.number))
        arms = Arms() if reply.instant_us == NOBODY else Arms({JOB_ID: reply.instant_us})
        return self._came(state, reply, ArmsListed(arms))

    def _came(self, state: State, message: Message, event: Event) -> State:
        """Tell the task that waits for *message*, or for its reply, what came of it."""
        if message.process == NOBODY or message.task == NOBODY:
            return state
        if state.procs[message.process].process is None:
            return state
        return self._happen(state, message.process, Came(message.task, event))

    def _happen(self, state: State, number: int, event: ProcessEvent) -> State:
        """Let something happen to a process, and perform what it wants, up to what has to be waited for.

        A read of the store and the compare-and-set that follows are one event: where another process
        comes between them, the compare-and-set fails, has done nothing, and both are repeated.
        """
        proc, now_us = state.procs[number], self.now_us(state)
        assert proc.process is not None
        now = Now(now_us, now_us, is_stopped=state.stop == 1)
        process, effects = self.agent.step(proc.process, event, now)
        state = state.with_proc(number, proc._replace(process=process))
        for effect in effects:
            match effect:
                case Perform():
                    state = self._perform(state, number, effect)
                case Reply():
                    state = self._reply(state, number, effect)
                case CallRunner():
                    state = self._call_runner(state, number, effect)
                case Tell(event=events.FlowEnded(intent=intent, answer=answer)):
                    # A renewal that changes nothing for NAS has not asked it.
                    if answer.settled and not isinstance(intent, Renew):
                        state = state._replace(acknowledged=answer.job == state.job)
        return state

    def _perform(self, state: State, number: int, effect: Perform) -> State:
        wanted = effect.effect
        if effect.within_us is not None:
            return state.sending(request(number, effect.number, wanted))
        if isinstance(wanted, SwapJob):
            self._decide_move(wanted)
            state = state._replace(job=wanted.replacement, acknowledged=False)
            return self._happen(state, number, Came(effect.number, _SWAPPED))
        return self._happen(state, number, Came(effect.number, self._read(state, number, wanted)))

    def _read(self, state: State, number: int, effect: Effect) -> Event:
        job, owners = state.job, self._owners(state, number)
        match effect:
            case LoadHistory():
                return HistoryLoaded(())  # its clocks are right: no job stands ahead of its schedule
            case LoadJobs():
                return JobsLoaded(() if job is None else ((job, owners),))
        return JobLoaded(job, owners)

    def _owners(self, state: State, number: int) -> tuple[Liveness, ...]:
        """Return what machine *number* knows of the processes that own the runs."""
        runs, life = state.job.runs if state.job is not None else (), state.procs[number].life
        return tuple(
            Liveness.DEAD
            if run.owner.startswith(f"{number}/") and run.owner != _owner(number, life)
            else Liveness.UNKNOWN
            for run in runs
        )

    def _decide_move(self, effect: SwapJob) -> None:
        """Decide the properties of a move of the store."""
        _decide(StoreMove(old=effect.expected, new=effect.replacement, outcomes=effect.outcomes))

    def _reply(self, state: State, number: int, effect: Reply) -> State:
        proc = state.procs[number]
        relay = dict(proc.tickets)[effect.ticket]  # type: ignore[index]
        left = tuple(each for each in proc.tickets if each[0] != effect.ticket)
        state, answer = state.with_proc(number, proc._replace(tickets=left)), effect.result
        if not isinstance(answer, Answer):
            return state
        if relay == SOMEBODY:
            return state._replace(change=3 if answer.settled else 1)
        if relay == NOBODY:
            return state
        return state.sending(Message("answer", process=number, relay=relay, number=int(answer.settled)))

    def _call_runner(self, state: State, number: int, effect: CallRunner) -> State:
        run, in_flight = effect.started.run, sum(len(proc.runs) for proc in state.procs)
        start = Start(
            job=state.job, run=run, started=state.started, in_flight=in_flight, now_us=self.now_us(state)
        )
        _decide(start)
        proc = state.procs[number]
        started = tuple(sorted((*state.started, attempt_of(run))))
        running = proc._replace(runs=(*proc.runs, effect.key))
        return state._replace(started=started).with_proc(number, running)

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
            if message.task == NOBODY and message.kind in ORDERED and NOBODY < message.number < seen:
                changed = True
            elif message.kind == "answer" and message.process != NOBODY and not state.crashes:
                changed = True
                messages.append(message._replace(process=NOBODY))
            else:
                messages.append(message)
        if changed:
            state = state._replace(messages=in_order(messages))
        procs = tuple(
            proc if proc.process is None else proc._replace(process=without_words(proc.process))
            for proc in state.procs
        )
        state = state._replace(procs=procs)
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
            and state.login in (0, 3)
            and not any(
                proc.runs or (proc.process is not None and _is_at_work(proc.process)) for proc in state.procs
            )
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
        for number, proc in enumerate(state.procs):
            self._decide_sleep(state, number, proc)
        if not self.is_at_rest(state):
            return
        armed_us = self.armed_us(state)
        arms = sum(nas.forwards(self.promises, state.row, shot) for shot in state.held)
        _decide(AtRest(job=state.job, armed_us=armed_us, acknowledged=state.acknowledged, arms=arms))

    def _decide_sleep(self, state: State, number: int, proc: Proc) -> None:
        """Decide whether the host would stop a machine that is still at work."""
        if proc.process is None:
            return
        asked = {message.task for message in state.messages if message.process == number}
        tasks = [proc.process.tasks[each] for each in asked if each in proc.process.tasks]
        waits = [task for task in tasks if is_relied_on(task)]
        if not (proc.runs or waits):
            return
        now_us = self.now_us(state)
        pending = self.agent.pending(proc.process, Now(now_us, now_us, is_stopped=state.stop == 1))
        if not any(each.is_busy for each in pending):
            _decide(Stop(who=f"process {number}", requests=len(waits), runs=len(proc.runs)))

    def has_converged(self, state: State) -> bool:
        """Return whether everything has come to its end, and store and NAS agree or are about to."""
        if state.clock + 1 < len(self.case.instants_us) or not self.is_at_rest(state):
            return False
        armed_us = self.armed_us(state)
        if armed_us is not None:
            # An arm that is still to come, and comes in time, brings agreement with its fire.
            rest = AtRest(job=state.job, armed_us=armed_us)
            return armed_us > self.now_us(state) and properties.NO_LOST_REARM.violation(rest) is None
        return state.job is None or wake_at(state.job) is None


def _decide(moment: Moment) -> None:
    for violated, reason in properties.violations(moment):
        raise Violated(violated, reason)


def _bind(function: Callable[..., State], *arguments: Any) -> Callable[[], State]:
    return lambda: function(*arguments)


def _owner(number: int, life: int) -> str:
    return f"{number}/{life}"


def _is_at_work(process: process_state.Process) -> bool:
    """Return whether a process goes on by itself; one that fires its jobs does, as long as it lives."""
    return process.is_at_work or process.ticker.is_running


def _nameless(proc: Proc) -> Proc:
    """Return what tells a machine from others besides its name."""
    return proc if proc.process is None else proc._replace(process=attrs.evolve(proc.process, owner=""))
