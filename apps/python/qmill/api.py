"""The functions of the package. Each does what the command of its name does; options have the same names and defaults.

All functions raise QmillError (see qmill.errors), and may be called from any thread. Paths are texts or path objects.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from typing_extensions import Unpack

from qmill import results
from qmill._native import SupportsDLPack, as_tensor, call, logger
from qmill.errors import UsageError
from qmill.model import Model
from qmill.options import ConvertOptions, QuantizeOptions
from qmill.progress import ProgressCallback, shown

Path = str | os.PathLike[str]


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
        KeyboardInterrupt: After Ctrl-C, with nothing at the destination.
    """
    with shown(progress, f"qmill {os.path.basename(os.fspath(input))}") as callback:
        reply = call("convert", _request(input, output, plugin_dirs, options), progress=callback)
    result = results.ConvertResult.from_dict(reply.json)
    for warning in result.warnings:
        logger.warning("%s", warning)
    return result


def plan(
    input: Path,
    output: Path | None = None,
    *,
    plugin_dirs: Sequence[Path] = (),
    **options: Unpack[ConvertOptions],
) -> results.Plan:
    """What `convert` would do with every tensor, why, and the exact size of the output. Writes nothing."""
    return results.Plan.from_dict(call("plan", _request(input, output, plugin_dirs, options)).json)


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
    tensors = [as_tensor("weight", weight)]
    kinds = {"hessian": hessian, "rows": rows}
    given = [kind for kind, value in kinds.items() if value is not None]
    if len(given) == 2:
        raise UsageError("a Hessian and rows are given, and the rows say more; give one of them")
    tensors += [as_tensor(kind, value) for kind, value in kinds.items() if value is not None]
    request: dict[str, Any] = {"name": name, "options": _plain(options), "plugin_dirs": _paths(plugin_dirs)}
    request["inputs"] = given[0] if given else ""
    reply = call("quantize", request, tensors)
    made = reply.named_tensors()
    dequantized = made.pop("dequantized")
    return results.QuantizedWeight(made, dequantized, results.LayerReport.from_dict(reply.json), _json=reply.json)


def inspect(path: Path, *, plugin_dirs: Sequence[Path] = ()) -> results.Inspection:
    """What a file holds, and how it was made. Reads headers and markers only."""
    request = {"path": os.fspath(path), "plugin_dirs": _paths(plugin_dirs)}
    return results.Inspection.from_dict(call("inspect", request).json)


def verify(path: Path, *, read_data: bool = True, plugin_dirs: Sequence[Path] = ()) -> results.Verification:
    """Whether ComfyUI and other programs load a file. Without `read_data` only headers and markers are judged."""
    request = {"path": os.fspath(path), "read_data": read_data, "plugin_dirs": _paths(plugin_dirs)}
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
        "quantized": os.fspath(quantized),
        "source": os.fspath(source),
        "calibration_data": None if calibration_data is None else os.fspath(calibration_data),
        "threads": threads,
        "plugin_dirs": _paths(plugin_dirs),
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
        "input": os.fspath(input),
        "output": None if output is None else os.fspath(output),
        "dtype": dtype,
        "overwrite": overwrite,
        "threads": threads,
        "sync": sync,
        "plugin_dirs": _paths(plugin_dirs),
    }
    with shown(progress, f"qmill {os.path.basename(os.fspath(input))}") as callback:
        return results.DequantizeResult.from_dict(call("dequantize", request, progress=callback).json)


def calibrate(
    rows: Path, output: Path, *, overwrite: bool = False, threads: int = 0, sync: bool = True
) -> results.CalibrateResult:
    """Turns sample rows into statistics: .safetensors with Hessians, or .json with channel statistics only."""
    request = {
        "rows": os.fspath(rows),
        "output": os.fspath(output),
        "overwrite": overwrite,
        "threads": threads,
        "sync": sync,
    }
    return results.CalibrateResult.from_dict(call("calibrate", request).json)


def open_model(path: Path) -> Model:
    """Opens any file that qmill reads, to get its tensors by name."""
    return Model(path)


def filters(*, plugin_dirs: Sequence[Path] = ()) -> list[results.Filter]:
    """The model filters: which layers of which models stay as they are."""
    return [results.Filter.from_dict(each) for each in call("filters", {"plugin_dirs": _paths(plugin_dirs)}).json]


def plugins(*, plugin_dirs: Sequence[Path] = ()) -> list[results.Plugin]:
    """The plugins that were found, and those that were refused, with the reason."""
    return [results.Plugin.from_dict(each) for each in call("plugins", {"plugin_dirs": _paths(plugin_dirs)}).json]


def options(*, plugin_dirs: Sequence[Path] = ()) -> list[results.Option]:
    """The options of `convert`, those of plugins included."""
    return [results.Option.from_dict(each) for each in call("options", {"plugin_dirs": _paths(plugin_dirs)}).json]


def _request(input: Path, output: Path | None, plugin_dirs: Sequence[Path], options: Mapping[str, Any]) -> dict[str, Any]:
    plain = _plain(options)
    for name, value in (("input", input), ("output", output)):
        if name in plain:
            raise UsageError(f"`{name}` is an argument of its own; it is no option")
        plain[name] = None if value is None else os.fspath(value)
    layer_config = plain.get("layer_config")
    request: dict[str, Any] = {"options": plain, "plugin_dirs": _paths(plugin_dirs)}
    if isinstance(layer_config, dict):
        request["layer_config"] = plain.pop("layer_config")
    return request


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON has them."""

    def plain(name: str, value: Any) -> Any:
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, (list, tuple)):
            return [plain(name, each) for each in value]
        if value is None or isinstance(value, (bool, int, float, str)) or (name == "layer_config" and isinstance(value, dict)):
            return value
        raise UsageError(f"`{name}` is a {type(value).__name__}; allowed: a boolean, a number, a text, a path, or a list of these")

    return {name: plain(name, value) for name, value in options.items()}


def _paths(paths: Sequence[Path]) -> list[str]:
    if isinstance(paths, (str, os.PathLike)):
        raise UsageError("plugin_dirs is one path, expected a list of them")
    return [os.fspath(path) for path in paths]
