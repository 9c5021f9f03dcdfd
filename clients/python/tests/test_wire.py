"""What goes over the wire, read back by the format's own library."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import torch
from faults import TAKEN, Answer, until
from safetensors.torch import load as load_torch


def test_numbers_travel_as_they_are(faulty, monitors):
    server = faulty()
    monitor = monitors(server.url)
    base = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tensors = {f"z{number}": base.to(dtype) for number, dtype in enumerate(
        (torch.bfloat16, torch.float16, torch.float32, torch.float64), 1
    )}  # fmt: skip
    for name, tensor in tensors.items():
        monitor.push(layer=name, z=tensor)
        monitor.push(layer=name, z=tensor[::2].T)  # not contiguous
        if tensor.dtype is not torch.bfloat16:
            monitor.push(layer=name, z=tensor.numpy()[:, ::-1])
    assert monitor.flush()
    for name, tensor in tensors.items():
        sent = [load_torch(r.body)["z"] for r in server.pushes if f"/layers/{name}/" in r.path]
        assert torch.equal(sent[0], tensor)
        assert sent[0].dtype == tensor.dtype
        assert torch.equal(sent[1], tensor[::2].T)
        if tensor.dtype is not torch.bfloat16:
            assert torch.equal(sent[2], tensor.flip(1))


def test_large_tensors_take_the_other_path_and_arrive_whole(faulty, monitors):
    server = faulty()
    monitor = monitors(server.url)
    z = torch.randn(3000, 256, requires_grad=True)
    monitor.push(layer="z", z1=z, z2=z.detach().numpy())
    want = z.detach().clone().numpy()
    with torch.no_grad():
        z.fill_(0)
    assert monitor.flush()
    (push,) = server.pushes
    sent = push.tensors()
    assert np.array_equal(sent["z1"], want)
    # z2 was the same memory, copied before it was overwritten.
    assert np.array_equal(sent["z2"], want)


def test_a_tensor_is_copied_before_push_returns(faulty, monitors):
    server = faulty()
    server.gate.clear()
    monitor = monitors(server.url)
    rows = np.zeros((4, 3), np.float32)
    tensor = torch.zeros(4, 3)
    for number in range(5):
        rows[:] = number
        tensor.fill_(number)
        monitor.push(layer="z", z1=rows, z2=tensor, step=number)
    rows[:] = tensor[:] = -1
    server.gate.set()
    assert monitor.flush()
    for number, push in enumerate(server.pushes):
        for sent in push.tensors().values():
            assert (sent == number).all()


def test_parameters(faulty, monitors):
    server = faulty()
    monitor = monitors(server.url, method="vicreg", gamma=1.0, worker=1, workers=3)
    monitor.push(
        layer="a.b-c_d", z=np.eye(3), window=4, step=np.int64(9), loss=torch.tensor(0.25, requires_grad=True),
        last=True, temperature=np.float32(0.5), lambda_=5e-3, newer_than_this_client=3, unit_moments=True, gamma=2,
        batch_size=None, rankme_centered=True, flag_of_tomorrow=True,
    )  # fmt: skip
    monitor.push(layer="a.b-c_d", z=np.eye(3), window=5, loss=float("inf"))
    assert monitor.flush()
    first, second = server.pushes
    assert first.path == f"/v1/runs/{monitor.run}/layers/a.b-c_d/batches"
    assert {name: value for name, value in first.query.items() if name != "session"} == {
        "method": "vicreg", "gamma": "2.0", "worker": "1", "workers": "3", "window": "4", "step": "9", "loss": "0.25",
        "last": "true", "temperature": "0.5", "lambda": "0.005", "newer_than_this_client": "3.0",
        "unit_moments": "true", "rankme_centered": "1.0", "flag_of_tomorrow": "true", "seq": "0",
    }  # fmt: skip
    assert 0 <= int(first.query["session"]) < 2**63
    assert second.query["session"] == first.query["session"]
    assert (second.query["seq"], second.query["gamma"], second.query.get("loss")) == ("1", "1.0", None)
    assert first.headers["Content-Type"] == "application/x-safetensors"
    assert monitor.stats.warnings == {"not_finite_parameter": 1}


def test_seq_is_the_layers_own_and_sessions_differ(faulty, monitors):
    server = faulty()
    for monitor in (monitors(server.url), monitors(server.url)):
        for layer in ("a", "b", "a"):
            monitor.push(layer=layer, z=np.eye(2))
        assert monitor.flush()
    got = [(push.path.split("/")[5], push.query["seq"]) for push in server.pushes]
    assert got == [("a", "0"), ("b", "0"), ("a", "1")] * 2
    assert len({push.query["session"] for push in server.pushes}) == 2


def test_sampled_rows_are_aligned_and_seeded(faulty, monitors):
    server = faulty()
    rows = np.arange(50, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)
    edges = np.array([[i, 50 + 49 - i] for i in range(25)])  # from the first view to the second
    for seed in (1, 1, 2):
        monitor = monitors(server.url, max_rows=20, seed=seed)
        for _ in range(2):
            monitor.push(
                layer="z", z1=rows, z2=torch.tensor(rows) + 100, labels=torch.arange(50), edges=edges, center=rows[0],
                teacher1=rows.astype(np.float64),
            )  # fmt: skip
        monitor.push(layer="z", z=rows, max_rows=50)
        assert monitor.flush()
    sets = []
    for push in server.pushes:
        sent = push.tensors()
        if "z" in sent:
            assert np.array_equal(sent["z"], rows)
            continue
        kept = sent["labels"]
        assert len(set(kept.tolist())) == 20
        assert np.array_equal(sent["z1"][:, 0], kept)
        assert np.array_equal(sent["z2"][:, 0], kept + 100)
        assert np.array_equal(sent["teacher1"][:, 0], kept)
        assert np.array_equal(sent["center"], rows[0])
        if "edges" in sent:
            first, second = sent["edges"].T
            assert (kept[first] + kept[second - 20] == 49).all()
        both = sum(1 for i in range(25) if i in kept and 49 - i in kept)
        assert len(sent.get("edges", ())) == both
        sets.append(tuple(kept.tolist()))
    assert sets[0:2] == sets[2:4]
    assert len(set(sets)) == 4


def test_every(faulty, monitors):
    server = faulty()
    monitor = monitors(server.url, every=3)
    for step in range(8):
        monitor.push(layer="a", z=np.eye(2), step=step, last=step == 4)
        monitor.push(layer="b", z=np.eye(2), step=step)
    assert monitor.flush()
    sent = [(push.path.split("/")[5], int(push.query["step"])) for push in server.pushes]
    assert [step for layer, step in sent if layer == "a"] == [0, 3, 4, 6]
    assert [step for layer, step in sent if layer == "b"] == [0, 3, 6]
    assert (monitor.stats.pushed, monitor.stats.skipped, monitor.stats.sent) == (16, 9, 7)


def test_moments_of_rows(faulty, monitors):
    server = faulty()
    monitor = monitors(server.url, moments=True)
    generator = np.random.default_rng(1)
    z1, z2 = (generator.standard_normal((70, 4)) + 1e6 for _ in range(2))
    monitor.push(layer="z", z1=z1, z2=z2, teacher1=z1)
    zero = z1.copy()
    zero[3] = 0
    monitor.push(layer="z", z=zero)
    assert monitor.flush()
    with_views, with_zero = (push.tensors() for push in server.pushes)
    rows = np.concatenate([z1, z2])
    assert set(with_views) == {"count", "mean", "m2", "unit_mean", "unit_variance", "teacher1"}
    assert with_views["count"] == [140]
    np.testing.assert_allclose(with_views["mean"], rows.mean(0), rtol=1e-14)
    centred = rows - rows.mean(0)
    np.testing.assert_allclose(with_views["m2"], (centred.T @ centred)[np.tril_indices(4)], rtol=1e-8, atol=1e-7)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(with_views["unit_mean"], units.mean(0), rtol=1e-13)
    np.testing.assert_allclose(with_views["unit_variance"], units.var(0), rtol=1e-3)
    assert np.array_equal(with_views["teacher1"], z1)
    # Zero rows have no direction: the unit moments would be of other rows than the moments.
    assert set(with_zero) == {"count", "mean", "m2"}


def test_small_and_large_bodies_share_a_connection(faulty, monitors):
    server = faulty()
    monitor = monitors(server.url)
    monitor.push(layer="z", z=np.zeros((64, 64), np.float32))
    monitor.push(layer="z", z=np.zeros((1024, 512), np.float32))
    assert monitor.flush()
    small, large = server.pushes
    assert small.tensors()["z"].shape == (64, 64)
    assert large.tensors()["z"].shape == (1024, 512)
    assert server.connections == 1


def test_a_body_over_the_limit_is_cut_to_fit(faulty, monitors, caplog):
    server = faulty(limits={"version": "0.1.9", "max_body_bytes": 100_000})
    monitor = monitors(server.url)
    rows = np.arange(1000, dtype=np.float64)[:, None] * np.ones((1, 40))
    monitor.push(layer="z", z1=rows, z2=rows, window=0, last=True)
    assert monitor.flush()
    (push,) = server.pushes
    sent = push.tensors()
    assert 90_000 // 640 - 15 < len(sent["z1"]) < 1000
    assert len(push.body) <= 100_000
    assert np.array_equal(sent["z1"], sent["z2"])
    assert len(np.unique(sent["z1"][:, 0])) == len(sent["z1"])
    assert monitor.stats.thinned == 1
    assert "max_rows" in caplog.text


def test_an_answer_in_chunks_and_one_without_length(faulty, monitors):
    """HTTP that the service does not speak, but a proxy in front of it may."""
    import socket

    listener = socket.create_server(("127.0.0.1", 0))
    body = json.dumps({"state": "healthy"}).encode()
    pieces = [b"%x;extension\r\n%s\r\n" % (len(piece), piece) for piece in (body[:5], body[5:])]
    answers = [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(pieces) + b"0\r\nTrailer: x\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n" + body,
    ]

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    monitor = monitors(f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert [monitor.verdict(), monitor.verdict()] == [{"state": "healthy"}] * 2
    listener.close()


def test_one_connection_carries_all(faulty, monitors):
    server = faulty()
    monitor = monitors(server.url)
    for step in range(50):
        monitor.push(layer="z", z=np.eye(4), step=step)
    monitor.close(window=3)
    assert monitor.flush()
    assert len(server.pushes) == 50
    assert server.connections == 1


@pytest.mark.parametrize("prefix", ["/proxied/fullrank", ""])
def test_a_path_before_the_api(faulty, monitors, prefix):
    server = faulty()
    server.limits = {"version": "0.1.0"}
    if prefix:
        server.answer = lambda request, number: (
            Answer(200, {"version": "0.1.0"}) if request.path.endswith("/v1/limits") else TAKEN
        )
    monitor = monitors(server.url + prefix + "/")
    monitor.push(layer="z", z=np.eye(4))
    assert monitor.flush()
    until(lambda: server.pushes)
    assert server.pushes[0].path == f"{prefix}/v1/runs/{monitor.run}/layers/z/batches"
