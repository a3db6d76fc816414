"""The node that records a diffusion model: the right rows, nothing left on the model, no file of half a run."""

from __future__ import annotations

import unittest
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

import qmill
from comfy_stand_in import management
from comfy_stand_in.case import ComfyTest, sorted_rows, stored
from comfy_stand_in.patching import sample

SIGMAS = [1.0, 0.75, 0.3, 0.0]
LAYERS = ["time", *(f"blocks.{i}.{name}" for i in (0, 1) for name in ("q", "k", "v", "out"))]


class Recorded(ComfyTest):
    def test_rows_are_the_inputs_of_every_layer(self) -> None:
        model, session = self.record()
        sample(model, sigmas=SIGMAS, **self.noise())
        inputs: dict[str, list[Tensor]] = defaultdict(list)
        handles = [
            module.register_forward_pre_hook(lambda _, args, name=name: inputs[name].append(args[0].flatten(0, -2)))
            for name, module in self.model.diffusion_model.named_modules()
            if isinstance(module, nn.Linear)
        ]
        sample(self.patcher, sigmas=SIGMAS, **self.noise())
        for handle in handles:
            handle.remove()
        entries, _ = stored(self.rows_file)
        self.assertEqual(sorted(entries), sorted(LAYERS))
        for layer in LAYERS:
            with self.subTest(layer=layer):
                self.assertEqual(sorted_rows(entries[layer]), sorted_rows(torch.cat(inputs[layer])))

    def test_noise_levels_are_strata_of_both_conditions(self) -> None:
        model, _ = self.record()
        sample(model, sigmas=SIGMAS, **self.noise())
        _, seen = stored(self.rows_file)
        self.assertEqual(seen["blocks.0.q"], [[1, 10, 10], [0.75, 10, 10], [0.3, 10, 10]])
        self.assertEqual(seen["blocks.1.k"], [[1, 6, 6], [0.75, 6, 6], [0.3, 6, 6]])

    def test_rounding_errors_of_sigma_make_no_new_stratum(self) -> None:
        model, _ = self.record()
        sample(model, sigmas=[1.0, 0.75, 0.0], **self.noise())
        sample(model, sigmas=[1.0, 0.75 + 1e-6, 0.0], **self.noise())
        _, seen = stored(self.rows_file)
        self.assertEqual([label for label, _, _ in seen["blocks.0.q"]], [1, 0.75])

    def test_several_runs_add_up(self) -> None:
        model, _ = self.record()
        for seed in range(3):
            sample(model, sigmas=SIGMAS, **self.noise(seed))
        entries, seen = stored(self.rows_file)
        self.assertEqual(seen["blocks.0.q"], [[1, 30, 30], [0.75, 30, 30], [0.3, 30, 30]])
        self.assertEqual(len(set(sorted_rows(entries["blocks.1.q"]))), 90)

    def test_a_later_node_adds_to_the_file(self) -> None:
        sample(self.record()[0], sigmas=SIGMAS, **self.noise(0))
        sample(self.record()[0], sigmas=SIGMAS, **self.noise(1))
        _, seen = stored(self.rows_file)
        self.assertEqual([count for _, count, _ in seen["blocks.0.q"]], [20, 20, 20])

    def test_the_widget_rows_limits_every_layer(self) -> None:
        model, _ = self.record(rows=9)
        sample(model, sigmas=SIGMAS, **self.noise())
        entries, seen = stored(self.rows_file)
        self.assertEqual({len(rows) for layer, rows in entries.items() if layer != "time"}, {9})
        self.assertEqual([rows for _, _, rows in seen["blocks.0.q"]], [3, 3, 3])

    def test_the_widget_budget_limits_the_file(self) -> None:
        model, _ = self.record(budget_mib=1)
        for seed in range(60):
            sample(model, sigmas=SIGMAS, **self.noise(seed))
        self.assertLessEqual(self.rows_file.stat().st_size, 1 << 20)
        entries, seen = stored(self.rows_file)
        self.assertLess(len(entries["blocks.0.q"]), sum(count for _, count, _ in seen["blocks.0.q"]))


class Untouched(ComfyTest):
    def test_sampling_gives_the_same_bits_and_no_hook_stays(self) -> None:
        plain = sample(self.patcher, sigmas=SIGMAS, **self.noise())
        model, _ = self.record()
        during: list[int] = []
        handle = self.model.diffusion_model.register_forward_pre_hook(lambda *_: during.append(self.hooks() - 1))
        recorded = sample(model, sigmas=SIGMAS, after_step=lambda _: during.append(self.hooks() - 1), **self.noise())
        handle.remove()
        self.assertTrue(torch.equal(plain, recorded))
        self.assertEqual(during, [10, 0] * 3)  # during a call there is one per layer
        self.assertEqual(self.hooks(), 0)

    def test_another_branch_with_the_same_model_is_not_recorded(self) -> None:
        model, _ = self.record()
        sample(model, sigmas=SIGMAS, **self.noise())
        before = self.rows_file.read_bytes()
        sample(self.patcher, sigmas=SIGMAS, **self.noise(1))
        sample(self.patcher.clone(), sigmas=SIGMAS, **self.noise(2))
        self.assertEqual(self.rows_file.read_bytes(), before)
        self.assertEqual(self.patcher.wrappers, {})

    def test_a_branch_that_samples_between_two_steps_is_not_recorded(self) -> None:
        def other_branch(_: int) -> None:
            sample(self.patcher, sigmas=[0.5, 0.0], **self.noise(5))

        model, _ = self.record()
        sample(model, sigmas=SIGMAS, after_step=other_branch, **self.noise())
        _, seen = stored(self.rows_file)
        self.assertEqual([label for label, _, _ in seen["blocks.0.q"]], [1, 0.75, 0.3])

    def test_a_clone_behind_the_node_is_recorded(self) -> None:
        model, _ = self.record()
        sample(model.clone(), sigmas=SIGMAS, **self.noise())
        self.assertTrue(self.rows_file.exists())

    def test_a_call_outside_of_sampling_is_not_recorded(self) -> None:
        model, _ = self.record()
        noise = self.noise()
        during: list[int] = []
        self.model.diffusion_model.register_forward_hook(lambda *_: during.append(self.hooks() - 1))
        with torch.inference_mode():
            self.model.apply_model(
                noise["x"], torch.ones(1), noise["positive"], transformer_options={"wrappers": model.wrappers}
            )
        self.assertEqual(during, [0])
        self.assertFalse(self.rows_file.exists())

    def test_the_switch_off_gives_back_the_model_itself(self) -> None:
        model, session = self.record(enabled=False)
        self.assertIs(model, self.patcher)
        self.assertEqual(session.settings.file, self.rows_file)

    def test_the_switch_off_needs_no_checkpoint_and_creates_no_folder(self) -> None:
        model, _ = self.record(enabled=False, checkpoint="diffusion_models/gone.safetensors")
        self.assertIs(model, self.patcher)
        self.assertFalse(self.rows_file.parent.exists())


class EndsEarly(ComfyTest):
    def interrupted(self, model: Any) -> None:
        def stop(step: int) -> None:
            if step == 1:
                management.interrupt_current_processing()

        with self.assertRaises(management.InterruptProcessingException):
            sample(model, sigmas=SIGMAS, after_step=stop, **self.noise(3))

    def test_an_interrupted_first_run_leaves_no_file(self) -> None:
        model, _ = self.record()
        self.interrupted(model)
        self.assertEqual(list(self.rows_file.parent.iterdir()), [])
        self.assertEqual(self.hooks(), 0)

    def test_an_interrupted_run_adds_nothing_and_the_next_one_does(self) -> None:
        model, _ = self.record()
        sample(model, sigmas=SIGMAS, **self.noise(0))
        before = self.rows_file.read_bytes()
        self.interrupted(model)
        self.assertEqual(self.rows_file.read_bytes(), before)
        self.assertEqual(self.hooks(), 0)
        sample(model, sigmas=SIGMAS, **self.noise(1))
        _, seen = stored(self.rows_file)
        self.assertEqual([count for _, count, _ in seen["blocks.0.q"]], [20, 20, 20])

    def test_an_error_inside_the_model_goes_through_and_leaves_nothing(self) -> None:
        model, _ = self.record()
        noise = self.noise()
        noise["positive"] = noise["positive"][..., :-1]
        noise["negative"] = noise["negative"][..., :-1]
        with self.assertRaisesRegex(RuntimeError, "shapes cannot be multiplied"):
            sample(model, sigmas=SIGMAS, **noise)
        self.assertEqual(list(self.rows_file.parent.iterdir()), [])
        self.assertEqual(self.hooks(), 0)

    def test_a_run_without_steps_is_an_error(self) -> None:
        model, _ = self.record()
        with self.assertRaisesRegex(RuntimeError, "the model was not called in this run"):
            sample(model, sigmas=[1.0], **self.noise())


class Refused(ComfyTest):
    def refused(self, error: type[Exception], pattern: str, model: Any) -> None:
        with self.assertRaisesRegex(error, pattern):
            sample(model, sigmas=SIGMAS, **self.noise())
        self.assertEqual(self.hooks(), 0)

    def test_a_model_that_is_quantized_already(self) -> None:
        layer = self.model.diffusion_model.blocks[1].out
        layer.weight = nn.Parameter(layer.weight.to(torch.float8_e4m3fn), requires_grad=False)
        model, _ = self.record()
        self.refused(qmill.UnsupportedError, "'blocks.1.out' is quantized .*float8_e4m3fn", model)
        self.assertFalse(self.rows_file.exists())

    def test_a_file_that_exists_if_append_is_off(self) -> None:
        self.rows_file.parent.mkdir(parents=True)
        self.rows_file.write_bytes(b"mine")
        model, _ = self.record(append=False)
        self.refused(qmill.FileError, "exists", model)
        self.assertEqual(self.rows_file.read_bytes(), b"mine")

    def test_append_off_still_adds_the_runs_of_one_node(self) -> None:
        model, _ = self.record(append=False)
        sample(model, sigmas=SIGMAS, **self.noise(0))
        sample(model, sigmas=SIGMAS, **self.noise(1))
        _, seen = stored(self.rows_file)
        self.assertEqual([count for _, count, _ in seen["blocks.0.q"]], [20, 20, 20])

    def test_a_file_that_is_no_recording(self) -> None:
        self.rows_file.parent.mkdir(parents=True)
        self.rows_file.write_bytes(self.checkpoint.read_bytes())
        model, _ = self.record()
        self.refused(qmill.InputError, "is no recording", model)
        self.assertEqual(self.rows_file.read_bytes(), self.checkpoint.read_bytes())

    def test_two_nodes_with_one_file(self) -> None:
        model, _ = self.record(self.record()[0])
        self.refused(RuntimeError, "two record nodes write", model)
        self.assertFalse(self.rows_file.exists())

    def test_two_nodes_with_two_files_both_record(self) -> None:
        model, _ = self.record(self.record()[0], rows_file="qmill/second.safetensors")
        sample(model, sigmas=SIGMAS, **self.noise())
        first, _ = stored(self.rows_file)
        second, _ = stored(self.rows_file.with_name("second.safetensors"))
        self.assertEqual(sorted_rows(first["blocks.0.q"]), sorted_rows(second["blocks.0.q"]))

    def test_a_checkpoint_of_another_model(self) -> None:
        self.save(self.text_models.t5xxl.transformer, self.models / "checkpoints" / "other.safetensors")
        model, _ = self.record(checkpoint="checkpoints/other.safetensors")
        self.refused(qmill.UsageError, "no linear layer of the model matches", model)

    def test_a_model_in_the_middle_of_a_run(self) -> None:
        model, session = self.record()
        other = torch.nn.Sequential(nn.Linear(4, 4))
        with self.assertRaisesRegex(RuntimeError, "two models are called in one run"), session.run():
            with session.call(self.model.diffusion_model):
                pass
            with session.call(other):
                pass


class Status(ComfyTest):
    def test_the_node_shows_what_is_recorded(self) -> None:
        model, session = self.record()
        self.assertIn("nothing is recorded by this node yet", session.status)
        sample(model, sigmas=SIGMAS, **self.noise())
        ((node, text),) = self.texts()
        self.assertEqual(node, "7")
        self.assertEqual(text, session.status)
        size = self.rows_file.stat().st_size / 1000
        self.assertEqual(
            text,
            f"9 layers with 6 to 30 rows; {size:.1f} kB in '{self.rows_file}'; 1 layer not called",
        )

    def test_layers_that_match_nothing_are_counted(self) -> None:
        del self.model.diffusion_model.unused
        self.model.diffusion_model.blocks[1].extra = nn.Linear(3, 3)
        model, session = self.record()
        sample(model, sigmas=SIGMAS, **self.noise())
        self.assertIn("1 layer of the model not in the checkpoint", session.status)
        self.assertIn("1 layer of the checkpoint not in the model", session.status)

    def test_the_status_node_passes_the_file_on(self) -> None:
        model, session = self.record()
        latent = {"samples": sample(model, sigmas=SIGMAS, **self.noise())}
        answer = self.pack.NODE_CLASS_MAPPINGS["QmillRecordingStatus"]().status(session, latent, node_id="8")
        self.assertEqual(answer, {"ui": {"text": [session.status]}, "result": (session.status, str(self.rows_file))})


if __name__ == "__main__":
    unittest.main()
