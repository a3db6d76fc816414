"""Values of Python as JSON, for calls into the libraries. Private to our own packages."""

from __future__ import annotations

import math
import numbers
import os
import types
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Union, get_args, get_origin

from qmill.errors import UsageError

Json = Union[None, bool, int, float, str, list["Json"], dict[str, "Json"]]

_EXPECTED = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "a text or a path",
    list: "a list",
    dict: "a dict",
    Any: "a number, a text, a path, a list or a dict",
}


def json_value(name: str, value: object, hint: Any = Any) -> Json:
    """`value` as JSON. Paths become texts, and tensors and arrays of no dimension are what they hold.

    Args:
        name: The parameter, for errors.
        value: What the caller gave.
        hint: Its type: bool, int, float, str, or Optional, list or dict of these. Any: whatever JSON has.

    Raises:
        UsageError: A value of another type, a number that JSON or 64 bits lack, or a text that is not UTF-8 or has a
            NUL. It names the parameter.
    """
    if get_origin(hint) in (Union, types.UnionType):  # Optional
        if value is None:
            return None
        hint = get_args(hint)[0]
    value = _plain(name, value)
    kind = get_origin(hint) or hint
    if kind is Any and value is None:
        return None
    if isinstance(value, Mapping) and kind in (dict, Any):
        items = get_args(hint)[1] if kind is dict else Any
        keys = [text_value(f"a key of {name}", key) for key in value]
        return {key: json_value(f"{name}[{key!r}]", value[key], items) for key in keys}
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
        return _text(name, value)
    _refuse(name, value, _EXPECTED[kind])


def text_value(name: str, value: object) -> str:
    """A text, such as the name of a tensor. Raises UsageError that names the argument, as `json_value` does."""
    return _text(name, value) if isinstance(value, str) else _refuse(name, value, "a text")


def path_text(name: str, path: str | os.PathLike[str]) -> str:
    """A path as a text. `name` is the argument, for errors.

    Raises UsageError for anything else, and for a path that has a NUL or is not UTF-8: the libraries have none.
    """
    found: object = os.fspath(path) if isinstance(path, os.PathLike) else path
    return _text(name, found) if isinstance(found, str) else _refuse(name, found, "a text or a path")


def path_texts(name: str, paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Several paths as absolute ones: what they name does not change with the current folder. Raises as `path_text`."""
    if isinstance(paths, (str, bytes, os.PathLike)) or not isinstance(paths, Sequence):
        raise UsageError(f"{name} is one path or of type {type(paths).__name__}, expected a list of paths")
    return [os.path.abspath(path_text(f"{name}[{index}]", path)) for index, path in enumerate(paths)]


def _plain(name: str, value: Any) -> object:
    if isinstance(value, os.PathLike):
        return path_text(name, value)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    if isinstance(value, numbers.Integral) and not isinstance(value, int):
        return int(value)
    if isinstance(value, numbers.Real) and not isinstance(value, (int, float)):
        return float(value)
    return value


def _text(name: str, value: str) -> str:
    if "\0" in value:
        _refuse(name, value, "a text without NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        _refuse(name, value, "a text in UTF-8: rename the file, folder or tensor")
    return value


def _refuse(name: str, value: object, expected: str) -> NoReturn:
    if isinstance(value, int) and value.bit_length() > 128:
        found = f"an integer of {value.bit_length()} bits"  # Python refuses to write very long ones
    elif value is None or isinstance(value, (bool, int, float, str)):
        found = repr(value)
    else:
        found = f"of type {type(value).__name__}"
    raise UsageError(f"{name} is {found}; expected {expected}")
