"""What the tests of fires have in common: NAS's keys and tokens, attacks on them, and an agent to fire at."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any, TypeVar

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chronos.agent.asyncio import AsyncScheduler
from chronos.agent.runner import RunContext
from chronos.agent.scheduler import Scheduler
from chronos.contract.messages import ErrorResponse, FireAnswer, FireClaims
from chronos.contract.wire import decode
from chronos.errors import TokenError
from chronos.fire.verify import LEEWAY_S, MAX_LIFETIME_S, FireVerifier
from chronos.fire.webhook import FireEndpoint
from chronos.jobs.instants import HOUR_US, SECOND_US, parse_instant
from chronos.jobs.job import Job
from chronos.jobs.schedule import Interval
from chronos.stores import MemoryStore
from chronos.testing import AsyncLocalNas, LocalNas

T = TypeVar("T")

AT = "2026-06-26T12:00:00+00:00"
T0 = parse_instant(AT)
NOW_S = T0 / SECOND_US
PATH = "/api/cron/fire"
GOOD = {"job_id": "j", "fire_at": AT}
STATUSES = {200, 202, 400, 401, 404, 405, 413, 415, 503}

AUDIENCE = "agent:inst-1"
ISSUER = "https://portal.example"
ALGORITHMS = ["RS256", "RS384", "RS512", "ES256", "ES384"]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a scenario; one that waits for what never comes fails, and holds nobody up."""

    async def bounded() -> T:
        async with asyncio.timeout(60):
            return await work

    return asyncio.run(bounded())


# --- Keys and tokens --------------------------------------------------------------------------


def private_key(kind: str, number: int = 1) -> Any:
    """Return a private key of a kind; the same for the same number."""
    return _private_key(kind, number)


@cache
def _private_key(kind: str, _number: int) -> Any:
    if kind.startswith("RSA"):
        return rsa.generate_private_key(public_exponent=65537, key_size=int(kind[3:] or 2048))
    curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1(), "K": ec.SECP256K1()}
    return ec.generate_private_key(curves[kind])


def kind_of(algorithm: str) -> str:
    return "RSA" if algorithm.startswith(("RS", "PS")) else algorithm


def jwk(algorithm: str = "RS256", kid: str | None = "k1", number: int = 1, **extra: Any) -> dict[str, Any]:
    key = private_key(kind_of(algorithm), number).public_key()
    make = jwt.algorithms.RSAAlgorithm if algorithm.startswith("RS") else jwt.algorithms.ECAlgorithm
    named = {} if kid is None else {"kid": kid}
    return {**make.to_jwk(key, as_dict=True), **named, **extra}


def pem(kind: str = "RSA", number: int = 1) -> bytes:
    """Return the public half of a key as PEM text."""
    public = private_key(kind, number).public_key()
    return bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def claims(**changes: Any) -> dict[str, Any]:
    """Return good claims with changes; a change to None takes the claim out."""
    good = {"iss": ISSUER, "aud": AUDIENCE, "purpose": "cron_fire", "exp": NOW_S + 90, "iat": NOW_S}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def encoded(part: object) -> str:
    return base64url(json.dumps(part).encode())


def sign(
    payload: object = None,
    header: dict[str, Any] | None = None,
    *,
    algorithm: str = "RS256",
    key: Any = None,
) -> str:
    """Return a token with any header and any payload, really signed; bytes are a payload as it stands."""
    head = encoded({"alg": algorithm, "kid": "k1", **(header or {})})
    body = base64url(payload) if isinstance(payload, bytes) else encoded(payload or claims())
    return f"{head}.{body}.{signature(f'{head}.{body}', algorithm, key)}"


def signature(signed: str, algorithm: str = "RS256", key: Any = None) -> str:
    maker = jwt.algorithms.get_default_algorithms()[algorithm]
    return base64url(maker.sign(signed.encode(), key or private_key(kind_of(algorithm))))


def token(algorithm: str = "RS256", kid: str | None = "k1", number: int = 1, **changes: Any) -> str:
    """Return a token as NAS makes it, of good claims with changes."""
    headers = {"kid": kid} if kid is not None else None
    key = private_key(kind_of(algorithm), number)
    return jwt.encode(claims(**changes), key, algorithm, headers=headers)


def with_secret(secret: bytes, algorithm: str = "HS256") -> str:
    """Return a token that is signed with a secret, symmetrically."""
    signed = f"{encoded({'alg': algorithm, 'kid': 'k1'})}.{encoded(claims())}"
    digest = hmac.new(secret, signed.encode(), hashlib.new(algorithm.replace("HS", "sha")).name).digest()
    return f"{signed}.{base64url(digest)}"


def _unsigned(spelled: object, signature: str = "") -> str:
    return f"{encoded({'alg': spelled, 'kid': 'k1'})}.{encoded(claims())}.{signature}"


def _parts(change: Callable[[list[str]], list[str]]) -> str:
    return ".".join(change(token().split(".")))


def _own_key_in_header(**header: Any) -> str:
    """Return a token that brings, or names, the key of whoever made it."""
    return sign(header=header, key=private_key("RSA", 2))


_OWN = "https://attacker.example/jwks"

ATTACKS: dict[str, Callable[[], str]] = {
    **{
        f"alg {spelled!r}": lambda s=spelled: _unsigned(s) for spelled in ("none", "None", "NONE", "nOnE", "")
    },
    **{
        f"alg {odd!r}": lambda o=odd: _unsigned(o)
        for odd in (None, 0, True, ["RS256"], {"RS256": 1}, "rs256")
    },
    "alg none with a signature": lambda: _unsigned("none", "c2ln"),
    **{f"{name} with the PEM": lambda n=name: with_secret(pem(), n) for name in ("HS256", "HS384", "HS512")},
    "HS256 with the PEM without its last line break": lambda: with_secret(pem().rstrip()),
    "HS256 with the JWK": lambda: with_secret(json.dumps(jwk()).encode()),
    "HS256 with nothing": lambda: with_secret(b""),
    "PS256 with NAS's key": lambda: sign(algorithm="PS256"),
    "EdDSA by name": lambda: _unsigned("EdDSA", "c2ln"),
    "ES256 on another curve": lambda: f"{(head := _unsigned('ES256')[:-1])}.{signature(head, 'ES384')}",
    "ES256 with the kid of an RSA key": lambda: sign(algorithm="ES256"),
    "another key": lambda: token(number=2),
    "another key without a kid": lambda: token(kid=None, number=2),
    "an unknown kid": lambda: token(kid="k9", number=2),
    "a kid that is a path": lambda: token(kid="../../../dev/null", number=2),
    **{f"kid {odd!r}": lambda o=odd: sign(header={"kid": o}) for odd in (0, 1.5, True, ["k1"], {"k1": 1})},
    "a key in the header": lambda: _own_key_in_header(jwk=jwk(number=2)),
    "a key in the header without a kid": lambda: _own_key_in_header(jwk=jwk(number=2), kid="k2"),
    "a key by jku": lambda: _own_key_in_header(jku=_OWN),
    "a key by x5u": lambda: _own_key_in_header(x5u=_OWN),
    "a key by x5c": lambda: _own_key_in_header(x5c=[base64url(pem(number=2))]),
    "crit": lambda: sign(header={"crit": ["exp"]}),
    "crit that is empty": lambda: sign(header={"crit": []}),
    "crit that is known to the library": lambda: sign(header={"crit": ["b64"]}),
    "crit that the library grants": lambda: sign(header={"b64": True, "crit": ["b64"]}),
    "b64 false": lambda: sign(header={"b64": False}),
    "b64 false and critical": lambda: sign(header={"b64": False, "crit": ["b64"]}),
    "a detached payload": lambda: _parts(lambda parts: [parts[0], "", parts[2]]),
    "a detached payload that is not encoded": lambda: _parts(
        lambda parts: [encoded({"alg": "RS256", "b64": False, "crit": ["b64"]}), "", parts[2]]
    ),
    "no signature": lambda: _parts(lambda parts: [*parts[:2], ""]),
    "two parts": lambda: _parts(lambda parts: parts[:2]),
    "four parts": lambda: _parts(lambda parts: [*parts, parts[2]]),
    "five parts, as if it were encrypted": lambda: _parts(lambda parts: [*parts, *parts[:2]]),
    "a changed payload": lambda: _parts(lambda parts: [parts[0], encoded(claims(exp=NOW_S + 99)), parts[2]]),
    "a changed header": lambda: _parts(lambda parts: [encoded({"alg": "RS384", "kid": "k1"}), *parts[1:]]),
    "a shortened signature": lambda: _parts(lambda parts: [*parts[:2], parts[2][:-4]]),
    "the signature of another token": lambda: _parts(
        lambda parts: [*parts[:2], token(exp=NOW_S + 91).split(".")[2]]
    ),
    "an ES256 signature of zeros": lambda: (
        f"{encoded({'alg': 'ES256', 'kid': 'e1'})}.{encoded(claims())}.{base64url(bytes(64))}"
    ),
    "too long": lambda: token(note="x" * 9000),
    "no JSON": lambda: sign(b"purpose"),
    "a list": lambda: sign(json.dumps([claims()]).encode()),
    "text": lambda: sign(json.dumps("claims").encode()),
    "no UTF-8": lambda: sign(b'{"purpose": "\xff"}'),
    "nested too deeply": lambda: sign(b"[" * 5000),
    "a number of too many digits": lambda: sign(b'{"exp": ' + b"9" * 5000 + b"}"),
    **{
        f"{name} {shown}": lambda n=name, v=value: sign({**claims(), n: v})
        for name, shown, value in [
            ("exp", "passed", NOW_S - LEEWAY_S),
            ("exp", "far off", NOW_S + MAX_LIFETIME_S + 1),
            ("exp", "huge", 10**300),
            ("exp", "infinite", float("inf")),
            ("exp", "not a number", float("nan")),
            ("exp", "negative", -1),
            ("exp", "text", str(NOW_S + 90)),
            ("exp", "a list", [NOW_S + 90]),
            ("exp", "an object", {"": NOW_S + 90}),
            ("exp", "true", True),
            ("exp", "null", None),
            ("nbf", "to come", NOW_S + LEEWAY_S + 1),
            ("nbf", "text", "now"),
            ("nbf", "not a number", float("nan")),
            ("iat", "to come", NOW_S + LEEWAY_S + 1),
            ("iat", "long ago", NOW_S - MAX_LIFETIME_S),
            ("iat", "an object", {}),
            ("aud", "of another agent", "agent:inst-2"),
            ("aud", "of this agent, and more", AUDIENCE + "0"),
            ("aud", "in capitals", AUDIENCE.upper()),
            ("aud", "empty", ""),
            ("aud", "of nobody", []),
            ("aud", "of others", ["agent:inst-2", "agent:inst-3"]),
            ("aud", "of a number", 7),
            ("aud", "of numbers", [7, None]),
            ("aud", "an object", {AUDIENCE: True}),
            ("aud", "nested", [[AUDIENCE]]),
            ("aud", "null", None),
            ("iss", "another", "https://attacker.example"),
            ("iss", "with a slash", ISSUER + "/"),
            ("iss", "a list", [ISSUER]),
            ("iss", "null", None),
            ("purpose", "another", "api"),
            ("purpose", "in capitals", "CRON_FIRE"),
            ("purpose", "with a space", "cron_fire "),
            ("purpose", "a list", ["cron_fire"]),
            ("purpose", "null", None),
        ]
    },
    **{f"no {name}": lambda n=name: token(**{n: None}) for name in ("exp", "aud", "iss", "purpose")},
}
"""Tokens that are not good, by what is wrong with them, for an agent that knows `nas_keys()`."""


def nas_keys() -> list[dict[str, Any]]:
    return [jwk(), jwk("ES256", kid="e1"), jwk("ES384", kid="e2")]


class Keys:
    """NAS's published keys, with a count of the fetches."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        self.keys = list(keys)
        self.fetches = 0

    async def __call__(self, _url: str) -> dict[str, Any]:
        self.fetches += 1
        return {"keys": self.keys}


class Clock:
    """The agent's clock."""

    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


def fire_verifier(*keys: dict[str, Any], clock: Clock | None = None, **settings: Any) -> FireVerifier:
    """Return a verifier that knows some of NAS's keys, by default one RSA key."""
    jwks = {"keys": list(keys) or [jwk()]}
    return FireVerifier(AUDIENCE, **{"issuer": ISSUER, "jwks": jwks, "clock": clock or Clock(), **settings})


# --- An agent ---------------------------------------------------------------------------------


class OneWord:
    """A host's own verifier: believes the token `good`, again and again, and breaks on the token `bug`."""

    async def verify(self, token: str) -> FireClaims:
        if token == "bug":
            raise RuntimeError(f"a bug in the verifier, at the token {token}")
        if token != "good":
            raise TokenError("the reason, which is for the log alone")
        return FireClaims(aud=AUDIENCE, purpose="cron_fire", exp=NOW_S + 90)


class World:
    """An endpoint with everything behind it: two jobs that are due at the same time, `j` and `k`."""

    def __init__(
        self, prefix: str = "", *, verifier: Any = None, is_sync: bool = False, **settings: Any
    ) -> None:
        self.ran: list[str] = []
        schedule = Interval(period_us=HOUR_US, anchor_us=T0)
        self.store = MemoryStore([Job(id=job_id, schedule=schedule, next_us=T0) for job_id in ("j", "k")])
        self.before = self.store.load_all()
        self.nas: Any = (LocalNas if is_sync else AsyncLocalNas)(clock=lambda: T0)
        self.client: Any = self.nas.client()
        self.is_stopped = False
        make: Any = Scheduler if is_sync else AsyncScheduler
        self.scheduler: Any = make(
            self.store,
            self.client,
            self.run,
            owner="me",
            clock=lambda: T0,
            is_stopped=lambda: self.is_stopped,
        )
        self.app: Any = FireEndpoint(self.scheduler, verifier or OneWord(), prefix=prefix, **settings)

    async def run(self, context: RunContext) -> None:
        self.ran.append(context.job_id)

    def is_untouched(self) -> bool:
        """Return whether nothing ran, and nothing was stored."""
        return not self.ran and self.store.load_all() == self.before

    async def ask(
        self,
        body: Any = GOOD,
        *,
        method: str = "POST",
        path: str = PATH,
        token: str | None = "good",
        root_path: str = "",
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json"} | (headers or {})
        if token is not None:
            sent["authorization"] = f"Bearer {token}"
        transport = httpx.ASGITransport(self.app, root_path=root_path)
        async with httpx.AsyncClient(transport=transport, base_url="https://agent.example") as client:
            return await client.request(method, path, content=content, headers=sent)

    async def raw(
        self,
        *,
        scope: dict[str, Any] | None = None,
        headers: list[tuple[bytes, bytes]] | None = None,
        parts: list[bytes] | None = None,
        is_cut: bool = False,
    ) -> list[dict[str, Any]]:
        """Call the endpoint as a server does, and return what it sent; *is_cut*, the caller hangs up."""
        chunks = parts if parts is not None else [json.dumps(GOOD).encode()]
        events = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
        end = {"type": "http.request", "body": b"", "more_body": False}
        events.append({"type": "http.disconnect"} if is_cut else end)
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return events.pop(0)

        async def send(event: Any) -> None:
            sent.append(event)

        basic = {"type": "http", "method": "POST", "path": PATH, "headers": headers or []}
        await self.app(basic | (scope or {}), receive, send)
        return sent


def is_of_the_contract(response: httpx.Response) -> bool:
    """Return whether an answer is one that the contract lists, with the message that it names."""
    cls = FireAnswer if response.status_code in (200, 202) else ErrorResponse
    decode(cls, response.json())
    has_wait = "retry-after" in response.headers
    return response.status_code in STATUSES and has_wait == (response.status_code == 503)
