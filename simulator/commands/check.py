"""The command `check`: search every order of events of a small world."""

from __future__ import annotations

import argparse
from contextlib import closing
from functools import partial

from chronos.cli.console import INCONCLUSIVE, OK, VIOLATED, tell
from chronos.cli.options import Parser, whole
from chronos.testing.nas import BUILDS
from simulator.agents import CHRONOS
from simulator.commands.progress import progress
from simulator.report import terminal
from simulator.search import cases
from simulator.sweep import search_case, spread
from simulator.world_options import add_agent


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the command."""
    check = commands.add_parser("check", help="search every order of events of a small world")
    add_agent(check)
    check.set_defaults(agent=CHRONOS.name)
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


def _check(options: argparse.Namespace) -> int:
    names = [case.name for case in cases.CASES if options.deep or not case.is_deep]
    budget = (options.crashes, options.duplicates, options.losses)
    results = []
    with progress("check", float(len(names))) as advance:
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
