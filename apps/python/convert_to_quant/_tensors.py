"""Tensors of any device, for calls into qmill, which computes on the CPU."""

import torch
from qmill.errors import UsageError


def on_cpu(name: str, tensor: object) -> torch.Tensor:
    """The values of `tensor`, contiguous, on the CPU. `name` is the parameter, for errors.

    Copies nothing if it is so already. Raises UsageError for what is no dense tensor with values.
    """
    if not isinstance(tensor, torch.Tensor):
        raise UsageError(f"{name} is of type {type(tensor).__name__}; expected a torch.Tensor")
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        found = "on the device meta" if tensor.is_meta else f"{tensor.layout}, {tensor.dtype}"
        raise UsageError(f"{name} is {found}; expected a dense tensor with values, such as that of to_dense()")
    return tensor.detach().to("cpu").contiguous()
