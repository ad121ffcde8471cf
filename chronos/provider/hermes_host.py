"""What is taken from the Hermes agent, imported when it is used and not before.

Its jobs as a store that is only read, its configuration and login as a client of NAS, and its ticker.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import msgspec
from msgspec import Struct

from chronos.errors import JobsFileError, StoreError
from chronos.jobs.instants import Instant
from chronos.jobs.job import Job, Outcome, Unreadable
from chronos.nas.client import Nas
from chronos.nas.exchange import ArmAnswer
from chronos.provider.hermes_jobs import HermesJob, read_hermes_job
from chronos.provider.settings import Settings, settings_from
from chronos.stores import unreadable
from chronos.stores.record import id_of

logger = logging.getLogger(__name__)

# Refreshes the login's token however long it is still good: no token lives for that long.
_FRESH_S = 10**9


class Host(Struct, frozen=True):
    """What Hermes gives a start: when to end, and what its own ticker is started with."""

    stop_event: threading.Event
    options: Mapping[str, Any]
    context: contextvars.Context = msgspec.field(default_factory=contextvars.copy_context)


def own_provider(name: str) -> Any:
    """Return a provider that overrides nothing: Hermes's own way to claim a fire and to run it.

    Raises:
        ImportError: Hermes is not there.
    """
    base = import_module("cron.scheduler_provider").CronScheduler
    return type("Chronos", (base,), {"name": name, "start": lambda *_, **__: None})()


class Jobs:
    """Hermes's jobs as a `JobStore`: they are read here, and moved by nobody but Hermes.

    Args:
        clock: returns the present instant, epoch microseconds, UTC.
    """

    def __init__(self, clock: Callable[[], Instant]) -> None:
        self._clock = clock

    def get(self, job_id: str) -> HermesJob | None:
        """Return a job as Hermes has it now; None when there is none of that id.

        Raises:
            JobsFileError: its record is not what it should be.
            Exception: Hermes could not read its jobs.
        """
        now_us = self._clock()
        raw = import_module("cron.jobs").get_job(job_id)
        return None if raw is None else read_hermes_job(raw, now_us)

    def load(self, job_id: str) -> Job | None:
        """Return a job; see `get`."""
        found = self.get(job_id)
        return None if found is None else found.job

    def load_all(self) -> tuple[Job | Unreadable, ...]:
        """Return all jobs, and the records that cannot be read."""
        now_us = self._clock()
        found: list[Job | Unreadable] = []
        for index, raw in enumerate(import_module("cron.jobs").load_jobs()):
            try:
                each = read_hermes_job(raw, now_us, index=index)
            except JobsFileError as error:
                found.append(unreadable(error, id_of(raw)))
                continue
            if each.is_missed(now_us):
                logger.warning("a one-shot is too late to run", extra={"job_id": each.job.id})
            found.append(each.job)
        return tuple(found)

    def swap(self, job_id: str, **_: object) -> bool:
        """Refuse a move.

        Raises:
            StoreError: always.
        """
        raise StoreError(f"job {job_id} is Hermes's, which alone moves it", definite=True)

    def history(self, job_id: str) -> tuple[Outcome, ...]:  # noqa: ARG002
        """Return no outcomes: Hermes keeps those of its jobs."""
        return ()

    def latest(self) -> Mapping[str, Outcome | Unreadable]:
        """Return no outcomes, likewise."""
        return {}


class Portal:
    """NAS, by a client that is made of Hermes's configuration and login when it is first asked.

    Args:
        client: the client; None for one to be made.
        make: makes it.
    """

    def __init__(self, client: Nas | None, make: Callable[[], Nas]) -> None:
        self._client = client
        self._make = make
        self._lock = threading.Lock()

    def _made(self) -> Nas:
        with self._lock:
            if self._client is None:
                self._client = self._make()
            return self._client

    def provision(
        self, job_id: str, fire_at_us: Instant, *, revision: int, within_s: float | None = None
    ) -> ArmAnswer:
        """Arm a job; see `Nas.provision`."""
        return self._made().provision(job_id, fire_at_us, revision=revision, within_s=within_s)

    def cancel(self, job_id: str, *, revision: int, within_s: float | None = None) -> ArmAnswer:
        """Disarm a job; see `Nas.cancel`."""
        return self._made().cancel(job_id, revision=revision, within_s=within_s)

    def list_arms(self, *, within_s: float | None = None) -> Mapping[str, Instant | None]:
        """Return what is armed; see `Nas.list_arms`."""
        return self._made().list_arms(within_s=within_s)

    def reset(self) -> None:
        """Ask NAS again though it has refused the identity; a client that is not made yet was not refused."""
        if self._client is not None:
            self._client.reset()


def settings() -> Settings:
    """Return the configuration of managed cron; the webhook's verifier is Hermes's own matter.

    Raises:
        SettingsError: it cannot be used as it is.
    """
    return settings_from(import_module("hermes_cli.config").load_config() or {})


def has_login() -> bool:
    """Return whether a login at the portal is stored; nobody is asked whether it is still good."""
    state = import_module("hermes_cli.auth").get_provider_auth_state("nous")
    return bool((state or {}).get("access_token"))


def access_token(is_fresh: bool) -> str:
    """Return the agent's access token, which Hermes refreshes when that is due or asked for."""
    options = {"refresh_skew_seconds": _FRESH_S} if is_fresh else {}
    token: str = import_module("hermes_cli.auth").resolve_nous_access_token(**options)
    return token


class Ticker:
    """Hermes's own ticker in a thread, for as long as NAS is not to be had."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    @property
    def _is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive() and not self._ended.is_set()

    def follow(self, is_wanted: Callable[[], bool], host: Host | None) -> None:
        """Let it run while it is wanted, once there is a start to run it for."""
        with self._lock:
            if not is_wanted():
                self._ended.set()
            elif host is not None and not self._is_running:
                self._begin(host)

    def _begin(self, host: Host) -> None:
        self._ended = threading.Event()
        args = (_tick, _Either(host.stop_event, self._ended), host.options)
        run = host.context.copy().run
        self._thread = threading.Thread(target=run, args=args, name="chronos-ticker", daemon=True)
        self._thread.start()


class _Either(threading.Event):
    """Set when the host stops, or when the ticker has to end."""

    def __init__(self, host: threading.Event, ended: threading.Event) -> None:
        super().__init__()
        self._host = host
        self._ended = ended

    def is_set(self) -> bool:
        return self._host.is_set() or self._ended.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the host; the other one is noticed when the wait is over, which does no harm."""
        return self._host.wait(timeout) or self._ended.is_set()


def _tick(ended: threading.Event, options: Mapping[str, Any]) -> None:
    """Run Hermes's ticker until it is told to end, whatever becomes of it."""
    while not ended.is_set():
        try:
            import_module("cron.scheduler_provider").InProcessCronScheduler().start(ended, **options)
        except BaseException:  # cron must not lose its trigger
            logger.exception("Hermes's ticker failed; it is started again")
        ended.wait(options["interval"])
