"""Makes the account of a recording, and warns of what a user should know."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from ._inputs import InputTable
from ._mapping import Matching
from .account import RecordingAccount

_log = logging.getLogger("qmill")
_NAMED = 5


def take_account(
    path: Path, table: InputTable, matching: Matching, row_limit: int, file_bytes: int | None
) -> RecordingAccount:
    """The account at this moment; `file_bytes` is None before the file is written."""
    layers = table.layers
    counts = {name: s.input.collector.counts() for name, s in layers.items() if s.input is not None}
    inputs = table.inputs()
    expected = [layer for names in matching.layers.values() for layer in names]
    data = sum(entry.bytes for i in inputs for entry in i.collector.entries(i.layers[0]))
    rows = {name: sum(s.rows for s in strata) for name, strata in counts.items()}
    return RecordingAccount(
        path=path,
        layers=sum(1 for number in rows.values() if number),
        inputs=len(inputs),
        rows=rows,
        rows_seen={name: sum(s.seen for s in strata) for name, strata in counts.items()},
        row_limit=row_limit,
        shared_inputs=table.shared_inputs(),
        layers_without_input=tuple(name for name in dict.fromkeys(expected) if name not in layers),
        modules_not_in_checkpoint=tuple(matching.modules_without_layer),
        checkpoint_layers_without_module=tuple(matching.layers_without_module),
        parts_of_layers=dict(matching.parts),
        non_finite_rows={name: s.non_finite_rows for name, s in layers.items() if s.non_finite_rows},
        skipped={name: s.skipped for name, s in layers.items() if s.skipped},
        left_out=tuple(name for name, s in layers.items() if s.left_out),
        bytes=data if file_bytes is None else file_bytes,
        finished=file_bytes is not None,
    )


def warn_of_gaps(account: RecordingAccount) -> None:
    """One warning for each kind of data that the file lacks."""
    gaps: tuple[tuple[Collection[str], str], ...] = (
        (account.layers_without_input, "of the model not called, so without data"),
        (account.non_finite_rows, "with rows that are not finite and were left out"),
        (account.skipped, "with calls that cannot be recorded"),
        (account.left_out, "left out because the statistics do not fit the budget"),
    )
    for names, text in gaps:
        if names:
            _log.warning("%s: %s %s%s", account.path, count_of(names, "layer"), text, some_names(names))


def why_nothing(account: RecordingAccount) -> str:
    """Why a recording has no data, and what to do."""
    without_rows = [name for name in account.rows if name not in account.non_finite_rows]
    reasons = [
        f"{count_of(names, 'layer')} had {text}{some_names(names)}"
        for names, text in (
            (account.non_finite_rows, "only rows with values that are not finite"),
            (without_rows, "only inputs with 0 rows"),
            (account.left_out, "statistics that do not fit the budget"),
        )
        if names
    ]
    reasons += [f"layer '{name}' had {reason}" for name, reason in list(account.skipped.items())[:1]]
    if reasons:
        return f"layers were called, but {'; '.join(reasons)}; run the model with other inputs"
    return (
        "no layer was called; run the model. A weight that is used without a call of its module, as by F.linear, "
        "is not recorded"
    )


def count_of(things: Collection[object], noun: str) -> str:
    """A number with its noun: "1 layer", "2 layers"."""
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def some_names(names: Collection[str]) -> str:
    """The first names, quoted, in brackets, for a message; empty if there are none."""
    if not names:
        return ""
    first = ", ".join(f"'{name}'" for name in list(names)[:_NAMED])
    return f" ({first}{', ...' if len(names) > _NAMED else ''})"
