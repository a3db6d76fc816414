"""batch: several models in one go."""

import json
import os
import subprocess

import torch
from safetensors.torch import save_file

from support import QMILL, TempFolder, decode, qmill, read


def weight(rows=8, columns=64, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


class Batch(TempFolder):
    def setUp(self):
        super().setUp()
        self.models = self.folder / "models"
        self.models.mkdir()

    def add(self, name, seed=0, **tensors):
        path = self.models / name
        save_file({"a.weight": weight(seed=seed), **tensors}, path)
        return path

    def batch(self, *words, status=0):
        return json.loads(qmill("batch", *words, "--json", status=status)[0])

    def statuses(self, report):
        return [(os.path.basename(model["input"]), model["status"]) for model in report["models"]]

    def files(self, folder=None):
        return sorted(path.name for path in (folder or self.models).iterdir())

    def test_every_model_becomes_what_convert_makes_of_it(self):
        for seed, name in enumerate(("a", "b")):
            self.add(f"{name}.safetensors", seed)
        report = self.batch(self.models / "a.safetensors", self.models / "b.safetensors", "--scaling-mode", "tensor", "--no-comfy-quant")
        self.assertEqual(self.statuses(report), [("a.safetensors", "done"), ("b.safetensors", "done")])
        self.assertEqual(report["failed"], 0)
        for name in ("a", "b"):
            alone = self.folder / "alone.safetensors"
            qmill("-i", self.models / f"{name}.safetensors", "-o", alone, "--overwrite", "--scaling-mode", "tensor", "--no-comfy-quant")
            self.assertEqual((self.models / f"{name}_auto_int8_tensor.safetensors").read_bytes(), alone.read_bytes())

    def test_it_goes_on_after_a_failure_and_says_so_at_the_end(self):
        self.add("a.safetensors")
        (self.models / "b.safetensors").write_bytes(b"no model at all")
        self.add("c.safetensors", **{"bad.weight": torch.full((2, 2), float("nan"))})
        self.add("d.safetensors")
        output, _ = qmill("batch", "-d", self.models, status=1)
        lines = output.strip().splitlines()
        self.assertEqual([line.split()[0] for line in lines[:4]], ["done", "failed", "failed", "done"])
        self.assertIn("b.safetensors", lines[1])
        self.assertIn("bad.weight", lines[2])
        self.assertEqual(lines[4], "2 done, 2 failed")
        self.assertEqual(self.files(), ["a.safetensors", "a_auto_int8.safetensors", "b.safetensors", "c.safetensors", "d.safetensors", "d_auto_int8.safetensors"])

    def test_odd_names_in_the_folder_disturb_nobody(self):
        self.add("a.safetensors")
        (self.models / "loop.safetensors").symlink_to("loop.safetensors")
        with open(os.fsencode(self.models) + b"/odd\xff.safetensors", "wb") as file:
            file.write((self.models / "a.safetensors").read_bytes())
        result = subprocess.run([QMILL, "batch", "-d", self.models], capture_output=True)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn(b"2 done", result.stdout)

    def test_a_wrong_word_for_verbose(self):
        qmill("batch", self.add("a.safetensors"), "--verbose", "LOUD", status=2)

    def test_a_second_time_what_was_made_is_left_alone(self):
        self.add("a.safetensors")
        self.batch("--directory", self.models)
        report = self.batch("--directory", self.models, "--overwrite")
        self.assertEqual(self.statuses(report), [("a.safetensors", "done"), ("a_auto_int8.safetensors", "skipped")])
        report = self.batch("--directory", self.models, status=1)  # without --overwrite
        self.assertIn("exists already", report["models"][0]["error"])

    def test_an_output_folder_is_made(self):
        self.add("a.safetensors")
        output = self.folder / "new" / "small"
        self.batch("-i", self.models / "a.safetensors", "--output-dir", output)
        self.assertEqual(self.files(output), ["a_auto_int8.safetensors"])
        self.assertEqual(self.files(), ["a.safetensors"])

    def test_a_dry_run_writes_nothing(self):
        self.add("a.safetensors")
        for flag in (("--dry-run",), ("--dry-run", "analyze"), ("--dry-run-batch",)):
            report = self.batch(self.models / "a.safetensors", *flag, "--output-dir", self.folder / "new", "-y")
            self.assertEqual(self.statuses(report), [("a.safetensors", "planned")])
            self.assertEqual(report["models"][0]["report"]["layers"][0]["action"], "quantize")
            self.assertEqual(self.files(), ["a.safetensors"])
            self.assertFalse((self.folder / "new").exists())

    def test_patterns(self):
        for name in ("flux_a.safetensors", "flux_b.safetensors", "wan.safetensors", "notes.txt", ".hidden.safetensors", "flux[1].safetensors"):
            if name.endswith(".txt"):
                (self.models / name).write_text("x")
            else:
                self.add(name)
        dry = ("--dry-run", "--directory", self.models)
        self.assertEqual([name for name, _ in self.statuses(self.batch(*dry))], ["flux[1].safetensors", "flux_a.safetensors", "flux_b.safetensors", "wan.safetensors"])
        self.assertEqual([name for name, _ in self.statuses(self.batch(*dry, "--pattern", "flux_?.safetensors"))], ["flux_a.safetensors", "flux_b.safetensors"])
        self.assertEqual([name for name, _ in self.statuses(self.batch(*dry, "--pattern", "*[1]*"))], ["flux[1].safetensors"])
        report = self.batch("--dry-run", "--inputs", self.models / "flux_*.safetensors", "-i", self.models / "wan.safetensors")
        self.assertEqual(len(report["models"]), 3)

    def test_shards_count_as_their_index(self):
        save_file({"a.weight": weight()}, self.models / "big-00001-of-00002.safetensors")
        save_file({"b.weight": weight()}, self.models / "big-00002-of-00002.safetensors")
        (self.models / "big.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"a.weight": "big-00001-of-00002.safetensors", "b.weight": "big-00002-of-00002.safetensors"}}))
        self.add("small.safetensors")
        report = self.batch("--directory", self.models)
        self.assertEqual(self.statuses(report), [("big.safetensors.index.json", "done"), ("small.safetensors", "done")])
        self.assertIn("b.comfy_quant", read(self.models / "big_auto_int8.safetensors")[0])

    def test_wrong_command_lines(self):
        model = self.add("a.safetensors")
        (self.folder / "other").mkdir()
        twin = self.folder / "other" / "a.safetensors"
        save_file({"a.weight": weight()}, twin)
        cases = {
            (): "no model is given",
            (model, "-o", "x"): "every model has an output of its own",
            (model, "-ox"): "every model has an output of its own",
            (model, "--output=x"): "every model has an output of its own",
            (model, "--directory", self.models): "choose one",
            (model, "--pattern", "*"): "--pattern needs --directory",
            ("--directory", self.models, "--pattern", "*.gguf"): "no file in it matches",
            (self.models / "z*.safetensors",): "no file matches",
            (model, "--formt", "int8"): "did you mean '--format'?",
            (model, "--format", "int9"): "no format 'int9'",
            (model, "--block-size", "0"): "an integer from 1",
            (model, "--dry-run", "create-template"): "batch writes no templates",
            (model, twin, "--output-dir", self.folder / "new"): "would both become",
        }
        for words, says in cases.items():
            with self.subTest(words):
                output, error = qmill("batch", *words, status=2)
                self.assertEqual(output, "")
                self.assertEqual(len(error.strip().splitlines()), 1)
                self.assertIn(says, error)
        self.assertEqual(self.files(), ["a.safetensors"])
        self.assertIn("cannot read the folder", qmill("batch", "--directory", self.folder / "none", status=1)[1])

    # LoRAs.

    def lora(self, name, value=1.0, folder=None):
        path = (folder or self.folder) / name
        path.parent.mkdir(exist_ok=True)
        save_file({"a.lora_A.weight": torch.full((1, 64), 0.5), "a.lora_B.weight": torch.full((8, 1), value)}, path)
        return path

    def mapping(self, content):
        path = self.folder / "mapping.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def merged(self, model, *loras):
        """Whether the output has the sum of these LoRAs in its layer: (name, value) as they were made, the i-th weakened by 0.9^i."""
        tensors, _ = read(self.models / f"{model}_auto_int8.safetensors")
        expected = weight().double() + sum(0.5 * value * 0.9**i for i, value in enumerate(loras))
        step = tensors["a.weight_scale"].double()
        return bool(((decode(tensors, "a") - expected).abs() <= 0.51 * step).all())

    def test_the_mapping_decides_which_loras_are_merged(self):
        for name in ("exact", "by_stem", "flux1-dev_v2", "none"):
            self.add(f"{name}.safetensors")
        first, second = self.lora("first.safetensors", 1.0), self.lora("second.safetensors", 2.0)
        mapping = self.mapping({"_comment": "any", "flux1": str(second), "exact.safetensors": str(first), "by_stem": [str(first), str(second)], "exact": str(second), "unused": "x"})
        output, error = qmill("batch", "--directory", self.models, "--lora-mapping", mapping)
        self.assertIn("4 done", output)
        self.assertIn("the LoRA mapping's 'unused' matches no model", error)
        self.assertTrue(self.merged("exact", 1.0))
        self.assertTrue(self.merged("by_stem", 1.0, 2.0))
        self.assertFalse(self.merged("by_stem", 1.0))
        self.assertTrue(self.merged("flux1-dev_v2", 2.0))
        self.assertTrue(self.merged("none"))

    def test_parts_of_names_end_at_separators(self):
        for name in ("wan2", "my.wan", "swan"):
            self.add(f"{name}.safetensors")
        self.batch("--directory", self.models, "--lora-mapping", self.mapping({"wan": str(self.lora("lora.safetensors"))}))
        self.assertTrue(self.merged("my.wan", 1.0))
        self.assertTrue(self.merged("wan2"))
        self.assertTrue(self.merged("swan"))

    def test_the_folder_of_loras(self):
        loras = self.folder / "loras"
        for name in ("a", "b", "c", "d"):
            self.add(f"{name}.safetensors")
        self.lora("a.safetensors", 1.0, loras)
        self.lora("b_lora.safetensors", 2.0, loras)
        self.lora("style.safetensors", 3.0, loras)
        self.batch("--directory", self.models, "--lora-dir", loras, "--lora-mapping", self.mapping({"c": "style.safetensors"}))
        self.assertTrue(self.merged("a", 1.0))
        self.assertTrue(self.merged("b", 2.0))
        self.assertTrue(self.merged("c", 3.0))
        self.assertTrue(self.merged("d"))

    def test_a_lora_for_all_beats_the_mapping(self):
        self.add("a.safetensors")
        _, error = qmill("batch", "--directory", self.models, "--merge-lora", self.lora("all.safetensors", 1.0), "--merge-lora-scale", "2",
                         "--lora-mapping", self.mapping({"a": str(self.lora("other.safetensors", 5.0))}))
        self.assertIn("the LoRA mapping is not used", error)
        self.assertTrue(self.merged("a", 2.0))

    def test_a_strength_is_for_those_that_have_loras(self):
        for name in ("a", "b"):
            self.add(f"{name}.safetensors")
        self.batch("--directory", self.models, "--merge-lora-scale", "0.5", "--lora-mapping", self.mapping({"a": str(self.lora("lora.safetensors", 1.0))}))
        self.assertTrue(self.merged("a", 0.5))
        self.assertTrue(self.merged("b"))

    def test_a_lora_that_is_missing_fails_its_model_only(self):
        for name in ("a", "b"):
            self.add(f"{name}.safetensors")
        report = self.batch("--directory", self.models, "--lora-mapping", self.mapping({"a": "/nowhere/x.safetensors"}), status=1)
        self.assertEqual(self.statuses(report), [("a.safetensors", "failed"), ("b.safetensors", "done")])
        self.assertIn("/nowhere/x.safetensors", report["models"][0]["error"])

    def test_mappings_that_are_wrong(self):
        self.add("a.safetensors")
        cases = {
            "": "not valid JSON",
            "[]": "expected an object",
            '{"a": 1}': "expected a path or a list of paths",
            '{"a": []}': "an empty list",
            '{"a": ""}': "expected a path",
            '{"a": ["x", 2]}': "expected a path",
            '{"a": "x", "a": "y"}': "names 'a' twice",
            '{"": "x"}': "an empty key",
            "[" * 100000: "nested deeper",
        }
        for text, says in cases.items():
            with self.subTest(text[:40]):
                _, error = qmill("batch", "--directory", self.models, "--lora-mapping", self.mapping(text), status=1)
                self.assertIn("mapping.json", error)
                self.assertIn(says, error)
        _, error = qmill("batch", "--directory", self.models, "--lora-dir", self.folder / "nowhere", status=1)
        self.assertIn("it is not a folder", error)
        self.assertEqual(self.files(), ["a.safetensors"])
