"""A job carries a JSON value of its own, which its runner finds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from chronos import DataError, JobsFileError, JsonFileStore, MemoryStore, Policy, Scheduler, Verdict
from chronos.agent.runner import RunContext
from chronos.jobs.data import MAX_DATA_BYTES, MAX_DATA_DEPTH, json_of, value_of
from chronos.jobs.instants import HOUR_US, SECOND_US
from chronos.jobs.job import JobState
from chronos.provider.hermes_jobs import read_hermes_job
from chronos.stores import JobStore
from tests.agents import PATIENCE_S, T0, MakeWorld, World, at, every_hour, until
from tests.strategies import json_values

DATA: dict[str, Any] = {
    "to": ["ops@agent.example", "ö 😀"],
    "limit": 2**70,
    "share": 0.1,
    "whole": 1.0,
    "one": 1,
    "deep": {"": [None, True, {"z": [], "a": {}}]},
}


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


def in_itself() -> Any:
    value: list[Any] = []
    value += [value, {"again": value}]
    return value


def a_million_times() -> Any:
    value: Any = ["x"]
    for _ in range(MAX_DATA_DEPTH - 2):
        value = [value, value]
    return value


# --- what is a value --------------------------------------------------------------------------


@given(json_values)
def test_any_json_value_comes_back_as_it_was(value: Any) -> None:
    """Of the same types, and with every digit and every character."""
    text = json_of(value)
    assert repr(_sorted(value_of(text))) == repr(_sorted(value))
    assert json_of(value_of(text)) == text
    assert value_of(text) is not value or not isinstance(value, list | dict)


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value


def test_order_of_keys_makes_no_difference() -> None:
    """Who reads a value from somewhere and gives it again gives the same."""
    assert json_of({"b": 1, "a": {"d": 1, "c": 2}}) == json_of({"a": {"c": 2, "d": 1}, "b": 1})


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (1, True), (0.0, -0.0), ("é", "e\u0301"), ({}, None)])
def test_values_that_look_alike_are_different(one: Any, other: Any) -> None:
    """What JSON tells apart is told apart, also where Python finds it equal."""
    assert json_of(one) != json_of(other)


class Level(IntEnum):
    HIGH = 3


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: math.nan, "data is nan; expected null, true or false, a finite number, text, or lists and obj"),
    (lambda: {"a": [0, math.inf]}, r"data\['a'\]\[1\] is inf; expected"),
    (lambda: [-math.inf], r"data\[0\] is -inf; expected"),
    (lambda: {1: "a"}, "data has a key that is of type int; expected text"),
    (lambda: [{None: "a"}], r"data\[0\] has a key that is of type NoneType; expected text"),
    (lambda: {"a\ud800": 1}, "has a key that is text with half of a surrogate pair; expected text"),
    (lambda: {"a": "\udfff"}, r"data\['a'\] is text with half of a surrogate pair; expected"),
    (lambda: "\ud83d\ude00", "data is text with half of a surrogate pair"),
    (lambda: {"a": {1, 2}}, r"data\['a'\] is of type set; expected"),
    (lambda: b"bytes", "data is of type bytes; expected"),
    (lambda: (1, 2), "data is of type tuple; expected"),
    (lambda: [datetime(2026, 6, 26, tzinfo=UTC)], r"data\[0\] is of type datetime; expected"),
    (lambda: {"a": object()}, r"data\['a'\] is of type object; expected"),
    (in_itself, "nested too deeply; expected at most 64 levels"),
    (lambda: nested(MAX_DATA_DEPTH + 1), "nested too deeply; expected at most 64 levels"),
    (lambda: nested(100_000), "nested too deeply; expected at most 64 levels"),
    (a_million_times, "data is too large; expected at most 65536 bytes as JSON"),
    (lambda: "x" * (MAX_DATA_BYTES - 1), "data is too large; expected at most 65536 bytes as JSON"),
    (lambda: "ö" * (MAX_DATA_BYTES // 2), "data is too large; expected at most 65536 bytes as JSON"),
    (lambda: [0] * 10_000_000, "data is too large"),
    (lambda: {"k" * MAX_DATA_BYTES: 0}, "data is too large"),
    (lambda: 10**4300, "data is too long a number"),
]


@pytest.mark.parametrize(("make", "problem"), REFUSED)
def test_what_is_no_json_value_is_one_clear_error_and_nothing_is_stored(
    make: Callable[[], Any], problem: str, make_world: MakeWorld
) -> None:
    """Neither a job that is made nor one that is changed gets it, and the message names the part."""
    world = make_world(every_hour())
    before = world.job()
    with pytest.raises(DataError, match=problem) as made:
        world.agent.create("new", "every 1h", data=make())
    with pytest.raises(DataError, match=problem):
        world.agent.edit("j", data=make())
    assert "\n" not in str(made.value)
    assert len(str(made.value)) < 3_000
    assert world.store.load_all() == (before,)
    assert world.nas.asked == []


@pytest.mark.parametrize(
    "value",
    [
        nested(MAX_DATA_DEPTH),
        "x" * (MAX_DATA_BYTES - 2),
        "ö" * (MAX_DATA_BYTES // 2 - 1),
        [0] * (MAX_DATA_BYTES // 2 - 1),
        10**4300 - 1,
        Level.HIGH,
    ],
)
def test_as_much_as_a_job_may_carry_comes_back(value: Any, store: JobStore) -> None:
    """The bounds are inside, and every store keeps them."""
    job = every_hour(data_json=json_of(value))
    assert store.swap("j", expected=None, replacement=job)
    loaded = store.load("j")
    assert loaded == job
    assert loaded is not None
    assert loaded.data == value


# --- from create to the runner ----------------------------------------------------------------


def test_job_carries_data_of_its_own_to_the_runner(store: JobStore) -> None:
    """In every store: what was given to `create` is what the runner finds, and what `status` shows."""
    ran: list[RunContext] = []
    now_us = T0 - HOUR_US
    scheduler = Scheduler(store, None, ran.append, clock=lambda: now_us)
    created = scheduler.create("j", "0 * * * *", data=DATA)
    assert created.job is not None
    assert created.job.data == DATA
    now_us = T0
    scheduler.fire("j", T0)
    assert not scheduler.drain(PATIENCE_S)
    assert [context.data for context in ran] == [DATA]
    assert repr(_sorted(ran[0].data)) == repr(_sorted(DATA))
    (status,) = scheduler.status().jobs
    assert status.job.data == DATA


def test_runner_that_changes_its_data_changes_nothing_stored() -> None:
    """Each run, and each reading, has a value of its own."""
    ran: list[Any] = []

    def runs(context: RunContext) -> None:
        context.data["seen"].append(context.occurrence_us)
        ran.append(context.data)

    given_data: dict[str, Any] = {"seen": []}
    store = MemoryStore()
    scheduler = Scheduler(store, None, runs, clock=lambda: T0)
    scheduler.create("j", "every 1h", data=given_data)
    given_data["seen"].append("later")
    for asked_us in (T0 - 1, T0):
        scheduler.run_now("j", asked_us=asked_us)
        until(lambda: not scheduler.pending())
    assert ran == [{"seen": [T0 - 1]}, {"seen": [T0]}]
    job = store.load("j")
    assert job is not None
    job.data["seen"].append("me")
    assert job.data == {"seen": []}


def began(world: World, count: int = 1) -> list[Any]:
    until(lambda: len(world.ran) == count)
    return [context.data for context in world.ran]


def test_every_way_to_run_brings_the_data(make_world: MakeWorld) -> None:
    """A fire, a recovery, a run by hand and the in-process ticker."""
    fired = every_hour("fired", data_json=json_of("fired"), next_us=T0 + HOUR_US)
    world = make_world(every_hour("recovered", data_json=json_of("recovered")), fired)
    world.now_us = T0 + 100 * SECOND_US
    world.agent.start()
    assert began(world) == ["recovered"]
    world.now_us = T0 + HOUR_US
    world.agent.fire("fired", T0 + HOUR_US)
    assert began(world, 2) == ["recovered", "fired"]
    world.agent.create("by hand", "every 1h", data=["by hand"])
    world.agent.run_now("by hand")
    assert began(world, 3)[2:] == [["by hand"]]
    world.settle()
    ticking = make_world(every_hour(data_json=json_of("ticked")), has_nas=False)
    ticking.agent.start()
    assert began(ticking) == ["ticked"]
    ticking.release.set()


def test_job_without_data_has_none(make_world: MakeWorld) -> None:
    """Nothing was given, and that is what the runner finds."""
    world = make_world()
    world.agent.create("j", "every 1h")
    world.agent.run_now("j")
    assert began(world) == [None]
    world.settle()


def test_edit_keeps_replaces_and_takes_away_the_data(make_world: MakeWorld) -> None:
    """Left out it stays, None is a value like others, and the schedule goes on as it was."""
    world = make_world(every_hour(data_json=json_of({"a": 1}), next_us=T0 + HOUR_US))
    world.agent.edit("j", times=5)
    assert world.job().data == {"a": 1}
    for data in ([], {}, 0, False, "", {"b": [2]}, None):
        answer = world.agent.edit("j", data=data)
        assert answer.settled
        assert repr(world.job().data) == repr(data)
    job = world.job()
    assert (job.next_us, job.state, job.times) == (T0 + HOUR_US, JobState.SCHEDULED, 5)
    assert world.agent.edit("j", data=None).reason == "already so"


def test_run_has_the_data_that_the_job_had_when_it_began(make_world: MakeWorld) -> None:
    """An edit during a run is for the next attempt."""
    tried: list[Any] = []

    def fails(context: RunContext) -> None:
        tried.append(context.data)
        raise RuntimeError("no")

    policy = Policy(attempts=2, retry_delay_us=1)
    world = make_world(every_hour(data_json=json_of("old"), policy=policy), runner=fails)
    world.agent.fire("j", T0)
    until(lambda: world.job().waiting)
    world.agent.edit("j", data="new")
    world.now_us = T0 + HOUR_US // 2
    world.agent.fire("j", T0 + 1)
    world.settle()
    assert tried == ["old", "new"]


def test_create_again_compares_the_data(make_world: MakeWorld) -> None:
    """The same job once more is the same; with other data it is another one."""
    world = make_world()
    assert world.agent.create("j", "every 1h", data={"a": 1, "b": 2}).verdict is Verdict.CHANGED
    again = world.agent.create("j", "every 1h", data={"b": 2, "a": 1})
    assert (again.verdict, again.settled) == (Verdict.CHANGED, True)
    for other in ({"a": 1}, {"a": 1.0, "b": 2}, None):
        assert world.agent.create("j", "every 1h", data=other).verdict is Verdict.REFUSED
    assert world.job().data == {"a": 1, "b": 2}


# --- in a jobs file ---------------------------------------------------------------------------


def file_of(path: Path, **fields: Any) -> JsonFileStore:
    record = {
        "id": "j",
        "schedule": {"kind": "cron", "expr": "0 * * * *", "tz": "UTC"},
        "next_run_at": at(0),
        "data": "the agent's own",
        **fields,
    }
    path.write_text(json.dumps({"jobs": [record], "updated_at": at(0)}), encoding="utf-8")
    return JsonFileStore(path)


def test_data_in_a_jobs_file_stands_beside_the_agent_s_own_fields(tmp_path: Path) -> None:
    """It is read from `chronos.data`, and written there; a field `data` of the agent is left alone."""
    store = file_of(tmp_path / "jobs.json", chronos={"data": {"b": 1e3, "a": []}, "theirs": 1})
    ran: list[Any] = []
    scheduler = Scheduler(store, None, lambda context: ran.append(context.data), clock=lambda: T0)
    scheduler.run_now("j")
    assert not scheduler.drain(PATIENCE_S)
    scheduler.edit("j", times=3)
    assert ran == [{"a": [], "b": 1000.0}]
    assert '"chronos": {"data": {"b": 1000.0, "a": []}, "theirs": 1, ' in store.path.read_text("utf-8")
    for value in ({}, [], 0, "x"):
        scheduler.edit("j", data=value)
        (record,) = json.loads(store.path.read_bytes())["jobs"]
        assert repr(record["chronos"]["data"]) == repr(value)
    scheduler.edit("j", data=None)
    (record,) = json.loads(store.path.read_bytes())["jobs"]
    assert "data" not in record["chronos"]
    assert record["data"] == "the agent's own"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("x" * MAX_DATA_BYTES, "data is too large; expected at most 65536 bytes"),
        (nested(MAX_DATA_DEPTH + 1), "nested too deeply"),
        ({"a": "\ud800"}, r"data\['a'\] is text with half of a surrogate pair"),
    ],
)
def test_data_that_no_job_may_carry_is_refused_with_its_place(
    data: Any, problem: str, tmp_path: Path
) -> None:
    """A jobs file that somebody wrote is held to the same rules, and names the job and the field."""
    store = file_of(tmp_path / "jobs.json", chronos={"data": data})
    with pytest.raises(JobsFileError, match=f"job j: chronos.data: .*{problem}"):
        store.load("j")


def test_record_of_hermes_carries_data_too() -> None:
    """Its records have the same place for it, and its runner gets the whole record."""
    raw = {"id": "j", "schedule": {"kind": "once", "run_at": at(0)}, "chronos": {"data": DATA}}
    assert read_hermes_job(raw, T0).job.data == DATA


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=json_values)
def test_any_data_survives_a_rewrite_of_its_record(value: Any, tmp_path: Path) -> None:
    """Whatever else changes in the record, and whoever wrote the data."""
    store = file_of(tmp_path / "jobs.json", chronos={"data": value})
    job = store.load("j")
    assert job is not None
    assert json_of(job.data) == json_of(value)
    scheduler = Scheduler(store, None, lambda _: None, clock=lambda: T0)
    scheduler.pause("j", note="a note")
    assert json_of(_loaded(store).data) == json_of(value)


def _loaded(store: JobStore) -> Any:
    job = store.load("j")
    assert job is not None
    return job
