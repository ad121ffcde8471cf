"""What a scheduler writes into its log; `chronos.scheduler` is the name of the logger."""

from __future__ import annotations

import logging

from msgspec import Struct
from msgspec.structs import asdict

from chronos import events
from chronos.jobs.job import Outcome, Result
from chronos.protocol import words
from chronos.protocol.intents import Renew
from chronos.protocol.process_effects import Log

logger = logging.getLogger("chronos.scheduler")


def log_line(line: Log) -> None:
    """Write a line that a process wants written."""
    extra = {"job_id": line.job_id} if line.job_id else {}
    if isinstance(line.extra, Struct):
        extra |= asdict(line.extra)
    logger.log(getattr(logging, line.level.upper()), "%s", line.text, extra=extra)


def log_event(event: events.Event) -> None:
    """Write what becomes of an occurrence, and of a flow."""
    if isinstance(event, events.OccurrenceEnded):
        _log_outcome(event.outcome)
    elif isinstance(event, events.FlowEnded):
        _log_flow(event)


def _log_outcome(outcome: Outcome) -> None:
    level = logging.INFO if outcome.result is Result.COMPLETED else logging.WARNING
    extra = {"job_id": outcome.job_id, "result": outcome.result, "attempt": outcome.attempt}
    logger.log(level, "%s", words.of_outcome(outcome), extra=extra)


def _log_flow(event: events.FlowEnded) -> None:
    intent, answer = event.intent, event.answer
    is_renewal = isinstance(intent, Renew)
    level = logging.WARNING if not answer.settled else logging.DEBUG if is_renewal else logging.INFO
    if not logger.isEnabledFor(level):
        return
    reason = words.because(answer.reason or "done", answer.trouble)
    said = (words.name_of(intent), answer.job_id, answer.verdict or "unsettled", reason)
    extra = {
        "job_id": answer.job_id,
        "verdict": answer.verdict,
        "reason": answer.reason,
        "settled": answer.settled,
    }
    logger.log(level, "%s of %s: %s: %s", *said, extra=extra)
