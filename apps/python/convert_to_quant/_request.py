"""Values of parameters as JSON, for calls into qmill."""

import math
import os
from collections.abc import Mapping
from typing import Dict, List, Union

from qmill.errors import UsageError

Json = Union[None, bool, int, float, str, List["Json"], Dict[str, "Json"]]


def json_value(name: str, value: object) -> Json:
    """`value` as JSON. `name` is the parameter, for errors.

    Paths become texts; tensors and arrays of no dimension become numbers. Raises UsageError that names the parameter for anything else that
    JSON lacks, such as NaN.
    """
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise UsageError(f"{name} is {value}; expected an integer of 64 bits")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UsageError(f"{name} is {value}; expected a finite number")
        return value
    if isinstance(value, Mapping):
        return {_key(name, key): json_value(f"{name}[{key!r}]", item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(f"{name}[{index}]", item) for index, item in enumerate(value)]
    raise UsageError(f"{name} is of type {type(value).__name__}; expected a number, a text, a path, a list or a dict")


def json_object(values: Mapping[str, object]) -> Dict[str, Json]:
    """Parameters by name, each as `json_value` gives it."""
    return {name: json_value(name, value) for name, value in values.items()}


def _key(name: str, key: object) -> str:
    if not isinstance(key, str):
        raise UsageError(f"{name} has the key {key!r}; expected texts as keys")
    return key
