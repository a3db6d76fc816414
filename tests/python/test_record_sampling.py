"""The sample: which rows are kept, with which probability, and from which strata."""

from __future__ import annotations

import json
import unittest
from collections import Counter

import numpy as np
import torch
from torch import nn

from qmill.errors import UsageError
from qmill.recording import record
from qmill.recording._reservoir import Reservoir, label_of
from qmill.recording._rows import RowStore, capacity_for, finite_rows
from qmill.recording._sampling import even_shares, keys_of_sample, row_keys
from record_support import RecordCase, chi_square, numbered_rows, numbers_of


def offer(
    reservoir: Reservoir, label: object, keys: torch.Tensor, rows: torch.Tensor, limit: int, call: int = 0
) -> int:
    stratum = reservoir.stratum(label)  # type: ignore[arg-type]
    candidates = reservoir.candidates(stratum, keys)
    return reservoir.add(stratum, call, keys, candidates, limit, lambda which: rows[which].bfloat16())


def kept(reservoir: Reservoir) -> list[int]:
    return numbers_of(torch.cat(list(reservoir.blocks())))


class Labels(unittest.TestCase):
    def test_equal_values_are_one_stratum(self) -> None:
        for value in (3, 3.0, np.int64(3), np.float32(3), np.array(3), torch.tensor(3), torch.tensor([3.0])):
            label = label_of(value)
            self.assertEqual((label, type(label)), (3, int))
        self.assertEqual(label_of("late"), "late")
        self.assertEqual(label_of(float("nan")), "nan")

    def test_what_a_file_cannot_hold_is_refused_when_it_is_named(self) -> None:
        for value in ("\udcff", 2**63, 10**5000):
            with self.assertRaisesRegex(UsageError, "^step is "):
                label_of(value)


class Shares(unittest.TestCase):
    def test_nobody_gets_more_than_it_wants(self) -> None:
        self.assertEqual(even_shares([3, 100, 100], 53, [0, 0, 0]), [3, 25, 25])
        self.assertEqual(even_shares([3, 4], 100, [0, 0]), [3, 4])
        self.assertEqual(even_shares([], 5, []), [])

    def test_what_cannot_be_divided_goes_by_priority(self) -> None:
        self.assertEqual(even_shares([10, 10, 10], 11, [0.9, 0.1, 0.5]), [3, 4, 4])
        self.assertEqual(even_shares([5, 5, 5], 2, [0.9, 0.1, 0.5]), [0, 1, 1])

    def test_the_sum_is_the_limit_for_any_numbers(self) -> None:
        random = torch.Generator().manual_seed(1)
        for _ in range(300):
            wanted = torch.randint(0, 40, (6,), generator=random).tolist()
            limit = int(torch.randint(0, 150, (), generator=random))
            shares = even_shares(wanted, limit, torch.rand(6, generator=random).tolist())
            self.assertEqual(sum(shares), min(limit, sum(wanted)))
            self.assertTrue(all(0 <= share <= want for share, want in zip(shares, wanted, strict=True)))
            cut = [share for share, want in zip(shares, wanted, strict=True) if share < want]
            self.assertTrue(not cut or max(shares) - min(cut) <= 1)


class Store(unittest.TestCase):
    def test_rows_survive_growth_and_shrinking_at_odd_numbers(self) -> None:
        store = RowStore(5)
        for count in (1, 16, 17, 500, 700, 1300, 64, 3):
            store.resize(count)
            self.assertEqual(store.capacity, capacity_for(count))
            self.assertGreaterEqual(store.capacity, count)
            rows = numbered_rows(count, 5, first=count).bfloat16()
            store.put(torch.arange(count), rows)
            which = torch.arange(0, count, 3)
            self.assertTrue(torch.equal(store.get(which), rows[which]))
        store.resize(0)
        self.assertEqual(store.capacity, 0)

    def test_finite_rows_are_those_of_isfinite(self) -> None:
        rows = torch.tensor([[1.0, -3e38], [float("nan"), 0], [0, float("-inf")], [-0.0, 1e-40]]).bfloat16()
        self.assertEqual(finite_rows(rows).tolist(), torch.isfinite(rows).all(dim=1).tolist())
        self.assertEqual(finite_rows(rows).tolist(), [True, False, False, True])


class Sample(unittest.TestCase):
    def test_is_the_rows_with_the_smallest_keys(self) -> None:
        """Against a reference that keeps every key: strata of different sizes, calls of different lengths."""
        for limit in (7, 40, 129):
            reservoir = Reservoir(6, 0, "layer")
            keys: dict[str, list[tuple[float, int]]] = {"a": [], "b": [], "c": []}
            first = 0
            for call, (label, count) in enumerate([("a", 50), ("b", 1), ("a", 33), ("c", 90), ("b", 200), ("a", 5)]):
                key = row_keys(3, "layer", call, count)
                offer(reservoir, label, key, numbered_rows(count, 6, first), limit, call)
                keys[label] += [(float(k), first + i) for i, k in enumerate(key)]
                first += count
            sizes = {state.label: state.held for state in reservoir.strata}
            expected = [number for label in keys for _, number in sorted(keys[label])[: sizes[label]]]
            self.assertEqual(kept(reservoir), expected)
            self.assertEqual(sum(sizes.values()), limit)
            self.assertLessEqual(max(sizes.values()) - min(sizes.values()), 1)
            self.assertEqual(reservoir.seen, 379)

    def test_keeps_all_rows_up_to_the_limit(self) -> None:
        reservoir = Reservoir(4, 0, "layer")
        for call in range(3):
            offer(reservoir, None, row_keys(0, "layer", call, 10), numbered_rows(10, 4, 10 * call), 30, call)
        self.assertEqual(sorted(kept(reservoir)), list(range(30)))

    def test_every_row_is_as_likely(self) -> None:
        """60 rows in calls of 7 to 20; 12 are kept; then the sample is cut to 6. 500 seeds."""
        counts, cut = torch.zeros(60), torch.zeros(60)
        for seed in range(500):
            reservoir = Reservoir(3, seed, "layer")
            first = 0
            for call, count in enumerate((20, 7, 13, 20)):
                offer(reservoir, None, row_keys(seed, "x", call, count), numbered_rows(count, 3, first), 12, call)
                first += count
            counts[kept(reservoir)] += 1
            reservoir.trim(6)
            cut[kept(reservoir)] += 1
        # Chi-square with 59 degrees of freedom is above 98.3 with probability 0.001 for independent counts, and lower
        # for samples without replacement.
        self.assertEqual(int(counts.sum()), 500 * 12)
        self.assertLess(chi_square(counts, 500 * 12 / 60), 98.3)
        self.assertLess(chi_square(cut, 500 * 6 / 60), 98.3)

    def test_more_strata_than_rows_leaves_one_row_of_some(self) -> None:
        chosen = torch.zeros(20)
        for seed in range(200):
            reservoir = Reservoir(3, seed, "layer")
            for label in range(20):
                count = 1 + 30 * (label % 2)
                offer(reservoir, label, row_keys(seed, "x", label, count), numbered_rows(count, 3), 5, label)
            held = [state.held for state in reservoir.strata]
            self.assertEqual(sorted(held), [0] * 15 + [1] * 5)
            chosen += torch.tensor(held)
        # 19 degrees of freedom, probability 0.001: big strata are no likelier than small ones.
        self.assertLess(chi_square(chosen, 200 * 5 / 20), 43.8)

    def test_a_copy_without_the_last_call_is_a_uniform_sample(self) -> None:
        counts = torch.zeros(30)
        for seed in range(500):
            reservoir = Reservoir(3, seed, "layer")
            for call in range(3):
                offer(reservoir, call // 2, row_keys(seed, "x", call, 15), numbered_rows(15, 3, 15 * call), 10, call)
            copy = reservoir.without_last_call()
            numbers = kept(copy)
            self.assertTrue(all(number < 30 for number in numbers))
            self.assertEqual(copy.seen, 30)
            self.assertEqual(sum(state.held for state in copy.strata), len(numbers))
            counts[numbers] += 1
        self.assertLess(chi_square(counts, float(counts.sum()) / 30), 58.3)  # 29 degrees of freedom, p = 0.001

    def test_keys_for_an_earlier_sample_have_the_distribution_of_the_smallest(self) -> None:
        """Means of the order statistics of uniform numbers: the i-th of n is i / (n + 1) on average."""
        total, threshold = torch.zeros(4, dtype=torch.float64), 0.0
        for seed in range(2000):
            keys, limit = keys_of_sample(seed, "layer", None, 4, 19)
            self.assertTrue(bool((keys < limit).all()))
            total += keys.sort().values
            threshold += limit
        expected = torch.arange(1, 5, dtype=torch.float64) / 20
        self.assertLess(float((total / 2000 - expected).abs().max()), 0.009)  # about five standard errors
        self.assertAlmostEqual(threshold / 2000, 5 / 20, delta=0.012)
        keys, limit = keys_of_sample(0, "layer", None, 5, 5)
        self.assertEqual((len(keys), limit), (5, 1.0))


class Recorded(RecordCase):
    def test_all_rows_in_bf16_when_there_are_fewer_than_the_limit(self) -> None:
        model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
        x = torch.randn(3, 7, 6)
        with torch.no_grad(), record(model, self.path, rows=64) as recording:
            model(x)
        rows = self.file().tensor("0.input")
        self.assertEqual(rows.dtype, torch.bfloat16)
        order = {tuple(row): None for row in rows.tolist()}
        self.assertEqual(set(order), {tuple(row) for row in x.flatten(0, 1).bfloat16().tolist()})
        self.assertEqual(recording.account.rows, {"0": 21, "1": 21})
        self.assertEqual(recording.account.bytes, self.path.stat().st_size)
        self.assertTrue(recording.account.finished)

    def test_steps_get_equal_shares_however_many_rows_they_have(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4))
        with torch.no_grad(), record(model, self.path, rows=90) as recording:
            for step, count in enumerate((1000, 50, 400)):
                recording.step = torch.tensor(float(step))
                model(numbered_rows(count, 4, 1000 * step))
            with recording.stratum("late"):
                model(numbered_rows(3, 4, 5000))
            self.assertEqual(recording.step, 2)
        parts = Counter(number // 1000 for number in numbers_of(self.file().tensor("0.input")))
        self.assertEqual(parts, {0: 29, 1: 29, 2: 29, 5: 3})
        seen = json.loads(self.file().metadata["rows_seen"])
        self.assertEqual(seen["0"]["strata"], [[0, 1000, 29], [1, 50, 29], [2, 400, 29], ["late", 3, 3]])

    def test_the_same_calls_and_seed_give_the_same_bytes(self) -> None:
        torch.manual_seed(5)
        model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
        x = torch.randn(4, 100, 8)
        files = []
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            with torch.no_grad(), record(model, self.folder / name, rows=50, seed=seed) as recording:
                for step in range(4):
                    recording.step = step / 4
                    model(x[step])
            files.append((self.folder / name).read_bytes())
        self.assertEqual(files[0], files[1])
        rows = [self.file(self.folder / name).tensor("0.input").tolist() for name in "ac"]
        self.assertNotEqual(rows[0], rows[1])

    def test_rows_that_are_not_finite_are_left_out_and_counted(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4))
        x = numbered_rows(40, 4)
        x[3, 1], x[17, 3], x[20] = float("nan"), float("inf"), 3.4e38  # the last is too large for BF16
        with self.assertLogs("qmill", "WARNING") as logs, torch.no_grad(), record(model, self.path) as recording:
            model(x)
        self.assertEqual(
            sorted(numbers_of(self.file().tensor("0.input"))), [n for n in range(40) if n not in (3, 17, 20)]
        )
        self.assertEqual(recording.account.non_finite_rows, {"0": 3})
        self.assertEqual(recording.account.rows_seen, {"0": 37})
        self.assertIn("not finite", logs.output[0])


if __name__ == "__main__":
    unittest.main()
