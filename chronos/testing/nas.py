"""NAS, as pure functions of one row: what it answers, keeps, creates and drops.

A NAS is the set of `Promises` it keeps. `MINIMAL` keeps what the published contract says and no
more; `HARDENED` keeps all that turned out to be needed. The NAS that an agent is tested with, the timed
simulation and the exhaustive search perform the same decisions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from chronos.jobs.instants import DAY_US, MINUTE_US, SECOND_US, Instant
from chronos.values import evolve

# After how long NAS looks again for a one-shot that is missing, or whose retries were spent; the
# last delay repeats. An outage of an hour must not cost more than another one.
SWEEP_DELAYS_US = (5 * MINUTE_US, 15 * MINUTE_US, 30 * MINUTE_US, 60 * MINUTE_US)

# How long NAS waits for the agent's answer to a fire. Source: design.
RELAY_TIMEOUT_US = 30 * SECOND_US

# How long a fire token is good. Source: contract, "Trust".
TOKEN_LIFE_US = 90 * SECOND_US

# When the external scheduler repeats a call that was not answered 2xx, counted from its failure.
# Managed schedulers document between three and five retries with growing delays.
RETRY_DELAYS_US = (10 * SECOND_US, 30 * SECOND_US, 2 * MINUTE_US, 10 * MINUTE_US)

# How long it takes a name that was used for the same one-shot. Documented windows run from ten minutes
# to ninety days; a day is enough to swallow a re-arm of the next morning.
DEDUP_WINDOW_US = DAY_US


class Promises(Struct, frozen=True, kw_only=True):
    """What a NAS promises beyond the published contract. Each one closes an incident.

    Attributes:
        orders: a message with an older revision than the newest seen is refused, and the order
            outlives delivery and cancel; the revision is echoed (L9).
        names_by_generation: the external one-shot is named by its generation, so that no
            deduplication window swallows a re-arm (L8).
        drops_older_relays: a relay of an older generation than the row's fires nothing (L9, O1).
        deletes_own_generation: a delivered relay deletes only what it delivered (L10).
        sweeps_missing: the row is written first, and an external one-shot that is missing is
            created again (L11).
        sweeps_undelivered: spent retries leave the row, and it is fired again later (L2).
        fires_past_at_once: an instant in the past is fired at once (L2).
        sets_deliveries_apart: an arm counts as none while a relay of it is open: a provision of its
            instant makes a new generation, and a list leaves it out (L13).
    """

    orders: bool = True
    names_by_generation: bool = True
    drops_older_relays: bool = True
    deletes_own_generation: bool = True
    sweeps_missing: bool = True
    sweeps_undelivered: bool = True
    fires_past_at_once: bool = True
    sets_deliveries_apart: bool = True


HARDENED = Promises()
MINIMAL = Promises(
    orders=False,
    names_by_generation=False,
    drops_older_relays=False,
    deletes_own_generation=False,
    sweeps_missing=False,
    sweeps_undelivered=False,
    fires_past_at_once=False,
    sets_deliveries_apart=False,
)
BUILDS = {"minimal": MINIMAL, "hardened": HARDENED}


class OneShot(Struct, frozen=True, cache_hash=True):
    """One call that the external scheduler is asked to make: for a job, at an instant.

    The external scheduler knows it by `name` and takes a second one of the same name for the first.
    """

    job_id: str
    fire_at_us: Instant
    generation: int
    name: tuple[str | int, ...]


class Row(Struct, frozen=True, cache_hash=True):
    """What NAS keeps for a job.

    Attributes:
        shot: the one-shot that shall fire; None when nothing is armed.
        generation: counts the arms of the job; outlives them.
        revision: the newest revision seen; outlives the arm.
        sweeps: how often this arm had to be created again.
    """

    shot: OneShot | None = None
    generation: int = 0
    revision: int = -1
    sweeps: int = 0


EMPTY = Row()


class Reply(Struct, frozen=True, cache_hash=True):
    """NAS's answer to the agent: accepted, or `outdated` with the newest revision."""

    echoed: bool = False
    outdated: int | None = None


class Decision(Struct, frozen=True):
    """What NAS does with a message: its row afterwards, the answer, one-shots to create and to delete."""

    row: Row
    reply: Reply
    create: OneShot | None = None
    delete: OneShot | None = None


def provision(
    promises: Promises,
    row: Row,
    *,
    job_id: str,
    fire_at_us: Instant,
    revision: int | None,
    relays: Iterable[OneShot],
) -> Decision:
    """Arm the job at *fire_at_us*: nothing to do when it is, otherwise a new generation.

    Of an instant it keeps whole seconds, which is all that the contract has it keep (incident T1).
    *relays* are the one-shots whose relays are open: from the external scheduler's call until NAS has
    handled the agent's answer, or waits for it no longer.
    """
    fire_at_us -= fire_at_us % SECOND_US
    if _is_outdated(promises, row, revision):
        return Decision(row, Reply(outdated=row.revision))
    reply = _ECHOED if promises.orders and revision is not None else _ACCEPTED
    seen = max(row.revision, revision if revision is not None else -1)
    armed = _counted(promises, row, relays)
    if armed is not None and armed.fire_at_us == fire_at_us:
        kept = row if seen == row.revision else evolve(row, revision=seen)
        return Decision(kept, reply)
    generation = row.generation + 1
    name = (job_id, generation, 0) if promises.names_by_generation else (job_id, fire_at_us)
    shot = OneShot(job_id, fire_at_us, generation, name)
    return Decision(Row(shot, generation, seen), reply, shot, row.shot)


def cancel(promises: Promises, row: Row, *, revision: int | None) -> Decision:
    """Disarm the job; without a revision, whatever the order."""
    if _is_outdated(promises, row, revision):
        return Decision(row, Reply(outdated=row.revision))
    reply = _ECHOED if promises.orders and revision is not None else _ACCEPTED
    seen = max(row.revision, revision if revision is not None else -1)
    return Decision(Row(None, row.generation, seen), reply, None, row.shot)


def listed(promises: Promises, row: Row, *, relays: Iterable[OneShot]) -> OneShot | None:
    """Return the arm that a list shows; *relays* are the one-shots whose relays are open."""
    return _counted(promises, row, relays)


def forwards(promises: Promises, row: Row, shot: OneShot) -> bool:
    """Return whether the relay of *shot* is passed on to the agent."""
    if row.shot is None:
        return False
    return not promises.drops_older_relays or shot.generation == row.generation


def delivered(promises: Promises, row: Row, shot: OneShot) -> Row:
    """Return the row after the agent has accepted *shot*."""
    if promises.deletes_own_generation and shot.generation != row.generation:
        return row
    return Row(None, row.generation, row.revision)


def swept(row: Row) -> tuple[Row, OneShot | None]:
    """Return the row and the one-shot to create in place of one that is missing or spent."""
    shot = row.shot
    if shot is None:
        return row, None
    sweeps = row.sweeps + 1
    again = OneShot(shot.job_id, shot.fire_at_us, shot.generation, (shot.job_id, shot.generation, sweeps))
    return Row(again, row.generation, row.revision, sweeps), again


def sweep_delay_us(row: Row) -> int:
    """Return after how long the row is swept (again), microseconds."""
    return SWEEP_DELAYS_US[min(row.sweeps, len(SWEEP_DELAYS_US) - 1)]


# --- The external scheduler -------------------------------------------------------------------


def repeat_delay_us(failures: int, delays_us: Sequence[int] = RETRY_DELAYS_US) -> int | None:
    """Return after how long the external scheduler repeats a call; None when it gives the one-shot up.

    Args:
        failures: how many calls for it were not answered 2xx, one at least.
        delays_us: how long it waits after each, microseconds.
    """
    return delays_us[failures - 1] if failures <= len(delays_us) else None


class UsedNames:
    """The names that the external scheduler remembers: it takes a second one-shot of one for the first."""

    def __init__(self) -> None:
        self._until_us: dict[tuple[str | int, ...], Instant] = {}

    def takes(self, shot: OneShot, at_us: Instant, now_us: Instant) -> bool:
        """Return whether *shot*, for *at_us*, is a new one; its name is remembered then."""
        if self._until_us.get(shot.name, now_us) > now_us:
            return False
        self._until_us[shot.name] = max(at_us, now_us) + DEDUP_WINDOW_US
        return True


_ACCEPTED = Reply()
_ECHOED = Reply(echoed=True)


def _counted(promises: Promises, row: Row, relays: Iterable[OneShot]) -> OneShot | None:
    """Return what counts as armed.

    While a relay of the row's arm is open, that arm is not sure to fire again, since a 2xx ends it, and
    not gone, since anything else does not: it counts as none. Source: incident L13.
    """
    shot = row.shot
    if shot is None or not promises.sets_deliveries_apart:
        return shot
    arm = shot.job_id, shot.generation
    return None if any((each.job_id, each.generation) == arm for each in relays) else shot


def _is_outdated(promises: Promises, row: Row, revision: int | None) -> bool:
    return promises.orders and revision is not None and revision < row.revision
