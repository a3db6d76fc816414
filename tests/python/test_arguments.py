"""Arguments that cannot be: the error is a UsageError and names the argument, before anything is done."""

import collections
import datetime
import functools
import os
import types
import unittest
from pathlib import Path
from unittest import mock

import numpy
import torch

import qmill
from qmill import _native
from support import FolderTest, inside

BAD_NAME = "\udcff.safetensors"  # how Python has a name that is not UTF-8


class Arguments(FolderTest):
    def setUp(self):
        super().setUp()
        self.source = self.model()
        self.output = self.folder / "o.safetensors"
        torch.manual_seed(1)
        self.weight = torch.randn(32, 64)

    def refused(self, start, function, *arguments, **options):
        with self.subTest(start=start, options=list(options)):
            with self.assertRaises(qmill.UsageError) as caught:
                function(*arguments, **options)
            self.assertTrue(str(caught.exception).startswith(start), str(caught.exception))
            str(caught.exception).encode()  # it can be printed
            self.assertEqual([path.name for path in self.folder.iterdir()], ["model.safetensors"])

    def test_numbers_that_json_or_64_bits_lack(self):
        for options, found in [
            ({"lr": float("nan"), "optimizer": "learned_rounding"}, "`lr` is nan; expected a finite number"),
            ({"fail_below": float("inf")}, "`fail_below` is inf; expected a finite number"),
            ({"manual_seed": 10**400}, "`manual_seed` is an integer of 1329 bits; expected an integer of 64 bits"),
            ({"manual_seed": 10**5000}, "`manual_seed` is an integer of 16610 bits"),
            ({"manual_seed": 2**63}, "`manual_seed` is 9223372036854775808; expected an integer of 64 bits"),
            ({"manual_seed": 2**64 - 1}, "`manual_seed` is 18446744073709551615"),
            ({"manual_seed": -(2**63) - 1}, "`manual_seed` is -9223372036854775809"),
            ({"layer_config": {"a": {"top_p": float("nan")}}}, "`layer_config`['a']['top_p'] is nan"),
            ({"layer_config": {"a": {2: "int8"}}}, "a key of `layer_config`['a'] is 2; expected a text"),
            ({"layer_config": {"a": {"format": {"int8"}}}}, "`layer_config`['a']['format'] is of type set"),
            ({"filter": ["none", object()]}, "`filter`[1] is of type object"),
        ]:
            self.refused(found, qmill.convert, self.source, self.output, **options)
            self.refused(found, qmill.plan, self.source, self.output, **options)

    def test_the_largest_seed_is_kept(self):
        both = (self.source, self.output)
        self.refused("`manual_seed` is '9223372036854775807'", qmill.convert, *both, manual_seed=2**63 - 1)
        result = qmill.convert(*both, manual_seed=2**62, optimizer="quip", filter="none")
        self.assertEqual(result.seed, 2**62)

    def test_numbers_and_mappings_of_other_libraries(self):
        config = types.MappingProxyType({r"blocks\.1.*": collections.OrderedDict(format="fp16")})
        options = {"optimizer": "learned_rounding", "num_iter": numpy.int64(5), "lr": numpy.float32(0.5)}
        given = qmill.convert(self.source, self.output, layer_config=config, filter="none", **options)
        options = {"optimizer": "learned_rounding", "num_iter": 5, "lr": 0.5}
        config = {r"blocks\.1.*": {"format": "fp16"}}
        plain = qmill.convert(self.source, self.folder / "p.safetensors", layer_config=config, filter="none", **options)
        self.assertEqual(given.output.read_bytes(), plain.output.read_bytes())
        comparison = qmill.compare(self.output, self.source, threads=numpy.int32(1))
        self.assertEqual(comparison.mean_sqnr_db, plain.mean_sqnr_db)

    def test_arguments_of_another_type(self):
        model, output = self.source, self.output
        for threads in ("2", True, 1.9, None, [1]):
            self.refused("threads is", qmill.compare, model, model, threads=threads)
            self.refused("threads is", qmill.dequantize, model, output, threads=threads)
            self.refused("threads is", qmill.calibrate, model, output, threads=threads)
        for flag in (1, "yes", None):
            self.refused("overwrite is", qmill.dequantize, model, output, overwrite=flag)
            self.refused("overwrite is", qmill.calibrate, model, output, overwrite=flag)
            self.refused("sync is", qmill.dequantize, model, output, sync=flag)
            self.refused("read_data is", qmill.verify, model, read_data=flag)
        for dtype in (None, 3, torch.bfloat16):
            self.refused("dtype is", qmill.dequantize, model, output, dtype=dtype)
        for name in (3, None, b"a"):
            self.refused("name is", qmill.quantize, self.weight, name=name)
        self.refused("key is 3", qmill.open_model(model).tensor, 3)
        for dirs in ("plugins", b"plugins", Path("plugins"), None, 3):
            self.refused("plugin_dirs is one path or of type", qmill.plugins, plugin_dirs=dirs)
        self.refused("plugin_dirs[1] is 3", qmill.plugins, plugin_dirs=["a", 3])

    def test_progress_that_is_no_function(self):
        async def wait(progress):
            pass

        class Waiting:
            async def __call__(self, progress):
                pass

        for function in (qmill.convert, qmill.dequantize):
            for progress, found in [(5, "of type int"), (True, "of type bool"), ("bar", "of type str"),
                                    (wait, "an async function"), (Waiting(), "an async function"),
                                    (functools.partial(wait), "an async function")]:  # fmt: skip
                with mock.patch("qmill.api.call", side_effect=AssertionError("work began")):
                    start = f"progress is {found}; expected a function that takes a Progress"
                    self.refused(start, function, self.source, self.output, progress=progress)

    def test_paths_that_the_libraries_do_not_have(self):
        model, output = self.source, self.output
        for path in (b"model.safetensors", 3, None, datetime.date(2000, 1, 1), "a\0b", BAD_NAME, Path(BAD_NAME)):
            for function, names in [
                (qmill.convert, ("input",)), (qmill.plan, ("input",)), (qmill.inspect, ("path",)),
                (qmill.verify, ("path",)), (qmill.open_model, ("path",)), (qmill.compare, ("quantized", "source")), (qmill.dequantize, ("input",)),
                (qmill.calibrate, ("rows", "output")),
            ]:
                for index, name in enumerate(names):
                    others = [model] * len(names)
                    others[index] = path
                    self.refused(f"{name} is ", function, *others)
            if path is not None:
                self.refused("output is", qmill.convert, model, path)
                self.refused("output is", qmill.dequantize, model, path)
                self.refused("calibration_data is", qmill.compare, model, model, calibration_data=path)
                self.refused("checkpoint is", qmill.record, torch.nn.Linear(4, 4), output, checkpoint=path)
            self.refused("path is", qmill.record, torch.nn.Linear(4, 4), path)
            self.refused("plugin_dirs[0] is", qmill.convert, model, output, plugin_dirs=[path])
        for path in ("a\0b", BAD_NAME, Path(BAD_NAME)):
            self.refused("`calibration_data` is", qmill.convert, model, output, calibration_data=path)
            self.refused("`merge_lora` is", qmill.convert, model, output, merge_lora=path)

    def test_names_that_are_not_utf8_are_named(self):
        for path, found in [
            (BAD_NAME, r"input is '\udcff.safetensors'; expected a text in UTF-8: rename the file"),
            ("model\0.safetensors", r"input is 'model\x00.safetensors'; expected a text without NUL"),
        ]:
            self.refused(found, qmill.convert, path)
        self.refused(r"name is '\udcff'", qmill.quantize, self.weight, name="\udcff")
        self.refused(r"key is '\udcff'", qmill.open_model(self.source).shape, "\udcff")

    def test_a_file_whose_name_is_not_utf8(self):
        path = os.fsdecode(os.fsencode(self.folder) + b"/\xff.safetensors")
        os.rename(self.source, path)
        with self.assertRaisesRegex(qmill.UsageError, r"path is '.*\\udcff.safetensors'; .* rename the file"):
            qmill.open_model(path)

    def test_tensors_that_do_not_cross(self):
        for made, found in [
            (self.weight.to("meta"), "on the device meta; expected a dense tensor"),
            (self.weight.to_sparse(), "torch.sparse_coo, torch.float32; expected a dense tensor"),
            (self.weight.to(torch.float8_e8m0fnu), "of the type torch.float8_e8m0fnu; expected a floating tensor"),
            (self.weight.numpy().astype(">f4"), "a ndarray that torch cannot read"),
            (numpy.array([["a"]]), "a ndarray that torch cannot read"),
        ]:
            self.refused(f"weight is {found}", qmill.quantize, made)
            self.refused(f"hessian is {found}", qmill.quantize, self.weight, hessian=made)
            self.refused(f"rows is {found}", qmill.quantize, self.weight, rows=made)
        with self.assertRaisesRegex(qmill.UsageError, "expected a floating matrix"):
            qmill.quantize(torch.ones(4, 4, dtype=torch.complex64).conj())

    def test_views_of_every_kind_are_read_right(self):
        expected = qmill.quantize(self.weight).tensors["weight"]
        array = self.weight.numpy()
        for view in (array[::-1].copy()[::-1], array[:, ::-1].copy()[:, ::-1], numpy.asfortranarray(array)):
            self.assertTrue(torch.equal(qmill.quantize(view).tensors["weight"], expected))
        negative = torch.complex(self.weight, -self.weight).conj().imag
        self.assertTrue(negative.is_neg())
        self.assertTrue(torch.equal(qmill.quantize(negative).tensors["weight"], expected))

    def test_plugin_folders_are_those_of_the_call(self):
        # A relative name means another folder after chdir: the first reading must not stand for the second.
        folders = [self.folder / name for name in "ab"]
        for number, folder in enumerate(folders):
            (folder / "plugins").mkdir(parents=True)
            (folder / "plugins" / f"libqmill_none{number}.so").write_bytes(b"no library")
        for number, folder in enumerate(folders):
            with inside(folder):
                files = [each.file for each in qmill.plugins(plugin_dirs=["plugins"])]
            self.assertIn(folder / "plugins" / f"libqmill_none{number}.so", files)
            self.assertNotIn(f"libqmill_none{1 - number}.so", [file.name for file in files])

    def test_every_function_that_opens_files_takes_plugin_folders(self):
        rows = self.recorded_rows(self.source)
        with qmill.open_model(self.source, plugin_dirs=[self.folder]) as model:
            self.assertEqual(len(model), 6)
        made = qmill.calibrate(rows, self.folder / "s.safetensors", plugin_dirs=[self.folder])
        self.assertEqual(made.distinct_inputs, 3)
        with self.assertRaisesRegex(qmill.UsageError, r"plugin_dirs\[0\] is 3"):
            qmill.open_model(self.source, plugin_dirs=[3])


class Results(FolderTest):
    def test_results_with_lists_and_tensors_are_equal_to_themselves_only(self):
        made = qmill.quantize(torch.randn(16, 16))
        other = qmill.quantize(torch.randn(16, 16))
        self.assertEqual(made, made)
        self.assertNotEqual(made, other)
        self.assertNotEqual(made.report, other.report)
        self.assertEqual(len({made, other, made.report, other.report}), 4)

    def test_filters_say_what_they_keep(self):
        flux = next(each for each in qmill.filters() if each.name == "flux")
        self.assertEqual(flux.keep, flux.to_dict()["keep"])
        self.assertTrue(flux.keep)
        self.assertEqual(flux.remove, flux.to_dict()["remove"])
        self.assertIn("flux1", [each.name for each in flux.architectures])

    def test_warnings_of_plans_and_plain_models_are_logged(self):
        model = self.model()
        with self.assertLogs("qmill", "WARNING") as logs:
            plan = qmill.plan(model)
        self.assertEqual([record.getMessage() for record in logs.records], plan.warnings)
        self.assertIn("the architecture is not recognised", plan.warnings[0])
        found = {"output": "o", "output_bytes": 1, "dtype": "BF16", "seconds": 0.0, "warnings": ["a warning"]}
        with mock.patch("qmill.api.call", return_value=_native.Reply(found, [])), self.assertLogs("qmill") as logs:
            qmill.dequantize(model)
        self.assertEqual([record.getMessage() for record in logs.records], ["a warning"])


if __name__ == "__main__":
    unittest.main()
