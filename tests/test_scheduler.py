"""The schedulers over a real store and client, with a NAS in memory: how a fire is answered."""

from __future__ import annotations

from typing import Any

import pytest

from chronos.agent.runner import RunContext
from chronos.errors import StoreError
from chronos.jobs.instants import HOUR_US, MINUTE_US, SECOND_US
from chronos.jobs.job import LEASE_US, Origin, Result, Verdict
from chronos.jobs.policy import OnInterrupt, Policy
from tests.agents import T0, MakeWorld, Nas, at, every_hour, until


def test_a_fire_runs_once_and_arms_the_next_occurrence_before_it_is_answered(make_world: MakeWorld) -> None:
    """When the answer says accepted, NAS already has the next arm, and the run is in flight."""
    world = make_world(every_hour())
    answer = world.agent.fire("j", T0)
    assert (answer.verdict, answer.settled) == (Verdict.ACCEPTED, True)
    assert world.nas.arms == {"j": at(HOUR_US)}
    until(lambda: world.ran)
    (pending,) = world.agent.pending()
    assert (pending.job_id, pending.is_busy) == ("j", True)
    assert "in flight" in pending.reason
    world.settle()
    assert world.ran == [RunContext(job_id="j", occurrence_us=T0, attempt=1)]
    assert world.outcomes() == [(Result.COMPLETED, "")]
    assert world.agent.pending() == ()
    assert world.nas.asked == ["provision j"]


def test_the_hops_of_a_fire_are_kept_with_its_outcome(make_world: MakeWorld) -> None:
    """When NAS minted the token and when the fire arrived tell later where the time went."""
    world = make_world(every_hour())
    world.release.set()
    world.now_us = T0 + 5 * SECOND_US
    world.agent.fire("j", T0, minted_us=T0 + 1, received_us=T0 + 2)
    world.quiet()
    (outcome,) = world.agent.ask("history", "j")
    assert (outcome.minted_us, outcome.received_us, outcome.claimed_us) == (T0 + 1, T0 + 2, world.now_us)


@pytest.mark.parametrize("has_ended", [False, True])
def test_a_redelivered_fire_is_a_duplicate(make_world: MakeWorld, has_ended: bool) -> None:
    """Whether the run is still in flight or over, it does not run again (incident D1)."""
    world = make_world(every_hour())
    world.agent.fire("j", T0)
    if has_ended:
        world.settle()
    answer = world.agent.fire("j", T0)
    assert (answer.verdict, answer.settled) == (Verdict.DUPLICATE, True)
    world.settle()
    assert len(world.ran) == 1


def test_fires_at_once_on_two_schedulers_run_once(make_world: MakeWorld) -> None:
    """Replicas share the store; its compare-and-set lets one of them claim (incidents D3, W2)."""
    world = make_world(every_hour())
    other = world.another()
    asked = [replica.begin("fire", "j", T0) for replica in (world.agent, other, world.agent, other)]
    answers = [each.result(10) for each in asked]
    assert sorted(str(answer.verdict) for answer in answers) == ["accepted", *["duplicate"] * 3]
    assert all(answer.settled for answer in answers)
    world.settle()
    assert len(world.ran) == 1


def test_many_fires_of_many_jobs_at_once_each_run_once(make_world: MakeWorld) -> None:
    """Whichever way the steps of the flows fall between each other, each job runs and is armed."""
    jobs = [every_hour(f"j{number}") for number in range(10)]
    world = make_world(*jobs)
    world.release.set()
    asked = [world.agent.begin("fire", job.id, T0) for job in jobs for _ in range(2)]
    verdicts = sorted(str(each.result(10).verdict) for each in asked)
    assert verdicts == ["accepted"] * 10 + ["duplicate"] * 10
    world.quiet()
    assert sorted(context.job_id for context in world.ran) == [job.id for job in jobs]
    assert world.nas.arms == {job.id: at(HOUR_US) for job in jobs}


def test_a_fire_runs_although_nas_is_down_and_its_redelivery_arms(make_world: MakeWorld) -> None:
    """The answer is unsettled, NAS comes back, and then nothing runs again (incidents L5, L6, L7)."""
    world = make_world(every_hour())
    world.nas.is_down = True
    answer = world.agent.fire("j", T0)
    assert (answer.verdict, answer.settled) == (Verdict.ACCEPTED, False)
    assert "503" in answer.trouble
    until(lambda: world.ran)
    world.nas.is_down = False
    again = world.agent.fire("j", T0)
    assert (again.verdict, again.settled) == (Verdict.DUPLICATE, True)
    assert world.nas.arms == {"j": at(HOUR_US)}
    world.settle()
    assert len(world.ran) == 1


def test_the_end_of_a_run_confirms_an_arm_that_was_not_accepted(make_world: MakeWorld) -> None:
    """Also without a redelivery, the run's own end comes back to the arm."""
    world = make_world(every_hour())
    world.nas.is_down = True
    world.agent.fire("j", T0)
    world.nas.is_down = False
    world.settle()
    assert world.nas.arms == {"j": at(HOUR_US)}
    assert world.agent.pending() == ()


def test_the_end_of_a_run_arms_again_where_nas_does_not_keep_revisions(make_world: MakeWorld) -> None:
    """Such a NAS's clean-up of the delivered fire may have deleted the new arm (incident L10)."""
    world = make_world(every_hour(), nas=Nas(echoes=False))
    assert world.agent.fire("j", T0).settled
    world.nas.arms.clear()
    world.settle()
    assert world.nas.arms == {"j": at(HOUR_US)}


def test_an_arm_within_a_fire_is_bounded(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """NAS that hangs must not hold the answer back beyond the relay's timeout; the run starts."""
    monkeypatch.setattr("chronos.protocol.tasks.NAS_TIMEOUT_IN_FIRE_US", 50_000)
    world = make_world(every_hour())
    gate = world.nas.hang()
    answer = world.agent.fire("j", T0)
    assert (answer.verdict, answer.settled) == (Verdict.ACCEPTED, False)
    assert "no answer" in answer.trouble or "did not answer" in answer.trouble
    until(lambda: world.ran)
    gate.set()
    world.settle()
    assert world.nas.arms == {"j": at(HOUR_US)}


def test_a_fire_of_an_unknown_job_is_gone_and_disarmed(make_world: MakeWorld) -> None:
    """An orphan is taken away when it wakes the machine (incidents O1, O4)."""
    world = make_world()
    world.nas.arms["j"] = at(0)
    answer = world.agent.fire("j", T0)
    assert (answer.verdict, answer.settled) == (Verdict.GONE, True)
    assert world.nas.arms == {}


def test_a_redelivery_during_the_claim_does_not_bury_it(make_world: MakeWorld) -> None:
    """The run is stored and not started yet, while NAS is asked: another flow is at work on it."""
    world = make_world(every_hour())
    gate = world.nas.hang()
    first = world.agent.begin("fire", "j", T0)
    until(lambda: world.nas.asked)
    second = world.agent.begin("fire", "j", T0)
    until(lambda: len(world.nas.asked) == 2)
    gate.set()
    assert first.result(10).verdict is Verdict.ACCEPTED
    assert second.result(10).verdict is Verdict.DUPLICATE
    world.settle()
    assert world.outcomes() == [(Result.COMPLETED, "")]


def test_a_claim_whose_lease_ended_before_its_run_could_start_is_lost(make_world: MakeWorld) -> None:
    """The machine slept in between, others may have taken the run, and NAS comes back to see."""
    world = make_world(every_hour())
    gate = world.nas.hang()
    fire = world.agent.begin("fire", "j", T0)
    until(lambda: world.nas.asked)
    world.now_us += LEASE_US
    gate.set()
    answer = fire.result(10)
    assert (answer.verdict, answer.settled) == (Verdict.LOST, False)
    assert "lease ended" in world.agent.pending()[0].reason
    assert world.agent.fire("j", T0).settled
    assert world.ran == []
    assert [result for result, _ in world.outcomes()] == [Result.INTERRUPTED]


# --- A store that fails ---


class Exits(BaseException):
    """Neither an error of the store nor any other that somebody expects."""


ERRORS = [StoreError("full", definite=True), OSError("gone"), StopIteration(), Exits(), SystemExit(1)]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("method", ["load", "swap"])
def test_a_store_that_fails_is_answered_unsettled(
    make_world: MakeWorld, error: BaseException, method: str
) -> None:
    """Nothing runs, NAS comes back, and the agent lives on."""
    world = make_world(every_hour())
    with world.failing_store(error, method=method):
        answer = world.agent.fire("j", T0)
    assert (answer.verdict, answer.settled) == (None, False)
    assert world.ran == []
    (pending,) = world.agent.pending()
    assert (pending.job_id, pending.is_busy) == ("j", False)
    assert world.agent.fire("j", T0).verdict is Verdict.ACCEPTED
    world.settle()
    assert world.agent.pending() == ()


@pytest.mark.parametrize("on_interrupt", list(OnInterrupt))
def test_a_claim_that_was_stored_though_the_store_failed_is_settled_by_the_redelivery(
    make_world: MakeWorld, on_interrupt: OnInterrupt
) -> None:
    """The process finds a run of its own that it knows nothing of, and does not wait for its lease."""
    world = make_world(every_hour(policy=Policy(on_interrupt=on_interrupt)))
    with world.store_that_loses_its_answer():
        answer = world.agent.fire("j", T0)
    assert (answer.verdict, answer.settled) == (None, False)
    assert (len(world.job().runs), world.ran) == (1, [])
    assert world.agent.fire("j", T0).settled
    world.settle()
    assert world.job().runs == ()
    assert world.nas.arms == {"j": at(HOUR_US)}
    is_retried = on_interrupt is OnInterrupt.RETRY
    assert [context.attempt for context in world.ran] == [2] * is_retried
    (outcome,) = world.store.history("j")
    assert outcome.result is (Result.COMPLETED if is_retried else Result.INTERRUPTED)


def test_a_claim_that_another_process_made_first_is_a_duplicate(make_world: MakeWorld) -> None:
    """The swap finds the job changed, and the flow decides anew with the job as it is."""
    world = make_world(every_hour())
    other, load, is_first = world.another(), world.store.load, [True]

    def loads_late(job_id: str) -> Any:
        job = load(job_id)
        if is_first:
            is_first.clear()
            assert other.fire("j", T0).verdict is Verdict.ACCEPTED
        return job

    world.store.load = loads_late  # type: ignore[method-assign]
    assert world.agent.fire("j", T0).verdict is Verdict.DUPLICATE
    world.settle()
    assert len(world.ran) == 1


# --- Late fires ---


def test_a_fire_that_comes_too_late_is_missed_and_the_next_is_armed(make_world: MakeWorld) -> None:
    """What is beyond the grace does not run, and the schedule goes on."""
    world = make_world(every_hour())
    world.now_us = T0 + 45 * MINUTE_US
    answer = world.agent.fire("j", T0)
    assert (answer.verdict, answer.settled) == (Verdict.MISSED, True)
    assert (world.ran, [result for result, _ in world.outcomes()]) == ([], [Result.MISSED])
    assert world.nas.arms == {"j": at(HOUR_US)}


def test_history_is_kept_in_order(make_world: MakeWorld) -> None:
    """Ten occurrences, one after the other, each with its outcome and the next one armed."""
    world = make_world(every_hour())
    world.release.set()
    for number in range(10):
        world.now_us = T0 + number * HOUR_US
        assert world.agent.fire("j", world.now_us).verdict is Verdict.ACCEPTED
        world.quiet()
    history = world.agent.ask("history", "j")
    assert [outcome.occurrence_us for outcome in history] == [T0 + number * HOUR_US for number in range(10)]
    assert {outcome.origin for outcome in history} == {Origin.SCHEDULE}
    assert world.nas.arms == {"j": at(10 * HOUR_US)}


def test_the_history_of_an_unreadable_store_is_an_error(make_world: MakeWorld) -> None:
    """Whoever asks is told, whatever the store raised."""
    world = make_world(every_hour())
    for error in ERRORS:
        with world.failing_store(error, method="history"), pytest.raises(StoreError):
            world.agent.ask("history", "j")
    assert world.agent.ask("history", "j") == ()
