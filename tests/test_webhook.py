"""The fire endpoint: every status of the contract, and nothing else, whatever comes in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, TypeVar

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronos.errors import NasUnavailable, StoreError, TokenError
from chronos.nas import ArmAnswer
from chronos.protocol.job import Job
from chronos.protocol.messages import ErrorResponse, FireAnswer, FireClaims
from chronos.protocol.schedule import HOUR_US, Instant, Interval, parse_instant
from chronos.protocol.wire import decode
from chronos.runner import RunContext
from chronos.scheduler import Scheduler
from chronos.stores import MemoryStore
from chronos.webhook import MAX_BODY_BYTES, FireEndpoint

T = TypeVar("T")
AT = "2026-06-26T12:00:00+00:00"
T0 = parse_instant(AT)
PATH = "/api/cron/fire"
GOOD = {"job_id": "j", "fire_at": AT}
STATUSES = {200, 202, 400, 401, 404, 405, 413, 415, 503}


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


class Nas:
    """A NAS that agrees, or does not."""

    def __init__(self) -> None:
        self.is_down = False

    async def provision(self, job_id: str, fire_at_us: Instant, *, revision: int) -> ArmAnswer:
        return self.answer(job_id, fire_at_us, revision)

    async def cancel(self, job_id: str, *, revision: int | None) -> ArmAnswer:
        return self.answer(job_id, revision)

    async def list_arms(self) -> dict[str, Instant | None]:
        self.answer()
        return {}

    def answer(self, *_: object) -> ArmAnswer:
        if self.is_down:
            raise NasUnavailable("down")
        return ArmAnswer(echoed=True)


class Verifier:
    """Believes the token `good`, and breaks on the token `bug`."""

    async def verify(self, token: str) -> FireClaims:
        if token == "bug":
            raise RuntimeError("a bug in the verifier")
        if token != "good":
            raise TokenError("the reason, which is for the log alone")
        return FireClaims(aud="agent:inst-1", purpose="cron_fire", exp=1)


class World:
    """An endpoint with everything behind it."""

    def __init__(self, prefix: str = "") -> None:
        self.ran: list[str] = []
        schedule = Interval(period_us=HOUR_US, anchor_us=T0)
        self.store = MemoryStore([Job(id="j", schedule=schedule, next_us=T0)])
        self.nas = Nas()
        self.is_stopped = False
        self.scheduler = Scheduler(
            self.store,
            self.nas,
            self.run,
            owner="me",
            clock=lambda: T0,
            is_stopped=lambda: self.is_stopped,
        )
        self.app = FireEndpoint(self.scheduler, Verifier(), prefix=prefix)

    async def run(self, context: RunContext) -> None:
        self.ran.append(context.job_id)

    async def ask(
        self,
        body: Any = GOOD,
        *,
        method: str = "POST",
        path: str = PATH,
        token: str | None = "good",
        root_path: str = "",
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json"} | (headers or {})
        if token is not None:
            sent["authorization"] = f"Bearer {token}"
        transport = httpx.ASGITransport(self.app, root_path=root_path)
        async with httpx.AsyncClient(transport=transport, base_url="https://agent.example") as client:
            return await client.request(method, path, content=content, headers=sent)


def asked(*args: Any, **kwargs: Any) -> httpx.Response:
    return run(World().ask(*args, **kwargs))


def is_of_the_contract(response: httpx.Response) -> bool:
    """Return whether an answer is one that the contract lists, with the message that it names."""
    cls = FireAnswer if response.status_code in (200, 202) else ErrorResponse
    decode(cls, response.json())
    has_wait = "retry-after" in response.headers
    return response.status_code in STATUSES and has_wait == (response.status_code == 503)


def test_a_fire_is_accepted_once_and_then_a_duplicate() -> None:
    """202 with a run, then 200 without one."""

    async def scenario() -> None:
        world = World()
        first, second = await world.ask(), await world.ask()
        assert (first.status_code, first.json()) == (
            202,
            {"status": "accepted", "job_id": "j", "reason": "claimed"},
        )
        assert (second.status_code, second.json()["status"]) == (200, "duplicate")
        assert first.headers["content-type"] == "application/json"
        await world.scheduler.drain(5)
        assert world.ran == ["j"]

    run(scenario())


def test_a_fire_of_an_unknown_job_is_gone() -> None:
    """200: there is nothing to retry."""
    response = asked(GOOD | {"job_id": "other"})
    assert (response.status_code, response.json()["status"]) == (200, "gone")


def test_a_fire_that_cannot_be_settled_is_answered_503() -> None:
    """NAS down: the run starts, and NAS is asked to come back."""

    async def scenario() -> None:
        world = World()
        world.nas.is_down = True
        response = await world.ask()
        assert (response.status_code, response.json()["error"]) == (503, "not_settled")
        assert int(response.headers["retry-after"]) > 0
        await asyncio.sleep(0.02)
        assert world.ran == ["j"]

    run(scenario())


def test_a_store_that_fails_is_answered_503(monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim could not be made durable, so nothing runs."""

    async def scenario() -> None:
        world = World()

        def fails(*_: object, **__: object) -> bool:
            raise StoreError("full", definite=True)

        monkeypatch.setattr(world.store, "swap", fails)
        assert (await world.ask()).status_code == 503
        assert world.ran == []

    run(scenario())


def test_a_draining_agent_claims_nothing() -> None:
    """503 with a wait; but who has no good token does not even learn that."""

    async def scenario() -> None:
        world = World()
        await world.scheduler.drain(1)
        response = await world.ask()
        assert (response.status_code, response.json()["error"]) == (503, "draining")
        assert (await world.ask(token="forged")).status_code == 401
        job = world.store.load("j")
        assert job is not None
        assert (job.run, job.next_us) == (None, T0)

    run(scenario())


def test_an_agent_that_is_told_to_run_no_jobs_answers_200() -> None:
    """Nothing passes by itself, so that there is nothing to retry (incident L12)."""

    async def scenario() -> None:
        world = World()
        world.is_stopped = True
        response = await world.ask()
        assert (response.status_code, response.json()["status"]) == (200, "stopped")
        assert is_of_the_contract(response)
        assert world.ran == []

    run(scenario())


@pytest.mark.parametrize("token", [None, "", "forged", "good extra", "good,good"])
def test_a_token_that_is_not_good_is_401_without_a_reason(token: str | None) -> None:
    """Every failure reads the same from outside, and nothing runs."""
    response = asked(token=token)
    assert (response.status_code, response.json()) == (401, {"error": "unauthorized"})
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("value", ["good", "Basic good", "bearer", "Bearer  ", "Bearer\tgood"])
def test_only_a_bearer_token_is_a_token(value: str) -> None:
    """Other schemes and shapes are refused like a bad token."""
    assert asked(token=None, headers={"authorization": value}).status_code == 401


def test_two_tokens_are_none() -> None:
    """What a proxy and the agent might read differently is refused."""

    async def scenario() -> None:
        twice = [(b"authorization", b"Bearer good"), (b"authorization", b"Bearer good")]
        sent = await raw(World(), headers=twice)
        assert sent[0]["status"] == 401

    run(scenario())


def test_the_token_is_checked_before_the_body() -> None:
    """Who may not ask learns nothing about what is asked."""
    assert asked(b"not json", token="forged").status_code == 401
    assert asked(b"x" * (MAX_BODY_BYTES + 1), token="forged").status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"\xff\xfe{\x00}\x00",
        b"[" * 60_000,
        b"1" * 5000,
        [],
        {},
        {"job_id": "j"},
        {"fire_at": AT},
        {"job_id": "", "fire_at": AT},
        {"job_id": 7, "fire_at": AT},
        {"job_id": "j", "fire_at": "2026-06-26T12:00:00"},
        {"job_id": "j", "fire_at": 1782475200},
        b'{"job_id": "\\ud83d", "fire_at": "2026-06-26T12:00:00Z"}',
    ],
    ids=lambda body: repr(body)[:40],
)
def test_a_body_that_is_not_the_message_is_400(body: Any) -> None:
    """The answer says which field is wrong, and nothing runs; `fire_at` is required (incident D1)."""
    response = asked(body)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_message")


def test_unknown_fields_are_ignored() -> None:
    """A later version of the contract can add some."""
    assert asked(GOOD | {"attempt": 3}).status_code == 202


def test_another_method_is_405_and_another_path_404() -> None:
    """Each says so before it asks for a token."""
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "PATCH"):
        response = asked(method=method, token=None)
        assert (response.status_code, response.headers["allow"]) == (405, "POST")
    for path in ("/", "/api/cron/fire/", "/api/cron", "/x/api/cron/fire", "/API/cron/fire"):
        assert asked(path=path, token=None).status_code == 404


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 202),
        ("Application/JSON; charset=utf-8", 202),
        ("application/cloudevents+json", 202),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/jsonp", 415),
        ("", 415),
    ],
)
def test_what_says_that_it_is_not_json_is_415(kind: str, status: int) -> None:
    """JSON by any of its names is read."""
    assert asked(headers={"content-type": kind}).status_code == status


def test_a_body_that_does_not_say_what_it_is_is_taken_for_json() -> None:
    """The contract does not ask for the header."""

    async def scenario() -> None:
        sent = await raw(World(), headers=[(b"authorization", b"Bearer good")])
        assert sent[0]["status"] == 202

    run(scenario())


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_large_is_413(announced: bool) -> None:
    """Whether it says so beforehand, or only turns out to be."""

    async def scenario() -> None:
        headers = [(b"authorization", b"Bearer good")]
        if announced:
            headers.append((b"content-length", b"9" * 30))
        parts = [b"x" * 40_000, b"x" * 40_000, b"x"]
        sent = await raw(World(), headers=headers, parts=parts)
        assert sent[0]["status"] == 413

    run(scenario())


def test_the_largest_body_is_read() -> None:
    """The bound itself is still allowed."""
    body = json.dumps(GOOD).encode()
    assert asked(body + b" " * (MAX_BODY_BYTES - len(body))).status_code == 202


def test_a_bug_behind_the_endpoint_is_503() -> None:
    """The fire is not lost: NAS delivers it again."""
    assert asked(token="bug").status_code == 503


def test_a_prefix_and_a_mount_are_part_of_the_path() -> None:
    """The callback URL may have a path of its own, with or without a framework in front."""

    async def scenario() -> None:
        assert (await World(prefix="/agent/").ask(path="/agent" + PATH)).status_code == 202
        assert (await World(prefix="/agent").ask()).status_code == 404
        assert (await World().ask(path="/agent" + PATH, root_path="/agent")).status_code == 202
        assert (await World().ask(root_path="/agent")).status_code == 202

    run(scenario())


def test_the_endpoint_can_be_mounted_in_a_framework() -> None:
    """Under Starlette, whose mounts leave their own part in the path."""
    applications = pytest.importorskip("starlette.applications")
    routing = pytest.importorskip("starlette.routing")

    async def scenario() -> None:
        world = World()
        app = applications.Starlette(routes=[routing.Mount("/agent", app=world.app)])
        world.app = app
        assert (await world.ask(path="/agent" + PATH)).status_code == 202
        assert (await world.ask(path="/agent/other")).status_code == 404

    run(scenario())


# --- ASGI itself ---


async def raw(
    world: World,
    *,
    scope: dict[str, Any] | None = None,
    headers: list[tuple[bytes, bytes]] | None = None,
    parts: list[bytes] | None = None,
    is_cut: bool = False,
) -> list[dict[str, Any]]:
    """Call the endpoint as a server does, and return what it sent; *is_cut*, the caller hangs up early."""
    chunks = parts if parts is not None else [json.dumps(GOOD).encode()]
    events = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    events.append(
        {"type": "http.disconnect"} if is_cut else {"type": "http.request", "body": b"", "more_body": False}
    )
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return events.pop(0)

    async def send(event: Any) -> None:
        sent.append(event)

    basic = {"type": "http", "method": "POST", "path": PATH, "headers": headers or []}
    await world.app(basic | (scope or {}), receive, send)
    return sent


def test_a_caller_who_hangs_up_before_the_end_is_not_answered() -> None:
    """Half a body is no fire."""

    async def scenario() -> None:
        world = World()
        assert await raw(world, headers=[(b"authorization", b"Bearer good")], is_cut=True) == []
        assert world.ran == []

    run(scenario())


def test_a_caller_who_is_gone_at_the_end_breaks_nothing() -> None:
    """The answer cannot be sent; the run goes on, and NAS's redelivery is a duplicate."""

    async def scenario() -> None:
        world = World()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": json.dumps(GOOD).encode()}

        async def send(_: Any) -> None:
            raise OSError("broken pipe")

        headers = [(b"authorization", b"Bearer good")]
        await world.app({"type": "http", "method": "POST", "path": PATH, "headers": headers}, receive, send)
        await world.scheduler.drain(5)
        assert world.ran == ["j"]

    run(scenario())


def test_a_websocket_is_closed() -> None:
    """There is nothing to talk about."""
    sent = run(raw(World(), scope={"type": "websocket"}))
    assert [event["type"] for event in sent] == ["websocket.close"]


def test_the_server_starts_and_drains_the_scheduler() -> None:
    """The port opens although NAS does not answer yet, and a stop waits for the work (incidents W2, W3)."""

    async def scenario() -> None:
        world = World()
        listed, answered = asyncio.Event(), asyncio.Event()

        async def list_arms() -> dict[str, Instant | None]:
            listed.set()
            await answered.wait()
            return {"orphan": T0}

        world.nas.list_arms = list_arms  # type: ignore[method-assign]
        events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        sent: asyncio.Queue[Any] = asyncio.Queue()
        server = asyncio.create_task(world.app({"type": "lifespan"}, events.get, sent.put))
        events.put_nowait({"type": "lifespan.startup"})
        assert (await sent.get())["type"] == "lifespan.startup.complete"
        await listed.wait()
        assert any("start" in each.reason for each in world.scheduler.pending())
        answered.set()
        events.put_nowait({"type": "lifespan.shutdown"})
        assert (await sent.get())["type"] == "lifespan.shutdown.complete"
        await server
        assert world.scheduler.is_draining
        assert world.scheduler.pending() == ()

    run(scenario())


headers = st.lists(
    st.tuples(
        st.sampled_from([b"authorization", b"Authorization", b"content-type", b"content-length", b"x"]),
        st.sampled_from([b"Bearer good", b"Bearer bad", b"application/json", b"12", b"-1"])
        | st.binary(max_size=20),
    ),
    max_size=4,
)
bodies = (
    st.binary(max_size=80)
    | st.just(json.dumps(GOOD).encode())
    | st.fixed_dictionaries(
        {}, optional={"job_id": st.none() | st.text() | st.integers(), "fire_at": st.text() | st.just(AT)}
    ).map(lambda body: json.dumps(body).encode())
)


@settings(max_examples=400, deadline=None)
@given(
    method=st.sampled_from(["POST", "GET", "HEAD", "post", ""]) | st.text(max_size=5),
    path=st.just(PATH) | st.text(max_size=30),
    headers=headers,
    is_authorized=st.booleans(),
    body=bodies,
    split=st.integers(0, 80),
    is_cut=st.booleans(),
)
def test_no_request_gets_an_answer_outside_the_contract(
    method: str,
    path: str,
    headers: list[tuple[bytes, bytes]],
    is_authorized: bool,
    body: bytes,
    split: int,
    is_cut: bool,
) -> None:
    """Arbitrary methods, paths, headers and bytes: one of the listed statuses, and never an exception."""
    if is_authorized:
        headers = [pair for pair in headers if pair[0].lower() == b"x"] + [(b"authorization", b"Bearer good")]
    parts = [body[:split], body[split:]]
    scope = {"method": method, "path": path}

    async def scenario() -> list[dict[str, Any]]:
        world = World()
        sent = await raw(world, scope=scope, headers=headers, parts=parts, is_cut=is_cut)
        await world.scheduler.drain(5)
        return sent

    sent = run(scenario())
    if not sent:
        assert is_cut
        return
    start, end = sent
    response = httpx.Response(start["status"], headers=start["headers"], content=end["body"])
    assert is_of_the_contract(response)
