"""Which provider a host gets: the one that its configuration names, or the built-in ticker.

Cron must not lose its trigger: whatever is wrong with the named provider, jobs run. Source: contract,
"Configuration and fallback".
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

from chronos import arguments
from chronos.agent.runner import words_of
from chronos.provider.interface import CronScheduler

logger = logging.getLogger(__name__)

BUILTIN_NAMES = ("", "builtin", "in-process", "inprocess")
"""What configurations call the built-in ticker."""

Discovered: TypeAlias = "CronScheduler | Callable[[], CronScheduler | None]"
"""A provider, or what makes it. What imports it belongs into the latter, so that it may fail."""

_TRIGGER = "the built-in ticker runs the jobs, for as long as this process lives and no longer"


def resolve(
    wanted: str | None, discovered: Mapping[str, Discovered], fallback: CronScheduler
) -> CronScheduler:
    """Return the provider that a configuration names, or the fallback, with one warning why.

    Of what a provider raises, all but `KeyboardInterrupt` means that it cannot be used: a plugin that
    calls `sys.exit` while it is imported must not take the agent along.

    Args:
        wanted: the name, as configured; empty or None for the built-in ticker. What is no name at all is
            one of no provider, since a configuration must not take the trigger away.
        discovered: the providers that are there, by name.
        fallback: the built-in ticker; it is used when the named provider is missing, fails to load, is
            not available, or raises when it is started.

    Returns:
        The fallback itself, or the named provider behind a `Guarded`.

    Raises:
        TypeError: *discovered* is no mapping, or *fallback* no provider.
    """
    arguments.instance("discovered", discovered, Mapping)
    arguments.methods("fallback", fallback, "a provider", "start", "stop")
    name = wanted.strip() if isinstance(wanted, str) else wanted
    if name is None or name in BUILTIN_NAMES:
        return fallback
    try:
        provider, trouble = _load(name, discovered)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - as the docstring says
        provider, trouble = None, f"it fails to load ({words_of(error)}). Mend or reinstall it"
    if provider is None:
        logger.warning("%s", f"cron.provider is {name!r}, but {trouble}, and restart. Until then {_TRIGGER}")
        return fallback
    return cast(CronScheduler, Guarded(provider, fallback))


def _load(name: str, discovered: Mapping[str, Discovered]) -> tuple[CronScheduler | None, str]:
    """Return a provider that is available; or None, and why."""
    if name not in discovered:
        known = ", ".join(sorted(discovered)) or "none at all"
        return None, f"no such provider was found (found: {known}). Install it or correct the name"
    found: Any = discovered[name]
    # A class has the methods as well, but is what makes a provider.
    if isinstance(found, type) or not hasattr(found, "start"):
        found = found()
    if not callable(getattr(found, "start", None)):
        return None, f"what was loaded is no provider ({found!r}). Mend or reinstall it"
    provider: CronScheduler = found
    if provider.is_available():
        return provider, ""
    say_why = getattr(provider, "why_unavailable", None)
    because = f" ({say_why()})" if say_why is not None else ""
    return None, f"it is not available{because}. Complete its configuration, log the agent in"


class Guarded:
    """A provider with another one behind it, which takes over when its start raises.

    All but the start is passed on to the one that is at work.

    Args:
        provider: the one that was chosen.
        fallback: the other one; once it has taken over, it keeps the work while the process lives.
    """

    def __init__(self, provider: CronScheduler, fallback: CronScheduler) -> None:
        self._active = provider
        self._fallback = fallback

    def start(self, stop_event: threading.Event, **options: Any) -> None:
        """Start the provider, or the fallback when that raises. See `CronScheduler`.

        Raises:
            BaseException: what the fallback's start raises.
        """
        chosen = self._active
        try:
            chosen.start(stop_event, **options)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if chosen is self._fallback:
                raise
            self._take_over(chosen, error)
            if not stop_event.is_set():
                self._fallback.start(stop_event, **options)

    def _take_over(self, chosen: CronScheduler, error: BaseException) -> None:
        self._active = self._fallback
        trouble = f"its start failed ({words_of(error)}). Mend it, and restart. Until then {_TRIGGER}"
        logger.warning("%s", f"cron.provider is {chosen.name!r}, but {trouble}", exc_info=error)
        try:
            chosen.stop()
        except Exception:  # it is broken, as was said
            logger.debug("its stop failed, too", exc_info=True)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._active, name)
