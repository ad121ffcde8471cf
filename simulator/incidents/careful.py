"""A small scheduler that keeps the protocol. The agents of the incidents are it, with one mistake each."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from chronos.jobs.job import Job
from simulator.own.environment import Nas, Store

# How far clocks may differ: what is overdue by less is left to its fire.
MARGIN = timedelta(minutes=1)
RENEW_EVERY = 100.0
RETRY_AFTER = (1, 5, 15, 30)


class Careful:
    """Claims, arms, answers, runs; then arms what comes next.

    Args:
        store: the jobs.
        nas: arms and disarms them.
        run: runs one.
        now: what the machine's clock shows.
        sleep: waits, seconds.
        spawn: begins something beside.
        stopped: whether the agent is told to run no jobs.
    """

    def __init__(
        self,
        store: Store,
        nas: Nas,
        run: Callable[[Job], bool],
        now: Callable[[], datetime],
        sleep: Callable[[float], None],
        spawn: Callable[..., None],
        stopped: Callable[[], bool],
    ) -> None:
        self.store, self.nas, self.run = store, nas, run
        self.now, self.sleep, self.spawn, self.stopped = now, sleep, spawn, stopped

    # --- what the host, people and NAS ask for ---

    def start(self) -> None:
        """Look after what the process before has left, and make NAS agree."""
        if not self.stopped():
            for job in self.store.list_jobs():
                self.look_after(job.id)
        self.until_done(self.reconcile)

    def on_jobs_changed(self) -> bool:
        """Make NAS agree; somebody has changed the jobs, and is told when it does not."""
        return self.until_done(self.reconcile)

    def fire(self, job_id: str, fire_at: datetime) -> int:
        """Claim what the fire is for, arm what comes next, and answer; run it meanwhile."""
        if self.stopped():
            return 200
        try:
            job = self.claim(job_id, fire_at)
        except OSError:
            return 503
        if job is not None:
            self.begin(job)
        if not self.arm(job_id):
            return 503
        return 200 if job is None else 202

    def run_now(self, job_id: str) -> None:
        """Run a job because somebody wants it now."""
        job = self.store.claim_now(job_id)
        if job is not None:
            self.begin(job)
        self.until_done(self.arm, job_id)

    # --- runs ---

    def claim(self, job_id: str, fire_at: datetime) -> Job | None:
        """Take what a fire is for."""
        return self.store.claim(job_id, fire_at)

    def look_after(self, job_id: str) -> None:
        """End what the process before has left of a job, and take what is overdue."""
        job = self.store.recover(job_id)
        if job is not None and job.next is not None and job.next < self.now() - MARGIN:
            job = self.store.claim(job_id, job.next)
            if job is not None:
                self.begin(job)

    def begin(self, job: Job) -> None:
        """Run what was claimed, beside what goes on."""
        self.spawn(self.work, job)

    def work(self, job: Job | None) -> None:
        """Run what was claimed, what waited for its end, and arm what comes next."""
        assert job is not None
        job_id = job.id
        self.spawn(self.keep, job_id)
        while job is not None:
            job = self.store.complete(job_id, self.run(job))
        self.until_done(self.arm, job_id)

    def keep(self, job_id: str) -> None:
        """Renew the lease of what runs."""
        while self.store.renew(job_id):
            self.sleep(RENEW_EVERY)

    # --- arms ---

    def reconcile(self) -> bool:
        """Make NAS agree on every job; return whether it does."""
        try:
            armed = self.nas.list_armed()
            jobs = {job.id: job for job in self.store.list_jobs()}
        except OSError:
            return False
        is_done = True
        for job_id in {**jobs, **armed}:
            if armed.get(job_id) != self.wanted(jobs.get(job_id)):
                is_done = self.arm(job_id) and is_done
        return is_done

    def arm(self, job_id: str) -> bool:
        """Make NAS agree on a job; return whether it does."""
        try:
            job = self.store.get_job(job_id)
            self.ask(job_id, self.wanted(job), job)
        except OSError:
            return False
        return True

    def wanted(self, job: Job | None) -> datetime | None:
        """Return when a job must be fired next."""
        return self.store.next_fire(job)

    def ask(self, job_id: str, at: datetime | None, job: Job | None) -> None:
        """Ask NAS to arm a job, or to disarm it."""
        order: dict[str, Any] = {} if job is None else {"revision": job.revision}
        if at is None:
            self.nas.cancel(job_id=job_id, **order)
        else:
            self.nas.provision(job_id=job_id, fire_at=at, **order)

    def until_done(self, step: Callable[..., bool], *arguments: Any) -> bool:
        """Try something for about a minute; return whether it was done."""
        for seconds in RETRY_AFTER:
            if step(*arguments):
                return True
            self.sleep(seconds)
        return step(*arguments)


class BelievesTheList(Careful):
    """Its start arms everything where nothing is armed, and otherwise believes that all is well."""

    def start(self) -> None:
        """Ask what is armed."""
        try:
            is_empty = not self.nas.list_armed()
        except OSError:
            return
        if is_empty:
            self.until_done(self.reconcile)
