"""The third table of the protocol: what a process of an agent does, step by step.

A flow sees to one job. A process performs many of them, and what takes time besides: it renews the
leases of its runs, ends those whose time is over, tries again what a flow still owes, asks again what is
armed while nobody can say, looks at a clock that is not believed, and fires its jobs itself where NAS
cannot be had. All of that is decided here and nowhere else.

`step(process, event, now)` returns the process as it stands after the event, and the effects to perform.
A timer is an instant in the value: whoever performs a process rings when `Process.rings_us` has come.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from itertools import count
from typing import Any

import attrs

from chronos import events
from chronos.jobs.instants import SECOND_US, Instant, format_instant
from chronos.jobs.job import RENEW_EVERY_US, Job, Liveness, Origin, Run, Unreadable, Verdict
from chronos.protocol import flow as flows
from chronos.protocol import follow_ups, words
from chronos.protocol.clocks import Belief, Change, Reading, change_of, clock_trouble, compared, said_of
from chronos.protocol.draft import Fired
from chronos.protocol.flow_effects import (
    Answer,
    ArmAccepted,
    ArmFailed,
    ArmOutdated,
    ArmsListed,
    Begin,
    CancelArm,
    JobLoaded,
    JobsLoaded,
    JobSwapped,
    ListArms,
    ProvisionArm,
    StartRun,
    SwapConflicted,
    SwapJob,
)
from chronos.protocol.flow_effects import Effect as FlowEffect
from chronos.protocol.flow_effects import Event as FlowEvent
from chronos.protocol.intents import Finish, Fire, Intent, Renew, RunNow, concerns
from chronos.protocol.maps import Map
from chronos.protocol.reconciliation import declarations
from chronos.protocol.state import (
    CLOCK,
    CONCURRENCY,
    DRAINING_DELAY_US,
    FOLLOW_UP_FOR_US,
    LIST,
    MOST_TRIES,
    NAS_TIMEOUT_IN_FIRE_US,
    NAS_TIMEOUT_US,
    TICKER,
    Asked,
    AskedForArms,
    AskedToDeclare,
    AskedToDrain,
    AskedToReconcile,
    AskedToStart,
    Batch,
    Broke,
    CallRunner,
    Came,
    CannotRing,
    Effect,
    Event,
    ForBatch,
    ForCaller,
    ForClock,
    ForList,
    ForLook,
    ForOwed,
    ForRun,
    ForTicker,
    IdentityRefused,
    Log,
    Now,
    Owed,
    Pending,
    Perform,
    Process,
    Purpose,
    Rang,
    Reply,
    Retry,
    Rules,
    RunBroke,
    RunEnded,
    Running,
    Saw,
    Started,
    Task,
    Tell,
    TellRunner,
    belief_of,
    clock_of,
)
from chronos.protocol.ticker import Ticker

_FOR_NAS = (ProvisionArm, CancelArm, ListArms)
_OF_NAS = (ArmAccepted, ArmOutdated, ArmFailed, ArmsListed)


def step(process: Process, event: Event, now: Now) -> tuple[Process, tuple[Effect, ...]]:
    """Return *process* after *event*, and the effects to perform, in order.

    Args:
        process: as `new_process` or `step` returned it.
        event: what happened.
        now: when.

    Raises:
        ProtocolError: what came back is not what its flow waits for; the process stands as it was.
    """
    turn = Turn(process, now)
    TRANSITIONS[type(event)](turn, event)
    return turn.process(), tuple(turn.effects)


class Turn:
    """One step of a process in the making: its fields, to be changed, and what is to be performed.

    Attributes:
        present: when it happens.
        effects: what is to be performed, in order.
    """

    # What is no field of the process has a slot of its own.
    __slots__ = ("__dict__", "_advancing", "_own", "effects", "present")

    owner: str
    ticker: Ticker
    has_nas: bool
    rules: Rules
    is_started: bool
    is_draining: bool
    reading: Reading | None
    logins: int
    tasks: Map[int, Task]
    batches: Map[int, Batch]
    runs: Map[Hashable, Running]
    overtime: Map[Hashable, Pending]
    owed: Map[Hashable, Owed]
    lists: Retry | None
    looks: Retry | None
    unsettled: Map[str, str]
    unreadable: tuple[Unreadable, ...]

    def __init__(self, process: Process, now: Now) -> None:
        self.__dict__.update(process.__dict__)
        self.__dict__.pop("_hash", None)
        self.present = now
        self.effects: list[Effect] = []
        self._own: set[str] = set()
        self._advancing: set[int] = set()

    def process(self) -> Process:
        """Return the process as it stands now."""
        process = object.__new__(Process)
        process.__dict__.update(self.__dict__)
        return process

    def own(self, name: str) -> Map[Any, Any]:
        """Return a map of the process that this step may change."""
        if name not in self._own:
            self._own.add(name)
            self.__dict__[name] = Map(self.__dict__[name])
        found: Map[Any, Any] = self.__dict__[name]
        return found

    # --- the clock ---

    def clock(self) -> Instant:
        """Return the present instant: NAS's, while this machine's clock is not believed."""
        return clock_of(self.reading, self.present)

    def belief(self) -> Belief:
        """Return whether this machine's clock is believed."""
        return belief_of(self.reading, self.present)

    def hear(self, sent_us: Instant, date_us: Instant | None) -> None:
        """Compare the clock with NAS's, and see to it that one which is wrong is looked at again."""
        heard = compared(sent_us, self.present.wall_us, date_us, self.present.steady_us)
        if heard is None:
            return
        was_doubted, self.reading = self.belief() is Belief.DOUBTED, heard
        if was_doubted and not heard.is_doubted:
            self.log("warning", "this machine's clock agrees with NAS's again, and is believed")
        if heard.is_doubted and not was_doubted:
            self.log("error", clock_trouble(heard))
        if heard.is_doubted and self.looks is None and self.is_started and not self.is_draining:
            self.looks = self.later(0)

    def later(self, tries: int, retry_after_us: int = 0) -> Retry:
        """Return the wait for the next of many tries."""
        return Retry(tries=tries, due_us=self.present.steady_us + max(_delay_us(tries), retry_after_us))

    # --- what is asked ---

    def asked(self, event: Asked) -> None:
        """Somebody asks for a flow."""
        intent, is_run = event.intent, isinstance(event.intent, Fire | RunNow)
        # Whoever is told to run something is an agent at work, also before its first start.
        self.is_started = self.is_started or is_run
        if is_run and self.is_draining:
            turned_away = Answer(job_id=intent.job_id, verdict=None, reason=words.DRAINING, settled=False)
            self.reply_at_once(event, turned_away)
        elif isinstance(intent, RunNow) and self.present.is_stopped:
            self.reply_at_once(event, _stopped(intent))
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
        self.ticker = attrs.evolve(self.ticker, is_running=False, next_us=None)
        soon_us = self.present.steady_us + DRAINING_DELAY_US
        for key, owed in self.owed.items():
            self.own("owed")[key] = attrs.evolve(owed, due_us=min(owed.due_us, soon_us))
        if self.lists is not None and self.lists.due_us is not None:
            self.lists = attrs.evolve(self.lists, due_us=soon_us)

    def asked_for_arms(self, event: AskedForArms) -> None:
        """Ask what is armed, for somebody who only looks."""
        task = Task(flow=None, purpose=ForLook(event.ticket))
        self.request(self.free_number(), task, None, ListArms())

    def saw(self, event: Saw) -> None:
        """Remember which records cannot be read, and log each that was not known before. Source: S6."""
        for record in event.unreadable:
            if record not in self.unreadable:
                said = f"a job is not looked after: {words.unreadable(record)}"
                self.log("error", said, record.id or "")
        self.unreadable = event.unreadable

    # --- flows ---

    def begin(self, intent: Intent, purpose: Purpose) -> None:
        """Begin a flow; what is owed goes on during a stop, too."""
        asked, is_owed = intent, isinstance(purpose, ForOwed)
        if isinstance(intent, Fire | Finish):
            if self.present.is_stopped and isinstance(intent, Fire) and not is_owed:
                self.note(intent, _stopped(intent), has_asked_nas=False)
                self.answered(purpose, intent, _stopped(intent))
                return
            if self.present.is_stopped or self.is_draining or not self.is_started:
                intent = attrs.evolve(intent, may_start=False)
        flow, effects = self.rules.begin(intent, owner=self.owner, now_us=self.clock(), belief=self.belief())
        self.go_on(self.free_number(), Task(flow=None, purpose=purpose, intent=asked), flow, effects)

    def free_number(self) -> int:
        """Return a number for a new task."""
        return next(number for number in count() if number not in self.tasks)

    def go_on(self, number: int, task: Task, flow: Any, effects: Iterable[FlowEffect]) -> None:
        """Perform the effects of a task: one request; or an answer, with which it is over, and its runs."""
        answer: Answer | None = None
        for effect in effects:
            if isinstance(effect, Answer):
                answer = effect
                self.own("tasks").pop(number, None)
                assert task.intent is not None
                self.note(task.intent, answer, has_asked_nas=task.deadline_us is not None)
            elif isinstance(effect, StartRun):
                self.start_run(effect)
            elif isinstance(effect, Begin):
                self.own("tasks").pop(number, None)
                self.reconciled(task, effect)
            else:
                self.request(number, task, flow, effect)
        if answer is not None and task.intent is not None:
            self.answered(task.purpose, task.intent, answer)

    def request(self, number: int, task: Task, flow: Any, effect: FlowEffect) -> None:
        """Ask the store, NAS or, where that cannot be had, the ticker."""
        within_us, deadline_us = None, task.deadline_us
        if isinstance(effect, _FOR_NAS):
            if deadline_us is None:
                deadline_us = self.present.steady_us + self.nas_timeout_us(task.intent)
            within_us = max(0, deadline_us - self.present.steady_us)
        waiting = Task(
            flow=flow,
            purpose=task.purpose,
            intent=task.intent,
            effect=effect,
            deadline_us=deadline_us,
            sent_us=self.present.wall_us,
            logins=self.logins,
            converging=task.converging,
            retry_after_us=task.retry_after_us,
            is_unheard=task.is_unheard,
        )
        asks_ticker = within_us is not None and self.ticker.is_ticking and not self._asks_nas(waiting)
        if within_us is not None and task.intent is not None and task.deadline_us is None:
            self.note_converging(task.intent.job_id, is_by_ticker=asks_ticker)
        self.own("tasks")[number] = waiting
        if asks_ticker:
            self.came_for(number, waiting, self.ask_ticker(effect))
        elif within_us == 0:
            within_s = self.nas_timeout_us(task.intent) / SECOND_US
            self.came_for(number, waiting, ArmFailed(f"NAS has not agreed within {within_s:g} s"))
        else:
            self.effects.append(Perform(number, effect, within_us))

    def nas_timeout_us(self, intent: Intent | None) -> int:
        """Return how long a flow may ask NAS, in all."""
        return NAS_TIMEOUT_IN_FIRE_US if self.rules.is_answering(intent) else NAS_TIMEOUT_US

    def _asks_nas(self, task: Task) -> bool:
        """Return whether NAS is asked also while the ticker fires, which ends if it answers."""
        is_list, is_asked = (
            isinstance(task.effect, ListArms),
            isinstance(task.purpose, ForCaller | ForList),
        )
        return self.has_nas and is_list and is_asked

    def ask_ticker(self, effect: FlowEffect | None) -> FlowEvent:
        """Let the ticker do what NAS would."""
        self.ticker, event = self.ticker.perform(effect, self.present.steady_us)
        return event

    def note_converging(self, job_id: str, *, is_by_ticker: bool) -> None:
        """Let the reconciliations in progress know that their list is old for a job.

        What the ticker arms is no news for one that asks NAS, which may take over from it.
        """
        for number, task in self.tasks.items():
            is_look = task.intent is None and task.flow is not None and job_id not in task.converging
            if is_look and not (is_by_ticker and self._asks_nas(task)):
                self.own("tasks")[number] = attrs.evolve(task, converging=task.converging | {job_id})

    def came(self, event: Came) -> None:
        """An effect has come back."""
        task = self.tasks.get(event.number)
        if task is None:
            return
        self.came_for(event.number, *self.heard(task, event.event))

    def heard(self, task: Task, event: FlowEvent) -> tuple[Task, FlowEvent]:
        """Return what NAS said, or what follows where it refuses the agent's identity; with the task."""
        if not isinstance(event, _OF_NAS):
            return task, event
        self.hear(task.sent_us, event.date_us)
        is_refused, asks_nas = isinstance(event, IdentityRefused), self._asks_nas(task)
        is_of_before = task.logins != self.logins
        if asks_nas and isinstance(event, ArmsListed) and not (self.ticker.is_ticking and is_of_before):
            return self.logged_in(task), event
        if self.ticker.is_ticking and (asks_nas or is_refused):
            if asks_nas and is_refused:
                self.log("error", words.REFUSED)
            heard = attrs.evolve(task, is_unheard=asks_nas and not is_refused)
            return heard, self.ask_ticker(task.effect)
        if not is_refused:
            return task, event
        if not (self.is_started or self.rules.has_ticker) or is_of_before:
            # Nothing here fires jobs, or this was the login of before: whoever asked asks again.
            return task, ArmFailed(getattr(event, "reason", ""))
        self.fall_back()
        return task, self.ask_ticker(task.effect)

    def logged_in(self, task: Task) -> Task:
        """NAS accepts the agent; what of its answers belongs to earlier requests does not count."""
        self.logins += 1
        if isinstance(task.purpose, ForCaller):
            self.lists = None
        if not self.ticker.is_ticking:
            return task
        by_ticker, self.ticker = self.ticker.arms.keys(), Ticker(is_ticking=False)
        return attrs.evolve(task, converging=task.converging - by_ticker)

    def fall_back(self) -> None:
        """NAS refuses the agent's identity: fire the jobs from here, and say so once."""
        self.logins += 1
        self.ticker = attrs.evolve(self.ticker, is_ticking=True)
        self.log("error", words.REFUSED)
        self.tell(events.FellBack(reason=words.REFUSED))
        self.begin_ticking()

    def came_for(self, number: int, task: Task, event: FlowEvent) -> None:
        """Let a task go on."""
        if isinstance(task.purpose, ForLook):
            self.own("tasks").pop(number, None)
            self.effects.append(Reply(task.purpose.ticket, event))
            return
        self.tell_moved(task.effect, event)
        known = self.known(number, task, event)
        if task.intent is not None:
            flow, effects = self.rules.step(task.flow, known, self.clock())
        else:
            if isinstance(event, ArmFailed):
                task = attrs.evolve(task, retry_after_us=event.retry_after_us)
            flow, effects = self.rules.step_reconciliation(task.flow, known, self.clock(), self.belief())
        self.go_on(number, task, flow, effects)

    def known(self, number: int, task: Task, event: FlowEvent) -> FlowEvent:
        """Return *event* with what this process knows of the owners of the runs that it shows.

        That is asked after the job was read: what changed in the store since then makes a swap fail.
        """
        if isinstance(event, JobLoaded | SwapConflicted):
            if event.job is None or not event.job.runs:
                return event
            return type(event)(event.job, self.liveness(event.job, event.liveness, number))
        if isinstance(event, JobsLoaded):
            jobs = [(job, self.liveness(job, others)) for job, others in event.jobs]
            self.saw(Saw(tuple(event.unreadable)))
            # A flow that has ended without agreement makes NAS agree no more.
            converging = task.converging - self.unsettled.keys()
            return JobsLoaded(jobs, converging, event.unreadable)
        return event

    def liveness(
        self, job: Job, others: Iterable[Liveness], asking: int | None = None
    ) -> tuple[Liveness, ...]:
        """Return what is known of the owners of the job's runs; of its own, a process knows all.

        Where nothing is at work on one of those, a claim was stored though the store reported a failure.

        Args:
            job: whose runs.
            others: what the machine knows of the processes that own them.
            asking: the task that wants to know.
        """
        return tuple(
            owner_is if run.owner != self.owner else self._liveness_of(run, asking)
            for run, owner_is in zip(job.runs, others, strict=True)
        )

    def _liveness_of(self, run: Run, asking: int | None) -> Liveness:
        is_alive = (
            any(run.is_same_as(each.started.run) for each in self.runs.values())
            or any(concerns(owed.intent, run) for owed in self.owed.values())
            or any(
                flows.holds(task.flow, run)
                for number, task in self.tasks.items()
                if number != asking and task.intent is not None
            )
        )
        return Liveness.ALIVE if is_alive else Liveness.DEAD

    def tell_moved(self, effect: FlowEffect | None, event: FlowEvent) -> None:
        """Tell what the store has moved to."""
        if not (isinstance(effect, SwapJob) and isinstance(event, JobSwapped)):
            return
        before = effect.expected.runs if effect.expected is not None else ()
        for run in effect.replacement.runs if effect.replacement is not None else ():
            if not run.is_among(before):
                self.tell(events.OccurrenceClaimed(job_id=effect.job_id, run=run))
        for outcome in effect.outcomes:
            self.tell(events.OccurrenceEnded(job_id=effect.job_id, outcome=outcome))

    def note(self, intent: Intent, answer: Answer, *, has_asked_nas: bool) -> None:
        """Tell the end of a flow, and remember whether its job is settled."""
        if not answer.settled:
            if not isinstance(intent, Renew):  # the next one mends it, without asking NAS
                self.own("unsettled")[answer.job_id] = words.why_unsettled(answer)
        elif has_asked_nas:
            if answer.job_id in self.unsettled:
                self.own("unsettled").pop(answer.job_id)
            self.owe_no_more(lambda job_id: job_id == answer.job_id)
        self.tell(events.FlowEnded(intent=intent, answer=answer))

    def answered(self, purpose: Purpose, intent: Intent, answer: Answer) -> None:
        """Do what the flow was performed for, and see to it that what it still owes is done."""
        if isinstance(purpose, ForOwed):
            self.tried(purpose.owed, answer)
            return
        owed = follow_ups.follow_up(intent, answer, self.clock())
        if owed is not None:
            patience_until_us = self.present.steady_us + FOLLOW_UP_FOR_US
            self.owe(Owed(intent=owed, reason="", due_us=0, patience_until_us=patience_until_us), answer)
        match purpose:
            case ForCaller(ticket):
                self.effects.append(Reply(ticket, words.explained(intent, answer)))
            case ForBatch(number):
                self.ended_of_batch(number, intent, answer)
            case ForRun(key):
                self.done_for_run(key, intent, answer)
            case ForTicker() if answer.verdict is None:
                until_us = self.present.steady_us + answer.retry_after_us
                self.ticker = self.ticker.put_off(intent.job_id, until_us)

    def broke(self, event: Broke) -> None:
        """Drop a task that ended with a bug, and let nothing wait for it."""
        task = self.own("tasks").pop(event.number, None)
        if task is None:
            return
        match task.purpose:
            case ForCaller(ticket) | ForLook(ticket):
                self.effects.append(Reply(ticket, None))
            case ForBatch(number):
                self.ended_of_batch(number, task.intent, None)
            case ForRun(key):
                self.done_for_run(key, task.intent, None)
            case ForList() | ForClock():
                self.asked_again(task.purpose, is_known=False, retry_after_us=0)

    # --- what is owed ---

    def owe(self, owed: Owed, answer: Answer) -> None:
        """Note what is owed, in place of what it makes needless."""
        delay_us = max(_delay_us(owed.tries), answer.retry_after_us)
        if self.is_draining:
            delay_us = min(delay_us, DRAINING_DELAY_US)
        reason = f"{words.why_unsettled(answer)}; it is tried again"
        self.own("owed")[key_of(owed.intent)] = attrs.evolve(
            owed, due_us=self.present.steady_us + delay_us, reason=reason
        )

    def owe_no_more(self, is_settled: Callable[[str], bool]) -> None:
        """Forget what would only make NAS agree on jobs on which it does."""
        for key, owed in tuple(self.owed.items()):
            if isinstance(owed.intent, Fire) and is_settled(owed.intent.job_id):
                self.own("owed").pop(key)

    def try_owed(self) -> None:
        """Try again what is due, a few at once; the end of a run first: nobody renews its lease any more."""
        due = [(key, owed) for key, owed in self.owed.items() if owed.due_us <= self.present.steady_us]
        due.sort(key=lambda each: (not isinstance(each[1].intent, Finish), each[1].due_us))
        for key, owed in due[: max(0, CONCURRENCY - _tries_at_work(self.tasks))]:
            self.own("owed").pop(key)
            self.begin(owed.intent, ForOwed(owed))

    def tried(self, owed: Owed, answer: Answer) -> None:
        """What is owed was tried; see whether it still is."""
        still = follow_ups.follow_up(owed.intent, answer, self.clock())
        if still is None or self._is_needless(still):
            return
        # What NAS did not want to be asked yet was no try, as long as that does not go on for ever.
        is_put_off = answer.retry_after_us > 0 and self.present.steady_us < owed.patience_until_us
        left = attrs.evolve(owed, intent=still, tries=min(owed.tries + (not is_put_off), MOST_TRIES))
        if left.tries == len(follow_ups.FOLLOW_UP_DELAYS_US) and not is_put_off:
            self.log("error", f"{still.job_id}: {words.TRIED_SLOWLY}", still.job_id)
        if not (self.is_draining and (is_put_off or not left.is_busy)):
            self.owe(left, answer)

    def _is_needless(self, intent: Intent) -> bool:
        key = key_of(intent)
        tried = (task.purpose.owed for task in self.tasks.values() if isinstance(task.purpose, ForOwed))
        return key in self.owed or any(key_of(owed.intent) == key for owed in tried)

    # --- many flows, a few at once ---

    def begin_batch(self, batch: Batch) -> None:
        """Begin many flows."""
        number = next(each for each in count() if each not in self.batches)
        self.own("batches")[number] = batch
        self.advance(number)

    def advance(self, number: int) -> None:
        """Begin as many flows of a batch as may be performed at once, and end it with the last."""
        self._advancing.add(number)
        while (batch := self.batches[number]).at_work < CONCURRENCY and batch.begun < len(batch.intents):
            begun = attrs.evolve(batch, begun=batch.begun + 1, at_work=batch.at_work + 1)
            self.own("batches")[number] = begun
            self.begin(batch.intents[batch.begun], ForBatch(number))
        self._advancing.discard(number)
        if not batch.at_work:
            self.own("batches").pop(number)
            self.batch_ended(batch)

    def ended_of_batch(self, number: int, intent: Intent | None, answer: Answer | None) -> None:
        """One of many flows is over; one that ended with a bug has no answer."""
        batch = self.batches[number]
        is_settled = answer is not None and answer.settled and answer.verdict is not Verdict.STOPPED
        answers = batch.answers
        if batch.is_declared and intent is not None and answer is not None:
            answers = answers.plus(intent.job_id, words.explained(intent, answer))
        self.own("batches")[number] = attrs.evolve(
            batch, at_work=batch.at_work - 1, is_settled=batch.is_settled and is_settled, answers=answers
        )
        if number not in self._advancing:
            self.advance(number)

    def batch_ended(self, batch: Batch) -> None:
        """All are over: tell who waits, or go on with what they were for."""
        if batch.is_declared:
            assert isinstance(batch.purpose, ForCaller)
            self.effects.append(Reply(batch.purpose.ticket, batch.answers))
            return
        is_settled = batch.is_known and batch.is_settled and not self.unreadable
        started = Started(flows=len(batch.intents), settled=is_settled, trouble=batch.trouble)
        if batch.is_known:
            self.effects.append(Log("info", "reconciled", extra=started))
        else:
            why = words.because(words.UNKNOWN, batch.trouble)
            self.effects.append(Log("warning", f"not reconciled: {why}", extra=started))
        match batch.purpose:
            case ForCaller(ticket):
                if batch.is_unheard or not batch.is_known:
                    self.lists = self._again(batch.retry_after_us)
                if self.ticker.is_ticking:
                    self.begin_ticking()
                self.effects.append(Reply(ticket, started))
            case ForTicker():
                self.nudge_ticker()
            case _:
                is_known = batch.is_known and not batch.is_unheard
                self.asked_again(batch.purpose, is_known=is_known, retry_after_us=batch.retry_after_us)

    # --- the start, and what is asked again and again ---

    def reconcile(self, purpose: Purpose) -> None:
        """Make what fires the jobs agree with the store."""
        flow, effects = self.rules.begin_reconciliation()
        self.go_on(self.free_number(), Task(flow=None, purpose=purpose), flow, effects)

    def reconciled(self, task: Task, found: Begin) -> None:
        """It is known what differs; see to it."""
        if found.settled:
            if self.ticker.is_ticking:
                self.ticker = attrs.evolve(self.ticker, looked_us=self.present.steady_us)
            # All others were seen to agree; another process may have settled them.
            disagree = task.converging.union(intent.job_id for intent in found.intents)
            self.unsettled = Map(
                (job_id, why) for job_id, why in self.unsettled.items() if job_id in disagree
            )
            self._own.add("unsettled")
            self.owe_no_more(lambda job_id: job_id not in disagree)
        else:
            self.own("unsettled")[""] = words.because(words.UNKNOWN, found.trouble)
        self.begin_batch(
            Batch(
                purpose=task.purpose,
                intents=found.intents,
                is_known=found.settled,
                is_unheard=task.is_unheard,
                trouble=found.trouble,
                retry_after_us=task.retry_after_us,
            )
        )

    def _again(self, retry_after_us: int) -> Retry:
        """Return the wait for the first of many lists; one that is on its way counts as none."""
        if self.lists is not None and self.lists.due_us is None:
            return Retry(tries=-1, due_us=None)
        return self.later(0, retry_after_us)

    def asked_again(self, purpose: Purpose, *, is_known: bool, retry_after_us: int) -> None:
        """The list, or the time, was asked for again: ask once more, later, unless it is known now."""
        if isinstance(purpose, ForClock):
            if self.looks is not None:
                self.looks = self.later(self.looks.tries) if self.belief() is Belief.DOUBTED else None
            return
        if self.lists is None or is_known:
            self.lists = None
            return
        tries = min(self.lists.tries + 1, MOST_TRIES)
        if tries == len(follow_ups.FOLLOW_UP_DELAYS_US):
            self.log("error", f"{self.unsettled.get('', words.UNKNOWN)}: {words.TRIED_SLOWLY}")
        self.lists = self.later(tries, retry_after_us)
        if self.is_draining:
            soon_us = self.present.steady_us + DRAINING_DELAY_US
            self.lists = attrs.evolve(self.lists, due_us=soon_us) if self.lists.is_busy else None

    # --- runs ---

    def start_run(self, started: StartRun) -> None:
        """Call the runner, and keep the lease alive meanwhile."""
        key, limit_us = (started.job_id, *started.run.key), started.time_limit_us
        self.own("runs")[key] = Running(
            started=started,
            renew_us=self.present.steady_us + RENEW_EVERY_US,
            over_us=None if limit_us is None else self.present.steady_us + limit_us,
        )
        self.tell(events.RunStarted(job_id=started.job_id, run=started.run))
        self.effects.append(CallRunner(key, started))

    def run_ended(self, event: RunEnded) -> None:
        """The runner has ended; what comes too late changes nothing."""
        running = self.runs.get(event.key)
        if running is not None and running.end is None:
            started = running.started
            finish = Finish(
                job_id=started.job_id,
                run=started.run,
                succeeded=event.succeeded,
                detail=event.detail,
                confirm=started.confirm,
            )
            self.end_run(event.key, running, finish)
        if event.key in self.overtime:
            job_id = self.own("overtime").pop(event.key).job_id
            self.log(
                "warning", f"a runner has ended too late: {job_id}: {event.detail or 'as it should'}", job_id
            )

    def run_broke(self, event: RunBroke) -> None:
        """The run goes on nowhere: whoever comes to its job finds it interrupted."""
        self.own("runs").pop(event.key, None)
        self.own("overtime").pop(event.key, None)

    def end_run(self, key: Hashable, running: Running, finish: Finish) -> None:
        """End a run. A renewal on its way is not overtaken: a NAS of contract 1.0 takes the last word."""
        self.tell(
            events.RunEnded(
                job_id=finish.job_id, run=finish.run, succeeded=finish.succeeded, detail=finish.detail
            )
        )
        self.own("runs")[key] = attrs.evolve(running, end=finish)
        if not running.is_renewing:
            self.begin(finish, ForRun(key))

    def renew(self, key: Hashable, running: Running) -> None:
        """Renew a lease. Source: incident D4."""
        self.own("runs")[key] = attrs.evolve(running, is_renewing=True)
        self.begin(Renew(job_id=running.started.job_id, run=running.started.run), ForRun(key))

    def done_for_run(self, key: Hashable, intent: Intent | None, answer: Answer | None) -> None:
        """A renewal of a run, or its end, is over; a bug has no answer."""
        if isinstance(intent, Renew):
            self.renewed(key, answer)
        else:
            self.own("runs").pop(key, None)

    def renewed(self, key: Hashable, answer: Answer | None) -> None:
        """A renewal is over: the next one comes, unless the run has ended or is no longer this process's."""
        running = self.runs.get(key)
        if running is None:
            return
        is_lost = answer is not None and answer.verdict is Verdict.LOST
        if is_lost:
            job_id = running.started.job_id
            self.log("warning", "the run is no longer this process's", job_id)
        renew_us = None if is_lost else self.present.steady_us + RENEW_EVERY_US
        self.own("runs")[key] = attrs.evolve(running, is_renewing=False, renew_us=renew_us)
        if running.end is not None:
            self.begin(running.end, ForRun(key))

    def time_out(self, key: Hashable, running: Running) -> None:
        """End a run whose time is over, and tell its runner."""
        finish = flows.timed_out(running.started)
        at = format_instant(finish.run.occurrence_us)
        reason = f"the run of {at} {finish.detail}, and its runner goes on"
        self.own("overtime")[key] = Pending(job_id=finish.job_id, reason=reason, is_busy=False)
        self.effects.append(TellRunner(key))
        self.end_run(key, running, finish)

    # --- without NAS ---

    def begin_ticking(self) -> None:
        """Fire the jobs from here."""
        if self.is_started and not self.ticker.is_running and not self.is_draining:
            begun, _ = self.ticker.compared(self.clock(), self.present.steady_us)
            self.ticker = attrs.evolve(begun, is_running=True, next_us=self.present.steady_us)

    def nudge_ticker(self) -> None:
        """Let the ticker look at its arms."""
        if self.ticker.is_running:
            self.ticker = attrs.evolve(self.ticker, next_us=self.present.steady_us)

    def tick(self) -> None:
        """Fire what is due, for as long as there is no NAS to do it. Source: incident L4."""
        if self.rules.has_ticker:
            self.ticker = attrs.evolve(self.ticker, next_us=None)
            return
        now_us, steady_us = self.clock(), self.present.steady_us
        before_us = self.before_the_clock_was_set(now_us)
        is_asking = any(task.intent is None for task in self.tasks.values()) or self.batches
        if not is_asking and self.ticker.must_look(steady_us):
            self.ticker = attrs.evolve(self.ticker, looked_us=steady_us, next_us=None)
            self.reconcile(TICKER)
            return
        if not self.present.is_stopped:
            self.ticker, due = self.ticker.due(now_us, steady_us)
            for job_id, fire_at_us in due:
                was_jumped_over = before_us is not None and fire_at_us > before_us
                fired = Fired(origin=Origin.SCHEDULE, was_jumped_over=was_jumped_over)
                self.begin(Fire(job_id=job_id, fire_at_us=fire_at_us, fired=fired), TICKER)
        self.ticker = attrs.evolve(self.ticker, next_us=steady_us + self.ticker.pause_us(now_us))

    def before_the_clock_was_set(self, now_us: Instant) -> Instant | None:
        """Look whether the clock was set: what stands ahead of one that was set back is put back at once.

        Returns:
            What it would show had it not been set forward by three hours or more: what has become due since
            then was jumped over. None when that is not so.
        """
        self.ticker, jump_us = self.ticker.compared(now_us, self.present.steady_us)
        change = change_of(jump_us)
        if change is Change.NONE:
            return None
        self.log("warning", "the clock was set {}, by {}".format(*said_of(jump_us)))
        if change is Change.BACKWARD:
            # Nobody here knows better.
            self.reading = compared(now_us, now_us, now_us, self.present.steady_us)
            self.ticker = attrs.evolve(self.ticker, looked_us=None)
        if change is not Change.CORRECTION:
            return None
        # A look would take what was jumped over.
        self.ticker = attrs.evolve(self.ticker, looked_us=self.present.steady_us)
        return now_us - jump_us

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
            self.lists = attrs.evolve(self.lists, due_us=None)
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
        self.ticker = attrs.evolve(self.ticker, is_running=False, next_us=None)

    # --- who looks on ---

    def tell(self, event: events.Event) -> None:
        """Tell whoever looks on."""
        self.effects.append(Tell(event))

    def log(self, level: str, text: str, job_id: str = "") -> None:
        """Write a line for the agent's people."""
        self.effects.append(Log(level, text, job_id))


TRANSITIONS: dict[type, Callable[[Turn, Any], None]] = {
    Asked: Turn.asked,
    AskedToStart: Turn.asked_to_start,
    AskedToReconcile: Turn.asked_to_reconcile,
    AskedToDeclare: Turn.asked_to_declare,
    AskedToDrain: Turn.asked_to_drain,
    AskedForArms: Turn.asked_for_arms,
    Came: Turn.came,
    Broke: Turn.broke,
    RunEnded: Turn.run_ended,
    RunBroke: Turn.run_broke,
    Rang: Turn.rang,
    CannotRing: Turn.cannot_ring,
    Saw: Turn.saw,
}


def rings_us(process: Process) -> int | None:
    """Return when the process wants to be rung for its next timer, by the steady clock; None for never."""
    due = [process.ticker.next_us]
    due += [retry.due_us for retry in (process.lists, process.looks) if retry is not None]
    for running in process.runs.values():
        if running.end is None:
            due.append(running.over_us)
            if not running.is_renewing:
                due.append(running.renew_us)
    if process.owed and _tries_at_work(process.tasks) < CONCURRENCY:
        due.append(min(owed.due_us for owed in process.owed.values()))
    wanted = [due_us for due_us in due if due_us is not None]
    return min(wanted) if wanted else None


def _tries_at_work(tasks: Mapping[int, Task]) -> int:
    """Return how many tries of what is owed are going on."""
    return sum(isinstance(task.purpose, ForOwed) for task in tasks.values())


def _is_due(due_us: int | None, steady_us: int) -> bool:
    return due_us is not None and due_us <= steady_us


def _delay_us(tries: int) -> int:
    return follow_ups.follow_up_delay_us(tries, follow_ups.FOLLOW_UP_DELAYS_US)


def key_of(intent: Intent) -> Hashable:
    """Return what two intents have in common of which one makes the other needless."""
    run = intent.run.key if isinstance(intent, Finish | Renew) else ()
    return (type(intent).__name__, intent.job_id, *run)


def _stopped(intent: Intent) -> Answer:
    return Answer(job_id=intent.job_id, verdict=Verdict.STOPPED, reason=words.STOPPED, settled=True)


def _broken(job_id: str) -> Answer:
    reason = "it ended with a bug, which is in the log"
    return Answer(job_id=job_id, verdict=None, reason=reason, settled=False)
