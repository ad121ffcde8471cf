"""The protocol's tables, as the code has them: its transitions, walked through with sample jobs.

`TRANSITIONS` names the phases, the events and the handlers; where a handler leads depends on the job.
So every handler is called, with every intent on jobs in every state, and what came of it is noted.
The page shows what happened. A cell of the table that the samples do not reach fails the build.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, get_args

from state_diagram import sequence, states
from writing import attributes_of, code, first_line, prose, table

from chronos.jobs.instants import HOUR_US
from chronos.jobs.job import (
    CLOCK_ALLOWANCE_US,
    LEASE_US,
    Job,
    JobState,
    Liveness,
    Origin,
    Run,
    Verdict,
    Waiting,
)
from chronos.jobs.policy import OnInterrupt, Overlap, Policy
from chronos.jobs.schedule import Interval
from chronos.protocol import flow as flows
from chronos.protocol.draft import Fired
from chronos.protocol.flow import Phase
from chronos.protocol.flow_effects import (
    Answer,
    ArmAccepted,
    ArmFailed,
    ArmOutdated,
    ArmsListed,
    Effect,
    Event,
    HistoryLoaded,
    JobLoaded,
    JobsLoaded,
    JobSwapped,
    JobUnreadable,
    LoadJob,
    ProvisionArm,
    StartRun,
    StoreFailed,
    SwapConflicted,
    SwapJob,
)
from chronos.protocol.intents import Create, Edit, Finish, Fire, Intent, Pause, Remove, Renew, Resume, RunNow
from chronos.protocol.job_changes import Changes
from chronos.protocol.reconciliation import begin_reconciliation, step_reconciliation
from chronos.values import evolve

_OWNER = "this process"
_AT_US = 500_000 * HOUR_US
_LATE_US = _AT_US + LEASE_US + CLOCK_ALLOWANCE_US
# An arm that was refused as old is looked into again, so often at most: the walk goes that deep.
_DEPTH = 5

Found = Mapping[tuple[str, type], Mapping[str, set[tuple[str, ...]]]]


# --- walking through the table ----------------------------------------------------------------


def _run(owner: str) -> Run:
    return Run(
        occurrence_us=_AT_US, attempt=1, owner=owner, claimed_us=_AT_US, lease_until_us=_AT_US + LEASE_US
    )


def _jobs() -> Iterator[Job | None]:
    """Yield jobs in every state: due, in flight here or elsewhere, paused, completed, absent."""
    due = Job(id="job", schedule=Interval(period_us=HOUR_US, anchor_us=0), next_us=_AT_US)
    retried = Policy(on_interrupt=OnInterrupt.RETRY)
    yield due
    yield evolve(due, next_us=_AT_US + 9 * HOUR_US)
    yield evolve(due, state=JobState.PAUSED)
    yield evolve(due, state=JobState.COMPLETED, next_us=None)
    for owner in (_OWNER, "another process"):
        in_flight = evolve(due, next_us=_AT_US + HOUR_US, runs=(_run(owner),))
        yield in_flight
        yield evolve(in_flight, policy=retried)
        yield evolve(in_flight, next_us=None)
        yield evolve(in_flight, waiting=(_WAITING,), policy=Policy(overlap=Overlap.QUEUE))
    yield None


_WAITING = Waiting(
    occurrence_us=_AT_US + HOUR_US, attempt=1, not_before_us=_AT_US + HOUR_US, origin=Origin.SCHEDULE
)


def _intents() -> Iterator[Intent]:
    new = Job(id="job", schedule=Interval(period_us=HOUR_US, anchor_us=0), next_us=_AT_US)
    for fire_at_us in (_AT_US, _LATE_US):
        yield Fire(job_id="job", fire_at_us=fire_at_us)
        yield Fire(job_id="job", fire_at_us=fire_at_us, fired=Fired(origin=Origin.RECOVERY))
    for confirm in (False, True):
        yield Finish(job_id="job", run=_run(_OWNER), succeeded=True, confirm=confirm)
    yield Renew(job_id="job", run=_run(_OWNER))
    yield Create(job_id="job", job=new)
    yield RunNow(job_id="job", asked_us=_AT_US)
    yield Edit(job_id="job", changes=Changes(times=2))
    yield Pause(job_id="job")
    yield Resume(job_id="job")
    yield Remove(job_id="job")


def _events() -> Iterator[Event]:
    for job in _jobs():
        for liveness in Liveness:
            known = (liveness,) * len(job.runs) if job is not None else ()
            yield JobLoaded(job, known)
            yield SwapConflicted(job, known)
    yield JobUnreadable("schedule.expr: no expression")
    yield HistoryLoaded(())
    yield JobSwapped()
    yield StoreFailed()
    yield ArmAccepted(echoed=True)
    yield ArmAccepted(echoed=False)
    yield ArmOutdated(0)
    yield ArmOutdated(99)
    yield ArmFailed()


@cache
def _walk() -> Found:
    """Return, for each phase and kind of event, the phases it leads to and the effects on the way."""
    found: dict[tuple[str, type], dict[str, set[tuple[str, ...]]]] = {}
    events = tuple(_events())
    for intent in _intents():
        first = flows.begin(intent, owner=_OWNER, now_us=_AT_US)[0]
        # The second one has been overtaken as often as a flow puts up with.
        reached_now = {first, evolve(first, conflicts=flows.MAX_CONFLICTS)}
        for _ in range(_DEPTH):
            reached = set()
            for flow in reached_now:
                for event in events:
                    if type(event) not in flows.TRANSITIONS[flow.phase]:
                        continue
                    after, effects = flows.step(flow, event, _AT_US)
                    ends = found.setdefault((flow.phase, type(event)), {})
                    ends.setdefault(after.phase, set()).add(tuple(type(each).__name__ for each in effects))
                    reached.add(after)
            reached_now = reached
    return found


@cache
def _walk_of_start() -> Found:
    """Return the same for a reconciliation, whose table is written as one `match`."""
    events: Sequence[Event] = (
        *_events(),
        ArmsListed({"job": _AT_US}),
        JobsLoaded([(job, (Liveness.UNKNOWN,) * len(job.runs)) for job in _jobs() if job]),
    )
    found: dict[tuple[str, type], dict[str, set[tuple[str, ...]]]] = {}
    reached = [begin_reconciliation()[0]]
    for start in reached:
        for event in events:
            try:
                after, effects = step_reconciliation(start, event, _AT_US)
            except flows.ProtocolError:
                continue
            ends = found.setdefault((start.phase, type(event)), {})
            ends.setdefault(after.phase, set()).add(tuple(type(each).__name__ for each in effects))
            if after.phase not in [known.phase for known in reached]:
                reached.append(after)
    return found


# --- the page ---------------------------------------------------------------------------------


def protocol_page() -> str:
    """Return the page with the two tables and everything that is named in them."""
    return "\n".join(
        [
            "# The protocol's tables\n",
            "Everything an agent does to a job is a *flow* through this table. The simulator, the exhaustive"
            " search and the shipped scheduler step through the same code (`chronos/protocol/flow.py`). A"
            " flow is a frozen value; `step(flow, event, now_us)` returns the flow after the event and the"
            " effects to perform, in order. An event that a phase does not list is a `ProtocolError`.\n",
            "The table below is `TRANSITIONS`; the column of effects was found by calling every handler with"
            " every intent on jobs in every state.\n",
            "## A flow\n",
            _diagram(),
            _flow_table(),
            "## A start\n",
            "A starting process asks NAS what is armed, reads the store, and begins one flow for each"
            " difference.\n",
            _diagram_of_start(),
            table(["Phase", "Event", "Then"], _rows(_walk_of_start())),
            "## What a flow is for\n",
            table(["Intent", "Meaning"], _named(get_args(Intent))),
            "## Effects\n",
            table(["Effect", "What the shell performs"], _named(get_args(Effect))),
            "## Events\n",
            table(["Event", "What happened"], _named(get_args(Event))),
            "## Verdicts\n",
            f"{first_line(Verdict)}\n",
            ", ".join(code(verdict.value) for verdict in Verdict) + "\n",
            "## What a flow holds\n",
            table(["Field", "Meaning"], ([code(name), text] for name, text in _fields_of_flow())),
        ]
    )


def _fields_of_flow() -> Iterator[tuple[str, str]]:
    yield from attributes_of(flows.Flow).items()


def _named(classes: Sequence[Any]) -> Iterator[list[str]]:
    for cls in classes:
        yield [code(cls.__name__), prose(cls).replace("\n\n", " ").replace("\n", " ")]


def _flow_table() -> str:
    found = _walk()
    rows = []
    for phase, transitions in flows.TRANSITIONS.items():
        for event, handler in transitions.items():
            if (phase, event) not in found:
                raise ValueError(f"no sample reaches {event.__name__} while {phase}")
            rows.append([code(phase), code(event.__name__), first_line(handler), _ends(found[phase, event])])
    return table(["Phase", "Event", "What is decided", "Then"], rows)


def _rows(found: Found) -> Iterator[list[str]]:
    for (phase, event), ends in found.items():
        yield [code(phase), code(event.__name__), _ends(ends)]


def _ends(ends: Mapping[str, set[tuple[str, ...]]]) -> str:
    """Return where an event may lead, and with which effects."""
    return "<br>".join(
        f"→ `{phase}`: " + " *or* ".join(" + ".join(map(code, effects)) for effects in _in_order(every))
        for phase, every in sorted(ends.items(), key=lambda end: list(Phase).index(Phase(end[0])))
    )


def _in_order(every: set[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return sorted(every, key=lambda effects: (len(effects), effects))


# --- drawings ---------------------------------------------------------------------------------


def _edges(found: Found) -> dict[tuple[str, str], list[str]]:
    """Return the words on each line: the events, then the effects that come with them."""
    edges: dict[tuple[str, str], list[str]] = {}
    effects: dict[tuple[str, str], set[str]] = {}
    for (phase, event), ends in found.items():
        for end, every in ends.items():
            edges.setdefault((phase, end), []).append(event.__name__)
            effects.setdefault((phase, end), set()).update(name for names in every for name in names)
    return {pair: [*lines, *(f"→ {name}" for name in sorted(effects[pair]))] for pair, lines in edges.items()}


def _diagram() -> str:
    phases = [phase for phase in Phase if phase in flows.TRANSITIONS]
    return states(phases, _edges(_walk()), start="begin → LoadJob")


def _diagram_of_start() -> str:
    return states(
        [Phase.LISTING, Phase.LOADING, Phase.DONE], _edges(_walk_of_start()), start="begin → ListArms"
    )


def _fire_diagram() -> str:
    """Return the sequence of one ordinary fire, made by stepping through it."""
    flow, effects = flows.begin(Fire(job_id="job", fire_at_us=_AT_US), owner=_OWNER, now_us=_AT_US)
    job = next(_jobs())
    messages = [("NAS", "Agent", "fire: job, fire_at")]
    while effects:
        event: Event | None = None
        for effect in effects:
            match effect:
                case LoadJob():
                    messages += [("Agent", "Store", "load the job")]
                    event = JobLoaded(job)
                case SwapJob():
                    messages += [("Agent", "Store", "compare-and-set: claim")]
                    event = JobSwapped()
                case ProvisionArm():
                    messages += [("Agent", "NAS", "provision: wake_at"), ("NAS", "Agent", "200: it stands")]
                    event = ArmAccepted(echoed=True)
                case Answer():
                    messages += [("Agent", "NAS", "202 accepted")]
                case StartRun():
                    messages += [("Agent", "Agent", "the run starts")]
        if event is None:
            break
        flow, effects = flows.step(flow, event, _AT_US)
    return sequence(["NAS", "Agent", "Store"], messages)


PARTS: Mapping[str, Callable[[], str]] = {
    "fire_diagram": _fire_diagram,
}
