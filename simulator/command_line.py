"""The commands of `python -m simulator`, their options and what they print."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from itertools import chain
from os import stat_result

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from chronos.cli.console import (
    COMMON_STATUSES,
    INCONCLUSIVE,
    OK,
    VIOLATED,
    BadUsage,
    attempted,
    tell,
    undone,
)
from chronos.cli.options import Helped, Parser, Version, expected, instant, section, whole
from chronos.testing.nas import BUILDS
from simulator import bench, faults
from simulator.agents import AGENTS
from simulator.compare import Cost, plain
from simulator.properties import PROPERTIES
from simulator.report import document, terminal, traces
from simulator.report.costs import cost_lines
from simulator.report.difference import difference
from simulator.report.file import STANDARD_OUTPUT, is_output, writing
from simulator.report.shrunk import shrunk_lines
from simulator.report.story import Story
from simulator.report.sweeps import Sweep
from simulator.report.traced import traced
from simulator.scenario import SCENARIOS, Plan, simulate
from simulator.search import cases
from simulator.shrink import Shrinking
from simulator.summary import Summary
from simulator.sweep import search_case, spread, sweep
from simulator.trace import Tracer
from simulator.world_options import add_fleet, add_world, input_of, job_of, plan_of, scenario_of

# The worst verdict of several decides.
_STATUS = {"ok": OK, "inconclusive": INCONCLUSIVE, "violated": VIOLATED}
_WORST = ("violated", "inconclusive", "ok")

STATUSES = dict(
    sorted(
        {
            OK: "everything held",
            VIOLATED: "a property was violated",
            INCONCLUSIVE: "inconclusive: nothing was violated, and not everything could be decided",
            **COMMON_STATUSES,
        }.items()
    )
)

MAX_SEEDS = 1_000_000

_EXAMPLES = """\
examples:
  python -m simulator run                                       a year of a shipped fleet
  python -m simulator run --jobs jobs.json                      a year of your own jobs
  python -m simulator run --jobs - --days 30 < jobs.json        read from the standard input
  python -m simulator run --jobs jobs.json --faults heavy --seeds 50 --json report.json
  python -m simulator check --limit 20000                       every order of events, for a while"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status, one of `STATUSES`.

    What goes wrong is raised, for `chronos.cli.console.ended`.
    """
    try:
        options = _parser().parse_args(arguments)
        options.given = list(sys.argv[1:] if arguments is None else arguments)
    except Helped as helped:
        tell(helped.lines)
        return OK
    status: int = options.command(options)
    return status


# --- options --------------------------------------------------------------------------------


def _parser() -> Parser:
    """Return the parser of all commands."""
    statuses = section("exit statuses", STATUSES)
    whole_parser = Parser(
        prog="python -m simulator",
        description="Simulate managed cron: real jobs files through cold starts and failures.",
        epilog=f"{_EXAMPLES}\n\n{statuses}",
    )
    whole_parser.add_argument("--version", action=Version)
    commands = whole_parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    _add_run(commands)
    _add_explain(commands)
    _add_shrink(commands)
    _add_diff(commands)
    listing = commands.add_parser("list", help="name the shipped scenarios")
    listing.set_defaults(command=_list)
    _add_check(commands)
    measure = commands.add_parser("bench", help="measure the simulator's speed")
    measure.set_defaults(command=_bench)
    return whole_parser


def _add_run(commands: argparse._SubParsersAction[Parser]) -> None:
    run = commands.add_parser(
        "run", help="simulate a fleet and tell what came of it", epilog=f"{_EXAMPLES}\n\n{_faults()}"
    )
    add_fleet(run)
    run.add_argument("--seeds", type=whole(1, MAX_SEEDS), metavar="N", help="so many seeds, from --seed on")
    run.add_argument("--job", metavar="ID", help="tell of one job alone")
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
    _add_shown(run)
    run.set_defaults(command=_run)


def _add_explain(commands: argparse._SubParsersAction[Parser]) -> None:
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


def _add_shrink(commands: argparse._SubParsersAction[Parser]) -> None:
    shrink = commands.add_parser(
        "shrink", help="find the least that leads to a violation: jobs, days and faults that it needs"
    )
    add_fleet(shrink)
    shrink.add_argument(
        "--property", metavar="ID", help="which violation (default: the first one that there is)"
    )
    add_world(shrink)
    _add_shown(shrink)
    shrink.set_defaults(command=_shrink)


def _add_diff(commands: argparse._SubParsersAction[Parser]) -> None:
    diff = commands.add_parser("diff", help="show where two traces part, side by side")
    for name in ("one", "other"):
        diff.add_argument(name, metavar=name.upper(), help="a trace, as run --trace FILE.jsonl writes it")
    diff.set_defaults(command=_diff)


def _add_shown(run: Parser) -> None:
    """Add the options that write down all that happens."""
    run.add_argument(
        "--trace",
        metavar="FILE",
        help="write all that happens: " + "; ".join(f"{end}, {words}" for end, words in traces.WORDS.items()),
    )
    run.add_argument("--html", metavar="FILE", help="write a page that shows all that happens")


def _faults() -> str:
    """Return what each level of faults means, and what may go wrong at all."""
    whole = (*faults.FAULTS, *faults.WIRE_FAULTS)
    rows = {fault.name: f"{fault.likelihood:6.1%}  {fault.words}" for fault in whole}
    return f"{section('levels of faults', faults.LEVELS)}\n\n{section('faults', rows)}"


def _add_check(commands: argparse._SubParsersAction[Parser]) -> None:
    check = commands.add_parser("check", help="search every order of events of a small world")
    check.add_argument("--agent", choices=tuple(AGENTS), default="chronos", help="which agent")
    check.add_argument("--nas", choices=tuple(BUILDS), default="hardened", help="which promises NAS keeps")
    for fault in ("crashes", "duplicates", "losses"):
        check.add_argument(
            f"--{fault}", type=whole(0, 3), default=1, metavar="N", help=f"how many {fault} (default: 1)"
        )
    check.add_argument("--deep", action="store_true", help="search the large cases too; takes long")
    check.add_argument(
        "--limit", type=whole(1, 10**9), metavar="N", help="give up a case after so many states"
    )
    check.set_defaults(command=_check)


# --- run ------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    scenario = scenario_of(options)
    given = input_of(options, scenario)
    is_list = options.seeds is not None
    is_told = options.json is None or not is_output(options.json)
    target = options.json if is_told else STANDARD_OUTPUT
    with nullcontext() if target is None else writing(target, given, is_list=is_list) as report:
        plan = plan_of(options, scenario)
        lines, verdict = _simulated(plan, options, given, None if report is None else report.add)
        if is_told:
            tell(lines)
    return _STATUS[verdict]


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
            _progress(plan.scenario, 1.0) as advance,
        ):
            summary = attempted(lambda: simulate(plan, options.seed, advance, shown.tracer))
            shown.end(summary)
        cost = None
        if options.compare:
            cost = Cost()
            cost.add(attempted(lambda: simulate(plain(plan), options.seed)), summary)
        keep(options.seed, summary, cost)
        why = "" if plan.wire else _command(options, options.seed, "shrink")
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
        _progress(plan.scenario, float(len(seeds))) as advance,
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
    told = folded.lines(plan, partial(_command, options))
    lines = chain(told, cost_lines(whole_cost) if options.compare else ())
    return lines, next(verdict for verdict in _WORST if folded.verdicts[verdict])


# Those that are not repeated where one seed of many is simulated again, each with a value.
_OF_MANY = ("--seeds", "--seed", "--json")
_OF_RUNS = ("--job", "--trace", "--html")


def _command(options: argparse.Namespace, seed: int, command: str = "run") -> str:
    """Return the command that simulates one seed of those that were asked for, and tells all of it."""
    left_out = _OF_MANY if command == "run" else (*_OF_MANY, *_OF_RUNS)
    kept, is_value = [], False
    for each in options.given:
        name, is_whole = each.partition("=")[0], "=" in each
        if not (is_value or name in left_out or each == "--compare"):
            kept.append(each)
        is_value = not is_value and name in left_out and not is_whole
    return shlex.join(["python", "-m", "simulator", command, *kept[1:], "--seed", str(seed)])


def _explain(options: argparse.Namespace) -> int:
    scenario = scenario_of(options)
    input_of(options, scenario)
    plan = plan_of(options, scenario)
    job_id = job_of(options, plan)
    story = Story(job_id, options.around)
    tracer = Tracer(story.take, plan.fleet.job_ids, job_id)
    with _progress(plan.scenario, 1.0) as advance:
        summary = attempted(lambda: simulate(plan, options.seed, advance, tracer))
    tell(terminal.world_lines(plan, options.seed))
    tell(story.lines(summary))
    return OK


def _shrink(options: argparse.Namespace) -> int:
    scenario = scenario_of(options)
    given = input_of(options, scenario)
    ids = [each.id for each in PROPERTIES]
    if options.property is not None and options.property not in ids:
        raise BadUsage(f"there is no property {expected(options.property, ids)}")
    plan = plan_of(options, scenario)
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
        shown.end(shrunk.summary)
    tell(shrunk_lines(shrunk))
    return VIOLATED


def _diff(options: argparse.Namespace) -> int:
    lines = difference(options.one, options.other)
    tell(["the same   from beginning to end"] if lines is None else lines)
    return OK if lines is None else VIOLATED


@contextmanager
def _progress(name: str, total: float) -> Iterator[Callable[[float], None]]:
    """Show a bar on a terminal, and nothing when the output goes elsewhere."""
    console = Console(stderr=True)
    if not (console.is_terminal and sys.stdout.isatty()):
        yield lambda _part: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    bar = Progress(*columns, TimeElapsedColumn(), console=console, transient=True)
    with undone(bar.stop), bar:
        task = bar.add_task(name, total=total)
        yield lambda part: bar.update(task, completed=part)


# --- list, check, bench ---------------------------------------------------------------------


def _list(_options: argparse.Namespace) -> int:
    width = max(len(name) for name in SCENARIOS)
    for shown in SCENARIOS.values():
        about = f"{shown.name:{width}}  {shown.about}"
        setting = (
            f"{'':{width}}  {shown.fleet}, {terminal.counted(shown.days, 'day')}, faults {shown.faults}, "
            f"NAS {shown.nas}, agent {shown.agent}, machines {shown.machines}, policies {shown.policies}"
        )
        tell([about, setting])
    return OK


def _check(options: argparse.Namespace) -> int:
    names = [case.name for case in cases.CASES if options.deep or not case.is_deep]
    budget = (options.crashes, options.duplicates, options.losses)
    results = []
    with _progress("check", float(len(names))) as advance:
        search = partial(search_case, options.agent, options.nas, budget, options.limit)
        with closing(spread(search, names, noun="case")) as found:
            for result in found:
                results.append(result)
                advance(float(len(results)))
    status, verdict = OK, "ok: every state holds every property and can still settle"
    if any(result.counterexamples for result in results):
        status, verdict = VIOLATED, "violated"
    elif not all(result.is_complete for result in results):
        status, verdict = INCONCLUSIVE, "inconclusive"
    setting = f"agent {options.agent}, NAS {options.nas}; one job, two processes"
    words = ("crash", "duplicate", "loss")
    allowed = ", ".join(terminal.counted(*each) for each in zip(budget, words, strict=True))
    tell([f"check      {setting}; anywhere at most {allowed}"])
    tell(terminal.check_lines(results))
    tell([f"verdict    {verdict}"])
    return status


def _bench(_options: argparse.Namespace) -> int:
    tell(bench.lines())
    return OK
