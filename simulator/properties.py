"""What must hold, each once: the runs, the exhaustive search, the state machines and the docs use these.

A property is a sentence with an identifier and its conditions: it is decided at moments of certain
kinds, from the values of the moment alone. Whoever has come to a moment asks for its violations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, get_args

from msgspec import Struct

from chronos.jobs.due import wake_at
from chronos.jobs.instants import Instant, format_instant
from chronos.jobs.job import CLOCK_ALLOWANCE_US, LEASE_US, Job, JobState, Origin
from chronos.jobs.policy import MAX_IN_FLIGHT, Overlap
from chronos.protocol.clocks import CLOCK_MARGIN_US
from simulator.accounting import begun, shown, unaccounted
from simulator.moments import AtRest, LeftOpen, Moment, Settled, Start, Stop, StoreMove, attempt_of

# --- At rest: nobody is at work on the job --------------------------------------------------


def _lost_rearm(rest: AtRest) -> str | None:
    """Say that nothing comes for a job that needs a wake."""
    job, armed_us = rest.job, rest.armed_us
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


def _orphan(rest: AtRest) -> str | None:
    """Say that something comes for a job that needs no wake."""
    job, armed_us = rest.job, rest.armed_us
    if armed_us is None or not rest.acknowledged or (job is not None and wake_at(job) is not None):
        return None
    state = "removed" if job is None else job.state
    return (
        f"the job is {state} and that was acknowledged, but it is armed for {format_instant(armed_us)} "
        "and will wake the machine for nothing"
    )


def _several_arms(rest: AtRest) -> str | None:
    """Say that a job would be fired more than once."""
    if rest.arms <= 1:
        return None
    return f"{rest.arms} external one-shots of the job would be passed on to the agent"


# --- When a run starts ----------------------------------------------------------------------


def _started_again(start: Start) -> str | None:
    """Say that an attempt is started twice, or after a later one."""
    manual, occurrence_us, attempt = attempt_of(start.run)
    if (manual, occurrence_us, attempt) in start.started:
        how = "twice"
    elif (manual, occurrence_us, attempt + 1) in start.started:
        how = "after a later one"
    else:
        return None
    return f"attempt {attempt} of the occurrence {format_instant(occurrence_us)} was started {how}"


def _overlaps(start: Start) -> str | None:
    """Say that too many runs of the job are in flight."""
    job, in_flight = start.job, start.in_flight
    may_overlap = job is not None and job.policy.overlap is Overlap.ALLOW
    if in_flight < (MAX_IN_FLIGHT if may_overlap else 1):
        return None
    return f"a run was started while {in_flight} of the job was still in flight"


def _undurable(start: Start) -> str | None:
    """Say that the store does not hold the claim of a run.

    A job that was removed since its claim is like one that is removed during its run.
    """
    job, run = start.job, start.run
    if job is None or run.is_among(job.runs):
        return None
    return (
        f"the run of {format_instant(run.occurrence_us)} was started, but the store does not hold its claim"
    )


def _early(start: Start) -> str | None:
    """Say that a run starts before its time. A manual run is nobody's slot."""
    run = start.run
    by_us = run.occurrence_us - start.now_us
    if by_us <= (CLOCK_MARGIN_US if start.by_own_clock else 0) or run.origin is Origin.MANUAL:
        return None
    return (
        f"the occurrence {format_instant(run.occurrence_us)} was started {by_us / 1e6:.0f} s before its time"
    )


# --- When the store moves -------------------------------------------------------------------


def _unclaimable(move: StoreMove) -> str | None:
    """Say that something was claimed of a schedule that is out of force."""
    old, new = move.old, move.new
    if old is None or new is None or old.state is JobState.SCHEDULED:
        return None
    for run in new.runs:
        if run.origin is not Origin.MANUAL and not run.is_among(old.runs):
            return f"a run was claimed while the job was {old.state}"
    return None


def _repeats_too_often(move: StoreMove) -> str | None:
    """Say that a job has begun more occurrences than it may have."""
    new = move.new
    if new is None or new.times is None:
        return None
    count = begun(new)
    if count <= new.times:
        return None
    return f"{count} occurrences were attempted of a job that repeats {new.times} times"


# --- When everything has settled ------------------------------------------------------------


def _diverges(end: Settled) -> str | None:
    """Say that store and NAS do not agree."""
    armed_us = end.armed_us
    wake_us = None if end.job is None else wake_at(end.job)
    if wake_us == armed_us:
        return None
    return f"the store wants a wake at {shown(wake_us)}, NAS has armed {shown(armed_us)}"


def _unended(end: Settled) -> str | None:
    """Say which occurrence has come and has no end."""
    job, now_us = end.job, end.now_us
    if job is None or job.state is not JobState.SCHEDULED:
        return None
    if job.runs:
        return f"the run of {format_instant(job.runs[0].occurrence_us)} has not ended"
    if job.waiting and job.waiting[0].not_before_us <= now_us:
        return f"the occurrence {format_instant(job.waiting[0].occurrence_us)} waits and has no end"
    if job.next_us is not None and job.next_us <= now_us:
        return f"the occurrence {format_instant(job.next_us)} has come and has no end"
    return None


# --- When a machine stops -------------------------------------------------------------------


def _unsettled(stop: Stop) -> str | None:
    """Say that a machine stops in the midst of its work."""
    if not (stop.requests or stop.runs):
        return None
    return f"{stop.who} stops with {stop.requests} requests and {stop.runs} runs unsettled"


# --- When a flow has left something to do ---------------------------------------------------


def _forgotten(left: LeftOpen) -> str | None:
    """Say that nobody comes back for what is unsettled."""
    if left.is_tried:
        return None
    return f"a flow ({type(left.intent).__name__}) ended unsettled, and its process does not try again"


# --- The properties -------------------------------------------------------------------------


class Expectation(StrEnum):
    """When a property must hold."""

    ALWAYS = "always"
    EVENTUALLY = "eventually"
    SOMETIMES = "sometimes"


class Property(Struct, frozen=True, kw_only=True, eq=False):
    """A sentence about every history.

    Attributes:
        id: how reports name it.
        expectation: at every moment, or once faults are over and everything has settled. (What is met
            sometimes, in some history, is a `simulator.marks.Mark`.)
        statement: the sentence.
        conditions: decide it at a moment of each kind, and return the reason when it does not hold.
        incidents: what happened in production where it did not hold.
    """

    id: str
    expectation: Expectation
    statement: str
    conditions: Mapping[type[Moment], Callable[[Any], str | None]]
    incidents: tuple[str, ...] = ()

    def violation(self, moment: Moment) -> str | None:
        """Return in words why the property does not hold at *moment*, or None when it does.

        Raises:
            KeyError: it is not decided at moments of this kind.
        """
        return self.conditions[type(moment)](moment)


NO_LOST_REARM = Property(
    id="NO-LOST-REARM",
    expectation=Expectation.ALWAYS,
    statement=(
        "While a job needs a wake, something is sure to come back for it: an arm at or before that "
        "instant, or work in progress that somebody repeats until it is done. What waits for another "
        "attempt, or behind another run, may wait as much longer as the lease of that run lasts."
    ),
    conditions={AtRest: _lost_rearm},
    incidents=("L1", "L2", "L3", "L5", "L6", "L7", "L8", "L9", "L10", "L11", "L13", "T1"),
)
NO_ORPHAN = Property(
    id="NO-ORPHAN",
    expectation=Expectation.ALWAYS,
    statement=(
        "Once it has been acknowledged that a job needs no wake, nothing is armed for it: a paused, "
        "completed or removed job does not wake the machine."
    ),
    conditions={AtRest: _orphan},
    incidents=("O1", "O2", "O4", "D6"),
)
ONE_ARM = Property(
    id="ONE-ARM",
    expectation=Expectation.ALWAYS,
    statement="At rest, at most one external one-shot of a job would be passed on to the agent.",
    conditions={AtRest: _several_arms},
    incidents=("L9", "O1"),
)
ONE_OUTCOME = Property(
    id="ONE-OUTCOME",
    expectation=Expectation.ALWAYS,
    statement=(
        "Every occurrence of an active job is accounted for exactly once: it is ahead, it waits, it is "
        "in flight, or it has ended with one outcome."
    ),
    conditions={StoreMove: unaccounted},
    incidents=("D8", "S2", "S4"),
)
IDEMPOTENT_DEDUP = Property(
    id="IDEMPOTENT-DEDUP",
    expectation=Expectation.ALWAYS,
    statement=(
        "However often a fire is delivered, each attempt at an occurrence is started once, and a later "
        "attempt only after the earlier one was declared interrupted."
    ),
    conditions={Start: _started_again},
    incidents=("D1", "D3"),
)
NO_OVERLAP = Property(
    id="NO-OVERLAP",
    expectation=Expectation.ALWAYS,
    statement=(
        "A job has at most one run in flight among all living processes, unless its runs may overlap; "
        "then it has at most as many as the protocol allows."
    ),
    conditions={Start: _overlaps},
    incidents=("D3", "D4"),
)
DURABLE_CLAIM = Property(
    id="DURABLE-CLAIM",
    expectation=Expectation.ALWAYS,
    statement=(
        "A run starts only while the store holds its claim, made while the schedule was in force or "
        "because somebody asked for a run by hand."
    ),
    conditions={Start: _undurable, StoreMove: _unclaimable},
    incidents=("D3", "D8", "D6"),
)
NOT_EARLY = Property(
    id="NOT-EARLY",
    expectation=Expectation.ALWAYS,
    statement=(
        "No occurrence runs before its time, whatever the machine's clock says. A process that fires its "
        "jobs itself has no other clock: it is early by no more than clocks may differ."
    ),
    conditions={Start: _early},
    incidents=("W4", "D2"),
)
REPEAT_LIMIT = Property(
    id="REPEAT-LIMIT",
    expectation=Expectation.ALWAYS,
    statement="A job that repeats N times attempts at most N occurrences of its schedule.",
    conditions={StoreMove: _repeats_too_often},
)
SAFE_SLEEP = Property(
    id="SAFE-SLEEP",
    expectation=Expectation.ALWAYS,
    statement="A machine that asks the scheduler before it stops does not stop with work unsettled.",
    conditions={Stop: _unsettled},
    incidents=("W1",),
)
FOLLOWED_UP = Property(
    id="FOLLOWED-UP",
    expectation=Expectation.ALWAYS,
    statement=(
        "What a process has stored and NAS has not accepted, and the end of a run that it could not store, "
        "it tries again until it drains or ends, or that is settled."
    ),
    conditions={LeftOpen: _forgotten},
    incidents=("L14",),
)
CONVERGES = Property(
    id="CONVERGES",
    expectation=Expectation.EVENTUALLY,
    statement="Once faults are over and everything has settled, NAS has armed exactly what the store wants.",
    conditions={Settled: _diverges},
    incidents=("L9", "O1"),
)
EVERY_OCCURRENCE = Property(
    id="EVERY-OCCURRENCE",
    expectation=Expectation.EVENTUALLY,
    statement=(
        "Once faults are over and everything has settled, no occurrence that has come is left without an end."
    ),
    conditions={Settled: _unended},
    incidents=("L1", "L2", "D8"),
)

# Of those of one kind of moment, the first that does not hold is what the search names.
PROPERTIES = (
    NO_LOST_REARM,
    NO_ORPHAN,
    ONE_ARM,
    ONE_OUTCOME,
    IDEMPOTENT_DEDUP,
    NO_OVERLAP,
    DURABLE_CLAIM,
    NOT_EARLY,
    REPEAT_LIMIT,
    SAFE_SLEEP,
    FOLLOWED_UP,
    CONVERGES,
    EVERY_OCCURRENCE,
)

_DECIDED: Mapping[type[Moment], tuple[tuple[Property, Callable[[Any], str | None]], ...]] = {
    kind: tuple((each, each.conditions[kind]) for each in PROPERTIES if kind in each.conditions)
    for kind in get_args(Moment)
}


def violations(moment: Moment) -> list[tuple[Property, str]]:
    """Return each property that does not hold at *moment*, and why, in the order of `PROPERTIES`."""
    found = []
    for decided, condition in _DECIDED[type(moment)]:
        reason = condition(moment)
        if reason is not None:
            found.append((decided, reason))
    return found
