"""The two providers over `chronos.Scheduler`: with NAS, and with the in-process ticker alone.

Both keep their jobs in a store, run them with a runner, and take the same way with a fire: the same
claims, the same policies, the same history. What differs is who fires.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from chronos import arguments
from chronos.agent.runner import Runner, words_of
from chronos.agent.scheduler import Scheduler
from chronos.clock import now_us
from chronos.errors import JobsFileError, NotSettled, StoreError
from chronos.jobs.due import wake_at
from chronos.jobs.instants import Instant
from chronos.jobs.job import CLOCK_ALLOWANCE_US, Verdict
from chronos.nas.client import Nas, NasClient
from chronos.protocol.flow_effects import Answer
from chronos.protocol.state import Pending
from chronos.provider.interface import check_stop_event, given_id
from chronos.provider.settings import Settings
from chronos.stores import JobStore

# Nobody can wait for two events at once. A host that starts a provider again with another stop event
# does not set it within this time; if it does, it is noticed this much later.
_LOOK_S = 1.0


class _OverScheduler:
    """What both providers have in common; see `CronScheduler` for what each method is for."""

    def __init__(self, store: JobStore, nas: Nas | None, runner: Runner, **options: Any) -> None:
        self._store = store
        self._clock: Callable[[], Instant] = options.get("clock", now_us)
        self.scheduler = Scheduler(store, nas, runner, **options)

    def stop(self) -> None:
        """Take no more fires; to wait for runs in flight as well, call `scheduler.drain` after it."""
        self.scheduler.drain(0)

    def on_jobs_changed(self) -> None:
        """Make what fires the jobs agree after a change that was made past the scheduler.

        What `scheduler.create`, `edit`, `pause`, `resume` and `remove` change needs no such call.
        """
        self.reconcile()

    def reconcile(self) -> None:
        """Make what fires the jobs agree with all of them; see `CronScheduler.reconcile`."""
        self.scheduler.reconcile()

    def register_job(self, job: Mapping[str, Any]) -> None:
        """Arm a job that was just saved; see `CronScheduler.register_job`."""
        answer = self.scheduler.edit(given_id("job", job))  # nothing of it, which makes NAS agree and no more
        if not answer.settled:
            raise NotSettled(f"job {answer.job_id}: {answer.reason}")

    def pending(self) -> tuple[Pending, ...]:
        """Return what is unfinished; the host may stop the machine when none of it `is_busy`."""
        return self.scheduler.pending()

    def fire_due(self, job_id: str, *, adapters: Any = None, loop: Any = None) -> bool:
        """Claim what is due and start the run; see `CronScheduler.fire_due`."""
        claimed = self.claim_fire(job_id)
        return claimed is not None and self.fire_claimed(claimed, adapters=adapters, loop=loop)

    def claim_fire(
        self, job_id: str, *, fire_at_us: Instant | None = None, force: bool = False, manual: bool = False
    ) -> dict[str, Any] | None:
        """Claim what is due, arm what comes next, and start the run; see `CronScheduler.claim_fire`.

        The run starts here already, so that a fire whose answer is lost is not lost with it.
        """
        answer = self._answer(job_id, fire_at_us, is_asked_for=force or manual)
        if not answer.settled:
            raise NotSettled(f"job {job_id}: {answer.reason}")
        return {"id": job_id} if answer.verdict is Verdict.ACCEPTED else None

    def _answer(self, job_id: str, fire_at_us: Instant | None, *, is_asked_for: bool) -> Answer:
        if is_asked_for:
            return self.scheduler.run_now(job_id)
        if fire_at_us is None:
            fire_at_us = self._named_by(job_id)
        return self.scheduler.fire(job_id, fire_at_us)

    def _named_by(self, job_id: str) -> Instant:
        """Return the instant of a fire that names none: the one that the job waits for, if it may be that.

        Raises:
            NotSettled: the store cannot say. It is the same to NAS as a claim that could not be stored.
        """
        now_us = self._clock()
        try:
            job = self._store.load(job_id)
        except (StoreError, JobsFileError) as error:
            raise NotSettled(f"job {job_id}: {words_of(error)}") from error
        wake_us = None if job is None else wake_at(job)
        is_its_time = wake_us is not None and wake_us <= now_us + CLOCK_ALLOWANCE_US
        return wake_us if wake_us is not None and is_its_time else now_us

    def fire_claimed(
        self,
        claimed_job: dict[str, Any],  # noqa: ARG002 - the run has started with the claim
        *,
        adapters: Any = None,  # noqa: ARG002
        loop: Any = None,  # noqa: ARG002
        cancel_event: Any = None,  # noqa: ARG002
    ) -> bool:
        """Return that it runs: it has started with the claim, and `pending` lists it while it lasts."""
        return True


class ManagedCron(_OverScheduler):
    """Managed cron: NAS fires the jobs, and between fires the machine may sleep.

    While NAS refuses the agent's identity, the scheduler's own ticker fires the jobs.

    Args:
        store: where the jobs are.
        nas: the client of NAS; it stays the caller's to close.
        runner: runs a job.
        has_login: tells from what is stored, without any network, whether somebody has logged the agent
            in; a token that is old but can be refreshed counts.
        options: the other arguments of `chronos.Scheduler`.

    Attributes:
        scheduler: the scheduler behind it, for changes of jobs, status and drain.

    Raises:
        TypeError: an argument is of another type than its own, or *has_login* is async.
        ValueError: as for `chronos.Scheduler`.
    """

    name = "chronos"

    def __init__(
        self, store: JobStore, nas: Nas, runner: Runner, *, has_login: Callable[[], bool], **options: Any
    ) -> None:
        if nas is None:
            raise TypeError(
                "nas is None; expected a NasClient or the like. Where there is none, use BuiltinCron"
            )
        arguments.function("has_login", has_login)
        super().__init__(store, nas, runner, **options)
        self._has_login = has_login
        # It guards what follows.
        self._lock = threading.Lock()
        self._watched: threading.Event | None = None
        self._is_watching = False

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        store: JobStore,
        runner: Runner,
        *,
        token_provider: Callable[[bool], str],
        has_login: Callable[[], bool],
        **options: Any,
    ) -> ManagedCron:
        """Return a provider with a client of NAS of its own.

        Args:
            settings: as `settings_from` returns them.
            store: where the jobs are.
            runner: runs a job.
            token_provider: returns the agent's access token, a fresh one when its argument is true.
            has_login: as for the class.
            options: as for the class.
        """
        arguments.instance("settings", settings, Settings)
        nas = NasClient(
            settings.portal_url, token_provider=token_provider, callback_url=settings.callback_url
        )
        return cls(store, nas, runner, has_login=has_login, **options)

    def is_available(self) -> bool:
        """Return whether somebody has logged the agent in; the configuration was read before."""
        return not self.why_unavailable()

    def why_unavailable(self) -> str:
        """Return why it is not available; an empty text when it is."""
        return "" if self._has_login() else "nobody has logged the agent in"

    def start(
        self,
        stop_event: threading.Event,
        *,
        adapters: Any = None,  # noqa: ARG002 - a runner brings its own
        loop: Any = None,  # noqa: ARG002
        interval: float = 60,  # noqa: ARG002 - there is no period
    ) -> None:
        """Make NAS agree with the jobs, look after interrupted and overdue runs, and return.

        Calling it again is harmless, and asks NAS again after it has refused the agent's identity.
        """
        check_stop_event(stop_event)
        if stop_event.is_set():
            return
        self._watch_for(stop_event)
        self.scheduler.start()
        if stop_event.is_set():  # it may have been set before the start ended a drain
            self.stop()

    def _watch_for(self, stop_event: threading.Event) -> None:
        """Let the one watcher wait for *stop_event*, and for no other that an earlier start was given."""
        with self._lock:
            self._watched = stop_event
            if not self._is_watching:
                threading.Thread(target=self._watch, name="chronos-stop", daemon=True).start()
                self._is_watching = True

    def _watch(self) -> None:
        while True:
            with self._lock:
                stop_event = self._watched
            assert stop_event is not None
            is_set = stop_event.wait(_LOOK_S)
            with self._lock:
                if is_set and self._watched is stop_event:
                    self._is_watching = False
                    self.stop()
                    return


class BuiltinCron(_OverScheduler):
    """The built-in ticker: the process fires the jobs by itself, for as long as it lives.

    Args:
        store: where the jobs are.
        runner: runs a job.
        options: the other arguments of `chronos.Scheduler`.

    Attributes:
        scheduler: the scheduler behind it.
    """

    name = "builtin"

    def __init__(self, store: JobStore, runner: Runner, **options: Any) -> None:
        super().__init__(store, None, runner, **options)
        self._is_on = False

    def is_available(self) -> bool:
        """Return True: it needs nothing."""
        return True

    def start(
        self,
        stop_event: threading.Event,
        *,
        adapters: Any = None,  # noqa: ARG002 - a runner brings its own
        loop: Any = None,  # noqa: ARG002
        interval: float = 60,
    ) -> None:
        """Fire the jobs until the host stops.

        Args:
            stop_event: ends it at once.
            adapters: not used; a runner brings its own.
            loop: not used.
            interval: how soon it returns after `stop` alone, seconds. Jobs are fired when they are due,
                whatever the interval.
        """
        check_stop_event(stop_event)
        arguments.seconds("interval", interval)
        self._is_on = True
        self.scheduler.start()
        while self._is_on and not stop_event.wait(interval):
            pass
        self.stop()

    def stop(self) -> None:
        """Fire nothing any more."""
        self._is_on = False
        super().stop()
