"""Stored bytes, read with the safetensors package and decoded in double precision."""

import json
import math

import torch

from support import ABACUS, TempFolder, decode, qmill, qmill_json, read, sqnr_db, unpack_int4

SETTINGS = {
    "default": [],
    "rotated_any": ["--convrot", "any"],
    "plain": ["--convrot", "off"],
    "tensor": ["--scaling-mode", "tensor"],
    "block": ["--scaling-mode", "block", "--block-size", "64"],
    "axis": ["--scaling-mode", "axis"],
    "legacy_row": ["--no-comfy-quant"],
    "legacy_tensor": ["--no-comfy-quant", "--scaling-mode", "tensor", "--input-scale"],
    "legacy_block": ["--no-comfy-quant", "--scaling-mode", "block", "--block-size", "32"],
    "fp16": ["--fp16"],
    "int4": ["--format", "int4", "--target", "any"],
    "int4_any": ["--format", "convrot_w4a4", "--convrot", "any", "--target", "any"],
    "int4_off": ["--format", "int4", "--convrot", "off"],
    "int4_and_int8": ["--format", "w4a4", "--convrot", "256", "--target", "any"],
    "hadamard_quip": ["--optimizer", "quip", "--quip-store-transformed", "--quip-transformed-layout", "full"],
}


class EveryFormat(TempFolder):
    def test_reported_quality_is_what_an_independent_reader_computes(self):
        source, _ = read(ABACUS)
        for name, flags in SETTINGS.items():
            with self.subTest(name):
                output = self.folder / f"{name}.safetensors"
                report = qmill_json("-i", ABACUS, "-o", output, *flags)
                compared = qmill_json("compare", output, ABACUS)
                inspected = {layer["name"]: layer for layer in qmill_json("inspect", output)["layers"]}
                tensors, _ = read(output)
                self.assertEqual([layer["name"] for layer in report["layers"]], sorted(layer["name"] for layer in report["layers"]))
                by_name = {layer["name"]: layer for layer in compared["layers"]}
                self.assertEqual(set(by_name), {layer["name"] for layer in report["layers"]})
                self.assertEqual(len(by_name), 27)
                for layer in report["layers"]:
                    base = layer["name"]
                    decoded = decode(tensors, base)
                    original = source[f"{base}.weight"].double()
                    expected = sqnr_db(original, decoded)
                    if expected == math.inf:  # every BF16 value of this model is an F16 value
                        self.assertEqual((layer["sqnr_db"], by_name[base]["sqnr_db"]), (None, None))
                    else:
                        self.assertAlmostEqual(layer["sqnr_db"], expected, delta=0.01)
                        self.assertAlmostEqual(by_name[base]["sqnr_db"], expected, delta=0.01)
                    self.assertAlmostEqual(by_name[base]["max_error"], (original - decoded).abs().max().item(), delta=1e-6)
                    self.assertEqual(by_name[base]["format"], layer["format"])
                    self.assertEqual(inspected[base]["format"], layer["format"])
                measured = [layer["sqnr_db"] for layer in report["layers"] if layer["sqnr_db"] is not None]
                if name != "fp16":
                    self.assertEqual(len(measured), 27)
                if measured:
                    self.assertAlmostEqual(compared["mean_sqnr_db"], sum(measured) / len(measured), delta=0.01)

    def test_everything_else_survives_byte_for_byte(self):
        source, metadata = read(ABACUS)
        output = self.folder / "out.safetensors"
        qmill("-i", ABACUS, "-o", output)
        tensors, written = read(output)
        for name, tensor in source.items():
            if tensor.dim() == 1:
                self.assertEqual(tensors[name].dtype, tensor.dtype)
                self.assertTrue(torch.equal(tensors[name], tensor), name)
        for key, value in metadata.items():
            self.assertEqual(written[key], value)

    def test_the_default_is_what_comfyui_loads(self):
        output = self.folder / "out.safetensors"
        qmill("-i", ABACUS, "-o", output)
        tensors, metadata = read(output)
        header = json.loads(metadata["_quantization_metadata"])
        self.assertEqual(header["format_version"], "1.0")
        source, _ = read(ABACUS)
        layers = [name[: -len(".weight")] for name, tensor in source.items() if tensor.dim() == 2]
        self.assertEqual(set(header["layers"]), set(layers))
        for layer in layers:
            rows, columns = source[f"{layer}.weight"].shape
            expected = {"format": "int8_tensorwise"}
            if columns % 256 == 0:
                expected |= {"convrot": True, "convrot_groupsize": 256}
            marker = tensors[f"{layer}.comfy_quant"]
            self.assertEqual(marker.dtype, torch.uint8)
            self.assertEqual(json.loads(bytes(marker.tolist())), expected)
            self.assertEqual(header["layers"][layer], expected)
            self.assertEqual(tensors[f"{layer}.weight"].dtype, torch.int8)
            self.assertEqual(tuple(tensors[f"{layer}.weight_scale"].shape), (rows, 1))
            self.assertEqual(tensors[f"{layer}.weight_scale"].dtype, torch.float32)
            self.assertGreaterEqual(tensors[f"{layer}.weight"].min().item(), -127)

    def test_plain_rows_equal_the_plain_expression(self):
        source, _ = read(ABACUS)
        output = self.folder / "out.safetensors"
        qmill("-i", ABACUS, "-o", output, "--convrot", "off")
        tensors, _ = read(output)
        for name, weight in source.items():
            if weight.dim() != 2:
                continue
            weight = weight.float()
            scale = (weight.abs().amax(1, keepdim=True) / 127).clamp_min(1e-30)
            codes = (weight / scale).round().clamp(-127, 127).to(torch.int8)
            self.assertTrue(torch.equal(tensors[name], codes), name)
            self.assertTrue(torch.equal(tensors[name + "_scale"], scale), name)


class Int4(TempFolder):
    def test_the_file_is_what_comfyui_loads(self):
        output = self.folder / "out.safetensors"
        qmill("-i", ABACUS, "-o", output, "--format", "int4")
        tensors, metadata = read(output)
        header = json.loads(metadata["_quantization_metadata"])
        groups = set()
        for name, weight in read(ABACUS)[0].items():
            if weight.dim() != 2:
                continue
            layer, (rows, columns) = name[: -len(".weight")], weight.shape
            if layer in ("token_embedding", "position_embedding"):  # readers take no int4 for tables
                self.assertTrue(torch.equal(tensors[name], weight))
                continue
            group = 256 if columns % 256 == 0 else 64
            groups.add(group)
            expected = {"format": "convrot_w4a4", "convrot_groupsize": group}
            self.assertEqual(json.loads(bytes(tensors[f"{layer}.comfy_quant"].tolist())), expected)
            self.assertEqual(header["layers"][layer], expected)
            self.assertEqual((tensors[name].dtype, tuple(tensors[name].shape)), (torch.int8, (rows, columns // 2)))
            scale = tensors[f"{layer}.weight_scale"]
            self.assertEqual((scale.dtype, tuple(scale.shape)), (torch.float32, (rows,)))
            self.assertLessEqual(unpack_int4(tensors[name]).abs().max().item(), 7)
        self.assertEqual(groups, {64, 256})

    def test_unrotated_rows_equal_the_plain_expression(self):
        output = self.folder / "out.safetensors"
        qmill("-i", ABACUS, "-o", output, "--format", "int4", "--convrot", "off")
        tensors, _ = read(output)
        for name, weight in read(ABACUS)[0].items():
            if weight.dim() != 2:
                continue
            weight = weight.float()
            scale = weight.abs().amax(1) / 7
            codes = (weight / scale[:, None]).round().clamp(-7, 7)
            self.assertTrue(torch.equal(unpack_int4(tensors[name]), codes.long()), name)
            self.assertTrue(torch.equal(tensors[name + "_scale"], scale), name)

    def test_layers_that_are_int8_instead_are_said_and_compared(self):
        generator = torch.Generator().manual_seed(1)
        names = {"blocks.0.a": (64, 512), "blocks.0.b": (64, 300), "blocks.1.b": (32, 300), "model.diffusion_model.img_in": (64, 192)}
        model = self.model({f"{name}.weight": torch.randn(shape, generator=generator) for name, shape in names.items()})
        output = self.folder / "out.safetensors"
        notes = {
            "blocks.0.a": "",
            "blocks.0.b": "64 does not divide its 300 columns: int8; 256 does not divide its 300 columns: not rotated",
            "model.diffusion_model.img_in": "readers detect the model by its 192 columns (Flux, Lens, Qwen-Image): int8; "
            "256 does not divide its 192 columns: not rotated",
        }
        notes["blocks.1.b"] = notes["blocks.0.b"]
        plan = qmill_json("plan", model, "--format", "int4")
        self.assertEqual({layer["name"]: layer["note"] for layer in plan["layers"]}, notes)
        for text in (qmill("plan", model, "--format", "int4")[0], "".join(qmill("-i", model, "-o", output, "--format", "int4"))):
            self.assertIn("2 layers, such as blocks.0.b: " + notes["blocks.0.b"], text)
            self.assertIn("img_in: readers detect the model by its 192 columns", text)
            self.assertIn("ComfyUI 0.28.0 or newer", text)
        compared = {layer["name"]: layer["format"] for layer in qmill_json("compare", output, model)["layers"]}
        self.assertEqual(compared, {name: "int8_tensorwise" if note else "convrot_w4a4" for name, note in notes.items()})

    def test_wishes_that_it_cannot_express_are_refused(self):
        for flags, words in {
            ("--scaling-mode", "tensor"): "one scale per row",
            ("--block-size", "64"): "one scale per row",
            ("--no-comfy-quant",): "legacy names",
        }.items():
            self.assertIn(words, qmill("plan", ABACUS, "--format", "int4", *flags, status=2)[1])

    def test_the_unrotated_layout_is_said_not_to_load(self):
        text = qmill("plan", ABACUS, "--format", "int4", "--convrot", "off")[0]
        self.assertRegex(text, r"mainline ComfyUI does not load int4_rowwise\n")


class Determinism(TempFolder):
    def test_the_same_bytes_for_every_number_of_threads_and_from_run_to_run(self):
        files = []
        for name, flags in {"a": ["--threads", "1"], "b": ["--threads", "4"], "c": ["--threads", "3", "--in-flight", "1"], "d": []}.items():
            files.append(self.folder / f"{name}.safetensors")
            qmill("-i", ABACUS, "-o", files[-1], *flags)
        self.assertEqual(len({path.read_bytes() for path in files}), 1)


class Size(TempFolder):
    def test_the_plan_predicts_the_file_to_the_byte(self):
        for name, flags in SETTINGS.items():
            with self.subTest(name):
                output = self.folder / f"{name}.safetensors"
                plan = qmill_json("plan", ABACUS, "-o", output, *flags)
                self.assertFalse(output.exists())
                qmill("-i", ABACUS, "-o", output, *flags)
                self.assertEqual(plan["output_bytes"], output.stat().st_size)
                tensors, _ = read(output)
                planned = {tensor["name"]: tensor for layer in plan["layers"] for tensor in layer["outputs"]}
                for tensor_name, tensor in planned.items():
                    self.assertEqual(list(tensors[tensor_name].shape), tensor["shape"])
