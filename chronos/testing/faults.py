"""What a NAS does wrong when it is told to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs


@attrs.define(kw_only=True)
class Faults:
    """What goes wrong at NAS, and on the ways to it and from it: assign, and assign `Faults()` to heal.

    The counts are used up, one for each time; everything else lasts.

    Attributes:
        is_down: NAS answers 503 and delivers nothing.
        refuses_identity: NAS answers 403 `invalid_client`, which no retry mends.
        retry_after_s: NAS answers 429 with this Retry-After, seconds; None for never.
        lost_requests: so many requests do not arrive at NAS.
        lost_answers: so many answers of NAS are lost, after it has done as it was asked.
        agent_is_down: fires do not reach the agent.
        lost_fires: so many fires are lost on their way.
        lost_fire_answers: so many answers to fires are lost: the agent has taken the fire, and NAS
            delivers it again.
        delivers_twice: each fire is delivered a second time, with a token of its own, before NAS has
            handled the answer to the first.
        claims: replace claims of the fire tokens, such as `{"aud": "agent:other"}`; one that is None
            is left out.
    """

    is_down: bool = False
    refuses_identity: bool = False
    retry_after_s: int | None = None
    lost_requests: int = 0
    lost_answers: int = 0
    agent_is_down: bool = False
    lost_fires: int = 0
    lost_fire_answers: int = 0
    delivers_twice: bool = False
    claims: Mapping[str, Any] = attrs.field(factory=dict)

    def strikes(self, name: str) -> bool:
        """Return whether the fault that is counted by *name* happens now; it is used up by that."""
        left: int = getattr(self, name)
        setattr(self, name, max(0, left - 1))
        return left > 0
