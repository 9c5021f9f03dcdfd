"""NNCLR: Dwibedi et al., arXiv 2104.14548, equations 2 to 4, symmetrised.

Without the prediction head, which the paper's ablation finds to be worth little; its absence leaves the negatives as
the only safeguard.
"""

import torch
import torch.nn.functional as F

from networks import DIM, Queue

from .base import Method
from .losses import negative_cosine

TEMPERATURE = 0.2
SUPPORT = 2048


class NNCLR(Method):
    name = "nnclr"
    paper = "2104.14548"
    variants = {"no-negatives": "the negatives: each view is only drawn to its nearest neighbour"}
    learning_rate = 0.1

    def __init__(self, without=None):
        super().__init__(without)
        self.support = Queue(SUPPORT, DIM)

    def neighbours(self, z):
        """(index, row) of each row's nearest neighbour in the support set."""
        with torch.no_grad():
            nearest = (F.normalize(z, dim=1) @ self.support.rows.T).argmax(dim=1)
            return nearest, self.support.rows[nearest]

    def attract(self, neighbour, z):
        """Each neighbour's own row of `z` against the batch's other rows."""
        if self.without == "no-negatives":
            return negative_cosine(z, neighbour) / TEMPERATURE
        logits = neighbour @ F.normalize(z, dim=1).T / TEMPERATURE
        return F.cross_entropy(logits, torch.arange(len(z)))

    def step(self, view1, view2):
        _, z1 = self.embed(view1)
        _, z2 = self.embed(view2)
        nearest, neighbour1 = self.neighbours(z1)
        _, neighbour2 = self.neighbours(z2)
        loss = (self.attract(neighbour1, z2) + self.attract(neighbour2, z1)) / 2
        self.support.enqueue(F.normalize(z1.detach(), dim=1))
        return loss, {"z1": z1, "z2": z2, "neighbors": nearest, "temperature": TEMPERATURE, "queue_size": SUPPORT}
