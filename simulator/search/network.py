"""The network of a small world: the external scheduler, NAS, and the messages to and from processes.

Every message may be arbitrarily late, lost or doubled.
"""

from __future__ import annotations

from collections.abc import Iterator

from chronos.protocol.flow_effects import ArmAccepted, ArmFailed, ArmOutdated, ArmsListed
from chronos.protocol.intents import Fire
from chronos.protocol.process_effects import IdentityRefused
from chronos.testing import nas
from chronos.testing.nas import Decision, OneShot, Promises
from simulator.search.cases import JOB_ID, Case
from simulator.search.moves import Move, bound
from simulator.search.processes import Processes
from simulator.search.state import NOBODY, ORDERED, Arms, Message, State, in_order, time_of, without

_FAILED = ArmFailed()


class Network:
    """What the external scheduler, NAS and the network between them and the processes do.

    Args:
        case: the bounded world.
        promises: which NAS.
        processes: what the messages reach.
    """

    def __init__(self, case: Case, promises: Promises, processes: Processes) -> None:
        self._case, self._promises, self._processes = case, promises, processes

    def calls(self, state: State) -> Iterator[Move]:
        """Yield the calls of the external scheduler that are due."""
        in_delivery_us = {shot.fire_at_us for shot in state.called_for()}
        for shot in state.held:
            if shot.fire_at_us > self._case.now_us(state.clock):
                continue
            at = time_of(shot.fire_at_us)
            if shot.fire_at_us not in in_delivery_us:
                yield f"the external scheduler calls for {at}", False, bound(self._relay, state, shot)

    def arrivals(self, state: State) -> Iterator[Move]:
        """Yield what may become of the messages on their way."""
        previous = None
        for message in state.messages:
            if message == previous:
                continue
            previous = message
            name = str(message)
            if message.kind == "fire":
                for number in self._processes.candidates(state):
                    yield (
                        f"{name} reaches process {number}",
                        False,
                        bound(self._deliver_fire, state, message, number),
                    )
            else:
                yield f"{name} arrives", False, bound(self.deliver, state, message)
            if state.losses:
                yield f"{name} is lost", True, bound(self._lose, state, message)
                if message.task != NOBODY and message.kind in ORDERED:
                    yield (
                        f"{name} arrives, and the reply is lost",
                        True,
                        bound(self._lose_reply, state, message),
                    )
            if state.duplicates and message.kind in ("provision", "cancel", "fire"):
                if message.kind == "fire":
                    for number in self._processes.candidates(state):
                        twice = bound(self._deliver_fire, self._double(state, message), message, number)
                        yield f"{name} reaches process {number}, and will again", True, twice
                else:
                    yield (
                        f"{name} arrives, and will again",
                        True,
                        bound(self.deliver, self._double(state, message), message),
                    )

    # --- the external scheduler and NAS ---

    def _relay(self, state: State, shot: OneShot) -> State:
        if not nas.forwards(self._promises, state.row, shot):
            return state._replace(held=without(state.held, shot))
        taken = {number for number, _ in state.relays} | {message.relay for message in state.messages}
        taken |= {relay for proc in state.procs for _, relay in proc.tickets}
        number = next(number for number in range(99) if number not in taken)
        fire = Message("fire", relay=number, instant_us=shot.fire_at_us)
        return state._replace(relays=(*state.relays, (number, shot))).sending(fire)

    def close_relay(self, state: State, number: int, is_accepted: bool) -> State:
        """NAS has its answer, or waits no longer; what is still on its way belongs to nobody."""
        shot = next((shot for relay, shot in state.relays if relay == number), None)
        if shot is None:
            return state
        row, held = state.row, state.held
        if is_accepted:
            row = nas.delivered(self._promises, row, shot)
            held = without(held, shot)
        return state._replace(
            row=row,
            held=held,
            relays=tuple(relay for relay in state.relays if relay[0] != number),
            messages=in_order(
                message._replace(relay=NOBODY) if message.relay == number else message
                for message in state.messages
                if not (message.relay == number and message.kind == "answer")
            ),
            procs=tuple(
                proc._replace(
                    tickets=tuple(
                        (each, NOBODY if relay == number else relay) for each, relay in proc.tickets
                    )
                )
                for proc in state.procs
            ),
        )

    def deliver(self, state: State, message: Message) -> State:
        """Let a message arrive."""
        state = state._replace(messages=without(state.messages, message))
        if state.login == 1 and message.kind in ("list", *ORDERED):
            return state.replying(message, "refused", NOBODY, NOBODY)
        match message.kind:
            case "answer":
                return self.close_relay(state, message.relay, bool(message.number))
            case "list":
                shot = nas.listed(self._promises, state.row, relays=state.called_for())
                armed = shot.fire_at_us if shot is not None else NOBODY
                return state.replying(message, "arms", armed, NOBODY)
            case "provision" | "cancel":
                return self._decide(state, message)
        return self._resume(state, message)

    def _deliver_fire(self, state: State, message: Message, number: int) -> State:
        state = state._replace(messages=without(state.messages, message))
        fire = Fire(job_id=JOB_ID, fire_at_us=message.instant_us)
        return self._processes.ask(state, number, fire, message.relay)

    def _resume(self, state: State, reply: Message) -> State:
        if reply.kind == "refused":
            return self._processes.came(state, reply, IdentityRefused())
        if reply.kind == "outdated":
            return self._processes.came(state, reply, ArmOutdated(reply.number))
        arms = Arms() if reply.instant_us == NOBODY else Arms({JOB_ID: reply.instant_us})
        return self._processes.came(state, reply, ArmsListed(arms))

    def decision(self, state: State, message: Message) -> Decision:
        """Return what NAS does with a provision or a cancel."""
        revision = None if message.number == NOBODY else message.number
        if message.kind == "cancel":
            return nas.cancel(self._promises, state.row, revision=revision)
        return nas.provision(
            self._promises,
            state.row,
            job_id=JOB_ID,
            fire_at_us=message.instant_us,
            revision=revision,
            relays=state.called_for(),
        )

    def _decide(self, state: State, message: Message) -> State:
        decision = self.decision(state, message)
        held, used = state.held, state.used
        if decision.delete is not None:
            held = without(held, decision.delete)
        shot = decision.create
        if shot is not None and self.is_created(state, shot):
            held = (*held, shot)
            used = used if self._promises.names_by_generation else used | {shot.name}
        state = state._replace(row=decision.row, held=held, used=used)
        if decision.reply.outdated is not None:
            return state.replying(message, "outdated", NOBODY, decision.reply.outdated)
        # The reply is taken at once: all that it leads to is an answer, which may be late by itself, or
        # a run, which may last. A lost reply is an event of its own.
        return self._processes.came(state, message, ArmAccepted(echoed=decision.reply.echoed))

    def is_created(self, state: State, shot: OneShot) -> bool:
        """Return whether the external scheduler takes a one-shot for a new one, and will call for it."""
        if shot.name in state.used or shot in state.held:
            return False
        return self._promises.fires_past_at_once or shot.fire_at_us > self._case.now_us(state.clock)

    # --- faults ---

    def _lose(self, state: State, message: Message) -> State:
        state = state._replace(losses=state.losses - 1, messages=without(state.messages, message))
        if message.relay != NOBODY:
            return self.close_relay(state, message.relay, False)
        return self._processes.came(state, message, _FAILED)

    def _lose_reply(self, state: State, message: Message) -> State:
        unheard = message._replace(process=NOBODY, task=NOBODY)
        kept = without(state.messages, message)
        decided = self._decide(state._replace(losses=state.losses - 1, messages=kept), unheard)
        return self._processes.came(decided, message, _FAILED)

    def _double(self, state: State, message: Message) -> State:
        copy = message._replace(process=NOBODY, task=NOBODY, relay=NOBODY)
        return state._replace(duplicates=state.duplicates - 1).sending(copy)
