"""Tokens and keys: agents that verify fires in the ways of the incidents, with all else that ships."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from chronos.contract import messages
from chronos.errors import TokenError
from chronos.fire.verify import FireVerifier
from simulator.agents import Agent


class FetchesEveryTime:
    """W5: the keys are fetched for every fire, until NAS refuses to tell them."""

    def __init__(
        self, audience: str, *, jwks_url: str, fetch: Callable[[str], Awaitable[Any]], **given: Any
    ) -> None:
        self._audience, self._url, self._fetch = audience, jwks_url, fetch
        self._given = {name: each for name, each in given.items() if name != "jwks"}
        self._latest: FireVerifier | None = None

    async def verify(self, token: str) -> Any:
        """Fetch the keys, and verify by them."""
        try:
            jwks = await self._fetch(self._url)
        except OSError as error:
            raise TokenError(f"there are no keys: {error}") from error
        self._latest = FireVerifier(self._audience, jwks=jwks, **self._given)
        return await self._latest.verify(token)

    def spend(self, *used: Any) -> Any:
        """Note what is used, among the fires of a moment."""
        assert self._latest is not None
        return self._latest.spend(*used)


def pinned(audience: str, *, jwks_url: str, fetch: Any, **given: Any) -> FireVerifier:
    """W6: the keys are those of its deployment, for good."""
    del jwks_url, fetch
    return FireVerifier(audience, **given)


class ChecksNoPurpose(FireVerifier):
    """W8: whatever NAS has signed for this agent is taken for a fire."""

    async def _signed_by_nas(self, token: str, algorithm: str, kid: str | None) -> dict[str, Any]:
        raw = await super()._signed_by_nas(token, algorithm, kid)
        return {**raw, "purpose": messages.PURPOSE}


FETCHES_EVERY_TIME = Agent(name="fetches the keys for every fire", verifier=FetchesEveryTime)
PINS_ITS_KEYS = Agent(name="pins its keys", verifier=pinned)
CHECKS_NO_PURPOSE = Agent(name="checks no purpose", verifier=ChecksNoPurpose)
