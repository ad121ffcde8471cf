"""The situations that simulations ought to meet, each one value.

A suite that never meets a situation proves nothing about it: what is met sometimes is an expectation of all
histories together, as what holds always is one of each.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import attrs

from chronos.jobs.job import Origin, Result, Verdict
from simulator.faults import Spoiling
from simulator.properties import Expectation


class Where(StrEnum):
    """In which simulations a situation is expected."""

    HARDENED = "with faults and a NAS that keeps all promises"
    MINIMAL = "with faults and a NAS that keeps no more than the published contract"
    WIRE = "with the faults of the wire"
    NOWHERE = "in none"


@attrs.frozen(kw_only=True, eq=False)
class Mark:
    """A situation that somebody who reads a report would look for.

    Attributes:
        name: how reports name it.
        words: what happens, in a sentence.
        where: in which simulations it is expected.
        expectation: that it is met in some history of those.
    """

    name: str
    words: str
    where: Where = Where.HARDENED
    expectation: Expectation = attrs.field(default=Expectation.SOMETIMES, init=False)


NAS_OUTAGE = Mark(name="nas-outage", words="NAS is away")
HOST_OUTAGE = Mark(name="host-outage", words="the host starts no machine")
TOLD_TO_RUN_NO_JOBS = Mark(name="told-to-run-no-jobs", words="the agent is told to run no jobs")
IDENTITY_REFUSED = Mark(name="identity-refused", words="NAS refuses the agent's identity")

CRASH_DURING_A_RUN = Mark(name="crash-during-a-run", words="a machine dies while a run is in flight on it")
CRASH_BETWEEN_CLAIM_AND_ARM = Mark(
    name="crash-between-claim-and-arm", words="a machine dies after a claim is stored, before its arm is"
)
CRASH_BETWEEN_ARM_AND_ANSWER = Mark(
    name="crash-between-arm-and-answer", words="a machine dies before its answer to a fire"
)
SLOW_BOOT = Mark(name="slow-boot", words="a machine boots slower than the relay's patience")
CLOCK_WRONG = Mark(name="clock-wrong-after-boot", words="a machine's clock is wrong after its boot")
DRAINED = Mark(name="drained", words="the host replaces a machine, which drains")

SETTLED_AFTERWARDS = Mark(name="settled-afterwards", words="a process comes back for what it still owes")
LIST_FAILED = Mark(name="list-failed", words="a process cannot list the arms")
WAITS = Mark(name="waits", words="an occurrence waits for its turn or its retry")
ANOTHER_WAS_FASTER = Mark(
    name="another-process-was-faster", words="a compare-and-set fails, since the job was changed meanwhile"
)
STARTED_UNARMED = Mark(
    name="run-started-though-the-arm-failed", words="a run starts though NAS has not agreed"
)
TOKEN_USED_AGAIN = Mark(name="token-used-again", words="a fire comes again with a token that was used")
TOKEN_OUT_OF_TIME = Mark(
    name="token-refused-by-a-wrong-clock", words="a wrong clock takes a good token for an old or a future one"
)
CLAIMED_AGAIN = Mark(name="claimed-again", words="an occurrence is claimed for another attempt")
LEASE_RENEWED = Mark(name="lease-renewed", words="a process renews the lease of its run")
RECOVERED_AT_START = Mark(name="recovered-at-start", words="a start looks after a job")
RUN_TIMED_OUT = Mark(name="run-timed-out", words="a run lasts longer than its limit")
STORE_FAILED_AFTER_THE_WRITE = Mark(
    name="store-failed-after-the-write", words="the store fails although it has written"
)
CHANGED_DURING_A_RUN = Mark(name="changed-during-a-run", words="somebody changes a job while it runs")
CHANGE_REPEATED = Mark(name="change-repeated", words="somebody asks for a change again")

ARMED_AGAIN = Mark(
    name="armed-again-while-delivered", words="an instant is armed again while NAS delivers its fire"
)
ASKED_LATER = Mark(name="asked-to-ask-later", words="NAS asks to be asked later")
OLDER_REVISION_REFUSED = Mark(
    name="older-revision-refused", words="NAS refuses a request that another one has overtaken"
)
NOT_DELETED = Mark(
    name="replaced-one-shot-not-deleted", words="the one-shot of an arm that was replaced stays"
)
NAS_CRASHED = Mark(
    name="nas-crashed-before-the-one-shot", words="NAS dies after its row, before the one-shot"
)
RETRIES_SPENT = Mark(name="retries-spent", words="the external scheduler gives a one-shot up")
SWEPT = Mark(name="missing-one-shot-swept", words="NAS creates again a one-shot that is missing")
OLDER_RELAY_DROPPED = Mark(name="older-relay-dropped", words="NAS drops a call for an arm of before")
FIRE_OVERLAPS = Mark(name="fire-overlaps-its-retry", words="a fire is delivered while an earlier one is open")
ANSWER_LOST = Mark(name="answer-to-a-fire-lost", words="the answer to a fire is lost")

PAST_ARM_NEVER_FIRES = Mark(
    name="past-arm-never-fires", words="an arm for an instant that has passed is lost", where=Where.MINIMAL
)
ARM_SWALLOWED = Mark(
    name="arm-swallowed-by-dedup-window",
    words="the external scheduler takes a new one-shot for an old one",
    where=Where.MINIMAL,
)
NEW_ARM_DELETED = Mark(
    name="clean-up-deleted-the-new-arm",
    words="NAS, after a delivery, deletes the arm that came meanwhile",
    where=Where.MINIMAL,
)

# What a fire may be told that settles it; nobody settles one that is lost, early, or a change.
_SETTLE = {
    Verdict.ACCEPTED,
    Verdict.DUPLICATE,
    Verdict.GONE,
    Verdict.MISSED,
    Verdict.SKIPPED,
    Verdict.STOPPED,
}
FIRE_ANSWERED = {
    verdict: Mark(
        name=f"fire-answered-{verdict}",
        words=f"a fire is settled with the verdict `{verdict}`",
        where=Where.HARDENED if verdict in _SETTLE else Where.NOWHERE,
    )
    for verdict in Verdict
}
CLAIMED = {
    origin: Mark(name=f"claimed-{origin}", words=f"an occurrence of origin `{origin}` is claimed")
    for origin in Origin
}
ENDED = {
    result: Mark(name=f"outcome-{result}", words=f"occurrences end with the result `{result}`")
    for result in Result
}

ANSWER_SPOILED = {
    spoiling: Mark(
        name=f"wire-answer-{spoiling.value}",
        words=f"an answer of NAS comes {spoiling.value}",
        where=Where.WIRE if spoiling in (Spoiling.TORN, Spoiling.KIND) else Where.NOWHERE,
    )
    for spoiling in Spoiling
}
FIRE_SPOILED = {
    spoiling: Mark(
        name=f"wire-fire-{spoiling.value}", words=f"a fire comes {spoiling.value}", where=Where.WIRE
    )
    for spoiling in Spoiling
}

MARKS: tuple[Mark, ...] = (
    *(value for value in tuple(globals().values()) if isinstance(value, Mark)),
    *FIRE_ANSWERED.values(),
    *CLAIMED.values(),
    *ENDED.values(),
    *ANSWER_SPOILED.values(),
    *FIRE_SPOILED.values(),
)


def never_met(met: Iterable[str], where: Where) -> list[str]:
    """Return the names of the marks that simulations of a kind were to meet sometimes, and have not met.

    Args:
        met: the names of those that were met.
        where: which simulations.
    """
    known = set(met)
    return [mark.name for mark in MARKS if mark.where is where and mark.name not in known]
