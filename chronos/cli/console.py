"""How a command line of this distribution talks and ends: its lines, its exit statuses, and signals.

Every line that a person reads goes through `tell` or `complain`, which let nothing through that a
terminal would act upon or cannot show. A command line is a function that returns a status; `ended`
gives every way in which it can end otherwise a line and a status, and `process` does so for signals.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NoReturn, TextIO, TypeVar

from chronos.errors import ChronosError, printable

OK, VIOLATED, BAD_INPUT, INCONCLUSIVE, FAILED = range(5)

# The signals that ask a process to end. Each ends it with status 128 and its number, as in a shell.
_ENDINGS = {
    getattr(signal, name): word
    for name, word in {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}.items()
    if hasattr(signal, name)
}
INTERRUPTED = 128 + signal.SIGINT

# What these statuses mean, whatever the command line does.
COMMON_STATUSES: Mapping[int, str] = {
    BAD_INPUT: "bad usage or input, or the output cannot be written",
    FAILED: "the program itself failed",
    **{128 + number: word for number, word in sorted(_ENDINGS.items())},
}

# Set to anything, it adds the traceback to the line that tells of a failure of the program.
TRACEBACK = "CHRONOS_TRACEBACK"

# An exception may quote a whole document.
_LONGEST_PROBLEM = 400


T = TypeVar("T")


class BadUsage(Exception):
    """What was asked for makes no sense, or cannot be done here; the message is one line."""


class Failed(Exception):
    """Something failed elsewhere, such as in another process.

    Attributes:
        problem: what failed, in one line.
        trace: its traceback, if there is one.
    """

    def __init__(self, problem: str, trace: str = "") -> None:
        super().__init__(problem, trace)
        self.problem = problem
        self.trace = trace


# --- lines ------------------------------------------------------------------------------------

# Whether a line was printed: an end from then on leaves output that is not whole.
_has_told = False


def tell(lines: Iterable[str]) -> None:
    """Print *lines*, for as long as somebody reads them.

    Raises:
        BadUsage: the output takes no more, and not because its reader has left.
    """
    global _has_told
    for line in lines:
        if sys.stdout is None:
            raise BadUsage("the output cannot be written: it is closed")
        try:
            print(_shown(line, sys.stdout), flush=True)
        except BrokenPipeError:
            # Whoever read our output has had enough of it; what came of the work is the same.
            mute(sys.stdout)
            return
        except OSError as error:
            mute(sys.stdout)
            raise BadUsage(f"the output cannot be written: {error.strerror}") from None
        _has_told = True


def complain(name: str, problem: str) -> None:
    """Say on the standard error, where there is one, what is wrong.

    Args:
        name: of the program.
        problem: one line.
    """
    if sys.stderr is None:  # closed by whoever started us; `print` would take the output instead
        return
    try:
        print(_shown(f"{name}: {problem}", sys.stderr), file=sys.stderr, flush=True)
    except OSError:
        mute(sys.stderr)  # the status has to do


def _shown(line: str, stream: TextIO) -> str:
    """Return *line* as *stream* can show it, with nothing in it that a terminal acts upon."""
    encoding = stream.encoding or "utf-8"
    return printable(line).encode(encoding, "backslashreplace").decode(encoding)


def mute(stream: TextIO) -> None:
    """Let whatever is still written to *stream* vanish.

    What could not be written is still in its buffer. At its exit the interpreter tries again, and
    would put a status of its own in the place of ours.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


# --- inputs and outputs -----------------------------------------------------------------------


def facts(file: str | os.PathLike[str] | TextIO | None) -> os.stat_result | None:
    """Return what the system says of *file*, by its path or opened; None when there is none."""
    if file is None:
        return None
    try:
        return os.stat(file if isinstance(file, str | os.PathLike) else file.fileno())  # noqa: PTH116
    except (OSError, ValueError):  # such as a stream that is no file
        return None


def is_one_file(one: os.stat_result | None, other: os.stat_result | None) -> bool:
    """Return whether both are one file, by whatever names; a terminal may be read and written at once."""
    if one is None or other is None or stat.S_ISCHR(one.st_mode) or stat.S_ISSOCK(one.st_mode):
        return False
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def keep_apart(name: str, given: os.stat_result | None) -> None:
    """Make sure that neither the output nor the standard error is the input, which is never written.

    Args:
        name: of the input.
        given: the facts of the input.

    Raises:
        BadUsage: one of them is.
    """
    # Second, so that it is no longer the input when the first one is told of.
    for stream, words in ((sys.stderr, "the standard error"), (sys.stdout, "the output")):
        if stream is not None and is_one_file(given, facts(stream)):
            mute(stream)
            raise BadUsage(f"{words} is {name}, which is read and never written")


# --- ends -------------------------------------------------------------------------------------


def ended(name: str, command: Callable[[], int], *, extra: str) -> int:
    """Run *command* and return its exit status, or the one that says why it has none.

    Args:
        name: of the program, for its lines.
        command: the command line.
        extra: what of this distribution brings the packages that *command* needs.
    """
    try:
        return command()
    except (BadUsage, ChronosError) as error:
        complain(name, f"error: {error}")
        return BAD_INPUT
    except KeyboardInterrupt:
        complain(name, _ending(signal.SIGINT))
        return INTERRUPTED
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "chronos", "simulator"):
            return _failed(name, error)
        complain(
            name,
            f"error: {missing} is not installed, it comes with the extra `{extra}`: "
            f"pip install 'chronos-cron[{extra}]' (in a checkout: pip install '.[{extra}]')",
        )
        return BAD_INPUT
    except Exception as error:  # noqa: BLE001 - by itself it would end with the status of a violation
        return _failed(name, error)


def _failed(name: str, error: Exception) -> int:
    failed = failure(error)
    hint = "" if os.environ.get(TRACEBACK) else f"; {TRACEBACK}=1 shows the traceback"
    complain(name, f"failed: {failed.problem}{hint}")
    if not hint:
        for line in failed.trace.splitlines():
            complain(name, line)
    return FAILED


def attempted(command: Callable[[], T]) -> T:
    """Return what *command* returns.

    Raises:
        BadUsage: a file that is written meanwhile cannot be.
        Failed: it raised, whatever else it was: an error that means bad input elsewhere means none here.
    """
    try:
        return command()
    except BadUsage:
        raise
    except Exception as error:
        raise failure(error) from error


def failure(error: Exception) -> Failed:
    """Return what is known of *error*, in plain values that another process can be sent."""
    if isinstance(error, Failed):
        return error
    import traceback  # these are needed here alone, and every start would wait for them
    from pathlib import Path

    frames = traceback.extract_tb(error.__traceback__)
    place = f", at {'/'.join(Path(frames[-1].filename).parts[-2:])}:{frames[-1].lineno}" if frames else ""
    words = " ".join("".join(traceback.format_exception_only(error)).split())
    return Failed(words[:_LONGEST_PROBLEM] + place, "".join(traceback.format_exception(error)))


# --- signals ----------------------------------------------------------------------------------

# What is to be undone when a signal ends the process, the latest last.
_undo: list[Callable[[], None]] = []


def process(name: str, main: Callable[[], int]) -> NoReturn:
    """Run *main* as all of this process, which a signal ends at any moment with one line and its status."""

    def end(number: int, _frame: object) -> None:
        # Here and now: an exception would have to find its way through code that may be anywhere,
        # half-way through an import, the start of a process, or a lock.
        _ignore()
        for action in reversed(_undo):
            with suppress(Exception):
                action()
        if sys.stderr is not None:
            with suppress(OSError, ValueError):
                os.write(sys.stderr.fileno(), f"{name}: {_ending(number)}\n".encode())
        os._exit(128 + number)

    for each in _ENDINGS:
        if signal.getsignal(each) is not signal.SIG_IGN:  # as under nohup
            signal.signal(each, end)
    status = main()
    _ignore()
    sys.exit(status)


def _ending(number: int) -> str:
    left = "the output is not whole" if _has_told else "nothing was written"
    return f"{_ENDINGS[number]}; {_left() if _left is not None else left}"


# What a signal leaves behind that ends the process, where that is more than output.
_left: Callable[[], str] | None = None


@contextmanager
def leaving(words: Callable[[], str]) -> Iterator[None]:
    """Let a signal that ends the process within the block say what it leaves behind, by *words*."""
    global _left
    before, _left = _left, words
    try:
        yield
    finally:
        _left = before


def _ignore() -> None:
    for each in _ENDINGS:
        signal.signal(each, signal.SIG_IGN)


@contextmanager
def undone(action: Callable[[], None]) -> Iterator[None]:
    """Do *action* at the end of the block, and also when a signal ends the process within it.

    It may be done twice.
    """
    _undo.append(action)
    try:
        yield
    finally:
        action()
        _undo.remove(action)


@contextmanager
def deaf() -> Iterator[None]:
    """Leave the signals that end a process for the end of the block; processes made in it stay deaf."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
