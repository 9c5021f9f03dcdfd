"""The client of fullrank: pushes the embeddings of a self-supervised training to the service, which reports whether
they are collapsing.

Two lines in a training:

    monitor = Monitor(run="simsiam-7", method="simsiam")
    monitor.push(layer="projector", z1=z1, z2=z2, window=epoch, step=step, loss=loss)
"""

from __future__ import annotations

import pkgutil

from ._core import Stats
from ._version import __version__
from ._watch import WatchHandle
from .monitor import CollapseError, Monitor

# Stubs generated from the service's proto file form a package fullrank.v1 in a folder of the user's choice.
__path__ = pkgutil.extend_path(__path__, __name__)

__all__ = ["CollapseError", "Monitor", "Stats", "WatchHandle", "__version__"]
