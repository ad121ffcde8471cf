"""Validate a schedule, and show when it would be due."""

from __future__ import annotations

from datetime import datetime

from chronos import arguments, clock
from chronos.jobs import schedule as schedules
from chronos.jobs.due import following
from chronos.jobs.instants import Instant, datetime_of, instant_of, needed
from chronos.jobs.policy import Policy
from chronos.jobs.schedule import GivenSchedule, Schedule, schedule_of
from chronos.protocol.job_changes import new_job

# More than anybody reads; a schedule of every second has this many in less than three hours.
MAX_PREVIEW = 10_000


def next_times(
    schedule: GivenSchedule,
    count: int = 5,
    *,
    tz: str = "UTC",
    policy: Policy | None = None,
    now: datetime | None = None,
    now_us: Instant | None = None,
) -> tuple[datetime, ...]:
    """Return the next occurrences of *schedule*.

    Args:
        schedule: when it is due: a value, text for `parse_schedule`, a `timedelta` or an aware `datetime`.
        count: how many at most; 1 to `MAX_PREVIEW`.
        tz: the time zone of the text, an IANA name or an offset.
        policy: whose bounds count; None for no bounds.
        now: the instant after which they come, an aware `datetime`; None for the present one.
        now_us: the same in epoch microseconds, UTC.

    Returns:
        Aware, in UTC, in order; fewer than *count* when the schedule ends. `moment.astimezone(zone)` shows
        one of them in another zone. What of a schedule is not what it seems, `remarks` of
        `chronos.jobs.schedule` says.

    Raises:
        ScheduleError: the schedule, its zone or *now* is none, or no occurrence is left.
        TypeError: *count* is no whole number, or *policy* no `Policy`.
        ValueError: *count* is out of its range.
    """
    arguments.whole("count", count, 1, MAX_PREVIEW)
    arguments.instance("policy", policy, Policy, None)
    given_us = instant_of("now", now, now_us)
    now_us = clock.now_us() if given_us is None else given_us
    job = new_job("preview", schedule_of(schedule, now_us=now_us, tz=tz), now_us=now_us, policy=policy)
    slot_us = job.next_us
    times: list[datetime] = []
    while slot_us is not None and len(times) < count:
        times.append(datetime_of(slot_us))
        slot_us = following(job, slot_us)
    return tuple(times)


def next_after(schedule: Schedule, instant: datetime) -> datetime | None:
    """Return the first slot of *schedule* strictly after *instant*.

    Args:
        schedule: a value, as `parse_schedule` returns it.
        instant: an aware `datetime`.

    Returns:
        Aware, in UTC; None when no slot follows.

    Raises:
        ScheduleError: *instant* is none, or has no time zone.
        TypeError: *schedule* is no value.
    """
    arguments.instance("schedule", schedule, schedules.Cron | schedules.Interval | schedules.Once)
    after_us = needed("instant", instant_of("instant", instant, None))
    slot_us = schedules.next_after(schedule, after_us)
    return None if slot_us is None else datetime_of(slot_us)
