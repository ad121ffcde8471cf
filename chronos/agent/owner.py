"""Who owns a run: a name for this process, and whether the process behind such a name has ended.

A claim that its dead owner left behind would block its job until the lease is over. A process that
starts on the same machine can often tell sooner. It must be sure, since a run that is buried too
early is a run that happens twice; where it is not sure, the lease decides.

What can be told, and from what:

* the process ended: its number is not in use, or is in use by a process that started at another
  time. Numbers mean something only within one boot and one namespace of process numbers, so
  both must be this process's own. Containers have namespaces of their own, and several may bear
  one host name.
* the machine was restarted: same host name and machine id, another boot. That is believed outside
  of containers only, where a name and an id stand for one machine.

Source: incident O3.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from pathlib import Path

from msgspec import Struct

# The kernel's fixed number for the first namespace of process numbers, that of the machine itself
# (PROC_PID_INIT_INO in the kernel's proc_ns.h).
_FIRST_NAMESPACE = "4026531836"

# Names that many machines bear.
_NAMELESS = frozenset({"", "localhost", "localhost.localdomain", "(none)"})


class _Identity(Struct, frozen=True, kw_only=True):
    """What a name says of its process. A part that the system could not tell is empty.

    Attributes:
        host: the host name.
        machine: the id of the installation.
        boot: the id of the boot.
        namespace: which namespace the process number belongs to.
        pid: the process number.
        started: when it started, clock ticks since the boot; 0 when that is not known.
        token: random, so that no name is ever used twice.
    """

    host: str
    machine: str
    boot: str
    namespace: str
    pid: int
    started: int
    token: str

    def __str__(self) -> str:
        parts = (self.host, self.machine, self.boot, self.namespace, self.pid, self.started, self.token)
        return "/".join(map(str, parts))


def new_owner() -> str:
    """Return a name for this process, unlike that of any other process of any machine.

    It is `host/machine id/boot id/namespace/process number/start/random`. A process that is forked
    needs a name of its own.
    """
    return str(_this_process())


def is_dead(owner: str) -> bool:
    """Return whether the process that *owner* names has definitely ended.

    Args:
        owner: what `new_owner` returned, in any process on any machine.

    Returns:
        False also when it cannot be told: the owner is of another machine or container, or the text
        is no such name.
    """
    named = _parse(owner)
    if named is None:
        return False
    here = _this_process()
    if (named.host, named.machine) != (here.host, here.machine):
        return False
    if not sys.platform.startswith("linux"):
        is_this_machine = named.host not in _NAMELESS and not (named.boot or here.boot)
        return is_this_machine and _has_no_process(named.pid)
    if named.boot != here.boot:
        is_one_machine = named.namespace == here.namespace == _FIRST_NAMESPACE and named.host not in _NAMELESS
        return is_one_machine and bool(named.boot) and bool(here.boot)
    if not named.boot or not named.namespace or named.namespace != here.namespace or not named.started:
        return False
    state, started = _state_and_start(named.pid)
    if started:
        return started != named.started or state in "ZX"
    # A process of another user may be hidden; whether its number is in use can be told all the same.
    return _has_no_process(named.pid)


def _this_process() -> _Identity:
    pid = os.getpid()
    return _Identity(
        host=socket.gethostname().replace("/", "-"),
        machine=_first_line(Path("/etc/machine-id")),
        boot=_first_line(Path("/proc/sys/kernel/random/boot_id")),
        namespace=_namespace(),
        pid=pid,
        started=_state_and_start(pid)[1],
        token=secrets.token_hex(8),
    )


def _parse(owner: str) -> _Identity | None:
    parts = owner.split("/")
    if len(parts) != 7 or not all(text.isascii() and text.isdecimal() for text in parts[4:6]):
        return None
    host, machine, boot, namespace, pid, started, token = parts
    # Longer numbers are no process of any system.
    if len(pid) > 10 or len(started) > 20 or int(pid) <= 0:
        return None
    return _Identity(
        host=host,
        machine=machine,
        boot=boot,
        namespace=namespace,
        pid=int(pid),
        started=int(started),
        token=token,
    )


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").partition("\n")[0].strip().replace("/", "-")
    except (OSError, ValueError):
        return ""


def _namespace() -> str:
    try:
        return Path("/proc/self/ns/pid").readlink().name.removeprefix("pid:[").removesuffix("]")
    except (OSError, ValueError):
        return ""


def _state_and_start(pid: int) -> tuple[str, int]:
    """Return the state letter of a process and the tick of its start; ("", 0) when they cannot be told."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        # The second field is the program's name in parentheses, and may hold anything.
        fields = stat[stat.rindex(b")") + 1 :].split()
        return fields[0].decode("ascii"), int(fields[19])
    except (OSError, ValueError, IndexError):
        return "", 0


def _has_no_process(pid: int) -> bool:
    """Return whether no process has that number. Asking is harmless where signal 0 is only a question."""
    if os.name != "posix":
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
