"""The chain breaks: a job never fires again."""

from __future__ import annotations

from datetime import datetime

from chronos.jobs.job import Job
from simulator.incidents.careful import BelievesTheList, Careful


class Unheard(Careful):
    """L3: what NAS does not answer to a change is swallowed, and nobody is told."""

    def on_jobs_changed(self) -> bool:
        """Try once, and call it done."""
        self.reconcile()
        return True


class TakesARefusalForAFailure(Careful):
    """L4: it takes the refusal of its identity for a failure that passes, and answers as if all were well."""

    def fire(self, job_id: str, fire_at: datetime) -> int:
        """Leave an arm that NAS refuses to the next run."""
        job = self.claim(job_id, fire_at)
        if job is not None:
            self.begin(job)
        self.arm(job_id)
        return 202


class ArmsAfterTheRun(BelievesTheList):
    """L5, L6: the fire is answered at once, and the next one is armed after the run, as well as that goes."""

    def fire(self, job_id: str, fire_at: datetime) -> int:
        """Claim and answer."""
        job = self.claim(job_id, fire_at)
        if job is None:
            return 200 if self.arm(job_id) else 503
        self.begin(job)
        return 202

    def work(self, job: Job | None) -> None:
        """Run, and arm once; a warning in the log is all that a failure leaves."""
        assert job is not None
        job_id = job.id
        while job is not None:
            job = self.store.complete(job_id, self.run(job))
        self.arm(job_id)


class BelievesTheFirst(BelievesTheList):
    """L7: who finds an occurrence claimed believes that the first delivery has finished its work."""

    def fire(self, job_id: str, fire_at: datetime) -> int:
        """Answer a duplicate, and arm nothing for it."""
        job = self.claim(job_id, fire_at)
        if job is None:
            return 200
        self.begin(job)
        return 202 if self.arm(job_id) else 503

    def work(self, job: Job | None) -> None:
        """Run: it is armed already."""
        assert job is not None
        self.store.complete(job.id, self.run(job))


class TakenAnotherWay(BelievesTheFirst):
    """L1: a run by hand takes what is due; neither it nor the fire that comes too late arms the next one."""

    def run_now(self, job_id: str) -> None:
        """Take the occurrence that is due, and leave the arm to its fire."""
        job = self.store.claim(job_id)
        if job is not None:
            self.begin(job)


class Unordered(Careful):
    """L9: messages about a job carry no order, so that the last to arrive is right."""

    def ask(self, job_id: str, at: datetime | None, job: Job | None) -> None:  # noqa: ARG002 - a seam
        """Ask without the revision."""
        super().ask(job_id, at, None)


class AnswersStopWithFailure(BelievesTheList):
    """L12: told to stop, it answers as for a failure that passes, and its start looks at nothing."""

    def fire(self, job_id: str, fire_at: datetime) -> int:
        """Turn a fire away while the agent is stopped, and let NAS repeat it."""
        return 503 if self.stopped() else super().fire(job_id, fire_at)


class GivesUp(Careful):
    """L14: a start asks NAS once, gives up when it is away, and believes that all is armed from then on."""

    def start(self) -> None:
        """Ask once, unless the agent is told to run nothing."""
        if self.stopped():
            return
        for job in self.store.list_jobs():
            self.look_after(job.id)
        self.reconcile()

    def look_after(self, job_id: str) -> None:
        """Take what is overdue, and try once to arm what comes next."""
        job = self.store.get_job(job_id)
        if job is not None and job.next is not None and job.next < self.now():
            job = self.store.claim(job_id, job.next)
            if job is not None:
                self.spawn(self.only_run, job)

    def only_run(self, job: Job) -> None:
        """Run it; the start has armed the next one."""
        self.store.complete(job.id, self.run(job))
