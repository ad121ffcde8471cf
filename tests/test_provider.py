"""Providers over the scheduler, the resolver between them, and what the configuration says."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import chronos
from chronos.errors import InvalidClient, JobsFileError, NasUnavailable, StoreError
from chronos.jobs.instants import HOUR_US, MINUTE_US, Instant, parse_instant
from chronos.jobs.job import Job, JobState
from chronos.jobs.policy import Policy
from chronos.jobs.schedule import Interval, Once
from chronos.nas.exchange import ArmAnswer
from chronos.protocol import follow_ups
from chronos.provider import (
    BuiltinCron,
    CronScheduler,
    ManagedCron,
    NotSettled,
    Settings,
    SettingsError,
    VerifierSettings,
    provider_from,
    resolve,
    settings_from,
)
from chronos.stores import MemoryStore

T0 = parse_instant("2026-06-26T12:00:00+00:00")
HOURLY = Interval(period_us=HOUR_US, anchor_us=T0)
PATIENCE_S = 10.0


class FakeNas:
    """NAS in memory: what is armed, and what was asked."""

    def __init__(self) -> None:
        self.arms: dict[str, Instant | None] = {}
        self.asked: list[str] = []
        self.resets = 0
        self.error: Exception | None = None
        self.on_asked: Callable[[], object] = lambda: None

    def provision(self, job_id: str, fire_at_us: Instant, **_: Any) -> ArmAnswer:
        self._ask(f"provision {job_id}")
        self.arms[job_id] = fire_at_us
        return ArmAnswer(echoed=True)

    def cancel(self, job_id: str, **_: Any) -> ArmAnswer:
        self._ask(f"cancel {job_id}")
        self.arms.pop(job_id, None)
        return ArmAnswer(echoed=True)

    def list_arms(self, **_: Any) -> Mapping[str, Instant | None]:
        self._ask("list")
        return dict(self.arms)

    def reset(self) -> None:
        self.resets += 1

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        self.on_asked()
        if self.error is not None:
            raise self.error


def hourly(job_id: str = "a", next_us: Instant = T0 + HOUR_US, **changes: Any) -> Job:
    return Job(id=job_id, schedule=HOURLY, next_us=next_us, **changes)


def managed(
    *jobs: Job, nas: FakeNas | None = None, now_us: Instant = T0, run: Callable[[Any], Any] = lambda _: None
) -> ManagedCron:
    store = MemoryStore(jobs)
    return ManagedCron(store, nas or FakeNas(), run, has_login=lambda: True, clock=lambda: now_us)


def until(is_so: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.002)


def quiet(provider: ManagedCron) -> None:
    until(lambda: not any(each.is_busy for each in provider.pending()))


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow_ups, "FOLLOW_UP_DELAYS_US", (10_000, 10_000, 10_000))


# --- The managed provider ----------------------------------------------------------------------


def test_both_are_providers() -> None:
    """They have what a host calls."""
    providers: list[CronScheduler] = [managed(), BuiltinCron(MemoryStore(), lambda _: None)]
    assert [provider.name for provider in providers] == ["chronos", "builtin"]


def test_a_managed_start_arms_every_job_and_returns() -> None:
    """Nothing is left running between fires."""
    nas = FakeNas()
    provider = managed(hourly("a"), hourly("b"), nas=nas)
    provider.start(threading.Event())
    assert nas.arms == {"a": T0 + HOUR_US, "b": T0 + HOUR_US}
    assert provider.pending() == ()


def test_starting_again_costs_one_list_request() -> None:
    """A supervisor that takes returning for dying does no damage (incident W7)."""
    nas = FakeNas()
    provider = managed(hourly(), nas=nas)
    stop_event = threading.Event()
    provider.start(stop_event)
    nas.asked.clear()
    for _ in range(3):
        provider.start(stop_event)
    assert nas.asked == ["list", "list", "list"]


def test_starting_again_watches_the_stop_event_once() -> None:
    """A supervisor's restarts leave no threads behind."""
    provider = managed(hourly())
    stop_event = threading.Event()
    before = threading.active_count()
    for _ in range(5):
        provider.start(stop_event)
    assert threading.active_count() <= before + 1
    stop_event.set()


def test_a_new_stop_event_at_every_start_leaves_no_threads_behind() -> None:
    """Of several, the last one counts; the others may be set or not, ever."""
    provider = managed(hourly())
    stop_events = [threading.Event() for _ in range(5)]
    before = threading.active_count()
    for stop_event in stop_events:
        provider.start(stop_event)
    assert threading.active_count() <= before + 1
    stop_events[0].set()
    provider.start(stop_events[-1])
    assert not provider.scheduler.is_draining
    stop_events[-1].set()
    until(lambda: provider.scheduler.is_draining)
    provider.start(again := threading.Event())
    assert not provider.scheduler.is_draining
    again.set()
    until(lambda: provider.scheduler.is_draining)


def test_a_start_after_the_stop_does_nothing() -> None:
    """The host is on its way out."""
    nas = FakeNas()
    stopped = threading.Event()
    stopped.set()
    managed(hourly(), nas=nas).start(stopped)
    assert nas.asked == []


def test_the_stop_event_turns_fires_away() -> None:
    """NAS delivers them again, to the next process."""
    provider = managed(hourly(next_us=T0))
    stop_event = threading.Event()
    provider.start(stop_event)
    stop_event.set()
    until(lambda: provider.scheduler.is_draining)
    with pytest.raises(NotSettled, match="draining"):
        provider.claim_fire("a", fire_at_us=T0)


def test_availability_is_the_stored_login() -> None:
    """And the reason is told."""
    nas = FakeNas()
    provider = ManagedCron(MemoryStore(), nas, lambda _: None, has_login=lambda: False)
    assert not provider.is_available()
    assert provider.why_unavailable() == "nobody has logged the agent in"
    assert nas.asked == []


def test_a_fire_runs_the_job_and_arms_the_next() -> None:
    """Claimed and armed before it is answered."""
    nas = FakeNas()
    ran = []
    provider = managed(hourly(next_us=T0), nas=nas, run=lambda context: ran.append(context.occurrence_us))
    claimed = provider.claim_fire("a", fire_at_us=T0)
    assert nas.arms == {"a": T0 + HOUR_US}
    assert claimed is not None
    assert provider.fire_claimed(claimed)
    quiet(provider)
    assert ran == [T0]


def test_a_fire_that_names_no_instant_takes_what_is_due() -> None:
    """Also when this machine's clock is behind NAS's, by as much as the contract allows."""
    provider = managed(hourly(next_us=T0 + 20_000_000))
    assert provider.fire_due("a")
    quiet(provider)


def test_a_fire_that_is_delivered_again_runs_nothing() -> None:
    """With or without its instant (incident D1)."""
    provider = managed(hourly(next_us=T0))
    assert provider.fire_due("a")
    quiet(provider)
    assert provider.claim_fire("a") is None
    assert provider.claim_fire("a", fire_at_us=T0) is None
    assert not provider.fire_due("nobody")


@pytest.mark.parametrize(
    "error",
    [
        StoreError("jobs.json cannot be read", definite=True),
        JobsFileError("jobs.json", "a", "repeat", "is 3"),
    ],
)
@pytest.mark.parametrize("named", [{}, {"fire_at_us": T0}])
def test_a_fire_whose_job_cannot_be_read_is_not_settled(error: Exception, named: dict[str, Any]) -> None:
    """Whether it names an instant or not: NAS has to come back."""

    class Broken(MemoryStore):
        def load(self, _job_id: str) -> Job | None:
            raise error

    provider = ManagedCron(Broken(), FakeNas(), lambda _: None, has_login=lambda: True, clock=lambda: T0)
    with pytest.raises(NotSettled, match="job a: "):
        provider.claim_fire("a", **named)


def test_a_fire_whose_arm_fails_is_not_settled() -> None:
    """The run has started; NAS has to deliver again all the same (incident L6)."""
    nas = FakeNas()
    started, may_end = threading.Event(), threading.Event()

    def run(_: object) -> None:
        started.set()
        assert may_end.wait(PATIENCE_S)

    provider = managed(hourly(next_us=T0), nas=nas, run=run)
    nas.error = NasUnavailable("down")
    with pytest.raises(NotSettled, match="a: claimed"):
        provider.claim_fire("a", fire_at_us=T0)
    assert started.wait(PATIENCE_S)
    nas.error = None
    may_end.set()
    until(lambda: nas.arms == {"a": T0 + HOUR_US})
    quiet(provider)


@pytest.mark.parametrize("asked", [{"force": True}, {"manual": True}])
def test_a_run_by_hand_takes_no_slot(asked: dict[str, bool]) -> None:
    """The next scheduled occurrence stays as it was (incident D2)."""
    nas = FakeNas()
    provider = managed(hourly(), nas=nas)
    assert provider.claim_fire("a", **asked) == {"id": "a"}
    quiet(provider)
    assert nas.arms == {"a": T0 + HOUR_US}


def test_a_new_job_is_armed_or_its_author_is_told() -> None:
    """A first provision that fails is not swallowed (incident L3)."""
    nas = FakeNas()
    provider = managed(hourly(), nas=nas)
    provider.register_job({"id": "a", "prompt": "anything"})
    assert nas.arms == {"a": T0 + HOUR_US}
    nas.error = NasUnavailable("down")
    with pytest.raises(NotSettled, match="not registered at NAS"):
        provider.register_job({"id": "a"})
    nas.error = None
    quiet(provider)


def test_a_change_past_the_scheduler_is_armed() -> None:
    """The host has written to the store itself."""
    nas = FakeNas()
    store = MemoryStore([hourly()])
    provider = ManagedCron(store, nas, lambda _: None, has_login=lambda: True, clock=lambda: T0)
    provider.start(threading.Event())
    store.swap("a", expected=hourly(), replacement=hourly(state=JobState.PAUSED, revision=1))
    provider.on_jobs_changed()
    assert nas.arms == {}


def test_a_change_while_draining_does_not_end_the_drain() -> None:
    """Only a start does."""
    provider = managed(hourly())
    provider.stop()
    provider.on_jobs_changed()
    assert provider.scheduler.is_draining


def test_a_stop_during_a_change_is_not_undone_by_it() -> None:
    """It may come when the change has looked whether there is one, and NAS is asked already."""
    nas = FakeNas()
    provider = managed(hourly(), nas=nas)
    provider.start(threading.Event())
    nas.on_asked = provider.stop
    provider.on_jobs_changed()
    assert provider.scheduler.is_draining


def test_a_refused_identity_is_said_once_and_the_process_ticks(caplog: pytest.LogCaptureFixture) -> None:
    """Jobs run on; a change of a job does not ask NAS again (incident L4)."""
    nas = FakeNas()
    nas.error = InvalidClient()
    ran = threading.Event()
    provider = managed(hourly(next_us=T0), nas=nas, run=lambda _: ran.set())
    provider.start(threading.Event())
    assert ran.wait(PATIENCE_S)
    provider.on_jobs_changed()
    assert nas.asked == ["list"]
    told = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(told) == 1
    provider.stop()
    quiet(provider)


def test_a_provider_is_made_from_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client of NAS gets both URLs and the token."""
    made: dict[str, Any] = {}

    def client(portal_url: str, **rest: Any) -> FakeNas:
        made.update(rest, portal_url=portal_url)
        return FakeNas()

    monkeypatch.setattr("chronos.provider.managed.NasClient", client)
    settings = Settings(portal_url="https://portal.example", callback_url="https://agent.example")
    provider = ManagedCron.from_settings(
        settings, MemoryStore(), lambda _: None, token_provider=str, has_login=lambda: True
    )
    assert provider.is_available()
    assert made == {
        "portal_url": "https://portal.example",
        "callback_url": "https://agent.example",
        "token_provider": str,
    }


# --- The built-in provider ---------------------------------------------------------------------


def ticking(provider: BuiltinCron, stop_event: threading.Event) -> threading.Thread:
    thread = threading.Thread(
        target=provider.start, args=(stop_event,), kwargs={"interval": 0.01}, daemon=True
    )
    thread.start()
    return thread


def test_the_builtin_ticker_fires_until_the_host_stops() -> None:
    """Its start lasts as long as it ticks."""
    ran = threading.Event()
    provider = BuiltinCron(MemoryStore([hourly(next_us=T0)]), lambda _: ran.set(), clock=lambda: T0)
    stop_event = threading.Event()
    thread = ticking(provider, stop_event)
    assert ran.wait(PATIENCE_S)
    assert thread.is_alive()
    stop_event.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert provider.scheduler.is_draining


def test_the_builtin_ticker_ends_with_stop_alone() -> None:
    """Within an interval."""
    provider = BuiltinCron(MemoryStore(), lambda _: None)
    thread = ticking(provider, threading.Event())
    until(lambda: bool(provider.pending()))
    provider.stop()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_the_builtin_ticker_can_be_started_again() -> None:
    """A stop is not the end of the process."""
    ran = []
    provider = BuiltinCron(
        MemoryStore([hourly(next_us=T0)]), lambda _: ran.append(1), clock=lambda: T0 + MINUTE_US
    )
    for _ in range(2):
        stop_event = threading.Event()
        thread = ticking(provider, stop_event)
        until(lambda: bool(provider.pending()))
        provider.on_jobs_changed()
        stop_event.set()
        thread.join(PATIENCE_S)
    assert provider.is_available()
    assert len(ran) <= 1


def test_a_process_that_was_not_started_fires_nothing() -> None:
    """A command line that changes a job is not the agent."""
    provider = BuiltinCron(MemoryStore([hourly(next_us=T0)]), lambda _: None, clock=lambda: T0)
    provider.on_jobs_changed()
    provider.register_job({"id": "a"})
    assert provider.pending() == ()


def test_both_keep_the_same_policies() -> None:
    """What is too late is missed, whoever fires."""
    late = Job(id="a", schedule=Once(at_us=T0), next_us=T0, policy=Policy(misfire_grace_us=MINUTE_US))
    builtin = BuiltinCron(MemoryStore([late]), lambda _: None, clock=lambda: T0 + HOUR_US)
    by_nas = managed(late, now_us=T0 + HOUR_US)
    for provider in (builtin, by_nas):
        assert provider.claim_fire("a", fire_at_us=T0) is None
        assert [outcome.result for outcome in provider.scheduler.history("a")] == ["missed"]


# --- The resolver ------------------------------------------------------------------------------


class Third:
    """A provider of somebody else, with no more than what is required."""

    name = "third"

    def __init__(self) -> None:
        self.started = 0
        self.stopped = 0
        self.error: BaseException | None = None

    def is_available(self) -> bool:
        return True

    def start(self, _: threading.Event, **__: Any) -> None:
        self.started += 1
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        self.stopped += 1


class Fallback(Third):
    name = "builtin"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("name", ["", "  ", None, "builtin", "in-process", "inprocess"])
def test_no_name_is_the_builtin_ticker(name: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """Without a warning: it is what was asked for."""
    fallback: Any = Fallback()
    assert resolve(name, {"third": Third}, fallback) is fallback
    assert warnings(caplog) == []


@pytest.mark.parametrize("made", [Third, Third(), lambda: Third()], ids=["class", "instance", "factory"])
def test_the_named_provider_is_used(made: Any, caplog: pytest.LogCaptureFixture) -> None:
    """However it was discovered."""
    fallback: Any = Fallback()
    provider = resolve(" third ", {"third": made}, fallback)
    provider.start(threading.Event())
    assert provider.name == "third"
    assert fallback.started == 0
    assert warnings(caplog) == []


def _raising(error: BaseException) -> Callable[[], Any]:
    def make() -> Any:
        raise error

    return make


def _with(**methods: Any) -> Any:
    return type("Odd", (Third,), methods)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (None, "no such provider was found (found: other)"),
        (_raising(ImportError("no module")), "it fails to load (ImportError: no module)"),
        (_raising(SystemExit(2)), "it fails to load (SystemExit: 2)"),
        (_raising(GeneratorExit()), "it fails to load (GeneratorExit)"),
        (_raising(asyncio.CancelledError()), "it fails to load (CancelledError)"),
        (_raising(ExceptionGroup("two", [ValueError()])), "it fails to load (ExceptionGroup: two"),
        (lambda: None, "what was loaded is no provider (None)"),
        (lambda: "text", "what was loaded is no provider ('text')"),
        (_with(is_available=lambda _: False), "it is not available."),
        (
            _with(is_available=lambda _: False, why_unavailable=lambda _: "no login"),
            "it is not available (no login).",
        ),
        (_with(is_available=lambda _: 1 / 0), "it fails to load (ZeroDivisionError"),
    ],
)
def test_what_cannot_be_used_leaves_the_builtin_ticker(
    made: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With one warning that says why, and what to do."""
    fallback: Any = Fallback()
    discovered = {"other": Third} if made is None else {"third": made}
    assert resolve("third", discovered, fallback) is fallback
    (told,) = warnings(caplog)
    assert told.startswith(f"cron.provider is 'third', but {why}")
    assert "and restart. Until then the built-in ticker runs the jobs" in told


def test_a_name_that_is_no_text_leaves_the_builtin_ticker(caplog: pytest.LogCaptureFixture) -> None:
    """A configuration may say anything."""
    fallback: Any = Fallback()
    assert resolve(3, {}, fallback) is fallback
    assert warnings(caplog)[0].startswith("cron.provider is 3, but no such provider was found (found: none")


def test_an_interrupt_by_the_operator_is_passed_on() -> None:
    """It is about the process, and not about the provider."""
    fallback: Any = Fallback()
    with pytest.raises(KeyboardInterrupt):
        resolve("third", {"third": _raising(KeyboardInterrupt())}, fallback)
    third: Any = Third()
    third.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        resolve("third", {"third": third}, fallback).start(threading.Event())
    assert fallback.started == 0


@pytest.mark.parametrize("error", [RuntimeError("no store"), SystemExit(1)])
def test_a_start_that_fails_leaves_the_builtin_ticker(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """From then on it does the work, and is told so once."""
    fallback, third = Fallback(), Third()
    third.error = error
    provider = resolve("third", {"third": third}, fallback)
    provider.start(threading.Event(), adapters={"a": 1}, loop=None, interval=60)
    provider.start(threading.Event())
    assert (third.started, third.stopped, fallback.started) == (1, 1, 2)
    assert provider.name == "builtin"
    (told,) = warnings(caplog)
    assert told.startswith("cron.provider is 'third', but its start failed (")


def test_a_start_that_fails_may_leave_a_broken_stop() -> None:
    """The built-in ticker takes over all the same."""
    fallback, third = Fallback(), Third()
    third.error = RuntimeError("no store")
    third.stop = lambda: 1 / 0
    resolve("third", {"third": third}, fallback).start(threading.Event())
    assert fallback.started == 1


def test_a_start_that_fails_at_the_stop_starts_nothing() -> None:
    """The host is on its way out."""
    fallback, third = Fallback(), Third()
    third.error = RuntimeError("closed")
    stopped = threading.Event()
    stopped.set()
    resolve("third", {"third": third}, fallback).start(stopped)
    assert fallback.started == 0


def test_a_fallback_that_fails_says_so() -> None:
    """There is nothing behind it; a supervisor may start it again."""
    fallback, third = Fallback(), Third()
    third.error, fallback.error = RuntimeError("one"), RuntimeError("two")
    provider = resolve("third", {"third": third}, fallback)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="two"):
            provider.start(threading.Event())
    assert (fallback.started, fallback.stopped) == (2, 0)


# --- The configuration -------------------------------------------------------------------------

CONFIG = {
    "cron": {
        "provider": "chronos",
        "chronos": {
            "portal_url": "https://portal.example ",
            "callback_url": "https://agent.example/base",
            "expected_audience": "agent:inst-1",
            "nas_jwks_url": "https://portal.example/jwks.json",
        },
    }
}


def test_the_configuration_is_read() -> None:
    """As values, without space around them."""
    assert settings_from(CONFIG, launch=CONFIG) == Settings(
        portal_url="https://portal.example",
        callback_url="https://agent.example/base",
        verifier=VerifierSettings(
            audience="agent:inst-1",
            issuer="https://portal.example",
            jwks_url="https://portal.example/jwks.json",
        ),
    )


def test_the_verifier_does_not_believe_a_profile() -> None:
    """What a tenant may change names no keys, and nobody whom the access token is sent to."""
    launch = {"cron": {"chronos": CONFIG["cron"]["chronos"] | {"portal_url": "https://real.example"}}}
    profile = {"cron": {"chronos": CONFIG["cron"]["chronos"] | {"nas_jwks_url": "https://evil.example"}}}
    settings = settings_from(profile, launch=launch)
    assert settings.verifier is not None
    assert settings.verifier.issuer == "https://real.example"
    assert settings.portal_url == "https://real.example"
    assert settings.verifier.jwks_url == "https://portal.example/jwks.json"
    assert settings_from(profile).verifier is None


def test_every_problem_is_told_at_once() -> None:
    """Which key, what was found, what was expected."""
    config = {"cron": {"chronos": {"portal_url": "not read", "callback_url": 7}}}
    launch = {"cron": {"chronos": {"portal_url": "portal.example", "expected_audience": "inst-1"}}}
    with pytest.raises(SettingsError) as raised:
        settings_from(config, launch=launch)
    assert raised.value.problems == (
        "cron.chronos.callback_url is 7; expected an http or https URL",
        "cron.chronos.portal_url of the launch configuration is 'portal.example'; "
        "expected an http or https URL",
        "cron.chronos.expected_audience of the launch configuration is 'inst-1'; "
        "expected agent:{instance_id}",
        "cron.chronos.nas_jwks_url of the launch configuration is missing; expected an http or https URL",
    )
    assert str(raised.value) == "; ".join(raised.value.problems)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"cron": "chronos"}, "cron is 'chronos'; expected a mapping with chronos"),
        ({"cron": {"chronos": []}}, "cron.chronos is []; expected a mapping with portal_url"),
        ({}, "cron.chronos.portal_url is missing; expected an http or https URL"),
        ({"cron": None}, "cron.chronos.portal_url is missing; expected an http or https URL"),
    ],
)
def test_a_configuration_of_another_shape_is_refused(config: Any, problem: str) -> None:
    """By the key where it goes wrong."""
    with pytest.raises(SettingsError) as raised:
        settings_from(config)
    assert raised.value.problems[0] == problem


@pytest.mark.parametrize(
    ("portal_url", "problem"),
    [
        ("https://agent:secret@portal.example", "has a user or a password in it; expected a URL without"),
        ("https://secret@portal.example/x", "has a user or a password in it; expected a URL without"),
        ("agent:secret@portal.example", "is not shown, since it may have a password in it; expected an http"),
        ("ftp://agent:secret@portal.example", "is not shown"),
        (["https://agent:secret@portal.example"], "is not shown"),
    ],
)
def test_a_password_in_a_url_is_refused_and_not_shown(portal_url: Any, problem: str) -> None:
    """The message goes to logs and status lines."""
    config = {"cron": {"chronos": CONFIG["cron"]["chronos"] | {"portal_url": portal_url}}}
    with pytest.raises(SettingsError, match=problem) as raised:
        settings_from(config)
    assert "secret" not in str(raised.value)


def test_an_at_sign_after_the_host_is_no_user() -> None:
    """It may be part of a path."""
    chronos_section = CONFIG["cron"]["chronos"] | {"callback_url": "https://agent.example/@me/a@b"}
    assert settings_from({"cron": {"chronos": chronos_section}}).callback_url.endswith("@b")


@pytest.mark.parametrize(
    ("config", "name"),
    [(CONFIG, "chronos"), ({}, ""), ({"cron": {}}, ""), ({"cron": {"provider": None}}, "")],
)
def test_the_name_of_the_provider_is_read(config: Any, name: str) -> None:
    """Empty is the built-in ticker."""
    assert provider_from(config) == name


@pytest.mark.parametrize("config", [{"cron": {"provider": 3}}, {"cron": 3}])
def test_a_name_that_is_none_is_refused(config: Any) -> None:
    """With what was found."""
    with pytest.raises(SettingsError, match="is 3; expected"):
        provider_from(config)


# --- The plugin --------------------------------------------------------------------------------


def test_the_plugin_is_described_where_the_package_is() -> None:
    """Hosts read it; its entry point is the function, and its version the package's."""
    yaml = pytest.importorskip("yaml")
    about = yaml.safe_load(Path(chronos.__file__).with_name("plugin.yaml").read_text(encoding="utf-8"))
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    assert about["version"] == project["version"]
    assert about["name"] == ManagedCron.name
    assert about["kind"] == "exclusive"
    assert about["description"]
    module, _, function = about["entry_point"].partition(":")
    registered: list[Any] = []
    context = type("Context", (), {"register_cron_scheduler": lambda _, it: registered.append(it)})()
    getattr(import_module(module), function)(context)
    (provider,) = registered
    assert provider.name == about["name"]


def test_the_providers_are_imported_without_hermes_and_without_http() -> None:
    """A host that has neither loads them all the same."""
    code = (
        "import sys, chronos.provider as p; hermes = p.HermesCron();"
        "assert not hermes.is_available(); print(hermes.why_unavailable());"
        "assert not hasattr(hermes, 'anything');"
        "assert not {'httpx', 'jwt', 'cron', 'hermes_cli'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "No module named 'hermes_cli'" in done.stdout
