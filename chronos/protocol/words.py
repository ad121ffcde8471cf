"""What a process says of itself, to its own people."""

from __future__ import annotations

from chronos.errors import JobsFileError
from chronos.jobs.due import wake_at
from chronos.jobs.instants import format_instant
from chronos.jobs.job import Origin, Outcome, Result, Unreadable, Verdict
from chronos.protocol.draft import Fired
from chronos.protocol.flow_effects import Answer
from chronos.protocol.intents import Fire, Intent, RunNow
from chronos.values import evolve

DRAINING = "the agent is draining"
STOPPED = "the agent is told to run no jobs"
REFUSED = (
    "NAS refuses this agent's identity, so that none of its jobs can be armed; no retry "
    "mends that. Until somebody logs the agent in again and calls `start`, it runs its jobs by itself: "
    "for as long as this process lives, and no longer"
)
WITHOUT_NAS = "without NAS, the jobs run for as long as this process lives, and no longer"
UNKNOWN = "what NAS has armed, or what the store holds, could not be read"
TRIED_SLOWLY = "given up for the moment; it is tried ever more slowly for as long as this process lives"
_REMEDY = "It is tried again for as long as this process lives, ever more slowly; call `start` to try sooner"


def because(what: str, cause: str) -> str:
    """Return *what*, with its cause where that is known."""
    return f"{what}: {cause}" if cause else what


def name_of(intent: Intent) -> str:
    """Return the word by which people know *intent*."""
    match intent:
        case Fire(fired=Fired(origin=Origin.RECOVERY)):
            return "recovery"
        case RunNow():
            return "run_now"
    return type(intent).__name__.lower()


def why_unsettled(answer: Answer) -> str:
    """Say why the store and NAS may disagree after *answer*."""
    has_a_reason = answer.verdict in (None, Verdict.LOST, Verdict.EARLY)
    return because(answer.reason if has_a_reason else "NAS has not agreed to the job's arm", answer.trouble)


def explained(intent: Intent, answer: Answer) -> Answer:
    """Return *answer*; of a change that is saved but not armed it says what that means."""
    if answer.settled or isinstance(intent, Fire):
        return answer
    if answer.verdict is None:
        return evolve(answer, reason=because(answer.reason, answer.trouble))
    trouble = f" ({answer.trouble})" if answer.trouble else ""
    if answer.job is None or wake_at(answer.job) is None:
        saved = f"NAS was not told{trouble}, and may still wake this machine for the job"
    else:
        saved = (
            f"the job is saved, but its trigger is not registered at NAS{trouble}: until it is, nothing "
            "wakes this machine for the job"
        )
    return evolve(answer, reason=f"{answer.reason}; {saved}. {_REMEDY}")


def unreadable(record: Unreadable) -> str:
    """Say what is wrong with a record of the store."""
    return str(JobsFileError(record.source, record.place, record.field, record.problem))


def of_outcome(outcome: Outcome) -> str:
    """Return an outcome as one line."""
    at = format_instant(outcome.occurrence_us)
    more = f" and {outcome.count - 1} more" if outcome.count > 1 else ""
    usual = "as it should" if outcome.result is Result.COMPLETED else "no reason was given"
    return f"{outcome.job_id} of {at}{more}: {outcome.result}: {outcome.reason or usual}"
