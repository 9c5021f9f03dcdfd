"""Moments of rows, for a push that sends them instead of the rows.

Guarantees: f64 throughout; rows are centred before their second moments are summed (blocks are merged by the update of
Chan, Golub and LeVeque). Z^T Z / N - mu mu^T is never formed: near a collapse it loses every digit. Zero rows have no
direction and are left out of the unit moments, as in the service.
Must not: run in the trainer's thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

BLOCK_BYTES = 8 << 20


def floats(raw: Array, dtype: str, shape: tuple[int, ...]) -> Array:
    """The numbers of a float tensor's bytes; bf16 becomes f32, exactly."""
    if dtype == "BF16":
        wide = raw.view("<u2").astype("<u4") << np.uint32(16)
        return wide.view("<f4").reshape(shape)
    numbers: Array = raw.view({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]).reshape(shape)
    return numbers


def moments(views: list[Array]) -> dict[str, Array]:
    """`count`, `mean`, `m2` (packed lower triangle), `unit_mean`, `unit_variance` of the pooled rows of N x d views."""
    dim = views[0].shape[1]
    rows, mean, scatter = 0, np.zeros(dim), np.zeros((dim, dim))
    units, unit_mean, unit_scatter = 0, np.zeros(dim), np.zeros(dim)
    for block in _blocks(views, dim):
        count = len(block)
        centre = block.mean(axis=0)
        delta = centre - mean
        centred = block - centre
        scatter += centred.T @ centred + np.outer(delta, delta) * (rows * count / (rows + count))
        mean += delta * (count / (rows + count))
        rows += count

        block = _unit_rows(block)
        count = len(block)
        if count == 0:
            continue
        centre = block.mean(axis=0)
        delta = centre - unit_mean
        unit_scatter += ((block - centre) ** 2).sum(axis=0) + delta**2 * (units * count / (units + count))
        unit_mean += delta * (count / (units + count))
        units += count
    found = {"count": np.array([float(rows)]), "mean": mean, "m2": scatter[np.tril_indices(dim)]}
    # The service assumes unit moments of all `count` rows. If some rows are zero, they are moments of fewer.
    if units == rows:
        found.update(unit_mean=unit_mean, unit_variance=unit_scatter / units)
    return found


def _unit_rows(block: Array) -> Array:
    # Scaled by the largest entry first, as its square may overflow.
    largest = np.abs(block).max(axis=1, keepdims=True)
    block = block[largest[:, 0] > 0] / largest[largest[:, 0] > 0]
    return np.asarray(block / np.linalg.norm(block, axis=1, keepdims=True))


def _blocks(views: list[Array], dim: int) -> Iterator[Array]:
    step = max(1, BLOCK_BYTES // (8 * dim))
    for view in views:
        for start in range(0, len(view), step):
            yield view[start : start + step].astype(np.float64)
