"""What the JSON file promises besides what every store does: it stays its owner's file."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chronos.errors import JobsFileError, StoreError
from chronos.jobs.instants import MINUTE_US, parse_instant
from chronos.jobs.job import Job, JobState, Outcome, Result, Unreadable
from chronos.jobs.schedule import Cron, Interval, Once
from chronos.stores import JobStore, JsonFileStore, json_file
from chronos.values import evolve
from tests.moves import claim_and_end, claimed
from tests.strategies import fits_json_file, jobs, outcomes

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


def add(store: JobStore, *jobs: Job) -> None:
    for job in jobs:
        assert store.swap(job.id, expected=None, replacement=job)


# --- a file that is the agent's as well -------------------------------------------------------

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
            move = claimed(job, job.next_us, "vm/1")
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
    assert store.swap(job.id, expected=job, replacement=evolve(job, completed=10))
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
    assert claim_and_end(store, "minutely", NOON_US, "vm/1")
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
    assert not store.swap("nightly", expected=NIGHTLY, replacement=evolve(NIGHTLY, revision=1))
    assert store.load_all() == ()


# --- a file that is missing, broken, or changed meanwhile ---------------------------------------


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


@pytest.mark.parametrize("content", [b"{", b'{"jobs": 5}', b'{"jobs": [], "x": "\xff"}', b"", b"[]"])
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


def test_deeply_nested_objects_are_kept_or_refused(tmp_path: Path) -> None:
    """However deep Python can write where it is called, the file is changed, or it is left as it is."""
    path = tmp_path / "jobs.json"
    store = JsonFileStore.create(path)
    add(store, NIGHTLY)
    deep = '{"a":' * 600 + "1" + "}" * 600
    text = path.read_text(encoding="utf-8").replace('"name": "nightly"', f'"name": {deep}')
    path.write_text(text, encoding="utf-8")
    job = store.load("nightly")
    assert job is not None

    def swap_below(frames: int, later: Job) -> bool:
        if frames:
            return swap_below(frames - 1, later)
        return store.swap("nightly", expected=job, replacement=later)

    refused, frames = 0, 200
    while refused < 3:
        frames += 8
        before, later = path.read_bytes(), evolve(job, revision=job.revision + 1)
        try:
            assert swap_below(frames, later)
            job = later
        except (StoreError, JobsFileError) as error:
            assert "nested too deeply" in str(error)  # noqa: PT017 - it may be written as well
            assert path.read_bytes() == before
            refused += 1
    assert job.revision


# --- what this process wrote ------------------------------------------------------------------


def test_what_was_written_is_not_parsed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large file is parsed when somebody else has changed it, and not with every change of one's own."""
    store = JsonFileStore.create(tmp_path / "jobs.json")
    add(store, NIGHTLY)
    monkeypatch.setattr(json_file, "read_document", lambda *_, **__: pytest.fail("parsed again"))
    later = evolve(NIGHTLY, revision=1)
    assert store.swap("nightly", expected=NIGHTLY, replacement=later, outcomes=(outcome(NIGHTLY, 1),))
    assert store.load_all() == (later,)
    assert store.history("nightly") == (outcome(NIGHTLY, 1),)


_BARE = st.sampled_from(
    [
        {"id": "cron", "schedule": {"kind": "cron", "expr": "*/7 * * * *"}},
        {"id": "zoned", "schedule": {"kind": "cron", "expr": "30 2 * * *", "tz": "Europe/Berlin"}},
        {"id": "interval", "schedule": {"kind": "interval", "minutes": 7}},
        {"id": "resting", "schedule": {"kind": "interval", "minutes": 7}, "enabled": False},
        {"id": "once", "schedule": {"kind": "once", "run_at": "2026-06-26T12:00:00-07:00"}},
        {
            "id": "over",
            "schedule": {"kind": "once", "run_at": "2026-06-24T12:00:00Z"},
            "repeat": {"completed": 1},
        },
    ]
)
_TOP = st.sampled_from(
    [
        {},
        {"updated_at": "2026-06-25T12:00:30+05:30"},
        {"exported_at": "2026-06-25T12:00:30Z"},
        {"tz": "Asia/Tokyo"},
    ]
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_what_was_written_is_what_another_process_reads(data: st.DataObject, tmp_path: Path) -> None:
    """After any change, of a file that says as little as it may, both hold the same jobs and outcomes."""
    bare = data.draw(st.lists(_BARE, unique_by=lambda record: record["id"], max_size=4), label="bare")
    indent = data.draw(st.sampled_from([None, 2, "\t"]), label="indent")
    top = {**data.draw(_TOP, label="top"), "jobs": bare, "theirs": {"at": [1, {}, []], "ü": "a\n\u2028"}}
    path = tmp_path / "jobs.json"
    path.write_bytes(as_json_writes(json.dumps(top).encode(), indent))
    now_us = data.draw(st.integers(NOON_US, NOON_US + 9_000 * MINUTE_US), label="now")
    store = JsonFileStore(path, now_us=lambda: now_us)
    store.load_all()
    for _ in range(3):
        held = {job.id: job for job in store.load_all()}
        job_id = data.draw(st.sampled_from([*held, "new"]), label="id")
        named = jobs().map(lambda job, job_id=job_id: evolve(job, id=job_id)).filter(fits_json_file)
        swap = {
            "expected": held.get(job_id),
            "replacement": data.draw(st.none() | named, label="replacement"),
            "outcomes": tuple(data.draw(st.lists(outcomes(job_id).filter(fits_json_file), max_size=2))),
        }
        assert store.swap(job_id, **swap)
        another = JsonFileStore(path)
        assert repr(store.load_all()) == repr(another.load_all())
        assert store.latest() == another.latest()
        assert path.read_bytes() == as_json_writes(path.read_bytes(), indent)


def as_json_writes(data: bytes, indent: int | str | None) -> bytes:
    """Return how Python writes what is in *data*, without escapes where it can do without."""
    raw = json.loads(data)
    try:
        return json.dumps(raw, indent=indent, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(raw, indent=indent).encode("ascii")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(job=jobs())
def test_job_is_kept_whole_or_refused(job: Job, tmp_path: Path) -> None:
    """A job that the file cannot say is refused, and everything else goes on."""
    path = tmp_path / "jobs.json"
    path.unlink(missing_ok=True)
    store = JsonFileStore.create(path)
    add(store, NIGHTLY)
    try:
        assert store.swap(job.id, expected=None, replacement=job) is (job.id != "nightly")
    except StoreError as refused:
        assert refused.definite  # noqa: PT017 - it may be kept as well
        assert not fits_json_file(job)
        assert store.load_all() == JsonFileStore(path).load_all() == (NIGHTLY,)
    else:
        assert repr(JsonFileStore(path).load(job.id)) == repr(job)


def test_text_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    """Both halves of a surrogate pair apart would come back as one character: another id."""
    store = JsonFileStore.create(tmp_path / "jobs.json")
    with pytest.raises(StoreError, match="no record reads as") as caught:
        store.swap("\ud83d\ude00", expected=None, replacement=evolve(NIGHTLY, id="\ud83d\ude00"))
    assert caught.value.definite
    assert store.load_all() == ()


# --- the history ------------------------------------------------------------------------------


def test_longer_history_of_before_is_cut(tmp_path: Path) -> None:
    """A store that shall keep less shows less at once, and writes less with the next outcome of a job."""
    path = tmp_path / "jobs.json"
    store = JsonFileStore.create(path)
    add(store, NIGHTLY)
    ended = tuple(outcome(NIGHTLY, number) for number in range(5))
    assert store.swap("nightly", expected=NIGHTLY, replacement=NIGHTLY, outcomes=ended)
    short = JsonFileStore(path, history_length=2)
    assert short.history("nightly") == ended[3:]
    assert short.swap("nightly", expected=NIGHTLY, replacement=NIGHTLY, outcomes=(outcome(NIGHTLY, 5),))
    assert JsonFileStore(path).history("nightly") == (ended[4], outcome(NIGHTLY, 5))


def test_broken_outcome_is_named_by_its_place(tmp_path: Path) -> None:
    """Only the newest outcome is read for an overview; what is wrong with it is said of where it stands."""
    path = tmp_path / "jobs.json"
    store = JsonFileStore.create(path)
    add(store, NIGHTLY)
    ended = tuple(outcome(NIGHTLY, number) for number in range(3))
    assert store.swap("nightly", expected=NIGHTLY, replacement=NIGHTLY, outcomes=ended)
    raw = json.loads(path.read_text(encoding="utf-8"))
    raw["jobs"][0]["chronos"]["history"][2]["result"] = "vanished"
    path.write_text(json.dumps(raw), encoding="utf-8")
    odd = store.latest()["nightly"]
    assert isinstance(odd, Unreadable)
    assert (odd.place, odd.field) == ("nightly", "chronos.history[2].result")
    with pytest.raises(JobsFileError, match=r"nightly: chronos\.history\[2\]\.result"):
        store.history("nightly")
    assert store.load("nightly") == NIGHTLY
