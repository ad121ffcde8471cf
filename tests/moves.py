"""The protocol's moves as tests of stores make them: a claim of an occurrence, and the end of its run."""

from __future__ import annotations

import time

from chronos.jobs.job import Job, Move, Verdict
from chronos.protocol import transitions
from chronos.stores import JobStore


def claimed(job: Job | None, fire_at_us: int, owner: str) -> Move:
    """Decide a fire of the occurrence at *fire_at_us*, a moment after it."""
    return transitions.fire(job, fire_at_us=fire_at_us, now_us=fire_at_us + 7, owner=owner)


def ended(job: Job | None, claim: Move, now_us: int) -> Move:
    """Decide the good end of the run that *claim* started."""
    (run,) = claim.runs
    return transitions.finish(job, run=run, succeeded=True, detail="", now_us=now_us)


def claim_and_end(store: JobStore, job_id: str, fire_at_us: int, owner: str) -> bool:
    """Claim one occurrence and end its run; return False when somebody else has claimed it.

    While a run is in flight its end is waited for: the occurrence would be skipped otherwise, and
    every one is to be claimed here.
    """
    while True:
        job = store.load(job_id)
        claim = claimed(job, fire_at_us, owner)
        if claim.verdict is Verdict.SKIPPED:
            time.sleep(0.001)
            continue
        if claim.verdict is not Verdict.ACCEPTED:
            return False
        if store.swap(job_id, expected=job, replacement=claim.job, outcomes=claim.outcomes):
            break
    while True:
        job = store.load(job_id)
        end = ended(job, claim, fire_at_us + 9)
        assert end.verdict is Verdict.CHANGED, end.reason
        if store.swap(job_id, expected=job, replacement=end.job, outcomes=end.outcomes):
            return True
