"""One odd record in a store: it is shown and left as it is, and stops no other."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from chronos.contract.messages import answer_to_fire
from chronos.errors import JobsFileError
from chronos.jobs.instants import HOUR_US, SECOND_US, format_instant
from chronos.jobs.job import Job, Unreadable, Verdict
from chronos.protocol.flow import MENDING_US
from chronos.protocol.reconciliation import differences
from chronos.stores import JobStore, JsonFileStore, SqlStore, told_apart
from chronos.stores.conformance import ODD_CHECKS
from simulator.fleet import load_file
from tests.agents import T0, Agent, MakeWorld, World, at, later, until
from tests.moves import claim_and_end

# What is wrong with it is the expression; the rest is spelled as nobody else would.
ODD = (
    '{"id":"odd",   "schedule": {"kind":"cron","expr":"0 25 * * *"},\n'
    '   "next_run_at": null, "half": 1.50, "text": "\\u00e9\\/",\n'
    '\t"chronos": {"revision": 7, "history": [{"result": "completed"}]}}'
)
GOOD = {
    "id": "good",
    "schedule": {"kind": "interval", "minutes": 60},
    "next_run_at": at(HOUR_US),
}
ARMED = {"good": at(HOUR_US), "odd": at(0), "orphan": at(0)}


def file_of(path: Path, *records: str, mark: str = "") -> Path:
    listed = ",\n    ".join(records)
    stamp = format_instant(T0)
    path.write_text(
        f'{mark}{{\n  "jobs": [\n    {listed}\n  ],\n  "updated_at": "{stamp}"\n}}\n', encoding="utf-8"
    )
    return path


def good(**fields: Any) -> str:
    return json.dumps(GOOD | fields)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return file_of(tmp_path / "jobs.json", ODD, good())


def over(world: World, path: Path) -> Agent:
    """Return an agent of that world whose jobs are in the file."""
    world.store = JsonFileStore(path)  # type: ignore[assignment]
    return world.another("of the file")


def test_one_odd_record_stops_no_other_job(make_world: MakeWorld, path: Path) -> None:
    """The other jobs are armed and run; the odd one is shown with its field and the reason (incident S6)."""
    world = make_world()
    world.nas.arms = {"odd": at(0)}
    agent = over(world, path)
    assert not agent.start().settled
    assert world.nas.arms == {"odd": at(0), "good": at(HOUR_US)}
    world.now_us = T0 + HOUR_US
    assert agent.fire("good", T0 + HOUR_US).verdict is Verdict.ACCEPTED
    world.settle()
    assert [context.job_id for context in world.ran] == ["good"]
    status = agent.status()
    assert [each.job.id for each in status.jobs] == ["good"]
    (odd,) = status.unreadable
    assert (odd.id, odd.field) == ("odd", "schedule.expr")
    assert "0 25 * * *" in odd.problem
    assert [(each.job_id, each.is_busy) for each in agent.pending()] == [("odd", False)]


def test_odd_record_stays_byte_for_byte_while_others_change(path: Path) -> None:
    """Spelling and history survive every swap of another job, a creation and a removal (incident S6)."""
    store = JsonFileStore(path)
    for round_ in range(3):
        assert claim_and_end(store, "good", T0 + HOUR_US * (round_ + 1), "vm/1")
        assert ODD in path.read_text(encoding="utf-8")
    assert store.swap("new", expected=None, replacement=later("new"))
    assert store.swap("new", expected=store.load("new"), replacement=None)
    assert ODD in path.read_text(encoding="utf-8")
    path.write_text(path.read_text(encoding="utf-8").replace("0 25 * * *", "0 23 * * *"), encoding="utf-8")
    mended = store.load("odd")
    assert mended is not None
    assert mended.revision == 7


def test_odd_record_stays_byte_for_byte_beside_what_utf_8_cannot_hold(path: Path) -> None:
    """Where another record has half of a surrogate pair, the file is escaped, and the odd one is not."""
    odd = ODD.replace("null", '"é"')
    file_of(path, odd, good(half="\ud83d"))
    store = JsonFileStore(path)
    assert claim_and_end(store, "good", T0 + HOUR_US, "vm/1")
    assert odd in path.read_text(encoding="utf-8")
    assert store.load("good") == JsonFileStore(path).load("good")


def test_odd_record_is_logged_once(
    make_world: MakeWorld, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says it when it is first seen, and not at every reading."""
    agent = over(make_world(), path)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            agent.start()
            agent.status()
    told = [record.getMessage() for record in caplog.records if "odd" in record.getMessage()]
    assert len(told) == 1
    assert "schedule.expr" in told[0]


def test_arm_of_an_odd_record_is_left_alone(make_world: MakeWorld, path: Path) -> None:
    """A start neither cancels nor provisions it; an arm that no record has is cancelled (incident S6)."""
    world = make_world()
    world.nas.arms = dict(ARMED)
    over(world, path).start()
    world.quiet()
    assert world.nas.arms == {"good": at(HOUR_US), "odd": at(0)}
    assert not [asked for asked in world.nas.asked if "odd" in asked]


def test_arms_without_a_job_stay_while_a_record_has_no_id(make_world: MakeWorld, path: Path) -> None:
    """Any of them may belong to the job whose id cannot be read."""
    file_of(path, good(id=7), good())
    world = make_world()
    world.nas.arms = dict(ARMED)
    over(world, path).start()
    world.quiet()
    assert world.nas.arms == ARMED


def test_fire_for_an_odd_record_is_asked_for_again_later(make_world: MakeWorld, path: Path) -> None:
    """NAS keeps the arm, and comes back after minutes: a person has to mend the record."""
    world = make_world()
    world.nas.arms = {"odd": at(0)}
    answer = over(world, path).fire("odd", T0)
    assert (answer.verdict, answer.settled) == (None, False)
    assert "job odd: schedule.expr: " in answer.reason
    told = answer_to_fire(answer)
    assert (told.status, told.retry_after_s) == (503, MENDING_US // SECOND_US)
    assert (world.nas.arms, world.nas.asked) == ({"odd": at(0)}, [])


def test_odd_record_is_not_hammered_without_nas(
    make_world: MakeWorld,
    path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The in-process ticker, too, leaves it alone for a while."""
    monkeypatch.setattr("chronos.protocol.ticker.REPEAT_AFTER_US", 10_000)
    world = make_world(has_nas=False)
    soon = at(SECOND_US // 10)
    file_of(path, good(next_run_at=soon))
    over(world, path).start()
    file_of(path, good(next_run_at=soon, schedule=None))
    world.now_us = T0 + SECOND_US
    with caplog.at_level(logging.WARNING):
        until(lambda: caplog.records)
        time.sleep(0.2)
    assert [record.getMessage() for record in caplog.records if "fire of good" in record.getMessage()] == [
        caplog.records[0].getMessage()
    ]
    assert world.ran == []


CHANGES: tuple[Callable[[Agent], Any], ...] = (
    lambda agent: agent.create("odd", "every 1h"),
    lambda agent: agent.edit("odd", schedule="every 1h"),
    lambda agent: agent.edit("odd", tz="Europe/Berlin"),
    lambda agent: agent.pause("odd"),
    lambda agent: agent.resume("odd"),
    lambda agent: agent.remove("odd"),
    lambda agent: agent.run_now("odd"),
)


@pytest.mark.parametrize("change", CHANGES)
def test_change_of_an_odd_record_is_refused_with_its_field(
    change: Callable[[Agent], Any], make_world: MakeWorld, path: Path
) -> None:
    """Nothing is lost or written over: one error says which record, which field, and why."""
    before = path.read_bytes()
    world = make_world()
    agent = over(world, path)
    try:
        answer = change(agent)
    except JobsFileError as error:
        reason = str(error)
    else:
        assert answer.verdict is Verdict.REFUSED
        reason = answer.reason
    assert "job odd: schedule.expr: cron expression '0 25 * * *'" in reason
    assert (path.read_bytes(), world.nas.asked, world.ran) == (before, [], [])


def test_whoever_asks_for_an_odd_record_is_told_what_is_wrong(path: Path) -> None:
    """The job and its history are one clear error, and the others are there."""
    store = JsonFileStore(path)
    for ask in (store.load, store.history):
        with pytest.raises(JobsFileError, match=r"jobs\.json: job odd: schedule\.expr: "):
            ask("odd")
    assert store.load("good") is not None
    assert store.history("good") == ()


ODD_ONES: tuple[tuple[str, str | None, str | None], ...] = (
    ("7", None, None),
    ("null", None, None),
    ('"good"', None, None),
    ("[]", None, None),
    ("{}", None, "id"),
    (good(id=None), None, "id"),
    (good(id=" "), None, "id"),
    (good(id=["good"]), None, "id"),
    (good(id="other", schedule=None), "other", "schedule"),
    (good(id="other", next_run_at="soon"), "other", "next_run_at"),
    (good(id="other", policy={"catch_up": "some"}), "other", "policy.catch_up"),
    (good(id="other", chronos={"runs": [{}]}), "other", "chronos.runs[0].occurrence"),
    (good(id="other", note=0).replace(": 0", ": NaN"), "other", None),
    (good(id="other", note=[{"deep": 0}]).replace(": 0", ": 1e999"), "other", None),
    ("[-Infinity]", None, None),
)


@pytest.mark.parametrize(("record", "job_id", "field"), ODD_ONES)
@pytest.mark.parametrize("is_first", [True, False])
def test_whatever_is_odd_about_a_record_the_others_are_read(
    record: str, job_id: str | None, field: str | None, is_first: bool, path: Path
) -> None:
    """No object, no id, a field that is none: what is wrong is told of the record alone, which stays."""
    file_of(path, *((record, good()) if is_first else (good(), record)))
    store = JsonFileStore(path)
    jobs, (odd,) = told_apart(store.load_all())
    assert [job.id for job in jobs] == ["good"]
    assert (odd.id, odd.field) == (job_id, field)
    assert claim_and_end(store, "good", T0 + HOUR_US, "vm/1")
    written = path.read_text(encoding="utf-8")
    assert record in written
    assert told_apart(JsonFileStore(path).load_all())[1] == (odd,)
    with pytest.raises(JobsFileError, match="job "):
        load_file(path)


def test_each_of_several_records_with_one_id_is_odd(path: Path) -> None:
    """Nobody knows which of them is meant, so that neither runs and none is written over."""
    twins = [good(id="twin", prompt=number) for number in range(2)]
    file_of(path, twins[0], good(), twins[1])
    store = JsonFileStore(path)
    jobs, odd = told_apart(store.load_all())
    assert [job.id for job in jobs] == ["good"]
    assert [(each.id, each.field) for each in odd] == [("twin", "id"), ("twin", "id")]
    with pytest.raises(
        JobsFileError, match="twin: id: expected each id once, got it at index 0 and at index 2"
    ):
        store.swap("twin", expected=None, replacement=None)
    assert claim_and_end(store, "good", T0 + HOUR_US, "vm/1")
    assert all(twin in path.read_text(encoding="utf-8") for twin in twins)


def test_odd_record_that_needs_a_time_stamp_is_mended_by_the_next_change(path: Path) -> None:
    """Every process reads the same of what was written, also the one that has written it."""
    record = {"id": "stampless", "schedule": {"kind": "cron", "expr": "0 9 * * *"}, "next_run_at": None}
    path.write_text(json.dumps({"jobs": [record, GOOD]}), encoding="utf-8")
    store = JsonFileStore(path)
    assert store.load("stampless") is not None  # the time of the file's last change stands in for it
    assert claim_and_end(store, "good", T0 + HOUR_US, "vm/1")
    assert store.load_all() == JsonFileStore(path).load_all()


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_byte_order_mark_is_no_oddity_and_stays(mark: str, path: Path) -> None:
    """A file that an editor began with the mark is read, and keeps it, with its layout."""
    file_of(path, ODD, good(), mark=mark)
    before = path.read_text(encoding="utf-8")
    assert len(load_odd(path)) == 1
    store = JsonFileStore(path)
    assert claim_and_end(store, "good", T0 + HOUR_US, "vm/1")
    after = path.read_text(encoding="utf-8")
    assert after[:20] == before[:20]
    assert ODD in after
    file_of(path, good(), mark=mark)
    assert [job.id for job in load_file(path).jobs] == ["good"]


def load_odd(path: Path) -> tuple[Unreadable, ...]:
    return told_apart(JsonFileStore(path).load_all())[1]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"jobs": {}}', '{"jobs": [], "tz": "Mars/Olympus"}'])
def test_file_that_is_none_is_one_error(content: str, path: Path) -> None:
    """Where the whole cannot be read, nobody knows which jobs there are."""
    path.write_text(content, encoding="utf-8")
    with pytest.raises(JobsFileError) as caught:
        JsonFileStore(path).load_all()
    assert caught.value.job is None


def test_an_unreadable_record_is_no_difference() -> None:
    """The start owes nothing to it, whatever NAS has; also where NAS could not say."""
    odd = Unreadable(id="odd", source="jobs.json", place="odd", field="schedule", problem="none")
    for arms in (None, {}, {"odd": T0}):
        assert differences([], arms, T0, [odd]) == ()
    assert [each.job_id for each in differences([], {"odd": T0, "orphan": T0}, T0, [odd])] == ["orphan"]


# --- all stores alike -------------------------------------------------------------------------


def spoil(store: JobStore, job_id: str) -> None:
    """Make the record of a job unreadable, behind the store's back."""
    if isinstance(store, JsonFileStore):
        raw = json.loads(store.path.read_text(encoding="utf-8"))
        for record in raw["jobs"]:
            if record["id"] == job_id:
                record["schedule"] = {"kind": "cosmic"}
        store.path.write_text(json.dumps(raw, indent=2), encoding="utf-8")
        return
    assert isinstance(store, SqlStore)
    engine = create_engine(store._database.engine.url)
    with engine.begin() as connection:
        statement = f"UPDATE {store._jobs.name} SET document = '{{}}' WHERE id = :id"
        connection.execute(text(statement), {"id": job_id})
    engine.dispose()


@pytest.mark.parametrize("check", ODD_CHECKS, ids=lambda check: check.__name__)
def test_store_conforms_where_a_record_is_odd(
    check: Callable[[JobStore, Callable[[JobStore, str], None]], None], store: JobStore
) -> None:
    """Every store that can hold an odd record keeps the same promises about it."""
    if not isinstance(store, JsonFileStore | SqlStore):
        pytest.skip("what a store in memory holds are jobs")
    check(store, spoil)


def test_row_that_cannot_be_decoded_stops_no_other_job(make_world: MakeWorld, tmp_path: Path) -> None:
    """The same as in a file, also for an id that a column holds only escaped."""
    store = SqlStore.create(f"sqlite:///{tmp_path}/jobs.db")
    odd: Job = later("back\\slash")
    for job in (odd, later("good")):
        assert store.swap(job.id, expected=None, replacement=job)
    spoil(store, "back\\005cslash")
    world = make_world()
    world.nas.arms = {odd.id: at(0), "orphan": at(0)}
    world.store = store  # type: ignore[assignment]
    agent = world.another("of the database")
    agent.start()
    world.quiet()
    assert world.nas.arms == {odd.id: at(0), "good": at(HOUR_US)}
    assert [each.id for each in agent.status().unreadable] == [odd.id]
    assert agent.fire(odd.id, T0).verdict is None
    store.close()
