"""A PostgreSQL server for tests: private, of this machine alone, and gone when its user is gone.

This module run as a program is the keeper of one server: it starts it, prints its port, and waits for
the end of its standard input. That comes however its user ends, also when it is killed; then the
server is stopped and everything that it wrote is deleted.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Whom the server belongs to when this is root, for which PostgreSQL does not run.
_USER = "postgres"

# Seconds that a busy machine may need to start a server, which takes one on an idle one.
_START_S = 60

_SETTINGS = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "shared_buffers": "16MB"}
# Nothing of this outlives the tests, so that nothing need be durable, unless that is measured.
_FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}


def programs() -> Path | None:
    """Return the directory of the newest server's programs; None when there is none."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if debian:
        return debian[-1].parent
    found = shutil.which("initdb")
    return None if found is None else Path(found).resolve().parent


def missing() -> str | None:
    """Return a sentence that says what is missing for a server; None when nothing is."""
    if programs() is None:
        return "PostgreSQL's server is not installed; on Debian it is in the package `postgresql`"
    if _is_root() and not _has_user():
        return f"PostgreSQL does not run as root, and there is no user `{_USER}`; Debian's package makes it"
    return None


def is_required() -> bool:
    """Return whether a missing server is a failure: it is where changes are judged."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


@contextmanager
def running(*, is_durable: bool = False) -> Iterator[str]:
    """Start a server, yield the URL of an empty database, and stop the server.

    Args:
        is_durable: whether what is committed is on the disk then, as in production.
    """
    keeper = subprocess.Popen(
        [sys.executable, __file__, *(["durable"] if is_durable else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # an interrupt from the keyboard shall not reach it
    )
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    try:
        port = keeper.stdout.readline().strip()
        assert port, "the server did not start; what it said is above"
        yield f"postgresql+psycopg://chronos@127.0.0.1:{port}/postgres"
    finally:
        keeper.stdin.close()
        keeper.stdout.close()
        keeper.wait(_START_S)


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _has_user() -> bool:
    import pwd  # there is none where nobody is root

    try:
        pwd.getpwnam(_USER)
    except KeyError:
        return False
    return True


def _keep() -> None:
    """Run a server until the end of the standard input."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    found = programs()
    assert found is not None
    directory = Path(tempfile.mkdtemp(prefix="chronos-postgresql-"))
    options: dict[str, Any] = {"cwd": directory, "stdin": subprocess.DEVNULL}
    if _is_root():
        shutil.chown(directory, _USER, _USER)
        options |= {"user": _USER, "group": _USER, "extra_groups": []}
    try:
        _run(found, directory, options)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _run(found: Path, directory: Path, options: dict[str, Any]) -> None:
    data, log = directory / "data", directory / "log"
    wanted = _SETTINGS if "durable" in sys.argv else _SETTINGS | _FORGETFUL
    making = [
        found / "initdb",
        "-D",
        data,
        "-U",
        "chronos",
        "--auth=trust",
        "--no-sync",
        "-E",
        "UTF8",
        "--locale=C",
    ]
    with log.open("wb") as written:
        logged: dict[str, Any] = {**options, "stdout": written, "stderr": written}
        server = None
        try:
            if subprocess.run(making, **logged, check=False).returncode == 0:
                for _ in range(5):  # somebody else may take the port that was free a moment ago
                    port = _free_port()
                    settings = [f"--{name}={value}" for name, value in wanted.items()]
                    server = subprocess.Popen(
                        [found / "postgres", "-D", data, "-p", str(port), *settings], **logged
                    )
                    if _answers(found, port, server):
                        print(port, flush=True)  # noqa: T201 - what whoever started this program waits for
                        sys.stdin.read()
                        return
            sys.stderr.write(log.read_text(encoding="utf-8", errors="replace"))
        finally:
            if server is not None:
                _stop(server)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(found: Path, port: int, server: subprocess.Popen[bytes]) -> bool:
    """Wait until the server answers; return False when it ended instead."""
    asking = [found / "pg_isready", "--quiet", "-h", "127.0.0.1", "-p", str(port)]
    deadline_s = time.monotonic() + _START_S
    while server.poll() is None and time.monotonic() < deadline_s:
        if subprocess.run(asking, check=False).returncode == 0:
            return server.poll() is None
        time.sleep(0.02)
    return False


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Stop the server at once: nothing of it is needed any more."""
    server.send_signal(signal.SIGQUIT)
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


if __name__ == "__main__":
    _keep()
