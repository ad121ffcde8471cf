"""The real clock, read in one place; everything that reads it takes another one instead."""

from __future__ import annotations

import time

from chronos.jobs.instants import Instant

# Where it is to be had, a clock that goes on while the machine sleeps: a sleep is no change of the time.
_STEADY = getattr(time, "CLOCK_BOOTTIME", None)


def steady_us() -> int:
    """Return microseconds since some instant, by a clock that nobody sets."""
    return (time.monotonic_ns() if _STEADY is None else time.clock_gettime_ns(_STEADY)) // 1000


def now_us() -> Instant:
    """Return the present instant, epoch microseconds, UTC."""
    return time.time_ns() // 1000
