"""What to simulate: a scenario, and a plan that can be handed to another process."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct

from chronos.jobs.instants import DAY_US, Instant, parse_instant
from simulator import faults, policies
from simulator.agents import agent_of
from simulator.conditions import NOTHING_ASKED, Conditions
from simulator.faults import Weights
from simulator.fleet import Fleet, load_shipped
from simulator.kernel import Choices, RandomChoices
from simulator.promises import promises_of
from simulator.script import NOTHING_WRITTEN, Script
from simulator.summary import Summary
from simulator.trace import Tracer
from simulator.wire import wired
from simulator.world import Setting, World


class Expectation(Struct, frozen=True, kw_only=True):
    """What is expected of an agent.

    Attributes:
        agent: of which, by its name.
        nas: with which NAS; empty for the scenario's.
        wire: with which store, where all that ships is simulated.
        violates: the properties that are violated, and no others.
        raises: whether it raises exceptions.
        runs: how many occurrences end with a result: each result with a count, `3` or `>=1`.
        counts: how often NAS and the machine were at work: each name with a count.
        jobs: as *runs*, of a job: its id, a result, a count.
    """

    agent: str
    nas: str = ""
    wire: str = ""
    violates: tuple[str, ...] = ()
    raises: bool = False
    runs: tuple[tuple[str, str], ...] = ()
    counts: tuple[tuple[str, str], ...] = ()
    jobs: tuple[tuple[str, str, str], ...] = ()

    @property
    def whose(self) -> str:
        """Which agent, with the NAS and the store that are not the scenario's."""
        with_nas = f", NAS {self.nas}" if self.nas else ""
        return f"{self.agent}{with_nas}{f', wire with {self.wire}' if self.wire else ''}"


class Scenario(Struct, frozen=True, kw_only=True):
    """A simulation with a name: a fleet, how long, and what goes wrong. Those that ship are files.

    Attributes:
        name: how the command line calls it.
        about: what it shows, in a sentence.
        source: the file in which it is written; empty for none.
        incident: the incident that it shows; empty for none.
        fleet: the shipped fleet that it runs on; empty for jobs of its own.
        own: the jobs of its own.
        start_us: where the calendar begins, unless that is left to the fleet.
        days: how long the calendar lasts.
        seed: of what is left to chance.
        faults: the level of faults.
        nas: which NAS.
        agent: which agent.
        machines: how many replicas of the agent share the store.
        policies: where the jobs' policies come from.
        conditions: what was asked for.
        script: what is written down to happen.
        expects: what is expected, of each agent.
    """

    name: str
    about: str
    source: str = ""
    incident: str = ""
    fleet: str = ""
    own: Fleet | None = None
    start_us: Instant | None = None
    days: int
    seed: int = 0
    faults: str = "none"
    nas: str = "hardened"
    agent: str = "chronos"
    machines: int = 1
    policies: str = "own"
    conditions: Conditions = NOTHING_ASKED
    script: Script = NOTHING_WRITTEN
    expects: tuple[Expectation, ...] = ()

    def plan(self, expected: Expectation) -> Plan:
        """Return the plan of the simulation of which something is expected."""
        return Plan(
            scenario=self.name,
            fleet=self.own or load_shipped(self.fleet, start_us=self.start_us),
            days=self.days,
            faults=self.faults,
            nas=expected.nas or self.nas,
            agent=expected.agent,
            wire=expected.wire,
            machines=self.machines,
            policies=self.policies,
            conditions=self.conditions,
            script=self.script,
        )


DEFAULT = "year"
# A century of a minute job; beyond that, instants leave the calendar.
MAX_DAYS = 36_525
ENDS_BEFORE_US = parse_instant("9900-01-01T00:00:00+00:00")
# What a jobs file of one's own goes through unless a scenario or options say more.
OWN_JOBS = Scenario(
    name="own-jobs", about="a year of a jobs file in which nothing goes wrong", fleet="", days=365
)


class Plan(Struct, frozen=True, kw_only=True):
    """Everything that one simulation needs, but its seed; plain values, so that it can be sent about.

    Attributes:
        wire: the kind of store with which all that ships is simulated; empty for a model of it.
        has_wire_faults: whether the wire spoils messages.
        conditions: what was asked for.
        settles: whether the world has time to settle, though nothing goes wrong.
        script: what is written down to happen.
        (The others are those of `Scenario`.)
    """

    scenario: str
    fleet: Fleet
    days: int
    faults: str
    nas: str
    agent: str
    machines: int
    policies: str = "own"
    wire: str = ""
    has_wire_faults: bool = False
    conditions: Conditions = NOTHING_ASKED
    settles: bool = False
    script: Script = NOTHING_WRITTEN

    def setting(self, seed: int) -> Setting:
        """Return the world that this plan describes for the run with *seed*."""
        jobs = self.fleet.jobs
        if self.policies == "random":
            jobs = policies.drawn(jobs, seed, start_us=self.fleet.start_us)
        return Setting(
            jobs=jobs,
            start_us=self.fleet.start_us,
            duration_us=self.days * DAY_US,
            has_faults=self.faults != "none" or bool(self.conditions.likelihoods),
            promises=promises_of(self.nas),
            agent=agent_of(self.agent),
            machines=self.machines,
            conditions=self.conditions,
            settles=self.settles,
            script=self.script,
        )

    def choices(self, seed: int) -> Choices:
        """Return the decisions of the run with *seed*."""
        return RandomChoices(seed, self.weights(seed))

    def weights(self, seed: int) -> Weights:
        """Return how likely everything is that the run with *seed* decides."""
        return faults.weights(
            self.faults,
            seed,
            of_wire=self.has_wire_faults,
            allows=self.conditions.allows,
            likelihoods=dict(self.conditions.likelihoods),
        )


def simulate(
    plan: Plan,
    seed: int,
    progress: Callable[[float], None] | None = None,
    tracer: Tracer | None = None,
) -> Summary:
    """Run *plan* with *seed*; the same two give the same history everywhere."""
    setting, choices = plan.setting(seed), plan.choices(seed)
    with _seldom_collected():
        if not plan.wire:
            return World(setting, choices, progress, tracer=tracer).run()
        with wired(plan.wire) as live_by:
            return World(setting, choices, progress, live_by, tracer).run()


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """Let the collector of cycles look seldom: values make none, and it visits all jobs of a large fleet."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)
