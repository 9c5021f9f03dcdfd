"""The public face: what a training calls.

Guarantees: `push`, `step`, `watch`'s hooks and `close` return at once and do not raise, whatever they are given and
whatever the service does; the one exception is `CollapseError`, for those who asked for it.
Must not: wait for the network in `push`, or ask a device for a value.
"""

from __future__ import annotations

import json
import os
import secrets
import ssl
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable, Optional

from ._advice import advice
from ._buffer import Control
from ._core import Core, Stats, deadline_in
from ._http import Connection, ProtocolError, address_of
from ._names import METHODS, NAME
from ._parameters import whole
from ._push import Ask, Pusher, constants
from ._sender import Settings, close_of
from ._warnings import Invalid
from ._watch import Context, WatchHandle, watch

if TYPE_CHECKING:
    import torch

DEFAULT_URL = "http://127.0.0.1:8417"


class CollapseError(RuntimeError):
    """The run has collapsed. `verdict` is what the service said."""

    def __init__(self, run: str, verdict: Mapping[str, Any]) -> None:
        self.verdict = dict(verdict)
        super().__init__(
            f"run {run} has collapsed: layer {verdict.get('layer')}, cause {verdict.get('cause')},"
            f" since window {verdict.get('since_window')}"
        )


class Monitor:
    """Watches one run of a training.

    Args:
        url: address of the service, `http://` or `https://`; default FULLRANK_URL, else http://127.0.0.1:8417.
        run: the run's name: 1 to 128 of `A-Z a-z 0-9 . _ -`. A new name for each training.
        method: one of simclr, moco, nnclr, byol, simsiam, swav, dino, barlow, vicreg, triplet, simple, directpred,
            other.
        token: the service's token; default FULLRANK_TOKEN.
        every: send each `every`-th push of a layer (those with `last=True` always).
        max_rows: send at most so many rows a push: a random subset, the same in all views and row-wise tensors.
        seed: of that subset.
        moments: send count, mean and second moment of `z` (f64, computed in the sender's thread) instead of its rows:
            fewer bytes when N is larger than d. What needs pairs of views is not measured then.
        queue_bytes: bound of the queue; over it the oldest batches are dropped and counted.
        worker, workers: which distributed process, of how many; default from torch.distributed, RANK and WORLD_SIZE, or
            SLURM_PROCID and SLURM_NTASKS, at the first push.
        raise_on_collapse: `push` raises `CollapseError` once the service has called the run collapsed.
        poll_seconds: how often the verdict is looked at for that, seconds.
        connect_timeout, timeout: seconds for a connection, and for a request's parts.
        ssl_context: for https with a certificate of your own.
        parameters: what every push of this run says: temperature=0.1, queue_size=65536, ...

    Raises:
        ValueError: for a name, method, address or parameter that can never work. Nothing else raises later.
    """

    def __init__(
        self,
        url: Optional[str] = None,
        *,
        run: str,
        method: Optional[str] = None,
        token: Optional[str] = None,
        every: int = 1,
        max_rows: Optional[int] = None,
        seed: int = 0,
        moments: bool = False,
        queue_bytes: int = 256 << 20,
        worker: Optional[int] = None,
        workers: Optional[int] = None,
        raise_on_collapse: bool = False,
        poll_seconds: float = 5.0,
        connect_timeout: float = 3.0,
        timeout: float = 10.0,
        ssl_context: Optional[ssl.SSLContext] = None,
        **parameters: Any,
    ) -> None:
        if not NAME.fullmatch(run) or run in (".", ".."):
            raise ValueError(f"run is {run!r}: it must be 1 to 128 of A-Z a-z 0-9 . _ -")
        if method is not None and method not in METHODS:
            raise ValueError(f"method is {method!r}: it must be one of {', '.join(METHODS)}")
        if every < 1 or queue_bytes < 1 or (max_rows is not None and max_rows < 1):
            raise ValueError("every, queue_bytes and max_rows must be at least 1")
        if (worker is None) != (workers is None) or (worker is not None and not 0 <= worker < (workers or 0)):
            raise ValueError(f"worker is {worker} of {workers}: give both, worker from 0 and below workers")
        token = os.environ.get("FULLRANK_TOKEN", "").strip() or None if token is None else token
        self._address = address_of(url or os.environ.get("FULLRANK_URL") or DEFAULT_URL, token, ssl_context)
        self._run = run
        self._raise = raise_on_collapse
        self._context = Context()
        self._finished = -1
        self._timeouts = (connect_timeout, timeout)
        settings = Settings(
            self._address,
            run,
            secrets.randbits(63),
            connect_timeout,
            timeout,
            poll_seconds if raise_on_collapse else None,
        )
        self._core = Core(settings, queue_bytes, (worker, workers))
        defaults = constants(run, {"method": method, **parameters})
        self._pusher = Pusher(self._core, defaults, every, max_rows, moments, seed)
        weakref.finalize(self, self._core.stop).atexit = False

    @property
    def run(self) -> str:
        """The run's name."""
        return self._run

    @property
    def stats(self) -> Stats:
        """What became of the pushes so far."""
        return self._core.stats()

    def push(
        self,
        *,
        layer: str,
        window: Optional[int] = None,
        step: Optional[int] = None,
        loss: Any = None,
        last: bool = False,
        max_rows: Optional[int] = None,
        moments: Optional[bool] = None,
        **named: Any,
    ) -> None:
        """Hands over one batch and returns at once. Never waits for the service, never raises.

        The tensors are copied before it returns. numpy arrays and torch tensors of any device are taken; f64, f32,
        f16 and bf16 travel as they are; tensors that require grad are detached; CUDA tensors are fetched on a side
        stream.

        Args:
            layer: name of the layer, 1 to 128 of `A-Z a-z 0-9 . _ -`.
            window: rows with the same number are measured together, such as an epoch. Without it this push is a
                window of its own, numbered by `step`, else by arrival.
            step: the training's step counter.
            loss: a number or a tensor of one element; left out where it is not finite.
            last: this worker's last batch of the window.
            max_rows, moments: as of the Monitor, for this push.
            named: tensors by name, and parameters.
                Rows, N x d: `z`; or `z1`, `z2`, ... (views: row i of each is the same sample); `teacher1`...,
                `prediction1`..., `pre_bn`. By row: `negative1`..., `logits1`..., `teacher_logits1`..., `codes1`... (N
                x k), `ids`, `labels`, `neighbors` (N integers). Others: `edges` (E x 2), `center` (K),
                `prototype_weight` (K x d), `predictor_weight` (d x d). Or moments instead of z: `count`, `mean` (d),
                `m2` (d x d or packed), `unit_mean`, `unit_variance`.
                Parameters: temperature, queue_size, lambda_, ... as docs/api.md lists them.

        Raises:
            CollapseError: only with `raise_on_collapse=True`, once the service has called the run collapsed.
        """
        core = self._core
        if self._raise:
            verdict = core.sender.verdict
            if verdict is not None and verdict.get("state") == "collapsed":
                raise CollapseError(self._run, verdict)
        if not core.at_home():
            return
        try:
            named["loss"] = loss
            self._pusher.push(Ask(layer, window, step, last, max_rows, moments), named)
        except Invalid as error:
            self._invalid(error.kind, str(error))
        except Exception as error:  # whatever a training hands over must not stop it
            self._invalid("internal", f"a push failed: {type(error).__name__}: {error}")

    def _invalid(self, kind: str, text: str) -> None:
        core = self._core
        with core.lock:
            core.invalid += 1
        core.complaints.add(kind, text)

    def watch(
        self,
        model: torch.nn.Module,
        layers: Mapping[str, torch.nn.Module],
        *,
        every: int = 1,
        views: int = 1,
        stacked: bool = False,
        pool: Optional[Callable[[Any], torch.Tensor]] = None,
    ) -> WatchHandle:
        """Pushes what modules of `model` put out, by forward hooks, while they are in training mode.

        Args:
            model: the model that the modules are part of; nothing is pushed while it is not in training mode.
            layers: layer name to module. A batch norm gives a pair: its input as `pre_bn`, its output as `z`.
            every: push in each `every`-th step, the first one included.
            views: how many views of a sample go through the module in one step, as consecutive forward calls; they are
                pushed together as z1, z2, ...
            stacked: the views come in one forward call instead, one behind the other (`torch.cat([x1, x2])`).
            pool: turns a module's output into N x d. By default N x d stays as it is, N x C x H x W (and N x C x D x
                H x W) is averaged over space, N x T x d over tokens; of a tuple or a mapping the first tensor is
                taken, or `last_hidden_state`.

        Returns:
            A handle with `remove()`, which is also a context manager. Window and step are those of the last `step()`
            call; without one, steps are counted and each is a window of its own.
        """
        return watch(self, self._context, model, layers, (every, views, stacked), pool)

    def step(
        self, *, window: Optional[int] = None, step: Optional[int] = None, loss: Any = None, **parameters: Any
    ) -> None:
        """Begins a training step: what the hooks push from now on belongs to it. `loss` is the newest that is known."""
        self._context.begin(window, step, {"loss": loss, **parameters})

    def close(self, window: int) -> None:
        """Closes a window behind the batches that were pushed so far; returns at once.

        Of several workers, each marks its newest waiting batch of the window as its last; a worker whose batches have
        all left is done when it pushes a later window. `last=True` on the last push says it without delay.
        """
        core = self._core
        if not core.at_home():
            return
        try:
            number = whole("window", window)
        except Invalid as error:
            core.complaints.add(error.kind, str(error))
            return
        if number is None:
            core.complaints.add("malformed", "close needs a window's number")
        elif core.place()[1] > 1:
            core.queue.mark_last(number)
        else:
            core.queue.add(close_of(self._run, number))
            core.start()

    def flush(self, timeout: float = 10.0) -> bool:
        """Waits until what was pushed so far is taken, refused or dropped; at most `timeout` seconds. True if it is."""
        return self._core.at_home() and self._core.wait_until_sent(deadline_in(timeout))

    def finish(self, timeout: float = 10.0) -> bool:
        """Says that the run is over, and waits at most `timeout` seconds for it to be heard. True if it was.

        Open windows close. Of several workers only worker 0 says it; let it come last (a barrier before it), or give
        `last=True` on each worker's last push. May be called again; a push after it reopens the run.
        """
        core = self._core
        if not core.at_home():
            return False
        if core.pushed != self._finished:
            self._finished = core.pushed
            if core.place()[0] == 0:
                core.queue.add(Control("finish", f"/v1/runs/{self._run}/finish"))
                core.start()
        return core.wait_until_sent(deadline_in(timeout))

    def verdict(self, timeout: float = 5.0) -> Optional[dict[str, Any]]:
        """The run's verdict, as `GET /v1/runs/{run}/verdict` answers it; None when there is none to be had.

        Waits for what was pushed before, at most `timeout` seconds in all. Never raises. The report of a window that
        was closed by `last=True` may follow a moment later.
        """
        if not self._core.at_home():
            return None
        deadline = deadline_in(timeout)
        self._core.wait_until_sent(deadline_in(0.8 * timeout))
        left = max(0.1, deadline - deadline_in(0.0))
        connection = Connection(self._address, min(left, self._timeouts[0]), min(left, self._timeouts[1]))
        try:
            response = connection.request("GET", f"/v1/runs/{self._run}/verdict")
            value = json.loads(response.body)
        except (OSError, ProtocolError, ValueError) as error:
            kind = "unreachable" if isinstance(error, OSError) else "not_fullrank"
            self._core.complaints.add(kind, advice(kind, f"{type(error).__name__}: {error}", self._address.host))
            return None
        finally:
            connection.close()
        if response.status == 200 and isinstance(value, dict):
            return value
        if response.status != 404:
            code = value.get("code", response.status) if isinstance(value, dict) else response.status
            self._core.complaints.add(str(code), advice(str(code), "verdict", self._address.host))
        return None

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self.finish()
        else:
            self.flush(2.0)
