"""What a recording holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RecordingAccount:
    """Numbers about a recording, at the moment when it was asked for.

    Layers have the names of the file: those of the checkpoint, or those of the modules if there is no checkpoint.
    """

    path: Path
    layers: int
    """Layers with data."""
    inputs: int
    """Distinct inputs; less than `layers` where layers share one."""
    rows: dict[str, int]
    """Rows in the file per layer; for statistics, the rows that they were computed from."""
    rows_seen: dict[str, int]
    """Finite rows per layer that came by."""
    row_limit: int
    """Rows per input that the budget allows now."""
    shared_inputs: dict[str, str]
    """Layer: the layer whose entry it shares."""
    layers_without_input: tuple[str, ...]
    """Layers of the model that were not called."""
    modules_not_in_checkpoint: tuple[str, ...]
    """Linear modules of the model that match no layer of the checkpoint; they are not recorded."""
    checkpoint_layers_without_module: tuple[str, ...]
    """Layers of the checkpoint that match no module; they get no data."""
    parts_of_layers: dict[str, str]
    """Module that is a part of a joined layer of the checkpoint: the module whose input stands for all parts."""
    non_finite_rows: dict[str, int]
    """Layer: rows that the sample chose, but that are not finite and were left out."""
    skipped: dict[str, str]
    """Layer: why some of its calls were not recorded."""
    left_out: tuple[str, ...]
    """Layers whose statistics do not fit the budget."""
    bytes: int
    """Size of the file; before finish(), the size of its data so far."""
    finished: bool
    """Whether the file is written."""

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain Python objects, which JSON has, too; `path` is a text."""
        return {**asdict(self), "path": str(self.path)}
