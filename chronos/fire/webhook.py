"""The fire endpoint, as an ASGI app without a framework.

It serves one path and answers nothing that the contract does not list. What a fire does is decided
by the scheduler; here is only who may ask, and whether what they say is the message. The order of
the checks is part of the contract: path and method, token, draining, body. Nothing is claimed before
all of them have passed.

Source: contract, "NAS to agent".
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import logging
import re
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NoReturn, Protocol, TypeAlias, runtime_checkable

from chronos import arguments
from chronos.agent.calls import call
from chronos.clock import now_us
from chronos.contract import messages, wire
from chronos.contract.messages import ErrorResponse, FireClaims, FireRequest, HttpAnswer, dedup_key
from chronos.errors import TokenError, one_line
from chronos.jobs.instants import SECOND_US, Instant, format_instant, parse_instant
from chronos.protocol.flow_effects import Answer

logger = logging.getLogger(__name__)

# A fire has some 300 bytes. The bound is there so that nobody can fill the agent's memory.
MAX_BODY_BYTES = 64 * 1024

# NAS sends a fire in one piece. The bound is there so that nobody can keep connections for ever.
BODY_TIMEOUT_S = 10.0

# Hosts commonly grant 30 s between asking a process to stop and ending it.
DRAIN_TIMEOUT_S = 25.0

# How many fires a sync scheduler answers at once. Each may wait 10 s for NAS, which waits 30 s for
# the answer: in the loop's own pool, which can have five threads, a burst would wait for too long.
SYNC_FIRES_AT_ONCE = 32

# No path of a fire is nearly as long.
_LOGGED_PATH_LENGTH = 200

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]


class FireScheduler(Protocol):
    """What the endpoint asks of a scheduler. Its methods are coroutine functions, or get threads."""

    @property
    def is_draining(self) -> bool:
        """Whether fires are turned away; must not block."""

    def start(self) -> object:
        """Make NAS agree with the store; ends a drain. Its result is not looked at."""

    def fire(
        self, job_id: str, fire_at_us: Instant, /, *, minted_us: Instant | None, received_us: Instant | None
    ) -> Answer | Awaitable[Answer]:
        """Answer a fire whose token was made, and which has come, at these instants."""

    def drain(self, timeout_s: float, /) -> object:
        """Turn fires away and wait for the work in progress. Its result is not looked at."""


class Verifier(Protocol):
    """Tells whether a token is good for a fire: `chronos.fire.verify.FireVerifier`, or one of a host's own.

    Whoever brings their own decides what a token is, also whether it may be used again. One that is
    refused for that must be the only one of its kind: a fire that was answered 503 comes again.
    """

    def verify(self, token: str, /) -> FireClaims | Awaitable[FireClaims]:
        """Return what the token says, or raise `TokenError`. A coroutine function, or it gets a thread."""


@runtime_checkable
class InformedScheduler(FireScheduler, Protocol):
    """A scheduler that tells its operators which fires did not reach it, as those of this library do."""

    def fire_was_refused(self, why: str, /) -> None:
        """Note that the endpoint turned a fire away; must not block."""


@runtime_checkable
class SpendingVerifier(Verifier, Protocol):
    """A verifier that also knows for which fires a token was used, as `FireVerifier` does."""

    def spend(self, token: str, claims: FireClaims, fire: str, /) -> None:
        """Note that a verified token is used for a fire, or raise `TokenError`; must not block."""


class _Refused(Exception):
    """The request is answered without asking the scheduler; `why` is for the agent's own people."""

    def __init__(self, answer: HttpAnswer, headers: tuple[tuple[bytes, bytes], ...], why: str) -> None:
        super().__init__(answer, headers, why)
        self.answer = answer
        self.headers = headers
        self.why = why


class _ClientGone(Exception):
    """The caller has closed the connection."""


class FireEndpoint:
    """Serves `POST {prefix}/api/cron/fire`; mount it, or serve it by itself.

    Served by itself, it starts the scheduler when the server starts, without keeping the port closed
    meanwhile, and drains it when the server stops. A framework does not pass that on to what is
    mounted in it: there, `FastAPI(lifespan=endpoint.lifespan)` does the same; in a lifespan of your
    own, write `async with endpoint.lifespan(app):` around the `yield`.

    Args:
        scheduler: answers the fires; async, or sync, which gets threads.
        verifier: tells whether a token is good.
        prefix: what the callback URL has between the host and `/api/cron/fire`, e.g. `/agent`.
        clock: returns the present instant, epoch microseconds, UTC: when a fire has come.
        body_timeout_s: how long the body of a fire may take to arrive, seconds.
        drain_timeout_s: how long the server's stop may wait for work in progress, seconds.

    Raises:
        TypeError: an argument is of another type than its own, or *clock* is async.
        ValueError: a time is out of its range.
        ScheduleError: what *clock* returns is no instant.
    """

    def __init__(
        self,
        scheduler: FireScheduler,
        verifier: Verifier,
        *,
        prefix: str = "",
        clock: Callable[[], Instant] = now_us,
        body_timeout_s: float = BODY_TIMEOUT_S,
        drain_timeout_s: float = DRAIN_TIMEOUT_S,
    ) -> None:
        arguments.methods("scheduler", scheduler, "a scheduler", "start", "fire", "drain")
        arguments.methods("verifier", verifier, "a FireVerifier or the like", "verify")
        arguments.text("prefix", prefix)
        arguments.clock_us("clock", clock)
        arguments.seconds("body_timeout_s", body_timeout_s, may_be_zero=False)
        arguments.seconds("drain_timeout_s", drain_timeout_s)
        self._scheduler = scheduler
        self._verifier = verifier
        self._path = (f"/{prefix.strip('/')}" if prefix.strip("/") else "") + messages.FIRE.path
        self._clock = clock
        self._body_timeout_s = body_timeout_s
        self._drain_timeout_s = drain_timeout_s
        self._threads = ThreadPoolExecutor(SYNC_FIRES_AT_ONCE, thread_name_prefix="chronos-fire")
        self._starting: asyncio.Task[object] | None = None
        self._has_told_of_path = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection. No exception leaves it."""
        try:
            if scope["type"] == "lifespan":
                await self._live(receive, send)
            elif scope["type"] == "http":
                await self._serve(scope, receive, send)
            elif scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1000})  # before it is accepted: 403
        except Exception:  # the server has no better answer than none
            logger.exception("the connection broke")

    # --- The server's start and stop ---

    @asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncIterator[None]:
        """Start the scheduler, and drain it at the end: for the app that the endpoint is mounted in."""
        await self._begin()
        try:
            yield
        finally:
            await self._end()

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            event = await receive()
            if event["type"] == "lifespan.startup":
                await self._begin()
                await send({"type": "lifespan.startup.complete"})
            elif event["type"] == "lifespan.shutdown":
                await self._end()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _begin(self) -> None:
        """Begin to start the scheduler: the fire that woke the machine is waiting for the port (W2, W3)."""
        self._starting = asyncio.create_task(_call(self._scheduler.start))
        self._starting.add_done_callback(_log_bug)
        await asyncio.sleep(0)  # it has begun, so that a stop right after it is not undone by it

    async def _end(self) -> None:
        """Drain the scheduler; a stop goes on, whatever comes of it.

        A start in a thread may begin only now, and would end the drain when nobody looks any more: it
        is waited for, or taken back.
        """
        left_s = _countdown(self._drain_timeout_s)
        try:
            await _call(self._scheduler.drain, self._drain_timeout_s)
            await self._start_is_over(left_s())
            if not self._scheduler.is_draining:
                await _call(self._scheduler.drain, left_s())
        except Exception:
            logger.exception("the drain ended with a bug")

    async def _start_is_over(self, within_s: float) -> None:
        if self._starting is not None:
            _, late = await asyncio.wait([self._starting], timeout=within_s)
            for starting in late:
                starting.cancel()  # a thread that has begun goes on all the same
                await asyncio.sleep(0)  # only now it is taken from those that wait for a thread

    # --- A request ---

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: tuple[tuple[bytes, bytes], ...] = ()
        try:
            answer = await self._answer(scope, receive)
        except _ClientGone:
            return
        except _Refused as refused:
            answer, headers = refused.answer, refused.headers
            if refused.why and isinstance(self._scheduler, InformedScheduler):
                self._scheduler.fire_was_refused(refused.why)
        except Exception:
            logger.exception("a fire was not answered as it should")
            answer = messages.unsettled("the agent could not answer")
        await _respond(send, answer, headers)

    async def _answer(self, scope: Scope, receive: Receive) -> HttpAnswer:
        """Return the answer to a request, or raise why it is refused."""
        received_us = self._clock()
        if self._path not in _paths_of(scope):
            raise _refused(404, "not_found", why=self._why_not_served(scope))
        if scope["method"] != messages.FIRE.method:
            raise _refused(405, "method_not_allowed", headers=((b"allow", b"POST"),))
        headers = list(scope["headers"])
        token = _bearer(headers)
        claims = await self._verify(token)
        if self._scheduler.is_draining:
            return messages.unsettled("the agent is draining", error="draining")
        request = _read(headers, await self._body(headers, receive))
        self._spend(token, claims, request)
        minted_us = None if claims.iat is None else round(claims.iat * SECOND_US)
        answer = await self._fire(request, received_us=received_us, minted_us=minted_us)
        return messages.answer_to_fire(answer)

    def _why_not_served(self, scope: Scope) -> str:
        """Return what is wrong with a path that looks like that of a fire, and log it once; else nothing."""
        path = str(scope["path"])
        if scope["method"] != messages.FIRE.method or not messages.leads_to_fires(path):
            return ""
        sent = path[:_LOGGED_PATH_LENGTH]
        why = f"a fire was sent to {sent!r}; this endpoint serves {self._path!r} below its mount"
        if not self._has_told_of_path:
            self._has_told_of_path = True
            logger.error("%s: mend the agent's callback URL, the mount or the prefix", why)
        return why

    async def _verify(self, token: str) -> FireClaims:
        """Return what the token says. Whatever else the verifier does, the token is not good."""
        try:
            claims: object = await call(self._verifier.verify, token)
        except TokenError as error:
            raise _unauthorized(str(error), token) from None
        except Exception as error:  # noqa: BLE001 - logged, but as text: it may name the token
            why = "".join(traceback.format_exception(error))
            raise _unauthorized(why, token, level=logging.ERROR) from None
        if not isinstance(claims, FireClaims):
            why = f"the verifier returned a {type(claims).__name__}; expected FireClaims"
            raise _unauthorized(why, token, level=logging.ERROR)
        return claims

    def _spend(self, token: str, claims: FireClaims, request: FireRequest) -> None:
        """Refuse a token that was used for the fire before."""
        if isinstance(self._verifier, SpendingVerifier):
            fire = dedup_key(request.job_id, format_instant(parse_instant(request.fire_at)))
            try:
                self._verifier.spend(token, claims, fire)
            except TokenError as error:
                raise _unauthorized(str(error), token) from None

    async def _fire(self, request: FireRequest, *, received_us: Instant, minted_us: Instant | None) -> Answer:
        """Ask the scheduler what becomes of the fire.

        Args:
            request: the fire.
            received_us: when it has come, by the endpoint's clock.
            minted_us: when NAS made its token; None when the token does not say.
        """
        fire = partial(self._scheduler.fire, minted_us=minted_us, received_us=received_us)
        fire_at_us = parse_instant(request.fire_at)
        answer: Answer = await _call(fire, request.job_id, fire_at_us, threads=self._threads)
        return answer

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        try:
            async with asyncio.timeout(self._body_timeout_s):
                return await _body(headers, receive)
        except TimeoutError:
            reason = f"the body did not arrive within {self._body_timeout_s:g} s"
            raise _refused(400, "invalid_message", reason=reason) from None


def _bearer(headers: Headers) -> str:
    """Return the bearer token of a request, of which there must be one."""
    values = _header(headers, b"authorization")
    bearer = re.fullmatch(r"bearer +([!-~]+) *", values[0], re.IGNORECASE) if len(values) == 1 else None
    if bearer is None:
        raise _unauthorized(f"{len(values)} Authorization headers; expected one, with a bearer token")
    return bearer[1]


def _unauthorized(why: str, token: str = "", *, level: int = logging.WARNING) -> _Refused:
    """Return the refusal of whoever has no good token, which does not say why; the log says it."""
    told = why.replace(token, "<the token>") if token else why
    logger.log(level, "a fire was refused: %s", told)
    newest = told.strip().rpartition("\n")[2]  # of a traceback
    return _refused(401, "unauthorized", headers=((b"www-authenticate", b"Bearer"),), why=one_line(newest))


def _read(headers: Headers, body: bytes) -> FireRequest:
    """Return the fire in *body*. What does not say that it is JSON and no other thing is taken for JSON."""
    json_kind = re.compile(r"\s*application/([\w.+-]+\+)?json\s*(;|$)", re.IGNORECASE)
    if not all(json_kind.match(kind) for kind in _header(headers, b"content-type")):
        raise _refused(415, "unsupported_media_type", reason="expected application/json")
    try:
        return wire.decode(FireRequest, json.loads(body.decode("utf-8"), parse_constant=_refuse_constant))
    except wire.RemoteMessageError as error:
        raise _refused(error.error_status_hint, "invalid_message", reason=str(error)) from None
    except (ValueError, RecursionError):
        raise _refused(400, "invalid_message", reason="the body is not JSON") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"JSON has no {name}")


async def _body(headers: Headers, receive: Receive) -> bytes:
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


def _header(headers: Headers, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key.lower() == name]


def _paths_of(scope: Scope) -> tuple[str, ...]:
    """Return the path as it is, and below the mount: servers differ in what they leave of the mount."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    # Behind a proxy that takes its own part off, the path has the framework's part of the root alone.
    mount = root.removeprefix(str(scope.get("app_root_path", "")).rstrip("/"))
    return path, path.removeprefix(root), path.removeprefix(mount)


def _refused(
    status: int,
    error: str,
    *,
    reason: str | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    why: str = "",
) -> _Refused:
    answer = HttpAnswer(status=status, body=ErrorResponse(error=error, reason=reason))
    return _Refused(answer, headers, why or reason or "")


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


async def _call(function: Callable[..., Any], *args: object, threads: Executor | None = None) -> Any:
    """Call a method of the scheduler, async or sync; what is sync may block, and gets a thread."""
    if inspect.iscoroutinefunction(function):
        return await function(*args)
    work = partial(contextvars.copy_context().run, function, *args)
    result = await asyncio.get_running_loop().run_in_executor(threads, work)
    return await result if inspect.isawaitable(result) else result


def _countdown(timeout_s: float) -> Callable[[], float]:
    """Return what tells how much of *timeout_s* is left, seconds; never less than none."""
    deadline_s = time.monotonic() + timeout_s
    return lambda: max(0.0, deadline_s - time.monotonic())


def _log_bug(task: asyncio.Task[object]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        logger.error("the start ended with a bug", exc_info=error)
