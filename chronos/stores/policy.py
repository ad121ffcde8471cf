"""The field `policy` of a job's record: the choices of the job's owner.

One table says how each choice is spelled, for both directions. A choice that is absent or null is
the default of `Policy`, and a default is not written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import tzinfo
from enum import StrEnum
from typing import Any

import attrs
from msgspec import Struct

from chronos.errors import ScheduleError
from chronos.jobs.instants import SECOND_US
from chronos.jobs.policy import CatchUp, OnInterrupt, Overlap, Policy
from chronos.stores.near_misses import Names, plain
from chronos.stores.reader import Reader, counted, put, written_in


class _Choice(Struct, frozen=True):
    """One choice: the object that holds it (empty: `policy` itself), its key there, its name in `Policy`."""

    holder: str
    key: str
    name: str
    read: Callable[[Reader, str], Any]
    write: Callable[[Any, tzinfo], Any]


def _word(key: str, words: type[StrEnum]) -> _Choice:
    return _Choice(
        "", key, key, lambda given, name: given.word(name, words, None), lambda value, _: str(value)
    )


def _number(holder: str, key: str) -> _Choice:
    # `Policy` knows the highest.
    return _Choice(
        holder, key, key, lambda given, name: given.whole(name, at_least=1), lambda value, _: value
    )


def _seconds(holder: str, key: str, name: str, *, at_least_us: int) -> _Choice:
    return _Choice(
        holder,
        key,
        name,
        lambda given, name: given.duration(name, SECOND_US, at_least_us=at_least_us),
        lambda value, _: counted(value, SECOND_US),
    )


def _bound(key: str, name: str) -> _Choice:
    return _Choice("", key, name, lambda given, name: given.required_instant(name), written_in)


_CHOICES = (
    _seconds("", "misfire_grace_seconds", "misfire_grace_us", at_least_us=0),
    _word("catch_up", CatchUp),
    _number("", "catch_up_limit"),
    _word("overlap", Overlap),
    _word("on_interrupt", OnInterrupt),
    _number("retry", "attempts"),
    _seconds("retry", "delay_seconds", "retry_delay_us", at_least_us=1),
    _seconds("retry", "max_delay_seconds", "retry_max_delay_us", at_least_us=1),
    _seconds("", "time_limit_seconds", "time_limit_us", at_least_us=1),
    _bound("starts_at", "starts_us"),
    _bound("ends_at", "ends_us"),
)

# The keys of `policy`, and of each object in it, by its name; empty for `policy` itself.
KEYS: Mapping[str, tuple[str, ...]] = {
    "": tuple(dict.fromkeys(each.holder or each.key for each in _CHOICES)),
    "retry": tuple(each.key for each in _CHOICES if each.holder == "retry"),
}

_SYNONYMS = {
    **dict.fromkeys(("retries", "maxretries", "retrycount", "maxattempts", "tries"), ("retry", "attempts")),
    **dict.fromkeys(("backoff", "retrybackoff"), ("retry", "delay_seconds")),
    **dict.fromkeys(("grace", "misfire", "misfiregracetime"), ("", "misfire_grace_seconds")),
    "coalesce": ("", "catch_up"),
    **dict.fromkeys(("maxinstances", "concurrency", "concurrencypolicy"), ("", "overlap")),
    **dict.fromkeys(("timeout", "timelimit", "maxruntime"), ("", "time_limit_seconds")),
    **dict.fromkeys(("start", "startdate", "startat", "notbefore"), ("", "starts_at")),
    **dict.fromkeys(("end", "enddate", "endat", "notafter", "until"), ("", "ends_at")),
}
_OF_RETRY = {
    **dict.fromkeys(("count", "times", "max", "limit"), ("retry", "attempts")),
    **dict.fromkeys(("delay", "wait"), ("retry", "delay_seconds")),
}


def _names(holder: str) -> Names:
    """Return the names of the choices in one object, and those by which others are asked for in it."""
    meant = dict(_SYNONYMS) | (_OF_RETRY if holder else {})
    for each in _CHOICES:
        for name in (each.key, each.name, each.key.removesuffix("_seconds")):
            meant[plain(name)] = (each.holder, each.key)
    paths = {name: _path(*place, seen_from=holder) for name, place in meant.items()}
    known = [each.key for each in _CHOICES if each.holder == holder] + ([] if holder else ["retry"])
    return Names(tuple(known), paths, noun="choice")


def _path(holder: str, key: str, *, seen_from: str) -> str:
    if holder == seen_from:
        return key
    return f"{holder}.{key}" if holder else f"policy.{key}"


_NAMES = {holder: _names(holder) for holder in ("", "retry")}


def read_policy(given: Reader) -> Policy:
    """Return the policy that the object *given* is.

    Raises:
        JobsFileError: a choice is not what it should be, by itself or beside those before it.
    """
    _NAMES[""].check(given)
    _NAMES["retry"].check(given.child("retry"))
    policy = Policy()
    if not given.raw:
        return policy
    holders = {"": given, "retry": given.child("retry")}
    for choice in _CHOICES:
        holder = holders[choice.holder]
        if holder.get(choice.key) is None:
            continue
        try:
            policy = attrs.evolve(policy, **{choice.name: choice.read(holder, choice.key)})
        except ScheduleError as error:
            raise holder.refusal(choice.key, str(error)) from None
    return policy


def rewrite_policy(policy: Policy, before: Policy, raw: Mapping[str, Any], zone: tzinfo) -> dict[str, Any]:
    """Return the object of *policy*, made from the object *raw*, which reads as *before*.

    Args:
        policy: as it shall read.
        before: as *raw* reads.
        raw: stays as it is.
        zone: in which the bounds are written.

    Raises:
        ScheduleError: a bound is outside the years 1 to 9999.
    """
    written = dict(raw)
    defaults = Policy()
    for choice in _CHOICES:
        value = getattr(policy, choice.name)
        if value == getattr(before, choice.name):
            continue
        text = None if value == getattr(defaults, choice.name) else choice.write(value, zone)
        if not choice.holder:
            put(written, choice.key, text)
            continue
        holder = dict(written.get(choice.holder) or {})
        put(holder, choice.key, text)
        put(written, choice.holder, holder)
    return written
