"""What every flag of convert changes, in both spellings. Wrong values are in test_values.py."""

import json

import torch

from support import TempFolder, decode, qmill, qmill_json, read


def underscored(flag):
    """--scaling-mode=row -> --scaling_mode=row"""
    name, equals, value = flag.partition("=")
    return name[:2] + name[2:].replace("-", "_") + equals + value


class Flags(TempFolder):
    def setUp(self):
        super().setUp()
        generator = torch.Generator().manual_seed(1)
        draw = lambda *shape: torch.randn(*shape, generator=generator)
        self.tensors = {
            "a.weight": draw(256, 256).bfloat16(),
            "a.bias": draw(256),
            "b.weight": draw(32, 128).bfloat16(),
            "shared.weight": draw(64, 64).bfloat16(),
            "thin.weight": draw(8, 64).bfloat16(),
            "conv.weight": draw(4, 4, 3, 3),
        }
        self.source = self.model(self.tensors)
        self.rows = draw(600, 24) @ draw(24, 256) + 0.1 * draw(600, 256)
        self.data = self.model({"a.input": self.rows, "a.input_scale": torch.tensor(0.25)}, "rows.safetensors")

    def convert(self, *flags):
        """(tensors, metadata) of the output, the same for hyphens and underscores."""
        outputs = []
        for spelling in (str, underscored):
            output = self.folder / "out.safetensors"
            qmill("-i", self.source, "-o", output, "--overwrite", "--no-sync", *[spelling(str(flag)) for flag in flags])
            outputs.append(read(output))
        (first, _), (second, _) = outputs
        self.assertEqual(first.keys(), second.keys())
        for name in first:
            self.assertTrue(torch.equal(first[name], second[name]), name)
        return outputs[0]

    def layer(self, name, *flags):
        """What the plan says of a layer, or of a tensor that is not just copied."""
        layers = qmill_json("plan", self.source, *flags)["layers"]
        return next(layer for layer in layers if layer["name"] == name)

    def marker(self, tensors, layer):
        return json.loads(bytes(tensors[f"{layer}.comfy_quant"].tolist()))

    # Input and output

    def test_comfy_quant(self):
        tensors, metadata = self.convert("--no-comfy-quant")
        self.assertIn("a.scale_weight", tensors)
        self.assertNotIn("a.comfy_quant", tensors)
        self.assertIn("a.comfy_quant", self.convert("--comfy-quant")[0])

    def test_save_quant_metadata(self):
        self.assertIn("_quantization_metadata", self.convert("--save-quant-metadata")[1])
        self.assertNotIn("_quantization_metadata", self.convert("--no-save-quant-metadata")[1])

    def test_full_precision_matrix_mult(self):
        self.assertIs(self.marker(self.convert("--full-precision-matrix-mult")[0], "a")["full_precision_matrix_mult"], True)
        self.assertNotIn("full_precision_matrix_mult", self.marker(self.convert()[0], "a"))

    def test_input_scale(self):
        tensors, _ = self.convert("--no-comfy-quant", "--input-scale")
        self.assertEqual(tensors["a.scale_input"].item(), 1)
        self.assertEqual(tensors["a.scale_input"].shape, ())

    def test_static_activations(self):
        tensors, _ = self.convert("--no-comfy-quant", "--static-activations", f"--calibration-data={self.data}")
        self.assertEqual(tensors["a.scale_input"].item(), 0.25)
        self.assertEqual(tensors["b.scale_input"].item(), 1)
        text, _ = qmill("plan", self.source, "--no-comfy-quant", "--static-activations", "--calibration-data", self.data)
        self.assertIn("no input_scale for 3 quantized layers", text)
        qmill("plan", self.source, "--static-activations", "--calibration-data", self.data, status=2)
        qmill("plan", self.source, "--no-comfy-quant", "--static-activations", status=2)

    def test_no_normalize_scales(self):
        tensors, _ = self.convert("--no-comfy-quant", "--scaling-mode=tensor", "--no-normalize-scales")
        self.assertEqual(tensors["a.scale_weight"].shape, (1,))
        self.assertEqual(len(qmill_json("compare", self.folder / "out.safetensors", self.source)["layers"]), 4)
        self.assertEqual(self.convert("--no-comfy-quant", "--scaling-mode=tensor")[0]["a.scale_weight"].shape, ())
        qmill("plan", self.source, "--no-normalize-scales", status=2)

    def test_keep_dtype(self):
        tensors, _ = self.convert("--keep-dtype=f16", "--exclude-layers=^b")
        self.assertEqual(tensors["b.weight"].dtype, torch.float16)
        self.assertEqual(tensors["conv.weight"].dtype, torch.float16)
        self.assertEqual(tensors["a.weight"].dtype, torch.int8)

    # Quality

    def test_quality(self):
        with_figures, report = self.convert("--quality", "on")[0], self.folder / "report.json"
        without = self.convert("--quality=off", "--report=" + str(report))[0]
        self.assertEqual(with_figures.keys(), without.keys())
        self.assertTrue(all(torch.equal(tensor, without[name]) for name, tensor in with_figures.items()))
        for layer in json.loads(report.read_text())["layers"]:
            self.assertIs(layer["measured"], False)
            self.assertFalse({"mse", "sqnr_db", "max_error"} & layer.keys())
        summary, _ = qmill("-i", self.source, "-o", self.folder / "out.safetensors", "--overwrite", "--quality", "off")
        self.assertIn("quality    not measured (--quality off)", summary)
        self.assertNotIn("dB", summary)
        for flags in (("--fail-below", "10"), ("--report-quality",)):
            _, error = qmill("-i", self.source, "-o", self.folder / "out.safetensors", "--overwrite", "--quality", "off", *flags, status=2)
            self.assertIn(flags[0], error)

    # Format

    def test_format(self):
        self.assertEqual(self.layer("a", "--format", "int8_axiswise")["format"], "int8_axiswise")
        self.assertEqual(self.layer("a", "--format", "int4")["format"], "convrot_w4a4")
        self.assertEqual(self.layer("a", "--int8")["format"], "int8_tensorwise")
        self.assertEqual(self.layer("a", "--fp16")["format"], "fp16")

    def test_scaling_mode(self):
        shapes = {mode: self.convert(f"--scaling-mode={mode}")[0]["a.weight_scale"].shape for mode in ("row", "tensor", "axis", "block")}
        self.assertEqual(shapes, {"row": (256, 1), "tensor": (), "axis": (256,), "block": (2, 2)})

    def test_block_size(self):
        self.assertEqual(self.convert("--block-size=64")[0]["a.weight_scale"].shape, (4, 4))
        self.assertEqual(self.convert("--scaling-mode=block", "--block-size=32")[0]["a.weight_scale"].shape, (8, 8))
        layer = self.layer("a", "--block-size", "32", "--optimizer", "gptq", "--calibration-data", self.data)
        self.assertEqual((layer["options"], layer["format"]), ({"block_size": 32}, "int8_tensorwise"))

    def test_convrot(self):
        self.assertEqual(self.marker(self.convert("--convrot=any")[0], "b")["convrot_groupsize"], 64)
        self.assertEqual(self.marker(self.convert("--convrot=16")[0], "b")["convrot_groupsize"], 16)
        self.assertNotIn("convrot", self.marker(self.convert("--convrot=off")[0], "a"))
        self.assertEqual(self.marker(self.convert("--convrot=auto")[0], "a")["convrot_groupsize"], 256)

    # Quantizer

    def test_optimizer(self):
        for name, plugin in (("rtn", "rtn"), ("simple", "rtn"), ("gptq", "gptq"), ("quip", "quip"), ("original", "learned_rounding"),
                             ("adamw", "adamw"), ("radam", "radam"), ("auto", "rtn")):
            self.assertEqual(self.layer("a", "--optimizer", name)["quantizer"], plugin)

    def test_simple(self):
        for flag in ("--simple", "--no-learned-rounding", "--no_learned_rounding"):
            self.assertEqual(self.layer("a", flag, "--calibration-data", self.data)["quantizer"], "rtn")
        self.assertEqual(self.layer("a", "--calibration-data", self.data)["quantizer"], "gptq")

    def test_manual_seed(self):
        flags = ("--optimizer=quip", "--quip-store-transformed", "--quip-transformed-layout=full")
        first, second = (self.convert(*flags, f"--manual-seed={seed}")[0]["a.sign_col"] for seed in (1, 2))
        self.assertFalse(torch.equal(first, second))

    def test_every_option_of_a_quantizer_reaches_it(self):
        """A value that is not the default, through its flag, is what the plan says that the layer's quantizer gets."""
        flags = json.loads(qmill("convert", "--help", "all", "--json")[0])["flags"]
        options = [flag for flag in flags if flag["group"].startswith("Options of the quantizer")]
        self.assertGreater(len(options), 35)
        for flag in options:
            quantizer = flag["group"].split("quantizer", 1)[1].removeprefix("s").split(",")[0].strip()
            initial = flag["default"]
            if initial in ("on", "off"):
                words, value = [f"--{'no-' if initial == 'on' else ''}{flag['name']}"], initial == "off"
            elif flag["name"] == "damping":  # a word or a number
                value = "0.5"
                words = ["--damping", value]
            elif flag.get("choices"):
                value = next(choice for choice in flag["choices"] if choice != initial)
                words = [f"--{flag['name']}", value]
            else:
                value = 1 if initial != "1" else 2
                words = [f"--{flag['name']}", str(value)]
            if flag["name"] == "quip-transformed-layout":
                words.append("--quip-store-transformed")
            format_flags = ["--fp16"] if quantizer == "fp16" else ["--optimizer", quantizer]
            got = self.layer("a", *format_flags, *words)["options"]
            key = max((name for name in got if flag["name"].replace("-", "_").endswith(name)), key=len, default=None)
            self.assertIsNotNone(key, f"{flag['name']}: {got}")
            self.assertEqual(got[key], value, flag["name"])

    # Calibration

    def test_calib_samples(self):
        every_second = self.model({"a.input": self.rows[::2].contiguous()}, "half.safetensors")
        limited, _ = self.convert(f"--calibration-data={self.data}", "--calib-samples=300")
        half, _ = self.convert(f"--calibration-data={every_second}")
        self.assertTrue(torch.equal(limited["a.weight"], half["a.weight"]))
        self.assertFalse(torch.equal(limited["a.weight"], self.convert(f"--calibration-data={self.data}")[0]["a.weight"]))
        self.assertIn("changes nothing without --calibration-data", qmill("plan", self.source, "--calib-samples", 5)[0])

    def test_bias_correction(self):
        kept = self.convert(f"--calibration-data={self.data}", "--no-bias-correction")[0]["a.bias"]
        self.assertTrue(torch.equal(kept, self.tensors["a.bias"]))
        tensors, _ = self.convert(f"--calibration-data={self.data}")
        weight = self.tensors["a.weight"].double()
        before = (self.rows.double() @ (weight - decode(tensors, "a")).T).mean(0).abs().mean()
        after = (self.rows.double() @ (weight - decode(tensors, "a")).T + kept.double() - tensors["a.bias"].double()).mean(0).abs().mean()
        self.assertLess(after.item(), before.item())

    # Which layers

    def test_filters(self):
        for flags in (["--filter", "t5xxl"], ["--t5xxl"], ["--filter=generic-text"], ["--generic_text"]):
            layer = self.layer("shared", *flags)
            self.assertEqual((layer["action"], layer["rule"]), ("copy", "filter"))

    def test_exclude_layers_and_fallback(self):
        self.assertEqual(self.layer("b", "--exclude-layers", "^b")["rule"], "exclude")
        self.assertEqual(self.layer("b", "--exclude_layers=^b", "--fallback", "fp16")["format"], "fp16")
        layer = self.layer("b", "--exclude-layers", "^b", "--fallback", "int8", "--fallback-block-size", 16, "--fallback-simple")
        self.assertEqual((layer["layout"], layer["quantizer"]), ("int8 block 16", "rtn"))

    def test_fallback_simple(self):
        flags = ("--calibration-data", self.data, "--exclude-layers", "^a", "--fallback", "int8")
        self.assertEqual(self.layer("a", *flags)["quantizer"], "gptq")
        self.assertEqual(self.layer("a", *flags, "--fallback-simple")["quantizer"], "rtn")

    def test_custom_layers(self):
        self.assertEqual(self.layer("b", "--custom-layers", "^b", "--custom-type", "fp16")["format"], "fp16")
        flags = ("--custom-layers", "^b", "--custom-type", "int8")
        self.assertEqual(self.layer("b", *flags, "--custom-block-size", 32)["layout"], "int8 block 32")
        self.assertEqual(self.layer("b", *flags, "--custom-scaling-mode", "tensor")["layout"], "int8 tensor")
        self.assertEqual(self.layer("b", *flags)["rule"], "custom")

    def test_custom_simple(self):
        flags = ("--calibration-data", self.data, "--custom-layers", "^a", "--custom-type", "int8")
        self.assertEqual(self.layer("a", *flags)["quantizer"], "gptq")
        self.assertEqual(self.layer("a", *flags, "--custom-simple")["quantizer"], "rtn")

    def test_heur(self):
        self.assertEqual(self.layer("thin")["action"], "quantize")
        self.assertEqual(self.layer("thin", "--heur")["rule"], "heuristic")
        flags = ("--custom-layers", "thin", "--custom-type", "int8")
        self.assertEqual(self.layer("thin", *flags)["action"], "quantize")
        self.assertEqual(self.layer("thin", *flags, "--custom-heur")["rule"], "heuristic")

    def test_layer_config_and_fullmatch(self):
        config = self.folder / "layers.json"
        config.write_text(json.dumps({"layer_patterns": {"hare": {"format": "fp16"}}}))
        self.assertEqual(self.layer("shared", "--layer-config", config)["format"], "fp16")
        self.assertEqual(self.layer("shared", "--layer-config", config, "--fullmatch")["format"], "int8_tensorwise")

    # Running and memory: the same bytes, and a summary that says what was done

    def test_memory(self):
        expected = self.convert()[0]
        for flags, said in (((), "balanced, 128 MiB in flight"), (["--streaming-mode=off"], "off, without a limit"),
                            (["--streaming-mode=minimal"], "minimal, 512 MiB in flight"), (["--streaming"], "balanced, 128 MiB in flight"),
                            (["--streaming-aggressive"], "aggressive, 32 MiB in flight"), (["--streaming-mode=auto"], "auto: minimal, 512 MiB"),
                            (["--low-memory"], "one layer at a time"), (["--no-memory-limits"], "without a limit"), (["--in-flight=7"], "7 MiB")):
            self.assertIn(said, qmill_json("plan", self.source, *flags)["memory"])
            tensors, _ = self.convert(*flags)
            self.assertTrue(torch.equal(tensors["a.weight"], expected["a.weight"]), flags)

    def test_thresholds(self):
        flags = ("--optimizer=gptq", f"--calibration-data={self.data}")
        expected = self.convert(*flags)[0]["a.weight"]
        for step in ("ldlq", "hadamard", "hessian"):
            report = qmill_json("-i", self.source, "-o", self.folder / "out.safetensors", "--overwrite", *flags, f"--stream-{step}-threshold", 128 * 256)
            layer = next(layer for layer in report["layers"] if layer["name"] == "a")
            self.assertEqual(layer["statistics"].get("pieces"), None if step == "hessian" else 2, step)
            self.assertTrue(torch.equal(read(self.folder / "out.safetensors")[0]["a.weight"], expected))
        remarks = qmill_json("plan", self.source, "--stream-ortho-threshold", 5)["remarks"]
        self.assertEqual(remarks, ["--stream-ortho-threshold changes nothing: no dense transform is applied to a weight"])

    def test_device_and_flags_for_gpus(self):
        for device in ("auto", "cpu"):
            self.assertEqual(qmill_json("plan", self.source, "--device", device)["remarks"], [])
        _, error = qmill("plan", self.source, "--device", "cuda:0", status=1)
        self.assertIn("this build computes on the CPU", error)
        for flag in (["--bf16-compute", "on"], ["--bf16-threshold", 5], ["--bf16-hadamard-threshold", 5], ["--bf16-hessian-threshold", 5],
                     ["--verbose-pinned"]):
            remarks = qmill_json("plan", self.source, *flag)["remarks"]
            self.assertEqual(remarks, [f"{flag[0]} is for GPUs: it changes nothing on a CPU"])

    def test_gptq_turbo(self):
        flags = ("-i", self.source, "-o", self.folder / "out.safetensors", "--overwrite", "--calibration-data", self.data)
        self.assertIn("turbo is for GPUs", qmill(*flags, "--gptq-turbo")[0])
        self.assertNotIn("turbo", qmill(*flags)[0])

    def test_environment(self):
        for value, said in (("conservative", "minimal"), ("balanced", "balanced"), ("aggressive", "aggressive")):
            plan = json.loads(qmill("plan", self.source, "--json", env={"STREAMING_AGGRESSIVENESS": value})[0])
            self.assertTrue(plan["memory"].startswith(said))
        plan = json.loads(qmill("plan", self.source, "--json", "--streaming-mode", "minimal", env={"STREAMING_AGGRESSIVENESS": "aggressive"})[0])
        self.assertTrue(plan["memory"].startswith("minimal"))
        for name, value, allowed in (("STREAMING_AGGRESSIVENESS", "bold", "conservative, balanced, aggressive"),
                                     ("ENABLE_MIXED_HADAMARD", "2", "auto, 1, 0"), ("MIXED_HADAMARD_DTYPE", "f16", "bfloat16, float16")):
            _, error = qmill("plan", self.source, status=2, env={name: value})
            self.assertIn(f"{name} is '{value}'; allowed: {allowed}", error)
        self.assertIn("ENABLE_MIXED_HADAMARD is for GPUs", qmill("plan", self.source, env={"ENABLE_MIXED_HADAMARD": "1"})[0])

    def test_verbose(self):
        lines = {level: qmill("-i", self.source, "-o", self.folder / "out.safetensors", "--overwrite", "--verbose", level) for level in ("DEBUG", "VERBOSE", "NORMAL", "MINIMAL")}
        self.assertEqual(lines["MINIMAL"], ("", ""))
        self.assertIn("conv.weight", lines["DEBUG"][1])
        self.assertNotIn("conv.weight", lines["VERBOSE"][1])
        self.assertIn("a.weight", lines["VERBOSE"][1])
        self.assertNotIn("a.weight", lines["NORMAL"][1])
        self.assertIn("quantized", lines["NORMAL"][0])
