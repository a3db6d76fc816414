"""What is collected of a distinct input: sampled rows, or sums. Both kinds answer the same questions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ._budget import RowBudget
from ._identity import rows_at
from ._reservoir import Label, Reservoir
from ._sampling import row_keys
from ._statistics import Sums, statistics_bytes
from ._writer import Entry


@dataclass(frozen=True)
class StratumCount:
    """Finite rows of one stratum: how many came by, and how many are in the file."""

    label: Label
    seen: int
    rows: int


class Collector(ABC):
    """The data of one distinct input. Not safe for threads; the recording has the lock."""

    columns: int

    @abstractmethod
    def add(self, layer: str, call: int, label: Label, x: Tensor, shared: bool) -> int:
        """Takes in the call `call` of `layer`, x [..., K]. Returns how many rows it left out as not finite."""

    @abstractmethod
    def confirm(self) -> None:
        """Every layer of the input has made the latest call, so none will be split off before it."""

    @abstractmethod
    def counts(self) -> list[StratumCount]:
        """Numbers of rows per stratum, in the order of the file."""

    @abstractmethod
    def entries(self, layer: str) -> Iterator[Entry]:
        """The entries of the file for a layer with this input."""


class Collectors(ABC):
    """Makes collectors within a budget."""

    @abstractmethod
    def new(self, layer: str, columns: int, device: torch.device) -> Collector | None:
        """An empty collector; None if the budget has no room."""

    @abstractmethod
    def split(self, collector: Collector) -> Collector | None:
        """A copy as it was before the latest call; None if the budget has no room."""

    @abstractmethod
    def shrink(self, total: int) -> None:
        """Fits everything into `total` bytes, as far as that can be done without losing an input."""


class RowCollector(Collector):
    """A sample of the rows."""

    def __init__(self, budget: RowBudget, reservoir: Reservoir, seed: int) -> None:
        self.columns = reservoir.columns
        self.reservoir = reservoir
        self._budget = budget
        self._seed = seed

    def add(self, layer: str, call: int, label: Label, x: Tensor, shared: bool) -> int:
        stratum = self.reservoir.stratum(label)
        keys = row_keys(self._seed, layer, call, x.numel() // self.columns)
        candidates = self.reservoir.candidates(stratum, keys)
        self._budget.make_room(self.reservoir, len(candidates))
        return self.reservoir.add(stratum, call, keys, candidates, self._budget.limit, lambda which: rows_at(x, which))

    def confirm(self) -> None:
        pass

    def counts(self) -> list[StratumCount]:
        return [StratumCount(state.label, state.seen, state.held) for state in self.reservoir.strata]

    def entries(self, layer: str) -> Iterator[Entry]:
        if self.reservoir.held:
            shape = (self.reservoir.held, self.columns)
            yield Entry(f"{layer}.input", torch.bfloat16, shape, self.reservoir.blocks)


class RowCollectors(Collectors):
    """Samples that share the memory: each new input makes the others smaller."""

    def __init__(self, total: int, limit: int, seed: int) -> None:
        self.budget = RowBudget(total, limit)
        self._seed = seed

    @staticmethod
    def least_bytes(columns: int) -> int:
        """Memory that an input takes with a single row, in bytes."""
        return Reservoir(columns, 0, "").bytes_for(1)

    def new(self, layer: str, columns: int, device: torch.device) -> RowCollector:
        return RowCollector(self.budget, self.budget.new(columns, self._seed, layer), self._seed)

    def split(self, collector: Collector) -> RowCollector:
        assert isinstance(collector, RowCollector)
        return RowCollector(self.budget, self.budget.split(collector.reservoir), self._seed)

    def shrink(self, total: int) -> None:
        self.budget.shrink(total)


class SumCollector(Collector):
    """Sums over all rows. Those of the latest call wait until every layer of the input has made it."""

    def __init__(self, sums: Sums, columns: int) -> None:
        self.columns = columns
        self.sums = sums
        self._latest: Sums | None = None

    def add(self, layer: str, call: int, label: Label, x: Tensor, shared: bool) -> int:
        self.confirm()
        self.sums.to(x.device)
        rows = x.reshape(-1, self.columns)
        if not shared:
            return self.sums.add_rows(rows)
        self._latest = Sums(self.columns, x.device)
        return self._latest.add_rows(rows)

    def confirm(self) -> None:
        if self._latest is not None:
            self.sums.add(self._latest)
            self._latest = None

    def counts(self) -> list[StratumCount]:
        self.confirm()
        return [StratumCount(None, self.sums.rows, self.sums.rows)]

    def entries(self, layer: str) -> Iterator[Entry]:
        self.confirm()
        if not self.sums.rows:
            return
        k = self.columns
        for kind, shape in (("hessian", (k, k)), ("mean", (k,)), ("channel_max", (k,)), ("channel_mean", (k,))):
            yield Entry(f"{layer}.{kind}", torch.float32, shape, partial(self._blocks, kind))

    def _blocks(self, kind: str) -> Iterator[Tensor]:
        yield self.sums.results(kind)


class SumCollectors(Collectors):
    """Sums as long as they fit, in the order in which inputs are first seen."""

    def __init__(self, total: int) -> None:
        self._left = total

    def new(self, layer: str, columns: int, device: torch.device) -> SumCollector | None:
        return SumCollector(Sums(columns, device), columns) if self._reserve(columns) else None

    def split(self, collector: Collector) -> SumCollector | None:
        assert isinstance(collector, SumCollector)
        if not self._reserve(collector.columns):
            return None
        return SumCollector(collector.sums.copy(), collector.columns)

    def shrink(self, total: int) -> None:
        pass

    def _reserve(self, columns: int) -> bool:
        if statistics_bytes(columns) > self._left:
            return False
        self._left -= statistics_bytes(columns)
        return True
