"""The scheduler with threads of its own: what a host calls. `chronos.agent.threads` performs it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import attrs

from chronos import arguments
from chronos.agent import base
from chronos.agent.declaring import JobSpec
from chronos.agent.effects import read
from chronos.agent.threads import InThreads
from chronos.jobs.instants import Instant
from chronos.jobs.job import Job, Outcome
from chronos.jobs.policy import Policy
from chronos.jobs.schedule import GivenSchedule
from chronos.protocol.flow_effects import Answer
from chronos.protocol.intents import Edit
from chronos.protocol.process_effects import (
    AskedForArms,
    AskedToDeclare,
    AskedToDrain,
    AskedToReconcile,
    AskedToStart,
    Saw,
)
from chronos.protocol.state import Pending, Started
from chronos.stores import told_apart

if TYPE_CHECKING:
    from chronos.agent.status import Status


class Scheduler(InThreads):
    """The scheduler, with threads of its own. Any number of them may share a store.

    Args:
        store: where the jobs are.
        nas: the client of NAS; it stays the caller's to close. None when there is no NAS: then the
            in-process ticker fires the jobs, for as long as the process lives.
        runner: runs a job, in a thread of its own; an async one gets a loop of its own there.
        owner: names this process among all that use the store; None makes a name.
        clock: returns the present instant, epoch microseconds, UTC.
        is_dead: tells whether the process that an owner's name stands for has definitely ended; it
            must not block.
        is_stopped: tells whether the agent is told to run no jobs, as in an emergency; it must not
            block or raise. It is asked before each claim, and has to remember for as long as the stop lasts,
            which may be longer than the process. Runs in flight go on. Who lifts the stop calls
            `start`.
        hooks: told what happens; see `chronos.events`.

    Raises:
        TypeError: an argument is of another type than its own: a path is no store, a text no runner. A
            hook, *is_dead*, *is_stopped* or *clock* that is async is refused, and so is a client of NAS that
            is made for the other scheduler.
        ValueError: *owner* is empty.
        ScheduleError: what *clock* returns is no instant.
    """

    def start(self) -> Started:
        """Make NAS agree with the store, look after interrupted and overdue runs, and return.

        There is no loop to keep alive, as long as there is a NAS: between fires nothing here is at
        work. Calling it again is harmless; it ends a drain, and asks NAS again after NAS has refused the
        agent's identity.

        Returns:
            What was done. It does not raise: what could not be settled is in `pending()`.

        Source: contract, "Claim, run, re-arm"; incidents L2, L3, L4, O1, O2, O3, W7.
        """
        if self._nas is not None:
            self._nas.reset()
        started: Started = self._ask(AskedToStart)
        return started

    def reconcile(self) -> Started:
        """Make NAS agree with the store after a change that was made past the scheduler.

        What `create`, `declare`, `edit`, `pause`, `resume` and `remove` change needs no such call. It is no
        `start`: a drain goes on, and while NAS refuses the agent's identity it is not asked.

        Returns:
            As `start`; unsettled, with the reason in `trouble`, where nothing was asked.
        """
        reconciled: Started = self._ask(AskedToReconcile)
        return reconciled

    def fire(
        self,
        job_id: str,
        fire_at_us: Instant | None = None,
        *,
        fire_at: datetime | None = None,
        minted: datetime | None = None,
        minted_us: Instant | None = None,
        received: datetime | None = None,
        received_us: Instant | None = None,
    ) -> Answer:
        """Answer a fire: claim the occurrence, arm the next one, start the run.

        Args:
            job_id: which job.
            fire_at_us: the instant that the fire names, epoch microseconds, UTC.
            fire_at: the same as an aware `datetime`; one of the two is given.
            minted: when NAS made the fire's token, an aware `datetime`; None when that is not known.
            minted_us: the same in epoch microseconds.
            received: when the fire reached this process; None when that is not known.
            received_us: the same in epoch microseconds.

        Returns:
            The protocol's answer; `chronos.contract.messages.answer_to_fire` makes an HTTP answer of
            it. Unsettled, NAS must deliver the fire again, also when the run has started; so it must when
            the fire is `EARLY`, for an instant that is further ahead than two clocks may differ. While
            draining, that is the answer to every fire, and nothing is claimed. While the agent is
            told to run no jobs, nothing is claimed either, and the answer is `STOPPED` and settled:
            that does not pass by itself, and the start that follows it looks after every job.

        Raises:
            ScheduleError: an instant is none; nothing was claimed.
            LocalMessageError: *job_id* is no id that NAS could have named; nothing was claimed.

        Source: contract, "NAS to agent"; incidents L5, L6, L7, L12, T2, W1.
        """
        intent = self._fire(job_id, (fire_at, fire_at_us), (minted, minted_us), (received, received_us))
        return self._ask_for(intent)

    def create(
        self,
        job_id: str,
        schedule: GivenSchedule,
        *,
        tz: str = "UTC",
        times: int | None = None,
        policy: Policy | None = None,
        data: object = None,
    ) -> Answer:
        """Add a job to the store, and arm it.

        Args:
            job_id: unique among the jobs of the store.
            schedule: when it is due: a value, or text for `parse_schedule`.
            tz: the time zone of the text, an IANA name or an offset.
            times: after how many occurrences the schedule stops; None for never.
            policy: what shall happen when something goes wrong; None for the defaults.
            data: what the job carries for its runner, which finds it in `RunContext.data`: a JSON value of
                at most 64 KiB.

        Returns:
            The answer, as for every change: settled, the change is saved and NAS agrees. Unsettled
            with a verdict, it is saved and the trigger is not registered; `reason` says why and what
            to do, and this process goes on trying for a while. Without a verdict the store failed:
            make the same change again, which is harmless where it was made. `REFUSED`: another job
            has the id.

        Raises:
            ScheduleError: the schedule is none, or has no time left; nothing was saved.
            DataError: the data is no JSON value, or too large; nothing was saved.
            LocalMessageError: NAS could not be told of such an id; nothing was saved.
            TypeError: *policy* is no `Policy`; nothing was saved.

        Source: incident L3.
        """
        return self._ask_for(self._create(job_id, schedule, tz, times, policy, data))

    def edit(
        self,
        job_id: str,
        *,
        schedule: GivenSchedule | None = None,
        tz: str | None = None,
        times: int | None = None,
        policy: Policy | None = None,
        data: object = attrs.NOTHING,
    ) -> Answer:
        """Change what is given of a job, and arm it anew. See `create`.

        Args:
            job_id: which job.
            schedule: the new schedule; None keeps the one it has. The job goes on with its first
                occurrence after now, unless the schedule is the same: then nothing about it changes,
                and what is due stays due. Text of an interval is the same when its period is; a value
                says where it is anchored as well.
            tz: the time zone of the text of the schedule; None keeps that of a cron job. Without a
                schedule, the new zone of a cron job.
            times: after how many occurrences the schedule stops, 0 for never; None keeps it.
            policy: the new policy as a whole; None keeps the one it has.
            data: what the job carries from its next run on; left out, it keeps what it has.

        Returns:
            The answer; `REFUSED` when no occurrence would be left, `GONE` without such a job.

        Raises:
            ScheduleError: the schedule is none, or *tz* is given without one and the job has no cron
                expression; nothing was changed.
            DataError: as for `create`; nothing was changed.
            LocalMessageError: as for `create`.
            TypeError: as for `create`.
        """
        changes, is_told_by_job = self._edit(job_id, schedule, tz, times, policy, data)
        if is_told_by_job:
            changes = self._edit_like(job_id, read(base.load(job_id), self._store), changes, tz)
        return self._ask_for(Edit(job_id=job_id, changes=changes))

    def declare(self, jobs: Iterable[JobSpec], *, remove_others: bool = False) -> Mapping[str, Answer]:
        """Make the jobs be what an agent declares, as it does at each start of its process.

        A job that is not there is created; of one that is there, what differs is edited, as `edit`
        does it; one that is so already costs no call to NAS. The store is read once for all of them. The
        set stands above what was edited by hand, but for the state: a paused job stays paused, and a
        completed one stays so unless it is declared otherwise. What means the same is the same: `every 60m`
        and `every 1h` are, and an interval keeps its phase. A one-shot that counts from now, such as `in 8s`,
        is made once: its declaration is kept with the job, so that it is known again at the next start, also
        when it has run, for as long as its job is in the store and it is declared with the same delay.

        Args:
            jobs: what is declared, each id once.
            remove_others: whether to remove the jobs that were declared before and are not any more. A
                job that was created in another way is left alone, whatever is asked.

        Returns:
            The answer for each job, by its id, in the order of *jobs*; and then for each that was to be
            removed. They are those of `create`, `edit` and `remove`; `REFUSED` is one whose time is over.

        Raises:
            TypeError: something in *jobs* is no `JobSpec`, or *remove_others* no truth value.
            ValueError: an id is there more than once.
            StoreError: the store could not be read.
            JobsFileError: the store as a whole cannot be read; it must be mended by hand.

        Whatever it raises, nothing was changed.
        """
        wanted = self._declare(jobs, remove_others)
        known = read(base.load_jobs, self._store)
        answers: Mapping[str, Answer] = self._ask(AskedToDeclare, known, wanted, remove_others)
        return answers

    def pause(self, job_id: str, *, note: str = "") -> Answer:
        """Put a job's schedule out of force, with a note why, and disarm it. See `create`.

        Its run in flight goes on. What is due and was not taken yet is skipped.

        Raises:
            LocalMessageError: as for `create`.
            TypeError: *note* is no text.
        """
        return self._ask_for(self._pause(job_id, note))

    def resume(self, job_id: str, *, from_now: bool = False) -> Answer:
        """Put a paused job's schedule in force again, and arm it. See `create`.

        It keeps the slots that it had; with *from_now*, an interval counts anew from the present instant.

        Raises:
            LocalMessageError: as for `create`.
            TypeError: *from_now* is no truth value.
        """
        return self._ask_for(self._resume(job_id, from_now))

    def remove(self, job_id: str) -> Answer:
        """Take a job and its history out of the store, and disarm it. See `create`.

        Its run in flight goes on, and its end is not recorded.

        Raises:
            LocalMessageError: as for `create`.
        """
        return self._ask_for(self._remove(job_id))

    def run_now(
        self, job_id: str, *, asked: datetime | None = None, asked_us: Instant | None = None
    ) -> Answer:
        """Start a run by hand. It takes no slot of the schedule, and the schedule goes on as it was.

        Args:
            job_id: which job; it may be paused or completed.
            asked: the identity of the run, an aware `datetime`, not in the future; None makes a new
                one. Give the same again to repeat a request whose answer was lost: it runs once.
            asked_us: the same in epoch microseconds.

        Returns:
            `ACCEPTED` when it runs, or waits for its turn; `DUPLICATE` when it was asked for before;
            `SKIPPED` when another run is in progress and may not be overlapped; `GONE` without such
            a job; `STOPPED` while the agent is told to run no jobs; `LOST` when the claim's lease ended
            before the run could start. Without a verdict the agent drains, or the store failed: ask again.

        Raises:
            LocalMessageError: as for `create`.
            ScheduleError: the instant is none; nothing was done.
            ValueError: it is in the future, or more than a year ago: then nobody repeats a request with it,
                and it is a number in another unit. Nothing was done.

        Source: incidents D2, L1.
        """
        return self._ask_for(self._run_now(job_id, (asked, asked_us)))

    def get(self, job_id: str) -> Job | None:
        """Return a job as the store holds it, None when there is none; NAS is not asked.

        Raises:
            TypeError: *job_id* is no text.
            StoreError: the store could not be read; ask again later.
            JobsFileError: the store holds what cannot be read; it must be mended by hand.
        """
        return read(base.load(job_id), self._store)

    def jobs(self) -> tuple[Job, ...]:
        """Return all jobs as the store holds them, in its order; NAS is not asked.

        A record that cannot be read is not among them; `status` shows it.

        Raises:
            StoreError: as for `get`.
            JobsFileError: the store as a whole cannot be read.
        """
        return read(base.load_jobs, self._store)

    def history(self, job_id: str) -> tuple[Outcome, ...]:
        """Return the newest outcomes of a job, oldest first; as many as the store keeps.

        Raises:
            TypeError: *job_id* is no text.
            StoreError: as for `get`.
            JobsFileError: as for `get`.
        """
        return read(base.history(job_id), self._store)

    def status(self) -> Status:
        """Return how every job stands and whether the host may stop; asks the store and NAS once each.

        Raises:
            StoreError: as for `get`.
            JobsFileError: as for `get`.
        """
        listed = self._ask(AskedForArms)
        records, newest = read(base.seen, self._store)
        self._happen(Saw(told_apart(records)[1]))
        with self._changed:
            return self._status(listed, records, newest)

    def pending(self) -> tuple[Pending, ...]:
        """Return what is unfinished, and why. The host may stop the machine when none of it `is_busy`.

        Source: incident W1; after the answer to a fire, nothing else shows that work goes on.
        """
        with self._changed:
            return self._pending()

    def drain(self, timeout_s: float) -> tuple[Pending, ...]:
        """Turn fires away, and wait until the work in progress is done.

        Args:
            timeout_s: how long to wait, seconds. Runs are not cancelled when it is over: the host
                stops the process, and the next start finds them interrupted.

        Returns:
            What is still unfinished.

        Raises:
            TypeError: *timeout_s* is no number.
            ValueError: *timeout_s* is negative, none, or longer than thirty years.
        """
        arguments.seconds("timeout_s", timeout_s)
        deadline_s = time.monotonic() + timeout_s
        self._begin(self._happen(AskedToDrain()))
        with self._changed:
            while self._process.is_at_work and self._changed.wait(deadline_s - time.monotonic()):
                pass
            return self._drained(self._pending())
