"""The command `shrink`: find the least that leads to a violation."""

from __future__ import annotations

import argparse

from chronos.cli.console import OK, VIOLATED, BadUsage, attempted, tell
from chronos.cli.options import Parser, expected
from simulator.commands.shown import add_shown
from simulator.properties import PROPERTIES
from simulator.report.shrunk import shrunk_lines, story
from simulator.report.traced import traced
from simulator.shrink import Shrinking
from simulator.world_options import add_fleet, add_world, input_of, plan_of, scenario_of


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the command."""
    shrink = commands.add_parser(
        "shrink", help="find the least that leads to a violation: jobs, days and faults that it needs"
    )
    add_fleet(shrink)
    shrink.add_argument(
        "--property", metavar="ID", help="which violation (default: the first one that there is)"
    )
    add_world(shrink)
    add_shown(shrink)
    shrink.set_defaults(command=_shrink)


def _shrink(options: argparse.Namespace) -> int:
    scenario = scenario_of(options)
    given = input_of(options, scenario)
    ids = [each.id for each in PROPERTIES]
    if options.property is not None and options.property not in ids:
        raise BadUsage(f"there is no property {expected(options.property, ids)}")
    plan = plan_of(options, scenario)
    if plan.script:
        raise BadUsage(f"shrink leaves out what comes by chance, and in {plan.scenario} it is written down")
    if plan.wire:
        raise BadUsage("shrink works on the model, whose history is that of --wire; expected no --wire")
    shrinking = Shrinking(plan, options.seed, options.property)
    shrunk = attempted(shrinking.shrink)
    if shrunk is None:
        what = "nothing is violated" if options.property is None else f"{options.property} holds"
        tell([f"verdict    ok: {what}"])
        return OK
    with traced(shrunk.plan, options.seed, given, trace=options.trace, html=options.html) as shown:
        for line in shrunk.lines:
            shown.take(line)
        shown.end(shrunk.summary, story(shrunk)[0].at_us if story(shrunk) else None)
    tell(shrunk_lines(shrunk))
    return VIOLATED
