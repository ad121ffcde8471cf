"""The agents that the simulator can drive: the project's own protocol, and the ones made to be caught.

An agent is a process and what an event makes of it. `chronos` is the production protocol itself.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from chronos.protocol import pending, process
from chronos.protocol.process_effects import Effect, Event
from chronos.protocol.state import RULES, Now, Pending, Process, Rules, new_process
from simulator.naive import NAIVE_RULES


class Agent(Struct, frozen=True, kw_only=True):
    """A way to keep the protocol.

    Attributes:
        name: how the command line calls it.
        rules: the flows of its processes.
        turn: what happens to a process at one instant: its step, of one event or of many.
        rings_us: when a process wants to be rung.
        pending: what a process has not finished.
    """

    name: str
    rules: Rules = RULES
    turn: Callable[[Process, Now], process.ProcessTurn] = process.ProcessTurn.of
    rings_us: Callable[[Process | process.ProcessTurn], int | None] = process.rings_us
    pending: Callable[[Process, Now], tuple[Pending, ...]] = pending.pending

    def begun(self, owner: str) -> Process:
        """Return a new process of that name."""
        return new_process(owner, rules=self.rules)

    def step(self, before: Process, event: Event, now: Now) -> tuple[Process, tuple[Effect, ...]]:
        """Return *before* after *event*, and the effects to perform, as `chronos.protocol.process.step`."""
        return self.turn(before, now).after(event)


CHRONOS = Agent(name="chronos")
NAIVE = Agent(name="naive", rules=NAIVE_RULES)
AGENTS = {agent.name: agent for agent in (CHRONOS, NAIVE)}
