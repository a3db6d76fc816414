"""Converts files."""

from __future__ import annotations

import os
from typing import Any, Dict, Final, List, Optional

from qmill import _native
from qmill._values import json_value
from qmill.progress import shown
from qmill.results import ConvertResult

from ._request import parameters


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
    """Quantizes the weights of a model and writes it to a new file.

    The file is written as a whole or not at all; an existing file is replaced. Any thread may call this. All paths may
    be `os.PathLike`, too.

    Args:
        input_file: What qmill opens: a .safetensors file, an index, a folder of shards.
        output_file: Never the input.
        comfy_quant: Names and markers of ComfyUI. False: legacy `.scale_weight`.
        filter_flags: Model filters by name, such as {"t5xxl": True}. An unknown name is an error, even with False.
        calib_samples: Most rows of calibration data per layer, evenly spaced.
        seed: Of all random numbers. -1 draws one, which is logged and stored.
        fp16: Writes F16 instead of INT8.
        fallback: Format or quantizer of excluded layers.
        custom_layers: Regular expression for layers that are treated differently.
        exclude_layers: Regular expression for layers that are kept, or get the fallback.
        custom_type: Format or quantizer of custom layers; required with them.
        custom_block_size: Block scaling for custom layers.
        custom_scaling_mode: "row", "tensor", "block" or "axis" for custom layers.
        custom_simple: Plain rounding for custom layers.
        custom_heur: `skip_inefficient_layers` for custom layers.
        fallback_block_size: Block scaling for fallback layers.
        fallback_simple: Plain rounding for fallback layers.
        full_precision_matrix_mult: Adds this key to every marker.
        skip_inefficient_layers: Keeps layers that are not worth quantizing.
        include_input_scale: Legacy names only: writes `.scale_input`.
        no_learned_rounding: Rounds to nearest.
        save_quant_metadata: Writes the markers to the header, too.
        layer_config: Choices per layer: what `load_layer_config` returns.
        layer_config_fullmatch: Its patterns must match whole names.
        low_memory: One layer at a time. The options about memory change no byte of the output.
        streaming_mode: How much is in memory at once: "off", "minimal", "balanced", "aggressive" or "auto". If it is
            not given, the variable STREAMING_AGGRESSIVENESS decides.
        streaming_thresholds: By step ("hadamard", "hessian", "ldlq", "ortho"): from how many values on it is done in
            pieces.
        no_memory_limits: No limit of memory.
        report_quality: Logs the quality of every layer, measured on the stored bytes. `setup_logging("NORMAL")` shows
            it.
        quality_threshold: In dB. A warning names each layer below it.
        smoothquant: Weights the columns by `channel_max` of the calibration data, where these are all that is known.
        smoothquant_alpha: How much of that comes from the inputs, 0 to 1.
        calibration_data_path: Real inputs of the layers.
        calibration_lora_path: A LoRA whose directions count more, for layers without inputs.
        gptq_actorder: Columns with the largest inputs first.
        gptq_fast: False: one column after the other, with the same codes.
        gptq_turbo: For GPUs; a message says that it changes nothing on a CPU.
        quip_actorder: Columns with the largest inputs first.
        quip_hadamard: False: a dense random basis; an error with `quip_store_transformed`.
        quip_seed: Of the random signs, instead of `seed`.
        quip_store_transformed: Stores the weight in a Hadamard basis.
        quip_requant_scheme: "tensor" or "block": scales in the original basis.
        quip_requant_tensor_per_row: False: one scale per weight.
        quip_checkpointed: Does wide layers in parts.
        quip_checkpoint_threshold: Columns from which a layer is wide.
        quip_checkpoint_segments: Number of parts of a wide layer.
        merge_lora_path: A LoRA to merge before quantization, after `merge_lora_paths`.
        merge_lora_paths: Several LoRAs, merged in this order.
        merge_lora_scale: Strength of all of them.
        merge_lora_dampen: Weakens number i of several by 0.9^i.
        converter_kwargs: Other options of the command, with underscores (optimizer, format, scaling_mode, convrot,
            threads, ...), and options of the optimizer by their own names (num_iter, lr, ...). None: not given.

    Returns:
        qmill's report about the conversion. The API that this one keeps documents no return value.

    Raises:
        QmillError: Then `output_file` is as it was before. UsageError names the parameter, FileError and InputError
            name the file, NumericError the tensor.
        KeyboardInterrupt: After Ctrl-C; `output_file` is as it was before.
    """
    further = {name: json_value(name, value) for name, value in converter_kwargs.items() if value is not None}
    request = {**parameters(convert_to_int8, locals()), "converter_kwargs": further}
    if streaming_mode is _STREAMING_MODE:
        del request["streaming_mode"]
    with shown(None, f"qmill {os.path.basename(input_file)}") as progress:
        reply = _native.call("convert_to_int8", request, progress=progress)
    return ConvertResult.from_dict(reply.json)
