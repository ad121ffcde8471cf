"""Jobs in a SQL database: SQLite for the processes of one machine, PostgreSQL for those of several.

A job is a row of one table and each of its newest outcomes a row of another. What counts in a row is
its document (see `chronos.stores.codec`); the columns beside it are there to find rows by, and are
written with it. This needs the extra `sql` of this distribution, and for PostgreSQL `postgresql`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Index,
    MetaData,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.engine import URL

from chronos import arguments
from chronos.clock import now_us as real_now_us
from chronos.errors import JobsFileError, ScheduleError, StoreError
from chronos.jobs.due import wake_at
from chronos.jobs.instants import Instant, format_instant
from chronos.jobs.job import Job, Outcome, Unreadable
from chronos.stores import HISTORY_LENGTH, check_history_length, check_swap, unreadable
from chronos.stores.codec import DocumentError, decode, encode
from chronos.stores.database import Database

# Seconds that a call waits for others to let go of what they have locked. One change takes some
# milliseconds; the fire must be answered well within its half minute.
WAIT_S = 10.0

# PostgreSQL's names have at most 63 bytes, and one of an index is the prefix and 13 more.
_PREFIX = re.compile(r"[a-z_][a-z0-9_]{0,49}|", re.ASCII)

# What PostgreSQL or UTF-8 cannot hold in a text, and the character that stands for it.
_SPECIAL = re.compile("[\\\\\x00\ud800-\udfff]")
_ESCAPED = re.compile(r"\\([0-9a-f]{4})")

_Value = TypeVar("_Value")


class SqlStore:
    """A `JobStore` in a SQL database, safe among threads, processes and, with PostgreSQL, machines.

    Args:
        url_or_engine: where the database is, such as `sqlite:////var/lib/agent/jobs.db` or
            `postgresql://agent@db.example/agent`; or a synchronous SQLAlchemy engine, which keeps its
            own settings. The tables must be there: `create` makes them.
        history_length: how many outcomes of a job it keeps, at least 1.
        table_prefix: what the names of its tables begin with: lower-case letters, digits and `_`, at
            most 50. Stores with different prefixes in one database know nothing of each other.
        wait_s: how long a call waits for other processes, seconds.
        now_us: the clock that the column `updated_at` is taken from, epoch microseconds.

    Raises:
        TypeError: an argument is of another type than its own.
        ValueError: no such URL, a database of another make, one in memory, a history of less than one
            outcome, or a prefix that is none.
        ImportError: the database's driver is not installed.
    """

    def __init__(
        self,
        url_or_engine: str | URL | Engine,
        *,
        history_length: int = HISTORY_LENGTH,
        table_prefix: str = "chronos_",
        wait_s: float = WAIT_S,
        now_us: Callable[[], Instant] = real_now_us,
    ) -> None:
        self._history_length = check_history_length(history_length)
        arguments.instance("url_or_engine", url_or_engine, str | URL | Engine)
        arguments.text("table_prefix", table_prefix)
        arguments.seconds("wait_s", wait_s)
        arguments.function("now_us", now_us)
        if _PREFIX.fullmatch(table_prefix) is None:
            raise ValueError(
                f"table_prefix is {table_prefix!r}; expected lower-case letters, digits and _, at most 50"
            )
        self._now_us = now_us
        self._database = Database(url_or_engine, wait_s=wait_s)
        self._metadata = MetaData()
        self._jobs = _jobs_table(self._metadata, table_prefix)
        self._history = _history_table(self._metadata, table_prefix)

    @classmethod
    def create(
        cls,
        url_or_engine: str | URL | Engine,
        *,
        history_length: int = HISTORY_LENGTH,
        table_prefix: str = "chronos_",
        wait_s: float = WAIT_S,
        now_us: Callable[[], Instant] = real_now_us,
    ) -> SqlStore:
        """Return the store at *url_or_engine*, whose tables are made, without jobs, where they are missing.

        Any number of processes may do this at once. Tables that are there stay as they are. A SQLite
        database is set to write-ahead logging, so that who reads does not wait for who writes.

        Args:
            url_or_engine: as for the class. The file of a SQLite database is made, its directory not.
            history_length: as for the class.
            table_prefix: as for the class.
            wait_s: as for the class.
            now_us: as for the class.

        Raises:
            StoreError: the tables could not be made.
            ValueError: as for the class.
            ImportError: as for the class.
        """
        store = cls(
            url_or_engine,
            history_length=history_length,
            table_prefix=table_prefix,
            wait_s=wait_s,
            now_us=now_us,
        )
        store._database.prepare()
        store._database.change(store._make_tables)
        return store

    def close(self) -> None:
        """Close the store's connections that are not in use; those of a given engine stay open.

        A call after this opens a new one.
        """
        self._database.close()

    def load(self, job_id: str) -> Job | None:
        """Return the job of that id, or None when there is none. See `JobStore`."""
        arguments.text("job_id", job_id)
        found = select(self._jobs.c.document).where(self._jobs.c.id == _key(job_id))
        with self._database.reading() as connection:
            document = connection.execute(found).scalar()
        return None if document is None else self._job(_key(job_id), document)

    def load_all(self) -> tuple[Job | Unreadable, ...]:
        """Return all records, in the order in which they were added. See `JobStore`."""
        jobs = self._jobs.c
        with self._database.reading() as connection:
            rows = connection.execute(select(jobs.id, jobs.document).order_by(jobs.position)).all()
        return tuple(_or_unreadable(row.id, self._job, row.document) for row in rows)

    def history(self, job_id: str) -> tuple[Outcome, ...]:
        """Return the newest outcomes of a job, oldest first. See `JobStore`."""
        arguments.text("job_id", job_id)
        jobs, kept = self._jobs.c, self._history.c
        is_kept = (kept.job_id == jobs.id) & (kept.number > jobs.outcomes - self._history_length)
        found = (
            select(jobs.document.label("job"), kept.document)
            .join_from(self._jobs, self._history, is_kept, isouter=True)
            .where(jobs.id == _key(job_id))
            .order_by(kept.number)
        )
        with self._database.reading() as connection:
            rows = connection.execute(found).all()
        if rows:
            self._job(_key(job_id), rows[0].job)  # a history without a job is nobody's
        return tuple(self._outcome(_key(job_id), row.document) for row in rows if row.document is not None)

    def latest(self) -> Mapping[str, Outcome | Unreadable]:
        """Return the newest outcome of each job that has one. See `JobStore`."""
        jobs, kept = self._jobs.c, self._history.c
        is_newest = (kept.job_id == jobs.id) & (kept.number == jobs.outcomes)
        found = select(jobs.id, kept.document).join_from(self._jobs, self._history, is_newest)
        with self._database.reading() as connection:
            rows = connection.execute(found.order_by(jobs.position)).all()
        return {_id(row.id): _or_unreadable(row.id, self._outcome, row.document) for row in rows}

    def swap(
        self,
        job_id: str,
        *,
        expected: Job | None,
        replacement: Job | None,
        outcomes: tuple[Outcome, ...] = (),
    ) -> bool:
        """Put *replacement* in the place of *expected*, with the outcomes, at once. See `JobStore`."""
        check_swap(job_id, expected, replacement, outcomes)
        key = _key(job_id)
        row = None if replacement is None else self._job_row(job_id, replacement)
        ended = [self._outcome_row(job_id, outcome) for outcome in outcomes]

        def work(connection: Connection) -> bool:
            if expected is None:
                # Who adds a job comes after whoever added one before, in position as in time.
                self._database.lock(connection, self._jobs.name)
            found = self._find(connection, key)
            document, before = found or (None, None)
            if (None if document is None else self._job(key, document)) != expected:
                return False
            if row is None:
                self._remove(connection, key)
            elif replacement != expected or ended:
                self._put(connection, key, before, row, ended)
            return True

        return self._database.change(work)

    # --- what a change does ---

    def _make_tables(self, connection: Connection) -> bool:
        self._database.lock(connection, self._jobs.name)
        self._metadata.create_all(connection)
        return True

    def _find(self, connection: Connection, key: str) -> tuple[str, int] | None:
        """Return the document of a job and the number of its outcomes, and lock it until the change ends."""
        jobs = self._jobs.c
        found = select(jobs.document, jobs.outcomes).where(jobs.id == key).with_for_update()
        row = connection.execute(found).one_or_none()
        return None if row is None else (row.document, row.outcomes)

    def _remove(self, connection: Connection, key: str) -> None:
        connection.execute(delete(self._history).where(self._history.c.job_id == key))
        connection.execute(delete(self._jobs).where(self._jobs.c.id == key))

    def _put(
        self,
        connection: Connection,
        key: str,
        before: int | None,
        row: dict[str, Any],
        ended: list[dict[str, Any]],
    ) -> None:
        """Write the row of a job, and one for each outcome; delete the outcomes that are too many.

        Args:
            connection: the change's.
            key: whose.
            before: how many outcomes it has had; None when there is no row of it.
            row: the columns to write.
            ended: the same of each outcome.
        """
        jobs, kept = self._jobs, self._history
        number = (before or 0) + len(ended)
        row = {**row, "outcomes": number}
        if before is None:
            # There is a history only when somebody deleted the row of the job and nothing else.
            connection.execute(delete(kept).where(kept.c.job_id == key))
            last = select(func.coalesce(func.max(jobs.c.position), 0)).scalar_subquery()
            connection.execute(insert(jobs).values(id=key, position=last + 1, **row))
        else:
            connection.execute(update(jobs).where(jobs.c.id == key).values(**row))
        if ended:
            first = number - len(ended) + 1
            rows = [{**end, "job_id": key, "number": n} for n, end in enumerate(ended, start=first)]
            connection.execute(insert(kept), rows[-self._history_length :])
            if number > self._history_length:
                is_too_old = kept.c.number <= number - self._history_length
                connection.execute(delete(kept).where(kept.c.job_id == key, is_too_old))

    # --- values and rows ---

    def _job(self, key: str, document: str) -> Job:
        job = self._decoded(Job, self._jobs, key, document)
        if _key(job.id) != key:
            raise _unreadable(self._jobs, key, f"its document is that of job {job.id}")
        return job

    def _outcome(self, key: str, document: str) -> Outcome:
        outcome = self._decoded(Outcome, self._history, key, document)
        if _key(outcome.job_id) != key:
            raise _unreadable(self._history, key, f"it has an outcome of job {outcome.job_id}")
        return outcome

    def _decoded(self, kind: type[_Value], table: Table, key: str, document: str) -> _Value:
        try:
            return decode(kind, document)
        except DocumentError as error:
            raise _unreadable(table, key, f"{kind.__name__.lower()}: {error}") from None

    def _job_row(self, job_id: str, job: Job) -> dict[str, Any]:
        if job.id != job_id:
            raise self._unwritable(job_id, f"what shall be written is job {job.id}")
        return {
            "document": self._encoded(job_id, job),  # refuses what is no job at all
            "revision": job.revision,
            "state": job.state.value,
            "wake_at": _instant(wake_at(job)),
            "updated_at": _instant(self._now_us()),
        }

    def _outcome_row(self, job_id: str, outcome: Outcome) -> dict[str, Any]:
        if outcome.job_id != job_id:
            raise self._unwritable(job_id, f"what shall be written is an outcome of job {outcome.job_id}")
        return {
            "occurrence": _instant(outcome.occurrence_us),
            "result": outcome.result.value,
            "at": _instant(outcome.at_us),
            "document": self._encoded(job_id, outcome),
        }

    def _encoded(self, job_id: str, value: object) -> str:
        try:
            return encode(value)
        except DocumentError as error:
            raise self._unwritable(job_id, str(error)) from None

    def _unwritable(self, job_id: str, problem: str) -> StoreError:
        return StoreError(f"{self._database.name}: job {job_id}: {problem}", definite=True)


def _unreadable(table: Table, key: str, problem: str) -> JobsFileError:
    """Return that a row must be mended by hand; its table is what a file is elsewhere."""
    return JobsFileError(table.name, key, None, problem)


def _or_unreadable(key: str, read: Callable[[str, str], _Value], document: str) -> _Value | Unreadable:
    """Return what *read* makes of a row's document, or the row as one that cannot be read."""
    try:
        return read(key, document)
    except JobsFileError as error:
        return unreadable(error, _id(key))


def _id(key: str) -> str:
    """Return the id for which *key* stands."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), key)


def _key(job_id: str) -> str:
    """Return the text that stands for *job_id* in a column: itself, unless it has something special in it."""
    return _SPECIAL.sub(lambda found: f"\\{ord(found[0]):04x}", job_id)


def _instant(instant_us: Instant | None) -> str | None:
    """Return the text of an instant; None also for one that is out of range, which no column can show."""
    try:
        return None if instant_us is None else format_instant(instant_us)
    except ScheduleError:
        return None


def _text() -> Text:
    """Return the type of a text that is compared and sorted by its characters, in any locale."""
    return Text().with_variant(Text(collation="C"), "postgresql")


def _instant_type() -> Text:
    """Return the type of an instant; a text of one form sorts as well, where there is no type for it."""
    return Text().with_variant(TIMESTAMP(timezone=True), "postgresql")


def _jobs_table(metadata: MetaData, prefix: str) -> Table:
    position = Column("position", BigInteger, nullable=False, comment="the order in which jobs were added")
    return Table(
        f"{prefix}jobs",
        metadata,
        Column("id", _text(), primary_key=True, comment="NUL, \\ and half surrogates as \\ and four digits"),
        position,
        Column("revision", BigInteger, nullable=False, comment="grows with every change"),
        Column("state", _text(), nullable=False, comment="scheduled, paused or completed"),
        Column("wake_at", _instant_type(), comment="when the agent must next be woken for it"),
        Column("updated_at", _instant_type(), comment="when this row was written, by the writer's clock"),
        Column("outcomes", BigInteger, nullable=False, comment="the number of its newest outcome"),
        Column("document", _text(), nullable=False, comment="the job; what else is here is made from it"),
        Index(f"{prefix}jobs_position", position, unique=True),
    )


def _history_table(metadata: MetaData, prefix: str) -> Table:
    return Table(
        f"{prefix}history",
        metadata,
        Column("job_id", _text(), primary_key=True),
        Column("number", BigInteger, primary_key=True, autoincrement=False, comment="1 for its first"),
        Column("occurrence", _instant_type(), comment="the scheduled instant; of several, the first"),
        Column("result", _text(), nullable=False, comment="how it ended"),
        Column("at", _instant_type(), comment="when this was decided"),
        Column("document", _text(), nullable=False, comment="the outcome; what else is here is made from it"),
    )
