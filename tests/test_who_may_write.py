"""Several users of one store: what one of them makes does not keep the others out.

Real users, by number. Each acts in a process of its own, which has loaded the library before it becomes
that user: the library may lie where only root can read.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as several users")

AGENT, OTHER, GROUP = 41_001, 41_002, 41_100
ROOT = 0

ACT = """
import os, sys, tempfile, threading
from chronos.jobs.job import Job
from chronos.jobs.schedule import Interval
from chronos.jobs.instants import MINUTE_US
from chronos.stores import JsonFileStore

kind, path, job_id, uid, gid, umask, wait = sys.argv[1:8]

def change(path, job_id):
    job = Job(id=job_id, schedule=Interval(period_us=MINUTE_US, anchor_us=0), next_us=MINUTE_US)
    if kind == "json":
        store = JsonFileStore(path)
    elif kind == "new json":
        store = JsonFileStore.create(path)
    else:
        from chronos.stores import SqlStore

        make = SqlStore.create if kind == "new sqlite" else SqlStore
        store = make("sqlite:///" + path)
    assert store.swap(job_id, expected=None, replacement=job)
    assert store.load(job_id) == job
    return store

with tempfile.TemporaryDirectory() as elsewhere:  # whatever is loaded late is loaded now
    kinds, kind = kind, "new " + kind.removeprefix("new ")
    change(elsewhere + "/jobs", "warm")
    try:
        kind = kind.removeprefix("new ")
        change(elsewhere + "/none/jobs", "warm")
    except Exception as error:
        str(error)
    kind = kinds
import fcntl, grp, pwd
os.umask(int(umask, 8))
os.setgroups([int(group) for group in sys.argv[8:]])
os.setresgid(int(gid), int(gid), int(gid))
os.setresuid(int(uid), int(uid), int(uid))
try:
    store = change(path, job_id)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
print("changed", flush=True)
if wait == "wait":
    sys.stdin.read()
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory of the agent's user, which every user may look into."""
    path = Path(tempfile.mkdtemp(prefix="chronos-"))
    path.chmod(0o755)
    directory = path / "agent"
    directory.mkdir()
    os.chown(directory, AGENT, AGENT)
    yield directory
    shutil.rmtree(path)


def command(
    kind: str, path: Path, job_id: str, uid: int, *, groups: tuple[int, ...], umask: int, wait: str
) -> list[str]:
    given = [kind, str(path), job_id, str(uid), str(uid), f"{umask:o}", wait, *map(str, groups)]
    return [sys.executable, "-c", ACT, *given]


def act(
    kind: str, path: Path, job_id: str, uid: int, *, groups: tuple[int, ...] = (), umask: int = 0o022
) -> str:
    """Add a job as that user; return the text of the error, empty when there was none."""
    done = subprocess.run(
        command(kind, path, job_id, uid, groups=groups, umask=umask, wait=""),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert bool(done.returncode) is not ("changed" in done.stdout), done.stderr
    return done.stderr.strip()


def jobs_file(path: Path, uid: int, gid: int, mode: int) -> Path:
    path.write_text('{"jobs": [], "updated_at": "2026-06-25T12:00:00+00:00"}\n', encoding="utf-8")
    os.chown(path, uid, gid)
    path.chmod(mode)
    return path


def ids(path: Path) -> list[str]:
    return [job["id"] for job in json.loads(path.read_text(encoding="utf-8"))["jobs"]]


def belonging(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


@pytest.mark.parametrize(
    ("order", "umask"), [((ROOT, AGENT, ROOT), 0o077), ((ROOT, AGENT), 0o022), ((AGENT, ROOT, AGENT), 0o022)]
)
def test_root_and_the_agent_s_user_share_a_jobs_file(order: tuple[int, ...], umask: int, home: Path) -> None:
    """Whoever comes first, what lies beside the file is the agent's, and so is the file (incident S5)."""
    path = jobs_file(home / "jobs.json", AGENT, AGENT, 0o640)
    for number, uid in enumerate(order):
        assert act("json", path, f"job-{number}", uid, umask=umask) == ""
        assert {belonging(each)[:2] for each in home.iterdir()} == {(AGENT, AGENT)}
        assert belonging(path)[2] == belonging(home / "jobs.json.lock")[2] == 0o640
    assert ids(path) == ["job-0", "job-1", "job-2"][: len(order)]


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_lock_that_root_has_left_does_not_keep_the_agent_out(mode: int, home: Path) -> None:
    """The directory is the agent's, who puts a lock of its own in the place (incident S5)."""
    path = jobs_file(home / "jobs.json", AGENT, AGENT, 0o600)
    lock = home / "jobs.json.lock"
    lock.touch(mode)
    lock.chmod(mode)
    assert act("json", path, "a", AGENT) == ""
    assert belonging(lock) == (AGENT, AGENT, 0o600)
    assert act("json", path, "b", ROOT) == ""
    assert ids(path) == ["a", "b"]


def test_lock_that_root_holds_is_not_replaced(home: Path) -> None:
    """Two processes never hold the lock of one file at once."""
    path = jobs_file(home / "jobs.json", AGENT, AGENT, 0o600)
    lock = home / "jobs.json.lock"
    lock.touch(0o644)
    import fcntl

    with lock.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = subprocess.Popen(
            command("json", path, "a", AGENT, groups=(), umask=0o022, wait=""),
            stdout=subprocess.PIPE,
            text=True,
        )
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(5)
        assert ids(path) == []
        assert belonging(lock)[0] == ROOT
    assert waiting.communicate(timeout=30)[0] == "changed\n"
    assert ids(path) == ["a"]


def test_lock_that_cannot_be_replaced_is_named_with_its_owner(home: Path) -> None:
    """Where the directory is not the agent's, the error says whose it is and what to do (incident S5)."""
    path = jobs_file(home / "jobs.json", AGENT, AGENT, 0o600)
    (home / "jobs.json.lock").touch(0o600)
    os.chown(home, ROOT, ROOT)
    error = act("json", path, "a", AGENT)
    assert (
        f"{home}/jobs.json.lock cannot be locked: it belongs to root (0), group root (0), mode 0600" in error
    )
    assert (
        f"this process is user {AGENT}, group {AGENT}; remove it, or give it to the owner of {path}" in error
    )


def test_jobs_file_of_somebody_else_is_named_with_its_owner(home: Path) -> None:
    """A file that cannot be read says whose it is."""
    path = jobs_file(home / "jobs.json", ROOT, ROOT, 0o600)
    assert "jobs.json cannot be read: it belongs to root (0), group root (0), mode 0600" in act(
        "json", path, "a", AGENT
    )


@pytest.mark.parametrize(("is_setgid", "umask"), [(False, 0o077), (True, 0o022)])
def test_users_of_one_group_share_a_jobs_file(umask: int, is_setgid: bool, home: Path) -> None:
    """Each of them writes in turn; the file keeps its group and mode, and so does what lies beside it."""
    path = jobs_file(home / "jobs.json", AGENT, GROUP, 0o660)
    os.chown(home, AGENT, GROUP)
    home.chmod(0o2770 if is_setgid else 0o770)
    for number, uid in enumerate((AGENT, OTHER, AGENT)):
        assert act("json", path, f"job-{number}", uid, groups=(GROUP,), umask=umask) == ""
        assert {belonging(each)[1:] for each in home.iterdir()} == {(GROUP, 0o660)}
    assert len(ids(path)) == 3


def test_file_is_not_taken_from_its_group(home: Path) -> None:
    """Who is no member cannot give a new version to the group, and does not write one (incident S5)."""
    path = jobs_file(home / "jobs.json", AGENT, GROUP, 0o660)
    error = act("json", path, "a", AGENT)
    assert "its group would lose" in error
    assert belonging(path) == (AGENT, GROUP, 0o660)
    assert ids(path) == []
    assert not (home / ".jobs.json.next").exists()


def test_linked_jobs_file_belongs_to_its_owner(home: Path) -> None:
    """What is made lies beside the file itself, and is its owner's, also when the link is root's."""
    path = jobs_file(home / "jobs.json", AGENT, AGENT, 0o600)
    link = home.parent / "jobs.json"
    link.symlink_to(path)
    for number, uid in enumerate((ROOT, AGENT)):
        assert act("json", link, f"job-{number}", uid) == ""
    assert {belonging(each) for each in home.iterdir()} == {(AGENT, AGENT, 0o600)}
    assert [each.name for each in home.parent.iterdir() if each.is_symlink()] == ["jobs.json"]


@pytest.mark.parametrize("kind", ["json", "sqlite"])
def test_store_that_root_makes_is_the_agent_s_whose_directory_it_is(kind: str, home: Path) -> None:
    """An administrator who sets an agent up does not lock it out."""
    path = home / "jobs"
    assert act(f"new {kind}", path, "a", ROOT) == ""
    assert {belonging(each)[:2] for each in home.iterdir()} == {(AGENT, AGENT)}
    for number, uid in enumerate((AGENT, ROOT)):
        assert act(kind, path, f"job-{number}", uid) == ""


def test_users_of_one_group_share_a_database(home: Path) -> None:
    """What SQLite makes beside the database is its group's, also while the one who made it goes on."""
    path = home / "jobs.db"
    os.chown(home, AGENT, GROUP)
    home.chmod(0o770)
    assert act("new sqlite", path, "first", AGENT, groups=(GROUP,)) == ""
    os.chown(path, AGENT, GROUP)
    path.chmod(0o660)
    going_on = subprocess.Popen(
        command("sqlite", path, "second", OTHER, groups=(GROUP,), umask=0o077, wait="wait"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert going_on.stdout is not None
    assert going_on.stdout.readline() == "changed\n"
    beside = sorted(each.name for each in home.iterdir())
    assert beside == ["jobs.db", "jobs.db-shm", "jobs.db-wal"]
    assert {belonging(each)[1:] for each in home.iterdir()} == {(GROUP, 0o660)}
    assert act("sqlite", path, "third", AGENT, groups=(GROUP,), umask=0o077) == ""
    going_on.communicate("", timeout=30)


def test_lock_that_is_another_file_by_a_second_name_is_not_given_away(home: Path) -> None:
    """Root does not make a present of a file that somebody has linked there."""
    path = jobs_file(home / "jobs.json", AGENT, AGENT, 0o600)
    secret = home.parent / "secret"
    secret.write_text("of root", encoding="utf-8")
    secret.chmod(0o600)
    os.link(secret, home / "jobs.json.lock")
    act("json", path, "a", ROOT)
    assert belonging(secret) == (ROOT, ROOT, 0o600)
