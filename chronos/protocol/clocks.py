"""What a process knows of its clock: NAS's answers carry NAS's time, and tell when it is not to be believed.

A difference is that of the local clock to NAS's, microseconds, and positive when the local one is ahead.
A steady clock is one that nobody sets, such as the time since the machine was switched on.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

from msgspec import Struct

from chronos.jobs.instants import DAY_US, HOUR_US, MINUTE_US, SECOND_US, Instant

# How far two clocks may differ. What NAS did not say has come is taken only when it is overdue by that
# much: an agent whose clock is ahead must not run a job early.
CLOCK_MARGIN_US = 60 * SECOND_US

# A clock that moves against the steady one by more was set; what drifts is corrected in smaller steps.
_JUMP_US = 10 * SECOND_US

# A change of the clock by as much is a correction, and what it has jumped over is not made up for.
_CORRECTION_US = 3 * HOUR_US

# How long an answer of NAS vouches for the clock. A machine may be stopped and resumed in that time, and
# neither of its clocks knows.
_VOUCHED_FOR_US = 2 * MINUTE_US

# What comes before is the time of a machine that has none: this program is not as old.
FIRST_DATE_US = 18_262 * DAY_US


class Belief(StrEnum):
    """Whether the local clock is believed.

    `CONFIRMED`: NAS's agrees with it. `UNKNOWN`: nothing is known, and it is believed. `DOUBTED`: NAS's
    time is another; NAS's word counts, and this clock's does not.
    """

    CONFIRMED = "confirmed"
    UNKNOWN = "unknown"
    DOUBTED = "doubted"


class Reading(Struct, frozen=True, kw_only=True):
    """One comparison of the local clock with NAS's.

    Attributes:
        least_us: the difference is at least that.
        most_us: and at most that.
        base_us: by how much the local clock was ahead of the steady one at that time.
        steady_us: when that was, by the steady clock.
    """

    least_us: int
    most_us: int
    base_us: int
    steady_us: int

    @property
    def is_doubted(self) -> bool:
        """Return whether the clocks differ by more than they may, however the answer travelled."""
        return self.least_us > CLOCK_MARGIN_US or self.most_us < -CLOCK_MARGIN_US

    def has_jumped(self, now_us: Instant, steady_us: int) -> bool:
        """Return whether the local clock was set since then."""
        return abs(now_us - steady_us - self.base_us) > _JUMP_US

    def belief(self, now_us: Instant, steady_us: int) -> Belief:
        """Return whether the local clock, which reads *now_us*, is believed."""
        if self.is_doubted:  # until NAS says otherwise, also when it was set since then
            return Belief.DOUBTED
        is_old = steady_us - self.steady_us > _VOUCHED_FOR_US
        return Belief.UNKNOWN if is_old or self.has_jumped(now_us, steady_us) else Belief.CONFIRMED

    def corrected(self, now_us: Instant, steady_us: int) -> Instant:
        """Return the present instant: NAS's while the local clock is doubted and was not set since then."""
        if not self.is_doubted or self.has_jumped(now_us, steady_us):
            return now_us
        return now_us - (self.least_us + self.most_us) // 2


class Change(StrEnum):
    """What became of a clock that was set: Debian's cron(8) tells these apart.

    `NONE`: it was not. `FORWARD`, `BACKWARD`: by less than three hours, as for summer time. `CORRECTION`:
    forward by more: the time before was wrong. One that is set back by more is `BACKWARD` as well: what
    follows is the same.
    """

    NONE = "none"
    FORWARD = "forward"
    BACKWARD = "backward"
    CORRECTION = "correction"


def change_of(jump_us: int) -> Change:
    """Return what it means that the local clock moved by so much against the steady one."""
    if abs(jump_us) <= _JUMP_US:
        return Change.NONE
    if jump_us < 0:
        return Change.BACKWARD
    return Change.FORWARD if jump_us < _CORRECTION_US else Change.CORRECTION


def said_of(difference_us: int) -> tuple[str, timedelta]:
    """Return a difference in words: its direction, and its size to the second."""
    size = timedelta(seconds=abs(difference_us) // SECOND_US)
    return "forward" if difference_us > 0 else "back", size


def clock_trouble(reading: Reading) -> str:
    """Say how far the local clock is from NAS's, and what follows."""
    direction, off = said_of((reading.least_us + reading.most_us) // 2)
    where = "ahead of" if direction == "forward" else "behind"
    return (
        f"this machine's clock is {off} {where} NAS's, and is not believed: jobs run when NAS says so, and "
        "nothing is taken for overdue; it is looked at again"
    )


def compared(
    sent_us: Instant, received_us: Instant, date_us: Instant | None, steady_us: int
) -> Reading | None:
    """Return what the date of an answer says of the local clock; None when it says nothing.

    The date is in whole seconds, of an instant between the request and the answer.

    Args:
        sent_us: when the request was sent, by the local clock.
        received_us: when the answer had come.
        date_us: the instant that it names; None for none.
        steady_us: the steady clock when it had come.

    Source: incident T3; RFC 9110, section 6.6.1.
    """
    if date_us is None or date_us < FIRST_DATE_US or received_us < sent_us:
        return None
    return Reading(
        least_us=sent_us - date_us - SECOND_US,
        most_us=received_us - date_us,
        base_us=received_us - steady_us,
        steady_us=steady_us,
    )
