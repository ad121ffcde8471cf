"""A dictionary that can be part of a value."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Map(dict[K, V]):
    """A dictionary that nobody changes once it is part of a value."""

    __slots__ = ("_hash",)

    def __hash__(self) -> int:  # type: ignore[override]
        try:
            return self._hash
        except AttributeError:
            self._hash: int = hash(frozenset(self.items()))
            return self._hash

    def plus(self, key: K, value: V) -> Map[K, V]:
        """Return the same with *value* under *key*."""
        changed = Map(self)
        changed[key] = value
        return changed

    def minus(self, key: K) -> Map[K, V]:
        """Return the same without *key*."""
        if key not in self:
            return self
        changed = Map(self)
        del changed[key]
        return changed
