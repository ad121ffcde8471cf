"""The agent's processes in a small world: what happens to one, and what it wants to be done.

They are those of the agent under test, the same values and the same step that run in production. A timer
may ring from when it is due, or would be before the next instant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from chronos import events
from chronos.jobs.job import Liveness
from chronos.protocol.flow_effects import (
    Answer,
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
from chronos.protocol.intents import Intent, Renew
from chronos.protocol.process_effects import (
    Asked,
    AskedToStart,
    CallRunner,
    Came,
    Perform,
    Rang,
    Reply,
    RunEnded,
    Tell,
)
from chronos.protocol.process_effects import Event as ProcessEvent
from chronos.protocol.state import Now, Process
from chronos.values import evolve
from simulator.agents import Agent, Raised
from simulator.moments import Start, StoreMove, attempt_of
from simulator.search.cases import Case
from simulator.search.moves import Move, bound
from simulator.search.state import (
    NOBODY,
    SOMEBODY,
    Message,
    Proc,
    State,
    made_due,
    request,
    time_of,
    without,
)
from simulator.search.verdict import require

_SWAPPED = JobSwapped()


class Processes:
    """What the agent's processes do.

    Args:
        case: the bounded world.
        agent: the agent under test.

    Attributes:
        crash: ends a process, as the host does.
    """

    def __init__(self, case: Case, agent: Agent) -> None:
        self._case, self._agent = case, agent
        self.crash: Callable[[State, int], State]

    def begun(self, number: int, life: int) -> Process:
        """Return the process of a machine's life as it begins."""
        return self._agent.begun(_owner(number, life))

    def candidates(self, state: State) -> range:
        """Return the processes that may be called next; one of two that nothing tells apart is enough."""
        runs = state.job.runs if state.job is not None else ()
        if runs or state.is_on_its_way():
            return range(self._case.processes)
        first, *others = (_nameless(proc) for proc in state.procs)
        return range(1 if all(other == first for other in others) else self._case.processes)

    # --- what it does of itself ---

    def moves(self, state: State, number: int, proc: Proc, process: Process) -> Iterator[Move]:
        """Yield how a process goes on by itself: its timers ring, its runs end."""
        due_us = self._rings_us(state, process)
        if due_us is not None:
            yield f"process {number}: a timer rings", False, bound(self._ring, state, number, due_us)
        for key in proc.runs:
            at = time_of(process.runs[key].started.run.occurrence_us)
            ended = f"process {number}: the run of {at}"
            yield f"{ended} ends", False, bound(self._end_run, state, number, key, True)
            if self._case.job.policy.attempts > 1:
                yield f"{ended} fails", False, bound(self._end_run, state, number, key, False)

    def _rings_us(self, state: State, process: Process) -> int | None:
        """Return which timer of a process may ring now; None for none."""
        due_us = self._agent.rings_us(process)
        then_us = self._case.next_us(state.clock)
        return due_us if due_us is None or then_us is None or due_us < then_us else None

    def _ring(self, state: State, number: int, due_us: int) -> State:
        proc, now_us = state.procs[number], self._case.now_us(state.clock)
        assert proc.process is not None
        due = proc._replace(process=made_due(proc.process, due_us, now_us))
        return self.happen(state.with_proc(number, due), number, Rang())

    def _end_run(self, state: State, number: int, key: Any, succeeded: bool) -> State:
        proc = state.procs[number]
        ended = proc._replace(runs=without(proc.runs, key))
        return self.happen(state.with_proc(number, ended), number, RunEnded(key, succeeded))

    # --- what is asked of it ---

    def _up(self, state: State, number: int) -> State:
        """Return the state with the process up; one that was down starts, and reconciles."""
        proc = state.procs[number]
        if proc.process is not None:
            return state
        life = proc.life + 1
        return self.start(state.with_proc(number, Proc(life, self.begun(number, life))), number)

    def start(self, state: State, number: int) -> State:
        """Let a process that is up reconcile."""
        ticket, state = self._ticket(state, number, NOBODY)
        return self.happen(state, number, AskedToStart(ticket))

    def start_again(self, state: State, number: int) -> State:
        """Let somebody start a process, which may be up."""
        is_up = state.procs[number].process is not None
        return self.start(state, number) if is_up else self._up(state, number)

    def ask(self, state: State, number: int, intent: Intent, relay: int) -> State:
        """Let somebody, or NAS with a relay, ask a process for something."""
        state = self._up(state, number)
        if state.procs[number].process is None:  # an exception has ended its start
            return self._unheard(state, relay)
        ticket, state = self._ticket(state, number, relay)
        return self.happen(state, number, Asked(ticket, intent))

    def _unheard(self, state: State, relay: int) -> State:
        """Tell who asked a process that is no more."""
        if relay == SOMEBODY:
            return state._replace(change=1)
        return state if relay == NOBODY else state.sending(Message("answer", relay=relay, number=0))

    def _ticket(self, state: State, number: int, relay: int) -> tuple[int, State]:
        """Return a ticket for somebody who waits for the answer of a process."""
        proc = state.procs[number]
        taken = {ticket for ticket, _ in proc.tickets}
        ticket = next(each for each in range(99) if each not in taken)
        return ticket, state.with_proc(number, proc._replace(tickets=(*proc.tickets, (ticket, relay))))

    def came(self, state: State, message: Message, event: Event) -> State:
        """Tell the task that waits for *message*, or for its reply, what came of it."""
        if message.process == NOBODY or message.task == NOBODY:
            return state
        if state.procs[message.process].process is None:
            return state
        return self.happen(state, message.process, Came(message.task, event))

    def happen(self, state: State, number: int, event: ProcessEvent) -> State:
        """Let something happen to a process, and perform what it wants, up to what has to be waited for.

        A read of the store and the compare-and-set that follows are one event: where another process
        comes between them, the compare-and-set fails, has done nothing, and both are repeated.
        """
        proc, now_us = state.procs[number], self._case.now_us(state.clock)
        assert proc.process is not None
        now = Now(now_us, now_us, is_stopped=state.stop == 1)
        process, effects = self._agent.step(proc.process, event, now)
        state = state.with_proc(number, proc._replace(process=process))
        for effect in effects:
            if state.procs[number].process is None:  # an exception has ended it
                return state
            match effect:
                case Perform():
                    state = self._perform(state, number, effect)
                case Reply():
                    state = self._reply(state, number, effect)
                case CallRunner():
                    state = self._call_runner(state, number, effect)
                case Raised():
                    return self.crash(state, number)
                case Tell(event=events.FlowEnded(intent=intent, answer=answer)):
                    # A renewal that changes nothing for NAS has not asked it.
                    if answer.settled and not isinstance(intent, Renew):
                        state = state._replace(acknowledged=answer.job == state.job)
        return state

    # --- what it wants ---

    def _perform(self, state: State, number: int, effect: Perform) -> State:
        wanted = effect.effect
        if effect.within_us is not None:
            return state.sending(request(number, effect.number, wanted))
        if isinstance(wanted, SwapJob):
            require(StoreMove(old=wanted.expected, new=wanted.replacement, outcomes=wanted.outcomes))
            state = state._replace(job=wanted.replacement, acknowledged=False)
            return self.happen(state, number, Came(effect.number, _SWAPPED))
        return self.happen(state, number, Came(effect.number, self._read(state, number, wanted)))

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
        run, now_us = effect.started.run, self._case.now_us(state.clock)
        in_flight = sum(len(proc.runs) for proc in state.procs)
        require(Start(job=state.job, run=run, started=state.started, in_flight=in_flight, now_us=now_us))
        proc = state.procs[number]
        started = tuple(sorted((*state.started, attempt_of(run))))
        running = proc._replace(runs=(*proc.runs, effect.key))
        return state._replace(started=started).with_proc(number, running)


def is_at_work(process: Process) -> bool:
    """Return whether a process goes on by itself; one that fires its jobs does, as long as it lives."""
    return process.is_at_work or process.ticker.is_running


def _owner(number: int, life: int) -> str:
    return f"{number}/{life}"


def _nameless(proc: Proc) -> Proc:
    """Return what tells a machine from others besides its name."""
    return proc if proc.process is None else proc._replace(process=evolve(proc.process, owner=""))
