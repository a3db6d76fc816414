"""LoRA files, and LoRA arithmetic for single weights."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Dict, Final, List, Union

import torch
from qmill import _native
from qmill._tensors import on_cpu
from qmill._values import Json, json_value
from qmill.errors import UsageError

_MATRICES: Final = ("lora_A", "lora_B")
_NUMBERS: Final = {"alpha": float, "rank": int, "scale": float}


def load_lora_tensors(path: Union[str, os.PathLike[str]]) -> Dict[str, torch.Tensor]:
    """The first matrix of each layer of a LoRA file: the directions that training used.

    Any thread may call it.

    Returns:
        F32 [rank, K] (of a convolution with more dimensions) by layer. Layers have their names in the file, without the
        prefixes of wrappers such as "transformer.".

    Raises:
        FileError, InputError: They name the file.
    """
    return _native.call("load_lora_tensors", {"path": json_value("path", path, str)}).named_tensors()


def load_lora_for_merging(path: Union[str, os.PathLike[str]]) -> Dict[str, Dict[str, Any]]:
    """The matrices of each layer of a LoRA file.

    Any thread may call it.

    Returns:
        By layer, with names as those of `load_lora_tensors`: `lora_A` F32 [rank, K], `lora_B` F32 [N, rank] (of a
        convolution with more dimensions), `alpha` (float) and `rank` (int). alpha is the first of these that the file
        has: the layer's `.alpha`, metadata, the rank.

    Raises:
        FileError, InputError: They name the file.
        UnsupportedError: It names a layer whose change is no product of two matrices (DoRA, LoHa, LoKr, whole
            differences). `convert_to_int8` merges these.
    """
    reply = _native.call("load_lora_for_merging", {"path": json_value("path", path, str)})
    matrices = iter(reply.tensors)
    return {
        layer["name"]: {
            "lora_A": next(matrices),
            "lora_B": next(matrices),
            "alpha": layer["alpha"],
            "rank": layer["rank"],
        }
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
    """weight + lora_B lora_A · alpha / rank · scale, computed in F32.

    Any thread may call it.

    Args:
        weight_tensor: Floating [N, ...].
        lora_A: Floating [rank, ...], with as many values per rank as a row of the weight has.
        lora_B: Floating [N, rank], or with more dimensions of one value.
        alpha: Strength that the LoRA was trained with.
        rank: What alpha is divided by.
        scale: Strength besides.

    Returns:
        A new tensor of the weight's type, shape and device.

    Raises:
        UsageError: A shape or a number that does not fit.
        NumericError: A value of the result is beyond the range of its type.
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
    """The weight with the changes of several LoRAs, cast to its type once, at the end.

    Any thread may call it.

    Args:
        weight_tensor: Floating [N, ...].
        lora_configs: The other parameters of `merge_lora_into_weight`, by name, for each LoRA: lora_A, lora_B, alpha,
            rank, and scale (1.0 if absent). Scales are used as they are: 1.0, 0.9, 0.81 is a dampened list.

    Returns:
        A new tensor of the weight's type, shape and device.

    Raises:
        UsageError: A key that is absent or unknown, or a shape or a number that does not fit.
        NumericError: A value of the result is beyond the range of its type.
    """
    tensors = [on_cpu("weight_tensor", weight_tensor)]
    loras: List[Json] = []
    for index, config in enumerate(lora_configs):
        where = f"lora_configs[{index}]"
        _check_keys(where, config)
        tensors += [on_cpu(f"{where}['{key}']", config[key]) for key in _MATRICES]
        loras.append(
            {key: json_value(f"{where}['{key}']", config.get(key, 1.0), hint) for key, hint in _NUMBERS.items()}
        )
    (merged,) = _native.call("merge_multiple_loras", {"loras": loras}, tensors).tensors
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
