"""A recording that adds to an earlier one: rows are pooled in proportion to what each has seen."""

from __future__ import annotations

import json
import unittest
from collections import Counter

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from qmill.errors import InputError, UsageError
from qmill.recording import Recording, record
from record_support import Attention, RecordCase, chi_square, numbered_rows, numbers_of


class Append(RecordCase):
    def add(self, model: nn.Module, x: torch.Tensor, step: object = None, **options: object) -> Recording:
        with torch.no_grad(), record(model, self.path, append=True, **options) as recording:  # type: ignore[arg-type]
            recording.step = step
            model(x)
        return recording

    def test_everything_is_kept_while_it_fits(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4))
        for part in range(3):
            recording = self.add(model, numbered_rows(20, 4, 20 * part), step=part % 2)
        self.assertEqual(sorted(numbers_of(self.file().tensor("0.input"))), list(range(60)))
        seen = json.loads(self.file().metadata["rows_seen"])
        self.assertEqual(seen, {"0": {"calls": 3, "strata": [[0, 40, 40], [1, 20, 20]]}})
        self.assertEqual(recording.account.rows_seen, {"0": 60})

    def test_every_row_of_all_recordings_is_as_likely(self) -> None:
        """30 and then 60 rows, 10 are kept: a third of them comes from the first recording."""
        counts = torch.zeros(90)
        model = nn.Sequential(nn.Linear(4, 4))
        for seed in range(300):
            self.path.unlink(missing_ok=True)
            self.add(model, numbered_rows(30, 4), rows=10, seed=seed)
            self.add(model, numbered_rows(60, 4, 30), rows=10, seed=seed)
            counts[numbers_of(self.file().tensor("0.input"))] += 1
        self.assertEqual(int(counts.sum()), 3000)
        self.assertLess(chi_square(counts, 3000 / 90), 135.9)  # 89 degrees of freedom, p = 0.001
        self.assertAlmostEqual(float(counts[:30].sum()) / 3000, 1 / 3, delta=0.03)

    def test_strata_are_balanced_over_both(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4))
        self.add(model, numbered_rows(500, 4), "a", rows=30)
        self.add(model, numbered_rows(500, 4, 500), "b", rows=30)
        self.add(model, numbered_rows(500, 4, 1000), "a", rows=30)
        strata = json.loads(self.file().metadata["rows_seen"])["0"]["strata"]
        self.assertEqual(strata, [["a", 1000, 15], ["b", 500, 15]])
        where = Counter(number // 500 for number in numbers_of(self.file().tensor("0.input")))
        self.assertEqual(where[1], 15)
        self.assertGreater(min(where[0], where[2]), 0)

    def test_shared_inputs_go_on(self) -> None:
        model = Attention(8)
        for _ in range(2):
            recording = self.add(model, torch.randn(6, 8))
        self.assertEqual(recording.account.shared_inputs, {"k": "q", "v": "q"})
        self.assertEqual(recording.account.rows["v"], 12)
        with self.assertRaisesRegex(InputError, "share=True"):
            self.add(model, torch.randn(6, 8), share=False)

    def test_a_smaller_limit_makes_the_earlier_sample_smaller(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4))
        self.add(model, numbered_rows(500, 4), rows=400)
        self.add(model, numbered_rows(1, 4, 500), rows=17)
        self.assertEqual(self.file().shape("0.input"), (17, 4))

    def test_statistics_add_up(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4))
        parts = [torch.randn(50, 4), 3 * torch.randn(7, 4) + 1]
        for part in parts:
            self.add(model, part, statistics=True)
        x = torch.cat(parts).double()
        found = load_file(self.path)
        torch.testing.assert_close(found["0.hessian"].double(), x.T @ x / 57, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found["0.mean"].double(), x.mean(dim=0), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found["0.channel_max"], x.abs().amax(dim=0).float())
        torch.testing.assert_close(found["0.channel_mean"].double(), x.abs().mean(dim=0), rtol=1e-5, atol=1e-6)

    def test_another_checkpoint_is_refused(self) -> None:
        model = Attention(8)
        checkpoint = self.folder / "model.safetensors"
        save_file(model.state_dict(), checkpoint)
        self.add(model, torch.randn(6, 8), checkpoint=checkpoint)
        before = self.path.read_bytes()
        with self.assertRaisesRegex(InputError, "was recorded with a checkpoint, and none is given now"):
            self.add(model, torch.randn(6, 8))
        save_file({**model.state_dict(), "more": torch.zeros(1)}, checkpoint)
        with self.assertRaisesRegex(InputError, "another checkpoint"):
            self.add(model, torch.randn(6, 8), checkpoint=checkpoint)
        self.assertEqual(self.path.read_bytes(), before)
        self.path.unlink()
        self.add(model, torch.randn(6, 8))
        with self.assertRaisesRegex(InputError, "was recorded without a checkpoint"):
            self.add(model, torch.randn(6, 8), checkpoint=checkpoint)

    def test_rows_and_statistics_do_not_mix(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4))
        self.add(model, torch.randn(6, 4))
        with self.assertRaisesRegex(InputError, "rows instead of statistics"):
            self.add(model, torch.randn(6, 4), statistics=True)
        self.path.unlink()
        self.add(model, torch.randn(6, 4), statistics=True)
        with self.assertRaisesRegex(InputError, "statistics instead of rows"):
            self.add(model, torch.randn(6, 4))

    def test_files_that_are_no_recordings_are_refused(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4))
        good = {"format": "qmill_recording", "version": "1", "shared_inputs": "{}"}
        rows = torch.zeros(3, 4, dtype=torch.bfloat16)

        def seen(*strata: object) -> str:
            return json.dumps({"0": {"calls": 1, "strata": list(strata)}})

        bad_rows = rows.clone()
        bad_rows[0, 0] = float("nan")
        for metadata, tensor, message in (
            ({}, rows, "no recording"),
            ({**good, "version": "99"}, rows, "no recording of this version"),
            (good, rows, "damaged metadata"),
            ({**good, "rows_seen": "["}, rows, "damaged metadata"),
            ({**good, "rows_seen": "[]"}, rows, "damaged metadata"),
            ({**good, "rows_seen": seen([None, 2, 3])}, rows, "damaged metadata"),
            ({**good, "rows_seen": seen([None, -1, -3])}, rows, "damaged metadata"),
            ({**good, "rows_seen": seen([None, "7", 3])}, rows, "damaged metadata"),
            ({**good, "rows_seen": seen([[1], 3, 3])}, rows, "damaged metadata"),
            ({**good, "rows_seen": seen([None, 3, 3]), "shared_inputs": '{"1": "2"}'}, rows, "damaged metadata"),
            ({**good, "rows_seen": seen([None, 9, 4])}, rows, "no entry '0.input' of type BF16 with the 4 rows"),
            ({**good, "rows_seen": seen([None, 9, 3])}, rows.float(), "no entry '0.input' of type BF16"),
            ({**good, "rows_seen": seen([None, 9, 3])}, bad_rows, "not finite"),
        ):
            save_file({"0.input": tensor}, self.path, metadata)
            before = self.path.read_bytes()
            with self.subTest(metadata=metadata), self.assertRaisesRegex(InputError, message):
                self.add(model, torch.randn(6, 4))
            self.assertEqual(self.path.read_bytes(), before)

    def test_a_file_that_changes_meanwhile_is_not_replaced(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4))
        self.add(model, torch.randn(6, 4))
        with self.assertRaisesRegex(InputError, "changed while"), torch.no_grad():
            with record(model, self.path, append=True):
                model(torch.randn(6, 4))
                self.path.write_bytes(b"something else")
        self.assertEqual(self.path.read_bytes(), b"something else")

    def test_append_and_overwrite_contradict(self) -> None:
        with self.assertRaises(UsageError):
            record(nn.Sequential(nn.Linear(4, 4)), self.path, append=True, overwrite=True)


if __name__ == "__main__":
    unittest.main()
