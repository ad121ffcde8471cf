"""The third table of the protocol: what a process of an agent does, step by step.

A flow sees to one job. A process performs many of them, and what takes time besides. One step of it is a
`ProcessTurn`, whose parts have a module each:

| `runs` | renews the leases of its runs, and ends those whose time is over |
| `retries` | repeats unfinished work of flows; asks again for the list of arms, and for the time |
| `ticking` | fires its jobs itself where NAS cannot be had |
| `batches` | performs many flows, a few at once: those of a start, those of a declaration |
| `tasks` | lets each flow go on, from request to answer |
| `process` | takes the requests of callers, and the timers |

All of that is decided there and nowhere else.

`step(process, event, now)` returns the process as it stands after the event, and the effects to perform.
A timer is an instant in the value: whoever performs a process rings when `Process.rings_us` has come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chronos import events
from chronos.protocol import state, words
from chronos.protocol.flow_effects import Answer, ListArms
from chronos.protocol.intents import Fire, RunNow
from chronos.protocol.maps import Map
from chronos.protocol.process_effects import (
    Asked,
    AskedForArms,
    AskedToDeclare,
    AskedToDrain,
    AskedToReconcile,
    AskedToStart,
    Broke,
    Came,
    CannotRing,
    Effect,
    Event,
    Rang,
    Reply,
    RunBroke,
    RunEnded,
    Saw,
)
from chronos.protocol.reconciliation import declarations
from chronos.protocol.retries import tries_at_work
from chronos.protocol.state import (
    CLOCK,
    LIST,
    MOST_TRIES,
    Batch,
    ForCaller,
    ForLook,
    Now,
    Process,
    Retry,
    Started,
    Task,
)
from chronos.protocol.tasks import Tasks, stopped
from chronos.values import evolve


def step(process: Process, event: Event, now: Now) -> tuple[Process, tuple[Effect, ...]]:
    """Return *process* after *event*, and the effects to perform, in order.

    Args:
        process: as `new_process` or `step` returned it.
        event: what happened.
        now: when.

    Raises:
        ProtocolError: the event is none that its flow waits for; the process stands as it was.
    """
    return ProcessTurn.of(process, now).after(event)


_RUNS = (Fire, RunNow)


class ProcessTurn(Tasks):
    """A turn with all that can happen to a process. A step is a turn of one event."""

    def happen(self, event: Event) -> None:
        """Let something happen; what is to be performed then is added to `effects`."""
        TRANSITIONS[type(event)](self, event)

    def after(self, event: Event) -> tuple[Process, tuple[Effect, ...]]:
        """Return the process after *event*, and all effects of the turn."""
        self.happen(event)
        return self.process(), tuple(self.effects)

    def asked(self, event: Asked) -> None:
        """Somebody asks for a flow."""
        intent, is_run = event.intent, isinstance(event.intent, _RUNS)
        # Whoever is told to run something is an agent at work, also before its first start.
        self.is_started = self.is_started or is_run
        if is_run and self.is_draining:
            turned_away = Answer(job_id=intent.job_id, verdict=None, reason=words.DRAINING, settled=False)
            self.reply_at_once(event, turned_away)
        elif isinstance(intent, RunNow) and self.present.is_stopped:
            self.reply_at_once(event, stopped(intent))
        else:
            self.begin(intent, ForCaller(event.ticket))

    def reply_at_once(self, event: Asked, answer: Answer) -> None:
        """Answer without a flow."""
        self.tell(events.FlowEnded(intent=event.intent, answer=answer))
        self.effects.append(Reply(event.ticket, answer))

    def asked_to_start(self, event: AskedToStart) -> None:
        """A drain is over with this; one that comes later is not undone."""
        self.is_draining, self.is_started = False, True
        # NAS is asked once more, though it may have refused: somebody may have logged in.
        self.reconcile(ForCaller(event.ticket))

    def asked_to_reconcile(self, event: AskedToReconcile) -> None:
        """A drain goes on, and NAS is not asked anew after a refusal: both are for a start to change."""
        if not (self.is_draining or (self.has_nas and self.ticker.is_ticking)):
            self.reconcile(ForCaller(event.ticket))
            return
        trouble = words.DRAINING if self.is_draining else words.REFUSED
        self.effects.append(Reply(event.ticket, Started(flows=0, settled=False, trouble=trouble)))

    def asked_to_declare(self, event: AskedToDeclare) -> None:
        """Make the jobs be what is declared, each by a flow of its own, where it is not so already."""
        intents, answers = declarations(
            event.jobs,
            event.wanted,
            self.clock(),
            removes_others=event.removes_others,
            unsettled=self.unsettled,
        )
        ids = dict.fromkeys(intent.job_id for intent in (*event.wanted, *intents))
        self.begin_batch(
            Batch(
                purpose=ForCaller(event.ticket),
                intents=tuple(intents),
                answers=Map({job_id: answers.get(job_id, _broken(job_id)) for job_id in ids}),
                is_declared=True,
            )
        )

    def asked_to_drain(self, _event: AskedToDrain) -> None:
        """Turn fires away from now on, and let what waits wait no longer."""
        self.is_draining, self.looks = True, None
        self.ticker = evolve(self.ticker, is_running=False, next_us=None)
        soon_us = self.present.steady_us + state.DRAINING_DELAY_US
        for key, owed in self.owed.items():
            self.own("owed")[key] = evolve(owed, due_us=min(owed.due_us, soon_us))
        if self.lists is not None and self.lists.due_us is not None:
            self.lists = evolve(self.lists, due_us=soon_us)

    def asked_for_arms(self, event: AskedForArms) -> None:
        """Ask for the list of arms, for a caller who only looks."""
        task = Task(flow=None, purpose=ForLook(event.ticket))
        self.request(self.free_number(), task, None, ListArms())

    # --- timers ---

    def rang(self, _event: Rang) -> None:
        """Do what is due."""
        steady_us = self.present.steady_us
        for key, running in tuple(self.runs.items()):
            if running.end is not None:
                continue
            if running.over_us is not None and running.over_us <= steady_us:
                self.time_out(key, running)
            elif running.renew_us is not None and running.renew_us <= steady_us and not running.is_renewing:
                self.renew(key, running)
        if self.owed:
            self.try_owed()
        if self.lists is not None and _is_due(self.lists.due_us, steady_us):
            self.lists = evolve(self.lists, due_us=None)
            self.reconcile(LIST)
        if self.looks is not None and _is_due(self.looks.due_us, steady_us):
            self.looks = Retry(tries=min(self.looks.tries + 1, MOST_TRIES), due_us=None)
            self.reconcile(CLOCK)
        if _is_due(self.ticker.next_us, steady_us):
            self.tick()

    def cannot_ring(self, _event: CannotRing) -> None:
        """Let nothing look as if it went on by itself."""
        self.owed, self.lists, self.looks = Map(), None, None
        self._own.discard("owed")
        self.ticker = evolve(self.ticker, is_running=False, next_us=None)


TRANSITIONS: dict[type, Callable[[ProcessTurn, Any], None]] = {
    Asked: ProcessTurn.asked,
    AskedToStart: ProcessTurn.asked_to_start,
    AskedToReconcile: ProcessTurn.asked_to_reconcile,
    AskedToDeclare: ProcessTurn.asked_to_declare,
    AskedToDrain: ProcessTurn.asked_to_drain,
    AskedForArms: ProcessTurn.asked_for_arms,
    Came: ProcessTurn.came,
    Broke: ProcessTurn.broke,
    RunEnded: ProcessTurn.run_ended,
    RunBroke: ProcessTurn.run_broke,
    Rang: ProcessTurn.rang,
    CannotRing: ProcessTurn.cannot_ring,
    Saw: ProcessTurn.saw,
}


def rings_us(process: Process | ProcessTurn) -> int | None:
    """Return when the process wants to be rung for its next timer, by the steady clock; None for never."""
    first_us = process.ticker.next_us
    if process.lists is not None:
        first_us = _earlier(first_us, process.lists.due_us)
    if process.looks is not None:
        first_us = _earlier(first_us, process.looks.due_us)
    for running in process.runs.values():
        if running.end is None:
            first_us = _earlier(first_us, running.over_us)
            if not running.is_renewing:
                first_us = _earlier(first_us, running.renew_us)
    if process.owed and tries_at_work(process.tasks) < state.CONCURRENCY:
        first_us = _earlier(first_us, min(owed.due_us for owed in process.owed.values()))
    return first_us


def _earlier(first_us: int | None, other_us: int | None) -> int | None:
    if first_us is None or (other_us is not None and other_us < first_us):
        return other_us
    return first_us


def _is_due(due_us: int | None, steady_us: int) -> bool:
    return due_us is not None and due_us <= steady_us


def _broken(job_id: str) -> Answer:
    reason = "it ended with a bug, which is in the log"
    return Answer(job_id=job_id, verdict=None, reason=reason, settled=False)
