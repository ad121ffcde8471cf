"""What went on around the jobs of a simulated world, as far as it explains what became of them.

Outages, the ends of processes and what went wrong with single messages are kept, the latest of each: it
takes no more memory for a longer calendar.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from msgspec import Struct

from chronos.jobs.instants import MINUTE_US, Instant
from chronos.values import evolve
from simulator import faults
from simulator.kernel import WORLD, Kernel

# How many of the latest outages of a kind, ends of processes and mishaps of a subject are kept.
KEPT = 64
# For how long a lost or late message, a boot or a clock may be the reason of what comes after it.
FELT_US = 4 * MINUTE_US

# Why a process ended, besides the faults that end one; and what a NAS may do that does not promise enough.
ASLEEP, DEPLOYED, RAISED = "machine.asleep", "machine.deployed", "agent.raised"
ARM_LOST = "nas.arm-lost"
# What comes by request alone.
EXTERNAL_OUTAGE = "external.outage"


class Episode(Struct, frozen=True, kw_only=True):
    """Something that lasted.

    Attributes:
        name: of the fault.
        from_us: since when.
        until_us: until when.
    """

    name: str
    from_us: Instant
    until_us: Instant


class End(Struct, frozen=True, kw_only=True):
    """The end of a process.

    Attributes:
        owner: the name of the process.
        at_us: when it ended.
        why: the fault that ended it, or `ASLEEP`, `DEPLOYED` or `RAISED`.
    """

    owner: str
    at_us: Instant
    why: str


class Surroundings:
    """Keeps what explains something.

    Args:
        kernel: tells the time.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._episodes: dict[str, deque[Episode]] = {}
        self._ends: deque[End] = deque(maxlen=KEPT)
        self._mishaps: dict[int, deque[tuple[Instant, str]]] = {}

    # --- what happens ---

    def begins(self, name: str, until_us: Instant) -> None:
        """An outage begins, which is to last until then."""
        now_us = self._kernel.now_us
        kept = self._episodes.setdefault(name, deque(maxlen=KEPT))
        if kept and now_us < kept[-1].until_us:
            latest = kept.pop()
            kept.append(evolve(latest, until_us=max(latest.until_us, until_us)))
        else:
            kept.append(Episode(name=name, from_us=now_us, until_us=until_us))

    def ends(self, name: str) -> None:
        """An outage is over."""
        kept = self._episodes.get(name)
        if kept and self._kernel.now_us < kept[-1].until_us:
            kept.append(evolve(kept.pop(), until_us=self._kernel.now_us))

    def died(self, owner: str, why: str) -> None:
        """A process has ended."""
        self._ends.append(End(owner=owner, at_us=self._kernel.now_us, why=why))

    def mishap(self, name: str, subject: int = WORLD) -> None:
        """Something went wrong once, with a subject or at large."""
        kept = self._mishaps.get(subject)
        if kept is None:
            kept = self._mishaps[subject] = deque(maxlen=KEPT)
        kept.append((self._kernel.now_us, name))

    # --- what explains something ---

    def episode(self, name: str, at_us: Instant, within_us: int = 0) -> Episode | None:
        """Return the latest outage of that name by *at_us*, if it was not over *within_us* before."""
        for each in reversed(self._episodes.get(name, ())):
            if each.from_us <= at_us:
                return each if at_us - within_us <= each.until_us else None
        return None

    def end_of(self, owner: str, by_us: Instant) -> End | None:
        """Return the end of a process, had it ended by then; None when it is not known, either."""
        return next((end for end in self._until(by_us) if end.owner == owner), None)

    def end_at(self, at_us: Instant) -> End | None:
        """Return the latest end of a process by *at_us*, within what is felt of it."""
        end = next(self._until(at_us), None)
        return end if end is not None and at_us - end.at_us <= FELT_US else None

    def _until(self, by_us: Instant) -> Iterator[End]:
        return (end for end in reversed(self._ends) if end.at_us <= by_us)

    def mishap_of(self, subject: int, at_us: Instant, *names: str, felt_us: int = FELT_US) -> str | None:
        """Return what went wrong last with *subject* by *at_us*, of these names, if it is felt still."""
        for when_us, name in reversed(self._mishaps.get(subject, ())):
            if when_us <= at_us and name in names:
                return name if at_us - when_us <= felt_us else None
        return None


MESSAGES = (faults.REQUEST.name, faults.REPLY.name, faults.NAS_BUSY.name, faults.WIRE_ANSWER.name)
"""What may have kept NAS's answer from the agent."""
