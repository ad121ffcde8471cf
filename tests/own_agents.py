"""Agents of somebody's own, for the tests of what drives them: small schedulers, and rule breakers."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

_EXAMPLE = Path(__file__).parent.parent / "docs" / "examples" / "own_agent.py"
_SPEC = importlib.util.spec_from_file_location("own_agent", _EXAMPLE)
assert _SPEC is not None
assert _SPEC.loader is not None
own_agent = importlib.util.module_from_spec(_SPEC)
sys.modules["own_agent"] = own_agent
_SPEC.loader.exec_module(own_agent)

ArmsFirst, AsksAgain = own_agent.ArmsFirst, own_agent.AsksAgain
Lasts, Plausible = own_agent.Lasts, own_agent.Plausible


class AsyncPlausible:
    """`Plausible` with `async` and `await`, step by step."""

    def __init__(self, store: Any, nas: Any, run: Any) -> None:
        self.store, self.nas, self.run = store, nas, run
        self.armed: dict[str, Any] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        with suppress(OSError):
            self.armed = await self.nas.list_armed()
        await self.on_jobs_changed()

    async def on_jobs_changed(self) -> None:
        jobs = {job.id for job in await self.store.list_jobs()}
        for job_id in sorted(jobs | set(self.armed)):
            await self.arm(job_id)

    async def fire(self, job_id: str, fire_at: datetime) -> int:
        self.armed.pop(job_id, None)
        job = await self.store.claim(job_id, fire_at)
        if job is None:
            return 200
        task = asyncio.create_task(self.work(job))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return 202

    async def work(self, job: Any) -> None:
        while job is not None:
            job_id = job.id
            job = await self.store.complete(job_id, await self.run(job))
        await self.arm(job_id)

    async def arm(self, job_id: str) -> None:
        wanted = self.store.next_fire(await self.store.get_job(job_id))
        if self.armed.get(job_id) == wanted:
            return
        self.armed[job_id] = wanted
        with suppress(OSError):
            if wanted is None:
                await self.nas.cancel(job_id=job_id)
            else:
                await self.nas.provision(job_id=job_id, fire_at=wanted)


class Quiet:
    """Does nothing at all; what a test is about is added to it."""

    def __init__(self, **given: Any) -> None:
        for name, each in given.items():
            setattr(self, name, each)

    def start(self) -> None:
        """Nothing."""

    def on_jobs_changed(self) -> None:
        """Nothing."""

    def fire(self, job_id: str, fire_at: datetime) -> Any:  # noqa: ARG002 - the seam names them
        return 200


class Arms(Quiet):
    """Arms everything when it starts, and nothing afterwards."""

    store: Any
    nas: Any

    def start(self) -> None:
        for job in self.store.list_jobs():
            self.nas.provision(job_id=job.id, fire_at=self.store.next_fire(job))


class DoesOtherwise(Arms):
    """Asks by chance for one thing or the other: here, in turn."""

    asked = 0

    def start(self) -> None:
        DoesOtherwise.asked += 1
        for _ in range(DoesOtherwise.asked % 3):
            self.nas.list_armed()
        super().start()


class Raises(Arms):
    def fire(self, job_id: str, fire_at: datetime) -> int:  # noqa: ARG002 - the seam names them
        raise KeyError(job_id)


class RaisesBesides(Arms):
    spawn: Any

    def fire(self, job_id: str, fire_at: datetime) -> int:  # noqa: ARG002 - the seam names them
        self.spawn(self.work, job_id)
        return 200

    def work(self, job_id: str) -> None:
        raise KeyError(job_id)


class Exits(Arms):
    def fire(self, job_id: str, fire_at: datetime) -> int:  # noqa: ARG002 - the seam names them
        raise SystemExit(f"no {job_id}")


class RaisesInATask(Arms):
    async def fire(self, job_id: str, fire_at: datetime) -> int:  # noqa: ARG002 - the seam names them
        self.task = asyncio.create_task(self.work(job_id))
        return 200

    async def work(self, job_id: str) -> None:
        raise KeyError(job_id)


class AnswersNoStatus(Arms):
    def fire(self, job_id: str, fire_at: datetime) -> Any:  # noqa: ARG002 - the seam names them
        return True


class ClingsToLife(Arms):
    """Goes on when it is told to end."""

    ended = 0
    sleep: Any

    def fire(self, job_id: str, fire_at: datetime) -> int:  # noqa: ARG002 - the seam names them
        while True:
            try:
                self.sleep(20_000)
            except BaseException:  # noqa: BLE001 - that is what it is for
                ClingsToLife.ended += 1


class AsksInTheFactory(Quiet):
    def __init__(self, store: Any) -> None:
        store.list_jobs()


class WantsMore(Quiet):
    def __init__(self, store: Any, database: Any) -> None:
        """Wants what there is not."""


class KeepsTime(Quiet):
    """Notes what its calls of `asyncio` take, in seconds."""

    now: Any
    nas: Any
    store: Any
    took: list[float]

    async def start(self) -> None:
        KeepsTime.took = []
        await self.timed(asyncio.sleep(90))
        await self.timed(asyncio.gather(asyncio.sleep(5), asyncio.sleep(7)))
        await self.timed(asyncio.to_thread(self.store.list_jobs))
        with suppress(asyncio.TimeoutError):
            await self.timed(asyncio.wait_for(asyncio.sleep(1000), 3))

    async def timed(self, work: Any) -> None:
        began = self.now()
        try:
            await work
        finally:
            KeepsTime.took.append((self.now() - began).total_seconds())


class SaysNothingGoesOn(Arms):
    """Answers at once, works beside, and tells the host that nothing goes on."""

    spawn: Any
    run: Any

    def fire(self, job_id: str, fire_at: datetime) -> int:
        job = self.store.claim(job_id, fire_at)
        self.nas.provision(job_id=job_id, fire_at=self.store.next_fire(self.store.get_job(job_id)))
        if job is not None:
            self.spawn(self.work, job)
        return 202

    def work(self, job: Any) -> None:
        self.store.complete(job.id, self.run(job))

    def pending(self) -> bool:
        return False


no_factory = 5


def makes_nothing(store: Any) -> Any:
    """Return no agent."""
