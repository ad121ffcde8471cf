"""The exhaustive search: every order of events for one job, two occurrences and two processes.

Every event that can happen next is tried, breadth first, with a budget of one crash, one duplicate
and one loss that may strike anywhere: before any effect, at any message.

Two things are decided: that no reachable state violates a property, and that from every one of them
the world, left alone, can still settle with store and NAS in agreement.
"""

from __future__ import annotations

import gc
import sys
import time
from collections import deque
from collections.abc import Callable

from msgspec import Struct

from simulator import properties
from simulator.search.space import Space
from simulator.search.state import State
from simulator.search.verdict import Violated
from simulator.search.walk import step, walk

# Once a property is violated, so many states more are searched for others that are.
MORE_STATES = 60_000


class Counterexample(Struct, frozen=True, kw_only=True):
    """The shortest history after which a property does not hold.

    Attributes:
        property: which.
        reason: why it does not hold.
        history: the events, in words.
        choices: the same as numbers, from 1: which of all that could happen next did.
    """

    property: str
    reason: str
    history: tuple[str, ...]
    choices: tuple[int, ...]


class Result(Struct, frozen=True, kw_only=True):
    """What a search found.

    Attributes:
        case: which bounded world.
        states: how many distinct states were reached.
        depth: how many events the longest of the shortest histories has.
        seconds: how long it took.
        counterexamples: for each property that does not hold, its shortest history.
        is_complete: whether every reachable state was looked at.
    """

    case: str
    states: int
    depth: int
    seconds: float
    counterexamples: tuple[Counterexample, ...]
    is_complete: bool


def search(
    space: Space, *, start: State | None = None, limit: int | None = None, more: int = MORE_STATES
) -> Result:
    """Search every state of *space*, breadth first.

    Args:
        space: what can happen.
        start: where to begin; None for the initial state.
        limit: give up after so many states; None means never.
        more: how many states more are searched once a property is violated.
    """
    # Millions of values that live to the end, and no cycles: looking for those takes half of the time.
    gc.disable()
    try:
        begin = space.initial() if start is None else start
        return _Search(space, begin, sys.maxsize if limit is None else limit, more).run()
    finally:
        gc.enable()


class _Search:
    """A search in progress.

    Attributes:
        numbers: the states reached, numbered in the order in which they were.
        came_from: for each, the state that first led to it, and the number of the event among all that could
            happen there.
        depths: for each, how many events that took.
        sources: for each, the states that lead to it without a fault.
        converged: those in which everything has come to its end.
        found: for each property that does not hold, its shortest history.
    """

    def __init__(self, space: Space, start: State, limit: int, more: int) -> None:
        self.space = space
        self.more = more
        self.start = start
        self.last = limit
        self.numbers: dict[State, int] = {start: 0}
        self.came_from: list[tuple[int, int]] = [(0, 0)]
        self.depths = [0]
        self.sources: list[list[int]] = [[]]
        self.converged: list[int] = []
        self.found: dict[str, Counterexample] = {}
        self.queue = deque([start])

    def run(self) -> Result:
        """Search until every state was looked at, or the limit is reached."""
        began = time.monotonic()
        while self.queue and len(self.numbers) < self.last:
            state = self.queue.popleft()
            number = self.numbers[state]
            if self.space.has_converged(state):
                self.converged.append(number)
            for choice, (_, is_fault, happen) in enumerate(self.space.successors(state), start=1):
                self._follow(number, choice, is_fault, happen)
        is_complete = not self.queue
        if is_complete and not self.found:
            self._find_unhealable()
        return Result(
            case=self.space.case.name,
            states=len(self.numbers),
            depth=self.depths[-1],
            seconds=time.monotonic() - began,
            counterexamples=tuple(self.found.values()),
            is_complete=is_complete,
        )

    def _follow(self, number: int, choice: int, is_fault: bool, happen: Callable[[], State]) -> None:
        """Look at the state to which an event leads."""
        try:
            successor = self.space.reduced(happen())
            known = self.numbers.get(successor)
            if known is None:
                self.space.decide(successor)
        except Violated as violated:
            self._note(violated.property.id, violated.reason, (*_choices(self.came_from, number), choice))
            return
        if known is None:
            known = self.numbers[successor] = len(self.came_from)
            self.came_from.append((number, choice))
            self.depths.append(self.depths[number] + 1)
            self.sources.append([])
            self.queue.append(successor)
        if not is_fault:
            self.sources[known].append(number)

    def _note(self, name: str, reason: str, choices: tuple[int, ...]) -> None:
        """Keep the first history that violates a property; breadth first, it is a shortest one."""
        if not self.found:
            self.last = min(self.last, len(self.numbers) + self.more)
        if name not in self.found:
            history = tuple(step.label for step in walk(self.space, self.start, choices))
            self.found[name] = Counterexample(property=name, reason=reason, history=history, choices=choices)

    def _find_unhealable(self) -> None:
        stuck = _first_unhealable(self.sources, self.converged)
        if stuck is not None:
            reason = "left alone, the world cannot settle from here with store and NAS in agreement"
            self._note(properties.CONVERGES.id, reason, _choices(self.came_from, stuck))


def way_to_rest(space: Space, start: State, *, limit: int) -> tuple[tuple[int, ...] | None, bool]:
    """Return the shortest history without faults after which everything has come to its end.

    Args:
        space: what can happen.
        start: where it begins.
        limit: give up after so many states.

    Returns:
        The events, as the choices of a `Counterexample`, None when none was found; and whether none would be
        with any limit.
    """
    numbers, came_from, queue = {start: 0}, [(0, 0)], deque([start])
    while queue and len(numbers) < limit:
        state = queue.popleft()
        number = numbers[state]
        if space.has_converged(state):
            return _choices(came_from, number), False
        for choice, move in enumerate(space.successors(state), start=1):
            after = None if move[1] else step(space, move)
            if after is None or after.state is None or after.violated is not None or after.state in numbers:
                continue
            numbers[after.state] = len(came_from)
            came_from.append((number, choice))
            queue.append(after.state)
    return None, not queue


def _choices(came_from: list[tuple[int, int]], number: int) -> tuple[int, ...]:
    choices = []
    while number:
        number, choice = came_from[number]
        choices.append(choice)
    return tuple(reversed(choices))


def _first_unhealable(sources: list[list[int]], converged: list[int]) -> int | None:
    """Return the first state from which no history without faults leads to a converged one."""
    can_heal = [False] * len(sources)
    for number in converged:
        can_heal[number] = True
    stack = list(converged)
    while stack:
        for source in sources[stack.pop()]:
            if not can_heal[source]:
                can_heal[source] = True
                stack.append(source)
    return next((number for number, heals in enumerate(can_heal) if not heals), None)
