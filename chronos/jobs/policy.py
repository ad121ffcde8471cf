"""The choices of a job's owner: what shall happen when something goes wrong, and within which bounds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

import attrs

from chronos.errors import ScheduleError
from chronos.jobs.instants import (
    DAY_US,
    HOUR_US,
    LONGEST_US,
    MINUTE_US,
    Instant,
    duration_of,
    format_instant,
    instant_of,
    moment_or_none,
    span,
    span_or_none,
)

# A run that is retried after an interruption starts at most this often in all: a job that kills
# its machine must not do so for ever.
MAX_ATTEMPTS = 3

# How many occurrences of a job may be in flight at once where they may overlap. A record is read and
# written with every claim: it must stay small, also when no run ever ends.
MAX_IN_FLIGHT = 10

# The most that a job may ask to be caught up after an outage. They wait in its record.
MAX_CATCH_UP = 100

# What failed a moment ago mostly fails again; a minute lets a restarted service come up.
_RETRY_DELAY_US, _RETRY_MAX_DELAY_US = MINUTE_US, HOUR_US

# Whoever retries after a year has forgotten what.
MAX_RETRY_DELAY_US = 366 * DAY_US

# A run that may last for longer than a year has no limit.
MAX_TIME_LIMIT_US = 366 * DAY_US

# How late an occurrence may still run, unless its job says otherwise: half of the time to the
# next one, within these bounds. A minute job must survive one slow delivery; a yearly one must
# not surprise its owner in the middle of another day.
MIN_GRACE_US = 2 * MINUTE_US
MAX_GRACE_US = 2 * HOUR_US


class CatchUp(StrEnum):
    """What becomes of occurrences that are found later than the misfire grace allows.

    `SKIP`: they are missed. `ONCE`: the newest of them runs, the older ones are missed. `ALL`: each
    of them runs, from the oldest on, as many as `Policy.catch_up_limit` allows: one after another,
    unless they may overlap.
    """

    SKIP = "skip"
    ONCE = "once"
    ALL = "all"


class Overlap(StrEnum):
    """What becomes of an occurrence that is due while an earlier one is in progress.

    An occurrence is in progress from its claim to its outcome, the time between two attempts
    included. `SKIP`: the new one is skipped. `QUEUE`: it waits, if nothing waits yet, and is skipped
    otherwise. `ALLOW`: it starts, up to `MAX_IN_FLIGHT` in all.
    """

    SKIP = "skip"
    QUEUE = "queue"
    ALLOW = "allow"


class OnInterrupt(StrEnum):
    """What becomes of a run whose process died: it is recorded, or started once more."""

    RECORD = "record"
    RETRY = "retry"


def at_least(smallest: int) -> Callable[[object, attrs.Attribute[Any], int], None]:
    """Return the validator of a field that is a whole number of at least *smallest*."""

    def check(_: object, field: attrs.Attribute[Any], value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
            raise ScheduleError(f"{field.name} is {value!r}; expected a whole number of at least {smallest}")

    return check


def _instant(_: object, field: attrs.Attribute[Any], value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ScheduleError(f"{field.name} is {value!r}; expected whole microseconds since the epoch")
    format_instant(value)  # an instant that no message can name is none


W = TypeVar("W", bound=StrEnum)


def _word(value: W | str, words: type[W]) -> W:
    """Return *value* as one of *words*."""
    try:
        return words(value)
    except ValueError:
        raise ScheduleError(f"{value!r} is no {words.__name__}; expected {', '.join(words)}") from None


def _catch_up(value: CatchUp | str) -> CatchUp:
    return _word(value, CatchUp)


def _overlap(value: Overlap | str) -> Overlap:
    return _word(value, Overlap)


def _on_interrupt(value: OnInterrupt | str) -> OnInterrupt:
    return _word(value, OnInterrupt)


@attrs.frozen(kw_only=True, init=False)
class Policy:
    """The choices of a job's owner.

    A duration is also given as a `timedelta`, by the name without `_us`, and an instant as an aware
    `datetime`: `Policy(retry_delay=timedelta(minutes=5), ends=datetime(2027, 1, 1, tzinfo=UTC))`.

    Attributes:
        misfire_grace_us: how late an occurrence may still run as if it were in time, microseconds;
            None means half of the time to the next occurrence, at least `MIN_GRACE_US` and at most
            `MAX_GRACE_US`.
        catch_up: what becomes of occurrences that are later than that.
        catch_up_limit: how many are caught up with `CatchUp.ALL`, the newest; 1 to `MAX_CATCH_UP`.
        overlap: what becomes of an occurrence that is due while an earlier one is in progress.
        on_interrupt: what becomes of a run whose process died; it starts `MAX_ATTEMPTS` times at most.
        attempts: how often an occurrence whose run fails is attempted in all; 1 means no retry.
        retry_delay_us: what the second attempt waits after the first, microseconds; each later one
            waits twice as long as the one before. Of each wait, a random half is left out at most,
            so that jobs that failed together do not come back together.
        retry_max_delay_us: no wait is longer, microseconds.
        time_limit_us: how long each attempt may run, microseconds; one that goes on is failed. None for
            no limit.
        starts_us: no occurrence before this instant; None for no such bound.
        ends_us: no occurrence after this instant; None for no such bound.

    Raises:
        ScheduleError: a number is out of its range, or the bounds leave no time.
    """

    misfire_grace_us: int | None = attrs.field(default=None, validator=attrs.validators.optional(at_least(0)))
    catch_up: CatchUp = attrs.field(default=CatchUp.SKIP, converter=_catch_up)
    catch_up_limit: int = attrs.field(default=10, validator=at_least(1))
    overlap: Overlap = attrs.field(default=Overlap.SKIP, converter=_overlap)
    on_interrupt: OnInterrupt = attrs.field(default=OnInterrupt.RECORD, converter=_on_interrupt)
    attempts: int = attrs.field(default=1, validator=at_least(1))
    retry_delay_us: int = attrs.field(default=_RETRY_DELAY_US, validator=at_least(1))
    retry_max_delay_us: int = attrs.field(default=_RETRY_MAX_DELAY_US, validator=at_least(1))
    time_limit_us: int | None = attrs.field(default=None, validator=attrs.validators.optional(at_least(1)))
    starts_us: Instant | None = attrs.field(default=None, validator=attrs.validators.optional(_instant))
    ends_us: Instant | None = attrs.field(default=None, validator=attrs.validators.optional(_instant))

    def __init__(
        self,
        *,
        misfire_grace: timedelta | None = None,
        misfire_grace_us: int | None = None,
        catch_up: CatchUp | str = CatchUp.SKIP,
        catch_up_limit: int = 10,
        overlap: Overlap | str = Overlap.SKIP,
        on_interrupt: OnInterrupt | str = OnInterrupt.RECORD,
        attempts: int = 1,
        retry_delay: timedelta | None = None,
        retry_delay_us: int | None = None,
        retry_max_delay: timedelta | None = None,
        retry_max_delay_us: int | None = None,
        time_limit: timedelta | None = None,
        time_limit_us: int | None = None,
        starts: datetime | None = None,
        starts_us: Instant | None = None,
        ends: datetime | None = None,
        ends_us: Instant | None = None,
    ) -> None:
        delay_us = duration_of("retry_delay", retry_delay, retry_delay_us, least_us=1)
        max_delay_us = duration_of("retry_max_delay", retry_max_delay, retry_max_delay_us, least_us=1)
        self.__attrs_init__(
            misfire_grace_us=duration_of("misfire_grace", misfire_grace, misfire_grace_us),
            catch_up=catch_up,
            catch_up_limit=catch_up_limit,
            overlap=overlap,
            on_interrupt=on_interrupt,
            attempts=attempts,
            retry_delay_us=_RETRY_DELAY_US if delay_us is None else delay_us,
            retry_max_delay_us=_RETRY_MAX_DELAY_US if max_delay_us is None else max_delay_us,
            time_limit_us=duration_of("time_limit", time_limit, time_limit_us, least_us=1),
            starts_us=instant_of("starts", starts, starts_us),
            ends_us=instant_of("ends", ends, ends_us),
        )

    misfire_grace = span_or_none()
    retry_delay = span()
    retry_max_delay = span()
    time_limit = span_or_none()
    starts = moment_or_none()
    ends = moment_or_none()

    def __attrs_post_init__(self) -> None:
        if self.misfire_grace_us is not None and self.misfire_grace_us > LONGEST_US:
            raise ScheduleError(f"misfire_grace_us is {self.misfire_grace_us}; expected at most {LONGEST_US}")
        if max(self.retry_delay_us, self.retry_max_delay_us) > MAX_RETRY_DELAY_US:
            raise ScheduleError(f"a retry waits longer than a year; expected at most {MAX_RETRY_DELAY_US} us")
        if self.time_limit_us is not None and self.time_limit_us > MAX_TIME_LIMIT_US:
            raise ScheduleError(f"time_limit_us is longer than a year; expected at most {MAX_TIME_LIMIT_US}")
        if self.catch_up_limit > MAX_CATCH_UP:
            raise ScheduleError(f"catch_up_limit is {self.catch_up_limit}; expected at most {MAX_CATCH_UP}")
        if self.starts_us is not None and self.ends_us is not None and self.ends_us < self.starts_us:
            between = f"{format_instant(self.starts_us)} to {format_instant(self.ends_us)}"
            raise ScheduleError(f"the job ends before it starts: {between}")
