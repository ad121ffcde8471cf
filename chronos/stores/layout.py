"""The text of a jobs file, in the layout that it had before.

To write out every record of a large file takes longer than all the rest of a change. The text of a
record that stays is kept and used again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from chronos.errors import StoreError

TOO_DEEP = "the jobs file has objects nested too deeply to be written"

_INDENT = re.compile(r'\{\s*?\n([ \t]*)"')


def encode_file(
    raw: Mapping[str, Any],
    *,
    like: bytes = b"",
    indent: str | None = None,
    texts: Mapping[int, str] | None = None,
) -> tuple[bytes, dict[int, str]]:
    """Return the bytes of the file *raw*, as `json.dumps` makes them, laid out like the file *like*.

    Args:
        raw: the file; its `jobs` are a list of objects.
        like: the file as it stood, from which the indentation and the newline at the end are taken.
        indent: the indentation when *like* has none.
        texts: what came back for *like*, while its records are still there.

    Returns:
        The bytes, and the text of each record by the `id` of the object that it is.

    Raises:
        StoreError: an object is nested too deeply.
    """
    before = like.decode("utf-8")
    if found := _INDENT.match(before):
        indent = found[1]
    end = "\n" if before.endswith("\n") or not before else ""
    try:
        known = texts or {}
        made = {id(job): known.get(id(job)) or _dump(job, indent, depth=2) for job in raw["jobs"]}
        try:
            return (_put_together(raw, made, indent) + end).encode("utf-8"), made
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON can escape and UTF-8 cannot hold
            text = json.dumps(raw, indent=indent, allow_nan=False)
            return (text + end).encode("ascii"), made
    except RecursionError:
        raise StoreError(TOO_DEEP, definite=True) from None


def _put_together(raw: Mapping[str, Any], made: Mapping[int, str], indent: str | None) -> str:
    jobs = _brackets("[]", [made[id(job)] for job in raw["jobs"]], indent, depth=1)
    values = {key: jobs if key == "jobs" else _dump(value, indent, depth=1) for key, value in raw.items()}
    items = [f"{json.dumps(key, ensure_ascii=False)}: {value}" for key, value in values.items()]
    return _brackets("{}", items, indent, depth=0)


def _brackets(pair: str, items: list[str], indent: str | None, *, depth: int) -> str:
    """Return *items* between the brackets, which begin at that depth."""
    if indent is None or not items:
        return pair[0] + ", ".join(items) + pair[1]
    inside, outside = "\n" + indent * (depth + 1), "\n" + indent * depth
    return pair[0] + inside + ("," + inside).join(items) + outside + pair[1]


def _dump(value: object, indent: str | None, *, depth: int) -> str:
    """Return *value* as JSON that begins at that depth. No text in it has a line break of its own."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    return text.replace("\n", "\n" + indent * depth) if indent else text
