"""What a scheduler does over time, once for all schedulers: as generators that perform nothing.

Every piece of work is a flow of `chronos.protocol.flow`, which decides what to do and what to
answer. Left to this module are the things that take time:

* a run renews its lease while it is in flight, and ends with a flow;
* what a flow still owes (`flows.follow_up`) is begun after a while, ever more slowly;
* `pending()` says what is unfinished, so that a host knows whether it may stop the machine;
* where NAS cannot be had, the in-process ticker of `chronos.agent.ticker` fires the jobs.

A generator yields what it needs done (`Perform`, `Sleep`, `Execute`, `Spawn`, `Join`, `Read`) and is
sent what came of it. `chronos.agent.scheduler` has the two ways to do that, with threads and with asyncio.
Of all generators of one scheduler at most one runs at a time, so that nothing here needs a lock.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, TypeVar

import attrs

from chronos.agent import events
from chronos.agent.effects import IdentityRefused
from chronos.agent.operations import Execute, Join, Pending, Perform, Read, Signal, Sleep, Spawn, Work
from chronos.agent.runner import RunContext
from chronos.agent.status import RefusedFires, because
from chronos.agent.ticker import Ticker
from chronos.clock import steady_us
from chronos.jobs.data import value_of
from chronos.jobs.job import (
    RENEW_EVERY_US,
    Job,
    Liveness,
    Origin,
    Outcome,
    Result,
    Run,
    Unreadable,
    Verdict,
    wake_at,
)
from chronos.jobs.schedule import SECOND_US, Instant, format_instant
from chronos.protocol import flow as flows
from chronos.protocol.clocks import Belief, Change, Reading, change_of, clock_trouble, compared, said_of
from chronos.protocol.draft import Fired
from chronos.protocol.flow import FOLLOW_UP_DELAYS_US, Answer, Intent
from chronos.stores import refusal, told_apart

logger = logging.getLogger("chronos.scheduler")

# How long a flow may ask NAS, in all: as long as the client takes for a request and, with a fresh
# token, for one more. A relay waits some 30 s for the answer to a fire, and the machine may just
# have been woken by it.
NAS_TIMEOUT_S = 30.0
NAS_TIMEOUT_IN_FIRE_S = 10.0

# While draining, a follow-up does not wait longer: the machine is about to stop.
DRAINING_DELAY_US = SECOND_US

# How many flows of a start run at once, and how many of those that follow up: NAS is asked once for
# each, and limits their rate.
START_CONCURRENCY = 8

# How long what is owed is tried again, in all, when NAS asks to be asked later: a fleet of some thousand
# jobs gets through a rate limit in that time. After that the host may stop the machine.
FOLLOW_UP_FOR_S = 900.0

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Started:
    """What a start did.

    Attributes:
        flows: how many jobs needed looking after.
        settled: whether the store agrees on every job with what fires the jobs: NAS, or the in-process
            ticker where NAS cannot be had, which `pending()` tells. When False, `pending()` says why;
            the scheduler goes on trying for a while, unless it is told to run no jobs.
        trouble: why it could not be read what NAS has armed, or what the store holds; empty when it could.
    """

    flows: int
    settled: bool
    trouble: str = ""


@attrs.define(eq=False)
class _Owed:
    """Something that this process still has to do, and when; one of its tries may be going on."""

    intent: Intent
    reason: str
    due_s: float
    since_s: float
    tries: int = 0
    is_tried: bool = False

    @property
    def is_busy(self) -> bool:
        """Return whether the host shall keep the machine for it: for about a minute."""
        return self.tries < len(FOLLOW_UP_DELAYS_US)


class Worker:
    """The work of one scheduler; one for each process that claims.

    Args:
        owner: names this process among all that use the store.
        clock: returns the present instant, epoch microseconds, UTC.
        monotonic: returns seconds that never go back, for deadlines.
        is_dead: tells whether the process behind an owner's name has definitely ended.
        is_stopped: tells whether the agent is told to run no jobs.
        has_nas: whether there is a NAS at all; without one the in-process ticker fires the jobs.
        new_signal: makes a `Signal`.
        publish: told what happens (`chronos.agent.events`).
        steady: returns microseconds by a clock that nobody sets, those in which the machine slept included.
    """

    def __init__(
        self,
        *,
        owner: str,
        clock: Callable[[], Instant],
        monotonic: Callable[[], float],
        is_dead: Callable[[str], bool],
        is_stopped: Callable[[], bool],
        has_nas: bool,
        new_signal: Callable[[], Signal],
        publish: Callable[[events.Event], None],
        steady: Callable[[], int] = steady_us,
    ) -> None:
        self.owner = owner
        self._wall, self._steady = clock, steady
        self._reading: Reading | None = None
        self._looks: int | None = None
        self.is_stopped = is_stopped
        self.draining = new_signal()
        self.tasks: dict[object, Pending] = {}
        self.ticker = Ticker(new_signal(), is_ticking=not has_nas)
        self._has_nas = has_nas
        self._monotonic = monotonic
        self._is_dead = is_dead
        self._new_signal = new_signal
        self._publish = publish
        self._unsettled: dict[str, str] = {}
        self._unreadable: tuple[Unreadable, ...] = ()
        self._flows: dict[object, flows.Flow] = {}
        self._reconciling: dict[object, set[str]] = {}
        self._owed: list[_Owed] = []
        self._owes = new_signal()
        self._followers = 0
        self._list_tries: int | None = None
        self._lists_again = new_signal()
        self._runs: list[Run] = []
        self._overtime: dict[object, tuple[Pending, object]] = {}
        self._is_started = False
        self._logins = 0
        self.refused = RefusedFires()

    # --- the clock ---

    def clock(self) -> Instant:
        """Return the present instant: NAS's, while this machine's clock is not believed."""
        now_us = self._wall()
        return now_us if self._reading is None else self._reading.corrected(now_us, self._steady())

    def belief(self) -> Belief:
        """Return whether this machine's clock is believed."""
        return Belief.UNKNOWN if self._reading is None else self._reading.belief(self._wall(), self._steady())

    def why_doubted(self) -> str:
        """Say how this machine's clock differs from NAS's; empty while it is believed."""
        if self._reading is None or self.belief() is not Belief.DOUBTED:
            return ""
        return clock_trouble(self._reading)

    def _hear(self, sent_us: Instant, date_us: Instant | None) -> Work[None]:
        """Compare the clock with NAS's, and see to it that one which is wrong is looked at again."""
        heard = compared(sent_us, self._wall(), date_us, self._steady())
        if heard is None:
            return
        was_doubted, self._reading = self.belief() is Belief.DOUBTED, heard
        if was_doubted and not heard.is_doubted:
            logger.warning("this machine's clock agrees with NAS's again, and is believed")
        if heard.is_doubted and not was_doubted:
            logger.error("%s", clock_trouble(heard))
        if heard.is_doubted and self._looks is None and self._is_started and not self.draining.is_set():
            self._looks = 0
            yield from _announced(Spawn(self._look_at_clock(), _FOLLOWING), self._look_no_more)

    def _look_no_more(self) -> None:
        self._looks = None

    def _look_at_clock(self) -> Work[None]:
        """Ask NAS for its time, ever more slowly, until this clock is believed; then reconcile by it."""
        try:
            while self._looks is not None and not (yield Sleep(_delay_us(self._looks), self.draining)):
                self._looks += 1
                yield from self._reconcile()
                if self.belief() is not Belief.DOUBTED:
                    return
        finally:
            self._look_no_more()

    # --- what is going on ---

    def pending(self) -> tuple[Pending, ...]:
        """Return what is unfinished, and why. What runs on though its time is over keeps nobody waiting."""
        tasks = (task for task in self.tasks.values() if task is not _FOLLOWING)
        left_over = (
            Pending(
                job_id=each.intent.job_id,
                reason=each.reason,
                is_busy=each.is_busy,
                is_waiting=not each.is_tried,
            )
            for each in self._owed
        )
        busy = (*tasks, *left_over, *self._pending_list(), *self._pending_clock())
        at_work_on = {each.job_id for each in busy}
        left = [(job_id, reason) for job_id, reason in self._unsettled.items() if job_id not in at_work_on]
        known = at_work_on | self._unsettled.keys()
        odd = [record for record in self._unreadable if record.id not in known]
        left += [(record.id or "", str(refusal(record))) for record in odd]
        if self.is_told_to_stop():
            left.append(("", STOPPED))
        overtime = (pending for pending, _ in self._overtime.values())
        idle = (Pending(job_id=job_id, reason=reason, is_busy=False) for job_id, reason in left)
        return (*busy, *overtime, *idle)

    def _pending_list(self) -> tuple[Pending, ...]:
        """Return what is to be said of the list that is asked for again."""
        if self._list_tries is None:
            return ()
        is_busy = self._list_tries < len(FOLLOW_UP_DELAYS_US)
        reason = f"{self._unsettled.get('', _UNKNOWN)}; it is tried again"
        return (Pending(job_id="", reason=reason, is_busy=is_busy, is_waiting=True),)

    def _pending_clock(self) -> tuple[Pending, ...]:
        """Return what is to be said of a clock that is not believed."""
        why = self.why_doubted()
        if not why:
            return ()
        is_busy = self._looks is not None and self._looks < len(FOLLOW_UP_DELAYS_US)
        return (Pending(job_id="", reason=why, is_busy=is_busy, is_waiting=True),)

    def why_unsettled(self, job_id: str) -> str | None:
        """Return why the store and NAS may disagree on a job; None when nothing is known of that."""
        return self._unsettled.get(job_id)

    def saw_unreadable(self, records: tuple[Unreadable, ...]) -> None:
        """Remember which records cannot be read, and log each that was not known before. Source: S6."""
        for record in records:
            if record not in self._unreadable:
                logger.error("a job is not looked after: %s", refusal(record), extra={"job_id": record.id})
        self._unreadable = records

    def liveness(self, job: Job | None, asking: object = None) -> tuple[Liveness, ...]:
        """Return what this process knows of the owners of the job's runs; *asking* is the flow that asks.

        Of its own it knows all. Where nothing is at work on one, a claim was stored though the store
        reported a failure.
        """
        return () if job is None else tuple(self._liveness_of(run, asking) for run in job.runs)

    def _liveness_of(self, run: Run, asking: object) -> Liveness:
        if run.owner != self.owner:
            return Liveness.DEAD if self._is_dead(run.owner) else Liveness.UNKNOWN
        is_alive = (
            run.is_among(self._runs)
            or any(flows.concerns(owed.intent, run) for owed in self._owed)
            or any(flows.holds(flow, run) for key, flow in self._flows.items() if key is not asking)
        )
        return Liveness.ALIVE if is_alive else Liveness.DEAD

    def begin_drain(self) -> None:
        """Turn fires away from now on, and let what waits wait no longer."""
        self.draining.set()
        self.ticker.nudge.set()
        for owed in self._owed:
            owed.due_s = min(owed.due_s, self._monotonic() + DRAINING_DELAY_US / SECOND_US)
        self._owes.set()
        self._lists_again.set()

    def is_told_to_stop(self) -> bool:
        """Return whether the agent is told to run no jobs; where that cannot be told, it is."""
        try:
            return self.is_stopped()
        except Exception:  # nothing may run that perhaps must not
            logger.exception("it cannot be told whether the agent is told to run no jobs")
            return True

    # --- flows ---

    def settle(self, intent: Intent) -> Work[Answer]:
        """Perform a flow, and see to it that what it still owes is done."""
        answer = yield from self._flow(intent)
        owed = flows.follow_up(intent, answer, self.clock())
        if owed is not None:
            now_s = self._monotonic()
            yield from self._owe(_Owed(owed, "", now_s, now_s), answer)
        return answer

    def _owe(self, owed: _Owed, answer: Answer) -> Work[None]:
        """Note what is owed, in place of what it makes needless, and see to it that somebody tries it."""
        self._put_off(owed, answer)
        for other in [each for each in self._owed if not each.is_tried]:
            if flows.makes_needless(owed.intent, other.intent):
                self._owed.remove(other)
        self._owed.append(owed)
        self._owes.set()
        if self._followers < min(START_CONCURRENCY, len(self._owed)):
            self._followers += 1
            yield from _announced(Spawn(self._follow_up(), _FOLLOWING), self._withdraw_follower)

    def _put_off(self, owed: _Owed, answer: Answer) -> None:
        """Let the next try wait for its delay, and not begin before NAS may be asked again."""
        delay_us = max(_delay_us(owed.tries), answer.retry_after_us)
        if self.draining.is_set():
            delay_us = min(delay_us, DRAINING_DELAY_US)
        owed.due_s = self._monotonic() + delay_us / SECOND_US
        owed.reason = f"{_why_unsettled(answer)}; it is tried again"
        owed.is_tried = False

    def _owe_no_more(self, is_settled: Callable[[str], bool]) -> None:
        """Forget what would only make NAS agree on jobs on which it does."""
        for owed in [each for each in self._owed if not each.is_tried]:
            if isinstance(owed.intent, flows.Fire) and is_settled(owed.intent.job_id):
                self._owed.remove(owed)

    def _withdraw_follower(self) -> None:
        self._followers -= 1
        if not self._followers:
            self._owed.clear()

    def _follow_up(self) -> Work[None]:
        """Try again what is owed, for as long as anything is; a few of these do so at once."""
        try:
            while waiting := [each for each in self._owed if not each.is_tried]:
                # The end of a run comes first: nobody renews its lease any more.
                owed = min(waiting, key=lambda each: (not isinstance(each.intent, flows.Finish), each.due_s))
                if owed.due_s > self._monotonic():
                    owed = min(waiting, key=lambda each: each.due_s)
                wait_us = int((owed.due_s - self._monotonic()) * SECOND_US)
                if wait_us > 0:
                    self._owes.clear()
                    yield Sleep(wait_us, self._owes)
                    continue
                owed.is_tried, is_left = True, False
                try:
                    is_left = yield from self._try_again(owed)
                finally:
                    if not is_left:
                        self._owed.remove(owed)
        finally:
            self._followers -= 1

    def _try_again(self, owed: _Owed) -> Work[bool]:
        """Try what is owed, and return whether it still is."""
        answer = yield from self._flow(owed.intent, is_owed=True)
        still_owed = flows.follow_up(owed.intent, answer, self.clock())
        others = (each.intent for each in self._owed if each is not owed)
        if still_owed is None or any(flows.makes_needless(other, still_owed) for other in others):
            return False
        # What NAS did not want to be asked yet was no try, as long as that does not go on for ever.
        is_put_off = answer.retry_after_us > 0 and self._monotonic() - owed.since_s < FOLLOW_UP_FOR_S
        owed.intent = still_owed
        owed.tries += not is_put_off
        if owed.tries == len(FOLLOW_UP_DELAYS_US) and not is_put_off:
            job_id = still_owed.job_id
            logger.error("%s: %s", job_id, TRIED_SLOWLY, extra={"job_id": job_id})
        if self.draining.is_set() and (is_put_off or not owed.is_busy):
            return False
        self._put_off(owed, answer)
        return True

    def _flow(self, intent: Intent, *, is_owed: bool = False) -> Work[Answer]:
        """Perform one flow, from its first effect to its answer; what is owed goes on during a stop, too."""
        if isinstance(intent, flows.Fire | flows.Finish):
            is_stopped = self.is_told_to_stop()
            if is_stopped and isinstance(intent, flows.Fire) and not is_owed:
                return self._note(intent, _stopped(intent.job_id), has_asked_nas=False)
            if is_stopped or self.draining.is_set():
                intent = attrs.evolve(intent, may_start=False)
        key = object()
        answer: Answer | None = None
        deadline_s: float | None = None
        flow, first = flows.begin(intent, owner=self.owner, now_us=self.clock(), belief=self.belief())
        todo: deque[flows.Effect] = deque(first)
        try:
            while todo:
                self._flows[key] = flow
                effect = todo.popleft()
                if isinstance(effect, Answer):
                    answer = effect
                elif isinstance(effect, flows.StartRun):
                    yield from self._start_run(effect)
                else:
                    if isinstance(effect, flows.ProvisionArm | flows.CancelArm) and deadline_s is None:
                        deadline_s = self._monotonic() + _nas_timeout_s(intent)
                        for converging in self._reconciling.values():
                            converging.add(intent.job_id)
                    event = yield from self.perform(effect, deadline_s)
                    self._tell(effect, event)
                    flow, more = flows.step(flow, self._known(event, key), self.clock())
                    todo.extend(more)
        finally:
            self._flows.pop(key, None)
        assert answer is not None
        return self._note(intent, answer, has_asked_nas=deadline_s is not None)

    def _known(self, event: flows.Event, asking: object = None) -> flows.Event:
        """Return *event* with what is known of the owners of the runs it shows.

        That is asked after the job was read: what changed in the store since then makes a swap fail.
        """
        if isinstance(event, flows.JobLoaded | flows.SwapConflicted):
            return attrs.evolve(event, liveness=self.liveness(event.job, asking))
        if isinstance(event, flows.JobsLoaded):
            jobs = [(job, self.liveness(job)) for job, _ in event.jobs]
            self.saw_unreadable(tuple(event.unreadable))
            return flows.JobsLoaded(jobs, self._reconciling.get(asking, ()), event.unreadable)
        return event

    def perform(self, effect: flows.Effect, deadline_s: float | None = None) -> Work[flows.Event]:
        """Perform an effect at the store, at NAS or, where that cannot be had, at the ticker."""
        is_for_nas = isinstance(effect, flows.ProvisionArm | flows.CancelArm | flows.ListArms)
        if is_for_nas and self.ticker.is_ticking:
            return self.ticker.perform(effect)
        logins = self._logins
        event = yield from self._ask_for(effect, deadline_s if is_for_nas else None)
        if not isinstance(event, IdentityRefused):
            return event
        if not self._is_started or logins != self._logins:
            # Nothing here fires jobs, or this was the login of before: whoever asked asks again.
            return flows.ArmFailed(event.reason)
        yield from self._fall_back()
        return self.ticker.perform(effect)

    def _ask_for(self, effect: flows.Effect, deadline_s: float | None) -> Work[flows.Event]:
        left_s = None if deadline_s is None else max(0.0, deadline_s - self._monotonic())
        sent_us = self._wall()
        event: flows.Event = yield Perform(effect, left_s)
        if isinstance(event, _OF_NAS):
            yield from self._hear(sent_us, event.date_us)
        return event

    def _list(self, deadline_s: float, *, asks_nas: bool) -> Work[flows.Event]:
        """Ask for the arms; with *asks_nas* of NAS, also while the ticker fires, which ends if it answers."""
        if not (self.ticker.is_ticking and self._has_nas and asks_nas):
            return (yield from self.perform(flows.ListArms(), deadline_s))
        event = yield from self._ask_for(flows.ListArms(), deadline_s)
        if not isinstance(event, flows.ArmsListed):
            if isinstance(event, IdentityRefused):
                logger.error("%s", REFUSED)
            return self.ticker.perform(flows.ListArms())
        self._logins += 1
        self.ticker.stop()
        return event

    def _tell(self, effect: flows.Effect, event: flows.Event) -> None:
        """Publish what the store has moved to."""
        if not (isinstance(effect, flows.SwapJob) and isinstance(event, flows.JobSwapped)):
            return
        before = effect.expected.runs if effect.expected is not None else ()
        for run in effect.replacement.runs if effect.replacement is not None else ():
            if not run.is_among(before):
                self._publish(events.OccurrenceClaimed(job_id=effect.job_id, run=run))
        for outcome in effect.outcomes:
            _log_outcome(outcome)
            self._publish(events.OccurrenceEnded(job_id=effect.job_id, outcome=outcome))

    def _note(self, intent: Intent, answer: Answer, *, has_asked_nas: bool) -> Answer:
        """Publish the end of a flow, and remember whether its job is settled."""
        is_renewal = isinstance(intent, flows.Renew)
        if not answer.settled:
            if not is_renewal:  # the next one mends it, without asking NAS
                self._unsettled[answer.job_id] = _why_unsettled(answer)
        elif has_asked_nas:
            self._unsettled.pop(answer.job_id, None)
            self._owe_no_more(answer.job_id.__eq__)
        level = logging.WARNING if not answer.settled else logging.DEBUG if is_renewal else logging.INFO
        extra = {"job_id": answer.job_id, "verdict": answer.verdict, "reason": answer.reason}
        reason = because(answer.reason or "done", answer.trouble)
        said = (_name_of(intent), answer.job_id, answer.verdict or "unsettled", reason)
        logger.log(level, "%s of %s: %s: %s", *said, extra=extra | {"settled": answer.settled})
        self._publish(events.FlowEnded(intent=intent, answer=answer))
        return answer

    # --- the start ---

    def start(self) -> Work[Started]:
        """Return the work of a start. A drain is over with this call: one that comes later is not undone."""
        self.draining.clear()
        self._is_started = True
        return self._start()

    def _start(self) -> Work[Started]:
        """Reconcile; when NAS or the store could not say what there is, go on in the background."""
        # NAS is asked once more, though it may have refused: somebody may have logged in.
        started, is_known, retry_after_us = yield from self._reconcile(asks_nas=True)
        if not is_known:
            yield from self._list_again(retry_after_us)
        if self.ticker.is_ticking:
            yield from self._begin_ticking()
        return started

    def _list_again(self, retry_after_us: int) -> Work[None]:
        """See to it that somebody asks again what is armed; one who does so already begins anew."""
        is_asking = self._list_tries is not None
        self._list_tries = 0
        if is_asking:
            self._lists_again.set()
        else:
            asking = Spawn(self._reconcile_again(retry_after_us), _FOLLOWING)
            yield from _announced(asking, self._list_no_more)

    def _list_no_more(self) -> None:
        self._list_tries = None

    def _reconcile_again(self, retry_after_us: int) -> Work[None]:
        """Ask again what is armed, ever more slowly, for as long as nobody has said. Source: incident L14."""
        try:
            while self._list_tries is not None:
                self._lists_again.clear()
                tries, is_draining = self._list_tries, self.draining.is_set()
                delay_us = DRAINING_DELAY_US if is_draining else max(_delay_us(tries), retry_after_us)
                if (yield Sleep(delay_us, self._new_signal() if is_draining else self._lists_again)):
                    continue
                _, is_known, retry_after_us = yield from self._reconcile()
                if is_known:
                    return
                if self._list_tries == tries:  # nobody has asked for it anew
                    self._list_tries += 1
                if self._list_tries == len(FOLLOW_UP_DELAYS_US):
                    logger.error("%s: %s", self._unsettled.get("", _UNKNOWN), TRIED_SLOWLY)
                if self.draining.is_set() and self._list_tries >= len(FOLLOW_UP_DELAYS_US):
                    return
        finally:
            self._list_no_more()

    def _reconcile(self, *, asks_nas: bool = False) -> Work[tuple[Started, bool, int]]:
        """Reconcile with what fires the jobs; with *asks_nas*, with NAS if it answers.

        Returns:
            What was done; whether all that is armed and the store wants was seen; and how long NAS is
            not to be asked, microseconds.
        """
        key = object()
        converging = self._reconciling[key] = set[str]()
        deadline_s = self._monotonic() + NAS_TIMEOUT_S
        retry_after_us = 0
        state, (effect, *_) = flows.begin_reconciliation()
        try:
            while not isinstance(effect, flows.Begin):
                if isinstance(effect, flows.ListArms):
                    event = yield from self._list(deadline_s, asks_nas=asks_nas)
                    retry_after_us = event.retry_after_us if isinstance(event, flows.ArmFailed) else 0
                else:
                    event = yield from self.perform(effect)
                known = self._known(event, key)
                state, (effect, *_) = flows.step_reconciliation(state, known, self.clock(), self.belief())
        finally:
            del self._reconciling[key]
        if effect.settled and self.ticker.is_ticking:
            self.ticker.looked(self._monotonic())
        if effect.settled:
            # All others were seen to agree; another process may have settled them.
            disagree = converging.union(intent.job_id for intent in effect.intents)
            self._unsettled = {job_id: why for job_id, why in self._unsettled.items() if job_id in disagree}
            self._owe_no_more(lambda job_id: job_id not in disagree)
        else:
            self._unsettled[""] = because(_UNKNOWN, effect.trouble)
        answers = yield from self._all(self.settle, effect.intents, "the start looks after the jobs")
        are_settled = (answer.settled and answer.verdict is not Verdict.STOPPED for answer in answers)
        # One that ended with a bug has no answer.
        is_settled = effect.settled and all(are_settled) and len(answers) == len(effect.intents)
        is_settled = is_settled and not self._unreadable
        started = Started(flows=len(effect.intents), settled=is_settled, trouble=effect.trouble)
        if effect.settled:
            logger.info("reconciled", extra=attrs.asdict(started))
        else:
            logger.warning("not reconciled: %s", self._unsettled[""], extra=attrs.asdict(started))
        return started, effect.settled, retry_after_us

    def _all(
        self, settle: Callable[[Intent], Work[Answer]], intents: Iterable[Intent], reason: str
    ) -> Work[list[Answer]]:
        """Settle many intents, a few at once; one that ends with a bug has no answer."""
        left, answers = deque(intents), list[Answer]()

        def some() -> Work[None]:
            while left:
                answers.append((yield from settle(left.popleft())))

        tasks = []
        for _ in range(min(START_CONCURRENCY, len(left))):
            tasks.append((yield self._spawn(some(), "", reason)))  # noqa: PERF401 - no yield there
        yield Join(tuple(tasks))
        return answers

    # --- runs ---

    def _start_run(self, effect: flows.StartRun) -> Work[None]:
        self._runs.append(effect.run)
        occurrence = format_instant(effect.run.occurrence_us)
        running = self._spawn(self._run(effect), effect.job_id, f"the run of {occurrence} is in flight")
        yield from _announced(running, lambda: self._runs.remove(effect.run))

    def _run(self, effect: flows.StartRun) -> Work[None]:
        """Run a job, keep its lease alive meanwhile, and end the run."""
        job_id, run = effect.job_id, effect.run
        ended = self._new_signal()
        try:
            renewal = yield Spawn(self._renew(effect, ended), None)
            self._publish(events.RunStarted(job_id=job_id, run=run))
            finish = yield from self._execute(effect)
            ended.set()
            said = events.RunEnded(job_id=job_id, run=run, succeeded=finish.succeeded, detail=finish.detail)
            self._publish(said)
            # A renewal on its way must not overtake the end: a NAS of contract 1.0 takes the last word.
            yield Join((renewal,))
            yield from self.settle(finish)
        finally:
            ended.set()
            self._runs.remove(run)

    def _execute(self, effect: flows.StartRun) -> Work[flows.Finish]:
        """Run a job, and return how the run ends: with the runner, or with its time."""
        limit_us = effect.time_limit_us
        context = RunContext(
            job_id=effect.job_id,
            occurrence_us=effect.run.occurrence_us,
            attempt=effect.run.attempt,
            origin=effect.run.origin,
            data=value_of(effect.data_json),
            deadline_s=None if limit_us is None else self._monotonic() + limit_us / SECOND_US,
        )
        if limit_us is None:
            return _finish(effect, *(yield Execute(context)))
        has_ended, ends = self._new_signal(), list[flows.Finish]()
        task = yield Spawn(self._execute_beside(effect, context, has_ended, ends), None)
        yield Sleep(limit_us, has_ended)
        if ends:
            return ends[0]
        finish = flows.timed_out(effect)
        at = format_instant(effect.run.occurrence_us)
        reason = f"the run of {at} {finish.detail}, and its runner goes on"
        # With the task, which nobody else may hold.
        self._overtime[context.timed_out] = Pending(job_id=effect.job_id, reason=reason, is_busy=False), task
        context.timed_out.set()
        return finish

    def _execute_beside(
        self, effect: flows.StartRun, context: RunContext, has_ended: Signal, ends: list[flows.Finish]
    ) -> Work[None]:
        """Call the runner beside the run that waits for it. What comes too late changes nothing."""
        try:
            ended = _finish(effect, *(yield Execute(context)))
            ends.append(ended)
            has_ended.set()
            if context.timed_out in self._overtime:
                how = ended.detail or "as it should"
                extra = {"job_id": effect.job_id, "succeeded": ended.succeeded}
                logger.warning("a runner has ended too late: %s: %s", effect.job_id, how, extra=extra)
        finally:
            self._overtime.pop(context.timed_out, None)

    def _renew(self, effect: flows.StartRun, ended: Signal) -> Work[None]:
        """Renew a lease until the run has ended, or is no longer this process's. Source: incident D4."""
        while not (yield Sleep(RENEW_EVERY_US, ended)):
            try:
                answer = yield from self.settle(flows.Renew(job_id=effect.job_id, run=effect.run))
            except Exception:  # the run goes on, and so must its lease
                logger.exception("a lease was not renewed", extra={"job_id": effect.job_id})
                continue
            if answer.verdict is Verdict.LOST:
                logger.warning("the run is no longer this process's", extra={"job_id": effect.job_id})
                return

    # --- without NAS ---

    def _fall_back(self) -> Work[None]:
        """NAS refuses the agent's identity: fire the jobs from here, and say so once."""
        if self.ticker.is_ticking:
            return
        self.ticker.is_ticking = True
        logger.error("%s", REFUSED)
        self._publish(events.FellBack(reason=REFUSED))
        yield from self._begin_ticking()

    def _begin_ticking(self) -> Work[None]:
        if not self.ticker.is_running and not self.draining.is_set():
            self.ticker.is_running = True
            ticking = self._spawn(self._tick(), "", REFUSED if self._has_nas else WITHOUT_NAS)
            yield from _announced(ticking, self._stopped_ticking)

    def _stopped_ticking(self) -> None:
        self.ticker.is_running = False

    def _tick(self) -> Work[None]:
        """Fire what is due, for as long as there is no NAS to do it. Source: incident L4."""
        try:
            while self.ticker.is_ticking and not self.draining.is_set():
                self.ticker.nudge.clear()
                now_us = self.clock()
                try:
                    before_us = self._before_the_clock_was_set(now_us)
                    if not self._reconciling and self.ticker.must_look(self._monotonic()):
                        yield from self._reconcile()
                        now_us = self.clock()
                    yield from self._fire_due(now_us, before_us)
                except Exception:  # nothing else would fire the jobs
                    logger.exception("the in-process ticker failed, and goes on")
                # What has become due since then was not fired: the pause counts from the same instant.
                yield Sleep(self.ticker.pause_us(now_us), self.ticker.nudge)
        finally:
            self._stopped_ticking()

    def _before_the_clock_was_set(self, now_us: Instant) -> Instant | None:
        """Look whether the clock was set: what stands ahead of one that was set back is put back at once.

        Returns:
            What it would show had it not been set forward by three hours or more: what has become due since
            then was jumped over. None when that is not so.
        """
        jump_us = self.ticker.jump_us(now_us, self._steady())
        change = change_of(jump_us)
        if change is Change.NONE:
            return None
        logger.warning("the clock was set %s, by %s", *said_of(jump_us))
        if change is Change.BACKWARD:
            self._reading = compared(now_us, now_us, now_us, self._steady())  # nobody here knows better
            self.ticker.look_now()
        if change is not Change.CORRECTION:
            return None
        self.ticker.looked(self._monotonic())  # a look would take what was jumped over
        return now_us - jump_us

    def _fire_due(self, now_us: Instant, before_us: Instant | None) -> Work[None]:
        due = () if self.is_told_to_stop() else self.ticker.due(now_us, self._monotonic())
        for job_id, fire_at_us in due:
            was_jumped_over = before_us is not None and fire_at_us > before_us
            fired = Fired(origin=Origin.SCHEDULE, was_jumped_over=was_jumped_over)
            tick = flows.Fire(job_id=job_id, fire_at_us=fire_at_us, fired=fired)
            yield self._spawn(self._ticked(tick), job_id, "a fire is being answered")

    def _ticked(self, tick: flows.Fire) -> Work[None]:
        answer = yield from self.settle(tick)
        if answer.verdict is None:
            self.ticker.put_off(tick.job_id, self._monotonic() + answer.retry_after_us / SECOND_US)

    # --- tasks ---

    def ask(self, intent: Intent) -> Spawn:
        """Return the work that does what somebody asks for."""
        # Whoever is told to run something is an agent at work, also before its first start.
        self._is_started = self._is_started or isinstance(intent, flows.Fire | flows.RunNow)
        if isinstance(intent, flows.Fire | flows.RunNow) and self.draining.is_set():
            turned_away = Answer(
                job_id=intent.job_id, verdict=None, reason="the agent is draining", settled=False
            )
            work = self._at_once(intent, turned_away)
        elif isinstance(intent, flows.RunNow) and self.is_told_to_stop():
            work = self._at_once(intent, _stopped(intent.job_id))
        else:
            work = self._explained(intent)
        return self._spawn(work, intent.job_id, f"a {_name_of(intent)} is being answered")

    def declare(self, wanted: Sequence[flows.Declare], *, removes_others: bool) -> Work[dict[str, Answer]]:
        """Make the jobs be what is declared, each by a flow of its own, where it is not so already."""
        records = yield Read(lambda store: store.load_all())
        jobs, now_us = told_apart(records)[0], self.clock()
        intents, answers = flows.declarations(
            jobs, wanted, now_us, removes_others=removes_others, unsettled=self._unsettled
        )
        done = yield from self._all(self._explained, intents, "a declared job is looked after")
        answers |= {answer.job_id: answer for answer in done}
        ids = (intent.job_id for intent in (*wanted, *intents))
        return {job_id: answers.get(job_id) or _broken(job_id) for job_id in dict.fromkeys(ids)}

    def _at_once(self, intent: Intent, answer: Answer) -> Work[Answer]:
        """Return *answer* without a flow."""
        self._publish(events.FlowEnded(intent=intent, answer=answer))
        return answer
        yield

    def _explained(self, intent: Intent) -> Work[Answer]:
        """Settle a change or a fire, and say of a change that is saved but not armed what that means."""
        answer = yield from self.settle(intent)
        if answer.settled or isinstance(intent, flows.Fire):
            return answer
        if answer.verdict is None:
            return attrs.evolve(answer, reason=because(answer.reason, answer.trouble))
        trouble = f" ({answer.trouble})" if answer.trouble else ""
        if answer.job is None or wake_at(answer.job) is None:
            saved = f"NAS was not told{trouble}, and may still wake this machine for the job"
        else:
            saved = (
                f"the job is saved, but its trigger is not registered at NAS{trouble}: until it is, nothing "
                "wakes this machine for the job"
            )
        return attrs.evolve(answer, reason=f"{answer.reason}; {saved}. {_REMEDY}")

    def _spawn(self, work: Generator[Any, Any, Any], job_id: str, reason: str) -> Spawn:
        return Spawn(work, Pending(job_id=job_id, reason=reason, is_busy=True))


STOPPED = "the agent is told to run no jobs"
REFUSED = (
    "NAS refuses this agent's identity, so that none of its jobs can be armed; no retry "
    "mends that. Until somebody logs the agent in again and calls `start`, it runs its jobs by itself: "
    "for as long as this process lives, and no longer"
)
WITHOUT_NAS = "without NAS, the jobs run for as long as this process lives, and no longer"
_UNKNOWN = "what NAS has armed, or what the store holds, could not be read"
_REMEDY = "It is tried again for as long as this process lives, ever more slowly; call `start` to try sooner"
TRIED_SLOWLY = "given up for the moment; it is tried ever more slowly for as long as this process lives"
_OF_NAS = flows.ArmAccepted | flows.ArmOutdated | flows.ArmFailed | flows.ArmsListed
_FOLLOWING = Pending(job_id="", reason="what is owed is tried again", is_busy=True)


def _announced(spawn: Spawn, withdraw: Callable[[], object]) -> Work[None]:
    """Begin work that was announced, and withdraw it where no thread for it is to be had."""
    try:
        yield spawn
    except BaseException:
        withdraw()
        raise


def _finish(started: flows.StartRun, succeeded: bool, detail: str) -> flows.Finish:
    """Return the end of a run that ends with its runner."""
    return flows.Finish(
        job_id=started.job_id,
        run=started.run,
        succeeded=succeeded,
        detail=detail,
        confirm=started.confirm,
    )


def _delay_us(tries: int) -> int:
    return flows.follow_up_delay_us(tries, FOLLOW_UP_DELAYS_US)


def _name_of(intent: Intent) -> str:
    """Return the word by which the log knows *intent*."""
    match intent:
        case flows.Fire(fired=Fired(origin=Origin.RECOVERY)):
            return "recovery"
        case flows.RunNow():
            return "run_now"
    return type(intent).__name__.lower()


def _log_outcome(outcome: Outcome) -> None:
    level = logging.INFO if outcome.result is Result.COMPLETED else logging.WARNING
    at = format_instant(outcome.occurrence_us)
    more = f" and {outcome.count - 1} more" if outcome.count > 1 else ""
    extra = {"job_id": outcome.job_id, "result": outcome.result, "attempt": outcome.attempt}
    said = (outcome.job_id, at, more, outcome.result, outcome.reason or "as it should")
    logger.log(level, "%s of %s%s: %s: %s", *said, extra=extra)


def _broken(job_id: str) -> Answer:
    return Answer(
        job_id=job_id, verdict=None, reason="it ended with a bug, which is in the log", settled=False
    )


def _stopped(job_id: str) -> Answer:
    return Answer(job_id=job_id, verdict=Verdict.STOPPED, reason=STOPPED, settled=True)


def _why_unsettled(answer: Answer) -> str:
    has_a_reason = answer.verdict in (None, Verdict.LOST, Verdict.EARLY)
    return because(answer.reason if has_a_reason else "NAS has not agreed to the job's arm", answer.trouble)


def _nas_timeout_s(intent: Intent) -> float:
    is_answering = isinstance(intent, flows.Fire) and intent.fired.origin is Origin.SCHEDULE
    return NAS_TIMEOUT_IN_FIRE_S if is_answering else NAS_TIMEOUT_S
