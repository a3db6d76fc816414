"""float8, mxfp8, nvfp4 and w4a8 as they are written: decoded here by hand, from the description of the formats."""

import json

import torch

import keys
from support import TempFolder, decode, hadamard, qmill, qmill_json, read, sqnr_db

FORMATS = ("float8_e4m3fn", "float8_e5m2", "mxfp8", "nvfp4", "asym_w4a8_int8")
SUBSTITUTES = {"mxfp8": "float8_e4m3fn", "nvfp4": "float8_e4m3fn", "asym_w4a8_int8": "int8_tensorwise"}

# Odd sides, a row alone, more rows than a scale tile of 128, more blocks than 4. For nvfp4 the rows of b are padded, for mxfp8 the columns of d
# and e.
SHAPES = {"blocks.0.a": (7, 5), "blocks.0.b": (33, 512), "blocks.0.c": (1, 16), "blocks.0.d": (64, 336), "blocks.0.e": (288, 176)}
TYPES = {"blocks.0.b": torch.bfloat16, "blocks.0.d": torch.float16}

# A vector by which a model is recognised as Wan.
WAN = {"head.modulation": torch.full((1, 2, 8), 0.5)}


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def weights():
    named = {f"{name}.weight": randn(*shape, seed=i).to(TYPES.get(name, torch.float32)) for i, (name, shape) in enumerate(SHAPES.items())}
    named["blocks.0.b.weight"][3] = 0
    named["blocks.0.e.weight"][5, 7] = 40  # alone
    named["blocks.0.e.weight"][:, 32:64] *= 1e-3
    return named | {"blocks.0.norm.weight": randn(64)} | WAN


def marker_of(tensors, layer):
    return json.loads(bytes(tensors[f"{layer}.comfy_quant"].tolist()))


def unswizzled(scales, rows, blocks):
    """Of a matrix of scales as it is stored: those of the weight's own rows and blocks."""
    r, c = torch.meshgrid(torch.arange(rows), torch.arange(blocks), indexing="ij")
    place = (r // 128 * (scales.shape[1] // 4) + c // 4) * 512 + r % 32 * 16 + r % 128 // 32 * 4 + c % 4
    return scales.flatten()[place]


def decode_float8(tensors, layer, shape):
    return tensors[f"{layer}.weight"].float() * tensors[f"{layer}.weight_scale"]


def decode_mxfp8(tensors, layer, shape):
    codes = tensors[f"{layer}.weight"].float()
    exponents = unswizzled(tensors[f"{layer}.weight_scale"].int(), codes.shape[0], codes.shape[1] // 32)
    scales = torch.where(exponents == 0, torch.zeros(()), torch.exp2((exponents - 127).double()).float())
    return (codes * scales.repeat_interleave(32, 1))[: shape[0], : shape[1]]


def decode_nvfp4(tensors, layer, shape):
    packed = tensors[f"{layer}.weight"].int()
    codes = torch.stack((packed >> 4, packed & 15), -1).flatten(1)  # the high nibble is the even column
    magnitudes = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    values = magnitudes[codes & 7] * torch.where(codes < 8, 1.0, -1.0)
    scales = unswizzled(tensors[f"{layer}.weight_scale"].float(), values.shape[0], values.shape[1] // 16)
    return (values * (scales * tensors[f"{layer}.weight_scale_2"]).repeat_interleave(16, 1))[: shape[0], : shape[1]]


def decode_w4a8(tensors, layer, shape):
    marker = marker_of(tensors, layer)
    packed = tensors[f"{layer}.weight"].int() & 255
    codes = torch.stack((packed & 15, packed >> 4), -1).flatten(1)  # the low nibble is the even column
    relative = tensors[f"{layer}.weight_s_rel"].float().repeat_interleave(marker["group_size"], 1)
    integers = (tensors[f"{layer}.weight_codebook"][codes] * relative).round().clamp(-127, 127)
    rotated = integers.double() * tensors[f"{layer}.weight_s_channel"].double()[:, None]
    return (rotated.reshape(-1, marker["convrot_groupsize"]) @ hadamard(marker["convrot_groupsize"])).reshape(shape)


DECODERS = {"float8_e4m3fn": decode_float8, "float8_e5m2": decode_float8, "mxfp8": decode_mxfp8, "nvfp4": decode_nvfp4,
            "asym_w4a8_int8": decode_w4a8}


def same_bytes(one, other):
    return sorted(one) == sorted(other) and all(
        torch.equal(tensor.reshape(-1).view(torch.uint8), other[name].reshape(-1).view(torch.uint8)) for name, tensor in one.items())


def largest(values):
    return values.abs().max().item()


def decoded(tensors, layer, shape):
    decoder = DECODERS.get(marker_of(tensors, layer)["format"])
    return (decoder(tensors, layer, shape) if decoder else decode(tensors, layer)).double()


class Floats(TempFolder):
    def convert(self, source, *flags, name="out.safetensors"):
        output = self.folder / name
        qmill("-i", source, "-o", output, "--overwrite", *flags)
        return read(output)[0]

    def plan(self, source, *flags):
        return {layer["name"]: layer for layer in qmill_json("plan", source, *flags)["layers"]}


class EveryFormat(Floats):
    def setUp(self):
        super().setUp()
        self.weights = weights()
        self.source = self.model(self.weights)
        self.output = self.folder / "out.safetensors"

    def test_the_plan_predicts_the_file_to_the_byte(self):
        for name in FORMATS:
            with self.subTest(name):
                plan = qmill_json("plan", self.source, "--format", name)
                self.assertEqual({layer["format"] for layer in plan["layers"]} - {SUBSTITUTES.get(name), "int8"}, {name})
                tensors = self.convert(self.source, "--format", name)
                self.assertEqual(plan["output_bytes"], self.output.stat().st_size)
                for layer in plan["layers"]:
                    for planned in layer["outputs"]:
                        self.assertEqual(list(tensors[planned["name"]].shape), planned["shape"], planned)
                self.assertTrue(torch.equal(tensors["blocks.0.norm.weight"], self.weights["blocks.0.norm.weight"]))

    def test_an_independent_reader_computes_what_dequantize_writes_and_compare_reports(self):
        least = {"float8_e4m3fn": 30, "float8_e5m2": 24, "mxfp8": 29, "nvfp4": 18, "asym_w4a8_int8": 17}
        for name in FORMATS:
            with self.subTest(name):
                tensors = self.convert(self.source, "--format", name)
                plain = self.folder / "plain.safetensors"
                qmill("dequantize", self.output, plain, "--dtype", "f32", "--overwrite")
                values, _ = read(plain)
                self.assertEqual(sorted(values), sorted(self.weights))
                compared = {layer["name"]: layer for layer in qmill_json("compare", self.output, self.source)["layers"]}
                inspected = {layer["name"]: layer for layer in qmill_json("inspect", self.output)["layers"] if layer["quantized"]}
                self.assertEqual(set(compared), set(SHAPES))
                self.assertEqual(set(inspected), set(SHAPES))
                for layer, shape in SHAPES.items():
                    original = self.weights[f"{layer}.weight"].double()
                    expected, found = decoded(tensors, layer, shape), values[f"{layer}.weight"].double()
                    self.assertEqual(tuple(found.shape), shape)
                    self.assertLessEqual(largest(found - expected), 1e-6 * largest(expected), layer)
                    self.assertAlmostEqual(compared[layer]["sqnr_db"], sqnr_db(original, expected), delta=0.01)
                    self.assertAlmostEqual(compared[layer]["max_error"], largest(original - expected), delta=1e-5)
                    self.assertGreater(compared[layer]["sqnr_db"], least[name])
                    stored = marker_of(tensors, layer)["format"]
                    self.assertEqual((compared[layer]["format"], inspected[layer]["format"]), (stored, stored))
                    self.assertIn(stored, (name, SUBSTITUTES.get(name)))

    def test_a_true_shape_that_the_weight_cannot_have_is_an_error(self):
        tensors = self.convert(self.source, "--format", "nvfp4")
        for shape in ([33, 1 << 62], [16, 512], [-33, 512], "33x512", [33.5, 512], None):
            marker = json.dumps({"format": "nvfp4", "orig_shape": shape})
            hostile = tensors | {"blocks.0.b.comfy_quant": torch.tensor(list(marker.encode()), dtype=torch.uint8)}
            source = self.model(hostile, "hostile.safetensors")
            for words in (("dequantize", source), ("-i", source, "-o", self.folder / "refused.safetensors", "--dequantize-source")):
                self.refused(*words, says=("hostile.safetensors", "'blocks.0.b'", "orig_shape"))

    def test_weights_that_are_no_matrices_are_treated_as_for_int8(self):
        odd = {"conv.weight": randn(8, 4, 3, 3), "line.weight": randn(64), "cube.weight": randn(2, 3, 64), "none.weight": torch.zeros(0, 64)}
        source = self.model(odd | {"a.weight": randn(32, 64)}, "odd.safetensors")
        usual = self.plan(source)
        for name in FORMATS:
            plan = self.plan(source, "--format", name)
            self.assertEqual({layer: planned["action"] for layer, planned in plan.items()},
                             {layer: planned["action"] for layer, planned in usual.items()}, name)
            tensors = self.convert(source, "--format", name, name="odd_out.safetensors")
            for layer, planned in plan.items():
                if planned["action"] != "quantize":
                    self.assertTrue(torch.equal(tensors[f"{layer}.weight"], odd[f"{layer}.weight"]), layer)

    def test_factors_of_the_inputs_in_files_of_other_programs_multiply_columns(self):
        tensors = self.convert(self.source, "--format", "nvfp4")
        factors = torch.rand(336, generator=torch.Generator().manual_seed(4)) + 0.5
        source = self.model(tensors | {"blocks.0.d.pre_quant_scale": factors}, "factors.safetensors", read(self.output)[1])
        qmill("dequantize", source, self.folder / "plain.safetensors", "--dtype", "f32")
        found = read(self.folder / "plain.safetensors")[0]
        self.assertNotIn("blocks.0.d.pre_quant_scale", found)
        expected = decoded(tensors, "blocks.0.d", (64, 336)) * factors.double()
        self.assertLessEqual(largest(found["blocks.0.d.weight"].double() - expected), 1e-6 * largest(expected))
        again = self.convert(source, "--dequantize-source", "--format", "int8", name="again.safetensors")
        self.assertGreater(sqnr_db(expected, decode(again, "blocks.0.d")), 35)
        self.assertTrue(qmill_json("verify", source)["loads"])

    def test_the_header_says_what_the_markers_say(self):
        for name in FORMATS:
            with self.subTest(name):
                tensors = self.convert(self.source, "--format", name)
                header = json.loads(read(self.output)[1]["_quantization_metadata"])
                self.assertEqual(header["layers"], {layer: marker_of(tensors, layer) for layer in SHAPES})

    def test_the_true_shape_is_in_the_marker_only_where_it_is_padded(self):
        for name, step in (("nvfp4", 16), ("mxfp8", 32)):
            tensors = self.convert(self.source, "--format", name)
            stored = {layer: marker_of(tensors, layer) for layer in SHAPES}
            for layer, shape in SHAPES.items():
                padded = stored[layer]["format"] == name and any(side % step for side in shape)
                self.assertEqual(stored[layer].get("orig_shape"), list(shape) if padded else None, (name, layer))
            self.assertTrue(any("orig_shape" in marker for marker in stored.values()), name)

    def test_verify_says_that_readers_load_it(self):
        for name in FORMATS:
            with self.subTest(name):
                self.convert(self.source, "--format", name)
                report = qmill_json("verify", self.output)
                self.assertEqual(report["findings"], [])
                self.assertEqual((report["loads"], report["layers"]), (True, len(SHAPES)))
                self.assertEqual((report["readers"][0]["name"], report["readers"][0]["loads"]), ("ComfyUI", True))
                self.assertEqual(report["readers"][0]["since"], {"asym_w4a8_int8": "0.31.0", "mxfp8": "0.18.0"}.get(name, ""))

    def test_decoded_and_written_again_it_is_what_it_was(self):
        for name in ("float8_e4m3fn", "float8_e5m2", "mxfp8"):  # their largest value decides the scale, and stays
            before = self.convert(self.source, "--format", name)
            qmill("dequantize", self.output, self.folder / "plain.safetensors", "--dtype", "f32", "--overwrite")
            after = self.convert(self.folder / "plain.safetensors", "--format", name, name="again.safetensors")
            for layer, shape in SHAPES.items():
                first, second = decoded(before, layer, shape), decoded(after, layer, shape)
                self.assertLessEqual(largest(first - second), 1e-6 * largest(first), (name, layer))
            direct = self.convert(self.output, "--dequantize-source", "--format", name, name="direct.safetensors")
            self.assertTrue(same_bytes(after, direct), name)

    def test_aliases_are_the_same_format(self):
        for alias, name in (("fp8", "float8_e4m3fn"), ("w4a8", "asym_w4a8_int8")):
            qmill("-i", self.source, "-o", self.output, "--overwrite", "--format", alias)
            qmill("-i", self.source, "-o", self.folder / "b.safetensors", "--overwrite", "--format", name)
            one, other = read(self.output)[0], read(self.folder / "b.safetensors")[0]
            self.assertTrue(same_bytes(one, other))

    def test_the_same_bytes_for_every_number_of_threads(self):
        for name in FORMATS:
            files = []
            for threads in (1, 4):
                self.convert(self.source, "--format", name, "--threads", threads)
                files.append(self.output.read_bytes())
            self.assertEqual(files[0], files[1], name)

    def test_values_that_are_not_finite_are_refused(self):
        for value, word in ((float("nan"), "NaN"), (float("inf"), "infinity")):
            bad = weights()
            bad["blocks.0.b.weight"][4, 17] = value
            source = self.model(bad, "bad.safetensors")
            for name in FORMATS:
                self.refused("-i", source, "-o", self.folder / "refused.safetensors", "--format", name,
                             says=("bad.safetensors", "blocks.0.b.weight", f"{word} at row 4, column 17", "--exclude-layers"))

    def test_extreme_values_are_finite_and_zeros_have_no_sign(self):
        extreme = {"huge": randn(40, 64) * 1e37, "tiny": randn(40, 64, seed=1) * 1e-38, "zero": torch.zeros(40, 64)}
        extreme["mixed"] = randn(40, 64, seed=2) * 1e-6
        extreme["mixed"][3, 3] = 1e30
        source = self.model({f"{name}.weight": value for name, value in extreme.items()}, "extreme.safetensors")
        for name in FORMATS:
            tensors = self.convert(source, "--format", name)
            qmill("dequantize", self.output, self.folder / "plain.safetensors", "--dtype", "f32", "--overwrite")
            values, _ = read(self.folder / "plain.safetensors")
            for layer, original in extreme.items():
                found = values[f"{layer}.weight"]
                self.assertTrue(found.isfinite().all().item(), (name, layer))
                expected = decoded(tensors, layer, (40, 64))
                self.assertLessEqual(largest(found.double() - expected), 1e-6 * largest(expected) + 1e-44, (name, layer))
            self.assertGreater(sqnr_db(extreme["huge"], values["huge.weight"].double()), 18)
            self.assertEqual(largest(values["zero.weight"]), 0)
            if name != "asym_w4a8_int8":  # of which no level is zero: one that is rounded to it may be below it
                self.assertFalse(values["zero.weight"].signbit().any().item())
            self.assertLess(largest(values["mixed.weight"] - extreme["mixed"]), 1.2e29)


class Wishes(Floats):
    def setUp(self):
        super().setUp()
        self.source = self.model(weights())

    def test_those_that_a_format_cannot_express_are_refused_in_one_line(self):
        for name in FORMATS:
            own = "tensor" if name.startswith("float8") else "block"
            cases = {("--scaling-mode", mode): f"{name} has {own} scaling; found {mode} scaling; use --scaling-mode {own}"
                     for mode in ("row", "tensor", "block", "axis") if mode != own}
            cases[("--no-comfy-quant",)] = f"{name} has ComfyUI names only; found legacy names; use --comfy-quant"
            if name == "asym_w4a8_int8":
                cases[("--block-size", "24")] = "found a block size of 24; use --block-size 16"
                cases[("--convrot", "off")] = "is always rotated; found rotation 'off'"
            else:
                cases[("--block-size", "64")] = "found block scaling" if own == "tensor" else "found a block size of 64; leave it out"
                cases[("--convrot", "any")] = f"{name} is not rotated; found rotation 'any'; leave out what asks for a rotation"
                cases[("--convrot", "64")] = f"{name} is not rotated; found rotation '64'"
            for flags, words in cases.items():
                with self.subTest(f"{name} {flags}"):
                    wished = ("--format", name, *flags)
                    self.refused("plan", self.source, *wished, says=(words, "model.safetensors"), status=2)
                    self.refused("-i", self.source, "-o", self.folder / "out.safetensors", *wished, says=(words,), status=2)

    def test_what_it_does_anyhow_may_be_asked_for(self):
        for name, flags in (("fp8", ("--scaling-mode", "tensor")), ("nvfp4", ("--scaling-mode", "block", "--block-size", "16")),
                            ("mxfp8", ("--block-size", "32")), ("w4a8", ("--block-size", "16")), ("nvfp4", ("--convrot", "off")),
                            ("w4a8", ("--convrot", "any"))):
            with self.subTest(f"{name} {flags}"):
                usual = self.plan(self.source, "--format", name)
                asked = self.plan(self.source, "--format", name, *flags)
                for layer, planned in usual.items():
                    if planned["format"] != "int8_tensorwise":
                        self.assertEqual(asked[layer]["layout"], planned["layout"])

    def test_groups_of_w4a8_may_have_other_sizes(self):
        for size in (4, 8, 32, 64):
            tensors = self.convert(self.source, "--format", "w4a8", "--block-size", size)
            self.assertEqual(tuple(tensors["blocks.0.b.weight_s_rel"].shape), (33, 512 // size))
            self.assertEqual(marker_of(tensors, "blocks.0.b")["group_size"], size)
            self.assertGreater(sqnr_db(weights()["blocks.0.b.weight"], decoded(tensors, "blocks.0.b", (33, 512))), 19)
        for group in (16, 64):
            tensors = self.convert(self.source, "--format", "w4a8", "--convrot", group)
            self.assertEqual(marker_of(tensors, "blocks.0.b")["convrot_groupsize"], group)
            self.assertGreater(sqnr_db(weights()["blocks.0.b.weight"], decoded(tensors, "blocks.0.b", (33, 512))), 19)

    def test_full_precision_is_in_the_marker(self):
        for name in FORMATS:
            tensors = self.convert(self.source, "--format", name, "--full-precision-matrix-mult")
            self.assertIs(marker_of(tensors, "blocks.0.b")["full_precision_matrix_mult"], True)


class ChosenLayers(Floats):
    def setUp(self):
        super().setUp()
        self.source = self.model(weights())

    def formats(self, *flags):
        tensors = self.convert(self.source, *flags)
        for layer, shape in SHAPES.items():
            if f"{layer}.comfy_quant" in tensors:
                self.assertGreater(sqnr_db(weights()[f"{layer}.weight"], decoded(tensors, layer, shape)), 18)
        return {layer: marker_of(tensors, layer)["format"] if f"{layer}.comfy_quant" in tensors else None for layer in SHAPES}

    def test_custom_layers_in_a_run_of_another_format(self):
        for name in FORMATS:
            with self.subTest(name):
                formats = self.formats("--custom-layers", r"\.(d|e)\.", "--custom-type", name)
                self.assertEqual({layer for layer in SHAPES if formats[layer] == name}, {"blocks.0.d", "blocks.0.e"})
                self.assertEqual({formats[layer] for layer in ("blocks.0.a", "blocks.0.b", "blocks.0.c")}, {"int8_tensorwise"})
        self.assertEqual(self.formats("--format", "nvfp4", "--custom-layers", "a", "--custom-type", "int8")["blocks.0.b"], "nvfp4")

    def test_what_the_run_wishes_for_its_own_format_is_no_wish_for_them(self):
        for name in ("fp8", "mxfp8", "nvfp4"):
            for flags, format_of_others in {
                ("--convrot", "256"): "int8_tensorwise",
                ("--scaling-mode", "tensor"): "int8_tensorwise",
                ("--scaling-mode", "axis"): "int8_axiswise",
                ("--scaling-mode", "block", "--block-size", "4"): "int8_blockwise",
            }.items():
                with self.subTest(f"{name} {flags}"):
                    plan = self.plan(self.source, *flags, "--custom-layers", r"\.b\.", "--custom-type", name)
                    usual = self.plan(self.source, "--format", name)
                    self.assertEqual(plan["blocks.0.b"]["layout"], usual["blocks.0.b"]["layout"])
                    self.assertEqual(plan["blocks.0.e"]["format"], format_of_others)
        # What is said of these layers themselves counts.
        nvfp4 = ("--custom-layers", r"\.b\.", "--custom-type", "nvfp4")
        self.refused("plan", self.source, *nvfp4, "--custom-scaling-mode", "row", says=("custom", "found row scaling"), status=2)
        self.refused("plan", self.source, *nvfp4, "--custom-block-size", "64", says=("custom", "found a block size of 64"), status=2)

    def test_layer_config(self):
        config = self.folder / "layers.json"
        entries = {"0.a": {"skip": True}, "0.b": {"format": "nvfp4"}, "0.e": {"format": "mxfp8"}}
        entries["0.d"] = {"format": "w4a8", "block_size": 48}
        config.write_text(json.dumps(entries))
        formats = self.formats("--format", "fp8", "--layer-config", config)
        self.assertEqual(formats, {"blocks.0.a": None, "blocks.0.b": "nvfp4", "blocks.0.c": "float8_e4m3fn", "blocks.0.d": "asym_w4a8_int8",
                                   "blocks.0.e": "mxfp8"})
        self.assertEqual(marker_of(read(self.folder / "out.safetensors")[0], "blocks.0.d")["group_size"], 48)

    def test_exclusion_and_fallback(self):
        self.assertEqual(self.formats("--format", "nvfp4", "--exclude-layers", r"\.b\.")["blocks.0.b"], None)
        for name in FORMATS:
            formats = self.formats("--format", "int8", "--exclude-layers", r"\.e\.", "--fallback", name)
            self.assertEqual(formats["blocks.0.e"], name)
            self.assertEqual(formats["blocks.0.d"], "int8_tensorwise")


class Substitutes(Floats):
    def test_columns_that_a_format_cannot_store_are_said(self):
        source = self.model(weights())
        plan = self.plan(source, "--format", "w4a8")
        note = "16 does not divide its 5 columns: int8; 256 does not divide its 5 columns: not rotated"
        self.assertEqual(plan["blocks.0.a"]["note"], note)
        self.assertEqual({layer for layer in plan if plan[layer]["note"]}, {"blocks.0.a"})
        plan = self.plan(source, "--format", "w4a8", "--convrot", "256")
        self.assertIn("256 does not divide its 336 columns: int8", plan["blocks.0.d"]["note"])
        for name in ("fp8", "float8_e5m2"):
            self.assertEqual([layer["note"] for layer in self.plan(source, "--format", name).values()], [""] * len(SHAPES))

    def test_padding_that_a_reader_fails_at_or_that_makes_a_layer_larger_is_said(self):
        source = self.model(weights())
        plan = self.plan(source, "--format", "nvfp4")
        notes = {"blocks.0.a": "padded, its 35 values would take 644 bytes: float8_e4m3fn",
                 "blocks.0.c": "padded, its 16 values would take 644 bytes: float8_e4m3fn"}
        self.assertEqual({layer: planned["note"] for layer, planned in plan.items() if planned["note"]}, notes)
        plan = self.plan(source, "--format", "mxfp8")
        because = "rows: readers that multiply in this format fail at its bias: float8_e4m3fn"
        notes = {f"blocks.0.{layer}": f"32 does not divide its {rows} {because}" for layer, rows in (("a", 7), ("b", 33), ("c", 1))}
        self.assertEqual({layer: planned["note"] for layer, planned in plan.items() if planned["note"]}, notes)

    def test_verify_says_where_a_reader_fails_at_a_bias(self):
        source = self.model({"blocks.0.a.weight": randn(64, 64), "blocks.0.a.bias": randn(64)} | WAN)
        tensors = self.convert(source, "--format", "mxfp8") | {"blocks.0.a.bias": randn(60)}
        report = json.loads(qmill("verify", self.model(tensors, "short.safetensors"), "--json", status=1)[0])
        self.assertIn(("error", "padded-bias"), [(finding["level"], finding["rule"]) for finding in report["findings"]])

    def test_verify_sees_scales_that_are_not_numbers(self):
        source = self.model({"blocks.0.a.weight": randn(64, 64)} | WAN)
        for name, suffix, bits in (("nvfp4", "weight_scale", 0x7F), ("mxfp8", "weight_scale", 0xFF), ("w4a8", "weight_s_rel", 0x7F)):
            tensors = self.convert(source, "--format", name)
            scale = tensors[f"blocks.0.a.{suffix}"]
            scale.view(torch.uint8)[0, 0] = bits
            report = json.loads(qmill("verify", self.model(tensors, "bad.safetensors"), "--json", status=1)[0])
            self.assertIn(("error", "scale-value"), [(finding["level"], finding["rule"]) for finding in report["findings"]], name)

    def test_rows_and_columns_by_which_readers_detect_the_model_stay(self):
        sides = {"head.head": (40, 64), "blocks.0.ffn.0": (72, 64), "model.diffusion_model.img_in": (64, 192), "blocks.0.q": (64, 192)}
        source = self.model({f"{name}.weight": randn(*shape) for name, shape in sides.items()} | WAN)
        by_rows = "readers detect the model by its 40 rows (Wan): float8_e4m3fn"
        at_bias = "rows: readers that multiply in this format fail at its bias: float8_e4m3fn"
        by_columns = "readers detect the model by its 192 columns (Flux, Lens, Qwen-Image): "
        for name, notes in {
            "fp8": {},
            "mxfp8": {"head.head": f"32 does not divide its 40 {at_bias}", "blocks.0.ffn.0": f"32 does not divide its 72 {at_bias}"},
            "nvfp4": {"head.head": by_rows, "blocks.0.ffn.0": by_rows.replace("40", "72"),
                      "model.diffusion_model.img_in": by_columns + "float8_e4m3fn"},
            "w4a8": {"model.diffusion_model.img_in": by_columns + "int8; 256 does not divide its 192 columns: not rotated"},
        }.items():
            with self.subTest(name):
                plan = self.plan(source, "--format", name)
                self.assertEqual({layer: planned["note"] for layer, planned in plan.items() if planned["note"]}, notes)
                text = qmill("plan", source, "--format", name)[0]
                for layer, note in notes.items():
                    self.assertIn(f"{layer}: {note}", text)
                tensors = self.convert(source, "--format", name)
                for layer in notes:
                    self.assertEqual(tuple(tensors[f"{layer}.weight"].shape), sides[layer])
                self.assertEqual(qmill_json("verify", self.folder / "out.safetensors")["findings"], [])

    def test_verify_knows_files_that_do_not_keep_them(self):
        source = self.model({"head.head.weight": randn(10, 64), "head.head.bias": randn(10)} | WAN)
        tensors = self.convert(source, "--custom-layers", "x", "--custom-type", "nvfp4", "--format", "fp8")
        self.assertEqual(marker_of(tensors, "head.head")["format"], "float8_e4m3fn")
        other = self.model({"head.x.weight": randn(40, 64), "head.x.bias": randn(40)} | WAN, "other.safetensors")
        renamed = {name.replace("head.x", "head.head"): tensor for name, tensor in self.convert(other, "--format", "nvfp4").items()}
        report = json.loads(qmill("verify", self.model(renamed, "renamed.safetensors"), "--json", status=1)[0])
        self.assertIn(("error", "detection"), [(finding["level"], finding["rule"]) for finding in report["findings"]])

    def test_whole_models_keep_them(self):
        for model, layer in {"flux1_dev": "img_in", "wan21_14b": None, "qwen_image": "img_in", "z_image": "cap_embedder.1",
                             "ltxv_13b": "transformer_blocks.0.attn2.to_k"}.items():
            path = self.folder / f"{model}.safetensors"
            keys.write(path, keys.tensors(model))
            plan = self.plan(path, "--format", "nvfp4")
            said = {name: entry for name, entry in plan.items() if "readers detect the model" in entry["note"]}
            self.assertEqual({entry["format"] for entry in said.values()}, {"float8_e4m3fn"} if layer else set(), model)
            if layer:
                self.assertTrue(any(name.endswith(layer) for name in said), (model, list(said)))
            self.assertGreater(sum(entry["format"] == "nvfp4" for entry in plan.values()), len(plan) // 2, model)


class WithRealInputs(Floats):
    """gptq, quip and learned_rounding: less output error than plain rounding on rows that nothing was fitted to."""

    COLUMNS = 256

    def rows(self, count, seed):
        mix = randn(24, self.COLUMNS, seed=99)
        return randn(count, 24, seed=seed) @ mix / 5 + 0.1 * randn(count, self.COLUMNS, seed=seed + 1)

    def test_the_error_of_the_output_is_smaller(self):
        weight = randn(64, self.COLUMNS, seed=3)
        source = self.model({"blocks.0.a.weight": weight} | WAN)
        data = self.model({"blocks.0.a.input": self.rows(900, 10)}, "rows.safetensors")
        fresh = self.rows(300, 20).double()

        def error(*flags):
            values = decoded(self.convert(source, *flags, "--no-bias-correction"), "blocks.0.a", weight.shape)
            return ((weight.double() - values) @ fresh.T).norm().item() / (weight.double() @ fresh.T).norm().item()

        for name in FORMATS:
            plain = error("--format", name, "--optimizer", "rtn")
            for quantizer in ("gptq", "quip", "learned_rounding"):
                with self.subTest(f"{name} {quantizer}"):
                    flags = ("--format", name, "--optimizer", quantizer, "--calibration-data", data)
                    self.assertLess(error(*flags), 0.9 * plain)
                    self.assertEqual(self.marker(), name)
            with self.subTest(f"{name} descent"):
                flags = ("--format", name, "--optimizer", "gptq", "--calibration-data", data, "--damping", "0.01")
                self.assertLess(error(*flags, "--descent-passes", "3"), 0.9 * plain)

    def marker(self):
        return marker_of(read(self.folder / "out.safetensors")[0], "blocks.0.a")["format"]

    def test_the_same_bytes_for_every_number_of_threads(self):
        source = self.model({"blocks.0.a.weight": randn(288, self.COLUMNS, seed=3)} | WAN)
        data = self.model({"blocks.0.a.input": self.rows(900, 10)}, "rows.safetensors")
        for name in FORMATS:
            files = []
            for threads in (1, 4):
                self.convert(source, "--format", name, "--optimizer", "gptq", "--calibration-data", data, "--gptq-actorder",
                             "--descent-passes", "1", "--threads", threads)
                files.append((self.folder / "out.safetensors").read_bytes())
            self.assertEqual(files[0], files[1], name)


class ReadersOwnCode(Floats):
    """With comfy-kitchen, where it can be imported: its own functions decode what is written."""

    def test_it_decodes_to_the_same_values(self):
        try:
            from comfy_kitchen.backends import eager
        except ImportError as reason:
            self.skipTest(f"NOT COMPARED with the reader's own code ({reason}): pip install comfy-kitchen")
        source = self.model(weights())
        for name in FORMATS:
            tensors = self.convert(source, "--format", name)
            for layer, shape in SHAPES.items():
                if marker_of(tensors, layer)["format"] != name:
                    continue
                with self.subTest(f"{name} {layer}"):
                    values = self.kitchen(eager, name, tensors, layer)[: shape[0], : shape[1]].double()
                    expected = decoded(tensors, layer, shape)
                    self.assertLessEqual(largest(values - expected), 2e-6 * largest(expected))

    def kitchen(self, eager, name, tensors, layer):
        def get(suffix):
            return tensors[f"{layer}.{suffix}"]

        if name.startswith("float8"):
            return eager.quantization.dequantize_per_tensor_fp8(get("weight"), get("weight_scale"), torch.float32)
        if name == "mxfp8":
            return eager.quantization.dequantize_mxfp8(get("weight"), get("weight_scale"), torch.float32)
        if name == "nvfp4":
            return eager.quantization.dequantize_nvfp4(get("weight"), get("weight_scale_2"), get("weight_scale"), torch.float32)
        marker, scales = marker_of(tensors, layer), (get("weight_s_rel"), get("weight_s_channel"), get("weight_codebook"))
        return eager.w4a8_int8.dequantize_w4a8_int8_weight(get("weight"), *scales, None, marker["group_size"], marker["convrot_groupsize"],
                                                           torch.float32)
