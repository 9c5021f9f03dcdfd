"""Checks the tensors of a push without reading their numbers.

Guarantees: a `Source` has a known name, a type that the service accepts and a shape consistent with the others; numpy
arrays and torch tensors on any device are checked without a copy and without a device synchronisation.
Must not: import torch (a program that passes torch tensors has imported it), copy, or convert.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np

from ._names import MOMENTS, Kind, can_stand_alone, is_layer_rows, kind_of, suggestion
from ._warnings import Invalid

ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4}
_NUMPY = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32"}
_TORCH_NAMES = {"torch." + name: code for name, code in _NUMPY.items()}


class Source(NamedTuple):
    """One tensor of a push, in the trainer's own memory."""

    name: str
    kind: Kind
    dtype: str  # as safetensors writes it
    shape: tuple[int, ...]
    value: Any  # numpy array, or torch tensor (detached)
    is_torch: bool

    @property
    def on_cuda(self) -> bool:
        """Whether it has to be fetched from a GPU."""
        return self.is_torch and bool(self.value.is_cuda)


def is_torch_tensor(value: Any) -> bool:
    """Whether this is a torch tensor; False if torch was never imported."""
    torch = sys.modules.get("torch")
    tensor = getattr(torch, "Tensor", None)
    return tensor is not None and isinstance(value, tensor)


def sources(tensors: dict[str, Any]) -> list[Source]:
    """Checks all tensors of one push, each on its own and against the others.

    Raises `Invalid`, whose text names the remedy.
    """
    found = [_source(name, value) for name, value in tensors.items()]
    rows = [source for source in found if is_layer_rows(source.kind)]
    moments = [source.name for source in found if source.name in MOMENTS]
    if not moments and not any(can_stand_alone(source.kind) for source in found):
        raise Invalid("malformed", "the push has no embeddings: pass z=, or z1= and z2=, of shape N x d")
    for role in {source.kind.role for source in rows}:
        shapes = {source.name: source.shape for source in rows if source.kind.role == role}
        if len(set(shapes.values())) > 1:
            raise Invalid(
                "wrong_length", f"all views must have the same shape, with row i of each from the same sample: {shapes}"
            )
    if not moments:
        samples = samples_of(found)
        for source in found:
            if source.kind.row_wise and not is_layer_rows(source.kind) and source.shape[0] != samples:
                text = f"{source.name} has {source.shape[0]} rows, but the embeddings have {samples}: they must match"
                raise Invalid("wrong_length", text)
    return found


def _source(name: str, value: Any) -> Source:
    kind = kind_of(name)
    if kind is None:
        raise Invalid("unknown_tensor", f"unknown tensor {name!r}{suggestion(name)}: the batch is not sent")
    if is_torch_tensor(value):
        value, dtype, is_torch = _torch_tensor(name, value), _TORCH_NAMES.get(str(value.dtype)), True
    else:
        value = _numpy_array(name, kind, value)
        dtype, is_torch = _NUMPY.get(value.dtype.name), False
    if dtype is None:
        raise Invalid(
            "unsupported_type",
            f"{name} is {value.dtype}: expected f64, f32, f16 or bf16 for floats, i64 or i32 for indices",
        )
    if dtype.startswith("I") != kind.integer and name not in MOMENTS:
        wanted = "int64 or int32" if kind.integer else "a float type"
        raise Invalid("unsupported_type", f"{name} is {value.dtype}: expected {wanted}")
    shape = tuple(int(size) for size in value.shape)
    if len(shape) not in kind.ranks:
        wanted = " or ".join(str(rank) for rank in kind.ranks)
        raise Invalid(
            "wrong_rank",
            f"{name} has shape {shape}: expected {wanted} dimension(s); flatten or pool it to N x d before you push it",
        )
    if 0 in shape:
        raise Invalid("empty", f"{name} is empty: it has shape {shape}")
    return Source(name, kind, dtype, shape or (1,), value, is_torch)


def _torch_tensor(name: str, value: Any) -> Any:
    if value.is_meta:
        raise Invalid("meta", f"{name} is on the meta device, where tensors have no values")
    if value.is_sparse or value.is_quantized:
        raise Invalid("unsupported_type", f"{name} is sparse or quantized: push a dense float tensor")
    return value.detach()


def _numpy_array(name: str, kind: Kind, value: Any) -> np.ndarray[Any, Any]:
    array = value if isinstance(value, np.ndarray) else np.asarray(value)
    if array.dtype == object:
        raise Invalid("unsupported_type", f"{name} is a {type(value).__name__}: push a numpy array or a torch tensor")
    if kind.integer and array.dtype.kind in "iu" and array.dtype.itemsize < 4:
        return array.astype(np.int32)
    return array


def samples_of(found: list[Source]) -> int:
    """N: the rows of a view, or of the scores if there are no embeddings. 0 for moments, whose count is not read."""
    for counts in (is_layer_rows, can_stand_alone):
        for source in found:
            if counts(source.kind):
                return source.shape[0]
    return 0
