"""The words of a history: what may be entered, and how an entry reads."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from chronos.jobs.instants import format_instant


class Kind(IntEnum):
    """What an entry of the history says happened. The numbers enter the digest."""

    CREATED = 1
    RELAYED = 2
    RELAY_DROPPED = 3
    RELAY_LOST = 4
    FIRED = 5
    FIRE_LOST = 6
    ANSWERED = 7
    ANSWER_LOST = 8
    TIMED_OUT = 9
    SPENT = 10
    SWEPT = 11
    SWALLOWED = 12
    CREATE_FAILED = 13
    CLAIMED = 14
    OUTCOME = 15
    STARTED = 16
    ENDED = 17
    PROVISIONED = 18
    CANCELLED = 19
    OUTDATED = 20
    ARM_FAILED = 21
    LISTED = 22
    LIST_FAILED = 23
    CHANGED = 24
    BOOTED = 25
    STOPPED = 26
    CRASHED = 27
    REFUSED = 28
    UNREACHABLE = 29
    NAS_DOWN = 30
    NAS_UP = 31
    HOST_DOWN = 32
    HOST_UP = 33
    HEALED = 34
    RECOVERED = 35
    DRAINED = 36
    TOLD_TO_STOP = 42
    IDENTITY_REFUSED = 43
    IDENTITY_ACCEPTED = 44
    RENEWED = 37
    STORE_FAILED = 38
    DUPLICATED = 39
    DELAYED = 40
    CONFLICT = 41
    EXTERNAL_DOWN = 45
    EXTERNAL_UP = 46
    RAISED = 47


# What somebody may ask for, by the numbers that `simulator.people` enters.
_ASKED = {
    1: "to pause the job",
    2: "to resume the job",
    3: "to remove the job",
    4: "to create the job",
    5: "to edit the job",
    6: "to run the job now",
}


def _ends(count: int) -> str:
    return "an occurrence ends" if count == 1 else f"{count:,} occurrences end"


# How the value of an entry reads.
_INSTANT: Callable[[int], str] = format_instant
_STATUS = _MACHINE = _NUMBER = str

_WORDS: dict[Kind, tuple[str, Callable[[int], str]]] = {
    Kind.CREATED: ("NAS creates the one-shot for {}", _INSTANT),
    Kind.RELAYED: ("the external scheduler calls for {}", _INSTANT),
    Kind.RELAY_DROPPED: ("NAS drops the relay of {}: not the present arm", _INSTANT),
    Kind.RELAY_LOST: ("the call of the external scheduler is lost", _NUMBER),
    Kind.FIRED: ("the fire for {} arrives", _INSTANT),
    Kind.FIRE_LOST: ("the fire for {} is lost", _INSTANT),
    Kind.ANSWERED: ("the fire is answered {}", _STATUS),
    Kind.ANSWER_LOST: ("the answer {} to the fire is lost", _STATUS),
    Kind.TIMED_OUT: ("NAS gives up waiting for the answer to the fire of {}", _INSTANT),
    Kind.SPENT: ("the external scheduler gives up {}", _INSTANT),
    Kind.SWEPT: ("NAS creates the one-shot for {} again", _INSTANT),
    Kind.SWALLOWED: ("the deduplication window swallows the one-shot for {}", _INSTANT),
    Kind.CREATE_FAILED: ("NAS crashes after its row for {}, before the one-shot", _INSTANT),
    Kind.CLAIMED: ("the occurrence {} is claimed", _INSTANT),
    Kind.OUTCOME: ("{}", _ends),
    Kind.STARTED: ("the run of {} starts", _INSTANT),
    Kind.ENDED: ("the run of {} ends", _INSTANT),
    Kind.PROVISIONED: ("NAS arms {}", _INSTANT),
    Kind.CANCELLED: ("NAS disarms the job", _NUMBER),
    Kind.OUTDATED: ("NAS refuses an older revision than {}", _NUMBER),
    Kind.ARM_FAILED: ("the agent cannot tell whether NAS agrees", _NUMBER),
    Kind.LISTED: ("machine {} lists the arms", _MACHINE),
    Kind.LIST_FAILED: ("machine {} cannot list the arms", _MACHINE),
    Kind.CHANGED: ("somebody asks {}", _ASKED.__getitem__),
    Kind.BOOTED: ("machine {} has booted", _MACHINE),
    Kind.STOPPED: ("machine {} goes to sleep", _MACHINE),
    Kind.CRASHED: ("machine {} crashes", _MACHINE),
    Kind.REFUSED: ("the fire's token is refused", _NUMBER),
    Kind.UNREACHABLE: ("the machine cannot be reached", _NUMBER),
    Kind.NAS_DOWN: ("NAS is out of reach until {}", _INSTANT),
    Kind.NAS_UP: ("NAS is back", _NUMBER),
    Kind.HOST_DOWN: ("the host starts no machine until {}", _INSTANT),
    Kind.HOST_UP: ("the host starts machines again", _NUMBER),
    Kind.HEALED: ("faults are over", _NUMBER),
    Kind.RECOVERED: ("a starting process looks after the job", _NUMBER),
    Kind.DRAINED: ("machine {} drains", _MACHINE),
    Kind.TOLD_TO_STOP: ("the agent is told to run no jobs until {}", _INSTANT),
    Kind.IDENTITY_REFUSED: ("NAS refuses the agent's identity until {}", _INSTANT),
    Kind.IDENTITY_ACCEPTED: ("NAS accepts the agent's identity again", _NUMBER),
    Kind.RENEWED: ("the lease of the run of {} is renewed", _INSTANT),
    Kind.STORE_FAILED: ("the job store fails", _NUMBER),
    Kind.DUPLICATED: ("a message to NAS is duplicated", _NUMBER),
    Kind.DELAYED: ("a message is delayed by {} s", _NUMBER),
    Kind.EXTERNAL_DOWN: ("the external scheduler makes no calls until {}", _INSTANT),
    Kind.EXTERNAL_UP: ("the external scheduler makes calls again", _NUMBER),
    Kind.RAISED: ("the agent raises an exception, which ends its process", _NUMBER),
    Kind.CONFLICT: ("another process was faster", _NUMBER),
}


def render(at_us: int, kind: int, value: int) -> str:
    """Return an entry of the history as a line."""
    return f"{format_instant(at_us)}  {told(kind, value)}"


def told(kind: int, value: int) -> str:
    """Return what an entry of the history says, without its time."""
    text, reading = _WORDS[Kind(kind)]
    return text.format(reading(value))
