"""The real clock, read in one place; everything that reads it takes another one instead."""

from __future__ import annotations

import time

from chronos.protocol.schedule import Instant


def now_us() -> Instant:
    """Return the present instant, epoch microseconds, UTC."""
    return time.time_ns() // 1000
