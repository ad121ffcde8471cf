"""The third table of the protocol, step by step: what a process does with what happens to it."""

from __future__ import annotations

from typing import Any

import pytest

from chronos.jobs.instants import HOUR_US, SECOND_US
from chronos.jobs.job import Job, Liveness, Verdict
from chronos.jobs.policy import OnInterrupt, Policy
from chronos.jobs.schedule import Interval
from chronos.protocol.flow_effects import (
    ArmAccepted,
    ArmFailed,
    ArmsListed,
    JobLoaded,
    JobsLoaded,
    JobSwapped,
    ListArms,
    LoadJob,
    LoadJobs,
    ProvisionArm,
    StoreFailed,
    SwapJob,
)
from chronos.protocol.intents import Fire
from chronos.protocol.pending import pending
from chronos.protocol.process import rings_us, step
from chronos.protocol.process_effects import (
    Asked,
    AskedToDrain,
    AskedToStart,
    CallRunner,
    Came,
    Effect,
    Event,
    Perform,
    Rang,
    Reply,
    RunEnded,
)
from chronos.protocol.state import Now, Process, Started, new_process
from chronos.values import evolve

T0 = 1_800_000_000 * SECOND_US
JOB = Job(id="j", schedule=Interval(period_us=HOUR_US, anchor_us=T0), next_us=T0)


class Life:
    """A process, what it has asked for and not heard of, and a store and a NAS that do as they are told."""

    def __init__(self, job: Job = JOB) -> None:
        self.process: Process = new_process("me")
        self.now = Now(T0, 0)
        self.job: Job | None = job
        self.asked: list[Perform] = []
        self.replies: dict[object, Any] = {}
        self.runs: list[CallRunner] = []
        self.is_nas_up = self.is_store_up = True
        self.listed = 0

    def happen(self, event: Event) -> tuple[Effect, ...]:
        self.process, effects = step(self.process, event, self.now)
        for effect in effects:
            match effect:
                case Perform():
                    self.asked.append(effect)
                case Reply(ticket, result):
                    self.replies[ticket] = result
                case CallRunner():
                    self.runs.append(effect)
        return effects

    def answer(self, number: int = 0) -> None:
        """Answer one of the requests, the oldest unless another is named."""
        asked = self.asked.pop(number)
        self.happen(Came(asked.number, self._event(asked)))

    def answer_all(self) -> None:
        while self.asked:
            self.answer()

    def pass_us(self, duration_us: int) -> None:
        self.now = Now(self.now.wall_us + duration_us, self.now.steady_us + duration_us)

    def is_busy(self) -> bool:
        """Return whether the host must keep the machine."""
        return any(each.is_busy for each in pending(self.process, self.now))

    def ring(self) -> None:
        due_us = rings_us(self.process)
        assert due_us is not None
        self.pass_us(max(0, due_us - self.now.steady_us))
        self.happen(Rang())

    def _event(self, asked: Perform) -> Any:
        unknown = () if self.job is None else tuple(Liveness.UNKNOWN for _ in self.job.runs)
        match asked.effect:
            case LoadJob() if not self.is_store_up:
                return StoreFailed("the store is away")
            case LoadJob():
                return JobLoaded(self.job, unknown)
            case LoadJobs():
                return JobsLoaded([] if self.job is None else [(self.job, unknown)])
            case SwapJob(replacement=replacement):
                self.job = replacement
                return JobSwapped()
            case _ if not self.is_nas_up:
                return ArmFailed("NAS is away")
            case ListArms():
                self.listed += 1
                return ArmsListed({})
            case _:
                return ArmAccepted(echoed=True)


def test_process_is_a_value() -> None:
    """The same events make the same process, and none of them changes the one before."""
    first, second = Life(), Life()
    before = first.process
    for life in (first, second):
        life.happen(AskedToStart("start"))
        life.answer_all()
        life.happen(Asked("fire", Fire(job_id="j", fire_at_us=T0)))
    assert first.process == second.process
    assert hash(first.process) == hash(second.process)
    assert before == new_process("me") != first.process


def test_fire_is_answered_once_nas_has_agreed_and_the_run_starts_then() -> None:
    """Claim, arm, answer: in this order (incidents L6, L7)."""
    life = Life()
    life.happen(Asked("fire", Fire(job_id="j", fire_at_us=T0)))
    order = []
    while life.asked:
        assert "fire" not in life.replies
        order.append(type(life.asked[0].effect))
        life.answer()
    assert order == [LoadJob, SwapJob, ProvisionArm]
    assert (life.replies["fire"].verdict, life.replies["fire"].settled) == (Verdict.ACCEPTED, True)
    assert len(life.runs) == 1


@pytest.mark.parametrize("first", [0, 1])
def test_two_starts_at_once_are_both_answered(first: int) -> None:
    """Whichever of their lists comes first; each tells what it has found."""
    life = Life()
    life.happen(AskedToStart("one"))
    life.happen(AskedToStart("two"))
    assert [type(each.effect) for each in life.asked] == [ListArms, ListArms]
    life.answer(first)
    life.answer_all()
    assert all(isinstance(life.replies[ticket], Started) for ticket in ("one", "two"))
    assert life.replies["two"].settled
    assert life.listed == 2


def test_start_that_leaves_a_job_to_another_flow_waits_for_its_end() -> None:
    """A start that comes while another one arms a job says what became of that arm, and no sooner."""
    for is_nas_up in (True, False):
        life = Life()
        life.happen(AskedToStart("one"))
        life.happen(AskedToStart("two"))
        second_list = life.asked.pop()
        while not isinstance(life.asked[0].effect, ProvisionArm):
            life.answer()
        life.happen(Came(second_list.number, ArmsListed({})))
        life.answer(1)  # all jobs, for the second start
        assert "two" not in life.replies
        life.is_nas_up = is_nas_up
        life.answer_all()
        assert [life.replies[ticket].settled for ticket in ("one", "two")] == [is_nas_up, is_nas_up]
        assert not life.process.batches


def test_late_try_that_has_claimed_a_run_keeps_the_host_from_stopping() -> None:
    """The host need not wait for what is tried ever more slowly; for a claim it must (incident W1)."""
    life = Life()
    life.pass_us(10 * 60 * SECOND_US)  # the occurrence is overdue, and the start recovers it
    life.is_store_up = False
    life.happen(AskedToStart("start"))
    life.answer_all()
    while life.is_busy():
        life.ring()
        life.answer_all()
    life.is_store_up = True
    life.ring()
    seen = []
    while life.asked and not life.runs:
        seen.append((type(life.asked[0].effect), life.is_busy()))
        life.answer()
    assert seen == [(LoadJob, False), (SwapJob, True), (ProvisionArm, True)]
    assert life.is_busy()


def test_lease_is_renewed_while_the_process_drains() -> None:
    """A drain waits for runs, which other processes must not take for dead meanwhile (incident D4)."""
    life = Life()
    life.happen(Asked("fire", Fire(job_id="j", fire_at_us=T0)))
    life.answer_all()
    life.happen(AskedToDrain())
    lease_us = life.job.runs[0].lease_until_us if life.job is not None else 0
    life.ring()
    life.answer_all()
    assert life.job is not None
    assert life.job.runs[0].lease_until_us > lease_us
    life.happen(RunEnded(life.runs[0].key, succeeded=True))
    life.answer_all()
    assert life.job.runs == ()


def test_end_of_a_run_that_nas_does_not_hear_of_is_tried_again() -> None:
    """Until NAS agrees; nobody else comes back for it (incident L14)."""
    life = Life(evolve(JOB, policy=Policy(on_interrupt=OnInterrupt.RETRY)))  # whose end moves the arm
    life.happen(Asked("fire", Fire(job_id="j", fire_at_us=T0)))
    life.answer_all()
    life.is_nas_up = False
    life.happen(RunEnded(life.runs[0].key, succeeded=True))
    life.answer_all()
    for _ in range(8):
        assert {each.job_id for each in pending(life.process, life.now)} == {"j"}
        life.ring()
        life.answer_all()
    life.is_nas_up = True
    life.ring()
    life.answer_all()
    assert pending(life.process, life.now) == ()
    assert rings_us(life.process) is None
