"""Arguments are checked where they are given, and every refusal reads alike.

A value of another type is a `TypeError`, one that is out of its range a `ValueError`; either names
the argument, the value, and what was expected.
"""

from __future__ import annotations


def text(name: str, value: object) -> None:
    """Refuse what is no text."""
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}; expected text")
