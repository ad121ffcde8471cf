"""What a command line says when something goes wrong: one line, a status of its own, nothing unprintable."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from chronos.errors import StoreError
from chronos.values import evolve
from simulator import agents, command_line, faults
from simulator.__main__ import main
from tests.processes import in_shell
from tests.test_command_line import refused, with_job

# An escape sequence, a mark that turns the text around, a line break, and what no terminal can show.
NASTY = "a\x1b[31mred\u202etxt\nbreak\x7f\x9b\ud800z"
PROGRAMS = {
    "run": ("simulator", "run --days 1 --jobs"),
    "run as JSON": ("simulator", "run --days 1 --json - --jobs"),
    "run of seeds": ("simulator", "run --days 1 --seeds 2 --jobs"),
    "run that violates": ("simulator", "run --days 9 --agent naive --faults heavy --seed 1 --jobs"),
    "validate": ("chronos", "validate"),
    "next": ("chronos", "next"),
    "status": ("chronos", "status"),
    "status as JSON": ("chronos", "status --json"),
}


def is_clean(text: str) -> bool:
    return all(char.isprintable() for line in text.split("\n") for char in line)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_unprintable_reaches_the_terminal(name: str, encoding: str, tmp_path: Path) -> None:
    """Whatever the jobs are called, and whatever the terminal can show."""
    path = tmp_path / "jobs.json"
    remark = {"kind": "cron", "expr": "*/90 * * * *", "display": NASTY}
    path.write_text(with_job(id=f"{NASTY} Zürich 東京", schedule=remark, state="scheduled"))
    program, arguments = PROGRAMS[name]
    ended = in_shell(f"{arguments} {path}", program, PYTHONIOENCODING=encoding)
    assert ended.returncode in (0, 1)
    assert ended.stderr == ""
    assert is_clean(ended.stdout)
    if encoding == "ascii":
        assert ended.stdout.isascii()


@pytest.mark.parametrize("program", ["simulator run --jobs", "chronos validate"])
@pytest.mark.parametrize("field", ["id", "expr", "tz", "name"])
def test_errors_show_what_they_quote_escaped(program: str, field: str, tmp_path: Path) -> None:
    """The id, the field, and the name of the file."""
    folder = tmp_path / "\x1b[2J\u202e"
    folder.mkdir()
    path = folder / "jobs.json"
    schedule = {"kind": "cron", "expr": "0 5 * * *", "tz": "UTC"}
    if field in schedule:
        schedule[field] = NASTY
    changes = {field: NASTY} if field == "id" else {}
    path.write_text(
        with_job(
            schedule={**schedule, "expr": schedule["expr"] if field == "expr" else "61 * * * *"}, **changes
        )
    )
    name, _, arguments = program.partition(" ")
    ended = in_shell(f"{arguments} '{path}'", name, LC_ALL="C")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert is_clean(ended.stderr)
    assert "\\x1b[2J" in ended.stderr


@pytest.mark.parametrize("program", ["simulator run --jobs", "chronos status"])
@pytest.mark.parametrize(
    "name", ["x" * 300, "x/" * 3000, "/dev/null/x", "~nobody", b"\xff\xfe".decode("utf-8", "surrogateescape")]
)
def test_odd_name_of_a_file_is_bad_input(program: str, name: str) -> None:
    """Too long, not there, or no text: one line and status 2."""
    ended = subprocess.run(
        [sys.executable, "-m", *program.split(), name], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "cannot be read" in ended.stderr


class Mischief(Exception):
    """A mistake of an agent."""


@pytest.mark.parametrize(
    "error",
    [
        Mischief("two\nlines \x1b[1m"),
        MemoryError(),
        RecursionError("x"),
        OSError(5, "x"),
        StoreError("x", True),
    ],
)
@pytest.mark.parametrize("part", ["begin", "step", "begin_reconciliation", "step_reconciliation"])
def test_exception_of_an_agent_is_no_verdict(
    error: Exception,
    part: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is told in one line with its place, and has a status of its own."""

    def fail(*_: object, **__: object) -> None:
        raise error

    rules = evolve(agents.CHRONOS.rules, **{part: fail})
    monkeypatch.setitem(agents.AGENTS, "naive", evolve(agents.CHRONOS, rules=rules))
    report = tmp_path / "report.json"
    assert main(["run", "quiet-month", "--days", "2", "--agent", "naive", "--json", str(report)]) == 4
    told = capsys.readouterr()
    assert list(tmp_path.iterdir()) == []
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert type(error).__name__ in told.err
    assert "test_failures.py" in told.err
    assert is_clean(told.err)


@pytest.mark.parametrize(
    ("arguments", "broken"),
    [
        ("run quiet-month --seeds 9", "scenario.World.run"),
        ("run quiet-month", "scenario.World.run"),
        ("check", "search.explore.search"),
        ("bench", "bench.simulate"),
        ("list", "commands.listing.counted"),
    ],
)
def test_failure_of_the_program_is_one_line_unless_more_is_asked_for(
    arguments: str, broken: str, tmp_path: Path
) -> None:
    """In this process and in its workers; the traceback is there for whoever wants to mend it."""
    module = broken.rpartition(".")[0] if "World" not in broken else "scenario"
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, importlib.abc, importlib.util\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name != 'simulator.{module}': return None\n"
        "        sys.meta_path.remove(self)\n"
        "        spec = importlib.util.find_spec(name)\n"
        "        load = spec.loader.exec_module\n"
        "        def exec_module(module):\n"
        "            load(module)\n"
        "            def fail(*_, **__): raise KeyError('mischief')\n"
        f"            *way, last = {broken.removeprefix(module + '.').split('.')!r}\n"
        "            for each in way: module = getattr(module, each)\n"
        "            setattr(module, last, fail)\n"
        "        spec.loader.exec_module = exec_module\n"
        "        return spec\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ended = in_shell(arguments, PYTHONPATH=path)
    assert ended.returncode == 4, ended
    assert re.fullmatch(r"simulator: failed: .*KeyError: 'mischief'.*CHRONOS_TRACEBACK=1.*\n", ended.stderr)
    ended = in_shell(arguments, PYTHONPATH=path, CHRONOS_TRACEBACK="1")
    assert ended.returncode == 4
    assert "Traceback (most recent call last)" in ended.stderr


def test_progress_on_a_terminal_ends_with_the_cursor_shown() -> None:
    """Ctrl-C in the middle takes the bar away, and shows the cursor that it had hidden."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "simulator", "run", "busy-month", "--days", "3000"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm"},
    ) as running:
        os.close(theirs)
        shown = b""
        while b"busy-month" not in shown:
            shown += os.read(ours, 4096)
        running.terminate()
        try:
            while more := os.read(ours, 4096):
                shown += more
        except OSError:  # the terminal's other side is closed
            pass
        assert running.wait(30) == 143
    os.close(ours)
    assert b"\x1b[?25l" in shown
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")
    assert shown.endswith(b"simulator: terminated; nothing was written\r\n")


# --- what one may ask for ---------------------------------------------------------------------


def test_help_tells_examples_statuses_and_what_each_level_of_faults_means(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From the tables that the program itself uses."""
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {status} " in text and words in text for status, words in command_line.STATUSES.items())
    assert "examples:\n  python -m simulator run" in text
    assert main(["run", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {level} " in text and words in text for level, words in faults.LEVELS.items())
    assert all(fault.name in text and fault.words in text for fault in faults.FAULTS)


@pytest.mark.parametrize("program", ["simulator", "chronos"])
def test_version_is_told(program: str) -> None:
    """The one of the distribution."""
    ended = in_shell("--version", program)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert re.fullmatch(r"chronos-cron \d+\.\d+.*\n", ended.stdout)


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["rum"], "run"),
        (["run", "--jbs", "x"], "--jobs"),
        (["run", "--fautls=heavy"], "--faults"),
        (["run", "--faults", "heavey"], "heavy"),
        (["run", "--nas", "hardend"], "hardened"),
        (["run", "--agent", "nave"], "naive"),
        (["run", "--policies", "radnom"], "random"),
        (["run", "yeer"], "year"),
        (["check", "--limits", "3"], "--limit"),
        (["check", "--crash", "1"], "--crashes"),
    ],
    ids=lambda words: words if isinstance(words, str) else " ".join(words),
)
def test_typo_is_answered_with_the_nearest(
    arguments: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And with all that was expected."""
    line = refused(capsys, *arguments)
    assert f"did you mean {meant}?" in line
    assert "expected one of: " in line


def test_name_of_a_file_that_is_not_there_is_answered_with_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of its folder."""
    (tmp_path / "jobs.json").write_text(with_job())
    assert "did you mean jobs.json?" in refused(capsys, "run", "--jobs", str(tmp_path / "job.json"))
    assert "did you mean" not in refused(capsys, "run", "--jobs", str(tmp_path / "unlike"))


def test_jobs_come_from_the_standard_input_as_from_a_file(tmp_path: Path) -> None:
    """`--jobs -` gives the same history."""
    path = tmp_path / "jobs.json"
    path.write_text(with_job())
    told = [in_shell(f"run --days 9 --json - --jobs {given}") for given in (path, f"- < {path}")]
    assert [each.returncode for each in told] == [0, 0]
    assert json.loads(told[0].stdout) == json.loads(told[1].stdout)
    ended = in_shell("run --jobs - <&-")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    ended = in_shell("run --jobs - < /dev/null")
    assert ended.returncode == 2
    assert ended.stderr.startswith("simulator: error: standard input: expected JSON")
