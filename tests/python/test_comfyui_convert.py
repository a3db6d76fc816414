"""The nodes that convert a file, and that say what is in one."""

from __future__ import annotations

import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from comfy_stand_in import management
from comfy_stand_in.case import ComfyTest
from comfy_stand_in.patching import sample

import qmill


class NodeTest(ComfyTest):
    def convert(self, **values: Any) -> tuple[Path, str]:
        """Path and summary of a run of the node, in inference mode and in a thread of its own, as in ComfyUI."""

        def run() -> dict[str, Any]:
            with torch.inference_mode():
                result: dict[str, Any] = node.convert(**{**self.widgets(), **values})
            return result

        node = self.pack.NODE_CLASS_MAPPINGS["QmillConvert"]()
        with ThreadPoolExecutor(max_workers=1) as thread:
            answer = thread.submit(run).result()
        path, summary = answer["result"]
        self.assertEqual(answer["ui"], {"text": [summary]})
        return Path(path), summary

    def changed(self, **values: Any) -> str:
        """What ComfyUI compares to know whether the node must run again."""
        result: str = self.pack.NODE_CLASS_MAPPINGS["QmillConvert"].IS_CHANGED(**{**self.widgets(), **values})
        return result

    def widgets(self) -> dict[str, Any]:
        return {
            "model_file": "diffusion_models/tiny.safetensors",
            "format": "int8",
            "optimizer": "auto",
            "filter": "none",
            "rows_file": "",
            "file_name": "",
            "overwrite": False,
            "more_options": "{}",
            "node_id": "9",
        }

    def record_rows(self) -> None:
        model, _ = self.record()
        for seed in range(8):
            sample(model, sigmas=[1.0, 0.75, 0.3, 0.0], **self.noise(seed))

    def models_in_folder(self) -> list[str]:
        return sorted(path.name for path in self.checkpoint.parent.iterdir())


class Convert(NodeTest):
    def test_writes_what_qmill_writes_beside_the_model(self) -> None:
        path, summary = self.convert()
        self.assertEqual(path, self.checkpoint.with_name("tiny_int8.safetensors"))
        expected = self.root / "expected.safetensors"
        qmill.convert(self.checkpoint, expected, format="int8", filter="none")
        self.assertEqual(path.read_bytes(), expected.read_bytes())
        self.assertIn("10 layers: 10 int8_tensorwise; quantizer: rtn", summary)
        self.assertIn((("9", summary)), self.texts())

    def test_uses_the_recorded_rows(self) -> None:
        self.record_rows()
        path, summary = self.convert(rows_file="qmill/rows.safetensors")
        expected = self.root / "expected.safetensors"
        qmill.convert(self.checkpoint, expected, format="int8", filter="none", calibration_data=self.rows_file)
        self.assertEqual(path.read_bytes(), expected.read_bytes())
        self.assertIn("quantizer: gptq", summary)
        self.assertRegex(summary, r"mean relative error of the outputs: 0\.\d+ \(rounding to nearest: 0\.\d+\)")

    def test_takes_the_path_that_the_status_node_gives(self) -> None:
        self.record_rows()
        below, _ = self.convert(rows_file="qmill/rows.safetensors", file_name="a.safetensors")
        absolute, _ = self.convert(rows_file=str(self.rows_file), file_name="b.safetensors")
        self.assertEqual(below.read_bytes(), absolute.read_bytes())

    def test_options_reach_qmill(self) -> None:
        path, _ = self.convert(format="fp8", more_options='{"scaling_mode": "tensor", "exclude_layers": "time"}')
        expected = self.root / "expected.safetensors"
        qmill.convert(
            self.checkpoint, expected, format="fp8", filter="none", scaling_mode="tensor", exclude_layers="time"
        )
        self.assertEqual(path.name, "tiny_fp8.safetensors")
        self.assertEqual(path.read_bytes(), expected.read_bytes())

    def test_a_name_with_a_folder_is_below_the_model_folder(self) -> None:
        folder = self.checkpoint.parent / "flux"
        folder.mkdir()
        self.checkpoint.rename(folder / "tiny.safetensors")
        path, _ = self.convert(model_file="diffusion_models/flux/tiny.safetensors", file_name="small/x.safetensors")
        self.assertEqual(path, self.checkpoint.parent / "small" / "x.safetensors")
        self.assertTrue(path.exists())
        beside, _ = self.convert(model_file="diffusion_models/flux/tiny.safetensors")
        self.assertEqual(beside, folder / "tiny_int8.safetensors")

    def test_a_result_that_exists_is_replaced_only_with_overwrite(self) -> None:
        target = self.checkpoint.with_name("tiny_int8.safetensors")
        target.write_bytes(b"mine")
        with self.assertRaisesRegex(qmill.QmillError, "tiny_int8.safetensors"):
            self.convert()
        self.assertEqual(target.read_bytes(), b"mine")
        self.convert(overwrite=True)
        self.assertGreater(target.stat().st_size, 1000)

    def test_rows_of_a_file_that_is_missing(self) -> None:
        with self.assertRaisesRegex(qmill.QmillError, "missing.safetensors"):
            self.convert(rows_file="missing.safetensors")
        self.assertEqual(self.models_in_folder(), ["tiny.safetensors"])

    def test_progress_goes_to_the_bar(self) -> None:
        path, _ = self.convert()
        (bar,) = management.bars
        done = [value for value, _ in bar.shown]
        self.assertEqual(done, sorted(done))
        self.assertEqual(bar.shown[-1], (path.stat().st_size, path.stat().st_size))
        self.assertEqual(bar.node_id, "9")

    def test_an_interruption_ends_the_conversion_and_leaves_nothing(self) -> None:
        management.interrupt_current_processing()
        with self.assertRaises(management.InterruptProcessingException):
            self.convert()
        self.assertEqual(self.models_in_folder(), ["tiny.safetensors"])
        self.convert()

    def test_an_interruption_in_the_middle(self) -> None:
        interrupt = management.interrupt_current_processing
        with (
            mock.patch.object(management.ProgressBar, "update_absolute", lambda *_, **__: interrupt()),
            self.assertRaises(management.InterruptProcessingException),
        ):
            self.convert()
        self.assertEqual(self.models_in_folder(), ["tiny.safetensors"])

    def test_wrong_options(self) -> None:
        for written, pattern in (
            ("{", "more_options is no JSON"),
            ("[]", "must be a JSON object, not list"),
            ('{"output": "/etc/x"}', "has 'output', which the node has a field for"),
            ('{"progress": 1}', "has 'progress'"),
            ('{"scaling": "row"}', "scaling"),
        ):
            with self.subTest(written=written), self.assertRaisesRegex(ValueError, pattern):
                self.convert(more_options=written)
        self.assertEqual(self.models_in_folder(), ["tiny.safetensors"])

    def test_wrong_names(self) -> None:
        for name in ("../x.safetensors", "/tmp/x.safetensors", "a/../../x.safetensors", "x.gguf", "x"):
            with self.subTest(name=name), self.assertRaisesRegex(ValueError, "file_name '.*' must"):
                self.convert(file_name=name)
        for name in ("../x.safetensors", "x.json"):
            with self.subTest(name=name), self.assertRaisesRegex(ValueError, "rows_file '.*' must"):
                self.convert(rows_file=name)
        with self.assertRaisesRegex(FileNotFoundError, "'gone.safetensors' is not in ComfyUI's folder"):
            self.convert(model_file="diffusion_models/gone.safetensors")
        for choice in ("vae/x.safetensors", "tiny.safetensors", "diffusion_models/"):
            with self.subTest(choice=choice), self.assertRaisesRegex(ValueError, "is no model file"):
                self.convert(model_file=choice)

    def test_runs_again_only_if_a_file_changed(self) -> None:
        before = self.changed()
        path, _ = self.convert()
        self.assertEqual(self.changed(), before)
        path.write_bytes(b"of somebody else")
        self.assertNotEqual(self.changed(), before)
        path.unlink()
        self.assertNotEqual(self.changed(), before)
        self.record_rows()
        with_rows = self.changed(rows_file="qmill/rows.safetensors")
        self.record_rows()
        self.assertNotEqual(self.changed(rows_file="qmill/rows.safetensors"), with_rows)
        self.save(self.text_models, self.checkpoint)
        self.assertNotEqual(self.changed(), before)
        self.assertEqual(self.changed(rows_file=None), "linked")
        self.assertEqual(self.changed(file_name="../x"), "wrong")


class Inspect(NodeTest):
    def ask(self, name: str, question: str) -> str:
        answer = self.pack.NODE_CLASS_MAPPINGS["QmillInspect"]().ask(name, question, node_id="4")
        (text,) = answer["result"]
        self.assertEqual(answer["ui"], {"text": [text]})
        return str(text)

    def test_inspect_counts_layers_and_tensors(self) -> None:
        self.assertIn("0 of 10 layers are quantized: none", self.ask("diffusion_models/tiny.safetensors", "inspect"))
        self.convert()
        text = self.ask("diffusion_models/tiny_int8.safetensors", "inspect")
        self.assertIn("10 of 10 layers are quantized: ", text)
        self.assertIn("10 I8", text)
        self.assertIn(("4", text), self.texts())

    def test_verify_names_programs_and_findings(self) -> None:
        self.convert()
        text = self.ask("diffusion_models/tiny_int8.safetensors", "verify")
        expected = qmill.verify(self.checkpoint.with_name("tiny_int8.safetensors"))
        for reader in expected.readers:
            self.assertRegex(text, rf"(?m)^{reader.name}: (loads it|does not load it|not known)")
        self.assertEqual(len(text.splitlines()), len(expected.readers) + len(expected.findings))
        self.assertTrue(expected.findings)

    def test_a_linked_path_is_looked_at_instead(self) -> None:
        path, _ = self.convert()
        node = self.pack.NODE_CLASS_MAPPINGS["QmillInspect"]()
        (text,) = node.ask("diffusion_models/tiny.safetensors", "inspect", path=str(path))["result"]
        self.assertIn("10 of 10 layers are quantized", text)

    def test_a_damaged_file(self) -> None:
        self.checkpoint.write_bytes(self.checkpoint.read_bytes()[:100])
        for question in ("inspect", "verify"):
            with self.subTest(question=question), self.assertRaisesRegex(qmill.QmillError, "tiny.safetensors"):
                self.ask("diffusion_models/tiny.safetensors", question)


if __name__ == "__main__":
    unittest.main()
