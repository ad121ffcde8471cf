"""What it costs that something was asked for: the same seed with it and without it, side by side.

The choices of a seed are the same in both: the n-th time that something is decided about a job, it is
decided alike. What comes later in one than in the other may meet another choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from chronos.jobs.job import Result
from chronos.values import evolve
from simulator import marks
from simulator.conditions import NOTHING_ASKED
from simulator.scenario import Plan
from simulator.summary import Summary

_COMPLETED = str(Result.COMPLETED)

# Counts of the whole world, by the key of JSON.
TOTALS = ("fires", "overlapping_fires", "wakes", "wakes_for_nothing", "agent_up_seconds", "nas_calls")


def plain(plan: Plan) -> Plan:
    """Return *plan* without what was asked for, over the same calendar."""
    return evolve(plan, conditions=NOTHING_ASKED, settles=plan.setting(0).has_phases)


@attrs.define
class Change:
    """A number without what was asked for, and with it."""

    before: int = 0
    after: int = 0

    @property
    def more(self) -> int:
        """By how much there is more; negative when there is less."""
        return self.after - self.before

    def add(self, before: int, after: int) -> None:
        """Count the numbers of another pair."""
        self.before += before
        self.after += after

    def object(self) -> dict[str, int]:
        """Return it as plain values."""
        return {"before": self.before, "after": self.after}


def _by_result() -> dict[str, Change]:
    return {str(result): Change() for result in Result}


@attrs.define
class Cost:
    """What differs, of one seed or of many.

    Attributes:
        runs: how occurrences ended, by result.
        jobs: the same of each job, by its id.
        totals: by the names of `TOTALS`.
        lateness_ms: percentiles by their names; of many seeds, the largest of each.
    """

    runs: dict[str, Change] = attrs.field(factory=_by_result)
    jobs: dict[str, dict[str, Change]] = attrs.field(factory=dict)
    totals: dict[str, Change] = attrs.field(factory=lambda: {name: Change() for name in TOTALS})
    lateness_ms: dict[str, Change] = attrs.field(
        factory=lambda: {name: Change() for name in ("p50", "p99", "max")}
    )

    def add(self, before: Summary, after: Summary) -> None:
        """Count a seed.

        Args:
            before: what came of it without what was asked for.
            after: and with it.
        """
        _add(self.runs, before.runs, after.runs)
        for job_id in {**before.runs_of, **after.runs_of}:
            changes = self.jobs.setdefault(job_id, _by_result())
            _add(changes, before.runs_of.get(job_id, {}), after.runs_of.get(job_id, {}))
        _add(self.totals, _totals(before), _totals(after))
        for name, change in self.lateness_ms.items():
            change.before = max(change.before, before.lateness_ms[name])
            change.after = max(change.after, after.lateness_ms[name])

    def changed(self) -> dict[str, dict[str, Change]]:
        """Return the jobs of which something differs, those that lose most runs first."""
        jobs = {
            job_id: each for job_id, each in self.jobs.items() if any(change.more for change in each.values())
        }
        return dict(sorted(jobs.items(), key=lambda item: (item[1][_COMPLETED].more, item[0])))

    def object(self) -> dict[str, Any]:
        """Return it as plain values; of the jobs, those of which something differs."""
        return {
            "lost": lost(self.runs),
            "runs": _objects(self.runs),
            "jobs": {
                job_id: {"lost": lost(each), "runs": _objects(each)}
                for job_id, each in self.changed().items()
            },
            "totals": _objects(self.totals),
            "lateness_ms": _objects(self.lateness_ms),
        }


def lost(runs: Mapping[str, Change]) -> int:
    """Return how many runs completed before and do not now; negative when there are more."""
    return -runs[_COMPLETED].more


def _add(changes: Mapping[str, Change], before: Mapping[str, int], after: Mapping[str, int]) -> None:
    for name, change in changes.items():
        change.add(before.get(name, 0), after.get(name, 0))


def _objects(changes: Mapping[str, Change]) -> dict[str, Any]:
    return {name: change.object() for name, change in changes.items()}


def _totals(summary: Summary) -> dict[str, int]:
    return {
        "fires": summary.fires,
        "overlapping_fires": summary.marks.get(marks.FIRE_OVERLAPS.name, 0),
        "wakes": summary.wakes,
        "wakes_for_nothing": summary.wakes_for_nothing,
        "agent_up_seconds": summary.agent_up_seconds,
        "nas_calls": sum(summary.nas_calls.values()),
    }
