"""People who change jobs: they pause and resume, remove and create, edit, and run jobs by hand.

They ask again until it is settled.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from chronos.jobs.due import following
from chronos.jobs.instants import HOUR_US, MINUTE_US
from chronos.jobs.job import Job, JobState
from chronos.jobs.schedule import Interval
from chronos.protocol.flow_effects import Answer
from chronos.protocol.intents import Create, Edit, Intent, Pause, Remove, Resume, RunNow
from chronos.protocol.job_changes import Changes
from chronos.values import evolve
from simulator import faults, marks
from simulator.faults import Change
from simulator.history import Kind
from simulator.host import Machine
from simulator.kernel import Kernel
from simulator.life import Life
from simulator.script import Deed, Do
from simulator.watch import Watch

# How often somebody thinks of changing a job, and how long a change lasts before it is undone.
EVERY_US = 4 * HOUR_US
FOR_US = 3 * HOUR_US
# When a request is repeated that was answered with a failure, or not at all.
AGAIN_US = MINUTE_US
PATIENCE_US = 4 * MINUTE_US

# The schedule to which somebody changes a job for a while.
_OTHER_PERIOD_US = 17 * MINUTE_US


class Request(Struct, eq=False):
    """A change that somebody wants, and repeats until it is settled."""

    subject: int
    intent: Callable[[], Intent | None]
    then: Callable[[], None]
    tries: int = 0
    is_done: bool = False


class People:
    """Whoever changes the jobs of one simulated world.

    Args:
        kernel: time and choice.
        watch: holds a job while a request about it is not settled.
        machines: the agent's machines, of which any takes a request.
        jobs: the jobs as they were at the start; what was removed is created like this again.
    """

    def __init__(self, kernel: Kernel, watch: Watch, machines: list[Machine], jobs: tuple[Job, ...]) -> None:
        self._kernel, self._watch, self._machines, self._jobs = kernel, watch, machines, jobs
        self._is_away = [False] * len(jobs)

    def live(self) -> None:
        """Change jobs now and then, for as long as there are faults."""
        kernel = self._kernel
        if not kernel.faulty:
            return
        kernel.after(EVERY_US, self.live)
        change = kernel.fault(faults.CHANGE)
        if change is None or not self._jobs:
            return
        subject = kernel.pick(faults.CHANGED_JOB, range(len(self._jobs)))
        if self._is_away[subject] or self._jobs[subject].state is not JobState.SCHEDULED:
            return
        self._is_away[subject] = True
        job, now_us = self._jobs[subject], kernel.now_us
        back: Callable[[], Intent | None]
        match change:
            case Change.PAUSE:
                away: Intent = Pause(job_id=job.id, note="for a while")
                from_now = kernel.vary(faults.FROM_NOW, subject)
                back = lambda: Resume(job_id=job.id, from_now=from_now)  # noqa: E731
            case Change.REMOVE:
                away = Remove(job_id=job.id)
                back = lambda: self._created_again(subject)  # noqa: E731
            case Change.EDIT:
                other = Interval(period_us=_OTHER_PERIOD_US, anchor_us=now_us)
                away = Edit(job_id=job.id, changes=Changes(schedule=other))
                back = lambda: Edit(job_id=job.id, changes=Changes(schedule=job.schedule))  # noqa: E731
            case Change.RUN:
                by_hand = RunNow(job_id=job.id, asked_us=now_us)
                self._ask(subject, lambda: by_hand, lambda: self._set_home(subject))
                return
        self._ask(subject, lambda: away, lambda: kernel.after(FOR_US, self._come_back, subject, back))

    def _come_back(self, subject: int, back: Callable[[], Intent | None]) -> None:
        self._ask(subject, back, lambda: self._set_home(subject))

    def _set_home(self, subject: int) -> None:
        self._is_away[subject] = False

    def _created_again(self, subject: int) -> Intent | None:
        job = self._jobs[subject]
        next_us = following(job, self._kernel.now_us)
        if next_us is None:
            return None
        fresh = evolve(job, next_us=next_us, runs=(), waiting=(), revision=0)
        return Create(job_id=job.id, job=fresh)

    def do(self, deed: Deed, subject: int) -> None:
        """Let somebody do to a job what is written down, and repeat it until it is settled."""
        job, now_us = self._jobs[subject], self._kernel.now_us
        intents: dict[Do, Callable[[], Intent | None]] = {
            Do.PAUSE: lambda: Pause(job_id=job.id),
            Do.RESUME: lambda: Resume(job_id=job.id),
            Do.REMOVE: lambda: Remove(job_id=job.id),
            Do.CREATE: lambda: self._created_again(subject),
            Do.EDIT: lambda: Edit(job_id=job.id, changes=Changes(schedule=deed.schedule)),
            Do.RUN: lambda: RunNow(job_id=job.id, asked_us=now_us),
        }
        self._ask(subject, intents[deed.do], lambda: None)

    def _ask(self, subject: int, intent: Callable[[], Intent | None], then: Callable[[], None]) -> None:
        self._watch.hold(subject)
        self._try(Request(subject, intent, then))

    def _try(self, request: Request) -> None:
        intent = request.intent()
        if intent is None:
            self._done(request)
            return
        request.tries += 1
        self._kernel.record(Kind.CHANGED, request.subject, _WORDS[type(intent)])
        tries, subject = request.tries, request.subject
        machine = self._kernel.pick(faults.ROUTE, self._machines, request.subject)

        def begin(life: Life) -> None:
            job = self._watch.store[subject]
            if job is not None and job.runs:
                self._watch.met[marks.CHANGED_DURING_A_RUN] += 1
            life.ask(subject, intent, lambda answer: self._answered(request, answer))

        machine.wake(begin, subject)
        self._kernel.after(PATIENCE_US, self._again, request, tries)

    def _answered(self, request: Request, answer: Answer | None) -> None:
        if request.is_done:
            return
        if answer is not None and answer.settled:
            self._done(request)
        else:
            self._watch.met[marks.CHANGE_REPEATED] += 1
            self._kernel.after(AGAIN_US, self._again, request, request.tries)

    def _again(self, request: Request, tries: int) -> None:
        if not request.is_done and request.tries == tries:
            self._try(request)

    def _done(self, request: Request) -> None:
        request.is_done = True
        request.then()
        self._watch.release(request.subject)


_WORDS = {Pause: 1, Resume: 2, Remove: 3, Create: 4, Edit: 5, RunNow: 6}
