"""One's own fleet under other terms: always on beside scale to zero, other idle time-outs, other boot times.

Each variant is simulated, with the same seeds; nothing is worked out from another one. One thing at a time
differs from the plan as it is given: how long a machine may stand idle, how long it boots, or who fires.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from decimal import Decimal
from enum import StrEnum

import attrs
from msgspec import Struct

from chronos.jobs.instants import HOUR_US, MINUTE_US, SECOND_US
from chronos.jobs.job import Result
from chronos.values import evolve
from simulator import faults
from simulator.agents import CHRONOS, TICKER
from simulator.conditions import Conditions, span
from simulator.host import LOOK_EVERY_US
from simulator.scenario import Plan, simulate
from simulator.summary import Summary
from simulator.sweep import spread

# What hosts offer, from the shortest that is common to the longest that still is a time-out.
IDLE_US = (30 * SECOND_US, MINUTE_US, 5 * MINUTE_US, 15 * MINUTE_US, HOUR_US)
# A small image, a larger one, one that loads a model, and one that boots longer than a relay waits.
BOOT_US = (2 * SECOND_US, 10 * SECOND_US, 30 * SECOND_US, 90 * SECOND_US)

PERCENTILES = ("p50", "p99", "max")
CALLS = ("provision", "cancel", "list", "fire")

# --- what is simulated ------------------------------------------------------------------------


class Group(StrEnum):
    """What a variant is looked at for."""

    COMPARED = "compared"
    IDLE = "idle"
    BOOT = "boot"


SCALE_TO_ZERO, ALWAYS_ON, OWN_TICKER = "scale to zero", "always on", "own ticker"


class Variant(Struct, frozen=True, kw_only=True):
    """A plan that is simulated.

    Attributes:
        group: what for.
        name: what it is called within its group.
        plan: the plan; it may be that of a variant of another group, too.
    """

    group: Group
    name: str
    plan: Plan

    @property
    def words(self) -> str:
        """What it is called among those of all groups."""
        return self.name if self.group is Group.COMPARED else f"{self.group} {self.name}"


def variants(plan: Plan, *, idle_us: Sequence[int], boot_us: Sequence[int]) -> tuple[Variant, ...]:
    """Return what is simulated for *plan*, group by group; of a curve, the shortest time first.

    Args:
        plan: the fleet and its world, whose machine sleeps when it is idle.
        idle_us: the idle time-outs beside that of the plan, microseconds.
        boot_us: the boot times beside that of the plan, microseconds.
    """
    asked = plan.conditions
    always_on = evolve(plan, conditions=evolve(asked, idle_us=None, stays_up=True))
    found = [
        Variant(group=Group.COMPARED, name=SCALE_TO_ZERO, plan=plan),
        Variant(group=Group.COMPARED, name=ALWAYS_ON, plan=always_on),
    ]
    if plan.agent == CHRONOS.name:
        by_itself = evolve(always_on, agent=TICKER.name)
        found.append(Variant(group=Group.COMPARED, name=OWN_TICKER, plan=by_itself))
    for us in _points(asked.idle_us, idle_us):
        idle = evolve(plan, conditions=evolve(asked, idle_us=us))
        found.append(Variant(group=Group.IDLE, name=idle_name(idle.conditions), plan=idle))
    found.append(Variant(group=Group.IDLE, name=idle_name(always_on.conditions), plan=always_on))
    for us in _points(asked.boot_us, boot_us):
        boot = evolve(plan, conditions=evolve(asked, boot_us=us))
        found.append(Variant(group=Group.BOOT, name=boot_name(boot.conditions), plan=boot))
    return tuple(found)


def _points(given_us: int | None, others_us: Sequence[int]) -> list[int | None]:
    """Return the points of a curve, that of the plan among them; it comes first where it is no one time."""
    if given_us is None:
        return [None, *sorted(set(others_us))]
    return [*sorted({given_us, *others_us})]


def idle_name(asked: Conditions) -> str:
    """Return how long a machine may stand idle, in words."""
    if asked.stays_up:
        return "never"
    if asked.idle_us is None:
        return f"{span(LOOK_EVERY_US)}-{span(2 * LOOK_EVERY_US)}"
    return span(asked.idle_us)


def boot_name(asked: Conditions) -> str:
    """Return how long a machine boots, in words."""
    if asked.boot_us is None:
        return f"{span(min(faults.BOOT.options))}-{span(max(faults.BOOT.options))}"
    return span(asked.boot_us)


# --- what came of it --------------------------------------------------------------------------


@attrs.define
class Figures:
    """What came of a variant, of one seed or of many.

    Attributes:
        seeds: of how many.
        calendar_us: how long machines would have been up, had none ever slept, microseconds.
        up_us: how long they were up within the calendar, boots included, microseconds.
        boots_us: how long of it they booted.
        wakes: how often one was started; a deployment starts each.
        wakes_for_nothing: how often nothing ran until it was stopped.
        runs: how occurrences ended, by result.
        calls: of NAS: those of the agent by kind, and the fires that NAS delivers, repeats among them.
        lateness_ms: of the occurrence at each percentile, how late it began, and for how much of that the
            machine was booting; of many seeds, of the one that is latest.
        verdicts: those of the seeds.
    """

    seeds: int = 0
    calendar_us: int = 0
    up_us: int = 0
    boots_us: int = 0
    wakes: int = 0
    wakes_for_nothing: int = 0
    runs: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(map(str, Result), 0))
    calls: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(CALLS, 0))
    lateness_ms: dict[str, tuple[int, int]] = attrs.field(factory=lambda: dict.fromkeys(PERCENTILES, (0, 0)))
    verdicts: list[str] = attrs.field(factory=list)

    def add(self, summary: Summary, machines: int) -> None:
        """Count a seed, simulated with so many machines."""
        self.seeds += 1
        self.calendar_us += summary.simulated_seconds * SECOND_US * machines
        self.up_us += summary.calendar_boots_us + summary.calendar_up_us
        self.boots_us += summary.calendar_boots_us
        self.wakes += summary.wakes
        self.wakes_for_nothing += summary.wakes_for_nothing
        for name, count in summary.runs.items():
            self.runs[name] += count
        for name, count in {**summary.nas_calls, "fire": summary.fires}.items():
            self.calls[name] += count
        late = summary.lateness_ms
        for name, latest in self.lateness_ms.items():
            self.lateness_ms[name] = max(latest, (late[name], summary.booted_for_ms[name]))
        self.verdicts.append(summary.verdict)

    @property
    def verdict(self) -> str:
        """The worst of the verdicts."""
        return next(each for each in ("violated", "inconclusive", "ok") if each in self.verdicts)

    @property
    def share(self) -> float:
        """The part of the calendar for which machines were up, 0 to 1."""
        return self.up_us / max(self.calendar_us, 1)

    @property
    def up_hours(self) -> Decimal:
        """How long machines were up with one seed, boots included, hours; of many, the mean."""
        return self.mean(self.up_us) / HOUR_US

    def mean(self, count: int) -> Decimal:
        """Return what a count of all seeds is with one of them."""
        return Decimal(count) / self.seeds


class Prices(Struct, frozen=True, kw_only=True):
    """What is paid; None for what no price was given for, which counts as 0.

    Attributes:
        hour: for each hour that a machine is up, from the begin of its boot on.
        wake: for each start of a machine.
        call: for each call of NAS.
    """

    hour: Decimal | None = None
    wake: Decimal | None = None
    call: Decimal | None = None

    @property
    def are_given(self) -> bool:
        """Whether there is a price at all."""
        return any(each is not None for each in (self.hour, self.wake, self.call))

    def cost(self, figures: Figures) -> Decimal:
        """Return what the calendar costs; of many seeds, the mean."""
        zero = Decimal(0)
        calls = figures.mean(sum(figures.calls.values()))
        wakes = figures.mean(figures.wakes)
        hours, each_wake, each_call = self.hour or zero, self.wake or zero, self.call or zero
        return hours * figures.up_hours + each_wake * wakes + each_call * calls


class Row(Struct, frozen=True, kw_only=True):
    """A variant, and what came of it."""

    variant: Variant
    figures: Figures


class Answer(Struct, frozen=True, kw_only=True):
    """What came of all variants of a plan.

    Attributes:
        plan: the plan as it is given.
        seeds: with which it was simulated.
        prices: what is paid.
        rows: what came of the variants.
    """

    plan: Plan
    seeds: range
    prices: Prices
    rows: tuple[Row, ...]

    def group(self, group: Group) -> tuple[Row, ...]:
        """Return the rows of a group."""
        return tuple(row for row in self.rows if row.variant.group is group)


class _Task(Struct, frozen=True):
    """A simulation; its text is what messages call it."""

    words: str
    plan: Plan
    seed: int

    def __str__(self) -> str:
        return f"{self.words}, seed {self.seed}"


def _simulated(task: _Task) -> Summary:
    return simulate(task.plan, task.seed)


def answer(
    plan: Plan,
    found: Sequence[Variant],
    seeds: range,
    prices: Prices,
    advance: Callable[[float], None] = lambda _part: None,
) -> Answer:
    """Simulate the variants, each plan once with each seed, on all cores.

    Args:
        plan: the plan as it is given.
        found: its variants.
        seeds: with which seeds.
        prices: what is paid.
        advance: is told of the part that is done, 0 to 1.

    Raises:
        Failed: a simulation raised, or its process died.
    """
    tasks = {_key(each.plan): [_Task(each.words, each.plan, seed) for seed in seeds] for each in found}
    figures = {key: Figures() for key in tasks}
    order = [(key, task) for key, each in tasks.items() for task in each]
    with closing(_summaries([task for _, task in order])) as summaries:
        for number, ((key, task), summary) in enumerate(zip(order, summaries, strict=True), start=1):
            figures[key].add(summary, task.plan.machines)
            advance(number / len(order))
    rows = tuple(Row(variant=each, figures=figures[_key(each.plan)]) for each in found)
    return Answer(plan=plan, seeds=seeds, prices=prices, rows=rows)


def _summaries(tasks: Sequence[_Task]) -> Generator[Summary, None, None]:
    return spread(_simulated, tasks, noun="variant")


def _key(plan: Plan) -> tuple[str, Conditions]:
    """Return what alone differs among the variants of a plan."""
    return plan.agent, plan.conditions
