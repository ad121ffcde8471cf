"""Whole seconds: what is armed, how arms are compared, and what new schedules begin with."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
from hypothesis import given

from chronos.contract.messages import FireRequest
from chronos.contract.wire import decode
from chronos.errors import NasRefused, ScheduleError
from chronos.jobs.due import wake_at
from chronos.jobs.instants import HOUR_US, MINUTE_US, SECOND_US, format_instant, parse_instant
from chronos.jobs.job import Job, Verdict
from chronos.jobs.policy import Policy
from chronos.jobs.schedule import Interval, Once, Schedule, next_after, parse_schedule
from chronos.protocol import job_changes, transitions
from chronos.protocol.job_changes import Changes
from tests.agents import T0, MakeWorld, Nas, World, at
from tests.nas_clients import KINDS, Client
from tests.strategies import jobs

MILLI_US = 1_000
# A clock is between two seconds nearly always.
NOW_US = T0 + 300 * MILLI_US + 7
FRACTION_US = 123_457


def cut(text: str) -> str:
    """Return the text of an instant without its fraction."""
    return format_instant(parse_instant(text) // SECOND_US * SECOND_US)


def moved(text: str) -> str:
    """Return the text of the same instant with another offset."""
    return datetime.fromisoformat(text).astimezone(timezone(timedelta(hours=2))).isoformat()


SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it was sent": lambda text: text,
    "whole seconds": cut,
    "whole seconds and Z": lambda text: cut(text).replace("+00:00", "Z"),
    "milliseconds": lambda text: cut(text).replace("+00:00", ".000+00:00"),
    "nanoseconds and Z": lambda text: cut(text).replace("+00:00", ".000000000Z"),
    "an offset of its own": lambda text: moved(cut(text)),
}
spellings = pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)


class SpellingNas(Nas):
    """A NAS that keeps instants in its own way."""

    def __init__(self, spell: Callable[[str], str]) -> None:
        super().__init__()
        self.spell = spell
        self.sent: list[str] = []

    def _change(self, verb: str, body: dict[str, Any]) -> httpx.Response:
        if verb == "provision":
            self.sent.append(body["fire_at"])
            body = body | {"fire_at": self.spell(body["fire_at"])}
        return super()._change(verb, body)


def stored(job_id: str, first_us: int, period_us: int) -> Job:
    """Return a job as an earlier version may have stored it."""
    return Job(id=job_id, schedule=Interval(period_us=period_us, anchor_us=first_us), next_us=first_us)


def deliver_until(world: World, last_us: int) -> list[Verdict | None]:
    """Fire what NAS has armed, in order, as NAS spells it, and return the answers."""
    answers: list[Verdict | None] = []
    while world.nas.arms:
        text, job_id = min((text, job_id) for job_id, text in world.nas.arms.items())
        fire = decode(FireRequest, {"job_id": job_id, "fire_at": text})
        fire_at_us = parse_instant(fire.fire_at)
        if fire_at_us > last_us:
            break
        world.now_us = max(world.now_us, fire_at_us + 40 * MILLI_US)
        answer = world.agent.fire(fire.job_id, fire_at_us)
        world.quiet()
        answers.append(answer.verdict)
        assert answer.verdict is Verdict.ACCEPTED, f"after {len(world.ran)} runs: {answer.verdict}"
        assert answer.settled
        if world.nas.arms.get(job_id) == text:
            del world.nas.arms[job_id]
    return answers


# --- what is armed ------------------------------------------------------------------------------


@spellings
def test_nas_of_whole_seconds_gets_each_slot_run_once(
    make_world: MakeWorld, spell: Callable[[str], str]
) -> None:
    """However NAS keeps an instant, each slot of each job runs once, and no fire is in vain (incident T1)."""
    nas = SpellingNas(spell)
    first_us = T0 + 7 * SECOND_US + FRACTION_US
    world = make_world(stored("record", first_us, 7 * SECOND_US), nas=nas)
    world.release.set()
    world.now_us = NOW_US
    for job_id, schedule in (("every", "every 2s"), ("once", "+5s"), ("cron", "*/3 * * * * *")):
        assert world.agent.create(job_id, schedule).settled
    assert world.agent.start().settled
    last_us = T0 + 40 * SECOND_US
    answers = deliver_until(world, last_us)
    ran = {
        job_id: [context.occurrence_us for context in world.ran if context.job_id == job_id]
        for job_id in ("every", "once", "cron", "record")
    }
    assert ran["every"] == [T0 + 2 * SECOND_US * number for number in range(1, 21)]
    assert ran["once"] == [T0 + 6 * SECOND_US]
    assert ran["cron"] == [T0 + 3 * SECOND_US * number for number in range(1, 14)]
    assert ran["record"] == [first_us + 7 * SECOND_US * number for number in range(5)]
    assert len(answers) == sum(map(len, ran.values()))
    assert all("." not in text for text in nas.sent)


@given(jobs())
def test_wake_is_a_whole_second_and_settles_the_occurrence(job: Job) -> None:
    """A fire that names it takes the occurrence for which it was armed."""
    wake_us = wake_at(job)
    if wake_us is None:
        return
    assert wake_us % SECOND_US == 0
    format_instant(wake_us)
    move = transitions.fire(job, fire_at_us=wake_us, now_us=wake_us, owner="me")
    assert move.job is not None
    last_us = parse_instant("9999-12-31T23:59:59+00:00")
    assert move.job.next_us is None or move.job.next_us > min(wake_us, last_us)


def test_slots_within_one_second_take_one_fire(make_world: MakeWorld) -> None:
    """An interval of less than a second, as a record may have, wakes once a second and loses no slot."""
    nas = SpellingNas(cut)
    world = make_world(stored("record", T0 + FRACTION_US, 400 * MILLI_US), nas=nas)
    world.release.set()
    world.now_us = T0
    world.agent.start()
    answers = deliver_until(world, T0 + 10 * SECOND_US)
    assert len(answers) == 10
    history = world.store.history("record")
    ended = sum(outcome.count for outcome in history)
    assert ended == 25  # of 123 ms, 523 ms, ... those up to 10 s
    assert [outcome.occurrence_us for outcome in history] == sorted(
        outcome.occurrence_us for outcome in history
    )


def test_fire_that_an_earlier_version_armed_arms_the_whole_second(make_world: MakeWorld) -> None:
    """A NAS that cut its fraction off names an instant before the slot; the answer mends the arm."""
    world = make_world(stored("record", T0 + FRACTION_US, HOUR_US))
    world.release.set()
    world.now_us = T0 + 40 * MILLI_US
    assert world.agent.fire("record", T0).verdict is Verdict.DUPLICATE
    assert world.nas.arms == {"record": at(SECOND_US)}
    assert deliver_until(world, T0 + SECOND_US) == [Verdict.ACCEPTED]
    assert [context.occurrence_us for context in world.ran] == [T0 + FRACTION_US]


@pytest.mark.parametrize("kind", KINDS)
def test_provision_with_a_fraction_is_not_sent(kind: str) -> None:
    """NAS would cut it off, or refuse it."""
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"schedule_id": "s"})

    with Client(kind, answer) as client, pytest.raises(NasRefused, match="whole seconds"):
        client.provision("j", T0 + 1, revision=1)
    assert asked == []


# --- how arms are compared ----------------------------------------------------------------------


@spellings
@pytest.mark.parametrize("first_us", [T0 + HOUR_US, T0 + HOUR_US + FRACTION_US], ids=["second", "fraction"])
def test_another_spelling_of_an_arm_is_no_difference(
    make_world: MakeWorld, spell: Callable[[str], str], first_us: int
) -> None:
    """A start leaves it alone, and the status says that the job is armed."""
    world = make_world(stored("record", first_us, HOUR_US), nas=SpellingNas(spell))
    world.agent.start()
    assert world.nas.asked == ["list", "provision record"]
    assert world.agent.start().flows == 0
    assert world.nas.asked == ["list", "provision record", "list"]
    (status,) = world.agent.status().jobs
    assert (status.is_armed, status.why) == (True, "armed")


# --- what new schedules begin with --------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_as", "first_us"),
    [
        ("every 5s", T0 + 5 * SECOND_US),
        ("1h30m", T0 + 90 * MINUTE_US),
        ("in 30m", T0 + 30 * MINUTE_US + SECOND_US),
        ("+90s", T0 + 91 * SECOND_US),
        ("2026-06-26T12:00:05.25Z", T0 + 6 * SECOND_US),
        (Once(at_us=NOW_US + 1), T0 + SECOND_US),
        (Interval(period_us=5 * SECOND_US, anchor_us=NOW_US), T0 + 5 * SECOND_US),
        (Interval(period_us=5 * SECOND_US, anchor_us=NOW_US - 2 * SECOND_US), T0 + 3 * SECOND_US),
    ],
)
def test_new_schedule_begins_on_a_whole_second(given_as: Schedule | str, first_us: int) -> None:
    """An instant is rounded up, so that it is not early; an interval counts from its anchor's second."""
    schedule = parse_schedule(given_as, now_us=NOW_US) if isinstance(given_as, str) else given_as
    assert job_changes.new_job("j", schedule, now_us=NOW_US).next_us == first_us
    other = Job(id="j", schedule=Once(at_us=T0 + HOUR_US), next_us=T0 + HOUR_US)
    edited = job_changes.edit(other, changes=Changes(schedule=schedule), now_us=NOW_US).job
    assert edited is not None
    assert edited.next_us == first_us
    if isinstance(given_as, str):
        assert next_after(schedule, NOW_US) == first_us


def test_interval_counted_from_now_begins_on_a_whole_second() -> None:
    """A resumed interval as well, whatever the clock shows."""
    paused = job_changes.pause(stored("j", T0 + FRACTION_US, HOUR_US), note="", now_us=T0).job
    resumed = job_changes.resume(paused, from_now=True, now_us=NOW_US).job
    assert resumed is not None
    assert resumed.next_us == T0 + HOUR_US


@pytest.mark.parametrize("period_us", [1, SECOND_US // 2, 1_500 * MILLI_US])
def test_new_interval_of_parts_of_a_second_is_refused(make_world: MakeWorld, period_us: int) -> None:
    """Nothing finer can be armed; the error says what was given and what was expected."""
    world = make_world(stored("j", T0 + HOUR_US, HOUR_US))
    given_as = Interval(period_us=period_us, anchor_us=T0)
    with pytest.raises(ScheduleError, match=rf"period_us is {period_us}, .* expected whole seconds"):
        world.agent.create("k", given_as)
    with pytest.raises(ScheduleError, match="expected whole seconds"):
        world.agent.edit("j", schedule=given_as)
    assert world.store.load_all() == (stored("j", T0 + HOUR_US, HOUR_US),)


# --- an unchanged schedule saved again ----------------------------------------------------------

SAVED_AGAIN: list[Schedule | str] = [
    "every 1h",
    "60m",
    " Every 3600s ",
    Interval(period_us=HOUR_US, anchor_us=T0),
    Interval(period_us=HOUR_US, anchor_us=T0 - 24 * HOUR_US),
]


@pytest.mark.parametrize("saved", SAVED_AGAIN, ids=str)
@pytest.mark.parametrize(
    "more", [{}, {"times": 9}, {"policy": Policy(attempts=2)}], ids=["alone", "times", "policy"]
)
def test_unchanged_schedule_saved_again_keeps_what_is_due(
    make_world: MakeWorld, saved: Schedule | str, more: dict[str, Any]
) -> None:
    """The occurrence that is due still runs, and the next one keeps its time (incident S8)."""
    job = stored("j", T0, HOUR_US)
    world = make_world(job)
    world.release.set()
    world.now_us = T0 + 20 * SECOND_US
    assert world.agent.edit("j", schedule=saved, **more).verdict is Verdict.CHANGED
    assert (world.job().schedule, world.job().next_us) == (job.schedule, T0)
    assert world.outcomes() == []
    if not more:
        assert world.job() == job
    assert world.agent.fire("j", T0).verdict is Verdict.ACCEPTED
    assert world.job().next_us == T0 + HOUR_US


@pytest.mark.parametrize("text", ["every 24h", "1d"])
def test_job_that_is_saved_as_often_as_it_runs_still_runs(make_world: MakeWorld, text: str) -> None:
    """Somebody who saves all jobs every day does not put off a daily one for ever (incident S8)."""
    world = make_world()
    world.release.set()
    world.now_us = T0
    world.agent.create("j", text)
    for day in range(1, 6):
        world.now_us = T0 + day * 24 * HOUR_US - MINUTE_US
        assert world.agent.edit("j", schedule=text).settled
        deliver_until(world, T0 + day * 24 * HOUR_US)
    assert len(world.ran) == 5


@pytest.mark.parametrize("saved_us", [T0 + FRACTION_US, T0 + SECOND_US])
def test_one_shot_with_a_fraction_saved_again_stays_as_it_is(saved_us: int) -> None:
    """Its own instant, or that of the second for which it is armed, is the same."""
    job = Job(id="j", schedule=Once(at_us=T0 + FRACTION_US), next_us=T0 + FRACTION_US)
    saved = Once(at_us=saved_us)
    move = job_changes.edit(job, changes=Changes(schedule=saved), now_us=T0 + SECOND_US)
    assert (move.job, move.outcomes) == (job, ())
    wanted = job_changes.new_job("j", saved, now_us=T0)
    assert job_changes.create(job, wanted=wanted, now_us=T0).verdict is Verdict.CHANGED


def test_another_period_or_anchor_is_a_change(make_world: MakeWorld) -> None:
    """Text does not say where an interval is anchored; a value does."""
    world = make_world(stored("j", T0 + HOUR_US, HOUR_US))
    world.now_us = T0 + 10 * MINUTE_US
    world.agent.edit("j", schedule="every 2h")
    assert world.job().next_us == T0 + 130 * MINUTE_US
    world.agent.edit("j", schedule=Interval(period_us=2 * HOUR_US, anchor_us=T0 + 40 * MINUTE_US))
    assert world.job().next_us == T0 + 40 * MINUTE_US
