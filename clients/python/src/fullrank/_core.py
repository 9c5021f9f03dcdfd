"""What a Monitor owns: queue, sender thread and counters, separate from the public interface.

Guarantees: the thread refers to this and not to the Monitor, so a Monitor that is garbage-collected ends its thread; a
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
    """What has become of the pushes so far. Counts of batches, unless noted otherwise."""

    pushed: int = 0  # calls of push, including those that `every` skipped
    skipped: int = 0  # by `every`
    invalid: int = 0  # found wrong by the client, and not sent
    sent: int = 0  # accepted by the service
    sent_rows: int = 0
    sent_bytes: int = 0
    duplicates: int = 0  # of those sent, the ones that the service already had
    dropped: int = 0  # because the queue was full
    dropped_rows: int = 0
    refused: int = 0  # by the service
    refusals: dict[str, int] = field(default_factory=dict)  # by the service's code
    retries: int = 0
    thinned: int = 0  # cut to the service's limit
    queued: int = 0
    queued_bytes: int = 0
    warnings: dict[str, int] = field(default_factory=dict)  # by kind, including those that were not logged again


class _Process:
    """Which process this is, without a system call at each push."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.pid = os.getpid()


_process = _Process()


class Core:
    """See the module docstring."""

    def __init__(self, settings: Settings, queue_bytes: int, place: tuple[Optional[int], Optional[int]]) -> None:
        self.pid = _process.pid
        self.run = settings.run
        self.complaints = Complaints(settings.run)
        self.queue = SendQueue(queue_bytes)
        self.sender = Sender(settings, self.queue, self.complaints)
        self.skipped = self.invalid = 0
        self.lost = 0  # dropped before they were copied
        self.lost_rows = 0
        self.lock = threading.Lock()  # guards the counters above
        self._place = place
        self._placed = False
        self._fork_reported = False
        self._thread: Optional[threading.Thread] = None
        self._summed_up = ""
        _exit.watch(self)

    def at_home(self) -> bool:
        """Whether this is the process that created it. Takes no lock, as a fork may have left it locked."""
        if _process.pid == self.pid:
            return True
        if not self._fork_reported:
            self._fork_reported = True
            say(f"run {self.run}: this Monitor was created in process {self.pid} and does not send from a fork of it")
        return False

    @property
    def pushed(self) -> int:
        """Calls of push so far."""
        return self.queue.batches + self.skipped + self.invalid + self.lost

    def start(self) -> None:
        """Starts the thread unless it runs, and finds out which worker this is."""
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
        """(worker, workers), determined at the first push, when torch.distributed is set up."""
        if not self._placed:
            worker, workers = self._place
            found = worker_and_workers()
            self.sender.worker = found[0] if worker is None else worker
            self.sender.workers = found[1] if workers is None else workers
            self._placed = True
        return self.sender.worker, self.sender.workers

    def wait_until_sent(self, deadline: float) -> bool:
        """Waits until everything queued so far is dealt with."""
        return self.queue.wait_until_sent(deadline)

    def stop(self) -> None:
        """There will be no more pushes: what is queued is sent, then the thread ends."""
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
        """One line about all pushes. Empty if there were none, or none since the last call."""
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
    """A time of the monotonic clock, `seconds` from now."""
    return time.monotonic() + max(0.0, seconds)
