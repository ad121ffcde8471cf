"""What every store promises, as checks that need no test framework: for whoever writes a store.

    from chronos.stores.conformance import check_store

    def test_my_store():
        check_store(lambda: MyStore(empty_database()))

Each check gets a new, empty store. `CHECKS` has them one by one, for a framework that counts, and
`ODD_CHECKS` those of a store that may hold what cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from chronos.errors import JobsFileError
from chronos.jobs.data import json_of
from chronos.jobs.instants import DAY_US, MINUTE_US, parse_instant
from chronos.jobs.job import Job, JobState, Outcome, Result, Unreadable
from chronos.jobs.schedule import Cron, Interval, Once
from chronos.stores import HISTORY_LENGTH, JobStore
from chronos.values import evolve

__all__ = ["CHECKS", "ODD_CHECKS", "check_store"]

_NOON_US = parse_instant("2026-06-25T12:00:00+00:00")
_THREADS = 4
_CHANGES = 10  # by each thread; together they fit into any history of the default length

_MINUTELY = Job(
    id="minutely", schedule=Interval(period_us=MINUTE_US, anchor_us=_NOON_US), next_us=_NOON_US, revision=1
)
_NIGHTLY = Job(
    id="nightly",
    schedule=Cron(expr="0 3 * * *", tz="Europe/Berlin"),
    next_us=parse_instant("2026-06-26T03:00:00+02:00"),
)
_ONE_SHOT = Job(id="one-shot", schedule=Once(at_us=_NOON_US + DAY_US), next_us=_NOON_US + DAY_US, times=1)

# Data that a store might take for something else.
_DATA: dict[str, Any] = {
    "": None,
    "\x00": [[], {}, [[None, False, 0, "0"]]],
    "text": "j\u00f6b \U0001f600 \\u0000 \x00\x7f\u2028 '\"",
    "big": [2**63, -(10**400)],
    "real": [0.1, 1e16, -0.0, 5e-324, 1.0],
    "whole": 1,
}

# Ids that a store might take for one another, or for something else.
_ALIKE = (
    "Job",
    "job",
    "job ",
    " job",
    "jo\u0308b",
    "j\u00f6b",
    "job\n",
    "job%",
    "j_b",
    "'",
    '"',
    "\\",
    "0",
    "00",
    "😀",
)


Spoil = Callable[[JobStore, str], None]


def check_store(
    make_store: Callable[[], JobStore],
    *,
    history_length: int = HISTORY_LENGTH,
    spoil: Spoil | None = None,
) -> None:
    """Check that a store keeps the promises of `JobStore`, but for durability, which needs a crash.

    Args:
        make_store: returns a new, empty store each time that it is called.
        history_length: how many outcomes of a job such a store keeps.
        spoil: makes the record of a job, by its id, one that cannot be read; None for a store whose
            records are always jobs.

    Raises:
        AssertionError: it breaks a promise; the message is a sentence that says which.
    """
    for check in CHECKS:
        check(make_store(), history_length)
    if spoil is not None:
        for odd_check in ODD_CHECKS:
            odd_check(make_store(), spoil)


def empty_store_has_nothing(store: JobStore, _: int) -> None:
    """No job, no history and no error."""
    _expect(store.load_all() == (), "a new store must have no jobs")
    _expect(store.load("nightly") is None, "there must be no job in a new store")
    _expect(store.history("nightly") == (), "a job that is not there must have no history")
    _expect(dict(store.latest()) == {}, "there must be no newest outcome in a new store")


def jobs_come_back_whole_and_in_order(store: JobStore, _: int) -> None:
    """Jobs stand in the order in which they were added, however they change."""
    _add(store, _NIGHTLY, _MINUTELY, _ONE_SHOT)
    for job in (_NIGHTLY, _MINUTELY, _ONE_SHOT):
        _expect(store.load(job.id) == job, f"job {job.id} must be loaded as it was added")
    changed = evolve(_NIGHTLY, state=JobState.PAUSED, revision=1)
    _expect(_swap(store, _NIGHTLY, changed), "a swap of the job that is stored must succeed")
    _expect(store.load("nightly") == changed, "a job must be loaded as it was swapped in")
    _expect(
        store.load_all() == (changed, _MINUTELY, _ONE_SHOT),
        "all jobs must be loaded in the order in which they were added, also when one was changed",
    )


def data_comes_back_whole(store: JobStore, _: int) -> None:
    """What a job carries keeps every character, every digit and every kind of number, and is compared."""
    job = evolve(_NIGHTLY, data_json=json_of(_DATA))
    _add(store, job)
    loaded = store.load("nightly")
    is_whole = loaded == job and store.load_all() == (job,)
    _expect(is_whole, "a job must be loaded with the data that it was added with")
    for other in (None, {**_DATA, "whole": 1.0}, {**_DATA, "text": "jo\u0308b"}):
        is_swapped = _swap(store, evolve(job, data_json=json_of(other)), _NIGHTLY)
        _expect(not is_swapped, "a swap must fail that expects other data than the job's")
    _expect(_swap(store, job, _NIGHTLY), "a swap must succeed that takes a job's data away")
    _expect(store.load("nightly") == _NIGHTLY, "a job whose data was taken away must have none")


def swap_needs_the_whole_job(store: JobStore, _: int) -> None:
    """A job that differs in anything from the expected one stays, and so does its history."""
    _add(store, _NIGHTLY)
    wanted = evolve(_NIGHTLY, revision=9)
    ended = (_outcome(_NIGHTLY, 1),)
    for expected in (
        None,
        evolve(_NIGHTLY, completed=1),
        evolve(_NIGHTLY, revision=1),
        _MINUTELY,
    ):
        is_swapped = store.swap("nightly", expected=expected, replacement=wanted, outcomes=ended)
        _expect(not is_swapped, f"a swap must fail that expects {expected} where {_NIGHTLY} is stored")
        is_removed = store.swap("nightly", expected=expected, replacement=None)
        _expect(not is_removed, f"a removal must fail that expects {expected} where {_NIGHTLY} is stored")
    _expect(store.load_all() == (_NIGHTLY,), "a swap that fails must not change the job")
    _expect(store.history("nightly") == (), "a swap that fails must not add outcomes")
    _expect(dict(store.latest()) == {}, "a swap that fails must not add outcomes")


def job_that_is_gone_stays_gone(store: JobStore, _: int) -> None:
    """A job that was removed meanwhile is not brought back by who has not seen that."""
    later = evolve(_NIGHTLY, revision=1)
    _expect(not _swap(store, _NIGHTLY, later), "a swap of a job that is not there must fail")
    _expect(not _swap(store, _NIGHTLY, None), "a removal of a job as it never was must fail")
    _expect(
        store.swap("nightly", expected=None, replacement=None), "to remove what is not there must succeed"
    )
    _expect(store.load_all() == (), "none of these may add a job")


def removed_job_leaves_nothing(store: JobStore, _: int) -> None:
    """A job that is added again has no history and stands at the end."""
    _add(store, _NIGHTLY, _MINUTELY)
    _expect(
        _swap(store, _NIGHTLY, _NIGHTLY, _outcome(_NIGHTLY, 1)), "a swap must succeed that adds an outcome"
    )
    _expect(_swap(store, _NIGHTLY, None), "the removal of the job that is stored must succeed")
    _expect(store.load("nightly") is None, "a job that was removed must not be loaded")
    _expect(store.load_all() == (_MINUTELY,), "a job that was removed must not be loaded with the others")
    _expect(store.history("nightly") == (), "a job that was removed must have no history")
    _expect(dict(store.latest()) == {}, "a job that was removed must have no newest outcome")
    _add(store, _NIGHTLY)
    _expect(store.history("nightly") == (), "a job that is added again must not have its old history")
    _expect(store.load_all() == (_MINUTELY, _NIGHTLY), "a job that is added again must stand at the end")


def outcomes_are_kept_with_the_change(store: JobStore, history_length: int) -> None:
    """The history has the outcomes of every swap that succeeded, oldest first, whole."""
    ended = Outcome(
        job_id="nightly",
        result=Result.FAILED,
        reason="exit status 1: »no such file«",
        occurrence_us=_NOON_US,
        last_occurrence_us=_NOON_US,
        attempt=2,
        at_us=_NOON_US + 1,
    )
    first, second, third = (_outcome(_NIGHTLY, number) for number in range(3))
    is_added = store.swap("nightly", expected=None, replacement=_NIGHTLY, outcomes=(first,))
    _expect(is_added, "a job must be added together with an outcome")
    _expect(store.history("nightly") == (first,), "a job that is added with an outcome must have it")
    later = evolve(_NIGHTLY, revision=1)
    _expect(_swap(store, _NIGHTLY, later, ended, second), "a swap must succeed that adds two outcomes")
    _expect(_swap(store, later, later, third), "a swap must succeed that adds an outcome and nothing else")
    _expect(
        store.history("nightly") == (first, ended, second, third)[-history_length:],
        "the history must have every outcome as it was given, in the order of the swaps, oldest first",
    )


def history_keeps_the_newest(store: JobStore, history_length: int) -> None:
    """A history does not grow for ever, whether its outcomes come together or one by one."""
    _add(store, _NIGHTLY, _MINUTELY)
    many = tuple(_outcome(_NIGHTLY, number) for number in range(history_length + 5))
    _expect(_swap(store, _NIGHTLY, _NIGHTLY, *many), "a swap must succeed that adds many outcomes")
    newest = f"a history must keep the newest {history_length} outcomes"
    _expect(store.history("nightly") == many[5:], newest)
    more = tuple(_outcome(_NIGHTLY, len(many) + number) for number in range(2))
    for one in more:
        _expect(_swap(store, _NIGHTLY, _NIGHTLY, one), "a swap must succeed that adds an outcome")
    _expect(store.history("nightly") == (many + more)[-history_length:], newest)
    _expect(store.history("minutely") == (), "the outcomes of a job must not be those of another")


def latest_is_the_newest_of_each(store: JobStore, history_length: int) -> None:
    """The newest outcome of each job that has one, and no other."""
    _add(store, _NIGHTLY, _MINUTELY, _ONE_SHOT)
    nightly = tuple(_outcome(_NIGHTLY, number) for number in range(history_length + 1))
    _expect(_swap(store, _NIGHTLY, _NIGHTLY, *nightly), "a swap must succeed that adds many outcomes")
    _expect(
        _swap(store, _ONE_SHOT, _ONE_SHOT, _outcome(_ONE_SHOT, 7)), "a swap must succeed that adds an outcome"
    )
    _expect(
        dict(store.latest()) == {"nightly": nightly[-1], "one-shot": _outcome(_ONE_SHOT, 7)},
        "`latest` must have the newest outcome of each job that has one, and nothing else",
    )


def ids_that_look_alike_are_different(store: JobStore, _: int) -> None:
    """Ids are compared by their characters: case, space and accents count."""
    jobs = [evolve(_NIGHTLY, id=job_id, revision=number) for number, job_id in enumerate(_ALIKE)]
    for job in jobs:
        ended = (_outcome(job, job.revision),)
        is_added = store.swap(job.id, expected=None, replacement=job, outcomes=ended)
        _expect(is_added, f"a job must be added whose id is {job.id!r}")
    for job in jobs:
        _expect(store.load(job.id) == job, f"the job must be loaded whose id is {job.id!r}")
        ended = (_outcome(job, job.revision),)
        _expect(store.history(job.id) == ended, f"the job must have its own history whose id is {job.id!r}")
    _expect(store.load_all() == tuple(jobs), "jobs whose ids look alike must all be loaded, in their order")
    _expect(
        list(store.latest()) != [] and set(store.latest()) == set(_ALIKE), "each must have its newest outcome"
    )


def one_of_several_threads_succeeds(store: JobStore, _: int) -> None:
    """Of swaps that expect the same, one succeeds; none that succeeded is lost."""
    with ThreadPoolExecutor(_THREADS) as pool:
        added = list(
            pool.map(lambda _: store.swap("nightly", expected=None, replacement=_NIGHTLY), range(_THREADS))
        )
        _expect(added.count(True) == 1, "of several threads that add the same job, one must succeed")
        list(pool.map(lambda number: _change_often(store, number), range(_THREADS)))
    job = store.load("nightly")
    _expect(
        job is not None and job.revision == _THREADS * _CHANGES,
        "a change must not be lost, nor made twice, when several threads make some at once",
    )


def odd_record_stops_no_other(store: JobStore, spoil: Spoil) -> None:
    """The other jobs are loaded and change, and the odd one stands among them in its place."""
    _add(store, _NIGHTLY, _MINUTELY, _ONE_SHOT)
    spoil(store, "minutely")
    first, odd, last = store.load_all()
    _expect((first, last) == (_NIGHTLY, _ONE_SHOT), "an odd record must not stop the others")
    _expect(isinstance(odd, Unreadable) and odd.id == "minutely", "an odd record must be told by its id")
    later = evolve(_NIGHTLY, revision=1)
    _expect(_swap(store, _NIGHTLY, later, _outcome(_NIGHTLY, 1)), "a swap must succeed beside an odd record")
    _expect(_swap(store, _ONE_SHOT, None), "a removal must succeed beside an odd record")
    _expect(store.load_all() == (later, odd), "an odd record must outlive the changes of others")
    _expect(store.latest().get("nightly") == _outcome(_NIGHTLY, 1), "an odd record must not hide an outcome")


def odd_record_is_refused_by_name(store: JobStore, spoil: Spoil) -> None:
    """Whoever asks for it gets a `JobsFileError`, and nobody writes over it."""
    _add(store, _NIGHTLY)
    _expect(_swap(store, _NIGHTLY, _NIGHTLY, _outcome(_NIGHTLY, 1)), "a swap must succeed")
    spoil(store, "nightly")
    asked: tuple[Callable[[], object], ...] = (
        lambda: store.load("nightly"),
        lambda: store.history("nightly"),
        lambda: store.swap("nightly", expected=None, replacement=_NIGHTLY),
        lambda: store.swap("nightly", expected=_NIGHTLY, replacement=_NIGHTLY),
        lambda: store.swap("nightly", expected=_NIGHTLY, replacement=None),
        lambda: store.swap("nightly", expected=None, replacement=None),
    )
    before = store.load_all()
    for ask in asked:
        try:
            ask()
        except JobsFileError as error:
            _expect(error.job == "nightly", "the error must name the job whose record is odd")
        else:
            _expect(False, "whoever asks for an odd record must be told that it is one")
    _expect(store.load_all() == before, "an odd record must not be written over")


def _change_often(store: JobStore, number: int) -> None:
    """Change a job again and again; each change needs that nobody else made the same one."""
    for _ in range(_CHANGES):
        is_changed = False
        while not is_changed:
            job = store.load("nightly")
            if job is None:
                raise AssertionError("a job must not vanish while several threads change it")
            later = evolve(job, revision=job.revision + 1)
            is_changed = _swap(store, job, later, _outcome(job, number))


CHECKS: tuple[Callable[[JobStore, int], None], ...] = (
    empty_store_has_nothing,
    jobs_come_back_whole_and_in_order,
    data_comes_back_whole,
    swap_needs_the_whole_job,
    job_that_is_gone_stays_gone,
    removed_job_leaves_nothing,
    outcomes_are_kept_with_the_change,
    history_keeps_the_newest,
    latest_is_the_newest_of_each,
    ids_that_look_alike_are_different,
    one_of_several_threads_succeeds,
)


ODD_CHECKS: tuple[Callable[[JobStore, Spoil], None], ...] = (
    odd_record_stops_no_other,
    odd_record_is_refused_by_name,
)


def _expect(is_kept: bool, promise: str) -> None:
    """Raise when a promise is not kept; an `assert` would be silent where Python is told to optimise."""
    if not is_kept:
        raise AssertionError(promise)


def _add(store: JobStore, *jobs: Job) -> None:
    for job in jobs:
        is_added = store.swap(job.id, expected=None, replacement=job)
        _expect(is_added, f"job {job.id} must be added where there is none of that id")


def _swap(store: JobStore, expected: Job, replacement: Job | None, *outcomes: Outcome) -> bool:
    return store.swap(expected.id, expected=expected, replacement=replacement, outcomes=outcomes)


def _outcome(job: Job, number: int) -> Outcome:
    """Return an outcome of a stretch, unlike those of other numbers."""
    return Outcome(
        job_id=job.id,
        result=Result.MISSED,
        reason="the machine slept",
        occurrence_us=_NOON_US + number,
        last_occurrence_us=_NOON_US + number + 5,
        count=6,
        at_us=_NOON_US + number,
    )
