"""Loss formulas that several methods share."""

import torch
import torch.nn.functional as F


def negative_cosine(prediction, target):
    """-mean cos(p, z): SimSiam, arXiv 2011.10566, equation 1. The caller stops the target's gradient."""
    return -F.cosine_similarity(prediction, target, dim=1).mean()


def nt_xent(z1, z2, temperature):
    """The normalised temperature-scaled cross entropy of SimCLR, arXiv 2002.05709, equation 1.

    Every row of both views is an anchor; its candidates are all 2B - 1 other rows.
    """
    unit = F.normalize(torch.cat([z1, z2]), dim=1)
    logits = unit @ unit.T / temperature
    logits.fill_diagonal_(float("-inf"))
    rows = len(z1)
    positive = torch.arange(2 * rows).roll(rows)
    return F.cross_entropy(logits, positive)
