"""The parameters of a push: everything it carries alongside its tensors.

Guarantees: while the trainer waits, tensors are told from numbers and the numbers are copied, nothing more; the sender
thread formats and checks them (`texts`). A parameter that is not a finite number is left out with a warning; a number
on a GPU stays there.
Must not: know the queue or the format of a body.
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
# For each known name seen so far, whether it names a tensor.
_is_tensor: dict[str, bool] = {}


class Named(NamedTuple):
    """The keyword arguments of a push, sorted by kind."""

    tensors: dict[str, Any]
    numbers: dict[str, Any]  # as given, but copied
    waiting: dict[str, Any]  # scalars on a GPU


def sort_out(named: dict[str, Any]) -> Named:
    """Separates tensors from parameters. Raises `Invalid` for a value that is neither."""
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
                raise Invalid("malformed", f"{name} is a tensor of shape {tuple(value.shape)}: expected one number")
            if value.is_cuda:
                waiting[_parameter(name)] = value
            else:
                numbers[_parameter(name)] = value.item()
        else:
            numbers[_parameter(name)] = value
    return Named(tensors, numbers, waiting)


def _looks_like_a_tensor(name: str, value: Any) -> bool:
    """For names not seen before. An unknown name is a tensor if its value has dimensions."""
    if kind_of(name) is not None:
        _is_tensor[name] = True
        return True
    if _parameter(name) in _KNOWN:
        _is_tensor[name] = False
        return False
    return not isinstance(value, (bool, int, float, str)) and getattr(value, "ndim", 1) != 0


def _parameter(name: str) -> str:
    """The service's name for a parameter: lambda for lambda_. Raises `Invalid` for a name that push does not accept."""
    if name in _KNOWN:
        return name
    name = name[:-1] if name.endswith("_") else name
    if name in RESERVED:
        raise Invalid("malformed", f"push does not accept {name}=: the Monitor sets it")
    if kind_of(name) is not None:
        raise Invalid("wrong_rank", f"{name} is a number: expected a tensor")
    return name


def whole(name: str, value: Any) -> Optional[int]:
    """The number of a window or a step. Raises `Invalid` for anything but a whole number in range."""
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError:
        raise Invalid("malformed", f"{name} is {value!r}: expected a whole number") from None
    if not 0 <= number < 2**63:
        raise Invalid("malformed", f"{name} is {number}: expected 0 to 2^63 - 1")
    return number


def extras(parameters: dict[str, Any]) -> list[str]:
    """The names that this client does not know and passes on."""
    return [name for name in parameters if name not in _KNOWN]


def texts(parameters: dict[str, Any], complaints: Complaints) -> dict[str, str]:
    """The values as query text, without those that cannot be sent."""
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
        raise Invalid("malformed_parameter", f"{name!r} is not a parameter name: expected letters, digits and _")
    if isinstance(value, str):
        if name in WORDS and value not in WORDS[name]:
            raise Invalid("malformed_parameter", f"{name} is {value!r}: expected one of: {', '.join(WORDS[name])}")
        if name in SCALARS:
            raise Invalid("malformed_parameter", f"{name} is the string {value!r}: expected a number")
        return quote(value, safe="")
    if name in FLAGS or (isinstance(value, (bool, np.bool_)) and name not in SCALARS):
        return "true" if value else "false"
    if type(value) is int and name == "step":
        return str(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise Invalid("malformed_parameter", f"{name} is {value!r}: expected a number") from None
    if not math.isfinite(number):
        raise Invalid("not_finite_parameter", f"{name} is {number}: expected a finite number")
    return repr(number)
