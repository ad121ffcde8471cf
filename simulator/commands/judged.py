"""What `run` does with a scenario of which something is expected: it simulates and compares."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from contextlib import closing, nullcontext
from functools import partial
from os import stat_result

from chronos.cli.console import OK, VIOLATED, BadUsage, attempted, tell
from simulator.commands.progress import progress
from simulator.judging import Judged, judge, judge_shipped
from simulator.report import document
from simulator.report.file import STANDARD_OUTPUT, is_output, writing
from simulator.report.judged import all_lines, scenario_lines
from simulator.report.traced import traced
from simulator.report.words import wrapped
from simulator.scenario import Expectation, Scenario
from simulator.scenario_file import names, shipped
from simulator.sweep import spread
from simulator.world_options import check_agent

# What changes a scenario, so that what is expected of it says nothing any more.
_CHANGES = (
    *("jobs", "start", "days", "seed", "seeds", "faults", "policies", "machines", "job"),
    *("wire", "store", "wire_faults", "compare", "outage", "boot", "run", "clock", "idle"),
    *("only", "without", "fault"),
)


def is_judged(options: argparse.Namespace, scenario: Scenario) -> bool:
    """Return whether the scenario is simulated as it is, and something is expected of it."""
    return not _changes(options) and bool(_asked(options, scenario))


def why_unjudged(options: argparse.Namespace, scenario: Scenario) -> Iterator[str]:
    """Yield a line that says why what is expected of a scenario is not compared, if anything is."""
    if not scenario.expects:
        return
    changes = ", ".join(f"--{name.replace('_', '-')}" for name in _changes(options))
    why = (
        f"what is expected is expected without {changes}"
        if changes
        else "nothing is expected of that agent and NAS"
    )
    yield from wrapped("not judged", why)


def _changes(options: argparse.Namespace) -> list[str]:
    """Return the options by which the scenario is another."""
    given = {name: getattr(options, name, None) for name in _CHANGES}
    return [name for name, value in given.items() if not (value is None or value is False or value == [])]


def _asked(options: argparse.Namespace, scenario: Scenario) -> list[Expectation]:
    """Return what is expected with the agent and the NAS that are asked for, all where none is."""
    return [
        each
        for each in scenario.expects
        if options.agent in (None, each.agent) and options.nas in (None, each.nas or scenario.nas)
    ]


def run_judged(options: argparse.Namespace, scenario: Scenario, given: stat_result | None) -> int:
    """Simulate a scenario with each agent of which something is expected."""
    expects = _asked(options, scenario)
    if len(expects) > 1 and (options.trace is not None or options.html is not None):
        whose = "; ".join(f"--agent {each.agent} --nas {each.nas or scenario.nas}" for each in expects)
        raise BadUsage(f"--trace and --html are of one simulation; expected one of: {whose}")
    for number, each in enumerate(scenario.expects, 1):
        if each in expects:
            check_agent(scenario, f"expect[{number}].agent", each.agent, each.wire)
    judged = []
    for expected in expects:
        plan = scenario.plan(expected)
        with traced(plan, scenario.seed, given, trace=options.trace, html=options.html) as shown:
            judged.append(attempted(partial(judge, scenario, expected, shown.tracer)))
            shown.end(judged[-1].summary)
    return _told(options, given, judged, scenario_lines(scenario, judged), {scenario.name: scenario})


def run_all(options: argparse.Namespace) -> int:
    """Simulate every scenario that ships and of which something is expected."""
    others = (options.scenario, options.agent, options.nas)
    if _changes(options) or any(each is not None for each in others):
        raise BadUsage("--all runs every scenario as it is; expected no other option but --json")
    if options.trace is not None or options.html is not None:
        raise BadUsage("--trace and --html are of one simulation, and not of --all")
    scenarios = {name: shipped(name) for name in names()}
    items = [(name, number) for name, each in scenarios.items() for number in range(len(each.expects))]
    for name, number in items:
        each = scenarios[name].expects[number]
        check_agent(scenarios[name], f"expect[{number + 1}].agent", each.agent, each.wire)
    judged: list[Judged] = []
    with (
        progress("scenarios", float(len(items))) as advance,
        closing(spread(judge_shipped, items, noun="scenario")) as results,
    ):
        for result in results:
            judged.append(result)
            advance(float(len(judged)))
    return _told(options, None, judged, all_lines(judged), scenarios)


def _told(
    options: argparse.Namespace,
    given: stat_result | None,
    judged: list[Judged],
    lines: Iterable[str],
    scenarios: dict[str, Scenario],
) -> int:
    """Write what came of it, say so, and return the exit status."""
    is_told = options.json is None or not is_output(options.json)
    target = options.json if is_told else STANDARD_OUTPUT
    with nullcontext() if target is None else writing(target, given, is_list=True) as report:
        if report is not None:
            for each in judged:
                scenario = scenarios[each.scenario]
                told = document.summary_object(scenario.plan(each.expected), scenario.seed, each.summary)
                report.add({**told, "agent": each.expected.agent, "differences": list(each.differences)})
        if is_told:
            tell(lines)
    return VIOLATED if any(each.differences for each in judged) else OK
