"""The linear layers of a model, whatever their class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qmill.errors import UnsupportedError, UsageError

_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Attributes of weights and modules whose values are quantized, though their type may be a float type.
_QUANTIZED_WEIGHT = ("_qdata", "_layout_cls", "layout_type", "quant_state", "tensor_impl")
_QUANTIZED_MODULE = ("qweight", "_packed_params", "weight_packed")
_COMPILED = "_orig_mod"


@dataclass(frozen=True)
class LinearModule:
    """A module that multiplies rows by a weight [N, K]."""

    name: str
    module: nn.Module
    shape: tuple[int, int]

    def values(self) -> Tensor | None:
        """The weight; None if it has no values now."""
        weight = getattr(self.module, "weight", None)
        return weight.detach() if isinstance(weight, Tensor) and not weight.is_meta else None


def linear_modules(model: nn.Module) -> list[LinearModule]:
    """Every module with a two-dimensional `weight` and `in_features`, in the model's order.

    Raises UnsupportedError if a weight is quantized: then the model's inputs are those of the damaged model.
    """
    found = []
    for path, module in model.named_modules():
        name = ".".join(part for part in path.split(".") if part != _COMPILED)
        if not hasattr(module, "in_features"):
            continue
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.is_complex():
            raise UnsupportedError(
                f"layer '{name}' has a weight of type {_type_name(weight)}, expected a floating type: "
                "record a model of real numbers"
            )
        reason = _quantization(module)
        if reason:
            raise UnsupportedError(
                f"layer '{name}' is quantized ({reason}): its model no longer has the inputs of the original; "
                "record the unquantized model"
            )
        if isinstance(weight, Tensor) and weight.dim() == 2 and name:
            found.append(LinearModule(name, module, (weight.shape[0], weight.shape[1])))
    if not found and hasattr(model, "in_features"):
        raise UsageError(
            f"the model ({type(model).__name__}) is itself a linear layer, and has no name: "
            "wrap it, as in torch.nn.Sequential(model)"
        )
    if not found:
        raise UsageError(
            f"the model ({type(model).__name__}) has no linear layers: no submodule has a 2-D weight and in_features"
        )
    return found


def other_weights(model: nn.Module) -> list[str]:
    """Names of the modules with a two-dimensional weight that are no linear layers, such as embeddings."""
    names = []
    for path, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.dim() == 2 and not hasattr(module, "in_features"):
            names.append(".".join(part for part in path.split(".") if part != _COMPILED))
    return names


def _quantization(module: nn.Module) -> str:
    """How the weight of a module is quantized; empty if it is not."""
    for name in _QUANTIZED_MODULE:
        if hasattr(module, name):
            return f"{type(module).__name__} with `{name}`"
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        return ""
    for name in _QUANTIZED_WEIGHT:
        if hasattr(weight, name):
            return f"a weight of class {type(weight).__name__} with `{name}`"
    if weight.is_quantized or weight.dtype not in _FLOATS:
        return f"a weight of type {_type_name(weight)}"
    return ""


def _type_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
