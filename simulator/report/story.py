"""One job's story: what became of it, why, and what happened around an instant."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from chronos.jobs.instants import MINUTE_US, Instant, format_instant
from chronos.jobs.job import Result
from simulator.report.accounts import job_lines, loss_lines
from simulator.summary import Summary
from simulator.trace import MESSAGE, OF_ALL, VIOLATION, Line

# So many lines are told before the instant, and so many from there on.
BEFORE, AFTER = 22, 14
# What happens to no job in particular is told where it is as near as that to something that does.
_NEAR_US = MINUTE_US

_LOSSES = {result.value for result in Result} - {Result.COMPLETED.value} | {VIOLATION}
_BANDS = {kind.name.lower() for kind in OF_ALL}
_NOISE = {MESSAGE, "listed", "list_failed"}


class Story:
    """Keeps the lines of one job around an instant.

    Args:
        job_id: of which job.
        around_us: the instant; the first loss of the job when None, or its beginning where there is none.
    """

    def __init__(self, job_id: str, around_us: Instant | None) -> None:
        self._job_id, self._around_us = job_id, around_us
        self._before: deque[Line] = deque(maxlen=BEFORE)
        self._first: list[Line] = []
        self._after: list[Line] = []
        self._apart: deque[Line] = deque(maxlen=4)
        self._latest_us: Instant | None = None

    def take(self, line: Line) -> None:
        """See a line: of the job, or of no job."""
        if line.job_id is None and line.kind not in _BANDS:
            if line.kind in _NOISE:
                return
            if self._latest_us is None or line.at_us - self._latest_us > _NEAR_US:
                self._apart.append(line)
                return
        elif line.job_id is not None:
            self._latest_us = line.at_us
            for each in self._apart:
                if line.at_us - each.at_us <= _NEAR_US:
                    self._keep(each)
            self._apart.clear()
        self._keep(line)

    def _keep(self, line: Line) -> None:
        if len(self._first) < BEFORE + AFTER:
            self._first.append(line)
        if self._after:
            if len(self._after) < AFTER:
                self._after.append(line)
        elif self._is_there(line):
            self._after.append(line)
        else:
            self._before.append(line)

    def _is_there(self, line: Line) -> bool:
        if self._around_us is not None:
            return line.at_us >= self._around_us
        return line.kind in _LOSSES and line.job_id is not None

    def lines(self, summary: Summary) -> Iterator[str]:
        """Yield the lines that tell the story.

        Args:
            summary: what came of the simulation, as of the whole fleet.
        """
        yield from job_lines(summary.accounts, self._job_id)
        yield from loss_lines([each for each in summary.losses if each.job_id == self._job_id])
        if self._around_us is not None:
            told, where = [*self._before, *self._after], f"around {format_instant(self._around_us)}"
        elif self._after:
            what = "violation" if self._after[0].kind == VIOLATION else "loss"
            told, where = [*self._before, *self._after], f"around its first {what}"
        else:
            told, where = self._first, "from its beginning; nothing of it was lost"
        yield f"story      job {self._job_id}, {where}"
        for line in told:
            mark = "*" if self._after and line is self._after[0] else " "
            to = "" if line.to is None else f" -> {line.to}"
            text = line.text.replace(f"{self._job_id} of ", "the occurrence of ")
            yield f"         {mark} {format_instant(line.at_us).removesuffix('+00:00')[:23]:23}  {text}{to}"
