"""What begins many flows at once: a start, which compares the store with NAS; and a declaration.

`Reconciliation` is the second table of the protocol: what a starting process does.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

from msgspec import Struct

from chronos.jobs.due import wake_at
from chronos.jobs.instants import Instant
from chronos.jobs.job import CLOCK_ALLOWANCE_US, Job, Liveness, Unreadable
from chronos.protocol import job_changes
from chronos.protocol.clocks import CLOCK_MARGIN_US, Belief
from chronos.protocol.flow import Phase, ProtocolError
from chronos.protocol.flow_effects import (
    Answer,
    ArmFailed,
    ArmsListed,
    Begin,
    Effect,
    Event,
    JobsLoaded,
    ListArms,
    LoadJobs,
    StoreFailed,
)
from chronos.protocol.follow_ups import recovery
from chronos.protocol.intents import Declare, Fire, Remove
from chronos.protocol.wrong_clock import stands_ahead

# --- The table of a start -------------------------------------------------------------------


class Reconciliation(Struct, frozen=True, kw_only=True):
    """What a starting process does: one list call, then one flow for each difference.

    Attributes:
        phase: what it waits for.
        arms: what NAS has armed; None when NAS could not say.
        trouble: why it could not.
    """

    phase: Phase = Phase.LISTING
    arms: Mapping[str, Instant | None] | None = None
    trouble: str = ""


_DONE = Reconciliation(phase=Phase.DONE)


def begin_reconciliation() -> tuple[Reconciliation, tuple[Effect, ...]]:
    """Return a new reconciliation, and its first effects."""
    return Reconciliation(), (ListArms(),)


def step_reconciliation(
    reconciliation: Reconciliation, event: Event, now_us: Instant, belief: Belief = Belief.UNKNOWN
) -> tuple[Reconciliation, tuple[Effect, ...]]:
    """Return *reconciliation* after *event*, and the effects to perform.

    Args:
        reconciliation: as it was before.
        event: what became of the effect that it waits for.
        now_us: the present instant by the local clock.
        belief: whether that clock is believed.

    Raises:
        ProtocolError: the phase does not wait for such an event.
    """
    match reconciliation.phase, event:
        case Phase.LISTING, ArmsListed(arms=arms):
            return Reconciliation(phase=Phase.LOADING, arms=arms), (LoadJobs(),)
        case Phase.LISTING, ArmFailed(reason=reason):
            return Reconciliation(phase=Phase.LOADING, trouble=reason), (LoadJobs(),)
        case Phase.LOADING, JobsLoaded(jobs=jobs, converging=converging, unreadable=unreadable):
            found = differences(jobs, reconciliation.arms, now_us, unreadable, belief)
            intents = tuple(intent for intent in found if intent.job_id not in converging)
            is_known = reconciliation.arms is not None
            return _DONE, (Begin(intents, settled=is_known, trouble=reconciliation.trouble),)
        case Phase.LOADING, StoreFailed(reason=reason):
            return _DONE, (Begin((), settled=False, trouble=reason),)
    raise ProtocolError(f"{type(event).__name__} cannot happen while {reconciliation.phase}")


def differences(
    jobs: Iterable[tuple[Job, Sequence[Liveness]]],
    arms: Mapping[str, Instant | None] | None,
    now_us: Instant,
    unreadable: Sequence[Unreadable] = (),
    belief: Belief = Belief.UNKNOWN,
) -> tuple[Fire, ...]:
    """Return the flows that a starting process owes.

    One for each job with which NAS disagrees, for each arm without a job, for each run whose
    process has ended, for each occurrence that is overdue, and for each job that a clock which was ahead
    has left in the future. Nothing is remembered from an earlier life: NAS is asked, and when it cannot
    say, only what the store shows is looked after. By a clock that is not believed nothing is overdue.

    Args:
        jobs: all jobs, each with what is known of the owners of its runs.
        arms: what NAS has armed, or None when it could not say.
        now_us: the present instant by the local clock.
        unreadable: the records that are no jobs. Their arms stay as they are; while one has not even an
            id, any arm without a job may be its own, and all of these stay.
        belief: whether the local clock is believed.

    Source: contract, "Claim, run, re-arm"; incidents L2, L3, O1, O2, O3, S6, T3.
    """
    known = {record.id for record in unreadable}
    wanting = []
    for job, liveness in jobs:
        known.add(job.id)
        if is_amiss(job, liveness, arms, now_us, belief):
            wanting.append(job.id)
    if None not in known:
        wanting += [job_id for job_id in arms or () if job_id not in known]
    return tuple(recovery(job_id, now_us) for job_id in wanting)


def is_amiss(
    job: Job,
    liveness: Sequence[Liveness],
    arms: Mapping[str, Instant | None] | None,
    now_us: Instant,
    belief: Belief = Belief.UNKNOWN,
) -> bool:
    """Return whether a starting process owes *job* a flow; see `differences`."""
    wake_us = wake_at(job)
    disagrees = arms is not None and _disagrees(arms, job.id, wake_us)
    return disagrees or (belief is not Belief.DOUBTED and _is_left(job, liveness, wake_us, now_us))


def _disagrees(arms: Mapping[str, Instant | None], job_id: str, wake_us: Instant | None) -> bool:
    """Return whether NAS has armed the job for another instant than it wants, or though it wants none."""
    return job_id in arms if wake_us is None else arms.get(job_id) != wake_us


def _is_left(
    job: Job,
    liveness: Sequence[Liveness],
    wake_us: Instant | None,
    now_us: Instant,
) -> bool:
    """Return whether nobody looks after the job any more, or a clock that was ahead has left it so."""
    is_overdue = wake_us is not None and wake_us <= now_us - CLOCK_MARGIN_US
    is_behind = is_overdue or (bool(job.runs) and _is_abandoned(job, liveness, now_us))
    return is_behind or stands_ahead(job, now_us)


def _is_abandoned(job: Job, liveness: Sequence[Liveness], now_us: Instant) -> bool:
    """Return whether a run of the job lost its process, or its lease where nothing is known of that."""
    for run, owner_is in zip(job.runs, liveness, strict=True):
        if owner_is is Liveness.DEAD:
            return True
        if owner_is is Liveness.UNKNOWN and now_us >= run.lease_until_us + CLOCK_ALLOWANCE_US:
            return True
    return False


# --- What is declared -----------------------------------------------------------------------


def declarations(
    jobs: Iterable[Job],
    wanted: Sequence[Declare],
    now_us: Instant,
    *,
    removes_others: bool,
    unsettled: Container[str] = (),
) -> tuple[tuple[Declare | Remove, ...], dict[str, Answer]]:
    """Return the flows by which the jobs become what an agent declares.

    Args:
        jobs: all jobs.
        wanted: what is declared of each job, no id twice.
        now_us: the present instant by the local clock.
        removes_others: whether a job that was declared before, and is not any more, is removed. What
            nobody has declared stays.
        unsettled: the ids of the jobs on which NAS is not known to agree.

    Returns:
        The flows, in order; and the answers for the jobs that need none, since they are so already.
    """
    known = {job.id: job for job in jobs}
    intents: list[Declare | Remove] = []
    answers: dict[str, Answer] = {}
    for intent in wanted:
        job = known.pop(intent.job_id, None)
        move = job_changes.declare(job, wanted=intent.job, is_relative=intent.is_relative, now_us=now_us)
        if move.job != job or intent.job_id in unsettled:
            intents.append(intent)
        else:
            answers[intent.job_id] = Answer(
                job_id=intent.job_id, verdict=move.verdict, reason=move.reason, settled=True, job=job
            )
    if removes_others:
        intents += [Remove(job_id=job.id) for job in known.values() if job.declared]
    return tuple(intents), answers
