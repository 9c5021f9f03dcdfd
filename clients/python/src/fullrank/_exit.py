"""What happens when the program ends.

Guarantees: all monitors together delay the exit by at most `GRACE_S`; each that pushed anything prints one line about
its pushes; nothing happens in a forked child.
Must not: keep a Monitor alive. It refers to the Monitor's `Core`, which frees its buffers once the Monitor is gone.
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
    """What this module needs of a `Core`."""

    pid: int

    def wait_until_sent(self, deadline: float) -> bool:
        """Waits until everything queued so far is dealt with."""

    def summary(self) -> str:
        """One line about all pushes. Empty if there is nothing to report."""


_open: list[Ending] = []
_lock = threading.Lock()


def watch(ending: Ending) -> None:
    """Registers `ending` for the exit."""
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
