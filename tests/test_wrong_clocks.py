"""Clocks that are more wrong than clocks may differ: nothing is run, or ended, on their word alone."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import pytest

from chronos.protocol import machine, transitions
from chronos.protocol.draft import Fired
from chronos.protocol.job import Origin, Verdict
from chronos.protocol.machine import (
    Answer,
    ArmAccepted,
    Fire,
    JobLoaded,
    ProvisionArm,
    begin,
    step,
)
from chronos.protocol.messages import answer_to_fire
from chronos.protocol.schedule import DAY_US, HOUR_US, SECOND_US
from tests.agents import KINDS, T0, MakeWorld, every_hour, later, worlds


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
    paused = attrs.evolve(later(), state="paused")
    repeated = attrs.evolve(later(), next_us=FAR_US + HOUR_US)
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
    assert machine.follow_up(fire, answer, T0) is None
