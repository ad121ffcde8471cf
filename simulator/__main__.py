"""`python -m simulator`: starts the command line, which takes a while to be imported."""

from __future__ import annotations

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C ends it, without a word, until the imports below are done and it is answered.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from collections.abc import Sequence

from chronos.cli import console


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status, which is one of `simulator.command_line.STATUSES`."""

    def command() -> int:
        # Within: who mistyped an option presses Ctrl-C while this is going on.
        from simulator import command_line

        return command_line.main(arguments)

    return console.ended("simulator", command, extra="simulator")


if __name__ == "__main__":
    console.process("simulator", main)
