"""The jobs file that agents have today, and the jobs that the scheduler sees in it.

`read_document` takes the text of the file; `write_job` returns the record of one job as it shall
stand there. Both are pure. A job's record is mostly the agent's own: what the scheduler does not
know, and the spelling of what has not changed, survives untouched.

What today's fields cannot say lives under one key of the record, `chronos`:

* `revision` (0 when absent), `run` (the run in flight or null), `history` (the newest outcomes);
* `anchor`: one slot of an interval, as long as `next_run_at` lies on its grid;
* `tz`: the zone of a cron job when no other field says it (see `_zone`).

A record is read from itself and the `FileFacts` alone, so that every process reads the same job.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from typing import Any, NoReturn, TypeVar

import attrs

from chronos.errors import JobsFileError, StoreError
from chronos.protocol.job import Job, JobState, OnInterrupt, Origin, Outcome, Policy, Result, Run
from chronos.protocol.schedule import (
    DAY_US,
    MINUTE_US,
    SECOND_US,
    Cron,
    Instant,
    Interval,
    Once,
    Schedule,
    ScheduleError,
    format_instant,
    next_after,
    parse_instant,
    zone_of,
)

# How many outcomes a job's record keeps. Enough to see a bad night of a job that runs every ten
# minutes, and still small beside the prompts that the file holds.
HISTORY_LENGTH = 50

# A reason may quote a program's last words; the file is read and written as a whole with every claim.
LONGEST_REASON = 500

# Up to here a fraction of a minute written as a JSON number comes back as the same microsecond
# (2**51 us are 71 years). An interval that is longer is a mistake.
MAX_DURATION_US = 50 * 366 * DAY_US

_Word = TypeVar("_Word", bound=StrEnum)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STATUS = {Result.COMPLETED: "ok", Result.FAILED: "error", Result.INTERRUPTED: "interrupted"}


@attrs.frozen(kw_only=True)
class FileFacts:
    """What the reading of a record depends on besides the record.

    Attributes:
        source: the file's name, for messages.
        tz: the file's own `tz`, or None.
        fallback_tz: the offset of the file's time stamp, for jobs that say nothing about their zone.
        now_us: the instant of the file; None when neither the file nor the caller knows it.
    """

    source: str
    tz: str | None = None
    fallback_tz: str = "UTC"
    now_us: Instant | None = None


@attrs.frozen(kw_only=True)
class Document:
    """A jobs file that was read.

    Attributes:
        raw: the file as JSON; not to be changed.
        jobs: its jobs, in the order of the file.
        as_of_us: the instant of `updated_at`, else of `exported_at`, else None.
        facts: what the records were read with.
    """

    raw: dict[str, Any] = attrs.field(hash=False)
    jobs: tuple[Job, ...]
    as_of_us: Instant | None
    facts: FileFacts


def read_document(text: str, *, source: str, now_us: Instant | None = None) -> Document:
    """Read the text of a jobs file.

    Args:
        text: the whole file.
        source: its name, for messages.
        now_us: the instant of the file when the file itself does not say it, such as the time of its
            last change; microseconds.

    Raises:
        JobsFileError: the file or one of its jobs is not what it should be. The file must be mended;
            none of its jobs is read, since a scheduler that goes on with the rest forgets a job.

    Source: contract, "The jobs file that agents have today".
    """
    raw = _parse(text, source)
    reader = _Reader(source=source, job=None, raw=raw)
    stamp = next((name for name in ("updated_at", "exported_at") if raw.get(name) is not None), None)
    exported_us, updated_us = reader.instant("exported_at"), reader.instant("updated_at")
    as_of_us = exported_us if updated_us is None else updated_us
    facts = FileFacts(
        source=source,
        tz=reader.zone("tz"),
        fallback_tz=_offset(raw[stamp]) if stamp is not None else "UTC",
        now_us=now_us if as_of_us is None else as_of_us,
    )
    if not isinstance(raw.get("jobs"), list):
        raise reader.refusal("jobs", f"expected a list of jobs, got {reader.found('jobs')}")
    jobs = tuple(read_job(record, facts, index=index) for index, record in enumerate(raw["jobs"]))
    seen: dict[str, int] = {}
    for index, job in enumerate(jobs):
        if job.id in seen:
            problem = f"expected each id once, got it at index {seen[job.id]} and at index {index}"
            raise JobsFileError(source, job.id, "id", problem)
        seen[job.id] = index
    return Document(raw=raw, jobs=jobs, as_of_us=as_of_us, facts=facts)


def read_job(raw: object, facts: FileFacts, *, index: int = 0) -> Job:
    """Read the record of one job.

    Enabled and neither paused nor completed is `SCHEDULED`; completed is `COMPLETED`; everything
    else is `PAUSED`. The next occurrence is `next_run_at`, whether or not it is a slot of the
    expression. Where it is null and no run is in flight, it is the first slot after the instant of
    the file; an interval counts from the last run, else from the job's creation, else from then.

    Args:
        raw: the record.
        facts: what the file says for all its jobs.
        index: where the record stands among the others, to name it when it has no id.

    Raises:
        JobsFileError: the record is not what it should be.
    """
    if not isinstance(raw, Mapping):
        raise JobsFileError(facts.source, f"#{index}", None, f"expected an object, got {_shown(raw)}")
    job_id = raw.get("id")
    if not isinstance(job_id, str) or not job_id.strip():
        found = _shown(job_id) if "id" in raw else "nothing"
        raise JobsFileError(facts.source, f"#{index}", "id", f"expected text that is not empty, got {found}")
    record = _Reader(source=facts.source, job=job_id, raw=raw)
    own = record.child("chronos")
    repeat = record.child("repeat")
    state = _state(record)
    run = _run(own)
    times = None if repeat.get("times") is None else repeat.whole("times", at_least=1)
    completed = repeat.whole("completed", at_least=0, default=0)
    is_spent = times is not None and completed >= times
    wants_slot = state is not JobState.COMPLETED and run is None and not is_spent
    schedule, next_us = _schedule(record, facts, completed=completed, wants_slot=wants_slot)
    if not isinstance(own.get("history") or [], list):
        raise own.refusal("history", f"expected a list, got {own.found('history')}")
    return Job(
        id=job_id,
        schedule=schedule,
        next_us=None if state is JobState.COMPLETED else next_us,
        state=state,
        run=run,
        times=times,
        completed=completed,
        revision=own.whole("revision", at_least=0, default=0),
        policy=_policy(record.child("policy")),
    )


def read_history(raw: Mapping[str, Any], facts: FileFacts) -> tuple[Outcome, ...]:
    """Return the outcomes that the record of a job keeps, the oldest first.

    Raises:
        JobsFileError: one of them is not what it should be.
    """
    own = _Reader(source=facts.source, job=str(raw.get("id")), raw=raw).child("chronos")
    return tuple(_outcome(entry) for entry in own.items("history"))


# --- reading --------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class _Reader:
    """An object of the file, with its place for messages."""

    source: str
    job: str | None
    raw: Mapping[str, Any]
    path: str = ""

    def refusal(self, name: str, problem: str) -> JobsFileError:
        return JobsFileError(self.source, self.job, self.path + name, problem)

    def get(self, name: str) -> Any:
        return self.raw.get(name)

    def found(self, name: str) -> str:
        """Return what is under *name*, for a message."""
        return _shown(self.raw[name]) if name in self.raw else "nothing"

    def child(self, name: str) -> _Reader:
        """Return the object under *name*; an empty one when it is absent or null."""
        raw = {} if self.get(name) is None else self.get(name)
        if not isinstance(raw, Mapping):
            raise self.refusal(name, f"expected an object, got {_shown(raw)}")
        return attrs.evolve(self, raw=raw, path=f"{self.path}{name}.")

    def items(self, name: str) -> list[_Reader]:
        """Return the objects in the list under *name*; none when it is absent or null."""
        raw = [] if self.get(name) is None else self.get(name)
        if not isinstance(raw, list):
            raise self.refusal(name, f"expected a list, got {_shown(raw)}")
        found = []
        for index, item in enumerate(raw):
            if not isinstance(item, Mapping):
                raise self.refusal(f"{name}[{index}]", f"expected an object, got {_shown(item)}")
            found.append(attrs.evolve(self, raw=item, path=f"{self.path}{name}[{index}]."))
        return found

    def text(self, name: str) -> str:
        value = self.get(name)
        if not isinstance(value, str):
            raise self.refusal(name, f"expected text, got {self.found(name)}")
        return value

    def word(self, name: str, words: type[_Word], default: _Word | None) -> _Word:
        """Return the member of *words* under *name*, or *default* when there is none."""
        if self.get(name) is None and default is not None:
            return default
        text = self.text(name)
        if text not in list(words):
            raise self.refusal(name, f"expected one of {', '.join(words)}, got {_shown(text)}")
        return words(text)

    def whole(self, name: str, *, at_least: int, default: int | None = None) -> int:
        if name not in self.raw and default is not None:
            return default
        value = self.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
            raise self.refusal(name, f"expected a whole number of at least {at_least}, got {_shown(value)}")
        return value

    def duration(self, name: str, unit_us: int) -> int:
        """Return the number under *name*, counted in *unit_us*, as microseconds."""
        value = self.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise self.refusal(name, f"expected a number, got {self.found(name)}")
        if abs(value) > MAX_DURATION_US // unit_us:
            most = MAX_DURATION_US // unit_us
            raise self.refusal(name, f"expected at most {most} (50 years), got {_shown(value)}")
        return round(value * unit_us)

    def instant(self, name: str) -> Instant | None:
        """Return the time stamp under *name*; None when it is absent or null."""
        if self.get(name) is None:
            return None
        text = self.text(name)
        try:
            instant_us = parse_instant(text)
            _offset(text)
        except ScheduleError as error:
            raise self.refusal(name, str(error)) from None
        return instant_us

    def required_instant(self, name: str) -> Instant:
        instant_us = self.instant(name)
        if instant_us is None:
            raise self.refusal(name, f"expected a time stamp with its offset, got {self.found(name)}")
        return instant_us

    def zone(self, name: str) -> str | None:
        """Return the name of the time zone under *name*; None when it is absent or null."""
        if self.get(name) is None:
            return None
        try:
            zone_of(self.text(name))
        except ScheduleError as error:
            raise self.refusal(name, str(error)) from None
        return self.text(name)


def _shown(value: object) -> str:
    """Return *value* for a message, cut to a sensible length."""
    named = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return named[value]
    return reprlib.repr(value)


def _parse(text: str, source: str) -> dict[str, Any]:
    """Return the object that *text* is."""

    def refuse_constant(name: str) -> NoReturn:
        raise JobsFileError(source, None, None, f"expected JSON, which has no {name}")

    def finite(digits: str) -> float:
        if not math.isfinite(number := float(digits)):
            raise JobsFileError(source, None, None, f"expected JSON, got a number too large: {digits}")
        return number

    try:
        raw = json.loads(text, parse_constant=refuse_constant, parse_float=finite)
    except json.JSONDecodeError as error:
        problem = f"expected JSON, got an error at line {error.lineno}, column {error.colno}: {error.msg}"
        raise JobsFileError(source, None, None, problem) from None
    except ValueError:  # Python's limit on the digits of a whole number
        raise JobsFileError(source, None, None, "expected JSON, got a number of too many digits") from None
    except RecursionError:
        raise JobsFileError(source, None, None, "expected JSON, got objects nested too deeply") from None
    if not isinstance(raw, dict):
        raise JobsFileError(source, None, None, f"expected an object with a list of jobs, got {_shown(raw)}")
    return raw


def _offset(text: str) -> str:
    """Return the offset of the time stamp *text*, as the name of a zone."""
    offset = datetime.fromisoformat(text).utcoffset()
    assert offset is not None
    minutes, rest = divmod(offset, timedelta(minutes=1))
    if rest:
        raise ScheduleError(f"time stamp {text!r}: expected an offset of whole minutes")
    hours, minutes_of_hour = divmod(abs(minutes), 60)
    return f"{'-' if minutes < 0 else '+'}{hours:02}:{minutes_of_hour:02}" if minutes else "UTC"


def _zone(record: _Reader, facts: FileFacts) -> str:
    """Return the name of the time zone of a job.

    It is the first of these that is there:

    1. `tz` of its schedule: an IANA name, `UTC` or an offset such as `+05:30`;
    2. `tz` of the file;
    3. the offset of its `next_run_at`;
    4. `tz` under `chronos`, which the scheduler leaves when it sets `next_run_at` to null;
    5. the offset of its `last_run_at`, else of its `created_at`;
    6. the offset of the file's `updated_at`, else of its `exported_at`;
    7. UTC.

    A cron expression is matched in this zone, and the time stamps that the scheduler writes into
    the record are written in it. An offset knows no clock changes; a job that shall follow them
    needs an IANA name in its schedule.
    """
    named = record.child("schedule").zone("tz") or facts.tz
    if named is not None:
        return named
    if record.get("next_run_at") is not None:
        return _offset(record.get("next_run_at"))
    kept = record.child("chronos").zone("tz")
    if kept is not None:
        return kept
    for name in ("last_run_at", "created_at"):
        if record.get(name) is not None:
            return _offset(record.get(name))
    return facts.fallback_tz


def _state(record: _Reader) -> JobState:
    """Return whether the schedule is in force; a state that the scheduler does not know is no obstacle."""
    enabled = record.raw.get("enabled", True)
    if not isinstance(enabled, bool):
        raise record.refusal("enabled", f"expected true or false, got {_shown(enabled)}")
    state = None if record.get("state") is None else record.text("state")
    if state == JobState.COMPLETED:
        return JobState.COMPLETED
    return JobState.SCHEDULED if enabled and state != JobState.PAUSED else JobState.PAUSED


def _schedule(
    record: _Reader, facts: FileFacts, *, completed: int, wants_slot: bool
) -> tuple[Schedule, Instant | None]:
    """Return the schedule and the next occurrence, which is looked for only if *wants_slot*."""
    next_us, last_us, created_us = (
        record.instant(name) for name in ("next_run_at", "last_run_at", "created_at")
    )
    if record.get("schedule") is None:
        raise record.refusal("schedule", f"expected an object with a kind, got {record.found('schedule')}")
    given = record.child("schedule")
    known = tuple(instant_us for instant_us in (last_us, created_us) if instant_us is not None)
    tz = _zone(record, facts)
    is_sought = wants_slot and next_us is None
    match given.text("kind"):
        case "cron":
            cron = _cron(given, tz)
            return cron, next_after(cron, _now(record, facts, known)) if is_sought else next_us
        case "interval":
            return _interval(record, facts, known, next_us, is_sought=is_sought)
        case "once":
            once = Once(at_us=given.required_instant("run_at"))
            return once, once.at_us if is_sought and completed == 0 else next_us
    raise given.refusal("kind", f"expected cron, interval or once, got {_shown(given.get('kind'))}")


def _now(record: _Reader, facts: FileFacts, known: tuple[Instant, ...]) -> Instant:
    """Return when the record was written; at the earliest, when the last thing that it tells happened."""
    if facts.now_us is not None:
        return facts.now_us
    if not known:
        raise record.refusal("next_run_at", "null, and nothing in the file says when it was written")
    return max(known)


def _interval(
    record: _Reader,
    facts: FileFacts,
    known: tuple[Instant, ...],
    next_us: Instant | None,
    *,
    is_sought: bool,
) -> tuple[Interval, Instant | None]:
    """Return an interval anchored at its next occurrence, unless the anchor it had fits that as well."""
    given = record.child("schedule")
    period_us = given.duration("minutes", MINUTE_US)
    if period_us <= 0:
        raise given.refusal("minutes", f"expected more than zero, got {_shown(given.get('minutes'))}")
    anchor_us = record.child("chronos").instant("anchor")
    if anchor_us is not None:
        known = (anchor_us, *known)
    if is_sought:
        now_us = _now(record, facts, known)
        grid = Interval(period_us=period_us, anchor_us=known[0] if known else now_us)
        next_us = next_after(grid, now_us)
    if next_us is not None and (anchor_us is None or (next_us - anchor_us) % period_us):
        known = (next_us,)
    return Interval(period_us=period_us, anchor_us=known[0] if known else 0), next_us


def _cron(given: _Reader, tz: str) -> Cron:
    try:
        return Cron(expr=given.text("expr"), tz=tz)
    except ScheduleError as error:
        raise given.refusal("expr", str(error)) from None


def _policy(given: _Reader) -> Policy:
    grace_us = None
    if given.get("misfire_grace_seconds") is not None:
        grace_us = given.duration("misfire_grace_seconds", SECOND_US)
        if grace_us < 0:
            raise given.refusal("misfire_grace_seconds", "expected zero or more, or null")
    return Policy(
        on_interrupt=given.word("on_interrupt", OnInterrupt, OnInterrupt.RECORD), misfire_grace_us=grace_us
    )


def _run(own: _Reader) -> Run | None:
    if own.get("run") is None:
        return None
    run = own.child("run")
    return Run(
        occurrence_us=run.required_instant("occurrence"),
        attempt=run.whole("attempt", at_least=1),
        owner=run.text("owner"),
        claimed_us=run.required_instant("claimed"),
        lease_until_us=run.required_instant("lease_until"),
        origin=run.word("origin", Origin, Origin.SCHEDULE),
    )


def _outcome(entry: _Reader) -> Outcome:
    occurrence_us = entry.required_instant("occurrence")
    last_us = entry.instant("last_occurrence")
    return Outcome(
        job_id=entry.job or "",
        result=entry.word("result", Result, None),
        reason=entry.text("reason"),
        occurrence_us=occurrence_us,
        last_occurrence_us=occurrence_us if last_us is None else last_us,
        count=entry.whole("count", at_least=1, default=1),
        attempt=entry.whole("attempt", at_least=0, default=0),
        at_us=entry.required_instant("at"),
    )


# --- writing --------------------------------------------------------------------------------


def write_job(
    job: Job, raw: Mapping[str, Any], facts: FileFacts, *, outcomes: tuple[Outcome, ...] = ()
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

    Raises:
        JobsFileError: *raw* is not a record.
        StoreError: *job* has no record that reads the same, such as an interval of a century.
    """
    before = read_job(raw, facts)
    try:
        record = _rewrite(job, before, raw, facts, outcomes)
    except ScheduleError as error:
        raise StoreError(f"{facts.source}: job {job.id}: {error}", definite=True) from None
    return _settled(job, record, facts)


def _rewrite(
    job: Job, before: Job, raw: Mapping[str, Any], facts: FileFacts, outcomes: tuple[Outcome, ...]
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
            "history": kept[-HISTORY_LENGTH:],
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
    return _zone(_Reader(source=facts.source, job=None, raw=raw), facts)


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
        _offset(text)
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
