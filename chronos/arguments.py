"""Arguments are checked where they are given, and every refusal reads alike.

A value of another type is a `TypeError`, one that is out of its range a `ValueError`; either names
the argument, the value, and what was expected.
"""

from __future__ import annotations

import inspect
import math
from types import UnionType
from typing import Any


def text(name: str, value: object) -> None:
    """Refuse what is no text."""
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}; expected text")


def filled(name: str, value: object) -> None:
    """Refuse what is no text, or an empty one."""
    text(name, value)
    if not value:
        raise ValueError(f"{name} is empty; expected text")


def flag(name: str, value: object) -> None:
    """Refuse what is neither true nor false."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; expected True or False")


def whole(name: str, value: object, least: int, most: int | None = None) -> None:
    """Refuse what is no whole number from *least* to *most*; None for no upper bound."""
    expected = f"a whole number of at least {least}" if most is None else f"a whole number, {least} to {most}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; expected {expected}")
    if value < least or (most is not None and value > most):
        raise ValueError(f"{name} is {value}; expected {expected}")


def seconds(name: str, value: object, *, least: float = 0.0) -> None:
    """Refuse what is no finite number of seconds of at least *least*."""
    expected = f"seconds as a number, {least:g} or more"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is {value!r}; expected {expected}")
    if not least <= value or not math.isfinite(value):
        raise ValueError(f"{name} is {value}; expected {expected}")


def instance(name: str, value: object, kind: type | UnionType, *others: object) -> None:
    """Refuse what is not of a kind, and not one of *others* either."""
    if not isinstance(value, kind) and not any(value is other for other in others):
        expected = getattr(kind, "__name__", None) or str(kind).replace("chronos.protocol.schedule.", "")
        also = "".join(f", or {other!r}" for other in others)
        raise TypeError(f"{name} is {value!r}; expected {expected}{also}")


def function(name: str, value: object, *, may_be_async: bool = False) -> None:
    """Refuse what cannot be called; and what is async, where nobody would await it."""
    if not callable(value):
        raise TypeError(f"{name} is {value!r}; expected a function")
    if not may_be_async and is_async(value):
        raise TypeError(f"{name} is {value!r}, which is async; expected a function that is not")


def is_async(value: Any) -> bool:
    """Return whether what is called there has to be awaited."""
    return inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__)


def methods(name: str, value: object, expected: str, *names: str) -> None:
    """Refuse what lacks one of the methods by which it would be used."""
    missing = [each for each in names if not callable(getattr(value, each, None))]
    if missing or isinstance(value, type):
        raise TypeError(f"{name} is {value!r}; expected {expected}")
