"""The event loop of an `async` agent, in the time of its process."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine, Iterator
from contextvars import ContextVar
from typing import Any

from chronos.jobs.instants import MINUTE_US
from simulator.own.library import Activity, Wait, Wanted
from simulator.wire.loop import Loop

# A sleep as long as this is no work: the host may stop the machine meanwhile.
LONG_SLEEP_US = MINUTE_US

CURRENT: ContextVar[Activity] = ContextVar("activity")


class Clock:
    """The time of an event loop, as a process knows it."""

    def __init__(self, steady_us: Callable[[], int]) -> None:
        self._steady_us = steady_us
        self._timers: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0

    @property
    def now_us(self) -> int:
        """The steady clock, microseconds."""
        return self._steady_us()

    def at(self, when_us: int, handler: Callable[..., None], *arguments: Any) -> None:
        """Let *handler* happen at *when_us*."""
        self._order += 1
        heapq.heappush(self._timers, (when_us, self._order, handler, arguments))

    def due(self) -> tuple[int, ...]:
        """Return when the first timer is due, if there is one."""
        return (self._timers[0][0],) if self._timers else ()

    def ring(self, due_us: int) -> None:
        """Let everything happen that is due."""
        while self._timers and self._timers[0][0] <= due_us:
            _, _, handler, arguments = heapq.heappop(self._timers)
            handler(*arguments)


class OwnLoop(Loop):
    """The event loop of an `async` agent, whose tasks belong to what has begun them."""

    def __init__(self, clock: Clock, **seam: Any) -> None:
        super().__init__(clock, **seam)
        self._activities: dict[asyncio.Task[Any], Activity] = {}
        self._done: list[asyncio.Task[Any]] = []

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Let what nobody awaits go unheard, as asyncio does but for a line in a log."""

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        """Return the task of a coroutine."""
        task = super().create_task(coro, **options)
        if (activity := CURRENT.get(None)) is not None:
            self.belongs(task, activity)
        return task

    def is_at_work(self) -> bool:
        """Return whether a task is not over."""
        return bool(self._activities)

    def belongs(self, task: asyncio.Task[Any], activity: Activity) -> None:
        """Note what a task is of."""
        self._activities[task] = activity
        task.add_done_callback(self._is_done)

    def _is_done(self, task: asyncio.Task[Any]) -> None:
        del self._activities[task]
        self._done.append(task)

    def unheard(self) -> Exception | None:
        """Return what a task has raised at this instant that nobody waited for; it ends the process, too."""
        done, self._done = self._done, []
        for task in done:
            if not task.cancelled() and task._log_traceback:
                error = task.exception()
                if isinstance(error, Exception):
                    return error
        return None

    def waits(self, due: tuple[int, ...], now_us: int) -> Iterator[tuple[int, Activity, Wanted]]:
        """Yield the tasks, where a timer is near for which they may wait."""
        if due and due[0] - now_us < LONG_SLEEP_US:
            for number, activity in enumerate(self._activities.values()):
                yield -1 - number, activity, Wait(due[0] - now_us)
