"""A clock to set, for an agent and its NAS alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from chronos.jobs.instants import Instant, datetime_of, instant_of, needed

START = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """A clock that stands still until it is moved; give it to a scheduler as its `clock`.

    Args:
        start: what it shows first, an aware `datetime`.

    Raises:
        ScheduleError: *start* is no aware `datetime`.
    """

    def __init__(self, start: datetime = START) -> None:
        self.set(start)

    def __call__(self) -> Instant:
        """Return the present instant, epoch microseconds, UTC."""
        return self._now_us

    @property
    def now(self) -> datetime:
        """The present instant, in UTC."""
        return datetime_of(self._now_us)

    def set(self, moment: datetime) -> None:
        """Show *moment*, an aware `datetime`; back is a way, too. Nothing is delivered by that.

        Raises:
            ScheduleError: *moment* is no aware `datetime`.
        """
        self._now_us = needed("moment", instant_of("moment", moment, None))

    def advance(self, by: timedelta) -> None:
        """Move on by *by*. Nothing is delivered by that: `LocalNas.advance` does both."""
        self.set(self.now + by)
