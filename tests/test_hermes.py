"""The provider for the Hermes agent, over a Hermes in memory that behaves as the real one documents."""

from __future__ import annotations

import contextvars
import copy
import logging
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronos.errors import InvalidClient, NasUnavailable, StaleRevision
from chronos.jobs.due import following
from chronos.jobs.instants import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    SECOND_US,
    Instant,
    format_instant,
    parse_instant,
)
from chronos.jobs.job import CLOCK_ALLOWANCE_US, LEASE_US
from chronos.jobs.policy import MAX_GRACE_US
from chronos.nas.exchange import ArmAnswer
from chronos.protocol import follow_ups
from chronos.protocol.clocks import CLOCK_MARGIN_US
from chronos.protocol.state import CONCURRENCY
from chronos.provider import HermesCron, NotSettled, register
from chronos.provider.hermes_jobs import GUARD_US, read_hermes_job

T0 = parse_instant("2026-06-26T12:00:00+00:00")
SOON = 2 * SECOND_US
PATIENCE_S = 10.0


def at(instant_us: Instant) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=instant_us)).isoformat()


class Nas:
    """NAS in memory; it keeps the order of revisions, as contract 1.1 has it."""

    def __init__(self) -> None:
        self.arms: dict[str, Instant | None] = {}
        self.revisions: dict[str, int] = {}
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.is_down_once = False
        self.resets = 0
        self.within_s: list[float] = []
        self.on_asked: Callable[[], object] = lambda: None

    def provision(
        self, job_id: str, fire_at_us: Instant, *, revision: int, within_s: float | None = None
    ) -> ArmAnswer:
        self.within_s += [] if within_s is None else [within_s]
        self._change(f"provision {job_id}", job_id, revision)
        self.arms[job_id] = fire_at_us
        return ArmAnswer(echoed=True)

    def cancel(self, job_id: str, *, revision: int, **_: Any) -> ArmAnswer:
        self._change(f"cancel {job_id}", job_id, revision)
        self.arms.pop(job_id, None)
        return ArmAnswer(echoed=True)

    def list_arms(self, **_: Any) -> Mapping[str, Instant | None]:
        self._ask("list")
        return dict(self.arms)

    def reset(self) -> None:
        self.resets += 1

    def _change(self, what: str, job_id: str, revision: int) -> None:
        self._ask(what)
        if revision < self.revisions.get(job_id, 0):
            raise StaleRevision(self.revisions[job_id])
        self.revisions[job_id] = revision

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        self.on_asked()
        if self.is_down_once:
            self.is_down_once = False
            raise NasUnavailable("down")
        if self.error is not None:
            raise self.error


class Hermes:
    """Hermes in memory: its records, its claims, and its way to run a job."""

    def __init__(self) -> None:
        self.now_us = T0
        self.records: list[dict[str, Any]] = []
        self.ran: list[str] = []
        self.given: dict[str, Any] = {}
        self.during_run: Callable[[str], object] = lambda _: None
        self.ticks: list[dict[str, Any]] = []
        self.recovered = 0
        self.wins_claims = True
        self.asked_for: list[str] = []
        self.config: Any = {
            "cron": {
                "provider": "chronos",
                "chronos": {"portal_url": "https://portal.example", "callback_url": "https://agent.example"},
            }
        }
        self.login: dict[str, str] | None = {"access_token": "stored"}

    # --- records ---

    def add(self, job_id: str, next_us: Instant | None, **fields: Any) -> dict[str, Any]:
        record = {
            "id": job_id,
            "name": job_id,
            "schedule": {"kind": "interval", "minutes": 60, "display": "every 1h"},
            "repeat": {"times": None, "completed": 0},
            "enabled": True,
            "state": "scheduled",
            "next_run_at": None if next_us is None else at(next_us),
            "created_at": at(T0 - DAY_US),
            "prompt": "anything",
        }
        self.records.append(record | fields)
        return self.records[-1]

    def add_once(self, job_id: str, next_us: Instant, **fields: Any) -> dict[str, Any]:
        schedule = {"kind": "once", "run_at": at(next_us), "display": "once"}
        return self.add(job_id, next_us, schedule=schedule, repeat={"times": 1, "completed": 0}, **fields)

    def load_jobs(self) -> list[dict[str, Any]]:
        return copy.deepcopy(self.records)

    def get_job(self, job_id: str) -> dict[str, Any] | None:
        return copy.deepcopy(self._record(job_id))

    def remove(self, job_id: str) -> None:
        self.records = [record for record in self.records if record["id"] != job_id]

    def pause(self, job_id: str) -> None:
        self._record(job_id).update(enabled=False, state="paused", paused_at=at(self.now_us))

    def _record(self, job_id: str) -> Any:
        return next((record for record in self.records if record["id"] == job_id), None)

    # --- claims and runs ---

    def claim_job_for_fire(
        self, job_id: str, *, force: bool = False, manual: bool = False, return_job: bool = False
    ) -> Any:
        self.asked_for += ["force"] * force + ["manual"] * manual
        record = self._record(job_id)
        if record is None or not self.wins_claims or self._is_claimed(record):
            return False
        if record["state"] == "completed" or not (force or (record["enabled"] and "paused_at" not in record)):
            return False
        record["fire_claim"] = {"at": at(self.now_us), "by": "me"}
        if record["schedule"]["kind"] != "once":
            record["next_run_at"] = at(self.now_us + 60 * MINUTE_US)
        return copy.deepcopy(record) if return_job else True

    def _is_claimed(self, record: Mapping[str, Any]) -> bool:
        claim = record.get("fire_claim")
        return claim is not None and self.now_us < parse_instant(claim["at"]) + LEASE_US

    def run_one_job(self, job: dict[str, Any], **given: Any) -> bool:
        self.given = given
        job_id = job["id"]
        self.ran.append(job_id)
        self.during_run(job_id)
        record = self._record(job_id)
        if record is None:
            return True
        record["fire_claim"] = None
        record["repeat"]["completed"] += 1
        times = record["repeat"]["times"]
        if times is not None and record["repeat"]["completed"] >= times:
            record.update(enabled=False, state="completed", next_run_at=None)
        return True

    # --- what is imported of it ---

    def modules(self) -> dict[str, ModuleType]:
        hermes = self

        class CronScheduler(ABC):
            @property
            @abstractmethod
            def name(self) -> str: ...

            @abstractmethod
            def start(self, stop_event: Any, **_: Any) -> None: ...

            @property
            def supports_force_fire(self) -> bool:
                return True

            def recover_interrupted(self) -> int:
                hermes.recovered += 1
                return 0

            def claim_fire(self, job_id: str, *, force: bool = False, manual: bool = False) -> Any:
                asked = {"force": True} if force else {}
                asked |= {"manual": True} if manual else {}
                claimed = hermes.claim_job_for_fire(job_id, return_job=True, **asked)
                return claimed | {"execution_id": "e"} if isinstance(claimed, dict) else None

            def fire_claimed(self, claimed_job: Any, **options: Any) -> bool:
                return hermes.run_one_job(claimed_job, **options)

        class InProcessCronScheduler:
            def start(self, stop_event: Any, **options: Any) -> None:
                hermes.ticks.append(options)
                stop_event.wait(options["interval"])

        return {
            "cron": ModuleType("cron"),
            "cron.jobs": _module("cron.jobs", load_jobs=self.load_jobs, get_job=self.get_job),
            "cron.scheduler_provider": _module(
                "cron.scheduler_provider",
                CronScheduler=CronScheduler,
                InProcessCronScheduler=InProcessCronScheduler,
            ),
            "hermes_cli": ModuleType("hermes_cli"),
            "hermes_cli.config": _module("hermes_cli.config", load_config=lambda: self.config),
            "hermes_cli.auth": _module(
                "hermes_cli.auth",
                get_provider_auth_state=lambda _: self.login,
                resolve_nous_access_token=lambda **options: "fresh" if options else "cached",
            ),
        }


def _module(name: str, **members: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(members)
    return module


class World:
    """A Hermes with the provider, and a NAS."""

    def __init__(self, hermes: Hermes) -> None:
        self.hermes = hermes
        self.nas = Nas()
        self.made: list[HermesCron] = []
        self.provider = self.another()
        self.stop_event = threading.Event()

    def another(self) -> HermesCron:
        """Return the provider of another process, or of the next one."""
        return self.keep(HermesCron(self.nas, clock=lambda: self.hermes.now_us))

    def keep(self, provider: HermesCron) -> HermesCron:
        """Let a provider be stopped at the end."""
        self.made.append(provider)
        return provider

    def start(self) -> None:
        self.provider.start(self.stop_event, adapters="adapters", loop="loop", interval=0.01)

    def pass_us(self, duration_us: int) -> None:
        self.hermes.now_us += duration_us

    def fire(self, job_id: str = "a", **named: Any) -> bool:
        """Let a fire arrive as Hermes's webhook passes it on; return whether the job ran."""
        claimed = self.provider.claim_fire(job_id, **named)
        return claimed is not None and self.provider.fire_claimed(claimed)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(follow_ups, "FOLLOW_UP_DELAYS_US", (1_000, 1_000, 1_000))
    hermes = Hermes()
    for name, module in hermes.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    made = World(hermes)
    yield made
    made.nas.error = None
    made.pass_us(LEASE_US)
    made.stop_event.set()
    for provider in made.made:
        provider.stop()
    until(lambda: not any(each.is_busy for provider in made.made for each in provider.pending()))


def until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.002)


# --- Start and reconcile -----------------------------------------------------------------------


def test_a_start_arms_what_is_missing_moves_what_is_wrong_and_cancels_orphans(world: World) -> None:
    """One list request, and one request for each difference (incidents L3, O1, O2)."""
    world.hermes.add("missing", T0 + HOUR_US)
    world.hermes.add("right", T0 + HOUR_US)
    world.hermes.add("wrong", T0 + HOUR_US)
    world.hermes.add("paused", T0 + HOUR_US, enabled=False, state="paused")
    world.nas.arms = {
        "right": T0 + HOUR_US,
        "wrong": None,
        "paused": T0 + HOUR_US,
        "orphan": T0 + HOUR_US,
    }
    world.start()
    assert world.nas.arms == dict.fromkeys(["missing", "right", "wrong"], T0 + HOUR_US)
    asked = ["list", "provision missing", "provision wrong", "cancel paused", "cancel orphan"]
    assert sorted(world.nas.asked) == sorted(asked)
    assert world.provider.pending() == ()


def test_starting_again_costs_one_list_request(world: World) -> None:
    """A supervisor that takes returning for dying does no damage (incident W7)."""
    world.hermes.add("a", T0 + HOUR_US)
    for _ in range(3):
        world.start()
    assert world.nas.asked == ["list", "provision a", "list", "list"]
    assert world.hermes.recovered == 1


def test_a_start_after_the_stop_does_nothing(world: World) -> None:
    """The host is on its way out."""
    world.stop_event.set()
    world.start()
    assert world.nas.asked == []


def test_a_recovery_that_fails_does_not_keep_jobs_from_being_armed(world: World) -> None:
    """The arms are more important than the record of what is over."""
    world.hermes.add("a", T0 + HOUR_US)
    provider_of = sys.modules["cron.scheduler_provider"].CronScheduler
    provider_of.recover_interrupted = lambda _: 1 / 0
    world.start()
    assert world.nas.arms == {"a": T0 + HOUR_US}


def test_instants_are_armed_to_the_second(world: World) -> None:
    """Not before the occurrence; what NAS lists is then what was asked for."""
    world.hermes.add("a", T0 + HOUR_US + 1)
    world.start()
    world.start()
    assert world.nas.arms == {"a": T0 + HOUR_US + SECOND_US}
    assert world.nas.asked == ["list", "provision a", "list"]


def test_an_overdue_job_is_woken_for_at_a_new_instant(world: World) -> None:
    """The old one may be spent at NAS, and nothing else would ever come (incidents L2, L8)."""
    world.hermes.add("a", T0 - 8 * HOUR_US)
    world.nas.arms = {"a": T0 - 8 * HOUR_US}
    world.start()
    assert world.nas.arms == {"a": T0 + SECOND_US}
    world.pass_us(SOON)
    assert world.fire(fire_at_us=T0 + SECOND_US)
    assert world.nas.arms == {"a": T0 + SOON + HOUR_US}


def test_a_fire_from_the_future_is_not_claimed(world: World) -> None:
    """Nothing is taken on it, the right arm stands, and NAS must deliver it again (incident T2)."""
    world.hermes.add("a", T0 + HOUR_US)
    world.nas.arms = {"a": T0 + 210 * DAY_US}
    with pytest.raises(NotSettled, match="still to come"):
        world.fire(fire_at_us=T0 + 210 * DAY_US)
    assert (world.nas.arms, world.hermes.ran) == ({"a": T0 + HOUR_US}, [])
    assert world.provider.claim_fire("gone", fire_at_us=T0 + 210 * DAY_US) is None


def test_an_overdue_job_that_somebody_runs_is_woken_for_at_its_next_slot(world: World) -> None:
    """A fire before the end of that run would find it claimed."""
    world.hermes.add("a", T0 - 2 * MINUTE_US, fire_claim={"at": at(T0 - MINUTE_US), "by": "another"})
    world.start()
    assert world.nas.arms == {"a": T0 + 58 * MINUTE_US}


def test_the_fire_that_woke_the_machine_keeps_its_arm(world: World) -> None:
    """It is still on its way while the start reconciles (incident W2)."""
    world.hermes.add("a", T0)
    world.nas.arms = {"a": T0}
    world.pass_us(20 * SECOND_US)
    world.start()
    assert world.nas.asked == ["list"]


def test_a_record_that_cannot_be_read_keeps_its_arm(world: World) -> None:
    """And the other jobs are looked after."""
    world.hermes.add("bad", T0 + HOUR_US, schedule={"kind": "moon"})
    world.hermes.add("a", T0 + HOUR_US)
    world.nas.arms = {"bad": T0 + 5 * HOUR_US}
    world.start()
    assert world.nas.arms == {"bad": T0 + 5 * HOUR_US, "a": T0 + HOUR_US}
    (left,) = world.provider.pending()
    assert (left.job_id, left.is_busy) == ("bad", False)
    assert "schedule.kind" in left.reason
    world.hermes.remove("bad")
    world.provider.on_jobs_changed()
    assert world.provider.pending() == ()
    assert world.nas.arms == {"a": T0 + HOUR_US}


def test_a_fire_for_a_record_that_cannot_be_read_is_not_settled(world: World) -> None:
    """NAS would take an answer for the end of the arm, and nothing would wake the mended job."""
    world.hermes.add("a", T0, schedule={"kind": "moon"})
    world.hermes.wins_claims = False
    with pytest.raises(NotSettled, match=r"jobs\.json: job a: schedule\.kind: "):
        world.provider.claim_fire("a")


def test_a_job_with_a_pause_mark_is_not_armed(world: World) -> None:
    """Hermes does not fire it, whatever its state says."""
    world.hermes.add("a", T0 + HOUR_US, paused_at=at(T0))
    world.start()
    assert world.nas.arms == {}


def test_what_nas_could_not_say_is_asked_again(world: World) -> None:
    """Nothing is believed meanwhile, and the machine stays awake for it (incident O2)."""
    world.hermes.add("a", T0 + HOUR_US)
    asked_again = threading.Event()
    world.nas.is_down_once = True
    world.nas.on_asked = lambda: len(world.nas.asked) == 1 or asked_again.wait(PATIENCE_S)
    world.start()
    assert [each.is_busy for each in world.provider.pending()] == [True]
    asked_again.set()
    until(lambda: world.nas.arms == {"a": T0 + HOUR_US})
    until(lambda: world.provider.pending() == ())


def test_what_stays_unsettled_is_told_and_lets_the_machine_sleep(world: World) -> None:
    """After a few tries; the next start mends it."""
    world.hermes.add("a", T0 + HOUR_US)
    world.nas.error = NasUnavailable("down")
    world.start()
    until(lambda: not any(each.is_busy for each in world.provider.pending()))
    (left,) = world.provider.pending()
    assert "down" in left.reason
    world.nas.error = None
    world.start()
    assert world.provider.pending() == ()


def test_a_store_that_fails_is_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hermes may raise anything."""
    world.hermes.add("a", T0 + HOUR_US)
    tries = iter([OSError("locked")])

    def load_jobs() -> list[dict[str, Any]]:
        for error in tries:
            raise error
        return world.hermes.load_jobs()

    monkeypatch.setattr(sys.modules["cron.jobs"], "load_jobs", load_jobs)
    world.start()
    until(lambda: world.nas.arms == {"a": T0 + HOUR_US})


def test_a_store_that_fails_at_a_change_is_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its author is told, and the job is armed without them."""
    record = world.hermes.add("a", T0 + HOUR_US)
    tries = iter([OSError("locked")])

    def get_job(job_id: str) -> dict[str, Any] | None:
        for error in tries:
            raise error
        return world.hermes.get_job(job_id)

    monkeypatch.setattr(sys.modules["cron.jobs"], "get_job", get_job)
    with pytest.raises(NotSettled, match="OSError: locked"):
        world.provider.register_job(record)
    until(lambda: world.nas.arms == {"a": T0 + HOUR_US})


def test_what_is_tried_again_sees_the_context_in_which_it_was_owed(world: World) -> None:
    """Hermes keeps in a context variable whose jobs it reads, and with whose login it asks."""
    home = contextvars.ContextVar("home", default="none")
    seen: list[tuple[str, str]] = []
    world.nas.on_asked = lambda: seen.append((world.nas.asked[-1], home.get()))
    for name in ("a", "b"):
        world.hermes.add(name, T0 + HOUR_US)
        world.nas.is_down_once = True
        home.set(f"home of {name}")
        with pytest.raises(NotSettled):
            world.provider.register_job({"id": name})
        home.set("home of nobody")
        until(lambda: name in world.nas.arms)  # noqa: B023 - it is asked within the loop
    world.nas.is_down_once = True
    home.set("home of all")
    world.provider.reconcile()
    until(lambda: [asked for asked, _ in seen].count("list") == 2)
    homes = {"provision a": "home of a", "provision b": "home of b", "list": "home of all"}
    assert seen == [(asked, homes[asked]) for asked, _ in seen]


def test_a_fire_while_the_host_stops_is_not_claimed(world: World) -> None:
    """NAS delivers it again, to the next process; a run that was claimed is armed to its end."""
    world.hermes.add("a", T0)
    world.hermes.add("b", T0)
    claimed = world.provider.claim_fire("a")
    world.provider.stop()
    with pytest.raises(NotSettled, match="job b: the agent is draining"):
        world.provider.claim_fire("b")
    assert world.nas.arms == {"a": T0 + HOUR_US}
    world.hermes.remove("a")
    assert claimed is not None
    world.provider.fire_claimed(claimed)
    assert world.nas.arms == {}


# --- Fires -------------------------------------------------------------------------------------


def test_the_next_occurrence_is_armed_before_the_fire_is_answered(world: World) -> None:
    """A machine that dies right after the claim loses nothing (incident L5)."""
    world.hermes.add("a", T0)
    claimed = world.provider.claim_fire("a")
    assert claimed is not None
    assert claimed["execution_id"] == "e"
    assert world.nas.arms == {"a": T0 + HOUR_US}
    assert world.hermes.ran == []


def test_the_arm_is_confirmed_after_the_run(world: World) -> None:
    """NAS's clean-up of the delivered arm may have deleted the new one (incident L10)."""
    world.hermes.add("a", T0)
    world.hermes.during_run = lambda _: world.nas.arms.clear()
    assert world.provider.fire_due("a", adapters="adapters", loop="loop")
    assert world.hermes.ran == ["a"]
    assert world.hermes.given == {"adapters": "adapters", "loop": "loop", "cancel_event": None}
    assert world.nas.arms == {"a": T0 + HOUR_US}


def test_a_fire_that_lost_its_claim_arms_the_next_slot(world: World) -> None:
    """Whoever won it may be gone by now (incidents L1, L7); the same instant again would be no arm."""
    world.hermes.add("a", T0, fire_claim={"at": at(T0 - SECOND_US), "by": "another"})
    assert world.provider.claim_fire("a", fire_at_us=T0) is None
    assert world.nas.arms == {"a": T0 + HOUR_US}


def test_a_lost_claim_without_an_arm_is_not_settled(world: World) -> None:
    """NAS delivers the fire again, which finishes it."""
    world.hermes.add("a", T0)
    world.hermes.wins_claims = False
    world.nas.error = NasUnavailable("down")
    with pytest.raises(NotSettled, match="down"):
        world.provider.claim_fire("a")


def test_a_claim_stands_though_nas_is_down(world: World) -> None:
    """The run begins, and the arm is tried again meanwhile (incident L6)."""
    world.hermes.add("a", T0)
    world.nas.is_down_once = True
    claimed = world.provider.claim_fire("a")
    assert claimed is not None
    until(lambda: world.nas.arms == {"a": T0 + HOUR_US})


def test_conflicts_have_the_time_of_one_fire_in_all(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """NAS waits for the answer for half a minute, however often it refuses the order (incident L1)."""
    steady_us = 0

    def refuse() -> None:
        nonlocal steady_us
        steady_us += 4 * SECOND_US
        raise StaleRevision(T0)

    world.hermes.add("a", T0)
    world.hermes.wins_claims = False
    world.nas.on_asked = refuse
    with monkeypatch.context() as patched:
        patched.setattr(world.provider._arms, "_steady", lambda: steady_us)
        with pytest.raises(NotSettled, match="NAS has not agreed within 10 s"):
            world.provider.claim_fire("a", fire_at_us=T0)
    assert world.nas.within_s[:3] == [10, 6, 2]


def test_a_fire_does_not_wait_for_an_earlier_request(world: World) -> None:
    """One in the background may take three times as long as the fire has (incident L1)."""
    record = world.hermes.add("a", T0)
    is_asked, may_answer = threading.Event(), threading.Event()

    def wait() -> None:
        world.nas.on_asked = lambda: None
        is_asked.set()
        may_answer.wait(PATIENCE_S)

    world.nas.on_asked = wait
    earlier = threading.Thread(target=world.provider.register_job, args=(record,))
    earlier.start()
    try:
        assert is_asked.wait(PATIENCE_S)
        world.pass_us(SECOND_US)
        assert world.provider.claim_fire("a", fire_at_us=T0) is not None
        assert not may_answer.is_set()
    finally:
        may_answer.set()
        earlier.join()
    assert world.nas.arms == {"a": T0 + SECOND_US + HOUR_US}


def test_a_redelivered_fire_is_not_claimed_again(world: World) -> None:
    """With the instant that it names, or by the clock (incident D1)."""
    world.hermes.add("a", T0)
    assert world.fire()
    world.pass_us(5 * SECOND_US)
    assert not world.fire()
    assert not world.fire(fire_at_us=T0)
    assert world.hermes.ran == ["a"]
    assert world.nas.arms == {"a": T0 + HOUR_US}


def test_a_fire_by_nas_clock_is_claimed_though_this_clock_is_behind(world: World) -> None:
    """Within the contract's allowance, or as far as clocks may differ when the fire names its instant."""
    world.hermes.add("a", T0 + CLOCK_ALLOWANCE_US)
    world.hermes.add("b", T0 + CLOCK_MARGIN_US)
    assert world.fire("a")
    assert world.fire("b", fire_at_us=T0 + CLOCK_MARGIN_US)


@pytest.mark.parametrize("asked", [{"force": True}, {"manual": True}])
def test_a_run_that_the_host_asks_for_is_claimed_before_its_time(
    world: World, asked: dict[str, bool]
) -> None:
    """It takes part in the same claim and the same re-arm."""
    world.hermes.add("a", T0 + 5 * HOUR_US)
    assert world.provider.fire_due("a", **asked)
    assert world.hermes.asked_for == list(asked)
    assert world.hermes.ran == ["a"]
    assert world.nas.arms == {"a": T0 + HOUR_US}


def test_a_fire_for_no_job_cancels_its_arm(world: World) -> None:
    """Nothing runs, and nothing is left behind (incident O1)."""
    world.nas.arms = {"a": T0}
    assert world.provider.claim_fire("a") is None
    assert world.nas.arms == {}


def test_a_claim_that_hermes_cannot_store_is_raised(world: World) -> None:
    """The transport answers 503, and NAS delivers again."""
    world.hermes.add("a", T0)
    sys.modules["cron.scheduler_provider"].CronScheduler.claim_fire = lambda *_, **__: 1 / 0
    with pytest.raises(ZeroDivisionError):
        world.provider.claim_fire("a")


# --- What a run leaves -------------------------------------------------------------------------


def test_a_job_that_is_removed_during_its_run_leaves_no_arm(world: World) -> None:
    """Nor does it run again (incident O4)."""
    world.hermes.add("a", T0)
    world.hermes.during_run = world.hermes.remove
    assert world.fire()
    assert world.nas.arms == {}


def test_a_job_that_is_paused_during_its_run_leaves_no_arm(world: World) -> None:
    """Its state counts, and not that it was enabled when it began (incident D6)."""
    world.hermes.add("a", T0)
    world.hermes.during_run = world.hermes.pause
    assert world.fire()
    assert world.nas.arms == {}


def test_a_one_shot_is_guarded_while_it_runs_and_leaves_no_arm(world: World) -> None:
    """If its process dies, the guard wakes the machine once the claim is over (incidents D3, D8)."""
    world.hermes.add_once("a", T0)
    during: list[Any] = []
    world.hermes.during_run = lambda _: during.append(dict(world.nas.arms))
    assert world.fire()
    assert during == [{"a": T0 + GUARD_US}]
    assert world.nas.arms == {}


def test_the_guard_of_a_one_shot_takes_it_over_from_a_process_that_died(world: World) -> None:
    """Hermes decides what becomes of it then."""
    world.hermes.add_once("a", T0)
    assert world.provider.claim_fire("a") is not None
    world.provider = world.another()
    assert not world.fire()
    assert world.nas.arms == {"a": T0 + GUARD_US}
    world.pass_us(GUARD_US)
    assert world.fire(fire_at_us=T0 + GUARD_US)
    assert world.nas.arms == {}


def test_the_guard_follows_a_claim_that_is_renewed(world: World) -> None:
    """The run lasts longer than its lease (incident D4)."""
    record = world.hermes.add_once("a", T0)
    world.provider.claim_fire("a")
    world.pass_us(GUARD_US)
    record["fire_claim"]["at"] = at(world.hermes.now_us - SECOND_US)
    assert not world.fire(fire_at_us=T0 + GUARD_US)
    assert world.nas.arms == {"a": T0 + 2 * GUARD_US - SECOND_US}


def test_a_one_shot_that_hermes_never_gives_away_is_tried_ever_less_often(world: World) -> None:
    """And no more once it is too late to run: the machine is not woken for nothing for ever."""
    world.hermes.add_once("a", T0)
    world.hermes.wins_claims = False
    world.start()
    waits = []
    while (fire_at_us := world.nas.arms.get("a")) is not None:
        waits.append(fire_at_us - world.hermes.now_us)
        world.hermes.now_us = fire_at_us
        assert not world.fire(fire_at_us=fire_at_us)
    assert waits == sorted(waits)
    assert len(waits) < 10
    assert world.hermes.ran == []


def test_a_one_shot_that_is_too_late_is_not_run(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """That of last week does not run today, and it is told (incident D7)."""
    world.hermes.add_once("a", T0 - MAX_GRACE_US - 1)
    world.nas.arms = {"a": T0 - MAX_GRACE_US - 1}
    assert not world.fire()
    assert world.nas.arms == {}
    world.start()
    assert world.nas.arms == {}
    assert world.hermes.ran == []
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert told == ["a fire came too late for its one-shot", "a one-shot is too late to run"]


def test_the_last_of_a_few_runs_leaves_no_arm(world: World) -> None:
    """Also when the claim had armed one more."""
    world.hermes.add("a", T0, repeat={"times": 2, "completed": 0})
    assert world.fire()
    world.pass_us(HOUR_US)
    assert world.fire()
    assert world.nas.arms == {}
    world.pass_us(HOUR_US)
    assert not world.fire()
    assert world.hermes.ran == ["a", "a"]


def test_a_run_that_raises_leaves_the_next_arm(world: World) -> None:
    """A failed run is a consumed occurrence."""
    world.hermes.add("a", T0)
    world.hermes.during_run = lambda _: 1 / 0
    with pytest.raises(ZeroDivisionError):
        world.fire()
    assert world.nas.arms == {"a": T0 + HOUR_US}
    assert world.provider.pending() == ()


def test_a_claim_that_is_taken_back_is_armed_at_a_new_instant(world: World) -> None:
    """The old one is spent, and NAS may take it for the same arm again (incident L8)."""
    record = world.hermes.add("a", T0)
    claimed = world.provider.claim_fire("a")
    assert claimed is not None
    record.update(fire_claim=None, next_run_at=at(T0))
    world.provider.rearm_aborted_claim(claimed)
    assert world.nas.arms == {"a": T0 + SECOND_US}
    assert world.provider.pending() == ()
    world.nas.error = NasUnavailable("down")
    with pytest.raises(NotSettled):
        world.provider.rearm_aborted_claim(claimed)


# --- Changes -----------------------------------------------------------------------------------


def test_a_new_job_is_armed_or_its_author_is_told(world: World) -> None:
    """A first provision that fails is not swallowed, and is tried again (incident L3)."""
    record = world.hermes.add("a", T0 + HOUR_US)
    world.nas.is_down_once = True
    with pytest.raises(NotSettled, match="job a: NasUnavailable: down"):
        world.provider.register_job(record)
    until(lambda: world.nas.arms == {"a": T0 + HOUR_US})
    world.provider.register_job(record)


def test_a_change_that_nas_refuses_does_not_raise(world: World) -> None:
    """The change is Hermes's and was made; it is tried again."""
    world.hermes.add("a", T0 + HOUR_US)
    world.nas.is_down_once = True
    world.provider.on_jobs_changed()
    until(lambda: world.nas.arms == {"a": T0 + HOUR_US})


def test_a_few_tries_at_once_are_made_for_all(world: World) -> None:
    """However many jobs are owed a request."""
    ids = [f"job-{number}" for number in range(3 * CONCURRENCY)]
    for job_id in ids:
        world.hermes.add(job_id, T0 + HOUR_US)
    main, may_ask = threading.current_thread(), threading.Event()
    asking: list[str] = []

    def ask() -> None:
        if threading.current_thread() is not main:
            asking.append("")
            may_ask.wait(PATIENCE_S)

    world.nas.on_asked = ask
    for job_id in ids:
        world.nas.is_down_once = True
        with pytest.raises(NotSettled):
            world.provider.register_job({"id": job_id})
    until(lambda: len(asking) == CONCURRENCY)
    time.sleep(0.05)
    assert len(asking) == CONCURRENCY
    may_ask.set()
    until(lambda: sorted(world.nas.arms) == sorted(ids))


def test_who_comes_late_to_the_retries_has_as_many(world: World) -> None:
    """What its author was told holds for every job, whatever others are being tried (incident L3)."""
    for job_id in ("a", "b"):
        world.hermes.add(job_id, T0 + HOUR_US)
    in_last_try, may_go_on = threading.Event(), threading.Event()

    def ask() -> None:
        if world.nas.asked == ["provision a"] * 4:
            in_last_try.set()
            may_go_on.wait(PATIENCE_S)

    world.nas.on_asked = ask
    world.nas.error = NasUnavailable("down")
    with pytest.raises(NotSettled):
        world.provider.register_job({"id": "a"})
    assert in_last_try.wait(PATIENCE_S)
    world.nas.on_asked = lambda: None
    with pytest.raises(NotSettled):
        world.provider.register_job({"id": "b"})
    may_go_on.set()
    until(lambda: not any(each.is_busy for each in world.provider.pending()))
    assert world.nas.asked.count("provision a") >= 4
    assert world.nas.asked.count("provision b") >= 4
    assert {each.job_id for each in world.provider.pending()} == {"a", "b"}


def test_jobs_are_armed_once_nas_is_back_however_long_it_was_away(world: World) -> None:
    """The host may stop the machine meanwhile; a process that lives on goes on trying (incident L14)."""
    for job_id in ("a", "b"):
        world.hermes.add(job_id, T0 + HOUR_US)
    world.nas.error = NasUnavailable("down")
    for job_id in ("a", "b"):
        with pytest.raises(NotSettled):
            world.provider.register_job({"id": job_id})
    until(lambda: not any(each.is_busy for each in world.provider.pending()))
    assert {each.job_id for each in world.provider.pending()} == {"a", "b"}
    until(lambda: len(world.nas.asked) > 10)
    world.nas.error = None
    until(lambda: world.provider.pending() == ())
    assert world.nas.arms == {"a": T0 + HOUR_US, "b": T0 + HOUR_US}


def test_a_stop_ends_what_is_tried_for_ever(world: World) -> None:
    """What is left is the next start's, which finds it."""
    world.hermes.add("a", T0 + HOUR_US)
    world.nas.error = NasUnavailable("down")
    with pytest.raises(NotSettled):
        world.provider.register_job({"id": "a"})
    until(lambda: not any(each.is_busy for each in world.provider.pending()))
    world.provider.stop()
    assert not any(each.is_busy or each.is_waiting for each in world.provider._arms.drain(PATIENCE_S))
    world.nas.error = None
    world.start()
    assert (world.nas.arms, world.provider.pending()) == ({"a": T0 + HOUR_US}, ())


def test_a_job_that_is_settled_leaves_nothing_behind(world: World) -> None:
    """An agent that makes a job for every question lives for months."""
    for number in range(20):
        world.provider.register_job(world.hermes.add(f"job-{number}", T0 + HOUR_US))
    process = world.provider._arms._process
    left = (process.tasks, process.batches, process.owed, process.unsettled, world.provider._arms._owed_in)
    assert not any(left)


def test_a_request_that_comes_late_does_not_undo_a_newer_one(world: World) -> None:
    """It is refused, the job is read again, and what it wants now is asked for (incident L9)."""
    record = world.hermes.add("a", T0 + HOUR_US)
    world.nas.revisions["a"] = T0 + DAY_US

    def change() -> None:
        record["next_run_at"] = at(T0 + 3 * HOUR_US)

    world.nas.on_asked = change
    world.provider.register_job(record)
    assert world.nas.arms == {"a": T0 + 3 * HOUR_US}
    assert world.nas.asked == ["provision a", "provision a"]


def test_an_order_that_never_settles_is_given_up(world: World) -> None:
    """A NAS that refuses every revision is a broken one."""
    record = world.hermes.add("a", T0 + HOUR_US)
    world.nas.error = StaleRevision(T0)
    with pytest.raises(NotSettled, match="StaleRevision"):
        world.provider.register_job(record)


# --- An identity that is refused ---------------------------------------------------------------


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_refused_identity_is_said_once_and_hermes_ticks(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """With what Hermes gave the start; nobody is told that a job could not be armed (incident L4)."""
    record = world.hermes.add("a", T0)
    world.nas.error = InvalidClient()
    world.start()
    until(lambda: bool(world.hermes.ticks))
    assert world.hermes.ticks[0] == {"adapters": "adapters", "loop": "loop", "interval": 0.01}
    world.provider.register_job(record)
    world.provider.on_jobs_changed()
    assert world.fire()
    assert world.nas.asked == ["list"]
    assert len(errors(caplog)) == 1
    assert "Until somebody logs the agent in" in errors(caplog)[0]
    world.start()
    assert len(errors(caplog)) == 2
    (ticking,) = world.provider.pending()
    assert ticking.is_busy


def test_a_new_login_brings_nas_back(world: World) -> None:
    """The next start asks again, and Hermes's ticker ends."""
    world.hermes.add("a", T0 + HOUR_US)
    world.nas.error = InvalidClient()
    world.start()
    world.nas.error = None
    world.start()
    assert world.nas.arms == {"a": T0 + HOUR_US}
    assert world.nas.resets == 2
    assert world.provider.pending() == ()
    ticks = len(world.hermes.ticks)
    until(lambda: not any(thread.name == "chronos-ticker" for thread in threading.enumerate()))
    assert len(world.hermes.ticks) <= ticks + 1


def test_an_identity_that_is_refused_at_a_fire_starts_the_ticker(world: World) -> None:
    """The claim is Hermes's and stands."""
    world.hermes.add("a", T0)
    world.start()
    world.nas.error = InvalidClient()
    assert world.fire()
    until(lambda: bool(world.hermes.ticks))


def test_a_process_that_was_not_started_does_not_tick(world: World) -> None:
    """A command line that changes a job is not the agent."""
    record = world.hermes.add("a", T0)
    world.nas.error = InvalidClient()
    world.provider.register_job(record)
    assert world.provider.pending() == ()
    assert world.hermes.ticks == []


def test_a_ticker_that_fails_is_started_again(world: World) -> None:
    """Cron does not lose its trigger to an exit somewhere below."""
    tries = iter([SystemExit(1)])
    ticker = sys.modules["cron.scheduler_provider"].InProcessCronScheduler
    tick = ticker.start

    def start(self: Any, *args: Any, **options: Any) -> None:
        for error in tries:
            raise error
        tick(self, *args, **options)

    ticker.start = start
    world.nas.error = InvalidClient()
    world.start()
    until(lambda: bool(world.hermes.ticks))


# --- Sleep -------------------------------------------------------------------------------------


def test_a_claim_and_a_run_keep_the_machine_awake(world: World) -> None:
    """After the answer to a fire nothing else shows that work goes on (incident W1)."""
    world.hermes.add("a", T0)
    during: list[Any] = []
    world.hermes.during_run = lambda _: during.extend(world.provider.pending())
    claimed = world.provider.claim_fire("a")
    assert claimed is not None
    before = world.provider.pending()
    world.provider.fire_claimed(claimed)
    assert [(each.job_id, each.is_busy) for each in (*before, *during)] == [("a", True), ("a", True)]
    assert world.provider.pending() == ()


def test_a_claim_that_nobody_runs_lets_the_machine_sleep_in_the_end(world: World) -> None:
    """Once its lease is over."""
    world.hermes.add("a", T0)
    world.provider.claim_fire("a")
    world.pass_us(LEASE_US)
    assert world.provider.pending() == ()


# --- Configuration, login, registration --------------------------------------------------------


@pytest.mark.usefixtures("world")
def test_hermes_is_given_a_provider() -> None:
    """What it asks of a provider and is not here is answered by its own defaults."""
    given: list[Any] = []
    register(type("Context", (), {"register_cron_scheduler": lambda _, provider: given.append(provider)})())
    (provider,) = given
    assert provider.name == "chronos"
    assert provider.is_available()
    assert provider.supports_force_fire
    assert not hasattr(provider, "nothing_of_the_kind")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda hermes: hermes.config.clear(), "cron.chronos.portal_url is missing; expected"),
        (lambda hermes: setattr(hermes, "config", None), "cron.chronos.portal_url is missing; expected"),
        (lambda hermes: setattr(hermes, "login", None), "nobody has logged the agent in"),
        (lambda hermes: setattr(hermes, "login", {}), "nobody has logged the agent in"),
        (lambda _: sys.modules.pop("hermes_cli.auth"), "Hermes could not be asked: ModuleNotFoundError"),
        (
            lambda _: delattr(sys.modules["cron.scheduler_provider"].CronScheduler, "claim_fire"),
            "this Hermes is too old",
        ),
    ],
)
def test_it_is_not_available_without_configuration_and_login(
    world: World, change: Callable[[Hermes], object], why: str
) -> None:
    """Nothing is asked of NAS to find out."""
    change(world.hermes)
    assert not world.provider.is_available()
    assert world.provider.why_unavailable().startswith(why)
    assert world.nas.asked == []


def test_the_client_is_made_of_hermes_configuration_and_login(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it is needed, and once."""
    made: list[dict[str, Any]] = []

    def client(portal_url: str, **rest: Any) -> Nas:
        made.append(rest | {"portal_url": portal_url})
        return world.nas

    monkeypatch.setattr("chronos.provider.hermes.NasClient", client)
    provider = world.keep(HermesCron(clock=lambda: T0))
    provider.start(world.stop_event)
    provider.reconcile()
    (arguments,) = made
    token = arguments.pop("token_provider")
    assert arguments == {"portal_url": "https://portal.example", "callback_url": "https://agent.example"}
    assert [token(False), token(True)] == ["cached", "fresh"]


def test_a_start_with_a_configuration_that_broke_is_tried_again(world: World) -> None:
    """It does not raise: the resolver had found it good."""
    provider = world.keep(HermesCron(clock=lambda: T0))
    world.hermes.config = {}
    provider.start(world.stop_event)
    assert "portal_url is missing" in provider.pending()[0].reason
    until(lambda: not provider.pending()[0].is_busy)


# --- The wake of a job -------------------------------------------------------------------------

MINUTES = st.integers(-300, 300).map(lambda minutes: T0 + minutes * MINUTE_US)


@given(
    next_us=MINUTES,
    is_once=st.booleans(),
    claimed_us=st.none() | MINUTES.filter(lambda instant_us: instant_us <= T0),
    spent_us=st.sampled_from([T0, T0 - MINUTE_US]),
    is_lost=st.booleans(),
)
def test_a_wake_is_ahead_or_is_the_occurrence_itself(
    next_us: Instant, is_once: bool, claimed_us: Instant | None, spent_us: Instant, is_lost: bool
) -> None:
    """No spent instant is armed again, and no recurring job is ever without an arm."""
    hermes = Hermes()
    claim = None if claimed_us is None else {"at": at(claimed_us), "by": "another"}
    record = (hermes.add_once if is_once else hermes.add)("a", next_us, fire_claim=claim)
    job = read_hermes_job(record, T0)
    wake_us = job.wake_us(T0, spent_us=spent_us, is_lost=is_lost)
    if wake_us is None:
        assert is_once
        assert job.is_missed(T0)
    else:
        assert wake_us > spent_us
        assert wake_us == next_us or wake_us > T0
        assert wake_us % SECOND_US == 0


@pytest.mark.parametrize(
    "claim", [None, "text", {}, {"at": 7}, {"at": "yesterday"}, {"at": format_instant(T0 - LEASE_US)}]
)
def test_a_claim_that_is_over_or_cannot_be_read_is_none(claim: Any) -> None:
    """As for Hermes."""
    record = Hermes().add("a", T0, fire_claim=claim)
    assert not read_hermes_job(record, T0).is_claimed(T0)


def test_a_clock_that_is_behind_does_not_arm_the_lost_occurrence_again() -> None:
    """The fire names it, and it is ahead of this clock (incident W4)."""
    job = read_hermes_job(Hermes().add("a", T0 + MINUTE_US), T0)
    wake_us = job.wake_us(T0, spent_us=T0 + MINUTE_US, is_lost=True)
    assert wake_us == following(job.job, T0 + MINUTE_US) == T0 + MINUTE_US + HOUR_US
