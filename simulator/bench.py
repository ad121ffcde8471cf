"""How fast the simulator is, beside what nothing in Python could be faster than.

The yardstick is a bare event queue: the same number of events through one heap, each of which does
nothing. Figures are of one core, at model fidelity, with all properties on.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from statistics import median

from simulator.fleet import load_shipped
from simulator.scenario import Plan, simulate

# Fleet and days that fill some seconds: fifteen jobs, two of them every minute.
FLEET, DAYS = "fleet-01", 7
REPEATS = 3


def lines() -> Iterator[str]:
    """Yield the figures, one line for each level of faults."""
    fleet = load_shipped(FLEET)
    yield (
        f"{FLEET}, {len(fleet.jobs)} jobs, {DAYS} days, one core, model fidelity, all properties on, "
        f"median of {REPEATS}"
    )
    for level in ("none", "light", "heavy"):
        plan = Plan(
            scenario="bench",
            fleet=fleet,
            days=DAYS,
            faults=level,
            nas="hardened",
            agent="chronos",
            machines=1,
        )
        simulate(plan, 1)  # fills the cache of next times, which every run after the first one finds filled
        timed = [_timed(plan) for _ in range(REPEATS)]
        seconds = median(each[0] for each in timed)
        _, fires, events, simulated = timed[0]
        bare = median(_bare_queue(events) for _ in range(REPEATS))
        yield (
            f"faults {level:6} {fires / seconds:>9,.0f} fires/s {events / seconds:>10,.0f} events/s   "
            f"{simulated / seconds:>11,.0f} times real time   {seconds / bare:.1f} times a bare event queue"
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
