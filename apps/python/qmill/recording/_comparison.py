"""Whether the weights of a model have the values of its checkpoint: a file of another model may have the same names."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch

from qmill.model import Model

from ._accounting import some_names
from ._mapping import FLOATS, Matching, same_values
from ._modules import LinearModule

_log = logging.getLogger("qmill")
_READ = 256 << 20  # bytes of weights that are read for the comparison; more than that once a single layer is larger


def warn_of_other_values(modules: Sequence[LinearModule], matching: Matching, checkpoint: Model) -> None:
    """One warning if weights differ from the layers of their names.

    That is no error: a LoRA may have changed them. Reads about 256 MiB of layers, evenly spaced over the model, and
    compares up to 16 x 16 values of each. Weights without values now, as on the device meta, are not compared.
    """
    pairs = []
    for module in modules:
        layers = matching.layers.get(module.name, [])
        if len(layers) == 1 and checkpoint.dtype(f"{layers[0]}.weight") in FLOATS:
            values = module.values()
            if values is not None and values.shape == checkpoint.shape(f"{layers[0]}.weight"):
                pairs.append((layers[0], values))
    size = sum(values.numel() * values.element_size() for _, values in pairs)
    compared = pairs[:: max(1, math.ceil(size / _READ))]
    with torch.no_grad():
        other = [name for name, values in compared if not same_values(checkpoint.tensor(f"{name}.weight"), values)]
    if other:
        _log.warning(
            "%s: weights compared with those of the model: %d, different: %d%s; pass the checkpoint that the model was "
            "loaded from; if the model was changed on purpose, as by a LoRA, all is well",
            checkpoint.path,
            len(compared),
            len(other),
            some_names(other),
        )
