"""How the values of this library are made: by `attrs`, frozen, with a `repr` that is written once for all.

The machine of an agent starts anew for each fire, and the methods of a class are compiled at each start. Of
those that `attrs` writes, `repr` takes nearly half of the time, and most starts never show a value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from attrs import frozen as value
else:

    def value(cls: type | None = None, **options: Any) -> Any:
        """Make a class of frozen values, as `attrs.frozen` does, with the same options but `repr`."""

        def made(given: type) -> type:
            finished = attrs.frozen(given, repr=False, **options)
            if "__repr__" not in vars(given):
                finished.__repr__ = _shown
            return finished

        return made if cls is None else made(cls)


def _shown(self: Any) -> str:
    """Return how `attrs` shows a value."""
    fields = (
        f"{field.name}={_show_of(field)(getattr(self, field.name))}"
        for field in attrs.fields(type(self))
        if field.repr
    )
    return f"{type(self).__qualname__.rpartition('>.')[2]}({', '.join(fields)})"


def _show_of(field: attrs.Attribute[Any]) -> Callable[[Any], str]:
    return repr if field.repr is True else field.repr  # type: ignore[return-value]


__all__ = ["value"]
