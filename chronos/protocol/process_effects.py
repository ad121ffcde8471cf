"""The events of a process, and its effects."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeAlias

from chronos import events
from chronos.jobs.job import Job, Unreadable
from chronos.protocol.flow_effects import Answer, ArmFailed, StartRun
from chronos.protocol.flow_effects import Effect as FlowEffect
from chronos.protocol.flow_effects import Event as FlowEvent
from chronos.protocol.intents import Declare, Intent
from chronos.protocol.state import Started
from chronos.values import value

# --- What happens to a process ----------------------------------------------------------------


@value
class IdentityRefused(ArmFailed):
    """NAS refuses the agent's identity: no arm of any job can be had from it."""


@value
class Asked:
    """Somebody asks for a flow, and waits for its answer under *ticket*."""

    ticket: Hashable
    intent: Intent


@value
class AskedToStart:
    """Somebody asks the process to make NAS agree with the store; comes back as `Started`. Ends a drain."""

    ticket: Hashable


@value
class AskedToReconcile:
    """Somebody has changed jobs past the process, which is to make NAS agree with the store.

    Comes back as `Started`. It is no start: a drain goes on, and an identity that NAS refuses stays refused.
    """

    ticket: Hashable


@value
class AskedToDeclare:
    """Somebody declares jobs; *jobs* are those in the store. Comes back as a mapping of answers by job id."""

    ticket: Hashable
    jobs: tuple[Job, ...]
    wanted: tuple[Declare, ...]
    removes_others: bool = False


@value
class AskedToDrain:
    """The host is about to stop: fires are turned away, and what waits waits no longer."""


@value
class Came:
    """The effect of a task has come back, with what happened."""

    number: int
    event: FlowEvent


@value
class Broke:
    """The task cannot go on: a bug, or nobody to perform its effect."""

    number: int


@value
class AskedForArms:
    """A caller asks for the list of arms; comes back as `ArmsListed` or `ArmFailed`."""

    ticket: Hashable


@value
class RunBroke:
    """There is nobody to call the runner, or the call was taken back: the run goes on nowhere."""

    key: Hashable


@value
class CannotRing:
    """There is nobody to ring: nothing that waits goes on by itself."""


@value
class RunEnded:
    """The runner of a run has returned or raised; *detail* says why it failed."""

    key: Hashable
    succeeded: bool
    detail: str = ""


@value
class Rang:
    """A timer has come; see `Process.rings_us`."""


@value
class Saw:
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


@value
class Perform:
    """Perform an effect at the store or at NAS; comes back as `Came`.

    `within_us` bounds how long NAS may take, microseconds; None for the store.
    """

    number: int
    effect: FlowEffect
    within_us: int | None = None


@value
class CallRunner:
    """Run the job; its end comes back as `RunEnded`, whenever that is."""

    key: Hashable
    started: StartRun


@value
class TellRunner:
    """The time of a run is over: tell its runner."""

    key: Hashable


@value
class Reply:
    """Tell who asked under *ticket*; None when the work ended with a bug."""

    ticket: Hashable
    result: Answer | Started | Mapping[str, Answer] | FlowEvent | None


@value
class Tell:
    """Tell whoever looks on."""

    event: events.Event


@value
class Log:
    """Write a line for the agent's people: `level` is a word of `logging`, `extra` has more fields."""

    level: str
    text: str
    job_id: str = ""
    extra: object = None


Effect: TypeAlias = Perform | CallRunner | TellRunner | Reply | Tell | Log
