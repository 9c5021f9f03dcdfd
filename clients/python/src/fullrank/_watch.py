"""Forward hooks that push the outputs of modules.

Guarantees: a hook never raises, never changes an output, and does nothing outside training mode; what it keeps
between two views is its own copy. Removing the handle removes every hook.
Must not: import torch before a model is watched.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable, Optional

if TYPE_CHECKING:
    import torch

    from .monitor import Monitor

Pool = Callable[[Any], Any]


class Context:
    """Where the training is, by its last `step()` call."""

    def __init__(self) -> None:
        self.window: Optional[int] = None
        self.step: Optional[int] = None
        self.parameters: dict[str, Any] = {}
        self.generation = 0  # 0: `step()` is not called, and steps are counted

    def begin(self, window: Optional[int], step: Optional[int], parameters: dict[str, Any]) -> None:
        """Starts a new step."""
        self.window, self.step, self.parameters = window, step, parameters
        self.generation += 1


class WatchHandle:
    """Hooks that can be removed."""

    def __init__(self, hooks: list[Any]) -> None:
        self._hooks = hooks

    def remove(self) -> None:
        """Removes the hooks. May be called again."""
        while self._hooks:
            self._hooks.pop().remove()

    def __enter__(self) -> WatchHandle:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.remove()


def watch(
    monitor: Monitor,
    context: Context,
    model: torch.nn.Module,
    layers: Mapping[str, torch.nn.Module],
    how: tuple[int, int, bool],
    pool: Optional[Pool],
) -> WatchHandle:
    """See `Monitor.watch`. Raises `ValueError` or `TypeError` for arguments that can never work."""
    every, views, _ = how
    if every < 1 or views < 1:
        raise ValueError(f"every is {every} and views is {views}: both must be at least 1")
    import torch

    handle = WatchHandle([])
    for layer, module in layers.items():
        if not isinstance(module, torch.nn.Module):
            handle.remove()
            raise TypeError(f"layer {layer} is a {type(module).__name__}: pass the module itself")
        hook = _Hook(monitor, context, model, layer, how, pool)
        handle._hooks.append(module.register_forward_hook(hook))
    return handle


class _Hook:
    """What one watched module does after each forward call."""

    def __init__(
        self,
        monitor: Monitor,
        context: Context,
        model: torch.nn.Module,
        layer: str,
        how: tuple[int, int, bool],
        pool: Optional[Pool],
    ) -> None:
        self._monitor = monitor
        self._context = context
        self._model = model
        self._layer = layer
        self._every, self._views, self._stacked = how
        self._calls_a_step = 1 if self._stacked else self._views
        self._pool = pool or pooled
        self._step = -1  # counted here, from 0
        self._generation = -1
        self._calls = 0  # forward calls in this step
        self._kept: list[Any] = []
        self._pre_bn: Any = None

    def __call__(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        if not module.training or not self._model.training:
            return
        from .monitor import CollapseError

        try:
            self._forward(module, inputs, output)
        except CollapseError:
            raise
        except Exception as error:  # an unforeseen kind of model must not stop its training
            text = f"watching layer {self._layer} failed: {type(error).__name__}: {error}"
            self._monitor._core.complaints.add("watch", text + ". Set pool= to turn its output into N x d")

    def _forward(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        if not self._begins():
            return
        self._calls += 1
        if self._step % self._every != 0:
            return
        import torch

        with torch.no_grad():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and not self._kept:
                self._pre_bn = self._own(inputs[0])
            self._kept.append(self._own(output))
        if self._calls == self._calls_a_step:
            self._push(module)

    def _begins(self) -> bool:
        """Finds out which step this call belongs to. False for a surplus call."""
        generation = self._context.generation
        # Without `step()` calls, the step is over when its views are complete.
        new = generation != self._generation if generation else self._calls in (0, self._calls_a_step)
        if new:
            self._generation, self._calls, self._kept = generation, 0, []
            self._step += 1
        elif self._calls >= self._calls_a_step:
            text = f"layer {self._layer} ran more than {self._calls_a_step} time(s) in one step"
            self._monitor._core.complaints.add("views", text + ". Set views= to the number of its views")
            return False
        return True

    def _own(self, output: Any) -> Any:
        """N x d in memory that the model does not write to."""
        tensor = self._pool(output)
        if not hasattr(tensor, "detach"):
            raise TypeError(f"pool returned a {type(tensor).__name__}: expected a tensor")
        tensor = tensor.detach()
        # push copies a single view at once. With several, the earlier ones wait for the last.
        return tensor.clone() if self._calls_a_step > 1 else tensor

    def _push(self, module: torch.nn.Module) -> None:
        views, pre_bn = self._kept, self._pre_bn
        self._kept, self._pre_bn = [], None
        if self._stacked and self._views > 1:
            if len(views[0]) % self._views:
                raise ValueError(f"{len(views[0])} rows cannot be split into {self._views} views of equal size")
            views = list(views[0].chunk(self._views))
            pre_bn = None if pre_bn is None else pre_bn.chunk(self._views)[0]
        names = ["z"] if len(views) == 1 else [f"z{number}" for number in range(1, len(views) + 1)]
        tensors = dict(zip(names, views))
        parameters: dict[str, Any] = dict(self._context.parameters)
        if pre_bn is not None:
            tensors["pre_bn"] = pre_bn
            parameters["bn_eps"] = float(getattr(module, "eps", 0.0))
            weight = getattr(module, "weight", None)
            if weight is not None:
                parameters["bn_gamma"] = weight.detach().mean()
        counting = self._context.generation == 0
        window = None if counting else self._context.window
        step = self._step if counting else self._context.step
        self._monitor.push(layer=self._layer, window=window, step=step, **tensors, **parameters)


def pooled(output: Any) -> Any:
    """N x d of a module's output: see `Monitor.watch`."""
    tensor = _first_tensor(output)
    if tensor.dim() == 3:
        return tensor.mean(dim=1)
    if tensor.dim() > 3:
        return tensor.flatten(2).mean(dim=2)
    return tensor


def _first_tensor(output: Any) -> Any:
    torch = sys.modules["torch"]
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, Mapping):
        if "last_hidden_state" in output:
            return output["last_hidden_state"]
        output = list(output.values())
    if isinstance(output, (tuple, list)):
        for item in output:
            if isinstance(item, torch.Tensor):
                return item
    raise TypeError(f"the output is a {type(output).__name__} that contains no tensor")
