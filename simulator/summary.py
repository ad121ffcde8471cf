"""What came of a simulated world, and how it is summed up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from chronos.jobs.job import Result
from simulator.host import Machine
from simulator.kernel import Kernel
from simulator.nas_server import NasServer
from simulator.watch import HOPS, Violation, Watch


class Summary(Struct, frozen=True, kw_only=True):
    """What came of a world. Durations in seconds or milliseconds, as named."""

    verdict: str
    violations: tuple[Violation, ...]
    unsettled: tuple[str, ...]
    simulated_seconds: int
    events: int
    fires: int
    runs: dict[str, int]
    runs_of: dict[str, dict[str, int]]
    wakes: int
    wakes_for_nothing: int
    agent_up_seconds: int
    nas_calls: dict[str, int]
    lateness_ms: dict[str, Any]
    marks: dict[str, int]
    digest: str


def summarize(
    kernel: Kernel,
    watch: Watch,
    nas: NasServer,
    machines: Sequence[Machine],
    unsettled: tuple[str, ...],
    *,
    duration_us: int,
) -> Summary:
    """Return what came of a world.

    Args:
        kernel: counted its events.
        watch: noted what happened.
        nas: counted its calls.
        machines: the agent's; none of them lives any more.
        unsettled: what was not at rest in the end, in words.
        duration_us: how long the calendar was.
    """
    verdict = "violated" if watch.violations else "inconclusive" if unsettled else "ok"
    return Summary(
        verdict=verdict,
        violations=tuple(watch.violations),
        unsettled=unsettled,
        simulated_seconds=duration_us // 1_000_000,
        events=kernel.events,
        fires=nas.calls["fire"],
        runs={str(result): watch.results[result] for result in Result},
        runs_of={
            job_id: {str(result): results[result] for result in Result}
            for job_id, results in zip(watch.job_ids, watch.results_of, strict=True)
        },
        wakes=sum(machine.wakes for machine in machines),
        wakes_for_nothing=sum(machine.wasted_wakes for machine in machines),
        agent_up_seconds=sum(machine.up_us for machine in machines) // 1_000_000,
        nas_calls={name: count for name, count in nas.calls.items() if name != "fire"},
        lateness_ms=_lateness_ms(watch),
        marks={
            name: count
            for name, count in sorted((mark.name, count) for mark, count in watch.met.items())
            if count
        },
        digest=kernel.digest(),
    )


def _lateness_ms(watch: Watch) -> dict[str, Any]:
    """Return the lateness of the occurrences that ran, in all and by hop."""
    by_hop = {hop: _percentiles_ms(sorted(watch.lateness_us[hop])) for hop in HOPS}
    return {**by_hop.pop("total"), "by_hop": by_hop}


def _percentiles_ms(ordered_us: list[int]) -> dict[str, int]:
    if not ordered_us:
        return {"p50": 0, "p99": 0, "max": 0}
    last = len(ordered_us) - 1
    return {
        "p50": ordered_us[last // 2] // 1000,
        "p99": ordered_us[last * 99 // 100] // 1000,
        "max": ordered_us[-1] // 1000,
    }
