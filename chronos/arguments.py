"""Arguments are checked where they are given, and every refusal reads alike.

A value of another type is a `TypeError`, one that is out of its range a `ValueError`; either names
the argument, the value, and what was expected. What is about time is `chronos.jobs.instants`'s.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from types import UnionType
from typing import Any

from chronos.jobs.instants import instant_of, needed

# Some thirty years: what is longer is a mistake, and more than a wait of the system takes.
LONGEST_S = 1e9


def text(name: str, value: object) -> None:
    """Refuse what is no text."""
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}; expected text")


def filled(name: str, value: object) -> None:
    """Refuse what is no text, or an empty one."""
    text(name, value)
    if not value:
        raise ValueError(f"{name} is empty; expected text that is not")


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


def seconds(name: str, value: object, *, may_be_zero: bool = True) -> None:
    """Refuse what is no number of seconds, from zero to `LONGEST_S`."""
    expected = f"seconds as a number, {'0 or' if may_be_zero else 'more than 0, and'} {LONGEST_S:g} at most"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is {value!r}; expected {expected}")
    if math.isnan(value) or not 0 <= value <= LONGEST_S or (value == 0 and not may_be_zero):
        raise ValueError(f"{name} is {value}; expected {expected}")


def instance(name: str, value: object, kind: type | UnionType, *others: object) -> None:
    """Refuse what is not of a kind, and not one of *others* either."""
    if not isinstance(value, kind) and not any(value is other for other in others):
        kinds = kind.__args__ if isinstance(kind, UnionType) else (kind,)
        expected = " or ".join([each.__name__ for each in kinds] + [repr(other) for other in others])
        raise TypeError(f"{name} is {value!r}; expected {expected}")


def function(name: str, value: object, *, may_be_async: bool = False) -> None:
    """Refuse what cannot be called; and what is async, where nobody would await it."""
    if not callable(value):
        raise TypeError(f"{name} is {value!r}; expected a function")
    if not may_be_async and has_to_be_awaited(value):
        raise TypeError(f"{name} is {value!r}, which is async; expected a function that is not")


def functions(name: str, values: object) -> tuple[Any, ...]:
    """Return *values*; refuse what is no series of functions that are not async."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} is {values!r}; expected a list of functions")
    found = tuple(values)
    for place, each in enumerate(found):
        function(f"{name}[{place}]", each)
    return found


def has_to_be_awaited(value: Any) -> bool:
    """Return whether what is called there has to be awaited."""
    return inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__)


def clock_us(name: str, clock: Callable[[], object]) -> None:
    """Refuse what is no function that returns epoch microseconds; it is called once."""
    function(name, clock)
    needed(f"what {name} returns", instant_of(f"what {name} returns", None, clock()))  # type: ignore[arg-type]


def methods(name: str, value: object, expected: str, *names: str, is_async: bool | None = None) -> None:
    """Refuse what lacks one of the methods by which it would be used, or has it async where that is told."""
    found = [getattr(value, each, None) for each in names]
    if isinstance(value, type) or not all(map(callable, found)):
        raise TypeError(f"{name} is {value!r}; expected {expected}, with {', '.join(names)}")
    if is_async is not None and any(has_to_be_awaited(each) != is_async for each in found):
        kind = "async" if is_async else "not async"
        raise TypeError(f"{name} is {value!r}; expected {expected}, whose {', '.join(names)} are {kind}")
