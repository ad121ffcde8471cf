"""The command that simulates one seed again."""

from __future__ import annotations

import argparse
import shlex

# Those that are not repeated where one seed of many is simulated again, each with a value.
_OF_MANY = ("--seeds", "--seed", "--json")
_OF_RUNS = ("--job", "--trace", "--html")


def replay(options: argparse.Namespace, seed: int, command: str = "run") -> str:
    """Return the command that simulates one seed of those that were asked for, and tells all of it."""
    left_out = _OF_MANY if command == "run" else (*_OF_MANY, *_OF_RUNS)
    kept, is_value = [], False
    for each in options.given:
        name, is_whole = each.partition("=")[0], "=" in each
        if not (is_value or name in left_out or each == "--compare"):
            kept.append(each)
        is_value = not is_value and name in left_out and not is_whole
    return shlex.join(["python", "-m", "simulator", command, *kept[1:], "--seed", str(seed)])
