"""Every way in which a job may change.

A transition takes a job as it is stored and the present instant, and returns a `Move`: the job as
it shall be stored, the occurrences that end with that, the runs that start, and what to tell whoever
asked. Nothing is performed here; `chronos.protocol.flow` makes the move with one compare-and-set.

Most of them are three steps on a `Draft` of the job: look after the runs in flight, take what is due
from the schedule, start what may start.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from chronos.errors import ScheduleError
from chronos.jobs.cron import meaning
from chronos.jobs.data import NO_DATA
from chronos.jobs.due import following, grace_us, passed, wake_at
from chronos.jobs.instants import SECOND_US, Instant, format_instant
from chronos.jobs.job import (
    CLOCK_ALLOWANCE_US,
    LEASE_US,
    Job,
    JobState,
    Liveness,
    Move,
    Origin,
    Outcome,
    Result,
    Run,
    Verdict,
    Waiting,
    is_data,
)
from chronos.jobs.policy import MIN_GRACE_US, CatchUp, Overlap, Policy, at_least
from chronos.jobs.schedule import Cron, Interval, Once, Schedule, in_whole_seconds
from chronos.jobs.zones import zone_of
from chronos.protocol.clocks import CLOCK_MARGIN_US, FIRST_DATE_US, Belief
from chronos.protocol.draft import BY_NAS, Draft, Fired, Stretch, joined, ran_after

# --- What runs -------------------------------------------------------------------------------


def fire(
    job: Job | None,
    *,
    fire_at_us: Instant,
    now_us: Instant,
    owner: str,
    liveness: Sequence[Liveness] = (),
    fired: Fired = BY_NAS,
    may_start: bool = True,
    belief: Belief = Belief.UNKNOWN,
) -> Move:
    """Decide what a fire does to its job.

    A fire is NAS's word that *fire_at_us* has come, so what is due is decided by that instant and
    not by the local clock, which may be wrong for some seconds after a resume. The local clock
    decides what is overdue by more than such an error, what is too late, and which lease is over. For an
    instant that is further ahead than clocks may differ, nobody's word is good enough: one of the two
    clocks is wrong, nothing is taken or ended, and NAS must deliver the fire again.

    One arm per job means that several occurrences can be due together only after an outage.

    Args:
        job: the job as stored, or None when there is none of that id.
        fire_at_us: the instant that the fire names.
        now_us: the present instant by the local clock.
        owner: names this process.
        liveness: what is known of the process that owns each of the runs in flight, in their order;
            `UNKNOWN` where nothing is said.
        fired: how the fire came.
        may_start: False when this process takes nothing any more and only sees to the arm.
        belief: whether the local clock is believed. Of one that is not, nothing is taken or ended on its
            word: what nobody has sent a fire for has to wait, and a fire is judged by NAS's time alone.

    Returns:
        `ACCEPTED` with runs to start, or with an occurrence that waits for its turn; or, with nothing
        to run, `DUPLICATE` (the occurrence was settled before), `SKIPPED` (an earlier one is still
        in progress), `MISSED` (too late), `GONE` (the job wants no wake) or `EARLY` (its instant is still
        to come, and the job stays as it is).

    Source: contract, "Claim, run, re-arm"; incidents D1, D3, D4, D7, L7, O3, S3, S4, T2, T3, W2, W4.
    """
    if job is None:
        return Move(job=None, verdict=Verdict.GONE, reason="there is no such job")
    if belief is Belief.DOUBTED:
        if fired.origin is not Origin.SCHEDULE:
            return Move(
                job=job, verdict=Verdict.DUPLICATE, reason="the clock of this machine is not believed"
            )
        now_us = fire_at_us if fired.minted_us is None else fired.minted_us
    if fire_at_us > now_us + CLOCK_MARGIN_US:
        return _early(job, fire_at_us, now_us)
    draft = Draft(job, now_us)
    _look_after_runs(draft, max(fire_at_us, now_us), liveness)
    if not may_start:
        return draft.move(Verdict.DUPLICATE, "this process takes nothing any more")
    answer = _drop_late(draft)
    if draft.state is JobState.SCHEDULED and draft.next_us is not None and draft.next_us <= fire_at_us:
        answer = _take_due(draft, max(fire_at_us, now_us - CLOCK_MARGIN_US), fired)
    draft.start(owner, max(fire_at_us, now_us), fired)
    if draft.started:
        retried = draft.started[0].attempt > 1
        return draft.move(Verdict.ACCEPTED, "another attempt starts" if retried else "claimed")
    return draft.move(*(answer or _nothing_due(job, fire_at_us)))


def run_now(
    job: Job | None,
    *,
    asked_us: Instant | None,
    now_us: Instant,
    owner: str,
    liveness: Sequence[Liveness] = (),
) -> Move:
    """Start a run by hand: it has an identity of its own, takes no slot and leaves the schedule alone.

    A paused or completed job may be run like this as well. What happens while an occurrence is in
    progress is the job's overlap policy; a run that is skipped then leaves no trace.

    Args:
        job: the job as stored.
        asked_us: when it was asked for: the identity of the run. The same again is a `DUPLICATE`, and
            so is what was asked for before the last one: nothing tells it from a late repetition. None
            makes an identity that is new.
        now_us: the present instant by the local clock.
        owner: names this process.
        liveness: as for `fire`.

    Source: contract, "A direct run"; incidents D2, L1.
    """
    if job is None:
        return Move(job=None, verdict=Verdict.GONE, reason="there is no such job")
    draft = Draft(job, now_us)
    _look_after_runs(draft, now_us, liveness)
    if asked_us is None:  # a clock that was set back must not make it an old one
        asked_us = now_us if job.last_manual_us is None else max(now_us, job.last_manual_us + 1)
    if job.last_manual_us is not None and asked_us <= job.last_manual_us:
        return draft.move(Verdict.DUPLICATE, "this run, or a later one, was asked for before")
    must_wait = draft.is_in_progress() and job.policy.overlap is not Overlap.ALLOW
    if not draft.has_room() or (must_wait and job.state is not JobState.SCHEDULED):
        return draft.move(Verdict.SKIPPED, _IN_PROGRESS)
    draft.last_manual_us = asked_us
    draft.take(asked_us, Origin.MANUAL)
    draft.start(owner, now_us, Fired(origin=Origin.MANUAL))
    return draft.move(Verdict.ACCEPTED, "claimed" if draft.started else "it waits for its turn")


def finish(
    job: Job | None,
    *,
    run: Run,
    succeeded: bool,
    detail: str,
    now_us: Instant,
    may_start: bool = True,
) -> Move:
    """Decide what the end of *run* does to its job: its outcome or its retry, and what waited for it.

    Only the owner of the run may end it: when another process has declared the run interrupted,
    or the job is gone, the record stays as it is and the verdict is `LOST`.

    Args:
        job: the job as stored.
        run: the run that has ended.
        succeeded: whether it did what it should.
        detail: why not, in words.
        now_us: the present instant by the local clock.
        may_start: whether this process starts what waited for the end of the run. When it does not,
            `wake_at` brings another one for that.

    Source: contract, "only the owner may complete"; incidents D4, D6, O4.
    """
    if job is None or not run.is_among(job.runs):
        return Move(job=job, verdict=Verdict.LOST, reason="the run is no longer this process's to end")
    draft = Draft(job, now_us)
    stored = draft.release(run)
    if not succeeded and draft.may_retry(stored, job.policy.attempts):
        draft.wait_for_retry(stored, now_us + retry_delay_us(job, stored))
    else:
        draft.end(stored, Result.COMPLETED if succeeded else Result.FAILED, detail)
    if may_start:
        draft.start(run.owner, now_us, BY_NAS)
    else:
        draft.hand_over()
    return draft.move(Verdict.CHANGED, detail)


def renew(job: Job | None, *, run: Run, now_us: Instant) -> Move:
    """Extend the lease of *run*, or say `LOST` when it is no longer this process's.

    Source: contract, "a 300 s lease refreshed by a heartbeat"; incident D4.
    """
    if job is None or not run.is_among(job.runs):
        return Move(job=job, verdict=Verdict.LOST, reason="the run is no longer this process's to renew")
    draft = Draft(job, now_us)
    draft.renew(run, now_us + LEASE_US)
    return draft.move(Verdict.CHANGED, "the lease is renewed")


# --- What people change ----------------------------------------------------------------------


def new_job(
    job_id: str,
    schedule: Schedule,
    *,
    now_us: Instant,
    times: int | None = None,
    policy: Policy | None = None,
    data_json: str = NO_DATA,
) -> Job:
    """Return a job whose first occurrence is the first one after *now_us*; its slots are whole seconds.

    Raises:
        ScheduleError: there is none, *times* is not a whole number of at least 1, or the period of an
            interval is no whole number of seconds.
        DataError: *data_json* is no text of a value.
    """
    job = wanted_job(job_id, schedule, now_us=now_us, times=times, policy=policy, data_json=data_json)
    if job.next_us is None:
        raise ScheduleError(_no_time_left(job, now_us))
    return job


def wanted_job(
    job_id: str,
    schedule: Schedule,
    *,
    now_us: Instant,
    times: int | None = None,
    policy: Policy | None = None,
    data_json: str = NO_DATA,
    declared: str = "",
) -> Job:
    """Return a job as `new_job` does, also where no occurrence is left after *now_us*.

    Raises:
        ScheduleError: *times* is not a whole number of at least 1, or the period of an interval is no
            whole number of seconds.
        DataError: as `new_job`.
    """
    if times is not None and (isinstance(times, bool) or not isinstance(times, int) or times < 1):
        raise ScheduleError(f"times is {times!r}; expected a whole number of at least 1, or None")
    schedule = in_whole_seconds(schedule)
    job = Job(
        id=job_id,
        schedule=schedule,
        next_us=None,
        times=times,
        policy=policy or Policy(),
        data_json=data_json,
        declared=declared,
    )
    return attrs.evolve(job, next_us=following(job, now_us))


def _no_time_left(job: Job, now_us: Instant) -> str:
    what = format_instant(job.schedule.at_us) if isinstance(job.schedule, Once) else "the schedule"
    return f"{what} has no time left after {format_instant(now_us)}, within the job's bounds"


def create(job: Job | None, *, wanted: Job, now_us: Instant) -> Move:
    """Put *wanted* into the store; `REFUSED` when another job has its id.

    Its revisions begin with the present instant: NAS may still be told of an earlier job of that id,
    and must be able to tell the two apart.
    """
    if job is None:
        born = attrs.evolve(wanted, revision=max(wanted.revision, now_us))
        return Move(job=born, verdict=Verdict.CHANGED, reason="created")
    if _asked_for(job) != _asked_for(wanted):
        return Move(job=job, verdict=Verdict.REFUSED, reason=f"another job has the id {wanted.id}")
    so_far = "created" if job.state is JobState.SCHEDULED else f"already there, and {job.state}"
    return Move(job=job, verdict=Verdict.CHANGED, reason=so_far)


def _asked_for(job: Job) -> tuple[object, ...]:
    """Return what its owner asked for, but for what depends on when: whoever asks again asks the same."""
    return _meaning_of(job.schedule), job.times, job.policy, job.data_json


def _meaning_of(schedule: Schedule) -> object:
    """Return what two spellings of a schedule have in common; of an interval, without its anchor."""
    match schedule:
        case Cron(expr=expr, tz=tz):
            return meaning(expr), zone_of(tz)
        case Interval(period_us=period_us):
            return period_us
        case Once():
            return in_whole_seconds(schedule)


def _edited(now: Schedule, changes: Changes) -> Schedule:
    """Return the schedule after *changes*: the stored one, slot for slot, where the same is asked for again.

    Source: incident S8.
    """
    wanted = changes.schedule
    if wanted is None:
        return now
    is_same = type(wanted) is type(now) and _meaning_of(wanted) == _meaning_of(now)
    if isinstance(now, Interval) and isinstance(wanted, Interval) and is_same and not changes.is_any_phase:
        is_same = (wanted.anchor_us - now.anchor_us) % now.period_us == 0
    return now if is_same else in_whole_seconds(wanted)


def _check_period(_: object, __: object, schedule: Schedule | None) -> None:
    if schedule is not None:
        in_whole_seconds(schedule)


@attrs.frozen(kw_only=True, cache_hash=True)
class Changes:
    """What to change of a job; what is None stays as it is.

    Attributes:
        schedule: when it shall be due.
        is_any_phase: whether an interval of the same period is the same, wherever it is anchored: text
            such as `every 1h` does not say that.
        times: after how many occurrences the schedule shall stop; 0 means never.
        policy: the owner's choices, as a whole.
        data_json: what it shall carry for its runner, as of a `Job`.
        declared: how its schedule is declared, as of a `Job`.

    Raises:
        ScheduleError: *times* is not a whole number of at least 0, or the period of an interval is no
            whole number of seconds.
        DataError: *data_json* is no such text.
    """

    schedule: Schedule | None = attrs.field(default=None, validator=_check_period)
    is_any_phase: bool = False
    times: int | None = attrs.field(default=None, validator=attrs.validators.optional(at_least(0)))
    policy: Policy | None = None
    data_json: str | None = attrs.field(default=None, validator=attrs.validators.optional(is_data))
    declared: str | None = None


def edit(job: Job | None, *, changes: Changes, now_us: Instant) -> Move:
    """Change what a job's owner decides. Its runs in flight and its history stay.

    When the schedule or its bounds change, the job goes on with the first occurrence of the new one
    after the present instant, and a completed job is scheduled again. An occurrence of the old one
    that is due and that nobody has taken yet is skipped. `REFUSED` when no occurrence would be left.
    """
    if job is None:
        return Move(job=None, verdict=Verdict.GONE, reason="there is no such job")
    wanted = attrs.evolve(
        job,
        schedule=_edited(job.schedule, changes),
        times=job.times if changes.times is None else changes.times or None,
        policy=changes.policy or job.policy,
        data_json=job.data_json if changes.data_json is None else changes.data_json,
        declared=job.declared if changes.declared is None else changes.declared,
    )
    if wanted == job:
        return Move(job=job, verdict=Verdict.CHANGED, reason="already so")
    draft = Draft(wanted, now_us)
    has_other_slots = _slots_of(wanted) != _slots_of(job)
    if has_other_slots or wanted.times != job.times:
        if has_other_slots:
            draft.skip_due(job, "the schedule was changed before anybody took it")
        if has_other_slots or draft.next_us is None:
            draft.next_us = following(wanted, _taken_until(job, now_us))
        draft.close_if_spent()
        if draft.next_us is None:
            return Move(job=job, verdict=Verdict.REFUSED, reason="no occurrence would be left")
        if job.state is JobState.COMPLETED:
            draft.state = JobState.SCHEDULED
    edited = draft.move(Verdict.CHANGED, "edited").job
    assert edited is not None
    edited = attrs.evolve(edited, revision=job.revision + 1)
    return Move(job=edited, verdict=Verdict.CHANGED, reason="edited", outcomes=tuple(draft.outcomes))


def declare(job: Job | None, *, wanted: Job, is_relative: bool, now_us: Instant) -> Move:
    """Make a job be what the agent declares: create it where there is none, and edit what differs.

    Its state is its own: a job that was paused stays paused, and one that is completed stays so, unless its
    schedule or its bounds are declared otherwise. An interval that says the same period keeps its phase.
    A one-shot that counts from now is the one that is there, also when it has run, as long as it is
    declared alike; one that nobody has declared so far is taken for it. `REFUSED` when no occurrence is left.

    Args:
        job: the job as stored.
        wanted: the job as it would be created now; its `declared` is not empty.
        is_relative: whether its schedule counts from the instant at which it is asked for.
        now_us: the present instant by the local clock.
    """
    if job is None and wanted.next_us is None:
        return Move(job=None, verdict=Verdict.REFUSED, reason=_no_time_left(wanted, now_us))
    if job is None:
        return create(None, wanted=wanted, now_us=now_us)
    is_the_same_shot = (
        is_relative
        and isinstance(wanted.schedule, Once)
        and isinstance(job.schedule, Once)
        and job.declared in ("", wanted.declared)
    )
    changes = Changes(
        schedule=None if is_the_same_shot else wanted.schedule,
        is_any_phase=is_relative,
        times=wanted.times or 0,
        policy=wanted.policy,
        data_json=wanted.data_json,
        declared=wanted.declared,
    )
    return edit(job, changes=changes, now_us=now_us)


def pause(job: Job | None, *, note: str, now_us: Instant) -> Move:
    """Put the schedule of a job out of force; its runs in flight go on. Source: incident D6.

    What is due and was not taken yet is skipped, and so is what waits.
    """
    if job is None:
        return Move(job=None, verdict=Verdict.GONE, reason="there is no such job")
    if job.state is JobState.COMPLETED or (job.state is JobState.PAUSED and job.note == note):
        return Move(job=job, verdict=Verdict.CHANGED, reason=f"already {job.state}")
    draft = Draft(job, now_us)
    draft.note = note
    if job.state is JobState.SCHEDULED:
        draft.skip_due(job, "the job was paused before anybody took it")
        draft.drop_waiting("the job was paused while it waited")
        draft.state = JobState.PAUSED
    return draft.move(Verdict.CHANGED, "paused")


def resume(job: Job | None, *, from_now: bool, now_us: Instant) -> Move:
    """Put the schedule of a paused job in force again.

    It goes on with the slots it had: with the next one of them that has not passed. With *from_now*,
    an interval counts anew from the present second. The occurrences that passed while the job was
    paused were not those of an active job and have no outcome; when they were the last, the first of
    them is missed, so that a one-shot does not vanish without a trace.

    Source: incidents L8, D7.
    """
    if job is None:
        return Move(job=None, verdict=Verdict.GONE, reason="there is no such job")
    if job.state is not JobState.PAUSED:
        return Move(job=job, verdict=Verdict.CHANGED, reason=f"already {job.state}")
    draft = Draft(job, now_us)
    draft.state, draft.note = JobState.SCHEDULED, ""
    if from_now and isinstance(job.schedule, Interval) and draft.next_us is not None:
        draft.schedule = attrs.evolve(job.schedule, anchor_us=now_us - now_us % SECOND_US)
        draft.next_us = following(attrs.evolve(job, schedule=draft.schedule), _taken_until(job, now_us))
    elif draft.next_us is not None and draft.next_us <= now_us:
        draft.next_us = following(job, now_us)
    if job.next_us is not None and draft.next_us is None:
        first = Stretch(job.next_us, job.next_us, 1)
        draft.end_stretch(first, Result.MISSED, "its time was over when the job was resumed")
    return draft.move(Verdict.CHANGED, "resumed")


def remove(job: Job | None) -> Move:
    """Take a job out of the store. Source: incidents O1, O4."""
    if job is None:
        return Move(job=None, verdict=Verdict.GONE, reason="there is no such job")
    return Move(job=None, verdict=Verdict.CHANGED, reason="removed")


# --- What a wrong clock has left ---------------------------------------------------------------


class FirstSlots(dict[tuple[object, ...], "Instant | None"]):
    """The first slots after one instant: thousands of jobs have few schedules."""

    def after(self, job: Job, instant_us: Instant) -> Instant | None:
        """Return the first occurrence of *job* after *instant_us*, which is the same in all calls."""
        if job.ran_ahead_us:
            return following(job, instant_us)
        key = _slots_of(job)
        if key not in self:
            self[key] = following(job, instant_us)
        return self[key]


def stands_ahead(job: Job, now_us: Instant, first_slots: FirstSlots | None = None) -> bool:
    """Return whether the record of *job* says of itself that a clock was ahead when it was written.

    No clock that is right moves a job past its first slot after now, for longer than clocks may differ; nor
    is there a lease, or a wait, that ends later than such a clock could let it end.

    Args:
        job: as stored.
        now_us: the present instant.
        first_slots: what is known from other jobs, for the same instant.
    """
    latest_us = now_us + CLOCK_MARGIN_US
    return now_us >= FIRST_DATE_US and (  # a machine that has no time yet shows an earlier one
        _is_ahead_of_schedule(job, latest_us, FirstSlots() if first_slots is None else first_slots)
        or any(run.lease_until_us > latest_us + LEASE_US for run in job.runs)
        or any(waiting.not_before_us > latest_us + _longest_wait_us(job, waiting) for waiting in job.waiting)
    )


def _is_ahead_of_schedule(job: Job, latest_us: Instant, first_slots: FirstSlots) -> bool:
    """Return whether *job* has passed over a slot of its own that comes after *latest_us*."""
    if job.next_us is None or job.next_us <= latest_us:
        return False
    first_us = first_slots.after(job, latest_us)
    # What is no slot of the schedule was put there by somebody else, for reasons of their own.
    return first_us is not None and first_us < job.next_us == following(job, job.next_us - 1)


def put_back(job: Job, history: Iterable[Outcome], *, now_us: Instant, belief: Belief) -> Job:
    """Return *job*, which stands ahead, as it should stand by a clock that is right.

    It goes on with the first slot of its schedule after now, and passes over the occurrences that ran
    while the clock was ahead. What was not attempted then will be, though it may have an outcome. Where
    NAS has not confirmed the clock, it may be this one that is wrong, and behind: then nothing is put back
    further than the history reaches, which tells what ran.

    Args:
        job: as stored.
        history: the outcomes that the store has kept of it, the oldest first.
        now_us: the present instant.
        belief: whether the local clock is believed.

    Source: incident T3.
    """
    latest_us = now_us + CLOCK_MARGIN_US
    known = [outcome for outcome in history if outcome.origin is not Origin.MANUAL]
    ran_us, next_us, waiting = _attempted(job, known), job.next_us, job.waiting
    if _is_ahead_of_schedule(job, latest_us, FirstSlots()):
        oldest_us = known[0].occurrence_us if known and belief is not Belief.CONFIRMED else now_us
        from_us = max(now_us, min(oldest_us, next_us or now_us))
        next_us = following(attrs.evolve(job, ran_ahead_us=tuple(ran_us)), from_us)
        waiting = tuple(each for each in waiting if not _comes_again(each, latest_us, next_us))
    return attrs.evolve(
        job,
        next_us=next_us,
        ran_ahead_us=ran_after(next_us, ran_us),
        runs=tuple(
            attrs.evolve(run, lease_until_us=_at_most(run.lease_until_us, now_us + LEASE_US))
            for run in job.runs
        ),
        waiting=tuple(_sooner(job, each, now_us) for each in waiting),
        last_manual_us=None if job.last_manual_us is None else _at_most(job.last_manual_us, now_us),
        revision=job.revision + 1,
    )


def _attempted(job: Job, outcomes: Iterable[Outcome]) -> set[Instant]:
    """Return the occurrences of the schedule of which an attempt is known."""
    ended = (outcome.occurrence_us for outcome in outcomes if outcome.attempt)
    begun: tuple[Run | Waiting, ...] = (*job.runs, *(each for each in job.waiting if each.attempt > 1))
    in_progress = (each.occurrence_us for each in begun if each.origin is not Origin.MANUAL)
    return {*job.ran_ahead_us, *ended, *in_progress}


def _comes_again(waiting: Waiting, latest_us: Instant, next_us: Instant | None) -> bool:
    """Return whether the schedule will come to what waits for its first attempt."""
    is_of_schedule = waiting.attempt == 1 and waiting.origin is not Origin.MANUAL
    is_ahead = next_us is not None and waiting.occurrence_us >= next_us
    return is_of_schedule and is_ahead and waiting.occurrence_us > latest_us


def _sooner(job: Job, waiting: Waiting, now_us: Instant) -> Waiting:
    """Return *waiting* as it waits from now, where it would for longer than it may."""
    until_us = now_us + _longest_wait_us(job, waiting)
    return attrs.evolve(waiting, not_before_us=_at_most(waiting.not_before_us, until_us))


def _longest_wait_us(job: Job, waiting: Waiting) -> int:
    """Return how long *waiting* may have to wait from now, at the most."""
    if waiting.attempt == 1:
        return 0
    return min(job.policy.retry_max_delay_us, job.policy.retry_delay_us << min(waiting.attempt - 2, 40))


def _at_most(instant_us: Instant, until_us: Instant) -> Instant:
    """Return *instant_us*; or *until_us*, where it is further ahead of that than clocks may differ."""
    return until_us if instant_us > until_us + CLOCK_MARGIN_US else instant_us


# --- The steps -------------------------------------------------------------------------------

_IN_PROGRESS = "an earlier occurrence of the job was still in progress"
_COALESCED = "a later occurrence was due as well and ran in its place"
_NO_START = "it could not start within the misfire grace"
_TOO_LATE = "the fire came later than the misfire grace allows"
_JUMPED_OVER = "the clock was set forward past it, by three hours or more"
_TOO_MANY = "more occurrences were due than the job catches up"


def retry_delay_us(job: Job, run: Run) -> int:
    """Return how long the attempt after *run* waits: exponential, and less a part by chance.

    The chance is worked out from the identity of the attempt, so that whoever asks gets the same.
    """
    whole_us = min(job.policy.retry_max_delay_us, job.policy.retry_delay_us << min(run.attempt - 1, 40))
    return whole_us - whole_us * _spread(f"{job.id}/{run.occurrence_us}/{run.attempt}") // (2 * _SPREAD)


_SPREAD = 1 << 16


def _spread(text: str) -> int:
    """Return a number below `_SPREAD` that looks like chance: FNV-1a, folded."""
    value = 0x811C9DC5
    for byte in text.encode("utf-8", "surrogatepass"):
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return (value >> 16 ^ value) & (_SPREAD - 1)


def _look_after_runs(draft: Draft, horizon_us: Instant, liveness: Sequence[Liveness]) -> None:
    """Renew the lease of a living run that is over, and settle the runs of processes that have ended.

    The fire of a guard may find its run alive, since the end of a run takes a moment to be stored. It
    must move `wake_at` on all the same: that fire was the arm that brings somebody back.
    """
    for index, run in enumerate(tuple(draft.runs)):
        owner_is = liveness[index] if index < len(liveness) else Liveness.UNKNOWN
        over_us = run.lease_until_us + CLOCK_ALLOWANCE_US
        if owner_is is Liveness.ALIVE:
            if horizon_us >= over_us:
                draft.renew(run, horizon_us + LEASE_US)
        elif owner_is is Liveness.DEAD or draft.now_us >= over_us:
            draft.release(run)
            if draft.may_retry_interrupted(run):
                draft.wait_for_retry(run, draft.now_us)
            else:
                reason = "its process ended" if owner_is is Liveness.DEAD else "its lease ended"
                draft.end(run, Result.INTERRUPTED, f"{reason} before it was stored how the run ended")


def _drop_late(draft: Draft) -> tuple[Verdict, str] | None:
    """End what waits and could have started so long ago that it is too late now.

    Returns:
        What to say when nothing starts; None when nothing was too late.
    """
    if not draft.waiting or draft.job.policy.catch_up is not CatchUp.SKIP:
        return None
    answer = None
    for waiting in draft.waiting:
        is_late = draft.now_us - waiting.not_before_us > grace_us(draft.job, waiting.occurrence_us)
        if is_late and draft.is_free(waiting) and waiting.origin is not Origin.MANUAL:
            draft.drop(waiting, Result.MISSED, _NO_START)
            answer = Verdict.MISSED, _NO_START
    return answer


def _take_due(draft: Draft, horizon_us: Instant, fired: Fired) -> tuple[Verdict, str]:
    """Take what is due by *horizon_us* from the schedule; what does not run has its outcome.

    Returns:
        What to say when nothing starts.
    """
    policy = draft.job.policy
    is_all = policy.catch_up is CatchUp.ALL
    older, newest = draft.due(horizon_us, policy.catch_up_limit if is_all else 1)
    if fired.was_jumped_over:
        draft.end_stretch(joined(older, newest), Result.MISSED, _JUMPED_OVER)
        return Verdict.MISSED, _JUMPED_OVER
    if policy.overlap is Overlap.SKIP and draft.is_in_progress():
        draft.end_stretch(joined(older, newest), Result.SKIPPED, _IN_PROGRESS)
        return Verdict.SKIPPED, _IN_PROGRESS
    is_late = _is_too_late(draft, newest[-1])
    if is_late and policy.catch_up is CatchUp.SKIP:
        draft.end_stretch(joined(older, newest), Result.MISSED, _TOO_LATE)
        return Verdict.MISSED, _TOO_LATE
    draft.end_stretch(older, Result.MISSED, _TOO_MANY if is_all else _COALESCED)
    if not draft.has_room():
        draft.end_stretch(joined(None, newest), Result.SKIPPED, _IN_PROGRESS)
        return Verdict.SKIPPED, _IN_PROGRESS
    for slot_us in newest:
        is_caught_up = is_late or slot_us != newest[-1]
        draft.take(
            slot_us, Origin.CATCH_UP if is_caught_up and fired.origin is Origin.SCHEDULE else fired.origin
        )
    return Verdict.ACCEPTED, "it waits for its turn"


def _is_too_late(draft: Draft, occurrence_us: Instant) -> bool:
    """Return whether the misfire grace of *occurrence_us* is over."""
    lateness_us = draft.now_us - occurrence_us
    # Most fires come within the smallest grace: the schedule need not be asked for those.
    is_early_enough = lateness_us <= MIN_GRACE_US and draft.job.policy.misfire_grace_us is None
    return not is_early_enough and lateness_us > grace_us(draft.job, occurrence_us)


def _early(job: Job, fire_at_us: Instant, now_us: Instant) -> Move:
    """Say what a fire for an instant that is still to come does: nothing, and the job stays as it is."""
    wake_us = wake_at(job)
    if wake_us is None or wake_us > fire_at_us:  # nothing could be due by then either
        verdict, reason = _nothing_due(job, fire_at_us)
        return Move(job=job, verdict=verdict, reason=reason)
    reason = f"{format_instant(fire_at_us)} is still to come: here it is {format_instant(now_us)}"
    return Move(job=job, verdict=Verdict.EARLY, reason=reason)


def _nothing_due(job: Job, fire_at_us: Instant) -> tuple[Verdict, str]:
    """Say why a fire that names *fire_at_us* has nothing to run."""
    if job.state is not JobState.SCHEDULED:
        return Verdict.GONE, f"the job is {job.state}"
    for run in job.runs:
        if run.occurrence_us == fire_at_us:
            return Verdict.DUPLICATE, f"attempt {run.attempt} of this occurrence is in flight"
    return Verdict.DUPLICATE, "every occurrence up to this instant is settled"


def _taken_until(job: Job, now_us: Instant) -> Instant:
    """Return the instant after which a changed schedule goes on: the present one, mostly.

    Where this clock is behind the one by which the last occurrence was taken, it is that occurrence,
    which must not come again. No clock that is right has taken what is further ahead than clocks may differ.
    """
    latest_us = now_us + CLOCK_MARGIN_US
    begun: tuple[Run | Waiting, ...] = (*job.runs, *job.waiting)
    slots = (each.occurrence_us for each in begun if each.origin is not Origin.MANUAL)
    until_us = max((now_us, *(slot_us for slot_us in slots if slot_us <= latest_us)))
    # A next occurrence that is further ahead says that those before it were taken.
    before_us = latest_us if job.next_us is None else min(job.next_us - 1, latest_us)
    taken = () if job.next_us is None else passed(job, until_us, before_us, 1).newest
    return taken[0] if taken else until_us


def _slots_of(job: Job) -> tuple[object, ...]:
    """Return what the slots of *job* depend on."""
    return job.schedule, job.policy.starts_us, job.policy.ends_us
