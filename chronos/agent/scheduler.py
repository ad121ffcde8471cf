"""The schedulers that an agent embeds: one with threads, one for asyncio.

Both perform the same work, that of `chronos.agent.work`, and differ only in how: `Scheduler` in threads of
its own, `AsyncScheduler` as tasks of the running loop. Whatever is decided is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

import attrs

from chronos import arguments
from chronos.agent.declaring import JobSpec
from chronos.agent.effects import Failed, event_of, question, read, request
from chronos.agent.operations import Execute, Join, Operation, Pending, Perform, Read, Sleep, Spawn
from chronos.agent.runner import run_job, run_job_async
from chronos.agent.shell import Shell
from chronos.agent.status import Status
from chronos.agent.work import Started
from chronos.errors import NasUnavailable
from chronos.jobs.job import Job, Outcome, Policy
from chronos.jobs.schedule import SECOND_US, GivenSchedule, Instant
from chronos.nas.client import AsyncNas, Nas
from chronos.protocol import flow as flows
from chronos.protocol.flow import Answer

T = TypeVar("T")


class Scheduler(Shell[Nas]):
    """The scheduler, with threads of its own. Any number of them may share a store.

    Args:
        store: where the jobs are.
        nas: the client of NAS; it stays the caller's to close. None when there is no NAS: then the
            in-process ticker fires the jobs, for as long as the process lives.
        runner: runs a job, in a thread of its own; an async one gets a loop of its own there.
        owner: names this process among all that use the store; None makes a name.
        clock: returns the present instant, epoch microseconds, UTC.
        is_dead: tells whether the process that an owner's name stands for has definitely ended; it
            must not block.
        is_stopped: tells whether the agent is told to run no jobs, as in an emergency; it must not
            block or raise. It is asked before each claim, and has to remember for as long as the stop lasts,
            which may be longer than the process. Runs in flight go on. Who lifts the stop calls
            `start`.
        hooks: told what happens; see `chronos.agent.events`.

    Raises:
        TypeError: an argument is of another type than its own: a path is no store, a text no runner. A
            hook, *is_dead*, *is_stopped* or *clock* that is async is refused, and so is a client of NAS that
            is made for the other scheduler.
        ValueError: *owner* is empty.
        ScheduleError: what *clock* returns is no instant.
    """

    def _new_signal(self) -> threading.Event:
        return threading.Event()

    def _prepare(self) -> None:
        # One piece of work at a time takes a step; whoever waits for all of them is told of each end.
        self._changed = threading.Condition(threading.RLock())

    # --- What a host calls ---

    def start(self) -> Started:
        """Make NAS agree with the store, look after interrupted and overdue runs, and return.

        There is no loop to keep alive, as long as there is a NAS: between fires nothing here is at
        work. Calling it again is harmless; it ends a drain, and asks NAS again after NAS has refused the
        agent's identity.

        Returns:
            What was done. It does not raise: what could not be settled is in `pending()`.

        Source: contract, "Claim, run, re-arm"; incidents L2, L3, L4, O1, O2, O3, W7.
        """
        if self._nas is not None:
            self._nas.reset()
        started: Started = self._ask(self._start())
        return started

    def fire(
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
        """Answer a fire: claim the occurrence, arm the next one, start the run.

        Args:
            job_id: which job.
            fire_at_us: the instant that the fire names, epoch microseconds, UTC.
            fire_at: the same as an aware `datetime`; one of the two is given.
            minted: when NAS made the fire's token, an aware `datetime`; None when that is not known.
            minted_us: the same in epoch microseconds.
            received: when the fire reached this process; None when that is not known.
            received_us: the same in epoch microseconds.

        Returns:
            The protocol's answer; `chronos.contract.messages.answer_to_fire` makes an HTTP answer of
            it. Unsettled, NAS must deliver the fire again, also when the run has started; so it must when
            the fire is `EARLY`, for an instant that is further ahead than two clocks may differ. While
            draining, that is the answer to every fire, and nothing is claimed. While the agent is
            told to run no jobs, nothing is claimed either, and the answer is `STOPPED` and settled:
            that does not pass by itself, and the start that follows it looks after every job.

        Raises:
            ScheduleError: an instant is none; nothing was claimed.
            LocalMessageError: *job_id* is no id that NAS could have named; nothing was claimed.

        Source: contract, "NAS to agent"; incidents L5, L6, L7, L12, T2, W1.
        """
        answer: Answer = self._ask(
            self._fire(job_id, (fire_at, fire_at_us), (minted, minted_us), (received, received_us))
        )
        return answer

    def create(
        self,
        job_id: str,
        schedule: GivenSchedule,
        *,
        tz: str = "UTC",
        times: int | None = None,
        policy: Policy | None = None,
        data: object = None,
    ) -> Answer:
        """Add a job to the store, and arm it.

        Args:
            job_id: unique among the jobs of the store.
            schedule: when it is due: a value, or text for `parse_schedule`.
            tz: the time zone of the text, an IANA name or an offset.
            times: after how many occurrences the schedule stops; None for never.
            policy: what shall happen when something goes wrong; None for the defaults.
            data: what the job carries for its runner, which finds it in `RunContext.data`: a JSON value of
                at most 64 KiB.

        Returns:
            The answer, as for every change: settled, the change is saved and NAS agrees. Unsettled
            with a verdict, it is saved and the trigger is not registered; `reason` says why and what
            to do, and this process goes on trying for a while. Without a verdict the store failed:
            make the same change again, which is harmless where it was made. `REFUSED`: another job
            has the id.

        Raises:
            ScheduleError: the schedule is none, or has no time left; nothing was saved.
            DataError: the data is no JSON value, or too large; nothing was saved.
            LocalMessageError: NAS could not be told of such an id; nothing was saved.
            TypeError: *policy* is no `Policy`; nothing was saved.

        Source: incident L3.
        """
        answer: Answer = self._ask(self._create(job_id, schedule, tz, times, policy, data))
        return answer

    def edit(
        self,
        job_id: str,
        *,
        schedule: GivenSchedule | None = None,
        tz: str | None = None,
        times: int | None = None,
        policy: Policy | None = None,
        data: object = attrs.NOTHING,
    ) -> Answer:
        """Change what is given of a job, and arm it anew. See `create`.

        Args:
            job_id: which job.
            schedule: the new schedule; None keeps the one it has. The job goes on with its first
                occurrence after now, unless the schedule is the same: then nothing about it changes,
                and what is due stays due. Text of an interval is the same when its period is; a value
                says where it is anchored as well.
            tz: the time zone of the text of the schedule; None keeps that of a cron job. Without a
                schedule, the new zone of a cron job.
            times: after how many occurrences the schedule stops, 0 for never; None keeps it.
            policy: the new policy as a whole; None keeps the one it has.
            data: what the job carries from its next run on; left out, it keeps what it has.

        Returns:
            The answer; `REFUSED` when no occurrence would be left, `GONE` without such a job.

        Raises:
            ScheduleError: the schedule is none, or *tz* is given without one and the job has no cron
                expression; nothing was changed.
            DataError: as for `create`; nothing was changed.
            LocalMessageError: as for `create`.
            TypeError: as for `create`.
        """
        answer: Answer = self._ask(self._edit(job_id, schedule, tz, times, policy, data))
        return answer

    def declare(self, jobs: Iterable[JobSpec], *, remove_others: bool = False) -> Mapping[str, Answer]:
        """Make the jobs be what an agent declares, as it does at each start of its process.

        A job that is not there is created; of one that is there, what differs is edited, as `edit`
        does it; one that is so already costs no call to NAS. The store is read once for all of them. The
        set stands above what was edited by hand, but for the state: a paused job stays paused, and a
        completed one stays so unless it is declared otherwise. What means the same is the same: `every 60m`
        and `every 1h` are, and an interval keeps its phase. A one-shot that counts from now, such as `in 8s`,
        is made once: its declaration is kept with the job, so that it is known again at the next start, also
        when it has run, for as long as its job is in the store and it is declared with the same delay.

        Args:
            jobs: what is declared, each id once.
            remove_others: whether to remove the jobs that were declared before and are not any more. A
                job that was created in another way is left alone, whatever is asked.

        Returns:
            The answer for each job, by its id, in the order of *jobs*; and then for each that was to be
            removed. They are those of `create`, `edit` and `remove`; `REFUSED` is one whose time is over.

        Raises:
            TypeError: something in *jobs* is no `JobSpec`, or *remove_others* no truth value.
            ValueError: an id is there more than once.
            StoreError: the store could not be read.
            JobsFileError: the store as a whole cannot be read; it must be mended by hand.

        Whatever it raises, nothing was changed.
        """
        answers: Mapping[str, Answer] = self._ask(self._declare(jobs, remove_others))
        return answers

    def pause(self, job_id: str, *, note: str = "") -> Answer:
        """Put a job's schedule out of force, with a note why, and disarm it. See `create`.

        Its run in flight goes on. What is due and was not taken yet is skipped.

        Raises:
            LocalMessageError: as for `create`.
            TypeError: *note* is no text.
        """
        answer: Answer = self._ask(self._pause(job_id, note))
        return answer

    def resume(self, job_id: str, *, from_now: bool = False) -> Answer:
        """Put a paused job's schedule in force again, and arm it. See `create`.

        It keeps the slots that it had; with *from_now*, an interval counts anew from the present instant.

        Raises:
            LocalMessageError: as for `create`.
            TypeError: *from_now* is no truth value.
        """
        answer: Answer = self._ask(self._resume(job_id, from_now))
        return answer

    def remove(self, job_id: str) -> Answer:
        """Take a job and its history out of the store, and disarm it. See `create`.

        Its run in flight goes on, and its end is not recorded.

        Raises:
            LocalMessageError: as for `create`.
        """
        answer: Answer = self._ask(self._remove(job_id))
        return answer

    def run_now(
        self, job_id: str, *, asked: datetime | None = None, asked_us: Instant | None = None
    ) -> Answer:
        """Start a run by hand. It takes no slot of the schedule, and the schedule goes on as it was.

        Args:
            job_id: which job; it may be paused or completed.
            asked: the identity of the run, an aware `datetime`, not in the future; None makes a new
                one. Give the same again to repeat a request whose answer was lost: it runs once.
            asked_us: the same in epoch microseconds.

        Returns:
            `ACCEPTED` when it runs, or waits for its turn; `DUPLICATE` when it was asked for before;
            `SKIPPED` when another run is in progress and may not be overlapped; `GONE` without such
            a job; `STOPPED` while the agent is told to run no jobs; `LOST` when the claim's lease ended
            before the run could start. Without a verdict the agent drains, or the store failed: ask again.

        Raises:
            LocalMessageError: as for `create`.
            ScheduleError: the instant is none; nothing was done.
            ValueError: it is in the future, or more than a year ago: then nobody repeats a request with it,
                and it is a number in another unit. Nothing was done.

        Source: incidents D2, L1.
        """
        answer: Answer = self._ask(self._run_now(job_id, (asked, asked_us)))
        return answer

    def get(self, job_id: str) -> Job | None:
        """Return a job as the store holds it, None when there is none; NAS is not asked.

        Raises:
            TypeError: *job_id* is no text.
            StoreError: the store could not be read; ask again later.
            JobsFileError: the store holds what cannot be read; it must be mended by hand.
        """
        job: Job | None = self._ask(self._get(job_id))
        return job

    def jobs(self) -> tuple[Job, ...]:
        """Return all jobs as the store holds them, in its order; NAS is not asked.

        A record that cannot be read is not among them; `status` shows it.

        Raises:
            StoreError: as for `get`.
            JobsFileError: the store as a whole cannot be read.
        """
        jobs: tuple[Job, ...] = self._ask(self._jobs())
        return jobs

    def history(self, job_id: str) -> tuple[Outcome, ...]:
        """Return the newest outcomes of a job, oldest first; as many as the store keeps.

        Raises:
            TypeError: *job_id* is no text.
            StoreError: as for `get`.
            JobsFileError: as for `get`.
        """
        outcomes: tuple[Outcome, ...] = self._ask(self._history(job_id))
        return outcomes

    def status(self) -> Status:
        """Return how every job stands and whether the host may stop; asks the store and NAS once each.

        Raises:
            StoreError: as for `get`.
            JobsFileError: as for `get`.
        """
        found: Status = self._ask(self._status())
        return found

    def pending(self) -> tuple[Pending, ...]:
        """Return what is unfinished, and why. The host may stop the machine when none of it `is_busy`.

        Source: incident W1; after the answer to a fire, nothing else shows that work goes on.
        """
        with self._changed:
            return self._work.pending()

    def drain(self, timeout_s: float) -> tuple[Pending, ...]:
        """Turn fires away, and wait until the work in progress is done.

        Args:
            timeout_s: how long to wait, seconds. Runs are not cancelled when it is over: the host
                stops the process, and the next start finds them interrupted.

        Returns:
            What is still unfinished.

        Raises:
            TypeError: *timeout_s* is no number.
            ValueError: *timeout_s* is negative, none, or longer than thirty years.
        """
        arguments.seconds("timeout_s", timeout_s)
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            self._work.begin_drain()
            while self._work.tasks and self._changed.wait(deadline_s - time.monotonic()):
                pass
            return self._drained(self._work.pending())

    # --- How work is performed ---

    def _ask(self, spawn: Spawn) -> Any:
        """Do what somebody asks for, in the thread that asks."""
        task = _Task()
        with self._changed:
            if spawn.pending is not None:
                self._work.tasks[task] = spawn.pending
        try:
            return self._drive(spawn.work)
        finally:
            self._forget(task)

    def _spawn(self, spawn: Spawn) -> _Task:
        """Begin a piece of work in a thread of its own.

        A process that was told to stop must not wait for a run: its threads are daemons.
        """
        task = _Task()
        with self._changed:
            if spawn.pending is not None:
                self._work.tasks[task] = spawn.pending
        # As a task of asyncio does, it sees the caller's context, such as the span that a fire is part of.
        work_on = functools.partial(contextvars.copy_context().run, self._work_on, task, spawn)
        thread = threading.Thread(target=work_on, name="chronos", daemon=True)
        try:
            thread.start()
        except BaseException:  # no thread is to be had: nothing must wait for what was not begun
            self._forget(task)
            raise
        return task

    def _work_on(self, task: _Task, spawn: Spawn) -> None:
        try:
            task.result = self._drive(spawn.work)
        except BaseException as error:  # noqa: BLE001 - there is nobody above who could be told
            self._ended(spawn.pending, error)
        finally:
            self._forget(task)

    def _forget(self, task: _Task) -> None:
        with self._changed:
            self._work.tasks.pop(task, None)
            task.has_ended.set()
            self._changed.notify_all()

    def _drive(self, work: Generator[Operation, Any, T]) -> T:
        """Perform a piece of work to its end; its steps are taken one at a time among all work."""
        step: Callable[[], Operation] = functools.partial(next, work)
        try:
            while True:
                with self._changed:
                    operation = step()
                try:
                    step = functools.partial(work.send, self._perform(operation))
                except Exception as error:  # noqa: BLE001 - it is raised where the work asked
                    step = functools.partial(work.throw, error)
        except StopIteration as ended:
            value: T = ended.value
            return value
        finally:
            with self._changed:
                work.close()

    def _perform(self, operation: Operation) -> Any:
        match operation:
            case Perform(effect=effect, timeout_s=timeout_s):
                return event_of(effect, self._outcome(effect, timeout_s))
            case Sleep(delay_us=delay_us, until=until):
                assert isinstance(until, threading.Event)
                return until.wait(delay_us / SECOND_US)
            case Execute(context=context):
                return run_job(self._runner, context)
            case Spawn():
                return self._spawn(operation)
            case Join(tasks=tasks):
                return [task.wait() for task in tasks if isinstance(task, _Task)]
            case Read(question=ask):
                return read(ask, self._store)

    def _outcome(self, effect: flows.Effect, timeout_s: float | None) -> Any:
        try:
            ask = question(effect, self._store)
            return request(effect, self._nas, timeout_s) if ask is None else ask()
        except KeyboardInterrupt:  # it is meant for the host, whose thread this is
            raise
        except BaseException as error:  # noqa: BLE001 - what fails in a way nobody thought of has failed
            return Failed(error)


class _Task:
    """A piece of work in a thread."""

    def __init__(self) -> None:
        self.has_ended = threading.Event()
        self.result: Any = None

    def wait(self) -> Any:
        """Return the result once there is one; None for work that ended with a bug."""
        self.has_ended.wait()
        return self.result


class AsyncScheduler(Shell[AsyncNas]):
    """The scheduler, for one event loop. Any number of them may share a store.

    Its arguments are those of `Scheduler`, with an async client of NAS. The store's calls are made
    in threads, and so are those of a runner that is not async.
    """

    _is_async = True

    def _new_signal(self) -> asyncio.Event:
        return asyncio.Event()

    # --- What a host calls ---

    async def start(self) -> Started:
        """As `Scheduler.start`."""
        if self._nas is not None:
            self._nas.reset()
        started: Started = await self._ask(self._start())
        return started

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
        answer: Answer = await self._ask(
            self._fire(job_id, (fire_at, fire_at_us), (minted, minted_us), (received, received_us))
        )
        return answer

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
        answer: Answer = await self._ask(self._create(job_id, schedule, tz, times, policy, data))
        return answer

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
        answer: Answer = await self._ask(self._edit(job_id, schedule, tz, times, policy, data))
        return answer

    async def declare(self, jobs: Iterable[JobSpec], *, remove_others: bool = False) -> Mapping[str, Answer]:
        """As `Scheduler.declare`."""
        answers: Mapping[str, Answer] = await self._ask(self._declare(jobs, remove_others))
        return answers

    async def pause(self, job_id: str, *, note: str = "") -> Answer:
        """As `Scheduler.pause`."""
        answer: Answer = await self._ask(self._pause(job_id, note))
        return answer

    async def resume(self, job_id: str, *, from_now: bool = False) -> Answer:
        """As `Scheduler.resume`."""
        answer: Answer = await self._ask(self._resume(job_id, from_now))
        return answer

    async def remove(self, job_id: str) -> Answer:
        """As `Scheduler.remove`."""
        answer: Answer = await self._ask(self._remove(job_id))
        return answer

    async def run_now(
        self, job_id: str, *, asked: datetime | None = None, asked_us: Instant | None = None
    ) -> Answer:
        """As `Scheduler.run_now`."""
        answer: Answer = await self._ask(self._run_now(job_id, (asked, asked_us)))
        return answer

    async def get(self, job_id: str) -> Job | None:
        """As `Scheduler.get`."""
        job: Job | None = await self._ask(self._get(job_id))
        return job

    async def jobs(self) -> tuple[Job, ...]:
        """As `Scheduler.jobs`."""
        jobs: tuple[Job, ...] = await self._ask(self._jobs())
        return jobs

    async def history(self, job_id: str) -> tuple[Outcome, ...]:
        """As `Scheduler.history`."""
        outcomes: tuple[Outcome, ...] = await self._ask(self._history(job_id))
        return outcomes

    async def status(self) -> Status:
        """As `Scheduler.status`."""
        found: Status = await self._ask(self._status())
        return found

    def pending(self) -> tuple[Pending, ...]:
        """As `Scheduler.pending`."""
        return self._work.pending()

    async def drain(self, timeout_s: float) -> tuple[Pending, ...]:
        """As `Scheduler.drain`."""
        arguments.seconds("timeout_s", timeout_s)
        self._work.begin_drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._work.tasks:
                    await asyncio.wait(list(self._work.tasks))  # type: ignore[type-var]
        return self._drained(self.pending())

    # --- How work is performed ---

    async def _ask(self, spawn: Spawn) -> Any:
        """Do what somebody asks for; that they stop waiting does not cancel it."""
        task = self._begin(spawn)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(functools.partial(self._look_at, spawn.pending))
            raise

    def _spawn(self, spawn: Spawn) -> asyncio.Task[Any]:
        """Begin a piece of work that nobody waits for, or not for its error."""
        task = self._begin(spawn)
        task.add_done_callback(functools.partial(self._look_at, spawn.pending))
        return task

    def _begin(self, spawn: Spawn) -> asyncio.Task[Any]:
        task = asyncio.create_task(self._drive(spawn.work))
        if spawn.pending is not None:
            self._work.tasks[task] = spawn.pending
            task.add_done_callback(self._work.tasks.pop)
        return task

    def _look_at(self, pending: Pending | None, task: asyncio.Task[Any]) -> None:
        self._ended(pending, None if task.cancelled() else task.exception())

    async def _drive(self, work: Generator[Operation, Any, T]) -> T:
        """Perform a piece of work to its end."""
        step: Callable[[], Operation] = functools.partial(next, work)
        try:
            while True:
                operation = step()
                try:
                    step = functools.partial(work.send, await self._perform(operation))
                except Exception as error:  # noqa: BLE001 - it is raised where the work asked
                    step = functools.partial(work.throw, error)
        except StopIteration as ended:
            value: T = ended.value
            return value
        finally:
            work.close()

    async def _perform(self, operation: Operation) -> Any:
        match operation:
            case Perform(effect=effect, timeout_s=timeout_s):
                return event_of(effect, await self._outcome(effect, timeout_s))
            case Sleep(delay_us=delay_us, until=until):
                assert isinstance(until, asyncio.Event)
                return await _happens(until, delay_us)
            case Execute(context=context):
                return await run_job_async(self._runner, context)
            case Spawn():
                return self._spawn(operation)
            case Join(tasks=tasks):
                return await asyncio.gather(*tasks, return_exceptions=True)  # type: ignore[call-overload]
            case Read(question=ask):
                return await asyncio.to_thread(read, ask, self._store)

    async def _outcome(self, effect: flows.Effect, timeout_s: float | None) -> Any:
        try:
            ask = question(effect, self._store)
            if ask is not None:
                return await asyncio.to_thread(_guarded, ask)
            async with asyncio.timeout(timeout_s):
                return await request(effect, self._nas, timeout_s)
        except TimeoutError:
            bound = "" if timeout_s is None else f" within {timeout_s:.3g} s"
            return Failed(NasUnavailable(f"NAS did not answer{bound}"))
        except Exception as error:  # noqa: BLE001 - what fails in a way nobody thought of has failed
            return Failed(error)


def _guarded(ask: Callable[[], Any]) -> Any:
    """Ask in a thread; what is no `Exception` must not end the loop that awaits it."""
    try:
        return ask()
    except BaseException as error:  # noqa: BLE001 - as above
        return Failed(error)


async def _happens(event: asyncio.Event, within_us: int) -> bool:
    try:
        async with asyncio.timeout(within_us / SECOND_US):
            await event.wait()
    except TimeoutError:
        return False
    return True
