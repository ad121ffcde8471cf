"""Which jobs a start has to compare with what NAS has armed, so that a wake costs no more for a large fleet.

A start that ships compares every job with every arm. What it finds of one job depends on that job, its arm
and the time alone, and what has agreed once disagrees only when the job or the arm changes, or when the job
is overdue: a clock that goes on makes nothing else amiss. So a simulated start is given the others alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from weakref import ref

from chronos.jobs.due import wake_at
from chronos.jobs.instants import Instant
from chronos.jobs.job import Job
from chronos.protocol.clocks import CLOCK_MARGIN_US
from chronos.protocol.reconciliation import is_amiss


class Comparison:
    """What is not known to agree.

    Args:
        jobs: the jobs of the store, each in the place of its subject number; None where there is none.
        job_ids: their ids.

    Attributes:
        listed_us: tells what a list of the present shows of a subject's arm.
    """

    def __init__(self, jobs: Sequence[Job | None], job_ids: Sequence[str]) -> None:
        self.jobs, self.job_ids = jobs, job_ids
        self.listed_us: Callable[[int], Instant | None]
        self._odd = set(range(len(jobs)))
        self._overdue: list[tuple[Instant, int]] = []
        self._open: list[ref[Listing]] = []

    def moves(self, subject: int) -> None:
        """The store moves the job, or NAS what it lists of it, right after this."""
        self._odd.add(subject)
        for each in self._open:
            listing = each()
            if listing is not None and not listing.is_narrow:
                listing.before.setdefault(subject, self.listed_us(subject))

    def listing(self) -> Listing:
        """Return what NAS has armed at present."""
        made = Listing(self)
        self._open = [each for each in self._open if (shown := each()) is not None and not shown.is_narrow]
        self._open.append(ref(made))
        return made

    def narrow(self, listing: Listing, now_us: Instant) -> list[int]:
        """Return the subjects to compare with *listing* at *now_us*, which shows no other from now on."""
        overdue = self._overdue
        while overdue and overdue[0][0] <= now_us:
            self._odd.add(heapq.heappop(overdue)[1])
        subjects = sorted(self._odd)
        listing.narrow(subjects)
        for subject in subjects:
            self._compare(subject, now_us)
        return subjects

    def _compare(self, subject: int, now_us: Instant) -> None:
        """Leave the subject out from now on, if it agrees."""
        job, listed_us = self.jobs[subject], self.listed_us(subject)
        if job is None:
            if listed_us is None:
                self._odd.discard(subject)
            return
        arms = {} if listed_us is None else {job.id: listed_us}
        if job.runs or is_amiss(job, (), arms, now_us):
            return
        self._odd.discard(subject)
        wake_us = wake_at(job)
        if wake_us is not None:
            heapq.heappush(self._overdue, (wake_us + CLOCK_MARGIN_US, subject))


class Listing(Mapping[str, Instant]):
    """What NAS had armed at one time, by job id.

    Attributes:
        before: what it had armed then for the subjects that have changed since.
        is_narrow: whether it is clear what it shows.
    """

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison
        self.before: dict[int, Instant | None] = {}
        self.is_narrow = False
        self._shown: dict[str, Instant] = {}

    def narrow(self, subjects: Sequence[int]) -> None:
        """Show these subjects alone."""
        comparison, self.is_narrow = self._comparison, True
        shown = (
            (subject, self.before[subject] if subject in self.before else comparison.listed_us(subject))
            for subject in subjects
        )
        self._shown = {comparison.job_ids[subject]: at_us for subject, at_us in shown if at_us is not None}

    def _arms(self) -> dict[str, Instant]:
        if not self.is_narrow:
            self.narrow(range(len(self._comparison.jobs)))
        return self._shown

    def __getitem__(self, job_id: str) -> Instant:
        return self._arms()[job_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arms())

    def __len__(self) -> int:
        return len(self._arms())
