"""Watches a simulated world: decides its properties, counts what happens, and keeps the marks.

A job is *at rest* when nobody is at work on it: no message about it is on its way, no flow of a
living process concerns it, no run of it is in flight, nobody is going to repeat a request about it,
and no machine is starting. Whoever begins such work calls `hold` and, when it is over, `release`;
the moment the last one lets go, the properties of jobs at rest are decided.
"""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Callable, Sequence

from msgspec import Struct

from chronos.jobs.instants import Instant
from chronos.jobs.job import Job, Outcome, Result, Run
from simulator import properties
from simulator.history import render
from simulator.kernel import Kernel
from simulator.ledger import Ledger
from simulator.marks import Mark
from simulator.moments import AtRest, Attempt, LeftOpen, Moment, Settled, Start, Stop, StoreMove, attempt_of

# The hops of an occurrence's lateness, in their order.
HOPS = ("scheduler", "relay", "wake", "claim", "total")

# A world that is broken violates a property at every turn; a report needs no more than this many.
MAX_VIOLATIONS = 1000

# How many attempts at a job are remembered. What was started longer ago is not started again without
# another claim of its occurrence, which ONE-OUTCOME sees.
REMEMBERED_ATTEMPTS = 64


class Violation(Struct, frozen=True, kw_only=True):
    """A property that did not hold.

    Attributes:
        property: its identifier.
        job_id: of which job; None when of a machine.
        at_us: when, true time.
        message: why, in words.
        history: the latest entries about the job, oldest first, as lines.
    """

    property: str
    job_id: str | None
    at_us: Instant
    message: str
    history: tuple[str, ...] = ()


class Watch:
    """The watch over one world.

    Args:
        kernel: time and history.
        jobs: the jobs at the start; a job's place here is its subject number.
        machines: how many machines there are; their subject numbers follow those of the jobs.
        armed_us: what NAS will fire for a subject, or None.
        arms: how many external one-shots of a subject would be passed on.

    Attributes:
        lateness_us: how late each occurrence was that a fire claimed, by hop, microseconds.
        booted_for_us: for how much of that the machine was booting.
        told: is told of each violation when it is found.
    """

    def __init__(
        self,
        kernel: Kernel,
        jobs: Sequence[Job],
        machines: int,
        *,
        armed_us: Callable[[int], Instant | None],
        arms: Callable[[int], int],
    ) -> None:
        self.kernel = kernel
        self.job_ids = [job.id for job in jobs]
        self.ledger = Ledger(kernel, self.job_ids, len(jobs) + machines)
        self.store: list[Job | None] = list(jobs)
        self.violations: list[Violation] = []
        self.told: Callable[[Violation], None] = lambda _violation: None
        self.met: Counter[Mark] = Counter()
        self.results: Counter[Result] = Counter()
        self.exceptions: dict[str, list[Instant]] = {}
        self.lateness_us: dict[str, array[int]] = {hop: array("q") for hop in HOPS}
        self.booted_for_us = array("q")
        self.runs_started = 0
        self._armed_us = armed_us
        self._arms = arms
        self._busy = [0] * (len(jobs) + machines)
        self._starting = 0
        self._unlooked: set[int] = set()
        self._acknowledged: list[int | None] = [None] * len(jobs)
        self._started: list[deque[Attempt]] = [deque(maxlen=REMEMBERED_ATTEMPTS) for _ in jobs]
        self._in_flight = [0] * len(jobs)
        self._seen: set[tuple[str, int]] = set()

    # --- work that is going on ---

    def hold(self, subject: int) -> None:
        """Somebody begins work on the job."""
        self._busy[subject] += 1

    def release(self, subject: int) -> None:
        """Work on the job is over; when it was the last, the job is at rest."""
        self._busy[subject] -= 1
        if not self._busy[subject] and subject < len(self.store):
            if self._starting:
                self._unlooked.add(subject)
            else:
                self._at_rest(subject)

    def hold_all(self) -> None:
        """A machine starts: it will look at every job."""
        self._starting += 1

    def release_all(self) -> None:
        """A start is over, one way or the other."""
        self._starting -= 1
        if not self._starting and self._unlooked:
            for subject in sorted(self._unlooked):
                if not self._busy[subject]:
                    self._at_rest(subject)
            self._unlooked.clear()

    def look(self) -> None:
        """Decide the properties of every job that is at rest."""
        for subject in range(len(self.store)):
            if not self._busy[subject] and not self._starting:
                self._at_rest(subject)

    def acknowledge(self, subject: int, job: Job | None) -> None:
        """The state of the job was reported as settled; -1 stands for its absence."""
        self._acknowledged[subject] = -1 if job is None else job.revision

    def _at_rest(self, subject: int) -> None:
        job, armed_us = self.store[subject], self._armed_us(subject)
        revision = -1 if job is None else job.revision
        acknowledged = self._acknowledged[subject] == revision
        arms = 0 if armed_us is None else self._arms(subject)
        self._decide(subject, AtRest(job=job, armed_us=armed_us, acknowledged=acknowledged, arms=arms))

    # --- what happens ---

    def swapped(self, subject: int, old: Job | None, new: Job | None, outcomes: tuple[Outcome, ...]) -> None:
        """The store moved from *old* to *new* with *outcomes*."""
        self.store[subject] = new
        self._decide(subject, StoreMove(old=old, new=new, outcomes=outcomes, now_us=self.kernel.now_us))
        if outcomes:
            self.ledger.ended(subject, old, outcomes)
            for outcome in outcomes:
                self.results[outcome.result] += outcome.count

    def started(self, subject: int, run: Run, *, by_own_clock: bool) -> None:
        """A process starts *run*; it may fire its jobs itself, by its machine's clock."""
        started = self._started[subject]
        start = Start(
            job=self.store[subject],
            run=run,
            started=started,
            in_flight=self._in_flight[subject],
            now_us=self.kernel.now_us,
            by_own_clock=by_own_clock,
        )
        self._decide(subject, start)
        started.append(attempt_of(run))
        self._in_flight[subject] += 1
        self.runs_started += 1

    def ended(self, subject: int) -> None:
        """A run ended, or its process did."""
        self._in_flight[subject] -= 1

    def claimed(
        self, *, called_us: int, arrived_us: int, up_us: int, occurrence_us: int, booted_for_us: int
    ) -> None:
        """A fire claimed its occurrence: note how late each hop was, from the slot on.

        A fire may be for an earlier slot, and have been on its way already; each hop is what it adds. For
        *booted_for_us* of it all the machine was booting, be it that the fire waited, or an earlier one.
        """
        now_us, lateness, reached_us = self.kernel.now_us, self.lateness_us, occurrence_us
        for hop, until_us in zip(HOPS, (called_us, arrived_us, up_us), strict=False):
            later_us = max(until_us, reached_us)
            lateness[hop].append(later_us - reached_us)
            reached_us = later_us
        lateness["claim"].append(now_us - reached_us)
        lateness["total"].append(now_us - occurrence_us)
        self.booted_for_us.append(booted_for_us)

    def stopped(self, subject: int, requests: int, runs: int) -> None:
        """A machine stopped of its own accord with so much unsettled."""
        self._decide(subject, Stop(who="the machine", requests=requests, runs=runs))

    def left_open(self, subject: int, left: LeftOpen) -> None:
        """A process has done all that it does at once, and something of a job is unsettled."""
        self._decide(subject, left)

    def raised(self, text: str) -> None:
        """An agent has raised an exception, which has ended its process."""
        self.exceptions.setdefault(text, []).append(self.kernel.now_us)

    # --- verdicts ---

    def _decide(self, subject: int, moment: Moment) -> None:
        """Decide the properties of *moment*, and note what is violated; each state of affairs once."""
        for violated, reason in properties.violations(moment):
            self._note(violated.id, subject, reason)

    def _note(self, name: str, subject: int, reason: str) -> None:
        if len(self.violations) >= MAX_VIOLATIONS or (key := (name + reason, subject)) in self._seen:
            return
        self._seen.add(key)
        is_job = subject < len(self.job_ids)
        self._found(
            Violation(
                property=name,
                job_id=self.job_ids[subject] if is_job else None,
                at_us=self.kernel.now_us,
                message=reason,
                history=tuple(render(*entry) for entry in self.kernel.recent(subject)),
            )
        )

    def _found(self, violation: Violation) -> None:
        self.violations.append(violation)
        self.told(violation)

    def unrested(self) -> list[str]:
        """Say which jobs are not at rest; empty once everything has settled."""
        return [
            f"{job_id}: {busy} pieces of work are going on"
            for job_id, busy in zip(self.job_ids, self._busy, strict=False)
            if busy
        ]

    def settled(self, until_us: Instant) -> None:
        """Decide what must hold once faults are over and everything has settled."""
        self.look()
        for subject, job in enumerate(self.store):
            self._decide(subject, Settled(job=job, armed_us=self._armed_us(subject), now_us=until_us))
