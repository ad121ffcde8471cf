"""The command line of `python -m simulator`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from chronos.cli.console import COMMON_STATUSES, INCONCLUSIVE, OK, VIOLATED, tell
from chronos.cli.options import Helped, Parser, Version, section
from simulator.commands import check, diff, explain, listing, measure, run, shrink, sweep, whatif
from simulator.commands.examples import EXAMPLES

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


def _parser() -> Parser:
    """Return the parser of all commands."""
    statuses = section("exit statuses", STATUSES)
    whole_parser = Parser(
        prog="python -m simulator",
        description="Simulate managed cron: real jobs files through cold starts and failures.",
        epilog=f"{EXAMPLES}\n\n{statuses}",
    )
    whole_parser.add_argument("--version", action=Version)
    commands = whole_parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for command in (run, sweep, whatif, explain, shrink, diff, listing, check, measure):
        command.add(commands)
    return whole_parser
