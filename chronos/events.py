"""The events that a scheduler tells its hooks, as values.

A hook is called with one of these, in the order in which things happen and while the scheduler
waits: it must be quick and must not call the scheduler. What it raises is logged and ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

from chronos.jobs.job import Outcome, Run
from chronos.protocol.flow_effects import Answer
from chronos.protocol.intents import Intent


class OccurrenceClaimed(Struct, frozen=True, kw_only=True):
    """An occurrence was claimed for an attempt, durably; its run starts once NAS was asked."""

    job_id: str
    run: Run


class RunStarted(Struct, frozen=True, kw_only=True):
    """The runner is called."""

    job_id: str
    run: Run


class RunEnded(Struct, frozen=True, kw_only=True):
    """The runner has returned or raised, or its time is over; `detail` says why it failed. Not stored yet."""

    job_id: str
    run: Run
    succeeded: bool
    detail: str


class OccurrenceEnded(Struct, frozen=True, kw_only=True):
    """An occurrence, or a stretch of them, has its outcome, durably."""

    job_id: str
    outcome: Outcome


class FlowEnded(Struct, frozen=True, kw_only=True):
    """A fire, a change, the end of a run or a renewal was answered, also without being looked into."""

    intent: Intent
    answer: Answer


class FellBack(Struct, frozen=True, kw_only=True):
    """NAS refuses the agent's identity; the in-process ticker fires the jobs from now on."""

    reason: str


Event: TypeAlias = OccurrenceClaimed | RunStarted | RunEnded | OccurrenceEnded | FlowEnded | FellBack
Hook: TypeAlias = Callable[[Event], None]
"""Called with every event of a scheduler."""
