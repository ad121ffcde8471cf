"""The in-process ticker: the jobs of an agent without NAS, fired by the clock for as long as it lives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronos.agent.runner import RunContext
from chronos.errors import StoreError
from chronos.jobs.instants import HOUR_US, SECOND_US
from chronos.jobs.job import Job, JobState, Result, Verdict
from chronos.jobs.policy import Policy
from chronos.jobs.schedule import Interval, Once
from chronos.protocol.flow_effects import ArmsListed, CancelArm, ListArms, ProvisionArm
from chronos.protocol.ticker import LOOK_EVERY_US, REPEAT_AFTER_US, Ticker
from chronos.values import evolve
from tests.agents import T0, MakeWorld, World, every_hour, later, until

MS_US = 1_000
OFTEN = Interval(period_us=20 * MS_US, anchor_us=T0)


def often(job_id: str = "j", **changes: object) -> Job:
    """Return a job that is due every 20 ms."""
    return Job(id=job_id, schedule=OFTEN, next_us=T0 + 20 * MS_US, **changes)  # type: ignore[arg-type]


@pytest.fixture
def make_live(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> MakeWorld:
    """Return what makes worlds without NAS, whose clocks run and whose runs end at once."""
    monkeypatch.setattr("chronos.protocol.ticker.LOOK_EVERY_US", 20 * MS_US)
    monkeypatch.setattr("chronos.protocol.ticker.REPEAT_AFTER_US", 10 * MS_US)

    def make(*jobs: Job, **options: object) -> World:
        world = make_world(*jobs, has_nas=False, **options)
        world.release.set()
        world.let_clocks_go()
        return world

    return make


def runs_of(world: World, job_id: str = "j") -> int:
    return sum(context.job_id == job_id for context in list(world.ran))


# --- End to end ---


def test_jobs_are_fired_by_the_clock(make_live: MakeWorld) -> None:
    """One after the other, each slot once, and each has its outcome."""
    world = make_live(often(times=4))
    started = world.agent.start()
    assert (started.flows, started.settled) == (1, True)
    until(lambda: world.job().state is JobState.COMPLETED)
    slots = [context.occurrence_us for context in world.ran]
    assert slots == sorted(set(slots))
    assert [outcome.result for outcome in world.store.history("j")].count(Result.COMPLETED) == 4
    assert world.nas.asked == []


def test_pending_says_that_the_process_must_live_and_why(make_live: MakeWorld) -> None:
    """A host that stops the machine stops the jobs with it."""
    world = make_live(later())
    assert world.agent.pending() == ()
    world.agent.start()
    until(lambda: len(world.agent.pending()) == 1)
    (pending,) = world.agent.pending()
    assert (pending.job_id, pending.is_busy) == ("", True)
    assert pending.reason == "without NAS, the jobs run for as long as this process lives, and no longer"
    status = world.agent.status()
    assert (status.trigger, status.may_stop, status.trouble) == ("this process", False, "")
    assert (status.jobs[0].is_armed, status.jobs[0].why) == (True, "armed")


def test_a_new_job_is_fired_though_the_ticker_was_asleep(
    make_live: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told of each arm, and does not wait for its next look."""
    monkeypatch.setattr("chronos.protocol.ticker.LOOK_EVERY_US", 60 * SECOND_US)
    world = make_live()
    world.agent.start()
    assert world.agent.create("j", Once(at_us=world.clock() + 30 * MS_US)).settled
    until(lambda: world.outcomes())
    assert [result for result, _ in world.outcomes()] == [Result.COMPLETED]


def test_a_job_that_another_process_created_is_noticed(make_live: MakeWorld) -> None:
    """The store is looked at again and again, since nobody tells of it."""
    world = make_live()
    world.agent.start()
    other = world.another()
    assert other.create("j", Once(at_us=world.clock() + 30 * MS_US)).settled
    until(lambda: world.outcomes())
    assert runs_of(world) == 1


def test_a_job_that_another_process_removed_is_forgotten(make_live: MakeWorld) -> None:
    """The arm that is left is an orphan, and is taken away at the next look."""
    world = make_live(later())
    world.agent.start()
    world.another().remove("j")
    until(lambda: not world.agent.status().orphans)
    assert world.agent.status().jobs == ()


def test_two_processes_run_each_occurrence_once(make_live: MakeWorld) -> None:
    """Both fire the same slots; the store lets one of them claim."""
    world = make_live(often(times=5))
    for agent in (world.agent, world.another()):
        agent.start()
    until(lambda: world.job().state is JobState.COMPLETED)
    slots = [context.occurrence_us for context in world.ran]
    assert (len(slots), len(set(slots))) == (5, 5)


def test_a_fire_that_was_not_settled_is_repeated(make_live: MakeWorld) -> None:
    """The store failed: nobody but the ticker comes back to it."""
    world = make_live(Job(id="j", schedule=Once(at_us=T0 + 20 * MS_US), next_us=T0 + 20 * MS_US))
    world.agent.start()
    with world.failing_store(StoreError("busy", definite=True)) as failed:
        until(lambda: len(failed) >= 2)
    until(lambda: world.outcomes())
    assert world.outcomes() == [(Result.COMPLETED, "")]


def test_a_failed_run_is_attempted_again_by_the_clock(make_live: MakeWorld) -> None:
    """What waits for its next attempt has an arm like any other."""
    failures = [ValueError("once")]

    def runs(_: RunContext) -> None:
        if failures:
            raise failures.pop()

    policy = Policy(attempts=2, retry_delay_us=20 * MS_US)
    world = make_live(Job(id="j", schedule=Once(at_us=T0), next_us=T0, policy=policy), runner=runs)
    world.now_us += 2 * 60 * SECOND_US
    world.agent.start()
    until(lambda: world.outcomes())
    (outcome,) = world.store.history("j")
    assert (outcome.result, outcome.attempt) == (Result.COMPLETED, 2)


def test_a_paused_job_is_not_fired(make_live: MakeWorld) -> None:
    """The others are."""
    world = make_live(often(), often("k"))
    world.agent.start()
    world.agent.pause("j")
    before = runs_of(world)
    after = runs_of(world, "k") + 3
    until(lambda: runs_of(world, "k") >= after)
    # One that was due at that moment may have been claimed before the pause.
    assert runs_of(world) <= before + 1
    assert world.job().next_us is not None


def test_it_stops_at_a_drain_and_goes_on_after_a_start(make_live: MakeWorld) -> None:
    """What fell due meanwhile is looked after by the start."""
    world = make_live(often())
    world.agent.start()
    until(lambda: world.ran)
    assert world.agent.drain() == ()
    ran = len(world.ran)
    later_us = world.clock() + 50 * MS_US
    until(lambda: world.clock() > later_us)
    assert len(world.ran) == ran
    world.agent.start()
    until(lambda: len(world.ran) > ran)


def test_an_emergency_stop_stops_it_and_lifts_by_itself(make_live: MakeWorld) -> None:
    """Nothing is claimed meanwhile, and nothing is lost but the slots that passed."""
    world = make_live(often())
    world.is_stopped = True
    world.agent.start()
    later_us = world.clock() + 50 * MS_US
    until(lambda: world.clock() > later_us)
    assert (world.ran, world.job().next_us) == ([], T0 + 20 * MS_US)
    reasons = [each.reason for each in world.agent.pending()]
    assert "the agent is told to run no jobs" in reasons
    world.is_stopped = False
    until(lambda: world.ran)


def test_it_outlives_whatever_fails_in_one_of_its_steps(
    make_live: MakeWorld, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else would fire the jobs."""
    world = make_live()

    def breaks(*_: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as broken:
        broken.setattr("chronos.protocol.ticker.Ticker.due", breaks)
        world.agent.start()
        until(lambda: "a timer failed, and rings again" in caplog.messages)
    world.agent.create("j", Once(at_us=world.clock() + 20 * MS_US))
    until(lambda: world.outcomes())


def test_starts_begin_one_ticker(make_live: MakeWorld) -> None:
    """However often it is started, one is at work."""
    world = make_live(later())
    starts = [world.agent.begin("start") for _ in range(4)]
    assert all(start.result(10).settled for start in starts)
    until(lambda: len([each for each in world.agent.pending() if each.is_busy]) == 1)


def test_a_fire_is_answered_beside_the_ticker(make_live: MakeWorld) -> None:
    """A host may have a trigger of its own."""
    world = make_live(every_hour())
    assert world.agent.fire("j", T0).verdict is Verdict.ACCEPTED
    until(lambda: world.outcomes())
    assert world.job().next_us == T0 + HOUR_US


# --- By itself ---

TICKER = Ticker(is_ticking=True, is_running=True)


def armed(ticker: Ticker, job_id: str, at_us: int, steady_us: int = 0) -> Ticker:
    effect = ProvisionArm(job_id=job_id, fire_at_us=at_us, revision=1)
    return ticker.perform(effect, steady_us)[0]


def test_an_arm_is_due_at_its_instant_and_again_after_a_while() -> None:
    """Until it changes: then whoever fired it has settled it."""
    ticker = armed(TICKER, "j", T0)
    assert ticker.due(T0 - 1, 0)[1] == []
    ticker, due = ticker.due(T0, 0)
    assert due == [("j", T0)]
    assert ticker.due(T0, REPEAT_AFTER_US - 1)[1] == []
    ticker, due = ticker.due(T0, REPEAT_AFTER_US)
    assert due == [("j", T0)]
    assert armed(ticker, "j", T0 + 1).due(T0 + 1, REPEAT_AFTER_US)[1] == [("j", T0 + 1)]


def test_a_cancelled_arm_is_not_due_and_leaves_nothing_behind() -> None:
    """Armed again for the same instant, it is due at once."""
    ticker, due = armed(TICKER, "j", T0).due(T0, 0)
    assert due
    ticker, _ = ticker.perform(CancelArm(job_id="j", revision=2), 0)
    assert ticker.due(T0, 100 * SECOND_US)[1] == []
    assert ticker.perform(ListArms(), 0)[1] == ArmsListed({})
    assert armed(ticker, "j", T0).due(T0, 0)[1] == [("j", T0)]


def test_it_is_nudged_by_a_change_and_by_no_repetition() -> None:
    """Whoever sleeps until the next arm must hear of an earlier one."""
    ticker = armed(TICKER, "j", T0, steady_us=7)
    assert ticker.next_us == 7
    later_on = evolve(ticker, next_us=100)
    assert armed(later_on, "j", T0, steady_us=8) == later_on
    idle = evolve(TICKER, is_running=False)
    assert armed(idle, "j", T0, steady_us=7).next_us is None


@given(waits_us=st.lists(st.integers(-HOUR_US, HOUR_US), max_size=5))
def test_a_pause_ends_at_the_next_arm_at_the_latest(waits_us: list[int]) -> None:
    """It is never nothing, so that nobody spins, and never longer than to the next look."""
    ticker = TICKER
    for number, wait_us in enumerate(waits_us):
        ticker = armed(ticker, f"j{number}", T0 + wait_us)
    pause_us = ticker.pause_us(T0)
    assert 0 < pause_us <= LOOK_EVERY_US
    assert all(pause_us <= wait_us for wait_us in waits_us if wait_us > 0)
    if any(wait_us <= 0 for wait_us in waits_us):
        assert pause_us <= REPEAT_AFTER_US
