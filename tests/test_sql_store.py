"""What SQL stores promise besides what every store does, and what is special to each database."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, make_url, text

from chronos.errors import JobsFileError, StoreError
from chronos.jobs.instants import MINUTE_US, parse_instant
from chronos.jobs.job import Job, JobState, Outcome, Result, Unreadable
from chronos.jobs.schedule import Cron
from chronos.stores import JobStore, SqlStore, refusal, unreadable
from chronos.stores.codec import encode
from chronos.values import evolve

NOON_US = parse_instant("2026-06-25T12:00:00+00:00")

NIGHTLY = Job(
    id="nightly",
    schedule=Cron(expr="0 3 * * *", tz="Europe/Berlin"),
    next_us=parse_instant("2026-06-26T03:00:00+02:00"),
    revision=7,
)
LATER = evolve(NIGHTLY, revision=8)


def outcome(number: int, job_id: str = "nightly") -> Outcome:
    return Outcome(
        job_id=job_id,
        result=Result.MISSED,
        reason="the machine slept",
        occurrence_us=NOON_US + number * MINUTE_US,
        last_occurrence_us=NOON_US + number * MINUTE_US,
        at_us=NOON_US,
    )


def add(store: JobStore, *jobs: Job) -> None:
    for job in jobs:
        assert store.swap(job.id, expected=None, replacement=job)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a database is."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.db"
    return request.getfixturevalue("postgresql_url")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.db"


@pytest.fixture
def open_store(table_prefix: str) -> Iterator[Callable[..., SqlStore]]:
    """Return what opens stores in tables of the test's own, which are made if they are missing."""
    stores: list[SqlStore] = []

    def opened(url: str | Engine, **options: Any) -> SqlStore:
        stores.append(SqlStore.create(url, **{"table_prefix": table_prefix, **options}))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., SqlStore], url: str) -> SqlStore:
    """An empty store in each database."""
    return open_store(url)


@pytest.fixture
def admin(url: str) -> Iterator[Engine]:
    """Somebody who looks at the tables, and changes them, with SQL."""
    engine = create_engine(url)
    yield engine
    engine.dispose()


def engine_of(store: SqlStore) -> Engine:
    return store._database.engine


# --- tables for people --------------------------------------------------------------------------


def test_columns_say_what_people_ask_for(store: SqlStore, admin: Engine, table_prefix: str) -> None:
    """Who looks with SQL finds the order, the state, the next wake and the ends, as instants."""
    assert store.swap("nightly", expected=None, replacement=NIGHTLY, outcomes=(outcome(0), outcome(1)))
    paused = evolve(NIGHTLY, id="resting", state=JobState.PAUSED)
    add(store, paused)
    instants = "wake_at = '2026-06-26T01:00:00+00:00', updated_at > '2026-01-01T00:00:00+00:00'"
    columns = (
        f"SELECT id, position, revision, state, outcomes, wake_at IS NULL, {instants} FROM {table_prefix}jobs"
    )
    instants = "occurrence = '2026-06-25T12:01:00+00:00', at = '2026-06-25T12:00:00+00:00'"
    ends = f"SELECT job_id, number, result, {instants}"
    with admin.connect() as connection:
        jobs = connection.execute(text(f"{columns} ORDER BY position")).all()
        history = connection.execute(text(f"{ends} FROM {table_prefix}history ORDER BY number")).all()
    assert [tuple(row) for row in jobs] == [
        ("nightly", 1, 7, "scheduled", 2, False, True, True),
        ("resting", 2, 7, "paused", 0, True, None, True),
    ]
    assert [tuple(row) for row in history] == [
        ("nightly", 1, "missed", False, True),
        ("nightly", 2, "missed", True, True),
    ]


def test_instant_out_of_range_is_shown_as_none(store: SqlStore) -> None:
    """A column that cannot show an instant does not keep its job from being stored."""
    far = evolve(NIGHTLY, next_us=1 << 62)
    add(store, far)
    assert store.load("nightly") == far


def test_history_of_a_job_that_was_deleted_by_hand_is_gone(
    store: SqlStore, admin: Engine, table_prefix: str
) -> None:
    """A row that somebody deleted takes its outcomes along, also when the job is added again."""
    assert store.swap("nightly", expected=None, replacement=NIGHTLY, outcomes=(outcome(0),))
    with admin.begin() as connection:
        connection.execute(text(f"DELETE FROM {table_prefix}jobs"))
    assert store.history("nightly") == ()
    assert dict(store.latest()) == {}
    assert store.swap("nightly", expected=None, replacement=NIGHTLY, outcomes=(outcome(1),))
    assert store.history("nightly") == (outcome(1),)


def test_history_takes_no_more_rows_than_it_keeps(
    open_store: Callable[..., SqlStore], url: str, admin: Engine, table_prefix: str
) -> None:
    """What is too old is deleted, also what a store that kept more has left."""
    every = tuple(map(outcome, range(9)))
    assert open_store(url).swap("nightly", expected=None, replacement=NIGHTLY, outcomes=every)
    store = open_store(url, history_length=2)
    assert store.history("nightly") == every[7:]
    assert store.swap("nightly", expected=NIGHTLY, replacement=NIGHTLY, outcomes=(outcome(9),))
    with admin.connect() as connection:
        assert connection.execute(text(f"SELECT count(*) FROM {table_prefix}history")).scalar() == 2
    assert open_store(url).history("nightly") == (every[8], outcome(9))


def test_prefixes_keep_stores_apart(open_store: Callable[..., SqlStore], url: str, table_prefix: str) -> None:
    """Several agents may share a database."""
    one, other = (open_store(url, table_prefix=f"{table_prefix}{name}_") for name in ("one", "other"))
    add(one, NIGHTLY)
    assert other.load_all() == ()


@pytest.mark.parametrize("prefix", ["x" * 50, ""])
def test_longest_and_shortest_prefix_work(prefix: str, open_store: Callable[..., SqlStore], url: str) -> None:
    """No name of a table or an index gets too long."""
    store = open_store(url, table_prefix=prefix)
    add(store, NIGHTLY)
    assert store.load_all() == (NIGHTLY,)


@pytest.mark.parametrize("prefix", ["x" * 51, "a.b", 'a"', "A", "1", "a b", "ä"])
def test_prefix_that_is_none_is_refused(prefix: str, sqlite_url: str) -> None:
    """It becomes part of names, and those are to be the same in every database."""
    with pytest.raises(ValueError, match="table_prefix is"):
        SqlStore(sqlite_url, table_prefix=prefix)


def test_longest_id_is_a_key(store: SqlStore) -> None:
    """Ids of the length that the wire allows fit into an index, whatever their characters."""
    for char in ("😀", "\x00", "\ud800", "\\"):
        job = evolve(NIGHTLY, id=char * 200)
        add(store, job)
        assert store.load(job.id) == job


# --- documents ----------------------------------------------------------------------------------


def edit(admin: Engine, table: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the document in the only row of *table*."""
    with admin.begin() as connection:
        raw = json.loads(connection.execute(text(f"SELECT document FROM {table}")).scalar_one())
        change(raw)
        connection.execute(text(f"UPDATE {table} SET document = :document"), {"document": json.dumps(raw)})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda raw: raw.update(colour="red"), "job nightly: job: nobody knows the key colour"),
        (lambda raw: raw.pop("schedule"), r"job nightly: job: this key is missing @ document\.schedule"),
        (lambda raw: raw.update(id="another"), "job nightly: its document is that of job another"),
    ],
)
def test_job_of_a_later_version_is_refused(
    change: Callable[[dict[str, Any]], object],
    problem: str,
    store: SqlStore,
    admin: Engine,
    table_prefix: str,
) -> None:
    """What cannot be understood whole is neither read in part nor written over."""
    add(store, NIGHTLY)
    edit(admin, f"{table_prefix}jobs", change)
    calls: list[Callable[[], object]] = [
        lambda: store.load("nightly"),
        lambda: store.history("nightly"),
        lambda: store.swap("nightly", expected=NIGHTLY, replacement=LATER),
        lambda: store.swap("nightly", expected=NIGHTLY, replacement=None),
        lambda: store.swap("nightly", expected=None, replacement=LATER),
    ]
    for call in calls:
        with pytest.raises(JobsFileError, match=problem) as caught:
            call()
        error = caught.value
        assert (error.source, error.job, error.field) == (f"{table_prefix}jobs", "nightly", None)
    (odd,) = store.load_all()
    assert isinstance(odd, Unreadable)
    assert (odd.id, odd.source, str(refusal(odd))) == ("nightly", f"{table_prefix}jobs", str(error))
    edit(admin, f"{table_prefix}jobs", lambda raw: raw.clear() or raw.update(document_of(NIGHTLY)))
    assert store.load("nightly") == NIGHTLY


def document_of(job: Job) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(encode(job))
    return document


def test_outcome_of_a_later_version_is_refused(store: SqlStore, admin: Engine, table_prefix: str) -> None:
    """The history says so when it is asked for; the job goes on."""
    assert store.swap("nightly", expected=None, replacement=NIGHTLY, outcomes=(outcome(0),))
    edit(admin, f"{table_prefix}history", lambda raw: raw.update(colour="red"))
    with pytest.raises(JobsFileError, match="job nightly: outcome: nobody knows the key colour") as caught:
        store.history("nightly")
    assert caught.value.source == f"{table_prefix}history"
    assert store.latest() == {"nightly": unreadable(caught.value, "nightly")}
    assert store.swap("nightly", expected=NIGHTLY, replacement=LATER)


def test_job_of_an_earlier_version_has_the_defaults(
    store: SqlStore, admin: Engine, table_prefix: str
) -> None:
    """A job that was stored before a field was there is compared and changed like any other."""
    add(store, NIGHTLY)
    edit(admin, f"{table_prefix}jobs", lambda raw: raw.pop("policy"))
    assert store.load("nightly") == NIGHTLY
    assert store.swap("nightly", expected=NIGHTLY, replacement=LATER)


@pytest.mark.parametrize(
    ("job_id", "replacement", "ended", "problem"),
    [
        ("nightly", evolve(NIGHTLY, id="other"), (), "what shall be written is job other"),
        ("nightly", NIGHTLY, (outcome(0, "other"),), "what shall be written is an outcome of job other"),
        ("nightly", evolve(NIGHTLY, next_us="5"), (), "no document reads as"),
        ("nightly", evolve(NIGHTLY, revision=1 << 70), (), "cannot be written"),
        ("\ud83d\ude00", evolve(NIGHTLY, id="\ud83d\ude00"), (), "no document reads as"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(
    job_id: str, replacement: Job, ended: tuple[Outcome, ...], problem: str, store: SqlStore
) -> None:
    """One impossible row must not make all of the others unreadable."""
    with pytest.raises(StoreError, match=problem) as caught:
        store.swap(job_id, expected=None, replacement=replacement, outcomes=ended)
    assert caught.value.definite
    assert store.load_all() == ()


# --- several at once ----------------------------------------------------------------------------


def test_any_number_may_make_the_tables_at_once(url: str, table_prefix: str) -> None:
    """All of them succeed, and what the first one adds stays."""
    for number in range(4):
        prefix = f"{table_prefix}{number}_"
        together = threading.Barrier(4)

        def create(name: int, prefix: str = prefix, together: threading.Barrier = together) -> None:
            together.wait()
            store = SqlStore.create(url, table_prefix=prefix)
            add(store, evolve(NIGHTLY, id=f"job {name}"))
            store.close()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(create, range(4)))
        store = SqlStore.create(url, table_prefix=prefix)
        assert len(store.load_all()) == 4
        store.close()


def test_jobs_that_are_added_at_once_never_come_before_others(store: SqlStore) -> None:
    """Whoever has seen some jobs sees the later ones behind them, however many add some."""
    seen: list[tuple[Job, ...]] = [()]

    def add_some(number: int) -> None:
        add(store, *(evolve(NIGHTLY, id=f"{number}/{index}") for index in range(10)))

    with ThreadPoolExecutor(4) as pool:
        adding = [pool.submit(add_some, number) for number in range(4)]
        while not all(added.done() for added in adding):
            seen.append(store.load_all())
        for added in adding:
            added.result()
    seen.append(store.load_all())
    assert len(seen[-1]) == 40
    for before, after in pairwise(seen):
        assert after[: len(before)] == before


def test_of_a_removal_and_an_addition_at_once_one_is_first(store: SqlStore) -> None:
    """Threads that add and remove the same job see each change of it happen once."""
    add(store, NIGHTLY)

    def toggle(_: int) -> tuple[int, int]:
        added = removed = 0
        for _ in range(15):
            added += store.swap("nightly", expected=None, replacement=NIGHTLY, outcomes=(outcome(0),))
            removed += store.swap("nightly", expected=NIGHTLY, replacement=None)
        return added, removed

    with ThreadPoolExecutor(4) as pool:
        added, removed = map(sum, zip(*pool.map(toggle, range(4)), strict=True))
    assert 1 + added - removed == len(store.load_all())


# --- what may go wrong --------------------------------------------------------------------------


def test_tables_that_are_missing_are_reported(
    url: str, table_prefix: str, open_store: Callable[..., SqlStore]
) -> None:
    """Nobody makes tables by accident, in a database that may be the wrong one."""
    open_store(url, table_prefix=f"{table_prefix}other_")
    store = SqlStore(url, table_prefix=table_prefix)
    calls: list[Callable[[], object]] = [
        store.load_all,
        store.latest,
        lambda: store.load("nightly"),
        lambda: store.history("nightly"),
        lambda: store.swap("nightly", expected=None, replacement=NIGHTLY),
    ]
    for call in calls:
        with pytest.raises(StoreError, match=r"SqlStore\.create makes the tables") as caught:
            call()
        assert caught.value.definite
    store.close()


def test_missing_sqlite_file_is_not_an_empty_database(tmp_path: Path) -> None:
    """A volume that is not mounted must not look like an agent without jobs."""
    store = SqlStore(f"sqlite:///{tmp_path}/jobs.db")
    with pytest.raises(
        StoreError, match=r"cannot be read.*no such file, and SqlStore\.create makes one"
    ) as caught:
        store.load_all()
    assert caught.value.definite
    assert not (tmp_path / "jobs.db").exists()
    with pytest.raises(StoreError, match="cannot be made"):
        SqlStore.create(f"sqlite:///{tmp_path}/elsewhere/jobs.db")


def test_sqlite_file_is_its_owners_alone(tmp_path: Path) -> None:
    """Prompts are nobody else's business; a name with anything in it is a name."""
    path = tmp_path / "a b%20?c#d.db"
    store = SqlStore.create(make_url("sqlite://").set(database=str(path)))
    add(store, NIGHTLY)
    store.close()
    assert path.stat().st_mode & 0o777 == 0o600


@contextmanager
def locked(url: str, table: str) -> Iterator[None]:
    """Keep others from writing to the one row of *table*."""
    engine = create_engine(url)
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(text(f"SELECT * FROM {table} FOR UPDATE"))
        yield
        connection.exec_driver_sql("ROLLBACK")
    engine.dispose()


def test_wait_for_others_is_bounded(open_store: Callable[..., SqlStore], url: str, table_prefix: str) -> None:
    """A process that holds a lock and does not go on stops writers, not readers, and not for ever."""
    store, hasty = open_store(url), open_store(url, wait_s=0.5)
    add(store, NIGHTLY)
    with locked(url, f"{table_prefix}jobs"):
        with pytest.raises(StoreError, match="lock") as caught:
            hasty.swap("nightly", expected=NIGHTLY, replacement=LATER)
        assert caught.value.definite
        assert hasty.load_all() == (NIGHTLY,)
    assert store.swap("nightly", expected=NIGHTLY, replacement=LATER)


def break_at(store: SqlStore, statement: str, how: Callable[[Any], object]) -> None:
    """Do *how* to the connection once, just before it executes *statement*."""
    engine, done = engine_of(store), []

    def before(connection: Any, words: str) -> None:
        if words.startswith(statement) and not done:
            done.append(True)
            how(connection)

    @event.listens_for(engine, "before_cursor_execute")
    def on_execute(connection: Any, _: Any, words: str, *__: Any) -> None:
        before(connection, words)

    @event.listens_for(engine, "commit")
    def on_commit(connection: Any) -> None:
        if engine.dialect.name != "sqlite":
            before(connection, "COMMIT")


def cut(url: str) -> Callable[[Any], object]:
    """Return what makes everything that follows on a connection fail, in the database itself."""

    def refuse(connection: Any) -> None:
        def decide(_: int, what: str | None, *__: object) -> int:
            return sqlite3.SQLITE_OK if what == "ROLLBACK" else sqlite3.SQLITE_DENY

        connection.connection.dbapi_connection.set_authorizer(decide)

    def terminate(connection: Any) -> None:
        number = connection.connection.dbapi_connection.info.backend_pid
        admin = create_engine(url)
        with admin.connect() as other:
            other.execute(text("SELECT pg_terminate_backend(:number, 5000)"), {"number": number})
        admin.dispose()

    return refuse if url.startswith("sqlite") else terminate


@pytest.mark.parametrize(("statement", "definite"), [("SELECT", True), ("UPDATE", True), ("COMMIT", False)])
def test_failure_says_whether_the_write_may_have_happened(
    statement: str, definite: bool, store: SqlStore, url: str
) -> None:
    """Before the commit nothing happened; from then on it may have. The next call finds a way again."""
    add(store, NIGHTLY)
    break_at(store, statement, cut(url))
    with pytest.raises(StoreError, match="cannot be written") as caught:
        store.swap("nightly", expected=NIGHTLY, replacement=LATER, outcomes=(outcome(0),))
    assert caught.value.definite is definite
    store.close()  # a refusal of SQLite's is the connection's, and would stay
    assert store.load("nightly") == NIGHTLY
    assert store.history("nightly") == ()
    assert store.swap("nightly", expected=NIGHTLY, replacement=LATER)


def test_full_database_leaves_nothing_behind(open_store: Callable[..., SqlStore], sqlite_url: str) -> None:
    """A change that does not fit is refused whole, job and outcomes, and smaller ones go on."""
    store = open_store(sqlite_url)
    add(store, NIGHTLY)
    with engine_of(store).connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")
    large = evolve(outcome(0), reason="x" * 100_000)
    with pytest.raises(StoreError, match="full") as caught:
        store.swap("nightly", expected=NIGHTLY, replacement=LATER, outcomes=(large,))
    assert caught.value.definite
    assert store.load("nightly") == NIGHTLY
    assert store.swap("nightly", expected=NIGHTLY, replacement=LATER)


def test_lost_connections_are_replaced(open_store: Callable[..., SqlStore], postgresql_url: str) -> None:
    """A server that was started again, or a network that came back, is used without a word."""
    store = open_store(make_url(postgresql_url).update_query_dict({"application_name": "lost"}))
    add(store, NIGHTLY)
    admin = create_engine(postgresql_url)
    with admin.connect() as connection:
        ended = connection.execute(
            text(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'lost'"
            )
        ).all()
    admin.dispose()
    assert len(ended) == 1
    assert store.swap("nightly", expected=NIGHTLY, replacement=LATER)
    assert store.load("nightly") == LATER


def test_machine_that_sleeps_during_a_change_does_not_block_others(
    open_store: Callable[..., SqlStore], postgresql_url: str
) -> None:
    """The server ends a change that does not go on; whoever made it learns that nothing happened."""
    sleeper, other = open_store(postgresql_url, wait_s=1.5), open_store(postgresql_url)
    add(other, NIGHTLY)
    is_asleep, wake = threading.Event(), threading.Event()

    def sleep(_: Any) -> None:
        is_asleep.set()
        assert wake.wait(30)

    break_at(sleeper, "UPDATE", sleep)
    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(
            sleeper.swap, "nightly", expected=NIGHTLY, replacement=evolve(LATER, completed=1)
        )
        assert is_asleep.wait(30)
        assert other.swap("nightly", expected=NIGHTLY, replacement=LATER)
        wake.set()
        with pytest.raises(StoreError, match="cannot be written") as caught:
            changing.result(30)
    assert caught.value.definite
    assert sleeper.load("nightly") == LATER


def test_server_that_is_not_there_is_reported_without_the_password() -> None:
    """The message goes to logs."""
    pytest.importorskip("psycopg")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        store = SqlStore(f"postgresql://agent:secret@127.0.0.1:{port}/agent")
        with pytest.raises(StoreError, match="cannot be read") as caught:
            store.load_all()
    assert caught.value.definite
    assert "secret" not in str(caught.value)
    assert f"agent:***@127.0.0.1:{port}" in str(caught.value)


# --- what is given ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "not the URL of a database"),
        ("jobs.db", "not the URL of a database.*expected one such as sqlite:///jobs.sqlite or postgresql:"),
        ("mysql://localhost/x", "expected a SQLite or a PostgreSQL database, got mysql"),
        ("sqlite://", "MemoryStore is for that"),
        ("sqlite:///:memory:", "MemoryStore is for that"),
        ("sqlite:///file:x?mode=memory&uri=true", "MemoryStore is for that"),
    ],
)
def test_database_that_is_none_is_refused(url: str, problem: str) -> None:
    """A wrong setting is found at the start and says what was expected."""
    with pytest.raises(ValueError, match=problem):
        SqlStore(url)


def test_engine_of_ones_own_stays_open(open_store: Callable[..., SqlStore], url: str) -> None:
    """An engine that the caller shares with others is the caller's to close, and is left as it was."""
    engine = create_engine(url, isolation_level="SERIALIZABLE")
    store = open_store(engine)
    add(store, NIGHTLY)
    assert store.swap("nightly", expected=NIGHTLY, replacement=LATER)
    store.close()
    assert engine.pool.checkedin() == 1
    with engine.connect() as connection:
        assert connection.get_isolation_level() == "SERIALIZABLE"
    engine.dispose()


def test_store_that_was_closed_opens_again(store: SqlStore) -> None:
    """Closing gives connections back and is no end."""
    add(store, NIGHTLY)
    store.close()
    assert store.load_all() == (NIGHTLY,)


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run *code* in a process without threads, where forking is safe."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_process_gets_connections_of_its_own(store: SqlStore, url: str, table_prefix: str) -> None:
    """Parent and child go on with the store that the parent opened, and neither disturbs the other."""
    add(store, NIGHTLY)
    done = run_python(
        """
        import os, sys
        from msgspec.structs import replace as evolve
        from chronos.stores import SqlStore

        store = SqlStore(sys.argv[1], table_prefix=sys.argv[2])
        job = store.load("nightly")
        child = os.fork()
        mine = evolve(job, id="child" if child == 0 else "parent")
        for _ in range(5):
            assert store.swap(mine.id, expected=None, replacement=mine)
            assert store.load(mine.id) == mine
            assert store.swap(mine.id, expected=mine, replacement=None)
        if child:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert store.load_all() == (job,)
        store.close()
        """,
        url,
        table_prefix,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_connection_in_use_is_left_to_the_parent(store: SqlStore, url: str, table_prefix: str) -> None:
    """A child that is forked in the middle of a parent's change neither uses nor ends its connection."""
    add(store, NIGHTLY)
    done = run_python(
        """
        import os, sys
        from msgspec.structs import replace as evolve
        from sqlalchemy import event
        from chronos.stores import SqlStore

        store = SqlStore(sys.argv[1], table_prefix=sys.argv[2])
        job = store.load("nightly")
        later = evolve(job, revision=job.revision + 1)

        @event.listens_for(store._database.engine, "before_cursor_execute")
        def fork(connection, cursor, statement, *rest):
            if statement.startswith("UPDATE"):
                child = os.fork()
                if child == 0:
                    assert store.load("nightly") == job
                    os._exit(7)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7

        assert store.swap("nightly", expected=job, replacement=later)
        assert store.load("nightly") == later
        store.close()
        """,
        url,
        table_prefix,
    )
    assert done.returncode == 0, done.stderr


def test_libraries_are_loaded_when_the_store_is() -> None:
    """Neither SQLAlchemy nor cattrs comes with a store that needs none."""
    done = run_python(
        """
        import json, sys
        import chronos.stores, chronos.stores.memory, chronos.stores.json_file, chronos.stores.conformance
        before = set(sys.modules)
        from chronos.stores import SqlStore
        print(json.dumps([sorted(before), sorted(sys.modules)]))
        """
    )
    before, after = map(set, json.loads(done.stdout))
    assert not before & {"sqlalchemy", "cattrs", "psycopg"}
    assert after >= {"sqlalchemy", "cattrs"}


def test_missing_library_is_told_by_the_name_of_its_extra() -> None:
    """Who has not installed what the store needs is told what to install."""
    done = run_python(
        """
        import sys
        sys.modules["sqlalchemy"] = None
        from chronos.stores import SqlStore
        """
    )
    assert done.returncode == 1
    assert "SqlStore needs the extra `sql` of chronos-cron" in done.stderr


def test_missing_driver_is_told_by_the_name_of_its_extra() -> None:
    """The other database needs one more than SQLite does."""
    done = run_python(
        """
        import sys
        sys.modules["psycopg"] = None
        from chronos.stores import SqlStore
        SqlStore("postgresql://agent@db.example/agent")
        """
    )
    assert done.returncode == 1
    assert "ImportError" in done.stderr
    assert "PostgreSQL needs the extra `postgresql` of chronos-cron" in done.stderr
