"""Why an occurrence did not complete.

Each outcome has one cause. That of an end which somebody decided is told by the outcome. What came too late
is traced from its slot on: what stood in its way held it up until the next thing did, and what held it up for
longest is the cause.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from chronos.jobs.instants import SECOND_US, Instant, format_instant
from chronos.jobs.job import Job, Outcome, Result, Run
from simulator import faults
from simulator.history import Kind
from simulator.kernel import WORLD, Kernel
from simulator.surroundings import (
    ARM_LOST,
    ASLEEP,
    DEPLOYED,
    EXTERNAL_OUTAGE,
    FELT_US,
    MESSAGES,
    RAISED,
    Episode,
    Surroundings,
)

UNEXPLAINED = "unexplained"
RUN_FAILED, RUN_TOO_LONG, LEASE = "run.failed", "run.time-limit", "run.lease"
OVERLAP, TIMES, CATCH_UP = "policy.overlap", "policy.times", "policy.catch-up"
BEFORE = "calendar.before"

# What each cause is, in words; an outage says from when to when by itself.
WORDS = {
    faults.NAS_OUTAGE.name: "NAS was down",
    faults.NAS_REFUSAL.name: "NAS refused the agent's identity",
    faults.NAS_CREATE.name: "NAS crashed before it made the one-shot",
    faults.NAS_BUSY.name: "NAS asked to be asked later",
    ARM_LOST: "NAS lost the arm",
    faults.HOST_OUTAGE.name: "the host started no machine",
    faults.STOP.name: "the agent was told to run no jobs",
    faults.REQUEST.name: "a request was lost, doubled or late",
    faults.REPLY.name: "a reply was lost or late",
    faults.WIRE_ANSWER.name: "an answer of NAS came spoiled",
    faults.WIRE_FIRE.name: "the fire came spoiled",
    EXTERNAL_OUTAGE: "the external scheduler was down",
    faults.LATE_CALL.name: "the external scheduler called late",
    faults.CRASH.name: "the machine crashed",
    faults.KILL.name: "the machine was killed",
    faults.REPLACEMENT.name: "the host replaced the machine",
    faults.SLOW_BOOT.name: "the machine did not boot in time",
    faults.CLOCK.name: "the machine's clock was wrong",
    faults.STORE_FAILURE.name: "the job store failed",
    faults.CHANGE.name: "somebody changed the job",
    ASLEEP: "the machine went to sleep",
    DEPLOYED: "the machine was started anew",
    RAISED: "the agent raised an exception",
    BEFORE: "it was overdue when the calendar began",
    UNEXPLAINED: "nothing that is known explains it",
}

_LASTING = (faults.NAS_REFUSAL.name, faults.STOP.name, faults.HOST_OUTAGE.name, faults.NAS_OUTAGE.name)
# A fire is on its way, or the agent at work with it.
_ON_THE_WAY, _ARMED = "on the way", "armed"
# How far back the history of a job is read.
_READ = 200
# How many of the steps between a slot and its end are told.
_TOLD = 3
# A call later than this is late.
_LATE_US = 5 * SECOND_US


class Cause(Struct, frozen=True, kw_only=True):
    """Why an occurrence ended as it did.

    Attributes:
        name: of a fault, of a policy, or what else there is.
        words: a sentence, with times.
        episode: what lasted meanwhile and is behind it, where there is such a thing.
    """

    name: str
    words: str
    episode: Episode | None = None


class Ended(Struct, frozen=True, kw_only=True):
    """An outcome, and what is needed to tell its cause.

    Attributes:
        subject: of which job.
        at_us: when it was decided, true time.
        old: the job before.
        outcome: how it ended.
    """

    subject: int
    at_us: Instant
    old: Job
    outcome: Outcome


class Trace(Struct, frozen=True, kw_only=True):
    """What stood in the way of an occurrence: the cause, and how it went on."""

    name: str
    episode: Episode | None
    story: tuple[str, ...]


class Causes:
    """Tells causes.

    Args:
        kernel: has the history of each job.
        around: what went on around them.
    """

    def __init__(self, kernel: Kernel, around: Surroundings) -> None:
        self._kernel, self._around, self._start_us = kernel, around, kernel.now_us

    def of(self, ended: Ended) -> Cause:
        """Return why an occurrence did not complete."""
        outcome = ended.outcome
        if outcome.result is Result.FAILED:
            is_over = outcome.reason.startswith("timed out")
            attempts = "" if outcome.attempt < 2 else f", attempt {outcome.attempt}"
            words = f"the run {outcome.reason}" if is_over else f"the run itself failed{attempts}"
            return Cause(name=RUN_TOO_LONG if is_over else RUN_FAILED, words=words)
        if outcome.result is Result.INTERRUPTED:
            run = next(run for run in ended.old.runs if run.identity[1] == outcome.occurrence_us)
            return self._interrupted(run, ended.at_us)
        if outcome.result is Result.SKIPPED:
            return self._skipped(ended)
        if "resumed" in outcome.reason:
            return Cause(name=faults.CHANGE.name, words=outcome.reason)
        return self._missed(ended)

    def _interrupted(self, run: Run, at_us: Instant) -> Cause:
        end = self._around.end_of(run.owner, at_us)
        since = f"its run, claimed at {clock(run.claimed_us)}"
        if end is None:
            return Cause(name=LEASE, words=f"the lease of {since}, was over, and nobody had renewed it")
        episode = self._around.episode(end.why, end.at_us)
        return Cause(
            name=end.why,
            words=f"{WORDS[end.why]} at {clock(end.at_us)} during {since}{_lasting(episode, end.at_us)}",
            episode=episode,
        )

    def _skipped(self, ended: Ended) -> Cause:
        reason, old = ended.outcome.reason, ended.old
        if reason.startswith("the job has started"):
            return Cause(name=TIMES, words=reason)
        if "in progress" not in reason:
            return Cause(name=faults.CHANGE.name, words=reason)
        if old.runs:
            run = old.runs[0]
            end = self._around.end_of(run.owner, ended.at_us)
            of = f"the run of {clock(run.occurrence_us)}"
            if end is None:
                return Cause(
                    name=OVERLAP, words=f"{of} was still going on, since {clock(run.claimed_us, ended.at_us)}"
                )
            return Cause(
                name=end.why,
                words=f"{WORDS[end.why]} at {clock(end.at_us)} during {of}, and its lease was not over yet",
                episode=self._around.episode(end.why, end.at_us),
            )
        waiting = f", of {clock(old.waiting[0].occurrence_us)}" if old.waiting else ""
        return Cause(name=OVERLAP, words=f"an earlier occurrence{waiting} waited for its next attempt")

    # --- what came too late ---

    def _missed(self, ended: Ended) -> Cause:
        outcome, at_us = ended.outcome, ended.at_us
        slot_us = outcome.occurrence_us
        if slot_us < self._start_us:
            return Cause(name=BEFORE, words=WORDS[BEFORE])
        traced = self._trace(ended.subject, slot_us, at_us)
        if traced is None:
            late_s = (at_us - outcome.last_occurrence_us) / SECOND_US
            if ended.old.runs or ended.old.waiting:
                return Cause(name=OVERLAP, words=f"an earlier occurrence was open for {late_s:,.0f} s more")
            words = f"it was claimed {late_s:,.0f} s late, when a later occurrence was due as well"
            return Cause(name=CATCH_UP, words=words)
        slots = clock(slot_us)
        if outcome.count > 1:
            last = clock(outcome.last_occurrence_us, slot_us)
            slots = f"{outcome.count:,} slots, {slots} to {last},"
        told = [
            f"{WORDS[traced.name]}{_lasting(traced.episode, slot_us)}",
            f"{'the slot ' if outcome.count == 1 else ''}{slots} passed",
            *traced.story[:_TOLD],
            *([f"and {len(traced.story) - _TOLD} more such"] if len(traced.story) > _TOLD else []),
            f"decided at {clock(at_us, slot_us)}",
        ]
        return Cause(name=traced.name, words="; ".join(told), episode=traced.episode)

    def _trace(self, subject: int, slot_us: Instant, at_us: Instant) -> Trace | None:
        """Return what held a slot up for longest; None when nothing but the way of its fire did."""
        before, after = self._entries(subject, slot_us, at_us)
        name = self._before(subject, before, slot_us)
        since_us, held, story = slot_us, {name: 0}, self._first_words(before)
        for when_us, kind, value in after:
            if kind == Kind.RELAYED and name == _ARMED:
                is_late = when_us - since_us > _LATE_US
                held[self._late(slot_us) if is_late else _ON_THE_WAY] = when_us - since_us
                name, since_us = _ON_THE_WAY, when_us
                continue
            if kind in _STORY:
                story.append(f"{_STORY[Kind(kind)]} at {clock(when_us, slot_us)}")
            found = self._obstacle(subject, when_us, kind, value)
            if found is not None:
                held[name] = held.get(name, 0) + when_us - since_us
                name, since_us = found, when_us
        held[name] = held.get(name, 0) + at_us - since_us
        if name == _ARMED:  # nobody has called
            held[self._late(slot_us)] = held.pop(_ARMED)
        return self._worst(held, slot_us, at_us, story)

    def _late(self, slot_us: Instant) -> str:
        """Return why nobody called for a slot in time that was armed."""
        is_away = self._around.episode(EXTERNAL_OUTAGE, slot_us + _LATE_US) is not None
        return EXTERNAL_OUTAGE if is_away else faults.LATE_CALL.name

    def _worst(
        self, held: dict[str, int], slot_us: Instant, at_us: Instant, story: Sequence[str]
    ) -> Trace | None:
        held.pop(_ARMED, None)
        way_us = held.pop(_ON_THE_WAY, 0)
        known = {name: for_us for name, for_us in held.items() if name != UNEXPLAINED}
        most = max(known, key=known.__getitem__, default=None)
        if most is None or (not known[most] and (way_us or held.get(UNEXPLAINED))):
            if UNEXPLAINED not in held or way_us > held[UNEXPLAINED]:
                return None
            most = UNEXPLAINED
        episode = self._around.episode(most, at_us, at_us - slot_us + FELT_US)
        return Trace(name=most, episode=episode, story=tuple(story))

    def _entries(
        self, subject: int, slot_us: Instant, at_us: Instant
    ) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
        """Return what happened to a job before a slot, the latest first, and from then on, in order."""
        latest = sorted(each for each in self._kernel.latest(subject, _READ) if each[0] <= at_us)
        before = [each for each in latest if each[0] < slot_us]
        return before[::-1], latest[len(before) :]

    def _before(self, subject: int, entries: Sequence[tuple[int, int, int]], slot_us: Instant) -> str:
        """Return how the job stood when its slot came."""
        trouble = None
        for at_us, kind, _ in entries:
            if kind in _ARMS:
                lost = self._around.mishap_of(subject, slot_us, ARM_LOST, felt_us=slot_us - at_us)
                return lost or (trouble if trouble and trouble in _LASTING else _ARMED)
            if kind == Kind.CANCELLED:
                return faults.CHANGE.name
            if kind == Kind.SWALLOWED:
                return ARM_LOST
            if kind == Kind.CLAIMED:
                break
            trouble = trouble or self._obstacle(subject, at_us, kind, 0)
        if trouble is not None and trouble != UNEXPLAINED:
            return trouble
        return self._lasting_at(slot_us) or UNEXPLAINED

    def _first_words(self, entries: Sequence[tuple[int, int, int]]) -> list[str]:
        """Return what is to be told of how the slot came to have no arm."""
        for _, kind, _ in entries:
            if kind in _ARMS:
                return []
            if kind == Kind.ARM_FAILED:
                return ["the arm could not be made"]
            if kind == Kind.CLAIMED:
                return []
        return []

    def _lasting_at(self, at_us: Instant) -> str | None:
        return next((name for name in _LASTING if self._around.episode(name, at_us) is not None), None)

    def _obstacle(self, subject: int, at_us: Instant, kind: int, value: int) -> str | None:
        """Return what stands in the way from then on; None when an entry tells of no such thing."""
        around = self._around
        if kind in _PLAIN:
            return _PLAIN[Kind(kind)]
        if kind == Kind.ARM_FAILED:
            return self._unanswered(subject, at_us)
        if kind == Kind.ANSWERED:
            return self._turned_away(at_us, value)
        if kind == Kind.TIMED_OUT:
            boot = around.mishap_of(WORLD, at_us, faults.SLOW_BOOT.name)
            return around.mishap_of(subject, at_us, *MESSAGES) or boot
        if kind == Kind.CRASHED:
            end = around.end_at(at_us)
            return None if end is None or end.why == ASLEEP else end.why
        return None

    def _unanswered(self, subject: int, at_us: Instant) -> str:
        """Return why NAS's answer did not come."""
        for name in (faults.NAS_OUTAGE.name, faults.NAS_REFUSAL.name):
            if self._around.episode(name, at_us, 30 * SECOND_US) is not None:
                return name
        found = self._around.mishap_of(subject, at_us, *MESSAGES)
        return found or self._around.mishap_of(WORLD, at_us, faults.NAS_BUSY.name) or UNEXPLAINED

    def _turned_away(self, at_us: Instant, status: int) -> str | None:
        """Return why a fire was answered with *status*."""
        around = self._around
        if status == 401:
            return around.mishap_of(WORLD, at_us, faults.CLOCK.name) or faults.WIRE_FIRE.name
        if status == 502:
            end = around.end_at(at_us)
            return None if end is None or end.why == ASLEEP else end.why
        if status == 503:
            if around.episode(faults.STOP.name, at_us) is not None:
                return faults.STOP.name
            return around.mishap_of(WORLD, at_us, faults.REPLACEMENT.name)
        return None


_ARMS = frozenset({Kind.CREATED, Kind.PROVISIONED, Kind.SWEPT})
_PLAIN = {
    Kind.RELAY_LOST: faults.NAS_OUTAGE.name,
    Kind.FIRE_LOST: faults.REQUEST.name,
    Kind.UNREACHABLE: faults.HOST_OUTAGE.name,
    Kind.CREATE_FAILED: faults.NAS_CREATE.name,
    Kind.STORE_FAILED: faults.STORE_FAILURE.name,
    Kind.ANSWER_LOST: faults.REPLY.name,
}
_STORY = {Kind.SPENT: "retries spent", Kind.SWEPT: "swept"}


def clock(at_us: Instant, day_of_us: Instant | None = None) -> str:
    """Return an instant to the second; without its day where that is the day of another one."""
    text = format_instant(at_us - at_us % SECOND_US).removesuffix("+00:00")
    is_same = day_of_us is not None and text[:10] == format_instant(day_of_us)[:10]
    return text[11:] if is_same else text


def _lasting(episode: Episode | None, day_of_us: Instant) -> str:
    if episode is None:
        return ""
    return f" ({clock(episode.from_us, day_of_us)} to {clock(episode.until_us, episode.from_us)})"
