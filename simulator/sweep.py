"""Many seeds of one plan, or many cases of the exhaustive search, on all cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from chronos.testing.nas import BUILDS
from simulator import cases, explore, space
from simulator.agents import AGENTS
from simulator.explore import Result
from simulator.scenario import Plan, simulate
from simulator.world import Summary

A = TypeVar("A")
B = TypeVar("B")


def sweep(plan: Plan, seeds: range) -> Iterator[tuple[int, Summary]]:
    """Yield the summary of every seed, in the order of the seeds."""
    return zip(seeds, spread(simulate, [plan] * len(seeds), seeds), strict=True)


def search_case(
    name: str, agent: str, promises: str, budget: tuple[int, int, int], limit: int | None
) -> Result:
    """Search the case called *name*; all that is sent to another process is plain values.

    Args:
        name: of one of `cases.CASES`.
        agent: the name of the agent under test.
        promises: the name of the NAS.
        budget: how many crashes, duplicates and losses may strike.
        limit: give up after so many states.
    """
    case = next(case for case in cases.CASES if case.name == name)
    crashes, duplicates, losses = budget
    small_world = space.Space(
        case, AGENTS[agent], BUILDS[promises], crashes=crashes, duplicates=duplicates, losses=losses
    )
    return explore.search(small_world, limit=limit)


def spread(function: Callable[..., B], *arguments: Iterable[A]) -> Iterator[B]:
    """Yield what *function* returns for each of the arguments, in their order, worked out on all cores.

    A fresh interpreter for each worker: a forked one could inherit a lock that a thread holds.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context, initializer=_leave_interrupts) as pool:
        try:
            yield from pool.map(function, *arguments)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise


def _leave_interrupts() -> None:
    """Let the parent alone answer Ctrl-C; it ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
