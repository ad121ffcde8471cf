"""The simulated world: real fleets hold every property, and what is broken is caught."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from itertools import islice

import pytest

from chronos.jobs.instants import DAY_US, SECOND_US
from chronos.jobs.job import Job
from chronos.jobs.policy import OnInterrupt, Policy
from chronos.jobs.schedule import Cron, Interval, Once, Schedule, slots_after
from chronos.testing import nas
from chronos.values import evolve
from simulator import faults
from simulator.agents import CHRONOS
from simulator.fleet import Fleet, load_shipped, shipped
from simulator.kernel import RandomChoices, RecordedChoices
from simulator.marks import Where, never_met
from simulator.policies import SOURCES
from simulator.scenario import Plan, simulate
from simulator.scenario_file import names
from simulator.scenario_file import shipped as shipped_scenario
from simulator.summary import Summary
from simulator.world import Setting, World


def plan(fleet: str | Fleet, days: int, level: str = "none", **options: object) -> Plan:
    loaded = load_shipped(fleet) if isinstance(fleet, str) else fleet
    chosen = {"nas": "hardened", "agent": "chronos", "machines": 1, **options}
    return Plan(scenario="test", fleet=loaded, days=days, faults=level, **chosen)  # type: ignore[arg-type]


def told(summary: Summary) -> str:
    """Say what was violated, with the history, for the failure message of a test."""
    lines = [f"{each.property} {each.job_id} {each.message}" for each in summary.violations[:3]]
    lines += summary.violations[0].history if summary.violations else []
    return "\n".join([summary.verdict, *summary.unsettled, *lines])


def test_next_run_that_somebody_put_off_is_no_loss() -> None:
    """A jobs file whose next time lies beyond slots of its own, as a wrong clock leaves it."""
    whole = load_shipped("fleet-11")
    jobs = tuple(
        evolve(job, next_us=next(islice(slots_after(job.schedule, job.next_us), 1, None)))
        for job in whole.jobs
        if isinstance(job.schedule, Cron) and job.next_us is not None
    )
    plan = Plan(
        scenario="put off",
        fleet=evolve(whole, jobs=jobs),
        days=10,
        faults="none",
        nas="hardened",
        agent="chronos",
        machines=1,
    )
    summary = simulate(plan, 0)
    assert (summary.verdict, summary.violations) == ("ok", ())


@pytest.mark.parametrize("name", shipped())
def test_fleet_without_faults_completes_every_occurrence(name: str) -> None:
    """In a month in which nothing goes wrong, each occurrence that the schedules name completes.

    Of the fleets whose jobs run every minute it is a week.
    """
    fleet = load_shipped(name)
    days = 7 if name in ("fleet-01", "fleet-03") else 30
    summary = simulate(plan(fleet, days), 0)
    assert summary.verdict == "ok", told(summary)
    end_us = fleet.start_us + days * DAY_US
    expected = 0
    for job in fleet.jobs:
        if job.state != "scheduled" or job.next_us is None:
            continue
        expected += job.next_us < end_us
        for slot in slots_after(job.schedule, job.next_us):
            if slot >= end_us:
                break
            expected += 1
    assert Counter(summary.runs) == Counter(completed=expected, failed=0, missed=0, skipped=0, interrupted=0)


def between_seconds(job: Job) -> Job:
    """Return *job* with each of its slots, or of a cron job the next one, some part of a second later."""
    if job.next_us is None:
        return job
    later_us = job.next_us + 123_457
    match job.schedule:
        case Interval(period_us=period_us):
            schedule: Schedule = Interval(period_us=period_us, anchor_us=later_us)
        case Once():
            schedule = Once(at_us=later_us)
        case Cron():
            schedule = job.schedule
    return evolve(job, schedule=schedule, next_us=later_us)


@pytest.mark.parametrize(("level", "seed"), [("none", 0), ("heavy", 1), ("heavy", 2)])
@pytest.mark.parametrize("name", ["fleet-06", "fleet-12"])
def test_fleet_with_slots_between_seconds_holds_every_property(name: str, level: str, seed: int) -> None:
    """NAS keeps whole seconds, and every occurrence still has its end (incident T1)."""
    fleet = load_shipped(name)
    fleet = evolve(fleet, jobs=tuple(map(between_seconds, fleet.jobs)))
    assert any((job.next_us or 0) % SECOND_US for job in fleet.jobs)
    summary = simulate(plan(fleet, 30, level), seed)
    assert summary.verdict == "ok", told(summary)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", shipped())
def test_fleet_with_heavy_faults_holds_every_property(name: str, seed: int) -> None:
    """Whatever goes wrong, the project's own scheduler loses nothing on a NAS that keeps the promises."""
    summary = simulate(plan(name, 4, "heavy"), seed)
    assert summary.verdict == "ok", told(summary)


@pytest.mark.parametrize("seed", range(8))
def test_replicas_with_heavy_faults_hold_every_property(seed: int) -> None:
    """Two machines on one store, of which each may die, claim every occurrence once."""
    summary = simulate(plan("fleet-02", 10, "heavy", machines=2), seed)
    assert summary.verdict == "ok", told(summary)


@pytest.mark.parametrize("machines", [1, 2])
@pytest.mark.parametrize("seed", range(8))
def test_retried_jobs_with_heavy_faults_hold_every_property(seed: int, machines: int) -> None:
    """Jobs that ask for at-least-once are guarded by the end of their lease."""
    fleet = load_shipped("fleet-02")
    policy = Policy(on_interrupt=OnInterrupt.RETRY)
    jobs = tuple(evolve(job, policy=policy) for job in fleet.jobs)
    summary = simulate(plan(evolve(fleet, jobs=jobs), 10, "heavy", machines=machines), seed)
    assert summary.verdict == "ok", told(summary)


@pytest.mark.parametrize("machines", [1, 2])
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", ["fleet-02", "fleet-06"])
def test_random_policies_with_heavy_faults_hold_every_property(name: str, seed: int, machines: int) -> None:
    """Whatever the owners have chosen, and whatever goes wrong, nothing is lost and nothing runs twice."""
    summary = simulate(plan(name, 5, "heavy", machines=machines, policies="random"), seed)
    assert summary.verdict == "ok", told(summary)


@pytest.mark.parametrize("agent", ["chronos", "naive"])
def test_run_of_a_simulated_agent_ends_at_its_limit(agent: str) -> None:
    """One that would last longer has failed, and no other; without a limit, none of them has."""
    fleet = load_shipped("fleet-02")
    limited = tuple(evolve(job, policy=Policy(time_limit_us=10 * SECOND_US)) for job in fleet.jobs)
    free, summary = (
        simulate(plan(evolve(fleet, jobs=jobs), 10, agent=agent), 0) for jobs in (fleet.jobs, limited)
    )
    assert free.runs["failed"] == free.marks.get("run-timed-out", 0) == 0
    assert summary.runs["failed"] == summary.marks["run-timed-out"] > 0
    assert summary.runs["completed"] == free.runs["completed"] - summary.runs["failed"] > 0
    assert summary.verdict == "ok", told(summary)


def test_each_seed_has_its_own_random_policies() -> None:
    """A campaign goes through many combinations, and each of its runs can be had again."""
    drawn = [
        tuple(job.policy for job in plan("fleet-06", 1, policies="random").setting(seed).jobs)
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) > len(drawn[0]) // 2


def test_own_policies_are_left_as_they_are() -> None:
    """Unless chance is asked for, the jobs are those of the fleet."""
    fleet = load_shipped("fleet-06")
    assert plan(fleet, 1).setting(7).jobs == fleet.jobs


def test_naive_agent_is_caught_for_lost_arms_and_for_orphans() -> None:
    """Arming after the run and believing a map in memory loses jobs and leaves arms behind."""
    violated = Counter(
        violation.property
        for seed in range(20)
        for violation in simulate(plan("fleet-02", 10, "heavy", agent="naive"), seed).violations
    )
    assert violated["NO-LOST-REARM"]
    assert violated["NO-ORPHAN"]


def test_naive_agent_works_while_nothing_goes_wrong() -> None:
    """What is wrong with it shows only under faults: it is not caught by its looks."""
    assert simulate(plan("fleet-02", 10, agent="naive"), 0).verdict == "ok"


# Each promise of NAS is earned: without it alone, this is what a run with these faults violates. The
# three that need a message to be late at the wrong moment are earned by the exhaustive search.
EARNED: dict[str, tuple[str, faults.Weights, str]] = {
    "names_by_generation": ("fleet-12", {faults.CHANGE: (0.0, 1.0, 0.0, 0.0, 0.0)}, "NO-LOST-REARM"),
    "deletes_own_generation": ("fleet-02", {faults.CRASH: (0.98, 0.02)}, "NO-LOST-REARM"),
    "sweeps_missing": ("fleet-02", {faults.NAS_CREATE: (0.95, 0.05)}, "NO-LOST-REARM"),
    "sweeps_undelivered": ("fleet-02", {faults.NAS_OUTAGE: (0.5, 0.0, 0.0, 0.5)}, "NO-LOST-REARM"),
    "drops_older_relays": (
        "fleet-12",
        {faults.CHANGE: (0.0, 1.0, 0.0, 0.0, 0.0), faults.NAS_DELETE: (0.0, 1.0)},
        "ONE-ARM",
    ),
}


def earned(promise: str, promises: nas.Promises, seed: int) -> Counter[str]:
    name, weights, _ = EARNED[promise]
    fleet = load_shipped(name)
    setting = Setting(
        jobs=fleet.jobs,
        start_us=fleet.start_us,
        duration_us=6 * DAY_US,
        has_faults=True,
        promises=promises,
        agent=CHRONOS,
    )
    table = {**faults.weights("none", seed), **weights}
    summary = World(setting, RandomChoices(seed, table)).run()
    return Counter(violation.property for violation in summary.violations)


@pytest.mark.parametrize("promise", EARNED)
def test_promise_of_nas_is_earned(promise: str) -> None:
    """A NAS that breaks this one promise loses or orphans an arm; one that keeps all does not."""
    broken = evolve(nas.HARDENED, **{promise: False})
    expected = EARNED[promise][2]
    seeds = range(12)
    assert any(earned(promise, broken, seed)[expected] for seed in seeds)
    assert not any(earned(promise, nas.HARDENED, seed) for seed in seeds)


def test_each_seed_has_its_own_digest() -> None:
    """Two runs of one seed have one history; another seed has another."""
    digests = [simulate(plan("fleet-12", 3, "heavy"), seed).digest for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("hash_seed", ["0", "1", "4242"])
def test_digest_is_the_same_in_another_process(hash_seed: str) -> None:
    """Nothing depends on the process or on its hash seed."""
    code = (
        "from tests.test_simulator import plan\nfrom simulator.scenario import simulate\n"
        "print(simulate(plan('fleet-12', 3, 'heavy', machines=2), 7).digest)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == simulate(plan("fleet-12", 3, "heavy", machines=2), 7).digest


class Recording:
    """Choices that note what was decided."""

    def __init__(self, inner: RandomChoices) -> None:
        self.inner = inner
        self.decided: list[int] = []

    def choose(self, label: str, options: int, subject: int) -> int:
        decision = self.inner.choose(label, options, subject)
        assert 0 <= decision < options, label
        self.decided.append(decision)
        return decision


def test_decisions_are_told_apart_by_their_names() -> None:
    """Each has words and a source: incidents that are told, or a sentence."""
    assert len({each.name for each in faults.DECISIONS}) == len(faults.DECISIONS)
    assert all(each.words for each in faults.DECISIONS)
    assert all(bool(each.incidents) != each.reason.endswith(".") for each in faults.DECISIONS)


def test_misspelt_decision_is_an_error() -> None:
    """It does not quietly mean that nothing ever goes wrong."""
    choices = RandomChoices(0, faults.weights("heavy", 0))
    assert choices.choose(faults.CRASH.name, len(faults.CRASH.options), 0) in (0, 1)
    with pytest.raises(ValueError, match=r"machine\.crush"):
        choices.choose("machine.crush", 2, 0)


def test_what_one_job_meets_does_not_depend_on_another() -> None:
    """Each decision about each subject has numbers of its own."""

    def met(others: int) -> list[int]:
        choices, found = RandomChoices(3, faults.weights("heavy", 3)), []
        for _ in range(200):
            for other in range(others):
                choices.choose(faults.LATENCY.name, len(faults.LATENCY.options), other + 1)
            found.append(choices.choose(faults.LATENCY.name, len(faults.LATENCY.options), 0))
        return found

    assert met(0) == met(5)
    assert len(set(met(0))) > 5


@pytest.mark.parametrize("row", [(1.0,), (0.9, 0.05, 0.05)])
def test_weights_that_are_not_those_of_the_options_are_an_error(row: tuple[float, ...]) -> None:
    """One weight for each option, the ordinary one first."""
    with pytest.raises(ValueError, match="2 options"):
        RandomChoices(0, {faults.CRASH: row})


def test_recorded_decisions_repeat_the_history() -> None:
    """A list of decisions is the whole of a run, and can be handed on as a report."""
    wanted = plan("fleet-12", 3, "heavy")
    recording = Recording(wanted.choices(5))  # type: ignore[arg-type]
    first = World(wanted.setting(5), recording).run()
    again = World(wanted.setting(5), RecordedChoices(recording.decided)).run()
    assert again == first
    assert max(recording.decided) > 0


def test_ordinary_decisions_alone_hold_every_property() -> None:
    """The empty list of decisions is the plainest history there is."""
    summary = World(plan("fleet-12", 2, "heavy").setting(0), RecordedChoices([])).run()
    assert summary.verdict == "ok", told(summary)


def test_every_interesting_situation_is_met() -> None:
    """A suite that never meets a situation proves nothing about it."""
    seen: set[str] = set()
    for seed in range(24):
        own_or_random = SOURCES[seed // 2 % 2]
        summary = simulate(plan("fleet-02", 12, "heavy", machines=1 + seed % 2, policies=own_or_random), seed)
        assert summary.verdict == "ok", told(summary)
        seen |= summary.marks.keys()
    assert never_met(seen, Where.HARDENED) == []


def test_agent_that_nas_refuses_fires_its_jobs_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """No run is missed while NAS refuses its identity and the machine lives; after that, NAS has its arms."""
    always = {each: each.weights for each in faults.VARIATIONS} | {faults.NAS_REFUSAL: (0.5, 0.3, 0.2)}
    monkeypatch.setattr(faults, "weights", lambda *_, **__: always)
    for seed, machines in ((1, 1), (2, 2)):
        summary = simulate(plan("fleet-11", 8, "heavy", machines=machines), seed)
        assert summary.verdict == "ok", told(summary)
        assert summary.marks["identity-refused"] >= 3
        assert summary.runs["missed"] == 0, told(summary)
        assert summary.fires < summary.runs["completed"]  # the rest it has fired itself


def test_published_contract_without_promises_loses_arms() -> None:
    """The agent cannot make up for a NAS that promises no more than the published contract."""
    summaries = [
        simulate(plan("fleet-12", 6, "heavy", nas="minimal", policies=source), seed)
        for source in SOURCES
        for seed in range(4)
    ]
    violated = Counter(violation.property for summary in summaries for violation in summary.violations)
    assert violated["NO-LOST-REARM"]
    assert never_met((mark for summary in summaries for mark in summary.marks), Where.MINIMAL) == []


@pytest.mark.parametrize("name", names())
def test_scenario_names_what_exists(name: str) -> None:
    """Each shipped scenario stands on a shipped fleet, or on jobs of its own."""
    scenario = shipped_scenario(name)
    assert scenario.name == name
    assert (scenario.fleet in shipped()) is (scenario.own is None)
