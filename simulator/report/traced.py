"""The files that show all that happens in one simulation: its trace, its page."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from chronos.cli.console import BadUsage, facts, is_one_file
from chronos.jobs.instants import Instant
from simulator.report import traces
from simulator.report.file import is_output, writing
from simulator.report.page import Page
from simulator.scenario import Plan
from simulator.summary import Summary
from simulator.trace import Line, Tracer


class Traced:
    """A simulation of which files are written.

    Attributes:
        tracer: to be told of all that happens; None when no file wants it.
    """

    def __init__(self, plan: Plan) -> None:
        self.tracer: Tracer | None = None
        self._plan = plan
        self._takers: list[Callable[[Line], None]] = []
        self._ends: list[Callable[[Summary, Instant | None], None]] = []

    def add(self, take: Callable[[Line], None], end: Callable[[Summary, Instant | None], None]) -> None:
        """Let *take* be told of each line, and *end* of what came of it."""
        self._takers.append(take)
        self._ends.append(end)
        self.tracer = Tracer(take if len(self._takers) == 1 else self.take, self._plan.fleet.job_ids)

    def end(self, summary: Summary, begins_us: Instant | None = None) -> None:
        """Write what can be written only now; a page opens where *begins_us* is."""
        for end in self._ends:
            end(summary, begins_us)

    def take(self, line: Line) -> None:
        """Write a line into each of the files."""
        for take in self._takers:
            take(line)


@contextmanager
def traced(
    plan: Plan, seed: int, given: os.stat_result | None, *, trace: str | None, html: str | None
) -> Iterator[Traced]:
    """Yield what writes the files that are asked for; each is in its place at the end of the block.

    Args:
        plan: what is simulated.
        seed: with which seed.
        given: the facts of the input.
        trace: the file of the trace; its name tells the form.
        html: the file of the page.

    Raises:
        BadUsage: a name asks for no form, or is that of another file; or it cannot be written.
    """
    form = form_within(trace, html)
    made = Traced(plan)
    with ExitStack() as files:
        if trace is not None and form is not None:
            take, end = form(files.enter_context(writing(trace, given, option="--trace")).write)
            made.add(take, lambda _summary, _begins_us: end())
        if html is not None:
            page, file = Page(plan, seed), files.enter_context(writing(html, given, option="--html"))
            made.add(page.take, partial(page.write, file.write))
        yield made


def form_within(trace: str | None, html: str | None) -> Callable[[traces.Write], traces.Form] | None:
    """Return the form of the trace, None for none, once it is sure that the names make sense together.

    Raises:
        BadUsage: a name asks for no form, or is that of another file.
    """
    form = None if trace is None else traces.form_of(trace)
    for option, name in (("trace", trace), ("html", html)):
        if name is not None and is_output(name):
            raise BadUsage(f"--{option} {name}: the summary goes there; expected a file")
    if trace is not None and html is not None and is_same(trace, html):
        raise BadUsage(f"--html {html}: this is the file of --trace; expected another name")
    return form


def is_same(one: str, other: str) -> bool:
    """Return whether two names are those of one file."""
    return os.path.realpath(one) == os.path.realpath(other) or is_one_file(facts(one), facts(other))
