"""An agent under uvicorn, for the checks that run it in a process of its own, and kill it.

This is a program: `python -m tests.agent_process PLAN`, where PLAN is a JSON object of a `Plan`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import attrs
import uvicorn

from chronos import (
    AsyncNasClient,
    AsyncScheduler,
    CatchUp,
    FireEndpoint,
    FireVerifier,
    Job,
    JobStore,
    OnInterrupt,
    Outcome,
    Overlap,
    Policy,
    RunContext,
    SqlStore,
)
from chronos.jobs.instants import Instant

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 60.0  # for a start on a machine that is busy, and for a stop, which drains for 25 s at most
HISTORY_LENGTH = 100_000  # whatever happens here is to be found there afterwards

# On a machine that is busy, a run may last until the next one is due, and no slot is to be left out.
EACH = Policy(overlap=Overlap.ALLOW)

_SECOND = timedelta(seconds=1)
_LATE = {"misfire_grace": _SECOND}

# Jobs of a few seconds, one for each policy that has a say when a process dies.
JOBS: dict[str, dict[str, tuple[str, Policy]]] = {
    "whole seconds": {
        "interval": ("every 2s", EACH),
        "cron": ("*/3 * * * * *", EACH),
        "once": ("+5s", EACH),
    },
    "kills": {
        "interval": ("every 2s", Policy()),
        "cron": ("*/3 * * * * *", Policy()),
        "late missed": ("every 3s", Policy(**_LATE)),
        "late once": ("every 4s", Policy(catch_up=CatchUp.ONCE, **_LATE)),
        "late all": ("every 5s", Policy(catch_up=CatchUp.ALL, **_LATE)),
        "queued": ("every 2s", Policy(overlap=Overlap.QUEUE)),
        "overlapping": ("every 2s", Policy(overlap=Overlap.ALLOW)),
        "again": ("every 3s", Policy(on_interrupt=OnInterrupt.RETRY)),
        "retried": ("every 6s", Policy(attempts=3, retry_delay=_SECOND)),
        "retried again": (
            "every 7s",
            Policy(attempts=3, retry_delay=_SECOND, on_interrupt=OnInterrupt.RETRY),
        ),
    },
}

KINDS = (
    "load",
    "claim",
    "finish",
    "change",
    "provision",
    "cancel",
    "list",
    "answer",
    "run start",
    "run end",
)
"""The effects after which a process can be told to kill itself."""


@attrs.frozen(kw_only=True)
class Plan:
    """What a process is told.

    Attributes:
        portal: NAS's base URL.
        audience: this agent, as the tokens name it.
        port: where to serve.
        folder: of the store and of the runner's log.
        jobs: which of `JOBS`.
        life: the number of the process; 0 for one in which nobody changes jobs but to create them.
        kill: after which kind of effect to die; empty for none.
        kill_after: after how many of them.
    """

    portal: str
    audience: str
    port: int
    folder: str
    jobs: str
    life: int = 0
    kill: str = ""
    kill_after: int = 1


def opened(folder: Path) -> SqlStore:
    """Open the agent's store; make it when it is not there."""
    return SqlStore.create(f"sqlite:///{folder / 'jobs.sqlite'}", history_length=HISTORY_LENGTH)


def begun(plan: Plan, errors: Path) -> subprocess.Popen[bytes]:
    """Start the process; what it says goes to a file."""
    command = [sys.executable, "-m", "tests.agent_process", json.dumps(attrs.asdict(plan))]
    with errors.open("ab") as said:
        return subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said)


def end(process: subprocess.Popen[bytes], errors: Path) -> None:
    """Tell a process to stop, and wait for it.

    Raises:
        RuntimeError: it does not, with what it waits for.
    """
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGUSR1)
        time.sleep(1)
        process.kill()
        process.wait()
        raise RuntimeError(f"the agent did not stop: {errors.read_text(encoding='utf-8')[-5000:]}") from None


def free_port() -> int:
    """Return a port that nobody listens at, outside of the range from which connections get theirs."""
    for port in random.sample(range(20_000, 30_000), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError("no port is free")


@attrs.frozen(kw_only=True)
class Ran:
    """A line of the runner's log: an attempt that began or ended."""

    is_end: bool
    job_id: str
    occurrence_us: Instant
    attempt: int


def runs_in(folder: Path) -> list[Ran]:
    """Return what the runner noted, in order; a line that was cut by a kill was never begun."""
    lines = (folder / "runs.log").read_text(encoding="utf-8").splitlines(keepends=True)
    return [Ran(**json.loads(line)) for line in lines if line.endswith("\n")]


# --- In the process -----------------------------------------------------------------------------


class Fate:
    """Kills the process right after an effect of a kind."""

    def __init__(self, plan: Plan) -> None:
        self._kind, self._left = plan.kill, plan.kill_after

    def after(self, kind: str) -> None:
        if kind == self._kind:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)


class FatefulStore:
    """A store after whose answers the process may die."""

    def __init__(self, store: JobStore, fate: Fate) -> None:
        self._store, self._fate = store, fate

    def load(self, job_id: str) -> Job | None:
        job = self._store.load(job_id)
        self._fate.after("load")
        return job

    def load_all(self) -> Any:
        jobs = self._store.load_all()
        self._fate.after("load")
        return jobs

    def swap(
        self,
        job_id: str,
        *,
        expected: Job | None,
        replacement: Job | None,
        outcomes: tuple[Outcome, ...] = (),
    ) -> bool:
        has_moved = self._store.swap(job_id, expected=expected, replacement=replacement, outcomes=outcomes)
        before = () if expected is None else expected.runs
        after = () if replacement is None else replacement.runs
        claims = any(not run.is_among(before) for run in after)
        self._fate.after("claim" if claims else "finish" if outcomes else "change")
        return has_moved

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class FatefulNas(AsyncNasClient):
    """A client after whose answers the process may die."""

    fate: Fate

    async def provision(self, *args: Any, **kwargs: Any) -> Any:
        answer = await super().provision(*args, **kwargs)
        self.fate.after("provision")
        return answer

    async def cancel(self, *args: Any, **kwargs: Any) -> Any:
        answer = await super().cancel(*args, **kwargs)
        self.fate.after("cancel")
        return answer

    async def list_arms(self, **kwargs: Any) -> Any:
        arms = await super().list_arms(**kwargs)
        self.fate.after("list")
        return arms


class Runner:
    """Notes each attempt in a file, before and after it."""

    def __init__(self, folder: Path, fate: Fate) -> None:
        self._log = os.open(folder / "runs.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._fate = fate

    async def __call__(self, context: RunContext) -> None:
        self._note(context, is_end=False)
        self._fate.after("run start")
        longest_s = 3.0 if context.job_id in ("queued", "overlapping") else 0.3
        await asyncio.sleep(random.random() * longest_s)
        self._note(context, is_end=True)
        self._fate.after("run end")
        if context.job_id.startswith("retried") and context.attempt < context.occurrence.second % 5:
            raise RuntimeError("this attempt shall fail")

    def _note(self, context: RunContext, *, is_end: bool) -> None:
        ran = Ran(
            is_end=is_end,
            job_id=context.job_id,
            occurrence_us=context.occurrence_us,
            attempt=context.attempt,
        )
        os.write(self._log, (json.dumps(attrs.asdict(ran)) + "\n").encode())


def served(app: Any, fate: Fate) -> Any:
    """Return *app*, after whose answers to fires the process may die."""

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        async def send_and_die(event: Any) -> None:
            await send(event)
            if event["type"] == "http.response.body":
                fate.after("answer")

        await app(scope, receive, send_and_die)

    return serve


def changes(scheduler: AsyncScheduler, plan: Plan) -> Iterator[Any]:
    """Yield what somebody asks for in this life of the agent."""
    for job_id, (schedule, policy) in JOBS[plan.jobs].items():
        yield scheduler.create(job_id, schedule, policy=policy)
    if plan.life:
        yield scheduler.create("toggled", "every 2s")
        yield scheduler.pause("toggled")
        yield scheduler.create(f"once {plan.life}", "+2s")
        yield scheduler.remove(f"short-lived {plan.life - 1}")
        yield scheduler.create(f"short-lived {plan.life}", "every 2s")
        yield scheduler.resume("toggled")


def show_tasks() -> None:
    """Say what everything waits for, when the process does not end."""
    for task in asyncio.all_tasks():
        task.print_stack()


async def main(plan: Plan) -> None:
    """Serve until the process is told to stop, or dies."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, show_tasks)
    folder, fate = Path(plan.folder), Fate(plan)
    callback_url = f"http://127.0.0.1:{plan.port}"
    nas = FatefulNas(plan.portal, token_provider=lambda _fresh: "access-token", callback_url=callback_url)
    nas.fate = fate
    scheduler = AsyncScheduler(cast(JobStore, FatefulStore(opened(folder), fate)), nas, Runner(folder, fate))
    verifier = FireVerifier(plan.audience, issuer=plan.portal, jwks_url=f"{plan.portal}/jwks.json")
    app = served(FireEndpoint(scheduler, verifier), fate)
    server = uvicorn.Server(uvicorn.Config(app, port=plan.port, lifespan="on", log_level="warning"))
    serving = asyncio.create_task(server.serve())
    while not (server.started or serving.done()):
        await asyncio.sleep(0.01)
    for change in changes(scheduler, plan):
        await change
    await serving


if __name__ == "__main__":
    asyncio.run(main(Plan(**json.loads(sys.argv[1]))))
