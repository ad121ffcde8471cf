"""The clients of NAS over real sockets: connections that are kept, and bounds that hold."""

from __future__ import annotations

import http.server
import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from chronos.errors import NasUnavailable
from tests.nas_clients import KINDS, Client

YES = b'{"ok": true}'


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class KeptAlive(http.server.BaseHTTPRequestHandler):
    """Answers a cancel, and keeps the connection."""

    protocol_version = "HTTP/1.1"
    timeout = 10  # for the next request; then the connection is closed
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append(json.loads(body)["job_id"])
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        self.send_response(status)
        self.send_header("Content-Length", str(len(YES)))
        self.end_headers()
        self.wfile.write(YES)

    def log_message(self, *_: Any) -> None:
        """Say nothing on the terminal."""


class Dripping(socketserver.BaseRequestHandler):
    """Sends a good answer, one byte at a time, for much longer than a client is to wait."""

    server: Server
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 412\r\nX-Padding: "
    body = YES.ljust(412)

    def handle(self) -> None:
        self.request.recv(65536)
        quick, slow = (self.head + b"\r\n\r\n", self.body)
        if self.server.drips == "headers":
            quick, slow = self.head, b"x" * 400 + b"\r\n\r\n" + self.body
        try:
            self.request.sendall(quick)
            for byte in slow:
                self.request.sendall(bytes([byte]))
                if self.server.is_over.wait(0.01):
                    return
        except OSError:
            self.server.was_left.set()  # by the client, which has given up
            return
        self.server.asked.append("to the end")


class Server(socketserver.ThreadingTCPServer):
    """A NAS of one of the two kinds, at a port of this machine."""

    allow_reuse_address = True
    daemon_threads = False
    block_on_close = True

    def __init__(self, handler: type[socketserver.BaseRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.connections = 0
        self.asked: list[str] = []
        self.statuses: list[int] = []
        self.drips = ""
        self.was_left, self.is_over = threading.Event(), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(handler: type[socketserver.BaseRequestHandler]) -> Iterator[Server]:
    server = Server(handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.is_over.set()
        for each in threading.enumerate():
            if each.name == "chronos-nas":  # it may still have something to send
                each.join(timeout=10)
                assert not each.is_alive()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("kind", KINDS)
def test_one_connection_serves_several_requests(kind: str) -> None:
    """Until it is closed; a retry, too, goes over the one that there is."""
    with serving(KeptAlive) as server, Client(kind, None, portal_url=server.url) as nas:
        for job_id in "abc":
            nas.cancel(job_id)
        assert (server.asked, server.connections) == (["a", "b", "c"], 1)
        server.statuses = [503]
        nas.cancel("d")
        assert (server.asked[3:], server.connections) == (["d", "d"], 1)
        nas.close()
        nas.cancel("e")
        assert server.connections == 2


@pytest.mark.parametrize("drips", ["headers", "body"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_drips_in_is_given_up(kind: str, drips: str) -> None:
    """Each byte comes in time, for httpx, and all of them together do not."""
    with serving(Dripping) as server:
        server.drips = drips
        with Client(kind, None, portal_url=server.url, timeout_s=0.2, retry_for_s=0) as nas:
            with pytest.raises(NasUnavailable):
                nas.cancel("a")
            if (kind, drips) != ("threads", "headers"):  # where httpx does not return before it has them
                assert server.was_left.wait(10)
            assert server.asked == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_port_that_nobody_listens_at_is_definite(kind: str) -> None:
    """Nothing can have been sent, however often it was tried."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with Client(kind, None, portal_url=url) as nas:
            with pytest.raises(NasUnavailable, match="no connection") as caught:
                nas.cancel("a")
            assert caught.value.definite
            assert len(nas.time.pauses) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_that_was_given_up_is_not_sent_afterwards(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of NAS is known too late: by now, whoever asked may have asked for something newer."""
    look_up = socket.getaddrinfo
    is_asked, is_known, was_known = threading.Event(), threading.Event(), threading.Event()

    def slowly(_host: Any, *args: Any, **kwargs: Any) -> Any:
        is_asked.set()
        is_known.wait(10)
        try:
            return look_up("127.0.0.1", *args, **kwargs)
        finally:
            was_known.set()

    with serving(KeptAlive) as server:
        monkeypatch.setattr(socket, "getaddrinfo", slowly)
        url = server.url.replace("127.0.0.1", "nas.example")
        with Client(kind, None, portal_url=url, timeout_s=0.2, retry_for_s=0) as nas:
            with pytest.raises(NasUnavailable):
                nas.cancel("a")
            is_known.set()
            assert was_known.wait(10) or not is_asked.is_set()  # on a machine that is very slow
    assert server.asked == []
