"""The fire endpoint below real frameworks, and behind a real server with real connections."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from tests.fires import AT, GOOD, PATH, World, is_of_the_contract, run

BODY = json.dumps(GOOD).encode()
AUTHORIZATION = {"authorization": "Bearer good"}


# --- Below a framework ------------------------------------------------------------------------


def hello(_: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


def fastapi(mount: str, app: Any) -> FastAPI:
    outer = FastAPI()
    outer.add_route("/hello", hello)
    outer.mount(mount, app)
    return outer


FRAMEWORKS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "Starlette, mounted at the root": (
        "",
        lambda app: Starlette(routes=[Route("/hello", hello), Mount("/", app=app)]),
    ),
    "Starlette, mounted": (
        "/agent",
        lambda app: Starlette(routes=[Mount("/agent", app=app), Route("/hello", hello)]),
    ),
    "Starlette, mounted twice over": (
        "/a/b",
        lambda app: Starlette(routes=[Mount("/a", routes=[Mount("/b", app=app)]), Route("/hello", hello)]),
    ),
    "Starlette, as a route": (
        "",
        lambda app: Starlette(routes=[Route(PATH, app), Route("/hello", hello)]),
    ),
    "FastAPI, mounted at the root": ("", lambda app: fastapi("/", app)),
    "FastAPI, mounted": ("/agent", lambda app: fastapi("/agent", app)),
    "FastAPI within Starlette": (
        "/a/b",
        lambda app: Starlette(routes=[Route("/hello", hello), Mount("/a", app=fastapi("/b", app))]),
    ),
}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_the_endpoint_is_served_below_a_framework(name: str) -> None:
    """Beside the host's own routes, and at no other path than its own."""
    mount, framework = FRAMEWORKS[name]

    async def scenario() -> None:
        world = World()
        world.app = framework(world.app)
        first, second = await world.ask(path=mount + PATH), await world.ask(path=mount + PATH)
        assert (first.status_code, second.status_code) == (202, 200)
        assert (await world.ask(path=mount + PATH, token="bad")).status_code == 401
        assert (await world.ask(path=mount + PATH, method="GET")).status_code == 405
        for other in (mount + PATH + "/x", mount + "/api/cron", "/elsewhere" + PATH, mount + mount + PATH):
            assert other == PATH or (await world.ask(path=other)).status_code == 404
        assert (await world.ask(path="/hello", method="GET")).text == "hello"
        await world.scheduler.drain(5)
        assert world.ran == ["j"]

    run(scenario())


@pytest.mark.parametrize("mount", ["", "/agent"])
@pytest.mark.parametrize("framework", [Starlette, FastAPI])
def test_a_proxys_part_of_the_path_is_no_obstacle(framework: Any, mount: str) -> None:
    """Whether or not the server puts it back in front, as the ASGI specification asks of it."""

    async def scenario() -> None:
        world = World()
        outer = framework()
        outer.mount(mount or "/", world.app)
        world.app = outer
        for proxy in ("/proxy", ""):
            response = await world.ask(path=proxy + mount + PATH, root_path="/proxy")
            assert response.status_code in (200, 202)
        await world.scheduler.drain(5)
        assert world.ran == ["j"]

    run(scenario())


def test_a_websocket_is_refused_below_a_framework() -> None:
    """Before it is accepted."""
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(event: Any) -> None:
        sent.append(event["type"])

    scope = {"type": "websocket", "path": PATH, "headers": [], "query_string": b"", "subprotocols": []}
    run(Starlette(routes=[Mount("/", app=World().app)])(scope, receive, send))
    assert sent == ["websocket.close"]


# --- Behind a server --------------------------------------------------------------------------


class Served:
    """An app behind a real server on the loopback interface, in a thread of its own."""

    def __init__(self, app: Any) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        config = uvicorn.Config(app, lifespan="on", log_level="warning", timeout_keep_alive=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self.socket]})
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        self.socket.close()
        assert not self._thread.is_alive()

    def ask(self, method: str = "POST", path: str = PATH, **request: Any) -> httpx.Response:
        request.setdefault("headers", AUTHORIZATION)
        if method == "POST" and not {"content", "data"} & set(request):
            request.setdefault("json", GOOD)
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30) as client:
            return client.request(method, path, **request)

    def send(self, *pieces: bytes, is_cut: bool = False) -> bytes:
        """Send bytes as they are, and return what comes back until the server closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            for piece in pieces:
                connection.sendall(piece)
            if is_cut:
                return b""
            received = b""
            while data := connection.recv(65536):
                received += data
            return received


@contextmanager
def served(app: Any) -> Iterator[Served]:
    server = Served(app)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def agent() -> Iterator[tuple[World, Served]]:
    """Return an agent behind a server, for all tests that leave nothing behind."""
    world = World(body_timeout_s=0.3)
    with served(world.app) as server:
        yield world, server


def test_a_server_serves_fires() -> None:
    """With nothing but itself: the start, the fires, the stop."""
    world = World()
    with served(world.app) as server:
        first, second = server.ask(), server.ask()
        gone = server.ask(json={"job_id": "other", "fire_at": AT})
        refused = server.ask(headers={"authorization": "Bearer bad"})
    for response, status, word in [
        (first, 202, "accepted"),
        (second, 200, "duplicate"),
        (gone, 200, "gone"),
        (refused, 401, "unauthorized"),
    ]:
        assert (response.status_code, *response.json().values())[:2] == (status, word)
        assert is_of_the_contract(response)
    assert world.scheduler.is_draining
    assert world.ran == ["j"]


def test_a_body_in_chunks_is_read() -> None:
    """Without a length that is known beforehand."""
    with served(World().app) as server:
        response = server.ask(content=[BODY[:5], BODY[5:]])
        assert response.request.headers["transfer-encoding"] == "chunked"
        assert response.status_code == 202


def test_a_caller_may_ask_whether_to_go_on() -> None:
    """`Expect: 100-continue`, as some clients have it."""
    with served(World().app) as server:
        head = request(b"content-length: %d" % len(BODY), b"expect: 100-continue", b"connection: close")
        received = server.send(head, BODY)
        assert received.startswith(b"HTTP/1.1 100 ")
        assert b"HTTP/1.1 202 " in received


NO_FIRES: dict[str, tuple[int, dict[str, Any]]] = {
    **{method: (405, {"method": method}) for method in ("GET", "PUT", "OPTIONS", "DELETE")},
    "the root": (404, {"path": "/"}),
    "a slash at the end": (404, {"path": PATH + "/"}),
    "an encoded slash at the end": (404, {"path": PATH + "%2F"}),
    "no token": (401, {"headers": {}}),
    "an object without fields": (400, {"json": {}}),
    "bytes": (400, {"content": b"\xff\x00"}),
    "nothing": (400, {"content": b""}),
    "more than a fire": (413, {"content": b"x" * 100_000}),
    "more than a fire, in chunks": (413, {"content": [b"x" * 50_000] * 3}),
    "a form": (415, {"data": GOOD}),
}


@pytest.mark.parametrize("name", NO_FIRES)
def test_what_is_no_fire_is_answered_as_the_contract_says(agent: tuple[World, Served], name: str) -> None:
    """Over a real connection too."""
    world, server = agent
    status, asked = NO_FIRES[name]
    response = server.ask(**asked)
    assert response.status_code == status
    assert is_of_the_contract(response)
    assert world.is_untouched()


def test_head_is_answered_without_a_body(agent: tuple[World, Served]) -> None:
    """The status and the headers alone."""
    response = agent[1].ask("HEAD")
    assert (response.status_code, response.headers["allow"], response.content) == (405, "POST", b"")


def request(*headers: bytes, target: bytes = PATH.encode(), version: bytes = b"HTTP/1.1") -> bytes:
    """Return the head of a fire with a good token."""
    lines = [b"POST %s %s" % (target, version), b"host: agent", b"authorization: Bearer good", *headers]
    return b"\r\n".join([*lines, b"", b""])


BAD_HTTP = {
    "no HTTP at all": [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"],
    "a method that is none": [b"\x00\x01 / HTTP/1.1\r\n\r\n"],
    "a length that is no number": [request(b"content-length: abc"), BODY],
    "a negative length": [request(b"content-length: -1"), BODY],
    "two lengths": [request(b"content-length: 5", b"content-length: 6"), BODY],
    "a chunk that is none": [request(b"transfer-encoding: chunked"), b"zz\r\n", BODY],
    "an encoding that is unknown": [request(b"transfer-encoding: gzip"), BODY],
    "an endless header": [request(b"x: " + b"x" * 200_000)],
    "a header that is none": [request(b"\x00: \x00")],
}


@pytest.mark.parametrize("name", BAD_HTTP)
def test_bad_http_is_refused_and_harms_nobody(agent: tuple[World, Served], name: str) -> None:
    """The server refuses it; the next caller is served."""
    world, server = agent
    try:
        received = server.send(*BAD_HTTP[name])
    except ConnectionError:  # the server closed the connection while there was more to read
        received = b""
    assert received == b"" or received.startswith(b"HTTP/1.1 4")
    assert world.is_untouched()
    assert server.ask("GET").status_code == 405


def test_a_body_that_never_ends_is_answered(agent: tuple[World, Served]) -> None:
    """And the connection is closed, so that nobody can keep many of them."""
    world, server = agent
    received = server.send(request(b"content-length: 100"), BODY[:10])
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b"did not arrive within 0.3 s" in received
    assert world.is_untouched()


def test_a_caller_who_hangs_up_in_the_middle_leaves_nothing(agent: tuple[World, Served]) -> None:
    """Half a fire is none."""
    world, server = agent
    server.send(request(b"content-length: %d" % (len(BODY) + 1)), BODY, is_cut=True)
    assert server.ask("GET").status_code == 405
    assert world.is_untouched()


def test_a_length_that_is_too_small_cuts_the_fire(agent: tuple[World, Served]) -> None:
    """What follows it is not read as part of it."""
    world, server = agent
    received = server.send(request(b"content-length: 10"), BODY)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert world.is_untouched()


def test_a_websocket_is_refused_by_the_server(agent: tuple[World, Served]) -> None:
    """Whether or not the server knows the protocol."""
    upgrade = (
        b"GET %s HTTP/1.1\r\nhost: agent\r\nconnection: upgrade\r\nupgrade: websocket\r\n" % PATH.encode()
    )
    keys = b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    assert agent[1].send(upgrade + keys).startswith(b"HTTP/1.1 4")


# --- A start and a stop ------------------------------------------------------------------------


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
def test_a_frameworks_lifespan_starts_and_drains_the_scheduler(framework: Any) -> None:
    """`FastAPI(lifespan=endpoint.lifespan)`, and nothing else to remember."""
    world = World()
    app = framework(lifespan=world.app.lifespan)
    app.mount("/", world.app)
    with served(app) as server:
        assert server.ask().status_code == 202
        assert not world.scheduler.is_draining
    assert world.scheduler.is_draining
    assert world.scheduler.pending() == ()
    assert world.ran == ["j"]


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
def test_a_lifespan_of_ones_own_can_hold_the_endpoints(framework: Any) -> None:
    """The scheduler is drained while what it needs is still open."""
    world, events = World(), []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, str]]:
        events.append("opened")
        async with world.app.lifespan(app):
            yield {"mine": "state"}
        assert world.scheduler.is_draining
        events.append("closed")

    app = framework(lifespan=lifespan)
    app.mount("/", world.app)
    with served(app) as server:
        assert server.ask().status_code == 202
        assert events == ["opened"]
    assert (events, world.ran) == (["opened", "closed"], ["j"])


AGENT = """
import asyncio, signal, socket, uvicorn
from tests.fires import World

class Slow(World):
    async def run(self, context):
        print("running", flush=True)
        while not self.scheduler.is_draining:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        await super().run(context)

world = Slow()
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the server raises it again when it has stopped
uvicorn.Server(uvicorn.Config(world.app, lifespan="on", log_level="warning")).run(sockets=[listening])
job = world.store.load("j")
print(world.ran, job.runs, world.scheduler.pending(), flush=True)
"""


def test_a_signal_to_stop_waits_for_the_run_in_flight() -> None:
    """The process ends when the run has, with its outcome stored (incident W1)."""
    process = subprocess.Popen([sys.executable, "-c", AGENT], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        answer = httpx.post(f"http://127.0.0.1:{port}{PATH}", json=GOOD, headers=AUTHORIZATION, timeout=30)
        assert answer.status_code == 202
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (said, process.returncode) == ("['j'] () ()\n", 0)
