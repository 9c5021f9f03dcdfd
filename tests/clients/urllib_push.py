#!/usr/bin/env python3
"""Test pushes, reads and refusals over HTTP, using only the standard library and numpy.

    python urllib_push.py http://127.0.0.1:8417

Exit code 0: the service follows its interface.
"""

import csv
import gzip
import io
import json
import math
import secrets
import struct
import sys
import urllib.error
import urllib.parse
import urllib.request

import numpy as np

NPY = "application/x-npy"
SAFETENSORS = "application/x-safetensors"
JSON = "application/json"
PROBLEM = "application/problem+json"
STATES = {"warming_up", "healthy", "degrading", "collapsed", "insufficient_rows"}
AXIS = {"ok", "warning", "critical", "unknown"}
D = 16


# ---------------------------------------------------------------- the wire


class Reply:
    def __init__(self, status, headers, body):
        self.status = status
        self.type = headers.get_content_type()
        self.headers = headers
        self.body = body

    def json(self):
        return json.loads(self.body)


class Service:
    def __init__(self, base):
        self.base = base.rstrip("/")
        # Ignore proxies set in the environment.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, method, path, body=None, headers=None, **query):
        url = self.base + path
        if query:
            url += "?" + urllib.parse.urlencode(query)
        request = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
        try:
            with self.opener.open(request, timeout=60) as response:
                return Reply(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.headers, error.read())

    def push(self, run, layer, body, content_type, encoding=None, **query):
        headers = {"Content-Type": content_type}
        if encoding:
            headers["Content-Encoding"] = encoding
        return self.call("POST", f"/v1/runs/{run}/layers/{layer}/batches", body, headers, **query)


def npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def safetensors(tensors, metadata=None):
    """u64 length of the header, the header as JSON, then the tensors back to back."""
    names = {np.dtype("<f8"): "F64", np.dtype("<f4"): "F32", np.dtype("<f2"): "F16"}
    header, chunks, offset = {}, [], 0
    if metadata:
        header["__metadata__"] = metadata
    for name, array in tensors.items():
        raw = np.ascontiguousarray(array).tobytes()
        header[name] = {
            "dtype": names[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + len(raw)],
        }
        chunks.append(raw)
        offset += len(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(chunks)


# ---------------------------------------------------------------- what must come out


def eigenvalues(rows):
    """Of the covariance M2/N, descending."""
    c = rows - rows.mean(axis=0)
    return np.linalg.eigvalsh(c.T @ c / len(rows))[::-1]


def expected(rows):
    rows = np.asarray(rows, dtype=np.float64)
    values = np.clip(eigenvalues(rows), 0, None)
    p = values / values.sum()
    positive = p[p > 0]
    units = rows / np.linalg.norm(rows, axis=1)[:, None]
    return {
        "total_variance": values.sum(),
        "entropy_rank": math.exp(-(positive * np.log(positive)).sum()),
        "stable_rank": 1 / (p**2).sum(),
        "intrinsic_dimension": 1 / p[0],
        "center_norm": np.linalg.norm(units.mean(axis=0)),
    }


def same(what, got, want):
    assert got == want, f"{what}: got {got!r}, want {want!r}"


def close(what, got, want, relative=1e-9):
    assert isinstance(got, (int, float)), f"{what}: got {got!r}, want {want}"
    assert abs(got - want) <= relative * abs(want), f"{what}: got {got!r}, want {want!r} to {relative}"


def accepted(reply, run, layer, window, rows, duplicate=False):
    same(f"status of a push ({reply.body[:300]!r})", reply.status, 202)
    same("content type", reply.type, JSON)
    want = {"run": run, "layer": layer, "window": window, "rows": rows, "duplicate": duplicate}
    body = reply.json()
    same("body of a push", {name: body.get(name) for name in want}, want)


def ok(reply):
    same(f"status ({reply.body[:300]!r})", reply.status, 200)
    same("content type", reply.type, JSON)
    return reply.json()


def report_agrees(report, rows, run, layer, window, closed):
    want = {"run": run, "layer": layer, "window": window, "rows": len(rows), "dim": rows.shape[1], "closed": closed}
    same("report", {name: report.get(name) for name in want}, want)
    for name, value in expected(rows).items():
        close(f"{layer}/{window} {name}", report["measures"][name], value)
    verdict = report["verdict"]
    assert verdict["state"] in STATES, verdict
    assert verdict["scale"] in AXIS and verdict["dimension"] in AXIS, verdict
    assert isinstance(verdict["cause"], str) and isinstance(verdict["reasons"], list), verdict


def refused(reply, status, *codes):
    """An RFC 9457 problem with a code word; returns its detail."""
    same(f"status of a refusal ({reply.body[:300]!r})", reply.status, status)
    same("content type of a refusal", reply.type, PROBLEM)
    problem = reply.json()
    missing = {"type", "title", "status", "detail", "code"} - problem.keys()
    assert not missing, f"problem lacks {missing}: {problem}"
    same("status inside the problem", problem["status"], status)
    assert problem["code"] in codes, f"code {problem['code']!r}, want one of {codes}: {problem['detail']}"
    for name in ("type", "title", "detail"):
        assert isinstance(problem[name], str) and problem[name], f"{name} is empty: {problem}"
    return problem["detail"]


# ---------------------------------------------------------------- the checks


def pushes(service, run, rng):
    """Four encodings into one window, the report so far and the closed one."""
    layer, session = "projector", secrets.randbits(63)
    parts = [rng.standard_normal((n, D)) * np.arange(1, D + 1) ** -0.5 + 0.2 for n in (64, 40, 30, 10)]
    parts[1] = parts[1].astype("<f4")
    where = {"window": 1, "session": session, "worker": 0, "workers": 1}

    def send(body, content_type, encoding=None, **query):
        return service.push(run, layer, body, content_type, encoding, **where, **query)

    accepted(send(npy(parts[0]), NPY, seq=1, step=10), run, layer, 1, 64)
    accepted(send(npy(parts[0]), NPY, seq=1, step=10), run, layer, 1, 64, duplicate=True)
    accepted(send(safetensors({"z": parts[1]}, {"loss": "0.75"}), SAFETENSORS, seq=2, step=11), run, layer, 1, 104)

    reply = send(gzip.compress(npy(np.asfortranarray(parts[2]))), NPY, "gzip", seq=3, step=12, wait="true")
    so_far = np.concatenate(parts[:3]).astype(np.float64)
    report_agrees(ok(reply), so_far, run, layer, 1, closed=False)

    body = json.dumps({"z": parts[3].tolist(), "last": True, "loss": 0.5}).encode()
    report = ok(send(body, JSON, seq=4, step=13, wait="true"))
    rows = np.concatenate([so_far, parts[3]])
    report_agrees(report, rows, run, layer, 1, closed=True)
    same("complete", report["complete"], True)
    same("step", report["step"], 13)
    same("loss", report["loss"], 0.5)
    same("views", report["views"], 1)
    same("alignment of one view", report["measures"]["alignment"], None)

    # A closed window: a batch sent before is a duplicate, a new one is too late.
    accepted(send(body, JSON, seq=4, step=13), run, layer, 1, len(rows), duplicate=True)
    refused(send(npy(parts[0]), NPY, seq=5), 409, "window_closed")
    return rows, session


def closing(service, run, rng, session):
    """Close a window by request, then list the reports."""
    layer = "projector"
    rows = rng.standard_normal((50, D))
    reply = service.push(run, layer, npy(rows), NPY, window=2, session=session, worker=0, seq=6)
    accepted(reply, run, layer, 2, 50)
    closed = ok(service.call("POST", f"/v1/runs/{run}/windows/2/close"))
    same("reports of a close", [(r["layer"], r["window"]) for r in closed["reports"]], [(layer, 2)])
    report_agrees(closed["reports"][0], rows, run, layer, 2, closed=True)
    late = service.push(run, layer, npy(rows), NPY, window=2, session=session, worker=0, seq=7)
    refused(late, 409, "window_closed")

    path = f"/v1/runs/{run}/layers/{layer}/reports"
    listed = ok(service.call("GET", path))
    same("windows listed", [r["window"] for r in listed["reports"]], [1, 2])
    same("next", listed["next"], None)
    same("only the second", [r["window"] for r in ok(service.call("GET", path, **{"from": 2}))["reports"]], [2])
    same("only the first", [r["window"] for r in ok(service.call("GET", path, to=1))["reports"]], [1])
    first = ok(service.call("GET", path, limit=1))
    same("limited", [r["window"] for r in first["reports"]], [1])
    assert first["next"] is not None, "a list cut short must say where it goes on"


def spectrum(service, run, rows):
    """The same eigenvalues in three representations."""
    path = f"/v1/runs/{run}/layers/projector/spectrum"

    def get(accept):
        return service.call("GET", path, headers={"Accept": accept}, window=1)

    document = ok(get(JSON))
    values = document["eigenvalues"]
    truth = eigenvalues(rows)
    same("number of eigenvalues", len(values), D)
    same("order of eigenvalues", values, sorted(values, reverse=True))
    for i, (got, want) in enumerate(zip(values, truth)):
        assert abs(got - want) <= 1e-11 * truth[0], f"eigenvalue {i + 1}: got {got}, want {want}"
    for name in ("noise_floor", "input_noise_floor", "numeric_noise_floor"):
        assert 0 < document[name] < truth[-1], f"{name}: {document[name]}"
    assert document["noise_floor"] == max(document["input_noise_floor"], document["numeric_noise_floor"]), document

    reply = get(NPY)
    same("npy status and type", (reply.status, reply.type), (200, NPY))
    same("npy", np.load(io.BytesIO(reply.body)).ravel().tolist(), values)

    reply = get("text/csv")
    same("csv status and type", (reply.status, reply.type), (200, "text/csv"))
    table = [line for line in csv.reader(io.StringIO(reply.body.decode())) if line and not line[0].startswith("#")]
    assert "eigenvalue" in table[0], f"the csv has no column named eigenvalue: {table[0]}"
    column = table[0].index("eigenvalue")
    same("csv", [float(line[column]) for line in table[1:]], values)

    refused(get("image/gif"), 406, "not_acceptable")


def views(service, run, rng):
    """Two views in half precision: the service measures the rounded numbers."""
    shared = rng.standard_normal((60, D))
    z1, z2 = ((shared + 0.3 * rng.standard_normal((60, D))).astype("<f2") for _ in range(2))
    report = ok(service.push(run, "views", safetensors({"z1": z1, "z2": z2}), SAFETENSORS, window=1, wait="true"))
    rows = np.concatenate([z1, z2]).astype(np.float64)
    report_agrees(report, rows, run, "views", 1, closed=False)
    same("samples and views", (report["samples"], report["views"]), (60, 2))
    units = rows / np.linalg.norm(rows, axis=1)[:, None]
    alignment = ((units[:60] - units[60:]) ** 2).sum(axis=1).mean()
    close("alignment", report["measures"]["alignment"], alignment)
    close("positive cosine", report["measures"]["positive_cosine"], 1 - alignment / 2)


def constant(service, run):
    """A complete collapse is reported at once, even during warm-up."""
    rows = np.full((64, D), 0.1)
    report = ok(service.push(run, "constant", npy(rows), NPY, window=1, wait="true"))
    same("scale and cause", (report["verdict"]["scale"], report["verdict"]["cause"]), ("critical", "constant"))
    for name in ("entropy_rank", "stable_rank", "intrinsic_dimension"):
        same(name, report["measures"][name], None)


def refusals(service, run, rng):
    """What the service refuses, and that a refusal leaves nothing behind."""
    layer, rows = "projector", rng.standard_normal((20, D))
    ghost = f"ghost-{secrets.token_hex(4)}"  # every push to it is refused

    detail = refused(service.push(ghost, layer, safetensors({"zz": rows}), SAFETENSORS, window=1), 400, "malformed")
    assert "zz" in detail, f"the detail does not name the tensor: {detail}"
    ragged = b'{"z": [[1, 2, 3], [4, 5]]}'
    refused(service.push(ghost, layer, ragged, JSON, window=1), 400, "malformed", "wrong_length")
    refused(service.push(ghost, layer, b'{"z": [[1, 2], [3,', JSON, window=1), 400, "malformed")
    refused(service.push(ghost, layer, b"1 2 3", "text/plain", window=1), 415, "unsupported_type")
    cut = npy(rows)[:-8]
    refused(service.push(ghost, layer, cut, NPY, window=1), 400, "malformed", "wrong_length")
    refused(service.push(ghost, layer, npy(rows), NPY, "gzip", window=1), 400, "malformed")
    two_losses = safetensors({"z": rows}, {"loss": "1"})
    refused(service.push(ghost, layer, two_losses, SAFETENSORS, window=1, loss=2), 400, "malformed")
    uneven = safetensors({"z1": rows, "z2": rows[:-1].copy()})
    refused(service.push(ghost, layer, uneven, SAFETENSORS, window=1), 400, "malformed", "wrong_length")
    refused(service.push(ghost, layer, npy(rows), NPY, window=1, windw=2), 400, "malformed")
    refused(service.push(ghost, layer, npy(rows), NPY, window="one"), 400, "malformed")
    refused(service.push("a%20b", layer, npy(rows), NPY, window=1), 400, "malformed")

    broken = rows.copy()
    broken[3, 2] = np.nan
    broken[7, 1] = np.inf
    where = {"window": 9, "session": 1, "worker": 0, "seq": 1}
    detail = refused(service.push(ghost, layer, npy(broken), NPY, **where), 422, "not_finite")
    assert "row 3" in detail and "column 2" in detail, f"the detail does not say where: {detail}"

    for path in ("verdict", f"layers/{layer}/reports", f"layers/{layer}/spectrum", ""):
        refused(service.call("GET", f"/v1/runs/{ghost}/{path}".rstrip("/")), 404, "not_found")
    refused(service.call("POST", f"/v1/runs/{ghost}/windows/1/close"), 404, "not_found")
    refused(service.call("GET", f"/v1/runs/{run}/layers/nowhere/reports"), 404, "not_found")

    # A refused batch leaves its seq free.
    other = f"{run}-mended"
    refused(service.push(other, layer, npy(broken), NPY, **where), 422, "not_finite")
    accepted(service.push(other, layer, npy(rows), NPY, **where), other, layer, 9, 20)
    wider = rng.standard_normal((20, D + 1))
    refused(service.push(other, layer, npy(wider), NPY, **(where | {"seq": 2})), 409, "dimension_mismatch")
    removed = service.call("DELETE", f"/v1/runs/{other}")
    assert removed.status in (200, 204), f"DELETE: {removed.status} {removed.body[:300]!r}"
    refused(service.call("GET", f"/v1/runs/{other}/verdict"), 404, "not_found")


def ending(service, run):
    """Read the verdict, acknowledge, finish."""
    verdict = ok(service.call("GET", f"/v1/runs/{run}/verdict"))
    assert verdict["state"] in STATES, verdict
    assert "current" in verdict and "since_window" in verdict, verdict
    assert isinstance(ok(service.call("POST", f"/v1/runs/{run}/acknowledge")), dict)
    assert isinstance(ok(service.call("POST", f"/v1/runs/{run}/finish")), dict)

    runs = {entry["run"]: entry for entry in ok(service.call("GET", "/v1/runs"))["runs"]}
    assert run in runs, f"{run} is not among {sorted(runs)}"
    same("finished", runs[run]["finished"], True)
    layers = {layer["layer"] if isinstance(layer, dict) else layer for layer in runs[run]["layers"]}
    assert {"projector", "views", "constant"} <= layers, layers
    # finish closed the open windows
    listed = ok(service.call("GET", f"/v1/runs/{run}/layers/views/reports"))["reports"]
    same("windows closed by finish", [(r["window"], r["closed"]) for r in listed], [(1, True)])


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    service = Service(sys.argv[1])
    rng = np.random.default_rng(20260101)
    run = f"urllib-{secrets.token_hex(4)}"
    rows, session = pushes(service, run, rng)
    closing(service, run, rng, session)
    spectrum(service, run, rows)
    views(service, run, rng)
    constant(service, run)
    refusals(service, run, rng)
    ending(service, run)
    print(f"ok: {run}")


if __name__ == "__main__":
    main()
