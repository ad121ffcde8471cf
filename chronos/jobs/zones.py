"""The time zones of schedules: UTC, fixed offsets such as `+05:30`, and IANA names."""

from __future__ import annotations

import re
from datetime import UTC, timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from chronos.errors import ScheduleError

_OFFSET = re.compile(r"([+-])([01][0-9]|2[0-3]):([0-5][0-9])")


@lru_cache(maxsize=1024)  # there are some 600 names of zones; the rest are fixed offsets
def _zone(text: str) -> tzinfo:
    if text == "UTC":
        return UTC
    if match := _OFFSET.fullmatch(text):
        sign, hours, minutes = match.groups()
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        return timezone(-offset if sign == "-" else offset)
    try:
        # Names that depend on the machine or count leap seconds would make slots differ between machines.
        if text == "localtime" or text.startswith("right/"):
            raise ValueError(text)
        return ZoneInfo(text)
    except (LookupError, ValueError, OSError, ImportError):  # no such name, a bad path, a folder, no data
        raise ScheduleError(
            f"unknown time zone {text!r}; expected UTC, an offset such as +05:30, or an IANA name"
            " such as Europe/Berlin"
        ) from None


def zone_of(text: str) -> tzinfo:
    """Return the time zone that a schedule's `tz` names.

    Args:
        text: `UTC`, a fixed offset such as `+05:30` or `-07:00`, or an IANA name.

    Returns:
        The zone; the same object for the same text.

    Raises:
        ScheduleError: no such zone.
    """
    if not isinstance(text, str):
        raise ScheduleError(f"tz is {text!r}; expected text such as UTC or Europe/Berlin")
    return _zone(text)
