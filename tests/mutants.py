"""Deliberately broken variants of the protocol, made to be caught: the list, and how one is built.

A mutant changes one place of the source. The changed module is built in memory: its functions and
tables anew, in a copy of the real module's names, so that the values (`Job`, `Flow`, ...) are the
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
from chronos.protocol.machine import Intent
from simulator import properties
from simulator.agents import Agent

# In the order in which they use each other.
_MODULES: tuple[ModuleType, ...] = (job, transitions, machine)


@attrs.frozen(kw_only=True)
class Mutant:
    """A protocol with one mistake.

    Attributes:
        name: what it does wrong, in words.
        module: where.
        old: the text to replace; it must occur there exactly once.
        new: the text to put in its place.
        case: the bounded world in which the exhaustive search finds it; None for none of them.
        found_by: the properties of which any may be the one that it is found by.
    """

    name: str
    module: ModuleType
    old: str
    new: str
    case: str | None = None
    found_by: frozenset[str] = frozenset()


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
    return _machine_of(mutant)["follow_up"]  # type: ignore[no-any-return]


def _machine_of(mutant: Mutant) -> dict[str, Any]:
    """Return the names of `machine`, built upon the modules that it uses."""
    rebuilt: dict[str, Any] = {}
    names: dict[str, Any] = {}
    for module in _MODULES:
        source = inspect.getsource(module)
        if module is mutant.module:
            if source.count(mutant.old) != 1:
                raise StaleMutantError(
                    f"{mutant.name}: {mutant.old!r} occurs {source.count(mutant.old)} times"
                )
            source = source.replace(mutant.old, mutant.new)
        names = dict(vars(module))
        names.update((name, value) for name, value in rebuilt.items() if name in names)
        exec(compile(_without_public_classes(source), f"<{mutant.name}>", "exec"), names)
        rebuilt |= {name: value for name, value in names.items() if inspect.isfunction(value)}
        rebuilt[module.__name__.rpartition(".")[2]] = SimpleNamespace(**names)
    return names


def _without_public_classes(source: str) -> ast.Module:
    """Return the functions and tables of a module; its imports and public classes stay as they are."""
    tree = ast.parse(source)
    tree.body = [
        node
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.Assign, ast.AnnAssign))
        or (isinstance(node, ast.ClassDef) and node.name.startswith("_"))
    ]
    return tree


_CLOSE, _CLOSE_RETRIED = (
    "close occurrences, interruptions are recorded",
    "close occurrences, interruptions are retried",
)
_DISTANT = "distant occurrences, interruptions are recorded"
_DISTANT_RETRIED = "distant occurrences, interruptions are retried"
_TWICE = "the schedule ends after two runs"
PAUSED = "one occurrence, and somebody pauses the job"

_LOST, _ORPHAN, _DEDUP = properties.NO_LOST_REARM.id, properties.NO_ORPHAN.id, properties.IDEMPOTENT_DEDUP.id
_CLAIM, _OUTCOME, _OVERLAP = properties.DURABLE_CLAIM.id, properties.ONE_OUTCOME.id, properties.NO_OVERLAP.id
_LIMIT, _CONVERGES, _EVERY = (
    properties.REPEAT_LIMIT.id,
    properties.CONVERGES.id,
    properties.EVERY_OCCURRENCE.id,
)
_EARLY, _ONE_ARM = properties.NOT_EARLY.id, properties.ONE_ARM.id

_ANYTHING = frozenset(prop.id for prop in properties.PROPERTIES)

MUTANTS = (
    Mutant(
        name="the guard of a retried run is forgotten",
        module=job,
        old="    return guard_us if job.next_us is None else min(guard_us, job.next_us)",
        new="    return job.next_us",
        case=_TWICE,
    ),
    Mutant(
        name="a paused job is woken all the same",
        module=job,
        old="    if job.state is not JobState.SCHEDULED:\n        return None",
        new="    if job.state is JobState.COMPLETED:\n        return None",
        case=PAUSED,
    ),
    Mutant(
        name="a claim leaves the next occurrence where it was",
        module=transitions,
        old="    return attrs.evolve(job, next_us=next_us, run=run, state=state, revision=revision)",
        new="    return attrs.evolve(job, run=run, revision=revision)",
        case=_CLOSE,
    ),
    Mutant(
        name="the next occurrence is counted from the clock",
        module=transitions,
        old="        due = _due(current, max(fire_at_us, now_us))",
        new="        due = attrs.evolve(_due(current, max(fire_at_us, now_us)), following_us=now_us + 600_000_000)",
        case=_CLOSE,
    ),
    Mutant(
        name="anybody may end a run",
        module=transitions,
        old='    if job is None or not run.is_same_as(job.run):\n        return Move(job=job, verdict=Verdict.LOST, reason="the run is no longer this process\'s to end")',
        new='    if job is None or job.run is None:\n        return Move(job=job, verdict=Verdict.LOST, reason="")',
        case=_CLOSE_RETRIED,
    ),
    Mutant(
        name="a run in flight is ignored by the next fire",
        module=transitions,
        old="        if current.run is not None:\n            current = _pass_over(",
        new="        if False:\n            current = _pass_over(",
        case=_CLOSE,
    ),
    Mutant(
        name="older occurrences vanish without an outcome",
        module=transitions,
        old="            outcomes += due.older().outcomes(job.id, Result.MISSED, _COALESCED, now_us)\n",
        new="",
        case=_CLOSE,
    ),
    Mutant(
        name="the repeat limit is not looked at",
        module=transitions,
        old="    if taken is not None and job.times is not None and job.completed + 1 >= job.times:\n        next_us = None\n",
        new="",
        case=_TWICE,
    ),
    Mutant(
        name="the fire of a guard leaves the lease of a living run",
        module=transitions,
        old="        return attrs.evolve(job, run=renewed, revision=revision), (), None",
        new="        return job, (), None",
        case=_DISTANT_RETRIED,
    ),
    Mutant(
        name="the lease of another process is not believed",
        module=transitions,
        old="    if liveness is Liveness.UNKNOWN and now_us < run.lease_until_us + CLOCK_ALLOWANCE_US:\n        return job, (), None\n",
        new="",
        case=_CLOSE,
    ),
    Mutant(
        name="a process that has ended is never found out",
        module=transitions,
        old="    if liveness is Liveness.ALIVE:\n",
        new="    if liveness is not Liveness.UNKNOWN:\n",
        case=_CLOSE,
    ),
    Mutant(
        name="an interrupted run has no outcome",
        module=transitions,
        old="    return settled, (outcome,), None",
        new="    return settled, (), None",
        case=_CLOSE,
    ),
    Mutant(
        name="a paused job is claimed",
        module=transitions,
        old="    if current.state is JobState.SCHEDULED and current.next_us is not None and current.next_us <= fire_at_us:",
        new="    if current.next_us is not None and current.next_us <= fire_at_us:",
        case=PAUSED,
    ),
    Mutant(
        name="a fire is answered before its job is armed",
        module=machine,
        old="    if not _must_ask_nas(flow, wake_us):",
        new="    if isinstance(flow.intent, Fire) or not _must_ask_nas(flow, wake_us):",
        case=_CLOSE,
    ),
    Mutant(
        name="a duplicate is answered and arms nothing",
        module=machine,
        old="if is_changed else _arm(decided, move, now_us)",
        new="if is_changed else _close(decided, move, now_us, settled=True, echoed=True)",
        case=_CLOSE,
    ),
    Mutant(
        name="the run starts before its claim is stored",
        module=machine,
        old="    return (flow if flow.phase is Phase.SWAPPING else attrs.evolve(flow, phase=Phase.SWAPPING)), (effect,)",
        new=(
            "    start = StartRun(job_id=flow.intent.job_id, run=move.run, confirm=True) if move.run else None\n"
            "    flow = attrs.evolve(flow, phase=Phase.SWAPPING, move=attrs.evolve(move, run=None))\n"
            "    return flow, (effect,) if start is None else (start, effect)"
        ),
        case=_CLOSE,
    ),
    Mutant(
        name="a pause cancels nothing",
        module=machine,
        old="    elif job is not None:\n        effect = CancelArm(job_id=job_id, revision=job.revision)\n",
        new="    elif job is not None:\n        return _close(flow, move, now_us, settled=True, echoed=True)\n",
        case=PAUSED,
    ),
    Mutant(
        name="a failed arm is taken for an accepted one",
        module=machine,
        old='def _on_arm_failed(flow: Flow, _event: Event, now_us: Instant) -> Step:\n    """Start the run all the same, and let whoever asked come back to finish the arm."""\n    assert flow.move is not None\n    return _close(flow, flow.move, now_us, settled=False',
        new="def _on_arm_failed(flow: Flow, _event: Event, now_us: Instant) -> Step:\n    assert flow.move is not None\n    return _close(flow, flow.move, now_us, settled=True",
        case=_CLOSE,
    ),
    Mutant(
        name="the fire that is the arm itself is accepted",
        module=machine,
        old="    if _is_the_arm_itself(flow.intent, wake_us):\n        return _close(flow, move, now_us, settled=False, echoed=False)\n",
        new="",
        case=_DISTANT_RETRIED,
    ),
    Mutant(
        name="the end of a run never asks NAS",
        module=machine,
        old="            return flow.before is None or wake_at(flow.before) != wake_us",
        new="            return False",
        case=_CLOSE_RETRIED,
    ),
    Mutant(
        name="a run starts though its lease is over",
        module=machine,
        old="    is_lost = run is not None and now_us >= run.lease_until_us",
        new="    is_lost = False",
        case=_DISTANT,
    ),
    Mutant(
        name="an outdated arm is taken for an accepted one",
        module=machine,
        old="    again = attrs.evolve(\n        flow, phase=Phase.LOADING",
        new="    return _on_accepted(flow, ArmAccepted(True), now_us)\n    again = attrs.evolve(\n        flow, phase=Phase.LOADING",
        case=_CLOSE,
    ),
    Mutant(
        name="arms go without their place in the order",
        module=machine,
        old="        effect = ProvisionArm(job_id=job_id, fire_at_us=wake_us, revision=job.revision)",
        new="        effect = ProvisionArm(job_id=job_id, fire_at_us=wake_us, revision=-1)",
        case=_CLOSE,
    ),
    Mutant(
        name="a conflict is taken for a success",
        module=machine,
        old="SwapConflicted: _on_conflict, StoreFailed: _on_store_failed},\n    Phase.ARMING",
        new="SwapConflicted: _on_swapped, StoreFailed: _on_store_failed},\n    Phase.ARMING",
        case=_CLOSE,
    ),
    Mutant(
        name="nothing is owed after the end of a run",
        module=machine,
        old="    if answer.settled:\n        return None\n    match intent:",
        new="    if True:\n        return None\n    match intent:",
    ),
    Mutant(
        name="a start does not look at what is armed",
        module=machine,
        old="            disagrees = arms.get(job.id) != wake_us",
        new="            disagrees = False",
        case=_CLOSE,
    ),
    Mutant(
        name="a start does not look for ended processes",
        module=machine,
        old=" or _is_abandoned(job, liveness, now_us)",
        new="",
        case=_CLOSE,
    ),
    Mutant(
        name="a start leaves arms without a job",
        module=machine,
        old="    wanting += [job_id for job_id in arms or () if job_id not in known]\n",
        new="",
    ),
    Mutant(
        name="a start does not look for what is overdue",
        module=machine,
        old="disagrees or is_overdue or",
        new="disagrees or",
        case=_CLOSE,
    ),
    Mutant(
        name="a removal cancels out of order",
        module=machine,
        old="    return max(flow.before.revision, flow.nas_revision or 0) + 1",
        new="    return None",
    ),
    Mutant(
        name="a new life of a job keeps its revision",
        module=machine,
        old="revision=flow.nas_revision + 1), outcomes=())",
        new="revision=job.revision + 1), outcomes=())",
    ),
    Mutant(
        name="the end of a run is not counted",
        module=transitions,
        old="        completed=job.completed + 1,\n",
        new="",
        case=_TWICE,
    ),
    Mutant(
        name="a resumed job takes up what has passed",
        module=transitions,
        old="        passed_us, next_us = next_us, next_after(job.schedule, now_us)",
        new="        passed_us, next_us = next_us, next_us",
    ),
)
