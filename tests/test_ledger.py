"""Whose, when and why: what the summary of a simulation tells."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from chronos.jobs.instants import DAY_US, HOUR_US, MINUTE_US, parse_instant
from chronos.jobs.job import Job
from chronos.jobs.schedule import Interval
from chronos.testing.nas import BUILDS
from chronos.values import evolve
from simulator.agents import AGENTS
from simulator.causes import UNEXPLAINED
from simulator.command_line import main
from simulator.conditions import Conditions
from simulator.fleet import load_shipped
from simulator.ledger import Account, Loss
from simulator.report.accounts import job_lines, lateness_lines
from simulator.scenario import Plan, simulate
from simulator.summary import Summary
from simulator.surroundings import Episode
from simulator.world import Setting, World

ROOT = Path(__file__).parents[1]


def told(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """Return what a command prints."""
    assert main(arguments) == status
    return capsys.readouterr().out


def test_the_summary_in_the_readme_is_that_of_the_year(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody has to keep the sample up to date by heart."""
    assert told(capsys, "run") in (ROOT / "README.md").read_text(encoding="utf-8")


def test_faults_that_a_seed_switches_on_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with its likelihood, in lines that a terminal shows; what is not named does not go wrong."""
    text = told(capsys, "run", "quiet-month", "--days", "1", "--faults", "heavy", "--seed", "3")
    whole = " ".join(line.strip() for line in text.splitlines())
    on = json.loads(
        told(capsys, "run", "quiet-month", "--days", "1", "--faults", "heavy", "--seed", "3", "--json", "-")
    )["switched_on"]
    assert "nas.refusal" in on
    assert "nas.outage" not in on
    assert all(f"{name} {chance:.2%}" in whole for name, chance in on.items())
    assert "nas.outage" not in text
    assert max(map(len, text.splitlines())) <= 100


def heavy(seed: int, *, machines: int = 1, nas: str = "hardened") -> Plan:
    """Return a fleet by chance for some days, with everything going wrong and policies by chance."""
    chance = random.Random(f"ledger {seed}")
    return Plan(
        scenario="drawn",
        fleet=load_shipped(chance.choice(("fleet-02", "fleet-06", "fleet-07", "fleet-09", "fleet-11"))),
        days=chance.randint(2, 5),
        faults="heavy",
        nas=nas,
        agent="chronos",
        machines=machines,
        policies=chance.choice(("own", "random")),
    )


@pytest.mark.parametrize("seed", range(10))
def test_counts_per_job_and_causes_add_up_to_those_of_the_fleet(seed: int) -> None:
    """Every outcome is one job's, and what did not complete has exactly one cause."""
    machines, nas = 1 + seed % 3 // 2, "minimal" if seed % 5 == 4 else "hardened"
    summary = simulate(heavy(seed, machines=machines, nas=nas), seed)
    for result, count in summary.runs.items():
        assert sum(account.runs[result] for account in summary.accounts) == count
        if result != "completed":
            assert sum(loss.count for loss in summary.losses if loss.result == result) == count
    for account in summary.accounts:
        mine = [loss for loss in summary.losses if loss.job_id == account.job_id]
        assert account.due - account.open == account.runs["completed"] + sum(loss.count for loss in mine)
        assert len({(loss.result, loss.cause.name) for loss in mine}) == len(mine)
    assert sum(account.wakes for account in summary.accounts) <= summary.wakes
    assert sum(account.up_seconds for account in summary.accounts) <= summary.agent_up_seconds


def test_lateness_is_that_of_claims_and_not_of_later_fires() -> None:
    """What a start recovers or a ticker fires is as late as its claim, however long its process lives on."""
    for seed in range(1, 5):
        plan = evolve(heavy(seed), days=14, policies="own", conditions=Conditions(stays_up=True))
        summary = simulate(plan, seed)
        worst_ms = max(account.worst_lateness_ms for account in summary.accounts)
        assert summary.lateness_ms["max"] <= worst_ms + 20_000  # a fire is answered when NAS has armed


def test_few_losses_are_unexplained() -> None:
    """Over heavy faults by chance, what nothing explains is less than one in a hundred."""
    losses = [loss for seed in range(100, 108) for loss in simulate(heavy(seed), seed).losses]
    whole = sum(loss.count for loss in losses)
    assert whole > 100
    assert sum(loss.count for loss in losses if loss.cause.name == UNEXPLAINED) * 100 < whole


class Scripted:
    """Decides the ordinary way, but for the decisions of one name, which come one after the other."""

    def __init__(self, **scripts: list[int]) -> None:
        self._scripts = {label: iter(script) for label, script in scripts.items()}

    def choose(self, label: str, options: int, subject: int) -> int:  # noqa: ARG002 - the seam names them
        """Return the next decision of that name, or the ordinary one."""
        return next(self._scripts.get(label.replace(".", "_"), iter(())), 0)


def world_of(choices: Scripted, *, days: int = 1) -> Summary:
    """Return what comes of one hourly job, whose first slot is at 00:10."""
    start_us = parse_instant("2026-10-03T00:00:00+00:00")
    schedule = Interval(period_us=HOUR_US, anchor_us=start_us + 10 * MINUTE_US)
    job = Job(id="hourly", schedule=schedule, next_us=start_us + 10 * MINUTE_US)
    setting = Setting(
        jobs=(job,),
        start_us=start_us,
        duration_us=days * DAY_US,
        has_faults=True,
        promises=BUILDS["hardened"],
        agent=AGENTS["chronos"],
    )
    return World(setting, choices).run()


def one_loss(summary: Summary) -> Loss:
    """Return the one loss that there is."""
    assert summary.verdict == "ok"
    (loss,) = summary.losses
    return loss


def test_an_outage_of_nas_is_the_cause_of_what_it_kept_from_running() -> None:
    """It begins at 00:05 and lasts an hour; the call for 00:10 fails until its retries are spent."""
    loss = one_loss(world_of(Scripted(nas_outage=[2])))
    assert (loss.job_id, loss.result, loss.count) == ("hourly", "missed", 1)
    assert loss.cause.name == "nas.outage"
    assert loss.cause.episode == Episode(
        name="nas.outage",
        from_us=parse_instant("2026-10-03T00:05:00+00:00"),
        until_us=parse_instant("2026-10-03T01:05:00+00:00"),
    )
    assert loss.cause.words == (
        "NAS was down (00:05:00 to 01:05:00); the slot 2026-10-03T00:10:00 passed; "
        "retries spent at 00:22:40; swept at 01:07:40; decided at 01:07:42"
    )


def test_a_late_call_of_the_external_scheduler_is_the_cause() -> None:
    """The first call after the faults have begun comes forty minutes late."""
    loss = one_loss(world_of(Scripted(external_late=[3])))
    assert (loss.result, loss.cause.name, loss.cause.episode) == ("missed", "external.late", None)
    assert loss.cause.words == (
        "the external scheduler called late; the slot 2026-10-03T00:10:00 passed; decided at 00:50:02"
    )


def test_a_run_that_fails_has_itself_to_blame() -> None:
    """Nothing around it did."""
    loss = one_loss(world_of(Scripted(machine_failed_run=[1])))
    assert (loss.result, loss.cause.name, loss.cause.words) == (
        "failed",
        "run.failed",
        "the run itself failed",
    )


def test_hops_of_one_occurrence_add_up_to_its_lateness() -> None:
    """To the millisecond in the report, and to the tenth of a second on a terminal."""
    lateness = simulate(heavy(3), 3).lateness_ms
    for name, hops in lateness["of_one"].items():
        assert sum(hops.values()) == lateness[name]
    lines = [line[21:].replace(",", "") for line in lateness_lines(lateness)][2:]
    rows = [[round(float(cell) * 10) for cell in line.split(" s")[:-1]] for line in lines]
    for column in (3, 4, 5):
        assert sum(row[column] for row in rows[:-1]) == rows[-1][column] == rows[-1][column - 3]


def test_the_table_of_jobs_ends_with_those_that_it_only_counts() -> None:
    """Of forty jobs, twelve are told: first the one that lost most."""
    account = Account(
        job_id="job-00",
        due=3,
        runs={"completed": 3, "failed": 0, "missed": 0, "skipped": 0, "interrupted": 0},
        open=0,
        worst_lateness_ms=2_500,
        wakes=3,
        up_seconds=30,
    )
    fleet = [evolve(account, job_id=f"job-{number:02}") for number in range(40)]
    fleet[30] = evolve(fleet[30], runs={**account.runs, "completed": 2, "missed": 1})
    lines = list(job_lines(fleet))
    assert lines[1].split()[:4] == ["job-30", "3", "2", "1"]
    assert lines[-1].strip() == "and 28 more jobs without a loss"
    assert max(map(len, lines)) <= 100
