"""Converts files."""

from __future__ import annotations

import os
from typing import Any, Dict, Final, List, Optional

from qmill import _native
from qmill.progress import shown
from qmill.results import ConvertResult

from ._request import json_value, parameters


class _NotGiven(str):
    """A default that can be told from the same text given by the caller."""


_STREAMING_MODE: Final = _NotGiven("balanced")


def convert_to_int8(
    input_file: str,
    output_file: str,
    comfy_quant: bool,
    filter_flags: Dict[str, bool],
    calib_samples: int,
    seed: int,
    fp16: bool = False,
    fallback: Optional[str] = None,
    custom_layers: Optional[str] = None,
    exclude_layers: Optional[str] = None,
    custom_type: Optional[str] = None,
    custom_block_size: Optional[int] = None,
    custom_scaling_mode: Optional[str] = None,
    custom_simple: bool = False,
    custom_heur: bool = False,
    fallback_block_size: Optional[int] = None,
    fallback_simple: bool = False,
    full_precision_matrix_mult: bool = False,
    skip_inefficient_layers: bool = False,
    include_input_scale: bool = False,
    no_learned_rounding: bool = False,
    save_quant_metadata: bool = False,
    layer_config: Optional[Dict[str, Any]] = None,
    layer_config_fullmatch: bool = False,
    low_memory: bool = False,
    streaming_mode: str = _STREAMING_MODE,
    streaming_thresholds: Optional[Dict[str, Optional[int]]] = None,
    no_memory_limits: bool = False,
    report_quality: bool = False,
    quality_threshold: float = 30.0,
    smoothquant: bool = False,
    smoothquant_alpha: float = 0.5,
    calibration_data_path: Optional[str] = None,
    calibration_lora_path: Optional[str] = None,
    gptq_actorder: bool = False,
    gptq_fast: bool = True,
    gptq_turbo: bool = False,
    quip_actorder: bool = True,
    quip_hadamard: bool = True,
    quip_seed: Optional[int] = None,
    quip_store_transformed: bool = False,
    quip_requant_scheme: str = "tensor",
    quip_requant_tensor_per_row: bool = True,
    quip_checkpointed: bool = False,
    quip_checkpoint_threshold: int = 8192,
    quip_checkpoint_segments: int = 4,
    merge_lora_path: Optional[str] = None,
    merge_lora_paths: Optional[List[str]] = None,
    merge_lora_scale: float = 1.0,
    merge_lora_dampen: bool = True,
    **converter_kwargs: Any,
) -> ConvertResult:
    """Quantizes the weights of the model `input_file` and writes `output_file`, as a whole or not at all; an existing file is replaced.

    input_file: what qmill opens: a .safetensors file, an index, a folder of shards. All paths may be `os.PathLike`, too.
    output_file: never the input.
    comfy_quant: names and markers of ComfyUI; False: legacy `.scale_weight`.
    filter_flags: model filters by name, such as {"t5xxl": True}; an unknown name is an error, even with False.
    calib_samples: most rows of calibration data per layer, evenly spaced.
    seed: of all random numbers; -1 draws one, which is logged and stored.
    fp16: writes F16 instead of INT8.
    fallback: format or quantizer of excluded layers, with `fallback_block_size` and `fallback_simple` (plain rounding).
    custom_layers: pattern of layers that are treated differently: with `custom_type` (format or quantizer; required),
        `custom_block_size`, `custom_scaling_mode` ("row", "tensor", "block", "axis"), `custom_simple`, `custom_heur`.
    exclude_layers: pattern of layers that are kept as they are.
    full_precision_matrix_mult: adds this key to every marker.
    skip_inefficient_layers: keeps layers that are not worth quantizing.
    include_input_scale: legacy names only: writes `.scale_input`.
    no_learned_rounding: rounds to nearest.
    save_quant_metadata: writes the markers to the header, too.
    layer_config: choices per layer, from `load_layer_config`; with `layer_config_fullmatch` its patterns must match whole names.
    low_memory: one layer at a time. The memory options change no byte of the output.
    streaming_mode: how much is in memory at once: "off", "minimal", "balanced", "aggressive", "auto". If it is not given, the
        environment variable STREAMING_AGGRESSIVENESS decides.
    streaming_thresholds: by step ("hadamard", "hessian", "ldlq", "ortho"), from how many values on it is done in pieces.
    no_memory_limits: no limit of memory.
    report_quality: logs the quality of every layer, measured on the stored bytes, if `setup_logging` lets it pass ("NORMAL").
    quality_threshold: in dB; a warning names each layer below it.
    smoothquant, smoothquant_alpha: weights the columns by `channel_max` of the calibration data, where it has no rows and no Hessian.
    calibration_data_path: real inputs of the layers.
    calibration_lora_path: a LoRA whose directions count more, for layers without inputs.
    gptq_actorder: columns with the largest inputs first. gptq_fast: False: one by one, with the same codes. gptq_turbo: for GPUs.
    quip_actorder: columns with the largest inputs first.
    quip_hadamard: False: a dense random basis, which cannot be stored.
    quip_seed: of the random signs, instead of `seed`.
    quip_store_transformed: stores the weight in a Hadamard basis.
    quip_requant_scheme: "tensor" or "block". quip_requant_tensor_per_row: False: one scale per weight.
    quip_checkpointed: layers of `quip_checkpoint_threshold` columns and more are done in `quip_checkpoint_segments` parts.
    merge_lora_paths, merge_lora_path: LoRAs that are merged first, in this order, with the strength `merge_lora_scale`. With
        `merge_lora_dampen` number i of several is weakened by 0.9^i.
    converter_kwargs: other options of the command by name with underscores (optimizer, format, scaling_mode, convrot, threads, ...),
        and those of the optimizer by their own names (num_iter, lr, ...); None means "not given".

    Returns qmill's report about the conversion; the API that this one keeps documents no return value.
    Raises an error of `qmill.errors`: UsageError that names the parameter, FileError or InputError that names the file, NumericError for
    values that are not finite, and others; then `output_file` is as it was before. Ctrl-C ends it, with KeyboardInterrupt.
    Any thread may call it.
    """
    further = {name: json_value(name, value) for name, value in converter_kwargs.items() if value is not None}
    request = {**parameters(convert_to_int8, locals()), "converter_kwargs": further}
    if streaming_mode is _STREAMING_MODE:
        del request["streaming_mode"]
    with shown(None, f"qmill {os.path.basename(input_file)}") as progress:
        reply = _native.call("convert_to_int8", request, progress=progress)
    return ConvertResult.from_dict(reply.json)
