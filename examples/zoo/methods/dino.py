"""DINO: Caron et al., arXiv 2104.14294, algorithm 1, two global views and no small crops."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from networks import DIM, FEATURES, HIDDEN, follow, frozen_copy

from .base import Method

OUTPUTS = 64
TEMPERATURE = 0.1
TEACHER_TEMPERATURE = 0.05  # within the 0.04 to 0.07 of the paper's warm-up
CENTER_MOMENTUM = 0.9
MOMENTUM = 0.98  # at the start; the paper's 0.996 belongs to a hundred times as many steps


class Head(nn.Module):
    """The paper's head: three layers to a bottleneck (the embedding), its unit row, and a layer of unit weight rows."""

    def __init__(self):
        super().__init__()
        self.bottleneck = nn.Sequential(
            nn.Linear(FEATURES, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, DIM)
        )
        self.last = nn.Parameter(torch.randn(OUTPUTS, DIM))

    def forward(self, features):
        z = self.bottleneck(features)
        return z, F.normalize(z, dim=1) @ F.normalize(self.last, dim=1).T


class DINO(Method):
    name = "dino"
    paper = "2104.14294"
    variants = {
        "no-centering": "the centering of the teacher's output",
        "no-sharpening": "the sharpening: the teacher's temperature is 1",
    }
    push_every = 4
    optimiser = "adam"
    learning_rate = 1e-3

    def __init__(self, without=None):
        super().__init__(without)
        self.projector = Head()
        self.teacher_backbone, self.teacher_projector = frozen_copy(self.backbone), frozen_copy(self.projector)
        self.register_buffer("center", torch.zeros(OUTPUTS))
        self.teacher_temperature = 1.0 if without == "no-sharpening" else TEACHER_TEMPERATURE

    def embed(self, images):
        features = self.backbone(images)
        return features, self.projector(features)[0]

    def target(self, logits):
        return ((logits - self.center) / self.teacher_temperature).softmax(dim=1)

    def step(self, view1, view2):
        (z1, s1), (z2, s2) = (self.projector(self.backbone(view)) for view in (view1, view2))
        with torch.no_grad():
            t1, t2 = (self.teacher_projector(self.teacher_backbone(view))[1] for view in (view1, view2))
        pairs = ((s1, t2), (s2, t1))
        loss = sum(F.cross_entropy(s / TEMPERATURE, self.target(t)) for s, t in pairs) / len(pairs)
        push = {
            "z1": z1, "z2": z2, "logits1": s1, "teacher_logits1": t1, "center": self.center.clone(),
            "temperature": TEMPERATURE, "teacher_temperature": self.teacher_temperature,
        }
        if self.without != "no-centering":
            self.center.lerp_(torch.cat([t1, t2]).mean(dim=0), 1 - CENTER_MOMENTUM)
        return loss, push

    def after_step(self):
        momentum = 1 - (1 - MOMENTUM) * (1 + math.cos(math.pi * self.progress)) / 2
        follow(self.teacher_backbone, self.backbone, momentum)
        follow(self.teacher_projector, self.projector, momentum)
