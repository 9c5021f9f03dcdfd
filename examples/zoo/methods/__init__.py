"""Every method of the zoo, found by looking: each module in this folder that defines a `Method` is one."""

import importlib
import pkgutil

from .base import Method


def find():
    """{name: class} of every method, in the order of the names."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")

    def subclasses(kind):
        for subclass in kind.__subclasses__():
            yield subclass
            yield from subclasses(subclass)

    return {kind.name: kind for kind in sorted(subclasses(Method), key=lambda kind: kind.name or "") if kind.name}


METHODS = find()


def configurations():
    """Every (configuration's name, method's name, variant or None), the method as published first."""
    for name, kind in METHODS.items():
        yield f"{name}-healthy", name, None
        for variant in kind.variants:
            yield f"{name}-{variant}", name, variant
