"""The durable job store of a simulated agent, shared by its machines; one compare-and-set."""

from __future__ import annotations

from collections import deque

from chronos.jobs.job import Job, Outcome
from chronos.protocol.flow_effects import SwapJob
from chronos.stores import HISTORY_LENGTH
from simulator.comparison import Comparison
from simulator.watch import Watch


class Store:
    """The jobs of one world, and the outcomes that are kept of each."""

    def __init__(self, watch: Watch, jobs: tuple[Job, ...], comparison: Comparison) -> None:
        self.watch, self.comparison = watch, comparison
        self.subjects = {job.id: subject for subject, job in enumerate(jobs)}
        self.jobs = watch.store
        self._histories: dict[int, deque[Outcome]] = {}

    def history(self, subject: int) -> tuple[Outcome, ...]:
        """Return the newest outcomes of a job, the oldest first."""
        return tuple(self._histories.get(subject, ()))

    def swap(self, subject: int, effect: SwapJob) -> bool:
        """Make the move if the job still is the expected one."""
        stored = self.jobs[subject]
        if stored is not effect.expected and stored != effect.expected:
            return False
        self.comparison.moves(subject)
        self.watch.swapped(subject, effect.expected, effect.replacement, effect.outcomes)
        if effect.outcomes:
            self._histories.setdefault(subject, deque(maxlen=HISTORY_LENGTH)).extend(effect.outcomes)
        return True
