"""One simulated world: the agent's machines, NAS, the external scheduler, people, and what goes wrong.

A world has phases. First the agent is deployed: its machines start and settle. Then come the
faults, and all the while the properties of every moment are watched. Then everything is healed and
settles by itself, with no machine restarted for its sake: what is lost by then is lost. Last, the
machines start once more, the calendar ends, and what must have happened eventually is decided.
Without faults the world ends with the calendar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from msgspec import Struct

from chronos.jobs.instants import HOUR_US, MINUTE_US, SECOND_US, Instant
from chronos.jobs.job import Job
from chronos.testing.nas import OneShot, Promises
from simulator import faults, marks
from simulator.agents import Agent
from simulator.comparison import Comparison
from simulator.conditions import NOTHING_ASKED, Conditions, Party
from simulator.external import Pending
from simulator.faults import Fault
from simulator.history import Kind
from simulator.host import Live, Machine
from simulator.kernel import Choices, Kernel
from simulator.modelled import Modelled
from simulator.nas_server import NasServer, Relay
from simulator.network import Network
from simulator.people import People
from simulator.script import NOTHING_WRITTEN, Deed, Do, Script, Stroke
from simulator.store import Store
from simulator.summary import Summary, summarize
from simulator.surroundings import DEPLOYED, EXTERNAL_OUTAGE
from simulator.trace import Tracer
from simulator.watch import Watch

# How long the deployment has before the first fault.
DEPLOYMENT_US = 5 * MINUTE_US
# How long everything has to settle after the faults: longer than every retry, sweep and lease
# together; and how long the machines run on after their last start.
SETTLING_US = 6 * HOUR_US
LAST_START_US = 2 * HOUR_US
# For how long what has begun may go on after the calendar: an agent that ticks never ends by itself.
WINDING_UP_US = 6 * HOUR_US
# How many runs of a job may follow upon each other then, where it was asked how long each takes: as many
# as may wait, and one in flight.
RUNS_IN_A_ROW = 12
# How often the host and NAS are asked whether they fail, and the host whether a machine dies.
OUTAGE_EVERY_US = 6 * HOUR_US
KILL_EVERY_US = HOUR_US

# Why somebody is away.
_CHANCE, _ASKED = "chance", "asked"
_Begin: TypeAlias = Callable[[int, str], None]


class Setting(Struct, frozen=True, kw_only=True):
    """What to simulate.

    Attributes:
        jobs: as the store holds them at the start.
        start_us: the start of the calendar.
        duration_us: how long it lasts, faults and all.
        has_faults: whether anything may go wrong at all.
        promises: which NAS.
        agent: which agent.
        machines: how many replicas share the store.
        conditions: what was asked for.
        settles: whether the calendar has time to settle, though nothing goes wrong.
        script: what is written down to happen.
    """

    jobs: tuple[Job, ...]
    start_us: Instant
    duration_us: int
    has_faults: bool
    promises: Promises
    agent: Agent
    machines: int = 1
    conditions: Conditions = NOTHING_ASKED
    settles: bool = False
    script: Script = NOTHING_WRITTEN

    @property
    def has_phases(self) -> bool:
        """Whether the world is deployed, goes through something, and settles."""
        return self.has_faults or self.settles or self.conditions.pass_by or bool(self.script)

    @property
    def end_us(self) -> Instant:
        """The end of the calendar, with the time to settle."""
        settling_us = SETTLING_US + LAST_START_US if self.has_phases else 0
        return self.start_us + self.duration_us + settling_us


class World:
    """Puts the parties together and lets time pass.

    Args:
        setting: what to simulate.
        choices: supplies every decision.
        progress: called now and then with the part of the calendar that has passed, 0 to 1.
        live_by: tells how machines live; as a model, unless it says otherwise.
        tracer: is told of all that happens.
    """

    nas: NasServer

    def __init__(
        self,
        setting: Setting,
        choices: Choices,
        progress: Callable[[float], None] | None = None,
        live_by: Callable[[Watch], Live] = lambda _watch: Modelled,
        tracer: Tracer | None = None,
    ) -> None:
        self._setting = setting
        self._progress = progress
        jobs, subjects = setting.jobs, len(setting.jobs) + setting.machines
        make_kernel, make_network = (Kernel, Network) if tracer is None else (tracer.kernel, tracer.network)
        kernel = self.kernel = make_kernel(choices, start_us=setting.start_us, subjects=subjects)
        make_watch = Watch if tracer is None else tracer.watch
        self.watch = make_watch(
            kernel,
            jobs,
            setting.machines,
            armed_us=self._armed_us,
            arms=lambda subject: self.nas.arms(subject),
        )
        network = make_network(kernel, self.watch)
        comparison = Comparison(self.watch.store, [job.id for job in jobs])
        store = Store(self.watch, jobs, comparison)
        self.machines = self._replicas(network, store, live_by(self.watch))
        self.nas = NasServer(
            kernel,
            network,
            self.watch,
            setting.promises,
            comparison,
            fire=self._fire,
            horizon_us=setting.end_us - 1,
        )
        for machine in self.machines:
            machine.nas = self.nas
        self._on_us = (0, 0)
        self.people = People(kernel, self.watch, self.machines, jobs)
        for stroke in setting.script.strokes:
            kernel.expect(stroke, _subject(self.watch.job_ids, stroke))
        self._away: dict[Party, set[str]] = {party: set() for party in Party}

    def _replicas(self, network: Network, store: Store, live: Live) -> list[Machine]:
        """Return the agent's machines, which share the store."""
        setting = self._setting
        owners: dict[str, Machine] = {}
        return [
            Machine(
                index,
                self.kernel,
                network,
                self.watch,
                store,
                setting.agent,
                live,
                owners,
                subject=len(setting.jobs) + index,
                shares_store=setting.machines > 1,
                conditions=setting.conditions,
            )
            for index in range(setting.machines)
        ]

    def run(self) -> Summary:
        """Let the whole calendar pass and return what came of it."""
        setting, kernel = self._setting, self.kernel
        if not setting.agent.has_nas:
            self.watch.hold_all()  # until the end: its arms go with each process, and come with the next
        self._restart_machines()
        if setting.has_phases:
            self._pass(setting.start_us + DEPLOYMENT_US)
            self._break()
            self._pass(setting.start_us + setting.duration_us)
            self._heal()
            self._pass(setting.start_us + setting.duration_us + SETTLING_US)
            self.watch.look()
            self._restart_machines()
        self._pass(setting.end_us - 1)
        self._end_calendar()
        kernel.drain(setting.end_us + WINDING_UP_US + RUNS_IN_A_ROW * setting.conditions.longest_run_us)
        unsettled = tuple(self.watch.unrested())
        self.watch.settled(setting.end_us - 1)
        for machine in self.machines:
            machine.close()
        return summarize(
            kernel,
            self.watch,
            self.nas,
            self.machines,
            unsettled,
            start_us=setting.start_us,
            end_us=setting.end_us,
            on_us=self._on_us,
        )

    def on_by_now_us(self) -> tuple[int, int]:
        """Return for how long machines have been booting so far, and for how long up, microseconds."""
        booting_us, up_us = zip(*(machine.on_by_now_us() for machine in self.machines), strict=True)
        return sum(booting_us), sum(up_us)

    def _armed_us(self, subject: int) -> Instant | None:
        """Return for when a job is armed: by NAS, or in the memory of an agent that has none."""
        if self._setting.agent.has_nas:
            return self.nas.armed_us(subject)
        life, job_id = self.machines[0].life, self._setting.jobs[subject].id
        return None if life is None else life.process.ticker.arms.get(job_id)

    def _end_calendar(self) -> None:
        """Note how long machines were on, and let an agent without NAS begin nothing more."""
        self._on_us = self.on_by_now_us()
        if self._setting.agent.has_nas:
            return
        for machine in self.machines:
            if machine.life is not None:
                machine.life.drain()
        self.watch.release_all()

    def _pass(self, until_us: Instant) -> None:
        """Let time pass, and say so now and then."""
        setting, kernel = self._setting, self.kernel
        stride_us = max((setting.end_us - setting.start_us) // 200, MINUTE_US)
        while kernel.now_us < until_us:
            kernel.run(min(until_us, kernel.now_us + stride_us))
            if self._progress is not None:
                passed = (kernel.now_us - setting.start_us) / max(setting.end_us - setting.start_us, 1)
                self._progress(min(passed, 1.0))

    def _fire(self, relay: Relay) -> None:
        machine = self.kernel.pick(faults.ROUTE, self.machines, relay.subject)
        machine.receive(relay)

    def _restart_machines(self) -> None:
        for machine in self.machines:
            machine.crash(DEPLOYED)
            machine.boot()

    # --- faults ---

    def _break(self) -> None:
        self.kernel.faulty = self._setting.has_faults
        self._await_what_was_asked()
        self._ask_for(faults.NAS_OUTAGE, self._nas_fails)
        self._ask_for(faults.HOST_OUTAGE, self._host_fails)
        self._machines_die()
        self._ask_for(faults.STOP, self._agent_is_stopped)
        self._ask_for(faults.NAS_REFUSAL, self._identity_is_refused)
        self.people.live()

    def _heal(self) -> None:
        self.kernel.faulty = False
        self.nas.is_up = True
        self.nas.external.resume()
        for machine in self.machines:
            machine.can_boot, machine.gets_stuck = True, False
            machine.keep_up()
        for causes in self._away.values():
            causes.clear()
        for name in (faults.NAS_OUTAGE.name, faults.HOST_OUTAGE.name, EXTERNAL_OUTAGE):
            self.watch.ledger.ends(name)
        self._identity_is_accepted()
        for subject in range(len(self._setting.jobs)):
            self.kernel.record(Kind.HEALED, subject)

    def _ask_for(self, fault: Fault[int], begin: Callable[[int], None]) -> None:
        """Ask again and again whether *fault* strikes; *begin* is told for how long, microseconds."""
        kernel = self.kernel
        if kernel.faulty:
            kernel.after(OUTAGE_EVERY_US, self._ask_for, fault, begin)
            lasts_us = kernel.fault(fault)
            if lasts_us is not None:
                begin(lasts_us)

    def _await_what_was_asked(self) -> None:
        """Let come what was asked for and passes by."""
        conditions, end_us = self._setting.conditions, self._setting.start_us + self._setting.duration_us
        for machine in self.machines:
            machine.gets_stuck = conditions.boots_stuck
        for party, begin in (
            (Party.NAS, self._nas_fails),
            (Party.HOST, self._host_fails),
            (Party.EXTERNAL, self._external_fails),
        ):
            self._await_outage(conditions.away(party, self.kernel.now_us, end_us), begin)

        for deed in self._setting.script.deeds:
            self.kernel.at(deed.at_us, self._done, deed)

    def _done(self, deed: Deed) -> None:
        """Somebody does what is written down."""
        machine = self.machines[deed.machine]
        match deed.do:
            case Do.STOP:
                self._agent_is_stopped(deed.lasts_us)
            case Do.REFUSE:
                self._identity_is_refused(deed.lasts_us)
            case Do.KILL:
                machine.crash(faults.KILL.name)
            case Do.REPLACE:
                machine.replace()
            case Do.START:
                self._start(machine)
            case Do.WAKE:
                machine.boot()
            case Do.CLOCK:
                machine.set_clock(deed.off_us, self.kernel.now_us + deed.lasts_us)
            case Do.FIRE:
                self._sign(deed, machine)
            case Do.ROTATE if self.nas.keys is not None:
                self.nas.keys.rotate(keeps_old=False)
            case Do.ROTATE:
                pass  # a model spells no token out
            case _:
                self.people.do(deed, self.watch.job_ids.index(deed.job or ""))

    def _sign(self, deed: Deed, machine: Machine) -> None:
        """A fire comes that is well signed, and names what is not armed; nobody waits for its answer."""
        assert deed.job is not None
        assert deed.names_us is not None
        now_us = self.kernel.now_us
        shot = OneShot(deed.job, deed.names_us, -1, (deed.job, deed.names_us, "signed"))
        subject = self.watch.job_ids.index(deed.job)
        relay = Relay(Pending(shot), subject, now_us, now_us - now_us % SECOND_US)
        relay.is_open = False
        relay.purpose = deed.purpose
        machine.receive(relay)

    def _await_outage(self, outages: Iterator[tuple[Instant, Instant]], begin: _Begin) -> None:
        following = next(outages, None)
        if following is not None:
            from_us, until_us = following
            self.kernel.at(from_us, self._asked_outage, until_us - from_us, outages, begin)

    def _asked_outage(
        self, outage_us: int, outages: Iterator[tuple[Instant, Instant]], begin: _Begin
    ) -> None:
        begin(outage_us, _ASKED)
        self._await_outage(outages, begin)

    def _is_back(self, party: Party, cause: str) -> bool:
        """Return whether *party* is back, now that one cause for its absence is over."""
        self._away[party].discard(cause)
        return not self._away[party]

    def _nas_fails(self, outage_us: int, cause: str = _CHANCE) -> None:
        self.watch.met[marks.NAS_OUTAGE] += 1
        self._begins(faults.NAS_OUTAGE.name, Kind.NAS_DOWN, outage_us)
        self._away[Party.NAS].add(cause)
        self.nas.is_up = False
        self.kernel.after(outage_us, self._nas_returns, cause)

    def _nas_returns(self, cause: str) -> None:
        if self._is_back(Party.NAS, cause):
            self.nas.is_up = True
            self._ends(faults.NAS_OUTAGE.name, Kind.NAS_UP)

    def _external_fails(self, outage_us: int, cause: str) -> None:
        self._begins(EXTERNAL_OUTAGE, Kind.EXTERNAL_DOWN, outage_us)
        self._away[Party.EXTERNAL].add(cause)
        self.nas.external.pause()
        self.kernel.after(outage_us, self._external_returns, cause)

    def _external_returns(self, cause: str) -> None:
        if self._is_back(Party.EXTERNAL, cause):
            self._ends(EXTERNAL_OUTAGE, Kind.EXTERNAL_UP)
            self.nas.external.resume()

    def _host_fails(self, outage_us: int, cause: str = _CHANCE) -> None:
        self.watch.met[marks.HOST_OUTAGE] += 1
        self._begins(faults.HOST_OUTAGE.name, Kind.HOST_DOWN, outage_us)
        self._away[Party.HOST].add(cause)
        for machine in self.machines:
            machine.can_boot = False
            if cause == _ASKED:
                machine.lose()
            else:
                machine.crash(faults.HOST_OUTAGE.name)
        self.kernel.after(outage_us, self._host_returns, cause)

    def _host_returns(self, cause: str) -> None:
        if self._is_back(Party.HOST, cause):
            for machine in self.machines:
                machine.can_boot = True
                machine.keep_up()
            self._ends(faults.HOST_OUTAGE.name, Kind.HOST_UP)

    def _machines_die(self) -> None:
        kernel = self.kernel
        if not kernel.faulty:
            return
        kernel.after(KILL_EVERY_US, self._machines_die)
        for machine in self.machines:
            if kernel.fault(faults.KILL, machine.subject):
                kernel.after(kernel.vary(faults.STRUCK_WHEN, machine.subject), self._die, machine)
            if kernel.fault(faults.REPLACEMENT, machine.subject):
                kernel.after(kernel.vary(faults.STRUCK_WHEN, machine.subject), machine.replace)

    def _die(self, machine: Machine) -> None:
        if self.kernel.faulty:
            machine.crash(faults.KILL.name)

    def _agent_is_stopped(self, stop_us: int) -> None:
        self.watch.met[marks.TOLD_TO_RUN_NO_JOBS] += 1
        self._begins(faults.STOP.name, Kind.TOLD_TO_STOP, stop_us)
        for machine in self.machines:
            machine.is_told_to_stop = True
            self.watch.hold_all()
        self.kernel.after(stop_us, self._stop_is_lifted)

    def _stop_is_lifted(self) -> None:
        """Whoever lifts a stop starts the agent, again and again until everything is settled."""
        self.watch.ledger.ends(faults.STOP.name)
        for machine in self.machines:
            machine.is_told_to_stop = False
            self._start(machine)

    def _identity_is_refused(self, refusal_us: int) -> None:
        """NAS refuses the agent, which fires its jobs itself for as long as its machine lives."""
        if self.nas.refuses_identity:
            return
        self.watch.met[marks.IDENTITY_REFUSED] += 1
        self._begins(faults.NAS_REFUSAL.name, Kind.IDENTITY_REFUSED, refusal_us)
        self.nas.refuses_identity = True
        for _ in self.machines:
            self.watch.hold_all()
        self.kernel.after(refusal_us, self._identity_is_accepted)

    def _identity_is_accepted(self) -> None:
        """Whoever logs in again starts the agent, again and again until everything is settled."""
        if self.nas.refuses_identity:
            self.nas.refuses_identity = False
            self._ends(faults.NAS_REFUSAL.name, Kind.IDENTITY_ACCEPTED)
            for machine in self.machines:
                self._start(machine)

    def _start(self, machine: Machine) -> None:
        tries = [1]

        def then(is_settled: bool) -> None:
            if tries:
                tries.clear()
                if is_settled:
                    self.watch.release_all()
                else:
                    self.kernel.after(MINUTE_US, self._start, machine)

        machine.start(then)
        self.kernel.after(4 * MINUTE_US, then, False)

    def _begins(self, name: str, kind: Kind, for_us: int) -> None:
        """Note that an outage begins, and how long it is to last."""
        until_us = self.kernel.now_us + for_us
        self.watch.ledger.begins(name, until_us)
        self._note_all(kind, until_us)

    def _ends(self, name: str, kind: Kind) -> None:
        self.watch.ledger.ends(name)
        self._note_all(kind, 0)

    def _note_all(self, kind: Kind, value: int) -> None:
        for subject in range(len(self._setting.jobs)):
            self.kernel.record(kind, subject, value)


def _subject(job_ids: list[str], stroke: Stroke) -> int:
    """Return the number of what a stroke strikes."""
    return len(job_ids) + stroke.machine if stroke.job is None else job_ids.index(stroke.job)
