"""Which worker this process is, and of how many.

Guarantees: asks torch.distributed only if the program itself has imported torch; never calls a collective.
Must not: import torch.
"""

from __future__ import annotations

import os
import sys
from typing import Optional

# Each launcher's pair. SLURM's comes last: torchrun inside a SLURM allocation sets both, and its own are right.
_ENVIRONMENT = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))


def worker_and_workers() -> tuple[int, int]:
    """(worker, workers) from torch.distributed, else from the environment, else (0, 1)."""
    return _from_torch() or _from_environment() or (0, 1)


def _from_torch() -> Optional[tuple[int, int]]:
    torch = sys.modules.get("torch")
    distributed = getattr(torch, "distributed", None)
    if distributed is None:
        return None
    try:
        if distributed.is_available() and distributed.is_initialized():
            return int(distributed.get_rank()), int(distributed.get_world_size())
    except Exception:  # a build without it, or a process group being torn down
        return None
    return None


def _from_environment() -> Optional[tuple[int, int]]:
    for rank_name, size_name in _ENVIRONMENT:
        try:
            rank, size = int(os.environ[rank_name]), int(os.environ[size_name])
        except (KeyError, ValueError):
            continue
        if 0 <= rank < size:
            return rank, size
    return None
