"""The options that write down all that happens."""

from __future__ import annotations

from chronos.cli.options import Parser
from simulator.report import traces


def add_shown(run: Parser) -> None:
    """Add the options that write down all that happens."""
    run.add_argument(
        "--trace",
        metavar="FILE",
        help="write all that happens: " + "; ".join(f"{end}, {words}" for end, words in traces.WORDS.items()),
    )
    run.add_argument("--html", metavar="FILE", help="write a page that shows all that happens")
