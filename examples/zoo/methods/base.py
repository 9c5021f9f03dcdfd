"""What every method of the zoo is: networks, a loss on two views, and what the trainer sends of it."""

import torch
from torch import nn

from networks import backbone, projector


class Method(nn.Module):
    """A self-supervised method. A new one is a new file in this folder with one subclass.

    `without` is the safeguard taken away: None is the method as published, any other value a key of `variants`.
    """

    name = None  # also the start of the run's name
    wire = None  # the service's word for it, if that is not `name`
    paper = None
    variants = {}  # word -> what was taken away, for the table

    learning_rate = 0.05  # of SGD with momentum 0.9; a cosine takes it to 0
    weight_decay = 5e-4  # of weight matrices; biases and batch norms are not decayed
    optimiser = "sgd"
    strength = "standard"  # of the augmentation
    push_every = 2  # steps; more for methods that send more tensors

    def __init__(self, without=None):
        super().__init__()
        if without is not None and without not in self.variants:
            raise ValueError(f"{self.name} has no variant {without}: {', '.join(self.variants)}")
        self.without = without
        self.backbone = backbone()
        self.projector = projector()
        self.progress = 0.0  # share of the training done: set by the loop

    @property
    def pre_bn_layer(self):
        """The batch norm at the projector's end whose input the truth measures too, or None."""
        return None

    def step(self, view1, view2):
        """(loss, what to push: tensors and numbers by the interface's names)."""
        raise NotImplementedError

    def after_step(self):
        """Momentum updates and the like, after the optimiser's step."""

    def embed(self, images):
        """(backbone features, the embedding that is pushed): what the truth is measured on."""
        features = self.backbone(images)
        return features, self.projector(features)

    def parameter_groups(self):
        """Weight matrices with weight decay, everything else without (LARS recipes of SimCLR and BYOL do the same)."""
        matrices, others = [], []
        for parameter in self.parameters():
            if parameter.requires_grad:
                (matrices if parameter.ndim > 1 else others).append(parameter)
        return [{"params": matrices, "weight_decay": self.weight_decay}, {"params": others, "weight_decay": 0.0}]

    def make_optimiser(self):
        if self.optimiser == "adam":
            return torch.optim.AdamW(self.parameter_groups(), lr=self.learning_rate)
        return torch.optim.SGD(self.parameter_groups(), lr=self.learning_rate, momentum=0.9)
