"""What the tests of qmill.record share: a reader of safetensors in place of qmill's own, small models, slow references."""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors import safe_open
from torch import Tensor, nn

import qmill.recording._earlier
import qmill.recording.recorder


class SafetensorsFile:
    """The part of an open model that the recorder uses."""

    def __init__(self, path: Path) -> None:
        self._file: Any = safe_open(path, "pt")
        self.metadata: dict[str, str] = self._file.metadata() or {}

    def keys(self) -> list[str]:
        return list(self._file.keys())

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(key).get_shape())

    def dtype(self, key: str) -> str:
        return str(self._file.get_slice(key).get_dtype())

    def tensor(self, key: str) -> Tensor:
        return self._file.get_tensor(key)


@contextlib.contextmanager
def _open(path: Any) -> Iterator[SafetensorsFile]:
    yield SafetensorsFile(Path(path))


def identity_of_names(path: Any) -> str:
    file = SafetensorsFile(Path(path))
    return json.dumps({key: file.shape(key) for key in sorted(file.keys())})


class RecordCase(unittest.TestCase):
    """A temporary folder, one thread, and the stand-ins for qmill's reader."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.path = self.folder / "rows.safetensors"
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        self.addCleanup(torch.set_num_threads, threads)
        for target, stand_in in (
            (qmill.recording.recorder, "open_checkpoint"),
            (qmill.recording._earlier, "open_checkpoint"),
        ):
            self._patch(target, stand_in, _open)
        self._patch(qmill.recording.recorder, "identity_of", identity_of_names)
        # Warnings that a test does not look at stay out of the output.
        quiet = logging.NullHandler()
        logging.getLogger("qmill").addHandler(quiet)
        self.addCleanup(logging.getLogger("qmill").removeHandler, quiet)

    def _patch(self, target: object, name: str, value: object) -> None:
        patch = mock.patch.object(target, name, value)
        patch.start()
        self.addCleanup(patch.stop)

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
        return x + self.down(torch.relu(self.up(x)))


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
