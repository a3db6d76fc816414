"""Metadata of recordings, and the rows or statistics of an earlier one that a new one adds to."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from qmill.errors import InputError
from qmill.model import Model

from ._collectors import RowCollectors, StratumCount, SumCollector, SumCollectors
from ._inputs import InputTable
from ._rows import finite_rows
from ._sampling import keys_of_sample
from ._statistics import Sums

FORMAT = "qmill_recording"
VERSION = "1"
_KINDS = ("hessian", "mean", "channel_max", "channel_mean")


@dataclass(frozen=True)
class SeenRows:
    """What the metadata say of an input: its calls, and its rows per stratum."""

    calls: int
    strata: list[StratumCount]

    def as_json(self) -> dict[str, object]:
        """The value in `rows_seen`."""
        return {"calls": self.calls, "strata": [[s.label, s.seen, s.rows] for s in self.strata]}


def write_metadata(table: InputTable, identity: str | None, options: Mapping[str, object]) -> dict[str, str]:
    """The text pairs of the file's header."""
    seen = {i.layers[0]: SeenRows(i.calls, i.collector.counts()).as_json() for i in table.inputs()}
    texts = {
        "format": FORMAT,
        "version": VERSION,
        "options": _compact(options),
        "rows_seen": _compact(seen),
        "shared_inputs": _compact(table.shared_inputs()),
    }
    if identity is not None:
        texts["checkpoint"] = identity
    return texts


def load_earlier(
    path: str | os.PathLike[str],
    identity: str | None,
    seed: int,
    collectors: RowCollectors | SumCollectors,
    table: InputTable,
    share: bool,
) -> None:
    """Puts the data of the recording at `path` into an empty table.

    Raises InputError if the file is no recording, is damaged, is about another checkpoint, or has data of the other
    kind (rows and statistics cannot be added).
    """
    with Model(path) as file:
        _check_origin(path, file.metadata, identity)
        try:
            seen = _read_seen(file.metadata)
            shared = json.loads(file.metadata["shared_inputs"])
            groups = {leader: [leader] for leader in seen}
            for layer, leader in shared.items():
                groups[leader].append(layer)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"'{path}' has damaged metadata ({error!r}): record again with overwrite=True") from error
        for leader, layers in groups.items():
            if len(layers) > 1 and not share:
                raise InputError(f"'{path}' has shared inputs: add to it with share=True, as it was recorded")
            if isinstance(collectors, RowCollectors):
                _load_rows(path, file, leader, layers, seen[leader], seed, collectors, table)
            else:
                _load_sums(path, file, leader, layers, seen[leader], collectors, table)


def _check_origin(path: str | os.PathLike[str], metadata: Mapping[str, str], identity: str | None) -> None:
    if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
        raise InputError(
            f"'{path}' is no recording of this version (format {metadata.get('format')!r}, version "
            f"{metadata.get('version')!r}, expected {FORMAT!r}, {VERSION!r}): "
            "choose another file, or pass overwrite=True"
        )
    found = metadata.get("checkpoint")
    if found == identity:
        return
    if found is None:
        raise InputError(
            f"'{path}' was recorded without a checkpoint: leave `checkpoint` out, as then, or choose another file"
        )
    given = "another checkpoint" if identity is not None else "a checkpoint, and none is given now"
    raise InputError(
        f"'{path}' was recorded with {given}: pass the checkpoint that it was recorded with, or choose another file"
    )


def _read_seen(metadata: Mapping[str, str]) -> dict[str, SeenRows]:
    result = {}
    for layer, value in json.loads(metadata["rows_seen"]).items():
        strata = []
        for label, seen, rows in value["strata"]:
            if not (label is None or isinstance(label, (str, int, float))) or not 0 <= _int(rows) <= _int(seen):
                raise ValueError(f"rows_seen of {layer}")
            strata.append(StratumCount(label, seen, rows))
        result[layer] = SeenRows(_int(value["calls"]), strata)
    return result


def _int(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _load_rows(
    path: str | os.PathLike[str],
    file: Model,
    leader: str,
    layers: list[str],
    seen: SeenRows,
    seed: int,
    collectors: RowCollectors,
    table: InputTable,
) -> None:
    total = sum(stratum.rows for stratum in seen.strata)
    key = f"{leader}.input"
    if total == 0:
        return
    shape = tuple(file.shape(key)) if key in set(file.keys()) else ()
    if len(shape) != 2 or shape[0] != total or file.dtype(key) != "BF16":
        raise InputError(
            f"'{path}' has no entry '{key}' of type BF16 with the {total} rows that its metadata name: "
            "it has statistics instead of rows, or is damaged; choose another file, or pass overwrite=True"
        )
    rows = file.tensor(key)
    if not bool(finite_rows(rows).all()):
        raise InputError(f"entry '{key}' of '{path}' has values that are not finite: record again with overwrite=True")
    collector = collectors.new(leader, shape[1], torch.device("cpu"))
    begin = 0
    for stratum in seen.strata:
        part = rows[begin : begin + stratum.rows]
        begin += stratum.rows
        keys, threshold = keys_of_sample(seed, leader, stratum.label, stratum.rows, stratum.seen)
        collectors.budget.make_room(collector.reservoir, len(part))
        collector.reservoir.load(stratum.label, stratum.seen, part, keys, threshold)
        collector.reservoir.trim(collectors.budget.limit)
    table.load(layers, seen.calls, collector)


def _load_sums(
    path: str | os.PathLike[str],
    file: Model,
    leader: str,
    layers: list[str],
    seen: SeenRows,
    collectors: SumCollectors,
    table: InputTable,
) -> None:
    rows = sum(stratum.seen for stratum in seen.strata)
    if rows == 0:
        return
    keys = set(file.keys())
    columns = file.shape(f"{leader}.mean")[0] if f"{leader}.mean" in keys else 0
    expected = {kind: (columns, columns) if kind == "hessian" else (columns,) for kind in _KINDS}
    for kind, shape in expected.items():
        key = f"{leader}.{kind}"
        if key not in keys or tuple(file.shape(key)) != shape or file.dtype(key) != "F32":
            raise InputError(
                f"'{path}' has no entry '{key}' of type F32 and shape {list(shape)}: "
                "it has rows instead of statistics, or is damaged; choose another file, or pass overwrite=True"
            )
    collector = collectors.new(leader, columns, torch.device("cpu"))
    if collector is None:
        raise InputError(f"the statistics in '{path}' do not fit the budget: raise it")
    assert isinstance(collector, SumCollector)
    collector.sums = Sums.from_results(rows, {kind: file.tensor(f"{leader}.{kind}") for kind in _KINDS})
    table.load(layers, seen.calls, collector)


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
