"""A store that is deleted, replaced or stopped under the process: an error, and never `settled`."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import make_url

from chronos.errors import StoreError
from chronos.jobs.instants import HOUR_US
from chronos.stores import JobStore, JsonFileStore, SqlStore
from chronos.values import evolve
from tests.agents import T0, MakeWorld, later

JOB = later("job")
CHANGED = evolve(JOB, revision=1)


def new_sqlite(directory: Path) -> SqlStore:
    return SqlStore.create(f"sqlite:///{directory}/jobs")


def new_engine(directory: Path) -> SqlStore:
    new_sqlite(directory).close()
    return SqlStore(create_engine(f"sqlite:///{directory}/jobs"))


def new_json(directory: Path) -> JsonFileStore:
    return JsonFileStore.create(directory / "jobs")


KINDS: dict[str, Callable[[Path], JobStore]] = {
    "sqlite": new_sqlite,
    "sqlite, an engine of one's own": new_engine,
    "json": new_json,
}
CALLS: dict[str, Callable[[JobStore], object]] = {
    "load": lambda store: store.load("job"),
    "load_all": lambda store: store.load_all(),
    "history": lambda store: store.history("job"),
    "latest": lambda store: store.latest(),
    "swap": lambda store: store.swap("job", expected=JOB, replacement=CHANGED),
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    return path


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, directory: Path) -> Iterator[JobStore]:
    """A store with one job, in a file named `jobs`, which has been used."""
    store = KINDS[request.param](directory)
    assert store.swap("job", expected=None, replacement=JOB)
    assert store.load("job") == JOB
    yield store
    if isinstance(store, SqlStore):
        store._database.engine.dispose()


def delete_file(directory: Path) -> None:
    (directory / "jobs").unlink()


def delete_directory(directory: Path) -> None:
    shutil.rmtree(directory)


def move_directory(directory: Path) -> None:
    directory.rename(directory.with_name("elsewhere"))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("how", [delete_file, delete_directory, move_directory])
def test_store_that_was_deleted_is_an_error(
    how: Callable[[Path], None], call: str, store: JobStore, directory: Path
) -> None:
    """Whatever is asked of it, a file that is gone is not answered from memory."""
    how(directory)
    for _ in range(2):
        with pytest.raises(StoreError) as caught:
            CALLS[call](store)
        assert caught.value.definite


@pytest.mark.parametrize("kind", ["sqlite", "sqlite, an engine of one's own"])
@pytest.mark.parametrize("call", CALLS)
def test_database_that_was_replaced_is_an_error(call: str, kind: str, directory: Path) -> None:
    """Whoever asks is told, until nothing of the file before can be mixed with the new one."""
    store = KINDS[kind](directory)
    assert store.swap("job", expected=None, replacement=JOB)
    (directory / "other").mkdir()
    with closing(new_sqlite(directory / "other")) as other:
        assert other.swap("job", expected=None, replacement=CHANGED)
    whole = (directory / "other" / "jobs").read_bytes()
    (directory / "other" / "jobs").replace(directory / "jobs")
    for _ in range(2):
        with pytest.raises(
            StoreError, match="jobs-wal beside it is of the file that was there before"
        ) as caught:
            CALLS[call](store)
        assert caught.value.definite
    assert (directory / "jobs").read_bytes() == whole
    (directory / "jobs-wal").unlink()
    (directory / "jobs-shm").unlink()
    with pytest.raises(StoreError, match="it is another file than before"):
        CALLS[call](store)
    assert store.load_all() == (CHANGED,)
    assert isinstance(store, SqlStore)
    store._database.engine.dispose()


def test_database_that_comes_back_as_a_copy_is_not_mixed_with_the_old_log(directory: Path) -> None:
    """Deleted, and restored while the process lives: the log that was left is not taken for its own."""
    store = new_sqlite(directory)
    assert store.swap("job", expected=None, replacement=JOB)
    (directory / "other").mkdir()
    with closing(new_sqlite(directory / "other")) as other:
        assert other.swap("job", expected=None, replacement=CHANGED)
    delete_file(directory)
    with pytest.raises(StoreError, match="no such file any more"):
        store.load("job")
    shutil.copy(directory / "other" / "jobs", directory / "jobs")
    with pytest.raises(StoreError, match="beside it is of the file that was there before"):
        store.load("job")
    store.close()


@pytest.mark.parametrize("kind", ["sqlite", "sqlite, an engine of one's own"])
def test_change_of_a_database_that_is_deleted_meanwhile_may_have_happened(kind: str, directory: Path) -> None:
    """The file is gone when the change is made durable: nobody is told that it is."""
    store = KINDS[kind](directory)
    assert isinstance(store, SqlStore)
    assert store.swap("job", expected=None, replacement=JOB)
    engine = store._database.engine

    def delete(_: Any, __: Any, statement: str, *___: Any) -> None:
        if statement == "COMMIT":
            (directory / "jobs").unlink()

    event.listen(engine, "before_cursor_execute", delete)
    with pytest.raises(StoreError, match="no such file any more") as caught:
        store.swap("job", expected=JOB, replacement=CHANGED)
    assert not caught.value.definite
    engine.dispose()


def test_store_heals_once_it_is_back(store: JobStore, directory: Path) -> None:
    """A volume that comes back is the store that it was."""
    move_directory(directory)
    with pytest.raises(StoreError):
        store.load("job")
    directory.with_name("elsewhere").rename(directory)
    with suppress(StoreError):  # a connection that was given back as good may have seen another file
        store.load("job")
    assert store.load("job") == JOB
    assert store.swap("job", expected=JOB, replacement=CHANGED)


def test_jobs_file_that_was_replaced_is_read_anew(directory: Path) -> None:
    """What a person puts in its place counts, and a change that has not seen it fails."""
    store = new_json(directory)
    assert store.swap("job", expected=None, replacement=JOB)
    (directory / "other").mkdir()
    other = new_json(directory / "other")
    assert other.swap("job", expected=None, replacement=CHANGED)
    (directory / "other" / "jobs").replace(directory / "jobs")
    assert not store.swap("job", expected=JOB, replacement=None)
    assert store.load_all() == (CHANGED,)


@pytest.mark.parametrize("table", ["jobs", "history"])
def test_table_that_was_dropped_is_an_error(table: str, directory: Path) -> None:
    """Also of a store that has used it before."""
    store = new_sqlite(directory)
    assert store.swap("job", expected=None, replacement=JOB)
    with store._database.engine.begin() as connection:
        connection.execute(text(f"DROP TABLE chronos_{table}"))
    for call in ("history", "latest"):
        with pytest.raises(StoreError, match=r"SqlStore\.create makes the tables"):
            CALLS[call](store)
    store.close()


def test_fire_is_not_settled_by_a_store_that_is_gone(make_world: MakeWorld, directory: Path) -> None:
    """NAS delivers it again, and what was armed stays."""
    store = new_sqlite(directory)
    assert store.swap("job", expected=None, replacement=JOB)
    world = make_world()
    world.store = store  # type: ignore[assignment]
    agent = world.another("of the database")
    assert agent.start().settled
    delete_file(directory)
    arms = dict(world.nas.arms)
    world.now_us = T0 + HOUR_US
    answer = agent.fire("job", T0 + HOUR_US)
    assert (answer.verdict, answer.settled) == (None, False)
    assert (world.nas.arms, world.ran) == (arms, [])
    store.close()


class Way:
    """A way to a server, which can be closed and opened again."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open: list[socket.socket] = []
        self._listening: socket.socket | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    @contextmanager
    def opened(self) -> Iterator[None]:
        listening = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, args=(listening,), daemon=True).start()
        try:
            yield
        finally:
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
            self._open.clear()

    def _serve(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                one, _ = listening.accept()
                other = socket.create_connection(("127.0.0.1", self._to))
                self._open += [one, other]
                for source, target in ((one, other), (other, one)):
                    threading.Thread(target=_pass_on, args=(source, target), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)


def test_server_that_is_gone_is_an_error_and_heals(postgresql_url: str, table_prefix: str) -> None:
    """While it is away, each call is an error; once it is back, it is the store that it was."""
    url = make_url(postgresql_url)
    assert url.port is not None
    way = Way(url.port)
    with way.opened():
        store = SqlStore.create(url.set(port=way.port), table_prefix=table_prefix, wait_s=2)
        assert store.swap("job", expected=None, replacement=JOB)
    for call in CALLS.values():
        with pytest.raises(StoreError) as caught:
            call(store)
        assert caught.value.definite
    with way.opened():
        assert store.load("job") == JOB
        assert store.swap("job", expected=JOB, replacement=CHANGED)
    store.close()
