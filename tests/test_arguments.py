"""Arguments are checked where they are given: each mistake is one clear exception, and none comes later."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest

import chronos
from chronos import (
    AsyncCachedToken,
    AsyncNasClient,
    AsyncScheduler,
    CachedToken,
    ChronosError,
    Cron,
    FireEndpoint,
    FireVerifier,
    Interval,
    JobSpec,
    JsonFileStore,
    MemoryStore,
    NasClient,
    Once,
    Policy,
    Scheduler,
    SqlStore,
    lateness,
    next_after,
    next_times,
    parse_schedule,
    provider,
)
from chronos.contract.messages import FireClaims
from chronos.jobs.instants import DAY_US, SECOND_US
from tests.agents import T0, MakeWorld, Nas, every_hour

NOON = datetime(2026, 6, 26, 12, tzinfo=UTC)
NAIVE = datetime(2026, 6, 26, 12)  # noqa: DTZ001 - it is refused
NAN, INF = float("nan"), float("inf")


def no_op(*_: object, **__: object) -> None:
    """Do nothing."""


async def async_no_op(*_: object, **__: object) -> None:
    """Do nothing, later."""


def true() -> bool:
    return True


# What nobody can mean, by what is asked for.
NO_TEXT = (7, b"text", ["text"])
NO_ID = ("", 7, None, "x" * 201, "a\nb")
NO_FUNCTION = ("text", 7, True, [no_op])
NO_SYNC_FUNCTION = (*NO_FUNCTION, async_no_op)
NO_FLAG = ("no", 1, None)
NO_SECONDS = ("5", -1, NAN, INF, True, timedelta(seconds=1))
NO_INSTANT = (NAIVE, date(2026, 6, 26), 1.5, "2026-06-26", True, T0)
NO_INSTANT_US = (NOON, 1.5, "7", True, 10**20)
NO_DURATION = (-timedelta(1), 1.5, "1h", True, 60)
NO_DURATION_US = (-1, 1.5, "1h", True, timedelta(hours=1))
NO_SCHEDULE = (NAIVE, date(2026, 6, 26), 7, 1.5, None, "whenever", -timedelta(1), timedelta(milliseconds=1))
NO_ZONE = (7, "", "Atlantis/Sunken", b"UTC")
NO_POLICY = ("skip", 7, {"attempts": 2})
NO_TIMES = (0, -1, 1.5, "3", True)
NO_MAPPING = ("text", 7, ["text"])
NO_JOBS = ("j", 7, None, ["j"], [("j", "1h")])
NO_URL = ("", "agent.example", "ftp://agent.example", 7, None)
CLOCK = (*NO_SYNC_FUNCTION, lambda: 1.5, lambda: None)


class AsyncStore(MemoryStore):
    """A store whose answers would have to be awaited, which nobody does."""

    async def load_all(self) -> Any:
        return ()


SCHEDULER: dict[str, tuple[object, ...]] = {
    "store": ("jobs.json", None, Path("jobs.json"), MemoryStore, AsyncStore()),
    "runner": ("run", None, 7),
    "owner": ("", 7),
    "clock": CLOCK,
    "is_dead": NO_SYNC_FUNCTION,
    "is_stopped": NO_SYNC_FUNCTION,
    "hooks": (no_op, "hooks", 7, None, [7], [async_no_op], [no_op, None]),
}
CLIENT: dict[str, tuple[object, ...]] = {
    "portal_url": NO_URL,
    "callback_url": NO_URL,
    "timeout_s": (*NO_SECONDS, 0, None),
    "retry_for_s": (*NO_SECONDS, None),
    "clock": NO_SYNC_FUNCTION,
    "monotonic": NO_SYNC_FUNCTION,
    "random": NO_SYNC_FUNCTION,
}
STORE: dict[str, tuple[object, ...]] = {
    "history_length": (0, -1, 1.5, "5", True, None),
    "now_us": NO_SYNC_FUNCTION,
}
METHODS: dict[str, dict[str, tuple[object, ...]]] = {
    "start": {},
    "reconcile": {},
    "fire_was_refused": {"why": (7, None)},
    "fire": {
        "job_id": NO_ID,
        "fire_at_us": (*NO_INSTANT_US, None),
        "fire_at": NO_INSTANT,
        "minted": NO_INSTANT,
        "minted_us": NO_INSTANT_US,
        "received": NO_INSTANT,
        "received_us": NO_INSTANT_US,
    },
    "create": {
        "job_id": NO_ID,
        "schedule": NO_SCHEDULE,
        "tz": (*NO_ZONE, None),
        "times": NO_TIMES,
        "policy": NO_POLICY,
        "data": ({1}, NAN, NOON),
    },
    "edit": {
        "job_id": NO_ID,
        "schedule": tuple(value for value in NO_SCHEDULE if value is not None),
        "tz": NO_ZONE,
        "times": (-1, 1.5, "3", True),
        "policy": NO_POLICY,
        "data": ({1}, NAN, NOON),
    },
    "declare": {"jobs": NO_JOBS, "remove_others": NO_FLAG},
    "pause": {"job_id": NO_ID, "note": (*NO_TEXT, None)},
    "resume": {"job_id": NO_ID, "from_now": NO_FLAG},
    "remove": {"job_id": NO_ID},
    "run_now": {
        "job_id": NO_ID,
        "asked": (*NO_INSTANT, NOON - timedelta(days=400), NOON + timedelta(days=1)),
        "asked_us": (*NO_INSTANT_US, 0, T0 // SECOND_US, T0 + DAY_US),
    },
    "get": {"job_id": (7, None)},
    "jobs": {},
    "history": {"job_id": (7, None)},
    "status": {},
    "pending": {},
    "drain": {"timeout_s": (*NO_SECONDS, None)},
}
# Of each method, what is given beside what is wrong; `fire_at_us` must not be given beside `fire_at`.
GOOD: dict[str, dict[str, Any]] = {
    "fire": {"job_id": "j", "fire_at_us": T0},
    "create": {"job_id": "k", "schedule": "1h"},
    "edit": {"job_id": "j", "schedule": "0 3 * * *"},
    "declare": {"jobs": []},
    **{name: {"job_id": "j"} for name in ("pause", "resume", "remove", "run_now", "get", "history")},
    "drain": {"timeout_s": 0},
}


@attrs.frozen
class Subject:
    """Something that can be called, with arguments that are good, and for each argument what is wrong."""

    name: str
    call: Callable[..., Any]
    good: dict[str, Any]
    wrong: dict[str, tuple[object, ...]]
    may_have_others: bool = False


def verifier() -> FireVerifier:
    return FireVerifier("agent:a", jwks_url="https://portal.example/jwks.json")


def client(kind: str) -> dict[str, Any]:
    urls = {"portal_url": "https://portal.example", "callback_url": "https://agent.example"}
    handler = Nas().handle if kind == "threads" else Nas().handle_async
    return {**urls, "token_provider": lambda _fresh: "tok", "transport": httpx.MockTransport(handler)}


def constructors() -> Iterator[Subject]:
    """Yield everything that is called by its own name."""
    store = {"store": MemoryStore(), "nas": None, "runner": print}
    sync, later = NasClient(**client("threads")), AsyncNasClient(**client("asyncio"))
    yield Subject("Scheduler", Scheduler, store, SCHEDULER | {"nas": ("nas", 7, later, NasClient)})
    yield Subject("AsyncScheduler", AsyncScheduler, store, SCHEDULER | {"nas": ("nas", 7, sync, object())})
    yield Subject(
        "NasClient",
        NasClient,
        client("threads"),
        CLIENT
        | {
            "token_provider": (*NO_SYNC_FUNCTION, None, AsyncCachedToken(async_no_op)),
            "transport": ("t", 7),
            "sleep": (*NO_SYNC_FUNCTION, None),
        },
    )
    yield Subject(
        "AsyncNasClient",
        AsyncNasClient,
        client("asyncio"),
        CLIENT
        | {"token_provider": (*NO_FUNCTION, None), "transport": ("t", 7), "sleep": (*NO_FUNCTION, None)},
    )
    of_token = {"fetch": (*NO_FUNCTION, None), "clock": NO_SYNC_FUNCTION}
    yield Subject("CachedToken", CachedToken, {"fetch": str}, of_token | {"fetch": NO_SYNC_FUNCTION})
    yield Subject("AsyncCachedToken", AsyncCachedToken, {"fetch": async_no_op}, of_token)
    yield Subject(
        "FireVerifier",
        FireVerifier,
        {"audience": "agent:a", "jwks_url": "https://portal.example/jwks.json"},
        {
            "audience": (*NO_TEXT, "", None),
            "issuer": (*NO_TEXT, ""),
            "jwks_url": (*NO_TEXT, "portal.example"),
            "jwks": (*NO_MAPPING, {}, {"keys": [7]}),
            "key": (7, ["key"], "no key", {}),
            "fetch": NO_FUNCTION,
            "clock": NO_SYNC_FUNCTION,
        },
    )
    yield Subject(
        "FireEndpoint",
        FireEndpoint,
        {"scheduler": Scheduler(MemoryStore(), None, print), "verifier": verifier()},
        {
            "scheduler": ("scheduler", None, 7, Scheduler),
            "verifier": ("verifier", None, no_op, FireVerifier),
            "prefix": (7, None),
            "clock": CLOCK,
            "body_timeout_s": (*NO_SECONDS, 0, None),
            "drain_timeout_s": (*NO_SECONDS, None),
        },
    )
    yield Subject(
        "MemoryStore", MemoryStore, {}, {"jobs": (["j"], [None]), "history_length": STORE["history_length"]}
    )
    for name, call in ("JsonFileStore", JsonFileStore), ("JsonFileStore.create", JsonFileStore.create):
        of_file = {"path": (7, None, ["jobs.json"]), "lock_wait_s": (*NO_SECONDS, None)}
        yield Subject(name, call, {"path": "nowhere/jobs.json"}, STORE | of_file)
    for name, call in ("SqlStore", SqlStore), ("SqlStore.create", SqlStore.create):
        of_base = {
            "url_or_engine": (7, None, "jobs.sqlite", "sqlite://"),
            "table_prefix": ("Jobs", "a-b", "x" * 51, 7, None),
            "wait_s": (*NO_SECONDS, None),
        }
        yield Subject(name, call, {"url_or_engine": "sqlite:///nowhere/jobs.sqlite"}, STORE | of_base)
    yield from values()
    yield from providers()


def values() -> Iterator[Subject]:
    """Yield the values and functions of schedules."""
    yield Subject(
        "Interval",
        Interval,
        {"period": timedelta(hours=1), "anchor": NOON},
        {
            "period": (*NO_DURATION, None, timedelta(), timedelta(milliseconds=1)),
            "period_us": (*NO_DURATION_US, 0),
            "anchor": (*NO_INSTANT, None),
            "anchor_us": NO_INSTANT_US,
        },
    )
    yield Subject("Once", Once, {"at": NOON}, {"at": (*NO_INSTANT, None), "at_us": NO_INSTANT_US})
    yield Subject(
        "Cron", Cron, {"expr": "@daily", "tz": "UTC"}, {"expr": (7, None, "x", "61 * * * *"), "tz": NO_ZONE}
    )
    yield Subject("Policy", Policy, {}, of_policy())
    of_spec = METHODS["create"]
    yield Subject(
        "JobSpec",
        JobSpec,
        {"id": "j", "schedule": "1h"},
        {"id": NO_ID} | {name: of_spec[name] for name in ("schedule", "tz", "times", "policy", "data")},
    )
    yield Subject(
        "next_times",
        next_times,
        {"schedule": "1h", "now": NOON},
        {
            "schedule": NO_SCHEDULE,
            "count": (0, -1, 1.5, "5", True, None, 10**6),
            "tz": (*NO_ZONE, None),
            "policy": NO_POLICY,
            "now": NO_INSTANT,
            "now_us": NO_INSTANT_US,
        },
    )
    of_slot = {"schedule": ("1h", 7, None), "instant": (*NO_INSTANT, None)}
    yield Subject("next_after", next_after, {"schedule": Once(at=NOON), "instant": NOON}, of_slot)
    of_text = {"text": (7, None, "whenever"), "now": NO_INSTANT, "now_us": NO_INSTANT_US, "tz": NO_ZONE}
    yield Subject("parse_schedule", parse_schedule, {"text": "1h", "now": NOON}, of_text)
    yield Subject("lateness", lateness, {}, {"outcome": ("outcome", None, 7)})


def of_policy() -> dict[str, tuple[object, ...]]:
    """Return what is wrong for each choice of a policy; a new one with a unit in its name is found here."""
    wrong: dict[str, tuple[object, ...]] = {
        "catch_up": ("never", 7, None),
        "catch_up_limit": (*NO_TIMES, 101, None),
        "overlap": ("never", 7, None),
        "on_interrupt": ("never", 7, None),
        "attempts": (*NO_TIMES, None),
    }
    for name in inspect.signature(Policy).parameters:
        if name in ("starts", "ends", "starts_us", "ends_us"):
            wrong[name] = NO_INSTANT_US if name.endswith("_us") else NO_INSTANT
        elif name not in wrong:
            wrong[name] = NO_DURATION_US if name.endswith("_us") else NO_DURATION
    return wrong


def providers() -> Iterator[Subject]:
    """Yield what hosts of providers call."""
    managed = {
        "store": MemoryStore(),
        "nas": NasClient(**client("threads")),
        "runner": print,
        "has_login": true,
    }
    of_store = {"store": SCHEDULER["store"], "runner": SCHEDULER["runner"]}
    of_login = {"has_login": (*NO_SYNC_FUNCTION, None)}
    yield Subject(
        "ManagedCron",
        provider.ManagedCron,
        managed,
        of_store | of_login | {"nas": (None, 7)},
        may_have_others=True,
    )
    settings = provider.Settings(portal_url="https://portal.example", callback_url="https://agent.example")
    yield Subject(
        "ManagedCron.from_settings",
        provider.ManagedCron.from_settings,
        {
            "store": MemoryStore(),
            "runner": print,
            "has_login": true,
            "settings": settings,
            "token_provider": str,
        },
        of_store | of_login | {"settings": ({}, None), "token_provider": NO_SYNC_FUNCTION},
        may_have_others=True,
    )
    builtin_too = {"store": MemoryStore(), "runner": print}
    yield Subject("BuiltinCron", provider.BuiltinCron, builtin_too, of_store, may_have_others=True)
    stopped = threading.Event()
    stopped.set()
    started = {"stop_event": (None, True, threading.Event), "interval": (*NO_SECONDS, None)}
    builtin = provider.BuiltinCron(MemoryStore(), print)
    yield Subject("BuiltinCron.start", builtin.start, {"stop_event": stopped}, started, may_have_others=True)
    records = {"job": ("j", None, {}, {"id": 7}, {"id": ""})}
    yield Subject("BuiltinCron.register_job", builtin.register_job, {}, records)
    fallback = {"wanted": None, "discovered": {}, "fallback": builtin}
    wrong = {"discovered": NO_MAPPING, "fallback": (None, "builtin", 7)}
    yield Subject("resolve", provider.resolve, fallback, wrong, may_have_others=True)
    yield Subject(
        "provider_from", provider.provider_from, {}, {"config": ("text", 7, {"cron": {"provider": 7}})}
    )
    config = {"cron": {"chronos": {"portal_url": "https://p.example", "callback_url": "https://a.example"}}}
    wrong = {"config": ("text", 7, {}, {"cron": {"chronos": {}}}), "launch": ("text", 7, {})}
    yield Subject("settings_from", provider.settings_from, {"config": config}, wrong)


def of_store(name: str, store: Any) -> Iterator[Subject]:
    """Yield the methods of a store that take something."""
    ids = {"job_id": (7, None)}
    yield Subject(f"{name}.load", store.load, {"job_id": "j"}, ids)
    yield Subject(f"{name}.history", store.history, {"job_id": "j"}, ids)
    jobs = {"expected": ("j", 7), "replacement": ("j", 7), "outcomes": (None, "o", [], ("o",))}
    good = {"job_id": "j", "expected": None, "replacement": None}
    yield Subject(f"{name}.swap", store.swap, good, ids | jobs)


def of_client(name: str, of: Any) -> Iterator[Subject]:
    ids = {"job_id": NO_ID, "revision": (-1, 1.5, "7", True), "within_s": NO_SECONDS}
    wrong = ids | {"fire_at_us": (*NO_INSTANT_US, None)}
    yield Subject(f"{name}.provision", of.provision, {"job_id": "j", "fire_at_us": T0}, wrong)
    yield Subject(f"{name}.cancel", of.cancel, {"job_id": "j"}, ids)
    yield Subject(f"{name}.list_arms", of.list_arms, {}, {"within_s": NO_SECONDS})


def of_verifier() -> Iterator[Subject]:
    claims = FireClaims(aud="agent:a", exp=1.0, purpose="cron_fire")
    of = verifier()
    yield Subject("FireVerifier.verify", of.verify, {}, {"token": (7, None, "", "no token")})
    spent = {"token": NO_TEXT, "claims": ({}, None), "fire": NO_TEXT}
    yield Subject("FireVerifier.spend", of.spend, {"token": "t", "claims": claims, "fire": "f"}, spent)


def of_schedulers() -> Iterator[Subject]:
    """Yield the methods of both schedulers, each of an agent of its own."""
    for cls, methods in (Scheduler, METHODS), (AsyncScheduler, METHODS):
        for name, wrong in methods.items():
            agent: Any = cls(MemoryStore([every_hour()]), None, no_op, clock=lambda: T0)
            yield Subject(f"{cls.__name__}.{name}", getattr(agent, name), GOOD.get(name, {}), wrong)


SUBJECTS = [
    *constructors(),
    *of_schedulers(),
    *of_store("MemoryStore", MemoryStore()),
    *of_store("JsonFileStore", JsonFileStore("nowhere/jobs.json")),
    *of_store("SqlStore", SqlStore("sqlite:///nowhere/jobs.sqlite")),
    *of_client("NasClient", NasClient(**client("threads"))),
    *of_client("AsyncNasClient", AsyncNasClient(**client("asyncio"))),
    *of_verifier(),
]


def called(subject: Subject, **arguments: Any) -> None:
    async def awaited() -> None:
        result = subject.call(**arguments)
        if inspect.isawaitable(result):
            await result

    if (subject.name.startswith("Async") and "." in subject.name) or subject.name == "FireVerifier.verify":
        asyncio.run(awaited())
    else:
        subject.call(**arguments)


def mistakes() -> Iterator[Any]:
    for subject in SUBJECTS:
        for name, values in subject.wrong.items():
            for place, value in enumerate(values):
                yield pytest.param(subject, name, value, id=f"{subject.name}-{name}-{place}")


# How a message says what an argument is, where it does not use its name.
SAID = {
    "tz": ("unknown time zone",),
    "text": ("not a schedule",),
    "url_or_engine": ("the URL of a database", "a SQLite database"),
    "config": ("cron.",),
}


def plain(text: str) -> str:
    return text.replace("_", "").replace(".", "").lower()


@pytest.mark.parametrize(("subject", "name", "value"), [*mistakes()])
def test_a_wrong_argument_is_refused_at_once_and_named(subject: Subject, name: str, value: object) -> None:
    """By the call that was given it, with the argument's name, and never by an attribute error."""
    # What is also given by another name would be a mistake of another kind.
    person = name.removesuffix("_us")
    siblings = (
        {person, f"{person}_us"}
        if name in ("fire_at", "period_us", "anchor_us", "at_us", "now_us")
        else {name}
    )
    good = {key: given for key, given in subject.good.items() if key not in siblings}
    with pytest.raises((ChronosError, TypeError, ValueError)) as refused:
        called(subject, **good, **{name: value})
    assert not isinstance(refused.value, UnicodeError)
    words = plain(str(refused.value))
    assert any(plain(each) in words for each in (person, *SAID.get(name, ()))), words
    assert "unexpected keyword" not in words
    assert "unhashable" not in words


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_every_argument_is_among_those_that_are_tried(subject: Subject) -> None:
    """A new argument of anything public has to say what is wrong for it."""
    if subject.may_have_others:
        return
    assert set(inspect.signature(subject.call).parameters) - {"self"} == set(subject.wrong)


# Enumerations, errors and protocols; and what the library makes for people to read.
READ = {
    "Answer",
    "Job",
    "JobStatus",
    "Lateness",
    "Outcome",
    "Pending",
    "RefusedFires",
    "RunContext",
    "Started",
    "Status",
    "Unreadable",
}


def test_everything_public_that_can_be_called_is_tried() -> None:
    """Names, and the methods of the schedulers."""
    tried = {subject.name for subject in SUBJECTS}
    for name in chronos.__all__:
        value = getattr(chronos, name)
        is_made = not isinstance(value, type) or not issubclass(
            value, Exception | chronos.JobState.__mro__[1]
        )
        if is_made and name != "JobStore" and name not in READ and callable(value):
            assert name in tried, name
    for cls in Scheduler, AsyncScheduler:
        public = {name for name, _ in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")}
        assert {f"{cls.__name__}.{name}" for name in public} <= tried


def test_the_mistakes_of_a_new_user_are_told_in_a_line() -> None:
    """What was given, and what was expected."""
    given: Any = "jobs.json"
    with pytest.raises(
        TypeError, match=r"^store is 'jobs.json'; expected a JobStore, with load, load_all, swap"
    ):
        Scheduler(given, None, print)
    with pytest.raises(TypeError, match=r"^runner is 'run'; expected a function$"):
        Scheduler(MemoryStore(), None, "run")
    with pytest.raises(TypeError, match=r"^is_stopped is True; expected a function$"):
        Scheduler(MemoryStore(), None, print, is_stopped=True)
    with pytest.raises(TypeError, match=r"^hooks\[0\] is <function async_no_op .*, which is async; expected"):
        Scheduler(MemoryStore(), None, print, hooks=[async_no_op])
    with pytest.raises(
        TypeError,
        match=r"^nas is <chronos.nas.client.NasClient .* expected an AsyncNasClient or the like",
    ):
        AsyncScheduler(MemoryStore(), NasClient(**client("threads")), print)
    with pytest.raises(TypeError, match=r"^token_provider is 'abc'; expected a function$"):
        NasClient(**client("threads") | {"token_provider": "abc"})


def test_a_run_by_hand_of_long_ago_is_refused(make_world: MakeWorld) -> None:
    """A number in another unit would run once, and be a duplicate of every other run for ever."""
    world = make_world(every_hour())
    for asked_us in 0, T0 // SECOND_US, T0 // 1000:
        with pytest.raises(
            ValueError, match=r"asked is 1970-01-.*; expected an instant after 2025-06-25T12:00:00"
        ):
            world.agent.run_now("j", asked_us=asked_us)
    assert (world.ran, world.job().last_manual_us, world.nas.asked) == ([], None, [])
    world.release.set()
    assert world.agent.run_now("j", asked_us=T0 - 365 * DAY_US).settled
