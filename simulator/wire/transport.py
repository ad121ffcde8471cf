"""NAS at the other end of the wire: reads what the agent's HTTP client sends, and spells out the answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from email.utils import format_datetime
from typing import Any, TypeAlias

import httpx

from chronos.contract import messages, wire
from chronos.errors import ScheduleError
from chronos.jobs.instants import SECOND_US, Instant, datetime_of, format_instant, parse_instant
from chronos.protocol import flow_effects
from chronos.protocol.process_effects import IdentityRefused

PORTAL_URL = "https://portal.example"
CALLBACK_URL = "https://agent.example"
ACCESS_TOKEN = "access-token"

Ask: TypeAlias = Callable[[flow_effects.Effect, Callable[[flow_effects.Event | None], None]], None]
"""Asks NAS for an effect, and has a function told what comes back; None for an answer that never comes."""

Answer: TypeAlias = tuple[int, dict[str, str], bytes]
"""The status, the headers and the body of an HTTP answer."""


class Transport(httpx.AsyncBaseTransport):
    """The way from one process to NAS.

    Args:
        ask: carries a request to NAS, and its answer back.
        future: makes a future of the process's loop.
        spoiled: what the wire makes of an answer to the request for an effect.
    """

    def __init__(
        self, ask: Ask, future: Callable[[], Any], spoiled: Callable[[flow_effects.Effect, Answer], Answer]
    ) -> None:
        self._ask, self._future, self._spoiled = ask, future, spoiled

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Carry a request to NAS, wait for the answer, and return it."""
        try:
            wanted = _read(request, await request.aread())
        except _Refused as refused:
            status, word = refused.args
            body = wire.encode(messages.ErrorResponse(error=word))
            return httpx.Response(status, content=json.dumps(body).encode(), request=request)
        answered = self._future()

        def answer(event: flow_effects.Event | None) -> None:
            if event is not None and not answered.done():
                answered.set_result(event)

        self._ask(wanted, answer)
        status, headers, content = self._spoiled(wanted, _written(wanted, await answered))
        return httpx.Response(status, headers=headers, content=content, request=request)


class _Refused(Exception):
    """The request is not one of the contract: the status and the word of the answer."""


def _read(request: httpx.Request, content: bytes) -> flow_effects.Effect:
    """Return what a request asks for."""
    headers = request.headers
    if headers.get("authorization") != f"Bearer {ACCESS_TOKEN}":
        raise _Refused(401, "invalid_token")
    try:
        match wire.Endpoint(request.method, request.url.path):
            case messages.PROVISION:
                asked = wire.decode(messages.ProvisionRequest, _json(request, content))
                if asked.agent_callback_url != CALLBACK_URL or asked.revision is None:
                    raise _Refused(400, "invalid_message")
                return flow_effects.ProvisionArm(
                    job_id=asked.job_id, fire_at_us=parse_instant(asked.fire_at), revision=asked.revision
                )
            case messages.CANCEL:
                cancelled = wire.decode(messages.CancelRequest, _json(request, content))
                if cancelled.revision is None:
                    raise _Refused(400, "invalid_message")
                return flow_effects.CancelArm(job_id=cancelled.job_id, revision=cancelled.revision)
            case messages.LIST:
                return flow_effects.ListArms()
    except (wire.RemoteMessageError, ScheduleError) as error:
        raise _Refused(400, "invalid_message") from error
    raise _Refused(404, "not_found")


def _json(request: httpx.Request, content: bytes) -> Any:
    if request.headers.get("content-type") != "application/json":
        raise _Refused(415, "unsupported_media_type")
    try:
        return json.loads(content)
    except ValueError as error:
        raise _Refused(400, "invalid_message") from error


def _armed(arm: tuple[str, Instant | None]) -> messages.Armed:
    job_id, fire_at_us = arm
    assert fire_at_us is not None
    return messages.Armed(job_id=job_id, fire_at=format_instant(fire_at_us), schedule_id=f"arm-{job_id}")


def _written(wanted: flow_effects.Effect, event: flow_effects.Event) -> Answer:
    """Return the HTTP answer by which NAS says what became of a request."""
    headers = {"content-type": "application/json"}
    date_us: Instant | None = getattr(event, "date_us", None)
    if date_us is not None:
        headers["date"] = format_datetime(datetime_of(date_us), usegmt=True)
    message: wire.Message
    match event:
        case IdentityRefused():
            status, message = 403, messages.ErrorResponse(error="invalid_client")
        case flow_effects.ArmFailed(retry_after_us=retry_after_us):
            status, message = 503, messages.ErrorResponse(error="busy")
            headers["retry-after"] = str(retry_after_us // SECOND_US)
        case flow_effects.ArmOutdated(revision=revision):
            status, message = 409, messages.StaleRevisionResponse(error="stale_revision", revision=revision)
        case flow_effects.ArmsListed(arms=arms):
            status, message = 200, messages.ListResponse(armed=tuple(map(_armed, arms.items())))
        case flow_effects.ArmAccepted(echoed=echoed):
            status, message = 200, _accepted(wanted, echoed)
        case _:
            raise AssertionError(f"{event} is no answer of NAS")
    return status, headers, json.dumps(wire.encode(message)).encode()


def _accepted(wanted: flow_effects.Effect, echoed: bool) -> wire.Message:
    if isinstance(wanted, flow_effects.ProvisionArm):
        revision = wanted.revision if echoed else None
        return messages.ProvisionResponse(schedule_id=f"arm-{wanted.job_id}", revision=revision)
    assert isinstance(wanted, flow_effects.CancelArm)
    return messages.CancelResponse(ok=True, revision=wanted.revision if echoed else None)
