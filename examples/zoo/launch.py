"""Start a service for the zoo, on a free port and with a temporary data folder."""

import contextlib
import os
import pathlib
import re
import subprocess
import tempfile
import threading

HERE = pathlib.Path(__file__).resolve().parent


def binary():
    """FULLRANK_BINARY, else the binary that cargo built last."""
    named = os.environ.get("FULLRANK_BINARY")
    built = [HERE.parents[1] / "target" / kind / "fullrank" for kind in ("release", "debug")]
    there = [pathlib.Path(named)] if named else sorted(filter(pathlib.Path.is_file, built), key=os.path.getmtime)
    if not there:
        raise SystemExit("no fullrank binary: run `cargo build --release`, or set FULLRANK_BINARY or --url")
    return there[-1]


@contextlib.contextmanager
def service():
    """Yield the address of a service that runs until the end of the block."""
    with tempfile.TemporaryDirectory() as folder:
        command = [binary(), "serve", "--listen", "127.0.0.1:0", "--data-dir", folder, "--run-ttl-s", "86400"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        try:
            for line in process.stderr:
                found = re.search(r"address=(127\.0\.0\.1:\d+)", line)
                if found:
                    break
            else:
                raise SystemExit(f"{command[0]} exited before it was ready")
            # A full pipe would block it.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield f"http://{found[1]}"
        finally:
            process.terminate()
            process.wait()
