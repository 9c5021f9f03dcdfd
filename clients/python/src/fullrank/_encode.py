"""A batch as a request: the query text, and the safetensors body as views of the batch's buffer.

Guarantees: numbers are not copied again (moments are computed here); a header is formatted once per shape; the body has
no holes. Runs in the sender thread.
Must not: send.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ._buffer import Batch
from ._http import BytesLike
from ._moments import floats, moments
from ._parameters import texts
from ._warnings import Complaints

CONTENT_TYPE = "application/x-safetensors"


class Encoded(NamedTuple):
    """The part of a request that is the same in every try."""

    parameters: str  # query text, without `last`, `session`, `seq`
    pieces: list[BytesLike]
    nbytes: int


class _Tensor(NamedTuple):
    name: str
    dtype: str
    shape: tuple[int, ...]
    data: np.ndarray[Any, Any]


def encode(batch: Batch, complaints: Complaints) -> Encoded:
    """Encodes a batch whose copy from the GPU is complete."""
    tensors = [_Tensor(part.name, part.dtype, part.shape, batch.raw(part)) for part in batch.parts]
    if batch.index is not None:
        tensors = [_renumbered(t, batch.index, batch.full) if t.name == "edges" else t for t in tensors]
        tensors = [tensor for tensor in tensors if 0 not in tensor.shape]
    if batch.moments:
        tensors = _with_moments(batch, tensors)
    head = header(tuple((tensor.name, tensor.dtype, tensor.shape) for tensor in tensors))
    pieces: list[BytesLike] = [head, *(tensor.data.data.cast("B") for tensor in tensors)]
    return Encoded(_parameters(batch, complaints), pieces, sum(len(piece) for piece in pieces))


@lru_cache(maxsize=256)
def header(tensors: tuple[tuple[str, str, tuple[int, ...]], ...]) -> bytes:
    """The safetensors header for consecutive tensors: (name, dtype, shape) each."""
    entries, at = {}, 0
    for name, dtype, shape in tensors:
        size = math.prod(shape) * {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4}[dtype]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _renumbered(edges: _Tensor, index: np.ndarray[Any, Any], full: int) -> _Tensor:
    """The edges among the selected rows, renumbered. Row i of view v (from 0) has number v N + i."""
    old = edges.data.view({"I64": "<i8", "I32": "<i4"}[edges.dtype]).reshape(edges.shape)
    view, row = np.divmod(old, full)
    place = np.searchsorted(index, row)
    kept = (index[np.minimum(place, len(index) - 1)] == row).all(axis=1)
    new = view * len(index) + place
    data = new[kept].astype(old.dtype).reshape(-1).view(np.uint8)
    return _Tensor("edges", edges.dtype, (int(kept.sum()), *edges.shape[1:]), data)


def _with_moments(batch: Batch, tensors: list[_Tensor]) -> list[_Tensor]:
    """Replaces the rows of z by their moments. Tensors that are not views of z stay as they are."""
    roles = {part.name: part.role for part in batch.parts}
    views = [floats(t.data, t.dtype, t.shape) for t in tensors if roles[t.name] == "z"]
    if not views:
        return tensors
    with np.errstate(all="ignore"):  # the service refuses what is not finite
        found = moments(views)
    made = [_Tensor(name, "F64", value.shape, value.view(np.uint8)) for name, value in found.items()]
    return made + [tensor for tensor in tensors if roles[tensor.name] != "z"]


def _parameters(batch: Batch, complaints: Complaints) -> str:
    """The query text of the parameters, including numbers from a GPU."""
    parameters = dict(batch.parameters)
    for name, at in batch.pending.items():
        assert batch.buffer is not None
        parameters[name] = float(batch.buffer.array[at : at + 8].view("<f8")[0])
    return "&".join(f"{name}={text}" for name, text in texts(parameters, complaints).items())
