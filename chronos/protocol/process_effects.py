"""The events of a process, and its effects."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeAlias

from msgspec import Struct

from chronos import events
from chronos.jobs.job import Job, Unreadable
from chronos.protocol.flow_effects import Answer, ArmFailed, StartRun
from chronos.protocol.flow_effects import Effect as FlowEffect
from chronos.protocol.flow_effects import Event as FlowEvent
from chronos.protocol.intents import Declare, Intent
from chronos.protocol.state import Started

# --- What happens to a process ----------------------------------------------------------------


class IdentityRefused(ArmFailed, frozen=True):
    """NAS refuses the agent's identity: no arm of any job can be had from it."""


class Asked(Struct, frozen=True):
    """Somebody asks for a flow, and waits for its answer under *ticket*."""

    ticket: Hashable
    intent: Intent


class AskedToStart(Struct, frozen=True):
    """Somebody asks the process to make NAS agree with the store; comes back as `Started`. Ends a drain."""

    ticket: Hashable


class AskedToReconcile(Struct, frozen=True):
    """Somebody has changed jobs past the process, which is to make NAS agree with the store.

    Comes back as `Started`. It is no start: a drain goes on, and an identity that NAS refuses stays refused.
    """

    ticket: Hashable


class AskedToDeclare(Struct, frozen=True):
    """Somebody declares jobs; *jobs* are those in the store. Comes back as a mapping of answers by job id."""

    ticket: Hashable
    jobs: tuple[Job, ...]
    wanted: tuple[Declare, ...]
    removes_others: bool = False


class AskedToDrain(Struct, frozen=True):
    """The host is about to stop: fires are turned away, and what waits waits no longer."""


class Came(Struct, frozen=True):
    """The effect of a task has come back, with what happened."""

    number: int
    event: FlowEvent


class Broke(Struct, frozen=True):
    """The task cannot go on: a bug, or nobody to perform its effect."""

    number: int


class AskedForArms(Struct, frozen=True):
    """A caller asks for the list of arms; comes back as `ArmsListed` or `ArmFailed`."""

    ticket: Hashable


class RunBroke(Struct, frozen=True):
    """There is nobody to call the runner, or the call was taken back: the run goes on nowhere."""

    key: Hashable


class CannotRing(Struct, frozen=True):
    """There is nobody to ring: nothing that waits goes on by itself."""


class RunEnded(Struct, frozen=True):
    """The runner of a run has returned or raised; *detail* says why it failed."""

    key: Hashable
    succeeded: bool
    detail: str = ""


class Rang(Struct, frozen=True):
    """A timer has come; see `Process.rings_us`."""


class Saw(Struct, frozen=True):
    """Somebody has read all records of the store; these are no jobs."""

    unreadable: tuple[Unreadable, ...]


Event: TypeAlias = (
    Asked
    | AskedToStart
    | AskedToReconcile
    | AskedToDeclare
    | AskedToDrain
    | AskedForArms
    | Came
    | Broke
    | RunEnded
    | RunBroke
    | Rang
    | CannotRing
    | Saw
)


# --- What a process wants done ----------------------------------------------------------------


class Perform(Struct, frozen=True):
    """Perform an effect at the store or at NAS; comes back as `Came`.

    `within_us` bounds how long NAS may take, microseconds; None for the store.
    """

    number: int
    effect: FlowEffect
    within_us: int | None = None


class CallRunner(Struct, frozen=True):
    """Run the job; its end comes back as `RunEnded`, whenever that is."""

    key: Hashable
    started: StartRun


class TellRunner(Struct, frozen=True):
    """The time of a run is over: tell its runner."""

    key: Hashable


class Reply(Struct, frozen=True):
    """Tell who asked under *ticket*; None when the work ended with a bug."""

    ticket: Hashable
    result: Answer | Started | Mapping[str, Answer] | FlowEvent | None


class Tell(Struct, frozen=True):
    """Tell whoever looks on."""

    event: events.Event


class Log(Struct, frozen=True):
    """Write a line for the agent's people: `level` is a word of `logging`, `extra` has more fields."""

    level: str
    text: str
    job_id: str = ""
    extra: object = None


Effect: TypeAlias = Perform | CallRunner | TellRunner | Reply | Tell | Log
