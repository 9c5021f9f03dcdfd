"""The other door: stubs made from the repository's proto file compile, and push what the HTTP client pushes."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import grpc
import numpy as np
import pytest
from conftest import ROOT
from faults import until

import fullrank


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    """(messages, services) generated from fullrank.proto."""
    out = tmp_path_factory.mktemp("stubs")
    proto = ROOT / "proto"
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"-I{proto}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
    ]
    subprocess.run([*command, str(proto / "fullrank/v1/fullrank.proto")], check=True)
    # They live in a package of the client's name, and the client gives room to them.
    code = "import fullrank.v1.fullrank_pb2_grpc as s, fullrank; s.MonitorStub, fullrank.Monitor"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(out)})
    sys.path.insert(0, str(out))
    importlib.reload(fullrank)
    messages = importlib.import_module("fullrank.v1.fullrank_pb2")
    services = importlib.import_module("fullrank.v1.fullrank_pb2_grpc")
    sys.path.remove(str(out))
    return messages, services


def parts(messages, header, rows):
    yield messages.PushRequest(header=header)
    raw = rows.tobytes()
    for start in range(0, len(raw), 1 << 20):
        yield messages.PushRequest(chunk=raw[start : start + (1 << 20)])


def test_push_by_grpc_is_the_push_by_http(service, stubs, monitors, run):
    messages, services = stubs
    rows = np.random.default_rng(0).standard_normal((3000, 64))
    monitor = monitors(service.url, method="vicreg")
    monitor.push(layer="http", z=rows, window=1, step=2, last=True)
    assert monitor.flush()
    with grpc.insecure_channel(service.url.removeprefix("http://")) as channel:
        stub = services.MonitorStub(channel)
        header = messages.PushHeader(
            run=run,
            layer="grpc",
            parameters={"window": "1", "step": "2", "last": "true", "method": "vicreg", "wait": "true"},
            tensors=[messages.Tensor(name="z", dtype="F64", shape=rows.shape)],
        )
        pushed = stub.Push(parts(messages, header, rows), timeout=60)
        assert (pushed.rows, pushed.duplicate) == (3000, False)
        (by_http,) = until(lambda: service.reports(run, "http"))
        by_grpc = json.loads(pushed.report.json)
        assert by_grpc["measures"] == by_http["measures"]
        assert pushed.report.measures["entropy_rank"] == by_http["measures"]["entropy_rank"]
        verdict = stub.GetVerdict(messages.GetVerdictRequest(run=run), timeout=60)
        assert verdict.state == monitor.verdict()["state"]
        with pytest.raises(grpc.RpcError) as refused:
            header.tensors[0].name = "zz"
            stub.Push(parts(messages, header, rows), timeout=60)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
