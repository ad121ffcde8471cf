"""The store that agents have today: one JSON file, shared by processes that may die at any instruction.

Every change is made under a lock between processes and reads the file afresh. The new file is
written beside the old one, made durable, and put in its place by one rename, so that a crash leaves
the old or the new file and never a torn one. What a crash leaves beside it is overwritten next time.

Programs that change the file without the lock are noticed as far as that is possible: what they
changed before a swap makes it fail, and a change during a swap is looked for just before the rename.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock, Timeout
from msgspec import Struct

from chronos import arguments
from chronos.clock import now_us as real_now_us
from chronos.errors import JobsFileError, StoreError
from chronos.jobs.instants import Instant, parse_instant
from chronos.jobs.job import Job, Outcome, Unreadable
from chronos.stores import HISTORY_LENGTH, belonging, check_history_length, check_swap, refusal, unreadable
from chronos.stores.belonging import Belonging
from chronos.stores.layout import TOO_DEEP, encode_file
from chronos.stores.reader import offset_of
from chronos.stores.record import Document, FileFacts, read_document, read_history, read_job
from chronos.stores.rewrite import new_record, stamp, write_job
from chronos.values import evolve

# Seconds that a swap waits for other processes. One change takes some milliseconds; who holds the
# lock for longer is stopped or broken, and the fire must be answered well within its half minute.
LOCK_WAIT_S = 10.0

# Seconds between two attempts to get the lock: about what one change takes.
_LOCK_POLL_S = 0.005


class _Version(Struct, frozen=True, kw_only=True):
    """What the file was when it was read; and the texts of its records, where this process wrote them."""

    path: Path
    status: os.stat_result
    data: bytes
    document: Document
    texts: dict[int, str] = msgspec.field(default_factory=dict)


class JsonFileStore:
    """A `JobStore` in a jobs file, safe among threads and processes of one machine.

    Args:
        path: the file. It must be there: a file that is missing is more likely a volume that is not
            mounted than an agent without jobs. `create` makes a new one.
        history_length: how many outcomes of a job it keeps, at least 1.
        lock_wait_s: how long a swap waits for other processes, seconds.
        now_us: the clock that `updated_at` is taken from, epoch microseconds.

    Raises:
        TypeError: an argument is of another type than its own.
        ValueError: a history of less than one outcome, or a wait that is out of its range.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        history_length: int = HISTORY_LENGTH,
        lock_wait_s: float = LOCK_WAIT_S,
        now_us: Callable[[], Instant] = real_now_us,
    ) -> None:
        arguments.instance("path", path, str | os.PathLike)
        self.path = Path(path)
        self._history_length = check_history_length(history_length)
        arguments.seconds("lock_wait_s", lock_wait_s)
        arguments.function("now_us", now_us)
        self._lock_wait_s = lock_wait_s
        self._now_us = now_us
        self._newest: _Version | None = None

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        history_length: int = HISTORY_LENGTH,
        lock_wait_s: float = LOCK_WAIT_S,
        now_us: Callable[[], Instant] = real_now_us,
    ) -> JsonFileStore:
        """Return the store in the file at *path*, which is made, without jobs, when it is missing.

        A file that is there stays as it is.

        Args:
            path: the file; its directory must be there.
            history_length: as for the class.
            lock_wait_s: as for the class.
            now_us: as for the class.

        Raises:
            StoreError: the file could not be written.
            ValueError: a history of less than one outcome.
        """
        store = cls(path, history_length=history_length, lock_wait_s=lock_wait_s, now_us=now_us)
        with store._locked() as file:
            if not file.exists():
                facts = FileFacts(source=str(path))
                raw = {"jobs": [], "updated_at": stamp(facts, now_us())}
                _write_beside(file, encode_file(raw, indent="  ")[0], like=None)
                _put_in_place(file)
        return store

    def load(self, job_id: str) -> Job | None:
        """Return the job of that id, or None when there is none. See `JobStore`."""
        arguments.text("job_id", job_id)
        return _find(self._read().document, job_id)[1]

    def load_all(self) -> tuple[Job | Unreadable, ...]:
        """Return all records, in the order of the file. See `JobStore`."""
        # Without the lock: the rename shows the whole old or the whole new file, and a process
        # that holds the lock for long shall not keep others from looking.
        return self._read().document.records

    def history(self, job_id: str) -> tuple[Outcome, ...]:
        """Return the newest outcomes of a job, oldest first. See `JobStore`."""
        arguments.text("job_id", job_id)
        document = self._read().document
        index, _ = _find(document, job_id)
        if index is None:
            return ()
        return read_history(document.raw["jobs"][index], document.facts)[-self._history_length :]

    def latest(self) -> Mapping[str, Outcome | Unreadable]:
        """Return the newest outcome of each job that has one. See `JobStore`."""
        document = self._read().document
        newest: dict[str, Outcome | Unreadable] = {}
        for job, record in zip(document.records, document.raw["jobs"], strict=True):
            if isinstance(job, Job) and (own := _newest_alone(record)):
                newest[job.id] = _read_newest(own, record, document.facts)
        return newest

    def swap(
        self,
        job_id: str,
        *,
        expected: Job | None,
        replacement: Job | None,
        outcomes: tuple[Outcome, ...] = (),
    ) -> bool:
        """Put *replacement* in the place of *expected*, with the outcomes, by one write. See `JobStore`."""
        check_swap(job_id, expected, replacement, outcomes)
        with self._locked():
            version = self._read()
            index, job = _find(version.document, job_id)
            if job != expected:
                return False
            if replacement == expected and not outcomes:
                return True
            now_us = self._now_us()
            document = _changed(version.document, index, replacement, outcomes, now_us, self._history_length)
            data, texts = encode_file(document.raw, like=version.data, texts=version.texts)
            _write_beside(version.path, data, like=version.status)
            if not _is_still(version):
                return False
            _put_in_place(version.path)
            # What was just written need not be parsed again, unless there is what cannot be read: that may
            # depend on the file's time stamp.
            known = evolve(version, data=data, document=document, texts=texts)
            self._newest = None if document.unreadable else known
            return True

    @contextmanager
    def _locked(self) -> Iterator[Path]:
        """Hold the lock of the file; yield the file itself, behind all symbolic links."""
        file = self._file()
        if not file.parent.is_dir():  # or the lock would make it, and hide that a volume is not mounted
            raise StoreError(f"there is no directory {file.parent}", definite=True)
        path = file.with_name(f"{file.name}.lock")
        lock = FileLock(path)
        try:
            _make_lock(path, file, self._lock_wait_s)
            lock.acquire(timeout=self._lock_wait_s, poll_interval=_LOCK_POLL_S)
        except Timeout:
            problem = f"another process has held {path} for {self._lock_wait_s} s"
            raise StoreError(problem, definite=True) from None
        except PermissionError:
            problem = (
                f"{path} cannot be locked: {belonging.whose(path)}; remove it, or give it to the owner of"
                f" {file}"
            )
            raise StoreError(problem, definite=True) from None
        except (OSError, NotImplementedError) as error:
            raise StoreError(f"{path} cannot be locked: {error}", definite=True) from None
        try:
            yield file
        finally:
            lock.release()

    def _file(self) -> Path:
        try:
            return self.path.resolve()
        except (OSError, RuntimeError) as error:
            raise StoreError(f"{self.path} cannot be resolved: {error}", definite=True) from None

    def _read(self) -> _Version:
        """Return the file as it is now; it is parsed only when it is not the one that was parsed last."""
        path = self._file()
        try:
            with path.open("rb") as opened:
                status, data = os.fstat(opened.fileno()), opened.read()
        except FileNotFoundError:
            problem = f"there is no jobs file {self.path}; JsonFileStore.create makes one"
            raise StoreError(problem, definite=True) from None
        except PermissionError:
            raise StoreError(f"{path} cannot be read: {belonging.whose(path)}", definite=True) from None
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read: {error}", definite=True) from None
        known = self._newest
        # The bytes are compared and not the time of the last change: two writes within one tick of
        # the file system's clock may share that, the size, and even the number of the file.
        if known is None or known.data != data or _depends_on_time(known, status):
            document = self._parse(data, status.st_mtime_ns // 1000)
            known = _Version(path=path, status=status, data=data, document=document)
        else:
            known = evolve(known, path=path, status=status)
        self._newest = known
        return known

    def _parse(self, data: bytes, changed_us: Instant) -> Document:
        source = str(self.path)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            problem = f"expected UTF-8, got byte 0x{data[error.start]:02x} at offset {error.start}"
            raise JobsFileError(source, None, None, problem) from None
        return read_document(text, source=source, now_us=changed_us)


def _find(document: Document, job_id: str) -> tuple[int | None, Job | None]:
    """Return where the job of that id stands, and the job; neither when there is none.

    Raises:
        JobsFileError: its record cannot be read.
    """
    for index, record in enumerate(document.records):
        if record.id == job_id:
            if isinstance(record, Unreadable):
                raise refusal(record)
            return index, record
    return None, None


def _depends_on_time(known: _Version, status: os.stat_result) -> bool:
    """Return whether the same bytes read otherwise now: without a time stamp, the file's own counts."""
    return known.document.as_of_us is None and known.status.st_mtime_ns != status.st_mtime_ns


def _newest_alone(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return *record* with the newest outcome of its history alone; None when there is none."""
    own = record.get("chronos") or {}
    kept = own.get("history")
    return {**record, "chronos": {**own, "history": kept[-1:]}} if kept else None


def _read_newest(
    record: Mapping[str, Any], whole: Mapping[str, Any], facts: FileFacts
) -> Outcome | Unreadable:
    """Return the one outcome of *record*; what is wrong with it is said of its place in *whole*."""
    try:
        try:
            return read_history(record, facts)[0]
        except JobsFileError:
            return read_history(whole, facts)[-1]
    except JobsFileError as error:
        return unreadable(error, record["id"])


def _changed(
    document: Document,
    index: int | None,
    replacement: Job | None,
    outcomes: tuple[Outcome, ...],
    now_us: Instant,
    history_length: int,
) -> Document:
    """Return the file with *replacement* in the place of the job at *index*."""
    facts = document.facts
    updated_at = stamp(facts, now_us)
    later = evolve(facts, fallback_tz=offset_of(updated_at), now_us=parse_instant(updated_at))
    jobs: list[Job | Unreadable] = []
    records: list[Any] = []

    def put(job: Job, before: dict[str, Any], ended: tuple[Outcome, ...] = ()) -> None:
        record = write_job(job, before, facts, outcomes=ended, history_length=history_length)
        jobs.append(_read_back(job, record, later))
        records.append(record)

    for at, (job, record) in enumerate(zip(document.records, document.raw["jobs"], strict=True)):
        if at == index:
            if replacement is not None:
                put(replacement, record, outcomes)
        elif isinstance(job, Job) and record.get("next_run_at") is None and job.next_us is not None:
            # Worked out from `updated_at`, which changes now: written down, lest the slot move.
            put(job, record)
        else:
            jobs.append(job)
            records.append(record)
    if index is None and replacement is not None:
        put(replacement, new_record(replacement, facts, created_us=now_us), outcomes)
    raw = {**document.raw, "jobs": records, "updated_at": updated_at}
    return Document(raw=raw, records=tuple(jobs), as_of_us=later.now_us, facts=later)


def _read_back(job: Job, record: dict[str, Any], facts: FileFacts) -> Job:
    """Return *job* once its record reads as the job in the file that is written, and as text."""
    try:
        again = read_job(json.loads(json.dumps(record)), facts)
    except RecursionError:
        raise StoreError(TOO_DEEP, definite=True) from None
    if again != job:  # such as two halves of a surrogate pair, which JSON joins
        raise StoreError(f"{facts.source}: job {job.id}: no record reads as {job}", definite=True)
    return again


def _beside(file: Path) -> Path:
    """Return where the next version of *file* is written. Only who holds the lock writes there."""
    return file.with_name(f".{file.name}.next")


def _write_beside(file: Path, data: bytes, *, like: os.stat_result | None) -> None:
    """Make *data* durable in the next version of *file*, which belongs to whoever *like* belongs to."""
    beside = _beside(file)
    wanted = None if like is None else Belonging.of(like)
    try:
        beside.unlink(missing_ok=True)
        with os.fdopen(belonging.make(beside, wanted), "wb") as opened:
            if wanted is not None and belonging.keeps_out(opened.fileno(), wanted):
                raise PermissionError(
                    f"its group would lose {file}, and this process may not give it to that group; run it as"
                    " a member, or give the file to a group of its own"
                )
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        problem = f"{beside} cannot be written: {error}"
        if isinstance(error, PermissionError):
            problem += f"; of {file.parent}, {belonging.whose(file.parent)}"
        raise StoreError(problem, definite=True) from None


def _make_lock(lock: Path, file: Path, wait_s: float) -> None:
    """See to it that whoever may write *file* may also lock it, whoever comes first.

    One that a process of another user has left without that in mind is given the right owner, or another
    one is put in its place.
    """
    try:
        like = Belonging.of(file.stat(), at_least=0o600)
    except FileNotFoundError:
        like = None
    try:
        if not os.path.lexists(lock):
            os.close(belonging.make(lock, like))
    except FileExistsError:
        pass  # somebody else was faster
    if like is not None:
        belonging.give_if_ours(lock, like)
    if not belonging.may_write(lock):
        _replace_lock(lock, like, wait_s)


def _replace_lock(lock: Path, like: Belonging | None, wait_s: float) -> None:
    """Put another lock in the place of one that this process may not open for writing.

    Nobody holds the old one meanwhile, as far as it can be read at all. A process that has opened the old
    one finds that it is gone as soon as it has locked it.
    """
    beside = _beside(lock)
    with ExitStack() as held:
        if sys.platform != "win32" and os.access(lock, os.R_OK):
            opened = held.enter_context(lock.open("rb"))
            deadline_s = time.monotonic() + wait_s
            while not _flock(opened.fileno()):
                if time.monotonic() > deadline_s:
                    raise Timeout(str(lock))
                time.sleep(_LOCK_POLL_S)
        beside.unlink(missing_ok=True)
        os.close(belonging.make(beside, like))
        beside.replace(lock)


def _flock(opened: int) -> bool:
    """Return whether an open file is locked now; also where its file system has no locks for readers."""
    import fcntl

    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _is_still(version: _Version) -> bool:
    """Return whether the file is as it was read; a program that ignores the lock may have changed it."""
    try:
        now = version.path.stat()
    except OSError:
        return False
    then = version.status
    return (now.st_mtime_ns, now.st_size, now.st_ino) == (then.st_mtime_ns, then.st_size, then.st_ino)


def _put_in_place(file: Path) -> None:
    """Let the next version of *file* be the file, durably."""
    try:
        _beside(file).replace(file)
        if sys.platform != "win32":
            directory = os.open(file.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
    except OSError as error:
        raise StoreError(f"{file} cannot be replaced: {error}", definite=False) from None
