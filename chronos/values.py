"""How the values of this library are made.

A plain value is a `msgspec.Struct`, frozen: it is made, compared and hashed by compiled code, and a process
makes some dozen of them at each step. A value that checks or converts what it is given, or that describes
its fields, is a class of `attrs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the checker knows the fields of a struct through this one
    from dataclasses import replace as evolve
else:
    from msgspec.structs import replace as evolve

__all__ = ["evolve"]
