"""Statistics of the rows of one input: what docs/calibration.md names Hessian, mean, channel_max and channel_mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_PART_ROWS = 1024


def statistics_bytes(columns: int) -> int:
    """Memory of the sums of an input with K columns, in bytes: [K, K] F32 and three times [K] F64."""
    return 4 * columns * columns + 24 * columns


class Sums:
    """Sums over finite rows x [n, K]: XᵀX [K, K] F32, Σx, Σ|x| and max|x| [K] F64, on the device of the rows."""

    def __init__(self, columns: int, device: torch.device) -> None:
        wide = torch.float32 if device.type == "mps" else torch.float64
        self.rows = 0
        self.products = torch.zeros(columns, columns, dtype=torch.float32, device=device)
        self.total = torch.zeros(columns, dtype=wide, device=device)
        self.magnitude = torch.zeros(columns, dtype=wide, device=device)
        self.largest = torch.zeros(columns, dtype=wide, device=device)

    def add_rows(self, rows: Tensor) -> int:
        """Adds rows [n, K] of any float type. Returns the number of rows left out because they are not finite."""
        bad = 0
        with _full_precision(rows.device):
            for part in torch.split(rows, _PART_ROWS):
                x = part.to(torch.float32)
                finite = torch.isfinite(x).all(dim=1)
                if not bool(finite.all()):
                    x = x[finite]
                    bad += len(part) - len(x)
                if not len(x):
                    continue
                self.products.addmm_(x.t(), x)
                wide = x.to(self.total.dtype)
                self.total += wide.sum(dim=0)
                magnitude = wide.abs()
                self.magnitude += magnitude.sum(dim=0)
                self.largest = torch.maximum(self.largest, magnitude.amax(dim=0))
        self.rows += len(rows) - bad
        return bad

    def add(self, other: Sums) -> None:
        """Adds the sums of other rows."""
        self.rows += other.rows
        self.products += other.products.to(self.products.device)
        self.total += other.total.to(self.total.device)
        self.magnitude += other.magnitude.to(self.magnitude.device)
        self.largest = torch.maximum(self.largest, other.largest.to(self.largest.device))

    def to(self, device: torch.device) -> None:
        """Moves the sums to the device of later rows."""
        if self.products.device != device:
            for name in ("products", "total", "magnitude", "largest"):
                setattr(self, name, getattr(self, name).to(device))

    def copy(self) -> Sums:
        """Sums of the same rows that can grow on their own."""
        other = Sums.__new__(Sums)
        other.rows = self.rows
        other.products, other.total = self.products.clone(), self.total.clone()
        other.magnitude, other.largest = self.magnitude.clone(), self.largest.clone()
        return other

    def results(self, kind: str) -> Tensor:
        """One entry of the file, F32 on the CPU: `hessian` [K, K], symmetric to the last bit, or a statistic [K]."""
        if kind == "hessian":
            hessian = self.products.cpu() / self.rows
            return torch.triu(hessian) + torch.triu(hessian, 1).t()
        values = {
            "mean": self.total / self.rows,
            "channel_max": self.largest,
            "channel_mean": self.magnitude / self.rows,
        }
        return values[kind].to("cpu", torch.float32)

    @classmethod
    def from_results(cls, rows: int, entries: dict[str, Tensor]) -> Sums:
        """The sums of an earlier recording, from its entries and its number of rows."""
        sums = cls(len(entries["mean"]), torch.device("cpu"))
        sums.rows = rows
        sums.products = entries["hessian"].to(torch.float32) * rows
        sums.total = entries["mean"].to(torch.float64) * rows
        sums.magnitude = entries["channel_mean"].to(torch.float64) * rows
        sums.largest = entries["channel_max"].to(torch.float64)
        return sums


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Products in F32 without TF32, whatever the caller allows. Autocast leaves products in place alone."""
    if device.type != "cuda":
        yield
        return
    matmul = torch.backends.cuda.matmul
    # Since torch 2.9 there are two names, and the older one cannot be read once the newer one was set.
    name, full = ("fp32_precision", "ieee") if hasattr(matmul, "fp32_precision") else ("allow_tf32", False)
    before = getattr(matmul, name)
    setattr(matmul, name, full)
    try:
        yield
    finally:
        setattr(matmul, name, before)
