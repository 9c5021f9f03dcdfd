"""Fashion-MNIST as tensors, and random views of a batch.

Everything here depends only on its arguments, including the generator: the same seed gives the same views.
Augmentations act on the whole batch at once, with separate random numbers for each image.
"""

import gzip
import pathlib

import numpy as np
import torch
import torch.nn.functional as F

DEFAULT_DATA = "/usr/share/datasets/fashion-mnist"  # where Debian's dataset-fashion-mnist puts it
TRAIN_IMAGES, TEST_IMAGES = 8192, 2000

# How strongly a view may differ from its image. "strong" is for the experiment of Jing et al. (arXiv 2110.09348): its
# dimensional collapse needs augmentations that vary more than the data along some directions.
STRENGTHS = {
    "standard": {"scale": 0.5, "contrast": 0.5, "brightness": 0.3, "noise": 0.1, "blur": 0.5, "erase": 0},
    "strong": {"scale": 0.25, "contrast": 0.9, "brightness": 0.8, "noise": 0.6, "blur": 0.5, "erase": 14},
}


def read_idx(path):
    """Read an array of unsigned bytes from a gzipped IDX file."""
    with gzip.open(path, "rb") as file:
        raw = file.read()
    if raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path}: not an IDX file of unsigned bytes")
    shape = np.frombuffer(raw, dtype=">u4", count=raw[3], offset=4).astype(int)
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def load_split(folder, stem, count):
    """The first `count` images (N x 1 x 28 x 28, in 0..1) and labels of a split."""
    files = [pathlib.Path(folder) / f"{stem}-{part}-ubyte.gz" for part in ("images-idx3", "labels-idx1")]
    for file in files:
        if not file.is_file():
            raise SystemExit(
                f"{file}: not found. Install Debian's package dataset-fashion-mnist, or set --data to the folder with "
                "the four idx.gz files."
            )
    images, labels = (read_idx(file)[:count] for file in files)
    return torch.tensor(images, dtype=torch.float32).unsqueeze(1) / 255, torch.tensor(labels, dtype=torch.int64)


def load(folder=DEFAULT_DATA):
    """((images, labels) for training, (images, labels) for testing)."""
    return load_split(folder, "train", TRAIN_IMAGES), load_split(folder, "t10k", TEST_IMAGES)


def standardise(images):
    """Standardise images by Fashion-MNIST's mean and standard deviation."""
    return (images - 0.286) / 0.353


def augment(images, generator, strength="standard"):
    """One random view per image: resized crop, flip, contrast and brightness, blur, noise, an erased patch."""
    amount = STRENGTHS[strength]
    n, _, height, width = images.shape

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(*shape, generator=generator)

    side = uniform(amount["scale"], 1.0, n)  # side of the crop, as a share of the image's
    flip = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = side * flip
    theta[:, 1, 1] = side
    theta[:, :, 2] = uniform(-1, 1, n, 2) * (1 - side).unsqueeze(1)
    views = F.grid_sample(images, F.affine_grid(theta, images.shape, align_corners=False), align_corners=False)

    blur = (torch.rand(n, 1, 1, 1, generator=generator) < amount["blur"]) * uniform(0, 1, n, 1, 1, 1)
    views = views + blur * (F.avg_pool2d(views, 3, stride=1, padding=1) - views)
    views = views * uniform(1 - amount["contrast"], 1 + amount["contrast"], n, 1, 1, 1)
    views = views + uniform(-amount["brightness"], amount["brightness"], n, 1, 1, 1)
    views = views + uniform(0, amount["noise"], n, 1, 1, 1) * torch.randn(views.shape, generator=generator)

    if amount["erase"]:
        patch = amount["erase"]
        top = torch.randint(0, height - patch + 1, (n, 1, 1), generator=generator)
        left = torch.randint(0, width - patch + 1, (n, 1, 1), generator=generator)
        rows, columns = torch.arange(height).view(1, -1, 1), torch.arange(width).view(1, 1, -1)
        erased = (rows >= top) & (rows < top + patch) & (columns >= left) & (columns < left + patch)
        views = views.masked_fill(erased.unsqueeze(1), 0.0)
    return standardise(views)
