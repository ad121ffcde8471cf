"""Verification of the token that a fire carries.

Signature, algorithm, audience and issuer are PyJWT's work. What is added here: the instants are
checked against an injected clock, the token must say that it is for a fire, and NAS's keys are
cached, fetched again for an unknown key, and never more often than `REFETCH_EVERY_S`.

Source: contract, "Trust"; incidents W4, W5, W6, W8.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from chronos.errors import TokenError
from chronos.nas import USER_AGENT, call
from chronos.protocol.messages import FireClaims
from chronos.protocol.wire import decode

logger = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384")
"""Asymmetric ones alone: with a symmetric one, NAS's public key would be a secret that all know."""

# The contract's allowance for clocks that differ.
LEEWAY_S = 30.0

# A fire's token has some 700 characters. What is much longer is not worth a signature check.
MAX_TOKEN_LENGTH = 8192

# How soon the keys may be fetched again. A fetch for each fire got agents rate-limited (W5); six in a
# minute do not, and a fire that meets a new key too soon is delivered again.
REFETCH_EVERY_S = 10.0

# How old the keys may be: a key that NAS withdrew is believed no longer, as long as NAS can be reached.
MAX_KEY_AGE_S = 3600.0

# A fetch is part of answering a fire, whose caller waits some 30 s.
FETCH_TIMEOUT_S = 5.0

Fetch: TypeAlias = Callable[[str], "Mapping[str, Any] | Awaitable[Mapping[str, Any]]"]
"""Returns the JWKS at a URL. What it raises means that there is none at the moment."""


class FireVerifier:
    """Verifies the tokens of fires; one for the whole process, since it caches NAS's keys.

    Args:
        audience: this agent, `agent:{instance_id}`.
        issuer: NAS's base URL, compared exactly; None accepts any.
        jwks_url: where NAS publishes its keys.
        jwks: NAS's keys as a JWKS, known from the start; without `jwks_url`, for good.
        fetch: how to fetch `jwks_url`, sync (then it runs in a thread) or async; None is an HTTP GET.
        clock: returns the present instant, seconds since the epoch.

    Raises:
        ValueError: no audience, or neither `jwks_url` nor `jwks`.
    """

    def __init__(
        self,
        audience: str,
        *,
        issuer: str | None = None,
        jwks_url: str | None = None,
        jwks: Mapping[str, Any] | None = None,
        fetch: Fetch | None = None,
        clock: Callable[[], float] = lambda: time.time(),  # looked up at each call: a test may freeze it
    ) -> None:
        if not audience:
            raise ValueError("the audience is empty; expected agent:{instance_id}")
        if jwks_url is None and jwks is None:
            raise ValueError("expected jwks_url or jwks: without NAS's keys no fire can be verified")
        self._audience = audience
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._fetch = fetch or _get
        self._clock = clock
        self._keys = () if jwks is None else _usable(jwks)
        self._tried_s: float | None = None
        self._fetched_s: float | None = None if jwks is None else clock()
        self._fetching = asyncio.Lock()

    async def verify(self, token: str) -> FireClaims:
        """Return what *token* says, if it is good for a fire of this agent.

        Args:
            token: the bearer token, as received.

        Raises:
            TokenError: it is not good, or there is no key to tell by. Answer 401 and run nothing; the
                message is for the log alone.
        """
        try:
            return await self._verify(token)
        except TokenError:
            raise
        except Exception as error:  # whatever a hostile token provokes, it is a bad token
            raise TokenError(f"the token is not good: {type(error).__name__}: {error}") from error

    async def _verify(self, token: str) -> FireClaims:
        import jwt

        if len(token) > MAX_TOKEN_LENGTH:
            raise TokenError(f"the token has {len(token)} characters; expected {MAX_TOKEN_LENGTH} at most")
        header = jwt.get_unverified_header(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS:
            raise TokenError(f"algorithm {algorithm!r} is not one of {', '.join(ALGORITHMS)}")
        claims = jwt.decode(
            token,
            jwt.PyJWK(dict(await self._key(algorithm, kid)), algorithm),
            algorithms=[algorithm],
            audience=self._audience,
            issuer=self._issuer,
            # The instants are checked below, against the injected clock.
            options={
                "require": ["exp", "aud"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
        # PyJWT has found this agent in the audience, which may be a list of several.
        return self._in_time(decode(FireClaims, {**claims, "aud": self._audience}))

    def _in_time(self, claims: FireClaims) -> FireClaims:
        """Return *claims*, if the present instant lies within them."""
        now_s = self._clock()
        if now_s >= claims.exp + LEEWAY_S:
            raise TokenError(f"the token expired at {claims.exp:.0f}, now {now_s:.0f} s")
        if claims.nbf is not None and now_s < claims.nbf - LEEWAY_S:
            raise TokenError(f"the token is good from {claims.nbf:.0f}, now {now_s:.0f} s")
        return claims

    async def _key(self, algorithm: str, kid: str | None) -> Mapping[str, Any]:
        """Return NAS's key of that id for that algorithm; the only one, when the token names none."""
        if self._fetched_s is None or abs(self._clock() - self._fetched_s) > MAX_KEY_AGE_S:
            await self._refetch()
        found = self._matching(algorithm, kid)
        if not found:
            await self._refetch()
            found = self._matching(algorithm, kid)
        if len(found) != 1:
            raise TokenError(f"{len(found)} of NAS's keys are {kid!r} for {algorithm}; expected one")
        return found[0]

    def _matching(self, algorithm: str, kid: str | None) -> list[Mapping[str, Any]]:
        kind = "RSA" if algorithm.startswith("RS") else "EC"
        return [
            key
            for key in self._keys
            if key["kty"] == kind and kid in (None, key.get("kid")) and key.get("alg") in (None, algorithm)
        ]

    async def _refetch(self) -> None:
        """Fetch NAS's keys, unless that was tried a moment ago. When it fails, the old ones stay."""
        if self._jwks_url is None:
            return
        async with self._fetching:
            # A clock that was set back must not put the next fetch off: the distance counts.
            now_s = self._clock()
            if self._tried_s is not None and abs(now_s - self._tried_s) < REFETCH_EVERY_S:
                return
            self._tried_s = now_s
            try:
                async with asyncio.timeout(FETCH_TIMEOUT_S):
                    self._keys = _usable(await call(self._fetch, self._jwks_url))
            except Exception as error:  # noqa: BLE001 - logged, and the old keys stay
                logger.warning(
                    "NAS's keys could not be fetched",
                    extra={"jwks_url": self._jwks_url, "error": f"{type(error).__name__}: {error}"},
                )
                return
            self._fetched_s = now_s


def _usable(jwks: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Return the keys of a JWKS that may verify a fire; raise `ValueError` when there are none."""
    keys = jwks.get("keys") if isinstance(jwks, Mapping) else None
    usable = tuple(key for key in (keys if isinstance(keys, list) else ()) if _is_usable(key))
    if not usable:
        raise ValueError("the JWKS has no RSA or EC key for signatures")
    return usable


def _is_usable(key: object) -> bool:
    import jwt

    if not isinstance(key, dict) or key.get("kty") not in ("RSA", "EC") or key.get("use", "sig") != "sig":
        return False
    try:
        jwt.PyJWK(key)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return False
    return True


async def _get(url: str) -> Mapping[str, Any]:
    """Fetch a JWKS over HTTP. Firewalls refuse the default headers (W5)."""
    import httpx

    headers = {"Accept": "application/json", "User-Agent": USER_AGENT}
    async with httpx.AsyncClient(headers=headers, timeout=FETCH_TIMEOUT_S) as client:
        response = (await client.get(url)).raise_for_status()
        jwks: Mapping[str, Any] = response.json()
        return jwks
