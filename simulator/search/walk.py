"""One history of a small world, event by event."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from simulator.search.moves import Move
from simulator.search.space import Space
from simulator.search.state import State
from simulator.search.verdict import Violated


class Step(Struct, frozen=True, kw_only=True):
    """An event of a history.

    Attributes:
        label: what happens, in words.
        state: the state afterwards; None when a property is violated before there is one.
        violated: the property that does not hold from then on, with the reason; None when all hold.
    """

    label: str
    state: State | None
    violated: Violated | None = None


def step(space: Space, move: Move) -> Step:
    """Let *move* happen, and decide the properties, as the search does."""
    label, _, happen = move
    state = None
    try:
        state = space.reduced(happen())
        space.decide(state)
    except Violated as violated:
        return Step(label=label, state=state, violated=violated)
    return Step(label=label, state=state)


def walk(space: Space, state: State, choices: Iterable[int]) -> Iterator[Step]:
    """Yield the steps of a history, up to the first after which a property does not hold.

    Args:
        space: what can happen.
        state: where the history begins.
        choices: which of all that can happen next does, each as a number from 1.

    Raises:
        IndexError: in some state there are not so many.
    """
    for choice in choices:
        moves = tuple(space.successors(state))
        if not 0 < choice <= len(moves):
            raise IndexError(choice)
        taken = step(space, moves[choice - 1])
        yield taken
        if taken.violated is not None or taken.state is None:
            return
        state = taken.state
