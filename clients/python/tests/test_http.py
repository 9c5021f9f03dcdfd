"""One request over one connection: deadlines, bounds, copies, and answers that come early or oddly."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from faults import until

from fullrank import _http

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
def serve() -> Iterator[Callable[..., _http.Connection]]:
    """Starts a server that treats each of its connections with `handle`, and returns a client of it."""
    listeners: list[socket.socket] = []

    def start(handle: Callable[[socket.socket], None], timeout: float = 5.0) -> _http.Connection:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):  # the client may give up
                    handle(connection)

        threading.Thread(target=accept, daemon=True).start()
        address = _http.address_of(f"http://127.0.0.1:{listener.getsockname()[1]}", None, None)
        return _http.Connection(address, 3.0, timeout)

    yield start
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize(
    ("start", "rest"),
    [
        (b"", b"H" * 100),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 100),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b"x" * 100),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 20),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 100),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 4),
    ],
)
def test_an_answer_that_trickles_ends_by_the_deadline(start, rest, serve):
    def trickle(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(start)
        for byte in rest:
            connection.sendall(bytes([byte]))
            time.sleep(0.1)

    client = serve(trickle, timeout=0.5)
    begun = time.monotonic()
    with pytest.raises(socket.timeout):
        client.request("GET", "/")
    assert 0.4 < time.monotonic() - begun < 3


def test_a_body_that_is_read_slowly_ends_by_the_deadline(serve):
    def sip(connection: socket.socket) -> None:
        while connection.recv(100_000):
            time.sleep(0.02)

    client = serve(sip, timeout=0.5)
    piece = memoryview(bytes(64 << 10))  # no single piece takes long
    begun = time.monotonic()
    with pytest.raises(socket.timeout):
        client.request("POST", "/", "application/octet-stream", [piece] * 1000)
    assert 0.4 < time.monotonic() - begun < 3


def test_a_body_is_sent_without_a_copy(monitors, serve):
    """From the buffer that push filled to the socket, however large the batch."""
    received = []
    room = bytearray(1 << 16)

    def sink(connection: socket.socket) -> None:
        for length in (None, 32 << 20, 32 << 20):
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(1)
            left = int(head.lower().split(b"content-length:")[1].split()[0]) if length else 0
            received.append(left)
            while left > 0:
                left -= connection.recv_into(room, min(left, len(room)))
            body = b'{"version": "0.1.0"}' if length is None else b"{}"
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    address = serve(sink)._address
    monitor = monitors(f"http://{address.host}:{address.port}")
    rows = np.zeros((8192, 512))
    monitor.push(layer="z", z=rows)  # allocates the buffer that the next push uses
    assert monitor.flush()
    tracemalloc.start()
    try:
        monitor.push(layer="z", z=rows)
        assert monitor.flush()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert received[2] > rows.nbytes == 32 << 20
    assert monitor.stats.sent == 2
    assert peak < 1 << 20


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001,
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 1001,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001,
        b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 1001,
    ],
)
def test_an_answer_is_bounded(answer, serve, monkeypatch):
    monkeypatch.setattr(_http, "MAX_ANSWER_BYTES", 1000)

    def flood(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)

    with pytest.raises(_http.ProtocolError):
        serve(flood).request("GET", "/")


@pytest.mark.parametrize("hangs_up", [True, False], ids=["hangs up", "waits"])
def test_a_refusal_before_the_body_was_read_is_seen(hangs_up, serve):
    done = threading.Event()

    def refuse(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b'HTTP/1.1 413 No\r\nContent-Length: 21\r\n\r\n{"code": "too_large"}')
        if not hangs_up:
            done.wait(20)

    client = serve(refuse, timeout=0.5)
    response = client.request("POST", "/", "application/octet-stream", [memoryview(bytes(64 << 20))])
    assert (response.status, response.body) == (413, b'{"code": "too_large"}')
    assert client._http.sock is None  # part of the body is missing
    done.set()


def test_a_connection_that_breaks_without_an_answer(serve):
    def break_off(connection: socket.socket) -> None:
        connection.recv(100)

    client = serve(break_off)
    with pytest.raises(ConnectionError):
        client.request("POST", "/", "application/octet-stream", [memoryview(bytes(64 << 20))])


@pytest.mark.parametrize("keep", [b"", b"Connection: close\r\n"])
def test_interim_answers_are_skipped_and_the_connection_is_kept(keep, serve):
    connections = []

    def answer(connection: socket.socket) -> None:
        connections.append(connection)
        while connection.recv(65536):
            interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
            connection.sendall(interim + OK.replace(b"\r\n\r\n", b"\r\n" + keep + b"\r\n"))
            if keep:
                return

    client = serve(answer)
    for _ in range(3):
        assert client.request("GET", "/") == _http.Response(200, None, b"{}")
    assert len(connections) == (3 if keep else 1)


def test_a_kept_connection_that_was_closed_is_stale(serve):
    closed = []

    def answer_once(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(OK)
        connection.shutdown(socket.SHUT_RDWR)
        closed.append(True)

    client = serve(answer_once)
    assert client.request("GET", "/").status == 200
    until(lambda: closed)
    with pytest.raises(_http.StaleConnection):
        client.request("POST", "/", "application/octet-stream", [bytes(100)])
    assert client.request("GET", "/").status == 200


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("Wed, 21 Oct 2015 07:28:00 GMT", None), ("", None)],
)
def test_retry_after(value, seconds, serve):
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(OK.replace(b"\r\n\r\n", f"\r\nRetry-After: {value}\r\n\r\n".encode()))

    assert serve(answer).request("GET", "/").retry_after == seconds
