"""What may happen next in a state: in words, whether it is a fault, and a call that makes it happen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from simulator.search.state import State

Move: TypeAlias = tuple[str, bool, Callable[[], State]]


def bound(function: Callable[..., State], *arguments: Any) -> Callable[[], State]:
    """Return a call of *function* with *arguments*."""
    return lambda: function(*arguments)
