"""Where two histories part: the first difference of two traces, side by side."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, TextIO

from chronos.cli.console import BadUsage

# So many lines are told before the difference, and so many of each history from there.
BEFORE, AFTER = 6, 12

_WIDTH = 58
# Where a line is in its file is no difference.
_COMPARED = ("at", "kind", "job_id", "lane", "text", "to", "arrives_us")
_NEEDED = ("at", "kind", "text")


def difference(one: str, other: str) -> list[str] | None:
    """Return the lines that tell where two traces part; None when they are the same.

    Args:
        one: the path of a trace as JSON lines.
        other: that of another.

    Raises:
        BadUsage: one of them is no such file.
    """
    before: deque[str] = deque(maxlen=BEFORE)
    with _opened(one) as left_file, _opened(other) as right_file:
        left, right = _entries(one, left_file), _entries(other, right_file)
        for number, (a, b) in enumerate(zip_longest(left, right)):
            if a is None or b is None or _what(a) != _what(b):
                rest = islice(zip_longest(_with(a, left), _with(b, right)), AFTER)
                return list(_told(number, before, one, other, rest))
            before.append(_said(a))
    return None


def _opened(path: str) -> TextIO:
    try:
        return Path(path).open(encoding="utf-8")
    except OSError as error:
        raise BadUsage(f"{path}: cannot be read: {error.strerror}") from None


def _entries(path: str, lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    wanted = "expected a line of a trace, as --trace FILE.jsonl writes it"
    try:
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                entry = None
            if not isinstance(entry, dict) or any(not isinstance(entry.get(key), str) for key in _NEEDED):
                raise BadUsage(f"{path}: line {number}: {wanted}")
            yield entry
    except UnicodeDecodeError:
        raise BadUsage(f"{path}: {wanted}; this is no text") from None


def _what(entry: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(entry.get(key) for key in _COMPARED)


def _with(first: dict[str, Any] | None, rest: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    if first is not None:
        yield first
        yield from rest


def _said(entry: dict[str, Any]) -> str:
    whose = entry.get("job_id")
    text = f"{whose}: {entry['text']}" if whose and whose not in entry["text"] else entry["text"]
    to = f" -> {entry['to']}" if entry.get("to") else ""
    return f"{entry['at'][5:23].replace('T', ' ').removesuffix('+00')} {text}{to}"


def _told(
    count: int,
    before: Iterable[str],
    one: str,
    other: str,
    rest: Iterable[tuple[dict[str, Any] | None, dict[str, Any] | None]],
) -> Iterator[str]:
    yield f"the same   {count:,} lines" if count else "the same   nothing"
    for line in before:
        yield f"           {line}"
    yield f"different  {_cut(one):{_WIDTH}} | {_cut(other)}"
    for a, b in rest:
        left, right = ("" if each is None else _said(each) for each in (a, b))
        mark = " " if a is not None and b is not None and _what(a) == _what(b) else "*"
        yield f"         {mark} {_cut(left):{_WIDTH}} | {_cut(right)}".rstrip()


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"
