"""The network: every message takes time, and some are lost, doubled or late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chronos.jobs.instants import SECOND_US
from simulator import faults
from simulator.faults import Way
from simulator.history import Kind
from simulator.kernel import Kernel
from simulator.watch import Watch

_ON_TIME = (0,)


class Network:
    """Carries messages about a job, and lets the watch know that they are on their way."""

    def __init__(self, kernel: Kernel, watch: Watch) -> None:
        self._kernel = kernel
        self._watch = watch

    def request(self, subject: int, deliver: Callable[..., None], *arguments: Any) -> int | None:
        """Carry a request about *subject*; return when it arrives, or None when it is lost."""
        kernel = self._kernel
        latency_us, way = kernel.vary(faults.LATENCY, subject), kernel.fault(faults.REQUEST, subject)
        if way is Way.DUPLICATED:
            kernel.record(Kind.DUPLICATED, subject)
        elif way is Way.DELAYED:
            kernel.record(Kind.DELAYED, subject, way.value[0] // SECOND_US)
        if way is not None:
            self._watch.ledger.mishap(faults.REQUEST.name, subject)
        return self._carry(latency_us, way, subject, deliver, arguments)

    def reply(self, subject: int, deliver: Callable[..., None], *arguments: Any) -> int | None:
        """Carry a reply about *subject*; return when it arrives, or None when it is lost."""
        kernel = self._kernel
        latency_us, way = kernel.vary(faults.LATENCY, subject), kernel.fault(faults.REPLY, subject)
        if way is not None:
            self._watch.ledger.mishap(faults.REPLY.name, subject)
        return self._carry(latency_us, way, subject, deliver, arguments)

    def _carry(
        self,
        latency_us: int,
        way: Way | None,
        subject: int,
        deliver: Callable[..., None],
        arguments: tuple[Any, ...],
    ) -> int | None:
        """Carry each copy of a message; return when the first one arrives, or None when there is none."""
        arrives_us = None
        for delay_us in _ON_TIME if way is None else way.value:
            arrives_us = self._kernel.now_us + latency_us + delay_us
            self._send(arrives_us, subject, deliver, arguments)
        return arrives_us

    def _send(
        self, arrives_us: int, subject: int, deliver: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        self._watch.hold(subject)
        self._kernel.at(arrives_us, self._arrive, subject, deliver, arguments)

    def _arrive(self, subject: int, deliver: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        deliver(*arguments)
        self._watch.release(subject)
