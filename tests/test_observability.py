"""What a host can see of both schedulers: hooks, the log, and OpenTelemetry where that is installed."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from msgspec.structs import asdict

from chronos import events
from chronos.agent import telemetry
from chronos.agent.runner import RunContext
from chronos.jobs.instants import HOUR_US, SECOND_US
from chronos.jobs.job import Result, Verdict
from chronos.jobs.policy import Policy
from chronos.protocol.intents import Finish, Fire
from tests.agents import T0, MakeWorld, at, every_hour, later, until

# --- Hooks ---


def test_hooks_are_told_in_order_what_happens(make_world: MakeWorld) -> None:
    """A claim, its answer, the run, its outcome, and the end of that flow."""
    told: list[events.Event] = []
    also: list[events.Event] = []
    world = make_world(every_hour(), hooks=[told.append, also.append])
    answer = world.agent.fire("j", T0)
    until(lambda: world.ran)
    world.settle()
    assert told == also
    claimed, *rest = told
    assert isinstance(claimed, events.OccurrenceClaimed)
    run = claimed.run
    assert (claimed.job_id, run.occurrence_us, run.attempt, run.owner) == ("j", T0, 1, "me")
    answered, started = sorted(rest[:2], key=lambda event: isinstance(event, events.RunStarted))
    assert started == events.RunStarted(job_id="j", run=run)
    assert answered == events.FlowEnded(intent=Fire(job_id="j", fire_at_us=T0), answer=answer)
    ended, outcome, finished = rest[2:]
    assert ended == events.RunEnded(job_id="j", run=run, succeeded=True, detail="")
    assert outcome == events.OccurrenceEnded(job_id="j", outcome=world.store.history("j")[0])
    assert isinstance(finished, events.FlowEnded)
    assert isinstance(finished.intent, Finish)
    assert finished.answer.settled


def test_hooks_are_told_of_failures_and_of_what_did_not_run(make_world: MakeWorld) -> None:
    """The text of a failed run, and an outcome without a claim."""
    told: list[events.Event] = []

    def fails(_: RunContext) -> None:
        raise ValueError("no such file")

    missed = every_hour("late", policy=Policy(misfire_grace_us=0))
    world = make_world(every_hour(), missed, hooks=[told.append], runner=fails)
    world.agent.fire("j", T0)
    world.quiet()
    (ended,) = [event for event in told if isinstance(event, events.RunEnded)]
    assert (ended.succeeded, ended.detail) == (False, "ValueError: no such file")
    told.clear()
    world.now_us = T0 + SECOND_US
    world.agent.fire("late", T0)
    outcome, answered = told
    assert isinstance(outcome, events.OccurrenceEnded)
    assert outcome.outcome.result is Result.MISSED
    assert isinstance(answered, events.FlowEnded)
    assert answered.answer.verdict is Verdict.MISSED


def test_a_hook_that_fails_is_logged_and_harmless(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """It only looks on; the other hooks and the job do not notice."""
    told: list[events.Event] = []

    def fails(_: events.Event) -> None:
        raise StopIteration("a hook")

    world = make_world(every_hour(), hooks=[fails, told.append])
    assert world.agent.fire("j", T0).settled
    world.settle()
    assert world.outcomes() == [(Result.COMPLETED, "")]
    failures = [record for record in caplog.records if record.getMessage() == "a hook failed"]
    assert len(failures) == len(told)
    assert all(record.exc_info for record in failures)


# --- The log ---


def records(caplog: pytest.LogCaptureFixture, begins: str) -> list[Any]:
    return [record for record in caplog.records if record.getMessage().startswith(begins)]


def test_each_flow_is_logged_with_its_fields(make_world: MakeWorld, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever collects the log finds a job by a field and not by parsing a text."""
    caplog.set_level(logging.INFO, logger="chronos")
    world = make_world(every_hour())
    world.agent.fire("j", T0)
    world.agent.pause("j")
    world.settle()
    (fire,), (pause,), (finish,) = (records(caplog, f"{name} of j: ") for name in ("fire", "pause", "finish"))
    fields = (fire.levelname, fire.job_id, fire.verdict, fire.reason, fire.settled)
    assert fields == ("INFO", "j", Verdict.ACCEPTED, "claimed", True)
    assert (pause.job_id, pause.settled, finish.job_id) == ("j", True, "j")


def test_what_is_not_settled_is_a_warning(make_world: MakeWorld, caplog: pytest.LogCaptureFixture) -> None:
    """With what NAS had against it."""
    world = make_world(later())
    world.nas.is_down = True
    world.agent.pause("j")
    world.quiet()
    flows = records(caplog, "pause of j: ")
    assert [(record.levelname, record.job_id, record.settled) for record in flows] == [
        ("WARNING", "j", False)
    ]
    disagreements = records(caplog, "NAS did not agree")
    assert all(record.job_id == "j" and "503" in record.error for record in disagreements)
    assert disagreements


def test_a_start_is_logged_with_what_it_did(make_world: MakeWorld, caplog: pytest.LogCaptureFixture) -> None:
    """One line, with the number of jobs that it looked after."""
    caplog.set_level(logging.INFO, logger="chronos")
    world = make_world(later())
    world.agent.start()
    (record,) = records(caplog, "reconciled")
    assert (record.flows, record.settled) == (1, True)


# --- OpenTelemetry ---


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@attrs.frozen
class Telemetry:
    """What was measured by OpenTelemetry's own SDK."""

    reader: Any
    spans: Any
    tracer: Any

    def span(self, name: str = "chronos.run") -> Any:
        (span,) = [span for span in self.spans.get_finished_spans() if span.name == name]
        return span

    def points(self, name: str) -> dict[tuple[Any, ...], Any]:
        """Return the points of an instrument by its attributes, in the order of their names."""
        data = self.reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        (metric,) = [metric for scope in scopes for metric in scope.metrics if metric.name == name]
        return {
            tuple(value for _, value in sorted(point.attributes.items())): point
            for point in metric.data.data_points
        }


@pytest.fixture
def otel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Telemetry]:
    """Let the schedulers that are made from now on be measured."""
    pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    reader, spans = InMemoryMetricReader(), InMemorySpanExporter()
    meters, tracers = MeterProvider(metric_readers=[reader]), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    # The API lets a process choose its providers once; a test must leave none behind.
    monkeypatch.setattr(trace, "get_tracer", tracers.get_tracer)
    monkeypatch.setattr(metrics, "get_meter", meters.get_meter)
    telemetry._tracer.cache_clear()
    yield Telemetry(reader, spans, tracers.get_tracer("test"))
    telemetry._tracer.cache_clear()
    meters.shutdown()
    tracers.shutdown()


def test_what_happens_is_measured(otel: Telemetry, make_world: MakeWorld) -> None:
    """Flows, occurrences, how long runs take, and how late they were claimed, by hop."""
    failures = [ValueError("once")]

    def runs(_: RunContext) -> None:
        if failures:
            raise failures.pop()

    world = make_world(every_hour(), runner=runs)
    for number in range(2):
        due_us = T0 + number * HOUR_US
        world.now_us = due_us + 5 * SECOND_US
        world.agent.fire("j", due_us, minted_us=due_us + SECOND_US, received_us=due_us + 3 * SECOND_US)
        world.quiet()
    world.agent.fire("j", T0)
    flows = {key: point.value for key, point in otel.points("chronos.flows").items()}
    assert flows == {
        ("fire", True, "accepted"): 2,
        ("fire", True, "duplicate"): 1,
        ("finish", True, "changed"): 2,
    }
    occurrences = {key: point.value for key, point in otel.points("chronos.occurrences").items()}
    assert occurrences == {("schedule", "failed"): 1, ("schedule", "completed"): 1}
    durations = {key: point.count for key, point in otel.points("chronos.run.duration").items()}
    assert durations == {(True,): 1, (False,): 1}
    late = {key: (point.count, point.sum) for key, point in otel.points("chronos.lateness").items()}
    assert late == {("total",): (2, 10.0), ("relay",): (2, 2.0), ("wake",): (2, 4.0), ("claim",): (2, 4.0)}


def test_a_stretch_of_missed_occurrences_counts_each(otel: Telemetry, make_world: MakeWorld) -> None:
    """One outcome may tell of many, and none of them was late by anything."""
    world = make_world(every_hour(policy=Policy(misfire_grace_us=0)))
    world.now_us = T0 + 2 * HOUR_US + HOUR_US // 2
    world.agent.fire("j", T0)
    occurrences = {key: point.value for key, point in otel.points("chronos.occurrences").items()}
    assert occurrences == {("schedule", "missed"): 3}


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_run_is_a_span_around_those_of_the_runner(
    otel: Telemetry, make_world: MakeWorld, is_async: bool
) -> None:
    """In whichever thread or task it runs; and the span is part of the one in which the fire came."""

    def runs(_: RunContext) -> None:
        with otel.tracer.start_as_current_span("work"):
            pass

    async def runs_async(context: RunContext) -> None:
        runs(context)

    world = make_world(every_hour(), runner=runs_async if is_async else runs)
    fired_in(otel, world)
    world.quiet()
    run, work, request = otel.span(), otel.span("work"), otel.span("request")
    assert work.parent.span_id == run.context.span_id
    assert run.parent.span_id == request.context.span_id
    assert dict(run.attributes) == {
        "chronos.job_id": "j",
        "chronos.occurrence": at(0),
        "chronos.attempt": 1,
        "chronos.origin": "schedule",
    }
    assert run.status.is_ok or run.status.status_code.name == "UNSET"


def fired_in(otel: Telemetry, world: Any) -> None:
    """Fire within a span, as a web framework would, in the thread or task that asks."""
    scheduler = world.agent.scheduler
    if world.kind == "threads":
        with otel.tracer.start_as_current_span("request"):
            scheduler.fire("j", T0)
        return

    async def fire() -> None:
        with otel.tracer.start_as_current_span("request"):
            await scheduler.fire("j", T0)

    world.loop.begin(fire()).result(10)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("error", [ValueError("no such file"), SystemExit(3), Mute()], ids=repr)
def test_the_span_of_a_failed_run_says_so(
    otel: Telemetry, make_world: MakeWorld, is_async: bool, error: BaseException
) -> None:
    """With the exception, whatever that is."""

    def fails(_: RunContext) -> None:
        raise error

    async def fails_async(_: RunContext) -> None:
        raise error

    world = make_world(every_hour(), runner=fails_async if is_async else fails)
    world.agent.fire("j", T0)
    world.quiet()
    span = otel.span()
    assert span.status.status_code.name == "ERROR"
    assert world.outcomes() == [(Result.FAILED, span.status.description)]
    assert type(error).__name__ in span.status.description
    assert len(span.events) == (not isinstance(error, Mute))


@pytest.mark.usefixtures("otel")
def test_months_of_runs_leave_nothing_behind(make_world: MakeWorld) -> None:
    """What is kept for a run is given up with its end."""
    world = make_world(every_hour())
    world.release.set()
    scheduler: Any = world.agent.scheduler
    meter = world.agent.scheduler._hooks[-1]

    def kept() -> list[int]:
        process = scheduler._process
        of_process = asdict(process) | asdict(process.ticker)
        mine = {name: value for name, value in vars(scheduler).items() if name != "_hooks"}
        held = (mine | of_process | vars(meter)).values()
        return [len(each) for each in held if isinstance(each, list | dict | set | tuple)]

    for number in range(20):
        world.now_us = T0 + number * HOUR_US
        world.agent.fire("j", world.now_us)
        world.agent.create(f"k{number}", "30m")
        world.agent.remove(f"k{number}")
        world.quiet()
    assert kept() == [0] * len(kept())


def test_without_opentelemetry_nothing_is_measured_and_nothing_breaks(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a package that a host may do without."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    telemetry._tracer.cache_clear()
    try:
        assert telemetry.hook() is None
        world = make_world(every_hour())
        assert world.agent.fire("j", T0).settled
        world.settle()
    finally:
        telemetry._tracer.cache_clear()
    assert world.outcomes() == [(Result.COMPLETED, "")]


SCRIPT = """
import sys
{before}
import chronos
from chronos.agent import telemetry
scheduler = chronos.Scheduler(chronos.MemoryStore(), None, print)
scheduler.create("j", "30m")
scheduler.start()
print(scheduler.drain(5))
print(sorted(name for name in sys.modules if name.partition(".")[0] == "opentelemetry" and sys.modules[name]))
"""


def test_without_opentelemetry_nothing_of_it_is_imported() -> None:
    """In a process of its own: neither it nor anything that it brings."""
    before = 'sys.modules["opentelemetry"] = None'
    script = SCRIPT.format(before=before)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "()\n[]\n", "")
