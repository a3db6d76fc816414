"""Inputs that several layers read are stored once, and only while every call of the layers had the same input."""

from __future__ import annotations

import json
import unittest
from collections.abc import Callable

import torch
from torch import Tensor, nn

from qmill.recording import RecordingAccount, record
from record_support import Attention, RecordCase, numbered_rows, numbers_of


class Three(nn.Module):
    """Three layers whose calls a test decides."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)


class Sharing(RecordCase):
    def run_calls(self, calls: Callable[[Three], object]) -> RecordingAccount:
        model = Three()
        with torch.no_grad(), record(model, self.path, overwrite=True, rows=64) as recording:
            calls(model)
        return recording.account

    def numbers(self, layer: str) -> list[int]:
        return sorted(numbers_of(self.file().tensor(f"{layer}.input")))

    def test_q_k_and_v_have_one_entry(self) -> None:
        for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
            model = nn.Sequential(Attention(8), Attention(8))
            with mode(), record(model, self.path, overwrite=True) as recording:
                for _ in range(3):
                    model(torch.randn(2, 5, 8))
            shared = {"0.k": "0.q", "0.v": "0.q", "1.k": "1.q", "1.v": "1.q"}
            self.assertEqual(json.loads(self.file().metadata["shared_inputs"]), shared)
            self.assertEqual(recording.account.shared_inputs, shared)
            entries = {f"{block}.{layer}.input" for block in (0, 1) for layer in ("q", "out", "up", "down")}
            self.assertEqual(set(self.file().keys()), entries)
            self.assertEqual(recording.account.rows["1.v"], 30)
            self.assertEqual((recording.account.layers, recording.account.inputs), (12, 8))

    def test_without_share_every_layer_has_an_entry(self) -> None:
        model = Attention(8)
        with torch.no_grad(), record(model, self.path, share=False):
            model(torch.randn(5, 8))
        self.assertEqual(len(self.file().keys()), 6)
        self.assertEqual(json.loads(self.file().metadata["shared_inputs"]), {})

    def test_views_of_one_tensor_are_one_input(self) -> None:
        x = numbered_rows(10, 4)
        account = self.run_calls(lambda m: [m.a(x), m.b(x.view(2, 5, 4)), m.c(x.detach())])
        self.assertEqual(account.shared_inputs, {"b": "a", "c": "a"})

    def test_equal_values_in_other_memory_are_two_inputs(self) -> None:
        def calls(m: Three) -> None:
            m.a(numbered_rows(10, 4))
            m.b(numbered_rows(10, 4))  # may well get the memory that the first one gave back

        for _ in range(20):
            self.assertEqual(self.run_calls(calls).shared_inputs, {})

    def test_a_part_of_a_tensor_is_another_input(self) -> None:
        x = numbered_rows(10, 4)
        account = self.run_calls(lambda m: [m.a(x), m.b(x[:5]), m.c(x[5:])])
        self.assertEqual(account.shared_inputs, {})
        self.assertEqual(self.numbers("c"), [5, 6, 7, 8, 9])

    def test_a_tensor_changed_in_place_is_another_input(self) -> None:
        for mode in (torch.no_grad, torch.inference_mode):

            def calls(m: Three, mode: Callable[[], object] = mode) -> None:
                with mode():  # type: ignore[attr-defined]
                    x = numbered_rows(10, 4)
                    m.a(x)
                    x[:, 0] += 50
                    m.b(x)
                    m.c(x)

            self.assertEqual(self.run_calls(calls).shared_inputs, {"c": "b"})
            self.assertEqual(self.numbers("a"), list(range(10)))
            self.assertEqual(self.numbers("b"), list(range(50, 60)))

    def test_layers_that_diverge_are_split(self) -> None:
        first, second, other = numbered_rows(10, 4), numbered_rows(10, 4, 100), numbered_rows(7, 4, 200)

        def calls(m: Three) -> None:
            for layer in (m.a, m.b, m.c):
                layer(first)
            m.a(second)
            m.b(other)
            m.c(second)
            for layer in (m.a, m.b, m.c):
                layer(first)

        account = self.run_calls(calls)
        self.assertEqual(account.shared_inputs, {"c": "a"})
        self.assertEqual(self.numbers("a"), sorted(2 * list(range(10)) + list(range(100, 110))))
        self.assertEqual(self.numbers("b"), sorted(2 * list(range(10)) + list(range(200, 207))))
        self.assertEqual((account.rows_seen["b"], account.rows_seen["a"]), (27, 30))

    def test_layers_that_miss_a_call_are_split_together(self) -> None:
        first, second = numbered_rows(10, 4), numbered_rows(10, 4, 100)

        def calls(m: Three) -> None:
            for x in (first, second):
                m.a(x)
            m.b(first)

        def late(m: Three) -> None:
            for layer in (m.a, m.b, m.c):
                layer(first)
            m.a(second)
            m.a(first)
            m.b(first)
            m.c(first)

        self.assertEqual(self.run_calls(calls).shared_inputs, {})
        self.assertEqual(self.numbers("b"), list(range(10)))
        self.assertEqual(self.run_calls(late).shared_inputs, {"c": "b"})
        self.assertEqual(self.numbers("b"), sorted(2 * list(range(10))))
        self.assertEqual(len(self.numbers("a")), 30)

    def test_a_layer_that_misses_the_last_call_is_split_at_the_end(self) -> None:
        first, second = numbered_rows(10, 4), numbered_rows(10, 4, 100)

        def calls(m: Three) -> None:
            m.a(first)
            m.b(first)
            m.a(second)

        self.assertEqual(self.run_calls(calls).shared_inputs, {})
        self.assertEqual(self.numbers("b"), list(range(10)))
        self.assertEqual(len(self.numbers("a")), 20)

    def test_a_layer_that_begins_later_does_not_join(self) -> None:
        x = numbered_rows(10, 4)
        account = self.run_calls(lambda m: [m.a(x), m.a(x), m.b(x), m.b(x)])
        self.assertEqual(account.shared_inputs, {})
        account = self.run_calls(lambda m: [[m.a(x), m.b(x)] for _ in range(3)] + [m.c(x)])
        self.assertEqual(account.shared_inputs, {"b": "a"})
        self.assertEqual((account.rows["a"], account.rows["c"]), (30, 10))

    def test_the_same_context_in_every_block_is_stored_once(self) -> None:
        class Block(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.k, self.v = nn.Linear(4, 4), nn.Linear(4, 4)

            def forward(self, context: Tensor) -> Tensor:
                result: Tensor = self.k(context) + self.v(context)
                return result

        blocks = nn.ModuleList(Block() for _ in range(3))
        context = numbered_rows(9, 4)
        with torch.inference_mode(), record(blocks, self.path) as recording:
            for _ in range(2):
                for block in blocks:
                    block(context)
        self.assertEqual(recording.account.inputs, 1)
        self.assertEqual(self.file().keys(), ["0.k.input"])


if __name__ == "__main__":
    unittest.main()
