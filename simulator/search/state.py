"""The states of a small world, as values; and the messages, processes and timers in them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

from chronos.jobs.instants import format_instant
from chronos.jobs.job import Job
from chronos.protocol.flow_effects import CancelArm, Effect, ProvisionArm
from chronos.protocol.maps import Map
from chronos.protocol.state import Process
from chronos.testing.nas import OneShot, Row
from chronos.values import evolve
from simulator.moments import Attempt

NOBODY = -1
# What a process sends.
ORDERED = ("provision", "cancel")
SENT = ("provision", "cancel", "list", "answer")


class Message(NamedTuple):
    """A message on its way.

    Attributes:
        kind: `provision`, `cancel`, `list`, `fire`, `answer`, or a reply: `outdated`, `arms`, `refused`.
        process: the process that asked and waits for the reply; NOBODY when none does any more.
        task: which of its tasks.
        relay: the relay that a fire or its answer belongs to; NOBODY when it was closed.
        instant_us: the instant armed, fired or listed; NOBODY for none.
        number: a revision (NOBODY for none), or whether an answer accepts.
    """

    kind: str
    process: int = NOBODY
    task: int = NOBODY
    relay: int = NOBODY
    instant_us: int = NOBODY
    number: int = NOBODY

    def __str__(self) -> str:
        at = "" if self.instant_us == NOBODY else f" of {time_of(self.instant_us)}"
        match self.kind:
            case "provision" | "cancel":
                return f"the {self.kind}{at} (revision {self.number})"
            case "answer":
                return "the answer 2xx to the fire" if self.number else "the answer 503 to the fire"
            case "outdated" | "arms" | "refused":
                return f"NAS's reply ({self.kind}) to process {self.process}"
        return f"the {self.kind}{at}"


# Who waits for an answer of a process, besides a relay by its number.
SOMEBODY = -2


class Proc(NamedTuple):
    """A machine, and the process of its present life.

    Attributes:
        life: which life it is.
        process: what its process knows; None while it is down.
        tickets: who waits for its answers: each ticket with a relay, SOMEBODY or NOBODY.
        runs: the runners at work.
    """

    life: int
    process: Process | None
    tickets: tuple[tuple[int, int], ...] = ()
    runs: tuple[Hashable, ...] = ()


class State(NamedTuple):
    """Everything there is, at one moment.

    Attributes:
        clock: index of the present instant.
        job: as stored.
        row: what NAS keeps.
        held: the one-shots that the external scheduler still calls for.
        used: the names that its deduplication window knows.
        relays: the fires that NAS waits for: number and one-shot.
        messages: on their way, sorted.
        procs: the machines.
        crashes: how many crashes are left.
        duplicates: how many duplicates are left.
        losses: how many losses are left.
        change: whether somebody may still ask for the case's change (0), wants to again (1), waits for
            the answer (2) or has it (3).
        stop: whether the agent may still be told to run no jobs (0), is told so (1), is no longer and has
            to be started (2), or was started since (3).
        drain: whether the host may still replace a machine.
        login: whether NAS may still refuse the agent's identity (0), does (1), does no longer and the agent
            has to be started (2), or was started since (3).
        acknowledged: whether the job as stored was reported as settled.
        started: the attempts that were started, in order.
    """

    clock: int
    job: Job | None
    row: Row
    held: tuple[OneShot, ...]
    used: frozenset[tuple[str | int, ...]]
    relays: tuple[tuple[int, OneShot], ...]
    messages: tuple[Message, ...]
    procs: tuple[Proc, ...]
    crashes: int
    duplicates: int
    losses: int
    change: int
    stop: int
    drain: bool
    login: int
    acknowledged: bool
    started: tuple[Attempt, ...]

    def is_on_its_way(self) -> bool:
        """Return whether a message comes from or goes to a certain process."""
        return any(message.process != NOBODY for message in self.messages)

    def called_for(self) -> tuple[OneShot, ...]:
        """Return the one-shots whose relays are open."""
        return tuple(shot for _, shot in self.relays)

    # --- changes ---

    def sending(self, message: Message) -> State:
        """Return the state with one more message on its way."""
        return self._replace(messages=in_order((*self.messages, message)))

    def replying(self, request: Message, kind: str, instant_us: int, number: int) -> State:
        """Return the state with NAS's answer on its way to whoever waits for it."""
        if request.task == NOBODY:
            return self
        return self.sending(Message(kind, request.process, request.task, NOBODY, instant_us, number))

    def with_proc(self, number: int, proc: Proc) -> State:
        """Return the state with another value for a machine."""
        return self._replace(procs=(*self.procs[:number], proc, *self.procs[number + 1 :]))


class Arms(dict[str, "int | None"]):
    """A listing that can be part of a state."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(sorted(self.items())))


def time_of(instant_us: int) -> str:
    """Return the time of day of an instant."""
    return format_instant(instant_us)[11:19]


def in_order(messages: Any) -> tuple[Message, ...]:
    """Return messages sorted, so that two states with the same ones are the same."""
    return tuple(sorted(messages))


def without(things: tuple[Any, ...], thing: Any) -> tuple[Any, ...]:
    """Return *things* without one *thing*, if it is among them."""
    if thing not in things:
        return things
    index = things.index(thing)
    return things[:index] + things[index + 1 :]


def request(number: int, task: int, effect: Effect) -> Message:
    """Return the message by which a task of a process asks NAS."""
    match effect:
        case ProvisionArm(fire_at_us=fire_at_us, revision=revision):
            return Message("provision", number, task, NOBODY, fire_at_us, _told(revision))
        case CancelArm(revision=revision):
            return Message("cancel", number, task, number=_told(revision))
    return Message("list", number, task)


def _told(revision: int | None) -> int:
    """Return a revision, NOBODY for none: an agent need not order its messages."""
    return NOBODY if revision is None else revision


# --- Timers -----------------------------------------------------------------------------------


def made_due(process: Process, due_us: int, now_us: int) -> Process:
    """Return *process* with the timers of *due_us* due at *now_us*: so much time has passed meanwhile."""
    runs = {
        key: evolve(
            running,
            renew_us=now_us if running.renew_us == due_us else running.renew_us,
            over_us=now_us if running.over_us == due_us else running.over_us,
        )
        for key, running in process.runs.items()
    }
    owed = {
        key: evolve(each, due_us=now_us) if each.due_us == due_us else each
        for key, each in process.owed.items()
    }
    retries = {
        name: evolve(retry, due_us=now_us)
        for name in ("lists", "looks")
        if (retry := getattr(process, name)) is not None and retry.due_us == due_us
    }
    ticker = process.ticker
    if ticker.next_us == due_us:
        ticker = evolve(ticker, next_us=now_us)
    return evolve(process, runs=Map(runs), owed=Map(owed), ticker=ticker, **retries)


def without_words(process: Process) -> Process:
    """Return *process* without what it would only say: two that differ in that do the same."""
    if not process.unsettled and not process.owed:
        return process
    owed = Map({key: evolve(each, reason="") for key, each in process.owed.items()})
    unsettled = Map(dict.fromkeys(process.unsettled, ""))
    return evolve(process, unsettled=unsettled, owed=owed)
