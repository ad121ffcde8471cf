"""Where a campaign is worked out: in processes of this machine, or on a Dask cluster that is there.

An executor yields what comes of the tasks as soon as it is there, in whatever order.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from importlib.util import find_spec
from itertools import islice
from typing import Any

import attrs

from chronos.cli.console import BadUsage, Failed, failure
from simulator.campaign import Done, Task, perform, source
from simulator.scenario import Plan
from simulator.sweep import finished

# How many batches are on their way to each thread of a cluster: while one is worked on, the next ones
# are there already, and no more than that of a million seeds is in the scheduler's memory.
IN_FLIGHT = 4

# How long a worker shall be busy with a batch, seconds: a hundred times as long as it costs the
# scheduler, and no more than an interruption may lose. The first batches, of one seed each, tell how
# long a seed takes.
_BATCH_S, _LARGEST_BATCH = 0.5, 64

# How long a scheduler may take to answer. One that is there does so within a second.
_PATIENCE_S = 5

_ADDRESS = re.compile(r"(?:tcp|tls|ws|wss)://[^/\s]+:\d{1,5}", re.ASCII)


@attrs.frozen
class Executor:
    """Somewhere to work out tasks.

    Attributes:
        workers: how many processes work at once.
        run: yields what comes of tasks.
    """

    workers: int
    run: Callable[[Iterator[Task]], Generator[Done, None, None]]


@contextmanager
def on_cores(plans: tuple[Plan, ...], workers: int | None) -> Iterator[Executor]:
    """Yield an executor of processes of this machine.

    Args:
        plans: of the campaign.
        workers: how many processes; None for one on each core.
    """
    count = workers or os.cpu_count() or 1

    def run(tasks: Iterator[Task]) -> Generator[Done, None, None]:
        with closing(finished(partial(perform, plans), tasks, workers=count, noun="seed")) as results:
            for _, done in results:
                yield done

    yield Executor(count, run)


def address(text: str) -> str:
    """Return *text*, which is where a scheduler of Dask may be."""
    if not _ADDRESS.fullmatch(text):
        raise argparse.ArgumentTypeError(f"expected an address such as tcp://127.0.0.1:8786, got {text!r}")
    return text


@contextmanager
def on_dask(address: str, plans: tuple[Plan, ...], own_agents: tuple[str, ...]) -> Iterator[Executor]:
    """Yield an executor of the workers of a Dask cluster, which go on when this process is gone.

    Args:
        address: of its scheduler, such as tcp://127.0.0.1:8786.
        plans: of the campaign.
        own_agents: the agents of one's own among them.

    Raises:
        BadUsage: nobody answers there, or its workers do not have this program.
    """
    if find_spec("distributed") is None:
        raise BadUsage("--dask needs the extra `dask` of chronos-cron")
    import distributed

    for name in ("distributed", "distributed.client", "distributed.core", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what they log is told by the errors here
    try:
        client = distributed.Client(address, timeout=_PATIENCE_S)
    except (OSError, ValueError, TypeError) as error:
        raise BadUsage(f"--dask {address}: no scheduler answers: {' '.join(str(error).split())}") from None
    with client:
        _check(client, address, own_agents)
        run = partial(_run_on_dask, distributed, client, address, plans, own_agents)
        yield Executor(len(client.nthreads()), run)


def _check(client: Any, address: str, own_agents: tuple[str, ...]) -> None:
    """Make sure that each worker would simulate the same."""
    try:
        there = client.run(source, *own_agents, on_error="return")
    except Exception as error:  # noqa: BLE001 - of the worker
        raise BadUsage(f"--dask {address}: its workers answer: {failure(error).problem}") from None
    if not there:
        raise BadUsage(f"--dask {address}: the cluster has no workers")
    for worker, found in there.items():
        if isinstance(found, BaseException):
            words = " ".join(f"{type(found).__name__}: {found}".split())
            raise BadUsage(f"--dask {address}: {worker} cannot run this program: {words}")
        if found != source(*own_agents):
            raise BadUsage(f"--dask {address}: {worker} has another version of this program or of the agent")


def perform_there(
    expected: str, own_agents: tuple[str, ...], plans: tuple[Plan, ...], batch: tuple[Task, ...]
) -> list[Done]:
    """Simulate some of *plans* on a worker, which may have come later than the others.

    Args:
        expected: the hash of the program that is meant.
        own_agents: the agents of one's own that belong to it.
        plans: of the campaign.
        batch: what to simulate.

    Raises:
        Failed: the program is another one, or a simulation raised.
    """
    if source(*own_agents) != expected:
        raise Failed("a worker has another version of this program or of the agent")
    ended = []
    for task in batch:
        try:
            ended.append(perform(plans, task))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            failed = failure(error)
            raise Failed(f"seed {task}: {failed.problem}", failed.trace) from None
    return ended


def _itself(plans: tuple[Plan, ...]) -> tuple[Plan, ...]:
    """Return *plans*: a task of its own, so that they travel once to each worker, and can be lost."""
    return plans


def _run_on_dask(
    distributed: Any,
    client: Any,
    address: str,
    plans: tuple[Plan, ...],
    own_agents: tuple[str, ...],
    tasks: Iterator[Task],
) -> Generator[Done, None, None]:
    there = client.submit(_itself, plans, pure=False)
    count, cpu_s = 0, 0.0

    def submitted(batches: int) -> list[Any]:
        """Return the futures of so many more batches, or of fewer when there is no more."""
        size = 1 if not count else min(max(round(_BATCH_S * count / max(cpu_s, 1e-9)), 1), _LARGEST_BATCH)
        found = [batch for _ in range(batches) if (batch := tuple(islice(tasks, size)))]
        expected = source(*own_agents)
        return [
            client.submit(perform_there, expected, own_agents, there, batch, pure=False) for batch in found
        ]

    ready = distributed.as_completed(submitted(IN_FLIGHT * sum(client.nthreads().values())))
    for future in ready:
        try:
            ended: list[Done] = future.result()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            if client.status != "running" or future.cancelled():
                raise Failed(f"--dask {address}: the cluster is gone") from None
            raise failure(error) from None
        count, cpu_s = count + len(ended), cpu_s + sum(done.cpu_s for done in ended)
        ready.update(submitted(1))
        yield from ended
