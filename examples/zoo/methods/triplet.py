"""Triplet loss: Schroff et al. (FaceNet), arXiv 1503.03832, equation 3, on unit embeddings.

The anchor and the positive are two views of one image; the negative is the hardest of a few other images' views. (The
hardest of the whole batch collapses a training even with a margin, as section 3.2 of the paper says.)
"""

import torch
import torch.nn.functional as F

from .base import Method

MARGIN = 0.5
CANDIDATES = 3


class Triplet(Method):
    name = "triplet"
    paper = "1503.03832"
    variants = {"no-margin": "the margin (0): equal distances satisfy the loss"}
    learning_rate = 0.1

    def step(self, view1, view2):
        anchor, positive = (F.normalize(self.embed(view)[1], dim=1) for view in (view1, view2))
        margin = 0.0 if self.without == "no-margin" else MARGIN

        rows = len(anchor)
        with torch.no_grad():
            # Each anchor's candidates: the positives that follow it in the (shuffled) batch.
            others = (torch.arange(rows).unsqueeze(1) + torch.arange(1, CANDIDATES + 1)) % rows
            hardest = torch.einsum("nd,nkd->nk", anchor, positive[others]).argmax(dim=1, keepdim=True)
        negative = positive[others.gather(1, hardest).squeeze(1)]

        to_positive = (anchor - positive).square().sum(dim=1)
        to_negative = (anchor - negative).square().sum(dim=1)
        loss = F.relu(to_positive - to_negative + margin).mean()
        return loss, {"z1": anchor, "z2": positive, "negative1": negative, "margin": margin}
