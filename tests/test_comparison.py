"""A simulated start compares what may disagree, and finds what it would find if it compared everything."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from chronos.jobs.instants import HOUR_US, MINUTE_US
from chronos.jobs.job import Job
from chronos.jobs.schedule import Interval
from chronos.protocol import reconciliation
from chronos.values import evolve
from simulator import comparison
from simulator.agents import AGENTS, CHRONOS, Agent
from simulator.comparison import Comparison, Listing
from simulator.fleet import Fleet, load_shipped
from simulator.modelled import Modelled
from simulator.scenario import Plan, simulate

FLEETS = ("fleet-01", "fleet-02", "fleet-06", "fleet-07", "fleet-11", "fleet-12")


def drawn(seed: int) -> Plan:
    """Return a scenario by chance, with everything going wrong."""
    chance = random.Random(f"comparison {seed}")
    return Plan(
        scenario="drawn",
        fleet=load_shipped(chance.choice(FLEETS)),
        days=chance.randint(1, 4),
        faults=chance.choice(("light", "heavy", "heavy")),
        nas=chance.choice(("hardened", "minimal")),
        agent="chronos",
        machines=chance.choice((1, 1, 2, 3)),
        policies=chance.choice(("own", "random")),
    )


@pytest.mark.parametrize("seed", range(40))
def test_history_is_that_of_a_start_that_compares_everything(seed: int, monkeypatch: Any) -> None:
    """To the digest, with everything going wrong, clocks included."""
    narrowed = simulate(drawn(seed), seed)
    monkeypatch.setattr(Modelled, "_compared", lambda _life, _number: None)
    assert simulate(drawn(seed), seed) == narrowed


def hourly(count: int) -> Plan:
    """Return a day of so many jobs, of which two are due in an hour whatever their number."""
    start_us = load_shipped("fleet-11").start_us
    period_us = count * HOUR_US // 2
    jobs = tuple(
        Job(
            id=f"job-{number}",
            schedule=Interval(period_us=period_us, anchor_us=start_us + (number + 1) * HOUR_US // 2),
            next_us=start_us + (number + 1) * HOUR_US // 2,
        )
        for number in range(count)
    )
    return Plan(
        scenario="hourly",
        fleet=Fleet(name="hourly", jobs=jobs, start_us=start_us),
        days=1,
        faults="none",
        nas="hardened",
        agent="chronos",
        machines=1,
    )


@pytest.fixture
def compared(monkeypatch: Any) -> Iterator[list[int]]:
    """Count how many jobs each start compares."""
    counts: list[int] = []
    differences = reconciliation.differences

    def counting(jobs: Any, *rest: Any) -> Any:
        counts.append(len(jobs))
        return differences(jobs, *rest)

    monkeypatch.setattr(reconciliation, "differences", counting)
    return counts


@pytest.mark.parametrize("count", [50, 500])
def test_wake_of_a_large_fleet_compares_as_few_jobs_as_that_of_a_small_one(
    count: int, compared: list[int]
) -> None:
    """But for the first start, which compares all of them; the second has none of those any more."""
    summary = simulate(hourly(count), 1)
    assert summary.verdict == "ok"
    assert compared[0] == count
    assert len(compared) > 40
    assert max(compared[2:]) <= 4


def test_reconciliation_with_a_mistake_compares_everything(compared: list[int], monkeypatch: Any) -> None:
    """What is known of the one that ships is not believed of another."""

    def another(*given: Any) -> Any:
        return reconciliation.step_reconciliation(*given)

    agent = Agent(name="another", rules=evolve(CHRONOS.rules, step_reconciliation=another))
    monkeypatch.setitem(AGENTS, "another", agent)
    simulate(evolve(hourly(20), agent="another"), 1)
    assert set(compared) == {20}


def world(*listed_us: int | None) -> tuple[Comparison, list[int | None], list[Job | None]]:
    """Return a comparison, what NAS lists now and what the store holds now; all of it may be changed."""
    now: list[int | None] = list(listed_us)
    jobs: list[Job | None] = [
        Job(id=f"j{number}", schedule=Interval(period_us=HOUR_US, anchor_us=HOUR_US), next_us=HOUR_US)
        for number in range(len(now))
    ]
    made = Comparison(jobs, [f"j{number}" for number in range(len(now))])
    made.listed_us = lambda subject: now[subject]
    return made, now, jobs


def test_list_shows_what_was_armed_when_it_was_made() -> None:
    """Whatever NAS has armed since."""
    made, now, _ = world(HOUR_US, HOUR_US, None)
    listing = made.listing()
    made.moves(1)
    now[1] = 2 * HOUR_US
    made.moves(1)
    now[1] = None
    assert dict(listing) == {"j0": HOUR_US, "j1": HOUR_US}


def test_narrow_list_shows_what_may_disagree() -> None:
    """What has agreed is left out, until it changes or is overdue."""
    made, now, jobs = world(HOUR_US, 2 * HOUR_US)
    first = made.listing()
    assert made.narrow(first, MINUTE_US) == [0, 1]
    assert dict(first) == {"j0": HOUR_US, "j1": 2 * HOUR_US}
    second = made.listing()
    made.moves(0)
    now[0] = None
    assert made.narrow(second, MINUTE_US) == [0, 1]
    assert dict(second) == {"j0": HOUR_US, "j1": 2 * HOUR_US}  # as it was when it was made
    made.moves(1)
    jobs[1] = None
    now[:] = [HOUR_US, None]
    made.moves(0)
    assert made.narrow(made.listing(), MINUTE_US) == [0, 1]
    assert made.narrow(made.listing(), MINUTE_US) == []
    overdue = made.listing()
    assert made.narrow(overdue, HOUR_US + comparison.CLOCK_MARGIN_US) == [0]
    assert dict(overdue) == {"j0": HOUR_US}


def test_list_that_nobody_waits_for_is_forgotten() -> None:
    """As when its answer is lost."""
    made, _, _ = world(HOUR_US)
    listing: Listing | None = made.listing()
    assert len(made._open) == 1
    del listing
    kept = made.listing()
    assert [each() for each in made._open] == [kept]
