"""The command `diff`: show where two traces part."""

from __future__ import annotations

import argparse

from chronos.cli.console import OK, VIOLATED, tell
from chronos.cli.options import Parser
from simulator.report.difference import difference


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the command."""
    diff = commands.add_parser("diff", help="show where two traces part, side by side")
    for name in ("one", "other"):
        diff.add_argument(name, metavar=name.upper(), help="a trace, as run --trace FILE.jsonl writes it")
    diff.set_defaults(command=_diff)


def _diff(options: argparse.Namespace) -> int:
    lines = difference(options.one, options.other)
    tell(["the same   from beginning to end"] if lines is None else lines)
    return OK if lines is None else VIOLATED
