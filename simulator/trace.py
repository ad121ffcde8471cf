"""What happens in a simulated world, line by line, each with the line because of which it happened.

A traced world is the world that is simulated without a trace: its kernel and its network note what they do
besides, and the history is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from msgspec import Struct

from chronos.jobs.instants import Instant
from chronos.jobs.job import Job, Outcome
from chronos.protocol import words
from simulator.faults import Way
from simulator.history import Kind, told
from simulator.kernel import Choices, Kernel
from simulator.network import Network
from simulator.watch import Violation, Watch


class Lane(StrEnum):
    """Where something happens."""

    PEOPLE = "people"
    STORE = "store"
    AGENT = "agent"
    NAS = "NAS"
    EXTERNAL = "external scheduler"


class Line(Struct, frozen=True, kw_only=True):
    """Something that happened.

    Attributes:
        number: counts the lines, from 1.
        because: the number of the line that led to it; 0 when none did.
        at_us: when.
        kind: what, as a word: the kind of an entry of the history, the result of an occurrence, `message`
            or `violation`.
        job_id: of which job; None when it is of all or of none.
        lane: where.
        text: the same in words.
        value: as of the entry of the history: an instant, a number, a status.
        count: of an outcome, of how many occurrences it is.
        to: of a message, where it goes.
        arrives_us: of a message, when it arrives there; None when it is lost on its way.
        process: which process of the agent, where they are told apart.
        step: at which step of its history, where there are steps of `STEP_US` and no times.
    """

    number: int
    because: int
    at_us: Instant
    kind: str
    job_id: str | None
    lane: Lane
    text: str
    value: int = 0
    count: int = 1
    to: Lane | None = None
    arrives_us: Instant | None = None
    process: int | None = None
    step: int | None = None


# How long a step lasts where lines have steps and no times: they are laid out evenly.
STEP_US = 1_000_000

MESSAGE = "message"
VIOLATION = "violation"
# The line before those of each counterexample.
COUNTEREXAMPLE = "counterexample"

_LANES: dict[Lane, tuple[Kind, ...]] = {
    Lane.PEOPLE: (Kind.CHANGED, Kind.TOLD_TO_STOP, Kind.HEALED),
    Lane.STORE: (Kind.CLAIMED, Kind.OUTCOME, Kind.STORE_FAILED, Kind.CONFLICT, Kind.RENEWED),
    Lane.AGENT: (
        Kind.FIRED,
        Kind.ANSWERED,
        Kind.STARTED,
        Kind.ENDED,
        Kind.ARM_FAILED,
        Kind.LISTED,
        Kind.LIST_FAILED,
        Kind.BOOTED,
        Kind.STOPPED,
        Kind.CRASHED,
        Kind.RAISED,
        Kind.REFUSED,
        Kind.UNREACHABLE,
        Kind.HOST_DOWN,
        Kind.HOST_UP,
        Kind.RECOVERED,
        Kind.DRAINED,
        Kind.ANSWER_LOST,
        Kind.DUPLICATED,
        Kind.DELAYED,
    ),
    Lane.NAS: (
        Kind.CREATED,
        Kind.RELAY_DROPPED,
        Kind.RELAY_LOST,
        Kind.FIRE_LOST,
        Kind.TIMED_OUT,
        Kind.SWEPT,
        Kind.CREATE_FAILED,
        Kind.PROVISIONED,
        Kind.CANCELLED,
        Kind.OUTDATED,
        Kind.NAS_DOWN,
        Kind.NAS_UP,
        Kind.IDENTITY_REFUSED,
        Kind.IDENTITY_ACCEPTED,
    ),
    Lane.EXTERNAL: (Kind.RELAYED, Kind.SPENT, Kind.SWALLOWED, Kind.EXTERNAL_DOWN, Kind.EXTERNAL_UP),
}
LANE_OF = {kind: lane for lane, kinds in _LANES.items() for kind in kinds}

# What is entered for each job at once, and happens to all of them.
OF_ALL = frozenset(
    {
        Kind.NAS_DOWN,
        Kind.NAS_UP,
        Kind.HOST_DOWN,
        Kind.HOST_UP,
        Kind.EXTERNAL_DOWN,
        Kind.EXTERNAL_UP,
        Kind.HEALED,
        Kind.TOLD_TO_STOP,
        Kind.IDENTITY_REFUSED,
        Kind.IDENTITY_ACCEPTED,
    }
)

# What a message is, by the name of the function that takes it.
_MESSAGES: dict[str, tuple[Lane, Lane, str]] = {
    "provision": (Lane.AGENT, Lane.NAS, "provision"),
    "cancel": (Lane.AGENT, Lane.NAS, "cancel"),
    "list": (Lane.AGENT, Lane.NAS, "list"),
    "close": (Lane.NAS, Lane.AGENT, "answer"),
    "_fire": (Lane.NAS, Lane.AGENT, "fire"),
    "_close": (Lane.AGENT, Lane.NAS, "answer to the fire"),
}


class Tracer:
    """Hands each line of a world to *sink*.

    Args:
        sink: takes a line.
        job_ids: the ids of the jobs, in the order of their subject numbers.
        only: the job of which lines are wanted, and with them those of no job; None for all.
    """

    def __init__(
        self, sink: Callable[[Line], None], job_ids: tuple[str, ...], only: str | None = None
    ) -> None:
        self._sink, self._job_ids, self._only = sink, job_ids, only
        self._lines = 0
        self._last_of_all: tuple[Instant, int] | None = None

    def kernel(self, choices: Choices, *, start_us: int, subjects: int) -> Kernel:
        """Return the kernel of a world whose lines are wanted."""
        return _Kernel(self, choices, start_us=start_us, subjects=subjects)

    def watch(self, kernel: Kernel, *given: Any, **named: Any) -> Watch:
        """Return the watch of that world."""
        assert isinstance(kernel, _Kernel)
        return _Watch(self, kernel, *given, **named)

    def network(self, kernel: Kernel, watch: Watch) -> Network:
        """Return the network of that world."""
        assert isinstance(kernel, _Kernel)
        return _Network(self, kernel, watch)

    def entered(self, because: int, at_us: Instant, kind: Kind, subject: int, value: int) -> int:
        """Something is entered into the history; return the number of the line to which it leads."""
        if kind is Kind.OUTCOME:
            return because  # `ended` has told it
        if kind in OF_ALL:
            if self._last_of_all == (at_us, kind):
                return because
            self._last_of_all, job_id = (at_us, kind), None
        else:
            job_id = self._job_ids[subject] if subject < len(self._job_ids) else None
        return self._line(
            because, at_us, kind.name.lower(), job_id, LANE_OF[kind], told(kind, value), value=value
        )

    def ended(self, because: int, at_us: Instant, outcome: Outcome) -> int:
        """An occurrence has ended; return the number of the line."""
        text, value = words.of_outcome(outcome), outcome.occurrence_us
        return self._line(
            because,
            at_us,
            outcome.result,
            outcome.job_id,
            Lane.STORE,
            text,
            value=value,
            count=outcome.count,
        )

    def violated(self, because: int, violation: Violation) -> int:
        """A property was violated; return the number of the line."""
        text, kind = f"{violation.property}: {violation.message}", VIOLATION
        return self._line(because, violation.at_us, kind, violation.job_id, Lane.STORE, text)

    def sent(self, because: int, at_us: Instant, subject: int, name: str, arrives_us: Instant | None) -> int:
        """A message is sent to the function with that name; return the number of its line."""
        lane, to, text = _MESSAGES[name]
        job_id = self._job_ids[subject] if subject < len(self._job_ids) else None
        text = f"{text}, lost on its way" if arrives_us is None else text
        return self._line(because, at_us, MESSAGE, job_id, lane, text, to=to, arrives_us=arrives_us)

    def _line(
        self, because: int, at_us: Instant, kind: str, job_id: str | None, lane: Lane, text: str, **more: Any
    ) -> int:
        if self._only is not None and job_id not in (None, self._only):
            return because
        self._lines += 1
        self._sink(
            Line(
                number=self._lines,
                because=because,
                at_us=at_us,
                kind=kind,
                job_id=job_id,
                lane=lane,
                text=text,
                **more,
            )
        )
        return self._lines


class _Kernel(Kernel):
    """Hands each event the line at which it was caused.

    Attributes:
        line: the latest line of the event that happens now, or the one that led to it.
    """

    def __init__(self, tracer: Tracer, choices: Choices, *, start_us: int, subjects: int) -> None:
        super().__init__(choices, start_us=start_us, subjects=subjects)
        self.line = 0
        self._tracer = tracer

    def at(self, when_us: int, handler: Callable[..., None], *arguments: Any) -> None:
        super().at(when_us, self._happen, self.line, handler, arguments)

    def after(self, delay_us: int, handler: Callable[..., None], *arguments: Any) -> None:
        self.at(self.now_us + delay_us, handler, *arguments)

    def _happen(self, because: int, handler: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.line = because
        handler(*arguments)
        self.line = 0

    def record(self, kind: int, subject: int, value: int = 0) -> None:
        super().record(kind, subject, value)
        self.line = self._tracer.entered(self.line, self.now_us, Kind(kind), subject, value)


class _Watch(Watch):
    """Tells of each outcome, and of each violation."""

    def __init__(self, tracer: Tracer, kernel: _Kernel, *given: Any, **named: Any) -> None:
        super().__init__(kernel, *given, **named)
        self._tracer, self._traced = tracer, kernel

    def swapped(self, subject: int, old: Job | None, new: Job | None, outcomes: tuple[Outcome, ...]) -> None:
        super().swapped(subject, old, new, outcomes)
        kernel = self._traced
        for outcome in outcomes:
            kernel.line = self._tracer.ended(kernel.line, kernel.now_us, outcome)

    def _found(self, violation: Violation) -> None:
        self._traced.line = self._tracer.violated(self._traced.line, violation)
        super()._found(violation)


class _Network(Network):
    """Tells of each message when it is sent, and whether it arrives."""

    def __init__(self, tracer: Tracer, kernel: _Kernel, watch: Watch) -> None:
        super().__init__(kernel, watch)
        self._tracer, self._traced = tracer, kernel

    def _carry(
        self,
        latency_us: int,
        way: Way | None,
        subject: int,
        deliver: Callable[..., None],
        arguments: tuple[Any, ...],
    ) -> int | None:
        arrives_us = super()._carry(latency_us, way, subject, deliver, arguments)
        if arrives_us is None:
            self._sent(None, subject, deliver)
        return arrives_us

    def _send(
        self, arrives_us: int, subject: int, deliver: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        kernel, before = self._traced, self._traced.line
        kernel.line = self._sent(arrives_us, subject, deliver)
        super()._send(arrives_us, subject, deliver, arguments)
        kernel.line = before

    def _sent(self, arrives_us: int | None, subject: int, deliver: Callable[..., None]) -> int:
        kernel = self._traced
        return self._tracer.sent(kernel.line, kernel.now_us, subject, deliver.__name__, arrives_us)
