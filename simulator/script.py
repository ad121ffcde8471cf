"""What is written down to happen in a simulated world at its time: faults that strike, and what people do."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from chronos.jobs.instants import Instant
from chronos.jobs.schedule import Schedule


class Stroke(Struct, frozen=True, kw_only=True):
    """A fault that strikes at its time.

    Attributes:
        fault: which, by its name; or the name of a pick.
        drawn: which of its options, by its number.
        job: what it strikes, by its id; None for a machine.
        machine: of a machine, which.
        at_us: from when on it is looked out for.
        number: which time it is asked about from then on strikes.
        text: how a file spells it.
    """

    fault: str
    drawn: int
    job: str | None = None
    machine: int = 0
    at_us: Instant
    number: int = 1
    text: str = ""


class Do(StrEnum):
    """What somebody does."""

    PAUSE = "pause"
    RESUME = "resume"
    REMOVE = "remove"
    CREATE = "create"
    EDIT = "edit"
    RUN = "run"
    STOP = "stop"
    REFUSE = "refuse"
    KILL = "kill"
    REPLACE = "replace"
    START = "start"
    WAKE = "wake"
    CLOCK = "clock"
    FIRE = "fire"
    ROTATE = "rotate"


# What is done to a job, what to a machine, and what is to be said of it, by the key.
TO_A_JOB = frozenset({Do.PAUSE, Do.RESUME, Do.REMOVE, Do.CREATE, Do.EDIT, Do.RUN, Do.FIRE})
TO_A_MACHINE = frozenset({Do.KILL, Do.REPLACE, Do.START, Do.WAKE, Do.CLOCK, Do.FIRE})
GIVEN = {
    "lasts": frozenset({Do.STOP, Do.REFUSE, Do.CLOCK}),
    "schedule": frozenset({Do.EDIT}),
    "off": frozenset({Do.CLOCK}),
    "names": frozenset({Do.FIRE}),
}

WORDS = {
    Do.PAUSE: "somebody pauses the job",
    Do.RESUME: "somebody resumes the job, with the occurrence at which it was paused",
    Do.REMOVE: "somebody removes the job",
    Do.CREATE: "somebody creates the job again that was removed",
    Do.EDIT: "somebody gives the job another schedule",
    Do.RUN: "somebody runs the job by hand",
    Do.STOP: "the agent is told to run no jobs for a while, and is started afterwards",
    Do.REFUSE: "NAS refuses the agent's identity for a while; then there is a new login, and a start",
    Do.KILL: "the machine dies",
    Do.REPLACE: "the host replaces the machine, which has half a minute to drain",
    Do.START: "somebody starts the agent, which wakes the machine",
    Do.WAKE: "something else wakes the machine",
    Do.CLOCK: "the machine's clock is set wrong for a while",
    Do.ROTATE: "NAS signs with another key from now on, and publishes it",
    Do.FIRE: "NAS's signature stands under a fire that names another instant than one armed",
}


class Deed(Struct, frozen=True, kw_only=True):
    """Something that somebody does at its time.

    Attributes:
        do: what.
        at_us: when.
        job: to which job, by its id; None where it is none's.
        machine: to which machine.
        lasts_us: for how long, microseconds; 0 where it does not last.
        schedule: of an edit, the new schedule.
        off_us: of a clock, how far it is ahead, microseconds.
        names_us: of a fire, the instant that it names.
        purpose: of a fire, the purpose of its token where that is another.
    """

    do: Do
    at_us: Instant
    job: str | None = None
    machine: int = 0
    lasts_us: int = 0
    schedule: Schedule | None = None
    off_us: int = 0
    names_us: Instant | None = None
    purpose: str = ""


class Script(Struct, frozen=True, kw_only=True):
    """All that is written down, faults and deeds."""

    strokes: tuple[Stroke, ...] = ()
    deeds: tuple[Deed, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.strokes or self.deeds)


NOTHING_WRITTEN = Script()
