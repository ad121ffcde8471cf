"""The field `policy` of a job's record: the choices of the job's owner.

One table says how each choice is spelled, for both directions. A choice that is absent or null is
the default of `Policy`, and a default is not written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import tzinfo
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

import attrs

from chronos.protocol.job import CatchUp, OnInterrupt, Overlap, Policy
from chronos.protocol.schedule import SECOND_US, ScheduleError
from chronos.stores.reader import Reader, counted, put, written_in


@attrs.frozen
class _Choice:
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


def read_policy(given: Reader) -> Policy:
    """Return the policy that the object *given* is.

    Raises:
        JobsFileError: a choice is not what it should be, by itself or beside those before it.
    """
    _refuse_misspelled(given, "")
    _refuse_misspelled(given.child("retry"), "retry")
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


def _refuse_misspelled(given: Reader, holder: str) -> None:
    """Refuse a key that was meant for a choice and is none; whatever else is there is the agent's own."""
    known = [each.key for each in _CHOICES if each.holder == holder] + ([] if holder else ["retry"])
    elsewhere = {
        name: each for each in _CHOICES for name in (each.key, each.name, each.key.removesuffix("_seconds"))
    }
    for key in given.raw:
        if key in known:
            continue
        close = get_close_matches(key, known, n=1, cutoff=0.75)
        if close:
            raise given.refusal(key, f"no such choice; did you mean {close[0]}?")
        if key in elsewhere:
            meant = elsewhere[key]
            path = f"{meant.holder}.{meant.key}" if meant.holder else meant.key
            raise given.refusal(key, f"no such choice here; in a jobs file it is policy.{path}")
