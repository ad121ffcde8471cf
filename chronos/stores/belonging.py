"""Whose the files are that a store makes: what lies beside a file belongs to whoever has that file.

A store may be used by the agent's own user and by root, or by several users of one group. A file that
one of them makes must not keep the others out. Source: incident S5.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

# Where owners and modes are something else, there is nothing to be done.
_HAS_OWNERS = sys.platform != "win32"


class Belonging(NamedTuple):
    """Whose a file is, and its mode."""

    owner: int
    group: int
    mode: int

    @classmethod
    def of(cls, status: os.stat_result, *, at_least: int = 0) -> Belonging:
        """Return that of a file, with what its mode has *at_least*."""
        return cls(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode) | at_least)


def make(path: Path, like: Belonging | None) -> int:
    """Make a file, and return its descriptor for reading and writing.

    Args:
        path: the file, which must not be there.
        like: what it gets, as far as this process may give it; None for a file of its owner alone, who is
            the owner of the directory where this process may give files away.

    Raises:
        OSError: it could not be made.
    """
    opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if like is None and _HAS_OWNERS and os.geteuid() == 0:
            like = Belonging.of(path.parent.stat())._replace(mode=0o600)
        if like is not None:
            give(opened, like)
    except BaseException:
        os.close(opened)
        raise
    return opened


def give(opened: int, like: Belonging) -> None:
    """Give an open file what *like* says, as far as this process may.

    Only root gives a file to another owner, and nobody else gives it to a group that is not his own.

    Raises:
        OSError: its mode could not be changed.
    """
    if not _HAS_OWNERS:
        return
    if Belonging.of(os.fstat(opened))[:2] != like[:2]:
        try:
            os.fchown(opened, like.owner, like.group)
        except PermissionError:
            with suppress(PermissionError):
                os.fchown(opened, -1, like.group)
    os.fchmod(opened, like.mode)


def keeps_out(opened: int, like: Belonging) -> bool:
    """Return whether the group of *like* could do more with such a file than it can with the open one."""
    of_group, of_others = (like.mode >> 3) & 0o7, like.mode & 0o7
    return bool(of_group & ~of_others) and os.fstat(opened).st_gid != like.group


def may_write(path: Path) -> bool:
    """Return whether this process may open a file for reading and writing."""
    return os.access(path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def give_if_ours(path: Path, like: Belonging) -> None:
    """Give a file what *like* says where it is this process's to give; else leave it as it is.

    What may be another file by a second name is left alone, too: root must not give that away.
    """
    if not _HAS_OWNERS:
        return
    with suppress(OSError):
        now = path.lstat()
        is_root, is_plain = os.geteuid() == 0, stat.S_ISREG(now.st_mode) and now.st_nlink == 1
        wanted = like if is_root else like._replace(owner=now.st_uid)
        if not is_plain or Belonging.of(now) == wanted or not (is_root or os.geteuid() == now.st_uid):
            return
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if os.path.samestat(now, os.fstat(opened)):
                give(opened, wanted)
        finally:
            os.close(opened)


def whose(path: Path) -> str:
    """Return whose a file is, and who this process is, for an error that says what is to be done."""
    if not _HAS_OWNERS:
        return "this process may not use it"
    try:
        status = path.lstat()
    except OSError:
        return "it cannot be looked at"
    return (
        f"it belongs to {_user(status.st_uid)}, group {_group(status.st_gid)}, mode"
        f" {stat.S_IMODE(status.st_mode):04o}, and this process is {_user(os.geteuid())}, group"
        f" {_group(os.getegid())}"
    )


def _user(number: int) -> str:
    import pwd

    try:
        return f"{pwd.getpwuid(number).pw_name} ({number})"
    except KeyError:
        return f"user {number}"


def _group(number: int) -> str:
    import grp

    try:
        return f"{grp.getgrgid(number).gr_name} ({number})"
    except KeyError:
        return str(number)
