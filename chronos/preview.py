"""Validate a schedule, and show when it would be due."""

from __future__ import annotations

from chronos import clock
from chronos.protocol.job import Policy, following
from chronos.protocol.schedule import Instant, Schedule, parse_schedule
from chronos.protocol.transitions import new_job

# More than anybody reads; a schedule of every second has this many in less than three hours.
MAX_PREVIEW = 10_000


def next_times(
    schedule: Schedule | str,
    count: int = 5,
    *,
    tz: str = "UTC",
    policy: Policy | None = None,
    now_us: Instant | None = None,
) -> tuple[Instant, ...]:
    """Return the next occurrences of *schedule*.

    Args:
        schedule: a value, or text for `parse_schedule`.
        count: how many at most; 1 to `MAX_PREVIEW`.
        tz: the time zone of the text, an IANA name or an offset.
        policy: whose bounds count; None for no bounds.
        now_us: the instant after which they come, epoch microseconds, UTC; None for the present one.

    Returns:
        Epoch microseconds, UTC, in order; fewer than *count* when the schedule ends. For people,
        `chronos.protocol.schedule.format_instant` makes text of each.

    Raises:
        ScheduleError: the schedule or its zone is none, or no occurrence is left; says what was expected.
        ValueError: *count* is out of its range.
    """
    if not 1 <= count <= MAX_PREVIEW:
        raise ValueError(f"count is {count}; expected 1 to {MAX_PREVIEW}")
    if now_us is None:
        now_us = clock.now_us()
    parsed = parse_schedule(schedule, now_us=now_us, tz=tz) if isinstance(schedule, str) else schedule
    job = new_job("preview", parsed, now_us=now_us, policy=policy)
    slot_us = job.next_us
    times: list[Instant] = []
    while slot_us is not None and len(times) < count:
        times.append(slot_us)
        slot_us = following(job, slot_us)
    return tuple(times)
