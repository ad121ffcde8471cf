"""Every store keeps the same promises: in memory, in a JSON file, in SQLite and in PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chronos.jobs.data import json_of
from chronos.jobs.instants import MINUTE_US, SECOND_US, parse_instant
from chronos.jobs.job import Job, Move, Outcome, Result
from chronos.jobs.schedule import Interval
from chronos.protocol import job_changes
from chronos.stores import JobStore, JsonFileStore, MemoryStore
from chronos.stores.conformance import CHECKS, check_store
from chronos.values import evolve
from tests.moves import claim_and_end, claimed, ended
from tests.strategies import fits_json_file, jobs, outcomes

NOON_US = parse_instant("2026-06-25T12:00:00+00:00")

EVERY_MINUTE = Job(
    id="minutely", schedule=Interval(period_us=MINUTE_US, anchor_us=NOON_US), next_us=NOON_US, revision=1
)

MakeStore = Callable[..., JobStore]


def add(store: JobStore, *jobs: Job) -> None:
    for job in jobs:
        assert store.swap(job.id, expected=None, replacement=job)


# --- the promises one by one ------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_store_conforms(check: Callable[[JobStore, int], None], make_store: MakeStore) -> None:
    """What is asked of other people's stores is kept by the ones here."""
    check(make_store(), 50)


@pytest.mark.parametrize("history_length", [1, 3])
def test_store_conforms_with_a_history_of_another_length(history_length: int, make_store: MakeStore) -> None:
    """How much is kept is the caller's choice, and changes nothing else."""
    check_store(lambda: make_store(history_length=history_length), history_length=history_length)


@pytest.mark.parametrize("history_length", [0, -1, 2.0, True, None])
def test_history_of_nothing_is_refused(history_length: Any, make_store: MakeStore) -> None:
    """Without its newest outcome nobody could say how a job is doing."""
    with pytest.raises(ValueError, match=r"history_length is .* at least 1"):
        make_store(history_length=history_length)


# --- any job at all ---------------------------------------------------------------------------


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_job_comes_back_as_it_was(data: st.DataObject, store: JobStore) -> None:
    """A job of any shape is kept whole, is compared whole, and leaves nothing; and so are its outcomes."""
    fits = fits_json_file if isinstance(store, JsonFileStore) else lambda _: True
    job = data.draw(jobs().filter(fits), label="job")
    other = data.draw(jobs().map(lambda other: evolve(other, id=job.id)).filter(fits), label="other")
    history = tuple(data.draw(st.lists(outcomes(job.id).filter(fits), max_size=3), label="outcomes"))
    assert store.load_all() == ()
    assert store.swap(job.id, expected=None, replacement=job, outcomes=history)
    assert repr(store.load(job.id)) == repr(job), "the same, and of the same types"
    assert store.history(job.id) == history
    assert store.swap(job.id, expected=other, replacement=None) is (job == other)
    if job != other:
        assert store.swap(job.id, expected=job, replacement=other, outcomes=history)
        assert repr(store.load_all()) == repr((other,))
        assert repr(store.history(job.id)) == repr(history + history)
        assert dict(store.latest()) == ({job.id: history[-1]} if history else {})
        assert store.swap(job.id, expected=other, replacement=None)
    assert store.load(job.id) is None
    assert store.history(job.id) == ()


# --- jobs as the protocol moves them ----------------------------------------------------------


def test_whole_life_of_a_job(store: JobStore) -> None:
    """Claims and their ends, a pause and a resumption come back as the transitions made them."""
    job = EVERY_MINUTE
    add(store, job)

    def make(move: Move) -> Job:
        nonlocal job
        assert move.job is not None
        assert store.swap(job.id, expected=store.load(job.id), replacement=move.job, outcomes=move.outcomes)
        assert store.load(job.id) == move.job
        job = move.job
        return job

    for slot in range(3):
        at_us = NOON_US + slot * MINUTE_US
        claim = claimed(job, at_us, "vm/1")
        make(claim)
        make(ended(job, claim, at_us + SECOND_US))
    make(job_changes.pause(job, note="for a while", now_us=NOON_US))
    make(job_changes.resume(job, from_now=False, now_us=NOON_US + 9 * MINUTE_US))
    assert store.load_all() == (job,)
    assert [outcome.result for outcome in store.history(job.id)] == [Result.COMPLETED] * 3


def test_threads_claim_each_occurrence_once(store: JobStore) -> None:
    """Of several threads that fire the same occurrence, one claims it."""
    add(store, EVERY_MINUTE)

    def claims(number: int) -> int:
        slots = [NOON_US + slot * MINUTE_US for slot in range(5)]
        return sum(claim_and_end(store, "minutely", at_us, f"thread {number}") for at_us in slots)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(claims, range(4))) == 5
    assert len(store.history("minutely")) == 5


# --- stores that break a promise --------------------------------------------------------------


class Forgetful(MemoryStore):
    """Adds no outcomes to a job that is new."""

    def swap(
        self, job_id: str, *, expected: Job | None, outcomes: tuple[Outcome, ...] = (), **rest: Any
    ) -> bool:
        return super().swap(job_id, expected=expected, outcomes=outcomes if expected else (), **rest)


class Trusting(MemoryStore):
    """Compares the revision alone."""

    def swap(self, job_id: str, *, expected: Job | None, **rest: Any) -> bool:
        job = self.load(job_id)
        is_same = job is not None and expected is not None and job.revision == expected.revision
        return super().swap(job_id, expected=job if is_same else expected, **rest)


class Lowering(MemoryStore):
    """Does not tell capital letters from small ones."""

    def swap(self, job_id: str, **rest: Any) -> bool:
        return super().swap(job_id.lower(), **rest)


class Reversed(MemoryStore):
    """Returns the newest job first."""

    def load_all(self) -> tuple[Job, ...]:
        return super().load_all()[::-1]


class Rounding(MemoryStore):
    """Keeps the numbers in a job's data as a reader that knows floats alone."""

    def swap(self, job_id: str, *, replacement: Job | None, **rest: Any) -> bool:
        if replacement is not None:
            data = json.loads(replacement.data_json, parse_int=lambda digits: float(digits[:300]))
            replacement = evolve(replacement, data_json=json_of(data))
        return super().swap(job_id, replacement=replacement, **rest)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (Rounding, "must be loaded with the data that it was added with"),
        (Forgetful, "added with an outcome must have it"),
        (Trusting, "a swap must fail that expects"),
        (Lowering, "a job must be added whose id is"),
        (Reversed, "in the order in which they were added"),
    ],
)
def test_broken_store_is_told_which_promise_it_breaks(broken: type[MemoryStore], promise: str) -> None:
    """The check of other people's stores finds what is wrong and says it in a sentence."""
    with pytest.raises(AssertionError, match=promise):
        check_store(broken)
