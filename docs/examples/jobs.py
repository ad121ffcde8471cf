"""The jobs of an agent, as its code declares them: four days of them in a second, and then a restart.

It runs by itself, `python jobs.py`: NAS and the clock are those of `chronos.testing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial

from chronos import (
    Answer,
    ChronosError,
    Interval,
    Job,
    JobSpec,
    JobStore,
    MemoryStore,
    Overlap,
    Policy,
    RunContext,
    Scheduler,
    lateness,
    next_after,
    next_times,
    parse_schedule,
)
from chronos.events import Event, OccurrenceEnded
from chronos.testing import Clock, LocalNas

NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)
JOBS = (
    JobSpec("report", "0 3 * * 1-5", tz="Europe/Berlin", data={"to": "ops"}),
    JobSpec(
        "sweep",
        timedelta(hours=6),
        policy=Policy(
            overlap=Overlap.QUEUE,
            misfire_grace=timedelta(minutes=10),
            time_limit=timedelta(minutes=5),
            ends=NEW_YEAR + timedelta(days=2),
        ),
    ),
    JobSpec("warm-up", "in 30s"),
    JobSpec("review", NEW_YEAR + timedelta(days=1, hours=9), times=1),
)


def run(ran: list[str], context: RunContext) -> None:
    """Do the work of a job; one that takes long looks at `context.timed_out` from time to time."""
    if not context.timed_out.is_set():
        to = f" to {context.data['to']}" if context.data else ""
        ran.append(f"{context.job_id}{to} of {context.occurrence:%d %H:%M:%S}")


def watch(event: Event) -> None:
    """Look at what happens: here, at how late an occurrence was claimed."""
    if isinstance(event, OccurrenceEnded):
        late = lateness(event.outcome)
        if late is not None and late.total > timedelta(seconds=30):
            print(f"{event.job_id} was claimed {late.total} late")


def agent(store: JobStore, nas: LocalNas, ran: list[str]) -> Scheduler:
    """Return the scheduler of a process that starts, and declare its jobs."""
    scheduler = Scheduler(store, nas.client(), partial(run, ran), clock=nas.clock, hooks=[watch])
    nas.connect(scheduler)
    scheduler.start()
    answers: Mapping[str, Answer] = scheduler.declare(JOBS, remove_others=True)
    for job_id, answer in answers.items():
        print(f"{job_id}: {answer.reason}")
    return scheduler


def look_around(scheduler: Scheduler) -> None:
    """Read what there is: the store without a call to NAS, and how everything stands."""
    every: tuple[Job, ...] = scheduler.jobs()
    sweep = scheduler.get("sweep")
    assert sweep is not None
    assert isinstance(sweep.schedule, Interval)
    print(f"{len(every)} jobs; sweep runs every {sweep.schedule.period}, the next time {sweep.next}")
    for each in scheduler.status().jobs:
        print(f"{each.job.id}: {each.why}, {each.wake}")
    print(*(f"{outcome.result} at {outcome.at:%H:%M:%S}" for outcome in scheduler.history("report")))


def main() -> list[str]:
    """Let four days pass; return what ran."""
    ran: list[str] = []
    store, nas = MemoryStore(), LocalNas(clock=Clock(NEW_YEAR))
    scheduler = agent(store, nas, ran)
    nas.advance(timedelta(days=4))
    look_around(scheduler)
    scheduler.run_now("report", asked=nas.clock.now)
    scheduler.drain(10)
    agent(store, nas, ran)  # all is so already: nothing is made anew, and NAS is not called for it
    return ran


def preview() -> None:
    """Look at a schedule before a job is made of it; a mistake is one clear error."""
    print(*next_times("0 3 * * 1-5", 2, tz="Europe/Berlin", now=NEW_YEAR))
    print(next_after(parse_schedule("every 6h", now=NEW_YEAR), NEW_YEAR + timedelta(hours=7)))
    try:
        JobSpec("odd", datetime(2027, 1, 1, 9))  # noqa: DTZ001 - no time zone: that is the mistake
    except ChronosError as error:
        print(f"refused: {error}")


if __name__ == "__main__":
    preview()
    print(*main(), sep="\n")
