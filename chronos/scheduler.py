"""The scheduler that an agent embeds, for asyncio: it performs what the protocol decides.

Every piece of work is a flow of `chronos.protocol.machine`; this module performs the effects of
flows, in order, and tells them what happened. What to do, and what to answer, is decided there. Left
to this module are the things that take time:

* a run is a background task, which renews the lease while it is in flight and ends with a flow;
* a flow that nobody else would repeat is repeated, a few times, when it could not be settled;
* `pending()` says what is unfinished, so that a host knows whether it may stop the machine.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

import attrs

from chronos.errors import ChronosError, InvalidClient, StaleRevision
from chronos.nas import ArmAnswer, AsyncNas
from chronos.owner import is_dead, new_owner
from chronos.protocol import machine
from chronos.protocol.job import RENEW_EVERY_US, Job, Origin, Verdict
from chronos.protocol.machine import RECOVERY_MARGIN_US, Answer, Intent
from chronos.protocol.messages import CancelRequest
from chronos.protocol.schedule import SECOND_US, Instant, format_instant
from chronos.stores import JobStore

logger = logging.getLogger(__name__)

# The relay waits some 30 s for the answer to a fire, and the machine may just have been woken by it.
FIRE_ARM_TIMEOUT_S = 10.0

# When to repeat a flow that was not settled. A passing refusal is over by then; an outage is not, and
# whoever is told of it (NAS's redelivery, the next start) comes back without the machine staying up.
RETRY_DELAYS_S = (5.0, 15.0, 45.0)

# While draining, a retry does not wait longer: the machine is about to stop.
DRAINING_RETRY_DELAY_S = 1.0

RENEW_EVERY_S = RENEW_EVERY_US / SECOND_US

# How many flows of a start run at once: NAS is asked once for each, and limits their rate.
START_CONCURRENCY = 8

# The text of a failed run goes into the job's history, which is kept whole.
MAX_DETAIL_LENGTH = 1000

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class RunContext:
    """What a runner is told.

    Attributes:
        job_id: which job to run.
        occurrence_us: the scheduled instant, epoch microseconds, UTC; with the job's id, the identity
            of the occurrence, for whoever must do something once for each.
        attempt: 1, or more when an earlier attempt was interrupted.
    """

    job_id: str
    occurrence_us: Instant
    attempt: int


Runner: TypeAlias = Callable[[RunContext], "Awaitable[object] | object"]
"""Runs a job, sync (in a thread of its own) or async. An exception fails the run, with its text."""


@attrs.frozen(kw_only=True)
class Pending:
    """Something that is not finished.

    Attributes:
        job_id: whose; empty when it concerns all jobs.
        reason: what it waits for, in words.
        is_busy: whether this process is at work on it. A host may stop the machine when nothing is;
            what else is listed waits for NAS's next delivery, a change of the job, or a start.
    """

    job_id: str
    reason: str
    is_busy: bool


@attrs.frozen(kw_only=True)
class Started:
    """What a start did.

    Attributes:
        flows: how many jobs needed looking after.
        settled: whether the store and NAS agree on every job. When False, the scheduler goes on
            trying for a while; `pending()` says what for.
    """

    flows: int
    settled: bool


def _now_us() -> Instant:
    return time.time_ns() // 1000


class Scheduler:
    """The scheduler, for one event loop. Any number of them may share a store.

    Args:
        store: where the jobs are. Its calls may block; they are made in threads.
        nas: the client of NAS. It stays the caller's to close.
        runner: runs a job.
        owner: names this process among all that use the store; None makes a name.
        clock: returns the present instant, epoch microseconds, UTC.
        is_dead: tells whether the process that an owner's name stands for has definitely ended.
    """

    def __init__(
        self,
        store: JobStore,
        nas: AsyncNas,
        runner: Runner,
        *,
        owner: str | None = None,
        clock: Callable[[], Instant] = _now_us,
        is_dead: Callable[[str], bool] = is_dead,
    ) -> None:
        self._store = store
        self._nas = nas
        self._runner = runner
        self._owner = owner or new_owner()
        self._clock = clock
        self._is_dead = is_dead
        self._tasks: dict[asyncio.Task[Any], Pending] = {}
        self._unsettled: dict[str, str] = {}
        self._draining = asyncio.Event()
        self._is_identity_refused = False

    # --- What a host calls ---

    async def start(self) -> Started:
        """Make NAS agree with the store, look after interrupted and overdue runs, and return.

        There is no loop to keep alive: between fires nothing here is at work. Calling it again is
        harmless, and ends a drain.

        Returns:
            What was done. It does not raise: what could not be settled is in `pending()`.

        Source: contract, "Claim, run, re-arm"; incidents L2, L3, L4, O1, O2, O3, W7.
        """
        self._draining.clear()
        return await asyncio.shield(self._spawn(self._reconcile(), "", "the start is reconciling"))

    async def fire(self, job_id: str, fire_at_us: Instant) -> Answer:
        """Answer a fire: claim the occurrence, arm the next one, start the run.

        Cancelling the call does not cancel the work.

        Args:
            job_id: which job.
            fire_at_us: the instant that the fire names, epoch microseconds, UTC.

        Returns:
            The protocol's answer; `chronos.protocol.messages.answer_to_fire` makes an HTTP answer of
            it. Unsettled, NAS must deliver the fire again, also when the run has started. While
            draining, that is the answer to every fire, and nothing is claimed.
        """
        if self._draining.is_set():
            return Answer(job_id=job_id, verdict=None, reason="the agent is draining", settled=False)
        flow = self._perform(machine.Fire(job_id=job_id, fire_at_us=fire_at_us))
        return await asyncio.shield(self._spawn(flow, job_id, "a fire is being answered"))

    async def create(self, job: Job) -> Answer:
        """Add *job* to the store, and arm it.

        Returns:
            The answer, as for every change: settled, the change is saved and NAS agrees. Unsettled
            with a verdict, the change is saved, but its trigger is not registered with NAS; the
            scheduler goes on trying for a while (`pending()`), as the next start does, and the
            change need not be made again. Unsettled without a verdict, the store failed: look
            whether the change was made, and make it again. `REFUSED`: another job has the id.

        Raises:
            LocalMessageError: NAS could not be told of such an id; nothing was saved.
        """
        CancelRequest(job_id=job.id)  # an id that cannot be sent is refused before it is saved
        return await self._change(machine.Create(job_id=job.id, job=job))

    async def pause(self, job_id: str) -> Answer:
        """Put a job's schedule out of force and disarm it; its run in flight goes on. See `create`."""
        return await self._change(machine.Pause(job_id=job_id))

    async def resume(self, job_id: str) -> Answer:
        """Put a paused job's schedule in force again, and arm it. See `create`."""
        return await self._change(machine.Resume(job_id=job_id))

    async def remove(self, job_id: str) -> Answer:
        """Take a job out of the store and disarm it; its run in flight goes on. See `create`."""
        return await self._change(machine.Remove(job_id=job_id))

    def pending(self) -> tuple[Pending, ...]:
        """Return what is unfinished, and why. The host may stop the machine when none of it `is_busy`.

        Source: incident W1; after the answer to a fire, nothing else shows that work goes on.
        """
        busy = tuple(self._tasks.values())
        at_work_on = {each.job_id for each in busy}
        left = (
            Pending(job_id=job_id, reason=reason, is_busy=False)
            for job_id, reason in self._unsettled.items()
            if job_id not in at_work_on
        )
        return (*busy, *left)

    @property
    def is_draining(self) -> bool:
        """Whether fires are turned away, for NAS to deliver them again."""
        return self._draining.is_set()

    async def drain(self, timeout_s: float) -> tuple[Pending, ...]:
        """Turn fires away, and wait until the work in progress is done.

        Args:
            timeout_s: how long to wait, seconds. Runs are not cancelled when it is over: the host
                stops the process, and the next start finds them interrupted.

        Returns:
            What is still unfinished.
        """
        self._draining.set()
        try:
            async with asyncio.timeout(timeout_s):
                while self._tasks:
                    await asyncio.wait(self._tasks)
        except TimeoutError:
            logger.warning("drained in part", extra={"pending": [each.reason for each in self.pending()]})
        return self.pending()

    # --- Flows ---

    async def _perform(self, intent: Intent) -> Answer:
        """Perform one flow, from its first effect to its answer."""
        answer: Answer | None = None
        deadline_s: float | None = None
        has_asked_nas = False
        flow, first = machine.begin(intent, owner=self._owner)
        effects: deque[machine.Effect] = deque(first)
        while effects:
            effect = effects.popleft()
            if isinstance(effect, Answer):
                answer = effect
            elif isinstance(effect, machine.StartRun):
                self._start_run(effect)
            else:
                if isinstance(effect, (machine.ProvisionArm, machine.CancelArm)) and not has_asked_nas:
                    has_asked_nas, deadline_s = True, self._arm_deadline_s(intent)
                event = await self._do(effect, deadline_s)
                flow, more = machine.step(flow, event, self._clock())
                effects.extend(more)
        assert answer is not None
        self._note(intent, answer, has_asked_nas=has_asked_nas)
        return answer

    def _arm_deadline_s(self, intent: Intent) -> float | None:
        """Return until when the arm of a flow may take, by the loop's clock; None leaves it to the client."""
        if isinstance(intent, machine.Fire) and intent.origin is Origin.SCHEDULE:
            return asyncio.get_running_loop().time() + FIRE_ARM_TIMEOUT_S
        return None

    async def _do(self, effect: machine.Effect, deadline_s: float | None) -> machine.Event:
        """Perform one effect, and return what happened."""
        match effect:
            case machine.LoadJob(job_id):
                return await self._ask_store(lambda: machine.JobLoaded(*self._look(job_id)))
            case machine.LoadJobs():
                return await self._ask_store(
                    lambda: machine.JobsLoaded(
                        [(job, self._owner_is_dead(job)) for job in self._store.load_all()]
                    )
                )
            case machine.SwapJob():
                return await self._ask_store(lambda: self._swap(effect))
            case machine.ProvisionArm(job_id=job_id, fire_at_us=fire_at_us, revision=revision):
                arming = self._nas.provision(job_id, fire_at_us, revision=revision)
                return await self._ask_nas(job_id, arming, _accepted, deadline_s)
            case machine.CancelArm(job_id=job_id, revision=revision_or_none):
                disarming = self._nas.cancel(job_id, revision=revision_or_none)
                return await self._ask_nas(job_id, disarming, _accepted, deadline_s)
            case machine.ListArms():
                return await self._ask_nas("", self._nas.list_arms(), machine.ArmsListed, deadline_s)
        raise machine.ProtocolError(f"no shell performs {effect}")

    def _look(self, job_id: str) -> tuple[Job | None, bool]:
        job = self._store.load(job_id)
        return job, job is not None and self._owner_is_dead(job)

    def _owner_is_dead(self, job: Job) -> bool:
        return job.run is not None and job.run.owner != self._owner and self._is_dead(job.run.owner)

    def _swap(self, effect: machine.SwapJob) -> machine.Event:
        has_moved = self._store.swap(
            effect.job_id,
            expected=effect.expected,
            replacement=effect.replacement,
            outcomes=effect.outcomes,
        )
        return machine.JobSwapped() if has_moved else machine.SwapConflicted(*self._look(effect.job_id))

    async def _ask_store(self, request: Callable[[], machine.Event]) -> machine.Event:
        def guarded() -> machine.Event:
            try:
                return request()
            except ChronosError as error:
                logger.error("the job store failed: %s", error)
                return machine.StoreFailed()
            except BaseException:  # a store that fails in a way nobody thought of has failed
                logger.exception("the job store failed")
                return machine.StoreFailed()

        return await asyncio.to_thread(guarded)

    async def _ask_nas(
        self,
        job_id: str,
        request: Awaitable[T],
        event: Callable[[T], machine.Event],
        deadline_s: float | None,
    ) -> machine.Event:
        try:
            async with asyncio.timeout_at(deadline_s):
                answer = await request
        except StaleRevision as error:
            return machine.ArmOutdated(error.revision)
        except Exception as error:  # noqa: BLE001 - a client that fails in a way nobody thought of has failed
            self._log_failure(job_id, error)
            return machine.ArmFailed()
        self._is_identity_refused = False
        return event(answer)

    def _log_failure(self, job_id: str, error: Exception) -> None:
        """Say why NAS did not do as asked; say it once, when it is the same for all jobs and all times."""
        if not isinstance(error, InvalidClient):
            logger.warning("NAS did not agree", extra={"job_id": job_id, "error": _words(error)})
        elif not self._is_identity_refused:
            self._is_identity_refused = True
            logger.error("%s", error, extra={"job_id": job_id})

    def _note(self, intent: Intent, answer: Answer, *, has_asked_nas: bool) -> None:
        """Log the end of a flow, and remember whether its job is settled."""
        is_renewal = isinstance(intent, machine.Renew)
        if not answer.settled:
            level = logging.WARNING
            if not is_renewal:  # a run repeats its own
                self._unsettled[answer.job_id] = _why_unsettled(answer)
        else:
            level = logging.DEBUG if is_renewal else logging.INFO
            if has_asked_nas:
                self._unsettled.pop(answer.job_id, None)
        extra = {"job_id": answer.job_id, "verdict": answer.verdict, "reason": answer.reason}
        logger.log(level, "%s", type(intent).__name__.lower(), extra=extra | {"settled": answer.settled})

    # --- Flows that nobody else would repeat ---

    async def _change(self, intent: Intent) -> Answer:
        return await asyncio.shield(
            self._spawn(self._settle(intent), intent.job_id, "a change is being made")
        )

    async def _settle(self, intent: Intent) -> Answer:
        """Perform a flow; when it is not settled, go on in the background."""
        answer = await self._perform(intent)
        if not answer.settled:
            repeats = self._repeat(intent)
            self._spawn(repeats, answer.job_id, f"{_why_unsettled(answer)}; it is tried again")
        return answer

    async def _repeat(self, intent: Intent) -> None:
        """Repeat what was not settled, a few times: the end of a run as it was, all else as convergence.

        A change is not made again: its owner may have made another one since.
        """
        for delay_s in RETRY_DELAYS_S:
            await self._wait_to_retry(delay_s)
            again: Intent
            if isinstance(intent, machine.Finish):
                # The first attempt may have moved the store, and then the next one finds nothing to
                # do there: it must ask NAS all the same.
                again = attrs.evolve(intent, confirm=True)
            else:
                # The start's own look at one job. While draining, no occurrence is taken.
                due_us = 0 if self._draining.is_set() else self._clock() - RECOVERY_MARGIN_US
                again = machine.Fire(job_id=intent.job_id, fire_at_us=due_us, origin=Origin.RECOVERY)
            if (await self._perform(again)).settled:
                return
        logger.error("given up until the next fire, change or start", extra={"job_id": intent.job_id})

    async def _wait_to_retry(self, delay_s: float) -> None:
        if await _happens(self._draining, delay_s):
            await asyncio.sleep(min(delay_s, DRAINING_RETRY_DELAY_S))

    async def _reconcile(self) -> Started:
        """Reconcile; when NAS or the store could not say what there is, go on in the background."""
        started, is_known = await self._reconcile_once()
        if not is_known:
            self._spawn(self._reconcile_again(), "", f"{_UNKNOWN}; it is tried again")
        return started

    async def _reconcile_again(self) -> None:
        for delay_s in RETRY_DELAYS_S:
            await self._wait_to_retry(delay_s)
            if (await self._reconcile_once())[1]:
                return
        logger.error("given up until the next start: %s", _UNKNOWN)

    async def _reconcile_once(self) -> tuple[Started, bool]:
        """Return what was done, and whether all that NAS has and the store wants was seen."""
        state, (effect, *_) = machine.begin_reconciliation()
        while not isinstance(effect, machine.Begin):
            event = await self._do(effect, None)
            state, (effect, *_) = machine.step_reconciliation(state, event, self._clock())
        if effect.settled:
            self._unsettled.pop("", None)
        else:
            self._unsettled[""] = _UNKNOWN
        gate = asyncio.Semaphore(START_CONCURRENCY)

        async def settle(intent: Intent) -> Answer:
            async with gate:
                return await self._settle(intent)

        answers = await asyncio.gather(*map(settle, effect.intents))
        is_settled = effect.settled and all(answer.settled for answer in answers)
        logger.info("reconciled", extra={"flows": len(answers), "settled": is_settled})
        return Started(flows=len(answers), settled=is_settled), effect.settled

    # --- Runs ---

    def _start_run(self, effect: machine.StartRun) -> None:
        occurrence = format_instant(effect.run.occurrence_us)
        self._spawn(self._run(effect), effect.job_id, f"the run of {occurrence} is in flight")

    async def _run(self, effect: machine.StartRun) -> None:
        """Run a job, keep its lease alive meanwhile, and end the run."""
        job_id, run = effect.job_id, effect.run
        ended = asyncio.Event()
        renewal = asyncio.create_task(self._renew(effect, ended))
        try:
            context = RunContext(job_id=job_id, occurrence_us=run.occurrence_us, attempt=run.attempt)
            succeeded, detail = await self._call_runner(context)
        finally:
            ended.set()
        # A renewal on its way must not overtake the end: a NAS of contract 1.0 takes the last word.
        await asyncio.wait([renewal])
        finish = machine.Finish(
            job_id=job_id, run=run, succeeded=succeeded, detail=detail, confirm=effect.confirm
        )
        await self._settle(finish)

    async def _renew(self, effect: machine.StartRun, ended: asyncio.Event) -> None:
        """Renew a lease until the run has ended, or is no longer this process's. Source: incident D4."""
        delay_s, failures = RENEW_EVERY_S, 0
        while not await _happens(ended, delay_s):
            answer = await self._perform(machine.Renew(job_id=effect.job_id, run=effect.run))
            if answer.verdict is Verdict.LOST:
                logger.warning("the run is no longer this process's", extra={"job_id": effect.job_id})
                return
            failures = 0 if answer.settled else failures + 1
            delay_s = RETRY_DELAYS_S[min(failures, len(RETRY_DELAYS_S)) - 1] if failures else RENEW_EVERY_S

    async def _call_runner(self, context: RunContext) -> tuple[bool, str]:
        """Return whether the runner succeeded, and the text of its failure."""
        runner: Callable[[RunContext], Any] = self._runner
        try:
            result = (
                runner(context)
                if inspect.iscoroutinefunction(runner)
                else await _in_own_thread(runner, context)
            )
            if inspect.isawaitable(result):
                await result
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the process ends; the next start finds the run interrupted
            return False, "the runner was cancelled"
        except BaseException as error:  # noqa: BLE001 - a job that exits must not take the agent along
            return False, _words(error)
        return True, ""

    def _spawn(self, work: Coroutine[Any, Any, T], job_id: str, reason: str) -> asyncio.Task[T]:
        """Begin *work* in the background, where `pending` shows it until it is done."""
        task = asyncio.create_task(work)
        self._tasks[task] = Pending(job_id=job_id, reason=reason, is_busy=True)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        pending = self._tasks.pop(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("a flow ended with a bug", exc_info=error, extra={"job_id": pending.job_id})


_UNKNOWN = "what NAS has armed, or what the store holds, could not be read"


def _why_unsettled(answer: Answer) -> str:
    return answer.reason if answer.verdict is None else "NAS has not agreed to the job's arm"


def _accepted(answer: ArmAnswer) -> machine.Event:
    return machine.ArmAccepted(echoed=answer.echoed)


async def _happens(event: asyncio.Event, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def _in_own_thread(function: Callable[[RunContext], Any], context: RunContext) -> Any:
    """Call *function* in a thread of its own.

    Runs may last for hours and be many: in the loop's shared pool they would keep the store's calls
    waiting, the renewals of their own leases among them (incident D5). The thread is a daemon, since
    a process that was told to stop must not wait for a run.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def deliver(result: Any, error: BaseException | None) -> None:
        if not ended.done():
            ended.set_result((result, error))

    def work() -> None:
        result, error = None, None
        try:
            result = variables.run(function, context)
        except BaseException as raised:  # noqa: BLE001 - it is raised again where it is awaited
            error = raised
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(deliver, result, error)

    variables = contextvars.copy_context()
    threading.Thread(target=work, name=f"chronos-run-{context.job_id}", daemon=True).start()
    result, error = await ended
    if error is not None:
        raise error
    return result


def _words(error: BaseException) -> str:
    """Return an error's text as every store can keep it."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an exception that cannot say what it is still has a name
        text = ""
    words = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return words[:MAX_DETAIL_LENGTH].replace("\0", "").encode("utf-8", "replace").decode()
