"""The service against other people's implementations, on the same tensors.

stable-pretraining's RankMe and LiDAR and lightly's standard deviation are run from their packages as published.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
import types
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import Service
from lightly.utils.debug import std_of_l2_normalized

# A folder of its own, outside of the interpreter's path. stable-pretraining is installed without the thirty packages
# that it imports, and has a lightning entry point: on the path, every lightning.Trainer would import it and fail.
PEERS = Path(sys.prefix) / "peers"
VERSION = "0.1.8"
INSTALL = f"{sys.executable} -m pip install --upgrade --no-deps --target {PEERS} stable-pretraining=={VERSION}"

PER_ID = 4
RANKME_EPSILON = 1e-5  # stable-pretraining's, a constant in its code
DELTA = 1e-4  # LiDAR's ridge on the within-id covariance: our constant, stable-pretraining's default
LIDAR_EPSILON = 1e-8  # stable-pretraining's default: it adds this to each eigenvalue, the paper and we do not
F32, F64 = 2.0**-24, 2.0**-53  # unit roundoffs


# ---------------------------------------------------------------- the tensors, rows of one id together


def isotropic(draw: Callable[..., torch.Tensor]) -> torch.Tensor:
    return draw(64, 1, 16) + 0.5 * draw(64, PER_ID, 16)


def low_rank(draw: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Five directions, and noise in all, whose variance of 4e-4 makes LiDAR's delta count."""
    return (draw(128, 1, 5) + 0.5 * draw(128, PER_ID, 5)) @ draw(5, 64) + 0.02 * draw(128, PER_ID, 64)


def cone(draw: Callable[..., torch.Tensor]) -> torch.Tensor:
    return 3.0 + 0.6 * draw(96, 1, 32) + 0.4 * draw(96, PER_ID, 32)


# ---------------------------------------------------------------- the peers


class Queue:
    """What RankMe and LiDAR read their rows from."""

    def __init__(self, data: torch.Tensor) -> None:
        self.data = data


class Logged:
    """What they log their value to."""

    def log(self, name: str, value: float, **_: Any) -> None:
        self.value = value


@pytest.fixture(scope="module")
def callback() -> Iterator[Callable[..., float]]:
    """Runs a callback of stable-pretraining over rows.

    Its siblings stand in here: importing the real ones would import the package. None of them computes anything.
    """
    found = next(iter(importlib.metadata.distributions(name="stable-pretraining", path=[str(PEERS)])), None)
    if found is None or found.version != VERSION:
        has = f"has {found.version}" if found else "has none"
        pytest.fail(f"this test needs stable-pretraining {VERSION}, and {PEERS} {has}; install it: {INSTALL}")
    siblings: dict[str, dict[str, Any]] = {
        "": {"__path__": []},
        ".registry": {"log": lambda *_, **__: None},
        ".queue": {"find_or_create_queue_callback": lambda trainer, *_, **__: trainer.queue},
        ".utils": {"resolve_verbose": lambda _: False, "log_header": lambda _: None},
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, members in siblings.items():
            module = types.ModuleType("peer" + name)
            vars(module).update(members)
            patch.setitem(sys.modules, "peer" + name, module)

        def run(file: str, kind: str, rows: torch.Tensor, **options: Any) -> float:
            path = found.locate_file(f"stable_pretraining/callbacks/{file}.py")
            spec = importlib.util.spec_from_file_location(f"peer.{file}", path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            made = getattr(module, kind)("value", "embedding", len(rows), rows.shape[1], **options)
            trainer, logged = types.SimpleNamespace(global_rank=0, queue=Queue(rows)), Logged()
            made.setup(trainer, logged, "validate")
            made.on_validation_batch_end(trainer, logged, {}, {}, 0)
            return logged.value

        yield run


def align_loss(x: torch.Tensor, y: torch.Tensor, alpha: float = 2) -> torch.Tensor:
    """As in the README of Wang and Isola's repository."""
    return (x - y).norm(dim=1).pow(alpha).mean()


def uniform_loss(x: torch.Tensor, t: float = 2) -> torch.Tensor:
    """As in the README of Wang and Isola's repository."""
    return torch.pdist(x, p=2).pow(2).mul(-t).exp().mean().log()


def lidar(groups: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Thilak et al., section 3, with the eigenvalues of W and of W^-1/2 B W^-1/2. `groups`: ids x rows x d."""
    ids, rows, d = groups.shape
    means = groups.mean(axis=1)
    inner = (groups - means[:, None]).reshape(-1, d)
    outer = means - means.mean(axis=0)
    within, axes = np.linalg.eigh(inner.T @ inner / (ids * rows - ids) + DELTA * np.eye(d))
    half = (axes / np.sqrt(within)) @ axes.T
    values = np.linalg.eigvalsh(half @ (outer.T @ outer / (ids - 1)) @ half)
    shares = values / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum())), within, values


# ---------------------------------------------------------------- the tolerances, first order


def rows_tolerance(n: int, d: int) -> float:
    """Absolute, of `scaled_std`, `uniformity` and `alignment` in f64.

    A unit row is off by at most (d / 2 + 2) u, u the unit roundoff. What each measure makes of that: scaled_std at most
    itself, since sqrt(d) mean_k std_k changes by no more than the root mean square change of the rows; alignment,
    2 |x - y| (2 changes), at most 8 times; uniformity, an exponent of 2 |x - y|^2, at most 16 times. Sums over the rows
    add N u, sums over pairs no more as they go in blocks. Together under 16 (N + d) u.
    """
    return 16 * (n + d) * F64


def rank_tolerance(weights: np.ndarray, error: float, u: float, shift: float = 0.0) -> float:
    """Relative, of exp(-sum p ln p), p = weights / sum + shift, when each weight is off by at most `error`.

    dp_k is at most (error + p_k d error) / sum, and dH = sum |1 + ln p_k| |dp_k| at most 2 d error / sum times the
    greatest |1 + ln p_k|. Evaluating d terms, their sum and its exponential adds 8 d u, as long as ln d < 7.
    """
    d, total = len(weights), weights.sum()
    slope = np.abs(1 + np.log(weights / total + shift)).max()
    return float(2 * d * slope * error / total + 8 * d * u)


def rankme_tolerance(singular: np.ndarray, u: float) -> float:
    """A stable SVD gives each singular value to a few u times the largest: that is all f32 knows of a small one.

    We take roots of the eigenvalues of Z^T Z in f64, which are good to a few u times the largest eigenvalue.
    """
    first, last = singular[0], singular[-1]
    return rank_tolerance(singular, 4 * u * first + 4 * F64 * first**2 / last, u, RANKME_EPSILON)


def lidar_error(rows: np.ndarray, within: np.ndarray, values: np.ndarray) -> float:
    """Of an eigenvalue of W^-1/2 B W^-1/2, in f64: B and W are good to a few u times the greatest second moment."""
    moment = np.linalg.norm(rows, 2) ** 2 / len(rows)
    return float(4 * F64 * (1 + values[-1]) * moment / within[0])


# ---------------------------------------------------------------- the comparison


def push(service: Service, run: str, layer: str, tensors: dict[str, torch.Tensor], **parameters: Any) -> Any:
    query = urllib.parse.urlencode({"window": 0, "wait": "true", **parameters})
    request = urllib.request.Request(
        f"{service.url}/v1/runs/{run}/layers/{layer}/batches?{query}",
        safetensors.torch.save(tensors),
        {"Content-Type": "application/x-safetensors"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


@pytest.mark.parametrize("make", [isotropic, low_rank, cone])
def test_the_measures_are_the_peers(service, run, callback, make):
    generator = torch.Generator().manual_seed(11)
    groups = make(lambda *shape: torch.randn(*shape, generator=generator))
    assert groups.dtype == torch.float32
    count, _, d = groups.shape
    rows = groups.reshape(-1, d)
    n = len(rows)
    wide = rows.double()

    # Shuffled, in two batches: the rows of an id are neither neighbours nor all in one push.
    order = torch.randperm(n, generator=generator)
    ids = torch.arange(count).repeat_interleave(PER_ID)
    for half, last in zip(order.chunk(2), ("false", "true")):
        batch = {"z": rows[half], "ids": ids[half]}
        report = push(service, run, "rows", batch, last=last, rankme_epsilon=RANKME_EPSILON)
    views = push(service, run, "views", {"z1": rows[::2].contiguous(), "z2": rows[1::2].contiguous()}, last="true")
    assert (report["closed"], report["rows"], report["dim"]) == (True, n, d)
    assert (views["closed"], views["rows"], views["views"]) == (True, n, 2)
    assert report["computed"]["rankme"] == {"epsilon": RANKME_EPSILON, "centered": False}
    measures = {**report["measures"], "alignment": views["measures"]["alignment"]}

    singular = np.linalg.svd(wide.numpy(), compute_uv=False)
    rankme = {u: callback("rankme", "RankMe", typed) for u, typed in ((F32, rows), (F64, wide))}
    grouping = {"n_classes": count, "samples_per_class": PER_ID, "delta": DELTA, "epsilon": LIDAR_EPSILON}
    lidar_direct, within, values = lidar(groups.double().numpy())
    lidar_error_f64 = lidar_error(wide.numpy(), within, values)
    # Two things the peer does by design: its epsilon, and delta from an identity in f32, which moves W by half an ulp.
    lidar_error_peer = lidar_error_f64 + LIDAR_EPSILON + F32 * DELTA * values[-1] / within[0]
    unit = wide / wide.norm(dim=1, keepdim=True)

    # (what, ours, the peer's, how far they may be apart)
    compared = [
        *(
            (f"rankme, unit roundoff {u:.0e}", measures["rankme"], peer, peer * rankme_tolerance(singular, u))
            for u, peer in rankme.items()
        ),
        (
            "scaled_std",
            measures["scaled_std"],
            float(std_of_l2_normalized(wide)) * ((n - 1) / n) ** 0.5 * d**0.5,  # it divides by N - 1
            rows_tolerance(n, d),
        ),
        ("uniformity", measures["uniformity"], float(uniform_loss(unit)), rows_tolerance(n, d)),
        ("alignment", measures["alignment"], float(align_loss(unit[::2], unit[1::2])), rows_tolerance(n, d)),
        (
            "lidar, directly",
            report["methods"]["lidar"]["value"],
            lidar_direct,
            lidar_direct * rank_tolerance(values, lidar_error_f64, F64),
        ),
        (
            "lidar, stable-pretraining",
            report["methods"]["lidar"]["value"],
            callback("lidar", "LiDAR", wide, **grouping),
            lidar_direct * rank_tolerance(values, lidar_error_peer, F64),
        ),
    ]
    apart = [line for line in compared if not abs(line[1] - line[2]) <= line[3]]
    assert not apart, apart
