"""Reads layer configurations."""

import json
import os
from typing import Any, Dict, Union

from qmill import _native

from .._request import json_value


def load_layer_config(path: Union[str, os.PathLike[str]]) -> Dict[str, Any]:
    """The layer configuration in the JSON file `path`, for the parameter `layer_config` of `convert_to_int8`.

    The whole file is checked. Raises FileError or InputError that names the file, and UsageError that names the entry, for what cannot
    be read and for keys and values that do not exist. Any thread may call it.
    """
    _native.call("load_layer_config", {"path": json_value("path", path, str)})
    with open(path, "rb") as file:  # checked above: an object, and no key twice
        config: Dict[str, Any] = json.load(file)
    return config
