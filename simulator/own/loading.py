"""Agents of one's own by name: `package.module:factory`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from simulator.agents import Agent
from simulator.own.environment import named_by
from simulator.own.hub import Hub, raised_by
from simulator.own.process import own_agent

METHODS = ("start", "on_jobs_changed", "fire")


class AgentError(Exception):
    """There is no such agent; the text says what was found and what was expected."""


def load(name: str) -> Agent:
    """Return the agent that the factory *name* makes, or that is there.

    Args:
        name: a module that can be imported, a colon, and a callable or an `Agent` in it.

    Raises:
        AgentError: there is none, or what it makes is no agent.
    """
    make = _factory(name)
    if isinstance(make, Agent):
        return make
    try:
        named_by(make)
    except (TypeError, ValueError) as error:
        raise AgentError(f"{name} is no factory of agents: {error}") from None
    try:
        agent = Hub(make, "nobody").made()
    except (Exception, SystemExit) as error:
        raise AgentError(f"{name} raised {raised_by(error)}") from error
    missing = [method for method in METHODS if not callable(getattr(agent, method, None))]
    if missing:
        raise AgentError(
            f"{name} made a {type(agent).__name__} without {' and '.join(missing)}; "
            f"expected an object with {', '.join(METHODS)}"
        )
    return own_agent(name, make)


def _factory(name: str) -> Agent | Callable[..., Any]:
    module_name, _, attribute = name.partition(":")
    if not (module_name and attribute):
        raise AgentError(f"expected a factory as package.module:factory, got {name!r}")
    if "" not in sys.path:  # a worker may have been started elsewhere
        sys.path.insert(0, "")
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        raise AgentError(f"{name}: there is no module {error.name!r}") from None
    except (Exception, SystemExit) as error:
        raise AgentError(f"{name}: importing {module_name} raised {raised_by(error)}") from error
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not (callable(found) or isinstance(found, Agent)):
        what = "nothing of that name" if found is None else f"{found!r}"
        raise AgentError(f"{name}: expected a factory, found {what} in {module_name}")
    return found  # type: ignore[no-any-return]
