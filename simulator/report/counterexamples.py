"""The counterexamples of the search as files: the page and the traces, of steps instead of times."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec import Struct

from chronos.values import evolve
from simulator.report.page import Drawing, write_page
from simulator.search.cases import JOB_ID
from simulator.search.explore import Counterexample
from simulator.search.teller import short
from simulator.trace import COUNTEREXAMPLE, MESSAGE, STEP_US, VIOLATION, Lane, Line


class Drawn(Struct, frozen=True, kw_only=True):
    """A counterexample with all that is shown of it.

    Attributes:
        case: the name of the bounded world.
        processes: how many processes it has.
        found: the counterexample.
        lines: its lines.
        walk: the command that walks through it.
    """

    case: str
    processes: int
    found: Counterexample
    lines: tuple[Line, ...]
    walk: str


def write_counterexamples(write: Callable[[str], None], setting: str, drawn: Sequence[Drawn]) -> None:
    """Write a page that shows one counterexample at a time.

    Args:
        write: takes pieces of text.
        setting: of which search they are.
        drawn: the counterexamples, at least one.
    """
    write_page(write, {"cases": [_data(setting, each) for each in drawn]})


def _data(setting: str, drawn: Drawn) -> dict[str, Any]:
    found, drawing = drawn.found, Drawing(0, (JOB_ID,), processes=drawn.processes)
    for line in drawn.lines:
        drawing.take(line)
    return {
        **drawing.data(),
        "title": f"{found.property}: {drawn.case}",
        "about": [setting, f"walk through it: {drawn.walk}"],
        "verdict": f"violated: {short(found.reason)}",
        "name": f"{found.property}, {drawn.case}, {len(found.history)} steps",
        "steps": ["at the start", *found.history],
        "labels": [_label(line) for line in drawn.lines],
        "duration": (len(found.history) + 1) * STEP_US,
    }


# What stands in the picture beside a line, where that is not its kind; with an instant, where it has one.
_LABELS = {
    "arm_failed": "no answer",
    "booted": "starts",
    "created": "arms",
    "provisioned": "arms",
    "started": "run starts",
    "ended": "run ends",
    "time": "it is",
    "fired": "",
    "changed": "",
    "relayed": "calls",
    "listed": "lists",
}
_WITH_INSTANT = frozenset({"created", "provisioned", "time", "claimed", "relayed", "listed", "learns"})
_INSTANT = re.compile(r"\d\d:\d\d:\d\d")


def _label(line: Line) -> str:
    """Return the few words that stand beside a line in the picture."""
    if line.kind == VIOLATION:
        return line.text.partition(":")[0]
    if line.kind == MESSAGE:
        text = line.text.removeprefix("the ").replace(" to the fire", "")
        return re.split(r" of | for | \(|, |: ", text)[0]
    words = _LABELS.get(line.kind, line.kind.replace("_", " "))
    if line.kind == "asked":
        return line.text.removeprefix("somebody ")
    if line.kind == "delivered" and "deletes" in line.text:
        return "deletes the arm"
    if line.text.endswith(("is up", "is cut off")):
        return ""
    at = _INSTANT.search(line.text)
    return f"{words} {at[0]}".strip() if at and line.kind in _WITH_INSTANT else words


def trace_lines(drawn: Sequence[Drawn]) -> Iterator[Line]:
    """Yield the lines of counterexamples, one after the other, each after a line that names it."""
    number, start_us = 0, 0
    for each in drawn:
        found = each.found
        text = f"{found.property}, {each.case}: {short(found.reason)}"
        number += 1
        yield Line(
            number=number,
            because=0,
            at_us=start_us,
            kind=COUNTEREXAMPLE,
            job_id=None,
            lane=Lane.PEOPLE,
            text=text,
            step=0,
        )
        for line in each.lines:
            yield evolve(
                line,
                number=line.number + number,
                because=line.because + number if line.because else 0,
                at_us=line.at_us + start_us,
                arrives_us=None if line.arrives_us is None else line.arrives_us + start_us,
            )
        number += len(each.lines)
        start_us += (len(found.history) + 2) * STEP_US
