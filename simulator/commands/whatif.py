"""The command `whatif`: one's own fleet always on, scaled to zero, and at other idle time-outs and boots."""

from __future__ import annotations

import argparse
import re
from contextlib import nullcontext
from decimal import Decimal

from chronos.cli.console import BadUsage, tell
from chronos.cli.options import Parser, whole
from simulator.agents import agent_of
from simulator.commands.progress import progress
from simulator.commands.verdicts import STATUS_OF, worst
from simulator.conditions import span
from simulator.conditions_options import LONGEST_BOOT_US, LONGEST_IDLE_US, NEVER, STUCK, span_us
from simulator.report.file import STANDARD_OUTPUT, is_output, writing
from simulator.report.traced import is_same
from simulator.report.whatif import whatif_lines, whatif_object
from simulator.report.whatif_page import page
from simulator.scenario import Plan, Scenario
from simulator.whatif import BOOT_US, IDLE_US, Prices, answer, variants
from simulator.world_options import add_calendar, add_world, input_of, plan_of

MAX_SEEDS = 1_000
# How many points of a curve may be asked for.
MAX_POINTS = 20
# A month, as hosts are paid by it.
_WHAT_IF = Scenario(
    name="what-if", about="a month of a jobs file in which nothing goes wrong", fleet="", days=30
)

_PRICE = re.compile(r"\d{1,9}(?:\.\d{1,12})?", re.ASCII)
_PRICES = {
    "hour": "for each hour that a machine is up",
    "wake": "for each start of a machine",
    "call": "for each request of NAS and each fire that it delivers",
}


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the command."""
    whatif = commands.add_parser(
        "whatif", help="compare always on with scale to zero for a fleet, and other idle time-outs and boots"
    )
    whatif.add_argument("jobs", metavar="FILE", help="a jobs file; - for the standard input; never written")
    add_calendar(whatif)
    whatif.add_argument(
        "--seeds", type=whole(1, MAX_SEEDS), default=1, metavar="N", help="means of so many seeds"
    )
    add_world(whatif)
    group = whatif.add_argument_group(
        "what is compared", "one thing at a time differs from what the options say"
    )
    for name, most, us in (
        ("idle", (LONGEST_IDLE_US, "24h"), IDLE_US),
        ("boot", (LONGEST_BOOT_US, "1h"), BOOT_US),
    ):
        group.add_argument(
            f"--{name}-times",
            type=_Times(most),
            default=us,
            metavar="TIME,...",
            help=f"the points of the curve, beside that of --{name} (default: {','.join(map(span, us))})",
        )
    for name, words in _PRICES.items():
        group.add_argument(f"--price-{name}", type=_price, metavar="PRICE", help=f"what is paid {words}")
    whatif.add_argument("--json", metavar="FILE", help="write all figures as JSON; - for the output")
    whatif.add_argument("--html", metavar="FILE", help="write a page that shows the curves")
    whatif.set_defaults(command=_whatif, scenario=None)


class _Times:
    """Reads times that are separated by commas.

    Args:
        most: the longest that each may be, microseconds, and how it is spelt.
    """

    def __init__(self, most: tuple[int, str]) -> None:
        self._most = most

    def __call__(self, text: str) -> tuple[int, ...]:
        """Return the times, microseconds; raises as `span_us` does."""
        times = tuple(span_us(each, 1, self._most) for each in text.split(","))
        if len(times) > MAX_POINTS:
            raise argparse.ArgumentTypeError(f"expected {MAX_POINTS} times at most, got {len(times)}")
        return times


def _price(text: str) -> Decimal:
    if not _PRICE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"expected a price such as 0.05, got {text!r}")
    return Decimal(text)


def _whatif(options: argparse.Namespace) -> int:
    if options.jobs.endswith(".toml"):
        raise BadUsage(
            f"{options.jobs}: expected a jobs file, whose terms are compared; a scenario has its own"
        )
    given = input_of(options, _WHAT_IF)
    is_told = options.json is None or not is_output(options.json)
    target = options.json if is_told else STANDARD_OUTPUT
    if options.html is not None and is_output(options.html):
        raise BadUsage(f"--html {options.html}: the summary goes there; expected a file")
    if None not in (options.html, options.json) and is_same(options.html, options.json):
        raise BadUsage(f"--html {options.html}: this is the file of --json; expected another name")
    with (
        nullcontext() if target is None else writing(target, given, is_list=False) as report,
        nullcontext() if options.html is None else writing(options.html, given, option="--html") as html,
    ):
        plan = _sleeping(options, plan_of(options, _WHAT_IF))
        found = variants(plan, idle_us=options.idle_times, boot_us=options.boot_times)
        prices = Prices(hour=options.price_hour, wake=options.price_wake, call=options.price_call)
        seeds = range(options.seed, options.seed + options.seeds)
        with progress("what if", 1.0) as advance:
            came = answer(plan, found, seeds, prices, advance)
        if report is not None:
            report.add(whatif_object(came))
        if html is not None:
            for piece in page(came):
                html.write(piece)
        if is_told:
            tell(whatif_lines(came))
    return STATUS_OF[worst(row.figures.verdict for row in came.rows)]


def _sleeping(options: argparse.Namespace, plan: Plan) -> Plan:
    """Return *plan*, once it is sure that its machine sleeps and boots.

    Raises:
        BadUsage: it does not, or the plan is not of the model.
    """
    if plan.wire:
        raise BadUsage("whatif works on the model, whose history is that of --wire; expected no --wire")
    if options.idle == NEVER:
        raise BadUsage(
            "--idle never: always on is simulated anyway; expected how long a machine that sleeps is idle"
        )
    if options.boot == STUCK:
        raise BadUsage("--boot stuck: expected a time, beside which other boot times are simulated")
    if not agent_of(plan.agent).has_nas:
        raise BadUsage(f"--agent {plan.agent}: its machine never sleeps; expected an agent that NAS wakes")
    return plan
