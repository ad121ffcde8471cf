"""Files, profiles, and what is told."""

from __future__ import annotations

from datetime import datetime

from chronos.jobs.due import following
from chronos.jobs.job import Job
from chronos.jobs.schedule import Cron
from chronos.values import evolve
from simulator.incidents.careful import Careful
from simulator.incidents.twice import OwnBooks


class WritesWhatItRead(OwnBooks):
    """S1: the end of a run writes the record as it was read for it, and what changed meanwhile is lost."""

    def work(self, job: Job | None) -> None:
        """Run, and write the record back without its claim."""
        assert job is not None
        self.run(job)
        self.store.complete(job.id)
        self.store.save(evolve(job, runs=()))
        self.until_done(self.arm, job.id)


class LockedOut(Careful):
    """S5: whoever changes the jobs owns the lock, and the agent cannot write again what is not its own."""

    def claim(self, job_id: str, fire_at: datetime) -> Job | None:
        """Take what a fire is for, if the agent was the last to write the job."""
        job = self.store.get_job(job_id)
        if job is not None and job.note not in ("", str(job.revision)):
            raise PermissionError("the lock file belongs to somebody else")
        claimed = super().claim(job_id, fire_at)
        self.sign(job_id)
        return claimed

    def look_after(self, job_id: str) -> None:
        """Leave it to its fire."""

    def work(self, job: Job | None) -> None:
        """Run, and note who has written."""
        assert job is not None
        job_id = job.id
        self.store.complete(job_id, self.run(job))
        self.sign(job_id)

    def sign(self, job_id: str) -> None:
        """Note that the agent has written the job last."""
        job = self.store.get_job(job_id)
        if job is not None:
            self.store.save(evolve(job, note=str(job.revision)), expected=job)


class ReadsAllOrNothing(Careful):
    """S6: one record that it cannot read, and it runs none."""

    def reconcile(self) -> bool:
        """Read every record; each must be a cron expression."""
        for job in self.store.list_jobs():
            if not isinstance(job.schedule, Cron):
                raise ValueError(f"job {job.id}: cannot read the schedule")
        return super().reconcile()


class ReadsSecondsLast(OwnBooks):
    """S7: of six fields, it takes the first for the minute and the last for the second."""

    def claim(self, job_id: str, fire_at: datetime) -> Job | None:
        """Take what is due, and move on by its own reading."""
        job = self.store.get_job(job_id)
        if job is None or job.runs or job.next_us is None or job.next is None or job.next > fire_at:
            return None
        assert isinstance(job.schedule, Cron)
        five = " ".join(job.schedule.expr.split()[:5])
        read = evolve(job, schedule=Cron(expr=five, tz=job.schedule.tz))
        claimed = evolve(self.claimed(job, job.next_us), next_us=following(read, job.next_us))
        return claimed if self.store.save(claimed, expected=job) else None


class SaysAllIsWell(Careful):
    """V2: what a job raises is swallowed, and its run is recorded as any other."""

    def work(self, job: Job | None) -> None:
        """Run, and record that it was done."""
        assert job is not None
        job_id = job.id
        self.run(job)
        self.store.complete(job_id)
        self.until_done(self.arm, job_id)


class LosesItsProfile(Careful):
    """H1: a retry runs in the profile of whoever came last, finds no such job there, and disarms it."""

    profile = ""

    def fire(self, job_id: str, fire_at: datetime) -> int:
        """Look into the profile that the job is of; what NAS does not answer is tried later."""
        self.profile = job_id.partition("-")[0]
        job = self.claim(job_id, fire_at)
        if job is not None:
            self.begin(job)
        if not self.arm(job_id):
            self.spawn(self.arm_later, job_id)
        return 202

    def work(self, job: Job | None) -> None:
        """Run: it is armed already."""
        assert job is not None
        self.store.complete(job.id, self.run(job))

    def arm_later(self, job_id: str) -> None:
        """Try again, in the profile that is the present one by then."""
        self.sleep(20)
        if job_id.startswith(self.profile):
            self.until_done(self.arm, job_id)
        else:
            self.ask(job_id, None, None)
