"""What a process has not finished: whether its host may stop the machine."""

from __future__ import annotations

from collections.abc import Iterator

from chronos.jobs.instants import format_instant
from chronos.protocol import words
from chronos.protocol.clocks import Belief, clock_trouble
from chronos.protocol.state import (
    TICKER,
    ForCaller,
    ForOwed,
    Now,
    Pending,
    Process,
    Task,
    belief_of,
)


def pending(process: Process, now: Now) -> tuple[Pending, ...]:
    """Return the unfinished work, and the reasons. A run beyond its time limit keeps nobody waiting.

    Args:
        process: of which process.
        now: the present.

    Source: incident W1; after the answer to a fire, nothing else shows that work goes on.
    """
    busy = (*_at_work(process), *_owed(process), *_list(process), *_clock(process, now))
    at_work_on = {each.job_id for each in busy}
    left = [(job_id, reason) for job_id, reason in process.unsettled.items() if job_id not in at_work_on]
    known = at_work_on | process.unsettled.keys()
    left += [(each.id or "", words.unreadable(each)) for each in process.unreadable if each.id not in known]
    if now.is_stopped:
        left.append(("", words.STOPPED))
    idle = (Pending(job_id=job_id, reason=reason, is_busy=False) for job_id, reason in left)
    return (*busy, *process.overtime.values(), *idle)


def may_stop(process: Process, now: Now) -> bool:
    """Return whether the host may stop the machine: this process is at work on nothing."""
    return not any(each.is_busy for each in pending(process, now))


def why_doubted(process: Process, now: Now) -> str:
    """Say how the machine's clock differs from NAS's; empty while it is believed."""
    if process.reading is None or belief_of(process.reading, now) is not Belief.DOUBTED:
        return ""
    return clock_trouble(process.reading)


def _at_work(process: Process) -> Iterator[Pending]:
    """Yield what is going on."""
    for task in process.tasks.values():
        if isinstance(task.purpose, ForCaller) or (task.purpose is TICKER and task.intent is not None):
            yield _task(task)
    for batch in process.batches.values():
        if batch.is_declared:
            yield Pending(job_id="", reason="the declared jobs are looked after", is_busy=True)
        else:
            yield Pending(job_id="", reason="the start looks after the jobs", is_busy=True)
    for running in process.runs.values():
        at = format_instant(running.started.run.occurrence_us)
        reason = f"the run of {at} is in flight"
        yield Pending(job_id=running.started.job_id, reason=reason, is_busy=True)
    if process.ticker.is_running:
        reason = words.REFUSED if process.is_refused else words.WITHOUT_NAS
        yield Pending(job_id="", reason=reason, is_busy=True)


def _task(task: Task) -> Pending:
    if task.intent is None:
        return Pending(job_id="", reason="the start is reconciling", is_busy=True)
    reason = f"a {words.name_of(task.intent)} is being answered"
    return Pending(job_id=task.intent.job_id, reason=reason, is_busy=True)


def _owed(process: Process) -> Iterator[Pending]:
    """Yield what is tried again, or just now. A try that has claimed a run is work, however late it is."""
    for each in process.owed.values():
        yield Pending(job_id=each.intent.job_id, reason=each.reason, is_busy=each.is_busy, is_waiting=True)
    for task in process.tasks.values():
        if isinstance(task.purpose, ForOwed):
            owed = task.purpose.owed
            is_busy = owed.is_busy or bool(task.flow.move is not None and task.flow.move.runs)
            yield Pending(job_id=owed.intent.job_id, reason=owed.reason, is_busy=is_busy)


def _list(process: Process) -> Iterator[Pending]:
    """Yield what is to be said of the list that is asked for again."""
    if process.lists is not None:
        reason = f"{process.unsettled.get('', words.UNKNOWN)}; it is tried again"
        yield Pending(job_id="", reason=reason, is_busy=process.lists.is_busy, is_waiting=True)


def _clock(process: Process, now: Now) -> Iterator[Pending]:
    """Yield what is to be said of a clock that is not believed."""
    why = why_doubted(process, now)
    if why:
        is_busy = process.looks is not None and process.looks.is_busy
        yield Pending(job_id="", reason=why, is_busy=is_busy, is_waiting=True)
