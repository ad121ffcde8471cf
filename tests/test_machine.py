"""The tables of the protocol, one rule a test."""

from __future__ import annotations

import attrs
import pytest

from chronos.protocol import machine
from chronos.protocol.job import (
    CLOCK_ALLOWANCE_US,
    LEASE_US,
    Job,
    Liveness,
    OnInterrupt,
    Origin,
    Policy,
    Run,
    Verdict,
)
from chronos.protocol.machine import (
    RECOVERY_MARGIN_US,
    TRANSITIONS,
    Answer,
    ArmAccepted,
    ArmFailed,
    ArmOutdated,
    ArmsListed,
    Begin,
    CancelArm,
    Create,
    Event,
    Finish,
    Fire,
    Flow,
    JobLoaded,
    JobsLoaded,
    JobSwapped,
    ListArms,
    LoadJob,
    LoadJobs,
    Phase,
    ProtocolError,
    ProvisionArm,
    Remove,
    StartRun,
    StoreFailed,
    SwapConflicted,
    SwapJob,
    begin,
    begin_reconciliation,
    differences,
    follow_up,
    step,
    step_reconciliation,
)
from chronos.protocol.schedule import HOUR_US, SECOND_US, Interval

NOON_US = 1_000 * HOUR_US
HOURLY = Interval(period_us=HOUR_US, anchor_us=NOON_US)
JOB = Job(id="job", schedule=HOURLY, next_us=NOON_US)
FIRE = Fire(job_id="job", fire_at_us=NOON_US)
ACCEPTED = ArmAccepted(echoed=True)


def run_of(owner: str = "me", **changes: int) -> Run:
    return attrs.evolve(
        Run(
            occurrence_us=NOON_US,
            attempt=1,
            owner=owner,
            claimed_us=NOON_US,
            lease_until_us=NOON_US + LEASE_US,
        ),
        **changes,
    )


def flow_at(intent: machine.Intent, *events: Event, now_us: int = NOON_US) -> machine.Step:
    """Return a flow and its effects after some events."""
    flow, effects = begin(intent, owner="me")
    for event in events:
        flow, effects = step(flow, event, now_us)
    return flow, effects


EVENTS = (
    JobLoaded(JOB),
    JobSwapped(),
    SwapConflicted(JOB),
    StoreFailed(),
    ACCEPTED,
    ArmOutdated(1),
    ArmFailed(),
    ArmsListed({}),
    JobsLoaded([]),
)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("phase", TRANSITIONS)
def test_event_that_a_phase_does_not_list_is_a_protocol_error(phase: Phase, event: Event) -> None:
    """The table is the whole behaviour: nothing else is taken for granted."""
    if type(event) not in TRANSITIONS[phase]:
        with pytest.raises(ProtocolError, match=str(phase)):
            step(Flow(intent=FIRE, owner="me", phase=phase), event, NOON_US)


def test_fire_moves_the_store_then_arms_then_answers_then_runs() -> None:
    """The three steps, in their order; the run starts last."""
    flow, effects = begin(FIRE, owner="me")
    assert effects == (LoadJob("job"),)
    flow, effects = step(flow, JobLoaded(JOB), NOON_US)
    (swap,) = effects
    assert isinstance(swap, SwapJob)
    assert swap.replacement is not None
    flow, effects = step(flow, JobSwapped(), NOON_US)
    assert effects == (ProvisionArm(job_id="job", fire_at_us=NOON_US + HOUR_US, revision=1),)
    flow, (answer, start) = step(flow, ACCEPTED, NOON_US)
    assert flow.phase is Phase.DONE
    assert isinstance(answer, Answer)
    assert (answer.verdict, answer.settled) == (Verdict.ACCEPTED, True)
    assert start == StartRun(job_id="job", run=swap.replacement.run, confirm=False)


def test_run_starts_though_the_arm_failed_and_the_fire_is_not_settled() -> None:
    """Whoever fires comes back to finish the arm."""
    _, (answer, start) = flow_at(FIRE, JobLoaded(JOB), JobSwapped(), ArmFailed())
    assert isinstance(answer, Answer)
    assert isinstance(start, StartRun)
    assert not answer.settled
    assert start.confirm


def test_redelivery_of_a_half_done_fire_arms_and_runs_nothing() -> None:
    """A duplicate does not assume that the first delivery finished its work (L7)."""
    claimed = attrs.evolve(JOB, next_us=NOON_US + HOUR_US, run=run_of("other"), revision=1)
    _, effects = flow_at(FIRE, JobLoaded(claimed))
    assert effects == (ProvisionArm(job_id="job", fire_at_us=NOON_US + HOUR_US, revision=1),)
    _, (answer,) = flow_at(FIRE, JobLoaded(claimed), ACCEPTED)
    assert isinstance(answer, Answer)
    assert (answer.verdict, answer.settled) == (Verdict.DUPLICATE, True)


def guarded(owner: str) -> Job:
    policy = Policy(on_interrupt=OnInterrupt.RETRY)
    return attrs.evolve(JOB, next_us=NOON_US + HOUR_US, run=run_of(owner), policy=policy, revision=1)


GUARD_US = NOON_US + LEASE_US + CLOCK_ALLOWANCE_US


def test_fire_that_is_the_arm_a_job_still_needs_is_not_accepted() -> None:
    """Accepting it would consume the arm: by this clock, another process's lease is not over yet."""
    fire = Fire(job_id="job", fire_at_us=GUARD_US)
    _, (answer,) = flow_at(fire, JobLoaded(guarded("other")), now_us=GUARD_US - SECOND_US)
    assert isinstance(answer, Answer)
    assert not answer.settled


def test_guard_that_finds_its_run_alive_renews_the_lease() -> None:
    """The end of a run takes a moment to be stored; the arm must move on all the same."""
    fire = Fire(job_id="job", fire_at_us=GUARD_US)
    _, (swap,) = flow_at(fire, JobLoaded(guarded("me"), Liveness.ALIVE), now_us=GUARD_US)
    assert isinstance(swap, SwapJob)
    assert swap.replacement is not None
    assert swap.replacement.run is not None
    assert swap.replacement.run.lease_until_us == GUARD_US + LEASE_US
    assert swap.outcomes == ()


def test_run_whose_lease_ended_before_its_start_is_not_started() -> None:
    """A process that was suspended meanwhile may have been taken for dead."""
    flow, _ = flow_at(FIRE, JobLoaded(JOB), JobSwapped())
    _, effects = step(flow, ACCEPTED, NOON_US + LEASE_US)
    (answer,) = effects
    assert isinstance(answer, Answer)
    assert (answer.verdict, answer.settled) == (Verdict.LOST, False)


def test_conflict_decides_again_with_what_another_process_left() -> None:
    """The claim of the faster process makes this fire a duplicate."""
    claimed = attrs.evolve(JOB, next_us=NOON_US + HOUR_US, run=run_of("other"), revision=1)
    flow, effects = flow_at(FIRE, JobLoaded(JOB), SwapConflicted(claimed))
    assert effects == (ProvisionArm(job_id="job", fire_at_us=NOON_US + HOUR_US, revision=1),)
    assert flow.move is not None
    assert flow.move.verdict is Verdict.DUPLICATE


def test_conflicts_without_end_are_a_broken_store() -> None:
    """The flow gives up and is not settled."""
    flow, effects = flow_at(FIRE, JobLoaded(JOB))
    for _ in range(machine.MAX_CONFLICTS + 1):
        if flow.phase is Phase.DONE:
            break
        flow, effects = step(flow, SwapConflicted(JOB), NOON_US)
    (answer,) = effects
    assert isinstance(answer, Answer)
    assert answer.verdict is None
    assert not answer.settled


def test_outdated_arm_follows_a_store_that_has_moved_on() -> None:
    """What is armed is what the newest job wants."""
    newer = attrs.evolve(JOB, next_us=NOON_US + 5 * HOUR_US, revision=7)
    _, effects = flow_at(FIRE, JobLoaded(JOB), JobSwapped(), ArmOutdated(7), JobLoaded(newer))
    assert effects == (ProvisionArm(job_id="job", fire_at_us=NOON_US + 5 * HOUR_US, revision=7),)


def test_new_life_of_a_job_comes_after_what_nas_remembers() -> None:
    """A job that was removed and created again raises its revision past the earlier life's."""
    create = Create(job_id="job", job=JOB)
    flow, effects = flow_at(create, JobLoaded(None), JobSwapped(), ArmOutdated(9), JobLoaded(JOB))
    (swap,) = effects
    assert isinstance(swap, SwapJob)
    assert swap.replacement == attrs.evolve(JOB, revision=10)
    _, effects = step(flow, JobSwapped(), NOON_US)
    assert effects == (ProvisionArm(job_id="job", fire_at_us=NOON_US, revision=10),)


def test_removal_takes_the_place_after_the_last_revision() -> None:
    """A late provision of the removed job must not revive it."""
    last = attrs.evolve(JOB, revision=4)
    _, effects = flow_at(Remove(job_id="job"), JobLoaded(last), JobSwapped())
    assert effects == (CancelArm(job_id="job", revision=5),)


def test_end_of_a_run_asks_nas_only_where_it_may_disagree() -> None:
    """It does when the claim's arm was not confirmed, and when `wake_at` moves on."""
    claimed = attrs.evolve(JOB, next_us=NOON_US + HOUR_US, run=run_of(), revision=1)
    finish = Finish(job_id="job", run=run_of(), succeeded=True)
    _, (answer,) = flow_at(finish, JobLoaded(claimed), JobSwapped())
    assert isinstance(answer, Answer)
    assert answer.settled
    for intent, job in (
        (attrs.evolve(finish, confirm=True), claimed),
        (finish, attrs.evolve(claimed, policy=Policy(on_interrupt=OnInterrupt.RETRY))),
    ):
        _, (ask,) = flow_at(intent, JobLoaded(job), JobSwapped())
        assert ask == ProvisionArm(job_id="job", fire_at_us=NOON_US + HOUR_US, revision=2)


def test_what_nobody_else_repeats_is_owed() -> None:
    """A fire is NAS's to repeat, a change is its asker's; the end of a run has nobody."""
    unsettled = Answer(job_id="job", verdict=Verdict.CHANGED, reason="", settled=False)
    failed = attrs.evolve(unsettled, verdict=None)
    finish = Finish(job_id="job", run=run_of(), succeeded=True)
    recovery = Fire(job_id="job", fire_at_us=NOON_US - RECOVERY_MARGIN_US, origin=Origin.RECOVERY)
    assert follow_up(FIRE, unsettled, NOON_US) is None
    assert follow_up(Remove(job_id="job"), unsettled, NOON_US) is None
    assert follow_up(finish, attrs.evolve(unsettled, settled=True), NOON_US) is None
    assert follow_up(finish, failed, NOON_US) == attrs.evolve(finish, confirm=True)
    assert follow_up(finish, unsettled, NOON_US) == recovery
    assert follow_up(recovery, unsettled, NOON_US) == recovery


def wanting(*jobs: tuple[Job, Liveness], arms: dict[str, int | None] | None, now_us: int = 0) -> list[str]:
    return [fire.job_id for fire in differences(jobs, arms, now_us)]


def test_start_finds_every_difference() -> None:
    """A wrong arm, none, one too many, one of a job that is gone, and one that cannot be read."""
    alone = (JOB, Liveness.UNKNOWN)
    paused = (attrs.evolve(JOB, next_us=None), Liveness.UNKNOWN)
    assert wanting(alone, arms={"job": NOON_US}) == []
    assert wanting(alone, arms={"job": NOON_US + 1}) == ["job"]
    assert wanting(alone, arms={"job": None}) == ["job"]
    assert wanting(alone, arms={}) == ["job"]
    assert wanting(paused, arms={"job": NOON_US}) == ["job"]
    assert wanting(paused, arms={}) == []
    assert wanting(arms={"gone": NOON_US}) == ["gone"]


def test_start_looks_after_what_is_overdue_or_abandoned_though_nas_cannot_say() -> None:
    """What the store shows alone needs no list."""
    unknown = Liveness.UNKNOWN
    assert wanting((JOB, unknown), arms=None) == []
    assert wanting((JOB, unknown), arms={"job": NOON_US}, now_us=NOON_US + RECOVERY_MARGIN_US - 1) == []
    assert wanting((JOB, unknown), arms=None, now_us=NOON_US + RECOVERY_MARGIN_US) == ["job"]
    last = attrs.evolve(JOB, next_us=None, run=run_of("other"))
    assert wanting((last, unknown), arms=None, now_us=NOON_US) == []
    assert wanting((last, unknown), arms=None, now_us=GUARD_US) == ["job"]
    assert wanting((last, Liveness.DEAD), arms=None, now_us=NOON_US) == ["job"]
    assert wanting((last, Liveness.ALIVE), arms=None, now_us=GUARD_US) == []


def test_reconciliation_lists_then_reads_then_begins() -> None:
    """One list call; jobs that this process is at work on converge by themselves."""
    start, effects = begin_reconciliation()
    assert effects == (ListArms(),)
    start, effects = step_reconciliation(start, ArmsListed({}), NOON_US)
    assert effects == (LoadJobs(),)
    jobs = [(JOB, Liveness.UNKNOWN), (attrs.evolve(JOB, id="busy"), Liveness.UNKNOWN)]
    start, (begun,) = step_reconciliation(start, JobsLoaded(jobs, {"busy"}), NOON_US)
    assert start.phase is Phase.DONE
    assert isinstance(begun, Begin)
    assert ([intent.job_id for intent in begun.intents], begun.settled) == (["job"], True)
    with pytest.raises(ProtocolError):
        step_reconciliation(start, ArmFailed(), NOON_US)


def test_reconciliation_that_cannot_list_is_not_settled() -> None:
    """It says so, and remembers nothing."""
    start, _ = begin_reconciliation()
    start, _ = step_reconciliation(start, ArmFailed(), NOON_US)
    _, (begun,) = step_reconciliation(start, JobsLoaded([]), NOON_US)
    assert isinstance(begun, Begin)
    assert begun == Begin((), settled=False)
