"""Services that fail: push never waits, nothing is lost that need not be, and the sender does not spin."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time

import numpy as np
import pytest
import torch
from conftest import Service
from faults import LIMITS, TAKEN, Answer, Faulty, problem, until

from fullrank import _sender

ROWS = np.random.default_rng(0).standard_normal((16, 8))


def impatient(monitor) -> list[float]:
    """Cuts the sender's waits to nothing; they are noted instead. To be called before the first push."""
    seen: list[float] = []
    monitor._core.sender.abort.wait = seen.append
    return seen


def first_then(first: list[Answer], then: Answer = TAKEN):
    """Answers of pushes, one after the other."""
    return lambda request, number: first[number] if number < len(first) else then


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 507])
def test_an_answer_that_may_pass_is_tried_again(status, faulty, monitors):
    server: Faulty = faulty(first_then([problem(status, "overloaded"), Answer(status, b"<html>")]))
    monitor = monitors(server.url)
    impatient(monitor)
    monitor.push(layer="z", z=ROWS, window=3)
    assert monitor.flush()
    assert [push.query["seq"] for push in server.pushes] == ["0", "0", "0"]
    assert len({push.body for push in server.pushes}) == 1
    assert (monitor.stats.sent, monitor.stats.retries, monitor.stats.refused) == (1, 2, 0)


def test_retry_after_is_heeded_and_waits_grow_with_jitter(faulty, monitors):
    answers = [problem(503, "draining", Retry_After="7")] * 2 + [problem(429, "overloaded")] * 12
    server = faulty(first_then(answers))
    monitor = monitors(server.url)
    waits = impatient(monitor)
    monitor.push(layer="z", z=ROWS)
    assert monitor.flush()
    told, own = waits[:2], waits[2:]
    assert all(7.0 <= wait <= 7.7 for wait in told)
    assert len(own) == 12
    assert all(wait <= _sender.LONGEST_WAIT_S for wait in own)
    assert all(0.05 <= wait / min(0.1 * 2 ** (tries - 1), 30) <= 1 for tries, wait in enumerate(own, 3))
    assert len(set(own)) == 12


def test_a_lost_answer_is_a_duplicate_and_counts_once(service, faulty, monitors, run):
    """The batch arrives, its answer does not: it is sent again, and the service knows it."""
    import urllib.request

    def forward(request, number):
        url = f"{service.url}{request.path}?" + "&".join(f"{name}={value}" for name, value in request.query.items())
        content = {"Content-Type": "application/x-safetensors"}
        with urllib.request.urlopen(urllib.request.Request(url, request.body, content), timeout=20) as response:
            answer = Answer(response.status, response.read())
        return Answer(0) if number == 0 else answer

    proxy = faulty(forward)
    monitor = monitors(proxy.url)
    monitor.push(layer="z", z=ROWS, window=0)
    monitor.push(layer="z", z=ROWS, window=0, last=True)
    assert monitor.flush()
    assert (monitor.stats.sent, monitor.stats.duplicates) == (2, 1)
    (report,) = until(lambda: service.reports(run, "z"))
    assert report["rows"] == 32


def test_a_connection_closed_between_two_pushes_costs_nothing(faulty, monitors):
    server = faulty(lambda request, number: Answer(202, {"duplicate": False}, {"Keep_Alive": "timeout=0"}))
    monitor = monitors(server.url)
    waits = impatient(monitor)
    monitor.push(layer="z", z=ROWS)
    assert monitor.flush()
    monitor._core.sender._connection._http.sock.shutdown(socket.SHUT_RDWR)
    monitor.push(layer="z", z=ROWS)
    assert monitor.flush()
    assert monitor.stats.sent == 2
    assert waits == []
    assert monitor.stats.warnings == {}


def test_push_returns_while_the_service_holds_an_answer_back(faulty, monitors):
    server = faulty()
    server.gate.clear()
    monitor = monitors(server.url)
    for step in range(200):
        monitor.push(layer="z", z=ROWS, step=step)
    assert monitor.stats.sent == 0
    assert monitor.flush(0.05) is False
    server.gate.set()
    assert monitor.flush()
    assert [int(push.query["step"]) for push in server.pushes] == list(range(200))


def test_a_stopped_service_blocks_nothing_and_goes_on_where_it_was(tmp_path, monitors, run):
    service = Service(tmp_path)
    try:
        monitor = monitors(service.url, timeout=0.5)
        monitor.push(layer="z", z=ROWS, window=0)
        assert monitor.flush()
        service.process.send_signal(signal.SIGSTOP)
        for _ in range(20):
            monitor.push(layer="z", z=ROWS, window=0)
        monitor.push(layer="z", z=ROWS, window=0, last=True)
        assert monitor.verdict(timeout=0.3) is None
        until(lambda: monitor.stats.retries >= 1)
        service.process.send_signal(signal.SIGCONT)
        assert monitor.flush(60)
        (report,) = until(lambda: service.reports(run, "z"))
        assert report["rows"] == 22 * 16
    finally:
        service.process.send_signal(signal.SIGCONT)
        service.stop()


def test_nobody_is_there(monitors, caplog):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monitor = monitors(f"http://127.0.0.1:{closed.getsockname()[1]}")
        for _ in range(10):
            monitor.push(layer="z", z=ROWS)
        until(lambda: monitor.stats.retries >= 3)
        assert monitor.verdict(timeout=0.05) is None
        assert monitor.finish(timeout=0.05) is False
    assert monitor.stats.queued == 10
    assert sum("fullrank serve" in record.getMessage() for record in caplog.records) == 1


def test_the_sender_does_not_spin(monitors):
    """Its thread's own time while nobody answers, by the clock of that thread."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monitor = monitors(f"http://127.0.0.1:{closed.getsockname()[1]}")
        monitor.push(layer="z", z=ROWS)
        until(lambda: monitor.stats.retries >= 5)
        # 0.1 s, doubling, at least half of each: five tries take 0.8 s at the least.
        start, retries = time.monotonic(), monitor.stats.retries
        until(lambda: monitor.stats.retries >= retries + 1, timeout=60)
        assert time.monotonic() - start < 60
        assert monitor.stats.retries == retries + 1


@pytest.mark.parametrize("limits", [Answer(404, b"<html>"), Answer(200, b"<html>"), Answer(200, b"[1]"), Answer(302)])
def test_another_service_gets_no_batches(limits, faulty, monitors, caplog):
    server = faulty(limits=limits)
    monitor = monitors(server.url)
    monitor.push(layer="z", z=ROWS)
    until(lambda: monitor.stats.retries >= 2)
    assert server.requests == []
    assert set(monitor.stats.warnings) == {"not_fullrank"}
    assert len(caplog.records) == 1
    server.limits = LIMITS
    assert monitor.flush()
    assert monitor.stats.sent == 1


@pytest.mark.parametrize(
    "garbage", [b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x00" * 100, b"HTTP/1.1 200 OK\r\n", b""]
)
def test_garbage(garbage, monitors):
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(garbage)

    threading.Thread(target=serve, daemon=True).start()
    monitor = monitors(f"http://127.0.0.1:{listener.getsockname()[1]}")
    monitor.push(layer="z", z=ROWS)
    until(lambda: monitor.stats.retries >= 2)
    assert set(monitor.stats.warnings) <= {"not_fullrank", "unreachable"}
    assert monitor.stats.warnings
    assert monitor.stats.queued == 1
    listener.close()


@pytest.mark.parametrize(("version", "warned"), [("0.1.0", False), ("0.99.1", False), ("1.0.0", True), ("12.0", True)])
def test_versions(version, warned, faulty, monitors, caplog):
    monitor = monitors(faulty(limits={"version": version}).url)
    for _ in range(2):
        monitor.push(layer="z", z=ROWS)
    assert monitor.flush()
    assert monitor.stats.sent == 2
    assert ("version" in monitor.stats.warnings) is warned
    assert (version in caplog.text) is warned


@pytest.mark.parametrize(
    "code", ["malformed", "wrong_length", "dimension_mismatch", "unsupported_type", "code_of_tomorrow"]
)
def test_a_refusal_is_not_tried_again(code, faulty, monitors, caplog):
    server = faulty(first_then([problem(400, code)] * 2))
    monitor = monitors(server.url)
    for _ in range(3):
        monitor.push(layer="z", z=ROWS)
    assert monitor.flush()
    assert (monitor.stats.refusals, monitor.stats.sent) == ({code: 2}, 1)
    assert f"on purpose: {code}" in caplog.text
    assert len(caplog.records) == 1


def test_a_fault_of_the_service_is_not_tried_for_ever(faulty, monitors):
    server = faulty(first_then([problem(500, "internal")] * 6))
    monitor = monitors(server.url)
    impatient(monitor)
    for step in range(2):
        monitor.push(layer="z", z=ROWS, step=step)
    assert monitor.flush()
    assert [push.query["step"] for push in server.pushes] == ["0"] * 6 + ["1"]
    assert monitor.stats.refusals == {"internal": 1}


def test_a_refusal_of_a_body_that_was_not_read_is_heard(faulty, monitors):
    """The service answers from the header and hangs up while the body is on its way."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        answers = [
            b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"version": "0.1.0"}',
            b'HTTP/1.1 400 No\r\nContent-Length: 35\r\n\r\n{"code": "malformed", "detail": ""} ',
        ]
        connection, _ = listener.accept()
        with connection:
            for answer in answers:
                connection.recv(1000)
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    monitor = monitors(f"http://127.0.0.1:{listener.getsockname()[1]}")
    impatient(monitor)
    monitor.push(layer="z", z=np.zeros((1 << 20, 8)))
    assert monitor.flush()
    thread.join(20)
    assert (monitor.stats.refusals, monitor.stats.retries) == ({"malformed": 1}, 0)
    listener.close()


def test_loss_on_the_meta_device_and_other_surprises(faulty, monitors):
    monitor = monitors(faulty().url)
    monitor.push(layer="z", z=ROWS, loss=torch.zeros((), device="meta"))
    monitor.push(layer="z", z=ROWS)
    assert monitor.flush()
    assert monitor.stats.sent == 1
    assert monitor.stats.invalid == 1


@pytest.mark.skipif(os.name != "posix", reason="sockets in the file system")
def test_proxies_of_the_environment_are_not_used(faulty, monitors, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monitor = monitors(faulty().url)
    monitor.push(layer="z", z=ROWS)
    assert monitor.flush()
    assert monitor.stats.sent == 1
