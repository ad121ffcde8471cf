"""`python -m simulator`: starts the command line, which takes a while to be imported."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from simulator.exits import BAD_INPUT, INTERRUPTED, complain


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status, which is one of `simulator.exits`."""
    try:
        # Within the `try`: whoever mistyped an option presses Ctrl-C while this is going on.
        from simulator import command_line

        return command_line.main(arguments)
    except KeyboardInterrupt:
        complain("interrupted; nothing was written")
        return INTERRUPTED
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "chronos", "simulator"):
            raise
        # By itself it would end with status 1, which says that a property was violated.
        complain(
            f"error: {missing} is not installed, it comes with the extra `simulator`: "
            "pip install 'chronos-cron[simulator]' (in a checkout: pip install '.[simulator]')"
        )
        return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
