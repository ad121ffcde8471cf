"""Both clients of NAS behind one face, so that a behaviour is tested once for the two."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeAlias

import httpx

from chronos.nas.client import AsyncNasClient, NasClient

KINDS = ("threads", "asyncio")
Handler: TypeAlias = Callable[[httpx.Request], Any]

AN_EPOCH_S = 1_782_475_200.0  # 2026-06-26T12:00:00+00:00


class Time:
    """A time that passes only while somebody waits, or by `now_s += …`."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now_s

    def clock(self) -> float:
        return AN_EPOCH_S + self.now_s

    def sleep(self, pause_s: float) -> None:
        self.pauses.append(pause_s)
        self.now_s += pause_s

    async def sleep_async(self, pause_s: float) -> None:
        self.sleep(pause_s)


class Client:
    """A client of either kind, whose methods return when they are done.

    Args:
        kind: which one, of `KINDS`.
        handler: answers in NAS's place; None for the network.
        portal_url: NAS's base URL.
        options: what else the client is made with.
    """

    def __init__(
        self,
        kind: str,
        handler: Handler | None,
        *,
        portal_url: str = "https://portal.example/",
        **options: Any,
    ) -> None:
        self.kind = kind
        self.time = Time()
        self._runner = asyncio.Runner()
        is_sync = kind == "threads"
        given = {
            "token_provider": lambda _fresh: "tok",
            "callback_url": "https://agent.example/",
            "transport": None if handler is None else httpx.MockTransport(handler),
            "clock": self.time.clock,
            "monotonic": self.time.monotonic,
            "random": lambda: 0.0,
            "sleep": self.time.sleep if is_sync else self.time.sleep_async,
        }
        make: Any = NasClient if is_sync else AsyncNasClient
        self.nas = make(portal_url, **(given | options))

    def provision(self, *args: Any, **kwargs: Any) -> Any:
        return self._done(self.nas.provision(*args, **kwargs))

    def cancel(self, *args: Any, **kwargs: Any) -> Any:
        return self._done(self.nas.cancel(*args, **kwargs))

    def list_arms(self) -> Any:
        return self._done(self.nas.list_arms())

    def close(self) -> None:
        self._done((self.nas.close if self.kind == "threads" else self.nas.aclose)())

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._runner.close()

    def _done(self, result: Any) -> Any:
        return self._runner.run(result) if inspect.iscoroutine(result) else result


def answers(*responses: httpx.Response | Exception) -> tuple[Handler, list[httpx.Request]]:
    """Return a NAS that gives these answers in turn, and the list of what it was asked."""
    queue, asked = list(responses), []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        answer = queue.pop(0)
        if isinstance(answer, Exception):
            raise answer
        # A new one: httpx binds an answer to the client, of either kind, that received it.
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    return handle, asked
