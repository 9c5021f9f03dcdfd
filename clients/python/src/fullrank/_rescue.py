"""Cuts a batch that the service would refuse to rows that it accepts.

Guarantees: all views and row-wise tensors keep the same rows.
Must not: decide whether to cut a batch.
"""

from __future__ import annotations

import numpy as np

from ._buffer import Batch
from ._moments import floats

# The service's limit: above it, a row's squares overflow.
LARGEST = 1e140


def rows_that_fit(batch: Batch, nbytes: int, limit: int) -> int:
    """How many of the rows fit into `limit` bytes. 0 if none do."""
    by_row = sum(part.nbytes for part in batch.parts if part.row_wise)
    # What is not row-wise includes the header, which does not grow with fewer rows.
    room = limit - (nbytes - by_row)
    return max(0, min(batch.rows - 1, room * batch.rows // by_row))


def cut(batch: Batch, rows: int) -> None:
    """Keeps `rows` random rows."""
    keep = np.random.default_rng(batch.ticket).choice(batch.rows, rows, replace=False)
    batch.keep_rows(np.sort(keep), others=True)


def cut_to_a_usable_row(batch: Batch) -> bool:
    """Keeps the first row that is finite in every tensor. False if there is none, or the batch has no rows."""
    rows = [part for part in batch.parts if part.row_wise and part.dtype not in ("I64", "I32")]
    if not rows or not batch.has_rows:
        return False
    usable = np.ones(batch.rows, dtype=bool)
    for part in rows:
        values = floats(batch.raw(part), part.dtype, part.shape)
        if len(values) != batch.rows:
            return False
        usable &= (np.abs(values) < LARGEST).all(axis=1)
    if not usable.any():
        return False
    batch.keep_rows(np.array([int(usable.argmax())]), others=False)
    return True
