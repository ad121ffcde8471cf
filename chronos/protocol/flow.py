"""The protocol: what an agent does, step by step, as tables.

A `Flow` is one piece of work on one job: it answers a fire, makes a change, ends a run. Whatever
it is for, it takes the same three steps:

1. move the store by one compare-and-set (`LOADING`, `SWAPPING`),
2. make NAS agree with `wake_at` (`ARMING`),
3. only then answer (`DONE`).

`step(flow, event, now_us)` returns the flow as it stands after the event and the effects to
perform, in order; each effect but the last ones comes back as an event. A flow is a frozen value:
it can be stored, compared and dropped between any two effects, which is what a crash does to it.
`TRANSITIONS` is the whole table; an event that a phase does not list is a `ProtocolError`.

`chronos.protocol.reconciliation` has the second, smaller table: what a starting process does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct

from chronos.errors import StaleRevision
from chronos.jobs.data import NO_DATA
from chronos.jobs.due import wake_at
from chronos.jobs.instants import SECOND_US, Instant
from chronos.jobs.job import Job, Move, Origin, Run, Verdict
from chronos.protocol import job_changes, transitions
from chronos.protocol.clocks import Belief
from chronos.protocol.flow_effects import (
    Answer,
    ArmAccepted,
    ArmFailed,
    ArmOutdated,
    CancelArm,
    Effect,
    Event,
    HistoryLoaded,
    JobLoaded,
    JobSwapped,
    JobUnreadable,
    LoadHistory,
    LoadJob,
    ProvisionArm,
    StartRun,
    StoreFailed,
    SwapConflicted,
    SwapJob,
)
from chronos.protocol.intents import (
    Create,
    Declare,
    Edit,
    Finish,
    Fire,
    Intent,
    Pause,
    Remove,
    Renew,
    Resume,
    RunNow,
    concerns,
)
from chronos.protocol.wrong_clock import put_back, stands_ahead
from chronos.values import evolve

# How often a flow starts over because another process changed the job between its read and its
# write. Each time somebody made progress, so that more than a few in a row is a broken store.
MAX_CONFLICTS = 8

# How soon a fire for a record that cannot be read is to come again. Somebody has to mend the record by
# hand: sooner would wake the machine for nothing, and much later would make a mended job late.
MENDING_US = 5 * 60 * SECOND_US

_OF_PEOPLE = (Edit, Declare, Resume)
_NO_TROUBLE = ArmFailed()


class ProtocolError(Exception):
    """A shell told a flow of an event that cannot happen in its phase: a bug in the shell."""


class Phase(StrEnum):
    """Where a flow or a reconciliation stands: what it waits for."""

    LOADING = "loading"
    RECALLING = "recalling"
    SWAPPING = "swapping"
    ARMING = "arming"
    LISTING = "listing"
    DONE = "done"


class Flow(Struct, frozen=True, kw_only=True, cache_hash=True):
    """One piece of work on one job.

    Attributes:
        intent: what it is for.
        owner: names the process that does it.
        phase: what it waits for.
        before: the job as it was before the move; meaningful once the move is decided.
        move: the decision; None until the job is loaded. Its job is what the store shall hold.
        conflicts: how often another process was faster.
        nas_revision: the newer revision that NAS knows of, while that is being looked into.
        asked_us: an instant before the job was last loaded; 0 once a job was found.
        belief: whether the local clock is believed.
        loaded: the job as it was loaded, while it is looked into what ran of it.
    """

    intent: Intent
    owner: str
    phase: Phase = Phase.LOADING
    before: Job | None = None
    move: Move | None = None
    conflicts: int = 0
    nas_revision: int | None = None
    asked_us: Instant = 0
    belief: Belief = Belief.UNKNOWN
    loaded: JobLoaded | SwapConflicted | None = None


Step: TypeAlias = tuple[Flow, tuple[Effect, ...]]


def begin(intent: Intent, *, owner: str, now_us: Instant, belief: Belief = Belief.UNKNOWN) -> Step:
    """Return a new flow for *intent*, and its first effects.

    Args:
        intent: what the flow is for.
        owner: names this process, uniquely among all processes of all machines and all times.
        now_us: the present instant by the local clock.
        belief: whether that clock is believed.
    """
    return Flow(intent=intent, owner=owner, asked_us=now_us, belief=belief), (LoadJob(intent.job_id),)


def step(flow: Flow, event: Event, now_us: Instant) -> Step:
    """Return *flow* after *event*, and the effects to perform, in order.

    Args:
        flow: the flow as `begin` or `step` returned it.
        event: what became of the effect that it waits for.
        now_us: the present instant by the local clock.

    Raises:
        ProtocolError: the phase does not wait for such an event.
    """
    try:
        transition = TRANSITIONS[flow.phase][type(event)]
    except KeyError:
        raise ProtocolError(f"{type(event).__name__} cannot happen while {flow.phase}") from None
    return transition(flow, event, now_us)


def holds(flow: Flow, run: Run) -> bool:
    """Return whether *flow* claims, renews or ends *run*: a process with such a flow owns it alive."""
    if flow.move is not None and run.is_among(flow.move.runs):
        return True
    return concerns(flow.intent, run)


def _on_loaded(flow: Flow, event: JobLoaded | SwapConflicted, now_us: Instant) -> Step:
    """Decide the move; when it changes nothing, go on to NAS."""
    if flow.move is not None:
        return _on_reloaded(flow, flow.move, event.job, now_us)
    if event.job is not None and _must_recall(flow, event.job, now_us):
        recalling = evolve(flow, phase=Phase.RECALLING, loaded=event)
        return recalling, (LoadHistory(flow.intent.job_id),)
    return _on_known(flow, event, event.job, now_us)


def _must_recall(flow: Flow, job: Job, now_us: Instant) -> bool:
    """Return whether *job* was left by a clock that was ahead, and this flow is one that puts it back.

    A fire is not: where it and the local clock disagree, the local clock may be the one that is wrong.
    """
    intent = flow.intent
    if isinstance(intent, Fire):
        may_put_back = intent.fired.origin is Origin.RECOVERY and flow.belief is not Belief.DOUBTED
    else:
        may_put_back = isinstance(intent, _OF_PEOPLE)
    return may_put_back and stands_ahead(job, now_us)


def _on_recalled(flow: Flow, event: HistoryLoaded, now_us: Instant) -> Step:
    """Put the job back, and decide the move from there."""
    loaded = flow.loaded
    assert loaded is not None
    assert loaded.job is not None
    back = put_back(loaded.job, event.outcomes, now_us=now_us, belief=flow.belief)
    known = evolve(loaded, job=back)
    return _on_known(evolve(flow, loaded=None), known, loaded.job, now_us)


def _on_known(flow: Flow, event: JobLoaded | SwapConflicted, before: Job | None, now_us: Instant) -> Step:
    """Decide the move from the job of *event*; in the store it is *before*."""
    move = decide(flow.intent, event, owner=flow.owner, now_us=now_us, belief=flow.belief)
    is_changed = move.job is not before and move.job != before
    decided = Flow(
        intent=flow.intent,
        owner=flow.owner,
        phase=Phase.SWAPPING if is_changed else Phase.ARMING,
        before=before,
        move=move,
        conflicts=flow.conflicts,
        nas_revision=flow.nas_revision,
        asked_us=flow.asked_us if event.job is None else 0,  # it places the cancel of a job that is not there
        belief=flow.belief,
    )
    return _swap(decided, before, move) if is_changed else _arm(decided, move, now_us)


def _on_conflict(flow: Flow, event: SwapConflicted, now_us: Instant) -> Step:
    """Start over with the job as another process left it."""
    if flow.conflicts >= MAX_CONFLICTS:
        return _on_store_failed(flow, StoreFailed("other processes changed the job again and again"), now_us)
    # A move that NAS has been told of stands; only what was not made yet is decided again.
    move = flow.move if flow.nas_revision is not None else None
    return _on_loaded(evolve(flow, move=move, conflicts=flow.conflicts + 1), event, now_us)


def _on_swapped(flow: Flow, _event: Event, now_us: Instant) -> Step:
    """The store has moved: make NAS agree."""
    assert flow.move is not None
    return _arm(flow, flow.move, now_us)


def _on_store_failed(flow: Flow, event: StoreFailed, now_us: Instant) -> Step:
    """Nothing can be promised: whoever asked must ask again."""
    if flow.nas_revision is not None and flow.move is not None:
        return _close(flow, flow.move, now_us, settled=False, echoed=False, failed=ArmFailed(event.reason))
    failed = Answer(
        job_id=flow.intent.job_id,
        verdict=None,
        reason="the job store could not be moved",
        settled=False,
        trouble=event.reason,
    )
    return evolve(flow, phase=Phase.DONE), (failed,)


def _on_unreadable(flow: Flow, event: JobUnreadable, now_us: Instant) -> Step:
    """Leave the job and its arm alone until somebody mends the record.

    A fire for it is not settled: what NAS delivers again is not lost. A change of it is refused.
    Source: incident S6.
    """
    intent = flow.intent
    if flow.nas_revision is not None:
        return _on_store_failed(flow, StoreFailed(event.reason), now_us)
    is_repeated = isinstance(intent, Fire | Finish | Renew)
    by_nas = isinstance(intent, Fire) and intent.fired.origin is Origin.SCHEDULE
    answer = Answer(
        job_id=intent.job_id,
        verdict=None if is_repeated else Verdict.REFUSED,
        reason=event.reason,
        settled=not is_repeated,
        retry_after_us=MENDING_US if by_nas else 0,
    )
    return evolve(flow, phase=Phase.DONE), (answer,)


def _on_accepted(flow: Flow, event: ArmAccepted, now_us: Instant) -> Step:
    """Store and NAS agree: answer, and start the run."""
    assert flow.move is not None
    return _close(flow, flow.move, now_us, settled=True, echoed=event.echoed)


def _on_arm_failed(flow: Flow, event: Event, now_us: Instant) -> Step:
    """Start the run all the same, and let whoever asked come back to finish the arm."""
    assert flow.move is not None
    if isinstance(event, ArmOutdated):
        event = ArmFailed(f"StaleRevision: {StaleRevision(event.revision)}")
    assert isinstance(event, ArmFailed)
    return _close(flow, flow.move, now_us, settled=False, echoed=False, failed=event)


def _on_outdated(flow: Flow, event: ArmOutdated, now_us: Instant) -> Step:
    """Look into the store again: somebody may have moved it on."""
    if flow.conflicts >= MAX_CONFLICTS:
        return _on_arm_failed(flow, event, now_us)
    again = evolve(
        flow,
        phase=Phase.LOADING,
        conflicts=flow.conflicts + 1,
        nas_revision=event.revision,
        asked_us=now_us,
    )
    return again, (LoadJob(flow.intent.job_id),)


TRANSITIONS: Mapping[Phase, Mapping[type, Callable[..., Step]]] = {
    Phase.LOADING: {
        JobLoaded: _on_loaded,
        JobUnreadable: _on_unreadable,
        StoreFailed: _on_store_failed,
    },
    Phase.RECALLING: {
        HistoryLoaded: _on_recalled,
        JobUnreadable: _on_unreadable,
        StoreFailed: _on_store_failed,
    },
    Phase.SWAPPING: {
        JobSwapped: _on_swapped,
        SwapConflicted: _on_conflict,
        JobUnreadable: _on_unreadable,
        StoreFailed: _on_store_failed,
    },
    Phase.ARMING: {ArmAccepted: _on_accepted, ArmOutdated: _on_outdated, ArmFailed: _on_arm_failed},
    Phase.DONE: {},
}


def _on_reloaded(flow: Flow, move: Move, job: Job | None, now_us: Instant) -> Step:
    """NAS knows a newer revision. Follow the store, or put the store after what NAS knows.

    When the store has moved on, its newer job is what NAS should agree with. When it has not, NAS
    remembers an earlier life of the job (it was removed and created again, or the store was
    restored from a copy), and this life must come after that one.
    """
    assert flow.nas_revision is not None
    # A run that the store does not hold any more is not started: its job was removed meanwhile.
    held = tuple(run for run in move.runs if job is not None and run.is_among(job.runs))
    newest = evolve(move, job=job, runs=held)
    if job is None or job.revision >= flow.nas_revision:
        return _arm(evolve(flow, move=newest), newest, now_us)
    raised = evolve(newest, job=evolve(job, revision=flow.nas_revision + 1), outcomes=())
    return _swap(evolve(flow, move=raised), job, raised)


def decide(
    intent: Intent,
    event: JobLoaded | SwapConflicted,
    *,
    owner: str,
    now_us: Instant,
    belief: Belief = Belief.UNKNOWN,
) -> Move:
    """Return the move of the transition that *intent* names, by the clock of the process *owner*.

    *event* has the job as stored, and what is known of the owners of its runs.
    """
    job, liveness = event.job, event.liveness
    match intent:
        case Fire(fire_at_us=fire_at_us, fired=fired, may_start=may_start):
            return transitions.fire(
                job,
                fire_at_us=fire_at_us,
                now_us=now_us,
                owner=owner,
                liveness=liveness,
                fired=fired,
                may_start=may_start,
                belief=belief,
            )
        case Finish(run=run, succeeded=succeeded, detail=detail, may_start=may_start):
            return transitions.finish(
                job, run=run, succeeded=succeeded, detail=detail, now_us=now_us, may_start=may_start
            )
        case RunNow(asked_us=asked_us):
            return transitions.run_now(job, asked_us=asked_us, now_us=now_us, owner=owner, liveness=liveness)
        case Renew(run=run):
            return transitions.renew(job, run=run, now_us=now_us)
        case Create(job=wanted):
            return job_changes.create(job, wanted=wanted, now_us=now_us)
        case Edit(changes=changes):
            return job_changes.edit(job, changes=changes, now_us=now_us)
        case Declare(job=wanted, is_relative=is_relative):
            return job_changes.declare(job, wanted=wanted, is_relative=is_relative, now_us=now_us)
        case Pause(note=note):
            return job_changes.pause(job, note=note, now_us=now_us)
        case Resume(from_now=from_now):
            return job_changes.resume(job, from_now=from_now, now_us=now_us)
        case Remove():
            return job_changes.remove(job)


def _swap(flow: Flow, expected: Job | None, move: Move) -> Step:
    """Move the store."""
    effect = SwapJob(
        job_id=flow.intent.job_id, expected=expected, replacement=move.job, outcomes=move.outcomes
    )
    return (flow if flow.phase is Phase.SWAPPING else evolve(flow, phase=Phase.SWAPPING)), (effect,)


def _arm(flow: Flow, move: Move, now_us: Instant) -> Step:
    """Make NAS agree with the job as the store holds it."""
    job_id, job = flow.intent.job_id, move.job
    wake_us = wake_at(job) if job is not None else None
    if not _must_ask_nas(flow, wake_us):
        return _close(flow, move, now_us, settled=True, echoed=True)
    if _is_the_arm_itself(flow.intent, move, wake_us):
        return _close(flow, move, now_us, settled=False, echoed=False)
    effect: Effect
    if job is not None and wake_us is not None:
        effect = ProvisionArm(job_id=job_id, fire_at_us=wake_us, revision=job.revision)
    elif job is not None:
        effect = CancelArm(job_id=job_id, revision=job.revision)
    else:
        effect = CancelArm(job_id=job_id, revision=_revision_without_job(flow))
    return (flow if flow.phase is Phase.ARMING else evolve(flow, phase=Phase.ARMING)), (effect,)


def _revision_without_job(flow: Flow) -> int:
    """Return the place in the order of a cancel for a job that is not in the store.

    It comes after the last revision of the job that was removed. Who found no job takes the instant
    at which it looked, which comes after every life that had ended and before every life that begins
    later: the present instant may come after a life that has begun since.
    """
    last = flow.asked_us if flow.before is None else flow.before.revision + 1
    return last if flow.nas_revision is None else max(last, flow.nas_revision + 1)


def _is_the_arm_itself(intent: Intent, move: Move, wake_us: Instant | None) -> bool:
    """Return whether the fire to be answered is the very arm that the job still needs.

    Another process may hold the run, and its guard fire by NAS's clock before it ends by this one's.
    Arming the same instant again would be a no-op for NAS, and accepting the fire would consume it:
    so the fire is not accepted, and NAS repeats it. Of a fire for an instant that is still to come it is
    only that one which the job waits for: NAS may have no earlier one.
    """
    if not isinstance(intent, Fire) or intent.fired.origin is not Origin.SCHEDULE or wake_us is None:
        return False
    is_early = move.verdict is Verdict.EARLY
    return wake_us == intent.fire_at_us if is_early else wake_us <= intent.fire_at_us


def _must_ask_nas(flow: Flow, wake_us: Instant | None) -> bool:
    """Return whether NAS may disagree with *wake_us*.

    A run that ends or is renewed leaves `wake_at` alone more often than not, and the claim has
    already made NAS agree with it. Then a NAS that keeps the promises of contract 1.1 need not be
    asked; an older one is, since its clean-up after the fire may have deleted the new arm (L10).
    """
    match flow.intent:
        case Finish(confirm=True):
            return True
        case Finish() | Renew():
            return flow.before is None or wake_at(flow.before) != wake_us
    return True


def _close(
    flow: Flow, move: Move, now_us: Instant, *, settled: bool, echoed: bool, failed: ArmFailed = _NO_TROUBLE
) -> Step:
    """Answer, and start the run that was claimed.

    A process that was suspended since it decided may find a lease over: then others may have taken
    the run for interrupted, and it is not started. The caller comes back and finds its outcome;
    so does NAS after a fire that came too early.
    """
    job_id = flow.intent.job_id
    # A clock that is not believed cannot tell; it was NAS's word that made the lease.
    runs = tuple(run for run in move.runs if flow.belief is Belief.DOUBTED or now_us < run.lease_until_us)
    is_lost = len(runs) < len(move.runs)
    is_over = not is_lost and move.verdict is not Verdict.EARLY
    answer = Answer(
        job_id=job_id,
        verdict=Verdict.LOST if is_lost else move.verdict,
        reason="the lease ended before the run could start" if is_lost else move.reason,
        settled=settled and is_over,
        job=move.job,
        trouble=failed.reason,
        retry_after_us=failed.retry_after_us,
    )
    done = Flow(
        intent=flow.intent,
        owner=flow.owner,
        phase=Phase.DONE,
        before=flow.before,
        move=move,
        belief=flow.belief,
    )
    return done, (answer, *starts(move, runs, job_id=job_id, confirm=not (settled and echoed)))


def starts(move: Move, runs: Iterable[Run], *, job_id: str, confirm: bool) -> tuple[StartRun, ...]:
    """Return the starts of those *runs* that *move* has claimed, with what its job says of them."""
    job = move.job
    limit_us, data_json = (None, NO_DATA) if job is None else (job.policy.time_limit_us, job.data_json)
    return tuple(
        StartRun(job_id=job_id, run=run, confirm=confirm, time_limit_us=limit_us, data_json=data_json)
        for run in runs
    )


def timed_out(started: StartRun) -> Finish:
    """Return the end of a run whose time is over: that of any run that fails.

    Its process decides that, by a clock that is never set; whoever else sees the run goes by its lease.
    """
    assert started.time_limit_us is not None
    detail = f"timed out after {started.time_limit_us / SECOND_US:.10g} s"
    return Finish(
        job_id=started.job_id, run=started.run, succeeded=False, detail=detail, confirm=started.confirm
    )
