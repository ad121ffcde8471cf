"""From a violation to the least that leads to it; and where two histories part."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simulator.__main__ import main
from simulator.fleet import load_shipped
from simulator.report.shrunk import shrunk_lines, story
from simulator.scenario import Plan
from simulator.shrink import Shrinking, _least
from simulator.trace import VIOLATION
from tests.test_command_line import refused


def plan(agent: str = "naive", nas: str = "hardened", fleet: str = "fleet-12", machines: int = 1) -> Plan:
    return Plan(
        scenario="shrunk",
        fleet=load_shipped(fleet),
        days=20,
        faults="heavy",
        nas=nas,
        agent=agent,
        machines=machines,
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "given",
    [plan(), plan(fleet="fleet-06"), plan(agent="chronos", nas="minimal"), plan(machines=2)],
    ids=["naive", "many jobs", "minimal", "replicas"],
)
def test_violation_needs_little(given: Plan, seed: int) -> None:
    """One job and a few faults, in a story of a few lines, after few tries."""
    shrunk = Shrinking(given, seed).shrink()
    assert shrunk is not None
    assert len(shrunk.jobs) == 1
    assert len(shrunk.needs) <= 3
    assert shrunk.of_jobs == len(given.fleet.jobs)
    assert len(shrunk.needs) <= shrunk.of_faults
    assert shrunk.tries < 150
    assert any(line.kind == VIOLATION for line in shrunk.lines)
    assert len(story(shrunk)) <= 12
    told = list(shrunk_lines(shrunk))
    assert told[0].startswith(f"violated   {shrunk.violation.property} of job {shrunk.jobs[0]} at ")
    assert all(each.fault in "\n".join(told) for each in shrunk.needs)


def test_nothing_can_be_left_out_alone() -> None:
    """Without any one of its faults the violation does not come."""
    shrinking = Shrinking(plan(fleet="fleet-06"), 0)
    shrunk = shrinking.shrink()
    assert shrunk is not None
    assert shrunk.needs
    assert shrinking.is_violated_by(shrunk.needs)
    for each in shrunk.needs:
        assert not shrinking.is_violated_by([other for other in shrunk.needs if other != each])


def test_it_is_the_same_each_time() -> None:
    """A violation is shrunk again by the same command."""
    assert Shrinking(plan(), 0).shrink() == Shrinking(plan(), 0).shrink()


def test_another_property_can_be_asked_for() -> None:
    """Not only the first one that is violated."""
    first = Shrinking(plan(), 1).shrink()
    assert first is not None
    assert first.violation.property == "NO-ORPHAN"
    other = Shrinking(plan(), 1, "NO-LOST-REARM").shrink()
    assert other is not None
    assert other.violation.property == "NO-LOST-REARM"


def test_nothing_is_shrunk_where_nothing_is_violated() -> None:
    """The project's own agent, on a NAS that keeps the promises."""
    assert Shrinking(plan(agent="chronos"), 0).shrink() is None


@pytest.mark.parametrize("needed", [(), (3,), (0, 9), (2, 5, 8), tuple(range(10))])
def test_least_is_what_is_needed(needed: tuple[int, ...]) -> None:
    """Of ten, whichever they are."""
    assert _least(range(10), lambda kept: set(needed) <= set(kept)) == list(needed)


# --- as a stranger uses it --------------------------------------------------------------------

SHRINK = ("shrink", "naive-agent", "--days", "6")


def test_command_tells_what_is_needed_and_how_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    """And fails, as a run that finds a violation does."""
    assert main(SHRINK) == 1
    told = capsys.readouterr().out
    assert "violated   NO-LOST-REARM of job job-05" in told
    assert "shrunk     to 1 of 8 jobs, 1 of " in told
    assert "needs      2026-05-1" in told
    assert "story      job-05" in told


def test_command_writes_the_files_of_the_least(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of one job alone."""
    trace, page = tmp_path / "t.jsonl", tmp_path / "t.html"
    assert main((*SHRINK, "--trace", str(trace), "--html", str(page))) == 1
    assert capsys.readouterr().err == ""
    entries = [json.loads(line) for line in trace.read_text(encoding="utf-8").splitlines()]
    assert {each["job_id"] for each in entries} == {None, "job-05"}
    assert entries[-1]["kind"] == VIOLATION
    assert "<!doctype html>" in page.read_text(encoding="utf-8")


def test_command_says_that_nothing_is_violated(capsys: pytest.CaptureFixture[str]) -> None:
    """Of all properties, or of one."""
    assert main(("shrink", "quiet-month")) == 0
    assert capsys.readouterr().out == "verdict    ok: nothing is violated\n"
    assert main(("shrink", "quiet-month", "--property", "CONVERGES")) == 0
    assert capsys.readouterr().out == "verdict    ok: CONVERGES holds\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("shrink", "--property", "CONVERGE"), "did you mean CONVERGES?"),
        (("shrink", "--wire"), "expected no --wire"),
        (("shrink", "naive"), "there is no scenario 'naive'"),
        (("diff", "nowhere", "nowhere"), "nowhere: cannot be read: No such file or directory"),
        (("diff", "a", "b"), "a: line 1: expected a line of a trace"),
        (("diff", "c", "c"), "c: expected a line of a trace"),
    ],
)
def test_what_cannot_be_done_is_one_clear_error(
    arguments: tuple[str, ...],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It names what was expected."""
    monkeypatch.chdir(tmp_path)
    Path("a").write_text('{"at": 3}\n', encoding="utf-8")
    Path("b").write_text("[" * 100_000, encoding="utf-8")
    Path("c").write_bytes(b"\xff\xfe\x00")
    assert says in refused(capsys, *arguments)


def traced(name: str, *options: str) -> None:
    assert main(("run", "quiet-month", *options, "--trace", name)) == 0


def test_histories_part_where_they_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is the same before is told as context; one that goes on longer differs there."""
    monkeypatch.chdir(tmp_path)
    traced("short.jsonl", "--days", "2")
    traced("long.jsonl", "--days", "3")
    capsys.readouterr()
    count = Path("short.jsonl").read_text(encoding="utf-8").count("\n")
    assert main(("diff", "short.jsonl", "long.jsonl")) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"the same   {count:,} lines"
    assert len([line for line in told if line.startswith("         *")]) == 12
    assert main(("diff", "long.jsonl", "long.jsonl")) == 0
    assert capsys.readouterr().out == "the same   from beginning to end\n"


def test_one_changed_line_is_marked_and_what_follows_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the histories agree again."""
    monkeypatch.chdir(tmp_path)
    traced("one.jsonl", "--days", "1")
    capsys.readouterr()
    lines = Path("one.jsonl").read_text(encoding="utf-8").splitlines()
    changed = json.loads(lines[9]) | {"text": "something else"}
    Path("other.jsonl").write_text(
        "\n".join([*lines[:9], json.dumps(changed), *lines[10:]]), encoding="utf-8"
    )
    assert main(("diff", "one.jsonl", "other.jsonl")) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "the same   9 lines"
    assert [line for line in told if line.startswith("         *")] == [told[8]]
    assert "something else" in told[8]
