"""`python -m chronos`: tells of the jobs in a store, from the store alone."""

from __future__ import annotations

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C ends it, without a word, until the imports below are done and it is answered.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from collections.abc import Sequence

from chronos.cli import console


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status, one of `chronos.cli.command_line.STATUSES`."""

    def command() -> int:
        from chronos.cli import command_line

        return command_line.main(arguments)

    return console.ended("chronos", command, extra="sql")


if __name__ == "__main__":
    console.process("chronos", main)
