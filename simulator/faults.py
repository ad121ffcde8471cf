"""How likely each decision of the simulated world is: ordinary variation, and faults by level.

A label names one decision; the weights are those of its options, and option zero is the ordinary
one. `Swarm`: each run switches a random subset of the faults on, with random weights, so that some
runs meet one fault often and some meet none.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

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

# Faults, at the heavy level.
HEAVY: Mapping[str, Sequence[float]] = {
    # the way between the parties
    "network.request": (0.97, 0.01, 0.01, 0.01),  # ordinary, lost, duplicated, delayed
    "network.reply": (0.98, 0.01, 0.01),  # ordinary, lost, delayed
    # the external scheduler
    "external.late": (0.97, 0.01, 0.01, 0.01),
    "external.duplicate": (0.99, 0.01),
    # NAS
    "nas.create": (0.99, 0.01),  # crashes between its row and the one-shot
    "nas.delete": (0.98, 0.02),  # cannot delete the one-shot that it replaces or cancels
    "nas.outage": (0.94, 0.03, 0.02, 0.01),  # asked every six hours: none, minutes, an hour, half a day
    # the agent's machine and its host
    "machine.crash": (0.997, 0.003),  # before each effect
    "machine.kill": (0.96, 0.04),  # asked every hour: the machine dies
    "machine.slow_boot": (0.97, 0.02, 0.01),  # slower than the relay's patience, or never up
    "machine.outage": (0.96, 0.02, 0.01, 0.01),  # asked every six hours: the host starts no machine
    "machine.clock": (0.9, 0.03, 0.03, 0.02, 0.02),  # wrong for the first minutes after a boot
    "machine.long_run": (0.985, 0.01, 0.004, 0.001),  # longer than the period, than the lease, than an hour
    "machine.failed_run": (0.97, 0.03),
    "store.failure": (0.998, 0.001, 0.001),  # before the write, after it
    # people, asked every four hours; "another schedule" is for three hours, like a pause and a removal
    "operator.change": (0.6, 0.1, 0.1, 0.1, 0.1),  # none, pause, remove, another schedule, run by hand
}

# Light: the same faults, a tenth as often, and nobody changes jobs.
LIGHT_FACTOR = 0.1
LEVELS = ("none", "light", "heavy")

# In a swarm, how likely a fault is switched on, and by what its weights are multiplied then.
_SWITCHED_ON = 0.6
_FACTORS = (0.3, 1.0, 1.0, 3.0)


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
    for label, row in HEAVY.items():
        is_on, factor = swarm.random() < _SWITCHED_ON, swarm.choice(_FACTORS)
        if level == "light":
            is_on, factor = label != "operator.change", LIGHT_FACTOR
        if is_on:
            table[label] = (row[0], *(weight * factor for weight in row[1:]))
    return table
