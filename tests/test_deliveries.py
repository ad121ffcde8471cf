"""The arm that is being delivered: until NAS has handled the agent's answer, it counts as none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from chronos import FireEndpoint, MemoryStore, RunContext, Scheduler
from chronos.jobs.instants import MINUTE_US, SECOND_US
from chronos.protocol.flow_effects import ArmsListed
from chronos.testing import HARDENED, LocalNas, nas
from chronos.testing.nas import EMPTY, RELAY_TIMEOUT_US, OneShot, Promises, Row
from chronos.values import evolve
from simulator import marks
from simulator.agents import CHRONOS
from simulator.comparison import Comparison
from simulator.kernel import Kernel, RecordedChoices
from simulator.nas_server import Call, NasServer, Relay
from simulator.network import Network
from simulator.search.cases import CASES
from simulator.search.explore import search
from simulator.search.space import Space

HOUR = timedelta(hours=1)
WITHOUT = evolve(HARDENED, sets_deliveries_apart=False)
STOPPED = next(case for case in CASES if case.is_stopped)


def only_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let NAS leave such an arm out of a list, and take a provision of its instant for a no-op."""
    provision = nas.provision
    monkeypatch.setattr(nas, "provision", lambda *row, **asked: provision(*row, **{**asked, "relays": ()}))


def only_provisions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let NAS make a new generation, and list an arm that is being delivered."""
    listed = nas.listed
    monkeypatch.setattr(nas, "listed", lambda *row, **_: listed(*row, relays=()))


HALVES = pytest.mark.parametrize("half", [only_lists, only_provisions])


# --- A real agent ----------------------------------------------------------------------------


class Agent:
    """An agent that is told to run no jobs, until a fire has been answered and its answer is on the way."""

    def __init__(self, promises: Promises) -> None:
        self.ran: list[int] = []
        self.is_stopped = True
        self.nas = LocalNas(promises=promises)
        self.scheduler = Scheduler(
            MemoryStore(),
            self.nas.client(),
            self._run,
            is_stopped=lambda: self.is_stopped,
            clock=self.nas.clock,
        )
        self.nas.connect(self.scheduler, self._app)
        self._endpoint: Any = FireEndpoint(self.scheduler, self.nas.verifier())
        assert self.scheduler.create("j", "0 * * * *").settled

    def _run(self, context: RunContext) -> None:
        self.ran.append(context.occurrence.hour)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        answer: list[Any] = []

        async def keep(message: Any) -> None:
            answer.append(message)

        await self._endpoint(scope, receive, keep)
        if self.is_stopped:
            self.is_stopped = False
            assert self.scheduler.start().settled
        for message in answer:
            await send(message)


def test_start_after_a_lifted_stop_arms_what_is_being_delivered() -> None:
    """The fire was answered `stopped`, and that answer is still on its way when the agent starts again."""
    agent = Agent(HARDENED)
    deliveries = agent.nas.advance(2 * HOUR)
    assert [each.word for each in deliveries] == ["stopped", "accepted", "accepted"]
    assert agent.ran == [1, 2]
    assert [arm.hour for arm in agent.nas.arms.values()] == [3]


def test_job_is_dead_where_nas_takes_a_delivery_for_an_arm() -> None:
    """Without the promise nothing ever comes back for the job, though its start was settled."""
    agent = Agent(WITHOUT)
    agent.nas.advance(24 * HOUR)
    assert (agent.ran, agent.nas.arms) == ([], {})


@HALVES
def test_half_of_the_promise_leaves_the_job_dead(
    half: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list alone has the arm made again for nothing, and a new generation alone is never asked for."""
    agent = Agent(HARDENED)
    half(monkeypatch)
    agent.nas.advance(24 * HOUR)
    assert (agent.ran, agent.nas.arms) == ([], {})


# --- The search ------------------------------------------------------------------------------


def violated(promises: Promises) -> dict[str, int]:
    result = search(Space(STOPPED, CHRONOS, promises, crashes=0, duplicates=0, losses=0))
    assert result.is_complete
    return {each.property: len(each.history) for each in result.counterexamples}


def test_search_finds_the_stop_that_is_lifted_while_its_answer_is_on_the_way() -> None:
    """Without any fault, in a few steps; and with the promise, in no order of events."""
    assert violated(WITHOUT)["NO-LOST-REARM"] <= 9
    assert not violated(HARDENED)


@HALVES
def test_search_finds_each_half_of_the_promise_wanting(
    half: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either half alone still loses the job."""
    half(monkeypatch)
    assert "NO-LOST-REARM" in violated(HARDENED)


# --- NAS, as pure functions ------------------------------------------------------------------

AT_US = 200 * SECOND_US


def armed(row: Row, relays: tuple[OneShot, ...] = (), promises: Promises = HARDENED) -> nas.Decision:
    return nas.provision(promises, row, job_id="j", fire_at_us=AT_US, revision=1, relays=relays)


def test_provision_of_what_is_being_delivered_makes_a_new_generation() -> None:
    """The delivery then cleans up its own generation, and the new one stands."""
    row = armed(EMPTY).row
    assert row.shot is not None
    decision = armed(row, (row.shot,))
    assert (decision.row.generation, decision.delete) == (row.generation + 1, row.shot)
    assert decision.create == decision.row.shot
    assert nas.delivered(HARDENED, decision.row, row.shot) == decision.row
    assert not nas.forwards(HARDENED, decision.row, row.shot)


def test_provision_of_what_is_armed_is_a_no_op() -> None:
    """So it is where the open relay is one of an earlier generation, or of another job."""
    first = armed(EMPTY).row
    assert first.shot is not None
    row = armed(first, (first.shot,)).row
    for relays in ((), (first.shot,), (evolve(row.shot, job_id="k"),)):
        decision = armed(row, relays)
        assert (decision.row, decision.create, decision.delete) == (row, None, None)
        assert nas.listed(HARDENED, row, relays=relays) == row.shot


def test_list_leaves_out_what_is_being_delivered_until_the_last_relay_is_closed() -> None:
    """A retry may overlap the call before it, and a sweep has another name for the same generation."""
    row = armed(EMPTY).row
    assert row.shot is not None
    again, shot = nas.swept(row)
    assert shot is not None
    for relays in ((row.shot,), (row.shot, row.shot), (row.shot, shot)):
        assert nas.listed(HARDENED, again, relays=relays) is None
        assert nas.listed(WITHOUT, again, relays=relays) == shot
    assert nas.listed(HARDENED, again, relays=()) == shot


# --- NAS in time -----------------------------------------------------------------------------


class Timed:
    """A simulated NAS, with the fires that it has sent."""

    def __init__(self, promises: Promises) -> None:
        self.kernel = Kernel(RecordedChoices([]), start_us=0, subjects=1)
        self.met = Counter[marks.Mark]()
        watch: Any = SimpleNamespace(met=self.met, hold=lambda _: None, release=lambda _: None)
        self.relays: list[Relay] = []
        self.nas = NasServer(
            self.kernel,
            Network(self.kernel, watch),
            watch,
            promises,
            Comparison([None], ["j"]),
            fire=self.relays.append,
            horizon_us=60 * MINUTE_US,
        )
        self.provision()
        self.kernel.run(AT_US + 5 * SECOND_US)
        assert len(self.relays) == 1

    def call(self, answer: Callable[[Any], None] = lambda _: None) -> Call:
        return Call(subject=0, deadline_us=self.kernel.now_us + 10 * SECOND_US, answer=answer)

    def provision(self) -> None:
        self.nas.provision(self.call(), AT_US, 1)

    def listed(self) -> dict[str, Any]:
        answers: list[Any] = []
        self.nas.list(self.call(answers.append))
        self.kernel.run(self.kernel.now_us + SECOND_US)
        assert isinstance(answers[0], ArmsListed)
        return dict(answers[0].arms)

    def answer(self, status: int = 200) -> None:
        self.nas.answered(self.relays[-1], status)
        self.kernel.run(self.kernel.now_us + SECOND_US)


def test_timed_nas_fires_again_what_was_armed_during_its_delivery() -> None:
    """The fire that was accepted is over, and the new generation comes."""
    timed = Timed(HARDENED)
    assert timed.listed() == {}
    timed.provision()
    assert timed.nas.armed_us(0) == AT_US
    timed.nas.answered(timed.relays[0], 200)
    timed.kernel.run(timed.kernel.now_us + 5 * SECOND_US)
    assert [relay.pending.shot.generation for relay in timed.relays] == [1, 2]
    assert timed.met[marks.ARMED_AGAIN] == 1


def test_timed_nas_without_the_promise_fires_it_no_more() -> None:
    """The list shows it, the provision is a no-op, and the clean-up takes the arm away."""
    timed = Timed(WITHOUT)
    assert timed.listed() == {"j": AT_US}
    timed.provision()
    timed.answer()
    timed.kernel.drain(60 * MINUTE_US)
    assert len(timed.relays) == 1
    assert timed.nas.armed_us(0) is None


@pytest.mark.parametrize("how", ["refused", "never answered", "answered while NAS was down"])
def test_arm_counts_again_when_its_delivery_has_failed(how: str) -> None:
    """NAS waits no longer, and the external scheduler comes back to it."""
    timed = Timed(HARDENED)
    assert timed.listed() == {}
    if how == "refused":
        timed.answer(503)
    elif how == "answered while NAS was down":
        timed.nas.is_up = False
        timed.answer()
        timed.nas.is_up = True
    timed.kernel.run(AT_US + 6 * SECOND_US + (0 if how == "refused" else RELAY_TIMEOUT_US))
    assert timed.listed() == {"j": AT_US}
    timed.kernel.run(timed.kernel.now_us + MINUTE_US)
    assert [relay.pending.shot.generation for relay in timed.relays][:2] == [1, 1]
