"""Every mutant is found: by the test of the rule that it breaks, or by the property that names it."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from chronos.jobs.policy import OnInterrupt, Policy
from chronos.protocol import flow as flows
from chronos.testing import nas
from chronos.values import evolve
from simulator import scenario
from simulator.agents import AGENTS, CHRONOS
from simulator.fleet import Fleet, load_shipped
from simulator.properties import FOLLOWED_UP, NO_LOST_REARM
from simulator.search.cases import Case
from simulator.search.explore import search
from simulator.search.space import Space
from tests import test_machine, test_process, test_transitions
from tests.mutants import (
    ACCEPTS_THE_ARM_ITSELF,
    BETWEEN,
    CLOSE,
    DISTANT,
    FORGETS_WHAT_IS_OWED,
    MUTANTS,
    ONE_RUN,
    PAUSED,
    RETRIED,
    TAKES_A_DELIVERY_FOR_AN_ARM,
    TOGETHER,
    Mutant,
    StaleMutantError,
    agent_of,
    protocol_of,
)

_OF_PROTOCOL = ("chronos.protocol.", "chronos.jobs.")

_OF_RULES = (test_transitions, test_machine, test_process)

ALL = (*MUTANTS, ACCEPTS_THE_ARM_ITSELF, FORGETS_WHAT_IS_OWED)


def is_of_protocol(value: object) -> bool:
    """Return whether a name of a test's module stands for a function or a module of the protocol."""
    if inspect.isfunction(value):
        return value.__module__.startswith(_OF_PROTOCOL)
    return inspect.ismodule(value) and value.__name__.startswith(_OF_PROTOCOL)


@pytest.mark.parametrize("mutant", [pytest.param(each, id=each.name) for each in ALL if each.rule])
def test_test_of_a_rule_fails_for_the_mutant_that_breaks_it(
    mutant: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule's own test holds for the protocol, and not for the protocol with the mistake."""
    tests = next(module for module in _OF_RULES if hasattr(module, mutant.rule))
    getattr(tests, mutant.rule)()
    protocol = protocol_of(mutant)
    for name, value in tuple(vars(tests).items()):
        if is_of_protocol(value):
            monkeypatch.setattr(tests, name, _broken(value, protocol))
    # One effect or run is unpacked where there is none, or the flow was done before its time.
    with pytest.raises((AssertionError, ValueError, flows.ProtocolError)):
        getattr(tests, mutant.rule)()


def _broken(value: Any, protocol: dict[str, Any]) -> Any:
    """Return a function or a module of the protocol with the mistake; what it stands on stays."""
    if inspect.ismodule(value):
        return protocol.get(value.__name__.rpartition(".")[2], value)
    module = protocol.get(value.__module__.rpartition(".")[2])
    return getattr(module, value.__name__, value)


# A sceptic reads a history of so many events at one sitting.
MAX_EVENTS = 14


@pytest.mark.parametrize(
    "mutant", [pytest.param(each, id=each.name) for each in MUTANTS if each.case is not None]
)
def test_search_names_the_property_that_a_mutant_breaks(mutant: Mutant) -> None:
    """Each mistake is told by a property that speaks of it, after a history of a few steps."""
    assert mutant.case is not None
    crashes, duplicates, losses = mutant.budget
    budget = {"crashes": crashes, "duplicates": duplicates, "losses": losses}
    result = search(Space(mutant.case, agent_of(mutant), mutant.promises, **budget), limit=mutant.states)
    found = {each.property: len(each.history) for each in result.counterexamples}
    named = [found[each.id] for each in mutant.found_by if each.id in found]
    assert named, found
    assert min(named) <= MAX_EVENTS


@pytest.mark.parametrize(
    "case", [CLOSE, RETRIED, TOGETHER, DISTANT, ONE_RUN, PAUSED, BETWEEN], ids=lambda case: case.name
)
def test_search_finds_nothing_wrong_with_the_protocol_itself(case: Case) -> None:
    """In the very worlds in which every mistake is found, the protocol makes none."""
    assert not search(Space(case, CHRONOS, nas.HARDENED), limit=10_000).counterexamples


def _retried(fleet: Fleet) -> Fleet:
    policy = Policy(on_interrupt=OnInterrupt.RETRY)
    return evolve(fleet, jobs=tuple(evolve(job, policy=policy) for job in fleet.jobs))


def test_simulation_finds_what_only_a_wrong_clock_brings_to_light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accepting the guard's fire by a clock that is behind loses the arm: some simulated weeks show it.

    So it does where NAS takes the new arm, of the very instant that it delivers, for the old one.
    """
    broken = agent_of(ACCEPTS_THE_ARM_ITSELF)
    monkeypatch.setitem(nas.BUILDS, "hardened but for deliveries", TAKES_A_DELIVERY_FOR_AN_ARM)
    monkeypatch.setitem(AGENTS, broken.name, broken)
    plan = scenario.Plan(
        scenario="two machines that retry",
        fleet=_retried(load_shipped("fleet-12")),
        days=20,
        faults="heavy",
        nas="hardened but for deliveries",
        agent=broken.name,
        machines=2,
    )
    # Any seed will do: which one it is depends on every choice of the simulated world.
    found = (
        violation.property for seed in range(200) for violation in scenario.simulate(plan, seed).violations
    )
    assert NO_LOST_REARM.id in found


def test_simulation_finds_what_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that answers and does not note what it owes is found within twenty seeds."""
    broken = agent_of(FORGETS_WHAT_IS_OWED)
    monkeypatch.setitem(AGENTS, broken.name, broken)
    plan = scenario.Plan(
        scenario="a forgetful agent",
        fleet=load_shipped("fleet-12"),
        days=20,
        faults="heavy",
        nas="hardened",
        agent=broken.name,
        machines=1,
    )
    found = (each.property for seed in range(20) for each in scenario.simulate(plan, seed).violations)
    assert FOLLOWED_UP.id in found


def test_every_mutant_is_found_by_something() -> None:
    """A mistake that nothing finds shows a hole in the checks, and has no place in the list."""
    found = (each.rule or each.case or each.is_found_by_machine for each in MUTANTS)
    assert all(found)
    assert len({each.name for each in ALL}) == len(ALL)


@pytest.mark.parametrize("mutant", [pytest.param(each, id=each.name) for each in ALL])
def test_mutant_still_changes_the_source(mutant: Mutant) -> None:
    """A mutant whose place in the source has moved on is no test any more."""
    assert mutant.old != mutant.new
    assert agent_of(mutant).name == mutant.name


@pytest.mark.parametrize("old", ["no such text", "return"], ids=["missing", "ambiguous"])
def test_mutant_that_no_longer_fits_fails_loudly(old: str) -> None:
    """A mutant whose text is gone, or stands in several places, would prove nothing."""
    with pytest.raises(StaleMutantError, match="expected once"):
        agent_of(Mutant(name="stale", module=flows, old=old, new=""))
