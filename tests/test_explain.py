"""One job's story, as an operator asks for it."""

from __future__ import annotations

import pytest

from chronos.jobs.instants import format_instant, parse_instant
from simulator.__main__ import main
from simulator.fleet import load_shipped
from simulator.report.story import AFTER, BEFORE, Story
from simulator.scenario import Plan, simulate
from simulator.summary import Summary
from simulator.trace import Tracer
from tests.test_command_line import refused

PLAN = Plan(
    scenario="told",
    fleet=load_shipped("fleet-11"),
    days=10,
    faults="heavy",
    nas="hardened",
    agent="chronos",
    machines=1,
)
LOSSES = ("missed", "interrupted", "failed", "skipped")


def told(job_id: str, around: str | None = None) -> tuple[Summary, list[str], list[str]]:
    """Return what came of the plan, what is told of a job, and the lines of its story."""
    story = Story(job_id, None if around is None else parse_instant(around))
    summary = simulate(PLAN, 0, tracer=Tracer(story.take, tuple(job.id for job in PLAN.fleet.jobs), job_id))
    lines = list(story.lines(summary))
    first = next(number for number, line in enumerate(lines) if line.startswith("story"))
    return summary, lines[:first], lines[first:]


def test_every_loss_of_the_job_has_its_cause() -> None:
    """The counts are those of the summary, and no other job is told of."""
    summary, account, _ = told("job-09")
    lost = next(each for each in summary.accounts if each.job_id == "job-09")
    text = "\n".join(account)
    causes = [line for line in account if " by " in line]
    assert sum(int(line.removeprefix("losses").split()[0]) for line in causes) == sum(
        lost.runs[result] for result in LOSSES
    )
    assert "job-07" not in text
    share = lost.up_seconds / sum(each.up_seconds for each in summary.accounts)
    assert f"{share:.0%}" in account[1]


def test_story_is_told_around_the_first_loss() -> None:
    """It is marked, and what led to it comes before it."""
    _, _, story = told("job-09")
    assert story[0] == "story      job job-09, around its first loss"
    marked = [number for number, line in enumerate(story) if line.startswith("         * ")]
    assert len(marked) == 1
    assert any(loss in story[marked[0]] for loss in LOSSES)
    assert any("is claimed" in line for line in story[: marked[0]])
    assert len(story) - 1 <= BEFORE + AFTER
    times = [line[11:34] for line in story[1:]]
    assert times == sorted(times)


def test_story_is_told_around_an_instant() -> None:
    """The first line from there on is marked."""
    around = "2026-09-20T12:00:00+00:00"
    _, _, story = told("job-09", around)
    assert around in story[0]
    marked = next(number for number, line in enumerate(story) if line.startswith("         * "))
    assert story[marked][11:] >= format_instant(parse_instant(around))[:19]
    assert story[marked - 1][11:] < format_instant(parse_instant(around))[:19]


def test_story_of_a_job_that_lost_nothing_is_its_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    """And says so."""
    assert main(("explain", "quiet-month", "--job", "job-05", "--days", "3")) == 0
    shown = capsys.readouterr().out
    assert "story      job job-05, from its beginning; nothing of it was lost" in shown
    assert "losses" not in shown
    assert " list" not in shown


def test_run_tells_of_one_job_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """The rest of the summary is of the whole."""
    assert main(("run", "quiet-month", "--days", "3")) == 0
    whole = capsys.readouterr().out.splitlines()
    assert main(("run", "quiet-month", "--days", "3", "--job", "job-05")) == 0
    narrow = capsys.readouterr().out.splitlines()
    assert [line for line in whole if not line.startswith("job-") or line.startswith("job-05")] == narrow


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("explain",), "--job"),
        (("explain", "quiet-month", "--job", "job-5"), "did you mean job-05?"),
        (("run", "quiet-month", "--job", "job-5"), "did you mean job-05?"),
        (("run", "quiet-month", "--job", "job-05", "--seeds", "2"), "of one simulation"),
        (("explain", "quiet-month", "--job", "job-05", "--around", "noon"), "--around"),
    ],
)
def test_what_cannot_be_told_is_one_clear_error(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names what was expected."""
    assert says in refused(capsys, *arguments)
