"""Many seeds of one plan, or many cases of the exhaustive search, on all cores.

The workers are made here rather than by `concurrent.futures`, whose pool takes all arguments at once,
keeps all results, and leaves its workers behind when its process is killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from chronos.cli import console
from simulator.agents import agent_of
from simulator.promises import promises_of
from simulator.scenario import Plan, simulate
from simulator.search import cases, explore, space
from simulator.search.explore import Result
from simulator.summary import Summary

A = TypeVar("A")
B = TypeVar("B")

# How many items are given out, for each worker, before the earliest of them has come back. A seed may
# take ten times as long as the next ones, and what waits for it is kept.
AHEAD = 16


def sweep(plan: Plan, seeds: range) -> Generator[tuple[int, Summary], None, None]:
    """Yield the summary of every seed, in the order of the seeds; as `spread` does."""
    with closing(spread(partial(simulate, plan), seeds, noun="seed")) as summaries:
        yield from zip(seeds, summaries, strict=True)


def search_case(
    agent: str, promises: str, budget: tuple[int, int, int], limit: int | None, name: str
) -> Result:
    """Search the case called *name*; all that is sent to another process is plain values.

    Args:
        agent: the name of the agent under test.
        promises: the name of the NAS.
        budget: how many crashes, duplicates and losses may strike.
        limit: give up after so many states.
        name: of one of `cases.CASES`.
    """
    return explore.search(small_world(agent, promises, budget, name), limit=limit)


def small_world(agent: str, promises: str, budget: tuple[int, int, int], name: str) -> space.Space:
    """Return what can happen in the case called *name*; the arguments are those of `search_case`."""
    case = next(case for case in cases.CASES if case.name == name)
    crashes, duplicates, losses = budget
    return space.Space(
        case, agent_of(agent), promises_of(promises), crashes=crashes, duplicates=duplicates, losses=losses
    )


def spread(function: Callable[[A], B], items: Sequence[A], *, noun: str) -> Generator[B, None, None]:
    """Yield what *function* returns for each of *items*, in their order, worked out on all cores.

    However many they are, as many are in memory as `AHEAD` says. The rest is as with `finished`.

    Args:
        function: of a module that the workers can import.
        items: in a sequence that is cheap to have, such as a range.
        noun: what one of them is, for messages.

    Raises:
        Failed: the function raised, or a worker died.
        BadUsage: the function raised that.
    """
    due, done = 0, dict[int, B]()
    workers = min(os.cpu_count() or 1, len(items))
    results = finished(
        function, items, workers=workers, noun=noun, is_near=lambda number: number < due + AHEAD * workers
    )
    with closing(results):
        for number, result in results:
            done[number] = result
            while due in done:
                yield done.pop(due)
                due += 1


def finished(
    function: Callable[[A], B],
    items: Iterable[A],
    *,
    workers: int,
    noun: str,
    is_near: Callable[[int], bool] = lambda _number: True,
) -> Generator[tuple[int, B], None, None]:
    """Yield the number of each of *items* and what *function* returns for it, as soon as it is there.

    The workers end with the iterator, with this process, and with a signal that ends it.

    Args:
        function: of a module that the workers can import.
        items: are taken one by one, as workers become free.
        workers: how many processes.
        noun: what an item is, for messages.
        is_near: whether the item of that number may be given out already.

    Raises:
        Failed: the function raised, or a worker died.
    """
    if sys.platform == "win32":  # whose processes inherit no such line
        yield from enumerate(map(function, items))
        return
    pool: list[_Worker] = []
    with console.undone(lambda: _kill(pool)):
        # Deaf, so that no signal finds a worker that is not listed yet. The workers stay so: Ctrl-C
        # reaches them as well, and this process alone answers it.
        with console.deaf():
            pool.extend(_Worker(noun) for _ in range(workers))
        for worker in pool:
            worker.send(function)
        yield from _finished(pool, iter(items), is_near)


def _finished(
    pool: list[_Worker], items: Iterator[Any], is_near: Callable[[int], bool]
) -> Iterator[tuple[int, Any]]:
    idle, busy = deque(pool), dict[Connection, _Worker]()
    given, is_more = 0, True
    while True:
        while idle and is_more and is_near(given):
            for item in islice(items, 1):
                worker = idle.popleft()
                worker.give(given, item)
                busy[worker.line] = worker
                given += 1
                break
            else:
                is_more = False
        if not busy:
            return
        for ready in wait(list(busy)):
            assert isinstance(ready, Connection)
            worker = busy.pop(ready)
            result = worker.result()
            idle.append(worker)
            yield worker.number, result


# The path is the one by which this process finds its modules.
_START = "import sys; sys.path[:] = sys.argv[2:]; from simulator import worker; worker.main(int(sys.argv[1]))"


class _Worker:
    """A process of `simulator.worker`, and this end of the line to it."""

    def __init__(self, noun: str) -> None:
        self.line, theirs = multiprocessing.Pipe()
        with theirs:
            handle = theirs.fileno()
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START, str(handle), *sys.path],
                stdin=subprocess.DEVNULL,
                pass_fds=[handle],
            )
        self.number = -1
        self.task = noun

    def send(self, value: object) -> None:
        try:
            self.line.send(value)
        except OSError:
            raise self._lost() from None

    def give(self, number: int, item: object) -> None:
        self.number, self.task = number, f"{self.task.partition(' ')[0]} {item}"
        self.send(item)

    def result(self) -> Any:
        try:
            result = self.line.recv()
        except (EOFError, OSError):
            raise self._lost() from None
        if isinstance(result, console.BadUsage):
            raise result
        if isinstance(result, console.Failed):
            raise console.Failed(f"{self.task}: {result.problem}", result.trace)
        return result

    def _lost(self) -> console.Failed:
        try:
            self.process.wait(1)  # it has ended, or is about to
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        code = self.process.returncode
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        hint = ", as it happens when memory runs out" if code == -signal.SIGKILL else ""
        return console.Failed(f"a worker process was ended {how}{hint}, at work on {self.task}")


def _kill(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.process.kill()
        worker.process.wait()
        worker.line.close()
