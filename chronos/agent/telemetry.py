"""Metrics and spans through OpenTelemetry's API package, where that is installed.

Without it everything here does nothing. With it, and without an SDK set up by the host, the API
itself does nothing. Names follow OpenTelemetry's conventions: durations in seconds.

| instrument | kind | attributes |
|---|---|---|
| `chronos.flows` | counter | `chronos.intent`, `chronos.verdict`, `chronos.settled` |
| `chronos.occurrences` | counter | `chronos.result`, `chronos.origin` |
| `chronos.run.duration` | histogram, s | `chronos.succeeded` |
| `chronos.lateness` | histogram, s | `chronos.hop` (`total`, `relay`, `wake`, `claim`) |
| `chronos.run` | span | `chronos.job_id`, `chronos.occurrence`, `chronos.attempt`, `chronos.origin` |
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from msgspec import structs

from chronos import events
from chronos.jobs.instants import SECOND_US, format_instant
from chronos.jobs.job import Outcome, lateness

if TYPE_CHECKING:
    from chronos.agent.runner import RunContext

_SCOPE = "chronos"


@cache
def _tracer() -> Any:
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    return trace.get_tracer(_SCOPE)


@contextmanager
def run_span(context: RunContext) -> Iterator[None]:
    """Let what happens inside be a span of the run; an exception marks it as failed."""
    tracer = _tracer()
    if tracer is None:
        yield
        return
    attributes = {
        "chronos.job_id": context.job_id,
        "chronos.occurrence": format_instant(context.occurrence_us),
        "chronos.attempt": context.attempt,
        "chronos.origin": context.origin.value,
    }
    # By itself, a span takes note of no `SystemExit`, and ends with another error than the run when
    # that cannot say what it is.
    plain = {"record_exception": False, "set_status_on_exception": False}
    with tracer.start_as_current_span("chronos.run", attributes=attributes, **plain) as span:
        try:
            yield
        except BaseException as error:
            _mark_failed(span, error)
            raise


def _mark_failed(span: Any, error: BaseException) -> None:
    from opentelemetry.trace import StatusCode

    from chronos.agent.runner import words_of

    span.set_status(StatusCode.ERROR, words_of(error))
    with suppress(Exception):
        span.record_exception(error)


def hook() -> events.Hook | None:
    """Return a hook that measures what happens, or None where OpenTelemetry is not installed."""
    try:
        from opentelemetry import metrics
    except ImportError:
        return None
    return _Meter(metrics.get_meter(_SCOPE))


class _Meter:
    """Counts and measures the events of one scheduler."""

    def __init__(self, meter: Any) -> None:
        self._flows = meter.create_counter("chronos.flows", description="fires, changes and ends of runs")
        self._occurrences = meter.create_counter("chronos.occurrences", description="occurrences that ended")
        self._duration = meter.create_histogram("chronos.run.duration", unit="s")
        self._lateness = meter.create_histogram("chronos.lateness", unit="s")
        self._began_s: dict[object, float] = {}

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.FlowEnded(intent=intent, answer=answer):
                self._flows.add(
                    1,
                    {
                        "chronos.intent": type(intent).__name__.lower(),
                        "chronos.verdict": answer.verdict.value if answer.verdict else "none",
                        "chronos.settled": answer.settled,
                    },
                )
            case events.RunStarted(job_id=job_id, run=run):
                self._began_s[job_id, run] = time.monotonic()
            case events.RunEnded(job_id=job_id, run=run, succeeded=succeeded):
                took_s = time.monotonic() - self._began_s.pop((job_id, run), time.monotonic())
                self._duration.record(took_s, {"chronos.succeeded": succeeded})
            case events.OccurrenceEnded(outcome=outcome):
                attributes = {"chronos.result": outcome.result.value, "chronos.origin": outcome.origin.value}
                self._occurrences.add(outcome.count, attributes)
                self._measure(outcome)

    def _measure(self, outcome: Outcome) -> None:
        late = lateness(outcome)
        if late is not None:
            for hop, hop_us in structs.asdict(late).items():
                if hop_us is not None:
                    self._lateness.record(hop_us / SECOND_US, {"chronos.hop": hop.removesuffix("_us")})
