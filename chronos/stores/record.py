"""The jobs file that agents have today, and the jobs that the scheduler sees in it.

`read_document` takes the text of the file; what is written is in `chronos.stores.rewrite`. Both are
pure. What today's fields cannot say lives under one key of a job's record, `chronos`:

* `revision` (0 when absent), `runs` (those in flight), `waiting` (the occurrences that wait),
  `last_manual` (when a run was last asked for by hand), `ran_ahead` (occurrences that ran while a clock
  was ahead), `history` (the newest outcomes);
* `data`: what the job carries for its runner, any JSON value, which people may write there;
* `anchor`: one slot of an interval, as long as `next_run_at` lies on its grid;
* `tz`: the zone of a cron job when no other field says it (see `zone_of_job`).

A record is read from itself and the `FileFacts` alone, so that every process reads the same job.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from msgspec import Struct

from chronos.errors import DataError, JobsFileError, ScheduleError
from chronos.jobs.data import json_of
from chronos.jobs.due import following
from chronos.jobs.instants import Instant, parse_instant
from chronos.jobs.job import Job, JobState, Origin, Outcome, Result, Run, Unreadable, Waiting
from chronos.jobs.policy import Policy
from chronos.jobs.schedule import Cron, Interval, Once, Schedule
from chronos.stores import near_misses, refusal, told_apart, unreadable
from chronos.stores.layout import texts_of_records
from chronos.stores.policy import read_policy
from chronos.stores.reader import NoNumber, Reader, no_number, offset_of, parse_object, shown
from chronos.stores.schedule_field import read_schedule


class FileFacts(Struct, frozen=True, kw_only=True):
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
        raw: the file as JSON, but for the text that stands for a record that cannot be read; not to be
            changed.
        records: its jobs, and what is no job, in the order of the file.
        as_of_us: the instant of `updated_at`, else of `exported_at`, else None.
        facts: what the records were read with.
    """

    raw: dict[str, Any] = attrs.field(hash=False)
    records: tuple[Job | Unreadable, ...]
    as_of_us: Instant | None
    facts: FileFacts

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Its jobs, in the order of the file."""
        return told_apart(self.records)[0]

    @property
    def unreadable(self) -> tuple[Unreadable, ...]:
        """The records that cannot be read, in the order of the file."""
        return told_apart(self.records)[1]

    def checked(self) -> Document:
        """Return it, for whoever needs every record of it.

        Raises:
            JobsFileError: a record cannot be read; the first of them.
        """
        if odd := self.unreadable:
            raise refusal(odd[0])
        return self


def read_document(text: str, *, source: str, now_us: Instant | None = None) -> Document:
    """Read the text of a jobs file.

    Args:
        text: the whole file.
        source: its name, for messages.
        now_us: the instant of the file when the file itself does not say it, such as the time of its
            last change; microseconds.

    Returns:
        The file. A record that is not what it should be is listed as that, and stops no other; each of
        several with one id is such a record, since nobody knows which of them is meant.

    Raises:
        JobsFileError: the file as a whole is not what it should be, and must be mended.

    Source: contract, "The jobs file that agents have today"; incident S6.
    """
    raw, has_no_number = parse_object(text, source)
    if has_no_number and (odd := no_number({**raw, "jobs": None})):
        raise JobsFileError(source, None, None, odd.problem)
    reader = Reader(source=source, job=None, raw=raw)
    near_misses.FILE.check(reader)
    stamp = next((name for name in ("updated_at", "exported_at") if raw.get(name) is not None), None)
    exported_us, updated_us = reader.instant("exported_at"), reader.instant("updated_at")
    as_of_us = exported_us if updated_us is None else updated_us
    facts = FileFacts(
        source=source,
        tz=reader.zone("tz"),
        fallback_tz=offset_of(raw[stamp]) if stamp is not None else "UTC",
        now_us=now_us if as_of_us is None else as_of_us,
    )
    if not isinstance(raw.get("jobs"), list):
        raise reader.refusal("jobs", f"expected a list of jobs, got {reader.found('jobs')}")
    records = _read_records(raw["jobs"], facts, has_no_number=has_no_number)
    if any(isinstance(record, Unreadable) for record in records):
        each = zip(records, raw["jobs"], texts_of_records(text), strict=True)
        raw = {**raw, "jobs": [kept if isinstance(record, Unreadable) else was for record, was, kept in each]}
    return Document(raw=raw, records=records, as_of_us=as_of_us, facts=facts)


def id_of(raw: object) -> str | None:
    """Return the id of a record; None when it has none."""
    job_id = raw.get("id") if isinstance(raw, Mapping) else None
    return job_id if isinstance(job_id, str) and job_id.strip() else None


def _read_records(
    raw: list[object], facts: FileFacts, *, has_no_number: bool
) -> tuple[Job | Unreadable, ...]:
    places: dict[str | None, list[int]] = {}
    for index, record in enumerate(raw):
        places.setdefault(id_of(record), []).append(index)
    odd = [no_number(record) if has_no_number else None for record in raw]
    return tuple(
        _read_record(record, facts, index, places[id_of(record)], found)
        for index, (record, found) in enumerate(zip(raw, odd, strict=True))
    )


def _read_record(
    raw: object, facts: FileFacts, index: int, places: list[int], odd: NoNumber | None
) -> Job | Unreadable:
    """Return the job that a record is, if it is one and no other of *places* has its id."""
    job_id = id_of(raw)
    try:
        if job_id is not None and len(places) > 1:
            at = " and at ".join(f"index {place}" for place in places)
            problem = f"expected each id once, got it at {at}"
            raise JobsFileError(facts.source, job_id, "id", problem)
        if odd is not None:
            raise JobsFileError(facts.source, job_id or f"#{index}", None, odd.problem)
        return read_job(raw, facts, index=index)
    except JobsFileError as error:
        return unreadable(error, job_id)


def read_job(raw: object, facts: FileFacts, *, index: int = 0) -> Job:
    """Read the record of one job.

    Enabled and neither paused nor completed is `SCHEDULED`; completed is `COMPLETED`; everything
    else is `PAUSED`. The next occurrence is `next_run_at`, whether or not it is a slot of the
    expression and within the job's bounds. Where it is null, no run is in flight and nothing waits,
    it is the first slot within them after the instant of the file; an interval counts from the last
    run, else from the job's creation, else from then.

    Args:
        raw: the record.
        facts: what the file says for all its jobs.
        index: where the record stands among the others, to name it when it has no id.

    Raises:
        JobsFileError: the record is not what it should be.
    """
    if not isinstance(raw, Mapping):
        raise JobsFileError(facts.source, f"#{index}", None, f"expected an object, got {shown(raw)}")
    job_id = raw.get("id")
    if not isinstance(job_id, str) or not job_id.strip():
        found = shown(job_id) if "id" in raw else "nothing"
        # What is neither text nor missing is not at fault for being empty.
        wanted = "text that is not empty" if job_id is None or isinstance(job_id, str) else "text"
        raise JobsFileError(facts.source, f"#{index}", "id", f"expected {wanted}, got {found}")
    record = Reader(source=facts.source, job=job_id, raw=raw)
    near_misses.RECORD.check(record)
    return _job(job_id, record, facts)


def _job(job_id: str, record: Reader, facts: FileFacts) -> Job:
    own = record.child("chronos")
    near_misses.OWN.check(own)
    repeat = record.child("repeat")
    near_misses.REPEAT.check(repeat)
    state = _state(record)
    policy = read_policy(record.child("policy"))
    runs = tuple(_run(entry) for entry in own.items("runs"))
    waiting = tuple(_waiting(entry) for entry in own.items("waiting"))
    times = None if repeat.get("times") is None else repeat.whole("times", at_least=1)
    completed = repeat.whole("completed", at_least=0, default=0)
    is_spent = times is not None and completed >= times
    wants_slot = state is not JobState.COMPLETED and not runs and not waiting and not is_spent
    schedule, next_us = _schedule(record, facts, policy, completed=completed, wants_slot=wants_slot)
    if not isinstance(own.get("history") or [], list):
        raise own.refusal("history", f"expected a list, got {own.found('history')}")
    return Job(
        id=job_id,
        schedule=schedule,
        next_us=None if state is JobState.COMPLETED else next_us,
        state=state,
        runs=runs,
        waiting=waiting,
        times=times,
        completed=completed,
        revision=own.whole("revision", at_least=0, default=0),
        policy=policy,
        note="" if record.get("paused_reason") is None else record.text("paused_reason"),
        last_manual_us=own.instant("last_manual"),
        ran_ahead_us=_ran_ahead(own),
        data_json=_data(own),
        declared="" if own.get("declared") is None else own.text("declared"),
    )


def _ran_ahead(own: Reader) -> tuple[Instant, ...]:
    """Return the occurrences that ran while a clock was ahead."""
    texts = own.get("ran_ahead") or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise own.refusal("ran_ahead", f"expected a list of instants, got {own.found('ran_ahead')}")
    try:
        return tuple(parse_instant(text) for text in texts)
    except ScheduleError as error:
        raise own.refusal("ran_ahead", str(error)) from None


def read_history(raw: Mapping[str, Any], facts: FileFacts) -> tuple[Outcome, ...]:
    """Return the outcomes that the record of a job keeps, the oldest first.

    Raises:
        JobsFileError: one of them is not what it should be.
    """
    own = Reader(source=facts.source, job=str(raw.get("id")), raw=raw).child("chronos")
    return tuple(_outcome(entry) for entry in own.items("history"))


def zone_of_job(record: Reader, facts: FileFacts) -> str:
    """Return the name of the time zone of the job in *record*.

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
    is_text = isinstance(record.get("schedule"), str)
    named = (None if is_text else record.child("schedule").zone("tz")) or facts.tz
    if named is not None:
        return named
    if record.get("next_run_at") is not None:
        return offset_of(record.get("next_run_at"))
    kept = record.child("chronos").zone("tz")
    if kept is not None:
        return kept
    for name in ("last_run_at", "created_at"):
        if record.get(name) is not None:
            return offset_of(record.get(name))
    return facts.fallback_tz


def _data(own: Reader) -> str:
    try:
        return json_of(own.get("data"))
    except DataError as error:
        raise own.refusal("data", str(error)) from None


def _state(record: Reader) -> JobState:
    """Return whether the schedule is in force; a state that the scheduler does not know is no obstacle."""
    enabled = record.raw.get("enabled", True)
    if not isinstance(enabled, bool):
        raise record.refusal("enabled", f"expected true or false, got {shown(enabled)}")
    state = None if record.get("state") is None else record.text("state")
    if state == JobState.COMPLETED:
        return JobState.COMPLETED
    return JobState.SCHEDULED if enabled and state != JobState.PAUSED else JobState.PAUSED


def _schedule(
    record: Reader, facts: FileFacts, policy: Policy, *, completed: int, wants_slot: bool
) -> tuple[Schedule, Instant | None]:
    """Return the schedule and the next occurrence, which is looked for only if *wants_slot*."""
    next_us, last_us, created_us = (
        record.instant(name) for name in ("next_run_at", "last_run_at", "created_at")
    )
    known = tuple(instant_us for instant_us in (last_us, created_us) if instant_us is not None)
    schedule = read_schedule(record, zone_of_job(record, facts), created_us)
    is_sought = wants_slot and next_us is None
    match schedule:
        case Cron():
            first_us = _first(schedule, policy, _now(record, facts, known)) if is_sought else next_us
            return schedule, first_us
        case Interval(period_us=period_us):
            return _interval(record, facts, policy, period_us, known, next_us, is_sought=is_sought)
        case Once(at_us=at_us):
            is_ahead = is_sought and completed == 0
            return schedule, _first(schedule, policy, at_us - 1) if is_ahead else next_us


def _first(schedule: Schedule, policy: Policy, instant_us: Instant) -> Instant | None:
    """Return the first slot after *instant_us* within the bounds of *policy*."""
    return following(Job(id="", schedule=schedule, next_us=None, policy=policy), instant_us)


def _now(record: Reader, facts: FileFacts, known: tuple[Instant, ...]) -> Instant:
    """Return when the record was written; at the earliest, when the last thing that it tells happened."""
    if facts.now_us is not None:
        return facts.now_us
    if not known:
        raise record.refusal("next_run_at", "null, and nothing in the file says when it was written")
    return max(known)


def _interval(
    record: Reader,
    facts: FileFacts,
    policy: Policy,
    period_us: int,
    known: tuple[Instant, ...],
    next_us: Instant | None,
    *,
    is_sought: bool,
) -> tuple[Interval, Instant | None]:
    """Return an interval anchored at its next occurrence, unless the anchor it had fits that as well."""
    anchor_us = record.child("chronos").instant("anchor")
    if anchor_us is not None:
        known = (anchor_us, *known)
    if is_sought:
        now_us = _now(record, facts, known)
        grid = Interval(period_us=period_us, anchor_us=known[0] if known else now_us)
        next_us = _first(grid, policy, now_us)
    if next_us is not None and (anchor_us is None or (next_us - anchor_us) % period_us):
        known = (next_us,)
    return Interval(period_us=period_us, anchor_us=known[0] if known else 0), next_us


def _run(entry: Reader) -> Run:
    near_misses.RUN.check(entry)
    return Run(
        occurrence_us=entry.required_instant("occurrence"),
        attempt=entry.whole("attempt", at_least=1),
        owner=entry.text("owner"),
        claimed_us=entry.required_instant("claimed"),
        lease_until_us=entry.required_instant("lease_until"),
        origin=entry.word("origin", Origin, Origin.SCHEDULE),
        minted_us=entry.instant("minted"),
        received_us=entry.instant("received"),
    )


def _waiting(entry: Reader) -> Waiting:
    near_misses.WAITING.check(entry)
    return Waiting(
        occurrence_us=entry.required_instant("occurrence"),
        attempt=entry.whole("attempt", at_least=1),
        not_before_us=entry.required_instant("not_before"),
        origin=entry.word("origin", Origin, Origin.SCHEDULE),
    )


def _outcome(entry: Reader) -> Outcome:
    near_misses.OUTCOME.check(entry)
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
        origin=entry.word("origin", Origin, Origin.SCHEDULE),
        minted_us=entry.instant("minted"),
        received_us=entry.instant("received"),
        claimed_us=entry.instant("claimed"),
    )
