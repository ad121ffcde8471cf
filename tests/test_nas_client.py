"""The client of NAS: what it sends, and what it makes of every kind of answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronos.errors import InvalidClient, NasError, NasRefused, NasUnavailable, StaleRevision
from chronos.nas import AsyncNasClient, read_answer
from chronos.protocol import messages
from chronos.protocol.schedule import parse_instant

T = TypeVar("T")
AT = "2026-06-26T12:00:00+00:00"
AT_US = parse_instant(AT)
ARMED = {"schedule_id": "sch_1"}

Handler = Callable[[httpx.Request], httpx.Response]


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def client(
    handler: Handler, tokens: Callable[[bool], Any] | None = None, timeout_s: float = 15.0
) -> AsyncNasClient:
    return AsyncNasClient(
        "https://portal.example/",
        token_provider=tokens or (lambda _fresh: "tok"),
        callback_url="https://agent.example/",
        transport=httpx.MockTransport(handler),
        timeout_s=timeout_s,
    )


def answers(*responses: httpx.Response | Exception) -> tuple[Handler, list[httpx.Request]]:
    """Return a NAS that gives these answers in turn, and the list of what it was asked."""
    queue, asked = list(responses), []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        answer = queue.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handle, asked


def test_a_provision_says_what_the_contract_says() -> None:
    """Path, token, headers and body, with the dedup key as the exact text and the revision beside it."""
    handle, asked = answers(httpx.Response(200, json={**ARMED, "revision": 4}))
    answer = run(client(handle).provision("job-7", AT_US, revision=4))
    (request,) = asked
    assert answer.echoed
    assert (request.method, str(request.url)) == ("POST", "https://portal.example/api/agent-cron/provision")
    assert request.headers["authorization"] == "Bearer tok"
    assert request.headers["accept"] == "application/json"
    assert request.headers["user-agent"] == "chronos-cron"
    assert json.loads(request.content) == {
        "job_id": "job-7",
        "fire_at": AT,
        "agent_callback_url": "https://agent.example",
        "dedup_key": f"job-7:{AT}",
        "revision": 4,
    }


@pytest.mark.parametrize("response", [ARMED, {**ARMED, "revision": 3}, {**ARMED, "revision": None}])
def test_an_answer_without_the_revision_is_no_echo(response: dict[str, Any]) -> None:
    """A NAS that keeps no order is told apart from one that does."""
    handle, _ = answers(httpx.Response(200, json=response))
    assert not run(client(handle).provision("job-7", AT_US, revision=4)).echoed


def test_a_cancel_without_a_revision_sends_none() -> None:
    """Who found nothing to remove claims no place in the order."""
    handle, asked = answers(httpx.Response(200, json={"ok": True}))
    assert not run(client(handle).cancel("job-7")).echoed
    assert json.loads(asked[0].content) == {"job_id": "job-7"}


def test_a_list_is_the_instants_by_job() -> None:
    """Text that is no instant, and a job that is armed twice, read as None: NAS disagrees with any wish."""
    rows = [("a", AT), ("b", "soon"), ("c", AT), ("c", AT), ("d", "2026-06-26T14:00:00+02:00")]
    armed = [{"job_id": job_id, "fire_at": at, "schedule_id": "s"} for job_id, at in rows]
    handle, asked = answers(httpx.Response(200, json={"armed": armed}))
    assert run(client(handle).list_arms()) == {"a": AT_US, "b": None, "c": None, "d": AT_US}
    assert (asked[0].method, asked[0].content) == ("GET", b"")


def test_a_refused_token_is_refreshed_once() -> None:
    """After a 401 the provider is asked for a fresh token, and the request is sent again."""
    handle, asked = answers(httpx.Response(401), httpx.Response(200, json=ARMED))
    run(client(handle, lambda fresh: "fresh" if fresh else "stale").provision("job-7", AT_US))
    assert [request.headers["authorization"] for request in asked] == ["Bearer stale", "Bearer fresh"]


def test_a_token_that_is_refused_twice_is_an_error() -> None:
    """There is no third attempt, and nothing was done."""
    handle, asked = answers(httpx.Response(401), httpx.Response(401))
    with pytest.raises(NasRefused, match="log the agent in again") as caught:
        run(client(handle).provision("job-7", AT_US))
    assert len(asked) == 2
    assert caught.value.definite


async def _async_token(_fresh: bool) -> str:
    return "tok"


class _Provider:
    async def __call__(self, _fresh: bool) -> str:
        return "tok"


@pytest.mark.parametrize("provider", [_async_token, _Provider(), lambda _fresh: _async_token(_fresh)])
def test_a_token_provider_may_be_async(provider: Callable[[bool], Awaitable[str]]) -> None:
    """Async functions, objects and functions that return a coroutine all work."""
    handle, asked = answers(httpx.Response(200, json=ARMED))
    run(client(handle, provider).provision("job-7", AT_US))
    assert asked[0].headers["authorization"] == "Bearer tok"


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "ünïcode", None])
def test_a_token_that_no_header_can_carry_is_no_token(token: Any) -> None:
    """Nothing is sent, and the error says that definitely nothing happened."""
    handle, asked = answers()
    with pytest.raises(NasUnavailable, match="no access token") as caught:
        run(client(handle, lambda _fresh: token).cancel("job-7"))
    assert caught.value.definite
    assert not asked


def test_a_provider_that_fails_is_an_error_without_its_text() -> None:
    """The cause is chained; its text, which may hold a secret, is not repeated."""

    def provider(_fresh: bool) -> str:
        raise RuntimeError("refresh token abc123 is revoked")

    with pytest.raises(NasUnavailable) as caught:
        run(client(answers()[0], provider).cancel("job-7"))
    assert "abc123" not in str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("refused"), httpx.ConnectTimeout("slow"), httpx.PoolTimeout("")]
)
def test_a_connection_that_was_not_made_is_tried_once_more(error: Exception) -> None:
    """Nothing was sent the first time."""
    handle, asked = answers(error, httpx.Response(200, json=ARMED))
    run(client(handle).provision("job-7", AT_US))
    assert len(asked) == 2


def test_a_connection_that_is_not_made_twice_is_definite() -> None:
    """The error says that nothing can have happened."""
    handle, asked = answers(httpx.ConnectError("refused"), httpx.ConnectError("refused"))
    with pytest.raises(NasUnavailable) as caught:
        run(client(handle).provision("job-7", AT_US))
    assert caught.value.definite
    assert len(asked) == 2


@pytest.mark.parametrize(
    "error",
    [
        httpx.ReadTimeout("slow"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("gone"),
        httpx.DecodingError("gzip"),
    ],
)
def test_a_request_without_an_answer_may_have_had_its_effect(error: Exception) -> None:
    """It is not sent again here, and the error does not claim that nothing happened."""
    handle, asked = answers(error)
    with pytest.raises(NasUnavailable) as caught:
        run(client(handle).provision("job-7", AT_US))
    assert not caught.value.definite
    assert len(asked) == 1


def test_a_request_is_bounded_as_a_whole() -> None:
    """An answer that comes too late is no answer, however it is spread over time."""

    async def slow(_request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(30)
        raise AssertionError

    with pytest.raises(NasUnavailable, match=r"in 0\.05 s") as caught:
        run(client(slow, timeout_s=0.05).list_arms())  # type: ignore[arg-type]
    assert not caught.value.definite


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_identity_has_its_own_error(status: int) -> None:
    """It names the remedy, for the operator (incident L4)."""
    response = httpx.Response(status, json={"error": "invalid_client"})
    handle, _ = answers(response, response)
    with pytest.raises(InvalidClient, match="Log the agent in again"):
        run(client(handle).provision("job-7", AT_US))


def test_a_stale_revision_names_the_newer_one() -> None:
    """The protocol needs it to put the store after what NAS knows."""
    handle, _ = answers(httpx.Response(409, json={"error": "stale_revision", "revision": 9}))
    with pytest.raises(StaleRevision) as caught:
        run(client(handle).provision("job-7", AT_US, revision=4))
    assert caught.value.revision == 9


@pytest.mark.parametrize(
    ("response", "kind", "definite"),
    [
        (httpx.Response(302, headers={"location": "https://elsewhere.example"}), NasRefused, True),
        (httpx.Response(400, json={"error": "bad"}), NasRefused, True),
        (httpx.Response(403, text="<html>blocked</html>"), NasRefused, True),
        (httpx.Response(404), NasRefused, True),
        (httpx.Response(409, json={"error": "conflict"}), NasRefused, True),
        (httpx.Response(408), NasUnavailable, False),
        (httpx.Response(429, headers={"retry-after": "7"}), NasUnavailable, True),
        (httpx.Response(500), NasUnavailable, False),
        (
            httpx.Response(503, headers={"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}),
            NasUnavailable,
            False,
        ),
        (httpx.Response(200, text="<html>log in</html>"), NasUnavailable, False),
        (httpx.Response(200, json=[]), NasUnavailable, False),
        (httpx.Response(200, json={"schedule_id": 5}), NasUnavailable, False),
        (httpx.Response(204), NasUnavailable, False),
        (httpx.Response(200, content=b"\xff\xfe"), NasUnavailable, False),
        (httpx.Response(200, content=b"[" * 100_000), NasUnavailable, False),
    ],
)
def test_every_other_answer_says_whether_anything_happened(
    response: httpx.Response, kind: type[NasError], definite: bool
) -> None:
    """Refused or unavailable; definite when NAS definitely did nothing."""
    handle, asked = answers(response)
    with pytest.raises(kind) as caught:
        run(client(handle).provision("job-7", AT_US))
    assert type(caught.value) is kind
    assert caught.value.definite == definite
    assert len(asked) == 1


def test_the_wait_that_nas_asks_for_is_passed_on() -> None:
    """Retry-After in seconds; its date form reads as none."""
    with pytest.raises(NasUnavailable) as caught:
        read_answer(429, {"retry-after": "7"}, b"", messages.CancelResponse)
    assert caught.value.retry_after_s == 7.0


@given(status=st.integers(100, 599), body=st.binary(max_size=50), retry_after=st.text(max_size=10))
def test_no_answer_is_a_traceback(status: int, body: bytes, retry_after: str) -> None:
    """Whatever NAS or a box in between says, it is an error of the tree."""
    with pytest.raises(NasError):
        read_answer(status, {"retry-after": retry_after}, body, messages.ProvisionResponse)


@pytest.mark.parametrize(("job_id", "at_us"), [("", AT_US), ("x" * 201, AT_US), ("job-7", 10**20)])
def test_what_is_no_message_is_not_sent(job_id: str, at_us: int) -> None:
    """A job that cannot be armed at all is refused here, definitely."""
    handle, asked = answers()
    with pytest.raises(NasRefused, match="not sent"):
        run(client(handle).provision(job_id, at_us))
    assert not asked


@pytest.mark.parametrize("url", ["", "portal.example", "ftp://portal.example", "https:///path"])
def test_a_url_that_is_none_is_refused_at_once(url: str) -> None:
    """A mistake in the configuration shows when the agent starts, not at the first fire."""
    with pytest.raises(ValueError, match="portal_url"):
        AsyncNasClient(url, token_provider=lambda _fresh: "tok", callback_url="https://agent.example")


def test_connections_are_reused_and_closed() -> None:
    """One pool serves all requests until it is closed, and the next request opens a new one."""
    handle, _ = answers(*(httpx.Response(200, json={"ok": True}) for _ in range(3)))

    async def scenario() -> None:
        nas = client(handle)
        async with nas:
            await nas.cancel("a")
            pool = nas._http
            await nas.cancel("b")
            assert nas._http is pool
        assert nas._http is None

    run(scenario())
