"""A process of an agent of one's own: what goes on in it, and what each part of it waits for.

A blocking activity is a greenlet: a call into the environment switches away, and its answer switches back.
An `async` one is a task of an event loop in simulated time. What can be done at an instant is done at once;
then the process waits for answers, ends of runs and timers, and may die before any of them.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from traceback import extract_tb
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet
from msgspec import Struct

import chronos
from chronos import events
from chronos.jobs.instants import Instant, datetime_of
from chronos.jobs.job import Job, Verdict
from chronos.protocol import process_effects
from chronos.protocol.flow_effects import Answer, StartRun
from chronos.protocol.intents import Fire, Intent, RunNow
from chronos.protocol.state import Now, Started
from simulator.agents import Raised
from simulator.own.environment import given_to, named_by
from simulator.own.library import Activity, Ask, Asking, CallRun, Library, Wait, Wanted
from simulator.own.loop import CURRENT, LONG_SLEEP_US, Clock, OwnLoop

# So often may a part of a dead process still ask for something, before it is left where it is.
_LAST_WORDS = 100

_OUR_OWN = (str(Path(chronos.__file__).parent), str(Path(__file__).parent))


class Told(Answer, frozen=True, kw_only=True):
    """The answer of an agent to a fire: `status` is its HTTP status."""

    status: int


class Blocked(Struct, eq=False):
    """A part of a process that waits.

    Attributes:
        activity: of what.
        wanted: for what.
        resume: goes on with what has come.
        due_us: when it comes by itself, by the steady clock; None when something else brings it.
    """

    activity: Activity
    wanted: Wanted
    resume: Callable[[Any], None]
    due_us: int | None = None


class Hub:
    """What goes on in one process.

    Args:
        make: the factory of the agent.
        owner: the name under which the process claims.

    Attributes:
        effects: what is to be performed.
        blocked: what waits, by number; an effect carries that number.
        runs: the runs in flight, by key.
        open: how many callers wait for an answer.
        is_draining: whether the host is about to stop it.
        agent: what the factory has made; None before the first start.
    """

    def __init__(self, make: Callable[..., Any], owner: str) -> None:
        self.owner = owner
        self.effects: list[process_effects.Effect | Raised] = []
        self.blocked: dict[int, Blocked] = {}
        self._free: list[int] = []
        self.runs: dict[int, StartRun] = {}
        self.open = 0
        self.is_draining = False
        self.agent: Any = None
        self._make, self.library = make, Library(self)
        self._given = given_to(self)
        self._main = getcurrent()
        self._greenlets: dict[greenlet, Activity] = {}
        self._ready: deque[Callable[[], None]] = deque()
        self._clock = Clock(self.steady_us)
        self._loop: OwnLoop | None = None
        self._now = Now(0, 0)
        self._is_over = False
        self._last_words = 0

    # --- what happens ---

    def happen(self, event: process_effects.Event, now: Now) -> None:
        """Let something happen, and do all that can be done now."""
        self._now = now
        _HAPPENS[type(event)](self, event)
        while self._ready and not self._is_over:
            self._ready.popleft()()
        if self._loop is not None and (error := self._loop.unheard()) is not None:
            self._raised(error)

    def _asked_to_start(self, event: process_effects.AskedToStart) -> None:
        def answered(_result: object) -> None:
            self._reply(event.ticket, Started(flows=0, settled=True))

        self._answering(None, lambda: self.made().start(), answered)

    def _asked(self, event: process_effects.Asked) -> None:
        ticket, intent = event.ticket, event.intent
        if isinstance(intent, Fire):
            fire_at = datetime_of(intent.fire_at_us)

            def answered(status: object) -> None:
                self._reply(ticket, _told(intent.job_id, status))

            self._answering(intent, lambda: self.made().fire(intent.job_id, fire_at), answered)
        elif isinstance(intent, RunNow):
            run_now = getattr(self.made(), "run_now", None)
            answer = _settled(intent, Verdict.ACCEPTED, None)
            if run_now is None:
                self.open += 1
                self._reply(ticket, answer)
            else:
                self._answering(intent, lambda: run_now(intent.job_id), lambda _: self._reply(ticket, answer))
        else:
            self._change(ticket, intent)

    def _change(self, ticket: Any, intent: Intent) -> None:
        """Change the store, as somebody does beside the agent; then tell the agent."""
        stored: list[Job | None] = []

        def change() -> Any:
            try:
                stored.append(self._drive(self.library.move(intent)).job)
            except OSError:
                return None
            return self.made().on_jobs_changed()

        def answered(result: object) -> None:
            if stored and result is not False:
                answer = _settled(intent, Verdict.CHANGED, stored[0])
                self.tell(events.FlowEnded(intent=intent, answer=answer))
            else:
                reason = "NAS does not agree yet" if stored else "the job store failed"
                answer = Answer(job_id=intent.job_id, verdict=None, reason=reason, settled=False)
            self._reply(ticket, answer)

        self._answering(None, change, answered)

    def _came(self, event: process_effects.Came) -> None:
        self._unblocked(event.number).resume(event.event)

    def _run_ended(self, event: process_effects.RunEnded) -> None:
        assert isinstance(event.key, int)
        del self.runs[event.key]
        self._unblocked(event.key).resume(event.succeeded)

    def _unblocked(self, number: int) -> Blocked:
        """Return what waits under a number, which is free from now on."""
        heapq.heappush(self._free, number)
        return self.blocked.pop(number)

    def _rang(self, _event: process_effects.Rang) -> None:
        """Go on with whatever is due; a timer that rings is, whatever the clock says."""
        first_us = self.rings_us()
        due_us = self._now.steady_us if first_us is None else max(first_us, self._now.steady_us)
        for number, each in sorted(self.blocked.items()):
            if each.due_us is not None and each.due_us <= due_us:
                self._unblocked(number)
                self._ready.append(lambda each=each: each.resume(None))  # type: ignore[misc]
        self._clock.ring(due_us)

    def _asked_to_drain(self, _event: process_effects.AskedToDrain) -> None:
        self.is_draining = True

    def rings_us(self) -> int | None:
        """Return when a timer rings next, by the steady clock; None for never."""
        due = [each.due_us for each in self.blocked.values() if each.due_us is not None]
        return min((*due, *self._clock.due()), default=None)

    def kill(self) -> None:
        """End the process: nothing of it goes on."""
        self._is_over = True
        for each in tuple(self._greenlets):
            if not each.dead:
                each.throw(GreenletExit)
        self._greenlets.clear()
        if self._loop is not None:
            self._loop.kill()

    def close(self) -> None:
        """End the process, and leave nothing of it that holds on to another."""
        self.kill()
        self.__dict__.clear()

    def is_at_rest(self) -> bool:
        """Return whether nothing goes on in it, nor will by itself."""
        is_silent = self._loop is None or not self._loop.is_at_work()
        return is_silent and not (self.blocked or self.open or self._clock.due() or self._is_over)

    # --- what goes on ---

    def _answering(
        self, intent: Intent | None, function: Callable[[], Any], then: Callable[[Any], None]
    ) -> None:
        """Begin something for which a caller waits."""
        self.open += 1
        self._begin(Activity(intent, {}), function, then)

    def _reply(self, ticket: Any, result: Any) -> None:
        self.open -= 1
        self.effects.append(process_effects.Reply(ticket, result))

    def spawn(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Begin something beside what goes on; its result goes nowhere."""
        current = self.activity()
        beside = Activity(current.intent, dict(current.claims), is_spawned=True)
        self._ready.append(lambda: self._begin(beside, lambda: function(*arguments), lambda _result: None))

    def _begin(self, activity: Activity, function: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Begin something; what an `async` function returns goes on in the loop."""

        def body() -> None:
            try:
                result = function()
                if inspect.isawaitable(result):
                    waited = self._awaited(activity, result, then)
                    self._ready.append(lambda: self._the_loop().begin(waited))
                else:
                    then(result)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - it ends the process
                self._raised(error)
            finally:
                self._greenlets.pop(begun, None)

        begun = greenlet(body, parent=self._main)
        self._greenlets[begun] = activity
        begun.switch()

    async def _awaited(self, activity: Activity, result: Any, then: Callable[[Any], None]) -> None:
        CURRENT.set(activity)
        if (task := asyncio.current_task()) is not None:
            self._the_loop().belongs(task, activity)
        try:
            then(await result)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it ends the process
            self._raised(error)

    def _raised(self, error: BaseException) -> None:
        if not self._is_over:
            self._is_over = True
            self.effects.append(raised_by(error))

    def activity(self) -> Activity:
        """Return what is going on."""
        blocking = self._greenlets.get(getcurrent())
        return CURRENT.get() if blocking is None else blocking

    def tell(self, event: events.Event) -> None:
        """Tell whoever looks on."""
        self.effects.append(process_effects.Tell(event))

    def wall_us(self) -> Instant:
        """Return what the machine's clock shows, epoch microseconds."""
        return self._now.wall_us

    def is_stopped(self) -> bool:
        """Return whether the agent is told to run no jobs."""
        return self._now.is_stopped

    def steady_us(self) -> int:
        """Return what a clock shows that nobody sets, microseconds."""
        return self._now.steady_us

    def waits(self) -> Iterator[tuple[int, Activity, Wanted]]:
        """Yield what waits and is at work: by number, what it is of, and what for."""
        for number, each in self.blocked.items():
            is_asleep = isinstance(each.wanted, Wait) and each.wanted.for_us >= LONG_SLEEP_US
            if not is_asleep:
                yield number, each.activity, each.wanted
        if self._loop is not None:
            yield from self._loop.waits(self._clock.due(), self.steady_us())

    # --- what the agent asks for ---

    def given(self) -> dict[str, Any]:
        """Return what a factory may name."""
        return self._given

    def made(self) -> Any:
        """Return the agent, which the factory makes when it is wanted first."""
        if self.agent is None:
            self.agent = self._make(**{name: self._given[name] for name in named_by(self._make)})
        return self.agent

    def drive(self, asking: Asking[Any]) -> Any:
        """Answer a call of the agent, or return a coroutine that does, where the agent is `async`."""
        if self._loop is not None and self._loop.is_running():
            return self._driven(asking)
        return self._drive(asking)

    def _drive(self, asking: Asking[Any]) -> Any:
        came: Any = None
        try:
            while True:
                came = self._wait(asking.send(came))
        except StopIteration as done:
            return done.value

    async def _driven(self, asking: Asking[Any]) -> Any:
        came: Any = None
        try:
            while True:
                came = await self._future(asking.send(came))
        except StopIteration as done:
            return done.value

    def _wait(self, wanted: Wanted) -> Any:
        """Let others go on until what is wanted has come."""
        me = getcurrent()
        if self._is_over or me not in self._greenlets:
            self._refuse()
        self._block(Blocked(self._greenlets[me], wanted, me.switch))
        return self._main.switch()

    def _refuse(self) -> None:
        if not self._is_over:
            raise RuntimeError("the environment answers only in start, on_jobs_changed, fire and run_now")
        self._last_words += 1
        if self._last_words > _LAST_WORDS:  # it does not want to end
            self._main.switch()
        raise GreenletExit

    async def _future(self, wanted: Wanted) -> Any:
        loop = self._the_loop()
        future = loop.create_future()

        def resume(came: Any) -> None:
            if not future.done():
                future.set_result(came)
            loop.run()

        self._block(Blocked(self.activity(), wanted, resume))
        return await future

    def _block(self, blocked: Blocked) -> None:
        """Ask for what is wanted."""
        wanted = blocked.wanted
        number = heapq.heappop(self._free) if self._free else len(self.blocked) + 1
        self.blocked[number] = blocked
        match wanted:
            case Ask():
                self.effects.append(process_effects.Perform(number, wanted.effect, wanted.within_us))
            case CallRun():
                self.runs[number] = wanted.started
                self.effects.append(process_effects.CallRunner(number, wanted.started))
            case Wait():
                blocked.due_us = self._now.steady_us + wanted.for_us

    def _the_loop(self) -> OwnLoop:
        if self._loop is None:
            self._loop = OwnLoop(  # type: ignore[abstract]  # nobody asks for what it lacks
                self._clock, call=self._in_thread, settled=lambda: None
            )
        return self._loop

    def _in_thread(self, function: Callable[[], Any]) -> Any:
        """Call a blocking function beside the loop; return a future of its result."""
        loop = self._the_loop()
        future = loop.create_future()

        def work() -> None:
            try:
                future.set_result(function())
            except Exception as error:  # noqa: BLE001 - it is raised where the future is awaited
                future.set_exception(error)
            self._ready.append(loop.run)

        self.spawn(work)
        return future


_HAPPENS: dict[type, Callable[[Hub, Any], None]] = {
    process_effects.AskedToStart: Hub._asked_to_start,
    process_effects.Asked: Hub._asked,
    process_effects.Came: Hub._came,
    process_effects.RunEnded: Hub._run_ended,
    process_effects.Rang: Hub._rang,
    process_effects.AskedToDrain: Hub._asked_to_drain,
}


def _told(job_id: str, status: object) -> Told:
    if type(status) is not int or not 100 <= status <= 599:
        raise TypeError(f"fire returned {status!r}; expected an HTTP status")
    is_accepted = 200 <= status < 300
    return Told(job_id=job_id, verdict=None, reason="", settled=is_accepted, status=status)


def _settled(intent: Intent, verdict: Verdict, job: Job | None) -> Answer:
    return Answer(job_id=intent.job_id, verdict=verdict, reason="", settled=True, job=job)


def raised_by(error: BaseException) -> Raised:
    """Return what was raised, and where in the agent's own code."""
    frames = [frame for frame in extract_tb(error.__traceback__) if not frame.filename.startswith(_OUR_OWN)]
    last = frames[-1] if frames else None
    where = "" if last is None else f"{Path(last.filename).name}:{last.lineno}, in {last.name}"
    text = str(error)
    return Raised(f"{type(error).__name__}: {text}" if text else type(error).__name__, where)
