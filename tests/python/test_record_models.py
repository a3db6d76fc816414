"""Models as they come: layers of any class, ways to run them, and models that are refused."""

from __future__ import annotations

import threading
import unittest
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from qmill.errors import UnsupportedError, UsageError
from qmill.recording import Recording, record
from record_support import Attention, RecordCase, numbered_rows, numbers_of


class OwnLinear(nn.Module):
    """A linear layer that is no nn.Linear, and casts its weight when it is called."""

    def __init__(self, columns: int, rows: int) -> None:
        super().__init__()
        self.in_features, self.out_features = columns, rows
        self.weight = nn.Parameter(torch.randn(rows, columns), requires_grad=False)

    def forward(self, *, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype))


class Models(RecordCase):
    def rows_of(self, model: nn.Module, run: Callable[[], object], layer: str = "0") -> Tensor:
        with record(model, self.path, overwrite=True):
            run()
        return self.file().tensor(f"{layer}.input")

    def test_layers_are_known_by_what_they_have(self) -> None:
        model = nn.ModuleDict({"own": OwnLinear(4, 3), "conv": nn.Conv2d(1, 1, 1), "norm": nn.LayerNorm(4)})
        model["table"] = nn.Embedding(5, 4)
        x = numbered_rows(6, 4)

        def run() -> None:
            model["own"](x=x)
            model["norm"](x)
            model["conv"](torch.randn(1, 1, 2, 2))
            model["table"](torch.tensor([1, 2]))

        self.assertEqual(sorted(numbers_of(self.rows_of(model, run, "own"))), list(range(6)))
        self.assertEqual(self.file().keys(), ["own.input"])

    def test_inputs_of_any_shape_are_rows(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4))
        x = numbered_rows(24, 4)
        strided = x.reshape(2, 3, 4, 4).permute(1, 0, 2, 3)
        for y in (x, x.reshape(2, 3, 4, 4), strided, x.double(), x.half(), x.bfloat16(), x.t().contiguous().t()):
            layer = model.to(y.dtype)
            self.assertEqual(sorted(numbers_of(self.rows_of(model, lambda: layer(y)))), list(range(24)))  # noqa: B023
        model.float()
        self.assertEqual(numbers_of(self.rows_of(model, lambda: model(x[5]))), [5])
        with record(model, self.path, overwrite=True, rows=7):
            model(strided)
        self.assertEqual(len(set(numbers_of(self.file().tensor("0.input")))), 7)

    def test_every_mode_of_autograd(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        recording = Recording(model, self.path)
        recording.start()
        for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad, torch.inference_mode):
            with mode():
                model(numbered_rows(10, 4))
        x = numbered_rows(10, 4).requires_grad_()
        model(x).sum().backward()
        self.assertIsNotNone(x.grad)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(numbered_rows(10, 4))
        self.assertEqual(recording.finish().rows, {"0": 60, "1": 60})
        self.assertEqual(sorted(set(numbers_of(self.file().tensor("0.input")))), list(range(10)))

    def test_a_module_that_is_called_several_times_has_all_its_inputs(self) -> None:
        class Twice(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(4, 4)
                self.again = self.layer

            def forward(self, x: Tensor) -> Tensor:
                self.layer(x)
                result: Tensor = self.again(x + torch.tensor([0.0, 1, 0, 0]))
                return result

        model = Twice()
        rows = self.rows_of(model, lambda: model(numbered_rows(10, 4)), "layer")
        self.assertEqual(sorted(numbers_of(rows)), sorted([*range(10), *range(128, 138)]))
        self.assertEqual(self.file().keys(), ["layer.input"])

    def test_compiled_modules_are_recorded(self) -> None:
        block = Attention(4)
        compiled: Any = torch.compile(block, backend="eager")
        x = torch.randn(6, 4)
        with torch.no_grad():
            compiled(x)
            for model in (compiled, block, nn.ModuleDict({"inner": compiled})):
                with record(model, self.path, overwrite=True) as recording:
                    compiled(x)
                    torch.compile(block, backend="eager", dynamic=False)(x)
                prefix = "inner." if isinstance(model, nn.ModuleDict) else ""
                names = [prefix + name for name in ("q", "k", "v", "out", "up", "down")]
                self.assertEqual(recording.account.rows, {name: 12 for name in names})
                self.assertEqual(recording.account.layers_without_input, ())

    def test_recordings_of_compiled_models_may_overlap(self) -> None:
        models = [Attention(4), Attention(4)]
        compiled: list[Any] = [torch.compile(model, backend="eager") for model in models]
        x = torch.randn(6, 4)
        with torch.no_grad():
            for model in compiled:
                model(x)
            recordings = [Recording(model, self.folder / f"{i}.safetensors") for i, model in enumerate(models)]
            recordings[0].start()
            recordings[1].start()
            compiled[0](x)
            recordings[0].finish()
            compiled[1](x)
            self.assertEqual(recordings[1].finish().rows_seen["down"], 6)
        from torch._dynamo import eval_frame

        self.assertEqual(eval_frame._stance.stance, "default")

    def test_layers_without_input_are_named(self) -> None:
        model = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        with self.assertLogs("qmill", "WARNING") as logs, record(model, self.path) as recording:
            model[0](torch.randn(3, 4))
        self.assertEqual(recording.account.layers_without_input, ("1",))
        self.assertIn("1 layer of the model not called, so without data ('1')", logs.output[0])

    def test_inputs_without_columns_are_skipped_and_named(self) -> None:
        for statistics in (False, True):
            model = nn.Sequential(nn.Linear(4, 0), nn.Linear(0, 4))
            with record(model, self.path, statistics=statistics, overwrite=True) as recording:
                model(torch.randn(3, 4))
            self.assertEqual(recording.account.rows, {"0": 3})
            self.assertEqual(recording.account.skipped, {"1": "an input without columns"})

    def test_inputs_without_values_are_skipped_and_named(self) -> None:
        model = nn.ModuleList([nn.Linear(4, 4), OwnLinear(4, 4), OwnLinear(4, 4)])
        with record(model, self.path) as recording:
            model[0](torch.randn(3, 4))
            model[1](x=torch.zeros(0, 4))
            model[2].weight = nn.Parameter(torch.zeros(4, 4, device="meta"))
            model[2](x=torch.randn(3, 4, device="meta"))
        self.assertEqual(list(recording.account.skipped), ["2"])
        self.assertIn("meta", recording.account.skipped["2"])
        self.assertEqual(self.file().keys(), ["0.input"])
        self.assertEqual(recording.account.rows, {"0": 3, "1": 0})

    def test_threads_do_not_lose_rows(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        recording = Recording(model, self.path)
        recording.start()

        def run(first: int) -> None:
            for call in range(20):
                with torch.no_grad():
                    model(numbered_rows(5, 4, first + 5 * call))

        threads = [threading.Thread(target=run, args=(1000 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        recording.finish()
        expected = [1000 * n + i for n in range(4) for i in range(100)]
        self.assertEqual(sorted(numbers_of(self.file().tensor("0.input"))), expected)

    def test_recording_does_not_change_the_results(self) -> None:
        model = Attention(8)
        x = torch.randn(7, 8)
        with torch.no_grad():
            torch.manual_seed(1)
            expected = model(x), torch.rand(3)
            torch.manual_seed(1)
            with record(model, self.path, rows=3):
                found = model(x), torch.rand(3)
        self.assertTrue(torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1]))


class Refused(RecordCase):
    def assert_refused(self, model: nn.Module, message: str) -> None:
        recording = record(model, self.path)
        with self.assertRaisesRegex(UnsupportedError, f"layer '0' is quantized .*{message}.*unquantized model"):
            recording.start()
        self.assertFalse(model[0]._forward_pre_hooks)  # type: ignore[index]

    def with_weight(self, weight: Tensor) -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        model[0].weight = nn.Parameter(weight, requires_grad=False)
        return model

    def test_weights_of_quantized_types(self) -> None:
        for dtype in (torch.int8, torch.uint8, torch.float8_e4m3fn, torch.float8_e5m2):
            name = str(dtype).removeprefix("torch.")
            self.assert_refused(self.with_weight(torch.zeros(4, 4).to(dtype)), f"type {name}")

    def test_weights_that_hide_their_type(self) -> None:
        class Wrapped(torch.Tensor):
            """Says that it is F32, and holds int8 values."""

            @staticmethod
            def __new__(cls, data: Tensor) -> Wrapped:
                return torch.Tensor._make_subclass(cls, torch.zeros(data.shape))

            def __init__(self, data: Tensor) -> None:
                self._qdata = data
                self._layout_cls = "SomeLayout"

        model = nn.Sequential(OwnLinear(4, 4))
        del model[0].weight
        model[0].weight = Wrapped(torch.zeros(4, 4, dtype=torch.int8))
        self.assert_refused(model, "class Wrapped with `_qdata`")

    def test_modules_with_packed_weights(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4))
        del model[0].weight
        model[0].register_buffer("qweight", torch.zeros(4, 1, dtype=torch.int32))
        self.assert_refused(model, "`qweight`")

    def test_weights_that_are_complex_are_not_called_quantized(self) -> None:
        recording = record(self.with_weight(torch.zeros(4, 4, dtype=torch.complex64)), self.path)
        with self.assertRaises(UnsupportedError) as caught:
            recording.start()
        self.assertIn("layer '0' has a weight of type complex64, expected a floating type", str(caught.exception))
        self.assertNotIn("quantized", str(caught.exception))

    def test_a_model_that_is_a_linear_layer(self) -> None:
        with self.assertRaisesRegex(UsageError, "is itself a linear layer, and has no name: wrap it"):
            record(nn.Linear(4, 4), self.path).start()

    def test_a_model_without_linear_layers(self) -> None:
        for model in (nn.Sequential(nn.LayerNorm(4)), nn.Conv2d(1, 1, 1)):
            with self.assertRaisesRegex(UsageError, "has no linear layers"):
                record(model, self.path).start()


if __name__ == "__main__":
    unittest.main()
