"""What the callbacks for training frameworks have in common: a Monitor, its hooks, and when a window ends.

Guarantees: the run is finished only by the callback that made its Monitor.
Must not: import a framework.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional

from ._watch import WatchHandle
from .monitor import Monitor

if TYPE_CHECKING:
    import torch


class Session:
    """One fit of one model."""

    def __init__(
        self,
        layers: Mapping[str, str],
        monitor: Optional[Monitor],
        window: str,
        how: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> None:
        if window not in ("epoch", "step"):
            raise ValueError(f"window is {window!r}: it must be 'epoch' or 'step'")
        if monitor is not None and options:
            raise ValueError(f"{sorted(options)} belong to a Monitor, and one was given")
        if monitor is None and "run" not in options:
            raise ValueError("give monitor=, or run= and whatever else a Monitor takes")
        self.monitor = monitor if monitor is not None else Monitor(**options)
        self._owned = monitor is None
        self._layers = dict(layers)
        self._window = window
        self._how = dict(how)
        self._handle: Optional[WatchHandle] = None

    def begin(self, model: torch.nn.Module) -> None:
        """The training begins. Raises `AttributeError` for a module that the model does not have."""
        self.stop()
        modules = {layer: model.get_submodule(path) for layer, path in self._layers.items()}
        self._handle = self.monitor.watch(model, modules, **self._how)

    def step(self, epoch: int, step: int, loss: Any) -> None:
        """A step begins; `loss` is the newest that is known."""
        self.monitor.step(window=epoch if self._window == "epoch" else None, step=step, loss=loss)

    def end_epoch(self, epoch: int) -> None:
        """An epoch is over."""
        if self._window == "epoch":
            self.monitor.close(window=epoch)

    def stop(self) -> None:
        """Takes the hooks off."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def end(self) -> None:
        """The training is over."""
        self.stop()
        if self._owned:
            self.monitor.finish()
        else:
            self.monitor.flush()
