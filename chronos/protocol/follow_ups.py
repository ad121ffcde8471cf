"""The work that a flow leaves unfinished, and when it is tried again."""

from __future__ import annotations

from collections.abc import Sequence

from chronos.jobs.instants import SECOND_US, Instant
from chronos.jobs.job import Origin, Verdict
from chronos.protocol.clocks import CLOCK_MARGIN_US
from chronos.protocol.draft import Fired
from chronos.protocol.flow_effects import Answer
from chronos.protocol.intents import Finish, Fire, Intent, Renew, concerns
from chronos.values import evolve

# When a process tries again to settle work that nobody else repeats: the end or the renewal
# of a run, a recovery. The host keeps the machine for that long, and no longer; a process that lives on
# goes on trying, ever more slowly.
FOLLOW_UP_DELAYS_US = (5 * SECOND_US, 15 * SECOND_US, 45 * SECOND_US)

# An agent is as good as down while NAS does not know its arms: five minutes after NAS is back, all of
# them are asked for at the latest. An agent that asks so rarely is no burden to a NAS that is down.
LONGEST_FOLLOW_UP_DELAY_US = 300 * SECOND_US


def follow_up(intent: Intent, answer: Answer, now_us: Instant) -> Intent | None:
    """Return what a process still owes after *answer*, to be begun after the next follow-up delay.

    A fire is repeated by NAS. Nobody repeats the end of a run, its renewal or a recovery: one that was
    not stored is tried again as it is, and one that was stored but not armed is converged like a
    recovery. So is a change, whose author may not ask again. None when nothing is owed.
    """
    if isinstance(intent, Finish) and intent.confirm and answer.verdict is Verdict.LOST:
        # Its first try may have been stored although the store failed. Then nobody has started what
        # had waited for the end of the run and was claimed with it.
        return recovery(intent.job_id, now_us)
    if answer.settled:
        return None
    if isinstance(intent, Fire) and intent.fired.origin is not Origin.RECOVERY:
        return None
    if answer.verdict is not None:
        return recovery(intent.job_id, now_us)
    match intent:
        case Finish():
            # The move may have been made all the same; then only NAS is left to be asked.
            return evolve(intent, confirm=True)
        case Fire() | Renew():
            return intent
    return None


def follow_up_delay_us(tries: int, first_us: Sequence[int] = FOLLOW_UP_DELAYS_US) -> int:
    """Return how long the next try waits after so many, microseconds: ever longer, up to some minutes.

    Args:
        tries: how many there were.
        first_us: the first delays; after the last of them the delay doubles.

    Source: incident L14.
    """
    if tries < len(first_us):
        return first_us[tries]
    doubled_us = first_us[-1] << min(tries - len(first_us) + 1, 40)
    return max(first_us[-1], min(LONGEST_FOLLOW_UP_DELAY_US, doubled_us))


def makes_needless(new: Intent, owed: Intent) -> bool:
    """Return whether *new* does what *owed* would do, so that a process need not remember both."""
    if new.job_id != owed.job_id or type(new) is not type(owed):
        return False
    return isinstance(new, Fire) or (isinstance(owed, Finish | Renew) and concerns(new, owed.run))


def recovery(job_id: str, now_us: Instant) -> Fire:
    """Return the fire that nobody sent, for what is overdue by more than a clock may be wrong."""
    overdue_us = now_us - CLOCK_MARGIN_US
    return Fire(job_id=job_id, fire_at_us=overdue_us, fired=Fired(origin=Origin.RECOVERY))
