"""One weight in memory, against arithmetic of this file and against the files of the command."""

import unittest

import torch
from safetensors.torch import load_file, save_file

import qmill
from support import FolderTest, run_command


def correlated(rows, columns, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) @ torch.randn(columns, columns, generator=generator)


def as_bytes(tensor):
    return tensor.reshape(-1).view(torch.uint8)


class Quantize(FolderTest):
    def setUp(self):
        super().setUp()
        torch.manual_seed(1)
        self.weight = torch.randn(48, 200) / 8

    def test_int8_rows_are_rounded_to_nearest(self):
        made = qmill.quantize(self.weight, convrot="off")
        scale = self.weight.abs().amax(dim=1, keepdim=True) / 127
        codes = torch.clamp(torch.round(self.weight / scale), -127, 127)
        self.assertEqual(made.tensors["weight"].dtype, torch.int8)
        self.assertLessEqual((made.tensors["weight"].float() - codes).abs().max(), 1)
        self.assertGreater((made.tensors["weight"].float() == codes).float().mean(), 0.999)
        torch.testing.assert_close(made.tensors["weight.weight_scale"], scale)
        torch.testing.assert_close(made.dequantized, made.tensors["weight"] * scale)
        error = (self.weight.double() - made.dequantized.double()).square().mean()
        self.assertAlmostEqual(made.report.mse / float(error), 1, places=6)
        self.assertEqual(made.report.quantizer, "rtn")

    def test_tensors_are_those_of_a_file(self):
        model = self.folder / "model.safetensors"
        save_file({"a.weight": self.weight}, model)
        for format_name in ("int8", "fp8", "float8_e5m2", "mxfp8", "nvfp4", "w4a8", "fp16"):
            with self.subTest(format=format_name):
                weight = torch.randn(64, 256)
                save_file({"a.weight": weight}, model)
                made = qmill.quantize(weight, name="a.weight", format=format_name)
                output = self.folder / f"{format_name}.safetensors"
                run_command("convert", model, output, "--format", format_name, "--filter", "none", "--target", "any")
                stored = load_file(output)
                self.assertEqual(set(made.tensors), set(stored))
                for name, tensor in stored.items():
                    self.assertEqual(made.tensors[name].dtype, tensor.dtype)
                    self.assertTrue(torch.equal(as_bytes(made.tensors[name]), as_bytes(tensor)), name)

    def test_rows_lower_the_output_error(self):
        both = correlated(2000, 200)
        x, fresh = both[:1000], both[1000:]
        made = qmill.quantize(self.weight, rows=x, convrot="off")
        plain = qmill.quantize(self.weight, convrot="off")
        self.assertEqual(made.report.quantizer, "gptq")
        error = lambda q: float((fresh @ (self.weight - q.dequantized).T).norm() / (fresh @ self.weight.T).norm())
        self.assertLess(error(made), 0.8 * error(plain))
        self.assertEqual(made.report.output_rows, 200)  # one of five
        self.assertLess(made.report.output_error, made.report.rounding_output_error)

    def test_rows_of_three_dimensions_are_rows(self):
        x = correlated(1000, 200)
        flat = qmill.quantize(self.weight, rows=x)
        folded = qmill.quantize(self.weight, rows=x.reshape(10, 100, 200))
        self.assertTrue(torch.equal(flat.tensors["weight"], folded.tensors["weight"]))

    def test_a_hessian_of_any_scale(self):
        x = correlated(1000, 200).double()
        hessian = x.T @ x
        made = [qmill.quantize(self.weight, hessian=hessian * scale, convrot="off") for scale in (1.0, 2.0**-20)]
        self.assertEqual(made[0].report.quantizer, "gptq")
        self.assertTrue(torch.equal(made[0].tensors["weight"], made[1].tensors["weight"]))
        plain = qmill.quantize(self.weight, convrot="off")
        cost = lambda q: float(((self.weight - q.dequantized).double() @ hessian).mul((self.weight - q.dequantized).double()).sum())
        self.assertLess(cost(made[0]), 0.7 * cost(plain))

    def test_arrays_of_other_libraries(self):
        ours = qmill.quantize(self.weight.numpy())
        self.assertTrue(torch.equal(ours.tensors["weight"], qmill.quantize(self.weight).tensors["weight"]))
        self.assertEqual(ours.dequantized.dtype, torch.float32)

    def test_weights_of_every_floating_type(self):
        for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn):
            weight = self.weight.to(dtype)
            made = qmill.quantize(weight, convrot="off")
            self.assertLess((weight.float() - made.dequantized).abs().max(), 0.01)

    def test_strides_gradients_and_inference_tensors(self):
        expected = qmill.quantize(self.weight).tensors["weight"]
        self.assertTrue(torch.equal(qmill.quantize(self.weight.T.contiguous().T).tensors["weight"], expected))
        self.assertTrue(torch.equal(qmill.quantize(torch.nn.Parameter(self.weight)).tensors["weight"], expected))
        with torch.inference_mode():
            self.assertTrue(torch.equal(qmill.quantize(self.weight.clone()).tensors["weight"], expected))

    def test_the_weight_is_not_changed(self):
        before = self.weight.clone()
        for optimizer in ("rtn", "gptq", "quip"):
            qmill.quantize(self.weight, optimizer=optimizer)
        self.assertTrue(torch.equal(self.weight, before))

    def test_refusals(self):
        x = torch.randn(10, 200)
        cases = [
            (dict(rows=torch.randn(10, 100)), r"rows is F32 10 x 100, expected a floating rows x 200"),
            (dict(hessian=torch.eye(100)), r"hessian is F32 100 x 100, expected a floating 200 x 200"),
            (dict(hessian=torch.eye(200), rows=x), "give one of them"),
            (dict(rows=x.to(torch.int32)), "rows is I32"),
            (dict(rows="x"), "rows is a str"),
            (dict(filter="t5xxl"), "`filter` is an option of whole models"),
            (dict(format="int3"), "int3"),
            (dict(num_iter=5), "`num_iter` is an option of"),
        ]
        for options, pattern in cases:
            with self.subTest(options=list(options)), self.assertRaisesRegex(qmill.UsageError, pattern):
                qmill.quantize(self.weight, **options)
        for weight in (torch.randn(3), torch.empty(0, 4), torch.ones(4, 4, dtype=torch.int8)):
            with self.assertRaisesRegex(qmill.UsageError, "expected a floating matrix"):
                qmill.quantize(weight)
        with self.assertRaisesRegex(qmill.NumericError, "not finite"):
            qmill.quantize(torch.full((64, 256), float("inf")))
        with self.assertRaisesRegex(qmill.NumericError, "not finite"):
            qmill.quantize(self.weight, rows=torch.full((10, 200), float("nan")))


if __name__ == "__main__":
    unittest.main()
