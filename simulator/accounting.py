"""Whether a move of the store loses an occurrence, or counts it twice."""

from __future__ import annotations

from collections.abc import Iterator

from chronos.jobs.due import following
from chronos.jobs.instants import Instant, format_instant
from chronos.jobs.job import Job, JobState, Origin
from chronos.protocol.clocks import CLOCK_MARGIN_US
from chronos.protocol.wrong_clock import stands_ahead
from chronos.values import evolve
from simulator.moments import StoreMove


def unaccounted(move: StoreMove) -> str | None:
    """Say which occurrence a move of the store loses or counts twice.

    What was open before is open still or has ended, once. What is open or has ended anew is what
    comes next in the schedule, which is asked here once more, or a manual run that was asked for. A job
    that a clock has left ahead may be put back: its schedule goes on with a slot after now, and comes again
    to what waits for its first attempt there.
    """
    old, new, outcomes = move.old, move.new, move.outcomes
    if old is None or new is None:
        return None  # a job that comes or goes is accounted for by whoever brings or takes it
    before, after = _attempts(old), _attempts(new)
    if len(after) < len(new.runs) + len(new.waiting):
        return "an occurrence is open twice"
    for run in old.runs:
        if not run.is_among(new.runs) and after.get(run.identity, run.attempt + 1) <= run.attempt:
            return f"attempt {run.attempt} at {named(run.identity)} was taken from its owner without an end"
    if old.next_us == new.next_us and before == after and not outcomes:
        return None
    back_us = _put_back_to(move)
    ended = [(outcome.origin is Origin.MANUAL, outcome.occurrence_us) for outcome in outcomes]
    for identity, attempt in before.items():
        places = (identity in after) + ended.count(identity)
        if not places and attempt == 1 and back_us is not None and identity >= (False, back_us):
            continue  # the schedule comes to it again
        if places != 1 or after.get(identity, attempt) < attempt:
            return f"{named(identity)} was open, and is now open or ended {places} times"
    passed = [
        (outcome.occurrence_us, outcome.last_occurrence_us, outcome.count)
        for outcome, identity in zip(outcomes, ended, strict=True)
        if identity not in before
    ]
    taken = [identity for identity in after if identity not in before]
    if taken and any(manual and at_us != new.last_manual_us for manual, at_us in taken):
        return "a manual run was taken that nobody asked for"
    passed += [(at_us, at_us, 1) for manual, at_us in taken if not manual]
    if old.state is JobState.PAUSED:
        return None  # what passes while the schedule is out of force is nobody's
    return _slots_unaccounted(_gone_back(old, new, back_us), new, sorted(passed))


def _gone_back(old: Job, new: Job, back_us: Instant | None) -> Job:
    """Return *old* as it stands when it has been put back to a slot."""
    if back_us is None:
        return old
    return evolve(old, next_us=back_us, ran_ahead_us=(*old.ran_ahead_us, *new.ran_ahead_us))


def _put_back_to(move: StoreMove) -> Instant | None:
    """Return the slot with which a job goes on that was left ahead by a clock; None when it was not put back.

    A clock that is believed differs from the true time by no more than the margin.
    """
    old, new, now_us = move.old, move.new, move.now_us
    if old is None or new is None or old.next_us is None or now_us is None:
        return None
    known = _attempts(old)
    begun = [at_us for manual, at_us in _attempts(new) if not manual and (False, at_us) not in known]
    ended = [each.occurrence_us for each in move.outcomes if each.origin is not Origin.MANUAL]
    begun += [at_us for at_us in ended if (False, at_us) not in known]
    back_us = min(begun) if begun else new.next_us
    if back_us is None or back_us >= old.next_us or back_us <= now_us - CLOCK_MARGIN_US:
        return None
    if not stands_ahead(old, now_us - CLOCK_MARGIN_US):
        return None
    return back_us if following(old, back_us - 1) == back_us else None


def _attempts(job: Job) -> dict[tuple[bool, Instant], int]:
    """Return the occurrences that are open, and the attempt at which each of them is."""
    open_at = {each.identity: each.attempt for each in job.waiting}
    for run in job.runs:
        open_at[run.identity] = run.attempt
    return open_at


def _slots_unaccounted(old: Job, new: Job, passed: list[tuple[Instant, Instant, int]]) -> str | None:
    """Say which occurrence between the old next one and the new next one was lost or counted twice.

    Each of *passed* is a stretch: its first and last occurrence, and how many it has.
    """
    if not passed and old.next_us == new.next_us:
        return None
    slots = _slots(old)
    for first_us, last_us, count in passed:
        slot = next(slots, None)
        if slot != first_us:
            return f"{format_instant(first_us)} was taken or ended, but the next occurrence is {shown(slot)}"
        for _ in range(count - 1):
            slot = next(slots, None)
        if slot != last_us:
            return f"{count} occurrences from {format_instant(first_us)} end at {shown(slot)}"
    slot = next(slots, None)
    if slot == new.next_us or _is_edited(old, new) or (new.next_us is None and _is_spent(new)):
        return None
    return f"the job goes on at {shown(new.next_us)}, but the next occurrence is {shown(slot)}"


def _is_edited(old: Job, new: Job) -> bool:
    """Return whether somebody changed what the slots of the job depend on."""
    return (old.schedule, old.times, old.policy.starts_us, old.policy.ends_us) != (
        new.schedule,
        new.times,
        new.policy.starts_us,
        new.policy.ends_us,
    )


def _is_spent(job: Job) -> bool:
    """Return whether as many occurrences were attempted as the job shall have."""
    return job.times is not None and begun(job) >= job.times


def begun(job: Job) -> int:
    """Return how many occurrences of the schedule were attempted."""
    in_flight = sum(run.origin is not Origin.MANUAL for run in job.runs)
    return (
        job.completed
        + in_flight
        + sum(each.attempt > 1 and each.origin is not Origin.MANUAL for each in job.waiting)
    )


def _slots(job: Job) -> Iterator[Instant | None]:
    slot = job.next_us
    while slot is not None:
        yield slot
        slot = following(job, slot)


def named(identity: tuple[bool, Instant]) -> str:
    """Return which occurrence it is, in words."""
    manual, at_us = identity
    return f"the {'manual run' if manual else 'occurrence'} of {format_instant(at_us)}"


def shown(instant_us: Instant | None) -> str:
    """Return an instant as it is told."""
    return "none" if instant_us is None else format_instant(instant_us)
