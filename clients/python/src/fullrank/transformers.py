"""A callback for the Trainer of Hugging Face transformers.

    trainer = Trainer(..., callbacks=[FullrankCallback({"encoder": "encoder"}, run="bert-1", method="simclr")])

Guarantees: hooks are in place only while `train` runs.
Must not: be imported by the rest of the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable, Optional

from transformers import TrainerCallback

from ._framework import Session
from .monitor import Monitor


class FullrankCallback(TrainerCallback):
    """Watches modules of the Trainer's model.

    Args:
        layers: layer name to the module's path in the model, such as {"encoder": "bert.encoder"}. Token sequences
            N x T x d are averaged over all tokens, including padding. To choose otherwise, set `pool`, for example
            `lambda o: o[0][:, 0]`.
        monitor: your own Monitor, which you finish yourself. Without it, one is created from `options` (run=, method=,
            ...) and finished when the training ends.
        window: "epoch", or "step" to make each pushed step a window of its own.
        every, views, stacked, pool: see `Monitor.watch`.
        options: see `Monitor`.

    The loss sent with a push is the last one that the Trainer logged (`logging_steps`).

    Raises:
        ValueError: for options that cannot work.
    """

    def __init__(
        self,
        layers: Mapping[str, str],
        *,
        monitor: Optional[Monitor] = None,
        window: str = "epoch",
        every: int = 1,
        views: int = 1,
        stacked: bool = False,
        pool: Optional[Callable[[Any], Any]] = None,
        **options: Any,
    ) -> None:
        how = {"every": every, "views": views, "stacked": stacked, "pool": pool}
        self._session = Session(layers, monitor, window, how, options)
        self._loss: Any = None
        self._epoch = 0

    @property
    def monitor(self) -> Monitor:
        """The Monitor that receives the pushes."""
        return self._session.monitor

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Installs the hooks."""
        self._session.begin(kwargs["model"])

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remembers the epoch."""
        self._epoch = round(state.epoch or 0.0)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts a step."""
        self._session.step(self._epoch, state.global_step, self._loss)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Keeps the loss for the next push."""
        self._loss = (logs or {}).get("loss", self._loss)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Closes the epoch's window."""
        self._session.end_epoch(self._epoch)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Removes the hooks and finishes the run."""
        self._session.end()
