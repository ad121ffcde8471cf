"""The changes of a job: those of people, and the declarations of an agent.

Each is a transition, as those of `chronos.protocol.transitions`: values in, a `Move` out.
"""

from __future__ import annotations

import attrs

from chronos.errors import ScheduleError
from chronos.jobs.cron import meaning
from chronos.jobs.data import NO_DATA
from chronos.jobs.due import following, passed
from chronos.jobs.instants import SECOND_US, Instant, format_instant
from chronos.jobs.job import Job, JobState, Move, Origin, Result, Run, Verdict, Waiting, is_data
from chronos.jobs.policy import Policy, at_least
from chronos.jobs.schedule import Cron, Interval, Once, Schedule, in_whole_seconds
from chronos.jobs.zones import zone_of
from chronos.protocol.clocks import CLOCK_MARGIN_US
from chronos.protocol.draft import Draft, Stretch
from chronos.values import evolve

# --- A new job --------------------------------------------------------------------------------


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
    return evolve(job, next_us=following(job, now_us))


def _no_time_left(job: Job, now_us: Instant) -> str:
    what = format_instant(job.schedule.at_us) if isinstance(job.schedule, Once) else "the schedule"
    return f"{what} has no time left after {format_instant(now_us)}, within the job's bounds"


def create(job: Job | None, *, wanted: Job, now_us: Instant) -> Move:
    """Put *wanted* into the store; `REFUSED` when another job has its id.

    Its revisions begin with the present instant: NAS may still be told of an earlier job of that id,
    and must be able to tell the two apart.
    """
    if job is None:
        born = evolve(wanted, revision=max(wanted.revision, now_us))
        return Move(job=born, verdict=Verdict.CHANGED, reason="created")
    if _asked_for(job) != _asked_for(wanted):
        return Move(job=job, verdict=Verdict.REFUSED, reason=f"another job has the id {wanted.id}")
    so_far = "created" if job.state is JobState.SCHEDULED else f"already there, and {job.state}"
    return Move(job=job, verdict=Verdict.CHANGED, reason=so_far)


# --- Its owner's choices ----------------------------------------------------------------------


def _check_period(_: object, __: object, schedule: Schedule | None) -> None:
    if schedule is not None:
        in_whole_seconds(schedule)


@attrs.frozen(kw_only=True, cache_hash=True)
class Changes:
    """The fields to change of a job; a field that is None stays as it is.

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
    wanted = evolve(
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
    edited = evolve(edited, revision=job.revision + 1)
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


# --- In force or not --------------------------------------------------------------------------


def pause(job: Job | None, *, note: str, now_us: Instant) -> Move:
    """Put the schedule of a job out of force; its runs in flight go on. Source: incident D6.

    Due occurrences that were not taken yet are skipped, and so are those that wait.
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
        draft.next_us = following(evolve(job, schedule=draft.schedule), _taken_until(job, now_us))
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


# --- Repeated requests, and taken occurrences ----------------------------------------------------


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
