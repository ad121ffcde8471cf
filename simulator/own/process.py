"""An agent of one's own as a simulation and a search know agents: a process, and what events make of it.

In a simulation a process is a `Hub` that lives. The search wants values, which it compares and goes back to:
there a process is what has happened to it since it last was at rest, and what its agent was then. Whoever
needs the process itself lets all of that happen again.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

from msgspec import Struct

from chronos.cli.console import BadUsage
from chronos.contract.messages import status_of
from chronos.protocol.flow_effects import Answer
from chronos.protocol.flow_effects import Effect as FlowEffect
from chronos.protocol.intents import Intent
from chronos.protocol.maps import Map
from chronos.protocol.process_effects import Event
from chronos.protocol.state import ForCaller, Now, Owed, Pending, Process, Rules, Running, Task
from chronos.protocol.ticker import Ticker
from simulator.agents import Agent
from simulator.own.hub import Hub, Told
from simulator.own.library import Ask, Wanted


class _Flow(Struct, frozen=True):
    """Stands where a task of the project's own agent has its flow."""

    phase: str = ""
    move: None = None


_FLOW, _TICKER = _Flow(), Ticker(is_ticking=False)


def _no_flows(*_: object) -> Any:
    raise AssertionError("an agent of one's own has no flows")


_RULES = Rules(begin=_no_flows, step=_no_flows, begin_reconciliation=_no_flows, step_reconciliation=_no_flows)


class OtherwiseError(BadUsage):
    """An agent of a search does not do the same again."""


class OwnProcess(Process, frozen=True):
    """A process of an agent of one's own, between two events.

    Attributes:
        ring_us: when it wants to be rung, by the steady clock.
        hub: the process itself, where it lives; None in a search.
        rested: in a search, the agent as it was when the process last was at rest; empty before its first.
        happened: in a search, what has happened since then, and when.
    """

    ring_us: int | None = None
    hub: Hub | None = None
    rested: bytes = b""
    happened: tuple[tuple[Event, Now], ...] = ()


class OwnTurn:
    """What happens to a process at one instant.

    Args:
        make: the factory of the agent.
        process: as it was before.
        now: the instant.
    """

    rules = _RULES
    ticker = _TICKER

    def __init__(self, make: Callable[..., Any], process: Process, now: Now) -> None:
        assert isinstance(process, OwnProcess)
        self._before, self._now = process, now
        self._happened = process.happened
        self._hub = again(make, process) if process.hub is None else process.hub
        self.effects: list[Any] = []

    def happen(self, event: Event) -> None:
        """Let something happen; what is to be performed then is added to `effects`."""
        self._hub.happen(event, self._now)
        taken, self._hub.effects = self._hub.effects, []
        self.effects += taken
        if self._before.hub is None:
            self._happened = (*self._happened, (event, self._now))

    def after(self, event: Event) -> tuple[Process, tuple[Any, ...]]:
        """Return the process after *event*, and all effects of the turn."""
        self.happen(event)
        process = self.process()
        if self._before.hub is None:
            self._hub.close()
        return process, tuple(self.effects)

    @property
    def ring_us(self) -> int | None:
        """When the process wants to be rung, by the steady clock."""
        return self._hub.rings_us()

    @property
    def tasks(self) -> Map[int, Task]:
        """What goes on in the process."""
        return Map(
            {
                number: Task(
                    flow=_FLOW,
                    purpose=ForCaller(None),
                    intent=activity.intent,
                    effect=_effect(wanted),
                )
                for number, activity, wanted in self._hub.waits()
            }
        )

    def process(self) -> OwnProcess:
        """Return the process as it stands."""
        hub, before = self._hub, self._before
        rested, happened = before.rested, self._happened
        if before.hub is None and (agent := _resting(hub)):
            rested, happened = agent, ()
        return OwnProcess(
            owner=before.owner,
            ticker=_TICKER,
            rules=_RULES,
            is_started=True,
            is_draining=hub.is_draining,
            tasks=self.tasks,
            runs=Map({key: Running(started=started, renew_us=None) for key, started in hub.runs.items()}),
            owed=_beside(hub),
            ring_us=hub.rings_us(),
            hub=before.hub,
            rested=rested,
            happened=happened,
        )


def _beside(hub: Hub) -> Map[Any, Owed]:
    """Return what goes on about a job though nobody waits for its answer."""
    intents: dict[str, Intent] = {
        activity.intent.job_id: activity.intent
        for _, activity, _ in hub.waits()
        if activity.is_spawned and activity.intent is not None
    }
    return Map(
        {
            job_id: Owed(intent=intent, reason="something goes on", due_us=0, patience_until_us=0)
            for job_id, intent in intents.items()
        }
    )


# --- a process of a search, once more ---------------------------------------------------------


def again(make: Callable[..., Any], process: OwnProcess) -> Hub:
    """Return the process itself, by letting happen again what has happened to it."""
    hub = Hub(make, process.owner)
    hub.is_draining = process.is_draining and not process.happened
    if process.rested:
        hub.agent = _Loader(process.rested, hub.given()).load()
    for event, now in process.happened:
        hub.happen(event, now)
    hub.effects.clear()
    if {number: _effect(wanted) for number, _, wanted in hub.waits()} != {
        number: task.effect for number, task in process.tasks.items()
    }:
        raise OtherwiseError(
            "the agent did something else when the same happened to it again; a search needs one that does "
            "the same each time: by now() alone, without chance, and with nothing kept elsewhere"
        )
    return hub


def _effect(wanted: Wanted) -> FlowEffect | None:
    return wanted.effect if isinstance(wanted, Ask) else None


def _resting(hub: Hub) -> bytes:
    """Return the agent of a process at rest, as a value; nothing of another, or when it cannot be one."""
    if hub.agent is None or not hub.is_at_rest():
        return b""
    written = io.BytesIO()
    try:
        _Saver(written, hub.given()).dump(hub.agent)
    except (pickle.PicklingError, TypeError, AttributeError):
        return b""
    return written.getvalue()


class _Saver(pickle.Pickler):
    """Writes an agent without what it was given."""

    def __init__(self, file: io.BytesIO, given: dict[str, Any]) -> None:
        super().__init__(file)
        self._names = {id(each): name for name, each in given.items()}

    def persistent_id(self, each: Any) -> str | None:
        """Return the name of what was given."""
        return self._names.get(id(each))


class _Loader(pickle.Unpickler):
    """Reads an agent, which is given to it anew."""

    def __init__(self, written: bytes, given: dict[str, Any]) -> None:
        super().__init__(io.BytesIO(written))
        self._given = given

    def persistent_load(self, name: str) -> Any:
        """Return what has that name."""
        return self._given[name]


# --- the agent --------------------------------------------------------------------------------


class OwnAgent(Agent, frozen=True, kw_only=True):
    """An agent of one's own.

    Attributes:
        make: its factory.
    """

    make: Callable[..., Any]

    def begun(self, owner: str, *, lives: bool = False) -> Process:
        """Return a new process of that name, which lives or is a value."""
        hub = Hub(self.make, owner) if lives else None
        return OwnProcess(owner=owner, ticker=_TICKER, rules=_RULES, hub=hub)


def own_agent(name: str, make: Callable[..., Any]) -> Agent:
    """Return the agent that a factory makes; *name* is how the command line calls it."""
    return OwnAgent(
        name=name,
        make=make,
        rules=_RULES,
        turn=partial(OwnTurn, make),  # type: ignore[arg-type]
        rings_us=lambda process: process.ring_us,  # type: ignore[union-attr]
        pending=partial(_pending, make),
        status_of=_status_of,
        ended=_ended,
        waits_for_store=True,
        begins_asleep=True,
    )


def _pending(make: Callable[..., Any], process: Process, _now: Now) -> tuple[Pending, ...]:
    """Return what the process has not finished: what its agent says, or else all that goes on."""
    assert isinstance(process, OwnProcess)
    hub = process.hub or again(make, process)
    told = getattr(hub.agent, "pending", None)
    is_busy = bool(hub.open) or bool(process.tasks if told is None else told())
    if process.hub is None:
        hub.close()
    return (Pending(job_id="", reason="the agent is at work", is_busy=True),) if is_busy else ()


def _status_of(answer: Answer) -> int:
    return answer.status if isinstance(answer, Told) else status_of(answer)


def _ended(process: Process) -> None:
    assert isinstance(process, OwnProcess)
    if process.hub is not None:
        process.hub.kill()
