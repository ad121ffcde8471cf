"""One step of a process in the making: what all parts of it share."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Self

import msgspec
from msgspec import Struct
from msgspec.structs import astuple

from chronos import events
from chronos.jobs.instants import Instant
from chronos.jobs.job import Unreadable
from chronos.protocol import follow_ups
from chronos.protocol.clocks import Belief, Reading, clock_trouble, compared
from chronos.protocol.intents import Intent
from chronos.protocol.maps import Map
from chronos.protocol.process_effects import Effect, Log, Tell
from chronos.protocol.state import (
    Batch,
    Now,
    Owed,
    Pending,
    Process,
    Purpose,
    Retry,
    Rules,
    Running,
    Task,
    belief_of,
    clock_of,
)
from chronos.protocol.ticker import Ticker


class Turn(Struct):
    """One step of a process in the making: its fields, to be changed, and what is to be performed.

    Attributes:
        present: when it happens.
        effects: what is to be performed, in order.
    """

    # Those of `Process`, in its order.
    owner: str
    ticker: Ticker
    has_nas: bool
    rules: Rules
    is_started: bool
    is_draining: bool
    reading: Reading | None
    logins: int
    tasks: Map[int, Task]
    batches: Map[int, Batch]
    runs: Map[Hashable, Running]
    overtime: Map[Hashable, Pending]
    owed: Map[Hashable, Owed]
    lists: Retry | None
    looks: Retry | None
    unsettled: Map[str, str]
    unreadable: tuple[Unreadable, ...]

    present: Now
    effects: list[Effect] = msgspec.field(default_factory=list)
    _own: set[str] = msgspec.field(default_factory=set)
    _advancing: set[int] = msgspec.field(default_factory=set)
    _clock_us: Instant | None = None

    if TYPE_CHECKING:  # `chronos.protocol.tasks` has them

        def begin(self, intent: Intent, purpose: Purpose) -> None:
            """Begin a flow, for a purpose."""

        def reconcile(self, purpose: Purpose) -> None:
            """Make what fires the jobs agree with the store, for a purpose."""

    @classmethod
    def of(cls, process: Process, now: Now) -> Self:
        """Return a turn in which nothing has happened yet."""
        known: list[Any] = [*astuple(process), now]
        return cls(*known)

    def process(self) -> Process:
        """Return the process as it stands now; what happens to the turn later does not change it."""
        self._own.clear()
        return Process(*astuple(self)[:_FIELDS])

    def own(self, name: str) -> Map[Any, Any]:
        """Return a map of the process that this step may change."""
        if name not in self._own:
            self._own.add(name)
            setattr(self, name, Map(getattr(self, name)))
        found: Map[Any, Any] = getattr(self, name)
        return found

    # --- the clock ---

    def clock(self) -> Instant:
        """Return the present instant: NAS's, while this machine's clock is not believed."""
        if self._clock_us is None:
            self._clock_us = clock_of(self.reading, self.present)
        return self._clock_us

    def belief(self) -> Belief:
        """Return whether this machine's clock is believed."""
        return belief_of(self.reading, self.present)

    def hear(self, sent_us: Instant, date_us: Instant | None) -> None:
        """Compare the clock with NAS's, and see to it that one which is wrong is looked at again."""
        heard = compared(sent_us, self.present.wall_us, date_us, self.present.steady_us)
        if heard is None:
            return
        was_doubted, self.reading, self._clock_us = self.belief() is Belief.DOUBTED, heard, None
        if was_doubted and not heard.is_doubted:
            self.log("warning", "this machine's clock agrees with NAS's again, and is believed")
        if heard.is_doubted and not was_doubted:
            self.log("error", clock_trouble(heard))
        if heard.is_doubted and self.looks is None and self.is_started and not self.is_draining:
            self.looks = self.later(0)

    def later(self, tries: int, retry_after_us: int = 0) -> Retry:
        """Return the wait for the next of many tries."""
        return Retry(tries=tries, due_us=self.present.steady_us + max(try_after_us(tries), retry_after_us))

    # --- who looks on ---

    def tell(self, event: events.Event) -> None:
        """Tell whoever looks on."""
        self.effects.append(Tell(event))

    def log(self, level: str, text: str, job_id: str = "") -> None:
        """Write a line for the agent's people."""
        self.effects.append(Log(level, text, job_id))


_FIELDS = len(Process.__struct_fields__)
assert Turn.__struct_fields__[:_FIELDS] == Process.__struct_fields__


def try_after_us(tries: int) -> int:
    """Return how long the next try waits after so many, microseconds."""
    return follow_ups.follow_up_delay_us(tries, follow_ups.FOLLOW_UP_DELAYS_US)
