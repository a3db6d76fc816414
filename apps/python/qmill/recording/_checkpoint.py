"""The checkpoint that a recording is about: its layers, and its identity."""

from __future__ import annotations

import json
import os

from qmill._native import call
from qmill._values import path_text
from qmill.api import inspect
from qmill.errors import UnsupportedError
from qmill.model import Model


def identity_of(path: str | os.PathLike[str]) -> str:
    """JSON text that is the same for the same model: a digest of names, types, shapes and samples of the data."""
    identity = call("model_identity", {"path": path_text("checkpoint", path)}).json["identity"]
    return json.dumps(identity, separators=(",", ":"), sort_keys=True)


def refuse_quantized(path: str | os.PathLike[str]) -> None:
    """Raises UnsupportedError if a layer of the checkpoint is quantized: it is the result of a conversion."""
    quantized = [layer for layer in inspect(path).layers if layer.quantized]
    if quantized:
        raise UnsupportedError(
            f"the checkpoint '{path}' is quantized (layer '{quantized[0].name}' is {quantized[0].layout}): "
            "pass the unquantized file, the one that will be converted"
        )


def layer_shapes(checkpoint: Model) -> dict[str, tuple[int, int]]:
    """The layers of a checkpoint, named without `.weight`, with the shapes [N, K] of their weights."""
    shapes = {}
    for key in checkpoint.keys():
        shape = checkpoint.shape(key)
        if key.endswith(".weight") and len(shape) == 2:
            shapes[key.removesuffix(".weight")] = (shape[0], shape[1])
    return shapes
