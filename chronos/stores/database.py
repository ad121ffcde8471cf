"""A SQL database as a store needs it: what is read is committed, and a change happens whole or not at all.

What differs between SQLite and PostgreSQL in that is here, and so is what may go wrong: whatever a
driver raises leaves this module as a `StoreError`.

* SQLite has one writer at a time. A change takes that place before it reads (`BEGIN IMMEDIATE`):
  one that read first and wrote later could not go on once another had written in between. The
  driver's own idea of when a transaction begins is switched off for that.
* PostgreSQL locks rows. A change runs at READ COMMITTED, whatever the engine's default: a statement
  that has waited for a lock sees what the one before it left.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any
from weakref import WeakSet

from msgspec import Struct
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError

from chronos.errors import JobsFileError, StoreError
from chronos.stores import belonging
from chronos.stores.belonging import Belonging

# Seconds between two attempts to make a database keep a log, where SQLite itself does not wait.
_POLL_S = 0.01

_databases: WeakSet[Database] = WeakSet()


def _close_before_fork() -> None:
    for database in tuple(_databases):
        database.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_close_before_fork)


class Database:
    """One SQLite or PostgreSQL database, safe among threads.

    Its connections are closed before the process forks, so that parent and child get their own: SQLite
    forgets its locks when a connection goes through a fork, even one that nobody uses any more. A
    given engine is its owner's, who has to close it; the child leaves alone what is still open.

    Args:
        url_or_engine: where it is, as SQLAlchemy writes it, or a synchronous engine.
        wait_s: how long to wait for others, seconds; an engine has settings of its own.

    Raises:
        ValueError: no such URL, a database that is neither of the two, or one in memory.
        ImportError: the database's driver is not installed.
    """

    def __init__(self, url_or_engine: str | URL | Engine, *, wait_s: float) -> None:
        self._is_own = not isinstance(url_or_engine, Engine)
        self._wait_s = wait_s
        self.engine = (
            url_or_engine if isinstance(url_or_engine, Engine) else _new_engine(url_or_engine, wait_s)
        )
        _check(self.engine.dialect.name, self.engine.url)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self.name = self.engine.url.render_as_string(hide_password=True)
        path = self.engine.url.database or ""
        # What is no plain path is the driver's matter.
        self._path = Path(path).absolute() if self.is_sqlite and not path.startswith("file:") else None
        self._lost: _Seen | None = None
        self._pid = os.getpid()
        self._inherited: list[object] = []
        _databases.add(self)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection of which every statement stands alone.

        Raises:
            StoreError: the database did not answer.
        """
        try:
            with self._connected("AUTOCOMMIT") as connection:
                yield connection
        except StoreError:
            raise
        except Exception as error:  # drivers let more through than errors of their own
            raise self._failure("cannot be read", error, definite=True) from error

    def change(self, work: Callable[[Connection], bool]) -> bool:
        """Do *work* in one transaction, and return what it returned.

        Args:
            work: what to do; when it returns False, nothing of it remains.

        Raises:
            StoreError: the database failed; until the commit nothing has happened for sure.
            JobsFileError: *work* has found what cannot be read; nothing has happened.
        """
        is_definite = True
        try:
            with self._connected("AUTOCOMMIT" if self.is_sqlite else "READ COMMITTED") as connection:
                if self.is_sqlite:
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                is_done = work(connection)
                is_definite = not is_done
                self._end(connection, "COMMIT" if is_done else "ROLLBACK")
                self._check_file(connection, definite=is_definite)
                return is_done
        except (StoreError, JobsFileError):
            raise
        except Exception as error:
            raise self._failure("cannot be written", error, definite=is_definite) from error

    def lock(self, connection: Connection, name: str) -> None:
        """Let one transaction at a time go on from here, until it ends; for SQLite it is the only one anyway.

        Args:
            connection: the one that `change` gave.
            name: what the others lock as well.
        """
        if not self.is_sqlite:
            number = int.from_bytes(sha256(f"chronos {name}".encode()).digest()[:8], signed=True)
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})

    def prepare(self) -> None:
        """Make the file of a SQLite database, and let its readers and its writer not wait for each other.

        Raises:
            StoreError: the file cannot be made, or is no database.
        """
        if not self.is_sqlite:
            return
        if self._is_own and self._path is not None:
            try:  # for its owner alone, as a jobs file is
                with suppress(FileExistsError):
                    os.close(belonging.make(self._path, None))
            except OSError as error:
                raise StoreError(f"{self._path} cannot be made: {error}", definite=True) from None
        deadline_s = time.monotonic() + self._wait_s
        while True:
            try:
                with self.reading() as connection:
                    connection.exec_driver_sql("PRAGMA journal_mode=WAL")
                return
            except StoreError as error:
                # Of several that do this at once, SQLite turns all but one away without a wait.
                if not _is_busy(error.__cause__) or time.monotonic() > deadline_s:
                    raise
                time.sleep(_POLL_S)

    def close(self) -> None:
        """Close the connections that are not in use; the next call opens new ones."""
        if self._is_own:
            with suppress(Exception):  # what cannot be closed is gone already
                self._engine().dispose()

    @contextmanager
    def _connected(self, isolation: Any) -> Iterator[Connection]:
        self._refuse_foreign_log()
        with self._engine().connect() as connection:
            self._check_file(connection)
            yield connection.execution_options(isolation_level=isolation)

    def _check_file(self, connection: Connection, *, definite: bool = True) -> None:
        """Refuse a connection to a SQLite file that is not there any more: what it holds is lost.

        SQLite itself goes on with a file that was deleted or replaced, for as long as it is open.

        Raises:
            StoreError: there is no such file, or another one.
        """
        if self._path is None:
            return
        now = _identity(self._path)
        known = connection.info.get("chronos")
        if known is None or (known.log is None and known.file == now):
            known = connection.info["chronos"] = _look(connection, self._path)
        if now is not None and now == known.file:
            return
        # Until then the connection stays open, lest another file get the number of the one that is gone.
        self._lost = known
        self._refuse_foreign_log(definite=definite)
        if now is not None:
            connection.invalidate()
        what = "there is no such file any more" if now is None else "it is another file than before"
        raise self._gone(what, definite=definite)

    def _refuse_foreign_log(self, *, definite: bool = True) -> None:
        """Refuse a file beside which the log of the one before still lies: SQLite would mix the two."""
        if self._path is None or self._lost is None or self._lost.log is None:
            return
        log = _beside(self._path, "-wal")
        if _identity(log) == self._lost.log and _identity(self._path) not in (None, self._lost.file):
            problem = (
                f"{log.name} beside it is of the file that was there before; stop whoever uses it, and delete"
                f" {log.name} and {_beside(self._path, '-shm').name}"
            )
            raise self._gone(problem, definite=definite)

    def _gone(self, problem: str, *, definite: bool) -> StoreError:
        rule = "a database must not be deleted or replaced while it is in use"
        return StoreError(f"{self.name} cannot be used: {problem}; {rule}", definite=definite)

    def _engine(self) -> Engine:
        """Return the engine, without connections that were in use when this process was forked."""
        if self._pid != os.getpid():
            # Kept, since dropping a connection closes it, and that would end the parent's.
            self._inherited.append(self.engine.pool)
            self.engine.dispose(close=False)
            self._pid = os.getpid()
        return self.engine

    def _end(self, connection: Connection, how: str) -> None:
        if self.is_sqlite:
            connection.exec_driver_sql(how)
        elif how == "COMMIT":
            connection.commit()
        else:
            connection.rollback()

    def _failure(self, what: str, error: Exception, *, definite: bool) -> StoreError:
        driver_error = getattr(error, "orig", None) or error
        words = " ".join(str(driver_error).split())
        if getattr(driver_error, "sqlstate", None) == "42P01" or "no such table" in words:
            words += "; SqlStore.create makes the tables"
        elif self._is_missing():
            words += "; there is no such file, and SqlStore.create makes one"
        return StoreError(f"{self.name} {what}: {type(driver_error).__name__}: {words}", definite=definite)

    def _is_missing(self) -> bool:
        return self._path is not None and not self._path.exists()


class _Seen(Struct, frozen=True):
    """Which file a connection was opened for, and the log that it writes; None for what is not there."""

    file: tuple[int, int] | None
    log: tuple[int, int] | None


def _look(connection: Connection, path: Path) -> _Seen:
    """Return what a connection works with; what SQLite makes beside a database is its group's, too.

    SQLite gives what it makes the mode of the database, and the owner where it runs as root.
    """
    with suppress(OSError, sqlite3.Error):  # whoever uses the connection is told
        driver: Any = connection.connection.driver_connection
        driver.execute("SELECT name FROM sqlite_master LIMIT 1").fetchall()  # they are made now
        like = Belonging.of(path.stat())
        for suffix in ("-wal", "-shm", "-journal"):
            belonging.give_if_ours(_beside(path, suffix), like)
    return _Seen(_identity(path), _identity(_beside(path, "-wal")))


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from every other that there is, while somebody has it open."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _check(dialect: str, url: URL) -> None:
    if dialect not in ("sqlite", "postgresql"):
        raise ValueError(f"expected a SQLite or a PostgreSQL database, got {dialect}")
    name = url.database or ""
    if dialect == "sqlite" and (
        name in ("", ":memory:", "file::memory:") or url.query.get("mode") == "memory"
    ):
        raise ValueError(
            "a SQLite database in memory does not outlive its connection; MemoryStore is for that"
        )


def _is_busy(error: BaseException | None) -> bool:
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_BUSY  # the rest says more precisely why


def _new_engine(url: str | URL, wait_s: float) -> Engine:
    """Return an engine for *url*."""
    try:
        url = make_url(url)
    except ArgumentError as error:
        example = "sqlite:///jobs.sqlite or postgresql://agent@db.example/agent"
        raise ValueError(f"not the URL of a database: {error}; expected one such as {example}") from None
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    dialect = url.get_backend_name()
    _check(dialect, url)
    if dialect == "sqlite":
        return _sqlite_engine(url, wait_s)
    return _postgresql_engine(url, wait_s)


def _sqlite_engine(url: URL, wait_s: float) -> Engine:
    options = {} if "timeout" in url.query else {"timeout": wait_s}
    engine = create_engine(url, connect_args=options, pool_timeout=wait_s, hide_parameters=True)

    @event.listens_for(engine, "do_connect")
    def open_what_is_there(_: Any, __: Any, arguments: list[Any], options: dict[str, Any]) -> None:
        # A file that is missing is more likely a volume that is not mounted than an agent without jobs.
        if not options.get("uri"):
            arguments[0] = f"{Path(arguments[0]).absolute().as_uri()}?mode=rw"
            options["uri"] = True

    @event.listens_for(engine, "connect")
    def be_durable(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=FULL")

    return engine


def _postgresql_engine(url: URL, wait_s: float) -> Engine:
    wait_ms = max(1, int(wait_s * 1000))  # none at all would be for ever
    options: dict[str, Any] = {}
    if url.get_driver_name() == "psycopg":
        # A machine that slept, or changed its network, has connections that are gone without a word:
        # without these it would wait for a quarter of an hour to find out.
        options = {
            "connect_timeout": max(2, int(wait_s)),
            "tcp_user_timeout": wait_ms,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
        }
    options = {name: value for name, value in options.items() if name not in url.query}
    try:
        engine = create_engine(
            url, connect_args=options, pool_timeout=wait_s, pool_pre_ping=True, hide_parameters=True
        )
    except ImportError as error:
        if url.get_driver_name() != "psycopg":
            raise
        raise ImportError(f"{error}; PostgreSQL needs the extra `postgresql` of chronos-cron") from error

    @event.listens_for(engine, "connect")
    def wait_for_nobody_long(connection: Any, _: Any) -> None:
        # The second frees the rows of a machine that was put to sleep in the middle of a change.
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {wait_ms}")
            cursor.execute(f"SET idle_in_transaction_session_timeout = {wait_ms}")
        connection.commit()

    return engine
