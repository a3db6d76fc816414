"""Which tensors are the same input: how the recorder knows that several layers read one tensor."""

from __future__ import annotations

import ctypes
import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

_PROBE_ROWS = 16


@dataclass(frozen=True)
class InputIdentity:
    """The memory, the place of the values in it, and the version of a tensor of rows.

    The weak reference keeps the identity of the memory from being used again, but not the memory. Tensors of inference
    mode count no changes, so they have a probe instead of a version: a hash of up to 16 of their rows, evenly spaced.
    """

    storage: StorageWeakRef
    place: tuple[object, ...]
    version: int
    probe: bytes

    @classmethod
    def of(cls, x: Tensor) -> InputIdentity | None:
        """The identity of a tensor [..., K]; None if it has no memory of its own."""
        try:
            storage = StorageWeakRef(x.untyped_storage())  # type: ignore[no-untyped-call]
            if x.is_contiguous():
                place: tuple[object, ...] = (x.storage_offset(), x.numel(), x.shape[-1])
            else:
                place = (x.storage_offset(), tuple(x.shape), x.stride())
        except (RuntimeError, NotImplementedError):
            return None
        where = (x.dtype, x.device, *place)
        if not x.is_inference():
            return cls(storage, where, x._version, b"")
        rows = x.numel() // max(1, x.shape[-1])
        numbers = torch.arange(0, rows, max(1, -(-rows // _PROBE_ROWS)), device="cpu")
        values = rows_at(x, numbers).contiguous()
        size = values.numel() * values.element_size()
        memory = (ctypes.c_char * size).from_address(values.data_ptr()) if size else b""
        return cls(storage, where, 0, hashlib.blake2b(memory, digest_size=16).digest())

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for equal identities; hashable."""
        return (self.storage.cdata, self.place, self.version, self.probe)

    def same(self, other: InputIdentity | None) -> bool:
        """Whether both are the same rows."""
        return other is not None and self.key == other.key


def rows_at(x: Tensor, numbers: Tensor) -> Tensor:
    """Some rows of x [..., K], as [n, K] BF16 on the CPU. Copies only these rows, wherever x is."""
    if x.dim() == 1:
        x = x.unsqueeze(0)
    count = x.numel() // max(1, x.shape[-1])
    everything = len(numbers) == count
    try:
        flat = x.view(count, x.shape[-1])
    except RuntimeError:
        where = torch.unravel_index(numbers.to(x.device), x.shape[:-1])
        return x[where].to(torch.bfloat16).to("cpu")
    rows = flat if everything else flat.index_select(0, numbers.to(x.device))
    return rows.to(torch.bfloat16).to("cpu")
