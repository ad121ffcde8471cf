"""Every store keeps the same promises; the file keeps them among processes that die."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import attrs
import pytest
from filelock import FileLock

from chronos.errors import JobsFileError, StoreError
from chronos.protocol import transitions
from chronos.protocol.job import Job, JobState, Liveness, Outcome, Result, Verdict
from chronos.protocol.schedule import MINUTE_US, SECOND_US, Cron, Interval, Once, parse_instant
from chronos.stores import JobStore, JsonFileStore, MemoryStore, json_file

NOON_US = parse_instant("2026-06-25T12:00:00+00:00")

EVERY_MINUTE = Job(
    id="minutely", schedule=Interval(period_us=MINUTE_US, anchor_us=NOON_US), next_us=NOON_US, revision=1
)
NIGHTLY = Job(
    id="nightly", schedule=Cron(expr="0 3 * * *", tz="Europe/Berlin"), next_us=NOON_US + 13 * 60 * MINUTE_US
)
ONE_SHOT = Job(id="once", schedule=Once(at_us=NOON_US), next_us=NOON_US, times=1)


def outcome(job: Job, number: int) -> Outcome:
    return Outcome(
        job_id=job.id,
        result=Result.MISSED,
        reason="the machine slept",
        occurrence_us=NOON_US + number,
        last_occurrence_us=NOON_US + number + 5,
        count=6,
        at_us=NOON_US + number,
    )


@pytest.fixture(params=["memory", "json file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> JobStore:
    """An empty store of each kind."""
    if request.param == "memory":
        return MemoryStore()
    return JsonFileStore.create(tmp_path / "jobs.json")


def add(store: JobStore, *jobs: Job) -> None:
    for job in jobs:
        assert store.swap(job.id, expected=None, replacement=job)


# --- what every store promises --------------------------------------------------------------


def test_empty_store_has_nothing(store: JobStore) -> None:
    """No job, no history, no error."""
    assert store.load_all() == ()
    assert store.load("nightly") is None
    assert store.history("nightly") == ()


def test_added_jobs_are_kept_in_order(store: JobStore) -> None:
    """Jobs come back as they were put in, whole and in order."""
    add(store, NIGHTLY, EVERY_MINUTE, ONE_SHOT)
    assert store.load_all() == (NIGHTLY, EVERY_MINUTE, ONE_SHOT)
    assert store.load("minutely") == EVERY_MINUTE


def test_swap_needs_the_whole_job_as_expected(store: JobStore) -> None:
    """A job that differs in anything is not the job that was loaded, and nothing changes."""
    add(store, NIGHTLY)
    wanted = attrs.evolve(NIGHTLY, revision=9)
    for expected in (None, attrs.evolve(NIGHTLY, completed=1), EVERY_MINUTE):
        assert not store.swap(
            "nightly", expected=expected, replacement=wanted, outcomes=(outcome(NIGHTLY, 1),)
        )
    assert store.load_all() == (NIGHTLY,)
    assert store.history("nightly") == ()
    assert store.swap("nightly", expected=NIGHTLY, replacement=wanted)
    assert store.load("nightly") == wanted


def test_swap_of_a_missing_job_fails(store: JobStore) -> None:
    """A job that was removed meanwhile does not come back."""
    assert not store.swap("nightly", expected=NIGHTLY, replacement=attrs.evolve(NIGHTLY, revision=1))
    assert store.load_all() == ()


def test_swap_of_nothing_for_nothing_succeeds(store: JobStore) -> None:
    """Removing what is not there is done already."""
    assert store.swap("nightly", expected=None, replacement=None)


def test_outcomes_are_kept_with_the_change(store: JobStore) -> None:
    """The history has every outcome of a successful swap, oldest first, whatever its shape."""
    add(store, NIGHTLY)
    ended = attrs.evolve(outcome(NIGHTLY, 7), result=Result.FAILED, count=1, attempt=2)
    ended = attrs.evolve(ended, last_occurrence_us=ended.occurrence_us)
    later = attrs.evolve(NIGHTLY, revision=1)
    assert store.swap("nightly", expected=NIGHTLY, replacement=later, outcomes=(outcome(NIGHTLY, 1), ended))
    assert store.swap("nightly", expected=later, replacement=later, outcomes=(outcome(NIGHTLY, 2),))
    assert store.history("nightly") == (outcome(NIGHTLY, 1), ended, outcome(NIGHTLY, 2))


def test_history_keeps_the_newest_fifty(store: JobStore) -> None:
    """A history does not grow for ever."""
    add(store, NIGHTLY)
    every = tuple(outcome(NIGHTLY, number) for number in range(55))
    assert store.swap("nightly", expected=NIGHTLY, replacement=NIGHTLY, outcomes=every)
    assert store.history("nightly") == every[5:]


def test_removed_job_leaves_nothing(store: JobStore) -> None:
    """A job that is created again under the same id starts without a history."""
    add(store, NIGHTLY, EVERY_MINUTE)
    assert store.swap("nightly", expected=NIGHTLY, replacement=NIGHTLY, outcomes=(outcome(NIGHTLY, 1),))
    assert store.swap("nightly", expected=NIGHTLY, replacement=None)
    assert store.load_all() == (EVERY_MINUTE,)
    add(store, NIGHTLY)
    assert store.history("nightly") == ()


def test_job_created_with_outcomes_has_them(store: JobStore) -> None:
    """A job may come into the store with a history."""
    assert store.swap("nightly", expected=None, replacement=NIGHTLY, outcomes=(outcome(NIGHTLY, 1),))
    assert store.load("nightly") == NIGHTLY
    assert store.history("nightly") == (outcome(NIGHTLY, 1),)


def test_whole_life_of_a_job(store: JobStore) -> None:
    """A claim, its end, a pause and a resumption come back as the transitions made them."""
    add(store, EVERY_MINUTE)
    job = EVERY_MINUTE
    for number in range(3):
        at_us = NOON_US + number * MINUTE_US
        fire = transitions.fire(
            job, fire_at_us=at_us, now_us=at_us + 7, owner="vm/1", liveness=Liveness.UNKNOWN
        )
        assert fire.run is not None
        assert store.swap(job.id, expected=job, replacement=fire.job, outcomes=fire.outcomes)
        finish = transitions.finish(
            store.load(job.id), run=fire.run, succeeded=True, detail="", now_us=at_us + SECOND_US
        )
        assert store.swap(job.id, expected=fire.job, replacement=finish.job, outcomes=finish.outcomes)
        assert store.load(job.id) == finish.job
        assert finish.job is not None
        job = finish.job
    paused = transitions.pause(job).job
    assert store.swap(job.id, expected=job, replacement=paused)
    resumed = transitions.resume(store.load(job.id), now_us=NOON_US + 9 * MINUTE_US).job
    assert store.swap(job.id, expected=paused, replacement=resumed)
    assert store.load(job.id) == resumed
    assert [end.result for end in store.history(job.id)] == [Result.COMPLETED] * 3


def test_threads_claim_each_occurrence_once(store: JobStore) -> None:
    """Of several threads that fire the same occurrence, one claims it."""
    add(store, EVERY_MINUTE)

    def claims(number: int) -> int:
        return sum(_claim(store, "minutely", NOON_US + slot * MINUTE_US, f"t{number}") for slot in range(5))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(claims, range(4))) == 5
    assert len(store.history("minutely")) == 5


def _claim(store: JobStore, job_id: str, fire_at_us: int, owner: str) -> bool:
    """Fire one occurrence until the store has an answer; run and finish it when it was claimed."""
    while True:
        job = store.load(job_id)
        move = transitions.fire(
            job, fire_at_us=fire_at_us, now_us=fire_at_us + 1, owner=owner, liveness=Liveness.UNKNOWN
        )
        if move.verdict is Verdict.SKIPPED:
            continue  # let the run in flight end first, so that every occurrence can be claimed
        if move.job == job:
            return False
        if store.swap(job_id, expected=job, replacement=move.job, outcomes=move.outcomes):
            break
    assert move.run is not None
    while True:
        job = store.load(job_id)
        end = transitions.finish(job, run=move.run, succeeded=True, detail="", now_us=fire_at_us + 2)
        assert end.verdict is Verdict.CHANGED
        if store.swap(job_id, expected=job, replacement=end.job, outcomes=end.outcomes):
            return True


# --- what the file promises besides ---------------------------------------------------------

FLEETS = sorted(
    (entry for entry in files("simulator").joinpath("fleets").iterdir() if entry.name.endswith(".json")),
    key=lambda entry: entry.name,
)


def test_one_claim_in_a_real_file_changes_nothing_else(tmp_path: Path) -> None:
    """In every real file, a claim of one job rewrites that job's record and the file's time stamp alone."""
    changed = 0
    for entry in FLEETS:
        path = tmp_path / entry.name
        path.write_bytes(entry.read_bytes())
        store = JsonFileStore(path)
        for index, job in enumerate(store.load_all()):
            if job.next_us is None or job.state is not JobState.SCHEDULED:
                continue
            before = json.loads(path.read_text(encoding="utf-8"))
            move = transitions.fire(
                job, fire_at_us=job.next_us, now_us=job.next_us, owner="vm/1", liveness=Liveness.UNKNOWN
            )
            assert store.swap(job.id, expected=job, replacement=move.job, outcomes=move.outcomes)
            after = json.loads(path.read_text(encoding="utf-8"))
            record, written = before["jobs"].pop(index), after["jobs"].pop(index)
            before.pop("updated_at", None), after.pop("updated_at")
            assert json.dumps(before) == json.dumps(after)
            for key in ("next_run_at", "chronos"):
                record.pop(key, None), written.pop(key, None)
            assert json.dumps(record) == json.dumps(written)
            changed += 1
    assert changed > 50


def test_claim_is_a_small_difference_of_the_text(tmp_path: Path) -> None:
    """A file under version control shows the lines that changed and no others."""
    path = tmp_path / "jobs.json"
    path.write_bytes(FLEETS[0].read_bytes())
    store = JsonFileStore(path)
    job = store.load_all()[3]
    before = path.read_text(encoding="utf-8").splitlines()
    assert store.swap(job.id, expected=job, replacement=attrs.evolve(job, completed=10))
    after = path.read_text(encoding="utf-8").splitlines()
    changed = [new.strip() for old, new in zip(before, after, strict=True) if old != new]
    assert [line.split(":")[0] for line in changed] == ['"completed"', '"updated_at"']


def test_slot_that_was_worked_out_stays_when_another_job_is_written(tmp_path: Path) -> None:
    """The next time of a job without one does not move away because the file's time stamp does."""
    path = tmp_path / "jobs.json"
    record = {"id": "forgotten", "schedule": {"kind": "cron", "expr": "* * * * *"}, "next_run_at": None}
    path.write_text(
        json.dumps({"jobs": [record], "updated_at": "2026-06-25T12:00:30+00:00"}), encoding="utf-8"
    )
    store = JsonFileStore(path)
    loaded = store.load("forgotten")
    assert loaded is not None
    assert loaded.next_us == NOON_US + MINUTE_US
    add(store, NIGHTLY)
    assert store.load("forgotten") == loaded


def test_change_without_a_revision_conflicts(tmp_path: Path) -> None:
    """A program that knows nothing of revisions edits a job: the swap that did not see it fails."""
    store = JsonFileStore.create(tmp_path / "jobs.json")
    add(store, NIGHTLY)
    job = store.load("nightly")
    raw = json.loads(store.path.read_text(encoding="utf-8"))
    raw["jobs"][0]["next_run_at"] = "2026-06-27T03:00:00+02:00"
    store.path.write_text(json.dumps(raw), encoding="utf-8")
    assert not store.swap("nightly", expected=job, replacement=NIGHTLY, outcomes=(outcome(NIGHTLY, 1),))


def test_what_the_agent_added_survives(tmp_path: Path) -> None:
    """Prompts and deliveries are the agent's; a claim does not touch them."""
    store = JsonFileStore.create(tmp_path / "jobs.json")
    add(store, EVERY_MINUTE)
    raw = json.loads(store.path.read_text(encoding="utf-8"))
    raw["jobs"][0] |= {"prompt": "Grüße 😀", "deliver": [1.5, {"x": None}], "half": "\ud83d"}
    raw["version"] = 2
    store.path.write_text(json.dumps(raw), encoding="utf-8")
    assert _claim(store, "minutely", NOON_US, "vm/1")
    after = json.loads(store.path.read_text(encoding="utf-8"))
    assert after["version"] == 2
    assert {key: after["jobs"][0][key] for key in ("prompt", "deliver", "half")} == {
        key: raw["jobs"][0][key] for key in ("prompt", "deliver", "half")
    }


def test_change_of_another_program_during_a_swap_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that ignores the lock and writes in between makes the swap fail."""
    store = JsonFileStore.create(tmp_path / "jobs.json")
    add(store, NIGHTLY)
    write = json_file._write_beside

    def write_and_be_overtaken(*arguments: Any, **keywords: Any) -> None:
        write(*arguments, **keywords)
        store.path.write_text('{"jobs": []}', encoding="utf-8")

    monkeypatch.setattr(json_file, "_write_beside", write_and_be_overtaken)
    assert not store.swap("nightly", expected=NIGHTLY, replacement=attrs.evolve(NIGHTLY, revision=1))
    assert store.load_all() == ()


def test_missing_file_is_not_an_empty_one(tmp_path: Path) -> None:
    """A volume that is not mounted must not look like an agent without jobs."""
    store = JsonFileStore(tmp_path / "jobs.json")
    operations: list[Callable[[], object]] = [
        store.load_all,
        lambda: store.load("nightly"),
        lambda: store.history("nightly"),
        lambda: store.swap("nightly", expected=None, replacement=NIGHTLY),
    ]
    for operation in operations:
        with pytest.raises(StoreError, match="there is no jobs file") as caught:
            operation()
        assert caught.value.definite
    assert not store.path.exists()


def test_create_leaves_a_file_that_is_there(tmp_path: Path) -> None:
    """Creating a store twice loses nothing."""
    store = JsonFileStore.create(tmp_path / "jobs.json")
    add(store, NIGHTLY)
    assert JsonFileStore.create(tmp_path / "jobs.json").load_all() == (NIGHTLY,)


def test_create_needs_a_directory(tmp_path: Path) -> None:
    """A directory that is missing is reported, not made."""
    with pytest.raises(StoreError):
        JsonFileStore.create(tmp_path / "elsewhere" / "jobs.json")


@pytest.mark.parametrize(
    "content", [b"{", b'{"jobs": 5}', b'{"jobs": [], "x": "\xff"}', b"", b'{"jobs": [{}]}']
)
def test_broken_file_is_reported_and_never_changed(content: bytes, tmp_path: Path) -> None:
    """A file that cannot be read is left for its owner to mend."""
    path = tmp_path / "jobs.json"
    path.write_bytes(content)
    store = JsonFileStore(path)
    with pytest.raises(JobsFileError, match=r"jobs\.json: "):
        store.load_all()
    with pytest.raises(JobsFileError):
        store.swap("nightly", expected=None, replacement=NIGHTLY)
    with pytest.raises(JobsFileError):
        JsonFileStore.create(path).load_all()
    assert path.read_bytes() == content


def test_mended_file_is_read_again(tmp_path: Path) -> None:
    """What was read before does not outlive the file that it was read from, however fast that changes."""
    path = tmp_path / "jobs.json"
    store = JsonFileStore.create(path)
    add(store, ONE_SHOT)
    assert store.load("once") == ONE_SHOT
    status, text = path.stat(), path.read_text(encoding="utf-8")
    path.write_text(text.replace('"completed": 0', '"completed": 7'), encoding="utf-8")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    job = store.load("once")
    assert job is not None
    assert job.completed == 7


def test_file_that_did_not_change_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking again costs little."""
    store = JsonFileStore.create(tmp_path / "jobs.json")
    add(store, NIGHTLY)
    store.load_all()
    monkeypatch.setattr(json_file, "read_document", lambda *_, **__: pytest.fail("parsed again"))
    assert store.load_all() == (NIGHTLY,)


def test_mode_of_the_file_survives(tmp_path: Path) -> None:
    """A new file is its owner's alone; one that others may read stays so."""
    store = JsonFileStore.create(tmp_path / "jobs.json")
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    store.path.chmod(0o664)
    add(store, NIGHTLY)
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o664


def test_symbolic_link_stays_one(tmp_path: Path) -> None:
    """A file that is kept elsewhere is changed there."""
    (tmp_path / "kept").mkdir()
    kept = JsonFileStore.create(tmp_path / "kept" / "jobs.json")
    link = tmp_path / "jobs.json"
    link.symlink_to(kept.path)
    add(JsonFileStore(link), NIGHTLY)
    assert link.is_symlink()
    assert kept.load_all() == (NIGHTLY,)


def test_stale_file_of_a_crash_is_harmless(tmp_path: Path) -> None:
    """What a crash left beside the file is overwritten and does not pile up."""
    store = JsonFileStore.create(tmp_path / "jobs.json")
    beside = tmp_path / ".jobs.json.next"
    beside.write_text("{ torn", encoding="utf-8")
    assert store.load_all() == ()
    add(store, NIGHTLY)
    assert store.load_all() == (NIGHTLY,)
    assert {entry.name for entry in tmp_path.iterdir()} == {"jobs.json", "jobs.json.lock"}


def test_time_stamp_of_the_file_is_written_with_every_change(tmp_path: Path) -> None:
    """`updated_at` is the clock's time, in the offset that the file had."""
    path = tmp_path / "jobs.json"
    path.write_text('{"jobs": [], "updated_at": "2026-01-01T00:00:00-07:00"}', encoding="utf-8")
    store = JsonFileStore(path, now_us=lambda: NOON_US + 5)
    add(store, NIGHTLY)
    assert json.loads(path.read_text(encoding="utf-8"))["updated_at"] == "2026-06-25T05:00:00-07:00"


def test_wait_for_the_lock_is_bounded(tmp_path: Path) -> None:
    """A process that holds the lock and does not go on stops writers, not readers, and not for ever."""
    path = tmp_path / "jobs.json"
    JsonFileStore.create(path)
    store = JsonFileStore(path, lock_wait_s=0.05)
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with FileLock(f"{path}.lock"):
            taken.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert taken.wait(10)
        with pytest.raises(StoreError, match="another process has held") as caught:
            store.swap("nightly", expected=None, replacement=NIGHTLY)
        assert caught.value.definite
        assert store.load_all() == ()
    finally:
        done.set()
        holder.join()
    add(store, NIGHTLY)


@pytest.mark.parametrize(("call", "definite"), [("fsync", True), ("replace", False)])
def test_failing_disk_says_whether_the_write_may_have_happened(
    call: str, definite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the rename nothing happened; from then on it may have."""
    store = JsonFileStore.create(tmp_path / "jobs.json")
    before = store.path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os if call == "fsync" else Path, call, fail)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        store.swap("nightly", expected=None, replacement=NIGHTLY)
    assert caught.value.definite is definite
    assert store.path.read_bytes() == before


def test_job_that_cannot_be_read_back_is_not_written(tmp_path: Path) -> None:
    """One impossible job must not make the whole file unreadable."""
    store = JsonFileStore.create(tmp_path / "jobs.json")
    add(store, NIGHTLY)
    endless = Job(id="endless", schedule=Interval(period_us=1 << 60, anchor_us=0), next_us=0)
    with pytest.raises(StoreError) as caught:
        store.swap("endless", expected=None, replacement=endless)
    assert caught.value.definite
    assert store.load_all() == (NIGHTLY,)


# --- processes that fight, and processes that die --------------------------------------------

_SLOTS = 25
_PROCESSES = 4
_SPAWN = multiprocessing.get_context("spawn")


def _fight(path: str, name: str, results: Connection) -> None:
    store = JsonFileStore(path)
    claimed = [
        slot for slot in range(_SLOTS) if _claim(store, "minutely", NOON_US + slot * MINUTE_US, f"vm/{name}")
    ]
    results.send(claimed)


def test_processes_claim_each_occurrence_once(tmp_path: Path) -> None:
    """Of four processes that fire the same occurrences on one file, exactly one claims each."""
    store = JsonFileStore.create(tmp_path / "jobs.json")
    add(store, EVERY_MINUTE)
    pipes = [_SPAWN.Pipe(duplex=False) for _ in range(_PROCESSES)]
    fighters = [
        _SPAWN.Process(target=_fight, args=(str(store.path), str(number), sender), daemon=True)
        for number, (_, sender) in enumerate(pipes)
    ]
    for fighter in fighters:
        fighter.start()
    claimed: list[int] = []
    for receiver, _ in pipes:
        assert receiver.poll(30), "a process did not come to an end"
        claimed += receiver.recv()
    for fighter in fighters:
        fighter.join()
    assert sorted(claimed) == list(range(_SLOTS))
    job = store.load("minutely")
    assert job is not None
    assert (job.completed, job.run) == (_SLOTS, None)
    assert [end.occurrence_us for end in store.history("minutely")] == [
        NOON_US + slot * MINUTE_US for slot in range(_SLOTS)
    ]


def _write_for_ever(path: str, ready: Connection) -> None:
    store = JsonFileStore(path)
    ready.send(True)
    while True:
        job = store.load("nightly")
        assert job is not None
        store.swap(
            "nightly",
            expected=job,
            replacement=attrs.evolve(job, revision=job.revision + 1),
            outcomes=(outcome(job, job.revision),),
        )


def test_killed_writer_never_leaves_a_torn_file(tmp_path: Path) -> None:
    """A writer killed at any point leaves the old or the new file, whole, and its lock to the next."""
    store = JsonFileStore.create(tmp_path / "jobs.json")
    add(store, NIGHTLY)
    generator = random.Random(7)
    revision, deadline = 0, time.monotonic() + 4
    while time.monotonic() < deadline:
        receiver, sender = _SPAWN.Pipe(duplex=False)
        writer = _SPAWN.Process(target=_write_for_ever, args=(str(store.path), sender), daemon=True)
        writer.start()
        assert receiver.poll(30)
        time.sleep(generator.uniform(0, 0.05))
        writer.kill()
        writer.join()
        job = store.load("nightly")
        assert job is not None
        assert job.revision >= revision
        revision = job.revision
        newest = store.history("nightly")
        assert len(newest) == min(revision, 50), "job and outcome were written together or not at all"
        assert not newest or newest[-1] == outcome(NIGHTLY, revision - 1)
    later = attrs.evolve(NIGHTLY, revision=revision + 1)
    current = store.load("nightly")
    assert store.swap("nightly", expected=current, replacement=later)
    assert revision > 0
