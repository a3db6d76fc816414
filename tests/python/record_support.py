"""What the tests of qmill.record share: a reader of safetensors that is not qmill's, small models, slow references."""

from __future__ import annotations

import logging
import tempfile
import unittest
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn


class SafetensorsFile:
    """A file, read by the safetensors package."""

    def __init__(self, path: Path) -> None:
        opened: Any = safe_open
        self._file: Any = opened(path, "pt")
        self.metadata: dict[str, str] = self._file.metadata() or {}

    def keys(self) -> list[str]:
        return list(self._file.keys())

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(key).get_shape())

    def dtype(self, key: str) -> str:
        return str(self._file.get_slice(key).get_dtype())

    def tensor(self, key: str) -> Tensor:
        found: Tensor = self._file.get_tensor(key)
        return found


class RecordCase(unittest.TestCase):
    """A temporary folder, and one thread."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.path = self.folder / "rows.safetensors"
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        self.addCleanup(torch.set_num_threads, threads)
        # Warnings that a test does not look at stay out of the output.
        quiet = logging.NullHandler()
        logging.getLogger("qmill").addHandler(quiet)
        self.addCleanup(logging.getLogger("qmill").removeHandler, quiet)

    def file(self, path: Path | None = None) -> SafetensorsFile:
        return SafetensorsFile(path or self.path)

    def assert_nothing_left(self) -> None:
        self.assertEqual([item.name for item in self.folder.iterdir()], [])


class Attention(nn.Module):
    """q, k and v read one input; then an output and two layers with inputs of their own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.out(torch.tanh(self.q(x)) * torch.sigmoid(self.k(x)) + self.v(x))
        result: Tensor = x + self.down(torch.relu(self.up(x)))
        return result


def numbered_rows(count: int, columns: int, first: int = 0) -> Tensor:
    """Rows [count, columns] F32 that name their number exactly, also in BF16: digits to the base 128."""
    number = torch.arange(first, first + count)
    rows = torch.zeros(count, columns)
    rows[:, 0], rows[:, 1], rows[:, 2] = number % 128, number // 128 % 128, number // 128**2
    return rows


def numbers_of(rows: Tensor) -> list[int]:
    """The numbers of rows that numbered_rows made."""
    digits = rows.to(torch.float64)
    return [int(value) for value in digits[:, 0] + 128 * digits[:, 1] + 128**2 * digits[:, 2]]


def chi_square(counts: Tensor, expected: float) -> float:
    """Sum of (count - expected)² / expected."""
    return float(((counts - expected) ** 2 / expected).sum())
