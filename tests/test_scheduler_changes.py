"""Changes of jobs through both schedulers, and runs that somebody asks for by hand."""

from __future__ import annotations

from typing import Any

import pytest

from chronos.contract.wire import LocalMessageError
from chronos.errors import ScheduleError, StoreError
from chronos.jobs.instants import HOUR_US, MINUTE_US, SECOND_US
from chronos.jobs.job import JobState, Origin, Result, Verdict
from chronos.jobs.policy import Overlap, Policy
from chronos.jobs.schedule import Cron, Interval, Once
from tests.agents import T0, MakeWorld, Nas, World, at, every_hour, later, until

HOURLY = Interval(period_us=HOUR_US, anchor_us=T0)


# --- Create and edit ---


def test_a_created_job_is_armed(make_world: MakeWorld) -> None:
    """The answer is settled once NAS has it (incident L3)."""
    world = make_world()
    answer = world.agent.create("j", HOURLY)
    assert (answer.verdict, answer.settled, answer.trouble) == (Verdict.CHANGED, True, "")
    assert world.nas.arms == {"j": at(HOUR_US)}
    assert world.agent.create("j", HOURLY).verdict is Verdict.CHANGED
    assert world.agent.create("j", Once(at_us=T0 + 1)).verdict is Verdict.REFUSED
    assert world.job().schedule == HOURLY


@pytest.mark.parametrize(
    ("text", "options", "first_us"),
    [
        ("every 2h", {}, 2 * HOUR_US),
        ("in 90s", {}, 90_000_000),
        ("0 18 * * *", {}, 6 * HOUR_US),
        ("0 18 * * *", {"tz": "Europe/Berlin"}, 4 * HOUR_US),
        ("0 18 * * *", {"tz": "-02:00"}, 8 * HOUR_US),
        ("every 2h", {"policy": Policy(starts_us=T0 + 5 * HOUR_US)}, 6 * HOUR_US),
    ],
)
def test_a_schedule_is_given_as_text(
    make_world: MakeWorld, text: str, options: dict[str, Any], first_us: int
) -> None:
    """It counts from the agent's clock, in the zone that is given beside it."""
    world = make_world()
    assert world.agent.create("j", text, times=3, **options).settled
    assert world.nas.arms == {"j": at(first_us)}
    assert (world.job().times, world.job().policy) == (3, options.get("policy", Policy()))


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("x" * 201, "30m"), {}, LocalMessageError),
        (("j", "whenever"), {}, ScheduleError),
        (("j", "0 0 * * *"), {"tz": "Atlantis/Sunken"}, ScheduleError),
        (("j", Once(at_us=T0 - 1)), {}, ScheduleError),
        (("j", "30m"), {"times": 0}, ScheduleError),
    ],
)
def test_a_job_that_could_never_be_armed_is_refused_before_it_is_saved(
    make_world: MakeWorld, arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception]
) -> None:
    """Its id is no text that NAS could be told, or it has no time."""
    world = make_world()
    with pytest.raises(error):
        world.agent.create(*arguments, **options)
    assert (world.store.load_all(), world.nas.asked) == ((), [])


def test_an_edited_job_is_armed_for_its_new_time(make_world: MakeWorld) -> None:
    """What is not named stays, and the run in flight and the history with it."""
    policy = Policy(overlap=Overlap.QUEUE)
    world = make_world(every_hour(policy=policy, times=5))
    world.agent.fire("j", T0)
    answer = world.agent.edit("j", schedule="0 20 * * *", tz="Europe/Berlin")
    assert (answer.verdict, answer.settled) == (Verdict.CHANGED, True)
    assert world.nas.arms == {"j": at(6 * HOUR_US)}
    assert (world.job().policy, world.job().times, len(world.job().runs)) == (policy, 5, 1)
    assert world.agent.edit("j", times=0, policy=Policy()).settled
    assert (world.job().times, world.job().policy) == (None, Policy())
    assert world.job().schedule == Cron(expr="0 20 * * *", tz="Europe/Berlin")
    world.settle()
    assert world.outcomes() == [(Result.COMPLETED, "")]


def test_an_edit_that_leaves_no_time_is_refused(make_world: MakeWorld) -> None:
    """The job stays as it is, armed as it was."""
    world = make_world(later())
    answer = world.agent.edit("j", policy=Policy(ends_us=T0 - 1))
    assert (answer.verdict, answer.settled) == (Verdict.REFUSED, True)
    assert "no occurrence" in answer.reason
    assert (world.job(), world.nas.arms) == (later(), {"j": at(HOUR_US)})
    with pytest.raises(ScheduleError):
        world.agent.edit("j", schedule="whenever")


# --- Pause, resume, remove ---


def test_a_job_that_is_paused_during_its_run_is_not_armed_again(make_world: MakeWorld) -> None:
    """Neither the end of the run nor a redelivery arms it (incident D6)."""
    world = make_world(every_hour(), nas=Nas(echoes=False))
    world.agent.fire("j", T0)
    world.agent.pause("j", note="on holiday")
    assert (world.nas.arms, world.job().note) == ({}, "on holiday")
    world.agent.fire("j", T0)
    world.settle()
    assert world.nas.arms == {}
    assert world.outcomes() == [(Result.COMPLETED, "")]


def test_a_paused_job_is_disarmed_and_armed_again_on_resume(make_world: MakeWorld) -> None:
    """To the same next time, and NAS has it again (incident L8)."""
    world = make_world(later())
    world.agent.start()
    world.agent.pause("j")
    assert world.nas.arms == {}
    world.agent.resume("j")
    assert world.nas.arms == {"j": at(HOUR_US)}


@pytest.mark.parametrize(
    ("from_now", "next_us"), [(False, 2 * HOUR_US), (True, 2 * HOUR_US + 20 * MINUTE_US)]
)
def test_a_resumed_interval_keeps_its_slots_or_counts_from_now(
    make_world: MakeWorld, from_now: bool, next_us: int
) -> None:
    """Its owner chooses."""
    world = make_world(every_hour())
    world.agent.pause("j")
    world.now_us = T0 + 80 * MINUTE_US
    assert world.agent.resume("j", from_now=from_now).settled
    assert world.nas.arms == {"j": at(next_us)}


def test_a_removed_job_is_disarmed_and_its_run_goes_on(make_world: MakeWorld) -> None:
    """The end of the run finds nothing to end, and nothing is unfinished."""
    world = make_world(every_hour())
    world.agent.fire("j", T0)
    assert world.agent.remove("j").settled
    assert (world.nas.arms, world.store.load_all()) == ({}, ())
    world.settle()
    assert len(world.ran) == 1
    assert world.agent.pending() == ()


def test_a_removed_job_that_is_created_again_comes_after_its_earlier_life(make_world: MakeWorld) -> None:
    """NAS remembers the earlier revisions, and the store is put after them."""
    world = make_world(every_hour(revision=T0 + 7))
    world.agent.remove("j")
    assert world.nas.arms == {}
    assert world.agent.create("j", HOURLY).settled
    assert world.nas.arms == {"j": at(HOUR_US)}
    assert world.job().revision > T0 + 7


@pytest.mark.parametrize("name", ["edit", "pause", "resume", "remove", "run_now"])
def test_a_change_of_an_unknown_job_says_that_it_is_gone(make_world: MakeWorld, name: str) -> None:
    """That is an answer and no error."""
    world = make_world()
    answer = world.agent.ask(name, "j")
    assert (answer.verdict, answer.settled) == (Verdict.GONE, True)


# --- A change that NAS has not agreed to ---


CHANGES: list[tuple[str, tuple[Any, ...], dict[str, Any], dict[str, str]]] = [
    ("create", ("k", Once(at_us=T0 + 5 * SECOND_US)), {}, {"j": at(HOUR_US), "k": at(5 * SECOND_US)}),
    ("edit", ("j",), {"schedule": Once(at_us=T0 + 5 * SECOND_US)}, {"j": at(5 * SECOND_US)}),
    ("pause", ("j",), {}, {}),
    ("remove", ("j",), {}, {}),
]


@pytest.mark.parametrize(("name", "arguments", "options", "arms"), CHANGES, ids=[each[0] for each in CHANGES])
def test_a_change_that_nas_has_not_agreed_to_is_followed_up(
    make_world: MakeWorld, name: str, arguments: Any, options: Any, arms: dict[str, str]
) -> None:
    """The answer says what that means and what to do, and the process goes on trying by itself."""
    world = make_world(later())
    world.agent.start()
    world.nas.fails_next = 3
    answer = world.agent.ask(name, *arguments, **options)
    assert (answer.verdict, answer.settled) == (Verdict.CHANGED, False)
    assert "503" in answer.trouble
    is_disarmed = name in ("pause", "remove")
    said = "may still wake this machine" if is_disarmed else "its trigger is not registered at NAS"
    assert said in answer.reason
    assert answer.trouble in answer.reason
    assert "call `start`" in answer.reason
    world.quiet()
    assert world.nas.arms == arms
    assert world.agent.pending() == ()


def given_up(world: World) -> None:
    """Let NAS be down for longer than a change is followed up."""
    world.nas.is_down = True
    assert not world.agent.create("j", HOURLY).settled
    (pending,) = world.agent.pending()
    assert (pending.job_id, pending.is_busy) == ("j", True)
    world.quiet()
    assert len(world.nas.asked) >= 4


def test_a_change_is_followed_up_for_a_while_and_then_ever_more_slowly(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not forgotten: `pending` goes on saying so, and nothing keeps the machine up."""
    world = make_world()
    given_up(world)
    (pending,) = world.agent.pending()
    assert (pending.job_id, pending.is_busy) == ("j", False)
    assert "not agreed" in pending.reason
    assert any("given up" in record.message and record.job_id == "j" for record in caplog.records)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["start", "create"])
def test_a_change_that_was_left_is_settled_by_a_start_or_the_same_change(
    make_world: MakeWorld, name: str
) -> None:
    """Either finds the difference between what is saved and what NAS has (incident L3)."""
    world = make_world()
    given_up(world)
    world.nas.is_down = False
    assert world.agent.ask(name, *([] if name == "start" else ["j", HOURLY])).settled
    assert world.nas.arms == {"j": at(HOUR_US)}
    # A slow try of before may have begun while NAS was down, and end later.
    until(lambda: world.agent.pending() == ())


def test_a_change_that_another_process_settled_is_forgotten_by_a_start(make_world: MakeWorld) -> None:
    """The start sees that the store and NAS agree, though it had nothing to do for that."""
    world = make_world()
    given_up(world)
    world.nas.is_down = False
    assert world.another().start().settled
    started = world.agent.start()
    assert (started.flows, started.settled) == (0, True)
    until(lambda: world.agent.pending() == ())


def test_a_change_that_the_store_did_not_take_is_left_to_whoever_asked(make_world: MakeWorld) -> None:
    """Nothing was changed, or nobody knows: asking again is harmless."""
    world = make_world()
    with world.failing_store(StoreError("full", definite=True)):
        answer = world.agent.create("j", HOURLY)
    assert (answer.verdict, answer.settled) == (None, False)
    assert "saved" not in answer.reason
    assert not world.agent.is_busy()
    with world.store_that_loses_its_answer():
        assert world.agent.create("j", HOURLY).verdict is None
    assert world.agent.create("j", HOURLY).settled
    assert world.agent.pending() == ()


# --- A run by hand ---


def test_a_run_by_hand_takes_no_slot(make_world: MakeWorld) -> None:
    """The schedule goes on as it was, and the outcome says why it ran."""
    world = make_world(later())
    answer = world.agent.run_now("j")
    assert (answer.verdict, answer.settled) == (Verdict.ACCEPTED, True)
    world.settle()
    assert [(context.occurrence_us, context.origin) for context in world.ran] == [(T0, Origin.MANUAL)]
    (outcome,) = world.store.history("j")
    assert (outcome.result, outcome.origin) == (Result.COMPLETED, Origin.MANUAL)
    assert (world.job().next_us, world.job().completed) == (T0 + HOUR_US, 0)
    assert world.nas.arms == {"j": at(HOUR_US)}


def test_a_repeated_request_for_a_run_runs_once(make_world: MakeWorld) -> None:
    """It has an identity, for whoever does not know whether the first one was heard (incident D2)."""
    world = make_world(later())
    world.release.set()
    answers = [world.agent.begin("run_now", "j", asked_us=T0 - 5) for _ in range(3)]
    verdicts = sorted(str(answer.result(10).verdict) for answer in answers)
    assert verdicts == ["accepted", "duplicate", "duplicate"]
    world.quiet()
    assert [context.occurrence_us for context in world.ran] == [T0 - 5]
    assert world.agent.run_now("j", asked_us=T0 - 4).verdict is Verdict.ACCEPTED
    world.quiet()
    assert len(world.ran) == 2


def test_a_run_by_hand_beside_another_run_goes_by_the_policy(make_world: MakeWorld) -> None:
    """It is skipped without a trace, or waits for its turn."""
    queues = every_hour("q", policy=Policy(overlap=Overlap.QUEUE))
    world = make_world(every_hour(), queues)
    for job_id in ("j", "q"):
        world.agent.fire(job_id, T0)
    assert world.agent.run_now("j").verdict is Verdict.SKIPPED
    waits = world.agent.run_now("q")
    assert (waits.verdict, waits.reason) == (Verdict.ACCEPTED, "it waits for its turn")
    world.settle()
    assert len(world.outcomes("j")) == 1
    assert [outcome.origin for outcome in world.store.history("q")] == [Origin.SCHEDULE, Origin.MANUAL]


def test_a_paused_job_is_run_by_hand(make_world: MakeWorld) -> None:
    """It stays paused and disarmed."""
    world = make_world(later())
    world.agent.pause("j")
    assert world.agent.run_now("j").verdict is Verdict.ACCEPTED
    world.settle()
    assert world.outcomes() == [(Result.COMPLETED, "")]
    assert (world.job().state, world.nas.arms) == (JobState.PAUSED, {})


def test_a_run_by_hand_is_turned_away_while_draining(make_world: MakeWorld) -> None:
    """Nothing was done, and the answer says so."""
    world = make_world(later())
    world.agent.drain()
    answer = world.agent.run_now("j")
    assert (answer.verdict, answer.settled, answer.reason) == (None, False, "the agent is draining")
    assert (world.job(), world.ran) == (later(), [])


def test_a_run_by_hand_is_turned_away_while_the_agent_is_stopped(make_world: MakeWorld) -> None:
    """An emergency stop is no matter of who asks."""
    world = make_world(later())
    world.is_stopped = True
    answer = world.agent.run_now("j")
    assert (answer.verdict, answer.settled) == (Verdict.STOPPED, True)
    assert (world.job(), world.ran) == (later(), [])


def test_a_run_by_hand_runs_although_nas_is_down(make_world: MakeWorld) -> None:
    """What NAS was to be told is followed up; the same request again runs nothing."""
    world = make_world(later())
    world.nas.is_down = True
    answer = world.agent.run_now("j")
    assert (answer.verdict, answer.settled) == (Verdict.ACCEPTED, False)
    assert "not registered" in answer.reason
    until(lambda: world.ran)
    world.nas.is_down = False
    world.settle()
    assert world.nas.arms == {"j": at(HOUR_US)}
    assert world.agent.run_now("j", asked_us=T0).verdict is Verdict.DUPLICATE
    assert len(world.ran) == 1
