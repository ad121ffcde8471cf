"""NAS in time: answers the agent, relays the external scheduler's calls, sweeps what is missing.

What it decides is in `chronos.testing.nas`; here are the way, the waiting and the failures.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from chronos.jobs.instants import SECOND_US, Instant
from chronos.protocol.flow_effects import ArmAccepted, ArmFailed, ArmOutdated, ArmsListed, Event
from chronos.protocol.process_effects import IdentityRefused
from chronos.testing import nas
from chronos.testing.keys import SigningKeys
from chronos.testing.nas import EMPTY, RELAY_TIMEOUT_US, OneShot, Promises, Reply, Row
from simulator import faults, marks
from simulator.comparison import Comparison
from simulator.external import ExternalScheduler, Pending
from simulator.history import Kind
from simulator.kernel import Kernel
from simulator.network import Network
from simulator.surroundings import ARM_LOST
from simulator.watch import Watch

FAILED = ArmFailed()
"""There is no answer; every other event is one, with NAS's time in it."""


class Relay(Struct, eq=False):
    """One fire that waits for the agent's answer.

    Attributes:
        pending: what the external scheduler called for.
        subject: of which job.
        called_us: when it called.
        minted_us: when the fire's token was minted, to the second.
        arrived_us: when the fire reached the machine.
        is_open: whether NAS still waits.
        token: the fire's token, where one is made.
        purpose: what its token is for, where that is something else.
    """

    pending: Pending
    subject: int
    called_us: Instant
    minted_us: Instant
    arrived_us: Instant = 0
    is_open: bool = True
    token: str = ""
    purpose: str = ""


class Call(Struct, eq=False):
    """A request of the agent that waits for NAS's answer until its deadline."""

    subject: int
    deadline_us: Instant
    answer: Callable[[Event], None]
    is_open: bool = True

    def close(self, event: Event) -> None:
        """Hand the answer over, unless there was one."""
        if self.is_open:
            self.is_open = False
            self.answer(event)


class NasServer:
    """The control plane of one simulated world.

    Args:
        kernel: time and choice.
        network: carries its messages.
        watch: notes what happens.
        promises: what this NAS promises.
        comparison: learns of what it has armed, job by job.
        fire: delivers a fire to the agent.
        horizon_us: the end of the calendar.

    Attributes:
        is_up: whether it can be reached.
        keys: those that sign its fires, where that is not left out.
        refuses_identity: whether it refuses the agent's requests; what it has armed it fires all the same.
    """

    def __init__(
        self,
        kernel: Kernel,
        network: Network,
        watch: Watch,
        promises: Promises,
        comparison: Comparison,
        *,
        fire: Callable[[Relay], None],
        horizon_us: Instant,
    ) -> None:
        self._kernel, self._network, self._watch = kernel, network, watch
        self._promises = promises
        self._comparison, job_ids = comparison, comparison.job_ids
        self._job_ids = job_ids
        comparison.listed_us = self._listed_us
        self._subjects = {job_id: subject for subject, job_id in enumerate(job_ids)}
        self._fire = fire
        self._rows: list[Row] = [EMPTY] * len(job_ids)
        self._sweeping = [False] * len(job_ids)
        self._relays: list[list[OneShot]] = [[] for _ in job_ids]
        self.is_up = True
        self.refuses_identity = False
        self.keys: SigningKeys | None = None
        self.calls = {"provision": 0, "cancel": 0, "list": 0, "fire": 0}
        self.external = ExternalScheduler(
            kernel, self._subjects, relay=self._relay, spent=self._spent, horizon_us=horizon_us
        )

    # --- what the watch asks ---

    def armed_us(self, subject: int) -> Instant | None:
        """Return the instant for which the job will be fired, or None."""
        shot = self._rows[subject].shot
        if shot is None or not (self._sweeping[subject] or self.external.holds(shot)):
            return None
        return shot.fire_at_us

    def arms(self, subject: int) -> int:
        """Return how many one-shots that the external scheduler holds would be passed on."""
        row = self._rows[subject]
        held = self.external.held_of(self._job_ids[subject])
        return sum(nas.forwards(self._promises, row, shot) for shot in held)

    # --- the agent's requests ---

    def provision(self, call: Call, fire_at_us: Instant, revision: int) -> None:
        """Answer a provision."""
        if not self._is_reached(call):
            return
        subject = call.subject
        self.calls["provision"] += 1
        row = self._rows[subject]
        decision = nas.provision(
            self._promises,
            row,
            job_id=self._job_ids[subject],
            fire_at_us=fire_at_us,
            revision=revision,
            relays=self._relays[subject],
        )
        self._comparison.moves(subject)
        self._rows[subject] = decision.row
        self._kernel.record(Kind.PROVISIONED, subject, fire_at_us)
        self._delete(subject, decision.delete)
        if decision.create is not None:
            if row.shot is not None and row.shot.fire_at_us == decision.create.fire_at_us:
                self._watch.met[marks.ARMED_AGAIN] += 1
            if self._kernel.fault(faults.NAS_CREATE, subject):
                self._crash_before_create(subject, decision.create)
                self._lose(call)
                return
            self._create(subject, decision.create)
        self._answer(call, decision.reply)

    def cancel(self, call: Call, revision: int | None) -> None:
        """Answer a cancel."""
        if not self._is_reached(call):
            return
        self.calls["cancel"] += 1
        decision = nas.cancel(self._promises, self._rows[call.subject], revision=revision)
        self._comparison.moves(call.subject)
        self._rows[call.subject] = decision.row
        self._kernel.record(Kind.CANCELLED, call.subject)
        self._delete(call.subject, decision.delete)
        self._answer(call, decision.reply)

    def list(self, call: Call) -> None:
        """Answer a list."""
        if not self._is_reached(call):
            return
        self.calls["list"] += 1
        self._reply(call, ArmsListed(self._comparison.listing(), self._date_us()))

    def _listed_us(self, subject: int) -> Instant | None:
        """Return the instant that a list shows of a job; None when it shows none."""
        shot = nas.listed(self._promises, self._rows[subject], relays=self._relays[subject])
        return None if shot is None else shot.fire_at_us

    def _is_reached(self, call: Call) -> bool:
        """Return whether NAS is up, knows the agent and has time; otherwise the call fails."""
        if not self.is_up:
            self._lose(call)
            return False
        if self.refuses_identity:
            self._reply(call, IdentityRefused("NAS refuses the agent's identity", date_us=self._date_us()))
            return False
        retry_after_us = self._kernel.fault(faults.NAS_BUSY, call.subject)
        if retry_after_us is not None:
            self._watch.met[marks.ASKED_LATER] += 1
            self._watch.ledger.mishap(faults.NAS_BUSY.name, call.subject)
            self._watch.ledger.mishap(faults.NAS_BUSY.name)
            self._reply(call, ArmFailed("NAS asks to be asked later", retry_after_us, self._date_us()))
            return False
        return True

    def _date_us(self) -> Instant:
        """Return the time that an answer carries: as HTTP has it, in whole seconds."""
        now_us = self._kernel.now_us
        return now_us - now_us % SECOND_US

    def _lose(self, call: Call) -> None:
        """Let the caller wait in vain until its deadline."""
        self._kernel.at(max(call.deadline_us, self._kernel.now_us), call.close, FAILED)

    def _answer(self, call: Call, reply: Reply) -> None:
        if reply.outdated is not None:
            self._watch.met[marks.OLDER_REVISION_REFUSED] += 1
            self._kernel.record(Kind.OUTDATED, call.subject, reply.outdated)
            self._reply(call, ArmOutdated(reply.outdated, self._date_us()))
        else:
            self._reply(call, ArmAccepted(echoed=reply.echoed, date_us=self._date_us()))

    def _reply(self, call: Call, event: Event) -> None:
        arrives_us = self._network.reply(call.subject, call.close, event)
        if arrives_us is None or arrives_us > call.deadline_us:
            self._lose(call)

    # --- one-shots ---

    def _create(self, subject: int, shot: OneShot) -> None:
        kernel = self._kernel
        if shot.fire_at_us <= kernel.now_us and not self._promises.fires_past_at_once:
            self._watch.met[marks.PAST_ARM_NEVER_FIRES] += 1
            self._watch.ledger.mishap(ARM_LOST, subject)
            return
        kernel.record(Kind.CREATED, subject, shot.fire_at_us)
        is_held = self.external.create(
            shot, at_us=shot.fire_at_us, keeps_names=not self._promises.names_by_generation
        )
        if not is_held:
            self._watch.met[marks.ARM_SWALLOWED] += 1
            kernel.record(Kind.SWALLOWED, subject, shot.fire_at_us)

    def _delete(self, subject: int, shot: OneShot | None) -> None:
        """Delete a one-shot that was replaced or cancelled; that may fail, and nobody repeats it."""
        if shot is None:
            return
        if self._kernel.fault(faults.NAS_DELETE, subject):
            self._watch.met[marks.NOT_DELETED] += 1
        else:
            self.external.delete(shot)

    def _crash_before_create(self, subject: int, shot: OneShot) -> None:
        self._watch.met[marks.NAS_CRASHED] += 1
        self._kernel.record(Kind.CREATE_FAILED, subject, shot.fire_at_us)
        if self._promises.sweeps_missing:
            self._sweep_later(subject)

    def _spent(self, shot: OneShot) -> None:
        subject = self._subjects[shot.job_id]
        self._watch.met[marks.RETRIES_SPENT] += 1
        self._kernel.record(Kind.SPENT, subject, shot.fire_at_us)
        if self._promises.sweeps_undelivered and self._rows[subject].shot == shot:
            self._sweep_later(subject)
        else:
            self._watch.hold(subject)
            self._watch.release(subject)

    def _sweep_later(self, subject: int) -> None:
        if not self._sweeping[subject]:
            self._sweeping[subject] = True
            self._kernel.after(nas.sweep_delay_us(self._rows[subject]), self._sweep, subject)

    def _sweep(self, subject: int) -> None:
        self._sweeping[subject] = False
        shot = self._rows[subject].shot
        if shot is None or self.external.holds(shot):
            return
        if not self.is_up:
            self._sweep_later(subject)
            return
        self._watch.met[marks.SWEPT] += 1
        self._comparison.moves(subject)
        self._rows[subject], again = nas.swept(self._rows[subject])
        if again is not None:
            self._kernel.record(Kind.SWEPT, subject, again.fire_at_us)
            self.external.create(again, at_us=again.fire_at_us, keeps_names=False)

    # --- relays ---

    def _relay(self, pending: Pending, called_us: Instant) -> None:
        subject, shot = self._subjects[pending.shot.job_id], pending.shot
        self._watch.hold(subject)
        if not self.is_up:
            self._kernel.record(Kind.RELAY_LOST, subject)
            self.external.failed(pending)
        elif not nas.forwards(self._promises, self._rows[subject], shot):
            self._watch.met[marks.OLDER_RELAY_DROPPED] += 1
            self._kernel.record(Kind.RELAY_DROPPED, subject, shot.fire_at_us)
            self.external.succeeded(pending)
        else:
            now_us = self._kernel.now_us
            self._forward(Relay(pending, subject, called_us, now_us - now_us % SECOND_US))
        self._watch.release(subject)

    def _forward(self, relay: Relay) -> None:
        subject = relay.subject
        self._watch.hold(subject)  # until the relay is closed
        self.calls["fire"] += 1
        self._comparison.moves(subject)
        self._relays[subject].append(relay.pending.shot)
        if len(self._relays[subject]) > 1:
            self._watch.met[marks.FIRE_OVERLAPS] += 1
        self._kernel.record(Kind.RELAYED, subject, relay.pending.shot.fire_at_us)
        if self._network.request(subject, self._fire, relay) is None:
            self._kernel.record(Kind.FIRE_LOST, subject, relay.pending.shot.fire_at_us)
        self._kernel.after(RELAY_TIMEOUT_US, self._timed_out, relay)

    def answered(self, relay: Relay, status: int) -> None:
        """The agent has answered a fire; carry that to NAS."""
        self._kernel.record(Kind.ANSWERED, relay.subject, status)
        if self._network.reply(relay.subject, self._close, relay, 200 <= status < 300) is None:
            self._watch.met[marks.ANSWER_LOST] += 1
            self._kernel.record(Kind.ANSWER_LOST, relay.subject, status)

    def _timed_out(self, relay: Relay) -> None:
        if relay.is_open:
            self._kernel.record(Kind.TIMED_OUT, relay.subject, relay.pending.shot.fire_at_us)
            self._close(relay, False, is_heard=True)

    def _close(self, relay: Relay, is_accepted: bool, is_heard: bool | None = None) -> None:
        """End a relay; while NAS is down, only its own clock can."""
        if not relay.is_open or not (self.is_up or is_heard):
            return
        relay.is_open = False
        subject, shot = relay.subject, relay.pending.shot
        self._comparison.moves(subject)
        self._relays[subject].remove(shot)
        if is_accepted:
            row = self._rows[subject]
            self._rows[subject] = nas.delivered(self._promises, row, shot)
            if row.shot is not None and self._rows[subject].shot is None and row.shot != shot:
                self._watch.met[marks.NEW_ARM_DELETED] += 1
                self._watch.ledger.mishap(ARM_LOST, subject)
            self.external.succeeded(relay.pending)
        else:
            self.external.failed(relay.pending)
        self._watch.release(subject)
