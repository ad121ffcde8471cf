"""Schedulers of somebody's own: driven in the simulated world and in the search, blocking or `async`."""

from __future__ import annotations

import re
from functools import cache

import pytest

from chronos.protocol.flow_effects import ArmsListed, JobsLoaded
from chronos.protocol.process_effects import AskedToStart, Came, Perform, Reply
from chronos.protocol.state import Now
from chronos.testing.nas import HARDENED
from simulator.__main__ import main
from simulator.agents import agent_of
from simulator.fleet import load_shipped
from simulator.own.environment import GIVEN
from simulator.own.process import OtherwiseError
from simulator.report.shrunk import shrunk_lines
from simulator.scenario import Plan, simulate
from simulator.search import cases, explore
from simulator.search.space import Space
from simulator.shrink import Shrinking
from simulator.summary import Summary
from tests import own_agents
from tests.test_command_line import refused

STEPS = ("Plausible", "ArmsFirst", "AsksAgain", "Lasts")


def plan(agent: str, *, days: int = 30, faults: str = "heavy", machines: int = 1) -> Plan:
    return Plan(
        scenario="own",
        fleet=load_shipped("fleet-12", start_us=None),
        days=days,
        faults=faults,
        nas="hardened",
        agent=f"tests.own_agents:{agent}",
        machines=machines,
    )


def simulated(agent: str, seed: int = 0, **changes: object) -> Summary:
    return simulate(plan(agent, **changes), seed)  # type: ignore[arg-type]


# --- the worked example -----------------------------------------------------------------------


@cache
def violated(agent: str) -> frozenset[str]:
    return frozenset(
        each.property for seed in range(6) for each in simulated(agent, seed, days=15).violations
    )


def test_a_plausible_scheduler_loses_jobs_leaves_arms_behind_and_forgets_runs() -> None:
    """It is right as long as nothing goes wrong, and wrong in three ways when something does."""
    assert all(simulated("Plausible", seed, faults="none").verdict == "ok" for seed in range(3))
    assert {"NO-LOST-REARM", "NO-ORPHAN", "EVERY-OCCURRENCE"} <= violated("Plausible")


def test_each_repair_of_the_plausible_scheduler_ends_a_kind_of_loss() -> None:
    """Armed before the answer, it survives crashes; asked again, failures; looked after, all of it."""
    assert "NO-LOST-REARM" in violated("ArmsFirst")
    assert violated("AsksAgain") == {"EVERY-OCCURRENCE"}
    assert violated("Lasts") == frozenset()


def test_a_repaired_scheduler_is_safe_with_replicas() -> None:
    assert all(simulated("Lasts", seed, days=10, machines=2).verdict == "ok" for seed in range(4))


@pytest.mark.parametrize(("agent", "is_lost"), [("Plausible", True), ("ArmsFirst", False)])
def test_the_search_finds_what_a_crash_after_the_answer_loses(agent: str, is_lost: bool) -> None:
    """The shortest history says why to arm before the answer, and the repaired one has none such."""
    result = search(agent, cases.CASES[0], limit=1500)
    found = {each.property: each.history for each in result.counterexamples}
    assert ("NO-LOST-REARM" in found) is is_lost
    if is_lost:
        assert found["NO-LOST-REARM"][-2:] == (
            "the answer 2xx to the fire arrives",
            "process 0 crashes",
        )


def search(agent: str, case: cases.Case, limit: int) -> explore.Result:
    own = agent_of(f"tests.own_agents:{agent}")
    return explore.search(Space(case, own, HARDENED), limit=limit)


def test_a_violation_of_an_own_scheduler_shrinks_to_what_it_needs() -> None:
    """One fault of one job is enough, and the story names it."""
    shrunk = Shrinking(plan("Plausible"), 0, "NO-LOST-REARM").shrink()
    assert shrunk is not None
    assert len(shrunk.jobs) == 1
    assert len(shrunk.needs) == 1
    assert any("needs" in line for line in shrunk_lines(shrunk))


# --- blocking and async, and what is at one instant --------------------------------------------


@pytest.mark.parametrize("faults", ["none", "heavy"])
def test_async_and_blocking_schedulers_have_one_history(faults: str) -> None:
    """`await` and a blocking call are two ways to write the same."""
    for seed in range(2):
        blocking, other = (simulated(name, seed, days=10, faults=faults) for name in _PAIR)
        assert blocking.digest == other.digest


_PAIR = ("Plausible", "AsyncPlausible")


def test_the_same_seed_gives_the_same_history() -> None:
    assert simulated("Lasts", 3, days=10).digest == simulated("Lasts", 3, days=10).digest


def test_asyncio_goes_by_simulated_time() -> None:
    """Sleeping, waiting for several, threads and time-outs take what they say."""
    simulated("KeepsTime", days=1, faults="none")
    slept, gathered, thread, timed_out = own_agents.KeepsTime.took
    assert (slept, gathered, timed_out) == (90, 7, 3)
    assert 0 < thread < 1


# --- the search -------------------------------------------------------------------------------


def test_a_process_of_a_search_is_a_value() -> None:
    """What happens to it leaves it as it was, and the same again leads to the same."""
    own, now = agent_of("tests.own_agents:ArmsFirst"), Now(1_000_000, 1_000_000)
    begun = own.begun("0/1")
    once, wanted = own.step(begun, AskedToStart(0), now)
    again, wanted_again = own.step(begun, AskedToStart(0), now)
    assert (once, wanted) == (again, wanted_again)
    assert hash(once) == hash(again)
    assert once != begun == own.begun("0/1")


def test_processes_at_rest_that_know_the_same_are_one_state() -> None:
    """However a process has come to rest, what its agent then knows is all that matters."""
    own, now = agent_of("tests.own_agents:ArmsFirst"), Now(1_000_000, 1_000_000)

    def started(process: object, ticket: int) -> object:
        process, effects = own.step(process, AskedToStart(ticket), now)  # type: ignore[arg-type]
        while effects:
            [effect] = effects
            if isinstance(effect, Reply):
                return process
            assert isinstance(effect, Perform)
            came = ArmsListed({}) if effect.within_us is not None else JobsLoaded(())
            process, effects = own.step(process, Came(effect.number, came), now)  # type: ignore[arg-type]
        raise AssertionError("it never answered")

    once = started(own.begun("0/1"), 0)
    assert started(once, 1) == once


def test_an_agent_that_does_otherwise_the_next_time_cannot_be_searched() -> None:
    """What happened to it is the process; where the same leads elsewhere, there is none."""
    with pytest.raises(OtherwiseError, match="does the same each time"):
        search("DoesOtherwise", cases.CASES[0], limit=200)


def test_check_says_so_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(capsys, "check", "--limit", "200", "--agent", "tests.own_agents:DoesOtherwise")
    assert "a search needs one that does the same each time" in told


# --- what an agent does wrong -----------------------------------------------------------------


@pytest.mark.parametrize("agent", ["Raises", "RaisesBesides", "RaisesInATask"])
def test_an_exception_is_a_crash_and_is_told_with_its_place(
    agent: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever it comes from, the process is over, and the report names exception, file and function."""
    main(["run", "quiet-month", "--days", "2", "--agent", f"tests.own_agents:{agent}"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("raised")]
    where = "work" if hasattr(getattr(own_agents, agent), "work") else "fire"
    assert lines
    for line in lines:
        assert re.search(rf"KeyError: '.*' \(own_agents\.py:\d+, in {where}\)", line)
    raised = simulated("Raises", days=2, faults="none").exceptions
    assert raised[0].count > 1  # NAS delivers the fire again, to a machine that boots again


def test_an_exit_is_a_crash_of_the_agent_and_not_the_end_of_the_simulation() -> None:
    texts = {each.text.partition(":")[0] for each in simulated("Exits", days=2, faults="none").exceptions}
    assert texts == {"SystemExit"}


def test_an_answer_that_is_no_status_is_a_crash() -> None:
    texts = {each.text for each in simulated("AnswersNoStatus", days=2, faults="none").exceptions}
    assert texts == {"TypeError: fire returned True; expected an HTTP status"}


def test_a_machine_that_stops_under_a_run_is_not_safe() -> None:
    """Who tells the host that nothing goes on while a run does is stopped in the middle of it."""
    assert "SAFE-SLEEP" in {
        each.property for each in simulated("SaysNothingGoesOn", days=5, faults="none").violations
    }


def test_what_clings_to_its_life_is_left_where_it_is() -> None:
    """A process that catches everything, its end included, holds nobody up."""
    own_agents.ClingsToLife.ended = 0
    assert simulated("ClingsToLife", days=1).wakes > 0
    assert own_agents.ClingsToLife.ended > 0


REFUSED = {
    "own_agent": "there is no agent 'own_agent'",
    ":factory": "package.module:factory",
    "tests.nowhere:factory": "there is no module 'tests.nowhere'",
    "tests.own_agents:Nobody": "found nothing of that name in tests.own_agents",
    "tests.own_agents:no_factory": "found 5",
    "tests.own_agents:makes_nothing": "made a NoneType without start and on_jobs_changed and fire",
    "tests.own_agents:WantsMore": f"it wants 'database'; there are {', '.join(GIVEN)}",
    "tests.own_agents:AsksInTheFactory": "the environment answers only in start",
}


@pytest.mark.parametrize("command", ["run", "check", "shrink"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_factory_that_is_none_is_refused_in_a_line(
    command: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line says which, and what was expected."""
    assert REFUSED[name] in refused(capsys, command, "--agent", name)
