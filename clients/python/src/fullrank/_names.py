"""The names that the service knows: tensors, scalars, flags, methods. To add one, add it here.

Guarantees: these names are listed nowhere else in the package.
Must not: look at a value.
"""

from __future__ import annotations

import difflib
import re
from typing import NamedTuple, Optional

METHODS = (
    "simclr", "moco", "nnclr", "byol", "simsiam", "swav", "dino", "barlow", "vicreg", "triplet", "simple",
    "directpred", "other",
)  # fmt: skip

# Numbers that a method's diagnostics need. Numbers with other names are passed on: the service may be newer.
SCALARS = (
    "loss", "temperature", "teacher_temperature", "negatives", "queue_size", "prototypes", "margin", "lambda",
    "batch_size", "bn_eps", "bn_gamma", "invariance_weight", "variance_weight", "covariance_weight", "gamma",
    "rankme_epsilon", "rankme_centered",
)  # fmt: skip

FLAGS = ("unit_moments", "spectrum")

# Parameters with a fixed set of values.
WORDS = {"method": METHODS, "precision": ("auto", "f64", "fast")}

# Query parameters that the Monitor sets. `push` does not accept them as keywords.
RESERVED = ("run", "session", "seq", "worker", "workers", "wait")

NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Kind(NamedTuple):
    """What a tensor's name implies."""

    role: str  # z, teacher, prediction, pre_bn: a layer's rows; else the name's stem
    ranks: tuple[int, ...]
    row_wise: bool  # whether the first dimension is the sample
    integer: bool
    numbered: bool  # whether the name may end in a view's number


_ROLES = ("z", "teacher", "prediction", "pre_bn")
_SCORES = ("logits", "teacher_logits", "codes")
_KINDS = {
    "z": Kind("z", (2,), True, False, True),
    "teacher": Kind("teacher", (2,), True, False, True),
    "prediction": Kind("prediction", (2,), True, False, True),
    "pre_bn": Kind("pre_bn", (2,), True, False, False),
    "negative": Kind("negative", (2,), True, False, True),
    "logits": Kind("logits", (2,), True, False, True),
    "teacher_logits": Kind("teacher_logits", (2,), True, False, True),
    "codes": Kind("codes", (2,), True, False, True),
    "center": Kind("center", (1,), False, False, False),
    "prototype_weight": Kind("prototype_weight", (2,), False, False, False),
    "predictor_weight": Kind("predictor_weight", (2,), False, False, False),
    "ids": Kind("ids", (1,), True, True, False),
    "labels": Kind("labels", (1,), True, True, False),
    "neighbors": Kind("neighbors", (1,), True, True, False),
    "edges": Kind("edges", (2,), False, True, False),
    "count": Kind("count", (0, 1), False, False, False),
    "mean": Kind("mean", (1,), False, False, False),
    "m2": Kind("m2", (1, 2), False, False, False),
    "unit_mean": Kind("unit_mean", (1,), False, False, False),
    "unit_variance": Kind("unit_variance", (1,), False, False, False),
    "unit_m2": Kind("unit_m2", (1, 2), False, False, False),
}
_NUMBER_NEEDED = ("teacher", "prediction", "negative", "logits", "teacher_logits", "codes")
MOMENTS = ("count", "mean", "m2", "unit_mean", "unit_variance", "unit_m2")


def is_layer_rows(kind: Kind) -> bool:
    """Whether the tensor holds a layer's rows."""
    return kind.role in _ROLES


def can_stand_alone(kind: Kind) -> bool:
    """Whether a push may consist of this tensor alone."""
    return kind.role in (*_ROLES, *_SCORES)


def kind_of(name: str) -> Optional[Kind]:
    """The kind of a tensor of this name. None for a name that the service does not know."""
    stem = name.rstrip("0123456789")
    digits = name[len(stem) :]
    if not digits:
        return None if stem in _NUMBER_NEEDED else _KINDS.get(name)
    if name in _KINDS:  # m2
        return _KINDS[name]
    kind = _KINDS.get(stem)
    if kind is None or not kind.numbered or digits.startswith("0"):
        return None
    return kind


def suggestion(name: str) -> str:
    """A "did you mean" for a misspelt tensor, or an empty string."""
    known = [stem + "1" if stem in _NUMBER_NEEDED else stem for stem in _KINDS] + ["z1", "z2"]
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""
