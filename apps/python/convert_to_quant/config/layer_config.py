"""Reads layer configurations."""

import json
import os
from typing import Any, Dict, Union

from qmill import _native
from qmill._values import json_value


def load_layer_config(path: Union[str, os.PathLike[str]]) -> Dict[str, Any]:
    """Reads a layer configuration, for the parameter `layer_config` of `convert_to_int8`. Any thread may call it.

    Patterns, keys and values are checked. Names of formats and quantizers are checked by the conversion.

    Returns:
        What the JSON file holds, in its order.

    Raises:
        FileError, InputError: The file cannot be read, or is wrong. They name the file and the entry.
    """
    _native.call("load_layer_config", {"path": json_value("path", path, str)})
    with open(path, "rb") as file:  # checked above: an object, and no key twice
        config: Dict[str, Any] = json.load(file)
    return config
