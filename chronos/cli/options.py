"""The options of a command line: what is mistyped is told with what was expected, and the nearest to it."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn
from zoneinfo import available_timezones

from chronos.cli.console import BadUsage
from chronos.errors import JobsFileError, ScheduleError
from chronos.jobs.instants import Instant, parse_instant
from chronos.jobs.zones import zone_of

# How an option names it.
STANDARD_INPUT = "-"


# Ten thousand jobs with long prompts have some tens of MB. What does not end is no jobs file.
MAX_FILE_BYTES = 256 * 2**20


class Helped(Exception):
    """Somebody asked for help or the version, which is printed like everything else."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lines = text.rstrip("\n").split("\n")


class Parser(argparse.ArgumentParser):
    """A parser that raises what argparse prints.

    Args:
        options: as of `argparse.ArgumentParser`; `epilog` keeps its lines.

    Its methods raise `BadUsage` for what makes no sense, and `Helped`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments; see `argparse.ArgumentParser.error`."""
        raise BadUsage(f"{message} (see: {self.prog} --help)")

    def print_help(self, file: object = None) -> NoReturn:  # noqa: ARG002, the base class has it
        """Raise the help; see `argparse.ArgumentParser.print_help`."""
        raise Helped(self.format_help())

    @property
    def options(self) -> tuple[str, ...]:
        """The options of this parser, with their dashes."""
        return tuple(option for action in self._actions for option in action.option_strings)

    def takes_value(self, option: str) -> bool:
        """Return whether *option*, such as --seeds, is one of this parser that is followed by a value."""
        return any(option in action.option_strings and action.nargs != 0 for action in self._actions)

    # A sub-parser's leftovers are told here, where its own options are known.
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse all arguments, none of which may be left; see `argparse.ArgumentParser.parse_known_args`."""
        given = sys.argv[1:] if args is None else list(args)
        if self._subparsers is not None and given:  # it would ask for a command, whatever stands before it
            self._check_option(given[0])
        parsed, rest = super().parse_known_args(args, namespace)
        if not rest:
            return parsed, rest
        self._check_option(rest[0])
        return self.error(f"{rest[0]!r} is one argument too many")

    def _check_option(self, given: str) -> None:
        """Refuse what looks like an option and is none."""
        name, _, _ = given.partition("=")
        if name.startswith("-") and name not in self.options:
            self.error(f"there is no option {expected(name, self.options)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, expected(str(value), action.choices))


class Version(argparse.Action):
    """The option `--version`."""

    def __init__(self, option_strings: list[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help="print the version")

    def __call__(self, *_: Any) -> NoReturn:
        """Raise the version of this distribution."""
        try:
            raise Helped(f"chronos-cron {version('chronos-cron')}")
        except PackageNotFoundError:
            raise Helped("chronos-cron, of a checkout that is not installed") from None


def expected(value: str, known: Iterable[str]) -> str:
    """Return *value*, with the words that were expected in its place and the nearest of them."""
    words = list(known)
    return f"{value!r}, expected one of: {', '.join(words)}{nearest(value, words)}"


def nearest(value: str, known: Iterable[str]) -> str:
    """Return a question for the word that was meant by *value*, or nothing when none is near."""
    found = difflib.get_close_matches(value, known, n=1)
    return f"; did you mean {found[0]}?" if found else ""


def nearest_file(path: Path) -> str:
    """Return a question for the file that was meant by *path*, or nothing when none is near."""
    try:
        return nearest(path.name, os.listdir(path.parent))  # noqa: PTH208 - names, and no more
    except OSError:
        return ""


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return what reads a whole number within these bounds."""

    def number(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}, got {text!r}")
        return int(text)

    return number


def instant(text: str) -> Instant:
    """Return the instant that *text* is, epoch microseconds."""
    try:
        return parse_instant(text)
    except ScheduleError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def zone(text: str) -> str:
    """Return *text*, the name of a time zone or an offset."""
    try:
        zone_of(text)
    except ScheduleError as error:
        raise argparse.ArgumentTypeError(f"{error}{nearest(text, available_timezones())}") from None
    return text


def as_json(value: object) -> str:
    """Return *value* as JSON in ASCII, one value on each line."""
    # The one control character that JSON leaves as it is.
    return json.dumps(value, indent=1).replace("\x7f", "\\u007f")


def section(title: str, rows: Mapping[Any, str]) -> str:
    """Return a section of a help text: a row for each of *rows*."""
    width = max(len(str(name)) for name in rows)
    return "\n".join([f"{title}:", *(f"  {name!s:{width}}  {words}" for name, words in rows.items())])


def read_jobs(path: Path | None) -> tuple[str, str]:
    """Read a jobs file, once, and return its name for messages, and its text.

    Args:
        path: the file; None for the standard input.

    Raises:
        JobsFileError: it cannot be read, or is not text.
    """
    name = "standard input" if path is None else str(path)
    try:
        if path is not None:
            with path.open("rb") as opened:
                data = opened.read(MAX_FILE_BYTES + 1)
        elif sys.stdin is None:
            raise JobsFileError(name, None, None, "cannot be read: it is closed")
        else:
            data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise JobsFileError(name, None, None, f"expected {MAX_FILE_BYTES >> 20} MiB at most")
        return name, data.decode("utf-8")
    except UnicodeDecodeError as error:
        problem = f"expected text in UTF-8, got byte 0x{data[error.start]:02x} at offset {error.start}"
        raise JobsFileError(name, None, None, problem) from None
    except (OSError, ValueError) as error:
        hint = nearest_file(path) if path is not None and isinstance(error, FileNotFoundError) else ""
        words = getattr(error, "strerror", None) or str(error)
        raise JobsFileError(name, None, None, f"cannot be read: {words}{hint}") from None
