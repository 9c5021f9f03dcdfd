"""What users get wrong: said once, counted, and the training goes on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from faults import Faulty

from fullrank import Monitor

GOOD = np.eye(4)
BAD = {
    "wrong_rank": [
        {"z": np.zeros(4)}, {"z": torch.zeros(2, 3, 4)}, {"z": GOOD, "labels": np.zeros((4, 1), int)}, {"z": 3.0},
    ],
    "meta": [{"z": torch.zeros(4, 4, device="meta")}],
    "empty": [{"z": np.zeros((0, 4))}, {"z": torch.zeros(4, 0)}],
    "unknown_tensor": [{"zz": GOOD}, {"z": GOOD, "teacher": GOOD}, {"z01": GOOD}, {"embeddings": torch.eye(3)}],
    "wrong_length": [{"z1": GOOD, "z2": GOOD[:3]}, {"z": GOOD, "labels": np.arange(3)}],
    "unsupported_type": [
        {"z": np.zeros((4, 4), int)}, {"z": torch.zeros(4, 4, dtype=torch.complex64)}, {"z": GOOD, "ids": np.zeros(4)},
        {"z": "rows"}, {"z": torch.eye(4).to_sparse()}, {"z": [object()]},
    ],
    "malformed": [
        {}, {"labels": np.arange(4)}, {"z": GOOD, "window": 1.5}, {"z": GOOD, "window": -1}, {"z": GOOD, "session": 3},
        {"z": GOOD, "loss": torch.zeros(2)}, {"z": GOOD, "step": 2**63},
    ],
    "layer": [{"layer": "a:teacher", "z": GOOD}, {"layer": "", "z": GOOD}, {"layer": "..", "z": GOOD}],
}  # fmt: skip
CASES = [(kind, named) for kind, cases in BAD.items() for named in cases]


@pytest.mark.parametrize(("kind", "named"), CASES, ids=[f"{kind}-{at}" for at, (kind, _) in enumerate(CASES)])
def test_one_warning_and_the_next_push_goes(kind, named, faulty, monitors, caplog):
    server: Faulty = faulty()
    monitor: Monitor = monitors(server.url)
    for _ in range(3):
        monitor.push(**{"layer": "a", **named})
    monitor.push(layer="a", z=GOOD)
    assert monitor.flush()
    assert monitor.stats.warnings == {kind: 3}
    assert (monitor.stats.pushed, monitor.stats.invalid, monitor.stats.sent) == (4, 3, 1)
    assert len(caplog.records) == 1
    assert len(server.pushes) == 1


def test_a_misspelt_tensor_is_told_its_name(faulty, monitors, caplog):
    monitors(faulty().url).push(layer="a", z=GOOD, prototype_weights=GOOD)
    assert "did you mean prototype_weight?" in caplog.text


def test_a_bad_number_is_left_out(faulty, monitors):
    server = faulty()
    monitor = monitors(server.url)
    monitor.push(layer="a", z=GOOD, temperature="warm", method="simclear", margin=float("nan"), gamma=2.0)
    assert monitor.flush()
    (push,) = server.pushes
    assert not {"temperature", "method", "margin"} & set(push.query)
    assert push.query["gamma"] == "2.0"
    assert monitor.stats.warnings == {"malformed_parameter": 2, "not_finite_parameter": 1}


def test_things_that_look_like_arrays(faulty, monitors):
    class Wrapped:
        ndim = 2

        def __array__(self, dtype=None, copy=None):
            return GOOD

    server = faulty()
    monitor = monitors(server.url)
    parameter = torch.nn.Parameter(torch.eye(4))
    with torch.inference_mode():
        inference = torch.eye(4)
    for value in ([[1.0, 2.0]], Wrapped(), parameter, inference, GOOD.astype(">f4"), np.asfortranarray(GOOD)):
        monitor.push(layer="a", z=value)
    assert monitor.flush()
    sent = [push.tensors()["z"] for push in server.pushes]
    assert sent[0].tolist() == [[1.0, 2.0]]
    assert all(np.array_equal(rows, GOOD) for rows in sent[1:])
    assert len(sent) == 6
    assert monitor.stats.warnings == {}


def test_an_exception_from_inside_a_tensor_does_not_leave_push(faulty, monitors, caplog):
    class Broken:
        ndim = 2

        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("no numbers today")

    monitor = monitors(faulty().url)
    monitor.push(layer="a", z=Broken())
    assert monitor.stats.warnings == {"internal": 1}
    assert "no numbers today" in caplog.text


@pytest.mark.parametrize(
    "options",
    [
        {"run": "a b"}, {"run": ".."}, {"run": "x" * 129}, {"method": "simclear"}, {"every": 0}, {"max_rows": 0},
        {"worker": 1}, {"worker": 2, "workers": 2}, {"temprature": 0.1}, {"temperature": "warm"}, {"z": GOOD},
        {"token": "two\nlines"}, {"gamma": float("nan")}, {"queue_bytes": 0},
    ],
)  # fmt: skip
def test_a_monitor_that_can_never_work_is_refused_at_once(options):
    with pytest.raises(ValueError, match=r"\S"):
        Monitor("http://127.0.0.1:1", **{"run": "ok", **options})


@pytest.mark.parametrize("url", ["ftp://here", "http://", "http://host:port"])
def test_an_address_that_is_none(url):
    with pytest.raises(ValueError, match=r"\S"):
        Monitor(url, run="ok")


def test_the_address_and_the_token_come_from_the_environment(faulty, monkeypatch, run):
    server = faulty()
    monkeypatch.setenv("FULLRANK_URL", server.url)
    monkeypatch.setenv("FULLRANK_TOKEN", "from-the-environment\n")
    monitor = Monitor(run=run)
    monitor.push(layer="a", z=GOOD)
    assert monitor.flush()
    assert server.pushes[0].headers["Authorization"] == "Bearer from-the-environment"
    monitor._core.stop()


def test_close_of_nothing_is_said(faulty, monitors):
    monitor = monitors(faulty().url)
    monitor.close(window="last")  # type: ignore[arg-type]
    monitor.close(window=None)  # type: ignore[arg-type]
    assert monitor.stats.warnings == {"malformed": 2}
