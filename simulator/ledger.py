"""Whose, when and why: for each job, what became of its occurrences, and the causes of what did not complete.

It is told of outcomes, fires, boots and outages as they pass by, and decides nothing of the world. Its memory
does not grow with the calendar: counts, and one example for each job, result and cause.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from chronos.jobs.due import passed
from chronos.jobs.instants import Instant
from chronos.jobs.job import Job, JobState, Outcome, Result, Run
from simulator.causes import Cause, Causes, Ended
from simulator.kernel import Kernel
from simulator.surroundings import Surroundings


class Account(Struct, frozen=True, kw_only=True):
    """What became of one job.

    Attributes:
        job_id: which.
        due: how many occurrences came: those that ended, and those that are open.
        runs: how many ended with each result.
        open: how many have not ended yet.
        worst_lateness_ms: the longest time from a slot to its first claim.
        wakes: how often the machine was started for it, by a fire or a change.
        up_seconds: how long the machine was up for it: from its fire to the next one of another job.
    """

    job_id: str
    due: int
    runs: dict[str, int]
    open: int
    worst_lateness_ms: int
    wakes: int
    up_seconds: int


class Loss(Struct, frozen=True, kw_only=True):
    """Occurrences of one job that ended alike, by one cause.

    Attributes:
        job_id: of which job.
        result: how they ended.
        count: how many they are.
        first_us: the slot of the first.
        last_us: the slot of the last.
        example_us: the slot of the one whose cause is told, the longest stretch among them.
        cause: why.
    """

    job_id: str
    result: str
    count: int
    first_us: Instant
    last_us: Instant
    example_us: Instant
    cause: Cause


class _Losses(Struct):
    count: int
    first_us: Instant
    last_us: Instant
    longest: int
    example_us: Instant
    cause: Cause


class Ledger(Surroundings):
    """The accounts of one world.

    Args:
        kernel: time and history.
        job_ids: the ids of the jobs; their subject numbers are their places, those of machines follow.
        subjects: how many subjects there are.
    """

    def __init__(self, kernel: Kernel, job_ids: Sequence[str], subjects: int) -> None:
        super().__init__(kernel)
        self._job_ids = job_ids
        self._causes = Causes(kernel, self)
        self._runs: list[dict[Result, int]] = [{} for _ in job_ids]
        self._late_us = [0] * len(job_ids)
        self._wakes, self._up_us = [0] * subjects, [0] * subjects
        self._serving: dict[int, tuple[int, Instant]] = {}
        self._losses: dict[tuple[int, Result, str], _Losses] = {}
        self._pending: list[Ended] = []

    # --- what happens ---

    def ended(self, subject: int, old: Job | None, outcomes: Sequence[Outcome]) -> None:
        """Occurrences of a job have ended; *old* is the job before."""
        runs, now_us = self._runs[subject], self._kernel.now_us
        if self._pending and self._pending[-1].at_us < now_us:
            self._explain()
        for outcome in outcomes:
            runs[outcome.result] = runs.get(outcome.result, 0) + outcome.count
            if outcome.result is not Result.COMPLETED:
                assert old is not None
                self._pending.append(Ended(subject=subject, at_us=now_us, old=old, outcome=outcome))

    def claimed(self, subject: int, run: Run) -> None:
        """An attempt was claimed."""
        late_us = self._kernel.now_us - run.occurrence_us
        if late_us > self._late_us[subject] and run.attempt == 1:
            self._late_us[subject] = late_us

    def booted(self, machine: int, subject: int) -> None:
        """A machine has booted, for the sake of a job or its own."""
        self._wakes[subject] += 1
        self._serving[machine] = subject, self._kernel.now_us

    def fired(self, machine: int, subject: int) -> None:
        """A fire has come to a machine."""
        if machine in self._serving and self._serving[machine][0] != subject:
            self.slept(machine)
            self._serving[machine] = subject, self._kernel.now_us

    def slept(self, machine: int) -> None:
        """A machine is no longer up, or for another job."""
        subject, since_us = self._serving.pop(machine)
        self._up_us[subject] += self._kernel.now_us - since_us

    # --- what came of it ---

    def _explain(self) -> None:
        """Tell the causes of what has ended, now that everything of that instant has happened."""
        for ended in sorted(self._pending, key=_order):
            cause, outcome = self._causes.of(ended), ended.outcome
            slot_us, last_us, count = outcome.occurrence_us, outcome.last_occurrence_us, outcome.count
            key = (ended.subject, outcome.result, cause.name)
            losses = self._losses.get(key)
            if losses is None:
                self._losses[key] = _Losses(count, slot_us, last_us, count, slot_us, cause)
                continue
            losses.count += count
            losses.first_us, losses.last_us = min(losses.first_us, slot_us), max(losses.last_us, last_us)
            if count > losses.longest:
                losses.longest, losses.example_us, losses.cause = count, slot_us, cause
        self._pending.clear()

    def accounts(self, store: Sequence[Job | None], now_us: Instant) -> tuple[Account, ...]:
        """Return what became of each job, in their order; *store* has them as they are now."""
        return tuple(
            self._account(subject, job_id, _open(store[subject], now_us))
            for subject, job_id in enumerate(self._job_ids)
        )

    def _account(self, subject: int, job_id: str, is_open: int) -> Account:
        runs = self._runs[subject]
        return Account(
            job_id=job_id,
            due=sum(runs.values()) + is_open,
            runs={str(result): runs.get(result, 0) for result in Result},
            open=is_open,
            worst_lateness_ms=self._late_us[subject] // 1000,
            wakes=self._wakes[subject],
            up_seconds=self._up_us[subject] // 1_000_000,
        )

    def losses(self) -> tuple[Loss, ...]:
        """Return what did not complete, most first."""
        self._explain()
        found = [
            Loss(
                job_id=self._job_ids[subject],
                result=str(result),
                count=each.count,
                first_us=each.first_us,
                last_us=each.last_us,
                example_us=each.example_us,
                cause=each.cause,
            )
            for (subject, result, _), each in self._losses.items()
        ]
        return tuple(sorted(found, key=lambda loss: (-loss.count, loss.job_id, loss.result, loss.cause.name)))


def _order(ended: Ended) -> tuple[int, Instant, str]:
    return ended.subject, ended.outcome.occurrence_us, ended.outcome.result


def _open(job: Job | None, now_us: Instant) -> int:
    """Return how many occurrences have come and not ended."""
    if job is None:
        return 0
    count = len(job.runs) + len(job.waiting)
    if job.state is JobState.SCHEDULED and job.next_us is not None and job.next_us <= now_us:
        count += passed(job, job.next_us - 1, now_us, 1).count
    return count
