"""What runs a job, and how it is called: sync or async, and whatever becomes of it, with an answer."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeAlias

import attrs

from chronos import telemetry
from chronos.protocol.job import Origin
from chronos.protocol.schedule import Instant

# The text of a failed run goes into the job's history, which is kept whole.
MAX_DETAIL_LENGTH = 1000


@attrs.frozen(kw_only=True)
class RunContext:
    """What a runner is told.

    Attributes:
        job_id: which job to run.
        occurrence_us: the scheduled instant, epoch microseconds, UTC; with the job's id, the identity
            of the occurrence, for whoever must do something once for each.
        attempt: 1, or more when an earlier attempt failed or was interrupted.
        origin: why the occurrence runs; of a manual run, `occurrence_us` is when it was asked for.
    """

    job_id: str
    occurrence_us: Instant
    attempt: int
    origin: Origin = Origin.SCHEDULE


Runner: TypeAlias = Callable[[RunContext], "Awaitable[object] | object"]
"""Runs a job, sync (in a thread of its own) or async. An exception fails the run, with its text."""


def run_job(runner: Runner, context: RunContext) -> tuple[bool, str]:
    """Run a job in this thread; return whether it succeeded, and the text of its failure."""
    function: Callable[[RunContext], Any] = runner
    try:
        with telemetry.run_span(context):
            result = function(context)
            if inspect.isawaitable(result):
                asyncio.run(_awaited(result))
    except BaseException as error:  # noqa: BLE001 - a job that exits must not take the agent along
        return False, words_of(error)
    return True, ""


async def _awaited(result: Awaitable[object]) -> None:
    await result


async def run_job_async(runner: Runner, context: RunContext) -> tuple[bool, str]:
    """Return whether the run succeeded, and the text of its failure."""
    function: Callable[[RunContext], Any] = runner
    try:
        with telemetry.run_span(context):
            result = (
                function(context)
                if inspect.iscoroutinefunction(function)
                else await _in_own_thread(function, context)
            )
            if inspect.isawaitable(result):
                await result
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise  # the process ends; the next start finds the run interrupted
        return False, "the runner was cancelled"
    except BaseException as error:  # noqa: BLE001 - a job that exits must not take the agent along
        return False, words_of(error)
    return True, ""


async def _in_own_thread(function: Callable[[RunContext], Any], context: RunContext) -> Any:
    """Call *function* in a thread of its own.

    Runs may last for hours and be many: in the loop's shared pool they would keep the store's calls
    waiting, the renewals of their own leases among them (incident D5). The thread is a daemon, since
    a process that was told to stop must not wait for a run.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def deliver(result: Any, error: BaseException | None) -> None:
        if not ended.done():
            ended.set_result((result, error))

    def work() -> None:
        result, error = None, None
        try:
            result = variables.run(function, context)
        except BaseException as raised:  # noqa: BLE001 - it is raised again where it is awaited
            error = raised
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(deliver, result, error)

    variables = contextvars.copy_context()
    threading.Thread(target=work, name=f"chronos-run-{context.job_id}", daemon=True).start()
    result, error = await ended
    if error is not None:
        raise error
    return result


def words_of(error: BaseException) -> str:
    """Return an error's text as every store can keep it."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an exception that cannot say what it is still has a name
        text = ""
    words = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return words[:MAX_DETAIL_LENGTH].replace("\0", "").encode("utf-8", "replace").decode()
