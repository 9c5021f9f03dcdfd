"""What a Monitor owns: queue, sender thread and counters, apart from the face that users hold.

Guarantees: the thread refers to this and not to the Monitor, so that a Monitor that is forgotten ends its thread; a
forked child neither sends nor takes a lock that its parent may have held.
Must not: check what users pass (`monitor` does).
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from typing import Optional

from . import _exit
from ._distributed import worker_and_workers
from ._queue import SendQueue
from ._sender import Sender, Settings
from ._warnings import Complaints, say


@dataclass(frozen=True)
class Stats:
    """What became of the pushes so far. Counts of batches, unless said otherwise."""

    pushed: int = 0  # calls of push, those that `every` skipped among them
    skipped: int = 0  # by `every`
    invalid: int = 0  # not sent: the client saw that they were wrong
    sent: int = 0  # taken by the service
    sent_rows: int = 0
    sent_bytes: int = 0
    duplicates: int = 0  # of those sent: the service had them already
    dropped: int = 0  # for want of room in the queue
    dropped_rows: int = 0
    refused: int = 0  # by the service
    refusals: dict[str, int] = field(default_factory=dict)  # by the service's code
    retries: int = 0
    thinned: int = 0  # cut to the service's limit
    queued: int = 0
    queued_bytes: int = 0
    warnings: dict[str, int] = field(default_factory=dict)  # by kind, also those that were not said again


class _Process:
    """Which process this is, without asking the system at each push."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.pid = os.getpid()


_process = _Process()


class Core:
    """See the file's head."""

    def __init__(self, settings: Settings, queue_bytes: int, place: tuple[Optional[int], Optional[int]]) -> None:
        self.pid = _process.pid
        self.run = settings.run
        self.complaints = Complaints(settings.run)
        self.queue = SendQueue(queue_bytes)
        self.sender = Sender(settings, self.queue, self.complaints)
        self.skipped = self.invalid = 0
        self.lost = 0  # dropped before they were copied
        self.lost_rows = 0
        self.lock = threading.Lock()  # of the counters above
        self._place = place
        self._placed = False
        self._foreign_said = False
        self._thread: Optional[threading.Thread] = None
        self._summed_up = ""
        _exit.watch(self)

    def at_home(self) -> bool:
        """Whether this is the process that made it; takes no lock, which a fork may have left locked."""
        if _process.pid == self.pid:
            return True
        if not self._foreign_said:
            self._foreign_said = True
            say(f"run {self.run}: this Monitor was made in process {self.pid} and does not send from a fork of it")
        return False

    @property
    def pushed(self) -> int:
        """Calls of push so far."""
        return self.queue.batches + self.skipped + self.invalid + self.lost

    def start(self) -> None:
        """Starts the thread, once, and finds out which worker this is."""
        if self._thread is not None:
            return
        with self.lock:
            if self._thread is not None:
                return
            self.place()
            thread = threading.Thread(target=self.sender.run, name=f"fullrank-{self.run}", daemon=True)
            thread.start()
            self._thread = thread

    def place(self) -> tuple[int, int]:
        """(worker, workers), asked for at the first push: torch.distributed is set up by then."""
        if not self._placed:
            worker, workers = self._place
            found = worker_and_workers()
            self.sender.worker = found[0] if worker is None else worker
            self.sender.workers = found[1] if workers is None else workers
            self._placed = True
        return self.sender.worker, self.sender.workers

    def wait_until_sent(self, deadline: float) -> bool:
        """Waits for what is queued."""
        return self.queue.wait_until_sent(deadline)

    def stop(self) -> None:
        """Nobody will push any more: what is queued is sent, then the thread ends."""
        self.queue.stop()

    def stats(self) -> Stats:
        """The counters now."""
        counts, queue = self.sender.counts, self.queue
        queued, queued_bytes = queue.waiting()
        return Stats(
            pushed=self.pushed,
            skipped=self.skipped,
            invalid=self.invalid,
            sent=counts.sent,
            sent_rows=counts.sent_rows,
            sent_bytes=counts.sent_bytes,
            duplicates=counts.duplicates,
            dropped=queue.dropped + self.lost,
            dropped_rows=queue.dropped_rows + self.lost_rows,
            refused=counts.refused,
            refusals=dict(counts.refusals),
            retries=counts.retries,
            thinned=counts.thinned,
            queued=queued,
            queued_bytes=queued_bytes,
            warnings=self.complaints.counts(),
        )

    def summary(self) -> str:
        """One line about everything; empty when nothing was pushed, or nothing since it was last asked for."""
        stats = self.stats()
        line = (
            f"fullrank: run {self.run}: {stats.sent} batches sent ({stats.sent_rows} rows,"
            f" {stats.sent_bytes / 2**20:.1f} MiB), {stats.dropped} dropped, {stats.refused} refused,"
            f" {stats.invalid} invalid, {stats.queued} not sent in time"
        )
        if not stats.pushed or line == self._summed_up:
            return ""
        self._summed_up = line
        return line


def deadline_in(seconds: float) -> float:
    """A point of the monotonic clock."""
    return time.monotonic() + max(0.0, seconds)
