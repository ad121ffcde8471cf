"""Integer time, an event queue, one source of choice, and a history with a digest."""

from __future__ import annotations

import hashlib
import heapq
import random
from array import array
from bisect import bisect
from collections.abc import Callable, Hashable, Sequence
from itertools import chain
from typing import Any, Protocol, TypeVar

from simulator import faults
from simulator.faults import Fault, Pick, Variation, Weights
from simulator.script import Stroke

T = TypeVar("T", bound=Hashable)
Item = TypeVar("Item")

# How many of the latest entries of each job a report can show, and how many are kept to explain something.
RECENT = 14
KEPT = 200

# How many entries of a subject's history are gathered before they are hashed; a matter of speed alone.
_CHUNK = 1_000

# The subject of a decision that is about none of them.
WORLD = -1


class Choices(Protocol):
    """Supplies every decision that the simulated world leaves open."""

    def choose(self, label: str, options: int, subject: int) -> int:
        """Return a number below *options* for what *label* names, about *subject*; zero is the plain one."""


class RandomChoices:
    """Draws from seeded generators, by a table of probabilities for each decision.

    Each decision about each subject has a generator of its own: what is decided about one job depends
    neither on the others nor on the order in which things happen at one instant.

    Args:
        seed: the same seed gives the same decisions, on every machine.
        weights: of a fault or variation, the relative weight of each option; one without an entry
            is always decided the ordinary way.

    Raises:
        ValueError: a row has not as many weights as there are options.
    """

    def __init__(self, seed: int, weights: Weights) -> None:
        self._seed = seed
        self._draws: dict[tuple[str, int], Callable[[], float]] = {}
        self._tables: dict[str, list[float] | None] = dict.fromkeys(each.name for each in faults.DECISIONS)
        for decision, row in weights.items():
            if len(row) != len(decision.options):
                raise ValueError(f"{decision.name} has {len(decision.options)} options, not {len(row)}")
            if any(row[1:]):
                self._tables[decision.name] = _cumulate(row)

    def choose(self, label: str, options: int, subject: int) -> int:
        """Return a number below *options*, drawn by the table of the decision with the name *label*.

        Raises:
            ValueError: no decision has that name.
        """
        table = self._tables.get(label)
        if table is not None:
            return bisect(table, self._draw(label, subject))
        if label not in self._tables:
            raise ValueError(f"no decision of the simulated world is named {label!r}")
        return int(self._draw(label, subject) * options) if label in _PICKS and options > 1 else 0

    def _draw(self, label: str, subject: int) -> float:
        try:
            draw = self._draws[label, subject]
        except KeyError:
            draw = random.Random(f"{label} of {subject}, seed {self._seed}").random
            self._draws[label, subject] = draw
        return draw()


class RecordedChoices:
    """Repeats a list of decisions, and goes on the ordinary way when it is used up."""

    def __init__(self, recorded: Sequence[int]) -> None:
        self._recorded = iter(recorded)

    def choose(self, label: str, options: int, subject: int) -> int:  # noqa: ARG002 - the seam names them
        """Return the next recorded number, or the largest one below *options*."""
        return min(next(self._recorded, 0), options - 1)


_PICKS = frozenset(each.name for each in faults.PICKS)


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
        self._choose = choices.choose
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self._strokes: dict[tuple[str, int], list[tuple[Stroke, list[int]]]] = {}
        self._hashes = [hashlib.blake2b(digest_size=16) for _ in range(subjects)]
        self._entries: list[list[tuple[int, int, int]]] = [[] for _ in range(subjects)]
        self._hashed: list[list[tuple[int, int, int]]] = [[] for _ in range(subjects)]

    def at(self, when_us: int, handler: Callable[..., None], *arguments: Any) -> None:
        """Let *handler* happen at *when_us*; events of one instant happen in the order of this call."""
        self._order += 1
        heapq.heappush(self._queue, (when_us, self._order, handler, arguments))

    def after(self, delay_us: int, handler: Callable[..., None], *arguments: Any) -> None:
        """Let *handler* happen *delay_us* from now."""
        self._order += 1
        heapq.heappush(self._queue, (self.now_us + delay_us, self._order, handler, arguments))

    def fault(self, fault: Fault[T], subject: int = WORLD) -> T | None:
        """Choose whether something goes wrong, and how; None when it does not, or where faults are off."""
        if self._strokes and (drawn := self._struck(fault.name, subject)):
            return fault.options[drawn]
        if not self.faulty:
            return None
        return fault.options[self._choose(fault.name, len(fault.options), subject)]

    def vary(self, variation: Variation[T], subject: int = WORLD) -> T:
        """Choose one of the options of what varies as a matter of course."""
        return variation.options[self._choose(variation.name, len(variation.options), subject)]

    def pick(self, pick: Pick, among: Sequence[Item], subject: int = WORLD) -> Item:
        """Choose one of what there is in the world."""
        if self._strokes and (drawn := self._struck(pick.name, subject)) is not None:
            return among[drawn]
        return among[self._choose(pick.name, len(among), subject)]

    def expect(self, stroke: Stroke, subject: int) -> None:
        """Let *stroke* strike *subject* when its time has come, whether or not faults are on."""
        self._strokes.setdefault((stroke.fault, subject), []).append((stroke, [stroke.number]))

    def expected(self) -> list[Stroke]:
        """Return what has not struck."""
        return [stroke for strokes in self._strokes.values() for stroke, _ in strokes]

    def _struck(self, name: str, subject: int) -> int | None:
        """Return which option is written down for now; None for none."""
        strokes = self._strokes.get((name, subject), ())
        for stroke, left in strokes:
            if stroke.at_us <= self.now_us:
                left[0] -= 1
                if not left[0]:
                    self._strokes[name, subject].remove((stroke, left))
                    return stroke.drawn
                break
        return None

    def run(self, until_us: int) -> None:
        """Let everything happen that is due by *until_us*; the clock stands there afterwards."""
        queue, pop = self._queue, heapq.heappop
        while queue and queue[0][0] <= until_us:
            when_us, _, handler, arguments = pop(queue)
            self.now_us = when_us
            self.events += 1
            handler(*arguments)
        self.now_us = max(self.now_us, until_us)

    def drain(self, until_us: int) -> None:
        """Let everything happen that is still to come, but nothing later than *until_us*."""
        while self._queue and self._queue[0][0] <= until_us:
            self.run(self._queue[0][0])

    def record(self, kind: int, subject: int, value: int = 0) -> None:
        """Enter into the history that *kind* happened to *subject* just now."""
        entries = self._entries[subject]
        if len(entries) >= _CHUNK and entries[-1][0] < self.now_us:
            self._flush(subject)
        entries.append((self.now_us, kind, value))

    def recent(self, subject: int) -> tuple[tuple[int, int, int], ...]:
        """Return the latest entries about *subject*: instants, kinds and values, oldest first."""
        return tuple(self.latest(subject, RECENT))

    def latest(self, subject: int, count: int) -> list[tuple[int, int, int]]:
        """Return the latest entries about *subject*, oldest first: so many, but `KEPT` at most."""
        latest = self._entries[subject][-count:]
        return latest if len(latest) == count else (self._hashed[subject] + latest)[-count:]

    def digest(self) -> str:
        """Return the hash of the history so far: of each subject's own, one after the other.

        What happens to a subject at one instant happens in no order.
        """
        whole = hashlib.blake2b(digest_size=16)
        for subject, each in enumerate(self._hashes):
            self._flush(subject)
            whole.update(each.digest())
        return whole.hexdigest()

    def _flush(self, subject: int) -> None:
        entries = self._entries[subject]
        self._hashed[subject] = (self._hashed[subject] + entries[-KEPT:])[-KEPT:]
        entries.sort()
        self._hashes[subject].update(array("q", chain.from_iterable(entries)).tobytes())
        entries.clear()
