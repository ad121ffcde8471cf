"""Whether the process that owns a run has ended: told only where it is certain."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronos.agent import owner
from chronos.agent.owner import is_dead, new_owner
from chronos.values import evolve

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

_NAME_AND_WAIT = (
    "import sys; from chronos.agent.owner import new_owner; print(new_owner(), flush=True); sys.stdin.read()"
)


@pytest.fixture
def other() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that said its name and goes on until its input ends."""
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", _NAME_AND_WAIT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        try:
            yield process, name
        finally:
            process.kill()


def renamed(name: str, **parts: Any) -> str:
    """Return *name* with some of its parts replaced."""
    identity = owner._parse(name)
    assert identity is not None
    return str(evolve(identity, **parts))


def test_this_process_is_not_dead() -> None:
    """A process never buries its own run."""
    assert not is_dead(new_owner())


def test_no_two_names_are_equal() -> None:
    """A name is used once, so that a claim is never taken for one of an earlier life."""
    assert new_owner() != new_owner()


def test_name_is_readable_text() -> None:
    """A name fits on one line of a log and says which machine and which process."""
    name = new_owner()
    assert name.isprintable()
    assert re.search(rf"/{os.getpid()}/", name)


def test_living_process_is_not_dead(other: tuple[subprocess.Popen[str], str]) -> None:
    """A process that goes on is left alone, whoever asks."""
    assert not is_dead(other[1])


@on_linux
def test_killed_process_is_dead(other: tuple[subprocess.Popen[str], str]) -> None:
    """A process that was killed is dead, both before and after its parent took notice."""
    process, name = other
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_dead(name)
    process.wait()
    assert is_dead(name)


@on_linux
def test_reused_process_number_is_not_the_same_process(other: tuple[subprocess.Popen[str], str]) -> None:
    """The number of a dead process in use by a later one does not keep it alive."""
    identity = owner._parse(other[1])
    assert identity is not None
    assert is_dead(renamed(other[1], started=identity.started - 1))


@on_linux
def test_process_of_before_a_restart_of_the_machine_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that started again, nothing goes on from before."""
    here = evolve(
        owner._this_process(), host="vm-7", machine="m", boot="b2", namespace=owner._FIRST_NAMESPACE
    )
    monkeypatch.setattr(owner, "_this_process", lambda: here)
    before = str(evolve(here, boot="b1", pid=1))
    assert is_dead(before)
    for parts in ({"host": "vm-8"}, {"machine": "n"}, {"boot": ""}, {"namespace": "4026532001"}):
        assert not is_dead(renamed(before, **parts)), parts


@on_linux
@pytest.mark.parametrize("host", ["localhost", ""])
def test_restart_is_not_believed_of_a_machine_without_a_name(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines that are both called localhost are not one machine that was restarted."""
    here = evolve(owner._this_process(), host=host, machine="", boot="b2", namespace=owner._FIRST_NAMESPACE)
    monkeypatch.setattr(owner, "_this_process", lambda: here)
    assert not is_dead(str(evolve(here, boot="b1")))


@on_linux
def test_process_of_another_container_is_not_judged(other: tuple[subprocess.Popen[str], str]) -> None:
    """Process numbers of another container mean nothing here, even when it bears the same host name."""
    process, name = other
    process.kill()
    process.wait()
    assert is_dead(name)
    assert not is_dead(renamed(name, namespace="1"))
    assert not is_dead(renamed(name, namespace=""))


@pytest.mark.parametrize("part", ["host", "machine"])
def test_process_of_another_machine_is_not_judged(part: str) -> None:
    """What happened on another machine cannot be seen from here."""
    assert not is_dead(renamed(new_owner(), pid=4_000_000, **{part: "elsewhere"}))


@on_linux
def test_hidden_process_is_not_dead(
    other: tuple[subprocess.Popen[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that /proc does not show, and that is there all the same, is left alone."""
    here = owner._this_process()
    monkeypatch.setattr(owner, "_this_process", lambda: here)
    monkeypatch.setattr(owner, "_state_and_start", lambda _: ("", 0))
    assert not is_dead(other[1])
    other[0].kill()
    other[0].wait()
    assert is_dead(other[1])


def test_system_without_boots_asks_for_the_number_alone(
    other: tuple[subprocess.Popen[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no /proc, a number that no process has is the one thing that is certain."""
    here = evolve(owner._this_process(), host="mac", machine="", boot="", namespace="", started=0)
    monkeypatch.setattr(owner, "_this_process", lambda: here)
    monkeypatch.setattr(sys, "platform", "darwin")
    name = str(evolve(here, pid=other[0].pid))
    assert not is_dead(name)
    other[0].kill()
    other[0].wait()
    assert is_dead(name)
    assert not is_dead(renamed(name, boot="b1"))


@given(
    st.text()
    | st.lists(st.text("/0123456789-²ab", max_size=6), max_size=9).map("/".join)
    | st.integers(0, 1 << 70).map(lambda pid: renamed(new_owner(), pid=pid, host="elsewhere"))
)
def test_text_that_is_no_name_is_not_dead(text: str) -> None:
    """An owner that some other program wrote is believed until its lease is over."""
    assert not is_dead(text)
