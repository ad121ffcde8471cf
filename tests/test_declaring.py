"""Sets of jobs that an agent declares when it starts, and what it reads of them, through both schedulers."""

from __future__ import annotations

import pytest

from chronos.errors import StoreError
from tests.agents import MakeWorld, at, every_hour, later

# --- Reading ---


def test_jobs_are_read_without_a_call_to_nas(make_world: MakeWorld) -> None:
    """They come as the store holds them, in its order."""
    first, second = every_hour("b"), later("a", note="mine")
    world = make_world(first, second)
    assert world.agent.ask("jobs") == (first, second)
    assert world.agent.ask("get", "a") == second
    assert world.agent.ask("get", "nobody") is None
    assert world.nas.asked == []
    with pytest.raises(TypeError, match="job_id is 7; expected text"):
        world.agent.ask("get", 7)


def test_a_store_that_cannot_be_read_says_so_to_who_reads(make_world: MakeWorld) -> None:
    """It is the error of a store, whatever the store raised."""
    world = make_world()

    def break_down(*_: object) -> None:
        raise ValueError(at(0))

    world.store.load = world.store.load_all = break_down
    for question in ("jobs",), ("get", "j"):
        with pytest.raises(StoreError, match="the job store failed: ValueError: 2026"):
            world.agent.ask(*question)
