"""A real job store, as the processes of a simulated world use it; whether it fails, the world decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from chronos.errors import StoreError
from chronos.jobs.instants import Instant
from chronos.jobs.job import Job, Outcome, Unreadable
from chronos.stores import JobStore, JsonFileStore, MemoryStore
from simulator import faults
from simulator.faults import Write
from simulator.history import Kind
from simulator.watch import Watch

if TYPE_CHECKING:
    from simulator.wire.life import Wired


def _sqlite(directory: Path, now_us: Callable[[], Instant]) -> JobStore:
    from chronos.stores import SqlStore  # which needs an extra that the others do not

    return SqlStore.create(f"sqlite:///{directory}/jobs.db", now_us=now_us)


KINDS: Mapping[str, Callable[[Path, Callable[[], Instant]], JobStore]] = {
    "memory": lambda _directory, _now_us: MemoryStore(),
    "json": lambda directory, now_us: JsonFileStore.create(directory / "jobs.json", now_us=now_us),
    "sqlite": _sqlite,
}


class DifferentError(AssertionError):
    """The store and the watch over it disagree about what it holds."""


class SharedStore:
    """The store of a world, and the watch that is told of each change.

    Args:
        store: an empty one.
        watch: knows the jobs.
    """

    def __init__(self, store: JobStore, watch: Watch) -> None:
        self.real, self._watch = store, watch
        self.subjects = {job_id: subject for subject, job_id in enumerate(watch.job_ids)}
        for job in watch.store:
            if job is not None:
                store.swap(job.id, expected=None, replacement=job, outcomes=())

    def swap(
        self, job_id: str, *, expected: Job | None, replacement: Job | None, outcomes: tuple[Outcome, ...]
    ) -> bool:
        """Let the store swap, and the watch see it.

        Raises:
            DifferentError: the store holds another job than the one that was given to it.
        """
        subject = self.subjects[job_id]
        has_moved = self.real.swap(job_id, expected=expected, replacement=replacement, outcomes=outcomes)
        if has_moved != (self._watch.store[subject] == expected):
            raise DifferentError(
                f"the store holds {self.real.load(job_id)}, not {self._watch.store[subject]}"
            )
        if has_moved:
            self._watch.swapped(subject, expected, replacement, outcomes)
        return has_moved


class LivingStore:
    """The store as one process reaches it: `chronos.stores.JobStore`."""

    def __init__(self, life: Wired, shared: SharedStore) -> None:
        self._life, self._shared = life, shared
        self._conflict: str | None = None

    def load(self, job_id: str) -> Job | None:
        """Return a job."""
        if self._conflict == job_id:  # the second half of a swap that failed
            self._conflict = None
        else:
            self._read(job_id)
        return self._shared.real.load(job_id)

    def load_all(self) -> tuple[Job | Unreadable, ...]:
        """Return every record, in the order of the subjects."""
        self._life.reach(self._life.machine_subject)
        subjects, records = self._shared.subjects, self._shared.real.load_all()
        return tuple(sorted(records, key=lambda record: subjects[record.id or ""]))

    def history(self, job_id: str) -> tuple[Outcome, ...]:
        """Return the newest outcomes of a job."""
        self._read(job_id)
        return tuple(self._shared.real.history(job_id))

    def latest(self) -> Mapping[str, Outcome | Unreadable]:
        """Return the newest outcome of each job."""
        return self._shared.real.latest()

    def swap(
        self,
        job_id: str,
        *,
        expected: Job | None,
        replacement: Job | None,
        outcomes: tuple[Outcome, ...] = (),
    ) -> bool:
        """Swap a job, or fail: before the write, or after it."""
        life, subject = self._life, self._shared.subjects[job_id]
        life.reach(subject)
        failure = life.kernel.fault(faults.STORE_FAILURE, subject)
        if failure is not None:
            life.kernel.record(Kind.STORE_FAILED, subject)
            if failure is Write.WRITTEN and self._swap(job_id, expected, replacement, outcomes):
                life.note_late_failure()
            raise StoreError("the job store failed", definite=failure is Write.NOTHING)
        has_moved = self._swap(job_id, expected, replacement, outcomes)
        life.note_write(subject, expected, replacement, has_moved)
        self._conflict = None if has_moved else job_id
        return has_moved

    def _swap(
        self, job_id: str, expected: Job | None, replacement: Job | None, outcomes: tuple[Outcome, ...]
    ) -> bool:
        try:
            return self._shared.swap(job_id, expected=expected, replacement=replacement, outcomes=outcomes)
        except DifferentError as error:  # the scheduler would take it for a failure of the store
            self._life.fail(error)
            raise

    def _read(self, job_id: str) -> None:
        subject = self._shared.subjects[job_id]
        self._life.reach(subject)
        if not self._life.reads(subject):
            raise StoreError("the job store failed", definite=True)
