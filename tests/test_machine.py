"""The tables of the protocol, one rule a test."""

from __future__ import annotations

import attrs
import pytest

from chronos.jobs.instants import HOUR_US, MINUTE_US, SECOND_US
from chronos.jobs.job import (
    CLOCK_ALLOWANCE_US,
    LEASE_US,
    Job,
    JobState,
    Liveness,
    Origin,
    Result,
    Run,
    Verdict,
    Waiting,
)
from chronos.jobs.policy import OnInterrupt, Overlap, Policy
from chronos.jobs.schedule import Interval
from chronos.protocol import flow as flows
from chronos.protocol.clocks import CLOCK_MARGIN_US
from chronos.protocol.draft import Fired
from chronos.protocol.flow import TRANSITIONS, Flow, Phase, ProtocolError, begin, holds, step
from chronos.protocol.flow_effects import (
    Answer,
    ArmAccepted,
    ArmFailed,
    ArmOutdated,
    ArmsListed,
    Begin,
    CancelArm,
    Event,
    JobLoaded,
    JobsLoaded,
    JobSwapped,
    JobUnreadable,
    ListArms,
    LoadJob,
    LoadJobs,
    ProvisionArm,
    StartRun,
    StoreFailed,
    SwapConflicted,
    SwapJob,
)
from chronos.protocol.follow_ups import follow_up
from chronos.protocol.intents import Create, Edit, Finish, Fire, Intent, Pause, Remove, Renew, Resume, RunNow
from chronos.protocol.job_changes import Changes
from chronos.protocol.reconciliation import begin_reconciliation, differences, step_reconciliation
from chronos.values import evolve

NOON_US = 1_000 * HOUR_US
HOURLY = Interval(period_us=HOUR_US, anchor_us=NOON_US)
JOB = Job(id="job", schedule=HOURLY, next_us=NOON_US)
FIRE = Fire(job_id="job", fire_at_us=NOON_US)
ACCEPTED = ArmAccepted(echoed=True)


def run_of(owner: str = "me", **changes: int) -> Run:
    return evolve(
        Run(
            occurrence_us=NOON_US,
            attempt=1,
            owner=owner,
            claimed_us=NOON_US,
            lease_until_us=NOON_US + LEASE_US,
        ),
        **changes,
    )


def flow_at(intent: Intent, *events: Event, now_us: int = NOON_US) -> flows.Step:
    """Return a flow and its effects after some events."""
    flow, effects = begin(intent, owner="me", now_us=now_us)
    for event in events:
        flow, effects = step(flow, event, now_us)
    return flow, effects


EVENTS = (
    JobLoaded(JOB),
    JobUnreadable("no schedule"),
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
    flow, effects = begin(FIRE, owner="me", now_us=NOON_US)
    assert effects == (LoadJob("job"),)
    flow, effects = step(flow, JobLoaded(JOB), NOON_US)
    (swap,) = effects
    assert isinstance(swap, SwapJob)
    assert swap.replacement is not None
    (run,) = swap.replacement.runs
    flow, effects = step(flow, JobSwapped(), NOON_US)
    assert effects == (ProvisionArm(job_id="job", fire_at_us=NOON_US + HOUR_US, revision=1),)
    flow, (answer, start) = step(flow, ACCEPTED, NOON_US)
    assert flow.phase is Phase.DONE
    assert isinstance(answer, Answer)
    assert (answer.verdict, answer.settled) == (Verdict.ACCEPTED, True)
    assert start == StartRun(job_id="job", run=run, confirm=False)


def test_run_starts_with_the_limit_and_the_data_of_its_job() -> None:
    """As they stand when it starts; and at the limit it ends as a run that fails."""
    job = evolve(JOB, policy=Policy(time_limit_us=90 * SECOND_US), data_json='{"a":1}')
    _, (_, start) = flow_at(FIRE, JobLoaded(job), JobSwapped(), ACCEPTED)
    assert isinstance(start, StartRun)
    assert (start.time_limit_us, start.data_json) == (90 * SECOND_US, '{"a":1}')
    finish = flows.timed_out(evolve(start, confirm=True))
    reason = "timed out after 90 s"
    assert finish == Finish(job_id="job", run=start.run, succeeded=False, detail=reason, confirm=True)


def test_run_starts_though_the_arm_failed_and_the_fire_is_not_settled() -> None:
    """Whoever fires comes back to finish the arm."""
    _, (answer, start) = flow_at(FIRE, JobLoaded(JOB), JobSwapped(), ArmFailed())
    assert isinstance(answer, Answer)
    assert isinstance(start, StartRun)
    assert not answer.settled
    assert start.confirm


def test_redelivery_of_a_half_done_fire_arms_and_runs_nothing() -> None:
    """A duplicate does not assume that the first delivery finished its work (L7)."""
    claimed = evolve(JOB, next_us=NOON_US + HOUR_US, runs=(run_of("other"),), revision=1)
    _, effects = flow_at(FIRE, JobLoaded(claimed))
    assert effects == (ProvisionArm(job_id="job", fire_at_us=NOON_US + HOUR_US, revision=1),)
    _, (answer,) = flow_at(FIRE, JobLoaded(claimed), ACCEPTED)
    assert isinstance(answer, Answer)
    assert (answer.verdict, answer.settled) == (Verdict.DUPLICATE, True)


def guarded(owner: str) -> Job:
    policy = Policy(on_interrupt=OnInterrupt.RETRY)
    return evolve(JOB, next_us=NOON_US + HOUR_US, runs=(run_of(owner),), policy=policy, revision=1)


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
    _, (swap,) = flow_at(fire, JobLoaded(guarded("me"), (Liveness.ALIVE,)), now_us=GUARD_US)
    assert isinstance(swap, SwapJob)
    assert swap.replacement is not None
    (run,) = swap.replacement.runs
    assert run.lease_until_us == GUARD_US + LEASE_US
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
    claimed = evolve(JOB, next_us=NOON_US + HOUR_US, runs=(run_of("other"),), revision=1)
    flow, effects = flow_at(FIRE, JobLoaded(JOB), SwapConflicted(claimed))
    assert effects == (ProvisionArm(job_id="job", fire_at_us=NOON_US + HOUR_US, revision=1),)
    assert flow.move is not None
    assert flow.move.verdict is Verdict.DUPLICATE


def test_conflicts_without_end_are_a_broken_store() -> None:
    """The flow gives up and is not settled."""
    flow, effects = flow_at(FIRE, JobLoaded(JOB))
    for _ in range(flows.MAX_CONFLICTS + 1):
        if flow.phase is Phase.DONE:
            break
        flow, effects = step(flow, SwapConflicted(JOB), NOON_US)
    (answer,) = effects
    assert isinstance(answer, Answer)
    assert answer.verdict is None
    assert not answer.settled


def test_outdated_arm_follows_a_store_that_has_moved_on() -> None:
    """What is armed is what the newest job wants."""
    newer = evolve(JOB, next_us=NOON_US + 5 * HOUR_US, revision=7)
    _, effects = flow_at(FIRE, JobLoaded(JOB), JobSwapped(), ArmOutdated(7), JobLoaded(newer))
    assert effects == (ProvisionArm(job_id="job", fire_at_us=NOON_US + 5 * HOUR_US, revision=7),)


def test_new_life_of_a_job_begins_after_every_earlier_one() -> None:
    """Its revisions begin with the present instant."""
    create = Create(job_id="job", job=JOB)
    _, effects = flow_at(create, JobLoaded(None), JobSwapped())
    assert effects == (ProvisionArm(job_id="job", fire_at_us=NOON_US, revision=NOON_US),)


def test_new_life_of_a_job_comes_after_what_nas_remembers() -> None:
    """Where a clock was behind, the job raises its revision past the earlier life's."""
    born = evolve(JOB, revision=NOON_US)
    known = NOON_US + 9
    create = Create(job_id="job", job=JOB)
    flow, effects = flow_at(create, JobLoaded(None), JobSwapped(), ArmOutdated(known), JobLoaded(born))
    (swap,) = effects
    assert isinstance(swap, SwapJob)
    assert swap.replacement == evolve(JOB, revision=known + 1)
    _, effects = step(flow, JobSwapped(), NOON_US)
    assert effects == (ProvisionArm(job_id="job", fire_at_us=NOON_US, revision=known + 1),)


def test_removal_takes_the_place_after_the_last_revision() -> None:
    """A late provision of the removed job must not revive it."""
    last = evolve(JOB, revision=4)
    _, effects = flow_at(Remove(job_id="job"), JobLoaded(last), JobSwapped())
    assert effects == (CancelArm(job_id="job", revision=5),)


def test_pause_disarms_the_job() -> None:
    """The cancel has the place of the change in the order, so that a resume comes after it."""
    _, effects = flow_at(Pause(job_id="job"), JobLoaded(JOB), JobSwapped())
    assert effects == (CancelArm(job_id="job", revision=1),)


def test_cancel_of_an_arm_without_a_job_takes_the_instant_at_which_it_looked() -> None:
    """It comes after every life that had ended, and before a life that has begun since."""
    for intent in (FIRE, Remove(job_id="job")):
        flow, _ = begin(intent, owner="me", now_us=NOON_US)
        _, effects = step(flow, JobLoaded(None), NOON_US + 9)
        assert effects == (CancelArm(job_id="job", revision=NOON_US),)


def test_cancel_of_an_arm_without_a_job_comes_after_what_nas_remembers() -> None:
    """Where this clock is behind, asking again passes the revision that NAS names."""
    _, effects = flow_at(FIRE, JobLoaded(None), ArmOutdated(NOON_US + 9), JobLoaded(None))
    assert effects == (CancelArm(job_id="job", revision=NOON_US + 10),)


def test_run_of_a_job_that_was_removed_meanwhile_is_not_started() -> None:
    """NAS told of the newer revision, and the store does not hold the claim any more: nor does a new job."""
    for found in (None, evolve(JOB, revision=NOON_US, next_us=NOON_US + HOUR_US)):
        told = (ArmOutdated(NOON_US), JobLoaded(found), ArmAccepted(echoed=True))
        _, effects = flow_at(FIRE, JobLoaded(JOB), JobSwapped(), *told)
        assert [type(effect) for effect in effects] == [Answer]


CHANGED = evolve(JOB, revision=1)
QUEUE = Policy(overlap=Overlap.QUEUE)
QUEUED = evolve(
    JOB,
    next_us=NOON_US + 2 * HOUR_US,
    runs=(run_of(),),
    waiting=(
        Waiting(
            occurrence_us=NOON_US + HOUR_US,
            attempt=1,
            not_before_us=NOON_US + HOUR_US,
            origin=Origin.SCHEDULE,
        ),
    ),
    policy=QUEUE,
)
LATER_US = NOON_US + HOUR_US + MINUTE_US


@pytest.mark.parametrize(
    ("intent", "before", "after"),
    [
        (Pause(job_id="job", note="why"), JOB, evolve(CHANGED, state=JobState.PAUSED, note="why")),
        (Resume(job_id="job"), evolve(JOB, state=JobState.PAUSED), CHANGED),
        (
            Resume(job_id="job", from_now=True),
            evolve(JOB, state=JobState.PAUSED),
            evolve(
                CHANGED,
                schedule=attrs.evolve(HOURLY, anchor_us=NOON_US - SECOND_US),
                next_us=NOON_US + HOUR_US - SECOND_US,
            ),
        ),
        (Edit(job_id="job", changes=Changes(times=2)), JOB, evolve(CHANGED, times=2)),
        (
            Renew(job_id="job", run=run_of()),
            evolve(JOB, runs=(run_of(),)),
            evolve(CHANGED, runs=(run_of(lease_until_us=NOON_US - 1 + 2 * LEASE_US),)),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_change_moves_the_store_as_its_transition_says(intent: Intent, before: Job, after: Job) -> None:
    """Each intent asks the transition of its name, with all that it carries."""
    now_us = NOON_US - 1 + (LEASE_US if isinstance(intent, Renew) else 0)
    _, (swap,) = flow_at(intent, JobLoaded(before), now_us=now_us)
    assert swap == SwapJob(job_id="job", expected=before, replacement=after)


def test_run_by_hand_is_claimed_armed_answered_and_started() -> None:
    """It takes part in the same three steps as a fire, and in the same claim."""
    asked_us = NOON_US - MINUTE_US
    flow, (swap,) = flow_at(RunNow(job_id="job", asked_us=asked_us), JobLoaded(JOB), now_us=asked_us)
    assert isinstance(swap, SwapJob)
    assert swap.replacement is not None
    (run,) = swap.replacement.runs
    assert (run.origin, run.owner) == (Origin.MANUAL, "me")
    flow, (arm,) = step(flow, JobSwapped(), asked_us)
    assert arm == ProvisionArm(job_id="job", fire_at_us=NOON_US, revision=1)
    _, (_, start) = step(flow, ACCEPTED, asked_us)
    assert start == StartRun(job_id="job", run=run, confirm=False)


def test_run_by_hand_looks_after_a_run_that_has_died() -> None:
    """What is known of the owners goes with the job."""
    intent = RunNow(job_id="job", asked_us=NOON_US - 1)
    running = evolve(JOB, runs=(run_of("other"),))
    _, (swap,) = flow_at(intent, JobLoaded(running, (Liveness.DEAD,)), now_us=NOON_US - 1)
    assert isinstance(swap, SwapJob)
    assert [outcome.result for outcome in swap.outcomes] == [Result.INTERRUPTED]


def test_end_of_a_run_starts_what_waited_for_it() -> None:
    """The successor starts when store and NAS agree, like a run that a fire claims."""
    finish = Finish(job_id="job", run=run_of(), succeeded=True)
    flow, effects = flow_at(finish, JobLoaded(QUEUED), JobSwapped(), ACCEPTED, now_us=LATER_US)
    (answer, start) = effects
    assert isinstance(answer, Answer)
    assert isinstance(start, StartRun)
    assert start.run.occurrence_us == NOON_US + HOUR_US
    assert holds(flow, start.run)
    assert holds(flow, run_of())
    assert not holds(flow, run_of(attempt=2))


def test_end_of_a_run_that_may_start_nothing_arms_for_what_waits() -> None:
    """Whoever NAS fires next starts it, at once."""
    finish = Finish(job_id="job", run=run_of(), succeeded=True, may_start=False)
    _, effects = flow_at(finish, JobLoaded(QUEUED), JobSwapped(), now_us=LATER_US)
    assert effects == (ProvisionArm(job_id="job", fire_at_us=LATER_US, revision=1),)


def test_fire_to_a_process_that_takes_nothing_is_not_accepted() -> None:
    """It is the arm that brings somebody else, and NAS must repeat it."""
    _, (answer,) = flow_at(evolve(FIRE, may_start=False), JobLoaded(JOB))
    assert isinstance(answer, Answer)
    assert not answer.settled


def test_recovery_arms_an_instant_that_has_passed() -> None:
    """Nobody repeats it, so it must leave an arm: NAS fires a past instant at once."""
    recovery = Fire(job_id="job", fire_at_us=NOON_US, fired=Fired(origin=Origin.RECOVERY), may_start=False)
    _, effects = flow_at(recovery, JobLoaded(JOB))
    assert effects == (ProvisionArm(job_id="job", fire_at_us=NOON_US, revision=0),)


def test_only_the_runs_whose_lease_is_over_are_not_started() -> None:
    """Each claim is looked at by itself; one that is lost makes the whole unsettled."""
    flow, _ = flow_at(FIRE, JobLoaded(JOB), JobSwapped())
    assert flow.move is not None
    longer = run_of("me", occurrence_us=NOON_US - HOUR_US, lease_until_us=NOON_US + HOUR_US)
    flow = evolve(flow, move=evolve(flow.move, runs=(*flow.move.runs, longer)))
    _, (answer, *starts) = step(flow, ACCEPTED, NOON_US + LEASE_US)
    assert isinstance(answer, Answer)
    assert (answer.verdict, answer.settled) == (Verdict.LOST, False)
    assert [start.run for start in starts if isinstance(start, StartRun)] == [longer]


def test_end_of_a_run_asks_nas_only_where_it_may_disagree() -> None:
    """It does when the claim's arm was not confirmed, and when `wake_at` moves on."""
    claimed = evolve(JOB, next_us=NOON_US + HOUR_US, runs=(run_of(),), revision=1)
    finish = Finish(job_id="job", run=run_of(), succeeded=True)
    _, (answer,) = flow_at(finish, JobLoaded(claimed), JobSwapped())
    assert isinstance(answer, Answer)
    assert answer.settled
    for intent, job in (
        (evolve(finish, confirm=True), claimed),
        (finish, evolve(claimed, policy=Policy(on_interrupt=OnInterrupt.RETRY))),
    ):
        _, (ask,) = flow_at(intent, JobLoaded(job), JobSwapped())
        assert ask == ProvisionArm(job_id="job", fire_at_us=NOON_US + HOUR_US, revision=2)


def test_what_nobody_else_repeats_is_owed() -> None:
    """A fire is NAS's to repeat; the end of a run has nobody, and whoever changed a job may be gone."""
    unsettled = Answer(job_id="job", verdict=Verdict.CHANGED, reason="", settled=False)
    failed = evolve(unsettled, verdict=None)
    finish = Finish(job_id="job", run=run_of(), succeeded=True)
    overdue_us = NOON_US - CLOCK_MARGIN_US
    recovery = Fire(job_id="job", fire_at_us=overdue_us, fired=Fired(origin=Origin.RECOVERY))
    assert follow_up(FIRE, unsettled, NOON_US) is None
    assert follow_up(Remove(job_id="job"), unsettled, NOON_US) == recovery
    assert follow_up(Remove(job_id="job"), failed, NOON_US) is None
    assert follow_up(finish, evolve(unsettled, settled=True), NOON_US) is None
    assert follow_up(finish, failed, NOON_US) == evolve(finish, confirm=True)
    assert follow_up(finish, unsettled, NOON_US) == recovery
    assert follow_up(recovery, unsettled, NOON_US) == recovery


def test_end_that_is_lost_when_it_is_repeated_is_looked_after() -> None:
    """Its first try may have been stored with the claim of what waited, which nobody has started."""
    lost = Answer(job_id="job", verdict=Verdict.LOST, reason="", settled=True)
    finish = Finish(job_id="job", run=run_of(), succeeded=True, confirm=True)
    overdue_us = NOON_US - CLOCK_MARGIN_US
    recovery = Fire(job_id="job", fire_at_us=overdue_us, fired=Fired(origin=Origin.RECOVERY))
    assert follow_up(finish, lost, NOON_US) == recovery
    assert follow_up(evolve(finish, confirm=False), lost, NOON_US) is None
    claimed = evolve(QUEUED, next_us=None, runs=(run_of(),), waiting=())
    _, (swap,) = flow_at(recovery, JobLoaded(claimed, (Liveness.DEAD,)))
    assert isinstance(swap, SwapJob)
    assert [outcome.result for outcome in swap.outcomes] == [Result.INTERRUPTED]


def wanting(*jobs: tuple[Job, Liveness], arms: dict[str, int | None] | None, now_us: int = 0) -> list[str]:
    each = [(job, (liveness,) * len(job.runs)) for job, liveness in jobs]
    return [fire.job_id for fire in differences(each, arms, now_us)]


def test_start_finds_every_difference() -> None:
    """A wrong arm, none, one too many, one of a job that is gone, and one that cannot be read."""
    alone = (JOB, Liveness.UNKNOWN)
    paused = (evolve(JOB, next_us=None), Liveness.UNKNOWN)
    assert wanting(alone, arms={"job": NOON_US}) == []
    assert wanting(alone, arms={"job": NOON_US + 1}) == ["job"]
    assert wanting(alone, arms={"job": None}) == ["job"]
    assert wanting(alone, arms={}) == ["job"]
    assert wanting(paused, arms={"job": NOON_US}) == ["job"]
    assert wanting(paused, arms={}) == []
    assert wanting(arms={"gone": NOON_US}) == ["gone"]


def test_start_looks_at_every_run() -> None:
    """One of several that lost its process is enough."""
    job = evolve(JOB, next_us=None, runs=(run_of("me"), run_of("other", attempt=2)))
    alive, dead = Liveness.ALIVE, Liveness.DEAD
    assert not differences([(job, (alive, alive))], None, NOON_US)
    assert [fire.job_id for fire in differences([(job, (alive, dead))], None, NOON_US)] == ["job"]


def test_start_looks_after_what_is_overdue_or_abandoned_though_nas_cannot_say() -> None:
    """What the store shows alone needs no list."""
    unknown = Liveness.UNKNOWN
    assert wanting((JOB, unknown), arms=None) == []
    assert wanting((JOB, unknown), arms={"job": NOON_US}, now_us=NOON_US + CLOCK_MARGIN_US - 1) == []
    assert wanting((JOB, unknown), arms=None, now_us=NOON_US + CLOCK_MARGIN_US) == ["job"]
    last = evolve(JOB, next_us=None, runs=(run_of("other"),))
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
    jobs = [(JOB, ()), (evolve(JOB, id="busy"), ())]
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
