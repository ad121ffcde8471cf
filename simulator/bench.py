"""How fast the simulator is, beside what nothing in Python could be faster than.

The yardstick is a bare event queue: the same number of events through one heap, each of which does
nothing. Figures are of one core, at model fidelity, with all properties on.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from statistics import median

from chronos.jobs.instants import HOUR_US
from chronos.jobs.job import Job
from chronos.jobs.schedule import Interval
from simulator.fleet import Fleet, load_shipped
from simulator.scenario import Plan, simulate

# Fleet and days that fill some seconds: fifteen jobs, two of them every minute.
FLEET, DAYS = "fleet-01", 7
REPEATS = 3
# Fleets of so many jobs, and from which day to which the cost of an event is taken.
SIZES = (10, 100, 1_000, 10_000)
DAYS_OF_SIZES = (4, 30)


def lines() -> Iterator[str]:
    """Yield the figures, one line for each level of faults."""
    fleet = load_shipped(FLEET)
    yield (
        f"{FLEET}, {len(fleet.jobs)} jobs, {DAYS} days, one core, model fidelity, all properties on, "
        f"median of {REPEATS}"
    )
    for level in ("none", "light", "heavy"):
        plan = _plan(fleet, DAYS, level)
        simulate(plan, 1)  # fills the cache of next times, which every run after the first one finds filled
        timed = [_timed(plan) for _ in range(REPEATS)]
        seconds = median(each[0] for each in timed)
        _, fires, events, simulated = timed[0]
        bare = median(_bare_queue(events) for _ in range(REPEATS))
        yield (
            f"faults {level:6} {fires / seconds:>9,.0f} fires/s {events / seconds:>10,.0f} events/s   "
            f"{simulated / seconds:>11,.0f} times real time   {seconds / bare:.1f} times a bare event queue"
        )

    yield from _by_size()


def _by_size() -> Iterator[str]:
    """Yield what an event costs in fleets of which a job is due twice in an hour, whatever their size."""
    least = None
    for count in SIZES:
        few, many = (_seconds_and_events(_fleet(count), days) for days in DAYS_OF_SIZES)
        each_us = (many[0] - few[0]) / (many[1] - few[1]) * 1e6  # the first start arms every job
        least = least or each_us
        ratio = f"{each_us / least:.2f} times that of {SIZES[0]} jobs"
        yield f"{count:>6,} jobs {each_us:>14.1f} us an event, {ratio}"


def _fleet(count: int) -> Fleet:
    start_us, apart_us = load_shipped(FLEET).start_us, HOUR_US // 2
    jobs = tuple(
        Job(
            id=f"job-{number}",
            schedule=Interval(period_us=count * apart_us, anchor_us=start_us + number * apart_us),
            next_us=start_us + number * apart_us,
        )
        for number in range(1, count + 1)
    )
    return Fleet(name=f"{count} jobs", jobs=jobs, start_us=start_us)


def _seconds_and_events(fleet: Fleet, days: int) -> tuple[float, int]:
    timed = [_timed(_plan(fleet, days, "none")) for _ in range(REPEATS)]
    return median(each[0] for each in timed), timed[0][2]


def _plan(fleet: Fleet, days: int, level: str) -> Plan:
    return Plan(
        scenario="bench", fleet=fleet, days=days, faults=level, nas="hardened", agent="chronos", machines=1
    )


def _timed(plan: Plan) -> tuple[float, int, int, int]:
    began = time.perf_counter()
    summary = simulate(plan, 1)
    return time.perf_counter() - began, summary.fires, summary.events, summary.simulated_seconds


def _bare_queue(events: int) -> float:
    """Return the seconds that *events* take which do nothing."""

    def nothing() -> None:
        pass

    began = time.perf_counter()
    queue: list[tuple[int, int, object]] = [(number, number, nothing) for number in range(100)]
    heapq.heapify(queue)
    for number in range(100, events):
        now, _, handler = heapq.heappop(queue)
        handler()  # type: ignore[operator]
        heapq.heappush(queue, (now + 100, number, nothing))
    return time.perf_counter() - began
