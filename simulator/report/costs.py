"""What something costs that was asked for, as a terminal shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from chronos.jobs.job import Result
from simulator.compare import Change, Cost, lost
from simulator.report.terminal import counted

_OTHERS = tuple(str(result) for result in Result if result is not Result.COMPLETED)

_TOTALS = {
    "fires": "deliveries",
    "overlapping_fires": "overlapping",
    "wakes": "wakes",
    "wakes_for_nothing": "for nothing",
    "agent_up_seconds": "up time",
    "nas_calls": "NAS calls",
}


def cost_lines(cost: Cost) -> Iterator[str]:
    """Yield the lines that tell what it costs: a sentence, the jobs that differ, and totals."""
    jobs = cost.changed()
    losers = [job_id for job_id, runs in jobs.items() if lost(runs) > 0]
    where = f" of {losers[0]}" if len(losers) == 1 else f" of {counted(len(losers), 'job')}" if losers else ""
    up = cost.totals["agent_up_seconds"]
    yield f"cost       {_lost(lost(cost.runs))}{where}; up time {_more(up)}"
    yield f"           {'in all':14} {_runs(cost.runs)}"
    for job_id, runs in jobs.items():
        yield f"           {job_id:14} {_runs(runs)}"
    for name, words in _TOTALS.items():
        change = cost.totals[name]
        unit = " s" if name == "agent_up_seconds" else ""
        shown = f"{change.before:,}{unit} before, {change.after:,}{unit} now"
        yield f"           {words:14} {shown}: {_more(change)}"
    for name, change in cost.lateness_ms.items():
        shown = f"{change.before / 1000:,.1f} s before, {change.after / 1000:,.1f} s now"
        yield f"           {f'lateness {name}':14} {shown}"


def _lost(count: int) -> str:
    if count < 0:
        return f"you gain {counted(-count, 'run')}"
    return f"you lose {counted(count, 'run')}" if count else "you lose no run"


def _runs(runs: Mapping[str, Change]) -> str:
    completed = runs[str(Result.COMPLETED)]
    words = [f"{completed.before:,} completed before, {completed.after:,} now"]
    for name in _OTHERS:
        more = runs[name].more
        if more:
            words.append(f"{abs(more):,} {'more' if more > 0 else 'fewer'} {name}")
    return ", ".join(words)


def _more(change: Change) -> str:
    if not change.more:
        return "as before"
    if not change.before:
        return f"{change.more:+,}"
    return f"{change.more / change.before:+.1%}"
