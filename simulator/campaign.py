"""A campaign: many seeds of several plans, as plain values, and what is kept of each simulation."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

import chronos
import simulator
from simulator.agents import AGENTS
from simulator.scenario import Plan, simulate
from simulator.summary import Summary


class Cell(Struct, frozen=True, kw_only=True):
    """One of the plans of a campaign.

    Attributes:
        label: how it is told from the others.
        arguments: those of the command `run` that ask for it, without a seed.
        plan: what is simulated.
    """

    label: str
    arguments: tuple[str, ...]
    plan: Plan


class Task(NamedTuple):
    """One simulation of a campaign: the number of its cell, from 0 on, and its seed."""

    cell: int
    seed: int

    def __str__(self) -> str:
        return f"{self.seed} of cell {self.cell}"


class Outcome(Struct, frozen=True, kw_only=True):
    """What is kept of one simulation; equal outcomes are of equal histories, by the digest.

    Attributes:
        cell: the number of its cell, from 0 on.
        seed: its seed.
        verdict: ok, inconclusive or violated.
        violations: how often each property was violated.
        losses: how many occurrences did not complete, by cause.
        runs: how many occurrences ended with each result.
        wakes: how often the machine was woken.
        up_seconds: how long it was up.
        always_on_seconds: how long it would have been up, had it never slept.
        lateness_p50_ms: the median lateness of the occurrences that ran, milliseconds.
        lateness_p99_ms: its 99th percentile.
        digest: of the history.
    """

    cell: int
    seed: int
    verdict: str
    violations: dict[str, int]
    losses: dict[str, int]
    runs: dict[str, int]
    wakes: int
    up_seconds: int
    always_on_seconds: int
    lateness_p50_ms: int
    lateness_p99_ms: int
    digest: str


class Done(Struct, frozen=True, kw_only=True):
    """A finished task: what is kept of it, and the processor time that it took, seconds."""

    outcome: Outcome
    cpu_s: float


# A simulation sets what is of the whole process, such as how often garbage is collected.
_ONE_AT_A_TIME = threading.Lock()


def perform(plans: tuple[Plan, ...], task: Task) -> Done:
    """Simulate one of *plans*, in whatever process."""
    plan = plans[task.cell]
    with _ONE_AT_A_TIME:
        began_s = time.thread_time()
        summary = simulate(plan, task.seed)
        return Done(outcome=outcome_of(task, plan, summary), cpu_s=time.thread_time() - began_s)


def outcome_of(task: Task, plan: Plan, summary: Summary) -> Outcome:
    """Return what is kept of a simulation of *plan*."""
    return Outcome(
        cell=task.cell,
        seed=task.seed,
        verdict=summary.verdict,
        violations=_added((each.property, 1) for each in summary.violations),
        losses=_added((each.cause.name, each.count) for each in summary.losses),
        runs=summary.runs,
        wakes=summary.wakes,
        up_seconds=summary.agent_up_seconds,
        always_on_seconds=summary.simulated_seconds * plan.machines,
        lateness_p50_ms=summary.lateness_ms["p50"],
        lateness_p99_ms=summary.lateness_ms["p99"],
        digest=summary.digest,
    )


def _added(counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    added: dict[str, int] = {}
    for name, count in sorted(counts):
        added[name] = added.get(name, 0) + count
    return added


# --- which campaign it is ---------------------------------------------------------------------


def identity(cells: tuple[Cell, ...]) -> dict[str, Any]:
    """Return as plain values what decides the outcome of every seed: the plans and the program."""
    return {
        "source": source(*sorted({cell.plan.agent for cell in cells} - AGENTS.keys())),
        "cells": [
            {"label": cell.label, "arguments": list(cell.arguments), "plan": digest(cell.plan)}
            for cell in cells
        ],
    }


def digest(plan: Plan) -> str:
    """Return a hash of all that *plan* says, its jobs included."""
    return hashlib.sha256(msgspec.json.encode(plan, order="deterministic")).hexdigest()


@cache
def source(*agents: str) -> str:
    """Return a hash of this program: of its modules, fleets and scenarios, and of other people's agents.

    Args:
        agents: the names of those, `package.module:factory`.
    """
    found = hashlib.sha256()
    for name, path in (*_own_files(), *_modules(agents)):
        data = path.read_bytes()
        found.update(f"{name} {len(data)}\n".encode() + data)
    return found.hexdigest()


def _own_files() -> Iterator[tuple[str, Path]]:
    for package in (chronos, simulator):
        assert package.__file__ is not None
        folder = Path(package.__file__).parent
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".py", ".json", ".toml"):
                yield f"{package.__name__}/{path.relative_to(folder).as_posix()}", path


def _modules(agents: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for name in agents:
        found = find_spec(name.partition(":")[0])
        if found is not None and found.origin is not None:
            yield name, Path(found.origin)
