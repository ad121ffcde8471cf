"""What runs a job, and how it is called: sync or async, and whatever becomes of it, with an answer."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, TypeAlias

import attrs

from chronos.agent import telemetry
from chronos.agent.calls import in_own_thread
from chronos.jobs.instants import Instant, format_instant, moment
from chronos.jobs.job import Origin

logger = logging.getLogger("chronos.scheduler")

# The text of a failed run goes into the job's history, which is kept whole.
MAX_DETAIL_LENGTH = 1000


class TimedOut(threading.Event):
    """Set once the time of a run is over; a runner that blocks looks at it, or waits for it.

    A copy in another process is not told.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_over: Future[None] = Future()

    def __reduce__(self) -> tuple[Any, ...]:
        return TimedOut, ()

    def set(self) -> None:
        """Let the time be over."""
        super().set()
        with suppress(InvalidStateError):
            self._is_over.set_result(None)

    def call(self, function: Callable[[], object]) -> None:
        """Call *function* once the time is over, in the thread that says so; at once if it is already."""
        self._is_over.add_done_callback(lambda _: function())


@attrs.frozen(kw_only=True)
class RunContext:
    """What a runner is told.

    Attributes:
        job_id: which job to run.
        occurrence_us: the scheduled instant, epoch microseconds, UTC; with the job's id, the identity
            of the occurrence, for whoever must do something once for each.
        attempt: 1, or more when an earlier attempt failed or was interrupted.
        origin: why the occurrence runs; of a manual run, `occurrence_us` is when it was asked for.
        data: what the job carries, as it stood when the run began; the runner's own, to change as it likes.
        deadline_s: when the time of the run is over, by `time.monotonic()`, seconds; None for no limit.
        timed_out: set when it is over. An async runner is cancelled then. One that blocks is not, and ends
            by itself: it waits with `timed_out.wait(seconds)`, or looks at `timed_out.is_set()`.
    """

    job_id: str
    occurrence_us: Instant
    attempt: int
    origin: Origin = Origin.SCHEDULE
    data: Any = attrs.field(default=None, hash=False)
    deadline_s: float | None = None
    timed_out: TimedOut = attrs.field(factory=TimedOut, eq=False, repr=False)

    occurrence = moment()


Runner: TypeAlias = Callable[[RunContext], "Awaitable[object] | object"]
"""Runs a job, sync (in a thread of its own) or async. An exception fails the run, with its text."""


def run_job(runner: Runner, context: RunContext) -> tuple[bool, str]:
    """Run a job in this thread; return whether it succeeded, and the text of its failure."""
    function: Callable[[RunContext], Any] = runner
    try:
        with telemetry.run_span(context):
            result = function(context)
            if inspect.isawaitable(result):
                asyncio.run(_awaited(result, context))
    except BaseException as error:  # noqa: BLE001 - a job that exits must not take the agent along
        return _failure(error, context)
    return True, ""


async def _awaited(result: Awaitable[object], context: RunContext) -> None:
    """Await what a runner returned, and cancel it when its time is over."""
    if context.deadline_s is None:
        await result
        return
    work, loop = asyncio.ensure_future(result), asyncio.get_running_loop()

    def cancel() -> None:
        with suppress(RuntimeError):  # the loop is closed: it has ended
            loop.call_soon_threadsafe(work.cancel)

    context.timed_out.call(cancel)
    await work


async def run_job_async(runner: Runner, context: RunContext) -> tuple[bool, str]:
    """Return whether the run succeeded, and the text of its failure."""
    function: Callable[[RunContext], Any] = runner
    try:
        with telemetry.run_span(context):
            result = (
                function(context)
                if inspect.iscoroutinefunction(function)
                else await in_own_thread(function, context, name=f"chronos-run-{context.job_id}")
            )
            if inspect.isawaitable(result):
                await _awaited(result, context)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise  # the process ends; the next start finds the run interrupted
        return _failure(error, context, "the runner was cancelled")
    except BaseException as error:  # noqa: BLE001 - a job that exits must not take the agent along
        return _failure(error, context)
    return True, ""


def _failure(error: BaseException, context: RunContext, words: str = "") -> tuple[bool, str]:
    """Log the traceback of a run, of which the history keeps one line. Source: incident V2."""
    if isinstance(error, asyncio.CancelledError) and context.timed_out.is_set():
        return False, "the runner was cancelled"  # that is no failure of its own
    at = format_instant(context.occurrence_us)
    said = (context.job_id, at, context.attempt)
    extra = {"job_id": context.job_id, "attempt": context.attempt}
    trace = "".join(traceback.format_exception(error))
    if trace == trace.encode("utf-8", "replace").decode():
        logger.error("the run of %s of %s failed, attempt %d", *said, exc_info=error, extra=extra)
    else:  # a handler could not write it as it is
        told = trace.encode("utf-8", "backslashreplace").decode()
        logger.error("the run of %s of %s failed, attempt %d\n%s", *said, told, extra=extra)
    return False, words or words_of(error)


def words_of(error: BaseException) -> str:
    """Return an error's text as every store can keep it."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an exception that cannot say what it is still has a name
        text = ""
    words = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return words[:MAX_DETAIL_LENGTH].replace("\0", "").encode("utf-8", "replace").decode()
