"""The runs in flight of a process: their leases, their time, their ends."""

from __future__ import annotations

from collections.abc import Hashable

from chronos import events
from chronos.jobs.instants import format_instant
from chronos.jobs.job import RENEW_EVERY_US, Verdict
from chronos.protocol import flow as flows
from chronos.protocol.flow_effects import Answer, StartRun
from chronos.protocol.intents import Finish, Intent, Renew
from chronos.protocol.process_effects import CallRunner, RunBroke, RunEnded, TellRunner
from chronos.protocol.state import ForRun, Pending, Running
from chronos.protocol.turn import Turn
from chronos.values import evolve


class Runs(Turn):
    """The part of a turn that sees to the runs."""

    def start_run(self, started: StartRun) -> None:
        """Call the runner, and keep the lease alive meanwhile."""
        key, limit_us = (started.job_id, *started.run.key), started.time_limit_us
        self.own("runs")[key] = Running(
            started=started,
            renew_us=self.present.steady_us + RENEW_EVERY_US,
            over_us=None if limit_us is None else self.present.steady_us + limit_us,
        )
        self.tell(events.RunStarted(job_id=started.job_id, run=started.run))
        self.effects.append(CallRunner(key, started))

    def run_ended(self, event: RunEnded) -> None:
        """The runner has ended; what comes too late changes nothing."""
        running = self.runs.get(event.key)
        if running is not None and running.end is None:
            started = running.started
            finish = Finish(
                job_id=started.job_id,
                run=started.run,
                succeeded=event.succeeded,
                detail=event.detail,
                confirm=started.confirm,
            )
            self.end_run(event.key, running, finish)
        if event.key in self.overtime:
            job_id = self.own("overtime").pop(event.key).job_id
            self.log(
                "warning", f"a runner has ended too late: {job_id}: {event.detail or 'as it should'}", job_id
            )

    def run_broke(self, event: RunBroke) -> None:
        """The run goes on nowhere: whoever comes to its job finds it interrupted."""
        self.own("runs").pop(event.key, None)
        self.own("overtime").pop(event.key, None)

    def end_run(self, key: Hashable, running: Running, finish: Finish) -> None:
        """End a run. A renewal on its way is not overtaken: a NAS of contract 1.0 takes the last word."""
        self.tell(
            events.RunEnded(
                job_id=finish.job_id, run=finish.run, succeeded=finish.succeeded, detail=finish.detail
            )
        )
        self.own("runs")[key] = evolve(running, end=finish)
        if not running.is_renewing:
            self.begin(finish, ForRun(key))

    def renew(self, key: Hashable, running: Running) -> None:
        """Renew a lease. Source: incident D4."""
        self.own("runs")[key] = evolve(running, is_renewing=True)
        self.begin(Renew(job_id=running.started.job_id, run=running.started.run), ForRun(key))

    def done_for_run(self, key: Hashable, intent: Intent | None, answer: Answer | None) -> None:
        """A renewal of a run, or its end, is over; a bug has no answer."""
        if isinstance(intent, Renew):
            self.renewed(key, answer)
        else:
            self.own("runs").pop(key, None)

    def renewed(self, key: Hashable, answer: Answer | None) -> None:
        """A renewal is over: the next one comes, unless the run has ended or is no longer this process's."""
        running = self.runs.get(key)
        if running is None:
            return
        is_lost = answer is not None and answer.verdict is Verdict.LOST
        if is_lost:
            job_id = running.started.job_id
            self.log("warning", "the run is no longer this process's", job_id)
        renew_us = None if is_lost else self.present.steady_us + RENEW_EVERY_US
        self.own("runs")[key] = evolve(running, is_renewing=False, renew_us=renew_us)
        if running.end is not None:
            self.begin(running.end, ForRun(key))

    def time_out(self, key: Hashable, running: Running) -> None:
        """End a run whose time is over, and tell its runner."""
        finish = flows.timed_out(running.started)
        at = format_instant(finish.run.occurrence_us)
        reason = f"the run of {at} {finish.detail}, and its runner goes on"
        self.own("overtime")[key] = Pending(job_id=finish.job_id, reason=reason, is_busy=False)
        self.effects.append(TellRunner(key))
        self.end_run(key, running, finish)
