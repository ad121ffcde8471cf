"""The commands of `python -m simulator`, their options and what they print."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from chronos.errors import ChronosError
from chronos.protocol.schedule import Instant, ScheduleError, parse_instant
from chronos.testing.nas import BUILDS
from simulator import bench, cases, faults, fleet, policies
from simulator.agents import AGENTS
from simulator.exits import BAD_INPUT, INCONCLUSIVE, OK, VIOLATED, complain, mute
from simulator.report import document, terminal
from simulator.scenario import DEFAULT, OWN_JOBS, SCENARIOS, Plan, simulate
from simulator.sweep import search_case, spread, sweep
from simulator.world import Summary

# The worst verdict of several decides.
_STATUS = {"ok": OK, "inconclusive": INCONCLUSIVE, "violated": VIOLATED}
_WORST = ("violated", "inconclusive", "ok")

# A century of a minute job; beyond that, instants leave the calendar.
MAX_DAYS = 36_525
MAX_SEEDS = 1_000_000


class BadUsage(Exception):
    """What was asked for makes no sense; the message is one line."""


class _Helped(Exception):
    """Somebody asked for help, which is printed like everything else."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text.rstrip("\n")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadUsage(f"{message} (see: python -m simulator --help)")

    def print_help(self, file: object = None) -> NoReturn:  # noqa: ARG002, the base class has it
        raise _Helped(self.format_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0: everything held; 1: a property was violated; 2: bad usage or input, or the output cannot be written;
    3: inconclusive; 130: interrupted from the keyboard.

    Raises:
        KeyboardInterrupt: for `simulator.__main__`, which has to answer it before this is imported, too.
    """
    try:
        if sys.stdout is None:
            raise BadUsage("the output cannot be written: it is closed")
        try:
            options = _parser().parse_args(arguments)
        except _Helped as helped:
            _tell([helped.text])
            return OK
        status: int = options.command(options)
    except (BadUsage, ChronosError) as error:
        complain(f"error: {error}")
        return BAD_INPUT
    return status


def _tell(lines: Iterable[str]) -> None:
    """Print *lines*, for as long as somebody reads them.

    Raises:
        BadUsage: the output takes no more, and not because its reader has left.
    """
    for line in lines:
        try:
            print(line, flush=True)
        except BrokenPipeError:
            # Whoever read our output has had enough of it; what came of the simulation is the same.
            mute(sys.stdout)
            return
        except OSError as error:
            mute(sys.stdout)
            raise BadUsage(f"the output cannot be written: {error.strerror}") from None


# --- options --------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m simulator",
        description="Simulate managed cron: real jobs files through cold starts and failures.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    run = commands.add_parser("run", help="simulate a fleet and tell what came of it", allow_abbrev=False)
    run.add_argument(
        "scenario",
        nargs="?",
        metavar="SCENARIO",
        help=f"a shipped scenario (default: {DEFAULT}; with --jobs, a year without faults)",
    )
    run.add_argument("--jobs", type=Path, metavar="FILE", help="a jobs file instead of the scenario's fleet")
    run.add_argument(
        "--start", type=_instant, metavar="INSTANT", help="where to start, ISO 8601 with an offset"
    )
    run.add_argument("--days", type=_whole(1, MAX_DAYS), metavar="N", help="how long the calendar lasts")
    run.add_argument(
        "--seed", type=_whole(0, 2**63 - 1), default=0, metavar="N", help="the seed (default: 0)"
    )
    run.add_argument("--seeds", type=_whole(1, MAX_SEEDS), metavar="N", help="so many seeds, from --seed on")
    run.add_argument("--faults", choices=faults.LEVELS, help="what goes wrong")
    run.add_argument("--nas", choices=tuple(BUILDS), help="which promises NAS keeps")
    run.add_argument(
        "--agent", choices=tuple(AGENTS), metavar="NAME", help="which agent: " + ", ".join(AGENTS)
    )
    run.add_argument(
        "--policies", choices=policies.SOURCES, help="the jobs' own policies, or others at random"
    )
    run.add_argument("--machines", type=_whole(1, 16), metavar="N", help="how many replicas share the store")
    run.add_argument(
        "--json", type=Path, metavar="FILE", help="write what came of it as JSON; - for the output"
    )
    run.set_defaults(command=_run)

    listing = commands.add_parser("list", help="name the shipped scenarios", allow_abbrev=False)
    listing.set_defaults(command=_list)

    check = commands.add_parser(
        "check", help="search every order of events of a small world", allow_abbrev=False
    )
    check.add_argument("--agent", choices=tuple(AGENTS), default="chronos", help="which agent")
    check.add_argument("--nas", choices=tuple(BUILDS), default="hardened", help="which promises NAS keeps")
    check.add_argument(
        "--crashes", type=_whole(0, 3), default=1, metavar="N", help="how many crashes (default: 1)"
    )
    check.add_argument(
        "--duplicates", type=_whole(0, 3), default=1, metavar="N", help="how many duplicates (default: 1)"
    )
    check.add_argument(
        "--losses", type=_whole(0, 3), default=1, metavar="N", help="how many losses (default: 1)"
    )
    check.add_argument("--deep", action="store_true", help="search the large cases too; takes long")
    check.add_argument(
        "--limit", type=_whole(1, 10**9), metavar="N", help="give up a case after so many states"
    )
    check.set_defaults(command=_check)

    measure = commands.add_parser("bench", help="measure the simulator's speed", allow_abbrev=False)
    measure.set_defaults(command=_bench)
    return parser


def _whole(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}, got {text!r}")
        return int(text)

    return number


def _instant(text: str) -> Instant:
    try:
        return parse_instant(text)
    except ScheduleError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


# --- run ------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    plan = _plan(options)
    if options.json is not None:
        _check_writable(options.json)
    if options.seeds is None:
        with _progress(plan.scenario, 1.0) as advance:
            summary = simulate(plan, options.seed, advance)
        lines = terminal.summary_lines(plan, options.seed, summary)
        written: Any = document.summary_object(plan.scenario, options.seed, summary)
        verdict = summary.verdict
    else:
        results = _sweep(plan, range(options.seed, options.seed + options.seeds))
        lines = terminal.sweep_lines(plan, results)
        written = [document.summary_object(plan.scenario, seed, summary) for seed, summary in results]
        verdict = next(name for name in _WORST if any(summary.verdict == name for _, summary in results))
    if str(options.json) == "-":
        _tell([document.as_text(written)])
        return _STATUS[verdict]
    _tell(lines)
    if options.json is not None:
        _write(options.json, document.as_text(written))
    return _STATUS[verdict]


def _plan(options: argparse.Namespace) -> Plan:
    """Return what the options ask for; what they leave open is the scenario's."""
    name = options.scenario or (DEFAULT if options.jobs is None else OWN_JOBS.name)
    if name not in SCENARIOS and options.scenario is not None:
        raise BadUsage(f"there is no scenario {name!r}, expected one of: {', '.join(SCENARIOS)}")
    chosen = SCENARIOS.get(name, OWN_JOBS)
    if options.jobs is not None:
        loaded = fleet.load_file(options.jobs, start_us=options.start)
    else:
        loaded = fleet.load_shipped(chosen.fleet, start_us=options.start)
    plan = Plan(
        scenario=name,
        fleet=loaded,
        days=options.days or chosen.days,
        faults=options.faults or chosen.faults,
        nas=options.nas or chosen.nas,
        agent=options.agent or chosen.agent,
        machines=options.machines or chosen.machines,
        policies=options.policies or chosen.policies,
    )
    if plan.setting(options.seed).end_us > _LAST_US:
        raise BadUsage(f"--days {plan.days}: expected an end before the year 9900")
    return plan


_LAST_US = parse_instant("9900-01-01T00:00:00+00:00")


def _sweep(plan: Plan, seeds: range) -> list[tuple[int, Summary]]:
    results = []
    with _progress(plan.scenario, float(len(seeds))) as advance:
        for result in sweep(plan, seeds):
            results.append(result)
            advance(float(len(results)))
    return results


def _write(path: Path, text: str) -> None:
    try:
        document.write_whole(path, text)
    except BrokenPipeError:
        pass  # a pipe by name, whose reader has left like that of the output may
    except OSError as error:
        raise BadUsage(f"{path}: cannot be written: {error.strerror}") from None


def _check_writable(path: Path) -> None:
    """Refuse a place for the JSON before hours are spent on it."""
    if str(path) == "-":
        return
    if path.is_dir():
        raise BadUsage(f"--json {path}: expected a file, this is a folder")
    if not path.parent.is_dir():
        raise BadUsage(f"--json {path}: there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise BadUsage(f"--json {path}: cannot be written: permission denied")


@contextmanager
def _progress(name: str, total: float) -> Iterator[Callable[[float], None]]:
    """Show a bar on a terminal, and nothing when the output goes elsewhere."""
    console = Console(stderr=True)
    if not (console.is_terminal and sys.stdout.isatty()):
        yield lambda _part: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
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
        _tell([about, setting])
    return OK


def _check(options: argparse.Namespace) -> int:
    names = [case.name for case in cases.CASES if options.deep or not case.is_deep]
    budget = (options.crashes, options.duplicates, options.losses)
    results = []
    with _progress("check", float(len(names))) as advance:
        same = ([each] * len(names) for each in (options.agent, options.nas, budget, options.limit))
        for result in spread(search_case, names, *same):
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
    _tell([f"check      {setting}; anywhere at most {allowed}"])
    _tell(terminal.check_lines(results))
    _tell([f"verdict    {verdict}"])
    return status


def _bench(_options: argparse.Namespace) -> int:
    _tell(bench.lines())
    return OK
