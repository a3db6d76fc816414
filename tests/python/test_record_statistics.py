"""Statistics against a float64 reference over all rows."""

from __future__ import annotations

import json
import unittest

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from qmill.recording import record
from qmill.recording._statistics import _full_precision
from record_support import Attention, RecordCase


class Statistics(RecordCase):
    def assert_statistics_of(self, layer: str, x: Tensor) -> None:
        found = load_file(self.path)
        x = x.double()
        hessian = found[f"{layer}.hessian"]
        self.assertEqual(
            {found[f"{layer}.{kind}"].dtype for kind in ("hessian", "mean", "channel_max")}, {torch.float32}
        )
        self.assertTrue(torch.equal(hessian, hessian.T))
        expected = x.T @ x / len(x)
        error = (hessian.double() - expected).norm() / expected.norm()
        self.assertLess(float(error), 1e-6)
        torch.testing.assert_close(found[f"{layer}.mean"], x.mean(dim=0).float(), rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(found[f"{layer}.channel_max"], x.abs().amax(dim=0).float(), rtol=0, atol=0)
        torch.testing.assert_close(found[f"{layer}.channel_mean"], x.abs().mean(dim=0).float(), rtol=1e-6, atol=1e-7)

    def test_are_those_of_all_rows(self) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(33, 8))
        calls = [torch.randn(2, 700, 33) * torch.logspace(-2, 2, 33) + 1, torch.randn(1, 33), torch.randn(2500, 33)]
        with torch.no_grad(), record(model, self.path, statistics=True, rows=3) as recording:
            for step, x in enumerate(calls):
                recording.step = step
                model(x)
        self.assert_statistics_of("0", torch.cat([x.flatten(0, -2) for x in calls]))
        self.assertEqual(recording.account.rows, {"0": 3901})

    def test_of_shared_inputs_that_diverge(self) -> None:
        model = nn.ModuleList(nn.Linear(5, 5) for _ in range(3))
        first, second, other = torch.randn(9, 5), torch.randn(7, 5), torch.randn(8, 5)
        with torch.no_grad(), record(model, self.path, statistics=True) as recording:
            for x in (first, second):
                for layer in model:
                    layer(x)
            model[0](first)
            model[1](other)
            model[2](first)
        self.assertEqual(recording.account.shared_inputs, {"2": "0"})
        self.assert_statistics_of("0", torch.cat([first, second, first]))
        self.assert_statistics_of("1", torch.cat([first, second, other]))

    def test_do_not_depend_on_autocast(self) -> None:
        model = nn.Sequential(nn.Linear(16, 8))
        x = torch.randn(200, 16)
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            with record(model, self.path, statistics=True):
                model(x)
        self.assert_statistics_of("0", x)

    def test_leave_the_precision_of_products_as_the_caller_chose_it(self) -> None:
        matmul = torch.backends.cuda.matmul
        names = [name for name in ("fp32_precision", "allow_tf32") if hasattr(matmul, name)]
        choices = {"fp32_precision": ("tf32", "ieee", "none"), "allow_tf32": (True, False)}
        for name in names:
            before = getattr(matmul, name)
            for choice in choices[name]:
                with self.subTest(name=name, choice=choice):
                    setattr(matmul, name, choice)
                    with _full_precision(torch.device("cuda")):
                        self.assertIn(getattr(matmul, names[0]), ("ieee", False))
                    self.assertEqual(getattr(matmul, name), choice)
            setattr(matmul, name, before)

    def test_of_half_precision_and_strided_inputs(self) -> None:
        model = nn.Sequential(nn.Linear(12, 4)).half()
        x = (300 * torch.randn(12, 6, 40)).half().permute(2, 1, 0)
        with torch.inference_mode(), record(model, self.path, statistics=True):
            model(x)
        self.assert_statistics_of("0", x.reshape(-1, 12))

    def test_leave_rows_out_that_are_not_finite(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4))
        x = torch.randn(10, 4)
        x[2, 0], x[9, 3] = float("nan"), float("-inf")
        with torch.no_grad(), record(model, self.path, statistics=True) as recording:
            model(x)
        self.assert_statistics_of("0", x[[0, 1, 3, 4, 5, 6, 7, 8]])
        self.assertEqual(recording.account.non_finite_rows, {"0": 2})

    def test_are_stored_once_for_shared_inputs(self) -> None:
        model = Attention(8)
        with torch.inference_mode(), record(model, self.path, statistics=True):
            for _ in range(3):
                model(torch.randn(20, 8))
        self.assertEqual(json.loads(self.file().metadata["shared_inputs"]), {"k": "q", "v": "q"})
        kinds = ("hessian", "mean", "channel_max", "channel_mean")
        self.assertEqual(set(self.file().keys()), {f"{n}.{kind}" for n in ("q", "out", "up", "down") for kind in kinds})


if __name__ == "__main__":
    unittest.main()
