"""The exit status of each verdict."""

from __future__ import annotations

from collections.abc import Iterable

from chronos.cli.console import INCONCLUSIVE, OK, VIOLATED

# The worst verdict of several decides.
STATUS_OF = {"violated": VIOLATED, "inconclusive": INCONCLUSIVE, "ok": OK}


def worst(verdicts: Iterable[str]) -> str:
    """Return the worst of several verdicts, of which there is one at least."""
    return min(verdicts, key=list(STATUS_OF).index)
