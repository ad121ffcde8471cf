"""The field `schedule` of a job's record: an object with a kind, or the text that people write.

A sixth field of a cron expression is for seconds. This library has it first; the agents whose file it is
have it last. So a record has to say where it is, in `seconds_field`, and what this library writes does.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from chronos.errors import ScheduleError
from chronos.jobs.instants import DAY_US, MINUTE_US, Instant, format_instant
from chronos.jobs.schedule import Cron, Interval, Once, Schedule, parse_schedule
from chronos.stores import near_misses
from chronos.stores.reader import Reader, counted, shown

_FIELDS = ("second", "minute", "hour", "day", "month", "weekday")


class SecondsField(StrEnum):
    """Which of six fields of a cron expression is for seconds."""

    FIRST = "first"
    LAST = "last"


def read_schedule(record: Reader, tz: str, created_us: Instant | None) -> Schedule:
    """Return the schedule of a record; of an interval, how it is anchored is not said here.

    Args:
        record: the whole record.
        tz: the zone of a cron expression.
        created_us: from when a delay such as `in 30m` counts; None when that is not known.

    Raises:
        JobsFileError: the field is none of what it should be.
    """
    if isinstance(record.get("schedule"), str):
        return _of_text(record, tz, created_us)
    if record.get("schedule") is None:
        wanted = "expected an object with a kind, or text"
        raise record.refusal("schedule", f"{wanted}, got {record.found('schedule')}")
    given = record.child("schedule")
    near_misses.SCHEDULE.check(given)
    match given.text("kind"):
        case "cron":
            return _cron(given, "expr", tz)
        case "interval":
            period_us = given.duration("minutes", MINUTE_US, at_least_us=1)
            return Interval(period_us=period_us, anchor_us=0)
        case "once":
            return Once(at_us=given.required_instant("run_at"))
    raise given.refusal("kind", f"expected cron, interval or once, got {shown(given.get('kind'))}")


def write_schedule(schedule: Schedule, raw: object) -> dict[str, Any]:
    """Return the field for *schedule*, with what the agent had in *raw*, the field before, besides."""
    ours = near_misses.SCHEDULE.known
    theirs = {key: raw[key] for key in raw if key not in ours} if isinstance(raw, Mapping) else {}
    match schedule:
        case Cron(expr=expr, tz=tz):
            where = {"seconds_field": SecondsField.FIRST.value} if _has_seconds(expr) else {}
            return {"kind": "cron", "expr": expr, **where, "tz": tz, "display": expr, **theirs}
        case Interval(period_us=period_us):
            minutes = counted(period_us, MINUTE_US)
            return {"kind": "interval", "minutes": minutes, "display": f"every {minutes}m", **theirs}
        case Once(at_us=at_us):
            run_at = format_instant(at_us)
            return {"kind": "once", "run_at": run_at, "display": f"once at {run_at}", **theirs}


def _of_text(record: Reader, tz: str, created_us: Instant | None) -> Schedule:
    text = record.text("schedule")
    try:
        schedule = parse_schedule(text, now_us=created_us or 0, tz=tz)
        if created_us is None and isinstance(schedule, Once):
            is_delay = parse_schedule(text, now_us=DAY_US, tz=tz) != schedule
            if is_delay:
                raise ScheduleError(f"{text!r} counts from created_at; expected one, got nothing")
    except ScheduleError as error:
        raise record.refusal("schedule", str(error)) from None
    if isinstance(schedule, Cron) and _has_seconds(schedule.expr):
        raise record.refusal("schedule", _two_readings(schedule.expr, "an object with seconds_field"))
    return schedule


def _cron(given: Reader, name: str, tz: str) -> Cron:
    where = None if given.get("seconds_field") is None else given.word("seconds_field", SecondsField, None)
    expr = given.text(name)
    if _has_seconds(expr):
        if where is None:
            raise given.refusal(name, _two_readings(expr, "seconds_field beside it"))
        if where is SecondsField.LAST:
            *others, seconds = expr.split()
            expr = " ".join((seconds, *others))
    try:
        return Cron(expr=expr, tz=tz)
    except ScheduleError as error:
        raise given.refusal(name, str(error)) from None


def _has_seconds(expr: str) -> bool:
    return len(expr.split()) == len(_FIELDS)


def _two_readings(expr: str, wanted: str) -> str:
    """Return why six fields alone are refused."""
    texts = expr.split()

    def reading(*names: str) -> str:
        return ", ".join(f"{name} {text}" for name, text in zip(names, texts, strict=True))

    return (
        f"six fields {expr!r}: with seconds first they are {reading(*_FIELDS)}; with seconds last,"
        f" {reading(*_FIELDS[1:], _FIELDS[0])}; expected {wanted} that says which, first or last"
    )
