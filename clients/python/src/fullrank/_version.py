"""The version of this package. Must not: import anything."""

from __future__ import annotations

__version__ = "0.1.0"
