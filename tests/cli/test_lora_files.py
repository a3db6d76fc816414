"""LoRA files as people have them: parts of fused layers, files for several models, alpha in the header, sizes that differ."""

import json

import torch
from safetensors.torch import save_file

from support import TempFolder, qmill, qmill_json, read

D, RANK = 16, 4


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + 1000 * sum(shape)))


def pair(name, rows, columns, seed=0, ends=("lora_A.weight", "lora_B.weight")):
    return {f"{name}.{ends[0]}": random(RANK, columns, seed=seed), f"{name}.{ends[1]}": random(rows, RANK, seed=seed + 1)}


KOHYA = ("lora_down.weight", "lora_up.weight")


def flux(wide=0):
    weights = {"img_in.weight": random(D, 8 + wide, seed=1), "img_in.bias": random(D, seed=2), "txt_in.weight": random(D, 12, seed=3),
               "final_layer.linear.weight": random(8, D, seed=4), "final_layer.adaLN_modulation.1.weight": random(2 * D, D, seed=5),
               "final_layer.adaLN_modulation.1.bias": random(2 * D, seed=6)}
    for i in range(2):
        block = f"double_blocks.{i}"
        for at, stream in enumerate(("img", "txt")):
            seed = 100 * i + 10 * at
            weights |= {f"{block}.{stream}_attn.qkv.weight": random(3 * D, D, seed=seed), f"{block}.{stream}_attn.qkv.bias": random(3 * D, seed=seed),
                        f"{block}.{stream}_attn.proj.weight": random(D, D, seed=seed), f"{block}.{stream}_attn.norm.key_norm.scale": random(4, seed=seed),
                        f"{block}.{stream}_mlp.0.weight": random(4 * D, D, seed=seed), f"{block}.{stream}_mlp.2.weight": random(D, 4 * D, seed=seed)}
        weights |= {f"single_blocks.{i}.linear1.weight": random(7 * D, D, seed=i), f"single_blocks.{i}.linear2.weight": random(D, 5 * D, seed=i)}
    return weights


def z_image():
    weights = {"cap_embedder.1.weight": random(3840, 4), "noise_refiner.0.attention.k_norm.weight": random(4), "x_pad_token": random(1, D),
               "cap_pad_token": random(1, D)}
    for i in range(2):
        block = f"layers.{i}"
        weights |= {f"{block}.attention.qkv.weight": random(3 * D, D, seed=i), f"{block}.attention.out.weight": random(D, D, seed=i),
                    f"{block}.feed_forward.w1.weight": random(2 * D, D, seed=i), f"{block}.feed_forward.w2.weight": random(D, 2 * D, seed=i)}
    return weights


def clip(width, layers=2, prefix=""):
    weights = {f"{prefix}text_model.embeddings.token_embedding.weight": random(20, width)}
    for i in range(layers):
        layer = f"{prefix}text_model.encoder.layers.{i}"
        weights |= {f"{layer}.mlp.fc1.weight": random(4 * width, width, seed=i), f"{layer}.mlp.fc2.weight": random(width, 4 * width, seed=i),
                    f"{layer}.self_attn.q_proj.weight": random(width, width, seed=i)}
    return weights


def clip_lora(prefix, width, underscored=True, seed=0):
    tensors = {}
    for i in range(2):
        for name, rows, columns in (("mlp.fc1", 4 * width, width), ("mlp.fc2", width, 4 * width), ("self_attn.q_proj", width, width)):
            layer = f"text_model.encoder.layers.{i}.{name}"
            tensors |= pair(prefix + (layer.replace(".", "_") if underscored else layer), rows, columns, seed, KOHYA)
    return tensors


class Merging(TempFolder):
    def setUp(self):
        super().setUp()
        self.output = self.folder / "out.safetensors"

    def use(self, weights):
        """Of the model everything is stored as it is but for `extra`, because a run without any layer to quantize is refused."""
        self.weights = weights
        self.source = self.model({name: tensor.clone() for name, tensor in weights.items()} | {"extra.weight": random(4, 4)})

    def lora(self, tensors, metadata=None, name="lora.safetensors"):
        return self.model({n: t.clone().contiguous() for n, t in tensors.items()}, name, metadata)

    def merge(self, tensors, *flags, metadata=None):
        path = tensors if not isinstance(tensors, dict) else self.lora(tensors, metadata)
        report = qmill_json("-i", self.source, "-o", self.output, "--overwrite", "--exclude-layers", "^(?!extra)", "--target", "any", "--merge-lora", path, *flags)
        self.stored = read(self.output)[0]
        self.warnings = report["warnings"]
        return report["merge"]["files"][0]

    def refuse(self, tensors, *flags, says=(), metadata=None, status=1):
        path = tensors if not isinstance(tensors, dict) else self.lora(tensors, metadata)
        self.output.unlink(missing_ok=True)
        self.refused("-i", self.source, "-o", self.output, "--exclude-layers", "^(?!extra)", "--target", "any", "--merge-lora", path, *flags, says=says, status=status)

    def assert_changed(self, **changes):
        """By name of a tensor: a list of (first row, change); all other tensors are as they were."""
        for name, weight in self.weights.items():
            expected = weight.double().clone()
            for first, change in changes.get(name, ()):
                rows = expected[first : first + change.shape[0]]
                rows += change.reshape(rows.shape)
            error = (self.stored[name].double() - expected).abs().max() / expected.abs().max()
            self.assertLess(error.item(), 1e-5, name)
            if name not in changes:
                self.assertTrue(torch.equal(self.stored[name], weight), name)


def delta(tensors, name, ends=("lora_A.weight", "lora_B.weight")):
    return tensors[f"{name}.{ends[1]}"].double() @ tensors[f"{name}.{ends[0]}"].double()


class PartsOfFusedLayers(Merging):
    def test_flux_with_diffusers_names(self):
        self.use(flux())
        tensors, changes = {}, {}
        def add(name, target, first, rows, columns):
            nonlocal tensors
            tensors |= pair(f"transformer.{name}", rows, columns, len(tensors))
            changes.setdefault(f"{target}.weight", []).append((first, delta(tensors, f"transformer.{name}")))
        for i in range(2):
            theirs, ours = f"transformer_blocks.{i}", f"double_blocks.{i}"
            for at, x in enumerate("qkv"):
                add(f"{theirs}.attn.to_{x}", f"{ours}.img_attn.qkv", at * D, D, D)
                add(f"{theirs}.attn.add_{x}_proj", f"{ours}.txt_attn.qkv", at * D, D, D)
                add(f"single_transformer_blocks.{i}.attn.to_{x}", f"single_blocks.{i}.linear1", at * D, D, D)
            add(f"{theirs}.attn.to_out.0", f"{ours}.img_attn.proj", 0, D, D)
            add(f"{theirs}.attn.to_add_out", f"{ours}.txt_attn.proj", 0, D, D)
            add(f"{theirs}.ff.net.0.proj", f"{ours}.img_mlp.0", 0, 4 * D, D)
            add(f"{theirs}.ff.net.2", f"{ours}.img_mlp.2", 0, D, 4 * D)
            add(f"single_transformer_blocks.{i}.proj_mlp", f"single_blocks.{i}.linear1", 3 * D, 4 * D, D)
            add(f"single_transformer_blocks.{i}.proj_out", f"single_blocks.{i}.linear2", 0, D, 5 * D)
        account = self.merge(tensors)
        self.assert_changed(**changes)
        self.assertEqual((account["unmatched"], account["for_other_models"]), ([], []))
        self.assertEqual(account["kinds"], {"lora": 2 * 15})
        self.assertEqual(len(account["layers"]), 2 * 8)

    def test_a_part_alone_changes_its_rows_and_no_others(self):
        self.use(flux())
        name = "transformer.transformer_blocks.1.attn.to_k"
        tensors = pair(name, D, D)
        self.merge(tensors)
        self.assert_changed(**{"double_blocks.1.img_attn.qkv.weight": [(D, delta(tensors, name))]})

    def test_queries_keys_and_values_in_one_without_the_mlp(self):
        self.use(flux())
        name = "diffusion_model.single_blocks.1.linear1_qkv"
        tensors = pair(name, 3 * D, D)
        self.merge(tensors)
        self.assert_changed(**{"single_blocks.1.linear1.weight": [(0, delta(tensors, name))]})

    def test_z_image_in_the_spellings_of_three_trainers(self):
        self.use(z_image())
        parts = (("attention.to_q", "attention.qkv", 0, D, D), ("attention.to_k", "attention.qkv", D, D, D), ("attention.to_v", "attention.qkv", 2 * D, D, D),
                 ("attention.to_out.0", "attention.out", 0, D, D), ("feed_forward.w1", "feed_forward.w1", 0, 2 * D, D),
                 ("feed_forward.w2", "feed_forward.w2", 0, D, 2 * D))
        under = lambda name: name.replace(".", "_")
        for spelling, ends in ((lambda n: f"diffusion_model.{n}", ("lora_A.weight", "lora_B.weight")), (lambda n: f"lora_unet_{under(n)}", KOHYA),
                               (lambda n: f"transformer.{n}", ("lora.down.weight", "lora.up.weight")), (lambda n: f"lycoris_{under(n)}", KOHYA),
                               (lambda n: f"base_model.model.{n}", ("lora_A.default.weight", "lora_B.default.weight"))):
            tensors, changes = {}, {}
            for i in range(2):
                for theirs, ours, first, rows, columns in parts:
                    name = spelling(f"layers.{i}.{theirs}")
                    tensors |= pair(name, rows, columns, len(tensors), ends)
                    changes.setdefault(f"layers.{i}.{ours}.weight", []).append((first, delta(tensors, name, ends)))
            with self.subTest(next(iter(tensors))):
                account = self.merge(tensors)
                self.assert_changed(**changes)
                self.assertEqual(account["unmatched"], [])

    def test_the_whole_layer_and_a_part_of_it_contradict_each_other(self):
        self.use(z_image())
        parts = {k: v for x in "qkv" for k, v in pair(f"diffusion_model.layers.0.attention.to_{x}", D, D).items()}
        self.refuse(parts | pair("diffusion_model.layers.0.attention.qkv", 3 * D, D), says=["attention.qkv", "attention.to_", "row"])
        self.refuse(parts | pair("transformer.layers.0.attention.to_k", D, D), says=["attention.to_k", f"row {D} of", "layers.0.attention.qkv"])

    def test_every_kind_of_change_of_a_part(self):
        self.use(flux())
        theirs, target, first = "transformer.transformer_blocks.0.attn.to_v", "double_blocks.0.img_attn.qkv", 2 * D
        loha = {n: random(*s, seed=i) for i, (n, s) in enumerate({"w1_a": (D, 3), "w1_b": (3, D), "w2_a": (D, 2), "w2_b": (2, D)}.items())}
        w1, w2 = random(4, 2), random(D // 4, D // 2)
        for tensors, change in (
            ({f"{theirs}.hada_{n}": t for n, t in loha.items()},
             (loha["w1_a"].double() @ loha["w1_b"].double()) * (loha["w2_a"].double() @ loha["w2_b"].double())),
            ({f"{theirs}.lokr_w1": w1, f"{theirs}.lokr_w2": w2}, torch.kron(w1.double(), w2.double())),
            ({f"{theirs}.diff": random(D, D)}, random(D, D).double()),
        ):
            with self.subTest(list(tensors)):
                self.merge(tensors)
                self.assert_changed(**{f"{target}.weight": [(first, change)]})
        bias = random(D, seed=3)
        self.merge({f"{theirs}.diff_b": bias})
        self.assert_changed(**{f"{target}.bias": [(first, bias.double())]})

    def test_the_norms_of_a_part_are_of_its_own_rows(self):
        self.use(flux())
        theirs, target = "transformer.single_transformer_blocks.0.attn.to_k", "single_blocks.0.linear1.weight"
        tensors = pair(theirs, D, D)
        weight = self.weights[target].double()[D : 2 * D]
        changed = weight + delta(tensors, theirs)
        for magnitude, dim in ((random(D, 1).abs() + 1, 1), (random(1, D).abs() + 1, 0)):
            for strength in (1.0, 0.5):
                self.merge(tensors | {f"{theirs}.dora_scale": magnitude}, "--merge-lora-scale", strength)
                wanted = changed * magnitude.double() / changed.square().sum(dim, keepdim=True).sqrt()
                self.assert_changed(**{target: [(D, strength * (wanted - weight))]})

    def test_scale_and_shift_change_places(self):
        self.use(flux())
        theirs, target = "transformer.norm_out.linear", "final_layer.adaLN_modulation.1"
        swapped = lambda t: torch.cat((t[D:], t[:D]))
        tensors = pair(theirs, 2 * D, D) | {f"{theirs}.diff_b": random(2 * D)}
        change = swapped(delta(tensors, theirs))
        self.merge(tensors)
        self.assert_changed(**{f"{target}.weight": [(0, change)], f"{target}.bias": [(0, swapped(random(2 * D).double()))]})
        magnitude = random(2 * D, 1, seed=4).abs() + 1
        tensors = pair(theirs, 2 * D, D) | {f"{theirs}.dora_scale": magnitude}
        self.merge(tensors)
        weight = self.weights[f"{target}.weight"].double()
        changed = weight + change
        wanted = changed * swapped(magnitude.double()) / changed.square().sum(1, keepdim=True).sqrt()
        self.assert_changed(**{f"{target}.weight": [(0, wanted - weight)]})
        # By the model's own name nothing changes places.
        own = pair("lora_unet_final_layer_adaLN_modulation_1", 2 * D, D, ends=KOHYA)
        self.merge(own)
        self.assert_changed(**{f"{target}.weight": [(0, delta(own, "lora_unet_final_layer_adaLN_modulation_1", KOHYA))]})

    def test_a_layer_counts_once_when_one_part_changes_its_weight_and_one_its_bias(self):
        self.use(flux())
        theirs, ours = "transformer.transformer_blocks.0.attn.to", "double_blocks.0.img_attn.qkv"
        tensors, bias = pair(f"{theirs}_q", D, D), random(D, seed=3)
        account = self.merge(tensors | {f"{theirs}_k.diff_b": bias})
        self.assert_changed(**{f"{ours}.weight": [(0, delta(tensors, f"{theirs}_q"))], f"{ours}.bias": [(D, bias.double())]})
        self.assertEqual((account["layers"], account["kinds"]), ([ours], {"bias": 1, "lora": 1}))

    def test_a_bias_of_one_value_has_no_parts(self):
        self.use(flux() | {"double_blocks.0.img_attn.qkv.bias": torch.tensor(1.0)})
        self.refuse({"transformer.transformer_blocks.0.attn.to_q.diff_b": random(1)}, says=["rows 0 to 15", "double_blocks.0.img_attn.qkv.bias"])

    def test_rows_of_another_size_are_named(self):
        self.use(flux())
        self.refuse(pair("transformer.transformer_blocks.0.attn.to_k", D + 1, D), says=["17 x 16", "rows 16 to 31", "double_blocks.0.img_attn.qkv.weight"])

    def test_a_packs_names_are_read_for_its_architecture_alone(self):
        self.use(z_image())
        self.refuse(pair("transformer.transformer_blocks.0.attn.to_q", D, D), says=["no layer", "transformer_blocks.0.attn.to_q"])
        self.use({name: weight for name, weight in flux().items() if "norm" not in name})  # which no fingerprint fits
        self.refuse(pair("transformer.transformer_blocks.0.attn.to_q", D, D), says=["no layer", "not recognised"])


class Complete(Merging):
    """Never half a LoRA, unless that is asked for."""

    def setUp(self):
        super().setUp()
        self.use(flux())
        self.good = pair("transformer.transformer_blocks.0.attn.to_out.0", D, D)
        self.changed = {"double_blocks.0.img_attn.proj.weight": [(0, delta(self.good, "transformer.transformer_blocks.0.attn.to_out.0"))]}

    def test_a_layer_that_the_model_does_not_have(self):
        more = pair("transformer.transformer_blocks.9.attn.to_q", D, D)
        self.refuse(self.good | more, says=["transformer_blocks.9.attn.to_q", "1 more tensor", "--merge-lora-partial"])
        account = self.merge(self.good | more, "--merge-lora-partial")
        self.assert_changed(**self.changed)
        self.assertEqual(account["unmatched"], sorted(more))
        self.assertTrue(any("2 tensors" in warning for warning in self.warnings), self.warnings)

    def test_what_else_may_not_be_left_behind(self):
        for more in ({"transformer.transformer_blocks.0.attn.norm_q.strange": random(4)}, {"single_blocks.0.norm.key_norm.set": random(4)},
                     {"transformer.transformer_blocks.0.attn.to_out.0.diff_b": random(D)}, {"transformer.transformer_blocks.0.attn.to_out.0.scale": random(1)},
                     {"transformer.transformer_blocks.0.attn.to_out.0.lora.scale": random(1)},
                     {"transformer.gone.diff": random(D)}):
            with self.subTest(list(more)):
                self.refuse(self.good | more, says=[next(iter(more)), "only a part"])
                self.merge(self.good | more, "--merge-lora-partial")
                self.assert_changed(**self.changed)

    def test_leftovers_that_say_nothing_are_no_error(self):
        more = {"transformer.transformer_blocks.9.attn.to_q.alpha": torch.tensor(1.0), "note": torch.ones(1), "bundle_emb.style.string": random(3, D)}
        account = self.merge(self.good | more)
        self.assert_changed(**self.changed)
        self.assertEqual(account["unmatched"], sorted(more, key=lambda n: (n.endswith("alpha"), n)))

    def test_sizes_that_differ_are_left_out_on_request(self):
        self.use(flux(wide=24))
        tensors = pair("lora_unet_img_in", D, 8, ends=KOHYA) | pair("lora_unet_double_blocks_1_img_attn_qkv", 3 * D, D, ends=KOHYA)
        self.refuse(tensors, says=["lora_unet_img_in.lora_down.weight", "16 x 8", "'img_in.weight' 16 x 32", "--merge-lora-skip-mismatched"])
        account = self.merge(tensors, "--merge-lora-skip-mismatched")
        self.assertEqual((account["mismatched"], account["layers"]), (["img_in"], ["double_blocks.1.img_attn.qkv"]))
        self.assert_changed(**{"double_blocks.1.img_attn.qkv.weight": [(0, delta(tensors, "lora_unet_double_blocks_1_img_attn_qkv", KOHYA))]})
        self.assertTrue(any("img_in" in warning and "size" in warning for warning in self.warnings), self.warnings)
        out, _ = qmill("plan", self.source, "--merge-lora", self.folder / "lora.safetensors", "--merge-lora-skip-mismatched")
        self.assertIn("1 layer of another size left out", out)
        self.refuse(pair("lora_unet_img_in", D, 8, ends=KOHYA), "--merge-lora-skip-mismatched", says=["no layer", "img_in"])

    def test_a_layer_with_several_parts_of_another_size_is_listed_once(self):
        names = [f"transformer.transformer_blocks.0.attn.to_{x}" for x in ("k", "out.0", "q", "v")]
        qkv, proj = "double_blocks.0.img_attn.qkv", "double_blocks.0.img_attn.proj"
        wrong = {n: t for name in names for n, t in pair(name, D, D + 1).items()}
        good = pair("transformer.proj_out", 8, D)
        changed = {"final_layer.linear.weight": [(0, delta(good, "transformer.proj_out"))]}
        account = self.merge(wrong | good, "--merge-lora-skip-mismatched")
        self.assertCountEqual(account["mismatched"], [qkv, proj])
        self.assertEqual(account["layers"], ["final_layer.linear"])
        self.assert_changed(**changed)
        # The parts that fit are merged.
        right = pair(names[2], D, D)
        account = self.merge(wrong | good | right, "--merge-lora-skip-mismatched")
        self.assertCountEqual(account["mismatched"], [qkv, proj])
        self.assertCountEqual(account["layers"], ["final_layer.linear", qkv])
        self.assert_changed(**changed, **{f"{qkv}.weight": [(0, delta(right, names[2]))]})

    def test_flags_without_a_lora_are_refused(self):
        for flag in ("--merge-lora-partial", "--merge-lora-skip-mismatched"):
            self.refused("-i", self.source, "-o", self.output, flag, says=[flag, "--merge-lora"], status=2)

    def test_a_lora_that_does_nothing_is_said(self):
        path = self.lora(self.good)
        self.merge(path, "--merge-lora-scale", "0")
        self.assertTrue(any("changes nothing" in w and "strength is 0" in w for w in self.warnings), self.warnings)
        self.merge(f"{path}:0")
        self.assertTrue(any("changes nothing" in w and "lora.safetensors" in w for w in self.warnings), self.warnings)
        zero = {"transformer.transformer_blocks.0.attn.to_out.0.alpha": torch.tensor(0.0)}
        self.assertEqual(self.merge(self.good | zero)["unaffected"], 1)
        self.assert_changed()
        self.assertTrue(any("changes nothing" in w and "alpha is 0" in w for w in self.warnings), self.warnings)
        self.merge(self.good | zero | pair("transformer.proj_out", 8, D))
        self.assertTrue(any("leaves 1 layer unchanged" in w for w in self.warnings), self.warnings)
        self.assertEqual(self.merge(self.good)["unaffected"], 0)
        self.assertFalse(any("is 0" in w for w in self.warnings), self.warnings)


class SeveralModels(Merging):
    def changes(self, tensors, prefix, ours="", underscored=True):
        found = {}
        for name in tensors:
            if name.startswith(prefix) and name.endswith(".lora_up.weight"):
                layer = name.removesuffix(".lora_up.weight")
                for target in self.weights:
                    own = target.removeprefix(ours).removesuffix(".weight")
                    if target.startswith(ours) and layer == prefix + (own.replace(".", "_") if underscored else own):
                        found[target] = [(0, delta(tensors, layer, KOHYA))]
        self.assertEqual(len(found), 6)
        return found

    def test_a_file_for_a_unet_and_two_encoders_merged_into_one_of_them(self):
        unet = pair("lora_unet_input_blocks_4_1_proj_in", 8, 8, ends=KOHYA)
        for dotted, prefixes in ((False, ("lora_te1_", "lora_te2_")), (True, ("text_encoder.", "text_encoder_2.")), (True, ("te1.", "te2."))):
            tensors = clip_lora(prefixes[0], 8, not dotted) | clip_lora(prefixes[1], 12, not dotted, seed=50) | unet
            for width, own, other in ((8, *prefixes), (12, *reversed(prefixes))):
                with self.subTest(prefix=own, width=width):
                    self.use(clip(width))
                    account = self.merge(tensors)
                    self.assert_changed(**self.changes(tensors, own, underscored=not dotted))
                    self.assertEqual(set(account["for_other_models"]), {n for n in tensors if n.startswith((other, "lora_unet"))})
                    self.assertEqual(account["unmatched"], [])

    def test_nothing_left_for_this_model_is_an_error(self):
        self.use(clip(8))
        self.refuse(clip_lora("lora_te2_", 12), says=["changes no layer", "text encoder 2", "lora_te2_"])
        self.refuse(pair("lora_unet_input_blocks_4_1_proj_in", 8, 8, ends=KOHYA), says=["changes no layer", "a diffusion model"])
        self.refuse(clip_lora("lora_te1_", 12), says=["lora_te1_", "48 x 12"])
        self.use(flux())
        self.refuse(clip_lora("lora_te_", 8), says=["changes no layer", "a text encoder"])

    def test_parts_for_encoders_are_no_error_for_a_diffusion_model(self):
        self.use(flux())
        name = "lora_transformer_transformer_blocks_0_attn_to_k"
        tensors = clip_lora("lora_te1_", 8) | pair("lora_te2_encoder_block_0_layer_0_SelfAttention_q", 8, 8, ends=KOHYA) | pair(name, D, D, ends=KOHYA)
        account = self.merge(tensors)
        self.assert_changed(**{"double_blocks.0.img_attn.qkv.weight": [(D, delta(tensors, name, KOHYA))]})
        self.assertEqual(set(account["for_other_models"]), {n for n in tensors if n.startswith("lora_te")})
        out, _ = qmill("plan", self.source, "--merge-lora", self.folder / "lora.safetensors")
        self.assertIn("14 for other models", out)

    def test_half_of_an_encoder_is_an_error(self):
        self.use(clip(8, layers=1))
        self.refuse(clip_lora("lora_te1_", 8), says=["layers_1_", "only a part", "--merge-lora-partial"])
        self.refuse(clip_lora("lora_te1_", 8) | clip_lora("lora_te2_", 12), says=["lora_te1_text_model_encoder_layers_1_"])

    def test_a_checkpoint_gets_all_parts(self):
        first, second = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
        weights = {f"model.diffusion_model.{n}": t for n, t in {"input_blocks.0.0.weight": random(4, 4, 3, 3), "label_emb.0.0.weight": random(4, 2816),
                                                               "input_blocks.4.1.proj_in.weight": random(8, 8)}.items()}
        weights |= clip(8, prefix=first)
        for i in range(2):
            block = f"{second}transformer.resblocks.{i}"
            weights |= {f"{block}.attn.in_proj_weight": random(36, 12, seed=i), f"{block}.attn.in_proj_bias": random(36, seed=i),
                        f"{block}.attn.out_proj.weight": random(12, 12, seed=i), f"{block}.mlp.c_fc.weight": random(48, 12, seed=i),
                        f"{block}.mlp.c_proj.weight": random(12, 48, seed=i)}
        weights[f"{second}text_projection"] = random(12, 12, seed=8)
        self.use(weights)
        under = lambda name: name.replace(".", "_")
        for encoder, unet in ((lambda n, layer: f"lora_te{n}_{under(layer)}", "lora_unet_down_blocks_1_attentions_0_proj_in"),
                              (lambda n, layer: f"text_encoder{'_2' if n == 2 else ''}.{layer}", "unet.down_blocks.1.attentions.0.proj_in")):
            tensors = pair(unet, 8, 8, ends=KOHYA)
            changes = {"model.diffusion_model.input_blocks.4.1.proj_in.weight": [(0, delta(tensors, unet, KOHYA))]}
            def add(number, layer, target, at, rows, columns):
                nonlocal tensors
                name = encoder(number, f"text_model.encoder.layers.{layer}")
                tensors |= pair(name, rows, columns, len(tensors), KOHYA)
                changes.setdefault(target, []).append((at, delta(tensors, name, KOHYA)))
            for i in range(2):
                add(1, f"{i}.mlp.fc1", f"{first}text_model.encoder.layers.{i}.mlp.fc1.weight", 0, 32, 8)
                block = f"{second}transformer.resblocks.{i}"
                for at, x in enumerate("qkv"):
                    add(2, f"{i}.self_attn.{x}_proj", f"{block}.attn.in_proj_weight", 12 * at, 12, 12)
                add(2, f"{i}.self_attn.out_proj", f"{block}.attn.out_proj.weight", 0, 12, 12)
                add(2, f"{i}.mlp.fc1", f"{block}.mlp.c_fc.weight", 0, 48, 12)
                add(2, f"{i}.mlp.fc2", f"{block}.mlp.c_proj.weight", 0, 12, 48)
            bias = random(12, seed=9)
            tensors[f"{encoder(2, 'text_model.encoder.layers.1.self_attn.k_proj')}.diff_b"] = bias
            changes[f"{second}transformer.resblocks.1.attn.in_proj_bias"] = [(12, bias.double())]
            with self.subTest(unet):
                account = self.merge(tensors)
                self.assert_changed(**changes)
                self.assertEqual((account["unmatched"], account["for_other_models"]), ([], []))
            self.refuse(tensors | pair(encoder(2, "text_model.encoder.layers.7.mlp.fc1"), 48, 12, ends=KOHYA), says=["7", "only a part"])
            # It is stored transposed.
            self.refuse(tensors | pair(encoder(2, "text_projection"), 12, 12, ends=KOHYA), says=["text_projection", "only a part"])

    def test_encoders_of_newer_checkpoints(self):
        clip_l, t5 = "text_encoders.clip_l.transformer.", "text_encoders.t5xxl.transformer."
        own = "encoder.block.0.layer.0.SelfAttention.q"
        self.use({f"model.diffusion_model.{n}": t for n, t in flux().items()} | clip(8, prefix=clip_l) | {f"{t5}{own}.weight": random(8, 8)})
        for name in ("lora_te2_encoder_block_0_layer_0_SelfAttention_q", "lora_te3_encoder_block_0_layer_0_SelfAttention_q", f"text_encoder_2.{own}",
                     f"text_encoders.t5xxl.transformer.{own}"):
            tensors = clip_lora("lora_te1_", 8) | pair(name, 8, 8, ends=KOHYA)
            account = self.merge(tensors)
            self.assert_changed(**self.changes(tensors, "lora_te1_", clip_l), **{f"{t5}{own}.weight": [(0, delta(tensors, name, KOHYA))]})
            self.assertEqual(account["unmatched"], [])

    def test_a_language_model_as_text_encoder(self):
        layer = "layers.0.self_attn.q_proj"
        weights = {f"model.{layer}.weight": random(8, 8), "model.layers.0.self_attn.q_norm.weight": random(4), "model.layers.0.mlp.gate_proj.weight": random(16, 8)}
        self.use(weights)
        for name in ("lora_te_layers_0_self_attn_q_proj", f"text_encoder.model.{layer}", f"base_model.model.model.{layer}", f"text_encoders.qwen3_4b.transformer.model.{layer}"):
            tensors = pair(name, 8, 8, ends=KOHYA)
            self.merge(tensors | pair("lora_unet_blocks_0_self_attn_q_proj", 8, 8, ends=KOHYA))
            self.assert_changed(**{f"model.{layer}.weight": [(0, delta(tensors, name, KOHYA))]})


class AlphaInTheHeader(Merging):
    """Rank 4."""

    def setUp(self):
        super().setUp()
        self.use({"blocks.0.q.weight": random(16, 16, seed=1), "blocks.1.q.weight": random(16, 16, seed=2)})

    def merged_by(self, metadata, factor, name="transformer.blocks.0.q", source="metadata", more=()):
        tensors = pair(name, 16, 16)
        account = self.merge(tensors | dict(more), metadata=metadata)
        self.assert_changed(**{"blocks.0.q.weight": [(0, factor * delta(tensors, name))]})
        self.assertEqual(account["alpha"], {source: 1})

    def test_every_key_that_states_it(self):
        for metadata in ({"lora_alpha": "64", "rank": "4"}, {"network_alpha": "64"}, {"alpha": "64.0"}, {"ss_network_alpha": "64", "ss_network_dim": "4"},
                         {"transformer.lora_alpha": "64", "transformer.r": "4"}, {"lora_alpha": "64", "network_alpha": "64.0"},
                         {"transformer.lora_alpha": "64", "text_encoder.lora_alpha": "1", "lora_alpha": "2"},
                         {"lora_adapter_metadata": json.dumps({"transformer.r": 4, "transformer.lora_alpha": 64, "transformer.alpha_pattern": {}})}):
            with self.subTest(metadata):
                self.merged_by(metadata, 16)

    def test_names_with_underscores_find_their_component(self):
        for name in ("lora_transformer_blocks_0_q", "lora_unet_blocks_0_q"):
            self.merged_by({"transformer.lora_alpha": "64"}, 16, name)
            self.merged_by({"unet.lora_alpha": "64", "te1.lora_alpha": "3"}, 16, name)
        self.merged_by({"text_encoder_2.lora_alpha": "64", "lora_alpha": "8"}, 16, "lora_te2_blocks_0_q")
        self.merged_by({"text_encoder_2.lora_alpha": "64", "lora_alpha": "8"}, 2, "lora_te1_blocks_0_q")

    def test_the_only_component_counts_for_names_that_state_none(self):
        for name in ("blocks.0.q", "base_model.model.blocks.0.q", "lycoris_blocks_0_q"):
            with self.subTest(name):
                self.merged_by({"transformer.lora_alpha": "64"}, 16, name)
                self.merged_by({"transformer.lora_alpha": "64", "lora_alpha": "8"}, 2, name)
                self.merged_by({"transformer.lora_alpha": "64", "text_encoder.lora_alpha": "8"}, 1, name, source="rank")

    def test_what_states_nothing(self):
        for metadata in ({"ss_network_alpha": "None"}, {"ss_network_alpha": "Dynamic", "ss_network_dim": "Dynamic"}, {"text_encoder.lora_alpha": "64"},
                         {"training.alpha": "64"}, {"alphabet": "64"}, {"network_alpha": ""}):
            with self.subTest(metadata):
                self.merged_by(metadata, 1, source="rank")

    def test_what_is_nearer_comes_first(self):
        alpha = {"transformer.blocks.0.q.alpha": torch.tensor(2.0)}
        self.merged_by({"lora_alpha": "64"}, 0.5, source="tensor", more=alpha)
        self.merged_by({"lora_alpha": "64", "blocks_0_q_alpha": "8"}, 2)
        self.merged_by({"lora_alpha": "64", "lora_adapter_metadata": json.dumps({"lora_alpha": 8})}, 2)
        # A bad value that nobody asks for does not matter.
        self.merged_by({"alpha": "beta"}, 0.5, source="tensor", more=alpha)

    def test_absurd_values(self):
        for metadata, says in (({"lora_alpha": "x"}, ["lora_alpha", "'x'"]), ({"alpha": "nan"}, ["alpha", "finite"]), ({"network_alpha": "-4"}, ["network_alpha", "-4"]),
                               ({"ss_network_alpha": "1e30"}, ["ss_network_alpha", "1e+30"]), ({"lora_alpha": "64 "}, ["lora_alpha"]),
                               ({"lora_alpha": "64", "network_alpha": "32"}, ["lora_alpha", "64", "network_alpha", "32"]),
                               ({"transformer.alpha": "inf"}, ["transformer.alpha", "finite"]),
                               ({"lora_adapter_metadata": json.dumps({"lora_alpha": -8})}, ["lora_alpha", "-8"])):
            with self.subTest(metadata):
                self.refuse(pair("transformer.blocks.0.q", 16, 16), metadata=metadata, says=["lora.safetensors", *says])

    def test_the_configuration_beside_either_kind_of_peft_file(self):
        tensors = pair("base_model.model.blocks.0.q", 16, 16)
        for write in (lambda folder: save_file(tensors, folder / "adapter_model.safetensors"), lambda folder: torch.save(tensors, folder / "adapter_model.bin")):
            folder = self.folder / f"adapter{len(self.names())}"
            folder.mkdir()
            write(folder)
            (folder / "adapter_config.json").write_text(json.dumps({"lora_alpha": 64, "r": 4}))
            file = next(path for path in folder.iterdir() if path.stem == "adapter_model")
            self.assertEqual(self.merge(file)["alpha"], {"metadata": 1})
            self.assert_changed(**{"blocks.0.q.weight": [(0, 16 * delta(tensors, "base_model.model.blocks.0.q"))]})
