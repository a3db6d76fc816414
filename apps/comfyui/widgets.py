"""The widgets that both record nodes have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from . import files
from .session import Settings

_MIB = 1 << 20


class AnyType(str):
    """The type of an input that takes every output. ComfyUI compares types with `!=`; older ones know no other way."""

    def __ne__(self, other: object) -> bool:
        return False


ANY = AnyType("*")


def recording(folders: Iterable[str]) -> dict[str, Any]:
    """ComfyUI's description of the widgets. `folders` are the model folders that the checkpoint may be in."""
    return {
        "enabled": ("BOOLEAN", {"default": True, "tooltip": "off: passes on what goes in, and records nothing"}),
        "checkpoint": (
            files.model_choices(folders),
            {"tooltip": "the file that you will convert; only its layers are recorded"},
        ),
        "rows_file": (
            "STRING",
            {
                "default": "qmill/rows.safetensors",
                "tooltip": "where rows are stored: a name below ComfyUI's output folder, or an absolute path",
            },
        ),
        "rows": (
            "INT",
            {"default": 4096, "min": 32, "max": 1 << 20, "tooltip": "the largest number of rows per input of a layer"},
        ),
        "budget_mib": (
            "INT",
            {"default": 2048, "min": 1, "max": 1 << 20, "tooltip": "the largest size of the file, MiB"},
        ),
        "append": (
            "BOOLEAN",
            {"default": True, "tooltip": "off: an error if the file exists before the first run"},
        ),
    }


def settings(*, enabled: bool, checkpoint: str, rows_file: str, rows: int, budget_mib: int, append: bool) -> Settings:
    """What the widgets say. Raises what `files.model_path` and `files.new_rows_path` raise.

    With the switch off, no folder is created, and the checkpoint may be missing.
    """
    return Settings(
        file=files.new_rows_path(rows_file) if enabled else files.rows_path(rows_file),
        checkpoint=files.model_path(checkpoint) if enabled else None,
        rows=rows,
        budget=budget_mib * _MIB,
        append=append,
    )
