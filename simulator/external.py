"""The external scheduler: makes one call for each one-shot, at least once, and gives up after a while.

What it decides is in `chronos.testing.nas`: when it repeats a call, which name it takes for a former one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from chronos.testing.nas import OneShot, UsedNames, repeat_delay_us
from simulator import faults
from simulator.kernel import Kernel


class Pending(Struct, eq=False):
    """A one-shot that the scheduler holds.

    Attributes:
        shot: what it was asked for.
        failures: how many calls were not answered 2xx.
        is_live: False once it was delivered, deleted or given up.
    """

    shot: OneShot
    failures: int = 0
    is_live: bool = True


class ExternalScheduler:
    """Holds the one-shots and calls *relay* for each; *spent* when it gives one up.

    Args:
        kernel: time and choice.
        subjects: the subject number of each job.
        relay: called with a `Pending` whose time has come.
        spent: called with the one-shot that is given up.
        horizon_us: calls later than this are never made; the calendar ends there.

    It takes what NAS wants of it while it makes no calls.
    """

    def __init__(
        self,
        kernel: Kernel,
        subjects: Mapping[str, int],
        *,
        relay: Callable[[Pending, int], None],
        spent: Callable[[OneShot], None],
        horizon_us: int,
    ) -> None:
        self._kernel, self._subjects = kernel, subjects
        self._relay = relay
        self._spent = spent
        self._horizon_us = horizon_us
        self._held: dict[tuple[str | int, ...], Pending] = {}
        self._used_names = UsedNames()
        self._postponed: list[Pending] | None = None
        self._names_of: dict[str, set[tuple[str | int, ...]]] = {}

    def pause(self) -> None:
        """Make no calls from now on."""
        if self._postponed is None:
            self._postponed = []

    def resume(self) -> None:
        """Make calls again, and first those that have come due meanwhile, in their order."""
        postponed, self._postponed = self._postponed or [], None
        for pending in postponed:
            self._call(pending)

    def create(self, shot: OneShot, *, at_us: int, keeps_names: bool) -> bool:
        """Hold *shot* until *at_us*; return False when it is swallowed, its name being still known.

        Args:
            shot: what to call for.
            at_us: when; an instant in the past means at once.
            keeps_names: whether the name may come again, so that its window must be remembered.
        """
        kernel = self._kernel
        if keeps_names and not self._used_names.takes(shot, at_us, kernel.now_us):
            return self.holds(shot)
        pending = self._held[shot.name] = Pending(shot)
        self._names_of.setdefault(shot.job_id, set()).add(shot.name)
        if at_us <= self._horizon_us:
            due_us = max(at_us, kernel.now_us)
            kernel.at(due_us + kernel.vary(faults.LATENESS, self._subjects[shot.job_id]), self._call, pending)
        return True

    def delete(self, shot: OneShot) -> None:
        """Let go of *shot*, if it is still held."""
        pending = self._held.pop(shot.name, None)
        if pending is not None:
            pending.is_live = False
            self._names_of[shot.job_id].discard(shot.name)

    def held_of(self, job_id: str) -> list[OneShot]:
        """Return the one-shots of a job that will still be called for."""
        return [self._held[name].shot for name in self._names_of.get(job_id, ())]

    def holds(self, shot: OneShot) -> bool:
        """Return whether *shot* will still be called for."""
        pending = self._held.get(shot.name)
        return pending is not None and pending.is_live

    def succeeded(self, pending: Pending) -> None:
        """The call was answered 2xx."""
        self.delete(pending.shot)
        again_us = self._kernel.fault(faults.SECOND_CALL, self._subjects[pending.shot.job_id])
        if again_us is not None:
            self._kernel.after(again_us, self._call_again, pending, self._kernel.now_us)

    def failed(self, pending: Pending) -> None:
        """The call was not answered 2xx: repeat it later, or give up."""
        if not pending.is_live:
            return
        pending.failures += 1
        delay_us = repeat_delay_us(pending.failures)
        if delay_us is None:
            self.delete(pending.shot)
            self._spent(pending.shot)
        else:
            self._kernel.after(delay_us, self._call, pending)

    def _call_again(self, pending: Pending, called_us: int) -> None:
        if self._postponed is None:  # otherwise the first call was enough
            self._relay(pending, called_us)

    def _call(self, pending: Pending) -> None:
        if not pending.is_live:
            return
        if self._postponed is not None:
            self._postponed.append(pending)
            return
        delay_us = self._kernel.fault(faults.LATE_CALL, self._subjects[pending.shot.job_id])
        if delay_us is not None:
            self._kernel.after(delay_us, self._relay_if_live, pending)
        else:
            self._relay(pending, self._kernel.now_us)

    def _relay_if_live(self, pending: Pending) -> None:
        if self._postponed is not None:
            self._postponed.append(pending)
        elif pending.is_live:
            self._relay(pending, self._kernel.now_us)
