"""The models, sample rows and settings that the conversions start from."""

import json
from collections import OrderedDict

import numpy as np
import torch

from containers import Tensor, bf16, f16, f32, f64, i64, u8, write_gguf, write_safetensors, write_shards
from loras import write_loras
from quantized import write_quantized
from values import codes, draw, float8, inputs, weight


def model():
    """A layer for every case: widths that 256, 64, 4 or nothing of these divides, all usual types, and what is no layer."""
    return {
        "blocks.0.q.weight": bf16(weight("q", 64, 256)),
        "blocks.0.q.bias": f32(draw("q bias", 64)),
        "blocks.0.k.weight": f16(weight("k", 48, 512)),
        "blocks.0.k.bias": bf16(draw("k bias", 48)),
        "blocks.0.v.weight": bf16(weight("v", 32, 256)),
        "blocks.0.norm.weight": f32(draw("norm", 256) + 1),
        "mlp.weight": f32(weight("mlp", 96, 320)),
        "mlp.bias": f16(draw("mlp bias", 96)),
        "odd.weight": bf16(weight("odd", 33, 100)),
        "odd.bias": f32(draw("odd bias", 33)),
        "square.weight": f32(weight("square", 128, 128)),
        "square.bias": f32(draw("square bias", 128)),
        "tall.weight": f16(weight("tall", 256, 64)),
        "thin.weight": bf16(weight("thin", 8, 64)),
        "conv.weight": f32(draw("conv", 8, 4, 3, 3)),
        "conv.bias": f32(draw("conv bias", 8)),
        "token_embedding.weight": bf16(draw("token", 50, 64)),
        "table": f16(draw("table", 5, 7)),
        "steps": i64([1, 2, 1 << 40]),
    }


def rows():
    """Inputs of every kind: rows that two layers share, more and fewer than columns, too few, statistics, none."""
    shared = inputs("q", 700, 256)
    square = draw("square input", 200, 128)
    square[:, ::9] *= 4
    return {
        "blocks.0.q.input": bf16(shared),
        "blocks.0.q.input_scale": f32(0.25),
        "blocks.0.v.input": bf16(shared),
        "blocks.0.k.input": f16(inputs("k", 260, 512)),
        "odd.input": f32(inputs("odd", 90, 100)),
        "tall.input": f32(inputs("tall", 12, 64)),
        "square.hessian": f32(square.T @ square / len(square)),
        "square.mean": f32(square.sum(0) / len(square)),
        "mlp.channel_max": f32(np.ldexp(abs(draw("mlp channels", 320)), np.arange(320) % 7)),
        "mlp.channel_mean": f32(abs(draw("mlp channels", 320)) / 4),
    }


def rare():
    """Types and values that few models have."""
    return {
        "double.weight": f64(weight("double", 16, 64) / 3),
        "e4m3.weight": u8(float8("e4m3", 16, 256), "F8_E4M3"),
        "e5m2.weight": u8(float8("e5m2", 16, 64), "F8_E5M2"),
        "zeros.weight": f32(np.zeros((16, 256))),
        "tiny.weight": f32(weight("tiny", 16, 64) * 2.0**-130),
        "large.weight": f32(weight("large", 16, 64) * 2.0**20),
        "large.bias": f32(draw("large bias", 16) * 2.0**18),
    }


def t5():
    prefix = "encoder.block.0.layer."
    return {
        "shared.weight": bf16(draw("shared", 40, 256)),
        f"{prefix}0.SelfAttention.q.weight": bf16(weight("t5 q", 64, 256)),
        f"{prefix}0.SelfAttention.relative_attention_bias.weight": bf16(draw("relative", 32, 4)),
        f"{prefix}0.layer_norm.weight": bf16(draw("layer norm", 256)),
        f"{prefix}1.DenseReluDense.wi.weight": bf16(weight("wi", 96, 256)),
        "decoder.block.0.layer.0.SelfAttention.q.weight": bf16(weight("decoder q", 64, 256)),
        "lm_head.weight": bf16(draw("head", 40, 256)),
    }


def umt5():
    """A block under the names that its authors gave it."""
    layers = {"attn.q": (64, 256), "attn.o": (256, 64), "ffn.gate.0": (96, 256), "ffn.fc1": (96, 256), "ffn.fc2": (256, 96)}
    return {
        "token_embedding.weight": bf16(draw("umt5 token", 40, 256)),
        "blocks.0.norm1.weight": bf16(draw("umt5 norm", 256)),
    } | {f"blocks.0.{layer}.weight": bf16(weight(f"umt5 {layer}", *shape)) for layer, shape in layers.items()}


def flux():
    """`img_in` and `txt_in` are layers by whose columns readers know the model."""
    prefix = "model.diffusion_model."
    return {
        f"{prefix}img_in.weight": bf16(weight("img_in", 32, 64)),
        f"{prefix}txt_in.weight": bf16(weight("txt_in", 32, 256)),
        f"{prefix}double_blocks.0.img_attn.norm.key_norm.scale": bf16(draw("key norm", 32)),
        f"{prefix}double_blocks.0.img_attn.qkv.weight": bf16(weight("qkv", 96, 256)),
        f"{prefix}double_blocks.0.img_attn.qkv.bias": bf16(draw("qkv bias", 96)),
        f"{prefix}final_layer.linear.weight": bf16(weight("final", 16, 256)),
    }


def gguf():
    blocks = b"".join(np.array([factor], "<f2").tobytes() + block.tobytes()
                      for factor, block in zip(abs(draw("q8 factors", 80)), codes("q8", 80, 32), strict=True))
    return {
        "blk.0.f32.weight": f32(weight("gguf f32", 24, 64)),
        "blk.0.f16.weight": f16(weight("gguf f16", 8, 512)),
        "blk.0.bf16.weight": bf16(weight("gguf bf16", 16, 256)),
        "blk.0.q8.weight": Tensor("Q8_0", (10, 256), blocks),
        "norm.weight": f32(draw("gguf norm", 7)),
    }


def checkpoint():
    """What torch.save takes: a wrapper, and views that lie otherwise in memory than in their order."""
    base = torch.tensor(weight("checkpoint", 96, 64), dtype=torch.float32)
    return {
        "state_dict": OrderedDict({
            "a.weight": base,
            "transposed.weight": base.t(),
            "columns.weight": base[3:20, 5:60].bfloat16(),
            "steps": torch.arange(100)[3:90:7],
        }),
        "epoch": 3,
    }


LAYER_CONFIG = {
    "_comment": "each entry of another kind",
    "blocks\\.\\d+\\.(q|v)": {"format": "int4", "optimizer": "rtn"},
    "blocks\\.0\\.v": {"scaling_mode": "tensor", "full_precision_matrix_mult": True},
    "mlp": {"optimizer": "gptq", "block_size": 16, "options": {"damping": "0.1", "scale_search": "hessian"}},
    "square": {"format": "int8_axiswise", "simple": True},
    "odd": {"format": "fp16", "options": {"overflow": "clamp"}},
    "thin": {"skip": True},
    "_exclusions": ["embedding$"],
    "_default": {"format": "int8_tensorwise"},
}
FULL_NAMES = {"layer_patterns": {"blocks": {"skip": True}, "blocks\\.0\\.[qk]": {"format": "fp16"}, ".*l": {"scaling_mode": "axis"}}}


def write_all(folder):
    tensors = model()
    write_safetensors(folder / "model.safetensors", tensors, {"author": "nobody"})
    write_shards(folder / "shards", tensors)
    write_safetensors(folder / "rows.safetensors", rows())
    channels = {"mlp": {"channel_max": list(range(1, 321))}, "odd": {"channel_max": [2.0 ** (i % 5) for i in range(100)]}, "thin": 0.5}
    (folder / "channels.json").write_text(json.dumps(channels))
    write_safetensors(folder / "wide.safetensors", {"wide.weight": bf16(weight("wide", 150, 1024)), "wide.bias": f32(draw("wide bias", 150))})
    write_safetensors(folder / "wide_rows.safetensors", {"wide.input": bf16(inputs("wide", 330, 1024))})
    write_safetensors(folder / "rare.safetensors", rare())
    write_safetensors(folder / "t5.safetensors", t5())
    write_safetensors(folder / "umt5.safetensors", umt5())
    write_safetensors(folder / "flux.safetensors", flux())
    write_gguf(folder / "model.gguf", gguf())
    torch.save(checkpoint(), folder / "model.pt")
    (folder / "layers.json").write_text(json.dumps(LAYER_CONFIG))
    (folder / "full_names.json").write_text(json.dumps(FULL_NAMES))
    write_loras(folder)
    write_quantized(folder)
