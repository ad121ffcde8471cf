"""Names that were meant for a field of this library and are none. None of them is passed over in silence.

What an agent keeps in a record is its own, under any name. So a name is taken for a near miss only where it
is a field but for case, separators or a plural; where it is a known synonym; or, in an object that is this
library's, where it is spelled nearly alike. Source: incident S7.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache

import msgspec
from msgspec import Struct

from chronos.stores.reader import Reader

_SEPARATORS = re.compile(r"[\W_]+")


class Names(Struct, frozen=True, eq=False):
    """The fields of one kind of object.

    Attributes:
        known: their names.
        synonyms: what people call them elsewhere, in small letters without separators, and the path of
            the field that is meant.
        is_ours: whether the object is this library's. In the agent's, a synonym is the agent's own where
            the field itself is there.
        noun: what a field is called in messages.
    """

    known: tuple[str, ...]
    synonyms: Mapping[str, str] = msgspec.field(default_factory=dict)
    is_ours: bool = True
    noun: str = "field"

    def check(self, given: Reader) -> None:
        """Refuse a near miss.

        Raises:
            JobsFileError: a name in *given* was meant for one of the fields; it names the right one.
        """
        for key in given.raw:
            if key in self.known or not isinstance(key, str):
                continue
            meant = _meant(self, key)
            if meant is not None and not (self._may_be_theirs(key) and _has(given.raw, meant)):
                raise given.refusal(key, f"no such {self.noun}; did you mean {meant}?")

    def _may_be_theirs(self, key: str) -> bool:
        return not self.is_ours and plain(key) in self.synonyms


@lru_cache(maxsize=4096)
def _meant(names: Names, key: str) -> str | None:
    """Return the field that *key* was meant for; None when it is nobody's but the agent's."""
    said = plain(key)
    spelled = {plain(name): name for name in names.known}
    if meant := spelled.get(said) or names.synonyms.get(said):
        return meant
    for name in spelled:
        if name == said + "s" or said in _plurals(name):
            return spelled[name]
    close = get_close_matches(key, names.known, n=1, cutoff=0.75) if names.is_ours else ()
    return close[0] if close else None


def plain(name: str) -> str:
    """Return *name* in small letters, without separators."""
    return _SEPARATORS.sub("", name).lower()


def _plurals(name: str) -> tuple[str, ...]:
    return (name + "s", name[:-1] + "ies") if name.endswith("y") else (name + "s",)


def _has(raw: Mapping[str, object], path: str) -> bool:
    """Return whether the field at *path* is there."""
    holder, _, name = path.rpartition(".")
    value = raw.get(holder) if holder else raw
    return isinstance(value, Mapping) and name in value


FILE = Names(
    ("jobs", "updated_at", "exported_at", "tz"),
    {"timezone": "tz", "timezonename": "tz", "zone": "tz"},
    is_ours=False,
)
RECORD = Names(
    (
        "id",
        "schedule",
        "repeat",
        "enabled",
        "state",
        "next_run_at",
        "last_run_at",
        "created_at",
        "policy",
        "chronos",
        "paused_reason",
    ),
    {
        **dict.fromkeys(("tz", "timezone", "timezonename"), "schedule.tz"),
        **dict.fromkeys(("nextrun", "nextruntime"), "next_run_at"),
        **dict.fromkeys(("lastrun", "lastruntime"), "last_run_at"),
        **dict.fromkeys(("times", "maxruns", "maxtimes"), "repeat.times"),
        **dict.fromkeys(("enable", "disabled", "paused"), "enabled"),
        **dict.fromkeys(("expr", "cron", "cronexpr", "cronexpression"), "schedule.expr"),
        **dict.fromkeys(("misfiregraceseconds", "misfiregracetime"), "policy.misfire_grace_seconds"),
        "catchup": "policy.catch_up",
        "catchuplimit": "policy.catch_up_limit",
        "oninterrupt": "policy.on_interrupt",
        "startsat": "policy.starts_at",
        "endsat": "policy.ends_at",
        "timelimitseconds": "policy.time_limit_seconds",
        "secondsfield": "schedule.seconds_field",
    },
    is_ours=False,
)
SCHEDULE = Names(
    ("kind", "expr", "tz", "seconds_field", "minutes", "run_at", "display"),
    {
        **dict.fromkeys(("timezone", "timezonename", "tzname", "zone", "location"), "tz"),
        **dict.fromkeys(("expression", "cron", "cronexpr", "cronexpression", "crontab"), "expr"),
        "type": "kind",
        **dict.fromkeys(("every", "period", "interval", "seconds", "hours", "days"), "minutes"),
        **dict.fromkeys(("at", "date", "datetime", "time", "when", "rundate"), "run_at"),
    },
)
REPEAT = Names(
    ("times", "completed"),
    {
        **dict.fromkeys(("count", "max", "limit", "maxruns", "repeats", "total"), "times"),
        **dict.fromkeys(("done", "runs", "executed", "ran"), "completed"),
    },
)
OWN = Names(
    (
        "revision",
        "declared",
        "runs",
        "waiting",
        "last_manual",
        "ran_ahead",
        "history",
        "anchor",
        "tz",
        "data",
    ),
)
RUN = Names(
    ("occurrence", "attempt", "owner", "claimed", "lease_until", "origin", "minted", "received"),
)
WAITING = Names(("occurrence", "attempt", "not_before", "origin"))
OUTCOME = Names(
    (
        "result",
        "reason",
        "occurrence",
        "last_occurrence",
        "count",
        "attempt",
        "origin",
        "minted",
        "received",
        "claimed",
        "at",
    ),
)
