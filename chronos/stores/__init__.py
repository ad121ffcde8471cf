"""Where jobs are kept, and the one operation that changes them: compare-and-set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from chronos import arguments
from chronos.errors import JobsFileError
from chronos.jobs.job import Job, Outcome, Unreadable

if TYPE_CHECKING:
    from chronos.stores.json_file import JsonFileStore
    from chronos.stores.memory import MemoryStore
    from chronos.stores.sql import SqlStore

__all__ = ["HISTORY_LENGTH", "JobStore", "JsonFileStore", "MemoryStore", "SqlStore"]

# How many outcomes of a job a store keeps, unless it is told otherwise. Enough to see a bad night of a
# job that runs every ten minutes, and still small beside the prompts that a jobs file holds.
HISTORY_LENGTH = 50


def check_history_length(history_length: int) -> int:
    """Return how many outcomes of a job a store shall keep.

    Args:
        history_length: a count, at least 1: the end of the last run is what a status is made of.

    Raises:
        ValueError: less than 1, or not a whole number.
    """
    if type(history_length) is not int or history_length < 1:
        raise ValueError(f"history_length is {history_length!r}; expected a whole number of at least 1")
    return history_length


def check_swap(
    job_id: str, expected: Job | None, replacement: Job | None, outcomes: tuple[Outcome, ...]
) -> None:
    """Check the arguments of `JobStore.swap`.

    Raises:
        TypeError: one is of another type than its own.
    """
    arguments.text("job_id", job_id)
    arguments.instance("expected", expected, Job, None)
    arguments.instance("replacement", replacement, Job, None)
    arguments.instance("outcomes", outcomes, tuple)
    for place, outcome in enumerate(outcomes):
        arguments.instance(f"outcomes[{place}]", outcome, Outcome)


def told_apart(records: Iterable[Job | Unreadable]) -> tuple[tuple[Job, ...], tuple[Unreadable, ...]]:
    """Return the jobs among the records of a store, and those records that cannot be read."""
    known = tuple(records)
    return (
        tuple(record for record in known if isinstance(record, Job)),
        tuple(record for record in known if isinstance(record, Unreadable)),
    )


def unreadable(error: JobsFileError, job_id: str | None) -> Unreadable:
    """Return the record of that id, if it has one, of which *error* says what is wrong with it."""
    return Unreadable(
        id=job_id,
        source=error.source,
        place=error.job or "",
        field=error.field,
        problem=error.problem,
    )


def refusal(record: Unreadable) -> JobsFileError:
    """Return the error by which whoever asks for that record is told what is wrong with it."""
    return JobsFileError(record.source, record.place, record.field, record.problem)


class JobStore(Protocol):
    """A place where jobs outlive the process.

    Several processes may use one store. What keeps them apart is `swap` alone: it compares the
    whole job, so that a change which did not count the revision up is not overlooked.

    A record that cannot be read stops no other: it stays as it is, history and all, whatever is done to
    the others, and whoever asks for its job by id gets a `JobsFileError` that names it.
    """

    def load(self, job_id: str) -> Job | None:
        """Return the job of that id, or None when there is none.

        Raises:
            StoreError: the store could not be read; ask again later.
            JobsFileError: the record of that job cannot be read, or the store as a whole cannot; it must
                be mended by hand.
        """

    def load_all(self) -> tuple[Job | Unreadable, ...]:
        """Return all records, in the order in which they were added, in one reading.

        Raises:
            StoreError: as for `load`.
            JobsFileError: the store as a whole cannot be read; it must be mended by hand.
        """

    def swap(
        self,
        job_id: str,
        *,
        expected: Job | None,
        replacement: Job | None,
        outcomes: tuple[Outcome, ...] = (),
    ) -> bool:
        """Put *replacement* in the place of *expected*, and the outcomes into its history.

        Args:
            job_id: which job.
            expected: the job as it was loaded; None when there was none.
            replacement: the job as it shall stand; None takes it out, and its history with it.
            outcomes: the occurrences that end with this change.

        Returns:
            True when all of it is durable; False when the stored job is not *expected* and nothing
            was changed: load it and decide again.

        Raises:
            TypeError: an argument is of another type than its own.
            StoreError: the store could not be written; `definite` says whether it may have been.
            JobsFileError: as for `load`; nothing was changed.

        Source: contract, "Claim, run, re-arm"; incidents D3, S1.
        """

    def history(self, job_id: str) -> tuple[Outcome, ...]:
        """Return the newest outcomes of a job, oldest first; none without such a job.

        A store keeps as many of each job as its `history_length` says.

        Raises:
            StoreError: as for `load`.
            JobsFileError: as for `load`.
        """

    def latest(self) -> Mapping[str, Outcome | Unreadable]:
        """Return the newest outcome of each job that has one, by the id of the job, in one reading.

        Raises:
            StoreError: as for `load`.
            JobsFileError: as for `load_all`.
        """


# `import chronos` shall not pay for a file lock or a database that an agent with another store never uses.
def __getattr__(name: str) -> Any:
    if name == "JsonFileStore":
        from chronos.stores.json_file import JsonFileStore

        return JsonFileStore
    if name == "MemoryStore":
        from chronos.stores.memory import MemoryStore

        return MemoryStore
    if name == "SqlStore":
        try:
            from chronos.stores.sql import SqlStore
        except ModuleNotFoundError as error:
            raise ImportError(f"{error}; SqlStore needs the extra `sql` of chronos-cron") from error
        return SqlStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
