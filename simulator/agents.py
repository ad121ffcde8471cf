"""The agents that the simulator can drive: the project's own protocol, and the ones made to be caught.

An agent is four functions over values. `chronos` is the production protocol itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from chronos.jobs.schedule import Instant
from chronos.protocol import flow as flows
from simulator import naive

# What a process remembers of its arms. The production protocol remembers nothing.
Memory = Mapping[str, Instant]


@attrs.frozen(kw_only=True)
class Agent:
    """A way to keep the protocol.

    Attributes:
        name: how the command line calls it.
        begin: like `chronos.protocol.flow.begin`.
        step: like `chronos.protocol.flow.step`.
        begin_reconciliation: like the one of the protocol, given what the process remembers.
        step_reconciliation: like the one of the protocol.
    """

    name: str
    begin: Callable[..., Any]
    step: Callable[..., Any]
    begin_reconciliation: Callable[[Memory], Any]
    step_reconciliation: Callable[..., Any]


CHRONOS = Agent(
    name="chronos",
    begin=flows.begin,
    step=flows.step,
    begin_reconciliation=lambda _memory: flows.begin_reconciliation(),
    step_reconciliation=flows.step_reconciliation,
)
NAIVE = Agent(
    name="naive",
    begin=naive.begin,
    step=naive.step,
    begin_reconciliation=naive.begin_reconciliation,
    step_reconciliation=naive.step_reconciliation,
)
AGENTS = {agent.name: agent for agent in (CHRONOS, NAIVE)}
