"""The verification of fire tokens: what is believed, what is not, and how often keys are fetched."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from freezegun import freeze_time
from hypothesis import given
from hypothesis import strategies as st

from chronos.errors import TokenError
from chronos.fire import jwks, verify
from chronos.fire.jwks import REFETCH_EVERY_S, read_jwks
from chronos.fire.verify import LEEWAY_S, MAX_LIFETIME_S, FireVerifier
from tests.fires import (
    ALGORITHMS,
    ATTACKS,
    AUDIENCE,
    ISSUER,
    NOW_S,
    Clock,
    Keys,
    base64url,
    claims,
    encoded,
    fire_verifier,
    jwk,
    kind_of,
    nas_keys,
    pem,
    private_key,
    run,
    sign,
    token,
)


def refused(text: str, *keys: dict[str, Any], **settings: Any) -> str:
    """Return why *text* is refused; fail when it is not."""
    with pytest.raises(TokenError) as caught:
        run(fire_verifier(*keys, **settings).verify(text))
    return str(caught.value)


# --- What is believed ---


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("names_algorithm", [True, False])
def test_a_good_token_is_believed(algorithm: str, names_algorithm: bool) -> None:
    """Every algorithm of the contract, whether or not the key says which one it is for."""
    key = jwk(algorithm) | ({"alg": algorithm} if names_algorithm else {})
    said = run(fire_verifier(key).verify(token(algorithm)))
    assert (said.aud, said.iss, said.purpose, said.exp) == (AUDIENCE, ISSUER, "cron_fire", NOW_S + 90)


def test_the_algorithms_are_those_of_the_contract() -> None:
    """No symmetric one among them."""
    assert list(verify.ALGORITHMS) == ALGORITHMS


def test_an_audience_among_several_is_believed() -> None:
    """A token may be for several; one of them is this agent."""
    assert run(fire_verifier().verify(token(aud=["other", AUDIENCE]))).aud == AUDIENCE


def test_any_issuer_is_believed_when_none_is_configured() -> None:
    """The issuer is compared when it is known, and only then."""
    other = "https://other.example"
    assert run(fire_verifier(issuer=None).verify(token(iss=other))).iss == other
    assert run(fire_verifier(issuer=None).verify(token(iss=None))).iss is None


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": NOW_S - LEEWAY_S + 1, "iat": NOW_S - 90},
        {"nbf": NOW_S + LEEWAY_S},
        {"iat": NOW_S + LEEWAY_S, "nbf": NOW_S + LEEWAY_S},
        {"exp": NOW_S + MAX_LIFETIME_S},
        {"exp": NOW_S + MAX_LIFETIME_S, "iat": None},
        {"exp": NOW_S + LEEWAY_S + MAX_LIFETIME_S, "iat": NOW_S + LEEWAY_S},
    ],
    ids=str,
)
def test_clocks_may_differ_by_the_leeway(changes: dict[str, Any]) -> None:
    """Thirty seconds either way, by the injected clock; and an hour is not too long."""
    assert run(fire_verifier().verify(token(**changes)))


def test_a_token_says_when_it_was_made_if_nas_says_it() -> None:
    """What tells how late a fire is, hop by hop."""
    assert run(fire_verifier().verify(token())).iat == NOW_S
    assert run(fire_verifier().verify(token(iat=None))).iat is None


# --- What is not ---


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_refused(attack: str) -> None:
    """Each for its own reason, and none with another exception than `TokenError`."""
    assert refused(ATTACKS[attack](), *nas_keys())


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        ("alg 'none'", "is not one of"),
        ("HS256 with the PEM", "is not one of"),
        ("PS256 with NAS's key", "is not one of"),
        ("another key", "none of NAS's keys"),
        ("ES256 on another curve", "none of NAS's keys"),
        ("an unknown kid", "0 fit RS256 and kid 'k9'"),
        ("a key in the header", "none of NAS's keys"),
        ("a changed payload", "none of NAS's keys"),
        ("crit", "critical"),
        ("too long", "8192 at most"),
        ("exp passed", "expired"),
        ("exp far off", "3600 at most"),
        ("iat long ago", "3600 at most"),
        ("nbf to come", "is good from"),
        ("iat to come", "was made at"),
        ("exp not a number", "exp is"),
        ("aud of another agent", "Audience"),
        ("iss another", "issuer"),
        ("purpose another", "purpose is 'api'"),
        ("no purpose", "purpose is absent"),
    ],
)
def test_an_attack_is_refused_for_what_is_wrong_with_it(attack: str, reason: str) -> None:
    """The log is of use, and the attacks are what they are called (incident W8)."""
    assert reason in refused(ATTACKS[attack](), *nas_keys())


def test_a_reason_is_one_line() -> None:
    """Whoever makes a bad token does not write the log."""
    said = refused(sign(header={"crit": ["\n2026-06-26 all is well"]}))
    assert "\n" not in said
    assert "\n" not in refused(token(kid="k\nk", number=2))


def test_a_symmetric_key_among_nas_keys_is_not_used() -> None:
    """A JWKS that leaks a shared secret does not make it one."""
    with pytest.raises(ValueError, match="no RSA or EC key"):
        fire_verifier({"kty": "oct", "k": base64url(b"s" * 32), "kid": "k1"})


def test_a_token_is_held_to_its_keys_algorithm_and_use() -> None:
    """A key that is for one algorithm, or for encryption, verifies nothing else."""
    refused(token("RS512"), jwk("RS256", alg="RS256"))
    refused(token("RS256"), jwk("RS256", use="enc"), jwk("ES256", kid="k2"))
    refused(token("RS256"), jwk("RS256", key_ops=["encrypt"]), jwk("ES256", kid="k2"))
    refused(token("ES256"), jwk("RS256"))
    refused(token("ES256", number=1), jwk("ES384"))
    refused(token("ES384", number=1), jwk("ES256"))


UNUSABLE: dict[str, Callable[[], Any]] = {
    "no object": lambda: 7,
    "no members": lambda: {"kty": "RSA"},
    "no kind": lambda: {"kty": ["RSA"]},
    "another kind": lambda: {"kty": "OKP", "crv": "Ed25519", "x": base64url(bytes(32))},
    "RSA for another padding": lambda: jwk("RS256", alg="PS256"),
    "RSA for a curve": lambda: jwk("RS256", alg="ES256"),
    "a curve for another": lambda: jwk("ES256", alg="ES384"),
    "an algorithm that is no text": lambda: jwk("RS256", alg=7),
    "for encryption": lambda: jwk("RS256", use="enc"),
    "operations that are no list": lambda: jwk("RS256", key_ops="verify"),
    "a name that is no text": lambda: jwk("RS256") | {"kid": 7},
    "with its secret": lambda: jwk("RS256") | {"d": "AQAB"},
    "a modulus that is no text": lambda: jwk("RS256") | {"n": 7},
    "an empty exponent": lambda: jwk("RS256") | {"e": ""},
    "a point that is none": lambda: jwk("ES256") | {"y": "AQAB"},
    "a point of another curve": lambda: jwk("ES256") | {"crv": "P-384"},
    "a curve that the contract has not": lambda: jwk("ES512"),
    "a curve of money": lambda: jwk("K") | {"alg": "ES256"},
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_key_that_cannot_be_used_is_passed_over(name: str) -> None:
    """One bad entry does not take the others with it; alone it is no JWKS."""
    key = UNUSABLE[name]()
    assert [each.kid for each in read_jwks({"keys": [key, jwk(kid="good")]})] == ["good"]
    with pytest.raises(ValueError, match="no RSA or EC key"):
        read_jwks({"keys": [key]})


def test_a_weak_rsa_key_is_not_used() -> None:
    """Somebody may have found its other half."""
    public = private_key("RSA1024").public_key().public_numbers()
    size = (public.n.bit_length() + 7) // 8
    weak = {"kty": "RSA", "n": base64url(public.n.to_bytes(size, "big")), "e": "AQAB"}
    with pytest.raises(ValueError, match="2048 bits"):
        jwks.read_jwk(weak)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just(jwk()["n"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["keys", "kty", "n", "e", "crv", "x", "y", "d", "kid", "alg", "use", "key_ops"]),
            inner | st.sampled_from(["RSA", "EC", "P-256", "P-384", "AQAB", "sig", "RS256"]),
        )
    ),
    max_leaves=12,
)


@given(json_values | st.lists(json_values, max_size=3).map(lambda keys: {"keys": keys}))
def test_whatever_is_published_is_keys_or_none(published: Any) -> None:
    """There is one way out for a JWKS as well."""
    try:
        assert read_jwks(published)
    except ValueError:
        return


@given(
    st.text(max_size=60)
    | st.lists(st.text(alphabet="abcAZ019-_=. ", max_size=20), max_size=5).map(".".join)
    | st.binary(max_size=60)
    | st.none()
)
def test_whatever_is_no_token_is_refused(text: Any) -> None:
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


odd_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=0, max_value=2 * int(NOW_S))
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from([10**400, -(10**400), AUDIENCE, ISSUER, "cron_fire", "RS256", "k1", "\ud83d"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(
    changes=st.dictionaries(
        st.sampled_from(["exp", "nbf", "iat", "aud", "iss", "purpose", "jti", "sub", "x"]), odd_values
    ),
    header=st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "cty", "crit", "b64", "jwk", "jku", "x5u", "x5c"]), odd_values
    ),
)
def test_whatever_nas_signs_is_believed_only_when_it_is_a_fire(
    changes: dict[str, Any], header: dict[str, Any]
) -> None:
    """Any claims and any header with a real signature: the claims that the contract asks for, or refused."""
    try:
        said = run(fire_verifier().verify(sign({**claims(), **changes}, header)))
    except TokenError:
        return
    assert (said.aud, said.iss, said.purpose) == (AUDIENCE, ISSUER, "cron_fire")
    assert NOW_S - LEEWAY_S < said.exp <= NOW_S + LEEWAY_S + MAX_LIFETIME_S
    assert max(said.iat or 0, said.nbf or 0) <= NOW_S + LEEWAY_S
    assert "crit" not in header


def test_the_real_clock_is_the_default() -> None:
    """Without an injected clock, a token of the past has expired."""
    with pytest.raises(TokenError, match="expired"):
        run(FireVerifier(AUDIENCE, jwks={"keys": [jwk()]}).verify(token(exp=1_000_000, iat=None)))


# --- A token is good once ---


def test_a_token_with_an_id_is_believed_once() -> None:
    """NAS makes one for each attempt, so that a second use is somebody else's."""

    async def scenario() -> None:
        checks = fire_verifier()
        text = token(jti="1")
        await checks.verify(text)
        with pytest.raises(TokenError, match="used before"):
            await checks.verify(text)
        await checks.verify(token(jti="2"))

    run(scenario())


def test_a_token_without_an_id_is_good_once_for_each_fire() -> None:
    """Of two jobs that are due in one second the tokens can be the same text, and both must be fired."""

    async def scenario() -> None:
        checks = fire_verifier()
        text = token()
        assert text == token()
        said = await checks.verify(text)
        checks.spend(text, said, "j")
        checks.spend(text, await checks.verify(text), "k")
        for fire in ("j", "k"):
            with pytest.raises(TokenError, match="used before"):
                checks.spend(text, await checks.verify(text), fire)

    run(scenario())


def test_two_tokens_with_one_id_are_two() -> None:
    """A NAS that names the delivery and not the attempt must not lose its second attempt."""

    async def scenario() -> None:
        checks = fire_verifier()
        assert await checks.verify(token(jti="delivery-1"))
        assert await checks.verify(token(jti="delivery-1", iat=NOW_S + 1))

    run(scenario())


def test_a_used_token_with_another_signature_is_used() -> None:
    """An elliptic curve allows a second one, which everybody can make of the first."""

    async def scenario() -> None:
        checks = fire_verifier(jwk("ES256"))
        for text in (mirrored(token("ES256", jti="1")), token("ES256", jti="2")):
            await checks.verify(text)
            with pytest.raises(TokenError, match="used before"):
                await checks.verify(mirrored(text))

    run(scenario())


def mirrored(text: str) -> str:
    """Return an ES256 token with the other of its two signatures (r, s) and (r, order - s)."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    signed, _, last = text.rpartition(".")
    both = base64.urlsafe_b64decode(last + "==")
    other = order - int.from_bytes(both[32:], "big")
    return f"{signed}.{base64url(both[:32] + other.to_bytes(32, 'big'))}"


def test_a_used_token_with_its_signature_spelled_differently_is_used() -> None:
    """The last letter of it has bits that some readers of base64 do not look at."""

    async def scenario() -> None:
        checks = fire_verifier()
        text = token()
        said = await checks.verify(text)
        checks.spend(text, said, "j")
        with pytest.raises(TokenError, match="used before"):
            checks.spend(text[:-1] + chr(ord(text[-1]) + 1), said, "j")

    run(scenario())


def test_of_many_uses_at_once_one_is_believed() -> None:
    """Also when all of them wait for NAS's keys."""
    keys = Keys(jwk())

    async def scenario() -> None:
        checks = fetching(keys)
        text = token(jti="1")
        found = await asyncio.gather(*(checks.verify(text) for _ in range(20)), return_exceptions=True)
        assert sum(isinstance(each, TokenError) for each in found) == 19
        assert sum(not isinstance(each, BaseException) for each in found) == 1

    run(scenario())


def test_a_token_that_was_refused_is_not_used() -> None:
    """What came before the clock was right, or before the keys could be fetched, can come again."""
    clock = Clock()

    async def scenario() -> None:
        checks = fire_verifier(clock=clock)
        text = token(jti="1")
        clock.now_s -= 3600
        with pytest.raises(TokenError, match="was made at"):
            await checks.verify(text)
        clock.now_s += 3600
        assert await checks.verify(text)

    run(scenario())


def test_used_tokens_are_remembered_for_as_long_as_they_are_good_and_no_longer() -> None:
    """The memory does not grow with the age of the process."""
    clock = Clock()

    async def scenario() -> None:
        checks = fire_verifier(clock=clock)
        for minute in range(60):
            clock.now_s = NOW_S + 60 * minute
            text = token(jti="1", iat=clock.now_s, exp=clock.now_s + 90)
            await checks.verify(text)
            clock.now_s += 90 + LEEWAY_S - 1
            with pytest.raises(TokenError, match="used before"):
                await checks.verify(text)
            clock.now_s -= 90 + LEEWAY_S - 1
            assert len(checks._used) <= 2

    run(scenario())


def test_used_tokens_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten first; the claim still finds it a duplicate."""
    monkeypatch.setattr(verify, "MAX_REMEMBERED", 3)

    async def scenario() -> None:
        checks = fire_verifier()
        said = await checks.verify(token())
        for number in range(4):
            checks.spend(token(), said, str(number))
        assert len(checks._used) == 3
        for number in (1, 2, 3):
            with pytest.raises(TokenError):
                checks.spend(token(), said, str(number))
        checks.spend(token(), said, "0")

    run(scenario())


# --- Which key ---


def test_a_token_without_a_key_id_may_be_of_any_key() -> None:
    """A NAS that names no keys has two of them while it rotates; the signature tells which (W6)."""
    assert run(fire_verifier(jwk("RS256"), jwk("ES256")).verify(token(kid=None)))
    for number in (1, 2):
        both = [jwk(kid=None), jwk(kid=None, number=2)]
        assert run(fire_verifier(*both).verify(token(kid=None, number=number)))
        assert run(fire_verifier(jwk(), jwk(kid="k2", number=2)).verify(token(kid=None, number=number)))
    refused(token(kid=None, number=3), *both)


def test_a_key_without_an_id_may_have_signed_any_token() -> None:
    """But one that has the token's id comes before it."""
    assert run(fire_verifier(jwk(kid=None)).verify(token(kid="k1")))
    refused(token(kid="k2"), jwk(kid="k2", number=2), jwk(kid=None))
    refused(token(kid="k2"), jwk(kid="k1"))


def test_two_keys_of_one_id_are_both_tried() -> None:
    """An id is a hint; the signature is the proof."""
    for number in (1, 2):
        assert run(fire_verifier(jwk(), jwk(number=2)).verify(token(number=number)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_can_be_pinned(algorithm: str) -> None:
    """As PEM text, as bytes or as a JWK; whatever the token calls it."""
    for key in (
        pem(kind_of(algorithm)),
        pem(kind_of(algorithm)).decode(),
        jwk(algorithm),
        jwk(algorithm, None),
    ):
        pinned = FireVerifier(AUDIENCE, key=key, clock=Clock())
        assert run(pinned.verify(token(algorithm)))
        assert isinstance(key, dict) or run(pinned.verify(token(algorithm, kid="any")))
        with pytest.raises(TokenError):
            run(pinned.verify(token(algorithm, number=2)))


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_on_a_pinned_key_is_refused(attack: str) -> None:
    """Above all, its PEM text is no shared secret."""
    with pytest.raises(TokenError):
        run(FireVerifier(AUDIENCE, issuer=ISSUER, key=pem(), clock=Clock()).verify(ATTACKS[attack]()))


def ed25519_pem() -> bytes:
    key = Ed25519PrivateKey.generate().public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


NO_KEYS: dict[str, Callable[[], Any]] = {
    "empty": lambda: "",
    "empty bytes": lambda: b"",
    "text": lambda: "no key",
    "half a character": lambda: "\ud83d",
    "half a key": lambda: pem()[:200],
    "a curve that the contract has not": lambda: pem("ES512"),
    "a curve of money": lambda: pem("K"),
    "a weak key": lambda: pem("RSA1024"),
    "another kind": ed25519_pem,
    "an empty object": dict,
    "a JWKS": lambda: {"keys": [jwk()]},
    "a secret": lambda: {"kty": "oct", "k": "c2VjcmV0"},
}


@pytest.mark.parametrize("name", NO_KEYS)
def test_what_is_no_key_cannot_be_pinned(name: str) -> None:
    """A mistake in the configuration is seen at once, and not at the first fire."""
    with pytest.raises(ValueError, match="expected"):
        FireVerifier(AUDIENCE, key=NO_KEYS[name]())


def test_a_private_key_is_not_pinned_and_not_shown() -> None:
    """The agent needs no secret for this, and a message is no place for one."""
    secret = private_key("RSA").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(ValueError, match="got a private one") as caught:
        FireVerifier(AUDIENCE, key=secret)
    assert secret.splitlines()[1].decode() not in str(caught.value)


def test_a_verifier_needs_an_audience_and_keys() -> None:
    """There is no unsigned fallback (contract, "Trust")."""
    url = "https://portal.example/jwks"
    with pytest.raises(ValueError, match="audience"):
        FireVerifier("", jwks_url=url)
    with pytest.raises(ValueError, match="issuer is empty"):
        FireVerifier(AUDIENCE, issuer="", jwks_url=url)
    with pytest.raises(ValueError, match="jwks_url, jwks or key"):
        FireVerifier(AUDIENCE)
    with pytest.raises(ValueError, match="either key"):
        FireVerifier(AUDIENCE, key=pem(), jwks_url=url)
    for wrong in ("", "portal.example/jwks", "file:///etc/jwks", "https://"):
        with pytest.raises(ValueError, match="http or https"):
            FireVerifier(AUDIENCE, jwks_url=wrong)


# --- Fetching keys ---


def fetching(keys: Callable[[str], Any] | None, clock: Clock | None = None) -> FireVerifier:
    """Return a verifier that has to fetch NAS's keys."""
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


def test_a_new_key_under_an_old_name_is_picked_up() -> None:
    """NAS should give it a new one; refusing every fire for an hour helps nobody (incident W6)."""
    keys, clock = Keys(jwk()), Clock()

    async def scenario() -> None:
        checks = fetching(keys, clock)
        await checks.verify(token())
        keys.keys = [jwk(number=2)]
        clock.now_s += REFETCH_EVERY_S
        await checks.verify(token(number=2))
        with pytest.raises(TokenError):
            await checks.verify(token())

    run(scenario())
    assert keys.fetches == 2


def test_fires_that_meet_a_new_key_at_once_share_a_fetch() -> None:
    """Fires come in bursts, at the full hour, when many jobs are due."""
    keys, clock = Keys(jwk()), Clock()

    async def scenario() -> None:
        checks = fetching(keys, clock)
        await checks.verify(token())
        keys.keys = [jwk(kid="k2", number=2)]
        clock.now_s += REFETCH_EVERY_S
        said = await asyncio.gather(*(checks.verify(token(kid="k2", number=2)) for _ in range(10)))
        assert len(said) == 10

    run(scenario())
    assert keys.fetches == 2


def test_a_fire_that_is_given_up_does_not_end_the_fetch_of_others() -> None:
    """Who hangs up while NAS's keys are on their way takes nobody else along."""
    keys, is_asked, may_answer = Keys(jwk()), asyncio.Event(), asyncio.Event()

    async def slow(url: str) -> dict[str, Any]:
        is_asked.set()
        await may_answer.wait()
        return await keys(url)

    async def scenario() -> None:
        checks = fetching(slow)
        first = asyncio.create_task(checks.verify(token()))
        await is_asked.wait()
        second = asyncio.create_task(checks.verify(token()))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        may_answer.set()
        assert await second

    run(scenario())
    assert keys.fetches == 1


def test_one_verifier_serves_several_loops() -> None:
    """A host without a loop of its own may start one for each fire."""
    keys = Keys(jwk())
    checks = fetching(keys)
    for _ in range(3):
        assert run(checks.verify(token()))
    assert keys.fetches == 1


def test_pinned_keys_are_never_fetched() -> None:
    """Nor is anything else asked."""
    keys = Keys(jwk(kid="k2", number=2))
    pinned = FireVerifier(AUDIENCE, jwks={"keys": [jwk()]}, fetch=keys, clock=Clock())
    with pytest.raises(TokenError):
        run(pinned.verify(token(kid="k2", number=2)))
    assert keys.fetches == 0


def test_keys_that_are_known_from_the_start_are_fetched_when_they_do_not_fit() -> None:
    """The machine that a fire has woken need not ask first."""
    keys, clock = Keys(jwk(kid="k2", number=2)), Clock()

    async def scenario() -> None:
        checks = FireVerifier(
            AUDIENCE, jwks={"keys": [jwk()]}, jwks_url="https://portal.example/jwks", fetch=keys, clock=clock
        )
        await checks.verify(token())
        assert keys.fetches == 0
        await checks.verify(token(kid="k2", number=2))
        assert keys.fetches == 1

    run(scenario())


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
        await checks.verify(token(kid="k2", number=2, iat=clock.now_s, exp=clock.now_s + 90))

    run(scenario())


def test_a_withdrawn_key_is_forgotten() -> None:
    """The keys are fetched again after an hour, known or not."""
    keys, clock = Keys(jwk()), Clock()

    async def scenario() -> None:
        checks = fetching(keys, clock)
        await checks.verify(token())
        keys.keys = [jwk(kid="k2", number=2)]
        clock.now_s += jwks.MAX_KEY_AGE_S + 1
        with pytest.raises(TokenError):
            await checks.verify(token(iat=clock.now_s, exp=clock.now_s + 90))

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
        checks._keys._fetch = broken
        clock.now_s += jwks.MAX_KEY_AGE_S + 1
        await checks.verify(token(iat=clock.now_s, exp=clock.now_s + 90))

    run(scenario())


def test_a_fetch_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller of the webhook does not wait for it."""
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT_S", 0.05)

    async def hangs(_url: str) -> dict[str, Any]:
        await asyncio.sleep(30)
        raise AssertionError

    with pytest.raises(TokenError):
        run(fetching(hangs).verify(token()))


def test_a_fetch_may_be_sync() -> None:
    """What may block gets a thread."""
    assert run(fetching(lambda _url: {"keys": [jwk()]}).verify(token()))


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[httpx.Request]]:
    """Return how to put an answer where the HTTP client fetches, which returns what it is asked."""

    def serve(answer: Callable[[], httpx.Response]) -> list[httpx.Request]:
        asked: list[httpx.Request] = []

        def handle(request: httpx.Request) -> httpx.Response:
            asked.append(request)
            return answer()

        client = partial(httpx.AsyncClient, transport=httpx.MockTransport(handle))
        monkeypatch.setattr(httpx, "AsyncClient", client)
        return asked

    return serve


def test_keys_are_fetched_with_headers_that_firewalls_let_through(
    serving: Callable[..., list[httpx.Request]],
) -> None:
    """An explicit Accept and User-Agent (incident W5)."""
    asked = serving(lambda: httpx.Response(200, json={"keys": [jwk()]}))
    assert run(fetching(None).verify(token()))
    (request,) = asked
    assert (request.headers["accept"], request.headers["user-agent"]) == ("application/json", "chronos-cron")


def published(size: int) -> bytes:
    """Return a JWKS of so many bytes."""
    body = json.dumps({"keys": [jwk()]}).encode()
    return body + b" " * (size - len(body))


@pytest.mark.parametrize(
    "answer",
    [
        lambda: httpx.Response(302, headers={"location": "https://attacker.example/jwks"}),
        lambda: httpx.Response(307, headers={"location": "/elsewhere"}, json={"keys": [jwk()]}),
        lambda: httpx.Response(404, json={"keys": [jwk()]}),
        lambda: httpx.Response(503),
        lambda: httpx.Response(200, content=b"<html>"),
        lambda: httpx.Response(200, content=b"[" * 100_000),
        lambda: httpx.Response(200, content=published(jwks.MAX_JWKS_BYTES + 1)),
        lambda: httpx.Response(
            200,
            headers={"content-encoding": "gzip"},
            content=gzip.compress(published(jwks.MAX_JWKS_BYTES + 1)),
        ),
    ],
    ids=["elsewhere", "redirected", "404", "503", "no JSON", "nested", "too large", "too large unpacked"],
)
def test_an_answer_that_is_not_the_keys_is_none(
    answer: Callable[[], httpx.Response],
    serving: Callable[..., list[httpx.Request]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Redirects are not followed: where the keys come from is configured, and nobody else decides it."""
    asked = serving(answer)
    with pytest.raises(TokenError):
        run(fetching(None).verify(token()))
    assert [str(request.url) for request in asked] == ["https://portal.example/jwks"]
    assert "NAS's keys could not be fetched" in caplog.text


def test_the_largest_answer_is_read(serving: Callable[..., list[httpx.Request]]) -> None:
    """The bound itself is still allowed."""
    serving(lambda: httpx.Response(200, content=published(jwks.MAX_JWKS_BYTES)))
    assert run(fetching(None).verify(token()))


def test_real_clock_decides_when_none_is_given() -> None:
    """Without a clock of the caller's, a token is good until the machine's own says otherwise."""
    with freeze_time(datetime.fromtimestamp(NOW_S, UTC)) as frozen:
        believed = FireVerifier(AUDIENCE, issuer=ISSUER, jwks={"keys": [jwk()]})
        text = token()
        assert run(believed.verify(text))
        frozen.tick(90 + LEEWAY_S + 1)
        with pytest.raises(TokenError):
            run(believed.verify(text))
