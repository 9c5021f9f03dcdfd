"""The layout of a push's tensors in a buffer, computed once for pushes that look alike.

Guarantees: pushes with the same signature have the same names, types, shapes and kinds of memory, so the checks of the
first hold for all.
Must not: read a value, or keep a reference to a tensor.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple, Optional

import numpy as np

from ._buffer import ALIGNMENT, Part
from ._names import MOMENTS, can_stand_alone
from ._tensors import Source, samples_of, sources

# A training usually has few shapes. One with ever new shapes must not fill the memory.
KEPT_PLANS = 256


class Plan(NamedTuple):
    """The layout of a batch."""

    parts: tuple[Part, ...]
    how: tuple[str, ...]  # by part: numpy, cpu, cuda or other
    samples: int
    keep: Optional[int]  # how many samples are sent, if not all
    nbytes: int  # of the tensors; scalars from a GPU follow them
    pushed_moments: bool
    pinned: bool


class Plans:
    """Plans by signature."""

    def __init__(self) -> None:
        self._plans: dict[Any, Plan] = {}

    def plan(self, tensors: dict[str, Any], limit: Optional[int]) -> Plan:
        """The plan for these tensors, with at most `limit` rows. Raises `Invalid`."""
        key = _signature(tensors, limit)
        plan = self._plans.get(key) if key is not None else None
        if plan is not None:
            return plan
        found = sources(tensors)
        plan = planned(found, limit)
        if key is not None:
            if len(self._plans) >= KEPT_PLANS:
                self._plans.clear()
            self._plans[key] = plan
        return plan


def _signature(tensors: dict[str, Any], limit: Optional[int]) -> Any:
    """Everything a plan depends on. None if a value is not a plain array or tensor: it is then checked each time."""
    torch = sys.modules.get("torch")
    tensor = getattr(torch, "Tensor", None)
    key: list[Any] = [limit]
    for name, value in tensors.items():
        kind = type(value)
        if kind is tensor:
            key += (name, value.dtype, value.shape, value.device, value.layout)
        elif kind is np.ndarray:
            key += (name, value.dtype, value.shape, None, None)
        else:
            return None
    return tuple(key)


def planned(found: list[Source], limit: Optional[int]) -> Plan:
    """Lays the tensors out, with at most `limit` rows of the row-wise ones."""
    samples = samples_of(found)
    keep = limit if limit is not None and samples > limit else None
    parts: list[Part] = []
    at = 0
    for source in found:
        kind, shape = source.kind, source.shape
        if keep is not None and kind.row_wise and shape[0] == samples:
            shape = (keep, *shape[1:])
        role = kind.role if can_stand_alone(kind) else ""
        part = Part(source.name, role, kind.row_wise, source.dtype, shape, at, shape != source.shape)
        parts.append(part)
        at += -(-part.nbytes // ALIGNMENT) * ALIGNMENT
    return Plan(
        tuple(parts),
        tuple(_how(source) for source in found),
        samples,
        keep,
        at,
        any(source.name in MOMENTS for source in found),
        any(source.on_cuda for source in found),
    )


def _how(source: Source) -> str:
    if not source.is_torch:
        return "numpy"
    if source.value.is_cpu:
        return "cpu"
    return "cuda" if source.on_cuda else "other"
