"""`python -m simulator`, as a stranger uses it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from chronos.jobs.instants import parse_instant
from simulator import people
from simulator.__main__ import main
from simulator.fleet import load_file
from simulator.history import Kind, render
from simulator.report.terminal import counted
from tests.processes import in_shell, simulator

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
    "no time stamp that a record needs": (
        json.dumps({"jobs": [{**JOB, "next_run_at": None, "created_at": None}]}),
        ["job-07", "next_run_at", "--start"],
    ),
    "id that is no text": (with_job(id=5), ["expected text, got 5"]),
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


def test_start_is_named_only_where_it_mends_something(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What else is wrong is told without it; what lacks a time stamp runs with it."""
    path = tmp_path / "jobs.json"
    path.write_text(json.dumps({"jobs": [{**JOB, **schedule(expr="61 * * * *")}]}))
    assert "--start" not in refused(capsys, "run", "--jobs", str(path))
    path.write_text(json.dumps({"jobs": [{**JOB, "next_run_at": None, "created_at": None}]}))
    assert main(["run", "--jobs", str(path), "--days", "1", "--start", "2026-06-25T09:00:00+02:00"]) == 0


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
        ["--versoin"],
        ["--faults", "heavy"],
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
        ["run", "--store", "json"],
        ["run", "--wire-faults"],
        ["run", "--wire", "--store", "jsom"],
        ["run", "naive-agent", "--wire"],
        ["run", "--wire", "--agent", "naive"],
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
    assert main(["run", "naive-agent", "--days", "10", "--seed", "2", "--json", str(path)]) == 1
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
    assert (report["scenario"], report["seed"], report["verdict"]) == ("naive-agent", 2, "violated")
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


def test_one_of_a_kind_is_no_plural(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A summary says 1 job and 2 jobs, and groups the digits of large numbers."""
    path = tmp_path / "jobs.json"
    path.write_text(with_job())
    assert main(["run", "--jobs", str(path), "--days", "1"]) == 0
    out = capsys.readouterr().out
    for words in (": 1 job of ", " 1 day from ", ", 1 machine\n", " 1 delivery\n"):
        assert words in out
    assert [counted(count, "loss") for count in (0, 1, 1200)] == ["0 losses", "1 loss", "1,200 losses"]


def test_history_tells_requests_and_counts_in_words() -> None:
    """What was asked for, and how many occurrences ended, is no number to look up."""
    told = {render(0, Kind.CHANGED, number).partition("  ")[2] for number in people._WORDS.values()}
    asked = ("pause the job", "resume the job", "remove the job", "create the job", "edit the job")
    assert told == {f"somebody asks to {each}" for each in (*asked, "run the job now")}
    for intent, number in people._WORDS.items():
        assert intent.__name__[:3].lower() in render(0, Kind.CHANGED, number).partition("asks")[2]
    assert render(0, Kind.OUTCOME, 1).endswith("  an occurrence ends")
    assert render(0, Kind.OUTCOME, 1200).endswith("  1,200 occurrences end")


@pytest.mark.parametrize("kind", Kind)
def test_every_entry_of_the_history_can_be_read(kind: Kind) -> None:
    """Each kind has words, in which no place is left open."""
    assert "{" not in render(0, kind, 1)


# --- as a process of its own -------------------------------------------------------------------


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


QUIET = ("run", "quiet-month", "--days", "1")
VIOLATED = ("run", "naive-agent", "--days", "10", "--seed", "2")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (QUIET, 0),
        (VIOLATED, 1),
        ((*QUIET, "--json", "-"), 0),
        ((*VIOLATED, "--json", "-"), 1),
        (("list",), 0),
    ],
    ids=["ok", "violated", "ok as JSON", "violated as JSON", "list"],
)
def test_reader_that_leaves_changes_no_verdict(arguments: tuple[str, ...], status: int) -> None:
    """`| head -1` is an ordinary way to read a summary; the status is that of the simulation."""
    running = simulator(*arguments)
    assert running.stdout is not None
    running.stdout.close()
    _, told = running.communicate(timeout=60)
    assert (running.returncode, told) == (status, "")


def test_reader_that_leaves_takes_nothing_from_the_file(tmp_path: Path) -> None:
    """What is written as JSON is written, whoever has read how much of the summary."""
    report = tmp_path / "report.json"
    running = simulator(*QUIET, "--json", str(report))
    assert running.stdout is not None
    running.stdout.close()
    running.communicate(timeout=60)
    assert json.loads(report.read_text())["verdict"] == "ok"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    "arguments", ["list", "--help", "run quiet-month --days 1", "run quiet-month --days 1 --json -"]
)
@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
def test_output_that_cannot_be_written_is_told_in_one_line(arguments: str, redirection: str) -> None:
    """A full disk and a closed output are status 2: 1 would say that a property was violated."""
    ended = in_shell(f"{arguments} {redirection}")
    assert ended.returncode == 2
    assert ended.stderr.startswith("simulator: error: the output cannot be written: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_error_that_nobody_can_be_told_keeps_its_status(redirection: str) -> None:
    """Without a place for the line, the status says it, and the output stays clean."""
    ended = in_shell(f"rum {redirection}")
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", "")


def test_missing_extra_is_named_in_one_line(tmp_path: Path) -> None:
    """Who installed the library alone reads what to install."""
    (tmp_path / "rich.py").write_text("raise ModuleNotFoundError(\"No module named 'rich'\", name='rich')\n")
    ended = in_shell("list", PYTHONPATH=str(tmp_path))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "rich is not installed" in ended.stderr
    assert "pip install 'chronos-cron[simulator]'" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_interrupt_during_the_imports_is_answered_like_any_other(tmp_path: Path) -> None:
    """Ctrl-C before the command line has been imported is one line and status 130, too."""
    (tmp_path / "rich.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    ended = in_shell("list", PYTHONPATH=str(tmp_path))
    assert (ended.returncode, ended.stdout) == (130, "")
    assert ended.stderr == "simulator: interrupted; nothing was written\n"
