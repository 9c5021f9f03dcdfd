"""BYOL: Grill et al., arXiv 2006.07733, equation 2, symmetrised; the target's momentum rises to 1 by a cosine."""

import math

import torch
from torch import nn

from networks import DIM, HIDDEN, follow, frozen_copy, mlp

from .base import Method
from .losses import negative_cosine

MOMENTUM = 0.98  # at the start; the paper's 0.996 belongs to a hundred times as many steps


class BYOL(Method):
    name = "byol"
    paper = "2006.07733"
    variants = {"no-predictor": "the predictor (the identity instead)"}
    learning_rate = 0.1

    def __init__(self, without=None):
        super().__init__(without)
        self.predictor = nn.Identity() if without == "no-predictor" else mlp(DIM, HIDDEN, DIM)
        self.target_backbone, self.target_projector = frozen_copy(self.backbone), frozen_copy(self.projector)

    def target(self, images):
        with torch.no_grad():
            return self.target_projector(self.target_backbone(images))

    def step(self, view1, view2):
        z1, z2 = self.embed(view1)[1], self.embed(view2)[1]
        p1, p2 = self.predictor(z1), self.predictor(z2)
        t1, t2 = self.target(view1), self.target(view2)
        # |p - z|^2 of unit rows is 2 - 2 cos, once for each order of the views.
        loss = (2 + 2 * negative_cosine(p1, t2)) + (2 + 2 * negative_cosine(p2, t1))
        return loss, {"z1": z1, "prediction1": p1, "teacher1": t1}

    def after_step(self):
        momentum = 1 - (1 - MOMENTUM) * (1 + math.cos(math.pi * self.progress)) / 2
        follow(self.target_backbone, self.backbone, momentum)
        follow(self.target_projector, self.projector, momentum)
