"""Functions on files: the same bytes and the same figures as the command."""

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import unittest

import torch
from safetensors.torch import load_file, save_file

import qmill
from support import ABACUS, FolderTest, run_command

# Options as Python has them, and as the command has them.
CONVERSIONS = [
    ({}, []),
    ({"format": "fp8"}, ["--format", "fp8"]),
    ({"format": "mxfp8"}, ["--format", "mxfp8"]),
    ({"format": "nvfp4"}, ["--format", "nvfp4"]),
    ({"format": "w4a8"}, ["--format", "w4a8"]),
    ({"fp16": True}, ["--fp16"]),
    ({"scaling_mode": "tensor", "convrot": "off"}, ["--scaling-mode", "tensor", "--convrot", "off"]),
    ({"convrot": 64}, ["--convrot", "64"]),
    ({"filter": "none", "exclude_layers": r"blocks\.1"}, ["--filter", "none", "--exclude-layers", r"blocks\.1"]),
    ({"filter": ["none"], "fallback": "fp16", "exclude_layers": "nothing"},
     ["--filter", "none", "--fallback", "fp16", "--exclude-layers", "nothing"]),
    ({"comfy_quant": False}, ["--no-comfy-quant"]),
    ({"optimizer": "quip", "quip_seed": 3}, ["--optimizer", "quip", "--quip-seed", "3"]),
    ({"optimizer": "learned_rounding", "num_iter": 20}, ["--optimizer", "learned_rounding", "--num-iter", "20"]),
    ({"optimizer": "gptq", "actorder": True}, ["--optimizer", "gptq", "--gptq-actorder"]),
    ({"keep_dtype": "bf16", "save_quant_metadata": False}, ["--keep-dtype", "bf16", "--no-save-quant-metadata"]),
    ({"manual_seed": 9, "optimizer": "quip"}, ["--manual-seed", "9", "--optimizer", "quip"]),
]


class Convert(FolderTest):
    def test_writes_the_bytes_of_the_command(self):
        model = self.model()
        for number, (options, words) in enumerate(CONVERSIONS):
            with self.subTest(options=options):
                ours, theirs = self.folder / f"p{number}.safetensors", self.folder / f"c{number}.safetensors"
                qmill.convert(model, ours, **options)
                run_command("convert", model, theirs, *words)
                self.assertEqual(ours.read_bytes(), theirs.read_bytes())

    def test_options_change_the_bytes(self):
        model = self.model()
        written = set()
        for number, (options, _) in enumerate(CONVERSIONS):
            output = self.folder / f"{number}.safetensors"
            qmill.convert(model, output, **options)
            written.add(output.read_bytes())
        # One of them spells a default in another way.
        self.assertGreaterEqual(len(written), len(CONVERSIONS) - 1)

    def test_calibrated_as_the_command(self):
        model = self.model()
        rows = self.recorded_rows(model)
        ours, theirs = self.folder / "p.safetensors", self.folder / "c.safetensors"
        result = qmill.convert(model, ours, calibration_data=rows, filter="none")
        run_command("convert", model, theirs, "--calibration-data", rows, "--filter", "none")
        self.assertEqual(ours.read_bytes(), theirs.read_bytes())
        self.assertEqual(result.quantizer, "gptq")
        self.assertEqual([layer.quantizer for layer in result.layers], ["gptq"] * 3)
        self.assertLess(result.mean_output_error, result.mean_rounding_output_error)

    def test_result_is_the_json_of_the_command(self):
        model = self.model()
        result = qmill.convert(model, self.folder / "a.safetensors", filter="none").to_dict()
        printed = json.loads(run_command("convert", model, self.folder / "b.safetensors", "--filter", "none", "--json"))
        self.assertEqual(set(result), set(printed))
        for key in ("output_bytes", "input_bytes", "quantizer", "mean_sqnr_db", "filters", "seed"):
            self.assertEqual(result[key], printed[key], key)
        for ours, theirs in zip(result["layers"], printed["layers"]):
            ours.pop("seconds"), theirs.pop("seconds")
            self.assertEqual(ours, theirs)

    def test_output_is_named_as_by_the_command(self):
        result = qmill.convert(str(self.model()))
        made = result.output.read_bytes()
        self.assertEqual(result.output.parent, self.folder)
        result.output.unlink()
        run_command("convert", self.folder / "model.safetensors")
        self.assertEqual(result.output.read_bytes(), made)

    def test_layer_config_is_a_dictionary_or_a_file(self):
        model = self.model()
        config = {"blocks\\.1.*": {"format": "fp16"}}
        file = self.folder / "config.json"
        file.write_text(json.dumps(config))
        for number, given in enumerate((config, file)):
            result = qmill.convert(model, self.folder / f"{number}.safetensors", layer_config=given, filter="none")
            stored = load_file(result.output)
            self.assertEqual(stored["blocks.1.proj.weight"].dtype, torch.float16)
            self.assertEqual(stored["blocks.0.proj.weight"].dtype, torch.int8)

    def test_warnings_go_through_logging(self):
        with self.assertLogs("qmill", logging.WARNING) as logs:
            result = qmill.convert(self.model(), self.folder / "o.safetensors")
        self.assertEqual([record.getMessage() for record in logs.records], result.warnings)
        self.assertIn("the architecture is not recognised", result.warnings[0])

    def test_progress_ends_with_all_layers(self):
        seen = []
        qmill.convert(self.model(), self.folder / "o.safetensors", filter="none", progress=seen.append)
        self.assertEqual((seen[-1].layers_done, seen[-1].layers), (3, 3))
        self.assertEqual([state.bytes_done for state in seen], sorted(state.bytes_done for state in seen))
        self.assertGreater(seen[-1].bytes, 3 * 64 * 256)

    def test_an_exception_in_progress_ends_the_run(self):
        def stop(_):
            raise LookupError("enough")

        output = self.folder / "o.safetensors"
        with self.assertRaisesRegex(LookupError, "enough"):
            qmill.convert(self.model(), output, progress=stop, keep_part=False)
        self.assertEqual([path.name for path in self.folder.iterdir()], ["model.safetensors"])

    def test_runs_in_other_threads(self):
        model = self.model()
        results = []
        threads = [
            threading.Thread(target=lambda n=n: results.append(qmill.convert(model, self.folder / f"{n}.safetensors")))
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len({result.output.read_bytes() for result in results}), 1)

    def test_gives_the_interpreter_free(self):
        # A long conversion; another thread counts meanwhile.
        model = self.model(rows=512, columns=1024)
        counted = []
        done = threading.Event()

        def count():
            while not done.is_set():
                counted.append(1)
                done.wait(0.001)

        thread = threading.Thread(target=count)
        thread.start()
        qmill.convert(model, self.folder / "o.safetensors", optimizer="learned_rounding", num_iter=200, filter="none")
        done.set()
        thread.join()
        self.assertGreater(len(counted), 20)


class Interrupt(FolderTest):
    def test_ctrl_c_ends_the_run_and_leaves_nothing(self):
        model = self.model(layers=6, rows=2048, columns=2048)
        code = """
            import sys, qmill
            try:
                qmill.convert(sys.argv[1], sys.argv[2], optimizer="learned_rounding", num_iter=100000, filter="none",
                              keep_part=False, progress=lambda state: None)
            except KeyboardInterrupt:
                print("interrupted")
        """
        process = subprocess.Popen(
            [sys.executable, "-c", "import os; print('ready', flush=True)\n" + textwrap.dedent(code), model, self.folder / "o.safetensors"],
            stdout=subprocess.PIPE, text=True, env=os.environ)
        self.assertEqual(process.stdout.readline(), "ready\n")
        for _ in range(600):  # until the run has begun
            if len(list(self.folder.iterdir())) > 1 or process.poll() is not None:
                break
            threading.Event().wait(0.1)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
        self.assertEqual(output, "interrupted\n")
        self.assertEqual(process.returncode, 0)
        self.assertEqual([path.name for path in self.folder.iterdir()], ["model.safetensors"])


class Refusals(FolderTest):
    def refused(self, kind, pattern, function, *arguments, **options):
        with self.assertRaisesRegex(kind, pattern) as caught:
            function(*arguments, **options)
        self.assertIsInstance(caught.exception, qmill.QmillError)
        self.assertNotIn("\n", str(caught.exception))
        return caught.exception

    def test_errors_are_of_the_kind_that_people_catch(self):
        model = self.model()
        self.refused(qmill.UsageError, "no option 'optimzer'; did you mean 'optimizer'", qmill.convert, model, optimzer="gptq")
        self.refused(ValueError, "`scaling_mode` is 'rows'", qmill.convert, model, scaling_mode="rows")
        self.refused(ValueError, "`manual_seed` is 'x'", qmill.convert, model, manual_seed="x")
        self.refused(qmill.UsageError, "`optimizer` is of type object", qmill.convert, model, optimizer=object())
        self.refused(qmill.UsageError, "plugin_dirs is one path", qmill.plugins, plugin_dirs="plugins")
        self.refused(OSError, "no such file", qmill.convert, self.folder / "absent.safetensors")
        self.refused(qmill.FileError, "no such file", qmill.inspect, self.folder / "absent.safetensors")
        self.refused(qmill.UsageError, "dtype is 'f8'", qmill.dequantize, model, dtype="f8")
        error = self.refused(qmill.InputError, "model.safetensors", qmill.dequantize, model)
        self.assertTrue(error.message)

    def test_an_existing_file_stays(self):
        model, output = self.model(), self.folder / "o.safetensors"
        output.write_text("mine")
        error = self.refused(qmill.UsageError, "exists already", qmill.convert, model, output)
        self.assertIn("`overwrite`", error.advice)
        self.assertEqual(output.read_text(), "mine")
        qmill.convert(model, output, overwrite=True)
        self.assertNotEqual(output.read_bytes()[:4], b"mine")

    def test_damaged_files(self):
        model = self.model()
        whole = model.read_bytes()
        for size in (0, 7, 8, 100, len(whole) - 1):
            model.write_bytes(whole[:size])
            for function in (qmill.convert, qmill.plan, qmill.inspect, qmill.verify, qmill.open_model):
                with self.subTest(size=size, function=function.__name__):
                    self.refused(qmill.QmillError, "model.safetensors", function, model)
        self.assertEqual([path.name for path in self.folder.iterdir()], ["model.safetensors"])

    def test_values_that_are_not_finite(self):
        path = self.folder / "nan.safetensors"
        save_file({"blocks.0.weight": torch.full((64, 256), float("nan"))}, path)
        self.refused(qmill.NumericError, "blocks.0.weight", qmill.convert, path, self.folder / "o.safetensors", filter="none")

    def test_quality_below_the_limit(self):
        self.refused(qmill.QualityError, "below", qmill.convert, self.model(), self.folder / "o.safetensors", fail_below=90.0,
                     filter="none")
        self.assertFalse((self.folder / "o.safetensors").exists())


class OtherFunctions(FolderTest):
    def test_plan_says_what_convert_does(self):
        model = self.model()
        plan = qmill.plan(model, self.folder / "o.safetensors", filter="none", format="mxfp8")
        result = qmill.convert(model, self.folder / "o.safetensors", filter="none", format="mxfp8")
        self.assertEqual(plan.output_bytes, result.output_bytes)
        self.assertEqual(plan.output_bytes, result.output.stat().st_size)
        self.assertEqual([layer.name for layer in plan.layers if layer.action == "quantize"], [layer.name for layer in result.layers])
        self.assertEqual(plan.layers[0].outputs[0].shape, (64, 256))
        self.assertEqual(plan.comfyui.since, "0.18.0")
        self.assertEqual(len(plan.digest), 32)

    def test_inspect_verify_compare_and_dequantize(self):
        model = self.model()
        output = qmill.convert(model, self.folder / "o.safetensors", filter="none").output
        inspection = qmill.inspect(output)
        self.assertEqual([layer.format for layer in inspection.layers], ["int8_tensorwise"] * 3)
        self.assertEqual(inspection.layers[0].marker["format"], "int8_tensorwise")
        self.assertIsNone(inspection.architecture)
        verification = qmill.verify(output)
        self.assertEqual([reader.name for reader in verification.readers], ["ComfyUI", "stable-diffusion.cpp"])
        comparison = qmill.compare(output, model)
        plain = qmill.dequantize(output, self.folder / "plain.safetensors", dtype="f32")
        self.assertEqual(plain.dtype, "F32")
        source, decoded = load_file(model), load_file(plain.output)
        for layer in comparison.layers:
            error = (source[layer.name + ".weight"].double() - decoded[layer.name + ".weight"].double()).square().mean()
            self.assertAlmostEqual(layer.mse / float(error), 1, places=6)

    def test_calibrate(self):
        model = self.model()
        rows = self.recorded_rows(model)
        result = qmill.calibrate(rows, self.folder / "statistics.safetensors")
        self.assertEqual([(layer.name, layer.rows) for layer in result.layers], [(f"blocks.{i}.proj", 400) for i in range(3)])
        x = load_file(rows)["blocks.1.proj.input"].double()
        hessian = load_file(result.output)["blocks.1.proj.hessian"].double()
        torch.testing.assert_close(hessian, x.T @ x / 400, rtol=1e-4, atol=1e-6)

    def test_lists(self):
        self.assertIn("t5xxl", [each.name for each in qmill.filters()])
        loaded = {each.name: each for each in qmill.plugins()}
        self.assertEqual(loaded["gptq"].status, "loaded")
        self.assertEqual(loaded["gptq"].offers[0].kind, "quantizer")
        optimizer = next(each for each in qmill.options() if each.name == "optimizer")
        self.assertEqual((optimizer.type, optimizer.default), ("str", "auto"))

    def test_open_model(self):
        with qmill.open_model(ABACUS) as model:
            source = load_file(ABACUS)
            self.assertEqual(set(model.keys()), set(source))
            self.assertEqual(len(model), len(source))
            for key in list(source)[:5]:
                self.assertEqual(model.shape(key), tuple(source[key].shape))
                self.assertEqual(model.dtype(key), "BF16")
                self.assertTrue(torch.equal(model.tensor(key), source[key]))
            with self.assertRaisesRegex(qmill.UsageError, "has no tensor .absent."):
                model.tensor("absent")
        with self.assertRaisesRegex(qmill.UsageError, "is closed"):
            model.tensor(key)

    def test_tensors_of_every_type_cross(self):
        types = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
                 torch.uint8, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2]
        made = {str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in types}
        made["scalar"] = torch.tensor(2.5)
        path = self.folder / "types.safetensors"
        save_file(made, path)
        with qmill.open_model(path) as model:
            for key, expected in made.items():
                found = model.tensor(key)
                self.assertEqual((found.dtype, found.shape), (expected.dtype, expected.shape), key)
                self.assertTrue(torch.equal(found.to(torch.float64), expected.to(torch.float64)), key)


if __name__ == "__main__":
    unittest.main()
