"""Rows that were recorded from a model make its quantized layers better, on inputs that were never recorded.

Runs the command that the environment variable QMILL_COMMAND names.
"""

from __future__ import annotations

import json
import os
import subprocess
import unittest
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from qmill.recording import record
from record_support import Attention, RecordCase

_WIDTH = 128
_COMMAND = os.environ.get("QMILL_COMMAND", "")


class Transformer(nn.Module):
    """Three blocks that read a stream of tokens whose features are correlated."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Attention(_WIDTH) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(nn.functional.layer_norm(x, x.shape[-1:]))
        return x


def tokens(mixing: Tensor, seed: int) -> Tensor:
    """Inputs [8, 64, K]: a few strong directions, and some of every direction."""
    random = torch.Generator().manual_seed(seed)
    sources = torch.randn(8, 64, len(mixing), generator=random) * torch.logspace(0.5, -1.5, len(mixing))
    return sources @ mixing + 0.05 * torch.randn(8, 64, _WIDTH, generator=random)


@unittest.skipUnless(_COMMAND, "set QMILL_COMMAND to the qmill command to run this test")
class EndToEnd(RecordCase):
    def setUp(self) -> None:
        super().setUp()
        torch.manual_seed(0)
        self.model = Transformer()
        self.mixing = torch.randn(24, _WIDTH)
        self.checkpoint = self.folder / "model.safetensors"
        state = self.model.state_dict()
        stored = {name: tensor.bfloat16() for name, tensor in state.items()}
        save_file({f"model.diffusion_model.{name}": tensor for name, tensor in stored.items()}, self.checkpoint)
        self.model.load_state_dict({name: tensor.float() for name, tensor in stored.items()})

    def command(self, *arguments: str | Path) -> str:
        done = subprocess.run([_COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def record(self, share: bool = True, statistics: bool = False) -> None:
        options = {"rows": 1500, "overwrite": True, "share": share, "statistics": statistics}
        with (
            torch.inference_mode(),
            record(
                self.model,
                self.path,
                checkpoint=self.checkpoint,
                **options,  # type: ignore[arg-type]
            ) as recording,
        ):
            for step in range(6):
                recording.step = step
                self.model(tokens(self.mixing, step))
        self.assertEqual(recording.account.layers, 18)
        self.assertEqual(recording.account.modules_not_in_checkpoint, ())

    def converted(self, name: str, *options: str | Path) -> dict[str, Tensor]:
        """The weights that the file of a conversion stands for."""
        small, plain = self.folder / f"{name}.small.safetensors", self.folder / f"{name}.safetensors"
        self.command(
            "convert", self.checkpoint, "-o", small, "--format", "int4", "--filter", "none", "--no-bias-correction",
            "--overwrite", *options,
        )  # fmt: skip
        self.command("dequantize", small, plain, "--overwrite")
        return load_file(plain)

    def output_errors(self, weights: dict[str, Tensor]) -> dict[str, float]:
        """Relative error of every layer's output, on inputs that were not recorded."""
        errors: dict[str, list[float]] = {}

        def measure(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            weight = weights[f"model.diffusion_model.{name}.weight"].float()

            def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
                assert isinstance(module, nn.Linear)
                x = args[0].flatten(0, -2)
                exact = x @ module.weight.T
                errors.setdefault(name, []).append(float((x @ (weight - module.weight).T).norm() / exact.norm()))

            return hook

        handles = [
            module.register_forward_pre_hook(measure(name))
            for name, module in self.model.named_modules()
            if isinstance(module, nn.Linear)
        ]
        with torch.no_grad():
            for seed in range(100, 104):
                self.model(tokens(self.mixing, seed))
        for handle in handles:
            handle.remove()
        return {name: sum(values) / len(values) for name, values in errors.items()}

    def ratio(self, weights: dict[str, Tensor]) -> float:
        """Mean over the layers of the output error, over that of plain rounding."""
        plain = self.output_errors(self.converted("rtn", "--optimizer", "rtn"))
        errors = self.output_errors(weights)
        self.assertEqual(len(errors), 18)
        return sum(errors[name] / plain[name] for name in errors) / len(errors)

    def test_recorded_rows_make_the_outputs_better(self) -> None:
        self.record(share=False)
        self.assertLess(self.ratio(self.converted("gptq", "--optimizer", "gptq", "--calibration-data", self.path)), 0.8)

    def test_recorded_statistics_make_the_outputs_better(self) -> None:
        self.record(share=False, statistics=True)
        self.assertLess(self.ratio(self.converted("gptq", "--optimizer", "gptq", "--calibration-data", self.path)), 0.8)

    def test_shared_inputs_count_for_every_layer_that_shares_them(self) -> None:
        """The same bytes as from a file that has the shared rows once more for every layer."""
        self.record()
        shared = json.loads(self.file().metadata["shared_inputs"])
        self.assertEqual(len(shared), 6)
        entries = load_file(self.path)
        copies = self.folder / "copies.safetensors"
        save_file({**entries, **{f"{a}.input": entries[f"{b}.input"].clone() for a, b in shared.items()}}, copies)
        found = self.converted("shared", "--optimizer", "gptq", "--calibration-data", self.path)
        expected = self.converted("copies", "--optimizer", "gptq", "--calibration-data", copies)
        for name, tensor in expected.items():
            self.assertTrue(torch.equal(found[name], tensor), name)


if __name__ == "__main__":
    unittest.main()
