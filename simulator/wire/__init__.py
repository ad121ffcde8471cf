"""Lives with all that ships: the async scheduler, client, endpoint, tokens, JSON, and a real store."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from simulator.host import Live
from simulator.watch import Watch

# The kinds of stores; the first is the one that is used unless another is named.
STORES = ("memory", "json", "sqlite")


@contextmanager
def wired(store: str) -> Iterator[Callable[[Watch], Live]]:
    """Yield what makes the machines of a world live by all that ships; nothing is logged meanwhile.

    Args:
        store: the kind of store that they share, one of `STORES`.
    """
    from simulator.wire.life import Outside  # httpx and the like are not loaded by a model
    from simulator.wire.store import KINDS, SharedStore

    logger = logging.getLogger("chronos")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with tempfile.TemporaryDirectory(prefix="chronos-wire-") as directory:

            def live_by(watch: Watch) -> Live:
                real = KINDS[store](Path(directory), lambda: watch.kernel.now_us)
                return Outside(SharedStore(real, watch)).live

            yield live_by
    finally:
        logger.setLevel(level)
