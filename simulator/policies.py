"""Policies drawn at random, so that a campaign goes through every combination of them."""

from __future__ import annotations

import random

from chronos.jobs.instants import DAY_US, HOUR_US, MINUTE_US, SECOND_US, Instant
from chronos.jobs.job import Job
from chronos.jobs.policy import CatchUp, OnInterrupt, Overlap, Policy
from chronos.values import evolve

# Where the policies of a run come from: the jobs themselves, or chance.
SOURCES = ("own", "random")

# Every so many-th job has a bound of its schedule, or repeats a number of times.
_BOUNDED = 6


def drawn(jobs: tuple[Job, ...], seed: int, *, start_us: Instant) -> tuple[Job, ...]:
    """Return *jobs* with policies by chance; the same seed gives the same.

    Args:
        jobs: as the store holds them at the start.
        seed: selects the policies.
        start_us: the start of the simulation; bounds of a schedule lie some days after it.
    """
    chance = random.Random(f"policies of seed {seed}")
    return tuple(_with_policy(job, chance, start_us) for job in jobs)


def _with_policy(job: Job, chance: random.Random, start_us: Instant) -> Job:
    is_ended, is_counted = chance.randrange(_BOUNDED) == 0, chance.randrange(_BOUNDED) == 0
    ends_us = start_us + chance.randrange(2, 40) * DAY_US
    times = job.completed + chance.randrange(2, 400)
    policy = Policy(
        misfire_grace_us=chance.choice((None, None, 0, 90 * SECOND_US, 20 * MINUTE_US, 6 * HOUR_US)),
        catch_up=chance.choice(tuple(CatchUp)),
        catch_up_limit=chance.choice((1, 2, 10)),
        overlap=chance.choice(tuple(Overlap)),
        on_interrupt=chance.choice(tuple(OnInterrupt)),
        attempts=chance.choice((1, 2, 4)),
        retry_delay_us=chance.choice((10 * SECOND_US, MINUTE_US, 30 * MINUTE_US)),
        retry_max_delay_us=chance.choice((MINUTE_US, HOUR_US)),
        time_limit_us=chance.choice((None, None, 15 * SECOND_US, 5 * MINUTE_US, HOUR_US)),
        ends_us=ends_us if is_ended and (job.next_us or start_us) < ends_us else None,
    )
    return evolve(job, policy=policy, times=times if is_counted and job.times is None else job.times)
