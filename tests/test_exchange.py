"""The exchanges with NAS, without any client: what they ask for, whatever becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronos.errors import InvalidClient, NasError, NasUnavailable
from chronos.nas.exchange import (
    MAX_RETRIES,
    PASSING_STATUSES,
    Exchange,
    Exchanges,
    FetchToken,
    Outcome,
    Pause,
    Reply,
    Send,
    Step,
    Terms,
)
from tests.nas_clients import Time

RETRY_FOR_S = 10.0
OK = Reply(status=200, headers={}, body=b'{"ok": true}')
INVALID_CLIENT = Reply(status=403, headers={}, body=b'{"error": "invalid_client"}')


def exchanges(time: Time, random: float = 0.0) -> Exchanges:
    terms = Terms(retry_for_s=RETRY_FOR_S, clock=time.clock, monotonic=time.monotonic, random=lambda: random)
    return Exchanges("https://agent.example", terms)


def perform(exchange: Exchange[Any], outcome_of: Callable[[Step], Outcome]) -> Any:
    outcome: Outcome = None
    try:
        while True:
            outcome = outcome_of(exchange.send(outcome))
    except StopIteration as done:
        return done.value


def test_a_step_does_not_show_its_token() -> None:
    """Steps may be logged."""
    exchange = exchanges(Time()).cancel("job-7", 3)
    assert exchange.send(None) == FetchToken(is_fresh=False)
    send = exchange.send("secret")
    assert isinstance(send, Send)
    assert send.token == "secret"
    assert "secret" not in repr(send)


def test_a_refusal_of_the_old_login_does_not_outlast_a_reset() -> None:
    """It was on its way when the new login came."""
    made = exchanges(Time())

    def outcome_of(step: Step) -> Outcome:
        if isinstance(step, Send):
            made.reset()
            return INVALID_CLIENT
        return "tok"

    with pytest.raises(InvalidClient):
        perform(made.cancel("job-7", 3), outcome_of)
    assert not made.is_refused


def test_a_refusal_that_comes_during_a_pause_ends_the_retries() -> None:
    """Another call was told meanwhile that the identity is refused."""
    made = exchanges(Time(), random=0.5)
    waiting = made.cancel("job-7", 3)
    waiting.send(None)
    waiting.send("tok")
    assert isinstance(waiting.send(NasUnavailable("503")), Pause)
    with pytest.raises(InvalidClient):
        perform(made.list_arms(), lambda step: INVALID_CLIENT if isinstance(step, Send) else "tok")
    with pytest.raises(InvalidClient) as caught:
        waiting.send(None)
    assert not caught.value.definite


def test_a_wait_that_comes_during_a_pause_is_kept() -> None:
    """Another call was told meanwhile not to ask for a while; with this one it adds up to too much."""
    time = Time()
    made = exchanges(time, random=0.5)
    waiting = made.cancel("job-7", 3)
    waiting.send(None)
    waiting.send("tok")
    assert waiting.send(NasUnavailable("reset", definite=True)) == Pause(pause_s=0.25)
    busy = Reply(status=503, headers={"retry-after": "60"}, body=b"")
    with pytest.raises(NasUnavailable):
        perform(made.list_arms(), lambda step: busy if isinstance(step, Send) else "tok")
    time.now_s += 0.25
    with pytest.raises(NasUnavailable, match=r"another 59\.8 s") as caught:
        waiting.send(None)
    assert caught.value.definite


def test_a_shorter_wait_does_not_end_a_longer_one() -> None:
    """NAS asked for the two of calls that were in flight at once."""
    made = exchanges(Time())
    calls = [made.cancel(job_id, 3) for job_id in "ab"]
    for call in calls:
        call.send(None)
        call.send("tok")
    for call, wait in zip(calls, ("60", "3"), strict=True):
        with pytest.raises(NasUnavailable):
            call.send(Reply(status=429, headers={"retry-after": wait}, body=b""))
    with pytest.raises(NasUnavailable, match=r"another 60\.0 s"):
        made.list_arms().send(None)


def test_a_clock_that_stands_still_ends_the_waiting_too() -> None:
    """A test that froze the time must end with an error, not hang."""
    made = exchanges(Time())
    busy = Reply(status=503, headers={"retry-after": "4"}, body=b"")
    pauses: list[float] = []

    def outcome_of(step: Step) -> Outcome:
        if isinstance(step, Pause):
            pauses.append(step.pause_s)
            return None
        return busy if isinstance(step, Send) else "tok"

    with pytest.raises(NasUnavailable):
        perform(made.cancel("job-7", 3), outcome_of)
    assert pauses == [4.0, 4.0]


# --- Any history ------------------------------------------------------------------------------

WAITS = st.sampled_from([None, None, "0", "3", "8", "45", "9999"])
STATUSES = st.sampled_from([*sorted(PASSING_STATUSES), 200, 204, 302, 400, 401, 401, 403, 409, 501])
REPLIES = st.builds(
    lambda status, wait: Reply(
        status=status, headers={} if wait is None else {"retry-after": wait}, body=b"{}"
    ),
    STATUSES,
    WAITS,
)
FAILURES = st.builds(lambda definite: NasUnavailable("no answer", definite=definite), st.booleans())
OUTCOMES = REPLIES | FAILURES | st.just(OK) | st.just(INVALID_CLIENT)
CALLS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1.0, 7.0, 100.0]),  # how long after the one before it
        st.booleans(),  # whether there was a new login
        st.lists(OUTCOMES, min_size=MAX_RETRIES + 2, max_size=MAX_RETRIES + 2),
        st.sampled_from([0.0, 0.1, 4.0, 14.0]),  # how long a send takes
    ),
    min_size=1,
    max_size=6,
)


def is_definite(outcome: Outcome) -> bool:
    """Return whether a send that failed so has definitely had no effect, by the contract alone."""
    if isinstance(outcome, Reply):
        return 300 <= outcome.status < 500 and outcome.status != 408
    assert isinstance(outcome, NasUnavailable)
    return outcome.definite


class Watched:
    """Performs the steps of calls, and demands of each what must hold, whatever came before it."""

    def __init__(self, random: float) -> None:
        self.time = Time()
        self.made = exchanges(self.time, random)
        self.is_refused = self.is_fresh = False
        self.open_from_s = 0.0

    def call(self, outcomes: list[Outcome], took_s: float) -> None:
        self.began_s = self.time.now_s
        self.took_s = took_s
        self.ahead = list(outcomes)
        self.seen: list[Outcome] = []
        try:
            assert perform(self.made.cancel("job-7", None), self.outcome_of)
        except NasError as error:
            assert error.definite == all(map(is_definite, self.seen))  # noqa: PT017 - of any kind
        else:
            assert self.seen[-1] is OK
        assert self.made.is_refused == self.is_refused

    def outcome_of(self, step: Step) -> Outcome:
        assert not self.is_refused
        if isinstance(step, Pause):
            assert step.pause_s >= 0
            self.time.sleep(step.pause_s)
            assert self.time.now_s - self.began_s < RETRY_FOR_S
            return None
        assert self.time.now_s >= self.open_from_s
        if isinstance(step, Send):
            return self.sent()
        assert isinstance(step, FetchToken)
        self.is_fresh = step.is_fresh
        return "tok"

    def sent(self) -> Outcome:
        tokens_refused = [each for each in self.seen if isinstance(each, Reply) and each.status == 401]
        assert len(tokens_refused) <= 1
        assert len(self.seen) - len(tokens_refused) <= MAX_RETRIES
        assert all(
            not isinstance(each, Reply) or each.status in {401, *PASSING_STATUSES} for each in self.seen
        )
        outcome = self.ahead.pop(0)
        self.seen.append(outcome)
        self.time.now_s += self.took_s
        is_login_over = isinstance(outcome, Reply) and outcome.status == 401 and self.is_fresh
        if outcome is INVALID_CLIENT or is_login_over:
            self.is_refused = True
        elif isinstance(outcome, Reply) and (outcome.status in PASSING_STATUSES or outcome.status == 501):
            wait_s = min(float(outcome.headers.get("retry-after", "0")), 300.0)
            self.open_from_s = max(self.open_from_s, self.time.now_s + wait_s)
        return outcome


@given(calls=CALLS, random=st.sampled_from([0.0, 0.5, 0.999]))
def test_whatever_nas_does_an_exchange_is_bounded_and_knows_what_it_did(calls: Any, random: float) -> None:
    """Bounded sends and waits, NAS's waits kept, nothing sent after a refusal, and no false certainty."""
    watched = Watched(random)
    for gap_s, is_new_login, outcomes, took_s in calls:
        watched.time.now_s += gap_s
        if is_new_login:
            watched.made.reset()
            watched.is_refused = False
        watched.call(outcomes, took_s)


def test_a_call_that_may_take_so_long_sends_nothing_after_that() -> None:
    """The caller's bound holds for the call as a whole: each send gets what is left of it, at most."""
    now_s = 100.0
    terms = Terms(retry_for_s=10, clock=lambda: 0.0, monotonic=lambda: now_s, random=lambda: 0.0)
    exchange = Exchanges("https://agent.example", terms).provision("job", 0, 1, 4.0)
    assert isinstance(exchange.send(None), FetchToken)
    first = exchange.send("token")
    assert isinstance(first, Send)
    assert first.within_s == 4.0
    now_s += 3.0
    assert isinstance(exchange.send(Reply(status=503, headers={}, body=b"")), Pause)
    again = exchange.send(None)
    assert isinstance(again, Send)
    assert again.within_s == 1.0
    now_s += 1.0
    with pytest.raises(NasUnavailable) as failure:
        exchange.send(Reply(status=503, headers={}, body=b""))
    assert not failure.value.definite
