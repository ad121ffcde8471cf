"""What is told of many seeds: how they differ, and what to look at."""

from __future__ import annotations

import shlex

import pytest

from simulator.__main__ import main
from simulator.fleet import load_shipped
from simulator.report.sweeps import MEASURES, Sweep
from simulator.scenario import Plan, simulate

PLAN = Plan(
    scenario="spread",
    fleet=load_shipped("fleet-12"),
    days=4,
    faults="heavy",
    nas="hardened",
    agent="chronos",
    machines=1,
)


def test_spread_tells_the_median_the_95th_and_the_worst_seed() -> None:
    """Of what is missed, of lateness, of up time, of wakes."""
    folded, summaries = Sweep(), {seed: simulate(PLAN, seed) for seed in range(10, 31)}
    for seed, summary in summaries.items():
        folded.add(seed, summary)
    lines = list(folded.lines(PLAN, "look at {}".format))
    rows = lines[next(n for n, line in enumerate(lines) if line.startswith("spread")) :]
    for row, (name, (measure, shown)) in zip(rows[1:], MEASURES.items(), strict=False):
        ordered = sorted(measure(summary) for summary in summaries.values())
        worst = int(row.rpartition("--seed ")[2])
        assert row.split("   --seed")[0].strip().startswith(name)
        assert measure(summaries[worst]) == ordered[-1]
        for each in (ordered[10], ordered[19], ordered[20]):
            assert f" {shown(each)}" in row
    assert rows[-1].strip() == f"look at {rows[1].rpartition('--seed ')[2]}"


def test_one_seed_has_no_spread(capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to compare."""
    assert main(("run", "quiet-month", "--days", "2", "--seeds", "1")) == 0
    assert "spread" not in capsys.readouterr().out


def test_command_of_the_worst_seed_repeats_it(capsys: pytest.CaptureFixture[str]) -> None:
    """With the options that were given, in whichever form, but those of many seeds."""
    given = ("run", "year", "--days=3", "--seeds", "4", "--outage", "nas=01:55-02:20", "--seed=5")
    assert main(given) == 0
    told = capsys.readouterr().out.splitlines()[-1].strip()
    assert told.startswith("python -m simulator run year --days=3 --outage nas=01:55-02:20 --seed ")
    assert main(shlex.split(told)[3:]) == 0
    assert capsys.readouterr().out.startswith("scenario   year: 9 jobs of fleet-11, seed ")


def test_violation_comes_with_the_command_that_tells_why(capsys: pytest.CaptureFixture[str]) -> None:
    """In one run, and of many."""
    assert main(("run", "naive-agent", "--days", "5", "--job", "job-05")) == 1
    why = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("why "))
    assert why.split(maxsplit=1)[1] == "python -m simulator shrink naive-agent --days 5 --seed 0"
    assert main(shlex.split(why)[4:]) == 1
    assert "needs " in capsys.readouterr().out
    assert main(("run", "naive-agent", "--days", "5", "--seeds", "3")) == 1
    told = capsys.readouterr().out
    assert "           python -m simulator run naive-agent --days 5 --seed 0" in told
