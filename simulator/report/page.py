"""A simulation as one page: an overview of all jobs, and what happened in space and time.

The page needs nothing but itself. It draws what is in view alone, and says where to look first. The
counterexamples of the search are shown by the same page, which has steps then and no times.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

from chronos.cli.console import BadUsage
from chronos.jobs.instants import Instant, format_instant
from simulator.report.terminal import about, title
from simulator.report.words import counted
from simulator.scenario import Plan
from simulator.summary import Summary
from simulator.trace import Lane, Line

# A page of so many takes a browser some seconds to open, and 30 MB.
MOST_LINES = 500_000

_PLACE = "/*DATA*/"


class Drawing:
    """Gathers lines as the page draws them.

    Args:
        start_us: when they begin.
        job_ids: the ids of the jobs.
        processes: how many processes have a lane of their own; 0 when they share one.
    """

    def __init__(self, start_us: Instant, job_ids: Sequence[str], *, processes: int = 0) -> None:
        self._start_us = self._last_us = start_us
        self._jobs = {job_id: number for number, job_id in enumerate(job_ids)}
        names: dict[tuple[Lane, int | None], str] = {}
        for lane in Lane:
            if lane is Lane.AGENT and processes:
                names |= {(lane, number): f"process {number}" for number in range(processes)}
            else:
                names[lane, None] = lane.value
        self._names = tuple(names.values())
        self._lanes = {key: number for number, key in enumerate(names)}
        self._kinds: dict[str, int] = {}
        self._texts: dict[str, int] = {}
        self._numbers: list[int] = []
        self._counts: dict[int, int] = {}
        self._values: dict[int, int] = {}

    def take(self, line: Line) -> None:
        """Add a line.

        Raises:
            BadUsage: there are more than a page can show.
        """
        if line.number > MOST_LINES:
            raise BadUsage(f"--html: more than {MOST_LINES:,} things happen; expected fewer --days, or jobs")
        text, since_us = line.text, 0
        if abs(line.value) > _LEAST_INSTANT_US:
            text, since_us = text.replace(format_instant(line.value), "{}"), line.value - self._start_us
        elif line.value:
            self._values[line.number - 1] = line.value
        if line.count > 1:
            self._counts[line.number - 1] = line.count
        self._last_us = max(self._last_us, line.at_us)
        self._numbers += (
            line.because,
            line.at_us - self._start_us,
            self._kinds.setdefault(line.kind, len(self._kinds)),
            -1 if line.job_id is None else self._jobs[line.job_id],
            self._lane(line.lane, line.process),
            self._texts.setdefault(text, len(self._texts)),
            -1 if line.to is None else self._lane(line.to, line.process),
            -1 if line.arrives_us is None else line.arrives_us - self._start_us,
            since_us,
        )

    def _lane(self, lane: Lane, process: int | None) -> int:
        shared = self._lanes.get((lane, None))
        return self._lanes[lane, process or 0] if shared is None else shared

    def data(self) -> dict[str, Any]:
        """Return what the page draws."""
        return {
            "start_ms": self._start_us / 1000,
            "duration": self._last_us - self._start_us,
            "jobs": list(self._jobs),
            "lanes": self._names,
            "kinds": list(self._kinds),
            "texts": list(self._texts),
            "counts": self._counts,
            "values": self._values,
            "lines": self._numbers,
        }


class Page:
    """Gathers the lines of a simulation.

    Args:
        plan: what is simulated.
        seed: with which seed.
    """

    def __init__(self, plan: Plan, seed: int) -> None:
        self._plan, self._seed = plan, seed
        self._drawing = Drawing(plan.fleet.start_us, plan.fleet.job_ids)
        self.take = self._drawing.take

    def write(self, write: Callable[[str], None], summary: Summary, begins_us: Instant | None = None) -> None:
        """Write the page by *write*, which takes pieces of text; it opens where *begins_us* is, and after."""
        data = self._data(summary)
        if begins_us is not None:
            until_us = data["duration"]
            from_us = max(begins_us - self._plan.fleet.start_us, 0)
            margin_us = max((until_us - from_us) // 12, 1_000_000)
            data["duration"] += margin_us
            data["view"] = [from_us - margin_us, until_us + margin_us]
        write_page(write, data)

    def _data(self, summary: Summary) -> dict[str, Any]:
        plan, lateness = self._plan, summary.lateness_ms
        always_on = max(summary.simulated_seconds * plan.machines, 1)
        return {
            "title": title(plan, self._seed),
            "about": tuple(about(plan, self._seed)),
            "machine": (
                f"{counted(summary.wakes, 'wake')} ({summary.wakes_for_nothing:,} ran nothing), up "
                f"{summary.agent_up_seconds / always_on:.1%} of the time"
            ),
            "verdict": summary.verdict,
            "lateness": [*lateness["by_hop"].items(), ("total", lateness)],
            **self._drawing.data(),
        }


def write_page(write: Callable[[str], None], data: dict[str, Any]) -> None:
    """Write a page of *data* by *write*, which takes pieces of text."""
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    template = files("simulator.report").joinpath("page.html").read_text("utf-8")
    before, _, after = template.partition(_PLACE)
    for piece in (before, text, after):
        write(piece)


# A value beyond that is an instant, microseconds; the others are numbers of machines, and statuses.
_LEAST_INSTANT_US: Instant = 1_000_000_000_000
