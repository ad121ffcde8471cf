"""What the two schedulers have in common: how they are made, and what each request means."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable
from typing import Any, Generic, TypeVar

from chronos import events, telemetry
from chronos.operations import Pending, Read, Signal, Spawn, Work
from chronos.owner import is_dead, new_owner
from chronos.protocol import machine, transitions
from chronos.protocol.draft import Fired
from chronos.protocol.job import Policy
from chronos.protocol.messages import CancelRequest
from chronos.protocol.schedule import Instant, Schedule, parse_schedule
from chronos.protocol.transitions import Changes
from chronos.runner import Runner
from chronos.status import status
from chronos.stores import JobStore
from chronos.work import Worker

logger = logging.getLogger(__name__)

N = TypeVar("N")
T = TypeVar("T")


def _now_us() -> Instant:
    return time.time_ns() // 1000


class Shell(Generic[N]):
    """A scheduler without a way to perform work; see `chronos.scheduler`."""

    def __init__(
        self,
        store: JobStore,
        nas: N | None,
        runner: Runner,
        *,
        owner: str | None = None,
        clock: Callable[[], Instant] = _now_us,
        is_dead: Callable[[str], bool] = is_dead,
        is_stopped: Callable[[], bool] = lambda: False,
        hooks: Iterable[events.Hook] = (),
    ) -> None:
        self._store = store
        self._nas = nas
        self._runner = runner
        self._clock = clock
        self._prepare()
        measuring = telemetry.hook()
        self._hooks = (*hooks, *((measuring,) if measuring is not None else ()))
        self._work = Worker(
            owner=owner or new_owner(),
            clock=clock,
            monotonic=time.monotonic,
            is_dead=is_dead,
            is_stopped=is_stopped,
            has_nas=nas is not None,
            new_signal=self._new_signal,
            publish=self._publish,
        )

    def _prepare(self) -> None:
        """Make what the way to perform work needs."""

    def _new_signal(self) -> Signal:
        raise NotImplementedError

    @property
    def is_draining(self) -> bool:
        """Whether fires are turned away, for NAS to deliver them again."""
        return self._work.draining.is_set()

    def _publish(self, event: events.Event) -> None:
        for hook in self._hooks:
            try:
                hook(event)
            except Exception:  # a hook only looks on
                logger.exception("a hook failed")

    # --- what each request means ---

    def _fire(
        self, job_id: str, fire_at_us: Instant, minted_us: Instant | None, received_us: Instant | None
    ) -> Spawn:
        fired = Fired(minted_us=minted_us, received_us=received_us)
        return self._work.ask(machine.Fire(job_id=job_id, fire_at_us=fire_at_us, fired=fired))

    def _create(
        self, job_id: str, schedule: Schedule | str, tz: str, times: int | None, policy: Policy | None
    ) -> Spawn:
        CancelRequest(job_id=job_id)  # an id that cannot be sent is refused before it is saved
        now_us = self._clock()
        parsed = parse_schedule(schedule, now_us=now_us, tz=tz) if isinstance(schedule, str) else schedule
        job = transitions.new_job(job_id, parsed, now_us=now_us, times=times, policy=policy)
        return self._work.ask(machine.Create(job_id=job_id, job=job))

    def _edit(
        self,
        job_id: str,
        schedule: Schedule | str | None,
        tz: str,
        times: int | None,
        policy: Policy | None,
    ) -> Spawn:
        if isinstance(schedule, str):
            schedule = parse_schedule(schedule, now_us=self._clock(), tz=tz)
        changes = Changes(schedule=schedule, times=times, policy=policy)
        return self._work.ask(machine.Edit(job_id=job_id, changes=changes))

    def _run_now(self, job_id: str, asked_us: Instant | None) -> Spawn:
        identity_us = self._clock() if asked_us is None else asked_us
        return self._work.ask(machine.RunNow(job_id=job_id, asked_us=identity_us))

    def _start(self) -> Spawn:
        return self._listed(self._work.start(), "the start is reconciling")

    def _status(self) -> Spawn:
        return Spawn(status(self._work), None)

    def _history(self, job_id: str) -> Spawn:
        return Spawn(_read(lambda store: store.history(job_id)), None)

    def _listed(self, work: Generator[Any, Any, Any], reason: str) -> Spawn:
        return Spawn(work, Pending(job_id="", reason=reason, is_busy=True))

    def _ended(self, pending: Pending | None, error: BaseException | None) -> None:
        if error is not None:
            job_id = "" if pending is None else pending.job_id
            logger.error("a flow ended with a bug", exc_info=error, extra={"job_id": job_id})

    def _drained(self, left: tuple[Pending, ...]) -> tuple[Pending, ...]:
        if any(each.is_busy for each in left):
            logger.warning("drained in part", extra={"pending": [each.reason for each in left]})
        return left


def _read(ask: Callable[[JobStore], T]) -> Work[T]:
    answer: T = yield Read(ask)
    return answer
