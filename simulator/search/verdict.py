"""Whether the properties of a moment hold, and what says that one does not."""

from __future__ import annotations

from simulator import properties
from simulator.moments import Moment


class Violated(Exception):
    """A property does not hold; carries it and the reason."""

    def __init__(self, violated: properties.Property, reason: str) -> None:
        super().__init__(reason)
        self.property = violated
        self.reason = reason


def require(moment: Moment) -> None:
    """Decide the properties of a moment.

    Raises:
        Violated: one does not hold.
    """
    for violated, reason in properties.violations(moment):
        raise Violated(violated, reason)
