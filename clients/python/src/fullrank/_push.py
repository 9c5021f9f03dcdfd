"""What `Monitor.push` does: check, reserve memory, copy, queue.

Guarantees: returns without waiting; raises `Invalid` for a user's mistake; an unused buffer goes back to the pool.
Must not: know HTTP.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

import numpy as np

from ._buffer import Batch, Buffer
from ._core import Core
from ._names import NAME
from ._parameters import Named, extras, sort_out, texts, whole
from ._plan import Plan, Plans, planned
from ._staging import stage
from ._tensors import sources
from ._warnings import Complaints, Invalid


class PushArguments(NamedTuple):
    """The arguments of a push that have a parameter of their own."""

    layer: str
    window: Any
    step: Any
    last: bool
    max_rows: Optional[int]
    moments: Optional[bool]


class Pusher:
    """See the module docstring. Each Monitor has one."""

    def __init__(
        self, core: Core, defaults: dict[str, Any], every: int, max_rows: Optional[int], moments: bool, seed: int
    ) -> None:
        self._core = core
        self._defaults = defaults
        self._every = every
        self._max_rows = max_rows
        self._moments = moments
        self._rng = np.random.default_rng(seed)
        self._calls: dict[str, int] = {}
        self._plans = Plans()

    def push(self, arguments: PushArguments, keywords: dict[str, Any]) -> None:
        """Copies and queues one batch, unless `every` skips it."""
        layer, window, step, last, max_rows, moments = arguments
        if not self._due(layer, last):
            return
        core = self._core
        window, step, named = whole("window", window), whole("step", step), sort_out(keywords)
        if core.place()[1] > 1 and window is None:
            if step is None:
                raise Invalid("malformed", "a push from one of several workers needs window= or step=")
            window, last = step, True
        plan = self._plans.plan(named.tensors, self._max_rows if max_rows is None else max_rows)
        batch = Batch(layer, window, last, {**self._defaults, **named.numbers})
        if step is not None:
            batch.parameters["step"] = step
        batch.moments = (self._moments if moments is None else moments) and not plan.pushed_moments
        buffer = core.queue.reserve(plan.nbytes + 8 * len(named.waiting), plan.pinned or bool(named.waiting))
        if buffer is None:
            self._too_much(batch, plan, named)
            return
        try:
            batch.buffer = buffer
            self._stage(batch, plan, named)
        except BaseException:
            core.queue.unreserve(buffer)
            raise
        core.queue.put(batch)
        core.start()

    def _due(self, layer: str, last: bool) -> bool:
        """Whether `every` lets this push through. Raises `Invalid` for a bad layer name."""
        if layer not in self._calls and (not NAME.fullmatch(layer) or layer in (".", "..")):
            raise Invalid("layer", f"layer is {layer!r}: expected 1 to 128 characters from A-Z a-z 0-9 . _ -")
        if self._every == 1:
            self._calls[layer] = 1
            return True
        core = self._core
        with core.lock:
            calls = self._calls.get(layer, 0)
            self._calls[layer] = calls + 1
            due = last or calls % self._every == 0
            core.skipped += not due
        return due

    def _stage(self, batch: Batch, plan: Plan, named: Named) -> None:
        batch.parts = plan.parts
        batch.rows = batch.full = plan.samples
        if plan.keep is not None:
            with self._core.lock:
                batch.index = np.sort(self._rng.choice(plan.samples, plan.keep, replace=False))
            batch.rows = plan.keep
        stage(batch, plan, named.tensors, named.waiting)

    def _too_much(self, batch: Batch, plan: Plan, named: Named) -> None:
        """Drops a batch that does not fit the queue. If it has `last`, one row is sent to carry it."""
        core = self._core
        lost = plan.samples
        if batch.last and batch.window is not None and any(part.role for part in plan.parts):
            rows = {part.name: named.tensors[part.name] for part in plan.parts if part.row_wise}
            small = planned(sources(rows), 1)
            batch.buffer = Buffer(small.nbytes + 8 * len(named.waiting), small.pinned)
            batch.thinned = True
            self._stage(batch, small, named)
            lost -= 1
            core.queue.add_small(batch)
            core.start()
        with core.lock:
            core.lost += not batch.thinned
            core.lost_rows += lost
        need, bound = plan.nbytes, core.queue.bound
        text = f"a batch of {need} bytes does not fit queue_bytes={bound}: raise queue_bytes, or set max_rows="
        core.complaints.add("queue_bytes", text)


def constants(run: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters that every push carries. Raises `ValueError` for a bad one."""
    try:
        named = sort_out(parameters)
    except Invalid as error:
        raise ValueError(str(error)) from None
    complaints = Complaints(run, quiet=True)
    texts(named.numbers, complaints)
    unknown = [*named.tensors, *named.waiting, *extras(named.numbers)]
    if unknown or complaints.counts():
        raise ValueError(f"a Monitor does not accept one of these parameters, or its value: {parameters}")
    return named.numbers
