"""The budget holds for the file and for the memory, at every moment."""

from __future__ import annotations

import unittest

import torch
from torch import nn

from qmill.errors import UsageError
from qmill.recording import Recording, record
from record_support import Attention, RecordCase, chi_square, numbered_rows, numbers_of


class Budget(RecordCase):
    def watched(self, recording: Recording) -> list[int]:
        """The memory of the reservoirs after every call."""
        seen: list[int] = []
        observe = recording._observe

        def watch(layers: list[str], x: torch.Tensor) -> None:
            observe(layers, x)
            assert recording._collectors is not None
            seen.append(recording._collectors.budget.used)  # type: ignore[union-attr]

        recording._observe = watch  # type: ignore[method-assign]
        return seen

    def test_layers_that_appear_later_make_the_others_smaller(self) -> None:
        budget = 300_000
        model = nn.Sequential(*(nn.Linear(16, 16) for _ in range(12)))
        recording = Recording(model, self.path, budget=budget)
        used = self.watched(recording)
        recording.start()
        with torch.no_grad():
            for _ in range(5):
                model(torch.randn(600, 16))
        account = recording.finish()
        self.assertGreater(len(used), 59)
        self.assertLessEqual(max(used), budget)
        self.assertGreater(max(used), budget * 0.8)
        self.assertLessEqual(self.path.stat().st_size, budget)
        self.assertEqual(len(set(account.rows.values())), 1, "every input has the same number of rows")
        self.assertEqual(account.rows["3"], account.row_limit)
        self.assertLess(account.row_limit, 600)

    def test_inputs_with_few_rows_leave_their_share_to_the_others(self) -> None:
        model = nn.ModuleList([nn.Linear(32, 4), nn.Linear(32, 4)])
        with torch.no_grad(), record(model, self.path, budget=110_000) as recording:
            for _ in range(4):
                model[0](torch.randn(1, 32))
                model[1](torch.randn(1000, 32))
        self.assertEqual(recording.account.rows["0"], 4)
        self.assertGreater(recording.account.rows["1"], 1000)
        self.assertLessEqual(self.path.stat().st_size, 110_000)

    def test_splits_keep_the_budget(self) -> None:
        budget = 120_000
        model = nn.ModuleList(nn.Linear(64, 4) for _ in range(6))
        recording = Recording(model, self.path, budget=budget)
        used = self.watched(recording)
        recording.start()
        with torch.no_grad():
            x = torch.randn(900, 64)
            for layer in model:
                layer(x)
            for layer in model:
                layer(torch.randn(100, 64))
        account = recording.finish()
        self.assertEqual(account.inputs, 6)
        self.assertLessEqual(max(used), budget)
        self.assertLessEqual(self.path.stat().st_size, budget)

    def test_rows_that_stay_are_a_uniform_sample(self) -> None:
        counts = torch.zeros(64)
        for seed in range(150):
            model = nn.ModuleList(nn.Linear(64, 1) for _ in range(4))
            with torch.no_grad(), record(model, self.path, budget=17_000, seed=seed, overwrite=True) as recording:
                model[0](numbered_rows(64, 64))
                for layer in model[1:]:
                    layer(numbered_rows(64, 64, 1000))
            counts[numbers_of(self.file().tensor("0.input"))] += 1
            self.assertLess(recording.account.rows["0"], 40)
        self.assertLess(chi_square(counts, float(counts.sum()) / 64), 103.4)  # 63 degrees of freedom, p = 0.001

    def test_many_strata_fit_into_the_budget_too(self) -> None:
        model = nn.Sequential(nn.Linear(8, 8))
        with torch.no_grad(), record(model, self.path, budget=20_000) as recording:
            for step in range(300):
                recording.step = f"sample {step}"
                model(torch.randn(20, 8))
        self.assertLessEqual(self.path.stat().st_size, 20_000)
        self.assertGreater(recording.account.rows["0"], 100)

    def test_a_budget_that_is_too_small_is_refused_before_the_model_runs(self) -> None:
        recording = Recording(Attention(64), self.path, budget=10_000)
        with self.assertRaisesRegex(UsageError, "budget of 10000 bytes is too small for 6 layers: pass at least"):
            recording.start()
        with self.assertRaises(UsageError):
            Recording(Attention(4), self.path, rows=0)
        self.assert_nothing_left()

    def test_statistics_that_do_not_fit_are_left_out_and_named(self) -> None:
        model = nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 64), nn.Linear(64, 64), nn.Linear(64, 8), nn.Linear(8, 8))
        budget = 50_000  # a Hessian of 64 columns has 16384 bytes
        with self.assertLogs("qmill", "WARNING") as logs, torch.no_grad():
            with record(model, self.path, budget=budget, statistics=True) as recording:
                model(torch.randn(20, 64))
                model(torch.randn(20, 64))
        self.assertEqual(recording.account.left_out, ("3",))
        self.assertEqual(set(recording.account.rows), {"0", "1", "2", "4"})
        self.assertIn("1 layer left out because the statistics do not fit the budget ('3')", logs.output[0])
        self.assertLessEqual(self.path.stat().st_size, budget)


if __name__ == "__main__":
    unittest.main()
