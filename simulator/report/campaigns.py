"""What is told of a campaign: a row for each cell, and what failed, folded by cause.

It is computed from the outcomes alone, and does not depend on the order in which they came.
"""

from __future__ import annotations

import shlex
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from math import sqrt
from typing import Any

import attrs

from simulator.campaign import Cell, Outcome, Task
from simulator.report.terminal import counted
from simulator.report.words import seconds

# Of the standard normal distribution, for intervals of 95 %.
_Z = 1.959963984540054

VERDICTS = ("ok", "inconclusive", "violated")

# The result that means that nobody started an occurrence, which ought to have run.
_MISSED = "missed"


def interval(count: int, total: int) -> tuple[float, float]:
    """Return between which rates the true one is, by *count* of *total*, with a confidence of 95 %.

    Source: Wilson's score interval, which holds for rates near 0 and 1 as well.
    """
    if total == 0:
        return 0.0, 1.0
    rate, square = count / total, _Z * _Z / total
    middle = (rate + square / 2) / (1 + square)
    half = _Z * sqrt(rate * (1 - rate) / total + square / (4 * total)) / (1 + square)
    return (0.0 if count == 0 else middle - half), (1.0 if count == total else middle + half)


@attrs.define
class Failure:
    """What failed in one cell by one cause.

    Attributes:
        seeds: how many simulations have it.
        count: how often it happened in them.
        first: the least seed.
        worst: the seed in which it happened most often, the least of those.
        most: how often it happened there.
    """

    seeds: int = 0
    count: int = 0
    first: int = -1
    worst: int = -1
    most: int = 0

    def add(self, seed: int, count: int) -> None:
        """Count that it happened so often with *seed*."""
        self.seeds += 1
        self.count += count
        self.first = seed if self.first < 0 else min(self.first, seed)
        if (count, -seed) > (self.most, -self.worst):
            self.worst, self.most = seed, count


# How each kind of failure is told, in their order; the worst is first.
KINDS = ("violated", "inconclusive", "lost")

_MEASURES = ("lateness_p50_ms", "lateness_p99_ms", "wakes")


@attrs.define
class _Tally:
    """What is kept of the outcomes of one cell."""

    verdicts: Counter[str] = attrs.field(factory=Counter)
    runs: Counter[str] = attrs.field(factory=Counter)
    up_seconds: int = 0
    always_on_seconds: int = 0
    measured: dict[str, array[int]] = attrs.field(factory=lambda: {name: array("q") for name in _MEASURES})
    failures: dict[tuple[str, str], Failure] = attrs.field(factory=dict)

    def add(self, outcome: Outcome) -> None:
        self.verdicts[outcome.verdict] += 1
        self.runs.update(outcome.runs)
        self.up_seconds += outcome.up_seconds
        self.always_on_seconds += outcome.always_on_seconds
        for name in _MEASURES:
            self.measured[name].append(getattr(outcome, name))
        failed = {
            **{("violated", name): count for name, count in outcome.violations.items()},
            **{("lost", name): count for name, count in outcome.losses.items()},
        }
        if outcome.verdict == "inconclusive":
            failed["inconclusive", "not settled"] = 1
        for key, count in failed.items():
            self.failures.setdefault(key, Failure()).add(outcome.seed, count)

    def object(self) -> dict[str, Any]:
        """Return what came of the cell, as plain values."""
        total = self.verdicts.total()
        ended = self.runs.total()
        ordered = {name: sorted(values) for name, values in self.measured.items()}
        return {
            "simulations": total,
            "verdicts": {name: _rate(self.verdicts[name], total) for name in VERDICTS},
            "runs": {name: self.runs[name] for name in sorted(self.runs)},
            "missed_share": self.runs[_MISSED] / max(ended, 1),
            "up_share": self.up_seconds / max(self.always_on_seconds, 1),
            "lateness_p50_ms": _quantile(ordered["lateness_p50_ms"], 50),
            "lateness_p99_ms": _quantile(ordered["lateness_p99_ms"], 50),
            "lateness_p99_ms_p95": _quantile(ordered["lateness_p99_ms"], 95),
            "wakes": _quantile(ordered["wakes"], 50),
            "wakes_p95": _quantile(ordered["wakes"], 95),
        }


def _rate(count: int, total: int) -> dict[str, Any]:
    low, high = interval(count, total)
    return {"count": count, "rate": count / max(total, 1), "low": low, "high": high}


def _quantile(ordered: Sequence[int], percent: int) -> int:
    """Return the value that so many per cent of them do not exceed."""
    return ordered[-(-(len(ordered) - 1) * percent // 100)] if ordered else 0


class Table:
    """What came of a campaign, as far as it has come.

    Args:
        cells: of the campaign.
        seeds: which of its seeds are told of; others are left out.
    """

    def __init__(self, cells: Sequence[Cell], seeds: range) -> None:
        self._cells = cells
        self._seeds = seeds
        self._tallies = [_Tally() for _ in cells]
        self._is_there = bytearray(len(cells) * len(seeds))
        self.count = 0
        self.verdicts: Counter[str] = Counter()

    def add(self, outcome: Outcome) -> None:
        """Count *outcome*, unless it is there already, or none of those that are asked for."""
        if outcome.seed not in self._seeds:
            return
        place = outcome.cell * len(self._seeds) + self._seeds.index(outcome.seed)
        if self._is_there[place]:
            return
        self._is_there[place] = 1
        self.count += 1
        self.verdicts[outcome.verdict] += 1
        self._tallies[outcome.cell].add(outcome)

    def missing(self) -> Iterator[Task]:
        """Yield what is not there yet: of each seed all cells, so that they can be compared early on."""
        for at, seed in enumerate(self._seeds):
            for cell in range(len(self._cells)):
                if not self._is_there[cell * len(self._seeds) + at]:
                    yield Task(cell, seed)

    # --- for programs -------------------------------------------------------------------------

    def object(self, identity: dict[str, Any]) -> dict[str, Any]:
        """Return all that is told, as plain values; rates are from 0 to 1, with an interval of 95 %."""
        cells = [
            {**kept, **tally.object()} for kept, tally in zip(identity["cells"], self._tallies, strict=True)
        ]
        failures = [
            {
                "cell": cell.label,
                "kind": kind,
                "cause": cause,
                "times": failure.count,
                "seeds": _rate(failure.seeds, tally.verdicts.total()),
                "first_seed": failure.first,
                "worst_seed": failure.worst,
                "command": command(cell, kind, cause, failure),
            }
            for cell, tally, kind, cause, failure in self._failures()
        ]
        return {
            "source": identity["source"],
            "first_seed": self._seeds.start,
            "seeds": len(self._seeds),
            "cells": cells,
            "failures": failures,
        }

    def _failures(self) -> Iterator[tuple[Cell, _Tally, str, str, Failure]]:
        """Yield what failed, the worst kind first, and of each kind and cell the most frequent first."""
        for kind in KINDS:
            for cell, tally in zip(self._cells, self._tallies, strict=True):
                of_kind = [each for each in tally.failures.items() if each[0][0] == kind]
                for (_, cause), failure in sorted(of_kind, key=lambda each: (-each[1].seeds, each[0])):
                    yield cell, tally, kind, cause, failure

    # --- for people ---------------------------------------------------------------------------

    def lines(self) -> Iterator[str]:
        """Yield the lines that tell all of it."""
        cells, seeds = counted(len(self._cells), "cell"), counted(len(self._seeds), "seed")
        yield f"sweep      {cells}, {seeds} ({self._seeds[0]} to {self._seeds[-1]}), rates with 95% intervals"
        told = [tally.object() for tally in self._tallies]
        yield from _aligned("verdicts", ["", *VERDICTS], self._rows(told, _verdicts_row))
        heads = ["", "missed", "late p50", "late p99", "its p95", "up", "wakes p50", "p95"]
        yield from _aligned("measures", heads, self._rows(told, _measures_row))
        heads = ["", "", "times", "seeds", "", "worst"]
        rows, commands = [], []
        for cell, tally, kind, cause, failure in self._failures():
            rate = _rate(failure.seeds, tally.verdicts.total())
            rows.append(
                [
                    f"{kind} {cause}",
                    cell.label,
                    f"{failure.count:,}",
                    f"{failure.seeds:,}",
                    _shown(rate),
                    f"--seed {failure.worst}",
                ]
            )
            commands.append(command(cell, kind, cause, failure))
        if rows:
            lines = list(_aligned("failures", heads, rows, texts=2))
            yield lines[0]
            for line, told_command in zip(lines[1:], commands, strict=True):
                yield line
                yield f"             {told_command}"

    def _rows(self, told: Sequence[dict[str, Any]], row: Any) -> list[list[str]]:
        return [[cell.label, *row(each)] for cell, each in zip(self._cells, told, strict=True)]


def _verdicts_row(told: dict[str, Any]) -> list[str]:
    return [f"{told['verdicts'][name]['count']:,} {_shown(told['verdicts'][name])}" for name in VERDICTS]


def _measures_row(told: dict[str, Any]) -> list[str]:
    return [
        f"{told['missed_share']:.3%}",
        *(
            seconds(told[name] // 100)
            for name in ("lateness_p50_ms", "lateness_p99_ms", "lateness_p99_ms_p95")
        ),
        f"{told['up_share']:.2%}",
        f"{told['wakes']:,}",
        f"{told['wakes_p95']:,}",
    ]


def _shown(rate: dict[str, Any]) -> str:
    return f"{rate['rate']:6.1%} ({rate['low']:.1%}-{rate['high']:.1%})"


def command(cell: Cell, kind: str, cause: str, failure: Failure) -> str:
    """Return the command that shows a failure: its least history, or where it happened most often."""
    if kind == "violated" and not cell.plan.wire:
        words, seed = ["shrink", *cell.arguments, "--property", cause], failure.first
    else:
        words, seed = ["run", *cell.arguments], failure.worst
    return shlex.join(["python", "-m", "simulator", *words, "--seed", str(seed)])


def _aligned(head: str, heads: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> Iterator[str]:
    """Yield a table under *head*: so many columns of *texts* to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for number, row in enumerate([heads, *rows]):
        cells = [
            f"{each:{width}}" if place < texts else f"{each:>{width}}"
            for place, (each, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield f"{head if number == 0 else '':11}{'  '.join(cells)}".rstrip()
