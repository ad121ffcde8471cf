"""A bar that shows how far a command has come."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from chronos.cli.console import undone


@contextmanager
def progress(name: str, total: float) -> Iterator[Callable[[float], None]]:
    """Show a bar on a terminal, and nothing when the output goes elsewhere."""
    console = Console(stderr=True)
    if not (console.is_terminal and sys.stdout.isatty()):
        yield lambda _part: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    bar = Progress(*columns, TimeElapsedColumn(), console=console, transient=True)
    with undone(bar.stop), bar:
        task = bar.add_task(name, total=total)
        yield lambda part: bar.update(task, completed=part)
