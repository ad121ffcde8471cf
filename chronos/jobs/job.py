"""The durable record of a job, and the one question that the protocol asks of it: `wake_at`.

All of it is values; how they may change is decided in `chronos.protocol.transitions`.

Instants and durations are integers, microseconds (`_us`); instants count from the epoch, UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

import attrs

from chronos.errors import ScheduleError
from chronos.jobs.data import NO_DATA, check_json, value_of
from chronos.jobs.instants import (
    DAY_US,
    HOUR_US,
    LONGEST_US,
    MINUTE_US,
    SECOND_US,
    Instant,
    datetime_of,
    duration_of,
    format_instant,
    instant_of,
    moment,
    moment_or_none,
    span,
    span_or_none,
    whole_second,
)
from chronos.jobs.schedule import Once, Schedule, Slots, newest, next_after

# The contract's lease. A run renews it while it is in flight, every third of it (two renewals
# may fail before the lease is over).
LEASE_US = 300 * SECOND_US
RENEW_EVERY_US = LEASE_US // 3

# How far the clocks of two machines may be apart. The contract allows a fire token as much.
CLOCK_ALLOWANCE_US = 30 * SECOND_US

# A run that is retried after an interruption starts at most this often in all: a job that kills
# its machine must not do so for ever.
MAX_ATTEMPTS = 3

# How many occurrences of a job may be in flight at once where they may overlap. A record is read and
# written with every claim: it must stay small, also when no run ever ends.
MAX_IN_FLIGHT = 10

# The most that a job may ask to be caught up after an outage. They wait in its record.
MAX_CATCH_UP = 100

# What failed a moment ago mostly fails again; a minute lets a restarted service come up.
_RETRY_DELAY_US, _RETRY_MAX_DELAY_US = MINUTE_US, HOUR_US

# Whoever retries after a year has forgotten what.
MAX_RETRY_DELAY_US = 366 * DAY_US

# A run that may last for longer than a year has no limit.
MAX_TIME_LIMIT_US = 366 * DAY_US

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


class CatchUp(StrEnum):
    """What becomes of occurrences that are found later than the misfire grace allows.

    `SKIP`: they are missed. `ONCE`: the newest of them runs, the older ones are missed. `ALL`: each
    of them runs, from the oldest on, as many as `Policy.catch_up_limit` allows: one after another,
    unless they may overlap.
    """

    SKIP = "skip"
    ONCE = "once"
    ALL = "all"


class Overlap(StrEnum):
    """What becomes of an occurrence that is due while an earlier one is in progress.

    An occurrence is in progress from its claim to its outcome, the time between two attempts
    included. `SKIP`: the new one is skipped. `QUEUE`: it waits, if nothing waits yet, and is skipped
    otherwise. `ALLOW`: it starts, up to `MAX_IN_FLIGHT` in all.
    """

    SKIP = "skip"
    QUEUE = "queue"
    ALLOW = "allow"


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


def at_least(smallest: int) -> Callable[[object, attrs.Attribute[Any], int], None]:
    """Return the validator of a field that is a whole number of at least *smallest*."""

    def check(_: object, field: attrs.Attribute[Any], value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
            raise ScheduleError(f"{field.name} is {value!r}; expected a whole number of at least {smallest}")

    return check


def _instant(_: object, field: attrs.Attribute[Any], value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ScheduleError(f"{field.name} is {value!r}; expected whole microseconds since the epoch")
    format_instant(value)  # an instant that no message can name is none


def is_data(_: object, _field: attrs.Attribute[Any], value: str) -> None:
    """Check a field that is what a job carries, as text."""
    check_json(value)


W = TypeVar("W", bound=StrEnum)


def _word(value: W | str, words: type[W]) -> W:
    """Return *value* as one of *words*."""
    try:
        return words(value)
    except ValueError:
        raise ScheduleError(f"{value!r} is no {words.__name__}; expected {', '.join(words)}") from None


def _catch_up(value: CatchUp | str) -> CatchUp:
    return _word(value, CatchUp)


def _overlap(value: Overlap | str) -> Overlap:
    return _word(value, Overlap)


def _on_interrupt(value: OnInterrupt | str) -> OnInterrupt:
    return _word(value, OnInterrupt)


@attrs.frozen(kw_only=True, init=False)
class Policy:
    """The choices of a job's owner.

    A duration is also given as a `timedelta`, by the name without `_us`, and an instant as an aware
    `datetime`: `Policy(retry_delay=timedelta(minutes=5), ends=datetime(2027, 1, 1, tzinfo=UTC))`.

    Attributes:
        misfire_grace_us: how late an occurrence may still run as if it were in time, microseconds;
            None means half of the time to the next occurrence, at least `MIN_GRACE_US` and at most
            `MAX_GRACE_US`.
        catch_up: what becomes of occurrences that are later than that.
        catch_up_limit: how many are caught up with `CatchUp.ALL`, the newest; 1 to `MAX_CATCH_UP`.
        overlap: what becomes of an occurrence that is due while an earlier one is in progress.
        on_interrupt: what becomes of a run whose process died; it starts `MAX_ATTEMPTS` times at most.
        attempts: how often an occurrence whose run fails is attempted in all; 1 means no retry.
        retry_delay_us: what the second attempt waits after the first, microseconds; each later one
            waits twice as long as the one before. Of each wait, a random half is left out at most,
            so that jobs that failed together do not come back together.
        retry_max_delay_us: no wait is longer, microseconds.
        time_limit_us: how long each attempt may run, microseconds; one that goes on is failed. None for
            no limit.
        starts_us: no occurrence before this instant; None for no such bound.
        ends_us: no occurrence after this instant; None for no such bound.

    Raises:
        ScheduleError: a number is out of its range, or the bounds leave no time.
    """

    misfire_grace_us: int | None = attrs.field(default=None, validator=attrs.validators.optional(at_least(0)))
    catch_up: CatchUp = attrs.field(default=CatchUp.SKIP, converter=_catch_up)
    catch_up_limit: int = attrs.field(default=10, validator=at_least(1))
    overlap: Overlap = attrs.field(default=Overlap.SKIP, converter=_overlap)
    on_interrupt: OnInterrupt = attrs.field(default=OnInterrupt.RECORD, converter=_on_interrupt)
    attempts: int = attrs.field(default=1, validator=at_least(1))
    retry_delay_us: int = attrs.field(default=_RETRY_DELAY_US, validator=at_least(1))
    retry_max_delay_us: int = attrs.field(default=_RETRY_MAX_DELAY_US, validator=at_least(1))
    time_limit_us: int | None = attrs.field(default=None, validator=attrs.validators.optional(at_least(1)))
    starts_us: Instant | None = attrs.field(default=None, validator=attrs.validators.optional(_instant))
    ends_us: Instant | None = attrs.field(default=None, validator=attrs.validators.optional(_instant))

    def __init__(
        self,
        *,
        misfire_grace: timedelta | None = None,
        misfire_grace_us: int | None = None,
        catch_up: CatchUp | str = CatchUp.SKIP,
        catch_up_limit: int = 10,
        overlap: Overlap | str = Overlap.SKIP,
        on_interrupt: OnInterrupt | str = OnInterrupt.RECORD,
        attempts: int = 1,
        retry_delay: timedelta | None = None,
        retry_delay_us: int | None = None,
        retry_max_delay: timedelta | None = None,
        retry_max_delay_us: int | None = None,
        time_limit: timedelta | None = None,
        time_limit_us: int | None = None,
        starts: datetime | None = None,
        starts_us: Instant | None = None,
        ends: datetime | None = None,
        ends_us: Instant | None = None,
    ) -> None:
        delay_us = duration_of("retry_delay", retry_delay, retry_delay_us, least_us=1)
        max_delay_us = duration_of("retry_max_delay", retry_max_delay, retry_max_delay_us, least_us=1)
        self.__attrs_init__(
            misfire_grace_us=duration_of("misfire_grace", misfire_grace, misfire_grace_us),
            catch_up=catch_up,
            catch_up_limit=catch_up_limit,
            overlap=overlap,
            on_interrupt=on_interrupt,
            attempts=attempts,
            retry_delay_us=_RETRY_DELAY_US if delay_us is None else delay_us,
            retry_max_delay_us=_RETRY_MAX_DELAY_US if max_delay_us is None else max_delay_us,
            time_limit_us=duration_of("time_limit", time_limit, time_limit_us, least_us=1),
            starts_us=instant_of("starts", starts, starts_us),
            ends_us=instant_of("ends", ends, ends_us),
        )

    misfire_grace = span_or_none()
    retry_delay = span()
    retry_max_delay = span()
    time_limit = span_or_none()
    starts = moment_or_none()
    ends = moment_or_none()

    def __attrs_post_init__(self) -> None:
        if self.misfire_grace_us is not None and self.misfire_grace_us > LONGEST_US:
            raise ScheduleError(f"misfire_grace_us is {self.misfire_grace_us}; expected at most {LONGEST_US}")
        if max(self.retry_delay_us, self.retry_max_delay_us) > MAX_RETRY_DELAY_US:
            raise ScheduleError(f"a retry waits longer than a year; expected at most {MAX_RETRY_DELAY_US} us")
        if self.time_limit_us is not None and self.time_limit_us > MAX_TIME_LIMIT_US:
            raise ScheduleError(f"time_limit_us is longer than a year; expected at most {MAX_TIME_LIMIT_US}")
        if self.catch_up_limit > MAX_CATCH_UP:
            raise ScheduleError(f"catch_up_limit is {self.catch_up_limit}; expected at most {MAX_CATCH_UP}")
        if self.starts_us is not None and self.ends_us is not None and self.ends_us < self.starts_us:
            between = f"{format_instant(self.starts_us)} to {format_instant(self.ends_us)}"
            raise ScheduleError(f"the job ends before it starts: {between}")


@attrs.frozen(kw_only=True, cache_hash=True)
class Run:
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
        return self.key == other.key

    def is_among(self, runs: Iterable[Run]) -> bool:
        """Return whether this attempt is one of *runs*."""
        return any(self.is_same_as(run) for run in runs)


@attrs.frozen(kw_only=True, cache_hash=True)
class Waiting:
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


@attrs.frozen(kw_only=True, cache_hash=True)
class Job:
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
    data_json: str = attrs.field(default=NO_DATA, validator=is_data)
    declared: str = ""

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


@attrs.frozen(kw_only=True)
class Unreadable:
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


@attrs.frozen(kw_only=True)
class Lateness:
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


@attrs.frozen(kw_only=True)
class Move:
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
    for waiting in startable(job):
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
    if not job.waiting:
        return ()
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
