"""How a process fires its jobs itself, where NAS cannot be had."""

from __future__ import annotations

from chronos.jobs.instants import Instant
from chronos.jobs.job import Origin
from chronos.protocol.clocks import Change, change_of, compared, said_of
from chronos.protocol.draft import Fired
from chronos.protocol.intents import Fire
from chronos.protocol.state import TICKER
from chronos.protocol.turn import Turn
from chronos.values import evolve


class Ticking(Turn):
    """The part of a turn that sees to the ticker."""

    def begin_ticking(self) -> None:
        """Fire the jobs from here."""
        if self.is_started and not self.ticker.is_running and not self.is_draining:
            begun, _ = self.ticker.compared(self.clock(), self.present.steady_us)
            self.ticker = evolve(begun, is_running=True, next_us=self.present.steady_us)

    def nudge_ticker(self) -> None:
        """Let the ticker look at its arms."""
        if self.ticker.is_running:
            self.ticker = evolve(self.ticker, next_us=self.present.steady_us)

    def tick(self) -> None:
        """Fire what is due, for as long as there is no NAS to do it. Source: incident L4."""
        if self.rules.has_ticker:
            self.ticker = evolve(self.ticker, next_us=None)
            return
        now_us, steady_us = self.clock(), self.present.steady_us
        before_us = self.before_the_clock_was_set(now_us)
        is_asking = any(task.intent is None for task in self.tasks.values()) or self.batches
        if not is_asking and self.ticker.must_look(steady_us):
            self.ticker = evolve(self.ticker, looked_us=steady_us, next_us=None)
            self.reconcile(TICKER)
            return
        if not self.present.is_stopped:
            self.ticker, due = self.ticker.due(now_us, steady_us)
            for job_id, fire_at_us in due:
                was_jumped_over = before_us is not None and fire_at_us > before_us
                fired = Fired(origin=Origin.SCHEDULE, was_jumped_over=was_jumped_over)
                self.begin(Fire(job_id=job_id, fire_at_us=fire_at_us, fired=fired), TICKER)
        self.ticker = evolve(self.ticker, next_us=steady_us + self.ticker.pause_us(now_us))

    def before_the_clock_was_set(self, now_us: Instant) -> Instant | None:
        """Look whether the clock was set: what stands ahead of one that was set back is put back at once.

        Returns:
            What it would show had it not been set forward by three hours or more: what has become due since
            then was jumped over. None when that is not so.
        """
        self.ticker, jump_us = self.ticker.compared(now_us, self.present.steady_us)
        change = change_of(jump_us)
        if change is Change.NONE:
            return None
        self.log("warning", "the clock was set {}, by {}".format(*said_of(jump_us)))
        if change is Change.BACKWARD:
            # Nobody here knows better.
            self.reading = compared(now_us, now_us, now_us, self.present.steady_us)
            self.ticker = evolve(self.ticker, looked_us=None)
        if change is not Change.CORRECTION:
            return None
        # A look would take what was jumped over.
        self.ticker = evolve(self.ticker, looked_us=self.present.steady_us)
        return now_us - jump_us
