"""The scheduler against a simple model: two processes, a store, a NAS, and everything that goes wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.model.machine import SchedulerAgainstModel


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """What goes wrong is meant to: nobody reads a million warnings."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


TestSchedulerAgainstModel = SchedulerAgainstModel.TestCase
TestSchedulerAgainstModel.settings = settings(
    max_examples=max(300, settings.default.max_examples), stateful_step_count=60
)
