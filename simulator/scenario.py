"""What to simulate: the shipped scenarios, and a plan that can be handed to another process."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct

from chronos.jobs.instants import DAY_US
from chronos.testing.nas import BUILDS
from simulator import faults, policies
from simulator.agents import agent_of
from simulator.conditions import NOTHING_ASKED, Conditions
from simulator.faults import Weights
from simulator.fleet import Fleet
from simulator.kernel import Choices, RandomChoices
from simulator.summary import Summary
from simulator.trace import Tracer
from simulator.wire import wired
from simulator.world import Setting, World


class Scenario(Struct, frozen=True, kw_only=True):
    """A simulation with a name: a fleet, how long, and what goes wrong.

    Attributes:
        name: how the command line calls it.
        about: what it shows, in a sentence.
        fleet: the shipped fleet that it runs on.
        days: how long the calendar lasts.
        faults: the level of faults.
        nas: which NAS.
        agent: which agent.
        machines: how many replicas of the agent share the store.
        policies: where the jobs' policies come from.
    """

    name: str
    about: str
    fleet: str
    days: int
    faults: str = "none"
    nas: str = "hardened"
    agent: str = "chronos"
    machines: int = 1
    policies: str = "own"


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="year",
            about="a year of nine jobs, with everything that can go wrong going wrong",
            fleet="fleet-11",
            days=365,
            faults="heavy",
        ),
        Scenario(
            name="quiet-month",
            about="a month in which nothing goes wrong",
            fleet="fleet-12",
            days=30,
        ),
        Scenario(
            name="busy-month",
            about="fifteen jobs, two of them every minute, and the failures of an ordinary month",
            fleet="fleet-01",
            days=30,
            faults="light",
        ),
        Scenario(
            name="replicas",
            about="two machines that share one job store, and fail one by one",
            fleet="fleet-06",
            days=90,
            faults="heavy",
            machines=2,
        ),
        Scenario(
            name="policies",
            about="a month of fourteen jobs with policies by chance: catch-up, overlap, retries, bounds",
            fleet="fleet-06",
            days=30,
            faults="heavy",
            policies="random",
        ),
        Scenario(
            name="published-contract",
            about="a NAS that promises no more than the published contract: it loses arms",
            fleet="fleet-12",
            days=30,
            faults="heavy",
            nas="minimal",
        ),
        Scenario(
            name="naive-agent",
            about="an agent that arms after the run and trusts its memory: it loses jobs",
            fleet="fleet-12",
            days=30,
            faults="heavy",
            agent="naive",
        ),
    )
}
DEFAULT = "year"
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
            promises=BUILDS[self.nas],
            agent=agent_of(self.agent),
            machines=self.machines,
            conditions=self.conditions,
            settles=self.settles,
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
