"""An event loop of asyncio in simulated time: it does at each instant all there is to do, and never waits."""

from __future__ import annotations

import asyncio
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Protocol

from chronos.jobs.instants import SECOND_US


class Clock(Protocol):
    """Time, and what is to happen at some of it."""

    @property
    def now_us(self) -> int:
        """Now, microseconds."""

    def at(self, when_us: int, handler: Callable[..., None], *arguments: Any) -> None:
        """Let *handler* happen at *when_us*."""


class Loop(asyncio.AbstractEventLoop):
    """The event loop of one process, which may die in the middle of anything.

    Args:
        kernel: the time.
        call: performs what the process asks to have done in a thread; returns a future of its result.
        settled: called whenever nothing is left to do at an instant.
    """

    def __init__(
        self,
        kernel: Clock,
        *,
        call: Callable[[Callable[[], Any]], asyncio.Future[Any]],
        settled: Callable[[], None],
    ) -> None:
        self._kernel, self._call, self._settled = kernel, call, settled
        self._began_us = kernel.now_us
        self._ready: deque[asyncio.Handle] = deque()
        self._is_running = False
        self._is_dead = False
        self._failure: BaseException | None = None

    def begin(self, work: Coroutine[Any, Any, object]) -> None:
        """Begin *work*, and do all that can be done now."""
        self.create_task(work)
        self.run()

    def run(self) -> None:
        """Do all that can be done now.

        Raises:
            BaseException: what went wrong in a callback; nothing else would show it.
        """
        if self._is_running or self._is_dead:
            return
        self._do_all()
        if self._failure is not None:
            raise self._failure
        if not self._is_dead:
            self._settled()

    def _do_all(self) -> None:
        events._set_running_loop(self)
        self._is_running = True
        try:
            while self._ready and not self._is_dead:
                handle = self._ready.popleft()
                if not handle.cancelled():
                    handle._run()
            if self._is_dead:
                self._bury()
        finally:
            self._is_running = False
            events._set_running_loop(None)

    def kill(self) -> None:
        """End the process: nothing of it goes on, and nothing is left of it."""
        self._is_dead = True
        if not self._is_running:
            self._do_all()

    def _bury(self) -> None:
        """Take every task out of whatever it waits for, so that none ends in another process's time."""
        while tasks := asyncio.all_tasks(self):
            for task in tasks:
                task.cancel()
            while self._ready:
                self._ready.popleft()._run()

    def fail(self, error: BaseException) -> None:
        """Let the simulation end with an error that is swallowed where it is raised."""
        self._failure = self._failure or error

    # --- what asyncio asks of a loop ---

    def time(self) -> float:
        """Return the seconds since the process began."""
        return (self._kernel.now_us - self._began_us) / SECOND_US

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Call *callback* in this instant, after what is already waiting."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call *callback* after so many seconds."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call *callback* at an instant of `time`, to the microsecond."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        when_us = self._began_us + round(when * SECOND_US)
        self._kernel.at(max(when_us, self._kernel.now_us), self._is_due, handle)
        return handle

    def _is_due(self, handle: asyncio.TimerHandle) -> None:
        if not self._is_dead and not handle.cancelled():
            self._ready.append(handle)
            self.run()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Leave it to its time to find out."""

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        """Return the task of a coroutine."""
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def run_in_executor(  # type: ignore[override]
        self,
        executor: Any,  # noqa: ARG002 - asyncio names it
        func: Callable[..., Any],
        *args: Any,
    ) -> asyncio.Future[Any]:
        """Call *func* as a thread would; there is none."""
        return self._call(lambda: func(*args))

    def is_running(self) -> bool:
        """Return whether a callback of this loop is on the stack."""
        return self._is_running

    def is_closed(self) -> bool:
        """Return False: a loop is only left."""
        return False

    def get_debug(self) -> bool:
        """Return False."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Let an error that a callback raised end the simulation, unless its process is dead."""
        if not self._is_dead:
            self.fail(context.get("exception") or RuntimeError(context["message"]))
