"""The service under test, and monitors that end with their test."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import Faulty

from fullrank import Monitor

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[3]


def binary() -> str:
    """The service's binary: FULLRANK_BINARY, else what cargo has built."""
    given = os.environ.get("FULLRANK_BINARY")
    found = [Path(given)] if given else [ROOT / "target" / kind / "fullrank" for kind in ("release", "debug")]
    for path in found:
        if path.is_file():
            return str(path)
    pytest.fail(f"no service to test against: build it with `cargo build --release`, or set FULLRANK_BINARY ({found})")


class Service:
    """A running service."""

    def __init__(self, folder: Path, *flags: str, listen: str = "127.0.0.1:0") -> None:
        command = [binary(), "serve", "--listen", listen, "--data-dir", str(folder), *flags]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FULLRANK_")}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        said = []
        for line in self.process.stderr:
            said.append(line)
            found = re.search(r"address=(127\.0\.0\.1:\d+)", line)
            if found:
                self.url = f"http://{found[1]}"
                break
        else:
            pytest.fail("the service did not start: " + "".join(said))
        # A full pipe would stop it.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=20) as response:
            return json.load(response)

    def reports(self, run: str, layer: str) -> list[dict[str, Any]]:
        return self.get(f"/v1/runs/{run}/layers/{layer}/reports")["reports"]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("data"))
    yield running
    running.stop()


@pytest.fixture
def run() -> str:
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture
def faulty() -> Iterator[Any]:
    """Makes servers that fail as they are told."""
    made: list[Faulty] = []

    def make(*args: Any, **kwargs: Any) -> Faulty:
        made.append(Faulty(*args, **kwargs))
        return made[-1]

    yield make
    for server in made:
        server.stop()


@pytest.fixture
def monitors(run: str) -> Iterator[Any]:
    """Makes monitors, whose threads end with the test."""
    made: list[Monitor] = []

    def make(url: str, **options: Any) -> Monitor:
        made.append(Monitor(url, **{"run": run, **options}))
        return made[-1]

    yield make
    for monitor in made:
        monitor._core.sender.abort.set()
        monitor._core.stop()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FULLRANK_URL", "FULLRANK_TOKEN", "RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
