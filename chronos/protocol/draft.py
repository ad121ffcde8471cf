"""A job while a transition is changing it: what may be done to it, step by step.

The transitions say what happens to a job; a draft keeps its books. An occurrence that leaves one of
the places where it may be (ahead, waiting, in flight) enters the next one or gets its outcome here,
so that none is lost and none is counted twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from chronos.jobs.due import following, passed
from chronos.jobs.instants import Instant, moment_or_none
from chronos.jobs.job import LEASE_US, Job, JobState, Move, Origin, Outcome, Result, Run, Verdict, Waiting
from chronos.jobs.policy import MAX_ATTEMPTS, MAX_IN_FLIGHT, OnInterrupt, Overlap
from chronos.jobs.schedule import Slots
from chronos.values import evolve

_NO_SLOTS = Slots(0, ())
_SPENT = "the job has started as often as it shall"


class Fired(Struct, frozen=True, kw_only=True, cache_hash=True):
    """How a fire came.

    Attributes:
        origin: `SCHEDULE` when NAS sent it, `RECOVERY` when nobody did.
        minted_us: when NAS made its token, by NAS's clock; None when that is not known.
        received_us: when it reached this process, by its clock; None when that is not known.
        was_jumped_over: whether the clock was set forward past it, so that it is not made up for.
    """

    origin: Origin = Origin.SCHEDULE
    minted_us: Instant | None = None
    received_us: Instant | None = None
    was_jumped_over: bool = False

    minted = moment_or_none()
    received = moment_or_none()


BY_NAS = Fired()
"""NAS sent it; nothing more is known."""


class Stretch(Struct, frozen=True):
    """Occurrences of a schedule that follow each other."""

    first_us: Instant
    last_us: Instant
    count: int


def joined(older: Stretch | None, newest: Sequence[Instant]) -> Stretch | None:
    """Return *older* and the occurrences after it as one stretch; None when there are none."""
    if not newest:
        return older
    first_us, count = (newest[0], 0) if older is None else (older.first_us, older.count)
    return Stretch(first_us, newest[-1], count + len(newest))


def ran_after(next_us: Instant | None, ran_us: Iterable[Instant]) -> tuple[Instant, ...]:
    """Return those of *ran_us* that a schedule which goes on at *next_us* still comes to, in order."""
    return () if next_us is None else tuple(sorted({at_us for at_us in ran_us if at_us > next_us}))


class Draft:
    """A job that is being changed; `move` returns what came of it.

    Args:
        job: as it is stored.
        now_us: the present instant.
    """

    __slots__ = (
        "completed",
        "job",
        "last_manual_us",
        "next_us",
        "note",
        "now_us",
        "outcomes",
        "runs",
        "schedule",
        "started",
        "state",
        "waiting",
    )

    def __init__(self, job: Job, now_us: Instant) -> None:
        self.job = job
        self.now_us = now_us
        self.schedule = job.schedule
        self.next_us = job.next_us
        self.state = job.state
        self.runs = job.runs
        self.waiting = job.waiting
        self.completed = job.completed
        self.note = job.note
        self.last_manual_us = job.last_manual_us
        self.outcomes: list[Outcome] = []
        self.started: tuple[Run, ...] = ()

    # --- what may be done ---

    def is_in_progress(self) -> bool:
        """Return whether an occurrence is between its claim and its outcome."""
        return bool(self.runs) or any(waiting.attempt > 1 for waiting in self.waiting)

    def has_room(self) -> bool:
        """Return whether one more occurrence may be taken, to start or to wait."""
        match self.job.policy.overlap:
            case Overlap.SKIP:
                return not self.runs and not self.waiting
            case Overlap.QUEUE:
                return all(waiting.attempt > 1 for waiting in self.waiting)
            case Overlap.ALLOW:
                return len(self.runs) + len(self.waiting) < MAX_IN_FLIGHT

    def is_free(self, waiting: Waiting) -> bool:
        """Return whether *waiting* waits for its time alone, and not for another occurrence."""
        if waiting not in self.waiting:
            return False
        if self.job.policy.overlap is Overlap.ALLOW:
            return len(self.runs) < MAX_IN_FLIGHT
        return not self.runs and waiting is self.waiting[0]

    def may_retry(self, run: Run, attempts: int) -> bool:
        """Return whether another attempt follows *run*: only while the schedule is in force."""
        return run.attempt < attempts and self.state is JobState.SCHEDULED

    def may_retry_interrupted(self, run: Run) -> bool:
        """Return whether another attempt follows *run*, whose process has ended."""
        is_retried = self.job.policy.on_interrupt is OnInterrupt.RETRY
        return is_retried and self.may_retry(run, max(MAX_ATTEMPTS, self.job.policy.attempts))

    # --- from the schedule ---

    def due(self, until_us: Instant, newest: int) -> tuple[Stretch | None, tuple[Instant, ...]]:
        """Take the occurrences up to *until_us* from the schedule, of which there is at least one.

        Returns:
            The *newest* ones, in order; and before them the others, which may be millions after an
            outage, as one stretch.
        """
        first_us = self.next_us
        assert first_us is not None
        second_us = following(self.job, first_us)
        if second_us is None or second_us > until_us:
            later = _NO_SLOTS  # nearly always
        else:
            # One more of them, which is the last of the others, if there are any.
            later = passed(self.job, first_us, until_us, newest + 1)
        known = (first_us, *later.newest)[-newest - 1 :]
        self.next_us = following(self.job, known[-1]) if later.count else second_us
        if later.count < newest:
            return None, known
        return Stretch(first_us, known[0], later.count + 1 - newest), known[1:]

    def take(self, occurrence_us: Instant, origin: Origin) -> None:
        """Let an occurrence wait for its first attempt, behind what waits already."""
        # What is due has come, whatever this clock says; what is asked for now need not wait for a
        # clock that is ahead of this one.
        is_asked_for = origin is Origin.MANUAL
        not_before_us = min(occurrence_us, self.now_us) if is_asked_for else occurrence_us
        taken = Waiting(occurrence_us=occurrence_us, attempt=1, not_before_us=not_before_us, origin=origin)
        self.waiting = (*self.waiting, taken)

    def end_stretch(self, stretch: Stretch | None, result: Result, reason: str) -> None:
        """Give occurrences that follow each other, and that nobody attempted, their outcome."""
        if stretch is not None:
            self.outcomes.append(
                Outcome(
                    job_id=self.job.id,
                    result=result,
                    reason=reason,
                    occurrence_us=stretch.first_us,
                    last_occurrence_us=stretch.last_us,
                    count=stretch.count,
                    at_us=self.now_us,
                )
            )

    def skip_due(self, job: Job, reason: str) -> None:
        """Skip what *job*, which is this one as it was, has due and not taken yet."""
        if job.state is not JobState.SCHEDULED or job.next_us is None or job.next_us > self.now_us:
            return
        before = Draft(job, self.now_us)
        older, newest = before.due(self.now_us, newest=1)
        self.end_stretch(joined(older, newest), Result.SKIPPED, reason)
        self.next_us = before.next_us

    # --- attempts ---

    def start(self, owner: str, horizon_us: Instant, fired: Fired) -> None:
        """Claim what waits and may start by *horizon_us*, in order, for the process *owner*."""
        for waiting in self.waiting:
            if waiting.not_before_us > horizon_us or not self.is_free(waiting):
                continue
            run = Run(
                occurrence_us=waiting.occurrence_us,
                attempt=waiting.attempt,
                owner=owner,
                claimed_us=self.now_us,
                # A clock that is behind must not make a lease that others take for over.
                lease_until_us=horizon_us + LEASE_US,
                origin=waiting.origin,
                minted_us=fired.minted_us,
                received_us=fired.received_us,
            )
            self.waiting = tuple(other for other in self.waiting if other is not waiting)
            self.runs = (*self.runs, run)
            self.started = (*self.started, run)
            self.close_if_spent()

    def hand_over(self) -> None:
        """Leave what waits to another process: it may start from now on."""
        self.waiting = tuple(
            evolve(waiting, not_before_us=max(waiting.not_before_us, self.now_us)) for waiting in self.waiting
        )

    def close_if_spent(self) -> None:
        """End the schedule once as many occurrences have begun as the job shall have."""
        times = self.job.times
        if times is None or self._begun() < times:
            return
        self.next_us = None
        for waiting in self.waiting:
            if waiting.attempt == 1 and waiting.origin is not Origin.MANUAL:
                self.drop(waiting, Result.SKIPPED, _SPENT)

    def _begun(self) -> int:
        """Return how many occurrences of the schedule were attempted."""
        in_flight = sum(run.origin is not Origin.MANUAL for run in self.runs)
        between = sum(waiting.attempt > 1 and waiting.origin is not Origin.MANUAL for waiting in self.waiting)
        return self.completed + in_flight + between

    def renew(self, run: Run, lease_until_us: Instant) -> None:
        """Extend the lease of *run*; a clock that is behind does not shorten it."""
        self.runs = tuple(
            evolve(other, lease_until_us=max(other.lease_until_us, lease_until_us))
            if other.is_same_as(run)
            else other
            for other in self.runs
        )

    def release(self, run: Run) -> Run:
        """Take *run* out of flight, and return it as it is stored."""
        stored = next(other for other in self.runs if other.is_same_as(run))
        self.runs = tuple(other for other in self.runs if other is not stored)
        return stored

    def wait_for_retry(self, run: Run, not_before_us: Instant) -> None:
        """Let the occurrence of *run* wait for its next attempt, before what was not begun."""
        again = Waiting(
            occurrence_us=run.occurrence_us,
            attempt=run.attempt + 1,
            not_before_us=not_before_us,
            origin=run.origin,
        )
        self.waiting = (again, *self.waiting)

    def end(self, run: Run, result: Result, reason: str) -> None:
        """Give the occurrence of *run*, which was released, its outcome."""
        self.completed += run.origin is not Origin.MANUAL
        self.outcomes.append(
            Outcome(
                job_id=self.job.id,
                result=result,
                reason=reason,
                occurrence_us=run.occurrence_us,
                last_occurrence_us=run.occurrence_us,
                attempt=run.attempt,
                at_us=self.now_us,
                origin=run.origin,
                minted_us=run.minted_us,
                received_us=run.received_us,
                claimed_us=run.claimed_us,
            )
        )

    def drop(self, waiting: Waiting, result: Result, reason: str) -> None:
        """End a waiting occurrence without another attempt; after an attempt it has failed all the same."""
        self.waiting = tuple(other for other in self.waiting if other is not waiting)
        was_attempted = waiting.attempt > 1
        so_far = f"; attempt {waiting.attempt - 1} did not succeed" if was_attempted else ""
        self.completed += was_attempted and waiting.origin is not Origin.MANUAL
        self.outcomes.append(
            Outcome(
                job_id=self.job.id,
                result=Result.FAILED if was_attempted else result,
                reason=reason + so_far,
                occurrence_us=waiting.occurrence_us,
                last_occurrence_us=waiting.occurrence_us,
                attempt=waiting.attempt - 1,
                at_us=self.now_us,
                origin=waiting.origin,
            )
        )

    def drop_waiting(self, reason: str) -> None:
        """End all that waits."""
        for waiting in self.waiting:
            self.drop(waiting, Result.SKIPPED, reason)

    # --- the result ---

    def move(self, verdict: Verdict, reason: str) -> Move:
        """Return the move from the job as it is stored to this draft; the same job when nothing changed."""
        job = self.job
        is_over = self.next_us is None and not self.runs and not self.waiting
        draft: dict[str, Any] = {
            "schedule": self.schedule,
            "next_us": self.next_us,
            "state": JobState.COMPLETED if is_over else self.state,
            "runs": self.runs,
            "waiting": self.waiting,
            "completed": self.completed,
            "note": self.note,
            "last_manual_us": self.last_manual_us,
            "ran_ahead_us": job.ran_ahead_us and ran_after(self.next_us, job.ran_ahead_us),
        }
        is_same = not (self.outcomes or self.started) and all(
            getattr(job, name) == draft[name] for name in draft
        )
        if is_same:
            return Move(job=job, verdict=verdict, reason=reason)
        return Move(
            job=evolve(job, revision=job.revision + 1, **draft),
            verdict=verdict,
            reason=reason,
            outcomes=tuple(self.outcomes),
            runs=self.started,
        )
