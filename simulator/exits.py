"""How the command line ends: its exit statuses, and the line that says why."""

from __future__ import annotations

import os
import sys
from typing import TextIO

OK, VIOLATED, BAD_INPUT, INCONCLUSIVE, INTERRUPTED = 0, 1, 2, 3, 130


def complain(problem: str) -> None:
    """Say on the standard error, where there is one, why nothing came of it; *problem* is one line."""
    if sys.stderr is None:  # closed by whoever started us; `print` would take the output instead
        return
    try:
        print(f"simulator: {problem}", file=sys.stderr, flush=True)
    except OSError:
        mute(sys.stderr)  # the status has to do


def mute(stream: TextIO) -> None:
    """Let whatever is still written to *stream* vanish.

    What could not be written is still in its buffer. At its exit the interpreter tries again, and
    would put a status of its own in the place of ours.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
