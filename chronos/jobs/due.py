"""When a job is due, how late it may be, and the one question that the protocol asks of it: `wake_at`."""

from __future__ import annotations

from chronos.jobs.instants import Instant, whole_second
from chronos.jobs.job import CLOCK_ALLOWANCE_US, Job, JobState, Waiting
from chronos.jobs.policy import MAX_GRACE_US, MAX_IN_FLIGHT, MIN_GRACE_US, OnInterrupt, Overlap
from chronos.jobs.schedule import Once, Slots, newest, next_after


def wake_at(job: Job) -> Instant | None:
    """Return the instant at which the agent must next be woken for *job*.

    The whole protocol converges the control plane toward this one value.

    Returns:
        Epoch microseconds, UTC, a whole second; or None when the job needs no wake: it is paused or
        completed. It is the earliest of: the next occurrence; the time of what waits and may start;
        and, while a run is in flight that may be attempted again, or behind which something waits, its
        guard: the end of its lease, when other clocks agree that it is over. The guard fires only if
        the run died, or its process before it could arm what comes after: completion moves `wake_at`
        on. An instant between two seconds has come with the later one.

    Source: design, "One idea"; invariant NO-LOST-REARM; incident T1.
    """
    if job.state is not JobState.SCHEDULED:
        return None
    wake_us = job.next_us
    if job.runs and _is_guarded(job):
        guard_us = min(run.lease_until_us for run in job.runs) + CLOCK_ALLOWANCE_US
        wake_us = guard_us if wake_us is None else min(wake_us, guard_us)
    for waiting in startable(job) if job.waiting else ():
        ready_us = waiting.not_before_us
        wake_us = ready_us if wake_us is None else min(wake_us, ready_us)
    return None if wake_us is None else whole_second(wake_us)


def _is_guarded(job: Job) -> bool:
    """Return whether somebody must come back when the process of a run in flight dies."""
    policy = job.policy
    return (
        bool(job.waiting)
        or policy.on_interrupt is OnInterrupt.RETRY
        or any(run.attempt < policy.attempts for run in job.runs)
    )


def startable(job: Job) -> tuple[Waiting, ...]:
    """Return what waits for its time alone, and not for the end of another run, in order."""
    if job.policy.overlap is Overlap.ALLOW:
        return job.waiting if len(job.runs) < MAX_IN_FLIGHT else ()
    return () if job.runs else job.waiting[:1]


def following(job: Job, instant_us: Instant) -> Instant | None:
    """Return the first occurrence of *job* after *instant_us*, within its bounds; None when there is none."""
    starts_us, ends_us = job.policy.starts_us, job.policy.ends_us
    if starts_us is not None and starts_us > instant_us:
        instant_us = starts_us - 1
    slot_us = next_after(job.schedule, instant_us)
    while slot_us in job.ran_ahead_us and slot_us is not None:
        slot_us = next_after(job.schedule, slot_us)
    return None if slot_us is None or (ends_us is not None and slot_us > ends_us) else slot_us


def passed(job: Job, after_us: Instant, until_us: Instant, at_most: int) -> Slots:
    """Return the occurrences of *job* after *after_us* up to *until_us*, within its bounds; see `newest`."""
    starts_us, ends_us = job.policy.starts_us, job.policy.ends_us
    after_us = after_us if starts_us is None else max(after_us, starts_us - 1)
    until_us = until_us if ends_us is None else min(until_us, ends_us)
    if not job.ran_ahead_us:
        return newest(job.schedule, after_us, until_us, at_most)
    ran_us = [at_us for at_us in job.ran_ahead_us if after_us < at_us <= until_us]
    slots = newest(job.schedule, after_us, until_us, at_most + len(ran_us))
    ran = sum(next_after(job.schedule, at_us - 1) == at_us for at_us in ran_us)
    left = tuple(slot_us for slot_us in slots.newest if slot_us not in ran_us)
    return Slots(slots.count - ran, left[-at_most:])


def grace_us(job: Job, occurrence_us: Instant) -> int:
    """Return how late *occurrence_us* of *job* may still run as if it were in time, microseconds."""
    if job.policy.misfire_grace_us is not None:
        return job.policy.misfire_grace_us
    if isinstance(job.schedule, Once):
        return MAX_GRACE_US
    following_us = next_after(job.schedule, occurrence_us)
    if following_us is None:
        return MAX_GRACE_US
    return max(MIN_GRACE_US, min(MAX_GRACE_US, (following_us - occurrence_us) // 2))
