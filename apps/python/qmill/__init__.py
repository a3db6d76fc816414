"""qmill quantizes the weights of trained models: safetensors in, smaller safetensors out, that real programs load.

    import qmill
    result = qmill.convert("model.safetensors", "model_int8.safetensors")

Documentation: docs/python.md.
"""

from __future__ import annotations

import importlib.metadata

from qmill_command.installation import cmake_prefix_path
from qmill._native import Progress
from qmill.api import (
    calibrate,
    compare,
    convert,
    dequantize,
    filters,
    inspect,
    open_model,
    options,
    plan,
    plugins,
    quantize,
    verify,
)
from qmill.errors import (
    CancelledError,
    FileError,
    InputError,
    InternalError,
    NumericError,
    PluginError,
    QmillError,
    QualityError,
    UnsupportedError,
    UsageError,
)
from qmill.model import Model
from qmill.recording import Recording, RecordingAccount, record

try:
    __version__ = importlib.metadata.version("qmill")
except importlib.metadata.PackageNotFoundError:  # run from the sources
    __version__ = "0.0.0"

__all__ = [
    "CancelledError",
    "FileError",
    "InputError",
    "InternalError",
    "Model",
    "NumericError",
    "PluginError",
    "Progress",
    "QmillError",
    "QualityError",
    "Recording",
    "RecordingAccount",
    "UnsupportedError",
    "UsageError",
    "calibrate",
    "cmake_prefix_path",
    "compare",
    "convert",
    "dequantize",
    "filters",
    "inspect",
    "open_model",
    "options",
    "plan",
    "plugins",
    "quantize",
    "record",
    "verify",
]
