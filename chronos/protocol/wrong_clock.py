"""What a clock that was ahead has left in the record of a job, and how that is put back."""

from __future__ import annotations

from collections.abc import Iterable

from chronos.jobs.due import following
from chronos.jobs.instants import Instant
from chronos.jobs.job import LEASE_US, Job, Origin, Outcome, Run, Waiting
from chronos.protocol.clocks import CLOCK_MARGIN_US, FIRST_DATE_US, Belief
from chronos.protocol.draft import ran_after
from chronos.values import evolve


def stands_ahead(job: Job, now_us: Instant) -> bool:
    """Return whether the record of *job* says of itself that a clock was ahead when it was written.

    No clock that is right moves a job past its first slot after now, for longer than clocks may differ; nor
    is there a lease, or a wait, that ends later than such a clock could let it end.

    Args:
        job: as stored.
        now_us: the present instant.
    """
    latest_us = now_us + CLOCK_MARGIN_US
    if now_us < FIRST_DATE_US:  # a machine that has no time yet shows such a one
        return False
    if _is_ahead_of_schedule(job, latest_us):
        return True
    if job.runs and max(run.lease_until_us for run in job.runs) > latest_us + LEASE_US:
        return True
    return bool(job.waiting) and any(
        waiting.not_before_us > latest_us + _longest_wait_us(job, waiting) for waiting in job.waiting
    )


def _is_ahead_of_schedule(job: Job, latest_us: Instant) -> bool:
    """Return whether *job* has passed over a slot of its own that comes after *latest_us*."""
    if job.next_us is None or job.next_us <= latest_us:
        return False
    first_us = following(job, latest_us)
    # What is no slot of the schedule was put there by somebody else, for reasons of their own.
    return first_us is not None and first_us < job.next_us == following(job, job.next_us - 1)


def put_back(job: Job, history: Iterable[Outcome], *, now_us: Instant, belief: Belief) -> Job:
    """Return *job*, which stands ahead, as it should stand by a clock that is right.

    It goes on with the first slot of its schedule after now, and passes over the occurrences that ran
    while the clock was ahead. What was not attempted then will be, though it may have an outcome. Where
    NAS has not confirmed the clock, it may be this one that is wrong, and behind: then nothing is put back
    further than the history reaches, which tells what ran.

    Args:
        job: as stored.
        history: the outcomes that the store has kept of it, the oldest first.
        now_us: the present instant.
        belief: whether the local clock is believed.

    Source: incident T3.
    """
    latest_us = now_us + CLOCK_MARGIN_US
    known = [outcome for outcome in history if outcome.origin is not Origin.MANUAL]
    ran_us, next_us, waiting = _attempted(job, known), job.next_us, job.waiting
    if _is_ahead_of_schedule(job, latest_us):
        oldest_us = known[0].occurrence_us if known and belief is not Belief.CONFIRMED else now_us
        from_us = max(now_us, min(oldest_us, next_us or now_us))
        next_us = following(evolve(job, ran_ahead_us=tuple(ran_us)), from_us)
        waiting = tuple(each for each in waiting if not _comes_again(each, latest_us, next_us))
    return evolve(
        job,
        next_us=next_us,
        ran_ahead_us=ran_after(next_us, ran_us),
        runs=tuple(
            evolve(run, lease_until_us=_at_most(run.lease_until_us, now_us + LEASE_US)) for run in job.runs
        ),
        waiting=tuple(_sooner(job, each, now_us) for each in waiting),
        last_manual_us=None if job.last_manual_us is None else _at_most(job.last_manual_us, now_us),
        revision=job.revision + 1,
    )


def _attempted(job: Job, outcomes: Iterable[Outcome]) -> set[Instant]:
    """Return the occurrences of the schedule of which an attempt is known."""
    ended = (outcome.occurrence_us for outcome in outcomes if outcome.attempt)
    begun: tuple[Run | Waiting, ...] = (*job.runs, *(each for each in job.waiting if each.attempt > 1))
    in_progress = (each.occurrence_us for each in begun if each.origin is not Origin.MANUAL)
    return {*job.ran_ahead_us, *ended, *in_progress}


def _comes_again(waiting: Waiting, latest_us: Instant, next_us: Instant | None) -> bool:
    """Return whether the schedule will come to what waits for its first attempt."""
    is_of_schedule = waiting.attempt == 1 and waiting.origin is not Origin.MANUAL
    is_ahead = next_us is not None and waiting.occurrence_us >= next_us
    return is_of_schedule and is_ahead and waiting.occurrence_us > latest_us


def _sooner(job: Job, waiting: Waiting, now_us: Instant) -> Waiting:
    """Return *waiting* as it waits from now, where it would for longer than it may."""
    until_us = now_us + _longest_wait_us(job, waiting)
    return evolve(waiting, not_before_us=_at_most(waiting.not_before_us, until_us))


def _longest_wait_us(job: Job, waiting: Waiting) -> int:
    """Return how long *waiting* may have to wait from now, at the most."""
    if waiting.attempt == 1:
        return 0
    return min(job.policy.retry_max_delay_us, job.policy.retry_delay_us << min(waiting.attempt - 2, 40))


def _at_most(instant_us: Instant, until_us: Instant) -> Instant:
    """Return *instant_us*; or *until_us*, where it is further ahead of that than clocks may differ."""
    return until_us if instant_us > until_us + CLOCK_MARGIN_US else instant_us
