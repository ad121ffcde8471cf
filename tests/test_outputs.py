"""What a command line writes: never over an input, and whole or not at all."""

from __future__ import annotations

import json
import os
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from simulator import fleet
from simulator.__main__ import main
from tests.processes import in_shell, simulator
from tests.test_command_line import refused, with_job

RUN = ("run", "--days", "1")


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    """A jobs file in a folder of its own."""
    path = tmp_path / "jobs" / "jobs.json"
    path.parent.mkdir()
    path.write_text(with_job())
    return path


def hard_link(jobs: Path) -> str:
    link = jobs.with_name("hard.json")
    link.hardlink_to(jobs)
    return str(link)


def soft_link(jobs: Path) -> str:
    link = jobs.with_name("soft.json")
    link.symlink_to(jobs)
    return str(link)


def linked_folder(jobs: Path) -> str:
    link = jobs.parent.with_name("other")
    link.symlink_to(jobs.parent)
    return str(link / jobs.name)


NAMES: dict[str, Callable[[Path], str]] = {
    "the same path": str,
    "a relative path": lambda jobs: os.path.relpath(jobs),
    "a path with ..": lambda jobs: str(jobs.parent / ".." / jobs.parent.name / jobs.name),
    "a symbolic link": soft_link,
    "a hard link": hard_link,
    "a linked folder": linked_folder,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("is_swapped", [False, True], ids=["as output", "as input"])
def test_report_is_never_written_over_the_jobs_file(
    name: str, is_swapped: bool, jobs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By whatever name or link either of them is called; and nothing is simulated."""
    text, other = jobs.read_bytes(), NAMES[name](jobs)
    given, target = (other, str(jobs)) if is_swapped else (str(jobs), other)
    line = refused(capsys, *RUN, "--jobs", given, "--json", target)
    assert "jobs file" in line
    assert target in line
    assert jobs.read_bytes() == text


@pytest.mark.parametrize("name", ["{}.lock", ".{}.next"])
@pytest.mark.parametrize("is_there", [False, True], ids=["not there", "there"])
def test_report_is_never_written_over_what_lies_beside_the_jobs_file(
    name: str, is_there: bool, jobs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new file in place of the lock would let two writers in at once."""
    target = jobs.with_name(name.format(jobs.name))
    if is_there:
        target.touch()
    line = refused(capsys, *RUN, "--jobs", str(jobs), "--json", str(target))
    assert "belongs to the store of the jobs file" in line
    assert target.exists() == is_there


@pytest.mark.parametrize("redirection", ["--json {} < {}", "--json /dev/stdin < {}", "--json /dev/fd/0 < {}"])
def test_report_is_never_written_over_the_standard_input(redirection: str, jobs: Path) -> None:
    """Which is a file like any other."""
    text = jobs.read_bytes()
    ended = in_shell(f"run --days 1 --jobs - {redirection.replace('{}', str(jobs))}")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1
    assert jobs.read_bytes() == text


@pytest.mark.parametrize(
    "redirection", [">> {}", "1<> {}", "2>> {}", "--json - >> {}", "--json /dev/stdout >> {}"]
)
@pytest.mark.parametrize("command", ["simulator", "chronos"])
def test_jobs_file_is_no_output_of_the_shell_either(redirection: str, command: str, jobs: Path) -> None:
    """A summary that is appended to it, or an error: neither is written."""
    text = jobs.read_bytes()
    arguments = f"run --days 1 --jobs {jobs}" if command == "simulator" else f"status {jobs}"
    if command == "chronos":
        redirection = redirection.replace("--json -", "--json").replace("--json /dev/stdout", "--json")
    ended = in_shell(f"{arguments} {redirection.replace('{}', str(jobs))}", command)
    assert ended.returncode == 2
    assert jobs.read_bytes() == text


def test_report_is_never_written_over_what_belongs_to_the_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even over a fleet or a module that this run does not read."""
    shipped = Path(fleet.__file__).parent / "fleets" / "fleet-01.json"
    link = tmp_path / "fleet.json"
    link.symlink_to(shipped)
    text = shipped.read_bytes()
    for target in (shipped, link, Path(fleet.__file__)):
        assert "belongs to the program" in refused(capsys, "run", "quiet-month", "--json", str(target))
    assert shipped.read_bytes() == text


def test_existing_report_is_replaced_whole_and_keeps_its_mode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By one rename: who has the old one open goes on reading it; a link stays a link."""
    report, link = tmp_path / "report.json", tmp_path / "link.json"
    report.write_text("old")
    report.chmod(0o640)
    link.symlink_to(report)
    with report.open() as opened:
        assert main(["run", "quiet-month", "--days", "1", "--json", str(link)]) == 0
        assert opened.read() == "old"
    assert json.loads(report.read_text())["verdict"] == "ok"
    assert stat.S_IMODE(report.stat().st_mode) == 0o640
    assert link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [link, report]
    assert "verdict    ok" in capsys.readouterr().out


@pytest.mark.parametrize("seeds", [[], ["--seeds", "3"]], ids=["one seed", "many seeds"])
def test_full_disk_leaves_the_old_report(seeds: list[str], tmp_path: Path) -> None:
    """The error is one line, and nothing half-written is left beside it."""
    report = tmp_path / "report.json"
    report.write_text("old")
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "simulator",
            "run",
            "quiet-month",
            "--days",
            "1",
            *seeds,
            "--json",
            str(report),
        ],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"simulator: error: --json {report}: cannot be written: ")
    assert ended.stderr.count("\n") == 1
    assert report.read_text() == "old"
    assert list(tmp_path.iterdir()) == [report]


def test_report_of_many_seeds_is_the_list_of_the_reports_of_each(tmp_path: Path) -> None:
    """Written one by one, it reads as one document, to a file as to a pipe by name."""
    options = "run quiet-month --days 1 --faults heavy --seeds 2"
    report = tmp_path / "report.json"
    assert in_shell(f"{options} --json {report}").returncode == 0
    assert report.read_text() == json.dumps(json.loads(report.read_text()), indent=1) + "\n"
    assert in_shell(f"{options} --json -").stdout == report.read_text()
    shutil.rmtree(tmp_path / "none", ignore_errors=True)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    running = simulator(*options.split(), "--json", str(pipe))
    assert pipe.read_text() == report.read_text()
    running.communicate(timeout=60)


def test_odd_places_for_a_report_are_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name that is too long, a loop of links, a folder, a file of another's folder."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for target in ("x" * 300, str(loop / "x"), str(tmp_path), f"{tmp_path}/no/x", f"{__file__}/x"):
        refused(capsys, "run", "quiet-month", "--days", "1", "--json", target)
    assert list(tmp_path.iterdir()) == [loop]
