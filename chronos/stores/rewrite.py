"""The record of a job in the jobs file, as it shall stand there after a change.

A record is mostly the agent's own: what the scheduler does not know, and the spelling of what has
not changed, survives untouched. Nothing is written that does not read as the job it is written for.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from chronos.errors import JobsFileError, StoreError
from chronos.protocol.job import Job, JobState, Outcome, Policy, Result, Run
from chronos.protocol.schedule import (
    MINUTE_US,
    SECOND_US,
    Cron,
    Instant,
    Interval,
    Once,
    Schedule,
    ScheduleError,
    format_instant,
    parse_instant,
    zone_of,
)
from chronos.stores import HISTORY_LENGTH
from chronos.stores.reader import Reader, offset_of
from chronos.stores.record import FileFacts, read_job, zone_of_job

# A reason may quote a program's last words; the file is read and written as a whole with every claim.
LONGEST_REASON = 500

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STATUS = {Result.COMPLETED: "ok", Result.FAILED: "error", Result.INTERRUPTED: "interrupted"}


def write_job(
    job: Job,
    raw: Mapping[str, Any],
    facts: FileFacts,
    *,
    outcomes: tuple[Outcome, ...] = (),
    history_length: int = HISTORY_LENGTH,
) -> dict[str, Any]:
    """Return the record of *job*, made from the record *raw* of the same job.

    Only what differs from the reading of *raw* is rewritten, and a slot that was worked out because
    `next_run_at` was null is written down: it must not move when the file's time stamp does.

    Args:
        job: the job as it shall stand.
        raw: its record as it stands; stays as it is.
        facts: what *raw* was read with.
        outcomes: the occurrences that end with this change. The run of *raw* that ends with one of
            them gives the record its `last_run_at` and `last_status`.
        history_length: how many outcomes the record keeps, at least 1.

    Raises:
        JobsFileError: *raw* is not a record.
        StoreError: *job* has no record that reads the same, such as an interval of a century.
    """
    before = read_job(raw, facts)
    try:
        record = _rewrite(job, before, raw, facts, outcomes, history_length)
    except ScheduleError as error:
        raise StoreError(f"{facts.source}: job {job.id}: {error}", definite=True) from None
    return _settled(job, record, facts)


def _rewrite(
    job: Job,
    before: Job,
    raw: Mapping[str, Any],
    facts: FileFacts,
    outcomes: tuple[Outcome, ...],
    history_length: int,
) -> dict[str, Any]:
    """Return *raw*, which reads as *before*, with what differs in *job*."""
    record = dict(raw)
    if not _is_same_schedule(before.schedule, job.schedule):
        record["schedule"] = _write_schedule(job.schedule, raw["schedule"])
    if before.state is not job.state:
        record["state"], record["enabled"] = job.state.value, job.state is JobState.SCHEDULED
    if (before.times, before.completed) != (job.times, job.completed):
        record["repeat"] = {**(raw.get("repeat") or {}), "times": job.times, "completed": job.completed}
    if before.policy != job.policy:
        record["policy"] = {**(raw.get("policy") or {}), **_write_policy(job.policy)}
    zone = zone_of(job.schedule.tz if isinstance(job.schedule, Cron) else _zone_of_record(raw, facts))
    record |= _times(job, before, raw, zone, outcomes)
    if (before.run, before.revision) != (job.run, job.revision) or outcomes:
        kept = [*(_own(raw).get("history") or ()), *(_write_outcome(outcome) for outcome in outcomes)]
        record["chronos"] = {
            **_own(raw),
            "revision": job.revision,
            "run": None if job.run is None else _write_run(job.run),
            "history": kept[-history_length:],
        }
    return record


def new_record(job: Job, facts: FileFacts, *, created_us: Instant | None = None) -> dict[str, Any]:
    """Return the record of a job that the file does not hold yet.

    Args:
        job: the job.
        facts: what the file says for all its jobs.
        created_us: the present instant, for `created_at`.

    Raises:
        StoreError: *job* has no record that reads the same, such as an interval of a century.
    """
    try:
        record = _describe(job, facts, created_us)
    except ScheduleError as error:
        raise StoreError(f"{facts.source}: job {job.id}: {error}", definite=True) from None
    return _settled(job, record, facts)


def _describe(job: Job, facts: FileFacts, created_us: Instant | None) -> dict[str, Any]:
    """Return a whole record of *job*, in the order of the records that agents write."""
    zone = zone_of(job.schedule.tz if isinstance(job.schedule, Cron) else facts.tz or facts.fallback_tz)
    record: dict[str, Any] = {
        "id": job.id,
        "name": job.id,
        "schedule": _write_schedule(job.schedule, {}),
        "repeat": {"times": job.times, "completed": job.completed},
        "enabled": job.state is JobState.SCHEDULED,
        "state": job.state.value,
        "next_run_at": _write_instant(job.next_us, zone),
        "last_run_at": None,
        "last_status": None,
        "created_at": _write_instant(created_us, zone),
    }
    if job.policy != Policy():
        record["policy"] = _write_policy(job.policy)
    if job.revision or job.run is not None:
        run = None if job.run is None else _write_run(job.run)
        record["chronos"] = {"revision": job.revision, "run": run, "history": []}
    return record


def stamp(facts: FileFacts, now_us: Instant) -> str:
    """Return the text of `updated_at` for a file that is written now, in the offset that it had before."""
    text = _write_instant(now_us - now_us % SECOND_US, zone_of(facts.fallback_tz))
    assert text is not None
    return text


def _settled(job: Job, record: dict[str, Any], facts: FileFacts) -> dict[str, Any]:
    """Return *record* with what only the key `chronos` can say, once it reads as *job*."""
    try:
        again = read_job(record, facts)
        if again.schedule != job.schedule:
            record["chronos"] = {**_own(record), **_hint(job.schedule)}
            again = read_job(record, facts)
    except JobsFileError as error:
        raise StoreError(
            f"{error}; the job cannot be written so that it can be read", definite=True
        ) from None
    if again != job:
        raise StoreError(f"{facts.source}: job {job.id}: no record reads as {job}", definite=True)
    return record


def _own(raw: Mapping[str, Any]) -> dict[str, Any]:
    return raw.get("chronos") or {}


def _hint(schedule: Schedule) -> dict[str, Any]:
    match schedule:
        case Cron(tz=tz):
            return {"tz": tz}
        case Interval(anchor_us=anchor_us):
            return {"anchor": format_instant(anchor_us)}
    return {}


def _zone_of_record(raw: Mapping[str, Any], facts: FileFacts) -> str:
    return zone_of_job(Reader(source=facts.source, job=None, raw=raw), facts)


def _is_same_schedule(one: Schedule, other: Schedule) -> bool:
    """Return whether the field `schedule` is the same; where an interval is anchored stands elsewhere."""
    if isinstance(one, Interval) and isinstance(other, Interval):
        return one.period_us == other.period_us
    return one == other


def _write_schedule(schedule: Schedule, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the field `schedule`, with what the agent had in it besides."""
    theirs = {
        key: raw[key] for key in raw if key not in ("kind", "expr", "tz", "minutes", "run_at", "display")
    }
    match schedule:
        case Cron(expr=expr, tz=tz):
            return {"kind": "cron", "expr": expr, "tz": tz, "display": expr, **theirs}
        case Interval(period_us=period_us):
            minutes = _number(period_us, MINUTE_US)
            return {"kind": "interval", "minutes": minutes, "display": f"every {minutes}m", **theirs}
        case Once(at_us=at_us):
            run_at = format_instant(at_us)
            return {"kind": "once", "run_at": run_at, "display": f"once at {run_at}", **theirs}


def _number(duration_us: int, unit_us: int) -> int | float:
    """Return *duration_us* counted in *unit_us*, as a whole number where it is one."""
    return duration_us / unit_us if duration_us % unit_us else duration_us // unit_us


def _write_policy(policy: Policy) -> dict[str, Any]:
    grace_us = policy.misfire_grace_us
    return {
        "on_interrupt": policy.on_interrupt.value,
        "misfire_grace_seconds": None if grace_us is None else _number(grace_us, SECOND_US),
    }


def _write_instant(instant_us: Instant | None, zone: tzinfo) -> str | None:
    """Return the time stamp of *instant_us* in *zone*, so that it is readable to the job's owner."""
    if instant_us is None:
        return None
    try:
        text = (_EPOCH + timedelta(microseconds=instant_us)).astimezone(zone).isoformat()
        offset_of(text)
    except (OverflowError, ScheduleError):  # the ends of time, or a zone's mean solar time of long ago
        return format_instant(instant_us)
    return text


def _times(
    job: Job, before: Job, raw: Mapping[str, Any], zone: tzinfo, outcomes: tuple[Outcome, ...]
) -> dict[str, Any]:
    """Return the time stamps that change, and the status of the run that ends."""
    times: dict[str, Any] = {}
    text = raw.get("next_run_at")
    is_over = before.state is job.state is JobState.COMPLETED
    if not is_over and job.next_us != (None if text is None else parse_instant(text)):
        times["next_run_at"] = _write_instant(job.next_us, zone)
    for outcome in outcomes:
        run = before.run
        if run is not None and outcome.attempt and outcome.occurrence_us == run.occurrence_us:
            times["last_run_at"] = _write_instant(run.claimed_us, zone)
            times["last_status"] = _STATUS.get(outcome.result, outcome.result.value)
    return times


def _write_run(run: Run) -> dict[str, Any]:
    return {
        "occurrence": format_instant(run.occurrence_us),
        "attempt": run.attempt,
        "owner": run.owner,
        "claimed": format_instant(run.claimed_us),
        "lease_until": format_instant(run.lease_until_us),
        "origin": run.origin.value,
    }


def _write_outcome(outcome: Outcome) -> dict[str, Any]:
    reason = outcome.reason
    written: dict[str, Any] = {
        "result": outcome.result.value,
        "reason": reason if len(reason) <= LONGEST_REASON else reason[: LONGEST_REASON - 1] + "…",
        "occurrence": format_instant(outcome.occurrence_us),
    }
    if (outcome.count, outcome.last_occurrence_us) != (1, outcome.occurrence_us):
        written["last_occurrence"] = format_instant(outcome.last_occurrence_us)
        written["count"] = outcome.count
    if outcome.attempt:
        written["attempt"] = outcome.attempt
    written["at"] = format_instant(outcome.at_us)
    return written
