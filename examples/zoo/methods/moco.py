"""MoCo: He et al., arXiv 1911.05722, with the projector and temperature of v2 (arXiv 2003.04297).

One process, so one batch norm sees the whole batch and the paper's shuffling across devices has nothing to shuffle.
"""

import torch
import torch.nn.functional as F

from networks import DIM, Queue, follow, frozen_copy

from .base import Method
from .losses import negative_cosine

TEMPERATURE = 0.2
MOMENTUM = 0.99  # 0.999 for the paper's 200 epochs; the teacher must be able to follow within a short training
QUEUE = 2048


class MoCo(Method):
    name = "moco"
    paper = "1911.05722"
    variants = {
        "no-queue": "the queue: the positive key is the only one left",
        "stale-queue": "the queue's update, from a twelfth of the training on: old keys stay for ever",
        "stale-keys": "the momentum update: the key encoder stays untrained",
    }
    learning_rate = 0.1

    def __init__(self, without=None):
        super().__init__(without)
        self.key_backbone, self.key_projector = frozen_copy(self.backbone), frozen_copy(self.projector)
        self.queue = Queue(QUEUE, DIM)

    def step(self, view1, view2):
        _, query = self.embed(view1)
        with torch.no_grad():
            key = self.key_projector(self.key_backbone(view2))

        if self.without == "no-queue":
            # Over one candidate the cross entropy is 0 and trains nothing; its numerator alone is the attraction.
            loss = negative_cosine(query, key) / TEMPERATURE
        else:
            unit, target = F.normalize(query, dim=1), F.normalize(key, dim=1)
            positive = (unit * target).sum(dim=1, keepdim=True)
            # A copy of the queue: the rows are overwritten before the gradient is taken.
            logits = torch.cat([positive, unit @ self.queue.rows.clone().T], dim=1) / TEMPERATURE
            loss = F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.int64))
            if self.without != "stale-queue" or self.progress < 1 / 12:
                self.queue.enqueue(target)
        queue_size = 0 if self.without == "no-queue" else QUEUE
        return loss, {"z1": query, "teacher1": key, "queue_size": queue_size, "temperature": TEMPERATURE}

    def after_step(self):
        if self.without != "stale-keys":
            follow(self.key_backbone, self.backbone, MOMENTUM)
            follow(self.key_projector, self.projector, MOMENTUM)
