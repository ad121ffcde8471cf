"""The exhaustive search: it proves the protocol within its bounds, and finds what is broken."""

from __future__ import annotations

import pytest

from chronos.testing import nas
from chronos.values import evolve
from simulator.agents import CHRONOS, NAIVE
from simulator.search.cases import CASES, Case
from simulator.search.explore import Result, search
from simulator.search.space import Space
from tests.mutants import MUTANTS, agent_of


def case(name: str) -> Case:
    return next(each for each in CASES if each.name == name)


CLOSE = case("close occurrences, interruptions are recorded")
STOPPED = case("one occurrence, and the agent is stopped for a while")
PAUSE = case("one occurrence, and somebody pauses the job")


# With a loss, it is asked for again by its author and by the process at once: 230,000 states, a minute and
# more, which `python -m simulator check` goes through.
BY_HAND = "one occurrence, and somebody runs the job by hand"


def told(result: Result) -> str:
    return "\n".join(
        line for found in result.counterexamples for line in (found.property, found.reason, *found.history)
    )


@pytest.mark.parametrize("budget", [(1, 0, 0), (0, 1, 0), (0, 0, 1)], ids=["crash", "duplicate", "loss"])
@pytest.mark.parametrize("each", CASES, ids=lambda each: each.name)
def test_one_fault_anywhere_is_survived(each: Case, budget: tuple[int, int, int]) -> None:
    """With one fault of one kind at any moment, every order of events holds every property."""
    crashes, duplicates, losses = budget
    space = Space(each, CHRONOS, nas.HARDENED, crashes=crashes, duplicates=duplicates, losses=losses)
    is_long = each.is_deep or (each.name == BY_HAND and losses > 0)
    result = search(space, limit=30_000 if is_long else None)
    assert not result.counterexamples, told(result)
    assert result.is_complete or is_long


@pytest.mark.parametrize(
    "budget", [(1, 1, 0), (1, 0, 1), (0, 1, 1)], ids=["no loss", "no duplicate", "no crash"]
)
def test_two_faults_anywhere_are_survived(budget: tuple[int, int, int]) -> None:
    """The same with two faults of different kinds."""
    crashes, duplicates, losses = budget
    space = Space(CLOSE, CHRONOS, nas.HARDENED, crashes=crashes, duplicates=duplicates, losses=losses)
    result = search(space)
    assert result.is_complete
    assert not result.counterexamples, told(result)


@pytest.mark.parametrize(
    ("promise", "violated", "within"),
    [
        ("orders", "NO-ORPHAN", PAUSE),
        ("fires_past_at_once", "NO-LOST-REARM", CLOSE),
        ("deletes_own_generation", "NO-LOST-REARM", CLOSE),
        ("sets_deliveries_apart", "NO-LOST-REARM", STOPPED),
    ],
)
def test_promise_of_nas_is_earned_by_the_search(promise: str, violated: str, within: Case) -> None:
    """A NAS that breaks this one promise is caught with a history of a few steps."""
    broken = evolve(nas.HARDENED, **{promise: False})
    result = search(Space(within, CHRONOS, broken), limit=60_000)
    found = {each.property: each for each in result.counterexamples}
    assert violated in found, told(result)
    assert len(found[violated].history) <= 16


# Of each new rule a mutant that breaks it, the case that finds it, and the property that names it.
BROKEN = {
    "of what is caught up all but the newest is forgotten": (
        "three occurrences are due together, and two are caught up",
        "ONE-OUTCOME",
    ),
    "what waits starts beside the run": (
        "three occurrences are due together, and two are caught up",
        "NO-OVERLAP",
    ),
    "what starts goes on waiting": ("an occurrence waits for the end of the run before it", "ONE-OUTCOME"),
    "what is known of one run is believed of all": ("runs overlap", "DURABLE-CLAIM"),
    "a retry loses its occurrence": ("one occurrence, and a failed run is attempted again", "ONE-OUTCOME"),
    "a retry is the same attempt": ("one occurrence, and a failed run is attempted again", "ONE-OUTCOME"),
    "a run by hand takes the slot": ("one occurrence, and somebody runs the job by hand", "ONE-OUTCOME"),
    "a repeated request runs again": ("one occurrence, and somebody runs the job by hand", "ONE-OUTCOME"),
    "arms go without their place in the order": (
        "one occurrence, and somebody edits the schedule",
        "NO-LOST-REARM",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_rule_is_named_by_the_search(name: str) -> None:
    """Each shipped case finds out who breaks its rule, after a history of a few steps."""
    within, violated = BROKEN[name]
    mutant = next(each for each in MUTANTS if each.name == name)
    space = Space(case(within), agent_of(mutant), nas.HARDENED, duplicates=0, losses=0)
    found = {each.property: each for each in search(space, limit=4_000).counterexamples}
    assert violated in found
    assert len(found[violated].history) <= 11


def test_naive_agent_is_caught_with_short_histories() -> None:
    """Both of its faults are found, each in a handful of events."""
    result = search(Space(PAUSE, NAIVE, nas.HARDENED), limit=20_000)
    found = {each.property: len(each.history) for each in result.counterexamples}
    assert found["NO-LOST-REARM"] <= 6
    assert found["NO-ORPHAN"] <= 4


def test_search_is_the_same_every_time() -> None:
    """The number of states and the depth are facts, not measurements."""
    results = [search(Space(CLOSE, CHRONOS, nas.HARDENED, duplicates=0, losses=0)) for _ in range(2)]
    assert (results[0].states, results[0].depth) == (results[1].states, results[1].depth)


def test_limit_is_said_and_not_taken_for_a_proof() -> None:
    """A search that was cut off is not complete."""
    result = search(Space(CLOSE, CHRONOS, nas.HARDENED), limit=100)
    assert not result.is_complete
    assert not result.counterexamples


def test_state_from_which_nothing_heals_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """When no history leads to agreement, the search says so and shows how to get there."""
    monkeypatch.setattr(Space, "has_converged", lambda _space, state: state.crashes == 1)
    result = search(Space(CLOSE, CHRONOS, nas.HARDENED, duplicates=0, losses=0))
    assert [found.property for found in result.counterexamples] == ["CONVERGES"]
    assert "crashes" in " ".join(result.counterexamples[0].history)
