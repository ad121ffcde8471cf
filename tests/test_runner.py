"""How a runner is called, in the thread or the loop of whoever calls it."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from chronos.agent.runner import MAX_DETAIL_LENGTH, RunContext, Runner, run_job, run_job_async, words_of
from chronos.jobs.job import Origin
from tests.agents import PATIENCE_S, T0, until_async

CONTEXT = RunContext(job_id="j", occurrence_us=T0, attempt=1)
KINDS = ("threads", "asyncio")


def run(kind: str, runner: Runner) -> tuple[bool, str]:
    if kind == "threads":
        return run_job(runner, CONTEXT)
    return asyncio.run(run_job_async(runner, CONTEXT))


class Callable:
    """A runner that is an object, as one with state is."""

    def __init__(self) -> None:
        self.ran: list[RunContext] = []

    async def __call__(self, context: RunContext) -> None:
        await asyncio.sleep(0)
        self.ran.append(context)


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_can_be_called_and_awaited_is_a_runner(kind: str) -> None:
    """A function, a method, an object, a lambda that returns a coroutine: each is run to its end."""
    runner = Callable()
    ran: list[RunContext] = []
    for each in (runner, runner.__call__, lambda context: runner(context), ran.append):
        assert run(kind, each) == (True, "")
    assert (runner.ran, ran) == ([CONTEXT] * 3, [CONTEXT])
    assert CONTEXT.origin is Origin.SCHEDULE


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_runner_returns_is_no_matter(kind: str) -> None:
    """An exception is the one way to fail."""
    assert run(kind, lambda _: False) == (True, "")


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_runner_sees_the_context_of_its_caller(kind: str) -> None:
    """Such as the span of the run, below whose own it makes others."""
    variable = contextvars.ContextVar("variable", default="none")
    seen: list[str] = []
    variable.set("caller's")
    run(kind, lambda _: seen.append(variable.get()))
    assert seen == ["caller's"]


def test_a_plain_runner_does_not_block_the_loop() -> None:
    """It has a thread of its own, which bears the name of its job."""
    names: list[str] = []
    release = threading.Event()

    def runs(_: RunContext) -> None:
        names.append(threading.current_thread().name)
        assert release.wait(PATIENCE_S)

    async def scenario() -> tuple[bool, str]:
        running = asyncio.create_task(run_job_async(runs, CONTEXT))
        await until_async(lambda: names)
        release.set()
        return await running

    assert asyncio.run(scenario()) == (True, "")
    assert names == ["chronos-run-j"]


def test_a_cancelled_task_is_no_failed_run() -> None:
    """The process ends; what was in flight has no outcome."""

    async def scenario() -> None:
        running = asyncio.create_task(run_job_async(lambda _: asyncio.sleep(PATIENCE_S), CONTEXT))
        await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("no such file"), "ValueError: no such file"),
        (ValueError(), "ValueError"),
        (KeyError("x"), "KeyError: 'x'"),
        (ValueError("a\0b"), "ValueError: ab"),
        (ValueError("\ud83d"), "ValueError: ?"),
    ],
)
def test_the_words_of_an_error_can_be_stored(error: Exception, words: str) -> None:
    """No database takes a null character, and no file half of a pair."""
    assert words_of(error) == words


def test_the_words_of_an_error_are_cut() -> None:
    """The history is kept whole."""
    assert len(words_of(ValueError("x" * 10_000))) == MAX_DETAIL_LENGTH


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_of_errors_is_named(kind: str) -> None:
    """As a task group raises it."""

    async def fails(_: RunContext) -> Any:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(PATIENCE_S))
            raise ValueError("one of them")

    succeeded, words = run(kind, fails)
    assert not succeeded
    assert words.startswith("ExceptionGroup: ")
