"""The least that leads to a violation, in words."""

from __future__ import annotations

from collections.abc import Iterator

from chronos.jobs.instants import Instant, format_instant
from simulator import faults
from simulator.report.words import counted
from simulator.shrink import Shrunk, Strike
from simulator.trace import VIOLATION, Line

_FAULTS = {fault.name: fault for fault in faults.FAULTS}

# So many of the latest lines are told before a violation.
TOLD = 12


def shrunk_lines(shrunk: Shrunk) -> Iterator[str]:
    """Yield the lines that tell what a violation needs, and how it comes about."""
    violation = shrunk.violation
    whose = f" of job {violation.job_id}" if violation.job_id is not None else ""
    yield f"violated   {violation.property}{whose} at {format_instant(violation.at_us)}"
    yield f"           {violation.message}"
    jobs, of_faults = counted(shrunk.of_jobs, "job"), counted(shrunk.of_faults, "fault")
    size = f"{len(shrunk.jobs)} of {jobs}, {len(shrunk.needs)} of {of_faults}, {counted(shrunk.days, 'day')}"
    yield f"shrunk     to {size}, in {counted(shrunk.tries, 'try')}"
    if not shrunk.needs:
        yield "needs      no fault at all"
    for number, strike in enumerate(shrunk.needs):
        yield f"{'needs' if not number else '':10} {strike_line(strike, shrunk)}"
    if shrunk.varies:
        yield "           and messages, boots and runs that take as long as they do with this seed"
    yield f"story      {', '.join(shrunk.jobs)}"
    for line in story(shrunk):
        yield f"           {_clock(line.at_us)}  {_said(line)}"


def strike_line(strike: Strike, shrunk: Shrunk) -> str:
    """Return when a fault strikes, whom, and what it is."""
    machine = strike.subject - shrunk.of_jobs
    whom = "" if strike.subject < 0 else f", machine {machine}" if machine >= 0 else f", {shrunk.jobs[0]}"
    option, fault = faults.spelt(strike.option), _FAULTS[strike.fault]
    what = f"{fault.name} {option}" if option else fault.name
    return f"{_clock(strike.at_us)}  {what}{whom}: {fault.words}"


def story(shrunk: Shrunk) -> tuple[Line, ...]:
    """Return the latest lines up to the violation."""
    until = next((n for n, line in enumerate(shrunk.lines) if line.kind == VIOLATION), len(shrunk.lines))
    return shrunk.lines[max(0, until - TOLD) : until]


def _said(line: Line) -> str:
    whose = f"{line.job_id}: " if line.job_id is not None and line.job_id not in line.text else ""
    return whose + line.text + ("" if line.to is None else f" -> {line.to}")


def _clock(at_us: Instant) -> str:
    """Return an instant to the millisecond, as wide as any other."""
    return format_instant(at_us).removesuffix("+00:00")[:23].ljust(23)
