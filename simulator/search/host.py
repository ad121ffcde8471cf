"""The host of a small world: it drains a machine, and its processes end or crash."""

from __future__ import annotations

from collections.abc import Iterator

from chronos.protocol.process_effects import AskedToDrain
from chronos.protocol.state import Process
from simulator.search.cases import Case
from simulator.search.moves import Move, bound
from simulator.search.network import Network
from simulator.search.processes import Processes, is_at_work
from simulator.search.state import NOBODY, SENT, SOMEBODY, Message, Proc, State, in_order, without


class Host:
    """What the host does to the processes.

    Args:
        case: the bounded world.
        processes: what it drains.
        network: learns whose answer will not come.
    """

    def __init__(self, case: Case, processes: Processes, network: Network) -> None:
        self._case, self._processes, self._network = case, processes, network
        processes.crash = lambda state, number: self._crash(state, number, None)

    def moves(self, state: State, number: int, proc: Proc, process: Process) -> Iterator[Move]:
        """Yield how a process may end: drained, or with a crash."""
        if state.drain and not process.is_draining:
            yield f"the host drains process {number}", False, bound(self._drain, state, number)
        if process.is_draining and not (process.is_at_work or proc.runs):
            yield f"process {number} has drained, and ends", False, bound(self._end, state, number)
        if state.crashes:
            crashed = state._replace(crashes=state.crashes - 1)
            yield f"process {number} crashes", True, bound(self._crash, crashed, number, None)
            for message in state.messages:
                if message.process == number and message.kind in SENT:
                    unsent = bound(self._crash, crashed, number, message)
                    yield f"process {number} crashes before it sends {message}", True, unsent

    def _drain(self, state: State, number: int) -> State:
        return self._processes.happen(state._replace(drain=False), number, AskedToDrain())

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
                state = self._network.close_relay(state, unsent.relay, False)
        for _, relay in proc.tickets:
            if relay == SOMEBODY and state.change == 2:
                state = state._replace(change=1)
            elif relay >= 0:
                state = self._network.close_relay(state, relay, False)
        if self._case.is_stopped and state.stop == 3 and proc.process.is_at_work:
            state = state._replace(stop=2)  # what the start began is lost: somebody starts again
        if self._case.is_logged_out and state.login == 3 and is_at_work(proc.process):
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
