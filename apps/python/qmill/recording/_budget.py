"""The memory that all samples share: when it is full, every sample gets smaller, to the same number of rows."""

from __future__ import annotations

from ._reservoir import Reservoir

_SPARE = 32  # a sample that must shrink leaves 1/32 free, so that not every call has to shrink it


class RowBudget:
    """Keeps the memory of all reservoirs within `total` bytes by lowering `limit`, the rows per input.

    Not safe for threads; the recording has the lock.
    """

    def __init__(self, total: int, limit: int) -> None:
        self.total = total
        self.limit = limit
        self._reservoirs: list[Reservoir] = []

    @property
    def used(self) -> int:
        """Memory that the reservoirs take now, in bytes."""
        return sum(reservoir.bytes_for(reservoir.held) for reservoir in self._reservoirs)

    def new(self, columns: int, seed: int, layer: str) -> Reservoir:
        """An empty reservoir within this budget."""
        reservoir = Reservoir(columns, seed, layer)
        self._reservoirs.append(reservoir)
        return reservoir

    def split(self, reservoir: Reservoir) -> Reservoir:
        """A copy without the latest call, within this budget."""
        self._fit([(other, other.held) for other in self._reservoirs] + [(reservoir, reservoir.held)])
        other = reservoir.without_last_call()
        self._reservoirs.append(other)
        return other

    def make_room(self, reservoir: Reservoir, more: int) -> None:
        """Lets a reservoir grow by `more` rows, or to the limit; this may lower the limit and trim all."""
        grown = min(self.limit, reservoir.held + more)
        if reservoir.bytes_for(grown) == reservoir.bytes_for(reservoir.held):
            return
        self._fit([(other, grown if other is reservoir else other.held) for other in self._reservoirs])

    def shrink(self, total: int) -> None:
        """Lowers the budget and makes everything fit."""
        self.total = total
        self._fit([(other, other.held) for other in self._reservoirs])

    def _fit(self, wanted: list[tuple[Reservoir, int]]) -> None:
        def needed(limit: int) -> int:
            return sum(reservoir.bytes_for(min(rows, limit)) for reservoir, rows in wanted)

        if needed(self.limit) <= self.total:
            return
        low, high = 1, self.limit
        while low < high:
            middle = (low + high + 1) // 2
            if needed(middle) <= self.total - self.total // _SPARE:
                low = middle
            else:
                high = middle - 1
        self.limit = low
        for reservoir in self._reservoirs:
            reservoir.trim(low)
