"""The cells of a campaign, out of the options of a sweep: each is a command `run` of its own."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import product
from os import stat_result

import attrs

from chronos.cli.console import BadUsage, facts
from chronos.cli.options import STANDARD_INPUT, Parser, expected
from simulator.campaign import Cell
from simulator.scenario_file import names
from simulator.world_options import add_fleet, add_world, input_of, plan_of, scenario_of

# More than a table can show.
MAX_CELLS = 1000
ALL = "all"


@attrs.frozen
class Variation:
    """An option that is varied.

    Attributes:
        option: its name, with the dashes.
        values: each of them in a cell of its own; an empty one leaves the option out.
    """

    option: str
    values: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Variation:
        """Return the variation that *text* asks for, OPTION=VALUE,VALUE."""
        option, is_told, values = text.partition("=")
        every = tuple(values.split(","))
        if not (option and is_told) or len(set(every)) < max(len(every), 2):
            raise argparse.ArgumentTypeError(
                f"expected OPTION=VALUE,VALUE with different values, such as faults=light,heavy, got {text!r}"
            )
        return cls(f"--{option.removeprefix('--')}", every)


def cells_of(
    scenarios: Sequence[str], shared: Sequence[str], varied: Sequence[Variation]
) -> tuple[tuple[Cell, ...], list[stat_result]]:
    """Return the cells: the product of scenarios and variations; and the facts of the files that they read.

    Args:
        scenarios: their names or files, or `ALL`; none for the default.
        shared: the options that all cells have.
        varied: the options in which they differ.

    Raises:
        BadUsage: one of them makes no sense.
    """
    chosen = list(dict.fromkeys(names() if ALL in scenarios else scenarios)) or [""]
    parser = Parser(prog="python -m simulator sweep")
    add_fleet(parser)
    add_world(parser)
    _check(varied, parser)
    cells, read = list[Cell](), list[stat_result]()
    for name, *values in product(chosen, *(each.values for each in varied)):
        if len(cells) == MAX_CELLS:
            raise BadUsage(f"expected {MAX_CELLS} cells at most: scenarios times values")
        words = [*([name] if name else []), *shared, *_arguments(parser, varied, values)]
        options = parser.parse_args(words)
        if options.jobs == STANDARD_INPUT:
            raise BadUsage("--jobs -: expected a file, which an interrupted sweep can read again")
        scenario = scenario_of(options)
        given = input_of(options, scenario)
        plan = plan_of(options, scenario)
        label = " ".join(
            _labels((name or plan.scenario) if len(chosen) > 1 or not varied else "", varied, values)
        )
        cells.append(Cell(label=label, arguments=tuple(words), plan=plan))
        read += [each for each in (given, facts(scenario.source)) if each is not None]
    return tuple(cells), read


def _check(varied: Sequence[Variation], parser: Parser) -> None:
    """Make sure that there are such options, and that none of them is varied twice."""
    known = [name for name in parser.options if name not in ("--seed", "--help", "-h")]
    for number, each in enumerate(varied):
        if each.option not in known:
            told = expected(each.option[2:], [name[2:] for name in known])
            raise BadUsage(f"--vary: there is no option {told}")
        if each.option in {other.option for other in varied[:number]}:
            raise BadUsage(f"--vary: {each.option[2:]} is varied twice")


def _labels(scenario: str, varied: Sequence[Variation], values: Sequence[str]) -> Iterator[str]:
    if scenario:
        yield scenario
    for each, value in zip(varied, values, strict=True):
        yield f"{each.option[2:]}={value}"


def _arguments(parser: Parser, varied: Sequence[Variation], values: Sequence[str]) -> Iterator[str]:
    for each, value in zip(varied, values, strict=True):
        if parser.takes_value(each.option):
            if value:
                yield f"{each.option}={value}"
        elif value == "yes":
            yield each.option
        elif value != "no":
            raise BadUsage(f"--vary: {each.option[2:]} is an option without a value; expected yes,no")
