"""How fast the library is: `python -m tests.bench [import] [start] [claims] [sleep] [events]`.

Every figure stands beside something real that was measured in the same run, since machines are
shared and noisy: bare Python, the same work without the scheduler, a jobs file that is rewritten.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import simpy

from chronos import Cron, Interval, Job, JsonFileStore, MemoryStore, NasClient, Scheduler, SqlStore
from chronos.jobs.due import wake_at
from chronos.jobs.instants import DAY_US, HOUR_US, MINUTE_US, SECOND_US, format_instant
from chronos.jobs.schedule import next_after, parse_schedule, slots_after
from chronos.protocol import transitions
from chronos.stores import JobStore
from simulator.scenario import Expectation, simulate
from simulator.scenario_file import shipped
from tests import postgres

JOBS = 10_000
DIFFERENT = 10
NOW_US = time.time_ns() // 1_000_000_000 * SECOND_US


def main(wanted: list[str]) -> None:
    """Print the figures that are asked for; all of them by default."""
    parts = {"import": imports, "start": starts, "claims": claims, "sleep": sleeps, "events": events}
    if unknown := [name for name in wanted if name not in parts]:
        sys.exit(f"there is no benchmark {unknown[0]!r}; expected one of: {', '.join(parts)}")
    for name in wanted or parts:
        for line in parts[name]():
            print(line, flush=True)


# --- import ----------------------------------------------------------------------------------

IMPORT_REPEATS = 25
_WHAT = {
    "import chronos": "import chronos",
    "… and an agent's names": (
        "from chronos import Scheduler, NasClient, JsonFileStore, FireEndpoint, FireVerifier"
    ),
}


def imports() -> Iterator[str]:
    """Time importing the package over bare Python, both in turn."""
    yield f"import: median of {IMPORT_REPEATS} processes each, in turn, warm cache"
    programs = {"bare Python": "pass", **_WHAT}
    timed: dict[str, list[float]] = {name: [] for name in programs}
    for program in programs.values():
        _process_s(program)
    for _ in range(IMPORT_REPEATS):
        for name, program in programs.items():
            timed[name].append(_process_s(program))
    bare_s = median(timed["bare Python"])
    yield f"  {'bare Python':22} {bare_s * 1000:6.1f} ms"
    for name in _WHAT:
        over_ms = (median(timed[name]) - bare_s) * 1000
        yield f"  {name:22} {median(timed[name]) * 1000:6.1f} ms, {over_ms:+.1f} ms over bare Python"


def _process_s(program: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - began


# --- start -----------------------------------------------------------------------------------


class Nas:
    """A NAS behind a client's transport: it counts what it is asked."""

    def __init__(self, arms: dict[str, str]) -> None:
        self.arms = arms
        self.calls: dict[str, int] = {"list": 0, "provision": 0, "cancel": 0}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        verb = request.url.path.rsplit("/", 1)[-1]
        self.calls[verb] += 1
        if verb == "list":
            armed = [{"job_id": each, "fire_at": at, "schedule_id": "s"} for each, at in self.arms.items()]
            return httpx.Response(200, json={"armed": armed})
        body = json.loads(request.content)
        if verb == "provision":
            self.arms[body["job_id"]] = body["fire_at"]
        else:
            self.arms.pop(body["job_id"], None)
        return httpx.Response(200, json={"ok": True, "schedule_id": "s", "revision": body.get("revision")})


def starts() -> Iterator[str]:
    """Time the start of a large fleet of which a few jobs differ, beside one call for each job."""
    yield f"start: {JOBS:,} jobs, of which {DIFFERENT} differ from what NAS has armed; NAS answers at once"
    one_by_one_s = _one_by_one_s()
    yield f"  {'one by one':12} {one_by_one_s * 1000:7.0f} ms; NAS: {JOBS} provision, as without a list"
    with _stores() as stores:
        for name, store in stores:
            nas = Nas({job.id: format_instant(wake_at(job) or 0) for job in store.load_all()[DIFFERENT:]})
            scheduler = Scheduler(store, _client(nas), lambda _context: None, clock=lambda: NOW_US)
            began = time.perf_counter()
            started = scheduler.start()
            took_s = time.perf_counter() - began
            assert started.settled, scheduler.pending()
            calls = ", ".join(f"{count} {verb}" for verb, count in nas.calls.items() if count)
            ratio = f"{one_by_one_s / took_s:.1f} times as fast"
            yield f"  {name:12} {took_s * 1000:7.0f} ms, {ratio}; NAS: {calls}"


def _client(nas: Nas) -> NasClient:
    return NasClient(
        "https://portal.example",
        token_provider=lambda _fresh: "token",
        callback_url="https://agent.example",
        transport=httpx.MockTransport(nas),
    )


def _one_by_one_s() -> float:
    client = _client(Nas({}))
    began = time.perf_counter()
    for job in _jobs():
        client.provision(job.id, job.next_us or 0, revision=0)
    return time.perf_counter() - began


# --- claims ----------------------------------------------------------------------------------

CLAIM_S = 4.0


def claims() -> Iterator[str]:
    """Count the claims of each store beside what rewriting a whole jobs file allows."""
    yield f"claims: one process, {JOBS:,} jobs in the store, {CLAIM_S:.0f} s each"
    with _stores() as stores, tempfile.TemporaryDirectory() as folder:
        whole = _per_second(_whole_file(Path(folder) / "whole.json"))
        yield f"  {'whole file':12} {whole:9.1f}/s: read, change one job, write all of it, fsync, rename"
        for name, store in stores:
            rate = _per_second(_claim(store))
            yield f"  {name:12} {rate:9.1f}/s, {rate / whole:.1f} times the whole file"


def _per_second(step: Callable[[int], None]) -> float:
    step(0)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < CLAIM_S:
        count += 1
        step(count)
    return count / (time.perf_counter() - began)


def _claim(store: JobStore) -> Callable[[int], None]:
    """Return what claims the next occurrence of one job and ends its run: two changes of the store."""

    def step(number: int) -> None:
        job_id = f"job-{number % JOBS:05}"
        job = store.load(job_id)
        assert job is not None
        assert job.next_us is not None
        fired = transitions.fire(job, fire_at_us=job.next_us, now_us=job.next_us, owner="bench")
        assert fired.runs
        assert store.swap(job_id, expected=job, replacement=fired.job, outcomes=fired.outcomes)
        ended = transitions.finish(
            fired.job, run=fired.runs[0], succeeded=True, detail="", now_us=job.next_us
        )
        assert store.swap(job_id, expected=fired.job, replacement=ended.job, outcomes=ended.outcomes)

    return step


def _whole_file(path: Path) -> Callable[[int], None]:
    """Return what a jobs file costs whose every change reads and writes all of it, twice as above."""
    store = JsonFileStore.create(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "jobs": _records()}, indent=2))
    del store

    def change(number: int, field: str) -> None:
        raw = json.loads(path.read_text())
        raw["jobs"][number % JOBS][field] = number
        beside = path.with_suffix(".next")
        with beside.open("w") as file:
            json.dump(raw, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)

    def step(number: int) -> None:
        change(number, "claimed")
        change(number, "ended")

    return step


# --- a long sleep ----------------------------------------------------------------------------

SLEEP_DAYS = 365
SLEEP_ZONE = "Europe/Berlin"


def sleeps() -> Iterator[str]:
    """Time the first fire after a year, beside a walk along what was missed: of a day, times the days."""
    yield f"sleep: the fire that ends a sleep of {SLEEP_DAYS} days, in a new process; {SLEEP_ZONE}"
    for text in ("* * * * *", "*/10 * * * * *", "every 1s"):
        schedule = parse_schedule(text, now_us=NOW_US, tz=SLEEP_ZONE)
        first_us = next_after(schedule, NOW_US)
        assert first_us is not None
        job = Job(id="asleep", schedule=schedule, next_us=first_us)
        woken_us = NOW_US + SLEEP_DAYS * DAY_US
        began = time.perf_counter()
        move = transitions.fire(job, fire_at_us=first_us, now_us=woken_us, owner="bench")
        took_s = time.perf_counter() - began
        began = time.perf_counter()
        a_day = sum(
            1 for _ in takewhile(lambda slot_us: slot_us < NOW_US + DAY_US, slots_after(schedule, NOW_US))
        )
        walk_s = (time.perf_counter() - began) * SLEEP_DAYS
        missed = sum(outcome.count for outcome in move.outcomes)
        yield (
            f"  {text:14} {took_s * 1000:6.1f} ms for {missed:,} missed; slot by slot ({a_day:,} a day)"
            f" {walk_s:5.1f} s, {walk_s / took_s:,.0f} times as long"
        )


# --- fleets ----------------------------------------------------------------------------------


# --- simulated events -------------------------------------------------------------------------

EVENT_REPEATS = 3
EMPTY_EVENTS = 200_000


def events() -> Iterator[str]:
    """Time an event of the shipped year over one of an empty process of SimPy, both in turn."""
    scenario = shipped("year")
    plan = scenario.plan(Expectation(agent="chronos"))
    yield f"events: median of {EVENT_REPEATS}, in turn, one core, processor time; the shipped year whole"
    ours, theirs, years = [], [], []
    for _ in range(EVENT_REPEATS):
        theirs.append(_seconds(_empty_process) / EMPTY_EVENTS)
        began = time.process_time()
        summary = simulate(plan, scenario.seed)
        years.append(time.process_time() - began)
        ours.append(years[-1] / summary.events)
    ratio = median(ours) / median(theirs)
    yield f"  an event of an empty SimPy process {median(theirs) * 1e6:>8.2f} us"
    yield f"  an event of the simulated year     {median(ours) * 1e6:>8.2f} us, {ratio:.1f} times as long"
    yield f"  the year                           {median(years):>8.2f} s"


def _empty_process() -> None:
    environment = simpy.Environment()

    def waits() -> Iterator[Any]:
        for _ in range(EMPTY_EVENTS):
            yield environment.timeout(1)

    environment.process(waits())
    environment.run()


def _seconds(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _jobs() -> Iterator[Job]:
    for number in range(JOBS):
        slot_us = NOW_US + (2 + number % 58) * MINUTE_US
        schedule: Any = Interval(period_us=HOUR_US, anchor_us=slot_us)
        if number % 2:
            schedule = Cron(expr=f"{number % 60} * * * *", tz="UTC")
            slot_us = next_after(schedule, NOW_US + MINUTE_US) or 0
        yield Job(id=f"job-{number:05}", schedule=schedule, next_us=slot_us)


def _records() -> list[dict[str, Any]]:
    """Return the jobs as an agent's file has them."""
    return [
        {
            "id": job.id,
            "name": job.id,
            "prompt": "what the agent is to do " * 8,
            "schedule": {"kind": "interval", "minutes": 60, "display": "every 60m"}
            if isinstance(job.schedule, Interval)
            else {"kind": "cron", "expr": "*/20 * * * *", "tz": "UTC", "display": "*/20 * * * *"},
            "repeat": {"times": None, "completed": 0},
            "enabled": True,
            "state": "scheduled",
            "next_run_at": format_instant(job.next_us or 0),
            "last_run_at": None,
            "last_status": None,
            "created_at": format_instant(NOW_US),
        }
        for job in _jobs()
    ]


@contextmanager
def _stores() -> Iterator[list[tuple[str, JobStore]]]:
    """Yield every store, each with the same jobs in it."""
    with tempfile.TemporaryDirectory() as folder, postgres.running(is_durable=True) as url:
        path = Path(folder) / "jobs.json"
        JsonFileStore.create(path)
        path.write_text(json.dumps({**json.loads(path.read_text()), "jobs": _records()}, indent=2))
        stores: list[tuple[str, JobStore]] = [
            ("memory", MemoryStore(_jobs())),
            ("JSON file", JsonFileStore(path)),
        ]
        for name, where in (("SQLite", f"sqlite:///{folder}/jobs.sqlite"), ("PostgreSQL", url)):
            store = SqlStore.create(where)
            for job in _jobs():
                store.swap(job.id, expected=None, replacement=job)
            stores.append((name, store))
        yield stores


if __name__ == "__main__":
    main(sys.argv[1:])
