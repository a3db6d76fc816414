"""The output error, computed again in double precision from the files alone."""

import torch

from support import TempFolder, decode, qmill, qmill_json, read

LAYERS = {"a.q": (96, 256), "b.k": (33, 80), "b.up": (64, 512)}
DIGITS = 1e-4  # relative

SETTINGS = {
    "default": [],
    "plain": ["--convrot", "off"],
    "tensor": ["--scaling-mode", "tensor"],
    "block": ["--scaling-mode", "block", "--block-size", "16"],
    "axis": ["--scaling-mode", "axis"],
}


def inputs(columns, seed, rows=60):
    """Rows with a mean that is far from zero and columns of different sizes, as the inputs of real layers have."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.rand(columns, generator=generator) * 3
    return torch.randn(rows, columns, generator=generator) * size + torch.randn(columns, generator=generator)


def kept_apart(rows, seed):
    """One row of each run of five: SplitMix64 of the seed and the number of the run, modulo 5."""
    mask = 2**64 - 1
    kept = []
    for run in range(rows // 5):
        z = (seed + 0x9E3779B97F4A7C15 * (run + 1)) & mask
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
        kept.append(5 * run + (z ^ z >> 31) % 5)
    return kept


def output_error(rows, original, decoded):
    rows, original = rows.double(), original.double()
    expected = rows @ original.T
    return ((expected - rows @ decoded.double().T).norm() / expected.norm()).item()


class Calibrated(TempFolder):
    """A model and input rows for all its layers."""

    def setUp(self):
        super().setUp()
        generator = torch.Generator().manual_seed(1)
        self.tensors = {}
        for name, shape in LAYERS.items():
            self.tensors[f"{name}.weight"] = torch.randn(*shape, generator=generator).bfloat16()
            self.tensors[f"{name}.bias"] = torch.randn(shape[0], generator=generator).bfloat16()
        self.source = self.model(self.tensors)
        self.rows = {name: inputs(shape[1], seed) for seed, (name, shape) in enumerate(LAYERS.items())}
        self.data = self.model({f"{name}.input": rows for name, rows in self.rows.items()}, "rows.safetensors")
        self.output = self.folder / "out.safetensors"

    def convert(self, *flags):
        return qmill_json("-i", self.source, "-o", self.output, "--overwrite", *flags)

    def assertClose(self, found, expected):
        self.assertAlmostEqual(found / expected, 1, delta=DIGITS)


class OutputError(Calibrated):
    def test_compare_says_what_an_independent_reader_computes(self):
        plain = self.folder / "rtn.safetensors"
        for name, flags in SETTINGS.items():
            with self.subTest(name):
                self.convert(*flags)
                qmill("-i", self.source, "-o", plain, "--overwrite", "--optimizer", "rtn", *flags)
                stored, rounded = read(self.output)[0], read(plain)[0]
                compared = qmill_json("compare", self.output, self.source, "--calibration-data", self.data)
                self.assertEqual({layer["name"] for layer in compared["layers"]}, set(LAYERS))
                for layer in compared["layers"]:
                    base = layer["name"]
                    original, rows = self.tensors[f"{base}.weight"], self.rows[base]
                    self.assertEqual(layer["output_rows"], len(rows))
                    self.assertEqual(layer["judged_by"], "outputs")
                    self.assertClose(layer["output_error"], output_error(rows, original, decode(stored, base)))
                    self.assertClose(layer["rounding_output_error"], output_error(rows, original, decode(rounded, base)))
                for key in ("output_error", "rounding_output_error"):
                    self.assertClose(compared[f"mean_{key}"], sum(layer[key] for layer in compared["layers"]) / len(LAYERS))

    def test_compare_gives_the_same_figures_for_every_number_of_threads(self):
        self.convert()
        texts = [qmill("compare", self.output, self.source, "--calibration-data", self.data, "--threads", n, "--json")[0] for n in (1, 2, 5)]
        self.assertEqual(len(set(texts)), 1)

    def test_compare_with_rows_for_some_layers_reports_these(self):
        self.convert()
        data = self.model({"b.k.input": self.rows["b.k"]}, "some.safetensors")
        compared = qmill_json("compare", self.output, self.source, "--calibration-data", data)
        self.assertEqual([layer["name"] for layer in compared["layers"] if "output_error" in layer], ["b.k"])
        text, _ = qmill("compare", self.output, self.source, "--calibration-data", data)
        self.assertIn("Output Err", text)
        self.assertNotIn("Output Err", qmill("compare", self.output, self.source)[0])

    def test_compare_with_a_file_that_has_no_rows_is_an_error(self):
        self.convert()
        data = self.model({"b.k.hessian": torch.eye(80), "b.k.mean": torch.zeros(80)}, "statistics.safetensors")
        _, error = qmill("compare", self.output, self.source, "--calibration-data", data, status=1)
        self.assertIn("statistics.safetensors", error)
        self.assertIn("rows", error)

    def test_convert_measures_on_the_rows_that_it_keeps_apart(self):
        for seed in (0, 7):
            report = self.convert("--calibration-data", self.data, "--manual-seed", seed)
            stored, _ = read(self.output)
            for layer in report["layers"]:
                base = layer["name"]
                rows = self.rows[base][kept_apart(len(self.rows[base]), seed)]
                self.assertEqual(layer["output_rows"], len(rows))
                self.assertEqual(layer["judged_by"], "outputs")
                self.assertClose(layer["output_error"], output_error(rows, self.tensors[f"{base}.weight"], decode(stored, base)))

    def test_plain_rounding_is_its_own_yardstick(self):
        report = self.convert("--calibration-data", self.data, "--optimizer", "rtn")
        for layer in report["layers"]:
            self.assertEqual(layer["output_error"], layer["rounding_output_error"])
        self.assertEqual(report["warnings"], [])


class BiasCorrection(Calibrated):
    def setUp(self):
        super().setUp()
        # All rows are near their mean, so that it does not matter which of them are kept apart.
        self.rows = {name: rows.mean(0) + 0.01 * (rows - rows.mean(0)) for name, rows in self.rows.items()}
        self.data = self.model({f"{name}.input": rows for name, rows in self.rows.items()}, "rows.safetensors")
        self.tensors = {name: tensor.float() if name.endswith("bias") else tensor for name, tensor in self.tensors.items()}
        self.source = self.model(self.tensors)

    def mean_difference(self, base):
        """By how much the mean output is off, per output."""
        stored, _ = read(self.output)
        rows = self.rows[base].double()
        before = rows @ self.tensors[f"{base}.weight"].double().T + self.tensors[f"{base}.bias"].double()
        after = rows @ decode(stored, base).T + stored[f"{base}.bias"].double()
        return (before - after).mean(0).abs().mean().item()

    def test_the_mean_output_is_that_of_the_source(self):
        self.convert("--calibration-data", self.data, "--optimizer", "rtn", "--no-bias-correction")
        without = {base: self.mean_difference(base) for base in LAYERS}
        for base in LAYERS:
            self.assertTrue(torch.equal(read(self.output)[0][f"{base}.bias"], self.tensors[f"{base}.bias"]))
        report = self.convert("--calibration-data", self.data, "--optimizer", "rtn")
        for base in LAYERS:  # the other sign would double it
            self.assertLess(self.mean_difference(base), 0.1 * without[base])
        for layer in report["layers"]:
            change = read(self.output)[0][f"{layer['name']}.bias"].double() - self.tensors[f"{layer['name']}.bias"].double()
            self.assertAlmostEqual(layer["statistics"]["bias_correction"], change.abs().max().item(), delta=1e-12)

    def test_the_plan_says_which_biases_change(self):
        plan = qmill_json("plan", self.source, "--calibration-data", self.data, "--exclude-layers", "b.up")
        biases = {layer["name"]: (layer["action"], layer["rule"]) for layer in plan["layers"] if layer["action"] == "correct"}
        self.assertEqual(biases, {"a.q.bias": ("correct", "bias_correction"), "b.k.bias": ("correct", "bias_correction")})
        self.assertIn("correct ", qmill("plan", self.source, "--calibration-data", self.data)[0])
        plan = qmill_json("plan", self.source, "--calibration-data", self.data, "--no-bias-correction")
        self.assertNotIn("correct", {layer["action"] for layer in plan["layers"]})

    def test_a_bias_of_another_type_is_cast_after_its_correction(self):
        flags = ["--calibration-data", self.data, "--optimizer", "rtn"]
        self.convert(*flags)
        corrected = {base: read(self.output)[0][f"{base}.bias"] for base in LAYERS}
        self.convert(*flags, "--keep-dtype", "bf16")
        for base, bias in corrected.items():
            self.assertTrue(torch.equal(read(self.output)[0][f"{base}.bias"], bias.bfloat16()))

    def test_without_real_inputs_nothing_is_corrected(self):
        self.convert()
        for base in LAYERS:
            self.assertTrue(torch.equal(read(self.output)[0][f"{base}.bias"], self.tensors[f"{base}.bias"]))

    def test_the_same_bytes_for_every_number_of_threads(self):
        files = set()
        for threads in (1, 2, 5):
            self.convert("--calibration-data", self.data, "--threads", threads)
            files.add(self.output.read_bytes())
        self.assertEqual(len(files), 1)
