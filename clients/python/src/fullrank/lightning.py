"""A callback for Lightning (`lightning` or `pytorch_lightning`).

    trainer = Trainer(callbacks=[FullrankCallback({"backbone": "model.backbone"}, run="simclr-1", method="simclr")])

Guarantees: hooks are on while `fit` runs, and off afterwards, also after an exception.
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
            empty: the module then pushes by itself, through `callback.monitor`.
        monitor: a Monitor of your own, which you finish; else one is made from `options` (run=, method=, ...) and
            finished with the fit.
        window: "epoch", or "step": each step that is pushed is a window of its own.
        every, views, stacked, pool: as of `Monitor.watch`.
        options: as of `Monitor`.

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
        """The Monitor that is pushed to."""
        return self._session.monitor

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the hooks on."""
        self._session.begin(pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Says which step it is."""
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
        """Takes the hooks off and finishes the run."""
        self._session.end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Takes the hooks off; the run is not finished, as it may be resumed."""
        self._session.stop()
