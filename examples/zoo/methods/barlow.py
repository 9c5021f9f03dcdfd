"""Barlow Twins: Zbontar et al., arXiv 2103.03230, equations 1 and 2."""

from .base import Method

LAMBDA = 0.04  # the paper's 0.005 is for 8,192 dimensions; with 64 the off-diagonal has far fewer terms
SCALE = 0.1  # of the whole loss, as in the authors' code: it only sets the size of a step


def batch_normalise(z):
    """Each coordinate with the batch's mean 0 and variance 1."""
    return (z - z.mean(dim=0)) / (z.var(dim=0, unbiased=False) + 1e-5).sqrt()


class BarlowTwins(Method):
    name = "barlow"
    paper = "2103.03230"
    variants = {"no-off-diagonal": "the off-diagonal term: coordinates may be copies of each other"}

    def step(self, view1, view2):
        z1, z2 = self.embed(view1)[1], self.embed(view2)[1]
        correlation = batch_normalise(z1).T @ batch_normalise(z2) / len(z1)
        diagonal = correlation.diagonal()
        weight = 0.0 if self.without == "no-off-diagonal" else LAMBDA
        off_diagonal = correlation.square().sum() - diagonal.square().sum()
        loss = (1 - diagonal).square().sum() + weight * off_diagonal
        return SCALE * loss, {"z1": z1, "z2": z2, "lambda": weight, "loss": loss}
