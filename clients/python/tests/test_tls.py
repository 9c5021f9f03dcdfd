"""https through the standard library."""

from __future__ import annotations

import ssl

import numpy as np
import trustme
from faults import Faulty, until


def secured(server: Faulty, authority: trustme.CA) -> str:
    """Puts TLS around a server; returns its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server._server.socket = context.wrap_socket(server._server.socket, server_side=True, do_handshake_on_connect=False)
    return server.url.replace("http://", "https://")


def test_batches_small_and_large(faulty, monitors):
    authority, server = trustme.CA(), faulty()
    url = secured(server, authority)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    monitor = monitors(url, ssl_context=context)
    large = np.random.default_rng(0).standard_normal((4096, 128))
    for rows in (large[:4], large, large[:5]):
        monitor.push(layer="z", z=rows)
    assert monitor.flush(30)
    assert [len(push.tensors()["z"]) for push in server.pushes] == [4, 4096, 5]
    assert np.array_equal(server.pushes[1].tensors()["z"], large)
    assert server.connections == 1


def test_a_certificate_of_nobody_is_not_trusted(faulty, monitors):
    server = faulty()
    monitor = monitors(secured(server, trustme.CA()))
    monitor.push(layer="z", z=np.eye(2))
    until(lambda: monitor.stats.retries >= 2)
    assert set(monitor.stats.warnings) == {"unreachable"}
    assert server.requests == []


def test_plain_http_where_tls_is_spoken(faulty, monitors):
    server = faulty()
    url = secured(server, trustme.CA()).replace("https://", "http://")
    monitor = monitors(url, timeout=1.0)
    monitor.push(layer="z", z=np.eye(2))
    until(lambda: monitor.stats.retries >= 1)
    assert server.requests == []
