"""The command `list`: name the shipped scenarios."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from chronos.cli.console import OK, tell
from chronos.cli.options import Parser
from simulator.report.words import counted, wrapped
from simulator.scenario import Expectation, Scenario
from simulator.scenario_file import names, shipped


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the command."""
    listing = commands.add_parser("list", help="name the shipped scenarios")
    listing.set_defaults(command=_list)


def _list(_options: argparse.Namespace) -> int:
    scenarios = [shipped(name) for name in names()]
    width = max(len(scenario.name) for scenario in scenarios) + 2
    lines: list[str] = []
    for scenario in scenarios:
        lines += wrapped(scenario.name, scenario.about, width)
        for line in _setting(scenario):
            lines += wrapped("", line, width)
    tell([*lines, f"in all     {counted(len(scenarios), 'scenario')}"])
    return OK


def _setting(scenario: Scenario) -> Iterator[str]:
    """Yield what a scenario is made of, and what is expected of whom."""
    fleet = scenario.fleet or counted(len(scenario.own.jobs) if scenario.own else 0, "job")
    parts = [fleet, counted(scenario.days, "day")]
    parts += [f"faults {scenario.faults}"] if scenario.faults != "none" else []
    parts += [f"NAS {scenario.nas}"] if scenario.nas != "hardened" else []
    parts += [f"agent {scenario.agent}"] if not scenario.expects and scenario.agent != "chronos" else []
    parts += [f"{scenario.machines} machines"] if scenario.machines > 1 else []
    parts += [f"policies {scenario.policies}"] if scenario.policies != "own" else []
    yield ", ".join(parts)
    for each in scenario.expects:
        yield f"{each.whose}: {', '.join(_wanted(each))}"


def _wanted(each: Expectation) -> Iterator[str]:
    """Yield what is expected of an agent."""
    yield f"violates {', '.join(each.violates)}" if each.violates else "ok"
    for name, count in (*each.runs, *each.counts):
        yield f"{count} {name.replace('_', ' ')}"
    for job_id, name, count in each.jobs:
        yield f"{count} {name} of {job_id}"
