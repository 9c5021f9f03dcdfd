"""Records every push of a run in a folder, so that the run can be replayed to a service later without training again.

`Recorder` has the client's interface. Each window is one file, `window-00012.safetensors`, with the tensors
`{push:03}.{name}` and, as `__metadata__["pushes"]`, a JSON array with the layer and the parameters of each push.
"""

import json
import pathlib

import torch
from safetensors import safe_open
from safetensors.torch import save_file


class Recorder:
    def __init__(self, folder, run, method):
        self.folder = pathlib.Path(folder) / run
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob("window-*.safetensors"):
            old.unlink()
        self.run, self.method = run, method
        self.window, self.tensors, self.pushes = None, {}, []

    def push(self, layer="projector", window=0, **fields):
        if window != self.window:
            self.flush()
            self.window = window
        parameters = {"layer": layer, "window": window}
        for name, value in fields.items():
            if isinstance(value, torch.Tensor) and value.ndim:
                self.tensors[f"{len(self.pushes):03}.{name}"] = value.detach().contiguous().clone()
            elif value is not None:
                parameters[name] = value.item() if isinstance(value, torch.Tensor) else value
        self.pushes.append(parameters)

    def flush(self):
        """Write the open window's file."""
        if self.pushes:
            metadata = {"run": self.run, "method": self.method, "pushes": json.dumps(self.pushes)}
            save_file(self.tensors, self.folder / f"window-{self.window:05}.safetensors", metadata=metadata)
        self.tensors, self.pushes = {}, []

    def close(self, window=None):
        self.flush()

    def finish(self):
        self.flush()


def recorded(folder):
    """Yield (method, parameters, tensors) for every push of a recorded run, in order."""
    for path in sorted(pathlib.Path(folder).glob("window-*.safetensors")):
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = [{} for _ in json.loads(metadata["pushes"])]
            for name in file.keys():
                push, tensor = name.split(".", 1)
                tensors[int(push)][tensor] = file.get_tensor(name)
            for parameters, of_push in zip(json.loads(metadata["pushes"]), tensors):
                yield metadata["method"], parameters, of_push
