"""Jobs as an agent declares them when it starts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from chronos import arguments
from chronos.contract.messages import CancelRequest
from chronos.errors import LocalMessageError
from chronos.jobs.data import json_of
from chronos.jobs.instants import Instant
from chronos.jobs.policy import Policy
from chronos.jobs.schedule import GivenSchedule, counts_from_now, declared_as, schedule_of
from chronos.protocol import job_changes
from chronos.protocol.intents import Declare


@attrs.frozen
class JobSpec:
    """A job as an agent declares it, for `Scheduler.declare`. It is checked when it is made.

    Attributes:
        id: unique among the jobs of the store.
        schedule: when it is due: text for `parse_schedule`, a `timedelta`, an aware `datetime`, or a value.
        tz: the time zone of the text, an IANA name or an offset.
        times: after how many occurrences the schedule stops; None for never.
        policy: what shall happen when something goes wrong; None for the defaults.
        data: a JSON value for the runner; None for nothing.

    Raises:
        ScheduleError: the schedule, its zone or *times* is none.
        DataError: the data is no JSON value, or too large.
        LocalMessageError: NAS could not be told of such an id.
        TypeError: *policy* is no `Policy`.
    """

    id: str
    schedule: GivenSchedule
    tz: str = attrs.field(default="UTC", kw_only=True)
    times: int | None = attrs.field(default=None, kw_only=True)
    policy: Policy | None = attrs.field(default=None, kw_only=True)
    data: Any = attrs.field(default=None, kw_only=True, hash=False)

    def __attrs_post_init__(self) -> None:
        checked_id(self.id)
        self.declared(0)

    def declared(self, now_us: Instant) -> Declare:
        """Return what is declared now, epoch microseconds."""
        arguments.instance("policy", self.policy, Policy, None)
        job = job_changes.wanted_job(
            self.id,
            schedule_of(self.schedule, now_us=now_us, tz=self.tz),
            now_us=now_us,
            times=self.times,
            policy=self.policy,
            data_json=json_of(self.data),
            declared=declared_as(self.schedule),
        )
        return Declare(job_id=self.id, job=job, is_relative=counts_from_now(self.schedule))


def checked_set(jobs: Iterable[JobSpec]) -> tuple[JobSpec, ...]:
    """Return a set of jobs.

    Raises:
        TypeError: it is none, or something in it is no `JobSpec`.
        ValueError: an id is in it more than once.
    """
    if isinstance(jobs, str | bytes) or not isinstance(jobs, Iterable):
        raise TypeError(f"jobs is {jobs!r}; expected JobSpec values")
    specs = tuple(jobs)
    seen: dict[str, int] = {}
    for place, spec in enumerate(specs):
        arguments.instance(f"jobs[{place}]", spec, JobSpec)
        if spec.id in seen:
            places = f"jobs[{seen[spec.id]}] and jobs[{place}]"
            raise ValueError(f"{places} have the id {spec.id!r}; expected each id once")
        seen[spec.id] = place
    return specs


def checked_id(job_id: str) -> str:
    """Return *job_id*; NAS could not be told of what is none."""
    try:
        CancelRequest(job_id=job_id)
    except LocalMessageError as error:
        raise LocalMessageError("job", "id", error.expected, error.found) from None
    return job_id
