"""Each incident of production as a scenario: the project's agent is safe, and one that does it is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chronos.values import evolve
from simulator.agents import AGENTS
from simulator.judging import differences, judge
from simulator.scenario_file import is_of_an_incident, names, shipped
from tests.mutants import MUTANTS, agent_of

TEXT = (Path(__file__).parent.parent / "docs" / "incidents.md").read_text(encoding="utf-8")
INCIDENTS = re.findall(r'<span id="(\w+)">', TEXT)
NAMES = [name for name in names() if is_of_an_incident(name)]


def test_every_incident_has_a_scenario_of_its_name() -> None:
    assert set(INCIDENTS) <= set(NAMES)
    assert len(names()) >= 45
    for name in NAMES:
        scenario = shipped(name)
        assert scenario.incident == name.upper()
        assert scenario.expects[0].agent == "chronos"


@pytest.mark.parametrize("name", NAMES)
def test_scenario_comes_out_as_expected_and_tells_the_agents_apart(name: str) -> None:
    """The agent that ships is safe; whatever shows the incident does not come out as that does."""
    scenario = shipped(name)
    first, *others = scenario.expects
    assert judge(scenario, first).differences == ()
    for other in others:
        judged = judge(scenario, other)
        assert judged.differences == ()
        if other.agent == first.agent and not other.violates:
            continue  # what an older NAS does not spoil
        same = evolve(other, violates=first.violates, runs=first.runs, counts=first.counts)
        assert list(differences(same, judged.summary))


# Mistakes in the protocol, and the scenarios that show what they lead to.
BROKEN = {
    "a duplicate is answered and arms nothing": ("l1", "l7"),
    "a failed arm is taken for an accepted one": ("l3", "l6", "o1"),
    "a fire is answered before its job is armed": ("l5", "l6", "l7"),
    "arms go without their place in the order": ("l9",),
    "a run by hand takes the slot": ("d2",),
    "a conflict is taken for a success": ("d3",),
    "the lease of another process is not believed": ("d4",),
    "the host is not told of a run in flight": ("d5", "w1"),
    "a paused job is woken all the same": ("d6", "o2"),
    "a pause cancels nothing": ("d6", "o2"),
    "the run starts before its claim is stored": ("d3", "d8"),
    "a process that has ended is never found out": ("l5", "o3"),
    "an interrupted run has no outcome": ("l5", "o3"),
    "older occurrences vanish without an outcome": ("s4",),
    "a fire from the future is believed": ("t2",),
}


@pytest.mark.parametrize("mistake", BROKEN)
def test_protocol_that_is_broken_in_the_way_of_an_incident_fails_its_scenario(
    mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = agent_of(next(mutant for mutant in MUTANTS if mutant.name == mistake))
    monkeypatch.setitem(AGENTS, broken.name, broken)
    for name in BROKEN[mistake]:
        scenario = shipped(name)
        expects = [each for each in scenario.expects if each.agent == "chronos"]
        assert any(judge(scenario, evolve(each, agent=broken.name)).differences for each in expects)
