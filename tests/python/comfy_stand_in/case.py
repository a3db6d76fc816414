"""A ComfyUI in a folder of its own, with small models in it."""

from __future__ import annotations

import json
import logging
import tempfile
import unittest
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from . import installed, load_pack, server
from .patching import CLIP, BaseModel, ModelPatcher

WIDTH, CONTEXT = 64, 48


class CastLinear(nn.Linear):
    """A layer whose weight is stored in another type than its input, as of a model that is cast layer by layer."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(WIDTH, WIDTH)
        self.k = nn.Linear(CONTEXT, WIDTH)
        self.v = nn.Linear(CONTEXT, WIDTH)
        self.out = CastLinear(WIDTH, WIDTH)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        mixed = nn.functional.scaled_dot_product_attention(self.q(x), self.k(context), self.v(context))
        result: Tensor = x + self.out(mixed)
        return result


class Diffusion(nn.Module):
    """Two blocks, a layer for the noise level, and a layer that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Linear(1, WIDTH)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.unused = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        x = x + self.time(t[:, None])[:, None]
        for block in self.blocks:
            x = block(x, context)
        return x


class Encoder(nn.Module):
    def __init__(self, names: list[str]) -> None:
        super().__init__()
        for name in names:
            self.add_module(name, nn.Linear(CONTEXT, CONTEXT))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = torch.tanh(layer(x))
        return x


class TextModel(nn.Module):
    """ComfyUI's module of one text encoder: the encoder itself is its `transformer`."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.transformer = Encoder(names)


class TextModels(nn.Module):
    """Two text encoders, as of SDXL or Flux."""

    def __init__(self) -> None:
        super().__init__()
        self.clip_l = TextModel(["fc1", "fc2"])
        self.t5xxl = TextModel(["wi", "wo", "fc2"])
        self.fails = False

    def encode_token_weights(self, tokens: Tensor) -> Tensor:
        first = self.clip_l.transformer(tokens)
        if self.fails:
            raise KeyError("no such token")
        result: Tensor = first + self.t5xxl.transformer(tokens)
        return result


class ComfyTest(unittest.TestCase):
    """Runs with ComfyUI's stand-in. The models folder has `tiny.safetensors` and the files of two text encoders."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name).resolve()
        comfyui = installed(self.root)
        comfyui.__enter__()
        self.addCleanup(comfyui.__exit__, None, None, None)
        log = logging.getLogger("qmill")
        self.addCleanup(log.setLevel, log.level)
        log.setLevel(logging.ERROR)
        self.pack = load_pack()
        torch.manual_seed(0)
        self.model = BaseModel(Diffusion())
        for block in self.model.diffusion_model.blocks:
            block.out.to(torch.bfloat16)
        self.patcher = ModelPatcher(self.model)
        self.text_models = TextModels()
        self.clip = CLIP(self.text_models)
        self.models = self.root / "models"
        self.checkpoint = self.models / "diffusion_models" / "tiny.safetensors"
        self.save(self.model.diffusion_model, self.checkpoint)
        self.save(self.text_models.clip_l.transformer, self.models / "text_encoders" / "clip_l.safetensors")
        self.save(self.text_models.t5xxl.transformer, self.models / "clip" / "t5xxl.safetensors")
        self.rows_file = self.root / "output" / "qmill" / "rows.safetensors"

    @staticmethod
    def save(module: nn.Module, path: Path) -> None:
        """Stores a module under its own names."""
        save_file({name: value.contiguous() for name, value in module.state_dict().items()}, path)

    def record(self, model: Any = None, **values: Any) -> tuple[Any, Any]:
        """What the node `qmill record` gives back for these widgets."""
        return self._node("QmillRecordModel", model or self.patcher, "diffusion_models/tiny.safetensors", values)

    def record_clip(self, clip: Any = None, **values: Any) -> tuple[Any, Any]:
        """What the node `qmill record text encoder` gives back for these widgets."""
        return self._node("QmillRecordClip", clip or self.clip, "text_encoders/clip_l.safetensors", values)

    def _node(self, name: str, subject: Any, checkpoint: str, values: dict[str, Any]) -> tuple[Any, Any]:
        given = {
            "enabled": True,
            "checkpoint": checkpoint,
            "rows_file": "qmill/rows.safetensors",
            "rows": 4096,
            "budget_mib": 16,
            "append": True,
            "node_id": "7",
            **values,
        }
        result: tuple[Any, Any] = self.pack.NODE_CLASS_MAPPINGS[name]().record(subject, **given)
        return result

    def noise(self, seed: int = 0) -> dict[str, Any]:
        """Arguments of a sampling: 5 positions, and conditions of 3 positions each."""
        random = torch.Generator().manual_seed(seed)
        return {
            "x": torch.randn(1, 5, WIDTH, generator=random),
            "positive": torch.randn(1, 3, CONTEXT, generator=random),
            "negative": torch.randn(1, 3, CONTEXT, generator=random),
        }

    def hooks(self) -> int:
        """Hooks on all modules."""
        modules = [*self.model.modules(), *self.text_models.modules()]
        return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in modules)

    def texts(self) -> list[tuple[str, str]]:
        """What nodes show: node, text."""
        return server.PromptServer.instance.texts


def stored(path: Path) -> tuple[dict[str, Tensor], dict[str, list[Any]]]:
    """Of a file of rows: the entry of every layer [T, K], and its strata, [label, rows seen, rows stored] each."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        entries = {key.removesuffix(".input"): file.get_tensor(key) for key in file.keys()}
    seen = {layer: state["strata"] for layer, state in json.loads(metadata["rows_seen"]).items()}
    for layer, leader in json.loads(metadata["shared_inputs"]).items():
        entries[layer], seen[layer] = entries[leader], seen[leader]
    return entries, seen


def sorted_rows(rows: Tensor) -> list[bytes]:
    """Rows [T, K] as bytes of BF16, in an order that does not depend on that of the rows."""
    values = rows.reshape(-1, rows.shape[-1]).to(torch.bfloat16).contiguous().view(torch.int16).numpy()
    return sorted(row.tobytes() for row in values)
