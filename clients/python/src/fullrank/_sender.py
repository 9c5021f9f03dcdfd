"""The sender thread: sends one item at a time, in order, and retries until it is accepted or refused.

Guarantees: a batch counts once (session and seq); waits between tries grow, have jitter, honour Retry-After, and never
spin; no exception leaves the thread. The `last` of a refused batch is still delivered if one of its rows can be.
Must not: hold the queue's lock while sending, or touch the trainer's tensors.
"""

from __future__ import annotations

import json
import random
import threading
import time
from typing import Any, NamedTuple, Optional
from urllib.parse import quote

from . import _rescue
from ._advice import advice
from ._buffer import Batch, Control
from ._encode import CONTENT_TYPE, encode
from ._http import Address, Connection, ProtocolError, Response, StaleConnection
from ._parameters import extras
from ._queue import Item, SendQueue
from ._version import __version__
from ._warnings import Complaints

API_MAJOR = 0  # of the service's version
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 30.0
LONGEST_RETRY_AFTER_S = 120.0
TRIES_OF_A_FAULT = 5
TRIES_WHEN_STOPPED = 3  # once the Monitor is gone
# Statuses worth a retry.
PASSING = {408, 429, 500, 502, 503, 504, 507}


class Settings(NamedTuple):
    """What does not change during the sender's life."""

    address: Address
    run: str
    session: int
    connect_timeout: float
    timeout: float
    poll_verdict_every: Optional[float]


class TryLater(Exception):
    """The request has to be retried, no sooner than after `after` seconds."""

    def __init__(self, kind: str, text: str, after: Optional[float] = None) -> None:
        super().__init__(text)
        self.kind = kind
        self.after = after


class Counts:
    """What the sender has done: plain integers that only it writes."""

    def __init__(self) -> None:
        self.sent = self.sent_rows = self.sent_bytes = self.duplicates = self.refused = self.retries = 0
        self.thinned = 0
        self.refusals: dict[str, int] = {}


class Sender:
    """See the module docstring. `run` is the thread's body."""

    def __init__(self, settings: Settings, queue: SendQueue, complaints: Complaints) -> None:
        self.counts = Counts()
        self.verdict: Optional[dict[str, Any]] = None  # the last one polled
        self.abort = threading.Event()
        self.worker, self.workers = 0, 1  # set by the first push
        self._settings = settings
        self._queue = queue
        self._complaints = complaints
        self._connection = Connection(settings.address, settings.connect_timeout, settings.timeout)
        self._limits: Optional[dict[str, Any]] = None
        self._seqs: dict[str, int] = {}
        self._polled = 0.0
        self._running = threading.Lock()  # held for good by the thread that sends

    def run(self) -> None:
        """Sends until the queue is stopped and empty."""
        if not self._running.acquire(blocking=False):
            return  # an interrupt in the middle of `Core.start` led to a second thread
        while not self.abort.is_set():
            item = self._queue.take(self._settings.poll_verdict_every)
            if item is None and self._queue.stopped:
                break
            try:
                if item is not None:
                    self._deliver(item)
                self._poll()
            except Exception as error:  # a bug in this package costs the batch, not the training
                self.counts.refused += isinstance(item, Batch)
                self._complaints.add("internal", f"a batch could not be sent: {type(error).__name__}: {error}")
                self._connection.close()
            finally:
                if item is not None:
                    self._queue.done(item)
        self._connection.close()

    # -- one item

    def _deliver(self, item: Item) -> None:
        tries = 0
        while not self.abort.is_set():
            try:
                self._greet()
                if isinstance(item, Batch):
                    self._push(item, tries)
                else:
                    self._control(item)
                return
            except StaleConnection:
                tries += 1
                self._limits = None
                if tries == 1:
                    continue
                self._wait(tries, None)
            except TryLater as refusal:
                tries += 1
                self._complaints.add(refusal.kind, str(refusal))
                self._wait(tries, refusal.after)
            except (OSError, ProtocolError) as error:
                tries += 1
                self._limits = None
                kind = "unreachable" if isinstance(error, OSError) else "not_fullrank"
                self._complaints.add(kind, advice(kind, f"{type(error).__name__}: {error}", self._where()))
                self._wait(tries, None)

    def _wait(self, tries: int, after: Optional[float]) -> None:
        self.counts.retries += 1
        if self._queue.stopped and tries >= TRIES_WHEN_STOPPED:
            self.abort.set()
        wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(tries - 1, 20)) * random.uniform(0.5, 1.0)
        if after is not None:
            wait = max(wait, min(after, LONGEST_RETRY_AFTER_S) * random.uniform(1.0, 1.1))
        self.abort.wait(wait)

    def _greet(self) -> None:
        """Reads the limits before the first batch, and again after trouble: only the service itself gets batches."""
        if self._limits is not None:
            return
        response = self._connection.request("GET", "/v1/limits")
        if response.status != 200:
            raise self._try_later(response)
        limits = _json(response)
        version = limits.get("version") if limits else None
        if not isinstance(version, str):
            raise TryLater("not_fullrank", advice("not_fullrank", "/v1/limits has no version", self._where()))
        if version.split(".")[0] != str(API_MAJOR):
            self._complaints.add("version", advice("version", f"{version}, client {__version__}", self._where()))
        self._limits = limits

    def _push(self, batch: Batch, tries: int) -> None:
        if batch.event is not None:
            batch.event.synchronize()
            batch.event = None
        if batch.seq is None:
            batch.seq = self._seqs.get(batch.layer, 0)
            self._seqs[batch.layer] = batch.seq + 1
        if batch.encoded is None:
            batch.encoded = encode(batch, self._complaints)
            self._fit(batch)
        response = self._connection.request("POST", self._target(batch), CONTENT_TYPE, batch.encoded.pieces)
        if response.status in (200, 202):
            self._accepted(batch, response)
            return
        code = _code(response)
        if response.status in PASSING and not (code in ("internal", "too_many_streams") and tries >= TRIES_OF_A_FAULT):
            raise self._try_later(response)
        if not code or response.status in (401, 403):
            self._limits = None
            raise self._try_later(response)
        self._refuse(batch, code, response)

    def _target(self, batch: Batch) -> str:
        query = f"session={self._settings.session}&seq={batch.seq}"
        if self.workers > 1:
            query += f"&worker={self.worker}&workers={self.workers}"
        if batch.window is not None:
            query += f"&window={batch.window}"
        if batch.last:
            query += "&last=true"
        if batch.encoded.parameters:
            query += "&" + batch.encoded.parameters
        return f"/v1/runs/{self._settings.run}/layers/{batch.layer}/batches?{query}"

    def _fit(self, batch: Batch) -> None:
        """Cuts a batch that exceeds the service's limit for a body to as many rows as fit."""
        limit = (self._limits or {}).get("max_body_bytes")
        if not isinstance(limit, int) or batch.encoded.nbytes <= limit or not batch.has_rows or batch.moments:
            return
        rows = _rescue.rows_that_fit(batch, batch.encoded.nbytes, limit)
        if rows == 0:
            return  # the service refuses it and says why
        detail = f"{batch.rows} rows to {rows}, {batch.encoded.nbytes} bytes to fit {limit}"
        self._complaints.add("too_large", advice("cut", detail, self._where()))
        self.counts.thinned += 1
        _rescue.cut(batch, rows)
        batch.encoded = encode(batch, self._complaints)

    def _accepted(self, batch: Batch, response: Response) -> None:
        self.counts.sent += 1
        self.counts.sent_rows += batch.rows
        self.counts.sent_bytes += batch.encoded.nbytes
        if b'"duplicate":true' in response.body or b'"duplicate": true' in response.body:
            self.counts.duplicates += 1

    def _refuse(self, batch: Batch, code: str, response: Response) -> None:
        unknown = extras(batch.parameters)
        if code == "malformed" and unknown:
            # Most likely a misspelt parameter. Its rows must not be lost with it.
            self._complaints.add("unknown_parameter", advice("unknown_parameter", _detail(response), self._where()))
            for name in unknown:
                del batch.parameters[name]
            batch.encoded = None
            self._deliver(batch)
            return
        counts = self.counts
        counts.refused += 1
        counts.refusals[code] = counts.refusals.get(code, 0) + 1
        self._complaints.add(code, advice(code, f"layer {batch.layer}: {_detail(response)}", self._where()))
        if not batch.last or batch.window is None or code == "window_closed":
            return
        if not batch.thinned and code in ("not_finite", "too_large") and _rescue.cut_to_a_usable_row(batch):
            self._deliver(batch)  # a refused batch leaves its seq free
        elif self.workers == 1 and set(self._seqs) == {batch.layer}:
            # No other worker or layer has rows for this window: closing it does what `last` would have done.
            self._deliver(close_of(self._settings.run, batch.window))

    def _control(self, control: Control) -> None:
        response = self._connection.request("POST", control.target)
        if response.status == 200:
            return
        code = _code(response)
        if code == "not_found":
            return  # none of its batches arrived
        if code and response.status not in PASSING and response.status not in (401, 403):
            self._complaints.add(code, advice(code, f"{control.kind}: {_detail(response)}", self._where()))
            return
        self._limits = None
        raise self._try_later(response)

    # -- answers

    def _try_later(self, response: Response) -> TryLater:
        code = _code(response)
        if not code:
            kind = "unavailable" if response.status in PASSING else "not_fullrank"
            text = f"HTTP {response.status} without a fullrank error"
            return TryLater(kind, advice(kind, text, self._where()), response.retry_after)
        return TryLater(code, advice(code, _detail(response), self._where()), response.retry_after)

    def _where(self) -> str:
        address = self._settings.address
        return f"{'https' if address.secure else 'http'}://{address.host}:{address.port}{address.prefix}"

    def _poll(self) -> None:
        """Fetches the verdict if it is due, for `raise_on_collapse`."""
        every = self._settings.poll_verdict_every
        if every is None or not self.counts.sent or time.monotonic() - self._polled < every:
            return
        self._polled = time.monotonic()
        try:
            response = self._connection.request("GET", f"/v1/runs/{quote(self._settings.run)}/verdict")
        except (OSError, ProtocolError):
            return  # the next batch runs into it, too, and reports it
        self.verdict = (_json(response) if response.status == 200 else None) or self.verdict


def close_of(run: str, window: int) -> Control:
    """The request that closes a window."""
    return Control("close", f"/v1/runs/{run}/windows/{window}/close", window)


def _json(response: Response) -> dict[str, Any]:
    try:
        value = json.loads(response.body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _code(response: Response) -> str:
    code = _json(response).get("code")
    return code if isinstance(code, str) else ""


def _detail(response: Response) -> str:
    return str(_json(response).get("detail", ""))[:500]
