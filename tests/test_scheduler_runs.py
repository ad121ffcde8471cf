"""Runs of both schedulers: their ends, their leases, and the policies of their jobs from end to end."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import attrs
import pytest

from chronos.agent.runner import RunContext
from chronos.errors import StoreError
from chronos.jobs.instants import HOUR_US, MINUTE_US, SECOND_US, whole_second
from chronos.jobs.job import CLOCK_ALLOWANCE_US, LEASE_US, Job, JobState, Origin, Result, Verdict
from chronos.jobs.policy import CatchUp, OnInterrupt, Overlap, Policy
from chronos.jobs.schedule import Once
from tests.agents import PATIENCE_S, T0, MakeWorld, Nas, World, at, every_hour, until

BUSY = StoreError("busy", definite=True)
RETRIED = Policy(on_interrupt=OnInterrupt.RETRY)


def failing(world: World, times: int) -> None:
    """Let the store fail so many times, and then work."""
    swap, failures = world.store.swap, [BUSY] * times

    def flaky(*args: Any, **kwargs: Any) -> bool:
        if failures:
            raise failures.pop()
        return swap(*args, **kwargs)

    world.store.swap = flaky  # type: ignore[method-assign]


# --- The end of a run ---


@attrs.frozen
class Texts:
    raised: BaseException
    told: str


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


FAILURES = [
    Texts(ValueError("no such file"), "ValueError: no such file"),
    Texts(ValueError(), "ValueError"),
    Texts(SystemExit(3), "SystemExit: 3"),
    Texts(KeyboardInterrupt(), "KeyboardInterrupt"),
    Texts(Mute(), "Mute"),
    Texts(ValueError("a\0b\ud83d"), "ValueError: ab?"),
    Texts(ValueError("x" * 5000), "ValueError: " + "x" * 988),
]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.told[:30])
def test_a_run_that_raises_has_failed_with_its_text(
    make_world: MakeWorld, failure: Texts, is_async: bool
) -> None:
    """Whatever a runner of either kind raises; the agent and the schedule go on."""

    def fails(_: RunContext) -> None:
        raise failure.raised

    async def fails_async(_: RunContext) -> None:
        raise failure.raised

    world = make_world(every_hour(), runner=fails_async if is_async else fails)
    assert world.agent.fire("j", T0).settled
    world.settle()
    assert world.outcomes() == [(Result.FAILED, failure.told)]
    assert world.nas.arms == {"j": at(HOUR_US)}


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_run_that_stops_an_iteration_has_failed(make_world: MakeWorld, is_async: bool) -> None:
    """The scheduler is made of generators, and does not take it for the end of one of its own."""

    def stops(_: RunContext) -> None:
        raise StopIteration("done")

    async def stops_async(_: RunContext) -> None:
        raise StopIteration("done")

    world = make_world(every_hour(), runner=stops_async if is_async else stops)
    world.agent.fire("j", T0)
    world.settle()
    ((result, reason),) = world.outcomes()
    assert result is Result.FAILED
    assert "StopIteration" in reason


@pytest.mark.parametrize("is_sync", [False, True])
def test_a_runner_of_either_kind_serves_a_scheduler_of_either_kind(
    make_world: MakeWorld, is_sync: bool
) -> None:
    """An async runner gets a loop below threads, a plain one gets a thread below asyncio."""
    threads, loops = [], []

    def runs(_: RunContext) -> None:
        threads.append(threading.current_thread())

    async def runs_async(_: RunContext) -> None:
        await asyncio.sleep(0)
        threads.append(threading.current_thread())
        loops.append(asyncio.get_running_loop())

    world = make_world(every_hour(), runner=runs if is_sync else runs_async)
    world.agent.fire("j", T0)
    world.settle()
    assert world.outcomes() == [(Result.COMPLETED, "")]
    assert len(threads) == 1
    assert len(loops) == (not is_sync)


def test_an_async_run_that_cancels_itself_has_failed(make_world: MakeWorld) -> None:
    """Only the end of the process leaves a run without an outcome."""

    async def cancels(_: RunContext) -> None:
        raise asyncio.CancelledError

    world = make_world(every_hour(), runner=cancels)
    world.agent.fire("j", T0)
    world.settle()
    ((result, reason),) = world.outcomes()
    assert result is Result.FAILED
    assert "cancelled" in reason.lower()


def test_runs_do_not_keep_the_store_waiting(make_world: MakeWorld) -> None:
    """However many plain runners are in flight, other fires are answered (incident D5)."""
    release = threading.Event()
    jobs = [every_hour(f"j{number}") for number in range(40)]
    world = make_world(*jobs, runner=lambda _: release.wait(PATIENCE_S))
    for job in jobs:
        assert world.agent.fire(job.id, T0).verdict is Verdict.ACCEPTED
    release.set()
    world.settle()
    assert all(world.outcomes(job.id) == [(Result.COMPLETED, "")] for job in jobs)


def test_a_run_may_use_its_own_scheduler(make_world: MakeWorld) -> None:
    """Nothing is held while it runs: it may look, change and ask for more."""
    answers: list[Any] = []

    def runs(context: RunContext) -> None:
        if context.job_id == "j":
            answers.extend(
                [world.agent.run_now("k"), world.agent.pause("j", note="once"), world.agent.status()]
            )

    world = make_world(every_hour(), every_hour("k"), runner=runs)
    world.agent.fire("j", T0)
    world.settle()
    assert [answer.verdict for answer in answers[:2]] == [Verdict.ACCEPTED, Verdict.CHANGED]
    assert world.outcomes("k") == [(Result.COMPLETED, "")]
    assert world.job().state is JobState.PAUSED


def test_the_end_of_a_run_is_stored_when_the_store_is_back(make_world: MakeWorld) -> None:
    """A passing failure of the store does not turn a completed run into an interrupted one."""
    world = make_world(every_hour())
    world.agent.fire("j", T0)
    failing(world, 2)
    world.settle()
    assert world.outcomes() == [(Result.COMPLETED, "")]
    assert world.agent.pending() == ()


def test_an_end_whose_answer_was_lost_is_stored_once(make_world: MakeWorld) -> None:
    """The follow-up finds that the run has ended already, and leaves it at that."""
    world = make_world(every_hour())
    world.agent.fire("j", T0)
    with world.store_that_loses_its_answer():
        world.release.set()
        until(lambda: world.outcomes())
    world.quiet()
    assert world.outcomes() == [(Result.COMPLETED, "")]
    assert world.agent.pending() == ()


def test_a_run_whose_end_is_still_to_be_stored_is_not_buried(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store failed, the end is owed, and a fire that comes before it leaves the run alone."""
    monkeypatch.setattr("chronos.protocol.follow_ups.FOLLOW_UP_DELAYS_US", (30_000_000,))
    world = make_world(every_hour())
    world.agent.fire("j", T0)
    with world.failing_store(BUSY) as failed:
        world.release.set()
        until(lambda: failed)
    assert world.agent.fire("j", T0).verdict is Verdict.DUPLICATE
    assert len(world.job().runs) == 1
    assert world.agent.drain() == ()
    assert world.outcomes() == [(Result.COMPLETED, "")]


def test_the_guard_of_a_finished_run_is_taken_away_when_nas_is_back(make_world: MakeWorld) -> None:
    """The repeated end of the run finds nothing to move in the store, and asks NAS all the same."""
    world = make_world(Job(id="j", schedule=Once(at_us=T0), next_us=T0, policy=RETRIED))
    assert world.agent.fire("j", T0).settled
    assert world.nas.arms == {"j": at(LEASE_US + CLOCK_ALLOWANCE_US)}
    world.nas.fails_next = 2
    world.settle()
    assert (world.nas.arms, world.nas.fails_next) == ({}, 0)
    assert world.job().state is JobState.COMPLETED


# --- Leases ---


@pytest.fixture
def _short_renewals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chronos.protocol.runs.RENEW_EVERY_US", 10_000)


def is_renewed(world: World) -> bool:
    return [run.lease_until_us for run in world.job().runs] == [world.now_us + LEASE_US]


@pytest.mark.usefixtures("_short_renewals")
def test_the_lease_of_a_run_is_renewed(make_world: MakeWorld) -> None:
    """A run may last longer than a lease without another host taking it (incident D4)."""
    world = make_world(every_hour())
    world.agent.fire("j", T0)
    world.now_us += 40 * MINUTE_US
    until(lambda: is_renewed(world))
    world.settle()
    assert world.outcomes() == [(Result.COMPLETED, "")]
    assert world.nas.asked == ["provision j"]


@pytest.mark.usefixtures("_short_renewals")
def test_a_renewal_that_the_store_refused_is_mended_by_the_next(make_world: MakeWorld) -> None:
    """It is repeated soon, and leaves nothing behind that looks unfinished."""
    world = make_world(every_hour())
    world.agent.fire("j", T0)
    world.now_us += MINUTE_US
    failing(world, 2)
    until(lambda: is_renewed(world))
    world.settle()
    assert world.outcomes() == [(Result.COMPLETED, "")]
    assert world.agent.pending() == ()


@pytest.mark.usefixtures("_short_renewals")
def test_a_run_that_is_no_longer_this_process_is_not_renewed(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody declared it interrupted, or removed the job; its end changes nothing."""
    world = make_world(every_hour())
    world.agent.fire("j", T0)
    world.agent.remove("j")
    lost = "the run is no longer this process's"
    until(lambda: lost in caplog.messages)
    assert not world.release.wait(0.04)  # time enough for another renewal
    assert caplog.messages.count(lost) == 1
    world.settle()
    assert world.store.load("j") is None
    assert world.nas.arms == {}


@pytest.mark.usefixtures("_short_renewals")
def test_a_renewal_on_its_way_does_not_overtake_the_end(make_world: MakeWorld) -> None:
    """A NAS that keeps no order would be left with the guard of a run that is over (incident L9)."""
    world = make_world(
        Job(id="j", schedule=Once(at_us=T0), next_us=T0, policy=RETRIED), nas=Nas(echoes=False)
    )
    world.agent.fire("j", T0)
    gate = world.nas.hang()
    world.now_us += MINUTE_US
    until(lambda: len(world.nas.asked) == 2)
    world.nas.gate = None
    world.release.set()
    assert not gate.wait(0.02)  # time enough for an end that does not wait
    gate.set()
    world.quiet()
    assert world.nas.asked == ["provision j", "provision j", "cancel j"]
    assert world.nas.arms == {}


def test_a_living_run_is_not_buried_after_a_suspension_past_its_lease(make_world: MakeWorld) -> None:
    """The fire that wakes the machine finds the lease over, and the run in flight in its own process."""
    world = make_world(every_hour())
    world.agent.fire("j", T0)
    until(lambda: world.ran)
    world.now_us = T0 + HOUR_US
    answer = world.agent.fire("j", T0 + HOUR_US)
    assert (answer.verdict, answer.settled) == (Verdict.SKIPPED, True)
    world.settle()
    assert [result for result, _ in world.outcomes()] == [Result.SKIPPED, Result.COMPLETED]
    assert len(world.ran) == 1
    assert world.nas.arms == {"j": at(2 * HOUR_US)}


# --- Policies ---


def test_a_failed_run_is_attempted_again_after_a_while(make_world: MakeWorld) -> None:
    """NAS is armed for the next attempt, waits grow, and one outcome tells of the last of them."""
    policy = Policy(attempts=3, retry_delay_us=MINUTE_US)
    delays_us, world = [], make_world(every_hour(policy=policy), runner=fail_twice())
    for attempt in (1, 2, 3):
        fire_at_us = world.now_us
        assert world.agent.fire("j", fire_at_us).verdict is Verdict.ACCEPTED
        world.quiet()
        if attempt < 3:
            (waiting,) = world.job().waiting
            assert (waiting.attempt, waiting.occurrence_us) == (attempt + 1, T0)
            assert world.nas.arms == {"j": at(whole_second(waiting.not_before_us) - T0)}
            delays_us.append(waiting.not_before_us - world.now_us)
            world.now_us = waiting.not_before_us
    assert MINUTE_US // 2 <= delays_us[0] <= MINUTE_US <= delays_us[1] <= 2 * MINUTE_US
    (outcome,) = world.store.history("j")
    assert (outcome.result, outcome.attempt, outcome.occurrence_us) == (Result.COMPLETED, 3, T0)
    assert world.nas.arms == {"j": at(HOUR_US)}


def fail_twice() -> Any:
    failures = [ValueError("first"), ValueError("second")]

    def runs(_: RunContext) -> None:
        if failures:
            raise failures.pop(0)

    return runs


def test_attempts_end_and_leave_the_text_of_the_last_failure(make_world: MakeWorld) -> None:
    """A retried run that goes on failing is one failed occurrence."""
    world = make_world(every_hour(policy=Policy(attempts=2)), runner=fail_twice())
    world.agent.fire("j", T0)
    world.quiet()
    world.now_us = world.job().waiting[0].not_before_us
    world.agent.fire("j", world.now_us)
    world.quiet()
    assert world.outcomes() == [(Result.FAILED, "ValueError: second")]


def test_a_queued_occurrence_starts_when_the_run_before_it_ends(make_world: MakeWorld) -> None:
    """It waits in the store, one at most, and needs no fire of its own."""
    world = make_world(every_hour(policy=Policy(overlap=Overlap.QUEUE)))
    for number in range(3):
        world.now_us = T0 + number * HOUR_US
        answer = world.agent.fire("j", world.now_us)
        assert answer.verdict is (Verdict.SKIPPED if number == 2 else Verdict.ACCEPTED)
    assert [waiting.occurrence_us for waiting in world.job().waiting] == [T0 + HOUR_US]
    world.settle()
    assert [context.occurrence_us for context in world.ran] == [T0, T0 + HOUR_US]
    assert [result for result, _ in world.outcomes()] == [Result.SKIPPED, Result.COMPLETED, Result.COMPLETED]
    assert world.nas.arms == {"j": at(3 * HOUR_US)}


def test_all_that_is_caught_up_runs_one_after_another(make_world: MakeWorld) -> None:
    """One fire after an outage runs the newest of what was missed, from the oldest, in this process."""
    policy = Policy(catch_up=CatchUp.ALL, catch_up_limit=3)
    at_once: list[int] = []
    inside = threading.Semaphore(1)

    def runs(_: RunContext) -> None:
        at_once.append(inside.acquire(blocking=False))
        inside.release()

    world = make_world(every_hour(policy=policy), runner=runs)
    world.now_us = T0 + 5 * HOUR_US + 2 * MINUTE_US
    assert world.agent.fire("j", T0).verdict is Verdict.ACCEPTED
    world.quiet()
    assert at_once == [True] * 3
    history = world.store.history("j")
    assert [(each.result, each.count) for each in history] == [
        (Result.MISSED, 3),
        *[(Result.COMPLETED, 1)] * 3,
    ]
    assert [each.occurrence_us for each in history[1:]] == [T0 + hours * HOUR_US for hours in (3, 4, 5)]
    # The newest of them came in time.
    assert [each.origin for each in history[1:]] == [Origin.CATCH_UP, Origin.CATCH_UP, Origin.SCHEDULE]
    assert world.nas.arms == {"j": at(6 * HOUR_US)}


def test_runs_that_may_overlap_are_in_flight_together(make_world: MakeWorld) -> None:
    """Each has a lease and an outcome of its own."""
    world = make_world(every_hour(policy=Policy(overlap=Overlap.ALLOW)))
    for number in range(3):
        world.now_us = T0 + number * HOUR_US
        assert world.agent.fire("j", world.now_us).verdict is Verdict.ACCEPTED
    until(lambda: len(world.ran) == 3)
    assert len(world.job().runs) == 3
    assert sum(each.is_busy for each in world.agent.pending()) == 3
    world.settle()
    assert world.outcomes() == [(Result.COMPLETED, "")] * 3


def test_what_waits_when_a_drained_run_ends_is_left_to_another_process(make_world: MakeWorld) -> None:
    """The end starts nothing, and arms what waits, so that NAS wakes somebody for it at once."""
    world = make_world(every_hour(policy=Policy(overlap=Overlap.QUEUE)))
    world.agent.fire("j", T0)
    world.now_us = T0 + HOUR_US
    world.agent.fire("j", world.now_us)
    world.agent.drain(0)
    world.release.set()
    assert world.agent.drain() == ()
    assert [context.occurrence_us for context in world.ran] == [T0]
    (waiting,) = world.job().waiting
    assert world.nas.arms == {"j": at(HOUR_US)}
    other = world.another()
    world.now_us += SECOND_US
    assert other.fire("j", waiting.not_before_us).verdict is Verdict.ACCEPTED
    world.settle()
    assert [context.occurrence_us for context in world.ran] == [T0, T0 + HOUR_US]
    assert world.nas.arms == {"j": at(2 * HOUR_US)}
