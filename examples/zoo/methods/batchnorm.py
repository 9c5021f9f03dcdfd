"""A collapse masked by batch norm: SimCLR (arXiv 2002.05709) with batch norm on the projector's output.

What comes before a batch norm has no scale that the loss could see, so weight decay shrinks it against nothing but the
growth that the steps themselves bring (van Laarhoven, arXiv 1706.05350); the three linear layers of this projector,
with no norm between them, shrink together. Biases are by custom not decayed, so they are what is left: before the
batch norm all rows are nearly one vector, after it they are spread out as ever, and the network has learned nearly as
much as its twin.
"""

import torch
from torch import nn

from networks import DIM, FEATURES, HIDDEN

from .base import Method
from .losses import nt_xent

TEMPERATURE = 0.2


class BatchNorm(Method):
    name = "batchnorm"
    wire = "simclr"
    paper = "1706.05350"
    variants = {"strong-decay": "the moderate weight decay (0.15 instead of 0.0005; biases are not decayed)"}

    def __init__(self, without=None):
        super().__init__(without)
        self.projector = nn.Sequential(
            nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(),
            nn.Linear(HIDDEN, DIM), nn.BatchNorm1d(DIM),
        )
        if without == "strong-decay":
            self.weight_decay = 0.15

    @property
    def pre_bn_layer(self):
        return self.projector[-1]

    def step(self, view1, view2):
        norm = self.projector[-1]
        pre1, pre2 = (self.projector[:-1](self.backbone(view)) for view in (view1, view2))
        z1, z2 = norm(pre1), norm(pre2)
        return nt_xent(z1, z2, TEMPERATURE), {
            "z1": z1, "z2": z2, "pre_bn": pre1, "bn_eps": norm.eps, "bn_gamma": norm.weight.mean().item(),
            "temperature": TEMPERATURE,
        }
