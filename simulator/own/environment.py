"""What the factory of an agent is given. Each call is a point at which time passes, or the process dies.

Where the agent is `async`, each call is awaited.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

from chronos.jobs.due import wake_at
from chronos.jobs.instants import SECOND_US, Instant, datetime_of, instant_of
from chronos.jobs.job import Job, Outcome
from chronos.protocol.flow_effects import CancelArm, ProvisionArm
from simulator.own.library import ANYTHING, Asking, Library, Wait

# How long NAS may take for an answer, unless the agent says otherwise; seconds.
TIMEOUT = 10.0

Drive = Callable[[Asking[Any]], Any]


class Store:
    """The durable jobs of the agent, which all of its processes share.

    A job is a `chronos.jobs.job.Job`: `id`, `next` (the earliest occurrence that nobody has taken, an aware
    datetime or None), `state`, `schedule`, `policy`, and `runs`, the claims. Each call raises `OSError` when
    the store fails; what it should have written may be written all the same.
    """

    def __init__(self, library: Library, drive: Drive) -> None:
        self._library, self._drive = library, drive

    def list_jobs(self) -> list[Job]:
        """Return all jobs."""
        return self._drive(self._library.list_jobs())  # type: ignore[no-any-return]

    def get_job(self, job_id: str) -> Job | None:
        """Return a job; None when there is none of that id."""
        return self._drive(self._library.get_job(job_id))  # type: ignore[no-any-return]

    def claim(self, job_id: str, fire_at: datetime | None = None) -> Job | None:
        """Take what is due of a job, by one compare-and-set, and move it on.

        What has come too late, or is in progress, gets its outcome with that; so do the runs of processes
        that have ended.

        Args:
            job_id: which job.
            fire_at: up to which instant, as the fire names it; by the machine's clock without one.

        Returns:
            The job with its claim among its `runs`; None when there is nothing to run.
        """
        return self._drive(self._library.claim(job_id, _us("fire_at", fire_at)))  # type: ignore[no-any-return]

    def claim_now(self, job_id: str) -> Job | None:
        """Take a run by hand, which has an identity of its own; None when that was taken before."""
        return self._drive(self._library.claim_now(job_id))  # type: ignore[no-any-return]

    def recover(self, job_id: str) -> Job | None:
        """End the runs of processes that have ended, and take nothing; return the job."""
        return self._drive(self._library.recover(job_id))  # type: ignore[no-any-return]

    def renew(self, job_id: str) -> bool:
        """Extend the lease of what was claimed here, 300 s; return whether it still is ours."""
        return self._drive(self._library.renew(job_id))  # type: ignore[no-any-return]

    def complete(self, job_id: str, succeeded: bool = True) -> Job | None:
        """End what was claimed here of a job.

        Returns:
            The job with a further claim, where that was the end for which another occurrence waited.
        """
        return self._drive(self._library.complete(job_id, succeeded))  # type: ignore[no-any-return]

    def save(self, job: Job, *, expected: Job | None = ANYTHING, outcomes: tuple[Outcome, ...] = ()) -> bool:
        """Write a record as it is, for an agent that keeps its own books.

        Args:
            job: what is to be stored.
            expected: only if the store still holds this; anything, when it is left out.
            outcomes: the occurrences that end with that.

        Returns:
            Whether it was written.
        """
        return self._drive(self._library.save(job, expected, outcomes))  # type: ignore[no-any-return]

    @staticmethod
    def next_fire(job: Job | None) -> datetime | None:
        """Return when the agent must be woken for a job next; None when it need not be. Asks nobody."""
        wake_us = None if job is None else wake_at(job)
        return None if wake_us is None else datetime_of(wake_us)


class Nas:
    """The control plane, over the network: it arms one external one-shot for each job.

    Each call raises `TimeoutError` when no answer came (it may have been done all the same), `NasError` with
    `retry_after` seconds when NAS asks to be asked later, and `PermissionError` when it refuses the agent's
    identity; all of them are `OSError`.
    """

    def __init__(self, library: Library, drive: Drive) -> None:
        self._library, self._drive = library, drive

    def provision(
        self,
        *,
        job_id: str,
        fire_at: datetime,
        agent_callback_url: str = "",  # noqa: ARG002 - of the contract
        dedup_key: str = "",  # noqa: ARG002 - of the contract
        revision: int | None = None,
        timeout: float = TIMEOUT,
    ) -> bool:
        """Arm a job at an instant, in place of whatever is armed for it.

        Args:
            job_id: which job.
            fire_at: when.
            agent_callback_url: where the fire shall go; there is one place.
            dedup_key: names job and instant; so does this NAS, whatever is given.
            revision: orders the messages about a job (contract 1.1); without one, the last to arrive wins.
            timeout: how long to wait for the answer, seconds.

        Returns:
            False where NAS has seen a newer revision.
        """
        fire_at_us = _us("fire_at", fire_at)
        assert fire_at_us is not None
        effect = ProvisionArm(job_id=job_id, fire_at_us=fire_at_us, revision=revision)  # type: ignore[arg-type]
        return self._drive(self._library.order(effect, span_us("timeout", timeout)))  # type: ignore[no-any-return]

    def cancel(self, *, job_id: str, revision: int | None = None, timeout: float = TIMEOUT) -> bool:
        """Disarm a job; the arguments and the result are those of `provision`."""
        effect = CancelArm(job_id=job_id, revision=revision)  # type: ignore[arg-type]
        return self._drive(self._library.order(effect, span_us("timeout", timeout)))  # type: ignore[no-any-return]

    def list_armed(self, *, timeout: float = TIMEOUT) -> dict[str, datetime]:
        """Return when each job that is armed will be fired."""
        return self._drive(self._listed(span_us("timeout", timeout)))  # type: ignore[no-any-return]

    def _listed(self, within_us: int) -> Asking[dict[str, datetime]]:
        armed = yield from self._library.list_armed(within_us)
        return {job_id: datetime_of(at_us) for job_id, at_us in armed.items() if at_us is not None}


def _us(name: str, moment: datetime | None) -> Instant | None:
    return instant_of(name, moment, None)


def span_us(name: str, seconds: float) -> int:
    """Return so many seconds in microseconds.

    Raises:
        ValueError: they are less than none.
    """
    if not seconds >= 0:
        raise ValueError(f"{name} is {seconds!r}; expected seconds, 0 or more")
    return round(seconds * SECOND_US)


# --- what a factory is given ------------------------------------------------------------------


class Driver(Protocol):
    """What the environment asks of the process that it is around."""

    library: Library

    def drive(self, asking: Asking[Any]) -> Any:
        """Answer a call of the agent."""

    def spawn(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Begin something beside what goes on."""

    def wall_us(self) -> Instant:
        """Return what the machine's clock shows, epoch microseconds."""

    def is_stopped(self) -> bool:
        """Return whether the agent is told to run no jobs."""


def given_to(process: Driver) -> dict[str, Any]:
    """Return what a factory may name."""
    drive, library = process.drive, process.library

    def run(job: Job) -> Any:
        return drive(library.run(job))

    def sleep(seconds: float) -> Any:
        return drive(_slept(span_us("seconds", seconds)))

    def now() -> datetime:
        return datetime_of(process.wall_us())

    return {
        "store": Store(library, drive),
        "nas": Nas(library, drive),
        "now": now,
        "run": run,
        "sleep": sleep,
        "spawn": process.spawn,
        "stopped": process.is_stopped,
    }


GIVEN = ("store", "nas", "now", "run", "sleep", "spawn", "stopped")


def named_by(factory: Callable[..., Any]) -> list[str]:
    """Return which of `GIVEN` a factory names.

    Raises:
        TypeError: it wants something else.
    """
    names = []
    for name, each in inspect.signature(factory).parameters.items():
        if each.kind is each.VAR_KEYWORD:
            return list(GIVEN)
        if name in GIVEN and each.kind is not each.POSITIONAL_ONLY:
            names.append(name)
        elif each.default is each.empty and each.kind is not each.VAR_POSITIONAL:
            raise TypeError(f"it wants {name!r}; there are {', '.join(GIVEN)}, by keyword")
    return names


def _slept(for_us: int) -> Asking[None]:
    yield Wait(for_us)
