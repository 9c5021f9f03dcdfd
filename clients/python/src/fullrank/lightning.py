"""A callback for Lightning (`lightning` or `pytorch_lightning`).

    trainer = Trainer(callbacks=[FullrankCallback({"backbone": "model.backbone"}, run="simclr-1", method="simclr")])

Guarantees: hooks are in place only while `fit` runs, even after an exception.
Must not: be imported by the rest of the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable, Optional

from ._framework import Session
from .monitor import Monitor

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    try:
        from lightning.pytorch import Callback
    except ImportError:
        from pytorch_lightning import Callback


class FullrankCallback(Callback):  # type: ignore[misc, unused-ignore]
    """Watches modules of a LightningModule.

    Args:
        layers: layer name to the module's path in the LightningModule, such as {"backbone": "model.backbone"}. May be
            empty if the module itself pushes, through `callback.monitor`.
        monitor: your own Monitor, which you finish yourself. Without it, one is created from `options` (run=, method=,
            ...) and finished when the fit ends.
        window: "epoch", or "step" to make each pushed step a window of its own.
        every, views, stacked, pool: see `Monitor.watch`.
        options: see `Monitor`.

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

    @property
    def monitor(self) -> Monitor:
        """The Monitor that receives the pushes."""
        return self._session.monitor

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Installs the hooks."""
        self._session.begin(pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Starts a step."""
        self._session.step(trainer.current_epoch, trainer.global_step, self._loss)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keeps the loss for the next push."""
        loss: Any = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        self._loss = loss.detach().clone() if hasattr(loss, "detach") else None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Closes the epoch's window."""
        self._session.end_epoch(trainer.current_epoch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Removes the hooks and finishes the run."""
        self._session.end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Removes the hooks. The run is not finished, as it may be resumed."""
        self._session.stop()
