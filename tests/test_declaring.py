"""Sets of jobs that an agent declares when it starts, and what it reads of them, through both schedulers."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronos import (
    DataError,
    Interval,
    JobSpec,
    JobStore,
    JsonFileStore,
    LocalMessageError,
    Overlap,
    Policy,
    ScheduleError,
    Scheduler,
    SqlStore,
    Verdict,
)
from chronos.errors import StoreError
from chronos.jobs.instants import HOUR_US, MINUTE_US, SECOND_US, Instant
from chronos.jobs.job import Job, JobState
from chronos.jobs.schedule import Cron, Once
from chronos.protocol import job_changes
from chronos.protocol.flow_effects import Answer
from chronos.values import evolve
from tests.agents import T0, MakeWorld, Nas, World, at, every_hour, later, until

NOON = datetime(2026, 6, 26, 12, tzinfo=UTC)
HOURLY = Interval(period=timedelta(hours=1), anchor=NOON)
SET = (
    JobSpec("nightly", "0 3 * * *", tz="Europe/Berlin", policy=Policy(overlap=Overlap.QUEUE)),
    JobSpec("often", timedelta(minutes=10), data={"depth": 3}),
    JobSpec("soon", "+8s"),
    JobSpec("then", NOON + timedelta(hours=2)),
    JobSpec("thrice", "every 1h", times=3),
)


def declare(world: World, *specs: JobSpec, agent: int = 0, **options: Any) -> dict[str, Answer]:
    """Declare jobs through one of the agents, and forget what NAS was asked before."""
    world.nas.asked.clear()
    answers: dict[str, Answer] = world.agents[agent].ask("declare", specs, **options)
    return answers


# --- Declaring ---


def test_a_declared_set_is_made_once_whatever_restarts(make_world: MakeWorld) -> None:
    """At the next start, and an hour later, it costs no call to NAS and changes nothing."""
    world = make_world()
    answers = declare(world, *SET)
    assert [*answers] == [spec.id for spec in SET]
    assert all(answer.settled and answer.reason == "created" for answer in answers.values())
    assert sorted(world.nas.asked) == sorted(f"provision {spec.id}" for spec in SET)
    jobs, arms = world.store.load_all(), dict(world.nas.arms)
    assert arms["soon"] == at(8 * SECOND_US)
    assert arms["then"] == at(2 * HOUR_US)
    for gone_us in 0, 1, 3 * SECOND_US, HOUR_US:
        world.now_us = T0 + gone_us
        world.another(f"after {gone_us}")
        answers = declare(world, *SET, agent=-1)
        assert {(answer.verdict, answer.settled, answer.reason) for answer in answers.values()} == {
            (Verdict.CHANGED, True, "already so")
        }
        assert (world.nas.asked, world.store.load_all()) == ([], jobs)


def test_a_one_shot_that_has_run_is_not_made_anew(make_world: MakeWorld) -> None:
    """It is known by how it was declared; with another delay it is another one."""
    world = make_world()
    world.release.set()
    declare(world, JobSpec("soon", "in 8s"))
    world.now_us = T0 + 8 * SECOND_US
    assert world.agent.fire("soon", world.now_us).verdict is Verdict.ACCEPTED
    until(lambda: not world.agent.is_busy())
    for text in "in 8s", "+8s", " IN 8 seconds ":
        world.another(text)
        declare(world, JobSpec("soon", text), agent=-1)
        assert (world.job("soon").state, world.nas.asked) == (JobState.COMPLETED, [])
    world.now_us += HOUR_US
    answers = declare(world, JobSpec("soon", "in 9s"))
    assert (answers["soon"].reason, world.nas.arms["soon"]) == ("edited", at(HOUR_US + 17 * SECOND_US))
    assert len(world.ran) == 1


def test_what_is_declared_otherwise_is_edited_and_nothing_else(make_world: MakeWorld) -> None:
    """Of one job the schedule, of another the data; the third costs nothing."""
    world = make_world()
    declare(world, *SET)
    policy = Policy(overlap=Overlap.QUEUE)
    answers = declare(
        world,
        JobSpec("nightly", "30 3 * * *", tz="Europe/Berlin", policy=policy),
        JobSpec("often", timedelta(minutes=10), data={"depth": 4}),
        JobSpec("soon", "+8s"),
    )
    assert [answer.reason for answer in answers.values()] == ["edited", "edited", "already so"]
    assert sorted(world.nas.asked) == ["provision nightly", "provision often"]
    assert world.job("nightly").schedule == Cron(expr="30 3 * * *", tz="Europe/Berlin")
    assert (world.job("nightly").policy, world.job("often").data) == (policy, {"depth": 4})
    assert world.job("often").next_us == T0 + 10 * MINUTE_US


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("every 60m", "every 1h"),
        ("every 1h", timedelta(minutes=60)),
        ("@daily", "0 0 * * *"),
        ("0 9 * * MON", "0  9 * * 1"),
        ("in 90s", "+1m30s"),
        ("2026-06-26T14:00:00+02:00", "2026-06-26T12:30:00+00:30"),
        ("2026-06-26T13:00:00Z", NOON + timedelta(hours=1)),
        (
            Interval(period=timedelta(hours=1), anchor=NOON),
            Interval(period_us=HOUR_US, anchor_us=T0 - HOUR_US),
        ),
        (Interval(period=timedelta(hours=1), anchor=NOON + timedelta(minutes=7)), "1h"),
    ],
)
def test_two_spellings_of_one_schedule_are_one(make_world: MakeWorld, before: Any, after: Any) -> None:
    """What is compared is the meaning, so that a job keeps its phase and what is due of it."""
    world = make_world()
    world.now_us = T0 - HOUR_US
    declare(world, JobSpec("j", before))
    job = world.job()
    world.now_us = T0 + 17 * SECOND_US
    assert declare(world, JobSpec("j", after))["j"].reason == "already so"
    assert (world.job(), world.nas.asked) == (job, [])


def test_an_interval_with_another_anchor_is_another(make_world: MakeWorld) -> None:
    """Who names a slot means it."""
    world = make_world()
    declare(world, JobSpec("j", "every 1h"))
    anchor = NOON + timedelta(minutes=20)
    assert (
        declare(world, JobSpec("j", Interval(period=timedelta(hours=1), anchor=anchor)))["j"].reason
        == "edited"
    )
    assert world.nas.arms == {"j": at(20 * MINUTE_US)}


def test_a_job_that_a_person_paused_stays_paused(make_world: MakeWorld) -> None:
    """Also when it is declared otherwise: then it goes on with that once somebody resumes it."""
    world = make_world()
    declare(world, *SET)
    world.agent.pause("often", note="too loud")
    declare(world, *SET)
    assert (world.job("often").state, world.nas.asked) == (JobState.PAUSED, [])
    declare(world, JobSpec("often", "every 20m"))
    job = world.job("often")
    assert (job.state, job.note, "often" in world.nas.arms) == (JobState.PAUSED, "too loud", False)
    world.agent.resume("often")
    assert world.nas.arms["often"] == at(20 * MINUTE_US)


def test_a_job_that_has_completed_stays_so_unless_it_is_declared_otherwise(make_world: MakeWorld) -> None:
    """Another policy does not revive it, and more occurrences do."""
    world = make_world()
    world.release.set()
    declare(world, JobSpec("j", "every 1h", times=1))
    world.now_us = T0 + HOUR_US
    world.agent.fire("j", world.now_us)
    until(lambda: not world.agent.is_busy())
    assert declare(world, JobSpec("j", "every 1h", times=1))["j"].reason == "already so"
    declare(world, JobSpec("j", "every 1h", times=1, policy=Policy(attempts=2)))
    assert (world.job().state, world.nas.arms) == (JobState.COMPLETED, {})
    declare(world, JobSpec("j", "every 1h", times=2, policy=Policy(attempts=2)))
    assert (world.job().state, world.nas.arms) == (JobState.SCHEDULED, {"j": at(2 * HOUR_US)})


def test_what_was_edited_by_hand_is_put_back(make_world: MakeWorld) -> None:
    """What is declared stands above it; a one-shot that somebody has put off stays put off."""
    world = make_world()
    declare(world, *SET)
    world.agent.edit("often", schedule="every 2h", data=None)
    world.agent.edit("soon", schedule="in 1h")
    answers = declare(world, *SET)
    assert {job_id for job_id, answer in answers.items() if answer.reason == "edited"} == {"often"}
    assert (world.job("often").schedule.period_us, world.job("often").data) == (10 * MINUTE_US, {"depth": 3})
    assert world.nas.arms["soon"] == at(HOUR_US)
    world.agent.edit("soon", schedule="every 1h")
    assert declare(world, *SET)["soon"].reason == "edited"
    assert world.nas.arms["soon"] == at(8 * SECOND_US)


def test_the_others_are_left_alone_unless_it_is_asked(make_world: MakeWorld) -> None:
    """And then only those go that were declared before: what a person has created is theirs."""
    world = make_world(later("theirs"))
    declare(world, *SET)
    world.agent.create("by hand", "in 8s")
    declare(world, SET[0])
    assert len(world.store.load_all()) == 7
    answers = declare(world, SET[0], remove_others=True)
    assert [(job_id, answer.reason) for job_id, answer in answers.items()] == [
        ("nightly", "already so"),
        *((spec.id, "removed") for spec in SET[1:]),
    ]
    assert sorted(world.nas.asked) == sorted(f"cancel {spec.id}" for spec in SET[1:])
    assert [job.id for job in world.store.load_all()] == ["theirs", "nightly", "by hand"]
    assert declare(world, SET[0], remove_others=True) == {"nightly": answers["nightly"]}
    assert world.nas.asked == []


def test_a_job_that_was_created_before_is_taken_over_as_it_is(make_world: MakeWorld) -> None:
    """Once, with one call; a one-shot is not made anew for that, and is a declared one from then on."""
    world = make_world()
    world.agent.create("soon", "+8s")
    world.agent.create("often", "every 10m")
    world.now_us = T0 + 5 * SECOND_US
    declare(world, *SET[1:3])
    assert sorted(world.nas.asked) == ["provision often", "provision soon"]
    assert world.nas.arms == {"soon": at(8 * SECOND_US), "often": at(10 * MINUTE_US)}
    declare(world, *SET[1:3])
    assert world.nas.asked == []
    assert declare(world, remove_others=True).keys() == {"soon", "often"}
    assert world.store.load_all() == ()


def test_an_instant_that_has_passed_stops_no_other_job(make_world: MakeWorld) -> None:
    """It is refused by itself: a set that was good last year starts an agent this year."""
    world = make_world()
    past = NOON - timedelta(days=365)
    answers = declare(world, JobSpec("past", past), JobSpec("soon", "+8s"))
    assert (answers["past"].verdict, answers["past"].settled) == (Verdict.REFUSED, True)
    assert answers["past"].reason.startswith("2025-06-26T12:00:00+00:00 has no time left")
    assert world.nas.asked == ["provision soon"]
    assert declare(world, JobSpec("soon", past))["soon"].verdict is Verdict.REFUSED
    assert (world.nas.asked, world.nas.arms) == ([], {"soon": at(8 * SECOND_US)})


@pytest.mark.parametrize(
    ("arguments", "options", "error", "says"),
    [
        (("", "1h"), {}, LocalMessageError, "job.id is ''"),
        ((7, "1h"), {}, LocalMessageError, "job.id is the number 7"),
        (("j", "whenever"), {}, ScheduleError, "'whenever'"),
        (("j", timedelta(milliseconds=1)), {}, ScheduleError, "schedule is"),
        (("j", "1h"), {"tz": "Atlantis/Sunken"}, ScheduleError, "Atlantis/Sunken"),
        (("j", "1h"), {"times": 0}, ScheduleError, "times is 0"),
        (("j", "1h"), {"policy": "skip"}, TypeError, "policy is 'skip'"),
        (("j", "1h"), {"data": {1}}, DataError, "data is"),
    ],
)
def test_a_job_that_cannot_be_meant_is_no_job(
    arguments: Any, options: Any, error: type[Exception], says: str
) -> None:
    """It is refused where it is written, so that no set with it can be declared."""
    with pytest.raises(error, match=says):
        JobSpec(*arguments, **options)


@pytest.mark.parametrize(
    ("jobs", "options", "error", "says"),
    [
        ((*SET, JobSpec("soon", "1h")), {}, ValueError, r"jobs\[2\] and jobs\[5\] have the id 'soon'"),
        ((*SET, "often"), {}, TypeError, r"jobs\[5\] is 'often'; expected JobSpec"),
        ("often", {}, TypeError, "jobs is 'often'; expected JobSpec values"),
        (None, {}, TypeError, "jobs is None"),
        (SET, {"remove_others": "no"}, TypeError, "remove_others is 'no'; expected True or False"),
    ],
)
def test_a_set_with_a_mistake_changes_nothing(
    make_world: MakeWorld, jobs: Any, options: Any, error: type[Exception], says: str
) -> None:
    """All of it is looked at before any of it is done."""
    world = make_world(later())
    with pytest.raises(error, match=says):
        world.agent.ask("declare", jobs, **options)
    assert (world.store.load_all(), world.nas.asked) == ((later(),), [])


def test_the_store_is_read_once_for_all_of_them(make_world: MakeWorld) -> None:
    """And what is unchanged is not read again."""
    world = make_world()
    declare(world, *SET)
    read = list[str]()
    load_all, load = world.store.load_all, world.store.load
    world.store.load_all = lambda: (read.append("all"), load_all())[1]
    world.store.load = lambda job_id: (read.append(job_id), load(job_id))[1]
    declare(world, *SET)
    assert read == ["all"]
    declare(world, *SET[1:], JobSpec("nightly", "@daily"))
    assert read == ["all", "all", "nightly"]


def test_what_nas_was_not_told_is_told_by_the_next_declaration(make_world: MakeWorld) -> None:
    """The answer says so; what is unsettled costs a call though it is unchanged."""
    world = make_world()
    world.nas.is_down = True
    answers = declare(world, *SET[:2])
    assert all(not answer.settled for answer in answers.values())
    assert "its trigger is not registered at NAS" in answers["often"].reason
    world.nas.is_down = False
    answers = declare(world, *SET[:2])
    assert all(answer.settled for answer in answers.values())
    assert world.nas.arms.keys() == {"nightly", "often"}


def test_a_store_that_cannot_be_read_is_told_before_anything_is_done(make_world: MakeWorld) -> None:
    """There is nothing to compare with."""
    world = make_world()

    def break_down() -> None:
        raise StoreError("the volume is gone", definite=True)

    world.store.load_all = break_down
    with pytest.raises(StoreError, match="the volume is gone"):
        declare(world, *SET)
    assert world.nas.asked == []


# --- In every store ---

MakeStore: TypeAlias = Callable[[Path], JobStore]
STORES: dict[str, MakeStore] = {
    "json": lambda folder: JsonFileStore.create(folder / "jobs.json"),
    "sql": lambda folder: SqlStore.create(f"sqlite:///{folder / 'jobs.sqlite'}"),
}


@pytest.mark.parametrize("make", STORES.values(), ids=STORES)
def test_a_declared_set_is_known_again_by_another_process(make: MakeStore, tmp_path: Path) -> None:
    """What the file or the database holds is enough, also of a one-shot that is over."""
    now_us, nas = T0, Nas()

    def start() -> Scheduler:
        return Scheduler(make(tmp_path), nas.client("threads"), lambda _: None, clock=lambda: now_us)

    start().declare(SET)
    agent = start()
    now_us = T0 + 8 * SECOND_US
    assert agent.fire("soon", now_us).verdict is Verdict.ACCEPTED
    until(lambda: not any(each.is_busy for each in agent.pending()))
    for gone_us in 0, SECOND_US // 3, 40 * MINUTE_US:
        now_us = T0 + 9 * SECOND_US + gone_us
        nas.asked.clear()
        answers = start().declare(SET)
        assert {answer.reason for answer in answers.values()} == {"already so"}
        assert nas.asked == []
    assert start().declare([], remove_others=True).keys() == {spec.id for spec in SET}
    assert start().jobs() == ()


def test_a_declared_record_that_nobody_can_read_stops_no_other(tmp_path: Path) -> None:
    """Its answer says why it is refused; it stays as it is."""
    file, nas = tmp_path / "jobs.json", Nas()
    odd = {"id": "often", "schedule": {"kind": "whenever"}, "mine": 1}
    file.write_text(json.dumps({"jobs": [odd], "updated_at": at(0)}))
    agent = Scheduler(JsonFileStore(file), nas.client("threads"), print, clock=lambda: T0)
    answers = agent.declare(SET, remove_others=True)
    refused = answers["often"]
    assert refused.verdict is Verdict.REFUSED
    assert "schedule.kind: expected cron, interval or once" in refused.reason
    assert {job_id for job_id, answer in answers.items() if answer.reason == "created"} == {
        spec.id for spec in SET if spec.id != "often"
    }
    assert json.loads(file.read_text())["jobs"][0] == odd


# --- The transition ---

schedules = st.sampled_from(
    ["+8s", "in 1h", "every 1h", "10m", "0 3 * * *", "*/5 * * * *", NOON, timedelta(days=1)]
)
specs = st.builds(
    lambda schedule, times, attempts: JobSpec("j", schedule, times=times, policy=Policy(attempts=attempts)),
    schedules,
    st.none() | st.integers(1, 3),
    st.integers(1, 2),
)
gaps = st.integers(0, 3 * 24 * HOUR_US)


def declared(job: Job | None, spec: JobSpec, now_us: Instant) -> Job | None:
    wanted = spec.declared(now_us)
    return job_changes.declare(job, wanted=wanted.job, is_relative=wanted.is_relative, now_us=now_us).job


@given(specs, specs, gaps, gaps, st.sampled_from(JobState))
def test_declaring_twice_is_declaring_once(
    before: JobSpec, spec: JobSpec, gap_us: int, more_us: int, state: JobState
) -> None:
    """Whatever stood there, whatever became of it, and however much later."""
    job = declared(None, before, T0 - HOUR_US)
    job = declared(job, spec, T0 - HOUR_US + gap_us)
    if job is None or spec.declared(0).job.declared != job.declared:
        return  # its time was over
    is_over = state is JobState.COMPLETED
    job = evolve(job, state=state, next_us=None if is_over else job.next_us)
    assert declared(job, spec, T0 - HOUR_US + gap_us + more_us) == job


@given(specs, gaps)
def test_two_processes_that_declare_at_once_make_one_job(spec: JobSpec, gap_us: int) -> None:
    """The second finds the job of the first, whatever its own clock says."""
    job = declared(None, spec, T0 - HOUR_US)
    assert declared(job, spec, T0 - HOUR_US + gap_us) == job


def test_a_one_shot_of_another_schedule_is_no_relative_one() -> None:
    """An absolute instant in its place is an edit, and so is the way back."""
    job = declared(None, JobSpec("j", "in 8s"), T0)
    job = declared(job, JobSpec("j", NOON + timedelta(hours=1)), T0)
    assert job is not None
    assert (job.schedule, job.declared) == (Once(at_us=T0 + HOUR_US), "as it stands")
    job = declared(job, JobSpec("j", "in 8s"), T0 + SECOND_US)
    assert job is not None
    assert (job.next_us, job.declared) == (T0 + 9 * SECOND_US, "in 8s")


# --- Reading ---


def test_jobs_are_read_without_a_call_to_nas(make_world: MakeWorld) -> None:
    """They come as the store holds them, in its order."""
    first, second = every_hour("b"), later("a", note="mine")
    world = make_world(first, second)
    assert world.agent.ask("jobs") == (first, second)
    assert world.agent.ask("get", "a") == second
    assert world.agent.ask("get", "nobody") is None
    assert world.nas.asked == []
    with pytest.raises(TypeError, match="job_id is 7; expected text"):
        world.agent.ask("get", 7)


def test_a_store_that_cannot_be_read_says_so_to_who_reads(make_world: MakeWorld) -> None:
    """It is the error of a store, whatever the store raised."""
    world = make_world()

    def break_down(*_: object) -> None:
        raise ValueError(at(0))

    world.store.load = world.store.load_all = break_down
    for question in ("jobs",), ("get", "j"):
        with pytest.raises(StoreError, match="the job store failed: ValueError: 2026"):
            world.agent.ask(*question)
