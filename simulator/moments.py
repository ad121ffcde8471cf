"""The moments at which properties are decided: each a value, with all that its properties ask about."""

from __future__ import annotations

from collections.abc import Container
from typing import TypeAlias

import attrs

from chronos.jobs.instants import Instant
from chronos.jobs.job import Job, Outcome, Run
from chronos.protocol.state import ForClock, ForList, ForOwed, Task

Attempt: TypeAlias = tuple[bool, Instant, int]
"""The identity of an occurrence, manual or not and its instant, and the number of the attempt."""


def attempt_of(run: Run) -> Attempt:
    """Return which attempt *run* is."""
    return (*run.identity, run.attempt)


@attrs.frozen(kw_only=True, eq=False)
class AtRest:
    """Nobody is at work on a job.

    Attributes:
        job: as stored, None when it was removed.
        armed_us: what NAS will fire, or None.
        acknowledged: whether the present state of the job has been reported as settled.
        arms: how many external one-shots of the job would be passed on to the agent.
    """

    job: Job | None
    armed_us: Instant | None
    acknowledged: bool = False
    arms: int = 0


@attrs.frozen(kw_only=True, eq=False)
class Start:
    """A run starts.

    Attributes:
        job: as stored, None when it was removed.
        run: which run.
        started: the attempts at the job's latest occurrences that were started before.
        in_flight: how many runs of the job are in flight in living processes, without this one.
        now_us: true time.
    """

    job: Job | None
    run: Run
    started: Container[Attempt]
    in_flight: int
    now_us: Instant


@attrs.frozen(kw_only=True, eq=False)
class StoreMove:
    """The store moves a job from one state to another, each None where there is none, with outcomes."""

    old: Job | None
    new: Job | None
    outcomes: tuple[Outcome, ...]


@attrs.frozen(kw_only=True, eq=False)
class Stop:
    """A machine stops of its own accord.

    Attributes:
        who: which one, in words.
        requests: how many requests have not come back on which somebody relies.
        runs: how many runs are in flight on it.
    """

    who: str
    requests: int
    runs: int


@attrs.frozen(kw_only=True, eq=False)
class Settled:
    """Faults are over, and everything has settled: the job as stored, what NAS will fire, true time."""

    job: Job | None
    armed_us: Instant | None
    now_us: Instant


Moment: TypeAlias = AtRest | Start | StoreMove | Stop | Settled


def is_relied_on(task: Task) -> bool:
    """Return whether somebody relies on what a task of a process does before its machine may stop.

    A look that is taken again and again, and a late try that has claimed nothing, are left to the next start.
    """
    if isinstance(task.purpose, ForOwed):
        has_claimed = task.flow.move is not None and bool(task.flow.move.runs)
        return task.purpose.owed.is_busy or has_claimed
    return not isinstance(task.purpose, ForList | ForClock)
