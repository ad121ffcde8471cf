"""Waking, clocks and time."""

from __future__ import annotations

from datetime import datetime, timedelta

from chronos.jobs.due import following
from chronos.jobs.instants import DAY_US, microseconds_of
from chronos.jobs.job import Job
from chronos.jobs.schedule import Interval
from chronos.values import evolve
from simulator.incidents.careful import MARGIN, Careful
from simulator.incidents.twice import OwnBooks


class SaysNothing(Careful):
    """W1: once a fire is answered, nothing tells the host that its work goes on."""

    def pending(self) -> bool:
        """Return whether anything goes on, as far as the host is told."""
        return False


class StartsFromNow(Careful):
    """W3, S4: a start moves every job to its next occurrence from now; what was missed is in no history."""

    def claim(self, job_id: str, fire_at: datetime) -> Job | None:
        """Take what is in time; the rest is no more."""
        job = self.store.get_job(job_id)
        if job is None or job.next is None or job.next >= self.now() - MARGIN:
            return super().claim(job_id, fire_at)
        next_us = following(job, microseconds_of(self.now()))
        self.store.save(evolve(job, next_us=next_us), expected=job)
        return None

    def look_after(self, job_id: str) -> None:
        """Leave it to its fire."""


class BelievesItsClock(OwnBooks):
    """W4: what comes next follows from the machine's clock, which may be behind: the same comes again."""

    def claim(self, job_id: str, fire_at: datetime) -> Job | None:
        """Take the occurrence that the fire names, and move on from now."""
        job = self.store.get_job(job_id)
        if job is None or job.runs or job.next is None or job.next > fire_at:
            return None
        claimed = evolve(
            self.claimed(job, microseconds_of(fire_at)), next_us=following(job, microseconds_of(self.now()))
        )
        return claimed if self.store.save(claimed, expected=job) else None


class ForgetsItsRunsAtAStart(Careful):
    """W7: whoever starts it again, since starting returned, has it believe that nothing of it runs."""

    def look_after(self, job_id: str) -> None:
        """Take all claims for those of dead processes, and run again what was claimed."""
        job = self.store.get_job(job_id)
        if job is not None and job.runs:
            self.begin(job)


class CountsInDays(OwnBooks):
    """S2: the next day is so many hours later, by whatever clock; also when that is set."""

    def claim(self, job_id: str, fire_at: datetime) -> Job | None:
        """Take the occurrence, and move on by a day."""
        job = self.store.get_job(job_id)
        if job is None or job.runs or job.next_us is None or microseconds_of(fire_at) < job.next_us:
            return None
        claimed = evolve(self.claimed(job, job.next_us), next_us=job.next_us + DAY_US)
        return claimed if self.store.save(claimed, expected=job) else None


class CountsFromTheEnd(Careful):
    """S3: an interval counts from the end of its run, and drifts by the length of it."""

    def work(self, job: Job | None) -> None:
        """Run, and let the interval begin anew."""
        assert job is not None
        job_id = job.id
        self.store.complete(job_id, self.run(job))
        stored = self.store.get_job(job_id)
        if stored is not None and isinstance(stored.schedule, Interval):
            later = self.now() + timedelta(microseconds=stored.schedule.period_us)
            self.store.save(evolve(stored, next_us=microseconds_of(later)), expected=stored)
        self.until_done(self.arm, job_id)


class AnchorsAtAChange(Careful):
    """S8: every change of the jobs lets their intervals begin anew, also one that changes nothing."""

    def on_jobs_changed(self) -> bool:
        """Count every interval from now."""
        for job in self.store.list_jobs():
            if isinstance(job.schedule, Interval) and not job.runs:
                later = self.now() + timedelta(microseconds=job.schedule.period_us)
                self.store.save(evolve(job, next_us=microseconds_of(later)), expected=job)
        return super().on_jobs_changed()


class ComparesMicroseconds(Careful):
    """T1: a fire must come at the occurrence or later, to the microsecond; NAS keeps whole seconds."""

    def claim(self, job_id: str, fire_at: datetime) -> Job | None:
        """Take nothing before its time; look for it a while."""
        job = self.store.get_job(job_id)
        if job is None or job.next is None or job.next > fire_at:
            self.sleep(20)
            return None
        return super().claim(job_id, fire_at)

    def wanted(self, job: Job | None) -> datetime | None:
        """Return the occurrence as it is, and not the whole second in which it has come."""
        return None if job is None else job.next


class BelievesEveryFire(OwnBooks):
    """T2: what a fire names has come, however far ahead it is."""

    def claim(self, job_id: str, fire_at: datetime) -> Job | None:
        """Take the last occurrence up to what the fire names."""
        job = self.store.get_job(job_id)
        if job is None or job.runs or job.next is None or job.next > fire_at:
            return None
        claimed = self.claimed(job, microseconds_of(fire_at))
        return claimed if self.store.save(claimed, expected=job) else None


class BelievesAClockAhead(Careful):
    """T3: what its clock says is overdue is taken at a start, on its word alone."""

    def look_after(self, job_id: str) -> None:
        """Take what is overdue by the machine's clock."""
        job = self.store.get_job(job_id)
        if job is not None and job.next is not None and job.next <= self.now():
            job = self.store.claim(job_id, self.now())
            if job is not None:
                self.begin(job)


class CountsOneByOne(Careful):
    """T4: what was missed is counted one by one, and nobody is answered meanwhile."""

    def claim(self, job_id: str, fire_at: datetime) -> Job | None:
        """Visit every occurrence that is due, a millisecond each."""
        job = self.store.get_job(job_id)
        due_us = None if job is None else job.next_us
        visited, until_us = 0, microseconds_of(self.now())
        while job is not None and due_us is not None and due_us <= until_us:
            due_us = following(job, due_us)
            visited += 1
        self.sleep(visited / 1000)
        return super().claim(job_id, fire_at)
