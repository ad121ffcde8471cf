"""How both schedulers start and stop: reconciliation, draining, the emergency stop, a refused identity."""

from __future__ import annotations

import logging

import pytest

from chronos import events
from chronos.errors import StoreError
from chronos.jobs.instants import HOUR_US, MINUTE_US
from chronos.jobs.job import LEASE_US, JobState, Result, Run, Verdict
from chronos.jobs.schedule import Interval
from chronos.protocol.state import Started
from tests.agents import T0, MakeWorld, World, at, every_hour, later, until

HOURLY = Interval(period_us=HOUR_US, anchor_us=T0)


# --- Start ---


def test_a_start_makes_one_list_call_and_one_more_for_each_difference(make_world: MakeWorld) -> None:
    """What agrees is left alone; what is missing, wrong or orphaned is put right (incidents O1, O2)."""
    jobs = [later(job_id) for job_id in ("agrees", "missing", "wrong")]
    world = make_world(*jobs, every_hour("paused", state=JobState.PAUSED))
    world.nas.arms = {"agrees": at(HOUR_US), "wrong": at(5), "orphan": at(0), "paused": at(0)}
    started = world.agent.start()
    assert (started.flows, started.settled) == (4, True)
    assert world.nas.arms == {job.id: at(HOUR_US) for job in jobs}
    assert world.nas.asked[0] == "list"
    expected = ["cancel orphan", "cancel paused", "provision missing", "provision wrong"]
    assert sorted(world.nas.asked[1:]) == expected
    world.nas.asked.clear()
    assert world.agent.start().flows == 0
    assert world.nas.asked == ["list"]


def test_a_start_runs_what_is_overdue_and_records_what_was_interrupted(make_world: MakeWorld) -> None:
    """A chain that broke while the machine slept goes on (incidents L2, O3)."""
    died = Run(occurrence_us=T0, attempt=1, owner="dead", claimed_us=T0, lease_until_us=T0 + LEASE_US)
    world = make_world(every_hour("overdue"), later("died", runs=(died,)))
    world.dead.add("dead")
    world.now_us = T0 + 2 * MINUTE_US
    assert world.agent.start().settled
    world.settle()
    assert [context.job_id for context in world.ran] == ["overdue"]
    ((result, reason),) = world.outcomes("died")
    assert result is Result.INTERRUPTED
    assert "its process ended" in reason
    assert world.nas.arms == {"overdue": at(HOUR_US), "died": at(HOUR_US)}


@pytest.mark.parametrize("is_nas_at_fault", [True, False])
def test_a_start_that_cannot_see_everything_says_so_and_comes_back_to_it(
    make_world: MakeWorld, is_nas_at_fault: bool
) -> None:
    """What could not be read is asked for again, and nothing is believed meanwhile (incident O2)."""
    world = make_world(later())
    world.nas.arms["orphan"] = at(0)
    if is_nas_at_fault:
        world.nas.fails_next = 2
        started = world.agent.start()
    else:
        with world.failing_store(StoreError("busy", definite=True), method="load_all"):
            started = world.agent.start()
            assert world.nas.arms == {"orphan": at(0)}
    assert (started.flows, started.settled) == (0, False)
    if not is_nas_at_fault:
        world.agent.start()
    world.quiet()
    assert world.nas.arms == {"j": at(HOUR_US)}
    assert world.agent.pending() == ()


def test_a_start_without_nas_keeps_the_host_for_a_while(make_world: MakeWorld) -> None:
    """The machine is not kept for it, and what is unknown is not forgotten."""
    world = make_world(later())
    world.nas.is_down = True
    assert not world.agent.start().settled
    assert world.agent.is_busy()
    world.quiet()
    assert world.nas.asked[:4] == ["list"] * 4
    (pending,) = world.agent.pending()
    assert (pending.job_id, pending.is_busy) == ("", False)
    assert "NAS has armed" in pending.reason
    assert world.ran == []


def test_a_start_does_not_ask_for_everything_at_once(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NAS limits the rate of its callers."""
    monkeypatch.setattr("chronos.protocol.state.CONCURRENCY", 3)
    world = make_world(*(every_hour(f"j{number}") for number in range(20)))
    world.nas.latency_s = 0.01
    assert world.agent.start().flows == 20
    assert 1 < world.nas.most_at_once <= 3


def test_what_is_followed_up_does_not_come_back_all_at_once(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NAS that refused for its load is not asked for everything again in one moment."""
    monkeypatch.setattr("chronos.protocol.state.CONCURRENCY", 3)
    monkeypatch.setattr("chronos.protocol.follow_ups.FOLLOW_UP_DELAYS_US", (30_000_000,))
    world = make_world(*(later(f"j{number}") for number in range(15)))
    world.nas.refuses = "provision"
    assert not world.agent.start().settled
    world.nas.refuses, world.nas.most_at_once = "", 0
    world.nas.latency_s = 0.01
    assert world.agent.drain() == ()
    assert 1 < world.nas.most_at_once <= 3
    assert world.nas.arms == {f"j{number}": at(HOUR_US) for number in range(15)}


def test_starts_at_once_are_harmless(make_world: MakeWorld) -> None:
    """Each settles everything, whatever the others do meanwhile, and what is overdue runs once."""
    world = make_world(*(later(f"j{number}") for number in range(5)), every_hour("overdue"))
    world.now_us = T0 + 2 * MINUTE_US
    starts = [agent.begin("start") for agent in (world.agent, world.agent, world.another(), world.agent)]
    assert all(start.result(10).settled for start in starts)
    world.settle()
    assert world.nas.arms == {f"j{number}": at(HOUR_US) for number in range(5)} | {"overdue": at(HOUR_US)}
    assert [context.job_id for context in world.ran] == ["overdue"]
    assert world.agent.pending() == ()


def test_a_start_leaves_alone_what_a_fire_is_about_to_arm(make_world: MakeWorld) -> None:
    """The fire that woke the machine arms its job; the list that the start asked for is older than that."""
    world = make_world(every_hour())
    gate = world.nas.hang()
    start = world.agent.begin("start")
    until(lambda: world.nas.asked == ["list"])
    world.nas.gate = None
    assert world.agent.fire("j", T0).settled
    world.nas.arms, armed = {}, world.nas.arms
    gate.set()
    started = start.result(10)
    assert (started.flows, started.settled) == (0, True)
    assert (world.nas.asked, armed) == (["list", "provision j"], {"j": at(HOUR_US)})
    assert world.agent.start().flows == 1
    world.settle()


def test_a_second_start_does_not_make_the_first_forget_what_was_armed_meanwhile(
    make_world: MakeWorld,
) -> None:
    """Each of them leaves alone what was armed after it asked for the list."""
    world = make_world(every_hour())
    gate = world.nas.hang()
    first = world.agent.begin("start")
    until(lambda: world.nas.asked == ["list"])
    world.nas.gate = None
    assert world.agent.fire("j", T0).settled
    assert world.agent.start().flows == 0
    world.nas.arms = {}
    gate.set()
    assert first.result(10).flows == 0
    assert world.nas.asked == ["list", "provision j", "list"]
    world.settle()


def test_a_fire_does_not_bury_the_run_that_a_start_is_claiming(make_world: MakeWorld) -> None:
    """What the start does to a job is seen by whoever comes to the same job."""
    world = make_world(every_hour())
    world.now_us += 2 * MINUTE_US
    world.nas.latency_s = 0.02
    start = world.agent.begin("start")
    until(lambda: world.job().runs)
    gate = world.nas.hang()
    fire = world.agent.begin("fire", "j", T0)
    until(lambda: len(world.nas.asked) == 3)
    gate.set()
    assert start.result(10).settled
    assert fire.result(10).verdict is Verdict.DUPLICATE
    world.settle()
    assert world.outcomes() == [(Result.COMPLETED, "")]


def test_a_start_follows_up_what_nas_refused(make_world: MakeWorld) -> None:
    """Nobody else would come back to it; after a while it is left to the next start."""
    world = make_world(later())
    world.nas.refuses = "provision"
    started = world.agent.start()
    assert (started.flows, started.settled) == (1, False)
    world.quiet()
    assert world.nas.asked[:5] == ["list", *["provision j"] * 4]
    (pending,) = world.agent.pending()
    assert (pending.job_id, pending.is_busy) == ("j", False)
    world.nas.refuses = ""
    assert world.agent.start().settled
    # A slow try of before may have begun while NAS refused, and end later.
    until(lambda: world.agent.pending() == ())


# --- Drain ---


def test_draining_turns_fires_away_and_waits_for_runs(make_world: MakeWorld) -> None:
    """Nothing is claimed any more; what is in flight ends first (incident W1)."""
    world = make_world(every_hour(), every_hour("k"))
    world.agent.fire("j", T0)
    left = world.agent.drain(0.02)
    assert [(each.job_id, each.is_busy) for each in left] == [("j", True)]
    assert world.agent.scheduler.is_draining
    turned_away = world.agent.fire("k", T0)
    assert (turned_away.verdict, turned_away.settled) == (None, False)
    assert world.job("k") == every_hour("k")
    world.release.set()
    assert world.agent.drain() == ()
    assert world.outcomes() == [(Result.COMPLETED, "")]
    world.agent.start()
    assert not world.agent.scheduler.is_draining
    assert world.agent.fire("k", T0).verdict is Verdict.ACCEPTED


def test_a_drain_that_ends_in_part_is_logged(make_world: MakeWorld, caplog: pytest.LogCaptureFixture) -> None:
    """The host stops the machine all the same; the log says what that cost."""
    world = make_world(every_hour())
    world.agent.fire("j", T0)
    caplog.clear()
    world.agent.drain(0)
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "in flight" in record.pending[0]  # type: ignore[attr-defined]


def test_a_drain_ends_while_a_start_is_hanging(make_world: MakeWorld) -> None:
    """It waits as long as it was told, and the start that ends later takes nothing."""
    world = make_world(every_hour())
    world.now_us += 2 * MINUTE_US
    gate = world.nas.hang()
    start = world.agent.begin("start")
    until(lambda: world.nas.asked)
    (left,) = world.agent.drain(0.02)
    assert left.reason == "the start is reconciling"
    gate.set()
    start.result(10)
    world.quiet()
    assert (world.ran, world.job().next_us) == ([], T0)


def test_changes_are_made_while_draining(make_world: MakeWorld) -> None:
    """They take no run, and whoever makes them need not wait for the next start."""
    world = make_world()
    world.agent.drain()
    assert world.agent.create("j", HOURLY).settled
    assert world.nas.arms == {"j": at(HOUR_US)}


def test_draining_does_not_wait_long_for_a_follow_up(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is owed is tried soon, and then left to the next start."""
    monkeypatch.setattr("chronos.protocol.follow_ups.FOLLOW_UP_DELAYS_US", (30_000_000, 30_000_000))
    world = make_world(later())
    world.nas.refuses = "provision"
    world.agent.start()
    (left,) = world.agent.drain()
    assert not left.is_busy
    assert world.nas.asked == ["list", *["provision j"] * 3]


def test_draining_takes_no_overdue_occurrence(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is owed while draining arms the job, and leaves its run to the fire."""
    monkeypatch.setattr("chronos.protocol.follow_ups.FOLLOW_UP_DELAYS_US", (30_000_000,))
    world = make_world(later())
    world.nas.refuses = "provision"
    world.agent.start()
    world.now_us = T0 + HOUR_US + 5 * MINUTE_US
    world.nas.refuses = ""
    assert world.agent.drain() == ()
    assert (world.nas.arms, world.ran) == ({"j": at(HOUR_US)}, [])


# --- Stop ---


def test_an_agent_that_is_told_to_run_no_jobs_says_so_and_claims_nothing(make_world: MakeWorld) -> None:
    """The answer is settled: the fires would come again and again for as long as it lasts (incident L12)."""
    world = make_world(every_hour())
    world.is_stopped = True
    answer = world.agent.fire("j", T0)
    assert (answer.verdict, answer.settled) == (Verdict.STOPPED, True)
    world.now_us += 2 * MINUTE_US
    started = world.agent.start()
    assert (started.flows, started.settled) == (1, False)
    assert [(each.reason, each.is_busy) for each in world.agent.pending()] == [
        ("the agent is told to run no jobs", False)
    ]
    assert (world.job(), world.ran, world.nas.arms) == (every_hour(), [], {})


def test_the_start_after_a_stop_looks_after_every_job(make_world: MakeWorld) -> None:
    """NAS does not come back to the fires that were answered meanwhile (incident L12)."""
    world = make_world(every_hour(), every_hour("k"))
    world.is_stopped = True
    for job_id in ("j", "k"):
        world.agent.fire(job_id, T0)
    world.is_stopped = False
    world.now_us += 2 * MINUTE_US
    assert world.agent.start().settled
    world.settle()
    assert sorted(context.job_id for context in world.ran) == ["j", "k"]
    assert world.nas.arms == {"j": at(HOUR_US), "k": at(HOUR_US)}
    assert world.agent.pending() == ()


def test_a_stop_leaves_the_run_in_flight_to_end(make_world: MakeWorld) -> None:
    """Its end is recorded, and nothing that it owes takes an occurrence."""
    world = make_world(every_hour())
    world.agent.fire("j", T0)
    world.is_stopped = True
    world.settle()
    assert world.outcomes() == [(Result.COMPLETED, "")]


# --- A change past the scheduler ---


def test_a_change_past_the_scheduler_costs_one_list_call_and_one_more_for_each_difference(
    make_world: MakeWorld,
) -> None:
    """As a start, but that it starts nothing."""
    world = make_world(later())
    world.nas.arms["orphan"] = at(0)
    assert world.agent.reconcile() == Started(flows=2, settled=True)
    assert world.nas.arms == {"j": at(HOUR_US)}
    assert sorted(world.nas.asked) == ["cancel orphan", "list", "provision j"]


def test_a_change_past_the_scheduler_runs_nothing_in_a_process_that_was_not_started(
    make_world: MakeWorld,
) -> None:
    """What is overdue is armed, and runs where NAS delivers its fire."""
    world = make_world(every_hour())
    world.now_us = T0 + 2 * MINUTE_US
    assert world.agent.reconcile().settled
    assert world.nas.arms == {"j": at(0)}
    assert world.ran == []


def test_a_change_past_the_scheduler_does_not_end_a_drain(make_world: MakeWorld) -> None:
    """The next start looks after it."""
    world = make_world(later())
    world.agent.drain()
    assert world.agent.reconcile() == Started(flows=0, settled=False, trouble="the agent is draining")
    assert world.agent.scheduler.is_draining
    assert world.nas.asked == []


def test_a_change_past_the_scheduler_does_not_ask_a_nas_that_refuses_the_identity(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """The ticker looks at its jobs by itself (incident L4)."""
    world = make_world(later())
    world.nas.has_login = False
    world.agent.start()
    assert world.agent.reconcile().trouble == errors(caplog)[0]
    assert world.nas.asked == ["list"]


def test_a_change_past_the_scheduler_does_not_let_a_process_tick_that_was_not_started(
    make_world: MakeWorld,
) -> None:
    """A command line that changes a job is not the agent."""
    world = make_world(later(), has_nas=False)
    assert world.agent.reconcile().settled
    assert world.agent.pending() == ()
    world.agent.start()
    until(lambda: [each.is_busy for each in world.agent.pending()] == [True])


# --- A refused identity ---


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_refused_identity_is_logged_once_and_nas_is_not_asked_again(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """One clear message for the operator, not one for each job (incident L4)."""
    told: list[events.Event] = []
    world = make_world(hooks=[told.append])
    world.nas.has_login = False
    world.agent.start()
    for number in range(3):
        assert world.agent.create(f"j{number}", HOURLY).settled
    assert world.nas.asked == ["list"]
    (message,) = errors(caplog)
    assert "logs the agent in again" in message
    assert [event.reason for event in told if isinstance(event, events.FellBack)] == [message]
    until(lambda: [(each.reason, each.is_busy) for each in world.agent.pending()] == [(message, True)])


def test_refusals_at_once_are_logged_once(make_world: MakeWorld, caplog: pytest.LogCaptureFixture) -> None:
    """Several requests may be on their way when NAS refuses the identity."""
    world = make_world(every_hour(), every_hour("k"))
    world.nas.has_login = False
    gate = world.nas.hang()
    fires = [world.agent.begin("fire", job_id, T0) for job_id in ("j", "k")]
    until(lambda: len(world.nas.asked) == 2)
    gate.set()
    assert all(fire.result(10).settled for fire in fires)
    assert len(errors(caplog)) == 1


def test_jobs_run_without_nas_until_somebody_logs_in_and_starts(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """The in-process ticker fires them meanwhile; then NAS is asked again and wakes the machine for them."""
    world = make_world(every_hour(), later("k"))
    world.nas.has_login = False
    world.release.set()
    world.now_us = T0 + 2 * MINUTE_US
    started = world.agent.start()
    assert started.flows == 2
    until(lambda: world.outcomes("j"))
    assert world.agent.is_busy()
    asked_in_vain = list(world.nas.asked)
    world.nas.has_login = True
    assert world.agent.start().settled
    world.quiet()
    assert world.nas.asked[len(asked_in_vain) :][0] == "list"
    assert world.nas.arms == {"j": at(HOUR_US), "k": at(HOUR_US)}
    assert world.agent.pending() == ()
    assert len(errors(caplog)) == 1


def test_a_start_that_is_refused_again_goes_on_without_nas(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so again, since somebody has just tried, and one ticker goes on."""
    world = make_world(later())
    world.nas.has_login = False
    for _ in range(3):
        world.agent.start()
    assert world.nas.asked == ["list"] * 3
    assert len(errors(caplog)) == 3
    until(lambda: len(busy_reasons(world)) == 1)


def busy_reasons(world: World) -> list[str]:
    return [each.reason for each in world.agent.pending() if each.is_busy]
