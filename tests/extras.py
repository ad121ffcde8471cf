"""Does each extra install, and do what the README says it is for? `python -m tests.extras [EXTRA...]`.

The source distribution is built and unpacked, and from there each extra is installed into an environment
of its own: what is missing in the one or the other is missed here. `bare` is the package without an
extra. This installs packages and runs the tests once, which takes some minutes; it is no test itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parent.parent

# Longer than the tests take on a busy machine.
PATIENCE_S = 3600

# A job that runs once, by whatever store is made before.
RUNS_A_JOB = """
from chronos import Scheduler

ran = []
scheduler = Scheduler(store, None, ran.append)
assert scheduler.create("job", "every 1h", data={"to": ["me"]}).settled
scheduler.run_now("job")
assert not [each for each in scheduler.drain(30) if each.is_busy]
(outcome,) = scheduler.history("job")
assert outcome.result == "completed", outcome
assert [context.data for context in ran] == [{"to": ["me"]}], ran
"""
BARE = """
import chronos, chronos.provider, chronos.testing, json, pathlib, simulator

for name in chronos.__all__:
    getattr(chronos, name)
for folder, names in (
    (chronos, "plugin.yaml py.typed"),
    (simulator, "py.typed fleets/fleet-01.json scenarios/l5.toml scenarios/t1.json"),
    (simulator, "incidents/chain.py own/loading.py"),
):
    for name in names.split():
        assert (pathlib.Path(folder.__file__).parent / name).is_file(), name
try:
    chronos.SqlStore
except ImportError as error:
    assert "extra `sql`" in str(error), error
else:
    raise AssertionError("SqlStore needs no extra")
store = chronos.JsonFileStore.create("jobs.json")
"""
SQLITE = "from chronos import SqlStore\nstore = SqlStore.create('sqlite:///jobs.sqlite')\n"
# The server comes from the operating system; without one, the driver at least finds that there is none.
POSTGRESQL = """
import contextlib
from chronos import SqlStore, StoreError
from tests import postgres

if postgres.missing():
    try:
        SqlStore.create("postgresql://me@127.0.0.1:1/jobs", wait_s=1)
    except StoreError as error:
        raise SystemExit(0) from error
running = contextlib.ExitStack()
store = SqlStore.create(running.enter_context(postgres.running()))
"""
DASK = """
import distributed
from simulator.__main__ import main

cluster = distributed.LocalCluster(
    n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
)
with cluster:
    swept = main(["sweep", "quiet-month", "--days", "2", "--seeds", "4", "--dask", cluster.scheduler_address])
assert swept == 0, swept
"""
TELEMETRY = """
from chronos import MemoryStore
from chronos.agent import telemetry

assert telemetry.hook() is not None
store = MemoryStore()
"""


@attrs.frozen
class Place:
    """Where an extra is tried: its environment, the sources, and an empty folder."""

    environment: Path
    sources: Path
    empty: Path

    def python(self, *arguments: str, in_sources: bool = False, status: int = 0) -> str:
        """Run Python there, and return what it prints."""
        command = [str(self.environment / "bin" / "python"), *arguments]
        return run(command, self.sources if in_sources else self.empty, status=status)


def run(command: list[str], folder: Path, *, status: int = 0) -> str:
    """Run a program that must end with that status, and return what it prints."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command,
        cwd=folder,
        env=clean | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    if done.returncode != status:
        told = f"{done.stdout}\n{done.stderr}"[-4000:]
        raise AssertionError(f"{' '.join(command)[:200]} ended with {done.returncode}\n{told}")
    return done.stdout + done.stderr


def _bare(place: Place) -> None:
    place.python("-c", BARE + RUNS_A_JOB)
    assert "extra `simulator`" in place.python("-m", "simulator", "list", status=2)


def _simulator(place: Place) -> None:
    place.python("-m", "simulator", "list")
    assert "verdict    ok" in place.python("-m", "simulator", "run", "--days", "20")
    place.python("-m", "simulator", "check", "--limit", "500", status=3)


def _dask(place: Place) -> None:
    """Sweep on a cluster of its own."""
    place.python("-c", DASK)


def _docs(place: Place) -> None:
    site = str(place.empty / "site")
    place.python("-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", site, in_sources=True)
    assert (place.empty / "site" / "reference" / "protocol.html").is_file()


def _example(place: Place) -> None:
    """Start the agent that the README names, and wait for a run of its job."""
    command = [str(place.environment / "bin" / "python"), str(place.sources / "docs/examples/agent.py")]
    told = place.empty / "told"
    with told.open("w") as output:
        agent = subprocess.Popen(
            command,
            cwd=place.empty,
            env=os.environ | {"PORT": "18765"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline_s = time.monotonic() + 60
        while "agent: tick of" not in told.read_text():
            assert agent.poll() is None, told.read_text()
            assert time.monotonic() < deadline_s, told.read_text()
            time.sleep(0.2)
    finally:
        agent.terminate()
        agent.wait(60)


def _dev(place: Place) -> None:
    place.python("-m", "ruff", "check", ".", in_sources=True)
    place.python("-m", "ruff", "format", "--check", ".", in_sources=True)
    place.python("-m", "mypy", in_sources=True)


PROOFS: Mapping[str, Callable[[Place], object]] = {
    "bare": _bare,
    "sql": lambda place: place.python("-c", SQLITE + RUNS_A_JOB),
    "postgresql": lambda place: place.python("-c", POSTGRESQL + RUNS_A_JOB, in_sources=True),
    "telemetry": lambda place: place.python("-c", TELEMETRY + RUNS_A_JOB),
    "example": _example,
    "simulator": _simulator,
    "dask": _dask,
    "docs": _docs,
    "dev": _dev,
    "test": lambda place: place.python("-m", "pytest", "-q", in_sources=True),
}
"""What each extra is for, as something that works with it and with nothing else; the longest last."""


def unpacked(folder: Path) -> Path:
    """Build the source distribution, and return where it was unpacked."""
    environment = folder / "builder"
    run([sys.executable, "-m", "venv", str(environment)], folder)
    run([str(environment / "bin" / "pip"), "install", "--quiet", "hatchling"], folder)
    python = str(environment / "bin" / "python")
    run([python, "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder)], ROOT)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def try_out(extra: str, sources: Path, folder: Path) -> None:
    """Install an extra, and let it do what it is for.

    Raises:
        AssertionError: it does not; the message has what was printed.
    """
    place = Place(folder / "environment", sources, folder / "empty")
    place.empty.mkdir(parents=True)
    run([sys.executable, "-m", "venv", str(place.environment)], folder)
    wanted = str(sources) if extra == "bare" else f"{sources}[{extra}]"
    place.python("-m", "pip", "install", "--quiet", wanted)
    PROOFS[extra](place)


def main(extras: list[str]) -> int:
    """Try the extras, and print a line for each; return how many do not do what they are for."""
    if unknown := sorted(set(extras) - PROOFS.keys()):
        print(f"no such extra: {', '.join(unknown)}; expected {', '.join(PROOFS)}", file=sys.stderr)
        return 2
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sources = unpacked(folder)
        for extra in extras or PROOFS:
            try:
                try_out(extra, sources, folder / extra)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                failed += 1
                print(f"{extra:<12} failed: {error}", flush=True)
            else:
                print(f"{extra:<12} ok", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
