"""The text of a jobs file, in the layout that it had before.

To write out every record of a large file takes longer than all the rest of a change. The text of a
record that stays is kept and used again. That of a record that cannot be read is never made anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from chronos.errors import StoreError

TOO_DEEP = "the jobs file has objects nested too deeply to be written"

# With which some editors begin a file in UTF-8. It says nothing of the jobs, and stays.
BYTE_ORDER_MARK = "\ufeff"

_INDENT = re.compile(r'\ufeff?\{\s*?\n([ \t]*)"')
_SPACE = re.compile(r"[ \t\n\r]*")


class Verbatim(str):
    """The text of a record, as it stands in the file."""

    __slots__ = ()


def texts_of_records(text: str) -> list[Verbatim]:
    """Return the text of each record of a jobs file.

    Args:
        text: the whole file, an object with a list `jobs`.
    """
    decoder = json.JSONDecoder()

    def behind(at: int) -> int:
        """Return where the next value begins, or the bracket that ends the list or object."""
        at = _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing as well
        return behind(at + 1) if text[at] in ",:" else at

    found: list[Verbatim] = []
    at = behind(len(BYTE_ORDER_MARK) if text.startswith(BYTE_ORDER_MARK) else 0)
    at = behind(at + 1)
    while text[at] != "}":
        key, at = decoder.raw_decode(text, at)
        at = behind(at)
        end = decoder.raw_decode(text, at)[1]
        if key == "jobs" and text[at] == "[":  # of several, the last counts, as for Python
            found = []
            item = behind(at + 1)
            while item < end - 1:
                after = decoder.raw_decode(text, item)[1]
                found.append(Verbatim(text[item:after]))
                item = behind(after)
        at = behind(end)
    return found


def encode_file(
    raw: Mapping[str, Any],
    *,
    like: bytes = b"",
    indent: str | None = None,
    texts: Mapping[int, str] | None = None,
) -> tuple[bytes, dict[int, str]]:
    """Return the bytes of the file *raw*, as `json.dumps` makes them, laid out like the file *like*.

    Args:
        raw: the file; its `jobs` are a list of objects, and of texts that are written as they are.
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
    start = BYTE_ORDER_MARK if before.startswith(BYTE_ORDER_MARK) else ""
    end = "\n" if before.endswith("\n") or not before else ""
    try:
        known = texts or {}
        made = {id(job): known.get(id(job)) or _dump(job, indent, depth=2) for job in raw["jobs"]}
        try:
            return (start + _put_together(raw, made, indent) + end).encode("utf-8"), made
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON can escape and UTF-8 cannot hold
            plain = {id(job): _dump(job, indent, depth=2, is_ascii=True) for job in raw["jobs"]}
            return (start + _put_together(raw, plain, indent, is_ascii=True) + end).encode("utf-8"), made
    except RecursionError:
        raise StoreError(TOO_DEEP, definite=True) from None


def _put_together(
    raw: Mapping[str, Any], made: Mapping[int, str], indent: str | None, *, is_ascii: bool = False
) -> str:
    jobs = _brackets("[]", [made[id(job)] for job in raw["jobs"]], indent, depth=1)
    values = {
        key: jobs if key == "jobs" else _dump(value, indent, depth=1, is_ascii=is_ascii)
        for key, value in raw.items()
    }
    items = [f"{json.dumps(key, ensure_ascii=is_ascii)}: {value}" for key, value in values.items()]
    return _brackets("{}", items, indent, depth=0)


def _brackets(pair: str, items: list[str], indent: str | None, *, depth: int) -> str:
    """Return *items* between the brackets, which begin at that depth."""
    if indent is None or not items:
        return pair[0] + ", ".join(items) + pair[1]
    inside, outside = "\n" + indent * (depth + 1), "\n" + indent * depth
    return pair[0] + inside + ("," + inside).join(items) + outside + pair[1]


def _dump(value: object, indent: str | None, *, depth: int, is_ascii: bool = False) -> str:
    """Return *value* as JSON that begins at that depth. No text in it has a line break of its own."""
    if isinstance(value, Verbatim):
        return value
    text = json.dumps(value, indent=indent, ensure_ascii=is_ascii, allow_nan=False)
    return text.replace("\n", "\n" + indent * depth) if indent else text
