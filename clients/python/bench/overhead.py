#!/usr/bin/env python3
"""What pushing costs a training step, in each state of the service.

    python clients/python/bench/overhead.py [--binary PATH] [--steps N] [--modes healthy,dead,...]

A small network trains on the CPU with one torch thread, in steps of about 25 ms. Blocks of steps with and without a
push alternate, so that other load on the machine affects both alike. For each state of the service it prints the ratio
of the medians and of the 99th percentiles. `idle` pushes in neither kind of block and shows the noise of the
measurement. `sink` accepts every batch and computes nothing; what `healthy` costs beyond it is the work of the service
on the same machine. Finally it compares a push of 16 MiB with a plain copy of the same 16 MiB into memory that is
already allocated.

Goals: median at most 1.01, p99 at most 1.02, push at most 1.5 copies.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import socketserver
import statistics
import subprocess
import sys
import time
from pathlib import Path

MODES = ("idle", "healthy", "sink", "dead", "stopped", "busy", "slow")
BLOCK = 20
WARM_UP = 40


class Step:
    """One training step: forward, backward, update; about `target` seconds."""

    def __init__(self, target: float, rows: int, dim: int) -> None:
        import torch

        self.torch = torch
        torch.manual_seed(0)
        self.inputs = [torch.randn(rows, 512) for _ in range(2)]
        layers = [torch.nn.Linear(512, 512), torch.nn.ReLU()]
        self.target, self.rows, self.dim = target, rows, dim
        while True:
            self.net = torch.nn.Sequential(*layers, torch.nn.Linear(512, dim))
            self.optimiser = torch.optim.SGD(self.net.parameters(), lr=1e-3)
            times = [self.timed()[0] for _ in range(30)]
            if statistics.median(times) > 0.9 * target:
                return
            layers += [torch.nn.Linear(512, 512), torch.nn.ReLU()]

    def timed(self, push=None) -> tuple[float, float]:
        """(seconds of the whole step, seconds of the push within it)."""
        start = time.perf_counter()
        z1, z2 = (self.net(x) for x in self.inputs)
        loss = (z1 - z2).pow(2).mean() + (z1.std(0) - 1).pow(2).mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        before = time.perf_counter()
        if push is not None:
            push(z1, z2, loss)
        end = time.perf_counter()
        return end - start, end - before


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def measure(step: Step, monitor, steps: int) -> tuple[list[float], list[float], list[float]]:
    """Times of steps without and with a push, and of the pushes."""
    plain: list[float] = []
    pushing: list[float] = []
    pushes: list[float] = []
    number = 0

    def push(z1, z2, loss) -> None:
        monitor.push(layer="projector", z1=z1, z2=z2, window=number // 50, step=number, loss=loss)

    for _ in range(WARM_UP):
        number += 1
        step.timed(push if monitor is not None else None)
    while len(pushing) < steps:
        for _ in range(BLOCK):
            plain.append(step.timed()[0])
        for _ in range(BLOCK):
            number += 1
            whole, part = step.timed(push if monitor is not None else None)
            pushing.append(whole)
            pushes.append(part)
    return plain, pushing, pushes


# ---------------------------------------------------------------- services


def fault_server(kind: str) -> None:
    """A service that only receives, is busy (503), or slow. Runs in its own process."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while True:
                length, path = 0, b""
                for line in iter(self.rfile.readline, b"\r\n"):
                    if not line:
                        return
                    path = path or line
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                left = length
                while left > 0:
                    left -= len(self.rfile.read(min(left, 65536)))
                    if kind == "slow":
                        time.sleep(0.1)
                if b"/v1/limits" in path:
                    self.answer(b"200 OK", b'{"version": "0.1.0"}')
                elif kind == "busy":
                    self.answer(b"503 Service Unavailable", b'{"code": "draining", "detail": "stopping"}')
                else:
                    if kind == "slow":
                        time.sleep(1.0)
                    self.answer(b"202 Accepted", b'{"duplicate":false}')

        def answer(self, status: bytes, body: bytes) -> None:
            self.wfile.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()


def started(mode: str, binary: str) -> tuple[str, subprocess.Popen | None]:
    """(address, process) of a service in the given mode."""
    if mode == "dead":
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return f"http://127.0.0.1:{probe.getsockname()[1]}", None
    if mode in ("sink", "busy", "slow"):
        command = [sys.executable, __file__, "--fault-server", mode]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        return process.stdout.readline().strip(), process
    command = [binary, "serve", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "address=" in line:
            return "http://" + line.rsplit("address=", 1)[1].strip(), process
    sys.exit(f"{binary} did not start")


def compare(mode: str, step: Step, steps: int, binary: str) -> None:
    """Measures one mode and prints its line."""
    from fullrank import Monitor

    process, monitor = None, None
    if mode != "idle":
        url, process = started(mode, binary)
        monitor = Monitor(url, run=f"bench-{mode}", method="vicreg")
    if mode == "stopped":
        process.send_signal(signal.SIGSTOP)
    try:
        plain, pushing, pushes = measure(step, monitor, steps)
    finally:
        if process is not None:
            process.kill()
            process.wait()
    median = statistics.median(pushing) / statistics.median(plain)
    p99 = percentile(pushing, 0.99) / percentile(plain, 0.99)
    line = f"{mode:<8} median {median:7.4f}   p99 {p99:7.4f}   step {statistics.median(plain) * 1e3:6.2f} ms"
    if monitor is not None:
        stats = monitor.stats
        line += f"   push {statistics.median(pushes) * 1e6:5.0f} us, p99 {percentile(pushes, 0.99) * 1e6:5.0f} us"
        line += f"   sent {stats.sent}, dropped {stats.dropped}, retries {stats.retries}"
    print(line, flush=True)


def copy_ratio(binary: str) -> None:
    """Compares a push of 16 MiB with a copy. There is a pause between two pushes, as in a training."""
    import torch

    from fullrank import Monitor

    source = torch.randn(8192, 512)
    targets = [torch.empty_like(source).copy_(source) for _ in range(4)]
    for mode in ("dead", "healthy"):
        url, process = started(mode, binary)
        monitor = Monitor(url, run="bench-copy", method="vicreg", queue_bytes=64 << 20)
        copies, pushes = [], []
        for number in range(60):
            start = time.perf_counter()
            targets[number % 4].copy_(source)
            copied = time.perf_counter()
            monitor.push(layer="projector", z=source, window=number)
            pushes.append(time.perf_counter() - copied)
            copies.append(copied - start)
            if process is not None:
                monitor.flush()
                time.sleep(0.6)
        if process is not None:
            process.kill()
            process.wait()
        copy, push = statistics.median(copies[10:]), statistics.median(pushes[10:])
        print(
            f"16 MiB, {mode}: copy {copy * 1e3:.2f} ms, push {push * 1e3:.2f} ms, ratio {push / copy:.2f}", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(__file__).resolve().parents[3]
    parser.add_argument("--binary", default=os.environ.get("FULLRANK_BINARY", str(root / "target/release/fullrank")))
    parser.add_argument("--steps", type=int, default=600, help="steps of each kind and mode")
    parser.add_argument("--step-ms", type=float, default=25.0)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--fault-server", choices=("sink", "busy", "slow"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fault_server:
        fault_server(args.fault_server)
        return
    logging.disable(logging.WARNING)
    import torch

    torch.set_num_threads(1)
    step = Step(args.step_ms / 1e3, args.rows, args.dim)
    print(f"{args.steps} steps of each kind; a push is 2 x {args.rows} x {args.dim} f32; {os.cpu_count()} cores")
    for mode in args.modes.split(","):
        compare(mode, step, args.steps, args.binary)
    copy_ratio(args.binary)
    sys.stdout.flush()
    os._exit(0)  # do not wait for batches queued for dead services


if __name__ == "__main__":
    main()
