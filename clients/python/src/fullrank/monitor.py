"""The public interface: what a training calls.

Guarantees: `push`, `step`, `close` and the hooks of `watch` return at once and never raise, whatever their arguments
are and whatever the service does. The one exception is `CollapseError`, which is raised only on request.
Must not: wait for the network in `push`, or read a value from a device.
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
from ._push import PushArguments, Pusher, constants
from ._sender import Settings, close_of
from ._warnings import Invalid
from ._watch import Context, WatchHandle, watch

if TYPE_CHECKING:
    import torch

DEFAULT_URL = "http://127.0.0.1:8417"


class CollapseError(RuntimeError):
    """The run has collapsed. `verdict` is the service's verdict."""

    def __init__(self, run: str, verdict: Mapping[str, Any]) -> None:
        self.verdict = dict(verdict)
        super().__init__(
            f"run {run} has collapsed: layer {verdict.get('layer')}, cause {verdict.get('cause')},"
            f" since window {verdict.get('since_window')}"
        )


class Monitor:
    """Watches one run of a training.

    Args:
        url: the service's address, `http://` or `https://`. Default: FULLRANK_URL, else http://127.0.0.1:8417.
        run: the run's name: 1 to 128 characters from `A-Z a-z 0-9 . _ -`. Use a new name for each training.
        method: one of simclr, moco, nnclr, byol, simsiam, swav, dino, barlow, vicreg, triplet, simple, directpred,
            other.
        token: the service's token. Default: FULLRANK_TOKEN.
        every: send every `every`-th push of a layer. Pushes with `last=True` are always sent.
        max_rows: send at most this many rows per push: a random subset, the same in all views and row-wise tensors.
        seed: seed of that subset.
        moments: send count, mean and second moment of `z` (f64, computed in the sender thread) instead of its rows.
            This takes fewer bytes if N is larger than d. Measures that need pairs of views are not available then.
        queue_bytes: size limit of the queue. Beyond it, the oldest batches are dropped and counted.
        worker, workers: which distributed process this is, and of how many. Default: taken at the first push from
            torch.distributed, RANK and WORLD_SIZE, or SLURM_PROCID and SLURM_NTASKS.
        raise_on_collapse: make `push` raise `CollapseError` once the service has declared the run collapsed.
        poll_seconds: how often to poll the verdict for that, in seconds.
        connect_timeout: seconds to wait for a connection.
        timeout: seconds for sending a request, and again for receiving its answer.
        ssl_context: for https with your own certificate.
        parameters: parameters that every push of this run carries: temperature=0.1, queue_size=65536, ...

    Raises:
        ValueError: for a name, method, address or parameter that can never work. No later call raises it.
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
            raise ValueError(f"run is {run!r}: expected 1 to 128 characters from A-Z a-z 0-9 . _ -")
        if method is not None and method not in METHODS:
            raise ValueError(f"method is {method!r}: expected one of: {', '.join(METHODS)}")
        for name, value in (("every", every), ("queue_bytes", queue_bytes), ("max_rows", max_rows)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: it must be at least 1")
        if (worker is None) != (workers is None) or (worker is not None and not 0 <= worker < (workers or 0)):
            raise ValueError(f"worker is {worker} and workers is {workers}: set both, with 0 <= worker < workers")
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
        """What has become of the pushes so far."""
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
        """Queues one batch and returns at once. Never waits for the service and never raises.

        The tensors are copied before it returns. It accepts numpy arrays and torch tensors on any device. f64, f32, f16
        and bf16 are sent unchanged; tensors that require grad are detached; CUDA tensors are fetched on a side stream.

        Args:
            layer: the layer's name, 1 to 128 characters from `A-Z a-z 0-9 . _ -`.
            window: number of the window, such as the epoch: rows with the same number are measured together. Without
                it this push is a window of its own, numbered by `step`, else by arrival.
            step: the training's step counter.
            loss: a number or a tensor of one element. Left out if it is not finite.
            last: whether this is the worker's last batch of the window.
            max_rows, moments: override the Monitor's for this push.
            named: tensors by name, and parameters.
                Rows, N x d: `z`; or `z1`, `z2`, ... (views: row i of each is the same sample); `teacher1`...,
                `prediction1`..., `pre_bn`. Per row: `negative1`..., `logits1`..., `teacher_logits1`..., `codes1`... (N
                x k), `ids`, `labels`, `neighbors` (N integers). Others: `edges` (E x 2), `center` (K),
                `prototype_weight` (K x d), `predictor_weight` (d x d). Or moments instead of z: `count`, `mean` (d),
                `m2` (d x d or packed), `unit_mean`, `unit_variance`.
                Parameters: temperature, queue_size, lambda_, ...; docs/api.md lists them.

        Raises:
            CollapseError: only with `raise_on_collapse=True`, once the service has declared the run collapsed.
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
            self._pusher.push(PushArguments(layer, window, step, last, max_rows, moments), named)
        except Invalid as error:
            self._invalid(error.kind, str(error))
        except Exception as error:  # no argument may stop the training
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
        """Pushes the outputs of modules of `model`, by forward hooks, while they are in training mode.

        Args:
            model: the model that contains the modules. Nothing is pushed unless it is in training mode.
            layers: layer name to module. A batch norm gives a pair: its input as `pre_bn`, its output as `z`.
            every: push in every `every`-th step, starting with the first.
            views: how many views of a sample go through the module in one step, as consecutive forward calls. They are
                pushed together as z1, z2, ...
            stacked: the views go through in a single forward call instead, concatenated (`torch.cat([x1, x2])`).
            pool: turns a module's output into N x d. By default N x d is unchanged, N x C x H x W (and N x C x D x H x
                W) is averaged over space, and N x T x d over tokens. From a tuple or a mapping, the first tensor or
                `last_hidden_state` is used.

        Returns:
            A handle with `remove()`, which is also a context manager. Window and step come from the last `step()` call.
            Without one, steps are counted and each is a window of its own.
        """
        return watch(self, self._context, model, layers, (every, views, stacked), pool)

    def step(
        self, *, window: Optional[int] = None, step: Optional[int] = None, loss: Any = None, **parameters: Any
    ) -> None:
        """Starts a training step: the hooks' next pushes belong to it. `loss` is the latest known loss."""
        self._context.begin(window, step, {"loss": loss, **parameters})

    def close(self, window: int) -> None:
        """Closes a window after the batches pushed so far. Returns at once.

        With several workers, each marks its newest queued batch of the window as its last. A worker whose batches have
        all been sent counts as done once it pushes a later window. `last=True` on the last push avoids that delay.
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
            core.complaints.add("malformed", "close: window is None: expected a whole number")
        elif core.place()[1] > 1:
            core.queue.mark_last(number)
        else:
            core.queue.add(close_of(self._run, number))
            core.start()

    def flush(self, timeout: float = 10.0) -> bool:
        """Waits at most `timeout` seconds until every push so far is accepted, refused or dropped. True if so."""
        return self._core.at_home() and self._core.wait_until_sent(deadline_in(timeout))

    def finish(self, timeout: float = 10.0) -> bool:
        """Reports that the run is over, and waits at most `timeout` seconds for the answer. True if it came.

        Open windows close. With several workers only worker 0 reports it: put a barrier before this call, or set
        `last=True` on each worker's last push. May be called again. A later push reopens the run.
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
        """The run's verdict, as `GET /v1/runs/{run}/verdict` returns it, or None if there is none.

        First waits for earlier pushes; takes at most `timeout` seconds in all. Never raises. The report of a window
        closed by `last=True` may take a moment longer.
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
