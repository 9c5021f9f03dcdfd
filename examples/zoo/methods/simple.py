"""L_Simple: Jha et al., "The common stability mechanism behind most self-supervised learning approaches",
arXiv 2402.14957: attract the views, and keep the center vector s, the mean of the unit rows, short.

The penalty knows the mean and nothing else, so two opposite clusters satisfy the loss: as published this stays off the
point, and ends on few directions.
"""

import torch
import torch.nn.functional as F

from .base import Method

WEIGHT = 8.0


def simple_loss(z1, z2, weight):
    """(invariance + weight |s|^2) / 2. Plus: the paper's summary prints a minus, which would reward a long center."""
    u1, u2 = F.normalize(z1, dim=1), F.normalize(z2, dim=1)
    invariance = (u1 - u2).square().sum(dim=1).mean()
    center = torch.cat([u1, u2]).mean(dim=0)
    return (invariance + weight * center.square().sum()) / 2


class Simple(Method):
    name = "simple"
    paper = "2402.14957"
    variants = {"no-center": "the penalty on the center vector"}

    def step(self, view1, view2):
        z1, z2 = self.embed(view1)[1], self.embed(view2)[1]
        weight = 0.0 if self.without == "no-center" else WEIGHT
        return simple_loss(z1, z2, weight), {"z1": z1, "z2": z2, "lambda": weight}
