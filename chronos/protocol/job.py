"""The durable record of a job, and the one question that the protocol asks of it: `wake_at`.

All of it is values; how they may change is decided in `chronos.protocol.transitions`.

Instants and durations are integers, microseconds (`_us`); instants count from the epoch, UTC.
"""

from __future__ import annotations

from enum import StrEnum

import attrs

from chronos.protocol.schedule import HOUR_US, MINUTE_US, SECOND_US, Instant, Once, Schedule, next_after

# The contract's lease. A run renews it while it is in flight, every third of it (two renewals
# may fail before the lease is over).
LEASE_US = 300 * SECOND_US
RENEW_EVERY_US = LEASE_US // 3

# How far the clocks of two machines may be apart. The contract allows a fire token as much.
CLOCK_ALLOWANCE_US = 30 * SECOND_US

# A run that is retried after an interruption starts at most this often in all: a job that kills
# its machine must not do so for ever.
MAX_ATTEMPTS = 3

# How late an occurrence may still run, unless its job says otherwise: half of the time to the
# next one, within these bounds. A minute job must survive one slow delivery; a yearly one must
# not surprise its owner in the middle of another day.
MIN_GRACE_US = 2 * MINUTE_US
MAX_GRACE_US = 2 * HOUR_US


class JobState(StrEnum):
    """Whether the schedule of a job is in force."""

    SCHEDULED = "scheduled"
    PAUSED = "paused"
    COMPLETED = "completed"


class OnInterrupt(StrEnum):
    """What becomes of a run whose process died: it is recorded, or started once more."""

    RECORD = "record"
    RETRY = "retry"


class Result(StrEnum):
    """How an occurrence ended. Every occurrence of an active job ends as exactly one of these."""

    COMPLETED = "completed"
    FAILED = "failed"
    MISSED = "missed"
    SKIPPED = "skipped"
    INTERRUPTED = "interrupted"


class Origin(StrEnum):
    """What caused a run: a fire from NAS, or the recovery that a starting process does."""

    SCHEDULE = "schedule"
    RECOVERY = "recovery"


class Liveness(StrEnum):
    """What a process knows of the one that owns a run.

    `ALIVE`: it is this process, and the run is in flight or its end is being stored. `DEAD`: it has
    ended, or it is this process and knows nothing of such a run. `UNKNOWN`: it is elsewhere, and its
    lease decides.
    """

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


class Verdict(StrEnum):
    """What a flow has to say of its job. The first six are the words that answer a fire."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    GONE = "gone"
    SKIPPED = "skipped"
    MISSED = "missed"
    STOPPED = "stopped"
    CHANGED = "changed"
    REFUSED = "refused"
    LOST = "lost"


@attrs.frozen(kw_only=True, cache_hash=True)
class Policy:
    """The choices of a job's owner.

    Attributes:
        on_interrupt: what becomes of a run whose process died.
        misfire_grace_us: how late an occurrence may still run, microseconds; None means half of
            the time to the next occurrence, at least `MIN_GRACE_US` and at most `MAX_GRACE_US`.
    """

    on_interrupt: OnInterrupt = OnInterrupt.RECORD
    misfire_grace_us: int | None = None


@attrs.frozen(kw_only=True, cache_hash=True)
class Run:
    """One attempt at one occurrence, claimed by one process.

    Attributes:
        occurrence_us: the scheduled instant; with the job's id, the identity of the occurrence.
        attempt: 1 for the first attempt.
        owner: names the process that claimed it; unique among all processes of all machines.
        claimed_us: when it was claimed, by the owner's clock.
        lease_until_us: until when the owner is believed without a renewal.
        origin: what caused the run.
    """

    occurrence_us: Instant
    attempt: int
    owner: str
    claimed_us: Instant
    lease_until_us: Instant
    origin: Origin = Origin.SCHEDULE

    def is_same_as(self, other: Run | None) -> bool:
        """Return whether *other* is this attempt, however often its lease was renewed."""
        return (
            other is not None
            and self.owner == other.owner
            and self.occurrence_us == other.occurrence_us
            and self.attempt == other.attempt
        )


@attrs.frozen(kw_only=True, cache_hash=True)
class Job:
    """What the scheduler knows of a job; everything else in its record belongs to the agent.

    Attributes:
        id: unique among the jobs of the store.
        schedule: when it is due.
        next_us: the earliest occurrence that has no outcome and no run yet; None when none is left.
        state: whether the schedule is in force.
        run: the run in flight, or None.
        times: after how many runs the schedule stops; None means never.
        completed: how many runs were consumed, whatever their result.
        revision: grows with every change. It orders the messages that NAS receives.
        policy: the owner's choices.
    """

    id: str
    schedule: Schedule
    next_us: Instant | None
    state: JobState = JobState.SCHEDULED
    run: Run | None = None
    times: int | None = None
    completed: int = 0
    revision: int = 0
    policy: Policy = Policy()


@attrs.frozen(kw_only=True)
class Outcome:
    """The end of an occurrence, or of a stretch of occurrences that ended alike.

    Attributes:
        job_id: whose.
        result: how it ended.
        reason: why, in words.
        occurrence_us: the scheduled instant; of a stretch, the first.
        last_occurrence_us: of a stretch, the last; otherwise the same.
        count: how many occurrences the stretch has.
        attempt: which attempt ended it; 0 when none was made.
        at_us: when this was decided.
    """

    job_id: str
    result: Result
    reason: str
    occurrence_us: Instant
    last_occurrence_us: Instant
    count: int = 1
    attempt: int = 0
    at_us: Instant


@attrs.frozen(kw_only=True)
class Move:
    """A change of one job, decided and not yet made.

    Attributes:
        job: the job as it shall stand in the store; None when it shall not stand there.
        verdict: what to tell whoever asked.
        reason: the same in words.
        outcomes: the occurrences that end with this change; stored together with the job.
        run: the run to start once the change is made, or None.
    """

    job: Job | None
    verdict: Verdict
    reason: str
    outcomes: tuple[Outcome, ...] = ()
    run: Run | None = None


def wake_at(job: Job) -> Instant | None:
    """Return the instant at which the agent must next be woken for *job*.

    The whole protocol converges the control plane toward this one value.

    Returns:
        Epoch microseconds, UTC, or None when the job needs no wake: it is paused, completed, or
        its only run is in progress and is not to be recovered. While a run that is to be retried
        is in flight, its guard counts too: the end of its lease, when other clocks agree that it
        is over. The guard fires only if the run died, since completion moves `wake_at` on.

    Source: design, "One idea"; invariant NO-LOST-REARM.
    """
    if job.state is not JobState.SCHEDULED:
        return None
    if job.run is None or job.policy.on_interrupt is OnInterrupt.RECORD:
        return job.next_us
    guard_us = job.run.lease_until_us + CLOCK_ALLOWANCE_US
    return guard_us if job.next_us is None else min(guard_us, job.next_us)


def grace_us(job: Job, occurrence_us: Instant) -> int:
    """Return how late *occurrence_us* of *job* may still run, microseconds."""
    if job.policy.misfire_grace_us is not None:
        return job.policy.misfire_grace_us
    if isinstance(job.schedule, Once):
        return MAX_GRACE_US
    following_us = next_after(job.schedule, occurrence_us)
    if following_us is None:
        return MAX_GRACE_US
    return max(MIN_GRACE_US, min(MAX_GRACE_US, (following_us - occurrence_us) // 2))
