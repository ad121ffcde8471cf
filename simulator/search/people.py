"""The people of a small world: they change the job, stop and start the agent, and log it in."""

from __future__ import annotations

from collections.abc import Iterator

from simulator.search.cases import Case
from simulator.search.moves import Move, bound
from simulator.search.processes import Processes
from simulator.search.state import SOMEBODY, State


class People:
    """What people do.

    Args:
        case: the bounded world.
        processes: whom they ask.
    """

    def __init__(self, case: Case, processes: Processes) -> None:
        self._case, self._processes = case, processes

    def moves(self, state: State) -> Iterator[Move]:
        """Yield what people may do next."""
        yield from self._stops(state)
        yield from self._logins(state)
        yield from self._changes(state)

    def _stops(self, state: State) -> Iterator[Move]:
        if state.stop == 0:
            yield "somebody tells the agent to run no jobs", False, lambda: state._replace(stop=1)
        elif state.stop == 1:
            yield "somebody lifts that", False, lambda: state._replace(stop=2)
        elif state.stop == 2:
            again = state._replace(stop=3)
            for number in self._processes.candidates(state):
                start = bound(self._processes.start_again, again, number)
                yield f"somebody starts process {number}", False, start

    def _logins(self, state: State) -> Iterator[Move]:
        if state.login == 0:
            yield "NAS refuses the agent's identity", False, lambda: state._replace(login=1)
        elif state.login == 1:
            yield "somebody logs the agent in", False, lambda: state._replace(login=2)
        elif state.login == 2:
            again = state._replace(login=3)
            for number in self._processes.candidates(state):
                start = bound(self._processes.start_again, again, number)
                yield f"somebody starts process {number}", False, start

    def _changes(self, state: State) -> Iterator[Move]:
        if state.change in (0, 1):
            asked = type(self._case.change).__name__.lower()
            for number in self._processes.candidates(state):
                ask = bound(self._ask_change, state, number)
                yield f"somebody asks process {number}: {asked}", False, ask

    def _ask_change(self, state: State, number: int) -> State:
        assert self._case.change is not None
        return self._processes.ask(state._replace(change=2), number, self._case.change, SOMEBODY)
