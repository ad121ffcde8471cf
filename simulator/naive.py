"""A deliberately broken agent, made to be caught.

It is how managed cron is written first: it answers the fire as soon as the claim is stored and arms
the next occurrence after the run; it asks NAS what is armed when it starts, and never again; when NAS
fails it shrugs, since the next run will arm again. It keeps the claim right, so that what it loses is
lost by the order of its steps alone (incidents L1, L5, L6, L7, O1, O2, O4, D6).
"""

from __future__ import annotations

from msgspec import Struct

from chronos.jobs.due import wake_at
from chronos.jobs.instants import Instant
from chronos.jobs.job import Job, JobState, Liveness, Move, Origin, Verdict
from chronos.protocol import flow as flows
from chronos.protocol.clocks import Belief
from chronos.protocol.draft import Fired
from chronos.protocol.flow import Phase, starts
from chronos.protocol.flow_effects import (
    Answer,
    ArmAccepted,
    ArmFailed,
    ArmOutdated,
    ArmsListed,
    Begin,
    CancelArm,
    Effect,
    Event,
    JobLoaded,
    JobsLoaded,
    JobSwapped,
    ListArms,
    LoadJob,
    LoadJobs,
    ProvisionArm,
    StoreFailed,
    SwapConflicted,
    SwapJob,
)
from chronos.protocol.intents import (
    Finish,
    Fire,
    Intent,
    Renew,
    RunNow,
)
from chronos.protocol.state import Rules
from chronos.values import evolve


class NaiveFlow(Struct, frozen=True, kw_only=True, cache_hash=True):
    """One piece of work on one job, in the wrong order."""

    intent: Intent
    owner: str
    phase: Phase = Phase.LOADING
    move: Move | None = None


Step = tuple[NaiveFlow, tuple[Effect, ...]]


def begin(intent: Intent, *, owner: str, **_: object) -> Step:
    """Return a new flow for *intent*, and its first effects."""
    return NaiveFlow(intent=intent, owner=owner), (LoadJob(intent.job_id),)


def step(flow: NaiveFlow, event: Event, now_us: Instant) -> Step:
    """Return *flow* after *event*, and the effects to perform."""
    match event:
        case JobLoaded() | SwapConflicted():
            move = flows.decide(flow.intent, event, owner=flow.owner, now_us=now_us)
            if move.job == event.job:
                return _after_move(flow, move)
            swap = SwapJob(
                job_id=flow.intent.job_id,
                expected=event.job,
                replacement=move.job,
                outcomes=move.outcomes,
            )
            return evolve(flow, phase=Phase.SWAPPING, move=move), (swap,)
        case JobSwapped():
            assert flow.move is not None
            return _after_move(flow, flow.move)
        case StoreFailed():
            return _done(flow, Verdict.REFUSED, settled=False)
        case ArmAccepted() | ArmFailed() | ArmOutdated():
            # Whether it worked is not looked at: the map says that it did.
            assert flow.move is not None
            done, answers = _done(flow, flow.move.verdict, job=flow.move.job)
            is_end = isinstance(flow.intent, Finish)
            begun = (
                starts(flow.move, flow.move.runs, job_id=flow.intent.job_id, confirm=True) if is_end else ()
            )
            return done, (*answers, *begun)
    raise AssertionError(event)


def _after_move(flow: NaiveFlow, move: Move) -> Step:
    """Answer a fire at once; arm after everything else."""
    flow, job = evolve(flow, move=move), move.job
    match flow.intent:
        case Fire() | RunNow() if move.runs:
            done, answers = _done(flow, move.verdict, job=job)
            return done, (*answers, *starts(move, move.runs, job_id=flow.intent.job_id, confirm=True))
        case Fire(fired=Fired(origin=Origin.SCHEDULE)):
            return _done(flow, move.verdict, job=job)  # a duplicate: the first delivery has seen to it
        case Renew():
            return _done(flow, move.verdict, job=job)
    return _arm(flow, job)


def _arm(flow: NaiveFlow, job: Job | None) -> Step:
    """Arm the next occurrence, whatever the state of the job; without one, disarm."""
    job_id = flow.intent.job_id
    is_wanted = job is not None and (job.state is JobState.SCHEDULED or isinstance(flow.intent, Finish))
    next_us = job.next_us if job is not None and is_wanted else None
    armed = evolve(flow, phase=Phase.ARMING)
    if job is not None and next_us is not None:
        return armed, (ProvisionArm(job_id=job_id, fire_at_us=next_us, revision=job.revision),)
    return armed, (CancelArm(job_id=job_id, revision=0 if job is None else job.revision),)


def _done(flow: NaiveFlow, verdict: Verdict, *, job: Job | None = None, settled: bool = True) -> Step:
    answer = Answer(
        job_id=flow.intent.job_id,
        verdict=verdict if settled else None,
        reason="as it is written first",
        settled=settled,
        job=job,
    )
    return evolve(flow, phase=Phase.DONE), (answer,)


class NaiveStart(Struct, frozen=True, kw_only=True, cache_hash=True):
    """What a starting process does: it asks what is armed, and believes that for as long as it lives."""

    phase: Phase
    arms: tuple[tuple[str, Instant], ...] = ()


def begin_reconciliation() -> tuple[NaiveStart, tuple[Effect, ...]]:
    """Return a new reconciliation, and its first effects."""
    return NaiveStart(phase=Phase.LISTING), (ListArms(),)


def step_reconciliation(
    start: NaiveStart, event: Event, now_us: Instant, _belief: Belief
) -> tuple[NaiveStart, tuple[Effect, ...]]:
    """Return *start* after *event*, and the effects to perform."""
    match event:
        case ArmsListed(arms=arms):
            known = tuple(sorted((job_id, at_us) for job_id, at_us in arms.items() if at_us is not None))
            return NaiveStart(phase=Phase.LOADING, arms=known), (LoadJobs(),)
        case JobsLoaded(jobs=jobs):
            wanting = _wanting(tuple(jobs), dict(start.arms))
            overdue = Fired(origin=Origin.RECOVERY)
            intents = tuple(Fire(job_id=job_id, fire_at_us=now_us, fired=overdue) for job_id in wanting)
            return evolve(start, phase=Phase.DONE), (Begin(intents, settled=True),)
    # NAS could not say: there will be another start.
    return evolve(start, phase=Phase.DONE), (Begin((), settled=True),)


def _wanting(jobs: tuple[tuple[Job, tuple[Liveness, ...]], ...], armed: dict[str, Instant]) -> list[str]:
    known = {job.id for job, _ in jobs}
    differing = [
        job.id for job, liveness in jobs if armed.get(job.id) != wake_at(job) or Liveness.DEAD in liveness
    ]
    return differing + [job_id for job_id in armed if job_id not in known]


NAIVE_RULES = Rules(
    begin=begin,
    step=step,
    begin_reconciliation=begin_reconciliation,
    step_reconciliation=step_reconciliation,
)
