#!/usr/bin/env python3
"""Train a small SimSiam on Fashion-MNIST and record its projector embeddings, window by window.

The three variants are the collapse experiment of the SimSiam paper (Chen and He, arXiv 2011.10566):

  healthy            predictor and stop-gradient, the method as published
  no-stop-gradient   the gradient also flows through the target branch
  no-predictor       the predictor is the identity; the stop-gradient is kept

A window is one training batch: the un-normalised projector outputs of both views, exactly as the loss saw them, in f16.
The first window is from the untrained network. The next ones are close together, as a collapse takes only a few dozen
steps; then there is one every hundred steps. Each window also carries the step, the batch's loss, and the accuracy of a
nearest-neighbour classifier on the backbone's features, which shows what the network has really learned. The labels are
used for nothing else.

The projector has no batch norm on its output (the paper's "hidden-only" form, slightly weaker when healthy). With one,
the embeddings would stay around the origin, and a collapse would end on a line instead of a point.

Everything runs on the CPU, on one thread, from one seed: the same library versions reproduce the same tensors.
"""

import argparse
import json
import math
import pathlib
import shlex
import sys
import time

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "zoo"))
from data import DEFAULT_DATA, load_split, standardise  # noqa: E402  it uses the zoo's images

VARIANTS = ("healthy", "no-stop-gradient", "no-predictor")
EARLY_WINDOWS = (4, 25, 50, 150)  # steps, in addition to every hundredth and step 0 (the untrained network)


def augment(images, generator):
    """One random view of each image: resized crop with shift, flip, brightness and contrast, noise, an erased patch."""
    n, _, height, width = images.shape

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(*shape, generator=generator)

    scale = uniform(0.6, 1.0, n)  # side of the crop, as a share of the image's
    flip = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = scale * flip
    theta[:, 1, 1] = scale
    theta[:, :, 2] = uniform(-1, 1, n, 2) * (1.1 - scale).unsqueeze(1)
    views = F.grid_sample(images, F.affine_grid(theta, images.shape, align_corners=False), align_corners=False)

    contrast = uniform(0.6, 1.4, n, 1, 1, 1)
    brightness = uniform(-0.2, 0.2, n, 1, 1, 1)
    views = views * contrast + brightness
    views = views + uniform(0.0, 0.1, n, 1, 1, 1) * torch.randn(views.shape, generator=generator)

    side = 8
    top = torch.randint(0, height - side + 1, (n, 1, 1), generator=generator)
    left = torch.randint(0, width - side + 1, (n, 1, 1), generator=generator)
    rows, columns = torch.arange(height).view(1, -1, 1), torch.arange(width).view(1, 1, -1)
    patch = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
    return standardise(views.masked_fill(patch.unsqueeze(1), 0.0))


class SimSiam(nn.Module):
    """Three strided convolutions, pooled and batch-normed; a projector to `dim`; a bottleneck predictor (or none)."""

    def __init__(self, dim, hidden, bottleneck, with_predictor):
        super().__init__()

        def block(inputs, outputs):
            return nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
            )

        self.backbone = nn.Sequential(
            block(1, 32), block(32, 64), block(64, 128), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(128)
        )
        self.projector = nn.Sequential(
            nn.Linear(128, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, dim)
        )
        self.predictor = nn.Sequential(
            nn.Linear(dim, bottleneck, bias=False), nn.BatchNorm1d(bottleneck), nn.ReLU(), nn.Linear(bottleneck, dim)
        ) if with_predictor else nn.Identity()

    def forward(self, images):
        z = self.projector(self.backbone(images))
        return z, self.predictor(z)


def negative_cosine(prediction, target):
    return -F.cosine_similarity(prediction, target, dim=1).mean()


@torch.no_grad()
def knn_accuracy(backbone, train, test, neighbours=10):
    """Share of test images for which the nearest training images (cosine of backbone features) vote correctly."""
    backbone.eval()
    bank = F.normalize(backbone(standardise(train[0])), dim=1)
    query = F.normalize(backbone(standardise(test[0])), dim=1)
    backbone.train()
    nearest = (query @ bank.T).topk(neighbours, dim=1).indices
    votes = F.one_hot(train[1][nearest], 10).sum(dim=1)
    return (votes.argmax(dim=1) == test[1]).float().mean().item()


def train(args):
    """Train one variant; return the tensors and the list of windows."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)

    folder = pathlib.Path(args.data)
    steps_per_epoch = args.images // args.batch
    images, labels = load_split(folder, "train", args.images)
    bank, test = (images[:2000], labels[:2000]), load_split(folder, "t10k", 1000)

    model = SimSiam(args.dim, args.hidden, args.bottleneck, with_predictor=args.variant != "no-predictor")
    target = (lambda z: z) if args.variant == "no-stop-gradient" else torch.Tensor.detach
    optimiser = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9, weight_decay=args.weight_decay)

    tensors, windows, order = {}, [], None
    started = time.monotonic()
    for step in range(args.steps + 1):
        position = step % steps_per_epoch
        if position == 0:
            order = torch.randperm(len(images), generator=generator)
        batch = images[order[position * args.batch:(position + 1) * args.batch]]
        (z1, p1), (z2, p2) = model(augment(batch, generator)), model(augment(batch, generator))
        loss = (negative_cosine(p1, target(z2)) + negative_cosine(p2, target(z1))) / 2

        if step in EARLY_WINDOWS or step % 100 == 0:
            window = {
                "window": len(windows), "step": step, "loss": round(loss.item(), 6),
                "knn_accuracy": round(knn_accuracy(model.backbone, bank, test), 4),
            }
            tensors[f"{len(windows):03}.z1"] = z1.detach().half()
            tensors[f"{len(windows):03}.z2"] = z2.detach().half()
            windows.append(window)
            print(f"{time.monotonic() - started:6.1f} s  {window}", flush=True)

        if step < args.steps:
            for group in optimiser.param_groups:
                group["lr"] = args.lr * (1 + math.cos(math.pi * step / args.steps)) / 2
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return tensors, windows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=pathlib.Path, help="the .safetensors file to write; its stem is the run's name")
    parser.add_argument("--variant", choices=VARIANTS, default="healthy")
    parser.add_argument("--data", default=DEFAULT_DATA, help="folder with the four Fashion-MNIST idx.gz files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1300)
    parser.add_argument("--images", type=int, default=9600, help="number of training images")
    parser.add_argument("--batch", type=int, default=192, help="batch size, and rows of a window")
    parser.add_argument("--lr", type=float, default=0.05, help="initial learning rate; a cosine takes it to 0")
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--dim", type=int, default=64, help="dimension of the embedding")
    parser.add_argument("--hidden", type=int, default=128, help="width of the projector's hidden layer")
    parser.add_argument("--bottleneck", type=int, default=16, help="width of the predictor's hidden layer")
    args = parser.parse_args()

    tensors, windows = train(args)
    command = shlex.join(["python", *sys.argv])
    metadata = {
        "run": args.output.stem, "method": "simsiam", "variant": args.variant, "seed": str(args.seed),
        "dataset": "fashion-mnist", "torch": torch.__version__, "command": command, "windows": json.dumps(windows),
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, args.output, metadata=metadata)


if __name__ == "__main__":
    main()
