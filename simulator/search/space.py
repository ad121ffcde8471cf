"""Everything that can happen in a small world, from each of its states.

Time stands at one of a few instants and may move on at any moment, so that every message may be arbitrarily
late. What the processes, the network, the host and people do is in the modules of these names.
"""

from __future__ import annotations

from collections.abc import Iterator

from chronos.jobs.due import wake_at
from chronos.protocol.state import Now
from chronos.testing import nas
from chronos.testing.nas import EMPTY, Promises
from chronos.values import evolve
from simulator import properties
from simulator.agents import Agent
from simulator.moments import AtRest, Stop, is_relied_on
from simulator.search.cases import JOB_ID, Case
from simulator.search.host import Host
from simulator.search.moves import Move
from simulator.search.network import Network
from simulator.search.people import People
from simulator.search.processes import Processes, is_at_work
from simulator.search.state import NOBODY, ORDERED, Proc, State, in_order, without_words
from simulator.search.verdict import require


class Space:
    """The states of one case, and what can happen in each.

    Args:
        case: the bounded world.
        agent: the agent under test.
        promises: which NAS.
        crashes: how many crashes may strike.
        duplicates: how many duplicates.
        losses: how many losses.
    """

    def __init__(
        self,
        case: Case,
        agent: Agent,
        promises: Promises,
        *,
        crashes: int = 1,
        duplicates: int = 1,
        losses: int = 1,
    ) -> None:
        self.case, self.agent, self.promises = case, agent, promises
        self.budget = (crashes, duplicates, losses)
        self._processes = Processes(case, agent)
        self._network = Network(case, promises, self._processes)
        self._host = Host(case, self._processes, self._network)
        self._people = People(case, self._processes)

    def initial(self) -> State:
        """Return the state at the start: two idle processes, and the arm of the first occurrence in place."""
        job = self.case.job
        assert job.next_us is not None
        decision = nas.provision(
            self.promises, EMPTY, job_id=JOB_ID, fire_at_us=job.next_us, revision=job.revision, relays=()
        )
        assert decision.create is not None
        crashes, duplicates, losses = self.budget
        shot = decision.create
        return State(
            clock=0,
            job=job,
            row=decision.row,
            held=(shot,),
            used=frozenset() if self.promises.names_by_generation else frozenset({shot.name}),
            relays=(),
            messages=(),
            procs=tuple(self._idle(number) for number in range(self.case.processes)),
            crashes=crashes,
            duplicates=duplicates,
            losses=losses,
            change=3 if self.case.change is None else 0,
            stop=0 if self.case.is_stopped else 3,
            drain=self.case.is_drained,
            login=0 if self.case.is_logged_out else 3,
            acknowledged=True,
            started=(),
        )

    def _idle(self, number: int) -> Proc:
        """Return a machine at the start: its process has started before, or is to be woken."""
        if self.agent.begins_asleep:
            return Proc(0, None)
        return Proc(1, evolve(self._processes.begun(number, 1), is_started=True))

    def successors(self, state: State) -> Iterator[Move]:
        """Yield what can happen next: in words, whether it is a fault, and a call that makes it happen."""
        if self._can_tick(state):
            yield "time passes", False, lambda: state._replace(clock=state.clock + 1)
        yield from self._network.calls(state)
        yield from self._network.arrivals(state)
        for number, proc in enumerate(state.procs):
            if proc.process is not None:
                yield from self._processes.moves(state, number, proc, proc.process)
                yield from self._host.moves(state, number, proc, proc.process)
        yield from self._people.moves(state)

    def _can_tick(self, state: State) -> bool:
        """Time moves on, but not past the lease of a run in flight, which would have renewed it."""
        then_us = self.case.next_us(state.clock)
        if then_us is None:
            return False
        renewed_until_us = (
            running.started.run.lease_until_us
            for proc in state.procs
            if proc.process is not None
            for running in proc.process.runs.values()
            if running.renew_us is not None
        )
        return all(lease_us > then_us for lease_us in renewed_until_us)

    # --- what makes no difference ---

    def reduced(self, state: State) -> State:
        """Return *state* without what cannot matter any more, so that more histories meet in it.

        A message with an older revision than NAS has seen, whose reply nobody awaits, will never do
        anything; who sent an answer matters while a crash may take it back, and when it arrives, while it
        may be lost, is about the arm that stands, or could clean up more than its own.
        """
        seen = state.row.revision if self.promises.orders else NOBODY
        changed = False
        messages = []
        for message in state.messages:
            if message.task == NOBODY and message.kind in ORDERED and NOBODY < message.number < seen:
                changed = True
            elif message.kind == "answer" and message.process != NOBODY and not state.crashes:
                changed = True
                messages.append(message._replace(process=NOBODY))
            else:
                messages.append(message)
        if changed:
            state = state._replace(messages=in_order(messages))
        procs = tuple(
            proc if proc.process is None else proc._replace(process=without_words(proc.process))
            for proc in state.procs
        )
        state = state._replace(procs=procs)
        if not state.crashes and not state.losses and self.promises.deletes_own_generation:
            superseded = {relay for relay, shot in state.relays if shot.generation != state.row.generation}
            for message in state.messages:
                if message.kind == "answer" and message.relay in superseded:
                    state = self._network.deliver(state, message)
        return state

    # --- what is decided of a state ---

    def is_at_rest(self, state: State) -> bool:
        """Return whether nobody is at work on the job."""
        return (
            not state.messages
            and not state.relays
            and state.change in (0, 3)
            and state.stop in (0, 3)
            and state.login in (0, 3)
            and not any(
                proc.runs or (proc.process is not None and is_at_work(proc.process)) for proc in state.procs
            )
        )

    def armed_us(self, state: State) -> int | None:
        """Return the instant for which the job will be fired, or None."""
        shot = state.row.shot
        return shot.fire_at_us if shot is not None and shot in state.held else None

    def decide(self, state: State) -> None:
        """Decide the properties of a state at rest.

        Raises:
            Violated: one does not hold.
        """
        for number, proc in enumerate(state.procs):
            self._decide_sleep(state, number, proc)
        if not self.is_at_rest(state):
            return
        armed_us = self.armed_us(state)
        arms = sum(nas.forwards(self.promises, state.row, shot) for shot in state.held)
        require(AtRest(job=state.job, armed_us=armed_us, acknowledged=state.acknowledged, arms=arms))

    def _decide_sleep(self, state: State, number: int, proc: Proc) -> None:
        """Decide whether the host would stop a machine that is still at work."""
        if proc.process is None:
            return
        asked = {message.task for message in state.messages if message.process == number}
        tasks = [proc.process.tasks[each] for each in asked if each in proc.process.tasks]
        waits = [task for task in tasks if is_relied_on(task)]
        if not (proc.runs or waits):
            return
        now_us = self.case.now_us(state.clock)
        pending = self.agent.pending(proc.process, Now(now_us, now_us, is_stopped=state.stop == 1))
        if not any(each.is_busy for each in pending):
            require(Stop(who=f"process {number}", requests=len(waits), runs=len(proc.runs)))

    def has_converged(self, state: State) -> bool:
        """Return whether everything has come to its end, and store and NAS agree or are about to."""
        if self.case.next_us(state.clock) is not None or not self.is_at_rest(state):
            return False
        armed_us = self.armed_us(state)
        if armed_us is not None:
            # An arm that is still to come, and comes in time, brings agreement with its fire.
            now_us, rest = self.case.now_us(state.clock), AtRest(job=state.job, armed_us=armed_us)
            return armed_us > now_us and properties.NO_LOST_REARM.violation(rest) is None
        return state.job is None or wake_at(state.job) is None
