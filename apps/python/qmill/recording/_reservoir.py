"""A sample of the rows of one input, in strata.

Method: every row gets a uniform random key, and a stratum keeps the rows with the smallest keys. That is simple random
sampling without replacement, as the reservoirs of Vitter (Random Sampling with a Reservoir, ACM TOMS 11, 1985,
algorithm R) give it, and unlike these it can also be made smaller and be merged with another sample: the rows with the
smallest keys of a uniform sample are a uniform sample. How many rows a stratum keeps depends on numbers of rows, never
on keys or values, so it favours no row of the stratum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from qmill._values import json_value

from ._rows import RowStore, capacity_for, finite_rows
from ._sampling import even_shares, generator

_BOOK_BYTES = 24  # of a row beside its values: its key, its stratum and its call
_BLOCK_ROWS = 256

Label = str | int | float | None
Gather = Callable[[Tensor], Tensor]


def label_of(value: object) -> Label:
    """A stratum as text, a number or None: what equal values have in common, and JSON can store.

    Raises UsageError for a text that is not UTF-8 or has a NUL, and for an integer of more than 64 bits.
    """
    if isinstance(value, Tensor) and value.numel() == 1 or getattr(value, "ndim", None) == 0:
        value = value.item()  # type: ignore[attr-defined]
    if value is None:
        return value
    if isinstance(value, (str, int)):
        json_value("step", value)
        return value if isinstance(value, str) else int(value)
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 2**53:
            return int(value)
        return value if abs(value) < float("inf") else repr(value)
    return repr(value)


@dataclass
class StratumState:
    """What a reservoir knows of one stratum. Every row that it holds has a key below `threshold`."""

    label: Label
    priority: float
    threshold: float = 1.0
    seen: int = 0
    held: int = 0


@dataclass
class LastCall:
    """What the latest call changed, so that a layer that did not make this call can be split off."""

    number: int
    stratum: int
    seen: int


class Reservoir:
    """Rows [held, K] BF16 of one input. Not safe for threads; the recording has the lock."""

    def __init__(self, columns: int, seed: int, layer: str) -> None:
        self.columns = columns
        self.strata: list[StratumState] = []
        self.last: LastCall | None = None
        self._numbers: dict[Label, int] = {}
        self._seed = seed
        self._layer = layer
        self._store = RowStore(columns)
        self._key = torch.empty(0, dtype=torch.float64, device="cpu")
        self._stratum = torch.empty(0, dtype=torch.int64, device="cpu")
        self._call = torch.empty(0, dtype=torch.int64, device="cpu")

    @property
    def held(self) -> int:
        """Number of rows in the sample."""
        return len(self._key)

    @property
    def seen(self) -> int:
        """Number of finite rows that the sample was taken from."""
        return sum(stratum.seen for stratum in self.strata)

    @property
    def row_bytes(self) -> int:
        """Memory that one row takes, in bytes."""
        return 2 * self.columns + _BOOK_BYTES

    def bytes_for(self, rows: int) -> int:
        """Memory that the reservoir takes with so many rows, in bytes."""
        return capacity_for(rows) * self.row_bytes

    def stratum(self, label: Label) -> int:
        """The number of the stratum with this label; a new one if there is none."""
        index = self._numbers.get(label)
        if index is not None:
            return index
        random = generator(self._seed, "stratum", self._layer, repr(label))
        priority = float(torch.rand((), dtype=torch.float64, device="cpu", generator=random))
        self._numbers[label] = len(self.strata)
        self.strata.append(StratumState(label, priority))
        return self._numbers[label]

    def candidates(self, stratum: int, keys: Tensor) -> Tensor:
        """Numbers of the rows of a call that could come into the sample, from their keys [n]."""
        threshold = self.strata[stratum].threshold
        if threshold >= 1.0:
            return torch.arange(len(keys), device="cpu")
        return torch.nonzero(keys < threshold).flatten()

    def add(self, stratum: int, call: int, keys: Tensor, candidates: Tensor, limit: int, gather: Gather) -> int:
        """Samples a call of len(keys) rows so that at most `limit` rows are held. Returns the rows that are not finite.

        `gather` returns the rows of some numbers as [n, K] BF16 on the CPU; it is asked once, for what is taken.
        """
        key = keys[candidates]
        state = self.strata[stratum]
        stays, comes = self._cut(limit, stratum, key)
        numbers = candidates[comes]
        rows = gather(numbers)
        finite = finite_rows(rows)
        bad = len(numbers) - int(finite.sum())
        key = key[comes]
        if bad:
            rows, key = rows[finite], key[finite]
        self.last = LastCall(call, stratum, len(keys) - bad)
        state.seen += len(keys) - bad
        state.held += len(key)
        self._replace(stays, key, stratum, call, rows)
        return bad

    def trim(self, limit: int) -> None:
        """Makes the sample smaller: at most `limit` rows, the strata as equal as possible."""
        if self.held > limit:
            self._drop(self._cut(limit, 0, self._key[:0])[0])

    def without_last_call(self) -> Reservoir:
        """A copy of the sample as it was before the latest call.

        Rows that the latest call pushed out are lost to both. The thresholds stay, so that the copy is uniform.
        """
        other = Reservoir(self.columns, self._seed, self._layer)
        other.strata = [StratumState(**vars(state)) for state in self.strata]
        other._numbers = dict(self._numbers)
        other._key, other._stratum, other._call = self._key.clone(), self._stratum.clone(), self._call.clone()
        other._store.resize(self.held)
        for numbers in torch.split(torch.arange(self.held, device="cpu"), _BLOCK_ROWS):
            other._store.put(numbers, self._store.get(numbers))
        if self.last is not None:
            other.strata[self.last.stratum].seen -= self.last.seen
            stays = other._call != self.last.number
            for index, state in enumerate(other.strata):
                state.held = int((stays & (other._stratum == index)).sum())
            other._drop(stays)
        return other

    def load(self, label: Label, seen: int, rows: Tensor, keys: Tensor, threshold: float) -> None:
        """Adds the sample of one stratum of an earlier recording: finite rows [n, K] and their keys [n]."""
        index = self.stratum(label)
        state = self.strata[index]
        state.seen, state.held, state.threshold = seen, len(rows), threshold
        self._replace(torch.ones(self.held, dtype=torch.bool, device="cpu"), keys, index, -1, rows)

    def blocks(self) -> Iterator[Tensor]:
        """The rows in parts [n, K] BF16, in the order of the file: by stratum, and there by key."""
        by_key = torch.argsort(self._key)
        order = by_key[torch.argsort(self._stratum[by_key], stable=True)]
        for part in torch.split(order, _BLOCK_ROWS):
            numbers, place = torch.sort(part)
            yield self._store.get(numbers)[torch.argsort(place)]

    def _cut(self, limit: int, stratum: int, key: Tensor) -> tuple[Tensor, Tensor]:
        """Which held rows stay and which new ones, of one stratum with keys [n], come: two masks. Counts what goes."""
        stays = torch.ones(self.held, dtype=torch.bool, device="cpu")
        comes = torch.ones(len(key), dtype=torch.bool, device="cpu")
        if self.held + len(key) <= limit:
            return stays, comes
        wanted = [state.held for state in self.strata]
        wanted[stratum] += len(key)
        shares = even_shares(wanted, limit, [state.priority for state in self.strata])
        for index, (state, share) in enumerate(zip(self.strata, shares, strict=True)):
            if wanted[index] <= share:
                continue
            own = torch.nonzero(self._stratum == index).flatten()
            keys = self._key[own]
            both = torch.cat([keys, key]) if index == stratum else keys
            state.threshold = float(torch.kthvalue(both, share + 1).values)
            stays[own] = keys < state.threshold
            state.held = int(stays[own].sum())
            if index == stratum:
                comes = key < state.threshold
        return stays, comes

    def _drop(self, stays: Tensor) -> None:
        none = self._key[:0]
        self._replace(stays, none, 0, 0, torch.empty(0, self.columns, dtype=torch.bfloat16, device="cpu"))

    def _replace(self, stays: Tensor, key: Tensor, stratum: int, call: int, rows: Tensor) -> None:
        """Puts new rows where others go; the rest of the gaps is closed with the rows of the highest numbers."""
        gaps = torch.nonzero(~stays).flatten()
        held, new = self.held, len(key)
        if not new and not len(gaps):
            return
        total = held - len(gaps) + new
        self._store.resize(max(held, total))
        if new > len(gaps):
            grown = torch.arange(held, total, device="cpu")
            self._key = torch.cat([self._key, self._key.new_empty(len(grown))])
            self._stratum = torch.cat([self._stratum, self._stratum.new_empty(len(grown))])
            self._call = torch.cat([self._call, self._call.new_empty(len(grown))])
            gaps = torch.cat([gaps, grown])
        places, gaps = gaps[:new], gaps[new:]
        if new:
            self._store.put(places, rows)
            self._key[places] = key
            self._stratum[places] = stratum
            self._call[places] = call
        if len(gaps):
            targets = gaps[gaps < total]
            high = torch.ones(held - total, dtype=torch.bool, device="cpu")
            high[gaps[gaps >= total] - total] = False
            sources = torch.nonzero(high).flatten() + total
            self._store.move(sources, targets)
            self._key[targets] = self._key[sources]
            self._stratum[targets] = self._stratum[sources]
            self._call[targets] = self._call[sources]
            self._key, self._stratum, self._call = self._key[:total], self._stratum[:total], self._call[:total]
            self._key, self._stratum, self._call = self._key.clone(), self._stratum.clone(), self._call.clone()
        self._store.resize(total)
