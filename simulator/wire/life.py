"""A life of the process with all that ships: what is sent and stored is spelled out, and read again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Hashable, Iterator, Mapping, MutableMapping
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Struct

from chronos import events
from chronos.agent.asyncio import AsyncScheduler
from chronos.agent.runner import RunContext
from chronos.contract import messages
from chronos.errors import StaleRevision
from chronos.fire.verify import FireVerifier
from chronos.fire.webhook import DRAIN_TIMEOUT_S, FireEndpoint
from chronos.jobs.instants import HOUR_US, MINUTE_US, SECOND_US, Instant, format_instant
from chronos.jobs.job import Job
from chronos.nas.client import AsyncNasClient
from chronos.nas.exchange import ArmAnswer, ArmList
from chronos.protocol import flow_effects, intents, process_effects, state
from chronos.protocol.flow_effects import Answer
from chronos.testing.keys import SigningKeys
from chronos.testing.nas import TOKEN_LIFE_US
from simulator import faults, marks
from simulator.faults import Spoiling
from simulator.life import SHARED_STORE_US, Life
from simulator.nas_server import FAILED, Relay
from simulator.wire.loop import Loop
from simulator.wire.store import LivingStore, SharedStore
from simulator.wire.transport import ACCESS_TOKEN, CALLBACK_URL, PORTAL_URL, Transport
from simulator.wire.transport import Answer as HttpAnswer

if TYPE_CHECKING:
    from simulator.host import Machine

T = TypeVar("T")

AUDIENCE = "agent:simulated"
# So often within an hour NAS tells its keys; whoever asks more often is refused.
KEYS_AN_HOUR = 30

# How much older than the fire a token is that has run out on the way.
EXPIRED_US = 10 * MINUTE_US

# A request is sent once: when it is sent again is what the process decides.
_ONCE_S = 0.0
_NO_BOUND_S = 3600.0


class _DeadError(BaseException):
    """The machine has died, and nothing comes back."""


class _FailedError(Exception):
    """A run that is to fail has failed."""


class Outside(Struct, frozen=True):
    """What is around the machines of a world: the store that they share, and NAS's keys."""

    store: SharedStore
    keys: SigningKeys = msgspec.field(default_factory=SigningKeys)
    numbers: Iterator[int] = msgspec.field(default_factory=count)
    known: list[dict[str, Any]] = msgspec.field(default_factory=list)
    asked_us: list[Instant] = msgspec.field(default_factory=list)

    def deployed_with(self) -> dict[str, Any]:
        """Return the keys that were known when the agent was deployed, as a JWKS."""
        if not self.known:
            self.known.append(self.keys.jwks())
        return self.known[0]

    def publish(self, now_us: Instant) -> dict[str, Any]:
        """Return NAS's keys, as a JWKS; refuse who asks too often."""
        lately = [at_us for at_us in self.asked_us if at_us > now_us - HOUR_US]
        self.asked_us[:] = [*lately, now_us]
        if len(lately) >= KEYS_AN_HOUR:
            raise OSError("NAS's keys were asked for too often")
        return self.keys.jwks()

    def live(self, machine: Machine, owner: str) -> Life:
        """Begin a life of *machine*."""
        return Wired(machine, owner, self)


class _Scheduler(AsyncScheduler):
    """The scheduler, as a simulation reads its clock and looks into it."""

    def __init__(self, life: Wired, store: LivingStore, nas: _Nas, **options: Any) -> None:
        super().__init__(store, nas, life.run, **options)
        self._steady = lambda: life.kernel.now_us
        self._begin_run = life.begin_run

    @property
    def process(self) -> state.Process:
        """What the process knows."""
        return self._process

    async def ask_for(self, intent: intents.Intent) -> Answer:
        """Ask for a change that somebody has put into words already."""
        return await self._ask_for(intent)

    def _context(self, effect: process_effects.CallRunner) -> RunContext:
        context = super()._context(effect)
        self._begin_run(context, effect)
        return context


class _Nas:
    """The client of NAS as one process reaches it: `chronos.nas.client.AsyncNas`."""

    def __init__(self, life: Wired, client: AsyncNasClient) -> None:
        self._life, self._client = life, client

    async def provision(
        self, job_id: str, fire_at_us: Instant, *, revision: int, within_s: float | None = None
    ) -> ArmAnswer:
        """Arm a job."""
        call = self._client.provision(job_id, fire_at_us, revision=revision, within_s=within_s)
        return await self._life.through_nas(job_id, within_s, call)

    async def cancel(self, job_id: str, *, revision: int, within_s: float | None = None) -> ArmAnswer:
        """Disarm a job."""
        call = self._client.cancel(job_id, revision=revision, within_s=within_s)
        return await self._life.through_nas(job_id, within_s, call)

    async def list_arms(self, *, within_s: float | None = None) -> ArmList:
        """Return what is armed."""
        return await self._life.through_nas(None, within_s, self._client.list_arms(within_s=within_s))

    def reset(self) -> None:
        """Ask again, though the identity was refused."""
        self._client.reset()


class Wired(Life):
    """Performs a process by `AsyncScheduler`, which is asked over ASGI and asks over HTTP."""

    def __init__(self, machine: Machine, owner: str, outside: Outside) -> None:
        super().__init__(machine, owner)
        self.kernel, self.machine_subject = machine.kernel, machine.subject
        self._keys, self._numbers = outside.keys, outside.numbers
        self._loop = Loop(  # type: ignore[abstract]  # nobody asks for what it lacks
            machine.kernel, call=self._call, settled=self._looked
        )
        self._used: set[Relay] = set()
        self._answers: dict[str, Answer] = {}
        self._runs: dict[int, tuple[Hashable, int]] = {}
        self._within_us = 0
        clock_s = lambda: machine.now_us() / SECOND_US  # noqa: E731
        client = AsyncNasClient(
            PORTAL_URL,
            token_provider=_access_token,
            callback_url=CALLBACK_URL,
            transport=Transport(self._carry, self._loop.create_future, self._spoil),
            timeout_s=_NO_BOUND_S,
            retry_for_s=_ONCE_S,
            clock=clock_s,
            monotonic=lambda: machine.kernel.now_us / SECOND_US,
        )
        self._scheduler = _Scheduler(
            self,
            LivingStore(self, outside.store),
            _Nas(self, client),
            owner=owner,
            clock=machine.now_us,
            is_dead=self._is_dead,
            is_stopped=lambda: machine.is_told_to_stop,
            hooks=(self._hear,),
        )

        async def fetch(_url: str) -> dict[str, Any]:
            return outside.publish(machine.kernel.now_us)

        machine.nas.keys = outside.keys
        verifier = (machine.agent.verifier or FireVerifier)(
            AUDIENCE,
            issuer=PORTAL_URL,
            jwks_url=f"{PORTAL_URL}/jwks",
            jwks=outside.deployed_with(),
            fetch=fetch,
            clock=clock_s,
        )
        self._endpoint = FireEndpoint(self._scheduler, verifier, clock=machine.now_us)

    @property
    def process(self) -> state.Process:
        """What the process knows."""
        return self._scheduler.process

    # --- what others want of it ---

    def pending(self) -> tuple[state.Pending, ...]:
        """Return what the scheduler has not finished."""
        return self._scheduler.pending()

    def receive(self, relay: Relay) -> None:
        """A fire arrives: an HTTP request for the endpoint."""
        ticket = object()
        self._waits[ticket] = relay.subject, relay
        self._watch.hold(relay.subject)
        self._loop.begin(self._serve(relay, ticket))

    def ask(self, subject: int, intent: intents.Intent, then: Callable[[Answer | None], None]) -> None:
        """Ask for a change."""
        ticket = object()
        self._waits[ticket] = subject, then
        self._watch.hold(subject)
        self._loop.begin(self._change(ticket, intent, then))

    def start(self, then: Callable[[bool], None]) -> None:
        """Reconcile."""
        ticket = object()
        self._starts[ticket] = then
        self._loop.begin(self._start(ticket))

    def drain(self) -> None:
        """Turn fires away."""
        self._loop.begin(self._scheduler.drain(DRAIN_TIMEOUT_S))

    def end(self) -> None:
        """End at once."""
        super().end()
        self._loop.kill()

    def close(self) -> None:
        """The simulation ends."""
        self._loop.kill()

    def fail(self, error: BaseException) -> None:
        """Let the simulation end with an error that nobody would hear of."""
        self._loop.fail(error)

    def _hear(self, event: events.Event) -> None:
        """Listen to the scheduler, which goes on whatever a hook raises."""
        if not self.is_alive:
            return
        if isinstance(event, events.FlowEnded) and isinstance(event.intent, intents.Fire):
            self._answers[event.intent.job_id] = event.answer
        try:
            self._told(event)
        except Exception as error:  # noqa: BLE001 - it ends the simulation
            self.fail(error)

    # --- requests ---

    async def _serve(self, relay: Relay, ticket: object) -> None:
        """Send a fire to the endpoint, and answer it."""
        status: list[int] = []
        was_used = relay in self._used
        self._used.add(relay)
        headers, body = self._fire_of(relay)

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Mapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                status.append(message["status"])

        scope = {"type": "http", "method": messages.FIRE.method, "path": messages.FIRE.path}
        await self._endpoint({**scope, "headers": headers}, receive, send)
        if not self.is_alive:
            return
        subject = relay.subject
        if status[0] == 401:
            if not was_used:  # it may come again, to a clock that is right
                self._used.discard(relay)
            self._refuse_token(relay, was_used=was_used)
            answer = None
        elif self._crashes(subject):
            self._watch.met[marks.CRASH_BETWEEN_ARM_AND_ANSWER] += 1
            return
        else:
            answer = self._answers.pop(relay.pending.shot.job_id, None)
        del self._waits[ticket]
        self._answered(relay, status[0], answer)
        self._let_go.append(subject)

    def _fire_of(self, relay: Relay) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Return the headers and the body of a fire, as the wire leaves them."""
        shot, spoiled = relay.pending.shot, self.kernel.fault(faults.WIRE_FIRE, relay.subject)
        body = json.dumps({"job_id": shot.job_id, "fire_at": format_instant(shot.fire_at_us)}).encode()
        kind, token = b"application/json", self._token(relay, relay.minted_us)
        if spoiled is not None:
            self._watch.met[marks.FIRE_SPOILED[spoiled]] += 1
        if spoiled is Spoiling.TORN:
            body = body[: len(body) // 2]
        elif spoiled is Spoiling.KIND:
            kind = b"text/plain"
        elif spoiled is Spoiling.EXPIRED:
            token = self._token(relay, relay.minted_us - EXPIRED_US)
        return [(b"authorization", b"Bearer " + token.encode()), (b"content-type", kind)], body

    def _token(self, relay: Relay, minted_us: Instant) -> str:
        """Return the token of a fire; what is delivered twice carries one."""
        if minted_us == relay.minted_us and relay.token:
            return relay.token
        made_s = minted_us // SECOND_US
        claims = {
            "iss": PORTAL_URL,
            "aud": AUDIENCE,
            "purpose": relay.purpose or messages.PURPOSE,
            "iat": made_s,
            "exp": made_s + TOKEN_LIFE_US // SECOND_US,
            "jti": f"fire-{next(self._numbers)}",
        }
        token = self._keys.sign(claims)
        if minted_us == relay.minted_us:
            relay.token = token
        return token

    async def _change(
        self, ticket: object, intent: intents.Intent, then: Callable[[Answer | None], None]
    ) -> None:
        answer = await self._scheduler.ask_for(intent)
        subject = self._waits[ticket][0]
        if not self._crashes(subject):
            del self._waits[ticket]
            then(answer)
            self._let_go.append(subject)

    async def _start(self, ticket: object) -> None:
        started = await self._scheduler.start()
        if not self._crashes(self.machine_subject):
            self._starts.pop(ticket)(started.settled and self.fires_as_meant)

    # --- effects ---

    def _call(self, ask: Callable[[], Any]) -> asyncio.Future[Any]:
        """Ask the store in place of a thread; on machines that share it, the answer takes its time."""
        future = self._loop.create_future()
        if not self.is_alive:
            future.cancel()
            return future
        result = ask()
        if not self.is_alive:
            return future
        if self._machine.shares_store:
            key, subject = object(), self.reached
            self._asked[key] = subject
            self._watch.hold(subject)
            self.kernel.after(SHARED_STORE_US, self._hand_over, future, result, key)
        else:
            future.set_result(result)
        return future

    def _hand_over(self, future: asyncio.Future[Any], result: Any, key: object) -> None:
        if self.is_alive:
            self._let_go.append(self._asked.pop(key))
            if not future.done():
                future.set_result(result)
            self._loop.run()

    def reach(self, subject: int) -> None:
        """The store is asked about a job, if the machine lives that long."""
        self.reached = subject
        if self._crashes(subject):
            raise _DeadError

    def reads(self, subject: int) -> bool:
        """Let a read of the store fail perhaps; return whether it did not."""
        return self._reads(subject)

    def note_write(self, subject: int, old: Job | None, new: Job | None, has_moved: bool) -> None:
        """A swap was answered."""
        self._note_write(subject, old, new, has_moved)

    def note_late_failure(self) -> None:
        """A swap has failed, and has written."""
        self._watch.met[marks.STORE_FAILED_AFTER_THE_WRITE] += 1

    async def through_nas(
        self, job_id: str | None, within_s: float | None, call: Coroutine[Any, Any, T]
    ) -> T:
        """Ask NAS by the client, and note what comes of it."""
        subject, key = self._subject(job_id), object()
        if self._crashes(subject):
            call.close()
            return await self._loop.create_future()  # type: ignore[no-any-return]
        self._asked[key] = subject
        self._watch.hold(subject)
        assert within_s is not None
        self._within_us = round(within_s * SECOND_US)
        has_failed = True
        try:
            answer = await call
            has_failed = False
        except StaleRevision:  # NAS has answered
            has_failed = False
            raise
        finally:
            if self.is_alive:
                self._note_answer(job_id is None, subject, has_failed)
                self._let_go.append(self._asked.pop(key))
        return answer

    def _carry(
        self, wanted: flow_effects.Effect, answer: Callable[[flow_effects.Event | None], None]
    ) -> None:
        def close(event: flow_effects.Event) -> None:
            if self.is_alive:
                answer(None if event is FAILED else event)
                self._loop.run()

        subject = self._subject(getattr(wanted, "job_id", None))
        self._ask_nas(subject, wanted, self._within_us, close)

    def _spoil(self, wanted: flow_effects.Effect, answer: HttpAnswer) -> HttpAnswer:
        """Return what the wire makes of NAS's answer."""
        subject, (status, headers, content) = self._subject(getattr(wanted, "job_id", None)), answer
        spoiled = self.kernel.fault(faults.WIRE_ANSWER, subject)
        if spoiled is None:
            return answer
        self._watch.met[marks.ANSWER_SPOILED[spoiled]] += 1
        self._watch.ledger.mishap(faults.WIRE_ANSWER.name, subject)
        if spoiled is Spoiling.TORN:
            return status, headers, content[: len(content) // 2]
        return status, {"content-type": "text/html"}, b"<html><body>a page of a proxy</body></html>"

    def begin_run(self, context: RunContext, effect: process_effects.CallRunner) -> None:
        """A runner is called, if the machine lives that long."""
        if not self._crashes(self._subject(context.job_id)):
            self._runs[id(context)] = effect.key, self._run_began(effect.key, effect.started)

    async def run(self, context: RunContext) -> None:
        """Run a job: wait for as long as it takes."""
        if not self.is_alive:
            await self._loop.create_future()
        key, duration_us = self._runs.pop(id(context))
        subject = self._subject(context.job_id)
        try:
            await asyncio.sleep(duration_us / SECOND_US)
        except asyncio.CancelledError:
            if self.is_alive:
                self._watch.met[marks.RUN_TIMED_OUT] += 1
            raise
        finally:
            succeeded = self.is_alive and self._run_ended(key)
            if self.is_alive:
                self._let_go.append(subject)
        if not succeeded:
            raise _FailedError("the run failed")


async def _access_token(_is_fresh: bool) -> str:
    return ACCESS_TOKEN
