"""SimSiam: Chen and He, arXiv 2011.10566, algorithm 1.

The projector has batch norm in its hidden layer and none on its output (the paper's "hidden-only" form, a little weaker
when healthy): with one there, a collapse ends on a line instead of in a point.
"""

from torch import Tensor, nn

from networks import DIM, mlp

from .base import Method
from .losses import negative_cosine


class SimSiam(Method):
    name = "simsiam"
    paper = "2011.10566"
    variants = {
        "no-predictor": "the predictor (the identity instead); the stop-gradient is kept",
        "no-stop-gradient": "the stop-gradient: the target branch is trained too",
    }
    push_every = 4
    learning_rate = 0.1

    def __init__(self, without=None):
        super().__init__(without)
        self.predictor = nn.Identity() if without == "no-predictor" else mlp(DIM, DIM // 2, DIM)
        self.target = (lambda z: z) if without == "no-stop-gradient" else Tensor.detach

    def step(self, view1, view2):
        z1, z2 = self.embed(view1)[1], self.embed(view2)[1]
        p1, p2 = self.predictor(z1), self.predictor(z2)
        loss = (negative_cosine(p1, self.target(z2)) + negative_cosine(p2, self.target(z1))) / 2
        return loss, {"z1": z1, "z2": z2, "prediction1": p1, "prediction2": p2}
