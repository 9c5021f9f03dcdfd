"""SimCLR: Chen et al., arXiv 2002.05709. Its dimensional collapse: Jing et al., arXiv 2110.09348."""

from torch import nn

from networks import DIM, FEATURES

from .base import Method
from .losses import negative_cosine, nt_xent

TEMPERATURE = 0.2
DEPTH = 4  # layers of the linear projector


class SimCLR(Method):
    name = "simclr"
    paper = "2002.05709"
    variants = {
        "no-negatives": "the negatives: only the attraction of the two views is left",
        "deep-linear": "the projector's non-linearity (four linear layers instead), under very strong augmentation",
    }

    def __init__(self, without=None):
        super().__init__(without)
        if without == "deep-linear":
            layers = [nn.Linear(inputs, DIM, bias=False) for inputs in [FEATURES] + [DIM] * (DEPTH - 1)]
            for layer in layers:
                nn.init.orthogonal_(layer.weight)  # all directions start alike: what is lost, the training has lost
            self.projector = nn.Sequential(*layers)
            self.strength = "strong"

    def step(self, view1, view2):
        _, z1 = self.embed(view1)
        _, z2 = self.embed(view2)
        if self.without == "no-negatives":
            # The loss's first term alone: with no other candidate the sum under the fraction has nothing to push apart.
            loss = negative_cosine(z1, z2) / TEMPERATURE
        else:
            loss = nt_xent(z1, z2, TEMPERATURE)
        return loss, {"z1": z1, "z2": z2, "temperature": TEMPERATURE}
