"""What is taken from the Hermes agent, imported when it is used and not before."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import attrs

from chronos.jobs.schedule import Instant
from chronos.provider.hermes_jobs import HermesJob, read_hermes_job
from chronos.provider.settings import Settings, settings_from

logger = logging.getLogger(__name__)

# Refreshes the login's token however long it is still good: no token lives for that long.
_FRESH_S = 10**9


@attrs.frozen
class Host:
    """What Hermes gives a start: when to end, and what its own ticker is to be started with."""

    stop_event: threading.Event
    options: Mapping[str, Any]


def own_provider(name: str) -> Any:
    """Return a provider that overrides nothing: Hermes's own way to claim a fire and to run it.

    Raises:
        ImportError: Hermes is not there.
    """
    base = import_module("cron.scheduler_provider").CronScheduler
    return type("Chronos", (base,), {"name": name, "start": lambda *_, **__: None})()


def get_job(job_id: str, now_us: Instant) -> HermesJob | None:
    """Return a job as Hermes has it now; None when there is none of that id.

    Raises:
        JobsFileError: its record is not what it should be.
        Exception: Hermes could not read its jobs.
    """
    raw = import_module("cron.jobs").get_job(job_id)
    return None if raw is None else read_hermes_job(raw, now_us)


def load_jobs() -> list[Mapping[str, Any]]:
    """Return the records of all jobs."""
    return list(import_module("cron.jobs").load_jobs())


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
    def is_running(self) -> bool:
        """Whether it fires the jobs."""
        return self._thread is not None and self._thread.is_alive() and not self._ended.is_set()

    def begin(self, host: Host) -> None:
        """Start it, unless it is running."""
        with self._lock:
            if self.is_running:
                return
            self._ended = threading.Event()
            args = (_Either(host.stop_event, self._ended), host.options)
            self._thread = threading.Thread(target=_tick, args=args, name="chronos-ticker", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Let it fire nothing any more."""
        with self._lock:
            self._ended.set()


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
