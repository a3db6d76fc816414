"""The quantizers that round under real inputs: what their flags mean, and the layout hadamard_quip."""

import json
import re

import torch

from support import ABACUS, TempFolder, decode, qmill, qmill_json, read

FULL = ("--optimizer", "quip", "--quip-store-transformed", "--quip-transformed-layout", "full")


def values(rows, columns, seed):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


class WithInputs(TempFolder):
    """A model of one layer, and rows of its inputs: few directions hold most of them."""

    def setUp(self):
        super().setUp()
        self.weight = values(48, 320, 1)
        self.rows = values(900, 40, 2) @ values(40, 320, 3) / 6 + values(900, 320, 4) / 10
        self.source = self.model({"a.weight": self.weight})
        self.data = self.model({"a.input": self.rows}, "inputs.safetensors")

    def convert(self, name, *flags):
        output = self.folder / f"{name}.safetensors"
        report = qmill_json("-i", self.source, "-o", output, "--calibration-data", self.data, *flags)
        return read(output)[0], report["layers"][0]

    def output_error(self, tensors):
        error = self.weight.double() - decode(tensors, "a")
        return ((self.rows.double() @ error.T).norm() / (self.rows.double() @ self.weight.double().T).norm()).item()

    def test_stored_in_the_convrot_layout_quip_is_gptq_with_rotation(self):
        quip, layer = self.convert("quip", "--optimizer", "quip", "--quip-store-transformed", "--no-quip-actorder")
        gptq, other = self.convert("gptq", "--optimizer", "gptq", "--convrot", "any")
        self.assertEqual(layer["output_error"], other["output_error"])
        self.assertEqual(quip.keys(), gptq.keys())
        for name, tensor in quip.items():
            self.assertTrue(torch.equal(tensor, gptq[name]), name)
        self.assertIn("convrot", json.loads(bytes(quip["a.comfy_quant"].tolist())))

    def test_the_full_layout_gains_from_the_inputs(self):
        with_inputs, _ = self.convert("full", *FULL)
        output = self.folder / "blind.safetensors"
        qmill("-i", self.source, "-o", output, *FULL)
        self.assertLess(self.output_error(with_inputs), 0.7 * self.output_error(read(output)[0]))
        self.assertEqual(tuple(with_inputs["a.weight"].shape), (64, 512))
        self.assertIn("padded to 64 x 512: 2.13 bytes per value", qmill("plan", self.source, *FULL)[0])

    def test_one_flag_sets_the_option_of_every_quantizer_that_names_it(self):
        text = qmill("--help", "all")[0]
        self.assertEqual(len(re.findall(r"--damping\b", text)), 1)
        self.assertEqual(len(re.findall(r"--scale-search\b", text)), 1)
        self.assertNotIn("--quip-damping", text)
        self.assertRegex(text, r"Options of the quantizers (\w+, )*gptq, (\w+, )*quip")
        for optimizer in ("gptq", "quip"):
            codes = [
                self.convert(f"{optimizer}{damping}", "--optimizer", optimizer, "--damping", damping)[0]["a.weight"] for damping in ("0.01", "3")
            ]
            self.assertFalse(torch.equal(*codes), optimizer)

    def test_checkpoints_change_no_byte(self):
        flags = ("--optimizer", "quip", "--quip-checkpoint-threshold", "100")
        whole, _ = self.convert("whole", *flags)
        parts, _ = self.convert("parts", *flags, "--quip-checkpointed")
        for name, tensor in whole.items():
            self.assertTrue(torch.equal(tensor, parts[name]), name)


class BlockSize(TempFolder):
    def setUp(self):
        super().setUp()
        self.source = self.model({"a.weight": values(64, 128, 1)})

    def layout(self, *flags):
        return qmill_json("plan", self.source, *flags)["layers"][0]["layout"]

    def test_it_is_an_option_of_quantizers_that_have_one(self):
        for optimizer in ("gptq", "quip"):
            self.assertEqual(self.layout("--optimizer", optimizer, "--block-size", "32"), "int8 row")
            self.assertEqual(self.layout("--optimizer", optimizer, "--block-size", "32", "--scaling-mode", "tensor"), "int8 tensor")
            error = qmill("plan", self.source, "--optimizer", optimizer, "--block-size", "32", f"--{optimizer}-block-size", "16", status=2)[1]
            self.assertIn("give one", error)

    def test_with_block_scaling_and_with_others_it_is_the_edge_of_a_block(self):
        for flags in (
            ("--optimizer", "quip", "--scaling-mode", "block"),
            ("--optimizer", "gptq", "--format", "int8_blockwise"),
            ("--optimizer", "quip", "--quip-requant-scheme", "block"),
            ("--optimizer", "rtn"),
            ("--simple",),
            (),
        ):
            self.assertEqual(self.layout(*flags, "--block-size", "32"), "int8 block 32", flags)


class Full(TempFolder):
    def test_the_same_bytes_for_every_number_of_threads_and_other_ones_for_another_seed(self):
        files = {}
        for name, flags in {"one": ["--threads", "1"], "three": ["--threads", "3"], "seed": ["--quip-seed", "7"]}.items():
            output = self.folder / f"{name}.safetensors"
            qmill("-i", ABACUS, "-o", output, *FULL, *flags)
            files[name] = output.read_bytes()
        self.assertEqual(files["one"], files["three"])
        self.assertNotEqual(files["one"], files["seed"])

    def test_no_two_layers_share_signs(self):
        output = self.folder / "out.safetensors"
        qmill("-i", ABACUS, "-o", output, *FULL)
        tensors, _ = read(output)
        for kind in ("sign_row", "sign_col"):
            signs = [tuple(tensor[:64].tolist()) for name, tensor in tensors.items() if name.endswith(kind) and len(tensor) >= 64]
            self.assertGreater(len(signs), 10)
            self.assertEqual(len(set(signs)), len(signs))

    def test_it_is_said_that_comfyui_does_not_load_it(self):
        text = qmill("plan", ABACUS, *FULL)[0]
        self.assertIn("mainline ComfyUI does not load hadamard_quip", text)

    def test_wishes_that_contradict_it_are_wrong_command_lines(self):
        for flags, words in {
            ("--scaling-mode", "tensor"): "tensor scaling",
            ("--no-comfy-quant",): "legacy names",
            ("--convrot", "any"): "rotation 'any'",
            ("--format", "int4"): "format 'int4'",
            ("--no-quip-hadamard",): "dense",
            ("--quip-requant-scheme", "block"): "'requant_scheme' block",
        }.items():
            self.assertIn(words, qmill("plan", ABACUS, *FULL, *flags, status=2)[1])
