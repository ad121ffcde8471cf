"""A NAS over HTTP, on the loopback interface."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

from chronos.testing.portal import Answer, AnswerLost

Answers: TypeAlias = Callable[[str, str, Mapping[str, str], bytes], Answer]


@contextmanager
def serving(answers: Answers, port: int) -> Iterator[str]:
    """Serve *answers* at a port, 0 for any, and yield the base URL.

    Raises:
        OSError: the port cannot be had.
    """
    server = _Server(("127.0.0.1", port), _Handler)
    server.answers = answers
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="chronos-testing-http")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    answers: Answers
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of an agent that has died, or hung up, in the middle."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            answer = self.server.answers(self.command, self.path, headers, content)
        except AnswerLost:
            self.close_connection = True
            return
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, *_: object) -> None:
        """Say nothing on the terminal."""
