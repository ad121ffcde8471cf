"""Integer time, an event queue, one source of choice, and a history with a digest."""

from __future__ import annotations

import hashlib
import heapq
import random
from array import array
from bisect import bisect
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

# How many of the latest entries of each job a report can show.
RECENT = 14

# How many integers of history are gathered before they are hashed; a matter of speed alone.
_CHUNK = 12_000


class Choices(Protocol):
    """Supplies every decision that the simulated world leaves open."""

    def choose(self, label: str, options: int) -> int:
        """Return a number below *options*; zero is the ordinary one."""


class RandomChoices:
    """Draws from a seeded generator, by a table of probabilities for each label.

    Args:
        seed: the same seed gives the same decisions, on every machine.
        weights: for a label, the relative weight of each option; a label without an entry is
            always decided the ordinary way.
    """

    def __init__(self, seed: int, weights: Mapping[str, Sequence[float]]) -> None:
        self._draw = random.Random(f"choices of seed {seed}").random
        self._tables = {label: _cumulate(row) for label, row in weights.items() if any(row[1:])}

    def choose(self, label: str, options: int) -> int:
        """Return a number below *options*, drawn by the label's table."""
        table = self._tables.get(label)
        return 0 if table is None else min(bisect(table, self._draw()), options - 1)


class RecordedChoices:
    """Repeats a list of decisions, and goes on the ordinary way when it is used up."""

    def __init__(self, recorded: Sequence[int]) -> None:
        self._recorded = iter(recorded)

    def choose(self, label: str, options: int) -> int:  # noqa: ARG002 - the seam names it
        """Return the next recorded number, or the largest one below *options*."""
        return min(next(self._recorded, 0), options - 1)


def _cumulate(row: Sequence[float]) -> list[float]:
    total, reached, table = sum(row), 0.0, []
    for weight in row[:-1]:
        reached += weight / total
        table.append(reached)
    return table


class Kernel:
    """The clock and the event queue of one simulated world.

    Attributes:
        now_us: true time, epoch microseconds.
        faulty: whether faults may happen now; ordinary variation goes on without them.
        events: how many events have happened.
    """

    def __init__(self, choices: Choices, *, start_us: int, subjects: int) -> None:
        self.now_us = start_us
        self.faulty = False
        self.events = 0
        self.choose = choices.choose
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self._hash = hashlib.blake2b(digest_size=16)
        self._entries: list[int] = []
        self._recent: list[deque[tuple[int, int, int]]] = [deque(maxlen=RECENT) for _ in range(subjects)]

    def at(self, when_us: int, handler: Callable[..., None], *arguments: Any) -> None:
        """Let *handler* happen at *when_us*; events of one instant happen in the order of this call."""
        self._order += 1
        heapq.heappush(self._queue, (when_us, self._order, handler, arguments))

    def after(self, delay_us: int, handler: Callable[..., None], *arguments: Any) -> None:
        """Let *handler* happen *delay_us* from now."""
        self._order += 1
        heapq.heappush(self._queue, (self.now_us + delay_us, self._order, handler, arguments))

    def fault(self, label: str, options: int = 2) -> int:
        """Choose whether and how something goes wrong; zero where faults are off."""
        return self.choose(label, options) if self.faulty else 0

    def run(self, until_us: int) -> None:
        """Let everything happen that is due by *until_us*; the clock stands there afterwards."""
        queue, pop = self._queue, heapq.heappop
        while queue and queue[0][0] <= until_us:
            when_us, _, handler, arguments = pop(queue)
            self.now_us = when_us
            self.events += 1
            handler(*arguments)
        self.now_us = max(self.now_us, until_us)

    def drain(self) -> None:
        """Let everything happen that is still to come."""
        while self._queue:
            self.run(self._queue[0][0])

    def record(self, kind: int, subject: int, value: int = 0) -> None:
        """Enter into the history that *kind* happened to *subject* just now."""
        entries = self._entries
        entries += (self.now_us, kind, subject, value)
        self._recent[subject].append((self.now_us, kind, value))
        if len(entries) >= _CHUNK:
            self._flush()

    def recent(self, subject: int) -> tuple[tuple[int, int, int], ...]:
        """Return the latest entries about *subject*: instants, kinds and values, oldest first."""
        return tuple(self._recent[subject])

    def digest(self) -> str:
        """Return the hash of the whole history so far."""
        self._flush()
        return self._hash.hexdigest()

    def _flush(self) -> None:
        packed = array("q", self._entries)
        self._hash.update(packed.tobytes())
        self._entries.clear()
