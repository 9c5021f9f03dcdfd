#!/usr/bin/env python3
"""A SimCSE training of a few seconds with the transformers Trainer: random sentences, a tiny BERT and dropout
as augmentation.

python transformers.py [http://127.0.0.1:8417]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

# This file has the same name as the library: keep it from importing itself.
sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from transformers import BertConfig, BertModel, Trainer, TrainingArguments  # noqa: E402

from fullrank.transformers import FullrankCallback  # noqa: E402

TEMPERATURE = 0.05


class SimCse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        config = BertConfig(
            vocab_size=200, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
        )
        self.encoder = BertModel(config, add_pooling_layer=False)

    def forward(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        # The same sentences twice: dropout turns them into two views.
        z1, z2 = (F.normalize(self.encoder(input_ids)[0].mean(1), dim=1) for _ in range(2))
        return {"loss": F.cross_entropy(z1 @ z2.T / TEMPERATURE, torch.arange(len(z1)))}


class Sentences(torch.utils.data.Dataset):
    def __init__(self) -> None:
        self.tokens = torch.randint(200, (512, 12), generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.tokens[index]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url", nargs="?")
    parser.add_argument("--run", default="transformers")
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args()

    torch.set_num_threads(1)
    watcher = FullrankCallback(
        {"encoder": "encoder"}, views=2, url=args.url, run=args.run, method="simclr", temperature=TEMPERATURE
    )
    with tempfile.TemporaryDirectory() as folder:
        options = TrainingArguments(
            folder,
            num_train_epochs=args.epochs,
            per_device_train_batch_size=64,
            learning_rate=1e-3,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            seed=0,
        )
        Trainer(SimCse(), options, train_dataset=Sentences(), callbacks=[watcher]).train()
    verdict = watcher.monitor.verdict()
    print(verdict and {name: verdict[name] for name in ("state", "cause", "since_window")})


if __name__ == "__main__":
    main()
