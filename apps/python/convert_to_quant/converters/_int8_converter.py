"""What the converters of single weights have in common."""

from typing import Dict, Optional, Tuple

import torch
from qmill import _native
from qmill._tensors import on_cpu
from qmill._values import Json, json_value

Converted = Tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""`q` I8 [N, K], `scale` F32, `dequantized` F32 [N, K]: what a reader computes from the first two."""


class Int8Converter:
    """One quantizer with its options. Immutable; any thread may use it."""

    def __init__(self, kind: str, options: Dict[str, Json]) -> None:
        """`options` are the parameters of the class by name. Raises UsageError that names one that is not allowed."""
        self._converter: Dict[str, Json] = {"kind": kind, "options": options}
        _native.call("int8_converter", {**self._converter, "inputs": []})

    def _convert(
        self,
        weight: torch.Tensor,
        H: Optional[torch.Tensor] = None,
        activation_scales: Optional[torch.Tensor] = None,
        smoothquant_alpha: float = 0.5,
    ) -> Converted:
        tensors = {"weight": on_cpu("weight_tensor", weight)}
        for name, tensor in (("H", H), ("activation_scales", activation_scales)):
            if tensor is not None:
                tensors[name] = on_cpu(name, tensor)
        request = {
            **self._converter,
            "inputs": list(tensors),
            "smoothquant_alpha": json_value("smoothquant_alpha", smoothquant_alpha, float),
        }
        reply = _native.call("int8_converter", request, list(tensors.values()))
        q, scale, dequantized = (tensor.to(weight.device) for tensor in reply.tensors)
        return q, scale, dequantized
