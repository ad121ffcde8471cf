"""What all values of the library have in common."""

from __future__ import annotations

import pickle
import re

import pytest

from chronos import Interval, Job
from chronos.errors import DataError
from chronos.jobs.instants import SECOND_US
from chronos.protocol.state import new_process
from chronos.values import evolve

JOB = Job(id="j", schedule=Interval(period_us=SECOND_US, anchor_us=0), next_us=None)


def test_a_value_is_frozen_hashable_and_compared_whole() -> None:
    """Two of the same fields are one value."""
    with pytest.raises(AttributeError):
        JOB.note = "changed"  # type: ignore[misc]
    with pytest.raises(TypeError):
        object.__setattr__(JOB, "note", "changed")
    same = evolve(JOB)
    assert same is not JOB
    assert {same, JOB} == {JOB}
    assert evolve(JOB, note="another") != JOB


def test_a_value_shows_its_fields() -> None:
    """By name, as it would be made."""
    assert re.match(r"Job\(id='j', schedule=Interval\(period_us=1000000, anchor_us=0\), ", repr(JOB))


def test_a_value_goes_to_another_process() -> None:
    """A campaign hands its values to workers."""
    assert pickle.loads(pickle.dumps(JOB)) == JOB
    process = new_process("a")
    assert pickle.loads(pickle.dumps(process)) == process


def test_a_changed_value_is_checked_like_a_new_one() -> None:
    """What a job carries is the one text of a JSON value, whichever way the job is made."""
    with pytest.raises(DataError):
        evolve(JOB, data_json="{ }")
    with pytest.raises(DataError):
        Job(id="j", schedule=JOB.schedule, next_us=None, data_json="{ }")
    with pytest.raises(TypeError, match="notes"):
        evolve(JOB, notes="x")
