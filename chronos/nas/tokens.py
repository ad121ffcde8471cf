"""Providers of the agent's access token that ask for one only when they must.

Source: contract, "Trust": the agent's existing access token, refreshed when near expiry.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from chronos import arguments
from chronos.contract.wire import is_number

# How long before its end a token is no longer used: as long as a call to NAS takes with all its
# retries, 25 s, and what two clocks may differ by, 30 s.
EXPIRY_MARGIN_S = 60.0


class _Cache:
    """The last token. A fetch that ended after somebody asked has made what they asked for."""

    def __init__(self, fetch: object, clock: Callable[[], float], *, may_be_async: bool) -> None:
        arguments.function("fetch", fetch, may_be_async=may_be_async)
        arguments.function("clock", clock)
        self._clock = clock
        self._token: str | None = None
        self._good_until_s = float("-inf")
        self._fetches = 0

    def _cached(self, *, is_fresh: bool, fetches: int) -> str | None:
        """Return the last token, if it will do for who asked after so many fetches."""
        is_good = not is_fresh and self._clock() < self._good_until_s
        return self._token if is_good or self._fetches > fetches else None

    def _keep(self, token: str) -> str:
        expires_s = _expiry_s(token)
        self._good_until_s = float("-inf") if expires_s is None else expires_s - EXPIRY_MARGIN_S
        self._token = token
        self._fetches += 1
        return token


class CachedToken(_Cache):
    """A token provider for `NasClient`, which caches a JWT until shortly before its end; thread-safe.

    It makes one fetch at a time, and who waits for it shares its token. A token that is no JWT, or a
    JWT without an end, is fetched for each request.

    Args:
        fetch: returns an access token that is new. What it raises is raised to who asked.
        clock: returns the present instant, seconds since the epoch.

    Raises:
        TypeError: *fetch* or *clock* is no function, or async.
    """

    def __init__(
        self,
        fetch: Callable[[], str],
        *,
        clock: Callable[[], float] = lambda: time.time(),  # looked up at each call: a test may freeze it
    ) -> None:
        super().__init__(fetch, clock, may_be_async=False)
        self._fetch = fetch
        self._fetching = threading.Lock()

    def __call__(self, is_fresh: bool) -> str:
        """Return an access token; a new one when *is_fresh*, or when the last one ends soon."""
        fetches = self._fetches
        with self._fetching:
            cached = self._cached(is_fresh=is_fresh, fetches=fetches)
            return self._keep(self._fetch()) if cached is None else cached


class AsyncCachedToken(_Cache):
    """A token provider for `AsyncNasClient`, for one event loop. See `CachedToken`.

    Args:
        fetch: returns an access token that is new, async. What is not async goes into `CachedToken`,
            which `AsyncNasClient` calls in a thread.
        clock: returns the present instant, seconds since the epoch.

    Raises:
        TypeError: *fetch* or *clock* is no function.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[str]],
        *,
        clock: Callable[[], float] = lambda: time.time(),
    ) -> None:
        super().__init__(fetch, clock, may_be_async=True)
        self._fetch = fetch
        self._fetching = asyncio.Lock()

    async def __call__(self, is_fresh: bool) -> str:
        """Return an access token; a new one when *is_fresh*, or when the last one ends soon."""
        fetches = self._fetches
        async with self._fetching:
            cached = self._cached(is_fresh=is_fresh, fetches=fetches)
            return self._keep(await self._fetch()) if cached is None else cached


def _expiry_s(token: str) -> float | None:
    """Return when a token ends, seconds since the epoch; None when it does not say.

    The signature is not verified: it is NAS's to judge, and all that is at stake is a fetch.
    """
    import jwt

    try:
        expires_s: Any = jwt.decode(token, options={"verify_signature": False}).get("exp")
    except Exception:  # noqa: BLE001 - whatever a token is, it is a token
        return None
    return float(expires_s) if is_number(expires_s) else None
