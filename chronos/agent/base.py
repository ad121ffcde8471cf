"""The common part of both schedulers: how they are made, what each request means, and which events they tell.

A scheduler holds one `chronos.protocol.state.Process` and performs what it asks for. It decides nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs

from chronos import arguments, events
from chronos.agent import telemetry
from chronos.agent.declaring import JobSpec, checked_id, checked_set
from chronos.agent.effects import event_of
from chronos.agent.log import log_event, log_line
from chronos.agent.owner import is_dead, new_owner
from chronos.agent.refused import RefusedFires
from chronos.agent.runner import RunContext, Runner
from chronos.clock import now_us, steady_us
from chronos.errors import ScheduleError
from chronos.jobs.data import json_of, value_of
from chronos.jobs.instants import DAY_US, SECOND_US, GivenInstant, Instant, format_instant, instant_of, needed
from chronos.jobs.job import Job, Outcome, Unreadable
from chronos.jobs.policy import Policy
from chronos.jobs.schedule import Cron, GivenSchedule, schedule_of
from chronos.jobs.zones import zone_of
from chronos.protocol import job_changes, state
from chronos.protocol.clocks import CLOCK_MARGIN_US
from chronos.protocol.draft import Fired
from chronos.protocol.flow_effects import Effect, Event
from chronos.protocol.intents import Create, Declare, Fire, Intent, Pause, Remove, Resume, RunNow
from chronos.protocol.job_changes import Changes
from chronos.protocol.pending import pending
from chronos.protocol.process import step
from chronos.protocol.process_effects import (
    Broke,
    CallRunner,
    CannotRing,
    Log,
    Perform,
    RunBroke,
    RunEnded,
    Tell,
    TellRunner,
)
from chronos.protocol.process_effects import Effect as ProcessEffect
from chronos.protocol.process_effects import Event as ProcessEvent
from chronos.protocol.state import RULES, Now, Pending, new_process
from chronos.stores import JobStore, told_apart

if TYPE_CHECKING:
    from chronos.agent.status import Status

logger = logging.getLogger("chronos.scheduler")

N = TypeVar("N")
T = TypeVar("T")


# How old the identity of a run by hand may be: longer than anything that repeats a request keeps it (90
# days are the longest window of deduplication). What is older is no time at which somebody asked, but a
# number in another unit, or none: it would run once, and be a duplicate of every later run for ever.
OLDEST_REQUEST_US = 366 * DAY_US


class Base(Generic[N]):
    """A scheduler without a way to perform anything; see `chronos.agent.threads` and `.asyncio`."""

    _is_async = False
    _rules = RULES

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
        self._wall, self._is_dead, self._is_stopped = clock, is_dead, is_stopped
        self._steady = steady_us
        own_name = new_owner() if owner is None else owner
        self._process = new_process(own_name, has_nas=nas is not None, rules=self._rules)
        self._now = Now(0, 0)
        self._contexts: dict[object, RunContext] = {}
        self._refused = RefusedFires()
        measuring = telemetry.hook()
        self._hooks = (*arguments.functions("hooks", hooks), *((measuring,) if measuring is not None else ()))
        self._prepare()

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

    @property
    def is_draining(self) -> bool:
        """Whether fires are turned away, for NAS to deliver them again."""
        return self._process.is_draining

    def fire_was_refused(self, why: str) -> None:
        """Note that the endpoint turned a fire away, for `status()`.

        Args:
            why: the reason, for the agent's own people.

        Raises:
            TypeError: *why* is no text.
        """
        arguments.text("why", why)
        self._refused = self._refused.one_more(self._clock(), why)

    def _status(
        self,
        listed: object,
        records: tuple[Job | Unreadable, ...],
        newest: Mapping[str, Outcome | Unreadable],
    ) -> Status:
        from chronos.agent.status import status_of  # most starts of an agent are never asked

        return status_of(self._process, self._read_now(), self._refused, listed, records, newest)

    # --- the process ---

    def _step(self, event: ProcessEvent) -> list[ProcessEffect]:
        """Let an event happen to the process, tell the hooks, and return the effects to perform."""
        if not isinstance(event, Broke | RunBroke | CannotRing):
            self._now = self._read_now()
        self._process, effects = step(self._process, event, self._now)
        if isinstance(event, RunEnded | RunBroke):
            self._contexts.pop(event.key, None)
        left: list[ProcessEffect] = []
        for effect in effects:
            match effect:
                case Tell(event=told):
                    log_event(told)
                    self._publish(told)
                case Log():
                    log_line(effect)
                case TellRunner(key=key):
                    self._contexts[key].timed_out.set()
                case _:
                    left.append(effect)
        return left

    def _publish(self, event: events.Event) -> None:
        for hook in self._hooks:
            try:
                hook(event)
            except Exception:  # a hook only looks on
                logger.exception("a hook failed")

    def _is_told_to_stop(self) -> bool:
        """Return whether the agent is told to run no jobs; where that cannot be told, it is."""
        try:
            return self._is_stopped()
        except Exception:  # nothing may run that perhaps must not
            logger.exception("it cannot be told whether the agent is told to run no jobs")
            return True

    def _present(self) -> Now:
        """Return the present for a look at the process; what it does not need is not asked."""
        needs_clock = self._process.reading is not None
        return Now(self._wall() if needs_clock else 0, self._steady(), self._is_told_to_stop())

    def _read_now(self) -> Now:
        return Now(self._wall(), self._steady(), self._is_told_to_stop())

    def _clock(self) -> Instant:
        """Return the present instant: NAS's, while this machine's clock is not believed."""
        return state.clock_of(self._process.reading, Now(self._wall(), self._steady()))

    def _pending(self) -> tuple[Pending, ...]:
        return pending(self._process, self._present())

    def _ticket_of(self, effect: Perform) -> object:
        """Return the ticket of the caller who waits for *effect*; None without one."""
        task = self._process.tasks.get(effect.number)
        purpose = None if task is None else task.purpose
        return purpose.ticket if isinstance(purpose, state.ForCaller | state.ForLook) else None

    def _event_of(self, effect: Effect, result: Any) -> Event:
        own = self._process.owner
        return event_of(effect, result, lambda owner: owner != own and self._is_dead(owner))

    def _context(self, effect: CallRunner) -> RunContext:
        """Return what the runner of a run is told."""
        started, limit_us = effect.started, effect.started.time_limit_us
        context = self._contexts[effect.key] = RunContext(
            job_id=started.job_id,
            occurrence_us=started.run.occurrence_us,
            attempt=started.run.attempt,
            origin=started.run.origin,
            data=value_of(started.data_json),
            deadline_s=None if limit_us is None else time.monotonic() + limit_us / SECOND_US,
        )
        return context

    # --- what each request means ---

    def _fire(
        self, job_id: str, fire_at: GivenInstant, minted: GivenInstant, received: GivenInstant
    ) -> Intent:
        fire_at_us = needed("fire_at", instant_of("fire_at", *fire_at))
        fired = Fired(minted_us=instant_of("minted", *minted), received_us=instant_of("received", *received))
        return Fire(job_id=checked_id(job_id), fire_at_us=fire_at_us, fired=fired)

    def _create(
        self,
        job_id: str,
        schedule: GivenSchedule,
        tz: str,
        times: int | None,
        policy: Policy | None,
        data: object,
    ) -> Intent:
        checked_id(job_id)
        arguments.instance("policy", policy, Policy, None)
        now_us = self._clock()
        parsed = schedule_of(schedule, now_us=now_us, tz=tz)
        job = job_changes.new_job(
            job_id, parsed, now_us=now_us, times=times, policy=policy, data_json=json_of(data)
        )
        return Create(job_id=job_id, job=job)

    def _edit(
        self,
        job_id: str,
        schedule: GivenSchedule | None,
        tz: str | None,
        times: int | None,
        policy: Policy | None,
        data: object,
    ) -> tuple[Changes, bool]:
        checked_id(job_id)
        arguments.instance("policy", policy, Policy, None)
        now_us = self._clock()
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
        return changes, is_told_by_job

    def _edit_like(self, job_id: str, job: Job | None, changes: Changes, tz: str | None) -> Changes:
        """Return the changes of a job whose stored schedule tells the zone, or the expression."""
        now = None if job is None else job.schedule
        if isinstance(now, Cron) and isinstance(changes.schedule, Cron):
            return attrs.evolve(changes, schedule=Cron(expr=changes.schedule.expr, tz=now.tz))
        if isinstance(now, Cron) and tz is not None:
            return attrs.evolve(changes, schedule=Cron(expr=now.expr, tz=tz))
        if changes.schedule is None and job is not None:
            raise ScheduleError(f"tz is {tz!r}, but {job_id} has no cron expression that it could be of")
        return changes

    def _declare(self, jobs: Iterable[JobSpec], remove_others: bool) -> tuple[Declare, ...]:
        arguments.flag("remove_others", remove_others)
        specs, now_us = checked_set(jobs), self._clock()
        return tuple(spec.declared(now_us) for spec in specs)

    def _pause(self, job_id: str, note: str) -> Intent:
        arguments.text("note", note)
        return Pause(job_id=checked_id(job_id), note=note)

    def _resume(self, job_id: str, from_now: bool) -> Intent:
        arguments.flag("from_now", from_now)
        return Resume(job_id=checked_id(job_id), from_now=from_now)

    def _remove(self, job_id: str) -> Intent:
        return Remove(job_id=checked_id(job_id))

    def _run_now(self, job_id: str, asked: GivenInstant) -> Intent:
        asked_us, now_us = instant_of("asked", *asked), self._clock()
        if asked_us is not None and asked_us > now_us + CLOCK_MARGIN_US:
            # It would make older requests of all that come.
            raise ValueError(f"asked is {format_instant(asked_us)}, which is still to come")
        if asked_us is not None and asked_us < now_us - OLDEST_REQUEST_US:
            since = format_instant(now_us - OLDEST_REQUEST_US)
            raise ValueError(f"asked is {format_instant(asked_us)}; expected an instant after {since}")
        return RunNow(job_id=checked_id(job_id), asked_us=asked_us)

    def _drained(self, left: tuple[Pending, ...]) -> tuple[Pending, ...]:
        if any(each.is_busy for each in left):
            logger.warning("drained in part", extra={"pending": [each.reason for each in left]})
        return left

    def _note_failed_timer(self, error: BaseException) -> None:
        logger.error("a timer failed, and rings again", exc_info=error)

    def _note_bug(self, error: BaseException, job_id: str = "") -> None:
        logger.error("a flow ended with a bug", exc_info=error, extra={"job_id": job_id})


def load(job_id: str) -> Callable[[JobStore], Job | None]:
    """Return the question for a job."""
    arguments.text("job_id", job_id)
    return lambda store: store.load(job_id)


def load_jobs(store: JobStore) -> tuple[Job, ...]:
    """Return all jobs that can be read."""
    return told_apart(store.load_all())[0]


def history(job_id: str) -> Callable[[JobStore], tuple[Outcome, ...]]:
    """Return the question for the outcomes of a job."""
    arguments.text("job_id", job_id)
    return lambda store: tuple(store.history(job_id))


def seen(store: JobStore) -> tuple[tuple[Job | Unreadable, ...], Mapping[str, Outcome | Unreadable]]:
    """Return all records, and the latest outcome of each job."""
    return store.load_all(), store.latest()
