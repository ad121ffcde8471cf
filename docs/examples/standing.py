"""How the jobs of an agent stand, in words, with each error told by its kind.

It runs by itself, `python standing.py`: NAS and the clock are those of `chronos.testing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

from chronos import (
    ChronosError,
    DataError,
    LocalMessageError,
    MemoryStore,
    MessageError,
    NotSettled,
    RemoteMessageError,
    RunContext,
    ScheduleError,
    Scheduler,
    SettingsError,
    Unreadable,
)
from chronos.testing import HARDENED, MINIMAL, Clock, Delivery, Faults, LocalNas, Promises, Request


def attempted(change: Callable[[], object]) -> str:
    """Make a change, and say what came of it."""
    try:
        return f"done: {change()}"
    except ScheduleError as error:
        return f"mend the schedule: {error}"
    except DataError as error:
        return f"mend the data: {error}"
    except LocalMessageError as error:
        return f"mend the call: {error}"
    except (RemoteMessageError, MessageError) as error:
        return f"the other side is wrong: {error}"
    except SettingsError as error:
        return f"mend the configuration: {error}"
    except NotSettled as error:
        return f"come back later: {error}"
    except ChronosError as error:
        return f"look into the log: {error}"


def standing(scheduler: Scheduler) -> Iterator[str]:
    """Yield a line for each job, for each record that is none, and for what keeps fires away."""
    status = scheduler.status()
    yield from (f"{each.job.id}: {each.why}, due {each.wake}" for each in status.jobs)
    odd: tuple[Unreadable, ...] = status.unreadable
    yield from (f"{each.place}: {each.field}: {each.problem}" for each in odd)
    if status.refused.count:
        yield f"{status.refused}"
    if status.clock:
        yield f"{status.clock}"


def told(requests: Sequence[Request], deliveries: Sequence[Delivery]) -> Iterator[str]:
    """Yield what NAS has seen."""
    yield from (f"{each.at:%H:%M:%S} {each.verb} {each.job_id}: {each.status}" for each in requests)
    yield from (f"{each.at:%H:%M:%S} fire {each.job_id}: {each.word or each.status}" for each in deliveries)


def hours(promises: Promises) -> list[str]:
    """Let two hours pass with a NAS of some promises, the first of them with a wrong audience."""
    clock = Clock()
    nas = LocalNas(clock=clock, promises=promises)
    nas.faults = Faults(claims={"aud": "agent:other"})
    scheduler = Scheduler(MemoryStore(), nas.client(), run, clock=clock)
    nas.connect(scheduler)
    scheduler.start()
    lines = [
        attempted(lambda: scheduler.create("report", "0 * * * *", data={"to": "ops"}).reason),
        attempted(lambda: scheduler.create("odd", "61 * * * *")),
        attempted(lambda: scheduler.edit("report", data={"to": {"ops"}})),
        attempted(lambda: scheduler.pause("")),
    ]
    nas.advance(timedelta(hours=1, minutes=5))
    lines += standing(scheduler)
    nas.faults = Faults()
    nas.advance(timedelta(hours=1))
    return [*lines, *standing(scheduler), *told(nas.requests, nas.deliveries)]


def run(context: RunContext) -> None:
    """Do the work of a job."""
    print(f"the report for {context.data['to']} of {context.occurrence:%H:%M}")


if __name__ == "__main__":
    print(*hours(HARDENED), *hours(MINIMAL), sep="\n")
