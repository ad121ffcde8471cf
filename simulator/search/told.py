"""A counterexample as the lines of a trace: what each of its events does, and which line led to which.

A told space is the space that is searched. Its processes, network, host and people note what they do besides,
and the states are the same.
"""

from __future__ import annotations

from typing import Any

from chronos.protocol.flow_effects import Answer, ArmFailed, Event, SwapJob
from chronos.protocol.process_effects import CallRunner, Perform, Rang, Reply
from chronos.protocol.process_effects import Event as ProcessEvent
from chronos.testing import nas
from chronos.testing.nas import Decision, OneShot, Promises
from simulator.agents import Agent
from simulator.search.cases import Case
from simulator.search.explore import Counterexample
from simulator.search.host import Host
from simulator.search.network import Network
from simulator.search.people import People
from simulator.search.processes import Processes
from simulator.search.space import Space
from simulator.search.state import NOBODY, ORDERED, SOMEBODY, Message, State, request, time_of
from simulator.search.teller import Teller
from simulator.search.walk import walk
from simulator.trace import MESSAGE, Lane, Line


def lines_of(space: Space, found: Counterexample) -> tuple[Line, ...]:
    """Return the lines of a counterexample of *space*."""
    teller = Teller(space.case)
    told = _Told(space, teller)
    state: State | None = told.initial()
    teller.begin(told.initial())
    for choice in found.choices:
        assert state is not None
        teller.begin_step()
        for taken in walk(told, state, (choice,)):
            state = taken.state
            teller.end_step(taken.label, state)
    teller.violated(found)
    return teller.lines()


# What a process learns from each of NAS's replies.
_REPLIES = {
    "arms": "what is armed",
    "outdated": "that NAS has seen a newer revision",
    "refused": "that NAS refuses its identity",
}


def _armed(instant_us: int) -> str:
    return "nothing" if instant_us == NOBODY else time_of(instant_us)


class _Told(Space):
    """A space that tells *teller* what happens in it."""

    def __init__(self, space: Space, teller: Teller) -> None:
        case, agent, promises = space.case, space.agent, space.promises
        crashes, duplicates, losses = space.budget
        super().__init__(case, agent, promises, crashes=crashes, duplicates=duplicates, losses=losses)
        self._processes = processes = _Processes(case, agent, teller)
        self._network = network = _Network(case, promises, processes, teller)
        self._host = _Host(case, processes, network, teller)
        self._people = _People(case, processes, teller)


class _Processes(Processes):
    """Tells what happens in a process: it starts, claims, runs, asks and answers."""

    def __init__(self, case: Case, agent: Agent, teller: Teller) -> None:
        super().__init__(case, agent)
        self._teller = teller

    def happen(self, state: State, number: int, event: ProcessEvent) -> State:
        """Let something happen to a process; a timer that rings leads on from what happened to it last."""
        if isinstance(event, Rang):
            self._teller.goes_on(number)
            self._teller.note("timer", Lane.AGENT, f"process {number}: a timer rings", process=number)
        return super().happen(state, number, event)

    def start_again(self, state: State, number: int) -> State:
        """Let somebody start a process."""
        self._teller.asked(number, f"somebody starts process {number}", "start")
        return super().start_again(state, number)

    def came(self, state: State, message: Message, event: Event) -> State:
        """Tell a task what came of its message."""
        number = message.process
        if isinstance(event, ArmFailed) and number != NOBODY and state.procs[number].process is not None:
            text = f"process {number} cannot tell whether NAS agrees"
            self._teller.note("arm_failed", Lane.AGENT, text, process=number)
        return super().came(state, message, event)

    def _up(self, state: State, number: int) -> State:
        if state.procs[number].process is None:
            self._teller.note("booted", Lane.AGENT, f"process {number} starts", process=number, value=number)
        return super()._up(state, number)

    def _end_run(self, state: State, number: int, key: Any, succeeded: bool) -> State:
        process = state.procs[number].process
        assert process is not None
        at = time_of(process.runs[key].started.run.occurrence_us)
        self._teller.ended(number, key, f"the run of {at} {'ends' if succeeded else 'fails'}")
        return super()._end_run(state, number, key, succeeded)

    def _perform(self, state: State, number: int, effect: Perform) -> State:
        wanted = effect.effect
        if effect.within_us is not None:
            self._teller.sent(request(number, effect.number, wanted))
        elif isinstance(wanted, SwapJob):
            self._teller.stored(wanted.expected, wanted.replacement, wanted.outcomes)
        return super()._perform(state, number, effect)

    def _reply(self, state: State, number: int, effect: Reply) -> State:
        relay, answer = dict(state.procs[number].tickets)[effect.ticket], effect.result  # type: ignore[index]
        if isinstance(answer, Answer) and relay == SOMEBODY:
            text = f"the answer: {'done' if answer.settled else 'not settled yet'}"
            self._teller.note(MESSAGE, Lane.AGENT, text, process=number, to=Lane.PEOPLE, leads=False)
        elif isinstance(answer, Answer) and relay != NOBODY:
            self._teller.sent(Message("answer", process=number, relay=relay, number=int(answer.settled)))
        return super()._reply(state, number, effect)

    def _call_runner(self, state: State, number: int, effect: CallRunner) -> State:
        at = time_of(effect.started.run.occurrence_us)
        self._teller.started(number, effect.key, f"the run of {at} starts")
        return super()._call_runner(state, number, effect)


class _Network(Network):
    """Tells what becomes of messages, and what NAS and the external scheduler do."""

    def __init__(self, case: Case, promises: Promises, processes: Processes, teller: Teller) -> None:
        super().__init__(case, promises, processes)
        self._teller = teller
        self._unheard = NOBODY

    def _relay(self, state: State, shot: OneShot) -> State:
        self._teller.called(shot)
        after = super()._relay(state, shot)
        if len(after.relays) == len(state.relays):
            text = f"NAS drops the relay of {time_of(shot.fire_at_us)}: not the present arm"
            self._teller.note("relay_dropped", Lane.NAS, text)
        else:
            relay, _ = after.relays[-1]
            self._teller.sent(Message("fire", relay=relay, instant_us=shot.fire_at_us))
        return after

    def deliver(self, state: State, message: Message) -> State:
        """Let a message arrive."""
        self._teller.arrived(message)
        if state.login == 1 and message.kind in ("list", *ORDERED):
            self._teller.note("refuses", Lane.NAS, "NAS refuses the agent's identity")
        elif message.kind == "list":
            shot = nas.listed(self._promises, state.row, relays=state.called_for())
            armed = NOBODY if shot is None else shot.fire_at_us
            self._teller.note("listed", Lane.NAS, f"NAS lists what is armed: {_armed(armed)}")
        elif message.kind in _REPLIES:
            number, what = message.process, _REPLIES[message.kind]
            text = f"process {number} learns {what}"
            if message.kind == "arms":
                text += f": {_armed(message.instant_us)}"
            self._teller.note("learns", Lane.AGENT, text, process=None if number == NOBODY else number)
        return super().deliver(state, message)

    def _deliver_fire(self, state: State, message: Message, number: int) -> State:
        self._teller.arrived(message, number)
        text = f"the fire for {time_of(message.instant_us)} arrives"
        self._teller.note("fired", Lane.AGENT, text, process=number)
        return super()._deliver_fire(state, message, number)

    def close_relay(self, state: State, number: int, is_accepted: bool) -> State:
        """NAS has its answer, or waits no longer."""
        after = super().close_relay(state, number, is_accepted)
        shot = next((shot for relay, shot in state.relays if relay == number), None)
        if shot is None:
            return after
        at, armed = time_of(shot.fire_at_us), state.row.shot
        if not is_accepted:
            text = f"the fire of {at} has failed: the external scheduler will call again"
            self._teller.note("undelivered", Lane.NAS, text)
            return after
        text = f"the fire of {at} is delivered"
        if armed is not None and armed != shot and after.row.shot is None:
            text += f"; NAS deletes the arm of {time_of(armed.fire_at_us)} with it"
        self._teller.note("delivered", Lane.NAS, text)
        return after

    def _decide(self, state: State, message: Message) -> State:
        teller, decision = self._teller, self.decision(state, message)
        if decision.reply.outdated is not None:
            seen = decision.reply.outdated
            teller.note("outdated", Lane.NAS, f"NAS refuses {message}: it has seen revision {seen}")
            return super()._decide(state, message)
        self._tell_decision(state, message, decision)
        if self._unheard != NOBODY:
            text, number = "the reply, lost on its way", self._unheard
            teller.note(MESSAGE, Lane.NAS, text, to=Lane.AGENT, process=number, is_lost=True)
        elif message.task != NOBODY:
            number = message.process
            teller.note(MESSAGE, Lane.NAS, "the reply: accepted", to=Lane.AGENT, process=number)
        return super()._decide(state, message)

    def _tell_decision(self, state: State, message: Message, decision: Decision) -> None:
        """Tell what NAS does with a message that it accepts."""
        teller, shot = self._teller, decision.create
        if message.kind == "cancel":
            teller.note("cancelled", Lane.NAS, "NAS disarms the job")
        elif shot is None:
            teller.note("provisioned", Lane.NAS, f"{time_of(message.instant_us)} is armed already")
        elif self.is_created(state, shot):
            teller.armed(shot)
        else:
            text = f"the external scheduler does not take the one-shot for {time_of(shot.fire_at_us)}"
            teller.note("swallowed", Lane.EXTERNAL, text)

    def _lose(self, state: State, message: Message) -> State:
        self._teller.lost(message)
        return super()._lose(state, message)

    def _lose_reply(self, state: State, message: Message) -> State:
        self._teller.arrived(message)
        self._unheard = message.process
        after = super()._lose_reply(state, message)
        self._unheard = NOBODY
        return after


class _Host(Host):
    """Tells which processes drain, end and crash."""

    def __init__(self, case: Case, processes: Processes, network: Network, teller: Teller) -> None:
        super().__init__(case, processes, network)
        self._teller = teller
        self._is_crash = False

    def _drain(self, state: State, number: int) -> State:
        self._teller.note("drained", Lane.AGENT, f"the host drains process {number}", process=number)
        return super()._drain(state, number)

    def _crash(self, state: State, number: int, unsent: Message | None) -> State:
        teller, proc = self._teller, state.procs[number]
        assert proc.process is not None
        teller.goes_on(number)
        words = "" if unsent is None else f" before it sends {unsent}"
        teller.note("crashed", Lane.AGENT, f"process {number} crashes{words}", process=number, value=number)
        for key in proc.runs:
            at = time_of(proc.process.runs[key].started.run.occurrence_us)
            teller.ended(number, key, f"the run of {at} is cut off", by_itself=False)
        if unsent is not None:
            teller.unsent(unsent)
        self._is_crash = True
        after = super()._crash(state, number, unsent)
        self._is_crash = False
        return after

    def _end(self, state: State, number: int) -> State:
        if not self._is_crash:
            text = f"process {number} has drained, and ends"
            self._teller.note("stopped", Lane.AGENT, text, process=number, value=number)
        return super()._end(state, number)


class _People(People):
    """Tells what people ask for."""

    def __init__(self, case: Case, processes: Processes, teller: Teller) -> None:
        super().__init__(case, processes)
        self._teller = teller

    def _ask_change(self, state: State, number: int) -> State:
        asked = type(self._case.change).__name__.lower()
        self._teller.asked(number, f"somebody asks process {number}: {asked}", asked)
        return super()._ask_change(state, number)
