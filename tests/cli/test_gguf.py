"""GGUF files as people have them: quantized types, shapes that were changed, models in several files. Plain ones: test_sources.py."""

import json
import struct
import sys

import numpy as np
import torch

from support import qmill, qmill_json, read
from test_sources import GOLDEN, Q8, Sources, gguf_text, randn, write_gguf

sys.path.insert(0, str(GOLDEN))
from make_gguf_blocks import BLOCKS, FILE, hash_of, random_blocks  # noqa: E402

PINNED = json.loads(FILE.read_text())


class Blocks:
    """A matrix with the blocks of a quantized type."""

    def __init__(self, kind, shape, data):
        self.kind, self.shape, self.data = kind, shape, data

    def bytes(self):
        return self.data


def text_key(key, value):
    return gguf_text(key) + struct.pack("<I", 8) + gguf_text(value)


def number_key(key, value):
    return gguf_text(key) + struct.pack("<II", 4, value)


def shape_key(tensor, shape):
    return gguf_text(f"comfy.gguf.orig_shape.{tensor}") + struct.pack(f"<IIQ{len(shape)}i", 9, 5, len(shape), *shape)


class QuantizedTypes(Sources):
    def random_model(self):
        tensors = {"plain.weight": randn(8, 256)}
        for name, kind in PINNED.items():
            shape = (BLOCKS // 4, 4 * kind["block_values"])
            tensors[f"kept.{name}.weight"] = Blocks(kind["number"], shape, random_blocks(kind["number"], kind["block_bytes"]))
        return write_gguf(self.folder / "model.gguf", tensors)

    def finite_model(self):
        """Blocks whose factors, the halves in them, are 0.5 and 1: other bytes are the same everywhere."""
        return write_gguf(self.folder / "model.gguf", {
            "norm.weight": randn(7),
            "a.weight": Blocks(14, (3, 256), 3 * (bytes([0x21]) * 208 + struct.pack("<e", 0.5))),
            "b.weight": Blocks(2, (4, 64), 8 * (struct.pack("<e", 1) + bytes([0x9F]) * 16)),
            "c.weight": Q8(4, 256, 5),
        })

    def test_random_blocks_of_every_type_are_decoded_as_the_reference_does_it(self):
        tensors, _ = self.convert(self.random_model(), "--exclude-layers", "kept")
        for name, kind in PINNED.items():
            values = tensors[f"kept.{name}.weight"]
            self.assertEqual((values.dtype, tuple(values.shape)), (torch.float32, (BLOCKS // 4, 4 * kind["block_values"])))
            self.assertGreater(values.isfinite().sum().item(), 0.9 * values.numel())
            self.assertEqual(hash_of(values.numpy()), kind["sha256"], name)

    def test_values_that_are_not_finite_are_not_quantized(self):
        self.refused("-i", self.random_model(), says=("model.gguf", "kept.", "not finite"))
        self.refused("dequantize", self.folder / "model.gguf", "--dtype", "f32", says=("model.gguf", "kept.", "not finite", "damaged"))

    def test_the_loss_is_named_once_with_all_types(self):
        line = "the source was quantized (Q4_0, 1 layer; Q6_K, 1 layer; Q8_0, 1 layer): what that lost stays lost"
        source = self.finite_model()
        self.assertEqual([each for each in qmill_json("plan", source)["warnings"] if "lost" in each], [line])
        text, _ = qmill("-i", source, "-o", self.folder / "o.safetensors")
        self.assertEqual(text.count("the source was quantized"), 1)
        plain = write_gguf(self.folder / "plain.gguf", {"a.weight": randn(8, 256).bfloat16()})
        self.assertEqual([each for each in qmill_json("plan", plain)["warnings"] if "lost" in each], [])

    def test_dequantize_makes_a_plain_model_of_it(self):
        text, _ = qmill("dequantize", self.finite_model(), self.folder / "o.safetensors")
        for part in ("Q4_0, 1 layer", "Q6_K, 1 layer", "Q8_0, 1 layer", "BF16", "stays lost"):
            self.assertIn(part, text)
        tensors, _ = self.convert(self.finite_model(), "--exclude-layers", "^[ab]", name="f32.safetensors")
        self.assertEqual(tensors["b.weight"][0].tolist(), [7.0] * 16 + [1.0] * 16 + [7.0] * 16 + [1.0] * 16)
        # Its scales are 0x21; low bits 1, then 2, high bits 1, 0, 2, 0.
        self.assertEqual(sorted(set(tensors["a.weight"].flatten().tolist())), sorted({0.5 * 33 * (q - 32) for q in (17, 1, 34, 2)}))
        decoded, _ = read(self.folder / "o.safetensors")
        for name in ("a.weight", "b.weight"):
            self.assertTrue(torch.equal(decoded[name], tensors[name].bfloat16()), name)
        self.assertEqual(decoded["norm.weight"].dtype, torch.float32)

    def test_inspect_shows_the_types_of_the_file(self):
        tensors = qmill_json("inspect", self.finite_model())["tensors"]
        self.assertEqual({tensor["name"]: tensor["stored_type"] for tensor in tensors},
                         {"norm.weight": "F32", "a.weight": "Q6_K", "b.weight": "Q4_0", "c.weight": "Q8_0"})
        self.assertEqual({tensor["dtype"] for tensor in tensors}, {"F32"})
        self.assertIn("F32 from Q6_K", qmill("inspect", self.folder / "model.gguf")[0])

    def test_types_that_are_not_read_are_named_with_those_that_are(self):
        for number, name in ((16, "IQ2_XXS"), (19, "IQ1_S"), (21, "IQ3_S"), (34, "TQ1_0"), (39, "MXFP4"), (77, "unknown type 77")):
            source = write_gguf(self.folder / "model.gguf", {"x.weight": Blocks(number, (1, 256), bytes(256))})
            self.refused("-i", source, says=("model.gguf", "x.weight", name, "Q4_K", "IQ4_XS", "use the original model"))


class Shapes(Sources):
    def test_tensors_of_video_models_have_five_dimensions(self):
        tensors = {"patch_embedding.weight": randn(6, 4, 1, 2, 2).half(), "a.weight": Q8(4, 256, 1)}
        converted, _ = self.convert(write_gguf(self.folder / "model.gguf", tensors))
        self.assertTrue(torch.equal(converted["patch_embedding.weight"], tensors["patch_embedding.weight"]))
        source = write_gguf(self.folder / "nine.gguf", {"a.weight": randn(1, 1, 1, 1, 1, 1, 1, 1, 2)})
        self.refused("-i", source, says=("nine.gguf", "a.weight", "9 dimensions", "at most 8"))

    def test_folded_tensors_get_their_true_shapes(self):
        folded = Q8(9, 256, 1)
        tensors = {"conv.weight": folded, "a.weight": Q8(5, 256, 2), "b.weight": Q8(4, 256, 3)}
        pairs = [shape_key("conv.weight", (16, 16, 3, 3)), shape_key("a.weight", (20, 64))]
        converted, metadata = self.convert(write_gguf(self.folder / "model.gguf", tensors, pairs))
        self.assertTrue(torch.equal(converted["conv.weight"], folded.values().reshape(16, 16, 3, 3)))
        self.assertEqual(tuple(converted["a.weight"].shape), (20, 64))
        self.assertEqual(tuple(converted["a.weight_scale"].shape), (20, 1))
        self.assertEqual([key for key in metadata if "gguf" in key], [])
        source = write_gguf(self.folder / "model.gguf", tensors, [shape_key("a.weight", (20, 65))])
        self.refused("-i", source, says=("model.gguf", "a.weight", "5 x 256", "20 x 65"))

    def test_matrices_that_were_made_convolutions_are_matrices(self):
        tensors = {"label_emb.0.0.weight": randn(4, 4), "x.proj_in.weight": randn(8, 256, 1, 1).half()}
        source = write_gguf(self.folder / "model.gguf", tensors)
        converted, _ = self.convert(source, "--exclude-layers", "label")
        self.assertEqual(tuple(converted["x.proj_in.weight"].shape), (8, 256))
        self.assertIn("stable-diffusion.cpp", " ".join(qmill_json("plan", source)["remarks"]))


class SplitModels(Sources):
    def parts(self, count=2):
        """(files, tensors)"""
        files, tensors = [], {}
        for i in range(count):
            part = {f"layers.{i}.weight": randn(8, 256, seed=i).bfloat16(), f"layers.{i}.q.weight": Q8(4, 256, i)}
            pairs = [text_key("general.architecture", "flux"), number_key("split.no", i), number_key("split.count", count),
                     number_key("split.tensors.count", 2 * count)]
            files.append(write_gguf(self.folder / f"m-{i + 1:05}-of-{count:05}.gguf", part, pairs))
            tensors.update(part)
        return files, tensors

    def test_any_part_opens_all_of_them_and_says_so(self):
        files, tensors = self.parts(3)
        expected, _ = self.convert(write_gguf(self.folder / "whole.gguf", tensors))
        for file in files:
            converted, metadata = self.convert(file)
            self.assertSameTensors(converted, expected)
            self.assertEqual(metadata["general.architecture"], "flux")
            self.assertEqual([key for key in metadata if key.startswith("split.")], [])
            remark = "the model is split: all 3 parts are read, 'm-00001-of-00003.gguf' to 'm-00003-of-00003.gguf'"
            self.assertIn(remark, qmill_json("plan", file)["remarks"])
            self.assertIn(remark, qmill("-i", file, "-o", self.folder / "o.safetensors", "--overwrite")[0])
            self.assertIn(remark, qmill("inspect", file)[0])

    def test_no_part_can_be_the_output(self):
        files, _ = self.parts()
        self.refused("-i", files[0], "-o", files[1], "--overwrite", says=("same file",), status=2)

    def test_missing_parts_are_named(self):
        files, _ = self.parts(3)
        files[1].unlink()
        self.refused("-i", files[0], says=(files[0].name, "part 1 of 3", "missing: 'm-00002-of-00003.gguf'", "one folder"))
        files[0].rename(self.folder / "renamed.gguf")
        self.refused("-i", self.folder / "renamed.gguf", says=("renamed.gguf", "'-00001-of-00003.gguf'"))
