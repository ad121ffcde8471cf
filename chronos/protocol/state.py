"""What a process of an agent knows, as a value.

A `Process` is frozen and hashable: it can be stored, compared and dropped between any two events, which is
what a crash does to it. `chronos.protocol.process` says what each event makes of it. Times of its timers are
those of a steady clock, one that nobody sets, in microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from chronos.jobs.instants import MINUTE_US, SECOND_US, Instant
from chronos.jobs.job import Origin, Unreadable
from chronos.protocol import flow as flows
from chronos.protocol import follow_ups, reconciliation
from chronos.protocol.clocks import Belief, Reading
from chronos.protocol.flow_effects import Answer, StartRun
from chronos.protocol.flow_effects import Effect as FlowEffect
from chronos.protocol.intents import Finish, Fire, Intent
from chronos.protocol.maps import Map
from chronos.protocol.ticker import Ticker

# How long a flow may ask NAS, in all: as long as the client takes for a request and, with a fresh
# token, for one more. A relay waits some 30 s for the answer to a fire, and the machine may just
# have been woken by it.
NAS_TIMEOUT_US = 30 * SECOND_US
NAS_TIMEOUT_IN_FIRE_US = 10 * SECOND_US

# While draining, a follow-up does not wait longer: the machine is about to stop.
DRAINING_DELAY_US = SECOND_US

# How long what is owed is tried again, in all, when NAS asks to be asked later: a fleet of some thousand
# jobs gets through a rate limit in that time. After that the host may stop the machine.
FOLLOW_UP_FOR_US = 15 * MINUTE_US

# So many tries are told apart: from there on each waits for as long as the one before.
MOST_TRIES = 8

# How many flows of a start run at once, and how many of those that follow up: NAS is asked once for
# each, and limits their rate.
CONCURRENCY = 8


class Now(Struct, frozen=True):
    """The present, as a process sees it.

    Attributes:
        wall_us: what the machine's clock shows, epoch microseconds, UTC.
        steady_us: a clock that nobody sets, microseconds.
        is_stopped: whether the agent is told to run no jobs.
    """

    wall_us: Instant
    steady_us: int
    is_stopped: bool = False


def is_answering(intent: Intent | None) -> bool:
    """Return whether NAS waits for the end of a flow, since it has delivered a fire."""
    return isinstance(intent, Fire) and intent.fired.origin is Origin.SCHEDULE


class Rules(Struct, frozen=True, kw_only=True):
    """The flows that a process performs; those of `chronos.protocol.flow`, unless somebody tries others.

    Attributes:
        begin: as `chronos.protocol.flow.begin`.
        step: as `chronos.protocol.flow.step`.
        begin_reconciliation: as `chronos.protocol.reconciliation.begin_reconciliation`.
        step_reconciliation: as `chronos.protocol.reconciliation.step_reconciliation`.
        is_answering: tells whether NAS waits for the end of the flow for an intent.
        has_ticker: whether the host fires the jobs by a ticker of its own where NAS cannot be had. That one
            runs for as long as the ticker of the process would, and may be in another process.
    """

    begin: Callable[..., Any] = flows.begin
    step: Callable[..., Any] = flows.step
    begin_reconciliation: Callable[..., Any] = reconciliation.begin_reconciliation
    step_reconciliation: Callable[..., Any] = reconciliation.step_reconciliation
    is_answering: Callable[[Any], bool] = is_answering
    has_ticker: bool = False


RULES = Rules()


# --- The parts of a process -------------------------------------------------------------------


class Pending(Struct, frozen=True, kw_only=True):
    """Something that is not finished.

    Attributes:
        job_id: whose; empty when it concerns all jobs.
        reason: what it waits for, in words.
        is_busy: whether this process is at work on it. A host may stop the machine when nothing is;
            what else is listed waits for NAS's next delivery, a change of the job, or a start.
        is_waiting: whether it goes on by itself after a while, and nothing is done about it before.
    """

    job_id: str
    reason: str
    is_busy: bool
    is_waiting: bool = False


class Started(Struct, frozen=True, kw_only=True):
    """What a start did.

    Attributes:
        flows: how many jobs needed looking after.
        settled: whether the store agrees on every job with what fires the jobs: NAS, or the in-process
            ticker where NAS cannot be had, which `pending()` tells. When False, `pending()` says why;
            the scheduler goes on trying for a while, unless it is told to run no jobs.
        trouble: why the arms or the jobs could not be read; empty when they could.
    """

    flows: int
    settled: bool
    trouble: str = ""


# Why a flow or a reconciliation is performed: what is done with its end.


class ForCaller(Struct, frozen=True):
    """Somebody waits for the answer under this ticket."""

    ticket: Hashable


class ForLook(Struct, frozen=True):
    """A caller waits for the list of arms under this ticket; there is no flow."""

    ticket: Hashable


class ForBatch(Struct, frozen=True):
    """It is one of the many that a start, or a declaration, has begun."""

    number: int


class ForRun(Struct, frozen=True):
    """It renews the lease of a run in flight, or ends the run."""

    key: Hashable


class ForOwed(Struct, frozen=True):
    """It tries again what is owed."""

    owed: Owed


class ForTicker:
    """The in-process ticker has fired the job, or looks at the store."""


class ForList:
    """It asks for the list of arms again, after a failure."""


class ForClock:
    """It asks for NAS's time, since the machine's clock is not believed."""


TICKER, LIST, CLOCK = ForTicker(), ForList(), ForClock()
Purpose: TypeAlias = ForCaller | ForLook | ForBatch | ForRun | ForOwed | ForTicker | ForList | ForClock


class Task(Struct, frozen=True, kw_only=True, cache_hash=True):
    """A flow or a reconciliation in progress.

    Attributes:
        flow: how far it is.
        purpose: why it is performed.
        intent: what was asked for; None of a reconciliation.
        effect: what it waits for.
        deadline_us: until when NAS may be asked; None while it was not.
        sent_us: what the machine's clock showed when *effect* was asked for.
        logins: how often NAS had accepted the agent again when that was.
        converging: of a reconciliation, the jobs that others have begun to arm meanwhile.
        retry_after_us: of a reconciliation, how long NAS is not to be asked again.
        is_unheard: of a reconciliation, whether NAS did not answer, and the ticker did in its place.
    """

    flow: Any
    purpose: Purpose
    intent: Intent | None = None
    effect: FlowEffect | None = None
    deadline_us: int | None = None
    sent_us: Instant = 0
    logins: int = 0
    converging: frozenset[str] = frozenset()
    retry_after_us: int = 0
    is_unheard: bool = False


class Owed(Struct, frozen=True, kw_only=True, cache_hash=True):
    """Something that this process still has to do.

    Attributes:
        intent: what.
        reason: why it was not done yet, in words.
        due_us: when it is tried next.
        tries: how often it was tried since.
        patience_until_us: until when NAS's wish not to be asked yet makes a try none.
    """

    intent: Intent
    reason: str
    due_us: int
    patience_until_us: int
    tries: int = 0

    @property
    def is_busy(self) -> bool:
        """Return whether the host shall keep the machine for it: for about a minute."""
        return self.tries < len(follow_ups.FOLLOW_UP_DELAYS_US)


class Running(Struct, frozen=True, kw_only=True, cache_hash=True):
    """A run in flight.

    Attributes:
        started: what was begun.
        renew_us: when its lease is renewed next; None when it is not any more.
        over_us: when its time is over; None for no limit.
        is_renewing: whether that is going on.
        end: how it has ended, while a renewal on its way must not be overtaken.
    """

    started: StartRun
    renew_us: int | None
    over_us: int | None = None
    is_renewing: bool = False
    end: Finish | None = None


class Retry(Struct, frozen=True, kw_only=True, cache_hash=True):
    """Something that is asked again and again, ever more slowly.

    Attributes:
        tries: how often it was asked.
        due_us: when it is asked next; None while it is.
    """

    tries: int
    due_us: int | None

    @property
    def is_busy(self) -> bool:
        """Return whether the host shall keep the machine for it."""
        return self.tries < len(follow_ups.FOLLOW_UP_DELAYS_US)


class Batch(Struct, frozen=True, kw_only=True, cache_hash=True):
    """Many flows of which a few are performed at once.

    Attributes:
        purpose: why they are performed.
        intents: all of them.
        begun: how many of them were begun.
        at_work: how many of these are not over yet.
        awaits: of a start, the tasks that see to jobs in its place, and are not over yet.
        is_settled: whether each of those that are over was.
        is_known: of a start, whether both arms and jobs could be read.
        is_unheard: of a start, whether NAS did not answer, and the ticker did in its place.
        trouble: why it was not.
        retry_after_us: how long NAS is not to be asked again.
        answers: of a declaration, what was answered so far, by job.
        is_declared: whether it is a declaration.
    """

    purpose: Purpose
    intents: tuple[Intent, ...]
    begun: int = 0
    at_work: int = 0
    awaits: frozenset[int] = frozenset()
    is_settled: bool = True
    is_known: bool = True
    is_unheard: bool = False
    trouble: str = ""
    retry_after_us: int = 0
    answers: Map[str, Answer] = msgspec.field(default_factory=Map)
    is_declared: bool = False


class Process(Struct, frozen=True, cache_hash=True):
    """A process of an agent, between two events.

    Attributes:
        owner: names it, uniquely among all processes of all machines and all times.
        ticker: fires the jobs where NAS cannot be had.
        has_nas: whether there is a NAS at all.
        rules: the flows that it performs.
        is_started: whether it was started, or asked to run something: before that it fires nothing by itself.
        is_draining: whether fires are turned away, since the host is about to stop it.
        reading: the last comparison of its clock with NAS's; None when there was none.
        logins: how often NAS has accepted the agent after it had refused it.
        tasks: the flows and reconciliations in progress, by number.
        batches: those of which many were asked for at once, by number.
        runs: the runs in flight, by key.
        overtime: what goes on though its time is over, by key: how that is listed.
        owed: the work that is tried again, by the key under which newer work replaces it.
        lists: what is armed, while that is asked again; None while it is known.
        looks: NAS's time, while that is asked again; None while the clock is believed.
        unsettled: why the store and NAS may disagree on a job, by its id; "" stands for all.
        unreadable: the records that are no jobs.
    """

    owner: str
    ticker: Ticker
    has_nas: bool = True
    rules: Rules = RULES
    is_started: bool = False
    is_draining: bool = False
    reading: Reading | None = None
    logins: int = 0
    tasks: Map[int, Task] = msgspec.field(default_factory=Map)
    batches: Map[int, Batch] = msgspec.field(default_factory=Map)
    runs: Map[Hashable, Running] = msgspec.field(default_factory=Map)
    overtime: Map[Hashable, Pending] = msgspec.field(default_factory=Map)
    owed: Map[Hashable, Owed] = msgspec.field(default_factory=Map)
    lists: Retry | None = None
    looks: Retry | None = None
    unsettled: Map[str, str] = msgspec.field(default_factory=Map)
    unreadable: tuple[Unreadable, ...] = ()

    @property
    def is_refused(self) -> bool:
        """Return whether NAS refuses the agent's identity, so that a ticker fires the jobs in its place."""
        return self.has_nas and self.ticker.is_ticking

    @property
    def is_at_work(self) -> bool:
        """Return whether anything goes on, or will by itself; a drain waits for that to end."""
        return bool(self.tasks or self.runs or self.owed or self.batches or self.lists or self.looks)


def new_process(owner: str, *, has_nas: bool = True, rules: Rules = RULES) -> Process:
    """Return a process that has done nothing yet.

    Args:
        owner: its name, unique among all processes of all machines and all times.
        has_nas: whether there is a NAS; without one the process fires its jobs itself, once it is started.
        rules: the flows that it performs.
    """
    return Process(owner=owner, has_nas=has_nas, rules=rules, ticker=Ticker(is_ticking=not has_nas))


def clock_of(reading: Reading | None, now: Now) -> Instant:
    """Return the present instant: NAS's, while the machine's clock is not believed."""
    return now.wall_us if reading is None else reading.corrected(now.wall_us, now.steady_us)


def belief_of(reading: Reading | None, now: Now) -> Belief:
    """Return whether the machine's clock is believed."""
    return Belief.UNKNOWN if reading is None else reading.belief(now.wall_us, now.steady_us)
