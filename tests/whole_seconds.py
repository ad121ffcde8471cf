"""An agent against a NAS that keeps whole seconds only, over real HTTP: each slot runs once.

`python -m tests.whole_seconds --seconds 120` ends with 0 when it did, and otherwise with 1 and the slots.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import attrs

from chronos import Interval, Job, JobStore
from chronos.clock import now_us
from chronos.jobs.due import following
from chronos.jobs.instants import SECOND_US, Instant, format_instant
from chronos.testing import LocalNas
from tests.agent_process import EACH, PATIENCE_S, Plan, begun, end, free_port, opened, runs_in

JOBS = ("interval", "once", "cron", "fraction")
LONGEST_US = 6 * SECOND_US  # until the first slot of any of them


@attrs.frozen(kw_only=True)
class Report:
    """What was seen.

    Attributes:
        expected: how many slots of each job had come.
        ran: how many of them ran.
        wrong: the slots that did not run once, in words.
        fires: how many deliveries there were, by NAS's word for the answer.
    """

    expected: dict[str, int]
    ran: dict[str, int]
    wrong: list[str]
    fires: Counter[str]

    def __str__(self) -> str:
        jobs = ", ".join(f"{job_id} {self.ran[job_id]}/{self.expected[job_id]}" for job_id in JOBS)
        fires = ", ".join(f"{count} {word}" for word, count in self.fires.most_common())
        return "\n".join([f"slots run once: {jobs}; fires: {fires}", *self.wrong])


def try_out(seconds: float, folder: Path) -> Report:
    """Let an agent live for a while, and compare what ran with the slots that came.

    Args:
        seconds: how long, from when all jobs are armed.
        folder: where its store and logs go.
    """
    store = opened(folder)
    fraction = Interval(period_us=2 * SECOND_US, anchor_us=now_us() // SECOND_US * SECOND_US + 437_219)
    first = Job(id="fraction", schedule=fraction, next_us=fraction.anchor_us + 2 * SECOND_US, policy=EACH)
    assert store.swap("fraction", expected=None, replacement=first)
    nas = LocalNas(clock=now_us, cuts_fractions=True, writes_z=True)
    with nas.served() as url:
        plan = Plan(
            portal=url, audience=nas.audience, port=free_port(), folder=str(folder), jobs="whole seconds"
        )
        agent = begun(plan, folder / "agent.txt")
        try:
            deadline_s = time.monotonic() + PATIENCE_S
            while not {each.job_id for each in nas.requests}.issuperset(JOBS):
                if time.monotonic() > deadline_s:
                    break  # what was never armed has no slot, and is told
                time.sleep(0.01)
            time.sleep(seconds)
        finally:
            end(agent, folder / "agent.txt")
    return _compared(store, nas, folder)


def _compared(store: JobStore, nas: LocalNas, folder: Path) -> Report:
    runs = Counter((ran.job_id, ran.occurrence_us) for ran in runs_in(folder) if not ran.is_end)
    # The last fires may have been on their way when the agent stopped.
    until_us = now_us() - 3 * SECOND_US
    slots = {job_id: _slots(store.load(job_id), nas, until_us) for job_id in JOBS}
    wrong = [f"{job_id} has no slot at all" for job_id, expected in slots.items() if not expected]
    for job_id, expected in slots.items():
        ran = {slot_us for ran_id, slot_us in runs if ran_id == job_id and slot_us <= until_us}
        wrong += [
            f"{job_id} of {format_instant(slot_us)} ran {runs[job_id, slot_us]} times"
            for slot_us in sorted(ran.union(expected))
            if runs[job_id, slot_us] != 1 or slot_us not in expected
        ]
    return Report(
        expected={job_id: len(expected) for job_id, expected in slots.items()},
        ran={job_id: sum(runs[job_id, each] == 1 for each in expected) for job_id, expected in slots.items()},
        wrong=wrong,
        fires=Counter(each.word or "lost" for each in nas.deliveries),
    )


def _slots(job: Job | None, nas: LocalNas, until_us: Instant) -> list[Instant]:
    """Return the slots of a job from the one that was armed first, by its schedule alone."""
    armed = [each for each in nas.requests if job is not None and each.job_id == job.id]
    if job is None or not armed or armed[0].fire_at_us is None:
        return []
    assert armed[0].fire_at_us <= armed[0].at_us + LONGEST_US
    slots = []
    slot_us = following(job, armed[0].fire_at_us - SECOND_US)
    while slot_us is not None and slot_us <= until_us:
        slots.append(slot_us)
        slot_us = following(job, slot_us)
    return slots


def main() -> None:
    """Try it, print the counts, and end with 1 when a slot did not run once."""
    parser = argparse.ArgumentParser(prog="python -m tests.whole_seconds")
    parser.add_argument("--seconds", type=float, default=120, help="for how long (default: %(default)s)")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        report = try_out(seconds, Path(folder))
        print(report)
    sys.exit(bool(report.wrong))


if __name__ == "__main__":
    main()
