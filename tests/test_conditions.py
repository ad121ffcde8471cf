"""What an operator asks of a simulated world: outages, boots, runs and clocks of their own."""

from __future__ import annotations

from collections import defaultdict

import pytest

from chronos.jobs.instants import DAY_US, HOUR_US, MINUTE_US, SECOND_US, format_instant, parse_instant
from chronos.values import evolve
from simulator import command_line, conditions_options
from simulator.__main__ import main
from simulator.conditions import Conditions, Party, span
from simulator.fleet import load_shipped
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
    "--run x=5m": ["--run", "no job 'x'", "job-01"],
    "--run job-1=5m": ["did you mean job-01?"],
    "--run 20": ["--run", "expected a time such as 90s, 20m", "'20'"],
    "--run 6h": ["5h at most"],
    "--run 5m --run 6m": ["--run", "got two"],
    "--run job-01=5m --run job-01=6m": ["--run", "got two"],
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
    assert options.split()[0] in line
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
    options = "--outage nas=01:55-02:20 --boot 90s --run 20m --run job-02=5m --clock=-9s --days 1"
    assert main(["run", "quiet-month", *options.split()]) == 0
    expected = (
        "with       nas away 01:55-02:20 UTC every day, every boot 90s, every run 20m, "
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
