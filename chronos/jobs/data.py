"""What a job carries for its runner: one JSON value, kept as the one text that stands for it.

A text can be hashed and compared whole, and whoever reads it gets a value of its own.
"""

from __future__ import annotations

import json
import math
from typing import Any

from chronos.errors import DataError

# A record is read and written with every claim, and a jobs file as a whole: a dozen jobs with as much
# are written in some 20 ms. What is larger belongs in a place of its own, which the data name.
MAX_DATA_BYTES = 64 * 1024

# As deep as common readers of JSON go by default; a jobs file is read by other programs as well.
MAX_DATA_DEPTH = 64

# Python reads and writes no whole number of more than 4,300 digits, unless it is told to.
MAX_DATA_DIGITS = 4300

NO_DATA = "null"
"""The text of None: of a job that was given no data."""

_TOO_LONG = 10**MAX_DATA_DIGITS
_EXPECTED = "expected null, true or false, a finite number, text, or lists and objects of these"


def json_of(value: object) -> str:
    """Return the one text of *value*: sorted keys, no spaces, nothing that UTF-8 cannot carry.

    Args:
        value: None, a truth value, a number, text, or lists and dicts of these whose keys are text.

    Raises:
        DataError: it is something else; its text has more than `MAX_DATA_BYTES` in UTF-8; or more than
            `MAX_DATA_DEPTH` lists and dicts stand in each other.
    """
    _check(value)
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    _check_size(len(text.encode()))
    return text


def value_of(text: str) -> Any:
    """Return the value of which *text* is the JSON: a new one each time."""
    return json.loads(text)


def check_json(text: str) -> None:
    """Check that `json_of` made *text*.

    Raises:
        DataError: it did not.
    """
    try:
        is_canonical = text == NO_DATA or json_of(value_of(text)) == text
    except (TypeError, ValueError, RecursionError) as error:
        raise error if isinstance(error, DataError) else DataError(f"data is no JSON: {error}") from None
    if not is_canonical:
        raise DataError("data is not as `json_of` writes it")


def _check(value: object) -> None:
    """Check each part of *value*. A list may stand in itself, or a thousand times in another one."""
    size, todo = 0, [("data", value, 1)]
    while todo:
        place, part, depth = todo.pop()
        size += 1 + (len(part) if isinstance(part, str | list | dict) else 0)
        _check_size(size)
        if (problem := _problem(part)) is not None:
            raise DataError(f"{place} is {problem}; {_EXPECTED}")
        if depth > MAX_DATA_DEPTH and isinstance(part, list | dict):
            raise DataError(f"{place} is nested too deeply; expected at most {MAX_DATA_DEPTH} levels")
        if isinstance(part, list):
            todo += [(f"{place}[{index}]", each, depth + 1) for index, each in enumerate(part)]
        elif isinstance(part, dict):
            for key, each in part.items():
                if not isinstance(key, str) or _problem(key) is not None:
                    problem = _problem(key) or _named(key)
                    raise DataError(f"{place} has a key that is {problem}; expected text")
                size += len(key)
                todo.append((f"{place}[{key[:40]!r}]", each, depth + 1))


def _check_size(size: int) -> None:
    if size > MAX_DATA_BYTES:
        raise DataError(f"data is too large; expected at most {MAX_DATA_BYTES} bytes as JSON in UTF-8")


def _problem(part: object) -> str | None:
    """Return why *part* by itself is no JSON; None when it is."""
    match part:
        case None | bool() | list() | dict():
            return None
        case int():
            return "too long a number" if abs(part) >= _TOO_LONG else None
        case float():
            return None if math.isfinite(part) else str(part)
        case str():
            return None if _is_whole(part) else "text with half of a surrogate pair"
    return _named(part)


def _is_whole(text: str) -> bool:
    """Return whether UTF-8 can carry *text*; JSON could, and no store and no socket would."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _named(part: object) -> str:
    return f"of type {type(part).__name__}"
