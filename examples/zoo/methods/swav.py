"""SwAV: Caron et al., arXiv 2006.09882, two views and no small crops."""

import torch
import torch.nn.functional as F
from torch import nn

from networks import DIM

from .base import Method

PROTOTYPES = 64  # fewer than the batch has rows, so that a batch can be shared out equally
TEMPERATURE = 0.1
EPSILON = 0.05
ITERATIONS = 3
FROZEN = 1 / 12  # share of the training in which the prototypes stay fixed (the paper: the first epoch)


@torch.no_grad()
def sinkhorn(scores):
    """Codes that use every prototype equally: the paper's equation 5 by Sinkhorn-Knopp, 3 iterations."""
    codes = ((scores - scores.max()) / EPSILON).exp()  # the shift cancels; it keeps the exponential finite
    rows, prototypes = codes.shape
    for _ in range(ITERATIONS):
        codes = codes / codes.sum(dim=0, keepdim=True) / prototypes
        codes = codes / codes.sum(dim=1, keepdim=True) / rows
    return codes * rows


class SwAV(Method):
    name = "swav"
    paper = "2006.09882"
    variants = {"no-sinkhorn": "the equal use of prototypes: codes are a softmax of the scores"}
    push_every = 4

    def __init__(self, without=None):
        super().__init__(without)
        self.prototypes = nn.Linear(DIM, PROTOTYPES, bias=False)
        self.normalise_prototypes()

    @torch.no_grad()
    def normalise_prototypes(self):
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))

    def codes(self, scores):
        if self.without == "no-sinkhorn":
            return (scores.detach() / EPSILON).softmax(dim=1)
        return sinkhorn(scores.detach())

    def step(self, view1, view2):
        z1, z2 = self.embed(view1)[1], self.embed(view2)[1]
        scores1, scores2 = (self.prototypes(F.normalize(z, dim=1)) for z in (z1, z2))
        codes1, codes2 = self.codes(scores1), self.codes(scores2)
        # Each view predicts the other's code (equation 2): the cross entropy, once for each order of the views.
        loss = (F.cross_entropy(scores1 / TEMPERATURE, codes2) + F.cross_entropy(scores2 / TEMPERATURE, codes1)) / 2
        return loss, {
            "z1": z1, "z2": z2, "logits1": scores1, "codes1": codes1, "temperature": TEMPERATURE,
            "prototypes": PROTOTYPES,
        }

    def after_step(self):
        self.prototypes.weight.requires_grad_(self.progress >= FROZEN)
        self.normalise_prototypes()
