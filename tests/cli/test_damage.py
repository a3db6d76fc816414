"""Inputs that something went wrong with: values that are no numbers, downloads that failed, names that promise another kind of file."""

import json
import math
import os
import struct
import subprocess

import torch

from support import QMILL, TempFolder, qmill, qmill_json, read


def weight(rows=16, columns=256, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).bfloat16()


class NotFinite(TempFolder):
    def warnings(self, source, *flags):
        return qmill_json("-i", source, "-o", self.folder / "out.safetensors", "--overwrite", *flags)["warnings"]

    def test_in_tensors_that_are_only_copied_they_are_a_warning(self):
        for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e5m2, torch.float8_e4m3fn):
            for bad in (math.nan, math.inf, -math.inf):
                if dtype == torch.float8_e4m3fn and not math.isnan(bad):
                    continue
                norm = torch.ones(300)
                norm[3] = norm[299] = bad
                source = self.model({"q.weight": weight(), "norm.weight": norm.to(dtype), "one": torch.ones(3).to(dtype), "steps": torch.full((4,), -1)})
                self.assertEqual([line for line in self.warnings(source) if "NaN" in line],
                                 ["2 of the 300 values of 'norm.weight' are NaN or infinite: it is copied as it is"])
                self.assertEqual(read(self.folder / "out.safetensors")[0]["norm.weight"].isfinite().sum().item() if dtype.itemsize > 1 else 298, 298)
                self.assertIn("'norm.weight'", qmill("-i", source, "-o", self.folder / "out.safetensors", "--overwrite")[0])

    def test_large_tensors_are_looked_through_to_their_end(self):
        table = torch.zeros(1200, 1024)
        table[1199, 1023] = math.nan
        source = self.model({"q.weight": weight(), "table": table})
        for threads in ("1", "3"):
            self.assertEqual(len([line for line in self.warnings(source, "--threads", threads) if "1 of the 1228800 values" in line]), 1)
        self.assertEqual([line for line in self.warnings(self.model({"q.weight": weight(), "table": torch.zeros(1200, 1024)})) if "NaN" in line], [])

    def test_verify_calls_them_errors(self):
        norm = torch.ones(300).bfloat16()
        norm[7] = math.nan
        source = self.model({"q.weight": weight(), "norm.weight": norm})
        findings = json.loads(qmill("verify", source, "--json", status=1)[0])["findings"]
        self.assertEqual([(finding["level"], finding["rule"], finding["tensor"]) for finding in findings],
                         [("error", "not-finite", "norm.weight"), ("remark", "model-part", "")])
        self.assertEqual([finding["rule"] for finding in json.loads(qmill("verify", source, "--json", "--no-data")[0])["findings"]], ["model-part"])

    def test_in_a_weight_to_quantize_they_stay_an_error(self):
        bad = weight()
        bad[5, 5] = math.inf
        self.refused("-i", self.model({"q.weight": bad}), says=("q.weight",))

    def test_dequantize_warns_of_them_too(self):
        norm = torch.full((4,), math.nan)
        source = self.model({"a.weight": torch.ones(4, 4).to(torch.float8_e4m3fn), "a.scale_weight": torch.tensor(1.0), "norm": norm})
        self.assertIn("4 of the 4 values of 'norm'", qmill("dequantize", source)[1])


class FailedDownloads(TempFolder):
    def written(self, text, name):
        (self.folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return self.folder / name

    def test_what_lies_there_instead_is_named(self):
        page = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>" + " " * 600
        kinds = {
            "it is a web page, not a model": (page, "\ufeff  \n" + page.lower(), "<html lang='en'>", "<HEAD></HEAD>"),
            "it is a JSON text, not a model": ('{"error":"Access to model X is restricted"}', '  {\n "error": 1}'),
            "it is a text of a server, not a model": ("<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",),
            "it is a Git LFS pointer": ("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",),
        }
        for says, texts in kinds.items():
            for text in texts:
                for name in ("m.safetensors", "m.gguf", "m.bin", "m.pt", "m.ckpt", "m"):
                    source = self.written(text, name)
                    self.refused("-i", source, "-o", self.folder / "o.safetensors", says=(name, says, "download"))
                    self.refused("inspect", source, says=(says,))
                    source.unlink()

    def test_models_are_not_taken_for_text(self):
        source = self.model({"q.weight": weight()})
        data = source.read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        # Headers of 0x7b ('{') and 0x3c ('<') bytes and more.
        for total in range((length // 256 + 1) * 256 + 0x7B, 4096, 256):
            source.write_bytes(struct.pack("<Q", total) + data[8 : 8 + length] + b" " * (total - length) + data[8 + length :])
            qmill("inspect", source)


class Metadata(TempFolder):
    def test_null_is_no_metadata(self):
        data = weight(4, 256).view(torch.uint8).numpy().tobytes()
        for value, status in (("null", 0), ("{}", 0), ("[]", 1), ("7", 1), ('"x"', 1), ('{"k": null}', 1)):
            header = '{"__metadata__": %s, "q.weight": {"dtype": "BF16", "shape": [4, 256], "data_offsets": [0, %d]}}' % (value, len(data))
            path = self.folder / "m.safetensors"
            path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + data)
            qmill("inspect", path, status=status)
            if status == 0:
                self.assertEqual(qmill_json("inspect", path)["metadata"], {})


class OutputNames(TempFolder):
    def test_a_name_of_another_kind_of_file_is_a_usage_error(self):
        source = self.model({"q.weight": weight()})
        float8 = self.model({"a.weight": torch.ones(4, 4).to(torch.float8_e4m3fn), "a.scale_weight": torch.tensor(1.0)}, "f8.safetensors")
        for ending in ("gguf", "txt", "bin", "pt", "GGUF", "json", "Ckpt", "h5"):
            for words in (("-i", source, "-o"), ("convert", source), ("dequantize", float8)):
                self.refused(*words, self.folder / f"x.{ending}", says=(f"x.{ending}", f"'.{ending}'", ".safetensors"), status=2)

    def test_other_names_are_taken_as_they_are(self):
        source = self.model({"q.weight": weight()})
        for name in ("plain", "flux.1-dev_int8", "v1.5", "m.sft", "model.int8", "flux.dev", "M.SAFETENSORS"):
            qmill("-i", source, "-o", self.folder / name)
            self.assertIn(name, self.names())


class Words(TempFolder):
    def test_a_word_after_dry_run_that_is_no_file_is_refused(self):
        source = self.model({"q.weight": weight()})
        for command in ("plan", "convert", "batch"):
            self.refused(command, source, "--dry-run", "foo", says=("--dry-run is 'foo'", "analyze"), status=2)
        qmill("convert", "--dry-run", source)

    def test_flags_of_a_conversion_do_nothing_for_a_plan_and_that_is_said(self):
        source = self.model({"q.weight": weight()})
        for flags in (("--report", "r.json"), ("--fail-below", "10"), ("--report-quality",)):
            self.assertIn(f"{flags[0]} changes nothing", qmill("plan", source, *flags)[0])
            self.assertNotIn("r.json", self.names())

    def test_options_that_do_nothing_together_are_said_or_refused(self):
        source = self.model({"q.weight": weight()})
        for flags, says in {
            ("--fallback", "fp16"): "--fallback 'fp16' decided about no tensor",
            ("--no-comfy-quant", "--full-precision-matrix-mult"): "--full-precision-matrix-mult changes nothing",
            ("--fp16-overflow", "clamp"): "--fp16-overflow changes nothing",
            ("--custom-layers", "q", "--custom-type", "rtn", "--custom-simple"): "--custom-simple changes nothing",
        }.items():
            self.assertIn(says, qmill("plan", source, *flags)[0])
        for flags, says in {
            ("--optimizer", "learned-rounding", "--min-k", "50", "--max-k", "20"): "--min-k is 50",
        }.items():
            self.refused("plan", source, *flags, says=(says,), status=2)
        for flags, says in {
            ("quip", "--quip-transformed-layout", "full"): "--quip-transformed-layout changes nothing without --quip-store-transformed",
            ("quip", "--quip-checkpoint-segments", "2"): "--quip-checkpoint-segments changes nothing without --quip-checkpointed",
            ("learned-rounding", "--lr-gamma", "0.5"): "--lr-gamma changes nothing without --lr-schedule exponential",
            ("learned-rounding", "--lr-patience", "3", "--lr-schedule", "exponential"): "--lr-patience changes nothing without --lr-schedule plateau",
        }.items():
            self.assertIn(says, qmill("-i", source, "--overwrite", "--optimizer", *flags)[0])


class BatchOfWrongChoices(TempFolder):
    def test_what_is_wrong_for_every_model_is_said_once_before_the_first(self):
        sources = [self.model({"q.weight": weight()}, name) for name in ("a.safetensors", "b.safetensors")]
        (self.folder / "file").write_text("")
        for flags, says, status in (
            (("--filter", "nope"), "nope", 2),
            (("--exclude-layers", "("), "(", 2),
            (("--custom-layers", "["  , "--custom-type", "int8"), "[", 2),
            (("--custom-layers", "q", "--custom-type", "int9"), "int9", 2),
            (("--output-dir", self.folder / "file"), "it is a file, expected a folder", 2),
            (("--calibration-data", self.folder / "none.safetensors"), "none.safetensors", 1),
            (("--merge-lora", self.folder / "none.safetensors"), "none.safetensors", 1),
            (("--dry-run", "create-template"), "batch writes no templates", 2),
        ):
            with self.subTest(flags):
                self.refused("batch", *sources, *flags, says=(says,), status=status)


class EmptyCalibration(TempFolder):
    def setUp(self):
        super().setUp()
        self.source = self.model({f"experts.{i}.up.weight": weight(seed=i) for i in range(3)})

    def data(self, tensors, name="data.safetensors"):
        return self.model({name: tensor.bfloat16() for name, tensor in tensors.items()}, name)

    def plan(self, data):
        return qmill_json("plan", self.source, "--calibration-data", data)

    def test_an_entry_with_no_rows_counts_as_no_data_and_is_said(self):
        rows = torch.randn(64, 256, generator=torch.Generator().manual_seed(9))
        data = self.data({"experts.0.up.input": rows, "experts.1.up.input": torch.empty(0, 256), "experts.2.up.input": torch.empty(2, 0, 256)})
        plan = self.plan(data)
        self.assertEqual([layer["name"] for layer in plan["calibration"]["with_rows"]], ["experts.0.up"])
        self.assertEqual(plan["calibration"]["without"], ["experts.1.up", "experts.2.up"])
        self.assertEqual(plan["calibration"]["empty"], ["experts.1.up.input", "experts.2.up.input"])
        self.assertTrue(any("2 calibration entries with 0 rows count as no data: 'experts.1.up.input'" in line for line in plan["warnings"]), plan["warnings"])
        only = self.data({"experts.0.up.input": rows}, "only.safetensors")
        outputs = []
        for name, file in (("with", data), ("without", only)):
            qmill("-i", self.source, "-o", self.folder / name, "--calibration-data", file)
            outputs.append(read(self.folder / name)[0])
        for name in outputs[0]:
            self.assertTrue(torch.equal(outputs[0][name], outputs[1][name]), name)
        self.assertEqual(qmill_json("calibrate", data, "-o", self.folder / "s.safetensors")["empty"], ["experts.1.up.input", "experts.2.up.input"])

    def test_a_file_of_empty_entries_only_is_an_error(self):
        self.refused("-i", self.source, "--calibration-data", self.data({"experts.1.up.input": torch.empty(0, 256)}), says=("data.safetensors", "0 rows"))

    def test_more_dimensions_are_rows(self):
        rows = torch.randn(128, 256)
        outputs = []
        for i, shape in enumerate(((128, 256), (2, 64, 256), (2, 4, 16, 256))):
            qmill("-i", self.source, "-o", self.folder / f"o{i}", "--calibration-data", self.data({"experts.0.up.input": rows.reshape(shape)}, f"d{i}.safetensors"))
            outputs.append(read(self.folder / f"o{i}")[0])
            self.assertEqual(self.plan(self.folder / f"d{i}.safetensors")["calibration"]["with_rows"][0]["rows"], 128)
            report = qmill_json("calibrate", self.folder / f"d{i}.safetensors", "-o", self.folder / f"s{i}.safetensors")
            self.assertEqual(report["layers"], [{"name": "experts.0.up", "rows": 128}])
        for other in outputs[1:]:
            for name, tensor in outputs[0].items():
                self.assertTrue(torch.equal(tensor, other[name]), name)

    def test_a_wrong_width_names_layer_found_and_expected(self):
        for shape, found in (((64, 128), "64 x 128"), ((2, 32, 128), "2 x 32 x 128"), ((256,), "256")):
            self.refused("-i", self.source, "--calibration-data", self.data({"experts.0.up.input": torch.randn(shape)}), says=("experts.0.up.input", found, "rows x 256"))

    def test_tiny_inputs_are_not_called_zero(self):
        for value, says in ((1e-30, "so small that their squares are zero"), (0.0, "were all zero")):
            data = self.model({"experts.0.up.input": torch.full((40, 256), value)}, "data.safetensors")
            text = qmill("-i", self.source, "-o", self.folder / "o", "--overwrite", "--optimizer", "gptq", "--calibration-data", data)[0]
            self.assertIn(says, text)
            self.assertEqual("all zero" in text, value == 0)

    def test_nan_in_json_is_an_error(self):
        path = self.folder / "nan.json"
        path.write_text(json.dumps({"experts.0.up": {"channel_max": [1.0] * 256}, "experts.1.up": math.nan}))
        self.refused("-i", self.source, "--calibration-data", path, says=("nan.json",))


class NotReadable(TempFolder):
    def test_a_pipe_is_called_one(self):
        pipe = self.folder / "pipe.safetensors"
        os.mkfifo(pipe)
        source = self.model({"q.weight": weight()})
        says = ("'" + str(pipe) + "'", "it is a pipe, a socket or a device, expected a file")
        self.refused("-i", pipe, "-o", self.folder / "out.safetensors", says=says)
        self.refused("-i", source, "-o", self.folder / "out.safetensors", "--calibration-data", pipe, says=says)
        self.refused("inspect", pipe, says=says)

    def test_a_file_without_permission_is_not_called_of_another_kind(self):
        os.chmod(self.folder, 0o777)
        for name in ("a.pt", "a.safetensors", "a.gguf"):
            (self.folder / name).write_bytes(b"PK\x03\x04")
            os.chmod(self.folder / name, 0)
            nobody = {"user": 65534} if os.geteuid() == 0 else {}  # root may read everything
            done = subprocess.run([QMILL, "inspect", self.folder / name], capture_output=True, text=True, **nobody)
            self.assertEqual(done.returncode, 1)
            self.assertIn(name, done.stderr)
            self.assertIn("cannot open it: Permission denied", done.stderr)
