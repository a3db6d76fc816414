"""The functions of the package. Each does what the command of its name does; options have the same names and defaults.

All functions raise QmillError (see qmill.errors), and may be called from any thread. Paths are texts or path objects.
`plugin_dirs` are folders with plugins, searched first. The folders of a list are read once per process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from typing_extensions import Unpack

from qmill import results
from qmill._native import call, logger
from qmill._tensors import SupportsDLPack, as_tensor, on_cpu
from qmill._values import json_value, path_text, path_texts, text_value
from qmill.errors import UsageError
from qmill.model import Model
from qmill.options import ConvertOptions, QuantizeOptions
from qmill.progress import ProgressCallback, shown

Path = str | os.PathLike[str]
_WithWarnings = TypeVar("_WithWarnings", results.ConvertResult, results.Plan, results.DequantizeResult)


def convert(
    input: Path,
    output: Path | None = None,
    *,
    progress: ProgressCallback | None = None,
    plugin_dirs: Sequence[Path] = (),
    **options: Unpack[ConvertOptions],
) -> results.ConvertResult:
    """Quantizes a model file and writes a safetensors file.

    Args:
        input: A .safetensors file, an index.json, a folder of shards, a .gguf, ...
        output: The file to write. Default: a name beside the input that says how it was made.
        progress: Called with a `Progress` after each tensor that is written. An exception in it ends the conversion.
            Default: a tqdm bar on a terminal.
        plugin_dirs: Folders with plugins, searched first.
        options: Those of `qmill convert --help all`, with underscores: `format="nvfp4"`, `optimizer="gptq"`,
            `calibration_data="rows.safetensors"`, `overwrite=True`. `layer_config` may also be a dictionary, and an
            option that may be given several times a list.

    Returns:
        The quality of every layer, measured on the stored bytes, and what else there is to say.

    Raises:
        QmillError: Then nothing is at the destination that was not there before. QualityError if a layer is below
            `fail_below`.
        KeyboardInterrupt: After Ctrl-C on the main thread. Nothing is at the destination, unless the file was complete
            already.
    """
    request = _request(input, output, plugin_dirs, options)
    with shown(progress, f"qmill {os.path.basename(input)}") as callback:
        reply = call("convert", request, progress=callback)
    return _logged(results.ConvertResult.from_dict(reply.json))


def plan(
    input: Path,
    output: Path | None = None,
    *,
    plugin_dirs: Sequence[Path] = (),
    **options: Unpack[ConvertOptions],
) -> results.Plan:
    """What `convert` would do with every tensor, why, and the exact size of the output. Writes nothing."""
    return _logged(results.Plan.from_dict(call("plan", _request(input, output, plugin_dirs, options)).json))


def quantize(
    weight: torch.Tensor | SupportsDLPack,
    *,
    hessian: torch.Tensor | SupportsDLPack | None = None,
    rows: torch.Tensor | SupportsDLPack | None = None,
    name: str = "weight",
    plugin_dirs: Sequence[Path] = (),
    **options: Unpack[QuantizeOptions],
) -> results.QuantizedWeight:
    """Quantizes one weight in memory.

    Args:
        weight: A floating tensor [N, K].
        hessian: X^T X of inputs X [T, K], of any scale: a floating tensor [K, K].
        rows: Inputs themselves: a floating tensor [..., K]. One of five rows is kept apart, and the output error of the
            report is measured on these. Give at most one of `hessian` and `rows`; with one of them `optimizer="auto"`
            is gptq, without it is rounding to nearest.
        name: Of the tensor. It names the results, and seeds what is random.
        options: `format`, `optimizer`, `scaling_mode`, `block_size`, `convrot`, `manual_seed`, `threads`, and the options
            of the quantizer.

    Returns:
        The tensors that a file would hold, on the CPU, and what a reader decodes from them.
    """
    if hessian is not None and rows is not None:
        raise UsageError("a Hessian and rows are given, and the rows say more; give one of them")
    kinds = {"weight": weight, "hessian": hessian, "rows": rows}
    tensors = {kind: on_cpu(kind, as_tensor(kind, value)) for kind, value in kinds.items() if value is not None}
    request = {
        "name": text_value("name", name),
        "options": _values_of(options),
        "inputs": next((kind for kind in tensors if kind != "weight"), ""),
        "plugin_dirs": path_texts("plugin_dirs", plugin_dirs),
    }
    reply = call("quantize", request, list(tensors.values()))
    made = reply.named_tensors()
    dequantized = made.pop("dequantized")
    return results.QuantizedWeight(made, dequantized, results.LayerReport.from_dict(reply.json), _json=reply.json)


def inspect(path: Path, *, plugin_dirs: Sequence[Path] = ()) -> results.Inspection:
    """What a file holds, and how it was made. Reads headers and markers only."""
    request = {"path": path_text("path", path), "plugin_dirs": path_texts("plugin_dirs", plugin_dirs)}
    return results.Inspection.from_dict(call("inspect", request).json)


def verify(path: Path, *, read_data: bool = True, plugin_dirs: Sequence[Path] = ()) -> results.Verification:
    """Whether ComfyUI and other programs load a file. Without `read_data` only headers and markers are judged."""
    request = {
        "path": path_text("path", path),
        "read_data": json_value("read_data", read_data, bool),
        "plugin_dirs": path_texts("plugin_dirs", plugin_dirs),
    }
    return results.Verification.from_dict(call("verify", request).json)


def compare(
    quantized: Path,
    source: Path,
    *,
    calibration_data: Path | None = None,
    threads: int = 0,
    plugin_dirs: Sequence[Path] = (),
) -> results.Comparison:
    """The quality of a quantized file, measured against its source.

    With `calibration_data`, a file of sample rows, the errors of layer outputs, too. `threads`: 0 is one per processor.
    """
    request = {
        "quantized": path_text("quantized", quantized),
        "source": path_text("source", source),
        "calibration_data": None if calibration_data is None else path_text("calibration_data", calibration_data),
        "threads": json_value("threads", threads, int),
        "plugin_dirs": path_texts("plugin_dirs", plugin_dirs),
    }
    return results.Comparison.from_dict(call("compare", request).json)


def dequantize(
    input: Path,
    output: Path | None = None,
    *,
    dtype: str = "bf16",
    overwrite: bool = False,
    threads: int = 0,
    sync: bool = True,
    progress: ProgressCallback | None = None,
    plugin_dirs: Sequence[Path] = (),
) -> results.DequantizeResult:
    """Turns a quantized model into a plain one; what quantization lost stays lost.

    Args:
        dtype: Of the decoded layers: bf16, f16 or f32. The other tensors stay as they are.
        sync: Write to the disk before the file gets its name.
    """
    request = {
        "input": path_text("input", input),
        "output": None if output is None else path_text("output", output),
        "dtype": text_value("dtype", dtype),
        "overwrite": json_value("overwrite", overwrite, bool),
        "threads": json_value("threads", threads, int),
        "sync": json_value("sync", sync, bool),
        "plugin_dirs": path_texts("plugin_dirs", plugin_dirs),
    }
    with shown(progress, f"qmill {os.path.basename(input)}") as callback:
        reply = call("dequantize", request, progress=callback)
    return _logged(results.DequantizeResult.from_dict(reply.json))


def calibrate(
    rows: Path,
    output: Path,
    *,
    overwrite: bool = False,
    threads: int = 0,
    sync: bool = True,
    plugin_dirs: Sequence[Path] = (),
) -> results.CalibrateResult:
    """Turns sample rows into statistics: .safetensors with Hessians, or .json with channel statistics only."""
    request = {
        "rows": path_text("rows", rows),
        "output": path_text("output", output),
        "overwrite": json_value("overwrite", overwrite, bool),
        "threads": json_value("threads", threads, int),
        "sync": json_value("sync", sync, bool),
        "plugin_dirs": path_texts("plugin_dirs", plugin_dirs),
    }
    return results.CalibrateResult.from_dict(call("calibrate", request).json)


def open_model(path: Path, *, plugin_dirs: Sequence[Path] = ()) -> Model:
    """Opens any file that qmill reads, to get its tensors by name."""
    return Model(path, plugin_dirs=plugin_dirs)


def filters(*, plugin_dirs: Sequence[Path] = ()) -> list[results.Filter]:
    """The model filters: which layers of which models stay as they are."""
    request = {"plugin_dirs": path_texts("plugin_dirs", plugin_dirs)}
    return [results.Filter.from_dict(each) for each in call("filters", request).json]


def plugins(*, plugin_dirs: Sequence[Path] = ()) -> list[results.Plugin]:
    """The plugins that were found, and those that were refused, with the reason."""
    request = {"plugin_dirs": path_texts("plugin_dirs", plugin_dirs)}
    return [results.Plugin.from_dict(each) for each in call("plugins", request).json]


def options(*, plugin_dirs: Sequence[Path] = ()) -> list[results.Option]:
    """The options of `convert`, those of plugins included."""
    request = {"plugin_dirs": path_texts("plugin_dirs", plugin_dirs)}
    return [results.Option.from_dict(each) for each in call("options", request).json]


def _request(
    input: Path, output: Path | None, plugin_dirs: Sequence[Path], options: Mapping[str, Any]
) -> dict[str, Any]:
    values = _values_of(options)
    request = {"options": values, "plugin_dirs": path_texts("plugin_dirs", plugin_dirs)}
    if isinstance(values.get("layer_config"), dict):
        request["layer_config"] = values.pop("layer_config")
    values["input"] = path_text("input", input)
    values["output"] = None if output is None else path_text("output", output)
    return request


def _values_of(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: json_value(f"`{name}`", value) for name, value in options.items()}


def _logged(result: _WithWarnings) -> _WithWarnings:
    for warning in result.warnings:
        logger.warning("%s", warning)
    return result
