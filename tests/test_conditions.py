"""What an operator asks of a simulated world: outages, boots, runs and clocks of their own."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from chronos.jobs.instants import DAY_US, HOUR_US, MINUTE_US, SECOND_US, format_instant, parse_instant
from chronos.values import evolve
from simulator import command_line, conditions_options, faults
from simulator.__main__ import main
from simulator.compare import Cost, plain
from simulator.conditions import Conditions, Party, span
from simulator.fleet import load_shipped, path
from simulator.kernel import Choices
from simulator.scenario import Plan, simulate
from simulator.summary import Summary
from simulator.wire import STORES
from simulator.world import World


def asked(*options: str) -> Conditions:
    """Return the conditions that options of `run` ask for."""
    return conditions_options.conditions(command_line._parser().parse_args(["run", *options]))


def plan(fleet: str, days: int, *options: str, **others: object) -> Plan:
    chosen = {"faults": "none", "nas": "hardened", "agent": "chronos", "machines": 1, **others}
    return Plan(
        scenario="test",
        fleet=load_shipped(fleet),
        days=days,
        conditions=asked(*options),
        **chosen,  # type: ignore[arg-type]
    )


def told(summary: Summary) -> str:
    """Say what was violated, for the failure message of a test."""
    lines = [f"{each.property} {each.job_id} {each.message}" for each in summary.violations[:3]]
    return "\n".join([summary.verdict, *summary.unsettled, *lines])


# --- how they are spelt ---------------------------------------------------------------------

REFUSED = {
    "--outage nas": ["--outage", "WHO=WHEN", "'nas'"],
    "--outage nass=01:00-02:00": ["'nass'", "nas, host, external", "did you mean nas?"],
    "--outage nas=": ["expected hours or an interval", "''"],
    "--outage nas=25:00-26:00": ["expected a time of a day, 00:00 to 24:00", "'25:00'"],
    "--outage nas=01:60-02:00": ["expected a time of a day", "'01:60'"],
    "--outage nas=01:00-01:00": ["two different times", "'01:00-01:00'"],
    "--outage nas=01:00-02:00+25:00": ["expected an offset", "'+25:00'"],
    "--outage nas=2026-10-03T01:55/2026-10-03T02:20": ["offset", "2026-10-03T01:55"],
    "--outage nas=2026-10-03T02:55Z/2026-10-03T02:20Z": ["an end after the beginning"],
    "--outage nas=2019-10-03T01:55Z/2019-10-03T02:20Z": ["within the calendar", "2026-05-15"],
    "--boot 0": ["--boot", "expected a time such as 90s", "'0'", "stuck"],
    "--boot 0s": ["more than nothing", "'0s'"],
    "--boot 2h": ["1h at most"],
    "--boot stuk": ["'stuk'", "stuck"],
    "--idle 0s": ["--idle", "more than nothing", "'0s'", "never"],
    "--idle 25h": ["24h at most"],
    "--idle nevr": ["'nevr'", "never"],
    "--run x=5m": ["--run", "no job 'x'", "job-01"],
    "--run job-1=5m": ["did you mean job-01?"],
    "--run 20": ["--run", "expected a time such as 90s, 20m", "'20'"],
    "--run 6h": ["5h at most"],
    "--run 5m --run 6m": ["--run", "got two"],
    "--run job-01=5m --run job-01=6m": ["--run", "got two"],
    "--only nas.outage": ["--only", "expected --faults"],
    "--without nas.outage": ["--without", "expected --faults"],
    "--faults heavy --only nas.outag": ["'nas.outag'", "did you mean nas.outage?"],
    "--faults heavy --without nas.busy,x": ["no fault 'x'", "nas.outage"],
    "--fault network.reply": ["FAULT=CHANCE", "'network.reply'"],
    "--fault network.reply=2": ["0% to 100%", "'2'"],
    "--fault network.reply=often": ["0% to 100%", "'often'"],
    "--fault network.rely=1%": ["did you mean network.reply?"],
    "--fault nas.busy=1% --fault nas.busy=2%": ["--fault", "got two"],
    "--fault wire.fire=1%": ["wire.fire", "--wire --wire-faults"],
    "--compare": ["expected something to compare, such as --outage"],
    "--clock soon": ["--clock", "+40s", "'soon'"],
    "--clock +25h": ["24h at most"],
}


@pytest.mark.parametrize("options", REFUSED)
def test_condition_that_makes_no_sense_is_refused_in_one_line(
    options: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line names the option, the value and what was expected."""
    assert main(["run", "quiet-month", *options.split()]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    for words in REFUSED[options]:
        assert words in line, line


DAY = parse_instant("2026-10-03T00:00:00Z")


def hours(*spans: tuple[float, float]) -> list[tuple[int, int]]:
    return [(DAY + round(begin * HOUR_US), DAY + round(end * HOUR_US)) for begin, end in spans]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["nas=01:30-02:00"], [(1.5, 2), (25.5, 26)]),
        (["nas=01:30:36-02:00Z"], [(1.51, 2), (25.51, 26)]),
        (["nas=23:00-01:00"], [(0, 1), (23, 25), (47, 48)]),
        (["nas=22:00-24:00"], [(22, 24), (46, 48)]),
        (["nas=00:00-24:00"], [(0, 48)]),
        (["nas=01:30-02:00+02:00"], [(23.5, 24), (47.5, 48)]),
        (["nas=23:30-00:30-02:00"], [(1.5, 2.5), (25.5, 26.5)]),
        (["nas=01:00-03:00", "nas=02:00-04:00", "nas=04:00-05:00"], [(1, 5), (25, 29)]),
        (["nas=2026-10-03T01:30Z/2026-10-03T04:00+02:00", "host=05:00-06:00"], [(1.5, 2)]),
        (["nas=2026-10-02T01:30Z/2026-10-09T04:00Z"], [(0, 48)]),
        (["host=05:00-06:00"], []),
    ],
)
def test_outages_come_in_order_and_apart(options: list[str], expected: list[tuple[float, float]]) -> None:
    """Within two days: what crosses midnight, has an offset, overlaps, or is cut off by the calendar."""
    conditions = asked(*(word for each in options for word in ("--outage", each)))
    assert list(conditions.away(Party.NAS, DAY, DAY + 2 * DAY_US)) == hours(*expected)


@pytest.mark.parametrize(
    ("text", "us"),
    [("90s", 90 * SECOND_US), ("1h30m", 90 * MINUTE_US), ("1.5s", 1_500_000), ("250ms", 250_000)],
)
def test_time_reads_as_it_is_spelt(text: str, us: int) -> None:
    """In options, and in the line that tells what was asked for."""
    conditions = asked("--run", text)
    assert conditions.run_us == us
    assert asked("--run", span(us)).run_us == us


def test_what_was_asked_for_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """One line of the summary names all of it, and without options there is none."""
    options = "--outage nas=01:55-02:20 --boot 90s --idle 5m --run 20m --run job-02=5m --clock=-9s --days 1"
    assert main(["run", "quiet-month", *options.split()]) == 0
    expected = (
        "with       nas away 01:55-02:20 UTC every day, every boot 90s, idle 5m, every run 20m, "
        "runs of job-02 5m, clock -9s"
    )
    assert expected in capsys.readouterr().out.splitlines()
    assert main(["run", "quiet-month", "--days", "1"]) == 0
    assert "\nwith " not in capsys.readouterr().out


# --- what they do ---------------------------------------------------------------------------


def test_each_run_takes_as_long_as_was_asked_for() -> None:
    """The time of a job goes before that of all."""
    quick = simulate(plan("fleet-12", 2, "--run", "1s"), 0)
    slow = simulate(plan("fleet-12", 2, "--run", "1s", "--run", "job-01=1h"), 0)
    assert slow.agent_up_seconds > quick.agent_up_seconds + 3000


def test_boot_that_takes_longer_than_the_relay_waits_loses_nothing() -> None:
    """Each fire is repeated, and what was claimed once is not claimed again."""
    summary = simulate(plan("fleet-12", 30, "--boot", "90s"), 0)
    assert summary.verdict == "ok", told(summary)
    assert summary.runs == simulate(plan("fleet-12", 30), 0).runs
    assert summary.lateness_ms["p50"] > 85_000
    assert summary.marks["fire-answered-duplicate"] > 400


def test_clock_that_is_behind_wakes_for_nothing_and_loses_nothing() -> None:
    """A fire for an instant that is ahead by that clock waits for it, whatever became of the boot."""
    behind, plain = (simulate(plan("fleet-12", 7, *options), 0) for options in (["--clock=-40s"], []))
    assert behind.verdict == "ok", told(behind)
    assert behind.runs == plain.runs
    assert behind.wakes_for_nothing > plain.wakes_for_nothing + 50


def test_boots_that_are_stuck_run_nothing_until_they_are_mended() -> None:
    """What is due meanwhile is missed, once, and everything settles afterwards."""
    summary = simulate(plan("fleet-12", 3, "--boot", "stuck"), 0)
    assert summary.verdict == "ok", told(summary)
    assert summary.wakes < 10
    assert summary.runs["missed"] > 30


def test_idle_machine_is_stopped_when_its_time_is_over() -> None:
    """It is up for exactly so much longer, where no run comes meanwhile; and has the same runs."""
    one, two = (simulate(plan("fleet-12", 3, "--idle", each), 0) for each in ("60s", "70s"))
    assert one.verdict == two.verdict == "ok", told(two)
    assert one.runs == two.runs
    assert one.wakes == two.wakes
    assert two.agent_up_seconds - one.agent_up_seconds == 10 * one.wakes
    assert simulate(plan("fleet-12", 3, "--idle", "1h"), 0).wakes < one.wakes


@pytest.mark.parametrize("level", ["none", "heavy"])
def test_machine_that_is_always_on_is_started_again_when_it_dies(level: str) -> None:
    """It boots once when nothing goes wrong, and is up nearly all the time when everything does."""
    for seed in range(4):
        summary = simulate(plan("fleet-12", 7, "--idle", "never", faults=level), seed)
        assert summary.verdict == "ok", told(summary)
        share = summary.calendar_up_us / SECOND_US / summary.simulated_seconds
        assert share > (0.85 if level == "heavy" else 0.9999)
        assert level == "heavy" or summary.wakes == 1


def test_machine_that_is_always_on_is_not_up_while_its_host_is_away() -> None:
    """And is afterwards, though nothing calls for it."""
    summary = simulate(plan("fleet-12", 3, "--idle", "never", "--outage", "host=00:00-06:00"), 0)
    assert summary.verdict == "ok", told(summary)
    away_us = summary.simulated_seconds * SECOND_US - summary.calendar_up_us - summary.calendar_boots_us
    assert away_us == pytest.approx(3 * 6 * HOUR_US, abs=MINUTE_US)


@pytest.mark.parametrize("who", Party)
def test_outage_leaves_nothing_unsettled(who: str) -> None:
    """What has come while somebody was away is taken once afterwards, or missed."""
    summary = simulate(plan("fleet-11", 7, "--outage", f"{who}=01:55-09:20"), 0)
    assert summary.verdict == "ok", told(summary)
    assert summary.lateness_ms["max"] > 600_000 or summary.runs["missed"]


def test_boot_that_is_going_on_when_the_host_fails_is_lost() -> None:
    """No machine is up during the outage, though it had begun to boot before."""
    first_us = min(job.next_us for job in load_shipped("fleet-12").jobs if job.next_us is not None)
    begins, ends = (format_instant(first_us + after_us) for after_us in (30 * SECOND_US, 10 * MINUTE_US))
    options = ("--boot", "90s", "--outage", f"host={begins}/{ends}")
    summary = simulate(plan("fleet-12", 1, *options), 0)
    assert summary.verdict == "ok", told(summary)
    assert summary.lateness_ms["max"] > 570_000


def test_outage_by_chance_ends_none_that_was_asked_for() -> None:
    """NAS is back when both are over."""
    always = ("--outage", "nas=00:00-24:00")
    alone = simulate(plan("fleet-12", 3, *always), 0)
    both = simulate(plan("fleet-12", 3, *always, "--fault", "nas.outage=100%"), 0)
    assert both.verdict == alone.verdict == "ok", told(both)
    assert both.runs == alone.runs
    assert both.marks["nas-outage"] > 10


def test_runs_that_follow_upon_each_other_for_long_come_to_an_end() -> None:
    """What has waited for a run of hours when the calendar ends runs after it."""
    summary = simulate(plan("fleet-11", 2, "--run=5h", faults="heavy", policies="random"), 3)
    assert summary.verdict == "ok", told(summary)


LIVELY = (
    "--outage=nas=01:55-02:20",
    "--outage=host=04:00-04:40",
    "--outage=external=05:55-07:30",
    "--boot=90s",
    "--run=3m",
    "--clock=+40s",
)


@pytest.mark.parametrize("store", STORES[:2])
@pytest.mark.parametrize("level", ["none", "heavy"])
def test_history_of_what_ships_is_that_of_the_model_under_conditions(level: str, store: str) -> None:
    """What was asked for happens to either of them, to the digest."""
    asked_for = plan("fleet-11", 1, *LIVELY, faults=level)
    model, shipped = simulate(asked_for, 3), simulate(evolve(asked_for, wire=store), 3)
    assert model.verdict == "ok", told(model)
    assert shipped.digest == model.digest
    assert shipped.runs == model.runs


@pytest.mark.parametrize("idle", ["5m", "never"])
def test_history_of_what_ships_is_that_of_the_model_however_long_it_may_be_idle(idle: str) -> None:
    """To the digest, with everything going wrong."""
    asked_for = plan("fleet-11", 1, "--idle", idle, faults="heavy")
    model, shipped = simulate(asked_for, 3), simulate(evolve(asked_for, wire="memory"), 3)
    assert model.verdict == "ok", told(model)
    assert shipped.digest == model.digest


class Noted:
    """Choices that are noted, by the decision and the subject."""

    def __init__(self, choices: Choices) -> None:
        self._choices = choices
        self.noted: dict[tuple[str, int], list[int]] = defaultdict(list)

    def choose(self, label: str, options: int, subject: int) -> int:
        choice = self._choices.choose(label, options, subject)
        self.noted[label, subject].append(choice)
        return choice


def choices_of(asked_for: Plan, seed: int) -> dict[tuple[str, int], list[int]]:
    noted = Noted(asked_for.choices(seed))
    World(asked_for.setting(seed), noted).run()
    return noted.noted


@pytest.mark.parametrize("option", LIVELY)
def test_choices_of_a_seed_are_the_same_whatever_is_asked_for(option: str) -> None:
    """The n-th time that something is decided about a job, or about all, the decision is the same."""
    plain = choices_of(plan("fleet-11", 2, faults="heavy"), 5)
    other = choices_of(plan("fleet-11", 2, option, faults="heavy"), 5)
    shared = plain.keys() & other.keys()
    assert len(shared) > 50
    for each in shared:
        assert all(one == two for one, two in zip(plain[each], other[each], strict=False)), each


# --- which faults ---------------------------------------------------------------------------


def test_faults_are_those_that_were_asked_for() -> None:
    """What is left of a level is as likely as ever, and one by name is as likely as that at any level."""
    whole = plan("fleet-12", 1, faults="heavy").weights(1)
    only = plan("fleet-12", 1, "--only", "nas.outage,machine.kill", faults="heavy").weights(1)
    without = plan("fleet-12", 1, "--without", "nas.outage", "--without", "nas.busy", faults="heavy").weights(
        1
    )
    kept = {faults.NAS_OUTAGE, faults.KILL, *faults.VARIATIONS}
    assert only == {each: row for each, row in whole.items() if each in kept}
    assert without == {
        each: row for each, row in whole.items() if each not in (faults.NAS_OUTAGE, faults.NAS_BUSY)
    }
    one = plan("fleet-12", 1, "--fault", "network.reply=1%").weights(1)
    assert set(one) - set(faults.VARIATIONS) == {faults.REPLY}
    assert one[faults.REPLY] == pytest.approx((0.99, 0.005, 0.005))


def test_fault_by_name_happens_without_a_level() -> None:
    """And nothing else goes wrong."""
    summary = simulate(plan("fleet-12", 30, "--fault", "network.reply=20%"), 0)
    assert summary.verdict == "ok", told(summary)
    assert summary.marks["answer-to-a-fire-lost"] > 10
    assert "crash-during-a-run" not in summary.marks


# --- what it costs --------------------------------------------------------------------------

OWN = ("run", "--jobs", str(path("fleet-07")), "--days", "7", "--compare")
ANSWERS = {
    "--outage nas=2026-09-20T01:55Z/2026-09-20T02:20Z": [
        "cost       you lose 5 runs of job-04; up time -0.1%",
        "           in all         2,361 completed before, 2,356 now, 5 more missed",
        "           job-04         2,112 completed before, 2,107 now, 5 more missed",
        "           deliveries     2,361 before, 2,357 now: -0.2%",
    ],
    "--boot 90s": [
        "cost       you lose no run; up time -2.6%",
        "           in all         2,255 completed before, 2,255 now",
        "           deliveries     2,255 before, 4,447 now: +97.2%",
    ],
    "--run 20m": [
        "cost       you lose 1,601 runs of job-04; up time +578.7%",
        "           in all         2,255 completed before, 654 now, 1,601 more skipped",
        "           job-04         2,016 completed before, 415 now, 1,601 more skipped",
        "           deliveries     2,255 before, 2,255 now: as before",
    ],
}


@pytest.mark.parametrize("options", ANSWERS)
def test_question_is_answered_by_one_command(options: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What a night's outage of NAS, a slow image and slow runs cost a real fleet."""
    assert main([*OWN, *options.split()]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = lines[next(place for place, line in enumerate(lines) if line.startswith("cost")) :]
    assert found[: len(ANSWERS[options])] == ANSWERS[options]


def test_costs_of_seeds_add_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the terminal, and in the object of each seed."""
    report = tmp_path / "report.json"
    options = "quiet-month --days 5 --faults heavy --outage host=05:00-15:00 --compare --seeds 3 --json"
    assert main(["run", *options.split(), str(report)]) == 0
    objects = json.loads(report.read_text())
    lost = [each["cost"]["lost"] for each in objects]
    assert sum(lost) > 10
    assert f"cost       you lose {sum(lost)} runs of " in capsys.readouterr().out
    for each in objects:
        assert each["with"] == ["host away 05:00-15:00 UTC every day"]
        assert each["runs"] == {name: change["after"] for name, change in each["cost"]["runs"].items()}
        by_job = each["cost"]["jobs"].values()
        assert sum(job["lost"] for job in by_job) == each["cost"]["lost"]


def test_what_is_compared_is_the_same_without_what_was_asked_for() -> None:
    """Over the same calendar, with the time to settle."""
    asked_for = plan("fleet-12", 2, "--outage", "nas=01:55-02:20", faults="none")
    without = plain(asked_for)
    assert without.conditions == Conditions()
    assert without.setting(0).end_us == asked_for.setting(0).end_us
    cost = Cost()
    cost.add(simulate(without, 0), simulate(without, 0))
    assert cost.changed() == {}
    assert not any(change.more for change in (*cost.runs.values(), *cost.totals.values()))


HEAVY = (*LIVELY, "--boot=stuck", "--boot=10m", "--run=2h", "--clock=-40s", "--fault=machine.crash=2%")


@pytest.mark.parametrize("option", HEAVY)
@pytest.mark.parametrize("fleet", ["fleet-11", "fleet-06"])
def test_every_property_holds_whatever_is_asked_for(fleet: str, option: str) -> None:
    """With everything else going wrong, and policies by chance."""
    for seed in (1, 2):
        summary = simulate(plan(fleet, 3, option, faults="heavy", policies="random"), seed)
        assert summary.verdict == "ok", f"seed {seed}: {told(summary)}"
