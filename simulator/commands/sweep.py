"""The command `sweep`: simulate many seeds of many plans, keep what came of them, and go on."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import partial
from os import stat_result
from pathlib import Path

from chronos.cli import console
from chronos.cli.console import BadUsage, complain, facts, is_one_file, tell
from chronos.cli.options import Parser, whole
from simulator.agents import AGENTS
from simulator.campaign import Cell, Outcome, identity
from simulator.cells import Variation, cells_of
from simulator.commands.progress import counting
from simulator.commands.verdicts import STATUS_OF, worst
from simulator.executors import Executor, address, on_cores, on_dask
from simulator.report.campaigns import Table
from simulator.report.file import STANDARD_OUTPUT, is_output, writing
from simulator.results import Results, kept
from simulator.world_options import add_fleet, add_world

# A byte in memory and some numbers for each.
MAX_SIMULATIONS = 10_000_000

# What is of the sweep, and not of each of its cells; each has a value.
_OF_SWEEP = ("--seeds", "--seed", "--vary", "--results", "--dask", "--workers", "--json")


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the command."""
    sweep = commands.add_parser(
        "sweep", help="simulate many seeds of many plans, keep what came of them, and go on"
    )
    add_fleet(sweep, is_many=True)
    sweep.add_argument(
        "--seeds",
        type=whole(1, MAX_SIMULATIONS),
        default=100,
        metavar="N",
        help="so many seeds of each cell, from --seed on (default: 100)",
    )
    sweep.add_argument(
        "--vary",
        type=Variation.of,
        action="append",
        default=[],
        metavar="OPTION=VALUE,...",
        help="a cell for each value of an option, an empty one to leave it out; yes,no for one without a "
        "value; repeated, a cell for each combination",
    )
    sweep.add_argument(
        "--results", metavar="DIR", help="keep what came of each simulation there, and go on from there"
    )
    sweep.add_argument(
        "--workers", type=whole(1, 1024), metavar="N", help="so many processes (default: one on each core)"
    )
    sweep.add_argument(
        "--dask",
        type=address,
        metavar="ADDRESS",
        help="on a Dask cluster that is there: tcp://HOST:PORT of its scheduler",
    )
    sweep.add_argument("--json", metavar="FILE", help="write the table as JSON; - for the output")
    add_world(sweep)
    sweep.set_defaults(command=partial(_sweep, sweep))


def _sweep(parser: Parser, options: argparse.Namespace) -> int:
    if options.dask is not None and options.workers is not None:
        raise BadUsage("--workers is of this machine, and not of --dask")
    cells, read = cells_of(options.scenario, _shared(parser, options.given), options.vary)
    if len(cells) * options.seeds > MAX_SIMULATIONS:
        raise BadUsage(f"expected {MAX_SIMULATIONS:,} simulations at most: cells times --seeds")
    which = identity(cells)
    first = options.seed or 0
    table = Table(cells, range(first, first + options.seeds))
    is_told = options.json is None or not is_output(options.json)
    with _written(options.json if is_told else STANDARD_OUTPUT, read) as add_object:
        with _results(options.results, which) as results:
            for outcome in () if results is None else results.outcomes():
                table.add(outcome)
            _complete(table, cells, options, results)
        add_object(table.object(which))
        if is_told:
            tell(table.lines())
    return STATUS_OF[worst(table.verdicts)]


def _shared(parser: Parser, given: Sequence[str]) -> list[str]:
    """Return the options of each cell: those given that are not of the sweep."""
    found: list[str] = []
    words = iter(given[1:])
    for word in words:
        name = word.partition("=")[0]
        value = [next(words)] if "=" not in word and parser.takes_value(name) else []
        if name.startswith("--") and name not in ("--", *_OF_SWEEP):
            found += [word, *value]
    return found


@contextmanager
def _written(target: str | None, read: Iterable[stat_result]) -> Iterator[Callable[[object], None]]:
    """Yield what puts an object into the file that is asked for, if one is."""
    if target is None:
        yield lambda _object: None
        return
    given = None
    for each in read:
        given = each if given is None or is_one_file(each, facts(target)) else given
    with writing(target, given, is_list=False) as report:
        yield report.add


def _results(folder: str | None, which: dict[str, object]) -> AbstractContextManager[Results | None]:
    return nullcontext() if folder is None else kept(Path(folder), which)


def _complete(
    table: Table, cells: Sequence[Cell], options: argparse.Namespace, results: Results | None
) -> None:
    """Simulate what *table* lacks, and keep it."""
    total, before = len(cells) * options.seeds, table.count
    if before == total:
        return

    def left() -> str:
        if results is None:
            return "nothing was kept, as there is no --results"
        return f"{table.count:,} of {total:,} simulations are in {results.folder}, the same command goes on"

    plans = tuple(cell.plan for cell in cells)
    own_agents = tuple(sorted({plan.agent for plan in plans} - AGENTS.keys()))
    place = on_cores(plans, options.workers)
    if options.dask is not None:
        place = on_dask(options.dask, plans, own_agents)
    with console.leaving(left), place as executor, counting("sweep", total, before) as advance:
        began_s, cpu_s = time.monotonic(), 0.0
        with closing(executor.run(table.missing())) as ended:
            for done in ended:
                _keep(done.outcome, table, results)
                cpu_s += done.cpu_s
                advance(table.verdicts["violated"])
        _tell_efficiency(executor, table.count - before, cpu_s, time.monotonic() - began_s)


def _keep(outcome: Outcome, table: Table, results: Results | None) -> None:
    if results is not None:
        results.append(outcome)
    table.add(outcome)


def _tell_efficiency(executor: Executor, count: int, cpu_s: float, took_s: float) -> None:
    """Tell how much of the workers' time went into simulations; no part of the results."""
    share = cpu_s / max(took_s * executor.workers, 1e-9)
    complain(
        "simulator",
        f"{count:,} simulations in {took_s:,.1f} s by {executor.workers} workers, "
        f"{cpu_s:,.1f} s of processor time: efficiency {share:.0%}",
    )
