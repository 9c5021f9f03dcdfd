"""What happens when the program ends.

Guarantees: all monitors together delay the end by at most `GRACE_S`; each that pushed anything says in one line what
became of it; nothing happens in a forked child.
Must not: keep a Monitor alive; what it holds on to is the Monitor's inside, without its buffers once nobody pushes.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from typing import Protocol

GRACE_S = 2.0


class Ending(Protocol):
    """What this file asks of a monitor's inside."""

    pid: int

    def wait_until_sent(self, deadline: float) -> bool:
        """Waits for what is queued."""

    def summary(self) -> str:
        """One line; empty when there is nothing to say."""


_open: list[Ending] = []
_lock = threading.Lock()


def watch(ending: Ending) -> None:
    """Has `ending` looked after at exit."""
    with _lock:
        _open.append(ending)


@atexit.register
def _at_exit() -> None:
    deadline = time.monotonic() + GRACE_S
    for ending in _open:
        if ending.pid != os.getpid():
            continue
        try:
            ending.wait_until_sent(deadline)
            line = ending.summary()
            if line:
                print(line, file=sys.stderr)
        except Exception:  # standard error may be closed already
            pass
