"""What a scheduler can tell of its jobs: the store, NAS and this process, laid beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct

from chronos.agent.refused import RefusedFires
from chronos.jobs.due import wake_at
from chronos.jobs.instants import Instant, datetime_of, format_instant, moment_or_none
from chronos.jobs.job import Job, JobState, Lateness, Outcome, Unreadable, lateness
from chronos.protocol.clocks import CLOCK_MARGIN_US
from chronos.protocol.flow_effects import ArmsListed
from chronos.protocol.pending import pending, why_doubted
from chronos.protocol.state import Now, Pending, Process, clock_of
from chronos.protocol.words import because
from chronos.stores import told_apart

_UNSAID = "NAS could not say what is armed"


class JobStatus(Struct, frozen=True, kw_only=True):
    """How one job stands.

    Attributes:
        job: as the store holds it.
        wake_us: when the agent must next be woken for it, epoch microseconds, UTC; None for never.
        is_armed: whether something is sure to do that in time; None when NAS could not say. What is overdue
            by more than clocks may differ is not.
        why: the same in words, such as `armed`, `overdue since …` or what keeps it from being armed.
        last: how its latest occurrence ended; None when none has, or that is no longer kept.
        lateness: how late that one was claimed, by hop; None when it was not, or not at once.
    """

    job: Job
    wake_us: Instant | None
    is_armed: bool | None
    why: str
    last: Outcome | None
    lateness: Lateness | None

    wake = moment_or_none()


class Status(Struct, frozen=True, kw_only=True):
    """How everything stands.

    Attributes:
        jobs: each job, in the order of the store.
        orphans: the arms that NAS has for jobs that need none, and the instant of each, aware, in UTC; None
            where its text is no instant.
        trigger: what fires the jobs: `NAS`, or `this process` where NAS cannot be had.
        pending: what is unfinished, and why; as `pending()` returns it.
        may_stop: whether the host may stop the machine: this process is at work on nothing. Where this
            process is the trigger and is not started, nothing wakes the machine again.
        trouble: what could not be read; empty when everything was.
        unreadable: the records that cannot be read, each with its field and what is wrong with it. Its
            job does not run and its arm stays as it is, until somebody mends the record. What is wrong
            with a history alone is listed as well; it stops nothing.
        refused: the fires that were turned away at the endpoint, and why the last of them was.
        clock: why this machine's clock is not believed, and what follows; empty while it is.
    """

    jobs: tuple[JobStatus, ...]
    orphans: Mapping[str, datetime | None]
    trigger: str
    pending: tuple[Pending, ...]
    may_stop: bool
    trouble: str = ""
    unreadable: tuple[Unreadable, ...] = ()
    refused: RefusedFires = RefusedFires()
    clock: str = ""


def status_of(
    process: Process,
    now: Now,
    refused: RefusedFires,
    listed: object,
    records: tuple[Job | Unreadable, ...],
    newest: Mapping[str, Outcome | Unreadable],
) -> Status:
    """Compare the store, NAS and a process.

    Args:
        process: of the agent.
        now: the present.
        refused: the fires that were turned away at the endpoint.
        listed: what came of asking NAS for its arms.
        records: all records of the store.
        newest: the latest outcome of each job, by its id.
    """
    jobs, unreadable = told_apart(records)
    latest = {job_id: last for job_id, last in newest.items() if isinstance(last, Outcome)}
    unfinished = pending(process, now)
    view = _View(process, now, refused, listed.arms if isinstance(listed, ArmsListed) else None)
    wanted = {job.id for job in jobs if wake_at(job) is not None} | {record.id for record in unreadable}
    return Status(
        jobs=tuple(view.of_job(job, latest.get(job.id)) for job in jobs),
        orphans={
            job_id: None if at_us is None else datetime_of(at_us)
            for job_id, at_us in (view.arms or {}).items()
            if job_id not in wanted
        },
        trigger=view.trigger,
        pending=unfinished,
        may_stop=not any(each.is_busy for each in unfinished),
        trouble="" if view.arms is not None else because(_UNSAID, getattr(listed, "reason", "")),
        unreadable=unreadable + tuple(last for last in newest.values() if isinstance(last, Unreadable)),
        refused=refused,
        clock=why_doubted(process, now),
    )


class _View(Struct, frozen=True):
    """What is known besides the store: the process, the fires that were refused, and the arms."""

    process: Process
    now: Now
    refused: RefusedFires
    arms: Mapping[str, Instant | None] | None

    @property
    def trigger(self) -> str:
        """What fires the jobs."""
        return "this process" if self.process.ticker.is_ticking else "NAS"

    @property
    def is_idle(self) -> bool:
        """Whether the ticker is what fires the jobs, and does not."""
        return self.process.ticker.is_ticking and not self.process.ticker.is_running

    def of_job(self, job: Job, last: Outcome | None) -> JobStatus:
        """Say how one job stands."""
        wake_us, now_us = wake_at(job), clock_of(self.process.reading, self.now)
        arms = {} if self.is_idle else self.arms
        is_armed: bool | None = None
        if wake_us is None:
            is_armed, why = False, why_no_wake(job, now_us)
        elif now_us - wake_us > CLOCK_MARGIN_US:
            is_armed, why = False, self._why_overdue(job, wake_us, arms)
        elif arms is None:
            why = _UNSAID
        elif job.id not in arms:
            is_armed, why = False, self._why_no_arm(job)
        else:
            at_us = arms[job.id]
            is_armed = at_us is not None and at_us <= wake_us
            why = "armed" if at_us == wake_us else f"{self.trigger} has it armed for {_shown(at_us)}"
        late = None if last is None else lateness(last)
        return JobStatus(job=job, wake_us=wake_us, is_armed=is_armed, why=why, last=last, lateness=late)

    def _why_overdue(self, job: Job, wake_us: Instant, arms: Mapping[str, Instant | None] | None) -> str:
        """Say since when nothing has come for a job, and what is known of the cause."""
        if self.refused.last_us is not None and self.refused.last_us >= wake_us:
            cause = str(self.refused)
        elif arms is None:
            cause = _UNSAID
        elif job.id not in arms:
            cause = self._why_no_arm(job)
        else:
            cause = f"{self.trigger} has it armed for {_shown(arms[job.id])}, and no fire was taken"
        return f"overdue since {format_instant(wake_us)}: {cause}"

    def _why_no_arm(self, job: Job) -> str:
        if job.id in self.process.unsettled:
            return self.process.unsettled[job.id]
        if self.is_idle:
            return "nothing fires the jobs: the scheduler is not started, or it drains"
        return f"{self.trigger} has no arm for it"


def why_no_wake(job: Job, now_us: Instant) -> str:
    """Return in words why *job* needs no wake, where `wake_at` returns None."""
    if job.state is JobState.PAUSED:
        return f"paused: {job.note}" if job.note else "paused"
    if job.state is JobState.COMPLETED:
        return "completed"
    if not job.runs:
        return "its schedule has no occurrence left"
    lease_us = max(run.lease_until_us for run in job.runs)
    if now_us - lease_us > CLOCK_MARGIN_US:
        return f"its last run has not renewed its lease, which ended at {format_instant(lease_us)}"
    return "its last run is in flight"


def _shown(at_us: Instant | None) -> str:
    return "an instant that cannot be read" if at_us is None else format_instant(at_us)
