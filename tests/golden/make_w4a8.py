#!/usr/bin/env python3
"""Makes w4a8_0_2_40_*.safetensors: what comfy-kitchen 0.2.40 stores for `src.weight` of two golden files as asym_w4a8_int8.

From 0.2.40 on the scales are the result of two passes of least squares. In the other files of this folder, of 0.2.27, they are that of three,
so that only their decoded values are compared.

usage: make_w4a8.py (comfy-kitchen 0.2.40 is importable)
"""
import pathlib

from comfy_kitchen.backends.eager.quantization import rotate_int8_convrot_weight
from comfy_kitchen.backends.eager.w4a8_int8 import _quantize_rotated_w4a8_int8_weight
from safetensors.torch import load_file, save_file

FOLDER = pathlib.Path(__file__).parent
ROTATION, GROUP = 256, 16

for name in ("f32_33x512", "f16_40x1024"):
    weight = load_file(FOLDER / f"{name}.safetensors")["src.weight"].float()
    rotated = rotate_int8_convrot_weight(weight, ROTATION)
    codes, relative, channel, correction, codebook = _quantize_rotated_w4a8_int8_weight(rotated, GROUP)
    assert correction is None
    tensors = {"weight": codes, "weight_s_rel": relative, "weight_s_channel": channel, "weight_codebook": codebook}
    save_file({f"asym_w4a8_int8.{key}": tensor.contiguous() for key, tensor in tensors.items()},
              FOLDER / f"w4a8_0_2_40_{name}.safetensors", metadata={"library": "comfy-kitchen 0.2.40", "fed": "float32"})
