"""The networks that all methods share: a small convolutional backbone and the heads on top of it.

Sizes are scaled down so that a training takes seconds on one core. The structure (where there is a norm or a
non-linearity) follows the papers.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn

FEATURES, HIDDEN, DIM = 256, 128, 64  # sizes of the backbone's output, the heads' hidden layers and the embedding


def backbone():
    """28 x 28 images to FEATURES numbers: three strided convolutions with batch norm, pooled to 2 x 2.

    The last batch norm centres the features. Otherwise, after a ReLU and pooling, they would all lie in a narrow cone,
    which the heads would have to undo first.
    """
    layers, channels = [], 1
    for width in (16, 32, FEATURES // 4):
        layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.BatchNorm1d(FEATURES))
    return network.to(memory_format=torch.channels_last)  # 25 % faster on a CPU


def mlp(inputs, hidden, outputs):
    """Two layers with a batch norm between them and none after: the kind of head of SimCLR, MoCo v2 and BYOL."""
    return nn.Sequential(
        nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )


def projector():
    return mlp(FEATURES, HIDDEN, DIM)


def frozen_copy(module):
    """A teacher: the same weights, without gradients."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(teacher, student, momentum):
    """Move the teacher's weights towards the student's: teacher = momentum * teacher + (1 - momentum) * student."""
    for slow, fast in zip(teacher.parameters(), student.parameters()):
        slow.lerp_(fast, 1 - momentum)


class Queue(nn.Module):
    """The last `size` unit embeddings, first in, first out. Starts with random directions."""

    def __init__(self, size, dim):
        super().__init__()
        self.register_buffer("rows", F.normalize(torch.randn(size, dim), dim=1))
        self.position = 0

    @torch.no_grad()
    def enqueue(self, rows):
        """`size` must be a multiple of the number of rows."""
        self.rows[self.position:self.position + len(rows)] = rows
        self.position = (self.position + len(rows)) % len(self.rows)
