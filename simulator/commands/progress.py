"""A bar that shows how far a command has come."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from chronos.cli.console import undone


@contextmanager
def progress(name: str, total: float) -> Iterator[Callable[[float], None]]:
    """Show a bar on a terminal, and nothing when the output goes elsewhere."""
    with _bar(TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn()) as bar:
        if bar is None:
            yield lambda _part: None
            return
        task = bar.add_task(name, total=total)
        yield lambda part: bar.update(task, completed=part)


@contextmanager
def counting(name: str, total: int, done: int) -> Iterator[Callable[[int], None]]:
    """Show a bar with count, rate, time left and failures; nothing when the output goes elsewhere.

    Args:
        name: of what is counted.
        total: how many there are.
        done: how many were there at the beginning.

    Yields:
        What is called as each of the others is there, with how many have failed so far.
    """
    failed = TextColumn("{task.fields[failed]:,} failed")
    with _bar(MofNCompleteColumn(), _Rate(), TimeRemainingColumn(), TextColumn("left,"), failed) as bar:
        if bar is None:
            yield lambda _failed: None
            return
        task = bar.add_task(name, total=total, completed=done, failed=0)
        yield lambda failed: bar.update(task, advance=1, failed=failed)


class _Rate(ProgressColumn):
    """How many there are in a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.1f}/s")


@contextmanager
def _bar(*columns: ProgressColumn) -> Iterator[Progress | None]:
    console = Console(stderr=True)
    if not (console.is_terminal and sys.stdout.isatty()):
        yield None
        return
    bar = Progress(TextColumn("{task.description}"), BarColumn(), *columns, console=console, transient=True)
    with undone(bar.stop), bar:
        yield bar
