"""What came of a simulated world, and how it is summed up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from chronos.jobs.instants import Instant
from chronos.jobs.job import Result
from simulator.host import Machine
from simulator.kernel import Kernel
from simulator.ledger import Account, Loss
from simulator.nas_server import NasServer
from simulator.watch import HOPS, Violation, Watch

T = TypeVar("T")


class Raising(Struct, frozen=True, kw_only=True):
    """An exception that an agent of somebody's own has raised.

    Attributes:
        text: which, and where.
        count: how often.
        first_us: when for the first time.
    """

    text: str
    count: int
    first_us: Instant


class Summary(Struct, frozen=True, kw_only=True):
    """What came of a world. Durations in seconds or milliseconds, as named.

    What had begun by the end of the calendar goes on after it, and counts. By then, machines had been booting
    for `calendar_boots_us` and up for `calendar_up_us`, microseconds. Of the lateness of the occurrence at a
    percentile, its machine was booting for `booted_for_ms`.
    """

    verdict: str
    violations: tuple[Violation, ...]
    unsettled: tuple[str, ...]
    simulated_seconds: int
    events: int
    fires: int
    runs: dict[str, int]
    wakes: int
    wakes_for_nothing: int
    agent_up_seconds: int
    calendar_boots_us: int
    calendar_up_us: int
    nas_calls: dict[str, int]
    lateness_ms: dict[str, Any]
    booted_for_ms: dict[str, int]
    marks: dict[str, int]
    digest: str
    accounts: tuple[Account, ...]
    losses: tuple[Loss, ...]
    exceptions: tuple[Raising, ...] = ()
    unstruck: tuple[str, ...] = ()

    @property
    def runs_of(self) -> dict[str, dict[str, int]]:
        """How many occurrences of each job ended with each result."""
        return {account.job_id: account.runs for account in self.accounts}


def summarize(
    kernel: Kernel,
    watch: Watch,
    nas: NasServer,
    machines: Sequence[Machine],
    unsettled: tuple[str, ...],
    *,
    start_us: Instant,
    end_us: Instant,
    on_us: tuple[int, int],
) -> Summary:
    """Return what came of a world.

    Args:
        kernel: counted its events.
        watch: noted what happened.
        nas: counted its calls.
        machines: the agent's; none of them lives any more.
        unsettled: what was not at rest in the end, in words.
        start_us: the start of the calendar.
        end_us: its end.
        on_us: for how long the machines had been booting by then, and for how long up, microseconds.
    """
    singles = _singles(watch)
    verdict = "violated" if watch.violations else "inconclusive" if unsettled else "ok"
    return Summary(
        verdict=verdict,
        violations=tuple(watch.violations),
        unsettled=unsettled,
        simulated_seconds=(end_us - start_us) // 1_000_000,
        events=kernel.events,
        fires=nas.calls["fire"],
        runs={str(result): watch.results[result] for result in Result},
        wakes=sum(machine.wakes for machine in machines),
        wakes_for_nothing=sum(machine.wasted_wakes for machine in machines),
        calendar_boots_us=on_us[0],
        calendar_up_us=on_us[1],
        agent_up_seconds=sum(machine.up_us for machine in machines) // 1_000_000,
        nas_calls={name: count for name, count in nas.calls.items() if name != "fire"},
        lateness_ms=_lateness_ms(watch, singles),
        booted_for_ms={name: 0 if row is None else row[-1] // 1000 for name, row in singles.items()},
        marks=dict(sorted((mark.name, count) for mark, count in watch.met.items() if count)),
        digest=kernel.digest(),
        accounts=watch.ledger.accounts(watch.store, end_us),
        losses=watch.ledger.losses(),
        exceptions=tuple(
            Raising(text=text, count=len(at_us), first_us=at_us[0])
            for text, at_us in watch.exceptions.items()
        ),
        unstruck=tuple(stroke.text for stroke in kernel.expected()),
    )


def _lateness_ms(watch: Watch, singles: Mapping[str, tuple[int, ...] | None]) -> dict[str, Any]:
    """Return the lateness of the occurrences that ran, in all and by hop, each by itself.

    The hops at a percentile are those of other occurrences than the one at that percentile in all, and do
    not add up to it: its own hops, which do, are in `of_one`.
    """
    by_hop = {hop: _percentiles_ms(sorted(watch.lateness_us[hop])) for hop in HOPS}
    of_one = {name: _hops_ms(row) for name, row in singles.items()}
    return {**by_hop.pop("total"), "by_hop": by_hop, "of_one": of_one}


def _singles(watch: Watch) -> dict[str, tuple[int, ...] | None]:
    """Return the occurrence at each percentile: its lateness, each hop of it, and what of it was a boot."""
    lateness = (watch.lateness_us[hop] for hop in ("total", *HOPS[:-1]))
    return _percentiles(sorted(zip(*lateness, watch.booted_for_us, strict=True)))


def _percentiles(ordered: list[T]) -> dict[str, T | None]:
    last = len(ordered) - 1
    places = {"p50": last // 2, "p99": last * 99 // 100, "max": last}
    return {name: ordered[place] if ordered else None for name, place in places.items()}


def _percentiles_ms(ordered_us: list[int]) -> dict[str, int]:
    return {name: (value_us or 0) // 1000 for name, value_us in _percentiles(ordered_us).items()}


def _hops_ms(row: tuple[int, ...] | None) -> dict[str, int]:
    """Return the hops of one occurrence; they add up to its lateness, to the millisecond."""
    hops_us = (0,) * len(HOPS) if row is None else row[1:-1]
    return adding_up(dict(zip(HOPS[:-1], hops_us, strict=False)), 1000)


def adding_up(parts: Mapping[str, int], unit: int) -> dict[str, int]:
    """Return *parts* in larger whole units, such that they add up to their sum in such units."""
    shown, before = {}, 0
    for name, part in parts.items():
        shown[name] = (before + part) // unit - before // unit
        before += part
    return shown
