"""How a run of the simulator ends when it is told to: by real signals, to real processes."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from pathlib import Path

import pytest

from tests.processes import group, in_shell, simulator, wait_for_workers

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are read from /proc")

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}
MANY = ("run", "busy-month", "--days", "3000", "--seeds", "50")
COMMANDS = {
    "one seed": ("run", "busy-month", "--days", "3000"),
    "many seeds": MANY,
    "check": ("check",),
    "bench": ("bench",),
}


def ending(
    arguments: tuple[str, ...], number: int, *, after_s: float, to_group: bool, times: int = 1
) -> tuple[int, str, dict[int, str]]:
    """Start the simulator, send it a signal, and return its status, its last words and what it leaves."""
    running = simulator(*arguments)
    time.sleep(after_s)
    for _ in range(times):
        try:
            (os.killpg if to_group else os.kill)(running.pid, number)
        except ProcessLookupError:
            break
    _, told = running.communicate(timeout=30)
    return running.returncode, told, group(running.pid)


def well_ended(number: int, *, loss: str = "nothing was written") -> tuple[int, str, dict[int, str]]:
    return (128 + number, f"simulator: {WORDS[signal.Signals(number)]}; {loss}\n", {})


@pytest.mark.parametrize(
    ("number", "to_group"),
    [(signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGHUP, False)],
    ids=["SIGINT to all", "SIGTERM", "SIGHUP"],
)
@pytest.mark.parametrize("name", COMMANDS)
def test_signal_ends_it_with_one_line_and_no_workers(
    name: str, number: signal.Signals, to_group: bool
) -> None:
    """In every command, at work: its documented status, one line, and nobody left behind."""
    told = ending(COMMANDS[name], number, after_s=1.5, to_group=to_group)
    loss = "the output is not whole" if name == "bench" else "nothing was written"
    assert told == well_ended(number, loss=loss)


@pytest.mark.parametrize("seed", range(12))
def test_signal_at_any_moment_of_the_start_is_answered_alike(seed: int) -> None:
    """While workers are started, and twice in a row; before Python is there it dies without a word."""
    chance = random.Random(seed)
    number = chance.choice(list(WORDS))
    told = ending(
        chance.choice((MANY, ("check",))),
        number,
        after_s=chance.uniform(0.02, 1.0),
        to_group=chance.random() < 0.5,
        times=chance.choice((1, 2)),
    )
    assert told in (well_ended(number), (-number, "", {}))


@pytest.mark.parametrize("arguments", [MANY, ("check",)], ids=["run", "check"])
def test_death_of_a_worker_is_told_in_one_line(arguments: tuple[str, ...]) -> None:
    """The kernel kills one when memory runs out: a failure of the run, and neither verdict nor traceback."""
    running = simulator(*arguments)
    worker = next(iter(wait_for_workers(running.pid)))
    time.sleep(0.5)
    os.kill(worker, signal.SIGKILL)
    _, told = running.communicate(timeout=30)
    assert running.returncode == 4
    assert re.fullmatch(r"simulator: failed: a worker process was ended by SIGKILL.*\n", told), told
    assert group(running.pid) == {}


@pytest.mark.parametrize("arguments", [MANY, ("check",)], ids=["run", "check"])
def test_workers_end_with_a_parent_that_was_killed(arguments: tuple[str, ...]) -> None:
    """Nobody is left to end them, and they are at work; they notice it themselves."""
    running = simulator(*arguments)
    wait_for_workers(running.pid)
    time.sleep(1)
    running.kill()
    running.communicate(timeout=30)
    deadline_s = time.monotonic() + 3
    while group(running.pid) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert group(running.pid) == {}


def test_interrupt_before_the_workers_have_started_is_one_line() -> None:
    """Ctrl-C reaches them as well, before anything of this program is loaded there."""
    running = simulator(*MANY)
    wait_for_workers(running.pid)
    os.killpg(running.pid, signal.SIGINT)
    _, told = running.communicate(timeout=30)
    assert (running.returncode, told, group(running.pid)) == well_ended(signal.SIGINT)


def test_signal_that_was_ignored_stays_so() -> None:
    """Under nohup, a terminal that is closed ends nothing."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        running = simulator("run", "quiet-month", "--days", "300")
    finally:
        signal.signal(signal.SIGHUP, before)
    time.sleep(0.8)
    running.send_signal(signal.SIGHUP)
    out, told = running.communicate(timeout=60)
    assert (running.returncode, told) == (0, "")
    assert "verdict    ok" in out


@pytest.mark.parametrize("arguments", ["run quiet-month --seeds 9 --days 2", "check --limit 50"])
def test_output_piped_to_head_is_no_trouble(arguments: str) -> None:
    """The reader that has seen enough is told nothing, and nobody else is either."""
    ended = in_shell(f"{arguments} | head -1")
    assert ended.stdout.count("\n") == 1
    assert ended.stderr == ""


def test_a_million_seeds_take_no_more_memory_than_a_few(tmp_path: Path) -> None:
    """They are given out as results come, and of the results only counts are kept; the report is on disk."""
    report = tmp_path / "report.json"
    running = simulator("run", "quiet-month", "--days", "1", "--seeds", "1000000", "--json", str(report))
    try:
        deadline_s = time.monotonic() + 30
        while time.monotonic() < deadline_s:  # that there is progress
            drafts = [path for path in tmp_path.iterdir() if path.stat().st_size > 100_000]
            if drafts:
                break
            time.sleep(0.1)
        peak_kib = int(
            re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{running.pid}/status").read_text())[1]  # type: ignore[index]
        )
    finally:
        running.terminate()
        _, told = running.communicate(timeout=30)
    assert drafts
    assert peak_kib < 150_000
    assert told == "simulator: terminated; nothing was written\n"
    assert list(tmp_path.iterdir()) == []
