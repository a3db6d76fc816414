"""The programs of docs/examples, run in a folder with the files that they name, and what they did."""

import subprocess

import torch
from safetensors.torch import save_file

from support import BUILD, SOURCE, TempFolder, decode, read

EXAMPLES = SOURCE / "docs" / "examples"


class Examples(TempFolder):
    @classmethod
    def setUpClass(cls):
        generator = torch.Generator().manual_seed(1)
        draw = lambda *shape: torch.randn(*shape, generator=generator)
        cls.model = {
            "layer.weight": draw(256, 256),
            "blocks.0.attention.q.weight": draw(128, 256),
            "final_layer.weight": draw(64, 256),
        }
        mix = draw(32, 256)
        cls.inputs = draw(1000, 32) @ mix + 0.1 * draw(1000, 256)
        cls.loras = [{"layer.lora_A.weight": draw(4, 256), "layer.lora_B.weight": draw(256, 4), "layer.alpha": torch.tensor(2.0)},
                     {"layer.lora_A.weight": draw(8, 256), "layer.lora_B.weight": draw(256, 8)}]

    def setUp(self):
        super().setUp()
        for name in ("model", "base_model"):
            save_file(self.model, self.folder / f"{name}.safetensors", metadata={"author": "somebody"})
        save_file({"layer.input": self.inputs}, self.folder / "inputs.safetensors")
        for name, lora in zip(("lora", "second_lora"), self.loras):
            save_file(lora, self.folder / f"{name}.safetensors")
        save_file(self.loras[0], self.folder / "style_lora.safetensors")

    def run_example(self, name):
        """(stdout, stderr) of the program; it must succeed."""
        result = subprocess.run([BUILD / "bin" / "examples" / f"example_{name}"], cwd=self.folder, capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout, result.stderr

    def layer(self):
        return self.model["layer.weight"].double()

    def row_step(self):
        return (self.layer().abs().amax() / 127).item()

    def largest_error(self, text):
        return float(text.split("largest error")[1])

    def change(self, index):
        lora = self.loras[index]
        rank = lora["layer.lora_A.weight"].shape[0]
        alpha = lora.get("layer.alpha", torch.tensor(float(rank))).item()
        return lora["layer.lora_B.weight"].double() @ lora["layer.lora_A.weight"].double() * (alpha / rank)

    def test_convert_to_int8(self):
        self.run_example("convert_to_int8")
        tensors, metadata = read(self.folder / "model_int8.safetensors")
        self.assertEqual(metadata["qmill.seed"], "42")
        self.assertLess((decode(tensors, "layer") - self.layer()).abs().max().item(), self.row_step() * 10)
        tensors, metadata = read(self.folder / "quantized_model.safetensors")
        self.assertEqual(metadata["qmill.quantizer"], "quip")
        merged = self.layer() + self.change(0)
        relative = (decode(tensors, "layer") - merged).norm() / merged.norm()
        self.assertLess(relative.item(), 0.02)

    def test_unified_safetensors_loader(self):
        text, _ = self.run_example("unified_safetensors_loader")
        for name in self.model:
            self.assertIn(f"key {name}\n", text)
        self.assertIn("metadata author = somebody", text)
        self.assertIn("shape 256 x 256, 2 dimensions", text)
        self.assertAlmostEqual(float(text.split("first value")[1]), self.layer()[0, 0].item(), places=5)

    def test_quip_int8_converter(self):
        text, _ = self.run_example("quip_int8_converter")
        self.assertLessEqual(self.largest_error(text), self.row_step() * 0.5001)

    def test_learned_rounding_converter(self):
        text, _ = self.run_example("learned_rounding_converter")
        self.assertLessEqual(self.largest_error(text), self.row_step() * 1.0001)  # each integer goes up or down
        self.assertGreater(self.largest_error(text), 0)

    def test_gptq_int8_converter(self):
        text, _ = self.run_example("gptq_int8_converter")
        inputs, weight = self.inputs.double(), self.layer()
        scale = weight.abs().amax(1, keepdim=True) / 127
        rounded = (inputs @ (weight - (weight / scale).round() * scale).T).square().sum().item()
        self.assertLess(float(text.split("output error")[1]), 0.6 * rounded)

    def test_quality_reporter(self):
        text, _ = self.run_example("quality_reporter")
        weight = self.layer()
        scale = weight.abs().amax(1, keepdim=True) / 127
        error = (weight - (weight / scale).round() * scale).square().mean()
        sqnr = 10 * torch.log10(weight.square().mean() / error).item()
        self.assertIn("Quantization Quality Report:", text)
        row = next(line for line in text.splitlines() if line.startswith("layer_name"))
        self.assertAlmostEqual(float(row.split("|")[2]), sqnr, places=1)

    def test_load_lora_tensors(self):
        self.assertEqual(self.run_example("load_lora_tensors")[0], "layer 4 x 256\n")

    def test_load_lora_for_merging(self):
        self.assertEqual(self.run_example("load_lora_for_merging")[0], "layer rank 4 alpha 2.0, A 4 x 256, B 256 x 4\n")

    def test_merge_lora_into_weight(self):
        text, _ = self.run_example("merge_lora_into_weight")
        self.assertAlmostEqual(float(text.split("change")[1]), self.change(0).abs().max().item(), places=4)

    def test_merge_multiple_loras(self):
        text, _ = self.run_example("merge_multiple_loras")
        expected = (self.change(0) + 0.9 * self.change(1)).abs().max().item()
        self.assertAlmostEqual(float(text.split("change")[1]), expected, places=4)

    def test_layer_config(self):
        (self.folder / "layer_config.json").write_bytes((EXAMPLES / "layer_config.json").read_bytes())
        self.run_example("layer_config")
        tensors, _ = read(self.folder / "output.safetensors")
        self.assertEqual(list(tensors["blocks.0.attention.q.weight_scale"].shape), [2, 4])  # blocks of 64
        self.assertEqual(tensors["final_layer.weight"].dtype, torch.float16)
        self.assertEqual(tensors["layer.weight"].dtype, torch.int8)

    def test_constants(self):
        text, _ = self.run_example("constants")
        for name in ("t5xxl", "mistral", "flux2", "wan", "zimage_refiner", "lora"):
            self.assertIn(f"filter {name}\n", text)

    def test_setup_logging(self):
        _, log = self.run_example("setup_logging")
        self.assertIn("quantize layer.weight", log)

    def test_type_annotations(self):
        self.assertEqual(self.run_example("type_annotations")[0], "agree\n")

    def test_every_program_is_here(self):
        programs = {path.stem for path in EXAMPLES.glob("*.cpp")}
        tests = {name.removeprefix("test_") for name in dir(self) if name.startswith("test_")} - {"every_program_is_here"}
        self.assertEqual(programs, tests)
