"""The checkpoint that a recording names: unquantized, and with the values of the model."""

from __future__ import annotations

import unittest

import torch
from safetensors.torch import save_file
from torch import nn

import qmill
from qmill.errors import UnsupportedError
from qmill.recording import record
from record_support import Attention, RecordCase


class Checkpoint(RecordCase):
    def setUp(self) -> None:
        super().setUp()
        torch.manual_seed(0)
        self.checkpoint = self.folder / "model.safetensors"
        self.model = Attention(8)

    def assert_warns(self, model: nn.Module, *texts: str) -> None:
        with self.assertLogs("qmill", "WARNING") as logs:
            record(model, self.path, checkpoint=self.checkpoint).start()
        self.assertEqual(len(logs.output), 1)
        for text in texts:
            self.assertIn(text, logs.output[0])

    def save(self, model: nn.Module, dtype: torch.dtype) -> None:
        save_file({name: tensor.to(dtype) for name, tensor in model.state_dict().items()}, self.checkpoint)

    def test_other_values_are_a_warning(self) -> None:
        self.save(Attention(8), torch.float32)
        self.assert_warns(self.model, "compared with those of the model: 6, different: 6", "LoRA")

    def test_layers_that_differ_are_counted_and_named(self) -> None:
        self.save(self.model, torch.float32)
        with torch.no_grad():
            self.model.k.weight[3] += 1
        self.assert_warns(self.model, "model: 6, different: 1 ('k')")

    def test_other_types_and_weights_without_values_are_no_difference(self) -> None:
        for stored, loaded in (
            (torch.float32, torch.bfloat16),
            (torch.bfloat16, torch.float32),
            (torch.float32, torch.float32),
        ):
            model = Attention(8)
            self.save(model, stored)
            model.load_state_dict(qmill_tensors(self.checkpoint))
            model.to(loaded)
            with self.subTest(stored=stored, loaded=loaded), self.assertNoLogs("qmill", "WARNING"):
                record(model, self.path, checkpoint=self.checkpoint).start()
        with self.assertNoLogs("qmill", "WARNING"):
            record(Attention(8).to("meta"), self.path, checkpoint=self.checkpoint).start()

    def test_a_quantized_checkpoint_is_refused(self) -> None:
        model = nn.Sequential(nn.Linear(256, 64))
        save_file(dict(model.state_dict()), self.checkpoint)
        small = self.folder / "small.safetensors"
        for options in ({"format": "int8"}, {"format": "fp8"}):
            qmill.convert(self.checkpoint, small, filter="none", overwrite=True, **options)  # type: ignore[arg-type]
            with (
                self.subTest(**options),
                self.assertRaisesRegex(UnsupportedError, "small.safetensors' is quantized .layer '0' is .*unquantized"),
            ):
                record(model, self.path, checkpoint=small).start()
        self.assertFalse(model[0]._forward_pre_hooks)


def qmill_tensors(path: object) -> dict[str, torch.Tensor]:
    with qmill.open_model(path) as model:  # type: ignore[arg-type]
        return {key: model.tensor(key) for key in model}


if __name__ == "__main__":
    unittest.main()
