"""The scheduler for one event loop: it performs a process, one step at a time, and decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from chronos import arguments
from chronos.agent import base
from chronos.agent.base import Base
from chronos.agent.declaring import JobSpec
from chronos.agent.effects import Failed, question, read, request
from chronos.agent.runner import run_job_async
from chronos.errors import NasUnavailable
from chronos.jobs.instants import SECOND_US, Instant
from chronos.jobs.job import Job, Outcome
from chronos.jobs.policy import Policy
from chronos.jobs.schedule import GivenSchedule
from chronos.nas.client import AsyncNas
from chronos.protocol.flow_effects import Answer
from chronos.protocol.intents import Edit, Intent
from chronos.protocol.process import rings_us
from chronos.protocol.process_effects import (
    Asked,
    AskedForArms,
    AskedToDeclare,
    AskedToDrain,
    AskedToReconcile,
    AskedToStart,
    Broke,
    CallRunner,
    Came,
    Event,
    Perform,
    Rang,
    Reply,
    RunBroke,
    RunEnded,
    Saw,
)
from chronos.protocol.state import Pending, Started
from chronos.stores import JobStore, told_apart

if TYPE_CHECKING:
    from chronos.agent.status import Status

T = TypeVar("T")

# Alarms are set to the microsecond.
_SAME_S = 0.5 / SECOND_US


class AsyncScheduler(Base[AsyncNas]):
    """The scheduler, for one event loop. Any number of them may share a store.

    Its arguments are those of `Scheduler`, with an async client of NAS. The store's calls are made
    in threads, and so are those of a runner that is not async.
    """

    _is_async = True

    def _prepare(self) -> None:
        self._replies: dict[object, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._drains: list[asyncio.Future[None]] = []
        self._alarm: asyncio.TimerHandle | None = None

    # --- What a host calls ---

    async def start(self) -> Started:
        """As `Scheduler.start`."""
        if self._nas is not None:
            self._nas.reset()
        started: Started = await self._ask(AskedToStart)
        return started

    async def reconcile(self) -> Started:
        """As `Scheduler.reconcile`."""
        reconciled: Started = await self._ask(AskedToReconcile)
        return reconciled

    async def fire(
        self,
        job_id: str,
        fire_at_us: Instant | None = None,
        *,
        fire_at: datetime | None = None,
        minted: datetime | None = None,
        minted_us: Instant | None = None,
        received: datetime | None = None,
        received_us: Instant | None = None,
    ) -> Answer:
        """As `Scheduler.fire`. Cancelling the call does not cancel the work, here as everywhere."""
        intent = self._fire(job_id, (fire_at, fire_at_us), (minted, minted_us), (received, received_us))
        return await self._ask_for(intent)

    async def create(
        self,
        job_id: str,
        schedule: GivenSchedule,
        *,
        tz: str = "UTC",
        times: int | None = None,
        policy: Policy | None = None,
        data: object = None,
    ) -> Answer:
        """As `Scheduler.create`."""
        return await self._ask_for(self._create(job_id, schedule, tz, times, policy, data))

    async def edit(
        self,
        job_id: str,
        *,
        schedule: GivenSchedule | None = None,
        tz: str | None = None,
        times: int | None = None,
        policy: Policy | None = None,
        data: object = attrs.NOTHING,
    ) -> Answer:
        """As `Scheduler.edit`."""
        changes, is_told_by_job = self._edit(job_id, schedule, tz, times, policy, data)
        if is_told_by_job:
            changes = self._edit_like(job_id, await self._read(base.load(job_id)), changes, tz)
        return await self._ask_for(Edit(job_id=job_id, changes=changes))

    async def declare(self, jobs: Iterable[JobSpec], *, remove_others: bool = False) -> Mapping[str, Answer]:
        """As `Scheduler.declare`."""
        wanted = self._declare(jobs, remove_others)
        known = await self._read(base.load_jobs)
        answers: Mapping[str, Answer] = await self._ask(AskedToDeclare, known, wanted, remove_others)
        return answers

    async def pause(self, job_id: str, *, note: str = "") -> Answer:
        """As `Scheduler.pause`."""
        return await self._ask_for(self._pause(job_id, note))

    async def resume(self, job_id: str, *, from_now: bool = False) -> Answer:
        """As `Scheduler.resume`."""
        return await self._ask_for(self._resume(job_id, from_now))

    async def remove(self, job_id: str) -> Answer:
        """As `Scheduler.remove`."""
        return await self._ask_for(self._remove(job_id))

    async def run_now(
        self, job_id: str, *, asked: datetime | None = None, asked_us: Instant | None = None
    ) -> Answer:
        """As `Scheduler.run_now`."""
        return await self._ask_for(self._run_now(job_id, (asked, asked_us)))

    async def get(self, job_id: str) -> Job | None:
        """As `Scheduler.get`."""
        return await self._read(base.load(job_id))

    async def jobs(self) -> tuple[Job, ...]:
        """As `Scheduler.jobs`."""
        return await self._read(base.load_jobs)

    async def history(self, job_id: str) -> tuple[Outcome, ...]:
        """As `Scheduler.history`."""
        return await self._read(base.history(job_id))

    async def status(self) -> Status:
        """As `Scheduler.status`."""
        listed = await self._ask(AskedForArms)
        records, newest = await self._read(base.seen)
        self._happen(Saw(told_apart(records)[1]))
        return self._status(listed, records, newest)

    def pending(self) -> tuple[Pending, ...]:
        """As `Scheduler.pending`."""
        return self._pending()

    async def drain(self, timeout_s: float) -> tuple[Pending, ...]:
        """As `Scheduler.drain`."""
        arguments.seconds("timeout_s", timeout_s)
        self._happen(AskedToDrain())
        if self._process.is_at_work:
            self._drains.append(ended := asyncio.get_running_loop().create_future())
            await asyncio.wait([ended], timeout=timeout_s)
        return self._drained(self.pending())

    # --- How it is performed ---

    async def _read(self, ask: Callable[[JobStore], T]) -> T:
        return await asyncio.to_thread(read, ask, self._store)

    async def _ask_for(self, intent: Intent) -> Answer:
        answer: Answer = await self._ask(Asked, intent)
        return answer

    async def _ask(self, asked: Callable[..., Event], *what: object) -> Any:
        """Ask the process, and wait for its answer; that somebody stops waiting does not stop the work."""
        ticket = object()
        reply = self._replies[ticket] = asyncio.get_running_loop().create_future()
        try:
            self._happen(asked(ticket, *what))
            return await reply
        finally:
            self._replies.pop(ticket, None)

    def _happen(self, event: Event) -> None:
        """Let something happen to the process, and begin what it wants done."""
        effects = self._step(event)
        self._set_alarm()
        for effect in effects:
            match effect:
                case Reply(ticket=ticket, result=result):
                    reply = self._replies.pop(ticket, None)
                    if reply is not None and not reply.done() and result is not None:
                        reply.set_result(result)
                case Perform():
                    self._begin(self._perform(effect))
                case CallRunner():
                    self._begin(self._run(effect))
        if not self._process.is_at_work:
            for ended in self._drains:
                if not ended.done():
                    ended.set_result(None)
            self._drains.clear()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _perform(self, effect: Perform) -> None:
        """Ask the store or NAS, and say what came of it."""
        try:
            event = self._event_of(effect.effect, await self._outcome(effect))
            self._happen(Came(effect.number, event))
        except asyncio.CancelledError:
            self._happen(Broke(effect.number))
            raise
        except Exception as error:  # noqa: BLE001 - it is raised where somebody waits for the answer
            reply = self._replies.get(self._ticket_of(effect))
            if reply is None or reply.done():
                self._note_bug(error)
            else:
                reply.set_exception(error)
            self._happen(Broke(effect.number))

    async def _run(self, effect: CallRunner) -> None:
        context = self._context(effect)
        try:
            succeeded, detail = await run_job_async(self._runner, context)
            self._happen(RunEnded(effect.key, succeeded, detail))
        except asyncio.CancelledError:
            self._happen(RunBroke(effect.key))
            raise
        except Exception as error:  # noqa: BLE001 - there is nobody above who could be told
            self._note_bug(error, context.job_id)
            self._happen(RunBroke(effect.key))

    def _set_alarm(self) -> None:
        """See to it that somebody rings when the process wants that."""
        due_us, loop = rings_us(self._process), asyncio.get_running_loop()
        when_s = None if due_us is None else loop.time() + max(0, due_us - self._steady()) / SECOND_US
        if self._alarm is not None:
            # The loop's clock stands still while the machine sleeps, and the process's goes on.
            if when_s is not None and abs(self._alarm.when() - when_s) < _SAME_S:
                return
            self._alarm.cancel()
        self._alarm = None if when_s is None else loop.call_at(when_s, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        try:
            self._happen(Rang())
        except Exception as error:  # noqa: BLE001 - nothing else would ring
            self._note_failed_timer(error)
            self._alarm = asyncio.get_running_loop().call_later(1, self._ring)

    async def _outcome(self, effect: Perform) -> Any:
        within_s = None if effect.within_us is None else effect.within_us / SECOND_US
        try:
            ask = question(effect.effect, self._store)
            if ask is not None:
                return await asyncio.to_thread(_guarded, ask)
            async with asyncio.timeout(within_s):
                return await request(effect.effect, self._nas, within_s)
        except TimeoutError:
            bound = "" if within_s is None else f" within {within_s:.3g} s"
            return Failed(NasUnavailable(f"NAS did not answer{bound}"))
        except Exception as error:  # noqa: BLE001 - what fails in a way nobody thought of has failed
            return Failed(error)


def _guarded(ask: Callable[[], Any]) -> Any:
    """Ask in a thread; what is no `Exception` must not end the loop that awaits it."""
    try:
        return ask()
    except BaseException as error:  # noqa: BLE001 - as above
        return Failed(error)
