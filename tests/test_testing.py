"""The NAS that agents are tested with: its time, its fires, and each failure that it can be told to have."""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest

from chronos import AsyncScheduler, FireEndpoint, MemoryStore, NasUnavailable, RunContext, Scheduler, clock
from chronos.errors import ScheduleError
from chronos.jobs.instants import SECOND_US, format_instant
from chronos.testing import HARDENED, MINIMAL, AsyncLocalNas, Clock, Delivery, Faults, LocalNas
from chronos.values import evolve
from tests.agents import until

ROOT = Path(__file__).resolve().parent.parent
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
START = datetime(2026, 1, 1, tzinfo=UTC)


class Agent:
    """An agent of either kind beside its NAS, driven from plain code."""

    def __init__(self, kind: str, **options: Any) -> None:
        self.ran: list[datetime] = []
        self._loop = asyncio.Runner() if kind == "asyncio" else None
        self.nas: Any = AsyncLocalNas(**options) if kind == "asyncio" else LocalNas(**options)
        self.store = MemoryStore()
        self.client = self.nas.client()
        self.restart()

    def restart(self) -> None:
        make: Any = AsyncScheduler if self._loop else Scheduler
        self.scheduler = make(self.store, self.client, self._run, clock=self.nas.clock)
        self.nas.connect(self.scheduler)

    def _run(self, context: RunContext) -> None:
        self.ran.append(context.occurrence)

    def do(self, result: Any) -> Any:
        return self._loop.run(result) if asyncio.iscoroutine(result) and self._loop else result

    def create(self, schedule: str = "0 * * * *") -> Any:
        return self.do(self.scheduler.create("j", schedule))

    def advance(self, by: timedelta) -> list[Delivery]:
        deliveries: list[Delivery] = self.do(self.nas.advance(by))
        return deliveries

    def hours(self) -> list[int]:
        return [moment.hour for moment in self.ran]

    def close(self) -> None:
        self.do(self.scheduler.drain(0.0))
        if self._loop:
            self._loop.close()


@pytest.fixture(params=["threads", "asyncio"])
def make(request: pytest.FixtureRequest) -> Any:
    agents: list[Agent] = []

    def make_one(**options: Any) -> Agent:
        agents.append(Agent(request.param, **options))
        return agents[-1]

    yield make_one
    for agent in agents:
        agent.close()


@pytest.fixture
def agent(make: Callable[..., Agent]) -> Agent:
    made = make()
    assert made.create().settled
    return made


# --- Time ------------------------------------------------------------------------------------


def test_each_fire_is_delivered_at_its_time(agent: Agent) -> None:
    """In the order of time, and none of them twice; what the clock has passed is not delivered again."""
    deliveries = agent.advance(3 * HOUR)
    assert [each.at for each in deliveries] == [START + n * HOUR for n in (1, 2, 3)]
    assert [each.fire_at for each in deliveries] == [each.at for each in deliveries]
    assert {each.word for each in deliveries} == {"accepted"}
    assert (agent.hours(), agent.nas.clock.now) == ([1, 2, 3], START + 3 * HOUR)
    assert agent.nas.arms == {"j": START + 4 * HOUR}
    assert agent.advance(timedelta(0)) == []
    assert agent.nas.deliveries == tuple(deliveries)


def test_a_day_takes_no_time(agent: Agent) -> None:
    """Nothing sleeps: 24 fires and their runs, and the same ones each time."""
    began = datetime.now(UTC)
    agent.advance(24 * HOUR)
    assert len(agent.ran) == 24
    assert datetime.now(UTC) - began < timedelta(seconds=10)


def test_an_agent_that_comes_back_goes_on(agent: Agent) -> None:
    """A restart in the middle: the store and the NAS know all that there is to know."""
    agent.advance(HOUR)
    agent.restart()
    agent.advance(2 * HOUR)
    assert agent.hours() == [1, 2, 3]


def test_an_instant_in_the_past_fires_at_once(agent: Agent) -> None:
    """The clock was set on without the NAS: the fire comes with the next advance."""
    agent.nas.clock.advance(90 * MINUTE)
    late = agent.advance(timedelta(0))
    assert [each.at for each in late] == [START + 90 * MINUTE]


@pytest.mark.parametrize("by", [60, None, timedelta(seconds=-1)])
def test_a_span_that_is_none_is_refused(by: Any) -> None:
    """One clear error, and the clock stands."""
    nas = LocalNas()
    with pytest.raises(ScheduleError, match="by is"):
        nas.advance(by)
    assert nas.clock.now == START


def test_a_clock_takes_aware_moments_alone() -> None:
    """A naive one means another instant on every machine."""
    with pytest.raises(ScheduleError, match="aware datetime"):
        Clock(datetime(2026, 1, 1))  # noqa: DTZ001
    shown = Clock(START + HOUR)
    shown.set(START)
    assert shown() == 1_767_225_600 * SECOND_US


def test_a_nas_whose_clock_runs_by_itself_cannot_be_advanced() -> None:
    """It says so."""
    with pytest.raises(TypeError, match="runs by itself"):
        LocalNas(clock=clock.now_us).advance(HOUR)


def test_a_clock_that_is_wrong_is_another_clock_for_the_scheduler(agent: Agent) -> None:
    """NAS says what time it is: what only the wrong clock calls overdue is not run (incident T3)."""
    wrong = Clock(agent.nas.clock.now + 3 * HOUR)
    make: Any = type(agent.scheduler)
    agent.scheduler = make(agent.store, agent.client, agent._run, clock=wrong)
    agent.nas.connect(agent.scheduler)
    agent.do(agent.scheduler.start())
    assert agent.advance(timedelta(0)) == []
    assert (agent.ran, agent.nas.arms) == ([], {"j": START + HOUR})
    assert any("clock" in each.reason for each in agent.scheduler.pending())


# --- Failures, one line each -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Faults(delivers_twice=True), ["202 accepted", "200 duplicate"]),
        (Faults(lost_fire_answers=1), ["None "]),
        (Faults(lost_fires=2), ["None ", "None ", "202 accepted"]),
        (Faults(claims={"aud": "agent:other"}), ["401 unauthorized"] * 5),
        (Faults(claims={"iss": "https://other.example"}), ["401 unauthorized"] * 5),
        (Faults(claims={"purpose": None}), ["401 unauthorized"] * 5),
        (Faults(agent_is_down=True), ["None "] * 5),
        (Faults(is_down=True), []),
        (Faults(lost_answers=1), ["202 accepted"]),
        (Faults(lost_requests=1), ["202 accepted"]),
    ],
)
def test_a_failure_is_told_in_a_line_and_heals(agent: Agent, fault: Faults, expected: list[str]) -> None:
    """While it lasts, the NAS's log shows it; afterwards every hour has its outcome, and none has two."""
    agent.nas.faults = attrs.evolve(fault)
    shown = [f"{each.status} {each.word}" for each in agent.advance(HOUR + 15 * MINUTE)]
    assert shown == expected
    agent.nas.faults = Faults()
    agent.advance(2 * HOUR)
    assert agent.hours()[-2:] == [2, 3]
    assert len(set(agent.ran)) == len(agent.ran)
    assert [outcome.occurrence.hour for outcome in agent.store.history("j")] == [1, 2, 3]


def test_an_arm_that_was_not_accepted_is_made_up_for_after_the_run(agent: Agent) -> None:
    """The fire is answered 503, the run's end arms, and the relay of the older arm is dropped."""
    agent.nas.faults.lost_requests = 3  # the client's two retries with it
    deliveries = agent.advance(HOUR + MINUTE)
    assert [each.status for each in deliveries] == [503]
    assert (agent.hours(), agent.nas.arms) == ([1], {"j": START + 2 * HOUR})


def test_an_agent_that_cannot_arm_is_called_again(agent: Agent) -> None:
    """Until NAS takes its arm; nothing in the test waits for that."""
    agent.nas.faults.retry_after_s = 1
    first = agent.advance(HOUR + timedelta(seconds=5))
    agent.nas.faults = Faults()
    again = agent.advance(timedelta(seconds=10))
    assert [(each.status, each.word) for each in first + again] == [(503, "not_settled"), (200, "duplicate")]
    assert again[0].at - first[0].at == timedelta(seconds=10)
    assert (agent.hours(), agent.nas.arms) == ([1], {"j": START + 2 * HOUR})


def test_a_refused_identity_is_told_and_no_retry_is_made(make: Callable[..., Agent]) -> None:
    """403 `invalid_client`, once."""
    agent = make()
    agent.nas.faults.refuses_identity = True
    answer = agent.create()
    assert not answer.settled
    assert [request.status for request in agent.nas.requests] == [403]


def test_a_wait_that_is_asked_for_is_kept(make: Callable[..., Agent]) -> None:
    """429 with Retry-After: not asked again before the clock has reached it."""
    agent = make()
    agent.nas.faults.retry_after_s = 60
    assert not agent.create().settled
    agent.nas.faults = Faults()
    for _ in range(2):
        with pytest.raises(NasUnavailable, match="not to be called"):
            agent.do(agent.client.list_arms())
    agent.nas.clock.advance(MINUTE)
    assert agent.do(agent.client.list_arms()) == {}
    assert [request.status for request in agent.nas.requests] == [429, 200]


def test_an_access_token_that_was_replaced_is_asked_for_again(make: Callable[..., Agent]) -> None:
    """The one before is answered 401."""
    agent = make()
    agent.nas.access_token = "another"
    assert agent.create().settled
    answer = agent.nas._portal.answer("GET", "/api/agent-cron/list", {"authorization": "Bearer x"}, b"")
    assert answer.status == 401


@pytest.mark.parametrize("keeps_old", [True, False])
def test_a_new_key_is_picked_up_without_a_restart(agent: Agent, keeps_old: bool) -> None:
    """The verifier fetches the keys again, once."""
    agent.advance(HOUR)
    agent.nas.rotate_key(keeps_old=keeps_old)
    agent.advance(HOUR)
    assert agent.hours() == [1, 2]
    assert {each.word for each in agent.nas.deliveries} == {"accepted"}


def test_a_nas_without_an_order_of_revisions_echoes_none(make: Callable[..., Agent]) -> None:
    """As of contract 1.0; the agent confirms its arm after the run, and goes on."""
    agent = make(promises=evolve(HARDENED, orders=False))
    agent.create()
    agent.advance(3 * HOUR)
    assert agent.hours() == [1, 2, 3]
    assert not agent.do(agent.client.provision("k", agent.nas.clock(), revision=1)).echoed


def test_a_nas_that_promises_no_more_than_the_published_contract_loses_a_job(
    make: Callable[..., Agent],
) -> None:
    """Its clean-up deletes the next arm (L10), and the arm that confirms it is swallowed (L8)."""
    agent = make(promises=MINIMAL)
    agent.create()
    agent.advance(3 * HOUR)
    assert agent.hours() == [1]


def test_one_promise_can_be_taken_away(make: Callable[..., Agent]) -> None:
    """Without its order of revisions, an older request is taken."""
    ordered, unordered = make(), make(promises=evolve(HARDENED, orders=False))
    for agent in ordered, unordered:
        agent.do(agent.client.provision("j", agent.nas.clock() + SECOND_US, revision=2))
    with pytest.raises(Exception, match="revision"):
        ordered.do(ordered.client.cancel("j", revision=1))
    unordered.do(unordered.client.cancel("j", revision=1))
    assert (len(ordered.nas.arms), len(unordered.nas.arms)) == (1, 0)


def test_a_nas_may_spell_instants_in_its_own_way(make: Callable[..., Agent]) -> None:
    """With a `Z`: the arm is the same one, and nothing is armed anew for it."""
    agent = make(writes_z=True)
    agent.create()
    agent.restart()
    assert agent.do(agent.scheduler.start()).settled
    assert agent.nas._portal._list().armed[0].fire_at == "2026-01-01T01:00:00Z"
    assert [request.verb for request in agent.nas.requests] == ["provision", "list"]
    agent.advance(2 * HOUR)
    assert agent.hours() == [1, 2]


@pytest.mark.parametrize("cuts", [True, False])
def test_a_fraction_is_refused_or_cut_off(cuts: bool) -> None:
    """As the contract says; a NAS that takes it keeps the seconds."""
    nas = LocalNas(cuts_fractions=cuts)
    text = "2026-01-01T00:00:01.500000+00:00"
    body = {"job_id": "j", "fire_at": text, "dedup_key": f"j:{text}", "agent_callback_url": "http://a"}
    headers = {"authorization": "Bearer access-token"}
    path = "/api/agent-cron/provision"
    answer = nas._portal.answer("POST", path, headers, json.dumps(body).encode())
    assert answer.status == (200 if cuts else 400)
    assert nas.arms == ({"j": START + timedelta(seconds=1)} if cuts else {})


def test_retries_are_spent_and_the_arm_is_swept(make: Callable[..., Agent]) -> None:
    """As hardened NAS promises; the times are its own, unless others were asked for."""
    agent = make(retry_delays=[timedelta(seconds=1), timedelta(seconds=2)])
    agent.create()
    agent.nas.faults.agent_is_down = True
    failed = agent.advance(HOUR + 6 * MINUTE)
    passed = [each.at - START - HOUR for each in failed]
    sweep = timedelta(seconds=3) + 5 * MINUTE
    assert passed == [timedelta(seconds=each) for each in (0, 1, 3)] + [
        sweep + timedelta(seconds=each) for each in (0, 1, 3)
    ]
    agent.nas.faults = Faults()
    agent.advance(2 * HOUR)
    assert agent.hours()[-2:] == [2, 3]


def test_a_fire_by_hand_is_delivered_now(agent: Agent) -> None:
    """Whether or not it was armed."""
    agent.advance(HOUR)
    again = agent.do(agent.nas.fire("j", START + HOUR))
    nobody = agent.do(agent.nas.fire("nobody", START))
    assert ([again.word, nobody.word], agent.hours()) == (["duplicate", "gone"], [1])


def test_an_agent_that_never_gets_done_is_named(make: Callable[..., Agent], monkeypatch: Any) -> None:
    """The advance ends with what it waits for; without settling, the clock goes on."""
    monkeypatch.setattr("chronos.testing.local.PATIENCE_S", 0.05)
    agent, release = make(), threading.Event()
    agent._run = lambda _context: release.wait(10)  # type: ignore[method-assign,assignment]
    agent.restart()
    agent.create()
    try:
        with pytest.raises(TimeoutError, match="j: the run of 2026-01-01T01:00:00"):
            agent.advance(HOUR)
        assert agent.do(agent.nas.advance(MINUTE, settle=False)) == []
    finally:
        release.set()
    agent.advance(timedelta(0))


def test_an_agent_that_arms_one_instant_again_and_again_is_stopped(monkeypatch: Any) -> None:
    """An advance ends, whatever the agent does."""
    monkeypatch.setattr("chronos.testing.local.MOST_AT_ONE_INSTANT", 5)
    nas = LocalNas()
    client = nas.client()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        app.rounds += 1  # type: ignore[attr-defined]
        client.provision("j", nas.clock() - app.rounds * SECOND_US)  # type: ignore[attr-defined]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    app.rounds = 0  # type: ignore[attr-defined]
    nas.connect(Scheduler(MemoryStore(), client, print, clock=nas.clock), app)
    client.provision("j", nas.clock())
    with pytest.raises(RuntimeError, match="again and again"):
        nas.advance(HOUR)


# --- Over HTTP ----------------------------------------------------------------------------------


def test_a_served_nas_answers_as_the_contract_says() -> None:
    """The keys, the arms, its date, and what is no request."""
    nas = LocalNas()
    with nas.served() as url, httpx.Client(base_url=url, trust_env=False) as http:
        assert nas.url == url
        assert http.get("/jwks.json").json() == nas._portal.keys.jwks()
        http.headers["Authorization"] = "Bearer access-token"
        listed = http.get("/api/agent-cron/list")
        assert (listed.json(), listed.headers["date"]) == ({"armed": []}, "Thu, 01 Jan 2026 00:00:00 GMT")
        assert http.get("/api/agent-cron/other").status_code == 404
        assert http.post("/api/agent-cron/provision", content=b"{").status_code == 400
        assert http.post("/api/agent-cron/cancel", json={"job_id": "j"}).json() == {"ok": True}
        nas.faults.lost_answers = 1
        with pytest.raises(httpx.HTTPError):
            http.get("/api/agent-cron/list")
        assert http.get("/api/agent-cron/list", headers={"Authorization": "Bearer x"}).status_code == 401


AGENT = """
import sys
from datetime import timedelta
import uvicorn
from chronos import *
portal, jwks, audience, me = sys.argv[1:]
nas = AsyncNasClient(portal, token_provider=lambda _fresh: "access-token", callback_url=me)
def run(context):
    print("ran", context.occurrence.timestamp(), flush=True)
scheduler = AsyncScheduler(MemoryStore(), nas, run)
app = FireEndpoint(scheduler, FireVerifier(audience, issuer=portal, jwks_url=jwks))
async def serve():
    import asyncio
    server = uvicorn.Server(uvicorn.Config(app, port=int(me.rpartition(":")[2]), log_level="warning"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    await scheduler.create("j", timedelta(seconds=1))
    await serving
import asyncio
asyncio.run(serve())
"""


def test_an_agent_in_another_process_is_fired_by_the_real_clock(free_port: int) -> None:
    """Over HTTP both ways: signed fires come when they are due, and each slot runs once."""
    nas = LocalNas(clock=clock.now_us)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with nas.served() as url:
        arguments = [url, nas.jwks_url, nas.audience, f"http://127.0.0.1:{free_port}"]
        command = [sys.executable, "-c", AGENT, *arguments]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            until(lambda: len([each for each in nas.deliveries if each.is_accepted]) >= 2)
        finally:
            process.terminate()
            said, _ = process.communicate(timeout=30)
    slots = [float(line.split()[1]) for line in said.splitlines()]
    assert len(slots) >= 2
    assert slots == [slots[0] + n for n in range(len(slots))]


def test_an_app_of_ones_own_is_called_at_the_callback_url() -> None:
    """Below the path of a framework's mount, too."""

    async def scenario() -> list[Delivery]:
        nas = AsyncLocalNas(callback_url="https://agent.example/below")
        scheduler = AsyncScheduler(MemoryStore(), nas.client(), print, clock=nas.clock)
        nas.connect(scheduler, FireEndpoint(scheduler, nas.verifier(), prefix="/below", clock=nas.clock))
        await scheduler.create("j", "+5s")
        return await nas.advance(MINUTE)

    assert [each.word for each in asyncio.run(scenario())] == ["accepted"]


# --- The package --------------------------------------------------------------------------------


def test_the_example_of_a_test_runs() -> None:
    """The ten lines of the page, as they stand."""
    runpy.run_path(str(ROOT / "docs" / "examples" / "test_agent.py"), run_name="__main__")


def test_the_names_for_tests_are_these() -> None:
    """Each is documented; none needs a test framework, and `import chronos` brings none of them."""
    from chronos import testing

    assert sorted(testing.__all__) == [
        "AsyncLocalNas", "Clock", "Delivery", "Faults", "HARDENED", "LocalNas", "MINIMAL", "Promises",
        "Request",
    ]  # fmt: skip
    assert all(getattr(testing, name).__doc__ for name in testing.__all__)
    assert set(testing.__all__) <= set(dir(testing))
    with pytest.raises(AttributeError, match="no attribute 'Nope'"):
        testing.Nope  # noqa: B018
    code = "import sys, chronos.testing.local, chronos.testing.nas; print('pytest' in sys.modules)"
    light = "import sys, chronos, chronos.agent.scheduler; print('chronos.testing' in sys.modules)"
    for each in code, light:
        ran = subprocess.run([sys.executable, "-c", each], capture_output=True, text=True, check=True)
        assert ran.stdout == "False\n"


def test_the_log_of_a_nas_shows_requests_as_datetimes(agent: Agent) -> None:
    """With what was asked, and what was answered."""
    (request,) = agent.nas.requests
    assert (request.verb, request.job_id, request.status) == ("provision", "j", 200)
    assert (request.at, request.fire_at) == (START, START + HOUR)
    assert format_instant(request.fire_at_us) == "2026-01-01T01:00:00+00:00"
