"""The command `bench`: measure the simulator's speed."""

from __future__ import annotations

import argparse

from chronos.cli.console import OK, tell
from chronos.cli.options import Parser
from simulator import bench


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the command."""
    measure = commands.add_parser("bench", help="measure the simulator's speed")
    measure.set_defaults(command=_bench)


def _bench(_options: argparse.Namespace) -> int:
    tell(bench.lines())
    return OK
