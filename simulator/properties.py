"""What must hold, each once: the runs, the exhaustive search, the state machines and the docs use these.

A property is a sentence with an identifier. The functions below decide the sentences from values
alone; each returns the reason in words when its property is violated, and None when it holds.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from enum import StrEnum
from typing import TypeAlias

import attrs

from chronos.jobs.job import (
    CLOCK_ALLOWANCE_US,
    LEASE_US,
    MAX_IN_FLIGHT,
    Job,
    JobState,
    Origin,
    Outcome,
    Overlap,
    Run,
    following,
    wake_at,
)
from chronos.jobs.schedule import Instant, format_instant
from chronos.protocol.state import ForClock, ForList, ForOwed, Task


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
        "instant, or work in progress that somebody repeats until it is done. What waits for another "
        "attempt, or behind another run, may wait as much longer as the lease of that run lasts."
    ),
    incidents=("L1", "L2", "L3", "L5", "L6", "L7", "L8", "L9", "L10", "L11", "L13", "T1"),
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
    statement=(
        "A job has at most one run in flight among all living processes, unless its runs may overlap; "
        "then it has at most as many as the protocol allows."
    ),
    incidents=("D3", "D4"),
)
DURABLE_CLAIM = Property(
    id="DURABLE-CLAIM",
    expectation=Expectation.ALWAYS,
    statement=(
        "A run starts only while the store holds its claim, made while the schedule was in force or "
        "because somebody asked for a run by hand."
    ),
    incidents=("D3", "D8", "D6"),
)
NOT_EARLY = Property(
    id="NOT-EARLY",
    expectation=Expectation.ALWAYS,
    statement="No occurrence runs before its time, whatever the machine's clock says.",
    incidents=("W4", "D2"),
)
REPEAT_LIMIT = Property(
    id="REPEAT-LIMIT",
    expectation=Expectation.ALWAYS,
    statement="A job that repeats N times attempts at most N occurrences of its schedule.",
)
ONE_OUTCOME = Property(
    id="ONE-OUTCOME",
    expectation=Expectation.ALWAYS,
    statement=(
        "Every occurrence of an active job is accounted for exactly once: it is ahead, it waits, it is "
        "in flight, or it has ended with one outcome."
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
    if job is None or wake_us is None or (armed_us is not None and armed_us <= wake_us):
        return None
    if armed_us is not None and armed_us <= _latest_wake(job, wake_us):
        return None
    wanted = f"the job must be woken at {format_instant(wake_us)}"
    if armed_us is None:
        return f"{wanted}, but nothing is armed and nobody is at work on it: it will never fire again"
    return f"{wanted}, but it is armed only for {format_instant(armed_us)} and nobody is at work on it"


# The arm of a guard stands while a run is in flight: when its process dies at the moment at which it
# has stored what comes after the run, and before it has armed that, the guard is what comes back. A
# lease is never longer than this from the end of its run, by clocks that differ as far as they may.
_GUARD_US = LEASE_US + 2 * CLOCK_ALLOWANCE_US


def _latest_wake(job: Job, wake_us: Instant) -> Instant:
    """Return by when something must come for *job*, which wants to be woken at *wake_us*."""
    if not job.waiting:
        return wake_us
    latest_us = min(waiting.not_before_us for waiting in job.waiting) + _GUARD_US
    return latest_us if job.next_us is None else min(latest_us, job.next_us)


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

Attempt: TypeAlias = tuple[bool, Instant, int]
"""The identity of an occurrence, manual or not and its instant, and the number of the attempt."""


def attempt_of(run: Run) -> Attempt:
    """Return which attempt *run* is."""
    return (*run.identity, run.attempt)


def started_again(run: Run, started: Container[Attempt]) -> str | None:
    """Decide `IDEMPOTENT_DEDUP`: *started* are the attempts at the job's latest occurrences."""
    manual, occurrence_us, attempt = attempt_of(run)
    at = f"attempt {attempt} of the occurrence {format_instant(occurrence_us)}"
    if (manual, occurrence_us, attempt) in started:
        return f"{at} was started twice"
    if (manual, occurrence_us, attempt + 1) in started:
        return f"{at} was started after a later one"
    return None


def overlaps(job: Job | None, in_flight: int) -> str | None:
    """Decide `NO_OVERLAP`: *in_flight* counts the runs of the job in living processes, without this one."""
    may_overlap = job is not None and job.policy.overlap is Overlap.ALLOW
    if in_flight < (MAX_IN_FLIGHT if may_overlap else 1):
        return None
    return f"a run was started while {in_flight} of the job was still in flight"


def undurable(job: Job | None, run: Run) -> str | None:
    """Decide `DURABLE_CLAIM` for a run that starts now; *job* is as stored.

    A job that was removed since its claim is like one that is removed during its run.
    """
    if job is None or run.is_among(job.runs):
        return None
    return (
        f"the run of {format_instant(run.occurrence_us)} was started, but the store does not hold its claim"
    )


def early(run: Run, now_us: Instant) -> str | None:
    """Decide `NOT_EARLY` for a run that starts now, true time. A manual run is nobody's slot."""
    by_us = run.occurrence_us - now_us
    if by_us <= 0 or run.origin is Origin.MANUAL:
        return None
    return (
        f"the occurrence {format_instant(run.occurrence_us)} was started {by_us / 1e6:.0f} s before its time"
    )


# --- When the store moves -------------------------------------------------------------------


def unclaimable(old: Job | None, new: Job | None) -> str | None:
    """Decide `DURABLE_CLAIM` for a move of the store: what is out of force is not claimed."""
    if old is None or new is None or old.state is JobState.SCHEDULED:
        return None
    for run in new.runs:
        if run.origin is not Origin.MANUAL and not run.is_among(old.runs):
            return f"a run was claimed while the job was {old.state}"
    return None


def repeats_too_often(new: Job | None) -> str | None:
    """Decide `REPEAT_LIMIT` for a move of the store."""
    if new is None or new.times is None:
        return None
    begun = _begun(new)
    if begun <= new.times:
        return None
    return f"{begun} occurrences were attempted of a job that repeats {new.times} times"


def unaccounted(old: Job | None, new: Job | None, outcomes: tuple[Outcome, ...]) -> str | None:
    """Decide `ONE_OUTCOME` for a move of the store from *old* to *new* with *outcomes*.

    What was open before is open still or has ended, once. What is open or has ended anew is what
    comes next in the schedule, which is asked here once more, or a manual run that was asked for.
    """
    if old is None or new is None:
        return None  # a job that comes or goes is accounted for by whoever brings or takes it
    before, after = _attempts(old), _attempts(new)
    if len(after) < len(new.runs) + len(new.waiting):
        return "an occurrence is open twice"
    for run in old.runs:
        if not run.is_among(new.runs) and after.get(run.identity, run.attempt + 1) <= run.attempt:
            return f"attempt {run.attempt} at {_named(run.identity)} was taken from its owner without an end"
    if old.next_us == new.next_us and before == after and not outcomes:
        return None
    ended = [(outcome.origin is Origin.MANUAL, outcome.occurrence_us) for outcome in outcomes]
    for identity, attempt in before.items():
        places = (identity in after) + ended.count(identity)
        if places != 1 or after.get(identity, attempt) < attempt:
            return f"{_named(identity)} was open, and is now open or ended {places} times"
    taken = [identity for identity in after if identity not in before]
    if any(manual and at_us != new.last_manual_us for manual, at_us in taken):
        return "a manual run was taken that nobody asked for"
    passed = [
        (outcome.occurrence_us, outcome.last_occurrence_us, outcome.count)
        for outcome, identity in zip(outcomes, ended, strict=True)
        if identity not in before
    ]
    passed += [(at_us, at_us, 1) for manual, at_us in taken if not manual]
    if old.state is JobState.PAUSED:
        return None  # what passes while the schedule is out of force is nobody's
    return _slots_unaccounted(old, new, sorted(passed))


def _attempts(job: Job) -> dict[tuple[bool, Instant], int]:
    """Return the occurrences that are open, and the attempt at which each of them is."""
    waiting = {each.identity: each.attempt for each in job.waiting}
    return {**waiting, **{run.identity: run.attempt for run in job.runs}}


def _slots_unaccounted(old: Job, new: Job, passed: list[tuple[Instant, Instant, int]]) -> str | None:
    """Say which occurrence between the old next one and the new next one was lost or counted twice.

    Each of *passed* is a stretch: its first and last occurrence, and how many it has.
    """
    slots = _slots(old)
    for first_us, last_us, count in passed:
        slot = next(slots, None)
        if slot != first_us:
            return f"{format_instant(first_us)} was taken or ended, but the next occurrence is {_shown(slot)}"
        for _ in range(count - 1):
            slot = next(slots, None)
        if slot != last_us:
            return f"{count} occurrences from {format_instant(first_us)} end at {_shown(slot)}"
    slot = next(slots, None)
    if slot == new.next_us or _is_edited(old, new) or (new.next_us is None and _is_spent(new)):
        return None
    return f"the job goes on at {_shown(new.next_us)}, but the next occurrence is {_shown(slot)}"


def _is_edited(old: Job, new: Job) -> bool:
    """Return whether somebody changed what the slots of the job depend on."""
    return (old.schedule, old.times, old.policy.starts_us, old.policy.ends_us) != (
        new.schedule,
        new.times,
        new.policy.starts_us,
        new.policy.ends_us,
    )


def _is_spent(job: Job) -> bool:
    """Return whether as many occurrences were attempted as the job shall have."""
    return job.times is not None and _begun(job) >= job.times


def _begun(job: Job) -> int:
    """Return how many occurrences of the schedule were attempted."""
    in_flight = sum(run.origin is not Origin.MANUAL for run in job.runs)
    return (
        job.completed
        + in_flight
        + sum(each.attempt > 1 and each.origin is not Origin.MANUAL for each in job.waiting)
    )


def _slots(job: Job) -> Iterator[Instant | None]:
    slot = job.next_us
    while slot is not None:
        yield slot
        slot = following(job, slot)


def _named(identity: tuple[bool, Instant]) -> str:
    manual, at_us = identity
    return f"the {'manual run' if manual else 'occurrence'} of {format_instant(at_us)}"


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
    if job.runs:
        return f"the run of {format_instant(job.runs[0].occurrence_us)} has not ended"
    if job.waiting and job.waiting[0].not_before_us <= now_us:
        return f"the occurrence {format_instant(job.waiting[0].occurrence_us)} waits and has no end"
    if job.next_us is not None and job.next_us <= now_us:
        return f"the occurrence {format_instant(job.next_us)} has come and has no end"
    return None


def is_relied_on(task: Task) -> bool:
    """Return whether somebody relies on what a task of a process does before its machine may stop.

    A look that is taken again and again, and a late try that has claimed nothing, are left to the next start.
    """
    if isinstance(task.purpose, ForOwed):
        has_claimed = task.flow.move is not None and bool(task.flow.move.runs)
        return task.purpose.owed.is_busy or has_claimed
    return not isinstance(task.purpose, ForList | ForClock)
