"""One's own fleet under other terms, as a terminal shows it and as plain values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from typing import Any

from chronos.jobs.instants import DAY_US, HOUR_US, SECOND_US, format_instant
from chronos.jobs.job import Result
from simulator.report.terminal import asked_lines, remark_lines, world
from simulator.report.words import counted, wrapped
from simulator.whatif import ALWAYS_ON, CALLS, OWN_TICKER, PERCENTILES, Answer, Figures, Group, Prices, Row

LOSSES = tuple(str(result) for result in Result if result is not Result.COMPLETED)

ABOUT = {
    Group.COMPARED: "own ticker: always on, and fires its jobs itself, without NAS",
    Group.IDLE: "how long the host lets a machine stand idle before it stops it",
    Group.BOOT: "how long a machine takes to boot",
}

TERMS = (
    f"up counts boots as well; lost is what did not complete: {', '.join(LOSSES[:-1])} or {LOSSES[-1]}; "
    "calls are those of NAS that the agent makes, and the fires that NAS delivers"
)

# --- in words ---------------------------------------------------------------------------------


def title(answer: Answer) -> str:
    """Return whose fleet it is, and with which seeds."""
    fleet, seeds = answer.plan.fleet, answer.seeds
    told = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    return f"{counted(len(fleet.jobs), 'job')} of {fleet.name}, {told}"


def verdict(answer: Answer) -> str:
    """Return ok, or the variants that have another verdict."""
    told = [
        f"{row.variant.words} {row.figures.verdict}" for row in answer.rows if row.figures.verdict != "ok"
    ]
    return f"{', '.join(told)}; run tells why" if told else "ok"


def basis(answer: Answer) -> str:
    """Return what the figures are of: the span that was simulated, and what is a mean."""
    told = f"of the {_span(answer)} simulated"
    if len(answer.seeds) > 1:
        told += (
            f", the mean of {len(answer.seeds)} seeds; a lateness is that of the seed in which it is largest"
        )
    return told


def _span(answer: Answer) -> str:
    days_us = answer.plan.days * DAY_US
    settling_us = answer.plan.setting(answer.seeds[0]).end_us - answer.plan.fleet.start_us - days_us
    rest = f" and {counted(settling_us // HOUR_US, 'hour')} to settle" if settling_us else ""
    return f"{counted(answer.plan.days, 'day')}{rest}"


def paid(prices: Prices) -> str:
    """Return what is paid for what; nothing when no price was given."""
    named = {"an hour up": prices.hour, "a wake": prices.wake, "a call of NAS": prices.call}
    told = ", ".join(f"{price:f} for {name}" for name, price in named.items() if price is not None)
    free = " or ".join(name for name, price in named.items() if price is None)
    return f"{told}; no price was given for {free}, which counts as 0" if told and free else told


def sentences(answer: Answer) -> Iterator[str]:
    """Yield what was simulated, in two sentences at most; nothing that was not."""
    idle = answer.group(Group.IDLE)
    always = next(row for row in answer.group(Group.COMPARED) if row.variant.name == ALWAYS_ON)
    asleep = [row for row in idle if not row.variant.plan.conditions.stays_up]
    if answer.prices.are_given:
        rows = [*asleep, *answer.group(Group.COMPARED)[1:]]
        costs = costs_of(answer, rows)
        least, cost = min(zip(rows, costs, strict=True), key=lambda each: answer.prices.cost(each[0].figures))
        rest = "" if least is always else f"; {ALWAYS_ON} costs {costs[rows.index(always)]}"
        yield f"Of what was simulated, {least.variant.words} costs least: {cost}{rest}."
    else:
        least = min(asleep, key=lambda row: row.figures.up_us)
        told = f"{hours(least.figures)} h; {ALWAYS_ON} is up {hours(always.figures)} h"
        yield f"Of what was simulated, {least.variant.words} is up least: {told}."
    if any(least.figures.runs.values()):
        other = always if least is not always else asleep[0]
        half, whole, half_there, whole_there = (
            f"{late(row.figures, name)} s" for row in (least, other) for name in ("p50", "max")
        )
        yield (
            f"With {least.variant.words}, half of what ran began within {half} of its time, and all within "
            f"{whole}; with {other.variant.words}, within {half_there} and {whole_there}."
        )


# --- figures ----------------------------------------------------------------------------------


def hours(figures: Figures) -> str:
    """Return how long machines were up, hours."""
    return f"{figures.up_hours:,.1f}"


def count(figures: Figures, number: int) -> str:
    """Return a count of all seeds as that of one."""
    return f"{figures.mean(number):,.0f}"


def late(figures: Figures, percentile: str) -> str:
    """Return how late a run begins, seconds."""
    return _seconds(figures.lateness_ms[percentile][0])


def _seconds(ms: int) -> str:
    return f"{ms / 1000:,.1f}"


def costs_of(answer: Answer, rows: Iterable[Row]) -> list[str]:
    """Return what each costs, with as many places as the least of all needs."""
    cost = answer.prices.cost
    least = min((cost(row.figures) for row in answer.rows if cost(row.figures)), default=Decimal(1))
    places = min(max(2, 1 - least.adjusted()), 9)
    return [f"{cost(row.figures):,.{places}f}" for row in rows]


# --- lines ------------------------------------------------------------------------------------

_COLUMN, _BAR = 18, 12
_HEADS = {"up h": 9, "wakes": 9, "median s": 10, "p99 s": 9, "max s": 10, "lost": 8, "calls": 9, "cost": 11}


def whatif_lines(answer: Answer) -> Iterator[str]:
    """Yield what a terminal shows: the comparison, the two curves, and what they say."""
    yield f"what if    {title(answer)}"
    yield from wrapped("world", world(answer.plan))
    yield from asked_lines(answer.plan)
    yield from remark_lines(answer.plan)
    yield from wrapped("verdict", verdict(answer))
    yield from wrapped("figures", basis(answer))
    yield from wrapped("", TERMS)
    if told := paid(answer.prices):
        yield from wrapped("prices", told)
    yield from _compared(answer)
    yield from _curve(answer, Group.IDLE, "time up", lambda figures: figures.up_us)
    yield from _curve(answer, Group.BOOT, "median late", lambda figures: figures.lateness_ms["p50"][0])
    yield ""
    for sentence in sentences(answer):
        yield from wrapped("", sentence, 0)


def _compared(answer: Answer) -> Iterator[str]:
    rows = answer.group(Group.COMPARED)
    yield ""
    yield _beside("compared", [row.variant.name for row in rows])
    for name, cell in _compared_cells():
        yield _beside(f"  {name}", [cell(row.figures) for row in rows])
    if answer.prices.are_given:
        yield _beside("  cost", costs_of(answer, rows))
    if rows[-1].variant.name == OWN_TICKER:
        yield f"  {ABOUT[Group.COMPARED]}"


def _beside(name: str, cells: Iterable[str]) -> str:
    return f"{name:28}" + "".join(f"{cell:>{_COLUMN}}" for cell in cells)


def _compared_cells() -> Iterator[tuple[str, Callable[[Figures], str]]]:
    """Yield the name of each figure, and what shows it."""
    yield "up", lambda figures: f"{hours(figures)} h"
    yield "  of it booting", lambda figures: f"{figures.mean(figures.boots_us) / HOUR_US:,.1f} h"
    yield "  of the time", lambda figures: f"{figures.share:.1%}"
    yield "wakes", lambda figures: count(figures, figures.wakes)
    yield "  that ran nothing", lambda figures: count(figures, figures.wakes_for_nothing)
    for name in PERCENTILES:
        yield f"lateness, {_CALLED.get(name, name)}", partial(_late_by, percentile=name, part=0)
        yield "  of it the boot", partial(_late_by, percentile=name, part=1)
    for name in map(str, Result):
        yield name, partial(_runs, result=name)
    yield "calls of NAS", lambda figures: count(figures, sum(figures.calls.values()))
    for name in CALLS:
        yield f"  {_CALLED.get(name, name)}", partial(_calls, kind=name)


_CALLED = {"fire": "fires delivered", "p50": "median"}


def _late_by(figures: Figures, percentile: str, part: int) -> str:
    return f"{_seconds(figures.lateness_ms[percentile][part])} s"


def _runs(figures: Figures, result: str) -> str:
    return count(figures, figures.runs[result])


def _calls(figures: Figures, kind: str) -> str:
    return count(figures, figures.calls[kind])


def _curve(answer: Answer, group: Group, bars: str, measure: Callable[[Figures], int]) -> Iterator[str]:
    """Yield a curve as a table, whose bars are as long as *measure*."""
    rows = answer.group(group)
    yield ""
    yield _line(f"{group}", bars, list(_HEADS), answer)
    most = max(measure(row.figures) for row in rows)
    for row, cost in zip(rows, costs_of(answer, rows), strict=True):
        figures = row.figures
        cells = (
            hours(figures),
            count(figures, figures.wakes),
            *(late(figures, name) for name in PERCENTILES),
            count(figures, sum(figures.runs[each] for each in LOSSES)),
            count(figures, sum(figures.calls.values())),
            cost,
        )
        mark = "*" if row.variant.plan == answer.plan else ""
        yield _line(
            f"  {row.variant.name}{mark}", "#" * round(_BAR * measure(figures) / max(most, 1)), cells, answer
        )
    yield f"  {ABOUT[group]}; * as given"


def _line(name: str, bar: str, cells: Sequence[str], answer: Answer) -> str:
    shown = cells if answer.prices.are_given else cells[:-1]
    widths = list(_HEADS.values())[: len(shown)]
    return f"{name:12} {bar:{_BAR}}" + "".join(
        f"{each:>{width}}" for each, width in zip(shown, widths, strict=True)
    )


# --- plain values -----------------------------------------------------------------------------


def whatif_object(answer: Answer) -> dict[str, Any]:
    """Return all of it as plain values; a duration carries its unit in its name."""
    plan, prices = answer.plan, answer.prices
    return {
        "fleet": plan.fleet.name,
        "jobs": len(plan.fleet.jobs),
        "start": format_instant(plan.fleet.start_us),
        "days": plan.days,
        "world": world(plan),
        "with": list(plan.conditions.words()),
        "seed": answer.seeds[0],
        "seeds": len(answer.seeds),
        "figures": basis(answer),
        "prices": {
            name: None if price is None else float(price)
            for name, price in (("hour", prices.hour), ("wake", prices.wake), ("call", prices.call))
        },
        **{group: [_row(answer, row) for row in answer.group(group)] for group in Group},
        "said": list(sentences(answer)),
    }


def _row(answer: Answer, row: Row) -> dict[str, Any]:
    figures, asked = row.figures, row.variant.plan.conditions
    late_ms = figures.lateness_ms
    return {
        "name": row.variant.name,
        "agent": row.variant.plan.agent,
        "as_given": row.variant.plan == answer.plan,
        "always_on": asked.stays_up,
        "idle_seconds": _in_seconds(asked.idle_us),
        "boot_seconds": _in_seconds(asked.boot_us),
        "verdict": figures.verdict,
        "up_seconds": _number(figures.mean(figures.up_us) / SECOND_US),
        "booting_seconds": _number(figures.mean(figures.boots_us) / SECOND_US),
        "up_share": round(figures.share, 6),
        "wakes": _number(figures.mean(figures.wakes)),
        "wakes_for_nothing": _number(figures.mean(figures.wakes_for_nothing)),
        "lateness_ms": {name: total_ms for name, (total_ms, _) in late_ms.items()},
        "boot_of_lateness_ms": {name: boot_ms for name, (_, boot_ms) in late_ms.items()},
        "runs": {name: _number(figures.mean(number)) for name, number in figures.runs.items()},
        "nas_calls": {name: _number(figures.mean(number)) for name, number in figures.calls.items()},
        "cost": _number(answer.prices.cost(figures)) if answer.prices.are_given else None,
    }


def _in_seconds(us: int | None) -> float | None:
    return None if us is None else us / SECOND_US


def _number(value: Decimal) -> int | float:
    """Return a number as JSON has it, to a millionth."""
    return int(value) if value == int(value) else round(float(value), 6)
