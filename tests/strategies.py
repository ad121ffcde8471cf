"""Arbitrary jobs and outcomes, made from the fields of their classes: a field that is new is covered.

What a field takes is told by its type, and by the end of its name where it has a unit. Values that a
class refuses are not drawn. `EXPLICIT` is for what types do not say.
"""

from __future__ import annotations

import enum
import types
import typing
from functools import cache
from typing import Any, Union, get_args, get_origin

import attrs
from hypothesis import reject
from hypothesis import strategies as st
from msgspec import NODEFAULT, Struct, structs

from chronos.jobs.data import json_of
from chronos.jobs.instants import DAY_US, MINUTE_US, parse_instant
from chronos.jobs.job import Job, JobState, Outcome
from chronos.jobs.policy import MAX_CATCH_UP, MAX_RETRY_DELAY_US, MAX_TIME_LIMIT_US, Policy
from chronos.jobs.schedule import Cron, Interval, next_after
from chronos.stores.reader import MAX_DURATION_US
from chronos.stores.rewrite import LONGEST_REASON
from chronos.values import evolve

FIRST_US = parse_instant("0001-01-01T00:00:00+00:00")
LAST_US = parse_instant("9999-12-31T23:59:59.999999+00:00")
NOON_US = parse_instant("2026-06-25T12:00:00+00:00")

# Around now, where schedules have slots; the ends of time; and the middle of nowhere.
instants = (
    st.integers(NOON_US - 400 * DAY_US, NOON_US + 400 * DAY_US)
    | st.integers(NOON_US // MINUTE_US, NOON_US // MINUTE_US + 9_000).map(lambda minute: minute * MINUTE_US)
    | st.sampled_from([FIRST_US, 0, 1, LAST_US])
    | st.integers(FIRST_US, LAST_US)
)

durations = (
    st.integers(0, 9_000).map(lambda minutes: minutes * MINUTE_US)
    | st.integers(0, MAX_DURATION_US)
    | st.integers(0, 1 << 60)
)

# Up to what SQL calls BIGINT, and what is no whole number for a program that reads JSON with floats.
numbers = st.integers(0, 9) | st.sampled_from([(1 << 53) + 1, (1 << 63) - 1])


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Draw any text that JSON can hold: NUL and half surrogates too, but no two that make a whole."""
    awkward = st.sampled_from(
        ["\x00", "\ud800", "\udfff", "\\", "'", '"', "\n", " ", "%", "ö", "😀", "\\u0000"]
    )
    text = draw(st.text(max_size=8) | st.lists(awkward | st.characters(), max_size=8).map("".join))
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


crons = st.builds(
    Cron,
    expr=st.sampled_from(["0 5 * * *", "*/7 * * * *", "30 2 * * *", "0 0 1 1 *", "*/20 * * * * *", "@daily"]),
    tz=st.sampled_from(["UTC", "+05:30", "-07:00", "Europe/Berlin", "America/New_York"]),
)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(1 << 63), 0.1, -0.0, 1e308, 5e-324, "", "\x00", "😀", "ö"])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=8), inside, max_size=3),
    max_leaves=8,
)

data_texts = json_values.map(json_of)

# What to draw for a class, and for a field of a class, where the type does not tell.
EXPLICIT: dict[object, st.SearchStrategy[Any]] = {
    Cron: crons,
    (Interval, "period_us"): durations,
    (Job, "id"): texts().filter(bool),
    (Job, "data_json"): data_texts,
    (Policy, "catch_up_limit"): st.integers(1, MAX_CATCH_UP),
    (Policy, "attempts"): st.integers(1, 9) | st.just((1 << 63) - 1),
    (Policy, "retry_delay_us"): st.integers(1, MAX_RETRY_DELAY_US),
    (Policy, "retry_max_delay_us"): st.integers(1, MAX_RETRY_DELAY_US),
    (Policy, "time_limit_us"): st.none() | st.integers(1, MAX_TIME_LIMIT_US),
}

_PLAIN: dict[object, st.SearchStrategy[Any]] = {
    int: numbers,
    str: texts(),
    bool: st.booleans(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    type(None): st.none(),
}


@cache
def values(kind: Any) -> st.SearchStrategy[Any]:
    """Return what draws values of a type: a class, a choice, an enumeration, a plain type."""
    if kind in EXPLICIT:
        return EXPLICIT[kind]
    if kind in _PLAIN:
        return _PLAIN[kind]
    if attrs.has(kind) or (isinstance(kind, type) and issubclass(kind, Struct)):
        return _instances(kind)
    if get_origin(kind) in (Union, types.UnionType):
        return st.one_of(*map(values, get_args(kind)))
    if get_origin(kind) is tuple and get_args(kind)[1:] == (...,):
        return st.lists(values(get_args(kind)[0]), max_size=3).map(tuple)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return st.sampled_from(kind)
    return st.from_type(kind)


def _instances(kind: type) -> st.SearchStrategy[Any]:
    """Return what draws instances of a class; about half of what has a default is left at it."""
    hints = typing.get_type_hints(kind)
    if issubclass(kind, Struct):
        defaults = {each.name: each.default for each in structs.fields(kind)}
    else:
        defaults = {each.name: each.default for each in attrs.fields(kind) if each.init}
    drawn = {name: _field(kind, name, default, hints[name]) for name, default in defaults.items()}

    def made(fields: dict[str, Any]) -> Any:
        try:
            return kind(**fields)
        except ValueError:  # the class refuses it; whether rightly is not asked here
            reject()

    return st.fixed_dictionaries(drawn).map(made)


def _field(kind: type, name: str, default: Any, hint: Any) -> st.SearchStrategy[Any]:
    explicit = EXPLICIT.get((kind, name))
    if explicit is None and name.endswith("_us") and int in (hint, *get_args(hint)):
        is_duration = any(word in name for word in ("period", "grace", "timeout", "delay", "for_"))
        explicit = durations if is_duration else instants
        if type(None) in get_args(hint):
            explicit = st.none() | explicit
        if get_origin(hint) is tuple:
            explicit = st.lists(explicit, max_size=3, unique=True).map(sorted).map(tuple)
    drawn = values(hint) if explicit is None else explicit
    if default in (attrs.NOTHING, NODEFAULT) or isinstance(default, attrs.Factory):
        return drawn
    return st.just(default) | drawn


def _on_slot(job: Job) -> Job:
    """Return *job* with its next occurrence on a slot of its schedule, where such a job usually has it."""
    if job.next_us is None:
        return job
    return evolve(job, next_us=next_after(job.schedule, job.next_us))


def jobs() -> st.SearchStrategy[Job]:
    """Return what draws jobs of any shape, also of those that no transition leaves behind."""
    near = values(Job).filter(lambda job: job.next_us is None or abs(job.next_us - NOON_US) < 1_000 * DAY_US)
    return values(Job) | near.map(_on_slot)


def outcomes(job_id: str) -> st.SearchStrategy[Outcome]:
    """Return what draws outcomes of a job."""
    return values(Outcome).map(lambda outcome: evolve(outcome, job_id=job_id))


# --- what a jobs file cannot say --------------------------------------------------------------


def fits_json_file(value: Job | Outcome) -> bool:
    """Return whether a record of the jobs file can say all of *value*. A store refuses what does not fit."""
    if isinstance(value, Outcome):
        return len(value.reason) <= LONGEST_REASON and value.count >= 1
    return _has_words(value) and _has_small_numbers(value) and _says_when_it_is_next(value)


def _has_words(job: Job) -> bool:
    return bool(job.id.strip())


def _has_small_numbers(job: Job) -> bool:
    """Return whether durations are below what comes back exactly, and counts are of something."""
    period_us = job.schedule.period_us if isinstance(job.schedule, Interval) else 0
    grace_us = job.policy.misfire_grace_us or 0
    is_counted = job.times is None or job.times >= 1
    return (
        max(period_us, grace_us) <= MAX_DURATION_US
        and is_counted
        and all(each.attempt >= 1 for each in (*job.runs, *job.waiting))
    )


def _says_when_it_is_next(job: Job) -> bool:
    """Return whether `next_run_at` says the same: null may stand for what can be worked out."""
    if job.next_us is None:
        is_spent = job.times is not None and job.completed >= job.times
        return job.state is JobState.COMPLETED or bool(job.runs or job.waiting) or is_spent
    is_on_slot = (
        not isinstance(job.schedule, Interval)
        or (job.next_us - job.schedule.anchor_us) % job.schedule.period_us == 0
    )
    return job.state is not JobState.COMPLETED and is_on_slot
