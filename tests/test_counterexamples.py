"""What the search found is told as lines, drawn as a page, written as traces, and stepped through."""

from __future__ import annotations

import io
import itertools
import json
import random
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chronos.testing.nas import BUILDS, HARDENED
from chronos.values import evolve
from simulator.__main__ import main
from simulator.agents import AGENTS, agent_of
from simulator.search.cases import CASES, Case
from simulator.search.explore import Counterexample, search, way_to_rest
from simulator.search.space import Space
from simulator.search.state import NOBODY
from simulator.search.told import lines_of
from simulator.search.walk import step, walk
from simulator.trace import MESSAGE, VIOLATION, Lane, Line
from tests.test_command_line import refused

ROOT = Path(__file__).resolve().parent.parent
PAUSE = "one occurrence, and somebody pauses the job"
NAIVE = ("check", "--agent", "naive", "--limit", "2000", "--case", PAUSE)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def space_of(case: Case, agent: str, promises: str, budget: int = 1) -> Space:
    faults = {"crashes": budget, "duplicates": budget, "losses": budget}
    return Space(case, AGENTS[agent], BUILDS[promises], **faults)


def wandered(space: Space, seed: int) -> tuple[Counterexample, Any, int]:
    """Return a history of a space at random, as if something were violated after it, its end, and copies.

    So many copies of messages are made; one that cannot do anything is left out of the states.
    """
    rng, choices, labels = random.Random(seed), list[int](), list[str]()
    state: Any = space.initial()
    copies = 0
    while len(choices) < 40 and (moves := tuple(space.successors(state))):
        choices.append(rng.randrange(len(moves)) + 1)
        taken = step(space, moves[choices[-1] - 1])
        labels.append(taken.label)
        state = taken.state
        if taken.violated is not None:
            break
        if "will again" in taken.label:
            copies += any(each.kind in taken.label and each.task == NOBODY for each in state.messages)
    found = Counterexample(property="X", reason="so", history=tuple(labels), choices=tuple(choices))
    return found, state, copies


# --- lines ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("agent", "promises"), [("chronos", "hardened"), ("naive", "minimal")])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_any_history_can_be_told(case: Case, agent: str, promises: str) -> None:
    """Each line comes after the one that led to it; what is lost or doubled is what the budget has lost."""
    for seed in range(8):
        space = space_of(case, agent, promises, budget=2)
        found, end, copies = wandered(space, seed)
        lines = lines_of(space, found)
        assert [line.number for line in lines] == list(range(1, len(lines) + 1))
        assert all(line.because < line.number for line in lines)
        assert all(before.at_us <= after.at_us for before, after in itertools.pairwise(lines))
        assert {line.step for line in lines} == set(range(len(found.choices) + 1))
        messages = [line for line in lines if line.kind == MESSAGE]
        assert all(line.arrives_us is None or line.arrives_us > line.at_us for line in messages)
        if end is not None:
            assert sum("lost on its way" in line.text for line in messages) == 2 - end.losses
            assert sum(", again" in line.text for line in messages) == copies


def test_counterexample_leads_to_its_violation_by_its_choices() -> None:
    """They are of the very space that was searched, and its words are theirs."""
    for promises in BUILDS:
        for case in CASES[:3]:
            space = space_of(case, "naive", promises)
            for found in search(space, limit=1_500).counterexamples:
                steps = tuple(walk(space, space.initial(), found.choices))
                assert tuple(each.label for each in steps) == found.history
                violated = steps[-1].violated
                assert violated is not None
                assert (violated.property.id, violated.reason) == (found.property, found.reason)
                assert lines_of(space, found)[-1].kind == VIOLATION


def told(case: str, agent: str, promises: str, property_id: str) -> tuple[Line, ...]:
    space = space_of(next(each for each in CASES if each.name == case), agent, promises)
    found = {each.property: each for each in search(space, limit=8_000).counterexamples}
    return lines_of(space, found[property_id])


def test_lost_message_is_a_stub_that_leads_on() -> None:
    """A cancel is lost, and the agent that does not mind has left an orphan."""
    lines = told(PAUSE, "naive", "hardened", "NO-ORPHAN")
    lost = next(line for line in lines if line.text == "the cancel (revision 1), lost on its way")
    assert (lost.lane, lost.to, lost.process, lost.arrives_us) == (Lane.AGENT, Lane.NAS, 0, None)
    chain, texts = lines[-1], []
    while chain.because:
        chain = lines[chain.because - 1]
        texts.append(chain.text)
    assert texts[-1] == f"somebody asks process {lost.process}: pause"
    assert lost.text in texts


def test_late_message_is_as_long_as_it_takes() -> None:
    """A NAS that does not order lets a provision revive what a cancel has ended."""
    lines = told(PAUSE, "chronos", "minimal", "NO-ORPHAN")
    late = next(line for line in lines if line.text == "the provision of 00:06:40 (revision 1)")
    crashed = next(line for line in lines if line.kind == "crashed")
    assert late.arrives_us is not None
    assert late.at_us < crashed.at_us < late.arrives_us
    assert lines[lines[-1].because - 1].because == late.number


def test_reply_tells_what_it_says() -> None:
    """A process that starts learns what is armed, and what only its name tells of is told by that."""
    broken = evolve(HARDENED, sets_deliveries_apart=False)
    case = next(each for each in CASES if each.is_stopped)
    space = Space(case, AGENTS["chronos"], broken, crashes=0, duplicates=0, losses=0)
    found = search(space, limit=8_000).counterexamples[0]
    lines = lines_of(space, found)
    asked = [line.text for line in lines if line.kind == "asked"]
    assert asked == ["somebody tells the agent to run no jobs", "somebody lifts that"]
    listed = next(line for line in lines if line.kind == "listed")
    learned = next(line for line in lines if line.kind == "learns")
    assert (listed.text, listed.lane) == ("NAS lists what is armed: 00:03:20", Lane.NAS)
    assert (learned.text, learned.lane) == ("process 0 learns what is armed: 00:03:20", Lane.AGENT)
    assert lines[learned.because - 1].because == listed.number


def test_history_of_a_scheduler_of_ones_own_is_told() -> None:
    """Its processes are down at first."""
    space = Space(CASES[0], agent_of("tests.own_agents:Plausible"), HARDENED)
    for found in search(space, limit=1_500).counterexamples:
        lines = lines_of(space, found)
        assert [(line.kind, line.at_us) for line in lines[:1]] == [("created", 0)]
        assert any(line.text == "process 0 starts" for line in lines)
        assert lines[-1].text.startswith(found.property)


# --- files ------------------------------------------------------------------------------------


def test_traces_are_of_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each counterexample after a line that names it; no form pretends a time of day."""
    assert main((*NAIVE, "--trace", "t.jsonl")) == 1
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    heads = [each for each in lines if each["kind"] == "counterexample"]
    assert [each["text"].partition(",")[0] for each in heads] == ["NO-ORPHAN", "NO-LOST-REARM"]
    assert [each["number"] for each in lines] == list(range(1, len(lines) + 1))
    assert all(each["because"] is None or each["because"] < each["number"] for each in lines)
    assert not any("at" in each or "at_us" in each or "arrives_us" in each for each in lines)
    assert all(each["step"] <= each["arrives_step"] for each in lines if each.get("arrives_step"))
    assert main((*NAIVE, "--trace", "t.mmd")) == 1
    diagram = (tmp_path / "t.mmd").read_text()
    assert "    process_0-xNAS: step 1: the cancel (revision 1), lost on its way\n" in diagram
    assert "    NAS->>process_0: step 2: the fire of 00:03:20, arrives at step 3\n" in diagram
    assert "    Note over people,external_scheduler: NO-ORPHAN, one occurrence" in diagram
    assert "participant agent" not in diagram
    assert "1970" not in diagram
    assert main((*NAIVE, "--trace", "t.json", "--html", "t.html")) == 1
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    lasting = {each["name"]: each["dur"] for each in events if each["ph"] == "X" and each["dur"] > 1}
    assert set(lasting) == {"up (process 0)", "up (process 1)", "run (process 0)"}
    assert lasting["up (process 0)"] < lasting["up (process 1)"]  # it crashes
    assert sum(each["name"] == "up (process 1)" for each in events) == 2  # one in each counterexample
    assert "is not written" not in capsys.readouterr().out


def test_without_counterexample_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And that is said."""
    few = ("check", "--limit", "50", "--case", PAUSE, "--html", "t.html", "--trace", "t.mmd")
    assert main(few) == 3
    out = capsys.readouterr().out
    assert "html       nothing is violated, so there is nothing to draw: t.html is not written" in out
    assert "trace      nothing is violated" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--trace", "t.txt"), "expected a name that ends in .jsonl, .json, .mmd"),
        (("--html", "nowhere/t.html"), "there is no folder"),
        (("--html", "."), "expected a file, this is a folder"),
        (("--html", "-"), "the summary goes there"),
        (("--html", "t.json", "--trace", "t.json"), "this is the file of --trace"),
        (("--case", "one occurence, and somebody pauses the job"), f"did you mean {PAUSE}?"),
        (("--case", "zzz"), "there is no case 'zzz'"),
        (("--follow", "1"), "--follow goes with --explore"),
        (("--explore", "--follow", "1,x"), "expected numbers with commas between them"),
        (("--explore", "--follow", "1,9"), "--follow: step 2 is 9; expected 1 to"),
        (("--explore", "--follow", "0"), "--follow: step 1 is 0; expected 1 to"),
        (("--explore", "--html", "t.html"), "--html is of the search"),
        (("--explore", "--deep"), "--deep is of the search"),
        (("--agent", "naive", "--case", PAUSE, "--explore", "--follow", "4,3,1"), "violated after 2 steps"),
    ],
)
def test_what_makes_no_sense_is_one_clear_error(
    options: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is searched, and nothing is left."""
    assert says in refused(capsys, "check", *options)
    assert not list(tmp_path.iterdir())


# --- stepping through -------------------------------------------------------------------------


def explored(
    given: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[int, str]:
    """Return the status and the output of a walk whose choices are *given*."""
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    status = main(("check", "--explore", *options))
    return status, capsys.readouterr().out


def test_walk_goes_on_and_back(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A step, another, back: one sees what one saw; the end of the input ends it."""
    status, out = explored("1\n2\nb\n", monkeypatch, capsys)
    _, start, once, twice, again = out.split("\nstep ")[0:1] + out.split("\nstep ")[1:]
    assert status == 0
    assert start.startswith("0     the start\ntime       00:00:00; the next one is 00:03:20\n")
    assert "2. the external scheduler calls for 00:03:20" in once
    assert "under way  the fire of 00:03:20\n" in twice
    assert once.strip() == again.strip()


def test_wrong_choice_is_one_line_and_asks_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever it is; and there is nothing before the start."""
    status, out = explored("x\n0\n99\n²\n1.5\n" + "9" * 9_999 + "\nb\nq\n1\n", monkeypatch, capsys)
    assert status == 0
    assert out.count("\nstep ") == 1
    assert out.count("expected   1 to 3, v or s for a way, ? for help, q to quit; not") == 6
    assert "expected   another choice: this is the start" in out


def test_counterexample_is_walked_by_the_command_that_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends where the property is violated; from there one goes back."""
    assert main(NAIVE) == 1
    out = capsys.readouterr().out
    commands = [
        line.partition(": ")[2] for line in out.splitlines() if line.strip().startswith("walk through it")
    ]
    assert len(commands) == 2
    for command, name in zip(commands, ("NO-ORPHAN", "NO-LOST-REARM"), strict=True):
        arguments = shlex.split(command)[3:]
        assert arguments[:2] == ["check", "--explore"]
        status, walked = explored("", monkeypatch, capsys, *arguments[2:])
        assert status == 1
        assert f"\nviolated   {name}: " in walked
        assert walked.endswith("choose     b to go back, ? for help, q to quit\n")
        status, walked = explored("b\nw\n", monkeypatch, capsys, *arguments[2:])
        assert status == 0
        assert "the way      1. " in walked


def test_ways_are_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """To a violation, to rest, or none within the limit; and what they say can be chosen."""
    naive = ("--agent", "naive", "--case", PAUSE)
    _, out = explored("v\ns\n", monkeypatch, capsys, *naive)
    assert "violation  NO-ORPHAN: the job is paused" in out
    way = [line.split(".")[0].strip() for line in out.partition("violation")[2].splitlines()[1:3]]
    status, _ = explored("\n".join(way), monkeypatch, capsys, *naive)
    assert status == 1
    rest = [line.split(".")[0].strip() for line in out.partition("settled")[2].splitlines()[1:]]
    _, out = explored("\n".join(rest), monkeypatch, capsys, *naive)
    assert "settled    everything has come to its end; store and NAS agree" in out
    _, out = explored("v\ns\n", monkeypatch, capsys, "--limit", "20")
    assert "violation  none within" in out
    assert "settled    no way within 20 states" in out


def test_world_that_cannot_settle_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No step violates anything, but the search has found that no way leads out; and so it is drawn."""
    monkeypatch.setattr(Space, "has_converged", lambda _space, _state: False)
    alone = ("--crashes", "0", "--duplicates", "0", "--losses", "0", "--case", CASES[0].name)
    _, out = explored("s\nv\n", monkeypatch, capsys, *alone)
    assert "settled    there is no way: the world cannot settle from here (CONVERGES)" in out
    assert "violation  CONVERGES: left alone, the world cannot settle" in out
    space = space_of(CASES[0], "chronos", "hardened", budget=0)
    found = search(space).counterexamples
    assert [line.kind for line in lines_of(space, found[0])][-1] == VIOLATION


def test_interrupt_ends_a_walk_with_one_line() -> None:
    """As it ends every command."""
    command = [sys.executable, "-m", "simulator", "check", "--explore"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as walk_on:
        assert walk_on.stdout is not None
        assert walk_on.stderr is not None
        while "choose" not in walk_on.stdout.readline():
            pass
        walk_on.send_signal(signal.SIGINT)
        assert walk_on.wait(20) == 130
        assert walk_on.stderr.read().count("\n") == 1


def test_every_part_of_a_state_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever one may come, in any case; the way to rest is free of faults."""
    for case in CASES:
        space = space_of(case, "chronos", "hardened", budget=2)
        found, _, _ = wandered(space, 5)
        budget = ("--crashes", "2", "--duplicates", "2", "--losses", "2")
        choices = "\n".join(map(str, found.choices))
        status, out = explored(choices, monkeypatch, capsys, "--case", case.name, *budget)
        assert status == 0
        assert out.count("\nstep ") == len(found.choices) + 1
    space = space_of(CASES[0], "chronos", "hardened", budget=0)
    way, _ = way_to_rest(space, space.initial(), limit=2_000)
    assert way is not None
    end = tuple(walk(space, space.initial(), way))[-1].state
    assert end is not None
    assert space.has_converged(end)
