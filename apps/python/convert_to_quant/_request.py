"""Values of parameters as JSON, for calls into qmill."""

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, Dict, List, NoReturn, Union, get_args, get_origin, get_type_hints

from qmill.errors import UsageError

Json = Union[None, bool, int, float, str, List["Json"], Dict[str, "Json"]]

_EXPECTED = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "a text or a path",
    list: "a list",
    dict: "a dict",
    Any: "a number, a text, a path, a list or a dict",
}


def parameters(function: Callable[..., object], scope: Mapping[str, object]) -> Dict[str, Json]:
    """The annotated parameters of `function` as JSON. `scope` is what locals() has at its beginning.

    Raises UsageError that names the parameter whose value is not of the annotated type.
    """
    hints = get_type_hints(function)
    del hints["return"]
    return {name: json_value(name, scope[name], hint) for name, hint in hints.items()}


def json_value(name: str, value: object, hint: Any = Any) -> Json:
    """`value` as JSON. Paths become texts, and tensors and arrays of no dimension are what they hold.

    Args:
        name: The parameter, for errors.
        value: What the caller gave.
        hint: Its type: bool, int, float, str, or Optional, List or Dict of these. Any: whatever JSON has.

    Raises:
        UsageError: A value of another type, or a number that JSON lacks. It names the parameter.
    """
    if get_origin(hint) is Union:  # Optional
        if value is None:
            return None
        hint = get_args(hint)[0]
    value = _plain(value)
    kind = get_origin(hint) or hint
    if kind is Any and value is None:
        return None
    if isinstance(value, Mapping) and kind in (dict, Any):
        items = get_args(hint)[1] if kind is dict else Any
        return {_key(name, key): json_value(f"{name}[{key!r}]", item, items) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and kind in (list, Any):
        items = get_args(hint)[0] if kind is list else Any
        return [json_value(f"{name}[{index}]", item, items) for index, item in enumerate(value)]
    if isinstance(value, bool) and kind in (bool, Any):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and kind in (int, float, Any):
        return value if -(2**63) <= value < 2**63 else _refuse(name, value, "an integer of 64 bits")
    if isinstance(value, float) and kind in (float, Any):
        return value if math.isfinite(value) else _refuse(name, value, "a finite number")
    if isinstance(value, str) and kind in (str, Any):
        return value
    _refuse(name, value, _EXPECTED[kind])


def _plain(value: Any) -> object:
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    return os.fsdecode(value) if isinstance(value, os.PathLike) else value


def _key(name: str, key: object) -> str:
    return key if isinstance(key, str) else _refuse(f"a key of {name}", key, "a text")


def _refuse(name: str, value: object, expected: str) -> NoReturn:
    found = (
        repr(value)
        if value is None or isinstance(value, (bool, int, float, str))
        else f"of type {type(value).__name__}"
    )
    raise UsageError(f"{name} is {found}; expected {expected}")
