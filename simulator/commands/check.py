"""The command `check`: search every order of events of a small world, or step through it."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial

from chronos.cli.console import INCONCLUSIVE, OK, VIOLATED, BadUsage, tell
from chronos.cli.options import Parser, expected, whole
from simulator.agents import CHRONOS, agent_of
from simulator.commands.explorer import MOST_STATES, Explorer
from simulator.commands.progress import progress
from simulator.commands.shown import add_shown
from simulator.report import terminal
from simulator.report.counterexamples import Drawn, trace_lines, write_counterexamples
from simulator.report.file import refuse_place, writing
from simulator.report.traced import form_within
from simulator.report.traces import Form, Write
from simulator.search import cases
from simulator.search.explore import Counterexample, Result
from simulator.search.told import lines_of
from simulator.sweep import search_case, small_world, spread
from simulator.world_options import add_agent, add_nas

_FAULTS = ("crashes", "duplicates", "losses")
_NAS, _ONCE = "hardened", 1


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the command."""
    check = commands.add_parser("check", help="search every order of events of a small world")
    add_agent(check)
    add_nas(check)
    check.set_defaults(agent=CHRONOS.name, nas=_NAS)
    for fault in _FAULTS:
        check.add_argument(
            f"--{fault}",
            type=whole(0, 3),
            default=_ONCE,
            metavar="N",
            help=f"how many {fault} (default: {_ONCE})",
        )
    check.add_argument("--case", metavar="NAME", help="search one case alone, by its name")
    check.add_argument("--deep", action="store_true", help="search the large cases too; takes long")
    check.add_argument(
        "--limit", type=whole(1, 10**9), metavar="N", help="give up a case after so many states"
    )
    add_shown(check)
    check.add_argument(
        "--explore",
        action="store_true",
        help="step through a case (default: the first): what can happen next, choose, go back",
    )
    check.add_argument(
        "--follow", type=_choices, metavar="N,N,...", help="with --explore: let this happen first"
    )
    check.set_defaults(command=_check)


def _choices(text: str) -> tuple[int, ...]:
    """Return the numbers of *text*, which has commas between them."""
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
        raise argparse.ArgumentTypeError(f"expected numbers with commas between them, not {text!r}")
    return tuple(int(part) for part in parts)


def _check(options: argparse.Namespace) -> int:
    if not agent_of(options.agent).has_nas:
        raise BadUsage(
            f"--agent {options.agent}: the small worlds are those of NAS; expected one that has it"
        )
    names = _names(options)
    if options.explore:
        return _explore(options, names[0])
    if options.follow is not None:
        raise BadUsage("--follow goes with --explore")
    form = form_within(options.trace, options.html)
    for option, target in (("--trace", options.trace), ("--html", options.html)):
        if target is not None:
            refuse_place(target, option)
    results = _search(options, names)
    status, verdict = OK, "ok: every state holds every property and can still settle"
    if any(result.counterexamples for result in results):
        status, verdict = VIOLATED, "violated"
    elif not all(result.is_complete for result in results):
        status, verdict = INCONCLUSIVE, "inconclusive"
    told = [*_write(options, form, results)]
    tell([f"check      {_setting(options)}"])
    tell(terminal.check_lines(results, partial(_walk, options)))
    tell([*told, f"verdict    {verdict}"])
    return status


def _names(options: argparse.Namespace) -> list[str]:
    """Return the names of the cases that are asked for.

    Raises:
        BadUsage: there is none of that name.
    """
    if options.case is None:
        return [case.name for case in cases.CASES if options.deep or not case.is_deep]
    known = [case.name for case in cases.CASES]
    if options.case not in known:
        raise BadUsage(f"--case: there is no case {expected(options.case, known)}")
    return [options.case]


def _search(options: argparse.Namespace, names: Sequence[str]) -> list[Result]:
    results: list[Result] = []
    with progress("check", float(len(names))) as advance:
        search = partial(search_case, options.agent, options.nas, _budget(options), options.limit)
        with closing(spread(search, names, noun="case")) as found:
            for result in found:
                results.append(result)
                advance(float(len(results)))
    return results


def _budget(options: argparse.Namespace) -> tuple[int, int, int]:
    return options.crashes, options.duplicates, options.losses


def _setting(options: argparse.Namespace) -> str:
    """Return of which search this is."""
    words = ("crash", "duplicate", "loss")
    allowed = ", ".join(terminal.counted(*each) for each in zip(_budget(options), words, strict=True))
    setting = f"agent {options.agent}, NAS {options.nas}; one job, two processes"
    return f"{setting}; anywhere at most {allowed}"


def _write(
    options: argparse.Namespace, form: Callable[[Write], Form] | None, results: Sequence[Result]
) -> Iterator[str]:
    """Write the files that are asked for, and yield the lines that tell of those that are not written."""
    drawn = tuple(_drawn(options, results)) if options.html or options.trace else ()
    for option, target in (("--html", options.html), ("--trace", options.trace)):
        if target is None:
            continue
        if not drawn:
            yield f"{option[2:]:11}nothing is violated, so there is nothing to draw: {target} is not written"
            continue
        with writing(target, None, option=option) as file:
            if option == "--html":
                write_counterexamples(file.write, _setting(options), drawn)
            elif form is not None:
                take, end = form(file.write)
                for line in trace_lines(drawn):
                    take(line)
                end()


def _drawn(options: argparse.Namespace, results: Sequence[Result]) -> Iterator[Drawn]:
    for result in results:
        space = small_world(options.agent, options.nas, _budget(options), result.case)
        for found in result.counterexamples:
            yield Drawn(
                case=result.case,
                processes=space.case.processes,
                found=found,
                lines=lines_of(space, found),
                walk=_walk(options, result.case, found),
            )


# --- stepping through -------------------------------------------------------------------------


def _walk(options: argparse.Namespace, case: str, found: Counterexample) -> str:
    """Return the command that walks through a counterexample."""
    return _explorer(options, case, found.choices)


def _explorer(options: argparse.Namespace, case: str, choices: Sequence[int]) -> str:
    given = ["--explore", "--case", case]
    for name, default in (("agent", CHRONOS.name), ("nas", _NAS), *((fault, _ONCE) for fault in _FAULTS)):
        value = getattr(options, name)
        given += [] if value == default else [f"--{name}", str(value)]
    given += ["--follow", ",".join(map(str, choices))] if choices else []
    return shlex.join(["python", "-m", "simulator", "check", *given])


def _explore(options: argparse.Namespace, case: str) -> int:
    for option in ("html", "trace", "deep"):
        if getattr(options, option):
            raise BadUsage(f"--{option} is of the search, and not of --explore")
    space = small_world(options.agent, options.nas, _budget(options), case)
    explorer = Explorer(space, options.limit or MOST_STATES, partial(_explorer, options, case))
    explorer.follow(options.follow or ())
    tell([f"case       {case}", f"           {_setting(options)}"])
    return explorer.run()
