"""NAS's public keys: read from a JWKS or a PEM text, kept for the process, fetched again when needed.

They are fetched when there are none yet, when they are an hour old, and when none of them has signed
a token: then NAS may have new ones. Fires that need them at once share one fetch, and there is never
more than one in `REFETCH_EVERY_S`. A fetch that fails leaves the keys that there are.

Source: contract, "Trust"; incidents W5, W6.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from msgspec import Struct

from chronos.agent.calls import call
from chronos.nas.client import USER_AGENT
from chronos.values import evolve

logger = logging.getLogger(__name__)

# Which algorithms of the contract a kind of key is for. With an elliptic curve the algorithm names
# the curve as well (RFC 7518, section 3.4).
ALGORITHMS_OF: Mapping[str, tuple[str, ...]] = {
    "RSA": ("RS256", "RS384", "RS512"),
    "P-256": ("ES256",),
    "P-384": ("ES384",),
}

# RFC 7518, section 3.3: a smaller one must not be used.
MIN_RSA_BITS = 2048

# How soon the keys may be fetched again. A fetch for each fire got agents rate-limited (W5); six in a
# minute do not, and a fire that meets a new key too soon is delivered again.
REFETCH_EVERY_S = 10.0

# How old the keys may be: a key that NAS withdrew is believed no longer, as long as NAS can be reached.
MAX_KEY_AGE_S = 3600.0

# A fetch is part of answering a fire, whose caller waits some 30 s.
FETCH_TIMEOUT_S = 5.0

# A key with its certificates has some 6 kB. The bound is there so that no answer fills the memory.
MAX_JWKS_BYTES = 256 * 1024

Fetch: TypeAlias = Callable[[str], "Mapping[str, Any] | Awaitable[Mapping[str, Any]]"]
"""Returns the JWKS at a URL. What it raises means that there is none at the moment."""


class Key(Struct, frozen=True, kw_only=True, eq=False):
    """A public key that may verify a fire.

    Attributes:
        kid: its name; None when it has none.
        algorithms: those of the contract that it may verify.
        public: the key itself, as PyJWT takes it.
    """

    kid: str | None
    algorithms: tuple[str, ...]
    public: Any


# --- Reading ----------------------------------------------------------------------------------


def read_jwks(jwks: object) -> tuple[Key, ...]:
    """Return the keys of a JWKS that may verify a fire; the others are passed over.

    Args:
        jwks: what a JSON reader returned.

    Raises:
        ValueError: there is no such key in it.
    """
    listed = jwks.get("keys") if isinstance(jwks, Mapping) else None
    keys = []
    for raw in listed if isinstance(listed, list) else ():
        try:
            keys.append(read_jwk(raw))
        except ValueError as error:
            logger.debug("a key of NAS's is not used: %s", error)
    if not keys:
        raise ValueError("the JWKS has no RSA or EC key for signatures")
    return tuple(keys)


def read_jwk(raw: object) -> Key:
    """Return the key that a JWK is.

    Args:
        raw: what a JSON reader returned.

    Raises:
        ValueError: it is no public RSA key, nor one of the curves P-256 and P-384; it is for something
            else than signatures, or too weak; or its private half is published with it, so that
            anybody can sign with it.
    """
    if not isinstance(raw, Mapping):
        raise ValueError("expected a JWK, which is an object")
    if "d" in raw or "k" in raw:
        raise ValueError("expected a public key, got one with its secret")
    operations = raw.get("key_ops", ["verify"])
    if raw.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise ValueError("expected a key for signatures")
    kid, algorithm = raw.get("kid"), raw.get("alg")
    if not isinstance(kid, str | None):
        raise ValueError("expected the name of the key to be text")
    key = _key(_parsed(raw), kid)
    if algorithm is None:
        return key
    if algorithm not in key.algorithms:
        raise ValueError(f"expected a key for one of {', '.join(key.algorithms)}")
    return evolve(key, algorithms=(algorithm,))


def _parsed(raw: Mapping[str, Any]) -> Any:
    from jwt.algorithms import ECAlgorithm, RSAAlgorithm

    # The members of a public key alone, whatever else is beside them.
    members = {name: raw[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in raw}
    try:
        if raw.get("kty") == "RSA":
            return RSAAlgorithm.from_jwk(members)
        if raw.get("kty") == "EC":
            return ECAlgorithm.from_jwk(members)
    except Exception as error:
        raise ValueError(f"not a key: {type(error).__name__}: {error}") from error
    raise ValueError("expected an RSA or EC key")


def read_pem(pem: str | bytes) -> Key:
    """Return the key in a PEM text, `-----BEGIN PUBLIC KEY-----`. It has no name, and fits any.

    Raises:
        ValueError: as `read_jwk`.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = pem.encode(errors="replace") if isinstance(pem, str) else pem
    if b"PRIVATE KEY" in data:
        raise ValueError("expected a public key, got a private one")
    try:
        public = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"expected a public key as PEM text: {error}") from error
    return _key(public, None)


def _key(public: Any, kid: str | None) -> Key:
    """Return a parsed key with the algorithms that it is for."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    if isinstance(public, rsa.RSAPublicKey):
        if public.key_size < MIN_RSA_BITS:
            raise ValueError(f"expected an RSA key of at least {MIN_RSA_BITS} bits, got {public.key_size}")
        return Key(kid=kid, algorithms=ALGORITHMS_OF["RSA"], public=public)
    if isinstance(public, ec.EllipticCurvePublicKey):
        curve = {"secp256r1": "P-256", "secp384r1": "P-384"}.get(public.curve.name)
        if curve is not None:
            return Key(kid=kid, algorithms=ALGORITHMS_OF[curve], public=public)
    raise ValueError("expected an RSA key, or one of the curves P-256 and P-384")


# --- Keeping ----------------------------------------------------------------------------------


class NasKeys:
    """NAS's keys, for one process.

    Args:
        known: the keys that are known from the start; without *url*, for good.
        url: where NAS publishes them; None when they are pinned.
        fetch: how to fetch *url*, sync (then it runs in a thread) or async; None is an HTTP GET.
        clock: returns the present instant, seconds since the epoch.
    """

    def __init__(
        self, known: tuple[Key, ...], *, url: str | None, fetch: Fetch | None, clock: Callable[[], float]
    ) -> None:
        self._keys = known
        self._url = url
        self._fetch = fetch or fetch_jwks
        self._clock = clock
        self._tried_s: float | None = None
        self._fetched_s: float | None = clock() if known else None
        self._fetching: asyncio.Task[None] | None = None

    def fitting(self, algorithm: str, kid: str | None) -> list[Key]:
        """Return the keys that may have signed a token: by its algorithm, and by the name that it gives.

        A token without a name may be of any key. A key without a name may have signed any token, but
        is looked at only when no key has the token's: a pinned key needs no name.
        """
        fit = [key for key in self._keys if algorithm in key.algorithms]
        if kid is None:
            return fit
        return [key for key in fit if key.kid == kid] or [key for key in fit if key.kid is None]

    async def refresh(self) -> None:
        """Fetch the keys if there are none yet, or if they are old."""
        # A clock that was set back must not put the next fetch off: the distance counts.
        if self._fetched_s is None or abs(self._clock() - self._fetched_s) > MAX_KEY_AGE_S:
            await self.refetch()

    async def refetch(self) -> bool:
        """Fetch the keys again, and return whether that was tried; not when it was a moment ago.

        Whoever asks while a fetch is under way shares it. That one of them stops waiting does not
        end it.
        """
        if self._url is None:
            return False
        task, loop = self._fetching, asyncio.get_running_loop()
        if task is None or task.done() or task.get_loop() is not loop:
            now_s = self._clock()
            if self._tried_s is not None and abs(now_s - self._tried_s) < REFETCH_EVERY_S:
                return False
            self._tried_s = now_s
            self._fetching = task = loop.create_task(self._replace(self._url, now_s))
        await asyncio.shield(task)
        return True

    async def _replace(self, url: str, now_s: float) -> None:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                self._keys = read_jwks(await call(self._fetch, url))
        except Exception as error:  # noqa: BLE001 - logged, and the old keys stay
            logger.warning(
                "NAS's keys could not be fetched",
                extra={"jwks_url": url, "error": f"{type(error).__name__}: {error}"},
            )
            return
        self._fetched_s = now_s


async def fetch_jwks(url: str) -> Mapping[str, Any]:
    """Fetch a JWKS over HTTP, with headers of its own: firewalls refuse the default ones (W5).

    A redirect is a failure: whoever can send the agent elsewhere for its keys can sign its fires.

    Raises:
        httpx.HTTPError: no answer, or not a success.
        ValueError: the answer is no JSON, or larger than `MAX_JWKS_BYTES`.
    """
    import json

    import httpx

    headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": USER_AGENT}
    body = bytearray()
    async with (
        httpx.AsyncClient(headers=headers, timeout=FETCH_TIMEOUT_S, follow_redirects=False) as client,
        client.stream("GET", url) as response,
    ):
        response.raise_for_status()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MAX_JWKS_BYTES:
                raise ValueError(f"the JWKS is too large; expected at most {MAX_JWKS_BYTES} bytes")
    jwks: Mapping[str, Any] = json.loads(body)
    return jwks
