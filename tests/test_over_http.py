"""An agent in a process of its own, its NAS over HTTP: what `whole_seconds` and `kill_loop` try for long."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from chronos import Interval, Job, Outcome, Result
from chronos.jobs.instants import SECOND_US, Instant
from chronos.jobs.job import Run
from chronos.testing import LocalNas
from chronos.values import evolve
from tests import kill_loop, whole_seconds
from tests.agent_process import Ran, opened

T0 = 1_767_225_600 * SECOND_US
MINUTE_US = 60 * SECOND_US


def test_a_nas_of_whole_seconds_gets_each_slot_run_once(tmp_path: Path) -> None:
    """Of an interval, `+5s`, a cron job with seconds and a record with a fraction (incident T1)."""
    report = whole_seconds.try_out(10.5, tmp_path)
    assert report.wrong == []
    assert all(report.expected[job_id] >= 1 for job_id in whole_seconds.JOBS)


def test_an_agent_that_is_killed_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    """After a load and at random; `python -m tests.kill_loop` does it a hundred times."""
    report = kill_loop.kill(2, tmp_path, rest_s=2.5)
    assert report.wrong == []
    assert report.kills.total() == 2
    assert report.slots > 0


# --- The comparison sees what is wrong ----------------------------------------------------------


def outcome(at_us: Instant, result: Result = Result.COMPLETED, **changes: Any) -> Outcome:
    fields = {"reason": "", "last_occurrence_us": at_us, "attempt": 1, "at_us": at_us} | changes
    return Outcome(job_id="j", result=result, occurrence_us=at_us, **fields)


def ran(at_us: Instant, attempt: int = 1) -> list[Ran]:
    one = Ran(is_end=False, job_id="j", occurrence_us=at_us, attempt=attempt)
    return [one, attrs.evolve(one, is_end=True)]


def seen(folder: Path, ends: list[Outcome], log: list[Ran], **job: Any) -> list[str]:
    """Return what is found wrong of a minute job that has come to its third slot."""
    nas = LocalNas()
    schedule = Interval(period_us=MINUTE_US, anchor_us=T0)
    first = Job(id="j", schedule=schedule, next_us=T0 + 2 * MINUTE_US)
    store = opened(folder)
    nas.client().provision("j", T0)
    nas.client().provision("j", T0 + 2 * MINUTE_US)
    left = evolve(first, **job)
    assert store.swap(left.id, expected=None, replacement=left, outcomes=tuple(ends))
    store.close()
    lines = [json.dumps(attrs.asdict(each)) + "\n" for each in log]
    (folder / "runs.log").write_text("".join(lines), encoding="utf-8")
    report = kill_loop.Report()
    kill_loop.compare(report, nas, folder)
    return report.wrong


BOTH = [outcome(T0), outcome(T0 + MINUTE_US)]
BOTH_RAN = [*ran(T0), *ran(T0 + MINUTE_US)]
RUN = Run(occurrence_us=T0, attempt=1, owner="gone", claimed_us=T0, lease_until_us=T0)


def test_a_comparison_of_good_logs_finds_nothing(tmp_path: Path) -> None:
    """Two slots, two runs, two ends, and the next one armed."""
    assert seen(tmp_path, BOTH, BOTH_RAN) == []


@pytest.mark.parametrize(
    ("ends", "runs", "job", "told"),
    [
        (BOTH[1:], BOTH_RAN[2:], {}, "was lost"),
        ([], [], {}, "was lost"),
        ([*BOTH, BOTH[1]], BOTH_RAN, {}, "ended 2 times"),
        (BOTH, [*BOTH_RAN, *ran(T0)], {}, "began 2 times"),
        (BOTH, [*BOTH_RAN, *ran(T0, attempt=2)], {}, "ran 2 times"),
        (BOTH, BOTH_RAN[:2], {}, "which never ended"),
        (BOTH, BOTH_RAN[:3], {}, "which never ended"),
        (BOTH, [*BOTH_RAN, *ran(T0 + 2 * MINUTE_US)], {}, "has no end"),
        ([BOTH[0], outcome(T0 + MINUTE_US, Result.MISSED, attempt=0)], BOTH_RAN, {}, "and ran"),
        ([outcome(T0, last_occurrence_us=T0 + MINUTE_US)], BOTH_RAN[:2], {}, "tells of 2 slots"),
        (BOTH, BOTH_RAN, {"next_us": T0 + 3 * MINUTE_US}, "wants a wake"),
        (BOTH, BOTH_RAN, {"runs": (RUN,)}, "a run has not ended"),
    ],
)
def test_a_comparison_finds_what_is_wrong(
    tmp_path: Path, ends: list[Outcome], runs: list[Ran], job: dict[str, Any], told: str
) -> None:
    """Each way in which a slot may be lost, or doubled, or told wrongly."""
    assert any(told in each for each in seen(tmp_path, ends, runs, **job))


def test_an_arm_without_a_job_is_found(tmp_path: Path) -> None:
    """The machine would be woken for nothing."""
    assert "j is armed, and is no job" in seen(tmp_path, [], [], id="k")
