"""Tensors on their way to the libraries, which compute on the CPU. Private to our own packages."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch.utils import dlpack

from qmill.errors import UsageError

# What DLPack and the libraries both have.
_CROSSING = frozenset(
    {
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
        torch.complex64,
        torch.complex128,
    }
)
_EXACT_IN_FLOAT = (torch.float8_e4m3fn, torch.float8_e5m2)


class SupportsDLPack(Protocol):
    """An array of another library, such as NumPy."""

    def __dlpack__(self, *, stream: Any = ...) -> Any: ...
    def __dlpack_device__(self) -> tuple[Any, int]: ...


def as_tensor(name: str, value: torch.Tensor | SupportsDLPack) -> torch.Tensor:
    """A tensor of torch, from one or from an array that has `__dlpack__`. Raises UsageError that names the argument."""
    if isinstance(value, torch.Tensor):
        return value
    if not hasattr(value, "__dlpack__"):
        raise UsageError(f"{name} is a {type(value).__name__}, expected a torch.Tensor or an array with __dlpack__")
    array: Any = value
    strides = getattr(array, "strides", None)
    if isinstance(strides, tuple) and any(stride < 0 for stride in strides):
        array = array.copy()  # torch has no negative strides, and ends the process
    try:
        return dlpack.from_dlpack(array)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(
            f"{name} is a {type(value).__name__} that torch cannot read ({error}); pass a copy in a plain type"
        ) from error


def on_cpu(name: str, tensor: object) -> torch.Tensor:
    """The values of `tensor`, contiguous, on the CPU, in a type that the libraries take. `name` is for errors.

    Copies nothing if it is so already. Raises UsageError for what is no dense tensor with values.
    """
    if not isinstance(tensor, torch.Tensor):
        raise UsageError(f"{name} is of type {type(tensor).__name__}; expected a torch.Tensor")
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        found = "on the device meta" if tensor.is_meta else f"{tensor.layout}, {tensor.dtype}"
        raise UsageError(f"{name} is {found}; expected a dense tensor with values, such as that of to_dense()")
    if tensor.dtype in _EXACT_IN_FLOAT:
        tensor = tensor.float()
    if tensor.dtype not in _CROSSING:
        raise UsageError(f"{name} is of the type {tensor.dtype}; expected a floating tensor, such as that of float()")
    return tensor.detach().to("cpu").resolve_conj().resolve_neg().contiguous()
