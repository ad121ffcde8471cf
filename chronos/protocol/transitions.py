"""What happens to a job: a fire, a run by hand, the end of a run. What people change is in `job_changes`.

A transition takes a job as it is stored and the present instant, and returns a `Move`: the job as
it shall be stored, the occurrences that end with that, the runs that start, and the answer for the
caller. Nothing is performed here; `chronos.protocol.flow` makes the move with one compare-and-set.

Most of them are three steps on a `Draft` of the job: look after the runs in flight, take what is due
from the schedule, start what may start.

A fire is NAS's word that the instant which it names has come, so what is due is decided by that instant
and not by the local clock, which may be wrong for some seconds after a resume. The local clock
decides what is overdue by more than such an error, what is too late, and which lease is over. For an
instant that is further ahead than clocks may differ, nobody's word is good enough: one of the two
clocks is wrong, nothing is taken or ended, and NAS must deliver the fire again. Of a local clock that is
not believed, nothing is taken or ended on its word: what nobody has sent a fire for has to wait, and a
fire is judged by NAS's time alone.

One arm per job means that several occurrences can be due together only after an outage.
"""

from __future__ import annotations

from collections.abc import Sequence

from chronos.jobs.due import grace_us, wake_at
from chronos.jobs.instants import Instant, format_instant
from chronos.jobs.job import (
    CLOCK_ALLOWANCE_US,
    LEASE_US,
    Job,
    JobState,
    Liveness,
    Move,
    Origin,
    Result,
    Run,
    Verdict,
)
from chronos.jobs.policy import MIN_GRACE_US, CatchUp, Overlap
from chronos.protocol.clocks import CLOCK_MARGIN_US, Belief
from chronos.protocol.draft import BY_NAS, Draft, Fired, joined

# --- What happens ----------------------------------------------------------------------------


def fire(
    job: Job | None,
    *,
    fire_at_us: Instant,
    now_us: Instant,
    owner: str,
    liveness: Sequence[Liveness] = (),
    fired: Fired = BY_NAS,
    may_start: bool = True,
    belief: Belief = Belief.UNKNOWN,
) -> Move:
    """Decide what a fire does to its job; by whose clock, the head of the module says.

    The verdict is `GONE` without a job, `EARLY` while its instant is still to come, or as `_claim` says.

    Args:
        job: the job as stored, or None when there is none of that id.
        fire_at_us: the instant that the fire names.
        now_us: the present instant by the local clock.
        owner: names this process.
        liveness: what is known of the owner of each run in flight, in their order; else `UNKNOWN`.
        fired: how the fire came.
        may_start: False when this process takes nothing any more and only sees to the arm.
        belief: whether the local clock is believed.

    Source: contract, "Claim, run, re-arm"; incidents D1, D3, D4, D7, L7, O3, S3, S4, T2, T3, W2, W4.
    """
    if job is None:
        return Move(job=None, verdict=Verdict.GONE, reason="there is no such job")
    if belief is Belief.DOUBTED:
        if fired.origin is not Origin.SCHEDULE:
            return Move(job=job, verdict=Verdict.DUPLICATE, reason=_NOT_BELIEVED)
        now_us = fire_at_us if fired.minted_us is None else fired.minted_us
    if fire_at_us > now_us + CLOCK_MARGIN_US:
        return _early(job, fire_at_us, now_us)
    draft = Draft(job, now_us)
    _look_after_runs(draft, max(fire_at_us, now_us), liveness)
    if not may_start:
        return draft.move(Verdict.DUPLICATE, "this process takes nothing any more")
    return _claim(draft, fire_at_us, owner, fired)


def _claim(draft: Draft, fire_at_us: Instant, owner: str, fired: Fired) -> Move:
    """Take the due occurrences, and start those that may start.

    Returns:
        `ACCEPTED` with runs to start, or with an occurrence that waits for its turn; or, with nothing
        to run, `DUPLICATE` (the occurrence was settled before), `SKIPPED` (an earlier one is still
        in progress), `MISSED` (too late) or `GONE` (the job wants no wake).
    """
    now_us = draft.now_us
    answer = _drop_late(draft)
    if draft.state is JobState.SCHEDULED and draft.next_us is not None and draft.next_us <= fire_at_us:
        answer = _take_due(draft, max(fire_at_us, now_us - CLOCK_MARGIN_US), fired)
    draft.start(owner, max(fire_at_us, now_us), fired)
    if draft.started:
        retried = draft.started[0].attempt > 1
        return draft.move(Verdict.ACCEPTED, "another attempt starts" if retried else "claimed")
    return draft.move(*(answer or _nothing_due(draft.job, fire_at_us)))


def run_now(
    job: Job | None,
    *,
    asked_us: Instant | None,
    now_us: Instant,
    owner: str,
    liveness: Sequence[Liveness] = (),
) -> Move:
    """Start a run by hand: it has an identity of its own, takes no slot and leaves the schedule alone.

    A paused or completed job may be run like this as well. What happens while an occurrence is in
    progress is the job's overlap policy; a run that is skipped then leaves no trace.

    Args:
        job: the job as stored.
        asked_us: when it was asked for: the identity of the run. The same again is a `DUPLICATE`, and
            so is what was asked for before the last one: nothing tells it from a late repetition. None
            makes an identity that is new.
        now_us: the present instant by the local clock.
        owner: names this process.
        liveness: as for `fire`.

    Source: contract, "A direct run"; incidents D2, L1.
    """
    if job is None:
        return Move(job=None, verdict=Verdict.GONE, reason="there is no such job")
    draft = Draft(job, now_us)
    _look_after_runs(draft, now_us, liveness)
    if asked_us is None:  # a clock that was set back must not make it an old one
        asked_us = now_us if job.last_manual_us is None else max(now_us, job.last_manual_us + 1)
    if job.last_manual_us is not None and asked_us <= job.last_manual_us:
        return draft.move(Verdict.DUPLICATE, "this run, or a later one, was asked for before")
    must_wait = draft.is_in_progress() and job.policy.overlap is not Overlap.ALLOW
    if not draft.has_room() or (must_wait and job.state is not JobState.SCHEDULED):
        return draft.move(Verdict.SKIPPED, _IN_PROGRESS)
    draft.last_manual_us = asked_us
    draft.take(asked_us, Origin.MANUAL)
    draft.start(owner, now_us, Fired(origin=Origin.MANUAL))
    return draft.move(Verdict.ACCEPTED, "claimed" if draft.started else "it waits for its turn")


def finish(
    job: Job | None,
    *,
    run: Run,
    succeeded: bool,
    detail: str,
    now_us: Instant,
    may_start: bool = True,
) -> Move:
    """Decide what the end of *run* does to its job: outcome or retry, and the start of a waiting occurrence.

    Only the owner of the run may end it: when another process has declared the run interrupted,
    or the job is gone, the record stays as it is and the verdict is `LOST`.

    Args:
        job: the job as stored.
        run: the run that has ended.
        succeeded: whether it did what it should.
        detail: why not, in words.
        now_us: the present instant by the local clock.
        may_start: whether this process starts what waited for the end of the run. When it does not,
            `wake_at` brings another one for that.

    Source: contract, "only the owner may complete"; incidents D4, D6, O4.
    """
    if job is None or not run.is_among(job.runs):
        return Move(job=job, verdict=Verdict.LOST, reason="the run is no longer this process's to end")
    draft = Draft(job, now_us)
    stored = draft.release(run)
    if not succeeded and draft.may_retry(stored, job.policy.attempts):
        draft.wait_for_retry(stored, now_us + retry_delay_us(job, stored))
    else:
        draft.end(stored, Result.COMPLETED if succeeded else Result.FAILED, detail)
    if may_start:
        draft.start(run.owner, now_us, BY_NAS)
    else:
        draft.hand_over()
    return draft.move(Verdict.CHANGED, detail)


def renew(job: Job | None, *, run: Run, now_us: Instant) -> Move:
    """Extend the lease of *run*, or say `LOST` when it is no longer this process's.

    Source: contract, "a 300 s lease refreshed by a heartbeat"; incident D4.
    """
    if job is None or not run.is_among(job.runs):
        return Move(job=job, verdict=Verdict.LOST, reason="the run is no longer this process's to renew")
    draft = Draft(job, now_us)
    draft.renew(run, now_us + LEASE_US)
    return draft.move(Verdict.CHANGED, "the lease is renewed")


# --- The steps -------------------------------------------------------------------------------

_NOT_BELIEVED = "the clock of this machine is not believed"
_IN_PROGRESS = "an earlier occurrence of the job was still in progress"
_COALESCED = "a later occurrence was due as well and ran in its place"
_NO_START = "it could not start within the misfire grace"
_TOO_LATE = "the fire came later than the misfire grace allows"
_JUMPED_OVER = "the clock was set forward past it, by three hours or more"
_TOO_MANY = "more occurrences were due than the job catches up"


def retry_delay_us(job: Job, run: Run) -> int:
    """Return how long the attempt after *run* waits: exponential, and less a part by chance.

    The chance is worked out from the identity of the attempt, so that whoever asks gets the same.
    """
    whole_us = min(job.policy.retry_max_delay_us, job.policy.retry_delay_us << min(run.attempt - 1, 40))
    return whole_us - whole_us * _spread(f"{job.id}/{run.occurrence_us}/{run.attempt}") // (2 * _SPREAD)


_SPREAD = 1 << 16


def _spread(text: str) -> int:
    """Return a number below `_SPREAD` that looks like chance: FNV-1a, folded."""
    value = 0x811C9DC5
    for byte in text.encode("utf-8", "surrogatepass"):
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return (value >> 16 ^ value) & (_SPREAD - 1)


def _look_after_runs(draft: Draft, horizon_us: Instant, liveness: Sequence[Liveness]) -> None:
    """Renew the lease of a living run that is over, and settle the runs of processes that have ended.

    The fire of a guard may find its run alive, since the end of a run takes a moment to be stored. It
    must move `wake_at` on all the same: that fire was the arm that brings somebody back.
    """
    for index, run in enumerate(tuple(draft.runs)):
        owner_is = liveness[index] if index < len(liveness) else Liveness.UNKNOWN
        over_us = run.lease_until_us + CLOCK_ALLOWANCE_US
        if owner_is is Liveness.ALIVE:
            if horizon_us >= over_us:
                draft.renew(run, horizon_us + LEASE_US)
        elif owner_is is Liveness.DEAD or draft.now_us >= over_us:
            draft.release(run)
            if draft.may_retry_interrupted(run):
                draft.wait_for_retry(run, draft.now_us)
            else:
                reason = "its process ended" if owner_is is Liveness.DEAD else "its lease ended"
                draft.end(run, Result.INTERRUPTED, f"{reason} before it was stored how the run ended")


def _drop_late(draft: Draft) -> tuple[Verdict, str] | None:
    """End what waits and could have started so long ago that it is too late now.

    Returns:
        What to say when nothing starts; None when nothing was too late.
    """
    if not draft.waiting or draft.job.policy.catch_up is not CatchUp.SKIP:
        return None
    answer = None
    for waiting in draft.waiting:
        is_late = draft.now_us - waiting.not_before_us > grace_us(draft.job, waiting.occurrence_us)
        if is_late and draft.is_free(waiting) and waiting.origin is not Origin.MANUAL:
            draft.drop(waiting, Result.MISSED, _NO_START)
            answer = Verdict.MISSED, _NO_START
    return answer


def _take_due(draft: Draft, horizon_us: Instant, fired: Fired) -> tuple[Verdict, str]:
    """Take the occurrences up to *horizon_us* from the schedule; those that do not run get their outcome.

    Returns:
        What to say when nothing starts.
    """
    policy = draft.job.policy
    is_all = policy.catch_up is CatchUp.ALL
    older, newest = draft.due(horizon_us, policy.catch_up_limit if is_all else 1)
    if fired.was_jumped_over:
        draft.end_stretch(joined(older, newest), Result.MISSED, _JUMPED_OVER)
        return Verdict.MISSED, _JUMPED_OVER
    if policy.overlap is Overlap.SKIP and draft.is_in_progress():
        draft.end_stretch(joined(older, newest), Result.SKIPPED, _IN_PROGRESS)
        return Verdict.SKIPPED, _IN_PROGRESS
    is_late = _is_too_late(draft, newest[-1])
    if is_late and policy.catch_up is CatchUp.SKIP:
        draft.end_stretch(joined(older, newest), Result.MISSED, _TOO_LATE)
        return Verdict.MISSED, _TOO_LATE
    draft.end_stretch(older, Result.MISSED, _TOO_MANY if is_all else _COALESCED)
    if not draft.has_room():
        draft.end_stretch(joined(None, newest), Result.SKIPPED, _IN_PROGRESS)
        return Verdict.SKIPPED, _IN_PROGRESS
    for slot_us in newest:
        is_caught_up = is_late or slot_us != newest[-1]
        draft.take(
            slot_us, Origin.CATCH_UP if is_caught_up and fired.origin is Origin.SCHEDULE else fired.origin
        )
    return Verdict.ACCEPTED, "it waits for its turn"


def _is_too_late(draft: Draft, occurrence_us: Instant) -> bool:
    """Return whether the misfire grace of *occurrence_us* is over."""
    lateness_us = draft.now_us - occurrence_us
    # Most fires come within the smallest grace: the schedule need not be asked for those.
    is_early_enough = lateness_us <= MIN_GRACE_US and draft.job.policy.misfire_grace_us is None
    return not is_early_enough and lateness_us > grace_us(draft.job, occurrence_us)


def _early(job: Job, fire_at_us: Instant, now_us: Instant) -> Move:
    """Say what a fire for an instant that is still to come does: nothing, and the job stays as it is."""
    wake_us = wake_at(job)
    if wake_us is None or wake_us > fire_at_us:  # nothing could be due by then either
        verdict, reason = _nothing_due(job, fire_at_us)
        return Move(job=job, verdict=verdict, reason=reason)
    reason = f"{format_instant(fire_at_us)} is still to come: here it is {format_instant(now_us)}"
    return Move(job=job, verdict=Verdict.EARLY, reason=reason)


def _nothing_due(job: Job, fire_at_us: Instant) -> tuple[Verdict, str]:
    """Say why a fire that names *fire_at_us* has nothing to run."""
    if job.state is not JobState.SCHEDULED:
        return Verdict.GONE, f"the job is {job.state}"
    for run in job.runs:
        if run.occurrence_us == fire_at_us:
            return Verdict.DUPLICATE, f"attempt {run.attempt} of this occurrence is in flight"
    return Verdict.DUPLICATE, "every occurrence up to this instant is settled"
