"""The steps through a small world: where one is, what can happen next, and what one chooses."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

from chronos.cli.console import OK, VIOLATED, BadUsage, tell
from simulator.properties import CONVERGES
from simulator.report.states import state_lines
from simulator.report.words import counted
from simulator.search.explore import search, way_to_rest
from simulator.search.moves import Move
from simulator.search.space import Space
from simulator.search.state import State
from simulator.search.teller import short
from simulator.search.walk import Step, step, walk

# How many states are looked at for a way to a violation, or to rest: some ten seconds.
MOST_STATES = 20_000

_HELP = (
    "help       a number: let that happen",
    "           b: go back a step",
    "           v: the shortest way from here to a violation",
    "           s: the shortest way from here to where all has settled, without a further fault",
    "           w: the way to here, and the command that leads here",
    "           q: quit, as the end of the input does",
)


class Explorer:
    """Somebody's way through a small world.

    Args:
        space: what can happen.
        limit: how many states are looked at for a way to a violation, or to rest.
        command: returns the command that leads to where these choices lead.
    """

    def __init__(self, space: Space, limit: int, command: Callable[[Sequence[int]], str]) -> None:
        self._space, self._limit, self._command = space, limit, command
        self._steps = [Step(label="the start", state=space.initial())]
        self._choices: list[int] = []
        self._moves: tuple[Move, ...] = ()

    def follow(self, choices: Sequence[int]) -> None:
        """Let so much happen at first.

        Raises:
            BadUsage: one of them is none of what can happen there.
        """
        taken = 0
        try:
            for each in walk(self._space, self._state(), choices):
                self._steps.append(each)
                taken += 1
        except IndexError:
            before = self._steps[-1].state
            assert before is not None
            most = len(tuple(self._space.successors(before)))
            wrong = choices[taken]
            raise BadUsage(
                f"--follow: step {taken + 1} is {wrong}; expected 1 to {most}, of what can happen there"
            ) from None
        if taken < len(choices):
            raise BadUsage(
                f"--follow: a property is violated after {counted(taken, 'step')}, and none follows"
            )
        self._choices += choices

    def run(self) -> int:
        """Show where one is and read choices until the input ends; return the exit status."""
        tell(self.lines())
        for line in _read():
            if line in ("q", "quit"):
                break
            tell(self._answer(line))
        return OK if self._steps[-1].violated is None else VIOLATED

    def _answer(self, line: str) -> Iterable[str]:
        """Do what is asked for, and return the lines that tell what came of it."""
        match line:
            case "":
                return self.lines()
            case "?" | "h" | "help":
                return _HELP
            case "b" | "back":
                return self._back()
            case "v":
                return self._violation()
            case "s":
                return self._rest()
            case "w":
                return self._way()
        number = int(line) if line.isascii() and line.isdigit() and len(line) < 6 else 0
        if not 0 < number <= len(self._moves):
            return (f"expected   {self._offer()}; not {line!r}",)
        self._steps.append(step(self._space, self._moves[number - 1]))
        self._choices.append(number)
        return self.lines()

    def _state(self) -> State:
        state = self._steps[-1].state
        assert state is not None
        return state

    # --- where one is ---

    def lines(self) -> Iterator[str]:
        """Yield the lines that tell where one is, and what can happen next."""
        here = self._steps[-1]
        at = f"step {len(self._choices)}"
        yield ""
        yield f"{at:11}{here.label}"
        if here.state is not None:
            yield from state_lines(self._space, here.state)
        self._moves = ()
        if here.violated is not None:
            yield f"violated   {here.violated.property.id}: {short(here.violated.reason)}"
        elif here.state is not None:
            if self._space.has_converged(here.state):
                yield "settled    everything has come to its end; store and NAS agree"
            self._moves = tuple(self._space.successors(here.state))
            head = "next       " if self._moves else "next       nothing can happen any more"
            for number, (label, is_fault, _) in enumerate(self._moves, start=1):
                yield f"{head}{number:>3}. {label}{' (a fault)' if is_fault else ''}"
                head = " " * 11
            if not self._moves:
                yield head
        yield f"choose     {self._offer()}"

    def _offer(self) -> str:
        count = len(self._moves)
        numbers = () if not count else ("1",) if count == 1 else (f"1 to {count}",)
        back = ("b to go back",) if self._choices else ()
        ways = ("v or s for a way",) if count else ()
        return ", ".join((*numbers, *back, *ways, "? for help, q to quit"))

    def _back(self) -> Iterable[str]:
        if not self._choices:
            return ("expected   another choice: this is the start",)
        self._steps.pop()
        self._choices.pop()
        return self.lines()

    # --- ways ---

    def _way(self) -> Iterator[str]:
        for number, (each, choice) in enumerate(zip(self._steps[1:], self._choices, strict=True), start=1):
            yield f"{'the way' if number == 1 else '':11}{number:>3}. {each.label} ({choice})"
        yield f"again      {self._command(self._choices)}"

    def _violation(self) -> Iterator[str]:
        if self._steps[-1].violated is not None:
            yield "violated   it is violated here"
            return
        result = search(self._space, start=self._state(), limit=self._limit, more=0)
        if result.counterexamples:
            found = min(result.counterexamples, key=lambda each: len(each.choices))
            yield f"violation  {found.property}: {short(found.reason)}"
            yield from self._told(found.choices)
        elif result.is_complete:
            yield f"violation  none, in any of the {counted(result.states, 'state')} that follow"
        else:
            yield f"violation  none within {counted(result.states, 'state')}; --limit N looks at more"

    def _rest(self) -> Iterator[str]:
        if self._steps[-1].violated is not None:
            yield "settled    a property is violated here: go back first"
            return
        choices, is_certain = way_to_rest(self._space, self._state(), limit=self._limit)
        if is_certain:
            yield f"settled    there is no way: the world cannot settle from here ({CONVERGES.id})"
        elif choices is None:
            yield f"settled    no way within {counted(self._limit, 'state')}; --limit N looks at more"
        elif not choices:
            yield "settled    everything has come to its end here"
        else:
            yield f"settled    after {counted(len(choices), 'step')}:"
            yield from self._told(choices)

    def _told(self, choices: Sequence[int]) -> Iterator[str]:
        """Yield what one would choose, one after the other."""
        steps = walk(self._space, self._state(), choices)
        for choice, each in zip(choices, steps, strict=True):
            yield f"           {choice:>3}. {each.label}"


def _read() -> Iterator[str]:
    """Yield the lines of the standard input, whatever it is."""
    if sys.stdin is None:
        return
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    while line := sys.stdin.readline():
        yield line.strip()
