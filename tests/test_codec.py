"""The documents of jobs and outcomes: what they look like, and what is refused."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given

from chronos.jobs.instants import MINUTE_US, parse_instant
from chronos.jobs.job import Job, Outcome
from chronos.jobs.schedule import Cron, Interval, Once
from chronos.stores.codec import DocumentError, decode, encode
from chronos.values import evolve
from tests.strategies import jobs, values

NOON_US = parse_instant("2026-06-25T12:00:00+00:00")

NIGHTLY = Job(id="nightly", schedule=Cron(expr="0 3 * * *", tz="Europe/Berlin"), next_us=NOON_US)


def changed(change: Callable[[dict[str, Any]], object], value: object = NIGHTLY) -> str:
    """Return the document of *value* after *change* to it."""
    raw = json.loads(encode(value))
    change(raw)
    return json.dumps(raw)


@given(jobs())
def test_any_job_has_one_document(job: Job) -> None:
    """It is ASCII without space, reads as the job, of the same types, and is the same the next time."""
    document = encode(job)
    assert document.isascii()
    assert document.isprintable()
    assert repr(decode(Job, document)) == repr(job)
    assert encode(decode(Job, document)) == document


@given(values(Outcome))
def test_any_outcome_has_one_document(outcome: Outcome) -> None:
    """The same for the end of an occurrence."""
    assert repr(decode(Outcome, encode(outcome))) == repr(outcome)


def test_document_says_what_people_would_look_for() -> None:
    """Words instead of numbers, a kind for each schedule, keys in their order."""
    raw = json.loads(encode(NIGHTLY))
    assert list(raw) == sorted(raw)
    assert raw["schedule"] == {"kind": "cron", "expr": "0 3 * * *", "tz": "Europe/Berlin"}
    assert raw["state"] == "scheduled"
    every_minute = evolve(NIGHTLY, schedule=Interval(period_us=MINUTE_US, anchor_us=0))
    assert json.loads(encode(every_minute))["schedule"]["kind"] == "interval"
    once = evolve(NIGHTLY, schedule=Once(at_us=0))
    assert json.loads(encode(once))["schedule"]["kind"] == "once"


def test_document_of_an_earlier_version_has_the_defaults() -> None:
    """A field that was not known then is as it is for whoever does not give it."""
    bare = {
        key: value
        for key, value in json.loads(encode(NIGHTLY)).items()
        if key in ("id", "schedule", "next_us")
    }
    assert decode(Job, json.dumps(bare)) == NIGHTLY


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda raw: raw.update(colour=1, age=2), "nobody knows the key age, colour @ document"),
        (lambda raw: raw["schedule"].update(colour=1), "nobody knows the key colour @ document.schedule"),
        (lambda raw: raw.pop("next_us"), "this key is missing @ document.next_us"),
        (lambda raw: raw.update(next_us="5"), "expected int, got '5' @ document.next_us"),
        (lambda raw: raw.update(next_us=5.0), "expected int, got 5.0 @ document.next_us"),
        (lambda raw: raw.update(completed=True), "expected int, got True @ document.completed"),
        (lambda raw: raw.update(id=None), "expected str, got None @ document.id"),
        (lambda raw: raw.update(state="running"), "'running' is not a valid JobState @ document.state"),
        (lambda raw: raw.update(state=1), "expected str, got 1 @ document.state"),
        (lambda raw: raw.update(policy=[]), "expected an object @ document.policy"),
        (
            lambda raw: raw.update(schedule="* * * * *"),
            "expected an object whose kind is one of cron, interval, once",
        ),
        (lambda raw: raw["schedule"].update(kind="weekly"), "expected an object whose kind is one of"),
        (lambda raw: raw["schedule"].update(expr="61 * * * *"), "cron expression '61 \\* \\* \\* \\*': "),
        (lambda raw: raw["schedule"].update(kind="once"), "nobody knows the key expr, tz"),
    ],
)
def test_refusal_says_what_and_where(change: Callable[[dict[str, Any]], object], problem: str) -> None:
    """Whoever has to mend a document finds the place."""
    with pytest.raises(DocumentError, match=problem):
        decode(Job, changed(change))


@pytest.mark.parametrize("document", ["", "{", "[]", "null", "5", '"job"', "[" * 100_000])
def test_what_is_no_document_is_refused(document: str) -> None:
    """Anything else in its place is a refusal as well, and nothing else is raised."""
    with pytest.raises(DocumentError):
        decode(Job, document)


@pytest.mark.parametrize(
    "job",
    [
        evolve(NIGHTLY, id="\ud83d\ude00"),
        evolve(NIGHTLY, next_us="5"),
        evolve(NIGHTLY, completed=float("nan")),
        evolve(NIGHTLY, schedule=None),
    ],
)
def test_value_that_would_not_come_back_is_refused(job: Job) -> None:
    """What cannot be read again must not be written."""
    with pytest.raises(DocumentError, match="no document reads as"):
        encode(job)


# --- fields that classes may have one day -----------------------------------------------------


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@attrs.frozen(kw_only=True)
class Webhook:
    url: str
    level: Level = Level.LOW


@attrs.frozen(kw_only=True)
class Script:
    lines: tuple[str, ...] = ()
    level: Level = Level.LOW


@attrs.frozen(kw_only=True)
class Later:
    many: tuple[Webhook, ...]
    either: Webhook | Script
    maybe: Webhook | Script | None = None
    mixed: tuple[Webhook | Script, ...] = ()
    words: frozenset[str] = frozenset()
    plain: str | int | None = None
    share: float = 0.5


@given(values(Later))
def test_fields_of_other_shapes_come_back_as_well(later: Later) -> None:
    """Collections, choices and enumerations need no change here when a class gets some."""
    assert decode(Later, encode(later)) == later
