"""The loop that trains every method, pushes its tensors and measures the truth after every epoch.

It uses one thread and one seed: the same library versions reproduce the same run.
"""

import math
import time

import numpy as np
import torch

from data import STRENGTHS, augment
from truth import measure

BATCH = 128
WINDOWS_PER_EPOCH = 4
EPOCHS = 13  # of 64 steps: 832 steps, 52 windows
WARM_UP = 1 / 26  # share of the training during which the learning rate rises


def schedule(progress):
    """Factor of the learning rate: a linear warm-up, then a cosine to 0."""
    return min(1.0, progress / WARM_UP + 0.01) * (1 + math.cos(math.pi * progress)) / 2


def train(method_class, without, seed, images, test, monitors=(), epochs=EPOCHS, log=print):
    """Train one configuration for `epochs` epochs; return its record: configuration, truth per epoch, seconds.

    The schedule is that of a full training, so a short training equals the beginning of the full one exactly.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    np.random.seed(seed)
    generator = torch.Generator().manual_seed(seed)

    method = method_class(without)
    assert method.strength in STRENGTHS
    optimiser = method.make_optimiser()
    steps_per_epoch = len(images[0]) // BATCH
    window_steps = steps_per_epoch // WINDOWS_PER_EPOCH
    steps, whole = epochs * steps_per_epoch, EPOCHS * steps_per_epoch

    started = time.monotonic()
    truth = [{"epoch": 0, "step": 0, **measure(method, images, test)}]
    method.train()
    loss_sum = 0.0
    for step in range(steps):
        position = step % steps_per_epoch
        if position == 0:
            order, loss_sum = torch.randperm(len(images[0]), generator=generator), 0.0
        batch = images[0][order[position * BATCH:(position + 1) * BATCH]]
        view1, view2 = augment(torch.cat([batch, batch]), generator, method.strength).chunk(2)

        method.progress = step / whole
        for group in optimiser.param_groups:
            group["lr"] = method.learning_rate * schedule(method.progress)
        loss, fields = method.step(view1, view2)
        fields["loss"] = fields.get("loss", loss).item()  # some methods train on a multiple of the published loss
        loss_sum += fields["loss"]
        if step % method.push_every == 0:
            fields = {name: value.detach() if torch.is_tensor(value) else value for name, value in fields.items()}
            in_window = position % window_steps
            for monitor in monitors:
                monitor.push(
                    layer="projector", window=step // window_steps, step=step, batch_size=BATCH,
                    last=in_window + method.push_every >= window_steps, **fields,
                )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        method.after_step()

        if position == steps_per_epoch - 1:
            record = {"epoch": (step + 1) // steps_per_epoch, "step": step + 1}
            record["loss"] = round(loss_sum / steps_per_epoch, 5)
            record.update(measure(method, images, test))
            truth.append(record)
            log(f"{time.monotonic() - started:6.1f} s  {record}")
    for monitor in monitors:
        monitor.finish()
    return {
        "method": method.name, "without": without, "seed": seed, "paper": method.paper, "epochs": epochs,
        "steps": steps, "batch": BATCH, "images": len(images[0]), "windows": steps // window_steps,
        "learning_rate": method.learning_rate, "weight_decay": method.weight_decay, "optimiser": method.optimiser,
        "augmentation": method.strength, "torch": torch.__version__,
        "seconds": round(time.monotonic() - started, 1), "truth": truth,
    }
