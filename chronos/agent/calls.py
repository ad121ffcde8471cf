"""Calls of functions that a host supplies: they may block, be async, or take too long."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, TypeVar

A = TypeVar("A")
R = TypeVar("R")


async def call(function: Callable[[A], R | Awaitable[R]], argument: A) -> R:
    """Call a function of the host, sync or async; a sync one may block, and gets a thread of its own."""
    plain: Callable[[A], Any] = function
    is_async = inspect.iscoroutinefunction(plain)
    result = plain(argument) if is_async else await in_own_thread(plain, argument, name="chronos-call")
    value: R = await result if inspect.isawaitable(result) else result
    return value


async def in_own_thread(function: Callable[[A], R], argument: A, *, name: str) -> R:
    """Call *function* in a thread of its own.

    What a host supplies may last for hours, or for ever, and be many: in the loop's shared pool it
    would keep the store's calls waiting, the renewals of leases among them (incident D5). The thread
    is a daemon, since a process that was told to stop must not wait for it.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def deliver(result: Any, error: BaseException | None) -> None:
        if not ended.done():
            ended.set_result((result, error))

    def work() -> None:
        result, error = None, None
        try:
            result = variables.run(function, argument)
        except BaseException as raised:  # noqa: BLE001 - it is raised again where it is awaited
            error = raised
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(deliver, result, error)

    variables = contextvars.copy_context()
    threading.Thread(target=work, name=name, daemon=True).start()
    result, error = await ended
    if error is not None:
        raise error
    value: R = result
    return value


def call_in_time(work: Callable[[Callable[[], bool]], R], timeout_s: float) -> R:
    """Return what *work* returns, if it does so in time.

    The timeouts of httpx are each for one operation on a connection, and none is for the look-up of a
    name. A thread can leave another one behind, whatever that is doing; it is a daemon, so that the
    process need not wait for it either.

    Args:
        work: what to do. Its argument returns whether nobody waits for it any more.
        timeout_s: how long to wait, seconds.

    Raises:
        TimeoutError: it has not ended yet.
        BaseException: what *work* raised.
    """
    done: Future[R] = Future()

    def run() -> None:
        with suppress(InvalidStateError):  # nobody waits for it any more
            try:
                result = variables.run(work, done.cancelled)
            except BaseException as error:  # noqa: BLE001 - it is raised again where it is waited for
                done.set_exception(error)
            else:
                done.set_result(result)

    variables = contextvars.copy_context()
    threading.Thread(target=run, name="chronos-nas", daemon=True).start()
    try:
        return done.result(timeout_s)
    finally:
        done.cancel()
