"""Calibration data on the command line: what is matched, said, refused, and computed from it."""

import json
import struct

import torch
from safetensors.torch import save_file

from support import TempFolder, qmill, qmill_json, read

COLUMNS = 64


def rows(count=50, seed=0, columns=COLUMNS):
    return torch.randn(count, columns, generator=torch.Generator().manual_seed(seed)) + 0.5


def hessian(x):
    x = x.double()
    return x.T @ x / len(x)


class Model(TempFolder):
    def setUp(self):
        super().setUp()
        generator = torch.Generator().manual_seed(1)
        names = ["a.q", "a.k", "b"]
        self.source = self.model({f"model.{n}.weight": torch.randn(48, COLUMNS, generator=generator).bfloat16() for n in names})
        self.output = self.folder / "out.safetensors"

    def data(self, tensors, name="data.safetensors"):
        return self.model(tensors, name)

    def refused(self, *flags, status=1):
        out, error = qmill("-i", self.source, "-o", self.output, *flags, status=status)
        self.assertEqual(out, "")
        self.assertEqual(len(error.splitlines()), 1, error)
        self.assertFalse(self.output.exists())
        return error


class Accounting(Model):
    def test_plan_and_report_say_what_is_known_of_which_layer(self):
        data = self.data({"a.q.input": rows(23), "diffusion_model.a.k.hessian": hessian(rows()).float(), "gone.input": rows(3)})
        expected = {
            "layers": 3,
            "with_rows": [{"name": "model.a.q", "rows": 23, "kept_apart": 4}],
            "with_hessian": ["model.a.k"],
            "smoothed": [],
            "guided_by_lora": [],
            "with_channels": [],
            "without": ["model.b"],
            "unmatched": ["gone.input"], "empty": [],
        }
        self.assertEqual(qmill_json("plan", self.source, "--calibration-data", data)["calibration"], expected)
        report = qmill_json("-i", self.source, "-o", self.output, "--calibration-data", data)
        self.assertEqual(report["calibration"], expected)
        self.assertEqual(report["quantizer"], "gptq")
        self.assertEqual({layer["name"]: layer["quantizer"] for layer in report["layers"]},
                         {"model.a.q": "gptq", "model.a.k": "gptq", "model.b": "rtn"})
        self.assertIn("gone.input", " ".join(report["warnings"]))
        self.assertIsNone(qmill_json("plan", self.source)["calibration"])

    def test_the_summary_says_it_to_people(self):
        data = self.data({"a.q.input": rows(23), "a.k.hessian": hessian(rows()).float(), "gone.input": rows(3)})
        text, _ = qmill("-i", self.source, "-o", self.output, "--calibration-data", data)
        for part in ("auto chose gptq", "1 layer with 23 rows, 4 of them kept apart", "1 layer with a Hessian", "1 layer without", "'gone.input'"):
            self.assertIn(part, text)
        text, _ = qmill("plan", self.source, "--optimizer", "gptq")
        self.assertIn("no calibration data: the Hessian is the identity", text)
        text, _ = qmill("plan", self.source, "--calibration-data", self.data({"b.input": rows(4)}))
        self.assertIn("none can be", text)

    def test_the_file_records_names_and_no_paths(self):
        data = self.data({"b.input": rows()})
        qmill("-i", self.source, "-o", self.output, "--calibration-data", data, "--no-bias-correction")
        options = json.loads(read(self.output)[1]["qmill.options"])
        self.assertEqual(options, {"calibration-data": "data.safetensors", "bias-correction": "off"})

    def test_a_lora_guides_layers(self):
        lora = self.data({"lora_unet_a_q.lora_down.weight": rows(4), "lora_unet_a_q.lora_up.weight": torch.ones(48, 4)}, "lora.safetensors")
        report = qmill_json("-i", self.source, "-o", self.output, "--calibration-lora", lora)
        self.assertEqual(report["calibration"]["guided_by_lora"], ["model.a.q"])
        self.assertEqual(report["quantizer"], "gptq")

    def test_smoothquant_weights_columns_and_so_changes_codes(self):
        largest = torch.ones(COLUMNS)
        largest[:8] = 1000
        for name, text in (("data.safetensors", None), ("data.json", json.dumps({"b": {"channel_max": largest.tolist()}}))):
            data = self.folder / name
            data.write_text(text) if text else self.data({"b.channel_max": largest})
            flags = ["--calibration-data", data, "--overwrite", "--optimizer", "gptq", "--convrot", "any"]
            plain = qmill_json("-i", self.source, "-o", self.output, *flags)
            self.assertEqual(plain["calibration"]["with_channels"], ["model.b"])
            before = read(self.output)[0]["model.b.weight"]
            smooth = qmill_json("-i", self.source, "-o", self.output, *flags, "--smoothquant")
            self.assertEqual(smooth["calibration"]["smoothed"], ["model.b"])
            self.assertFalse(torch.equal(read(self.output)[0]["model.b.weight"], before))

    def test_the_bytes_are_the_same_for_every_number_of_threads(self):
        shared = rows(2600)
        data = self.data({"a.q.input": shared, "a.k.input": shared.clone(), "b.input": rows(2600, 1).half()})
        files = set()
        for threads in (1, 2, 5):
            qmill("-i", self.source, "-o", self.output, "--overwrite", "--calibration-data", data, "--threads", threads)
            files.add(self.output.read_bytes())
        self.assertEqual(len(files), 1)

    def test_another_seed_keeps_other_rows_apart(self):
        data = self.data({"b.input": rows(100)})
        errors = set()
        for seed in (0, 1):
            flags = ["--calibration-data", data, "--manual-seed", seed, "--optimizer", "rtn", "--overwrite"]
            report = qmill_json("-i", self.source, "-o", self.output, *flags)
            errors.add(next(layer["output_error"] for layer in report["layers"] if layer["name"] == "model.b"))
        self.assertEqual(len(errors), 2)


class Refusals(Model):
    def test_flags_with_wrong_values(self):
        data = self.data({"b.input": rows()})
        for flags in (
            ["--smoothquant"],
            ["--smoothquant", "--calibration-data", data, "--smoothquant-alpha", "1.5"],
            ["--smoothquant", "--calibration-data", data, "--smoothquant-alpha", "x"],
            ["--calibration-data", data, "--smoothquant-alpha", "0.5"],
            ["--calibration-data", ""],
            ["--smoothquant-store"],
        ):
            with self.subTest(flags):
                self.refused(*flags, status=2)

    def test_files_that_cannot_be_used(self):
        good = self.data({"b.input": rows()}).read_bytes()
        nan = rows()
        nan[7, 3] = float("nan")
        lopsided = hessian(rows()).float()
        lopsided[1, 2] += 1
        header = json.dumps({"b.input": {"dtype": "F32", "shape": [1 << 40, 1 << 20], "data_offsets": [0, 4 << 60]}}).encode()
        cases = {
            "missing.safetensors": (None, ["missing.safetensors"]),
            "cut.safetensors": (good[:-5], ["cut.safetensors"]),
            "empty.safetensors": (b"", ["empty.safetensors"]),
            "huge.safetensors": (struct.pack("<Q", len(header)) + header, ["huge.safetensors"]),
            "text.json": (b"not json", ["text.json", "JSON"]),
            "list.json": (b"[1, 2]", ["list.json", "object"]),
            "width.json": (b'{"b": {"channel_max": [1, 2]}}', ["width.json", "b.channel_max", str(COLUMNS)]),
            "width.safetensors": ({"b.input": rows(5, columns=COLUMNS + 1)}, ["b.input", f"x {COLUMNS + 1}", f"x {COLUMNS}"]),
            "type.safetensors": ({"b.input": rows().int()}, ["b.input", "I32", "BF16"]),
            "none.safetensors": ({"c.input": rows()}, ["no entry matches", "c.input"]),
            "zero.safetensors": ({"b.input": torch.zeros(0, COLUMNS)}, ["b.input", "0 rows"]),
            "nan.safetensors": ({"b.input": nan}, ["nan.safetensors", "b.input", "row 7"]),
            "lopsided.safetensors": ({"b.hessian": lopsided}, ["b.hessian", "same value"]),
            "negative.safetensors": ({"b.hessian": -torch.eye(COLUMNS)}, ["b.hessian", "diagonal"]),
        }
        for name, (content, parts) in cases.items():
            with self.subTest(name):
                path = self.folder / name
                if isinstance(content, bytes):
                    path.write_bytes(content)
                elif content is not None:
                    save_file(content, path)
                error = self.refused("--calibration-data", path)
                for part in parts:
                    self.assertIn(part, error)

    def test_a_lora_of_another_model(self):
        lora = self.data({"x.lora_A.weight": rows(4), "x.lora_B.weight": torch.ones(48, 4)}, "lora.safetensors")
        self.assertIn("x.lora_A.weight", self.refused("--calibration-lora", lora))
        self.assertIn("gone.safetensors", self.refused("--calibration-lora", self.folder / "gone.safetensors"))

    def test_the_output_may_not_be_the_calibration_file(self):
        data = self.data({"b.input": rows()})
        before = data.read_bytes()
        _, error = qmill("-i", self.source, "-o", data, "--overwrite", "--calibration-data", data, status=2)
        self.assertIn("same file", error)
        self.assertEqual(data.read_bytes(), before)


class Calibrate(Model):
    def setUp(self):
        super().setUp()
        self.x, self.y = rows(3000, 1).half(), rows(3, 2)
        self.data = self.model({"a.q.input": self.x, "a.k.input": self.x.clone(), "b.input": self.y, "note": self.y.clone()}, "rows.safetensors")
        self.statistics = self.folder / "statistics.safetensors"

    def test_the_statistics_are_those_of_all_rows(self):
        report = qmill_json("calibrate", self.data, "-o", self.statistics)
        self.assertEqual(report["layers"], [{"name": "a.k", "rows": 3000}, {"name": "a.q", "rows": 3000}, {"name": "b", "rows": 3}])
        self.assertEqual((report["distinct_inputs"], report["unmatched"]), (2, ["note"]))
        self.assertEqual(report["output_bytes"], self.statistics.stat().st_size)
        stored, _ = read(self.statistics)
        self.assertEqual(len(stored), 15)
        for layer, x in (("a.q", self.x.double()), ("a.k", self.x.double()), ("b", self.y.double())):
            expected = hessian(x)
            size = expected.diagonal().sqrt()
            self.assertLess(((stored[f"{layer}.hessian"].double() - expected) / size / size[:, None]).abs().max().item(), 1e-6)
            torch.testing.assert_close(stored[f"{layer}.mean"].double(), x.mean(0), rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(stored[f"{layer}.channel_mean"].double(), x.abs().mean(0), rtol=1e-6, atol=1e-6)
            self.assertTrue(torch.equal(stored[f"{layer}.channel_max"].double(), x.abs().amax(0)))
            self.assertAlmostEqual(stored[f"{layer}.input_scale"].item(), x.abs().max().item() / 127, places=7)

    def test_convert_reads_them(self):
        qmill("calibrate", self.data, "-o", self.statistics)
        report = qmill_json("-i", self.source, "-o", self.output, "--calibration-data", self.statistics)
        self.assertEqual(sorted(report["calibration"]["with_hessian"]), ["model.a.k", "model.a.q", "model.b"])

    def test_json_has_the_channel_statistics(self):
        file = self.folder / "channels.json"
        qmill("calibrate", self.data, "-o", file)
        statistics = json.loads(file.read_text())
        self.assertEqual(set(statistics), {"a.q", "a.k", "b"})
        self.assertEqual(statistics["b"]["channel_max"], self.y.abs().amax(0).tolist())
        plan = qmill_json("plan", self.source, "--calibration-data", file, "--smoothquant")
        self.assertEqual(len(plan["calibration"]["smoothed"]), 3)

    def test_the_same_bytes_for_every_number_of_threads(self):
        files = set()
        for threads in (1, 2, 5):
            qmill("calibrate", self.data, "-o", self.statistics, "--overwrite", "--threads", threads)
            files.add(self.statistics.read_bytes())
        self.assertEqual(len(files), 1)

    def test_it_replaces_nothing_unasked_and_leaves_nothing_behind(self):
        self.statistics.write_bytes(b"mine")
        _, error = qmill("calibrate", self.data, "-o", self.statistics, status=2)
        self.assertIn("exists already", error)
        self.assertEqual(self.statistics.read_bytes(), b"mine")
        self.statistics.unlink()
        before = self.names()
        for words in ([self.source, "-o", self.statistics], [self.folder / "gone.safetensors", "-o", self.statistics]):
            qmill("calibrate", *words, status=1)
        for words in ([], [self.data], [self.data, "-o", self.data, "--overwrite"], [self.data, "-o", self.folder / "s.txt"]):
            qmill("calibrate", *words, status=2)
        self.assertEqual(self.names(), before)
