"""Modules and the layers of the checkpoint: by name, without prefixes, by the values of the weights."""

from __future__ import annotations

import json
import unittest

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import qmill
from qmill.errors import UsageError
from qmill.recording import RecordingAccount, record
from qmill.recording._mapping import core_name, first_row
from record_support import Attention, RecordCase


class Split(nn.Module):
    """An attention with q, k and v of their own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.proj(self.to_q(x) * self.to_k(x) + self.to_v(x))
        return result


class Joined(nn.Module):
    """The same, with one layer for all three."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        result: Tensor = self.proj(q * k + v)
        return result


class Mapping(RecordCase):
    def setUp(self) -> None:
        super().setUp()
        torch.manual_seed(0)
        self.checkpoint = self.folder / "model.safetensors"

    def recorded(self, model: nn.Module, tensors: dict[str, Tensor], width: int = 8) -> RecordingAccount:
        save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, self.checkpoint)
        with torch.no_grad(), record(model, self.path, checkpoint=self.checkpoint, overwrite=True) as recording:
            for _ in range(2):
                model(torch.randn(5, width))
        return recording.account

    def test_names_that_are_equal(self) -> None:
        model = Attention(8)
        account = self.recorded(model, model.state_dict())
        self.assertEqual(set(account.rows), {"q", "k", "v", "out", "up", "down"})
        self.assertEqual((account.modules_not_in_checkpoint, account.checkpoint_layers_without_module), ((), ()))

    def test_prefixes_on_either_side(self) -> None:
        prefixes = ("model.diffusion_model.", "diffusion_model.", "transformer.", "net.", "text_encoder.text_model.")
        for prefix in prefixes:
            model = Attention(8)
            account = self.recorded(model, {prefix + name: tensor for name, tensor in model.state_dict().items()})
            self.assertEqual(set(account.rows), {prefix + name for name in ("q", "k", "v", "out", "up", "down")})
            wrapped = nn.Module()
            wrapped.transformer = model
            wrapped.forward = model.forward
            account = self.recorded(wrapped, model.state_dict())
            self.assertEqual(set(account.rows), {"q", "k", "v", "out", "up", "down"})
        self.assertEqual(core_name("model.diffusion_model.net.blocks.0.q"), "blocks.0.q")
        self.assertEqual(core_name("model"), "model")

    def test_meta_weights_match_by_name_and_shape(self) -> None:
        model = Attention(8)
        tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        tensors["down.weight"] = torch.randn(9, 16)
        save_file(tensors, self.checkpoint)
        weight = model.q.weight
        recording = record(model, self.path, checkpoint=self.checkpoint)
        model.q.weight = nn.Parameter(weight.to("meta"), requires_grad=False)
        recording.start()
        model.q.weight = weight
        with torch.no_grad():
            model(torch.randn(3, 8))
        account = recording.finish()
        self.assertIn("q", account.rows)
        self.assertEqual(account.modules_not_in_checkpoint, ("down",))
        self.assertEqual(account.checkpoint_layers_without_module, ("down",))

    def test_permuted_names_match_by_value(self) -> None:
        model = Attention(8)
        names = {"q": "layer_5", "k": "layer_0", "v": "layer_3", "out": "layer_1", "up": "layer_2", "down": "layer_4"}
        state = model.state_dict()
        permuted = {f"{new}.weight": state[f"{old}.weight"].bfloat16() for old, new in names.items()}
        account = self.recorded(model, permuted)
        self.assertEqual(set(account.rows), set(names.values()))
        self.assertEqual(account.shared_inputs, {"layer_0": "layer_5", "layer_3": "layer_5"})

    def test_a_model_in_a_coarser_type_than_its_checkpoint(self) -> None:
        model = Attention(8).bfloat16()
        fine = {f"x.{n}": t.float() * (1 + 2**-10) for n, t in model.state_dict().items()}
        save_file(fine, self.checkpoint)
        with torch.no_grad(), record(model, self.path, checkpoint=self.checkpoint) as recording:
            model(torch.randn(3, 8).bfloat16())
        self.assertEqual(set(recording.account.rows), {f"x.{n}" for n in ("q", "k", "v", "out", "up", "down")})

    def test_parts_of_a_joined_layer_are_that_layer(self) -> None:
        model = Split(8)
        joined = torch.cat([model.to_q.weight, model.to_k.weight, model.to_v.weight])
        account = self.recorded(model, {"attn.qkv.weight": joined, "attn.proj.weight": model.proj.weight})
        self.assertEqual(self.file().keys(), ["attn.proj.input", "attn.qkv.input"])
        self.assertEqual(account.parts_of_layers, {"to_k": "to_q", "to_v": "to_q"})
        self.assertEqual(account.rows["attn.qkv"], 10)
        self.assertEqual((account.modules_not_in_checkpoint, account.checkpoint_layers_without_module), ((), ()))

    def test_a_joined_module_is_all_its_layers(self) -> None:
        model = Joined(8)
        q, k, v = model.qkv.weight.chunk(3)
        tensors = {"to_k.weight": k, "to_v.weight": v, "to_q.weight": q, "proj.weight": model.proj.weight}
        account = self.recorded(model, tensors)
        self.assertEqual(account.shared_inputs, {"to_k": "to_q", "to_v": "to_q"})
        self.assertEqual(self.file().keys(), ["proj.input", "to_q.input"])
        self.assertEqual(account.rows, {"to_q": 10, "to_k": 10, "to_v": 10, "proj": 10})

    def test_what_does_not_match_is_named_in_one_warning(self) -> None:
        model = Attention(8)
        tensors = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("up")}
        tensors["elsewhere.weight"] = torch.randn(16, 8)
        with self.assertLogs("qmill", "WARNING") as logs:
            account = self.recorded(model, tensors)
        self.assertEqual(len(logs.output), 1)
        self.assertIn("without a layer, so not recorded: 1 linear module ('up')", logs.output[0])
        self.assertIn("without a module, so without data: 1 layer ('elsewhere')", logs.output[0])
        self.assertEqual(account.modules_not_in_checkpoint, ("up",))
        self.assertEqual(account.checkpoint_layers_without_module, ("elsewhere",))
        self.assertNotIn("up", account.rows)

    def test_embeddings_are_no_missing_layers(self) -> None:
        model = nn.Sequential(Attention(8))
        model[0].table = nn.Embedding(10, 8)
        account = self.recorded(model, {f"net.{n}": t for n, t in model.state_dict().items()})
        self.assertEqual(account.checkpoint_layers_without_module, ())

    def test_weights_that_name_no_place_do_not_match(self) -> None:
        model = Attention(8)
        nn.init.zeros_(model.q.weight)
        model.v.weight = nn.Parameter(model.out.weight.detach().clone())  # twice in the checkpoint
        account = self.recorded(model, {f"x_{name}": tensor for name, tensor in model.state_dict().items()})
        self.assertEqual(set(account.rows), {"x_k", "x_up", "x_down"})
        self.assertEqual(set(account.modules_not_in_checkpoint), {"q", "v", "out"})

    def test_another_model_is_refused(self) -> None:
        with self.assertRaisesRegex(UsageError, "matches a layer of .*model.safetensors"):
            self.recorded(Attention(8), {"a.weight": torch.randn(8, 8)})
        self.assertFalse(self.path.exists())

    def test_tied_modules_are_one_layer(self) -> None:
        model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
        model[1].weight = model[0].weight
        account = self.recorded(model, {"tied.weight": model.state_dict()["0.weight"]})
        self.assertEqual(account.rows, {"tied": 20})

    def test_the_identity_of_the_checkpoint_is_in_the_file(self) -> None:
        model = Attention(8)
        self.recorded(model, model.state_dict())
        text = self.file().metadata["checkpoint"]
        with qmill.open_model(self.checkpoint) as checkpoint:
            self.assertEqual(len(checkpoint.keys()), 12)
        self.assertEqual(
            json.loads(text), qmill._native.call("model_identity", {"path": str(self.checkpoint)}).json["identity"]
        )
        self.assertNotIn(" ", text)


class FirstRow(unittest.TestCase):
    def test_finds_the_only_place(self) -> None:
        whole = torch.randn(40, 30)
        for row, count in ((0, 1), (0, 40), (7, 20), (39, 1)):
            self.assertEqual(first_row(whole, whole[row : row + count]), row)

    def test_finds_nothing_where_rows_differ(self) -> None:
        whole = torch.randn(40, 30)
        part = whole[5:25].clone()
        part[-1, -1] += 1
        self.assertIsNone(first_row(whole, part))
        self.assertIsNone(first_row(torch.cat([whole, whole]), whole[3:9]))
        self.assertIsNone(first_row(torch.ones(5, 5), torch.ones(3, 5)))


if __name__ == "__main__":
    unittest.main()
