"""How the effects of the protocol are asked of a store and of NAS, and what comes back.

Nothing is decided here, and nothing is raised by an effect: whatever goes wrong is an event.
A scheduler calls what `question` or `request` returns, in its own way, and hands the result to `event_of`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, TypeVar

from msgspec import Struct

from chronos.agent.runner import words_of
from chronos.errors import InvalidClient, JobsFileError, StaleRevision, StoreError, one_line
from chronos.jobs.instants import SECOND_US, Instant
from chronos.jobs.job import Job, Liveness
from chronos.protocol import flow as flows
from chronos.protocol.flow_effects import (
    ArmAccepted,
    ArmFailed,
    ArmOutdated,
    ArmsListed,
    CancelArm,
    Effect,
    Event,
    HistoryLoaded,
    JobLoaded,
    JobsLoaded,
    JobSwapped,
    JobUnreadable,
    ListArms,
    LoadHistory,
    LoadJob,
    LoadJobs,
    ProvisionArm,
    StoreFailed,
    SwapConflicted,
    SwapJob,
)
from chronos.protocol.process_effects import IdentityRefused
from chronos.stores import JobStore, told_apart

logger = logging.getLogger("chronos.scheduler")

T = TypeVar("T")


class Failed(Struct, frozen=True):
    """What was asked raised an exception."""

    error: BaseException


def question(effect: Effect, store: JobStore) -> Callable[[], Any] | None:
    """Return the call by which *effect* asks the store, or None when it does not."""
    match effect:
        case LoadJob(job_id):
            return lambda: store.load(job_id)
        case LoadHistory(job_id):
            return lambda: store.history(job_id)
        case LoadJobs():
            return store.load_all
        case SwapJob():
            return lambda: _swap(effect, store)
    return None


def request(effect: Effect, nas: Any, within_s: float | None) -> Any:
    """Ask NAS for *effect*: the answer, or something to await that leads to it.

    Args:
        effect: an arm, a cancel or a list.
        nas: a client, sync (`Nas`) or async (`AsyncNas`).
        within_s: how long it may take, in all, seconds; None for no bound but the client's own.

    Raises:
        NasError: as the client does.
        ProtocolError: nothing comes back to such an effect.
    """
    match effect:
        case ProvisionArm(job_id=job_id, fire_at_us=fire_at_us, revision=revision):
            return nas.provision(job_id, fire_at_us, revision=revision, within_s=within_s)
        case CancelArm(job_id=job_id, revision=revision):
            return nas.cancel(job_id, revision=revision, within_s=within_s)
        case ListArms():
            return nas.list_arms(within_s=within_s)
    raise flows.ProtocolError(f"nothing comes back to {effect}")


def event_of(effect: Effect, result: Any, is_dead: Callable[[str], bool]) -> Event:
    """Return what happened.

    Args:
        effect: what was asked.
        result: what came back, or `Failed`.
        is_dead: tells whether the process behind an owner's name has definitely ended.
    """

    def owners(job: Job | None) -> tuple[Liveness, ...]:
        runs = () if job is None else job.runs
        return tuple(Liveness.DEAD if is_dead(run.owner) else Liveness.UNKNOWN for run in runs)

    match effect, result:
        case ((ProvisionArm() | CancelArm() | ListArms()), Failed(error)):
            return _refusal(effect, error)
        case ListArms(), _:
            return ArmsListed(result, _date_us(result))
        case ((ProvisionArm() | CancelArm()), _):
            return ArmAccepted(echoed=result.echoed, date_us=_date_us(result))
        case (
            (LoadJob() | LoadHistory() | SwapJob()),
            Failed(JobsFileError(job=str()) as error),
        ):
            return JobUnreadable(str(error))
        case _, Failed(error):
            _log_store(error)
            return StoreFailed(one_line(words_of(error)))
        case LoadJob(), _:
            return JobLoaded(result, owners(result))
        case LoadHistory(), _:
            return HistoryLoaded(tuple(result))
        case LoadJobs(), _:
            jobs, unreadable = told_apart(result)
            return JobsLoaded([(job, owners(job)) for job in jobs], unreadable=unreadable)
        case SwapJob(), (has_moved, job):
            return JobSwapped() if has_moved else SwapConflicted(job, owners(job))
    raise flows.ProtocolError(f"nothing comes back to {effect}")


def _date_us(answer: object) -> Instant | None:
    """Return NAS's time when it answered, where a client has handed it on."""
    date_us: Instant | None = getattr(answer, "date_us", None)
    return date_us


def read(ask: Callable[[JobStore], T], store: JobStore) -> T:
    """Return what *ask* finds in the store, for a caller who is told of errors.

    Raises:
        StoreError: the store could not be read, whatever it raised.
        JobsFileError: the store holds what cannot be read.
    """
    try:
        return ask(store)
    except (StoreError, JobsFileError, KeyboardInterrupt):
        raise
    except BaseException as error:  # no future can hold every exception, and no loop outlives all
        raise StoreError(f"the job store failed: {words_of(error)}", definite=True) from error


def _swap(effect: SwapJob, store: JobStore) -> tuple[bool, Job | None]:
    """Return whether the store moved, and the job as another process left it if not."""
    has_moved = store.swap(
        effect.job_id, expected=effect.expected, replacement=effect.replacement, outcomes=effect.outcomes
    )
    return has_moved, None if has_moved else store.load(effect.job_id)


def _refusal(effect: Effect, error: BaseException) -> Event:
    match error:
        case StaleRevision(revision=revision):
            return ArmOutdated(revision, _date_us(error))
        case InvalidClient():
            return IdentityRefused(words_of(error), date_us=_date_us(error))
    job_id, failed = getattr(effect, "job_id", ""), failure_of(error)
    extra = {"job_id": job_id, "error": failed.reason}
    logger.warning("NAS did not agree: %s: %s", job_id or "the list of arms", failed.reason, extra=extra)
    return failed


def failure_of(error: BaseException) -> ArmFailed:
    """Return what NAS's failure means to a process; a wait is rounded up, lest it ends before its time."""
    retry_after_s = getattr(error, "retry_after_s", None) or 0.0
    return ArmFailed(words_of(error), math.ceil(retry_after_s * SECOND_US), _date_us(error))


def _log_store(error: BaseException) -> None:
    if isinstance(error, StoreError | JobsFileError):
        logger.error("the job store failed: %s", error)
    else:  # a store that fails in a way nobody thought of has failed
        logger.error("the job store failed", exc_info=error)
