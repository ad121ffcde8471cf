"""How lines, counts and durations read on a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

# As wide as a terminal is that shows a summary, and how far its lines are indented.
WIDTH, INDENT = 100, 11
# Stands for a space at which no line ends.
TIED = "\x00"

# The other words take an s.
_PLURALS = {"crash": "crashes", "delivery": "deliveries", "loss": "losses", "try": "tries"}


def wrapped(head: str, text: str, indent: int = INDENT) -> Iterator[str]:
    """Yield *text* in lines of at most `WIDTH` columns, under *head*."""
    lines = textwrap.wrap(text, WIDTH - indent, break_long_words=False, break_on_hyphens=False)
    for number, line in enumerate(lines):
        yield f"{head if number == 0 else '':{indent}}{line.replace(TIED, ' ')}"


def counted(count: int, word: str) -> str:
    """Return *count* and *word*, in the plural unless the count is one: 1 loss, 1,200 deliveries."""
    return f"1 {word}" if count == 1 else f"{count:,} {_PLURALS.get(word, f'{word}s')}"


def seconds(tenths: int) -> str:
    """Return a duration of so many tenths of a second."""
    return f"{tenths / 10:,.1f} s"
