"""An agent that is killed, and killed again: nothing is lost, nothing runs twice that must not.

`python -m tests.kill_loop --kills 100` starts an agent under uvicorn on SQLite (`tests.agent_process`) with a
NAS over HTTP, and kills it: at random moments, and right after each kind of effect. In the end it lets
everything settle, and compares the history of the store, the runner's own log and what NAS saw. It ends
with 0 when they agree, and otherwise with 1 and what is wrong.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import attrs

from chronos import Job, OnInterrupt, Outcome, Result
from chronos.clock import now_us
from chronos.jobs.due import following, wake_at
from chronos.jobs.instants import SECOND_US, Instant, format_instant
from chronos.jobs.policy import MAX_ATTEMPTS
from chronos.stores import told_apart
from chronos.testing import LocalNas
from tests.agent_process import KINDS, Plan, Ran, begun, end, free_port, opened, runs_in

RANDOM = "at random"
LONGEST_LIFE_S = 3.0
# How often nobody starts it again at once, so that occurrences come too late; and for how long.
ABSENCES, LONGEST_ABSENCE_S = 0.2, 8.0
# An effect that does not come by then will not come in this life.
PATIENCE_S = 10.0
# How long the last process has: no job's run, retry or catch-up takes as long.
SETTLING_S = 60.0
# A second process that looks after what was interrupted must not have to wait for long either.
RETRY_DELAYS = (timedelta(milliseconds=500),) * 200


@attrs.define(kw_only=True)
class Report:
    """What was seen.

    Attributes:
        kills: how often the process died, by moment.
        slots: how many slots of recurring jobs had come and were followed to their end.
        outcomes: how many occurrences ended, by result.
        runs: how many attempts began.
        fires: how many deliveries there were, by NAS's word for the answer.
        wrong: what does not agree, in words.
    """

    kills: Counter[str] = attrs.field(factory=Counter)
    slots: int = 0
    outcomes: Counter[str] = attrs.field(factory=Counter)
    runs: int = 0
    fires: Counter[str] = attrs.field(factory=Counter)
    wrong: list[str] = attrs.field(factory=list)

    def __str__(self) -> str:
        kills = f"{self.kills.total()} kills ({_told(self.kills)})"
        outcomes = f"{self.slots} slots; {self.outcomes.total()} occurrences ended ({_told(self.outcomes)})"
        fires = f"{self.fires.total()} deliveries ({_told(self.fires)})"
        verdict = f"{len(self.wrong)} WRONG" if self.wrong else "nothing lost, nothing doubled"
        return "\n".join([f"{kills}; {outcomes}; {self.runs} attempts; {fires}: {verdict}", *self.wrong])


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{word} {count}" for word, count in sorted(counts.items()))


def kill(kills: int, folder: Path, *, seed: int = 0, rest_s: float = LONGEST_LIFE_S) -> Report:
    """Kill an agent so many times, let it settle, and compare.

    Args:
        kills: how often.
        folder: where its store and logs go.
        seed: chooses the moments.
        rest_s: how long the last process is let alone, before and after it has settled, seconds.
    """
    report, choice = Report(), random.Random(seed)
    nas = LocalNas(clock=now_us, retry_delays=RETRY_DELAYS)
    port = free_port()
    with nas.served() as url:
        plan = Plan(portal=url, audience=nas.audience, port=port, folder=str(folder), jobs="kills")
        for life in range(1, kills + 1):
            moment = KINDS[life // 2 % len(KINDS)] if life % 2 else RANDOM
            report.kills[_killed(attrs.evolve(plan, life=life), moment, choice)] += 1
            if choice.random() < ABSENCES:
                time.sleep(choice.uniform(0.0, LONGEST_ABSENCE_S))
        last = begun(plan, _errors(plan))
        try:
            _settle(folder, rest_s)
        finally:
            end(last, _errors(plan))
    compare(report, nas, folder)  # not before NAS has ended: an arm that it delivers is not listed
    return report


def _killed(plan: Plan, moment: str, choice: random.Random) -> str:
    """Let a process live until it dies, and return of what."""
    if moment == RANDOM:
        process, life_s = begun(plan, _errors(plan)), choice.uniform(0.2, LONGEST_LIFE_S)
    else:
        fateful = attrs.evolve(plan, kill=moment, kill_after=choice.randint(1, 1 if moment == "list" else 4))
        process, life_s = begun(fateful, _errors(plan)), PATIENCE_S
    try:
        process.wait(life_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return RANDOM
    if process.returncode != -signal.SIGKILL:
        raise RuntimeError(f"the agent ended by itself: {_errors(plan).read_text(encoding='utf-8')[-2000:]}")
    return moment


def _errors(plan: Plan) -> Path:
    return Path(plan.folder) / "agent.txt"


def _settle(folder: Path, rest_s: float) -> None:
    """Wait until nothing of earlier lives is left undone, and a while longer."""
    store, deadline_s = opened(folder), time.monotonic() + SETTLING_S
    time.sleep(rest_s)
    rested_us = now_us()
    while time.monotonic() < deadline_s:
        late_us = now_us() - SECOND_US
        jobs, _ = told_apart(store.load_all())
        if not any(
            (job.next_us is not None and job.next_us < late_us)
            or any(run.claimed_us < rested_us for run in job.runs)
            for job in jobs
        ):
            break
        time.sleep(0.05)
    store.close()
    time.sleep(rest_s)


# --- The comparison -----------------------------------------------------------------------------


def compare(report: Report, nas: LocalNas, folder: Path) -> None:
    """Compare what the store, the runner and NAS say, and note it in the report."""
    store = opened(folder)
    runs = runs_in(folder)
    report.fires.update(each.word or "lost" for each in nas.deliveries)
    report.runs = sum(not ran.is_end for ran in runs)
    jobs, odd = told_apart(store.load_all())
    report.wrong += [f"a record cannot be read: {each}" for each in odd]
    for job in jobs:
        history = store.history(job.id)
        report.outcomes.update(_by_result(history))
        report.wrong += _unequal_to_nas(job, nas)
        report.wrong += _slots_wrong(report, nas, job, history)
        report.wrong += _runs_wrong(job, history, [ran for ran in runs if ran.job_id == job.id])
    known = {job.id for job in jobs}
    report.wrong += [f"{job_id} is armed, and is no job" for job_id in nas.arms.keys() - known]
    report.wrong += _doubled(Counter(runs))
    store.close()


def _by_result(history: tuple[Outcome, ...]) -> Counter[str]:
    counts = Counter[str]()
    for outcome in history:
        counts[outcome.result] += outcome.count
    return counts


def _unequal_to_nas(job: Job, nas: LocalNas) -> Iterator[str]:
    """Yield how the store and NAS differ on a job's arm."""
    wanted_us, armed = wake_at(job), nas.arms.get(job.id)
    armed_us = None if armed is None else round(armed.timestamp() * SECOND_US)
    if wanted_us != armed_us:
        yield f"{job.id}: the store wants a wake at {_shown(wanted_us)}, NAS has armed {_shown(armed_us)}"


def _slots_wrong(report: Report, nas: LocalNas, job: Job, history: tuple[Outcome, ...]) -> Iterator[str]:
    """Yield each slot of a job that has no outcome, or more than one."""
    ended = Counter[Instant]()
    for outcome in history:
        slot_us: Instant | None = outcome.occurrence_us
        covered = 0
        while slot_us is not None and slot_us <= outcome.last_occurrence_us:
            ended[slot_us] += 1
            covered += 1
            slot_us = following(job, slot_us)
        if covered != outcome.count:
            yield f"{job.id}: {outcome} tells of {covered} slots"
    for slot_us, count in ended.items():
        if count > 1:
            yield f"{job.id} of {format_instant(slot_us)} ended {count} times"
    open_us = {run.occurrence_us for run in job.runs} | {each.occurrence_us for each in job.waiting}
    if job.runs:
        yield f"{job.id}: a run has not ended: {job.runs}"
    if job.id == "toggled":  # while it is paused, its slots pass without an end
        report.slots += len(ended)
        return
    armed_us = next((each.fire_at_us for each in nas.requests if each.job_id == job.id), None)
    slot_us = min(ended, default=armed_us)
    if slot_us is not None and armed_us is not None:
        slot_us = min(slot_us, armed_us)
    while slot_us is not None and (job.next_us is None or slot_us < job.next_us):
        report.slots += 1
        if not ended[slot_us] and slot_us not in open_us:
            yield f"{job.id} of {format_instant(slot_us)} was lost"
        slot_us = following(job, slot_us)


def _runs_wrong(job: Job, history: tuple[Outcome, ...], runs: list[Ran]) -> Iterator[str]:
    """Yield where the runner's log and the history of a job differ."""
    began = {occurrence_us: set[int]() for occurrence_us in {ran.occurrence_us for ran in runs}}
    done = {(ran.occurrence_us, ran.attempt) for ran in runs if ran.is_end}
    for ran in runs:
        began[ran.occurrence_us].add(ran.attempt)
    for outcome in history:
        attempts = began.pop(outcome.occurrence_us, set())
        most = max(job.policy.attempts, MAX_ATTEMPTS if job.policy.on_interrupt is OnInterrupt.RETRY else 1)
        told = f"{job.id} of {format_instant(outcome.occurrence_us)} is {outcome.result}"
        has_run = outcome.result in (Result.COMPLETED, Result.FAILED)
        if has_run and (outcome.occurrence_us, outcome.attempt) not in done:
            yield f"{told} with attempt {outcome.attempt}, which never ended"
        if has_run and outcome.attempt != max(attempts, default=0):
            yield f"{told} with attempt {outcome.attempt}, and attempts {sorted(attempts)} began"
        if outcome.result in (Result.MISSED, Result.SKIPPED) and attempts and outcome.attempt == 0:
            yield f"{told}, and ran"
        if len(attempts) > most:
            yield f"{told} and ran {len(attempts)} times"
    open_us = {run.occurrence_us for run in job.runs} | {each.occurrence_us for each in job.waiting}
    for occurrence_us in began.keys() - open_us:
        yield f"{job.id} of {format_instant(occurrence_us)} ran, and has no end"


def _doubled(counts: Counter[Ran]) -> Iterator[str]:
    """Yield each attempt that began, or ended, more than once."""
    for ran, count in counts.items():
        if count > 1:
            told = f"{ran.job_id} of {format_instant(ran.occurrence_us)}: attempt {ran.attempt}"
            yield f"{told} {'ended' if ran.is_end else 'began'} {count} times"


def _shown(instant_us: Instant | None) -> str:
    return "none" if instant_us is None else format_instant(instant_us)


def main() -> None:
    """Kill it, print one line, and end with 1 when something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.kill_loop")
    parser.add_argument("--kills", type=int, default=100, help="how often (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="chooses the moments (default: %(default)s)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = kill(given.kills, Path(folder), seed=given.seed)
        print(report)
    sys.exit(bool(report.wrong))


if __name__ == "__main__":
    main()
