"""What must hold, each once: the runs, the exhaustive search, the state machines and the docs use these.

A property is a sentence with an identifier. The functions below decide the sentences from values
alone; each returns the reason in words when its property is violated, and None when it holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import attrs

from chronos.protocol.job import Job, JobState, Outcome, Run, wake_at
from chronos.protocol.schedule import Instant, format_instant, next_after


class Expectation(StrEnum):
    """When a property must hold."""

    ALWAYS = "always"
    EVENTUALLY = "eventually"


@attrs.frozen(kw_only=True)
class Property:
    """A sentence about every history.

    Attributes:
        id: how reports name it.
        expectation: at every moment, or once faults are over and everything has settled.
        statement: the sentence.
        incidents: what happened in production where it did not hold.
    """

    id: str
    expectation: Expectation
    statement: str
    incidents: tuple[str, ...] = ()


NO_LOST_REARM = Property(
    id="NO-LOST-REARM",
    expectation=Expectation.ALWAYS,
    statement=(
        "While a job needs a wake, something is sure to come back for it: an arm at or before that "
        "instant, or work in progress that somebody repeats until it is done."
    ),
    incidents=("L1", "L2", "L3", "L5", "L6", "L7", "L8", "L9", "L10", "L11"),
)
NO_ORPHAN = Property(
    id="NO-ORPHAN",
    expectation=Expectation.ALWAYS,
    statement=(
        "Once it has been acknowledged that a job needs no wake, nothing is armed for it: a paused, "
        "completed or removed job does not wake the machine."
    ),
    incidents=("O1", "O2", "O4", "D6"),
)
ONE_ARM = Property(
    id="ONE-ARM",
    expectation=Expectation.ALWAYS,
    statement="At rest, at most one external one-shot of a job would be passed on to the agent.",
    incidents=("L9", "O1"),
)
IDEMPOTENT_DEDUP = Property(
    id="IDEMPOTENT-DEDUP",
    expectation=Expectation.ALWAYS,
    statement=(
        "However often a fire is delivered, each attempt at an occurrence is started once, and a later "
        "attempt only after the earlier one was declared interrupted."
    ),
    incidents=("D1", "D3"),
)
NO_OVERLAP = Property(
    id="NO-OVERLAP",
    expectation=Expectation.ALWAYS,
    statement="A job has at most one run in flight among all living processes.",
    incidents=("D3", "D4"),
)
DURABLE_CLAIM = Property(
    id="DURABLE-CLAIM",
    expectation=Expectation.ALWAYS,
    statement="A run starts only while the store holds its claim, made while the schedule was in force.",
    incidents=("D3", "D8", "D6"),
)
NOT_EARLY = Property(
    id="NOT-EARLY",
    expectation=Expectation.ALWAYS,
    statement="No occurrence runs before its time, but for the error of the machine's clock.",
    incidents=("W4", "D2"),
)
REPEAT_LIMIT = Property(
    id="REPEAT-LIMIT",
    expectation=Expectation.ALWAYS,
    statement="A job that repeats N times consumes at most N runs.",
)
ONE_OUTCOME = Property(
    id="ONE-OUTCOME",
    expectation=Expectation.ALWAYS,
    statement=(
        "Every occurrence of an active job is accounted for exactly once: it is the next one, it is in "
        "flight, or it has ended with one outcome."
    ),
    incidents=("D8", "S2", "S4"),
)
SAFE_SLEEP = Property(
    id="SAFE-SLEEP",
    expectation=Expectation.ALWAYS,
    statement="A machine that asks the scheduler before it stops does not stop with work unsettled.",
    incidents=("W1",),
)
CONVERGES = Property(
    id="CONVERGES",
    expectation=Expectation.EVENTUALLY,
    statement="Once faults are over and everything has settled, NAS has armed exactly what the store wants.",
    incidents=("L9", "O1"),
)
EVERY_OCCURRENCE = Property(
    id="EVERY-OCCURRENCE",
    expectation=Expectation.EVENTUALLY,
    statement=(
        "Once faults are over and everything has settled, no occurrence that has come is left without an end."
    ),
    incidents=("L1", "L2", "D8"),
)

PROPERTIES = (
    NO_LOST_REARM,
    NO_ORPHAN,
    ONE_ARM,
    IDEMPOTENT_DEDUP,
    NO_OVERLAP,
    DURABLE_CLAIM,
    NOT_EARLY,
    REPEAT_LIMIT,
    ONE_OUTCOME,
    SAFE_SLEEP,
    CONVERGES,
    EVERY_OCCURRENCE,
)


# --- At rest: nobody is at work on the job --------------------------------------------------


def lost_rearm(job: Job | None, armed_us: Instant | None) -> str | None:
    """Decide `NO_LOST_REARM` for a job on which nobody is at work."""
    wake_us = None if job is None else wake_at(job)
    if wake_us is None or (armed_us is not None and armed_us <= wake_us):
        return None
    wanted = f"the job must be woken at {format_instant(wake_us)}"
    if armed_us is None:
        return f"{wanted}, but nothing is armed and nobody is at work on it: it will never fire again"
    return f"{wanted}, but it is armed only for {format_instant(armed_us)} and nobody is at work on it"


def orphan(job: Job | None, armed_us: Instant | None, *, acknowledged: bool) -> str | None:
    """Decide `NO_ORPHAN` for a job on which nobody is at work.

    Args:
        job: as stored, None when it was removed.
        armed_us: what NAS will fire, or None.
        acknowledged: whether the present state of the job has been reported as settled.
    """
    if armed_us is None or not acknowledged or (job is not None and wake_at(job) is not None):
        return None
    state = "removed" if job is None else job.state
    return (
        f"the job is {state} and that was acknowledged, but it is armed for {format_instant(armed_us)} "
        "and will wake the machine for nothing"
    )


def several_arms(count: int) -> str | None:
    """Decide `ONE_ARM` for a job on which nobody is at work."""
    return None if count <= 1 else f"{count} external one-shots of the job would be passed on to the agent"


# --- When a run starts ----------------------------------------------------------------------


def started_again(run: Run, last: tuple[Instant, int] | None) -> str | None:
    """Decide `IDEMPOTENT_DEDUP`: *last* is the latest occurrence and attempt that was started."""
    this = (run.occurrence_us, run.attempt)
    if last is None or this > last:
        return None
    at = format_instant(run.occurrence_us)
    if this == last:
        return f"attempt {run.attempt} of the occurrence {at} was started twice"
    later = format_instant(last[0])
    return f"attempt {run.attempt} of the occurrence {at} was started after a later one, {later}"


def overlaps(in_flight: int) -> str | None:
    """Decide `NO_OVERLAP`: *in_flight* counts the runs of the job in living processes, without this one."""
    return None if in_flight == 0 else f"a run was started while {in_flight} of the job was still in flight"


def undurable(job: Job | None, run: Run) -> str | None:
    """Decide `DURABLE_CLAIM` for a run that starts now; *job* is as stored.

    A job that was removed since its claim is like one that is removed during its run.
    """
    if job is None or run.is_same_as(job.run):
        return None
    return (
        f"the run of {format_instant(run.occurrence_us)} was started, but the store does not hold its claim"
    )


def early(run: Run, now_us: Instant, clock_error_us: int) -> str | None:
    """Decide `NOT_EARLY` for a run that starts now, true time."""
    by_us = run.occurrence_us - now_us
    if by_us <= max(0, clock_error_us):
        return None
    return (
        f"the occurrence {format_instant(run.occurrence_us)} was started {by_us / 1e6:.0f} s before its time"
    )


# --- When the store moves -------------------------------------------------------------------


def unclaimable(old: Job | None, new: Job | None) -> str | None:
    """Decide `DURABLE_CLAIM` for a move of the store: what is out of force is not claimed."""
    if old is None or new is None or new.run is None or new.run.is_same_as(old.run):
        return None
    return None if old.state is JobState.SCHEDULED else f"a run was claimed while the job was {old.state}"


def repeats_too_often(new: Job | None) -> str | None:
    """Decide `REPEAT_LIMIT` for a move of the store."""
    if new is None or new.times is None:
        return None
    consumed = new.completed + (new.run is not None)
    return (
        None
        if consumed <= new.times
        else f"{consumed} runs were consumed of a job that repeats {new.times} times"
    )


def unaccounted(old: Job | None, new: Job | None, outcomes: tuple[Outcome, ...]) -> str | None:
    """Decide `ONE_OUTCOME` for a move of the store from *old* to *new* with *outcomes*.

    What the move passes over must be exactly what the outcomes and the new claim name, in the order
    of the schedule, which is asked here once more.
    """
    if old is None or new is None:
        return None  # a job that comes or goes is accounted for by whoever brings or takes it
    ended = [outcome for outcome in outcomes if outcome.attempt > 0]
    problem = _run_unaccounted(old, new, ended)
    if problem is not None or old.next_us == new.next_us:
        return problem
    if old.state is JobState.PAUSED:
        return None  # what passes while the schedule is out of force is nobody's
    passed = [outcome for outcome in outcomes if outcome.attempt == 0]
    return _slots_unaccounted(old, new, passed)


def _run_unaccounted(old: Job, new: Job, ended: list[Outcome]) -> str | None:
    """Say what is wrong with the end of the run in flight."""
    was, now = old.run, new.run
    goes_on = was is not None and now is not None and now.occurrence_us == was.occurrence_us
    expected = [] if was is None or goes_on else [was.occurrence_us]
    found = [outcome.occurrence_us for outcome in ended]
    if found == expected:
        return None
    names = ", ".join(map(format_instant, found)) or "none"
    wanted = ", ".join(map(format_instant, expected)) or "none"
    return f"the outcomes of runs are those of {names}, expected {wanted}"


def _slots_unaccounted(old: Job, new: Job, passed: list[Outcome]) -> str | None:
    """Say which occurrence between the old next one and the new next one was lost or counted twice."""
    claimed = new.run if new.run is not None and not _same_occurrence(old.run, new.run) else None
    slots = _slots(old)
    for outcome in passed:
        stretch = [next(slots, None) for _ in range(outcome.count)]
        if stretch[0] != outcome.occurrence_us or stretch[-1] != outcome.last_occurrence_us:
            return (
                f"the outcome {outcome.result} names {format_instant(outcome.occurrence_us)}, "
                f"but the next occurrence is {_shown(stretch[0])}"
            )
    if claimed is not None and (slot := next(slots, None)) != claimed.occurrence_us:
        return (
            f"{format_instant(claimed.occurrence_us)} was claimed, but the next occurrence is {_shown(slot)}"
        )
    slot = next(slots, None)
    exhausted = new.next_us is None and new.times is not None and new.completed + 1 >= new.times
    if slot == new.next_us or exhausted:
        return None
    return f"the job goes on at {_shown(new.next_us)}, but the next occurrence is {_shown(slot)}"


def _same_occurrence(one: Run | None, other: Run) -> bool:
    return one is not None and one.occurrence_us == other.occurrence_us


def _slots(job: Job) -> Iterator[Instant | None]:
    slot = job.next_us
    while slot is not None:
        yield slot
        slot = next_after(job.schedule, slot)


def _shown(instant_us: Instant | None) -> str:
    return "none" if instant_us is None else format_instant(instant_us)


# --- When everything has settled ------------------------------------------------------------


def diverges(job: Job | None, armed_us: Instant | None) -> str | None:
    """Decide `CONVERGES`."""
    wake_us = None if job is None else wake_at(job)
    if wake_us == armed_us:
        return None
    return f"the store wants a wake at {_shown(wake_us)}, NAS has armed {_shown(armed_us)}"


def unended(job: Job | None, now_us: Instant) -> str | None:
    """Decide `EVERY_OCCURRENCE`."""
    if job is None or job.state is not JobState.SCHEDULED:
        return None
    if job.run is not None:
        return f"the run of {format_instant(job.run.occurrence_us)} has not ended"
    if job.next_us is not None and job.next_us <= now_us:
        return f"the occurrence {format_instant(job.next_us)} has come and has no end"
    return None
