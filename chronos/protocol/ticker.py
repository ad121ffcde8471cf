"""The in-process ticker: what NAS does, done by a process that stays awake.

An agent without NAS, or one whose identity NAS refuses, still has a trigger: its arms are kept in
memory here, and fired by the process itself. What is fired takes the same way as a fire from NAS, so
that claims, policies and history are the same. What other processes change in the store is noticed
by looking at it again every `LOOK_EVERY_US`. When the clock is set, it does as Debian's cron(8): see
`chronos.protocol.clocks.Change`.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from chronos.jobs.instants import MINUTE_US, SECOND_US, Instant
from chronos.protocol.flow_effects import (
    ArmAccepted,
    ArmsListed,
    CancelArm,
    Effect,
    Event,
    ListArms,
    ProvisionArm,
)
from chronos.protocol.maps import Map
from chronos.values import evolve

# The built-in ticker of agents looks at its jobs once a minute.
LOOK_EVERY_US = MINUTE_US

# How soon a fire that was not settled is repeated.
REPEAT_AFTER_US = 5 * SECOND_US


class Ticker(Struct, frozen=True, kw_only=True, cache_hash=True):
    """The arms of one process.

    Attributes:
        is_ticking: whether it is what fires the jobs.
        is_running: whether it fires what is due.
        arms: the instant for which each job is armed.
        not_before_us: until when a fire is not repeated, by job, steady clock.
        looked_us: when the store was last looked at, steady clock; None for not yet.
        base_us: by how much the clock was ahead of the steady one when these were last compared.
        next_us: when there is something to do, steady clock; None for never.
    """

    is_ticking: bool
    is_running: bool = False
    arms: Map[str, Instant] = msgspec.field(default_factory=Map)
    not_before_us: Map[str, int] = msgspec.field(default_factory=Map)
    looked_us: int | None = None
    base_us: int | None = None
    next_us: int | None = None

    def perform(self, effect: Effect | None, steady_us: int) -> tuple[Ticker, Event]:
        """Do what NAS would do for *effect*, at once and without fail."""
        match effect:
            case ProvisionArm(job_id=job_id, fire_at_us=at_us) if self.arms.get(job_id) != at_us:
                armed = evolve(
                    self,
                    arms=self.arms.plus(job_id, at_us),
                    not_before_us=self.not_before_us.minus(job_id),
                    next_us=steady_us if self.is_running else None,
                )
                return armed, ArmAccepted(echoed=True)
            case CancelArm(job_id=job_id):
                left, not_before_us = self.arms.minus(job_id), self.not_before_us.minus(job_id)
                disarmed = evolve(self, arms=left, not_before_us=not_before_us)
                return disarmed, ArmAccepted(echoed=True)
            case ListArms():
                return self, ArmsListed(self.arms)
        return self, ArmAccepted(echoed=True)

    def compared(self, now_us: Instant, steady_us: int) -> tuple[Ticker, int]:
        """Return by how much the clock was set since it was last compared, microseconds."""
        base_us = now_us - steady_us
        jump_us = 0 if self.base_us is None else base_us - self.base_us
        return evolve(self, base_us=base_us), jump_us

    def must_look(self, steady_us: int) -> bool:
        """Return whether it is time to look at the store again."""
        return self.looked_us is None or steady_us - self.looked_us >= LOOK_EVERY_US

    def due(self, now_us: Instant, steady_us: int) -> tuple[Ticker, list[tuple[str, Instant]]]:
        """Return what is to be fired now; it is due again after a while, unless its arm changes."""
        due = [
            (job_id, at_us)
            for job_id, at_us in self.arms.items()
            if at_us <= now_us and self.not_before_us.get(job_id, steady_us) <= steady_us
        ]
        if not due:
            return self, due
        not_before_us = Map(self.not_before_us)
        not_before_us.update((job_id, steady_us + REPEAT_AFTER_US) for job_id, _ in due)
        return evolve(self, not_before_us=not_before_us), due

    def put_off(self, job_id: str, until_us: int) -> Ticker:
        """Fire what was not settled not before *until_us*, unless its arm changes."""
        if self.not_before_us.get(job_id, until_us) >= until_us:
            return self
        return evolve(self, not_before_us=self.not_before_us.plus(job_id, until_us))

    def pause_us(self, now_us: Instant) -> int:
        """Return how long there is nothing to do, unless an arm changes, microseconds."""
        waits_us = [at_us - now_us for at_us in self.arms.values()]
        soonest_us = min((wait_us for wait_us in waits_us if wait_us > 0), default=None)
        longest_us = REPEAT_AFTER_US if any(wait_us <= 0 for wait_us in waits_us) else LOOK_EVERY_US
        return longest_us if soonest_us is None else min(soonest_us, longest_us)
