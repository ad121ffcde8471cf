"""The scheduler over a real store and client, with a NAS in memory behind the client's transport."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import attrs
import httpx
import pytest

from chronos import scheduler as shell
from chronos.errors import StoreError
from chronos.nas import AsyncNasClient
from chronos.protocol.job import (
    CLOCK_ALLOWANCE_US,
    LEASE_US,
    Job,
    JobState,
    OnInterrupt,
    Outcome,
    Policy,
    Result,
    Run,
    Verdict,
)
from chronos.protocol.schedule import HOUR_US, MINUTE_US, Interval, Once, format_instant, parse_instant
from chronos.protocol.wire import LocalMessageError
from chronos.runner import RunContext
from chronos.scheduler import Scheduler
from chronos.stores import MemoryStore

T = TypeVar("T")
T0 = parse_instant("2026-06-26T12:00:00+00:00")


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "FOLLOW_UP_DELAYS_US", (10_000, 10_000, 10_000))
    monkeypatch.setattr(shell, "DRAINING_DELAY_US", 10_000)


def run(work: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(10):
            return await work

    return asyncio.run(bounded())


class Nas:
    """NAS in memory: arms by job, the newest revision of each, and what it was asked, in order."""

    def __init__(self, *, echoes: bool = True) -> None:
        self.arms: dict[str, str] = {}
        self.revisions: dict[str, int] = {}
        self.asked: list[str] = []
        self.echoes = echoes
        self.is_down = False
        self.refuses = ""
        self.hang: asyncio.Event | None = None
        self.at_once = self.most_at_once = 0
        self.latency_s = 0.0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.latency_s)
            return await self.answer(request)
        finally:
            self.at_once -= 1

    async def answer(self, request: httpx.Request) -> httpx.Response:
        verb = request.url.path.rsplit("/", 1)[-1]
        body = json.loads(request.content or b"{}")
        self.asked.append(f"{verb} {body.get('job_id', '')}".strip())
        if self.hang is not None:
            await self.hang.wait()
        if self.is_down or verb == self.refuses:
            return httpx.Response(503)
        if verb == "list":
            rows = self.arms.items()
            armed = [{"job_id": job_id, "fire_at": at, "schedule_id": "s"} for job_id, at in rows]
            return httpx.Response(200, json={"armed": armed})
        job_id, revision = body["job_id"], body.get("revision")
        if self.echoes and revision is not None:
            newest = self.revisions.get(job_id, 0)
            if revision < newest:
                return httpx.Response(409, json={"error": "stale_revision", "revision": newest})
            self.revisions[job_id] = revision
        if verb == "provision":
            self.arms[job_id] = body["fire_at"]
        else:
            self.arms.pop(job_id, None)
        echo = {"revision": revision} if self.echoes else {}
        return httpx.Response(200, json={"ok": True, "schedule_id": "s"} | echo)


class World:
    """A scheduler with everything around it."""

    def __init__(
        self, *jobs: Job, nas: Nas | None = None, runner: Callable[[RunContext], Any] | None = None
    ) -> None:
        self.now_us = T0
        self.store = MemoryStore(jobs)
        self.nas = nas or Nas()
        self.ran: list[RunContext] = []
        self.release = asyncio.Event()
        self.dead: set[str] = set()
        self.is_stopped = False
        client = AsyncNasClient(
            "https://portal.example",
            token_provider=lambda _fresh: "tok",
            callback_url="https://agent.example",
            transport=httpx.MockTransport(self.nas),
            retry_for_s=0,  # what is tested here is who comes back to a failure
        )
        self.scheduler = self.another(runner or self.run_until_released, client)
        self.client = client

    def another(
        self, runner: Callable[[RunContext], Any], client: AsyncNasClient, owner: str = "me"
    ) -> Scheduler:
        return Scheduler(
            self.store,
            client,
            runner,
            owner=owner,
            clock=lambda: self.now_us,
            is_dead=self.dead.__contains__,
            is_stopped=lambda: self.is_stopped,
        )

    async def run_until_released(self, context: RunContext) -> None:
        self.ran.append(context)
        await self.release.wait()

    async def settle(self) -> None:
        """Let the runs end, and all work with them."""
        self.release.set()
        await self.quiet()

    async def quiet(self) -> None:
        while any(each.is_busy for each in self.scheduler.pending()):
            await asyncio.sleep(0.005)

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await asyncio.sleep(0.002)

    def job(self, job_id: str = "j") -> Job:
        job = self.store.load(job_id)
        assert job is not None
        return job

    def outcomes(self, job_id: str = "j") -> list[tuple[Result, str]]:
        return [(outcome.result, outcome.reason) for outcome in self.store.history(job_id)]


def every_hour(job_id: str = "j", **changes: Any) -> Job:
    return Job(id=job_id, schedule=Interval(period_us=HOUR_US, anchor_us=T0), next_us=T0, **changes)


def at(offset_us: int) -> str:
    return format_instant(T0 + offset_us)


# --- A fire ---


def test_a_fire_runs_once_and_arms_the_next_occurrence_before_it_is_answered() -> None:
    """When the answer says accepted, NAS already has the next arm, and the run is in flight."""

    async def scenario() -> None:
        world = World(every_hour())
        answer = await world.scheduler.fire("j", T0)
        assert (answer.verdict, answer.settled) == (Verdict.ACCEPTED, True)
        assert world.nas.arms == {"j": at(HOUR_US)}
        await world.until(lambda: world.ran)
        assert "in flight" in world.scheduler.pending()[0].reason
        await world.settle()
        assert world.ran == [RunContext(job_id="j", occurrence_us=T0, attempt=1)]
        assert world.outcomes() == [(Result.COMPLETED, "")]
        assert world.scheduler.pending() == ()
        assert world.nas.asked == ["provision j"]

    run(scenario())


@pytest.mark.parametrize("has_ended", [False, True])
def test_a_redelivered_fire_is_a_duplicate(has_ended: bool) -> None:
    """Whether the run is still in flight or over, it does not run again (incident D1)."""

    async def scenario() -> None:
        world = World(every_hour())
        await world.scheduler.fire("j", T0)
        if has_ended:
            await world.settle()
        answer = await world.scheduler.fire("j", T0)
        assert (answer.verdict, answer.settled) == (Verdict.DUPLICATE, True)
        await world.settle()
        assert len(world.ran) == 1

    run(scenario())


def test_fires_at_once_on_two_schedulers_run_once() -> None:
    """Replicas share the store; its compare-and-set lets one of them claim (incidents D3, W2)."""

    async def scenario() -> None:
        world = World(every_hour())
        other = world.another(world.run_until_released, world.client, owner="other")
        each = (world.scheduler, other, world.scheduler, other)
        answers = await asyncio.gather(*(replica.fire("j", T0) for replica in each))
        assert sorted(str(answer.verdict) for answer in answers) == ["accepted", *["duplicate"] * 3]
        assert all(answer.settled for answer in answers)
        await world.settle()
        await other.drain(1)
        assert len(world.ran) == 1

    run(scenario())


def test_a_fire_runs_although_nas_is_down_and_its_redelivery_arms() -> None:
    """The answer is unsettled, NAS comes back, and then nothing runs again (incidents L5, L6, L7)."""

    async def scenario() -> None:
        world = World(every_hour())
        world.nas.is_down = True
        answer = await world.scheduler.fire("j", T0)
        assert (answer.verdict, answer.settled) == (Verdict.ACCEPTED, False)
        await world.until(lambda: world.ran)
        world.nas.is_down = False
        again = await world.scheduler.fire("j", T0)
        assert (again.verdict, again.settled) == (Verdict.DUPLICATE, True)
        assert world.nas.arms == {"j": at(HOUR_US)}
        await world.settle()
        assert len(world.ran) == 1

    run(scenario())


def test_the_end_of_a_run_confirms_an_arm_that_was_not_accepted() -> None:
    """Also without a redelivery, the run's own end comes back to the arm."""

    async def scenario() -> None:
        world = World(every_hour())
        world.nas.is_down = True
        await world.scheduler.fire("j", T0)
        world.nas.is_down = False
        await world.settle()
        assert world.nas.arms == {"j": at(HOUR_US)}
        assert world.scheduler.pending() == ()

    run(scenario())


def test_the_end_of_a_run_arms_again_where_nas_does_not_keep_revisions() -> None:
    """Such a NAS's clean-up of the delivered fire may have deleted the new arm (incident L10)."""

    async def scenario() -> None:
        world = World(every_hour(), nas=Nas(echoes=False))
        assert (await world.scheduler.fire("j", T0)).settled
        world.nas.arms.clear()
        await world.settle()
        assert world.nas.arms == {"j": at(HOUR_US)}

    run(scenario())


def test_an_arm_within_a_fire_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """NAS that hangs must not hold the answer back beyond the relay's timeout; the run starts."""
    monkeypatch.setattr(shell, "NAS_TIMEOUT_IN_FIRE_S", 0.05)

    async def scenario() -> None:
        world = World(every_hour())
        world.nas.hang = asyncio.Event()
        answer = await world.scheduler.fire("j", T0)
        assert (answer.verdict, answer.settled) == (Verdict.ACCEPTED, False)
        await world.until(lambda: world.ran)
        world.nas.hang.set()
        await world.settle()
        assert world.nas.arms == {"j": at(HOUR_US)}

    run(scenario())


def test_a_cancelled_request_does_not_lose_the_run() -> None:
    """The caller's connection may break at any moment; what was begun is done."""

    async def scenario() -> None:
        world = World(every_hour())
        world.nas.hang = asyncio.Event()
        request = asyncio.create_task(world.scheduler.fire("j", T0))
        await world.until(lambda: world.nas.asked)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        world.nas.hang.set()
        await world.settle()
        assert len(world.ran) == 1
        assert world.outcomes() == [(Result.COMPLETED, "")]

    run(scenario())


def test_a_fire_of_an_unknown_job_is_gone_and_disarmed() -> None:
    """An orphan is taken away when it wakes the machine (incidents O1, O4)."""

    async def scenario() -> None:
        world = World()
        world.nas.arms["j"] = at(0)
        answer = await world.scheduler.fire("j", T0)
        assert (answer.verdict, answer.settled) == (Verdict.GONE, True)
        assert world.nas.arms == {}

    run(scenario())


class Exits(BaseException):
    """Neither an error of the store nor any other that somebody expects."""


@pytest.mark.parametrize(
    "error", [StoreError("full", definite=True), OSError("gone"), Exits(), SystemExit(1)], ids=repr
)
def test_a_store_that_fails_is_answered_unsettled(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Nothing runs, NAS comes back, and the agent lives on."""

    async def scenario() -> None:
        world = World(every_hour())

        def fails(*_: object, **__: object) -> bool:
            raise error

        with monkeypatch.context() as broken:
            broken.setattr(world.store, "swap", fails)
            answer = await world.scheduler.fire("j", T0)
        assert (answer.verdict, answer.settled) == (None, False)
        assert world.ran == []
        assert (await world.scheduler.fire("j", T0)).verdict is Verdict.ACCEPTED
        await world.settle()

    run(scenario())


@pytest.mark.parametrize("on_interrupt", list(OnInterrupt))
def test_a_claim_that_was_stored_though_the_store_failed_is_settled_by_the_redelivery(
    monkeypatch: pytest.MonkeyPatch, on_interrupt: OnInterrupt
) -> None:
    """The process finds a run of its own that it knows nothing of, and does not wait for its lease."""

    async def scenario() -> None:
        world = World(every_hour(policy=Policy(on_interrupt=on_interrupt)))
        with monkeypatch.context() as broken:
            broken.setattr(world.store, "swap", failing_after_the_write(world.store))
            answer = await world.scheduler.fire("j", T0)
        assert (answer.verdict, answer.settled) == (None, False)
        assert (world.job().run is not None, world.ran) == (True, [])
        assert (await world.scheduler.fire("j", T0)).settled
        await world.settle()
        assert world.job().run is None
        assert world.nas.arms == {"j": at(HOUR_US)}
        is_retried = on_interrupt is OnInterrupt.RETRY
        assert [context.attempt for context in world.ran] == [2] * is_retried
        (outcome,) = world.store.history("j")
        assert outcome.result is (Result.COMPLETED if is_retried else Result.INTERRUPTED)

    run(scenario())


def failing_after_the_write(store: MemoryStore) -> Callable[..., bool]:
    """Return a swap that moves the store and says that it may not have."""
    swap = store.swap

    def fails(*args: Any, **kwargs: Any) -> bool:
        swap(*args, **kwargs)
        raise StoreError("the answer was lost", definite=False)

    return fails


def test_a_redelivery_during_the_claim_does_not_bury_it() -> None:
    """The run is stored and not started yet, while NAS is asked: another flow is at work on it."""

    async def scenario() -> None:
        world = World(every_hour())
        held = world.nas.hang = asyncio.Event()
        first = asyncio.create_task(world.scheduler.fire("j", T0))
        await world.until(lambda: world.nas.asked)
        second = asyncio.create_task(world.scheduler.fire("j", T0))
        await world.until(lambda: len(world.nas.asked) == 2)
        held.set()
        assert (await first).verdict is Verdict.ACCEPTED
        assert (await second).verdict is Verdict.DUPLICATE
        await world.settle()
        assert world.outcomes() == [(Result.COMPLETED, "")]

    run(scenario())


def test_a_claim_whose_lease_ended_before_its_run_could_start_is_lost() -> None:
    """The machine slept in between, others may have taken the run, and NAS comes back to see."""

    async def scenario() -> None:
        world = World(every_hour())
        held = world.nas.hang = asyncio.Event()
        fire = asyncio.create_task(world.scheduler.fire("j", T0))
        await world.until(lambda: world.nas.asked)
        world.now_us += LEASE_US
        held.set()
        answer = await fire
        assert (answer.verdict, answer.settled) == (Verdict.LOST, False)
        assert "lease ended" in world.scheduler.pending()[0].reason
        assert (await world.scheduler.fire("j", T0)).settled
        assert world.ran == []
        assert [result for result, _ in world.outcomes()] == [Result.INTERRUPTED]

    run(scenario())


# --- Runs ---


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
    Texts(StopIteration(), "RuntimeError: coroutine raised StopIteration"),
    Texts(Mute(), "Mute"),
    Texts(ValueError("a\0b\ud83d"), "ValueError: ab?"),
    Texts(ValueError("x" * 5000), "ValueError: " + "x" * 988),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.told[:30])
def test_a_run_that_raises_has_failed_with_its_text(failure: Texts) -> None:
    """Whatever a sync runner raises; the agent and the schedule go on."""

    async def scenario() -> None:
        def fails(_: RunContext) -> None:
            raise failure.raised

        world = World(every_hour(), runner=fails)
        assert (await world.scheduler.fire("j", T0)).settled
        await world.settle()
        assert world.outcomes() == [(Result.FAILED, failure.told)]
        assert world.nas.arms == {"j": at(HOUR_US)}

    run(scenario())


def test_an_async_run_that_cancels_itself_has_failed() -> None:
    """Only the end of the process leaves a run without an outcome."""

    async def scenario() -> None:
        async def cancels(_: RunContext) -> None:
            raise asyncio.CancelledError

        world = World(every_hour(), runner=cancels)
        await world.scheduler.fire("j", T0)
        await world.settle()
        assert world.outcomes() == [(Result.FAILED, "the runner was cancelled")]

    run(scenario())


def test_sync_runs_do_not_keep_the_store_waiting() -> None:
    """However many are in flight, other fires are answered (incident D5)."""

    async def scenario() -> None:
        release = threading.Event()
        jobs = [every_hour(f"j{number}") for number in range(50)]
        world = World(*jobs, runner=lambda _: release.wait(10))
        for job in jobs:
            assert (await world.scheduler.fire(job.id, T0)).verdict is Verdict.ACCEPTED
        release.set()
        await world.settle()
        assert all(world.outcomes(job.id) == [(Result.COMPLETED, "")] for job in jobs)

    run(scenario())


def test_the_lease_of_a_run_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run may last longer than a lease without another host taking it (incident D4)."""
    monkeypatch.setattr(shell, "RENEW_EVERY_US", 10_000)

    async def scenario() -> None:
        world = World(every_hour())
        await world.scheduler.fire("j", T0)
        world.now_us += 40 * MINUTE_US
        await world.until(
            lambda: (job := world.job()).run is None or job.run.lease_until_us == world.now_us + LEASE_US
        )
        await world.settle()
        assert world.outcomes() == [(Result.COMPLETED, "")]
        assert world.nas.asked == ["provision j"]

    run(scenario())


def test_a_renewal_that_the_store_refused_is_mended_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is repeated soon, and leaves nothing behind that looks unfinished."""
    monkeypatch.setattr(shell, "RENEW_EVERY_US", 10_000)

    async def scenario() -> None:
        world = World(every_hour())
        await world.scheduler.fire("j", T0)
        world.now_us += MINUTE_US
        swap, failures = world.store.swap, [StoreError("busy", definite=True)] * 2

        def flaky(*args: Any, **kwargs: Any) -> bool:
            if failures:
                raise failures.pop()
            return swap(*args, **kwargs)

        monkeypatch.setattr(world.store, "swap", flaky)
        await world.until(lambda: (run := world.job().run) and run.lease_until_us == world.now_us + LEASE_US)
        await world.settle()
        assert world.outcomes() == [(Result.COMPLETED, "")]
        assert world.scheduler.pending() == ()

    run(scenario())


def test_a_living_run_is_not_buried_after_a_suspension_past_its_lease() -> None:
    """The fire that wakes the machine finds the lease over, and the run in flight in its own process."""

    async def scenario() -> None:
        world = World(every_hour())
        await world.scheduler.fire("j", T0)
        await world.until(lambda: world.ran)
        world.now_us = T0 + HOUR_US
        answer = await world.scheduler.fire("j", T0 + HOUR_US)
        assert (answer.verdict, answer.settled) == (Verdict.SKIPPED, True)
        await world.settle()
        assert [result for result, _ in world.outcomes()] == [Result.SKIPPED, Result.COMPLETED]
        assert len(world.ran) == 1
        assert world.nas.arms == {"j": at(2 * HOUR_US)}

    run(scenario())


def test_a_run_whose_end_is_still_to_be_stored_is_not_buried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store failed, the end is owed, and a fire that comes before it leaves the run alone."""
    monkeypatch.setattr(shell, "FOLLOW_UP_DELAYS_US", (50_000,))

    async def scenario() -> None:
        world = World(every_hour())
        await world.scheduler.fire("j", T0)
        with monkeypatch.context() as broken:
            failed: list[object] = []

            def fails(*_: object, **__: object) -> bool:
                failed.append(1)
                raise StoreError("busy", definite=True)

            broken.setattr(world.store, "swap", fails)
            world.release.set()
            await world.until(lambda: failed)
        assert (await world.scheduler.fire("j", T0)).verdict is Verdict.DUPLICATE
        await world.quiet()
        assert world.outcomes() == [(Result.COMPLETED, "")]

    run(scenario())


def test_a_run_that_is_no_longer_this_process_is_not_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody declared it interrupted, or removed the job; its end changes nothing."""
    monkeypatch.setattr(shell, "RENEW_EVERY_US", 10_000)

    async def scenario() -> None:
        world = World(every_hour())
        await world.scheduler.fire("j", T0)
        await world.scheduler.remove("j")
        await asyncio.sleep(0.05)
        await world.settle()
        assert world.store.load("j") is None
        assert world.nas.arms == {}

    run(scenario())


def test_the_end_of_a_run_is_stored_when_the_store_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A passing failure of the store does not turn a completed run into an interrupted one."""

    async def scenario() -> None:
        world = World(every_hour())
        await world.scheduler.fire("j", T0)
        swap = world.store.swap
        failures: list[int] = []

        def flaky(*args: Any, **kwargs: Any) -> bool:
            if len(failures) < 2:
                failures.append(1)
                raise StoreError("busy", definite=True)
            return swap(*args, **kwargs)

        monkeypatch.setattr(world.store, "swap", flaky)
        await world.settle()
        assert world.outcomes() == [(Result.COMPLETED, "")]
        assert world.scheduler.pending() == ()

    run(scenario())


def test_the_guard_of_a_finished_run_is_taken_away_when_nas_is_back() -> None:
    """The repeated end of the run finds nothing to move in the store, and asks NAS all the same."""

    async def scenario() -> None:
        policy = Policy(on_interrupt=OnInterrupt.RETRY)
        world = World(Job(id="j", schedule=Once(at_us=T0), next_us=T0, policy=policy))
        assert (await world.scheduler.fire("j", T0)).settled
        assert world.nas.arms == {"j": at(LEASE_US + CLOCK_ALLOWANCE_US)}
        world.nas.is_down = True
        world.release.set()
        await world.until(lambda: world.job().run is None)
        world.nas.is_down = False
        await world.settle()
        assert world.nas.arms == {}
        assert world.job().state is JobState.COMPLETED

    run(scenario())


def test_a_renewal_on_its_way_does_not_overtake_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A NAS that keeps no order would be left with the guard of a run that is over (incident L9)."""
    monkeypatch.setattr(shell, "RENEW_EVERY_US", 10_000)

    async def scenario() -> None:
        policy = Policy(on_interrupt=OnInterrupt.RETRY)
        job = Job(id="j", schedule=Once(at_us=T0), next_us=T0, policy=policy)
        world = World(job, nas=Nas(echoes=False))
        await world.scheduler.fire("j", T0)
        slow = world.nas.hang = asyncio.Event()
        world.now_us += MINUTE_US
        await world.until(lambda: len(world.nas.asked) == 2)
        world.nas.hang = None
        world.release.set()
        await asyncio.sleep(0.05)
        slow.set()
        await asyncio.sleep(0.05)
        await world.quiet()
        assert world.nas.arms == {}

    run(scenario())


# --- Changes ---


def test_a_created_job_is_armed() -> None:
    """The answer is settled once NAS has it (incident L3)."""

    async def scenario() -> None:
        world = World()
        answer = await world.scheduler.create(every_hour())
        assert (answer.verdict, answer.settled) == (Verdict.CHANGED, True)
        assert world.nas.arms == {"j": at(0)}
        other = attrs.evolve(every_hour(), schedule=Once(at_us=T0))
        assert (await world.scheduler.create(other)).verdict is Verdict.REFUSED

    run(scenario())


def test_a_change_that_nas_has_not_heard_of_is_saved_and_left_to_whoever_asked() -> None:
    """The answer says so, `pending` says so, nothing keeps the machine up, and asking again is enough."""

    async def scenario() -> None:
        world = World()
        world.nas.is_down = True
        answer = await world.scheduler.create(every_hour())
        assert (answer.verdict, answer.settled) == (Verdict.CHANGED, False)
        assert world.job().state is JobState.SCHEDULED
        (pending,) = world.scheduler.pending()
        assert (pending.job_id, pending.is_busy) == ("j", False)
        assert "not agreed" in pending.reason
        world.nas.is_down = False
        assert (await world.scheduler.create(every_hour())).settled
        assert world.nas.arms == {"j": at(0)}
        assert world.scheduler.pending() == ()

    run(scenario())


def test_a_change_that_nobody_makes_again_is_settled_by_the_next_start() -> None:
    """The start finds the difference between what is saved and what NAS has (incident L3)."""

    async def scenario() -> None:
        world = World()
        world.nas.is_down = True
        await world.scheduler.create(every_hour())
        world.nas.is_down = False
        assert (await world.scheduler.start()).settled
        assert world.nas.arms == {"j": at(0)}
        assert world.scheduler.pending() == ()

    run(scenario())


def test_a_job_that_is_paused_during_its_run_is_not_armed_again() -> None:
    """Neither the end of the run nor a redelivery arms it (incident D6)."""

    async def scenario() -> None:
        world = World(every_hour(), nas=Nas(echoes=False))
        await world.scheduler.fire("j", T0)
        await world.scheduler.pause("j")
        assert world.nas.arms == {}
        await world.scheduler.fire("j", T0)
        await world.settle()
        assert world.nas.arms == {}
        assert world.outcomes() == [(Result.COMPLETED, "")]

    run(scenario())


def test_a_paused_job_is_disarmed_and_armed_again_on_resume() -> None:
    """To the same next time, and NAS has it again (incident L8)."""

    async def scenario() -> None:
        world = World()
        await world.scheduler.create(attrs.evolve(every_hour(), next_us=T0 + HOUR_US))
        await world.scheduler.pause("j")
        assert world.nas.arms == {}
        await world.scheduler.resume("j")
        assert world.nas.arms == {"j": at(HOUR_US)}

    run(scenario())


def test_a_removed_job_that_is_created_again_comes_after_its_earlier_life() -> None:
    """NAS remembers the earlier revisions, and the store is put after them."""

    async def scenario() -> None:
        world = World()
        await world.scheduler.create(attrs.evolve(every_hour(), revision=7))
        await world.scheduler.remove("j")
        assert world.nas.arms == {}
        assert (await world.scheduler.create(every_hour())).settled
        assert world.nas.arms == {"j": at(0)}
        assert world.job().revision > 7

    run(scenario())


def test_a_job_that_could_never_be_armed_is_refused_before_it_is_saved() -> None:
    """Its id is no text that NAS could be told."""

    async def scenario() -> None:
        world = World()
        with pytest.raises(LocalMessageError):
            await world.scheduler.create(every_hour("x" * 201))
        assert world.store.load_all() == ()

    run(scenario())


# --- Start and stop ---


def test_a_start_makes_one_list_call_and_one_more_for_each_difference() -> None:
    """What agrees is left alone; what is missing, wrong or orphaned is put right (incidents O1, O2)."""

    async def scenario() -> None:
        jobs = [
            attrs.evolve(every_hour(job_id), next_us=T0 + HOUR_US)
            for job_id in ("agrees", "missing", "wrong")
        ]
        world = World(*jobs, attrs.evolve(every_hour("paused"), state=JobState.PAUSED))
        world.nas.arms = {"agrees": at(HOUR_US), "wrong": at(5), "orphan": at(0), "paused": at(0)}
        started = await world.scheduler.start()
        assert (started.flows, started.settled) == (4, True)
        assert world.nas.arms == {job.id: at(HOUR_US) for job in jobs}
        assert world.nas.asked[0] == "list"
        expected = ["cancel orphan", "cancel paused", "provision missing", "provision wrong"]
        assert sorted(world.nas.asked[1:]) == expected
        world.nas.asked.clear()
        assert (await world.scheduler.start()).flows == 0
        assert world.nas.asked == ["list"]

    run(scenario())


def test_a_start_runs_what_is_overdue_and_records_what_was_interrupted() -> None:
    """A chain that broke while the machine slept goes on (incidents L2, O3)."""

    async def scenario() -> None:
        died = Run(occurrence_us=T0, attempt=1, owner="dead", claimed_us=T0, lease_until_us=T0 + LEASE_US)
        interrupted = attrs.evolve(every_hour("died"), next_us=T0 + HOUR_US, run=died)
        world = World(every_hour("overdue"), interrupted)
        world.dead.add("dead")
        world.now_us = T0 + 2 * MINUTE_US
        assert (await world.scheduler.start()).settled
        await world.settle()
        assert [context.job_id for context in world.ran] == ["overdue"]
        assert world.outcomes("died") == [(Result.INTERRUPTED, "its process ended: dead")]
        assert world.nas.arms == {"overdue": at(HOUR_US), "died": at(HOUR_US)}

    run(scenario())


def test_a_start_without_nas_says_so_and_comes_back_to_it() -> None:
    """The list that failed is asked for again, and nothing is believed meanwhile (incident O2)."""

    async def scenario() -> None:
        world = World(attrs.evolve(every_hour(), next_us=T0 + HOUR_US))
        world.nas.arms["orphan"] = at(0)
        world.nas.is_down = True
        started = await world.scheduler.start()
        assert (started.flows, started.settled) == (0, False)
        assert any("NAS has armed" in each.reason for each in world.scheduler.pending())
        world.nas.is_down = False
        await world.quiet()
        assert world.nas.arms == {"j": at(HOUR_US)}
        assert world.scheduler.pending() == ()

    run(scenario())


def test_a_start_does_not_ask_for_everything_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """NAS limits the rate of its callers."""
    monkeypatch.setattr(shell, "START_CONCURRENCY", 3)

    async def scenario() -> None:
        world = World(*(every_hour(f"j{number}") for number in range(20)))
        world.nas.latency_s = 0.01
        assert (await world.scheduler.start()).flows == 20
        assert 1 < world.nas.most_at_once <= 3

    run(scenario())


def test_draining_turns_fires_away_and_waits_for_runs() -> None:
    """Nothing is claimed any more; what is in flight ends first (incident W1)."""

    async def scenario() -> None:
        world = World(every_hour(), every_hour("k"))
        await world.scheduler.fire("j", T0)
        left = await world.scheduler.drain(0.02)
        assert [(each.job_id, each.is_busy) for each in left] == [("j", True)]
        turned_away = await world.scheduler.fire("k", T0)
        assert (turned_away.verdict, turned_away.settled) == (None, False)
        assert world.job("k") == every_hour("k")
        world.release.set()
        assert await world.scheduler.drain(5) == ()
        assert world.outcomes() == [(Result.COMPLETED, "")]
        await world.scheduler.start()
        assert (await world.scheduler.fire("k", T0)).verdict is Verdict.ACCEPTED
        await world.settle()

    run(scenario())


def test_a_start_leaves_alone_what_a_fire_is_about_to_arm() -> None:
    """The fire that woke the machine arms its job; the list that the start asked for is older than that."""

    async def scenario() -> None:
        world = World(every_hour())
        slow = asyncio.Event()
        world.nas.hang = slow
        start = asyncio.create_task(world.scheduler.start())
        await world.until(lambda: world.nas.asked == ["list"])
        world.nas.hang = None
        assert (await world.scheduler.fire("j", T0)).settled
        world.nas.arms, armed = {}, world.nas.arms
        slow.set()
        started = await start
        assert (started.flows, started.settled) == (0, True)
        assert (world.nas.asked, armed) == (["list", "provision j"], {"j": at(HOUR_US)})
        assert (await world.scheduler.start()).flows == 1
        await world.settle()

    run(scenario())


def test_a_fire_does_not_bury_the_run_that_a_start_is_claiming() -> None:
    """What the start does to a job is seen by whoever comes to the same job."""

    async def scenario() -> None:
        world = World(every_hour())
        world.now_us += 2 * MINUTE_US
        world.nas.arms = {"j": at(0)}
        answered = asyncio.Event()

        async def hold_provisions(request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("provision"):
                await answered.wait()
            return await world.nas(request)

        client = AsyncNasClient(
            "https://portal.example",
            token_provider=lambda _fresh: "tok",
            callback_url="https://agent.example",
            transport=httpx.MockTransport(hold_provisions),
        )
        scheduler = world.another(world.run_until_released, client)
        start = asyncio.create_task(scheduler.start())
        await world.until(lambda: world.job().run)
        fire = asyncio.create_task(scheduler.fire("j", T0))
        await asyncio.sleep(0.02)
        answered.set()
        assert (await start).settled
        assert (await fire).verdict is Verdict.DUPLICATE
        world.release.set()
        await scheduler.drain(5)
        assert world.outcomes() == [(Result.COMPLETED, "")]

    run(scenario())


def test_a_start_follows_up_what_nas_refused() -> None:
    """Nobody else would come back to it; after a while it is left to the next start."""

    async def scenario() -> None:
        world = World(attrs.evolve(every_hour(), next_us=T0 + HOUR_US))
        world.nas.refuses = "provision"
        started = await world.scheduler.start()
        assert (started.flows, started.settled) == (1, False)
        (pending,) = world.scheduler.pending()
        assert (pending.job_id, pending.is_busy) == ("j", True)
        await world.quiet()
        assert world.nas.asked == ["list", *["provision j"] * 4]
        (pending,) = world.scheduler.pending()
        assert (pending.job_id, pending.is_busy) == ("j", False)
        world.nas.refuses = ""
        assert (await world.scheduler.start()).settled
        assert world.scheduler.pending() == ()

    run(scenario())


def test_draining_does_not_wait_long_for_a_follow_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is owed is tried soon, and then left to the next start."""
    monkeypatch.setattr(shell, "FOLLOW_UP_DELAYS_US", (30_000_000, 30_000_000))

    async def scenario() -> None:
        world = World(attrs.evolve(every_hour(), next_us=T0 + HOUR_US))
        world.nas.refuses = "provision"
        await world.scheduler.start()
        (left,) = await world.scheduler.drain(5)
        assert not left.is_busy
        assert world.nas.asked == ["list", *["provision j"] * 3]

    run(scenario())


def test_draining_takes_no_overdue_occurrence() -> None:
    """What is owed while draining arms the job, and leaves its run to the fire."""

    async def scenario() -> None:
        world = World(attrs.evolve(every_hour(), next_us=T0 + HOUR_US))
        world.nas.refuses = "provision"
        await world.scheduler.start()
        world.now_us = T0 + HOUR_US + 5 * MINUTE_US
        draining = asyncio.create_task(world.scheduler.drain(5))
        await world.until(lambda: len(world.nas.asked) == 3)
        world.nas.refuses = ""
        assert await draining == ()
        assert (world.nas.arms, world.ran) == ({"j": at(HOUR_US)}, [])

    run(scenario())


def test_an_agent_that_is_told_to_run_no_jobs_says_so_and_claims_nothing() -> None:
    """The answer is settled: the fires would come again and again for as long as it lasts (incident L12)."""

    async def scenario() -> None:
        world = World(every_hour())
        world.is_stopped = True
        answer = await world.scheduler.fire("j", T0)
        assert (answer.verdict, answer.settled) == (Verdict.STOPPED, True)
        world.now_us += 2 * MINUTE_US
        started = await world.scheduler.start()
        assert (started.flows, started.settled) == (1, False)
        assert [(each.reason, each.is_busy) for each in world.scheduler.pending()] == [
            ("the agent is told to run no jobs", False)
        ]
        assert (world.job(), world.ran, world.nas.arms) == (every_hour(), [], {})

    run(scenario())


def test_the_start_after_a_stop_looks_after_every_job() -> None:
    """NAS does not come back to the fires that were answered meanwhile (incident L12)."""

    async def scenario() -> None:
        world = World(every_hour(), every_hour("k"))
        world.is_stopped = True
        for job_id in ("j", "k"):
            await world.scheduler.fire(job_id, T0)
        world.is_stopped = False
        world.now_us += 2 * MINUTE_US
        assert (await world.scheduler.start()).settled
        await world.settle()
        assert sorted(context.job_id for context in world.ran) == ["j", "k"]
        assert world.nas.arms == {"j": at(HOUR_US), "k": at(HOUR_US)}
        assert world.scheduler.pending() == ()

    run(scenario())


def test_a_stop_leaves_the_run_in_flight_to_end() -> None:
    """Its end is recorded, and nothing that it owes takes an occurrence."""

    async def scenario() -> None:
        world = World(every_hour())
        await world.scheduler.fire("j", T0)
        world.is_stopped = True
        await world.settle()
        assert world.outcomes() == [(Result.COMPLETED, "")]

    run(scenario())


def test_a_refused_identity_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """One clear message for the operator, not one for each job (incident L4)."""

    async def scenario() -> None:
        refuse = httpx.MockTransport(lambda _: httpx.Response(403, json={"error": "invalid_client"}))
        client = AsyncNasClient(
            "https://portal.example",
            token_provider=lambda _fresh: "tok",
            callback_url="https://agent.example",
            transport=refuse,
        )
        world = World()
        scheduler = world.another(world.run_until_released, client)
        for number in range(3):
            assert not (await scheduler.create(every_hour(f"j{number}"))).settled
        await scheduler.drain(5)

    run(scenario())
    told = [record for record in caplog.records if "Log the agent in again" in record.getMessage()]
    assert len(told) == 1


def test_history_is_kept_in_order() -> None:
    """Ten occurrences, one after the other, each with its outcome and the next one armed."""

    async def scenario() -> None:
        world = World(every_hour())
        world.release.set()
        for number in range(10):
            world.now_us = T0 + number * HOUR_US
            assert (await world.scheduler.fire("j", world.now_us)).verdict is Verdict.ACCEPTED
            await world.quiet()
        history: tuple[Outcome, ...] = world.store.history("j")
        assert [outcome.occurrence_us for outcome in history] == [
            T0 + number * HOUR_US for number in range(10)
        ]
        assert world.nas.arms == {"j": at(10 * HOUR_US)}

    run(scenario())
