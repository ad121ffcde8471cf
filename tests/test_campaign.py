"""Campaigns: the same results wherever they are worked out, and kept through whatever ends them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulator.__main__ import main
from simulator.campaign import perform
from simulator.cells import Variation, cells_of
from simulator.report.campaigns import Table, interval
from tests.processes import group, simulator

SMALL = ("sweep", "naive-agent", "--days", "2", "--vary", "faults=none,heavy", "--seeds", "6")
LONG = ("sweep", "naive-agent", "--days", "10", "--seeds", "30")


def swept(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the table of a sweep in which something was violated."""
    assert main(arguments) == 1
    return capsys.readouterr().out


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def table() -> str:
    """The table of the small campaign, worked out in this process and in the order of its seeds."""
    return worked_out(2, [Variation.of("faults=none,heavy")], seeds=6)


@pytest.fixture(scope="module")
def long_table() -> str:
    """The table of the long one."""
    return worked_out(10, [], seeds=30)


def worked_out(days: int, varied: list[Variation], *, seeds: int) -> str:
    cells, _ = cells_of(["naive-agent"], ["--days", str(days)], varied)
    whole = Table(cells, range(seeds))
    for task in whole.missing():
        whole.add(perform(tuple(cell.plan for cell in cells), task).outcome)
    return "".join(f"{line}\n" for line in whole.lines())


# --- where it is worked out -------------------------------------------------------------------


def test_workers_give_the_table_of_one_process(capsys: pytest.CaptureFixture[str], table: str) -> None:
    """Whatever comes first, and however many they are."""
    assert swept(capsys, *SMALL) == table
    assert swept(capsys, *SMALL, "--workers", "3") == table


@pytest.fixture
def cluster() -> Iterator[str]:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as local:
        yield local.scheduler_address


@pytest.mark.filterwarnings("default")
def test_dask_cluster_gives_the_table_of_one_process(
    cluster: str, capsys: pytest.CaptureFixture[str], table: str, tmp_path: Path
) -> None:
    """And keeps the lines that processes of this machine keep, but for their order."""
    assert swept(capsys, *SMALL, "--dask", cluster, "--results", str(tmp_path / "dask")) == table
    assert swept(capsys, *SMALL, "--results", str(tmp_path / "here")) == table

    def key(line: dict[str, Any]) -> tuple[int, int]:
        return line["cell"], line["seed"]

    one, other = (sorted(lines_of(tmp_path / name), key=key) for name in ("dask", "here"))
    assert one == other


# --- going on ---------------------------------------------------------------------------------


def wait_for_lines(path: Path, least: int) -> None:
    deadline_s = time.monotonic() + 30
    while not path.exists() or path.read_bytes().count(b"\n") < least:
        assert time.monotonic() < deadline_s, "no results"
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are read from /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_interrupted_sweep_goes_on(
    number: signal.Signals, capsys: pytest.CaptureFixture[str], tmp_path: Path, long_table: str
) -> None:
    """Its workers end with it, what they finished is kept, and none of that is simulated again."""
    kept = tmp_path / "kept"
    running = simulator(*LONG, "--results", str(kept))
    wait_for_lines(kept / "results.jsonl", 3)
    (os.kill if number == signal.SIGKILL else os.killpg)(running.pid, number)
    _, told = running.communicate(timeout=30)
    deadline_s = time.monotonic() + 5
    while group(running.pid) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not group(running.pid)
    before = lines_of(kept)
    assert 3 <= len(before) < 30
    if number == signal.SIGINT:
        hint = f"{len(before)} of 30 simulations are in {kept}, the same command goes on"
        assert (running.returncode, told) == (130, f"simulator: interrupted; {hint}\n")
    assert swept(capsys, *LONG, "--results", str(kept)) == long_table
    after = lines_of(kept)
    assert after[: len(before)] == before
    assert sorted(line["seed"] for line in after) == list(range(30))


def test_finished_sweep_is_told_without_a_simulation(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """So are some of its seeds; more of them are simulated, and no others."""
    assert swept(capsys, *SMALL, "--results", str(tmp_path)) == table
    monkeypatch.setattr("simulator.executors.finished", None)
    assert swept(capsys, *SMALL, "--results", str(tmp_path)) == table
    fewer = swept(capsys, *SMALL[:-1], "3", "--seed", "2", "--results", str(tmp_path))
    monkeypatch.undo()
    assert fewer == swept(capsys, *SMALL[:-1], "3", "--seed", "2")
    swept(capsys, *SMALL[:-1], "8", "--results", str(tmp_path))
    assert len(lines_of(tmp_path)) == 16


def test_torn_line_is_simulated_again(capsys: pytest.CaptureFixture[str], tmp_path: Path, table: str) -> None:
    """Cut within a line, at each of some places; and a line that is there twice counts once."""
    swept(capsys, *SMALL, "--results", str(tmp_path))
    path = tmp_path / "results.jsonl"
    whole = path.read_bytes()
    for size in (len(whole) - 1, len(whole) - 200, 5, 0):
        path.write_bytes(whole[:size])
        assert swept(capsys, *SMALL, "--results", str(tmp_path)) == table
        assert len(lines_of(tmp_path)) == 12
    path.write_bytes(whole + whole + b"\0" * 100_000)
    assert swept(capsys, *SMALL, "--results", str(tmp_path)) == table


# --- what is told -----------------------------------------------------------------------------


def test_each_failure_comes_with_the_command_that_shows_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The least history of a violation, and the seed that lost most."""
    path = tmp_path / "table.json"
    table = swept(capsys, *SMALL, "--json", str(path))
    told = json.loads(path.read_text())
    assert [cell["label"] for cell in told["cells"]] == ["faults=none", "faults=heavy"]
    assert all(cell["simulations"] == 6 for cell in told["cells"])
    violated = [each for each in told["failures"] if each["kind"] == "violated"]
    lost = [each for each in told["failures"] if each["kind"] == "lost"]
    assert violated
    assert lost
    assert all(each["command"] in table for each in told["failures"])
    assert main(shlex.split(violated[0]["command"])[3:]) == 1
    assert violated[0]["cause"] in capsys.readouterr().out
    main(shlex.split(lost[0]["command"])[3:])
    assert lost[0]["cause"] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        (0, 10, 0.0, 0.27753),
        (10, 10, 0.72247, 1.0),
        (5, 10, 0.23659, 0.76341),
        (1, 100, 0.00177, 0.05449),
        (0, 0, 0.0, 1.0),
    ],
)
def test_interval_is_that_of_wilson(count: int, total: int, low: float, high: float) -> None:
    """By values worked out from the quadratic equation that the interval solves."""
    assert interval(count, total) == pytest.approx((low, high), abs=1e-5)


def test_interval_solves_its_equation() -> None:
    """At each end the observed rate is as many standard errors off as 95 % allow."""
    for count, total in ((3, 17), (1, 2000), (700, 800)):
        for end in interval(count, total):
            off = (count / total - end) ** 2 / (end * (1 - end) / total)
            assert off == pytest.approx(1.959963984540054**2)


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("yaer",), "there is no scenario 'yaer'"),
        (("--vary", "fault=none,heavy"), "--fault: expected FAULT=CHANCE"),
        (("--vary", "faultz=none,heavy"), "--vary: there is no option 'faultz'"),
        (("--vary", "seed=1,2"), "--vary: there is no option 'seed'"),
        (("--vary", "faults=none"), "expected OPTION=VALUE,VALUE"),
        (("--vary", "faults=none,none"), "with different values"),
        (("--vary", "faults"), "expected OPTION=VALUE,VALUE"),
        (("--vary", "faults=none,havy"), "'havy', expected one of"),
        (("--vary", "wire=yes,maybe"), "expected yes,no"),
        (("--vary", "faults=none,heavy", "--vary", "faults=none,light"), "faults is varied twice"),
        (("--vary", "days=" + ",".join(map(str, range(1, 1003)))), "1000 cells at most"),
        (("all", "--seeds", "10000000"), "10,000,000 simulations at most"),
        (("--seeds", "0"), "expected a whole number"),
        (("--workers", "0"), "expected a whole number"),
        (("--workers", "2", "--dask", "tcp://127.0.0.1:8786"), "--workers is of this machine"),
        (("--dask", "127.0.0.1"), "expected an address such as"),
        (("--jobs", "-"), "expected a file"),
        (("--seeds", "2", "--results", "/proc/none"), "--results /proc/none: cannot be written"),
        (("--seeds", "2", "--json", "/none/table.json"), "there is no folder"),
    ],
)
def test_bad_usage_is_told_in_one_line(
    arguments: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is simulated."""
    assert main(("sweep", *arguments)) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("simulator: error: ")
    assert problem in told.err
    assert told.err.count("\n") == 1


@pytest.mark.filterwarnings("default")
def test_silent_address_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody listens there."""
    pytest.importorskip("distributed")
    assert main(("sweep", "--dask", "tcp://127.0.0.1:1")) == 2
    told = capsys.readouterr().err
    assert told.startswith("simulator: error: --dask tcp://127.0.0.1:1: no scheduler answers")
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (("quiet-month",), "its cells are naive-agent, and not quiet-month"),
        (("naive-agent", "--vary", "nas=minimal,hardened"), "its cells are naive-agent, and not nas=minimal"),
        (("naive-agent", "--days", "3"), "--days 2 --faults none, and not by naive-agent --days 3"),
    ],
)
def test_another_campaign_is_refused(
    other: tuple[str, ...], difference: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """By what differs; the folder stays as it is."""
    first = ("sweep", "naive-agent", "--seeds", "2", "--days", "2", "--faults", "none")
    assert main((*first, "--results", str(tmp_path))) == 0
    before = (tmp_path / "results.jsonl").read_bytes()
    capsys.readouterr()
    shared = ("--faults", "none", "--seeds", "2", *(() if "--days" in other else ("--days", "2")))
    assert main(("sweep", *other, *shared, "--results", str(tmp_path))) == 2
    assert difference in capsys.readouterr().err
    assert (tmp_path / "results.jsonl").read_bytes() == before


def test_another_version_or_other_jobs_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Their results are those of another world."""
    first = ("sweep", "quiet-month", "--days", "2", "--seeds", "2", "--results", str(tmp_path))
    assert main(first) == 0
    path = tmp_path / "campaign.json"
    kept = path.read_text()
    whole = json.loads(kept)
    path.write_text(kept.replace(whole["source"], "0" * 64))
    assert main(first) == 2
    assert "another version of this program" in capsys.readouterr().err
    path.write_text(kept.replace(whole["cells"][0]["plan"], "0" * 64))
    assert main(first) == 2
    assert "the jobs of quiet-month were others" in capsys.readouterr().err


def test_folder_of_somebody_else_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Nothing is put beside other files, and a result that is none is told with its line."""
    (tmp_path / "notes").touch()
    assert main((*SMALL, "--results", str(tmp_path))) == 2
    assert "it has notes" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]
    swept(capsys, *SMALL, "--results", str(tmp_path / "kept"))
    path = tmp_path / "kept" / "results.jsonl"
    path.write_bytes(b"{}\n" + path.read_bytes())
    assert main((*SMALL, "--results", str(tmp_path / "kept"))) == 2
    assert "results.jsonl, line 1: " in capsys.readouterr().err
