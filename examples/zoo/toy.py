#!/usr/bin/env python3
"""The toy experiment of Jha et al. (arXiv 2402.14957): the center vector's norm |s| over a training on 2-D points.

A small MLP maps blobs and two moons to the unit sphere; a view is a point plus noise. The script trains SimSiam as
published, without its predictor and without its stop-gradient, and L_Simple with and without its penalty. |s|, the norm
of the mean unit embedding, goes to 1 in exactly those that collapse. Writes toy.png and prints the final values.

    toy.py [--output toy.png] [--seeds 0 1 2] [--steps 1500]
"""

import argparse
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.losses import negative_cosine
from methods.simple import simple_loss

POINTS, BATCH, DIM, WEIGHT = 1000, 256, 16, 4.0
LOSSES = (
    "SimSiam", "SimSiam without predictor", "SimSiam without stop-gradient",
    "L_Simple", "L_Simple without center penalty",
)


def blobs(rng):
    """Five Gaussian clusters around the origin."""
    angle = 2 * np.pi * rng.integers(0, 5, POINTS) / 5
    return 1.5 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.2 * rng.standard_normal((POINTS, 2))


def moons(rng):
    """Two interleaved half circles."""
    angle, upper = np.pi * rng.random(POINTS), rng.random(POINTS) < 0.5
    x = np.where(upper, np.cos(angle), 1 - np.cos(angle))
    y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle))
    points = np.stack([x - 0.5, y - 0.25], axis=1) + 0.08 * rng.standard_normal((POINTS, 2))
    return points / points.std(axis=0)


def mlp(inputs, hidden, outputs):
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
        nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs),
    )


def train(points, kind, seed, steps):
    """|s| over all points, every ten steps."""
    torch.manual_seed(seed)
    points = torch.tensor(points, dtype=torch.float32)
    encoder = mlp(2, 64, DIM)
    predictor = nn.Sequential(nn.Linear(DIM, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, DIM))
    if "without predictor" in kind:
        predictor = nn.Identity()
    target = (lambda z: z) if "without stop-gradient" in kind else Tensor.detach
    weight = 0.0 if "without center" in kind else WEIGHT
    optimiser = torch.optim.SGD([*encoder.parameters(), *predictor.parameters()], lr=0.05, momentum=0.9)

    norms = []
    for step in range(steps + 1):
        if step % 10 == 0:
            with torch.no_grad():
                norms.append(F.normalize(encoder(points), dim=1).mean(dim=0).norm().item())
        batch = points[torch.randint(len(points), (BATCH,))]
        z1, z2 = (encoder(batch + 0.15 * torch.randn(batch.shape)) for _ in range(2))
        if kind.startswith("SimSiam"):
            loss = (negative_cosine(predictor(z1), target(z2)) + negative_cosine(predictor(z2), target(z1))) / 2
        else:
            loss = simple_loss(z1, z2, weight)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return norms


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).with_name("toy.png"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1500)
    args = parser.parse_args()
    torch.set_num_threads(1)

    import matplotlib  # here, so that --help works without it

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    for axis, (name, make) in zip(axes, (("blobs", blobs), ("moons", moons))):
        for index, kind in enumerate(LOSSES):
            runs = [train(make(np.random.default_rng(seed)), kind, seed, args.steps) for seed in args.seeds]
            print(f"{name}: {kind}: |s| {' '.join(f'{norms[-1]:.3f}' for norms in runs)}", flush=True)
            for number, norms in enumerate(runs):
                axis.plot(
                    range(0, args.steps + 1, 10), norms, color=f"C{index}", linewidth=1, label=None if number else kind
                )
        axis.set(title=name, xlabel="step", ylim=(0, 1.02))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("|s|, norm of the center vector")
    lines, labels = axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    figure.savefig(args.output, dpi=110)


if __name__ == "__main__":
    main()
