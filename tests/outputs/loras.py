"""LoRAs for the model of sources.py: every kind, and the ways in which their layers are named."""

import json

from containers import bf16, f16, f32, write_safetensors
from values import draw


def pair(base, down, up, rows, columns, rank=4, stored=f32):
    """The two factors of a layer `base`, called `down` and `up`."""
    return {
        f"{base}.{down}.weight": stored(draw(f"{base} down", rank, columns) / 4),
        f"{base}.{up}.weight": stored(draw(f"{base} up", rows, rank) / 4),
    }


def plain():
    tensors = pair("blocks.0.q", "lora_A", "lora_B", 64, 256, stored=bf16)
    tensors |= pair("odd", "lora_A", "lora_B", 33, 100)
    tensors |= pair("conv", "lora_A", "lora_B", 8, 36, rank=2)
    return tensors | {"blocks.0.q.alpha": f32(6), "conv.alpha": f32([3])}


def kohya():
    tensors = pair("lora_unet_blocks_0_q", "lora_down", "lora_up", 64, 256, rank=8, stored=f16)
    tensors |= pair("lora_unet_mlp", "lora_down", "lora_up", 96, 320)
    return tensors | {"lora_unet_blocks_0_q.alpha": f16(4), "lora_unet_mlp.alpha": f16(2)}


def loha():
    return {f"blocks.0.k.hada_w{i}_{part}": f32(draw(f"hada {i}{part}", *shape))
            for i in (1, 2) for part, shape in (("a", (48, 3)), ("b", (3, 512)))} | {"blocks.0.k.alpha": f32(2)}


def lokr():
    return {
        "square.lokr_w1": f32(draw("lokr 1", 8, 4)),
        "square.lokr_w2_a": f32(draw("lokr 2a", 16, 5)),
        "square.lokr_w2_b": f32(draw("lokr 2b", 5, 32)),
        "square.alpha": f32(2),
        "conv.lokr_w1": f32(draw("lokr conv 1", 2, 2)),
        "conv.lokr_w2": f32(draw("lokr conv 2", 4, 2, 3, 3)),
    }


def dora():
    """Magnitudes of rows, and of columns."""
    tensors = pair("blocks.0.q", "lora_A", "lora_B", 64, 256) | pair("odd", "lora_A", "lora_B", 33, 100)
    magnitudes = {"blocks.0.q.lora_magnitude_vector": f32(abs(draw("rows", 64)) + 1), "odd.dora_scale": f32(abs(draw("columns", 1, 100)) + 1)}
    return tensors | magnitudes | {"odd.alpha": f32(2)}


def differences():
    return {
        "thin.diff": f32(draw("diff", 8, 64) / 8),
        "blocks.0.q.diff_b": f32(draw("diff_b", 64) / 8),
        "blocks.0.norm.w_norm": f32(draw("w_norm", 256) / 8),
        "table.diff": f32(draw("table diff", 5, 7)),
    }


def cp_form():
    return {
        "conv.lora_down.weight": f32(draw("cp down", 2, 4, 1, 1)),
        "conv.lora_mid.weight": f32(draw("cp mid", 3, 2, 3, 3)),
        "conv.lora_up.weight": f32(draw("cp up", 8, 3, 1, 1)),
        "conv.alpha": f32(5),
    }


def misfits():
    """A layer of another size, and one that the model does not have, beside one that fits."""
    tensors = pair("blocks.0.q", "lora_A", "lora_B", 64, 256) | pair("odd", "lora_A", "lora_B", 33, 64)
    return tensors | pair("blocks.7.q", "lora_A", "lora_B", 64, 256)


def write_loras(folder):
    for make in (plain, kohya, loha, lokr, dora, differences, cp_form, misfits):
        write_safetensors(folder / f"{make.__name__}.safetensors", make())
    peft = folder / "peft"
    peft.mkdir()
    layers = pair("base_model.model.tall", "lora_A", "lora_B", 256, 64) | pair("base_model.model.square", "lora_A", "lora_B", 128, 128)
    write_safetensors(peft / "adapter_model.safetensors", layers)
    config = {"r": 4, "lora_alpha": 8, "use_rslora": True, "alpha_pattern": {"square": 3}}
    (peft / "adapter_config.json").write_text(json.dumps(config))
