"""The jobs file of today: what is read from it, what is refused, and what a rewrite leaves alone."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronos.errors import JobsFileError, StoreError
from chronos.protocol import transitions
from chronos.protocol.job import (
    Job,
    JobState,
    Liveness,
    Move,
    OnInterrupt,
    Origin,
    Outcome,
    Policy,
    Result,
    Run,
)
from chronos.protocol.schedule import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    SECOND_US,
    Cron,
    Interval,
    Once,
    next_after,
    parse_instant,
)
from chronos.stores import HISTORY_LENGTH
from chronos.stores.reader import MAX_DURATION_US
from chronos.stores.record import Document, FileFacts, read_document, read_history, read_job
from chronos.stores.rewrite import LONGEST_REASON, new_record, stamp, write_job

NOON = "2026-06-25T12:00:00+00:00"
NOON_US = parse_instant(NOON)
FACTS = FileFacts(source="jobs.json", now_us=NOON_US)
FLEETS = sorted(
    (entry for entry in files("simulator").joinpath("fleets").iterdir() if entry.name.endswith(".json")),
    key=lambda entry: entry.name,
)


def cron_record(**fields: Any) -> dict[str, Any]:
    """Return the record of a job that runs at five, as agents write it, with some fields replaced."""
    return {
        "id": "job-01",
        "name": "Morning report",
        "prompt": "Summarise the news.",
        "schedule": {"kind": "cron", "expr": "0 5 * * *", "display": "every day at 5am"},
        "repeat": {"times": None, "completed": 12},
        "enabled": True,
        "state": "scheduled",
        "next_run_at": "2026-06-26T05:00:00-07:00",
        "last_run_at": "2026-06-24T05:16:03-07:00",
        "last_status": "ok",
        "created_at": "2026-06-13T18:51:54-07:00",
        "deliver": {"to": ["me"]},
        **fields,
    }


def without(record: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in names}


def text_of(*records: Any, **top: Any) -> str:
    return json.dumps({"jobs": list(records), "updated_at": NOON, **top})


def refusal(text: str) -> str:
    with pytest.raises(JobsFileError) as caught:
        read_document(text, source="jobs.json")
    message = str(caught.value)
    assert message.isprintable(), "one line, and nothing that moves a cursor"
    return message


# --- real files -----------------------------------------------------------------------------


@pytest.mark.parametrize("entry", FLEETS, ids=lambda entry: entry.name)
def test_real_file_is_read_whole(entry: Any) -> None:
    """Every job of a real file is read, and its next occurrence is the one that the file names."""
    document = read_document(entry.read_text(encoding="utf-8"), source=entry.name)
    assert [job.id for job in document.jobs] == [record["id"] for record in document.raw["jobs"]]
    assert document.as_of_us is not None
    for job, record in zip(document.jobs, document.raw["jobs"], strict=True):
        assert job.completed == record["repeat"]["completed"]
        assert (job.state is JobState.SCHEDULED) == record["enabled"]
        if record["next_run_at"] is not None:
            assert job.next_us == parse_instant(record["next_run_at"])


@pytest.mark.parametrize("entry", FLEETS, ids=lambda entry: entry.name)
def test_unchanged_job_of_a_real_file_keeps_its_record(entry: Any) -> None:
    """Writing a job that did not change gives back its record, value by value and key by key."""
    document = read_document(entry.read_text(encoding="utf-8"), source=entry.name)
    for job, record in zip(document.jobs, document.raw["jobs"], strict=True):
        if record["next_run_at"] is None and job.next_us is not None:
            continue  # the slot that was worked out is written down; see below
        assert json.dumps(write_job(job, record, document.facts)) == json.dumps(record)


def test_there_are_twelve_real_files() -> None:
    """The fleets are part of the package."""
    assert [entry.name for entry in FLEETS] == [f"fleet-{number:02}.json" for number in range(1, 13)]


# --- what is read ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"enabled": True, "state": "scheduled"}, JobState.SCHEDULED),
        ({"enabled": True, "state": "running"}, JobState.SCHEDULED),
        ({"enabled": True, "state": None}, JobState.SCHEDULED),
        ({"enabled": True, "state": "paused"}, JobState.PAUSED),
        ({"enabled": False, "state": "scheduled"}, JobState.PAUSED),
        ({"enabled": False, "state": "paused"}, JobState.PAUSED),
        ({"enabled": False, "state": "completed"}, JobState.COMPLETED),
        ({"enabled": True, "state": "completed"}, JobState.COMPLETED),
    ],
)
def test_state_is_taken_from_enabled_and_state(fields: dict[str, Any], state: JobState) -> None:
    """A job is scheduled only when it is enabled and neither paused nor completed."""
    assert read_job(cron_record(**fields), FACTS).state is state


def test_job_without_enabled_and_state_is_scheduled() -> None:
    """A job that says nothing about being in force is in force."""
    assert read_job(without(cron_record(), "enabled", "state"), FACTS).state is JobState.SCHEDULED


def test_completed_job_has_no_next_occurrence() -> None:
    """A next time that a completed job still carries is not one."""
    assert read_job(cron_record(state="completed"), FACTS).next_us is None


def test_next_run_is_kept_when_it_is_no_slot() -> None:
    """An agent that set a next time by hand meant it."""
    job = read_job(cron_record(next_run_at="2026-06-26T05:17:03-07:00"), FACTS)
    assert job.next_us == parse_instant("2026-06-26T05:17:03-07:00")


@pytest.mark.parametrize(
    ("schedule_tz", "file_tz", "record", "tz"),
    [
        ("Europe/Berlin", "Asia/Tokyo", {}, "Europe/Berlin"),
        ("+05:30", None, {}, "+05:30"),
        (None, "Asia/Tokyo", {}, "Asia/Tokyo"),
        (None, None, {}, "-07:00"),
        (None, None, {"next_run_at": None, "chronos": {"tz": "Asia/Kolkata"}}, "Asia/Kolkata"),
        (None, None, {"next_run_at": None, "last_run_at": "2026-06-24T05:16:03-08:00"}, "-08:00"),
        (None, None, {"next_run_at": None, "last_run_at": None}, "-07:00"),
        (None, None, {"next_run_at": None, "last_run_at": None, "created_at": None}, "+02:00"),
        (None, None, {"next_run_at": "2026-06-26T05:00:00Z"}, "UTC"),
    ],
)
def test_time_zone_is_the_nearest_that_is_named(
    schedule_tz: str | None, file_tz: str | None, record: dict[str, Any], tz: str
) -> None:
    """A cron expression is matched in the first zone that schedule, file and time stamps name."""
    raw = cron_record(**record)
    raw["schedule"] = {**raw["schedule"], "tz": schedule_tz}
    top = {"updated_at": "2026-06-25T12:00:00+02:00", "tz": file_tz}
    job = read_document(text_of(raw, **top), source="jobs.json").jobs[0]
    assert job.schedule == Cron(expr="0 5 * * *", tz=tz)


def test_job_that_names_no_zone_at_all_is_in_utc() -> None:
    """Where nothing names a zone, it is UTC."""
    raw = {"id": "a", "schedule": {"kind": "cron", "expr": "0 5 * * *"}}
    assert read_job(raw, FACTS).schedule == Cron(expr="0 5 * * *", tz="UTC")


def test_exported_at_stands_in_for_updated_at() -> None:
    """The instant of a file is its `updated_at`, else its `exported_at`, else unknown."""
    both = {"jobs": [], "updated_at": NOON, "exported_at": "2026-01-01T00:00:00Z"}
    assert read_document(json.dumps(both), source="f").as_of_us == NOON_US
    assert read_document(json.dumps(without(both, "updated_at")), source="f").as_of_us == (
        parse_instant("2026-01-01T00:00:00Z")
    )
    assert read_document('{"jobs": []}', source="f").as_of_us is None


def test_missing_next_run_of_a_cron_job_is_the_first_slot_after_the_file() -> None:
    """An enabled job without a next time is not forgotten."""
    job = read_job(cron_record(next_run_at=None), FACTS)
    assert job.next_us == next_after(Cron(expr="0 5 * * *", tz="-07:00"), NOON_US)


@pytest.mark.parametrize(
    ("last_run_at", "created_at", "expected"),
    [
        ("2026-06-25T11:47:00Z", "2026-06-25T11:00:00Z", "2026-06-25T12:17:00Z"),
        ("2026-06-20T11:47:00Z", None, "2026-06-25T12:17:00Z"),
        (None, "2026-06-25T11:01:00Z", "2026-06-25T12:01:00Z"),
        (None, None, "2026-06-25T12:30:00Z"),
    ],
)
def test_missing_next_run_of_an_interval_counts_from_its_last_run(
    last_run_at: str | None, created_at: str | None, expected: str
) -> None:
    """An interval goes on from its last run, else from its creation, else from the instant of the file."""
    raw = {
        "id": "a",
        "schedule": {"kind": "interval", "minutes": 30},
        "last_run_at": last_run_at,
        "created_at": created_at,
    }
    job = read_job(raw, FACTS)
    assert job.next_us == parse_instant(expected)
    assert job.schedule == Interval(period_us=30 * MINUTE_US, anchor_us=parse_instant(expected))


@pytest.mark.parametrize(("completed", "expected"), [(0, parse_instant("2026-07-01T09:00:00Z")), (1, None)])
def test_missing_next_run_of_a_one_shot_is_its_time_until_it_ran(
    completed: int, expected: int | None
) -> None:
    """A one-shot that ran does not run again because somebody lost its next time."""
    raw = {
        "id": "a",
        "schedule": {"kind": "once", "run_at": "2026-07-01T09:00:00Z"},
        "repeat": {"times": 1, "completed": completed},
    }
    assert read_job(raw, FACTS).next_us == expected


def test_missing_next_run_of_a_spent_job_stays_missing() -> None:
    """A job that ran as often as it was to run has no next occurrence."""
    assert read_job(cron_record(next_run_at=None, repeat={"times": 3, "completed": 3}), FACTS).next_us is None


def test_repeat_without_times_is_for_ever() -> None:
    """Neither a missing `repeat` nor a null `times` stops a schedule."""
    assert read_job(without(cron_record(), "repeat"), FACTS).times is None
    assert read_job(cron_record(repeat={"times": None}), FACTS).completed == 0
    assert read_job(cron_record(repeat={"times": 3, "completed": 1}), FACTS).times == 3


def test_policy_is_read() -> None:
    """A job may ask for a retry after an interruption, and for a misfire grace of its own."""
    job = read_job(cron_record(policy={"on_interrupt": "retry", "misfire_grace_seconds": 0.5}), FACTS)
    assert job.policy == Policy(on_interrupt=OnInterrupt.RETRY, misfire_grace_us=SECOND_US // 2)
    assert read_job(cron_record(policy={"misfire_grace_seconds": None}), FACTS).policy == Policy()


def test_interval_of_half_a_minute_is_exact() -> None:
    """Fractions of a minute are whole microseconds."""
    job = read_job(cron_record(schedule={"kind": "interval", "minutes": 0.5}), FACTS)
    assert isinstance(job.schedule, Interval)
    assert job.schedule.period_us == 30 * SECOND_US


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected JSON, got an error at line 1, column 1"),
        ('{\n "jobs": [}', "line 2, column 11"),
        ("[]", "expected an object with a list of jobs, got []"),
        ("{}", "jobs.json: jobs: expected a list of jobs, got nothing"),
        ('{"jobs": {}}', "jobs.json: jobs: expected a list of jobs, got {}"),
        ('{"jobs": [], "x": NaN}', "JSON, which has no NaN"),
        ('{"jobs": [], "x": -Infinity}', "JSON, which has no -Infinity"),
        ('{"jobs": [], "x": 1e999}', "a number too large"),
        ('{"jobs": [], "x": ' + "9" * 5000 + "}", "too many digits"),
        ('{"jobs": ' + "[" * 200_000, "nested too deeply"),
        (
            '{"jobs": [], "updated_at": "2026-06-25T12:00:00"}',
            "updated_at: instant '2026-06-25T12:00:00' has no",
        ),
        ('{"jobs": [], "updated_at": "yesterday"}', "updated_at: not an instant"),
        (f'{{"jobs": [], "updated_at": "{NOON}", "exported_at": "x"}}', "exported_at: not an instant"),
        ('{"jobs": [], "updated_at": 5}', "updated_at: expected text, got 5"),
        ('{"jobs": [], "tz": "Europe/Atlantis"}', "jobs.json: tz: unknown time zone"),
        ('{"jobs": [7]}', "jobs.json: job #0: expected an object, got 7"),
    ],
)
def test_broken_file_is_refused_with_its_place(text: str, expected: str) -> None:
    """The message says which part of the file was expected to be what."""
    assert expected in refusal(text)


CRON = cron_record()["schedule"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"id": None}, "job #1: id: expected text that is not empty, got null"),
        ({"id": " "}, "job #1: id: expected text that is not empty, got ' '"),
        ({"id": 7}, "job #1: id: expected text"),
        ({"id": "first"}, "job first: id: expected each id once, got it at index 0 and at index 1"),
        ({"id": "a\nb", "schedule": None}, r"job a\nb: schedule: expected"),
        ({"schedule": None}, "job job-01: schedule: expected an object with a kind, got null"),
        ({"schedule": "0 5 * * *"}, "schedule: expected an object, got '0 5 * * *'"),
        ({"schedule": {}}, "schedule.kind: expected text, got nothing"),
        ({"schedule": {"kind": "cosmic"}}, "schedule.kind: expected cron, interval or once, got 'cosmic'"),
        ({"schedule": {"kind": "cron"}}, "schedule.expr: expected text, got nothing"),
        ({"schedule": {**CRON, "expr": 5}}, "schedule.expr: expected text, got 5"),
        (
            {"schedule": {**CRON, "expr": "61 * * * *"}},
            "schedule.expr: cron expression '61 * * * *': Bad minute",
        ),
        ({"schedule": {**CRON, "expr": "0 0 30 2 *"}}, "schedule.expr: cron expression '0 0 30 2 *'"),
        ({"schedule": {**CRON, "tz": "Mars/Olympus"}}, "schedule.tz: unknown time zone 'Mars/Olympus'"),
        ({"schedule": {**CRON, "tz": 2}}, "schedule.tz: expected text, got 2"),
        ({"schedule": {"kind": "interval"}}, "schedule.minutes: expected a number, got nothing"),
        (
            {"schedule": {"kind": "interval", "minutes": True}},
            "schedule.minutes: expected a number, got true",
        ),
        ({"schedule": {"kind": "interval", "minutes": "5"}}, "schedule.minutes: expected a number, got '5'"),
        (
            {"schedule": {"kind": "interval", "minutes": 0}},
            "schedule.minutes: expected more than zero, got 0",
        ),
        ({"schedule": {"kind": "interval", "minutes": -5}}, "schedule.minutes: expected more than zero"),
        ({"schedule": {"kind": "interval", "minutes": 1e-9}}, "schedule.minutes: expected more than zero"),
        ({"schedule": {"kind": "interval", "minutes": 1e300}}, "schedule.minutes: expected at most 26352000"),
        (
            {"schedule": {"kind": "interval", "minutes": 10**400}},
            "schedule.minutes: expected at most 26352000",
        ),
        (
            {"schedule": {"kind": "once"}},
            "schedule.run_at: expected a time stamp with its offset, got nothing",
        ),
        ({"schedule": {"kind": "once", "run_at": "2026-07-01T09:00:00"}}, "schedule.run_at: instant"),
        ({"next_run_at": "2026-07-01T09:00:00"}, "next_run_at: instant '2026-07-01T09:00:00' has no offset"),
        ({"next_run_at": "0001-01-01T00:00:00+14:00"}, "next_run_at: instant"),
        ({"next_run_at": "2026-07-01T09:00:00+01:00:30"}, "next_run_at: time stamp"),
        ({"last_run_at": "soon"}, "last_run_at: not an instant: 'soon'"),
        ({"created_at": 1782450000}, "created_at: expected text, got 1782450000"),
        ({"enabled": "yes"}, "enabled: expected true or false, got 'yes'"),
        ({"enabled": None}, "enabled: expected true or false, got null"),
        ({"state": 3}, "state: expected text, got 3"),
        ({"repeat": 3}, "repeat: expected an object, got 3"),
        ({"repeat": {"times": 0}}, "repeat.times: expected a whole number of at least 1, got 0"),
        ({"repeat": {"times": True}}, "repeat.times: expected a whole number of at least 1, got true"),
        ({"repeat": {"times": 2.0}}, "repeat.times: expected a whole number of at least 1, got 2.0"),
        ({"repeat": {"completed": -1}}, "repeat.completed: expected a whole number of at least 0, got -1"),
        (
            {"repeat": {"completed": None}},
            "repeat.completed: expected a whole number of at least 0, got null",
        ),
        ({"policy": []}, "policy: expected an object, got []"),
        ({"policy": {"on_interrupt": "panic"}}, "policy.on_interrupt: expected one of record, retry"),
        ({"policy": {"misfire_grace_seconds": -1}}, "policy.misfire_grace_seconds: expected zero or more"),
        ({"chronos": []}, "chronos: expected an object, got []"),
        ({"chronos": {"revision": -1}}, "chronos.revision: expected a whole number"),
        ({"chronos": {"run": {}}}, "chronos.run.occurrence: expected a time stamp"),
        ({"chronos": {"history": {"a": 1}}}, "chronos.history: expected a list"),
        ({"chronos": {"tz": "Mars/Olympus"}, "next_run_at": None}, "chronos.tz: unknown time zone"),
    ],
)
def test_broken_job_is_refused_with_its_field(fields: dict[str, Any], expected: str) -> None:
    """The message names the job, the field, what was found and what was expected."""
    message = refusal(text_of(cron_record(id="first"), cron_record(**fields)))
    assert message.startswith("jobs.json: job ")
    assert expected in message


def test_job_without_an_id_is_named_by_its_index() -> None:
    """A job without an id is still found."""
    assert "job #0: id: expected text that is not empty, got nothing" in refusal(
        text_of(without(cron_record(), "id"))
    )


def test_missing_next_run_needs_an_instant() -> None:
    """A slot that depends on when the file was written is not guessed."""
    raw = {"id": "a", "schedule": {"kind": "cron", "expr": "0 5 * * *"}}
    text = json.dumps({"jobs": [raw]})
    assert "next_run_at: null, and nothing in the file says when it was written" in refusal(text)
    assert read_document(text, source="f", now_us=NOON_US).jobs[0].next_us is not None


def test_refusal_survives_another_process() -> None:
    """An error that a worker process raises arrives with all it says."""
    for error in (JobsFileError("jobs.json", "a", None, "broken"), StoreError("full disk", definite=False)):
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([NOON, "cron", "UTC"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)

FULL = cron_record(
    policy={"on_interrupt": "retry", "misfire_grace_seconds": 60},
    chronos={
        "revision": 4,
        "run": {
            "occurrence": NOON,
            "attempt": 1,
            "owner": "vm/1",
            "claimed": NOON,
            "lease_until": NOON,
            "origin": "schedule",
        },
        "history": [{"result": "completed", "reason": "", "occurrence": NOON, "at": NOON}],
        "anchor": NOON,
        "tz": "UTC",
    },
)
SEEDS = [
    FULL,
    {**FULL, "schedule": {"kind": "interval", "minutes": 5}, "next_run_at": None},
    {**FULL, "schedule": {"kind": "once", "run_at": NOON}, "next_run_at": None, "chronos": None},
]


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [path, *(found for key, item in inner for found in paths(item, (*path, key)))]


@st.composite
def mutated_files(draw: st.DrawFn) -> str:
    document = {"jobs": [copy.deepcopy(draw(st.sampled_from(SEEDS)))], "updated_at": NOON, "tz": None}
    for _ in range(draw(st.integers(1, 3))):
        *where, last = draw(st.sampled_from(paths(document)[1:]))
        holder: Any = document
        for key in where:
            holder = holder[key]
        if draw(st.booleans()) and isinstance(holder, dict):
            del holder[last]
        else:
            holder[last] = draw(json_values)
        if not paths(document)[1:]:
            break
    return json.dumps(document)


@settings(max_examples=400, deadline=None)
@given(mutated_files() | json_values.map(json.dumps) | st.text())
def test_nothing_but_a_refusal_escapes(text: str) -> None:
    """Whatever the file holds, it is read or refused, and the refusal is one line."""
    try:
        document = read_document(text, source="jobs.json")
    except JobsFileError as refused:
        problem = str(refused)
    else:
        problem = ""
        _check_rewrite(document)
    assert problem.isprintable()


def _check_rewrite(document: Document) -> None:
    """Assert that every job of *document* has a record that reads as the job."""
    for job, record in zip(document.jobs, document.raw["jobs"], strict=True):
        assert read_job(write_job(job, record, document.facts), document.facts) == job


# --- what is written ------------------------------------------------------------------------


def fired(job: Job, at_us: int | None = None) -> Job:
    at_us = at_us if at_us is not None else job.next_us
    assert at_us is not None
    move = transitions.fire(
        job, fire_at_us=at_us, now_us=at_us + SECOND_US, owner="vm/1", liveness=Liveness.UNKNOWN
    )
    assert move.job is not None
    return move.job


def test_claim_writes_the_next_run_in_the_offset_of_the_job() -> None:
    """The owner of the file goes on reading the times of the job as before; the rest stays as it was."""
    raw = cron_record()
    job = fired(read_job(raw, FACTS))
    record = write_job(job, raw, FACTS)
    assert record["next_run_at"] == "2026-06-27T05:00:00-07:00"
    assert record["chronos"]["revision"] == 1
    assert record["chronos"]["run"]["occurrence"] == "2026-06-26T12:00:00+00:00"
    assert without(record, "next_run_at", "chronos") == without(raw, "next_run_at")
    assert list(record) == [*raw, "chronos"]


def test_next_run_follows_the_clock_changes_of_the_zone() -> None:
    """A job with an IANA zone gets the offset that holds at its next time."""
    raw = cron_record(next_run_at="2026-10-24T05:00:00+02:00")
    raw["schedule"] = {**CRON, "tz": "Europe/Berlin"}
    record = write_job(fired(read_job(raw, FACTS)), raw, FACTS)
    assert record["next_run_at"] == "2026-10-25T05:00:00+01:00"


@pytest.mark.parametrize(("succeeded", "status"), [(True, "ok"), (False, "error")])
def test_end_of_a_run_writes_when_it_began_and_how_it_ended(succeeded: bool, status: str) -> None:
    """`last_run_at` is when the run was claimed, not when it was due and not when it ended."""
    raw = cron_record()
    job = fired(read_job(raw, FACTS))
    claimed = write_job(job, raw, FACTS)
    assert job.run is not None
    move = transitions.finish(
        job, run=job.run, succeeded=succeeded, detail="done", now_us=job.run.claimed_us + HOUR_US
    )
    assert move.job is not None
    record = write_job(move.job, claimed, FACTS, outcomes=move.outcomes)
    assert record["last_run_at"] == "2026-06-26T05:00:01-07:00"
    assert record["last_status"] == status
    assert record["repeat"] == {"times": None, "completed": 13}
    assert read_history(record, FACTS) == move.outcomes


def test_interrupted_run_is_written_as_interrupted() -> None:
    """A run whose process ended leaves its start and the word for its end."""
    raw = cron_record()
    job = fired(read_job(raw, FACTS))
    claimed = write_job(job, raw, FACTS)
    move = transitions.fire(job, fire_at_us=0, now_us=NOON_US + DAY_US, owner="vm/2", liveness=Liveness.DEAD)
    assert move.job is not None
    record = write_job(move.job, claimed, FACTS, outcomes=move.outcomes)
    assert (record["last_status"], record["chronos"]["run"]) == ("interrupted", None)


def test_missed_occurrence_is_history_and_no_run() -> None:
    """An occurrence without a run leaves `last_run_at` alone."""
    raw = cron_record()
    before = read_job(raw, FACTS)
    move = transitions.fire(
        before,
        fire_at_us=NOON_US + 9 * DAY_US,
        now_us=NOON_US + 9 * DAY_US,
        owner="a",
        liveness=Liveness.UNKNOWN,
    )
    assert move.job is not None
    assert {outcome.result for outcome in move.outcomes} == {Result.MISSED}
    record = write_job(move.job, raw, FACTS, outcomes=move.outcomes)
    assert record["last_run_at"] == raw["last_run_at"]
    assert read_history(record, FACTS) == move.outcomes


def test_pause_and_completion_are_written_in_today_s_words() -> None:
    """Today's agent sees a paused or completed job as such, and as not enabled."""
    raw = cron_record(repeat={"times": 13, "completed": 12, "note": "theirs"})
    paused = transitions.pause(read_job(raw, FACTS)).job
    assert paused is not None
    record = write_job(paused, raw, FACTS)
    assert (record["state"], record["enabled"], record["next_run_at"]) == (
        "paused",
        False,
        raw["next_run_at"],
    )
    job = fired(read_job(raw, FACTS))
    claimed = write_job(job, raw, FACTS)
    assert (claimed["state"], claimed["enabled"], claimed["next_run_at"]) == ("scheduled", True, None)
    assert job.run is not None
    move = transitions.finish(job, run=job.run, succeeded=True, detail="", now_us=NOON_US)
    assert move.job is not None
    record = write_job(move.job, claimed, FACTS, outcomes=move.outcomes)
    assert (record["state"], record["enabled"], record["next_run_at"]) == ("completed", False, None)
    assert record["repeat"] == {"times": 13, "completed": 13, "note": "theirs"}


def test_unknown_state_survives_until_the_state_changes() -> None:
    """A word that the scheduler does not know is not replaced by one that it does."""
    raw = cron_record(state="running")
    assert write_job(fired(read_job(raw, FACTS)), raw, FACTS)["state"] == "running"


def test_spelling_of_an_unchanged_time_stamp_survives() -> None:
    """The same instant in other letters is not rewritten."""
    raw = cron_record(next_run_at="2026-06-26 12:00:00Z")
    assert write_job(read_job(raw, FACTS), raw, FACTS) == raw


def test_worked_out_slot_is_written_down() -> None:
    """A slot that depended on the time stamp of the file does not move when that is written anew."""
    raw = cron_record(next_run_at=None)
    job = read_job(raw, FACTS)
    record = write_job(job, raw, FACTS)
    assert record["next_run_at"] == "2026-06-26T05:00:00-07:00"
    assert "chronos" not in record
    later = attrs.evolve(FACTS, now_us=NOON_US + 30 * DAY_US)
    assert read_job(record, later) == job


def test_one_shot_in_flight_is_not_read_as_due() -> None:
    """A claimed one-shot has no next time, and does not get one because it has not completed yet."""
    raw = {"id": "a", "schedule": {"kind": "once", "run_at": NOON}, "next_run_at": NOON}
    record = write_job(fired(read_job(raw, FACTS)), raw, FACTS)
    assert read_job(record, FACTS).next_us is None


def test_zone_outlives_the_next_run_that_named_it() -> None:
    """A job whose zone was known from its next time alone keeps it when none is left."""
    raw = cron_record(created_at="2026-06-13T18:51:54+00:00", last_run_at=None, repeat={"times": 1})
    job = fired(read_job(raw, FACTS))
    record = write_job(job, raw, FACTS)
    assert record["next_run_at"] is None
    assert read_job(record, FACTS).schedule == Cron(expr="0 5 * * *", tz="-07:00")


def test_interval_keeps_its_anchor_until_somebody_moves_its_next_run() -> None:
    """The grid of an interval is that of its first slot; a next time set by hand starts a new one."""
    raw = cron_record(schedule={"kind": "interval", "minutes": 10})
    job = fired(read_job(raw, FACTS))
    record = write_job(job, raw, FACTS)
    assert read_job(record, FACTS) == job
    moved = read_job({**record, "next_run_at": "2026-06-26T05:13:00-07:00"}, FACTS)
    assert isinstance(moved.schedule, Interval)
    assert moved.schedule.anchor_us == moved.next_us == parse_instant("2026-06-26T05:13:00-07:00")


def test_history_keeps_the_newest() -> None:
    """A record does not grow for ever, and neither does a reason."""
    raw = cron_record()
    job = read_job(raw, FACTS)
    outcomes = tuple(
        Outcome(
            job_id="job-01",
            result=Result.MISSED,
            reason=f"{number} " + "x" * 2 * LONGEST_REASON,
            occurrence_us=NOON_US + number,
            last_occurrence_us=NOON_US + number,
            at_us=NOON_US,
        )
        for number in range(HISTORY_LENGTH + 5)
    )
    record = write_job(job, write_job(job, raw, FACTS, outcomes=outcomes[:30]), FACTS, outcomes=outcomes[30:])
    kept = read_history(record, FACTS)
    assert [outcome.occurrence_us for outcome in kept] == [outcome.occurrence_us for outcome in outcomes[5:]]
    assert {len(outcome.reason) for outcome in kept} == {LONGEST_REASON}


def test_broken_history_is_refused_when_it_is_read() -> None:
    """A history that somebody broke names its entry; it does not keep the job from running."""
    raw = cron_record(chronos={"history": [{"result": "vanished"}]})
    assert read_job(raw, FACTS).id == "job-01"
    with pytest.raises(JobsFileError, match=r"chronos\.history\[0\]"):
        read_history(raw, FACTS)


@pytest.mark.parametrize(
    "job",
    [
        Job(id="a", schedule=Interval(period_us=MAX_DURATION_US + 1, anchor_us=0), next_us=0),
        Job(id="a", schedule=Once(at_us=0), next_us=1 << 62),
        Job(id="", schedule=Once(at_us=0), next_us=0),
        Job(id="a", schedule=Once(at_us=0), next_us=0, revision=-1),
    ],
)
def test_job_that_could_not_be_read_back_is_not_written(job: Job) -> None:
    """One job without a readable record must not make the whole file unreadable."""
    with pytest.raises(StoreError) as caught:
        new_record(job, FACTS)
    assert caught.value.definite


def test_time_stamp_of_the_file_keeps_its_offset() -> None:
    """Jobs that name no zone take the file's offset, so that a write must not change it."""
    facts = attrs.evolve(FACTS, fallback_tz="-07:00")
    assert stamp(facts, NOON_US + 7) == "2026-06-25T05:00:00-07:00"


zones = st.sampled_from(["UTC", "+05:30", "-07:00", "Europe/Berlin", "America/New_York"])
instants = st.integers(NOON_US - 400 * DAY_US, NOON_US + 400 * DAY_US)
schedules = st.one_of(
    st.builds(
        Cron,
        expr=st.sampled_from(["0 5 * * *", "*/7 * * * *", "30 2 * * *", "0 0 1 1 *", "*/20 * * * * *"]),
        tz=zones,
    ),
    st.builds(
        Interval,
        period_us=st.integers(1, MAX_DURATION_US) | st.integers(1, 9000).map(lambda n: n * MINUTE_US),
        anchor_us=instants,
    ),
    st.builds(Once, at_us=instants),
)
policies = st.builds(
    Policy,
    on_interrupt=st.sampled_from(OnInterrupt),
    misfire_grace_us=st.none() | st.integers(0, 100 * DAY_US),
)


@st.composite
def new_jobs(draw: st.DrawFn) -> Job:
    schedule = draw(schedules)
    next_us = next_after(schedule, draw(instants))
    return Job(
        id=draw(st.sampled_from(["job-01", "a/b", "ü", "\ud800"])),
        schedule=schedule,
        next_us=next_us,
        state=JobState.SCHEDULED if next_us is not None else JobState.COMPLETED,
        times=draw(st.none() | st.integers(1, 4)),
        revision=draw(st.integers(0, 3)),
        policy=draw(policies),
    )


def some_move(draw: Callable[..., Any], job: Job, now_us: int) -> Move:
    run = job.run
    match draw(st.sampled_from(["fire", "fire", "finish", "renew", "pause", "resume", "bury"])):
        case "fire" | "bury" as how:
            return transitions.fire(
                job,
                fire_at_us=now_us,
                now_us=now_us,
                owner="vm/ü",
                liveness=Liveness.DEAD if how == "bury" else Liveness.UNKNOWN,
            )
        case "finish" if run is not None:
            succeeded = draw(st.booleans())
            return transitions.finish(job, run=run, succeeded=succeeded, detail="because", now_us=now_us)
        case "renew" if run is not None:
            return transitions.renew(job, run=run, now_us=now_us)
        case "pause":
            return transitions.pause(job)
    return transitions.resume(job, now_us=now_us)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_is_written_reads_the_same(data: st.DataObject) -> None:
    """Through any life of a job, its record reads as the job, and what is the agent's stays in it."""
    facts = FileFacts(
        source="jobs.json",
        tz=data.draw(st.none() | zones),
        fallback_tz=data.draw(zones),
        now_us=data.draw(st.none() | instants),
    )
    job = data.draw(new_jobs())
    record = new_record(job, facts, created_us=data.draw(st.none() | instants))
    record["prompt"] = "theirs"
    assert read_job(record, facts) == job
    now_us = data.draw(instants)
    expected: tuple[Outcome, ...] = ()
    for _ in range(data.draw(st.integers(1, 8))):
        if job.next_us is not None:
            if data.draw(st.booleans()):
                now_us = max(now_us, job.next_us)
            # What is due is counted one by one, so that not too much may be.
            span_us = 50 * job.schedule.period_us if isinstance(job.schedule, Interval) else HOUR_US
            now_us = min(now_us, job.next_us + span_us)
        move = some_move(data.draw, job, now_us)
        assert move.job is not None
        before = copy.deepcopy(record)
        written = write_job(move.job, record, facts, outcomes=move.outcomes)
        assert record == before, "the record that was given stays as it was"
        record, job = json.loads(json.dumps(written)), move.job
        assert read_job(record, facts) == job
        assert read_job(record, attrs.evolve(facts, now_us=now_us + DAY_US)) == job
        expected = (expected + move.outcomes)[-HISTORY_LENGTH:]
        assert read_history(record, facts) == expected
        assert record["prompt"] == "theirs"
        now_us += data.draw(st.sampled_from([0, 1, SECOND_US, MINUTE_US, HOUR_US]))


def test_run_of_another_attempt_reads_the_same() -> None:
    """A renewed lease and a second attempt are part of the record."""
    run = Run(
        occurrence_us=NOON_US,
        attempt=2,
        owner="vm/ü",
        claimed_us=NOON_US + 3,
        lease_until_us=NOON_US + HOUR_US,
        origin=Origin.RECOVERY,
    )
    raw = cron_record()
    job = attrs.evolve(read_job(raw, FACTS), run=run, revision=7)
    assert read_job(write_job(job, raw, FACTS), FACTS) == job
