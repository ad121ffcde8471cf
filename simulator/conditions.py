"""What somebody asks of a simulated world: outages, how long boots, runs and idleness last, a wrong clock.

Faults come by chance; conditions come as asked, at every level of faults. A boot, a run, a clock and what
becomes of an idle machine are so all the time. Outages and boots that come to nothing begin once the agent
is deployed, and are over with the days asked for; then everything has its time to settle, as after faults.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from heapq import merge

from msgspec import Struct

from chronos.jobs.instants import DAY_US, HOUR_US, MINUTE_US, SECOND_US, Instant


class Party(StrEnum):
    """Who may be away."""

    NAS = "nas"
    HOST = "host"
    EXTERNAL = "external"


class Daily(Struct, frozen=True, kw_only=True):
    """The same hours of every day.

    Attributes:
        from_us: when it begins, microseconds after midnight, UTC; it may lie a day before or after.
        lasts_us: for how long, a day at most.
        text: as it was asked for.
    """

    from_us: int
    lasts_us: int
    text: str

    def intervals(self, start_us: Instant) -> Iterator[tuple[Instant, Instant]]:
        """Yield its intervals, without end, from the first one that is not over at *start_us*."""
        begins_us = start_us - start_us % DAY_US - 2 * DAY_US + self.from_us
        while True:
            if begins_us + self.lasts_us > start_us:
                yield begins_us, begins_us + self.lasts_us
            begins_us += DAY_US


class Once(Struct, frozen=True, kw_only=True):
    """One interval of the calendar, from an instant to another; *text* is as it was asked for."""

    from_us: Instant
    until_us: Instant
    text: str

    def intervals(self, start_us: Instant) -> Iterator[tuple[Instant, Instant]]:
        """Yield its interval, unless it is over at *start_us*."""
        if self.until_us > start_us:
            yield self.from_us, self.until_us


class Outage(Struct, frozen=True, kw_only=True):
    """Somebody is away.

    Attributes:
        party: who.
        when: in which hours.
    """

    party: Party
    when: Daily | Once


class Conditions(Struct, frozen=True, kw_only=True):
    """What was asked for; what is None or empty is left to chance.

    Attributes:
        outages: who is away, and when.
        boot_us: how long each boot takes, microseconds.
        boots_stuck: whether each boot comes to nothing, after as long as one that is stuck by chance.
        idle_us: how long the host lets a machine stand idle before it stops it, microseconds; None for two
            looks, of which there is one every 15 seconds.
        stays_up: whether the host never stops an idle machine, and starts one that has died at once.
        run_us: how long each run takes, microseconds.
        run_us_of: how long those of a job take, by its id; goes before *run_us*.
        clock_us: how far the clock of each machine is ahead, microseconds; negative when it is behind.
        only: of the level's faults only those of these names happen; empty for all.
        without: and none of these.
        likelihoods: how likely a fault is each time that it is asked about, 0 to 1, by its name.
    """

    outages: tuple[Outage, ...] = ()
    boot_us: int | None = None
    boots_stuck: bool = False
    idle_us: int | None = None
    stays_up: bool = False
    run_us: int | None = None
    run_us_of: tuple[tuple[str, int], ...] = ()
    clock_us: int | None = None
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    likelihoods: tuple[tuple[str, float], ...] = ()

    @property
    def pass_by(self) -> bool:
        """Whether something is asked for that is over with the days, so that the world must settle."""
        return bool(self.outages) or self.boots_stuck

    @property
    def longest_run_us(self) -> int:
        """The longest that any run takes by what was asked for, 0 when nothing was; microseconds."""
        return max((self.run_us or 0, *(lasts_us for _, lasts_us in self.run_us_of)))

    def allows(self, fault: str) -> bool:
        """Return whether the fault of that name may happen, if it is one of the level."""
        return fault not in self.without and (not self.only or fault in self.only)

    def run_lasts_us(self, job_id: str, by_chance_us: int) -> int:
        """Return how long a run of a job takes, which would take *by_chance_us* otherwise."""
        for each, lasts_us in self.run_us_of:
            if each == job_id:
                return lasts_us
        return by_chance_us if self.run_us is None else self.run_us

    def away(self, party: Party, start_us: Instant, end_us: Instant) -> Iterator[tuple[Instant, Instant]]:
        """Yield from when until when *party* is away between two instants, in order and apart."""
        asked = [each.when.intervals(start_us) for each in self.outages if each.party is party]
        begins_us = ends_us = start_us
        for from_us, until_us in merge(*asked):
            if from_us >= end_us:
                break
            if from_us > ends_us:
                if ends_us > begins_us:
                    yield begins_us, ends_us
                begins_us = from_us
            ends_us = max(ends_us, min(until_us, end_us))
        if ends_us > begins_us:
            yield begins_us, ends_us

    def words(self) -> tuple[str, ...]:
        """Return what was asked for, each in words; nothing when nothing was."""
        told = [f"{each.party} away {each.when.text}" for each in self.outages]
        if self.boots_stuck:
            told.append("every boot stuck")
        if self.boot_us is not None:
            told.append(f"every boot {span(self.boot_us)}")
        if self.stays_up:
            told.append("always on")
        elif self.idle_us is not None:
            told.append(f"idle {span(self.idle_us)}")
        if self.run_us is not None:
            told.append(f"every run {span(self.run_us)}")
        told += [f"runs of {job_id} {span(lasts_us)}" for job_id, lasts_us in self.run_us_of]
        if self.clock_us is not None:
            told.append(f"clock {'-' if self.clock_us < 0 else '+'}{span(abs(self.clock_us))}")
        if self.only:
            told.append(f"only {' and '.join(self.only)}")
        if self.without:
            told.append(f"without {' and '.join(self.without)}")
        told += [f"{name} {likelihood * 100:.3g}%" for name, likelihood in self.likelihoods]
        return tuple(told)


NOTHING_ASKED = Conditions()


def span(us: int) -> str:
    """Return a duration as options spell it: 90s, 1h30m; microseconds."""
    if us < SECOND_US or us % SECOND_US:
        return f"{us / SECOND_US:g}s"
    if us <= 90 * SECOND_US:
        return f"{us // SECOND_US}s"
    parts = []
    for unit_us, unit in ((HOUR_US, "h"), (MINUTE_US, "m"), (SECOND_US, "s")):
        count, us = divmod(us, unit_us)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)
