"""A whole agent with managed cron, in one file that runs: `python agent.py`.

It keeps its jobs in SQLite, in the folder where it is started, and serves the fire endpoint with
uvicorn. Where a real agent would have NAS, it brings a small one of its own, in the same process, which
keeps arms, waits for their time and fires them over HTTP with signed tokens: stop the process, start it
again, and the jobs go on. It needs the extra `example`: `pip install '.[example]'`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec

from chronos import AsyncNasClient, AsyncScheduler, FireEndpoint, FireVerifier, JobSpec, RunContext, SqlStore
from chronos.protocol.schedule import format_instant, parse_instant

HOST, PORT = "127.0.0.1", os.environ.get("PORT", "8765")
AGENT, AUDIENCE = f"http://{HOST}:{PORT}", "agent:example"
JOBS = [JobSpec("tick", "every 5s"), JobSpec("report", "*/1 * * * *")]
say = functools.partial(print, flush=True)  # a pipe, too, shall show it at once


class SmallNas:
    """Enough of NAS to see the protocol at work: one arm for each job, fired until it is accepted."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.arms: dict[str, str] = {}
        self.newest: dict[str, int] = {}

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer the agent's calls: provision, cancel, list."""
        if request.url.path.endswith("/list"):
            armed = [{"job_id": job, "fire_at": at, "schedule_id": job} for job, at in self.arms.items()]
            return httpx.Response(200, json={"armed": armed})
        body = json.loads(request.content)
        job, revision = body["job_id"], body["revision"]
        if revision < self.newest.get(job, 0):
            stale = {"error": "stale_revision", "revision": self.newest[job]}
            return httpx.Response(409, json=stale)
        self.newest[job] = revision
        self.arms.pop(job, None)
        if request.url.path.endswith("/provision"):
            self.arms[job] = body["fire_at"]
            return httpx.Response(200, json={"schedule_id": job, "revision": revision})
        return httpx.Response(200, json={"ok": True, "revision": revision})

    async def deliver(self) -> None:
        """Fire what is due, again and again."""
        async with httpx.AsyncClient() as client:
            while True:
                now_us = time.time_ns() // 1000
                for job, at in list(self.arms.items()):
                    if parse_instant(at) <= now_us:
                        await self.fire(client, job, at)
                await asyncio.sleep(0.2)

    async def fire(self, client: httpx.AsyncClient, job: str, at: str) -> None:
        """Deliver one fire; it stays armed until the agent has accepted it."""
        claims = {"iss": "https://portal.example", "aud": AUDIENCE, "purpose": "cron_fire"}
        token = jwt.encode({**claims, "iat": time.time(), "exp": time.time() + 90}, self.key, "ES256")
        headers = {"Authorization": f"Bearer {token}"}
        with contextlib.suppress(httpx.HTTPError):
            fire = {"job_id": job, "fire_at": at}
            answer = await client.post(f"{AGENT}/api/cron/fire", json=fire, headers=headers)
            say(f"NAS: fired {job} of {at}: {answer.status_code} {answer.json().get('status', '')}")
            if answer.is_success and self.arms.get(job) == at:
                del self.arms[job]


async def run(context: RunContext) -> None:
    """Do the work of a job."""
    due = format_instant(context.occurrence_us)
    say(f"agent: {context.job_id} of {due} runs, attempt {context.attempt}, {context.origin}")


def make(folder: Path) -> tuple[Any, AsyncScheduler, SmallNas]:
    """Return the endpoint, the scheduler behind it, and NAS."""
    nas = SmallNas()
    client = AsyncNasClient(
        "https://portal.example",
        token_provider=lambda _fresh: "access-token",
        callback_url=AGENT,
        transport=httpx.MockTransport(nas.answer),  # a real agent leaves this out
    )
    scheduler = AsyncScheduler(SqlStore.create(f"sqlite:///{folder / 'jobs.sqlite'}"), client, run)
    public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(nas.key.public_key()))
    verifier = FireVerifier(AUDIENCE, issuer="https://portal.example", key=public)
    return FireEndpoint(scheduler, verifier), scheduler, nas


async def create_jobs(scheduler: AsyncScheduler) -> None:
    """Create the jobs that an earlier life of this process has not created; the others go on."""
    for job_id, answer in (await scheduler.declare(JOBS)).items():
        say(f"agent: {job_id}: {answer.reason}")


@contextlib.asynccontextmanager
async def at_work(scheduler: AsyncScheduler, nas: SmallNas) -> AsyncIterator[None]:
    """Create the jobs, and let NAS deliver."""
    await create_jobs(scheduler)
    delivering = asyncio.create_task(nas.deliver())
    yield
    delivering.cancel()


def listen() -> socket.socket:
    """Return the socket to serve at; where it cannot be had, end the process before it does anything."""
    try:
        return socket.create_server((HOST, int(PORT)))
    except (OSError, OverflowError, ValueError) as error:
        sys.exit(f"cannot serve at {HOST}:{PORT}; set PORT to a free one: {error}")


async def main(folder: Path) -> None:
    """Serve until the process is told to stop."""
    listening = listen()
    app, scheduler, nas = make(folder)
    server = uvicorn.Server(uvicorn.Config(app, lifespan="on", log_level="warning"))
    async with at_work(scheduler, nas):
        await server.serve(sockets=[listening])


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(Path()))
