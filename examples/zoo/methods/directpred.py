"""DirectPred: Tian et al., arXiv 2102.06810, section 4. BYOL whose linear predictor is set, not trained.

Without the predictor it is BYOL without one: the same run, seed for seed.
"""

import torch

from networks import DIM

from .base import Method
from .byol import BYOL
from .losses import negative_cosine

RHO = 0.3  # momentum of the running correlation F
EPSILON = 0.1


class DirectPred(BYOL):
    name = "directpred"
    paper = "2102.06810"
    variants = {"no-predictor": "the predictor (the identity instead)"}

    def __init__(self, without=None):
        super().__init__(without)
        del self.predictor
        self.register_buffer("weight", torch.eye(DIM))
        self.register_buffer("correlation", torch.zeros(DIM, DIM))

    @torch.no_grad()
    def set_predictor(self, z):
        """W_p = U diag(p) U^T with F = U diag(s) U^T and p = sqrt(s) + epsilon max s, all relative to max s."""
        batch = z.T @ z / len(z)
        self.correlation.copy_(RHO * self.correlation + (1 - RHO) * batch)
        eigenvalues, vectors = torch.linalg.eigh(self.correlation)
        relative = (eigenvalues / eigenvalues.max()).clamp(min=0)
        self.weight.copy_(vectors @ torch.diag(relative.sqrt() + EPSILON) @ vectors.T)

    def step(self, view1, view2):
        z1, z2 = self.embed(view1)[1], self.embed(view2)[1]
        if self.without != "no-predictor":
            self.set_predictor(torch.cat([z1, z2]))
        weight = self.weight.clone()
        p1, p2 = z1 @ weight.T, z2 @ weight.T
        t1, t2 = self.target(view1), self.target(view2)
        loss = (2 + 2 * negative_cosine(p1, t2)) + (2 + 2 * negative_cosine(p2, t1))
        return loss, {"z1": z1, "z2": z2, "prediction1": p1, "predictor_weight": weight}
