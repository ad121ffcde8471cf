"""`python -m chronos`: tells of the jobs in a store, from the store alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock

from chronos import Job, JobState, Policy, SqlStore, clock
from chronos.__main__ import main
from chronos.cli.survey import past, upcoming
from chronos.jobs.instants import HOUR_US, MINUTE_US, format_instant, parse_instant
from chronos.jobs.job import Origin, Outcome, Result, Run, Waiting
from chronos.jobs.schedule import Cron, Interval, Once
from chronos.stores.json_file import JsonFileStore
from chronos.values import evolve
from tests.processes import in_shell
from tests.test_command_line import BROKEN, JOB, with_job

DAILY = {"kind": "cron", "expr": "0 5 * * *"}
AHEAD = "2090-01-01T05:00:00+01:00"
AHEAD_US = parse_instant("2090-01-01T00:00:00+00:00")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    told = capsys.readouterr()
    return status, told.out, told.err


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    path = tmp_path / "jobs.json"
    records = [
        {
            **JOB,
            "id": "daily",
            "next_run_at": "2090-01-01T05:00:00+01:00",
            "schedule": {"kind": "cron", "expr": "0 5 * * *", "tz": "Europe/Berlin"},
        },
        {**JOB, "id": "late", "next_run_at": "2026-01-01T05:00:00+01:00"},
        {**JOB, "id": "paused", "state": "paused", "enabled": False, "paused_reason": "waiting for access"},
        {
            **JOB,
            "id": "odd-step",
            "next_run_at": "2090-01-01T05:00:00+01:00",
            "schedule": {"kind": "cron", "expr": "*/90 * * * *"},
        },
    ]
    path.write_text(json.dumps({"jobs": records, "updated_at": "2026-06-25T09:00:00+02:00"}))
    return path


def test_good_file_is_good_and_told_of_what_is_not_as_it_seems(
    jobs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 0; a step larger than its field is a remark."""
    status, out, told = run(capsys, "validate", str(jobs))
    assert (status, told) == (0, "")
    first, *remarks = out.splitlines()
    assert first == f"{jobs}: 4 jobs, all good"
    assert [line.partition(": job odd-step: ")[0] for line in remarks] == ["remark"]
    values = json.loads(run(capsys, "validate", str(jobs), "--json")[1])
    assert (values["is_good"], values["jobs"], values["problems"]) == (True, 4, [])
    assert [each["job_id"] for each in values["remarks"]] == ["odd-step"]


def test_every_odd_record_is_told_with_its_field(jobs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of them and not only the first, a history as well as a record; the good ones are told of, too."""
    document = json.loads(jobs.read_text())
    document["jobs"] += [
        {**JOB, "id": "no-such-minute", "schedule": {"kind": "cron", "expr": "61 * * * *"}},
        {**JOB, "id": 5},
        "no record",
        {**JOB, "id": "odd-history", "chronos": {"history": [{"result": "great"}]}},
    ]
    jobs.write_text(json.dumps(document))
    fields = {"no-such-minute": "schedule.expr", "#5": "id", "#6": None, "odd-history": "chronos.history[0]."}
    for command in ("validate", "next", "status"):
        status, out, told = run(capsys, command, str(jobs))
        assert status == 2
        assert told.count("\n") == 4
        for line, (record, field) in zip(told.splitlines(), fields.items(), strict=True):
            assert line.startswith(f"chronos: error: {jobs}: job {record}: {field or 'expected an object'}")
        assert "4 records cannot be read" in out or "daily" in out
        values = json.loads(run(capsys, command, str(jobs), "--json")[1])
        assert [each["record"] for each in values["problems"]] == list(fields)


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("command", ["validate", "next", "status"])
def test_broken_file_is_bad_input(
    name: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that names record and field, and status 2. A file that lacks its own time stamp has one."""
    text, named = BROKEN[name]
    path = tmp_path / "jobs.json"
    path.write_text(text)
    status, _, told = run(capsys, command, str(path))
    if "time stamp that a" in name or "time stamp of" in name:
        assert (status, told) == (0, "")
        return
    assert status == 2
    assert told.count("\n") == 1
    assert all(part in told for part in ["chronos: error: ", "jobs.json", *named])


def test_next_tells_when_each_job_is_due(jobs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the job's own zone or the one that is asked for; what is past is no next time."""
    values = json.loads(run(capsys, "next", str(jobs), "--count", "2", "--json")[1])
    daily, late, paused, _ = values["jobs"]
    assert daily["next"] == ["2090-01-01T05:00:00+01:00", "2090-01-02T05:00:00+01:00"]
    assert daily["past"] is None
    assert late["past"] == "2026-01-01T05:00:00+01:00"
    assert len(late["next"]) == 2
    assert all(parse_instant(each) > clock.now_us() for each in late["next"])
    assert (paused["next"], paused["past"]) == ([], None)
    _, out, _ = run(capsys, "next", str(jobs), "--count", "1", "--tz", "Asia/Tokyo")
    assert "daily: 0 5 * * * (Europe/Berlin)\n  2090-01-01T13:00:00+09:00\nlate:" in out
    assert "paused: 0 5 * * * (+02:00)\n  paused: waiting for access\n" in out


def test_next_times_are_within_the_bounds_of_the_job() -> None:
    """Its end, and the number of its occurrences, of which some are taken."""
    hourly = Interval(period_us=HOUR_US, anchor_us=AHEAD_US)
    job = Job(id="j", schedule=hourly, next_us=AHEAD_US, policy=Policy(ends_us=AHEAD_US + 2 * HOUR_US))
    assert len(upcoming(job, 9, AHEAD_US - 1)) == 3
    job = Job(id="j", schedule=hourly, next_us=AHEAD_US, times=5, completed=2)
    assert len(upcoming(job, 9, AHEAD_US - 1)) == 3
    assert len(upcoming(job, 9, AHEAD_US)) == 2
    assert past(job, AHEAD_US) == AHEAD_US
    flying = Run(occurrence_us=AHEAD_US - HOUR_US, attempt=1, owner="o", claimed_us=0, lease_until_us=1)
    waits = Waiting(occurrence_us=AHEAD_US - 2 * HOUR_US, attempt=1, not_before_us=0, origin=Origin.SCHEDULE)
    assert len(upcoming(evolve(job, runs=(flying,), waiting=(waits,)), 9, 0)) == 1
    once = Job(id="j", schedule=Once(at_us=AHEAD_US), next_us=AHEAD_US)
    assert upcoming(once, 9, 0) == (AHEAD_US,)
    assert upcoming(once, 9, AHEAD_US) == ()
    assert upcoming(evolve(once, state=JobState.COMPLETED), 9, 0) == ()


def contents(folder: Path) -> dict[str, bytes]:
    """Return what is in *folder*, but for the memory that users of a SQLite database share."""
    return {each.name: each.read_bytes() for each in folder.iterdir() if not each.name.endswith("-shm")}


def filled(store: JsonFileStore | SqlStore) -> None:
    """Put jobs into *store*: one in flight, one that waits, one that has ended."""
    now_us = clock.now_us()
    cron = Cron(expr="0 5 * * *", tz="Europe/Berlin")
    run = Run(
        occurrence_us=now_us - now_us % 1_000_000,
        attempt=2,
        owner="m1",
        claimed_us=now_us,
        lease_until_us=now_us + MINUTE_US,
    )
    ended = Outcome(
        job_id="ended",
        result=Result.FAILED,
        reason="ValueError: no",
        occurrence_us=AHEAD_US - HOUR_US,
        last_occurrence_us=AHEAD_US - HOUR_US,
        at_us=AHEAD_US,
    )
    flying = Job(id="flying", schedule=cron, next_us=AHEAD_US, runs=(run,))
    waiting = Waiting(
        occurrence_us=AHEAD_US, attempt=2, not_before_us=AHEAD_US + MINUTE_US, origin=Origin.SCHEDULE
    )
    store.swap("flying", expected=None, replacement=flying)
    store.swap("waits", expected=None, replacement=evolve(flying, id="waits", runs=(), waiting=(waiting,)))
    store.swap("ended", expected=None, replacement=evolve(flying, id="ended", runs=()), outcomes=(ended,))


@pytest.mark.parametrize("kind", ["file", "SQLite file", "SQLite URL", "SQLite in use", "standard input"])
def test_status_tells_how_each_job_stands_whatever_the_store(kind: str, tmp_path: Path) -> None:
    """The same of a file, the standard input and a database; nothing is written, nor locked for long."""
    path = tmp_path / "jobs"
    store: JsonFileStore | SqlStore
    store = SqlStore.create(f"sqlite:///{path}") if "SQL" in kind else JsonFileStore.create(path)
    filled(store)
    if isinstance(store, SqlStore) and kind != "SQLite in use":
        store.close()
    path.with_name("jobs.lock").unlink(missing_ok=True)
    before = contents(tmp_path)
    target = {"SQLite URL": f"sqlite:///{path}", "standard input": f"- < {path}"}.get(kind, str(path))
    with FileLock(tmp_path.with_name("elsewhere") if "SQL" in kind else path.with_name("jobs.lock")):
        ended = in_shell(f"status --json --tz UTC {target}", "chronos", timeout_s=8)
        told = in_shell(f"status {target}", "chronos", timeout_s=8)
    path.with_name("jobs.lock").unlink(missing_ok=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert {
        each.name: each.read_bytes() for each in tmp_path.iterdir() if not each.name.endswith("-shm")
    } == before
    values = json.loads(ended.stdout)
    assert "NAS was not asked" in values["note"]
    flying, waits, last = values["jobs"]
    assert [each["attempt"] for each in flying["runs"]] == [2]
    assert waits["waiting"] == [
        {
            "occurrence": "2090-01-01T00:00:00+00:00",
            "attempt": 2,
            "origin": "schedule",
            "not_before": "2090-01-01T00:01:00+00:00",
        }
    ]
    assert last["last"]["result"] == "failed"
    assert last["stands"] == "must be woken at 2090-01-01T00:00:00+00:00"
    assert "  last: 2090-01-01T00:00:00+01:00 failed: ValueError: no\n" in told.stdout
    assert "  in flight since " in told.stdout
    assert "NAS was not asked" in told.stdout
    store.close() if isinstance(store, SqlStore) else None


def test_status_tells_what_is_overdue(jobs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By more than clocks may differ."""
    status, out, _ = run(capsys, "status", str(jobs))
    assert status == 0
    assert "late: overdue since 2026-01-01T05:00:00+01:00\n" in out
    assert "daily: must be woken at 2090-01-01T05:00:00+01:00\n" in out
    just_us = clock.now_us() // 1_000_000 * 1_000_000 - 5_000_000
    jobs.write_text(with_job(next_run_at=format_instant(just_us)))
    assert "job-07: must be woken at" in run(capsys, "status", str(jobs))[1]


@pytest.mark.parametrize(
    ("target", "word"),
    [
        ("sqlite:////no/such/file", "there is no such file"),
        ("sqlite://", "in memory"),
        ("mysql://x", "expected a SQLite or a PostgreSQL database"),
        ("://", "expected a URL"),
        ("postgresql://user:secret@127.0.0.1:1/x", "cannot be read"),
        ("/no/such/file", "cannot be read"),
        (".", "cannot be read"),
    ],
)
def test_store_that_cannot_be_read_is_bad_input(
    target: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, without the password."""
    status, out, told = run(capsys, "status", target)
    assert (status, out, told.count("\n")) == (2, "", 1)
    assert word in told
    assert "secret" not in told


def test_database_of_something_else_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SQLite, and not with the tables of a store."""
    import sqlite3

    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE jobs (id)")
    status, _, told = run(capsys, "status", str(tmp_path / "other.db"))
    assert status == 2
    assert "no such table" in told


def test_missing_extra_is_named(tmp_path: Path) -> None:
    """Who has the library alone reads what a database needs; a jobs file needs nothing."""
    (tmp_path / "sqlalchemy.py").write_text(
        "raise ModuleNotFoundError('No module named sqlalchemy', name='sqlalchemy')\n"
    )
    (tmp_path / "jobs.json").write_text(with_job())
    (tmp_path / "jobs.db").write_bytes(b"SQLite format 3\0")
    ended = in_shell(f"status {tmp_path}/jobs.db", "chronos", PYTHONPATH=f"{tmp_path}:{Path.cwd()}")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "needs the extra `sql` of chronos-cron" in ended.stderr
    ended = in_shell(f"status {tmp_path}/jobs.json", "chronos", PYTHONPATH=f"{tmp_path}:{Path.cwd()}")
    assert ended.returncode == 0


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="this system has no /dev/zero")
def test_input_without_an_end_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not end is no jobs file, and does not fill the memory."""
    monkeypatch.setattr("chronos.cli.options.MAX_FILE_BYTES", 2**20)
    assert main(["validate", "/dev/zero"]) == 2
    assert "/dev/zero: expected 1 MiB at most" in capsys.readouterr().err
