"""LoRA files, and LoRA arithmetic for single weights."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Dict, Final, List, Union

import torch
from qmill import _native
from qmill.errors import UsageError

from .._request import Json, json_value
from .._tensors import on_cpu

_MATRICES: Final = ("lora_A", "lora_B")
_NUMBERS: Final = {"alpha": float, "rank": int, "scale": float}


def load_lora_tensors(path: Union[str, os.PathLike[str]]) -> Dict[str, torch.Tensor]:
    """The first matrix A, F32 [rank, K] (of a convolution [rank, ...]), of each layer of a LoRA file.

    Keys are the layers' names in the file, without the prefixes of wrappers such as "transformer.".
    Raises FileError or InputError that names the file. Any thread may call it.
    """
    return _native.call("load_lora_tensors", {"path": json_value("path", path, str)}).named_tensors()


def load_lora_for_merging(path: Union[str, os.PathLike[str]]) -> Dict[str, Dict[str, Any]]:
    """By layer of a LoRA file: `lora_A` F32 [rank, K], `lora_B` F32 [N, rank], `alpha` (float) and `rank` (int).

    Keys are as `load_lora_tensors` gives them. alpha is the first of these that the file has: the layer's `.alpha`, metadata, the rank.
    Raises FileError or InputError that names the file, and UnsupportedError that names a layer whose change is no product of two matrices
    (DoRA, LoHa, LoKr, whole differences); `convert_to_int8` merges these. Any thread may call it.
    """
    reply = _native.call("load_lora_for_merging", {"path": json_value("path", path, str)})
    matrices = iter(reply.tensors)
    return {
        layer["name"]: {"lora_A": next(matrices), "lora_B": next(matrices), "alpha": layer["alpha"], "rank": layer["rank"]}
        for layer in reply.json["layers"]
    }


def merge_lora_into_weight(
    weight_tensor: torch.Tensor,
    lora_A: torch.Tensor,
    lora_B: torch.Tensor,
    alpha: float,
    rank: int,
    scale: float = 1.0,
) -> torch.Tensor:
    """weight + lora_B lora_A · alpha / rank · scale, computed in F32: a new tensor of the weight's type, shape and device.

    weight_tensor: floating [N, ...]; lora_A: [rank, ...], as many values per rank as a row of the weight has; lora_B: [N, rank].
    Raises UsageError for shapes and numbers that do not fit, and NumericError if a value of the result is beyond the range of its type.
    Any thread may call it.
    """
    request: Dict[str, Json] = {
        "alpha": json_value("alpha", alpha, float),
        "rank": json_value("rank", rank, int),
        "scale": json_value("scale", scale, float),
    }
    tensors = [on_cpu("weight_tensor", weight_tensor), on_cpu("lora_A", lora_A), on_cpu("lora_B", lora_B)]
    (merged,) = _native.call("merge_lora_into_weight", request, tensors).tensors
    return merged.to(weight_tensor.device)


def merge_multiple_loras(weight_tensor: torch.Tensor, lora_configs: Sequence[Mapping[str, Any]]) -> torch.Tensor:
    """The weight with the changes of several LoRAs, cast once at the end: a new tensor of the weight's type, shape and device.

    Each of `lora_configs` has the parameters of `merge_lora_into_weight`: lora_A, lora_B, alpha, rank, and scale (1.0 if absent). The scales
    are used as they are: 1.0, 0.9, 0.81 is a dampened list.
    Raises as `merge_lora_into_weight`, and UsageError for a key that is absent or unknown. Any thread may call it.
    """
    tensors = [on_cpu("weight_tensor", weight_tensor)]
    loras: List[Json] = []
    for index, config in enumerate(lora_configs):
        where = f"lora_configs[{index}]"
        _check_keys(where, config)
        tensors += [on_cpu(f"{where}['{key}']", config[key]) for key in _MATRICES]
        loras.append({key: json_value(f"{where}['{key}']", config.get(key, 1.0), hint) for key, hint in _NUMBERS.items()})
    (merged,) = _native.call("merge_multiple_loras", {"loras": loras, "dampen": False}, tensors).tensors
    return merged.to(weight_tensor.device)


def _check_keys(where: str, config: object) -> None:
    if not isinstance(config, Mapping):
        raise UsageError(f"{where} is of type {type(config).__name__}; expected a dict")
    known = [*_MATRICES, *_NUMBERS]
    for key in config:
        if key not in known:
            raise UsageError(f"{where} has the unknown key '{key}'; expected {', '.join(known)}")
    for key in known:
        if key not in config and key != "scale":
            raise UsageError(f"{where} has no '{key}'; expected {', '.join(known)}; only scale may be absent")
