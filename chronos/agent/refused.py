"""The fires that an endpoint turned away."""

from __future__ import annotations

from msgspec import Struct

from chronos.jobs.instants import Instant, format_instant, moment_or_none


class RefusedFires(Struct, frozen=True, kw_only=True):
    """The fires that the endpoint turned away since the process began: no job ran for them.

    Attributes:
        count: how many.
        last_us: when the last one came, epoch microseconds, UTC; None when none did.
        why: what was wrong with the last one, such as the audience of its token.
    """

    count: int = 0
    last_us: Instant | None = None
    why: str = ""

    last = moment_or_none()

    def one_more(self, at_us: Instant, why: str) -> RefusedFires:
        """Return the same with one more, which came at *at_us*."""
        return RefusedFires(count=self.count + 1, last_us=at_us, why=why)

    def __str__(self) -> str:
        if self.last_us is None:
            return "no fire was refused"
        were = "1 fire was refused" if self.count == 1 else f"{self.count} fires were refused, the last"
        return f"{were} at {format_instant(self.last_us)}: {self.why}"
