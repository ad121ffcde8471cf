"""What the two schedulers have in common: how they are made, and what each request means."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable
from datetime import timedelta
from typing import Any, Generic, TypeVar

import attrs

from chronos import arguments
from chronos.agent import events, telemetry
from chronos.agent.declaring import JobSpec, checked_id, checked_set
from chronos.agent.operations import Pending, Read, Signal, Spawn, Work
from chronos.agent.owner import is_dead, new_owner
from chronos.agent.runner import Runner
from chronos.agent.status import status
from chronos.agent.work import Worker
from chronos.clock import now_us
from chronos.jobs.data import json_of
from chronos.jobs.job import Job, Policy
from chronos.jobs.moments import GivenInstant, instant_of, needed
from chronos.jobs.schedule import (
    DAY_US,
    Cron,
    GivenSchedule,
    Instant,
    ScheduleError,
    format_instant,
    schedule_of,
    zone_of,
)
from chronos.protocol import flow as flows
from chronos.protocol import transitions
from chronos.protocol.clocks import CLOCK_MARGIN_US
from chronos.protocol.draft import Fired
from chronos.protocol.flow import Answer
from chronos.protocol.transitions import Changes
from chronos.stores import JobStore, told_apart

logger = logging.getLogger("chronos.scheduler")

N = TypeVar("N")
T = TypeVar("T")


# How old the identity of a run by hand may be: longer than anything that repeats a request keeps it (90
# days are the longest window of deduplication). What is older is no time at which somebody asked, but a
# number in another unit, or none: it would run once, and be a duplicate of every later run for ever.
OLDEST_REQUEST_US = 366 * DAY_US


class Shell(Generic[N]):
    """A scheduler without a way to perform work; see `chronos.agent.scheduler`."""

    _is_async = False

    def __init__(
        self,
        store: JobStore,
        nas: N | None,
        runner: Runner,
        *,
        owner: str | None = None,
        clock: Callable[[], Instant] = now_us,
        is_dead: Callable[[str], bool] = is_dead,
        is_stopped: Callable[[], bool] = lambda: False,
        hooks: Iterable[events.Hook] = (),
    ) -> None:
        asked = ("load", "load_all", "swap", "history", "latest")
        arguments.methods("store", store, "a JobStore", *asked, is_async=False)
        self._check_nas(nas)
        arguments.function("runner", runner, may_be_async=True)
        if owner is not None:
            arguments.filled("owner", owner)
        arguments.clock_us("clock", clock)
        arguments.function("is_dead", is_dead)
        arguments.function("is_stopped", is_stopped)
        self._store = store
        self._nas = nas
        self._runner = runner
        self._prepare()
        measuring = telemetry.hook()
        self._hooks = (*arguments.functions("hooks", hooks), *((measuring,) if measuring is not None else ()))
        self._work = Worker(
            owner=new_owner() if owner is None else owner,
            clock=clock,
            monotonic=time.monotonic,
            is_dead=is_dead,
            is_stopped=is_stopped,
            has_nas=nas is not None,
            new_signal=self._new_signal,
            publish=self._publish,
        )

    def _check_nas(self, nas: N | None) -> None:
        """Refuse what is no client of NAS, and the client that is made for the other scheduler."""
        if nas is None:
            return
        wanted = "an AsyncNasClient or the like" if self._is_async else "a NasClient or the like"
        asked = ("provision", "cancel", "list_arms")
        arguments.methods("nas", nas, wanted, *asked, is_async=self._is_async)
        arguments.methods("nas", nas, wanted, "reset", is_async=False)

    def _prepare(self) -> None:
        """Make what the way to perform work needs."""

    def _new_signal(self) -> Signal:
        raise NotImplementedError

    @property
    def is_draining(self) -> bool:
        """Whether fires are turned away, for NAS to deliver them again."""
        return self._work.draining.is_set()

    def fire_was_refused(self, why: str) -> None:
        """Note that the endpoint turned a fire away, for `status()`.

        Args:
            why: the reason, for the agent's own people.

        Raises:
            TypeError: *why* is no text.
        """
        arguments.text("why", why)
        self._work.refused = self._work.refused.one_more(self._work.clock(), why)

    def _publish(self, event: events.Event) -> None:
        for hook in self._hooks:
            try:
                hook(event)
            except Exception:  # a hook only looks on
                logger.exception("a hook failed")

    # --- what each request means ---

    def _fire(
        self, job_id: str, fire_at: GivenInstant, minted: GivenInstant, received: GivenInstant
    ) -> Spawn:
        fire_at_us = needed("fire_at", instant_of("fire_at", *fire_at))
        fired = Fired(minted_us=instant_of("minted", *minted), received_us=instant_of("received", *received))
        return self._work.ask(flows.Fire(job_id=checked_id(job_id), fire_at_us=fire_at_us, fired=fired))

    def _create(
        self,
        job_id: str,
        schedule: GivenSchedule,
        tz: str,
        times: int | None,
        policy: Policy | None,
        data: object,
    ) -> Spawn:
        checked_id(job_id)
        arguments.instance("policy", policy, Policy, None)
        now_us = self._work.clock()
        parsed = schedule_of(schedule, now_us=now_us, tz=tz)
        job = transitions.new_job(
            job_id, parsed, now_us=now_us, times=times, policy=policy, data_json=json_of(data)
        )
        return self._work.ask(flows.Create(job_id=job_id, job=job))

    def _edit(
        self,
        job_id: str,
        schedule: GivenSchedule | None,
        tz: str | None,
        times: int | None,
        policy: Policy | None,
        data: object,
    ) -> Spawn:
        checked_id(job_id)
        arguments.instance("policy", policy, Policy, None)
        now_us = self._work.clock()
        zone = "UTC" if tz is None else tz
        zone_of(zone)
        parsed = None if schedule is None else schedule_of(schedule, now_us=now_us, tz=zone)
        data_json = None if data is attrs.NOTHING else json_of(data)
        changes = Changes(
            schedule=parsed,
            is_any_phase=isinstance(schedule, str | timedelta),
            times=times,
            policy=policy,
            data_json=data_json,
        )
        # Of a zone that is not said, or said alone, the job's own schedule tells the rest.
        is_told_by_job = (isinstance(parsed, Cron) and isinstance(schedule, str) and tz is None) or (
            schedule is None and tz is not None
        )
        work = self._edit_like(job_id, changes, tz) if is_told_by_job else None
        asked = self._work.ask(flows.Edit(job_id=job_id, changes=changes))
        return asked if work is None else Spawn(work, asked.pending)

    def _edit_like(self, job_id: str, changes: Changes, tz: str | None) -> Work[Answer]:
        """Edit a job whose stored schedule tells the zone, or the expression."""
        job: Job | None = yield Read(lambda store: store.load(job_id))
        now = None if job is None else job.schedule
        if isinstance(now, Cron) and isinstance(changes.schedule, Cron):
            changes = attrs.evolve(changes, schedule=Cron(expr=changes.schedule.expr, tz=now.tz))
        elif isinstance(now, Cron) and tz is not None:
            changes = attrs.evolve(changes, schedule=Cron(expr=now.expr, tz=tz))
        elif changes.schedule is None and job is not None:
            raise ScheduleError(f"tz is {tz!r}, but {job_id} has no cron expression that it could be of")
        answer: Answer = yield from self._work.ask(flows.Edit(job_id=job_id, changes=changes)).work
        return answer

    def _declare(self, jobs: Iterable[JobSpec], remove_others: bool) -> Spawn:
        arguments.flag("remove_others", remove_others)
        specs, now_us = checked_set(jobs), self._work.clock()
        wanted = [spec.declared(now_us) for spec in specs]
        work = self._work.declare(wanted, removes_others=remove_others)
        return self._listed(work, "the declared jobs are looked after")

    def _pause(self, job_id: str, note: str) -> Spawn:
        arguments.text("note", note)
        return self._work.ask(flows.Pause(job_id=checked_id(job_id), note=note))

    def _resume(self, job_id: str, from_now: bool) -> Spawn:
        arguments.flag("from_now", from_now)
        return self._work.ask(flows.Resume(job_id=checked_id(job_id), from_now=from_now))

    def _remove(self, job_id: str) -> Spawn:
        return self._work.ask(flows.Remove(job_id=checked_id(job_id)))

    def _run_now(self, job_id: str, asked: GivenInstant) -> Spawn:
        asked_us, now_us = instant_of("asked", *asked), self._work.clock()
        if asked_us is not None and asked_us > now_us + CLOCK_MARGIN_US:
            # It would make older requests of all that come.
            raise ValueError(f"asked is {format_instant(asked_us)}, which is still to come")
        if asked_us is not None and asked_us < now_us - OLDEST_REQUEST_US:
            since = format_instant(now_us - OLDEST_REQUEST_US)
            raise ValueError(f"asked is {format_instant(asked_us)}; expected an instant after {since}")
        return self._work.ask(flows.RunNow(job_id=checked_id(job_id), asked_us=asked_us))

    def _start(self) -> Spawn:
        return self._listed(self._work.start(), "the start is reconciling")

    def _status(self) -> Spawn:
        return Spawn(status(self._work), None)

    def _get(self, job_id: str) -> Spawn:
        arguments.text("job_id", job_id)
        return Spawn(_read(lambda store: store.load(job_id)), None)

    def _jobs(self) -> Spawn:
        return Spawn(_read(lambda store: told_apart(store.load_all())[0]), None)

    def _history(self, job_id: str) -> Spawn:
        arguments.text("job_id", job_id)
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
