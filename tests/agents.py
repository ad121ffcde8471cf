"""An agent of either kind behind one face, over a NAS and a store in memory: a behaviour is tested once.

A test is plain code in its own thread. An `AsyncScheduler` gets an event loop in another one, and
what is asked of it is sent there. Nothing waits for longer than `PATIENCE_S`.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeAlias

import attrs
import httpx

from chronos.agent.asyncio import AsyncScheduler
from chronos.agent.runner import RunContext
from chronos.agent.scheduler import Scheduler
from chronos.agent.status import Status
from chronos.errors import StoreError
from chronos.jobs.instants import HOUR_US, SECOND_US, Instant, format_instant, parse_instant
from chronos.jobs.job import Job, Result
from chronos.jobs.schedule import Interval
from chronos.nas.client import AsyncNasClient, NasClient
from chronos.protocol.flow_effects import Answer
from chronos.protocol.state import Pending, Started
from chronos.stores import MemoryStore

KINDS = ("threads", "asyncio")

T0 = parse_instant("2026-06-26T12:00:00+00:00")

# Only a bug takes as long.
PATIENCE_S = 10.0
_GLANCE_S = 0.002


def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come to pass"
        time.sleep(_GLANCE_S)


async def until_async(condition: Callable[[], object]) -> None:
    """Do as `until`, for what runs in a loop."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come to pass"
        await asyncio.sleep(_GLANCE_S)


def threads_of_agents() -> set[threading.Thread]:
    """Return the threads that agents work in, whoever made them."""
    return {each for each in threading.enumerate() if each.name == "chronos"}


def at(offset_us: int) -> str:
    return format_instant(T0 + offset_us)


def every_hour(job_id: str = "j", **changes: Any) -> Job:
    """Return a job that is due at `T0` and every hour from there."""
    fields: dict[str, Any] = {"schedule": Interval(period_us=HOUR_US, anchor_us=T0), "next_us": T0}
    return Job(id=job_id, **(fields | changes))


def later(job_id: str = "j", **changes: Any) -> Job:
    """Return a job that is due an hour after `T0`, and every hour from there."""
    return every_hour(job_id, next_us=T0 + HOUR_US, **changes)


class Nas:
    """NAS in memory: arms by job, the newest revision of each, and what it was asked, in order.

    Attributes:
        echoes: whether it keeps the order of revisions, and says so.
        is_down: whether it answers 503.
        fails_next: how many times it answers 503 before it works again.
        refuses: what it answers 503 to, such as `provision`.
        has_login: whether it knows the agent's identity.
        gate: what a request that comes waits for, if anything.
        latency_s: how long each answer takes.
    """

    def __init__(self, *, echoes: bool = True) -> None:
        self.arms: dict[str, str] = {}
        self.revisions: dict[str, int] = {}
        self.asked: list[str] = []
        self.echoes = echoes
        self.is_down = False
        self.fails_next = 0
        self.refuses = ""
        self.has_login = True
        self.gate: threading.Event | None = None
        self.latency_s = 0.0
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def client(self, kind: str) -> NasClient | AsyncNasClient:
        """Return a client of a kind that asks this NAS."""
        options: dict[str, Any] = {
            "token_provider": lambda _fresh: "tok",
            "callback_url": "https://agent.example",
            "retry_for_s": 0,  # what is tested here is who comes back to a failure
        }
        if kind == "threads":
            sync = httpx.MockTransport(self.handle)
            return NasClient("https://portal.example", transport=sync, **options)
        return AsyncNasClient(
            "https://portal.example", transport=httpx.MockTransport(self.handle_async), **options
        )

    def handle(self, request: httpx.Request) -> httpx.Response:
        gate = self._began(request)
        time.sleep(self.latency_s)
        if gate is not None:
            assert gate.wait(PATIENCE_S)
        return self._answer(request)

    async def handle_async(self, request: httpx.Request) -> httpx.Response:
        gate = self._began(request)
        await asyncio.sleep(self.latency_s)
        if gate is not None:
            await until_async(gate.is_set)
        return self._answer(request)

    def hang(self) -> threading.Event:
        """Let what is asked from now on wait for the event that is returned."""
        self.gate = threading.Event()
        return self.gate

    def _began(self, request: httpx.Request) -> threading.Event | None:
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            body = json.loads(request.content or b"{}")
            self.asked.append(f"{_verb(request)} {body.get('job_id', '')}".strip())
            return self.gate

    def _answer(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self.at_once -= 1
            if not self.has_login:
                return httpx.Response(403, json={"error": "invalid_client"})
            is_down = self.is_down or self.fails_next > 0 or _verb(request) == self.refuses
            self.fails_next = max(0, self.fails_next - 1)
            if is_down:
                return httpx.Response(503)
            if _verb(request) == "list":
                rows = self.arms.items()
                armed = [{"job_id": job_id, "fire_at": at, "schedule_id": "s"} for job_id, at in rows]
                return httpx.Response(200, json={"armed": armed})
            return self._change(_verb(request), json.loads(request.content))

    def _change(self, verb: str, body: dict[str, Any]) -> httpx.Response:
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


def _verb(request: httpx.Request) -> str:
    return request.url.path.rsplit("/", 1)[-1]


class Loop:
    """An event loop in a thread of its own; closing it cancels what runs in it."""

    def __init__(self) -> None:
        self._has_begun = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._main(),), name="loop", daemon=True)
        self._thread.start()
        assert self._has_begun.wait(PATIENCE_S)

    def begin(self, work: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._has_begun.set()
        await self._stop.wait()


class Agent:
    """A scheduler of either kind, whose methods return when they are done."""

    def __init__(self, scheduler: Scheduler | AsyncScheduler, loop: Loop | None) -> None:
        self.scheduler = scheduler
        self._loop = loop

    def fire(self, *args: Any, **kwargs: Any) -> Answer:
        answer: Answer = self.ask("fire", *args, **kwargs)
        return answer

    def create(self, *args: Any, **kwargs: Any) -> Answer:
        answer: Answer = self.ask("create", *args, **kwargs)
        return answer

    def edit(self, *args: Any, **kwargs: Any) -> Answer:
        answer: Answer = self.ask("edit", *args, **kwargs)
        return answer

    def pause(self, *args: Any, **kwargs: Any) -> Answer:
        answer: Answer = self.ask("pause", *args, **kwargs)
        return answer

    def resume(self, *args: Any, **kwargs: Any) -> Answer:
        answer: Answer = self.ask("resume", *args, **kwargs)
        return answer

    def remove(self, *args: Any, **kwargs: Any) -> Answer:
        answer: Answer = self.ask("remove", *args, **kwargs)
        return answer

    def run_now(self, *args: Any, **kwargs: Any) -> Answer:
        answer: Answer = self.ask("run_now", *args, **kwargs)
        return answer

    def start(self) -> Started:
        started: Started = self.ask("start")
        return started

    def reconcile(self) -> Started:
        started: Started = self.ask("reconcile")
        return started

    def status(self) -> Status:
        status: Status = self.ask("status")
        return status

    def pending(self) -> tuple[Pending, ...]:
        pending: tuple[Pending, ...] = self.ask("pending")
        return pending

    def drain(self, timeout_s: float = PATIENCE_S) -> tuple[Pending, ...]:
        left: tuple[Pending, ...] = self.ask("drain", timeout_s)
        return left

    def is_busy(self) -> bool:
        return any(each.is_busy for each in self.pending())

    def ask(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the scheduler, and return what it does."""
        return self.begin(name, *args, **kwargs).result(PATIENCE_S)

    def begin(self, name: str, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call a method of the scheduler, and wait for nothing."""
        method = getattr(self.scheduler, name)
        if self._loop is not None:
            return self._loop.begin(_awaited(method, args, kwargs))
        answer: Future[Any] = Future()

        def call() -> None:
            try:
                answer.set_result(method(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - it is raised where the answer is asked for
                answer.set_exception(error)

        threading.Thread(target=call, name="asking", daemon=True).start()
        return answer


async def _awaited(method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    result = method(*args, **kwargs)
    return await result if inspect.isawaitable(result) else result


@attrs.define
class World:
    """Agents of one kind with everything around them.

    Attributes:
        agent: the first of them.
        now_us: what their clocks show, or did when they were let go.
        began_s: when they were let go; None while they stand still.
        ran: what was run, in order.
        release: lets the runs end.
        dead: the owners whose processes have ended.
        is_stopped: whether the agents are told to run no jobs.
    """

    kind: str
    store: MemoryStore
    nas: Nas
    has_nas: bool = True
    now_us: Instant = T0
    began_s: float | None = None
    ran: list[RunContext] = attrs.field(factory=list)
    release: threading.Event = attrs.field(factory=threading.Event)
    dead: set[str] = attrs.field(factory=set)
    is_stopped: bool = False
    agents: list[Agent] = attrs.field(factory=list)
    loop: Loop | None = None

    @property
    def agent(self) -> Agent:
        return self.agents[0]

    def another(self, owner: str = "other", **options: Any) -> Agent:
        """Return one more agent of the same store and NAS; *options* are those of a scheduler."""
        is_sync = self.kind == "threads"
        given: dict[str, Any] = {
            "nas": self.nas.client(self.kind) if self.has_nas else None,
            "runner": self.run_until_released if is_sync else self.run_until_released_async,
            "clock": self.clock,
            "is_dead": self.dead.__contains__,
            "is_stopped": lambda: self.is_stopped,
        }
        make: Any = Scheduler if is_sync else AsyncScheduler
        agent = Agent(make(self.store, owner=owner, **(given | options)), self.loop)
        self.agents.append(agent)
        return agent

    def clock(self) -> Instant:
        gone_s = 0.0 if self.began_s is None else time.monotonic() - self.began_s
        return self.now_us + int(gone_s * SECOND_US)

    def let_clocks_go(self) -> None:
        self.began_s = time.monotonic()

    def run_until_released(self, context: RunContext) -> None:
        self.ran.append(context)
        assert self.release.wait(PATIENCE_S)

    async def run_until_released_async(self, context: RunContext) -> None:
        self.ran.append(context)
        await until_async(self.release.is_set)

    def settle(self) -> None:
        """Let the runs end, and all work with them."""
        self.release.set()
        self.quiet()

    def quiet(self) -> None:
        until(lambda: not any(agent.is_busy() for agent in self.agents))

    def job(self, job_id: str = "j") -> Job:
        job = self.store.load(job_id)
        assert job is not None
        return job

    def outcomes(self, job_id: str = "j") -> list[tuple[Result, str]]:
        return [(outcome.result, outcome.reason) for outcome in self.store.history(job_id)]

    @contextmanager
    def failing_store(self, error: BaseException, *, method: str = "swap") -> Iterator[list[object]]:
        """Let the store raise *error*, and return the list of what was asked of it meanwhile."""
        asked: list[object] = []

        def fails(*args: object, **_: object) -> Any:
            asked.append(args)
            raise error

        setattr(self.store, method, fails)
        try:
            yield asked
        finally:
            delattr(self.store, method)

    @contextmanager
    def store_that_loses_its_answer(self) -> Iterator[None]:
        """Let the store move, and say that it may not have."""
        swap = self.store.swap

        def fails(*args: Any, **kwargs: Any) -> bool:
            swap(*args, **kwargs)
            raise StoreError("the answer was lost", definite=False)

        self.store.swap = fails  # type: ignore[method-assign]
        try:
            yield
        finally:
            del self.store.swap  # type: ignore[method-assign]


MakeWorld: TypeAlias = Callable[..., World]


@contextmanager
def worlds(kind: str) -> Iterator[MakeWorld]:
    """Yield what makes worlds of a kind; at the end nothing may be left that does not end by a drain."""
    made: list[World] = []
    threads = threads_of_agents()

    def make(*jobs: Job, nas: Nas | None = None, has_nas: bool = True, **options: Any) -> World:
        world = World(kind, MemoryStore(jobs), nas or Nas(), has_nas)
        world.loop = Loop() if kind == "asyncio" else None
        made.append(world)
        world.another("me", **options)
        return world

    yield make
    for world in made:
        world.release.set()
        if world.nas.gate is not None:
            world.nas.gate.set()
        for agent in world.agents:
            assert not [each for each in agent.drain() if each.is_busy]
        if world.loop is not None:
            world.loop.close()
    until(lambda: not threads_of_agents() - threads)
