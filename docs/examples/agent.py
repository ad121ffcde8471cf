"""A whole agent with managed cron, in one file that runs: `python agent.py`.

It keeps its jobs in SQLite, in the folder where it is started, and serves the fire endpoint with
uvicorn. Where a real agent would have NAS, it brings the one of `chronos.testing`, in the same process,
which keeps arms, waits for their time and fires them over HTTP with signed tokens: stop the process, start
it again, and the jobs go on. It needs the extra `example`: `pip install '.[example]'`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn

from chronos import AsyncNasClient, AsyncScheduler, FireEndpoint, FireVerifier, JobSpec, RunContext, SqlStore
from chronos.clock import now_us
from chronos.jobs.instants import format_instant
from chronos.testing import LocalNas

HOST, PORT = "127.0.0.1", os.environ.get("PORT", "8765")
AGENT = f"http://{HOST}:{PORT}"
JOBS = [JobSpec("tick", "every 5s"), JobSpec("report", "*/1 * * * *")]
say = functools.partial(print, flush=True)  # a pipe, too, shall show it at once


async def run(context: RunContext) -> None:
    """Do the work of a job."""
    due = format_instant(context.occurrence_us)
    say(f"agent: {context.job_id} of {due} runs, attempt {context.attempt}, {context.origin}")


def make(folder: Path, nas: LocalNas) -> tuple[Any, AsyncScheduler]:
    """Return the endpoint, and the scheduler behind it."""
    client = AsyncNasClient(nas.url, token_provider=lambda _fresh: nas.access_token, callback_url=AGENT)
    scheduler = AsyncScheduler(SqlStore.create(f"sqlite:///{folder / 'jobs.sqlite'}"), client, run)
    verifier = FireVerifier(nas.audience, issuer=nas.url, jwks_url=nas.jwks_url)
    return FireEndpoint(scheduler, verifier), scheduler


async def create_jobs(scheduler: AsyncScheduler) -> None:
    """Create the jobs that an earlier life of this process has not created; the others go on."""
    for job_id, answer in (await scheduler.declare(JOBS)).items():
        say(f"agent: {job_id}: {answer.reason}")


def listen() -> socket.socket:
    """Return the socket to serve at; where it cannot be had, end the process before it does anything."""
    try:
        return socket.create_server((HOST, int(PORT)))
    except (OSError, OverflowError, ValueError) as error:
        sys.exit(f"cannot serve at {HOST}:{PORT}; set PORT to a free one: {error}")


async def main(folder: Path) -> None:
    """Serve until the process is told to stop."""
    listening = listen()
    nas = LocalNas(clock=now_us, audience="agent:example")
    with nas.served():
        app, scheduler = make(folder, nas)
        server = uvicorn.Server(uvicorn.Config(app, lifespan="on", log_level="warning"))
        await create_jobs(scheduler)
        await server.serve(sockets=[listening])


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stdout, format="%(name)s: %(message)s")
    logging.getLogger("chronos.testing").setLevel(logging.INFO)  # it tells of each fire
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(Path()))
