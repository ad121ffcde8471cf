"""The flows and reconciliations of a process: how each goes on from request to request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from chronos import events
from chronos.jobs.instants import SECOND_US
from chronos.jobs.job import Job, Liveness, Run, Verdict
from chronos.protocol import flow as flows
from chronos.protocol import follow_ups, words
from chronos.protocol.batches import Batches
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
from chronos.protocol.intents import Finish, Fire, Intent, Renew, concerns
from chronos.protocol.process_effects import Broke, Came, IdentityRefused, Perform, Reply, Saw
from chronos.protocol.runs import Runs
from chronos.protocol.state import (
    FOLLOW_UP_FOR_US,
    NAS_TIMEOUT_IN_FIRE_US,
    NAS_TIMEOUT_US,
    ForBatch,
    ForCaller,
    ForClock,
    ForList,
    ForLook,
    ForOwed,
    ForRun,
    ForTicker,
    Owed,
    Purpose,
    Task,
)
from chronos.protocol.ticker import Ticker
from chronos.values import evolve

_FOR_NAS = (ProvisionArm, CancelArm, ListArms)
_MAY_START = (Fire, Finish)
_OF_START = (ForCaller, ForList)
_SHOWS_A_JOB = (JobLoaded, SwapConflicted)
_OF_NAS = (ArmAccepted, ArmOutdated, ArmFailed, ArmsListed)


class Tasks(Runs, Batches):
    """The part of a turn that sees to the tasks."""

    def begin(self, intent: Intent, purpose: Purpose) -> None:
        """Begin a flow; what is owed goes on during a stop, too."""
        asked, is_owed = intent, isinstance(purpose, ForOwed)
        if isinstance(intent, _MAY_START):
            if self.present.is_stopped and isinstance(intent, Fire) and not is_owed:
                self.note(intent, stopped(intent), has_asked_nas=False)
                self.answered(purpose, intent, stopped(intent))
                return
            if self.present.is_stopped or self.is_draining or not self.is_started:
                intent = evolve(intent, may_start=False)
        flow, effects = self.rules.begin(intent, owner=self.owner, now_us=self.clock(), belief=self.belief())
        self.go_on(self.free_number(), Task(flow=None, purpose=purpose, intent=asked), flow, effects)

    def reconcile(self, purpose: Purpose) -> None:
        """Make what fires the jobs agree with the store."""
        flow, effects = self.rules.begin_reconciliation()
        self.go_on(self.free_number(), Task(flow=None, purpose=purpose), flow, effects)

    def free_number(self) -> int:
        """Return a number for a new task."""
        number = 0
        while number in self.tasks:
            number += 1
        return number

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
            self.ended_elsewhere(number, is_settled=answer.settled)
            self.answered(task.purpose, task.intent, answer)

    # --- what is asked of the store, of NAS and of the ticker ---

    def request(self, number: int, task: Task, flow: Any, effect: FlowEffect) -> None:
        """Ask the store, NAS or, where that cannot be had, the ticker."""
        deadline_us, is_for_nas = task.deadline_us, isinstance(effect, _FOR_NAS)
        if is_for_nas and deadline_us is None:
            deadline_us = self.present.steady_us + self.nas_timeout_us(task.intent)
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
        self.own("tasks")[number] = waiting
        if is_for_nas:
            self.request_of_nas(number, waiting, is_first=task.deadline_us is None)
        else:
            self.effects.append(Perform(number, effect))

    def request_of_nas(self, number: int, task: Task, *, is_first: bool) -> None:
        """Ask NAS, within the time that is left for a task, or the ticker."""
        assert task.deadline_us is not None
        within_us = max(0, task.deadline_us - self.present.steady_us)
        asks_ticker = self.ticker.is_ticking and not self._asks_nas(task)
        if is_first and task.intent is not None:
            self.note_converging(task.intent.job_id, is_by_ticker=asks_ticker)
        if asks_ticker:
            self.came_for(number, task, self.ask_ticker(task.effect))
        elif within_us == 0:
            within_s = self.nas_timeout_us(task.intent) / SECOND_US
            self.came_for(number, task, ArmFailed(f"NAS has not agreed within {within_s:g} s"))
        else:
            assert task.effect is not None
            self.effects.append(Perform(number, task.effect, within_us))

    def nas_timeout_us(self, intent: Intent | None) -> int:
        """Return how long a flow may ask NAS, in all."""
        return NAS_TIMEOUT_IN_FIRE_US if self.rules.is_answering(intent) else NAS_TIMEOUT_US

    def _asks_nas(self, task: Task) -> bool:
        """Return whether NAS is asked also while the ticker fires, which ends if it answers."""
        return self.has_nas and isinstance(task.effect, ListArms) and isinstance(task.purpose, _OF_START)

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
                self.own("tasks")[number] = evolve(task, converging=task.converging | {job_id})

    # --- what comes back ---

    def came(self, event: Came) -> None:
        """An effect has come back."""
        task = self.tasks.get(event.number)
        if task is None:
            return
        self.came_for(event.number, *self.heard(task, event.event))

    def heard(self, task: Task, event: FlowEvent) -> tuple[Task, FlowEvent]:
        """Return NAS's answer with the task; after a refusal of the agent's identity, the ticker's answer."""
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
            heard = evolve(task, is_unheard=asks_nas and not is_refused)
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
        return evolve(task, converging=task.converging - by_ticker)

    def fall_back(self) -> None:
        """NAS refuses the agent's identity: fire the jobs from here, and say so once."""
        self.logins += 1
        self.ticker = evolve(self.ticker, is_ticking=True)
        self.log("error", words.REFUSED)
        self.tell(events.FellBack(reason=words.REFUSED))
        self.begin_ticking()

    def came_for(self, number: int, task: Task, event: FlowEvent) -> None:
        """Let a task go on."""
        if isinstance(task.purpose, ForLook):
            self.own("tasks").pop(number, None)
            self.effects.append(Reply(task.purpose.ticket, event))
            return
        if isinstance(event, JobSwapped):
            self.tell_moved(task.effect)
        known = self.known(number, task, event)
        if task.intent is not None:
            flow, effects = self.rules.step(task.flow, known, self.clock())
        else:
            if isinstance(event, ArmFailed):
                task = evolve(task, retry_after_us=event.retry_after_us)
            flow, effects = self.rules.step_reconciliation(task.flow, known, self.clock(), self.belief())
        self.go_on(number, task, flow, effects)

    def known(self, number: int, task: Task, event: FlowEvent) -> FlowEvent:
        """Return *event* with what this process knows of the owners of the runs that it shows.

        That is asked after the job was read: what changed in the store since then makes a swap fail.
        """
        if isinstance(event, _SHOWS_A_JOB):
            if event.job is None or not event.job.runs:
                return event
            return type(event)(event.job, self.liveness(event.job, event.liveness, number))
        if isinstance(event, JobsLoaded):
            jobs = [(job, self.liveness(job, others) if job.runs else ()) for job, others in event.jobs]
            self.saw(Saw(tuple(event.unreadable)))
            # A flow that has ended without agreement makes NAS agree no more.
            converging = task.converging - self.unsettled.keys()
            return JobsLoaded(jobs, converging, event.unreadable)
        return event

    def saw(self, event: Saw) -> None:
        """Remember which records cannot be read, and log each that was not known before. Source: S6."""
        for record in event.unreadable:
            if record not in self.unreadable:
                said = f"a job is not looked after: {words.unreadable(record)}"
                self.log("error", said, record.id or "")
        self.unreadable = event.unreadable

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
        for running in self.runs.values():
            if run.is_same_as(running.started.run):
                return Liveness.ALIVE
        for owed in self.owed.values():
            if concerns(owed.intent, run):
                return Liveness.ALIVE
        for number, task in self.tasks.items():
            if number != asking and task.intent is not None and flows.holds(task.flow, run):
                return Liveness.ALIVE
        return Liveness.DEAD

    def tell_moved(self, effect: FlowEffect | None) -> None:
        """Tell what the store has moved to."""
        assert isinstance(effect, SwapJob)
        before = effect.expected.runs if effect.expected is not None else ()
        for run in effect.replacement.runs if effect.replacement is not None else ():
            if not run.is_among(before):
                self.tell(events.OccurrenceClaimed(job_id=effect.job_id, run=run))
        for outcome in effect.outcomes:
            self.tell(events.OccurrenceEnded(job_id=effect.job_id, outcome=outcome))

    # --- the end ---

    def note(self, intent: Intent, answer: Answer, *, has_asked_nas: bool) -> None:
        """Tell the end of a flow, and remember whether its job is settled."""
        if not answer.settled:
            if not isinstance(intent, Renew):  # the next one mends it, without asking NAS
                self.own("unsettled")[answer.job_id] = words.why_unsettled(answer)
        elif has_asked_nas:
            if answer.job_id in self.unsettled:
                self.own("unsettled").pop(answer.job_id)
            if self.owed:
                self.owe_no_more(lambda job_id: job_id == answer.job_id)
        self.tell(events.FlowEnded(intent=intent, answer=answer))

    def answered(self, purpose: Purpose, intent: Intent, answer: Answer) -> None:
        """Serve the purpose of a flow that has ended, and note the work that it leaves unfinished."""
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
        self.ended_elsewhere(event.number, is_settled=False)
        match task.purpose:
            case ForCaller(ticket) | ForLook(ticket):
                self.effects.append(Reply(ticket, None))
            case ForBatch(number):
                self.ended_of_batch(number, task.intent, None)
            case ForRun(key):
                self.done_for_run(key, task.intent, None)
            case ForList() | ForClock():
                self.asked_again(task.purpose, is_known=False, retry_after_us=0)


def stopped(intent: Intent) -> Answer:
    """Return the answer of an agent that is told to run no jobs."""
    return Answer(job_id=intent.job_id, verdict=Verdict.STOPPED, reason=words.STOPPED, settled=True)
