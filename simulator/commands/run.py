"""The command `run`: simulate a fleet and tell what came of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from contextlib import closing, nullcontext
from functools import partial
from itertools import chain
from os import stat_result

from chronos.cli.console import BadUsage, attempted, tell
from chronos.cli.options import Parser, section, whole
from simulator import faults
from simulator.commands.examples import EXAMPLES
from simulator.commands.judged import is_judged, run_all, run_judged, why_unjudged
from simulator.commands.progress import progress
from simulator.commands.replay import replay
from simulator.commands.shown import add_shown
from simulator.commands.verdicts import STATUS_OF, worst
from simulator.compare import Cost, plain
from simulator.report import document, terminal
from simulator.report.costs import cost_lines
from simulator.report.file import STANDARD_OUTPUT, is_output, writing
from simulator.report.sweeps import Sweep
from simulator.report.traced import traced
from simulator.scenario import Plan, simulate
from simulator.summary import Summary
from simulator.sweep import sweep
from simulator.world_options import add_fleet, add_world, input_of, job_of, plan_of, scenario_of

MAX_SEEDS = 1_000_000


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the command."""
    run = commands.add_parser(
        "run", help="simulate a fleet and tell what came of it", epilog=f"{EXAMPLES}\n\n{_faults()}"
    )
    add_fleet(run)
    run.add_argument("--seeds", type=whole(1, MAX_SEEDS), metavar="N", help="so many seeds, from --seed on")
    run.add_argument("--job", metavar="ID", help="tell of one job alone")
    run.add_argument(
        "--all", action="store_true", help="every shipped scenario of which something is expected"
    )
    add_world(run)
    run.add_argument(
        "--compare",
        action="store_true",
        help="simulate the same without what was asked for, too, and tell what it costs",
    )
    run.add_argument(
        "--json",
        metavar="FILE",
        help="write what came of it as JSON, in the place of a file that is there; - for the output",
    )
    add_shown(run)
    run.set_defaults(command=_run)


def _faults() -> str:
    """Return what each level of faults means, and what may go wrong at all."""
    whole = (*faults.FAULTS, *faults.WIRE_FAULTS)
    rows = {fault.name: f"{fault.likelihood:6.1%}  {fault.words}" for fault in whole}
    return f"{section('levels of faults', faults.LEVELS)}\n\n{section('faults', rows)}"


def _run(options: argparse.Namespace) -> int:
    if options.all:
        return run_all(options)
    scenario = scenario_of(options)
    given = input_of(options, scenario)
    if is_judged(options, scenario):
        return run_judged(options, scenario, given)
    unjudged = tuple(why_unjudged(options, scenario))  # of the options as they were given
    is_list = options.seeds is not None
    is_told = options.json is None or not is_output(options.json)
    target = options.json if is_told else STANDARD_OUTPUT
    with nullcontext() if target is None else writing(target, given, is_list=is_list) as report:
        plan = plan_of(options, scenario)
        lines, verdict = _simulated(plan, options, given, None if report is None else report.add)
        if is_told:
            tell(chain(lines, unjudged))
    return STATUS_OF[verdict]


def _simulated(
    plan: Plan,
    options: argparse.Namespace,
    given: stat_result | None,
    add: Callable[[object], None] | None,
) -> tuple[Iterable[str], str]:
    """Simulate *plan*, hand the JSON of each seed to *add*, and return the summary and the verdict."""

    def keep(seed: int, summary: Summary, cost: Cost | None) -> None:
        if add is not None:
            told = document.summary_object(plan, seed, summary)
            add({**told, **document.asked_object(plan.conditions, cost)})

    only = None if options.job is None else job_of(options, plan)
    if options.seeds is None:
        with (
            traced(plan, options.seed, given, trace=options.trace, html=options.html) as shown,
            progress(plan.scenario, 1.0) as advance,
        ):
            summary = attempted(lambda: simulate(plan, options.seed, advance, shown.tracer))
            shown.end(summary)
        cost = None
        if options.compare:
            cost = Cost()
            cost.add(attempted(lambda: simulate(plain(plan), options.seed)), summary)
        keep(options.seed, summary, cost)
        why = "" if plan.wire or plan.script else replay(options, options.seed, "shrink")
        lines = terminal.summary_lines(plan, options.seed, summary, only, why)
        return chain(lines, cost_lines(cost) if cost is not None else ()), summary.verdict
    for option in ("trace", "html", "job"):
        if getattr(options, option) is not None:
            raise BadUsage(f"--{option} is of one simulation, and not of --seeds")
    return _of_many(plan, options, keep)


def _of_many(
    plan: Plan, options: argparse.Namespace, keep: Callable[[int, Summary, Cost | None], None]
) -> tuple[Iterable[str], str]:
    """Simulate many seeds of *plan*, hand each to *keep*, and return the summary and the worst verdict."""
    seeds = range(options.seed, options.seed + options.seeds)
    folded, whole_cost = Sweep(), Cost()
    others = sweep(plain(plan), seeds) if options.compare else ((seed, None) for seed in seeds)
    with (
        progress(plan.scenario, float(len(seeds))) as advance,
        closing(sweep(plan, seeds)) as results,
        closing(others),
    ):
        for (seed, summary), (_, before) in zip(results, others, strict=True):
            folded.add(seed, summary)
            cost = None
            if before is not None:
                cost = Cost()
                for each in (cost, whole_cost):
                    each.add(before, summary)
            keep(seed, summary, cost)
            advance(float(folded.verdicts.total()))
    told = folded.lines(plan, partial(replay, options))
    lines = chain(told, cost_lines(whole_cost) if options.compare else ())
    return lines, worst(folded.verdicts)
