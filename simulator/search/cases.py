"""The bounded worlds that the exhaustive search goes through."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from chronos.jobs.instants import SECOND_US
from chronos.jobs.job import Job
from chronos.jobs.policy import CatchUp, OnInterrupt, Overlap, Policy
from chronos.jobs.schedule import Interval
from chronos.protocol.intents import Edit, Intent, Pause, RunNow
from chronos.protocol.job_changes import Changes

JOB_ID = "job"


class Case(Struct, frozen=True, kw_only=True):
    """One bounded world to search.

    Attributes:
        name: how reports call it.
        instants_us: where time may stand.
        job: the job at the start; its arm is in place.
        change: what somebody may ask for, once; None for nothing.
        is_stopped: whether the agent may be told to run no jobs, once; then that is lifted, and somebody
            starts a process.
        is_drained: whether the host may replace a machine, once: it drains, and its process ends then.
        is_logged_out: whether NAS may refuse the agent's identity, once; then somebody logs it in.
        processes: how many there are.
        is_deep: whether it is too large for an everyday check.
    """

    name: str
    instants_us: tuple[int, ...]
    job: Job
    change: Intent | None = None
    is_stopped: bool = False
    is_drained: bool = False
    is_logged_out: bool = False
    processes: int = 2
    is_deep: bool = False

    def now_us(self, clock: int) -> int:
        """Return the instant at which time stands, by its index."""
        return self.instants_us[clock]

    def next_us(self, clock: int) -> int | None:
        """Return the instant after the one of this index; None after the last."""
        return self.instants_us[clock + 1] if clock + 1 < len(self.instants_us) else None


def _case(
    name: str,
    period_s: int,
    instants_s: tuple[int, ...],
    *,
    change: Intent | None = None,
    world: Mapping[str, Any] = MappingProxyType({}),
    is_deep: bool = False,
    **fields: Any,
) -> Case:
    period_us = period_s * SECOND_US
    schedule = Interval(period_us=period_us, anchor_us=period_us)
    job = Job(id=JOB_ID, schedule=schedule, next_us=period_us, **fields)
    return Case(
        name=name,
        instants_us=tuple(instant * SECOND_US for instant in instants_s),
        job=job,
        change=change,
        is_deep=is_deep,
        **world,
    )


_RETRY = Policy(on_interrupt=OnInterrupt.RETRY)
_PAUSE = Pause(job_id=JOB_ID)
_RUN_NOW = RunNow(job_id=JOB_ID, asked_us=1)
_SLOWER = Edit(job_id=JOB_ID, changes=Changes(schedule=Interval(period_us=300 * SECOND_US, anchor_us=0)))

# Close occurrences overlap with the run of the one before; distant ones let every lease end, come
# late and are too late. A third occurrence is armed in the end and lies beyond the search.
CASES = (
    _case("close occurrences, interruptions are recorded", 200, (0, 200, 400)),
    _case("close occurrences, interruptions are retried", 200, (0, 200, 400), policy=_RETRY),
    _case("one occurrence, and somebody pauses the job", 200, (0, 200), change=_PAUSE),
    _case("one occurrence, and somebody runs the job by hand", 200, (0, 200), change=_RUN_NOW),
    _case("one occurrence, and the agent is stopped for a while", 200, (0, 200), world={"is_stopped": True}),
    _case(
        "distant occurrences, and the host drains a machine", 600, (0, 600, 1200), world={"is_drained": True}
    ),
    _case(
        "one occurrence, and NAS refuses the agent's identity for a while",
        200,
        (0, 200),
        world={"is_logged_out": True, "processes": 1},
    ),
    _case(
        "one occurrence, and a failed run is attempted again",
        400,
        (0, 400, 500),
        policy=Policy(attempts=2, retry_delay_us=50 * SECOND_US),
    ),
    _case(
        "three occurrences are due together, and two are caught up",
        100,
        (0, 390),
        policy=Policy(catch_up=CatchUp.ALL, catch_up_limit=2),
    ),
    _case(
        "an occurrence waits for the end of the run before it",
        200,
        (0, 200, 400),
        policy=Policy(overlap=Overlap.QUEUE),
        is_deep=True,
    ),
    _case("runs overlap", 200, (0, 200, 400), policy=Policy(overlap=Overlap.ALLOW), is_deep=True),
    _case("one occurrence, and somebody edits the schedule", 200, (0, 200), change=_SLOWER, is_deep=True),
    _case("the schedule ends after two runs", 200, (0, 200, 400), times=2, is_deep=True),
    _case("distant occurrences, interruptions are recorded", 600, (0, 600, 1200, 1740), is_deep=True),
    _case("distant occurrences, interruptions are retried", 600, (0, 600, 1200), policy=_RETRY, is_deep=True),
    _case("close occurrences, and somebody pauses the job", 200, (0, 200, 400), change=_PAUSE, is_deep=True),
    _case("close occurrences, and a run by hand", 200, (0, 200, 400), change=_RUN_NOW, is_deep=True),
)
