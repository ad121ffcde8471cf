"""The durable record of a job, and what is decided of it.

All of it is values; how they may change is decided in `chronos.protocol.transitions` and `job_changes`.

Instants and durations are integers, microseconds (`_us`); instants count from the epoch, UTC.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any

import attrs
from msgspec import Struct

from chronos.jobs.data import NO_DATA, check_json, value_of
from chronos.jobs.instants import (
    SECOND_US,
    Instant,
    datetime_of,
    moment,
    moment_or_none,
    span,
    span_or_none,
)
from chronos.jobs.policy import Policy
from chronos.jobs.schedule import Schedule

# The contract's lease. A run renews it while it is in flight, every third of it (two renewals
# may fail before the lease is over).
LEASE_US = 300 * SECOND_US
RENEW_EVERY_US = LEASE_US // 3

# How far the clocks of two machines may be apart. The contract allows a fire token as much.
CLOCK_ALLOWANCE_US = 30 * SECOND_US


class JobState(StrEnum):
    """Whether the schedule of a job is in force."""

    SCHEDULED = "scheduled"
    PAUSED = "paused"
    COMPLETED = "completed"


class Result(StrEnum):
    """How an occurrence ended. Every occurrence of an active job ends as exactly one of these."""

    COMPLETED = "completed"
    FAILED = "failed"
    MISSED = "missed"
    SKIPPED = "skipped"
    INTERRUPTED = "interrupted"


class Origin(StrEnum):
    """Why an occurrence runs.

    `SCHEDULE`: NAS's fire came in time. `CATCH_UP`: it came late, or a later occurrence was due as
    well. `RECOVERY`: no fire came, and a starting process found it overdue. `MANUAL`: somebody asked
    for a run now; it has an identity of its own and takes no slot of the schedule. A later attempt
    keeps the origin of the first.
    """

    SCHEDULE = "schedule"
    CATCH_UP = "catch-up"
    RECOVERY = "recovery"
    MANUAL = "manual"


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
    """What a flow has to say of its job. The first six are the words that answer a fire for good."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    GONE = "gone"
    SKIPPED = "skipped"
    MISSED = "missed"
    STOPPED = "stopped"
    EARLY = "early"
    CHANGED = "changed"
    REFUSED = "refused"
    LOST = "lost"


def is_data(_: object, _field: attrs.Attribute[Any], value: str) -> None:
    """Check a field that is what a job carries, as text."""
    check_json(value)


class Run(Struct, frozen=True, kw_only=True, cache_hash=True):
    """One attempt at one occurrence, claimed by one process.

    Attributes:
        occurrence_us: the scheduled instant, or when a manual run was asked for.
        attempt: 1 for the first attempt.
        owner: names the process that claimed it; unique among all processes of all machines.
        claimed_us: when it was claimed, by the owner's clock.
        lease_until_us: until when the owner is believed without a renewal.
        origin: why the occurrence runs.
        minted_us: when NAS made the token of the fire that claimed it; None when no fire did.
        received_us: when that fire reached the process, by its clock; None when no fire did.
    """

    occurrence_us: Instant
    attempt: int
    owner: str
    claimed_us: Instant
    lease_until_us: Instant
    origin: Origin = Origin.SCHEDULE
    minted_us: Instant | None = None
    received_us: Instant | None = None

    occurrence = moment()
    claimed = moment()
    lease_until = moment()
    minted = moment_or_none()
    received = moment_or_none()

    @property
    def identity(self) -> tuple[bool, Instant]:
        """Which occurrence it is, among all of its job: manual or not, and its instant."""
        return (self.origin is Origin.MANUAL, self.occurrence_us)

    @property
    def key(self) -> tuple[object, ...]:
        """What all values of this attempt have in common, however often its lease was renewed.

        Of two jobs that had one id after each other, both may have a run by hand that was asked for
        with one request: what tells those apart is when they were claimed.
        """
        return (self.owner, self.claimed_us, self.attempt, *self.identity)

    def is_same_as(self, other: Run) -> bool:
        """Return whether *other* is this attempt."""
        return self is other or self.key == other.key

    def is_among(self, runs: Iterable[Run]) -> bool:
        """Return whether this attempt is one of *runs*."""
        return any(self.is_same_as(run) for run in runs)


class Waiting(Struct, frozen=True, kw_only=True, cache_hash=True):
    """An occurrence that was taken from the schedule, or asked for, and waits for an attempt.

    Attributes:
        occurrence_us: as of a `Run`.
        attempt: which attempt it waits for; 1 when none was made yet.
        not_before_us: when that may start at the earliest.
        origin: why the occurrence runs.
    """

    occurrence_us: Instant
    attempt: int
    not_before_us: Instant
    origin: Origin

    occurrence = moment()
    not_before = moment()

    @property
    def identity(self) -> tuple[bool, Instant]:
        """Which occurrence it is, as of a `Run`."""
        return (self.origin is Origin.MANUAL, self.occurrence_us)


class Job(Struct, frozen=True, kw_only=True, cache_hash=True):
    """What the scheduler knows of a job; everything else in its record belongs to the agent.

    An occurrence is ahead (`next_us` and later), waits (`waiting`), is in flight (`runs`) or has an
    outcome, and goes through these in this order.

    Attributes:
        id: unique among the jobs of the store.
        schedule: when it is due.
        next_us: the earliest occurrence that nobody has taken yet; None when none is left.
        state: whether the schedule is in force.
        runs: the runs in flight; more than one only where they may overlap.
        waiting: the occurrences that wait, in the order in which they start.
        times: after how many occurrences the schedule stops; None means never. Manual runs do not count.
        completed: how many of those have ended after at least one attempt, whatever their result.
        revision: grows with every change. It orders the messages that NAS receives, also those of an
            earlier life of the job under the same id: a life begins with the time of its creation.
        policy: the owner's choices.
        note: why it is paused, in its owner's words.
        last_manual_us: the identity of the last manual run, so that a repeated request does not run twice.
        ran_ahead_us: occurrences after `next_us` that have run already, while a clock was ahead; the
            schedule passes them over, and they have no second outcome.
        declared: that the agent has declared it, and how where its schedule does not tell
            (`chronos.jobs.schedule.declared_as`); empty for a job that was not declared.
        data_json: what it carries for its runner, as the one text of a JSON value (`chronos.jobs.data`).

    Raises:
        DataError: `data_json` is no such text.
    """

    id: str
    schedule: Schedule
    next_us: Instant | None
    state: JobState = JobState.SCHEDULED
    runs: tuple[Run, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    times: int | None = None
    completed: int = 0
    revision: int = 0
    policy: Policy = Policy()
    note: str = ""
    last_manual_us: Instant | None = None
    ran_ahead_us: tuple[Instant, ...] = ()
    data_json: str = NO_DATA
    declared: str = ""

    def __post_init__(self) -> None:
        if self.data_json is not NO_DATA:
            check_json(self.data_json)

    @property
    def data(self) -> Any:
        """What the job carries for its runner, None when that is nothing; a new value each time."""
        return value_of(self.data_json)

    @property
    def ran_ahead(self) -> tuple[datetime, ...]:
        """What ran while a clock was ahead, as aware datetimes in UTC."""
        return tuple(map(datetime_of, self.ran_ahead_us))

    next = moment_or_none()
    last_manual = moment_or_none()


class Unreadable(Struct, frozen=True, kw_only=True):
    """A record of the store that cannot be read. It stays as it is, and so does its arm, until it is mended.

    Attributes:
        id: the id of its job; None when that cannot be read either.
        source: where it is: the name of a file or of a table.
        place: which record it is: the id, or `#2` for the one at index 2 when it has none.
        field: the path of the field that is at fault, such as `schedule.expr`; None for the whole.
        problem: what was found and what was expected.
    """

    id: str | None
    source: str
    place: str
    field: str | None
    problem: str


class Outcome(Struct, frozen=True, kw_only=True):
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
        origin: why it ran, or would have.
        minted_us: as of the run that ended.
        received_us: as of the run that ended.
        claimed_us: when the last attempt was claimed; None when none was made.
    """

    job_id: str
    result: Result
    reason: str
    occurrence_us: Instant
    last_occurrence_us: Instant
    count: int = 1
    attempt: int = 0
    at_us: Instant
    origin: Origin = Origin.SCHEDULE
    minted_us: Instant | None = None
    received_us: Instant | None = None
    claimed_us: Instant | None = None

    occurrence = moment()
    last_occurrence = moment()
    at = moment()
    minted = moment_or_none()
    received = moment_or_none()
    claimed = moment_or_none()


class Lateness(Struct, frozen=True, kw_only=True):
    """How late an occurrence was claimed, in all and by hop, microseconds.

    Attributes:
        total_us: from the scheduled instant to the claim.
        relay_us: to the token that NAS made for the delivery: the external scheduler and the relay.
        wake_us: from there to the arrival at the process: the way, and the start of the machine.
        claim_us: from there to the claim.

    A hop is None when no fire told its end, as in a recovery. The clocks of two machines differ: a
    hop between them may come out negative.
    """

    total_us: int
    relay_us: int | None = None
    wake_us: int | None = None
    claim_us: int | None = None

    total = span()
    relay = span_or_none()
    wake = span_or_none()
    claim = span_or_none()


def lateness(outcome: Outcome) -> Lateness | None:
    """Return how late the occurrence of *outcome* was claimed; None when no first attempt was ended by it.

    Raises:
        TypeError: it is no `Outcome`.
    """
    if not isinstance(outcome, Outcome):
        raise TypeError(f"outcome is {outcome!r}; expected an Outcome")
    if outcome.attempt != 1 or outcome.claimed_us is None:
        return None
    due_us, minted_us, received_us = outcome.occurrence_us, outcome.minted_us, outcome.received_us
    return Lateness(
        total_us=outcome.claimed_us - due_us,
        relay_us=None if minted_us is None else minted_us - due_us,
        wake_us=None if minted_us is None or received_us is None else received_us - minted_us,
        claim_us=None if received_us is None else outcome.claimed_us - received_us,
    )


class Move(Struct, frozen=True, kw_only=True):
    """A change of one job, decided and not yet made.

    Attributes:
        job: the job as it shall stand in the store; None when it shall not stand there.
        verdict: what to tell whoever asked.
        reason: the same in words.
        outcomes: the occurrences that end with this change; stored together with the job.
        runs: the runs to start once the change is made.
    """

    job: Job | None
    verdict: Verdict
    reason: str
    outcomes: tuple[Outcome, ...] = ()
    runs: tuple[Run, ...] = ()
