"""Deliberately broken variants of the protocol, made to be caught: the list, and how one is built.

A mutant changes one place of the source. The changed module is built in memory: its functions and
tables anew, in a copy of the real module's names, so that the values (`Job`, `Flow`, ...) are of the
same classes for the mutant and for whoever judges it.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import attrs

from chronos.protocol import job, machine, transitions
from chronos.protocol.job import Job, OnInterrupt, Policy
from chronos.protocol.machine import Intent
from chronos.protocol.schedule import SECOND_US, Interval
from simulator.agents import Agent
from simulator.explore import JOB_ID, Case
from simulator.properties import (
    DURABLE_CLAIM,
    IDEMPOTENT_DEDUP,
    NO_LOST_REARM,
    NO_ORPHAN,
    NO_OVERLAP,
    ONE_OUTCOME,
    REPEAT_LIMIT,
    Property,
)

# In the order in which they use each other.
_MODULES: tuple[ModuleType, ...] = (job, transitions, machine)


def _case(name: str, instants_s: tuple[int, ...], *, can_pause: bool = False, **fields: Any) -> Case:
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
        can_pause=can_pause,
    )


CLOSE = _case("close occurrences", (0, 200, 400))
RETRIED = _case("close occurrences, retried", (0, 200, 400), policy=Policy(on_interrupt=OnInterrupt.RETRY))
DISTANT = _case("distant occurrences", (0, 600, 1200))
ONE_RUN = _case("the schedule ends after one run", (0, 200, 400), times=1)
PAUSED = _case("somebody pauses the job", (0, 200), can_pause=True)


@attrs.frozen(kw_only=True)
class Mutant:
    """A protocol with one mistake.

    Attributes:
        name: what it does wrong, in words.
        module: where.
        old: the text to replace; it must occur there exactly once.
        new: the text to put in its place.
        case: the small world in which the exhaustive search finds it; None when it has to be found
            by the machine of `test_scheduler_against_model` or by the timed simulation alone.
        found_by: the properties of which the search names one.
        states: how many states the search looks at, at most.
        is_found_by_model: whether that machine finds it.
    """

    name: str
    module: ModuleType
    old: str
    new: str
    case: Case | None = None
    found_by: tuple[Property, ...] = ()
    states: int = 8_000
    is_found_by_model: bool = True


class StaleMutantError(Exception):
    """The text that a mutant replaces does not occur exactly once: the mutant must be mended."""


def agent_of(mutant: Mutant) -> Agent:
    """Return the agent that keeps the protocol with the mistake of *mutant*.

    Raises:
        StaleMutantError: the text to replace does not occur exactly once.
    """
    broken = _machine_of(mutant)
    return Agent(
        name=mutant.name,
        begin=broken["begin"],
        step=broken["step"],
        begin_reconciliation=lambda _memory: broken["begin_reconciliation"](),
        step_reconciliation=broken["step_reconciliation"],
    )


def follow_up_of(mutant: Mutant) -> Callable[..., Intent | None]:
    """Return `machine.follow_up` with the mistake of *mutant*."""
    found: Callable[..., Intent | None] = _machine_of(mutant)["follow_up"]
    return found


def _machine_of(mutant: Mutant) -> dict[str, Any]:
    """Return the names of `machine`, built upon the other modules as they are with the mistake."""
    rebuilt: dict[str, Any] = {}
    names: dict[str, Any] = {}
    for module in _MODULES:
        source = inspect.getsource(module)
        if module is mutant.module:
            if (found := source.count(mutant.old)) != 1:
                raise StaleMutantError(f"{mutant.name}: {mutant.old!r} occurs {found} times, expected once")
            source = source.replace(mutant.old, mutant.new)
        names = dict(vars(module))
        names.update((name, value) for name, value in rebuilt.items() if name in names)
        exec(compile(_functions_and_tables(source), f"<{mutant.name}>", "exec"), names)
        rebuilt |= {name: value for name, value in names.items() if inspect.isfunction(value)}
        rebuilt[module.__name__.rpartition(".")[2]] = SimpleNamespace(**names)
    return names


def _functions_and_tables(source: str) -> ast.Module:
    """Return a module without its imports and public classes, which stay as they are."""
    tree = ast.parse(source)
    tree.body = [
        node
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.Assign, ast.AnnAssign))
        or (isinstance(node, ast.ClassDef) and node.name.startswith("_"))
    ]
    return tree


# The one that only a wrong clock brings to light: the timed simulation finds it.
ACCEPTS_THE_ARM_ITSELF = Mutant(
    name="the fire that is the arm itself is accepted",
    module=machine,
    old="    if _is_the_arm_itself(flow.intent, wake_us):",
    new="    if False:",
    is_found_by_model=False,
)

# Not here, since hardly a world of the tests can tell them from the protocol: that a start looks at
# what is armed and at what is overdue (whoever was not answered asks again, and NAS fires a past
# instant at once, too), that the guard's fire renews a living run (the arm itself is not accepted, so
# that NAS comes back for it), that an earlier life's revision is passed in one step (asking again
# passes it one by one). `test_machine` and `test_transitions` state those.
MUTANTS = (
    # --- when to be woken ---
    Mutant(
        name="the guard of a retried run is forgotten",
        module=job,
        old="    return guard_us if job.next_us is None else min(guard_us, job.next_us)",
        new="    return job.next_us",
        case=RETRIED,
        found_by=(NO_LOST_REARM,),
    ),
    Mutant(
        name="a paused job is woken all the same",
        module=job,
        old="    if job.state is not JobState.SCHEDULED:",
        new="    if job.state is JobState.COMPLETED:",
        case=PAUSED,
        found_by=(NO_ORPHAN,),
    ),
    # --- how a job changes ---
    Mutant(
        name="a claim leaves the next occurrence where it was",
        module=transitions,
        old="    return attrs.evolve(job, next_us=next_us, run=run, state=state, revision=revision)",
        new="    return attrs.evolve(job, run=run, revision=revision)",
        case=CLOSE,
        found_by=(ONE_OUTCOME, IDEMPOTENT_DEDUP),
    ),
    Mutant(
        name="the next occurrence is counted from the clock",
        module=transitions,
        old="    return _Stretch(first_us, before_us, newest_us, count, following_us)",
        new="    return _Stretch(first_us, before_us, newest_us, count, until_us + 1)",
        case=CLOSE,
        found_by=(ONE_OUTCOME,),
    ),
    Mutant(
        name="older occurrences vanish without an outcome",
        module=transitions,
        old="            outcomes += due.older().outcomes(job.id, Result.MISSED, _COALESCED, now_us)\n",
        new="",
        case=CLOSE,
        found_by=(ONE_OUTCOME,),
    ),
    Mutant(
        name="a run in flight is ignored by the next fire",
        module=transitions,
        old="        if current.run is not None:\n            current = _pass_over(",
        new="        if False:\n            current = _pass_over(",
        case=CLOSE,
        found_by=(ONE_OUTCOME, NO_OVERLAP),
    ),
    Mutant(
        name="the repeat limit is not looked at",
        module=transitions,
        old="    if taken is not None and job.times is not None and job.completed + 1 >= job.times:",
        new="    if False:",
        case=ONE_RUN,
        found_by=(REPEAT_LIMIT,),
    ),
    Mutant(
        name="the end of a run is not counted",
        module=transitions,
        old="        completed=job.completed + 1,\n",
        new="",
    ),
    Mutant(
        name="anybody may end a run",
        module=transitions,
        old="    if job is None or not run.is_same_as(job.run):",
        new="    if job is None or job.run is None:",
    ),
    Mutant(
        name="the lease of another process is not believed",
        module=transitions,
        old="    if liveness is Liveness.UNKNOWN and now_us < run.lease_until_us + CLOCK_ALLOWANCE_US:",
        new="    if False:",
        case=CLOSE,
        found_by=(DURABLE_CLAIM, NO_OVERLAP),
    ),
    Mutant(
        name="a process that has ended is never found out",
        module=transitions,
        old="    if liveness is Liveness.ALIVE:",
        new="    if liveness is not Liveness.UNKNOWN:",
    ),
    Mutant(
        name="an interrupted run has no outcome",
        module=transitions,
        old="    return settled, (outcome,), None",
        new="    return settled, (), None",
        case=CLOSE,
        found_by=(ONE_OUTCOME,),
    ),
    Mutant(
        name="a paused job is claimed",
        module=transitions,
        old="    if current.state is JobState.SCHEDULED and current.next_us is not None and",
        new="    if current.next_us is not None and",
        case=PAUSED,
        found_by=(DURABLE_CLAIM,),
    ),
    Mutant(
        name="a resumed job takes up what has passed",
        module=transitions,
        old="        passed_us, next_us = next_us, next_after(job.schedule, now_us)",
        new="        passed_us, next_us = next_us, next_us",
    ),
    # --- the three steps of a flow ---
    Mutant(
        name="a fire is answered before its job is armed",
        module=machine,
        old="    if not _must_ask_nas(flow, wake_us):",
        new="    if isinstance(flow.intent, Fire) or not _must_ask_nas(flow, wake_us):",
        case=CLOSE,
        found_by=(NO_LOST_REARM,),
    ),
    Mutant(
        name="a duplicate is answered and arms nothing",
        module=machine,
        old="if is_changed else _arm(decided, move, now_us)",
        new="if is_changed else _close(decided, move, now_us, settled=True, echoed=True)",
        case=CLOSE,
        found_by=(NO_LOST_REARM,),
    ),
    Mutant(
        name="the run starts before its claim is stored",
        module=machine,
        old="    return (flow if flow.phase is Phase.SWAPPING else",
        new=(
            "    if move.run is not None:\n"
            "        flow = attrs.evolve(flow, phase=Phase.SWAPPING, move=attrs.evolve(move, run=None))\n"
            "        return flow, (StartRun(job_id=flow.intent.job_id, run=move.run, confirm=True), effect)\n"
            "    return (flow if flow.phase is Phase.SWAPPING else"
        ),
        case=CLOSE,
        found_by=(DURABLE_CLAIM,),
    ),
    Mutant(
        name="a pause cancels nothing",
        module=machine,
        old="        effect = CancelArm(job_id=job_id, revision=job.revision)",
        new="        return _close(flow, move, now_us, settled=True, echoed=True)",
        case=PAUSED,
        found_by=(NO_ORPHAN,),
    ),
    Mutant(
        name="a failed arm is taken for an accepted one",
        module=machine,
        old="ArmFailed: _on_arm_failed},",
        new="ArmFailed: lambda flow, _event, now_us: _on_accepted(flow, ArmAccepted(echoed=True), now_us)},",
        case=CLOSE,
        found_by=(NO_LOST_REARM,),
    ),
    Mutant(
        name="an outdated arm is taken for an accepted one",
        module=machine,
        old="ArmOutdated: _on_outdated,",
        new="ArmOutdated: lambda flow, _event, now_us: _on_accepted(flow, ArmAccepted(echoed=True), now_us),",
    ),
    Mutant(
        name="arms go without their place in the order",
        module=machine,
        old="        effect = ProvisionArm(job_id=job_id, fire_at_us=wake_us, revision=job.revision)",
        new="        effect = ProvisionArm(job_id=job_id, fire_at_us=wake_us, revision=-1)",
    ),
    Mutant(
        name="a conflict is taken for a success",
        module=machine,
        old="SwapConflicted: _on_conflict,",
        new="SwapConflicted: _on_swapped,",
    ),
    Mutant(
        name="the end of a run never asks NAS",
        module=machine,
        old="            return flow.before is None or wake_at(flow.before) != wake_us",
        new="            return False",
    ),
    Mutant(
        name="a run starts though its lease is over",
        module=machine,
        old="    is_lost = run is not None and now_us >= run.lease_until_us",
        new="    is_lost = False",
        case=DISTANT,
        found_by=(DURABLE_CLAIM, NO_OVERLAP),
    ),
    Mutant(
        name="a removal cancels out of order",
        module=machine,
        old="    return max(flow.before.revision, flow.nas_revision or 0) + 1",
        new="    return None",
    ),
    Mutant(
        name="nothing is owed after the end of a run",
        module=machine,
        old="    if answer.settled:\n        return None\n    match intent:",
        new="    return None\n    match intent:",
    ),
    # --- a start ---
    Mutant(
        name="a start does not look for ended processes",
        module=machine,
        old=" or _is_abandoned(job, liveness, now_us)",
        new="",
    ),
)
