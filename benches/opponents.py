"""The other side of `cargo bench --bench versus`: what people call today, timed in one process.

Reads a JSON request a line, answers with a JSON object a line: the seconds that the call took, and its result.
"""

import importlib.metadata
import importlib.util
import json
import sys
import time
import types

import numpy as np
import torch

THREADS = int(sys.argv[1])
PEERS = sys.prefix + "/peers"
torch.set_num_threads(THREADS)
arrays = {}


def load(name, path, shape, dtype):
    arrays[name] = torch.from_file(path, size=shape[0] * shape[1], dtype=getattr(torch, dtype)).reshape(shape)
    return None


def entropy_rank(sigma, epsilon=1e-7):
    p = sigma.double() / sigma.double().sum() + epsilon
    return float(torch.exp(-(p * p.log()).sum()))


def svdvals(z):
    return entropy_rank(torch.linalg.svdvals(arrays[z].float()))


def gram_eigvalsh(z, dtype):
    x = arrays[z].to(getattr(torch, dtype))
    return entropy_rank(torch.linalg.eigvalsh(x.T @ x / len(x)).clamp(min=0).flip(0).sqrt())


def cov_eigvalsh(z, dtype):
    """The clever way: torch.cov, and its eigenvalues."""
    eigenvalues = torch.linalg.eigvalsh(torch.cov(arrays[z].to(getattr(torch, dtype)).T))
    return float(eigenvalues[-1])


def gram(z):
    x = arrays[z].float()
    return float((x.T @ x)[0, 0])


def numpy_gram(z):
    x = arrays[z].float().numpy()
    return float((x.T @ x)[0, 0])


def eigvalsh(z):
    return [float(value) for value in torch.linalg.eigvalsh(arrays[z])[[0, len(arrays[z]) // 2, -1]]]


def numpy_eigvalsh(z):
    return [float(value) for value in np.linalg.eigvalsh(arrays[z].numpy())[[0, len(arrays[z]) // 2, -1]]]


def pdist(z, rows=None):
    u = torch.nn.functional.normalize(arrays[z][:rows], dim=1)
    return float(torch.pdist(u).pow(2).mul(-2).exp().mean().log())


def oracle_uniformity(z):
    """Every pair, in f64."""
    u = torch.nn.functional.normalize(arrays[z].double(), dim=1)
    total = 0.0
    for start in range(0, len(u), 1024):
        total += float((4 * (u[start : start + 1024] @ u.T) - 4).exp().sum())
    n = len(u)
    return float(np.log((total - n) / (n * (n - 1))))


def peer(z):
    """stable-pretraining's RankMe callback as it is, on a queue that is full; its siblings, which compute nothing, stand in."""
    siblings = {
        "": {"__path__": []},
        ".registry": {"log": lambda *_, **__: None},
        ".queue": {"find_or_create_queue_callback": lambda trainer, *_, **__: trainer.queue},
        ".utils": {"resolve_verbose": lambda _: False, "log_header": lambda _: None},
    }
    for name, members in siblings.items():
        module = types.ModuleType("peer" + name)
        vars(module).update(members)
        sys.modules["peer" + name] = module
    found = next(iter(importlib.metadata.distributions(name="stable-pretraining", path=[PEERS])), None)
    if found is None:
        return {"missing": f"stable-pretraining is not in {PEERS}"}
    path = found.locate_file("stable_pretraining/callbacks/rankme.py")
    spec = importlib.util.spec_from_file_location("peer.rankme", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # Its queue holds f32, whatever came in.
    rows = arrays[z].float()
    callback = module.RankMe("rankme", "embedding", len(rows), rows.shape[1])
    logged = {}
    trainer = types.SimpleNamespace(global_rank=0, queue=types.SimpleNamespace(data=rows))
    layer = types.SimpleNamespace(log=lambda name, value: logged.update({name: value}))
    callback.setup(trainer, layer, "validate")
    start = time.perf_counter()
    callback.on_validation_batch_end(trainer, layer, {}, {}, 0)
    return {"seconds": time.perf_counter() - start, "result": logged["rankme"]}


def push(url, z, batch):
    """A trainer's evaluation: every batch pushed by the client. The seconds are those that the loop is held up."""
    from fullrank import Monitor

    monitor = Monitor(url, run="versus", method="other", queue_bytes=1 << 30)
    rows = arrays[z].split(batch)
    monitor.push(layer="warm", z=rows[0], window=0)
    start = time.perf_counter()
    for step, part in enumerate(rows):
        monitor.push(layer="l", z=part, window=1, step=step)
    held = time.perf_counter() - start
    monitor.close(window=1)
    monitor.finish()
    return {"seconds": held, "result": None}


def answer(request):
    call = globals()[request.pop("call")]
    start = time.perf_counter()
    result = call(**request)
    seconds = time.perf_counter() - start
    return result if isinstance(result, dict) else {"seconds": seconds, "result": result}


print(json.dumps({"torch": torch.__version__, "numpy": np.__version__, "blas": torch.__config__.show().split("\n")[1:4]}), flush=True)
for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
