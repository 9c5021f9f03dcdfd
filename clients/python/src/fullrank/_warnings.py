"""One logged warning per kind of problem, and a count of all of them.

Guarantees: never raises, whatever the logging configuration does; a kind is logged once and counted every time.
Must not: use the `warnings` module, whose filters can turn a warning into an exception inside a training step.
"""

from __future__ import annotations

import contextlib
import logging
import threading

logger = logging.getLogger("fullrank")


class Invalid(Exception):
    """A push that the client itself recognises as wrong."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Complaints:
    """What has gone wrong so far, by kind."""

    def __init__(self, run: str, quiet: bool = False) -> None:
        self._quiet = quiet
        self._run = run
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    def add(self, kind: str, text: str) -> None:
        """Counts one of `kind`, and logs `text` if it is the first."""
        with self._lock:
            seen = self._counts.get(kind, 0)
            self._counts[kind] = seen + 1
        if not seen and not self._quiet:
            say(f"run {self._run}: {text} (logged once; later ones are counted in monitor.stats.warnings[{kind!r}])")

    def counts(self) -> dict[str, int]:
        """How often each kind has occurred."""
        with self._lock:
            return dict(self._counts)


def say(text: str) -> None:
    """Logs a warning."""
    # A user's handler may raise. That must not stop the training.
    with contextlib.suppress(Exception):
        logger.warning("fullrank: %s", text)
