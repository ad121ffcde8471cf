"""Instants and durations: the integers inside, their text, and `datetime` and `timedelta` for people.

A name that ends in `_us` is a whole number of microseconds: of a duration, or of an instant since
1970-01-01T00:00:00Z. The same name without that ending is for people: an argument of that name takes
an aware `datetime` or a `timedelta`, and an attribute of that name is one, in UTC. Of the two arguments
one is given. Nowhere but here is one made of the other; both have microseconds, so that nothing is lost.

Text has one canonical form (`format_instant`), because the dedup key of an arm is made of that text.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, Generic, TypeAlias, TypeVar

from chronos.errors import ScheduleError

Instant: TypeAlias = int
"""Epoch microseconds, UTC."""

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_WALL = datetime(1970, 1, 1)  # noqa: DTZ001 - without a zone it is written in half of the time
_MICROSECOND = timedelta(microseconds=1)

GivenInstant: TypeAlias = tuple[datetime | None, Instant | None]
"""What was given of an instant: for people, and in epoch microseconds."""

T = TypeVar("T")


def microseconds_of(moment: datetime) -> int:
    """Return an aware instant in epoch microseconds, exact; it may lie outside the years 1 to 9999 in UTC."""
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * SECOND_US + since.microseconds


FIRST_US = microseconds_of(datetime.min.replace(tzinfo=UTC))
LAST_US = microseconds_of(datetime.max.replace(tzinfo=UTC))
LONGEST_US = timedelta.max // _MICROSECOND


# --- What is given ----------------------------------------------------------------------------


def instant_of(name: str, moment: datetime | None, moment_us: Instant | None) -> Instant | None:
    """Return the instant that was given as one of two arguments, in epoch microseconds; None for neither.

    A wall clock that shows its time twice means the first, unless `fold` says the second; a time that
    it leaves out is counted in the offset before the change, as `datetime.timestamp` does.

    Args:
        name: of the argument for people; the other one has `_us` behind it.
        moment: an aware `datetime`.
        moment_us: whole epoch microseconds.

    Raises:
        ScheduleError: both are given, or one that is no such instant within the years 1 to 9999 in UTC.
    """
    if moment is None:
        if moment_us is not None and (type(moment_us) is not int or not FIRST_US <= moment_us <= LAST_US):
            hint = f"; {name} takes a datetime" if isinstance(moment_us, date) else ""
            expected = "expected whole epoch microseconds within the years 1 to 9999"
            raise ScheduleError(f"{name}_us is {moment_us!r}; {expected}{hint}")
        return moment_us
    if moment_us is not None:
        raise ScheduleError(f"{name} is {moment!r}, and {name}_us {moment_us!r}; expected one of them")
    if not isinstance(moment, datetime):
        hint = f"; {name}_us takes epoch microseconds" if type(moment) is int else ""
        raise ScheduleError(f"{name} is {moment!r}; expected an aware datetime{hint}")
    if moment.utcoffset() is None:
        raise ScheduleError(
            f"{name} is {moment}, which has no time zone; expected an aware datetime, such as"
            " datetime.now(UTC)"
        )
    instant_us = microseconds_of(moment)
    if not FIRST_US <= instant_us <= LAST_US:
        raise ScheduleError(f"{name} is {moment}; expected the years 1 to 9999 in UTC")
    return instant_us


def duration_of(
    name: str, span: timedelta | None, span_us: int | None, *, least_us: int = 0, grain_us: int = 1
) -> int | None:
    """Return the duration that was given as one of two arguments, in microseconds; None for neither.

    Args:
        name: of the argument for people; the other one has `_us` behind it.
        span: a `timedelta`.
        span_us: microseconds; whether they are in range is for the caller to check.
        least_us: the shortest *span*, microseconds.
        grain_us: of which *span* is a multiple, microseconds.

    Raises:
        ScheduleError: both are given; or *span* is no `timedelta`, too short, or no such multiple; or
            a `timedelta` was given as *span_us*.
    """
    if span is None:
        if isinstance(span_us, timedelta):
            raise ScheduleError(
                f"{name}_us is {span_us!r}; expected whole microseconds; {name} takes a timedelta"
            )
        return span_us
    if span_us is not None:
        raise ScheduleError(f"{name} is {span!r}, and {name}_us {span_us!r}; expected one of them")
    if not isinstance(span, timedelta):
        hint = f"; {name}_us takes microseconds" if type(span) is int else ""
        raise ScheduleError(f"{name} is {span!r}; expected a timedelta{hint}")
    if span < timedelta(microseconds=least_us) or span % timedelta(microseconds=grain_us):
        grain = "whole seconds" if grain_us == SECOND_US else "a timedelta"
        raise ScheduleError(
            f"{name} is {span!r}; expected {grain}, {timedelta(microseconds=least_us)} or more"
        )
    return span // _MICROSECOND


def needed(name: str, given_us: int | None) -> int:
    """Return what was given as one of two arguments; raise `ScheduleError` when neither was."""
    if given_us is None:
        raise ScheduleError(f"{name} is missing, and so is {name}_us; expected one of them")
    return given_us


# --- Text ------------------------------------------------------------------------------------


def parse_instant(text: str) -> Instant:
    """Read an ISO 8601 timestamp that carries its offset.

    Args:
        text: a timestamp with `Z` or an offset, e.g. `2026-06-26T12:00:00+00:00`.

    Returns:
        Epoch microseconds, UTC, exact; digits beyond the microsecond are dropped.

    Raises:
        ScheduleError: not a timestamp, without an offset, or outside the years 1 to 9999 in UTC.

    Source: contract, `fire_at`.
    """
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise ScheduleError(f"not an instant: {text!r}; expected ISO 8601 with an offset") from None
    if moment.tzinfo is None:
        raise ScheduleError(f"instant {text!r} has no offset; expected one, as in 2026-06-26T12:00:00+02:00")
    instant = microseconds_of(moment)
    if not FIRST_US <= instant <= LAST_US:
        raise ScheduleError(f"instant {text!r} is out of range; expected the years 1 to 9999 in UTC")
    return instant


def format_instant(instant_us: Instant) -> str:
    """Write an instant in its one canonical form.

    Args:
        instant_us: epoch microseconds, UTC.

    Returns:
        `2026-06-26T12:00:00+00:00`, with `.ffffff` after the seconds only when it is not zero.

    Raises:
        ScheduleError: not an integer, or outside the years 1 to 9999.

    Source: contract, `dedup_key`: the text is compared, so its spelling is part of the protocol.
    """
    if type(instant_us) is not int or not FIRST_US <= instant_us <= LAST_US:
        raise ScheduleError(
            f"not an instant: {instant_us!r}; expected whole epoch microseconds within the years 1 to 9999"
        )
    return (_EPOCH_WALL + timedelta(0, 0, instant_us)).isoformat() + "+00:00"


def whole_second(instant_us: Instant) -> Instant:
    """Return the first whole second at or after an instant; the last one of the calendar where none is.

    It is the grain of what is said on the wire: NAS may keep no more than seconds.

    Args:
        instant_us: epoch microseconds, UTC.

    Source: contract, `fire_at`; incident T1.
    """
    over_us = instant_us % SECOND_US
    return (
        instant_us if not over_us else min(instant_us - over_us + SECOND_US, LAST_US // SECOND_US * SECOND_US)
    )


# --- What is read -----------------------------------------------------------------------------


def datetime_of(instant_us: Instant) -> datetime:
    """Return an instant of the years 1 to 9999 as a `datetime` in UTC."""
    return _EPOCH + timedelta(microseconds=instant_us)


def timedelta_of(span_us: int) -> timedelta:
    """Return a duration as a `timedelta`."""
    return timedelta(microseconds=span_us)


class Shown(Generic[T]):
    """A read-only attribute that shows another one, which has the same name with `_us` behind it."""

    def __init__(self, show: Callable[[int], Any]) -> None:
        self._show = show

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"{name}_us"

    def __get__(self, instance: object, owner: type | None = None) -> T:
        if instance is None:
            return self  # type: ignore[return-value]
        value: int | None = getattr(instance, self._name)
        shown: T = None if value is None else self._show(value)  # type: ignore[assignment]
        return shown


def moment() -> Shown[datetime]:
    """Return an attribute that shows an instant as an aware `datetime` in UTC."""
    return Shown(datetime_of)


def moment_or_none() -> Shown[datetime | None]:
    """Return the same for an instant that may be None."""
    return Shown(datetime_of)


def span() -> Shown[timedelta]:
    """Return an attribute that shows a duration as a `timedelta`."""
    return Shown(timedelta_of)


def span_or_none() -> Shown[timedelta | None]:
    """Return the same for a duration that may be None."""
    return Shown(timedelta_of)
