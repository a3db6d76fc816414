"""Stored bytes, read with the safetensors package and decoded in double precision."""

import json
import math

import torch

from support import ABACUS, TempFolder, decode, qmill, qmill_json, read, sqnr_db

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
