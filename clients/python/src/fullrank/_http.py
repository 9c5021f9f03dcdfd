"""HTTP/1.1 over one kept connection: `http.client` connects and reads the answers.

A request is written here and sent in one call with its body. `putrequest` and separate sends would take noticeably more
CPU time away from the training.

Guarantees: connecting, sending and receiving each end by a timeout, however slowly the other side goes; an answer is
bounded; a body goes from its buffers to the socket without a copy.
Must not: retry, or know what is in a body.
"""

from __future__ import annotations

import io
import re
import socket
import ssl
import time
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, NamedTuple, Optional, Union
from urllib.parse import quote, urlsplit

from ._version import __version__

MAX_ANSWER_BYTES = 64 << 20
# How long to look for an answer that explains a connection which broke while the body was sent.
EARLY_ANSWER_WAIT_S = 0.2

BytesLike = Union[bytes, memoryview]


class ProtocolError(Exception):
    """What came is not HTTP."""


class StaleConnection(OSError):
    """A kept connection was closed by the other side before it answered: worth one more try at once."""


class Response(NamedTuple):
    """A complete answer."""

    status: int
    retry_after: Optional[float]  # seconds; None without the header, or if it holds a date
    body: bytes


class Address(NamedTuple):
    """Where the service is, and how to speak to it."""

    secure: bool
    host: str
    port: int
    prefix: str
    headers: str  # of every request
    context: Optional[ssl.SSLContext]


def address_of(url: str, token: Optional[str], context: Optional[ssl.SSLContext]) -> Address:
    """Parses a URL. Raises `ValueError` for one that is not a service address."""
    parts = urlsplit(url if "://" in url else "http://" + url)
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\x00-\x20\x7f]", parts.hostname):
        raise ValueError(f"{url!r} is not a service address: expected something like http://127.0.0.1:8417")
    if token is not None and any(ord(c) < 33 or ord(c) > 126 for c in token):
        raise ValueError("the token contains a character that an HTTP header cannot carry, such as a line break")
    secure = parts.scheme == "https"
    if secure and context is None:
        context = ssl.create_default_context()
    host, port = parts.hostname, parts.port or (443 if secure else 80)
    name = f"[{host}]" if ":" in host else host.encode("idna").decode()
    headers = f"Host: {name}:{port}\r\nUser-Agent: fullrank-python/{__version__}\r\nAccept: application/json\r\n"
    if token:
        headers += f"Authorization: Bearer {token}\r\n"
    return Address(secure, host, port, quote(parts.path.rstrip("/"), safe="/%"), headers, context)


class Connection:
    """One connection, opened when it is needed. For one thread at a time."""

    def __init__(self, address: Address, connect_timeout: float, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        if address.secure:
            self._http: HTTPConnection = HTTPSConnection(
                address.host, address.port, timeout=connect_timeout, context=address.context
            )
        else:
            self._http = HTTPConnection(address.host, address.port, timeout=connect_timeout)

    def close(self) -> None:
        """Closes it; the next request opens another."""
        self._http.close()

    def request(self, method: str, target: str, content_type: str = "", body: Sequence[BytesLike] = ()) -> Response:
        """Sends and waits for the answer.

        Raises `OSError` (timeouts included) or `ProtocolError`; the connection is then closed.
        """
        reused = self._http.sock is not None
        try:
            try:
                self._send(method, target, content_type, body)
            except (ConnectionError, socket.timeout) as error:
                return self._early_answer(error)
            return self._answer(self._timeout)
        except ConnectionError as error:
            self.close()
            if reused:
                raise StaleConnection(str(error)) from error
            raise
        except HTTPException as error:
            self.close()
            raise ProtocolError(f"not an HTTP answer: {type(error).__name__}: {str(error)[:80]!r}") from error
        except BaseException:
            self.close()
            raise

    def _send(self, method: str, target: str, content_type: str, body: Sequence[BytesLike]) -> None:
        if self._http.sock is None:
            self._http.connect()
        head = f"{method} {self._address.prefix}{target} HTTP/1.1\r\n{self._address.headers}"
        if content_type:
            head += f"Content-Type: {content_type}\r\n"
        if method != "GET":
            head += f"Content-Length: {sum(len(piece) for piece in body)}\r\n"
        pieces = [memoryview(piece) for piece in (f"{head}\r\n".encode("ascii"), *body)]
        sock, deadline = self._http.sock, time.monotonic() + self._timeout
        if not self._address.secure and hasattr(sock, "sendmsg"):
            # In one call if possible: each one may wake the receiver, which may share the trainer's cores.
            _set_timeout(sock, deadline)
            sent = sock.sendmsg(pieces)
            while pieces and sent >= len(pieces[0]):
                sent -= len(pieces.pop(0))
            if pieces:
                pieces[0] = pieces[0][sent:]
        for piece in pieces:
            _set_timeout(sock, deadline)
            sock.sendall(piece)

    def _early_answer(self, error: OSError) -> Response:
        """The answer that came before the whole body was sent, or the `error` that ended the sending."""
        if self._http.sock is None:
            raise error
        try:
            return self._answer(EARLY_ANSWER_WAIT_S)
        except (OSError, HTTPException):
            raise error from None
        finally:
            self.close()  # part of the body may not have been sent

    def _answer(self, timeout: float) -> Response:
        self._http.sock.settimeout(timeout)
        with _Answer(self._http.sock) as answer:
            answer.begin()
            response = Response(answer.status, _seconds(answer.getheader("retry-after")), _body(answer))
        if answer.will_close:
            self.close()
        return response


class _Answer(HTTPResponse):
    """An answer that must be complete within its socket's timeout."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(_Received(sock))  # type: ignore[arg-type]

    def begin(self) -> None:
        """Reads up to the body. Skips every 1xx; `http.client` by itself skips 100 only."""
        super().begin()
        while 100 <= self.status < 200:
            self.headers = None  # type: ignore[assignment]
            super().begin()


class _Received(io.RawIOBase):
    """What a socket receives until a deadline, bounded. Takes the place of the socket in `HTTPResponse`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._deadline = time.monotonic() + (sock.gettimeout() or 0.0)
        self._room = MAX_ANSWER_BYTES

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        _set_timeout(self._sock, self._deadline)
        size = self._sock.recv_into(buffer)
        self._room -= size
        if self._room < 0:
            raise ProtocolError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
        return size


def _set_timeout(sock: socket.socket, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise socket.timeout("timed out")
    sock.settimeout(left)


def _body(answer: HTTPResponse) -> bytes:
    if answer.length is None:  # chunked, or until the connection closes
        return b"".join(iter(lambda: answer.read(65536), b""))
    if answer.length > MAX_ANSWER_BYTES:
        raise ProtocolError(f"an answer of {answer.length} bytes")
    return answer.read()


def _seconds(retry_after: Optional[str]) -> Optional[float]:
    try:
        return max(0.0, float(retry_after or ""))
    except ValueError:
        return None
