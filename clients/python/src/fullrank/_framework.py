"""What the callbacks for training frameworks share: a Monitor, its hooks, and the end of each window.

Guarantees: only the callback that created its Monitor finishes the run.
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
            raise ValueError(f"window is {window!r}: expected 'epoch' or 'step'")
        if monitor is not None and options:
            raise ValueError(f"{sorted(options)} are options of a Monitor: pass them to it, or leave out monitor=")
        if monitor is None and "run" not in options:
            raise ValueError("pass monitor=, or run= and other options of a Monitor")
        self.monitor = monitor if monitor is not None else Monitor(**options)
        self._owned = monitor is None
        self._layers = dict(layers)
        self._window = window
        self._how = dict(how)
        self._handle: Optional[WatchHandle] = None

    def begin(self, model: torch.nn.Module) -> None:
        """The training starts. Raises `AttributeError` for a module that the model does not have."""
        self.stop()
        modules = {layer: model.get_submodule(path) for layer, path in self._layers.items()}
        self._handle = self.monitor.watch(model, modules, **self._how)

    def step(self, epoch: int, step: int, loss: Any) -> None:
        """A step starts. `loss` is the latest known loss."""
        self.monitor.step(window=epoch if self._window == "epoch" else None, step=step, loss=loss)

    def end_epoch(self, epoch: int) -> None:
        """An epoch ends."""
        if self._window == "epoch":
            self.monitor.close(window=epoch)

    def stop(self) -> None:
        """Removes the hooks."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def end(self) -> None:
        """The training ends."""
        self.stop()
        if self._owned:
            self.monitor.finish()
        else:
            self.monitor.flush()
