"""Many seeds of one plan, on all cores."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from simulator.scenario import Plan, simulate
from simulator.world import Summary

A = TypeVar("A")
B = TypeVar("B")


def sweep(plan: Plan, seeds: range) -> Iterator[tuple[int, Summary]]:
    """Yield the summary of every seed, in the order of the seeds."""
    return zip(seeds, spread(simulate, [plan] * len(seeds), seeds), strict=True)


def spread(function: Callable[..., B], *arguments: Iterable[A]) -> Iterator[B]:
    """Yield what *function* returns for each of the arguments, in their order, worked out on all cores.

    A fresh interpreter for each worker: a forked one could inherit a lock that a thread holds.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        try:
            yield from pool.map(function, *arguments)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
