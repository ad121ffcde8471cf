"""The record of a job in the jobs file, as it shall stand there after a change.

A record is mostly the agent's own: what the scheduler does not know, and the spelling of what has
not changed, survives untouched. Nothing is written that does not read as the job it is written for.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import tzinfo
from typing import Any

from chronos.errors import JobsFileError, ScheduleError, StoreError
from chronos.jobs.data import json_of
from chronos.jobs.instants import SECOND_US, Instant, format_instant, parse_instant
from chronos.jobs.job import Job, JobState, Origin, Outcome, Result, Run, Waiting
from chronos.jobs.policy import Policy
from chronos.jobs.schedule import Cron, Interval, Schedule
from chronos.jobs.zones import zone_of
from chronos.stores import HISTORY_LENGTH
from chronos.stores.policy import rewrite_policy
from chronos.stores.reader import Reader, put, written_in
from chronos.stores.record import FileFacts, read_job, zone_of_job
from chronos.stores.schedule_field import write_schedule

# A reason may quote a program's last words; the file is read and written as a whole with every claim.
LONGEST_REASON = 500

_OWN = ("revision", "declared", "runs", "waiting", "last_manual", "ran_ahead", "history")
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
        outcomes: the occurrences that end with this change. The last of them that ended a run,
            scheduled or manual, gives the record its `last_run_at` and `last_status`.
        history_length: how many outcomes the record keeps, the newest; at least 1.

    Raises:
        JobsFileError: *raw* is not a record.
        StoreError: *job* has no record that reads the same, such as an interval of a century.
        ValueError: *history_length* is less than 1.
    """
    if history_length < 1:
        raise ValueError(f"history_length is {history_length}; expected at least 1")
    before = read_job(raw, facts)
    try:
        record = _rewrite(job, before, raw, facts, outcomes)
        if outcomes or _own_of(before) != _own_of(job):
            put(record, "chronos", _write_own(job, _own(raw), outcomes, history_length))
    except ScheduleError as error:
        raise StoreError(f"{facts.source}: job {job.id}: {error}", definite=True) from None
    return _settled(job, record, facts)


def _rewrite(
    job: Job, before: Job, raw: Mapping[str, Any], facts: FileFacts, outcomes: tuple[Outcome, ...]
) -> dict[str, Any]:
    """Return *raw*, which reads as *before*, with what differs in *job*, the key `chronos` aside."""
    record = dict(raw)
    if not _is_same_schedule(before.schedule, job.schedule):
        record["schedule"] = write_schedule(job.schedule, raw["schedule"])
    if before.state is not job.state:
        record["state"], record["enabled"] = job.state.value, job.state is JobState.SCHEDULED
        if raw.get("paused_at") is not None:
            record["paused_at"] = None  # the agent's own, of a pause that is over
    if before.note != job.note:
        record["paused_reason"] = job.note or None
    if (before.times, before.completed) != (job.times, job.completed):
        record["repeat"] = {**(raw.get("repeat") or {}), "times": job.times, "completed": job.completed}
    zone = zone_of(job.schedule.tz if isinstance(job.schedule, Cron) else _zone_of_record(raw, facts))
    if before.policy != job.policy:
        put(record, "policy", rewrite_policy(job.policy, before.policy, raw.get("policy") or {}, zone))
    text = raw.get("next_run_at")
    is_over = before.state is job.state is JobState.COMPLETED
    if not is_over and job.next_us != (None if text is None else parse_instant(text)):
        record["next_run_at"] = _write_instant(job.next_us, zone)
    for outcome in outcomes:
        if outcome.claimed_us is not None:
            record["last_run_at"] = _write_instant(outcome.claimed_us, zone)
            record["last_status"] = _STATUS.get(outcome.result, outcome.result.value)
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
        "schedule": write_schedule(job.schedule, {}),
        "repeat": {"times": job.times, "completed": job.completed},
        "enabled": job.state is JobState.SCHEDULED,
        "state": job.state.value,
        "next_run_at": _write_instant(job.next_us, zone),
        "last_run_at": None,
        "last_status": None,
        "created_at": _write_instant(created_us, zone),
    }
    if job.note:
        record["paused_reason"] = job.note
    put(record, "policy", rewrite_policy(job.policy, Policy(), {}, zone))
    put(record, "chronos", _write_own(job, {}, (), HISTORY_LENGTH))
    return record


def stamp(facts: FileFacts, now_us: Instant) -> str:
    """Return the text of `updated_at` for a file that is written now, in the offset that it had before."""
    return written_in(now_us - now_us % SECOND_US, zone_of(facts.fallback_tz))


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


def _write_instant(instant_us: Instant | None, zone: tzinfo) -> str | None:
    return None if instant_us is None else written_in(instant_us, zone)


def _own_of(job: Job) -> tuple[object, ...]:
    """Return what of *job* stands under `chronos`."""
    theirs = job.data_json, job.declared
    return job.revision, job.runs, job.waiting, job.last_manual_us, job.ran_ahead_us, *theirs


def _write_own(
    job: Job, raw: Mapping[str, Any], outcomes: tuple[Outcome, ...], history_length: int
) -> dict[str, Any]:
    """Return what stands under `chronos`, made from what stood there: the long history last."""
    own = {key: raw[key] for key in raw if key not in _OWN}
    history = [*(raw.get("history") or ()), *(_write_outcome(outcome) for outcome in outcomes)]
    if json_of(own.get("data")) != job.data_json:
        own["data"] = job.data
        if job.data is None:
            del own["data"]
    put(own, "revision", job.revision or None)
    put(own, "declared", job.declared or None)
    put(own, "runs", [_write_run(run) for run in job.runs])
    put(own, "waiting", [_write_waiting(waiting) for waiting in job.waiting])
    put(own, "last_manual", None if job.last_manual_us is None else format_instant(job.last_manual_us))
    put(own, "ran_ahead", [format_instant(at_us) for at_us in job.ran_ahead_us])
    put(own, "history", history[-history_length:])
    return own


def _write_run(run: Run) -> dict[str, Any]:
    return {
        "occurrence": format_instant(run.occurrence_us),
        "attempt": run.attempt,
        "owner": run.owner,
        "claimed": format_instant(run.claimed_us),
        "lease_until": format_instant(run.lease_until_us),
        **_write_origin(run),
    }


def _write_waiting(waiting: Waiting) -> dict[str, Any]:
    written: dict[str, Any] = {
        "occurrence": format_instant(waiting.occurrence_us),
        "attempt": waiting.attempt,
        "not_before": format_instant(waiting.not_before_us),
    }
    if waiting.origin is not Origin.SCHEDULE:
        written["origin"] = waiting.origin.value
    return written


def _write_origin(run: Run | Outcome) -> dict[str, Any]:
    """Return why it ran, and when its fire was minted and received, as far as that says something."""
    written: dict[str, Any] = {}
    if run.origin is not Origin.SCHEDULE:
        written["origin"] = run.origin.value
    if run.minted_us is not None:
        written["minted"] = format_instant(run.minted_us)
    if run.received_us is not None:
        written["received"] = format_instant(run.received_us)
    return written


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
    written |= _write_origin(outcome)
    if outcome.claimed_us is not None:
        written["claimed"] = format_instant(outcome.claimed_us)
    written["at"] = format_instant(outcome.at_us)
    return written
