"""The agent's machine and its host: asleep until a fire wakes it, up for a while, and its crashes.

What goes on while it is up is `simulator.life`. Whether the machine may stop is what the process says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from chronos.jobs.instants import LAST_US, SECOND_US, Instant
from simulator import faults, marks
from simulator.agents import Agent
from simulator.conditions import NOTHING_ASKED, Conditions
from simulator.faults import Boot
from simulator.history import Kind
from simulator.kernel import Kernel
from simulator.life import Life
from simulator.nas_server import NasServer, Relay
from simulator.network import Network
from simulator.store import Store
from simulator.surroundings import ASLEEP
from simulator.watch import Watch

# For how long a machine's clock is wrong after a boot (W4).
CLOCK_WRONG_FOR_US = 90 * SECOND_US
# How often the host looks whether a machine may stop; it does when nothing has happened between two looks.
LOOK_EVERY_US = 15 * SECOND_US
# How long the host waits for a machine that it replaces to drain.
DRAIN_US = 30 * SECOND_US

Live: TypeAlias = "Callable[[Machine, str], Life]"
"""Begins a life of a machine, whose process claims under a name."""


class Machine:
    """One machine of the agent.

    Args:
        index: its number among the replicas.
        kernel: time and choice.
        network: carries its messages.
        watch: notes what happens.
        store: the job store.
        agent: the code that it runs.
        live: begins its lives.
        owners: every process that ever was, by the name under which it claims.
        subject: its own subject number in the history.
        shares_store: whether other machines use the store, so that its latency matters.
        conditions: how long boots and runs take, how long it may stand idle, and how far the clock is off,
            where that was asked for.

    Attributes:
        is_told_to_stop: whether the agent is told to run no jobs.
        can_boot: whether the host starts it.
        gets_stuck: whether each boot comes to nothing.
        boot_began_us: when its latest boot began.
        stays_up: whether it is never stopped for being idle, and started at once when it has died.
    """

    def __init__(
        self,
        index: int,
        kernel: Kernel,
        network: Network,
        watch: Watch,
        store: Store,
        agent: Agent,
        live: Live,
        owners: dict[str, Machine],
        *,
        subject: int,
        shares_store: bool,
        conditions: Conditions = NOTHING_ASKED,
    ) -> None:
        self.index = index
        self.kernel, self.network, self.watch, self.store = kernel, network, watch, store
        self.agent, self._live = agent, live
        self.owners = owners
        self.subject = subject
        self.shares_store = shares_store
        self.nas: NasServer
        self.life: Life | None = None
        self.conditions = conditions
        self.can_boot = True
        self.gets_stuck = False
        self.stays_up = conditions.stays_up or not agent.has_nas
        self.is_told_to_stop = False
        self.wakes = 0
        self.wasted_wakes = 0
        self.up_us = 0
        self._lives = 0
        self._is_booting = False
        self.boot_began_us = 0
        self._boots_us = 0
        self._boot_is_lost = False
        self._woken_for = subject
        self._waiting: list[Callable[[Life | None], None]] = []
        self._clock_error_us = 0
        self._clock_right_us = 0
        self._set_until_us = 0
        if conditions.clock_us is not None:
            self._clock_error_us, self._clock_right_us = conditions.clock_us, LAST_US

    def now_us(self) -> Instant:
        """Return the present instant by this machine's clock."""
        now_us = self.kernel.now_us
        return now_us + self._clock_error_us if now_us < self._clock_right_us else now_us

    # --- lives ---

    def wake(self, then: Callable[[Life], None], subject: int) -> bool:
        """Let *then* happen once the machine is up; return False when it cannot be reached."""
        if self.life is not None:
            then(self.life)
            return True
        if not self.can_boot:
            return False
        self.watch.hold(subject)

        def arrive(life: Life | None) -> None:
            if life is not None:
                then(life)
            self.watch.release(subject)

        self._waiting.append(arrive)
        if not self._is_booting:
            self._is_booting = True
            self.boot_began_us = self.kernel.now_us
            self._woken_for = subject
            boot_us, slow = self._boot_takes_us()
            self.kernel.after(boot_us, self._booted, slow is not Boot.STUCK)
        return True

    def _boot_takes_us(self) -> tuple[int, Boot | None]:
        """Decide how long a boot takes, microseconds, and whether it is a slow one."""
        boot_us = self.kernel.vary(faults.BOOT, self.subject)
        slow = self.kernel.fault(faults.SLOW_BOOT, self.subject)
        if self.gets_stuck:
            slow = Boot.STUCK
        elif self.conditions.boot_us is not None:
            return self.conditions.boot_us, None
        if slow is None:
            return boot_us, None
        self.watch.met[marks.SLOW_BOOT] += 1
        self.watch.ledger.mishap(faults.SLOW_BOOT.name)
        return slow.value, slow

    def boot(self) -> None:
        """Start the machine for its own sake, as a deployment does."""
        self.wake(lambda _life: None, self.subject)

    def keep_up(self) -> None:
        """Start the machine where it shall always be up and is not."""
        if self.stays_up and self.life is None and not self._is_booting:
            self.boot()

    def start(self, then: Callable[[bool], None]) -> None:
        """Let somebody ask the agent to start; *then* is told whether everything is settled."""
        if not self.wake(lambda life: life.start(then), self.subject):
            then(False)

    def on_by_now_us(self) -> tuple[int, int]:
        """Return for how long the machine has been booting so far, and for how long up, microseconds."""
        now_us, life = self.kernel.now_us, self.life
        booting_us = now_us - self.boot_began_us if self._is_booting else 0
        up_us = 0 if life is None else now_us - life.up_since_us
        return self._boots_us + booting_us, self.up_us + up_us

    def close(self) -> None:
        """Account for the life that goes on when the simulation ends."""
        life = self.life
        if life is not None:
            self._end_life(life, ASLEEP)
            life.close()

    def _booted(self, is_up: bool) -> None:
        self._is_booting = False
        self._boots_us += self.kernel.now_us - self.boot_began_us
        waiting, self._waiting = self._waiting, []
        is_lost, self._boot_is_lost = self._boot_is_lost, False
        if is_up and not is_lost:
            self._lives += 1
            self.wakes += 1
            kernel = self.kernel
            self._set_clock(kernel.fault(faults.CLOCK, self.subject) or 0)
            kernel.record(Kind.BOOTED, self.subject, self.index)
            owner = f"m{self.index}/{self._lives}"
            self.owners[owner] = self
            self.watch.ledger.booted(self.index, self._woken_for)
            self.life = self._live(self, owner)
            self.life.start(lambda _is_settled: None)
        for then in waiting:
            then(self.life)
        self.keep_up()

    def _set_clock(self, error_us: int) -> None:
        """Let the clock be wrong for a while after a boot, unless it was asked how wrong it is."""
        if error_us or self.conditions.clock_us:
            self.watch.ledger.mishap(faults.CLOCK.name)
        if self.conditions.clock_us is not None:
            return
        if self.kernel.now_us < self._set_until_us:
            return
        self._clock_error_us = error_us
        if error_us:
            self.watch.met[marks.CLOCK_WRONG] += 1
            self._clock_right_us = self.kernel.now_us + CLOCK_WRONG_FOR_US

    def set_clock(self, error_us: int, until_us: Instant) -> None:
        """Let the machine's clock be wrong until it is set right, however often it boots."""
        self.watch.ledger.mishap(faults.CLOCK.name)
        self._clock_error_us, self._clock_right_us = error_us, until_us
        self._set_until_us = until_us

    def lose(self) -> None:
        """Let the host lose the machine, be it up or booting."""
        self._boot_is_lost = self._is_booting
        self.crash(faults.HOST_OUTAGE.name)

    def crash(self, why: str = faults.CRASH.name) -> None:
        """End the process at once, whatever it is doing; nobody is told but those who wait for it.

        Args:
            why: what a report calls it.
        """
        life = self.life
        if life is not None:
            self.kernel.record(Kind.CRASHED, self.subject, self.index)
            self._end_life(life, why)
            life.end()
            self.keep_up()

    def replace(self) -> None:
        """Let the host replace a machine, as a deployment does: it drains for a while, and another boots."""
        if self.life is not None:
            self.watch.met[marks.DRAINED] += 1
            self.watch.ledger.mishap(faults.REPLACEMENT.name)
            self.kernel.record(Kind.DRAINED, self.subject, self.index)
            self.life.drain()
            self.kernel.after(DRAIN_US, self._replaced, self.life)

    def _replaced(self, life: Life) -> None:
        if life.is_alive:
            self.crash(faults.REPLACEMENT.name)
            self.boot()

    def _end_life(self, life: Life, why: str) -> None:
        self.watch.ledger.died(life.owner, why)
        self.watch.ledger.slept(self.index)
        life.is_alive = False
        self.life = None
        self.up_us += self.kernel.now_us - life.up_since_us
        self.wasted_wakes += self.watch.runs_started == life.runs_before

    def moved(self, life: Life) -> None:
        """Something has happened to the process of a life: the host looks again whether it is at rest."""
        life.moved_us = self.kernel.now_us
        if not life.is_watched and not self.stays_up:
            life.is_watched = True
            self.kernel.at(self._next_look_us(life), self._look, life)

    def _next_look_us(self, life: Life) -> Instant:
        """Return when the host has let a machine stand idle for long enough, since something happened.

        Unless it was asked how long that is, and where it waits for the end of a drain, that is when it
        will have looked twice; it looks all the time.
        """
        idle_us = self.conditions.idle_us
        if idle_us is not None and not life.process.is_draining:
            return life.moved_us + idle_us
        looks = (life.moved_us - life.up_since_us) // LOOK_EVERY_US + 2
        return life.up_since_us + looks * LOOK_EVERY_US

    def _look(self, life: Life) -> None:
        """Look whether something has happened since the last look, after all else that happens now."""
        next_us = self._next_look_us(life)
        if next_us > self.kernel.now_us:
            self.kernel.at(next_us, self._look, life)
        else:
            self.kernel.after(0, self._looked, life)

    def _looked(self, life: Life) -> None:
        """Stop the machine when nothing has happened, and it is at work on nothing."""
        if not life.is_alive:
            return
        if self._next_look_us(life) > self.kernel.now_us:
            self._look(life)
            return
        if any(each.is_busy for each in life.pending()):
            life.is_watched = False  # until something happens
            return
        self.kernel.record(Kind.STOPPED, self.subject, self.index)
        self.watch.stopped(self.subject, life.relied_on(), len(life.running))
        is_draining = life.process.is_draining
        self._end_life(life, ASLEEP)
        life.end()
        if is_draining:
            self.boot()

    # --- fires and requests ---

    def receive(self, relay: Relay) -> None:
        """A fire arrives at the machine, whether it is up or not."""
        subject = relay.subject
        relay.arrived_us = relay.arrived_us or self.kernel.now_us
        self.watch.ledger.fired(self.index, subject)
        self.kernel.record(Kind.FIRED, subject, relay.pending.shot.fire_at_us)

        if not self.wake(lambda life: life.receive(relay), subject):
            self.kernel.record(Kind.UNREACHABLE, subject)
            self.nas.answered(relay, 502)
