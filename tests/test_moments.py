"""Datetimes and timedeltas: wherever a person gives or reads an instant or a duration."""

from __future__ import annotations

import inspect
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

import chronos
from chronos import (
    Interval,
    Lateness,
    Once,
    Outcome,
    Policy,
    ScheduleError,
    Verdict,
    events,
    parse_schedule,
)
from chronos.agent import runner, status
from chronos.jobs import job, policy
from chronos.jobs.instants import (
    FIRST_US,
    HOUR_US,
    LAST_US,
    SECOND_US,
    datetime_of,
    duration_of,
    format_instant,
    instant_of,
    timedelta_of,
)
from chronos.protocol import draft, flow, flow_effects, intents
from chronos.protocol.state import Pending, Started
from chronos.testing import portal
from tests.agents import T0, MakeWorld, at, every_hour, until

NOON = datetime(2026, 6, 26, 12, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


# --- The one place that converts ---


@given(st.integers(FIRST_US, LAST_US))
def test_an_instant_is_the_same_both_ways(instant_us: int) -> None:
    """To the microsecond, in all years from 1 to 9999, whatever zone shows it."""
    moment = datetime_of(instant_us)
    assert moment.tzinfo is UTC
    assert instant_of("at", moment, None) == instant_of("at", None, instant_us) == instant_us
    assert moment == datetime.fromisoformat(format_instant(instant_us))


@given(st.integers(-(2**63), 2**63))
def test_a_duration_is_the_same_both_ways(span_us: int) -> None:
    """To the microsecond, also where a `float` would round."""
    span = timedelta_of(span_us)
    if span_us >= 0:
        assert duration_of("span", span, None) == span_us
    assert span // timedelta(microseconds=1) == span_us


@given(st.datetimes(timezones=st.timezones(), allow_imaginary=True))
def test_a_wall_clock_that_changes_means_what_python_says(moment: datetime) -> None:
    """In a fold the first of two, unless `fold` says the second; in a gap, by the offset before."""
    offset = moment.utcoffset()
    assert offset is not None
    seconds = (moment.replace(tzinfo=None) - datetime(1970, 1, 1)) - offset  # noqa: DTZ001 - as said
    try:
        assert instant_of("at", moment, None) == seconds // timedelta(microseconds=1)
    except ScheduleError as error:
        assert "expected the years 1 to 9999 in UTC" in str(error)  # noqa: PT017 - only then


def test_the_hour_that_comes_twice_is_told_apart_by_fold() -> None:
    """On the 25th of October 2026, in Berlin."""
    first = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)
    second = first.replace(fold=1)
    assert Once(at=first).at == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert Once(at=second).at == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    assert Once(at=datetime(2026, 3, 29, 2, 30, tzinfo=BERLIN)).at == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)


NAIVE = datetime(2026, 6, 26, 12)  # noqa: DTZ001 - it is refused


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (NAIVE, r"at is 2026-06-26 12:00:00, which has no time zone; expected an aware datetime"),
        (date(2026, 6, 26), r"at is datetime.date\(2026, 6, 26\); expected an aware datetime"),
        (1.5e9, r"at is 1500000000.0; expected an aware datetime"),
        (T0, rf"at is {T0}; expected an aware datetime; at_us takes epoch microseconds"),
        ("2026-06-26T12:00:00Z", "at is '2026-06-26T12:00:00Z'; expected an aware datetime"),
        (True, "at is True; expected an aware datetime"),
        (timedelta(1), r"at is datetime.timedelta\(days=1\); expected an aware datetime"),
        (
            datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
            r"at is 0001-01-01 00:00:00\+01:00; expected the years 1 to 9999 in UTC",
        ),
    ],
)
def test_what_is_no_instant_is_one_clear_error(value: Any, says: str) -> None:
    """It names the argument, the value and the expectation."""
    with pytest.raises(ScheduleError, match=says):
        Once(at=value)


@pytest.mark.parametrize("value", [NOON, 1.0, "1", True, LAST_US + 1, FIRST_US - 1])
def test_what_is_no_number_of_microseconds_is_refused(value: Any) -> None:
    """Also a datetime: it has an argument of its own."""
    with pytest.raises(
        ScheduleError, match=r"at_us is .*; expected whole epoch microseconds within the years"
    ):
        Once(at_us=value)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (timedelta(seconds=-1), "expected whole seconds, 0:00:01 or more"),
        (timedelta(), "expected whole seconds, 0:00:01 or more"),
        (timedelta(milliseconds=500), "expected whole seconds, 0:00:01 or more"),
        (timedelta(seconds=1.5), "expected whole seconds, 0:00:01 or more"),
        (3600, "period is 3600; expected a timedelta; period_us takes microseconds"),
        (3600.0, "period is 3600.0; expected a timedelta"),
        ("1h", "period is '1h'; expected a timedelta"),
        (NOON, "expected a timedelta"),
    ],
)
def test_what_is_no_period_is_one_clear_error(value: Any, says: str) -> None:
    """Nothing finer than a second can be armed."""
    with pytest.raises(ScheduleError, match=says):
        Interval(period=value, anchor=NOON)


def test_one_of_two_arguments_is_given() -> None:
    """Neither and both are mistakes, and say so."""
    with pytest.raises(ScheduleError, match="at is missing, and so is at_us"):
        Once()
    with pytest.raises(ScheduleError, match=r"at is .* and at_us .*; expected one of them"):
        Once(at=NOON, at_us=T0)
    with pytest.raises(ScheduleError, match=r"period is .* and period_us .*; expected one of them"):
        Interval(period=timedelta(1), period_us=1, anchor=NOON)
    with pytest.raises(ScheduleError, match=r"period_us is .*; period takes a timedelta"):
        Interval(period_us=timedelta(1), anchor=NOON)  # type: ignore[arg-type]
    with pytest.raises(ScheduleError, match="now is missing"):
        parse_schedule("30m")


# --- Values ---


def test_a_value_is_the_same_whichever_way_it_is_made() -> None:
    """Equal, with one hash, and it shows both."""
    hourly = Interval(period=timedelta(hours=1), anchor=NOON.astimezone(BERLIN))
    assert hourly == Interval(period_us=HOUR_US, anchor_us=T0)
    assert hash(hourly) == hash(Interval(period_us=HOUR_US, anchor_us=T0))
    assert (hourly.period, hourly.anchor) == (timedelta(hours=1), NOON)
    assert Once(at=NOON) == Once(at_us=T0)
    assert parse_schedule("30m", now=NOON) == parse_schedule("30m", now_us=T0)


def test_a_policy_is_made_of_durations_and_instants() -> None:
    """Each under its plain name; what is not given has its default."""
    policy = Policy(
        misfire_grace=timedelta(minutes=5),
        retry_delay=timedelta(seconds=10),
        retry_max_delay=timedelta(hours=2),
        starts=NOON,
        ends=NOON + timedelta(days=1, microseconds=1),
    )
    assert policy == Policy(
        misfire_grace_us=300 * SECOND_US,
        retry_delay_us=10 * SECOND_US,
        retry_max_delay_us=2 * HOUR_US,
        starts_us=T0,
        ends_us=T0 + 24 * HOUR_US + 1,
    )
    assert policy.ends == NOON + timedelta(days=1, microseconds=1)
    assert (Policy().misfire_grace, Policy().retry_delay, Policy().ends) == (None, timedelta(minutes=1), None)
    assert attrs.evolve(policy, attempts=2).misfire_grace == timedelta(minutes=5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"misfire_grace": timedelta(-1)}, "misfire_grace is .*; expected a timedelta, 0:00:00 or more"),
        ({"misfire_grace": 300}, "misfire_grace is 300; expected a timedelta; misfire_grace_us takes micro"),
        ({"misfire_grace_us": 10**30}, "misfire_grace_us is 1000.*; expected at most"),
        ({"retry_delay": timedelta()}, "retry_delay is .*; expected a timedelta, 0:00:00.000001 or more"),
        ({"retry_max_delay": "1h"}, "retry_max_delay is '1h'; expected a timedelta"),
        ({"retry_delay": timedelta(days=400)}, "a retry waits longer than a year"),
        ({"starts": NAIVE}, "starts is 2026-06-26 12:00:00, which has no time zone"),
        ({"ends": date(2026, 6, 26)}, "ends is .*; expected an aware datetime"),
        ({"starts": NOON, "ends": NOON - timedelta(1)}, "the job ends before it starts"),
    ],
)
def test_a_choice_that_cannot_be_meant_is_one_clear_error(options: dict[str, Any], says: str) -> None:
    """When the policy is made, and not when it is used."""
    with pytest.raises(ScheduleError, match=says):
        Policy(**options)


def values_for_people() -> list[type]:
    """Return every value that people read, by where it stands."""
    modules = (draft, events, flow, flow_effects, intents, job, policy, portal, runner, status)
    found = {Pending, Started} | {
        value for module in modules for value in vars(module).values() if inspect.isclass(value)
    }
    return sorted(
        (each for each in found if issubclass(each, Struct) or attrs.has(each)),
        key=lambda each: each.__name__,
    )


# What is a value of the protocol alone, and told to nobody.
INSIDE = {"Flow", "Now", "Held", "OneShot", "ProvisionArm", "StartRun", "Stretch"} | {
    "ArmAccepted",
    "ArmFailed",
    "ArmOutdated",
    "ArmsListed",
}


@pytest.mark.parametrize("cls", values_for_people(), ids=lambda cls: cls.__name__)
def test_every_instant_and_duration_is_shown_to_people(cls: type) -> None:
    """A field in microseconds has a sibling without its unit, which is aware, or a timedelta."""
    if cls.__name__ in INSIDE:
        return
    names = cls.__struct_fields__ if issubclass(cls, Struct) else [each.name for each in attrs.fields(cls)]
    fields = {name for name in names if name.endswith("_us")}
    assert all(hasattr(cls, name.removesuffix("_us")) for name in fields), fields


def test_what_is_read_of_an_outcome_is_aware() -> None:
    """And its lateness is made of timedeltas."""
    outcome = Outcome(
        job_id="j",
        result=chronos.Result.COMPLETED,
        reason="",
        occurrence_us=T0,
        last_occurrence_us=T0,
        attempt=1,
        at_us=T0 + 9,
        claimed_us=T0 + 2_500_000,
        received_us=T0 + 1_000_001,
    )
    assert (outcome.occurrence, outcome.claimed) == (NOON, NOON + timedelta(seconds=2.5))
    assert (outcome.at - NOON, outcome.minted) == (timedelta(microseconds=9), None)
    late = chronos.lateness(outcome)
    assert late == Lateness(total_us=2_500_000, claim_us=1_499_999)
    assert late is not None
    assert (late.total, late.relay, late.claim) == (timedelta(seconds=2.5), None, timedelta_of(1_499_999))
    with pytest.raises(AttributeError):
        outcome.at = NOON  # type: ignore[misc]


# --- What a scheduler is asked ---


def test_a_period_and_an_instant_are_schedules(make_world: MakeWorld) -> None:
    """A timedelta is an interval from now on, an aware datetime a one-shot."""
    world = make_world()
    assert world.agent.create("again", timedelta(hours=1)).settled
    assert world.agent.create("once", NOON + timedelta(hours=2)).settled
    assert world.nas.arms == {"again": at(HOUR_US), "once": at(2 * HOUR_US)}
    assert world.agent.edit("again", schedule=(NOON + timedelta(hours=3)).astimezone(BERLIN)).settled
    assert world.nas.arms["again"] == at(3 * HOUR_US)
    again = world.agent.ask("get", "again")
    assert again.next == NOON + timedelta(hours=3)


def test_an_unchanged_period_is_saved_again_and_keeps_its_phase(make_world: MakeWorld) -> None:
    """As its text does: nothing that is due is skipped."""
    world = make_world(every_hour())
    world.now_us = T0 + 5 * SECOND_US
    assert world.agent.edit("j", schedule=timedelta(minutes=60)).reason == "already so"
    assert world.agent.ask("get", "j").next == NOON


@pytest.mark.parametrize(
    "value", [NAIVE, date(2026, 6, 27), 3600, 60.0, timedelta(-1), timedelta(microseconds=1)]
)
def test_what_is_no_schedule_is_refused_before_anything_is_saved(make_world: MakeWorld, value: Any) -> None:
    """The message names the argument and the value."""
    world = make_world(every_hour("k"))
    with pytest.raises(ScheduleError, match=r"schedule is .*; |schedule is .* no time zone"):
        world.agent.create("j", value)
    with pytest.raises(ScheduleError, match=r"schedule is .*"):
        world.agent.edit("k", schedule=value)
    assert (world.store.load_all(), world.nas.asked) == ((every_hour("k"),), [])


def test_a_fire_and_a_run_by_hand_take_datetimes(make_world: MakeWorld) -> None:
    """And what the runner, the status and the history show are datetimes again."""
    world = make_world(every_hour())
    answer = world.agent.fire("j", fire_at=NOON, minted=NOON, received=NOON + timedelta(milliseconds=3))
    assert answer.verdict is Verdict.ACCEPTED
    assert answer.retry_after == timedelta()
    world.release.set()
    until(lambda: not world.agent.is_busy())
    assert world.agent.run_now("j", asked=NOON).verdict is Verdict.ACCEPTED
    until(lambda: not world.agent.is_busy())
    assert world.agent.run_now("j", asked=NOON).verdict is Verdict.DUPLICATE
    assert [context.occurrence for context in world.ran] == [NOON, NOON]
    status = world.agent.status().jobs[0]
    assert (status.wake, status.job.next) == (NOON + timedelta(hours=1),) * 2
    outcome = world.agent.ask("history", "j")[0]
    assert (outcome.occurrence, outcome.minted, outcome.received - NOON) == (
        NOON,
        NOON,
        timedelta(milliseconds=3),
    )
    with pytest.raises(ScheduleError, match="asked is 2026-06-26 12:00:00, which has no time zone"):
        world.agent.run_now("j", asked=NAIVE)
    with pytest.raises(ScheduleError, match="fire_at is missing"):
        world.agent.fire("j")
