"""A NAS without a network: answers requests, and says which fires are due and what comes of them.

What it decides about a job's arm is in `chronos.testing.nas`.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from email.utils import format_datetime
from itertools import count
from typing import Any

import attrs
from msgspec import Struct

from chronos.contract import messages, wire
from chronos.errors import ScheduleError
from chronos.jobs.instants import (
    SECOND_US,
    Instant,
    datetime_of,
    format_instant,
    moment,
    moment_or_none,
    parse_instant,
)
from chronos.testing import nas
from chronos.testing.faults import Faults
from chronos.testing.keys import SigningKeys
from chronos.testing.nas import EMPTY, OneShot, Promises, Row, UsedNames
from chronos.values import evolve

logger = logging.getLogger("chronos.testing")

JWKS_PATH = "/jwks.json"


class AnswerLost(Exception):
    """The one who asked hears nothing."""


class Request(Struct, frozen=True, kw_only=True):
    """A request of the agent.

    Attributes:
        at_us: when it came, epoch microseconds, UTC; `at` shows it as a `datetime`.
        verb: `provision`, `cancel` or `list`.
        job_id: of which job; empty for a list.
        fire_at_us: the instant of a provision; None otherwise. `fire_at` shows it.
        revision: of the job; None when the request has none.
        status: of the answer; None when it was lost.
    """

    at_us: Instant
    verb: str
    job_id: str = ""
    fire_at_us: Instant | None = None
    revision: int | None = None
    status: int | None = None

    at = moment()
    fire_at = moment_or_none()


class Delivery(Struct, frozen=True, kw_only=True):
    """One attempt to deliver a fire.

    Attributes:
        at_us: when, epoch microseconds, UTC; `at` shows it as a `datetime`.
        job_id: of which job.
        fire_at_us: the instant that the fire names; `fire_at` shows it.
        status: the HTTP status of the agent's answer; None when NAS has none.
        word: the `status` or `error` of the answer, such as `accepted` or `duplicate`; empty without one.
    """

    at_us: Instant
    job_id: str
    fire_at_us: Instant
    status: int | None
    word: str = ""

    at = moment()
    fire_at = moment()

    @property
    def is_accepted(self) -> bool:
        """Whether NAS need not deliver it again."""
        return self.status is not None and 200 <= self.status < 300


class Answer(Struct, frozen=True, kw_only=True):
    """An HTTP answer of NAS."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@attrs.define(eq=False, kw_only=True)
class Held:
    """What will be done at an instant: the call of the external scheduler for a one-shot, or a sweep.

    Attributes:
        at_us: when.
        number: in which order things of one instant are done.
        shot: for which one-shot.
        failures: how many calls were not answered 2xx.
        is_sweep: whether the retries are spent, and NAS will look at it again.
    """

    at_us: Instant
    number: int
    shot: OneShot
    failures: int = 0
    is_sweep: bool = False


class Portal:
    """The control plane of one agent; any thread may call it.

    Args:
        clock: returns the present instant, epoch microseconds, UTC.
        promises: what it promises.
        url: its base URL, which its tokens name as their issuer.
        audience: whom its tokens are for, `agent:{instance_id}`.
        retry_delays_us: when a fire that failed is delivered again, one for each time, microseconds.
        cuts_fractions: whether it takes an instant with a fraction of a second, and keeps the seconds.
        writes_z: whether it spells instants of its own accord, with a `Z`.
    """

    def __init__(
        self,
        clock: Callable[[], Instant],
        promises: Promises,
        *,
        url: str,
        audience: str,
        retry_delays_us: Sequence[int],
        cuts_fractions: bool,
        writes_z: bool,
    ) -> None:
        self.clock, self.promises = clock, promises
        self.url, self.audience = url, audience
        self.access_token = "access-token"
        self.faults = Faults()
        self.keys = SigningKeys()
        self.requests: list[Request] = []
        self.deliveries: list[Delivery] = []
        self._retry_delays_us = retry_delays_us
        self._cuts_fractions, self._writes_z = cuts_fractions, writes_z
        self._rows: dict[str, Row] = {}
        self._texts: dict[str, tuple[Instant, str]] = {}
        self._callback_urls: dict[str, str] = {}
        self._held: list[Held] = []
        self._relays: list[OneShot] = []
        self._used_names = UsedNames()
        self._numbers, self._token_numbers = count(), count(1)
        self._lock = threading.RLock()

    # --- The agent's requests ---

    def answer(self, method: str, path: str, headers: Mapping[str, str], content: bytes) -> Answer:
        """Return the answer to a request.

        Args:
            method: such as `POST`.
            path: below the base URL.
            headers: names in lower case, or a mapping that does not care.
            content: the body.

        Raises:
            AnswerLost: there is none.
        """
        with self._lock:
            if (method, path) == ("GET", JWKS_PATH):
                return self._answered(200, self.keys.jwks())
            if self.faults.strikes("lost_requests"):
                raise AnswerLost("the request is lost")
            request = Request(at_us=self.clock(), verb=path.rpartition("/")[2])
            try:
                request, status, body = self._asked(request, method, path, headers, content)
            except wire.RemoteMessageError as error:
                refused = messages.ErrorResponse(error="invalid_message", reason=str(error)[:200])
                status, body = 400, wire.encode(refused)
            is_lost = self.faults.strikes("lost_answers")
            self.requests.append(evolve(request, status=None if is_lost else status))
            if is_lost:
                raise AnswerLost("the answer is lost")
            return self._answered(status, body)

    def _asked(
        self, request: Request, method: str, path: str, headers: Mapping[str, str], content: bytes
    ) -> tuple[Request, int, Any]:
        faults = self.faults
        if faults.is_down:
            return request, 503, {"error": "down"}
        if faults.refuses_identity:
            return request, 403, {"error": "invalid_client"}
        if headers.get("authorization") != f"Bearer {self.access_token}":
            return request, 401, {"error": "invalid_token"}
        if faults.retry_after_s is not None:
            return request, 429, {"error": "too_many_requests"}
        match wire.Endpoint(method, path):
            case messages.PROVISION:
                return self._provision(
                    request, wire.decode(messages.ProvisionRequest, self._cut(_json(content)))
                )
            case messages.CANCEL:
                return self._cancel(request, wire.decode(messages.CancelRequest, _json(content)))
            case messages.LIST:
                return request, 200, wire.encode(self._list())
        return request, 404, {"error": "not_found"}

    def _provision(self, request: Request, asked: messages.ProvisionRequest) -> tuple[Request, int, Any]:
        job_id, fire_at_us = asked.job_id, parse_instant(asked.fire_at)
        row = self._rows.get(job_id, EMPTY)
        decision = nas.provision(
            self.promises,
            row,
            job_id=job_id,
            fire_at_us=fire_at_us,
            revision=asked.revision,
            relays=self._relays,
        )
        request = evolve(request, job_id=job_id, fire_at_us=fire_at_us, revision=asked.revision)
        status, body = self._decided(job_id, decision, asked.revision)
        if status == 200:
            self._texts[job_id] = fire_at_us, asked.fire_at
            self._callback_urls[job_id] = asked.agent_callback_url
            body = wire.encode(messages.ProvisionResponse(schedule_id=_schedule_id(decision.row), **body))
        return request, status, body

    def _cancel(self, request: Request, asked: messages.CancelRequest) -> tuple[Request, int, Any]:
        row = self._rows.get(asked.job_id, EMPTY)
        decision = nas.cancel(self.promises, row, revision=asked.revision)
        request = evolve(request, job_id=asked.job_id, revision=asked.revision)
        status, body = self._decided(asked.job_id, decision, asked.revision)
        return (
            request,
            status,
            wire.encode(messages.CancelResponse(ok=True, **body)) if status == 200 else body,
        )

    def _decided(self, job_id: str, decision: nas.Decision, revision: int | None) -> tuple[int, Any]:
        """Do as was decided; return the status, and what of the answer is about the revision."""
        newest = decision.reply.outdated
        if newest is not None:
            stale = messages.StaleRevisionResponse(error="stale_revision", revision=newest)
            return 409, wire.encode(stale)
        self._rows[job_id] = decision.row
        if decision.delete is not None:
            self._let_go(decision.delete)
        if decision.create is not None:
            self._hold(decision.create)
        return 200, {"revision": revision} if decision.reply.echoed else {}

    def _list(self) -> messages.ListResponse:
        armed = (
            messages.Armed(
                job_id=job_id,
                fire_at=self.spelled(shot),
                schedule_id=_schedule_id(row),
                revision=row.revision if self.promises.orders and row.revision >= 0 else None,
            )
            for job_id, row in sorted(self._rows.items())
            if (shot := nas.listed(self.promises, row, relays=self._relays)) is not None
        )
        return messages.ListResponse(armed=tuple(armed))

    def _answered(self, status: int, body: Any) -> Answer:
        date = format_datetime(datetime_of(self.clock()).replace(microsecond=0), usegmt=True)
        headers = {"content-type": "application/json", "date": date}
        if status == 429:
            headers["retry-after"] = str(self.faults.retry_after_s)
        return Answer(status=status, headers=headers, content=json.dumps(body).encode())

    def _cut(self, data: Any) -> Any:
        """Cut the fraction off the instant of a provision, where this NAS does so."""
        if not self._cuts_fractions or not isinstance(data, dict):
            return data
        try:
            fire_at_us = parse_instant(data["fire_at"])
        except (KeyError, TypeError, ScheduleError):
            return data
        text = format_instant(fire_at_us - fire_at_us % SECOND_US)
        return {**data, "fire_at": text, "dedup_key": messages.dedup_key(str(data.get("job_id")), text)}

    def spelled(self, shot: OneShot) -> str:
        """Return the instant of an arm as this NAS spells it: as it was provisioned, or with a `Z`."""
        if self._writes_z:
            return format_instant(shot.fire_at_us).replace("+00:00", "Z")
        fire_at_us, text = self._texts.get(shot.job_id, (None, ""))
        return text if fire_at_us == shot.fire_at_us else format_instant(shot.fire_at_us)

    def arms_us(self) -> dict[str, Instant]:
        """Return the instant at which each job is armed, as a list would show it."""
        with self._lock:
            return {arm.job_id: parse_instant(arm.fire_at) for arm in self._list().armed}

    # --- The external scheduler ---

    def _hold(self, shot: OneShot) -> None:
        now_us = self.clock()
        if shot.fire_at_us < now_us and not self.promises.fires_past_at_once:
            return
        if not (self.promises.names_by_generation or self._used_names.takes(shot, shot.fire_at_us, now_us)):
            return
        self._held.append(Held(at_us=shot.fire_at_us, number=next(self._numbers), shot=shot))

    def _let_go(self, shot: OneShot) -> None:
        self._held = [held for held in self._held if held.shot.name != shot.name]

    def due_us(self) -> Instant | None:
        """Return when something is to be done next; None for never."""
        with self._lock:
            return min((held.at_us for held in self._held), default=None)

    def take(self) -> Held | None:
        """Return the next relay that is due, which the caller must `handle`; None when there is none."""
        with self._lock:
            while due := [held for held in self._held if held.at_us <= self.clock()]:
                held = min(due, key=lambda held: (held.at_us, held.number))
                self._held.remove(held)
                row = self._rows.get(held.shot.job_id, EMPTY)
                if held.is_sweep:
                    self._sweep(row, held)
                elif nas.forwards(self.promises, row, held.shot):
                    self._relays.append(held.shot)
                    return held
            return None

    def handle(self, held: Held, *, is_accepted: bool) -> None:
        """Note what came of a relay: clean up, deliver it again later, or sweep it when all that failed."""
        with self._lock:
            job_id = held.shot.job_id
            row = self._rows.get(job_id, EMPTY)
            self._relays.remove(held.shot)
            if is_accepted:
                self._rows[job_id] = nas.delivered(self.promises, row, held.shot)
                if self._rows[job_id].shot is None and row.shot is not None:
                    self._let_go(row.shot)
                return
            if row.shot is None or row.shot.name != held.shot.name:  # it was deleted meanwhile
                return
            failures, now_us = held.failures + 1, self.clock()
            delay_us = nas.repeat_delay_us(failures, self._retry_delays_us)
            if delay_us is not None:
                self._hold_again(held, now_us + delay_us, failures=failures)
            elif self.promises.sweeps_undelivered and row.shot == held.shot:
                self._hold_again(held, now_us + nas.sweep_delay_us(row), is_sweep=True)

    def _hold_again(self, held: Held, at_us: Instant, *, failures: int = 0, is_sweep: bool = False) -> None:
        number = next(self._numbers)
        again = Held(at_us=at_us, number=number, shot=held.shot, failures=failures, is_sweep=is_sweep)
        self._held.append(again)

    def _sweep(self, row: Row, held: Held) -> None:
        if row.shot != held.shot:
            return
        self._rows[held.shot.job_id], again = nas.swept(row)
        if again is not None:
            self._held.append(Held(at_us=held.at_us, number=next(self._numbers), shot=again))

    # --- Fires ---

    def fire(self, job_id: str, fire_at: str) -> tuple[dict[str, str], bytes]:
        """Return the headers, with a new token, and the body of a fire."""
        with self._lock:
            now_s = self.clock() // SECOND_US
            claims = {
                "iss": self.url,
                "aud": self.audience,
                "purpose": messages.PURPOSE,
                "iat": now_s,
                "exp": now_s + nas.TOKEN_LIFE_US // SECOND_US,
                "jti": f"fire-{next(self._token_numbers)}",
                **self.faults.claims,
            }
            token = self.keys.sign({name: value for name, value in claims.items() if value is not None})
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        return headers, json.dumps({"job_id": job_id, "fire_at": fire_at}).encode()

    def callback_url(self, job_id: str) -> str | None:
        """Return the agent's base URL as a job's last provision named it; None without one."""
        return self._callback_urls.get(job_id)

    def note(self, job_id: str, fire_at: str, status: int | None, content: bytes = b"") -> Delivery:
        """Note an attempt to deliver a fire, and return it."""
        body = _json(content)
        words = [body.get("status"), body.get("error")] if isinstance(body, dict) else []
        delivery = Delivery(
            at_us=self.clock(),
            job_id=job_id,
            fire_at_us=parse_instant(fire_at),
            status=status,
            word=next((word for word in words if isinstance(word, str)), ""),
        )
        self.deliveries.append(delivery)
        answer = "no answer" if status is None else f"{status} {delivery.word}".rstrip()
        logger.info("fired %s of %s: %s", job_id, fire_at, answer, extra={"job_id": job_id})
        return delivery


def _schedule_id(row: Row) -> str:
    return f"arm-{row.generation}"


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None
