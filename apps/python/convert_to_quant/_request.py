"""Parameters of a function as JSON, for calls into qmill."""

from collections.abc import Callable, Mapping
from typing import Dict, get_type_hints

from qmill._values import Json, json_value


def parameters(function: Callable[..., object], scope: Mapping[str, object]) -> Dict[str, Json]:
    """The annotated parameters of `function` as JSON. `scope` is what locals() has at its beginning.

    Raises UsageError that names the parameter whose value is not of the annotated type.
    """
    hints = get_type_hints(function)
    del hints["return"]
    return {name: json_value(name, scope[name], hint) for name, hint in hints.items()}
