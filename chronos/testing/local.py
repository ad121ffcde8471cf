"""A NAS in this process, or served over HTTP from it, and its way to the agent.

What it answers is in `chronos.testing.portal`; here are time, deliveries and the wiring of an agent.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import httpx

from chronos.contract.messages import FIRE
from chronos.fire.verify import FireVerifier
from chronos.fire.webhook import FireEndpoint, FireScheduler, Receive, Scope, Send
from chronos.jobs.instants import (
    SECOND_US,
    Instant,
    datetime_of,
    duration_of,
    format_instant,
    instant_of,
    needed,
    timedelta_of,
)
from chronos.nas.client import AsyncNasClient, NasClient
from chronos.protocol.state import Pending
from chronos.testing.clock import Clock
from chronos.testing.faults import Faults
from chronos.testing.nas import HARDENED, RELAY_TIMEOUT_US, RETRY_DELAYS_US, Promises
from chronos.testing.portal import JWKS_PATH, AnswerLost, Delivery, Held, Portal, Request
from chronos.testing.server import serving

# When a fire that was not answered 2xx is delivered again, unless an integrator says otherwise.
RETRY_DELAYS = tuple(map(timedelta_of, RETRY_DELAYS_US))

# In real time: how long a run may keep an advance waiting. Only a bug takes as long, or a run that is
# meant to.
PATIENCE_S = 10.0
_GLANCE_S = 0.001

# How often a NAS whose clock runs by itself looks for fires that are due.
_LOOK_EVERY_S = 0.02

# An agent that arms an instant that has passed is woken at once, and may do so again. This often it is a bug.
MOST_AT_ONE_INSTANT = 1_000

T = TypeVar("T")

App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI application."""


@runtime_checkable
class Busy(Protocol):
    """What tells whether it is at work, as a scheduler does."""

    def pending(self) -> Sequence[Pending]:
        """Return what is unfinished."""


class _LocalNas:
    """What both kinds have in common: all but how an advance is waited for. See `AsyncLocalNas`."""

    def __init__(
        self,
        *,
        clock: Callable[[], Instant] | None = None,
        promises: Promises = HARDENED,
        url: str = "https://nas.example",
        audience: str = "agent:test",
        callback_url: str = "https://agent.example",
        retry_delays: Sequence[timedelta] = RETRY_DELAYS,
        cuts_fractions: bool = False,
        writes_z: bool = False,
    ) -> None:
        self._clock = Clock() if clock is None else clock
        self.callback_url = callback_url
        delays_us = [needed("retry_delays", duration_of("retry_delays", each, None)) for each in retry_delays]
        self._portal = Portal(
            self._clock,
            promises,
            url=url,
            audience=audience,
            retry_delays_us=delays_us,
            cuts_fractions=cuts_fractions,
            writes_z=writes_z,
        )
        self._app: App | None = None
        self._busy: Busy | None = None
        self._waited_s = 0.0

    # --- What there is ---

    @property
    def clock(self) -> Clock:
        """The clock to set; give it to the scheduler as its `clock`.

        Raises:
            TypeError: this NAS has a clock that runs by itself.
        """
        if not isinstance(self._clock, Clock):
            raise TypeError("the clock of this NAS runs by itself; expected a chronos.testing.Clock")
        return self._clock

    @property
    def url(self) -> str:
        """The base URL: what its tokens name as their issuer."""
        return self._portal.url

    @property
    def jwks_url(self) -> str:
        """Where the keys are published."""
        return self._portal.url + JWKS_PATH

    @property
    def audience(self) -> str:
        """Whom the tokens are for."""
        return self._portal.audience

    @property
    def access_token(self) -> str:
        """The one access token that is good; assign another, and the one before is answered 401."""
        return self._portal.access_token

    @access_token.setter
    def access_token(self, token: str) -> None:
        self._portal.access_token = token

    @property
    def faults(self) -> Faults:
        """What goes wrong; assign to its attributes, or `Faults()` to heal."""
        return self._portal.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._portal.faults = faults

    @property
    def arms(self) -> dict[str, datetime]:
        """When each job will be fired, as a list would tell."""
        return {job_id: datetime_of(at_us) for job_id, at_us in self._portal.arms_us().items()}

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """Each attempt to deliver a fire, in order."""
        return tuple(self._portal.deliveries)

    @property
    def requests(self) -> tuple[Request, ...]:
        """Each request of the agent that arrived, in order."""
        return tuple(self._portal.requests)

    # --- The agent's wiring ---

    def verifier(self) -> FireVerifier:
        """Return a verifier that believes this NAS, and fetches its keys from it."""

        def fetch(_url: str) -> Mapping[str, Any]:
            return self._portal.keys.jwks()

        return FireVerifier(
            self.audience, issuer=self.url, jwks_url=self.jwks_url, fetch=fetch, clock=self._now_s
        )

    def transport(self) -> httpx.MockTransport:
        """Return what any client of httpx, sync or async, reaches this NAS by without the network."""
        return httpx.MockTransport(self._respond)

    def rotate_key(self, *, keeps_old: bool = True) -> None:
        """Sign with a new key from now on; without *keeps_old*, the old one is published no more."""
        self._portal.keys.rotate(keeps_old=keeps_old)

    def connect(self, scheduler: FireScheduler, app: App | None = None) -> None:
        """Deliver fires to an agent in this process, in place of any agent before.

        Args:
            scheduler: the agent's; an advance waits until it is not at work any more.
            app: the ASGI app to call at the callback URL; None for a `FireEndpoint` of the scheduler,
                with the `verifier` of this NAS.
        """
        endpoint = FireEndpoint(scheduler, self.verifier(), clock=self._clock)
        self._app = endpoint if app is None else app
        self._busy = scheduler if isinstance(scheduler, Busy) else None

    def _client(self, make: Callable[..., T], transport: object, sleep: Callable[[float], Any]) -> T:
        return make(
            self.url,
            token_provider=lambda _fresh: self.access_token,
            callback_url=self.callback_url,
            transport=transport,
            clock=self._now_s,
            monotonic=lambda: self._now_s() + self._waited_s,
            random=lambda: 0.0,
            sleep=sleep,
        )

    def _respond(self, request: httpx.Request) -> httpx.Response:
        try:
            answer = self._portal.answer(request.method, request.url.path, request.headers, request.content)
        except AnswerLost as lost:
            raise httpx.ReadTimeout(str(lost), request=request) from None
        return httpx.Response(answer.status, headers=answer.headers, content=answer.content)

    def _now_s(self) -> float:
        return self._clock() / SECOND_US

    # --- Over HTTP ---

    @contextmanager
    def served(self, port: int = 0) -> Iterator[str]:
        """Serve this NAS on the loopback interface, and yield its base URL, which it has from then on.

        Fires go to the callback URL that the agent names, unless an app is connected. With a clock that
        runs by itself, they are delivered when they are due; with a `Clock`, by an advance.

        Args:
            port: where; 0 for any that is free.

        Raises:
            OSError: the port cannot be had.
        """
        with serving(self._portal.answer, port) as url:
            self._portal.url = url
            if isinstance(self._clock, Clock):
                yield url
                return
            has_ended = threading.Event()
            work = threading.Thread(target=lambda: asyncio.run(self._live(has_ended)), name="chronos-testing")
            work.start()
            try:
                yield url
            finally:
                has_ended.set()
                work.join()

    async def _live(self, has_ended: threading.Event) -> None:
        """Deliver what is due, as time goes by."""
        relays = set[asyncio.Task[list[Delivery]]]()
        async with self._http() as http:
            while not has_ended.is_set():
                while not self.faults.is_down and (held := self._portal.take()) is not None:
                    relay = asyncio.create_task(self._relay(held, http))
                    relays.add(relay)
                    relay.add_done_callback(relays.discard)
                await asyncio.sleep(_LOOK_EVERY_S)
            for relay in relays:
                relay.cancel()
            await asyncio.gather(*relays, return_exceptions=True)

    # --- Time and fires ---

    async def _advance(self, to_us: Instant, *, settle: bool) -> list[Delivery]:
        clock, deliveries = self.clock, list[Delivery]()
        at_us, at_once = clock(), 0
        async with self._http() as http:
            await self._settled(settle)
            while (due_us := self._due_us()) is not None and due_us <= to_us:
                at_once = at_once + 1 if due_us <= at_us else 0
                if at_once > MOST_AT_ONE_INSTANT:
                    raise RuntimeError(f"{at_once} fires at {clock.now}: the agent arms it again and again")
                at_us = max(clock(), due_us)
                clock.set(datetime_of(at_us))
                if (held := self._portal.take()) is not None:
                    deliveries += await self._relay(held, http)
                    await self._settled(settle)
        clock.set(datetime_of(to_us))
        return deliveries

    def _due_us(self) -> Instant | None:
        return None if self.faults.is_down else self._portal.due_us()

    async def _relay(self, held: Held, http: httpx.AsyncClient) -> list[Delivery]:
        """Deliver a fire, or twice, and let the NAS handle what came of it."""
        job_id, fire_at = held.shot.job_id, self._portal.spelled(held.shot)
        deliveries = list[Delivery]()
        try:
            for _ in range(1 + self.faults.delivers_twice):
                deliveries.append(await self._deliver(job_id, fire_at, http))
        finally:  # also when it is served no longer: a relay that nobody handles is open for ever
            self._portal.handle(held, is_accepted=any(each.is_accepted for each in deliveries))
        return deliveries

    async def _deliver(self, job_id: str, fire_at: str, http: httpx.AsyncClient) -> Delivery:
        faults, portal = self.faults, self._portal
        if faults.agent_is_down or faults.strikes("lost_fires"):
            return portal.note(job_id, fire_at, None)
        headers, content = portal.fire(job_id, fire_at)
        url = (portal.callback_url(job_id) or self.callback_url).rstrip("/") + FIRE.path
        try:
            answer = await http.post(url, headers=headers, content=content)
        except httpx.HTTPError:
            return portal.note(job_id, fire_at, None)
        if faults.strikes("lost_fire_answers"):
            return portal.note(job_id, fire_at, None)
        return portal.note(job_id, fire_at, answer.status_code, answer.content)

    async def _fire(self, job_id: str, fire_at: datetime, *, settle: bool) -> Delivery:
        text = format_instant(needed("fire_at", instant_of("fire_at", fire_at, None)))
        async with self._http() as http:
            delivery = await self._deliver(job_id, text, http)
        await self._settled(settle)
        return delivery

    def _http(self) -> httpx.AsyncClient:
        transport = None if self._app is None else httpx.ASGITransport(self._app)
        # The environment's proxies are for the network, and not for an agent beside its NAS.
        return httpx.AsyncClient(transport=transport, timeout=RELAY_TIMEOUT_US / SECOND_US, trust_env=False)

    async def _settled(self, settle: bool) -> None:
        """Wait until the agent in this process is not at work any more."""
        deadline_s = time.monotonic() + PATIENCE_S
        while settle and (busy := self._at_work()):
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"the agent is still at work after {PATIENCE_S:g} s: {'; '.join(busy)}")
            await asyncio.sleep(_GLANCE_S)

    def _at_work(self) -> list[str]:
        pending = () if self._busy is None else self._busy.pending()
        return [f"{each.job_id}: {each.reason}" for each in pending if each.is_busy and not each.is_waiting]

    def _until_us(self, by: timedelta) -> Instant:
        return self.clock() + needed("by", duration_of("by", by, None))


class LocalNas(_LocalNas):
    """A NAS for agents with threads. See `AsyncLocalNas` for those in an event loop.

    Its arguments are those of `AsyncLocalNas`.
    """

    def client(self) -> NasClient:
        """Return a client of this NAS, which does not use the network; its waits take no time."""
        return self._client(NasClient, self.transport(), self._wait)

    def advance(self, by: timedelta, *, settle: bool = True) -> list[Delivery]:
        """Move the clock on, and deliver each fire at its time; see `AsyncLocalNas.advance`."""
        return asyncio.run(self._advance(self._until_us(by), settle=settle))

    def fire(self, job_id: str, fire_at: datetime, *, settle: bool = True) -> Delivery:
        """Deliver a fire now, whether or not it was armed; see `AsyncLocalNas.fire`."""
        return asyncio.run(self._fire(job_id, fire_at, settle=settle))

    def _wait(self, wait_s: float) -> None:
        self._waited_s += wait_s


class AsyncLocalNas(_LocalNas):
    """A NAS for agents in an event loop. See `LocalNas` for those with threads.

    Args:
        clock: a `Clock` to set, by default one of its own; or a clock that runs by itself, such as
            `chronos.clock.now_us`, for a NAS that is `served`.
        promises: what it promises: `HARDENED`, all of contract 1.1, or `MINIMAL`, a NAS of 1.0 that
            echoes no revision, or some of them (`attrs.evolve`).
        url: its base URL, as long as it is not served.
        audience: whom its tokens are for, `agent:{instance_id}`.
        callback_url: the agent's public base URL, for the clients that it makes.
        retry_delays: when a fire that was not answered 2xx is delivered again, one for each time.
        cuts_fractions: whether it takes an instant with a fraction of a second, and keeps the seconds;
            otherwise it refuses that, as the contract says.
        writes_z: whether it spells the instants of its own accord, with a `Z`.
    """

    def client(self) -> AsyncNasClient:
        """Return a client of this NAS, which does not use the network; its waits take no time."""
        return self._client(AsyncNasClient, self.transport(), self._wait)

    async def advance(self, by: timedelta, *, settle: bool = True) -> list[Delivery]:
        """Move the clock on, and deliver each fire at its time, in order.

        A fire that is not answered 2xx is delivered again, as `retry_delays` say, and then swept. After
        each delivery the agent's work is waited for, in real time, so that a run has ended before the
        clock goes on. What the agent itself puts off, such as another try to arm, passes in real time.

        Args:
            by: how far; no time at all delivers what is due now.
            settle: whether to wait for the agent's work; not when a run is meant to be in flight.

        Returns:
            The attempts, in order.

        Raises:
            ScheduleError: *by* is no `timedelta`.
            TimeoutError: the agent was at work for too long, in real time.
            RuntimeError: the agent arms one instant again and again.
        """
        return await self._advance(self._until_us(by), settle=settle)

    async def fire(self, job_id: str, fire_at: datetime, *, settle: bool = True) -> Delivery:
        """Deliver a fire now, whether or not it was armed: a duplicate, or one that nobody asked for.

        Args:
            job_id: which job.
            fire_at: the instant that the fire names, an aware `datetime`.
            settle: whether to wait for the agent's work.

        Returns:
            The attempt.

        Raises:
            ScheduleError: *fire_at* is no aware `datetime`.
            TimeoutError: the agent was at work for too long, in real time.
        """
        return await self._fire(job_id, fire_at, settle=settle)

    async def _wait(self, wait_s: float) -> None:
        self._waited_s += wait_s
