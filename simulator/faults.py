"""Every decision that the simulated world leaves open, each one value: what may go wrong, and what varies.

A value has its name, its options and how likely they are, words, and where it comes from. Options that
are whole numbers are durations in microseconds. `Swarm`: each run switches a random subset of the faults
on, with random weights, so that some runs meet one fault often and some meet none.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import attrs

from chronos.jobs.instants import HOUR_US, MINUTE_US, SECOND_US
from simulator.conditions import span

T = TypeVar("T", bound=Hashable)


@attrs.frozen(kw_only=True, eq=False)
class Decision:
    """Something that the simulated world leaves open.

    Attributes:
        name: how reports and recorded decisions name it.
        words: what it is about.
        incidents: what happened in production that it comes from.
        reason: where it comes from, in a sentence, when no incident tells.
    """

    name: str
    words: str
    incidents: tuple[str, ...] = ()
    reason: str = ""


@attrs.frozen(kw_only=True, eq=False)
class Fault(Decision, Generic[T]):
    """A decision that may go wrong.

    Attributes:
        chances: what may go wrong, each with its probability at the level `heavy`.
        at_light: whether the level `light` has it too.
        options: what there is to choose from: None, the ordinary one, and what may go wrong.
        weights: of the options, at the level `heavy`.
    """

    chances: Mapping[T, float]
    at_light: bool = True
    options: tuple[T | None, ...] = attrs.field(init=False)
    weights: tuple[float, ...] = attrs.field(init=False)

    @options.default
    def _options(self) -> tuple[T | None, ...]:
        return (None, *self.chances)

    @weights.default
    def _weights(self) -> tuple[float, ...]:
        return (1 - self.likelihood, *self.chances.values())

    @property
    def likelihood(self) -> float:
        """How likely it is at the level `heavy` that anything goes wrong, 0 to 1."""
        return sum(self.chances.values())


@attrs.frozen(kw_only=True, eq=False)
class Variation(Decision, Generic[T]):
    """A decision that goes one way or another as a matter of course, at every level.

    Attributes:
        options: what there is to choose from.
        first: how many times as likely as each of the others the first option is.
    """

    options: tuple[T, ...]
    first: int = 1

    @property
    def weights(self) -> tuple[float, ...]:
        """The weights of the options."""
        return (self.first, *(1 for _ in self.options[1:]))


@attrs.frozen(kw_only=True, eq=False)
class Pick(Decision):
    """A decision for one of what there is in the world, each as likely as the others."""


# --- what may go wrong ------------------------------------------------------------------------


class Way(Enum):
    """What becomes of a message: after how long, in microseconds, each of its copies sets out.

    A delayed one is later than the bound of an arm inside a fire (10 s) and than a relay's patience
    (30 s), so that the other side has moved on.
    """

    LOST = ()
    DUPLICATED = (4 * SECOND_US, 0)
    DELAYED = (95 * SECOND_US,)


class Boot(Enum):
    """A boot slower than the relay's patience, or one that comes to nothing: its length in microseconds."""

    SLOW = 70 * SECOND_US
    STUCK = 180 * SECOND_US


class Write(Enum):
    """What a store that fails has done."""

    NOTHING = "before the write"
    WRITTEN = "after the write"


class Change(Enum):
    """What somebody does to a job; what is not done by hand lasts for three hours."""

    PAUSE = "pause"
    REMOVE = "remove"
    EDIT = "edit to another schedule"
    RUN = "run by hand"


class Spoiling(Enum):
    """What a wire does to a message that arrives all the same."""

    TORN = "torn"
    KIND = "of-another-kind"
    EXPIRED = "with-an-old-token"


REQUEST = Fault(
    name="network.request",
    words="a request is lost, duplicated or delayed",
    chances={Way.LOST: 0.01, Way.DUPLICATED: 0.01, Way.DELAYED: 0.01},
    incidents=("L3", "L9"),
)
REPLY = Fault(
    name="network.reply",
    words="a reply is lost or delayed",
    chances={Way.LOST: 0.01, Way.DELAYED: 0.01},
    incidents=("D1",),
)
LATE_CALL = Fault(
    name="external.late",
    words="the external scheduler calls seconds, minutes or most of an hour late",
    chances={20 * SECOND_US: 0.01, 3 * MINUTE_US: 0.01, 40 * MINUTE_US: 0.01},
    incidents=("D7",),
)
SECOND_CALL = Fault(
    name="external.duplicate",
    words="the external scheduler calls twice",
    chances={5 * SECOND_US: 0.01},
    reason="The external scheduler delivers at least once.",
)
NAS_CREATE = Fault(
    name="nas.create",
    words="NAS crashes between its row and the one-shot",
    chances={True: 0.01},
    incidents=("L11",),
)
NAS_DELETE = Fault(
    name="nas.delete",
    words="NAS cannot delete the one-shot that it replaces or cancels",
    chances={True: 0.02},
    reason="The deletion is a call to the external scheduler, which may fail.",
)
NAS_BUSY = Fault(
    name="nas.busy",
    words="NAS asks to be asked later",
    chances={30 * SECOND_US: 0.01},
    reason="A server that has too much to do answers 429 or 503 with Retry-After.",
)
NAS_OUTAGE = Fault(
    name="nas.outage",
    words="asked every six hours: NAS is away for minutes, an hour or half a day",
    chances={6 * MINUTE_US: 0.03, HOUR_US: 0.02, 12 * HOUR_US: 0.01},
    incidents=("L2", "L14"),
)
NAS_REFUSAL = Fault(
    name="nas.refusal",
    words=(
        "asked every six hours: NAS refuses the agent's identity for an hour or half a day; then there is a "
        "new login, and the agent is started"
    ),
    chances={HOUR_US: 0.02, 12 * HOUR_US: 0.01},
    incidents=("L4",),
)
CRASH = Fault(
    name="machine.crash",
    words="asked before each effect: the machine dies",
    chances={True: 0.003},
    incidents=("L5", "L7", "D8"),
)
KILL = Fault(
    name="machine.kill",
    words="asked every hour: the machine dies within the next minute",
    chances={True: 0.04},
    incidents=("W1", "O3"),
)
REPLACEMENT = Fault(
    name="machine.replace",
    words="asked every hour: the host replaces a machine, which has half a minute to drain",
    chances={True: 0.03},
    reason="A host replaces machines at every deployment.",
)
SLOW_BOOT = Fault(
    name="machine.slow_boot",
    words="the machine boots slower than the relay's patience, or never",
    chances={Boot.SLOW: 0.02, Boot.STUCK: 0.01},
    incidents=("W2", "W3"),
)
HOST_OUTAGE = Fault(
    name="machine.outage",
    words="asked every six hours: the host starts no machine for minutes, an hour or half a day",
    chances={6 * MINUTE_US: 0.02, HOUR_US: 0.01, 12 * HOUR_US: 0.01},
    incidents=("L2",),
)
CLOCK = Fault(
    name="machine.clock",
    words="the clock is wrong by some seconds for the first minutes after a boot",
    chances={-40 * SECOND_US: 0.03, 8 * SECOND_US: 0.03, -9 * SECOND_US: 0.02, 24 * SECOND_US: 0.02},
    incidents=("W4",),
)
LONG_RUN = Fault(
    name="machine.long_run",
    words="a run is longer than the period of a minute job, than the lease, than an hour",
    chances={100 * SECOND_US: 0.01, 11 * MINUTE_US: 0.004, 75 * MINUTE_US: 0.001},
    incidents=("D4",),
)
FAILED_RUN = Fault(
    name="machine.failed_run",
    words="a run fails",
    chances={True: 0.03},
    incidents=("V2",),
)
STORE_FAILURE = Fault(
    name="store.failure",
    words="the job store fails before a write or after it",
    chances={Write.NOTHING: 0.001, Write.WRITTEN: 0.001},
    reason="A database whose connection breaks during a commit may have written or not.",
)
STOP = Fault(
    name="operator.stop",
    words="asked every six hours: the agent is told to run no jobs for minutes or an hour, and then started",
    chances={6 * MINUTE_US: 0.02, HOUR_US: 0.01},
    incidents=("L12", "L13"),
)
CHANGE = Fault(
    name="operator.change",
    words="asked every four hours: somebody pauses, removes or edits a job, or runs it by hand",
    chances={Change.PAUSE: 0.1, Change.REMOVE: 0.1, Change.EDIT: 0.1, Change.RUN: 0.1},
    at_light=False,  # who changes jobs on purpose is no failure
    incidents=("L8", "D2", "D6", "O4"),
)

# Those of the wire: a model has none, since it spells nothing out.
WIRE_ANSWER = Fault(
    name="wire.answer",
    words="an answer of NAS comes torn, or as a page of a proxy",
    chances={Spoiling.TORN: 0.01, Spoiling.KIND: 0.01},
    reason="Proxies answer in place of a server, and connections break in the middle.",
)
WIRE_FIRE = Fault(
    name="wire.fire",
    words="a fire comes torn, of another content type, or with a token that has run out on the way",
    chances={Spoiling.TORN: 0.01, Spoiling.KIND: 0.01, Spoiling.EXPIRED: 0.01},
    reason="What stands between NAS and the agent may hold messages back, and rewrite their headers.",
)
WIRE_FAULTS: tuple[Fault[Any], ...] = (WIRE_ANSWER, WIRE_FIRE)

# The swarm draws for each in this order.
FAULTS: tuple[Fault[Any], ...] = (
    REQUEST,
    REPLY,
    LATE_CALL,
    SECOND_CALL,
    NAS_CREATE,
    NAS_DELETE,
    NAS_BUSY,
    NAS_OUTAGE,
    CRASH,
    KILL,
    REPLACEMENT,
    SLOW_BOOT,
    HOST_OUTAGE,
    CLOCK,
    LONG_RUN,
    FAILED_RUN,
    STORE_FAILURE,
    STOP,
    CHANGE,
    NAS_REFUSAL,
)

# --- what varies as a matter of course --------------------------------------------------------


def _milliseconds(*values: int) -> tuple[int, ...]:
    return tuple(value * 1000 for value in values)


LATENESS = Variation(
    name="external.lateness",
    words="how late the external scheduler calls",
    options=_milliseconds(150, 40, 60, 80, 100, 120, 180, 210, 250, 300, 360, 450, 600, 800, 1100, 1500),
    first=5,
    reason="Assumed: tenths of a second, seldom more than one.",
)
LATENCY = Variation(
    name="network.latency",
    words="how long a message takes, one way",
    options=_milliseconds(30, 12, 15, 18, 21, 25, 35, 40, 46, 54, 64, 76, 90, 110, 140, 180),
    first=5,
    reason="Assumed: from the same region to another continent.",
)
BOOT = Variation(
    name="machine.boot",
    words="how long the machine takes from the wake to the open port",
    options=_milliseconds(
        2500, 1500, 1700, 1900, 2100, 2300, 2800, 3100, 3400, 3800, 4200, 4700, 5300, 6000, 7000, 8500
    ),
    first=5,
    reason="Assumed: seconds, well within the relay's patience.",
)
RUN = Variation(
    name="machine.run",
    words="how long a run lasts",
    options=tuple(
        seconds * SECOND_US for seconds in (6, 1, 2, 3, 4, 5, 7, 8, 10, 12, 15, 18, 22, 27, 33, 40)
    ),
    first=4,
    reason="Assumed: shorter than the period of a minute job.",
)
STRUCK_WHEN = Variation(
    name="machine.kill.when",
    words="when within the next minute a machine is killed or replaced",
    options=tuple(second * SECOND_US for second in range(60)),
    reason="Assumed: at any moment of it.",
)
FROM_NOW = Variation(
    name="operator.resume",
    words="whether a job is resumed from now on, and does not catch up",
    options=(False, True),
    reason="Assumed: people want either as often.",
)

VARIATIONS: tuple[Variation[Any], ...] = (LATENESS, LATENCY, BOOT, RUN, STRUCK_WHEN, FROM_NOW)

CHANGED_JOB = Pick(
    name="operator.job",
    words="which job somebody changes",
    reason="Nobody's job is safer than another's.",
)
ROUTE = Pick(
    name="route",
    words="which machine is called",
    reason="A balancer in front of replicas knows nothing of jobs.",
)

PICKS = (CHANGED_JOB, ROUTE)

DECISIONS: tuple[Decision, ...] = (*FAULTS, *WIRE_FAULTS, *VARIATIONS, *PICKS)


def spelt(option: object) -> str:
    """Return how an option of a fault is called: lost, slow, 40s, -9s; nothing where there is but one."""
    if option is True:
        return ""
    if isinstance(option, Enum):
        return option.name.lower()
    if type(option) is int:
        return f"{'-' if option < 0 else ''}{span(abs(option))}"
    return str(option)


# --- how likely, by level ---------------------------------------------------------------------

# In a swarm, how likely a fault is switched on, and by what its likelihood is multiplied then.
SWITCHED_ON = 0.6
FACTORS = (0.3, 1.0, 1.0, 3.0)
LIGHT_FACTOR = 0.1

LEVELS: Mapping[str, str] = {
    "none": "nothing goes wrong; how long messages, boots and runs take varies all the same",
    "light": (
        f"every fault, with {LIGHT_FACTOR:g} of its likelihood; without "
        + ", ".join(fault.name for fault in FAULTS if not fault.at_light)
    ),
    "heavy": (
        f"of each seed, every fault is on with a probability of {SWITCHED_ON:g}, its likelihood multiplied "
        f"by one of {', '.join(f'{factor:g}' for factor in FACTORS)}"
    ),
}

Weights = Mapping[Fault[Any] | Variation[Any], tuple[float, ...]]


def weights(
    level: str,
    seed: int,
    *,
    of_wire: bool = False,
    allows: Callable[[str], bool] = lambda _name: True,
    likelihoods: Mapping[str, float] = MappingProxyType({}),
) -> Weights:
    """Return the weights of what varies and of every fault that is on in the run with *seed*.

    Args:
        level: `none`, `light` or `heavy`.
        seed: selects the subset of faults and their weights.
        of_wire: whether the faults of the wire are among them.
        allows: whether a fault of the level may happen, by its name; the others are drawn all the same.
        likelihoods: how likely faults are whatever the level, by name, 0 to 1; in what way they strike is
            as likely as ever.
    """
    table: dict[Fault[Any] | Variation[Any], tuple[float, ...]] = {
        variation: variation.weights for variation in VARIATIONS
    }
    if level != "none":
        table |= {fault: row for fault, row in _of_level(level, seed, of_wire).items() if allows(fault.name)}
    for fault in (*FAULTS, *WIRE_FAULTS):
        if fault.name in likelihoods:
            table[fault] = _as_likely(fault, likelihoods[fault.name])
    return table


def _as_likely(fault: Fault[Any], likelihood: float) -> tuple[float, ...]:
    """Return the weights of a fault that is as likely as that."""
    return (1 - likelihood, *(weight * likelihood / fault.likelihood for weight in fault.weights[1:]))


def _of_level(level: str, seed: int, of_wire: bool) -> dict[Fault[Any], tuple[float, ...]]:
    """Return the weights of every fault that is on at a level with *seed*."""
    table: dict[Fault[Any], tuple[float, ...]] = {}
    swarm = random.Random(f"swarm of seed {seed}")
    for fault in (*FAULTS, *WIRE_FAULTS) if of_wire else FAULTS:
        is_on, factor = swarm.random() < SWITCHED_ON, swarm.choice(FACTORS)
        if level == "light":
            is_on, factor = fault.at_light, LIGHT_FACTOR
        if is_on:
            table[fault] = (fault.weights[0], *(weight * factor for weight in fault.weights[1:]))
    return table


def switched_on(table: Weights) -> dict[str, float]:
    """Return how likely each fault of *table* is to strike when it is asked about, 0 to 1, by its name."""
    return {
        decision.name: sum(row[1:]) / sum(row)
        for decision, row in table.items()
        if isinstance(decision, Fault) and any(row[1:])
    }
