"""Jobs as a test draws them, and their occurrences as plain arithmetic."""

from __future__ import annotations

import attrs
from hypothesis import strategies as st

from chronos.jobs.instants import HOUR_US, MINUTE_US, SECOND_US, parse_instant
from chronos.jobs.job import Job
from chronos.jobs.policy import MAX_GRACE_US, MIN_GRACE_US, CatchUp, OnInterrupt, Overlap, Policy
from chronos.jobs.schedule import Cron, Interval, Once, Schedule

T0 = parse_instant("2026-06-26T12:00:00Z")


@attrs.frozen(kw_only=True)
class Grid:
    """The occurrences of a schedule: an instant and all that are whole periods away from it.

    Attributes:
        at_us: one of them.
        period_us: from one to the next; None when there is only the one.
        starts_us: none before this instant; None for no such bound.
        ends_us: none after this instant; None for no such bound.
    """

    at_us: int
    period_us: int | None
    starts_us: int | None = None
    ends_us: int | None = None

    def after(self, instant_us: int) -> int | None:
        """Return the first occurrence after *instant_us*."""
        least_us = instant_us + 1 if self.starts_us is None else max(instant_us + 1, self.starts_us)
        slot_us = self.at_us
        if self.period_us is not None:
            slot_us += -(-(least_us - self.at_us) // self.period_us) * self.period_us
        is_within = slot_us >= least_us and (self.ends_us is None or slot_us <= self.ends_us)
        return slot_us if is_within else None

    def stretch(self, first_us: int, count: int) -> list[int]:
        """Return so many occurrences from *first_us* on, or all that there are."""
        slots: list[int] = []
        slot_us = self.after(first_us - 1)
        while slot_us is not None and len(slots) < count:
            slots.append(slot_us)
            slot_us = self.after(slot_us)
        return slots


def grid_of(schedule: Schedule, policy: Policy) -> Grid:
    """Return the occurrences of one of the schedules of `schedule_of`, within the bounds of its job."""
    match schedule:
        case Interval(period_us=period_us, anchor_us=at_us):
            pass
        case Once(at_us=at_us):
            period_us = None
        case Cron():
            period_us, at_us = 10 * MINUTE_US, T0
    return Grid(at_us=at_us, period_us=period_us, starts_us=policy.starts_us, ends_us=policy.ends_us)


def grace_us(grid: Grid, policy: Policy) -> int:
    """Return how late an occurrence may be: half of the time to the next one, within its bounds."""
    if policy.misfire_grace_us is not None:
        return policy.misfire_grace_us
    if grid.period_us is None:
        return MAX_GRACE_US
    return max(MIN_GRACE_US, min(MAX_GRACE_US, grid.period_us // 2))


def rounded_up(instant_us: int) -> int:
    """Return the first whole second at or after an instant."""
    return instant_us + -instant_us % SECOND_US


def edited(now: Schedule, wanted: Schedule, *, is_any_phase: bool) -> Schedule:
    """Return the schedule of a job that was given *wanted*: in whole seconds, unless it is the same."""
    match now, wanted:
        case Once(at_us=at_us), Once(at_us=other_us):
            return now if rounded_up(at_us) == rounded_up(other_us) else Once(at_us=rounded_up(other_us))
        case Interval(period_us=period_us, anchor_us=at_us), Interval(anchor_us=other_us) if (
            period_us == wanted.period_us and (is_any_phase or at_us % period_us == other_us % period_us)
        ):
            return now
        case _, Once(at_us=at_us):
            return Once(at_us=rounded_up(at_us))
        case _, Interval(period_us=period_us, anchor_us=at_us):
            return Interval(period_us=period_us, anchor_us=at_us // SECOND_US * SECOND_US)
    return wanted


@attrs.frozen(kw_only=True)
class Plan:
    """What somebody wants of a job.

    Attributes:
        shape: how often it is due: `close`, `distant` or `cron`; or `once`.
        times: after how many occurrences the schedule stops; None for never.
        policy: the owner's choices; bounds count from `T0`.
    """

    shape: str
    times: int | None
    policy: Policy

    def schedule(self, now_us: int) -> Schedule:
        """Return the schedule that somebody writes at *now_us*."""
        match self.shape:
            case "close":
                return Interval(period_us=200 * SECOND_US, anchor_us=now_us)
            case "distant":
                return Interval(period_us=700 * SECOND_US, anchor_us=now_us)
            case "cron":
                return Cron(expr="*/10 * * * *", tz="UTC")
        return Once(at_us=now_us + 200 * SECOND_US)

    def job(self, name: str, now_us: int) -> Job | None:
        """Return the job as it is created at *now_us*; None when it would have no occurrence."""
        schedule = self.schedule(now_us)
        next_us = grid_of(schedule, self.policy).after(now_us)
        if next_us is None:
            return None
        return Job(id=name, schedule=schedule, next_us=next_us, times=self.times, policy=self.policy)


shapes = st.sampled_from(("close", "close", "distant", "cron", "once"))
limits = st.sampled_from((None, None, None, 2, 1))
bounds = st.sampled_from((None, None, None, (T0 + 250 * SECOND_US, None), (None, T0 + 1500 * SECOND_US)))


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Draw any policy; the plainest first."""
    starts_us, ends_us = draw(bounds) or (None, None)
    return Policy(
        misfire_grace_us=draw(st.sampled_from((None, None, 30 * SECOND_US, HOUR_US))),
        catch_up=draw(st.sampled_from(CatchUp)),
        catch_up_limit=draw(st.sampled_from((10, 2))),
        overlap=draw(st.sampled_from(Overlap)),
        on_interrupt=draw(st.sampled_from(OnInterrupt)),
        attempts=draw(st.sampled_from((1, 2, 3))),
        retry_delay_us=draw(st.sampled_from((50 * SECOND_US, 10 * MINUTE_US))),
        time_limit_us=draw(st.sampled_from((None, None, 60 * SECOND_US, 20 * MINUTE_US))),
        starts_us=starts_us,
        ends_us=ends_us,
    )


plans = st.builds(Plan, shape=shapes, times=limits, policy=policies())
