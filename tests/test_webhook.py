"""The fire endpoint: every status of the contract, and nothing else, whatever comes in."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest

from chronos.contract.messages import FireClaims
from chronos.errors import StoreError, TokenError
from chronos.fire.verify import LEEWAY_S, FireVerifier
from chronos.fire.webhook import MAX_BODY_BYTES, FireEndpoint
from chronos.jobs.instants import Instant
from tests.fires import (
    AT,
    ATTACKS,
    AUDIENCE,
    GOOD,
    NOW_S,
    PATH,
    T0,
    Clock,
    Keys,
    World,
    fire_verifier,
    is_of_the_contract,
    jwk,
    nas_keys,
    run,
    token,
)


def asked(*args: Any, **kwargs: Any) -> httpx.Response:
    return run(World().ask(*args, **kwargs))


def test_a_fire_is_accepted_once_and_then_a_duplicate() -> None:
    """202 with a run, then 200 without one."""

    async def scenario() -> None:
        world = World()
        first, second = await world.ask(), await world.ask()
        assert (first.status_code, first.json()) == (
            202,
            {"status": "accepted", "job_id": "j", "reason": "claimed"},
        )
        assert (second.status_code, second.json()["status"]) == (200, "duplicate")
        assert first.headers["content-type"] == "application/json"
        await world.scheduler.drain(5)
        assert world.ran == ["j"]

    run(scenario())


def test_a_fire_of_an_unknown_job_is_gone() -> None:
    """200: there is nothing to retry."""
    response = asked(GOOD | {"job_id": "other"})
    assert (response.status_code, response.json()["status"]) == (200, "gone")


def test_a_fire_that_cannot_be_settled_is_answered_503() -> None:
    """NAS down: the run starts, and NAS is asked to come back."""

    async def scenario() -> None:
        world = World()
        world.nas.faults.is_down = True
        response = await world.ask()
        assert (response.status_code, response.json()["error"]) == (503, "not_settled")
        assert int(response.headers["retry-after"]) > 0
        await asyncio.sleep(0.02)
        assert world.ran == ["j"]

    run(scenario())


def test_a_store_that_fails_is_answered_503(monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim could not be made durable, so nothing runs."""

    async def scenario() -> None:
        world = World()

        def fails(*_: object, **__: object) -> bool:
            raise StoreError("full", definite=True)

        monkeypatch.setattr(world.store, "swap", fails)
        assert (await world.ask()).status_code == 503
        assert world.ran == []

    run(scenario())


def test_a_draining_agent_claims_nothing() -> None:
    """503 with a wait; but who has no good token does not even learn that."""

    async def scenario() -> None:
        world = World()
        await world.scheduler.drain(1)
        response = await world.ask()
        assert (response.status_code, response.json()["error"]) == (503, "draining")
        assert (await world.ask(token="forged")).status_code == 401
        job = world.store.load("j")
        assert job is not None
        assert (job.runs, job.next_us) == ((), T0)

    run(scenario())


def test_an_agent_that_is_told_to_run_no_jobs_answers_200() -> None:
    """Nothing passes by itself, so that there is nothing to retry (incident L12)."""

    async def scenario() -> None:
        world = World()
        world.is_stopped = True
        response = await world.ask()
        assert (response.status_code, response.json()["status"]) == (200, "stopped")
        assert is_of_the_contract(response)
        assert world.ran == []

    run(scenario())


@pytest.mark.parametrize("token", [None, "", "forged", "good extra", "good,good"])
def test_a_token_that_is_not_good_is_401_without_a_reason(token: str | None) -> None:
    """Every failure reads the same from outside, and nothing runs."""
    response = asked(token=token)
    assert (response.status_code, response.json()) == (401, {"error": "unauthorized"})
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("value", ["good", "Basic good", "bearer", "Bearer  ", "Bearer\tgood"])
def test_only_a_bearer_token_is_a_token(value: str) -> None:
    """Other schemes and shapes are refused like a bad token."""
    assert asked(token=None, headers={"authorization": value}).status_code == 401


def test_two_tokens_are_none() -> None:
    """What a proxy and the agent might read differently is refused."""

    async def scenario() -> None:
        twice = [(b"authorization", b"Bearer good"), (b"authorization", b"Bearer good")]
        sent = await World().raw(headers=twice)
        assert sent[0]["status"] == 401

    run(scenario())


def test_the_token_is_checked_before_the_body() -> None:
    """Who may not ask learns nothing about what is asked."""
    assert asked(b"not json", token="forged").status_code == 401
    assert asked(b"x" * (MAX_BODY_BYTES + 1), token="forged").status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"\xff\xfe{\x00}\x00",
        b"[" * 60_000,
        b"1" * 5000,
        [],
        {},
        {"job_id": "j"},
        {"fire_at": AT},
        {"job_id": "", "fire_at": AT},
        {"job_id": 7, "fire_at": AT},
        {"job_id": "j", "fire_at": "2026-06-26T12:00:00"},
        {"job_id": "j", "fire_at": 1782475200},
        b'{"job_id": "\\ud83d", "fire_at": "2026-06-26T12:00:00Z"}',
        b'{"job_id": "j", "fire_at": "2026-06-26T12:00:00Z", "more": NaN}',
    ],
    ids=lambda body: repr(body)[:40],
)
def test_a_body_that_is_not_the_message_is_400(body: Any) -> None:
    """The answer says which field is wrong, and nothing runs; `fire_at` is required (incident D1)."""
    response = asked(body)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_message")


def test_unknown_fields_are_ignored() -> None:
    """A later version of the contract can add some."""
    assert asked(GOOD | {"attempt": 3}).status_code == 202


def test_another_method_is_405_and_another_path_404() -> None:
    """Each says so before it asks for a token."""
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "PATCH"):
        response = asked(method=method, token=None)
        assert (response.status_code, response.headers["allow"]) == (405, "POST")
    for path in ("/", "/api/cron/fire/", "/api/cron", "/x/api/cron/fire", "/API/cron/fire"):
        assert asked(path=path, token=None).status_code == 404


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 202),
        ("Application/JSON; charset=utf-8", 202),
        ("application/cloudevents+json", 202),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/jsonp", 415),
        ("", 415),
    ],
)
def test_what_says_that_it_is_not_json_is_415(kind: str, status: int) -> None:
    """JSON by any of its names is read."""
    assert asked(headers={"content-type": kind}).status_code == status


def test_a_body_that_does_not_say_what_it_is_is_taken_for_json() -> None:
    """The contract does not ask for the header."""

    async def scenario() -> None:
        sent = await World().raw(headers=[(b"authorization", b"Bearer good")])
        assert sent[0]["status"] == 202

    run(scenario())


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_large_is_413(announced: bool) -> None:
    """Whether it says so beforehand, or only turns out to be."""

    async def scenario() -> None:
        headers = [(b"authorization", b"Bearer good")]
        if announced:
            headers.append((b"content-length", b"9" * 30))
        parts = [b"x" * 40_000, b"x" * 40_000, b"x"]
        sent = await World().raw(headers=headers, parts=parts)
        assert sent[0]["status"] == 413

    run(scenario())


def test_the_largest_body_is_read() -> None:
    """The bound itself is still allowed."""
    body = json.dumps(GOOD).encode()
    assert asked(body + b" " * (MAX_BODY_BYTES - len(body))).status_code == 202


def test_a_bug_behind_the_endpoint_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fire is not lost: NAS delivers it again."""

    async def scenario() -> None:
        world = World()

        async def breaks(*_: object) -> None:
            raise RuntimeError("a bug in the scheduler")

        monkeypatch.setattr(world.scheduler, "fire", breaks)
        response = await world.ask()
        assert (response.status_code, response.json()["error"]) == (503, "not_settled")
        assert is_of_the_contract(response)

    run(scenario())


@pytest.mark.parametrize("prefix", ["/agent", "/agent/", "agent"])
def test_a_prefix_is_part_of_the_path(prefix: str) -> None:
    """The callback URL may have a path of its own."""
    assert run(World(prefix=prefix).ask(path="/agent" + PATH)).status_code == 202
    assert run(World(prefix=prefix).ask()).status_code == 404


@pytest.mark.parametrize("prefix", ["", "/"])
def test_no_prefix_is_none(prefix: str) -> None:
    """With and without a slash."""
    assert run(World(prefix=prefix).ask()).status_code == 202


def test_a_mount_is_part_of_the_path() -> None:
    """Whatever the server and the framework leave of it."""
    assert run(World().ask(path="/agent" + PATH, root_path="/agent")).status_code == 202
    assert run(World().ask(root_path="/agent")).status_code == 202
    assert run(World().ask(path="/agents" + PATH, root_path="/agent")).status_code == 404


def test_the_path_is_compared_as_it_is_decoded() -> None:
    """Two spellings of one path are one; what only resembles it is another."""
    assert asked(path="/api/cron/%66ire").status_code == 202
    assert asked(path=PATH + "?job_id=other").status_code == 202
    for path in ("/api/cron/fire%00", "//api/cron/fire", "/api/cron/%2Ffire", "/api/cron/fire%20", "/%"):
        assert asked(path=path).status_code == 404


# --- Tokens of NAS ---


class Guarded(World):
    """An agent that believes NAS's tokens alone."""

    def __init__(self, **settings: Any) -> None:
        self.agent_clock = Clock()
        super().__init__(verifier=fire_verifier(*nas_keys(), clock=self.agent_clock), **settings)


def seen(response: httpx.Response) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """Return all of an answer that the caller sees."""
    return response.status_code, response.content, response.headers.raw


def refusal() -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """Return how somebody without a token is answered."""
    return seen(run(World().ask(token=None)))


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_answered_401_and_does_nothing(attack: str, caplog: pytest.LogCaptureFixture) -> None:
    """All of them alike, to the last header; the log has the reason, and not the token."""

    async def scenario() -> None:
        world, text = Guarded(), ATTACKS[attack]()
        response = await world.ask(token=text)
        await world.scheduler.drain(5)
        assert seen(response) == refusal_of_nobody
        assert world.is_untouched()
        (record,) = (each for each in caplog.records if each.name == "chronos.fire.webhook")
        assert record.getMessage().removeprefix("a fire was refused: ")
        assert text not in caplog.text

    refusal_of_nobody = refusal()
    caplog.clear()
    run(scenario())


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
@pytest.mark.parametrize("changes", [{}, {"jti": "1"}], ids=["no id", "an id"])
def test_a_token_that_is_used_again_is_an_attack(algorithm: str, changes: dict[str, Any]) -> None:
    """The same answer, nothing runs, and the store stays as it is."""

    async def scenario() -> None:
        world = Guarded()
        text = token(algorithm, kid={"RS256": "k1", "ES256": "e1"}[algorithm], **changes)
        assert (await world.ask(token=text)).status_code == 202
        await world.scheduler.drain(5)
        await world.scheduler.start()
        before = world.store.load_all()
        same_instant = GOOD | {"fire_at": AT.replace("+00:00", "Z")}
        for body in (GOOD, GOOD | {"more": 1}, same_instant):
            assert seen(await world.ask(body, token=text)) == expected
        assert (world.ran, world.store.load_all()) == (["j"], before)
        other = await world.ask(GOOD | {"job_id": "k"}, token=text)
        assert other.status_code == (401 if changes else 202)

    expected = refusal()
    run(scenario())


def test_the_fires_of_a_burst_with_one_token_text_are_all_accepted() -> None:
    """NAS signs the same words for all jobs that are due in one second; none of them may be lost."""

    async def scenario() -> None:
        world, text = Guarded(), token()
        fires = (world.ask(GOOD | {"job_id": job_id}, token=text) for job_id in ("j", "k"))
        assert [response.status_code for response in await asyncio.gather(*fires)] == [202, 202]
        await world.scheduler.drain(5)
        assert sorted(world.ran) == ["j", "k"]

    run(scenario())


@pytest.mark.parametrize("changes", [{}, {"jti": "1"}], ids=["no id", "an id"])
def test_of_many_uses_of_a_token_at_once_one_is_accepted(changes: dict[str, Any]) -> None:
    """Whoever comes first, the others are refused."""

    async def scenario() -> None:
        world, text = Guarded(), token(**changes)
        answers = await asyncio.gather(*(world.ask(token=text) for _ in range(10)))
        assert sorted(answer.status_code for answer in answers) == [202] + [401] * 9
        await world.scheduler.drain(5)
        assert world.ran == ["j"]

    run(scenario())


def test_a_used_token_that_a_restart_forgot_is_a_duplicate() -> None:
    """The memory is the process's; the claim is the store's."""

    async def scenario() -> None:
        world, text = Guarded(), token(jti="1")
        assert (await world.ask(token=text)).status_code == 202
        world.app = FireEndpoint(world.scheduler, fire_verifier(*nas_keys()))
        response = await world.ask(token=text)
        assert (response.status_code, response.json()["status"]) == (200, "duplicate")
        await world.scheduler.drain(5)
        assert world.ran == ["j"]

    run(scenario())


@pytest.mark.parametrize("changes", [{}, {"jti": "1"}], ids=["no id", "an id"])
def test_a_fire_that_was_not_settled_comes_again_with_a_new_token(changes: dict[str, Any]) -> None:
    """What was verified and then answered 503 is not lost by its token being used (incidents L5, L6)."""

    async def scenario() -> None:
        world = Guarded()
        world.nas.faults.is_down = True
        assert (await world.ask(token=token(**changes))).status_code == 503
        assert (await world.ask(token=token(**changes))).status_code == 401
        world.nas.faults.is_down = False
        again = token(iat=NOW_S + 10, **(changes and {"jti": "2"}))
        response = await world.ask(token=again)
        assert (response.status_code, response.json()["status"]) == (200, "duplicate")
        await world.scheduler.drain(5)
        assert world.ran == ["j"]

    run(scenario())


def test_a_fire_that_met_a_draining_agent_comes_again_with_a_new_token() -> None:
    """Before anything was claimed."""

    async def scenario() -> None:
        world = Guarded()
        await world.scheduler.drain(1)
        assert (await world.ask(token=token(jti="1"))).status_code == 503
        assert world.is_untouched()
        await world.scheduler.start()
        assert (await world.ask(token=token(jti="2"))).status_code == 202

    run(scenario())


@pytest.mark.parametrize("wrong_by_s", [-8 * 3600.0, -LEEWAY_S - 1, 90 + LEEWAY_S, 86_400.0])
def test_a_clock_that_is_wrong_after_a_resume_loses_no_fire(wrong_by_s: float) -> None:
    """It is refused untouched, and accepted when NAS delivers it again (incident W4)."""

    async def scenario() -> None:
        world = Guarded()
        world.agent_clock.now_s += wrong_by_s
        assert (await world.ask(token=token())).status_code == 401
        assert world.is_untouched()
        world.agent_clock.now_s = NOW_S + 10
        assert (await world.ask(token=token(iat=NOW_S + 10, exp=NOW_S + 100))).status_code == 202
        await world.scheduler.drain(5)
        assert world.ran == ["j"]

    run(scenario())


@pytest.mark.parametrize("wrong_by_s", [-LEEWAY_S, 90 + LEEWAY_S - 1])
def test_a_clock_that_is_wrong_within_the_leeway_is_right_enough(wrong_by_s: float) -> None:
    """Most differences are never noticed."""

    async def scenario() -> None:
        world = Guarded()
        world.agent_clock.now_s += wrong_by_s
        assert (await world.ask(token=token(nbf=NOW_S))).status_code == 202

    run(scenario())


def test_keys_that_could_not_be_fetched_lose_no_fire() -> None:
    """The fire is refused untouched, and accepted when NAS delivers it again."""
    keys, clock, is_down = Keys(jwk()), Clock(), [True]

    async def fetch(url: str) -> dict[str, Any]:
        if is_down[0]:
            raise OSError("no route")
        return await keys(url)

    async def scenario() -> None:
        believed = FireVerifier(AUDIENCE, jwks_url="https://portal.example/jwks", fetch=fetch, clock=clock)
        world = World(verifier=believed)
        assert seen(await world.ask(token=token())) == expected
        assert world.is_untouched()
        is_down[0] = False
        clock.now_s += 10
        assert (await world.ask(token=token(iat=clock.now_s))).status_code == 202

    expected = refusal()
    run(scenario())


def test_it_is_known_when_a_fire_was_minted_and_when_it_came() -> None:
    """How late a fire is, hop by hop, begins here."""

    async def scenario(said: float | None) -> Any:
        world = Guarded(clock=lambda: T0 + 2)
        assert (await world.ask(token=token(iat=said))).status_code == 202
        await world.scheduler.drain(5)
        return world.store.history("j")[-1]

    for said, minted_us in ((NOW_S + 1.5, T0 + 1_500_000), (None, None)):
        outcome = run(scenario(said))
        assert (outcome.received_us, outcome.minted_us) == (T0 + 2, minted_us)


# --- A host's own verifier ---


def test_a_host_decides_by_itself_whether_a_token_is_good_again() -> None:
    """A host whose tokens are not made for each attempt must get its redeliveries through."""

    async def scenario() -> None:
        world = World()
        world.nas.faults.is_down = True
        assert (await world.ask()).status_code == 503
        world.nas.faults.is_down = False
        assert (await world.ask()).status_code == 200

    run(scenario())


def test_a_verifier_may_be_sync() -> None:
    """What may block gets a thread, and keeps no other fire waiting."""
    threads: list[str] = []

    class Blocking:
        def verify(self, token: str) -> FireClaims:
            threads.append(threading.current_thread().name)
            if token != "good":
                raise TokenError("no")
            return FireClaims(aud=AUDIENCE, purpose="cron_fire", exp=NOW_S)

    assert run(World(verifier=Blocking()).ask()).status_code == 202
    assert seen(run(World(verifier=Blocking()).ask(token="bad"))) == refusal()
    assert threading.main_thread().name not in threads


def test_a_verifier_that_breaks_believes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever can break it learns no more than others; the log says how, and does not say the token."""
    text = "header.payload.signature"

    class Broken:
        async def verify(self, token: str) -> FireClaims:
            raise RuntimeError(f"cannot read {token}") from ValueError(token)

    world = World(verifier=Broken())
    response = run(world.ask(token=text))
    assert world.is_untouched()
    assert "RuntimeError: cannot read <the token>" in caplog.text
    assert text not in caplog.text
    assert seen(response) == refusal()


@pytest.mark.parametrize("answer", [None, True, {"aud": AUDIENCE, "purpose": "cron_fire", "exp": NOW_S}])
def test_a_verifier_that_does_not_say_what_the_token_says_believes_nothing(answer: Any) -> None:
    """One that returns None, where it should have raised, must not let anybody in."""

    class Other:
        def verify(self, _token: str) -> Any:
            return answer

    world = World(verifier=Other())
    assert seen(run(world.ask())) == refusal()
    assert world.is_untouched()


@pytest.mark.parametrize("authorization", [f"Bearer {'s' * 40}, x", f"Basic {'s' * 40}", "s" * 40])
def test_what_is_no_bearer_token_is_not_logged_either(
    authorization: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be a secret that was put in the wrong place."""
    caplog.set_level(logging.DEBUG)
    assert asked(token=None, headers={"authorization": authorization}).status_code == 401
    assert "a fire was refused" in caplog.text
    assert "s" * 40 not in caplog.text


# --- A sync scheduler ---


@pytest.fixture
def blocking() -> Any:
    """Return a world whose scheduler's methods block, and note the threads in which fires are answered."""
    world = World(is_sync=True)
    world.called_in = set()
    fire = world.scheduler.fire

    def noted(*arguments: Any, **hops: Any) -> Any:
        world.called_in.add(threading.current_thread().name)
        return fire(*arguments, **hops)

    world.scheduler.fire = noted
    return world


def test_a_scheduler_may_be_sync(blocking: Any) -> None:
    """Its answers are the same, and it gets threads of its own."""

    async def scenario() -> None:
        assert (await blocking.ask()).status_code == 202
        assert (await blocking.ask()).json()["status"] == "duplicate"
        assert (await blocking.ask(GOOD | {"job_id": "other"})).json()["status"] == "gone"
        blocking.scheduler.drain(5)
        assert (await blocking.ask()).json()["error"] == "draining"
        assert blocking.ran == ["j"]

    run(scenario())
    assert blocking.called_in
    assert all(name.startswith("chronos-fire") for name in blocking.called_in)


def test_a_sync_scheduler_is_started_and_drained(blocking: World) -> None:
    """With the server, as an async one is."""

    async def scenario() -> None:
        async with blocking.app.lifespan():
            assert (await blocking.ask()).status_code == 202
        assert blocking.scheduler.is_draining
        assert blocking.scheduler.pending() == ()
        assert blocking.ran == ["j"]

    run(scenario())


def test_a_start_in_a_thread_does_not_undo_a_drain() -> None:
    """A server that is stopped at once may have drained before the start has begun."""
    is_drained, is_started = threading.Event(), threading.Event()
    calls: list[Any] = []

    class Slow:
        is_draining = False

        def start(self) -> None:
            is_drained.wait(30)
            self.is_draining = False
            calls.append("start")
            is_started.set()

        def drain(self, timeout_s: float) -> None:
            self.is_draining = True
            calls.append(("drain", timeout_s))
            is_drained.set()
            is_started.wait(30)

        fire = print

    async def scenario() -> None:
        slow: Any = Slow()
        async with FireEndpoint(slow, fire_verifier(), drain_timeout_s=7).lifespan():
            pass
        assert slow.is_draining

    run(scenario())
    assert calls[:2] == [("drain", 7), "start"]
    (again, left_s), *more = calls[2:]
    assert (again, more) == ("drain", [])
    assert 0 <= left_s <= 7


def test_a_start_that_begins_after_the_drain_does_not_undo_it() -> None:
    """All threads of the loop may have been busy; the server is not down before the start is over."""
    is_drained = threading.Event()

    class Late:
        is_draining = False

        def start(self) -> None:
            is_drained.wait(30)
            time.sleep(0.05)
            self.is_draining = False

        def drain(self, _timeout_s: float) -> None:
            self.is_draining = True
            is_drained.set()

        fire = print

    late: Any = Late()

    async def scenario() -> None:
        async with FireEndpoint(late, fire_verifier(), drain_timeout_s=30).lifespan():
            pass

    run(scenario())
    assert late.is_draining


def test_a_start_that_has_no_thread_by_the_end_of_the_drain_never_begins() -> None:
    """The stop does not wait for longer than it may."""
    calls: list[str] = []
    may_end = threading.Event()

    class Waiting:
        is_draining = False

        def start(self) -> None:
            calls.append("start")

        async def drain(self, _timeout_s: float) -> None:
            self.is_draining = True

        fire = print

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        loop.run_in_executor(None, may_end.wait, 30)
        waiting: Any = Waiting()
        async with FireEndpoint(waiting, fire_verifier(), drain_timeout_s=0.01).lifespan():
            pass
        may_end.set()
        await loop.run_in_executor(None, calls.append, "another")
        assert waiting.is_draining

    run(scenario())
    assert calls == ["another"]


# --- ASGI itself ---


def test_a_caller_who_hangs_up_before_the_end_is_not_answered() -> None:
    """Half a body is no fire."""

    async def scenario() -> None:
        world = World()
        assert await world.raw(headers=[(b"authorization", b"Bearer good")], is_cut=True) == []
        assert world.ran == []

    run(scenario())


def test_a_caller_who_is_gone_at_the_end_breaks_nothing() -> None:
    """The answer cannot be sent; the run goes on, and NAS's redelivery is a duplicate."""

    async def scenario() -> None:
        world = World()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": json.dumps(GOOD).encode()}

        async def send(_: Any) -> None:
            raise OSError("broken pipe")

        headers = [(b"authorization", b"Bearer good")]
        await world.app({"type": "http", "method": "POST", "path": PATH, "headers": headers}, receive, send)
        await world.scheduler.drain(5)
        assert world.ran == ["j"]

    run(scenario())


async def answers_to(app: FireEndpoint, receive: Callable[[], Any]) -> list[dict[str, Any]]:
    """Return what the endpoint sends to a caller with a good token whose body comes from *receive*."""
    sent: list[dict[str, Any]] = []

    async def send(event: Any) -> None:
        sent.append(event)

    headers = [(b"authorization", b"Bearer good")]
    await app({"type": "http", "method": "POST", "path": PATH, "headers": headers}, receive, send)
    return sent


@pytest.mark.parametrize("kind", ["silent", "endless", "empty"])
def test_a_body_that_does_not_end_is_400(kind: str) -> None:
    """Whether nothing comes, a little again and again, or nothing again and again."""

    async def receive() -> dict[str, Any]:
        if kind == "silent":
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b"" if kind == "empty" else b" ", "more_body": True}

    async def scenario() -> None:
        world = World(body_timeout_s=0.02)
        start, end = await answers_to(world.app, receive)
        body = json.loads(end["body"])
        assert (start["status"], body["error"]) in [(400, "invalid_message"), (413, "too_large")]
        assert kind == "endless" or "did not arrive within 0.02 s" in body["reason"]
        assert world.is_untouched()

    run(scenario())


def test_a_slow_body_is_read() -> None:
    """As long as it is there in time, in pieces of any size."""
    pieces = [bytes([letter]) for letter in json.dumps(GOOD).encode()]

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def scenario() -> None:
        start, _ = await answers_to(World().app, receive)
        assert start["status"] == 202

    run(scenario())


@pytest.mark.parametrize("length", [b"0", b"1", b"999", b"-1", b"abc", b"", b"\xb2", b"1, 2", b"0x10"])
def test_a_length_that_is_wrong_is_the_servers_business(length: bytes) -> None:
    """What comes is what is read."""

    async def scenario() -> None:
        headers = [(b"authorization", b"Bearer good"), (b"content-length", length)]
        sent = await World().raw(headers=headers)
        assert sent[0]["status"] == 202

    run(scenario())


def test_one_of_two_kinds_that_is_not_json_is_415() -> None:
    """What a proxy and the agent might read differently is refused."""

    async def scenario() -> None:
        kinds = [(b"content-type", b"application/json"), (b"content-type", b"text/plain")]
        sent = await World().raw(headers=[(b"authorization", b"Bearer good"), *kinds])
        assert sent[0]["status"] == 415

    run(scenario())


def test_a_caller_who_stops_waiting_does_not_stop_the_work() -> None:
    """Servers that end a request with its connection must not end a claim half-way."""

    async def scenario() -> None:
        world = World()
        is_asked, may_answer = asyncio.Event(), asyncio.Event()
        provision = world.client.provision

        async def slow(job_id: str, fire_at_us: Instant, **settings: Any) -> Any:
            is_asked.set()
            await may_answer.wait()
            return await provision(job_id, fire_at_us, **settings)

        world.client.provision = slow  # type: ignore[method-assign]
        request = asyncio.create_task(world.ask())
        await is_asked.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        may_answer.set()
        await world.scheduler.drain(5)
        assert world.ran == ["j"]
        assert world.scheduler.pending() == ()

    run(scenario())


def test_a_websocket_is_closed() -> None:
    """There is nothing to talk about; before it is accepted, closing it refuses it."""
    sent = run(World().raw(scope={"type": "websocket"}))
    assert [event["type"] for event in sent] == ["websocket.close"]


def test_an_unknown_kind_of_connection_is_not_answered() -> None:
    """Nor does it break anything."""
    assert run(World().raw(scope={"type": "webtransport"})) == []


def test_the_server_starts_and_drains_the_scheduler() -> None:
    """The port opens although NAS does not answer yet, and a stop waits for the work (incidents W2, W3)."""

    async def scenario() -> None:
        world = World()
        listed, answered = asyncio.Event(), asyncio.Event()

        async def list_arms(**_: object) -> dict[str, Instant | None]:
            listed.set()
            await answered.wait()
            return {"orphan": T0}

        world.client.list_arms = list_arms  # type: ignore[method-assign]
        events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        sent: asyncio.Queue[Any] = asyncio.Queue()
        server = asyncio.create_task(world.app({"type": "lifespan"}, events.get, sent.put))
        events.put_nowait({"type": "lifespan.startup"})
        assert (await sent.get())["type"] == "lifespan.startup.complete"
        await listed.wait()
        assert any("start" in each.reason for each in world.scheduler.pending())
        answered.set()
        events.put_nowait({"type": "lifespan.shutdown"})
        assert (await sent.get())["type"] == "lifespan.shutdown.complete"
        await server
        assert world.scheduler.is_draining
        assert world.scheduler.pending() == ()

    run(scenario())


def test_a_drain_that_breaks_does_not_hold_up_the_stop(caplog: pytest.LogCaptureFixture) -> None:
    """The server goes down all the same; the log says what was wrong."""

    async def scenario() -> None:
        world = World()

        async def breaks(_timeout_s: float) -> None:
            raise RuntimeError("a bug in the drain")

        world.scheduler.drain = breaks  # type: ignore[method-assign, assignment]
        events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        sent: list[str] = []

        async def receive() -> dict[str, Any]:
            return events.pop(0)

        async def send(event: Any) -> None:
            sent.append(event["type"])

        await world.app({"type": "lifespan"}, receive, send)
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]

    run(scenario())
    assert "a bug in the drain" in caplog.text


def test_a_start_that_breaks_does_not_keep_the_port_closed(caplog: pytest.LogCaptureFixture) -> None:
    """Fires are answered, and the log says what was wrong."""

    async def scenario() -> None:
        world = World()

        async def breaks() -> None:
            raise RuntimeError("a bug in the start")

        world.scheduler.start = breaks  # type: ignore[method-assign, assignment]
        async with world.app.lifespan():
            assert (await world.ask()).status_code == 202

    run(scenario())
    assert "a bug in the start" in caplog.text


def test_the_lifespan_drains_also_when_the_app_breaks() -> None:
    """What it is around may end in any way."""

    async def scenario() -> None:
        world = World()
        with suppress(ZeroDivisionError):
            async with world.app.lifespan():
                assert not world.scheduler.is_draining
                raise ZeroDivisionError
        assert world.scheduler.is_draining

    run(scenario())
