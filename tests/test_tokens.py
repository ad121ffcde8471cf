"""The providers that cache an access token until shortly before its end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest
from freezegun import freeze_time
from hypothesis import given
from hypothesis import strategies as st

from chronos.nas.tokens import EXPIRY_MARGIN_S, AsyncCachedToken, CachedToken
from tests.nas_clients import Client, answers

NOON = datetime(2026, 6, 26, 12, tzinfo=UTC)
LIFE_S = 600
SECRET = "a secret of thirty-two characters at least"


class Login:
    """Issues tokens, each with a number, and an end counted from the real clock."""

    def __init__(self, make: Callable[[int], str] | None = None) -> None:
        self.fetches = 0
        self.make = make or self.ends_in

    def __call__(self) -> str:
        self.fetches += 1
        return self.make(self.fetches)

    def ends_in(self, number: int, life_s: float = LIFE_S) -> str:
        end = datetime.now(UTC) + timedelta(seconds=life_s)
        return jwt.encode({"exp": end, "jti": str(number)}, SECRET, "HS256")


Provider = Callable[[bool], str]


@pytest.fixture(params=["threads", "asyncio"])
def cached(request: pytest.FixtureRequest) -> Iterator[Callable[..., Provider]]:
    """Return what makes a provider of either kind, to be called as the one for threads is."""
    with asyncio.Runner() as runner:

        def make(fetch: Callable[[], str], **options: Any) -> Provider:
            if request.param == "threads":
                return CachedToken(fetch, **options)

            async def fetch_async() -> str:
                return fetch()

            provider = AsyncCachedToken(fetch_async, **options)
            return lambda is_fresh: runner.run(provider(is_fresh))

        yield make


def test_a_token_is_used_until_shortly_before_its_end(cached: Callable[..., Provider]) -> None:
    """As the contract says: refreshed when near expiry."""
    login = Login()
    with freeze_time(NOON, real_asyncio=True) as frozen:
        provider = cached(login)
        first = provider(False)
        frozen.tick(LIFE_S - EXPIRY_MARGIN_S - 1)
        assert provider(False) == first
        frozen.tick(1)
        second = provider(False)
        assert second != first
        assert provider(False) == second
    assert login.fetches == 2


def test_a_refused_token_is_fetched_anew(cached: Callable[..., Provider]) -> None:
    """However long it would have lasted."""
    login = Login()
    provider = cached(login)
    first = provider(False)
    second = provider(True)
    assert first != second
    assert provider(False) == second
    assert login.fetches == 2


@pytest.mark.parametrize(
    "token",
    [
        "opaque",
        "a.b.c",
        jwt.encode({"sub": "agent"}, SECRET),
        jwt.encode({"exp": "noon"}, SECRET),
        jwt.encode({"exp": True}, SECRET),
        jwt.encode({"exp": -1}, SECRET),
    ],
)
def test_a_token_without_an_end_is_fetched_each_time(cached: Callable[..., Provider], token: str) -> None:
    """Nobody knows for how long it will do."""
    login = Login(lambda _number: token)
    provider = cached(login)
    assert [provider(False), provider(False)] == [token, token]
    assert login.fetches == 2


def test_a_token_of_a_short_life_is_used_once(cached: Callable[..., Provider]) -> None:
    """It might end under way."""
    login = Login()
    login.make = lambda number: login.ends_in(number, life_s=EXPIRY_MARGIN_S - 1)
    provider = cached(login)
    assert provider(False) != provider(False)


def test_a_failed_fetch_is_the_failure_of_who_asked(cached: Callable[..., Provider]) -> None:
    """The next one asks again."""
    login = Login()

    def fetch() -> str:
        if login() and login.fetches == 1:
            raise RuntimeError("no network")
        return login.make(2)

    provider = cached(fetch)
    with pytest.raises(RuntimeError, match="no network"):
        provider(False)
    assert provider(False) == provider(False)


@given(st.text() | st.binary() | st.none())
def test_any_token_is_passed_on(token: Any) -> None:
    """What it is, is for the client to judge."""
    assert CachedToken(lambda: token)(False) == token


def test_the_clock_may_be_another() -> None:
    """As in a simulation."""
    now_s = 0.0
    login = Login(lambda number: jwt.encode({"exp": 1000, "jti": str(number)}, SECRET))
    provider = CachedToken(login, clock=lambda: now_s)
    provider(False)
    now_s = 939.0
    provider(False)
    assert login.fetches == 1
    now_s = 940.0
    provider(False)
    assert login.fetches == 2


def test_threads_that_ask_at_once_share_one_fetch() -> None:
    """Whoever comes while a token is being fetched waits for that one."""
    login = Login()
    all_ask = threading.Barrier(8)

    def fetch() -> str:
        time.sleep(0.01)  # lets the others in
        return login()

    def ask() -> str:
        all_ask.wait(timeout=10)
        return provider(False)

    provider = CachedToken(fetch)
    with ThreadPoolExecutor(8) as pool:
        tokens = {each.result() for each in [pool.submit(ask) for _ in range(8)]}
    assert len(tokens) == 1
    assert login.fetches == 1


def test_a_token_that_was_refused_to_many_is_fetched_anew_once() -> None:
    """A fetch that ended after they asked has made what they asked for."""
    login = Login()

    async def fetch() -> str:
        await asyncio.sleep(0)
        return login()

    async def scenario() -> set[str]:
        provider = AsyncCachedToken(fetch)
        return set(await asyncio.gather(*(provider(True) for _ in range(8))))

    assert len(asyncio.run(scenario())) == 1
    assert login.fetches == 1


@pytest.mark.parametrize(("kind", "is_async"), [("threads", False), ("asyncio", False), ("asyncio", True)])
def test_a_client_takes_it(kind: str, is_async: bool) -> None:
    """The plain one serves both clients; a refused token is fetched anew."""
    login = Login()

    async def fetch_async() -> str:
        return login()

    provider = AsyncCachedToken(fetch_async) if is_async else CachedToken(login)
    yes = httpx.Response(200, json={"ok": True})
    handle, asked = answers(yes, httpx.Response(401), yes, yes)
    with Client(kind, handle, token_provider=provider) as nas:
        for _ in range(3):
            nas.cancel("job-7")
    sent = [request.headers["authorization"] for request in asked]
    assert sent[0] == sent[1] != sent[2] == sent[3]
    assert login.fetches == 2
