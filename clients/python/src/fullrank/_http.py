"""HTTP/1.1 over one kept connection: as little of it, and as cheap for the interpreter's lock, as a push needs.

Guarantees: every wait ends by a timeout; a response is bounded; a body over `EXPECT_ABOVE` is sent only when the
service asks for it (or does not answer the question in time); numbers go from their buffer to the socket without a
copy.
Must not: retry, or know what is in a body.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Sequence
from typing import NamedTuple, Optional, Union
from urllib.parse import quote, urlsplit

from ._version import __version__

EXPECT_ABOVE = 1 << 20
EXPECT_WAIT_S = 1.0
MAX_HEAD_BYTES = 64 << 10
MAX_BODY_BYTES = 64 << 20

Piece = Union[bytes, memoryview]


class ProtocolError(Exception):
    """What came is not HTTP."""


class StaleConnection(OSError):
    """A kept connection was closed by the other side before it answered: worth one more try at once."""


class Response(NamedTuple):
    """An answer, whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    def retry_after(self) -> Optional[float]:
        """Seconds of Retry-After; None without, or for a date."""
        try:
            return max(0.0, float(self.headers["retry-after"]))
        except (KeyError, ValueError):
            return None


class Address(NamedTuple):
    """Where the service is, and how to speak to it."""

    secure: bool
    host: str
    port: int
    prefix: str
    head: bytes  # the headers that every request has
    context: Optional[ssl.SSLContext]


def address_of(url: str, token: Optional[str], context: Optional[ssl.SSLContext]) -> Address:
    """Takes a URL apart. Raises `ValueError` for one that cannot be."""
    parts = urlsplit(url if "://" in url else "http://" + url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no address of a service: it must look like http://127.0.0.1:8417")
    if token is not None and any(ord(c) < 33 or ord(c) > 126 for c in token):
        raise ValueError("the token holds a character that no HTTP header can carry (a line break, perhaps)")
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    lines = [f"Host: {name}:{port}", f"User-Agent: fullrank-python/{__version__}", "Accept: application/json"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    head = "".join(line + "\r\n" for line in lines).encode("ascii")
    if secure and context is None:
        context = ssl.create_default_context()
    return Address(secure, parts.hostname, port, quote(parts.path.rstrip("/"), safe="/%"), head, context)


class Connection:
    """One connection, opened when it is needed. For one thread at a time."""

    def __init__(self, address: Address, connect_timeout: float, timeout: float) -> None:
        self._address = address
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._socket: Optional[socket.socket] = None
        self._read = b""
        self._used = False

    def close(self) -> None:
        """Closes it; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._read, self._used = None, b"", False

    def request(self, method: str, target: str, content_type: str = "", body: Sequence[Piece] = ()) -> Response:
        """Sends and waits for the answer.

        Raises `OSError` (timeouts among them) or `ProtocolError`; the connection is then closed.
        """
        length = sum(len(piece) for piece in body)
        expect = length > EXPECT_ABOVE
        head = self._head(method, target, content_type, length, expect)
        reused = self._used
        try:
            response, keep = self._exchange(head, body, expect)
        except (ConnectionError, StaleConnection) as error:
            self.close()
            if reused:
                raise StaleConnection(str(error)) from error
            raise ConnectionError(str(error)) from error
        except BaseException:
            self.close()
            raise
        if not keep:
            self.close()
        return response

    def _head(self, method: str, target: str, content_type: str, length: int, expect: bool) -> bytes:
        lines = f"{method} {self._address.prefix}{target} HTTP/1.1\r\n"
        if content_type:
            lines += f"Content-Type: {content_type}\r\n"
        if method != "GET":
            lines += f"Content-Length: {length}\r\n"
        if expect:
            lines += "Expect: 100-continue\r\n"
        return lines.encode("ascii") + self._address.head + b"\r\n"

    def _exchange(self, head: bytes, body: Sequence[Piece], expect: bool) -> tuple[Response, bool]:
        sock = self._socket or self._open()
        self._used = True
        if not expect:
            self._send_all(sock, [head, *body])
            return self._response(sock, time.monotonic() + self._timeout)
        self._send_all(sock, [head])
        try:
            status, headers = self._response_head(sock, time.monotonic() + min(EXPECT_WAIT_S, self._timeout))
        except socket.timeout:
            status = 100  # a server that does not know the question waits for the body
        if status != 100:
            deadline = time.monotonic() + self._timeout
            # It may or may not wait for the body now: a new connection is free of the doubt.
            return Response(status, headers, self._body(sock, status, headers, deadline)), False
        self._send_all(sock, list(body))
        return self._response(sock, time.monotonic() + self._timeout)

    def _open(self) -> socket.socket:
        address = self._address
        sock = socket.create_connection((address.host, address.port), self._connect_timeout)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if address.context is not None:
                sock = address.context.wrap_socket(sock, server_hostname=address.host)
            sock.settimeout(self._timeout)
        except BaseException:
            sock.close()
            raise
        self._socket = sock
        return sock

    def _send_all(self, sock: socket.socket, pieces: list[Piece]) -> None:
        try:
            self._send_pieces(sock, pieces)
        except (BrokenPipeError, ConnectionResetError):
            # It may have answered before it hung up: a refusal is worth more than the broken pipe.
            with contextlib.suppress(OSError):
                self._fill(sock, time.monotonic() + 0.2)
            if not self._read.startswith(b"HTTP/1."):
                raise

    def _send_pieces(self, sock: socket.socket, pieces: list[Piece]) -> None:
        if isinstance(sock, ssl.SSLSocket):
            for piece in pieces:
                sock.sendall(piece)
            return
        deadline = time.monotonic() + self._timeout
        views = [memoryview(piece) for piece in pieces]
        while views:
            sent = sock.sendmsg(views)
            while views and sent >= len(views[0]):
                sent -= len(views.pop(0))
            if not views:
                return
            views[0] = views[0][sent:]
            if time.monotonic() > deadline:
                raise socket.timeout("the service takes the body too slowly")

    def _response(self, sock: socket.socket, deadline: float) -> tuple[Response, bool]:
        status = 100
        headers: dict[str, str] = {}
        while 100 <= status < 200:
            status, headers = self._response_head(sock, deadline)
        body = self._body(sock, status, headers, deadline)
        counted = "content-length" in headers or "transfer-encoding" in headers or status in (204, 304)
        keep = counted and headers.get("connection", "").lower() != "close"
        return Response(status, headers, body), keep

    def _response_head(self, sock: socket.socket, deadline: float) -> tuple[int, dict[str, str]]:
        while b"\r\n\r\n" not in self._read:
            if len(self._read) > MAX_HEAD_BYTES:
                raise ProtocolError("a response without an end of its header")
            if self._read and not self._read.startswith(b"HTTP/1."[: len(self._read)]):
                raise ProtocolError(f"the answer begins with {self._read[:24]!r}: this is no HTTP service")
            if not self._fill(sock, deadline):
                if not self._read:
                    raise StaleConnection("the service closed the connection without an answer")
                raise ProtocolError("the answer broke off within its header")
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        words = first.split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not (words[1].isdigit() and len(words[1]) == 3):
            raise ProtocolError(f"the answer begins with {first[:40]!r}: this is no HTTP service")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return int(words[1]), headers

    def _body(self, sock: socket.socket, status: int, headers: dict[str, str], deadline: float) -> bytes:
        if status in (204, 304):
            return b""
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return self._chunks(sock, deadline)
        if "content-length" not in headers:
            while self._fill(sock, deadline):
                _bounded(len(self._read))
            body, self._read = self._read, b""
            return body
        text = headers["content-length"]
        if not text.isdigit():
            raise ProtocolError(f"a Content-Length of {text[:20]!r}")
        return self._exactly(sock, _bounded(int(text)), deadline)

    def _chunks(self, sock: socket.socket, deadline: float) -> bytes:
        body = b""
        while True:
            try:
                size = int(self._line(sock, deadline).split(b";")[0], 16)
            except ValueError as error:
                raise ProtocolError("a chunk without a length") from error
            if size == 0:
                while self._line(sock, deadline):
                    pass
                return body
            _bounded(len(body) + size)
            body += self._exactly(sock, size, deadline)
            self._line(sock, deadline)

    def _line(self, sock: socket.socket, deadline: float) -> bytes:
        while b"\r\n" not in self._read:
            if len(self._read) > MAX_HEAD_BYTES or not self._fill(sock, deadline):
                raise ProtocolError("a chunk broke off")
        line, _, self._read = self._read.partition(b"\r\n")
        return line

    def _exactly(self, sock: socket.socket, size: int, deadline: float) -> bytes:
        while len(self._read) < size:
            if not self._fill(sock, deadline):
                raise ProtocolError("the answer broke off")
        body, self._read = self._read[:size], self._read[size:]
        return body

    def _fill(self, sock: socket.socket, deadline: float) -> bool:
        left = deadline - time.monotonic()
        if left <= 0:
            raise socket.timeout("no answer in time")
        sock.settimeout(left)
        try:
            data = sock.recv(65536)
        finally:
            sock.settimeout(self._timeout)
        self._read += data
        return bool(data)


def _bounded(size: int) -> int:
    if size > MAX_BODY_BYTES:
        raise ProtocolError(f"an answer of {size} bytes")
    return size
