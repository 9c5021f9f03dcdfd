"""The client against the real service: what was pushed is what is measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import Service
from faults import until

from fullrank import CollapseError


def total_variance(rows: np.ndarray) -> float:
    return float(rows.astype(np.float64).var(axis=0).sum())


def test_a_training_of_two_views(service, monitors, run):
    monitor = monitors(service.url, method="simsiam", temperature=0.1)
    generator = torch.Generator().manual_seed(1)
    windows = []
    for epoch in range(3):
        rows = []
        for step in range(4):
            z1 = torch.randn(32, 16, generator=generator, requires_grad=True)
            z2 = z1 + 0.1 * torch.randn(32, 16, generator=generator)
            monitor.push(layer="projector", z1=z1, z2=z2, window=epoch, step=4 * epoch + step, loss=z2.mean())
            rows += [z1.detach().numpy().copy(), z2.detach().numpy().copy()]
            with torch.no_grad():
                z1.zero_()  # a trainer reuses its buffers
        monitor.close(window=epoch)
        windows.append(np.concatenate(rows))
    assert monitor.flush()
    reports = service.reports(run, "projector")
    assert [(r["window"], r["rows"], r["views"], r["step"]) for r in reports] == [
        (0, 256, 2, 3), (1, 256, 2, 7), (2, 256, 2, 11)
    ]  # fmt: skip
    for report, rows in zip(reports, windows):
        assert report["measures"]["total_variance"] == pytest.approx(total_variance(rows), rel=1e-12)
    verdict = monitor.verdict()
    assert verdict["run"] == run
    assert verdict["window"] == 2
    assert monitor.finish()
    assert monitor.finish()
    assert service.get(f"/v1/runs/{run}")["finished"] is True
    stats = monitor.stats
    assert (stats.pushed, stats.sent, stats.sent_rows, stats.dropped, stats.refused) == (12, 12, 12 * 32, 0, 0)
    assert stats.warnings == {}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_float_types(service, monitors, run, dtype):
    rows = torch.randn(40, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(dtype)
    monitor = monitors(service.url)
    monitor.push(layer="rows", z=rows, window=0, last=True)
    monitor.push(layer="moments", z=rows, window=0, last=True, moments=True)
    assert monitor.flush()
    want = total_variance(rows.double().numpy())
    for layer in ("rows", "moments"):
        (report,) = until(lambda layer=layer: service.reports(run, layer))
        assert report["measures"]["total_variance"] == pytest.approx(want, rel=1e-12)
        assert report["rows"] == 40


def test_moments_are_the_rows(service, monitors, run):
    """Every measure that both can have agrees, also far from the origin."""
    rows = torch.randn(300, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 1e3
    monitor = monitors(service.url)
    monitor.push(layer="rows", z=rows, window=0, last=True)
    monitor.push(layer="moments", z1=rows[:150], z2=rows[150:], window=0, last=True, moments=True)
    assert monitor.flush()
    (by_rows,), (by_moments,) = (until(lambda at=at: service.reports(run, at)) for at in ("rows", "moments"))
    assert by_moments["rows"] == 300
    for name in ("total_variance", "entropy_rank", "stable_rank", "scaled_std", "mean_cosine", "center_norm"):
        assert by_moments["measures"][name] == pytest.approx(by_rows["measures"][name], rel=1e-6), name


def test_workers_push_their_own_rows(service, monitors, run):
    rows = np.random.default_rng(4).standard_normal((60, 6))
    both = [monitors(service.url, worker=worker, workers=2) for worker in range(2)]
    for worker, monitor in enumerate(both):
        monitor.push(layer="z", z=rows[worker::2], window=7, last=True)
    assert all(monitor.flush() for monitor in both)
    (report,) = until(lambda: service.reports(run, "z"))
    assert (report["window"], report["rows"], report["complete"]) == (7, 60, True)
    assert report["measures"]["total_variance"] == pytest.approx(total_variance(rows), rel=1e-12)


def test_a_step_is_a_window_of_workers_without_window(service, monitors, run):
    both = [monitors(service.url, worker=worker, workers=2) for worker in range(2)]
    for monitor in both:
        monitor.push(layer="z", z=np.eye(4), step=5)
        assert monitor.flush()
    (report,) = until(lambda: service.reports(run, "z"))
    assert (report["window"], report["rows"], report["complete"]) == (5, 8, True)


def test_collapse_is_raised_where_asked_for(service, monitors, run):
    monitor = monitors(service.url, raise_on_collapse=True, poll_seconds=0.05)
    quiet = monitors(service.url)
    constant = np.full((64, 8), 0.3) + 1e-6 * np.random.default_rng(5).standard_normal((64, 8))

    def push_until_it_raises() -> bool:
        window = monitor.stats.pushed
        try:
            monitor.push(layer="z", z=constant, window=window, step=600 * window, last=True)
        except CollapseError as error:
            assert error.verdict["state"] == "collapsed"
            assert run in str(error)
            return True
        return False

    assert until(push_until_it_raises, "for CollapseError", 60)
    quiet.push(layer="z", z=constant)  # does not raise


def test_all_kinds_of_tensors_and_parameters_are_understood(service, monitors, run):
    monitor = monitors(service.url, method="nnclr", queue_size=128, unit_moments=True, precision="f64", spectrum=True)
    z = np.random.default_rng(6).standard_normal((24, 4)).astype(np.float32)
    monitor.push(
        layer="all", z1=z, z2=z, teacher1=z, prediction1=z, pre_bn=z, negative1=z, logits1=z, teacher_logits1=z,
        codes1=np.full((24, 4), 0.25), ids=np.arange(24), labels=torch.zeros(24, dtype=torch.int32),
        neighbors=np.arange(24, dtype=np.int8), edges=np.array([[0, 1]]), center=z[0], prototype_weight=z[:4],
        predictor_weight=z[:4], lambda_=0.005, bn_eps=1e-5,
        bn_gamma=torch.tensor(1.0), batch_size=24, invariance_weight=25, step=1, window=1, last=True,
    )  # fmt: skip
    monitor.push(layer="scores", logits1=z, teacher_logits1=z, window=0, last=True)
    monitor.push(layer="mine", count=24, mean=z.mean(0), m2=24 * np.cov(z.T, bias=True), window=0, last=True)
    assert monitor.flush()
    assert monitor.stats.warnings == {}
    assert monitor.stats.sent == 3
    layers = {entry["layer"] for entry in service.get(f"/v1/runs/{run}")["layers"]}
    assert layers == {"all", "all:teacher", "all:prediction", "all:pre_bn", "mine", "scores"}


def test_sampled_rows_and_edges_are_valid_for_the_service(service, monitors, run):
    monitor = monitors(service.url, max_rows=10)
    z = torch.randn(100, 4, generator=torch.Generator().manual_seed(7))
    edges = torch.tensor([[i, 100 + (i + 1) % 100] for i in range(100)])
    monitor.push(layer="z", z1=z, z2=z, labels=torch.arange(100), edges=edges, window=0, last=True)
    assert monitor.flush()
    (report,) = until(lambda: service.reports(run, "z"))
    assert report["samples"] == 10
    assert monitor.stats.warnings == {}


def test_not_finite_rows_are_refused_once_said_and_the_window_still_closes(service, monitors, run, caplog):
    monitor = monitors(service.url)
    z = np.random.default_rng(8).standard_normal((20, 4))
    bad = z.copy()
    bad[0, 1] = np.nan
    bad[3] = np.inf
    monitor.push(layer="z", z=z, window=0)
    for _ in range(3):
        monitor.push(layer="z", z1=None, z=bad, window=0)
    monitor.push(layer="z", z=bad, window=0, last=True)
    assert monitor.flush()
    stats = monitor.stats
    assert (stats.refusals, stats.refused, stats.sent) == ({"not_finite": 4}, 4, 2)
    assert [record.getMessage().count("row 0, column 1") for record in caplog.records] == [1]
    (report,) = until(lambda: service.reports(run, "z"))
    # One good row of the refused batch carried its `last`.
    assert report["rows"] == 21


def test_a_window_whose_last_batch_is_all_nan_closes(service, monitors, run):
    monitor = monitors(service.url)
    monitor.push(layer="z", z=np.eye(16), window=0)
    monitor.push(layer="z", z=np.full((16, 16), np.nan), window=0, last=True)
    assert monitor.flush()
    assert [report["rows"] for report in service.reports(run, "z")] == [16]


def test_a_misspelt_number_costs_itself_and_not_the_rows(service, monitors, run, caplog):
    monitor = monitors(service.url)
    for window in range(2):
        monitor.push(layer="z", z=np.eye(16), window=window, last=True, temprature=0.1, loss=0.5)
    assert monitor.flush()
    reports = until(lambda: service.reports(run, "z")[1:] and service.reports(run, "z"))
    assert [report["loss"] for report in reports] == [0.5, 0.5]
    assert monitor.stats.warnings == {"unknown_parameter": 2}
    assert "temprature" in caplog.text


def test_close_and_finish_of_what_never_arrived_are_no_trouble(service, monitors):
    monitor = monitors(service.url)
    monitor.close(window=3)
    assert monitor.flush()
    assert monitor.finish()
    assert monitor.verdict() is None
    assert monitor.stats.warnings == {}


def test_dimension_mismatch_is_said(service, monitors, run, caplog):
    monitor = monitors(service.url)
    monitor.push(layer="z", z=np.eye(16))
    monitor.push(layer="z", z=np.eye(8))
    assert monitor.flush()
    assert monitor.stats.refusals == {"dimension_mismatch": 1}
    assert "another layer name" in caplog.text


def test_token(tmp_path, monitors, monkeypatch, caplog):
    (tmp_path / "token").write_text("s3cret-s3cret-s3cret\n")
    service = Service(tmp_path / "data", "--token-file", str(tmp_path / "token"))
    try:
        wrong = monitors(service.url, token="wrong")
        wrong.push(layer="z", z=np.eye(4))
        until(lambda: wrong.stats.warnings.get("unauthenticated", 0) >= 2, "for a second try")
        assert wrong.stats.sent == 0
        assert caplog.text.count("FULLRANK_TOKEN") == 1
        monkeypatch.setenv("FULLRANK_TOKEN", "s3cret-s3cret-s3cret")
        right = monitors(service.url)
        right.push(layer="z", z=np.eye(4))
        assert right.flush()
        assert right.stats.sent == 1
        assert right.verdict()["run"] == right.run
    finally:
        service.stop()


def test_a_service_that_is_killed_and_comes_back(tmp_path, monitors, run):
    """Batches wait, and count once."""
    first = Service(tmp_path / "data")
    monitor = monitors(first.url)
    monitor.push(layer="z", z=np.eye(16), window=0, last=True)
    assert monitor.flush()
    until(lambda: first.reports(run, "z"))
    first.stop()
    monitor.push(layer="z", z=np.eye(16), window=1, last=True)
    until(lambda: monitor.stats.retries >= 2)
    port = first.url.rsplit(":", 1)[1]
    second = Service(tmp_path / "data", listen=f"127.0.0.1:{port}")
    try:
        assert monitor.flush(60)
        assert [r["window"] for r in until(lambda: second.reports(run, "z")[1:] and second.reports(run, "z"))] == [0, 1]
        assert monitor.stats.sent == 2
    finally:
        second.stop()
