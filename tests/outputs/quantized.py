"""Models as other programs quantize them: every format that is read, and what their markers may leave out."""

import json

from containers import bf16, f32, i8, marker, u8, write_safetensors
from values import codes, draw, float8

SCALE_BYTES = range(0x28, 0x58)  # positive E4M3 values of ordinary size


def scale_codes(name, *shape):
    return u8(codes(name, *shape) % len(SCALE_BYTES) + SCALE_BYTES[0], "F8_E4M3")


def scales(name, *shape):
    return f32(abs(draw(name, *shape)) / 64 + 2.0**-10)


def fp8_marked():
    return {
        "a.weight": u8(float8("fp8 a", 32, 256), "F8_E4M3"),
        "a.weight_scale": f32(2.0**-9 / 3),
        "a.input_scale": f32(0.5),
        "a.comfy_quant": marker(format="float8_e4m3fn"),
        "a.bias": f32(draw("fp8 bias", 32)),
        "b.weight": u8(float8("fp8 b", 16, 512), "F8_E5M2"),
        "b.weight_scale": f32(2.0**-16 / 3),
        "b.comfy_quant": marker(format="float8_e5m2", full_precision_matrix_mult=True),
        "plain.weight": bf16(draw("fp8 plain", 8, 256)),
    }


def fp8_scaled():
    """The older names."""
    return {
        "scaled_fp8": u8([0, 0], "F8_E4M3"),
        "a.weight": u8(float8("scaled a", 32, 256), "F8_E4M3"),
        "a.scale_weight": f32(2.0**-9 / 3),
        "a.scale_input": f32(1),
        "norm": f32(draw("scaled norm", 7)),
    }


def fp8_bare():
    """Without a marker a scale may also be that of a row or a block."""
    return {
        "rows.weight": u8(float8("bare rows", 16, 64), "F8_E4M3"),
        "rows.weight_scale": scales("bare row scales", 16, 1),
        "blocks.weight": u8(float8("bare blocks", 64, 256), "F8_E4M3"),
        "blocks.weight_scale": scales("bare block scales", 2, 8),
    }


def blocks():
    return {
        "nv.weight": u8(codes("nv", 48, 64)),
        "nv.weight_scale": scale_codes("nv scales", 128, 8),
        "nv.weight_scale_2": f32(2.0**-7 / 3),
        "nv.comfy_quant": marker(format="nvfp4"),
        "nv.bias": f32(draw("nv bias", 40)),
        "mx.weight": u8(float8("mx", 64, 256), "F8_E4M3"),
        "mx.weight_scale": u8(codes("mx scales", 128, 8) % 12 + 112),
        "mx.comfy_quant": marker(format="mxfp8"),
        "asym.weight": i8(codes("asym", 40, 128).view("i1")),
        "asym.weight_s_rel": scale_codes("asym groups", 40, 16),
        "asym.weight_s_channel": scales("asym rows", 40),
        "asym.weight_codebook": f32(sorted(draw("asym book", 16) * 8)),
        "asym.comfy_quant": marker(format="asym_w4a8_int8", group_size=16, convrot_groupsize=256),
    }


def integers():
    """Codes of -128 and -8, keys inside `params`, a group that is left out, and a layer that only the header marks."""
    tensors = {
        "a.weight": i8(codes("int a", 16, 256).view("i1")),
        "a.weight_scale": scales("int a scales", 16, 1),
        "a.comfy_quant": marker(format="int8_tensorwise", params={"convrot": True, "convrot_groupsize": 64}),
        "b.weight": i8(codes("int b", 16, 128).view("i1")),
        "b.weight_scale": scales("int b scales", 16),
        "b.comfy_quant": marker(format="convrot_w4a4"),
        "c.weight": i8(codes("int c", 16, 64).view("i1")),
        "c.weight_scale": f32(0.01),
    }
    return tensors, {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": {"c": {"format": "int8_tensorwise"}}})}


def write_quantized(folder):
    for make in (fp8_marked, fp8_scaled, fp8_bare, blocks):
        write_safetensors(folder / f"{make.__name__}.safetensors", make())
    write_safetensors(folder / "integers.safetensors", *integers())
