"""verify: one file per rule that it breaks, and files that break none."""

import json
import struct

import torch

from support import ABACUS, TempFolder, qmill, qmill_json

SIZES = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1, "U8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I64": 8, "F64": 8}


def elements(shape):
    count = 1
    for size in shape:
        count *= size
    return count


class Tensor:
    """A tensor as the file has it: F32 values may be given, bytes are zeros otherwise."""

    def __init__(self, dtype, shape, data=None):
        self.dtype, self.shape = dtype, list(shape)
        self.data = data if data is not None else bytes(elements(shape) * SIZES[dtype])


def floats(shape, value=0.01):
    return Tensor("F32", shape, struct.pack("<f", value) * elements(shape))


def marker(**keys):
    data = json.dumps(keys).encode()
    return Tensor("U8", [len(data)], data)


def codes(*shape, value=1):
    return Tensor("I8", shape, bytes([value]) * elements(shape))


def int8(name="blocks.0.a", shape=(8, 256), scale=None, weight=None, **keys):
    return {
        f"{name}.weight": weight or codes(*shape),
        f"{name}.weight_scale": scale or floats([shape[0], 1]),
        f"{name}.comfy_quant": marker(**{"format": "int8_tensorwise", **keys}),
    }


# A vector by which a model is recognised as Wan: of a model that is not, readers are "not known" to load it.
WAN = {"head.modulation": Tensor("F32", [1, 2, 8], struct.pack("<f", 0.5) * 16)}

ROTATED = {"convrot": True, "convrot_groupsize": 256}


class Verify(TempFolder):
    def write(self, tensors, metadata=None, padding=0, as_given=False):
        """By hand: large elements first, or tensors as they are given; `padding` more spaces after the header."""
        tensors = WAN | tensors
        if not as_given:
            tensors = dict(sorted(tensors.items(), key=lambda item: -SIZES[item[1].dtype]))
        header, offset = ({"__metadata__": metadata} if metadata else {}), 0
        for name, tensor in tensors.items():
            header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [offset, offset + len(tensor.data)]}
            offset += len(tensor.data)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8 + padding)
        path = self.folder / "model.safetensors"
        path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(tensor.data for tensor in tensors.values()))
        return path

    def verify(self, tensors, status=0, **file):
        output, error = qmill("verify", self.write(tensors, **file), "--json", status=status)
        self.assertEqual(error, "")
        report = json.loads(output)
        self.assertEqual(report["loads"], status == 0)
        return report

    def breaks(self, rule, tensors, says="", tensor=None, **file):
        """Just this rule, once, as an error."""
        report = self.verify(tensors, status=1, **file)
        self.assertEqual([(finding["level"], finding["rule"]) for finding in report["findings"] if finding["level"] == "error"], [("error", rule)],
                         report["findings"])
        self.assertIn(says, report["findings"][0]["text"])
        if tensor is not None:
            self.assertEqual(report["findings"][0]["tensor"], tensor)
        self.assertIs(report["readers"][0]["loads"], False)
        return report

    def remarks(self, rule, tensors, sdcpp=True, comfyui=True, says="", **file):
        """Just this rule, once, as a remark; and what it means to each reader."""
        report = self.verify(tensors, **file)
        self.assertEqual([(finding["level"], finding["rule"]) for finding in report["findings"]], [("remark", rule)])
        self.assertIn(says, report["findings"][0]["text"])
        self.assertEqual([reader["loads"] for reader in report["readers"]], [comfyui, sdcpp])
        return report

    # What is right.

    def test_plain_layers_are_right(self):
        for tensors in (int8(), int8(**ROTATED), {"a.weight": Tensor("BF16", [4, 4])}):
            report = self.verify(tensors)
            self.assertEqual(report["findings"], [])
            self.assertEqual([reader["loads"] for reader in report["readers"]], [True, True])

    def test_since_when_readers_have_the_formats(self):
        self.assertEqual(self.verify(int8())["readers"][0]["since"], "0.27.0")
        self.assertEqual(self.verify({"a.weight": Tensor("F16", [4, 4])})["readers"][0]["since"], "")
        w4a4 = {"b.weight": codes(4, 128), "b.weight_scale": floats([4]), "b.comfy_quant": marker(format="convrot_w4a4", convrot_groupsize=256)}
        self.assertEqual(self.verify(w4a4)["readers"][0]["since"], "0.28.0")
        self.assertEqual(self.verify({**int8(), **w4a4})["readers"][0]["since"], "0.28.0")
        self.assertIsNone(self.verify(w4a4)["readers"][1]["loads"])

    def test_every_format_as_its_readers_want_it(self):
        formats = {
            "float8_e4m3fn": ({"weight": Tensor("F8_E4M3", [8, 16]), "weight_scale": floats([]), "input_scale": floats([])}, {}),
            "float8_e5m2": ({"weight": Tensor("F8_E5M2", [8, 16]), "weight_scale": floats([])}, {}),
            "nvfp4": ({"weight": Tensor("U8", [16, 16]), "weight_scale": Tensor("F8_E4M3", [128, 4]), "weight_scale_2": floats([])}, {}),
            "mxfp8": ({"weight": Tensor("F8_E4M3", [32, 64]), "weight_scale": Tensor("U8", [128, 4])}, {}),
            "convrot_w4a4": ({"weight": codes(4, 64), "weight_scale": floats([4])}, {"convrot_groupsize": 64, "linear_dtype": "int8"}),
            "asym_w4a8_int8": ({"weight": codes(4, 128), "weight_s_rel": Tensor("F8_E4M3", [4, 16]), "weight_s_channel": floats([4]),
                                "weight_codebook": floats([16])}, {"group_size": 16}),
            "int8_tensorwise": ({"weight": codes(2, 4, 8), "weight_scale": floats([2, 4, 1])}, {"num_experts": 2}),
        }
        for name, (tensors, keys) in formats.items():
            with self.subTest(name):
                report = self.verify({**{f"x.{suffix}": tensor for suffix, tensor in tensors.items()}, "x.comfy_quant": marker(format=name, **keys)})
                self.assertEqual(report["findings"], [])

    def test_our_own_files_pass(self):
        for flags in ((), ("--convrot", "off"), ("--convrot", "any"), ("--scaling-mode", "tensor"), ("--fp16",), ("--no-save-quant-metadata",), ("--optimizer", "quip"),
                      ("--full-precision-matrix-mult",), ("--format", "int4"), ("--exclude-layers", "mlp", "--fallback", "fp16")):
            with self.subTest(flags):
                output = self.folder / "out.safetensors"
                qmill("-i", ABACUS, "-o", output, "--overwrite", *flags)
                report = qmill_json("verify", output)
                self.assertEqual([finding for finding in report["findings"] if finding["level"] == "error"], [])

    def test_our_files_that_comfyui_does_not_load_say_so(self):
        for flags, rule in {("--block-size", "64"): "unknown-format", ("--scaling-mode", "axis"): "unknown-format", ("--no-comfy-quant",): "unmarked-codes"}.items():
            with self.subTest(flags):
                output = self.folder / "out.safetensors"
                qmill("-i", ABACUS, "-o", output, "--overwrite", "--optimizer", "rtn", *flags)
                text, _ = qmill("verify", output, status=1)
                self.assertIn(f"error   {rule}", text)
                self.assertIn("does not load it", text)

    def test_people_get_a_line_per_finding_and_a_count(self):
        tensors = {}
        for i in range(9):
            tensors.update(int8(f"b.{i}", scale=floats([8])))
        text, _ = qmill("verify", self.write(tensors), status=1)
        self.assertEqual(text.count("error   scale-shape"), 5)
        self.assertIn("and 4 more of scale-shape", text)

    # Markers.

    def test_a_format_that_is_unknown(self):
        for name in ("int8_blockwise", "int8_axiswise", "svdquant_w4a4", "INT8_TENSORWISE", ""):
            self.breaks("unknown-format", int8(format=name), says="int8_tensorwise")
        self.breaks("unknown-format", int8(format="awq_w4a16"), says="awq_w4a16")  # comfy-kitchen has it, ComfyUI does not

    def test_a_marker_without_a_format(self):
        tensors = int8()
        for keys in ({}, {"convrot": False}, {"format": 8}, {"format": None}):
            self.breaks("marker-format", {**tensors, "blocks.0.a.comfy_quant": marker(**keys)})

    def test_a_marker_that_is_no_json_object(self):
        for data in (b"", b"{", b'{"format": "int8_tensorwise"}\0', b"[]", b'"int8_tensorwise"', b"\xff\xfe", b'{"format": "int8_tensorwise", "format": "x"}', b"{" * 50000):
            self.breaks("marker-json", {**int8(), "blocks.0.a.comfy_quant": Tensor("U8", [len(data)], data)}, tensor="blocks.0.a.comfy_quant")

    def test_a_marker_of_another_type_or_shape(self):
        data = b'{"format":"int8_tensorwise"}'
        self.breaks("marker-json", {**int8(), "blocks.0.a.comfy_quant": Tensor("I8", [28], data)})
        self.breaks("marker-json", {**int8(), "blocks.0.a.comfy_quant": Tensor("U8", [1, 28], data)})

    def test_a_marker_that_is_too_large(self):
        report = self.remarks("marker-size", int8(comment="x" * (64 << 10)), sdcpp=False)
        self.assertIn("marker-size", report["readers"][1]["because"])
        self.breaks("marker-json", int8(comment="x" * (1 << 20)))

    def test_a_marker_without_a_weight(self):
        tensors = int8()
        del tensors["blocks.0.a.weight"]
        self.breaks("marker-without-weight", tensors)

    def test_values_of_markers(self):
        for keys in ({"convrot": "true"}, {"convrot": 1}, {"full_precision_matrix_mult": "yes"}):
            self.breaks("marker-value", int8(**keys))
        for group in (0, -4, 2.5, "256", None):
            self.breaks("marker-value", int8(convrot=True, convrot_groupsize=group))

    def test_keys_inside_params(self):
        report = self.verify(int8(params=ROTATED))
        self.assertTrue(report["findings"])
        self.assertEqual({finding["rule"] for finding in report["findings"]}, {"nested-key"})

    # The header's entry.

    def entry(self, layers, **keys):
        return {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers, **keys})}

    def test_an_entry_that_equals_the_markers(self):
        self.assertEqual(self.verify(int8(), metadata=self.entry({"blocks.0.a": {"format": "int8_tensorwise"}}))["findings"], [])

    def test_an_entry_that_differs(self):
        report = self.breaks("marker-conflict", int8(), metadata=self.entry({"blocks.0.a": {"format": "int8_tensorwise", "convrot": False}}))
        self.assertIn("the header says", report["findings"][0]["text"])

    def test_an_entry_that_cannot_be_used(self):
        for text in ("", "{", "[]", "{}", '{"layers": []}', '{"format_version":"1.0","layers":null}'):
            self.breaks("header-entry", int8(), metadata={"_quantization_metadata": text})
        self.breaks("header-entry", int8(), metadata=self.entry({"blocks.0.a": "int8"}))

    def test_an_entry_without_a_marker(self):
        tensors = int8()
        del tensors["blocks.0.a.comfy_quant"]
        layers = {"blocks.0.a": {"format": "int8_tensorwise"}}
        self.remarks("header-only", tensors, metadata=self.entry(layers), sdcpp=False)
        prefixed = {f"model.diffusion_model.{name}": tensor for name, tensor in tensors.items()}
        self.remarks("header-only", prefixed, metadata=self.entry(layers), sdcpp=False)
        encoder = {f"text_encoders.t5.{name}": tensor for name, tensor in tensors.items()}
        self.breaks("header-only", encoder, metadata=self.entry({"text_encoders.t5.blocks.0.a": layers["blocks.0.a"]}))

    def test_an_entry_about_nothing(self):
        report = self.verify(int8(), status=1, metadata=self.entry({"blocks.0.a": {"format": "int8_tensorwise"}, "gone": {"format": "int8_tensorwise"}}))
        self.assertIn(("error", "marker-without-weight", "gone"), [(finding["level"], finding["rule"], finding["tensor"]) for finding in report["findings"]])

    # Tensors of int8 layers.

    def test_shapes_of_scales(self):
        self.assertEqual(self.verify(int8(scale=floats([8, 1])))["findings"], [])
        self.remarks("one-scale", int8(scale=floats([])), sdcpp=False)
        self.remarks("scale-shape", int8(scale=floats([1])), sdcpp=False, says="[]")
        self.breaks("scale-shape", int8(scale=floats([8])), says="along the columns")
        for shape in ([1, 8], [7, 1], [8, 256], [8, 1, 1], [2]):
            self.breaks("scale-shape", int8(scale=floats(shape)))

    def test_a_rotated_layer_needs_a_scale_per_row(self):
        for shape in ([], [1], [8]):
            self.breaks("scale-shape", int8(scale=floats(shape), **ROTATED), says="as it is rotated")

    def test_types_of_scales(self):
        for dtype in ("BF16", "F16", "F64"):
            self.breaks("scale-dtype", int8(scale=Tensor(dtype, [8, 1], b"\x01\x3c\x01\x3c\x01\x3c\x01\x3c"[: SIZES[dtype]] * 8)))

    def test_a_scale_that_is_missing(self):
        tensors = int8()
        del tensors["blocks.0.a.weight_scale"]
        self.breaks("scale-missing", tensors)

    def test_values_of_scales(self):
        for value in (float("nan"), float("inf"), float("-inf"), 0.0, -1.0):
            scale = floats([8, 1])
            scale.data = scale.data[:28] + struct.pack("<f", value)
            self.breaks("scale-value", int8(scale=scale), says="of the 8 values")
            self.assertTrue(json.loads(qmill("verify", self.folder / "model.safetensors", "--no-data", "--json")[0])["loads"])

    def test_a_weight_of_another_type(self):
        for dtype in ("U8", "F8_E4M3", "F16"):
            self.breaks("weight-dtype", int8(weight=Tensor(dtype, [8, 256])), says="expected I8")

    def test_groups_of_rotations(self):
        for group in (512, 128, 2, 6, 257):
            report = self.verify(int8(shape=(8, 1024), convrot=True, convrot_groupsize=group), status=1)
            self.assertIn("rotation-group", [finding["rule"] for finding in report["findings"]])
            self.assertEqual(sum(finding["level"] == "error" for finding in report["findings"]), 1)
        self.breaks("rotation-group", int8(shape=(8, 320), **ROTATED), says="does not divide its 320 columns")
        for group in (16, 64):
            self.remarks("slow-rotation", int8(convrot=True, convrot_groupsize=group), sdcpp=False)
        self.remarks("rotation-group", int8(convrot=True), sdcpp=False, says="does not say")

    def test_inputs_that_nobody_scales(self):
        self.remarks("input-scale", {**int8(), "blocks.0.a.input_scale": floats([])})
        for suffix in ("pre_quant_scale", "smooth_factors"):
            self.breaks("ignored-tensor", {**int8(), f"blocks.0.a.{suffix}": floats([256])})

    def test_the_lowest_code_is_only_a_remark(self):
        self.remarks("code-range", int8(weight=codes(8, 256, value=0x80)), says="2048")

    def test_modules_that_must_stay_floating(self):
        for shape, says in {(8,): "norms", (8, 4, 3, 3): "convolutions", (8, 4, 3): "num_experts"}.items():
            tensors = int8(shape=shape, weight=codes(*shape), scale=floats([8, 4, 1] if len(shape) == 3 else [8, 1]))
            self.breaks("quantized-module", tensors, says=says)
        self.breaks("quantized-module", {**int8(), "blocks.0.a.bias": codes(8)}, says="biases")
        bare = {"pos": codes(8, 256), "pos.weight_scale": floats([8, 1]), "pos.comfy_quant": marker(format="int8_tensorwise")}
        self.breaks("quantized-parameter", bare)

    def test_embeddings_are_said_to_be_special(self):
        self.remarks("quantized-embedding", int8("model.embed_tokens"), sdcpp=None)
        self.assertEqual(self.verify(int8("model.x_embedder"))["findings"], [])

    # Unmarked codes: noise without an error.

    def test_codes_without_a_marker(self):
        tensors = int8()
        del tensors["blocks.0.a.comfy_quant"]
        self.breaks("unmarked-codes", tensors, says="weight_scale")
        self.breaks("unmarked-codes", {"a.weight": codes(4, 4), "a.scale_weight": floats([4, 1])}, says="scale_weight")
        self.breaks("unmarked-codes", {"a.weight": codes(4, 4)}, says="noise")
        self.breaks("unmarked-codes", {"a.weight": Tensor("F8_E4M3", [4, 4]), "a.weight_scale": floats([])})
        self.remarks("plain-float8", {"a.weight": Tensor("F8_E4M3", [4, 4]), "b.weight": Tensor("F8_E5M2", [4, 4])}, says="2 weights are")
        for dtype in ("U8", "I64"):
            self.breaks("unmarked-codes", {"a.weight": Tensor(dtype, [8, 1])}, says=f"it is {dtype}", tensor="a.weight")
        legacy = {"a.weight": Tensor("F8_E4M3", [4, 4]), "a.scale_weight": floats([]), "scaled_fp8": Tensor("F8_E4M3", [0], b"")}
        self.assertEqual(self.verify(legacy)["findings"], [])

    # Packed layers.

    def test_detection_layers_must_not_be_packed(self):
        for name in ("img_in", "model.diffusion_model.txt_in", "cap_embedder.1", "down.0.transformer_blocks.0.attn2.to_k"):
            tensors = {f"{name}.weight": codes(4, 128), f"{name}.weight_scale": floats([4]), f"{name}.comfy_quant": marker(format="convrot_w4a4")}
            self.breaks("detection", tensors, says="128")
            self.assertEqual(self.verify(int8(name))["findings"], [])

    def test_packed_layers_that_are_wrong(self):
        def w4a4(scale=None, columns=128, **keys):
            return {"x.weight": codes(4, columns), "x.weight_scale": scale or floats([4]), "x.comfy_quant": marker(**{"format": "convrot_w4a4", **keys})}

        self.breaks("scale-shape", w4a4(floats([4, 1])))
        self.breaks("columns", w4a4(columns=16, convrot_groupsize=16), says="64")
        self.breaks("rotation-group", w4a4(columns=32, convrot_groupsize=256))
        self.breaks("marker-value", w4a4(linear_dtype="int2"))
        self.breaks("weight-dtype", {**w4a4(), "x.weight": Tensor("U8", [4, 128])})
        report = self.verify(w4a4(columns=128, convrot_groupsize=4))
        self.assertEqual([finding["rule"] for finding in report["findings"]], ["slow-rotation"])

    def test_other_formats_that_are_wrong(self):
        def nvfp4(**other):
            return {"x.weight": Tensor("U8", [16, 16]), "x.weight_scale": Tensor("F8_E4M3", [128, 4]), "x.weight_scale_2": floats([]), "x.comfy_quant": marker(format="nvfp4"),
                    **other}

        self.breaks("scale-shape", nvfp4(**{"x.weight_scale": Tensor("F8_E4M3", [16, 2])}), says="[128, 4]")
        self.breaks("scale-shape", nvfp4(**{"x.weight_scale_2": floats([1])}))
        self.breaks("columns", nvfp4(**{"x.weight": Tensor("U8", [15, 16])}))
        mxfp8 = {"x.weight": Tensor("F8_E4M3", [32, 64]), "x.weight_scale": Tensor("F8_E8M0", [128, 4]), "x.comfy_quant": marker(format="mxfp8")}
        rules = [finding["rule"] for finding in self.verify(mxfp8, status=1)["findings"]]
        self.assertEqual(sorted(rules), ["reader-dtype", "scale-dtype"])
        f8 = {"x.weight": Tensor("F8_E4M3", [4, 4]), "x.weight_scale": floats([4, 1]), "x.comfy_quant": marker(format="float8_e4m3fn")}
        self.breaks("scale-shape", f8)
        self.breaks("weight-dtype", {**f8, "x.weight_scale": floats([]), "x.comfy_quant": marker(format="float8_e5m2")})
        self.breaks("scale-dtype", {**f8, "x.weight_scale": Tensor("BF16", [], b"\x00\x3c")}, says="BF16")
        asym = {"x.weight": codes(4, 128), "x.weight_s_rel": Tensor("U8", [4, 16]), "x.weight_s_channel": floats([4]), "x.comfy_quant": marker(format="asym_w4a8_int8")}
        self.assertEqual(self.verify(asym)["findings"], [])
        self.breaks("scale-shape", {**asym, "x.weight_s_rel": Tensor("U8", [4, 15])})
        self.breaks("ignored-tensor", {**asym, "x.weight_correction": floats([16, 4])})
        self.breaks("marker-value", {**asym, "x.comfy_quant": marker(format="asym_w4a8_int8", group_size=24)})

    # The container.

    def test_types_that_readers_do_not_know(self):
        self.breaks("reader-dtype", {"a.scale": Tensor("F8_E8M0", [4])}, says="F8_E8M0", tensor="a.scale")

    def test_alignment(self):
        tensors = {"odd": Tensor("I8", [3]), "wide": Tensor("F32", [2])}
        self.remarks("alignment", tensors, as_given=True, says="no multiple of its element's 4 bytes")
        self.remarks("alignment", {"wide": Tensor("F64", [2])}, padding=4)
        self.assertEqual(self.verify({"wide": Tensor("F32", [2]), "odd": Tensor("I8", [3])})["findings"], [])

    def test_files_of_other_kinds_are_not_judged(self):
        path = self.folder / "model.gguf"
        # 123 tensors: the ninth byte is the '{' with which a header begins.
        info = b"".join(struct.pack("<Q", len(name)) + name + struct.pack("<IQIQ", 1, 8, 0, 32 * i) for i, name in enumerate(b"t%d" % i for i in range(123)))
        head = b"GGUF" + struct.pack("<IQQ", 3, 123, 0) + info
        path.write_bytes(head + bytes(-len(head) % 32) + bytes(32 * 123))
        self.assertEqual(len(json.loads(qmill("inspect", path, "--json")[0])["tensors"]), 123)
        torch.save({"a.weight": torch.ones(4, 4)}, self.folder / "model.pt")
        qmill("inspect", self.folder / "model.pt")
        for name in ("model.gguf", "model.pt"):
            for flags in ((), ("--json",), ("--no-data",)):
                output, error = qmill("verify", self.folder / name, *flags, status=1)
                self.assertEqual(output, "")
                self.assertEqual(len(error.strip().splitlines()), 1, error)
                for part in (f"{name}' is no safetensors file", "convert it"):
                    self.assertIn(part, error)
        # What was converted is judged, whatever its name.
        qmill("-i", self.folder / "model.pt", "-o", self.folder / "out.safetensors")
        self.assertTrue(qmill_json("verify", self.folder / "out.safetensors")["loads"])
        self.assertTrue(qmill_json("verify", (self.folder / "out.safetensors").rename(self.folder / "out"))["loads"])

    def test_files_that_are_none(self):
        path = self.write(int8())
        data = path.read_bytes()
        for broken in (b"", data[:100], data[:-1], struct.pack("<Q", 100_000_001) + data[8:], data + b"\0"):
            path.write_bytes(broken)
            output, error = qmill("verify", path, status=1)
            self.assertEqual(output, "")
            self.assertIn("model.safetensors", error)
        _, error = qmill("verify", self.folder / "none.safetensors", status=1)
        self.assertIn("none.safetensors", error)
        self.assertIn("no file is given", qmill("verify", status=2)[1])
