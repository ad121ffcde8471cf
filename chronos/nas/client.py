"""The agent's clients of NAS: provision, cancel, list, for threads and for asyncio.

Both do as the exchanges of `chronos.nas.exchange` tell them, which decide everything; what is here is how
a token is had, how a request is sent and how time is waited for. A failure is one of the errors of
`chronos.errors`, and says whether the effect definitely did not happen.
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from chronos import arguments
from chronos.agent.calls import call, call_in_time
from chronos.contract.messages import callback_url_problem
from chronos.errors import NasUnavailable
from chronos.jobs.instants import Instant
from chronos.nas.answer import MAX_ANSWER_BYTES
from chronos.nas.exchange import (
    ArmAnswer,
    ArmList,
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

if TYPE_CHECKING:
    import httpx

USER_AGENT = "chronos-cron"
"""Firewalls refuse the default names of HTTP libraries (incident W5)."""

# The contract's client timeout: for one request, from the connection to the last byte.
TIMEOUT_S = 15.0

# A connection that is not made by then will not be; a second try still fits into the timeout of a
# fire's arm, 10 s.
CONNECT_TIMEOUT_S = 4.0

# How long after its start a call may send again. A scheduler that answers a fire gives NAS 10 s in
# all and waits for no later answer. Otherwise it gives 30 s, and a request that was begun after 10 s
# at the latest has its own 15 s within them.
RETRY_FOR_S = 10.0

AsyncTokenProvider: TypeAlias = Callable[[bool], "str | Awaitable[str]"]
"""Returns the agent's access token. Its argument asks for a fresh one, not one that is cached."""

TokenProvider: TypeAlias = Callable[[bool], str]
"""The same, for the client that is not async."""

T = TypeVar("T")


class Nas(Protocol):
    """What a scheduler asks of NAS; `NasClient` is the one that speaks HTTP.

    Every method but `reset` raises `NasError`: `StaleRevision` when NAS has seen a newer revision,
    otherwise one that says in `definite` whether the effect definitely did not happen. `within_s` is
    how long the call may take in all, seconds; None for no bound but the client's own. An answer, a list or
    an error that has NAS's time in `date_us` lets a scheduler know when its own clock is not to be believed.
    """

    def provision(
        self, job_id: str, fire_at_us: Instant, *, revision: int, within_s: float | None = None
    ) -> ArmAnswer:
        """Arm a job at one instant, in place of any other arm of that job."""

    def cancel(self, job_id: str, *, revision: int, within_s: float | None = None) -> ArmAnswer:
        """Disarm a job; a job without an arm is no error."""

    def list_arms(self, *, within_s: float | None = None) -> Mapping[str, Instant | None]:
        """Return the instant at which each job is armed, None when NAS's text for it is none."""

    def reset(self) -> None:
        """Ask NAS again, though it has refused the agent's identity: there may have been a new login."""


class AsyncNas(Protocol):
    """What the scheduler asks of NAS; `AsyncNasClient` is the one that speaks HTTP. See `Nas`."""

    async def provision(
        self, job_id: str, fire_at_us: Instant, *, revision: int, within_s: float | None = None
    ) -> ArmAnswer:
        """Arm a job at one instant, in place of any other arm of that job."""

    async def cancel(self, job_id: str, *, revision: int, within_s: float | None = None) -> ArmAnswer:
        """Disarm a job; a job without an arm is no error."""

    async def list_arms(self, *, within_s: float | None = None) -> Mapping[str, Instant | None]:
        """Return the instant at which each job is armed, None when NAS's text for it is none."""

    def reset(self) -> None:
        """Ask NAS again, though it has refused the agent's identity: there may have been a new login."""


class _Client:
    """What both clients have in common: all but the performing of steps."""

    def __init__(self, portal_url: str, callback_url: str, *, timeout_s: float, terms: Terms) -> None:
        for name, url in (("portal_url", portal_url), ("callback_url", callback_url)):
            arguments.text(name, url)
            if not re.match(r"https?://[^/\s]", url):
                raise ValueError(f"{name} is {url!r}; expected an http or https URL")
        arguments.seconds("timeout_s", timeout_s, may_be_zero=False)
        arguments.seconds("retry_for_s", terms.retry_for_s)
        for name in ("clock", "monotonic", "random"):
            arguments.function(name, getattr(terms, name))
        if problem := callback_url_problem(callback_url):
            raise ValueError(f"callback_url is {callback_url!r}, which {problem}")
        self._portal_url = portal_url.rstrip("/")
        self._timeout_s = timeout_s
        self._exchanges = Exchanges(callback_url, terms)

    @property
    def is_refused(self) -> bool:
        """Whether NAS has refused the agent's identity; then every call raises `InvalidClient` at once."""
        return self._exchanges.is_refused

    def reset(self) -> None:
        """Ask NAS again, though it has refused the agent's identity.

        Call it after a new login, or at a start; a scheduler's start does so. If NAS had refused the
        identity, the token provider is asked for a fresh token next. A wait that NAS has asked for is
        still kept: it has nothing to do with who asks.
        """
        self._exchanges.reset()

    def _settings(self) -> dict[str, Any]:
        """Return how an HTTP client of httpx is made."""
        import httpx

        return {
            "timeout": httpx.Timeout(self._timeout_s, connect=min(CONNECT_TIMEOUT_S, self._timeout_s)),
            "headers": {"Accept": "application/json", "User-Agent": USER_AGENT},
        }

    def _bound_s(self, request: Send) -> float:
        """Return how long a request may take, seconds."""
        return self._timeout_s if request.within_s is None else min(self._timeout_s, request.within_s)

    def _arguments(self, request: Send) -> dict[str, Any]:
        """Return what httpx is told of a request."""
        headers = {"Authorization": f"Bearer {request.token}"}
        if request.content is not None:
            headers["Content-Type"] = "application/json"
        return {
            "method": request.endpoint.method,
            "url": self._portal_url + request.endpoint.path,
            "content": request.content,
            "headers": headers,
        }

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Say of a request that failed whether it can have had its effect."""
        import httpx

        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as error:
            raise NasUnavailable(f"no connection to {self._portal_url}: {error}", definite=True) from error
        except TimeoutError as error:
            raise NasUnavailable(f"no answer from {self._portal_url} in {self._timeout_s:g} s") from error
        except Exception as error:
            raise NasUnavailable(
                f"no answer from {self._portal_url}: {type(error).__name__} {error}"
            ) from error


@contextmanager
def _token_failures() -> Iterator[None]:
    """Keep the text of a provider's failure, which may hold a secret, out of the message."""
    try:
        yield
    except Exception as error:
        problem = f"the agent's access token could not be had: its provider raised {type(error).__name__}"
        raise NasUnavailable(problem, definite=True) from error


class NasClient(_Client):
    """A client of NAS over HTTP, for any number of threads. Connections are reused; close it at the end.

    One request is bounded by `timeout_s` as a whole, from the look-up of NAS's name to the last byte:
    it is made in a thread of its own, and the caller waits no longer. What was given up before it was
    sent is not sent any more. What was given up later is dropped when its next part arrives, or at the
    timeout for that; only an answer whose headers drip in can keep its thread for longer, and ends at
    the size that headers may have. The token provider's own time is not bounded here.

    Args:
        portal_url: NAS's base URL, http or https.
        token_provider: called before each request, with whether it must be a fresh token; threads may
            call it at the same time. What it raises becomes a definite `NasUnavailable`.
        callback_url: this agent's public base URL, to which NAS delivers fires.
        transport: httpx's own seam, such as `httpx.MockTransport`; None for the network.
        timeout_s: bound of one request, seconds.
        retry_for_s: how long after the start of a call a request may be sent again, seconds; 0 for
            never. One call takes `retry_for_s` and `timeout_s` at most, and what tokens take; when its
            token is refused, one request more.
        clock: returns the present instant, seconds since the epoch.
        monotonic: returns seconds that only grow.
        random: returns a number from 0 up to 1, to spread retries.
        sleep: waits for that many seconds.

    Raises:
        TypeError: an argument is of another type than its own, or `token_provider` is async.
        ValueError: `portal_url` or `callback_url` is no http or https URL, `callback_url` is no base to
            which NAS can append the path of a fire, or a time is out of its range.
    """

    def __init__(
        self,
        portal_url: str,
        *,
        token_provider: TokenProvider,
        callback_url: str,
        transport: httpx.BaseTransport | None = None,
        timeout_s: float = TIMEOUT_S,
        retry_for_s: float = RETRY_FOR_S,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        terms = Terms(retry_for_s=retry_for_s, clock=clock, monotonic=monotonic, random=random)
        super().__init__(portal_url, callback_url, timeout_s=timeout_s, terms=terms)
        arguments.function("token_provider", token_provider)
        if transport is not None:
            arguments.methods("transport", transport, "a transport of httpx", "handle_request")
        arguments.function("sleep", sleep)
        self._token_provider = token_provider
        self._transport = transport
        self._sleep = sleep
        self._http: httpx.Client | None = None
        self._lock = threading.Lock()

    def provision(
        self,
        job_id: str,
        fire_at_us: Instant,
        *,
        revision: int | None = None,
        within_s: float | None = None,
    ) -> ArmAnswer:
        """Arm a job at one instant, in place of any other arm of that job.

        Args:
            job_id: which job.
            fire_at_us: when, epoch microseconds, UTC; NAS fires a past one at once.
            revision: the job's revision; None claims no place in the order.
            within_s: how long the call may take in all, seconds, the token provider included; None for
                no bound but `timeout_s` and `retry_for_s`.

        Returns:
            NAS's answer; the arm stands.

        Raises:
            StaleRevision: NAS has seen a newer revision of this job. Look into the store again.
            InvalidClient: NAS refuses the identity, now or in an earlier call; the message has the
                remedy, for the operator. Until `reset`, NAS is not asked again.
            NasRefused: NAS refuses the request; sending it again does not help.
            NasUnavailable: anything else; ask again later, and not before `retry_after_s`, until when
                every call fails like this that cannot wait for so long. The arm may stand, unless
                `definite`.
        """
        return self._perform(self._exchanges.provision(job_id, fire_at_us, revision, within_s))

    def cancel(self, job_id: str, *, revision: int | None = None, within_s: float | None = None) -> ArmAnswer:
        """Disarm a job; a job without an arm is no error.

        Args and errors are those of `provision`.
        """
        return self._perform(self._exchanges.cancel(job_id, revision, within_s))

    def list_arms(self, *, within_s: float | None = None) -> ArmList:
        """Return what NAS has armed for this agent.

        Returns:
            The instant of each job; None when NAS's text for it is no instant, or when NAS has two
            arms of one job: either way NAS disagrees with every wish.

        Raises:
            NasError: as `provision`, save `StaleRevision`.
        """
        return self._perform(self._exchanges.list_arms(within_s))

    def close(self) -> None:
        """Close the connections; the next request opens new ones.

        A request that another thread has in flight fails, at its timeout at the latest, and may then
        be sent again.
        """
        with self._lock:
            http, self._http = self._http, None
        if http is not None:
            http.close()

    def __enter__(self) -> NasClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _perform(self, exchange: Exchange[T]) -> T:
        outcome: Outcome = None
        try:
            while True:
                outcome = self._outcome(exchange.send(outcome))
        except StopIteration as done:
            answer: T = done.value
            return answer

    def _outcome(self, step: Step) -> Outcome:
        try:
            match step:
                case Send():
                    with self._failures():
                        return call_in_time(lambda is_late: self._send(step, is_late), self._bound_s(step))
                case FetchToken(is_fresh=is_fresh, within_s=within_s):
                    with _token_failures():
                        if within_s is None:
                            return self._token_provider(is_fresh)
                        return call_in_time(lambda _is_late: self._token_provider(is_fresh), within_s)
                case Pause(pause_s=pause_s):
                    self._sleep(pause_s)
        except NasUnavailable as error:
            return error
        return None

    def _send(self, request: Send, is_late: Callable[[], bool]) -> Reply:
        def look(event: str, _: object) -> None:
            if event.endswith("send_request_headers.started") and is_late():
                raise TimeoutError("nobody waits for this request any more")

        arguments = self._arguments(request)
        with self._client().stream(**arguments, extensions={"trace": look}) as response:
            body = bytearray()
            for part in response.iter_bytes():
                body += part
                if len(body) > MAX_ANSWER_BYTES or is_late():
                    break
            return Reply(status=response.status_code, headers=response.headers, body=bytes(body))

    def _client(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._http is None:
                self._http = httpx.Client(transport=self._transport, **self._settings())
            return self._http


class AsyncNasClient(_Client):
    """A client of NAS over HTTP, for one event loop. Connections are reused; close it at the end.

    One request is bounded by `timeout_s` as a whole, its answer included; a request that is given up
    is stopped wherever it is. The token provider's own time is not bounded here.

    Args:
        portal_url: NAS's base URL, http or https.
        token_provider: called before each request, with whether it must be a fresh token; sync (then
            it runs in a thread) or async. What it raises becomes a definite `NasUnavailable`.
        callback_url: this agent's public base URL, to which NAS delivers fires.
        transport: httpx's own seam, such as `httpx.MockTransport`; None for the network.
        timeout_s: bound of one request, seconds.
        retry_for_s: as for `NasClient`, and so are the others.
        clock: returns the present instant, seconds since the epoch.
        monotonic: returns seconds that only grow.
        random: returns a number from 0 up to 1, to spread retries.
        sleep: waits for that many seconds.

    Raises:
        TypeError: an argument is of another type than its own.
        ValueError: as for `NasClient`.
    """

    def __init__(
        self,
        portal_url: str,
        *,
        token_provider: AsyncTokenProvider,
        callback_url: str,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout_s: float = TIMEOUT_S,
        retry_for_s: float = RETRY_FOR_S,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        terms = Terms(retry_for_s=retry_for_s, clock=clock, monotonic=monotonic, random=random)
        super().__init__(portal_url, callback_url, timeout_s=timeout_s, terms=terms)
        arguments.function("token_provider", token_provider, may_be_async=True)
        if transport is not None:
            arguments.methods("transport", transport, "an async transport of httpx", "handle_async_request")
        arguments.function("sleep", sleep, may_be_async=True)
        self._token_provider = token_provider
        self._transport = transport
        self._sleep = sleep
        self._http: httpx.AsyncClient | None = None

    async def provision(
        self,
        job_id: str,
        fire_at_us: Instant,
        *,
        revision: int | None = None,
        within_s: float | None = None,
    ) -> ArmAnswer:
        """Arm a job at one instant. Args, answer and errors are those of `NasClient.provision`."""
        return await self._perform(self._exchanges.provision(job_id, fire_at_us, revision, within_s))

    async def cancel(
        self, job_id: str, *, revision: int | None = None, within_s: float | None = None
    ) -> ArmAnswer:
        """Disarm a job. Args, answer and errors are those of `NasClient.cancel`."""
        return await self._perform(self._exchanges.cancel(job_id, revision, within_s))

    async def list_arms(self, *, within_s: float | None = None) -> ArmList:
        """Return what NAS has armed for this agent. Answer and errors are those of `NasClient.list_arms`."""
        return await self._perform(self._exchanges.list_arms(within_s))

    async def aclose(self) -> None:
        """Close the connections; the next request opens new ones."""
        if self._http is not None:
            http, self._http = self._http, None
            await http.aclose()

    async def __aenter__(self) -> AsyncNasClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _perform(self, exchange: Exchange[T]) -> T:
        outcome: Outcome = None
        try:
            while True:
                outcome = await self._outcome(exchange.send(outcome))
        except StopIteration as done:
            answer: T = done.value
            return answer

    async def _outcome(self, step: Step) -> Outcome:
        try:
            match step:
                case Send():
                    with self._failures():
                        async with asyncio.timeout(self._bound_s(step)):
                            return await self._send(step)
                case FetchToken(is_fresh=is_fresh, within_s=within_s):
                    with _token_failures():
                        async with asyncio.timeout(within_s):
                            return await call(self._token_provider, is_fresh)
                case Pause(pause_s=pause_s):
                    await self._sleep(pause_s)
        except NasUnavailable as error:
            return error
        return None

    async def _send(self, request: Send) -> Reply:
        async with self._client().stream(**self._arguments(request)) as response:
            body = bytearray()
            async for part in response.aiter_bytes():
                body += part
                if len(body) > MAX_ANSWER_BYTES:
                    break
            return Reply(status=response.status_code, headers=response.headers, body=bytes(body))

    def _client(self) -> httpx.AsyncClient:
        import httpx

        if self._http is None:
            self._http = httpx.AsyncClient(transport=self._transport, **self._settings())
        return self._http
