"""LoRAs merged before quantization: every kind and spelling against plain arithmetic in F64, and what is said and refused."""

import json
import math
import struct

import torch
from safetensors.torch import save_file

from support import TempFolder, decode, qmill, qmill_json, read, sqnr_db

N, K = 24, 32
PREFIX = "model.diffusion_model."


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + 1000 * sum(shape)))


def lora(name="blocks.0.q", rank=4, rows=N, columns=K, seed=0):
    return {f"{name}.lora_A.weight": random(rank, columns, seed=seed), f"{name}.lora_B.weight": random(rows, rank, seed=seed + 1)}


def product(tensors, down, up):
    return tensors[up].double().flatten(1) @ tensors[down].double().flatten(1)


class Model(TempFolder):
    """Layer q is quantized; k, F32 and kept, shows what was merged. conv, norm, table and the biases are no layers."""

    def setUp(self):
        super().setUp()
        self.weights = {
            "blocks.0.q.weight": random(N, K, seed=1).bfloat16(),
            "blocks.0.k.weight": random(N, K, seed=2),
            "blocks.0.k.bias": random(N, seed=3),
            "blocks.0.half.weight": random(N, K, seed=4).bfloat16(),
            "blocks.0.norm.weight": random(K, seed=5),
            "conv.weight": random(8, 6, 3, 3, seed=6),
            "table": random(5, 7, seed=7),
        }
        self.source = self.save_source(PREFIX)
        self.output = self.folder / "out.safetensors"

    def save_source(self, prefix, name="model.safetensors"):
        self.prefix = prefix
        return self.model({prefix + n: t for n, t in self.weights.items()}, name)

    def lora(self, tensors, name="lora.safetensors", metadata=None):
        return self.model({n: t.clone().contiguous() for n, t in tensors.items()}, name, metadata)

    def run_merge(self, *flags, keep=r"\.k\.|half"):
        report = qmill_json("-i", self.source, "-o", self.output, "--overwrite", "--exclude-layers", keep, "--convrot", "off", *flags)
        self.stored = {n.removeprefix(self.prefix): t for n, t in read(self.output)[0].items()}
        return report

    def merged(self, tensors, *flags, metadata=None, **more):
        return self.run_merge("--merge-lora", self.lora(tensors, metadata=metadata), *flags, **more)

    def assert_is(self, name, expected):
        """The stored tensor `name` is `expected` (F64) to 1e-5 of its size, or for a quantized layer to half a step."""
        stored = self.stored[name]
        base = name.removesuffix(".weight")
        if stored.dtype == torch.int8:
            error = (decode(self.stored, base) - expected).abs()
            step = self.stored[f"{base}.weight_scale"].double()
            torch.testing.assert_close(step, expected.abs().amax(1, True) / 127, rtol=1e-5, atol=0)
            self.assertTrue((error <= step * 0.5001).all(), f"{name}: {(error / step).max().item()} steps")
        else:
            self.assertEqual(stored.shape, expected.shape)
            size = expected.abs().max().item()
            self.assertLess((stored.double() - expected).abs().max().item(), 1e-5 * size, name)

    def assert_changed_by(self, delta, name="blocks.0.k.weight"):
        self.assertGreater(delta.abs().max().item(), 1e-3)
        self.assert_is(name, self.weights[name].double() + delta.reshape(self.weights[name].shape))

    def refused(self, *flags, status=1):
        out, error = qmill("-i", self.source, "-o", self.output, *flags, status=status)
        self.assertEqual(out, "")
        self.assertEqual(len(error.splitlines()), 1, error)
        self.assertFalse(self.output.exists())
        self.assertEqual([name for name in self.names() if name.startswith("out")], [])
        return error


class Names(Model):
    DOWN_UP = [
        ("{}.lora_A.weight", "{}.lora_B.weight"),
        ("{}.lora_A.default.weight", "{}.lora_B.default.weight"),
        ("{}.lora_A", "{}.lora_B"),
        ("{}.lora_down.weight", "{}.lora_up.weight"),
        ("{}.lora.down.weight", "{}.lora.up.weight"),
        ("{}.lora_linear_layer.down.weight", "{}.lora_linear_layer.up.weight"),
    ]
    LAYERS = ["{}", "diffusion_model.{}", "model.diffusion_model.{}", "transformer.{}", "base_model.model.{}", "base_model.model.transformer.{}"]
    KOHYA = ["lora_unet_{}", "lora_transformer_{}", "lycoris_{}"]
    ENCODERS = ["lora_te_{}", "lora_te1_{}", "text_encoder.{}"]

    def test_every_spelling_reaches_its_layers_in_models_with_and_without_prefix(self):
        down, up = random(4, K), random(N, 4, seed=1)
        delta = up.double() @ down.double() / 4 * 6
        spellings = [(layer, pair) for layer in self.LAYERS for pair in self.DOWN_UP]
        spellings += [(layer, self.DOWN_UP[3]) for layer in self.KOHYA]
        encoders = [(layer, self.DOWN_UP[3]) for layer in self.ENCODERS]
        for prefix in ("", PREFIX, "diffusion_model.", "transformer."):
            self.source = self.save_source(prefix)
            for layer, pair in spellings if prefix == PREFIX else spellings[::4] + encoders:
                with self.subTest(prefix=prefix, layer=layer, pair=pair[0]):
                    tensors = {}
                    for base in ("blocks.0.k", "blocks.0.q"):
                        name = layer.format(base.replace(".", "_") if layer.endswith("_{}") else base)
                        tensors |= {pair[0].format(name): down, pair[1].format(name): up, f"{name}.alpha": torch.tensor(6.0)}
                    report = self.merged(tensors)
                    self.assert_changed_by(delta)
                    self.assert_changed_by(delta, "blocks.0.q.weight")
                    account = report["merge"]["files"][0]
                    self.assertEqual(account["layers"], sorted(f"{prefix}blocks.0.{n}" for n in "kq"))
                    self.assertEqual((account["unmatched"], account["kinds"], account["alpha"]), ([], {"lora": 2}, {"tensor": 2}))

    def test_names_that_the_model_does_not_have_are_counted_not_guessed(self):
        tensors = lora("blocks.0.k") | lora("transformer_blocks.0.attn.to_q") | lora("lora_te2_text_model_encoder_layers_0_mlp_fc1")
        tensors |= {"blocks.0.k.strange": torch.ones(2), "note": torch.ones(1), "blocks.0.q.alpha": torch.tensor(1.0)}
        error = self.refused("--merge-lora", self.lora(tensors))
        for part in ("lora.safetensors", "only a part", "2 more tensors", "--merge-lora-partial"):
            self.assertIn(part, error)
        report = self.merged(tensors, "--merge-lora-partial")
        account = report["merge"]["files"][0]
        self.assertEqual(account["layers"], [PREFIX + "blocks.0.k"])
        self.assertEqual(set(account["for_other_models"]), {n for n in tensors if n.startswith("lora_te2")})
        self.assertEqual(set(account["unmatched"]), {n for n in tensors if not n.startswith(("blocks.0.k.lora", "lora_te2"))})
        self.assert_changed_by(product(tensors, "blocks.0.k.lora_A.weight", "blocks.0.k.lora_B.weight"))
        self.assertTrue(any("5 tensors" in warning and "lora.safetensors" in warning for warning in report["warnings"]), report["warnings"])

    def test_a_name_that_could_be_two_layers_is_refused(self):
        self.weights |= {"a.b_c.weight": random(N, K), "a_b.c.weight": random(N, K)}
        self.source = self.save_source(PREFIX)
        path = self.lora({"lora_unet_a_b_c.lora_down.weight": random(4, K), "lora_unet_a_b_c.lora_up.weight": random(N, 4)})
        error = self.refused("--merge-lora", path)
        for part in ("lora.safetensors", "a.b_c", "a_b.c"):
            self.assertIn(part, error)


class Alpha(Model):
    def test_where_alpha_comes_from(self):
        tensors = lora("transformer.blocks.0.k")
        delta = product(tensors, "transformer.blocks.0.k.lora_A.weight", "transformer.blocks.0.k.lora_B.weight")
        config = lambda **values: {"lora_adapter_metadata": json.dumps(values)}
        alpha = {"transformer.blocks.0.k.alpha": torch.tensor(2.0).bfloat16()}
        for more, metadata, factor, source in (
            ({}, None, 1, "rank"),
            (alpha, None, 2 / 4, "tensor"),
            ({"transformer.blocks.0.k.alpha": torch.tensor([[3.0]])}, None, 3 / 4, "tensor"),
            ({"transformer.blocks.0.k.alpha": torch.tensor(3)}, None, 3 / 4, "tensor"),  # I64
            ({}, {"transformer_blocks_0_k_alpha": "6"}, 6 / 4, "metadata"),
            ({}, {"blocks_0_k_alpha": "1e1"}, 10 / 4, "metadata"),
            (alpha, {"transformer_blocks_0_k_alpha": "6"}, 2 / 4, "tensor"),
            ({}, config(lora_alpha=16, r=4), 16 / 4, "metadata"),
            ({}, config(r=4, lora_alpha=None), 1, "rank"),
            ({}, config(**{"transformer.lora_alpha": 8, "text_encoder.lora_alpha": 100}), 8 / 4, "metadata"),
            ({}, config(**{"text_encoder.lora_alpha": 100, "text_encoder_2.lora_alpha": 8}), 1, "rank"),
            ({}, config(lora_alpha=16, use_rslora=True), 16 / 2, "metadata"),
            ({}, config(lora_alpha=16, alpha_pattern={"q": 5, "blocks.0.k": 7}), 7 / 4, "metadata"),
            ({}, config(lora_alpha=16, alpha_pattern={r"blocks\.\d+\.k": 7}), 7 / 4, "metadata"),
            (alpha, config(lora_alpha=16), 2 / 4, "tensor"),
        ):
            with self.subTest(more=list(more), metadata=metadata):
                report = self.merged(tensors | more, metadata=metadata)
                self.assert_changed_by(delta * factor)
                self.assertEqual(report["merge"]["files"][0]["alpha"], {source: 1})

    def test_the_configuration_beside_a_peft_file(self):
        adapter = self.folder / "adapter"
        adapter.mkdir()
        tensors = lora("base_model.model.blocks.0.k")
        save_file(tensors, adapter / "adapter_model.safetensors")
        (adapter / "adapter_config.json").write_text(json.dumps({"lora_alpha": 12, "r": 4, "fan_in_fan_out": False}))
        for path in (adapter, adapter / "adapter_model.safetensors"):
            self.run_merge("--merge-lora", path)
            self.assert_changed_by(product(tensors, "base_model.model.blocks.0.k.lora_A.weight", "base_model.model.blocks.0.k.lora_B.weight") * 3)
        self.output.unlink()
        for text, part in (("{", "JSON"), ("[]", "object"), ('{"lora_alpha": "x"}', "lora_alpha"), ('{"fan_in_fan_out": true}', "fan_in_fan_out"),
                           ('{"alpha_pattern": {"(": 1}}', "(")):
            (adapter / "adapter_config.json").write_text(text)
            error = self.refused("--merge-lora", adapter)
            self.assertIn("adapter_config.json", error)
            self.assertIn(part, error)


class Kinds(Model):
    """Formulas: LoRA arXiv 2106.09685, DoRA 2402.09353, LoHa 2108.06098, LoKr and convolutions as in LyCORIS (2309.14859)."""

    CONV = "conv.weight"

    def test_convolutions(self):
        up = random(8, 2, 1, 1)
        for down in (random(2, 6, 3, 3), random(2, 54)):
            tensors = {"conv.lora_down.weight": down, "conv.lora_up.weight": up, "conv.alpha": torch.tensor(1.0)}
            report = self.merged(tensors)
            self.assert_changed_by(product(tensors, "conv.lora_down.weight", "conv.lora_up.weight") / 2, self.CONV)
            self.assertEqual(report["merge"]["files"][0]["layers"], [PREFIX + "conv"])

    def test_convolutions_in_cp_form(self):
        up, mid, down = random(8, 3, 1, 1), random(3, 2, 3, 3), random(2, 6, 1, 1)
        self.merged({"conv.lora_down.weight": down, "conv.lora_mid.weight": mid, "conv.lora_up.weight": up, "conv.alpha": torch.tensor(5.0)})
        delta = torch.einsum("mnxy,im,nj->ijxy", mid.double(), up.double().flatten(1), down.double().flatten(1))
        self.assert_changed_by(delta * 5 / 2, self.CONV)

    def test_loha(self):
        a1, b1, a2, b2 = random(N, 3), random(3, K), random(N, 5, seed=1), random(5, K, seed=1)
        tensors = {f"blocks.0.k.hada_{n}": t for n, t in {"w1_a": a1, "w1_b": b1, "w2_a": a2, "w2_b": b2}.items()}
        report = self.merged(tensors | {"blocks.0.k.alpha": torch.tensor(2.0)})
        self.assert_changed_by((a1.double() @ b1.double()) * (a2.double() @ b2.double()) * 2 / 3)
        self.assertEqual(report["merge"]["files"][0]["kinds"], {"loha": 1})

    def test_loha_of_a_convolution_in_cp_form(self):
        parts = {"w1_a": random(3, 8), "w1_b": random(2, 6), "t1": random(3, 2, 3, 3), "w2_a": random(4, 8), "w2_b": random(2, 6, seed=1), "t2": random(4, 2, 3, 3)}
        self.merged({f"conv.hada_{n}": t for n, t in parts.items()} | {"conv.alpha": torch.tensor(3.0)})
        half = lambda i: torch.einsum("ijxy,jr,ip->prxy", parts[f"t{i}"].double(), parts[f"w{i}_b"].double(), parts[f"w{i}_a"].double())
        self.assert_changed_by(half(1) * half(2) * 3 / 2, self.CONV)

    def test_lokr(self):
        w1, w2 = random(4, 2), random(N // 4, K // 2)
        w1_a, w1_b, w2_a, w2_b = random(4, 3), random(3, 2), random(N // 4, 5), random(5, K // 2)
        d = lambda t: t.double()
        alpha = torch.tensor(2.0)
        for parts, expected in (
            ({"w1": w1, "w2": w2}, torch.kron(d(w1), d(w2))),  # whole factors have no rank: alpha says nothing
            ({"w1": w1, "w2_a": w2_a, "w2_b": w2_b}, torch.kron(d(w1), d(w2_a) @ d(w2_b)) * 2 / 5),
            ({"w1_a": w1_a, "w1_b": w1_b, "w2": w2}, torch.kron(d(w1_a) @ d(w1_b), d(w2)) * 2 / 3),
            ({"w1_a": w1_a, "w1_b": w1_b, "w2_a": w2_a, "w2_b": w2_b}, torch.kron(d(w1_a) @ d(w1_b), d(w2_a) @ d(w2_b)) * 2 / 5),
        ):
            with self.subTest(list(parts)):
                for name in ("blocks.0.k", "lycoris_blocks_0_k"):
                    report = self.merged({f"{name}.lokr_{n}": t for n, t in parts.items()} | {f"{name}.alpha": alpha})
                    self.assert_changed_by(expected)
                account = report["merge"]["files"][0]
                self.assertEqual((account["kinds"], account["alpha"]), ({"lokr": 1}, {} if len(parts) == 2 else {"tensor": 1}))

    def test_lokr_of_convolutions(self):
        w1 = random(2, 3)
        w2 = random(4, 2, 3, 3)
        self.merged({"conv.lokr_w1": w1, "conv.lokr_w2": w2})
        self.assert_changed_by(torch.kron(w1.double()[:, :, None, None], w2.double()), self.CONV)
        t2, w2_a, w2_b = random(3, 5, 3, 3), random(3, 4), random(5, 2)
        self.merged({"conv.lokr_w1": w1, "conv.lokr_t2": t2, "conv.lokr_w2_a": w2_a, "conv.lokr_w2_b": w2_b, "conv.alpha": torch.tensor(2.0)})
        rebuilt = torch.einsum("ijkl,jr,ip->prkl", t2.double(), w2_b.double(), w2_a.double())
        self.assert_changed_by(torch.kron(w1.double()[:, :, None, None], rebuilt.contiguous()) * 2 / 5, self.CONV)

    def test_whole_differences_of_weights_biases_norms_and_parameters(self):
        parts = {"blocks.0.k.diff": random(N, K), "blocks.0.k.diff_b": random(N), "blocks.0.norm.w_norm": random(K), "table.diff": random(5, 7)}
        report = self.merged(parts | {"conv.diff_b": random(8)}, "--merge-lora-scale", "0.5", "--merge-lora-partial")
        for name, part in (("blocks.0.k.weight", "blocks.0.k.diff"), ("blocks.0.k.bias", "blocks.0.k.diff_b"),
                           ("blocks.0.norm.weight", "blocks.0.norm.w_norm"), ("table", "table.diff")):
            self.assert_is(name, self.weights[name].double() + parts[part].double() / 2)
        account = report["merge"]["files"][0]
        self.assertEqual(account["layers"], [PREFIX + n for n in ("blocks.0.k", "blocks.0.norm", "table")])
        self.assertEqual((account["kinds"], account["alpha"], account["unmatched"]), ({"diff": 3}, {}, ["conv.diff_b"]))

    def test_a_bias_alone(self):
        difference = random(N)
        report = self.merged({"diffusion_model.blocks.0.k.diff_b": difference})
        self.assert_is("blocks.0.k.bias", self.weights["blocks.0.k.bias"].double() + difference.double())
        self.assertTrue(torch.equal(self.stored["blocks.0.k.weight"], self.weights["blocks.0.k.weight"]))
        self.assertEqual(report["merge"]["files"][0]["kinds"], {"bias": 1})

    def dora(self, weight, delta, magnitude, dims, strength=1.0):
        weight = weight.double()
        changed = weight + delta.reshape(weight.shape)
        normalized = changed * magnitude.double() / changed.square().sum(dims, keepdim=True).sqrt()
        return weight + strength * (normalized - weight)

    def test_dora(self):
        tensors = lora("blocks.0.k") | {"blocks.0.k.alpha": torch.tensor(2.0)}
        delta = product(tensors, "blocks.0.k.lora_A.weight", "blocks.0.k.lora_B.weight") / 2
        rows, columns = random(N).abs() + 1, random(K).abs() + 1
        cases = [("dora_scale", rows, False), ("dora_scale", rows[:, None], False), ("lora_magnitude_vector", rows, False),
                 ("lora_magnitude_vector.weight", rows, False), ("lora_magnitude_vector.default.weight", rows, False),
                 ("dora_scale", columns[None], True), ("dora_scale", columns, True)]
        for name, magnitude, by_columns in cases:
            for strength in (1.0, 0.5):
                with self.subTest(name=name, shape=magnitude.shape, strength=strength):
                    report = self.merged(tensors | {f"blocks.0.k.{name}": magnitude}, "--merge-lora-scale", strength)
                    wanted = magnitude.reshape(1, -1) if by_columns else magnitude.reshape(-1, 1)
                    self.assert_is("blocks.0.k.weight", self.dora(self.weights["blocks.0.k.weight"], delta, wanted, 0 if by_columns else 1, strength))
                    self.assertEqual(report["merge"]["files"][0]["kinds"], {"dora": 1})

    def test_dora_of_convolutions_and_of_other_kinds(self):
        rows, columns = random(8).abs() + 1, random(6).abs() + 1
        low = {"conv.lora_down.weight": random(2, 6, 3, 3), "conv.lora_up.weight": random(8, 2, 1, 1)}
        delta = product(low, "conv.lora_down.weight", "conv.lora_up.weight")
        weight = self.weights[self.CONV]
        for magnitude, dims in ((rows.reshape(8, 1, 1, 1), (1, 2, 3)), (columns.reshape(1, 6, 1, 1), (0, 2, 3))):
            self.merged(low | {"conv.dora_scale": magnitude})
            self.assert_is(self.CONV, self.dora(weight, delta, magnitude, dims))
        self.merged(low | {"conv.lora_magnitude_vector.weight": rows.reshape(1, 8, 1, 1)})  # as PEFT stores it
        self.assert_is(self.CONV, self.dora(weight, delta, rows.reshape(8, 1, 1, 1), (1, 2, 3)))
        w1, w2 = random(2, 3), random(4, 2, 3, 3)
        self.merged({"conv.lokr_w1": w1, "conv.lokr_w2": w2, "conv.dora_scale": rows.reshape(8, 1, 1, 1)})
        self.assert_is(self.CONV, self.dora(weight, torch.kron(w1.double()[:, :, None, None], w2.double()), rows.reshape(8, 1, 1, 1), (1, 2, 3)))

    def test_a_square_dora_tells_rows_from_columns_by_shape(self):
        self.weights["square.weight"] = random(K, K)
        self.source = self.save_source("")
        tensors = lora("square", rows=K)
        delta = product(tensors, "square.lora_A.weight", "square.lora_B.weight")
        wanted = random(K).abs() + 1
        for magnitude, dim in ((wanted, 1), (wanted[:, None], 1), (wanted[None], 0)):
            self.merged(tensors | {"square.dora_scale": magnitude}, keep=r"\.k\.|half|square")
            self.assert_is("square.weight", self.dora(self.weights["square.weight"], delta, wanted[:, None] if dim == 1 else wanted[None], dim))


class Several(Model):
    def setUp(self):
        super().setUp()
        self.files, self.deltas = [], []
        for i in range(3):
            # The second one does not touch the layer, and counts nevertheless.
            tensors = lora("blocks.0.half" if i == 1 else "blocks.0.k", seed=10 * i)
            self.files.append(self.lora(tensors, f"l{i}.safetensors"))
            down, up = sorted(tensors)
            self.deltas.append(product(tensors, down, up))

    def test_file_number_i_is_weakened_by_0_9_to_the_i_once(self):
        report = self.run_merge("--merge-loras", *self.files)
        self.assert_changed_by(self.deltas[0] + self.deltas[2] * 0.81)
        strengths = [file["strength"] for file in report["merge"]["files"]]
        for strength, expected in zip(strengths, (1, 0.9, 0.81), strict=True):
            self.assertAlmostEqual(strength, expected, places=12)
        self.assertTrue(report["merge"]["dampened"])
        half = self.weights["blocks.0.half.weight"].double() + self.deltas[1] * 0.9
        self.assertLess((self.stored["blocks.0.half.weight"].double() - half).abs().max().item(), half.abs().max().item() / 200)

    def test_without_dampening(self):
        self.run_merge("--merge-loras", *self.files, "--no-merge-lora-dampen")
        self.assert_changed_by(self.deltas[0] + self.deltas[2])

    def test_the_single_one_comes_last_and_is_not_weakened_alone(self):
        self.run_merge("--merge-lora", self.files[0], "--merge-loras", self.files[1], "--merge-loras", self.files[2])
        self.assert_changed_by(self.deltas[2] * 0.9 + self.deltas[0] * 0.81)
        self.run_merge("--merge-lora", self.files[0])
        self.assert_changed_by(self.deltas[0])
        self.run_merge("--merge_lora", self.files[0], "--merge_lora_scale", "-0.5", "--merge_lora_dampen")
        self.assert_changed_by(self.deltas[0] * -0.5)

    def test_each_may_have_a_strength_of_its_own(self):
        report = self.run_merge("--merge-loras", f"{self.files[0]}:0.5", f"{self.files[2]}:-2", "--merge-lora-scale", "3")
        self.assert_changed_by(self.deltas[0] * 1.5 + self.deltas[2] * -6 * 0.9)
        self.assertEqual([file["file"] for file in report["merge"]["files"]], [str(self.files[0]), str(self.files[2])])
        named = self.folder / "l.safetensors:0.5"
        named.write_bytes(self.files[0].read_bytes())
        self.run_merge("--merge-lora", named)
        self.assert_changed_by(self.deltas[0])
        self.run_merge("--merge-lora", f"{named}:2")
        self.assert_changed_by(self.deltas[0] * 2)

    def test_the_same_file_may_come_twice(self):
        self.run_merge("--merge-loras", self.files[0], self.files[0], "--no-merge-lora-dampen")
        self.assert_changed_by(self.deltas[0] * 2)

    def test_a_zero_scale_changes_nothing(self):
        self.run_merge("--merge-loras", *self.files, "--merge-lora-scale", "0")
        for name in ("blocks.0.k.weight", "blocks.0.half.weight"):
            self.assertTrue(torch.equal(self.stored[name], self.weights[name]), name)


class Storage(Model):
    def setUp(self):
        super().setUp()
        self.tensors = lora("blocks.0.k") | lora("blocks.0.half") | lora("blocks.0.q")
        self.path = self.lora(self.tensors)
        self.delta = product(self.tensors, "blocks.0.k.lora_A.weight", "blocks.0.k.lora_B.weight")

    def expected(self, name):
        return self.weights[name].double() + self.delta

    def test_kept_tensors_are_rounded_to_their_own_type_and_quantized_ones_are_not(self):
        self.run_merge("--merge-lora", self.path)
        half = self.expected("blocks.0.half.weight")
        stored = self.stored["blocks.0.half.weight"]
        self.assertEqual(stored.dtype, torch.bfloat16)
        # F32 before BF16: where that lies on the border the neighbour is as near.
        self.assertGreater((stored == half.bfloat16()).double().mean().item(), 0.999)
        self.assertTrue(((stored.double() - half).abs() <= half.abs() * 2 ** -8 * 1.0001).all())
        # Codes and scales of F32: rounded to BF16 first, a part of them would be others.
        merged = self.expected("blocks.0.q.weight").float()
        scale = merged.abs().amax(1, True) / 127
        codes = (merged / scale).round().clamp(-127, 127)
        through_bf16 = (merged.bfloat16().float() / (merged.bfloat16().float().abs().amax(1, True) / 127)).round()
        self.assertGreater((codes != through_bf16).double().mean().item(), 0.05)
        self.assertGreater((self.stored["blocks.0.q.weight"] == codes).double().mean().item(), 0.999)

    def test_everything_else_is_as_without_it(self):
        self.run_merge("--merge-lora", self.path)
        merged = self.stored
        self.run_merge()
        self.assertEqual(set(merged), set(self.stored))
        touched = {"blocks.0.k.weight", "blocks.0.half.weight", "blocks.0.q.weight", "blocks.0.q.weight_scale"}
        for name in merged:
            self.assertEqual(torch.equal(merged[name].view(torch.uint8), self.stored[name].view(torch.uint8)), name not in touched, name)

    def test_casts_and_fallbacks_start_from_the_merged_values(self):
        self.run_merge("--merge-lora", self.path, "--keep-dtype", "f16")
        self.assertEqual(self.stored["blocks.0.k.weight"].dtype, torch.float16)
        expected = self.expected("blocks.0.half.weight")
        self.assertTrue(((self.stored["blocks.0.half.weight"].double() - expected).abs() <= expected.abs() * 2 ** -10).all())
        self.run_merge("--merge-lora", self.path, "--fallback", "fp16")
        self.assertGreater((self.stored["blocks.0.half.weight"] == expected.half()).double().mean().item(), 0.999)
        self.run_merge("--merge-lora", self.path, "--fallback", "int8")
        self.assert_is("blocks.0.k.weight", self.expected("blocks.0.k.weight"))

    def test_a_whole_model_in_fp16(self):
        conv = {"conv.lora_down.weight": random(2, 6, 3, 3), "conv.lora_up.weight": random(8, 2, 1, 1)}
        self.weights["blocks.0.already.weight"] = random(N, K).half()
        self.source = self.save_source(PREFIX)
        path = self.lora(self.tensors | conv | lora("blocks.0.already"))
        qmill("-i", self.source, "-o", self.output, "--fp16", "--merge-lora", path)
        stored = read(self.output)[0]
        for name in ("q", "k", "half", "already"):
            expected = self.expected(f"blocks.0.{name}.weight").half()
            self.assertGreater((stored[f"{PREFIX}blocks.0.{name}.weight"] == expected).double().mean().item(), 0.999, name)
        expected = self.weights["conv.weight"].double() + product(conv, "conv.lora_down.weight", "conv.lora_up.weight").reshape(8, 6, 3, 3)
        self.assertGreater((stored[PREFIX + "conv.weight"] == expected.half()).double().mean().item(), 0.99)

    def test_rare_types_keep_their_type(self):
        self.weights["blocks.0.k.weight"] = self.weights["blocks.0.k.weight"].double()
        self.weights["blocks.0.half.weight"] = self.weights["blocks.0.half.weight"].to(torch.float8_e4m3fn)
        self.source = self.save_source(PREFIX)
        self.run_merge("--merge-lora", self.path)
        self.assertEqual(self.stored["blocks.0.k.weight"].dtype, torch.float64)
        self.assert_is("blocks.0.k.weight", self.expected("blocks.0.k.weight"))
        expected = self.expected("blocks.0.half.weight").float().to(torch.float8_e4m3fn)
        stored = self.stored["blocks.0.half.weight"]
        self.assertEqual(stored.dtype, torch.float8_e4m3fn)
        self.assertGreater((stored.float() == expected.float()).double().mean().item(), 0.995)

    def test_values_beyond_the_type_are_an_error(self):
        self.weights["blocks.0.half.weight"] = self.weights["blocks.0.half.weight"].half()
        self.source = self.save_source(PREFIX)
        error = self.refused("--merge-lora", self.path, "--merge-lora-scale", "1e5", "--exclude-layers", "half")
        self.assertIn("blocks.0.half.weight", error)
        self.assertIn("F16", error)
        error = self.refused("--merge-lora", self.path, "--merge-lora-scale", "1e39")
        self.assertIn("F32", error)
        self.assertIn("lora.safetensors", error)

    def test_int4_and_other_quantizers_get_the_merged_weight(self):
        self.weights["wide.weight"] = random(64, 256).bfloat16()
        self.source = self.save_source("")
        tensors = lora("wide", rank=8, rows=64, columns=256)
        expected = self.weights["wide.weight"].double() + product(tensors, "wide.lora_A.weight", "wide.lora_B.weight")
        path = self.lora(tensors)
        for flags, least in ((["--format", "int4"], 15), (["--optimizer", "original"], 38), (["--optimizer", "quip"], 38), (["--optimizer", "gptq"], 38), ([], 38)):
            qmill("-i", self.source, "-o", self.output, "--overwrite", "--merge-lora", path, *flags)
            self.assertGreater(sqnr_db(expected, decode(read(self.output)[0], "wide")), least, flags)

    def test_the_bytes_are_the_same_for_every_number_of_threads_and_every_budget(self):
        self.weights = {f"l{i}.weight": random(700 + i, 640).bfloat16() for i in range(4)} | {"conv.weight": random(96, 48, 3, 3)}
        self.source = self.save_source("")
        tensors = {"conv.lokr_w1": random(8, 6), "conv.lokr_w2": random(12, 8, 3, 3), "conv.dora_scale": random(1, 48, 1, 1).abs() + 1}
        for i in range(4):
            tensors |= lora(f"l{i}", rank=16, rows=700 + i, columns=640)
        tensors |= {"l1.dora_scale": random(701, 1).abs() + 1, "l2.dora_scale": random(1, 640).abs() + 1}
        path = self.lora(tensors)
        results = set()
        for flags in (["--threads", 1], ["--threads", 2], ["--threads", 5, "--in-flight", 1]):
            qmill("-i", self.source, "-o", self.output, "--overwrite", "--exclude-layers", "l[23]", "--merge-loras", path, f"{path}:0.3", *flags)
            results.add(tuple((name, bytes(tensor.view(torch.uint8).flatten().numpy())) for name, tensor in sorted(read(self.output)[0].items())))
        self.assertEqual(len(results), 1)


class Judged(Model):
    """Reports are about the merged weight."""

    def test_quality_is_of_the_merged_weight(self):
        tensors = lora("blocks.0.q")
        report = self.merged(tensors)
        expected = self.weights["blocks.0.q.weight"].double() + product(tensors, "blocks.0.q.lora_A.weight", "blocks.0.q.lora_B.weight")
        layer = next(layer for layer in report["layers"] if layer["name"].endswith("blocks.0.q"))
        self.assertAlmostEqual(layer["sqnr_db"], sqnr_db(expected, decode(self.stored, "blocks.0.q")), places=3)
        self.assertGreater(layer["sqnr_db"], 35)

    def test_output_error_and_corrected_bias_are_of_the_merged_layer(self):
        self.weights |= {"blocks.0.q.bias": random(N).bfloat16()}
        self.source = self.save_source(PREFIX)
        tensors = lora("blocks.0.q") | {"blocks.0.q.diff_b": random(N)}
        rows = random(200, K) + 1
        data = self.model({"blocks.0.q.input": rows}, "data.safetensors")
        report = self.merged(tensors, "--calibration-data", data, "--optimizer", "rtn")
        weight = self.weights["blocks.0.q.weight"].double() + product(tensors, "blocks.0.q.lora_A.weight", "blocks.0.q.lora_B.weight")
        error = weight - decode(self.stored, "blocks.0.q")
        layer = next(layer for layer in report["layers"] if layer["name"].endswith("blocks.0.q"))
        # Of rows that are not told: of the order that all rows give, and far from that of the unmerged weight, near 1.
        overall = (rows.double() @ error.T).norm() / (rows.double() @ weight.T).norm()
        self.assertLess(abs(math.log(layer["output_error"] / overall.item())), 0.3)
        bias = self.weights["blocks.0.q.bias"].double() + tensors["blocks.0.q.diff_b"].double()
        self.assertEqual(self.stored["blocks.0.q.bias"].dtype, torch.bfloat16)
        # The correction is for the mean of the rows that are not kept apart: bounded by the error's size, and smaller than a step of BF16.
        self.assertLess((self.stored["blocks.0.q.bias"].double() - bias - error @ rows.double().mean(0)).abs().max().item(), 0.03)
        plan = qmill_json("plan", self.source, "--merge-lora", self.folder / "lora.safetensors", "--calibration-data", data)
        entry = next(layer for layer in plan["layers"] if layer["name"].endswith("q.bias"))
        self.assertEqual((entry["action"], entry["merged"]), ("correct", [str(self.folder / "lora.safetensors")]))

    def test_the_heuristic_judges_the_merged_layer(self):
        flags = ["--heur", "--quality-threshold", "45", "--convrot", "off"]
        wild = self.weights["blocks.0.q.weight"].clone()
        wild[:, 0] = 200.0  # which costs plain rounding everything else
        self.weights["blocks.0.q.weight"] = wild
        self.source = self.save_source(PREFIX)
        tame = {"blocks.0.q.lora_A.weight": torch.eye(1, K), "blocks.0.q.lora_B.weight": torch.full((N, 1), -200.0)}
        rule = lambda plan: next(layer["rule"] for layer in plan["layers"] if layer["name"].endswith(".q"))
        def judged(*more):
            return rule(qmill_json("plan", self.source, *flags, *more))
        # SQNR counts the large values, so take them away and what is left rounds worse or better: measured here, not assumed.
        merged = wild.double()
        merged[:, 0] -= 200
        def plain(weight):
            scale = weight.abs().amax(1, True) / 127
            return sqnr_db(weight, (weight / scale).round() * scale)
        bounds = sorted((plain(wild.double()), plain(merged)))
        flags[2] = str(10 + sum(bounds) / 2)
        before, after = judged(), judged("--merge-lora", self.lora(tame))
        self.assertNotEqual(before, after)
        self.assertEqual(after == "heuristic", plain(merged) < plain(wild.double()))


class Account(Model):
    def setUp(self):
        super().setUp()
        self.tensors = lora("blocks.0.q") | lora("blocks.0.k") | lora("gone") | {"blocks.0.k.alpha": torch.tensor(4.0)}
        self.path = self.lora(self.tensors)

    def test_plan_and_report_say_what_is_merged_into_what(self):
        expected = {
            "scale": 1.0,
            "dampened": False,
            "files": [{
                "file": str(self.path),
                "strength": 1.0,
                "layers": [PREFIX + "blocks.0.k", PREFIX + "blocks.0.q"],
                "kinds": {"lora": 2},
                "alpha": {"rank": 1, "tensor": 1},
                "unmatched": ["gone.lora_A.weight", "gone.lora_B.weight"],
                "for_other_models": [],
                "mismatched": [],
                "unaffected": 0,
            }],
        }
        flags = ["--merge-lora", self.path, "--merge-lora-partial", "--exclude-layers", r"\.k\.|half"]
        plan = qmill_json("plan", self.source, *flags)
        self.assertEqual(plan["merge"], expected)
        by_name = {layer["name"].removeprefix(PREFIX): layer for layer in plan["layers"]}
        self.assertEqual((by_name["blocks.0.q"]["action"], by_name["blocks.0.q"]["merged"]), ("quantize", [str(self.path)]))
        self.assertEqual((by_name["blocks.0.k"]["action"], by_name["blocks.0.k"]["merged"]), ("merge", [str(self.path)]))
        self.assertEqual((by_name["blocks.0.half"]["action"], by_name["blocks.0.half"]["merged"]), ("copy", []))
        self.assertEqual(self.run_merge("--merge-lora", self.path, "--merge-lora-partial")["merge"], expected)
        self.assertIsNone(qmill_json("plan", self.source)["merge"])

    def test_the_size_is_that_of_the_plan_and_of_the_run_without(self):
        flags = ["--exclude-layers", r"\.k\.|half"]
        planned = qmill_json("plan", self.source, *flags, "--merge-lora", self.path, "--merge-lora-partial")["output_bytes"]
        qmill("-i", self.source, "-o", self.output, *flags, "--merge-lora", self.path, "--merge-lora-partial")
        self.assertEqual(self.output.stat().st_size, planned)
        tensors = sum(t.nbytes for t in read(self.output)[0].values())
        qmill("-i", self.source, "-o", self.output, "--overwrite", *flags)
        self.assertEqual(sum(t.nbytes for t in read(self.output)[0].values()), tensors)

    def test_people_are_told(self):
        out, _ = qmill("plan", self.source, "--merge-loras", self.path, f"{self.path}:0.5", "--merge-lora-partial", "--exclude-layers", r"\.k\.|half")
        for part in ("lora.safetensors at 1: 2 layers (2 lora), 2 tensors unmatched, 1 without alpha", "lora.safetensors at 0.45: 2 layers",
                     "[primary; merged]", "; merged]", "gone.lora_A.weight"):
            self.assertIn(part, out)
        out, _ = qmill("-i", self.source, "-o", self.output, "--merge-lora", self.path, "--merge-lora-partial")
        self.assertIn("lora.safetensors at 1: 2 layers (2 lora), 2 tensors unmatched", out)
        self.assertIn("gone.lora_A.weight", out)

    def test_the_file_says_what_was_merged_without_folders(self):
        other = self.lora(lora("blocks.0.q", seed=3), "other.safetensors")
        self.run_merge("--merge-loras", f"{other}:0.5", "--merge-lora", self.path, "--merge-lora-scale", "0.7", "--no-merge-lora-dampen", "--merge-lora-partial")
        metadata = read(self.output)[1]
        options = json.loads(metadata["qmill.options"])
        self.assertEqual(options["merge-loras"], "other.safetensors:0.5")
        self.assertEqual(options["merge-lora"], "lora.safetensors")
        self.assertEqual((options["merge-lora-scale"], options["merge-lora-dampen"]), ("0.7", "off"))
        self.assertNotIn(str(self.folder), json.dumps(metadata))

    def test_tensors_that_a_filter_removes_are_said(self):
        self.weights |= {"decoder.block.0.layer.0.q.weight": random(N, K), "encoder.block.0.layer.0.SelfAttention.q.weight": random(N, K)}
        self.source = self.save_source("")
        path = self.lora(lora("decoder.block.0.layer.0.q") | lora("encoder.block.0.layer.0.SelfAttention.q"))
        plan = qmill_json("plan", self.source, "--merge-lora", path, "--t5xxl")
        self.assertTrue(any("removed" in warning and "decoder.block.0.layer.0.q.weight" in warning for warning in plan["warnings"]), plan["warnings"])


class Refusals(Model):
    def test_command_lines(self):
        path = self.lora(lora())
        for flags in (["--merge-lora-scale", "2"], ["--no-merge-lora-dampen"], ["--merge-lora", path, "--merge-lora-scale", "x"],
                      ["--merge-lora", path, "--merge-lora-scale", "nan"], ["--merge-lora", ""], ["--merge-lora", path, "--merge-lora", path],
                      ["--merge-lora", f"{path}:inf"], ["--merge-loras"]):
            with self.subTest(flags):
                self.refused(*flags, status=2)

    def test_the_output_may_not_be_a_lora(self):
        path = self.lora(lora())
        before = path.read_bytes()
        _, error = qmill("-i", self.source, "-o", path, "--overwrite", "--merge-lora", path, status=2)
        self.assertIn("same file", error)
        self.assertEqual(path.read_bytes(), before)

    def test_files_that_cannot_be_used(self):
        a, b = random(4, K), random(N, 4)
        q = "blocks.0.q"
        nan = a.clone()
        nan[1, 2] = float("nan")
        one = torch.tensor(1.0)
        good = self.lora(lora(), "good.safetensors").read_bytes()
        def header(entries):
            text = json.dumps(entries).encode()
            return struct.pack("<Q", len(text)) + text
        huge = {f"{q}.lora_A.weight": {"dtype": "F32", "shape": [1 << 40, K], "data_offsets": [0, (K << 40) * 4]}}
        w1, w2 = random(4, 2), random(N // 4, K // 2)
        cases = {
            "missing": (None, ["missing"]),
            "missing.safetensors:0.5x": (None, ["missing.safetensors:0.5x"]),
            "cut": (good[:-7], ["cut"]),
            "short": (good[:40], ["short"]),
            "empty": (b"", ["empty"]),
            "pickle": (b"\x80\x02}q\x00.", ["pickle"]),
            "huge": (header(huge), ["huge"]),
            "none": ({"x.lora_A.weight": a, "x.lora_B.weight": b}, ["no layer", "x.lora_A.weight"]),
            "nothing": ({"note": one}, ["no layer", "note"]),
            "alone": ({f"{q}.lora_A.weight": a}, [f"{q}.lora_A.weight", "no partner"]),
            "other": ({f"{q}.lora_B.weight": b}, [f"{q}.lora_B.weight", "no partner"]),
            "rank": ({f"{q}.lora_A.weight": a, f"{q}.lora_B.weight": random(N, 3)}, [f"{q}.lora_A.weight", "4 x 32", "24 x 3"]),
            "rows": ({f"{q}.lora_A.weight": a, f"{q}.lora_B.weight": random(N + 1, 4)}, [f"{q}.lora_A.weight", "25 x 32", "24 x 32"]),
            "columns": ({f"{q}.lora_A.weight": random(4, K - 1), f"{q}.lora_B.weight": b}, ["24 x 31", "24 x 32"]),
            "turned": ({f"{q}.lora_A.weight": b, f"{q}.lora_B.weight": a}, [f"{q}.lora_A.weight"]),
            "vector": ({f"{q}.lora_A.weight": random(K), f"{q}.lora_B.weight": random(N)}, ["low-rank"]),
            "zero": ({f"{q}.lora_A.weight": torch.zeros(0, K), f"{q}.lora_B.weight": torch.zeros(N, 0)}, [f"{q}.lora_"]),
            "whole numbers": ({f"{q}.lora_A.weight": a.int(), f"{q}.lora_B.weight": b}, ["I32"]),
            "nan": ({f"{q}.lora_A.weight": nan, f"{q}.lora_B.weight": b}, [f"{q}.lora_A.weight", "not finite"]),
            "infinite": ({f"{q}.lora_A.weight": a, f"{q}.lora_B.weight": b / 0}, [f"{q}.lora_B.weight", "not finite"]),
            "alpha nan": ({f"{q}.lora_A.weight": a, f"{q}.lora_B.weight": b, f"{q}.alpha": one * float("nan")}, [f"{q}.alpha", "not finite"]),
            "alpha two": ({f"{q}.lora_A.weight": a, f"{q}.lora_B.weight": b, f"{q}.alpha": random(2)}, [f"{q}.alpha"]),
            "two spellings": ({f"{q}.lora_A.weight": a, f"{q}.lora_B.weight": b, f"transformer.{q}.lora_A.weight": a, f"transformer.{q}.lora_B.weight": b},
                              ["both the layer"]),
            "two adapters": ({f"{q}.lora_A.one.weight": a, f"{q}.lora_A.two.weight": a}, ["same matrix"]),
            "two kinds": ({f"{q}.lora_A.weight": a, f"{q}.lora_B.weight": b, f"{q}.diff": random(N, K)}, ["2 kinds"]),
            "dora alone": ({f"{q}.dora_scale": random(N)}, [f"{q}.dora_scale", "no partner"]),
            "dora shape": ({f"{q}.lora_A.weight": a, f"{q}.lora_B.weight": b, f"{q}.dora_scale": random(7)}, [f"{q}.dora_scale", "norm"]),
            "dora peft columns": ({f"{q}.lora_A.weight": a, f"{q}.lora_B.weight": b, f"{q}.lora_magnitude_vector": random(K)}, ["magnitude"]),
            "loha part": ({f"{q}.hada_w1_a": random(N, 2), f"{q}.hada_w1_b": random(2, K), f"{q}.hada_w2_a": random(N, 2)}, ["no partner"]),
            "loha shape": ({f"{q}.hada_w1_a": random(N, 2), f"{q}.hada_w1_b": random(2, K), f"{q}.hada_w2_a": random(N, 2), f"{q}.hada_w2_b": random(2, 3)},
                           ["hada_w1_a", "different shapes"]),
            "loha rank": ({f"{q}.hada_w1_a": random(N, 2), f"{q}.hada_w1_b": random(3, K), f"{q}.hada_w2_a": random(N, 2), f"{q}.hada_w2_b": random(2, K)},
                          ["hada_w1_a", "no product"]),
            "loha core": ({f"{q}.hada_w1_a": random(2, N), f"{q}.hada_w1_b": random(2, K), f"{q}.hada_w2_a": random(2, N), f"{q}.hada_w2_b": random(2, K),
                           f"{q}.hada_t1": random(2, 2, 1, 1)}, ["hada_t1", "no partner"]),
            "lokr part": ({f"{q}.lokr_w1": w1}, ["lokr_w2"]),
            "lokr both": ({f"{q}.lokr_w1": w1, f"{q}.lokr_w1_a": w1, f"{q}.lokr_w2": w2}, ["lokr_w1"]),
            "lokr shape": ({f"{q}.lokr_w1": w1, f"{q}.lokr_w2": random(5, 5)}, ["20 x 10", "24 x 32"]),
            "diff shape": ({f"{q}.diff": random(K, N)}, [f"{q}.diff", "24 x 32"]),
            "bias shape": ({"blocks.0.k.diff_b": random(N + 1)}, ["blocks.0.k.diff_b"]),
            "conv": ({"conv.lora_down.weight": random(2, 5, 3, 3), "conv.lora_up.weight": random(8, 2, 1, 1)}, ["conv.lora_down.weight", "8 x 45"]),
            "conv mid": ({"conv.lora_down.weight": random(2, 6, 1, 1), "conv.lora_up.weight": random(8, 2, 1, 1), "conv.lora_mid.weight": random(2, 3, 3, 3)},
                         ["conv.lora_mid.weight"]),
            "mid alone": ({"conv.lora_mid.weight": random(2, 2, 3, 3)}, ["conv.lora_mid.weight", "no partner"]),
            "norm": ({"blocks.0.norm.lora_A.weight": random(2, 1), "blocks.0.norm.lora_B.weight": random(K, 2)}, ["blocks.0.norm.weight"]),
            "control": (lora(q) | {f"{q}.lora_B.bias": random(N)}, [f"{q}.lora_B.bias", "cannot be merged"]),
            "reshape": (lora(q) | {f"{q}.reshape_weight": random(2)}, [f"{q}.reshape_weight", "cannot be merged"]),
            "oft": ({f"{q}.oft_blocks": random(2, 2, 2)}, [f"{q}.oft_blocks", "cannot be merged"]),
            "glora": ({f"{q}.a1.weight": a, f"{q}.b1.weight": a}, ["cannot be merged"]),
        }
        for name, (content, parts) in cases.items():
            with self.subTest(name):
                path = self.folder / (name if "." in name else f"{name}.safetensors")
                if isinstance(content, bytes):
                    path.write_bytes(content)
                elif content is not None:
                    save_file({n: t.clone().contiguous() for n, t in content.items()}, path)
                error = self.refused("--merge-lora", path)
                self.assertIn(path.name, error)
                for part in parts:
                    self.assertIn(part, error)

    def test_one_bad_file_among_good_ones_is_an_error(self):
        good, bad = self.lora(lora(), "good.safetensors"), self.lora(lora("x"), "bad.safetensors")
        for files in ([good, bad], [bad, good], [good, self.folder / "gone.safetensors"]):
            self.assertIn(next(f.name for f in files if f != good), self.refused("--merge-loras", *files))

    def test_metadata_that_cannot_be_read(self):
        for metadata, part in (({"blocks_0_q_alpha": "x"}, "blocks_0_q_alpha"), ({"blocks_0_q_alpha": "inf"}, "finite"), ({"blocks_0_q_alpha": "1 "}, "number"),
                               ({"lora_adapter_metadata": "{"}, "JSON"), ({"lora_adapter_metadata": '{"lora_alpha": true}'}, "lora_alpha"),
                               ({"lora_adapter_metadata": '{"use_rslora": 1}'}, "use_rslora"), ({"lora_adapter_metadata": '{"alpha_pattern": [1]}'}, "alpha_pattern"),
                               ({"lora_adapter_metadata": '{"fan_in_fan_out": true}'}, "fan_in_fan_out")):
            with self.subTest(metadata):
                error = self.refused("--merge-lora", self.lora(lora(), metadata=metadata))
                self.assertIn("lora.safetensors", error)
                self.assertIn(part, error)

    def test_integers_and_quantized_models_are_refused(self):
        self.weights["blocks.0.q.weight"] = torch.ones(N, K, dtype=torch.int8)
        self.source = self.save_source(PREFIX)
        self.assertIn("blocks.0.q.weight", self.refused("--merge-lora", self.lora(lora())))
