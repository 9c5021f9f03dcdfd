"""What a push says beside its tensors.

Guarantees: what is done while the trainer waits is to tell tensors from numbers and to copy the numbers; texts are
made and checked in the sender's thread (`texts`). A number that is not finite, or is none, is left out and complained
about; one that waits on a GPU stays there.
Must not: know the queue or the wire's bodies.
"""

from __future__ import annotations

import math
import operator
import re
from typing import Any, NamedTuple, Optional
from urllib.parse import quote

import numpy as np

from ._names import FLAGS, RESERVED, SCALARS, WORDS, kind_of
from ._tensors import is_torch_tensor
from ._warnings import Complaints, Invalid

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_KNOWN = {*SCALARS, *FLAGS, *WORDS, "step"}
# Whether a name is a tensor's, of the names seen so far that the service knows.
_is_tensor: dict[str, bool] = {}


class Named(NamedTuple):
    """The keywords of a push, sorted out."""

    tensors: dict[str, Any]
    numbers: dict[str, Any]  # as they were given, but copied
    waiting: dict[str, Any]  # scalars on a GPU


def sort_out(named: dict[str, Any]) -> Named:
    """Tells tensors from parameters. Raises `Invalid` for what is neither."""
    tensors: dict[str, Any] = {}
    numbers: dict[str, Any] = {}
    waiting: dict[str, Any] = {}
    for name, value in named.items():
        if value is None:
            continue
        is_tensor = _is_tensor.get(name)
        if is_tensor:
            tensors[name] = value
        elif type(value) is float or type(value) is int:
            if name == "count":
                tensors[name] = np.array([value], dtype=np.float64)
                continue
            numbers[_parameter(name)] = value
        elif is_tensor is None and _looks_like_a_tensor(name, value):
            tensors[name] = value
        elif is_torch_tensor(value):
            if value.numel() != 1:
                raise Invalid("malformed", f"{name} is a tensor of shape {tuple(value.shape)}: it must be one number")
            if value.is_cuda:
                waiting[_parameter(name)] = value
            else:
                numbers[_parameter(name)] = value.item()
        else:
            numbers[_parameter(name)] = value
    return Named(tensors, numbers, waiting)


def _looks_like_a_tensor(name: str, value: Any) -> bool:
    """For names not seen before; an unknown one is a tensor if it has dimensions."""
    if kind_of(name) is not None:
        _is_tensor[name] = True
        return True
    if _parameter(name) in _KNOWN:
        _is_tensor[name] = False
        return False
    return not isinstance(value, (bool, int, float, str)) and getattr(value, "ndim", 1) != 0


def _parameter(name: str) -> str:
    """lambda_ is lambda. Raises `Invalid` for what is not to be given."""
    if name in _KNOWN:
        return name
    name = name[:-1] if name.endswith("_") else name
    if name in RESERVED:
        raise Invalid("malformed", f"{name} is not given to push: the Monitor sends it by itself")
    if kind_of(name) is not None:
        raise Invalid("wrong_rank", f"{name} is a number: it must be a tensor")
    return name


def whole(name: str, value: Any) -> Optional[int]:
    """A window's or a step's number. Raises `Invalid` for what is none."""
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError:
        raise Invalid("malformed", f"{name} is {value!r}: it must be a whole number") from None
    if not 0 <= number < 2**63:
        raise Invalid("malformed", f"{name} is {number}: it must be from 0 to 2^63 - 1")
    return number


def extras(parameters: dict[str, Any]) -> list[str]:
    """Those that this client does not know and passes on."""
    return [name for name in parameters if name not in _KNOWN]


def texts(parameters: dict[str, Any], complaints: Complaints) -> dict[str, str]:
    """The query's texts of all that can be sent."""
    made: dict[str, str] = {}
    for name, value in parameters.items():
        try:
            text = _text(name, value)
        except Invalid as error:
            complaints.add(error.kind, f"{error}: the batch is sent without it")
            continue
        made[name] = text
    return made


def _text(name: str, value: Any) -> str:
    if not _WORD.fullmatch(name):
        raise Invalid("malformed_parameter", f"no parameter is called {name!r}")
    if isinstance(value, str):
        if name in WORDS and value not in WORDS[name]:
            raise Invalid("malformed_parameter", f"{name} is {value!r}: it must be one of {', '.join(WORDS[name])}")
        if name in SCALARS:
            raise Invalid("malformed_parameter", f"{name} is the text {value!r}: it must be a number")
        return quote(value, safe="")
    if name in FLAGS or (isinstance(value, (bool, np.bool_)) and name not in SCALARS):
        return "true" if value else "false"
    if type(value) is int and name == "step":
        return str(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise Invalid("malformed_parameter", f"{name} is {value!r}: it must be a number") from None
    if not math.isfinite(number):
        raise Invalid("not_finite_parameter", f"{name} is {number}")
    return repr(number)
