"""How Hypothesis searches, and the stores that tests are run against.

Hypothesis searches always the same way in CI, and for long with `--hypothesis-profile long`.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from chronos.stores import JobStore, JsonFileStore, MemoryStore, SqlStore
from tests import agents, postgres

# No deadline: a machine under load is slow, and that is no failure of the code under test.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.register_profile(
    "long",
    deadline=None,
    max_examples=5_000,
    stateful_step_count=200,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# One server of a session may be used by tests that know nothing of each other.
_PREFIXES = (f"t{number}_" for number in count())


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """The URL of a database on a server of this session's own; each test must use names of its own."""
    problem = postgres.missing()
    if problem is not None:
        if postgres.is_required():
            pytest.fail(problem, pytrace=False)
        pytest.skip(problem)
    with postgres.running() as url:
        yield url


@pytest.fixture
def table_prefix() -> str:
    """What the names of no other test's tables begin with."""
    return next(_PREFIXES)


MakeStore = Callable[..., JobStore]


@pytest.fixture(params=["memory", "json file", "sqlite", "postgresql"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeStore]:
    """Return what makes a new, empty store of each kind, whatever it is asked to keep."""
    numbers = count()
    with ExitStack() as stack:

        def sql(url: str, **options: int) -> SqlStore:
            store = SqlStore.create(url, table_prefix=next(_PREFIXES), **options)
            stack.callback(store.close)
            return store

        makers: dict[str, MakeStore] = {
            "memory": MemoryStore,
            "json file": lambda **options: JsonFileStore.create(
                tmp_path / f"jobs-{next(numbers)}.json", **options
            ),
            "sqlite": lambda **options: sql(f"sqlite:///{tmp_path}/jobs-{next(numbers)}.db", **options),
            "postgresql": lambda **options: sql(request.getfixturevalue("postgresql_url"), **options),
        }
        if request.param == "postgresql":
            request.getfixturevalue("postgresql_url")  # before the test, so that it is skipped as a whole
        yield makers[request.param]


@pytest.fixture
def store(make_store: MakeStore) -> JobStore:
    """An empty store of each kind."""
    return make_store()


@pytest.fixture(autouse=True)
def _no_agent_is_left() -> Iterator[None]:
    """A test ends what it began: an agent that is left tries for ever, in the middle of other tests."""
    before = set(threading.enumerate())
    yield
    agents.until(lambda: not agents.threads_of_agents() - before)


@pytest.fixture(params=agents.KINDS)
def make_world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[agents.MakeWorld]:
    """Return what makes a world of agents of each kind, in which a follow-up does not wait long."""
    monkeypatch.setattr("chronos.protocol.follow_ups.FOLLOW_UP_DELAYS_US", (10_000, 10_000, 10_000))
    monkeypatch.setattr("chronos.protocol.state.DRAINING_DELAY_US", 10_000)
    with agents.worlds(request.param) as make:
        yield make


@pytest.fixture
def free_port() -> int:
    """A port of the loopback interface that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which tests were not run for want of a server: a short summary leaves out why."""
    problem = postgres.missing()
    if problem is None:
        return
    reports = terminalreporter.stats.get("skipped", [])
    skipped = sum(isinstance(report.longrepr, tuple) and problem in report.longrepr[2] for report in reports)
    if skipped:
        terminalreporter.write_line(f"{skipped} tests were skipped: {problem}", yellow=True)
