"""Which of how many processes this is, and several of them at one service."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from faults import until

from fullrank._distributed import worker_and_workers


@pytest.mark.parametrize(
    ("environment", "want"),
    [
        ({}, (0, 1)),
        ({"RANK": "3", "WORLD_SIZE": "8"}, (3, 8)),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4"}, (2, 4)),
        ({"RANK": "1", "WORLD_SIZE": "2", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, (1, 2)),
        ({"RANK": "1"}, (0, 1)),
        ({"RANK": "x", "WORLD_SIZE": "2"}, (0, 1)),
        ({"RANK": "2", "WORLD_SIZE": "2", "SLURM_PROCID": "1", "SLURM_NTASKS": "3"}, (1, 3)),
    ],
)
def test_the_environment(environment, want, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert worker_and_workers() == want


def test_it_is_asked_at_the_first_push(faulty, monitors, monkeypatch):
    server = faulty()
    monitor = monitors(server.url)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monitor.push(layer="z", z=np.eye(2), window=0)
    assert monitor.flush()
    given = monitors(server.url, worker=0, workers=1)
    given.push(layer="z", z=np.eye(2), window=0)
    assert given.flush()
    first, second = (push.query for push in server.pushes)
    assert (first["worker"], first["workers"]) == ("1", "2")
    assert "worker" not in second


def test_without_window_or_step_a_worker_is_told(monitors, caplog):
    monitor = monitors("http://127.0.0.1:1", worker=0, workers=2)
    monitor.push(layer="z", z=np.eye(2))
    assert monitor.stats.warnings == {"malformed": 1}
    assert "window=" in caplog.text


SCRIPT = """
import sys, torch
import torch.distributed as dist
from fullrank import Monitor
url, run, rank, meeting = sys.argv[1:]
monitor = Monitor(url, run=run, moments=True)          # before the group is there
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=int(rank), world_size=2)
for window in range(2):
    monitor.push(layer="z", z=torch.arange(32.0).reshape(16, 2) + int(rank), window=window, last=True)
assert monitor.flush()
dist.barrier()
assert monitor.finish()
"""


def test_two_processes_of_torch_distributed(service, run, tmp_path):
    command = [sys.executable, "-c", SCRIPT, service.url, run]
    ranks = [subprocess.Popen([*command, str(rank), str(tmp_path / "meeting")]) for rank in range(2)]
    assert [rank.wait(120) for rank in ranks] == [0, 0]
    reports = until(lambda: service.reports(run, "z")[1:] and service.reports(run, "z"))
    assert [(r["window"], r["rows"], r["complete"]) for r in reports] == [(0, 32, True), (1, 32, True)]
    assert until(lambda: service.get(f"/v1/runs/{run}")["finished"])
