"""The in-process ticker: what NAS does, done by a process that stays awake.

An agent without NAS, or one whose identity NAS refuses, still has a trigger: its arms are kept in
memory here, and fired by the process itself. What is fired takes the same way as a fire from NAS, so
that claims, policies and history are the same. What other processes change in the store is noticed
by looking at it again every `LOOK_EVERY_S`. When the clock is set, it does as Debian's cron(8): see
`chronos.protocol.clocks.Change`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chronos.jobs.schedule import SECOND_US, Instant
from chronos.protocol import flow as flows

if TYPE_CHECKING:
    from chronos.agent.operations import Signal

# The built-in ticker of agents looks at its jobs once a minute.
LOOK_EVERY_S = 60.0

# How soon a fire that was not settled is repeated.
REPEAT_AFTER_S = 5.0


class Ticker:
    """The arms of one process.

    Args:
        nudge: set whenever an arm changes, for whoever waits for the next one.
        is_ticking: whether it is what fires the jobs.

    Attributes:
        is_running: whether somebody is firing what is due.
    """

    def __init__(self, nudge: Signal, *, is_ticking: bool) -> None:
        self.nudge = nudge
        self.is_ticking = is_ticking
        self.is_running = False
        self._arms: dict[str, Instant] = {}
        self._not_before_s: dict[str, float] = {}
        self._looked_s: float | None = None
        self._base_us: int | None = None

    def jump_us(self, now_us: Instant, steady_us: int) -> int:
        """Return by how much the clock was set since this was last asked; *steady_us* is one nobody sets."""
        base_us, self._base_us = self._base_us, now_us - steady_us
        return 0 if base_us is None else self._base_us - base_us

    def stop(self) -> None:
        """Leave the firing to NAS."""
        self.is_ticking = False
        self._arms.clear()
        self._not_before_s.clear()
        self._looked_s = self._base_us = None
        self.nudge.set()

    def perform(self, effect: flows.Effect) -> flows.Event:
        """Do what NAS would do for *effect*, at once and without fail."""
        match effect:
            case flows.ProvisionArm(job_id=job_id, fire_at_us=fire_at_us):
                if self._arms.get(job_id) != fire_at_us:
                    self._arms[job_id] = fire_at_us
                    self._not_before_s.pop(job_id, None)
                    self.nudge.set()
            case flows.CancelArm(job_id=job_id):
                self._arms.pop(job_id, None)
                self._not_before_s.pop(job_id, None)
            case flows.ListArms():
                return flows.ArmsListed(dict(self._arms))
        return flows.ArmAccepted(echoed=True)

    def must_look(self, now_s: float) -> bool:
        """Return whether it is time to look at the store again, and count from now on."""
        if self._looked_s is not None and now_s - self._looked_s < LOOK_EVERY_S:
            return False
        self.looked(now_s)
        return True

    def look_now(self) -> None:
        """Let it be time to look at the store again."""
        self._looked_s = None

    def looked(self, now_s: float) -> None:
        """Count from now on until the next look at the store."""
        self._looked_s = now_s

    def due(self, now_us: Instant, now_s: float) -> list[tuple[str, Instant]]:
        """Return what is to be fired now; it is due again after a while, unless its arm changes."""
        due = [
            (job_id, at_us)
            for job_id, at_us in self._arms.items()
            if at_us <= now_us and self._not_before_s.get(job_id, now_s) <= now_s
        ]
        for job_id, _ in due:
            self._not_before_s[job_id] = now_s + REPEAT_AFTER_S
        return due

    def put_off(self, job_id: str, until_s: float) -> None:
        """Fire what was not settled not before *until_s*, unless its arm changes."""
        if job_id in self._not_before_s:
            self._not_before_s[job_id] = max(self._not_before_s[job_id], until_s)

    def pause_us(self, now_us: Instant) -> int:
        """Return how long there is nothing to do, unless an arm changes, microseconds."""
        waits_us = [at_us - now_us for at_us in self._arms.values()]
        soonest_us = min((wait_us for wait_us in waits_us if wait_us > 0), default=None)
        longest_s = REPEAT_AFTER_S if any(wait_us <= 0 for wait_us in waits_us) else LOOK_EVERY_S
        longest_us = int(longest_s * SECOND_US)
        return longest_us if soonest_us is None else min(soonest_us, longest_us)
