"""Where the files of a simulation go: into its place whole, or not at all, and never over an input.

It is written beside its place, or into a file without a name, while the simulation goes on: the
report of a million seeds is never in memory. An existing report, or whatever else is in its place, is
replaced by one rename, which leaves the old file or the new one.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from chronos.cli import console
from chronos.cli.console import BadUsage, facts, is_one_file
from chronos.cli.options import as_json, nearest_file
from simulator import fleet

STANDARD_OUTPUT = "-"


class Report:
    """A report on its way, into a *draft*.

    Args:
        draft: a file for it.
        named: what its place is called, with the option that names it.
        is_list: whether it is of many simulations; None when it is no JSON.

    Its methods raise `BadUsage` when the disk is full, or fails.
    """

    def __init__(self, draft: TextIO, named: str, *, is_list: bool | None) -> None:
        self._draft = draft
        self._named = named
        self._is_list = is_list
        self._count = 0

    def add(self, value: object) -> None:
        """Write the JSON of one simulation."""
        text = as_json(value)
        if self._is_list:
            text = ("," if self._count else "[") + "\n " + text.replace("\n", "\n ")
        self._count += 1
        self.write(text)

    def write(self, text: str) -> None:
        """Write a piece of text."""
        with _told(self._named):
            self._draft.write(text)

    def close(self) -> None:
        """Write the end, durably."""
        if self._is_list is not None:
            self.write("\n]\n" if self._is_list else "\n")
        with _told(self._named):
            self._draft.flush()
            os.fsync(self._draft.fileno())
            self._draft.seek(0)


@contextmanager
def writing(
    target: str, given: os.stat_result | None, *, option: str = "--json", is_list: bool | None = None
) -> Iterator[Report]:
    """Yield a report that is put into its place at the end of the block, unless that raises.

    Args:
        target: the place, a path or `STANDARD_OUTPUT`.
        given: the facts of the input.
        option: names the place.
        is_list: whether it is JSON of many simulations; None when it is no JSON.

    Raises:
        BadUsage: the place cannot be written, or is an input.
    """
    named = f"{option} {target}"
    place = None if target == STANDARD_OUTPUT else _place(target, named, given)
    is_replaced = place is not None and (facts(place) is None or place.is_file())
    with ExitStack() as stack:
        with _told(named):
            draft = stack.enter_context(_beside(place) if place is not None and is_replaced else _nameless())
        report = Report(draft, named, is_list=is_list)
        yield report
        report.close()
        if place is None:
            console.tell(line.rstrip("\n") for line in draft)
            return
        with _told(named):
            if is_replaced:
                _refuse_input(named, place, given)  # it may have got there meanwhile
                with console.deaf():  # this happens, or it does not
                    Path(draft.name).replace(place)
            else:
                # A pipe by name, whose reader may leave like that of the output.
                with suppress(BrokenPipeError), place.open("w", encoding="utf-8") as opened:
                    shutil.copyfileobj(draft, opened)


def refuse_place(target: str, option: str) -> None:
    """Make sure that *target* may be written, before the work that fills it.

    Raises:
        BadUsage: it cannot be written, or is an input.
    """
    _place(target, f"{option} {target}", None)


@contextmanager
def _told(named: str) -> Iterator[None]:
    """Tell of what the system refuses within the block."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:  # a full disk, a name that is too long, a loop
        words = getattr(error, "strerror", None) or str(error)
        raise BadUsage(f"{named}: cannot be written: {words}") from None


def is_output(target: str) -> bool:
    """Return whether *target* is where the summary would go, under this name or another."""
    return target == STANDARD_OUTPUT or is_one_file(facts(target), facts(sys.stdout))


def _place(target: str, named: str, given: os.stat_result | None) -> Path:
    """Return the file that *target* leads to, once it is sure that it may be written."""
    path = Path(target)
    with _told(named):
        if path.is_dir():
            raise BadUsage(f"{named}: expected a file, this is a folder")
        led = path.resolve()  # a link stays one, and what it leads to is replaced
        if not led.parent.is_dir():
            raise BadUsage(f"{named}: there is no folder {led.parent}{nearest_file(led.parent)}")
        there = facts(path)
        if there is None or is_one_file(there, facts(led)):
            path = led  # else it has no name, such as a pipe under /dev/fd
        _refuse_input(named, path, given)
        if there is not None and not os.access(path, os.W_OK):
            raise BadUsage(f"{named}: cannot be written: permission denied")
    return path


def _refuse_input(named: str, path: Path, given: os.stat_result | None) -> None:
    there = facts(path)
    if is_one_file(given, there):
        raise BadUsage(f"{named}: this is the jobs file, which is read and never written")
    # What a store keeps beside its file is its own: who replaces the lock lets two writers in.
    beside = path.name.removesuffix(".lock"), path.name.removeprefix(".").removesuffix(".next")
    if any(name and is_one_file(given, facts(path.with_name(name))) for name in beside):
        raise BadUsage(f"{named}: this belongs to the store of the jobs file; expected another name")
    own = Path(__file__).parents[1], Path(console.__file__).parent
    if any(path.is_relative_to(folder.resolve()) for folder in own) or any(
        is_one_file(facts(fleet.path(name)), there) for name in fleet.shipped()
    ):
        raise BadUsage(f"{named}: this belongs to the program; expected a file of your own")


@contextmanager
def _beside(place: Path) -> Iterator[TextIO]:
    """Yield a new file in the folder of *place*, with its owner and mode, that is gone after the block."""
    beside = place.with_name(f".report-{secrets.token_hex(8)}")
    with (
        console.undone(lambda: beside.unlink(missing_ok=True)),
        _closed(beside.open("x+", encoding="utf-8")) as draft,
    ):
        if (there := facts(place)) is not None and sys.platform != "win32":
            with suppress(PermissionError):  # only root may give a file away
                os.fchown(draft.fileno(), there.st_uid, there.st_gid)
            os.fchmod(draft.fileno(), there.st_mode & 0o7777)
        yield draft


@contextmanager
def _nameless() -> Iterator[TextIO]:
    with _closed(tempfile.TemporaryFile("w+", encoding="utf-8")) as draft:
        yield draft


@contextmanager
def _closed(draft: TextIO) -> Iterator[TextIO]:
    """Close *draft* after the block; what did not fit on a full disk is tried again then, and was told."""
    try:
        yield draft
    finally:
        with suppress(OSError):
            draft.close()
