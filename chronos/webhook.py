"""The fire endpoint, as an ASGI app without a framework.

It serves one path and answers nothing that the contract does not list. What a fire does is decided
by the scheduler; here is only who may ask, and whether what they say is the message. The order of
the checks is part of the contract: path and method, token, draining, body. Nothing is claimed before
all of them have passed.

Source: contract, "NAS to agent".
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Protocol, TypeAlias

from chronos.errors import TokenError
from chronos.protocol import messages, wire
from chronos.protocol.machine import Answer
from chronos.protocol.messages import ErrorResponse, FireRequest, HttpAnswer
from chronos.protocol.schedule import parse_instant
from chronos.scheduler import Scheduler

logger = logging.getLogger(__name__)

# A fire has some 300 bytes. The bound is there so that nobody can fill the agent's memory.
MAX_BODY_BYTES = 64 * 1024

# Hosts commonly grant 30 s between asking a process to stop and ending it.
DRAIN_TIMEOUT_S = 25.0

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Verifier(Protocol):
    """Tells whether a token is good for a fire: `chronos.verify.FireVerifier`, or a test's."""

    async def verify(self, token: str) -> messages.FireClaims:
        """Return what the token says, or raise `TokenError`."""


class _Refused(Exception):
    """The request is answered without asking the scheduler."""

    def __init__(self, answer: HttpAnswer, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        super().__init__(answer, headers)
        self.answer = answer
        self.headers = headers


class _ClientGone(Exception):
    """The caller has closed the connection."""


class FireEndpoint:
    """Serves `POST {prefix}/api/cron/fire`; mount it, or serve it by itself.

    Served by itself, it starts the scheduler when the server starts, without keeping the port closed
    meanwhile, and drains it when the server stops. A framework does not pass that on to what is
    mounted in it: there, call `Scheduler.start` and `Scheduler.drain` yourself.

    Args:
        scheduler: answers the fires.
        verifier: tells whether a token is good.
        prefix: what the callback URL has between the host and `/api/cron/fire`, e.g. `/agent`.
        drain_timeout_s: how long the server's stop may wait for work in progress, seconds.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        verifier: Verifier,
        *,
        prefix: str = "",
        drain_timeout_s: float = DRAIN_TIMEOUT_S,
    ) -> None:
        self._scheduler = scheduler
        self._verifier = verifier
        self._path = prefix.rstrip("/") + messages.FIRE.path
        self._drain_timeout_s = drain_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection. No exception leaves it."""
        try:
            if scope["type"] == "lifespan":
                await self._live(receive, send)
            elif scope["type"] == "http":
                await self._serve(scope, receive, send)
            elif scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
        except Exception:  # the server has no better answer than none
            logger.exception("the connection broke")

    async def _live(self, receive: Receive, send: Send) -> None:
        """Start the scheduler with the server, and drain it before the server stops."""
        starting: asyncio.Task[object] | None = None
        while True:
            event = await receive()
            if event["type"] == "lifespan.startup":
                # The fire that woke the machine is waiting: the port opens at once (W2, W3).
                starting = asyncio.create_task(self._scheduler.start())
                starting.add_done_callback(_log_bug)
                await asyncio.sleep(0)  # it has begun, so that a stop right after it is not undone by it
                await send({"type": "lifespan.startup.complete"})
            elif event["type"] == "lifespan.shutdown":
                await self._scheduler.drain(self._drain_timeout_s)
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: tuple[tuple[bytes, bytes], ...] = ()
        try:
            answer = await self._answer(scope, receive)
        except _ClientGone:
            return
        except _Refused as refused:
            answer, headers = refused.answer, refused.headers
        except Exception:
            logger.exception("a fire was not answered as it should")
            answer = messages.unsettled("the agent could not answer")
        await _respond(send, answer, headers)

    async def _answer(self, scope: Scope, receive: Receive) -> HttpAnswer:
        """Return the answer to a request, or raise why it is refused."""
        if self._path not in _paths_of(scope):
            raise _refused(404, "not_found")
        if scope["method"] != messages.FIRE.method:
            raise _refused(405, "method_not_allowed", headers=((b"allow", b"POST"),))
        headers = scope["headers"]
        await self._authenticate(headers)
        if self._scheduler.is_draining:
            return messages.unsettled("the agent is draining", error="draining")
        request = _read(headers, await _body(headers, receive))
        answer: Answer = await self._scheduler.fire(request.job_id, parse_instant(request.fire_at))
        return messages.answer_to_fire(answer)

    async def _authenticate(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Refuse whoever has no good token, without saying why; the log says it."""
        try:
            values = _header(headers, b"authorization")
            bearer = (
                re.fullmatch(r"bearer +([!-~]+) *", values[0], re.IGNORECASE) if len(values) == 1 else None
            )
            if bearer is None:
                raise TokenError(f"{len(values)} Authorization headers; expected one, with a bearer token")
            await self._verifier.verify(bearer[1])
        except TokenError as error:
            logger.warning("a fire was refused", extra={"error": str(error)})
            challenge = ((b"www-authenticate", b"Bearer"),)
            raise _refused(401, "unauthorized", headers=challenge) from None


def _read(headers: Iterable[tuple[bytes, bytes]], body: bytes) -> FireRequest:
    """Return the fire in *body*. What does not say that it is JSON and no other thing is taken for JSON."""
    kinds = _header(headers, b"content-type")
    if kinds and not re.match(r"\s*application/([\w.+-]+\+)?json\s*(;|$)", kinds[0], re.IGNORECASE):
        raise _refused(415, "unsupported_media_type", reason="expected application/json")
    try:
        return wire.decode(FireRequest, json.loads(body.decode("utf-8")))
    except wire.RemoteMessageError as error:
        raise _refused(error.error_status_hint, "invalid_message", reason=str(error)) from None
    except (ValueError, RecursionError):
        raise _refused(400, "invalid_message", reason="the body is not JSON") from None


async def _body(headers: Iterable[tuple[bytes, bytes]], receive: Receive) -> bytes:
    """Return the body; refuse one that is, or says that it is, larger than a fire can be."""
    too_large = _refused(413, "too_large", reason=f"expected at most {MAX_BODY_BYTES} bytes")
    for length in _header(headers, b"content-length"):
        if length.isdecimal() and (len(length) > 9 or int(length) > MAX_BODY_BYTES):
            raise too_large
    body = bytearray()
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise _ClientGone
        body += event.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise too_large
        if not event.get("more_body", False):
            return bytes(body)


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key.lower() == name]


def _paths_of(scope: Scope) -> tuple[str, str]:
    """Return the path as it is, and below the mount: servers differ in what they leave of the mount."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path, path.removeprefix(root)


def _refused(
    status: int, error: str, *, reason: str | None = None, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> _Refused:
    return _Refused(HttpAnswer(status=status, body=ErrorResponse(error=error, reason=reason)), headers)


async def _respond(send: Send, answer: HttpAnswer, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    body = json.dumps(wire.encode(answer.body)).encode()
    sent = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        *headers,
    ]
    if answer.retry_after_s is not None:
        sent.append((b"retry-after", b"%d" % answer.retry_after_s))
    await send({"type": "http.response.start", "status": answer.status, "headers": sent})
    await send({"type": "http.response.body", "body": body})


def _log_bug(task: asyncio.Task[object]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        logger.error("the start ended with a bug", exc_info=error)
