"""Processes that fight for a store, and processes that are killed in the middle of a change.

This is a program, so that it forks without threads: `python -m tests.torture fight|kills|lines PLACE`,
where PLACE is a JSON object (see `opened`). It ends with 0, or with the promise that was broken.
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

from chronos.jobs.instants import MINUTE_US, parse_instant
from chronos.jobs.job import Job, Outcome, Result
from chronos.jobs.schedule import Interval
from chronos.stores import JobStore, JsonFileStore, SqlStore
from chronos.values import evolve
from tests.moves import claim_and_end

NOON_US = parse_instant("2026-06-25T12:00:00+00:00")
JOBS = [
    Job(id=f"job {number}", schedule=Interval(period_us=MINUTE_US, anchor_us=NOON_US), next_us=NOON_US)
    for number in range(3)
]
HISTORY_LENGTH = 10_000  # whatever happens here is to be found there afterwards

# Of the fight: processes, and the occurrences of each job that they fight for.
FIGHTERS = 4
SLOTS = [NOON_US + slot * MINUTE_US for slot in range(10)]

# Of the kills: processes that go on, and how many others are killed, each within so many seconds.
WRITERS = 2
KILLS = 24
LONGEST_LIFE_S = 0.03


def opened(place: dict[str, str]) -> JobStore:
    """Open the store at *place*, as a process does that has nothing of it yet."""
    if place["kind"] == "json file":
        return JsonFileStore(place["path"], history_length=HISTORY_LENGTH)
    return SqlStore(place["url"], table_prefix=place["prefix"], history_length=HISTORY_LENGTH)


def made(place: dict[str, str]) -> JobStore:
    """Make the store at *place*, with the jobs in it."""
    if place["kind"] == "json file":
        JsonFileStore.create(place["path"])
    else:
        SqlStore.create(place["url"], table_prefix=place["prefix"]).close()
    store = opened(place)
    for job in JOBS:
        assert store.swap(job.id, expected=None, replacement=job)
    return store


def child(work: Callable[[], object]) -> int:
    """Do *work* in a process of its own, and return its number."""
    number = os.fork()
    if number == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - whatever it was, this process must not go on as its parent
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return number


def ending(number: int) -> int:
    """Wait for a child, and return its exit code, or the negative number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


class Log:
    """What one process has been told that it did, line by line, each written at once."""

    def __init__(self, directory: Path, name: str) -> None:
        self._file = os.open(directory / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, *entry: object) -> None:
        os.write(self._file, (json.dumps(entry) + "\n").encode())


def notes(directory: Path) -> list[list[Any]]:
    """Return what all processes noted so far."""
    whole = [line for path in directory.glob("*.log") for line in path.read_bytes().splitlines(keepends=True)]
    return [json.loads(line) for line in whole if line.endswith(b"\n")]


# --- the fight --------------------------------------------------------------------------------


def fight(place: dict[str, str], directory: Path) -> None:
    """Let some processes claim the same occurrences: each is claimed once, and its end is stored."""
    store = made(place)
    hold, start = os.pipe()

    def claim_all(name: str) -> None:
        os.close(start)
        mine, log = opened(place), Log(directory, name)
        os.read(hold, 1)  # until the start is closed, for all of them at once
        for at_us in SLOTS:
            for job in JOBS:
                if claim_and_end(mine, job.id, at_us, name):
                    log.note(job.id, at_us)

    fighters = [child(lambda name=f"fighter {number}": claim_all(name)) for number in range(FIGHTERS)]
    os.close(start)
    assert [ending(fighter) for fighter in fighters] == [0] * FIGHTERS
    claims = sorted(notes(directory))
    assert claims == sorted([job.id, at_us] for job in JOBS for at_us in SLOTS), "each occurrence once"
    for job in JOBS:
        history = store.history(job.id)
        assert [outcome.occurrence_us for outcome in history] == SLOTS
        assert {outcome.result for outcome in history} == {Result.COMPLETED}


# --- the kills --------------------------------------------------------------------------------


def swap_once(store: JobStore, job_id: str, name: str) -> int | None:
    """Change a job; return its new revision, or None when somebody was faster.

    The history tells of every revision who made it.
    """
    job = store.load(job_id)
    assert job is not None, f"{job_id} is lost"
    revision = job.revision + 1
    mark = Outcome(
        job_id=job_id,
        result=Result.COMPLETED,
        reason=name,
        occurrence_us=NOON_US + revision,
        last_occurrence_us=NOON_US + revision,
        at_us=NOON_US,
    )
    later = evolve(job, revision=revision)
    return revision if store.swap(job_id, expected=job, replacement=later, outcomes=(mark,)) else None


def write_on(place: dict[str, str], directory: Path, name: str, seed: int) -> None:
    """Change jobs until there is a file `stop`, and note each change that is acknowledged."""
    store, log, generator, parent = opened(place), Log(directory, name), random.Random(seed), os.getppid()
    (directory / f"{name}.begun").touch()
    while not (directory / "stop").exists() and os.getppid() == parent:
        job = generator.choice(JOBS)
        revision = swap_once(store, job.id, name)
        if revision is not None:
            log.note(name, job.id, revision)
        time.sleep(generator.uniform(0, 0.004))


def kills(place: dict[str, str], directory: Path) -> None:
    """Kill one process after another at random, while others go on: nothing acknowledged is lost."""
    store, generator = made(place), random.Random(7)

    def start(name: str, seed: int) -> int:
        number = child(lambda: write_on(place, directory, name, seed))
        _wait_until((directory / f"{name}.begun").exists)
        return number

    writers = {name: start(name, seed) for seed, name in enumerate(f"writer {n}" for n in range(WRITERS))}
    for number in range(KILLS):
        victim = start(f"victim {number}", number)
        time.sleep(generator.uniform(0, LONGEST_LIFE_S))
        os.kill(victim, signal.SIGKILL)
        assert ending(victim) == -signal.SIGKILL
        acknowledged = notes(directory)
        for job in store.load_all():
            newest = max((revision for _, job_id, revision in acknowledged if job_id == job.id), default=0)
            assert job.revision >= newest, f"{job.id}: revision {newest} was acknowledged"
        while swap_once(store, JOBS[number % 3].id, "judge") is None:
            pass  # a writer was faster
    counts = {name: _count(directory, name) for name in writers}
    _wait_until(lambda: all(_count(directory, name) > counts[name] for name in writers))
    (directory / "stop").touch()
    assert [ending(writer) for writer in writers.values()] == [0] * WRITERS
    _judge(store, directory)


def _judge(store: JobStore, directory: Path) -> None:
    """Assert that every revision has its one outcome, and that each acknowledged one is its author's."""
    acknowledged = notes(directory)
    for job in store.load_all():
        history = store.history(job.id)
        assert [outcome.occurrence_us - NOON_US for outcome in history] == list(range(1, job.revision + 1))
        for name, job_id, revision in acknowledged:
            if job_id == job.id:
                assert history[revision - 1].reason == name, f"{job_id}: revision {revision} was {name}'s"


def _count(directory: Path, name: str) -> int:
    return sum(noted[0] == name for noted in notes(directory))


def _wait_until(is_so: Callable[[], bool]) -> None:
    """Wait; whoever runs this program sees to it that it does not wait for ever."""
    while not is_so():
        time.sleep(0.001)


# --- death at every line ----------------------------------------------------------------------


def lines(place: dict[str, str], directory: Path) -> None:
    """Let a process die before each line of a change in turn: all of it is there, or nothing of it is."""
    store, job_id = made(place), JOBS[0].id
    revision = swap_once(store, job_id, "judge")
    for number in count(1):
        code = ending(child(lambda number=number: _swap_and_die(store, job_id, number)))
        jobs = {job.id: job for job in store.load_all()}
        assert jobs.keys() == {job.id for job in JOBS}
        assert jobs[job_id].revision in (revision, revision + 1)
        assert len(store.history(job_id)) == jobs[job_id].revision, "both or neither"
        if code == 0:
            break
        assert code == -signal.SIGKILL
        revision = swap_once(store, job_id, "judge")
        assert revision, "what the dead process held is in nobody's way"
    assert number > 20, "a change has more lines than that"
    _judge(store, directory)


# The functions that touch a file or a database; to die between two others is to die before the next of these.
_STEPS = {
    "json_file.py": {"swap", "_locked", "_read", "_write_beside", "_is_still", "_put_in_place"},
    "sql.py": {"swap", "work", "_find", "_put"},
    "database.py": {"change", "lock", "_connected", "_end"},
}


def _swap_and_die(store: JobStore, job_id: str, number: int) -> None:
    """Change a job, and be killed before the line of that number among those that do it."""
    seen: set[tuple[str, int]] = set()

    def trace(frame: FrameType, kind: str, _: object) -> Any:
        if frame.f_code.co_name not in _STEPS.get(Path(frame.f_code.co_filename).name, ()):
            return None
        if kind == "line":
            seen.add((frame.f_code.co_filename, frame.f_lineno))
            if len(seen) == number:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    store.load_all()
    sys.settrace(trace)
    assert swap_once(store, job_id, "victim")


if __name__ == "__main__":
    gc.freeze()  # what is loaded is shared by all of the processes
    with tempfile.TemporaryDirectory() as noted:
        {"fight": fight, "kills": kills, "lines": lines}[sys.argv[1]](json.loads(sys.argv[2]), Path(noted))
