"""A NAS to test an agent with: in the same process or over HTTP, with signed fires and a clock to set.

`LocalNas` is for agents with threads (`Scheduler`), `AsyncLocalNas` for those in an event loop
(`AsyncScheduler`). Both keep the promises of contract 1.1, answer the real clients, sign each fire, deliver
what is due when their clock is moved on, and fail on demand (`Faults`). No test framework is needed, and
`import chronos` does not bring this along.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chronos.testing.clock import Clock
    from chronos.testing.faults import Faults
    from chronos.testing.local import AsyncLocalNas, LocalNas
    from chronos.testing.nas import HARDENED, MINIMAL, Promises
    from chronos.testing.portal import Delivery, Request

_MODULES = {
    "chronos.testing.clock": ("Clock",),
    "chronos.testing.faults": ("Faults",),
    "chronos.testing.local": ("AsyncLocalNas", "LocalNas"),
    "chronos.testing.nas": ("HARDENED", "MINIMAL", "Promises"),
    "chronos.testing.portal": ("Delivery", "Request"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "HARDENED",
    "MINIMAL",
    "AsyncLocalNas",
    "Clock",
    "Delivery",
    "Faults",
    "LocalNas",
    "Promises",
    "Request",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
