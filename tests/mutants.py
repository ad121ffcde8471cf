"""Deliberately broken variants of the protocol, made to be caught: the list, and how one is built.

A mutant changes one place of the source. The changed module is built in memory: its functions and
tables anew, in a copy of the real module's names, so that the values (`Job`, `Flow`, ...) are of the
same classes for the mutant and for whoever judges it.

Each mutant names what must find it: a test of one rule, which fails for the mutant; the machine of
`test_job_under_policies`; the exhaustive search in a small world; or the machine of
`test_scheduler_against_model`.
"""

from __future__ import annotations

import ast
import inspect
from types import ModuleType, SimpleNamespace
from typing import Any

import attrs

from chronos.jobs import due
from chronos.jobs.instants import SECOND_US
from chronos.jobs.job import Job
from chronos.jobs.policy import OnInterrupt, Policy
from chronos.jobs.schedule import Interval
from chronos.protocol import (
    batches,
    draft,
    follow_ups,
    job_changes,
    pending,
    process,
    reconciliation,
    retries,
    runs,
    tasks,
    ticking,
    transitions,
    turn,
    wrong_clock,
)
from chronos.protocol import flow as flows
from chronos.protocol.intents import Intent, Pause
from chronos.protocol.state import Rules
from chronos.testing.nas import HARDENED, Promises
from chronos.values import evolve
from simulator.agents import Agent
from simulator.properties import (
    CONVERGES,
    DURABLE_CLAIM,
    IDEMPOTENT_DEDUP,
    NO_LOST_REARM,
    NO_ORPHAN,
    NO_OVERLAP,
    ONE_OUTCOME,
    REPEAT_LIMIT,
    SAFE_SLEEP,
    Property,
)
from simulator.search.cases import JOB_ID, Case

# Those of a process, in the order in which they use each other; some of their names are those of a flow.
_OF_PROCESS: tuple[ModuleType, ...] = (turn, runs, ticking, retries, batches, tasks, process, pending)

# In the order in which they use each other.
_MODULES: tuple[ModuleType, ...] = (
    due,
    draft,
    transitions,
    job_changes,
    wrong_clock,
    follow_ups,
    flows,
    reconciliation,
    *_OF_PROCESS,
)

# The public classes that are no values but a part of the behaviour.
_BEHAVIOUR = ("Draft", "Turn", "Runs", "Ticking", "Retries", "Batches", "Tasks", "ProcessTurn")

# The names of the reconciliation's module by which a process performs one.
_OF_START = ("begin_reconciliation", "step_reconciliation")

# The names by which other modules know a module.
_ALIASES = {"flow": "flows"}


def _case(name: str, instants_s: tuple[int, ...], *, change: Intent | None = None, **fields: Any) -> Case:
    """Return a small world of a job that is first due at the second of the instants, and so on."""
    period_us = instants_s[1] * SECOND_US
    return Case(
        name=name,
        instants_us=tuple(instant * SECOND_US for instant in instants_s),
        job=Job(
            id=JOB_ID,
            schedule=Interval(period_us=period_us, anchor_us=period_us),
            next_us=period_us,
            **fields,
        ),
        change=change,
    )


CLOSE = _case("close occurrences", (0, 200, 400))
RETRIED = _case("close occurrences, retried", (0, 200, 400), policy=Policy(on_interrupt=OnInterrupt.RETRY))
TOGETHER = _case("occurrences that are due together", (0, 100, 290))
DISTANT = _case("distant occurrences", (0, 600, 1200))
ONE_RUN = _case("the schedule ends after one run", (0, 200, 400), times=1)
FAILING = _case(
    "a failed run is attempted again",
    (0, 400, 500),
    policy=Policy(attempts=2, retry_delay_us=50 * SECOND_US),
)
BETWEEN = evolve(
    _case("an occurrence between two seconds", (0, 200, 201, 400)),
    job=Job(
        id=JOB_ID,
        schedule=Interval(period_us=200 * SECOND_US, anchor_us=SECOND_US // 2),
        next_us=200 * SECOND_US + SECOND_US // 2,
    ),
)
DRAINED = evolve(_case("the host drains a machine", (0, 600, 1200)), is_drained=True)
REFUSED = evolve(
    _case("NAS refuses the agent's identity for a while", (0, 200)), is_logged_out=True, processes=1
)
PAUSED = _case("somebody pauses the job", (0, 200), change=Pause(job_id=JOB_ID))


# With the promise (L13), an agent that arms the very instant of the fire that it accepts is fired again
# and again, and loses nothing.
TAKES_A_DELIVERY_FOR_AN_ARM = evolve(HARDENED, sets_deliveries_apart=False)


@attrs.frozen(kw_only=True)
class Mutant:
    """A protocol with one mistake.

    Attributes:
        name: what it does wrong, in words.
        module: where.
        old: the text to replace; it must occur there exactly once.
        new: the text to put in its place.
        rule: the test of `test_transitions` or `test_machine` that fails for it; "" when none does.
        is_found_by_machine: whether the machine of `test_job_under_policies` finds it, in a short time.
        case: the small world in which the exhaustive search finds it, or None.
        found_by: the properties of which the search names one.
        states: how many states the search looks at, at most.
        promises: of the NAS there; one that keeps more may mend what the mistake does.
        budget: how many crashes, duplicates and losses may strike there.
    """

    name: str
    module: ModuleType
    old: str
    new: str
    rule: str = ""
    is_found_by_machine: bool = False
    case: Case | None = None
    found_by: tuple[Property, ...] = ()
    states: int = 8_000
    promises: Promises = HARDENED
    budget: tuple[int, int, int] = (1, 1, 1)


class StaleMutantError(Exception):
    """The text that a mutant replaces does not occur exactly once: the mutant must be mended."""


def agent_of(mutant: Mutant) -> Agent:
    """Return the agent that keeps the protocol with the mistake of *mutant*.

    Raises:
        StaleMutantError: the text to replace does not occur exactly once.
    """
    broken = _modules_of(mutant)
    of_start = {name: broken["reconciliation"][name] for name in _OF_START}
    return Agent(
        name=mutant.name,
        rules=Rules(begin=broken["flow"]["begin"], step=broken["flow"]["step"], **of_start),
        turn=broken["process"]["ProcessTurn"].of,
        rings_us=broken["process"]["rings_us"],
        pending=broken["pending"]["pending"],
    )


def protocol_of(mutant: Mutant) -> dict[str, Any]:
    """Return every name of the protocol's modules, with the mistake of *mutant*.

    The modules themselves are among them, by their short names.
    """
    modules = _modules_of(mutant)
    of_process = {_short_name(module) for module in _OF_PROCESS}
    of_flows = [names for module, names in modules.items() if module not in of_process]
    everything = {name: value for names in of_flows for name, value in names.items()}
    return everything | {name: SimpleNamespace(**names) for name, names in modules.items()}


def _modules_of(mutant: Mutant) -> dict[str, dict[str, Any]]:
    """Return the names of each module, built upon the ones before it as they are with the mistake."""
    rebuilt: dict[str, Any] = {}
    modules: dict[str, dict[str, Any]] = {}
    for module in _MODULES:
        source = inspect.getsource(module)
        if module is mutant.module:
            if (found := source.count(mutant.old)) != 1:
                raise StaleMutantError(f"{mutant.name}: {mutant.old!r} occurs {found} times, expected once")
            source = source.replace(mutant.old, mutant.new)
        names = dict(vars(module))
        names.update((name, value) for name, value in rebuilt.items() if name in names)
        exec(compile(_functions_and_tables(source), f"<{mutant.name}>", "exec"), names)
        behaviour = {name: value for name, value in names.items() if _is_behaviour(name, value)}
        short_name = _short_name(module)
        rebuilt |= behaviour | {_ALIASES.get(short_name, short_name): SimpleNamespace(**names)}
        modules[short_name] = names
    return modules


def _short_name(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def _is_behaviour(name: str, value: object) -> bool:
    return inspect.isfunction(value) or name in _BEHAVIOUR


def _functions_and_tables(source: str) -> ast.Module:
    """Return a module without its imports and its values' classes, which stay as they are."""
    tree = ast.parse(source)
    tree.body = [
        node
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.Assign, ast.AnnAssign))
        or (isinstance(node, ast.ClassDef) and (node.name.startswith("_") or node.name in _BEHAVIOUR))
    ]
    return tree


# The one that only a wrong clock brings to light in a whole world: the timed simulation finds it.
ACCEPTS_THE_ARM_ITSELF = Mutant(
    name="the fire that is the arm itself is accepted",
    module=flows,
    old="    if _is_the_arm_itself(flow.intent, move, wake_us):",
    new="    if False:",
    rule="test_fire_that_is_the_arm_a_job_still_needs_is_not_accepted",
)

_WHEN_TO_BE_WOKEN = (
    Mutant(
        name="the guard of a retried run is forgotten",
        module=due,
        old="        or policy.on_interrupt is OnInterrupt.RETRY\n",
        new="",
        rule="test_guard_counts_while_a_retried_run_is_in_flight",
        case=RETRIED,
        found_by=(NO_LOST_REARM,),
        states=16_000,
    ),
    Mutant(
        name="the guard of a run behind which something waits is forgotten",
        module=due,
        old="        bool(job.waiting)\n        or policy",
        new="        policy",
        rule="test_guard_counts_while_something_waits_for_a_run",
    ),
    Mutant(
        name="the guard of a run that may be attempted again is forgotten",
        module=due,
        old="        or any(run.attempt < policy.attempts for run in job.runs)\n",
        new="",
        rule="test_guard_counts_while_a_run_may_be_attempted_again",
        case=FAILING,
        found_by=(NO_LOST_REARM,),
    ),
    Mutant(
        name="the guard is that of the lease that ends last",
        module=due,
        old="        guard_us = min(run.lease_until_us for run in job.runs)",
        new="        guard_us = max(run.lease_until_us for run in job.runs)",
        rule="test_guard_is_that_of_the_lease_that_ends_first",
    ),
    Mutant(
        name="nobody is woken for what waits",
        module=due,
        old="    for waiting in startable(job) if job.waiting else ():",
        new="    for waiting in ():",
        rule="test_what_waits_for_its_time_asks_for_a_wake",
        is_found_by_machine=True,
    ),
    Mutant(
        name="what waits behind a run is woken for at once",
        module=due,
        old="    return () if job.runs else job.waiting[:1]",
        new="    return job.waiting[:1]",
        rule="test_what_waits_behind_something_else_asks_for_no_wake_of_its_own",
        is_found_by_machine=True,
    ),
    Mutant(
        name="a paused job is woken all the same",
        module=due,
        old="    if job.state is not JobState.SCHEDULED:",
        new="    if job.state is JobState.COMPLETED:",
        rule="test_job_that_was_paused_during_its_run_is_not_armed_again",
        is_found_by_machine=True,
        case=PAUSED,
        found_by=(NO_ORPHAN,),
    ),
    Mutant(
        name="the end of the schedule is not looked at",
        module=due,
        old="(ends_us is not None and slot_us > ends_us)",
        new="False",
        rule="test_last_occurrence_within_the_bounds_is_the_last",
    ),
    Mutant(
        name="the beginning of the schedule is not looked at",
        module=due,
        old="    if starts_us is not None and starts_us > instant_us:",
        new="    if False:",
        rule="test_new_job_begins_with_the_first_occurrence_within_its_bounds",
    ),
)

_WHAT_IS_TAKEN = (
    Mutant(
        name="a claim leaves the next occurrence where it was",
        module=draft,
        old='            "next_us": self.next_us,',
        new='            "next_us": job.next_us if self.started else self.next_us,',
        rule="test_claim_advances_from_the_scheduled_time",
        is_found_by_machine=True,
        case=CLOSE,
        found_by=(ONE_OUTCOME, IDEMPOTENT_DEDUP),
    ),
    Mutant(
        name="an arm lies between two seconds",
        module=due,
        old="return None if wake_us is None else whole_second(wake_us)",
        new="return wake_us",
        rule="test_wake_is_a_whole_second",
        case=BETWEEN,
        found_by=(NO_LOST_REARM,),
        promises=TAKES_A_DELIVERY_FOR_AN_ARM,
    ),
    Mutant(
        name="the next occurrence is counted from the clock",
        module=draft,
        old="self.next_us = following(self.job, known[-1]) if later.count else second_us",
        new="self.next_us = second_us and until_us + 1",
        rule="test_claim_advances_from_the_scheduled_time",
        is_found_by_machine=True,
        case=CLOSE,
        found_by=(ONE_OUTCOME,),
    ),
    Mutant(
        name="what is due is decided by the local clock",
        module=transitions,
        old="draft.next_us is not None and draft.next_us <= fire_at_us:",
        new="draft.next_us is not None and draft.next_us <= now_us:",
        rule="test_what_is_due_is_decided_by_the_fire_and_not_by_a_slow_clock",
        is_found_by_machine=True,
    ),
    Mutant(
        name="a fire from the future is believed",
        module=transitions,
        old="    if fire_at_us > now_us + CLOCK_MARGIN_US:",
        new="    if False:",
        rule="test_fire_from_the_future_takes_nothing_and_judges_no_lease",
    ),
    Mutant(
        name="a fire takes what is due by the local clock as well",
        module=transitions,
        old="max(fire_at_us, now_us - CLOCK_MARGIN_US), fired)",
        new="max(fire_at_us, now_us), fired)",
        rule="test_clock_that_is_ahead_takes_nothing_before_its_time",
    ),
    Mutant(
        name="older occurrences vanish without an outcome",
        module=transitions,
        old="    draft.end_stretch(older, Result.MISSED, _TOO_MANY if is_all else _COALESCED)\n",
        new="",
        rule="test_newest_of_several_due_occurrences_runs_and_older_ones_are_missed_as_one_stretch",
        is_found_by_machine=True,
        case=TOGETHER,
        found_by=(ONE_OUTCOME,),
    ),
    Mutant(
        name="of what is caught up all but the newest is forgotten",
        module=transitions,
        old="    for slot_us in newest:",
        new="    for slot_us in newest[-1:]:",
        rule="test_all_that_are_caught_up_run_one_after_another_from_the_oldest",
        is_found_by_machine=True,
    ),
    Mutant(
        name="as many are caught up as there are",
        module=transitions,
        old="draft.due(horizon_us, policy.catch_up_limit if is_all else 1)",
        new="draft.due(horizon_us, 10**9 if is_all else 1)",
        rule="test_only_the_newest_are_caught_up_when_there_are_more_than_the_limit",
    ),
    Mutant(
        name="the newest is not caught up",
        module=transitions,
        old="    if is_late and policy.catch_up is CatchUp.SKIP:",
        new="    if is_late:",
        rule="test_one_that_is_caught_up_runs_however_late_it_is",
    ),
    Mutant(
        name="nothing is too late",
        module=transitions,
        old="    is_late = _is_too_late(draft, newest[-1])",
        new="    is_late = False",
        rule="test_occurrence_runs_until_its_grace_is_over_and_is_missed_after",
    ),
    Mutant(
        name="what waits is never too late",
        module=transitions,
        old="    answer = _drop_late(draft)\n",
        new="    answer = None\n",
        rule="test_what_waits_too_long_is_missed_when_a_fire_finds_it_free",
    ),
    Mutant(
        name="what waits behind a retry is too late",
        module=transitions,
        old="        if is_late and draft.is_free(waiting) and",
        new="        if is_late and not draft.runs and",
        rule="test_what_waits_behind_a_retry_is_not_too_late",
    ),
    Mutant(
        name="a process that takes nothing takes what is due",
        module=transitions,
        old="    if not may_start:\n",
        new="    if False:\n",
        rule="test_process_that_takes_nothing_leaves_what_is_due",
    ),
    Mutant(
        name="a paused job is claimed",
        module=transitions,
        old="    if draft.state is JobState.SCHEDULED and draft.next_us is not None and",
        new="    if draft.next_us is not None and",
        rule="test_late_fire_of_a_paused_job_claims_nothing",
        case=PAUSED,
        found_by=(DURABLE_CLAIM,),
    ),
)

_WHAT_IS_IN_PROGRESS = (
    Mutant(
        name="what waits starts beside the run",
        module=draft,
        old="        return not self.runs and waiting is self.waiting[0]",
        new="        return waiting is self.waiting[0]",
        rule="test_queued_occurrence_waits_for_the_end_of_the_run",
        is_found_by_machine=True,
    ),
    Mutant(
        name="the queue holds two",
        module=draft,
        old="                return all(waiting.attempt > 1 for waiting in self.waiting)",
        new="                return len(self.waiting) < 2",
        rule="test_queue_holds_one_occurrence",
        is_found_by_machine=True,
    ),
    Mutant(
        name="runs that may overlap are not bounded",
        module=draft,
        old="                return len(self.runs) + len(self.waiting) < MAX_IN_FLIGHT",
        new="                return True",
        rule="test_overlapping_runs_are_bounded",
    ),
    Mutant(
        name="the end of a run does not start what waited for it",
        module=transitions,
        old="    if may_start:\n        draft.start(run.owner",
        new="    if False:\n        draft.start(run.owner",
        rule="test_finish_starts_what_waited_for_the_run",
    ),
    Mutant(
        name="what starts goes on waiting",
        module=draft,
        old="            self.waiting = tuple(other for other in self.waiting if other is not waiting)\n"
        "            self.runs",
        new="            self.runs",
        rule="test_finish_starts_what_waited_for_the_run",
        is_found_by_machine=True,
    ),
    Mutant(
        name="the lease of a claim counts from a slow clock",
        module=draft,
        old="                lease_until_us=horizon_us + LEASE_US,",
        new="                lease_until_us=self.now_us + LEASE_US,",
        rule="test_lease_that_a_slow_clock_begins_counts_from_the_fire",
    ),
    Mutant(
        name="a slow clock shortens a lease",
        module=draft,
        old="lease_until_us=max(other.lease_until_us, lease_until_us)",
        new="lease_until_us=lease_until_us",
        rule="test_renewal_by_a_slow_clock_does_not_shorten_the_lease",
    ),
    Mutant(
        name="anybody may end a run",
        module=transitions,
        old="""reason="the run is no longer this process's to end")\n""",
        new="""reason="lost") if job is None or not job.runs else finish(
            job, run=job.runs[0], succeeded=succeeded, detail=detail, now_us=now_us, may_start=may_start
        )\n""",
        is_found_by_machine=True,
    ),
    Mutant(
        name="the lease of another process is not believed",
        module=transitions,
        old="        elif owner_is is Liveness.DEAD or draft.now_us >= over_us:",
        new="        else:",
        rule="test_lease_of_an_unknown_owner_is_believed_as_long_as_clocks_may_differ",
        is_found_by_machine=True,
        case=CLOSE,
        found_by=(DURABLE_CLAIM, NO_OVERLAP),
    ),
    Mutant(
        name="a process that has ended is never found out",
        module=transitions,
        old="        if owner_is is Liveness.ALIVE:",
        new="        if owner_is is not Liveness.UNKNOWN:",
        rule="test_dead_owner_is_not_waited_for",
        is_found_by_machine=True,
    ),
    Mutant(
        name="what is known of one run is believed of all",
        module=transitions,
        old="        owner_is = liveness[index] if index < len(liveness) else",
        new="        owner_is = liveness[0] if liveness else",
        rule="test_what_is_known_counts_for_each_run_by_itself",
    ),
    Mutant(
        name="the guard's fire does not renew a living run",
        module=transitions,
        old="                draft.renew(run, horizon_us + LEASE_US)",
        new="                pass",
        rule="test_renewal_by_the_guard_counts_from_the_later_of_fire_and_clock",
    ),
    Mutant(
        name="an interrupted run has no outcome",
        module=transitions,
        old="                draft.end(run, Result.INTERRUPTED,",
        new="                (run, Result.INTERRUPTED,",
        rule="test_interrupted_run_is_recorded_and_the_next_occurrence_runs",
        is_found_by_machine=True,
        case=CLOSE,
        found_by=(ONE_OUTCOME,),
    ),
)

_WHAT_IS_TRIED_AGAIN = (
    Mutant(
        name="a retry loses its occurrence",
        module=transitions,
        old="        draft.wait_for_retry(stored, now_us + retry_delay_us(job, stored))",
        new="        pass",
        rule="test_failed_run_waits_for_its_next_attempt",
        is_found_by_machine=True,
    ),
    Mutant(
        name="a retry starts at once",
        module=transitions,
        old="        draft.wait_for_retry(stored, now_us + retry_delay_us(job, stored))",
        new="        draft.wait_for_retry(stored, now_us)",
        rule="test_failed_run_waits_for_its_next_attempt",
    ),
    Mutant(
        name="a retry is the same attempt",
        module=draft,
        old="            attempt=run.attempt + 1,",
        new="            attempt=run.attempt,",
        rule="test_failed_run_waits_for_its_next_attempt",
        is_found_by_machine=True,
    ),
    Mutant(
        name="a retry waits behind what was not begun",
        module=draft,
        old="        self.waiting = (again, *self.waiting)",
        new="        self.waiting = (*self.waiting, again)",
        rule="test_retry_stands_before_what_was_not_begun",
    ),
    Mutant(
        name="a retry has its time by the local clock alone",
        module=transitions,
        old="    draft.start(owner, max(fire_at_us, now_us), fired)",
        new="    draft.start(owner, now_us, fired)",
        rule="test_retry_that_is_fired_to_a_slow_clock_starts",
    ),
    Mutant(
        name="a job that is out of force is retried",
        module=draft,
        old="        return run.attempt < attempts and self.state is JobState.SCHEDULED",
        new="        return run.attempt < attempts",
        rule="test_failure_of_a_job_that_is_out_of_force_is_not_retried",
    ),
    Mutant(
        name="an interruption is retried without end",
        module=draft,
        old="        return is_retried and self.may_retry(run, max(MAX_ATTEMPTS, self.job.policy.attempts))",
        new="        return is_retried and self.may_retry(run, run.attempt + 1)",
        rule="test_attempts_are_bounded",
    ),
)

_HOW_OFTEN = (
    Mutant(
        name="the repeat limit is not looked at",
        module=draft,
        old="        if times is None or self._begun() < times:",
        new="        if True:",
        rule="test_claim_of_the_last_run_leaves_no_next_occurrence",
        is_found_by_machine=True,
        case=ONE_RUN,
        found_by=(REPEAT_LIMIT,),
    ),
    Mutant(
        name="the end of a run is not counted",
        module=draft,
        old="        self.completed += run.origin is not Origin.MANUAL\n",
        new="",
        rule="test_interrupted_run_counts_as_consumed",
    ),
    Mutant(
        name="the limit counts runs by hand",
        module=draft,
        old="        self.completed += run.origin is not Origin.MANUAL\n",
        new="        self.completed += 1\n",
        rule="test_manual_run_does_not_count_toward_the_limit",
    ),
    Mutant(
        name="the limit forgets what is between two attempts",
        module=draft,
        old="        return self.completed + in_flight + between",
        new="        return self.completed + in_flight",
        rule="test_limit_counts_what_is_between_two_attempts",
    ),
    Mutant(
        name="what waits goes on beyond the limit",
        module=draft,
        old="                self.drop(waiting, Result.SKIPPED, _SPENT)",
        new="                pass",
        rule="test_limit_ends_what_waits_and_was_not_begun",
        is_found_by_machine=True,
    ),
)

_WHAT_PEOPLE_DO = (
    Mutant(
        name="a run by hand takes the slot",
        module=transitions,
        old="    draft.take(asked_us, Origin.MANUAL)",
        new="    draft.take(asked_us, Origin.MANUAL)\n"
        "    if draft.next_us is not None:\n        draft.due(draft.next_us, 1)",
        rule="test_manual_run_starts_at_once_and_takes_no_slot",
        is_found_by_machine=True,
    ),
    Mutant(
        name="a repeated request runs again",
        module=transitions,
        old="    if job.last_manual_us is not None and asked_us <= job.last_manual_us:",
        new="    if False:",
        rule="test_repeated_request_for_a_manual_run_is_a_duplicate",
        is_found_by_machine=True,
    ),
    Mutant(
        name="only the last request is remembered",
        module=transitions,
        old="asked_us <= job.last_manual_us:",
        new="asked_us == job.last_manual_us:",
        rule="test_request_for_a_manual_run_that_comes_after_a_later_one_is_a_duplicate",
    ),
    Mutant(
        name="a run by hand waits where nobody is woken",
        module=transitions,
        old=" or (must_wait and job.state is not JobState.SCHEDULED):",
        new=":",
        rule="test_manual_run_of_a_paused_job_does_not_wait",
    ),
    Mutant(
        name="a run by hand waits for the clock of whoever asked",
        module=draft,
        old="        not_before_us = min(occurrence_us, self.now_us) if is_asked_for else occurrence_us",
        new="        not_before_us = occurrence_us",
        is_found_by_machine=True,
    ),
    Mutant(
        name="a pause leaves what waits",
        module=job_changes,
        old='        draft.drop_waiting("the job was paused while it waited")\n',
        new="",
        rule="test_pause_ends_what_waits",
    ),
    Mutant(
        name="a pause forgets what is due",
        module=job_changes,
        old='        draft.skip_due(job, "the job was paused before anybody took it")\n',
        new="",
        rule="test_pause_skips_what_is_due_and_was_not_taken",
    ),
    Mutant(
        name="a resumed job takes up what has passed",
        module=job_changes,
        old="        draft.next_us = following(job, now_us)\n",
        new="        pass\n",
        rule="test_resume_after_the_slot_goes_on_from_now",
    ),
    Mutant(
        name="a one-shot that passed in a pause vanishes",
        module=job_changes,
        old="    if job.next_us is not None and draft.next_us is None:",
        new="    if False:",
        rule="test_one_shot_that_passed_while_paused_is_missed",
    ),
    Mutant(
        name="an edit forgets what is due",
        module=job_changes,
        old='            draft.skip_due(job, "the schedule was changed before anybody took it")',
        new="            pass",
        rule="test_edit_of_the_schedule_skips_what_was_due_and_not_taken",
    ),
    Mutant(
        name="an edit by a slow clock brings an occurrence again",
        module=job_changes,
        old="            draft.next_us = following(wanted, _taken_until(job, now_us))",
        new="            draft.next_us = following(wanted, now_us)",
        rule="test_edit_by_a_slow_clock_does_not_bring_an_occurrence_again",
    ),
    Mutant(
        name="a job that an edit brings back stays completed",
        module=job_changes,
        old="        if job.state is JobState.COMPLETED:\n            draft.state",
        new="        if False:\n            draft.state",
        rule="test_edit_of_a_completed_one_shot_schedules_it_again",
    ),
    Mutant(
        name="every life of a job begins at the same revision",
        module=job_changes,
        old="revision=max(wanted.revision, now_us)",
        new="revision=wanted.revision",
        rule="test_new_life_begins_with_the_time_of_its_creation",
    ),
)

_THREE_STEPS = (
    Mutant(
        name="a fire is answered before its job is armed",
        module=flows,
        old="    if not _must_ask_nas(flow, wake_us):",
        new="    if isinstance(flow.intent, Fire) or not _must_ask_nas(flow, wake_us):",
        rule="test_fire_moves_the_store_then_arms_then_answers_then_runs",
        case=CLOSE,
        found_by=(NO_LOST_REARM,),
    ),
    Mutant(
        name="a duplicate is answered and arms nothing",
        module=flows,
        old="if is_changed else _arm(decided, move, now_us)",
        new="if is_changed else _close(decided, move, now_us, settled=True, echoed=True)",
        rule="test_redelivery_of_a_half_done_fire_arms_and_runs_nothing",
        case=CLOSE,
        found_by=(NO_LOST_REARM,),
    ),
    Mutant(
        name="the run starts before its claim is stored",
        module=flows,
        old="    return (flow if flow.phase is Phase.SWAPPING else",
        new=(
            "    if move.runs:\n"
            "        flow = evolve(flow, phase=Phase.SWAPPING, move=evolve(move, runs=()))\n"
            "        job_id = flow.intent.job_id\n"
            "        starts = (StartRun(job_id=job_id, run=run, confirm=True) for run in move.runs)\n"
            "        return flow, (*starts, effect)\n"
            "    return (flow if flow.phase is Phase.SWAPPING else"
        ),
        rule="test_fire_moves_the_store_then_arms_then_answers_then_runs",
        case=CLOSE,
        found_by=(DURABLE_CLAIM,),
    ),
    Mutant(
        name="a pause cancels nothing",
        module=flows,
        old="        effect = CancelArm(job_id=job_id, revision=job.revision)",
        new="        return _close(flow, move, now_us, settled=True, echoed=True)",
        rule="test_pause_disarms_the_job",
        case=PAUSED,
        found_by=(NO_ORPHAN,),
    ),
    Mutant(
        name="a failed arm is taken for an accepted one",
        module=flows,
        old="ArmFailed: _on_arm_failed},",
        new="ArmFailed: lambda flow, _event, now_us: _on_accepted(flow, ArmAccepted(echoed=True), now_us)},",
        rule="test_run_starts_though_the_arm_failed_and_the_fire_is_not_settled",
        case=CLOSE,
        found_by=(NO_LOST_REARM,),
    ),
    Mutant(
        name="an outdated arm is taken for an accepted one",
        module=flows,
        old="ArmOutdated: _on_outdated,",
        new="ArmOutdated: lambda flow, _event, now_us: _on_accepted(flow, ArmAccepted(echoed=True), now_us),",
        rule="test_outdated_arm_follows_a_store_that_has_moved_on",
    ),
    Mutant(
        name="arms go without their place in the order",
        module=flows,
        old="        effect = ProvisionArm(job_id=job_id, fire_at_us=wake_us, revision=job.revision)",
        new="        effect = ProvisionArm(job_id=job_id, fire_at_us=wake_us, revision=-1)",
        rule="test_fire_moves_the_store_then_arms_then_answers_then_runs",
    ),
    Mutant(
        name="a conflict is taken for a success",
        module=flows,
        old="SwapConflicted: _on_conflict,",
        new="SwapConflicted: _on_swapped,",
        rule="test_conflict_decides_again_with_what_another_process_left",
    ),
    Mutant(
        name="the end of a run never asks NAS",
        module=flows,
        old="            return flow.before is None or wake_at(flow.before) != wake_us",
        new="            return False",
        rule="test_end_of_a_run_asks_nas_only_where_it_may_disagree",
    ),
    Mutant(
        name="a run starts though its lease is over",
        module=flows,
        old="if flow.belief is Belief.DOUBTED or now_us < run.lease_until_us)",
        new=")",
        rule="test_run_whose_lease_ended_before_its_start_is_not_started",
        case=DISTANT,
        found_by=(DURABLE_CLAIM, NO_OVERLAP),
    ),
    Mutant(
        name="a run starts though its job was removed meanwhile",
        module=flows,
        old="    newest = evolve(move, job=job, runs=held)",
        new="    newest = evolve(move, job=job)",
        rule="test_run_of_a_job_that_was_removed_meanwhile_is_not_started",
    ),
    Mutant(
        name="a removal cancels out of order",
        module=flows,
        old="    last = flow.asked_us if flow.before is None else flow.before.revision + 1",
        new="    last = flow.asked_us if flow.before is None else 0",
        rule="test_removal_takes_the_place_after_the_last_revision",
    ),
    Mutant(
        name="the cancel of an orphan has no place in the order",
        module=flows,
        old="    last = flow.asked_us if flow.before is None else flow.before.revision + 1",
        new="    last = 0 if flow.before is None else flow.before.revision + 1",
        rule="test_cancel_of_an_arm_without_a_job_takes_the_instant_at_which_it_looked",
    ),
    Mutant(
        name="nothing is owed after the end of a run",
        module=follow_ups,
        old="    if answer.settled:\n        return None\n    if isinstance(intent, Fire)",
        new="    return None\n    if isinstance(intent, Fire)",
        rule="test_what_nobody_else_repeats_is_owed",
    ),
    Mutant(
        name="what a lost end has claimed is nobody's",
        module=follow_ups,
        old="    if isinstance(intent, Finish) and intent.confirm and answer.verdict is Verdict.LOST:",
        new="    if False:",
        rule="test_end_that_is_lost_when_it_is_repeated_is_looked_after",
    ),
    Mutant(
        name="a start does not look for ended processes",
        module=reconciliation,
        old=" or (bool(job.runs) and _is_abandoned(job, liveness, now_us))",
        new="",
        rule="test_start_looks_at_every_run",
    ),
)

_WHAT_A_PROCESS_DOES = (
    Mutant(
        name="a draining process renews no lease",
        module=process,
        old="        self.is_draining, self.looks = True, None\n",
        new=(
            "        self.is_draining, self.looks = True, None\n"
            "        for key, running in tuple(self.runs.items()):\n"
            "            self.own('runs')[key] = evolve(running, renew_us=None)\n"
        ),
        case=DRAINED,
        found_by=(NO_OVERLAP,),
        budget=(0, 0, 0),
    ),
    Mutant(
        name="the host is not told of a run in flight",
        module=pending,
        old="    for running in process.runs.values():",
        new="    for running in ():",
        case=CLOSE,
        found_by=(SAFE_SLEEP,),
    ),
    Mutant(
        name="a refusal of the login of before begins the ticker",
        module=tasks,
        old=" or is_of_before:\n            # Nothing here",
        new=":\n            # Nothing here",
        case=REFUSED,
        found_by=(CONVERGES, NO_LOST_REARM),
        budget=(0, 0, 0),
    ),
    Mutant(
        name="what comes back while the process drains is dropped",
        module=tasks,
        old="        if task is None:\n            return\n        self.came_for",
        new="        if task is None or self.is_draining:\n            return\n        self.came_for",
        case=DRAINED,
        found_by=(CONVERGES, NO_LOST_REARM),
        budget=(0, 0, 0),
    ),
    Mutant(
        name="a start does not wait for what it leaves to others",
        module=batches,
        old="if other.intent is not None and other.intent.job_id in task.converging",
        new="if False",
        rule="test_start_that_leaves_a_job_to_another_flow_waits_for_its_end",
    ),
    Mutant(
        name="a run that has ended is forgotten before its end is stored",
        module=runs,
        old='        self.own("runs")[key] = evolve(running, end=finish)\n',
        new='        self.own("runs").pop(key)\n',
        case=CLOSE,
        found_by=(SAFE_SLEEP,),
        budget=(0, 0, 1),
    ),
)

# Others come back for nearly all of it, so that no state shows it; a life of the process does.
FORGETS_WHAT_IS_OWED = Mutant(
    name="an answer is given without noting what is owed",
    module=tasks,
    old="        if owed is not None:\n            patience_until_us",
    new="        if owed is not None and isinstance(purpose, ForBatch):\n            patience_until_us",
)

# Not here, since hardly a world of the tests can tell them from the protocol: that a start looks at
# what is armed and at what is overdue (whoever was not answered asks again, and NAS fires a past
# instant at once, too), that an earlier life's revision is passed in one step (asking again passes it
# one by one). `test_machine` states those.
MUTANTS = (
    *_WHEN_TO_BE_WOKEN,
    *_WHAT_IS_TAKEN,
    *_WHAT_IS_IN_PROGRESS,
    *_WHAT_IS_TRIED_AGAIN,
    *_HOW_OFTEN,
    *_WHAT_PEOPLE_DO,
    *_THREE_STEPS,
    *_WHAT_A_PROCESS_DOES,
)
