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
from chronos.jobs.due import following
from chronos.jobs.instants import DAY_US, HOUR_US, MINUTE_US, SECOND_US, parse_instant, whole_second
from chronos.jobs.job import Job, JobState, Liveness, Move, Origin, Outcome, Result, Run, Waiting
from chronos.jobs.policy import (
    MAX_CATCH_UP,
    MAX_RETRY_DELAY_US,
    MAX_TIME_LIMIT_US,
    CatchUp,
    OnInterrupt,
    Overlap,
    Policy,
)
from chronos.jobs.schedule import Cron, Interval, Once, next_after
from chronos.protocol import job_changes, transitions
from chronos.protocol.draft import Fired
from chronos.protocol.job_changes import Changes
from chronos.stores import HISTORY_LENGTH
from chronos.stores.reader import MAX_DURATION_US
from chronos.stores.record import Document, FileFacts, read_document, read_history, read_job
from chronos.stores.rewrite import LONGEST_REASON, new_record, stamp, write_job
from chronos.values import evolve
from tests.strategies import data_texts

NOON = "2026-06-25T12:00:00+00:00"
NOON_US = parse_instant(NOON)
FACTS = FileFacts(source="jobs.json", now_us=NOON_US)
FLEETS = sorted(
    (entry for entry in files("simulator").joinpath("fleets").iterdir() if entry.name.endswith(".json")),
    key=lambda entry: entry.name,
)


CRON = {"kind": "cron", "expr": "0 5 * * *", "display": "every day at 5am"}
HALF_HOUR = {"kind": "interval", "minutes": 30}
ONCE = {"kind": "once", "run_at": "2026-07-01T09:00:00Z"}
RETRY = {"attempts": 4, "delay_seconds": 1.5, "max_delay_seconds": 600}
EVERY_CHOICE = {
    "misfire_grace_seconds": 0.5,
    "catch_up": "all",
    "catch_up_limit": 100,
    "overlap": "queue",
    "on_interrupt": "retry",
    "retry": RETRY,
    "time_limit_seconds": 90.5,
    "starts_at": "2026-06-20T00:00:00Z",
    "ends_at": "2026-12-31T14:00:00+02:00",
}


def cron_record(**fields: Any) -> dict[str, Any]:
    """Return the record of a job that runs at five, as agents write it, with some fields replaced."""
    return {
        "id": "job-01",
        "name": "Morning report",
        "prompt": "Summarise the news.",
        "schedule": dict(CRON),
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


RUN = {
    "occurrence": NOON,
    "attempt": 1,
    "owner": "vm/1",
    "claimed": NOON,
    "lease_until": NOON,
    "origin": "manual",
    "minted": NOON,
    "received": NOON,
}
WAITING = {"occurrence": NOON, "attempt": 2, "not_before": NOON, "origin": "recovery"}
ENDED = {
    "result": "completed",
    "reason": "",
    "occurrence": NOON,
    "attempt": 1,
    "origin": "catch-up",
    "minted": NOON,
    "received": NOON,
    "claimed": NOON,
    "at": NOON,
}
FULL = cron_record(
    policy=EVERY_CHOICE,
    paused_reason="until the audit",
    chronos={
        "revision": 4,
        "runs": [RUN],
        "waiting": [WAITING],
        "last_manual": NOON,
        "history": [ENDED],
        "anchor": NOON,
        "tz": "UTC",
    },
)


def without(record: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in names}


def text_of(*records: Any, **top: Any) -> str:
    return json.dumps({"jobs": list(records), "updated_at": NOON, **top})


def refusal(text: str) -> str:
    with pytest.raises(JobsFileError) as caught:
        read_document(text, source="jobs.json").checked()
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
    assert read_job(cron_record(policy=EVERY_CHOICE), FACTS).policy == Policy(
        misfire_grace_us=SECOND_US // 2,
        catch_up=CatchUp.ALL,
        catch_up_limit=MAX_CATCH_UP,
        overlap=Overlap.QUEUE,
        on_interrupt=OnInterrupt.RETRY,
        attempts=4,
        retry_delay_us=1500_000,
        retry_max_delay_us=600 * SECOND_US,
        time_limit_us=90_500_000,
        starts_us=parse_instant("2026-06-20T00:00:00Z"),
        ends_us=parse_instant("2026-12-31T12:00:00Z"),
    )


def test_choice_that_is_null_is_the_default() -> None:
    """A choice that is spelled out as null is as good as one that is absent."""
    nothing = dict.fromkeys(EVERY_CHOICE)
    assert read_job(cron_record(policy=nothing), FACTS).policy == Policy()
    assert read_job(cron_record(policy={"retry": dict.fromkeys(RETRY)}), FACTS).policy == Policy()
    assert read_job(cron_record(policy=None), FACTS).policy == Policy()


def test_reason_of_a_pause_is_read_from_the_field_of_agents() -> None:
    """An agent that pauses a job says why in `paused_reason`; null is no reason."""
    assert read_job(cron_record(paused_reason="until the audit"), FACTS).note == "until the audit"
    assert read_job(cron_record(paused_reason=None), FACTS).note == ""


@pytest.mark.parametrize(
    ("schedule", "bounds", "expected"),
    [
        (CRON, {"starts_at": "2026-07-01T00:00:00-07:00"}, "2026-07-01T05:00:00-07:00"),
        (CRON, {"starts_at": "2026-07-01T05:00:00-07:00"}, "2026-07-01T05:00:00-07:00"),
        (CRON, {"starts_at": "2026-06-01T05:00:00-07:00"}, "2026-06-26T05:00:00-07:00"),
        (CRON, {"ends_at": "2026-06-26T05:00:00-07:00"}, "2026-06-26T05:00:00-07:00"),
        (CRON, {"ends_at": "2026-06-26T04:59:59-07:00"}, None),
        (HALF_HOUR, {"starts_at": "2026-07-01T00:00:00Z"}, "2026-07-01T00:16:03Z"),
        (HALF_HOUR, {"ends_at": NOON}, None),
        (ONCE, {"starts_at": "2026-07-01T09:00:00Z"}, "2026-07-01T09:00:00Z"),
        (ONCE, {"starts_at": "2026-07-01T09:00:01Z"}, None),
        (ONCE, {"ends_at": "2026-07-01T08:59:59Z"}, None),
    ],
)
def test_missing_next_run_is_looked_for_within_the_bounds(
    schedule: dict[str, Any], bounds: dict[str, str], expected: str | None
) -> None:
    """A slot that is worked out is none before the job starts or after it ends."""
    raw = cron_record(schedule=schedule, next_run_at=None, policy=bounds, repeat={"times": None})
    assert read_job(raw, FACTS).next_us == (None if expected is None else parse_instant(expected))


@pytest.mark.parametrize("name", ["runs", "waiting"])
def test_missing_next_run_stays_missing_while_an_occurrence_is_in_progress(name: str) -> None:
    """The last occurrence is not followed by another because it has not ended yet."""
    raw = cron_record(next_run_at=None, chronos={name: FULL["chronos"][name]})
    assert read_job(raw, FACTS).next_us is None


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


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"id": None}, "job #1: id: expected text that is not empty, got null"),
        ({"id": " "}, "job #1: id: expected text that is not empty, got ' '"),
        ({"id": 7}, "job #1: id: expected text"),
        ({"id": "first"}, "job first: id: expected each id once, got it at index 0 and at index 1"),
        ({"id": "a\nb", "schedule": None}, r"job a\nb: schedule: expected"),
        ({"schedule": None}, "job job-01: schedule: expected an object with a kind, or text, got null"),
        ({"schedule": ["0 5 * * *"]}, "schedule: expected an object, got ['0 5 * * *']"),
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
        ({"policy": {"misfire_grace_seconds": "1"}}, "policy.misfire_grace_seconds: expected a number"),
        ({"policy": {"catch_up": "some"}}, "policy.catch_up: expected one of skip, once, all, got 'some'"),
        ({"policy": {"catch_up": True}}, "policy.catch_up: expected text, got true"),
        (
            {"policy": {"catch_up_limit": 0}},
            "policy.catch_up_limit: expected a whole number of at least 1, got 0",
        ),
        (
            {"policy": {"catch_up_limit": 101}},
            "policy.catch_up_limit: catch_up_limit is 101; expected at most 100",
        ),
        ({"policy": {"overlap": "kill"}}, "policy.overlap: expected one of skip, queue, allow, got 'kill'"),
        ({"policy": {"retry": 3}}, "policy.retry: expected an object, got 3"),
        (
            {"policy": {"retry": {"attempts": 0}}},
            "policy.retry.attempts: expected a whole number of at least 1, got 0",
        ),
        ({"policy": {"retry": {"attempts": 2.0}}}, "policy.retry.attempts: expected a whole number"),
        (
            {"policy": {"retry": {"delay_seconds": 0}}},
            "policy.retry.delay_seconds: expected more than zero, got 0",
        ),
        (
            {"policy": {"retry": {"delay_seconds": 1e-7}}},
            "policy.retry.delay_seconds: expected more than zero, got 1e-07",
        ),
        (
            {"policy": {"retry": {"max_delay_seconds": False}}},
            "policy.retry.max_delay_seconds: expected a number, got false",
        ),
        (
            {"policy": {"starts_at": "2026-07-01T09:00:00"}},
            "policy.starts_at: instant '2026-07-01T09:00:00' has no offset",
        ),
        ({"policy": {"ends_at": "some day"}}, "policy.ends_at: not an instant: 'some day'"),
        (
            {"policy": {"starts_at": NOON, "ends_at": "2026-06-25T11:59:59Z"}},
            "policy.ends_at: the job ends before it starts:"
            " 2026-06-25T12:00:00+00:00 to 2026-06-25T11:59:59+00:00",
        ),
        ({"paused_reason": 7}, "paused_reason: expected text, got 7"),
        ({"paused_reason": False}, "paused_reason: expected text, got false"),
        ({"chronos": []}, "chronos: expected an object, got []"),
        ({"chronos": {"revision": -1}}, "chronos.revision: expected a whole number"),
        ({"chronos": {"runs": {}}}, "chronos.runs: expected a list, got {}"),
        ({"chronos": {"runs": [None]}}, "chronos.runs[0]: expected an object, got null"),
        ({"chronos": {"runs": [RUN, {}]}}, "chronos.runs[1].occurrence: expected a time stamp"),
        ({"chronos": {"runs": [{**RUN, "attempt": 0}]}}, "chronos.runs[0].attempt: expected a whole number"),
        ({"chronos": {"runs": [{**RUN, "owner": None}]}}, "chronos.runs[0].owner: expected text, got null"),
        ({"chronos": {"runs": [{**RUN, "claimed": "x"}]}}, "chronos.runs[0].claimed: not an instant: 'x'"),
        ({"chronos": {"runs": [{**RUN, "lease_until": None}]}}, "chronos.runs[0].lease_until: expected a"),
        ({"chronos": {"runs": [{**RUN, "origin": "luck"}]}}, "chronos.runs[0].origin: expected one of sched"),
        ({"chronos": {"runs": [{**RUN, "minted": 5}]}}, "chronos.runs[0].minted: expected text, got 5"),
        ({"chronos": {"runs": [{**RUN, "received": ""}]}}, "chronos.runs[0].received: not an instant: ''"),
        ({"chronos": {"waiting": 1}}, "chronos.waiting: expected a list, got 1"),
        ({"chronos": {"waiting": [{}]}}, "chronos.waiting[0].occurrence: expected a time stamp"),
        (
            {"chronos": {"waiting": [{**WAITING, "attempt": True}]}},
            "chronos.waiting[0].attempt: expected a whole number of at least 1, got true",
        ),
        (
            {"chronos": {"waiting": [without(WAITING, "not_before")]}},
            "chronos.waiting[0].not_before: expected a time stamp with its offset, got nothing",
        ),
        ({"chronos": {"waiting": [{**WAITING, "origin": 1}]}}, "chronos.waiting[0].origin: expected text"),
        ({"chronos": {"last_manual": "noon"}}, "chronos.last_manual: not an instant: 'noon'"),
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
        document = read_document(text, source="jobs.json").checked()
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
    move = transitions.fire(job, fire_at_us=at_us, now_us=at_us + SECOND_US, owner="vm/1")
    assert move.job is not None
    return move.job


def test_claim_writes_the_next_run_in_the_offset_of_the_job() -> None:
    """The owner of the file goes on reading the times of the job as before; the rest stays as it was."""
    raw = cron_record()
    job = fired(read_job(raw, FACTS))
    record = write_job(job, raw, FACTS)
    assert record["next_run_at"] == "2026-06-27T05:00:00-07:00"
    assert record["chronos"]["revision"] == 1
    assert [run["occurrence"] for run in record["chronos"]["runs"]] == ["2026-06-26T12:00:00+00:00"]
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
    (run,) = job.runs
    move = transitions.finish(
        job, run=run, succeeded=succeeded, detail="done", now_us=run.claimed_us + HOUR_US
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
    move = transitions.fire(
        job, fire_at_us=0, now_us=NOON_US + DAY_US, owner="vm/2", liveness=[Liveness.DEAD]
    )
    assert move.job is not None
    record = write_job(move.job, claimed, FACTS, outcomes=move.outcomes)
    assert record["last_status"] == "interrupted"
    assert "runs" not in record["chronos"]


def test_missed_occurrence_is_history_and_no_run() -> None:
    """An occurrence without a run leaves `last_run_at` alone."""
    raw = cron_record()
    before = read_job(raw, FACTS)
    move = transitions.fire(
        before,
        fire_at_us=NOON_US + 9 * DAY_US,
        now_us=NOON_US + 9 * DAY_US,
        owner="a",
    )
    assert move.job is not None
    assert {outcome.result for outcome in move.outcomes} == {Result.MISSED}
    record = write_job(move.job, raw, FACTS, outcomes=move.outcomes)
    assert record["last_run_at"] == raw["last_run_at"]
    assert read_history(record, FACTS) == move.outcomes


def test_pause_and_completion_are_written_in_today_s_words() -> None:
    """Today's agent sees a paused or completed job as such, and as not enabled."""
    raw = cron_record(repeat={"times": 13, "completed": 12, "note": "theirs"})
    paused = job_changes.pause(read_job(raw, FACTS), note="", now_us=NOON_US).job
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
    move = transitions.finish(job, run=job.runs[0], succeeded=True, detail="", now_us=NOON_US)
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
    later = evolve(FACTS, now_us=NOON_US + 30 * DAY_US)
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


def test_new_record_says_only_what_is_no_default() -> None:
    """A job of which nothing is special has a record without a policy and without the scheduler's key."""
    job = Job(id="a", schedule=Interval(period_us=HOUR_US, anchor_us=NOON_US), next_us=NOON_US)
    assert not {"policy", "paused_reason", "chronos"} & set(new_record(job, FACTS))
    special = evolve(job, policy=Policy(catch_up=CatchUp.ONCE, attempts=3), revision=1)
    record = new_record(special, FACTS)
    assert record["policy"] == {"catch_up": "once", "retry": {"attempts": 3}}
    assert record["chronos"] == {"revision": 1}


def test_policy_is_written_in_units_that_people_use() -> None:
    """Durations are seconds, and the bounds are times of day in the zone of the job."""
    policy = read_job(cron_record(policy=EVERY_CHOICE), FACTS).policy
    job = Job(id="a", schedule=Cron(expr="0 5 * * *", tz="Europe/Berlin"), next_us=NOON_US, policy=policy)
    assert new_record(job, FACTS)["policy"] == {
        **EVERY_CHOICE,
        "starts_at": "2026-06-20T02:00:00+02:00",
        "ends_at": "2026-12-31T13:00:00+01:00",
    }


def test_choice_that_does_not_change_keeps_its_spelling() -> None:
    """Of a policy that is edited, only what differs is written; what becomes a default is left out."""
    raw = cron_record(
        policy={
            "overlap": None,
            "misfire_grace_seconds": 60.0,
            "on_interrupt": "record",
            "retry": {"attempts": 3, "delay_seconds": 60, "jitter": "theirs"},
            "starts_at": "2026-06-01 00:00:00Z",
        }
    )
    job = read_job(raw, FACTS)
    wanted = attrs.evolve(job.policy, attempts=1, catch_up=CatchUp.ALL)
    record = write_job(evolve(job, policy=wanted), raw, FACTS)
    assert json.dumps(record["policy"]) == json.dumps(
        {
            "overlap": None,
            "misfire_grace_seconds": 60.0,
            "on_interrupt": "record",
            "retry": {"delay_seconds": 60, "jitter": "theirs"},
            "starts_at": "2026-06-01 00:00:00Z",
            "catch_up": "all",
        }
    )


def test_policy_that_becomes_the_default_leaves_the_record() -> None:
    """A policy that says nothing any more is not left behind as an empty object."""
    raw = cron_record(policy={"retry": {"attempts": 3}})
    record = write_job(evolve(read_job(raw, FACTS), policy=Policy()), raw, FACTS)
    assert record == without(raw, "policy")


def test_reason_of_a_pause_is_written_as_agents_do_and_cleared_with_it() -> None:
    """A resumed job keeps neither why nor, from an agent's own pause, since when it was paused."""
    raw = cron_record()
    paused = job_changes.pause(read_job(raw, FACTS), note="until the audit", now_us=NOON_US).job
    assert paused is not None
    record = write_job(paused, raw, FACTS)
    assert (record["state"], record["paused_reason"]) == ("paused", "until the audit")
    record["paused_at"] = NOON
    resumed = job_changes.resume(read_job(record, FACTS), from_now=False, now_us=NOON_US).job
    assert resumed is not None
    record = write_job(resumed, record, FACTS)
    assert (record["state"], record["paused_reason"], record["paused_at"]) == ("scheduled", None, None)


def test_another_reason_leaves_the_time_of_the_pause_alone() -> None:
    """An agent's `paused_at` stays as long as the job is paused."""
    raw = cron_record(state="paused", enabled=False, paused_at=NOON, paused_reason="")
    assert write_job(read_job(raw, FACTS), raw, FACTS) == raw
    other = job_changes.pause(read_job(raw, FACTS), note="other", now_us=NOON_US + HOUR_US).job
    assert other is not None
    record = write_job(other, raw, FACTS)
    assert (record["paused_at"], record["paused_reason"]) == (NOON, "other")


def test_manual_run_counts_as_the_last_run_and_takes_no_slot() -> None:
    """Agents see a run by hand as a run of the job; its schedule and its count stay."""
    raw = cron_record()
    asked = transitions.run_now(read_job(raw, FACTS), asked_us=NOON_US, now_us=NOON_US + 1, owner="vm/1").job
    assert asked is not None
    claimed = write_job(asked, raw, FACTS)
    assert claimed["chronos"]["last_manual"] == NOON
    assert [run["origin"] for run in claimed["chronos"]["runs"]] == ["manual"]
    move = transitions.finish(asked, run=asked.runs[0], succeeded=False, detail="no", now_us=NOON_US + 2)
    assert move.job is not None
    record = write_job(move.job, claimed, FACTS, outcomes=move.outcomes)
    assert (record["last_run_at"], record["last_status"]) == ("2026-06-25T05:00:00.000001-07:00", "error")
    assert (record["next_run_at"], record["repeat"]) == (raw["next_run_at"], raw["repeat"])


def test_failed_attempt_waits_in_the_record_for_the_next_one() -> None:
    """What waits is written with its attempt and its time, and gives no last run before it has ended."""
    raw = cron_record(policy={"retry": {"attempts": 2}})
    job = fired(read_job(raw, FACTS))
    claimed = write_job(job, raw, FACTS)
    now_us = NOON_US + DAY_US + HOUR_US
    move = transitions.finish(job, run=job.runs[0], succeeded=False, detail="no", now_us=now_us)
    assert move.job is not None
    record = write_job(move.job, claimed, FACTS, outcomes=move.outcomes)
    assert record["last_run_at"] == raw["last_run_at"]
    (waiting,) = record["chronos"]["waiting"]
    assert (waiting["occurrence"], waiting["attempt"]) == ("2026-06-26T12:00:00+00:00", 2)
    assert now_us < parse_instant(waiting["not_before"]) <= now_us + MINUTE_US
    paused = job_changes.pause(move.job, note="", now_us=now_us)
    assert paused.job is not None
    assert [outcome.attempt for outcome in paused.outcomes] == [1]
    record = write_job(paused.job, record, FACTS, outcomes=paused.outcomes)
    assert (record["last_run_at"], record["last_status"]) == (raw["last_run_at"], raw["last_status"])
    assert "waiting" not in record["chronos"]


def test_history_says_how_a_run_came_about_when_that_says_something() -> None:
    """An ordinary missed occurrence has a short entry; one that ran late tells each hop."""
    raw = cron_record()
    ended = Outcome(
        job_id="job-01",
        result=Result.COMPLETED,
        reason="",
        occurrence_us=NOON_US,
        last_occurrence_us=NOON_US,
        attempt=1,
        at_us=NOON_US + 9,
        origin=Origin.CATCH_UP,
        minted_us=NOON_US + 1,
        received_us=NOON_US + 2,
        claimed_us=NOON_US + 3,
    )
    missed = evolve(
        ended,
        result=Result.MISSED,
        attempt=0,
        origin=Origin.SCHEDULE,
        minted_us=None,
        received_us=None,
        claimed_us=None,
    )
    record = write_job(read_job(raw, FACTS), raw, FACTS, outcomes=(ended, missed))
    full, short = record["chronos"]["history"]
    assert list(full) == [
        "result",
        "reason",
        "occurrence",
        "attempt",
        "origin",
        "minted",
        "received",
        "claimed",
        "at",
    ]
    assert list(short) == ["result", "reason", "occurrence", "at"]
    assert read_history(record, FACTS) == (ended, missed)


def test_history_is_as_long_as_it_was_asked_to_be() -> None:
    """The newest outcomes are kept; a length below one is a mistake of the caller."""
    raw = cron_record(chronos={"history": [{**ENDED, "reason": str(number)} for number in range(5)]})
    job = read_job(raw, FACTS)
    (one, *_) = read_history(raw, FACTS)
    record = write_job(job, raw, FACTS, outcomes=(one,), history_length=2)
    assert [entry["reason"] for entry in record["chronos"]["history"]] == ["4", "0"]
    assert write_job(job, raw, FACTS, history_length=2) == raw
    with pytest.raises(ValueError, match="history_length is 0; expected at least 1"):
        write_job(job, raw, FACTS, history_length=0)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"result": "vanished"}, "history[0].occurrence: expected a time stamp with its offset, got nothing"),
        ({**ENDED, "result": "vanished"}, "history[0].result: expected one of completed, failed, missed"),
        ({**ENDED, "reason": None}, "history[0].reason: expected text, got null"),
        ({**ENDED, "origin": "luck"}, "history[0].origin: expected one of schedule, catch-up, recovery"),
        ({**ENDED, "minted": 5}, "history[0].minted: expected text, got 5"),
        ({**ENDED, "received": "x"}, "history[0].received: not an instant: 'x'"),
        ({**ENDED, "claimed": "x"}, "history[0].claimed: not an instant: 'x'"),
        ({**ENDED, "attempt": -1}, "history[0].attempt: expected a whole number of at least 0, got -1"),
        (None, "history[0]: expected an object, got null"),
    ],
)
def test_broken_history_is_refused_when_it_is_read(entry: Any, expected: str) -> None:
    """A history that somebody broke names its entry; it does not keep the job from running."""
    raw = cron_record(chronos={"history": [entry]})
    assert read_job(raw, FACTS).id == "job-01"
    with pytest.raises(JobsFileError) as caught:
        read_history(raw, FACTS)
    assert str(caught.value).startswith(f"jobs.json: job job-01: chronos.{expected}")


@pytest.mark.parametrize(
    "job",
    [
        Job(id="a", schedule=Interval(period_us=MAX_DURATION_US + 1, anchor_us=0), next_us=0),
        Job(id="a", schedule=Once(at_us=0), next_us=1 << 62),
        Job(id="", schedule=Once(at_us=0), next_us=0),
        Job(id="a", schedule=Once(at_us=0), next_us=0, revision=-1),
        Job(id="a", schedule=Once(at_us=0), next_us=0, policy=Policy(misfire_grace_us=MAX_DURATION_US + 1)),
        Job(id="a", schedule=Once(at_us=0), next_us=0, last_manual_us=1 << 61),
        Job(id="a", schedule=Once(at_us=0), next_us=0, last_manual_us=1 << 62),
        Job(
            id="a",
            schedule=Once(at_us=0),
            next_us=0,
            waiting=(Waiting(occurrence_us=0, attempt=0, not_before_us=0, origin=Origin.SCHEDULE),),
        ),
    ],
)
def test_job_that_could_not_be_read_back_is_not_written(job: Job) -> None:
    """One job without a readable record must not make the whole file unreadable."""
    with pytest.raises(StoreError) as caught:
        new_record(job, FACTS)
    assert caught.value.definite


def test_time_stamp_of_the_file_keeps_its_offset() -> None:
    """Jobs that name no zone take the file's offset, so that a write must not change it."""
    facts = evolve(FACTS, fallback_tz="-07:00")
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
# As people give them: a period is whole seconds.
given_schedules = schedules.map(
    lambda schedule: (
        attrs.evolve(schedule, period_us=whole_second(schedule.period_us))
        if isinstance(schedule, Interval)
        else schedule
    )
)
durations = st.integers(1, MAX_DURATION_US) | st.integers(1, 9000).map(lambda n: n * SECOND_US)
origins = st.sampled_from(Origin)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    starts_us, ends_us = sorted(draw(st.tuples(instants, instants)))
    return Policy(
        misfire_grace_us=draw(st.none() | st.just(0) | durations),
        catch_up=draw(st.sampled_from(CatchUp)),
        catch_up_limit=draw(st.integers(1, MAX_CATCH_UP)),
        overlap=draw(st.sampled_from(Overlap)),
        on_interrupt=draw(st.sampled_from(OnInterrupt)),
        attempts=draw(st.integers(1, 4)),
        retry_delay_us=draw(st.just(MINUTE_US) | st.integers(1, MAX_RETRY_DELAY_US)),
        retry_max_delay_us=draw(st.just(HOUR_US) | st.integers(1, MAX_RETRY_DELAY_US)),
        time_limit_us=draw(st.none() | st.integers(1, MAX_TIME_LIMIT_US)),
        starts_us=draw(st.none() | st.just(starts_us)),
        ends_us=draw(st.none() | st.just(ends_us)),
    )


runs = st.builds(
    Run,
    occurrence_us=instants,
    attempt=st.integers(1, 5),
    owner=st.text(),
    claimed_us=instants,
    lease_until_us=instants,
    origin=origins,
    minted_us=st.none() | instants,
    received_us=st.none() | instants,
)
waitings = st.builds(
    Waiting,
    occurrence_us=instants,
    attempt=st.integers(1, 5),
    not_before_us=instants,
    origin=origins,
)


@st.composite
def any_jobs(draw: st.DrawFn) -> Job:
    """Return a job of which every field may be anything that it may be beside the others."""
    state = draw(st.sampled_from(JobState))
    in_flight, waiting = tuple(draw(st.lists(runs, max_size=3))), tuple(draw(st.lists(waitings, max_size=3)))
    times, completed = draw(st.none() | st.integers(1, 4)), draw(st.integers(0, 5))
    schedule, next_us = draw(schedules), draw(st.none() | instants)
    if isinstance(schedule, Interval) and next_us is not None:
        next_us = next_after(schedule, next_us)  # an interval whose next occurrence is no slot is read anew
    may_be_none = in_flight or waiting or (times is not None and completed >= times)
    if next_us is None and not may_be_none:
        state = JobState.COMPLETED
    return Job(
        id="job-01",
        schedule=schedule,
        next_us=None if state is JobState.COMPLETED else next_us,
        state=state,
        runs=in_flight,
        waiting=waiting,
        times=times,
        completed=completed,
        revision=draw(st.integers(0, 3)),
        policy=draw(st.just(Policy()) | policies()),
        note=draw(st.just("") | st.text()),
        last_manual_us=draw(st.none() | instants),
        data_json=draw(data_texts),
    )


outcomes_of_job = st.lists(
    st.builds(
        Outcome,
        job_id=st.just("job-01"),
        result=st.sampled_from(Result),
        reason=st.text(max_size=LONGEST_REASON),
        occurrence_us=instants,
        last_occurrence_us=instants,
        count=st.integers(1, 3),
        attempt=st.integers(0, 3),
        at_us=instants,
        origin=origins,
        minted_us=st.none() | instants,
        received_us=st.none() | instants,
        claimed_us=st.none() | instants,
    ),
    max_size=5,
).map(tuple)


@st.composite
def facts_of_file(draw: st.DrawFn) -> FileFacts:
    return FileFacts(
        source="jobs.json",
        tz=draw(st.none() | zones),
        fallback_tz=draw(zones),
        now_us=draw(st.none() | instants),
    )


@settings(max_examples=150, deadline=None)
@given(any_jobs(), any_jobs(), outcomes_of_job, facts_of_file(), st.integers(1, 4))
def test_any_job_can_be_written_over_any_other(
    one: Job, other: Job, outcomes: tuple[Outcome, ...], facts: FileFacts, history_length: int
) -> None:
    """Whatever changes at once, the record reads as the job and its history as what ended."""
    record = json.loads(json.dumps(new_record(one, facts)))
    assert read_job(record, facts) == one
    before = copy.deepcopy(record)
    written = write_job(other, record, facts, outcomes=outcomes, history_length=history_length)
    assert record == before, "the record that was given stays as it was"
    record = json.loads(json.dumps(written))
    assert read_job(record, facts) == other
    assert read_history(record, facts) == outcomes[-history_length:]
    assert write_job(other, record, facts) == record


@settings(max_examples=100, deadline=None)
@given(any_jobs(), any_jobs(), outcomes_of_job, facts_of_file())
def test_what_others_keep_in_a_record_outlives_every_change(
    one: Job, other: Job, outcomes: tuple[Outcome, ...], facts: FileFacts
) -> None:
    """Fields of others stay in the record, in `policy`, in its `retry` and under `chronos`."""
    record = new_record(one, facts)
    policy = record.get("policy", {})
    record["policy"] = {**policy, "theirs": 1, "retry": {**policy.get("retry", {}), "theirs": 2}}
    record["chronos"] = {**record.get("chronos", {}), "theirs": 3}
    record["theirs"] = {"a": [None]}
    written = write_job(other, record, facts, outcomes=outcomes)
    assert (written["policy"]["theirs"], written["policy"]["retry"]["theirs"]) == (1, 2)
    assert (written["chronos"]["theirs"], written["theirs"]) == (3, {"a": [None]})


@st.composite
def new_jobs(draw: st.DrawFn) -> Job:
    job = Job(
        id=draw(st.sampled_from(["job-01", "a/b", "ü", "\ud800"])),
        schedule=draw(schedules),
        next_us=None,
        times=draw(st.none() | st.integers(1, 4)),
        revision=draw(st.integers(0, 3)),
        policy=draw(policies()),
    )
    next_us = following(job, draw(instants))
    state = JobState.SCHEDULED if next_us is not None else JobState.COMPLETED
    return evolve(job, next_us=next_us, state=state)


MOVES = ["fire", "fire", "finish", "finish", "renew", "run_now", "edit", "pause", "resume", "bury"]


def some_move(draw: Callable[..., Any], job: Job, now_us: int) -> Move:
    run = draw(st.sampled_from(job.runs)) if job.runs else None
    match draw(st.sampled_from(MOVES)):
        case "fire" | "bury" as how:
            return transitions.fire(
                job,
                fire_at_us=now_us,
                now_us=now_us,
                owner="vm/ü",
                liveness=[Liveness.DEAD if how == "bury" else Liveness.UNKNOWN] * len(job.runs),
                fired=Fired(minted_us=now_us - 3, received_us=now_us - 1),
            )
        case "finish" if run is not None:
            succeeded = draw(st.booleans())
            return transitions.finish(job, run=run, succeeded=succeeded, detail="because", now_us=now_us)
        case "renew" if run is not None:
            return transitions.renew(job, run=run, now_us=now_us)
        case "run_now":
            return transitions.run_now(job, asked_us=now_us, now_us=now_us, owner="vm/ü")
        case "edit":
            changes = Changes(
                schedule=draw(st.none() | given_schedules),
                times=draw(st.none() | st.integers(0, 4)),
                policy=draw(st.none() | policies()),
            )
            return job_changes.edit(job, changes=changes, now_us=now_us)
        case "pause":
            return job_changes.pause(job, note=draw(st.sampled_from(["", "later", "ü"])), now_us=now_us)
    return job_changes.resume(job, from_now=draw(st.booleans()), now_us=now_us)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_is_written_reads_the_same(data: st.DataObject) -> None:
    """Through any life of a job, its record reads as the job, and what is the agent's stays in it."""
    facts = data.draw(facts_of_file())
    job = data.draw(new_jobs())
    record = new_record(job, facts, created_us=data.draw(st.none() | instants))
    record["prompt"] = "theirs"
    assert read_job(record, facts) == job
    now_us = data.draw(instants)
    expected: tuple[Outcome, ...] = ()
    for _ in range(data.draw(st.integers(1, 8))):
        if job.next_us is not None and data.draw(st.booleans()):
            now_us = max(now_us, job.next_us)
        move = some_move(data.draw, job, now_us)
        assert move.job is not None
        before = copy.deepcopy(record)
        written = write_job(move.job, record, facts, outcomes=move.outcomes)
        assert record == before, "the record that was given stays as it was"
        record, job = json.loads(json.dumps(written)), move.job
        assert read_job(record, facts) == job
        assert read_job(record, evolve(facts, now_us=now_us + DAY_US)) == job
        expected = (expected + move.outcomes)[-HISTORY_LENGTH:]
        assert read_history(record, facts) == expected
        assert record["prompt"] == "theirs"
        now_us += data.draw(st.sampled_from([0, 1, SECOND_US, MINUTE_US, HOUR_US]))
