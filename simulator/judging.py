"""Whether a scenario comes out as it is expected to, agent by agent."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator

from msgspec import Struct

from simulator.marks import TOKEN_OUT_OF_TIME, TOKEN_USED_AGAIN
from simulator.scenario import Expectation, Scenario, simulate
from simulator.scenario_file import shipped
from simulator.summary import Summary
from simulator.trace import Tracer

_COUNT = re.compile(r"(>=|<=|==)? ?(\d+)")
_HOLDS = {">=": operator.ge, "<=": operator.le, "==": operator.eq, None: operator.eq}


class Judged(Struct, frozen=True, kw_only=True):
    """What came of a scenario with one agent.

    Attributes:
        scenario: its name.
        expected: what was expected.
        summary: what came of it.
        differences: what is not as expected, each in words; empty when all is.
    """

    scenario: str
    expected: Expectation
    summary: Summary
    differences: tuple[str, ...]


def judge(scenario: Scenario, expected: Expectation, tracer: Tracer | None = None) -> Judged:
    """Simulate a scenario with an agent, and compare what comes of it with what is expected."""
    summary = simulate(scenario.plan(expected), scenario.seed, tracer=tracer)
    return Judged(
        scenario=scenario.name,
        expected=expected,
        summary=summary,
        differences=tuple(differences(expected, summary)),
    )


def judge_shipped(item: tuple[str, int]) -> Judged:
    """Judge a scenario that ships, by its name and the number of the expectation."""
    name, number = item
    scenario = shipped(name)
    return judge(scenario, scenario.expects[number])


def differences(expected: Expectation, summary: Summary) -> Iterator[str]:
    """Yield what of a summary is not as expected, each in words."""
    violated = tuple(sorted({each.property for each in summary.violations}))
    if violated != expected.violates:
        yield f"violates: expected {_listed(expected.violates)}, got {_listed(violated)}"
    if summary.unsettled and not violated:
        yield f"not settled: {summary.unsettled[0]}"
    if bool(summary.exceptions) != expected.raises:
        got = summary.exceptions[0].text if summary.exceptions else "none"
        yield f"raises: expected {'an exception' if expected.raises else 'none'}, got {got}"
    for stroke in summary.unstruck:
        yield f"{stroke}: expected it to strike, and it never did"
    for name, count in expected.runs:
        yield from _counted(f"runs.{name}", count, summary.runs[name])
    counts = {
        "fires": summary.fires,
        "wakes": summary.wakes,
        "wakes_for_nothing": summary.wakes_for_nothing,
        "refused": sum(summary.marks.get(mark.name, 0) for mark in (TOKEN_OUT_OF_TIME, TOKEN_USED_AGAIN)),
        **summary.nas_calls,
    }
    for name, count in expected.counts:
        yield from _counted(f"counts.{name}", count, counts[name])
    for job_id, name, count in expected.jobs:
        yield from _counted(f"jobs.{job_id}.{name}", count, summary.runs_of[job_id].get(name, 0))


def _counted(what: str, wanted: str, got: int) -> Iterator[str]:
    match = _COUNT.fullmatch(wanted)
    assert match is not None
    if not _HOLDS[match[1]](got, int(match[2])):
        yield f"{what}: expected {wanted}, got {got}"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "nothing"
