"""The clients of NAS: what they send, what they make of every answer, and when they ask again."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import formatdate
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronos.contract import messages
from chronos.errors import InvalidClient, NasError, NasRefused, NasUnavailable, StaleRevision
from chronos.jobs.instants import parse_instant
from chronos.nas.answer import MAX_ANSWER_BYTES, MAX_RETRY_AFTER_S, read_answer
from chronos.nas.client import AsyncNasClient, NasClient
from tests.nas_clients import AN_EPOCH_S, KINDS, Client, Handler, answers

AT = "2026-06-26T12:00:00+00:00"
AT_US = parse_instant(AT)
ARMED = {"schedule_id": "sch_1"}
PASSING = [408, 429, 500, 502, 503, 504]
INVALID_CLIENT = {"error": "invalid_client"}

Make = Callable[..., Client]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(kind: str) -> Iterator[Make]:
    """Return what makes a client: of its handler, and of options as the client itself has them."""
    made: list[Client] = []

    def make(handler: Handler, **options: Any) -> Client:
        made.append(Client(kind, handler, **options))
        return made[-1]

    yield make
    for each in made:
        with each:
            pass


class Tokens:
    """A provider that counts what it is asked for, and names its tokens by it."""

    def __init__(self) -> None:
        self.asked: list[bool] = []

    def __call__(self, is_fresh: bool) -> str:
        self.asked.append(is_fresh)
        return "fresh" if is_fresh else "stale"


def ok(**more: Any) -> httpx.Response:
    return httpx.Response(200, json=ARMED | more)


def later(status: int = 503, retry_after: str = "60", **headers: str) -> httpx.Response:
    return httpx.Response(status, headers={"retry-after": retry_after, **headers})


def bearers(asked: list[httpx.Request]) -> list[str]:
    return [request.headers["authorization"].removeprefix("Bearer ") for request in asked]


# --- Messages ---------------------------------------------------------------------------------


def test_a_provision_says_what_the_contract_says(client: Make) -> None:
    """Path, token, headers and body, with the dedup key as the exact text and the revision beside it."""
    handle, asked = answers(ok(revision=4))
    answer = client(handle).provision("job-7", AT_US, revision=4)
    (request,) = asked
    assert answer.echoed
    assert (request.method, str(request.url)) == ("POST", "https://portal.example/api/agent-cron/provision")
    assert request.headers["authorization"] == "Bearer tok"
    assert request.headers["accept"] == "application/json"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == "chronos-cron"
    assert json.loads(request.content) == {
        "job_id": "job-7",
        "fire_at": AT,
        "agent_callback_url": "https://agent.example",
        "dedup_key": f"job-7:{AT}",
        "revision": 4,
    }


@pytest.mark.parametrize("response", [ARMED, {**ARMED, "revision": 3}, {**ARMED, "revision": None}])
def test_an_answer_without_the_revision_is_no_echo(client: Make, response: dict[str, Any]) -> None:
    """A NAS that keeps no order is told apart from one that does."""
    handle, _ = answers(httpx.Response(200, json=response))
    assert not client(handle).provision("job-7", AT_US, revision=4).echoed


def test_a_cancel_without_a_revision_sends_none(client: Make) -> None:
    """Who found nothing to remove claims no place in the order."""
    handle, asked = answers(httpx.Response(200, json={"ok": True}))
    assert not client(handle).cancel("job-7").echoed
    assert json.loads(asked[0].content) == {"job_id": "job-7"}


def test_a_cancel_that_is_not_ok_is_an_error(client: Make) -> None:
    """The contract says always true; what false means, nobody knows."""
    handle, asked = answers(httpx.Response(200, json={"ok": False}))
    with pytest.raises(NasUnavailable, match="ok: false") as caught:
        client(handle).cancel("job-7", revision=3)
    assert not caught.value.definite
    assert len(asked) == 1


def test_a_list_is_the_instants_by_job(client: Make) -> None:
    """Text that is no instant, and a job that is armed twice, read as None: NAS disagrees with any wish."""
    rows = [("a", AT), ("b", "soon"), ("c", AT), ("c", AT), ("d", "2026-06-26T14:00:00+02:00")]
    armed = [{"job_id": job_id, "fire_at": at, "schedule_id": "s"} for job_id, at in rows]
    handle, asked = answers(httpx.Response(200, json={"armed": armed}))
    assert client(handle).list_arms() == {"a": AT_US, "b": None, "c": None, "d": AT_US}
    assert (asked[0].method, asked[0].content) == ("GET", b"")
    assert "content-type" not in asked[0].headers


def test_a_list_is_not_refused_for_a_revision(client: Make) -> None:
    """It has none; whoever lists would not know what to do about it."""
    handle, _ = answers(httpx.Response(409, json={"error": "stale_revision", "revision": 9}))
    with pytest.raises(NasRefused, match="a list does not have"):
        client(handle).list_arms()


@pytest.mark.parametrize(("job_id", "at_us"), [("", AT_US), ("x" * 201, AT_US), ("job-7", 10**20)])
def test_what_is_no_message_is_not_sent(client: Make, job_id: str, at_us: int) -> None:
    """A job that cannot be armed at all is refused here, definitely."""
    handle, asked = answers()
    with pytest.raises(NasRefused, match="not sent") as caught:
        client(handle).provision(job_id, at_us)
    assert caught.value.definite
    assert not asked


@pytest.mark.parametrize("url", ["", "portal.example", "ftp://portal.example", "https:///path"])
@pytest.mark.parametrize("make", [NasClient, AsyncNasClient])
def test_a_url_that_is_none_is_refused_at_once(make: Any, url: str) -> None:
    """A mistake in the configuration shows when the agent starts, not at the first fire."""
    with pytest.raises(ValueError, match="portal_url"):
        make(url, token_provider=lambda _fresh: "tok", callback_url="https://agent.example")
    with pytest.raises(ValueError, match="callback_url"):
        make("https://portal.example", token_provider=lambda _fresh: "tok", callback_url=url)


# --- Tokens -----------------------------------------------------------------------------------


def test_a_refused_token_is_refreshed_once(client: Make) -> None:
    """After a 401 the provider is asked for a fresh token, and the request is sent again at once."""
    handle, asked = answers(httpx.Response(401), ok())
    nas = client(handle, token_provider=Tokens())
    nas.provision("job-7", AT_US)
    assert bearers(asked) == ["stale", "fresh"]
    assert nas.time.pauses == []


def test_a_token_that_is_refused_twice_is_an_error(client: Make) -> None:
    """There is no third attempt and nothing was done: the login is over, as when NAS says so (L4)."""
    handle, asked = answers(httpx.Response(401), httpx.Response(401))
    made = client(handle)
    with pytest.raises(InvalidClient, match="Log the agent in again") as caught:
        made.provision("job-7", AT_US)
    assert len(asked) == 2
    assert caught.value.definite


def test_a_refused_token_is_no_retry(client: Make) -> None:
    """A retry keeps its token, and a fresh token takes none of the retries away."""
    handle, asked = answers(httpx.Response(503), httpx.Response(401), httpx.Response(503), ok())
    tokens = Tokens()
    client(handle, token_provider=tokens).provision("job-7", AT_US)
    assert bearers(asked) == ["stale", "stale", "fresh", "fresh"]
    assert tokens.asked == [False, True]


async def _async_token(_fresh: bool) -> str:
    return "tok"


class _Provider:
    async def __call__(self, _fresh: bool) -> str:
        return "tok"


@pytest.mark.parametrize("provider", [_async_token, _Provider(), lambda _fresh: _async_token(_fresh)])
def test_a_token_provider_may_be_async(provider: Callable[[bool], Awaitable[str]]) -> None:
    """Async functions, objects and functions that return a coroutine all work with the async client."""
    handle, asked = answers(ok())
    with Client("asyncio", handle, token_provider=provider) as nas:
        nas.provision("job-7", AT_US)
    assert bearers(asked) == ["tok"]


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "ünïcode", None])
def test_a_token_that_no_header_can_carry_is_no_token(client: Make, token: Any) -> None:
    """Nothing is sent, and the error says that definitely nothing happened."""
    handle, asked = answers()
    with pytest.raises(NasUnavailable, match="no access token") as caught:
        client(handle, token_provider=lambda _fresh: token).cancel("job-7")
    assert caught.value.definite
    assert not asked


@pytest.mark.parametrize("kind_of_error", [RuntimeError, StopIteration, TimeoutError])
def test_a_provider_that_fails_is_an_error_without_its_text(
    client: Make, kind_of_error: type[Exception]
) -> None:
    """The text, which may hold a secret, is not repeated; the cause is chained."""

    def provider(_fresh: bool) -> str:
        raise kind_of_error("refresh token abc123 is revoked")

    with pytest.raises(NasUnavailable) as caught:
        client(answers()[0], token_provider=provider).cancel("job-7")
    assert caught.value.definite
    assert "abc123" not in str(caught.value)
    assert "abc123" in f"{caught.value.__cause__!r} {caught.value.__cause__.__cause__!r}"  # type: ignore[union-attr]


# --- Retries ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("slow"),
        httpx.PoolTimeout(""),
        httpx.ProxyError("403"),
        httpx.ReadTimeout("slow"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("gone"),
        RuntimeError("the client has been closed"),
        *map(httpx.Response, PASSING),
    ],
    ids=repr,
)
def test_what_may_pass_is_asked_again(client: Make, failure: httpx.Response | Exception) -> None:
    """The same request, with the same revision; to provision or cancel twice is to do it once."""
    handle, asked = answers(failure, ok(revision=4))
    assert client(handle).provision("job-7", AT_US, revision=4).echoed
    assert len(asked) == 2
    assert asked[0].content == asked[1].content


@pytest.mark.parametrize(
    "failure", [httpx.ConnectError("refused"), httpx.ReadError("reset"), httpx.Response(503)], ids=repr
)
def test_there_are_two_retries_at_most(client: Make, failure: httpx.Response | Exception) -> None:
    """What does not pass in a moment is left to whoever asked."""
    handle, asked = answers(failure, failure, failure)
    with pytest.raises(NasUnavailable):
        client(handle).cancel("job-7")
    assert len(asked) == 3


@pytest.mark.parametrize(("random", "pauses"), [(0.0, [0.0, 0.0]), (0.5, [0.25, 0.5]), (0.9, [0.45, 0.9])])
def test_retries_are_spread(client: Make, random: float, pauses: list[float]) -> None:
    """Many agents meet an outage at the same full minute: each waits for a time of its own."""
    handle, _ = answers(httpx.Response(502), httpx.Response(502), ok())
    nas = client(handle, random=lambda: random)
    nas.provision("job-7", AT_US)
    assert nas.time.pauses == pytest.approx(pauses)


@pytest.mark.parametrize(("took_s", "sends"), [(9.7, 2), (9.8, 1), (20.0, 1)])
def test_a_retry_begins_within_the_budget(client: Make, took_s: float, sends: int) -> None:
    """When the pause would end after it, there is none, and the failure is the answer."""
    asked = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        nas.time.now_s += took_s
        return httpx.Response(503)

    nas = client(handle, random=lambda: 0.5, retry_for_s=10.0)
    with pytest.raises(NasUnavailable, match="503"):
        nas.provision("job-7", AT_US)
    assert len(asked) == sends


def test_without_a_budget_there_is_no_retry(client: Make) -> None:
    """As whoever wants who has retries of their own."""
    handle, asked = answers(httpx.Response(503))
    with pytest.raises(NasUnavailable):
        client(handle, retry_for_s=0).provision("job-7", AT_US)
    assert len(asked) == 1


def test_a_request_is_bounded_as_a_whole(client: Make, kind: str) -> None:
    """An answer that comes too late is no answer."""
    given_up = threading.Event()

    def slow(_: httpx.Request) -> httpx.Response:
        given_up.wait(30)
        return ok()

    async def slow_async(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(30)
        return ok()

    nas = client(slow if kind == "threads" else slow_async, timeout_s=0.05, retry_for_s=0)
    with pytest.raises(NasUnavailable, match=r"in 0\.05 s") as caught:
        nas.list_arms()
    given_up.set()
    assert not caught.value.definite


# --- Answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "kind_of_error", "definite"),
    [
        (httpx.Response(302, headers={"location": "https://elsewhere.example"}), NasRefused, True),
        (httpx.Response(400, json={"error": "bad"}), NasRefused, True),
        (httpx.Response(403, text="<html>blocked</html>"), NasRefused, True),
        (httpx.Response(404), NasRefused, True),
        (httpx.Response(409, json={"error": "conflict"}), NasRefused, True),
        (httpx.Response(501), NasUnavailable, False),
        (httpx.Response(505), NasUnavailable, False),
        (httpx.Response(200, text="<html>log in</html>"), NasUnavailable, False),
        (httpx.Response(200, json=[]), NasUnavailable, False),
        (httpx.Response(200, json={"schedule_id": 5}), NasUnavailable, False),
        (httpx.Response(204), NasUnavailable, False),
        (httpx.Response(200, content=b"\xff\xfe"), NasUnavailable, False),
        (httpx.Response(200, content=b"[" * 100_000), NasUnavailable, False),
        (
            httpx.Response(200, content=b'{"schedule_id": "s"}'.ljust(MAX_ANSWER_BYTES + 1)),
            NasUnavailable,
            False,
        ),
    ],
)
def test_what_does_not_pass_is_not_asked_again(
    client: Make, response: httpx.Response, kind_of_error: type[NasError], definite: bool
) -> None:
    """Refused or unavailable; definite when NAS definitely did nothing."""
    handle, asked = answers(response)
    with pytest.raises(kind_of_error) as caught:
        client(handle).provision("job-7", AT_US)
    assert type(caught.value) is kind_of_error
    assert caught.value.definite == definite
    assert len(asked) == 1


def test_an_answer_is_not_read_without_end(client: Make, kind: str) -> None:
    """A page that never ends, from whoever has NAS's address now, does not fill the memory."""
    parts = []

    def page() -> Iterator[bytes]:
        while True:
            parts.append(1)
            yield b" " * 2**20

    async def page_async() -> Any:
        for part in page():
            yield part

    content = page() if kind == "threads" else page_async()
    with pytest.raises(NasUnavailable, match="longer than"):
        client(lambda _: httpx.Response(200, content=content)).list_arms()
    assert len(parts) == MAX_ANSWER_BYTES // 2**20 + 1


def test_a_stale_revision_names_the_newer_one(client: Make) -> None:
    """The protocol needs it to put the store after what NAS knows."""
    handle, asked = answers(httpx.Response(409, json={"error": "stale_revision", "revision": 9}))
    with pytest.raises(StaleRevision) as caught:
        client(handle).provision("job-7", AT_US, revision=4)
    assert caught.value.revision == 9
    assert caught.value.definite
    assert len(asked) == 1


STALE = httpx.Response(409, json={"error": "stale_revision", "revision": 9})


@pytest.mark.parametrize(
    ("failures", "kind_of_error", "definite"),
    [
        ([httpx.ConnectError("")] * 3, NasUnavailable, True),
        ([httpx.ReadError("")] * 3, NasUnavailable, False),
        ([httpx.Response(429)] * 3, NasUnavailable, True),
        ([httpx.ReadError(""), httpx.ConnectError(""), httpx.ConnectError("")], NasUnavailable, False),
        ([httpx.ConnectError(""), httpx.ConnectError(""), httpx.ReadError("")], NasUnavailable, False),
        ([httpx.Response(503), httpx.Response(429), httpx.Response(429)], NasUnavailable, False),
        ([httpx.Response(503), later(429)], NasUnavailable, False),
        ([httpx.ConnectError(""), httpx.Response(400)], NasRefused, True),
        ([httpx.Response(504), httpx.Response(400)], NasRefused, False),
        ([httpx.Response(504), httpx.Response(401), httpx.Response(401)], InvalidClient, False),
        ([httpx.Response(500), httpx.Response(403, json=INVALID_CLIENT)], InvalidClient, False),
        ([httpx.Response(429), STALE], StaleRevision, True),
        ([httpx.ReadTimeout(""), STALE], StaleRevision, False),
    ],
)
def test_an_error_is_definite_only_if_no_send_can_have_had_an_effect(
    client: Make, failures: list[httpx.Response | Exception], kind_of_error: type[NasError], definite: bool
) -> None:
    """One send of which nobody knows what became is enough, wherever it is among them."""
    handle, asked = answers(*failures)
    with pytest.raises(kind_of_error) as caught:
        client(handle).provision("job-7", AT_US, revision=4)
    assert type(caught.value) is kind_of_error
    assert caught.value.definite == definite
    assert len(asked) == len(failures)


def test_an_error_stays_in_doubt_when_its_retry_has_no_token(client: Make) -> None:
    """The token was not refused for want of a send: an earlier one may have had its effect."""
    handle, _ = answers(httpx.Response(504), httpx.Response(401))

    def provider(is_fresh: bool) -> str:
        if is_fresh:
            raise RuntimeError
        return "tok"

    with pytest.raises(NasUnavailable, match="token") as caught:
        client(handle, token_provider=provider).cancel("job-7")
    assert not caught.value.definite


# --- The wait that NAS asks for ---------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_short_wait_is_waited_for(client: Make, status: int) -> None:
    """It is the retry's pause."""
    handle, asked = answers(later(status, "7"), ok())
    nas = client(handle, random=lambda: 0.5)
    nas.provision("job-7", AT_US)
    assert nas.time.pauses == [7.25]
    assert len(asked) == 2


@pytest.mark.parametrize("status", [429, 503])
def test_a_long_wait_is_left_to_whoever_asked(client: Make, status: int) -> None:
    """They are told how long it is; nobody waits here."""
    handle, asked = answers(later(status, "60"))
    nas = client(handle)
    with pytest.raises(NasUnavailable) as caught:
        nas.provision("job-7", AT_US)
    assert caught.value.retry_after_s == 60.0
    assert (len(asked), nas.time.pauses) == (1, [])


def test_nas_is_not_called_while_it_asks_not_to_be(client: Make) -> None:
    """Later calls fail at once, definitely, without a token or a send; then NAS is asked again."""
    tokens = Tokens()
    handle, asked = answers(later(503, "60"), httpx.Response(200, json={"armed": []}))
    nas = client(handle, token_provider=tokens)
    with pytest.raises(NasUnavailable):
        nas.provision("job-7", AT_US)
    nas.time.now_s += 40.0
    nas.nas.reset()  # who asks makes no difference
    for ask in (nas.list_arms, lambda: nas.provision("job-8", AT_US)):
        with pytest.raises(NasUnavailable, match=r"another 20\.0 s") as caught:
            ask()
        assert caught.value.definite
        assert caught.value.retry_after_s == 20.0
    assert (len(asked), tokens.asked, nas.time.pauses) == (1, [False], [])
    nas.time.now_s += 20.0
    assert nas.list_arms() == {}


def test_a_call_waits_for_the_rest_of_a_wait_that_it_can_afford(client: Make) -> None:
    """Failing at once would turn a fire away for the sake of three seconds."""
    handle, asked = answers(later(503, "60"), ok())
    nas = client(handle, random=lambda: 0.5)
    with pytest.raises(NasUnavailable):
        nas.provision("job-7", AT_US)
    nas.time.now_s += 57.0
    nas.provision("job-7", AT_US)
    assert nas.time.pauses == [3.25]
    assert len(asked) == 2


@pytest.mark.parametrize("ask", ["86400", "9" * 400, formatdate(AN_EPOCH_S + 86_400, usegmt=True)])
def test_a_wait_has_a_limit(client: Make, ask: str) -> None:
    """One answer does not silence an agent for a day: its jobs would be lost."""
    handle, _ = answers(later(503, ask), ok())
    nas = client(handle)
    with pytest.raises(NasUnavailable) as caught:
        nas.provision("job-7", AT_US)
    assert caught.value.retry_after_s == MAX_RETRY_AFTER_S == 300.0
    nas.time.now_s += MAX_RETRY_AFTER_S
    nas.provision("job-7", AT_US)


HOUR_OFF = formatdate(AN_EPOCH_S - 3600, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 0 "}, 0.0),
        ({"retry-after": "Fri, 26 Jun 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Friday, 26-Jun-26 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Fri Jun 26 12:00:30 2026"}, 30.0),
        ({"retry-after": "Fri, 26 Jun 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "Fri, 26 Jun 2026 11:00:30 GMT", "date": HOUR_OFF}, 30.0),
        ({"retry-after": "Fri, 26 Jun 2026 12:00:30 GMT", "date": "soon"}, 30.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "1.5"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Fri, 99 Jun 2026 12:00:30 GMT"}, None),
        ({}, None),
    ],
)
def test_a_wait_is_seconds_or_a_date(headers: dict[str, str], wait_s: float | None) -> None:
    """A date counts from the answer's own, if it has one: the agent's clock may be wrong (incident W4)."""
    with pytest.raises(NasUnavailable) as caught:
        read_answer(429, headers, b"", messages.CancelResponse, clock=lambda: AN_EPOCH_S)
    assert caught.value.retry_after_s == wait_s


def test_a_date_is_compared_with_the_clock_of_the_client(client: Make) -> None:
    """Through the clients as well."""
    handle, _ = answers(later(503, formatdate(AN_EPOCH_S + 45, usegmt=True)))
    with pytest.raises(NasUnavailable) as caught:
        client(handle).cancel("job-7")
    assert caught.value.retry_after_s == 45.0


# --- A refused identity -----------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_identity_has_its_own_error(client: Make, status: int) -> None:
    """It names the remedy, for the operator (incident L4). A 401 may still be the token's age."""
    refused = [httpx.Response(status, json=INVALID_CLIENT) for _ in range(2)]
    handle, asked = answers(*refused)
    with pytest.raises(InvalidClient, match="Log the agent in again") as caught:
        client(handle).provision("job-7", AT_US)
    assert caught.value.definite
    assert len(asked) == {401: 2, 403: 1}[status]


def test_a_refused_identity_stops_the_client(client: Make) -> None:
    """No token is fetched and nothing is sent, until somebody says that there may be a new login."""
    tokens = Tokens()
    handle, asked = answers(httpx.Response(403, json=INVALID_CLIENT), ok(), ok())
    nas = client(handle, token_provider=tokens)
    assert not nas.nas.is_refused
    for ask in (lambda: nas.provision("job-7", AT_US), lambda: nas.cancel("job-7"), nas.list_arms):
        with pytest.raises(InvalidClient) as caught:
            ask()
        assert caught.value.definite
        assert nas.nas.is_refused
    assert (len(asked), tokens.asked) == (1, [False])
    nas.nas.reset()
    assert not nas.nas.is_refused
    nas.provision("job-7", AT_US)
    nas.provision("job-7", AT_US)
    assert bearers(asked) == ["stale", "fresh", "stale"]


def test_a_reset_wants_a_fresh_token_only_after_a_refusal(client: Make) -> None:
    """Each cold start resets, and a fire waits for it: it must not cost a fetch."""
    handle, asked = answers(ok())
    nas = client(handle, token_provider=Tokens())
    nas.nas.reset()
    nas.provision("job-7", AT_US)
    assert bearers(asked) == ["stale"]


def test_a_fresh_token_that_could_not_be_had_is_wanted_still(client: Make) -> None:
    """The next call does not go back to the token of the old login."""
    asked: list[bool] = []

    def provider(is_fresh: bool) -> str:
        asked.append(is_fresh)
        if asked == [False, True]:
            raise RuntimeError
        return "tok"

    handle, _ = answers(httpx.Response(403, json=INVALID_CLIENT), ok())
    nas = client(handle, token_provider=provider)
    with pytest.raises(InvalidClient):
        nas.list_arms()
    nas.nas.reset()
    with pytest.raises(NasUnavailable):
        nas.list_arms()
    nas.provision("job-7", AT_US)
    assert asked == [False, True, True]


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(403),
        httpx.Response(403, json={"error": "forbidden"}),
        httpx.Response(404, json=INVALID_CLIENT),
    ],
)
def test_another_refusal_does_not_stop_the_client(client: Make, response: httpx.Response) -> None:
    """A firewall in between may refuse one request and not the next."""
    handle, _ = answers(response, ok())
    nas = client(handle)
    with pytest.raises(NasRefused):
        nas.provision("job-7", AT_US)
    assert not nas.nas.is_refused
    nas.provision("job-7", AT_US)


# --- Anything at all --------------------------------------------------------------------------

HEADER_NAMES = st.sampled_from(["retry-after", "date", "location", "content-encoding", "content-type", "x"])
HEADERS = st.dictionaries(HEADER_NAMES, st.text(st.characters(max_codepoint=255), max_size=20), max_size=4)
BODIES = st.binary(max_size=50) | st.builds(
    lambda value: json.dumps(value).encode(),
    st.dictionaries(
        st.sampled_from(["error", "revision", "ok", "schedule_id", "armed", "reason"]),
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2),
    ),
)


@given(status=st.integers(100, 599), headers=HEADERS, body=BODIES)
def test_no_answer_is_a_traceback(status: int, headers: dict[str, str], body: bytes) -> None:
    """Whatever NAS or a box in between says, it is the message or an error of the tree."""
    with suppress(NasError):
        answer = read_answer(status, headers, body, messages.CancelResponse)
        assert isinstance(answer, messages.CancelResponse)


@pytest.mark.parametrize("kind_of_client", KINDS)
@given(data=st.data())
def test_no_answer_is_a_traceback_through_a_client(kind_of_client: str, data: st.DataObject) -> None:
    """Nor for anything that httpx makes of it, or that a transport raises."""

    def handle(_: httpx.Request) -> httpx.Response:
        if data.draw(st.integers(0, 5)) == 0:
            raise data.draw(st.sampled_from([OSError, ValueError, httpx.ReadError, httpx.TooManyRedirects]))(
                "x"
            )
        headers = [(name.encode(), value.encode("latin-1")) for name, value in data.draw(HEADERS).items()]
        return httpx.Response(
            data.draw(st.integers(100, 599)), headers=headers, stream=_Stream(data.draw(BODIES))
        )

    with Client(kind_of_client, handle) as nas:
        for ask in (lambda: nas.cancel("job-7", revision=1), nas.list_arms):
            with suppress(NasError):
                ask()


class _Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body as the network has it: httpx decodes it only while it is read."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def __iter__(self) -> Iterator[bytes]:
        yield self.body

    async def __aiter__(self) -> Any:
        yield self.body


# --- Connections and threads ------------------------------------------------------------------


def test_one_http_client_serves_all_requests_until_it_is_closed(
    client: Make, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made for the first request, and again for the first one after it was closed."""
    made = []
    name = "Client" if kind == "threads" else "AsyncClient"
    original = getattr(httpx, name)
    monkeypatch.setattr(httpx, name, lambda **options: made.append(1) or original(**options))
    handle, _ = answers(*(httpx.Response(200, json={"ok": True}) for _ in range(3)))
    nas = client(handle)
    nas.close()
    assert made == []
    nas.cancel("a")
    nas.cancel("b")
    assert made == [1]
    nas.close()
    nas.close()
    nas.cancel("c")
    assert made == [1, 1]


def test_a_context_manager_closes() -> None:
    """Both kinds, each in its own way."""
    options: Any = {"token_provider": lambda _fresh: "tok", "callback_url": "https://agent.example"}

    class Transport(httpx.MockTransport):
        is_closed = False

        def close(self) -> None:
            self.is_closed = True

        async def aclose(self) -> None:
            self.is_closed = True

    def handle(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"ok": True})

    async def scenario() -> None:
        async with AsyncNasClient("https://portal.example", transport=of_async, **options) as nas:
            await nas.cancel("a")

    of_sync, of_async = Transport(handle), Transport(handle)
    with NasClient("https://portal.example", transport=of_sync, **options) as nas:
        nas.cancel("a")
        assert not of_sync.is_closed
    asyncio.run(scenario())
    assert of_sync.is_closed
    assert of_async.is_closed


def test_threads_share_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight requests are in flight at once, each gets its own answer, and there is one HTTP client."""
    made = []
    original = httpx.Client

    def make(**options: Any) -> httpx.Client:
        made.append(1)
        time.sleep(0.01)  # lets the others in
        return original(**options)

    monkeypatch.setattr(httpx, "Client", make)
    all_in_flight = threading.Barrier(8)

    def handle(request: httpx.Request) -> httpx.Response:
        all_in_flight.wait(timeout=10)
        return ok(revision=json.loads(request.content)["revision"])

    with Client("threads", handle, retry_for_s=0) as nas, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(nas.provision, f"job-{number}", AT_US, revision=number) for number in range(80)]
        assert all(each.result().echoed for each in asked)
    assert made == [1]


def test_threads_share_what_a_client_has_learned() -> None:
    """Once NAS has refused the identity, nobody asks again: not the other threads either."""
    sends = []
    all_in_flight = threading.Barrier(4)

    def handle(_: httpx.Request) -> httpx.Response:
        sends.append(1)
        all_in_flight.wait(timeout=10)
        return httpx.Response(403, json=INVALID_CLIENT)

    with Client("threads", handle) as nas, ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(nas.cancel, f"job-{number}") for number in range(40)]
        assert {type(each.exception()) for each in asked} == {InvalidClient}
    assert len(sends) == 4
