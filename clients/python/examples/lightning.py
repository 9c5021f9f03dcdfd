#!/usr/bin/env python3
"""A VICReg training of a few seconds with Lightning, on scikit-learn's digits, watched by a callback.

python lightning.py [http://127.0.0.1:8417]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# This file has the same name as the library: keep it from importing itself.
sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]

import torch  # noqa: E402
from lightning.pytorch import LightningModule, Trainer, seed_everything  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from fullrank.lightning import FullrankCallback  # noqa: E402


class VicReg(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 64))
        self.projector = nn.Sequential(
            nn.ReLU(), nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 32)
        )

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        (x,) = batch
        z1, z2 = (self.projector(self.backbone(x + 0.2 * torch.randn_like(x))) for _ in range(2))
        loss = 25 * F.mse_loss(z1, z2)
        for z in (z1, z2):
            covariance = torch.cov(z.T)
            loss = loss + 25 * F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean()
            loss = loss + (covariance.pow(2).sum() - covariance.diagonal().pow(2).sum()) / z.shape[1]
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url", nargs="?")
    parser.add_argument("--run", default="lightning")
    parser.add_argument("--epochs", type=int, default=6)
    args = parser.parse_args()

    torch.set_num_threads(1)
    seed_everything(0, verbose=False)
    data = torch.utils.data.TensorDataset(torch.tensor(load_digits().data, dtype=torch.float32) / 16)
    loader = torch.utils.data.DataLoader(data, batch_size=256, shuffle=True, drop_last=True)
    watcher = FullrankCallback(
        {"backbone": "backbone", "projector": "projector"}, views=2, url=args.url, run=args.run, method="vicreg"
    )
    trainer = Trainer(
        max_epochs=args.epochs,
        accelerator="cpu",
        callbacks=[watcher],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(VicReg(), loader)
    verdict = watcher.monitor.verdict()
    print(verdict and {name: verdict[name] for name in ("state", "cause", "since_window")})


if __name__ == "__main__":
    main()
