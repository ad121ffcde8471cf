"""The values of the library are those of `attrs`, but for how their `repr` is made."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from chronos import Interval, Job
from chronos.jobs.instants import SECOND_US
from chronos.protocol.flow_effects import ListArms
from chronos.values import value


def _shapes(make: Any) -> Any:
    """Return a class of every kind of field, made by *make*."""

    @make(kw_only=True, cache_hash=True)
    class Shape:
        plain: int
        text: str = "it's"
        secret: str = attrs.field(default="s", repr=False)
        hidden: str = attrs.field(default="t", repr=lambda _: "***")
        inner: Any = None

    return Shape


def test_a_value_is_shown_as_attrs_would_show_it() -> None:
    """Fields that are not to be shown, and fields with a way of their own, included."""
    ours, theirs = _shapes(value), _shapes(attrs.frozen)
    assert repr(ours(plain=1, inner=ours(plain=2))) == repr(theirs(plain=1, inner=theirs(plain=2)))
    assert repr(ours(plain=1)) == 'Shape(plain=1, text="it\'s", hidden=***, inner=None)'
    assert repr(ListArms()) == "ListArms()"


def test_a_class_keeps_the_repr_that_it_has() -> None:
    """As with `attrs`."""

    @value
    class Own:
        def __repr__(self) -> str:
            return "mine"

    assert repr(Own()) == "mine"


def test_a_value_is_frozen_hashable_and_compared_whole() -> None:
    """Two of the same fields are one value."""
    job = Job(id="j", schedule=Interval(period_us=SECOND_US, anchor_us=0), next_us=None)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        job.note = "changed"  # type: ignore[misc]
    same = attrs.evolve(job)
    assert same is not job
    assert {same, job} == {job}
    assert attrs.evolve(job, note="another") != job
