"""A store that forgets when its process ends: for tests and examples."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from chronos import arguments
from chronos.jobs.job import Job, Outcome, Unreadable
from chronos.stores import HISTORY_LENGTH, check_history_length, check_swap


class MemoryStore:
    """A `JobStore` of one process, safe among its threads.

    Args:
        jobs: what it holds at first.
        history_length: how many outcomes of a job it keeps, at least 1.

    Raises:
        TypeError: something among *jobs* is no `Job`.
        ValueError: a history of less than one outcome.
    """

    def __init__(self, jobs: Iterable[Job] = (), *, history_length: int = HISTORY_LENGTH) -> None:
        self._history_length = check_history_length(history_length)
        self._lock = threading.Lock()
        for place, job in enumerate(jobs := tuple(jobs)):
            arguments.instance(f"jobs[{place}]", job, Job)
        self._jobs = {job.id: job for job in jobs}
        self._history: dict[str, tuple[Outcome, ...]] = {}

    def load(self, job_id: str) -> Job | None:
        """Return the job of that id, or None when there is none."""
        arguments.text("job_id", job_id)
        with self._lock:
            return self._jobs.get(job_id)

    def load_all(self) -> tuple[Job | Unreadable, ...]:
        """Return all jobs, in the order in which they were added."""
        with self._lock:
            return tuple(self._jobs.values())

    def swap(
        self,
        job_id: str,
        *,
        expected: Job | None,
        replacement: Job | None,
        outcomes: tuple[Outcome, ...] = (),
    ) -> bool:
        """Put *replacement* in the place of *expected*, with the outcomes. See `JobStore`."""
        check_swap(job_id, expected, replacement, outcomes)
        with self._lock:
            if self._jobs.get(job_id) != expected:
                return False
            if replacement is None:
                self._jobs.pop(job_id, None)
                self._history.pop(job_id, None)
            else:
                self._jobs[job_id] = replacement
                kept = self._history.get(job_id, ()) + outcomes
                self._history[job_id] = kept[-self._history_length :]
            return True

    def history(self, job_id: str) -> tuple[Outcome, ...]:
        """Return the newest outcomes of a job, oldest first."""
        arguments.text("job_id", job_id)
        with self._lock:
            return self._history.get(job_id, ())

    def latest(self) -> Mapping[str, Outcome | Unreadable]:
        """Return the newest outcome of each job that has one. See `JobStore`."""
        with self._lock:
            return {job_id: kept[-1] for job_id, kept in self._history.items() if kept}
