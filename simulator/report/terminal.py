"""Summaries for a terminal, or for whatever its output is piped to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from chronos.jobs.instants import format_instant
from chronos.jobs.schedule import remarks
from simulator import faults
from simulator.ledger import Loss
from simulator.report import accounts
from simulator.report.words import TIED, wrapped
from simulator.report.words import counted as counted  # its place for others
from simulator.scenario import Plan
from simulator.search.explore import Counterexample, Result
from simulator.summary import Summary
from simulator.watch import Violation

_STORES = {"memory": "memory", "json": "a JSON file", "sqlite": "SQLite"}

T = TypeVar("T", Loss, Violation)

# How many violations of one property are told in full; the others are counted.
TOLD = 3


def title(plan: Plan, seed: int) -> str:
    """Return what a simulation is called."""
    jobs = counted(len(plan.fleet.jobs), "job")
    return f"{plan.scenario}: {jobs} of {plan.fleet.name}, seed {seed}"


def world(plan: Plan) -> str:
    """Return in which world it is."""
    return (
        f"{counted(plan.days, 'day')} from {format_instant(plan.fleet.start_us)}, "
        f"faults {plan.faults}, NAS {plan.nas}, agent {plan.agent}, {counted(plan.machines, 'machine')}"
        f"{of_policies(plan)}"
    )


def world_lines(plan: Plan, seed: int) -> Iterator[str]:
    """Yield the lines that tell what is simulated."""
    yield f"scenario   {title(plan, seed)}"
    yield from wrapped("world", world(plan))
    yield from asked_lines(plan)
    if plan.wire:
        yield f"wire       {_wire(plan)}"
    yield from wrapped("faults", _switched_on(plan, seed, TIED))
    yield from remark_lines(plan)


def summary_lines(
    plan: Plan, seed: int, summary: Summary, only: str | None = None, why: str = ""
) -> Iterator[str]:
    """Yield the lines that tell what came of one simulation.

    Args:
        plan: what was simulated.
        seed: with which seed.
        summary: what came of it.
        only: the job of which violations, counts and losses are told; None for all.
        why: the command that tells why something is violated.
    """
    days = summary.simulated_seconds / 86_400
    yield from world_lines(plan, seed)
    yield f"verdict    {summary.verdict}"
    yield from _violation_lines(_of(only, summary.violations))
    if summary.violations and why:
        yield f"why        {why}"
    for raised in summary.exceptions:
        often = "" if raised.count == 1 else f", {raised.count:,} times, first"
        yield f"raised     {raised.text}{often} at {format_instant(raised.first_us)}"
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


def about(plan: Plan, seed: int) -> Iterator[str]:
    """Yield sentences: in which world a simulation is, what was asked for, and what could go wrong."""
    yield world(plan)
    words = plan.conditions.words()
    if words:
        yield f"asked for: {', '.join(words)}"
    if plan.wire:
        yield _wire(plan)
    likely = _switched_on(plan, seed)
    if likely:
        yield f"faults switched on, and how likely each is: {likely}"


def _wire(plan: Plan) -> str:
    spoiled = ", which spoils messages" if plan.has_wire_faults else ""
    return f"all that ships, with a store in {_STORES[plan.wire]}{spoiled}"


def _switched_on(plan: Plan, seed: int, space: str = " ") -> str:
    """Return what could go wrong with this seed, and how likely it was each time; empty for nothing."""
    likely = faults.switched_on(plan.weights(seed))
    return ", ".join(f"{name} {chance:.2%}".replace(" ", space) for name, chance in likely.items())


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


def of_policies(plan: Plan) -> str:
    """Say whose policies the jobs have, if not their own."""
    return "" if plan.policies == "own" else f", policies {plan.policies}"


def check_lines(
    results: Iterable[Result], walk: Callable[[str, Counterexample], str] | None = None
) -> Iterator[str]:
    """Yield the lines that tell what the exhaustive search found.

    Args:
        results: of each case.
        walk: returns the command that walks through a counterexample of a case; None tells of none.
    """
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
            if walk is not None:
                yield f"           walk through it: {walk(result.case, found)}"
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
        yield f"violated   {violation.property}  {place(violation)}"
        yield f"           {violation.message}"
        if told[violation.property] == 1 and violation.history:
            yield "           what came before:"
            for line in violation.history:
                yield f"             {line}"
    for name, count in told.items():
        if count > TOLD:
            yield f"           ({counted(count - TOLD, 'more violation')} of {name})"


def place(violation: Violation) -> str:
    """Return whose violation it is, and when."""
    job = f"job {violation.job_id} " if violation.job_id is not None else ""
    return f"{job}at {format_instant(violation.at_us)}"
