"""Stores under real processes that fight, and that are killed: nothing is torn, lost, or done twice.

What happens there is in `tests/torture.py`, a program of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

# Seconds after which a program that has not come to its end never will: it takes some on a busy machine.
_PATIENCE_S = 60

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture(params=["json file", "sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path, table_prefix: str) -> str:
    """Where a store is to be made, in each of the places that outlive a process."""
    found = {"kind": request.param, "prefix": table_prefix}
    if request.param == "json file":
        found["path"] = str(tmp_path / "jobs.json")
    elif request.param == "sqlite":
        found["url"] = f"sqlite:///{tmp_path}/jobs.db"
    else:
        found["url"] = request.getfixturevalue("postgresql_url")
    return json.dumps(found)


def run(what: str, place: str) -> None:
    """Run the program to its end, and end all of its processes whatever happens here."""
    program = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.torture", what, place],
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        start_new_session=True,
    )
    try:
        words = program.communicate(timeout=_PATIENCE_S)[1]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()
    assert program.returncode == 0, words


def test_processes_claim_each_occurrence_once(place: str) -> None:
    """Of several processes that fire the same occurrences, one claims each, and every end is stored."""
    run("fight", place)


def test_killed_processes_lose_nothing_that_was_acknowledged(place: str) -> None:
    """Whenever a process is killed, the store is whole, and what was promised holds (incident S1)."""
    run("kills", place)


def test_process_may_die_before_any_line_of_a_change(place: str) -> None:
    """Job and outcomes are changed together or not at all, and nobody waits for the dead."""
    run("lines", place)
