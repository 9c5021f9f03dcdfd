"""The end of a process, forks, interrupts, and monitors that are forgotten."""

from __future__ import annotations

import gc
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from faults import Answer, until


def program(body: str, *args: str, **options):
    script = "import sys, os, numpy as np\nfrom fullrank import Monitor\n" + body
    return subprocess.run([sys.executable, "-c", script, *args], capture_output=True, text=True, timeout=120, **options)


def test_the_end_sends_what_is_queued_and_says_one_line(service, run):
    done = program(
        "m = Monitor(sys.argv[1], run=sys.argv[2])\n"
        "for step in range(20): m.push(layer='z', z=np.eye(16), step=step)\n"
        "m.push(layer='z', zz=np.eye(16))\n",
        service.url, run,
    )  # fmt: skip
    assert done.returncode == 0
    lines = [line for line in done.stderr.splitlines() if "batches sent" in line]
    want = rf"fullrank: run {run}: 20 batches sent \(320 rows, 0.0 MiB\), 0 dropped, 0 refused, 1 invalid, 0 not sent"
    assert [bool(re.match(want, line)) for line in lines] == [True]
    assert len(until(lambda: service.reports(run, "z")[19:] and service.reports(run, "z"))) == 20


def test_the_end_waits_two_seconds_for_a_dead_service_and_not_for_ever(run):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = program(
            "import atexit, time\n"
            "monitors = [Monitor(sys.argv[1], run=f'r{n}') for n in range(4)]\n"
            "for m in monitors: m.push(layer='z', z=np.eye(4))\n"
            "start = time.monotonic()\n"
            "import fullrank._exit as e\n"
            "e._at_exit(); print(time.monotonic() - start); atexit.unregister(e._at_exit)\n",
            url,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("1 not sent in time") == 4
    # All four together; what the machine adds is not counted on.
    assert 1.9 <= float(done.stdout) < 6


def test_a_monitor_that_never_pushed_says_nothing():
    done = program("m = Monitor(run='silent')\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_ctrl_c_ends_a_training_as_it_does_without(faulty, run):
    server = faulty()
    script = (
        "import signal, sys, numpy as np\nfrom fullrank import Monitor\n"
        # A shell starts what runs in its background with the signal ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "m = Monitor(sys.argv[1], run=sys.argv[2])\nstep = 0\n"
        "while True:\n    m.push(layer='z', z=np.eye(64), step=step); step += 1\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, server.url, run], stderr=subprocess.PIPE, text=True)
    until(lambda: len(server.pushes) > 20)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (1, -signal.SIGINT)
    assert "KeyboardInterrupt" in said
    assert said.count("batches sent") == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_does_not_send(faulty, run):
    server = faulty()
    done = program(
        "m = Monitor(sys.argv[1], run=sys.argv[2])\n"
        "m.push(layer='z', z=np.eye(4), step=0)\n"
        "assert m.flush()\n"
        "m._core.queue._lock.acquire(); m._core.lock.acquire(); m._core.complaints._lock.acquire()\n"  # as a fork may
        "child = os.fork()\n"
        "if child == 0:\n"
        "    for step in range(3): m.push(layer='z', z=np.eye(4), step=100 + step)\n"
        "    m.close(window=0); ok = m.flush(), m.finish(), m.verdict()\n"
        "    sys.exit(0 if ok == (False, False, None) else 3)\n"
        "m._core.queue._lock.release(); m._core.lock.release(); m._core.complaints._lock.release()\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
        "m.push(layer='z', z=np.eye(4), step=1)\n"
        "assert m.flush()\n",
        server.url, run,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [push.query["step"] for push in server.pushes] == ["0", "1"]
    assert server.controls == []
    assert done.stderr.count("does not send from a fork") == 1
    assert done.stderr.count("batches sent") == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_workers_of_a_data_loader(faulty, monitors):
    import torch

    server = faulty()
    monitor = monitors(server.url)
    monitor.push(layer="z", z=np.eye(4), step=0)
    context = "fork" if "fork" in torch.multiprocessing.get_all_start_methods() else None
    loader = torch.utils.data.DataLoader(
        torch.arange(16.0), batch_size=4, num_workers=2, multiprocessing_context=context
    )
    for step, _ in enumerate(loader, 1):
        monitor.push(layer="z", z=np.eye(4), step=step)
    assert monitor.flush()
    assert [push.query["step"] for push in server.pushes] == ["0", "1", "2", "3", "4"]


def test_a_forgotten_monitor_sends_what_it_has_and_its_thread_ends(faulty, run):
    from fullrank import Monitor

    server = faulty()
    server.gate.clear()
    monitor = Monitor(server.url, run=run)
    for step in range(3):
        monitor.push(layer="z", z=np.eye(4), step=step)
    thread = monitor._core._thread
    del monitor
    gc.collect()
    server.gate.set()
    thread.join(20)
    assert not thread.is_alive()
    assert len(server.pushes) == 3


def test_a_forgotten_monitor_does_not_haunt_a_dead_service(faulty, run):
    from fullrank import Monitor

    server = faulty(lambda request, number: Answer(0))
    monitor = Monitor(server.url, run=run)
    monitor.push(layer="z", z=np.eye(4))
    until(lambda: server.pushes)
    thread = monitor._core._thread
    del monitor
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


def test_several_monitors_in_one_process(faulty, monitors):
    server = faulty()
    each = [monitors(server.url, run=f"run{number}") for number in range(5)]
    for number, monitor in enumerate(each):
        monitor.push(layer="z", z=np.full((2, 2), float(number)))
    assert all(monitor.flush() for monitor in each)
    assert {push.path.split("/")[3]: push.tensors()["z"][0, 0] for push in server.pushes} == {
        f"run{number}": number for number in range(5)
    }


def test_a_context_finishes_the_run(faulty, run):
    from fullrank import Monitor

    server = faulty()
    with Monitor(server.url, run=run) as monitor:
        monitor.push(layer="z", z=np.eye(2))
    assert server.controls == [f"/v1/runs/{run}/finish"]
    with pytest.raises(RuntimeError, match="mine"), Monitor(server.url, run=run) as monitor:
        monitor.push(layer="z", z=np.eye(2))
        raise RuntimeError("mine")
    assert len(server.pushes) == 2
    assert len(server.controls) == 1


def test_importing_needs_neither_torch_nor_a_service():
    done = program("assert 'torch' not in sys.modules\nm = Monitor(run='r')\nassert 'torch' not in sys.modules\n")
    assert done.returncode == 0, done.stderr


def test_a_signal_in_the_middle_of_a_push_leaves_the_queue_usable(faulty, monitors):
    """Interrupts at random places of push: no lock stays taken, no byte stays counted."""
    server = faulty()
    monitor = monitors(server.url, queue_bytes=1 << 20)
    stop, pushing = threading.Event(), threading.Event()

    def interrupt() -> None:
        pushing.wait()
        while not stop.wait(0.0007):
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    hits = 0
    thread = threading.Thread(target=interrupt, daemon=True)
    deadline = time.monotonic() + 60
    try:
        thread.start()
        while hits < 200 and time.monotonic() < deadline:
            try:
                pushing.set()
                monitor.push(layer="z", z=np.zeros((64, 64)))
            except KeyboardInterrupt:
                hits += 1
        stop.set()
        thread.join()
    except KeyboardInterrupt:
        stop.set()
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert hits >= 200
    assert monitor.flush(30)
    monitor.push(layer="z", z=np.eye(4))
    assert monitor.flush(30)
    # Not even a second sender, which would read the first one's answers.
    assert monitor.stats.warnings == {}


def test_a_second_sender_does_nothing(faulty, monitors):
    """An interrupt after the thread was started, and before that was noted, makes the next push start another."""
    server = faulty()
    monitor = monitors(server.url)
    for step in range(20):
        monitor._core._thread = None
        monitor.push(layer="z", z=np.eye(4), step=step)
    assert monitor.flush()
    assert [int(push.query["step"]) for push in server.pushes] == list(range(20))
    assert (server.connections, monitor.stats.warnings) == (1, {})
