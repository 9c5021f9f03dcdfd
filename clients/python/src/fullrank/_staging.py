"""Copies a push into a buffer: the only part of `push` whose cost grows with the data.

Guarantees: once `stage` returns, the trainer may overwrite its tensors. CPU tensors are copied. CUDA tensors are copied
on the GPU in the current stream, then to page-locked memory on a side stream, with an event instead of a wait.
Must not: synchronise with a CUDA device, allocate host memory for the data, or read a value.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Optional

import numpy as np

from ._buffer import Batch, Buffer, Part
from ._plan import Plan

_NUMPY_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4"}

# Up to this size the calls cost more than the bytes, and torch would not use a second thread.
SMALL_BYTES = 1 << 20

# One side stream per device: the copies of one training gain nothing from running in parallel.
_streams: dict[Any, Any] = {}


def stage(batch: Batch, plan: Plan, tensors: dict[str, Any], waiting: dict[str, Any]) -> None:
    """Copies everything to its place in `batch.buffer`. Of the rows, only those in `batch.index`."""
    buffer = batch.buffer
    assert buffer is not None
    copies: dict[Any, list[tuple[Any, Any]]] = {}
    for part, how in zip(plan.parts, plan.how):
        value = tensors[part.name]
        index = batch.index if part.cut else None
        if how == "cpu":
            _copy_torch(buffer, part, value, index)
        elif how == "numpy":
            _copy_numpy(buffer, part, value, index)
        elif how == "cuda":
            target = _torch_view(buffer, value.dtype, part)
            copies.setdefault(value.device, []).append((target, _snapshot(value.detach(), target, index)))
        else:  # a device whose streams are not supported here: the copy waits
            _copy_torch(buffer, part, value.detach().to("cpu"), index)
    at = plan.nbytes
    for name, value in waiting.items():
        torch = sys.modules["torch"]
        batch.pending[name] = at
        target = buffer.as_torch()[at : at + 8].view(torch.float64)
        copies.setdefault(value.device, []).append((target, value.detach().reshape(1).to(torch.float64, copy=True)))
        at += 8
    if copies:
        batch.event = Events([_fetch(device, pairs) for device, pairs in copies.items()])


def _copy_numpy(buffer: Buffer, part: Part, value: Any, index: Optional[np.ndarray[Any, Any]]) -> None:
    value = np.asarray(value)
    if part.dtype == "BF16":
        value = value.view(np.uint16)
    target: np.ndarray[Any, Any] = np.ndarray(part.shape, _NUMPY_TYPES[part.dtype], buffer.array, part.offset)
    if index is None:
        np.copyto(target, value.reshape(part.shape))
    else:
        target[...] = value[index]  # also converts the byte order


def _copy_torch(buffer: Buffer, part: Part, value: Any, index: Optional[np.ndarray[Any, Any]]) -> None:
    torch = sys.modules["torch"]
    # A subclass may keep its numbers elsewhere.
    plain = type(value) is torch.Tensor and value.is_contiguous()
    if index is None and plain and part.nbytes <= SMALL_BYTES:
        ctypes.memmove(buffer.address + part.offset, value.data_ptr(), part.nbytes)
        return
    value, target = value.detach(), _torch_view(buffer, value.dtype, part)
    if index is None:
        target.copy_(value.reshape(target.shape))
    else:
        torch.index_select(value, 0, torch.from_numpy(index), out=target)


def _torch_view(buffer: Buffer, dtype: Any, part: Part) -> Any:
    raw = buffer.as_torch()[part.offset : part.offset + part.nbytes]
    return raw.view(dtype).view(part.shape)


def _snapshot(value: Any, target: Any, index: Optional[np.ndarray[Any, Any]]) -> Any:
    """A copy on the GPU, in the trainer's current stream: later writes to `value` do not change it."""
    torch = sys.modules["torch"]
    if index is None:
        return value.clone(memory_format=torch.contiguous_format).view(target.shape)
    # Page-locked, so that the upload does not wait for the stream.
    rows = torch.from_numpy(index).pin_memory().to(value.device, non_blocking=True)
    return torch.index_select(value, 0, rows)


def _fetch(device: Any, copies: list[tuple[Any, Any]]) -> Any:
    """Starts the copies to the host after the work that the trainer has queued. Returns the event of their end."""
    cuda = sys.modules["torch"].cuda
    side = _streams.get(device)
    if side is None:
        side = _streams.setdefault(device, cuda.Stream(device=device))
    side.wait_stream(cuda.current_stream(device))
    with cuda.stream(side):
        for target, value in copies:
            target.copy_(value, non_blocking=True)
            # The allocator must not reuse its memory before the side stream has read it.
            value.record_stream(side)
        event = cuda.Event(blocking=True)  # a waiting thread sleeps instead of using a core
        event.record(side)
    return event


class Events:
    """The events of one batch, one per device."""

    __slots__ = ("_events",)

    def __init__(self, events: list[Any]) -> None:
        self._events = events

    def query(self) -> bool:
        """Whether all have happened."""
        return all(event.query() for event in self._events)

    def synchronize(self) -> None:
        """Waits for all."""
        for event in self._events:
            event.synchronize()
