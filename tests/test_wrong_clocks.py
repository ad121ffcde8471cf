"""Clocks that are more wrong than clocks may differ: nothing is run, or ended, on their word alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import httpx
import pytest

from chronos.contract.messages import answer_to_fire
from chronos.jobs.instants import DAY_US, HOUR_US, MINUTE_US, SECOND_US, format_instant
from chronos.jobs.job import LEASE_US, Job, JobState, Origin, Outcome, Result, Run, Verdict, Waiting
from chronos.jobs.policy import CatchUp, Policy
from chronos.jobs.schedule import Interval, Once
from chronos.nas.answer import date_of
from chronos.protocol import follow_ups, transitions
from chronos.protocol.clocks import Belief, compared
from chronos.protocol.draft import Fired
from chronos.protocol.flow import begin, step
from chronos.protocol.flow_effects import Answer, ArmAccepted, JobLoaded, ProvisionArm
from chronos.protocol.intents import Fire
from chronos.protocol.wrong_clock import put_back, stands_ahead
from chronos.values import evolve
from tests.agents import KINDS, T0, MakeWorld, Nas, at, every_hour, later, until, worlds


@pytest.fixture(params=KINDS)
def make_world(request: pytest.FixtureRequest) -> Iterator[MakeWorld]:
    with worlds(request.param) as make:
        yield make


# --- A fire from the future ------------------------------------------------------------------

FAR_US = T0 + 210 * DAY_US


def test_fire_from_the_future_takes_nothing_and_ends_nothing(make_world: MakeWorld) -> None:
    """The job goes on as it was, NAS keeps its arm, and has to deliver again."""
    world = make_world(later())
    world.agent.start()
    before = world.job()
    answer = world.agent.fire("j", FAR_US)
    assert (answer.verdict, answer.settled) == ("early", False)
    assert (world.job(), world.outcomes(), world.ran) == (before, [], [])
    assert world.nas.arms["j"] == "2026-06-26T13:00:00+00:00"


def test_fire_from_the_future_makes_nas_agree_all_the_same(make_world: MakeWorld) -> None:
    """NAS may have lost the arm of the job, or fire for the wrong one."""
    world = make_world(later())
    world.nas.arms["j"] = "2027-01-22T12:00:00+00:00"
    world.agent.fire("j", FAR_US)
    assert world.nas.arms["j"] == "2026-06-26T13:00:00+00:00"


def test_fire_that_is_the_arm_itself_is_not_consumed_when_it_comes_too_early(make_world: MakeWorld) -> None:
    """It is the only thing that will bring somebody back: no 2xx, and no new provision."""
    world = make_world(later())
    answer = world.agent.fire("j", T0 + HOUR_US)
    assert (answer.verdict, answer.settled, world.nas.asked) == ("early", False, [])
    world.now_us = T0 + HOUR_US
    assert world.agent.fire("j", T0 + HOUR_US).verdict is Verdict.ACCEPTED
    world.settle()


@pytest.mark.parametrize(("ahead_s", "verdict"), [(59, "accepted"), (60, "accepted"), (61, "early")])
def test_fire_is_believed_as_far_ahead_as_clocks_may_differ(
    make_world: MakeWorld, ahead_s: int, verdict: str
) -> None:
    """After a resume this clock may be behind for a while (incident W4)."""
    world = make_world(every_hour())
    world.now_us = T0 - ahead_s * SECOND_US
    assert world.agent.fire("j", T0).verdict == verdict
    world.settle()


def test_early_fire_is_answered_503_with_a_word_of_its_own() -> None:
    """200 would consume the arm, also where NAS has agreed to the right one."""
    flow, _ = begin(Fire(job_id="j", fire_at_us=FAR_US), owner="me", now_us=T0)
    flow, (ask,) = step(flow, JobLoaded(later()), T0)
    assert ask == ProvisionArm(job_id="j", fire_at_us=T0 + HOUR_US, revision=0)
    _, (answer,) = step(flow, ArmAccepted(echoed=True), T0)
    assert isinstance(answer, Answer)
    told = answer_to_fire(answer)
    assert (told.status, told.body.error, told.retry_after_s) == (503, "early", 10)  # type: ignore[union-attr]


def test_fire_from_the_future_for_what_wants_no_wake_is_consumed() -> None:
    """Nothing could be due by then: of a removed job, one that is paused, or before its next slot."""
    paused = evolve(later(), state="paused")
    repeated = evolve(later(), next_us=FAR_US + HOUR_US)
    for job, verdict in ((None, "gone"), (paused, "gone"), (repeated, "duplicate")):
        assert transitions.fire(job, fire_at_us=FAR_US, now_us=T0, owner="me").verdict == verdict
    flow, _ = begin(Fire(job_id="j", fire_at_us=FAR_US), owner="me", now_us=T0)
    flow, _ = step(flow, JobLoaded(None), T0)
    _, (answer,) = step(flow, ArmAccepted(echoed=True), T0)
    assert isinstance(answer, Answer)
    assert answer.settled


def test_fire_that_was_early_is_not_owed_by_the_process() -> None:
    """NAS delivers it again; the process itself need not come back."""
    fire = Fire(job_id="j", fire_at_us=FAR_US, fired=Fired(origin=Origin.SCHEDULE))
    answer = Answer(job_id="j", verdict=Verdict.EARLY, reason="", settled=False)
    assert follow_ups.follow_up(fire, answer, T0) is None


# --- A clock that is far wrong -----------------------------------------------------------------

AHEAD_US = (HOUR_US, 2 * DAY_US, 3_650 * DAY_US)


class Timed:
    """A world whose NAS tells the time, and whose agent's clock may be wrong."""

    def __init__(self, make_world: MakeWorld, *jobs: Job, dates: bool = True) -> None:
        self.nas = TimedNas(self) if dates else Nas()
        self.now_us, self.off_us = T0, 0
        self.world = make_world(*jobs, nas=self.nas, clock=lambda: self.now_us + self.off_us)
        self.agent = self.world.agent

    def job(self, job_id: str = "j") -> Job:
        return self.world.job(job_id)

    def settle(self) -> None:
        self.world.release.set()
        until(lambda: not [each for each in self.agent.pending() if "run of" in each.reason])

    def ran(self) -> list[str]:
        return [format_instant(context.occurrence_us)[11:16] for context in self.world.ran]


class TimedNas(Nas):
    """NAS that says what time it is."""

    def __init__(self, timed: Timed) -> None:
        super().__init__()
        self._timed = timed

    def _answer(self, request: httpx.Request) -> httpx.Response:
        response = super()._answer(request)
        response.headers["Date"] = formatdate(self._timed.now_us // SECOND_US, usegmt=True)
        return response


def parked(ahead_us: int, job_id: str = "j", **changes: object) -> Job:
    """Return a job that a clock so far ahead has left in the future."""
    slot_us = T0 + ahead_us - ahead_us % HOUR_US + HOUR_US
    return every_hour(job_id, **({"next_us": slot_us} | changes))


@pytest.mark.parametrize("off_us", [*AHEAD_US, *(-ahead_us for ahead_us in AHEAD_US)])
def test_start_takes_nothing_on_the_word_of_a_clock_that_nas_contradicts(
    make_world: MakeWorld, off_us: int, caplog: pytest.LogCaptureFixture
) -> None:
    """No occurrence is run, missed or moved; NAS has the arms, and everybody is told (incident T3)."""
    once = Job(id="once", schedule=Once(at_us=T0 + 50 * MINUTE_US), next_us=T0 + 50 * MINUTE_US)
    timed = Timed(make_world, later(), once)
    timed.off_us = off_us
    assert timed.agent.start().settled
    assert timed.nas.arms == {"j": at(HOUR_US), "once": at(50 * MINUTE_US)}
    assert (timed.world.ran, timed.world.outcomes(), timed.world.outcomes("once")) == ([], [], [])
    assert (timed.job().next_us, timed.job("once").next_us) == (T0 + HOUR_US, T0 + 50 * MINUTE_US)
    status = timed.agent.status()
    assert "is not believed" in status.clock
    assert ("ahead of" if off_us > 0 else "behind") in status.clock
    assert any("is not believed" in each.reason for each in timed.agent.pending())
    assert sum("is not believed" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("off_us", [HOUR_US, 2 * DAY_US, -HOUR_US])
def test_fire_is_taken_by_the_word_of_nas_while_the_clock_is_wrong(
    make_world: MakeWorld, off_us: int
) -> None:
    """It takes what it names and nothing later, and what comes after is armed by its schedule."""
    timed = Timed(make_world, later())
    timed.off_us = off_us
    timed.agent.start()
    timed.now_us = T0 + HOUR_US
    answer = timed.agent.fire("j", T0 + HOUR_US)
    assert (answer.verdict, answer.settled) == ("accepted", True)
    timed.settle()
    assert timed.job().next_us == T0 + 2 * HOUR_US
    assert timed.nas.arms == {"j": at(2 * HOUR_US)}
    assert [outcome.result for outcome in timed.world.store.history("j")] == ["completed"]


def test_clock_that_is_right_again_is_believed_at_the_next_look(make_world: MakeWorld) -> None:
    """It is looked at again by itself, and then what is overdue is taken."""
    timed = Timed(make_world, every_hour())
    timed.off_us = -HOUR_US
    timed.agent.start()
    timed.now_us, timed.off_us = T0 + 5 * MINUTE_US, 0
    until(lambda: timed.agent.status().clock == "")
    until(lambda: timed.ran() == ["12:00"])
    timed.settle()
    until(lambda: timed.agent.pending() == ())


@pytest.mark.parametrize("dates", [True, False])
@pytest.mark.parametrize("ahead_us", AHEAD_US)
def test_start_puts_back_what_a_clock_that_was_ahead_has_left(
    make_world: MakeWorld, ahead_us: int, dates: bool
) -> None:
    """It goes on with the first slot of its schedule after now."""
    timed = Timed(make_world, parked(ahead_us), parked(ahead_us, "k"), dates=dates)
    timed.now_us = T0 + MINUTE_US
    assert timed.agent.start().settled
    assert timed.nas.arms == {"j": at(HOUR_US), "k": at(HOUR_US)}
    assert (timed.job().next_us, timed.world.outcomes()) == (T0 + HOUR_US, [])
    assert timed.agent.start().flows == 0


@pytest.mark.parametrize("kind", ["edit", "edit of the bounds", "resume", "resume from now"])
def test_change_of_a_job_that_stands_ahead_counts_from_now(make_world: MakeWorld, kind: str) -> None:
    """As it is documented; no start need come before it."""
    state = JobState.PAUSED if kind.startswith("resume") else JobState.SCHEDULED
    timed = Timed(make_world, parked(2 * DAY_US, state=state))
    timed.now_us = T0 + MINUTE_US
    if kind == "edit":
        timed.agent.edit("j", schedule="30 * * * *")
        assert timed.job().next_us == T0 + 30 * MINUTE_US
    elif kind == "edit of the bounds":
        timed.agent.edit("j", times=7)
        assert timed.job().next_us == T0 + HOUR_US
    else:
        timed.agent.resume("j", from_now="now" in kind)
        assert timed.job().next_us == T0 + HOUR_US + ("now" in kind) * MINUTE_US


def test_what_ran_while_the_clock_was_ahead_does_not_run_again(make_world: MakeWorld) -> None:
    """The schedule passes it over, and it keeps the one outcome that it has."""
    timed = Timed(make_world, every_hour(), dates=False)
    timed.world.release.set()
    timed.now_us = T0 + 3 * HOUR_US
    timed.agent.fire("j", T0 + 3 * HOUR_US)
    timed.settle()
    timed.now_us = T0 + MINUTE_US
    timed.agent.start()
    for hours in (1, 2, 4):
        due_us = T0 + hours * HOUR_US
        assert timed.job().next_us == due_us
        assert timed.nas.arms == {"j": at(hours * HOUR_US)}
        timed.now_us = due_us
        assert timed.agent.fire("j", due_us).verdict is Verdict.ACCEPTED
        timed.settle()
    assert timed.ran() == ["15:00", "13:00", "14:00", "16:00"]
    assert timed.job().ran_ahead_us == ()
    completed = [each.occurrence_us for each in timed.world.store.history("j") if each.attempt]
    assert len(completed) == len(set(completed)) == 4


def test_lease_and_retry_of_a_clock_that_was_ahead_are_cut_short(make_world: MakeWorld) -> None:
    """A dead owner would block its job for years; a living one renews."""
    far_us = T0 + 730 * DAY_US
    run = Run(occurrence_us=T0, attempt=1, owner="other", claimed_us=far_us, lease_until_us=far_us + LEASE_US)
    again = Waiting(occurrence_us=T0, attempt=2, not_before_us=far_us, origin=Origin.SCHEDULE)
    retried = Policy(attempts=3, retry_delay_us=MINUTE_US)
    timed = Timed(
        make_world,
        later("running", runs=(run,), policy=retried),
        later("between", waiting=(again,), policy=retried),
    )
    timed.agent.start()
    assert timed.job("running").runs[0].lease_until_us == T0 + LEASE_US
    assert timed.job("between").waiting[0].not_before_us == T0 + MINUTE_US
    assert timed.nas.arms["between"] == at(MINUTE_US)


def test_start_by_a_clock_that_is_behind_repeats_nothing_that_the_history_knows() -> None:
    """Where NAS does not tell the time, the clock is believed, and no further than the history reaches."""
    outcomes = [
        Outcome(
            job_id="j",
            result=Result.COMPLETED,
            reason="",
            occurrence_us=T0 - hours * HOUR_US,
            last_occurrence_us=T0 - hours * HOUR_US,
            attempt=1,
            at_us=T0,
        )
        for hours in (5, 4, 3, 1)
    ]
    back = put_back(every_hour(), outcomes, now_us=T0 - 100 * HOUR_US, belief=Belief.UNKNOWN)
    assert (back.next_us, back.ran_ahead_us) == (T0 - 2 * HOUR_US, (T0 - HOUR_US,))
    sure = put_back(every_hour(), outcomes, now_us=T0 - 100 * HOUR_US, belief=Belief.CONFIRMED)
    assert sure.next_us == T0 - 99 * HOUR_US


def test_slot_that_ran_ahead_is_not_counted_among_those_that_were_missed() -> None:
    """After an outage the stretch of what was missed has no outcome for what ran."""
    job = every_hour(ran_ahead_us=(T0 + 2 * HOUR_US,))
    move = transitions.fire(job, fire_at_us=T0 + 4 * HOUR_US, now_us=T0 + 4 * HOUR_US, owner="me")
    assert [(each.occurrence_us, each.count) for each in move.outcomes] == [(T0, 3)]


def test_job_that_nothing_is_wrong_with_is_left_alone() -> None:
    """What NAS's word took while this clock is behind is no sign of a clock that was ahead."""
    for off_us in (0, -59 * SECOND_US, 59 * SECOND_US):
        assert not stands_ahead(later(), T0 + off_us)
    assert not stands_ahead(later(), 0)  # a machine that has no time yet
    off_grid = every_hour(next_us=T0 + 5 * HOUR_US + MINUTE_US)
    assert not stands_ahead(off_grid, T0)


@pytest.mark.parametrize("date", [None, "", "soon", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_answer_without_a_date_says_nothing_of_the_clock(date: str | None) -> None:
    """The clock is believed, as it was."""
    headers = {} if date is None else {"date": date}
    assert compared(T0, T0, date_of(headers), 0) is None


def test_date_that_a_cache_has_kept_is_none() -> None:
    """It says what the time was."""
    date = formatdate(T0 // SECOND_US, usegmt=True)
    assert date_of({"date": date}) == T0
    assert date_of({"date": date, "age": "3600"}) is None


@pytest.mark.parametrize(
    ("off_s", "belief"), [(59, "confirmed"), (-59, "confirmed"), (62, "doubted"), (-61, "doubted")]
)
def test_clock_is_doubted_only_when_no_delay_explains_the_difference(off_s: int, belief: str) -> None:
    """Dates have whole seconds, and an answer takes its time."""
    off_us = off_s * SECOND_US
    reading = compared(T0 + off_us, T0 + off_us, T0, 0)
    assert reading is not None
    assert reading.belief(T0 + off_us, 0) == belief
    slow = compared(T0 - 30 * SECOND_US, T0 + 80 * SECOND_US, T0, 0)
    assert slow is not None
    assert slow.belief(T0, 0) is not Belief.DOUBTED


def test_clock_that_was_set_is_unknown_again_and_a_doubted_one_stays_doubted() -> None:
    """A sleep is no change: the steady clock goes on meanwhile."""
    right, wrong = compared(T0, T0, T0, 0), compared(T0 + HOUR_US, T0 + HOUR_US, T0, 0)
    assert right is not None
    assert wrong is not None
    assert right.belief(T0 + MINUTE_US, MINUTE_US) is Belief.CONFIRMED
    assert right.belief(T0 + HOUR_US, MINUTE_US) is Belief.UNKNOWN
    assert right.belief(T0 + HOUR_US, HOUR_US) is Belief.UNKNOWN
    assert wrong.belief(T0, 0) is Belief.DOUBTED
    assert abs(wrong.corrected(T0 + HOUR_US + MINUTE_US, MINUTE_US) - T0 - MINUTE_US) <= SECOND_US
    assert wrong.corrected(T0, 0) == T0


# --- The ticker, which has nobody to ask ---------------------------------------------------------


class Ticking:
    """An agent without NAS, whose clock goes on by itself and is set by the test."""

    def __init__(self, make_world: MakeWorld, *jobs: Job) -> None:
        self.off_us, began_s = 0, time.monotonic()
        self.world = make_world(
            *jobs,
            has_nas=False,
            clock=lambda: T0 + self.off_us + int((time.monotonic() - began_s) * SECOND_US),
        )
        self.world.release.set()
        self.world.agent.start()

    def set(self, off_us: int) -> None:
        """Set the clock, and let the ticker notice, as it does within a minute."""
        self.off_us = off_us
        scheduler: Any = self.world.agent.scheduler

        def nudge() -> None:
            ticker = evolve(scheduler._process.ticker, next_us=0)
            scheduler._process = evolve(scheduler._process, ticker=ticker)
            scheduler._set_alarm()

        if self.world.loop is None:
            with scheduler._changed:
                nudge()
        else:
            self.world.loop._loop.call_soon_threadsafe(nudge)

    def slots(self, job_id: str = "j") -> list[int]:
        return [context.occurrence_us for context in list(self.world.ran) if context.job_id == job_id]


def seconds(job_id: str = "j", **changes: object) -> Job:
    often = Interval(period_us=SECOND_US, anchor_us=T0)
    return Job(id=job_id, schedule=often, next_us=T0 + SECOND_US, **changes)  # type: ignore[arg-type]


def test_ticker_whose_clock_was_ahead_and_is_set_back_goes_on_at_once(make_world: MakeWorld) -> None:
    """It does not stand still for the hour, and runs no slot twice."""
    ticking = Ticking(make_world, seconds())
    until(lambda: ticking.slots())
    ticking.set(HOUR_US)
    until(lambda: ticking.slots()[-1] > T0 + HOUR_US)
    ticking.set(0)
    until(lambda: len([slot for slot in ticking.slots() if slot < T0 + MINUTE_US]) >= 4)
    assert len(ticking.slots()) == len(set(ticking.slots()))
    assert ticking.world.job().ran_ahead_us


def test_ticker_whose_clock_is_set_forward_runs_what_became_due(make_world: MakeWorld) -> None:
    """By less than three hours: it is summer time, or a clock that was a little late."""
    once = Job(id="once", schedule=Once(at_us=T0 + HOUR_US), next_us=T0 + HOUR_US)
    ticking = Ticking(make_world, once)
    ticking.set(HOUR_US + MINUTE_US)
    until(lambda: ticking.slots("once") == [T0 + HOUR_US])


def test_ticker_whose_clock_is_corrected_makes_up_for_nothing(make_world: MakeWorld) -> None:
    """What was jumped over has an outcome that says so, and the schedule goes on by the new time."""
    patient = Policy(catch_up=CatchUp.ALL)
    ticking = Ticking(make_world, later(policy=patient))
    ticking.set(5 * HOUR_US + MINUTE_US)
    until(lambda: ticking.world.outcomes())
    (outcome,) = ticking.world.store.history("j")
    assert (outcome.result, outcome.count) == (Result.MISSED, 5)
    assert "set forward" in outcome.reason
    assert ticking.world.job().next_us == T0 + 6 * HOUR_US
    assert ticking.slots() == []
