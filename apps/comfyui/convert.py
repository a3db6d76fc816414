"""The node that converts a model file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, ClassVar

from . import files, text
from .host import comfyui, qmill, show_on_node

FORMATS = ("int8", "fp8", "mxfp8", "w4a8", "nvfp4", "int4", "fp16")
OPTIMIZERS = ("auto", "rtn", "gptq", "quip", "learned_rounding")

# Options with fields of their own, and the callback.
_TAKEN = ("input", "output", "format", "optimizer", "filter", "calibration_data", "overwrite", "progress")


class Convert:
    """Converts a file of a model folder, and stores the result in the same folder."""

    DESCRIPTION = "Quantizes a model file with qmill. The result is a file in the same model folder."
    CATEGORY = "qmill"
    RETURN_TYPES = ("STRING", "STRING")
    RETURN_NAMES = ("path", "summary")
    FUNCTION = "convert"
    OUTPUT_NODE = True

    _results: ClassVar[dict[Path, list[Any]]] = {}  # state of each file when it was written

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model_file": (files.model_choices(files.ALL_FOLDERS), {"tooltip": "the file to convert"}),
                "format": (list(FORMATS), {"default": "int8", "tooltip": "how weights are stored"}),
                "optimizer": (
                    list(OPTIMIZERS),
                    {"default": "auto", "tooltip": "auto: gptq for layers with rows, rtn for the others"},
                ),
                "filter": (
                    "STRING",
                    {"default": "auto", "tooltip": "auto, none, or names of filters with commas between them"},
                ),
                "rows_file": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": "the recorded rows: a name below ComfyUI's output folder, or an absolute path; "
                        "empty: converts without rows",
                    },
                ),
                "file_name": (
                    "STRING",
                    {"default": "", "tooltip": "the result, below the model folder; empty: NAME_FORMAT.safetensors"},
                ),
                "overwrite": ("BOOLEAN", {"default": False, "tooltip": "replaces a result that exists"}),
                "more_options": (
                    "STRING",
                    {
                        "default": "{}",
                        "multiline": True,
                        "tooltip": 'other options of qmill convert as JSON, such as {"scaling_mode": "tensor"}',
                    },
                ),
            },
            "hidden": {"node_id": "UNIQUE_ID"},
        }

    @classmethod
    def IS_CHANGED(cls, **values: Any) -> str:
        """Another text if the source or the rows changed, or the result is not the one that was written.

        Then the node runs again. ComfyUI keeps what a node gave back as long as this text and the fields are the same.
        """
        if None in values.values():
            return "linked"  # ComfyUI compares the values of linked fields itself
        try:
            source, output, rows = _paths(**values)
        except (ValueError, OSError):
            return "wrong"  # the node itself says what is wrong
        stamps = [_stamp(path) for path in (source, rows) if path is not None]
        if cls._results.get(output, _stamp(output)) != _stamp(output):
            stamps.append(_stamp(output))
        return json.dumps(stamps)

    def convert(
        self,
        model_file: str,
        format: str,
        optimizer: str,
        filter: str,
        rows_file: str,
        file_name: str,
        overwrite: bool,
        more_options: str,
        node_id: str | None = None,
    ) -> dict[str, Any]:
        """Returns the path of the result, and the summary of the conversion.

        Raises ComfyUI's exception of an interruption; then there is no new file. Raises what qmill.convert raises.
        """
        source, output, rows = _paths(model_file, format, rows_file, file_name)
        options = _more_options(more_options)
        options.update(format=format, optimizer=optimizer, overwrite=overwrite)
        options.setdefault("keep_part", False)  # a graph that was interrupted leaves nothing in the models folder
        options["filter"] = [name.strip() for name in filter.split(",") if name.strip()]
        if rows is not None:
            options["calibration_data"] = str(rows)
        output.parent.mkdir(parents=True, exist_ok=True)
        result = qmill().convert(source, output, progress=_ProgressBar(node_id), **options)
        self._results[output] = _stamp(output)
        summary = text.conversion(result)
        show_on_node(node_id, summary)
        return {"ui": {"text": [summary]}, "result": (str(output), summary)}


class _ProgressBar:
    """Passes progress on to the node's bar. Ends the conversion if the user interrupts the graph."""

    def __init__(self, node_id: str | None) -> None:
        # qmill reports from threads of its own, where ComfyUI does not know which node runs.
        self._bar = comfyui("comfy.utils").ProgressBar(1, node_id=node_id)
        self._check = comfyui("comfy.model_management").throw_exception_if_processing_interrupted

    def __call__(self, progress: Any) -> None:
        self._check()
        self._bar.update_absolute(progress.bytes_done, max(progress.bytes, 1))


def _paths(
    model_file: str, format: str, rows_file: str, file_name: str, **_: Any
) -> tuple[Path, Path, Path | None]:
    source = files.model_path(model_file)
    output = files.result_path(model_file, source, file_name, f"_{format}")
    rows = files.rows_path(rows_file) if rows_file.strip() else None
    return source, output, rows


def _more_options(written: str) -> dict[str, Any]:
    try:
        options = json.loads(written or "{}")
    except json.JSONDecodeError as error:
        raise ValueError(f"more_options is no JSON ({error}): write an object such as {{\"seed\": 1}}") from error
    if not isinstance(options, dict):
        raise ValueError(f"more_options must be a JSON object, not {type(options).__name__}: write {{}} for none")
    taken = [name for name in options if name in _TAKEN]
    if taken:
        raise ValueError(f"more_options has '{taken[0]}', which the node has a field for: use that field")
    return options


def _stamp(path: Path) -> list[Any]:
    try:
        state = os.stat(path)
    except FileNotFoundError:
        return [str(path)]
    return [str(path), state.st_size, state.st_mtime_ns]
