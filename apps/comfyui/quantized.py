"""Tells whether a loaded model is quantized. Rows of such a model are those of a model with rounding errors."""

from __future__ import annotations

import torch
from torch import nn

_PLAIN = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def refuse_quantized(model: nn.Module, what: str) -> None:
    """Raises ValueError, with the name of a layer, if a weight of `model` is stored with fewer than 16 bits.

    `what` names the model in the sentence. Reads types only, no values.
    """
    for name, module in model.named_modules():
        storage = _quantized_storage(module)
        if storage is not None:
            raise ValueError(
                f"{what} is quantized already: layer '{name}' is stored as {storage}. Rows must come from the model "
                f"before quantization: load its BF16, FP16 or FP32 file, and set weight_dtype to 'default'"
            )


def _quantized_storage(module: nn.Module) -> str | None:
    quant_format = getattr(module, "quant_format", None)  # of ComfyUI's layers with markers
    if isinstance(quant_format, str):
        return quant_format
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor) or weight.ndim < 2:
        return None
    if "Quantized" in type(weight).__name__:  # such tensors give the type of the values that they stand for
        return type(weight).__name__
    if weight.dtype not in _PLAIN:
        return str(weight.dtype).removeprefix("torch.")
    return None
