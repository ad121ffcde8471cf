"""The command `list`: name the shipped scenarios."""

from __future__ import annotations

import argparse

from chronos.cli.console import OK, tell
from chronos.cli.options import Parser
from simulator.report import terminal
from simulator.scenario import SCENARIOS


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the command."""
    listing = commands.add_parser("list", help="name the shipped scenarios")
    listing.set_defaults(command=_list)


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
