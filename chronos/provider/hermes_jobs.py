"""What a job of the Hermes agent asks of NAS: when its machine must next be woken for it.

Hermes keeps its jobs in records of its own, and claims them by itself. A claim advances `next_run_at`
of a recurring job; a one-shot keeps its own, with the claim beside it. So the wake is not always
what the record says at first sight; `HermesJob.wake_us` is. It is pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from chronos.errors import ScheduleError
from chronos.jobs.due import following, grace_us
from chronos.jobs.instants import SECOND_US, Instant, parse_instant, whole_second
from chronos.jobs.job import CLOCK_ALLOWANCE_US, LEASE_US, Job, JobState, Run
from chronos.jobs.schedule import Once
from chronos.stores.record import FileFacts, read_job
from chronos.values import evolve

# When a fire finds a one-shot that it cannot have, the next one comes once the lease of whoever has
# it is over, by every clock. Source: contract, "Claim, run, re-arm".
GUARD_US = LEASE_US + CLOCK_ALLOWANCE_US


class HermesJob(Struct, frozen=True, kw_only=True):
    """A job as Hermes has it.

    Attributes:
        job: what its record says; a claim is a run of it.
    """

    job: Job

    @property
    def claimed_us(self) -> Instant | None:
        """Return when its claim was made or last renewed, epoch microseconds; None without one."""
        return self.job.runs[0].claimed_us if self.job.runs else None

    @property
    def due_us(self) -> Instant | None:
        """Return the next occurrence, epoch microseconds; None when none is wanted."""
        return self.job.next_us if self.job.state is JobState.SCHEDULED else None

    def is_claimed(self, now_us: Instant) -> bool:
        """Return whether somebody has it, or is believed to."""
        return self.claimed_us is not None and now_us < self.claimed_us + LEASE_US

    def is_missed(self, now_us: Instant) -> bool:
        """Return whether it is a one-shot that is too late to run. Source: incident D7."""
        due_us = self.due_us
        if due_us is None or not isinstance(self.job.schedule, Once) or self.is_claimed(now_us):
            return False
        return now_us - due_us > grace_us(self.job, due_us)

    def is_early(self, fire_at_us: Instant | None, now_us: Instant) -> bool:
        """Return whether a fire comes before the next occurrence: then it repeats one that was settled.

        Args:
            fire_at_us: the instant that the fire names; None when that is not known. Then this
                machine's clock decides, which may be behind NAS's by as much as the contract allows.
            now_us: the present instant.

        Source: incident D1.
        """
        due_us = self.due_us
        if due_us is None:
            return False
        if fire_at_us is None:
            return due_us > now_us + CLOCK_ALLOWANCE_US
        return due_us > now_us and due_us > fire_at_us

    def wake_us(self, now_us: Instant, *, spent_us: Instant, is_lost: bool = False) -> Instant | None:
        """Return when the machine must next be woken for it.

        Args:
            now_us: the present instant.
            spent_us: an arm for this instant or an earlier one is of no use any more: it has fired, or
                should have long ago. NAS may take the same instant again for the same arm (incident L8).
            is_lost: whether a fire has just found that it cannot have the job.

        Returns:
            Epoch microseconds, to the second; None when it needs no wake. A job that is overdue is
            woken for at once, unless somebody is running it or the fire for it was lost: then a
            recurring one waits for its next slot (incident L1), and a one-shot for the end of the
            claim, or longer the later it is.
        """
        wake_us = self._wake_us(now_us, spent_us=spent_us, is_lost=is_lost)
        return None if wake_us is None else whole_second(wake_us)

    def wanting(self, now_us: Instant, *, spent_us: Instant, is_lost: bool = False, revision: int = 0) -> Job:
        """Return the job as the protocol knows it that wants this wake and nothing else; see `wake_us`."""
        wake_us = self.wake_us(now_us, spent_us=spent_us, is_lost=is_lost)
        if wake_us is None:
            return Job(
                id=self.job.id,
                schedule=Once(at_us=now_us),
                next_us=None,
                state=JobState.COMPLETED,
                revision=revision,
            )
        return Job(id=self.job.id, schedule=Once(at_us=wake_us), next_us=wake_us, revision=revision)

    def _wake_us(self, now_us: Instant, *, spent_us: Instant, is_lost: bool) -> Instant | None:
        due_us = self.due_us
        if due_us is None or self.is_missed(now_us):
            return None
        is_once, is_claimed = isinstance(self.job.schedule, Once), self.is_claimed(now_us)
        if is_once and is_claimed and self.claimed_us is not None:
            return self.claimed_us + GUARD_US
        if due_us > spent_us:
            return due_us
        if not is_lost and not is_claimed:
            return now_us + SECOND_US
        if is_once:
            return now_us + max(GUARD_US, now_us - due_us)
        return following(self.job, max(now_us, due_us))


def read_hermes_job(raw: Mapping[str, Any], now_us: Instant, *, index: int = 0) -> HermesJob:
    """Read Hermes's record of a job, which stands at *index* among the others.

    Raises:
        JobsFileError: the record is not what it should be.
    """
    job = read_job(raw, FileFacts(source="jobs.json", now_us=now_us), index=index)
    # Hermes does not fire a job that has this mark, whatever its state says.
    state = JobState.PAUSED if raw.get("paused_at") and job.state is JobState.SCHEDULED else job.state
    # Those of another scheduler, if any: Hermes's claims are its own.
    claimed_us = _claimed_us(raw.get("fire_claim"))
    runs = () if claimed_us is None else (_run(job, claimed_us),)
    return HermesJob(job=evolve(job, state=state, runs=runs, waiting=()))


def _run(job: Job, claimed_us: Instant) -> Run:
    """Return a claim as a run; of a recurring job, Hermes does not keep which occurrence it is of."""
    return Run(
        occurrence_us=claimed_us if job.next_us is None else job.next_us,
        attempt=1,
        owner="Hermes",
        claimed_us=claimed_us,
        lease_until_us=claimed_us + LEASE_US,
    )


def _claimed_us(claim: object) -> Instant | None:
    """Return when a claim was made; one that cannot be read is none for Hermes, either."""
    at = claim.get("at") if isinstance(claim, Mapping) else None
    try:
        return parse_instant(at) if isinstance(at, str) else None
    except ScheduleError:
        return None
