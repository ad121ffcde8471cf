"""What agents and people write in a jobs file: read as it is meant, or refused by name."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronos.errors import JobsFileError
from chronos.jobs.instants import HOUR_US, MINUTE_US, parse_instant
from chronos.jobs.job import Job
from chronos.jobs.schedule import Cron, Interval, Once, next_after, upcoming
from chronos.provider.hermes_jobs import read_hermes_job
from chronos.stores import JsonFileStore, told_apart
from chronos.stores.record import FileFacts, read_document, read_history, read_job
from chronos.values import evolve
from tests.agents import MakeWorld

NOON = "2026-06-25T12:00:00+00:00"
NOON_US = parse_instant(NOON)
FACTS = FileFacts(source="jobs.json", now_us=NOON_US)


def record(schedule: object, **fields: Any) -> dict[str, Any]:
    return {
        "id": "job-01",
        "schedule": schedule,
        "next_run_at": None,
        "created_at": "2026-06-25T11:00:00+00:00",
        **fields,
    }


def cron(expr: str, **fields: Any) -> dict[str, Any]:
    return {"kind": "cron", "expr": expr, "tz": "UTC", **fields}


def refusal(raw: object) -> str:
    with pytest.raises(JobsFileError) as caught:
        read_job(raw, FACTS)
    return str(caught.value)


def file_of(path: Path, *records: dict[str, Any], **top: Any) -> Path:
    path.write_text(json.dumps({"jobs": records, "updated_at": NOON, **top}, indent=2), encoding="utf-8")
    return path


# --- a sixth field ----------------------------------------------------------------------------


def test_six_fields_alone_are_refused_with_both_readings() -> None:
    """The agents whose file it is have the sixth field last, this library has it first (incident S7)."""
    said = refusal(record(cron("0 9 * * * 0")))
    assert said.startswith("jobs.json: job job-01: schedule.expr: six fields '0 9 * * * 0': ")
    assert "with seconds first they are second 0, minute 9, hour *, day *, month *, weekday 0" in said
    assert "with seconds last, minute 0, hour 9, day *, month *, weekday *, second 0" in said
    assert "expected seconds_field beside it that says which, first or last" in said


@pytest.mark.parametrize(
    ("where", "slot"), [("first", "2026-06-28T00:09:00+00:00"), ("last", "2026-06-26T09:00:00+00:00")]
)
def test_six_fields_are_read_as_the_record_says(where: str, slot: str) -> None:
    """Either way, and the job is the one that an expression with seconds first would make."""
    job = read_job(record(cron("0 9 * * * 0", seconds_field=where)), FACTS)
    assert job.next_us == parse_instant(slot)
    plain = {"first": "0 9 * * * 0", "last": "0 0 9 * * *"}[where]
    assert job.schedule == Cron(expr=plain, tz="UTC")


@pytest.mark.parametrize("where", ["middle", "First", 1, True])
def test_place_of_the_seconds_is_one_of_two_words(where: object) -> None:
    """Whatever else is said there is a mistake."""
    assert "schedule.seconds_field: expected " in refusal(record(cron("0 9 * * * 0", seconds_field=where)))


def test_one_of_six_fields_stops_no_other_job(tmp_path: Path) -> None:
    """It is an odd record like any other."""
    path = file_of(tmp_path / "jobs.json", record(cron("0 9 * * * 0")), record(cron("0 9 * * *"), id="good"))
    jobs, (odd,) = told_apart(JsonFileStore(path).load_all())
    assert [job.id for job in jobs] == ["good"]
    assert (odd.id, odd.field) == ("job-01", "schedule.expr")


def test_six_fields_of_this_library_can_be_read_again(make_world: MakeWorld, tmp_path: Path) -> None:
    """A job that is created or edited through the API says in the file where its seconds are."""
    world = make_world()
    store = JsonFileStore(file_of(tmp_path / "jobs.json", record(cron("0 9 * * *"), id="edited")))
    world.store = store  # type: ignore[assignment]
    agent = world.another("of the file")
    assert agent.create("created", "*/10 * * * * *").settled
    assert agent.edit("edited", schedule="30 0 9 * * *").settled
    jobs, odd = told_apart(JsonFileStore(store.path).load_all())
    assert odd == ()
    assert {job.id: job.schedule.expr for job in jobs if isinstance(job.schedule, Cron)} == {
        "created": "*/10 * * * * *",
        "edited": "30 0 9 * * *",
    }
    written = json.loads(store.path.read_text(encoding="utf-8"))["jobs"]
    assert [each["schedule"]["seconds_field"] for each in written] == ["first", "first"]
    assert agent.edit("edited", schedule="0 9 * * *").settled
    written = json.loads(store.path.read_text(encoding="utf-8"))["jobs"]
    assert "seconds_field" not in written[0]["schedule"]


def test_spelling_with_seconds_last_survives_a_change_of_the_job(tmp_path: Path) -> None:
    """What the agent reads stays as the agent reads it."""
    raw = record(cron("0 9 * * * 30", seconds_field="last"))
    store = JsonFileStore(file_of(tmp_path / "jobs.json", raw))
    job = store.load("job-01")
    assert job is not None
    assert store.swap("job-01", expected=job, replacement=evolve(job, completed=1))
    written = json.loads(store.path.read_text(encoding="utf-8"))["jobs"][0]
    assert written["schedule"] == raw["schedule"]


def test_six_fields_of_another_agent_s_record_are_refused_as_well() -> None:
    """The adapter for Hermes reads the same records."""
    with pytest.raises(JobsFileError, match=r"schedule\.expr: six fields"):
        read_hermes_job(record(cron("0 9 * * * 0")), NOON_US)


# --- schedules as text ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "schedule", "first"),
    [
        ("0 9 * * *", Cron(expr="0 9 * * *", tz="UTC"), "2026-06-26T09:00:00+00:00"),
        ("@daily", Cron(expr="0 0 * * *", tz="UTC"), "2026-06-26T00:00:00+00:00"),
        ("every 60m", Interval(period_us=HOUR_US, anchor_us=NOON_US + HOUR_US), "2026-06-25T13:00:00+00:00"),
        (
            "45m",
            Interval(period_us=45 * MINUTE_US, anchor_us=NOON_US + 30 * MINUTE_US),
            "2026-06-25T12:30:00+00:00",
        ),
        ("in 90m", Once(at_us=NOON_US + 30 * MINUTE_US), "2026-06-25T12:30:00+00:00"),
        (
            "2026-07-01T09:00:00+02:00",
            Once(at_us=parse_instant("2026-07-01T07:00:00Z")),
            "2026-07-01T07:00:00Z",
        ),
    ],
)
def test_schedule_may_be_the_text_that_people_write(text: str, schedule: object, first: str) -> None:
    """What today's agents accept is read; an interval and a delay count from the job's creation."""
    job = read_job(record(text), FACTS)
    assert job.schedule == schedule
    assert job.next_us == parse_instant(first)


def test_text_stays_until_the_schedule_changes(tmp_path: Path) -> None:
    """A change of anything else leaves the agent's text alone."""
    store = JsonFileStore(file_of(tmp_path / "jobs.json", record("every 60m")))
    job = store.load("job-01")
    assert job is not None
    later = evolve(job, completed=1, next_us=(job.next_us or 0) + HOUR_US)
    assert store.swap("job-01", expected=job, replacement=later)
    assert json.loads(store.path.read_text(encoding="utf-8"))["jobs"][0]["schedule"] == "every 60m"
    edited = evolve(later, schedule=Cron(expr="0 9 * * *", tz="Europe/Berlin"))
    assert store.swap("job-01", expected=later, replacement=edited)
    assert store.load_all() == JsonFileStore(store.path).load_all() == (edited,)


def test_text_is_in_the_zone_of_the_file(tmp_path: Path) -> None:
    """There is no other place for it."""
    path = file_of(tmp_path / "jobs.json", record("0 9 * * *"), tz="Asia/Tokyo")
    (job,) = JsonFileStore(path).load_all()
    assert isinstance(job, Job)
    assert job.schedule == Cron(expr="0 9 * * *", tz="Asia/Tokyo")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("whenever", "schedule: not a schedule: 'whenever'"),
        ("", "schedule: not a schedule: ''"),
        ("61 * * * *", "schedule: cron expression '61 * * * *': Bad minute"),
        ("0 9 * * * 0", "schedule: six fields '0 9 * * * 0': with seconds first"),
        ("2026-07-01T09:00:00", "schedule: instant '2026-07-01T09:00:00' has no offset"),
    ],
)
def test_text_that_is_no_schedule_is_refused_by_its_field(text: str, expected: str) -> None:
    """Also six fields, which have no place to say which is for seconds."""
    assert expected in refusal(record(text))


def test_delay_needs_a_creation_to_count_from() -> None:
    """It must not move with the file's time stamp."""
    assert "schedule: 'in 30m' counts from created_at" in refusal(record("in 30m", created_at=None))


@given(text=st.text(max_size=20), created=st.sampled_from([NOON, None]))
def test_any_text_is_a_schedule_or_refused(text: str, created: str | None) -> None:
    """Nothing else comes of it."""
    with suppress(JobsFileError):
        job = read_job(record(text, created_at=created), FACTS)
        assert next_after(job.schedule, 0) is not None


# --- ranges that wrap -------------------------------------------------------------------------


def test_what_agents_accept_of_an_expression_is_read() -> None:
    """A range around the end of a week or a day, and the last weekday of a month, either way."""
    weekend = read_job(record(cron("0 9 * * sat-sun")), FACTS)
    assert [at % (7 * 24 * HOUR_US) // (24 * HOUR_US) for at in upcoming(weekend.schedule, NOON_US, 4)] == [
        2, 3, 2, 3,
    ]  # fmt: skip
    night = read_job(record(cron("0 22-2 * * *")), FACTS)
    assert [at % (24 * HOUR_US) // HOUR_US for at in upcoming(night.schedule, NOON_US, 5)] == [
        22,
        23,
        0,
        1,
        2,
    ]
    assert read_job(record(cron("0 9 * * L5")), FACTS).next_us == parse_instant("2026-06-26T09:00:00Z")


# --- near misses ------------------------------------------------------------------------------

NEAR_MISSES: list[tuple[dict[str, Any], str, str]] = [
    ({"schedule": cron("0 9 * * *", timezone="Asia/Tokyo")}, "schedule.timezone", "tz"),
    ({"schedule": cron("0 9 * * *", TZ="Asia/Tokyo")}, "schedule.TZ", "tz"),
    ({"schedule": cron("0 9 * * *", time_zone="Asia/Tokyo")}, "schedule.time_zone", "tz"),
    ({"schedule": cron("0 9 * * *", cron="0 8 * * *")}, "schedule.cron", "expr"),
    ({"schedule": {"kind": "cron", "expression": "0 9 * * *"}}, "schedule.expression", "expr"),
    ({"schedule": {"type": "cron", "expr": "0 9 * * *"}}, "schedule.type", "kind"),
    ({"schedule": {"kind": "interval", "minute": 5}}, "schedule.minute", "minutes"),
    ({"schedule": {"kind": "interval", "minutes": 5, "seconds": 30}}, "schedule.seconds", "minutes"),
    ({"schedule": {"kind": "once", "runAt": NOON}}, "schedule.runAt", "run_at"),
    ({"policy": {"retries": 3}}, "policy.retries", "retry.attempts"),
    ({"policy": {"max_retries": 3}}, "policy.max_retries", "retry.attempts"),
    ({"policy": {"Overlap": "queue"}}, "policy.Overlap", "overlap"),
    ({"policy": {"catchUp": "all"}}, "policy.catchUp", "catch_up"),
    ({"policy": {"catch-up": "all"}}, "policy.catch-up", "catch_up"),
    ({"policy": {"overlaps": "queue"}}, "policy.overlaps", "overlap"),
    ({"policy": {"misfire_grace": 5}}, "policy.misfire_grace", "misfire_grace_seconds"),
    ({"policy": {"attempts": 5}}, "policy.attempts", "retry.attempts"),
    ({"policy": {"retry_delay_us": 5}}, "policy.retry_delay_us", "retry.delay_seconds"),
    ({"policy": {"timeout": 5}}, "policy.timeout", "time_limit_seconds"),
    ({"policy": {"retry": {"count": 5}}}, "policy.retry.count", "attempts"),
    ({"policy": {"retry": {"attempt": 5}}}, "policy.retry.attempt", "attempts"),
    ({"policy": {"retry": {"delay": 5}}}, "policy.retry.delay", "delay_seconds"),
    ({"policy": {"retry": {"overlap": "skip"}}}, "policy.retry.overlap", "policy.overlap"),
    ({"repeat": {"count": 5}}, "repeat.count", "times"),
    ({"repeat": {"Times": 5}}, "repeat.Times", "times"),
    ({"repeat": {"times": 5, "complete": 1}}, "repeat.complete", "completed"),
    ({"timezone": "Asia/Tokyo"}, "timezone", "schedule.tz"),
    ({"tz": "Asia/Tokyo"}, "tz", "schedule.tz"),
    ({"Enabled": False}, "Enabled", "enabled"),
    ({"disabled": True}, "disabled", "enabled"),
    ({"paused": True}, "paused", "enabled"),
    ({"schedule": {"kind": "cron"}, "expr": "0 9 * * *"}, "expr", "schedule.expr"),
    ({"schedule": {"kind": "cron"}, "cron_expression": "0 9 * * *"}, "cron_expression", "schedule.expr"),
    ({"nextRunAt": NOON}, "nextRunAt", "next_run_at"),
    ({"policies": {}}, "policies", "policy"),
    ({"Policy": {}}, "Policy", "policy"),
    ({"misfire_grace_seconds": 5}, "misfire_grace_seconds", "policy.misfire_grace_seconds"),
    ({"paused-reason": "x"}, "paused-reason", "paused_reason"),
    ({"starts_at": NOON}, "starts_at", "policy.starts_at"),
    ({"endsAt": NOON}, "endsAt", "policy.ends_at"),
    ({"time_limit_seconds": 5}, "time_limit_seconds", "policy.time_limit_seconds"),
    ({"seconds_field": "first"}, "seconds_field", "schedule.seconds_field"),
    ({"chronos": {"Revision": 7}}, "chronos.Revision", "revision"),
    ({"chronos": {"run": []}}, "chronos.run", "runs"),
]


@pytest.mark.parametrize(("fields", "field", "meant"), NEAR_MISSES)
def test_near_miss_of_a_name_is_refused_with_the_right_one(
    fields: dict[str, Any], field: str, meant: str
) -> None:
    """A setting that nobody reads would be a default without a word (incident S7)."""
    said = refusal({**record(cron("0 9 * * *")), "schedule": {"kind": "cron", "expr": "0 9 * * *"}} | fields)
    assert f"job-01: {field}: no such " in said
    assert said.endswith(f"did you mean {meant}?")


@pytest.mark.parametrize("name", ["timezone", "TZ", "updatedAt", "exported-at", "Jobs"])
def test_near_miss_of_a_name_of_the_file_is_refused(name: str) -> None:
    """It would have changed the reading of every job."""
    with pytest.raises(JobsFileError, match=f"jobs.json: {name}: no such field; did you mean "):
        read_document(json.dumps({"jobs": [], name: "Asia/Tokyo"}), source="jobs.json")


def test_near_miss_in_a_history_is_refused_when_it_is_read() -> None:
    """The history is this library's as well."""
    ended = {"result": "completed", "reason": "", "occurrence": NOON, "at": NOON, "last_occurence": NOON}
    raw = record(cron("0 9 * * *"), chronos={"history": [ended]})
    with pytest.raises(
        JobsFileError, match=r"chronos\.history\[0\]\.last_occurence: no such field; did you mean"
    ):
        read_history(raw, FACTS)


@pytest.mark.parametrize(
    "theirs",
    [
        {"name": "Report", "Name": "Report", "prompt": "x", "deliver": {"timezone": "Asia/Tokyo"}},
        {"retries": 3, "timeout": 5, "overlap": "skip", "owner": "me", "count": 3, "run_at": NOON},
        {"paused_at": NOON, "last_error": "x", "schedule_display": "daily", "origin": {"tz": "UTC"}},
        {"timezone": "Asia/Tokyo", "tz": "Asia/Tokyo"},
        {"next_run": "soon", "next_run_at": NOON},
    ],
)
def test_what_is_the_agent_s_own_is_no_near_miss(theirs: dict[str, Any], tmp_path: Path) -> None:
    """Its fields survive untouched; a synonym is the agent's own where the field itself is there."""
    raw = record(cron("0 9 * * *")) | theirs
    store = JsonFileStore(file_of(tmp_path / "jobs.json", raw))
    job = store.load("job-01")
    assert job is not None
    assert store.swap("job-01", expected=job, replacement=evolve(job, completed=1))
    written = json.loads(store.path.read_text(encoding="utf-8"))["jobs"][0]
    assert {name: written[name] for name in theirs} == theirs
