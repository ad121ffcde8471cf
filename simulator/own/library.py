"""What an agent of one's own asks of its environment, as generators: they yield what they wait for.

How it is waited for is decided where they are driven: by a greenlet, or by a coroutine.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol, TypeAlias, TypeVar

from msgspec import Struct

from chronos import events
from chronos.jobs.instants import Instant
from chronos.jobs.job import LEASE_US, Job, Move, Origin, Outcome, Run
from chronos.protocol.draft import Fired
from chronos.protocol.flow import decide
from chronos.protocol.flow_effects import (
    ArmAccepted,
    ArmFailed,
    ArmOutdated,
    ArmsListed,
    Event,
    JobLoaded,
    JobsLoaded,
    JobSwapped,
    ListArms,
    LoadJob,
    LoadJobs,
    StartRun,
    StoreFailed,
    SwapConflicted,
    SwapJob,
)
from chronos.protocol.flow_effects import Effect as FlowEffect
from chronos.protocol.intents import Finish, Fire, Intent, Renew, RunNow
from chronos.protocol.process_effects import IdentityRefused

T = TypeVar("T")

# Whatever stands in the store, when a record is saved over it.
ANYTHING: Any = object()


class Ask(Struct, frozen=True):
    """An effect at the store or at NAS; `within_us` bounds how long NAS may take, None for the store."""

    effect: FlowEffect
    within_us: int | None = None


class CallRun(Struct, frozen=True):
    """A run; comes back as whether it succeeded."""

    started: StartRun


class Wait(Struct, frozen=True):
    """Some time, microseconds."""

    for_us: int


Wanted: TypeAlias = Ask | CallRun | Wait
Asking: TypeAlias = Generator[Wanted, Any, T]


class NasError(ConnectionError):
    """NAS asks to be asked later.

    Attributes:
        retry_after: after how many seconds.
    """

    def __init__(self, text: str, retry_after: float) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class Activity(Struct, eq=False):
    """Something that goes on in a process.

    Attributes:
        intent: what it was begun for; None for a start, a change of the store, and what those have begun.
        claims: what it has claimed, by job.
        is_spawned: whether nobody waits for its answer.
    """

    intent: Intent | None
    claims: dict[str, tuple[Run, ...]]
    is_spawned: bool = False


class Process(Protocol):
    """What the library asks of the process that it is part of."""

    owner: str

    def wall_us(self) -> Instant:
        """Return what the machine's clock shows, epoch microseconds."""

    def activity(self) -> Activity:
        """Return what is going on."""

    def tell(self, event: events.Event) -> None:
        """Tell whoever looks on."""


class Library:
    """The calls of an agent.

    Args:
        process: whose.
    """

    def __init__(self, process: Process) -> None:
        self._process = process

    # --- the store ---

    def list_jobs(self) -> Asking[list[Job]]:
        """Return all jobs."""
        loaded = _stored((yield Ask(LoadJobs())), JobsLoaded)
        return [job for job, _ in loaded.jobs]

    def get_job(self, job_id: str) -> Asking[Job | None]:
        """Return a job, None when there is none."""
        return _stored((yield Ask(LoadJob(job_id))), JobLoaded).job

    def claim(self, job_id: str, fire_at_us: Instant | None) -> Asking[Job | None]:
        """Take what is due of a job; without an instant, by the machine's clock."""
        by_us = self._process.wall_us() if fire_at_us is None else fire_at_us
        move = yield from self.move(Fire(job_id=job_id, fire_at_us=by_us, fired=self._fired(job_id)))
        return self._claimed(job_id, move)

    def recover(self, job_id: str) -> Asking[Job | None]:
        """End the runs of processes that have ended, and take nothing."""
        now_us = self._process.wall_us()
        fired = Fired(origin=Origin.RECOVERY)
        move = yield from self.move(Fire(job_id=job_id, fire_at_us=now_us, fired=fired, may_start=False))
        return move.job

    def claim_now(self, job_id: str) -> Asking[Job | None]:
        """Take a run by hand."""
        intent = self._process.activity().intent
        asked_us = intent.asked_us if isinstance(intent, RunNow) and intent.job_id == job_id else None
        move = yield from self.move(RunNow(job_id=job_id, asked_us=asked_us))
        return self._claimed(job_id, move)

    def renew(self, job_id: str) -> Asking[bool]:
        """Extend the leases of what this activity has claimed; return whether it still owns all of it."""
        is_owner = True
        for run in tuple(self._process.activity().claims.get(job_id, ())):
            move = yield from self.move(Renew(job_id=job_id, run=run))
            is_owner = is_owner and move.job is not None and run.is_among(move.job.runs)
        return is_owner

    def complete(self, job_id: str, succeeded: bool) -> Asking[Job | None]:
        """End what this activity has claimed of a job, or its process has, or the record."""
        claims = self._process.activity().claims
        runs = claims.pop(job_id, ())
        if not runs:
            job = yield from self.get_job(job_id)
            runs = () if job is None else self._own(job) or job.runs
        following: Job | None = None
        for run in runs:
            finish = Finish(
                job_id=job_id, run=run, succeeded=succeeded, detail="" if succeeded else "it failed"
            )
            move = yield from self.move(finish)
            following = self._claimed(job_id, move) or following
        return following

    def save(self, job: Job, expected: Job | None, outcomes: tuple[Outcome, ...]) -> Asking[bool]:
        """Write a record, over anything or only over what is expected; return whether it was written."""
        while True:
            before = expected
            if expected is ANYTHING:
                before = yield from self.get_job(job.id)
            event = yield Ask(SwapJob(job_id=job.id, expected=before, replacement=job, outcomes=outcomes))
            if not isinstance(event, SwapConflicted):
                _stored(event, JobSwapped)
                self._tell(job.id, (), outcomes)
                return True
            if expected is not ANYTHING:
                return False

    def move(self, intent: Intent) -> Asking[Move]:
        """Change a job as the project's own agent would, in the store alone."""
        process, job_id = self._process, intent.job_id
        loaded: JobLoaded | SwapConflicted = _stored((yield Ask(LoadJob(job_id))), JobLoaded)
        while True:
            move = decide(intent, loaded, owner=process.owner, now_us=process.wall_us())
            if move.job == loaded.job:
                return move
            event = yield Ask(
                SwapJob(job_id=job_id, expected=loaded.job, replacement=move.job, outcomes=move.outcomes)
            )
            if not isinstance(event, SwapConflicted):
                _stored(event, JobSwapped)
                self._tell(job_id, move.runs, move.outcomes)
                return move
            loaded = event

    def _tell(self, job_id: str, runs: tuple[Run, ...], outcomes: tuple[Outcome, ...]) -> None:
        for outcome in outcomes:
            self._process.tell(events.OccurrenceEnded(job_id=job_id, outcome=outcome))
        for run in runs:
            self._process.tell(events.OccurrenceClaimed(job_id=job_id, run=run))

    def _claimed(self, job_id: str, move: Move) -> Job | None:
        """Note what a move has claimed; return the job when it has."""
        if not move.runs:
            return None
        self._process.activity().claims[job_id] = move.runs
        return move.job

    def _fired(self, job_id: str) -> Fired:
        intent = self._process.activity().intent
        if isinstance(intent, Fire) and intent.job_id == job_id:
            return intent.fired
        return Fired(origin=Origin.RECOVERY)

    def _own(self, job: Job) -> tuple[Run, ...]:
        return tuple(run for run in job.runs if run.owner == self._process.owner)

    # --- runs ---

    def run(self, job: Job) -> Asking[bool]:
        """Run what this activity has claimed of a job; or its process; or the record; or what nobody has."""
        claims = self._process.activity().claims.get(job.id)
        succeeded = True
        for run in claims or self._own(job) or job.runs or (self._unclaimed(job),):
            started = StartRun(job_id=job.id, run=run, confirm=False, data_json=job.data_json)
            succeeded = (yield CallRun(started)) and succeeded
        return succeeded

    def _unclaimed(self, job: Job) -> Run:
        now_us = self._process.wall_us()
        occurrence_us = now_us if job.next_us is None else job.next_us
        return Run(
            occurrence_us=occurrence_us,
            attempt=1,
            owner=self._process.owner,
            claimed_us=now_us,
            lease_until_us=now_us + LEASE_US,
        )

    # --- NAS ---

    def order(self, effect: FlowEffect, within_us: int) -> Asking[bool]:
        """Arm or disarm a job; return False where NAS has seen a newer revision."""
        event = _answered((yield Ask(effect, within_us)))
        if isinstance(event, ArmOutdated):
            return False
        assert isinstance(event, ArmAccepted)
        return True

    def list_armed(self, within_us: int) -> Asking[dict[str, Instant | None]]:
        """Return what is armed."""
        event = _answered((yield Ask(ListArms(), within_us)))
        assert isinstance(event, ArmsListed)
        return dict(event.arms)


def _stored(event: Event, kind: type[T]) -> T:
    """Return what the store has answered; raise `OSError` when it failed."""
    if isinstance(event, StoreFailed):
        raise OSError("the job store failed; it may have written all the same")
    assert isinstance(event, kind)
    return event


def _answered(event: Event) -> Event:
    """Return what NAS has answered; raise an `OSError` when it did not."""
    if isinstance(event, IdentityRefused):
        raise PermissionError(event.reason or "NAS refuses the agent's identity")
    if isinstance(event, ArmFailed) and event.retry_after_us:
        raise NasError(event.reason, event.retry_after_us / 1_000_000)
    if isinstance(event, ArmFailed):
        raise TimeoutError("NAS did not answer; it may have done it all the same")
    return event
