"""Memory for the rows of one input: pieces that are added and freed without a copy of the others."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_SMALLEST_PIECE = 16  # rows
_LARGEST_PIECE = 512  # rows


def capacity_for(rows: int) -> int:
    """Rows that a store has room for when it holds `rows`."""
    capacity = 0
    while capacity < rows:
        if capacity >= _LARGEST_PIECE:
            return capacity + -(-(rows - capacity) // _LARGEST_PIECE) * _LARGEST_PIECE
        capacity += max(_SMALLEST_PIECE, capacity)
    return capacity


def finite_rows(rows: Tensor) -> Tensor:
    """Which rows [n, K] BF16 have only finite values: a mask [n]. Reads the exponents, which is fast on any CPU."""
    magnitudes = rows.view(torch.int16) & 0x7FFF
    return magnitudes.amax(dim=1) < 0x7F80 if rows.shape[1] else torch.ones(len(rows), dtype=torch.bool, device="cpu")


class RowStore:
    """Rows [capacity, K] BF16 on the CPU, in pieces. Not safe for threads."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.capacity = 0
        self._pieces: list[Tensor] = []
        self._ends: list[int] = []

    def resize(self, rows: int) -> None:
        """Makes room for the rows with numbers below `rows`, and frees what only the others need."""
        target = capacity_for(rows)
        while self.capacity > target:
            self._pieces.pop()
            self._ends.pop()
            self.capacity = self._ends[-1] if self._ends else 0
        while self.capacity < target:
            size = min(_LARGEST_PIECE, max(_SMALLEST_PIECE, self.capacity))
            self._pieces.append(torch.empty(size, self.columns, dtype=torch.bfloat16, device="cpu"))
            self.capacity += size
            self._ends.append(self.capacity)

    def put(self, numbers: Tensor, rows: Tensor) -> None:
        """Stores rows [n, K] BF16 under their numbers [n], which ascend."""
        for piece, first, part in self._parts(numbers):
            own = numbers[part]
            begin, count = int(own[0]) - first, len(own)
            if int(own[-1]) - first - begin + 1 == count:
                piece[begin : begin + count] = rows[part]
            else:
                piece.index_copy_(0, own - first, rows[part])

    def get(self, numbers: Tensor) -> Tensor:
        """The rows [n, K] of ascending numbers [n], as a copy."""
        rows = torch.empty(len(numbers), self.columns, dtype=torch.bfloat16, device="cpu")
        for piece, first, part in self._parts(numbers):
            torch.index_select(piece, 0, numbers[part] - first, out=rows[part])
        return rows

    def move(self, sources: Tensor, targets: Tensor) -> None:
        """Copies rows to other numbers, a piece's worth at a time. Both ascend and have no number in common."""
        for source, target in zip(
            torch.split(sources, _LARGEST_PIECE), torch.split(targets, _LARGEST_PIECE), strict=True
        ):
            self.put(target, self.get(source))

    def _parts(self, numbers: Tensor) -> Iterator[tuple[Tensor, int, slice]]:
        cuts = torch.searchsorted(numbers, torch.tensor(self._ends, dtype=torch.int64, device="cpu")).tolist()
        first = begin = 0
        for piece, end, cut in zip(self._pieces, self._ends, cuts, strict=True):
            if cut > begin:
                yield piece, first, slice(begin, cut)
            first, begin = end, cut
