"""Jobs files as simulations start from them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from msgspec import Struct

from chronos.cli.options import read_jobs
from chronos.errors import JobsFileError
from chronos.jobs.due import following
from chronos.jobs.instants import Instant, parse_instant
from chronos.jobs.job import Job, JobState
from chronos.stores.record import read_document
from chronos.values import evolve


class Fleet(Struct, frozen=True, kw_only=True):
    """The jobs of an agent, and the instant at which they stand as they do.

    Attributes:
        name: the shipped fleet's name or the file's path.
        jobs: as the store holds them at the start.
        start_us: the start of the simulation.
    """

    name: str
    jobs: tuple[Job, ...]
    start_us: Instant

    @property
    def job_ids(self) -> tuple[str, ...]:
        """The ids of the jobs, in their order."""
        return tuple(job.id for job in self.jobs)


def shipped() -> tuple[str, ...]:
    """Return the names of the fleets that come with the simulator."""
    folder = files("simulator") / "fleets"
    return tuple(sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".json")))


def path(name: str) -> Path:
    """Return where the shipped fleet of that name is."""
    return Path(str(files("simulator") / "fleets" / f"{name}.json"))


def load_shipped(name: str, *, start_us: Instant | None = None) -> Fleet:
    """Load a fleet that comes with the simulator."""
    return _fleet(path(name).read_text(encoding="utf-8"), name, start_us)


def load_file(path: Path | None, *, start_us: Instant | None = None) -> Fleet:
    """Load a jobs file; it is read once and never written.

    Args:
        path: the file; None for the standard input.
        start_us: where to start instead of the file's `updated_at` or `exported_at`. What would have
            happened before then is nobody's concern: every job goes on with its next occurrence.

    Raises:
        JobsFileError: the file cannot be read, or is not a jobs file.
    """
    name, text = read_jobs(path)
    return _fleet(text, name, start_us)


def _fleet(text: str, name: str, start_us: Instant | None) -> Fleet:
    try:
        document = read_document(text, source=name, now_us=start_us).checked()
    except JobsFileError as error:
        if start_us is None and _is_mended_by_start(error, text, name):
            problem = f"{error.problem}; say where the simulation starts with --start"
            raise JobsFileError(name, error.job, error.field, problem) from None
        raise
    if start_us is not None:
        jobs = tuple(_from(job, start_us) for job in document.jobs)
        return Fleet(name=name, jobs=jobs, start_us=start_us)
    if document.as_of_us is None:
        problem = "expected a time stamp, the simulation starts there; or say where with --start"
        raise JobsFileError(name, None, "updated_at", problem)
    return Fleet(name=name, jobs=document.jobs, start_us=document.as_of_us)


def _is_mended_by_start(refused: JobsFileError, text: str, name: str) -> bool:
    """Whether the file would not be *refused* for the same reason with a start, whichever it is."""
    try:
        read_document(text, source=name, now_us=_ANY_START_US).checked()
    except JobsFileError as error:
        return str(error) != str(refused)
    return True


_ANY_START_US = parse_instant("2000-01-01T00:00:00+00:00")


def _from(job: Job, start_us: Instant) -> Job:
    """Return *job* as it would stand at *start_us*, with nothing overdue and nothing in flight."""
    if job.state is JobState.COMPLETED:
        return job
    next_us = following(job, start_us - 1)
    if next_us is None:
        return evolve(job, next_us=None, runs=(), waiting=(), state=JobState.COMPLETED)
    return evolve(job, next_us=next_us, runs=(), waiting=())
