"""The examples, with the real libraries and the real service."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def example(name: str, *args: str) -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / name), *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def windows(service, run: str, layer: str) -> list[tuple[int, bool]]:
    return [(report["window"], report["complete"]) for report in service.reports(run, layer)]


def test_plain(service, run):
    said = example("plain.py", service.url, "--run", run)
    assert "'state': 'healthy'" in said
    assert "580 batches sent" in said
    assert windows(service, run, "projector") == [(epoch, True) for epoch in range(20)]
    assert service.get(f"/v1/runs/{run}")["finished"] is True


def test_plain_that_collapses(service, run):
    assert "'state': 'collapsed', 'cause': 'constant'" in example(
        "plain.py", service.url, "--run", run, "--no-negatives"
    )


def test_lightning(service, run):
    said = example("lightning.py", service.url, "--run", run)
    assert "'state': " in said
    for layer in ("backbone", "projector"):
        reports = service.reports(run, layer)
        assert [(r["window"], r["rows"], r["views"], r["complete"]) for r in reports] == [
            (epoch, 7 * 2 * 256, 2, True) for epoch in range(6)
        ]
        # The loss that goes with a push is the one before it.
        assert all(report["loss"] > 0 for report in reports)
        assert reports[-1]["step"] == 41
    assert service.get(f"/v1/runs/{run}")["finished"] is True
    assert "0 dropped, 0 refused, 0 invalid" in said


def test_transformers(service, run):
    said = example("transformers.py", service.url, "--run", run)
    assert "'state': " in said
    reports = service.reports(run, "encoder")
    assert [(r["window"], r["rows"], r["views"], r["complete"]) for r in reports] == [
        (epoch, 2 * 512, 2, True) for epoch in range(4)
    ]
    assert reports[-1]["loss"] > 0
    assert service.get(f"/v1/runs/{run}")["finished"] is True
    assert "0 dropped, 0 refused, 0 invalid" in said


@pytest.mark.parametrize(("name", "epochs"), [("lightning", 6), ("transformers", 4)])
def test_callbacks_close_each_epoch_behind_its_last_batch(name, epochs, faulty, run):
    server = faulty()
    example(f"{name}.py", server.url, "--run", run)
    closes = [f"/v1/runs/{run}/windows/{epoch}/close" for epoch in range(epochs)]
    assert server.controls == [*closes, f"/v1/runs/{run}/finish"]
    closed = 0
    for request in server.requests:
        closed += request.path.endswith("/close")
        assert not request.is_push or int(request.query["window"]) == closed


@pytest.mark.parametrize("name", ["lightning", "transformers"])
def test_options_of_the_callbacks(name, monitors):
    module = pytest.importorskip(f"fullrank.{name}")
    monitor = monitors("http://127.0.0.1:1")
    assert module.FullrankCallback({}, monitor=monitor).monitor is monitor
    for options in ({}, {"monitor": monitor, "run": "r"}, {"run": "r", "window": "day"}):
        with pytest.raises(ValueError, match=r"\S"):
            module.FullrankCallback({}, **options)
