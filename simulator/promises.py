"""Which NAS is simulated, by a text: one of the builds, or one that keeps all promises but a few."""

from __future__ import annotations

from msgspec.structs import fields

from chronos.cli.options import expected
from chronos.testing.nas import BUILDS, HARDENED, Promises
from chronos.values import evolve

WITHOUT = "without:"
NAMES = tuple(each.name for each in fields(Promises))


def promises_of(text: str) -> Promises:
    """Return the promises of a NAS.

    Args:
        text: `minimal`, `hardened`, or `without:` and the names of promises that are not kept, with commas.

    Raises:
        ValueError: there is none of that name.
    """
    if text in BUILDS:
        return BUILDS[text]
    if not text.startswith(WITHOUT):
        raise ValueError(f"there is no NAS {expected(text, BUILDS)}, or {WITHOUT}PROMISE,...")
    broken = text.removeprefix(WITHOUT).split(",")
    for name in broken:
        if name not in NAMES:
            raise ValueError(f"there is no promise {expected(name, NAMES)}")
    return evolve(HARDENED, **dict.fromkeys(broken, False))
