#!/usr/bin/env python3
"""A SimCLR training of a few seconds in a plain loop, on scikit-learn's digits.

    python plain.py [http://127.0.0.1:8417] [--no-negatives]

With --no-negatives nothing keeps the embeddings apart: they collapse, and the verdict reports it.
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from fullrank import Monitor

TEMPERATURE = 0.2


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def augmented(x: torch.Tensor) -> torch.Tensor:
    """Shifted by up to one pixel, with noise."""
    down, right = torch.randint(-1, 2, (2,)).tolist()
    return torch.roll(x.view(-1, 8, 8), (down, right), (1, 2)).flatten(1) + 0.1 * torch.randn_like(x)


def similarity_loss(z1: torch.Tensor, z2: torch.Tensor, negatives: bool) -> torch.Tensor:
    u1, u2 = F.normalize(z1, dim=1), F.normalize(z2, dim=1)
    if not negatives:
        return -(u1 * u2).sum(1).mean()
    return F.cross_entropy(u1 @ u2.T / TEMPERATURE, torch.arange(len(u1)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url", nargs="?")
    parser.add_argument("--run", default="plain")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--no-negatives", action="store_true")
    args = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = torch.tensor(load_digits().data, dtype=torch.float32) / 16
    backbone, projector = mlp(64, 128, 64), mlp(64, 128, 32)
    optimiser = torch.optim.Adam([*backbone.parameters(), *projector.parameters()], lr=2e-3)

    monitor = Monitor(args.url, run=args.run, method="simclr", temperature=TEMPERATURE)
    step = 0
    for epoch in range(args.epochs):
        for batch in data[torch.randperm(len(data))].split(64):
            z1, z2 = (projector(backbone(augmented(batch))) for _ in range(2))
            loss = similarity_loss(z1, z2, not args.no_negatives)
            monitor.push(layer="projector", z1=z1, z2=z2, window=epoch, step=step, loss=loss)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
        monitor.close(window=epoch)

    monitor.finish()
    verdict = monitor.verdict()
    print(verdict and {name: verdict[name] for name in ("state", "cause", "since_window")})


if __name__ == "__main__":
    main()
