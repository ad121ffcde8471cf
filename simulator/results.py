"""The folder in which a campaign keeps its results, and from which it goes on.

`campaign.json` says which campaign it is. `results.jsonl` has a line for each finished simulation, in the
order in which they ended; a line is written at once and whole. What a kill or a power cut has torn off
at the end is cut away, and simulated again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock, Timeout
from msgspec import Struct

from chronos.cli.console import BadUsage
from chronos.cli.options import as_json
from simulator.campaign import Outcome

_CAMPAIGN, _DRAFT, _RESULTS, _LOCK = "campaign.json", ".campaign.json.next", "results.jsonl", ".lock"
_OURS = {_CAMPAIGN, _DRAFT, _RESULTS, _LOCK}

# How far from the end the last line is looked for at a time.
_STRIDE = 65_536


class _KeptCell(Struct, frozen=True):
    label: str
    arguments: list[str]
    plan: str


class _KeptCampaign(Struct, frozen=True):
    source: str
    cells: list[_KeptCell]


class Results:
    """The results of one campaign, in a folder of their own.

    Args:
        folder: where they are.

    Its methods raise `BadUsage` when the folder cannot be read or written.
    """

    def __init__(self, folder: Path, cells: int) -> None:
        self.folder = folder
        self._path = folder / _RESULTS
        self._cells = cells
        self._decoder = msgspec.json.Decoder(Outcome)
        self._file = self._path.open("a+b", buffering=0)  # so that each line is one write
        self._cut()

    def _cut(self) -> None:
        """Cut away what comes after the end of the last whole line."""
        end = self._file.seek(0, os.SEEK_END)
        while end:
            begin = self._file.seek(max(0, end - _STRIDE))
            found = self._file.read(end - begin).rfind(b"\n")
            if found >= 0:
                end = begin + found + 1
                break
            end = begin
        self._file.truncate(end)

    def outcomes(self) -> Iterator[Outcome]:
        """Yield what is kept; a simulation may come twice."""
        with _told(self.folder), self._path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    outcome = self._decoder.decode(line)
                except msgspec.MsgspecError as error:
                    raise BadUsage(f"{self._path}, line {number}: {error}") from None
                if not 0 <= outcome.cell < self._cells:
                    raise BadUsage(f"{self._path}, line {number}: there is no cell {outcome.cell}")
                yield outcome

    def append(self, outcome: Outcome) -> None:
        """Keep *outcome*."""
        line = msgspec.json.encode(outcome) + b"\n"
        with _told(self.folder):
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Close the file, with all that is in it on the disk."""
        with _told(self.folder):
            os.fsync(self._file.fileno())
            self._file.close()


@contextmanager
def kept(folder: Path, identity: dict[str, Any]) -> Iterator[Results]:
    """Yield the results in *folder*, which is made if there is none, and no other process's meanwhile.

    Args:
        folder: where they are.
        identity: which campaign it is, see `simulator.campaign.identity`.

    Raises:
        BadUsage: it cannot be written, holds something else, or another campaign.
    """
    with _told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted({path.name for path in folder.iterdir()} - _OURS)
        if others and not (folder / _CAMPAIGN).exists():
            raise BadUsage(
                f"--results {folder}: expected an empty folder, or one of a sweep; it has {others[0]}"
            )
        lock = FileLock(folder / _LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise BadUsage(f"--results {folder}: another sweep is at work there") from None
    try:
        with _told(folder):
            _claim(folder, identity)
            results = Results(folder, len(identity["cells"]))
        try:
            yield results
        finally:
            results.close()
    finally:
        lock.release()


def _claim(folder: Path, identity: dict[str, Any]) -> None:
    """Say in *folder* which campaign it is of, or make sure that it is this one."""
    path = folder / _CAMPAIGN
    if path.exists():
        try:
            there = msgspec.json.decode(path.read_bytes(), type=_KeptCampaign)
        except msgspec.MsgspecError as error:
            raise BadUsage(f"{path}: {error}") from None
        difference = _difference(there, msgspec.convert(identity, _KeptCampaign))
        if difference:
            raise BadUsage(
                f"--results {folder}: this is another campaign: {difference}; expected another folder"
            )
        return
    draft = folder / _DRAFT
    draft.write_text(as_json(identity) + "\n", encoding="utf-8")
    draft.replace(path)


def _difference(there: _KeptCampaign, ours: _KeptCampaign) -> str:
    """Return what decides the outcomes and differs between two campaigns; nothing when nothing does."""
    labels, own = (", ".join(cell.label for cell in each.cells) for each in (there, ours))
    if labels != own:
        return f"its cells are {labels}, and not {own}"
    for one, other in zip(there.cells, ours.cells, strict=True):
        if one.plan == other.plan:
            continue
        if one.arguments == other.arguments:
            return f"the jobs of {one.label} were others"
        given = [" ".join(each.arguments) or "no options" for each in (one, other)]
        return f"{one.label} was asked for by {given[0]}, and not by {given[1]}"
    return "" if there.source == ours.source else "it was simulated by another version of this program"


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Tell of what the system refuses within the block."""
    try:
        yield
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise BadUsage(f"--results {folder}: cannot be written: {words}") from None
