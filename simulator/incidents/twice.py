"""It runs twice, or at the wrong time."""

from __future__ import annotations

from datetime import datetime, timedelta

from chronos.jobs.due import following
from chronos.jobs.instants import microseconds_of
from chronos.jobs.job import LEASE_US, Job, JobState, Origin, Run
from chronos.values import evolve
from simulator.incidents.careful import Careful


class OwnBooks(Careful):
    """Keeps its claims by itself, record by record; what is wrong with them is in the classes below."""

    def claimed(self, job: Job, occurrence_us: int, origin: Origin = Origin.SCHEDULE) -> Job:
        """Return a job with a claim of an occurrence, moved on behind it."""
        now_us = microseconds_of(self.now())
        run = Run(
            occurrence_us=occurrence_us,
            attempt=1,
            owner="agent",
            claimed_us=now_us,
            lease_until_us=now_us + LEASE_US,
            origin=origin,
        )
        next_us = following(job, occurrence_us)
        state = job.state if next_us is not None else JobState.COMPLETED
        return evolve(job, runs=(run,), next_us=next_us, state=state, revision=job.revision + 1)


class ForgetsAtTheEnd(OwnBooks):
    """D1, W2: whether an occurrence was run is known while it runs; afterwards its fire runs it again."""

    def claim(self, job_id: str, fire_at: datetime) -> Job | None:
        """Take the occurrence that the fire names, unless a run is in progress."""
        job = self.store.get_job(job_id)
        if job is None or job.runs:
            return None
        claimed = self.claimed(job, microseconds_of(fire_at))
        return claimed if self.store.save(claimed, expected=job) else None


class TakesTheNextSlot(OwnBooks):
    """D2: a run by hand takes the identity of the next occurrence, whose fire then finds nothing to do."""

    def run_now(self, job_id: str) -> None:
        """Take the next occurrence, whenever it is."""
        job = self.store.get_job(job_id)
        if job is None or job.next_us is None or job.runs:
            return
        claimed = self.claimed(job, job.next_us)
        if self.store.save(claimed, expected=job):
            self.begin(claimed)
        self.until_done(self.arm, job_id)


class ReadsThenWrites(OwnBooks):
    """D3: it reads the record and writes it, whatever has happened to it between."""

    def claim(self, job_id: str, fire_at: datetime) -> Job | None:
        """Take what is due, over whatever stands there by then."""
        job = self.store.get_job(job_id)
        if job is None or job.runs or job.next is None or job.next > fire_at:
            return None
        claimed = self.claimed(job, microseconds_of(fire_at))
        self.store.save(claimed)
        return claimed


class NeverRenews(Careful):
    """D4: the lease of a run is not renewed, and is over before the run is."""

    def keep(self, job_id: str) -> None:
        """Trust that no run takes so long."""


class WaitsForItsOwnLock(Careful):
    """D5: the renewal waits for a lock that the run holds; the run ends well, and is recorded as failed."""

    def work(self, job: Job | None) -> None:
        """Run, renew when the lock is free, and believe that a lease which is over means a failure."""
        assert job is not None
        job_id, began = job.id, self.now()
        self.run(job)
        is_over = self.now() - began > timedelta(microseconds=LEASE_US)
        self.store.complete(job_id, not is_over)
        self.until_done(self.arm, job_id)


class LooksAtTheScheduleAlone(Careful):
    """D6: what is armed after a run follows from the schedule, whether or not it is in force."""

    def work(self, job: Job | None) -> None:
        """Run, and arm the next occurrence of the schedule."""
        assert job is not None
        job_id = job.id
        self.store.complete(job_id, self.run(job))
        stored = self.store.get_job(job_id)
        self.ask(job_id, None if stored is None else stored.next, stored)


class DropsTheLate(Careful):
    """D7: what is late is dropped, without a trace; or runs, however late."""

    def claim(self, job_id: str, fire_at: datetime) -> Job | None:
        """Take what is in time; what is late is moved on, and forgotten."""
        job = self.store.get_job(job_id)
        if job is None or job.next is None or job.next > self.now() - timedelta(hours=1):
            return super().claim(job_id, fire_at)
        next_us = following(job, microseconds_of(self.now()))
        state = job.state if next_us is not None else JobState.COMPLETED
        self.store.save(evolve(job, next_us=next_us, state=state), expected=job)
        return None

    def look_after(self, job_id: str) -> None:
        """Leave it to its fire."""


class MovesOnWithoutAClaim(OwnBooks):
    """D8: the job is moved on before its run, and nothing says that the run is still to come."""

    def claim(self, job_id: str, fire_at: datetime) -> Job | None:
        """Move on, and run what was next."""
        job = self.store.get_job(job_id)
        if job is None or job.next is None or job.next > fire_at:
            return None
        moved = evolve(self.claimed(job, microseconds_of(fire_at)), runs=())
        return job if self.store.save(moved, expected=job) else None

    def work(self, job: Job | None) -> None:
        """Run; there is nothing to end."""
        assert job is not None
        self.run(job)
