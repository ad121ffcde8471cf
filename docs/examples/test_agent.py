"""A test of an agent with managed cron; no test framework is needed, and none is in the way."""

import asyncio
from datetime import timedelta

from chronos import AsyncScheduler, MemoryStore, RunContext
from chronos.testing import AsyncLocalNas, Faults


async def hours_of_a_report(faults: Faults) -> list[int]:
    """Let three hours pass, the first of them with faults; return at which hours the report ran."""
    ran = list[int]()

    async def run(context: RunContext) -> None:
        ran.append(context.occurrence.hour)

    nas = AsyncLocalNas()
    scheduler = AsyncScheduler(MemoryStore(), nas.client(), run, clock=nas.clock)
    nas.connect(scheduler)
    await scheduler.create("report", "0 * * * *")
    nas.faults = faults
    await nas.advance(timedelta(hours=1))
    nas.faults = Faults()
    await nas.advance(timedelta(hours=2))
    return ran


def test_the_report_runs_once_in_every_hour() -> None:
    """Also when fires come twice, when an answer is lost, and when a wrong agent is called."""
    for faults in (
        Faults(),
        Faults(delivers_twice=True),
        Faults(lost_fire_answers=1),
        Faults(claims={"aud": "agent:other"}),
    ):
        assert asyncio.run(hours_of_a_report(faults)) == [1, 2, 3]


if __name__ == "__main__":
    test_the_report_runs_once_in_every_hour()
