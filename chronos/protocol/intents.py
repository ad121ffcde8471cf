"""What a flow is for: a fire, the end of a run, a change of a job."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeAlias

from msgspec import Struct

from chronos.jobs.instants import Instant, moment, moment_or_none
from chronos.jobs.job import Job, Run
from chronos.protocol.draft import BY_NAS, Fired
from chronos.protocol.job_changes import Changes


class Fire(Struct, frozen=True, kw_only=True, cache_hash=True):
    """Answer a fire that names `fire_at_us`; with origin `RECOVERY`, the one that nobody sent.

    With `may_start` False nothing is taken: the process only sees to the arm.
    """

    job_id: str
    fire_at_us: Instant
    fired: Fired = BY_NAS
    may_start: bool = True

    fire_at = moment()


class Finish(Struct, frozen=True, kw_only=True, cache_hash=True):
    """End a run, and start what waited for that unless `may_start` is False.

    `confirm` says that NAS's answer to the arm is no promise that it still stands.
    """

    job_id: str
    run: Run
    succeeded: bool
    detail: str = ""
    confirm: bool = False
    may_start: bool = True


class RunNow(Struct, frozen=True, kw_only=True, cache_hash=True):
    """Start a run by hand; `asked_us` is its identity, None for one of its own that nobody repeats."""

    job_id: str
    asked_us: Instant | None

    asked = moment_or_none()


class Renew(Struct, frozen=True, kw_only=True, cache_hash=True):
    """Extend the lease of a run in flight."""

    job_id: str
    run: Run


class Create(Struct, frozen=True, kw_only=True, cache_hash=True):
    """Add a job."""

    job_id: str
    job: Job


class Edit(Struct, frozen=True, kw_only=True, cache_hash=True):
    """Change what a job's owner decides."""

    job_id: str
    changes: Changes


class Pause(Struct, frozen=True, kw_only=True, cache_hash=True):
    """Put a job's schedule out of force."""

    job_id: str
    note: str = ""


class Resume(Struct, frozen=True, kw_only=True, cache_hash=True):
    """Put a paused job's schedule in force again, with the slots it had or counted from now."""

    job_id: str
    from_now: bool = False


class Remove(Struct, frozen=True, kw_only=True, cache_hash=True):
    """Take a job out of the store."""

    job_id: str


class Declare(Struct, frozen=True, kw_only=True, cache_hash=True):
    """Make a job be what the agent declares: create it, or edit what differs.

    `is_relative` says that its schedule counts from the instant at which it is asked for.
    """

    job_id: str
    job: Job
    is_relative: bool


Intent: TypeAlias = Fire | Finish | RunNow | Renew | Create | Edit | Declare | Pause | Resume | Remove

_OF_A_RUN = (Finish, Renew)


def concerns(intent: Intent, run: Run) -> bool:
    """Return whether *intent* is to renew or to end *run*; it may be begun only after a while."""
    return isinstance(intent, _OF_A_RUN) and run.is_same_as(intent.run)


def key_of(intent: Intent) -> Hashable:
    """Return what two intents have in common of which one makes the other needless."""
    run = intent.run.key if isinstance(intent, _OF_A_RUN) else ()
    return (type(intent).__name__, intent.job_id, *run)
