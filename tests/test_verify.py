"""The verification of fire tokens: what is believed, what is not, and how often keys are fetched."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, TypeVar

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from freezegun import freeze_time
from hypothesis import given
from hypothesis import strategies as st

from chronos import verify
from chronos.errors import TokenError
from chronos.verify import LEEWAY_S, REFETCH_EVERY_S, FireVerifier

T = TypeVar("T")
AUDIENCE = "agent:inst-1"
ISSUER = "https://portal.example"
NOW_S = 1_782_475_200.0
ALGORITHMS = ["RS256", "RS384", "RS512", "ES256", "ES384"]


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


@cache
def private_key(kind: str, number: int = 1) -> Any:  # noqa: ARG001 - the cache tells keys apart by it
    """Return a private key of a kind; the same for the same number."""
    if kind == "RSA":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP384R1() if kind == "ES384" else ec.SECP256R1())


def kind_of(algorithm: str) -> str:
    return "RSA" if algorithm.startswith("RS") else algorithm


def jwk(algorithm: str = "RS256", kid: str = "k1", number: int = 1, **extra: Any) -> dict[str, Any]:
    key = private_key(kind_of(algorithm), number).public_key()
    make = jwt.algorithms.RSAAlgorithm if algorithm.startswith("RS") else jwt.algorithms.ECAlgorithm
    return {**make.to_jwk(key, as_dict=True), "kid": kid, **extra}


def claims(**changes: Any) -> dict[str, Any]:
    """Return good claims with changes; a change to None takes the claim out."""
    good = {"iss": ISSUER, "aud": AUDIENCE, "purpose": "cron_fire", "exp": NOW_S + 90, "iat": NOW_S}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def token(algorithm: str = "RS256", kid: str | None = "k1", number: int = 1, **changes: Any) -> str:
    headers = {"kid": kid} if kid is not None else None
    key = private_key(kind_of(algorithm), number)
    return jwt.encode(claims(**changes), key, algorithm, headers=headers)


class Keys:
    """NAS's published keys, with a count of the fetches."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        self.keys = list(keys)
        self.fetches = 0

    async def __call__(self, _url: str) -> dict[str, Any]:
        self.fetches += 1
        return {"keys": self.keys}


class Clock:
    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


def verifier(
    *keys: dict[str, Any], issuer: str | None = ISSUER, clock: Callable[[], float] | None = None
) -> FireVerifier:
    return FireVerifier(AUDIENCE, issuer=issuer, jwks={"keys": list(keys) or [jwk()]}, clock=clock or Clock())


def refused(text: str, *keys: dict[str, Any]) -> str:
    """Return why *text* is refused; fail when it is not."""
    with pytest.raises(TokenError) as caught:
        run(verifier(*keys).verify(text))
    return str(caught.value)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("names_algorithm", [True, False])
def test_a_good_token_is_believed(algorithm: str, names_algorithm: bool) -> None:
    """Every algorithm of the contract, whether or not the key says which one it is for."""
    key = jwk(algorithm) | ({"alg": algorithm} if names_algorithm else {})
    said = run(verifier(key).verify(token(algorithm)))
    assert (said.aud, said.iss, said.purpose, said.exp) == (AUDIENCE, ISSUER, "cron_fire", NOW_S + 90)


def test_an_audience_among_several_is_believed() -> None:
    """A token may be for several; one of them is this agent."""
    assert run(verifier().verify(token(aud=["other", AUDIENCE]))).aud == AUDIENCE


def test_any_issuer_is_believed_when_none_is_configured() -> None:
    """The issuer is compared when it is known, and only then."""
    assert (
        run(verifier(issuer=None).verify(token(iss="https://other.example"))).iss == "https://other.example"
    )


def test_a_token_without_a_key_id_is_believed_when_there_is_one_key() -> None:
    """With several keys there is no telling which."""
    assert run(verifier(jwk("RS256"), jwk("ES256")).verify(token(kid=None)))
    assert "expected one" in refused(token(kid=None), jwk(), jwk(kid="k2", number=2))


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": None},
        {"aud": "agent:inst-2"},
        {"aud": []},
        {"iss": None},
        {"iss": "https://portal.example/"},
        {"purpose": None},
        {"purpose": "api"},
        {"purpose": "CRON_FIRE"},
        {"purpose": ["cron_fire"]},
        {"exp": None},
        {"exp": NOW_S - LEEWAY_S},
        {"exp": str(NOW_S + 90)},
        {"exp": -1},
        {"exp": 10**400},
        {"nbf": NOW_S + LEEWAY_S + 1},
        {"nbf": "now"},
    ],
    ids=str,
)
def test_a_token_with_a_wrong_claim_is_refused(changes: dict[str, Any]) -> None:
    """Audience, issuer, purpose and time each have to be right (incident W8)."""
    refused(token(**changes))


@pytest.mark.parametrize("changes", [{"exp": NOW_S - LEEWAY_S + 1}, {"nbf": NOW_S + LEEWAY_S}], ids=str)
def test_clocks_may_differ_by_the_leeway(changes: dict[str, Any]) -> None:
    """Thirty seconds either way, by the injected clock."""
    assert run(verifier().verify(token(**changes)))


def encoded(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def test_an_unsigned_token_is_refused() -> None:
    """`alg: none`, however it is spelled, with and without a signature."""
    for spelled in ("none", "None", "NONE", ""):
        head = encoded({"alg": spelled, "kid": "k1"})
        for signature in ("", "c2ln"):
            refused(f"{head}.{encoded(claims())}.{signature}")


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_public_key_is_no_shared_secret(algorithm: str) -> None:
    """A token signed symmetrically with NAS's public key, which everybody has, is refused."""
    public = private_key("RSA").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = f"{encoded({'alg': algorithm, 'kid': 'k1'})}.{encoded(claims())}"
    digest = hmac.new(public, signed.encode(), hashlib.new(algorithm.replace("HS", "sha")).name).digest()
    assert "is not one of" in refused(f"{signed}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}")


def test_an_algorithm_that_the_contract_does_not_list_is_refused() -> None:
    """Also one that NAS's own key could have signed with."""
    signed = jwt.encode(claims(), private_key("RSA"), "PS256", headers={"kid": "k1"})
    assert "is not one of" in refused(signed)


def test_a_symmetric_key_among_nas_keys_is_not_used() -> None:
    """A JWKS that leaks a shared secret does not make it one."""
    secret = base64.urlsafe_b64encode(b"s" * 32).rstrip(b"=").decode()
    with pytest.raises(ValueError, match="no RSA or EC key"):
        verifier({"kty": "oct", "k": secret, "kid": "k1"})


def test_a_token_is_held_to_its_keys_algorithm_and_use() -> None:
    """A key that is for one algorithm, or for encryption, verifies nothing else."""
    refused(token("RS512"), jwk("RS256", alg="RS256"))
    refused(token("RS256"), jwk("RS256", use="enc"), jwk("ES256", kid="k2"))
    refused(token("ES256"), jwk("RS256"))
    refused(token("ES256", number=1), jwk("ES384"))


def test_a_token_of_another_key_or_changed_on_the_way_is_refused() -> None:
    """The signature is checked, and over every part."""
    good = token()
    refused(token(number=2))
    head, body, signature = good.split(".")
    refused(f"{head}.{encoded(claims(exp=NOW_S + 10_000))}.{signature}")
    refused(f"{head}.{body}.")
    refused(f"{head}.{body}")


def test_an_oversized_token_is_refused_before_it_is_read() -> None:
    """Nobody makes the agent work on a megabyte."""
    assert "8192 at most" in refused("x" * 10_000)


@given(
    st.text(max_size=60) | st.lists(st.text(alphabet="abcAZ019-_=. ", max_size=20), max_size=5).map(".".join)
)
def test_whatever_is_no_token_is_refused(text: str) -> None:
    """There is one way out, whatever comes in."""
    refused(text, jwk("ES256"))


@given(
    st.dictionaries(
        st.sampled_from(["alg", "kid", "crit", "b64", "jwk", "jku", "x5u"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(max_size=5)
        | st.sampled_from(ALGORITHMS)
        | st.lists(st.text(max_size=3), max_size=2),
    )
)
def test_whatever_a_header_says_nothing_unsigned_is_believed(header: dict[str, object]) -> None:
    """No header makes the agent use a key that NAS did not publish."""
    refused(f"{encoded(header)}.{encoded(claims())}.c2ln", jwk("ES256"))


def test_the_real_clock_is_the_default() -> None:
    """Without an injected clock, a token of the past has expired."""
    with pytest.raises(TokenError, match="expired"):
        run(FireVerifier(AUDIENCE, jwks={"keys": [jwk()]}).verify(token(exp=1_000_000)))


# --- Fetching keys ---


def fetching(keys: Callable[[str], Any], clock: Clock | None = None) -> FireVerifier:
    return FireVerifier(AUDIENCE, jwks_url="https://portal.example/jwks", fetch=keys, clock=clock or Clock())


def test_keys_are_fetched_once_for_many_fires() -> None:
    """Also when several fires come at once in a cold process (incident W5)."""
    keys = Keys(jwk())

    async def scenario() -> None:
        checks = fetching(keys)
        await asyncio.gather(*(checks.verify(token()) for _ in range(5)))
        await checks.verify(token())

    run(scenario())
    assert keys.fetches == 1


def test_rotated_keys_are_picked_up() -> None:
    """A key that is not known yet is looked for, without a restart (incident W6)."""
    keys, clock = Keys(jwk()), Clock()

    async def scenario() -> None:
        checks = fetching(keys, clock)
        await checks.verify(token())
        keys.keys = [jwk(kid="k2", number=2)]
        clock.now_s += REFETCH_EVERY_S
        await checks.verify(token(kid="k2", number=2))

    run(scenario())
    assert keys.fetches == 2


def test_unknown_keys_do_not_make_the_agent_fetch_again_and_again() -> None:
    """One fetch in a while, whoever asks how often."""
    keys, clock = Keys(jwk()), Clock()

    async def scenario() -> None:
        checks = fetching(keys, clock)
        for second in range(100):
            clock.now_s = NOW_S + second / 10
            with pytest.raises(TokenError):
                await checks.verify(token(kid=f"forged-{second}"))

    run(scenario())
    assert keys.fetches == 1


def test_a_clock_that_was_set_back_does_not_put_a_fetch_off() -> None:
    """After a resume the clock may be hours behind for a while, and the keys may have changed."""
    keys, clock = Keys(jwk()), Clock()

    async def scenario() -> None:
        checks = fetching(keys, clock)
        await checks.verify(token())
        keys.keys = [jwk(kid="k2", number=2)]
        clock.now_s -= 3600
        await checks.verify(token(kid="k2", number=2))

    run(scenario())


def test_a_withdrawn_key_is_forgotten() -> None:
    """The keys are fetched again after an hour, known or not."""
    keys, clock = Keys(jwk()), Clock()

    async def scenario() -> None:
        checks = fetching(keys, clock)
        await checks.verify(token())
        keys.keys = [jwk(kid="k2", number=2)]
        clock.now_s += verify.MAX_KEY_AGE_S + 1
        with pytest.raises(TokenError):
            await checks.verify(token(exp=clock.now_s + 90))

    run(scenario())


@pytest.mark.parametrize(
    "answer", [{"keys": []}, {}, [], None, {"keys": [7, {"kty": "RSA"}]}, OSError("down")], ids=str
)
def test_keys_that_cannot_be_fetched_leave_the_old_ones(answer: Any) -> None:
    """An outage of the key endpoint is no outage of the fires; nothing is believed without a key."""
    keys, clock = Keys(jwk()), Clock()

    async def broken(_url: str) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def scenario() -> None:
        with pytest.raises(TokenError):
            await fetching(broken).verify(token())
        checks = fetching(keys, clock)
        await checks.verify(token())
        checks._fetch = broken
        clock.now_s += verify.MAX_KEY_AGE_S + 1
        await checks.verify(token(exp=clock.now_s + 90))

    run(scenario())


def test_a_fetch_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller of the webhook does not wait for it."""
    monkeypatch.setattr(verify, "FETCH_TIMEOUT_S", 0.05)

    async def hangs(_url: str) -> dict[str, Any]:
        await asyncio.sleep(30)
        raise AssertionError

    with pytest.raises(TokenError):
        run(fetching(hangs).verify(token()))


def test_a_fetch_may_be_sync() -> None:
    """What may block gets a thread."""
    assert run(fetching(lambda _url: {"keys": [jwk()]}).verify(token()))


def test_a_verifier_needs_an_audience_and_keys() -> None:
    """There is no unsigned fallback (contract, "Trust")."""
    with pytest.raises(ValueError, match="audience"):
        FireVerifier("", jwks_url="https://portal.example/jwks")
    with pytest.raises(ValueError, match="jwks_url or jwks"):
        FireVerifier(AUDIENCE)


def test_keys_are_fetched_with_headers_that_firewalls_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """An explicit Accept and User-Agent (incident W5)."""
    asked: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"keys": [jwk()]})

    transport = httpx.MockTransport(handle)
    monkeypatch.setattr(httpx, "AsyncClient", partial(httpx.AsyncClient, transport=transport))
    checks = FireVerifier(AUDIENCE, jwks_url="https://portal.example/jwks", clock=Clock())
    assert run(checks.verify(token()))
    (request,) = asked
    assert (request.headers["accept"], request.headers["user-agent"]) == ("application/json", "chronos-cron")


def test_real_clock_decides_when_none_is_given() -> None:
    """Without a clock of the caller's, a token is good until the machine's own says otherwise."""
    with freeze_time(datetime.fromtimestamp(NOW_S, UTC)) as frozen:
        believed = FireVerifier(AUDIENCE, issuer=ISSUER, jwks={"keys": [jwk()]})
        text = token()
        assert run(believed.verify(text))
        frozen.tick(90 + LEEWAY_S + 1)
        with pytest.raises(TokenError):
            run(believed.verify(text))
