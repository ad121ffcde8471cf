"""The command `explain`: tell one job's story."""

from __future__ import annotations

import argparse

from chronos.cli.console import OK, attempted, tell
from chronos.cli.options import Parser, instant
from simulator.commands.progress import progress
from simulator.report import terminal
from simulator.report.story import Story
from simulator.scenario import simulate
from simulator.trace import Tracer
from simulator.world_options import add_fleet, add_world, input_of, job_of, plan_of, scenario_of


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the command."""
    explain = commands.add_parser("explain", help="tell one job's story: what became of it, and why")
    add_fleet(explain)
    explain.add_argument("--job", metavar="ID", required=True, help="which job")
    explain.add_argument(
        "--around",
        type=instant,
        metavar="INSTANT",
        help="what to tell of: ISO 8601 with an offset (default: its first loss)",
    )
    add_world(explain)
    explain.set_defaults(command=_explain)


def _explain(options: argparse.Namespace) -> int:
    scenario = scenario_of(options)
    input_of(options, scenario)
    plan = plan_of(options, scenario)
    job_id = job_of(options, plan)
    story = Story(job_id, options.around)
    tracer = Tracer(story.take, plan.fleet.job_ids, job_id)
    with progress(plan.scenario, 1.0) as advance:
        summary = attempted(lambda: simulate(plan, options.seed, advance, tracer))
    tell(terminal.world_lines(plan, options.seed))
    tell(story.lines(summary))
    return OK
