"""The network: every message takes time, and some are lost, doubled or late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chronos.jobs.schedule import SECOND_US
from simulator.history import Kind
from simulator.kernel import Kernel
from simulator.watch import Watch

# One way between two parties, as a matter of course: a table to choose from.
LATENCY_US = tuple(milliseconds * 1000 for milliseconds in (
    30, 12, 15, 18, 21, 25, 35, 40, 46, 54, 64, 76, 90, 110, 140, 180,
))  # fmt: skip
# How late a delayed message is: longer than the bound of an arm inside a fire (10 s), than a relay's
# patience (30 s), and long enough for the other side to have moved on.
DELAY_US = 95 * SECOND_US
DUPLICATE_AFTER_US = 4 * SECOND_US

_LOST, _DUPLICATED, _DELAYED = 1, 2, 3


class Network:
    """Carries messages about a job, and lets the watch know that they are on their way."""

    def __init__(self, kernel: Kernel, watch: Watch) -> None:
        self._kernel = kernel
        self._watch = watch

    def latency_us(self) -> int:
        """Return how long an ordinary message takes."""
        return LATENCY_US[self._kernel.choose("network.latency", len(LATENCY_US))]

    def request(self, subject: int, deliver: Callable[..., None], *arguments: Any) -> int | None:
        """Carry a request about *subject*; return when it arrives, or None when it is lost."""
        kernel = self._kernel
        latency_us = LATENCY_US[kernel.choose("network.latency", len(LATENCY_US))]
        if kernel.faulty:
            fault = kernel.choose("network.request", 4)
            if fault == _LOST:
                return None
            if fault == _DUPLICATED:
                kernel.record(Kind.DUPLICATED, subject)
                self._carry(latency_us + DUPLICATE_AFTER_US, subject, deliver, arguments)
            elif fault == _DELAYED:
                kernel.record(Kind.DELAYED, subject, DELAY_US // SECOND_US)
                latency_us += DELAY_US
        return self._carry(latency_us, subject, deliver, arguments)

    def reply(self, subject: int, deliver: Callable[..., None], *arguments: Any) -> int | None:
        """Carry a reply about *subject*; return when it arrives, or None when it is lost."""
        kernel = self._kernel
        latency_us = LATENCY_US[kernel.choose("network.latency", len(LATENCY_US))]
        if kernel.faulty:
            fault = kernel.choose("network.reply", 3)
            if fault == 1:
                return None
            if fault:
                latency_us += DELAY_US
        return self._carry(latency_us, subject, deliver, arguments)

    def _carry(
        self, latency_us: int, subject: int, deliver: Callable[..., None], arguments: tuple[Any, ...]
    ) -> int:
        self._watch.hold(subject)
        arrives_us = self._kernel.now_us + latency_us
        self._kernel.at(arrives_us, self._arrive, subject, deliver, arguments)
        return arrives_us

    def _arrive(self, subject: int, deliver: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        deliver(*arguments)
        self._watch.release(subject)
