"""What the HTTP answers of NAS stand for: a message, or one of the errors of `chronos.errors`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from typing import Any, TypeVar

from chronos.contract import messages, wire
from chronos.errors import InvalidClient, NasError, NasRefused, NasUnavailable, StaleRevision
from chronos.jobs.instants import SECOND_US, Instant

# For how long NAS can silence a client with one answer. A fire that was not settled is delivered
# again a few times, over some ten minutes: an agent that was told to be silent for an hour, and was,
# would let the last of them pass, and the job with it (incident L2).
MAX_RETRY_AFTER_S = 300.0

# What is longer is no answer of NAS, and is not read to its end. An arm takes some 150 bytes, so that
# it is room for a hundred thousand of them.
MAX_ANSWER_BYTES = 16 * 2**20

M = TypeVar("M", bound=wire.Message)


def read_answer(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    reads: type[M],
    *,
    clock: Callable[[], float] = lambda: time.time(),  # looked up at each call: a test may freeze it
) -> M:
    """Return the message in an HTTP answer of NAS, or raise what it stands for.

    Args:
        status: the HTTP status.
        headers: of the answer; names in any case that the mapping understands.
        body: of the answer, as received.
        reads: the message that a success carries.
        clock: returns the present instant, seconds since the epoch, for an answer that asks for a wait
            until a date and does not say when it was given.

    Raises:
        NasError: the answer is no success, or not that message.
    """
    if 200 <= status < 300:
        answer = _decoded(reads, body)
        if isinstance(answer, reads):
            return answer
        raise NasUnavailable(f"NAS answered {status}, but not with its message: {answer}")
    raise _refusal(status, headers, body, clock)


def _refusal(status: int, headers: Mapping[str, str], body: bytes, clock: Callable[[], float]) -> NasError:
    """Return the error that an answer other than a success stands for."""
    stale = _decoded(messages.StaleRevisionResponse, body)
    if status == 409 and isinstance(stale, messages.StaleRevisionResponse):
        return StaleRevision(stale.revision)
    refused = _decoded(messages.ErrorResponse, body)
    word = refused.error if isinstance(refused, messages.ErrorResponse) else "a body that is no message"
    if status in (401, 403) and word == "invalid_client":
        return InvalidClient()
    if status == 408 or status == 429 or status >= 500:
        return NasUnavailable(
            f"NAS answered {status} with {word}",
            definite=status == 429,
            retry_after_s=_retry_after_s(headers, clock),
        )
    if status == 401:  # also with a fresh token: the login is over, and no retry brings it back
        return InvalidClient("401, with a fresh access token too")
    return NasRefused(f"NAS answered {status} with {word}; sending the same request again does not help")


def _decoded(cls: type[M], body: bytes) -> M | str:
    """Return the message in *body*, or why there is none."""
    import json

    if len(body) > MAX_ANSWER_BYTES:
        return f"it is longer than {MAX_ANSWER_BYTES} bytes"
    try:
        data: Any = json.loads(body.decode("utf-8"))
        return wire.decode(cls, data)
    except RecursionError:
        return "nested too deeply"
    except ValueError as error:
        return str(error)


def _retry_after_s(headers: Mapping[str, str], clock: Callable[[], float]) -> float | None:
    """Return for how long the Retry-After header asks to wait, seconds; None when it does not.

    Of a date, what counts is its distance from the answer's own date: both are of one clock, while
    the agent's may be wrong for a while when the machine has just woken (incident W4).

    Source: RFC 9110, sections 10.2.3 and 5.6.7.
    """
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]+", text):
        return min(float(text), MAX_RETRY_AFTER_S)
    until_s = _date_s(text)
    if until_s is None:
        return None
    answered_s = _date_s(headers.get("date", ""))
    now_s = clock() if answered_s is None else answered_s
    return min(max(0.0, until_s - now_s), MAX_RETRY_AFTER_S)


def date_of(headers: Mapping[str, str]) -> Instant | None:
    """Return NAS's time when it answered, epoch microseconds, UTC; None when the headers do not say.

    What a cache has kept for a while says what the time was then.

    Source: RFC 9110, section 6.6.1; RFC 9111, section 5.1.
    """
    date_s = _date_s(headers.get("date", ""))
    is_of_now = headers.get("age", "0").strip() in ("", "0")
    return int(date_s) * SECOND_US if date_s is not None and is_of_now else None


def _date_s(text: str) -> float | None:
    """Return the instant of an HTTP date, seconds since the epoch; None when it is none."""
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except Exception:  # noqa: BLE001 - the reader of dates was made for mail, and fails in many ways
        return None
