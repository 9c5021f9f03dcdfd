"""The few requests that the zoo itself sends to a service: recorded pushes, finish, and reads of the conclusion."""

import http.client
import json
import time
import urllib.parse

from safetensors.torch import save

PAGE = 500  # reports per request
PATIENCE = 60  # seconds to wait for the last windows after finish


class Service:
    """One kept-alive connection. Retries refusals that may be temporary."""

    def __init__(self, url, token=None):
        parts = urllib.parse.urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.connection = kind(parts.netloc, timeout=120)
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def request(self, verb, path, body=None, kind="application/x-safetensors"):
        headers = {**self.headers, **({"Content-Type": kind} if body is not None else {})}
        while True:
            self.connection.request(verb, path, body=body, headers=headers)
            answer = self.connection.getresponse()
            text = answer.read()
            if answer.status not in (429, 503, 507):
                break
            time.sleep(float(answer.headers.get("Retry-After", 1)))
        if answer.status >= 400:
            raise RuntimeError(f"{verb} {path}: {answer.status} {text.decode(errors='replace')}")
        return json.loads(text) if text else None

    def push(self, run, method, parameters, tensors):
        """Push one batch: the tensors as safetensors, the parameters as its metadata."""
        parameters = dict(parameters)
        layer = parameters.pop("layer")
        metadata = {name: json.dumps(value) for name, value in parameters.items()}
        body = save(tensors, metadata={"method": method, **metadata})
        return self.request("POST", f"/v1/runs/{run}/layers/{layer}/batches", body)

    def finish(self, run):
        self.request("POST", f"/v1/runs/{run}/finish", b"", "application/json")

    def reports(self, run, layer):
        """The reports of a layer's closed windows, oldest first."""
        found, start = [], 0
        while start is not None:
            page = self.request(
                "GET", f"/v1/runs/{run}/layers/{urllib.parse.quote(layer, safe='')}/reports?from={start}&limit={PAGE}"
            )
            found += page["reports"]
            start = page["next"]
        return found

    def measured_layers(self, run):
        """The run's layers, once none of them has an open window."""
        deadline = time.monotonic() + PATIENCE
        while True:
            layers = self.request("GET", f"/v1/runs/{run}")["layers"]
            if not any(layer["open_windows"] for layer in layers):
                return layers
            if time.monotonic() > deadline:
                raise RuntimeError(f"{run}: windows are still open {PATIENCE} s after finish")
            time.sleep(0.1)

    def conclusion(self, run):
        """The service's conclusion on a finished run: the latched verdict, and each layer's first window per state."""
        measured = self.measured_layers(run)
        verdict = self.request("GET", f"/v1/runs/{run}/verdict")
        layers = {}
        for layer in measured:
            name = layer["layer"]
            reports = self.reports(run, name)
            first = {}
            since = None
            for report in reports:
                state = report["verdict"]["state"]
                first.setdefault(state, report["window"])
                since = (report["window"] if since is None else since) if state == "degrading" else None
            last = reports[-1]["verdict"] if reports else {}
            layers[name] = {
                "first_window": first,
                "degrading_since": since,
                "last": {key: last.get(key) for key in ("state", "scale", "dimension", "cause")},
            }
        return {
            "state": verdict["state"], "cause": verdict["cause"], "layer": verdict["layer"],
            "first_collapsed": layers.get(verdict["layer"], {}).get("first_window", {}).get("collapsed"),
            "layers": layers,
        }
