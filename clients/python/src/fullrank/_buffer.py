"""The memory that batches are copied into, and a batch in such memory.

Guarantees: a buffer is plain host memory (page-locked on request) that numpy, torch and a socket use without a copy.
Must not: decide how much memory to use (`_queue` does), or copy a tensor (`_staging` does).
"""

from __future__ import annotations

import math
import sys
from typing import Any, NamedTuple, Optional

import numpy as np

from ._tensors import ITEM_BYTES

ALIGNMENT = 64


def size_class(nbytes: int) -> int:
    """The size of a buffer for `nbytes`, rounded up in eight steps per octave so that similar batches share buffers."""
    step = max(4096, 1 << max(0, nbytes.bit_length() - 4))
    return -(-max(nbytes, 1) // step) * step


class Buffer:
    """`size` bytes of host memory."""

    __slots__ = ("address", "array", "pinned", "size", "tensor")

    def __init__(self, size: int, pinned: bool) -> None:
        self.size = size
        self.pinned = pinned
        self.tensor: Any = None
        if pinned:
            self.tensor = sys.modules["torch"].empty(size, dtype=sys.modules["torch"].uint8, pin_memory=True)
            self.array: np.ndarray[Any, Any] = self.tensor.numpy()
        else:
            self.array = np.empty(size, dtype=np.uint8)
        self.address = self.array.ctypes.data

    def as_torch(self) -> Any:
        """The memory as a torch tensor of bytes."""
        if self.tensor is None:
            self.tensor = sys.modules["torch"].from_numpy(self.array)
        return self.tensor


class Part(NamedTuple):
    """One tensor of a batch: its place in the buffer."""

    name: str
    role: str  # z, teacher, logits, ... for rows that may be pushed on their own; else empty
    row_wise: bool
    dtype: str
    shape: tuple[int, ...]
    offset: int
    cut: bool  # whether only some of its rows are sent

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return ITEM_BYTES[self.dtype] * math.prod(self.shape)


class Batch:
    """One push on its way: a copy of its tensors, and its parameters."""

    __slots__ = (
        "buffer", "encoded", "event", "full", "index", "last", "layer", "moments", "parameters",
        "parts", "pending", "rows",
        "seq", "thinned", "ticket", "window",
    )  # fmt: skip

    def __init__(self, layer: str, window: Optional[int], last: bool, parameters: dict[str, Any]) -> None:
        self.layer = layer
        self.window = window
        self.last = last
        self.parameters = parameters
        self.parts: tuple[Part, ...] = ()
        self.buffer: Optional[Buffer] = None
        self.rows = 0
        self.full = 0  # rows before `index` selected some of them
        self.moments = False  # send the moments of z instead of z
        self.pending: dict[str, int] = {}  # scalars from a GPU: name to offset of an f64
        self.event: Any = None  # end of the copy from a GPU; None once the numbers are in the buffer
        self.index: Optional[np.ndarray[Any, Any]] = None  # the selected rows, ascending; None: all
        self.seq: Optional[int] = None
        self.encoded: Any = None
        self.thinned = False
        self.ticket = 0

    @property
    def has_rows(self) -> bool:
        """Whether it can be cut to fewer rows."""
        return any(part.role for part in self.parts)

    def arrived(self) -> bool:
        """Whether the copy from the GPU is complete. Never waits."""
        return self.event is None or bool(self.event.query())

    def raw(self, part: Part) -> np.ndarray[Any, Any]:
        """A part's bytes."""
        assert self.buffer is not None
        return self.buffer.array[part.offset : part.offset + part.nbytes]

    def keep_rows(self, keep: np.ndarray[Any, Any], others: bool) -> None:
        """Cuts the batch to some of its rows, in a new buffer. Tensors that are not row-wise are dropped unless
        `others`; edges, which refer to rows by number, are always dropped.

        The copy from the GPU must be complete. The caller returns the old buffer to the pool.
        """
        kept: list[tuple[Part, np.ndarray[Any, Any]]] = []
        for part in self.parts:
            if part.row_wise:
                rows = self.raw(part).reshape(part.shape[0], -1)[keep]
                kept.append((part._replace(shape=(len(keep), *part.shape[1:])), rows.reshape(-1)))
            elif others and part.name != "edges":
                kept.append((part, self.raw(part)))
        scalars = {name: self.buffer.array[at : at + 8].copy() for name, at in self.pending.items() if self.buffer}
        size = sum(-(-data.size // ALIGNMENT) * ALIGNMENT for _, data in kept) + 8 * len(scalars)
        buffer, at = Buffer(max(size, 1), False), 0
        parts = []
        for part, data in kept:
            parts.append(part._replace(offset=at))
            buffer.array[at : at + data.size] = data
            at += -(-data.size // ALIGNMENT) * ALIGNMENT
        for name, data in scalars.items():
            self.pending[name] = at
            buffer.array[at : at + 8] = data
            at += 8
        self.parts = tuple(parts)
        self.rows = len(keep)
        self.index = None
        self.buffer, self.encoded, self.thinned = buffer, None, True


class Control:
    """A request without numbers that keeps its place among the batches: close or finish."""

    __slots__ = ("kind", "target", "ticket", "window")

    def __init__(self, kind: str, target: str, window: Optional[int] = None) -> None:
        self.kind = kind
        self.target = target
        self.window = window
        self.ticket = 0
