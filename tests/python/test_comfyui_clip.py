"""The node that records a text encoder."""

from __future__ import annotations

import gc
import unittest
import weakref
from typing import Any

import torch
from comfy_stand_in.case import CONTEXT, ComfyTest, sorted_rows, stored
from comfy_stand_in.patching import CLIP, ModelPatcher
from torch import Tensor

import qmill


class RecordClip(ComfyTest):
    def setUp(self) -> None:
        super().setUp()
        self.other_file = self.rows_file.with_name("t5.safetensors")

    def tokens(self, seed: int = 0, length: int = 4) -> Tensor:
        return torch.randn(1, length, CONTEXT, generator=torch.Generator().manual_seed(seed))

    def test_rows_are_those_of_the_encoder_that_the_file_is_of(self) -> None:
        clip, _ = self.record_clip()
        tokens = self.tokens()
        clip.encode_from_tokens_scheduled(tokens)
        entries, seen = stored(self.rows_file)
        self.assertEqual(sorted(entries), ["fc1", "fc2"])
        with torch.no_grad():
            hidden = torch.tanh(self.text_models.clip_l.transformer.get_submodule("fc1")(tokens))
        self.assertEqual(sorted_rows(entries["fc1"]), sorted_rows(tokens))
        self.assertEqual(sorted_rows(entries["fc2"]), sorted_rows(hidden))
        self.assertEqual(seen["fc1"], [[None, 4, 4]])

    def test_the_other_encoder_of_the_same_clip(self) -> None:
        clip, _ = self.record_clip(checkpoint="text_encoders/t5xxl.safetensors")
        clip.encode_from_tokens(self.tokens())
        self.assertEqual(sorted(stored(self.rows_file)[0]), ["fc2", "wi", "wo"])

    def test_a_node_for_each_encoder_one_after_the_other(self) -> None:
        first, _ = self.record_clip()
        clip, _ = self.record_clip(
            first, checkpoint="text_encoders/t5xxl.safetensors", rows_file="qmill/t5.safetensors"
        )
        clip.encode_from_tokens_scheduled(self.tokens())
        self.assertEqual(sorted(stored(self.rows_file)[0]), ["fc1", "fc2"])
        self.assertEqual(sorted(stored(self.other_file)[0]), ["fc2", "wi", "wo"])
        first.encode_from_tokens(self.tokens(1))
        self.assertEqual(stored(self.rows_file)[1]["fc1"], [[None, 8, 8]])
        self.assertEqual(stored(self.other_file)[1]["wi"], [[None, 4, 4]])

    def test_texts_add_up(self) -> None:
        clip, session = self.record_clip()
        clip.encode_from_tokens(self.tokens(0, length=3))
        clip.encode_from_tokens_scheduled(self.tokens(1, length=5))
        self.assertEqual(stored(self.rows_file)[1]["fc1"], [[None, 8, 8]])
        self.assertIn("2 layers with 8 to 8 rows", session.status)
        self.assertEqual([node for node, _ in self.texts()], ["7", "7"])

    def test_the_original_is_untouched_and_gives_the_same_bits(self) -> None:
        before = dict(vars(self.clip))
        plain = self.clip.encode_from_tokens(self.tokens())
        clip, _ = self.record_clip()
        self.assertTrue(torch.equal(clip.encode_from_tokens(self.tokens()), plain))
        written = self.rows_file.read_bytes()
        self.clip.encode_from_tokens(self.tokens(1))
        self.clip.clone().encode_from_tokens(self.tokens(2))
        self.assertEqual(self.rows_file.read_bytes(), written)
        self.assertEqual(vars(self.clip), before)
        self.assertIs(type(self.clip), CLIP)
        self.assertEqual(self.hooks(), 0)

    def test_a_clone_behind_the_node_is_recorded_and_keeps_its_settings(self) -> None:
        clip, _ = self.record_clip()
        clip.layer_idx = -2
        clone = clip.clone()
        self.assertEqual(clone.layer_idx, -2)
        self.assertIsInstance(clone, CLIP)
        self.assertIsInstance(clone.patcher, ModelPatcher)
        clone.encode_from_tokens(self.tokens())
        self.assertEqual(stored(self.rows_file)[1]["fc1"], [[None, 4, 4]])

    def test_an_error_leaves_the_file_as_it_was(self) -> None:
        clip, _ = self.record_clip()
        self.text_models.fails = True
        with self.assertRaises(KeyError):
            clip.encode_from_tokens(self.tokens())
        self.assertEqual(list(self.rows_file.parent.iterdir()), [])
        self.assertEqual(self.hooks(), 0)
        self.text_models.fails = False
        clip.encode_from_tokens(self.tokens())
        self.assertEqual(stored(self.rows_file)[1]["fc1"], [[None, 4, 4]])

    def test_a_file_of_none_of_the_encoders(self) -> None:
        self.save(self.model.diffusion_model, self.models / "clip" / "flux.safetensors")
        with self.assertRaisesRegex(ValueError, r"none of the text encoders of this CLIP \(clip_l, t5xxl\)"):
            self.record_clip(checkpoint="text_encoders/flux.safetensors")

    def test_an_encoder_that_is_quantized_already(self) -> None:
        layer: Any = self.text_models.clip_l.transformer.get_submodule("fc2")
        layer.weight = torch.nn.Parameter(layer.weight.to(torch.float8_e4m3fn), requires_grad=False)
        clip, _ = self.record_clip()
        with self.assertRaisesRegex(qmill.UnsupportedError, "'fc2' is quantized"):
            clip.encode_from_tokens(self.tokens())
        self.assertEqual(self.hooks(), 0)

    def test_the_switch_off_gives_back_the_clip_itself(self) -> None:
        clip, session = self.record_clip(enabled=False)
        self.assertIs(clip, self.clip)
        self.assertEqual(session.settings.file, self.rows_file)

    def test_the_switch_off_needs_no_checkpoint_and_creates_no_folder(self) -> None:
        clip, _ = self.record_clip(enabled=False, checkpoint="text_encoders/gone.safetensors")
        self.assertIs(clip, self.clip)
        self.assertFalse(self.rows_file.parent.exists())

    def test_nothing_keeps_the_encoder_alive(self) -> None:
        clip, session = self.record_clip()
        clip.encode_from_tokens(self.tokens())
        encoder = weakref.ref(self.text_models)
        del clip, session, self.clip, self.text_models
        gc.collect()
        self.assertIsNone(encoder())


if __name__ == "__main__":
    unittest.main()
