"""What both schedulers tell of their jobs: the store, NAS and the process beside each other."""

from __future__ import annotations

import pytest

from chronos.agent.status import JobStatus
from chronos.errors import JobsFileError, StoreError
from chronos.jobs.instants import HOUR_US, MINUTE_US, SECOND_US, datetime_of
from chronos.jobs.job import JobState, Lateness, Result
from chronos.jobs.policy import Policy
from chronos.jobs.schedule import Interval, Once
from tests.agents import T0, MakeWorld, World, at, every_hour, later, until

DOWN = "NasUnavailable: NAS answered 503 with a body that is no message"


def told(world: World, job_id: str = "j") -> JobStatus:
    (found,) = [each for each in world.agent.status().jobs if each.job.id == job_id]
    return found


def test_an_armed_job_is_sure_to_wake_the_machine(make_world: MakeWorld) -> None:
    """The store and NAS agree on the instant."""
    world = make_world(later())
    world.agent.start()
    status = told(world)
    assert (status.job, status.wake_us) == (later(), T0 + HOUR_US)
    assert (status.is_armed, status.why) == (True, "armed")
    assert (status.last, status.lateness) == (None, None)


def test_a_status_costs_one_call_of_nas(make_world: MakeWorld) -> None:
    """It is asked by people, again and again, and changes nothing."""
    world = make_world(*(later(f"j{number}") for number in range(5)))
    jobs = world.store.load_all()
    status = world.agent.status()
    assert [each.job.id for each in status.jobs] == [f"j{number}" for number in range(5)]
    assert world.nas.asked == ["list"]
    assert (world.store.load_all(), world.nas.arms) == (jobs, {})
    assert (status.trigger, status.trouble, status.pending) == ("NAS", "", ())


def test_a_job_that_is_not_armed_says_why(make_world: MakeWorld) -> None:
    """The process may know; otherwise NAS simply has nothing for it."""
    world = make_world(later("unknown"))
    world.nas.is_down = True
    world.agent.create("known", Interval(period_us=HOUR_US, anchor_us=T0))
    world.quiet()
    world.nas.is_down = False
    status = world.agent.status()
    assert [(each.is_armed, each.why) for each in status.jobs] == [
        (False, "NAS has no arm for it"),
        (False, "NAS has not agreed to the job's arm: " + DOWN),
    ]
    assert [each.job_id for each in status.pending] == ["known"]


@pytest.mark.parametrize(
    ("offset_us", "is_armed"), [(30 * MINUTE_US, True), (90 * MINUTE_US, False)], ids=["early", "late"]
)
def test_a_job_that_is_armed_elsewhere_says_for_when(
    make_world: MakeWorld, offset_us: int, is_armed: bool
) -> None:
    """Too early, the machine wakes and arms what is right; too late, the occurrence is."""
    world = make_world(later())
    world.nas.arms["j"] = at(offset_us)
    status = told(world)
    assert (status.is_armed, status.why) == (is_armed, f"NAS has it armed for {at(offset_us)}")


def test_an_arm_that_cannot_be_read_is_none(make_world: MakeWorld) -> None:
    """NAS's text for it is no instant."""
    world = make_world(later())
    world.nas.arms["j"] = "soon"
    status = told(world)
    assert (status.is_armed, status.why) == (False, "NAS has it armed for an instant that cannot be read")


@pytest.mark.parametrize(("note", "why"), [("", "paused"), ("on holiday", "paused: on holiday")])
def test_a_paused_job_says_so_with_its_note(make_world: MakeWorld, note: str, why: str) -> None:
    """It needs no wake, and whoever looks learns why."""
    world = make_world(later())
    world.agent.pause("j", note=note)
    status = told(world)
    assert (status.wake_us, status.is_armed, status.why) == (None, False, why)


def test_a_job_without_further_occurrences_says_so(make_world: MakeWorld) -> None:
    """Its last run may still be in flight."""
    world = make_world(every_hour(schedule=Once(at_us=T0)))
    world.agent.fire("j", T0)
    assert (told(world).is_armed, told(world).why) == (False, "its last run is in flight")
    world.settle()
    assert told(world).why == "completed"
    assert told(world).job.state is JobState.COMPLETED


def test_arms_of_jobs_that_need_none_are_orphans(make_world: MakeWorld) -> None:
    """Those of no job, and those of jobs that are paused; the next start takes them away."""
    world = make_world(later(), every_hour("paused", state=JobState.PAUSED))
    world.nas.arms = {"j": at(HOUR_US), "nobody": at(5 * SECOND_US), "paused": at(0), "strange": "soon"}
    assert world.agent.status().orphans == {
        "nobody": datetime_of(T0 + 5 * SECOND_US),
        "paused": datetime_of(T0),
        "strange": None,
    }
    world.agent.start()
    assert world.agent.status().orphans == {}


def test_the_last_outcome_and_its_lateness_are_told_by_hop(make_world: MakeWorld) -> None:
    """Where the time went: the relay, the wake of the machine, the claim."""
    world = make_world(every_hour())
    world.release.set()
    world.now_us = T0 + 9 * SECOND_US
    world.agent.fire("j", T0, minted_us=T0 + 2 * SECOND_US, received_us=T0 + 8 * SECOND_US)
    world.quiet()
    status = told(world)
    assert status.last is not None
    assert status.last.result is Result.COMPLETED
    assert status.lateness == Lateness(
        total_us=9 * SECOND_US, relay_us=2 * SECOND_US, wake_us=6 * SECOND_US, claim_us=SECOND_US
    )


def test_an_occurrence_that_was_not_claimed_has_no_lateness(make_world: MakeWorld) -> None:
    """It was missed; only that is told."""
    world = make_world(every_hour(policy=Policy(misfire_grace_us=0)))
    world.now_us = T0 + MINUTE_US
    world.agent.fire("j", T0)
    status = told(world)
    assert status.last is not None
    assert (status.last.result, status.lateness) == (Result.MISSED, None)


def test_the_host_may_stop_when_nothing_is_at_work(make_world: MakeWorld) -> None:
    """A run keeps the machine; what only waits for NAS does not (incident W1)."""
    world = make_world(every_hour())
    assert world.agent.status().may_stop
    world.agent.fire("j", T0)
    status = world.agent.status()
    assert not status.may_stop
    assert [each.job_id for each in status.pending] == ["j"]
    world.nas.is_down = True
    world.settle()
    status = world.agent.status()
    assert status.may_stop


def test_nas_that_is_not_reached_is_a_trouble_and_no_error(make_world: MakeWorld) -> None:
    """Of each job it is not known whether it is armed; the rest is told."""
    world = make_world(later(), every_hour("paused", state=JobState.PAUSED, note="why not"))
    world.nas.is_down = True
    status = world.agent.status()
    assert status.trouble == "NAS could not say what is armed: " + DOWN
    assert [(each.is_armed, each.why) for each in status.jobs] == [
        (None, "NAS could not say what is armed"),
        (False, "paused: why not"),
    ]
    assert (status.orphans, status.trigger) == ({}, "NAS")


def test_a_status_is_told_by_an_agent_whose_identity_is_refused(make_world: MakeWorld) -> None:
    """It runs its jobs by itself, and says so."""
    world = make_world(later())
    world.nas.has_login = False
    world.agent.start()
    until(lambda: world.agent.status().jobs[0].is_armed)
    status = world.agent.status()
    assert (status.trigger, status.trouble, status.may_stop) == ("this process", "", False)
    assert world.nas.asked == ["list"]


ERRORS = [
    StoreError("busy", definite=True),
    JobsFileError("jobs.json", None, None, "no JSON"),
    OSError("gone"),
    StopIteration(),
    SystemExit(1),
]


@pytest.mark.parametrize("method", ["load_all", "latest"])
@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_store_that_cannot_be_read_is_an_error(
    make_world: MakeWorld, method: str, error: BaseException
) -> None:
    """A status without jobs would look like none; the agent lives on."""
    world = make_world(later())
    expected = JobsFileError if isinstance(error, JobsFileError) else StoreError
    with world.failing_store(error, method=method), pytest.raises(expected):
        world.agent.status()
    assert told(world).job == later()


def test_a_status_is_had_while_draining_and_while_stopped(make_world: MakeWorld) -> None:
    """That is when people look."""
    world = make_world(later())
    world.agent.start()
    world.agent.drain()
    world.is_stopped = True
    status = world.agent.status()
    assert status.jobs[0].is_armed
    assert [each.reason for each in status.pending] == ["the agent is told to run no jobs"]
