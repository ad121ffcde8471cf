"""Summaries for a terminal, or for whatever its output is piped to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import attrs

from chronos.jobs.instants import format_instant
from chronos.jobs.schedule import remarks
from simulator import faults
from simulator.ledger import Loss
from simulator.report import accounts
from simulator.report.words import TIED, wrapped
from simulator.report.words import counted as counted  # its place for others
from simulator.scenario import Plan
from simulator.search.explore import Result
from simulator.summary import Summary
from simulator.watch import Violation

_STORES = {"memory": "memory", "json": "a JSON file", "sqlite": "SQLite"}

T = TypeVar("T", Loss, Violation)

# How many violations of one property are told in full; the others are counted.
TOLD = 3


def world_lines(plan: Plan, seed: int) -> Iterator[str]:
    """Yield the lines that tell what is simulated."""
    jobs = plan.fleet.jobs
    yield f"scenario   {plan.scenario}: {counted(len(jobs), 'job')} of {plan.fleet.name}, seed {seed}"
    yield from wrapped(
        "world",
        f"{counted(plan.days, 'day')} from {format_instant(plan.fleet.start_us)}, "
        f"faults {plan.faults}, NAS {plan.nas}, agent {plan.agent}, {counted(plan.machines, 'machine')}"
        f"{_of_policies(plan)}",
    )
    yield from asked_lines(plan)
    if plan.wire:
        spoiled = ", which spoils messages" if plan.has_wire_faults else ""
        yield f"wire       all that ships, with a store in {_STORES[plan.wire]}{spoiled}"
    yield from _switched_on(plan, seed)
    yield from remark_lines(plan)


def summary_lines(plan: Plan, seed: int, summary: Summary, only: str | None = None) -> Iterator[str]:
    """Yield the lines that tell what came of one simulation.

    Args:
        plan: what was simulated.
        seed: with which seed.
        summary: what came of it.
        only: the job of which violations, counts and losses are told; None for all.
    """
    days = summary.simulated_seconds / 86_400
    yield from world_lines(plan, seed)
    yield f"verdict    {summary.verdict}"
    yield from _violation_lines(_of(only, summary.violations))
    for reason in summary.unsettled:
        yield f"           not settled: {reason}"
    runs = ", ".join(f"{count:,} {result}" for result, count in summary.runs.items())
    yield f"fires      {counted(summary.fires, 'delivery')}"
    yield f"runs       {runs}"
    always_on = max(summary.simulated_seconds * plan.machines, 1)
    yield (
        f"machine    {counted(summary.wakes, 'wake')} ({summary.wakes_for_nothing:,} ran nothing), up "
        f"{summary.agent_up_seconds:,} s of {always_on:,} s always-on: "
        f"{summary.agent_up_seconds / always_on:.1%}"
    )
    calls = ", ".join(f"{count:,} {name}" for name, count in summary.nas_calls.items())
    yield f"NAS calls  {calls}"
    yield from accounts.lateness_lines(summary.lateness_ms)
    yield from accounts.job_lines(summary.accounts, only)
    yield from accounts.loss_lines(_of(only, summary.losses))
    events = counted(summary.events, "event")
    yield f"history    {events} in {counted(round(days), 'day')}, digest {summary.digest}"


def _of(only: str | None, told: Sequence[T]) -> Sequence[T]:
    """Return what is of one job."""
    return told if only is None else [each for each in told if each.job_id == only]


def _switched_on(plan: Plan, seed: int) -> Iterator[str]:
    """Yield the lines that tell what could go wrong with this seed, and how likely it was each time."""
    likely = faults.switched_on(plan.weights(seed))
    if likely:
        items = [f"{name} {chance:.2%}" for name, chance in likely.items()]
        yield from wrapped("faults", ", ".join(item.replace(" ", TIED) for item in items))


def remark_lines(plan: Plan) -> Iterator[str]:
    """Yield the lines that tell which schedules do something else than they seem to."""
    for job in plan.fleet.jobs:
        for remark in remarks(job.schedule):
            yield f"remark     job {job.id}: {remark}"


def asked_lines(plan: Plan) -> Iterator[str]:
    """Yield the line that tells what was asked for, if anything was."""
    words = plan.conditions.words()
    if words:
        yield f"with       {', '.join(words)}"


def _of_policies(plan: Plan) -> str:
    return "" if plan.policies == "own" else f", policies {plan.policies}"


@attrs.define
class Sweep:
    """What is kept of many seeds, however many: counts, and the first violation of each property.

    Attributes:
        seeds: which were simulated.
        verdicts: how many seeds ended with each verdict.
        violated: by property, the first seed that violates it and its violation there.
        violated_seeds: by property, how many seeds violate it.
        violations: by property, how often it was violated.
        runs: how many occurrences ended with each result.
        totals: how many fires, wakes and events there were.
    """

    seeds: list[int] = attrs.field(factory=list)
    verdicts: Counter[str] = attrs.field(factory=Counter)
    violated: dict[str, tuple[int, Violation]] = attrs.field(factory=dict)
    violated_seeds: Counter[str] = attrs.field(factory=Counter)
    violations: Counter[str] = attrs.field(factory=Counter)
    runs: Counter[str] = attrs.field(factory=Counter)
    totals: Counter[str] = attrs.field(factory=Counter)

    def add(self, seed: int, summary: Summary) -> None:
        """Count the *summary* of *seed*, which comes after those before it."""
        self.seeds[1:] = [seed]
        self.verdicts[summary.verdict] += 1
        self.violations.update(violation.property for violation in summary.violations)
        self.violated_seeds.update({violation.property for violation in summary.violations})
        for violation in summary.violations:
            self.violated.setdefault(violation.property, (seed, violation))
        self.runs.update(summary.runs)
        self.totals.update(fires=summary.fires, wakes=summary.wakes, events=summary.events)

    def lines(self, plan: Plan) -> Iterator[str]:
        """Yield the lines that tell what came of them."""
        yield (
            f"scenario   {plan.scenario}: {counted(len(plan.fleet.jobs), 'job')} of {plan.fleet.name}, "
            f"{counted(plan.days, 'day')}, faults {plan.faults}, "
            f"NAS {plan.nas}, agent {plan.agent}{_of_policies(plan)}"
        )
        yield from asked_lines(plan)
        yield from remark_lines(plan)
        yield f"seeds      {self.seeds[0]} to {self.seeds[-1]}: " + ", ".join(
            f"{count} {verdict}" for verdict, count in sorted(self.verdicts.items())
        )
        total = self.verdicts.total()
        for name, (seed, first) in sorted(self.violated.items()):
            yield (
                f"violated   {name} in {self.violated_seeds[name]} of {counted(total, 'seed')}, "
                f"{counted(self.violations[name], 'time')}; first with --seed {seed}:"
            )
            yield f"           {_place(first)}: {first.message}"
        yield "runs       " + ", ".join(f"{count:,} {result}" for result, count in self.runs.items())
        yield "fires      " + ", ".join(
            counted(self.totals[name], word)
            for name, word in {"fires": "delivery", "wakes": "wake", "events": "event"}.items()
        )


def check_lines(results: Iterable[Result]) -> Iterator[str]:
    """Yield the lines that tell what the exhaustive search found."""
    states, seconds, depth = 0, 0.0, 0
    for result in results:
        states, seconds, depth = states + result.states, seconds + result.seconds, max(depth, result.depth)
        rate = result.states / max(result.seconds, 1e-9)
        yield f"case       {result.case}"
        yield (
            f"           {counted(result.states, 'distinct state')}, depth {result.depth}, "
            f"{rate:,.0f} states/s, {_verdict(result)}"
        )
        for found in result.counterexamples:
            yield f"violated   {found.property}: {found.reason}"
            yield f"           the shortest history, {counted(len(found.history), 'event')}:"
            for number, line in enumerate(found.history, start=1):
                yield f"           {number:>3}. {line}"
    rate = states / max(seconds, 1e-9)
    yield f"in all     {counted(states, 'distinct state')}, depth {depth}, {rate:,.0f} states/s per core"


def _verdict(result: Result) -> str:
    if result.counterexamples:
        return "violated"
    return "ok" if result.is_complete else "inconclusive: the limit was reached"


def _violation_lines(violations: Sequence[Violation]) -> Iterator[str]:
    told: Counter[str] = Counter()
    for violation in violations:
        told[violation.property] += 1
        if told[violation.property] > TOLD:
            continue
        yield f"violated   {violation.property}  {_place(violation)}"
        yield f"           {violation.message}"
        if told[violation.property] == 1 and violation.history:
            yield "           what came before:"
            for line in violation.history:
                yield f"             {line}"
    for name, count in told.items():
        if count > TOLD:
            yield f"           ({counted(count - TOLD, 'more violation')} of {name})"


def _place(violation: Violation) -> str:
    job = f"job {violation.job_id} " if violation.job_id is not None else ""
    return f"{job}at {format_instant(violation.at_us)}"
