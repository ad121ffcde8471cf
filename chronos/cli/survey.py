"""How the jobs of a store stand, from the store alone: nothing is asked of NAS, and nothing is written."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from chronos.cli.console import BadUsage
from chronos.cli.options import STANDARD_INPUT, read_jobs
from chronos.errors import JobsFileError
from chronos.jobs.due import following, wake_at
from chronos.jobs.instants import MINUTE_US, SECOND_US, Instant
from chronos.jobs.job import Job, JobState, Origin, Outcome, Unreadable
from chronos.jobs.schedule import Cron, Interval, Schedule
from chronos.protocol.clocks import CLOCK_MARGIN_US
from chronos.stores import told_apart, unreadable
from chronos.stores.record import read_document, read_history

_SQLITE = b"SQLite format 3\0"


class Survey(Struct, frozen=True, kw_only=True):
    """What a store holds.

    Attributes:
        source: its name, without a password.
        jobs: in the order of the store.
        last: the newest outcome of each job that has one, by its id.
        odd: what cannot be read, whole records and histories.
    """

    source: str
    jobs: tuple[Job, ...]
    last: Mapping[str, Outcome]
    odd: tuple[Unreadable, ...]


def survey(target: str) -> Survey:
    """Read a store once, without a lock.

    Args:
        target: a jobs file, `STANDARD_INPUT`, a SQLite file or the URL of a database.

    Raises:
        JobsFileError: it cannot be read as a whole.
        StoreError: the database did not answer, or is none of this library's.
        BadUsage: the URL is none, or the extra that reads it is not installed.
    """
    if "://" in target:
        return _of_database(target)
    path = None if target == STANDARD_INPUT else Path(target)
    if path is not None and _begins_like_sqlite(path):
        return _of_database(path)
    source, text = read_jobs(path)
    return _of_text(source, text, None if path is None else _changed_us(path))


def _of_text(source: str, text: str, changed_us: Instant | None) -> Survey:
    document = read_document(text, source=source, now_us=changed_us)
    jobs, odd = told_apart(document.records)
    last: dict[str, Outcome] = {}
    histories = []
    for record, raw in zip(document.records, document.raw["jobs"], strict=True):
        if isinstance(record, Job):
            try:
                if kept := read_history(raw, document.facts):
                    last[record.id] = kept[-1]
            except JobsFileError as error:
                histories.append(unreadable(error, record.id))
    return Survey(source=source, jobs=jobs, last=last, odd=(*odd, *histories))


def _of_database(target: str | Path) -> Survey:
    try:
        from chronos.stores import SqlStore

        name, opened = _read_only(target)
        store = SqlStore(opened)
    except ImportError as error:
        raise BadUsage(f"a database cannot be read: {error}; see the extras of chronos-cron") from None
    except ValueError as error:
        raise BadUsage(str(error)) from None
    try:
        jobs, odd = told_apart(store.load_all())
        newest = store.latest()
    finally:
        store.close()
    last = {job_id: outcome for job_id, outcome in newest.items() if isinstance(outcome, Outcome)}
    histories = tuple(outcome for outcome in newest.values() if isinstance(outcome, Unreadable))
    return Survey(source=name, jobs=jobs, last=last, odd=(*odd, *histories))


def _read_only(target: str | Path) -> tuple[str, Any]:
    """Return the name of the database *target*, and a URL through which nothing is written."""
    from sqlalchemy.engine import URL, make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = URL.create("sqlite", database=str(target)) if isinstance(target, Path) else make_url(target)
    except ArgumentError:
        raise BadUsage("expected a URL such as sqlite:///jobs.sqlite, or the name of a file") from None
    name = str(target) if isinstance(target, Path) else url.render_as_string(hide_password=True)
    database = url.database or ":memory:"
    if url.get_backend_name() != "sqlite" or database.startswith((":", "file:")):
        return name, url
    path = Path(database)
    if not path.is_file():
        raise JobsFileError(name, None, None, "cannot be read: there is no such file")
    # A database that nobody has open has no log; to read it with one would make the log's files.
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    return name, url.set(database=f"{path.absolute().as_uri()}?{mode}", query={"uri": "true"})


def _begins_like_sqlite(path: Path) -> bool:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - a pipe can be read only once
            return False
        with path.open("rb") as opened:
            return opened.read(len(_SQLITE)) == _SQLITE
    except (OSError, ValueError):
        return False


def _changed_us(path: Path) -> Instant:
    return path.stat().st_mtime_ns // 1000


# --- what is told of a job --------------------------------------------------------------------


def past(job: Job, now_us: Instant) -> Instant | None:
    """Return the earliest occurrence of *job* that has come and was not taken yet, if there is one."""
    is_due = job.state is JobState.SCHEDULED and job.next_us is not None and job.next_us <= now_us
    return job.next_us if is_due else None


def upcoming(job: Job, count: int, now_us: Instant) -> tuple[Instant, ...]:
    """Return the next occurrences of *job* after *now_us*, at most *count*; none while it is not in force."""
    if job.state is not JobState.SCHEDULED or job.next_us is None:
        return ()
    if job.times is not None:
        origins = [run.origin for run in job.runs] + [waiting.origin for waiting in job.waiting]
        taken = sum(origin is not Origin.MANUAL for origin in origins)
        count = min(count, job.times - job.completed - taken - (past(job, now_us) is not None))
    found: list[Instant] = []
    slot_us: Instant | None = job.next_us if job.next_us > now_us else following(job, now_us)
    while slot_us is not None and len(found) < count:
        found.append(slot_us)
        slot_us = following(job, slot_us)
    return tuple(found)


def is_overdue(job: Job, now_us: Instant) -> bool:
    """Return whether the wake of *job* is past by more than clocks may differ."""
    wake_us = wake_at(job)
    return wake_us is not None and wake_us < now_us - CLOCK_MARGIN_US


def described(schedule: Schedule) -> str:
    """Return *schedule* in words."""
    match schedule:
        case Cron(expr=expr, tz=tz):
            return f"{expr} ({tz})"
        case Interval(period_us=period_us):
            unit_us, unit = (SECOND_US, "s") if period_us % MINUTE_US else (MINUTE_US, "min")
            return f"every {period_us / unit_us:g} {unit}"
    return "once"
