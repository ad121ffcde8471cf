"""NAS is away for longer than the host waits: a process that lives on goes on trying, and heals.

A second here lasts a millisecond.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from chronos.agent.asyncio import AsyncScheduler
from chronos.agent.effects import failure_of
from chronos.agent.scheduler import Scheduler
from chronos.errors import NasUnavailable
from chronos.jobs.instants import HOUR_US
from chronos.jobs.job import LEASE_US, Origin, Run
from chronos.protocol import follow_ups
from chronos.protocol.draft import Fired
from chronos.protocol.follow_ups import FOLLOW_UP_DELAYS_US
from chronos.protocol.intents import Finish, Fire, Renew
from chronos.stores import MemoryStore
from chronos.values import evolve
from tests.agents import KINDS, T0, MakeWorld, at, later, until, until_async, worlds

MINUTE_S, HOUR_S = 0.06, 3.6
FIRST_US = (5_000, 15_000, 45_000)
LONGEST_US = 300_000


@pytest.fixture(params=KINDS)
def make_world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeWorld]:
    monkeypatch.setattr("chronos.protocol.follow_ups.FOLLOW_UP_DELAYS_US", FIRST_US)
    monkeypatch.setattr(follow_ups, "LONGEST_FOLLOW_UP_DELAY_US", LONGEST_US)
    with worlds(request.param) as make:
        yield make


@pytest.mark.parametrize("away_s", [2 * MINUTE_S, HOUR_S])
@pytest.mark.parametrize("is_all_refused", [True, False])
def test_process_that_lives_on_arms_everything_once_nas_is_back(
    make_world: MakeWorld, away_s: float, is_all_refused: bool
) -> None:
    """After the first minute the host may stop the machine; a process that lives on heals (incident L14)."""
    world = make_world(*(later(f"j{number}") for number in range(12)))
    world.nas.is_down, world.nas.refuses = is_all_refused, "provision"
    began_s = time.monotonic()
    assert not world.agent.start().settled
    assert world.agent.is_busy()
    until(lambda: not world.agent.is_busy())
    assert world.agent.pending()
    assert not any(each.is_armed for each in world.agent.status().jobs)
    time.sleep(max(0.0, away_s - (time.monotonic() - began_s)))
    assert not world.agent.is_busy()
    assert world.agent.status().may_stop
    asked = len(world.nas.asked)
    # Ever more slowly: of 12 jobs each, an hour has fewer than 20 tries.
    assert asked < 20 * 13 + 5
    world.nas.is_down, world.nas.refuses = False, ""
    until(lambda: world.nas.arms == {f"j{number}": at(HOUR_US) for number in range(12)})
    until(lambda: world.agent.pending() == ())
    assert all(each.is_armed and each.why == "armed" for each in world.agent.status().jobs)


def test_draining_ends_what_is_tried_for_ever(make_world: MakeWorld) -> None:
    """The host has waited for long enough; the next start finds what is left."""
    world = make_world(later())
    world.nas.is_down = True
    world.agent.start()
    world.agent.create("k", "every 1h")
    until(lambda: not world.agent.is_busy())
    left = world.agent.drain()
    assert {each.job_id for each in left} == {"", "k"}
    assert not any(each.is_busy for each in left)
    asked = len(world.nas.asked)
    time.sleep(2 * LONGEST_US / 1_000_000)
    assert len(world.nas.asked) == asked


def test_what_is_owed_to_a_job_is_remembered_once(make_world: MakeWorld) -> None:
    """A job that is changed again and again while NAS is away takes no more memory, and no more requests."""
    world = make_world(later())
    world.nas.is_down = True
    for number in range(50):
        world.agent.edit("j", times=1_000 + number)
    owed = [each for each in world.agent.pending() if each.job_id == "j"]
    assert 1 <= len(owed) <= 2  # one of them may be tried just now
    world.nas.is_down = False
    until(lambda: world.agent.pending() == ())
    assert world.nas.arms == {"j": at(HOUR_US)}


def test_another_start_while_nas_is_away_asks_soon_again(make_world: MakeWorld) -> None:
    """And there is one that asks, however often it is started."""
    world = make_world(later())
    world.nas.is_down = True
    for _ in range(20):
        world.agent.start()
    assert world.agent.is_busy()
    assert len([each for each in world.agent.pending() if not each.job_id]) == 1
    until(lambda: not world.agent.is_busy())
    assert len(world.nas.asked) < 20 + 20
    world.nas.is_down = False
    until(lambda: world.agent.pending() == ())


def test_tries_come_ever_more_slowly_and_never_end() -> None:
    """5, 15, 45 s, and then twice as long each time, up to five minutes."""
    delays = [follow_ups.follow_up_delay_us(tries) for tries in (*range(8), 10_000)]
    assert delays[:3] == list(FOLLOW_UP_DELAYS_US)
    assert [delay_us // 1_000_000 for delay_us in delays] == [5, 15, 45, 90, 180, 300, 300, 300, 300]


@pytest.mark.parametrize("wait_s", [22.110000000000582, 22.1099995, 30.0, 0.0000001])
def test_wait_that_nas_asks_for_ends_no_sooner(wait_s: float) -> None:
    """Rounded up to a microsecond: the try that came one too soon was refused by the agent's own client."""
    failed = failure_of(NasUnavailable("not sent", definite=True, retry_after_s=wait_s))
    assert 0 <= failed.retry_after_us / 1_000_000 - wait_s < 0.000002


class Away:
    """A client of a NAS that is away."""

    def __init__(self) -> None:
        self.asked = 0

    def provision(self, *_: Any, **__: Any) -> Any:
        raise NasUnavailable("away")

    cancel = provision

    def list_arms(self, **_: Any) -> Any:
        self.asked += 1
        raise NasUnavailable("away")

    def reset(self) -> None:
        """There is nothing to forget."""


class AsyncAway(Away):
    """The same for asyncio."""

    async def provision(self, *_: Any, **__: Any) -> Any:
        raise NasUnavailable("away")

    cancel = provision

    async def list_arms(self, **_: Any) -> Any:
        super().list_arms()


def test_sleep_of_the_machine_counts_as_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's clock stands still meanwhile: the alarm is set anew by the next step (incident W4)."""
    monkeypatch.setattr(follow_ups, "FOLLOW_UP_DELAYS_US", (HOUR_US, HOUR_US, HOUR_US))

    async def live() -> None:
        nas, slept_us = AsyncAway(), 0
        scheduler = AsyncScheduler(MemoryStore(), nas, lambda _: None)
        scheduler._steady = lambda: time.monotonic_ns() // 1_000 + slept_us
        await scheduler.start()
        assert nas.asked == 1
        slept_us = HOUR_US
        await scheduler.status()  # which asks once itself
        await until_async(lambda: nas.asked == 3)
        await scheduler.drain(0)

    asyncio.run(live())


def test_sleep_of_the_machine_counts_as_waiting_with_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait in a thread does not count it either; the next step rings for all that has become due (W4)."""
    monkeypatch.setattr(follow_ups, "FOLLOW_UP_DELAYS_US", (HOUR_US, HOUR_US, HOUR_US))
    slept_us, nas = 0, Away()
    scheduler = Scheduler(MemoryStore(), nas, lambda _: None)
    scheduler._steady = lambda: time.monotonic_ns() // 1_000 + slept_us
    scheduler.start()
    assert nas.asked == 1
    slept_us = HOUR_US
    scheduler.status()  # which asks once itself
    until(lambda: nas.asked == 3)
    scheduler.drain(0)


def test_newer_recovery_of_a_job_stands_for_the_older_one_and_each_end_for_itself() -> None:
    """Two runs of one job end with two flows."""
    run = Run(occurrence_us=T0, attempt=1, owner="me", claimed_us=T0, lease_until_us=T0 + LEASE_US)
    other = evolve(run, occurrence_us=T0 + HOUR_US)
    recovery = Fire(job_id="j", fire_at_us=T0, fired=Fired(origin=Origin.RECOVERY))
    finish = Finish(job_id="j", run=run, succeeded=True)
    assert follow_ups.makes_needless(evolve(recovery, fire_at_us=T0 + 1), recovery)
    assert not follow_ups.makes_needless(evolve(recovery, job_id="k"), recovery)
    assert follow_ups.makes_needless(evolve(finish, confirm=True), finish)
    assert not follow_ups.makes_needless(evolve(finish, run=other), finish)
    assert not follow_ups.makes_needless(recovery, finish)
    assert not follow_ups.makes_needless(Renew(job_id="j", run=run), finish)
