"""The command lines as processes of their own, as a stranger starts them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path


def simulator(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start the simulator in a group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "simulator", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **environment},
    )


def in_shell(
    command: str, program: str = "simulator", timeout_s: float = 60, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command line with the redirections of *command*."""
    return subprocess.run(
        f"{shlex.quote(sys.executable)} -m {program} {command}",
        shell=True,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, **environment},
        check=False,
    )


def group(leader: int) -> dict[int, str]:
    """Return the living processes of the group of *leader*, with their command lines."""
    return {number: command for number, command in _processes(leader) if number != leader}


def _processes(leader: int) -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            state, _, its_group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if int(its_group) == leader and state != "Z":
            yield int(folder.name), command


def wait_for_workers(leader: int, least: int = 1) -> dict[int, str]:
    """Return the processes that *leader* has started, once there are so many."""
    for _ in range(600):
        if len(found := group(leader)) >= least:
            return found
        time.sleep(0.02)
    raise AssertionError("no workers within twelve seconds")
