"""What runs a job, and how it is called: sync or async, and whatever becomes of it, with an answer."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import attrs

from chronos import telemetry
from chronos.calls import in_own_thread
from chronos.protocol.job import Origin
from chronos.protocol.moments import moment
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
        data: what the job carries, as it stood when the run began; the runner's own, to change as it likes.
    """

    job_id: str
    occurrence_us: Instant
    attempt: int
    origin: Origin = Origin.SCHEDULE
    data: Any = attrs.field(default=None, hash=False)

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
                else await in_own_thread(function, context, name=f"chronos-run-{context.job_id}")
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


def words_of(error: BaseException) -> str:
    """Return an error's text as every store can keep it."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an exception that cannot say what it is still has a name
        text = ""
    words = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return words[:MAX_DETAIL_LENGTH].replace("\0", "").encode("utf-8", "replace").decode()
