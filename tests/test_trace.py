"""A trace: all that happens in a simulated world, each line with the one that led to it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from chronos.cli.console import BadUsage
from chronos.values import evolve
from simulator.__main__ import main
from simulator.fleet import load_shipped
from simulator.history import Kind
from simulator.report import page, traces
from simulator.scenario import Plan, simulate
from simulator.trace import LANE_OF, MESSAGE, VIOLATION, Lane, Line, Tracer
from tests.test_command_line import refused

PLAN = Plan(
    scenario="traced",
    fleet=load_shipped("fleet-06"),
    days=6,
    faults="heavy",
    nas="hardened",
    agent="chronos",
    machines=2,
    policies="random",
)


def lines_of(plan: Plan, seed: int = 3, only: str | None = None) -> tuple[Any, list[Line]]:
    """Return what came of a plan, and its lines."""
    lines: list[Line] = []
    tracer = Tracer(lines.append, tuple(job.id for job in plan.fleet.jobs), only)
    return simulate(plan, seed, tracer=tracer), lines


@pytest.mark.parametrize("wire", ["", "memory"])
def test_traced_world_has_the_history_of_one_that_is_not(wire: str) -> None:
    """To the digest, with everything going wrong."""
    plan = evolve(PLAN, wire=wire, days=2)
    summary, lines = lines_of(plan)
    assert summary == simulate(plan, 3)
    assert len(lines) > 100


def test_line_comes_after_the_one_that_led_to_it() -> None:
    """And a fire is found again from the end of its run: claim, boot, call, arm."""
    _, lines = lines_of(PLAN)
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    assert all(line.because < line.number for line in lines)
    assert all(before.at_us <= after.at_us for before, after in itertools.pairwise(lines))
    ended = next(line for line in lines if line.kind == "completed")
    chain, kinds = ended, []
    while chain.because:
        chain = lines[chain.because - 1]
        kinds.append((chain.kind, chain.job_id))
    job = ended.job_id
    wanted = [("ended", job), ("started", job), ("created", job), ("provisioned", job), ("fired", job)]
    found = iter(kinds)
    assert all(each in found for each in wanted), kinds


def test_outcomes_of_the_trace_are_those_of_the_summary() -> None:
    """Each with its result; the lines of one job are those of the whole that concern it."""
    summary, lines = lines_of(PLAN)
    for result, count in summary.runs.items():
        assert sum(line.count for line in lines if line.kind == result) == count
    job_id = max((line.job_id for line in lines if line.kind == "interrupted"), key=str)
    assert job_id is not None
    _, narrowed = lines_of(PLAN, only=job_id)
    wanted = [(line.at_us, line.text) for line in lines if line.job_id in (None, job_id)]
    assert [(line.at_us, line.text) for line in narrowed] == wanted


def test_violations_of_the_trace_are_those_of_the_summary() -> None:
    """In their places."""
    plan = evolve(PLAN, agent="naive", machines=1, policies="own", fleet=load_shipped("fleet-12"))
    summary, lines = lines_of(plan)
    told = [line for line in lines if line.kind == VIOLATION]
    assert summary.violations
    assert [(each.job_id, each.at_us) for each in told] == [
        (each.job_id, each.at_us) for each in summary.violations
    ]


def test_every_kind_has_its_lane() -> None:
    """One that is added is placed, and its text is no surprise."""
    assert set(LANE_OF) == set(Kind)


def test_lost_and_doubled_messages_are_told_apart() -> None:
    """A lost one never arrives; each copy of a doubled one does."""
    _, lines = lines_of(evolve(PLAN, days=20))
    messages = [line for line in lines if line.kind == MESSAGE]
    lost = [line for line in messages if line.arrives_us is None]
    assert 0 < len(lost) < len(messages) // 10
    assert all("lost" in line.text and line.to is not None for line in lost)
    sent = [(line.because, line.at_us, line.text) for line in messages if line.text == "provision"]
    assert len(sent) > len(set(sent))


# --- the forms --------------------------------------------------------------------------------


def written(form: Any, lines: list[Line]) -> str:
    """Return what a form makes of lines."""
    pieces: list[str] = []
    take, end = form(pieces.append)
    for line in lines:
        take(line)
    end()
    return "".join(pieces)


def test_json_lines_name_the_line_that_led_to_each() -> None:
    """A line of JSON each."""
    _, lines = lines_of(PLAN)
    told = [json.loads(line) for line in written(traces.json_lines, lines).splitlines()]
    assert [each["number"] for each in told] == [line.number for line in lines]
    assert {each["because"] for each in told} <= {None, *range(1, len(lines))}
    assert all(each["at"].endswith("+00:00") for each in told)
    assert {each["to"] for each in told if each["kind"] == MESSAGE} == {Lane.NAS, Lane.AGENT}


def test_trace_events_are_whole() -> None:
    """Each run is a slice as long as the run; each arrow has both ends; lanes and jobs have names."""
    _, lines = lines_of(PLAN)
    events = json.loads(written(traces.chrome, lines))["traceEvents"]
    begun = sum(line.kind == "started" for line in lines)
    runs = [each for each in events if each["name"] == "run"]
    assert len(runs) == begun
    assert all(each["dur"] >= 0 and each["ph"] == "X" for each in runs)
    starts = {each["id"] for each in events if each["ph"] == "s"}
    assert starts == {each["id"] for each in events if each["ph"] == "f"}
    named = {(each["pid"], each["tid"]) for each in events if each["name"] == "thread_name"}
    assert {(each["pid"], each["tid"]) for each in events if each["ph"] != "M"} <= named
    assert {each["args"]["name"] for each in events if each["name"] == "process_name"} == set(Lane)


def test_diagram_is_of_a_short_history() -> None:
    """What would mean something in a diagram is spelled out; a long one is refused."""
    _, lines = lines_of(evolve(PLAN, days=1, faults="none", machines=1), only="job-04")
    told = written(traces.mermaid, lines[:40])
    assert told.startswith("sequenceDiagram\n    participant people as people\n")
    assert "    agent->>NAS: " in told
    odd = evolve(lines[0], job_id="a;b#c\n", text="x")
    assert "a#59;b#35;c#10;: x" in written(traces.mermaid, [odd])
    with pytest.raises(BadUsage, match="nobody reads"):
        written(traces.mermaid, [lines[0]] * (traces.MOST_OF_A_DIAGRAM + 1))


# --- the options ------------------------------------------------------------------------------

SHORT = ("run", "quiet-month", "--days", "1")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.mmd", "T.JSON"])
def test_trace_is_written_beside_the_summary(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The summary is told as without it."""
    assert main(SHORT) == 0
    told = capsys.readouterr().out
    assert main((*SHORT, "--trace", name)) == 0
    assert capsys.readouterr().out == told
    assert (tmp_path / name).stat().st_size > 1_000
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_trace_goes_into_a_pipe_by_name(tmp_path: Path) -> None:
    """As any report."""
    os.mkfifo(tmp_path / "t.jsonl")
    reader = subprocess.Popen(["cat", "t.jsonl"], stdout=subprocess.PIPE)
    assert main((*SHORT, "--trace", "t.jsonl")) == 0
    told, _ = reader.communicate()
    assert told.count(b"\n") > 100


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--trace", "t.txt"), "expected a name that ends in .jsonl, .json, .mmd"),
        (("--trace", "t"), "expected a name that ends in"),
        (("--trace", "nowhere/t.json"), "there is no folder"),
        (("--trace", "t.json", "--seeds", "2"), "of one simulation"),
        (("--html", "t.html", "--seeds", "2"), "of one simulation"),
        (("--html", "t.json", "--trace", "t.json"), "this is the file of --trace"),
        (("--html", "."), "expected a file, this is a folder"),
        (("--html", "-"), "the summary goes there"),
    ],
)
def test_file_that_cannot_be_written_is_one_clear_error(
    options: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing is left."""
    assert says in refused(capsys, *SHORT, *options)
    assert not list(tmp_path.iterdir())


def test_diagram_that_is_too_long_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is known only in the middle of it."""
    assert "nobody reads" in refused(capsys, "run", "busy-month", "--days", "1", "--trace", "t.mmd")
    assert not list(tmp_path.iterdir())


def test_page_of_too_much_leaves_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser would not open it."""
    monkeypatch.setattr(page, "MOST_LINES", 50)
    assert "more than 50 things happen" in refused(capsys, *SHORT, "--html", "t.html")
    assert not list(tmp_path.iterdir())
