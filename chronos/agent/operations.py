"""What the work of a scheduler asks for: `work` yields it, `scheduler` performs it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Protocol, TypeAlias, TypeVar

import attrs

from chronos.agent.runner import RunContext
from chronos.protocol import flow as flows
from chronos.stores import JobStore

T = TypeVar("T")
Work: TypeAlias = Generator["Operation", Any, T]


class Signal(Protocol):
    """Something that may happen once, and be waited for; `asyncio.Event` and `threading.Event` are."""

    def set(self) -> None:
        """Let it have happened."""

    def clear(self) -> None:
        """Let it not have happened."""

    def is_set(self) -> bool:
        """Return whether it has happened."""


@attrs.frozen(kw_only=True)
class Pending:
    """Something that is not finished.

    Attributes:
        job_id: whose; empty when it concerns all jobs.
        reason: what it waits for, in words.
        is_busy: whether this process is at work on it. A host may stop the machine when nothing is;
            what else is listed waits for NAS's next delivery, a change of the job, or a start.
        is_waiting: whether it goes on by itself after a while, and nothing is done about it before.
    """

    job_id: str
    reason: str
    is_busy: bool
    is_waiting: bool = False


@attrs.frozen
class Perform:
    """Perform an effect of the protocol; what comes back is its event.

    `timeout_s` bounds how long NAS may take, seconds; None for no bound but the client's.
    """

    effect: flows.Effect
    timeout_s: float | None = None


@attrs.frozen
class Read:
    """Ask the store something else; what comes back is its answer. Its errors are raised."""

    question: Callable[[JobStore], Any]


@attrs.frozen
class Sleep:
    """Wait for so many microseconds, or until the signal; what comes back is whether that came."""

    delay_us: int
    until: Signal


@attrs.frozen
class Execute:
    """Run a job; what comes back is whether it succeeded, and the text of its failure."""

    context: RunContext


@attrs.frozen
class Spawn:
    """Begin a piece of work beside this one; what comes back is what to `Join`.

    `pending` is how it is listed while it lasts; None for work that belongs to another piece.
    """

    work: Generator[Any, Any, Any]
    pending: Pending | None


@attrs.frozen
class Join:
    """Wait for pieces of work to end; what comes back is what they returned, None for a bug."""

    tasks: tuple[object, ...]


Operation: TypeAlias = Perform | Read | Sleep | Execute | Spawn | Join
