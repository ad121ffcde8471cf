"""How each scheduler performs its work: threads and tasks, and what becomes of them when things go wrong."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from chronos.agent.asyncio import AsyncScheduler
from chronos.agent.runner import RunContext
from chronos.agent.scheduler import Scheduler
from chronos.jobs.instants import HOUR_US
from chronos.jobs.job import Job, Result, Verdict
from chronos.jobs.policy import OnInterrupt, Policy
from chronos.stores import MemoryStore
from tests.agents import (
    PATIENCE_S,
    T0,
    MakeWorld,
    Nas,
    World,
    at,
    every_hour,
    later,
    until,
    until_async,
    worlds,
)

# --- Either ---


def test_a_bug_in_work_that_nobody_awaits_is_logged(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """It names the job, leaves nothing behind that looks busy, and the process finds its run abandoned."""
    raises = threading.Event()

    def clock() -> int:
        if raises.is_set():
            raise ZeroDivisionError("a bug")
        return T0

    world = make_world(every_hour(), clock=clock)
    world.agent.fire("j", T0)
    raises.set()
    world.release.set()
    until(lambda: "a flow ended with a bug" in caplog.messages)
    raises.clear()
    world.quiet()
    (record,) = [record for record in caplog.records if record.getMessage() == "a flow ended with a bug"]
    assert (record.levelno, record.job_id) == (logging.ERROR, "j")  # type: ignore[attr-defined]
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
    assert world.agent.fire("j", T0).settled
    assert [result for result, _ in world.outcomes()] == [Result.INTERRUPTED]


def test_a_bug_reaches_whoever_asked(make_world: MakeWorld) -> None:
    """An endpoint answers NAS with a failure, and NAS comes back."""

    def clock() -> int:
        raise ZeroDivisionError("a bug")

    world = make_world(every_hour())
    with pytest.raises(ZeroDivisionError):
        world.another(clock=clock).fire("j", T0)


def test_an_agent_that_cannot_tell_whether_it_is_stopped_runs_nothing(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """What perhaps must not run does not, and the end of a run is stored all the same."""
    raises = threading.Event()

    def is_stopped() -> bool:
        if raises.is_set():
            raise ZeroDivisionError("a bug")
        return False

    world = make_world(every_hour(), every_hour("k"), is_stopped=is_stopped)
    world.agent.fire("j", T0)
    raises.set()
    assert world.agent.fire("k", T0).verdict is Verdict.STOPPED
    world.release.set()
    until(lambda: world.outcomes("j"))
    assert "it cannot be told whether the agent is told to run no jobs" in caplog.messages
    raises.clear()


def test_a_start_in_which_a_flow_broke_is_not_settled(make_world: MakeWorld) -> None:
    """What was not looked after is not called settled."""
    asked: list[int] = []

    def clock() -> int:
        asked.append(1)
        if len(asked) == 5:  # one is of the construction, and the others are of the start itself
            raise ZeroDivisionError("a bug")
        return T0

    world = make_world(later(), later("k"), clock=clock)
    started = world.agent.start()
    assert (started.flows, started.settled) == (2, False)
    assert len(world.nas.arms) == 1
    assert world.agent.start().settled
    assert len(world.nas.arms) == 2


def test_a_hook_may_look_at_the_scheduler(make_world: MakeWorld) -> None:
    """It is called while the scheduler waits, and the scheduler does not wait for itself."""
    seen: list[Any] = []
    world = make_world(every_hour())
    agent = world.another(
        hooks=[lambda _: seen.append((agent.scheduler.pending(), agent.scheduler.is_draining))]
    )
    world.release.set()
    agent.fire("j", T0)
    world.quiet()
    assert len(seen) == 6


def test_a_slow_run_of_many_does_not_hold_up_the_others(make_world: MakeWorld) -> None:
    """Fires, changes and questions are answered while store and NAS take their time for something else."""
    world = make_world(every_hour(), later("k"))
    gate = world.nas.hang()
    fire = world.agent.begin("fire", "j", T0)
    until(lambda: world.nas.asked)
    world.nas.gate = None
    assert world.agent.pause("k").settled
    assert world.agent.status().jobs[1].why == "paused"
    assert world.agent.is_busy()
    gate.set()
    assert fire.result(PATIENCE_S).settled


# --- Threads ---


@pytest.fixture
def make_threads(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("chronos.protocol.state.DRAINING_DELAY_US", 10_000)
    with worlds("threads") as make:
        yield make


def without_threads(monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    """Let no thread of that name begin, as where the system has none left; return those that were wanted."""
    start, wanted = threading.Thread.start, list[str]()

    def starts(thread: threading.Thread) -> None:
        if thread.name == name:
            wanted.append(name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", starts)
    return wanted


@pytest.mark.parametrize("on_interrupt", list(OnInterrupt))
def test_a_run_for_which_there_is_no_thread_is_not_believed_to_be_alive(
    make_threads: MakeWorld, monkeypatch: pytest.MonkeyPatch, on_interrupt: OnInterrupt
) -> None:
    """The fire fails, nothing is busy, and NAS's redelivery settles the claim."""
    world = make_threads(every_hour(policy=Policy(on_interrupt=on_interrupt)))
    with monkeypatch.context() as patch:
        assert without_threads(patch, "chronos") == []
        with pytest.raises(RuntimeError, match="thread"):
            world.agent.fire("j", T0)
    assert (len(world.job().runs), world.agent.pending()) == (1, ())
    assert world.agent.fire("j", T0).settled
    world.settle()
    expected = Result.COMPLETED if on_interrupt is OnInterrupt.RETRY else Result.INTERRUPTED
    assert [result for result, _ in world.outcomes()] == [expected]


def test_a_ticker_for_which_there_was_no_thread_begins_with_the_next_start(
    make_threads: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not taken for one that is at work."""
    world = make_threads(has_nas=False)
    with monkeypatch.context() as patch:
        without_threads(patch, "chronos")
        with pytest.raises(RuntimeError, match="thread"):
            world.agent.start()
    assert world.agent.pending() == ()
    world.agent.start()
    assert world.agent.is_busy()


def test_a_follow_up_for_which_there_is_no_thread_leaves_nothing_busy(
    make_threads: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is unsettled stays known."""
    world = make_threads(later())
    world.nas.is_down = True
    with monkeypatch.context() as patch:
        without_threads(patch, "chronos")
        with pytest.raises(RuntimeError, match="thread"):
            world.agent.pause("j")
    assert [(each.job_id, each.is_busy) for each in world.agent.pending()] == [("j", False)]


def test_an_interruption_from_the_keyboard_reaches_the_host(make_threads: MakeWorld) -> None:
    """It is no failure of NAS or of the store, and nothing is left that looks busy."""
    world = make_threads(every_hour())
    for method in ("load", "swap"):
        with world.failing_store(KeyboardInterrupt(), method=method), pytest.raises(KeyboardInterrupt):
            world.agent.fire("j", T0)
    assert world.agent.pending() == ()
    assert world.agent.fire("j", T0).verdict is Verdict.ACCEPTED


INTERRUPTED = """
import os, signal, threading
from chronos.agent.scheduler import Scheduler
from chronos.stores import MemoryStore

class Hangs:
    reset = provision = cancel = lambda *_, **__: None
    def list_arms(self, *, within_s=None):
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        threading.Event().wait(20)

try:
    Scheduler(MemoryStore(), Hangs(), print).start()
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them")
def test_a_start_that_hangs_is_interrupted_from_the_keyboard() -> None:
    """In a process of its own, with a signal."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


ENDS = """
import threading
from chronos.jobs.instants import HOUR_US
from chronos.jobs.job import Job
from chronos.jobs.schedule import Interval
from chronos.agent.scheduler import Scheduler
from chronos.stores import MemoryStore

job = Job(id="j", schedule=Interval(period_us=HOUR_US, anchor_us=0), next_us=HOUR_US * 1_000_000)
began = threading.Event()

def runs(_):
    began.set()
    threading.Event().wait(20)

scheduler = Scheduler(MemoryStore([job]), None, runs)
scheduler.start()
scheduler.run_now("j")
assert began.wait(10)
print([each.is_busy for each in scheduler.drain(0.01)])
"""


def test_a_process_that_ends_does_not_wait_for_its_runs() -> None:
    """A host that drained for long enough stops the machine."""
    done = subprocess.run(
        [sys.executable, "-c", ENDS], capture_output=True, text=True, timeout=15, check=False
    )
    assert (done.returncode, done.stdout) == (0, "[True]\n"), done.stderr


# --- asyncio ---


def in_loop(scenario: Callable[[], Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(PATIENCE_S):
            return await scenario()

    return asyncio.run(bounded())


def async_world(*jobs: Job, **options: Any) -> tuple[World, AsyncScheduler]:
    """Return a world without a loop of its own, and a scheduler that was made before any loop runs."""
    world = World("asyncio", MemoryStore(jobs), Nas())
    scheduler = world.another("me", **options).scheduler
    assert isinstance(scheduler, AsyncScheduler)
    return world, scheduler


def test_a_scheduler_is_made_before_its_loop_runs() -> None:
    """As where an application is put together at import."""
    world, scheduler = async_world(every_hour())
    world.release.set()

    async def scenario() -> None:
        assert (await scheduler.start()).settled
        assert (await scheduler.fire("j", T0)).verdict is Verdict.ACCEPTED
        assert await scheduler.drain(PATIENCE_S) == ()

    in_loop(scenario)
    assert world.outcomes() == [(Result.COMPLETED, "")]


def test_a_cancelled_request_does_not_lose_the_run() -> None:
    """The caller's connection may break at any moment; what was begun is done."""
    world, scheduler = async_world(every_hour())
    world.release.set()
    gate = world.nas.hang()

    async def scenario() -> None:
        request = asyncio.create_task(scheduler.fire("j", T0))
        await until_async(lambda: world.nas.asked)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        gate.set()
        await scheduler.drain(PATIENCE_S)

    in_loop(scenario)
    assert world.outcomes() == [(Result.COMPLETED, "")]
    assert world.nas.arms == {"j": at(HOUR_US)}


def test_a_bug_in_work_whose_caller_was_cancelled_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is left who could be told."""
    gate = threading.Event()

    def clock() -> int:
        if gate.is_set():
            raise ZeroDivisionError("a bug")
        return T0

    world, scheduler = async_world(every_hour(), clock=clock)
    held = world.nas.hang()

    async def scenario() -> None:
        request = asyncio.create_task(scheduler.fire("j", T0))
        await until_async(lambda: world.nas.asked)
        request.cancel()
        await asyncio.wait([request])
        gate.set()
        held.set()
        await until_async(lambda: not scheduler.pending())
        await asyncio.sleep(0)

    in_loop(scenario)
    assert [record.getMessage() for record in caplog.records] == ["a flow ended with a bug"]


def test_a_drain_right_after_a_start_is_not_undone_by_it() -> None:
    """The server may be stopped before the start has taken its first step."""
    world, scheduler = async_world(every_hour())
    world.now_us = T0 + HOUR_US // 10

    async def scenario() -> None:
        start = asyncio.create_task(scheduler.start())
        await asyncio.sleep(0)
        assert await scheduler.drain(PATIENCE_S) == ()
        assert scheduler.is_draining
        await start

    in_loop(scenario)
    assert (world.ran, world.nas.arms) == ([], {"j": at(0)})


def test_a_loop_that_closes_leaves_its_runs_to_the_next_process(caplog: pytest.LogCaptureFixture) -> None:
    """They are cancelled, which is no failure of theirs, and found interrupted."""
    cancelled: list[str] = []

    async def runs(_: RunContext) -> None:
        try:
            await asyncio.sleep(PATIENCE_S)
        except asyncio.CancelledError:
            cancelled.append("j")
            raise

    world, scheduler = async_world(every_hour(policy=Policy(on_interrupt=OnInterrupt.RETRY)), runner=runs)
    in_loop(lambda: scheduler.fire("j", T0))
    assert (len(world.job().runs), world.outcomes()) == (1, [])
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert scheduler.pending() == ()
    world.dead.add("me")
    world.release.set()
    following = world.another("next").scheduler

    async def scenario() -> None:
        await following.start()  # type: ignore[misc]
        await following.drain(PATIENCE_S)  # type: ignore[misc]

    in_loop(scenario)
    assert [context.attempt for context in world.ran] == [2]
    assert world.outcomes() == [(Result.COMPLETED, "")]


def test_a_plain_run_that_outlives_its_loop_disturbs_nobody(recwarn: pytest.WarningsRecorder) -> None:
    """Its thread is a daemon, and nobody waits for what it returns."""
    release, done = threading.Event(), threading.Event()

    def runs(_: RunContext) -> None:
        release.wait(PATIENCE_S)
        done.set()

    world, scheduler = async_world(every_hour(), runner=runs)
    in_loop(lambda: scheduler.fire("j", T0))
    release.set()
    assert done.wait(PATIENCE_S)
    assert (len(world.job().runs), list(recwarn)) == (1, [])


def test_a_timeout_of_nas_is_said_in_words() -> None:
    """Also where the client does not bound its own calls."""

    class Hangs:
        def reset(self) -> None:
            pass

        async def cancel(self, *_: object, **__: object) -> Any:
            raise TimeoutError

        provision = list_arms = cancel

    _, scheduler = async_world(later(), nas=Hangs())
    answer = in_loop(lambda: scheduler.pause("j"))
    assert answer.trouble == "NasUnavailable: NAS did not answer within 30 s"


def test_the_two_schedulers_have_the_same_names_and_arguments() -> None:
    """What a host reads of one holds for the other."""
    import inspect

    names = [name for name in vars(Scheduler) if not name.startswith("_")]
    assert names == [name for name in vars(AsyncScheduler) if not name.startswith("_")]
    for name in names:
        sync, is_async = getattr(Scheduler, name), getattr(AsyncScheduler, name)
        assert inspect.signature(sync) == inspect.signature(is_async), name
        assert inspect.iscoroutinefunction(is_async) == (name != "pending")
