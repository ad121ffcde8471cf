"""A time limit per run: the run ends at it, whatever its runner does."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import attrs
import pytest

from chronos import Overlap, Policy, ScheduleError
from chronos.agent.runner import RunContext
from chronos.jobs.instants import HOUR_US, MINUTE_US, SECOND_US
from chronos.jobs.job import Job, Result, Verdict
from chronos.jobs.policy import MAX_TIME_LIMIT_US
from chronos.protocol.intents import Create
from chronos.stores.record import read_document
from tests.agents import PATIENCE_S, T0, MakeWorld, World, at, every_hour, until, until_async
from tests.model import world as model
from tests.test_record import cron_record, refusal, text_of

SHORT_US = SECOND_US // 10
LIMITED = Policy(time_limit_us=SHORT_US)
TOO_LONG = (Result.FAILED, "timed out after 0.1 s")


@attrs.define
class Slow:
    """A runner that goes on until it is released, and what it came to know."""

    release: threading.Event = attrs.field(factory=threading.Event)
    contexts: list[RunContext] = attrs.field(factory=list)
    cancelled: int = 0

    def block(self, context: RunContext) -> None:
        self.contexts.append(context)
        assert self.release.wait(PATIENCE_S)

    async def wait(self, context: RunContext) -> None:
        self.contexts.append(context)
        try:
            await until_async(self.release.is_set)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def wait_on(self, context: RunContext) -> None:
        """Do not end when it is told to."""
        self.contexts.append(context)
        while not self.release.is_set():
            try:
                await asyncio.sleep(0.002)
            except asyncio.CancelledError:
                self.cancelled += 1

    def wait_later(self, context: RunContext) -> Any:
        """Return something to await, as a partial function or a decorated one does."""
        return self.wait(context)


@pytest.fixture
def slow(make_world: MakeWorld) -> Iterator[Slow]:  # noqa: ARG001 - at its end no runner may be left
    runner = Slow()
    yield runner
    runner.release.set()


every_kind = pytest.mark.parametrize("how", ["block", "wait", "wait_on", "wait_later"])


def limited(world: World, at_us: int = T0) -> None:
    """Fire a job, and wait until its run has timed out."""
    ended = len(world.outcomes())
    assert world.agent.fire("j", at_us).verdict is Verdict.ACCEPTED
    until(lambda: len(world.outcomes()) > ended)
    world.quiet()


@every_kind
def test_run_that_lasts_too_long_ends_failed_and_its_slot_is_free(
    how: str, slow: Slow, make_world: MakeWorld
) -> None:
    """Whatever the runner does: the lease is released, and the next occurrence starts."""
    world = make_world(every_hour(policy=LIMITED), runner=getattr(slow, how))
    limited(world)
    assert world.outcomes() == [TOO_LONG]
    job = world.job()
    assert (job.runs, job.waiting, job.next_us, job.completed) == ((), (), T0 + HOUR_US, 1)
    assert world.nas.arms == {"j": at(HOUR_US)}
    world.now_us = T0 + HOUR_US
    limited(world, world.now_us)
    assert [context.occurrence_us for context in slow.contexts] == [T0, T0 + HOUR_US]
    assert world.outcomes() == [TOO_LONG, TOO_LONG]


@pytest.mark.parametrize("how", ["wait", "wait_on", "wait_later"])
def test_async_runner_is_cancelled_once_at_the_limit(
    how: str, slow: Slow, make_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """Below either scheduler; one that does not want to end is not told again and again.

    To be cancelled is no failure with a traceback of its own.
    """
    world = make_world(every_hour(policy=LIMITED), runner=getattr(slow, how))
    limited(world)
    until(lambda: slow.cancelled)
    assert slow.cancelled == 1
    slow.release.set()
    until(lambda: not world.agent.pending())
    assert slow.cancelled == 1
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_blocking_runner_sees_that_its_time_is_over(make_world: MakeWorld) -> None:
    """It waits with an event instead of sleeping, and ends by itself."""
    saw: list[tuple[bool, bool]] = []

    def runs(context: RunContext) -> None:
        before = context.timed_out.is_set()
        saw.append((before, context.timed_out.wait(PATIENCE_S)))

    world = make_world(every_hour(policy=LIMITED), runner=runs)
    limited(world)
    until(lambda: saw)
    assert saw == [(False, True)]


@every_kind
@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
def test_what_comes_too_late_changes_nothing_and_is_logged_once(
    how: str, fails: bool, slow: Slow, make_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the history nor the job, whether the runner returns or raises."""
    runner: Callable[[RunContext], Any] = getattr(slow, how)

    def block(context: RunContext) -> None:
        runner(context)
        if fails:
            raise ValueError("too late")

    async def wait(context: RunContext) -> None:
        await runner(context)
        if fails:
            raise ValueError("too late")

    world = make_world(every_hour(policy=LIMITED), runner=block if how == "block" else wait)
    limited(world)
    before = world.job()
    slow.release.set()
    until(lambda: not world.agent.pending())
    late = [record for record in caplog.records if "ended too late" in record.getMessage()]
    assert len(late) == 1
    assert late[0].levelno == logging.WARNING
    assert vars(late[0])["job_id"] == "j"
    if how in ("block", "wait_on"):
        assert late[0].getMessage().endswith("ValueError: too late" if fails else "as it should")
    assert world.job() == before
    assert world.outcomes() == [TOO_LONG]


@pytest.mark.parametrize("how", ["block", "wait_on"])
def test_host_may_stop_while_a_runner_goes_on_too_long(how: str, slow: Slow, make_world: MakeWorld) -> None:
    """It is told of the runner, and neither it nor a drain has to wait for it."""
    world = make_world(every_hour(policy=LIMITED), runner=getattr(slow, how))
    limited(world)
    (left,) = world.agent.pending()
    assert (left.job_id, left.is_busy) == ("j", False)
    assert left.reason == f"the run of {at(0)} timed out after 0.1 s, and its runner goes on"
    assert world.agent.status().may_stop
    assert world.agent.drain() == (left,)
    slow.release.set()
    until(lambda: not world.agent.pending())


def test_drain_waits_for_a_run_until_its_limit(slow: Slow, make_world: MakeWorld) -> None:
    """A run that may still end is waited for; at its limit it has ended, and was recorded."""
    world = make_world(every_hour(policy=LIMITED), runner=slow.block)
    world.agent.fire("j", T0)
    assert not [each for each in world.agent.drain() if each.is_busy]
    assert world.outcomes() == [TOO_LONG]


def test_run_that_timed_out_is_tried_again_like_any_that_fails(slow: Slow, make_world: MakeWorld) -> None:
    """With attempts left it waits for the next one, which has the whole time again."""
    policy = attrs.evolve(LIMITED, attempts=2, retry_delay_us=MINUTE_US)
    world = make_world(every_hour(policy=policy), runner=slow.block)
    world.agent.fire("j", T0)
    until(lambda: world.job().waiting)
    assert world.outcomes() == []
    (waiting,) = world.job().waiting
    assert waiting.attempt == 2
    world.quiet()
    world.now_us = waiting.not_before_us
    limited(world, world.now_us)
    assert world.outcomes() == [TOO_LONG]
    assert [context.attempt for context in slow.contexts] == [1, 2]


def test_what_waited_for_a_run_starts_at_its_limit(slow: Slow, make_world: MakeWorld) -> None:
    """A run by hand that was queued behind it does not wait for its runner."""
    world = make_world(every_hour(policy=attrs.evolve(LIMITED, overlap=Overlap.QUEUE)), runner=slow.block)
    world.agent.fire("j", T0)
    world.agent.run_now("j")
    until(lambda: len(world.outcomes()) == 2)
    assert world.outcomes() == [TOO_LONG, TOO_LONG]
    assert len(slow.contexts) == 2


@pytest.mark.parametrize("policy", [Policy(), Policy(time_limit_us=HOUR_US)])
def test_run_that_ends_in_time_is_as_without_a_limit(policy: Policy, make_world: MakeWorld) -> None:
    """It has its own result, and was told of no end."""
    world = make_world(every_hour(policy=policy))
    world.agent.fire("j", T0)
    world.settle()
    assert world.outcomes() == [(Result.COMPLETED, "")]
    (context,) = world.ran
    assert not context.timed_out.is_set()
    assert (context.deadline_s is None) is (policy.time_limit_us is None)
    assert world.agent.pending() == ()


def test_clock_that_is_set_does_not_end_a_run(make_world: MakeWorld) -> None:
    """The time of a run is measured by a clock that only goes on."""
    world = make_world(every_hour(policy=Policy(time_limit_us=HOUR_US)))
    world.agent.fire("j", T0)
    until(lambda: world.ran)
    world.now_us = T0 + 5 * HOUR_US
    world.settle()
    assert world.outcomes() == [(Result.COMPLETED, "")]


def test_another_process_does_not_end_a_run_at_its_limit(make_world: MakeWorld) -> None:
    """A lease that is not over is believed, however long the run has lasted by the other's clock."""
    world = make_world(every_hour(policy=Policy(time_limit_us=60 * SECOND_US)))
    world.agent.fire("j", T0)
    until(lambda: world.ran)
    world.now_us = T0 + 200 * SECOND_US
    other = world.another()
    other.start()
    assert other.fire("j", T0).verdict is Verdict.DUPLICATE
    assert len(world.job().runs) == 1
    assert world.outcomes() == []
    world.settle()
    assert world.outcomes() == [(Result.COMPLETED, "")]


def test_process_that_dies_before_the_limit_leaves_an_interruption(make_world: MakeWorld) -> None:
    """As without a limit: who finds the run knows nothing of how long it lasted."""
    world = make_world(every_hour(policy=Policy(time_limit_us=60 * SECOND_US)))
    world.agent.fire("j", T0)
    until(lambda: world.ran)
    world.dead.add("me")
    world.another().start()
    assert world.outcomes() == [
        (Result.INTERRUPTED, "its process ended before it was stored how the run ended")
    ]


def test_policy_of_the_claim_holds_for_the_run(slow: Slow, make_world: MakeWorld) -> None:
    """An edit during a run is for the next one."""
    world = make_world(every_hour(policy=Policy(time_limit_us=HOUR_US)), runner=slow.block)
    world.agent.fire("j", T0)
    until(lambda: slow.contexts)
    world.agent.edit("j", policy=LIMITED)
    slow.release.set()
    world.quiet()
    assert world.outcomes() == [(Result.COMPLETED, "")]


@pytest.mark.parametrize("runner_first", [False, True])
@pytest.mark.parametrize("succeeded", [False, True])
def test_run_that_ends_at_its_limit_has_one_outcome(runner_first: bool, succeeded: bool) -> None:
    """Whichever of the two the process looks at first."""
    world = model.World()
    job = Job(id="j", schedule=every_hour().schedule, next_us=T0, policy=Policy(time_limit_us=MINUTE_US))
    process = world.up(world.processes[0])
    world.go_on(world.ask(process, Create(job_id="j", job=job)), model.ALL)
    world.go_on(world.deliver(process, world.due()[0]), model.ALL)
    everything(world)
    (strand,) = world.executing()
    world.now_us += MINUTE_US + SECOND_US
    (alarm,) = world.ready()
    world.end_run(strand, succeeded=succeeded)
    for each in (strand, alarm) if runner_first else (alarm, strand):
        world.go_on(each, model.ALL)
    everything(world)
    (outcome,) = world.store.history("j")
    if runner_first:
        assert outcome.result is (Result.COMPLETED if succeeded else Result.FAILED)
        assert outcome.reason == ("" if succeeded else "it failed")
    else:
        assert (outcome.result, outcome.reason) == (Result.FAILED, "timed out after 60 s")
    assert world.pending(process) == ()
    assert not world.expected["j"].faults
    for each in world.processes:
        world.end_life(each)


def everything(world: model.World) -> None:
    while ready := world.ready():
        world.go_on(ready[0], model.ALL)


def test_context_of_a_run_can_be_sent_to_another_process() -> None:
    """A runner may hand its work to a pool; what is sent there is a copy that nobody tells anything."""
    context = RunContext(job_id="j", occurrence_us=T0, attempt=1, data={"a": [1]}, deadline_s=1.5)
    context.timed_out.set()
    for again in (pickle.loads(pickle.dumps(context)), copy.deepcopy(context)):
        assert again == context
        assert not again.timed_out.is_set()


# --- the policy -------------------------------------------------------------------------------


@pytest.mark.parametrize("limit_us", [0, -1, 1.5, True, "5", MAX_TIME_LIMIT_US + 1])
def test_time_limit_that_is_none_is_refused(limit_us: Any) -> None:
    """A limit of nothing would fail every run."""
    with pytest.raises(ScheduleError, match="time_limit_us"):
        Policy(time_limit_us=limit_us)


def test_time_limit_is_given_and_read_as_a_timedelta() -> None:
    """By people, as durations are everywhere."""
    policy = Policy(time_limit=timedelta(minutes=5))
    assert (policy.time_limit_us, policy.time_limit) == (5 * MINUTE_US, timedelta(minutes=5))
    assert Policy().time_limit is None
    for limit in (timedelta(0), timedelta(days=400), -timedelta(seconds=1)):
        with pytest.raises(ScheduleError, match="time_limit"):
            Policy(time_limit=limit)


def test_time_limit_of_a_jobs_file_is_in_seconds() -> None:
    """People write seconds, and half of one is a number as well."""
    text = text_of(cron_record(policy={"time_limit_seconds": 90.5}))
    (job,) = read_document(text, source="jobs.json").jobs
    assert job.policy.time_limit_us == 90_500_000


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        ({"time_limit_seconds": 0}, "policy.time_limit_seconds: expected more than zero"),
        ({"time_limit_seconds": "90"}, "policy.time_limit_seconds: expected a number"),
        (
            {"time_limit_seconds": 40_000_000},
            "policy.time_limit_seconds: time_limit_us is longer than a year",
        ),
        ({"time_limit_us": 90}, "policy.time_limit_us: no such choice; did you mean time_limit_seconds?"),
        (
            {"time_limit": 90},
            "policy.time_limit: no such choice; did you mean time_limit_seconds?",
        ),
        ({"timeout_seconds": 90}, "policy.timeout_seconds: no such choice"),
    ],
)
def test_time_limit_that_a_jobs_file_cannot_mean_is_refused(policy: Any, problem: str) -> None:
    """With its place; a name that is nearly right is no default."""
    assert problem in refusal(text_of(cron_record(policy=policy)))
