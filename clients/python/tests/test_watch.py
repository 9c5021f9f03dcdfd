"""Forward hooks: what they push, when, and that they leave no trace."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

EYE = torch.eye(4)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.norm2d = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 5)
        self.norm = nn.BatchNorm1d(5, eps=1e-3)

    def forward(self, x):
        return self.norm(self.head(self.norm2d(self.conv(x)).mean((2, 3))))


def sent(server):
    return [(push.path.split("/")[5], push.query, push.tensors()) for push in server.pushes]


def test_pooling_pairs_and_steps(faulty, monitors):
    torch.manual_seed(0)
    server, net = faulty(), Net()
    monitor = monitors(server.url)
    modules = {"conv": net.conv, "norm2d": net.norm2d, "head": net.head, "norm": net.norm}
    handle = monitor.watch(net, modules)
    captured = {}
    for name, module in modules.items():
        module.register_forward_hook(
            lambda _, inputs, output, name=name: captured.__setitem__(name, (inputs[0].detach(), output.detach()))
        )
    x = torch.randn(6, 1, 8, 8)
    monitor.step(window=3, step=40, loss=torch.tensor(0.5), temperature=0.1)
    net(x).sum().backward()
    assert monitor.flush()
    got = {layer: (query, tensors) for layer, query, tensors in sent(server)}
    assert set(got) == set(modules)
    for query, _ in got.values():
        assert (query["window"], query["step"], query["loss"], query["temperature"]) == ("3", "40", "0.5", "0.1")
    torch.testing.assert_close(torch.tensor(got["conv"][1]["z"]), captured["conv"][1].mean((2, 3)))
    torch.testing.assert_close(torch.tensor(got["head"][1]["z"]), captured["head"][1])
    for layer, axes in (("norm2d", (2, 3)), ("norm", ())):
        before, after = captured[layer]
        query, tensors = got[layer]
        torch.testing.assert_close(torch.tensor(tensors["pre_bn"]), before.mean(axes) if axes else before)
        torch.testing.assert_close(torch.tensor(tensors["z"]), after.mean(axes) if axes else after)
        assert float(query["bn_eps"]) == pytest.approx(modules[layer].eps)
        assert query["bn_gamma"] == "1.0"
    handle.remove()
    handle.remove()
    net(x)
    assert monitor.flush()
    assert len(server.pushes) == 4


def test_views_of_a_step_are_pushed_together(faulty, monitors):
    server, net = faulty(), nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(inplace=True))
    monitor = monitors(server.url)
    with torch.no_grad():
        net[0].weight.copy_(-EYE)
    with monitor.watch(net, {"z": net[0]}, views=2, every=2):
        for step in range(5):
            # The activation behind the layer overwrites its output.
            net(EYE * (step + 1))
            net(EYE * -(step + 1))
    net(EYE)
    assert monitor.flush()
    got = sent(server)
    assert [(query["step"], query.get("window")) for _, query, _ in got] == [("0", None), ("2", None), ("4", None)]
    for (_, _, tensors), step in zip(got, (0, 2, 4)):
        assert np.array_equal(tensors["z2"], (step + 1) * np.eye(4))
    assert monitor.stats.warnings == {}


def test_the_first_view_is_a_copy_of_its_own(faulty, monitors):
    server, net = faulty(), nn.Identity()
    monitor = monitors(server.url)
    monitor.watch(net, {"z": net}, views=2)
    x = EYE.clone()
    net(x)
    x.mul_(5)
    net(x)
    assert monitor.flush()
    ((_, _, tensors),) = sent(server)
    assert np.array_equal(tensors["z1"], np.eye(4))
    assert np.array_equal(tensors["z2"], 5 * np.eye(4))


def test_views_stacked_in_one_call(faulty, monitors):
    server, net = faulty(), nn.BatchNorm1d(4)
    monitor = monitors(server.url)
    monitor.watch(net, {"z": net}, views=2, stacked=True)
    x = torch.randn(10, 4)
    out = net(x).detach()
    net(x[:9])
    assert monitor.flush()
    ((_, _, tensors),) = sent(server)
    assert np.array_equal(tensors["z1"], out[:5].numpy())
    assert np.array_equal(tensors["z2"], out[5:].numpy())
    assert np.array_equal(tensors["pre_bn"], x[:5].numpy())
    assert monitor.stats.warnings == {"watch": 1}


def test_a_step_cut_short_does_not_mix_with_the_next(faulty, monitors):
    server, net = faulty(), nn.Identity()
    monitor = monitors(server.url)
    monitor.watch(net, {"z": net}, views=2)
    monitor.step(step=0)
    net(EYE)
    for step in (1, 2):
        monitor.step(step=step)
        net(EYE * step)
        net(EYE * step)
    net(EYE * 9)  # one call too many in step 2
    assert monitor.flush()
    assert [(query["step"], tensors["z1"][0, 0], tensors["z2"][0, 0]) for _, query, tensors in sent(server)] == [
        ("1", 1, 1), ("2", 2, 2)
    ]  # fmt: skip
    assert monitor.stats.warnings == {"views": 1}


def test_only_in_training_mode(faulty, monitors):
    server, net = faulty(), nn.Sequential(nn.Linear(4, 4))
    monitor = monitors(server.url)
    monitor.watch(net, {"z": net[0]})
    net.eval()
    net(EYE)
    net.train()
    net[0].eval()
    net(EYE)
    net.train()
    net(EYE)
    assert monitor.flush()
    assert len(server.pushes) == 1


class Tokens(nn.Module):
    """Gives what it is told to give."""

    def __init__(self, output) -> None:
        super().__init__()
        self.output = output

    def forward(self, x):
        return self.output(x)


@pytest.mark.parametrize(
    ("output", "pool", "want"),
    [
        (lambda x: x, None, lambda x: x.mean(1)),
        (lambda x: (x, None), None, lambda x: x.mean(1)),
        (lambda x: {"other": x + 1, "last_hidden_state": x}, None, lambda x: x.mean(1)),
        (lambda x: {"features": x[:, 0]}, None, lambda x: x[:, 0]),
        (lambda x: [x], lambda o: o[0][:, 0], lambda x: x[:, 0]),
        (lambda x: x[..., None, None].expand(-1, -1, -1, 2, 3), None, lambda x: x.mean(2)),
    ],
)
def test_shapes_of_outputs(output, pool, want, faulty, monitors):
    server, net = faulty(), Tokens(output)
    monitor = monitors(server.url)
    monitor.watch(net, {"z": net}, pool=pool)
    x = torch.randn(4, 7, 3)
    net(x)
    assert monitor.flush()
    ((_, _, tensors),) = sent(server)
    torch.testing.assert_close(torch.tensor(tensors["z"]), want(x))


@pytest.mark.parametrize(
    ("output", "pool"),
    [
        (lambda x: "nothing", None),
        (lambda x: x, lambda o: 1 / 0),
        (lambda x: x, lambda o: 3),
        (lambda x: x[0, 0], None),
    ],
)
def test_a_hook_that_fails_leaves_the_forward_pass_alone(output, pool, faulty, monitors, caplog):
    net = Tokens(output)
    monitor = monitors(faulty().url)
    monitor.watch(net, {"z": net}, pool=pool)
    x = torch.randn(4, 7, 3, requires_grad=True)
    for _ in range(2):
        got = net(x)
        assert isinstance(got, str) or got.requires_grad
    assert list(monitor.stats.warnings.values()) == [2]
    assert len(caplog.records) == 1


def test_gradients_are_as_without(faulty, monitors):
    torch.manual_seed(0)
    net, x = Net(), torch.randn(6, 1, 8, 8)
    grads = []
    for watched in (False, True):
        net.zero_grad()
        monitor = monitors(faulty().url)
        modules = {"conv": net.conv, "norm": net.norm} if watched else {}
        with monitor.watch(net, modules):
            net(x).pow(2).sum().backward()
        grads.append([parameter.grad.clone() for parameter in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads))
    assert not net.conv._forward_hooks


def test_what_can_never_work_is_refused_at_once(monitors):
    monitor = monitors("http://127.0.0.1:1")
    net = Net()
    with pytest.raises(TypeError, match="pass the module itself"):
        monitor.watch(net, {"head": net.head, "z": "norm"})
    assert not net.head._forward_hooks
    with pytest.raises(ValueError, match="at least 1"):
        monitor.watch(net, {}, views=0)
