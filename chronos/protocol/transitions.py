"""Every way in which a job may change.

A transition takes a job as it is stored and the present instant, and returns a `Move`: the job as
it shall be stored, the occurrences that end with that, and what to tell whoever asked. Nothing is
performed here; `chronos.protocol.machine` makes the move with one compare-and-set.
"""

from __future__ import annotations

import attrs

from chronos.protocol.job import (
    CLOCK_ALLOWANCE_US,
    LEASE_US,
    MAX_ATTEMPTS,
    MIN_GRACE_US,
    Job,
    JobState,
    Liveness,
    Move,
    OnInterrupt,
    Origin,
    Outcome,
    Result,
    Run,
    Verdict,
    grace_us,
)
from chronos.protocol.schedule import Instant, next_after


def fire(
    job: Job | None,
    *,
    fire_at_us: Instant,
    now_us: Instant,
    owner: str,
    liveness: Liveness,
    origin: Origin = Origin.SCHEDULE,
) -> Move:
    """Decide what a fire does to its job.

    A fire is NAS's word that *fire_at_us* has come, so what is due is decided by that instant and
    not by the local clock, which may be wrong for some seconds after a resume. The local clock
    decides two things alone: whether an occurrence is too late to run, and whether a lease is over.

    Of several occurrences that are due, the newest runs and the older ones are missed: one arm per
    job means that they can only be due together after an outage.

    Args:
        job: the job as stored, or None when there is none of that id.
        fire_at_us: the instant that the fire names.
        now_us: the present instant by the local clock.
        owner: names this process.
        liveness: what is known of the process that owns the run in flight.
        origin: what caused the fire.

    Returns:
        `ACCEPTED` with a run to start; or, with nothing to run, `DUPLICATE` (the occurrence was
        settled before), `SKIPPED` (a run is still in flight), `MISSED` (too late) or `GONE` (the
        job wants no wake).

    Source: contract, "Claim, run, re-arm"; incidents D1, D3, D4, D7, L7, O3, S3, S4, W2, W4.
    """
    if job is None:
        return Move(job=None, verdict=Verdict.GONE, reason="there is no such job")
    revision = job.revision + 1
    current, outcomes, taken = _look_after_run(
        job, revision, max(fire_at_us, now_us), now_us, owner, liveness
    )
    verdict, reason = Verdict.ACCEPTED, "the interrupted run starts again"
    if current.state is JobState.SCHEDULED and current.next_us is not None and current.next_us <= fire_at_us:
        due = _due(current, max(fire_at_us, now_us))
        if current.run is not None:
            current = _pass_over(current, revision, due, None)
            outcomes += due.outcomes(job.id, Result.SKIPPED, _IN_FLIGHT, now_us)
            if taken is None:
                verdict, reason = Verdict.SKIPPED, _IN_FLIGHT
        elif _is_too_late(current, due.newest_us, now_us):
            current = _pass_over(current, revision, due, None)
            outcomes += due.outcomes(job.id, Result.MISSED, _TOO_LATE, now_us)
            verdict, reason = Verdict.MISSED, _TOO_LATE
        else:
            taken = Run(
                occurrence_us=due.newest_us,
                attempt=1,
                owner=owner,
                claimed_us=now_us,
                lease_until_us=now_us + LEASE_US,
                origin=origin,
            )
            current = _pass_over(current, revision, due, taken)
            outcomes += due.older().outcomes(job.id, Result.MISSED, _COALESCED, now_us)
            reason = "claimed"
    elif taken is None:
        verdict, reason = _nothing_due(current, fire_at_us)
    return Move(job=current, verdict=verdict, reason=reason, outcomes=outcomes, run=taken)


def finish(job: Job | None, *, run: Run, succeeded: bool, detail: str, now_us: Instant) -> Move:
    """Decide what the end of *run* does to its job.

    Only the owner of the run may end it: when another process has declared the run interrupted,
    or the job is gone, the record stays as it is and the verdict is `LOST`.

    Source: contract, "only the owner may complete"; incidents D4, D6, O4.
    """
    if job is None or not run.is_same_as(job.run):
        return Move(job=job, verdict=Verdict.LOST, reason="the run is no longer this process's to end")
    result = Result.COMPLETED if succeeded else Result.FAILED
    settled, outcome = _settle(job, job.revision + 1, result, detail, now_us)
    return Move(job=settled, verdict=Verdict.CHANGED, reason=detail, outcomes=(outcome,))


def renew(job: Job | None, *, run: Run, now_us: Instant) -> Move:
    """Extend the lease of *run*, or say `LOST` when it is no longer this process's.

    Source: contract, "a 300 s lease refreshed by a heartbeat"; incident D4.
    """
    if job is None or job.run is None or not run.is_same_as(job.run):
        return Move(job=job, verdict=Verdict.LOST, reason="the run is no longer this process's to renew")
    renewed = attrs.evolve(job.run, lease_until_us=now_us + LEASE_US)
    return Move(
        job=attrs.evolve(job, run=renewed, revision=job.revision + 1),
        verdict=Verdict.CHANGED,
        reason="the lease is renewed",
    )


def create(job: Job | None, *, wanted: Job) -> Move:
    """Put *wanted* into the store; `REFUSED` when another job has its id."""
    if job is not None and (job.schedule, job.times, job.policy) != (
        wanted.schedule,
        wanted.times,
        wanted.policy,
    ):
        return Move(job=job, verdict=Verdict.REFUSED, reason=f"another job has the id {wanted.id}")
    return Move(job=job or wanted, verdict=Verdict.CHANGED, reason="created")


def pause(job: Job | None) -> Move:
    """Put the schedule of a job out of force; a run in flight goes on. Source: incident D6."""
    if job is None:
        return Move(job=None, verdict=Verdict.GONE, reason="there is no such job")
    if job.state is not JobState.SCHEDULED:
        return Move(job=job, verdict=Verdict.CHANGED, reason=f"already {job.state}")
    paused = attrs.evolve(job, state=JobState.PAUSED, revision=job.revision + 1)
    return Move(job=paused, verdict=Verdict.CHANGED, reason="paused")


def resume(job: Job | None, *, now_us: Instant) -> Move:
    """Put the schedule of a paused job in force again, from its slot or, if that has passed, from now.

    The occurrences that passed while the job was paused were not those of an active job and have
    no outcome; a one-shot that passed is missed, so that it does not vanish without a trace.

    Source: incidents L8, D7.
    """
    if job is None:
        return Move(job=None, verdict=Verdict.GONE, reason="there is no such job")
    if job.state is not JobState.PAUSED:
        return Move(job=job, verdict=Verdict.CHANGED, reason=f"already {job.state}")
    next_us: Instant | None = job.next_us
    outcomes: tuple[Outcome, ...] = ()
    if next_us is not None and next_us <= now_us:
        passed_us, next_us = next_us, next_after(job.schedule, now_us)
        if next_us is None:
            passed = _Stretch(passed_us, passed_us, passed_us, 1)
            outcomes = passed.outcomes(job.id, Result.MISSED, "passed while the job was paused", now_us)
    state = _state(JobState.SCHEDULED, next_us, job.run)
    return Move(
        job=attrs.evolve(job, next_us=next_us, state=state, revision=job.revision + 1),
        verdict=Verdict.CHANGED,
        reason="resumed",
        outcomes=outcomes,
    )


def remove(job: Job | None) -> Move:
    """Take a job out of the store. Source: incidents O1, O4."""
    return Move(job=None, verdict=Verdict.CHANGED if job else Verdict.GONE, reason="removed")


_IN_FLIGHT = "a run of the job was still in flight"
_COALESCED = "a later occurrence was due as well and ran in its place"
_TOO_LATE = "the fire came later than the misfire grace allows"


@attrs.frozen
class _Stretch:
    """The occurrences of a job that are due together, and the one that follows them."""

    first_us: Instant
    before_newest_us: Instant
    newest_us: Instant
    count: int
    following_us: Instant | None = None

    def older(self) -> _Stretch:
        """Return the stretch without its newest occurrence."""
        return _Stretch(self.first_us, self.first_us, self.before_newest_us, self.count - 1)

    def outcomes(self, job_id: str, result: Result, reason: str, now_us: Instant) -> tuple[Outcome, ...]:
        """Return the outcome of the whole stretch; none when it is empty."""
        if self.count == 0:
            return ()
        return (
            Outcome(
                job_id=job_id,
                result=result,
                reason=reason,
                occurrence_us=self.first_us,
                last_occurrence_us=self.newest_us,
                count=self.count,
                at_us=now_us,
            ),
        )


def _due(job: Job, until_us: Instant) -> _Stretch:
    """Return the occurrences of *job* that are due by *until_us*, of which there is at least one."""
    first_us = before_us = newest_us = job.next_us
    assert first_us is not None
    assert before_us is not None
    assert newest_us is not None
    count = 1
    following_us = next_after(job.schedule, newest_us)
    while following_us is not None and following_us <= until_us:
        before_us, newest_us, count = newest_us, following_us, count + 1
        following_us = next_after(job.schedule, newest_us)
    return _Stretch(first_us, before_us, newest_us, count, following_us)


def _pass_over(job: Job, revision: int, due: _Stretch, taken: Run | None) -> Job:
    """Return *job* with the due occurrences behind it and, when one was claimed, its run."""
    next_us, run = due.following_us, taken or job.run
    if taken is not None and job.times is not None and job.completed + 1 >= job.times:
        next_us = None
    state = _state(job.state, next_us, run)
    return attrs.evolve(job, next_us=next_us, run=run, state=state, revision=revision)


def _is_too_late(job: Job, occurrence_us: Instant, now_us: Instant) -> bool:
    """Return whether the misfire grace of *occurrence_us* is over."""
    lateness_us = now_us - occurrence_us
    # Most fires come within the smallest grace: the schedule need not be asked for those.
    is_early_enough = lateness_us <= MIN_GRACE_US and job.policy.misfire_grace_us is None
    return not is_early_enough and lateness_us > grace_us(job, occurrence_us)


def _look_after_run(
    job: Job, revision: int, horizon_us: Instant, now_us: Instant, owner: str, liveness: Liveness
) -> tuple[Job, tuple[Outcome, ...], Run | None]:
    """Renew the lease of a living run that is over, and settle the run of a process that has ended.

    The fire of a guard may find its run alive, since the end of a run takes a moment to be stored. It
    must move `wake_at` on all the same: that fire was the arm that brings somebody back.

    Returns:
        The job, the outcomes, and a run to start again.
    """
    run = job.run
    if run is None:
        return job, (), None
    if liveness is Liveness.ALIVE:
        if horizon_us < run.lease_until_us + CLOCK_ALLOWANCE_US:
            return job, (), None
        renewed = attrs.evolve(run, lease_until_us=horizon_us + LEASE_US)
        return attrs.evolve(job, run=renewed, revision=revision), (), None
    if liveness is Liveness.UNKNOWN and now_us < run.lease_until_us + CLOCK_ALLOWANCE_US:
        return job, (), None
    is_retried = job.policy.on_interrupt is OnInterrupt.RETRY and job.state is JobState.SCHEDULED
    if is_retried and run.attempt < MAX_ATTEMPTS:
        again = attrs.evolve(
            run,
            attempt=run.attempt + 1,
            owner=owner,
            claimed_us=now_us,
            lease_until_us=now_us + LEASE_US,
            origin=Origin.RECOVERY,
        )
        return attrs.evolve(job, run=again, revision=revision), (), again
    reason = "its process ended" if liveness is Liveness.DEAD else "its lease ended"
    settled, outcome = _settle(job, revision, Result.INTERRUPTED, f"{reason}: {run.owner}", now_us)
    return settled, (outcome,), None


def _settle(job: Job, revision: int, result: Result, reason: str, now_us: Instant) -> tuple[Job, Outcome]:
    """End the run in flight with *result*."""
    run = job.run
    assert run is not None
    outcome = Outcome(
        job_id=job.id,
        result=result,
        reason=reason,
        occurrence_us=run.occurrence_us,
        last_occurrence_us=run.occurrence_us,
        attempt=run.attempt,
        at_us=now_us,
    )
    settled = attrs.evolve(
        job,
        run=None,
        completed=job.completed + 1,
        state=_state(job.state, job.next_us, None),
        revision=revision,
    )
    return settled, outcome


def _state(state: JobState, next_us: Instant | None, run: Run | None) -> JobState:
    """Return *state*, or `COMPLETED` when neither an occurrence nor a run is left."""
    return JobState.COMPLETED if next_us is None and run is None else state


def _nothing_due(job: Job, fire_at_us: Instant) -> tuple[Verdict, str]:
    """Say why a fire that names *fire_at_us* has nothing to run."""
    if job.state is not JobState.SCHEDULED:
        return Verdict.GONE, f"the job is {job.state}"
    if job.run is not None and job.run.occurrence_us == fire_at_us:
        return Verdict.DUPLICATE, f"attempt {job.run.attempt} of this occurrence is in flight"
    return Verdict.DUPLICATE, "every occurrence up to this instant is settled"
