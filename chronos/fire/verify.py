"""Verification of the token that a fire carries.

Signature, algorithm, audience and issuer are PyJWT's work, with NAS's keys as `chronos.fire.jwks` keeps
them. What is added here: the instants are checked against an injected clock, the token must say that
it is for a fire, and a token that was used is not believed again.

NAS makes a token for each attempt to deliver a fire. What was verified and could not be settled, and
was answered 503, comes again with a new one, so that nothing is lost by refusing the old. The memory
of used tokens ends with the process; what it has forgotten, the claim still finds a duplicate.

Source: contract, "Trust"; incidents W4, W5, W6, W8.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from chronos import arguments
from chronos.contract.messages import FireClaims
from chronos.contract.wire import brief, decode
from chronos.errors import TokenError
from chronos.fire.jwks import ALGORITHMS_OF, Fetch, NasKeys, read_jwk, read_jwks, read_pem

ALGORITHMS = tuple(name for names in ALGORITHMS_OF.values() for name in names)
"""Asymmetric ones alone: with a symmetric one, NAS's public key would be a secret that all know."""

# The contract's allowance for clocks that differ.
LEEWAY_S = 30.0

# NAS's tokens are good for one or two minutes. One that is good for long is made for something else,
# or by mistake, and would have to be remembered for as long.
MAX_LIFETIME_S = 3600.0

# A fire's token has some 700 characters. What is much longer is not worth a signature check.
MAX_TOKEN_LENGTH = 8192

# How many uses of tokens are remembered, some 3 MB of them; the oldest is forgotten first. Only what
# NAS has signed is remembered, for two and a half minutes as a rule: it would take 30 fires in each
# second to forget one too soon, and then the claim still finds a duplicate.
MAX_REMEMBERED = 10_000


class FireVerifier:
    """Verifies the tokens of fires; one for the whole process, since it remembers keys and tokens.

    Args:
        audience: this agent, `agent:{instance_id}`.
        issuer: NAS's base URL, compared exactly; None accepts any.
        jwks_url: where NAS publishes its keys, http or https.
        jwks: NAS's keys as a JWKS, known from the start; without `jwks_url`, for good.
        key: NAS's one key, pinned for good, instead of both: PEM text of a public key, or a JWK.
        fetch: how to fetch `jwks_url`, sync (then it runs in a thread) or async; None is an HTTP GET.
        clock: returns the present instant, seconds since the epoch.

    Raises:
        TypeError: an argument is of another type than its own, or *clock* is async.
        ValueError: no audience, an empty issuer, no key at all or one that cannot be used, or a
            `jwks_url` that is none.
    """

    def __init__(
        self,
        audience: str,
        *,
        issuer: str | None = None,
        jwks_url: str | None = None,
        jwks: Mapping[str, Any] | None = None,
        key: str | bytes | Mapping[str, Any] | None = None,
        fetch: Fetch | None = None,
        clock: Callable[[], float] = lambda: time.time(),  # looked up at each call: a test may freeze it
    ) -> None:
        arguments.text("audience", audience)
        if not audience:
            raise ValueError("the audience is empty; expected agent:{instance_id}")
        arguments.instance("issuer", issuer, str, None)
        if issuer == "":
            raise ValueError("the issuer is empty; expected NAS's base URL, or None to accept any")
        arguments.instance("jwks_url", jwks_url, str, None)
        arguments.instance("jwks", jwks, Mapping, None)
        arguments.instance("key", key, str | bytes | Mapping, None)
        if fetch is not None:
            arguments.function("fetch", fetch, may_be_async=True)
        arguments.function("clock", clock)
        if key is None and jwks_url is None and jwks is None:
            raise ValueError("expected jwks_url, jwks or key: without NAS's keys no fire can be verified")
        if key is not None and (jwks_url is not None or jwks is not None):
            raise ValueError("expected either key, which pins one for good, or jwks_url and jwks")
        if jwks_url is not None and not re.match(r"https?://[^/\s]", jwks_url):
            raise ValueError(f"jwks_url is {jwks_url!r}; expected an http or https URL")
        known = () if jwks is None else read_jwks(jwks)
        if key is not None:
            known = (read_pem(key) if isinstance(key, str | bytes) else read_jwk(key),)
        self._audience = audience
        self._issuer = issuer
        self._clock = clock
        self._keys = NasKeys(known, url=jwks_url, fetch=fetch, clock=clock)
        self._used: dict[tuple[bytes, str], float] = {}

    async def verify(self, token: str) -> FireClaims:
        """Return what *token* says, if it is good for a fire of this agent.

        A token with a `jti` is good once. One without it may be good again here: what NAS makes in one
        second for several jobs can be the same text. `spend` tells their fires apart.

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

    def spend(self, token: str, claims: FireClaims, fire: str) -> None:
        """Note that a verified token is used for a fire; it is not good for the same fire again.

        Args:
            token: the bearer token, as received.
            claims: what `verify` returned for it.
            fire: what tells the fire from others, such as its dedup key.

        Raises:
            TokenError: it was used for this fire before. Answer 401 and run nothing.
            TypeError: an argument is of another type than its own.
        """
        arguments.text("token", token)
        arguments.instance("claims", claims, FireClaims)
        arguments.text("fire", fire)
        self._use(token, claims, fire)

    async def _verify(self, token: str) -> FireClaims:
        import jwt

        if len(token) > MAX_TOKEN_LENGTH:
            raise TokenError(f"the token has {len(token)} characters; expected {MAX_TOKEN_LENGTH} at most")
        header = jwt.get_unverified_header(token)
        algorithm = header.get("alg")
        if algorithm not in ALGORITHMS:
            raise TokenError(f"algorithm {brief(algorithm)} is not one of {', '.join(ALGORITHMS)}")
        if "crit" in header:  # RFC 7515, section 4.1.11: who does not know what it names must refuse
            raise TokenError("the token has critical extensions; expected none")
        raw = await self._signed_by_nas(token, algorithm, header.get("kid"))
        # PyJWT has found this agent in the audience, which may be a list of several.
        claims = self._in_time(decode(FireClaims, {**raw, "aud": self._audience}))
        if raw.get("jti"):
            self._use(token, claims, "")
        return claims

    async def _signed_by_nas(self, token: str, algorithm: str, kid: str | None) -> dict[str, Any]:
        """Return the claims of a token that one of NAS's keys has signed, fetching new ones if none has."""
        await self._keys.refresh()
        claims = self._signed(token, algorithm, kid)
        # Also when the name is known: a NAS that gave a new key an old name must not be refused for an hour.
        if claims is None and await self._keys.refetch():
            claims = self._signed(token, algorithm, kid)
        if claims is None:
            fit = len(self._keys.fitting(algorithm, kid))
            raise TokenError(f"none of NAS's keys has signed it; {fit} fit {algorithm} and kid {brief(kid)}")
        return claims

    def _signed(self, token: str, algorithm: str, kid: str | None) -> dict[str, Any] | None:
        """Return the claims of a token, None when none of the known keys has signed it."""
        import jwt

        for key in self._keys.fitting(algorithm, kid):
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key.public,
                    algorithms=[algorithm],
                    audience=self._audience,
                    issuer=self._issuer,
                    # The instants are checked against the injected clock.
                    options={
                        "require": ["exp", "aud"],
                        "verify_exp": False,
                        "verify_nbf": False,
                        "verify_iat": False,
                    },
                )
            except jwt.InvalidSignatureError:
                continue
            return claims
        return None

    def _in_time(self, claims: FireClaims) -> FireClaims:
        """Return *claims*, if the present instant lies within them.

        A clock that is wrong for a while after a resume (incident W4) makes this refuse good tokens.
        That loses no fire: each delivery has a new token, and the next one meets a clock that is right.
        """
        problem = time_problem(self._clock(), expires_s=claims.exp, made_s=claims.iat, begins_s=claims.nbf)
        if problem:
            raise TokenError(problem)
        return claims

    def _use(self, token: str, claims: FireClaims, fire: str) -> None:
        """Remember the use of a token for as long as it is good; refuse it when it is remembered."""
        # Without the signature, of which there may be other spellings that are as good. What is signed
        # has one; a `jti` is part of it, and is not looked at by itself: a NAS that gives a delivery's
        # tokens one `jti` between them would have every delivery but the first refused.
        used = hashlib.sha256(token.rpartition(".")[0].encode()).digest(), fire
        now_s = self._clock()
        if now_s < self._used.get(used, now_s):
            raise TokenError("the token was used before")
        self._used.pop(used, None)
        self._used[used] = claims.exp + LEEWAY_S
        while self._used:
            oldest = next(iter(self._used))
            if len(self._used) <= MAX_REMEMBERED and now_s < self._used[oldest]:
                return
            del self._used[oldest]


def time_problem(
    now_s: float, *, expires_s: float, made_s: float | None = None, begins_s: float | None = None
) -> str:
    """Return why a token is not good at an instant; nothing when it is. All in seconds since the epoch."""
    if now_s >= expires_s + LEEWAY_S:
        return f"the token expired at {expires_s:.0f}, now {now_s:.0f} s"
    if begins_s is not None and now_s < begins_s - LEEWAY_S:
        return f"the token is good from {begins_s:.0f}, now {now_s:.0f} s"
    if made_s is not None and now_s < made_s - LEEWAY_S:
        return f"the token was made at {made_s:.0f}, now {now_s:.0f} s"
    lifetime_s = expires_s - (now_s if made_s is None else made_s)
    if lifetime_s > MAX_LIFETIME_S:
        return f"the token is good for {lifetime_s:.0f} s; expected {MAX_LIFETIME_S:.0f} at most"
    return ""
