"""Something is left behind."""

from __future__ import annotations

from datetime import datetime

from chronos.jobs.job import Job
from simulator.incidents.careful import Careful


class BelievesItsMap(Careful):
    """O1, O2: a map in memory says what is armed, whether or not NAS has agreed."""

    armed: dict[str, datetime | None] | None = None

    def start(self) -> None:
        """Ask once what is armed."""
        for job in self.store.list_jobs():
            self.look_after(job.id)
        if self.armed is None:
            try:
                self.armed = dict(self.nas.list_armed())
            except OSError:
                self.armed = {}
        self.reconcile()

    def reconcile(self) -> bool:
        """Make NAS agree where the map differs."""
        armed = self.armed or {}
        jobs = {job.id: job for job in self.store.list_jobs()}
        for job_id in {**jobs, **armed}:
            if armed.get(job_id) != self.wanted(jobs.get(job_id)):
                self.arm(job_id)
        return True

    def arm(self, job_id: str) -> bool:
        """Note that it is done, and try."""
        is_done = super().arm(job_id)
        self.armed = {**(self.armed or {}), job_id: self.wanted(self.store.get_job(job_id))}
        return is_done


class WaitsForTheLease(Careful):
    """O3: nothing tells that the owner of a claim is gone, and its lease blocks the job until it is over."""

    def look_after(self, job_id: str) -> None:
        """Leave what is claimed alone."""

    def claim(self, job_id: str, fire_at: datetime) -> Job | None:
        """Take nothing as long as somebody's lease lasts."""
        job = self.store.get_job(job_id)
        if job is not None and any(run.lease_until > self.now() for run in job.runs):
            return None
        return super().claim(job_id, fire_at)


class ArmsWhatItClaimed(Careful):
    """O4: what is armed after a run follows from the job as it was claimed; it may be removed since."""

    def work(self, job: Job | None) -> None:
        """Run, and arm what comes next for what was claimed."""
        assert job is not None
        self.store.complete(job.id, self.run(job))
        self.until_done(self.arm_claimed, job)

    def arm_claimed(self, job: Job) -> bool:
        """Arm the next occurrence of a job as it was."""
        try:
            self.ask(job.id, job.next, None)
        except OSError:
            return False
        return True
