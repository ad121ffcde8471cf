"""The flows of a process of the Hermes agent: they take nothing, and make NAS agree with each job.

Hermes claims and runs its jobs by itself. What is left for a process is what every flow does after it has
moved the store. So each is the fire that nobody sent, by which nothing may start (`chronos.protocol.flow`),
over a job that wants the wake of Hermes's and nothing else; what comes after a flow is that of every process.

Hermes's jobs have no revision. The instant before the job was read takes its place: of two requests, the
one that knew more is the newer (incident L9).
"""

from __future__ import annotations

from typing import Any, TypeAlias

from msgspec import Struct

from chronos.jobs.instants import Instant
from chronos.jobs.job import Move, Origin, Verdict
from chronos.protocol import flow as flows
from chronos.protocol import reconciliation as reconciling
from chronos.protocol import words
from chronos.protocol.clocks import CLOCK_MARGIN_US, Belief
from chronos.protocol.draft import Fired
from chronos.protocol.flow_effects import Answer, Effect, Event, JobLoaded, JobsLoaded
from chronos.protocol.intents import Fire
from chronos.protocol.reconciliation import Reconciliation
from chronos.protocol.state import Rules
from chronos.provider.hermes_jobs import HermesJob
from chronos.values import evolve


class Rearm(Struct, frozen=True, kw_only=True, cache_hash=True):
    """Make NAS agree with a job as Hermes has it; where there is none, its arm is cancelled.

    Attributes:
        job_id: which job.
        spent_us: as for `HermesJob.wake_us`; None for what is overdue by more than a clock may err.
        is_lost: likewise.
        is_answering: whether NAS waits for the end of it.
    """

    job_id: str
    spent_us: Instant | None = None
    is_lost: bool = False
    is_answering: bool = False


class Flow(Struct, frozen=True, kw_only=True, cache_hash=True):
    """A `Rearm` in progress, and the flow that performs it."""

    intent: Rearm
    inner: flows.Flow

    @property
    def move(self) -> Move | None:
        """Return what is decided, as of any flow; no run is ever in it."""
        return self.inner.move


Step: TypeAlias = "tuple[Flow, tuple[Effect, ...]]"


def begin(intent: Rearm | Fire, *, owner: str, now_us: Instant, belief: Belief) -> Step:
    """Return a new flow, and its first effects; as `chronos.protocol.flow.begin`.

    A follow-up, and what a reconciliation begins, is a fire: it is a `Rearm` of what is overdue.
    """
    rearm = intent if isinstance(intent, Rearm) else Rearm(job_id=intent.job_id)
    nothing = Fire(
        job_id=rearm.job_id, fire_at_us=now_us, fired=Fired(origin=Origin.RECOVERY), may_start=False
    )
    inner, effects = flows.begin(nothing, owner=owner, now_us=now_us, belief=belief)
    return Flow(intent=rearm, inner=inner), effects


def step(flow: Flow, event: Event, now_us: Instant) -> Step:
    """Return *flow* after *event*, and the effects to perform; as `chronos.protocol.flow.step`."""
    if isinstance(event, JobLoaded) and event.job is not None:
        known_us, rearm = flow.inner.nas_revision, flow.intent
        revision = flow.inner.asked_us if known_us is None else max(flow.inner.asked_us, known_us + 1)
        event = JobLoaded(
            HermesJob(job=event.job).wanting(
                now_us,
                spent_us=_overdue(now_us) if rearm.spent_us is None else rearm.spent_us,
                is_lost=rearm.is_lost,
                revision=revision,
            )
        )
    inner, effects = flows.step(flow.inner, event, now_us)
    return Flow(intent=flow.intent, inner=inner), tuple(_told(effect) for effect in effects)


def _told(effect: Effect) -> Effect:
    """Return *effect*; of an answer, that a job could not be read is a trouble: there was nothing to move."""
    if not isinstance(effect, Answer) or effect.verdict is not None:
        return effect
    trouble = words.because(effect.reason, effect.trouble)
    return evolve(effect, verdict=Verdict.DUPLICATE, reason="", trouble=trouble)


def step_reconciliation(
    reconciliation: Reconciliation, event: Event, now_us: Instant, belief: Belief
) -> tuple[Reconciliation, tuple[Effect, ...]]:
    """Do as `chronos.protocol.reconciliation.step_reconciliation`. Source: incidents L2, L3, O1, O2."""
    if isinstance(event, JobsLoaded):
        jobs = [(HermesJob(job=job).wanting(now_us, spent_us=_overdue(now_us)), ()) for job, _ in event.jobs]
        event = evolve(event, jobs=jobs)
    return reconciling.step_reconciliation(reconciliation, event, now_us, belief)


def is_answering(intent: Any) -> bool:
    """Return whether NAS waits for the end of the flow."""
    return isinstance(intent, Rearm) and intent.is_answering


def _overdue(now_us: Instant) -> Instant:
    return now_us - CLOCK_MARGIN_US


RULES = Rules(
    begin=begin,
    step=step,
    step_reconciliation=step_reconciliation,
    is_answering=is_answering,
    has_ticker=True,
)
