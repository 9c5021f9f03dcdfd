"""The bound of the queue, and what survives it."""

from __future__ import annotations

import numpy as np
import pytest
from faults import Faulty, until

MIB = 1 << 20
ROWS = np.zeros((256, 512))  # 1 MiB


@pytest.fixture
def held(faulty, monitors):
    """(server, monitor): the first batch is under way and unanswered, four MiB may wait behind it."""
    server: Faulty = faulty()
    server.gate.clear()
    monitor = monitors(server.url, queue_bytes=4 * MIB)
    monitor.push(layer="first", z=np.eye(2), window=0)
    until(lambda: server.pushes)
    return server, monitor


def released(server: Faulty, monitor) -> list[tuple[str, int, bool, int]]:
    """(layer, window, last, rows) of what arrives behind the first batch."""
    server.gate.set()
    assert monitor.flush()
    return [
        (push.path.split("/")[5], int(push.query.get("window", -1)), "last" in push.query, len(push.tensors()["z"]))
        for push in server.pushes[1:]
    ]


def test_the_oldest_go_and_are_counted(held):
    server, monitor = held
    for window in range(10):
        monitor.push(layer="z", z=ROWS, window=window)
        assert monitor.stats.queued_bytes <= 4 * MIB
    assert (monitor.stats.dropped, monitor.stats.dropped_rows) == (6, 6 * 256)
    assert [window for _, window, _, _ in released(server, monitor)] == [6, 7, 8, 9]
    assert monitor.stats.sent == 5


def test_memory_stays_within_the_bound_whatever_the_sizes(held):
    server, monitor = held
    generator = np.random.default_rng(0)
    queue = monitor._core.queue
    for window in range(300):
        rows = np.zeros((int(generator.integers(1, 700)), 512))
        monitor.push(layer="z", z=rows, window=window, last=window % 7 == 0)
        idle = sum(buffer.size for buffers in queue._idle.values() for buffer in buffers)
        queued = sum(item.buffer.size for item in queue._items if item.buffer is not None)
        assert idle + queued == queue._held <= 4 * MIB
    assert monitor.stats.dropped > 250
    released(server, monitor)


def test_idle_buffers_are_used_again(faulty, monitors):
    monitor = monitors(faulty().url)
    seen = set()
    for step in range(20):
        monitor.push(layer="z", z=ROWS, step=step)
        assert monitor.flush()
        (buffer,) = [b for buffers in monitor._core.queue._idle.values() for b in buffers]
        seen.add(buffer.address)
    assert len(seen) == 1


def test_last_survives_with_a_row_to_carry_it(held):
    """Nothing later closes the window, so `last` has to arrive."""
    server, monitor = held
    for _ in range(2):
        monitor.push(layer="a", z=ROWS, window=5)
    monitor.push(layer="a", z=ROWS + 7, window=5, last=True)
    for window in range(8):
        monitor.push(layer="b", z=ROWS, window=window)
    got = released(server, monitor)
    assert [entry for entry in got if entry[0] == "a"] == [("a", 5, True, 1)]
    assert server.pushes[1].tensors()["z"][0, 0] == 7
    assert [entry[1] for entry in got if entry[0] == "b"] == [5, 6, 7]
    assert monitor.stats.dropped == 2 + 5
    assert monitor.stats.dropped_rows == 7 * 256 + 255


def test_last_may_go_when_a_later_window_says_as_much(held):
    server, monitor = held
    for window in range(8):
        monitor.push(layer="a", z=ROWS, window=window, last=True)
    assert released(server, monitor) == [("a", window, True, 256) for window in (4, 5, 6, 7)]
    assert monitor.stats.dropped == 4


def test_a_batch_over_the_bound_is_dropped_at_once_and_its_last_is_not(held, caplog):
    server, monitor = held
    huge = np.arange(3 * MIB // 4 * 1.0).reshape(-1, 512)  # 6 MiB
    monitor.push(layer="a", z=huge, window=1)
    monitor.push(layer="a", z=huge, window=1, last=True, labels=np.arange(len(huge)))
    assert monitor.stats.dropped == 1
    assert caplog.text.count("queue_bytes") >= 1
    assert released(server, monitor) == [("a", 1, True, 1)]
    assert monitor.stats.dropped_rows == 2 * len(huge) - 1


def test_close_and_finish_are_never_dropped_and_keep_their_place(held):
    server, monitor = held
    for window in range(12):
        monitor.push(layer="a", z=ROWS, window=window)
        monitor.close(window=window)
        monitor.close(window=window)
    assert monitor.finish(timeout=0) is False
    released(server, monitor)
    paths = [f"/v1/runs/{monitor.run}/windows/{window}/close" for window in range(12)]
    assert server.controls == [*paths, f"/v1/runs/{monitor.run}/finish"]
    order = [request.query["window"] if request.is_push else request.path for request in server.requests[1:]]
    assert order[-3:] == ["11", paths[11], f"/v1/runs/{monitor.run}/finish"]


def test_close_of_one_of_several_workers_marks_its_newest_batch(faulty, monitors):
    server = faulty()
    server.gate.clear()
    monitor = monitors(server.url, worker=0, workers=2)
    monitor.push(layer="first", z=np.eye(2), window=0)
    until(lambda: server.pushes)
    for layer in ("a", "b"):
        for _ in range(2):
            monitor.push(layer=layer, z=np.eye(2), window=0)
    monitor.push(layer="a", z=np.eye(2), window=1)
    monitor.close(window=0)
    assert [entry[2] for entry in released(server, monitor)] == [False, True, False, True, False]
    assert server.controls == []


def test_only_worker_0_finishes(faulty, monitors):
    server = faulty()
    for worker in (1, 0):
        monitor = monitors(server.url, worker=worker, workers=2)
        monitor.push(layer="a", z=np.eye(2), window=0)
        assert monitor.finish()
    assert server.controls == [f"/v1/runs/{monitor.run}/finish"]


def test_finish_twice_is_once_and_after_a_push_again(faulty, monitors):
    server = faulty()
    monitor = monitors(server.url)
    for _ in range(2):
        monitor.push(layer="a", z=np.eye(2))
        for _ in range(3):
            assert monitor.finish()
    assert len(server.controls) == 2


def test_push_from_many_threads(faulty, monitors):
    import threading

    server = faulty()
    monitor = monitors(server.url, max_rows=3)

    def push(number: int) -> None:
        for step in range(50):
            monitor.push(layer=f"layer{number % 3}", z=np.full((8, 4), number * 50.0 + step), step=step)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert monitor.flush(30)
    assert sorted(int(push.tensors()["z"][0, 0]) for push in server.pushes) == list(range(400))
    assert all((push.tensors()["z"] == push.tensors()["z"][0, 0]).all() for push in server.pushes)
    names = {(push.path, push.query["seq"]) for push in server.pushes}
    assert len(names) == 400
    assert monitor.stats.pushed == 400
