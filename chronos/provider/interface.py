"""What a cron provider is, to the host that discovers it.

A provider decides when a job runs. Hosts find providers as plugins, choose one by the name in their
configuration (`chronos.provider.resolver`), start it in a thread, and pass fires on to it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Protocol, cast

from chronos import arguments
from chronos.jobs.instants import Instant


def check_stop_event(stop_event: object) -> None:
    """Refuse what cannot be waited for."""
    arguments.methods("stop_event", stop_event, "a threading.Event", "is_set", "wait")


def given_id(name: str, job: object) -> str:
    """Return the id in the record of a job.

    Raises:
        TypeError: it is no record.
        ValueError: it has no id.
    """
    arguments.instance(name, job, Mapping)
    job_id = cast(Mapping[str, Any], job).get("id")
    if not isinstance(job_id, str) or not job_id:
        raise ValueError(f"{name} has the id {job_id!r}; expected text that is not empty")
    return job_id


class CronScheduler(Protocol):
    """A cron provider. Threads may call its methods at the same time."""

    @property
    def name(self) -> str:
        """What the configuration calls it, such as `chronos`."""

    def is_available(self) -> bool:
        """Return whether the provider can do its work here.

        It looks at the configuration and the stored login alone: no network, no waiting. A provider
        that can say more has a method `why_unavailable()` as well, which returns the reason and the
        remedy as text, or an empty text when it is available; the resolver shows that.
        """

    def start(
        self, stop_event: threading.Event, *, adapters: Any = None, loop: Any = None, interval: float = 60
    ) -> None:
        """See to it that jobs run. Hosts call it in a thread of its own.

        A managed provider makes NAS agree with the jobs and returns: that is its normal end and not
        its death. A built-in one returns when it is stopped. Calling it again is harmless and costs
        one list request, so that a supervisor which restarts it does no damage (incident W7).

        Args:
            stop_event: set when the host stops; `stop` is then done by the provider itself.
            adapters: what the host delivers results with, for providers that run jobs with it.
            loop: the event loop of the host, likewise.
            interval: how often a ticker looks at its jobs, seconds, for those that have a period.
        """

    def stop(self) -> None:
        """Take no more fires. Runs in flight go on for as long as the process lives."""

    def on_jobs_changed(self) -> None:
        """Make NAS agree after a change of any job: created, edited, paused, resumed, removed.

        It does not raise: what could not be settled is tried again for a while, and at the next start.
        """

    def register_job(self, job: Mapping[str, Any]) -> None:
        """Arm a job that was just saved.

        Args:
            job: its record, of which `id` is read.

        Raises:
            NotSettled: the job is saved and its trigger is not registered; tell its author. The
                provider goes on trying for a while. Source: incident L3.
        """

    def reconcile(self) -> None:
        """Make NAS agree with all jobs: one list request, and one request for each difference.

        It does not raise, as `on_jobs_changed`.
        """

    def fire_due(self, job_id: str, *, adapters: Any = None, loop: Any = None) -> bool:
        """Claim what is due of a job, and run it: `claim_fire` and `fire_claimed` in one.

        Returns:
            True when this caller claimed it; False when there was nothing to claim.

        Raises:
            NotSettled: as for `claim_fire`.
        """

    def claim_fire(
        self, job_id: str, *, fire_at_us: Instant | None = None, force: bool = False, manual: bool = False
    ) -> dict[str, Any] | None:
        """Claim what is due of a job and arm what comes next, before the fire is answered.

        Args:
            job_id: which job.
            fire_at_us: the instant that the fire names, epoch microseconds, UTC. Pass it wherever it is
                known: without it, a fire that is delivered again is told from the next one by this
                machine's clock alone (incident D1).
            force: somebody asks for a run now, also of a paused job.
            manual: somebody asks for a run now. Neither takes a slot of the schedule (incident D2).

        Returns:
            What to pass to `fire_claimed`, once: answer 202. None when there is nothing to run, and
            what comes next is armed all the same (incidents L1, L7): answer 200.

        Raises:
            NotSettled: the jobs could not be read or changed, or NAS has not agreed; answer 503 with
                Retry-After.
            Exception: what keeps the jobs failed in a way of its own; answer the same.
        """

    def fire_claimed(
        self,
        claimed_job: dict[str, Any],
        *,
        adapters: Any = None,
        loop: Any = None,
        cancel_event: Any = None,
    ) -> bool:
        """Run what `claim_fire` returned; hosts call it after the answer, in a thread.

        Args:
            claimed_job: as `claim_fire` returned it.
            adapters: as for `start`.
            loop: as for `start`.
            cancel_event: set by the host to ask the run to end early, where jobs can.

        Returns:
            Whether it ran.
        """
