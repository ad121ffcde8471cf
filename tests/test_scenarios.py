"""Scenarios as they are run: what strikes, what somebody does, what is expected, and the options beside."""

from __future__ import annotations

import json
import shlex
import signal
import time
from pathlib import Path

import pytest

from chronos.jobs.instants import DAY_US, parse_instant
from simulator.__main__ import main
from simulator.judging import judge
from simulator.marks import CRASH_BETWEEN_CLAIM_AND_ARM
from simulator.scenario import simulate
from simulator.scenario_file import load, names, shipped
from simulator.trace import Line, Tracer
from tests.processes import in_shell, simulator

NIGHT = """
about = "a job every night"
days = 3
conditions = { boot = "2s", run = ["6s"] }

[[job]]
id = "nightly"
schedule = "0 2 * * *"
"""
LOST = """
[[fault]]
what = "network.request"
how = "lost"
job = "nightly"
at = 2026-03-03T01:00:00Z
"""
EXPECT = "[[expect]]\n"


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "night.toml"
    path.write_text(text)
    return str(path)


def told(path: str) -> list[Line]:
    """Return all that happens in the scenario of that file."""
    scenario, lines = load(Path(path)), list[Line]()
    plan = scenario.plan(scenario.expects[0])
    simulate(plan, scenario.seed, tracer=Tracer(lines.append, plan.fleet.job_ids))
    return lines


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    out = capsys.readouterr()
    assert (out.out, out.err.count("\n")) == ("", 1)
    return out.err


@pytest.mark.parametrize("number", [1, 2, 3])
def test_fault_strikes_exactly_the_nth_time_from_its_instant_on(number: int, tmp_path: Path) -> None:
    """Of the requests about the job, fires and provisions, that one is lost, and no other."""
    path = written(tmp_path, f"{NIGHT}{LOST}number = {number}\n{EXPECT}")
    lines = told(path)
    at_us = parse_instant("2026-03-03T01:00:00Z")
    requests = [line for line in lines if line.job_id and line.text.startswith(("fire", "provision"))]
    sent = [line for line in requests if line.kind == "message" and line.at_us >= at_us]
    lost = [line for line in lines if line.kind == "message" and line.arrives_us is None]
    assert lost == [sent[number - 1]]


def test_crash_between_claim_and_arm_strikes_there(tmp_path: Path) -> None:
    """The fire has claimed its occurrence and not yet armed the next one; the arm comes all the same."""
    crash = '[[fault]]\nwhat = "machine.crash"\njob = "nightly"\nat = 2026-03-03T02:00:00Z\nnumber = {}\n'
    met = []
    for number in range(1, 7):
        scenario = load(Path(written(tmp_path, NIGHT + crash.format(number) + EXPECT)))
        judged = judge(scenario, scenario.expects[0])
        assert not judged.differences
        met.append(judged.summary.marks.get(CRASH_BETWEEN_CLAIM_AND_ARM.name, 0))
    assert sorted(met) == [0, 0, 0, 0, 0, 1]


def test_change_happens_at_its_time(tmp_path: Path) -> None:
    """A pause before the second night leaves the first alone, and the resumption is in time for the third."""
    changes = """
[[change]]
do = "pause"
at = 2026-03-02T12:00:00Z
job = "nightly"
[[change]]
do = "resume"
at = 2026-03-03T12:00:00Z
job = "nightly"
"""
    path = written(tmp_path, f"{NIGHT}{changes}{EXPECT}")
    starts = [line.at_us // DAY_US for line in told(path) if line.kind == "started"]
    first = parse_instant("2026-03-02T00:00:00Z") // DAY_US
    assert [each - first for each in starts][:2] == [0, 2]


def test_fault_that_never_struck_fails_the_judgement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told by its key; a scenario that shows nothing is none."""
    assert main(["run", written(tmp_path, f"{NIGHT}{LOST}number = 900\n{EXPECT}")]) == 1
    out = capsys.readouterr().out
    assert "fault[1]: network.request lost: expected it to strike, and it never did" in " ".join(out.split())
    assert "verdict    not as expected" in out


@pytest.mark.parametrize(
    ("count", "is_met"),
    [
        ("3", True),
        ("2", False),
        ("4", False),
        ('">=3"', True),
        ('">= 4"', False),
        ('"<=3"', True),
        ('"==3"', True),
    ],
)
def test_expected_counts_are_compared(count: str, is_met: bool, tmp_path: Path) -> None:
    """A number is exact, and a comparison is what it says: of all jobs, of one, and of what is at work."""
    for key in (
        f"runs = {{ completed = {count} }}",
        f"jobs = {{ nightly = {{ completed = {count} }} }}",
        f"counts = {{ fires = {count} }}",
    ):
        scenario = load(Path(written(tmp_path, f"{NIGHT}{EXPECT}{key}\n")))
        assert (judge(scenario, scenario.expects[0]).differences == ()) is is_met


def test_agent_narrows_what_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With it, one agent of several is simulated, and its files are written."""
    path = written(tmp_path, f"{NIGHT}{EXPECT}{EXPECT}agent = 'naive'\n")
    page, trace = tmp_path / "page.html", tmp_path / "trace.jsonl"
    assert "expected one of: --agent chronos" in refused(capsys, "run", path, "--html", str(page))
    assert main(["run", path, "--agent", "naive", "--html", str(page), "--trace", str(trace)]) == 0
    out = capsys.readouterr().out
    assert "agent      naive: ok; as expected" in out
    assert "chronos" not in out
    assert page.stat().st_size > 1000
    assert trace.stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--faults", "heavy", "--seed", "3"], "without --seed, --faults"),
        (["--seed", "0"], "without --seed"),
        (["--seeds", "3"], "without --seeds"),
        (["--boot", "3s"], "without --boot"),
        (["--wire"], "without --wire"),
        (["--agent", "ticker"], "nothing is expected of that agent"),
    ],
)
def test_changed_scenario_is_not_judged_and_says_so(
    options: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, at the end, names the options; the exit status is that of the simulation."""
    path = written(tmp_path, f"{NIGHT}{EXPECT}runs = {{ completed = 99 }}\n")
    assert main(["run", path, *options]) == 0
    assert f"not judged {named}" in capsys.readouterr().out.replace("what is expected is expected ", "")


def test_json_tells_the_differences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A list, an object for each agent, also to the output."""
    path = written(tmp_path, f"{NIGHT}{EXPECT}runs = {{ completed = 2 }}\n{EXPECT}agent = 'naive'\n")
    assert main(["run", path, "--json", "-"]) == 1
    first, second = json.loads(capsys.readouterr().out)
    assert (first["agent"], first["differences"]) == ("chronos", ["runs.completed: expected 2, got 3"])
    assert (second["agent"], second["differences"]) == ("naive", [])


def test_all_takes_no_other_options(capsys: pytest.CaptureFixture[str]) -> None:
    """What changes a scenario is refused, also where it is a zero."""
    for options in (
        ["l5"],
        ["--seed", "0"],
        ["--faults", "none"],
        ["--agent", "chronos"],
        ["--html", "x.html"],
    ):
        assert "--all" in refused(capsys, "run", "--all", *options)


def test_all_shipped_scenarios_come_out_as_expected(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever runs them all reads a list of every one with every agent."""
    assert main(["run", "--all", "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)
    expected = [(name, each.agent) for name in names() for each in shipped(name).expects]
    assert [(each["scenario"], each["agent"]) for each in told] == expected
    assert not [each for each in told if each["differences"]]


def test_interrupt_during_all_is_quiet() -> None:
    """Ctrl-C ends it as it ends any program, without a trace."""
    with simulator("run", "--all") as process:
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode in (-signal.SIGINT, 130)
    assert (out, "Traceback" in err) == ("", False)


def test_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """The output may be piped to what reads one line of it."""
    path = written(tmp_path, f"{NIGHT}{EXPECT}")
    piped = in_shell(f"run {shlex.quote(path)} | head -1")
    assert (piped.stdout.count("\n"), piped.stderr) == (1, "")
    whole = in_shell(f"run {shlex.quote(path)} | cat")
    assert whole.stdout.endswith("verdict    as expected\n")
    assert whole.stderr == ""


@pytest.mark.parametrize("option", ["--jobs", "--start", "--days", "--machines"])
def test_option_that_moves_what_is_written_down_is_refused(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where something is written down to happen, jobs, calendar and machines are the file's."""
    value = {"--jobs": "jobs.json", "--start": "2026-01-01T00:00:00Z"}.get(option, "2")
    line = refused(capsys, "run", written(tmp_path, NIGHT + LOST + EXPECT), option, value)
    assert option in line


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        ("nowhere.at_all:Agent", "expect[1].agent: nowhere.at_all:Agent: there is no module 'nowhere'"),
        ("json:nothing", "expect[1].agent: json:nothing: expected a factory"),
    ],
)
def test_agent_is_imported_when_it_is_run(
    agent: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that names it can be read without it; what is wrong with it is one line that names the key."""
    path = written(tmp_path, f"{NIGHT}{EXPECT}agent = '{agent}'\n")
    assert load(Path(path)).expects[0].agent == agent
    for command in (
        ["run", path],
        ["run", path, "--seed", "1"],
        ["sweep", path],
        ["explain", path, "--job", "nightly"],
    ):
        assert f"{path}: {words}" in refused(capsys, *command)


def test_scenario_is_never_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An output of that name, or another one of the file, is refused."""
    path = written(tmp_path, 'about = "x"\ndays = 2\nfleet = "fleet-01"\n')
    (tmp_path / "link.json").symlink_to(path)
    for target in (path, str(tmp_path / "link.json")):
        refused(capsys, "run", path, "--json", target)
        refused(capsys, "sweep", path, "--seeds", "1", "--json", target)
    assert Path(path).read_text().startswith("about")


def test_other_commands_take_a_scenario_or_refuse_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`explain` and `sweep` take one with jobs of its own; what cannot is one clear line."""
    path = written(tmp_path, NIGHT + LOST + EXPECT)
    assert main(["explain", path, "--job", "nightly"]) == 0
    assert "story      job nightly" in capsys.readouterr().out
    assert main(["sweep", path, "l5", "--seeds", "2"]) == 0
    assert path in capsys.readouterr().out
    assert "written down" in refused(capsys, "shrink", path)
    assert "a line of a trace" in refused(capsys, "diff", path, path)
    assert "a jobs file" in refused(capsys, "whatif", path)
    assert "nightly.toml" not in refused(capsys, "explain", path, "--job", "nihgtly")


def test_sweep_of_a_file_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names and files are taken as by `run`."""
    assert f"{tmp_path / 'no.toml'}: cannot be read" in refused(capsys, "sweep", str(tmp_path / "no.toml"))
    assert "did you mean year?" in refused(capsys, "sweep", "yeer")


def test_agent_that_changes_nothing_on_the_wire_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of what is not simulated, no verdict is told."""
    agent = "simulator.incidents.twice:DropsTheLate"
    path = written(tmp_path, f"{NIGHT}{EXPECT}agent = '{agent}'\nwire = 'memory'\n")
    assert f"expect[1].agent: with wire, all that ships is simulated, and {agent}" in refused(
        capsys, "run", path
    )
