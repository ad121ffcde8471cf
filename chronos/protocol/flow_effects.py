"""The effects of a flow: requests to the store, to NAS and to its process; and the events that answer them.

A reconciliation asks in the same words.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TypeAlias

from msgspec import Struct

from chronos.jobs.data import NO_DATA
from chronos.jobs.instants import Instant, span
from chronos.jobs.job import Job, Liveness, Outcome, Run, Unreadable, Verdict
from chronos.protocol.intents import Intent

# --- What the shell performs ------------------------------------------------------------------


class LoadJob(Struct, frozen=True, cache_hash=True):
    """Read a job. Comes back as `JobLoaded`, `JobUnreadable` or `StoreFailed`."""

    job_id: str


class LoadHistory(Struct, frozen=True, cache_hash=True):
    """Read the outcomes that the store keeps of a job.

    Comes back as `HistoryLoaded`, `JobUnreadable` or `StoreFailed`.
    """

    job_id: str


class SwapJob(Struct, frozen=True, kw_only=True, cache_hash=True):
    """Store `replacement` and the outcomes, all or nothing, if the job still is `expected`.

    None stands for no such job. Comes back as `JobSwapped`, `SwapConflicted`, `JobUnreadable` or
    `StoreFailed`.
    """

    job_id: str
    expected: Job | None
    replacement: Job | None
    outcomes: tuple[Outcome, ...] = ()


class ProvisionArm(Struct, frozen=True, kw_only=True, cache_hash=True):
    """Arm the job at one instant. Comes back as `ArmAccepted`, `ArmOutdated` or `ArmFailed`."""

    job_id: str
    fire_at_us: Instant
    revision: int


class CancelArm(Struct, frozen=True, kw_only=True, cache_hash=True):
    """Disarm the job. Comes back like a provision."""

    job_id: str
    revision: int


class StartRun(Struct, frozen=True, kw_only=True, cache_hash=True):
    """Run the job; its end is a `Finish` with the same `confirm`. Nothing comes back to the flow.

    `time_limit_us` and `data_json` are those of the job as it starts: a later change is for a later run.
    A run that goes on for longer ends as `timed_out` says, whatever becomes of its runner.
    """

    job_id: str
    run: Run
    confirm: bool
    time_limit_us: int | None = None
    data_json: str = NO_DATA


class Answer(Struct, frozen=True, kw_only=True, cache_hash=True):
    """Answer the caller. `settled` says that the store and NAS agree: the caller need not ask again.

    A verdict of None means that the store could not be moved. `trouble` says what the store or NAS had
    against it, where that is known: it is for the agent's own people. `retry_after_us` says how long it
    is not to be asked; without a verdict, how long there is no use in asking this agent again.
    """

    job_id: str
    verdict: Verdict | None
    reason: str
    settled: bool
    job: Job | None = None
    trouble: str = ""
    retry_after_us: int = 0

    retry_after = span()


class ListArms(Struct, frozen=True):
    """Ask NAS what is armed. Comes back as `ArmsListed` or `ArmFailed`."""


class LoadJobs(Struct, frozen=True):
    """Read all jobs. Comes back as `JobsLoaded` or `StoreFailed`."""


class Begin(Struct, frozen=True, cache_hash=True):
    """Begin these flows, in any order. Nothing comes back to the reconciliation.

    `settled` says that all was seen that is armed and that the store wants; otherwise `trouble` says why not.
    """

    intents: tuple[Intent, ...]
    settled: bool
    trouble: str = ""


Effect: TypeAlias = (
    LoadJob
    | LoadHistory
    | SwapJob
    | ProvisionArm
    | CancelArm
    | StartRun
    | Answer
    | ListArms
    | LoadJobs
    | Begin
)


# --- What has happened ------------------------------------------------------------------------


class JobLoaded(Struct, frozen=True, cache_hash=True):
    """The job as stored, and what is known of the owner of each of its runs, in their order."""

    job: Job | None
    liveness: tuple[Liveness, ...] = ()


class JobUnreadable(Struct, frozen=True, cache_hash=True):
    """The record of the job cannot be read, and nothing was changed; `reason` says what is wrong with it."""

    reason: str


class HistoryLoaded(Struct, frozen=True, cache_hash=True):
    """The outcomes that the store keeps of the job, the oldest first."""

    outcomes: tuple[Outcome, ...]


class JobSwapped(Struct, frozen=True):
    """The store moved."""


class SwapConflicted(Struct, frozen=True, cache_hash=True):
    """The store did not move: another process changed the job, and here it is."""

    job: Job | None
    liveness: tuple[Liveness, ...] = ()


class StoreFailed(Struct, frozen=True):
    """The store answered with an error, `reason`; a write may have happened all the same."""

    reason: str = ""


class ArmAccepted(Struct, frozen=True, cache_hash=True):
    """NAS agrees. `echoed` says that it repeated the revision: it keeps the promises of contract 1.1.

    `date_us` is NAS's time when it answered, here as in the other answers; None when it did not say.
    """

    echoed: bool
    date_us: Instant | None = None


class ArmOutdated(Struct, frozen=True, cache_hash=True):
    """NAS has seen a newer revision of this job, and names it. Nothing was armed or cancelled."""

    revision: int
    date_us: Instant | None = None


class ArmFailed(Struct, frozen=True, cache_hash=True):
    """NAS refused, was not reached or did not answer; the effect may have happened all the same.

    `reason` says what became of it, in words, and `retry_after_us` how long NAS is not to be asked.
    """

    reason: str = ""
    retry_after_us: int = 0
    date_us: Instant | None = None


class ArmsListed(Struct, frozen=True):
    """What NAS has armed: the instant of each job, None when NAS's text for it is no instant."""

    arms: Mapping[str, Instant | None]
    date_us: Instant | None = None


class JobsLoaded(Struct, frozen=True):
    """All jobs as stored, each with what is known of the owners of its runs.

    `converging` names the jobs on which this process began a flow after it asked for the arms: such
    a flow makes NAS agree by itself, and what the list says of its job is old. `unreadable` are the
    records that are no jobs, found in the same reading.
    """

    jobs: Iterable[tuple[Job, tuple[Liveness, ...]]]
    converging: Container[str] = ()
    unreadable: Sequence[Unreadable] = ()


Event: TypeAlias = (
    JobLoaded
    | HistoryLoaded
    | JobUnreadable
    | JobSwapped
    | SwapConflicted
    | StoreFailed
    | ArmAccepted
    | ArmOutdated
    | ArmFailed
    | ArmsListed
    | JobsLoaded
)
