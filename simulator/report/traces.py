"""The forms in which a trace is written: JSON lines, Chrome's trace events, a Mermaid diagram.

Each is a function that takes what writes a piece of text, and returns what takes a line and what ends it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chronos.cli.console import BadUsage
from chronos.jobs.instants import Instant, format_instant
from simulator.trace import COUNTEREXAMPLE, MESSAGE, STEP_US, Lane, Line

Write = Callable[[str], None]
Form = tuple[Callable[[Line], None], Callable[[], None]]

# A diagram of more lines than these is one that nobody reads.
MOST_OF_A_DIAGRAM = 400


def json_lines(write: Write) -> Form:
    """Write an object a line: what happened, when, where, and the number of the line that led to it."""

    def take(line: Line) -> None:
        told: dict[str, Any] = {
            "number": line.number,
            "because": line.because or None,
            **_when(line),
            "kind": line.kind,
            "job_id": line.job_id,
            "lane": line.lane,
            "text": line.text,
            "value": line.value,
        }
        if line.process is not None:
            told["process"] = line.process
        if line.to is not None:
            told |= {"to": line.to, **_arrival(line)}
        write(json.dumps(told) + "\n")

    return take, lambda: None


def _when(line: Line) -> dict[str, Any]:
    if line.step is not None:
        return {"step": line.step}
    return {"at": format_instant(line.at_us), "at_us": line.at_us}


def _arrival(line: Line) -> dict[str, Any]:
    """Return when a message arrives; a step counts from the beginning of its own history."""
    if line.step is None:
        return {"arrives_us": line.arrives_us}
    if line.arrives_us is None:
        return {"arrives_step": None}
    return {"arrives_step": line.step + line.arrives_us // STEP_US - line.at_us // STEP_US}


# --- Chrome's trace events --------------------------------------------------------------------

# What begins a stretch of time, what ends it, and its name.
_STRETCHES = {"started": ("ended", "run"), "booted": ("stopped", "up")}
_ENDS = {end: begin for begin, (end, _) in _STRETCHES.items()}
# What lasts until the instant that it names.
_BANDS = {
    "nas_down": "NAS is out of reach",
    "host_down": "no machine starts",
    "told_to_stop": "told to run no jobs",
    "identity_refused": "identity refused",
}


def chrome(write: Write) -> Form:
    """Write trace events, as `chrome://tracing` and Perfetto read them: a process a lane, a thread a job."""
    state = _Chrome(write)
    return state.take, state.end


class _Chrome:
    def __init__(self, write: Write) -> None:
        self._write = write
        self._count = 0
        self._first_us: Instant | None = None
        self._last_us = 0
        self._threads: dict[str | None, int] = {None: 0}
        self._named: set[tuple[Lane, int]] = set()
        self._open: dict[tuple[str, str | None, int], Line] = {}
        write('{"displayTimeUnit": "ms", "traceEvents": [')
        for lane in Lane:
            self._emit(lane, 0, 0, ph="M", name="process_name", args={"name": lane.value})

    def take(self, line: Line) -> None:
        if self._first_us is None:
            self._first_us = line.at_us
        self._last_us = line.at_us - self._first_us
        at_us = self._last_us
        if line.kind == MESSAGE:
            self._message(line, at_us)
        elif line.kind in _BANDS:
            until_us = max(line.value - self._first_us, at_us)
            self._stretch(line, at_us, until_us, _BANDS[line.kind])
        elif line.kind in _STRETCHES:
            self._open[line.kind, line.job_id, line.value] = line
        elif line.kind in _ENDS:
            self._close(_ENDS[line.kind], line.job_id, line.value)
        elif line.kind == "crashed":
            if line.job_id is None:
                self._close("booted", None, line.value)
            else:
                self._close("started", line.job_id, None)
            self._instant(line, at_us)
        elif line.kind == COUNTEREXAMPLE:
            self._close_all()
            self._instant(line, at_us)
        else:
            self._instant(line, at_us)

    def end(self) -> None:
        self._close_all()
        self._write("\n]}\n")

    def _close_all(self) -> None:
        for line in tuple(self._open.values()):
            self._close(line.kind, line.job_id, line.value)

    def _close(self, kind: str, job_id: str | None, value: int | None) -> None:
        """End the stretches of a job: one, or all of them."""
        assert self._first_us is not None
        for key in [each for each in self._open if each[:2] == (kind, job_id) and value in (None, each[2])]:
            begun = self._open.pop(key)
            name = _STRETCHES[kind][1]
            name = name if begun.process is None else f"{name} (process {begun.process})"
            self._stretch(begun, begun.at_us - self._first_us, self._last_us, name)

    def _stretch(self, line: Line, at_us: int, until_us: int, name: str) -> None:
        args = {"text": line.text, "line": line.number}
        self._of(line, line.lane, at_us, ph="X", dur=until_us - at_us, name=name, args=args)

    def _instant(self, line: Line, at_us: int) -> None:
        args = {"text": line.text, "line": line.number, "because": line.because}
        self._of(line, line.lane, at_us, ph="i", s="t", name=line.kind.replace("_", " "), args=args)

    def _message(self, line: Line, at_us: int) -> None:
        """A message is a short slice at each end, and an arrow from one to the other."""
        args = {"line": line.number, "because": line.because}
        self._of(line, line.lane, at_us, ph="X", dur=1, name=line.text, args=args)
        if line.arrives_us is None or line.to is None:
            return
        assert self._first_us is not None
        arrives_us = line.arrives_us - self._first_us
        self._of(line, line.to, arrives_us, ph="X", dur=1, name=line.text, args=args)
        self._of(line, line.lane, at_us, ph="s", cat=MESSAGE, id=line.number, name=line.text)
        self._of(line, line.to, arrives_us, ph="f", bp="e", cat=MESSAGE, id=line.number, name=line.text)

    def _of(self, line: Line, lane: Lane, at_us: int, **fields: Any) -> None:
        thread = self._threads.setdefault(line.job_id, len(self._threads))
        if (lane, thread) not in self._named:
            self._named.add((lane, thread))
            name = line.job_id or "of no job"
            self._emit(lane, thread, 0, ph="M", name="thread_name", args={"name": name})
        self._emit(lane, thread, at_us, **fields)

    def _emit(self, lane: Lane, thread: int, at_us: int, **fields: Any) -> None:
        told = {"pid": list(Lane).index(lane) + 1, "tid": thread, "ts": at_us, **fields}
        self._write(("," if self._count else "") + "\n" + json.dumps(told))
        self._count += 1


# --- Mermaid ----------------------------------------------------------------------------------


def mermaid(write: Write) -> Form:
    """Write a sequence diagram, of a history that is short enough to be one.

    Raises:
        BadUsage: it is not.
    """
    told: list[str] = []
    processes: set[int] = set()

    def take(line: Line) -> None:
        if len(told) == MOST_OF_A_DIAGRAM:
            raise BadUsage(
                f"--trace: a diagram of more than {MOST_OF_A_DIAGRAM} lines is one that nobody reads; "
                "narrow it, or write .jsonl or .json"
            )
        if line.process is not None:
            processes.add(line.process)
        told.append(_mermaid_line(line))

    def end() -> None:
        write("sequenceDiagram\n")
        for lane in Lane:
            names = {_participant(lane, each): f"process {each}" for each in sorted(processes)}
            if lane is not Lane.AGENT or not names:
                names = {_participant(lane, None): lane.value}
            for name, words in names.items():
                write(f"    participant {name} as {words}\n")
        for each in told:
            write(each)

    return take, end


def _mermaid_line(line: Line) -> str:
    process = line.process if line.step is None else line.process or 0  # who it is may not be known
    place, text = _participant(line.lane, process), line.text
    if line.step is None:
        at = format_instant(line.at_us)[11:23].removesuffix("+00")
        text = text if line.job_id is None else f"{line.job_id}: {text}"
    else:
        at = f"step {line.step}:"
        arrives = _arrival(line)["arrives_step"]
        text += f", arrives at step {arrives}" if arrives is not None and arrives > line.step else ""
    if line.kind == COUNTEREXAMPLE:
        return f"    Note over {place},{_participant(Lane.EXTERNAL, None)}: {_plain(text)}\n"
    if line.to is None:
        return f"    Note over {place}: {at} {_plain(text)}\n"
    arrow = "-x" if line.arrives_us is None else "->>"
    return f"    {place}{arrow}{_participant(line.to, process)}: {at} {_plain(text)}\n"


def _participant(lane: Lane, process: int | None) -> str:
    if lane is Lane.AGENT and process is not None:
        return f"process_{process}"
    return lane.value.replace(" ", "_")


def _plain(text: str) -> str:
    """Return *text* without what means something in a diagram."""
    return "".join(f"#{ord(each)};" if each in "#;%{}\n\r" else each for each in text)


# --- Which of them ----------------------------------------------------------------------------

FORMS: dict[str, Callable[[Write], Form]] = {".jsonl": json_lines, ".json": chrome, ".mmd": mermaid}
WORDS = {
    ".jsonl": "a line of JSON for each thing that happened",
    ".json": "trace events, for Perfetto and Chrome",
    ".mmd": "a Mermaid diagram, of a short history",
}


def form_of(target: str) -> Callable[[Write], Form]:
    """Return the form that a file's name asks for.

    Raises:
        BadUsage: it asks for none.
    """
    form = FORMS.get(Path(target).suffix.lower())
    if form is None:
        raise BadUsage(f"--trace {target}: expected a name that ends in {', '.join(FORMS)}")
    return form
