"""How likely each decision of the simulated world is: ordinary variation, and faults by level.

A label names one decision; the weights are those of its options, and option zero is the ordinary
one. `Swarm`: each run switches a random subset of the faults on, with random weights, so that some
runs meet one fault often and some meet none.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import attrs

# Ordinary variation, at every level of faults: the option is an index into the table of durations
# that the module of the same name keeps.
ORDINARY: Mapping[str, Sequence[float]] = {
    "external.lateness": (5,) + (1,) * 15,
    "network.latency": (5,) + (1,) * 15,
    "machine.boot": (5,) + (1,) * 15,
    "machine.run": (4,) + (1,) * 15,
    "machine.kill.when": (1,) * 60,
    "operator.resume": (1, 1),
}


@attrs.frozen
class Fault:
    """What may go wrong with one decision.

    Attributes:
        weights: of its options at the level `heavy`, the ordinary one first.
        words: what the other options are, in their order.
    """

    weights: Sequence[float]
    words: str

    @property
    def likelihood(self) -> float:
        """How likely it is that the decision is not the ordinary one, 0 to 1."""
        return 1 - self.weights[0] / sum(self.weights)


HEAVY: Mapping[str, Fault] = {
    # the way between the parties
    "network.request": Fault((0.97, 0.01, 0.01, 0.01), "a request is lost, duplicated or delayed"),
    "network.reply": Fault((0.98, 0.01, 0.01), "a reply is lost or delayed"),
    # the external scheduler
    "external.late": Fault((0.97, 0.01, 0.01, 0.01), "it calls seconds, minutes or most of an hour late"),
    "external.duplicate": Fault((0.99, 0.01), "it calls twice"),
    # NAS
    "nas.create": Fault((0.99, 0.01), "it crashes between its row and the one-shot"),
    "nas.delete": Fault((0.98, 0.02), "it cannot delete the one-shot that it replaces or cancels"),
    "nas.busy": Fault((0.99, 0.01), "it asks to be asked later, in half a minute"),
    "nas.outage": Fault(
        (0.94, 0.03, 0.02, 0.01), "asked every six hours: it is away for minutes, an hour or half a day"
    ),
    # the agent's machine and its host
    "machine.crash": Fault((0.997, 0.003), "asked before each effect: the machine dies"),
    "machine.kill": Fault((0.96, 0.04), "asked every hour: the machine dies"),
    "machine.replace": Fault(
        (0.97, 0.03), "asked every hour: the host replaces a machine, which has half a minute to drain"
    ),
    "machine.slow_boot": Fault((0.97, 0.02, 0.01), "it boots slower than the relay's patience, or never"),
    "machine.outage": Fault(
        (0.96, 0.02, 0.01, 0.01),
        "asked every six hours: the host starts no machine for minutes, an hour or half a day",
    ),
    "machine.clock": Fault(
        (0.9, 0.03, 0.03, 0.02, 0.02), "the clock is wrong by some seconds for the first minutes after a boot"
    ),
    "machine.long_run": Fault(
        (0.985, 0.01, 0.004, 0.001), "a run is longer than the period, than the lease, than an hour"
    ),
    "machine.failed_run": Fault((0.97, 0.03), "a run fails"),
    "store.failure": Fault((0.998, 0.001, 0.001), "the job store fails before a write or after it"),
    "operator.stop": Fault(
        (0.97, 0.02, 0.01),
        "asked every six hours: the agent is told to run no jobs for minutes or an hour, and then started",
    ),
    # people; a pause, a removal and another schedule last for three hours
    "operator.change": Fault(
        (0.6, 0.1, 0.1, 0.1, 0.1),
        "asked every four hours: somebody pauses, removes or edits a job, or runs it by hand",
    ),
}

# Of these, `light` has none: who changes jobs on purpose is no failure.
_HEAVY_ONLY = frozenset({"operator.change"})

# In a swarm, how likely a fault is switched on, and by what its likelihood is multiplied then.
SWITCHED_ON = 0.6
FACTORS = (0.3, 1.0, 1.0, 3.0)
LIGHT_FACTOR = 0.1

LEVELS: Mapping[str, str] = {
    "none": "nothing goes wrong; how long messages, boots and runs take varies all the same",
    "light": f"every fault, with {LIGHT_FACTOR:g} of its likelihood; without " + ", ".join(_HEAVY_ONLY),
    "heavy": (
        f"of each seed, every fault is on with a probability of {SWITCHED_ON:g}, its likelihood multiplied "
        f"by one of {', '.join(f'{factor:g}' for factor in FACTORS)}"
    ),
}


def weights(level: str, seed: int, *, jobs: int, machines: int) -> dict[str, Sequence[float]]:
    """Return the weights of every decision of the run with *seed*.

    Args:
        level: `none`, `light` or `heavy`.
        seed: selects the subset of faults and their weights.
        jobs: how many jobs there are; any of them is as likely to be changed.
        machines: how many machines there are; any of them is as likely to be called.
    """
    table = {**ORDINARY, "operator.job": (1,) * jobs, "route": (1,) * machines}
    if level == "none":
        return table
    swarm = random.Random(f"swarm of seed {seed}")
    for label, fault in HEAVY.items():
        is_on, factor = swarm.random() < SWITCHED_ON, swarm.choice(FACTORS)
        if level == "light":
            is_on, factor = label not in _HEAVY_ONLY, LIGHT_FACTOR
        if is_on:
            table[label] = (fault.weights[0], *(weight * factor for weight in fault.weights[1:]))
    return table
