"""The provider for the Hermes agent: its own jobs, claims and runs, and NAS's arms.

Hermes loads it as a plugin: `register` is the entry point. Jobs stay where Hermes keeps them
(`cron.jobs`), and a fire is claimed and run by what every provider of Hermes inherits
(`cron.scheduler_provider.CronScheduler`, which calls `claim_job_for_fire` and `run_one_job`). What is
added is that NAS agrees with the job at every step: when it changes, after each claim, lost ones
included, before the fire is answered, and after each run. That is asked of a scheduler whose flows are
those of `chronos.provider.hermes_arms`, and which decides all else as any other does.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from chronos import arguments
from chronos.agent.runner import RunContext, words_of
from chronos.agent.scheduler import Scheduler
from chronos.clock import now_us
from chronos.errors import JobsFileError, NotSettled, SettingsError
from chronos.jobs.instants import Instant, format_instant, whole_second
from chronos.jobs.job import LEASE_US
from chronos.nas.client import Nas, NasClient
from chronos.protocol.clocks import CLOCK_MARGIN_US
from chronos.protocol.flow import ProtocolError
from chronos.protocol.flow_effects import Answer
from chronos.protocol.process_effects import Asked, Effect, Event
from chronos.protocol.state import Pending
from chronos.protocol.words import DRAINING
from chronos.provider import hermes_host
from chronos.provider.hermes_arms import RULES, Rearm
from chronos.provider.hermes_host import Host, Jobs, Portal, Ticker
from chronos.provider.interface import check_stop_event, given_id

logger = logging.getLogger(__name__)


class Context(Protocol):
    """What a plugin of Hermes is given to register itself."""

    def register_cron_scheduler(self, provider: Any) -> None:
        """Take a provider."""


def register(ctx: Context) -> None:
    """Register the provider with Hermes; the entry point that `plugin.yaml` names.

    Args:
        ctx: Hermes's plugin context.
    """
    ctx.register_cron_scheduler(HermesCron())


def _run(context: RunContext) -> None:
    raise ProtocolError(f"{context.job_id}: Hermes runs its jobs")


class _Arms(Scheduler):
    """The scheduler that makes NAS agree with Hermes's jobs; it claims and runs none of them."""

    _rules = RULES

    def __init__(self, *args: Any, follow: Callable[[], None], **options: Any) -> None:
        super().__init__(*args, **options)
        self._follow = follow

    def _step(self, event: Event) -> list[Effect]:
        was_ticking = self.is_ticking
        effects = super()._step(event)
        if self.is_ticking is not was_ticking:
            self._follow()
        return effects

    @property
    def is_ticking(self) -> bool:
        """Whether this process fires the jobs by itself."""
        return self._process.ticker.is_running

    def now_us(self) -> Instant:
        """Return the present instant: NAS's, while this machine's clock is not believed."""
        return self._clock()

    def rearm(self, job_id: str, **how: Any) -> Answer:
        """Make NAS agree with a job; *how* are the other attributes of `Rearm`."""
        answer: Answer = self._ask(Asked, Rearm(job_id=job_id, **how))
        return answer


class HermesCron:
    """Managed cron over Hermes's own job functions; see `CronScheduler` for what each method is for.

    While NAS refuses the agent's identity, Hermes's own ticker fires the jobs. What else Hermes asks of
    a provider is answered by Hermes's own defaults.

    Args:
        nas: the client of NAS; None makes one from Hermes's configuration and login when it is needed.
        clock: returns the present instant, epoch microseconds, UTC.
    """

    name = "chronos"

    def __init__(self, nas: Nas | None = None, *, clock: Callable[[], Instant] = now_us) -> None:
        arguments.function("clock", clock)
        self._lock = threading.Lock()
        self._host: Host | None = None
        self._own: Any = None
        self._claimed: dict[str, Instant] = {}
        self._running: Counter[str] = Counter()
        self._ticker = Ticker()
        self._jobs = Jobs(clock)
        self._arms = _Arms(self._jobs, Portal(nas, _client), _run, clock=clock, follow=self._follow)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return getattr(self._hermes(), name)
        except ImportError as error:
            raise AttributeError(f"{name}, and there is no Hermes to ask for it") from error

    def _hermes(self) -> Any:
        if self._own is None:
            self._own = hermes_host.own_provider(self.name)
        return self._own

    # --- whether it can be used ---

    def is_available(self) -> bool:
        """Return whether Hermes is configured and logged in for managed cron; nobody else is asked."""
        return not self.why_unavailable()

    def why_unavailable(self) -> str:
        """Return why it is not available; an empty text when it is."""
        try:
            hermes_host.settings()
            has_login = hermes_host.has_login()
            can_split = hasattr(self._hermes(), "claim_fire")
        except SettingsError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - whatever Hermes raises, it cannot be used
            return f"Hermes could not be asked: {words_of(error)}"
        if not can_split:
            return "this Hermes is too old: its providers cannot claim a fire before they run it"
        return "" if has_login else "nobody has logged the agent in at the portal"

    # --- the life of the process ---

    def start(
        self, stop_event: threading.Event, *, adapters: Any = None, loop: Any = None, interval: float = 60
    ) -> None:
        """Make NAS agree with all jobs, and return. Calling it again asks NAS again, and no more.

        At the first start of the process, Hermes records the runs that an earlier process left.
        """
        check_stop_event(stop_event)
        if stop_event.is_set():
            return
        is_first = self._host is None
        self._host = Host(stop_event, {"adapters": adapters, "loop": loop, "interval": interval})
        if is_first:
            self._recover()
        self._arms.start()
        self._follow()  # that of an earlier start has ended with it

    def _recover(self) -> None:
        try:
            self._hermes().recover_interrupted()
        except Exception:  # arms are more important than the record of what is over
            logger.exception("Hermes could not record its interrupted runs")

    def _follow(self) -> None:
        """Let Hermes's ticker fire the jobs while this process would, if it was started for them."""
        self._ticker.follow(lambda: self._arms.is_ticking, self._host)

    def stop(self) -> None:
        """Take no more fires, and let Hermes's ticker fire nothing where it is running."""
        self._arms.drain(0)

    def pending(self) -> tuple[Pending, ...]:
        """Return what is unfinished; the host may stop the machine when none of it `is_busy`.

        A claim that nobody has begun to run counts until its lease is over. Source: incident W1.
        """
        now_us = self._arms.now_us()
        with self._lock:
            claimed = [job_id for job_id, at_us in self._claimed.items() if now_us < at_us + LEASE_US]
            busy = [(job_id, "it was claimed, and its run begins") for job_id in claimed]
            busy += [(job_id, "its run is in flight") for job_id in self._running]
        found = (Pending(job_id=job_id, reason=reason, is_busy=True) for job_id, reason in busy)
        return (*found, *self._arms.pending())

    # --- changes ---

    def on_jobs_changed(self) -> None:
        """Make NAS agree after a change of any job."""
        self.reconcile()

    def register_job(self, job: Mapping[str, Any]) -> None:
        """Arm a job that was just saved.

        Raises:
            NotSettled: NAS has not agreed; it is tried again, ever more slowly.
        """
        job_id = given_id("job", job)
        self._settled(self._arms.rearm(job_id))

    def reconcile(self) -> None:
        """Make NAS agree with all jobs: one list request, and one request for each difference."""
        self._arms.reconcile()

    def _settled(self, answer: Answer) -> None:
        if not answer.settled:
            raise NotSettled(f"NAS has not agreed to the arm of job {answer.job_id}: {answer.trouble}")

    # --- fires ---

    def fire_due(
        self,
        job_id: str,
        *,
        adapters: Any = None,
        loop: Any = None,
        force: bool = False,
        manual: bool = False,
    ) -> bool:
        """Claim what is due of a job, and run it in this thread; see `CronScheduler.fire_due`."""
        claimed = self.claim_fire(job_id, force=force, manual=manual)
        return claimed is not None and self.fire_claimed(claimed, adapters=adapters, loop=loop)

    def claim_fire(
        self, job_id: str, *, fire_at_us: Instant | None = None, force: bool = False, manual: bool = False
    ) -> dict[str, Any] | None:
        """Claim by Hermes, and arm what comes next, whether the claim was won or lost.

        A fire before the next occurrence is not claimed, since it repeats one that was settled. One
        that the host asks for (*force*, *manual*) is claimed whenever it comes.

        Returns:
            Hermes's claimed job, for `fire_claimed`; None when there is nothing to run.

        Raises:
            NotSettled: nothing was claimed and NAS has not agreed: it must deliver the fire again.
            Exception: Hermes could not store the claim; likewise.

        Source: incidents D1, L1, L5, L6, L7, T2.
        """
        if self._arms.is_draining:
            raise NotSettled(f"job {job_id}: {DRAINING}")
        asked = {name: True for name, is_so in (("force", force), ("manual", manual)) if is_so}
        if not asked and fire_at_us is not None and fire_at_us > self._arms.now_us() + CLOCK_MARGIN_US:
            self._turn_away(job_id, fire_at_us)
            return None
        claimed: dict[str, Any] | None = None
        if asked or self._may_claim(job_id, fire_at_us):
            claimed = self._hermes().claim_fire(job_id, **asked)
        now_us = self._arms.now_us()
        if claimed is not None:
            with self._lock:
                self._claimed[job_id] = now_us
            # The claim stands whatever NAS says: the run begins, and the arm is tried again meanwhile.
            self._arms.rearm(job_id, spent_us=now_us, is_answering=True)
            return claimed
        spent_us = now_us if fire_at_us is None else fire_at_us
        self._settled(self._arms.rearm(job_id, spent_us=spent_us, is_lost=not asked, is_answering=True))
        return None

    def _turn_away(self, job_id: str, fire_at_us: Instant) -> None:
        """Claim nothing for an instant that is still to come; what the job wants NAS must deliver again."""
        self._settled(self._arms.rearm(job_id, is_answering=True))
        job = self._jobs.get(job_id)
        due_us = None if job is None else job.due_us
        if due_us is not None and whole_second(due_us) <= fire_at_us:
            raise NotSettled(f"job {job_id}: {format_instant(fire_at_us)} is still to come")

    def _may_claim(self, job_id: str, fire_at_us: Instant | None) -> bool:
        now_us = self._arms.now_us()
        try:
            job = self._jobs.get(job_id)
        except JobsFileError:
            return True  # Hermes may understand what it wrote
        if job is None:
            return False
        if job.is_missed(now_us):
            logger.warning("a fire came too late for its one-shot", extra={"job_id": job_id})
            return False
        return not job.is_early(fire_at_us, now_us)

    def fire_claimed(
        self,
        claimed_job: dict[str, Any],
        *,
        adapters: Any = None,
        loop: Any = None,
        cancel_event: Any = None,
    ) -> bool:
        """Run what was claimed, by Hermes, and make NAS agree with what the run has left.

        Its job may have been paused, removed or completed meanwhile (incidents D6, O4), and a NAS of
        contract 1.0 may have deleted the new arm with the old one (L10).
        """
        job_id = given_id("claimed_job", claimed_job)
        with self._lock:
            self._claimed.pop(job_id, None)
            self._running[job_id] += 1
        has_run = False
        try:
            has_run = bool(
                self._hermes().fire_claimed(
                    claimed_job, adapters=adapters, loop=loop, cancel_event=cancel_event
                )
            )
        finally:
            # Still listed as busy: a machine that is stopped now would not arm.
            self._arms.rearm(job_id, spent_us=self._arms.now_us(), is_lost=not has_run)
            with self._lock:
                self._running[job_id] -= 1
                self._running += Counter()  # drops what is at zero
        return has_run

    def rearm_aborted_claim(self, claimed_job: Mapping[str, Any]) -> None:
        """Arm a job whose claim Hermes has taken back before its run began.

        Raises:
            NotSettled: NAS has not agreed; it is tried again, ever more slowly.
        """
        job_id = str(claimed_job["id"])
        with self._lock:
            self._claimed.pop(job_id, None)
        self._settled(self._arms.rearm(job_id, spent_us=self._arms.now_us()))


def _client() -> Nas:
    settings = hermes_host.settings()
    return NasClient(
        settings.portal_url,
        token_provider=hermes_host.access_token,
        callback_url=settings.callback_url,
    )
