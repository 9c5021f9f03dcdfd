#!/usr/bin/env python3
"""Test pushes, reads and refusals over gRPC without generated code, using the service's reflection.

    python grpc_push.py http://127.0.0.1:8417

Exit code 0: the service follows its interface.
"""

import json
import math
import secrets
import sys
import urllib.parse

import grpc
import numpy as np
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

# This package supports grpc.reflection.v1alpha only; the service offers v1 as well.
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

SERVICE = "fullrank.v1.Monitor"
CHUNK = 1024 * 1024
TIMEOUT_S = 60
STATES = {"warming_up", "healthy", "degrading", "collapsed", "insufficient_rows"}
METHODS = {
    "Push", "CloseWindow", "FinishRun", "Acknowledge", "ListRuns", "ListReports", "GetSpectrum", "GetVerdict",
    "WatchVerdicts",
}  # fmt: skip


class Monitor:
    """The service's methods and messages, from reflection."""

    def __init__(self, channel):
        self.database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(self.database)
        service = pool.FindServiceByName(SERVICE)
        self.package = service.file.package
        self.pool = pool
        self.calls = {}
        for method in service.methods:
            described = descriptor_pb2.MethodDescriptorProto()
            method.CopyToProto(described)
            kind = {
                (False, False): channel.unary_unary,
                (False, True): channel.unary_stream,
                (True, False): channel.stream_unary,
                (True, True): channel.stream_stream,
            }[described.client_streaming, described.server_streaming]
            request = message_factory.GetMessageClass(method.input_type)
            response = message_factory.GetMessageClass(method.output_type)
            self.calls[method.name] = kind(
                f"/{service.full_name}/{method.name}",
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )

    def message(self, name, /, **fields):
        kind = message_factory.GetMessageClass(self.pool.FindMessageTypeByName(f"{self.package}.{name}"))
        return kind(**fields)

    def call(self, name, request):
        return self.calls[name](request, timeout=TIMEOUT_S)

    def push(self, run, layer, tensors, claim=None, **parameters):
        """Send the header, then the tensors back to back in chunks. `claim`: other names and shapes for the header."""
        described = []
        for name, array in (claim or tensors).items():
            dtype = {"<f4": "F32", "<f8": "F64", "<f2": "F16"}[array.dtype.str]
            described.append(self.message("Tensor", name=name, dtype=dtype, shape=array.shape))
        texts = {name: str(value).lower() for name, value in parameters.items()}
        header = self.message("PushHeader", run=run, layer=layer, parameters=texts, tensors=described)
        data = b"".join(array.tobytes() for array in tensors.values())

        def parts():
            yield self.message("PushRequest", header=header)
            for start in range(0, len(data), CHUNK):
                yield self.message("PushRequest", chunk=data[start : start + CHUNK])

        return self.call("Push", parts())


def same(what, got, want):
    assert got == want, f"{what}: got {got!r}, want {want!r}"


def close(what, got, want, relative=1e-9):
    assert abs(got - want) <= relative * abs(want), f"{what}: got {got!r}, want {want!r} to {relative}"


def refused(code, reason, action):
    """Run what must be refused; return the message. The error code is ErrorInfo.reason in grpc-status-details-bin."""
    try:
        result = action()
        if hasattr(result, "__next__"):
            result = list(result)
    except grpc.RpcError as error:
        same(f"gRPC code ({error.details()})", error.code(), code)
        status = rpc_status.from_call(error)
        assert status is not None, f"no grpc-status-details-bin alongside {error.details()!r}"
        info = error_details_pb2.ErrorInfo()
        unpacked = [info.reason for detail in status.details if detail.Unpack(info)]
        same(f"ErrorInfo.reason ({error.details()})", unpacked, [reason])
        return error.details()
    raise AssertionError(f"expected a refusal with {reason}, got {result!r}")


def eigenvalues(rows):
    c = rows - rows.mean(axis=0)
    return np.linalg.eigvalsh(c.T @ c / len(rows))[::-1]


def discovery(channel, monitor):
    services = set(monitor.database.get_services())
    assert {SERVICE, "grpc.health.v1.Health"} <= services, services
    same("methods", set(monitor.calls), METHODS)
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE):
        reply = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S)
        same(f"health of {name!r}", reply.status, health_pb2.HealthCheckResponse.SERVING)


def pushes(monitor, run, rng):
    """Two views of 1.5 MiB each, with the report."""
    n, d, layer = 1536, 256, "projector"
    shared = rng.standard_normal((n, d)) * np.arange(1, d + 1) ** -0.5
    z1, z2 = ((shared + 0.2 * rng.standard_normal((n, d))).astype("<f4") for _ in range(2))
    where = {"window": 1, "session": 11, "worker": 0, "workers": 1, "method": "simsiam"}

    def send(**more):
        return monitor.push(run, layer, {"z1": z1, "z2": z2}, **where, **more)

    reply = send(seq=1, step=100, loss=-0.25, wait=True)
    same("reply", (reply.run, reply.layer, reply.window, reply.rows, reply.duplicate), (run, layer, 1, 2 * n, False))
    assert reply.HasField("report"), "wait must bring the report"

    rows = np.concatenate([z1, z2]).astype(np.float64)
    values = eigenvalues(rows)
    p = values / values.sum()
    units = rows / np.linalg.norm(rows, axis=1)[:, None]
    measures = dict(reply.report.measures)
    close("total_variance", measures["total_variance"], values.sum())
    close("entropy_rank", measures["entropy_rank"], math.exp(-(p * np.log(p)).sum()))
    close("stable_rank", measures["stable_rank"], 1 / (p**2).sum())
    close("center_norm", measures["center_norm"], np.linalg.norm(units.mean(axis=0)))
    close("alignment", measures["alignment"], ((units[:n] - units[n:]) ** 2).sum(axis=1).mean())
    document = json.loads(reply.report.json)
    same("the report as JSON", (document["rows"], document["samples"], document["views"], document["dim"],
                                document["closed"]), (2 * n, n, 2, d, False))
    same("measures as JSON", {k: document["measures"][k] for k in measures}, measures)

    again = send(seq=1, step=100, loss=-0.25)
    same("sent again", (again.duplicate, again.rows), (True, 2 * n))

    closed = monitor.call("CloseWindow", monitor.message("CloseWindowRequest", run=run, window=1))
    same("reports of a close", [(r.layer, r.window, r.revision) for r in closed.reports], [(layer, 1, 1)])
    assert closed.reports[0].state in STATES, closed.reports[0].state
    refused(grpc.StatusCode.FAILED_PRECONDITION, "window_closed", lambda: send(seq=2))
    return values


def reads(monitor, run, values):
    layer = "projector"
    rng = np.random.default_rng(2)
    small = rng.standard_normal((40, 256)).astype("<f4")
    where = {"window": 2, "session": 11, "worker": 0, "seq": 3}
    reply = monitor.push(run, layer, {"z1": small, "z2": small}, **where, last=True, wait=True)
    same("closed by last", json.loads(reply.report.json)["closed"], True)

    def windows(**bounds):
        request = monitor.message("ListReportsRequest", run=run, layer=layer, **bounds)
        return [report.window for report in monitor.call("ListReports", request)]

    same("windows listed", windows(), [1, 2])
    same("from the second", windows(**{"from": 2}), [2])
    same("to the first", windows(to=1), [1])

    spectrum = monitor.call("GetSpectrum", monitor.message("GetSpectrumRequest", run=run, layer=layer, window=1))
    got = np.array(spectrum.eigenvalues)
    same("eigenvalues and window", (got.shape, spectrum.window), (values.shape, 1))
    worst = np.abs(got - values).max() / values[0]
    assert worst <= 1e-11, f"eigenvalues are off by {worst} of the largest"
    assert (np.diff(got) <= 0).all(), "eigenvalues must descend"
    same("noise floor", spectrum.noise_floor, max(spectrum.input_noise_floor, spectrum.numeric_noise_floor))
    newest = monitor.call("GetSpectrum", monitor.message("GetSpectrumRequest", run=run, layer=layer))
    same("the newest window", newest.window, 2)

    verdict = monitor.call("GetVerdict", monitor.message("GetVerdictRequest", run=run))
    same("verdict of", (verdict.run, verdict.layer), (run, layer))
    assert verdict.state in STATES and verdict.current_state in STATES, verdict
    watch = monitor.call("WatchVerdicts", monitor.message("WatchVerdictsRequest", run=run))
    first = next(watch)
    watch.cancel()
    same("first verdict watched", (first.run, first.state), (run, verdict.state))

    runs = {r.run: r for r in monitor.call("ListRuns", monitor.message("ListRunsRequest")).runs}
    assert run in runs and layer in runs[run].layers and not runs[run].finished, runs.get(run)
    same("method", runs[run].method, "simsiam")


def refusals(monitor, run):
    codes, layer = grpc.StatusCode, "projector"
    rows = np.ones((12, 256), dtype="<f4")
    ghost = f"ghost-{secrets.token_hex(4)}"  # every push to it is refused

    detail = refused(codes.INVALID_ARGUMENT, "malformed", lambda: monitor.push(ghost, layer, {"zz": rows}, window=1))
    assert "zz" in detail, f"the message does not name the tensor: {detail}"
    refused(codes.INVALID_ARGUMENT, "malformed", lambda: monitor.push("a b", layer, {"z": rows}, window=1))
    refused(codes.INVALID_ARGUMENT, "malformed", lambda: monitor.push(ghost, layer, {"z": rows}, window=1, windw=1))
    headless = lambda: monitor.call("Push", iter([monitor.message("PushRequest", chunk=b"1234")]))
    refused(codes.INVALID_ARGUMENT, "malformed", headless)
    fewer = lambda: monitor.push(ghost, layer, {"z": rows[:-1]}, claim={"z": rows}, window=1)
    refused(codes.INVALID_ARGUMENT, "wrong_length", fewer)

    broken = rows.copy()
    broken[3, 2] = np.inf
    detail = refused(codes.INVALID_ARGUMENT, "not_finite", lambda: monitor.push(ghost, layer, {"z": broken}, window=1))
    assert "row 3" in detail and "column 2" in detail, f"the message does not say where: {detail}"

    narrow = rows[:, :-1].copy()
    mismatch = lambda: monitor.push(run, layer, {"z1": narrow, "z2": narrow}, window=3, session=11, worker=0, seq=9)
    refused(codes.FAILED_PRECONDITION, "dimension_mismatch", mismatch)

    for name, request in (
        ("GetVerdict", monitor.message("GetVerdictRequest", run=ghost)),
        ("GetSpectrum", monitor.message("GetSpectrumRequest", run=ghost, layer=layer)),
        ("ListReports", monitor.message("ListReportsRequest", run=ghost, layer=layer)),
        ("CloseWindow", monitor.message("CloseWindowRequest", run=ghost, window=1)),
        ("FinishRun", monitor.message("FinishRunRequest", run=ghost)),
        ("Acknowledge", monitor.message("AcknowledgeRequest", run=ghost)),
    ):
        refused(codes.NOT_FOUND, "not_found", lambda: monitor.call(name, request))


def ending(monitor, run):
    acknowledged = monitor.call("Acknowledge", monitor.message("AcknowledgeRequest", run=run))
    same("acknowledged", (acknowledged.run, acknowledged.latched), (run, False))
    monitor.call("FinishRun", monitor.message("FinishRunRequest", run=run))
    runs = {r.run: r for r in monitor.call("ListRuns", monitor.message("ListRunsRequest")).runs}
    same("finished", runs[run].finished, True)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    address = urllib.parse.urlsplit(sys.argv[1]).netloc
    run = f"grpc-{secrets.token_hex(4)}"
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        monitor = Monitor(channel)
        discovery(channel, monitor)
        values = pushes(monitor, run, np.random.default_rng(20260102))
        reads(monitor, run, values)
        refusals(monitor, run)
        ending(monitor, run)
    print(f"ok: {run}")


if __name__ == "__main__":
    main()
