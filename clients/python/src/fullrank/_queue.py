"""The queue between the trainer and the sender, bounded in bytes, and the pool of buffers behind it.

Guarantees: `reserve`, `put` and `add` never wait for the network; batches, reservations and idle buffers together
stay within the bound (what the sender holds comes on top: one batch); over it, the oldest batch is dropped and
counted. What a window needs to close is not lost with it: see `_make_room`. Controls (close, finish) are never
dropped.
Must not: know HTTP, or copy a tensor by itself.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Optional, Union

import numpy as np

from ._buffer import Batch, Buffer, Control, size_class

Item = Union[Batch, Control]

# Idle buffers of one size: the sender holds one, the trainer fills one, the rest is for bursts.
KEPT_OF_A_SIZE = 4


class SendQueue:
    """See the file's head. Every method may be called from any thread."""

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.batches = 0  # that were queued
        self.dropped = 0
        self.dropped_rows = 0
        self._lock = threading.Lock()
        self._filled = threading.Condition(self._lock)
        self._emptied = threading.Condition(self._lock)
        self._items: deque[Item] = deque()
        self._sending: Optional[Item] = None
        self._held = 0  # bytes of queued batches, of reservations and of idle buffers
        self._idle: dict[tuple[int, bool], list[Buffer]] = {}
        self._tickets = 0
        self._stopped = False

    # -- the trainer's side

    def reserve(self, nbytes: int, pinned: bool) -> Optional[Buffer]:
        """A buffer of at least `nbytes`; None when it does not fit the bound, whatever is dropped."""
        size = size_class(nbytes)
        with self._lock:
            while True:
                idle = self._idle.get((size, pinned))
                if idle:
                    return idle.pop()
                if self._held + size <= self.bound:
                    self._held += size
                    break
                if not self._free_an_idle() and not self._make_room():
                    return None
        return Buffer(size, pinned)

    def unreserve(self, buffer: Buffer) -> None:
        """Takes back a buffer that came to nothing."""
        with self._lock:
            self._held -= buffer.size
            self._keep(buffer, len(self._items) + KEPT_OF_A_SIZE)

    def put(self, batch: Batch) -> None:
        """Queues a batch whose buffer was reserved here."""
        with self._lock:
            self.batches += 1
            self._append(batch)

    def add(self, control: Control) -> None:
        """Queues a control behind what is queued, unless the same one already is the last."""
        with self._lock:
            last = self._items[-1] if self._items else None
            if isinstance(last, Control) and last.target == control.target:
                return
            self._append(control)

    def add_small(self, batch: Batch) -> None:
        """Queues a batch with a buffer of its own making, of a row or so."""
        assert batch.buffer is not None
        with self._lock:
            self.batches += 1
            self._held += batch.buffer.size
            self._append(batch)

    def mark_last(self, window: int) -> None:
        """Makes the newest queued batch of `window`, in each layer, its last."""
        with self._lock:
            seen = set()
            for item in reversed(self._items):
                if isinstance(item, Batch) and item.window == window and item.layer not in seen:
                    seen.add(item.layer)
                    item.last = True

    def wait_until_sent(self, deadline: float) -> bool:
        """Waits for what is queued now; False when `deadline` (monotonic) came first."""
        with self._lock:
            target = self._tickets
            while True:
                first = self._sending or (self._items[0] if self._items else None)
                if first is None or first.ticket > target:
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._emptied.wait(left)

    def waiting(self) -> tuple[int, int]:
        """Batches that are queued or under way, and the bytes of the queued ones."""
        with self._lock:
            batches = [item for item in self._items if isinstance(item, Batch)]
            queued = sum(batch.buffer.size for batch in batches if batch.buffer is not None)
            return len(batches) + isinstance(self._sending, Batch), queued

    # -- the sender's side

    def take(self, timeout: Optional[float]) -> Optional[Item]:
        """The oldest item; None after `timeout`, or once the queue is stopped and empty."""
        with self._lock:
            if not self._items and not self._stopped:
                self._filled.wait(timeout)
            if not self._items:
                return None
            item = self._items.popleft()
            self._sending = item
            if isinstance(item, Batch) and item.buffer is not None:
                self._held -= item.buffer.size
            return item

    def done(self, item: Item) -> None:
        """The item that was taken is dealt with."""
        with self._lock:
            self._sending = None
            if isinstance(item, Batch) and item.buffer is not None:
                self._keep(item.buffer, KEPT_OF_A_SIZE)
                item.buffer = None
            self._emptied.notify_all()

    def stop(self) -> None:
        """No more will come: `take` hands out what is left."""
        with self._lock:
            self._stopped = True
            while self._free_an_idle():
                pass
            self._filled.notify_all()

    @property
    def stopped(self) -> bool:
        """Whether it was stopped."""
        return self._stopped

    # -- under the lock

    def _append(self, item: Item) -> None:
        self._tickets += 1
        item.ticket = self._tickets
        self._items.append(item)
        self._filled.notify()

    def _keep(self, buffer: Buffer, at_most: int) -> None:
        """Puts a buffer that nobody's bytes are counted for back into the pool, if there is room for it."""
        if self._stopped or buffer.size != size_class(buffer.size):
            return  # nobody will ask for it; or it is a thinned batch's own
        idle = self._idle.setdefault((buffer.size, buffer.pinned), [])
        if len(idle) < at_most and self._held + buffer.size <= self.bound:
            idle.append(buffer)
            self._held += buffer.size

    def _free_an_idle(self) -> bool:
        for idle in self._idle.values():
            if idle:
                self._held -= idle.pop().size
                return True
        return False

    def _make_room(self) -> bool:
        """Drops the oldest batch. One with `last` goes only if a later window's batch of its layer is queued behind it,
        which closes the window all the same; else it is cut to one row a view, and keeps its `last`."""
        for place, item in enumerate(self._items):
            if not isinstance(item, Batch) or item.buffer is None:
                continue
            if item.last and item.window is not None and not self._superseded(place, item):
                if item.thinned or not item.has_rows or not item.arrived():
                    continue
                self._thin(item)
                return True
            del self._items[place]
            self.dropped += 1
            self.dropped_rows += item.rows
            self._release(item)
            self._emptied.notify_all()
            return True
        return False

    def _superseded(self, place: int, batch: Batch) -> bool:
        behind = (self._items[at] for at in range(place + 1, len(self._items)))
        window = batch.window or 0
        return any(
            isinstance(item, Batch) and item.layer == batch.layer and (item.window or 0) > window for item in behind
        )

    def _thin(self, batch: Batch) -> None:
        self.dropped_rows += batch.rows - 1
        large = batch.buffer
        batch.keep_rows(np.array([0]), others=False)
        assert large is not None
        assert batch.buffer is not None
        self._held += batch.buffer.size - large.size
        self._keep(large, len(self._items) + KEPT_OF_A_SIZE)

    def _release(self, batch: Batch) -> None:
        buffer, batch.buffer = batch.buffer, None
        assert buffer is not None
        self._held -= buffer.size
        if batch.arrived():  # a GPU that still writes to it must not write into another batch
            self._keep(buffer, len(self._items) + KEPT_OF_A_SIZE)
