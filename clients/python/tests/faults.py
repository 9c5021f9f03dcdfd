"""A service that fails on purpose, and remembers what it was sent. Runs in threads of the test's process."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from safetensors.numpy import load

LIMITS = {"version": "0.1.0", "max_body_bytes": 256 << 20}


class Request(NamedTuple):
    """What came."""

    method: str
    path: str
    query: dict[str, str]
    headers: Any
    body: bytes

    def tensors(self) -> dict[str, Any]:
        """The body, read by the format's own library."""
        return load(self.body)

    @property
    def is_push(self) -> bool:
        return self.path.endswith("/batches")


class Answer(NamedTuple):
    """What goes back; a status of 0 hangs up without a word."""

    status: int
    body: Any = None
    headers: dict[str, str] = {}


TAKEN = Answer(202, {"duplicate": False})


def problem(status: int, code: str, **headers: str) -> Answer:
    """A refusal as the service writes it."""
    return Answer(status, {"code": code, "detail": f"on purpose: {code}", "status": status}, headers)


class Faulty:
    """A server whose answers to pushes and controls are `answer(request, number)`; `number` counts from 0."""

    def __init__(self, answer: Callable[[Request, int], Answer] | None = None, limits: Any = LIMITS) -> None:
        self.requests: list[Request] = []
        self.answer = answer or (lambda request, number: TAKEN if request.is_push else Answer(200, {}))
        self.limits = limits
        self.gate = threading.Event()  # answers wait for it
        self.gate.set()
        self.connections = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                with outer._lock:
                    outer.connections += 1

            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                self.reply()

            def do_POST(self) -> None:
                self.reply()

            def reply(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                request = Request(self.command, parts.path, dict(parse_qsl(parts.query)), self.headers, body)
                if parts.path == "/v1/limits":
                    answer = outer.limits if isinstance(outer.limits, Answer) else Answer(200, outer.limits)
                else:
                    with outer._lock:
                        number = len(outer.requests)
                        outer.requests.append(request)
                    outer.gate.wait(30)
                    answer = outer.answer(request, number)
                if answer.status == 0:
                    self.close_connection = True
                    return
                raw = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def pushes(self) -> list[Request]:
        with self._lock:
            return [request for request in self.requests if request.is_push]

    @property
    def controls(self) -> list[str]:
        """Paths of closes and finishes."""
        with self._lock:
            return [request.path for request in self.requests if request.method == "POST" and not request.is_push]

    def stop(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()


def until(condition: Callable[[], Any], what: str = "", timeout: float = 20.0) -> Any:
    """Waits for a condition to hold; fails when it does not within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {timeout} s in vain {what}"
        pause.wait(0.005)
