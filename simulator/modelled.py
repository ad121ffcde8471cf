"""A life of the agent's process as a model: its effects are performed on values."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any
from zlib import crc32

from msgspec import Struct

from chronos.agent.effects import failure_of
from chronos.errors import InvalidClient
from chronos.fire.verify import time_problem
from chronos.jobs.instants import SECOND_US
from chronos.nas.exchange import Standing, not_yet
from chronos.protocol import flow_effects, intents, process_effects, state
from chronos.protocol.draft import Fired
from chronos.protocol.flow_effects import Answer
from chronos.protocol.process import ProcessTurn
from chronos.protocol.process_effects import CallRunner, Perform, Reply, TellRunner
from chronos.protocol.reconciliation import step_reconciliation
from chronos.protocol.state import Now
from chronos.testing.nas import TOKEN_LIFE_US
from simulator import faults, marks
from simulator.agents import Raised
from simulator.comparison import Listing
from simulator.faults import Write
from simulator.history import Kind
from simulator.life import SHARED_STORE_US, Life
from simulator.nas_server import Relay
from simulator.surroundings import RAISED

if TYPE_CHECKING:
    from simulator.host import Machine

_SWAPPED = flow_effects.JobSwapped()
_STORE_FAILED = flow_effects.StoreFailed()


class _Cancelled(Struct, frozen=True):
    """A runner hears that its time is over."""

    key: Hashable


class Modelled(Life):
    """Performs a process, one effect after the other, in the order in which it wants them."""

    def __init__(self, machine: Machine, owner: str) -> None:
        super().__init__(machine, owner)
        self._process = machine.agent.begun(owner, lives=True)
        self._standing = Standing()
        self._used: set[Relay] = set()
        self._wanted: deque[process_effects.Effect | _Cancelled] = deque()
        self._turn: ProcessTurn | None = None
        self._rings_us: int | None = None
        self._alarms = 0
        self._waits_for_store = machine.shares_store or machine.agent.waits_for_store

    @property
    def process(self) -> state.Process:
        """What the process knows."""
        return self._process if self._turn is None else self._turn.process()

    @property
    def is_ticking(self) -> bool:
        """Whether the process fires its jobs itself."""
        return (self._turn or self._process).ticker.is_ticking

    def _now(self) -> Now:
        return Now(self._machine.now_us(), self._kernel.now_us, self._machine.is_told_to_stop)

    def _now_s(self) -> float:
        return self._kernel.now_us / SECOND_US

    # --- what others want of it ---

    def pending(self) -> tuple[state.Pending, ...]:
        """Return what the process has not finished."""
        return self._machine.agent.pending(self._process, self._now())

    def receive(self, relay: Relay) -> None:
        """A fire arrives, with a token that is good for a while and once."""
        now_us, made_s = self._machine.now_us(), relay.minted_us // SECOND_US
        expires_s = made_s + TOKEN_LIFE_US // SECOND_US
        is_out_of_time = time_problem(now_us / SECOND_US, expires_s=expires_s, made_s=made_s)
        if is_out_of_time or relay in self._used:
            self._refuse_token(relay, was_used=not is_out_of_time)
            self._answered(relay, 401, None)
            return
        self._used.add(relay)
        if self._process.is_draining:  # the endpoint answers by itself
            self._turn_away(relay)
            return
        shot = relay.pending.shot
        fired = Fired(minted_us=relay.minted_us, received_us=now_us)
        fire = intents.Fire(job_id=shot.job_id, fire_at_us=shot.fire_at_us, fired=fired)
        self._ask(relay.subject, fire, relay)

    def _turn_away(self, relay: Relay) -> None:
        """Answer a fire without asking the process."""
        if self._crashes(relay.subject):
            self._watch.met[marks.CRASH_BETWEEN_ARM_AND_ANSWER] += 1
            self._machine.nas.answered(relay, 502)
        else:
            self._answered(relay, 503, None)

    def ask(self, subject: int, intent: intents.Intent, then: Callable[[Answer | None], None]) -> None:
        """Ask for a change."""
        self._ask(subject, intent, then)

    def _ask(self, subject: int, intent: intents.Intent, waits: Any) -> None:
        ticket = object()
        self._waits[ticket] = subject, waits
        self._watch.hold(subject)
        self._happen(process_effects.Asked(ticket, intent))

    def start(self, then: Callable[[bool], None]) -> None:
        """Reconcile; there may have been a new login."""
        self._standing.reset()
        ticket = object()
        self._starts[ticket] = then
        self._happen(process_effects.AskedToStart(ticket))

    def drain(self) -> None:
        """Turn fires away."""
        self._happen(process_effects.AskedToDrain())

    def close(self) -> None:
        """The simulation ends."""
        self._machine.agent.ended(self._process)

    def end(self) -> None:
        """End at once."""
        super().end()
        self._machine.agent.ended(self._process)

    # --- steps ---

    def _happen(self, event: process_effects.Event) -> None:
        """Let something happen to the process, and perform what it wants, all in one turn."""
        if self._turn is not None:
            self._step(self._turn, event)
            return
        turn = self._turn = self._machine.agent.turn(self._process, self._now())
        self._step(turn, event)
        while self._wanted and self.is_alive:
            effect = self._wanted.popleft()
            _PERFORM[type(effect)](self, effect)
        self._process, self._turn = turn.process(), None
        if self.is_alive:
            self._looked()

    def _step(self, turn: ProcessTurn, event: process_effects.Event) -> None:
        turn.happen(event)
        effects, turn.effects = turn.effects, []
        for effect in effects:
            if isinstance(effect, process_effects.Tell):
                self._told(effect.event)
            elif not isinstance(effect, process_effects.Log):
                self._wanted.append(effect)
        self._set_alarm(turn)

    def _came(self, number: int, event: flow_effects.Event) -> None:
        """An answer has come that was waited for."""
        if self.is_alive:
            self._let_go.append(self._asked.pop(number))
            self._happen(process_effects.Came(number, event))

    def _set_alarm(self, turn: ProcessTurn) -> None:
        due_us = self._machine.agent.rings_us(turn)
        if due_us != self._rings_us:
            self._rings_us = due_us
            self._alarms += 1
            if due_us is not None:
                self._kernel.at(max(due_us, self._kernel.now_us), self._ring, self._alarms)

    def _ring(self, alarm: int) -> None:
        if self.is_alive and alarm == self._alarms:
            self._rings_us = None
            self._happen(process_effects.Rang())

    # --- effects ---

    def _perform(self, effect: Perform) -> None:
        """Ask the store, whose answer comes at once unless machines share it; or NAS."""
        wanted = effect.effect
        subject = self._subject(getattr(wanted, "job_id", None))
        if self._crashes(subject):
            return
        if effect.within_us is not None:
            self._request(effect.number, subject, wanted, effect.within_us)
            return
        event = self._from_store(effect.number, subject, wanted)
        if self._waits_for_store:
            self._wait(effect.number, subject)
            self._kernel.after(SHARED_STORE_US, self._came, effect.number, event)
        else:
            self._happen(process_effects.Came(effect.number, event))

    def _wait(self, number: Hashable, subject: int) -> None:
        self._asked[number] = subject
        self._watch.hold(subject)

    def _request(self, number: int, subject: int, wanted: flow_effects.Effect, within_us: int) -> None:
        """Ask NAS, unless it has asked not to be called for a while, or refuses the agent."""
        is_list, standing = isinstance(wanted, flow_effects.ListArms), self._standing
        failed = self._not_asked()
        if failed is not None:
            self._note_answer(is_list, subject, has_failed=True)
            self._happen(process_effects.Came(number, failed))
            return
        self._wait(number, subject)
        logins = standing.logins

        def close(event: flow_effects.Event) -> None:
            if self.is_alive:
                has_failed = isinstance(event, flow_effects.ArmFailed)
                if isinstance(event, process_effects.IdentityRefused):
                    standing.refuse(logins)
                elif isinstance(event, flow_effects.ArmFailed) and event.retry_after_us:
                    standing.close(self._now_s() + event.retry_after_us / SECOND_US)
                self._note_answer(is_list, subject, has_failed)
                self._came(number, event)

        self._ask_nas(subject, wanted, within_us, close)

    def _not_asked(self) -> flow_effects.ArmFailed | None:
        """Return what a client of NAS says that may not ask it; None where it may."""
        try:
            wait_s = self._standing.wait_s(self._now_s())
        except InvalidClient as error:
            return process_effects.IdentityRefused(str(error))
        return failure_of(not_yet(wait_s)) if wait_s else None

    def _compared(self, number: int) -> list[int] | None:
        """Return whose jobs a start needs, to compare them with its list; None for all."""
        turn = self._turn
        assert turn is not None
        machine, now_us = self._machine, self._kernel.now_us
        if turn.rules.step_reconciliation is not step_reconciliation or turn.clock() != now_us:
            return None
        if self._waits_for_store:
            now_us += SHARED_STORE_US  # it compares when the jobs have come
        arms = turn.tasks[number].flow.arms
        return machine.store.comparison.narrow(arms, now_us) if isinstance(arms, Listing) else None

    def _from_store(self, number: int, subject: int, effect: flow_effects.Effect) -> flow_effects.Event:
        store = self._machine.store
        if isinstance(effect, flow_effects.SwapJob):
            return self._swap(subject, effect)
        if isinstance(effect, flow_effects.LoadJobs):
            subjects = self._compared(number)
            jobs = store.jobs if subjects is None else [store.jobs[subject] for subject in subjects]
            return flow_effects.JobsLoaded([(job, self._owners(job)) for job in jobs if job is not None])
        if not self._reads(subject):
            return _STORE_FAILED
        if isinstance(effect, flow_effects.LoadHistory):
            return flow_effects.HistoryLoaded(store.history(subject))
        job = store.jobs[subject]
        return flow_effects.JobLoaded(job, self._owners(job))

    def _swap(self, subject: int, effect: flow_effects.SwapJob) -> flow_effects.Event:
        kernel, store = self._kernel, self._machine.store
        failure = kernel.fault(faults.STORE_FAILURE, subject)
        if failure is not None:
            kernel.record(Kind.STORE_FAILED, subject)
            if failure is Write.WRITTEN and store.swap(subject, effect):
                self._watch.met[marks.STORE_FAILED_AFTER_THE_WRITE] += 1
            return _STORE_FAILED
        has_moved = store.swap(subject, effect)
        self._note_write(subject, effect.expected, effect.replacement, has_moved)
        job = store.jobs[subject]
        return _SWAPPED if has_moved else flow_effects.SwapConflicted(job, self._owners(job))

    def _call_runner(self, effect: CallRunner) -> None:
        if not self._crashes(self._subject(effect.started.job_id)):
            duration_us = self._run_began(effect.key, effect.started)
            self._kernel.after(duration_us, self._run_is_over, effect.key)

    def _tell_runner(self, effect: TellRunner) -> None:
        """The time of a run is over: its runner is cancelled, which comes after what is being done now."""
        self._wanted.append(_Cancelled(effect.key))

    def _cancelled(self, effect: _Cancelled) -> None:
        self._watch.met[marks.RUN_TIMED_OUT] += 1
        self._run_is_over(effect.key)

    def _run_is_over(self, key: Hashable) -> None:
        if not self.is_alive or key not in self.running:
            return
        self._let_go.append(self.running[key].subject)
        self._happen(process_effects.RunEnded(key, succeeded=self._run_ended(key)))

    def _raised(self, effect: Raised) -> None:
        """The agent has raised an exception, which ends its process."""
        told = crc32(effect.text.encode())
        at_work = {self._subject_of(task) for task in self.process.tasks.values()}
        for subject in sorted({self._machine.subject, *at_work}):
            self._kernel.record(Kind.RAISED, subject, told)
        self._watch.raised(str(effect))
        self._machine.crash(RAISED)

    def _reply(self, effect: Reply) -> None:
        """Hand over an answer, if the machine lives that long."""
        ticket, result = effect.ticket, effect.result
        if isinstance(result, state.Started):
            if not self._crashes(self._machine.subject):
                self._starts.pop(ticket)(result.settled and self.fires_as_meant)
            return
        subject, waits = self._waits[ticket]
        if self._crashes(subject):
            if isinstance(waits, Relay):
                self._watch.met[marks.CRASH_BETWEEN_ARM_AND_ANSWER] += 1
            return
        del self._waits[ticket]
        self._let_go.append(subject)
        assert isinstance(result, Answer)
        if isinstance(waits, Relay):
            self._answered(waits, self._machine.agent.status_of(result), result)
        else:
            waits(result)


_PERFORM: dict[type, Callable[[Modelled, Any], None]] = {
    Perform: Modelled._perform,
    CallRunner: Modelled._call_runner,
    TellRunner: Modelled._tell_runner,
    _Cancelled: Modelled._cancelled,
    Reply: Modelled._reply,
    Raised: Modelled._raised,
}
