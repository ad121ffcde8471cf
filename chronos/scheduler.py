"""The scheduler that an agent embeds, for asyncio: it performs what the protocol decides.

Every piece of work is a flow of `chronos.protocol.machine`, which decides what to do and what to
answer; `chronos.effects` does it. Left to this module are the things that take time:

* a run is a background task, which renews the lease while it is in flight and ends with a flow;
* what a flow still owes (`machine.follow_up`) is begun after a while, a few times;
* `pending()` says what is unfinished, so that a host knows whether it may stop the machine.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import attrs

from chronos.effects import EffectPerformer
from chronos.nas import AsyncNas
from chronos.owner import is_dead, new_owner
from chronos.protocol import machine
from chronos.protocol.job import RENEW_EVERY_US, Job, Liveness, Origin, Verdict
from chronos.protocol.machine import FOLLOW_UP_DELAYS_US, Answer, Intent
from chronos.protocol.messages import CancelRequest
from chronos.protocol.schedule import SECOND_US, Instant, format_instant
from chronos.runner import RunContext, Runner, run_job
from chronos.stores import JobStore

logger = logging.getLogger(__name__)

# How long a flow may ask NAS, in all: as long as the client takes for a request and, with a fresh
# token, for one more. A relay waits some 30 s for the answer to a fire, and the machine may just
# have been woken by it.
NAS_TIMEOUT_S = 30.0
NAS_TIMEOUT_IN_FIRE_S = 10.0

# While draining, a follow-up does not wait longer: the machine is about to stop.
DRAINING_DELAY_US = SECOND_US

# How many flows of a start run at once: NAS is asked once for each, and limits their rate.
START_CONCURRENCY = 8

T = TypeVar("T")


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
        settled: whether the store and NAS agree on every job. When False, `pending()` says why; the
            scheduler goes on trying for a while, unless it is told to run no jobs.
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
        is_dead: tells whether the process that an owner's name stands for has definitely ended; it
            must not block.
        is_stopped: tells whether the agent is told to run no jobs, as in an emergency; it must not
            block. It is asked before each claim, and has to remember for as long as the stop lasts,
            which may be longer than the process. Runs in flight go on. Who lifts the stop calls
            `start`.
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
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._runner = runner
        self._owner = owner or new_owner()
        self._clock = clock
        self._is_dead = is_dead
        self._is_stopped = is_stopped
        self._tasks: dict[asyncio.Task[Any], Pending] = {}
        self._unsettled: dict[str, str] = {}
        self._converging: set[str] = set()
        self._draining = asyncio.Event()
        self._effects = EffectPerformer(store, nas, liveness=self._liveness, converging=self._converging)

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
            draining, that is the answer to every fire, and nothing is claimed. While the agent is
            told to run no jobs, nothing is claimed either, and the answer is `STOPPED` and settled:
            that does not pass by itself, and the start that follows it looks after every job.

        Source: contract, "NAS to agent"; incidents L5, L6, L7, L12, W1.
        """
        if self._draining.is_set():
            return Answer(job_id=job_id, verdict=None, reason="the agent is draining", settled=False)
        return await self._ask(machine.Fire(job_id=job_id, fire_at_us=fire_at_us))

    async def create(self, job: Job) -> Answer:
        """Add *job* to the store, and arm it.

        Returns:
            The answer, as for every change: settled, the change is saved and NAS agrees. Unsettled,
            make the same change again, which is harmless where it was made: with a verdict it is
            saved and NAS has not agreed; without one the store failed. Until somebody does,
            `pending()` lists the job, and the next start makes NAS agree with what is saved.
            `REFUSED`: another job has the id.

        Raises:
            LocalMessageError: NAS could not be told of such an id; nothing was saved.

        Source: incident L3.
        """
        CancelRequest(job_id=job.id)  # an id that cannot be sent is refused before it is saved
        return await self._ask(machine.Create(job_id=job.id, job=job))

    async def pause(self, job_id: str) -> Answer:
        """Put a job's schedule out of force and disarm it; its run in flight goes on. See `create`."""
        return await self._ask(machine.Pause(job_id=job_id))

    async def resume(self, job_id: str) -> Answer:
        """Put a paused job's schedule in force again, and arm it. See `create`."""
        return await self._ask(machine.Resume(job_id=job_id))

    async def remove(self, job_id: str) -> Answer:
        """Take a job out of the store and disarm it; its run in flight goes on. See `create`."""
        return await self._ask(machine.Remove(job_id=job_id))

    def pending(self) -> tuple[Pending, ...]:
        """Return what is unfinished, and why. The host may stop the machine when none of it `is_busy`.

        Source: incident W1; after the answer to a fire, nothing else shows that work goes on.
        """
        busy = tuple(self._tasks.values())
        at_work_on = {each.job_id for each in busy}
        left = [(job_id, reason) for job_id, reason in self._unsettled.items() if job_id not in at_work_on]
        if self._is_stopped():
            left.append(("", _STOPPED))
        return (*busy, *(Pending(job_id=job_id, reason=reason, is_busy=False) for job_id, reason in left))

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

    async def _ask(self, intent: Intent) -> Answer:
        """Do what somebody asks for; that they stop waiting does not cancel it."""
        reason = f"a {type(intent).__name__.lower()} is being answered"
        return await asyncio.shield(self._spawn(self._settle(intent), intent.job_id, reason))

    async def _settle(self, intent: Intent) -> Answer:
        """Perform a flow, and see to it that what it still owes is done."""
        answer = await self._perform(intent)
        owed = machine.follow_up(intent, answer, self._clock())
        if owed is not None:
            reason = f"{_why_unsettled(answer)}; it is tried again"
            self._spawn(self._follow_up(owed), intent.job_id, reason)
        return answer

    async def _follow_up(self, owed: Intent) -> None:
        for delay_us in FOLLOW_UP_DELAYS_US:
            await self._wait(delay_us)
            still_owed = machine.follow_up(owed, await self._perform(owed), self._clock())
            if still_owed is None:
                return
            owed = still_owed
        logger.error("given up until the next fire, change or start", extra={"job_id": owed.job_id})

    async def _wait(self, delay_us: int) -> None:
        if await _happens(self._draining, delay_us):
            await asyncio.sleep(min(delay_us, DRAINING_DELAY_US) / SECOND_US)

    async def _perform(self, intent: Intent) -> Answer:
        """Perform one flow, from its first effect to its answer."""
        if isinstance(intent, machine.Fire):
            if self._is_stopped():
                return self._note(intent, _stopped(intent.job_id), has_asked_nas=False)
            if intent.origin is Origin.RECOVERY and self._draining.is_set():
                intent = attrs.evolve(intent, fire_at_us=0)  # it arms, and takes no occurrence
        answer: Answer | None = None
        deadline_s: float | None = None
        flow, first = machine.begin(intent, owner=self._owner)
        effects: deque[machine.Effect] = deque(first)
        while effects:
            effect = effects.popleft()
            if isinstance(effect, Answer):
                answer = effect
            elif isinstance(effect, machine.StartRun):
                self._start_run(effect)
            else:
                if isinstance(effect, (machine.ProvisionArm, machine.CancelArm)) and deadline_s is None:
                    deadline_s = asyncio.get_running_loop().time() + _nas_timeout_s(intent)
                    self._converging.add(intent.job_id)
                event = await self._effects.perform(effect, deadline_s)
                flow, more = machine.step(flow, event, self._clock())
                effects.extend(more)
        assert answer is not None
        return self._note(intent, answer, has_asked_nas=deadline_s is not None)

    def _liveness(self, job: Job | None) -> Liveness:
        """Return what this process knows of the owner of the job's run.

        Of its own it knows all: the flow that claimed a run, the run itself and what is owed at its
        end are tasks. Where there is none, a claim was stored though the store reported a failure.
        """
        if job is None or job.run is None:
            return Liveness.UNKNOWN
        if job.run.owner != self._owner:
            return Liveness.DEAD if self._is_dead(job.run.owner) else Liveness.UNKNOWN
        asking = asyncio.current_task()
        others = (each for task, each in self._tasks.items() if task is not asking)
        return Liveness.ALIVE if any(each.job_id == job.id for each in others) else Liveness.DEAD

    def _note(self, intent: Intent, answer: Answer, *, has_asked_nas: bool) -> Answer:
        """Log the end of a flow, and remember whether its job is settled."""
        is_renewal = isinstance(intent, machine.Renew)
        if not answer.settled:
            level = logging.WARNING
            if not is_renewal:  # the next one mends it, without asking NAS
                self._unsettled[answer.job_id] = _why_unsettled(answer)
        else:
            level = logging.DEBUG if is_renewal else logging.INFO
            if has_asked_nas:
                self._unsettled.pop(answer.job_id, None)
        extra = {"job_id": answer.job_id, "verdict": answer.verdict, "reason": answer.reason}
        logger.log(level, "%s", type(intent).__name__.lower(), extra=extra | {"settled": answer.settled})
        return answer

    # --- The start ---

    async def _reconcile(self) -> Started:
        """Reconcile; when NAS or the store could not say what there is, go on in the background."""
        started, is_known = await self._reconcile_once()
        if not is_known:
            self._spawn(self._reconcile_again(), "", f"{_UNKNOWN}; it is tried again")
        return started

    async def _reconcile_again(self) -> None:
        for delay_us in FOLLOW_UP_DELAYS_US:
            await self._wait(delay_us)
            if (await self._reconcile_once())[1]:
                return
        logger.error("given up until the next start: %s", _UNKNOWN)

    async def _reconcile_once(self) -> tuple[Started, bool]:
        """Return what was done, and whether all that NAS has and the store wants was seen."""
        self._converging.clear()
        deadline_s = asyncio.get_running_loop().time() + NAS_TIMEOUT_S
        state, (effect, *_) = machine.begin_reconciliation()
        while not isinstance(effect, machine.Begin):
            event = await self._effects.perform(effect, deadline_s)
            state, (effect, *_) = machine.step_reconciliation(state, event, self._clock())
        if effect.settled:
            self._unsettled.pop("", None)
        else:
            self._unsettled[""] = _UNKNOWN
        gate = asyncio.Semaphore(START_CONCURRENCY)

        async def settle(intent: Intent) -> Answer:
            async with gate:
                return await self._spawn(self._settle(intent), intent.job_id, "the start looks after it")

        answers = await asyncio.gather(*map(settle, effect.intents))
        are_settled = (answer.settled and answer.verdict is not Verdict.STOPPED for answer in answers)
        started = Started(flows=len(answers), settled=effect.settled and all(are_settled))
        logger.info("reconciled", extra=attrs.asdict(started))
        return started, effect.settled

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
            succeeded, detail = await run_job(self._runner, context)
        finally:
            ended.set()
        # A renewal on its way must not overtake the end: a NAS of contract 1.0 takes the last word.
        await asyncio.wait([renewal])
        await self._settle(
            machine.Finish(job_id=job_id, run=run, succeeded=succeeded, detail=detail, confirm=effect.confirm)
        )

    async def _renew(self, effect: machine.StartRun, ended: asyncio.Event) -> None:
        """Renew a lease until the run has ended, or is no longer this process's. Source: incident D4."""
        while not await _happens(ended, RENEW_EVERY_US):
            answer = await self._settle(machine.Renew(job_id=effect.job_id, run=effect.run))
            if answer.verdict is Verdict.LOST:
                logger.warning("the run is no longer this process's", extra={"job_id": effect.job_id})
                return

    # --- Tasks ---

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
_STOPPED = "the agent is told to run no jobs"


def _stopped(job_id: str) -> Answer:
    return Answer(job_id=job_id, verdict=Verdict.STOPPED, reason=_STOPPED, settled=True)


def _why_unsettled(answer: Answer) -> str:
    has_a_reason = answer.verdict in (None, Verdict.LOST)
    return answer.reason if has_a_reason else "NAS has not agreed to the job's arm"


def _nas_timeout_s(intent: Intent) -> float:
    is_answering = isinstance(intent, machine.Fire) and intent.origin is Origin.SCHEDULE
    return NAS_TIMEOUT_IN_FIRE_S if is_answering else NAS_TIMEOUT_S


async def _happens(event: asyncio.Event, within_us: int) -> bool:
    try:
        async with asyncio.timeout(within_us / SECOND_US):
            await event.wait()
    except TimeoutError:
        return False
    return True
