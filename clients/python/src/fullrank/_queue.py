"""The queue between the trainer and the sender, bounded in bytes, and the pool of buffers behind it.

Guarantees: `reserve`, `put` and `add` never wait for the network; batches, reservations and idle buffers together stay
within the bound (plus the one batch that the sender holds); beyond it, the oldest batch is dropped and counted, but not
what its window needs to close: see `_make_room`. Controls (close, finish) are never dropped.
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

# Idle buffers kept per size: the sender holds one, the trainer fills one, the rest are for bursts.
KEPT_OF_A_SIZE = 4


class SendQueue:
    """See the module docstring. Any method may be called from any thread."""

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.batches = 0  # queued so far
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
        """A buffer of at least `nbytes`. None if it does not fit the bound, whatever is dropped."""
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
        """Takes back an unused buffer."""
        with self._lock:
            self._held -= buffer.size
            self._keep(buffer, len(self._items) + KEPT_OF_A_SIZE)

    def put(self, batch: Batch) -> None:
        """Queues a batch whose buffer came from `reserve`."""
        with self._lock:
            self.batches += 1
            self._append(batch)

    def add(self, control: Control) -> None:
        """Queues a control, unless the same one is already the last item."""
        with self._lock:
            last = self._items[-1] if self._items else None
            if isinstance(last, Control) and last.target == control.target:
                return
            self._append(control)

    def add_small(self, batch: Batch) -> None:
        """Queues a batch of one row, whose buffer did not come from `reserve`."""
        assert batch.buffer is not None
        with self._lock:
            self.batches += 1
            self._held += batch.buffer.size
            self._append(batch)

    def mark_last(self, window: int) -> None:
        """Marks the newest queued batch of `window` in each layer as its last."""
        with self._lock:
            seen = set()
            for item in reversed(self._items):
                if isinstance(item, Batch) and item.window == window and item.layer not in seen:
                    seen.add(item.layer)
                    item.last = True

    def wait_until_sent(self, deadline: float) -> bool:
        """Waits until what is queued now is dealt with. False if `deadline` (monotonic) comes first."""
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
        """Batches that are queued or being sent, and the bytes of the queued ones."""
        with self._lock:
            batches = [item for item in self._items if isinstance(item, Batch)]
            queued = sum(batch.buffer.size for batch in batches if batch.buffer is not None)
            return len(batches) + isinstance(self._sending, Batch), queued

    # -- the sender's side

    def take(self, timeout: Optional[float]) -> Optional[Item]:
        """The oldest item. None after `timeout`, or once the queue is stopped and empty."""
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
        """Reports that the item from `take` is dealt with."""
        with self._lock:
            self._sending = None
            if isinstance(item, Batch) and item.buffer is not None:
                self._keep(item.buffer, KEPT_OF_A_SIZE)
                item.buffer = None
            self._emptied.notify_all()

    def stop(self) -> None:
        """There will be no more items: `take` hands out the rest."""
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
        """Puts a buffer that is not counted in `_held` back into the pool, if there is room."""
        if self._stopped or buffer.size != size_class(buffer.size):
            return  # it will not be asked for, or it belonged to a thinned batch
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
        """Drops the oldest batch. One with `last` is dropped only if a batch of its layer for a later window is queued
        behind it, as that closes the window, too. Otherwise it is cut to one row per view and keeps its `last`."""
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
        if batch.arrived():  # otherwise a GPU may still write to the buffer
            self._keep(buffer, len(self._items) + KEPT_OF_A_SIZE)
