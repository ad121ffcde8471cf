"""Whose, when and why, on a terminal: the jobs, their losses, and how late they were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from simulator.causes import clock
from simulator.ledger import Account, Loss
from simulator.report.words import counted, seconds, wrapped
from simulator.summary import adding_up

# How many jobs and causes are told; the others are counted.
JOBS, CAUSES = 12, 8
# What is worst of what may become of an occurrence, first.
_WORST = ("missed", "interrupted", "failed", "skipped")
_PERCENTILES = ("p50", "p99", "max")
_ID_WIDTH = 22


def lateness_lines(lateness_ms: Mapping[str, Any]) -> Iterator[str]:
    """Yield how late occurrences were: each hop by itself, and the hops of single ones, which add up."""
    of_one = {name: adding_up(lateness_ms["of_one"][name], 100) for name in _PERCENTILES}
    yield f"lateness   {'':10}{'each hop by itself':>32}{'the one occurrence at':>32}"
    heads = f"{'p50':>10}{'p99':>10}{'max':>12}"
    yield f"{'':21}{heads}{heads}"
    for hop, row in (*lateness_ms["by_hop"].items(), ("total", lateness_ms)):
        alone = [row[name] // 100 for name in _PERCENTILES]
        if hop == "total":
            ones = [sum(of_one[name].values()) for name in _PERCENTILES]
        else:
            ones = [of_one[name][hop] for name in _PERCENTILES]
        shown = [seconds(tenths) for tenths in (*alone, *ones)]
        yield "           {:10}{:>10}{:>10}{:>12}{:>10}{:>10}{:>12}".format(hop, *shown)


def job_lines(accounts: Sequence[Account], only: str | None = None) -> Iterator[str]:
    """Yield a table of the jobs, worst first; or of the one that is named."""
    whole_s = max(sum(account.up_seconds for account in accounts), 1)
    accounts = [each for each in accounts if only in (None, each.job_id)]
    heads = ("due", "completed", *_WORST, "worst late", "wakes", "up")
    yield _row("job", *heads)
    ordered = sorted(accounts, key=_badness)
    for account in ordered[:JOBS]:
        yield _row(
            _cut(account.job_id),
            f"{account.due:,}",
            f"{account.runs['completed']:,}",
            *(f"{account.runs[result]:,}" for result in _WORST),
            seconds(account.worst_lateness_ms // 100),
            f"{account.wakes:,}",
            f"{account.up_seconds / whole_s:.0%}",
        )
    rest = ordered[JOBS:]
    if rest:
        with_losses = sum(any(account.runs[result] for result in _WORST) for account in rest)
        losses = f"{with_losses:,} of them with losses" if with_losses else "without a loss"
        comma = "," if with_losses else ""
        yield f"{'':11}and {counted(len(rest), 'more job')}{comma} {losses}"
    if still_open := sum(account.open for account in accounts):
        occurrences = counted(still_open, "occurrence")
        yield f"{'':11}of what was due, {occurrences} had not ended when the calendar did"


def loss_lines(losses: Sequence[Loss]) -> Iterator[str]:
    """Yield the causes of what did not complete, most first, each with an example."""
    by_cause: dict[tuple[str, str], list[Loss]] = {}
    for loss in losses:
        by_cause.setdefault((loss.result, loss.cause.name), []).append(loss)
    ordered = sorted(by_cause.values(), key=_count, reverse=True)
    for number, alike in enumerate(ordered[:CAUSES]):
        worst = alike[0]
        first, last = (clock(at_us) for at_us in _span(alike))
        jobs = worst.job_id
        if len(alike) > 1:
            jobs = f"{len(alike)} jobs, most {worst.job_id} ({worst.count:,})"
        span = first if first == last else f"{first} .. {last}"
        yield from wrapped(
            "losses" if number == 0 else "",
            f"{_count(alike):,} {worst.result} by {worst.cause.name}: {jobs}; {span}",
        )
        yield from wrapped("", f"{worst.job_id} at {clock(worst.example_us)}: {worst.cause.words}", 13)
    if rest := ordered[CAUSES:]:
        more = counted(sum(map(_count, rest)), "more loss")
        yield f"{'':11}and {more} by {counted(len(rest), 'other cause')}; --json has them all"


def _span(alike: Sequence[Loss]) -> tuple[int, int]:
    return min(loss.first_us for loss in alike), max(loss.last_us for loss in alike)


def _count(alike: Sequence[Loss]) -> int:
    return sum(loss.count for loss in alike)


def _badness(account: Account) -> tuple[Any, ...]:
    return (*(-account.runs[result] for result in _WORST), -account.worst_lateness_ms, account.job_id)


def _cut(job_id: str) -> str:
    return job_id if len(job_id) <= _ID_WIDTH else f"{job_id[: _ID_WIDTH - 2]}.."


_WIDTHS = (8, 10, 8, 12, 7, 8, 11, 7, 5)


def _row(job_id: str, *cells: str) -> str:
    return f"{job_id:{_ID_WIDTH}}" + "".join(
        f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS, strict=True)
    )
