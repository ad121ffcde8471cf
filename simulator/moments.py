"""The moments at which properties are decided: each a value, with all that its properties ask about."""

from __future__ import annotations

from collections.abc import Container
from typing import TypeAlias

from msgspec import Struct

from chronos.jobs.instants import Instant
from chronos.jobs.job import Job, Origin, Outcome, Run
from chronos.protocol.flow_effects import Answer
from chronos.protocol.intents import Finish, Fire, Intent, Renew
from chronos.protocol.state import ForClock, ForList, ForOwed, Process, Task

Attempt: TypeAlias = tuple[bool, Instant, int]
"""The identity of an occurrence, manual or not and its instant, and the number of the attempt."""


def attempt_of(run: Run) -> Attempt:
    """Return which attempt *run* is."""
    return (*run.identity, run.attempt)


class AtRest(Struct, frozen=True, kw_only=True, eq=False):
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


class Start(Struct, frozen=True, kw_only=True, eq=False):
    """A run starts.

    Attributes:
        job: as stored, None when it was removed.
        run: which run.
        started: the attempts at the job's latest occurrences that were started before.
        in_flight: how many runs of the job are in flight in living processes, without this one.
        now_us: true time.
        by_own_clock: whether its process fires its jobs itself, with nobody's word but its machine's clock.
    """

    job: Job | None
    run: Run
    started: Container[Attempt]
    in_flight: int
    now_us: Instant
    by_own_clock: bool = False


class StoreMove(Struct, frozen=True, kw_only=True, eq=False):
    """The store moves a job from one state to another.

    Attributes:
        old: as it was; None where there was none.
        new: as it is; None when it was removed.
        outcomes: the occurrences that have ended with that.
        now_us: true time; None where no clock is wrong.
    """

    old: Job | None
    new: Job | None
    outcomes: tuple[Outcome, ...]
    now_us: Instant | None = None


class Stop(Struct, frozen=True, kw_only=True, eq=False):
    """A machine stops of its own accord.

    Attributes:
        who: which one, in words.
        requests: how many requests have not come back on which somebody relies.
        runs: how many runs are in flight on it.
    """

    who: str
    requests: int
    runs: int


class Settled(Struct, frozen=True, kw_only=True, eq=False):
    """Faults are over, and everything has settled: the job as stored, what NAS will fire, true time."""

    job: Job | None
    armed_us: Instant | None
    now_us: Instant


class LeftOpen(Struct, frozen=True, kw_only=True, eq=False):
    """A process has done all that it does at once, and a flow of it has left something unsettled.

    Attributes:
        intent: what the flow was for.
        is_tried: whether the process is at it again, or will be.
    """

    intent: Intent
    is_tried: bool


Moment: TypeAlias = AtRest | Start | StoreMove | Stop | Settled | LeftOpen


def is_left_open(intent: Intent, answer: Answer) -> bool:
    """Return whether a flow leaves something to do that nobody else repeats.

    NAS repeats its fires, a run that goes on renews its lease again, and who asked for a change that was not
    stored was told so.
    """
    if answer.settled or isinstance(intent, Renew):
        return False
    if isinstance(intent, Fire):
        return intent.fired.origin is Origin.RECOVERY
    return isinstance(intent, Finish) or answer.verdict is not None


def is_tried(process: Process, job_id: str) -> bool:
    """Return whether a process is at work on a job, or will be."""
    return (
        any(owed.intent.job_id == job_id for owed in process.owed.values())
        or any(task.intent is None or task.intent.job_id == job_id for task in process.tasks.values())
        or bool(process.batches)
    )


def is_relied_on(task: Task) -> bool:
    """Return whether somebody relies on what a task of a process does before its machine may stop.

    A look that is taken again and again, and a late try that has claimed nothing, are left to the next start.
    """
    if isinstance(task.purpose, ForOwed):
        has_claimed = task.flow.move is not None and bool(task.flow.move.runs)
        return task.purpose.owed.is_busy or has_claimed
    return not isinstance(task.purpose, ForList | ForClock)
