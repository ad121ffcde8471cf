"""The agents that the simulator can drive: the project's own, one made to be caught, and anybody's.

An agent is a process and what an event makes of it. `chronos` is the production protocol itself; `ticker`
is the same without NAS: it fires its jobs itself, and its machine is always on. One of somebody's own is
ordinary Python, named `package.module:factory` (`simulator.own`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from chronos.contract.messages import status_of
from chronos.protocol import pending, process
from chronos.protocol.flow_effects import Answer
from chronos.protocol.process_effects import Effect, Event
from chronos.protocol.state import RULES, Now, Pending, Process, Rules, new_process
from simulator.naive import NAIVE_RULES


class Raised(Struct, frozen=True):
    """An effect: the agent has raised an exception, which ends its process.

    Attributes:
        text: which.
        where: in which line of its code.
    """

    text: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.where})" if self.where else self.text


class Agent(Struct, frozen=True, kw_only=True):
    """A way to keep the protocol.

    Attributes:
        name: how the command line calls it.
        rules: the flows of its processes.
        has_nas: whether it has a NAS; without one its process fires its jobs itself.
        turn: what happens to a process at one instant: its step, of one event or of many.
        rings_us: when a process wants to be rung.
        pending: what a process has not finished.
        status_of: the HTTP status of the answer to a fire.
        ended: is told of a process that is no more.
        waits_for_store: whether the store takes its time to answer, also when no other machine uses it.
        verifier: with all that ships, makes what verifies the tokens of fires; None for the agent's own.
        begins_asleep: whether the processes of a search begin with the start of their agent.
    """

    name: str
    rules: Rules = RULES
    has_nas: bool = True
    turn: Callable[[Process, Now], process.ProcessTurn] = process.ProcessTurn.of
    rings_us: Callable[[Process | process.ProcessTurn], int | None] = process.rings_us
    pending: Callable[[Process, Now], tuple[Pending, ...]] = pending.pending
    status_of: Callable[[Answer], int] = status_of
    ended: Callable[[Process], None] = lambda _process: None
    waits_for_store: bool = False
    begins_asleep: bool = False
    verifier: Callable[..., Any] | None = None

    def begun(self, owner: str, *, lives: bool = False) -> Process:  # noqa: ARG002 - of others
        """Return a new process of that name; *lives* when it is never compared nor gone back to."""
        return new_process(owner, has_nas=self.has_nas, rules=self.rules)

    def step(self, before: Process, event: Event, now: Now) -> tuple[Process, tuple[Effect, ...]]:
        """Return *before* after *event*, and the effects to perform, as `chronos.protocol.process.step`."""
        return self.turn(before, now).after(event)


CHRONOS = Agent(name="chronos")
TICKER = Agent(name="ticker", has_nas=False)
NAIVE = Agent(name="naive", rules=NAIVE_RULES)
AGENTS = {agent.name: agent for agent in (CHRONOS, TICKER, NAIVE)}


def agent_of(name: str) -> Agent:
    """Return the agent of that name.

    Raises:
        ImportError: agents of one's own need the extra `simulator`.
        simulator.own.loading.AgentError: the factory is none.
    """
    if name in AGENTS:
        return AGENTS[name]
    from simulator.own.loading import load

    return load(name)
