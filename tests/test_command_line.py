"""`python -m simulator`, as a stranger uses it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chronos.protocol.schedule import parse_instant
from simulator.__main__ import main
from simulator.fleet import load_file

JOB = {
    "id": "job-07",
    "schedule": {"kind": "cron", "expr": "0 5 * * *", "display": "daily"},
    "repeat": {"times": None, "completed": 0},
    "enabled": True,
    "state": "scheduled",
    "next_run_at": "2026-06-26T05:00:00+02:00",
    "created_at": "2026-06-01T00:00:00+02:00",
}


def with_job(**changes: object) -> str:
    return json.dumps({"jobs": [{**JOB, **changes}], "updated_at": "2026-06-25T09:00:00+02:00"})


def schedule(**changes: object) -> dict[str, object]:
    return {"schedule": {**JOB["schedule"], **changes}}  # type: ignore[dict-item]


BROKEN = {
    "not JSON": ('{"jobs": [', ["line 1"]),
    "no jobs": ('{"updated_at": "2026-06-25T09:00:00+02:00"}', ["jobs"]),
    "jobs of the wrong type": ('{"jobs": 3, "updated_at": "2026-06-25T09:00:00+02:00"}', ["jobs"]),
    "impossible cron expression": (
        with_job(**schedule(expr="61 * * * *")),
        ["job-07", "schedule.expr", "61 * * * *"],
    ),
    "day that never comes": (with_job(**schedule(expr="0 0 30 2 *")), ["job-07", "schedule.expr"]),
    "unknown time zone": (with_job(**schedule(tz="Mars/Olympus")), ["job-07", "schedule.tz", "Mars/Olympus"]),
    "naive time stamp": (with_job(next_run_at="2026-06-26T05:00:00"), ["job-07", "next_run_at", "offset"]),
    "no time stamp of the file": ('{"jobs": []}', ["updated_at", "--start"]),
}


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command line, which must refuse with one line, and return the line."""
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert told.err.startswith("simulator: error: ")
    assert "Traceback" not in told.err
    return told.err


@pytest.mark.parametrize("name", BROKEN)
def test_broken_jobs_file_is_refused_in_one_line_and_left_alone(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line names the file, the job and the field; the file stays as it is, and nothing is written."""
    text, named = BROKEN[name]
    path, report = tmp_path / "jobs.json", tmp_path / "report.json"
    path.write_text(text)
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    line = refused(capsys, "run", "--jobs", str(path), "--json", str(report))
    assert all(part in line for part in ["jobs.json", *named]), line
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert sorted(tmp_path.iterdir()) == [path]


def test_jobs_file_that_is_not_text_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes that are no UTF-8 are one clear line, too."""
    path = tmp_path / "jobs.json"
    path.write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in refused(capsys, "run", "--jobs", str(path))


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["rum"],
        ["run", "yeer"],
        ["run", "--job", "x"],
        ["run", "--jobs", "/no/such/file"],
        ["run", "--jobs", "."],
        ["run", "--start", "2026-01-01T00:00:00"],
        ["run", "--start", "yesterday"],
        ["run", "--days", "0"],
        ["run", "--days", "1.5"],
        ["run", "--days", "-3"],
        ["run", "--seed", "x"],
        ["run", "--seeds", "0"],
        ["run", "--faults", "heavey"],
        ["run", "--nas", "hard"],
        ["run", "--agent", "nave"],
        ["run", "--machines", "0"],
        ["run", "--policies", "radnom"],
        ["run", "--json", "/no/such/folder/file.json"],
        ["run", "--json", "."],
        ["run", "--start", "9899-01-01T00:00:00+00:00", "--days", "3000"],
        ["check", "--crashes", "9"],
        ["check", "--nas", "x"],
        ["list", "more"],
        ["bench", "--fast"],
    ],
    ids=" ".join,
)
def test_typo_in_an_option_is_refused_in_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is mistyped, the answer is one line and status 2."""
    refused(capsys, *arguments)


def test_summary_tells_what_a_user_wants_to_know(capsys: pytest.CaptureFixture[str]) -> None:
    """Verdict, runs by outcome, wakes, the time the machine was up, NAS calls, lateness by hop."""
    assert main(["run", "quiet-month", "--days", "2"]) == 0
    told = capsys.readouterr()
    for word in (
        "verdict    ok",
        "completed",
        "wakes",
        "always-on",
        "provision",
        "p99",
        "scheduler",
        "digest",
    ):
        assert word in told.out
    assert told.err == ""


def test_json_holds_what_is_documented(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object, with the keys that programs rely on."""
    path = tmp_path / "report.json"
    assert main(["run", "naive-agent", "--days", "10", "--seed", "1", "--json", str(path)]) == 1
    report = json.loads(path.read_text())
    assert {
        "scenario",
        "seed",
        "verdict",
        "violations",
        "simulated_seconds",
        "events",
        "fires",
        "runs",
        "wakes",
        "agent_up_seconds",
        "nas_calls",
        "lateness_ms",
        "marks",
        "digest",
    } <= set(report)
    assert (report["scenario"], report["seed"], report["verdict"]) == ("naive-agent", 1, "violated")
    assert set(report["runs"]) == {"completed", "failed", "missed", "skipped", "interrupted"}
    assert {"p50", "p99", "max"} <= set(report["lateness_ms"])
    first = report["violations"][0]
    assert {"property", "job_id", "at", "message"} <= set(first)
    assert parse_instant(first["at"])
    assert first["message"] in capsys.readouterr().out


def test_seeds_are_a_list_in_their_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sweep gives every seed what a run of that seed alone gives."""
    path = tmp_path / "report.json"
    options = ["run", "quiet-month", "--days", "1", "--faults", "heavy"]
    assert main([*options, "--seed", "3", "--seeds", "3", "--json", str(path)]) == 0
    sweep = json.loads(path.read_text())
    assert [each["seed"] for each in sweep] == [3, 4, 5]
    assert main([*options, "--seed", "4", "--json", "-"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out[out.index("{") :]) == sweep[1]


def test_start_moves_the_calendar(tmp_path: Path) -> None:
    """A jobs file starts at its `updated_at`; with --start, every job goes on from there, none overdue."""
    path = tmp_path / "jobs.json"
    path.write_text(with_job())
    assert load_file(path).start_us == parse_instant("2026-06-25T09:00:00+02:00")
    start_us = parse_instant("2030-01-01T00:00:00+00:00")
    moved = load_file(path, start_us=start_us)
    assert moved.start_us == start_us
    assert [job.next_us for job in moved.jobs] == [parse_instant("2030-01-01T03:00:00+00:00")]


def test_own_jobs_file_meets_no_faults_unless_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An operator who drops in a jobs file sees a year of it in which nothing goes wrong."""
    path = tmp_path / "jobs.json"
    path.write_text(with_job())
    assert main(["run", "--jobs", str(path)]) == 0
    out = capsys.readouterr().out
    assert "365 completed, 0 failed, 0 missed, 0 skipped, 0 interrupted" in out
    assert "faults none" in out


def test_policies_at_random_are_asked_for_by_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    """They change what happens, and nothing that must hold."""
    told = []
    for options in ([], ["--policies", "random"]):
        assert main(["run", "quiet-month", "--days", "4", "--faults", "heavy", *options]) == 0
        told.append(capsys.readouterr().out)
    assert "policies" not in told[0]
    assert "policies random" in told[1]
    digests = [next(line for line in out.splitlines() if "digest" in line) for out in told]
    assert digests[0] != digests[1]


def test_list_names_the_scenarios(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with what it shows."""
    assert main(["list"]) == 0
    assert "published-contract" in capsys.readouterr().out


def test_check_of_the_naive_agent_shows_short_histories(capsys: pytest.CaptureFixture[str]) -> None:
    """It is caught for lost re-arms and for orphans, and the status says so."""
    assert main(["check", "--agent", "naive", "--limit", "20000"]) == 1
    out = capsys.readouterr().out
    assert "NO-LOST-REARM" in out
    assert "NO-ORPHAN" in out
    assert "the shortest history" in out


def test_check_with_small_budget_is_ok(capsys: pytest.CaptureFixture[str]) -> None:
    """States, depth, rate and verdict are told."""
    assert main(["check", "--duplicates", "0", "--losses", "0"]) == 0
    out = capsys.readouterr().out
    assert "distinct states, depth" in out
    assert "states/s" in out
    assert "verdict    ok" in out


def test_check_that_gives_up_is_inconclusive(capsys: pytest.CaptureFixture[str]) -> None:
    """A limit is no proof."""
    assert main(["check", "--limit", "50"]) == 3
    assert "inconclusive" in capsys.readouterr().out


def simulator(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "simulator", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("seeds", [[], ["--seeds", "50"]], ids=["one seed", "many seeds"])
def test_interrupt_leaves_nothing_half_written(seeds: list[str], tmp_path: Path) -> None:
    """Ctrl-C in the middle is one line, status 130, and no file."""
    report = tmp_path / "report.json"
    running = simulator("run", "busy-month", "--days", "3000", *seeds, "--json", str(report))
    time.sleep(4)
    os.killpg(running.pid, signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130
    assert told == "simulator: interrupted; nothing was written\n"
    assert list(tmp_path.iterdir()) == []


def test_output_piped_to_a_reader_that_leaves_is_no_failure() -> None:
    """`| head -1` is an ordinary way to read a summary."""
    running = simulator("run", "quiet-month", "--days", "1")
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    assert running.wait(timeout=60) == 0
    assert running.stderr.read() == ""
    running.stderr.close()
