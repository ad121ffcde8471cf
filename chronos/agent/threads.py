"""How a scheduler with threads of its own performs a process, one step at a time; it decides nothing.

A request is performed in the thread of its caller; runs, and effects without a caller, in others.
"""

from __future__ import annotations

import contextvars
import functools
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from chronos.agent.base import Base
from chronos.agent.effects import Failed, question, request
from chronos.agent.runner import RunContext, run_job
from chronos.jobs.instants import SECOND_US
from chronos.nas.client import Nas
from chronos.protocol import state
from chronos.protocol.flow_effects import Answer
from chronos.protocol.intents import Intent, key_of
from chronos.protocol.process import rings_us
from chronos.protocol.process_effects import (
    Asked,
    Broke,
    CallRunner,
    Came,
    CannotRing,
    Event,
    Perform,
    Rang,
    Reply,
    RunBroke,
    RunEnded,
)
from chronos.protocol.state import LIST, ForOwed


class NoThreadError(RuntimeError):
    """The system has no thread left."""


class InThreads(Base[Nas]):
    """A scheduler without what a host calls; see `chronos.agent.scheduler`."""

    def _prepare(self) -> None:
        # The process takes one step at a time; whoever waits for something is told of each.
        self._changed = threading.Condition(threading.RLock())
        self._alarm = threading.Condition(self._changed._lock)  # type: ignore[attr-defined]
        self._rings_us: int | None = None
        self._replies: dict[object, Any] = {}
        self._bugs: dict[object, BaseException] = {}
        # In which context what is owed came to be owed: it is tried again in that one.
        self._owed_in: dict[object, contextvars.Context] = {}

    def _ask_for(self, intent: Intent) -> Answer:
        answer: Answer = self._ask(Asked, intent)
        return answer

    def _ask(self, asked: Callable[..., Event], *what: object) -> Any:
        """Ask the process, and do what it wants in the thread that asks, until it has answered."""
        ticket = object()
        try:
            self._perform_all(self._happen(asked(ticket, *what)), ticket)
            with self._changed:
                while ticket not in self._replies:
                    self._changed.wait()
                reply = self._replies.pop(ticket)
        except BaseException:
            with self._changed:
                self._replies.pop(ticket, None)
            raise
        if reply is None:
            raise self._bugs.pop(ticket)
        return reply

    def _happen(self, event: Event) -> list[Perform]:
        """Let something happen to the process, and return what is to be asked of the store and of NAS.

        Raises:
            NoThreadError: no thread is to be had for a run or an alarm; nothing waits for what was not begun.
        """
        with self._changed:
            before = self._process
            effects = self._step(event)
            self._note_contexts(before)
            todo = [effect for effect in effects if isinstance(effect, Perform)]
            for effect in effects:
                if isinstance(effect, Reply):
                    self._replies[effect.ticket] = effect.result
            self._changed.notify_all()
            runs = [effect for effect in effects if isinstance(effect, CallRunner)]
            try:
                self._set_alarm()
                while runs:
                    self._spawn(self._run, runs[0], self._context(runs[0]))
                    del runs[0]
            except NoThreadError:
                for run in runs:
                    self._step(RunBroke(run.key))
                for each in todo:
                    self._step(Broke(each.number))
                raise
            return todo

    def _perform_all(self, todo: list[Perform], ticket: object = None) -> None:
        """Perform what leads to the answer under *ticket* in this thread, and all else in others."""
        while todo:
            if ticket is not None and ticket in self._replies:
                self._begin(todo)
                return
            first, *others = todo
            self._begin(others)
            todo = self._performed(first)

    def _performed(self, effect: Perform) -> list[Perform]:
        """Ask the store or NAS, and return what is to be done then."""
        try:
            event = self._event_of(effect.effect, self._outcome(effect))
            return self._happen(Came(effect.number, event))
        except NoThreadError:
            raise
        except BaseException as error:
            with self._changed:
                ticket = self._ticket_of(effect)
                if ticket is None:
                    self._note_bug(error)
                else:
                    self._bugs[ticket] = error
                left = self._happen(Broke(effect.number))
            if not isinstance(error, Exception):
                raise
            return left

    def _note_contexts(self, before: state.Process) -> None:
        """Remember the present context for work that is owed since this step; forget that of settled work."""
        after = self._process
        if after.owed is before.owed and after.lists is before.lists:
            return
        present = contextvars.copy_context()
        keys = (*after.owed, *((LIST,) if after.lists is not None else ()))
        self._owed_in = {key: self._owed_in.get(key, present) for key in keys}

    def _context_of(self, effect: Perform, owed_in: Mapping[object, contextvars.Context]) -> Any:
        """Return the context in which an effect is performed: of what is owed, the one in which it was."""
        task = self._process.tasks.get(effect.number)
        purpose = None if task is None else task.purpose
        key = key_of(purpose.owed.intent) if isinstance(purpose, ForOwed) else purpose
        context = owed_in.get(key)
        return contextvars.copy_context() if context is None else context.copy()

    def _begin(
        self, todo: Iterable[Perform], owed_in: Mapping[object, contextvars.Context] = MappingProxyType({})
    ) -> None:
        """Perform each in a thread of its own."""
        for effect in todo:
            try:
                self._spawn(self._perform_all, [effect], context=self._context_of(effect, owed_in))
            except NoThreadError as error:  # nothing must wait for what was not begun
                self._note_bug(error)
                self._begin(self._happen(Broke(effect.number)))

    def _spawn(
        self,
        function: Callable[..., object],
        *arguments: object,
        context: contextvars.Context | None = None,
    ) -> None:
        """Call a function in a thread of its own.

        A process that was told to stop must not wait for a run: its threads are daemons. As a task of asyncio
        does, it sees the caller's context, such as the span that a fire is part of.
        """
        seen = contextvars.copy_context() if context is None else context
        work = functools.partial(seen.run, self._guard, function, *arguments)
        try:
            threading.Thread(target=work, name="chronos", daemon=True).start()
        except RuntimeError as error:
            raise NoThreadError(str(error)) from error

    def _guard(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            function(*arguments)
        except BaseException as error:  # noqa: BLE001 - there is nobody above who could be told
            self._note_bug(error)

    def _run(self, effect: CallRunner, context: RunContext) -> None:
        succeeded, detail = run_job(self._runner, context)
        try:
            todo = self._happen(RunEnded(effect.key, succeeded, detail))
        except Exception as error:  # noqa: BLE001 - there is nobody above who could be told
            self._note_bug(error, context.job_id)
            todo = self._happen(RunBroke(effect.key))
        self._perform_all(todo)

    def _set_alarm(self) -> None:
        """See to it that somebody rings when the process wants that; one thread does, while it does."""
        due_us, waits_until_us = rings_us(self._process), self._rings_us
        if waits_until_us is not None:
            # A wait does not count the time for which the machine has slept.
            if due_us is None or due_us < waits_until_us or due_us <= self._steady():
                self._alarm.notify()
        elif due_us is not None:
            self._rings_us = due_us
            try:
                self._spawn(self._ring)
            except NoThreadError:
                self._rings_us = None
                self._step(CannotRing())
                raise

    def _ring(self) -> None:
        while True:
            with self._changed:
                self._rings_us = rings_us(self._process)
                if self._rings_us is None:
                    return
                wait_us = self._rings_us - self._steady()
                if wait_us > 0:
                    self._alarm.wait(wait_us / SECOND_US)
                    continue
                owed_in = self._owed_in
            try:
                self._begin(self._happen(Rang()), owed_in)
            except Exception as error:  # noqa: BLE001 - nothing else would ring
                self._note_failed_timer(error)
                time.sleep(1)

    def _outcome(self, effect: Perform) -> Any:
        within_s = None if effect.within_us is None else effect.within_us / SECOND_US
        try:
            ask = question(effect.effect, self._store)
            return request(effect.effect, self._nas, within_s) if ask is None else ask()
        except KeyboardInterrupt:  # it is meant for the host, whose thread this is
            raise
        except BaseException as error:  # noqa: BLE001 - what fails in a way nobody thought of has failed
            return Failed(error)
