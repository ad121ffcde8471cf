"""A process that works for another one: `simulator.sweep` starts it and gives it items.

It lives as long as the line to the process that started it, however that ends.
"""

from __future__ import annotations

import os
import pickle
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue

from chronos.cli import console


def main(handle: int) -> None:
    """Apply the function that comes first to whatever comes next, and send what it returns.

    Args:
        handle: the number of this end of the line.
    """
    line = Connection(handle)
    messages: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(line, messages), daemon=True).start()
    with suppress(OSError):  # nobody is there any more; the other thread ends this process
        first, function = messages.get(), None
        while True:
            item = messages.get()
            try:
                function = function or pickle.loads(first)
                result = function(pickle.loads(item))
            except console.BadUsage as error:
                result = error
            except Exception as error:  # noqa: BLE001 - it is told by the one who asked
                result = console.failure(error)
            line.send(result)


def _listen(line: Connection, messages: SimpleQueue[bytes]) -> None:
    with suppress(EOFError, OSError):
        while True:
            messages.put(line.recv_bytes())
    os._exit(0)
