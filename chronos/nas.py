"""The agent's client of NAS: provision, cancel, list.

A failure is one of the errors of `chronos.errors`, and says whether the effect definitely did not
happen. Two things are tried once more at once, since neither can have had an effect: a request
refused for its token (with a fresh token), and one whose connection was never made.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import attrs

from chronos.errors import InvalidClient, NasError, NasRefused, NasUnavailable, StaleRevision
from chronos.protocol import messages, wire
from chronos.protocol.schedule import Instant, ScheduleError, format_instant, parse_instant

if TYPE_CHECKING:
    import httpx

USER_AGENT = "chronos-cron"
"""Firewalls refuse the default names of HTTP libraries (incident W5)."""

# The contract's client timeout: for one request, from the connection to the last byte.
TIMEOUT_S = 15.0

# A connection that is not made by then will not be; a second try still fits into the timeout of a
# fire's arm, 10 s, if it is made at once.
CONNECT_TIMEOUT_S = 4.0

TokenProvider: TypeAlias = Callable[[bool], "str | Awaitable[str]"]
"""Returns the agent's access token. Its argument asks for a fresh one, not one that is cached."""

A = TypeVar("A")
R = TypeVar("R")
M = TypeVar("M", bound=wire.Message)


@attrs.frozen
class ArmAnswer:
    """NAS has done as it was asked.

    Attributes:
        echoed: whether it repeated the revision, which is its word that it keeps their order.
    """

    echoed: bool


class AsyncNas(Protocol):
    """What the scheduler asks of NAS; `AsyncNasClient` is the one that speaks HTTP.

    Every method raises `NasError`: `StaleRevision` when NAS has seen a newer revision, otherwise one
    that says in `definite` whether the effect definitely did not happen.
    """

    async def provision(self, job_id: str, fire_at_us: Instant, *, revision: int) -> ArmAnswer:
        """Arm a job at one instant, in place of any other arm of that job."""

    async def cancel(self, job_id: str, *, revision: int | None) -> ArmAnswer:
        """Disarm a job; a job without an arm is no error."""

    async def list_arms(self) -> Mapping[str, Instant | None]:
        """Return the instant at which each job is armed, None when NAS's text for it is none."""


class AsyncNasClient:
    """A client of NAS over HTTP, for one event loop. Connections are reused; close it at the end.

    Args:
        portal_url: NAS's base URL, http or https.
        token_provider: called before each request, with whether it must be a fresh token; sync (then
            it runs in a thread) or async. What it raises becomes a definite `NasUnavailable`.
        callback_url: this agent's public base URL, to which NAS delivers fires.
        transport: httpx's own seam, such as `httpx.MockTransport`; None for the network.
        timeout_s: bound of one request, seconds.

    Raises:
        ValueError: `portal_url` or `callback_url` is no http or https URL.
    """

    def __init__(
        self,
        portal_url: str,
        *,
        token_provider: TokenProvider,
        callback_url: str,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        for name, url in (("portal_url", portal_url), ("callback_url", callback_url)):
            if not re.match(r"https?://[^/\s]", url):
                raise ValueError(f"{name} is {url!r}; expected an http or https URL")
        self._portal_url = portal_url.rstrip("/")
        self._callback_url = callback_url.rstrip("/")
        self._token_provider = token_provider
        self._transport = transport
        self._timeout_s = timeout_s
        self._http: httpx.AsyncClient | None = None

    async def provision(self, job_id: str, fire_at_us: Instant, *, revision: int | None = None) -> ArmAnswer:
        """Arm a job at one instant, in place of any other arm of that job.

        Args:
            job_id: which job.
            fire_at_us: when, epoch microseconds, UTC; NAS fires a past one at once.
            revision: the job's revision; None claims no place in the order.

        Returns:
            NAS's answer; the arm stands.

        Raises:
            StaleRevision: NAS has seen a newer revision of this job. Look into the store again.
            InvalidClient: NAS refuses the identity; the message has the remedy, for the operator.
            NasRefused: NAS refuses the request; sending it again does not help.
            NasUnavailable: anything else; ask again later. The arm may stand, unless `definite`.
        """
        try:
            request = messages.ProvisionRequest(
                job_id=job_id,
                fire_at=format_instant(fire_at_us),
                agent_callback_url=self._callback_url,
                revision=revision,
            )
        except (wire.LocalMessageError, ScheduleError) as error:
            raise NasRefused(f"not sent: {error}") from error
        answer = await self._ask(messages.PROVISION, request, messages.ProvisionResponse)
        return ArmAnswer(echoed=revision is not None and answer.revision == revision)

    async def cancel(self, job_id: str, *, revision: int | None = None) -> ArmAnswer:
        """Disarm a job; a job without an arm is no error.

        Args and errors are those of `provision`.
        """
        try:
            request = messages.CancelRequest(job_id=job_id, revision=revision)
        except wire.LocalMessageError as error:
            raise NasRefused(f"not sent: {error}") from error
        answer = await self._ask(messages.CANCEL, request, messages.CancelResponse)
        if not answer.ok:
            raise NasUnavailable("NAS answered a cancel with ok: false")
        return ArmAnswer(echoed=revision is not None and answer.revision == revision)

    async def list_arms(self) -> dict[str, Instant | None]:
        """Return what NAS has armed for this agent.

        Returns:
            The instant of each job; None when NAS's text for it is no instant, or when NAS has two
            arms of one job: either way NAS disagrees with every wish.

        Raises:
            NasError: as `provision`, save `StaleRevision`.
        """
        try:
            answer = await self._ask(messages.LIST, None, messages.ListResponse)
        except StaleRevision as error:
            raise NasRefused("NAS answered a list with a revision, which a list does not have") from error
        arms: dict[str, Instant | None] = {}
        for arm in answer.armed:
            arms[arm.job_id] = None if arm.job_id in arms else _instant(arm.fire_at)
        return arms

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

    async def _ask(self, endpoint: wire.Endpoint, body: wire.Message | None, reads: type[M]) -> M:
        """Send a request and read its answer, trying once more what definitely had no effect."""
        response = await self._send_connected(endpoint, body, await self._token(fresh=False))
        if response.status_code == 401:
            response = await self._send_connected(endpoint, body, await self._token(fresh=True))
        return read_answer(response.status_code, response.headers, response.content, reads)

    async def _send_connected(
        self, endpoint: wire.Endpoint, body: wire.Message | None, token: str
    ) -> httpx.Response:
        try:
            return await self._send(endpoint, body, token)
        except NasUnavailable as error:
            if not error.definite:
                raise
        return await self._send(endpoint, body, token)

    async def _send(self, endpoint: wire.Endpoint, body: wire.Message | None, token: str) -> httpx.Response:
        import httpx

        headers = {"Authorization": f"Bearer {token}"}
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._client().request(
                    endpoint.method,
                    self._portal_url + endpoint.path,
                    json=None if body is None else wire.encode(body),
                    headers=headers,
                )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise NasUnavailable(f"no connection to {self._portal_url}: {error}", definite=True) from error
        except TimeoutError as error:
            raise NasUnavailable(f"no answer from {self._portal_url} in {self._timeout_s:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NasUnavailable(
                f"no answer from {self._portal_url}: {type(error).__name__} {error}"
            ) from error

    def _client(self) -> httpx.AsyncClient:
        import httpx

        if self._http is None:
            self._http = httpx.AsyncClient(
                transport=self._transport,
                timeout=httpx.Timeout(self._timeout_s, connect=min(CONNECT_TIMEOUT_S, self._timeout_s)),
                headers={"Accept": "application/json", "User-Agent": USER_AGENT},
            )
        return self._http

    async def _token(self, *, fresh: bool) -> str:
        """Ask the provider; a token that no header can carry is none."""
        try:
            token = await call(self._token_provider, fresh)
        except Exception as error:
            raise NasUnavailable("the agent's access token could not be had", definite=True) from error
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
            raise NasUnavailable("the token provider returned no access token", definite=True)
        return token


async def call(function: Callable[[A], R | Awaitable[R]], argument: A) -> R:
    """Call what a host supplied, sync or async; what is sync may block, and gets a thread."""
    plain: Callable[[A], Any] = function
    result = (
        plain(argument) if inspect.iscoroutinefunction(plain) else await asyncio.to_thread(plain, argument)
    )
    value: R = await result if inspect.isawaitable(result) else result
    return value


def read_answer(status: int, headers: Mapping[str, str], body: bytes, reads: type[M]) -> M:
    """Return the message in an HTTP answer of NAS, or raise what it stands for.

    Args:
        status: the HTTP status.
        headers: of the answer; names in any case that the mapping understands.
        body: of the answer, as received.
        reads: the message that a success carries.

    Raises:
        NasError: the answer is no success, or not that message.
    """
    if 200 <= status < 300:
        answer = _decoded(reads, body)
        if isinstance(answer, reads):
            return answer
        raise NasUnavailable(f"NAS answered {status}, but not with its message: {answer}")
    raise _refusal(status, headers, body)


def _refusal(status: int, headers: Mapping[str, str], body: bytes) -> NasError:
    """Return the error that an answer other than a success stands for."""
    stale = _decoded(messages.StaleRevisionResponse, body)
    if status == 409 and isinstance(stale, messages.StaleRevisionResponse):
        return StaleRevision(stale.revision)
    refused = _decoded(messages.ErrorResponse, body)
    word = refused.error if isinstance(refused, messages.ErrorResponse) else "without NAS's message"
    if status in (401, 403) and word == "invalid_client":
        return InvalidClient()
    if status == 408 or status == 429 or status >= 500:
        return NasUnavailable(
            f"NAS answered {status} {word!r}",
            definite=status == 429,
            retry_after_s=_seconds(headers.get("retry-after")),
        )
    if status == 401:
        return NasRefused("NAS refuses the agent's access token, a fresh one too; log the agent in again")
    return NasRefused(f"NAS answered {status} {word!r}; sending the same request again does not help")


def _decoded(cls: type[M], body: bytes) -> M | str:
    """Return the message in *body*, or why there is none."""
    import json

    try:
        data: Any = json.loads(body.decode("utf-8"))
        return wire.decode(cls, data)
    except RecursionError:
        return "nested too deeply"
    except ValueError as error:
        return str(error)


def _instant(text: str) -> Instant | None:
    try:
        return parse_instant(text)
    except ScheduleError:
        return None


def _seconds(text: str | None) -> float | None:
    """Return the seconds of a Retry-After header; its other form, a date, is not used by NAS."""
    return float(text) if text is not None and re.fullmatch(r"[0-9]{1,6}", text.strip()) else None
