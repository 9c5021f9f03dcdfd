"""VICReg: Bardes et al., arXiv 2105.04906, equations 1 to 6."""

import torch.nn.functional as F

from .base import Method

INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0
GAMMA = 1.0
EPSILON = 1e-4
SCALE = 0.2  # of the whole loss: it only sets the size of a step


def variance_term(z):
    return F.relu(GAMMA - (z.var(dim=0) + EPSILON).sqrt()).mean()


def covariance_term(z):
    centred = z - z.mean(dim=0)
    covariance = centred.T @ centred / (len(z) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]


class VICReg(Method):
    name = "vicreg"
    paper = "2105.04906"
    variants = {"no-variance": "the variance term", "no-covariance": "the covariance term"}

    def step(self, view1, view2):
        z1, z2 = self.embed(view1)[1], self.embed(view2)[1]
        variance = 0.0 if self.without == "no-variance" else VARIANCE
        covariance = 0.0 if self.without == "no-covariance" else COVARIANCE
        loss = (
            INVARIANCE * F.mse_loss(z1, z2)
            + variance * (variance_term(z1) + variance_term(z2))
            + covariance * (covariance_term(z1) + covariance_term(z2))
        )
        return SCALE * loss, {
            "z1": z1, "z2": z2, "invariance_weight": INVARIANCE, "variance_weight": variance,
            "covariance_weight": covariance, "gamma": GAMMA, "loss": loss,
        }
